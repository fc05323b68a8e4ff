//! The work that needs no order, on several threads: decoding, signatures, payload digests. The
//! results come back in order, and a bounded number is under way.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use amc_core::kinds::Fields;
use amc_core::{Digest, Finding};
use amc_crypto::note::{KeyKind, VerifierKey};
use amc_crypto::{Note, Unverified};
use amc_evidence::event::EventError;
use amc_evidence::{Event, EventTrust, KeyHistory, SignedEvent, VerifiedEvent};

use super::judge::Judge;
use super::scan::{Item, Scan};
use super::{VerifyMode, VerifyOptions, VerifyReport};
use crate::error::ReadError;
use crate::payload::PackReader;
use crate::storage::Files;

/// Threads at most; more than the disk and two cores can feed are of no use.
const THREADS_MAX: usize = 4;
/// Pieces of work under way per thread.
const PIECES_PER_THREAD: usize = 3;

/// An event after the work that needs no order.
pub(super) enum Checked {
    /// Canonical and signed by the key that the worker held valid.
    Verified(Box<VerifiedEvent>),
    /// Canonical; its signature does not hold, or was not looked at (quick).
    Read { event: Box<Event>, fields: Option<Box<Fields>>, hash: Digest, signed: SignedEvent },
    /// No event.
    Malformed(EventError),
}

/// An item after the work.
pub(super) enum Done {
    Event { checked: Checked, payload: PayloadState },
    Checkpoint { note: Note, place: String, signed: bool },
    Snapshot { bytes: Vec<u8>, place: String },
}

/// What became of an event's payload.
pub(super) enum PayloadState {
    None,
    Good,
    Bad(Finding),
}

/// A piece after the work, with the number of keys that the worker knew.
pub(super) struct Piece {
    pub(super) done: Vec<Done>,
    pub(super) keys: usize,
}

struct Job {
    items: Vec<Item>,
    keys: Arc<KeyHistory>,
    reply: SyncSender<Result<Piece, ReadError>>,
}

/// What the workers need to know.
#[derive(Clone)]
struct Desk {
    origin: String,
    mode: VerifyMode,
    files: Files,
}

pub(super) fn run(files: &Files, options: &VerifyOptions<'_>, mut judge: Judge<'_>) -> Result<VerifyReport, ReadError> {
    let origin = options.log.name().to_owned();
    let mut scan = Scan::new(files, &origin, judge.published_size())?;
    let desk = Desk { origin, mode: options.mode, files: files.clone() };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let (jobs, inbox) = sync_channel::<Job>(threads * PIECES_PER_THREAD);
    let inbox = Arc::new(Mutex::new(inbox));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (inbox, desk) = (Arc::clone(&inbox), desk.clone());
            scope.spawn(move || work(&desk, &inbox));
        }
        drop(inbox);
        let mut under_way: VecDeque<Receiver<Result<Piece, ReadError>>> = VecDeque::new();
        while !judge.has_stopped() {
            let items = scan.next()?;
            let ended = items.is_none();
            if let Some(items) = items {
                let (reply, receiver) = sync_channel(1);
                jobs.send(Job { items, keys: judge.keys(), reply }).expect("the workers live as long as this scope");
                under_way.push_back(receiver);
            }
            while under_way.len() > if ended { 0 } else { threads * PIECES_PER_THREAD - 1 } {
                let Some(receiver) = under_way.pop_front() else { break };
                let piece = receiver.recv().expect("a worker answers every piece")?;
                judge.take(piece);
            }
            if ended {
                break;
            }
        }
        drop(jobs);
        let broken = scan.broken;
        Ok(judge.conclude(scan.findings, broken))
    })
}

fn work(desk: &Desk, inbox: &Mutex<Receiver<Job>>) {
    let mut packs = PackReader::new(&desk.files);
    loop {
        let job = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { items, keys, reply }) = job else { return };
        let done = items.into_iter().map(|item| desk.check(item, &keys, &mut packs)).collect::<Result<Vec<_>, _>>();
        // When nobody listens any more the verification has ended.
        let _ = reply.send(done.map(|done| Piece { done, keys: keys.spans().len() }));
    }
}

impl Desk {
    fn check(&self, item: Item, keys: &KeyHistory, packs: &mut PackReader) -> Result<Done, ReadError> {
        match item {
            Item::Snapshot { bytes, place } => Ok(Done::Snapshot { bytes, place }),
            Item::Checkpoint { end, place } => {
                let size = amc_crypto::Checkpoint::parse(end.note.text()).map_or(0, |checkpoint| checkpoint.size);
                let signed = self.mode == VerifyMode::Quick || is_signed(&end.note, size, &self.origin, keys);
                Ok(Done::Checkpoint { note: end.note, place, signed })
            }
            Item::Event { signed, location } => {
                let checked = check_event(signed, &self.origin, keys, self.mode);
                let payload = match &checked {
                    Checked::Verified(record) => record.event.payload.clone().zip(Some(record.event.index)),
                    Checked::Read { event, .. } => event.payload.clone().zip(Some(event.index)),
                    Checked::Malformed(_) => None,
                };
                let payload = match payload {
                    Some((payload, index)) if self.mode == VerifyMode::Full => {
                        let subject = format!("{}#{index}", self.origin);
                        match packs.read(&subject, &payload, location) {
                            Ok(Some(_)) => PayloadState::Good,
                            Ok(None) => PayloadState::None,
                            Err(ReadError::Damaged(finding)) => PayloadState::Bad(finding),
                            Err(error) => return Err(error),
                        }
                    }
                    _ => PayloadState::None,
                };
                Ok(Done::Event { checked, payload })
            }
        }
    }
}

/// Decodes an event and, where the mode asks for it, verifies its signature. A key rotation is
/// verified in every mode, since the keys of what follows depend on it.
pub(super) fn check_event(signed: SignedEvent, origin: &str, keys: &KeyHistory, mode: VerifyMode) -> Checked {
    let hash = signed.event_hash();
    let (event, fields) = match Event::decode(&signed.body) {
        Ok(decoded) => decoded,
        Err(error) => return Checked::Malformed(error),
    };
    if mode == VerifyMode::Full || matches!(fields, Some(Fields::KeyRotated(_))) {
        let trust = EventTrust { origin, keys };
        if let Ok(verified) = Unverified::new(signed.clone()).verify(&trust) {
            return Checked::Verified(Box::new(verified));
        }
    }
    Checked::Read { event: Box::new(event), fields: fields.map(Box::new), hash, signed }
}

/// Whether the log signed a checkpoint of this size: with the key that signed the last event in it.
pub(super) fn is_signed(note: &Note, size: u64, origin: &str, keys: &KeyHistory) -> bool {
    let key = VerifierKey::new(origin, KeyKind::Ed25519, keys.key_at(size.saturating_sub(1)));
    key.is_ok_and(|key| note.verify_signature(&key).is_ok())
}
