//! `cargo xtask bench bundle [EVENTS…]`: what a bundle costs to write, to verify and to keep.
//!
//! For each number of evidence events (10,000 and 100,000 unless said), half of them questions and half of them
//! answers with 1 KiB of text each, in sessions of a thousand and in one: export, verification in a process of its own with its peak of memory, and
//! sizes beside the raw evidence and beside a zstd-compressed tar of it.

#[path = "../tests/it/busy.rs"]
mod busy;
#[expect(dead_code, reason = "the tests use the rest of it")]
#[path = "../tests/it/logs.rs"]
mod logs;
#[expect(dead_code, reason = "the tests use the rest of it")]
#[path = "../tests/it/world.rs"]
mod world;

use std::fs::{self, File};
use std::io::{self, BufReader, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use amc_bundle::manifest::Payloads;
use amc_crypto::TrustPolicy;
use structured_zstd::encoding::{CompressionLevel, StreamingEncoder};

use world::World;

const SIZES: [u32; 2] = [10_000, 100_000];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [verb, bundle, policy] = arguments.as_slice()
        && verb == "verify"
    {
        return verify(Path::new(bundle), Path::new(policy));
    }
    let asked: Vec<u32> = arguments.iter().map(|text| text.parse().expect("a number of events")).collect();
    let sizes = if asked.is_empty() { SIZES.to_vec() } else { asked };
    let dir = std::env::temp_dir().join(format!("amc-bench-bundle-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a directory");
    for events in sizes {
        measure(&dir, events, 1_000);
        measure(&dir, events, events);
    }
    fs::remove_dir_all(&dir).expect("of this bench alone");
}

fn measure(dir: &Path, events: u32, per_session: u32) {
    let world = busy::busy(events / 2, per_session / 2);
    println!("{events} events with 1 KiB of payload each, in sessions of {per_session}");
    let started = Instant::now();
    let (bundle, summary) = world.export_with(Payloads::Included);
    println!("  export            {:>9.2} s", started.elapsed().as_secs_f64());
    let started = Instant::now();
    let (slim, _) = world.export_with(Payloads::Withheld);
    println!("  without payloads  {:>9.2} s", started.elapsed().as_secs_f64());
    let (raw, packed) = raw_sizes(&world);
    let (file, policy) = (dir.join("b.amcbundle"), dir.join("trust.policy"));
    fs::write(&policy, world.keys.policy_text()).expect("a file");
    for (name, bytes) in [("verify", &bundle), ("verify, withheld", &slim)] {
        fs::write(&file, bytes).expect("a file");
        let own = std::env::current_exe().expect("this program");
        let output = Command::new(own).arg("verify").arg(&file).arg(&policy).output().expect("it starts");
        print!("  {name:<18}{}", String::from_utf8_lossy(&output.stdout));
        io::stderr().write_all(&output.stderr).expect("a terminal");
    }
    let mb = |bytes: u64| bytes as f64 / 1e6;
    println!(
        "  raw evidence      {:>9.2} MB ({} events, {} payloads)",
        mb(raw),
        summary.evidence_events,
        summary.payloads
    );
    println!("  tar | zstd        {:>9.2} MB", mb(packed));
    println!("  bundle            {:>9.2} MB", mb(bundle.len() as u64));
    println!("  bundle, withheld  {:>9.2} MB", mb(slim.len() as u64));
}

/// In a process of its own: seconds and peak of memory.
fn verify(bundle: &Path, policy: &Path) {
    let policy = TrustPolicy::parse(&fs::read(policy).expect("there")).expect("a policy");
    let started = Instant::now();
    let file = BufReader::new(File::open(bundle).expect("there"));
    let verdict = amc_bundle::verify(file, &policy).expect("reads");
    assert!(verdict.is_good(), "{:?}", verdict.findings);
    let seconds = started.elapsed().as_secs_f64();
    let status = fs::read_to_string("/proc/self/status").expect("on Linux");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("?").trim();
    println!("{seconds:>9.2} s, peak {peak}");
}

/// Bytes of the events and payloads as they are, and of a tar of them through zstd at its default level.
fn raw_sizes(world: &World) -> (u64, u64) {
    let mut events = Vec::new();
    world.evidence.events.iter().for_each(|record| amc_bundle::records::write_event(&mut events, &record.signed));
    let raw = events.len() as u64 + world.evidence.payloads.values().map(|bytes| bytes.len() as u64).sum::<u64>();
    let encoder = StreamingEncoder::new(Counting(0), CompressionLevel::Default);
    let mut archive = tar::Builder::new(encoder);
    let payloads = world.evidence.payloads.iter().map(|(sha256, bytes)| (format!("payloads/{sha256}"), bytes));
    for (name, bytes) in [("events".to_owned(), &events)].into_iter().chain(payloads) {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append_data(&mut header, name, bytes.as_slice()).expect("into memory");
    }
    let encoder = archive.into_inner().expect("into memory");
    (raw, encoder.finish().expect("into memory").0)
}

struct Counting(u64);

impl io::Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
