//! `evidence/payloads.zst`: one zstd frame (RFC 8878) over stored payloads, sorted by digest.
//!
//! ```text
//! unpacked:  length u32le │ bytes      repeated, SHA-256 of the bytes strictly ascending
//! ```
//!
//! Which payloads must be there follows from the events alone, so the unpacked size is known before
//! a byte is unpacked, and not one byte more is. Memory is a window and a buffer, at any size.

use std::io::{self, Read, Write};

use amc_core::{Digest, limits};
use amc_crypto::hash::BodyHasher;
use amc_evidence::VerifiedEvent;
use structured_zstd::decoding::{BlockDecodingStrategy, ContentChecksum, FrameDecoder};
use structured_zstd::encoding::{CompressionLevel, StreamingEncoder};

/// Window that a reader grants a frame: what writers of ours use, many times over.
const WINDOW_BYTES_MAX: u64 = 8 << 20;

/// The stored payloads that events name, each once, ascending by digest.
#[derive(Debug, Clone, Default)]
pub struct Wanted(Vec<(Digest, u32)>);

/// Payloads that are not those that the events name.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// A length above the bound.
    #[error("event {0} names a stored payload of impossible length")]
    Length(u64),
    /// Two events give one digest two lengths.
    #[error("two events name the stored payload {0} with different lengths")]
    Lengths(Digest),
    /// Not one zstd frame.
    #[error("it is not one zstd frame of at most {WINDOW_BYTES_MAX} bytes of window: {0}")]
    Frame(String),
    /// It unpacks to another size than the events' payloads have.
    #[error("it unpacks to other than the {0} bytes that the events' payloads have")]
    Size(u64),
    /// An entry that no event names, that stands in the wrong place, or whose bytes were changed.
    #[error("the bytes of entry {at} hash to {sha256}, which is not the next payload that an event names")]
    Unexpected {
        /// Which entry, from 0.
        at: usize,
        /// Its digest.
        sha256: Digest,
    },
    /// A payload is said to be absent that no event names.
    #[error("the payload {0} is said to be absent, and no event names it")]
    NotNamed(Digest),
    /// A source gave other bytes than its event names.
    #[error("the stored payload {0} does not hash to its name; the store is damaged")]
    Damaged(Digest),
    /// Reading or writing failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Takes note of the stored payloads that events name.
#[derive(Debug, Default)]
pub struct Named {
    list: Vec<(Digest, u32)>,
    /// The first event with an impossible length.
    bad: Option<u64>,
}

impl Named {
    /// With room for the payloads of so many events; what is not used costs nothing.
    pub fn with_room(events: usize) -> Self {
        Named { list: Vec::with_capacity(events), bad: None }
    }

    /// Takes note of an event.
    pub fn note(&mut self, record: &VerifiedEvent) {
        let Some((sha256, len)) = record.event.payload.as_ref().and_then(|payload| payload.stored_digest()) else {
            return;
        };
        match u32::try_from(len) {
            Ok(short) if len <= limits::PAYLOAD_STORED_BYTES_MAX as u64 => self.list.push((sha256, short)),
            _ => _ = self.bad.get_or_insert(record.event.index),
        }
    }

    /// All of them.
    ///
    /// # Errors
    /// [`PayloadError::Length`] and [`PayloadError::Lengths`].
    pub fn finish(mut self) -> Result<Wanted, PayloadError> {
        if let Some(index) = self.bad {
            return Err(PayloadError::Length(index));
        }
        self.list.sort_unstable();
        self.list.dedup();
        match self.list.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(PayloadError::Lengths(pair[0].0)),
            None => Ok(Wanted(self.list)),
        }
    }
}

/// From digests and lengths in any order.
impl FromIterator<(Digest, u64)> for Wanted {
    fn from_iter<I: IntoIterator<Item = (Digest, u64)>>(payloads: I) -> Self {
        let short = |(sha256, len)| Some((sha256, u32::try_from(len).ok()?));
        let mut list: Vec<(Digest, u32)> = payloads.into_iter().filter_map(short).collect();
        list.sort_unstable();
        list.dedup();
        Wanted(list)
    }
}

impl Wanted {
    /// How many.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Digest and length of each.
    pub fn iter(&self) -> impl Iterator<Item = (&Digest, u64)> {
        self.0.iter().map(|(sha256, len)| (sha256, u64::from(*len)))
    }

    fn contains(&self, sha256: &Digest) -> bool {
        self.0.binary_search_by(|(known, _)| known.cmp(sha256)).is_ok()
    }
}

/// What payloads of these lengths unpack to.
fn unpacked_size(lengths: impl IntoIterator<Item = u64>) -> u64 {
    lengths.into_iter().map(|len| len + 4).sum()
}

/// What a writer wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Bytes before compression.
    pub unpacked: u64,
    /// Payloads that the source does not have any more, ascending.
    pub absent: Vec<Digest>,
}

