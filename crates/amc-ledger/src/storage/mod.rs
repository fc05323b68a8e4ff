//! The storage seam: the file operations that a log is made of, and the few shapes built on them.
//!
//! Paths are relative to the log's directory, with `/`. [`disk`] is the real thing; the tests have
//! a simulated disk that loses, reorders and tears what was not flushed.

pub(crate) mod disk;
#[cfg(test)]
pub(crate) mod sim;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::FileError;

/// A lock that is given up on drop.
pub(crate) trait Lock: Send + Sync {}

/// Why the lock was not taken.
pub(crate) enum LockError {
    /// Somebody holds it: what they wrote into it.
    Held(String),
    /// It could not be tried.
    Io(io::Error),
}

/// A directory tree with the operations that a log needs.
pub(crate) trait Storage: Send + Sync {
    /// Names in a directory, in no order.
    fn names(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Opens a file for reading.
    fn open(&self, path: &str) -> io::Result<Arc<dyn StoredFile>>;
    /// Opens an existing file for writing.
    fn open_write(&self, path: &str) -> io::Result<Arc<dyn StoredFile>>;
    /// Creates a file, or empties the one that is there.
    fn create(&self, path: &str) -> io::Result<Arc<dyn StoredFile>>;
    /// Creates a directory and its parents; one that exists is fine.
    fn create_dir(&self, path: &str) -> io::Result<()>;
    /// Replaces `to` by `from`, atomically.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// Takes the exclusive lock file.
    fn lock(&self, path: &str) -> Result<Box<dyn Lock>, LockError>;
}

/// An open file.
pub(crate) trait StoredFile: Send + Sync {
    /// Its length.
    fn len(&self) -> io::Result<u64>;
    /// Reads at an offset; fewer bytes than asked for only at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all bytes at an offset.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts or extends.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes content and length durable.
    fn sync(&self) -> io::Result<()>;
    /// Takes disk space for a range ahead of time, without changing the length.
    fn reserve(&self, offset: u64, len: u64) -> io::Result<()>;
}

/// A storage with the directory that it stands for, so that errors name files.
#[derive(Clone)]
pub(crate) struct Files {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
}

/// An open file with its path.
#[derive(Clone)]
pub(crate) struct OpenFile {
    file: Arc<dyn StoredFile>,
    path: PathBuf,
    name: String,
}

impl Files {
    pub(crate) fn new(storage: Arc<dyn Storage>, dir: &Path) -> Self {
        Files { storage, dir: dir.to_owned() }
    }

    /// The files of a log on the real disk.
    pub(crate) fn on_disk(dir: &Path) -> Self {
        Files::new(Arc::new(disk::Disk::new(dir)), dir)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Names in a directory, ascending; none when it does not exist.
    pub(crate) fn names(&self, dir: &str) -> Result<Vec<String>, FileError> {
        match self.storage.names(dir) {
            Ok(mut names) => {
                names.sort_unstable();
                Ok(names)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(self.error("list", dir, error)),
        }
    }

    /// Opens for reading; `None` when there is no such file.
    pub(crate) fn open(&self, path: &str) -> Result<Option<OpenFile>, FileError> {
        match self.storage.open(path) {
            Ok(file) => Ok(Some(self.opened(path, file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.error("open", path, error)),
        }
    }

    pub(crate) fn open_write(&self, path: &str) -> Result<OpenFile, FileError> {
        let file = self.storage.open_write(path).map_err(|error| self.error("open for writing", path, error))?;
        Ok(self.opened(path, file))
    }

    pub(crate) fn create(&self, path: &str) -> Result<OpenFile, FileError> {
        let file = self.storage.create(path).map_err(|error| self.error("create", path, error))?;
        Ok(self.opened(path, file))
    }

    pub(crate) fn create_dir(&self, path: &str) -> Result<(), FileError> {
        self.storage.create_dir(path).map_err(|error| self.error("create the directory", path, error))
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), FileError> {
        self.storage.rename(from, to).map_err(|error| self.error("put in place", to, error))
    }

    pub(crate) fn sync_dir(&self, dir: &str) -> Result<(), FileError> {
        self.storage.sync_dir(dir).map_err(|error| self.error("flush the directory", dir, error))
    }

    pub(crate) fn lock(&self, path: &str) -> Result<Box<dyn Lock>, LockError> {
        self.storage.lock(path)
    }

    /// Reads a whole file of at most `max` bytes; `None` when it does not exist.
    pub(crate) fn read(&self, path: &str, max: usize) -> Result<Option<Vec<u8>>, FileError> {
        let Some(file) = self.open(path)? else { return Ok(None) };
        let len = usize::try_from(file.len()?).unwrap_or(usize::MAX);
        if len > max {
            let what = format!("it has {len} bytes, more than the {max} that it may have");
            return Err(self.error("read", path, io::Error::new(io::ErrorKind::InvalidData, what)));
        }
        let mut bytes = vec![0; len];
        let read = file.read_at(&mut bytes, 0)?;
        bytes.truncate(read);
        Ok(Some(bytes))
    }

    /// Replaces a file by another content, whole or not at all; durable content, and a durable name
    /// after `sync_dir`.
    pub(crate) fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), FileError> {
        let fresh = format!("{path}.new");
        let file = self.create(&fresh)?;
        file.write_at(bytes, 0)?;
        file.sync()?;
        self.rename(&fresh, path)
    }

    fn opened(&self, path: &str, file: Arc<dyn StoredFile>) -> OpenFile {
        OpenFile { file, path: self.dir.join(path), name: path.to_owned() }
    }

    pub(crate) fn error(&self, what: &'static str, path: &str, source: io::Error) -> FileError {
        FileError { what, path: self.dir.join(path), source }
    }
}

impl OpenFile {
    /// The path below the log's directory, as findings name it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn len(&self) -> Result<u64, FileError> {
        self.file.len().map_err(|error| self.error("look at", error))
    }

    /// Fills the buffer as far as the file goes.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, FileError> {
        self.file.read_at(buffer, offset).map_err(|error| self.error("read", error))
    }

    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), FileError> {
        self.file.write_at(bytes, offset).map_err(|error| self.error("write", error))
    }

    pub(crate) fn set_len(&self, len: u64) -> Result<(), FileError> {
        self.file.set_len(len).map_err(|error| self.error("cut", error))
    }

    pub(crate) fn sync(&self) -> Result<(), FileError> {
        self.file.sync().map_err(|error| self.error("flush", error))
    }

    pub(crate) fn reserve(&self, offset: u64, len: u64) -> Result<(), FileError> {
        self.file.reserve(offset, len).map_err(|error| self.error("reserve space for", error))
    }

    fn error(&self, what: &'static str, source: io::Error) -> FileError {
        FileError { what, path: self.path.clone(), source }
    }
}
