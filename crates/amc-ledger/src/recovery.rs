//! Creating a log, and opening one for writing: what a crash leaves is mended, anything else
//! refuses.
//!
//! A flush is one write that ends with a signed checkpoint, and nothing is written before it is
//! durable. So a crash leaves good flushes and at most one unfinished one at the end of the newest
//! segment. What stands beyond the last good flush is cut when no later flush stands beyond it and
//! the published checkpoint does not cover it; that the log did so is its next event.

use amc_core::kinds::{Fields, LogOpened, LogRecovered, SessionOutcome};
use amc_core::{Finding, FindingCode, SessionId, Tier, limits};
use amc_crypto::{Checkpoint, Note, PublicKey, VerifierKey, sha256};
use amc_evidence::{Content, Draft, Event};

use crate::engine::{CHECKPOINT_FILE, Engine, FlushError, Hands, Segment, head_of};
use crate::error::{OpenError, ReadError};
use crate::frame::{Cursor, FlushEnd, Frame, FrameError, SegmentHeader, later_flush, segment_indices, segment_path};
use crate::payload::PackWriter;
use crate::reader::Walk;
use crate::snapshot::{Snapshot, Stored};
use crate::storage::{Files, Lock, LockError, OpenFile};
use crate::tiles::Tile;
use crate::writer::Recovery;

/// Takes the writer's lock.
pub(crate) fn lock(files: &Files) -> Result<Box<dyn Lock>, OpenError> {
    files.lock("lock").map_err(|error| match error {
        LockError::Held(pid) => OpenError::Held { dir: files.dir().to_owned(), pid },
        LockError::Io(error) => files.error("lock", "lock", error).into(),
    })
}

/// Creates a log; see [`crate::create`].
pub(crate) fn create(files: &Files, opened: LogOpened, hands: Hands) -> Result<Note, OpenError> {
    let signers = &hands.signers;
    let key = signers.event.public_key();
    if opened.origin != signers.event.origin() || opened.log_public != key.to_digest() {
        let what = "the first event names another origin or key than the one that signs";
        return Err(refusal(FindingCode::KeyOutOfValidity, &opened.origin, what));
    }
    for dir in ["", "segments", "payloads", "tile"] {
        files.create_dir(dir)?;
    }
    let _lock = lock(files)?;
    if !segment_indices(&files.names("segments")?).is_empty() {
        return Err(OpenError::Exists(files.dir().to_owned()));
    }
    let head = Snapshot::empty(&opened.origin, key);
    // `found` fills this very file and puts it in place.
    let file = files.create(&format!("{}.new", segment_path(0)))?;
    let segment = Segment::new(file, 0, head_of(&head).len() as u64, 0);
    let packs = PackWriter::resume(files, 0, 0).map_err(from_read)?;
    let nothing = Note::new("\n".into(), Vec::new());
    let mut engine = Engine::new(files, hands, head.clone(), segment, packs, nothing);
    engine.stage(Draft::new(Tier::Observed, opened), None).map_err(from_append)?;
    Ok(engine.found(&head)?)
}

impl From<FlushError> for OpenError {
    fn from(error: FlushError) -> Self {
        match error {
            FlushError::File(error) => OpenError::File(error),
            FlushError::Sign(error) => OpenError::Sign(error),
        }
    }
}

fn from_append(error: crate::AppendError) -> OpenError {
    match error {
        crate::AppendError::Build(error) => OpenError::Build(error),
        crate::AppendError::Sign(error) => OpenError::Sign(error),
        other => OpenError::Stopped(other.to_string()),
    }
}

fn from_read(error: ReadError) -> OpenError {
    match error {
        ReadError::Absent(dir) => OpenError::Absent(dir),
        ReadError::Damaged(finding) => OpenError::Refused(finding),
        ReadError::File(error) => OpenError::File(error),
    }
}

