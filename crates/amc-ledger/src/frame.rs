//! Segment files, byte by byte. Reads strictly, interprets nothing.
//!
//! ```text
//! header, 64 bytes                       frame
//!  0  8 "amc-seg\n"                       0  4 tag: "EVNT", "CKPT" or "SNAP"
//!  8  4 version, u32 LE = 1               4  4 length of the content, u32 LE
//! 12  4 zero                              8 16 check
//! 16  8 first index, u64 LE              24  … content
//! 24 32 SHA-256 of the origin
//! 56  8 BLAKE3 of bytes 0..56, cut       check = BLAKE3(first index ‖ offset ‖ tag ‖ length ‖ content), cut
//!
//! EVNT   0 64 signature │ 64 4 pack, u32 LE (all ones: none) │ 68 8 offset, u64 LE │ 76 … event body
//! CKPT   0 8 offset at which this flush begins, u64 LE │ 8 4 pack │ 12 8 length of that pack │ 20 … signed note
//! SNAP   0 … postcard of the log's state at the first index
//! ```
//!
//! First index and offset are part of the check, so a frame is good at one place only.

use amc_core::{Digest, limits};
use amc_crypto::{Note, Signature};
use amc_evidence::SignedEvent;

use crate::error::FileError;
use crate::reader::PayloadLocation;
use crate::storage::OpenFile;

/// Bytes of a segment's header.
pub(crate) const HEADER_BYTES: usize = 64;
/// Bytes of a frame before its content.
pub(crate) const FRAME_HEAD_BYTES: usize = 24;
const VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"amc-seg\n";
const EVENT: &[u8; 4] = b"EVNT";
const CHECKPOINT: &[u8; 4] = b"CKPT";
const SNAPSHOT: &[u8; 4] = b"SNAP";
const EVENT_HEAD_BYTES: usize = 76;
const CHECKPOINT_HEAD_BYTES: usize = 20;
/// A snapshot: some ten thousand agents and open sessions.
const SNAPSHOT_BYTES_MAX: usize = 64 << 20;
/// Bytes that a cursor reads at once.
const READ_BYTES: usize = 256 << 10;

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) first_index: u64,
    pub(crate) origin: Digest,
}

/// The signed checkpoint that ends a flush.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FlushEnd {
    /// Offset at which this flush begins.
    pub(crate) batch_start: u64,
    /// The pack that payloads go to, and its length with this flush.
    pub(crate) pack: u32,
    pub(crate) pack_len: u64,
    pub(crate) note: Note,
}

/// A frame's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Event { signed: SignedEvent, location: Option<PayloadLocation> },
    Checkpoint(FlushEnd),
    Snapshot(Vec<u8>),
}

/// Why there is no frame at an offset.
#[derive(Debug)]
pub(crate) enum FrameError {
    /// The file ends within the frame.
    Incomplete,
    /// The bytes are no frame of this place.
    Damaged(&'static str),
    File(FileError),
}

impl From<FileError> for FrameError {
    fn from(error: FileError) -> Self {
        FrameError::File(error)
    }
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first_index.to_le_bytes());
        bytes[24..56].copy_from_slice(&self.origin.0);
        let check = blake3::hash(&bytes[..56]);
        bytes[56..].copy_from_slice(&check.as_bytes()[..8]);
        bytes
    }

    pub(crate) fn read(file: &OpenFile) -> Result<Self, FrameError> {
        let mut bytes = [0; HEADER_BYTES];
        if file.read_at(&mut bytes, 0)? < bytes.len() {
            return Err(FrameError::Incomplete);
        }
        if bytes[..8] != *MAGIC {
            return Err(FrameError::Damaged("it does not begin like a segment"));
        }
        if bytes[8..16] != [VERSION.to_le_bytes(), [0; 4]].concat() {
            return Err(FrameError::Damaged("its version is not known here"));
        }
        if bytes[56..] != blake3::hash(&bytes[..56]).as_bytes()[..8] {
            return Err(FrameError::Damaged("its header does not match its own check"));
        }
        Ok(SegmentHeader { first_index: u64_at(&bytes, 16), origin: Digest(array_at(&bytes, 24)) })
    }
}

/// The path of the segment that begins at `first_index`.
pub(crate) fn segment_path(first_index: u64) -> String {
    format!("segments/{first_index:020}.seg")
}

