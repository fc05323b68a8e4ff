//! `cargo xtask fuzz [--seconds N] [--log] [TARGET]`: the fuzz targets, each for some seconds, from their seeds.
//!
//! libFuzzer looks for inputs that reach new code, so a nightly toolchain is needed; where there is none it is
//! installed. All targets are one binary. `--log` builds and runs only those of what a log is made of, in a third of
//! the time. What libFuzzer finds of interest stays under the target directory and is where the next run begins; seeds
//! are committed by hand.

use crate::workspace::{self, Workspace};
use crate::{Failure, process, tools};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A second each is enough to go through the seeds and many times around them; a night finds more.
const SECONDS: u32 = 2;
/// No target needs more for any input within its bounds.
const MEMORY_MB: u32 = 2048;
/// Longer for one input is a fault of its own.
const INPUT_SECONDS: u32 = 10;
/// What libFuzzer takes beside the time it is given, on a busy machine.
const GRACE_SECONDS: u64 = 120;

/// What has the compiler count which code an input reaches, in the form that libFuzzer reads.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=256";

/// Targets that need the log's crates alone; a test of the fuzz workspace holds the corpus against the targets.
const OF_LOGS: [&str; 10] =
    ["checkpoint", "envelope", "event", "policy", "proof", "receipt", "segment", "tile", "tlog_proof", "witness"];

struct Plan {
    seconds: u32,
    log_only: bool,
    target: Option<String>,
}

/// Fuzzes every target, or the one that is named.
///
/// # Errors
/// A target found a fault (the text names the input that shows it), does not build, or does not exist.
pub fn command(args: &[String]) -> Result<(), Failure> {
    let plan = plan(args)?;
    let workspace = Workspace::read(&workspace::root())?;
    let dir = workspace.root.join("fuzz");
    let mut targets = targets(&dir, plan.target.as_deref())?;
    if plan.log_only {
        targets.retain(|name| OF_LOGS.contains(&name.as_str()));
    }
    // The same versions as the product's; what the fuzz workspace adds is pinned in its manifest.
    fs::copy(workspace.root.join("Cargo.lock"), dir.join("Cargo.lock"))?;
    provide_nightly()?;
    let started = Instant::now();
    let built = build(&dir, plan.log_only)?;
    println!("built {} targets in {:.0} s", targets.len(), started.elapsed().as_secs_f64());
    let mut failed = Vec::new();
    for target in &targets {
        if let Err(failure) = fuzz(&dir, &built, target, plan.seconds) {
            println!("{failure}");
            failed.push(target.as_str());
        }
    }
    if failed.is_empty() {
        println!("{} targets, {} s each, no fault found", targets.len(), plan.seconds);
        return Ok(());
    }
    Err(Failure::new(format!("faults in {}; the inputs are under fuzz/artifacts/", failed.join(", "))))
}

/// Builds the binary with coverage. The targets hold no unsafe code, so what a sanitizer would find is not there, and
/// without one they run faster.
fn build(dir: &Path, log_only: bool) -> Result<PathBuf, Failure> {
    let host = host()?;
    let mut command = nightly(dir);
    command.args(["build", "--release", "--bin", "fuzz", "--target", &host, "--features", "libfuzzer"]);
    // A target directory of its own, so that neither build undoes the other.
    let target = dir.join(if log_only { "target/log" } else { "target/all" });
    command.args(if log_only { &["--no-default-features"][..] } else { &[] });
    command.arg("--target-dir").arg(&target).env("RUSTFLAGS", COVERAGE);
    process::pass_through(&mut command)?;
    Ok(target.join(host).join("release/fuzz"))
}