fn refusal(code: FindingCode, subject: impl Into<String>, what: impl Into<String>) -> OpenError {
    OpenError::Refused(Finding::error(code, subject, what))
}

fn place(file: &OpenFile, offset: u64) -> String {
    format!("{}+{offset}", file.name())
}

/// Opens a log for writing. The lock is held. Gives the engine, ready to append, published.
pub(crate) fn open(files: &Files, hands: Hands) -> Result<(Engine, Recovery), OpenError> {
    let segments = segment_indices(&files.names("segments")?);
    let Some(first_index) = segments.last().copied() else { return Err(OpenError::Absent(files.dir().to_owned())) };
    let found = find_end(files, first_index)?;
    let published = read_published(files)?;
    check_tail(&found, published.as_ref().map(|(checkpoint, _)| checkpoint))?;
    let mut replay = Replay::begin(files, first_index, &found, &hands)?;
    replay.run(&found)?;
    check_segments(files, &replay.snapshot, first_index)?;
    check_published(published, &replay, &hands)?;
    check_keys(&replay.snapshot, &hands)?;
    store_tiles(files, &replay.tiles)?;

    let packs = PackWriter::resume(files, found.end.pack, found.end.pack_len).map_err(from_read)?;
    let writable = files.open_write(&segment_path(first_index))?;
    let leftover = found.leftover();
    let segment = Segment::new(writable, first_index, found.end_offset, leftover);
    let mut engine = Engine::new(files, hands, replay.snapshot, segment, packs, found.end.note);
    let recovery = mend(&mut engine, leftover)?;
    store_tiles(files, &engine.take_tiles())?;
    engine.publish()?;
    files.sync_dir("")?;
    Ok((engine, recovery))
}

/// Records what was cut and seals the sessions that were left open.
fn mend(engine: &mut Engine, bytes_cut: u64) -> Result<Recovery, OpenError> {
    if bytes_cut > 0 {
        engine.stage(Draft::new(Tier::Observed, LogRecovered { bytes_cut }), None).map_err(from_append)?;
    }
    let open: Vec<_> = {
        let live = crate::engine::look(engine.live());
        live.state.sessions().open().iter().map(|(id, session)| (*id, session.agent.clone())).collect()
    };
    let mut sessions: Vec<SessionId> = Vec::new();
    for (session, agent) in open {
        let content = Content::SealSession(SessionOutcome::Recovered);
        let draft = Draft { agent: Some(agent), session: Some(session), tier: Tier::Observed, payload: None, content };
        engine.stage(draft, None).map_err(from_append)?;
        sessions.push(session);
    }
    engine.flush_reserved()?;
    engine.reserve()?;
    Ok(Recovery { bytes_cut, sessions })
}