/// First indices of the segments with these names, ascending; other names are left alone.
pub(crate) fn segment_indices(names: &[String]) -> Vec<u64> {
    let digits = |name: &String| {
        let stem = name.strip_suffix(".seg")?;
        (stem.len() == 20 && stem.bytes().all(|byte| byte.is_ascii_digit())).then(|| stem.parse().ok())?
    };
    names.iter().filter_map(digits).collect()
}

fn check(first_index: u64, offset: u64, head: &[u8], content: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&first_index.to_le_bytes()).update(&offset.to_le_bytes()).update(head).update(content);
    array_at(hasher.finalize().as_bytes(), 0)
}

impl Frame {
    /// Appends the frame to `out`, whose first byte will stand at `base` in the segment.
    pub(crate) fn encode(&self, first_index: u64, base: u64, out: &mut Vec<u8>) {
        let start = out.len();
        let tag = match self {
            Frame::Event { .. } => EVENT,
            Frame::Checkpoint(_) => CHECKPOINT,
            Frame::Snapshot(_) => SNAPSHOT,
        };
        out.extend_from_slice(tag);
        out.resize(start + FRAME_HEAD_BYTES, 0);
        match self {
            Frame::Event { signed, location } => {
                out.extend_from_slice(&signed.signature.0);
                let (pack, offset) = location.map_or((u32::MAX, u64::MAX), |at| (at.pack, at.offset));
                out.extend_from_slice(&pack.to_le_bytes());
                out.extend_from_slice(&offset.to_le_bytes());
                out.extend_from_slice(&signed.body);
            }
            Frame::Checkpoint(end) => {
                out.extend_from_slice(&end.batch_start.to_le_bytes());
                out.extend_from_slice(&end.pack.to_le_bytes());
                out.extend_from_slice(&end.pack_len.to_le_bytes());
                out.extend_from_slice(end.note.to_string().as_bytes());
            }
            Frame::Snapshot(bytes) => out.extend_from_slice(bytes),
        }
        let content = start + FRAME_HEAD_BYTES;
        let len = u32::try_from(out.len() - content).expect("every frame's content is bounded far below 4 GiB");
        out[start + 4..start + 8].copy_from_slice(&len.to_le_bytes());
        let check = check(first_index, base + start as u64, &out[start..start + 8], &out[content..]);
        out[start + 8..content].copy_from_slice(&check);
    }

    fn decode(tag: [u8; 4], content: &[u8]) -> Result<Frame, FrameError> {
        match &tag {
            EVENT => {
                let location = PayloadLocation { pack: u32_at(content, 64), offset: u64_at(content, 68) };
                Ok(Frame::Event {
                    signed: SignedEvent {
                        body: content[EVENT_HEAD_BYTES..].to_vec(),
                        signature: Signature(array_at(content, 0)),
                    },
                    location: (location.pack != u32::MAX).then_some(location),
                })
            }
            CHECKPOINT => {
                let note = Note::parse(&content[CHECKPOINT_HEAD_BYTES..])
                    .map_err(|_| FrameError::Damaged("its checkpoint is no signed note"))?;
                let (batch_start, pack, pack_len) = (u64_at(content, 0), u32_at(content, 8), u64_at(content, 12));
                Ok(Frame::Checkpoint(FlushEnd { batch_start, pack, pack_len, note }))
            }
            _ => Ok(Frame::Snapshot(content.to_vec())),
        }
    }
}

/// Smallest and largest content of a tag.
fn bounds(tag: [u8; 4]) -> Option<(usize, usize)> {
    match &tag {
        EVENT => Some((EVENT_HEAD_BYTES, EVENT_HEAD_BYTES + limits::EVENT_BYTES_MAX)),
        CHECKPOINT => Some((CHECKPOINT_HEAD_BYTES, CHECKPOINT_HEAD_BYTES + limits::NOTE_BYTES_MAX)),
        SNAPSHOT => Some((0, SNAPSHOT_BYTES_MAX)),
        _ => None,
    }
}

/// Reads a segment frame by frame, beside a writer that appends to it.
pub(crate) struct Cursor {
    file: OpenFile,
    first_index: u64,
    offset: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl Cursor {
    /// Begins after the header.
    pub(crate) fn new(file: OpenFile, first_index: u64) -> Self {
        Cursor { file, first_index, offset: HEADER_BYTES as u64, buffer: Vec::new(), buffer_at: 0 }
    }

    pub(crate) const fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) const fn file(&self) -> &OpenFile {
        &self.file
    }

