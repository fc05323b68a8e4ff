//! `cargo xtask bench gateway [--seconds N] [--soak SECONDS]`: what the gateway adds to a call, beside the same calls
//! made directly and through nginx as a plain reverse proxy, in one run.
//!
//! 1 KiB goes in and 2 KiB come out of an upstream that does nothing else, over loopback. The gateway has a real
//! monitor, a real log and a lease; nginx keeps connections to the upstream open. `--soak` calls without a pause and
//! fails when memory grows.

mod load;
mod place;
mod upstream;

use std::time::Duration;

use load::{Load, Sample};
use place::{Place, Workspace};

/// Connections of the closed loops.
const CONNECTIONS: [usize; 3] = [1, 32, 256];
/// Memory that may come and go during a soak, in KiB.
const SOAK_GROWTH_KIB_MAX: u64 = 16 * 1024;
/// Memory of a monitor with full caches, in KiB.
const MONITOR_KIB_MAX: u64 = 256 * 1024;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["upstream"] => upstream::serve(),
        [] => compare(Duration::from_secs(5)),
        ["--seconds", seconds] => compare(Duration::from_secs(seconds.parse().expect("a number of seconds"))),
        ["--soak", seconds] => soak(Duration::from_secs(seconds.parse().expect("a number of seconds"))),
        _ => panic!("gateway takes --seconds N or --soak SECONDS, not {words:?}"),
    }
}

fn places(upstream: &upstream::Running) -> Vec<Place> {
    let mut places = vec![Place::direct(upstream.address)];
    match Place::nginx(upstream.address) {
        Some(nginx) => places.push(nginx),
        None => println!("SKIPPED: nginx: it is not installed"),
    }
    places.extend(
        ["eager", "durable"].map(|receipts| Place::gateway(Workspace::new(upstream.address, receipts), receipts)),
    );
    places
}

fn compare(each: Duration) {
    let upstream = upstream::Running::start();
    let places = places(&upstream);
    let litellm = Place::litellm(upstream.address);
    println!("\n| closed loop | connections | requests/s | p50 | p99 | added p50 | CPU per request | peak memory |");
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    let mut at_32 = Vec::new();
    for connections in CONNECTIONS {
        let mut direct_us = None;
        for place in &places {
            let sample = measured(place, connections, each, direct_us);
            direct_us.get_or_insert_with(|| sample.percentile_us(50));
            if connections == 32 {
                at_32.push(sample.per_second());
            }
        }
        if let Some(litellm) = &litellm {
            measured(litellm, connections, each, direct_us);
        }
    }
    drop(litellm);
    slow_disk(upstream.address, each);
    open_loop(&places, &at_32, each);
    streams(&places, each);
    large(&places);
}

/// Calls without a pause, and their line of the table; `direct_us` is the median without anything between.
fn measured(place: &Place, connections: usize, each: Duration, direct_us: Option<u64>) -> Sample {
    // Once to warm up: connections, caches, the log's first segment.
    Load::closed(place, connections, Duration::from_millis(500));
    let before = place.cpu();
    let sample = Load::closed(place, connections, each);
    let cpu_us = place.cpu().saturating_sub(before).as_micros() as f64 / sample.calls().max(1) as f64;
    let added = direct_us.map_or(0, |direct_us| sample.percentile_us(50).saturating_sub(direct_us));
    let (p50, p99) = (sample.percentile_us(50), sample.percentile_us(99));
    let memory = place.memory_kib().map_or(String::new(), |kib| format!("{} MiB", kib / 1024));
    println!(
        "| {} | {connections} | {:.0} | {p50} µs | {p99} µs | {added} µs | {cpu_us:.0} µs | {memory} |",
        place.name,
        sample.per_second()
    );
    sample
}

/// What group commit makes of a disk that gives 200 flushes a second.
fn slow_disk(upstream: std::net::SocketAddr, each: Duration) {
    let workspace = Workspace::on_slow_disk(upstream, "durable");
    let place = Place::gateway(workspace, "durable, 200 flushes/s");
    measured(&place, 256, each, None);
}

/// Calls at a fixed rate, half of what each place can do at 32 connections, counted from when they were due.
fn open_loop(places: &[Place], at_32: &[f64], each: Duration) {
    println!("\n| open loop, 32 connections | requests/s | p50 | p99 |\n|---|---:|---:|---:|");
    for (place, most) in places.iter().zip(at_32) {
        let sample = Load::open(place, 32, most / 2.0, each);
        let (p50, p99) = (sample.percentile_us(50), sample.percentile_us(99));
        println!("| {} | {:.0} | {p50} µs | {p99} µs |", place.name, sample.per_second());
    }
}

/// Streams one after the other, and eight that begin in the same moment.
fn streams(places: &[Place], each: Duration) {
    println!(
        "\n| streams of {} pieces | at a time | first byte p50 | first byte p99 | piece p50 | piece p99 |",
        upstream::PIECES
    );
    println!("|---|---:|---:|---:|---:|---:|");
    for at_a_time in [1, 8] {
        for place in places {
            let (first, pieces) = Load::streams(place, at_a_time, each);
            let [a, b] = [50, 99].map(|percent| first.percentile_us(percent));
            let [c, d] = [50, 99].map(|percent| pieces.percentile_us(percent));
            println!("| {} | {at_a_time} | {a} µs | {b} µs | {c} µs | {d} µs |", place.name);
        }
    }
}

fn large(places: &[Place]) {
    println!("\n| ten bodies of 50 MB at once | MB/s | peak memory |\n|---|---:|---:|");
    for place in places {
        let took = Load::large(place, 10, 50_000_000);
        let memory = place.memory_kib().map_or(String::new(), |kib| format!("{} MiB", kib / 1024));
        println!("| {} | {:.0} | {memory} |", place.name, 500.0 / took.as_secs_f64());
    }
}

/// Calls without a pause. The gateway's memory is flat from the first tenth of the time on; the monitor's ends at the size
/// of its caches, which a leak of its share of each call would leave behind within a minute.
fn soak(whole: Duration) {
    let upstream = upstream::Running::start();
    let place = Place::gateway(Workspace::new(upstream.address, "durable"), "durable");
    let (mut calls, mut resident) = (0, Vec::new());
    for _ in 0..10 {
        calls += Load::closed(&place, 64, whole / 10).calls();
        let (first, _) = Load::streams(&place, 8, Duration::from_millis(200));
        calls += first.calls();
        resident.push(place.resident_kib());
    }
    println!("{calls} calls\n\n| after | gateway | monitor |\n|---|---:|---:|");
    for (tenth, [gateway, monitor]) in resident.iter().enumerate() {
        println!("| {} % | {gateway} KiB | {monitor} KiB |", (tenth + 1) * 10);
    }
    let ([gateway, _], [gateway_late, monitor_late]) = (resident[0], resident[9]);
    assert!(calls > 0 && gateway_late <= gateway + SOAK_GROWTH_KIB_MAX, "the gateway's memory grows");
    assert!(monitor_late <= MONITOR_KIB_MAX, "the monitor's memory grows");
}