/// Where the good flushes of the newest segment end.
struct Found {
    file: OpenFile,
    first_index: u64,
    /// The newest good flush's end.
    end: FlushEnd,
    end_offset: u64,
    file_len: u64,
    /// What stopped the scan, if not the end of the file.
    damage: Option<(u64, &'static str)>,
}

impl Found {
    const fn leftover(&self) -> u64 {
        self.file_len.saturating_sub(self.end_offset)
    }
}

fn find_end(files: &Files, first_index: u64) -> Result<Found, OpenError> {
    let path = segment_path(first_index);
    let file = files.open(&path)?.ok_or_else(|| OpenError::Absent(files.dir().to_owned()))?;
    let mut cursor = Cursor::new(file.clone(), first_index);
    let (mut end, mut damage) = (None, None);
    loop {
        match cursor.next() {
            Ok(Some(Frame::Checkpoint(found))) => end = Some((found, cursor.offset())),
            Ok(Some(_)) => {}
            Ok(None) | Err(FrameError::Incomplete) => break,
            Err(FrameError::Damaged(what)) => {
                damage = Some((cursor.offset(), what));
                break;
            }
            Err(FrameError::File(error)) => return Err(error.into()),
        }
    }
    let file_len = file.len()?;
    let Some((end, end_offset)) = end else {
        // A segment appears with its first checkpoint inside, or not at all.
        let (at, what) = damage.unwrap_or((cursor.offset(), "it has no checkpoint"));
        return Err(refusal(
            FindingCode::EventHashMismatch,
            place(&file, at),
            format!("the segment is damaged: {what}"),
        ));
    };
    Ok(Found { file, first_index, end, end_offset, file_len, damage })
}

/// What stands beyond the last good flush may be cut only when a crash explains it.
fn check_tail(found: &Found, published: Option<&Checkpoint>) -> Result<(), OpenError> {
    let newest = Checkpoint::parse(found.end.note.text()).map_err(|error| {
        refusal(FindingCode::CheckpointInvalid, place(&found.file, found.end_offset), error.to_string())
    })?;
    let covered = published.is_some_and(|published| published.size > newest.size);
    let later = found.leftover() > 0 && later_flush(&found.file, found.first_index, found.end_offset)?;
    if later || (covered && found.damage.is_some()) {
        let (at, what) = found.damage.unwrap_or((found.end_offset, "a frame's length leads beyond the file"));
        let what = format!("{what}, in a flush that was durable");
        return Err(refusal(FindingCode::EventHashMismatch, place(&found.file, at), what));
    }
    if covered {
        let size = published.map_or(newest.size, |published| published.size);
        let what = format!("the checkpoint file covers {size} events and the segments hold {}", newest.size);
        return Err(refusal(FindingCode::LedgerTruncated, place(&found.file, found.end_offset), what));
    }
    Ok(())
}

fn read_published(files: &Files) -> Result<Option<(Checkpoint, Note)>, OpenError> {
    let Some(bytes) = files.read(CHECKPOINT_FILE, limits::NOTE_BYTES_MAX)? else { return Ok(None) };
    let invalid = |what: String| refusal(FindingCode::CheckpointInvalid, CHECKPOINT_FILE, what);
    let note = Note::parse(&bytes).map_err(|error| invalid(error.to_string()))?;
    let checkpoint = Checkpoint::parse(note.text()).map_err(|error| invalid(error.to_string()))?;
    Ok(Some((checkpoint, note)))
}

/// The newest segment's events, applied to its snapshot.
struct Replay {
    file: OpenFile,
    snapshot: Snapshot,
    tiles: Vec<Tile>,
    /// Size and root at every flush of this segment.
    checkpoints: Vec<Checkpoint>,
}

impl Replay {
    fn begin(files: &Files, first_index: u64, found: &Found, hands: &Hands) -> Result<Self, OpenError> {
        let file = files.open(&segment_path(first_index))?.ok_or_else(|| OpenError::Absent(files.dir().to_owned()))?;
        let damaged = |what: &str| refusal(FindingCode::EventHashMismatch, place(&file, 0), what);
        let header = SegmentHeader::read(&file).map_err(|error| match error {
            FrameError::File(error) => OpenError::File(error),
            FrameError::Incomplete => damaged("its header is incomplete"),
            FrameError::Damaged(what) => damaged(what),
        })?;
        let origin = hands.signers.event.origin();
        if header.origin != sha256(origin.as_bytes()) || header.first_index != first_index {
            let what = format!("this is a segment of another log than {origin}, or of another place in it");
            return Err(refusal(FindingCode::KeyHistoryUntrusted, place(&file, 0), what));
        }
        let mut cursor = Cursor::new(found.file.clone(), first_index);
        let stored = match cursor.next() {
            Ok(Some(Frame::Snapshot(bytes))) => Snapshot::decode(&bytes, first_index),
            _ => Stored::Damaged,
        };
        let snapshot = match stored {
            Stored::Known(snapshot) => Some(*snapshot),
            Stored::Foreign => rebuild(files, origin, first_index)?,
            Stored::Damaged => None,
        };
        let snapshot = snapshot
            .filter(|snapshot| snapshot.state.origin() == origin)
            .ok_or_else(|| damaged("it does not begin with the state of this log at its first index"))?;
        Ok(Replay { file, snapshot, tiles: Vec::new(), checkpoints: Vec::new() })
    }

