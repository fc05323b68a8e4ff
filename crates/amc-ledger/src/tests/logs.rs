//! The ordinary life of a log on a real disk.

use std::sync::Arc;

use amc_core::kinds::{Dialect, Fields, LlmRequest, ProcessOutput, SessionOutcome, Stream};
use amc_core::{LeaseId, RequestId, Tier};
use amc_crypto::merkle::{inclusion_proof, root_at, verify_inclusion};
use amc_evidence::{Content, Draft, PayloadRef};

use super::{ORIGIN, TestClock, TestKey, agent, answer, codes, copy_dir, open_session, opened, output, seal, session};
use crate::{
    AppendError, CallPart, LogReader, OpenError, RequestPlace, VerifyMode, VerifyOptions, VerifyReport, Writer, create,
    verify,
};

struct Fixture {
    dir: tempfile::TempDir,
    key: Arc<TestKey>,
    clock: Arc<TestClock>,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (key, clock) = (TestKey::new(1, ORIGIN), TestClock::new());
        create(dir.path(), opened(&key), &key.signers(), &*clock).expect("creates");
        Fixture { dir, key, clock }
    }

    fn open(&self) -> Writer {
        Writer::open(self.dir.path(), self.key.signers(), Arc::<TestClock>::clone(&self.clock)).expect("opens")
    }

    fn verify(&self, mode: VerifyMode) -> (VerifyReport, usize) {
        let verifier = self.key.verifier();
        let options = VerifyOptions { mode, ..VerifyOptions::full(&verifier) };
        let mut seen = 0;
        let report = verify(self.dir.path(), &options, &mut |_| seen += 1).expect("verifies");
        (report, seen)
    }
}

fn write_session(writer: &Writer, number: u8, pieces: usize) {
    let id = session(number);
    writer.append(open_session(id), None).expect("opens the session");
    for at in 0..pieces {
        let (draft, bytes) = output(id, format!("piece {number} {at} {}", "text ".repeat(40)).as_bytes());
        writer.append(draft, bytes).expect("appends");
    }
    writer.append(seal(id), None).expect("seals the session");
}

#[test]
fn a_log_is_written_read_and_verified() {
    let log = Fixture::new();
    let writer = log.open();
    write_session(&writer, 1, 300);
    let size = writer.with_state(amc_evidence::LogState::size);
    assert_eq!(size, 1 + 1 + 300 + 1 + 1, "opening, session, seal and the agent's head");
    let note = writer.publish().expect("publishes");
    assert_eq!(note, writer.checkpoint());

    let reader = LogReader::open(log.dir.path()).expect("opens beside the writer");
    assert_eq!(reader.size(), size);
    let events: Vec<_> = reader.events(0).collect::<Result<_, _>>().expect("reads");
    assert_eq!(events.len() as u64, size);
    let tree = reader.tree().expect("has a tree");
    assert_eq!(root_at(&tree, size).expect("reads"), reader.checkpoint().root);
    for index in [0, 1, 255, 256, size - 1] {
        let path = inclusion_proof(&tree, index, size).expect("proves");
        let leaf = reader.event(index).expect("reads").expect("is there").signed.event_hash();
        assert_eq!(verify_inclusion(leaf, index, size, &path, &reader.checkpoint().root), Ok(()));
    }
    assert!(reader.checkpoint_at(3).expect("reads").is_some(), "every flush leaves a checkpoint");
    assert!(reader.checkpoint_at(size + 1).expect("reads").is_none());

    let (report, seen) = log.verify(VerifyMode::Full);
    assert_eq!((codes(&report), report.events, seen as u64), (vec![], size, size));
    assert_eq!((report.sessions, report.payloads, report.open_sessions.len()), (1, 300, 0));
    assert_eq!(report.checkpoint.as_ref(), Some(&note));
    let (quick, seen) = log.verify(VerifyMode::Quick);
    assert_eq!((codes(&quick), quick.head, seen), (vec![], report.head, 0), "quick gives no verified events");
    writer.close().expect("closes");
}

