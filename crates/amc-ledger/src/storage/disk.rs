//! The real disk. Directories are opened before names in them change, so that a failed flush of a
//! directory cannot get lost with a closed descriptor.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FallocateFlags, FlockOperation};

use super::{Lock, LockError, Storage, StoredFile};

/// A log's directory on the real disk.
pub(crate) struct Disk {
    root: PathBuf,
    held: Mutex<BTreeMap<String, Arc<File>>>,
}

impl Disk {
    pub(crate) fn new(root: &Path) -> Self {
        Disk { root: root.to_owned(), held: Mutex::new(BTreeMap::new()) }
    }

    fn at(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }

    /// The descriptor of a directory, opened once.
    fn hold(&self, dir: &str) -> io::Result<Arc<File>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = held.get(dir) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(File::open(self.at(dir))?);
        held.insert(dir.to_owned(), Arc::clone(&file));
        Ok(file)
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

impl Storage for Disk {
    fn names(&self, dir: &str) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(self.at(dir))?;
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn StoredFile>> {
        Ok(Arc::new(DiskFile(File::open(self.at(path))?)))
    }

    fn open_write(&self, path: &str) -> io::Result<Arc<dyn StoredFile>> {
        Ok(Arc::new(DiskFile(OpenOptions::new().read(true).write(true).open(self.at(path))?)))
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn StoredFile>> {
        self.hold(parent(path))?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        Ok(Arc::new(DiskFile(options.open(self.at(path))?)))
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(self.at(path))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.hold(parent(to))?;
        fs::rename(self.at(from), self.at(to))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.hold(dir)?.sync_all()
    }

    fn lock(&self, path: &str) -> Result<Box<dyn Lock>, LockError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(self.at(path)).map_err(LockError::Io)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let holder = fs::read_to_string(self.at(path)).unwrap_or_default();
                let holder = holder.trim();
                return Err(LockError::Held(if holder.is_empty() { "unknown".into() } else { holder.into() }));
            }
            Err(error) => return Err(LockError::Io(error.into())),
        }
        let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(LockError::Io)?;
        Ok(Box::new(DiskLock { _file: file }))
    }
}

/// Held as long as the descriptor is open.
struct DiskLock {
    _file: File,
}

impl Lock for DiskLock {}

struct DiskFile(File);

impl StoredFile for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.0.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::KEEP_SIZE, offset, len) {
            // Not every file system can; then a full disk shows at the write itself.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