/// Writes the frame; `source` gives a payload by digest, or `None` when it is gone.
///
/// # Errors
/// [`PayloadError::Damaged`] when the source gives other bytes, [`PayloadError::Io`] when reading or
/// writing fails.
pub fn write(
    wanted: &Wanted,
    source: &mut dyn FnMut(&Digest) -> io::Result<Option<Vec<u8>>>,
    out: impl Write,
) -> Result<Written, PayloadError> {
    let mut encoder = StreamingEncoder::new(out, CompressionLevel::Default);
    encoder.set_content_checksum(true)?;
    let mut written = Written { unpacked: 0, absent: Vec::new() };
    for (sha256, len) in wanted.iter() {
        let Some(bytes) = source(sha256)? else {
            written.absent.push(*sha256);
            continue;
        };
        if amc_crypto::sha256(&bytes) != *sha256 || bytes.len() as u64 != len {
            return Err(PayloadError::Damaged(*sha256));
        }
        let prefix = u32::try_from(bytes.len()).expect("a stored payload has at most a mebibyte");
        encoder.write_all(&prefix.to_le_bytes())?;
        encoder.write_all(&bytes)?;
        written.unpacked += unpacked_size([len]);
    }
    encoder.finish()?.flush()?;
    Ok(written)
}

/// Checks a frame against the payloads that events name. `unpacked` is what the manifest says.
///
/// # Errors
/// [`PayloadError`] at the first difference.
pub fn check(source: impl Read, unpacked: u64, wanted: &Wanted, absent: &[Digest]) -> Result<(), PayloadError> {
    if let Some(stray) = absent.iter().find(|sha256| !wanted.contains(sha256)) {
        return Err(PayloadError::NotNamed(*stray));
    }
    let present = || wanted.iter().filter(|(sha256, _)| absent.binary_search(sha256).is_err());
    let size = unpacked_size(present().map(|(_, len)| len));
    if unpacked != size {
        return Err(PayloadError::Size(size));
    }
    let mut frame = FrameReader::start(source)?;
    for (at, (sha256, len)) in present().enumerate() {
        let mut prefix = [0; 4];
        frame.read_exact(&mut prefix).map_err(|error| ended(error, size))?;
        let found = hash_next(&mut frame, u64::from(u32::from_le_bytes(prefix)), len, size)?;
        if found != (*sha256, len) {
            return Err(PayloadError::Unexpected { at, sha256: found.0 });
        }
    }
    frame.finish(size)
}

/// Hashes the next entry, never more than the wanted payload has.
fn hash_next(frame: &mut impl Read, said: u64, wanted: u64, size: u64) -> Result<(Digest, u64), PayloadError> {
    let mut hasher = BodyHasher::new();
    let mut piece = [0; 16 * 1024];
    let len = said.min(wanted);
    while hasher.len() < len {
        let most = usize::try_from(len - hasher.len()).unwrap_or(usize::MAX).min(piece.len());
        match frame.read(&mut piece[..most]) {
            Ok(0) => return Err(PayloadError::Size(size)),
            Ok(read) => hasher.update(&piece[..read]),
            Err(error) => return Err(ended(error, size)),
        }
    }
    let (sha256, _) = hasher.finish();
    Ok((sha256, said))
}

fn ended(error: io::Error, size: u64) -> PayloadError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => PayloadError::Size(size),
        io::ErrorKind::InvalidData => PayloadError::Frame(error.to_string()),
        _ => PayloadError::Io(error),
    }
}

/// One frame, block by block.
struct FrameReader<R> {
    decoder: FrameDecoder,
    source: R,
}

impl<R: Read> FrameReader<R> {
    fn start(mut source: R) -> Result<Self, PayloadError> {
        let mut decoder = FrameDecoder::new();
        decoder.set_content_checksum(ContentChecksum::Verify);
        let bounded = decoder.set_max_window_size(WINDOW_BYTES_MAX);
        bounded.and_then(|()| decoder.init(&mut source)).map_err(|error| PayloadError::Frame(error.to_string()))?;
        Ok(FrameReader { decoder, source })
    }

    /// The frame and the member end where the last payload does.
    fn finish(mut self, size: u64) -> Result<(), PayloadError> {
        let mut more = [0; 1];
        if self.read(&mut more).map_err(|error| ended(error, size))? != 0 {
            return Err(PayloadError::Size(size));
        }
        match self.source.read(&mut more)? {
            0 => Ok(()),
            _ => Err(PayloadError::Frame("bytes follow it".into())),
        }
    }
}

