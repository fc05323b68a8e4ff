//! One log per attack, each found with its own code and the place.

use std::fs;
use std::sync::Arc;

use amc_core::kinds::{Fields, KeyPurpose, KeyRotated, LogOpened, SessionSeal};
use amc_core::{Digest, FindingCode};
use amc_crypto::signer::EventSigner as _;
use amc_evidence::Event;

use super::forge::{Log, note_over, verify_at};
use super::{ORIGIN, TestKey};
use crate::frame::segment_path;
use crate::{RevokedKey, VerifyMode, VerifyReport};

/// The report has this code, as an error, at a place that ends like this.
#[track_caller]
fn found(report: &VerifyReport, code: FindingCode, place: &str) {
    let is_it = |finding: &&amc_core::Finding| finding.code == code && finding.is_error();
    let mut places = report.findings.iter().filter(is_it).map(|finding| finding.subject.as_str());
    assert!(places.any(|subject| subject.contains(place)), "{code} at {place} in {:#?}", report.findings);
    assert!(!report.is_good());
}

fn is_output(fields: &Fields) -> bool {
    matches!(fields, Fields::ProcessOutput(_))
}

fn is_seal(fields: &Fields) -> bool {
    matches!(fields, Fields::SessionSeal(_))
}

#[test]
fn an_untouched_log_is_good() {
    for log in [Log::new(), Log::with_segments(4 << 10, 4), Log::empty(TestKey::new(1, ORIGIN))] {
        for mode in [VerifyMode::Full, VerifyMode::Quick] {
            let report = log.verify(|options| options.mode = mode);
            assert!(report.findings.is_empty(), "{:#?}", report.findings);
            assert_eq!(report.checkpoint, Some(log.note()));
        }
        assert_eq!(log.refusal(), None);
    }
}

#[test]
fn tail_cut() {
    let log = Log::new();
    let name = segment_path(0);
    let bytes = fs::read(log.path(&name)).expect("reads");
    for keep in [bytes.len() - 1, bytes.len() / 2] {
        fs::write(log.path(&name), &bytes[..keep]).expect("writes");
        found(&log.verify(|_| {}), FindingCode::LedgerTruncated, &name);
        assert_eq!(log.refusal(), Some(FindingCode::LedgerTruncated));
    }
}

#[test]
fn tail_cut_with_an_older_checkpoint_file() {
    let log = Log::new();
    let older = log.copy();
    log.write_sessions(10, 2, u64::MAX);
    let known = log.checkpoint();
    fs::write(log.path(&segment_path(0)), fs::read(older.path(&segment_path(0))).expect("reads")).expect("writes");
    log.write_checkpoint(&older.note());
    assert!(log.verify(|_| {}).is_good(), "the files alone agree");
    let known = [known];
    found(&log.verify(|options| options.known = &known), FindingCode::LedgerRollback, "brought");
}

#[test]
fn rollback_to_an_older_copy() {
    let log = Log::new();
    let older = log.copy();
    log.write_sessions(10, 2, u64::MAX);
    let known = [log.checkpoint()];
    assert!(older.verify(|_| {}).is_good(), "an older copy is good by itself");
    found(&older.verify(|options| options.known = &known), FindingCode::LedgerRollback, "brought");
    assert!(log.verify(|options| options.known = &known).is_good());
}

#[test]
fn fork() {
    let one = Log::new();
    let other = one.copy();
    let before = one.checkpoint();
    one.write_sessions(10, 2, u64::MAX);
    other.write_sessions(20, 2, u64::MAX);
    let known = [before, one.checkpoint()];
    found(&other.verify(|options| options.known = &known), FindingCode::LedgerForked, "brought");
    assert!(one.verify(|options| options.known = &known).is_good(), "an earlier state of the same log is in it");
}

#[test]
fn checkpoint_file_of_a_fork() {
    let log = Log::new();
    let other = log.copy();
    log.write_sessions(10, 2, u64::MAX);
    other.write_sessions(20, 2, u64::MAX);
    log.write_checkpoint(&other.note());
    found(&log.verify(|_| {}), FindingCode::LedgerForked, "checkpoint");
    assert_eq!(log.refusal(), Some(FindingCode::LedgerForked));
}

