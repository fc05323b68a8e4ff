//! `cargo xtask ci`: every check, in order, each timed. A failed step does not hide the ones after it.
//!
//! Runs as root or not, in a fresh clone, without stdin. All steps share one profile and target set, so that each
//! builds only what the ones before it have not. The last line is the result.

use crate::boundary::{self, Profile};
use crate::workspace::{self, Workspace, cargo};
use crate::{
    Failure, bank_lint, browser, clients, docs, fuzz, process, quickstart, stage, strangers, suite, tidy, tools,
};
use std::path::Path;
use std::time::{Duration, Instant};

/// One step: its name and what it does in the repository's root.
struct Step {
    name: &'static str,
    run: fn(&Path) -> Result<(), Failure>,
}

const STEPS: &[Step] = &[
    Step { name: "tools", run: tools::provide },
    Step { name: "fmt", run: |root| tool(root, &["fmt", "--all", "--check"]) },
    Step { name: "tidy", run: |_| tidy::command(&[]) },
    Step {
        name: "clippy",
        run: |root| tool(root, &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]),
    },
    Step { name: "boundary", run: |_| boundary::command(&[]) },
    Step { name: "deny", run: deny },
    Step { name: "rustdoc", run: rustdoc },
    Step { name: "test", run: |_| suite::command(&[]) },
    Step { name: "quickstart", run: quickstart },
    Step { name: "clients", run: |_| clients::command(&[]) },
    Step { name: "soak", run: soak },
    Step { name: "strangers", run: |_| strangers::command(&[]) },
    Step { name: "fuzz-log", run: |_| fuzz::command(&["--log".into()]) },
    Step { name: "bank-lint", run: |_| bank_lint::command(&[]) },
    Step { name: "browser", run: |_| browser::command(&[]) },
    Step { name: "docs", run: |_| docs::command(&[]) },
];

/// What takes long, or proves the same of another build: only with `--all`.
const LONG_STEPS: &[Step] = &[
    Step { name: "fuzz", run: |_| fuzz::command(&[]) },
    Step { name: "boundary-release", run: boundary_release },
    Step { name: "clients-real-model", run: |_| clients::command(&["--real-model".into()]) },
];

/// Runs the steps; `--all` adds the long ones.
///
/// # Errors
/// At least one step failed.
pub fn command(args: &[String]) -> Result<(), Failure> {
    let all = match args {
        [] => false,
        [flag] if flag == "--all" => true,
        _ => return Err(Failure::new("ci takes --all or nothing")),
    };
    let steps: Vec<&Step> = STEPS.iter().chain(if all { LONG_STEPS } else { &[] }).collect();
    let outcomes = run(&workspace::root(), &steps);
    println!("\n{}", table(&outcomes));
    let (passed, failed) = counts(&outcomes);
    println!("{passed} passed, {failed} failed");
    // The result is the last line, so a failure ends here, without a text of its own.
    if failed > 0 {
        std::process::exit(1);
    }
    Ok(())
}

/// How one step went.
struct Outcome {
    name: &'static str,
    took: Duration,
    result: Result<(), Failure>,
}

fn run(root: &Path, steps: &[&Step]) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for step in steps {
        println!("\n== {}", step.name);
        let started = Instant::now();
        let result = (step.run)(root);
        let took = started.elapsed();
        match &result {
            Ok(()) => println!("-- {} passed in {:.1} s", step.name, took.as_secs_f64()),
            Err(failure) => println!("{failure}\n-- {} FAILED after {:.1} s", step.name, took.as_secs_f64()),
        }
        outcomes.push(Outcome { name: step.name, took, result });
    }
    outcomes
}

fn table(outcomes: &[Outcome]) -> String {
    let line = |outcome: &Outcome| {
        let word = if outcome.result.is_ok() { "passed" } else { "FAILED" };
        let line = format!("{word}  {:<18} {:>7.1} s", outcome.name, outcome.took.as_secs_f64());
        // Said again: the step's own output may be far above by now.
        match &outcome.result {
            Ok(()) => line,
            Err(failure) => format!("{line}\n{}", end_of(&failure.to_string())),
        }
    };
    outcomes.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The last lines of a failure, indented.
fn end_of(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let shown = lines.iter().skip(lines.len().saturating_sub(REASON_LINES)).map(|line| format!("        {line}"));
    shown.collect::<Vec<_>>().join("\n")
}

/// Lines of a failure that the table shows.
const REASON_LINES: usize = 12;

fn counts(outcomes: &[Outcome]) -> (usize, usize) {
    let passed = outcomes.iter().filter(|outcome| outcome.result.is_ok()).count();
    (passed, outcomes.len() - passed)
}

fn tool(root: &Path, args: &[&str]) -> Result<(), Failure> {
    process::pass_through(cargo(root).args(args))
}

fn deny(root: &Path) -> Result<(), Failure> {
    println!("not checked: advisories, whose database is fetched over the network (`cargo deny check advisories`)");
    // Two versions of one crate are a warning, each a screen long; the list is for who asks for it.
    tool(root, &["deny", "--locked", "--log-level", "error", "check", "bans", "licenses", "sources"])
}

fn rustdoc(root: &Path) -> Result<(), Failure> {
    let mut command = cargo(root);
    command.args(["doc", "--workspace", "--no-deps", "--locked", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings");
    process::pass_through(&mut command)
}

/// In one directory, emptied each time, so that checks do not fill the disk.
fn quickstart(root: &Path) -> Result<(), Failure> {
    let dir = stage::same_dir(&Workspace::read(root)?, "quickstart")?;
    quickstart::command(&[dir.display().to_string()])
}

/// A minute of what `cargo xtask bench gateway --soak SECONDS` does for as long as one likes, with the programs that
/// the tests use.
fn soak(root: &Path) -> Result<(), Failure> {
    let soak = ["bench", "--locked", "--profile", "dev", "-p", "amc", "--bench", "gateway", "--", "--soak", "60"];
    tool(root, &soak)
}

/// The tripwire under the release profile: link-time optimisation is what could drop it.
fn boundary_release(root: &Path) -> Result<(), Failure> {
    let violations = boundary::check_artifacts(root, None, Profile::Release)?;
    for violation in &violations {
        println!("{violation}");
    }
    if violations.is_empty() { Ok(()) } else { Err(Failure::new("the release build violates the trust boundary")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_is_counted_and_does_not_stop_the_rest() {
        let bad = Step { name: "bad", run: |_| Err(Failure::new("no")) };
        let good = Step { name: "good", run: |_| Ok(()) };
        let outcomes = run(Path::new("."), &[&bad, &good]);
        assert_eq!(counts(&outcomes), (1, 1));
        let table = table(&outcomes);
        assert!(
            table.starts_with("FAILED  bad") && table.contains("\n        no\n") && table.contains("passed  good"),
            "{table}"
        );
    }

    #[test]
    fn an_unknown_flag_is_refused_before_anything_runs() {
        assert!(command(&["--al".into()]).is_err());
    }
}
