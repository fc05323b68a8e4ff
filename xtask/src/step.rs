//! One step of a walk-through for people: says why, shows the command as one would type it, runs it, shows what it
//! answered, and checks that it ended as it should.
//!
//! A walk-through explains a real run; it never hides a failure, and an expected refusal is checked as strictly as an
//! expected success.

use crate::{Failure, process};
use std::process::Command;
use std::time::Duration;

/// A command with the reason for it and the end that is expected.
#[derive(Debug)]
pub struct Step {
    why: String,
    shown: Option<String>,
    statuses: Vec<i32>,
    limit: Duration,
    quiet: bool,
}

/// What a step's command answered.
#[derive(Debug)]
pub struct Answer {
    /// Its exit status, one of the expected.
    pub status: i32,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
}

impl Step {
    /// A step with a sentence that says what it is for. Expected to end with 0 within a minute.
    pub fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), shown: None, statuses: vec![0], limit: Duration::from_secs(60), quiet: false }
    }

    /// Shows this line instead of the command with its full paths, `amc init` for `/…/target/debug/amc init`.
    #[must_use]
    pub fn shown_as(mut self, line: impl Into<String>) -> Self {
        self.shown = Some(line.into());
        self
    }

    /// Expects this exit status instead of 0.
    #[must_use]
    pub fn ends_with(self, status: i32) -> Self {
        self.ends_with_one_of(&[status])
    }

    /// Expects one of these exit statuses; what follows has to ask the answer which it was.
    #[must_use]
    pub fn ends_with_one_of(mut self, statuses: &[i32]) -> Self {
        self.statuses = statuses.to_vec();
        self
    }

    /// Allows this much time instead of a minute.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Does not print the answer, for output that only a program reads.
    #[must_use]
    pub fn quietly(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Runs it and prints the step.
    ///
    /// # Errors
    /// It could not be started, took too long, or ended with another status; the text holds both outputs.
    pub fn run(self, command: &mut Command) -> Result<Answer, Failure> {
        println!("\n{}\n$ {}", folded(&self.why), self.shown.unwrap_or_else(|| process::readable(command)));
        let captured = process::capture(command, self.limit)?;
        if !self.quiet {
            print_indented(&captured.stdout);
            print_indented(&captured.stderr);
        }
        if let Some(status) = captured.status.code().filter(|status| self.statuses.contains(status)) {
            return Ok(Answer { status, stdout: captured.stdout, stderr: captured.stderr });
        }
        let expected: Vec<String> = self.statuses.iter().map(i32::to_string).collect();
        Err(Failure::new(format!(
            "`{}` ended with {}, {} was expected\n{}{}",
            captured.line,
            captured.status,
            expected.join(" or "),
            captured.stdout,
            captured.stderr
        )))
    }
}

impl Answer {
    /// The answer as the one JSON object that `--json` promises.
    ///
    /// # Errors
    /// Stdout is not exactly one JSON value.
    pub fn json(&self) -> Result<serde_json::Value, Failure> {
        let parsed = serde_json::from_str(&self.stdout);
        parsed.map_err(|error| Failure::new(format!("the answer is not one JSON value ({error}):\n{}", self.stdout)))
    }
}

/// The text in lines of at most a hundred characters, broken at blanks.
pub fn folded(text: &str) -> String {
    let mut lines = String::new();
    let mut used = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > COLUMNS {
            lines.push('\n');
            used = 0;
        } else if used > 0 {
            lines.push(' ');
            used += 1;
        }
        lines.push_str(word);
        used += length;
    }
    lines
}

/// What a person reads without moving the head.
const COLUMNS: usize = 100;

/// What a program answered, set off from what the walk-through says.
pub fn print_indented(text: &str) {
    for line in text.lines() {
        println!("  {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn an_expected_end_gives_the_answer() {
        let answer =
            Step::new("Deny.").ends_with(1).run(&mut shell("echo '{\"ok\": false}'; exit 1")).expect("1 is right");
        assert_eq!(answer.json().expect("one object")["ok"], false);
    }

    #[test]
    fn a_success_where_a_refusal_is_expected_fails() {
        let failure = Step::new("Deny.").ends_with(1).run(&mut shell("echo fine")).expect_err("0 is wrong");
        assert!(failure.to_string().contains("1 was expected"), "{failure}");
        assert!(failure.to_string().contains("fine"), "{failure}");
    }

    #[test]
    fn where_two_ends_are_right_the_answer_says_which() {
        let step = || Step::new("Judge.").ends_with_one_of(&[0, 1]);
        assert_eq!(step().run(&mut shell("exit 1")).expect("1 is right").status, 1);
        assert!(step().run(&mut shell("exit 2")).expect_err("2 is wrong").to_string().contains("0 or 1"));
    }

    #[test]
    fn sentences_are_folded_at_blanks() {
        let text = "word ".repeat(45);
        let lines: Vec<usize> = folded(&text).lines().map(str::len).collect();
        assert_eq!(lines, [99, 99, 24]);
    }

    #[test]
    fn two_objects_are_not_one_answer() {
        let answer = Step::new("Twice.").quietly().run(&mut shell("echo '{} {}'")).expect("ends with 0");
        assert!(answer.json().is_err());
    }
}