#[test]
fn checkpoint_file_of_a_stranger() {
    let log = Log::new();
    log.write_checkpoint(&note_over(&log.entries(), &TestKey::new(9, ORIGIN)));
    found(&log.verify(|_| {}), FindingCode::CheckpointInvalid, "checkpoint");
    assert_eq!(log.refusal(), Some(FindingCode::CheckpointInvalid));
}

#[test]
fn checkpoint_file_gone_or_garbage() {
    let log = Log::new();
    fs::write(log.path("checkpoint"), "not a note").expect("writes");
    found(&log.verify(|_| {}), FindingCode::CheckpointInvalid, "checkpoint");
    assert_eq!(log.refusal(), Some(FindingCode::CheckpointInvalid));
    fs::remove_file(log.path("checkpoint")).expect("removes");
    found(&log.verify(|_| {}), FindingCode::CheckpointInvalid, "checkpoint");
    assert_eq!(log.refusal(), Some(FindingCode::CheckpointInvalid));
}

#[test]
fn event_removed() {
    let log = Log::new();
    let at = log.first_of(is_output);
    let mut entries = log.entries();
    entries.remove(at);
    log.rewrite(&entries, &log.note());
    let report = log.verify(|_| {});
    found(&report, FindingCode::ChainBroken, &format!("#{at}"));
    found(&report, FindingCode::EventOutOfOrder, &format!("#{at}"));
    found(&report, FindingCode::CheckpointInvalid, "segments/");
    assert!(log.refusal().is_some());
}

#[test]
fn segment_removed() {
    let log = Log::with_segments(4 << 10, 4);
    let names = log.files().names("segments").expect("lists");
    assert!(names.len() >= 3);
    fs::remove_file(log.path("segments").join(&names[1])).expect("removes");
    found(&log.verify(|_| {}), FindingCode::LedgerTruncated, &names[2]);
    assert_eq!(log.refusal(), Some(FindingCode::LedgerTruncated));
}

#[test]
fn newest_segment_removed() {
    let log = Log::with_segments(4 << 10, 4);
    let names = log.files().names("segments").expect("lists");
    fs::remove_file(log.path("segments").join(names.last().expect("has some"))).expect("removes");
    found(&log.verify(|_| {}), FindingCode::LedgerTruncated, "checkpoint");
    assert_eq!(log.refusal(), Some(FindingCode::LedgerTruncated));
}

#[test]
fn events_reordered() {
    let log = Log::new();
    let at = log.first_of(is_output);
    let mut entries = log.entries();
    entries.swap(at, at + 1);
    log.rewrite(&entries, &log.note());
    let report = log.verify(|_| {});
    found(&report, FindingCode::EventOutOfOrder, &format!("#{at}"));
    found(&report, FindingCode::ChainBroken, &format!("#{at}"));
}

#[test]
fn event_inserted_twice() {
    let log = Log::new();
    let at = log.first_of(is_output);
    let mut entries = log.entries();
    entries.insert(at + 1, entries[at].clone());
    log.rewrite(&entries, &log.note());
    found(&log.verify(|_| {}), FindingCode::EventOutOfOrder, &format!("#{}", at + 1));
}

#[test]
fn event_inserted_by_a_stranger() {
    let log = Log::new();
    let mut events = log.events();
    let at = log.first_of(is_output);
    events.insert(at + 1, events[at].clone());
    let stranger = TestKey::new(9, ORIGIN);
    let inserted = at as u64 + 1;
    let key = Arc::clone(&log.key);
    log.resign(&events, |index| Arc::clone(if index == inserted { &stranger } else { &key }));
    found(&log.verify(|_| {}), FindingCode::EventSignatureInvalid, &format!("#{inserted}"));
}

#[test]
fn byte_changed() {
    let log = Log::new();
    let segment = segment_path(0);
    let middle = fs::read(log.path(&segment)).expect("reads").len() / 2;
    log.flip(&segment, middle);
    found(&log.verify(|_| {}), FindingCode::EventHashMismatch, &segment);
    assert_eq!(log.refusal(), Some(FindingCode::EventHashMismatch), "a later flush stands behind the damage");
}

