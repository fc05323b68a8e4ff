//! The log as one thread sees it: events are staged, then a flush makes them durable together.
//!
//! No threads and no waiting here; [`crate::writer`] drives it, and so do the crash tests.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use amc_core::kinds::{KeyPurpose, KeyRotated};
use amc_core::{Clock, Instant, Tier};
use amc_crypto::signer::SignError;
use amc_crypto::{Note, sha256};
use amc_evidence::{Content, Draft, NextEvent, SignedEvent};

use crate::error::{AppendError, FileError};
use crate::frame::{FlushEnd, Frame, SegmentHeader, segment_path};
use crate::payload::{PackWriter, Packed};
use crate::reader::PayloadLocation;
use crate::snapshot::Snapshot;
use crate::storage::{Files, OpenFile};
use crate::tiles::Tile;
use crate::writer::{Appended, Signers};

/// A segment is followed by the next one beyond this: opening replays one segment, so its size
/// bounds the time to open.
pub(crate) const SEGMENT_BYTES: u64 = 16 << 20;
/// Space that is reserved ahead at once.
const RESERVE_BYTES: u64 = 1 << 20;
/// Reserved space that ordinary flushes leave alone, so that a log on a full disk can still record
/// its own recovery.
const HEADROOM_BYTES: u64 = 256 << 10;

/// The `checkpoint` file.
pub(crate) const CHECKPOINT_FILE: &str = "checkpoint";

/// Why a flush failed. There is no second try.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FlushError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Sign(#[from] SignError),
}

/// The keys and the clock of a writer.
#[derive(Clone)]
pub(crate) struct Hands {
    pub(crate) signers: Signers,
    pub(crate) clock: Arc<dyn Clock>,
}

/// State that staging changes and others may look at.
pub(crate) type Live = Arc<Mutex<Snapshot>>;

pub(crate) fn look(live: &Live) -> MutexGuard<'_, Snapshot> {
    live.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The segment that grows.
pub(crate) struct Segment {
    pub(crate) file: OpenFile,
    pub(crate) first_index: u64,
    /// Length with everything that is flushed; the next flush goes here.
    pub(crate) len: u64,
    /// Bytes of an unfinished flush that still stand beyond.
    pub(crate) leftover: u64,
    reserved: u64,
}

impl Segment {
    pub(crate) const fn new(file: OpenFile, first_index: u64, len: u64, leftover: u64) -> Self {
        Segment { file, first_index, len, leftover, reserved: 0 }
    }
}

/// The growing log.
pub(crate) struct Engine {
    files: Files,
    hands: Hands,
    live: Live,
    segment: Segment,
    segment_bytes: u64,
    packs: PackWriter,
    batch: Vec<u8>,
    tiles: Vec<Tile>,
    note: Note,
    size: u64,
}

impl Engine {
    pub(crate) fn new(
        files: &Files,
        hands: Hands,
        snapshot: Snapshot,
        segment: Segment,
        packs: PackWriter,
        note: Note,
    ) -> Self {
        let size = snapshot.state.size();
        Engine {
            files: files.clone(),
            hands,
            live: Arc::new(Mutex::new(snapshot)),
            segment,
            segment_bytes: SEGMENT_BYTES,
            packs,
            batch: Vec::new(),
            tiles: Vec::new(),
            note,
            size,
        }
    }

    #[cfg(test)]
    pub(crate) fn set_segment_bytes(&mut self, bytes: u64) {
        self.segment_bytes = bytes;
    }

    #[cfg(test)]
    pub(crate) const fn files(&self) -> &Files {
        &self.files
    }

    pub(crate) const fn live(&self) -> &Live {
        &self.live
    }

    /// The newest durable checkpoint.
    pub(crate) const fn note(&self) -> &Note {
        &self.note
    }

    /// Number of durable events.
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of events and payloads staged and not flushed.
    pub(crate) fn staged_bytes(&self) -> usize {
        self.batch.len() + self.packs.staged_bytes()
    }

    /// Whether the segment is full; the tiles so far must be stored before [`Engine::turn`].
    pub(crate) const fn is_full(&self) -> bool {
        self.segment.len >= self.segment_bytes
    }

