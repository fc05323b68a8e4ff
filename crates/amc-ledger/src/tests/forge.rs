//! Makes logs that no writer would make: the hands of somebody who has the files, or the key too.

use std::path::Path;
use std::sync::Arc;

use amc_core::kinds::Fields;
use amc_core::{Digest, FindingCode};
use amc_crypto::merkle::root_of;
use amc_crypto::signer::{CheckpointSigner as _, EventSigner as _};
use amc_crypto::{Checkpoint, Note, leaf_hash};
use amc_evidence::{Event, SignedEvent};

use super::{ORIGIN, TestClock, TestKey, open_session, opened, output, seal, session};
use crate::engine::{CHECKPOINT_FILE, Hands, head_of};
use crate::frame::{Cursor, FlushEnd, Frame, SegmentHeader, segment_path};
use crate::payload::pack;
use crate::reader::{LogReader, PayloadLocation};
use crate::snapshot::Snapshot;
use crate::storage::Files;
use crate::{OpenError, VerifyOptions, VerifyReport, Writer, recovery, verify};

/// A log of three short sessions on the real disk.
pub(super) struct Log {
    home: tempfile::TempDir,
    pub(super) key: Arc<TestKey>,
}

/// An event with the place of its payload.
pub(super) type Entry = (SignedEvent, Option<PayloadLocation>);

impl Log {
    /// A log whose segments turn over at `segment_bytes`.
    pub(super) fn with_segments(segment_bytes: u64, pieces: u8) -> Self {
        let log = Log::empty(TestKey::new(1, ORIGIN));
        log.write_sessions(1, pieces, segment_bytes);
        log
    }

    pub(super) fn new() -> Self {
        Log::with_segments(u64::MAX, 4)
    }