#[test]
fn byte_changed_in_the_newest_flush() {
    let log = Log::new();
    let segment = segment_path(0);
    let len = fs::read(log.path(&segment)).expect("reads").len();
    log.flip(&segment, len - 400);
    found(&log.verify(|_| {}), FindingCode::EventHashMismatch, &segment);
    assert_eq!(log.refusal(), Some(FindingCode::EventHashMismatch), "the checkpoint file covers the damage");
}

#[test]
fn every_byte_of_a_segment_matters() {
    let log = Log::empty(TestKey::new(1, ORIGIN));
    let segment = segment_path(0);
    let bytes = fs::read(log.path(&segment)).expect("reads");
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        fs::write(log.path(&segment), changed).expect("writes");
        assert!(!log.verify(|options| options.mode = VerifyMode::Quick).is_good(), "byte {at}");
    }
}

#[test]
fn byte_changed_and_framed_anew() {
    let log = Log::new();
    let mut entries = log.entries();
    let at = log.first_of(is_output);
    let (event, _) = Event::decode(&entries[at].0.body).expect("decodes");
    entries[at].0.body = Event { tier: amc_core::Tier::ObservedHardened, ..event }.encode();
    log.rewrite(&entries, &log.note());
    let report = log.verify(|_| {});
    found(&report, FindingCode::EventSignatureInvalid, &format!("#{at}"));
    found(&report, FindingCode::ChainBroken, &format!("#{}", at + 1));
}

#[test]
fn signature_changed_and_framed_anew() {
    let log = Log::new();
    let mut entries = log.entries();
    let at = log.first_of(is_output);
    entries[at].0.signature.0[3] ^= 1;
    log.rewrite(&entries, &log.note());
    found(&log.verify(|_| {}), FindingCode::EventSignatureInvalid, &format!("#{at}"));
    assert!(log.verify(|options| options.mode = VerifyMode::Quick).is_good(), "quick says that it does not look");
}

#[test]
fn swapped_for_a_log_of_another_origin() {
    let other = Log::empty(TestKey::new(1, "other/evidence"));
    let report = verify_at(&other.dir(), &TestKey::new(1, ORIGIN), |_| {});
    found(&report, FindingCode::KeyHistoryUntrusted, "segments/");
}

#[test]
fn re_signed_under_a_new_key() {
    let log = Log::new();
    let fresh = TestKey::new(9, ORIGIN);
    let mut events = log.events();
    let Some(Fields::LogOpened(first)) = Fields::decode(1, &events[0].0.fields).expect("decodes") else {
        panic!("a log begins with its opening");
    };
    events[0].0.fields = Fields::from(LogOpened { log_public: fresh.public().to_digest(), ..first }).encode();
    log.resign(&events, |_| Arc::clone(&fresh));
    found(&log.verify(|_| {}), FindingCode::KeyHistoryUntrusted, "#0");
}

/// Makes the log end with a key rotation and three events after it; gives the rotation's index.
/// `signer_of` takes an event's index and the rotation's.
fn rotated(log: &Log, next: &Arc<TestKey>, signer_of: impl Fn(u64, u64) -> Arc<TestKey>) -> u64 {
    let mut events = log.events();
    // One session and its head stay: what comes later links back to hashes of the old chain.
    let at = log.first_of(|fields| matches!(fields, Fields::AgentHead(_))) + 1;
    events.truncate(at);
    let template = Event { agent: None, ..events[at - 1].0.clone() };
    let started = || Fields::from(amc_core::kinds::MonitorStarted { software: "amc test".into() });
    let rotation = Fields::from(KeyRotated { purpose: KeyPurpose::Log, public: next.public().to_digest() });
    for fields in [rotation, started(), started(), started()] {
        events.push((Event { kind: fields.kind(), fields: fields.encode(), ..template.clone() }, None));
    }
    let at = at as u64;
    log.resign(&events, |index| signer_of(index, at));
    at
}

#[test]
fn key_rotated_as_it_should() {
    let (log, next) = (Log::new(), TestKey::new(2, ORIGIN));
    let first = Arc::clone(&log.key);
    rotated(&log, &next, |index, at| Arc::clone(if index <= at { &first } else { &next }));
    for mode in [VerifyMode::Full, VerifyMode::Quick] {
        let report = log.verify(|options| options.mode = mode);
        assert!(report.is_good(), "{:#?}", report.findings);
        assert_eq!(report.keys.newest(), next.public_key());
    }
}