fn fuzz(dir: &Path, built: &Path, target: &str, seconds: u32) -> Result<(), Failure> {
    let temporary = dir.join("target/tmp");
    let grown = dir.join("target/corpus").join(target);
    let artifacts = dir.join("artifacts").join(target);
    for dir in [&temporary, &grown, &artifacts] {
        fs::create_dir_all(dir)?;
    }
    let mut command = Command::new(built);
    command.current_dir(dir).env("TMPDIR", &temporary).env("AMC_FUZZ_TARGET", target);
    // New inputs go to the first directory; the others are only read.
    command.arg(&grown).arg(dir.join("corpus").join(target));
    if target == "bundle" {
        command.arg(dir.join("../fixtures/bundle"));
    }
    command.arg(format!("-artifact_prefix={}/", artifacts.display())).arg("-print_final_stats=1");
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-rss_limit_mb={MEMORY_MB}")).arg(format!("-timeout={INPUT_SECONDS}"));
    let ended = process::capture(&mut command, Duration::from_secs(u64::from(seconds) + GRACE_SECONDS));
    // What a target writes is of no use after it.
    fs::remove_dir_all(&temporary)?;
    let ended = ended?;
    let executed = ended.stderr.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    println!("{target}: {} inputs", executed.unwrap_or("?").trim());
    ended.success().map(drop)
}

/// The names of the targets: the directories of `corpus/`.
fn targets(dir: &Path, named: Option<&str>) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir.join("corpus"))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    match named {
        None => Ok(names),
        Some(name) if names.iter().any(|own| own == name) => Ok(vec![name.to_owned()]),
        Some(name) => Err(Failure::new(format!("there is no fuzz target `{name}`; there are {}", names.join(", ")))),
    }
}

fn plan(args: &[String]) -> Result<Plan, Failure> {
    let mut plan = Plan { seconds: SECONDS, log_only: false, target: None };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--seconds" {
            let seconds = args.next().and_then(|number| number.parse().ok()).filter(|seconds| *seconds > 0);
            plan.seconds = seconds.ok_or_else(|| Failure::new("--seconds takes a whole number from 1 on"))?;
        } else if arg == "--log" {
            plan.log_only = true;
        } else if arg.starts_with('-') || plan.target.is_some() {
            return Err(Failure::new(format!("fuzz takes [--seconds N] [--log] [TARGET], not `{arg}`")));
        } else {
            plan.target = Some(arg.clone());
        }
    }
    Ok(plan)
}

/// Coverage is an unstable part of the compiler.
fn provide_nightly() -> Result<(), Failure> {
    if tools::answers(&["rustup", "run", "nightly", "cargo", "--version"]) {
        return Ok(());
    }
    println!("fuzz: installing the nightly toolchain");
    let mut install = Command::new("rustup");
    install.args(["toolchain", "install", "nightly", "--profile", "minimal"]);
    process::pass_through(&mut install)
        .map_err(|failure| failure.during("fuzzing needs a nightly toolchain (rustup toolchain install nightly)"))
}

/// The triple of this machine.
fn host() -> Result<String, Failure> {
    let mut rustc = Command::new("rustup");
    rustc.args(["run", "nightly", "rustc", "-vV"]);
    let text = process::capture(&mut rustc, Duration::from_secs(60))?.success()?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| Failure::new(format!("rustc names no host:\n{text}")))
}

/// `cargo` of the nightly toolchain, whatever the directory pins.
fn nightly(dir: &Path) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo"]).current_dir(dir);
    for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN", "CARGO_TARGET_DIR", "RUSTFLAGS"] {
        command.env_remove(name);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_call_is_read_strictly() {
        let all = plan(&[]).expect("all targets");
        assert_eq!((all.seconds, all.target), (SECONDS, None));
        let one = plan(&words("--seconds 60 event")).expect("one target");
        assert_eq!((one.seconds, one.log_only, one.target.as_deref()), (60, false, Some("event")));
        assert!(plan(&words("--log")).expect("the log's").log_only);
        for bad in ["--seconds", "--seconds 0", "--seconds x", "--second 1", "event tile"] {
            assert!(plan(&words(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_logs_targets_exist() {
        let all = targets(&workspace::root().join("fuzz"), None).expect("the directory is there");
        assert!(OF_LOGS.iter().all(|name| all.iter().any(|own| own == name)), "{all:?}");
    }

    #[test]
    fn a_target_that_does_not_exist_is_refused_with_the_list() {
        let dir = workspace::root().join("fuzz");
        assert!(targets(&dir, None).expect("the directory is there").iter().any(|name| name == "event"));
        let failure = targets(&dir, Some("evnt")).expect_err("no such target");
        assert!(failure.to_string().contains("event"), "{failure}");
    }
}
