//! The measurements, each in a process of its own: the bench starts itself with `measure NAME`.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use amc_crypto::merkle::inclusion_proof;
use amc_ledger::{LogReader, VerifyMode, VerifyOptions};
use serde_json::{Value, json};

use crate::load::{self, Key, Until};
use crate::report::{latencies, peak_mib, per_second};

/// Proofs that are timed.
const PROOFS: u64 = 20_000;
/// Events in a window of a long run, to compare its beginning with its end.
const WINDOW_EVENTS: u64 = 100_000;

fn command(name: &str, args: &[String]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.args(["measure", name]).args(args);
    command
}

/// Runs a measurement in a child and gives what it measured.
pub(crate) fn in_child(name: &str, args: &[String]) -> Value {
    let output = command(name, args).stderr(Stdio::inherit()).output().expect("starts itself");
    assert!(output.status.success(), "the measurement `{name}` failed");
    serde_json::from_slice(&output.stdout).expect("a measurement prints JSON")
}

/// Has a child append under full load and kills it in the middle.
pub(crate) fn write_and_kill(dir: &Path) {
    let args = [crate::text(dir), "64".into(), "4".into(), "60".into()];
    let mut child = command("load", &args).stdout(Stdio::piped()).spawn().expect("starts itself");
    // It writes one byte when it begins to append.
    let mut ready = [0];
    child.stdout.take().expect("piped").read_exact(&mut ready).expect("says that it is ready");
    std::thread::sleep(Duration::from_secs(1));
    child.kill().expect("kills its own child");
    child.wait().expect("reaps its own child");
}

/// In the child: measures and prints.
pub(crate) fn child(args: &[String]) {
    let dir = Path::new(&args[1]);
    let at = |n: usize| args[n].parse::<f64>().expect("a number");
    let count = |n: usize| args[n].parse::<usize>().expect("a count");
    let mut measured = match args[0].as_str() {
        "append" => append(dir, count(2), count(3), Duration::from_secs_f64(at(4))),
        "build" => build(dir, args[2].parse().expect("a count")),
        "verify" => verify(dir, &args[2]),
        "open" => open(dir),
        "prove" => prove(dir),
        "load" => {
            let writer = load::open(dir);
            let session = load::open_session(&writer);
            println!();
            load::produce(&writer, session, count(2), count(3), Until::Time(Duration::from_secs_f64(at(4))));
            return;
        }
        other => panic!("there is no measurement `{other}`"),
    };
    measured["peak_mib"] = json!(peak_mib());
    println!("{measured}");
}

fn append(dir: &Path, producers: usize, in_flight: usize, time: Duration) -> Value {
    let writer = load::open(dir);
    let session = load::open_session(&writer);
    let begin = Instant::now();
    let took = load::produce(&writer, session, producers, in_flight, Until::Time(time));
    latencies(took, begin.elapsed())
}

/// Writes a log of so many events; says how fast it began and ended, and what the index weighs.
fn build(dir: &Path, events: u64) -> Value {
    let writer = load::open(dir);
    let session = load::open_session(&writer);
    let mut rates = Vec::new();
    let begin = Instant::now();
    let mut left = events.saturating_sub(5);
    while left > 0 {
        let count = left.min(WINDOW_EVENTS);
        let begun = Instant::now();
        load::produce(&writer, session, 64, 4, Until::Count(count));
        rates.push(per_second(count, begun.elapsed()));
        left -= count;
    }
    load::seal(&writer, session);
    let seconds = begin.elapsed().as_secs_f64();
    let size = writer.with_state(amc_evidence::LogState::size);
    let lag = size - writer.indexed().expect("has an index");
    let behind = Instant::now();
    writer.publish().expect("publishes");
    while writer.indexed().expect("has an index") < size {
        std::thread::sleep(Duration::from_millis(5));
    }
    let caught_up_s = behind.elapsed().as_secs_f64();
    writer.close().expect("closes");
    let mib = |part: &str| bytes_below(&dir.join(part)) as f64 / f64::from(1 << 20);
    json!({
        "events": size, "seconds": seconds, "first_rate": rates.first(), "last_rate": rates.last(),
        "index_lag_events": lag, "index_caught_up_s": caught_up_s, "index_mib": mib("index"),
        "segments_mib": mib("segments"), "payloads_mib": mib("payloads"), "tiles_mib": mib("tile"),
    })
}

fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

fn verify(dir: &Path, mode: &str) -> Value {
    let key = Key::new().verifier();
    let mode = if mode == "full" { VerifyMode::Full } else { VerifyMode::Quick };
    let options = VerifyOptions { mode, ..VerifyOptions::full(&key) };
    let begin = Instant::now();
    let report = amc_ledger::verify(dir, &options, &mut drop).expect("can be read");
    let elapsed = begin.elapsed();
    assert!(report.is_good(), "{:?}", report.findings);
    json!({ "rate": per_second(report.events, elapsed), "seconds": elapsed.as_secs_f64() })
}

fn open(dir: &Path) -> Value {
    let begin = Instant::now();
    let writer = load::open(dir);
    let ready_ms = begin.elapsed().as_secs_f64() * 1000.0;
    let begun = Instant::now();
    let session = load::open_session(&writer);
    let first_append_ms = begun.elapsed().as_secs_f64() * 1000.0;
    load::seal(&writer, session);
    let bytes_cut = writer.recovery().bytes_cut;
    let events = writer.with_state(amc_evidence::LogState::size);
    writer.close().expect("closes");
    json!({ "ready_ms": ready_ms, "first_append_ms": first_append_ms, "bytes_cut": bytes_cut, "events": events })
}

/// Inclusion proofs of events all over the log.
fn prove(dir: &Path) -> Value {
    let reader = LogReader::open(dir).expect("can be read");
    let begin = Instant::now();
    let tree = reader.tree().expect("has a tree");
    let tree_ms = begin.elapsed().as_secs_f64() * 1000.0;
    let (begin, mut took) = (Instant::now(), Vec::new());
    for n in 0..PROOFS {
        // A step that is prime to every size here leads all over the tree.
        let index = n.wrapping_mul(2_654_435_761) % reader.size();
        let begun = Instant::now();
        inclusion_proof(&tree, index, reader.size()).expect("proves");
        took.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    let mut measured = latencies(took, begin.elapsed());
    measured["tree_ms"] = json!(tree_ms);
    measured
}
