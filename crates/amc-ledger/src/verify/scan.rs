//! Reading segments in order, flush by flush: only what a signed checkpoint ends is given out.

use amc_core::{Finding, FindingCode, limits};
use amc_crypto::{Checkpoint, Note, sha256};
use amc_evidence::SignedEvent;

use crate::engine::CHECKPOINT_FILE;
use crate::error::ReadError;
use crate::frame::{
    Cursor, FlushEnd, Frame, FrameError, HEADER_BYTES, SegmentHeader, later_flush, segment_indices, segment_path,
};
use crate::reader::PayloadLocation;
use crate::storage::Files;

/// Events in one piece of work, and so signatures in one batch: more gain little and take memory.
const CHUNK_EVENTS: usize = 1024;
/// A flush has a bound of some megabytes; what has no checkpoint for longer is none of ours.
const FLUSH_EVENTS_MAX: usize = 1 << 17;

/// One frame to be judged.
pub(super) enum Item {
    Event { signed: SignedEvent, location: Option<PayloadLocation> },
    Checkpoint { end: FlushEnd, place: String },
    Snapshot { bytes: Vec<u8>, place: String },
}

/// The flushes of a log in order.
pub(super) struct Scan {
    files: Files,
    origin: String,
    segments: Vec<u64>,
    next_segment: usize,
    cursor: Option<Cursor>,
    first_index: u64,
    /// Offset after the newest checkpoint of this segment.
    flushed: u64,
    events: u64,
    published: u64,
    open: Vec<Item>,
    /// What ended the scan early, or is worth knowing.
    pub(super) findings: Vec<Finding>,
    /// Whether something that should be there could not be read.
    pub(super) broken: bool,
}

/// The `checkpoint` file: `None` when it is absent; an error when it is no checkpoint.
pub(super) fn published(files: &Files) -> Result<Result<Option<(Checkpoint, Note)>, String>, ReadError> {
    let Some(bytes) = files.read(CHECKPOINT_FILE, limits::NOTE_BYTES_MAX)? else { return Ok(Ok(None)) };
    let parsed = Note::parse(&bytes).map_err(|error| error.to_string()).and_then(|note| {
        let checkpoint = Checkpoint::parse(note.text()).map_err(|error| error.to_string())?;
        Ok(Some((checkpoint, note)))
    });
    Ok(parsed)
}

/// The next frame. What looks unfinished is looked at again when a later flush stands behind it:
/// beside a live writer it was finished in the meantime.
fn next_frame(
    cursor: &mut Cursor,
    first_index: u64,
    flushed: u64,
) -> Result<Result<Option<Frame>, FrameError>, ReadError> {
    let unfinished = match cursor.next() {
        Ok(Some(frame)) => return Ok(Ok(Some(frame))),
        Ok(None) if cursor.offset() == flushed => return Ok(Ok(None)),
        Err(FrameError::File(error)) => return Err(error.into()),
        unfinished => unfinished,
    };
    if !later_flush(cursor.file(), first_index, flushed)? {
        return Ok(unfinished);
    }
    match cursor.next() {
        Err(FrameError::File(error)) => Err(error.into()),
        again => Ok(again),
    }
}

impl Scan {
    pub(super) fn new(files: &Files, origin: &str, published: u64) -> Result<Self, ReadError> {
        let segments = segment_indices(&files.names("segments")?);
        if segments.is_empty() {
            return Err(ReadError::Absent(files.dir().to_owned()));
        }
        Ok(Scan {
            files: files.clone(),
            origin: origin.to_owned(),
            segments,
            next_segment: 0,
            cursor: None,
            first_index: 0,
            flushed: 0,
            events: 0,
            published,
            open: Vec::new(),
            findings: Vec::new(),
            broken: false,
        })
    }

    fn stop(&mut self, code: FindingCode, place: String, what: &str) {
        let what = format!("{what}; nothing after this place could be verified");
        self.findings.push(Finding::error(code, place, what));
        self.broken = true;
        self.open.clear();
    }

