//! What a process does to itself before it holds a key: no core dumps, no tracing by others of its
//! user, memory that is not written to swap.

use std::io;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use crate::answer::Failure;

/// Protects this process. What it does not allow is a reason not to hold keys, except for the memory:
/// that is locked where the limits allow it.
///
/// # Errors
/// [`Failure`] (3) when the system refuses.
pub fn protect() -> Result<(), Failure> {
    let refused = |what: &str, error: io::Error| Failure::unable(format!("cannot {what}, so no key is held: {error}"));
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| refused("keep others from reading this process", error.into()))?;
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(|error| refused("switch off core dumps", error.into()))?;
    if may_lock_all() {
        // Pages are locked when they are first used, so nothing is taken that is not needed.
        let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
        // An old kernel or a small machine goes without; `vault status` says whether it is locked.
        let _ = mlockall(flags);
    }
    Ok(())
}

/// The machine's memory, by which costs are chosen.
pub fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

/// Under a limit that scrypt's memory exceeds, a promise to lock everything would end the process.
fn may_lock_all() -> bool {
    let unlimited = getrlimit(Resource::Memlock).current.is_none();
    unlimited || capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK))
}