impl<R: Read> Read for FrameReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.decoder.read(buffer)?;
            if read > 0 || buffer.is_empty() || self.decoder.is_finished() {
                return Ok(read);
            }
            let one = BlockDecodingStrategy::UptoBlocks(1);
            let decoded = self.decoder.decode_blocks(&mut self.source, one);
            decoded.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn store(payloads: &[Vec<u8>]) -> BTreeMap<Digest, Vec<u8>> {
        payloads.iter().map(|bytes| (amc_crypto::sha256(bytes), bytes.clone())).collect()
    }

    fn packed(store: &BTreeMap<Digest, Vec<u8>>) -> (Wanted, Vec<u8>, Written) {
        let wanted: Wanted = store.iter().map(|(sha256, bytes)| (*sha256, bytes.len() as u64)).collect();
        let mut out = Vec::new();
        let written = write(&wanted, &mut |sha256| Ok(store.get(sha256).cloned()), &mut out).expect("writes");
        (wanted, out, written)
    }

    fn sample() -> BTreeMap<Digest, Vec<u8>> {
        store(&[b"one".to_vec(), vec![7; 300_000], Vec::new(), (0..=255).cycle().take(70_000).collect()])
    }

    #[test]
    fn there_and_back() {
        let (wanted, bytes, written) = packed(&sample());
        assert!(written.absent.is_empty());
        check(bytes.as_slice(), written.unpacked, &wanted, &[]).expect("what was written checks");
        let (none, bytes, written) = packed(&BTreeMap::new());
        check(bytes.as_slice(), written.unpacked, &none, &[]).expect("no payloads at all");
    }

    #[test]
    fn flipped_bytes_and_truncations_are_refused() {
        let (wanted, bytes, written) = packed(&sample());
        // Some bits of a frame mean nothing to its content; the manifest's digest covers those.
        let harmless = |at: &usize| {
            let mut bad = bytes.clone();
            bad[*at] ^= 0x01;
            check(bad.as_slice(), written.unpacked, &wanted, &[]).is_ok()
        };
        let harmless = (0..bytes.len()).filter(harmless).count();
        assert!(harmless * 20 < bytes.len(), "{harmless} of {}", bytes.len());
        for len in 0..bytes.len() {
            assert!(check(&bytes[..len], written.unpacked, &wanted, &[]).is_err(), "{len}");
        }
    }

    #[test]
    fn a_bomb_is_refused_without_unpacking_it() {
        let bomb = store(&[vec![0; limits::PAYLOAD_STORED_BYTES_MAX]]);
        let (_, bytes, written) = packed(&bomb);
        let small: Wanted = [(amc_crypto::sha256(b"x"), 1)].into_iter().collect();
        let said_large = check(bytes.as_slice(), written.unpacked, &small, &[]);
        assert!(matches!(said_large, Err(PayloadError::Size(5))));
        let said_small = check(bytes.as_slice(), 5, &small, &[]);
        assert!(matches!(said_small, Err(PayloadError::Unexpected { at: 0, .. })));
    }

    #[test]
    fn a_window_of_a_gibibyte_is_refused() {
        // Magic, no single segment, no checksum; window descriptor exponent 20: 1 GiB.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 20 << 3, 0x01, 0x00, 0x00];
        let error = check(frame.as_slice(), 0, &Wanted::default(), &[]);
        assert!(matches!(error, Err(PayloadError::Frame(_))), "{error:?}");
    }

    #[test]
    fn a_writer_of_ours_stays_within_the_readers_window() {
        let (_, bytes, _) = packed(&sample());
        assert_eq!(bytes[4] & 0x20, 0, "no single segment, so the window does not grow with the content");
        let (exponent, mantissa) = (u64::from(bytes[5] >> 3), u64::from(bytes[5] & 7));
        assert!(((8 + mantissa) << (10 + exponent)) / 8 <= WINDOW_BYTES_MAX);
    }

    #[test]
    fn an_extra_frame_after_the_first_is_refused() {
        let (wanted, bytes, written) = packed(&sample());
        let twice = [bytes.clone(), packed(&BTreeMap::new()).1].concat();
        assert!(matches!(check(twice.as_slice(), written.unpacked, &wanted, &[]), Err(PayloadError::Frame(_))));
    }

    #[test]
    fn absent_payloads_are_said_or_missed() {
        let mut store = sample();
        let (wanted, ..) = packed(&store);
        let gone = *store.keys().next().expect("four");
        store.remove(&gone);
        let mut bytes = Vec::new();
        let written = write(&wanted, &mut |sha256| Ok(store.get(sha256).cloned()), &mut bytes).expect("writes");
        assert_eq!(written.absent, [gone]);
        check(bytes.as_slice(), written.unpacked, &wanted, &[gone]).expect("said to be absent");
        assert!(check(bytes.as_slice(), written.unpacked, &wanted, &[]).is_err(), "not said");
        let stray = Digest([9; 32]);
        let error = check(bytes.as_slice(), written.unpacked, &wanted, &[stray]);
        assert!(matches!(error, Err(PayloadError::NotNamed(_))));
    }
}
