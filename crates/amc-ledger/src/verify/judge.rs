//! The judgement that needs order: chain, sessions, keys, tree, checkpoints, tiles, and whether the
//! log contains every state that somebody knows of it.

use std::sync::Arc;

use amc_core::kinds::Fields;
use amc_core::{Digest, Finding, FindingCode};
use amc_crypto::{Checkpoint, Note, PublicKey};
use amc_evidence::{Event, EventTrust, KeyHistory, LogState, SignedEvent, VerifiedEvent};

use super::scan;
use super::workers::{Checked, Done, PayloadState, Piece, check_event, is_signed};
use super::{Progress, VerifyMode, VerifyOptions, VerifyReport};
use crate::engine::CHECKPOINT_FILE;
use crate::error::ReadError;
use crate::snapshot::{Snapshot, Stored};
use crate::storage::Files;
use crate::tiles::{Edge, Tile, tile_path};

/// Findings kept; a log that is wrong throughout needs no more.
const FINDINGS_MAX: usize = 1000;

/// A state of the log that is known from elsewhere.
struct Known {
    checkpoint: Checkpoint,
    place: String,
    /// The code when the log is shorter than this state.
    shorter: FindingCode,
}

/// Judges a log's items in order.
pub(super) struct Judge<'a> {
    files: Files,
    options: &'a VerifyOptions<'a>,
    sink: &'a mut dyn FnMut(VerifiedEvent),
    state: LogState,
    edge: Edge,
    keys: Arc<KeyHistory>,
    /// Descending by size: the next one is the last.
    known: Vec<Known>,
    published: Option<(Checkpoint, Note)>,
    newest: Option<Note>,
    report: Counts,
    findings: Vec<Finding>,
    revoked_reported: Vec<PublicKey>,
    stopped: bool,
}

#[derive(Default)]
struct Counts {
    sessions: u64,
    payloads: u64,
}

impl<'a> Judge<'a> {
    pub(super) fn new(
        files: &Files,
        options: &'a VerifyOptions<'a>,
        sink: &'a mut dyn FnMut(VerifiedEvent),
    ) -> Result<Self, ReadError> {
        let mut judge = Judge {
            files: files.clone(),
            options,
            sink,
            state: LogState::new(options.log.name()),
            edge: Edge::default(),
            keys: Arc::new(KeyHistory::pinned(options.log.public())),
            known: Vec::new(),
            published: None,
            newest: None,
            report: Counts::default(),
            findings: Vec::new(),
            revoked_reported: Vec::new(),
            stopped: false,
        };
        for checkpoint in options.known {
            judge.expect(checkpoint, "a checkpoint that was brought", FindingCode::LedgerRollback);
        }
        match scan::published(files)? {
            Ok(None) => {
                let what = "the checkpoint file is missing; opening the log for writing refuses until it is restored";
                judge.find(Finding::error(FindingCode::CheckpointInvalid, CHECKPOINT_FILE, what));
            }
            Ok(Some((checkpoint, note))) => {
                judge.expect(&checkpoint, CHECKPOINT_FILE, FindingCode::LedgerTruncated);
                judge.published = Some((checkpoint, note));
            }
            Err(what) => judge.find(Finding::error(FindingCode::CheckpointInvalid, CHECKPOINT_FILE, what)),
        }
        judge.known.sort_by_key(|known| std::cmp::Reverse(known.checkpoint.size));
        Ok(judge)
    }

    fn expect(&mut self, checkpoint: &Checkpoint, place: &str, shorter: FindingCode) {
        if checkpoint.origin == self.state.origin() {
            self.known.push(Known { checkpoint: checkpoint.clone(), place: place.to_owned(), shorter });
        } else {
            let what = format!("this is a checkpoint of {}, not of {}", checkpoint.origin, self.state.origin());
            self.find(Finding::error(FindingCode::CheckpointInvalid, place, what));
        }
    }

    pub(super) fn published_size(&self) -> u64 {
        self.published.as_ref().map_or(0, |(checkpoint, _)| checkpoint.size)
    }

    pub(super) fn keys(&self) -> Arc<KeyHistory> {
        Arc::clone(&self.keys)
    }

    /// Whether there is no use in looking at more.
    pub(super) const fn has_stopped(&self) -> bool {
        self.stopped
    }

    fn find(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }

    fn find_here(&mut self, index: u64, code: FindingCode, what: &str) {
        self.find(Finding::error(code, format!("{}#{index}", self.state.origin()), what));
    }

