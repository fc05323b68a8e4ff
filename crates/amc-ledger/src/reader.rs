//! Reading a log without lock or key: beside a live writer, on a copy, on a read-only mount.

use std::path::Path;

use amc_core::Digest;
use amc_crypto::merkle::HashReader;
use amc_crypto::{Checkpoint, Note};
use amc_evidence::{PayloadRef, SignedEvent};

use crate::error::ReadError;

/// Where a payload's stored bytes stand: a hint, always checked by hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PayloadLocation {
    /// Number of the pack.
    pub pack: u32,
    /// Offset of the record in it.
    pub offset: u64,
}

/// An event as it stands in a segment, nothing verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Where it stands.
    pub index: u64,
    /// Body and signature.
    pub signed: SignedEvent,
    /// Where the stored bytes of its payload are.
    pub payload_location: Option<PayloadLocation>,
}

/// A log as its published checkpoint describes it.
pub struct LogReader {}

impl LogReader {
    /// Opens the log in `dir`; sees it up to its published checkpoint.
    ///
    /// # Errors
    /// [`ReadError`] when there is no log or its checkpoint cannot be read.
    pub fn open(dir: &Path) -> Result<Self, ReadError> {
        let _ = dir;
        todo!()
    }

    /// Looks again at the published checkpoint; events appended since become visible.
    ///
    /// # Errors
    /// [`ReadError`] when it cannot be read.
    pub fn refresh(&mut self) -> Result<(), ReadError> {
        todo!()
    }

    /// Number of events that this reader sees.
    pub fn size(&self) -> u64 {
        todo!()
    }

    /// The published checkpoint, signatures not verified.
    pub fn checkpoint(&self) -> &Checkpoint {
        todo!()
    }

    /// The published checkpoint as the signed note that it is.
    pub fn latest_checkpoint(&self) -> &Note {
        todo!()
    }

    /// The signed checkpoint that a flush left at exactly this size, if one ended there.
    ///
    /// # Errors
    /// [`ReadError`] when a segment cannot be read.
    pub fn checkpoint_at(&self, size: u64) -> Result<Option<Note>, ReadError> {
        let _ = size;
        todo!()
    }

    /// The events from an index on, in order, up to [`LogReader::size`].
    pub fn events(&self, from: u64) -> Events<'_> {
        let _ = from;
        todo!()
    }

    /// One event.
    ///
    /// # Errors
    /// [`ReadError`] when it cannot be read; `None` beyond the size.
    pub fn event(&self, index: u64) -> Result<Option<StoredEvent>, ReadError> {
        self.events(index).next().transpose()
    }

    /// The stored bytes of a payload, checked by hash; `None` when nothing was kept of it.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] with `PAYLOAD_MISSING` or `PAYLOAD_HASH_MISMATCH`.
    pub fn payload(
        &self,
        payload: &PayloadRef,
        location: Option<PayloadLocation>,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        let _ = (payload, location);
        todo!()
    }

    /// The tree of this log, for proofs at sizes up to [`LogReader::size`].
    ///
    /// # Errors
    /// [`ReadError`] when the right edge cannot be read.
    pub fn tree(&self) -> Result<Tree, ReadError> {
        todo!()
    }
}

/// The events of a log in order.
pub struct Events<'a> {
    reader: &'a LogReader,
}

impl Iterator for Events<'_> {
    type Item = Result<StoredEvent, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let _ = self.reader;
        todo!()
    }
}

/// The hashes of a log's tree, read from tiles and, at the right edge, from the newest segment.
pub struct Tree {}

impl HashReader for Tree {
    type Error = ReadError;

    fn subtree(&self, level: u8, index: u64) -> Result<Digest, ReadError> {
        let _ = (level, index);
        todo!()
    }
}