#[test]
fn payloads_come_back_and_equal_ones_are_shared() {
    let log = Fixture::new();
    let writer = log.open();
    writer.append(open_session(session(1)), None).expect("opens the session");
    let (draft, bytes) = output(session(1), &b"the same bytes ".repeat(100));
    let places: Vec<_> = (0..3).map(|_| writer.append(draft.clone(), bytes.clone()).expect("appends").index).collect();
    writer.publish().expect("publishes");
    let reader = LogReader::open(log.dir.path()).expect("opens");
    let stored: Vec<_> = places.iter().map(|at| reader.event(*at).expect("reads").expect("is there")).collect();
    assert_eq!(stored[0].payload_location, stored[1].payload_location);
    assert_eq!(stored[0].payload_location, stored[2].payload_location);
    let payload = draft.payload.expect("has one");
    assert_eq!(reader.payload(&payload, stored[2].payload_location).expect("reads"), bytes);
    let other = PayloadRef::full(b"other", "text/plain");
    assert!(reader.payload(&other, stored[2].payload_location).is_err(), "the place is only a hint");
}

#[test]
fn producers_share_flushes_and_keep_their_order() {
    let log = Fixture::new();
    let writer = log.open();
    for producer in 0..8 {
        writer.append(open_session(session(producer)), None).expect("opens the session");
    }
    std::thread::scope(|scope| {
        for producer in 0..8u8 {
            let writer = &writer;
            scope.spawn(move || {
                let pending: Vec<_> = (0..40)
                    .map(|at| {
                        let (draft, bytes) = output(session(producer), format!("{producer} {at}").as_bytes());
                        writer.submit(draft, bytes).expect("is taken")
                    })
                    .collect();
                let indices: Vec<u64> =
                    pending.into_iter().map(|pending| pending.wait().expect("is durable").index).collect();
                assert!(indices.is_sorted_by(|a, b| a < b), "a producer's order is the log's order");
            });
        }
    });
    for producer in 0..8 {
        writer.append(seal(session(producer)), None).expect("seals the session");
    }
    writer.close().expect("closes");
    let (report, _) = log.verify(VerifyMode::Full);
    assert_eq!((codes(&report), report.events), (vec![], 1 + 8 + 320 + 16));
}

#[test]
fn one_writer_at_a_time() {
    let log = Fixture::new();
    let writer = log.open();
    let again = Writer::open(log.dir.path(), log.key.signers(), Arc::<TestClock>::clone(&log.clock));
    let holder = std::process::id().to_string();
    assert!(matches!(again, Err(OpenError::Held { pid, .. }) if pid == holder));
    drop(writer);
    log.open().close().expect("the lock is free again");
}

#[test]
fn a_log_is_created_once_and_opened_where_it_is() {
    let log = Fixture::new();
    let again = create(log.dir.path(), opened(&log.key), &log.key.signers(), &*log.clock);
    assert!(matches!(again, Err(OpenError::Exists(_))));
    let empty = tempfile::tempdir().expect("a temporary directory");
    let absent = Writer::open(empty.path(), log.key.signers(), Arc::<TestClock>::clone(&log.clock));
    assert!(matches!(absent, Err(OpenError::Absent(_))));
    assert!(LogReader::open(empty.path()).is_err());
    assert_eq!(std::fs::read_dir(empty.path()).expect("lists").count(), 0, "a refusal leaves nothing behind");
}

#[test]
fn another_key_does_not_open_the_log() {
    let log = Fixture::new();
    let stranger = TestKey::new(2, ORIGIN);
    let opened = Writer::open(log.dir.path(), stranger.signers(), Arc::<TestClock>::clone(&log.clock));
    assert_eq!(opened.err().and_then(|error| error.code()).map(|code| code.as_str()), Some("KEY_OUT_OF_VALIDITY"));
}