    /// The next frame; `None` at the end of the file.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        match self.try_next() {
            // What was buffered may be older than what a writer has put there since.
            Err(FrameError::Incomplete | FrameError::Damaged(_)) => {
                self.buffer.clear();
                self.try_next()
            }
            done => done,
        }
    }

    /// Passes over a frame without looking at its content; whether it holds an event. `None` when
    /// no frame head stands here. What comes after is checked as ever: a frame is bound to its place.
    pub(crate) fn skip(&mut self) -> Result<Option<bool>, FileError> {
        let head = self.bytes(FRAME_HEAD_BYTES)?;
        if head.len() < FRAME_HEAD_BYTES {
            return Ok(None);
        }
        let (tag, len) = (array_at(head, 0), u32_at(head, 4) as usize);
        if bounds(tag).is_none_or(|(min, max)| len < min || len > max) {
            return Ok(None);
        }
        self.offset += (FRAME_HEAD_BYTES + len) as u64;
        Ok(Some(tag == *EVENT))
    }

    fn try_next(&mut self) -> Result<Option<Frame>, FrameError> {
        let head = self.bytes(FRAME_HEAD_BYTES)?;
        if head.is_empty() {
            return Ok(None);
        }
        if head.len() < FRAME_HEAD_BYTES {
            return Err(FrameError::Incomplete);
        }
        let tag = array_at(head, 0);
        let len = u32_at(head, 4) as usize;
        let (min, max) = bounds(tag).ok_or(FrameError::Damaged("no frame begins here"))?;
        if len < min || len > max {
            return Err(FrameError::Damaged("a frame's length is out of bounds"));
        }
        let (first_index, offset) = (self.first_index, self.offset);
        let frame = self.bytes(FRAME_HEAD_BYTES + len)?;
        if frame.len() < FRAME_HEAD_BYTES + len {
            return Err(FrameError::Incomplete);
        }
        let (head, content) = frame.split_at(FRAME_HEAD_BYTES);
        if check(first_index, offset, &head[..8], content) != head[8..] {
            return Err(FrameError::Damaged("a frame does not match its check"));
        }
        let decoded = Frame::decode(tag, content)?;
        self.offset += (FRAME_HEAD_BYTES + len) as u64;
        Ok(Some(decoded))
    }

    /// Up to `count` bytes from the current offset on.
    fn bytes(&mut self, count: usize) -> Result<&[u8], FileError> {
        // A cursor only goes forward, so the buffer never begins after its offset.
        let skip = usize::try_from(self.offset - self.buffer_at).unwrap_or(usize::MAX);
        if self.buffer.len() < skip.saturating_add(count) {
            let mut fresh = vec![0; count.max(READ_BYTES)];
            let read = self.file.read_at(&mut fresh, self.offset)?;
            fresh.truncate(read);
            self.buffer = fresh;
            self.buffer_at = self.offset;
            let end = self.buffer.len().min(count);
            return Ok(&self.buffer[..end]);
        }
        Ok(&self.buffer[skip..skip + count])
    }
}

/// Looks beyond damage at `from` for the end of a flush that began later: such a flush was written
/// only after the damaged one was durable, so this damage is no crash.
pub(crate) fn later_flush(file: &OpenFile, first_index: u64, from: u64) -> Result<bool, FileError> {
    let len = file.len()?;
    let mut at = from;
    let mut window = vec![0; READ_BYTES];
    while at < len {
        let read = file.read_at(&mut window, at)?;
        for start in 0..read.saturating_sub(3) {
            if window[start..start + 4] == *CHECKPOINT {
                let mut cursor = Cursor::new(file.clone(), first_index);
                cursor.offset = at + start as u64;
                match cursor.next() {
                    Ok(Some(Frame::Checkpoint(end))) if end.batch_start > from => return Ok(true),
                    Err(FrameError::File(error)) => return Err(error),
                    _ => {}
                }
            }
        }
        if read < READ_BYTES {
            break;
        }
        at += (READ_BYTES - 3) as u64;
    }
    Ok(false)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the length was checked before")
}
