//! [`Storage`] on a real file system. Every step goes through the directory's descriptor, which
//! stays open from the first check of its mode to its last flush, so nobody can move the directory
//! in between; symbolic links are not followed to the vault itself.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use crate::error::VaultError;
use crate::file::FILE_BYTES_MAX;
use crate::storage::Storage;

const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;
/// Everything of group and others.
const OPEN_TO_OTHERS: u32 = 0o077;

/// A vault's place on disk. With a lock held, it can be written.
#[derive(Debug)]
pub(crate) struct Disk {
    path: PathBuf,
    dir: OwnedFd,
    name: OsString,
    temp_name: OsString,
    temp: Option<File>,
    /// The lock ends when this file is closed.
    _lock: Option<File>,
}

impl Disk {
    /// For reading. Renames are atomic, so a reader needs no lock.
    pub(crate) fn for_reading(path: &Path) -> Result<Self, VaultError> {
        let name = path.file_name().ok_or_else(|| VaultError::NotAFile(path.to_owned()))?.to_owned();
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = match rustix::fs::open(parent, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Err(VaultError::Missing(path.to_owned())),
            other => other.map_err(|error| VaultError::io("open the directory", parent)(error.into()))?,
        };
        let stat = rustix::fs::fstat(&dir).map_err(|e| VaultError::io("look at the directory", parent)(e.into()))?;
        check_mode(parent, stat.st_mode, DIR_MODE)?;
        let temp_name = with_suffix(&name, ".new");
        Ok(Disk { path: path.to_owned(), dir, name, temp_name, temp: None, _lock: None })
    }

    /// For writing: takes the lock beside the vault, or says that somebody else has it.
    pub(crate) fn for_writing(path: &Path) -> Result<Self, VaultError> {
        let mut disk = Disk::for_reading(path)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = disk.open_at(&with_suffix(&disk.name, ".lock"), flags);
        let lock = lock.map_err(VaultError::io("open the lock file of", path))?;
        match lock.try_lock() {
            Ok(()) => disk._lock = Some(lock),
            Err(TryLockError::WouldBlock) => return Err(VaultError::Busy(path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(VaultError::io("lock", path)(source)),
        }
        Ok(disk)
    }

    fn open_at(&self, name: &OsString, flags: OFlags) -> io::Result<File> {
        Ok(File::from(rustix::fs::openat(&self.dir, name, flags, Mode::from_raw_mode(FILE_MODE))?))
    }

    fn temp(&mut self) -> io::Result<&mut File> {
        self.temp.as_mut().ok_or_else(|| io::Error::other("no temporary file is open"))
    }
}

impl Storage for Disk {
    fn read(&self) -> Result<Option<Vec<u8>>, VaultError> {
        let io = |error: io::Error| VaultError::io("read", &self.path)(error);
        // Without NONBLOCK a named pipe in the vault's place would wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.dir, &self.name, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(rustix::io::Errno::LOOP) => return Err(VaultError::NotAFile(self.path.clone())),
            other => File::from(other.map_err(|error| io(error.into()))?),
        };
        let stat = rustix::fs::fstat(&file).map_err(|error| io(error.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(VaultError::NotAFile(self.path.clone()));
        }
        check_mode(&self.path, stat.st_mode, FILE_MODE)?;
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
        Ok(Some(bytes))
    }

    fn create_temp(&mut self) -> io::Result<()> {
        assert!(self._lock.is_some(), "only the holder of the lock writes");
        match rustix::fs::unlinkat(&self.dir, &self.temp_name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let temp = self.open_at(&self.temp_name, flags)?;
        // The umask may have taken bits away.
        rustix::fs::fchmod(&temp, Mode::from_raw_mode(FILE_MODE))?;
        self.temp = Some(temp);
        Ok(())
    }

    fn write_temp(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.temp()?.write_all(bytes)
    }

    fn sync_temp(&mut self) -> io::Result<()> {
        self.temp()?.sync_all()
    }

    fn rename_temp(&mut self) -> io::Result<()> {
        rustix::fs::renameat(&self.dir, &self.temp_name, &self.dir, &self.name)?;
        self.temp = None;
        Ok(())
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.dir)?)
    }

    fn discard_temp(&mut self) {
        self.temp = None;
        // What is left over here is removed by the next writer.
        let _ = rustix::fs::unlinkat(&self.dir, &self.temp_name, AtFlags::empty());
    }
}

fn check_mode(path: &Path, mode: u32, wanted: u32) -> Result<(), VaultError> {
    if mode & OPEN_TO_OTHERS == 0 {
        Ok(())
    } else {
        Err(VaultError::Permissions { path: path.to_owned(), mode: mode & 0o7777, wanted })
    }
}

fn with_suffix(name: &OsString, suffix: &str) -> OsString {
    let mut name = name.clone();
    name.push(suffix);
    name
}