#[test]
fn sessions_left_open_are_sealed_as_recovered() {
    let log = Fixture::new();
    let writer = log.open();
    writer.append(open_session(session(1)), None).expect("opens the session");
    writer.append(open_session(session(2)), None).expect("opens the session");
    writer.close().expect("closes");
    let writer = log.open();
    assert_eq!(writer.recovery().sessions, [session(1), session(2)]);
    assert_eq!(writer.recovery().bytes_cut, 0);
    let reader = LogReader::open(log.dir.path()).expect("opens");
    let kinds: Vec<Option<Fields>> = reader
        .events(3)
        .map(|stored| amc_evidence::Event::decode(&stored.expect("reads").signed.body).expect("decodes").1)
        .collect();
    assert!(matches!(
        kinds.as_slice(),
        [Some(Fields::SessionSeal(one)), Some(Fields::AgentHead(_)), Some(Fields::SessionSeal(two)), Some(Fields::AgentHead(last))]
            if one.outcome == SessionOutcome::Recovered && two.outcome == SessionOutcome::Recovered && last.open_sessions.is_empty()
    ));
    drop(writer);
    assert!(log.verify(VerifyMode::Full).0.is_good());
}

#[test]
fn the_clock_is_watched() {
    let log = Fixture::new();
    let writer = log.open();
    writer.append(open_session(session(1)), None).expect("opens the session");
    log.clock.shift(-5_000_000_000);
    writer.append(seal(session(1)), None).expect("seals");
    log.clock.shift(60_000_000_000);
    writer.append(open_session(session(2)), None).expect("opens the session");
    writer.append(seal(session(2)), None).expect("seals");
    writer.close().expect("closes");
    let reader = LogReader::open(log.dir.path()).expect("opens");
    let kinds: Vec<u16> = reader
        .events(0)
        .map(|stored| amc_evidence::Event::decode(&stored.expect("reads").signed.body).expect("decodes").0.kind)
        .collect();
    assert_eq!(kinds, [1, 100, 5, 101, 102, 4, 100, 101, 102]);
    let (report, _) = log.verify(VerifyMode::Full);
    assert!(report.is_good());
    assert!(report.findings.iter().any(|finding| finding.code == amc_core::FindingCode::ClockRollback));
}

#[test]
fn refused_drafts_leave_the_log_as_it_was() {
    let log = Fixture::new();
    let writer = log.open();
    let (draft, bytes) = output(session(1), b"no such session");
    assert!(matches!(writer.append(draft, bytes), Err(AppendError::Build(_))));
    let forged = Draft::new(Tier::Observed, amc_core::kinds::LogRecovered { bytes_cut: 7 });
    assert_eq!(writer.append(forged, None), Err(AppendError::Reserved("log_recovered")));
    let (draft, _) = output(session(1), b"bytes");
    assert!(matches!(writer.append(draft, Some(b"other".to_vec())), Err(AppendError::Payload(_))));
    let too_long = ProcessOutput { stream: Stream::Stdout, offset: 0, len: 0 };
    writer.append(open_session(session(1)), None).expect("opens the session");
    let mut draft = Draft::in_session(agent(), session(1), Tier::Observed, too_long);
    draft.content = Content::SealSession(SessionOutcome::Sealed);
    draft.session = Some(session(9));
    assert!(matches!(writer.append(draft, None), Err(AppendError::Build(_))));
    assert_eq!(writer.with_state(amc_evidence::LogState::size), 2);
    drop(writer);
    assert!(log.verify(VerifyMode::Full).0.is_good());
}

#[test]
fn the_index_follows_and_is_rebuilt() {
    let log = Fixture::new();
    let writer = log.open();
    write_session(&writer, 1, 5);
    let request = RequestId::new("req-1").expect("a good id");
    writer.append(open_session(session(2)), None).expect("opens the session");
    let call = answer("req-1");
    let appended = writer.append(Draft::in_session(agent(), session(2), Tier::Observed, call), None).expect("appends");
    writer.append(seal(session(2)), None).expect("seals");
    let size = writer.with_state(amc_evidence::LogState::size);
    assert_eq!(writer.lookup_request(&request).expect("looks up"), [appended.index], "known at once");
    writer.close().expect("closes");
    for round in ["kept", "rebuilt"] {
        if round == "rebuilt" {
            std::fs::remove_dir_all(log.dir.path().join("index")).expect("removes");
        }
        let writer = log.open();
        while writer.indexed().expect("has an index") < size {
            std::thread::yield_now();
        }
        assert_eq!(writer.lookup_request(&request).expect("looks up"), [appended.index], "{round}");
        assert_eq!(writer.lookup_hash(&appended.hash).expect("looks up"), Some(appended.index), "{round}");
        assert_eq!(writer.lookup_session(session(1)).expect("looks up").len(), 7, "{round}");
        writer.close().expect("closes");
    }
}