    /// Takes in a piece.
    pub(super) fn take(&mut self, piece: Piece) {
        for done in piece.done {
            if self.stopped {
                return;
            }
            match done {
                Done::Event { checked, payload } => self.event(checked, payload, piece.keys),
                Done::Checkpoint { note, place, signed } => self.checkpoint(note, place, signed, piece.keys),
                Done::Snapshot { bytes, place } => self.snapshot(&bytes, place),
            }
        }
        if let Some(progress) = self.options.progress {
            let events = self.state.size();
            progress(Progress { events, total: self.published_size().max(events) });
        }
    }

    fn event(&mut self, checked: Checked, payload: PayloadState, keys: usize) {
        let checked = self.check_again(checked, keys);
        let index = self.state.size();
        match checked {
            Checked::Malformed(error) => {
                let what = format!("these bytes are no event: {error}; nothing after it could be verified");
                self.find_here(index, FindingCode::EventHashMismatch, &what);
                self.stopped = true;
            }
            Checked::Read { event, fields, hash, signed } => {
                let fields = fields.map(|fields| *fields);
                if self.options.mode == VerifyMode::Full || matches!(fields, Some(Fields::KeyRotated(_))) {
                    self.unsigned(index, &event, &signed);
                }
                self.follow(&event, fields.as_ref(), hash);
            }
            Checked::Verified(record) => {
                self.follow(&record.event, record.fields.as_ref(), record.hash);
                if !Arc::make_mut(&mut self.keys).observe(&record) {
                    let what = "the log's next key is no usable key";
                    self.find_here(index, FindingCode::KeyHistoryUntrusted, what);
                    self.stopped = true;
                }
                if !self.is_revoked(index) && self.options.mode == VerifyMode::Full {
                    (self.sink)(*record);
                }
            }
        }
        match payload {
            PayloadState::None => {}
            PayloadState::Good => self.report.payloads += 1,
            PayloadState::Bad(finding) => self.find(finding),
        }
    }

    /// A worker that did not know the newest keys yet: its word on a signature does not count.
    fn check_again(&self, checked: Checked, keys: usize) -> Checked {
        if keys == self.keys.spans().len() {
            return checked;
        }
        let signed = match checked {
            Checked::Verified(record) => record.into_inner().signed,
            Checked::Read { signed, .. } => signed,
            malformed @ Checked::Malformed(_) => return malformed,
        };
        check_event(signed, self.state.origin(), &self.keys, self.options.mode)
    }

    /// Says what is wrong with a signature that does not hold.
    fn unsigned(&mut self, index: u64, event: &Event, signed: &SignedEvent) {
        let origin = self.state.origin();
        let holds = |key: &PublicKey| {
            let keys = KeyHistory::pinned(*key);
            let trust = EventTrust { origin, keys: &keys };
            amc_crypto::Unverified::new(signed.clone()).verify(&trust).is_ok()
        };
        // The signature covers the body, so a body that says another index is seen here as well.
        let retired = self.keys.spans().iter().any(|(_, key)| holds(key));
        let (code, what) = if retired && event.index == index {
            (FindingCode::KeyOutOfValidity, "a key of this log signed this event where that key is not valid")
        } else if index == 0 {
            (FindingCode::KeyHistoryUntrusted, "the pinned key did not sign the first event")
        } else if retired {
            (FindingCode::EventOutOfOrder, "a key of this log signed this event for another place")
        } else {
            (FindingCode::EventSignatureInvalid, "the signature does not hold under the key valid here")
        };
        self.find_here(index, code, what);
    }

    fn is_revoked(&mut self, index: u64) -> bool {
        let key = self.keys.key_at(index);
        let revoked = self.options.revoked.iter().any(|r| r.public == key && r.from_index <= index);
        if revoked && !self.revoked_reported.contains(&key) {
            self.revoked_reported.push(key);
            let what = "from here on the key that signs was revoked; nothing that it signed counts";
            self.find_here(index, FindingCode::KeyRevoked, what);
        }
        revoked
    }

    fn follow(&mut self, event: &Event, fields: Option<&Fields>, hash: Digest) {
        if self.state.size() == 0 {
            self.first(fields);
        }
        self.state.apply(event, fields, hash).into_iter().for_each(|finding| self.find(finding));
        self.report.sessions += u64::from(matches!(fields, Some(Fields::SessionOpen(_))));
        let mut full = Vec::new();
        self.edge.push(hash, |tile| full.push(tile));
        full.iter().for_each(|tile| self.tile(tile));
        while let Some(known) = self.known.pop_if(|known| known.checkpoint.size <= self.state.size()) {
            // Size 0 says nothing about a log.
            if known.checkpoint.size == self.state.size() && known.checkpoint != self.state.checkpoint() {
                let what = format!("the log has another state at size {} than this one", known.checkpoint.size);
                self.find(Finding::error(FindingCode::LedgerForked, known.place, what));
            }
        }
    }

