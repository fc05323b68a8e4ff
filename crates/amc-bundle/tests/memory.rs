//! What verifying takes: no bundle, good or bad, small or large, brings a process to 100 MB.
//!
//! Each is verified in a process of its own, which says its peak at the end. It is this very program, told by
//! a variable.

#[path = "it/busy.rs"]
mod busy;
#[expect(dead_code, reason = "the other tests use the rest of it")]
#[path = "it/logs.rs"]
mod logs;
#[expect(dead_code, reason = "the other tests use the rest of it")]
#[path = "it/world.rs"]
mod world;

#[expect(dead_code, reason = "the other tests use the rest of it")]
#[path = "it/defects.rs"]
mod defects;

use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;
use std::process::Command;

use amc_bundle::records::EVENTS_MAX;
use amc_crypto::TrustPolicy;

/// The bound of the format's page.
const PEAK_KB_MAX: u64 = 100_000;
/// Calls of the smaller bundle; two events each.
const CALLS: u32 = 10_000;
const VARIABLE: &str = "AMC_VERIFY_AND_TELL";

/// In the child: verifies the file and prints its verdict and the process's peak.
#[test]
fn child() {
    let Some(file) = std::env::var_os(VARIABLE) else { return };
    let path = Path::new(&file);
    let policy = fs::read(path.with_file_name("trust.policy")).expect("beside it");
    let policy = TrustPolicy::parse(&policy).expect("a policy");
    let verdict = amc_bundle::verify(BufReader::new(File::open(path).expect("there")), &policy).expect("reads");
    let status = fs::read_to_string("/proc/self/status").expect("on Linux");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel counts it");
    println!("\nPEAK {} {}", verdict.is_good(), peak.trim().trim_end_matches(" kB"));
}

/// Whether it verifies, and the peak of a process that found out, in kB.
fn judged(file: &Path) -> (bool, u64) {
    let own = std::env::current_exe().expect("this program");
    let output = Command::new(own).args(["--exact", "child", "--nocapture"]).env(VARIABLE, file).output();
    let output = output.expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("PEAK "));
    let (good, peak) = line.and_then(|line| line.split_once(' ')).unwrap_or_else(|| panic!("{output:?}"));
    (good == "true", peak.parse().expect("a number"))
}

#[test]
fn no_bundle_brings_a_verifier_to_100_mb() {
    let dir = std::env::temp_dir().join(format!("amc-memory-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a directory");
    let bench = defects::Bench::new();
    fs::write(dir.join("trust.policy"), bench.world.keys.policy_text()).expect("a file");
    let file = dir.join("file.amcbundle");
    // What grows with the number of events is their hashes, places and payloads, and in a session that is open its calls.
    // Measured here, it has to fit the largest bundle that a reader takes.
    for (what, in_session) in [("one session", u32::MAX), ("sessions of 500 calls", 500)] {
        let [few, many] = [CALLS, 4 * CALLS].map(|calls| {
            fs::write(&file, busy::busy(calls, in_session.min(calls)).export()).expect("a file");
            let (good, peak_kb) = judged(&file);
            assert!(good && peak_kb < PEAK_KB_MAX, "{calls} calls in {what}: {peak_kb} kB, verified: {good}");
            peak_kb
        });
        let per_event = many.saturating_sub(few) * 1000 / u64::from(2 * 3 * CALLS);
        let largest_kb = many + per_event * (EVENTS_MAX as u64 - u64::from(2 * 4 * CALLS)) / 1000;
        println!(
            "{what}: {few} kB, four times as many calls {many} kB, {per_event} bytes an event; most {largest_kb} kB"
        );
        assert!(largest_kb < PEAK_KB_MAX, "{what}: {few} kB, {many} kB, {largest_kb} kB");
    }
    for defect in bench.bad() {
        fs::write(&file, &defect.bytes).expect("a file");
        let (good, peak_kb) = judged(&file);
        assert!(!good && peak_kb < PEAK_KB_MAX, "{}: {peak_kb} kB, verified: {good}", defect.name);
    }
    fs::remove_dir_all(&dir).expect("of this test alone");
}