#[test]
fn one_producer_hears_of_many_events_in_the_logs_order_and_of_none_that_was_not_taken() {
    let log = Fixture::new();
    let writer = log.open();
    writer.append(open_session(session(3)), None).expect("opens the session");
    let (heard, hears) = std::sync::mpsc::channel();
    let submit = |number: u64, of: u8| {
        let heard = heard.clone();
        let (draft, bytes) = output(session(of), b"a piece");
        writer.submit_then(draft, bytes, CallPart::Apart, move |appended| {
            heard.send((number, appended)).expect("it listens")
        })
    };
    for number in 0..20 {
        submit(number, 3).expect("is taken");
    }
    let (draft, _) = output(session(3), b"a piece");
    let refused = writer.submit_then(draft, Some(b"another".to_vec()), CallPart::Apart, |_| panic!("it was not taken"));
    assert!(matches!(refused, Err(AppendError::Payload(_))));
    submit(20, 99).expect("the commit thread finds out that there is no such session");
    writer.close().expect("closes");
    let (recorded, refused): (Vec<_>, Vec<_>) = hears.try_iter().partition(|(_, appended)| appended.is_ok());
    assert!(matches!(&refused[..], [(20, Err(AppendError::Build(_)))]));
    let numbers: Vec<u64> = recorded.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    let indices: Vec<u64> = recorded.into_iter().flat_map(|(_, appended)| appended.map(|event| event.index)).collect();
    assert!(indices.is_sorted_by(|a, b| a < b), "{indices:?}");
}

fn call(of: u8, fields: impl Into<Fields>) -> Draft {
    Draft::in_session(agent(), session(of), Tier::Observed, fields)
}

fn request() -> LlmRequest {
    LlmRequest {
        request_id: "req-1".to_owned(),
        client_request_id: None,
        provider: "openai".to_owned(),
        dialect: Dialect::Openai,
        method: "POST".to_owned(),
        path: "/v1/chat/completions".to_owned(),
        lease: LeaseId::new("lease-0000000000000001").expect("an id"),
        model: None,
        stream: false,
        system_prompt_sha256: None,
        tools_offered: 0,
        config_version: 0,
    }
}

#[test]
fn an_answer_names_its_request_whoever_was_faster_and_none_that_is_not_recorded() {
    let log = Fixture::new();
    let writer = log.open();
    writer.append(open_session(session(3)), None).expect("opens the session");
    let (heard, hears) = std::sync::mpsc::channel();
    let submit = |draft: Draft, part: CallPart| {
        let heard = heard.clone();
        writer
            .submit_then(draft, None, part, move |appended| heard.send(appended).expect("it listens"))
            .expect("taken");
    };
    // Both are handed over at once, as with an answer that comes before its request is durable.
    let place = RequestPlace::default();
    submit(call(3, request()), CallPart::Request(place.clone()));
    submit(call(3, answer("req-1")), CallPart::OfRequest(place));
    // There is no such session, so nothing is there to be answered.
    let nowhere = RequestPlace::default();
    submit(call(99, request()), CallPart::Request(nowhere.clone()));
    submit(call(3, answer("req-1")), CallPart::OfRequest(nowhere));
    writer.close().expect("closes");
    let (recorded, refused): (Vec<_>, Vec<_>) = hears.try_iter().partition(Result::is_ok);
    let [request, answer] = &recorded.into_iter().flatten().collect::<Vec<_>>()[..] else { panic!("two are recorded") };
    let Fields::LlmResponse(fields) = &answer.fields else { panic!("{answer:?}") };
    assert_eq!((fields.request_index, answer.index), (request.index, request.index + 1));
    assert!(matches!(&refused[..], [Err(AppendError::Build(_)), Err(AppendError::NoRequest)]), "{refused:?}");
    let (report, _) = log.verify(VerifyMode::Full);
    assert_eq!(codes(&report), <[&str; 0]>::default());
}

