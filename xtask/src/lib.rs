//! The project's own tasks, each reachable by one name: what continuous integration does, anybody can do.
//!
//! Depends on no package of the workspace (it must build when they do not), reads nothing from stdin, and never
//! changes a tracked file.

#![forbid(unsafe_code)]

pub mod bank_lint;
pub mod bench;
pub mod boundary;
pub mod browser;
pub mod ci;
pub mod clients;
pub mod docs;
pub mod failure;
pub mod fuzz;
pub mod junit;
pub mod node;
pub mod portable;
pub mod process;
pub mod python;
pub mod quickstart;
pub mod stage;
pub mod step;
pub mod strangers;
pub mod suite;
pub mod tidy;
pub mod tools;
pub mod workspace;

pub use failure::Failure;

/// Runs the task that `args` names (without the program's own name).
///
/// # Errors
/// What went wrong and what to do about it, as text for a person; an unknown task gives the list of tasks.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let Some((name, rest)) = args.split_first() else {
        return Err(Failure::new(usage()));
    };
    if matches!(name.as_str(), "help" | "--help" | "-h") {
        println!("{}", usage());
        return Ok(());
    }
    let task = TASKS
        .iter()
        .find(|task| task.name == name)
        .ok_or_else(|| Failure::new(format!("there is no task `{name}`.\n{}", usage())))?;
    (task.run)(rest)
}

/// One task: its name, its line in the help, its function.
struct Task {
    name: &'static str,
    about: &'static str,
    run: fn(&[String]) -> Result<(), Failure>,
}

const TASKS: &[Task] = &[
    Task {
        name: "boundary",
        about: "trust classes: declarations, edges, closures, artifacts [--static] [--release] [--root DIR]",
        run: boundary::command,
    },
    Task { name: "ci", about: "every check in order, timed; goes on after a failure [--all]", run: ci::command },
    Task {
        name: "test",
        about: "every test that needs no special machine; says what it skipped and why",
        run: suite::command,
    },
    Task {
        name: "quickstart",
        about: "the whole way once, explained: an agent's first call to a judged bundle [DIR]",
        run: quickstart::command,
    },
    Task {
        name: "clients",
        about: "the official Python clients through amc wrap: answers, timing, receipts [--real-model]",
        run: clients::command,
    },
    Task {
        name: "docs",
        about: "the commands in README.md and docs/guides, run as they stand [PAGE…]",
        run: docs::command,
    },
    Task {
        name: "strangers",
        about: "other people's programs check our logs, bundles, envelopes, receipts and reports",
        run: strangers::command,
    },
    Task {
        name: "fuzz",
        about: "libFuzzer on every parser, some seconds each [--seconds N] [--log] [TARGET]",
        run: fuzz::command,
    },
    Task {
        name: "bank-lint",
        about: "whether the question bank is honest: facts, levels and their neighbours [FILE]",
        run: bank_lint::command,
    },
    Task {
        name: "browser",
        about: "the report's page in chromium: light, dark, phone, desk, print",
        run: browser::command,
    },
    Task { name: "tidy", about: "rules on the text of the tracked files", run: tidy::command },
    Task { name: "bench", about: "runs the bench target NAME of whichever package has it", run: bench::command },
];

fn usage() -> String {
    let mut text = String::from("cargo xtask <task>\n");
    for task in TASKS {
        text.push_str(&format!("  {:<10} {}\n", task.name, task.about));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_task_is_refused_with_the_list() {
        let failure = run(&["bondary".into()]).expect_err("no such task");
        assert!(failure.to_string().contains("no task `bondary`"), "{failure}");
        assert!(failure.to_string().contains("boundary"), "{failure}");
    }

    #[test]
    fn no_task_at_all_is_refused() {
        assert!(run(&[]).is_err());
    }
}
