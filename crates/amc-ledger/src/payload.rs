//! Payload packs: the stored bytes of payloads, apart from events, each content once.
//!
//! ```text
//! record
//!  0  4 "PLD1"
//!  4  1 coding: 0 raw, 1 zstd        5  3 zero
//!  8  4 length as kept, u32 LE
//! 12  4 length of the content, u32 LE
//! 16  8 BLAKE3 of the 16 bytes before and of what is kept, cut
//! 24  … what is kept
//! ```
//!
//! A record is found by the location in an event's frame: a hint, since the content is always
//! compared with the digest in the signed event. The lengths are bounded before memory is taken.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};

use amc_core::{Digest, Finding, FindingCode, limits};
use amc_evidence::PayloadRef;
use structured_zstd::decoding::FrameDecoder;
use structured_zstd::encoding::{CompressionLevel, FrameCompressor};

use crate::error::{AppendError, FileError, ReadError};
use crate::frame::u32_at;
use crate::reader::PayloadLocation;
use crate::storage::{Files, OpenFile};

const MAGIC: &[u8; 4] = b"PLD1";
const HEAD_BYTES: usize = 24;
const RAW: u8 = 0;
const ZSTD: u8 = 1;
/// Content below this is not worth a compressor.
const COMPRESS_BYTES_MIN: usize = 64;
/// A decoder never reserves more than this; contents are at most 1 MiB.
const WINDOW_BYTES_MAX: u64 = 8 << 20;
/// A pack is followed by the next one beyond this, so that none gets unwieldy.
const PACK_BYTES_MAX: u64 = 256 << 20;
/// Contents whose place is remembered, to be shared: some megabytes of memory.
const SHARED_MAX: usize = 16_384;

/// Payload bytes that were compared with their reference and packed, ready to be written.
pub(crate) struct Packed {
    digest: Digest,
    record: Vec<u8>,
}

impl Packed {
    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.record.len()
    }
}

/// Compares the bytes with the reference and packs them; `None` where nothing is kept.
pub(crate) fn pack(payload: Option<&PayloadRef>, bytes: Option<Vec<u8>>) -> Result<Option<Packed>, AppendError> {
    let (digest, len, bytes) = match (payload.map(PayloadRef::stored_digest), bytes) {
        (None | Some(None), None) => return Ok(None),
        (None, Some(_)) => return Err(AppendError::Payload("bytes came without a reference")),
        (Some(None), Some(_)) => return Err(AppendError::Payload("bytes came for a payload of which nothing is kept")),
        (Some(Some(_)), None) => return Err(AppendError::Payload("the bytes are missing")),
        (Some(Some((digest, len))), Some(bytes)) => (digest, len, bytes),
    };
    if bytes.len() > limits::PAYLOAD_STORED_BYTES_MAX {
        return Err(AppendError::Payload("more bytes than are kept of one payload"));
    }
    if bytes.len() as u64 != len || amc_crypto::sha256(&bytes) != digest {
        return Err(AppendError::Payload("the bytes do not hash to what the reference names"));
    }
    Ok(Some(Packed { digest, record: encode_record(&bytes) }))
}

thread_local! {
    /// Its tables cost more than a small content, so each thread keeps them.
    static COMPRESSOR: RefCell<FrameCompressor> = RefCell::new(FrameCompressor::new(CompressionLevel::Fastest));
}

fn encode_record(content: &[u8]) -> Vec<u8> {
    let squeezed = (content.len() >= COMPRESS_BYTES_MIN)
        .then(|| COMPRESSOR.with_borrow_mut(|compressor| compressor.compress_independent_frame(content)))
        .filter(|squeezed| squeezed.len() < content.len());
    let (coding, kept) = squeezed.as_deref().map_or((RAW, content), |squeezed| (ZSTD, squeezed));
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("at most a mebibyte").to_le_bytes();
    let mut record = Vec::with_capacity(HEAD_BYTES + kept.len());
    record.extend_from_slice(MAGIC);
    record.extend_from_slice(&[coding, 0, 0, 0]);
    record.extend_from_slice(&len(kept));
    record.extend_from_slice(&len(content));
    let check = check(&record, kept);
    record.extend_from_slice(&check);
    record.extend_from_slice(kept);
    record
}

