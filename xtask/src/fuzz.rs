//! `cargo xtask fuzz [--seconds N] [TARGET]`: the fuzz targets, each for some seconds, from their seeds.
//!
//! With a nightly toolchain and cargo-fuzz (installed by pinned version when it is missing) libFuzzer looks for inputs
//! that reach new code. Without a nightly toolchain the same functions run over the seeds and fixed mutations of them,
//! and the text says that this is all that was done. What libFuzzer finds of interest stays under the target directory
//! and is where the next run begins; seeds are committed by hand.

use crate::workspace::{self, Workspace};
use crate::{Failure, process, tools};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The version of cargo-fuzz that the targets are built with.
const CARGO_FUZZ: &str = "0.13.2";
/// A second each is enough to go through the seeds and many times around them; a night finds more.
const SECONDS: u32 = 2;
/// No target needs more for any input within its bounds.
const MEMORY_MB: u32 = 2048;
/// Longer for one input is a fault of its own.
const INPUT_SECONDS: u32 = 10;
/// What libFuzzer takes beside the time it is given, on a busy machine.
const GRACE_SECONDS: u64 = 120;

struct Plan {
    seconds: u32,
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
    let targets = targets(&dir, plan.target.as_deref())?;
    // The same versions as the product's; what the fuzz workspace adds is pinned in its manifest.
    fs::copy(workspace.root.join("Cargo.lock"), dir.join("Cargo.lock"))?;
    if !tools::answers(&["rustup", "run", "nightly", "cargo", "--version"]) {
        println!("SKIPPED: fuzz: no nightly toolchain (rustup toolchain install nightly); seeds and mutations only");
        return process::pass_through(workspace::cargo(&dir).args(["test", "--lib", "--quiet"]));
    }
    provide_cargo_fuzz(&workspace.root)?;
    let started = Instant::now();
    // The targets hold no unsafe code, so what a sanitizer would find is not there, and without one they run faster.
    process::pass_through(nightly(&dir).args(["fuzz", "build"]).args(FLAGS))?;
    println!("built {} targets in {:.0} s", targets.len(), started.elapsed().as_secs_f64());
    let built = dir.join("target").join(host()?).join("release");
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

const FLAGS: [&str; 4] = ["--sanitizer", "none", "--features", "libfuzzer"];

fn fuzz(dir: &Path, built: &Path, target: &str, seconds: u32) -> Result<(), Failure> {
    let temporary = dir.join("target/tmp");
    let grown = dir.join("target/corpus").join(target);
    let artifacts = dir.join("artifacts").join(target);
    for dir in [&temporary, &grown, &artifacts] {
        fs::create_dir_all(dir)?;
    }
    let mut command = Command::new(built.join(target));
    command.current_dir(dir).env("TMPDIR", &temporary);
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

/// The names of the targets: the files of `fuzz_targets/`.
fn targets(dir: &Path, named: Option<&str>) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir.join("fuzz_targets"))? {
        let path: PathBuf = entry?.path();
        names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    match named {
        None => Ok(names),
        Some(name) if names.iter().any(|own| own == name) => Ok(vec![name.to_owned()]),
        Some(name) => Err(Failure::new(format!("there is no fuzz target `{name}`; there are {}", names.join(", ")))),
    }
}

fn plan(args: &[String]) -> Result<Plan, Failure> {
    let mut plan = Plan { seconds: SECONDS, target: None };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--seconds" {
            let seconds = args.next().and_then(|number| number.parse().ok()).filter(|seconds| *seconds > 0);
            plan.seconds = seconds.ok_or_else(|| Failure::new("--seconds takes a whole number from 1 on"))?;
        } else if arg.starts_with('-') || plan.target.is_some() {
            return Err(Failure::new(format!("fuzz takes [--seconds N] [TARGET], not `{arg}`")));
        } else {
            plan.target = Some(arg.clone());
        }
    }
    Ok(plan)
}

fn provide_cargo_fuzz(root: &Path) -> Result<(), Failure> {
    if tools::answers(&["cargo-fuzz", "--version"]) {
        return Ok(());
    }
    println!("cargo-fuzz: installing {CARGO_FUZZ}");
    let mut install = workspace::cargo(root);
    process::pass_through(install.args(["install", "cargo-fuzz", "--locked", "--version", CARGO_FUZZ]))
}

/// The triple that cargo-fuzz builds for.
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
        assert_eq!((one.seconds, one.target.as_deref()), (60, Some("event")));
        for bad in ["--seconds", "--seconds 0", "--seconds x", "--second 1", "event tile"] {
            assert!(plan(&words(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_target_that_does_not_exist_is_refused_with_the_list() {
        let dir = workspace::root().join("fuzz");
        assert!(targets(&dir, None).expect("the directory is there").iter().any(|name| name == "event"));
        let failure = targets(&dir, Some("evnt")).expect_err("no such target");
        assert!(failure.to_string().contains("event"), "{failure}");
    }
}