    /// Tiles that became full since the last call, all of them of durable events if nothing is
    /// staged.
    pub(crate) fn take_tiles(&mut self) -> Vec<Tile> {
        std::mem::take(&mut self.tiles)
    }

    /// Stages an event: a change of the clock before it, an agent's head after a seal.
    pub(crate) fn stage(&mut self, draft: Draft, packed: Option<&Packed>) -> Result<Appended, AppendError> {
        let sealed = matches!(draft.content, Content::SealSession(_)).then(|| (draft.agent.clone(), draft.tier));
        let now = self.hands.clock.now();
        let clock = look(&self.live).state.clock_event(&now);
        if let Some(fields) = clock {
            self.place(Draft::new(Tier::Observed, fields), None, &now)?;
        }
        let location = packed.map(|packed| self.packs.stage(packed));
        let appended = self.place(draft, location, &now)?;
        if let Some((agent, tier)) = sealed {
            let head = Draft { agent, session: None, tier, payload: None, content: Content::AgentHead };
            self.place(head, None, &now).map_err(|error| AppendError::Stopped(error.to_string()))?;
        }
        Ok(appended)
    }

    fn place(
        &mut self,
        draft: Draft,
        location: Option<PayloadLocation>,
        now: &Instant,
    ) -> Result<Appended, AppendError> {
        let mut live = look(&self.live);
        let NextEvent { event, fields, body } = live.state.build(draft, now)?;
        let hash = amc_crypto::leaf_hash(&body);
        let signature = self.hands.signers.event.sign_event(&hash)?;
        let findings = live.state.apply(&event, Some(&fields), hash);
        debug_assert!(!findings.iter().any(amc_core::Finding::is_error), "the log's own event breaks no rule");
        let tiles = &mut self.tiles;
        live.follow(Some(&fields), hash, |tile| tiles.push(tile));
        let signed = SignedEvent { body, signature };
        let frame = Frame::Event { signed, location };
        frame.encode(self.segment.first_index, self.segment.len, &mut self.batch);
        let Frame::Event { signed, .. } = frame else { unreachable!("it was built three lines above") };
        Ok(Appended { index: event.index, hash, event, fields, signed })
    }

    /// Changes the log's key: the old one signs the event that names the next, and the checkpoint
    /// over it; the next one signs from the index after. Everything staged must be flushed.
    pub(crate) fn rotate(&mut self, next: Signers) -> Result<Appended, AppendError> {
        let key = next.event.public_key().to_digest();
        let origin = look(&self.live).state.origin().to_owned();
        let checkpoint = next.checkpoint.verifier_key();
        if next.event.origin() != origin || checkpoint.name() != origin || checkpoint.public().to_digest() != key {
            let why = "its event key and its checkpoint key are not one key of this log".to_owned();
            return Err(SignError { what: "the rotation to the next key", why }.into());
        }
        let rotated = KeyRotated { purpose: KeyPurpose::Log, public: key };
        let appended = self.stage(Draft::new(Tier::Observed, rotated), None)?;
        self.flush().map_err(|error| AppendError::Stopped(error.to_string()))?;
        self.hands.signers = next;
        Ok(appended)
    }