fn check(head: &[u8], kept: &[u8]) -> [u8; 8] {
    let hash = *blake3::Hasher::new().update(head).update(kept).finalize().as_bytes();
    *hash.first_chunk().expect("32 bytes begin with 8")
}

fn path(pack: u32) -> String {
    format!("payloads/{pack:08}.pack")
}

/// The pack that grows, and what is shared.
pub(crate) struct PackWriter {
    files: Files,
    number: u32,
    /// Length with everything that is flushed.
    len: u64,
    file: Option<OpenFile>,
    pending: Vec<u8>,
    known: HashMap<Digest, PayloadLocation>,
    order: VecDeque<Digest>,
}

impl PackWriter {
    /// Goes on at the length that the newest flush names; what stands beyond was never referenced.
    pub(crate) fn resume(files: &Files, number: u32, len: u64) -> Result<Self, ReadError> {
        let mut writer = PackWriter {
            files: files.clone(),
            number,
            len,
            file: None,
            pending: Vec::new(),
            known: HashMap::new(),
            order: VecDeque::new(),
        };
        if len > 0 {
            let gone = || missing(path(number), "the newest pack is shorter than the log says, or gone");
            let found = files.open(&path(number))?.ok_or_else(gone)?;
            if found.len()? < len {
                return Err(gone());
            }
            let file = files.open_write(&path(number))?;
            if file.len()? > len {
                file.set_len(len)?;
            }
            writer.file = Some(file);
        }
        Ok(writer)
    }

    /// Number and length of the pack with everything staged.
    pub(crate) fn end(&self) -> (u32, u64) {
        (self.number, self.len + self.pending.len() as u64)
    }

    /// Bytes staged and not flushed.
    pub(crate) fn staged_bytes(&self) -> usize {
        self.pending.len()
    }

    /// Gives a content its place; one that is known already keeps its own.
    pub(crate) fn stage(&mut self, packed: &Packed) -> PayloadLocation {
        if let Some(location) = self.known.get(&packed.digest) {
            return *location;
        }
        let location = PayloadLocation { pack: self.number, offset: self.end().1 };
        self.pending.extend_from_slice(&packed.record);
        if self.order.len() == SHARED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(packed.digest);
        self.known.insert(packed.digest, location);
        location
    }

    /// Makes everything staged durable.
    pub(crate) fn commit(&mut self) -> Result<(), FileError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let fresh = self.file.is_none();
        let file = match self.file.take() {
            Some(file) => file,
            None => self.files.create(&path(self.number))?,
        };
        file.write_at(&self.pending, self.len)?;
        file.sync()?;
        if fresh {
            self.files.sync_dir("payloads")?;
        }
        self.len += self.pending.len() as u64;
        self.pending.clear();
        self.file = Some(file);
        Ok(())
    }

    /// Begins the next pack when this one is full; call it only between flushes.
    pub(crate) fn turn(&mut self) {
        if self.len >= PACK_BYTES_MAX {
            self.number += 1;
            self.len = 0;
            self.file = None;
        }
    }
}

fn missing(subject: impl Into<String>, what: &str) -> ReadError {
    ReadError::Damaged(Finding::error(FindingCode::PayloadMissing, subject, what))
}

/// Reads payloads; keeps the pack that it read last open, and the decoder's tables.
pub(crate) struct PackReader {
    files: Files,
    last: Option<(u32, OpenFile)>,
    decoder: FrameDecoder,
}

impl PackReader {
    pub(crate) fn new(files: &Files) -> Self {
        PackReader { files: files.clone(), last: None, decoder: FrameDecoder::new() }
    }