#[test]
fn event_under_a_retired_key() {
    let (log, next) = (Log::new(), TestKey::new(2, ORIGIN));
    let first = Arc::clone(&log.key);
    let at = rotated(&log, &next, |index, at| Arc::clone(if index <= at || index == at + 2 { &first } else { &next }));
    found(&log.verify(|_| {}), FindingCode::KeyOutOfValidity, &format!("#{}", at + 2));
}

#[test]
fn event_under_a_key_before_its_introduction() {
    let (log, next) = (Log::new(), TestKey::new(2, ORIGIN));
    let first = Arc::clone(&log.key);
    let at = rotated(&log, &next, |index, at| Arc::clone(if index < at { &first } else { &next }));
    found(&log.verify(|_| {}), FindingCode::EventSignatureInvalid, &format!("#{at}"));
}

#[test]
fn events_under_a_revoked_key() {
    let log = Log::new();
    let revoked = [RevokedKey { public: log.key.public(), from_index: 5 }];
    found(&log.verify(|options| options.revoked = &revoked), FindingCode::KeyRevoked, "#5");
    let mut counted = 0;
    let verifier = log.key.verifier();
    let options = crate::VerifyOptions { revoked: &revoked, ..crate::VerifyOptions::full(&verifier) };
    crate::verify(&log.dir(), &options, &mut |_| counted += 1).expect("reads");
    assert_eq!(counted, 5, "nothing that the key signed from there on counts");
}

const PACK: &str = "payloads/00000000.pack";

#[test]
fn payload_changed() {
    let log = Log::new();
    let at = log.first_of(is_output);
    log.flip(PACK, 26);
    found(&log.verify(|_| {}), FindingCode::PayloadHashMismatch, &format!("#{at}"));
}

#[test]
fn payload_swapped_for_another_one() {
    let log = Log::new();
    let at = log.first_of(is_output);
    let mut entries = log.entries();
    entries[at].1 = entries[at + 1].1;
    log.rewrite(&entries, &log.note());
    found(&log.verify(|_| {}), FindingCode::PayloadHashMismatch, &format!("#{at}"));
}

#[test]
fn payload_gone() {
    let log = Log::new();
    let at = log.first_of(is_output);
    let mut entries = log.entries();
    entries[at].1 = None;
    log.rewrite(&entries, &log.note());
    found(&log.verify(|_| {}), FindingCode::PayloadMissing, &format!("#{at}"));
    fs::remove_file(log.path(PACK)).expect("removes");
    found(&log.verify(|_| {}), FindingCode::PayloadMissing, &format!("#{}", at + 1));
    assert_eq!(log.refusal(), Some(FindingCode::PayloadMissing));
}

#[test]
fn session_emptied() {
    let log = Log::new();
    let first = log.first_of(is_output);
    let mut events = log.events();
    events.drain(first..first + 4);
    let key = Arc::clone(&log.key);
    log.resign(&events, |_| Arc::clone(&key));
    let report = log.verify(|_| {});
    found(&report, FindingCode::SessionSealInvalid, &format!("#{first}"));
    found(&report, FindingCode::SessionGap, &format!("#{first}"));
}

#[test]
fn seal_replayed() {
    let log = Log::new();
    let mut events = log.events();
    let seal = log.first_of(is_seal);
    events.push(events[seal].clone());
    let last = events.len() - 1;
    let key = Arc::clone(&log.key);
    log.resign(&events, |_| Arc::clone(&key));
    found(&log.verify(|_| {}), FindingCode::SessionSealInvalid, &format!("#{last}"));
}

#[test]
fn seal_that_counts_less() {
    let log = Log::new();
    let mut events = log.events();
    let at = log.first_of(is_seal);
    let Some(Fields::SessionSeal(seal)) = Fields::decode(101, &events[at].0.fields).expect("decodes") else {
        panic!("this is a seal");
    };
    events[at].0.fields = Fields::from(SessionSeal { events: seal.events - 1, ..seal }).encode();
    let key = Arc::clone(&log.key);
    log.resign(&events, |_| Arc::clone(&key));
    found(&log.verify(|_| {}), FindingCode::SessionSealInvalid, &format!("#{at}"));
}

