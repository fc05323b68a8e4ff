//! `cargo xtask bench scoring`: how long a score takes, and how much memory beside its events.
//!
//! Each measurement runs in a process of its own: it makes a log of the wanted size, every event
//! signed and verified, then scores it. Time is the best of three; memory is the peak while scoring
//! minus what the events take. Prints a table and writes `target/bench/scoring.json`.
//!
//! ```text
//! cargo xtask bench scoring [--events N]… [--traces]
//! ```
//!
//! `--traces` gives every call a trace line with its receipt, whose signature scoring verifies.

#![expect(dead_code, reason = "the world of the tests has more than the bench needs")]

#[path = "../tests/scoring/world.rs"]
mod world;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use amc_core::Tier;
use amc_core::kinds::*;
use world::{Call, World, line, shipped};

/// Days over which the events lie.
const DAYS: u64 = 14;
/// Scores of which the fastest counts.
const RUNS: usize = 3;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if args.first().is_some_and(|arg| arg == "measure") {
        let events = args.get(1).and_then(|count| count.parse().ok()).expect("the parent names the number");
        return measure(events, args.get(2).is_some_and(|mix| mix == "traces"));
    }
    let mut sizes = Vec::new();
    let mut mixes = vec!["calls"];
    let mut rest = args.into_iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "--traces" => mixes.push("traces"),
            "--events" => sizes.extend(rest.next().and_then(|count| count.parse::<u64>().ok())),
            _ => {
                eprintln!("`{arg}` is not known; --events N, --traces");
                std::process::exit(2);
            }
        }
    }
    if sizes.is_empty() {
        sizes = vec![10_000, 100_000, 1_000_000];
    }
    report(&sizes, &mixes);
}

fn report(sizes: &[u64], mixes: &[&str]) {
    println!("| mix | events | sessions | facts | seconds | events/s | events in memory | beside them |");
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    let mut rows = Vec::new();
    for mix in mixes {
        for size in sizes {
            let row = child(*size, mix);
            let number = |key: &str| row[key].as_u64().unwrap_or(0);
            let (events, micros) = (number("events"), number("micros").max(1));
            println!(
                "| {mix} | {events} | {} | {} | {}.{:03} | {} | {} MiB | {} MiB |",
                number("sessions"),
                number("facts"),
                micros / 1_000_000,
                micros / 1_000 % 1_000,
                events * 1_000_000 / micros,
                number("held_kib") / 1_024,
                number("beside_kib") / 1_024
            );
            rows.push(row);
        }
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench");
    let written = std::fs::create_dir_all(&target)
        .and_then(|()| std::fs::write(target.join("scoring.json"), format!("{:#}\n", serde_json::Value::from(rows))));
    if let Err(error) = written {
        eprintln!("cannot write {}: {error}", target.join("scoring.json").display());
    }
}

fn child(events: u64, mix: &str) -> serde_json::Value {
    let program = std::env::current_exe().expect("this program has a path");
    let output = Command::new(program).args(["measure", &events.to_string(), mix]).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a measurement is one JSON object")
}

fn measure(events: u64, traces: bool) {
    let world = filled(events, traces);
    let bank = shipped();
    let held_kib = status_kib("VmRSS");
    // From here on the peak is that of scoring.
    let reset = std::fs::write("/proc/self/clear_refs", "5").is_ok();
    let mut best = Duration::MAX;
    let mut report = None;
    for _ in 0..RUNS {
        let started = Instant::now();
        let made = world.score(&bank, DAYS + 2);
        best = best.min(started.elapsed());
        report = Some(made);
    }
    let report = report.expect("it ran");
    let beside_kib = if reset { status_kib("VmHWM").saturating_sub(held_kib) } else { 0 };
    let facts: u64 = report.facts.iter().map(|fact| fact.pass + fact.fail).sum();
    let row = serde_json::json!({
        "mix": if traces { "traces" } else { "calls" }, "events": world.evidence.events.len(),
        "sessions": report.sessions.len(), "facts": facts,
        "micros": u64::try_from(best.as_micros()).unwrap_or(u64::MAX), "held_kib": held_kib, "beside_kib": beside_kib,
    });
    println!("{row}");
}

/// A log of about so many events: sessions of some thousand events, evenly over the days.
fn filled(events: u64, traces: bool) -> World {
    let mut world = World::new();
    let bot = world.agent.clone();
    let per_day = events.div_ceil(DAYS);
    let calls = per_day.min(1_000) / if traces { 3 } else { 2 };
    for day in 1..=DAYS {
        world.next_day();
        while world.evidence.head().size < day * per_day {
            let session = world.open(&bot, SessionPurpose::Agent);
            for _ in 0..calls {
                let answer = world.call(&bot, session, &Call::default());
                if traces {
                    let shown = line(&world, TraceAbout::LlmResult, answer);
                    world.trace(&bot, session, vec![shown]);
                }
            }
            world.say(&bot, session, Tier::Observed, ProcessExit { code: Some(0), signal: None, duration_ms: 1 });
            world.seal(&bot, session, SessionOutcome::Sealed);
        }
        world.cosign();
    }
    world
}

/// A figure of this process, in KiB.
fn status_kib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|figure| figure.parse().ok()).unwrap_or(0)
}
