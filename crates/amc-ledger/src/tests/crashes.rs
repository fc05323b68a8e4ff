//! Power lost, writes refused: at every operation of a log's life, on the simulated disk, and a
//! real process killed while it writes.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use amc_core::Digest;
use amc_core::kinds::Fields;
use amc_evidence::{Draft, Event};

use super::{ORIGIN, TestClock, TestKey, codes, hands, open_session, opened, output, seal, session};
use crate::engine::Engine;
use crate::payload::pack;
use crate::reader::LogReader;
use crate::storage::Files;
use crate::storage::sim::{Fault, Sim};
use crate::verify::verify_files;
use crate::writer::Writer;
use crate::{AppendError, VerifyOptions, VerifyReport, recovery};

/// Small enough that a short life has several segments.
const SEGMENT_BYTES: u64 = 6 << 10;

/// Seeds per operation; a soak sets `AMC_LEDGER_CRASH_SEEDS` to as many as there is time for.
fn seeds() -> u64 {
    std::env::var("AMC_LEDGER_CRASH_SEEDS").map_or(3, |text| text.parse().expect("a number of seeds"))
}

fn files(sim: &Sim) -> Files {
    Files::new(Arc::new(sim.clone()), Path::new("/sim"))
}

fn verify_sim(sim: &Sim, key: &TestKey) -> VerifyReport {
    let verifier = key.verifier();
    verify_files(&files(sim), &VerifyOptions::full(&verifier), &mut |_| {}).expect("reads")
}

/// Everything that was acknowledged, by index.
type Acknowledged = BTreeMap<u64, Digest>;

