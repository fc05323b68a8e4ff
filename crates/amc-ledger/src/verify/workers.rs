//! The work that needs no order, on several threads: decoding, signatures (a piece's together),
//! payload digests. The results come back in order, and a bounded number is under way.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::vec::IntoIter;

use amc_core::kinds::Fields;
use amc_core::{Digest, Finding};
use amc_crypto::note::{KeyKind, VerifierKey};
use amc_crypto::{Checkpoint, Note, Unverified};
use amc_evidence::event::EventError;
use amc_evidence::{Event, EventTrust, KeyHistory, SignedEvent, VerifiedEvent};

use super::judge::Judge;
use super::scan::{Item, Scan};
use super::{VerifyMode, VerifyOptions, VerifyReport};
use crate::error::ReadError;
use crate::payload::PackReader;
use crate::reader::PayloadLocation;
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
        let (found, scanned) = sync_channel(PIECES_PER_THREAD);
        let scanner = scope.spawn(move || {
            // Nobody listens any more when the verification has ended.
            while let next @ (Ok(Some(_)) | Err(_)) = scan.next() {
                let failed = next.is_err();
                if found.send(next).is_err() || failed {
                    break;
                }
            }
            scan
        });
        while !judge.has_stopped() {
            let items = scanned.recv().ok().transpose()?.flatten();
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
        drop((jobs, scanned));
        let scan = scanner.join().expect("reading segments does not panic");
        Ok(judge.conclude(scan.findings, scan.broken))
    })
}

fn work(desk: &Desk, inbox: &Mutex<Receiver<Job>>) {
    let mut packs = PackReader::new(&desk.files);
    loop {
        let job = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { items, keys, reply }) = job else { return };
        let done = desk.check_all(items, &keys, &mut packs);
        // When nobody listens any more the verification has ended.
        let _ = reply.send(done.map(|done| Piece { done, keys: keys.spans().len() }));
    }
}

/// What a batch said of the signatures of a piece, in the order of its items.
struct Signatures {
    events: IntoIter<Option<Box<VerifiedEvent>>>,
    checkpoints: IntoIter<bool>,
}

impl Desk {
    fn check_all(&self, items: Vec<Item>, keys: &KeyHistory, packs: &mut PackReader) -> Result<Vec<Done>, ReadError> {
        let mut signatures = self.signatures(&items, keys);
        items.into_iter().map(|item| self.check(item, &mut signatures, keys, packs)).collect()
    }

    /// Verifies all signatures of a piece together.
    fn signatures(&self, items: &[Item], keys: &KeyHistory) -> Signatures {
        if self.mode == VerifyMode::Quick {
            return Signatures { events: Vec::new().into_iter(), checkpoints: Vec::new().into_iter() };
        }
        let event = |item: &Item| match item {
            Item::Event { signed, .. } => Some(Unverified::new(signed.clone())),
            _ => None,
        };
        let trust = EventTrust { origin: &self.origin, keys };
        let events = Unverified::verify_all(items.iter().filter_map(event).collect(), &trust);
        let events: Vec<_> = events.into_iter().map(|event| event.ok().map(Box::new)).collect();
        let checkpoint = |item: &Item| match item {
            Item::Checkpoint { end, .. } => Some(end.note.clone()),
            _ => None,
        };
        let notes: Vec<Note> = items.iter().filter_map(checkpoint).collect();
        let sizes = notes.iter().map(|note| Checkpoint::parse(note.text()).map_or(0, |checkpoint| checkpoint.size));
        let signers: Vec<_> = sizes.map(|size| checkpoint_key(size, &self.origin, keys)).collect();
        let known = notes.iter().zip(&signers).filter_map(|(note, key)| Some((note, key.as_ref()?)));
        let mut holds = Note::verify_signatures(&known.collect::<Vec<_>>()).into_iter();
        let checkpoints: Vec<bool> =
            signers.iter().map(|key| key.is_some() && holds.next().unwrap_or_default()).collect();
        Signatures { events: events.into_iter(), checkpoints: checkpoints.into_iter() }
    }

    fn check(
        &self,
        item: Item,
        signatures: &mut Signatures,
        keys: &KeyHistory,
        packs: &mut PackReader,
    ) -> Result<Done, ReadError> {
        match item {
            Item::Snapshot { bytes, place } => Ok(Done::Snapshot { bytes, place }),
            Item::Checkpoint { end, place } => {
                let signed = self.mode == VerifyMode::Quick || signatures.checkpoints.next().unwrap_or_default();
                Ok(Done::Checkpoint { note: end.note, place, signed })
            }
            Item::Event { signed, location } => {
                let checked = match (self.mode, signatures.events.next().flatten()) {
                    (_, Some(verified)) => Checked::Verified(verified),
                    (VerifyMode::Full, None) => read_event(signed),
                    (VerifyMode::Quick, None) => check_event(signed, &self.origin, keys, self.mode),
                };
                let payload = self.payload(&checked, location, packs)?;
                Ok(Done::Event { checked, payload })
            }
        }
    }

    fn payload(
        &self,
        checked: &Checked,
        location: Option<PayloadLocation>,
        packs: &mut PackReader,
    ) -> Result<PayloadState, ReadError> {
        let event = match checked {
            Checked::Verified(record) => &record.event,
            Checked::Read { event, .. } => event,
            Checked::Malformed(_) => return Ok(PayloadState::None),
        };
        let Some(payload) = event.payload.as_ref().filter(|_| self.mode == VerifyMode::Full) else {
            return Ok(PayloadState::None);
        };
        match packs.read(&format!("{}#{}", self.origin, event.index), payload, location) {
            Ok(Some(_)) => Ok(PayloadState::Good),
            Ok(None) => Ok(PayloadState::None),
            Err(ReadError::Damaged(finding)) => Ok(PayloadState::Bad(finding)),
            Err(error) => Err(error),
        }
    }
}

/// Decodes an event and, where the mode asks for it, verifies its signature. A key rotation is
/// verified in every mode, since the keys of what follows depend on it.
pub(super) fn check_event(signed: SignedEvent, origin: &str, keys: &KeyHistory, mode: VerifyMode) -> Checked {
    match read_event(signed) {
        Checked::Read { event, fields, hash, signed }
            if mode == VerifyMode::Full || matches!(fields.as_deref(), Some(Fields::KeyRotated(_))) =>
        {
            let trust = EventTrust { origin, keys };
            match Unverified::new(signed.clone()).verify(&trust) {
                Ok(verified) => Checked::Verified(Box::new(verified)),
                Err(_) => Checked::Read { event, fields, hash, signed },
            }
        }
        read => read,
    }
}

/// Decodes an event whose signature does not hold or is not looked at.
fn read_event(signed: SignedEvent) -> Checked {
    let hash = signed.event_hash();
    match Event::decode(&signed.body) {
        Ok((event, fields)) => Checked::Read { event: Box::new(event), fields: fields.map(Box::new), hash, signed },
        Err(error) => Checked::Malformed(error),
    }
}

/// The key that signs a checkpoint of this size: the one that signed the last event in it.
fn checkpoint_key(size: u64, origin: &str, keys: &KeyHistory) -> Option<VerifierKey> {
    VerifierKey::new(origin, KeyKind::Ed25519, keys.key_at(size.saturating_sub(1))).ok()
}

/// Whether the log signed a checkpoint of this size.
pub(super) fn is_signed(note: &Note, size: u64, origin: &str, keys: &KeyHistory) -> bool {
    checkpoint_key(size, origin, keys).is_some_and(|key| note.verify_signature(&key).is_ok())
}