    /// Some whole flushes; `None` at the end of what can be read.
    pub(super) fn next(&mut self) -> Result<Option<Vec<Item>>, ReadError> {
        let mut chunk = Vec::new();
        while !self.broken && chunk.len() < CHUNK_EVENTS {
            if self.cursor.is_none() && !self.open_next()? {
                break;
            }
            let Some(cursor) = &mut self.cursor else { break };
            let at = cursor.offset();
            let frame = next_frame(cursor, self.first_index, self.flushed)?;
            let place = || format!("{}+{at}", cursor.file().name());
            match frame {
                Ok(Some(Frame::Event { signed, location })) => {
                    self.open.push(Item::Event { signed, location });
                    if self.open.len() > FLUSH_EVENTS_MAX {
                        let place = place();
                        self.stop(FindingCode::CheckpointInvalid, place, "no checkpoint ends this flush");
                    }
                }
                Ok(Some(Frame::Checkpoint(end))) => {
                    let place = place();
                    self.flushed = cursor.offset();
                    self.events += self.open.iter().filter(|item| matches!(item, Item::Event { .. })).count() as u64;
                    self.open.push(Item::Checkpoint { end, place });
                    chunk.append(&mut self.open);
                }
                Ok(Some(Frame::Snapshot(bytes))) => self.open.push(Item::Snapshot { bytes, place: place() }),
                Ok(None) => self.end_segment(None)?,
                Err(FrameError::Incomplete) => self.end_segment(Some((at, "a frame ends beyond the file", false)))?,
                Err(FrameError::Damaged(what)) => self.end_segment(Some((at, what, true)))?,
                Err(FrameError::File(error)) => return Err(error.into()),
            }
        }
        Ok((!chunk.is_empty()).then_some(chunk))
    }

    fn open_next(&mut self) -> Result<bool, ReadError> {
        let Some(first_index) = self.segments.get(self.next_segment).copied() else { return Ok(false) };
        let path = segment_path(first_index);
        if first_index != self.events {
            let what = match first_index.checked_sub(self.events) {
                Some(count) => format!("{count} events are missing before this segment"),
                None => "this segment begins with events that stand before it already".to_owned(),
            };
            let code =
                if first_index > self.events { FindingCode::LedgerTruncated } else { FindingCode::EventOutOfOrder };
            self.stop(code, path, &what);
            return Ok(false);
        }
        let Some(file) = self.files.open(&path)? else {
            self.stop(FindingCode::LedgerTruncated, path, "this segment is gone");
            return Ok(false);
        };
        let problem = match SegmentHeader::read(&file) {
            Ok(header) if header.origin != sha256(self.origin.as_bytes()) => {
                let what = format!("this is a segment of another log than {}", self.origin);
                Some((FindingCode::KeyHistoryUntrusted, what))
            }
            Ok(header) if header.first_index != first_index => {
                let what = format!("this segment says that it begins with event {}", header.first_index);
                Some((FindingCode::EventOutOfOrder, what))
            }
            Ok(_) => None,
            Err(FrameError::File(error)) => return Err(error.into()),
            Err(FrameError::Incomplete) => Some((FindingCode::LedgerTruncated, "its header is incomplete".to_owned())),
            Err(FrameError::Damaged(what)) => Some((FindingCode::EventHashMismatch, what.to_owned())),
        };
        if let Some((code, what)) = problem {
            self.stop(code, path, &what);
            return Ok(false);
        }
        self.first_index = first_index;
        self.next_segment += 1;
        self.flushed = HEADER_BYTES as u64;
        self.cursor = Some(Cursor::new(file, first_index));
        Ok(true)
    }

    /// Decides what the end of a segment means: its regular end, a crash or a live writer, or a
    /// loss.
    fn end_segment(&mut self, damage: Option<(u64, &'static str, bool)>) -> Result<(), ReadError> {
        let Some(cursor) = self.cursor.take() else { return Ok(()) };
        let file = cursor.file().clone();
        let leftover = file.len()?.saturating_sub(self.flushed);
        let place = |at: u64| format!("{}+{at}", file.name());
        if leftover == 0 && damage.is_none() {
            return Ok(());
        }
        let (at, what, damaged) = damage.unwrap_or((self.flushed, "no checkpoint ends these events", false));
        let newest = self.next_segment == self.segments.len();
        let later = later_flush(&file, self.first_index, self.flushed)?;
        let lost = !newest || later || self.published > self.events;
        if lost && (damaged || later) {
            self.stop(FindingCode::EventHashMismatch, place(at), what);
        } else if lost {
            self.stop(FindingCode::LedgerTruncated, place(at), what);
        } else {
            self.open.clear();
            let what = format!(
                "{leftover} bytes stand after the newest checkpoint: an append under way, or a crash; opening the log for writing cuts and records them"
            );
            self.findings.push(Finding::info(FindingCode::LedgerRecovered, place(self.flushed), what));
        }
        Ok(())
    }
}
