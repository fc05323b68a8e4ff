//! The one writer of a log.

use std::path::Path;
use std::sync::Arc;

use amc_core::kinds::{Fields, LogOpened};
use amc_core::{Clock, Digest, RequestId, SessionId};
use amc_crypto::Note;
use amc_crypto::signer::{CheckpointSigner, EventSigner};
use amc_evidence::{Draft, Event, LogState, SignedEvent};

use crate::error::{AppendError, IndexError, OpenError};

/// The keys of the role that writes the log.
#[derive(Clone)]
pub struct Signers {
    /// Signs events.
    pub event: Arc<dyn EventSigner>,
    /// Signs checkpoints.
    pub checkpoint: Arc<dyn CheckpointSigner>,
}

/// Creates a log in `dir` with its first event and first checkpoint, durable when this returns.
///
/// # Errors
/// [`OpenError::Exists`] when there is a log already; otherwise what failed.
pub fn create(dir: &Path, opened: LogOpened, signers: &Signers, clock: &dyn Clock) -> Result<Note, OpenError> {
    let _ = (dir, opened, signers, clock);
    todo!()
}

/// The one writer of a log. Producers share it by reference; each append waits for its flush.
pub struct Writer {
    recovery: Recovery,
}

/// What opening had to mend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Bytes of an unfinished flush that were cut.
    pub bytes_cut: u64,
    /// Sessions that were left open and are sealed as recovered now.
    pub sessions: Vec<SessionId>,
}

/// An event that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Its index in the log.
    pub index: u64,
    /// Its event_hash.
    pub hash: Digest,
    /// The event.
    pub event: Event,
    /// Its fields.
    pub fields: Fields,
    /// Body and signature as they were stored.
    pub signed: SignedEvent,
}

/// An event on its way to the disk.
#[must_use = "an event is durable only when `wait` returned it"]
pub struct Pending {
    reply: std::sync::mpsc::Receiver<Result<Appended, AppendError>>,
}

impl Pending {
    /// Waits for the flush that makes the event durable.
    ///
    /// # Errors
    /// [`AppendError`] when it is not recorded.
    pub fn wait(self) -> Result<Appended, AppendError> {
        self.reply.recv().unwrap_or(Err(AppendError::Closed))
    }
}

impl Writer {
    /// Opens the log in `dir` for writing: takes the lock, cuts an unfinished flush, seals the
    /// sessions that were left open. What it mended is in [`Writer::recovery`].
    ///
    /// # Errors
    /// [`OpenError::Refused`] with the finding when the log is not what its checkpoints say.
    pub fn open(dir: &Path, signers: Signers, clock: Arc<dyn Clock>) -> Result<Writer, OpenError> {
        let _ = (dir, signers, clock);
        todo!()
    }

    /// What opening had to mend.
    pub const fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Hands over an event, with its payload's stored bytes where the draft has a payload that
    /// keeps any. A seal is followed by the agent's head in the same flush; a clock step or
    /// rollback is recorded before it. Order is the order of calls.
    ///
    /// # Errors
    /// [`AppendError`] when it was not taken; what is known only later comes from [`Pending::wait`].
    pub fn submit(&self, draft: Draft, payload: Option<Vec<u8>>) -> Result<Pending, AppendError> {
        let _ = (draft, payload);
        todo!()
    }

    /// Appends an event and waits until it is durable.
    ///
    /// # Errors
    /// [`AppendError`] when it is not recorded.
    pub fn append(&self, draft: Draft, payload: Option<Vec<u8>>) -> Result<Appended, AppendError> {
        self.submit(draft, payload)?.wait()
    }

    /// Looks at the log's state: size, sessions, agents. It may include events of the flush under
    /// way.
    pub fn with_state<T>(&self, look: impl FnOnce(&LogState) -> T) -> T {
        let _ = look;
        todo!()
    }

    /// The newest durable checkpoint, signed by the log.
    pub fn checkpoint(&self) -> Note {
        todo!()
    }

    /// Publishes the newest durable checkpoint in the `checkpoint` file and returns it: what
    /// readers beside this writer see from now on covers every append that returned before.
    ///
    /// # Errors
    /// [`AppendError`] when the writer has stopped.
    pub fn publish(&self) -> Result<Note, AppendError> {
        todo!()
    }

    /// Indices of the events with this request id, ascending, as far as the index has come.
    ///
    /// # Errors
    /// [`IndexError`] when there is no index.
    pub fn lookup_request(&self, request: &RequestId) -> Result<Vec<u64>, IndexError> {
        let _ = request;
        todo!()
    }

    /// Indices of the events of a session, ascending, as far as the index has come.
    ///
    /// # Errors
    /// [`IndexError`] when there is no index.
    pub fn lookup_session(&self, session: SessionId) -> Result<Vec<u64>, IndexError> {
        let _ = session;
        todo!()
    }

    /// Index of the event with this event_hash, as far as the index has come.
    ///
    /// # Errors
    /// [`IndexError`] when there is no index.
    pub fn lookup_hash(&self, hash: &Digest) -> Result<Option<u64>, IndexError> {
        let _ = hash;
        todo!()
    }

    /// Number of events that the index knows.
    ///
    /// # Errors
    /// [`IndexError`] when there is no index.
    pub fn indexed(&self) -> Result<u64, IndexError> {
        todo!()
    }

    /// Finishes what was submitted, publishes, and gives up the lock.
    ///
    /// # Errors
    /// [`AppendError`] when the writer had stopped.
    pub fn close(self) -> Result<Note, AppendError> {
        todo!()
    }
}
