//! `cargo xtask bench ledger`: what the log does per second, each figure beside a baseline of the
//! same run on the same disk.
//!
//! Every measurement runs in a process of its own, whose peak memory is thus that of the
//! measurement. Samples are bounded by time. Prints a table and writes `target/bench/ledger.json`.
//!
//! ```text
//! cargo xtask bench ledger [--seconds N] [--long] [--only append|verify|open|prove] [--dir DIR]
//! ```

mod baseline;
mod load;
mod measure;
mod report;

use std::path::{Path, PathBuf};
use std::time::Duration;

use report::Report;
use serde_json::Value;

/// Producers, and appends that each has in flight.
const PRODUCERS: [(usize, usize); 3] = [(1, 1), (16, 1), (64, 4)];

/// What to do.
struct Plan {
    seconds: f64,
    long: bool,
    only: Option<String>,
    work: PathBuf,
}

impl Plan {
    fn wants(&self, part: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == part)
    }

    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if args.first().is_some_and(|arg| arg == "measure") {
        return measure::child(&args[1..]);
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench");
    let mut plan = Plan { seconds: 3.0, long: false, only: None, work: target.join("ledger-work") };
    let mut rest = args.into_iter();
    while let Some(arg) = rest.next() {
        let mut value = || rest.next().unwrap_or_else(|| stop(&format!("{arg} needs a value")));
        match arg.as_str() {
            "--long" => plan.long = true,
            "--seconds" => plan.seconds = value().parse().unwrap_or_else(|_| stop("--seconds needs a number")),
            "--only" => plan.only = Some(value()),
            "--dir" => plan.work = PathBuf::from(value()).join("amc-bench-ledger"),
            _ => stop(&format!("`{arg}` is not known; --seconds N, --long, --only PART, --dir DIR")),
        }
    }
    std::fs::create_dir_all(&plan.work).expect("creates its working directory");
    let mut report = Report::new();
    run(&plan, &mut report);
    std::fs::remove_dir_all(&plan.work).expect("removes its working directory");
    std::fs::create_dir_all(&target).expect("creates target/bench");
    report.write(&target.join("ledger.json"));
}

fn stop(why: &str) -> ! {
    eprintln!("bench ledger: {why}");
    std::process::exit(2)
}

fn run(plan: &Plan, report: &mut Report) {
    if plan.wants("append") {
        appends(plan, report);
    }
    let sizes: &[u64] = if plan.long { &[10_000, 100_000, 1_000_000] } else { &[10_000, 100_000] };
    for size in sizes.iter().copied() {
        if plan.wants("verify") || plan.wants("open") || plan.wants("prove") {
            of_size(plan, report, size);
        }
    }
}

/// Durable appends against raw flushes and SQLite, one after the other.
fn appends(plan: &Plan, report: &mut Report) {
    let flush = baseline::flushes(&plan.work, plan.time());
    report.rate("raw fdatasync of 1 KiB", "flushes/s", &flush);
    for rows in [1, 256] {
        if let Some(sqlite) = baseline::sqlite(&plan.work, plan.seconds, rows) {
            report.rate(&format!("SQLite, WAL, FULL, {rows} a commit"), "rows/s", &sqlite);
        }
    }
    for (producers, in_flight) in PRODUCERS {
        let dir = plan.work.join("append");
        let args = [text(&dir), producers.to_string(), in_flight.to_string(), plan.seconds.to_string()];
        let mut measured = measure::in_child("append", &args);
        measured["per_flush"] = Value::from(number(&measured, "rate") / number(&flush, "rate"));
        report.rate(&format!("append, {producers} producers, {in_flight} in flight each"), "events/s", &measured);
        remove(&dir);
    }
    // The disk changes by the hour, so the raw rate is taken again at the end.
    report.rate("raw fdatasync of 1 KiB, again", "flushes/s", &baseline::flushes(&plan.work, plan.time()));
}

/// Everything that depends on a log's size.
fn of_size(plan: &Plan, report: &mut Report, size: u64) {
    let dir = plan.work.join(format!("log-{size}"));
    let built = measure::in_child("build", &[text(&dir), size.to_string()]);
    report.values(&format!("{size} events: written"), &built);
    if plan.wants("verify") {
        let [batch, ours] = baseline::batches(plan.time().min(Duration::from_secs(2)));
        report.rate("Ed25519 in batches of 256, ed25519-dalek, all cores", "signatures/s", &batch);
        report.rate("Ed25519 in batches of 256, terms of a key together, all cores", "signatures/s", &ours);
        for mode in ["full", "quick"] {
            let mut measured = measure::in_child("verify", &[text(&dir), mode.to_owned()]);
            if mode == "full" {
                measured["of_batch"] = Value::from(number(&batch, "rate") / number(&measured, "rate"));
            }
            report.rate(&format!("{size} events: verify, {mode}"), "events/s", &measured);
        }
    }
    if plan.wants("prove") {
        report.values(&format!("{size} events: inclusion proof"), &measure::in_child("prove", &[text(&dir)]));
    }
    if plan.wants("open") {
        report.values(&format!("{size} events: open after a clean stop"), &measure::in_child("open", &[text(&dir)]));
        measure::write_and_kill(&dir);
        report.values(&format!("{size} events: open after a kill"), &measure::in_child("open", &[text(&dir)]));
    }
    remove(&dir);
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path of the workspace is text").to_owned()
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().expect("a measured number")
}

fn remove(dir: &Path) {
    std::fs::remove_dir_all(dir).expect("removes a log of its own");
}
