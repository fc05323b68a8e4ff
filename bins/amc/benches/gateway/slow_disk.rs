//! A disk that gives 200 flushes a second, to be preloaded (`LD_PRELOAD`) into a program: each flush takes five
//! milliseconds, one after another, whatever the machine's own disk would do.

#![expect(unsafe_code, reason = "a symbol of libc is replaced, which needs its plain name")]

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

static DISK: Mutex<()> = Mutex::new(());

/// In place of libc's: waits and says that it is done.
#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(_file: i32) -> i32 {
    let _one_at_a_time = DISK.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::sleep(Duration::from_millis(5));
    0
}
