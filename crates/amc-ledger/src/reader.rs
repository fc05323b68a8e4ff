//! Reading a log without lock or key: beside a live writer, on a copy, on a read-only mount.
//!
//! A reader sees the log as its published checkpoint describes it. It checks frames and payload
//! digests; signatures and rules are for [`crate::verify`].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use amc_core::{Digest, Finding, FindingCode, limits};
use amc_crypto::merkle::{HashReader, root_of};
use amc_crypto::{Checkpoint, Note};
use amc_evidence::{PayloadRef, SignedEvent};

use crate::engine::CHECKPOINT_FILE;
use crate::error::ReadError;
use crate::frame::{Cursor, Frame, FrameError, segment_indices, segment_path};
use crate::payload::PackReader;
use crate::snapshot::{Snapshot, Stored};
use crate::storage::{Files, OpenFile};
use crate::tiles::{Edge, read_tile};

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
pub struct LogReader {
    files: Files,
    note: Note,
    checkpoint: Checkpoint,
}

impl LogReader {
    /// Opens the log in `dir`; sees it up to its published checkpoint.
    ///
    /// # Errors
    /// [`ReadError`] when there is no log or its checkpoint cannot be read.
    pub fn open(dir: &Path) -> Result<Self, ReadError> {
        Self::over(&Files::on_disk(dir))
    }

    pub(crate) fn over(files: &Files) -> Result<Self, ReadError> {
        let (checkpoint, note) = published(files)?;
        Ok(LogReader { files: files.clone(), note, checkpoint })
    }

    /// Looks again at the published checkpoint; events appended since become visible.
    ///
    /// # Errors
    /// [`ReadError`] when it cannot be read.
    pub fn refresh(&mut self) -> Result<(), ReadError> {
        (self.checkpoint, self.note) = published(&self.files)?;
        Ok(())
    }

    /// Number of events that this reader sees.
    pub const fn size(&self) -> u64 {
        self.checkpoint.size
    }

    /// The published checkpoint, signatures not verified.
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The published checkpoint as the signed note that it is.
    pub const fn latest_checkpoint(&self) -> &Note {
        &self.note
    }

    /// The signed checkpoint that a flush left at exactly this size, if one ended there.
    ///
    /// # Errors
    /// [`ReadError`] when a segment cannot be read.
    pub fn checkpoint_at(&self, size: u64) -> Result<Option<Note>, ReadError> {
        if size == self.size() {
            return Ok(Some(self.note.clone()));
        }
        if size == 0 || size > self.size() {
            return Ok(None);
        }
        let mut walk = Walk::at(&self.files, size - 1)?;
        while let Some((at, frame)) = walk.next()? {
            match frame {
                Frame::Checkpoint(end) if at == size => return Ok(Some(end.note)),
                _ if at > size => break,
                _ => {}
            }
        }
        Ok(None)
    }

    /// The events from an index on, in order, up to [`LogReader::size`].
    pub fn events(&self, from: u64) -> Events {
        Events { files: self.files.clone(), walk: None, next: from, size: self.size(), failed: false }
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
        let subject = location.map_or_else(
            || "payloads".to_owned(),
            |location| format!("payloads/{:08}.pack+{}", location.pack, location.offset),
        );
        PackReader::new(&self.files).read(&subject, payload, location)
    }

    /// The tree of this log, for proofs at sizes up to [`LogReader::size`].
    ///
    /// # Errors
    /// [`ReadError`] when the newest segment cannot be read.
    pub fn tree(&self) -> Result<Tree, ReadError> {
        Tree::build(&self.files, self.size())
    }
}

/// The checkpoint file, parsed.
fn published(files: &Files) -> Result<(Checkpoint, Note), ReadError> {
    let bytes = files
        .read(CHECKPOINT_FILE, limits::NOTE_BYTES_MAX)?
        .ok_or_else(|| ReadError::Absent(files.dir().to_owned()))?;
    let invalid = |what: String| damage(FindingCode::CheckpointInvalid, CHECKPOINT_FILE, what);
    let note = Note::parse(&bytes).map_err(|error| invalid(error.to_string()))?;
    let checkpoint = Checkpoint::parse(note.text()).map_err(|error| invalid(error.to_string()))?;
    Ok((checkpoint, note))
}