/// Flushes what was staged, as the commit thread does; what comes back is acknowledged.
fn commit(engine: &mut Engine, staged: &mut Vec<(u64, Digest)>, done: &mut Acknowledged) -> Result<(), String> {
    engine.flush().map_err(|error| error.to_string())?;
    done.extend(staged.drain(..));
    for tile in engine.take_tiles() {
        tile.write(engine.files()).map_err(|error| error.to_string())?;
    }
    engine.publish().map_err(|error| error.to_string())?;
    if engine.is_full() {
        engine.turn().map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// A writer's life: sessions with payloads, in flushes of one to four events. Ends at the first
/// error.
fn live(sim: &Sim, key: &Arc<TestKey>, first: u8, done: &mut Acknowledged) -> Result<(), String> {
    let files = files(sim);
    let (mut engine, _) = recovery::open(&files, hands(key)).map_err(|error| error.to_string())?;
    engine.set_segment_bytes(SEGMENT_BYTES);
    let mut staged = Vec::new();
    for number in first..first + 3 {
        let id = session(number);
        let pieces = (0..9u8).map(|at| output(id, &[number ^ at; 300]));
        let drafts = std::iter::once((open_session(id), None)).chain(pieces).chain([(seal(id), None)]);
        for (at, (draft, bytes)) in drafts.enumerate() {
            stage(&mut engine, draft, bytes, &mut staged)?;
            if at % usize::from(number % 4 + 1) == 0 {
                commit(&mut engine, &mut staged, done)?;
            }
        }
        commit(&mut engine, &mut staged, done)?;
    }
    Ok(())
}

fn stage(
    engine: &mut Engine,
    draft: Draft,
    bytes: Option<Vec<u8>>,
    staged: &mut Vec<(u64, Digest)>,
) -> Result<(), String> {
    let packed = pack(draft.payload.as_ref(), bytes).map_err(|error| error.to_string())?;
    let appended = engine.stage(draft, packed.as_ref()).map_err(|error| error.to_string())?;
    staged.push((appended.index, appended.hash));
    Ok(())
}

/// What a log holds: the event_hash at every index, and the bytes that recoveries cut.
fn contents(sim: &Sim) -> (Acknowledged, u64) {
    let reader = LogReader::over(&files(sim)).expect("opens");
    let mut cut = 0;
    let all = reader.events(0).map(|stored| {
        let stored = stored.expect("reads");
        if let (_, Some(Fields::LogRecovered(recovered))) = Event::decode(&stored.signed.body).expect("decodes") {
            cut += recovered.bytes_cut;
        }
        (stored.index, stored.signed.event_hash())
    });
    (all.collect(), cut)
}

fn fresh(seed: u64, key: &Arc<TestKey>) -> Sim {
    let sim = Sim::new(seed);
    recovery::create(&files(&sim), opened(key), hands(key)).expect("creates");
    sim
}

/// After a crash: opens, holds everything acknowledged, verifies, and goes on.
fn survives(disk: &Sim, key: &Arc<TestKey>, done: &Acknowledged, what: &str) {
    let (engine, found) =
        recovery::open(&files(disk), hands(key)).unwrap_or_else(|error| panic!("{what}: {error}\n  {}", disk.trace()));
    drop(engine);
    let (all, cut) = contents(disk);
    assert!(done.iter().all(|(index, hash)| all.get(index) == Some(hash)), "{what}: something acknowledged is gone");
    assert!(cut >= found.bytes_cut, "{what}: what was cut is recorded");
    let report = verify_sim(disk, key);
    assert_eq!(codes(&report), Vec::<&str>::new(), "{what}: {:#?}", report.findings);
    assert!(report.open_sessions.is_empty(), "{what}: sessions left open are sealed");
}

#[test]
fn power_lost_at_every_operation() {
    let key = TestKey::new(1, ORIGIN);
    let whole = fresh(1, &key);
    live(&whole, &key, 1, &mut Acknowledged::new()).expect("nothing fails");
    let segments = files(&whole).names("segments").expect("lists").len();
    assert!(segments >= 3, "a life has several segments, and this one {segments}");
    let operations = whole.changes();
    let mut cut = 0;
    for number in 0..operations {
        for seed in (0..seeds()).map(|round| number + round * 77_777) {
            let sim = fresh(seed, &key);
            sim.fault_at(number, Fault::Crash);
            let mut done = Acknowledged::new();
            let ended = live(&sim, &key, 1, &mut done);
            if !sim.is_down() {
                assert_eq!(ended, Ok(()));
                continue;
            }
            let what = format!("operation {number}, seed {seed}");
            let disk = sim.reboot(seed);
            survives(&disk, &key, &done, &what);
            cut += u64::from(contents(&disk).1 > 0);
        }
    }
    assert!(cut > 10, "crashes leave unfinished flushes often enough to be a test: {cut}");
}

#[test]
fn power_lost_while_a_crash_is_mended() {
    let key = TestKey::new(1, ORIGIN);
    for seed in 0..20 * seeds() {
        let sim = fresh(seed, &key);
        sim.fault_at(20 + seed % 97, Fault::Crash);
        let mut done = Acknowledged::new();
        if live(&sim, &key, 1, &mut done).is_ok() {
            continue;
        }
        let mut disk = sim.reboot(seed);
        // The second crash strikes each operation of the recovery.
        for number in 0.. {
            let again = disk.copy();
            again.fault_at(number, Fault::Crash);
            let ended = recovery::open(&files(&again), hands(&key)).map(|_| ());
            if ended.is_ok() && !again.is_down() {
                again.clear_fault();
                disk = again;
                break;
            }
            survives(&again.reboot(seed * 1000 + number), &key, &done, &format!("seed {seed}, recovery {number}"));
        }
        live(&disk, &key, 10, &mut done).expect("goes on");
        survives(&disk, &key, &done, &format!("seed {seed}, after it went on"));
    }
}

#[test]
fn power_lost_while_a_log_is_created() {
    let key = TestKey::new(1, ORIGIN);
    for number in 0..12 {
        for seed in 0..3 * seeds() {
            let sim = Sim::new(seed);
            sim.fault_at(number, Fault::Crash);
            let created = recovery::create(&files(&sim), opened(&key), hands(&key));
            let disk = sim.reboot(seed + number * 31);
            match recovery::open(&files(&disk), hands(&key)) {
                Ok(_) => assert_eq!(codes(&verify_sim(&disk, &key)), Vec::<&str>::new()),
                Err(crate::OpenError::Absent(_)) => {
                    assert!(created.is_err(), "a log that was created is there");
                    recovery::create(&files(&disk), opened(&key), hands(&key)).expect("can be created after all");
                }
                Err(error) => panic!("operation {number}, seed {seed}: {error}"),
            }
        }
    }
}

#[test]
fn a_flush_that_a_kill_left_half_written() {
    // The kernel takes a large write in several steps, and a kill ends it between any two: what was there before stays,
    // what came after is a piece from the front.
    let key = TestKey::new(1, ORIGIN);
    let home = tempfile::tempdir().expect("a temporary directory");
    let on_disk = Files::on_disk(home.path());
    recovery::create(&on_disk, opened(&key), hands(&key)).expect("creates");
    let segment = home.path().join("segments/00000000000000000000.seg");
    let (mut engine, _) = recovery::open(&on_disk, hands(&key)).expect("opens");
    let (mut staged, mut done) = (Vec::new(), Acknowledged::new());
    let id = session(1);
    stage(&mut engine, open_session(id), None, &mut staged).expect("stages");
    commit(&mut engine, &mut staged, &mut done).expect("flushes");
    let before = std::fs::metadata(&segment).expect("is there").len();
    let published = std::fs::read(home.path().join("checkpoint")).expect("is there");
    for at in 0..12u8 {
        let (draft, bytes) = output(id, &[at; 300]);
        stage(&mut engine, draft, bytes, &mut staged).expect("stages");
    }
    engine.flush().expect("flushes");
    drop(engine);
    let files = ["segments/00000000000000000000.seg", "payloads/00000000.pack"].map(|name| home.path().join(name));
    let [whole, pack] = files.each_ref().map(|path| std::fs::read(path).expect("reads"));
    let before = usize::try_from(before).expect("small");
    for end in (before..whole.len()).step_by(11) {
        std::fs::write(&segment, &whole[..end]).expect("writes");
        std::fs::write(&files[1], &pack).expect("writes");
        std::fs::write(home.path().join("checkpoint"), &published).expect("writes");
        let (engine, found) = recovery::open(&on_disk, hands(&key)).unwrap_or_else(|error| panic!("{end}: {error}"));
        drop(engine);
        assert_eq!(found.bytes_cut, (end - before) as u64, "{end}");
        let verifier = key.verifier();
        let report = verify_files(&on_disk, &VerifyOptions::full(&verifier), &mut |_| {}).expect("reads");
        assert_eq!(codes(&report), Vec::<&str>::new(), "{end}: {:#?}", report.findings);
        let reader = LogReader::over(&on_disk).expect("opens");
        let held = |index: &u64| reader.event(*index).expect("reads").expect("is there").signed.event_hash();
        assert!(done.iter().all(|(index, hash)| held(index) == *hash), "{end}: something acknowledged is gone");
    }
}

#[test]
fn every_operation_refused_in_turn() {
    let key = TestKey::new(1, ORIGIN);
    let whole = fresh(1, &key);
    live(&whole, &key, 1, &mut Acknowledged::new()).expect("nothing fails");
    for number in 0..whole.changes() {
        let kind = if number % 2 == 0 { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
        let sim = fresh(number, &key);
        let before = sim.changes();
        sim.fault_at(number, Fault::Fail(kind));
        let mut done = Acknowledged::new();
        let ended = live(&sim, &key, 1, &mut done);
        if sim.changes() - before <= number {
            continue;
        }
        assert!(ended.is_err(), "operation {number} failed and somebody heard of it");
        assert_eq!(sim.changes() - before, number + 1, "nothing is tried after a failure");
        sim.clear_fault();
        survives(&sim.reboot(number), &key, &done, &format!("operation {number} refused"));
    }
}

#[test]
fn a_failed_flush_ends_the_writer() {
    let key = TestKey::new(1, ORIGIN);
    let sim = fresh(3, &key);
    let writer = Writer::start(&files(&sim), hands(&key), None).expect("opens");
    let kept = writer.append(open_session(session(1)), None).expect("appends");
    writer.publish().expect("publishes");
    let (stopped, told) = std::sync::mpsc::channel();
    writer.on_stop(move || stopped.send(()).expect("the test waits"));
    sim.fault_at(1, Fault::Fail(io::ErrorKind::StorageFull));
    let first = writer.append(seal(session(1)), None).expect_err("the disk is full");
    told.recv_timeout(Duration::from_secs(60)).expect("who asked for it is told");
    sim.clear_fault();
    let second = writer.append(seal(session(1)), None).expect_err("the writer has ended");
    assert_eq!(first, second, "every later call says why");
    assert!(matches!(first, AppendError::Stopped(why) if why.contains("segments/")));
    assert!(matches!(writer.publish(), Err(AppendError::Stopped(_))));
    assert!(matches!(writer.close(), Err(AppendError::Stopped(_))));
    survives(&sim.reboot(3), &key, &BTreeMap::from([(kept.index, kept.hash)]), "after the failure");
}

#[test]
fn producers_that_wait_hear_of_a_crash() {
    let key = TestKey::new(1, ORIGIN);
    for seed in 0..20 {
        let sim = fresh(seed, &key);
        let writer = Writer::start(&files(&sim), hands(&key), None).expect("opens");
        writer.append(open_session(session(1)), None).expect("appends");
        writer.publish().expect("publishes");
        sim.fault_at(10 + seed, Fault::Crash);
        let done: Acknowledged = std::thread::scope(|scope| {
            let producers: Vec<_> = (0..4u8)
                .map(|producer| {
                    let writer = &writer;
                    scope.spawn(move || {
                        let appends = (0..30u8).map_while(|at| {
                            let (draft, bytes) = output(session(1), &[producer, at]);
                            writer.append(draft, bytes).ok().map(|appended| (appended.index, appended.hash))
                        });
                        appends.collect::<Vec<_>>()
                    })
                })
                .collect();
            producers.into_iter().flat_map(|producer| producer.join().expect("ends")).collect()
        });
        assert!(writer.close().is_err(), "power was lost");
        survives(&sim.reboot(seed), &key, &done, &format!("seed {seed}"));
    }
}

#[test]
fn a_full_disk_still_takes_the_record_of_the_loss() {
    let key = TestKey::new(1, ORIGIN);
    let sim = fresh(5, &key);
    let writer = Writer::start(&files(&sim), hands(&key), None).expect("opens");
    let mut done = Acknowledged::new();
    let opening = writer.append(open_session(session(1)), None).expect("appends");
    done.insert(opening.index, opening.hash);
    writer.publish().expect("publishes");
    sim.set_capacity(sim.used() + 4096);
    let refused = (0..200u8).find_map(|at| {
        let (draft, bytes) = output(session(1), &[at, 1, 2]);
        match writer.append(draft, bytes) {
            Ok(appended) => {
                done.insert(appended.index, appended.hash);
                None
            }
            Err(error) => Some(error),
        }
    });
    assert!(matches!(refused, Some(AppendError::Stopped(_))), "the disk gets full: {refused:?}");
    drop(writer);
    sim.set_capacity(sim.used());
    assert!(recovery::open(&files(&sim), hands(&key)).is_err(), "nothing more can be published on this disk");
    let report = verify_sim(&sim, &key);
    assert_eq!(codes(&report), Vec::<&str>::new());
    assert!(report.open_sessions.is_empty(), "that the session broke off is on the disk");
    sim.set_capacity(usize::MAX);
    survives(&sim, &key, &done, "with room again");
}

/// Set for the process that a test starts to be killed.
const VICTIM: &str = "AMC_LEDGER_TEST_VICTIM";

/// Not a test of its own: the process that [`a_killed_writer_loses_nothing_acknowledged`] kills.
#[test]
fn victim() {
    use std::io::Write as _;
    let Some(dir) = std::env::var_os(VICTIM) else { return };
    let key = TestKey::new(1, ORIGIN);
    let writer = Writer::open(Path::new(&dir), key.signers(), TestClock::new()).expect("opens");
    let id = session(u8::try_from(writer.with_state(amc_evidence::LogState::size) % 251).expect("below 256"));
    writer.append(open_session(id), None).expect("opens a session");
    let acknowledged = std::fs::OpenOptions::new().append(true).open(Path::new(&dir).with_extension("acknowledged"));
    let acknowledged = std::sync::Mutex::new(acknowledged.expect("opens"));
    std::thread::scope(|scope| {
        for producer in 0..4u8 {
            let (writer, acknowledged) = (&writer, &acknowledged);
            scope.spawn(move || {
                for at in 0u32.. {
                    let (draft, bytes) = output(id, format!("{producer} {at} {}", "x".repeat(200)).as_bytes());
                    let appended = writer.append(draft, bytes).expect("appends");
                    let line = format!("{} {}\n", appended.index, appended.hash);
                    acknowledged.lock().expect("not poisoned").write_all(line.as_bytes()).expect("writes");
                }
            });
        }
    });
}

#[test]
fn a_killed_writer_loses_nothing_acknowledged() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let dir = home.path().join("evidence");
    let log = home.path().join("evidence.acknowledged");
    std::fs::write(&log, "").expect("writes");
    let key = TestKey::new(1, ORIGIN);
    crate::create(&dir, opened(&key), &key.signers(), &*TestClock::new()).expect("creates");
    let lines = || std::fs::read_to_string(&log).expect("reads").matches('\n').count();
    for round in 1..=4 {
        let mut child = std::process::Command::new(std::env::current_exe().expect("has a path"))
            .args(["--exact", "tests::crashes::victim", "--nocapture", "--test-threads=1"])
            .env(VICTIM, &dir)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("starts");
        let before = lines();
        while lines() < before + 40 * round {
            assert_eq!(child.try_wait().expect("can be asked"), None, "the victim writes until it is killed");
            std::thread::yield_now();
        }
        child.kill().expect("kills");
        child.wait().expect("ends");
    }
    let writer = Writer::open(&dir, key.signers(), TestClock::new()).expect("opens after the last kill");
    assert_eq!(writer.recovery().sessions.len(), 1);
    writer.close().expect("closes");
    let all: BTreeMap<u64, Digest> = LogReader::open(&dir)
        .expect("opens")
        .events(0)
        .map(|stored| stored.map(|stored| (stored.index, stored.signed.event_hash())).expect("reads"))
        .collect();
    let acknowledged = std::fs::read_to_string(&log).expect("reads");
    let (whole, _) = acknowledged.rsplit_once('\n').expect("has lines");
    for line in whole.lines() {
        let (index, hash) = line.split_once(' ').expect("two words");
        let index: u64 = index.parse().expect("a number");
        assert_eq!(all.get(&index).map(Digest::to_string).as_deref(), Some(hash), "event {index}");
    }
    let verifier = key.verifier();
    let report = crate::verify(&dir, &VerifyOptions::full(&verifier), &mut |_| {}).expect("verifies");
    assert_eq!(codes(&report), Vec::<&str>::new());
}
