//! The members that hold events and proofs.
//!
//! ```text
//! */events   body length u32le │ body │ signature [64]     repeated, ascending by index
//! */proof    hash [32]                                     repeated, in rs_merkle's order
//! ```

use std::io::{self, Read};

use amc_core::{Digest, limits};
use amc_crypto::Signature;
use amc_evidence::SignedEvent;

/// Events of one log in one artifact: a bound on what a reader will hold.
pub const EVENTS_MAX: usize = 1 << 20;
/// Bytes of an events member.
pub const EVENTS_BYTES_MAX: u64 = 1 << 30;
/// Bytes of a proof: a million single leaves of a log of a billion need less.
pub const PROOF_BYTES_MAX: u64 = 256 << 20;

/// Bytes that are no list of events or hashes.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A length beyond the bound of an event.
    #[error("record {at} says that it has {len} bytes; an event has 1 to {max}", max = limits::EVENT_BYTES_MAX)]
    Length {
        /// Which record, from 0.
        at: usize,
        /// What it says.
        len: u32,
    },
    /// The bytes end inside a record.
    #[error("it ends inside record {0}")]
    Truncated(usize),
    /// More records than a reader holds.
    #[error("it has more than {EVENTS_MAX} records")]
    TooMany,
    /// Not a whole number of hashes.
    #[error("it is not a whole number of 32-byte hashes")]
    Hashes,
    /// Reading failed.
    #[error("reading failed: {0}")]
    Read(#[source] io::Error),
}

/// Appends the record of an event.
pub fn write_event(out: &mut Vec<u8>, event: &SignedEvent) {
    let len = u32::try_from(event.body.len()).expect("an event body has at most 65,535 bytes");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&event.body);
    out.extend_from_slice(&event.signature.0);
}

/// Reads records one after the other until the source ends.
#[derive(Debug)]
pub struct EventRecords<R> {
    source: R,
    at: usize,
}

impl<R: Read> EventRecords<R> {
    /// Starts at the first record.
    pub const fn new(source: R) -> Self {
        EventRecords { source, at: 0 }
    }

    /// The next event, unverified; `None` at the end.
    ///
    /// # Errors
    /// [`RecordError`] when the bytes are no record.
    pub fn next_event(&mut self) -> Result<Option<SignedEvent>, RecordError> {
        let mut len = [0u8; 4];
        if fill(&mut self.source, &mut len[..1], self.at)? == 0 {
            return Ok(None);
        }
        if self.at == EVENTS_MAX {
            return Err(RecordError::TooMany);
        }
        whole(&mut self.source, &mut len[1..], self.at)?;
        let len = u32::from_le_bytes(len);
        let size = usize::try_from(len).ok().filter(|size| (1..=limits::EVENT_BYTES_MAX).contains(size));
        let mut body = vec![0; size.ok_or(RecordError::Length { at: self.at, len })?];
        whole(&mut self.source, &mut body, self.at)?;
        let mut signature = [0; 64];
        whole(&mut self.source, &mut signature, self.at)?;
        self.at += 1;
        Ok(Some(SignedEvent { body, signature: Signature(signature) }))
    }
}

fn whole(source: &mut impl Read, buffer: &mut [u8], at: usize) -> Result<(), RecordError> {
    if fill(source, buffer, at)? == buffer.len() { Ok(()) } else { Err(RecordError::Truncated(at)) }
}

/// Reads all of `buffer` or nothing; anything between is a truncated record.
fn fill(source: &mut impl Read, buffer: &mut [u8], at: usize) -> Result<usize, RecordError> {
    let mut have = 0;
    while have < buffer.len() {
        match source.read(&mut buffer[have..]) {
            Ok(0) if have == 0 => return Ok(0),
            Ok(0) => return Err(RecordError::Truncated(at)),
            Ok(read) => have += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(RecordError::Read(error)),
        }
    }
    Ok(have)
}

/// The bytes of a proof.
pub fn write_proof(hashes: &[Digest]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// The hashes of a proof.
///
/// # Errors
/// [`RecordError::Hashes`] when the bytes are no whole number of hashes.
pub fn read_proof(bytes: &[u8]) -> Result<Vec<Digest>, RecordError> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    if rest.is_empty() { Ok(hashes.iter().copied().map(Digest).collect()) } else { Err(RecordError::Hashes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut bytes = Vec::new();
        for body in [vec![1], vec![2; 300]] {
            write_event(&mut bytes, &SignedEvent { body, signature: Signature([7; 64]) });
        }
        bytes
    }

    #[test]
    fn events_there_and_back() {
        let bytes = sample();
        let mut records = EventRecords::new(bytes.as_slice());
        assert_eq!(records.next_event().expect("first").expect("there").body, [1]);
        assert_eq!(records.next_event().expect("second").expect("there").body, [2; 300]);
        assert!(records.next_event().expect("the end").is_none());
    }

    #[test]
    fn every_truncation_inside_a_record_is_refused() {
        let bytes = sample();
        let first = 4 + 1 + 64;
        for len in (1..bytes.len()).filter(|len| *len != first) {
            let mut records = EventRecords::new(&bytes[..len]);
            let result = std::iter::from_fn(|| records.next_event().transpose()).collect::<Result<Vec<_>, _>>();
            assert!(result.is_err(), "{len}");
        }
    }

    #[test]
    fn a_huge_length_is_refused_before_memory_is_taken() {
        for len in [0u32, 65_536, u32::MAX] {
            let mut bytes = len.to_le_bytes().to_vec();
            bytes.extend_from_slice(&[0; 100]);
            let error = EventRecords::new(bytes.as_slice()).next_event();
            assert!(matches!(error, Err(RecordError::Length { .. })), "{len}");
        }
    }

    #[test]
    fn a_proof_is_whole_hashes() {
        let hashes = [Digest([1; 32]), Digest([2; 32])];
        assert_eq!(read_proof(&write_proof(&hashes)).expect("two"), hashes);
        assert!(read_proof(&[0; 33]).is_err());
        assert_eq!(read_proof(&[]).expect("none"), []);
    }
}