pub(crate) fn damage(code: FindingCode, subject: impl Into<String>, what: impl Into<String>) -> ReadError {
    ReadError::Damaged(Finding::error(code, subject, what))
}

/// The events of a log in order. Ends at the size that its reader saw, or at the first error.
pub struct Events {
    files: Files,
    walk: Option<Walk>,
    next: u64,
    size: u64,
    failed: bool,
}

impl Events {
    /// Goes on up to a larger size; events before it must have been published.
    pub(crate) const fn extend(&mut self, size: u64) {
        self.size = size;
    }

    fn step(&mut self) -> Result<StoredEvent, ReadError> {
        let walk = match &mut self.walk {
            Some(walk) => walk,
            None => self.walk.insert(Walk::at(&self.files, self.next)?),
        };
        while let Some((index, frame)) = walk.next()? {
            if let Frame::Event { signed, location } = frame
                && index == self.next
            {
                self.next += 1;
                return Ok(StoredEvent { index, signed, payload_location: location });
            }
        }
        let what = format!("the checkpoint covers {} events and the segments end at {}", self.size, self.next);
        Err(damage(FindingCode::LedgerTruncated, "segments", what))
    }
}

impl Iterator for Events {
    type Item = Result<StoredEvent, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.next >= self.size {
            return None;
        }
        let event = self.step();
        self.failed = event.is_err();
        Some(event)
    }
}

/// Frames over all segments from the one that holds an index on. Reports with each frame the
/// number of events before it.
pub(crate) struct Walk {
    files: Files,
    cursor: Cursor,
    first: u64,
    index: u64,
}

impl Walk {
    pub(crate) fn new(files: &Files, index: u64) -> Result<Self, ReadError> {
        let segments = segment_indices(&files.names("segments")?);
        let holder = segments.iter().copied().rfind(|first| *first <= index);
        let first = holder.ok_or_else(|| match segments.is_empty() {
            true => ReadError::Absent(files.dir().to_owned()),
            false => damage(FindingCode::LedgerTruncated, segment_path(0), "this segment is gone"),
        })?;
        Ok(Walk { files: files.clone(), cursor: open_segment(files, first)?, first, index: first })
    }

    /// As [`Walk::new`], and already past the events before `index` in that segment.
    fn at(files: &Files, index: u64) -> Result<Self, ReadError> {
        let mut walk = Walk::new(files, index)?;
        while walk.index < index
            && let Some(is_event) = walk.cursor.skip()?
        {
            walk.index += u64::from(is_event);
        }
        Ok(walk)
    }

    pub(crate) fn next(&mut self) -> Result<Option<(u64, Frame)>, ReadError> {
        loop {
            let at = self.cursor.offset();
            match self.cursor.next() {
                Ok(Some(frame)) => {
                    let index = self.index;
                    self.index += u64::from(matches!(frame, Frame::Event { .. }));
                    return Ok(Some((index, frame)));
                }
                // The next segment, if there is one, begins with the event that would follow here.
                Ok(None) | Err(FrameError::Incomplete) if self.is_followed()? => {
                    self.cursor = open_segment(&self.files, self.index)?;
                    self.first = self.index;
                }
                Ok(None) | Err(FrameError::Incomplete) => return Ok(None),
                Err(FrameError::Damaged(what)) => return Err(frame_damage(self.cursor.file(), at, what)),
                Err(FrameError::File(error)) => return Err(error.into()),
            }
        }
    }
}

impl Walk {
    fn is_followed(&self) -> Result<bool, ReadError> {
        Ok(self.index > self.first && self.files.open(&segment_path(self.index))?.is_some())
    }
}

fn frame_damage(file: &OpenFile, at: u64, what: &str) -> ReadError {
    damage(FindingCode::EventHashMismatch, format!("{}+{at}", file.name()), what)
}

