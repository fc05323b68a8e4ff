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

use amc_crypto::TrustPolicy;

/// The bound of the format's page.
const PEAK_KB_MAX: u64 = 100_000;
/// What an event of a session that is over may cost.
const EVENT_BYTES_MAX: u64 = 90;
/// Calls of the large session; two events each.
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
    fs::write(&file, busy::busy(CALLS, CALLS).export()).expect("a file");
    let (good, large_kb) = judged(&file);
    assert!(good && large_kb < PEAK_KB_MAX, "{CALLS} calls: {large_kb} kB, verified: {good}");
    println!("{CALLS} calls: {large_kb} kB");
    // What grows with the number of sessions is their lines in the report, and an event's hash, place and payload.
    let [few, many] = [1, 3].map(|times| {
        fs::write(&file, busy::busy(times * CALLS, 500).export()).expect("a file");
        judged(&file)
    });
    println!("in sessions of 500: {CALLS} calls {few:?} kB, three times as many {many:?} kB");
    let (events, grown_kb) = (u64::from(4 * CALLS), many.1.saturating_sub(few.1));
    assert!(few.0 && many.0 && grown_kb * 1000 < events * EVENT_BYTES_MAX, "{few:?} {many:?}");
    for defect in bench.bad() {
        fs::write(&file, &defect.bytes).expect("a file");
        let (good, peak_kb) = judged(&file);
        assert!(!good && peak_kb < PEAK_KB_MAX, "{}: {peak_kb} kB, verified: {good}", defect.name);
    }
    fs::remove_dir_all(&dir).expect("of this test alone");
}
