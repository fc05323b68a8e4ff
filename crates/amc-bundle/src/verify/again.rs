//! The evidence events of a bundle, read again from the file: the same bytes that verified, or an error.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use amc_crypto::Unverified;
use amc_evidence::{SeenHash, VerifiedEvent};
use amc_scoring::{EvidenceSource, SourceError};

use crate::error::VerifyError;
use crate::records::{EventRecords, RecordError};

/// Where they stand, and what was seen of each.
pub(super) struct Again<'s, R> {
    source: RefCell<R>,
    /// From which byte of the file on, and how many bytes.
    at: (u64, u64),
    seen: &'s [SeenHash],
}

impl<'s, R: Read + Seek> Again<'s, R> {
    pub(super) const fn new(source: R, at: (u64, u64), seen: &'s [SeenHash]) -> Self {
        Again { source: RefCell::new(source), at, seen }
    }
}

impl<R: Read + Seek> EvidenceSource for Again<'_, R> {
    fn read(&self, take: &mut dyn FnMut(Cow<'_, VerifiedEvent>)) -> Result<(), SourceError> {
        let mut source = self.source.borrow_mut();
        source.seek(SeekFrom::Start(self.at.0))?;
        let mut records = EventRecords::new(BufReader::with_capacity(BUFFER_BYTES, source.by_ref().take(self.at.1)));
        for seen in self.seen {
            let signed = records.next_event().map_err(|error| match error {
                RecordError::Read(error) => error,
                other => io::Error::other(other.to_string()),
            })?;
            let signed = signed.ok_or_else(|| io::Error::other(CHANGED))?;
            take(Cow::Owned(Unverified::new(signed).verify(seen)?));
        }
        Ok(())
    }
}

/// A second reading that failed.
pub(super) fn read_again(error: SourceError) -> VerifyError {
    let source = match error.downcast::<io::Error>() {
        Ok(error) => *error,
        Err(error) => io::Error::other(error),
    };
    VerifyError::Again(source)
}

const BUFFER_BYTES: usize = 64 * 1024;

const CHANGED: &str = "the file became shorter after it was verified";