#[test]
fn session_left_out() {
    let log = Log::new();
    let head = log.first_of(|fields| matches!(fields, Fields::AgentHead(_)));
    let mut events = log.events();
    // The whole first session, from its open to its head: the second one now comes first.
    events.drain(1..=head);
    let key = Arc::clone(&log.key);
    log.resign(&events, |_| Arc::clone(&key));
    found(&log.verify(|_| {}), FindingCode::SessionGap, "#1");
}

#[test]
fn clock_rolled_back() {
    let log = Log::new();
    let mut events = log.events();
    let at = events.len() - 1;
    events[at].0.wall_ns = events[at - 1].0.wall_ns - 1;
    let key = Arc::clone(&log.key);
    log.resign(&events, |_| Arc::clone(&key));
    let report = log.verify(|_| {});
    let place = format!("{ORIGIN}#{at}");
    let is_it = |finding: &amc_core::Finding| finding.code == FindingCode::ClockRollback && finding.subject == place;
    assert!(report.findings.iter().any(is_it), "{:#?}", report.findings);
}

#[test]
fn tile_changed_or_gone() {
    let log = Log::with_segments(u64::MAX, 90);
    assert!(log.checkpoint().size > 256);
    log.flip("tile/0/000", 33);
    found(&log.verify(|_| {}), FindingCode::EventHashMismatch, "tile/0/000");
    assert_eq!(log.refusal(), Some(FindingCode::EventHashMismatch));
    fs::remove_file(log.path("tile/0/000")).expect("removes");
    let report = log.verify(|_| {});
    assert!(report.findings.iter().any(|finding| finding.subject == "tile/0/000"), "said, and the log is good");
    assert!(report.is_good());
    assert_eq!(log.refusal(), None, "a writer stores what follows from the events");
    assert!(log.verify(|_| {}).findings.is_empty());
}

#[test]
fn snapshot_that_is_not_the_state() {
    let log = Log::with_segments(4 << 10, 4);
    let name = log.replace_snapshot(|bytes| {
        // The boot id of the clock reading that the state goes on from.
        let at = bytes.windows(16).position(|window| window == [7; 16]).expect("stands there");
        bytes[at] ^= 1;
    });
    found(&log.verify(|_| {}), FindingCode::EventHashMismatch, &name);
    let log = Log::with_segments(4 << 10, 4);
    let name = log.replace_snapshot(|bytes| bytes.truncate(40));
    found(&log.verify(|_| {}), FindingCode::EventHashMismatch, &name);
    assert_eq!(log.refusal(), Some(FindingCode::EventHashMismatch));
}

#[test]
fn snapshot_of_another_release_is_passed_over() {
    let log = Log::with_segments(4 << 10, 4);
    let root = log.checkpoint().root;
    log.replace_snapshot(|bytes| bytes[0] = 200);
    assert!(log.verify(|_| {}).findings.is_empty());
    let tree = crate::LogReader::open(&log.dir()).expect("opens").tree().expect("reads");
    let size = log.checkpoint().size;
    assert_eq!(amc_crypto::merkle::root_at(&tree, size).expect("reads"), root);
    assert_eq!(log.refusal(), None);
    log.write_sessions(20, 3, 4 << 10);
    assert!(log.verify(|_| {}).is_good());
}

#[test]
fn bytes_that_are_no_event() {
    let log = Log::new();
    let mut entries = log.entries();
    let at = entries.len() - 1;
    entries[at].0.body.push(0);
    let hash = entries[at].0.event_hash();
    entries[at].0.signature = log.key.sign_event(&hash).expect("signs");
    let note = note_over(&entries, &log.key);
    log.rewrite(&entries, &note);
    found(&log.verify(|_| {}), FindingCode::EventHashMismatch, &format!("#{at}"));
}

#[test]
fn a_checkpoint_of_another_log_proves_nothing_and_is_said() {
    let log = Log::new();
    let known = [amc_crypto::Checkpoint { origin: "other/evidence".into(), size: 1, root: Digest::ZERO }];
    found(&log.verify(|options| options.known = &known), FindingCode::CheckpointInvalid, "brought");
}