    fn run(&mut self, found: &Found) -> Result<(), OpenError> {
        let mut cursor = Cursor::new(found.file.clone(), found.first_index);
        while cursor.offset() < found.end_offset {
            let at = cursor.offset();
            let damaged = |what: &str| refusal(FindingCode::EventHashMismatch, place(&found.file, at), what);
            match cursor.next() {
                Ok(Some(Frame::Event { signed, .. })) => {
                    let (event, fields) = Event::decode(&signed.body).map_err(|error| damaged(&error.to_string()))?;
                    let hash = signed.event_hash();
                    let findings = self.snapshot.state.apply(&event, fields.as_ref(), hash);
                    if let Some(finding) = findings.into_iter().find(Finding::is_error) {
                        return Err(OpenError::Refused(finding));
                    }
                    let tiles = &mut self.tiles;
                    self.snapshot.follow(fields.as_ref(), hash, |tile| tiles.push(tile));
                }
                Ok(Some(Frame::Checkpoint(end))) => {
                    let checkpoint = self.snapshot.state.checkpoint();
                    if end.note.text() != checkpoint.text() {
                        let what = "a checkpoint disagrees with the events before it";
                        return Err(refusal(FindingCode::CheckpointInvalid, place(&found.file, at), what));
                    }
                    self.checkpoints.push(checkpoint);
                }
                Ok(Some(Frame::Snapshot(_))) => {}
                Ok(None) | Err(FrameError::Incomplete) => return Err(damaged("the segment changed while it was read")),
                Err(FrameError::Damaged(what)) => return Err(damaged(what)),
                Err(FrameError::File(error)) => return Err(error.into()),
            }
        }
        self.check_signature(&found.end.note, self.snapshot.state.size())
    }