    /// The stored bytes of a payload, compared with its digest; `None` when nothing was kept.
    pub(crate) fn read(
        &mut self,
        subject: &str,
        payload: &PayloadRef,
        location: Option<PayloadLocation>,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        let Some((digest, len)) = payload.stored_digest() else { return Ok(None) };
        let wrong = |what: &str| {
            let what = format!("{what}; restore the pack from a copy");
            ReadError::Damaged(Finding::error(FindingCode::PayloadHashMismatch, subject, what))
        };
        let location = location.ok_or_else(|| missing(subject, "the event names no place of its payload"))?;
        let gone = || {
            let what = format!("its payload should stand in {} and does not", path(location.pack));
            missing(subject, &what)
        };
        let file = self.pack(location.pack)?.ok_or_else(gone)?;
        let mut head = [0; HEAD_BYTES];
        if file.read_at(&mut head, location.offset)? < HEAD_BYTES {
            return Err(gone());
        }
        let (kept_len, content_len) = (u32_at(&head, 8) as usize, u32_at(&head, 12) as usize);
        if head[..4] != *MAGIC || kept_len > content_len || content_len as u64 != len {
            return Err(wrong("no record of this payload stands at its place"));
        }
        if content_len > limits::PAYLOAD_STORED_BYTES_MAX {
            return Err(wrong("the record is longer than a payload may be"));
        }
        let mut kept = vec![0; kept_len];
        if file.read_at(&mut kept, location.offset + HEAD_BYTES as u64)? < kept_len {
            return Err(gone());
        }
        if head[16..] != check(&head[..16], &kept) {
            return Err(wrong("the record of its payload was changed"));
        }
        let content = match head[4] {
            RAW => kept,
            ZSTD => unsqueeze(&mut self.decoder, &kept, content_len)
                .ok_or_else(|| wrong("its payload does not decompress"))?,
            _ => return Err(wrong("its payload is kept in an unknown way")),
        };
        if content.len() as u64 != len || amc_crypto::sha256(&content) != digest {
            return Err(wrong("its payload does not hash to what the event says"));
        }
        Ok(Some(content))
    }

    fn pack(&mut self, number: u32) -> Result<Option<OpenFile>, FileError> {
        if let Some((last, file)) = &self.last
            && *last == number
        {
            return Ok(Some(file.clone()));
        }
        let Some(file) = self.files.open(&path(number))? else { return Ok(None) };
        self.last = Some((number, file.clone()));
        Ok(Some(file))
    }
}

fn unsqueeze(decoder: &mut FrameDecoder, kept: &[u8], len: usize) -> Option<Vec<u8>> {
    decoder.set_max_window_size(WINDOW_BYTES_MAX).ok()?;
    let mut content = vec![0; len];
    let written = decoder.decode_all(kept, &mut content).ok()?;
    (written == len).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_come_back_from_either_coding() {
        let mut decoder = FrameDecoder::new();
        for content in [Vec::new(), b"short".to_vec(), vec![b'a'; 100_000], (0..=255).cycle().take(70_000).collect()] {
            let record = encode_record(&content);
            assert!(record.len() <= HEAD_BYTES + content.len());
            let kept = &record[HEAD_BYTES..];
            let back =
                if record[4] == ZSTD { unsqueeze(&mut decoder, kept, content.len()) } else { Some(kept.to_vec()) };
            assert_eq!(back, Some(content));
        }
    }

    #[test]
    fn a_record_never_unpacks_to_more_than_it_declares() {
        let record = encode_record(&vec![b'a'; 100_000]);
        assert_eq!(record[4], ZSTD);
        let mut decoder = FrameDecoder::new();
        for len in [99_999, 100_001] {
            assert_eq!(unsqueeze(&mut decoder, &record[HEAD_BYTES..], len), None);
        }
        let back = unsqueeze(&mut decoder, &record[HEAD_BYTES..], 100_000);
        assert_eq!(back, Some(vec![b'a'; 100_000]), "the decoder goes on after what it refused");
    }

    #[test]
    fn bytes_and_reference_go_together() {
        let payload = PayloadRef::full(b"abc", "text/plain");
        assert!(pack(Some(&payload), Some(b"abc".to_vec())).is_ok_and(|packed| packed.is_some()));
        assert!(matches!(pack(Some(&payload), Some(b"abd".to_vec())), Err(AppendError::Payload(_))));
        assert!(matches!(pack(Some(&payload), None), Err(AppendError::Payload(_))));
        assert!(matches!(pack(None, Some(b"abc".to_vec())), Err(AppendError::Payload(_))));
        let omitted = PayloadRef { stored: amc_evidence::Stored::Omitted, ..payload };
        assert!(matches!(pack(Some(&omitted), Some(b"abc".to_vec())), Err(AppendError::Payload(_))));
        assert!(pack(Some(&omitted), None).is_ok_and(|packed| packed.is_none()));
    }
}