fn open_segment(files: &Files, first_index: u64) -> Result<Cursor, ReadError> {
    let path = segment_path(first_index);
    let gone = || damage(FindingCode::LedgerTruncated, path.clone(), "this segment is gone");
    Ok(Cursor::new(files.open(&path)?.ok_or_else(gone)?, first_index))
}

/// The hashes of a log's tree, read from tiles and, at the right edge, from the newest segment.
pub struct Tree {
    files: Files,
    /// The right edge, and the tiles that became full in the newest segment.
    edge: Edge,
    fresh: BTreeMap<(u8, u64), Vec<Digest>>,
    /// The tiles read last, since a proof asks the same ones again.
    read: Mutex<BTreeMap<(u8, u64), Vec<Digest>>>,
}

/// Tiles kept in memory by a [`Tree`]: 8 KiB each.
const TILES_KEPT_MAX: usize = 256;

impl Tree {
    fn build(files: &Files, size: u64) -> Result<Self, ReadError> {
        let mut tree = Tree {
            files: files.clone(),
            edge: Edge::default(),
            fresh: BTreeMap::new(),
            read: Mutex::new(BTreeMap::new()),
        };
        // Without a snapshot that this release can read, the edge follows from the first event on.
        if !tree.extend(Walk::new(files, size.saturating_sub(1))?, size)? {
            tree.extend(Walk::new(files, 0)?, size)?;
        }
        Ok(tree)
    }

    /// Takes in the events up to `size`; `false` when the walk begins at a snapshot that cannot be
    /// read here.
    fn extend(&mut self, mut walk: Walk, size: u64) -> Result<bool, ReadError> {
        while self.edge.size() < size {
            match walk.next()? {
                Some((index, Frame::Snapshot(bytes))) if index > 0 && self.edge.size() == 0 => {
                    match Snapshot::decode(&bytes, index) {
                        Stored::Known(snapshot) => self.edge = snapshot.edge,
                        Stored::Foreign => return Ok(false),
                        Stored::Damaged => {
                            let what = "its snapshot is damaged";
                            return Err(damage(FindingCode::EventHashMismatch, segment_path(index), what));
                        }
                    }
                }
                Some((_, Frame::Event { signed, .. })) => {
                    let fresh = &mut self.fresh;
                    self.edge.push(signed.event_hash(), |tile| {
                        fresh.insert((tile.level, tile.number), tile.hashes);
                    });
                }
                Some(_) => {}
                None => {
                    let what = format!("the checkpoint covers {size} events and the segments hold fewer");
                    return Err(damage(FindingCode::LedgerTruncated, "segments", what));
                }
            }
        }
        Ok(true)
    }

    /// The hashes `[first, first + count)` of a tile level, all in one tile.
    pub(crate) fn row(&self, level: u8, first: u64, count: u64) -> Result<Vec<Digest>, ReadError> {
        let edge = (first..first + count).map(|index| self.edge.hash(level, index)).collect::<Option<Vec<_>>>();
        if let Some(row) = edge {
            return Ok(row);
        }
        let key = (level, first >> 8);
        let start = usize::try_from(first & 0xff).expect("below 256");
        let range = start..start + usize::try_from(count).expect("at most 256");
        if let Some(tile) = self.fresh.get(&key) {
            return Ok(tile[range].to_vec());
        }
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tile) = read.get(&key) {
            return Ok(tile[range].to_vec());
        }
        let gone = || {
            let path = crate::tiles::tile_path(key.0, key.1);
            damage(FindingCode::LedgerTruncated, path, "this tile is missing; `amc ledger reindex` writes it again")
        };
        let tile = read_tile(&self.files, key.0, key.1)?.ok_or_else(gone)?;
        let row = tile[range].to_vec();
        if read.len() >= TILES_KEPT_MAX {
            read.clear();
        }
        read.insert(key, tile);
        Ok(row)
    }
}

impl HashReader for Tree {
    type Error = ReadError;

    fn subtree(&self, level: u8, index: u64) -> Result<Digest, ReadError> {
        // 2^(level mod 8) neighbours of a tile level make one hash in between.
        let within = level % 8;
        Ok(root_of(self.row(level / 8, index << within, 1 << within)?))
    }
}