    fn check_signature(&self, note: &Note, size: u64) -> Result<(), OpenError> {
        let name = self.snapshot.state.origin();
        let key = self.snapshot.checkpoint_key(size).expect("a snapshot's keys were checked when it was read");
        let key = VerifierKey::new(name, amc_crypto::note::KeyKind::Ed25519, key)
            .map_err(|error| refusal(FindingCode::CheckpointInvalid, name, error.to_string()))?;
        note.verify_signature(&key)
            .map_err(|error| refusal(FindingCode::CheckpointInvalid, self.file.name(), error.to_string()))
    }
}

/// The state at an index, from the first event on: for snapshots that this release cannot read.
fn rebuild(files: &Files, origin: &str, index: u64) -> Result<Option<Snapshot>, OpenError> {
    let Some(key) = first_key(files) else { return Ok(None) };
    let mut snapshot = Snapshot::empty(origin, key);
    let mut walk = Walk::new(files, 0).map_err(from_read)?;
    while snapshot.state.size() < index {
        let Some((at, frame)) = walk.next().map_err(from_read)? else { return Ok(None) };
        let Frame::Event { signed, .. } = frame else { continue };
        let damaged = |error: amc_evidence::event::EventError| {
            refusal(FindingCode::EventHashMismatch, format!("{origin}#{at}"), error.to_string())
        };
        let (event, fields) = Event::decode(&signed.body).map_err(damaged)?;
        let hash = signed.event_hash();
        let findings = snapshot.state.apply(&event, fields.as_ref(), hash);
        if let Some(finding) = findings.into_iter().find(Finding::is_error) {
            return Err(OpenError::Refused(finding));
        }
        // These tiles were stored before the next segment began.
        snapshot.follow(fields.as_ref(), hash, drop);
    }
    for first in segment_indices(&files.names("segments")?).into_iter().filter(|first| *first < index) {
        let len = files.open(&segment_path(first))?.map_or(Ok(0), |file| file.len())?;
        snapshot.segments.push((first, len));
    }
    Ok(Some(snapshot))
}

/// The key that the first event introduces.
fn first_key(files: &Files) -> Option<PublicKey> {
    let mut walk = Walk::new(files, 0).ok()?;
    while let Ok(Some((_, frame))) = walk.next() {
        if let Frame::Event { signed, .. } = frame {
            let (_, fields) = Event::decode(&signed.body).ok()?;
            let Some(Fields::LogOpened(opened)) = fields else { return None };
            return PublicKey::try_from(opened.log_public).ok();
        }
    }
    None
}

/// The segments before the newest one are there, with the lengths that they ended with.
fn check_segments(files: &Files, snapshot: &Snapshot, newest: u64) -> Result<(), OpenError> {
    for (first_index, len) in &snapshot.segments {
        let path = segment_path(*first_index);
        let found = files.open(&path)?.map(|file| file.len()).transpose()?;
        if found != Some(*len) {
            let what = match found {
                None => "this segment is gone".to_owned(),
                Some(found) => format!("this segment has {found} bytes where it ended with {len}"),
            };
            return Err(refusal(FindingCode::LedgerTruncated, path, what));
        }
    }
    if snapshot.segments.is_empty() && newest > 0 {
        return Err(refusal(FindingCode::LedgerTruncated, segment_path(newest), "no segment stands before this one"));
    }
    Ok(())
}

fn check_published(published: Option<(Checkpoint, Note)>, replay: &Replay, hands: &Hands) -> Result<(), OpenError> {
    let size = replay.snapshot.state.size();
    let Some((checkpoint, note)) = published else {
        // Only a crash while the log was created explains a log without this file.
        if size == 1 {
            return Ok(());
        }
        return Err(refusal(FindingCode::CheckpointInvalid, CHECKPOINT_FILE, "the checkpoint file is gone"));
    };
    if checkpoint.origin != hands.signers.event.origin() {
        let what = format!("this is a checkpoint of {}", checkpoint.origin);
        return Err(refusal(FindingCode::CheckpointInvalid, CHECKPOINT_FILE, what));
    }
    replay.check_signature(&note, checkpoint.size)?;
    // An older file than the newest segment's first flush comes from a restored copy, at worst.
    let begin = replay.checkpoints.first().map_or(0, |first| first.size);
    if checkpoint.size >= begin && !replay.checkpoints.contains(&checkpoint) {
        let what = format!("the log signed another state at size {}", checkpoint.size);
        return Err(refusal(FindingCode::LedgerForked, CHECKPOINT_FILE, what));
    }
    Ok(())
}

fn check_keys(snapshot: &Snapshot, hands: &Hands) -> Result<(), OpenError> {
    let signers = &hands.signers;
    let newest = snapshot.newest_key();
    let checkpoint_key = signers.checkpoint.verifier_key();
    let same = signers.event.public_key().to_digest() == newest
        && checkpoint_key.public().to_digest() == newest
        && checkpoint_key.name() == snapshot.state.origin();
    if same {
        return Ok(());
    }
    let what = "the key at hand is not the log's newest key; unlock the vault that belongs to this log";
    Err(refusal(FindingCode::KeyOutOfValidity, snapshot.state.origin(), what))
}

/// Stores the tiles that are missing; one that is there and differs refuses.
fn store_tiles(files: &Files, tiles: &[Tile]) -> Result<(), OpenError> {
    for tile in tiles {
        match tile.is_stored(files)? {
            Some(true) => {}
            None => tile.write(files)?,
            Some(false) => {
                let path = crate::tiles::tile_path(tile.level, tile.number);
                let what = "this tile disagrees with the events";
                return Err(refusal(FindingCode::EventHashMismatch, path, what));
            }
        }
    }
    Ok(())
}
