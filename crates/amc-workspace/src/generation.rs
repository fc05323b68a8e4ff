//! A number beside the gateway's socket that changes whenever an answer about a lease may: the gateway asks the monitor
//! once and looks at the number afterwards, which takes a microsecond and is as current as asking.
//!
//! ```text
//! run/gateway.generation: u64 little-endian
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// The monitor's side.
#[derive(Debug)]
pub struct Generation {
    file: File,
    number: AtomicU64,
}

impl Generation {
    /// Makes the file anew, for this user alone.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        // Whoever holds an old one goes on reading that; it is of a monitor that is gone.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all_at(&1u64.to_le_bytes(), 0)?;
        Ok(Generation { file, number: AtomicU64::new(1) })
    }

    /// What was answered before counts no more. After this returns no reader sees the old number.
    pub fn advance(&self) {
        let number = self.number.fetch_add(1, Ordering::SeqCst) + 1;
        // Two at once may write in either order; both numbers are new to whoever read before. A file in memory or in
        // the page cache takes eight bytes in place.
        if self.file.write_all_at(&number.to_le_bytes(), 0).is_err() {
            // A reader that can read nothing asks.
            let _ = self.file.set_len(0);
        }
    }
}

/// The gateway's side.
#[derive(Debug)]
pub struct GenerationReader(File);

impl GenerationReader {
    /// Opens the file.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(GenerationReader)
    }

    /// The number now; `None` where it cannot be read, so that nothing counts that was answered before.
    pub fn now(&self) -> Option<u64> {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, 0).ok()?;
        Some(u64::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_every_change_and_nothing_of_a_file_that_is_cut() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("generation");
        let generation = Generation::create(&path).expect("it is made");
        let reader = GenerationReader::open(&path).expect("it is there");
        let mut seen = vec![reader.now().expect("a number")];
        for _ in 0..3 {
            generation.advance();
            let now = reader.now().expect("a number");
            assert!(!seen.contains(&now), "{seen:?} {now}");
            seen.push(now);
        }
        generation.file.set_len(3).expect("it is cut");
        assert_eq!(reader.now(), None);
        let next = Generation::create(&path).expect("another monitor");
        next.advance();
        assert_eq!(reader.now(), None, "the file of the one that is gone");
    }
}