/// A clock that breaks when it is told to.
struct BreakingClock {
    ticking: Arc<TestClock>,
    broken: std::sync::atomic::AtomicBool,
}

impl amc_core::Clock for BreakingClock {
    fn now(&self) -> amc_core::Instant {
        assert!(!self.broken.load(std::sync::atomic::Ordering::SeqCst), "the clock broke");
        self.ticking.now()
    }
}

#[test]
fn whoever_waits_hears_of_a_commit_thread_that_panics() {
    let log = Fixture::new();
    let clock = Arc::new(BreakingClock { ticking: TestClock::new(), broken: false.into() });
    let writer = Writer::open(log.dir.path(), log.key.signers(), clock.clone()).expect("opens");
    writer.append(open_session(session(3)), None).expect("opens the session");
    clock.broken.store(true, std::sync::atomic::Ordering::SeqCst);
    let (heard, hears) = std::sync::mpsc::channel();
    let then = heard.clone();
    let (draft, bytes) = output(session(3), b"a piece");
    writer
        .submit_then(draft, bytes, CallPart::Apart, move |appended| then.send(appended).expect("it listens"))
        .expect("is taken");
    // One end of the channel stays here, as it does with a producer that waits for many.
    let appended = hears.recv_timeout(std::time::Duration::from_secs(20)).expect("it is said, not kept waiting for");
    assert!(matches!(appended, Err(AppendError::Closed)), "{appended:?}");
    drop(heard);
    let (draft, bytes) = output(session(3), b"another");
    assert!(matches!(writer.append(draft, bytes), Err(AppendError::Closed | AppendError::Stopped(_))));
}

#[test]
fn a_copy_on_a_read_only_mount_reads_and_verifies() {
    use std::os::unix::fs::PermissionsExt as _;
    let log = Fixture::new();
    let writer = log.open();
    write_session(&writer, 1, 10);
    writer.close().expect("closes");
    let copy = tempfile::tempdir().expect("a temporary directory");
    let target = copy.path().join("evidence");
    copy_dir(log.dir.path(), &target);
    let set_mode = |mode| {
        for dir in ["", "segments", "payloads", "tile"] {
            std::fs::set_permissions(target.join(dir), std::fs::Permissions::from_mode(mode)).expect("sets the mode");
        }
    };
    set_mode(0o500);
    let before: Vec<_> = std::fs::read_dir(&target).expect("lists").map(|entry| entry.expect("lists").path()).collect();
    let verifier = log.key.verifier();
    let report = verify(&target, &VerifyOptions::full(&verifier), &mut |_| {}).expect("verifies");
    assert!(report.is_good());
    assert_eq!(LogReader::open(&target).expect("opens").events(0).count() as u64, report.events);
    let after: Vec<_> = std::fs::read_dir(&target).expect("lists").map(|entry| entry.expect("lists").path()).collect();
    assert_eq!(before, after);
    set_mode(0o700);
}

