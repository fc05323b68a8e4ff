//! Every defect is refused with its code, by us and by the independent verifier.
//!
//! `AMC_WRITE_DEFECTS=DIR` also writes them: `good/NAME.amcbundle`, `bad/CODE.NAME.amcbundle`,
//! `scorer-only/…` and `trust.policy`. `cargo xtask strangers` has other programs judge the same files.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use amc_bundle::archive::{ArchiveError, ArchiveReader};
use amc_bundle::manifest::Payloads;
use amc_core::FindingCode as Code;

use crate::defects::{Bench, write};
use crate::world::{Plan, World, refused, verify};

#[test]
fn every_defect_is_refused_with_its_code() {
    let bench = Bench::new();
    let policy = bench.world.keys.policy();
    for (name, bytes) in bench.good() {
        let verdict = verify(&bytes, &policy);
        assert!(verdict.is_good(), "{name}: {:?}", verdict.findings);
    }
    let defects = bench.bad();
    assert!(defects.len() > 50, "{}", defects.len());
    for defect in &defects {
        refused(defect.name, &defect.bytes, &policy, defect.code);
    }
    if let Some(dir) = std::env::var_os("AMC_WRITE_DEFECTS") {
        write(Path::new(&dir), &bench, &defects);
    }
}

/// Every length: the archive's reader, which stands before everything else, misses the end of each; and of
/// lengths all over the file the whole verification says so.
#[test]
fn every_truncation_of_a_small_bundle_is_refused() {
    let world = World::planned(Plan { sessions: 0, window_days: 1 });
    let bundle = world.export_with(Payloads::Withheld).0;
    let policy = world.keys.policy();
    assert!(verify(&bundle, &policy).is_good());
    for len in 0..bundle.len() {
        let mut archive = ArchiveReader::new(&bundle[..len]);
        let end = std::iter::from_fn(|| archive.next_member().transpose()).find_map(Result::err);
        assert!(matches!(end, Some(ArchiveError::Truncated { .. })), "{len} bytes: {end:?}");
    }
    for len in (0..bundle.len()).step_by(131) {
        let verdict = verify(&bundle[..len], &policy);
        assert_eq!(verdict.first_error().map(|error| error.code), Some(Code::BundleMalformed), "{len} bytes");
    }
}

/// The verifier in `tools/` judges the same files the same way; the score alone is beyond it.
#[test]
fn the_independent_verifier_agrees() {
    let python = std::env::var("AMC_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python).args(["-c", "import cryptography"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: the independent verifier: {python} has no cryptography (pip install cryptography)");
        return;
    }
    let dir = std::env::temp_dir().join(format!("amc-defects-{}", std::process::id()));
    let bench = Bench::new();
    write(&dir, &bench, &bench.bad());
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/verify-bundle.py");
    let judge = |file: &Path| {
        let started = Instant::now();
        let mut command = Command::new(&python);
        let output = command.arg(&tool).arg(file).arg(dir.join("trust.policy")).output().expect("python runs");
        assert!(started.elapsed() < Duration::from_secs(60), "{} took long", file.display());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let zstd = Command::new(&python).args(["-c", "import zstandard"]).output().expect("python runs").status.success();
    let files = |name: &str| std::fs::read_dir(dir.join(name)).expect("written").map(|entry| entry.expect("an entry"));
    for good in files("good").chain(files("scorer-only")) {
        let (code, said) = judge(&good.path());
        assert_eq!(code, Some(0), "{}: {said}", good.path().display());
    }
    for bad in files("bad") {
        let name = bad.file_name().to_string_lossy().into_owned();
        let (wanted, what) = name.split_once('.').expect("a code");
        if !zstd && (what.contains("payloads") || what.contains("bomb") || what.contains("window")) {
            continue;
        }
        let (code, said) = judge(&bad.path());
        assert_eq!(code, Some(1), "{name}: {said}");
        assert!(said.starts_with(wanted) || allowed_otherwise(what, &said), "{name}: {said}");
    }
    std::fs::remove_dir_all(&dir).expect("of this test alone");
}

/// Where two things are wrong at once, the two verifiers may name another first.
fn allowed_otherwise(what: &str, said: &str) -> bool {
    let others: &[(&str, &str)] = &[
        ("edited-report", "RUN_SEAL_INVALID"),
        ("stale-checkpoint", "CHECKPOINT_INVALID"),
        ("decompression-bomb", "PAYLOAD_"),
    ];
    others.iter().any(|(name, code)| what.starts_with(name) && said.starts_with(code))
}
