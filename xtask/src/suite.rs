//! `cargo xtask test`: every test that needs no special machine, then the documentation's examples.
//!
//! Binaries are built first, because end-to-end tests run them from the target directory. nextest runs the tests where
//! it is installed; no test may depend on its one process per test.

use crate::workspace::{self, Workspace, cargo};
use crate::{Failure, junit, process};
use std::fs;
use std::time::Duration;

/// Builds, tests, and reports what was skipped and why.
///
/// # Errors
/// A build or a test failed.
pub fn command(args: &[String]) -> Result<(), Failure> {
    if let Some(unknown) = args.first() {
        return Err(Failure::new(format!("test takes no argument, not `{unknown}`; `cargo test` runs single tests")));
    }
    let workspace = Workspace::read(&workspace::root())?;
    process::pass_through(cargo(&workspace.root).args(["build", "--workspace", "--bins", "--locked"]))?;
    // Both run even when the first fails: one look at the output shows everything.
    let tests = if nextest_is_installed(&workspace) { nextest(&workspace) } else { plain(&workspace) };
    let examples =
        process::pass_through(cargo(&workspace.root).args(["test", "--workspace", "--doc", "--locked", "--quiet"]));
    tests.and(examples)
}

fn nextest_is_installed(workspace: &Workspace) -> bool {
    let asked = process::capture(cargo(&workspace.root).args(["nextest", "--version"]), Duration::from_secs(60));
    asked.is_ok_and(|answer| answer.status.success())
}

fn nextest(workspace: &Workspace) -> Result<(), Failure> {
    let report = workspace.target.join("nextest/default/junit.xml");
    // An old report must not speak for a run that never began.
    if report.exists() {
        fs::remove_file(&report)?;
    }
    // Built apart, so that a build that fails is said at once and no report is looked for.
    let mut build = cargo(&workspace.root);
    build.args(["nextest", "run", "--workspace", "--locked", "--no-run"]);
    process::pass_through(&mut build)?;
    let mut command = cargo(&workspace.root);
    command.args(["nextest", "run", "--workspace", "--locked", "--no-fail-fast", "--status-level", "fail"]);
    let outcome = process::pass_through(&mut command);
    let text = match fs::read_to_string(&report) {
        Ok(text) => text,
        Err(error) => return outcome.and(Err(Failure::from(error).during(&report.display().to_string()))),
    };
    let summary = junit::read(&text)?;
    println!("tests: {} run, {} failed", summary.tests, summary.failed);
    print_skipped(&summary.skipped);
    outcome
}

/// Without nextest: libtest's own runner, told to show what passing tests print, of which only skip lines are kept.
fn plain(workspace: &Workspace) -> Result<(), Failure> {
    let mut command = cargo(&workspace.root);
    command.args(["test", "--workspace", "--locked", "--no-fail-fast", "--lib", "--bins", "--tests"]);
    command.args(["--", "--show-output"]);
    let mut output = Libtest::default();
    let outcome = process::each_line(&mut command, |line| {
        if let Some(shown) = output.line(line) {
            println!("{shown}");
        }
    });
    println!("tests: {} run, {} failed", output.passed + output.failed, output.failed);
    print_skipped(&output.skipped);
    outcome
}

fn print_skipped(lines: &[String]) {
    if lines.is_empty() {
        println!("skipped by tests on this machine: nothing");
        return;
    }
    println!("skipped by tests on this machine:");
    for line in lines {
        println!("  {}", line.trim_start_matches(junit::SKIPPED).trim());
    }
}

/// Follows libtest's output with `--show-output`: drops what passing tests print, counts, keeps skip lines.
#[derive(Debug, Default)]
struct Libtest {
    in_successes: bool,
    passed: u64,
    failed: u64,
    skipped: Vec<String>,
}

impl Libtest {
    /// The line, if it is to be shown.
    fn line<'a>(&mut self, line: &'a str) -> Option<&'a str> {
        for found in junit::skip_lines(line) {
            if !self.skipped.contains(&found) {
                self.skipped.push(found);
            }
        }
        match line {
            "successes:" => self.in_successes = true,
            "failures:" => self.in_successes = false,
            _ if line.starts_with("test result:") => {
                self.in_successes = false;
                self.passed += count_before(line, " passed");
                self.failed += count_before(line, " failed");
            }
            _ => {}
        }
        (!self.in_successes && !line.is_empty()).then_some(line)
    }
}

/// The number that stands right before `word`.
fn count_before(line: &str, word: &str) -> u64 {
    let number = line.split(word).next().and_then(|before| before.rsplit(' ').next());
    number.and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtest_output_is_thinned_and_counted() {
        let text = "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\nsuccesses:\n\n---- a stdout ----\nnoise\n\
                    SKIPPED: no docker\n\nsuccesses:\n    a\n\nfailures:\n\n---- b stdout ----\nboom\n\n\
                    test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n\
                    test result: ok. 40 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        let mut output = Libtest::default();
        let shown: Vec<&str> = text.lines().filter_map(|line| output.line(line)).collect();
        assert_eq!((output.passed, output.failed), (41, 1));
        assert_eq!(output.skipped, ["SKIPPED: no docker"]);
        assert!(shown.contains(&"boom") && !shown.contains(&"noise"), "{shown:?}");
    }

    #[test]
    fn an_argument_is_refused() {
        assert!(command(&["amc-core".into()]).is_err());
    }
}