    /// Makes everything staged durable: payloads, then events with a signed checkpoint behind them,
    /// one write and one flush each. After an error this engine must not be used any more.
    pub(crate) fn flush(&mut self) -> Result<(), FlushError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.packs.commit()?;
        self.reserve()?;
        self.flush_reserved()
    }

    /// As [`Engine::flush`], without payloads and into the room that was reserved before: what a
    /// recovery records finds its place on a full disk too.
    pub(crate) fn flush_reserved(&mut self) -> Result<(), FlushError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.seal_batch()?;
        self.segment.file.write_at(&self.batch, self.segment.len)?;
        self.segment.file.sync()?;
        self.segment.len += self.batch.len() as u64;
        if self.segment.leftover > self.batch.len() as u64 {
            // The flush that says how much was cut is durable; now the rest can go.
            self.segment.file.set_len(self.segment.len)?;
            self.segment.file.sync()?;
        }
        self.segment.leftover = 0;
        self.batch.clear();
        self.packs.turn();
        Ok(())
    }

    /// Ends the staged batch with its signed checkpoint.
    fn seal_batch(&mut self) -> Result<(), FlushError> {
        let checkpoint = look(&self.live).state.checkpoint();
        let signature = self.hands.signers.checkpoint.sign_checkpoint(&checkpoint)?;
        self.note = Note::new(checkpoint.text(), vec![signature]);
        self.size = checkpoint.size;
        let end = self.flush_end(self.segment.len);
        Frame::Checkpoint(end).encode(self.segment.first_index, self.segment.len, &mut self.batch);
        Ok(())
    }

    fn flush_end(&self, batch_start: u64) -> FlushEnd {
        let (pack, pack_len) = self.packs.end();
        FlushEnd { batch_start, pack, pack_len, note: self.note.clone() }
    }

    /// Takes room for the staged batch and what follows it.
    pub(crate) fn reserve(&mut self) -> Result<(), FileError> {
        let end = self.segment.len + self.batch.len() as u64 + HEADROOM_BYTES;
        if self.segment.reserved < end {
            let wanted = end + RESERVE_BYTES;
            self.segment.file.reserve(self.segment.len, wanted - self.segment.len)?;
            self.segment.reserved = wanted;
        }
        Ok(())
    }

    /// Begins the next segment. Everything staged must be flushed, and all tiles stored.
    pub(crate) fn turn(&mut self) -> Result<(), FlushError> {
        assert!(self.batch.is_empty() && self.tiles.is_empty(), "a segment ends between flushes");
        let (first_index, bytes) = {
            let mut live = look(&self.live);
            live.segments.push((self.segment.first_index, self.segment.len));
            (live.state.size(), self.segment_head(&live))
        };
        self.segment = create_segment(&self.files, first_index, &bytes)?;
        Ok(())
    }

    /// Header, snapshot and newest checkpoint of the segment that begins with the next event.
    fn segment_head(&self, snapshot: &Snapshot) -> Vec<u8> {
        let first_index = snapshot.state.size();
        let mut bytes = head_of(snapshot);
        let end = self.flush_end(bytes.len() as u64);
        Frame::Checkpoint(end).encode(first_index, 0, &mut bytes);
        bytes
    }

    /// Writes the newest durable checkpoint into the `checkpoint` file.
    pub(crate) fn publish(&self) -> Result<(), FileError> {
        publish(&self.files, &self.note)
    }

    /// The first segment of a new log: everything staged goes with its head into one file, which
    /// appears whole or not at all.
    pub(crate) fn found(mut self, head: &Snapshot) -> Result<Note, FlushError> {
        let mut bytes = head_of(head);
        assert_eq!(bytes.len() as u64, self.segment.len, "frames are bound to their place");
        self.seal_batch()?;
        bytes.extend_from_slice(&self.batch);
        create_segment(&self.files, 0, &bytes)?;
        self.publish()?;
        self.files.sync_dir("")?;
        Ok(self.note)
    }
}

/// Header and snapshot of a segment.
pub(crate) fn head_of(snapshot: &Snapshot) -> Vec<u8> {
    let first_index = snapshot.state.size();
    let origin = sha256(snapshot.state.origin().as_bytes());
    let mut bytes = SegmentHeader { first_index, origin }.encode().to_vec();
    Frame::Snapshot(snapshot.encode()).encode(first_index, 0, &mut bytes);
    bytes
}

fn create_segment(files: &Files, first_index: u64, bytes: &[u8]) -> Result<Segment, FileError> {
    let path = segment_path(first_index);
    files.replace(&path, bytes)?;
    files.sync_dir("segments")?;
    Ok(Segment::new(files.open_write(&path)?, first_index, bytes.len() as u64, 0))
}

/// Replaces the `checkpoint` file.
pub(crate) fn publish(files: &Files, note: &Note) -> Result<(), FileError> {
    files.replace(CHECKPOINT_FILE, note.to_string().as_bytes())
}
