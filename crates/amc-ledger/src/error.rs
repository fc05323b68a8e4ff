//! What can go wrong, one type per operation.

use std::path::PathBuf;

use amc_core::{Finding, FindingCode};
use amc_crypto::signer::SignError;
use amc_evidence::log::BuildError;

/// A file operation that failed, with the file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {path}: {source}", path = path.display())]
pub struct FileError {
    /// What was tried: `read`, `write`, `flush`.
    pub what: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What the operating system said.
    #[source]
    pub source: std::io::Error,
}

/// A log that cannot be created or opened for writing.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is a log already.
    #[error("{} holds a log already; it was left as it is", .0.display())]
    Exists(PathBuf),
    /// There is no log.
    #[error("{} holds no log; `amc init` creates one", .0.display())]
    Absent(PathBuf),
    /// Another process writes this log.
    #[error("the log in {dir} is held by another writer (process {pid}); stop it first", dir = dir.display())]
    Held {
        /// The log's directory.
        dir: PathBuf,
        /// The holder, as it wrote itself down.
        pid: String,
    },
    /// The log is not what it should be: nothing was changed.
    #[error(
        "{0}; the log was left as it is. `amc verify` shows all of it; put back a whole copy of the log, or end it: amc ledger succeed"
    )]
    Refused(Finding),
    /// The first event does not fit a log.
    #[error("the log's first event cannot be built: {0}")]
    Build(#[from] BuildError),
    /// A key refused.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The log could not be brought into order.
    #[error("{0}")]
    Stopped(String),
    /// A thread of the writer could not be started.
    #[error("cannot start a thread of the writer: {0}")]
    Thread(#[source] std::io::Error),
}

impl OpenError {
    /// The finding code behind a refusal.
    pub fn code(&self) -> Option<FindingCode> {
        self.finding().map(|finding| finding.code)
    }

    /// The finding behind a refusal.
    pub const fn finding(&self) -> Option<&Finding> {
        match self {
            OpenError::Refused(finding) => Some(finding),
            _ => None,
        }
    }
}

/// An event that was not appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The draft does not fit the log's state; the log goes on.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The payload bytes are not those that the draft names; the log goes on.
    #[error("the payload does not fit its reference: {0}")]
    Payload(&'static str),
    /// The log writes events of this kind itself; the log goes on.
    #[error("events of kind {0} are written by the log itself")]
    Reserved(&'static str),
    /// The request that the event answers is not in the log; the log goes on.
    #[error("the request that it answers is not recorded")]
    NoRequest,
    /// A key refused; the log goes on.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// A write or flush failed, now or earlier. This writer does nothing any more.
    #[error("the log stopped, and this event is not recorded: {0}. Free the cause and start again; nothing is retried")]
    Stopped(String),
    /// The writer was closed.
    #[error("the log is closed")]
    Closed,
}

/// A log that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no log.
    #[error("{} holds no log", .0.display())]
    Absent(PathBuf),
    /// What stands there is not what it should be.
    #[error("{0}")]
    Damaged(Finding),
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
}

impl ReadError {
    /// The finding behind damage.
    pub fn finding(&self) -> Option<&Finding> {
        match self {
            ReadError::Damaged(finding) => Some(finding),
            _ => None,
        }
    }
}

/// An index that was not rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum ReindexError {
    /// A writer holds the log.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The log cannot be read, or is not what its checkpoint says.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The index itself failed.
    #[error("the index cannot be written: {0}")]
    Index(#[from] sled::Error),
}

/// A question that the index cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The index did not open; the log works without it.
    #[error("the index is not available ({0}); the log works without it, and `amc ledger reindex` rebuilds it")]
    Unavailable(String),
    /// The index failed while answering.
    #[error("the index failed: {0}; `amc ledger reindex` rebuilds it")]
    Failed(#[from] sled::Error),
}