/// A log as the first release wrote it. Nobody may ever change these files; with
/// `AMC_WRITE_FIXTURES` set, and the files gone, the test writes them anew.
#[test]
fn the_sealed_fixture_of_version_1_still_verifies() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/ledger/v1");
    let key = TestKey::new(0x42, "fixture/evidence");
    if std::env::var_os("AMC_WRITE_FIXTURES").is_some() && !dir.exists() {
        create(&dir, opened(&key), &key.signers(), &*TestClock::new()).expect("creates");
        let files = crate::storage::Files::on_disk(&dir);
        let writer = Writer::start(&files, super::hands(&key), None).expect("opens");
        write_session(&writer, 1, 300);
        writer.close().expect("closes");
        std::fs::remove_file(dir.join("lock")).expect("removes");
    }
    let verifier = key.verifier();
    let mut payloads = Vec::new();
    let reader = LogReader::open(&dir).expect("opens");
    let report = verify(&dir, &VerifyOptions::full(&verifier), &mut |record| {
        let stored = reader.event(record.event.index).expect("reads").expect("is there");
        if let Some(payload) = &record.event.payload {
            payloads.extend(reader.payload(payload, stored.payload_location).expect("reads"));
        }
    })
    .expect("verifies");
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert_eq!((report.events, report.sessions, payloads.len()), (304, 1, 300));
    assert!(payloads[299].starts_with(b"piece 1 299 text "));
    let root = "5e63bc21a4cae580fe1ffdb8066b3483f5929b2a51588df86229be1d3645be3b";
    assert_eq!(report.head.root.to_string(), root);
}

#[test]
fn a_log_that_grows_verifies_at_any_moment() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let log = Fixture::new();
    let writer = log.open();
    writer.append(open_session(session(1)), None).expect("opens the session");
    let done = AtomicBool::new(false);
    let sizes = std::thread::scope(|scope| {
        for producer in 0..4u8 {
            let (writer, done) = (&writer, &done);
            scope.spawn(move || {
                for at in 0u32.. {
                    if done.load(Ordering::SeqCst) {
                        break;
                    }
                    let (draft, bytes) = output(session(1), format!("{producer} {at}").as_bytes());
                    writer.append(draft, bytes).expect("appends");
                }
            });
        }
        let rounds = (0..25).map(|round| {
            let mode = if round % 5 == 0 { VerifyMode::Full } else { VerifyMode::Quick };
            let published = LogReader::open(log.dir.path()).expect("opens");
            let (report, _) = log.verify(mode);
            assert_eq!(codes(&report), Vec::<&str>::new(), "{:#?}", report.findings);
            assert!(report.events >= published.size(), "at least what was published before");
            let tree = published.tree().expect("reads");
            assert_eq!(root_at(&tree, published.size()).expect("reads"), published.checkpoint().root);
            assert_eq!(published.events(0).filter(Result::is_ok).count() as u64, published.size());
            report.events
        });
        let sizes: Vec<u64> = rounds.collect();
        done.store(true, Ordering::SeqCst);
        sizes
    });
    assert!(sizes.is_sorted() && sizes[0] < sizes[24], "it grew: {sizes:?}");
}

#[test]
fn the_key_changes_by_a_word_of_the_old_one() {
    let log = Fixture::new();
    let next = TestKey::new(2, ORIGIN);
    let writer = log.open();
    let stranger = TestKey::new(3, "other/evidence");
    assert!(matches!(writer.rotate(stranger.signers()), Err(AppendError::Sign(_))));
    write_session(&writer, 1, 3);
    let rotated = writer.rotate(next.signers()).expect("rotates");
    write_session(&writer, 2, 3);
    let again = writer.rotate(TestKey::new(4, ORIGIN).signers()).expect("rotates a second time");
    writer.close().expect("closes");

    let old = Writer::open(log.dir.path(), log.key.signers(), Arc::<TestClock>::clone(&log.clock));
    assert_eq!(old.err().and_then(|error| error.code()).map(|code| code.as_str()), Some("KEY_OUT_OF_VALIDITY"));
    let newest = TestKey::new(4, ORIGIN);
    let writer = Writer::open(log.dir.path(), newest.signers(), Arc::<TestClock>::clone(&log.clock)).expect("opens");
    write_session(&writer, 3, 3);
    writer.close().expect("closes");
    for mode in [VerifyMode::Full, VerifyMode::Quick] {
        let (report, _) = log.verify(mode);
        assert_eq!(codes(&report), Vec::<&str>::new(), "the first key is pinned: {:#?}", report.findings);
        let spans: Vec<u64> = report.keys.spans().iter().map(|(from, _)| *from).collect();
        assert_eq!(spans, [0, rotated.index + 1, again.index + 1]);
    }
}