    /// A log with its first event only.
    pub(super) fn empty(key: Arc<TestKey>) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let log = Log { home, key };
        crate::create(log.dir().as_path(), opened(&log.key), &log.key.signers(), &*TestClock::new()).expect("creates");
        log
    }

    pub(super) fn dir(&self) -> std::path::PathBuf {
        self.home.path().join("evidence")
    }

    pub(super) fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir().join(name)
    }

    pub(super) fn files(&self) -> Files {
        Files::on_disk(&self.dir())
    }

    /// A copy somewhere else.
    pub(super) fn copy(&self) -> Log {
        let home = tempfile::tempdir().expect("a temporary directory");
        let copy = Log { home, key: Arc::clone(&self.key) };
        super::copy_dir(&self.dir(), &copy.dir());
        copy
    }

    /// Appends three sessions from `first` on, with a flush per event.
    pub(super) fn write_sessions(&self, first: u8, pieces: u8, segment_bytes: u64) {
        let hands = Hands { signers: self.key.signers(), clock: TestClock::new() };
        let (mut engine, _) = recovery::open(&self.files(), hands).expect("opens");
        engine.set_segment_bytes(segment_bytes);
        for number in first..first + 3 {
            let id = session(number);
            let outputs = (0..pieces).map(|at| output(id, &[number ^ at; 200]));
            let drafts = std::iter::once((open_session(id), None)).chain(outputs).chain([(seal(id), None)]);
            for (draft, bytes) in drafts {
                let packed = pack(draft.payload.as_ref(), bytes).expect("fits");
                engine.stage(draft, packed.as_ref()).expect("stages");
                engine.flush().expect("flushes");
                engine.take_tiles().iter().for_each(|tile| tile.write(&self.files()).expect("writes"));
                engine.publish().expect("publishes");
                if engine.is_full() {
                    engine.turn().expect("turns");
                }
            }
        }
    }

    pub(super) fn checkpoint(&self) -> Checkpoint {
        LogReader::open(&self.dir()).expect("opens").checkpoint().clone()
    }

    pub(super) fn note(&self) -> Note {
        LogReader::open(&self.dir()).expect("opens").latest_checkpoint().clone()
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        let reader = LogReader::open(&self.dir()).expect("opens");
        reader.events(0).map(|stored| stored.map(|at| (at.signed, at.payload_location)).expect("reads")).collect()
    }

    /// The events, decoded, with the places of their payloads.
    pub(super) fn events(&self) -> Vec<(Event, Option<PayloadLocation>)> {
        let decode = |(signed, at): Entry| (Event::decode(&signed.body).expect("decodes").0, at);
        self.entries().into_iter().map(decode).collect()
    }

    /// Replaces the log's segments by one with these events, framed without fault, that ends with
    /// this note.
    pub(super) fn rewrite(&self, entries: &[Entry], note: &Note) {
        std::fs::remove_dir_all(self.path("segments")).expect("removes");
        std::fs::create_dir(self.path("segments")).expect("creates");
        let mut bytes = head_of(&Snapshot::empty(&self.key.origin, self.key.public()));
        let batch_start = bytes.len() as u64;
        for (signed, location) in entries {
            Frame::Event { signed: signed.clone(), location: *location }.encode(0, 0, &mut bytes);
        }
        let pack_len = std::fs::metadata(self.path("payloads/00000000.pack")).map_or(0, |data| data.len());
        let end = FlushEnd { batch_start, pack: 0, pack_len, note: note.clone() };
        Frame::Checkpoint(end).encode(0, 0, &mut bytes);
        std::fs::write(self.path(&segment_path(0)), bytes).expect("writes");
        self.write_checkpoint(note);
    }

    /// Changes the snapshot of the newest segment and frames everything in it anew; gives its name.
    pub(super) fn replace_snapshot(&self, change: impl FnOnce(&mut Vec<u8>)) -> String {
        let name = self.files().names("segments").expect("lists").pop().expect("has some");
        let path = format!("segments/{name}");
        let first_index: u64 = name.trim_end_matches(".seg").parse().expect("a number");
        let file = self.files().open(&path).expect("opens").expect("is there");
        let mut bytes = SegmentHeader::read(&file).expect("reads").encode().to_vec();
        let mut cursor = Cursor::new(file, first_index);
        let Some(Frame::Snapshot(mut snapshot)) = cursor.next().expect("reads") else { panic!("it begins so") };
        change(&mut snapshot);
        Frame::Snapshot(snapshot).encode(first_index, 0, &mut bytes);
        while let Some(frame) = cursor.next().expect("reads") {
            frame.encode(first_index, 0, &mut bytes);
        }
        std::fs::write(self.path(&path), bytes).expect("writes");
        name
    }

    pub(super) fn write_checkpoint(&self, note: &Note) {
        std::fs::write(self.path(CHECKPOINT_FILE), note.to_string()).expect("writes");
    }

    /// Replaces the log by events that `key_at` signs anew, chained and numbered as a log is.
    pub(super) fn resign(&self, events: &[(Event, Option<PayloadLocation>)], key_at: impl Fn(u64) -> Arc<TestKey>) {
        let mut prev = Digest::ZERO;
        let mut entries = Vec::new();
        for (index, (event, location)) in (0u64..).zip(events) {
            let event = Event { index, prev, ..event.clone() };
            let body = event.encode();
            prev = leaf_hash(&body);
            let signature = key_at(index).sign_event(&prev).expect("signs");
            entries.push((SignedEvent { body, signature }, *location));
        }
        let note = note_over(&entries, &key_at(entries.len() as u64 - 1));
        self.rewrite(&entries, &note);
    }

    /// Flips a bit in a file.
    pub(super) fn flip(&self, name: &str, at: usize) {
        let mut bytes = std::fs::read(self.path(name)).expect("reads");
        bytes[at] ^= 0x10;
        std::fs::write(self.path(name), bytes).expect("writes");
    }

    pub(super) fn verify<'a>(&self, change: impl FnOnce(&mut VerifyOptions<'a>)) -> VerifyReport {
        verify_at(&self.dir(), &self.key, change)
    }

    /// What opening for writing says.
    pub(super) fn refusal(&self) -> Option<FindingCode> {
        match Writer::open(&self.dir(), self.key.signers(), TestClock::new()) {
            Ok(_) => None,
            Err(error @ OpenError::Refused(_)) => error.code(),
            Err(other) => panic!("{other}"),
        }
    }

    /// Index of the first event of this kind.
    pub(super) fn first_of(&self, wanted: fn(&Fields) -> bool) -> usize {
        let is_wanted =
            |(signed, _): &Entry| Event::decode(&signed.body).expect("decodes").1.is_some_and(|fields| wanted(&fields));
        self.entries().iter().position(is_wanted).expect("the log has one")
    }
}

pub(super) fn verify_at<'a>(dir: &Path, key: &TestKey, change: impl FnOnce(&mut VerifyOptions<'a>)) -> VerifyReport {
    // A test's key may live as long as the test run.
    let mut options = VerifyOptions::full(Box::leak(Box::new(key.verifier())));
    change(&mut options);
    verify(dir, &options, &mut |_| {}).expect("reads")
}

/// The checkpoint over these events, signed.
pub(super) fn note_over(entries: &[Entry], key: &TestKey) -> Note {
    let root = root_of(entries.iter().map(|(signed, _)| signed.event_hash()));
    let checkpoint = Checkpoint { origin: key.origin.clone(), size: entries.len() as u64, root };
    let signature = key.sign_checkpoint(&checkpoint).expect("signs");
    Note::new(checkpoint.text(), vec![signature])
}