    /// The first event introduces the pinned key for this very log.
    fn first(&mut self, fields: Option<&Fields>) {
        let pinned = self.options.log;
        let introduced = matches!(fields, Some(Fields::LogOpened(opened))
            if opened.origin == pinned.name() && opened.log_public == pinned.public().to_digest());
        if !introduced {
            let what = "the first event does not introduce the pinned key of this log: another log stands here";
            self.find_here(0, FindingCode::KeyHistoryUntrusted, what);
            self.stopped = true;
        }
    }

    fn tile(&mut self, tile: &Tile) {
        let path = tile_path(tile.level, tile.number);
        let finding = match tile.is_stored(&self.files) {
            Ok(Some(true)) => return,
            Ok(Some(false)) => {
                Finding::error(FindingCode::EventHashMismatch, path, "this tile disagrees with the events")
            }
            // The publisher stores tiles before the checkpoint that covers them.
            Ok(None) if self.state.size() > self.published_size() => return,
            Ok(None) => {
                let what = "this tile is missing; it follows from the events, and proofs need it";
                Finding::warn(FindingCode::LedgerTruncated, path, what)
            }
            Err(error) => Finding::error(FindingCode::EventHashMismatch, path, error.to_string()),
        };
        self.find(finding);
    }

    fn checkpoint(&mut self, note: Note, place: String, signed: bool, keys: usize) {
        if note.text() != self.state.checkpoint().text() {
            let what = "this checkpoint disagrees with the events before it";
            return self.find(Finding::error(FindingCode::CheckpointInvalid, place, what));
        }
        let size = self.state.size();
        let current = keys == self.keys.spans().len() || self.options.mode == VerifyMode::Quick;
        if if current { signed } else { is_signed(&note, size, self.state.origin(), &self.keys) } {
            self.newest = Some(note);
        } else {
            let what = "the log's key did not sign this checkpoint";
            self.find(Finding::error(FindingCode::CheckpointInvalid, place, what));
        }
    }

    fn snapshot(&mut self, bytes: &[u8], place: String) {
        let same = match Snapshot::decode(bytes, self.state.size()) {
            Stored::Known(snapshot) => snapshot.state == self.state && snapshot.edge == self.edge,
            // Nobody opens a log by a layout that they do not know.
            Stored::Foreign => true,
            Stored::Damaged => false,
        };
        if !same {
            let what = "the state stored at the head of this segment is not the log's state there";
            self.find(Finding::error(FindingCode::EventHashMismatch, place, what));
        }
    }

    /// Ends the verification. `broken`: not everything that should be there could be read.
    pub(super) fn conclude(mut self, scanned: Vec<Finding>, broken: bool) -> VerifyReport {
        scanned.into_iter().for_each(|finding| self.find(finding));
        self.signatures_at_the_end();
        if !self.stopped {
            while let Some(known) = self.known.pop() {
                // Where the scan broke off, that is the finding; what it hides is not judged.
                if !broken || known.shorter == FindingCode::LedgerRollback {
                    let (size, events) = (known.checkpoint.size, self.state.size());
                    let what = format!("this state has {size} events and the log holds {events}");
                    self.find(Finding::error(known.shorter, known.place, what));
                }
            }
        }
        let open = self.state.sessions().open().iter();
        VerifyReport {
            mode: self.options.mode,
            head: self.state.head(),
            checkpoint: self.newest,
            events: self.state.size(),
            sessions: self.report.sessions,
            payloads: self.report.payloads,
            open_sessions: open.map(|(id, session)| (*id, session.agent.clone())).collect(),
            keys: Arc::unwrap_or_clone(self.keys),
            findings: self.findings,
        }
    }

    /// The published checkpoint's signature, and in quick mode the newest one's.
    fn signatures_at_the_end(&mut self) {
        let origin = self.state.origin().to_owned();
        let keys = Arc::clone(&self.keys);
        if let Some((checkpoint, note)) = self.published.take()
            && checkpoint.origin == origin
            && !is_signed(&note, checkpoint.size, &origin, &keys)
        {
            let what = "the log's key did not sign this checkpoint";
            self.find(Finding::error(FindingCode::CheckpointInvalid, CHECKPOINT_FILE, what));
        }
        if self.options.mode == VerifyMode::Quick
            && let Some(note) = &self.newest
            && !is_signed(note, self.state.size(), &origin, &keys)
        {
            let what = "the log's key did not sign the newest checkpoint";
            self.newest = None;
            self.find_here(self.state.size(), FindingCode::CheckpointInvalid, what);
        }
    }
}
