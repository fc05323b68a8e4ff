//! How every command answers: one JSON object with `--json`, text for people without it, and the
//! exit code.
//!
//! `{"ok": bool, "command": "bundle verify", "findings": [...], "data": {...}}`; exit 0 done or the
//! verdict is good, 1 the verdict is bad, 2 the call or its input is wrong, 3 not possible now.

use std::io::{self, Write as _};
use std::process::ExitCode;

use amc_core::{Finding, FindingCode};
use serde::Serialize;
use serde_json::Value;

/// Why a command ends as it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or the verdict is good.
    Good,
    /// The verdict is bad.
    Bad,
    /// The call or its input is wrong.
    Wrong,
    /// Not possible now.
    Unable,
}

impl Exit {
    /// The process's exit code.
    pub const fn code(self) -> u8 {
        match self {
            Exit::Good => 0,
            Exit::Bad => 1,
            Exit::Wrong => 2,
            Exit::Unable => 3,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// What a command has to say.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Findings, in order.
    pub findings: Vec<Finding>,
    /// `data` of the JSON object.
    pub data: Value,
    /// The text for people, with a final newline.
    pub text: String,
    /// Whether the verdict is bad although nothing failed (a run that is INVALID, a gate that denies).
    pub bad: bool,
}

impl Answer {
    /// An answer of data and text.
    ///
    /// # Panics
    /// When `data` does not serialise, which plain structs of ours do.
    pub fn new<D: Serialize>(data: &D, text: impl Into<String>) -> Self {
        let data = serde_json::to_value(data).expect("answers are plain structs");
        Answer { data, text: text.into(), ..Answer::default() }
    }

    /// Whether every check passed.
    pub fn is_ok(&self) -> bool {
        !self.bad && !self.findings.iter().any(Finding::is_error)
    }
}

/// A command that could not be carried out: a sentence for the person, and how it ends.
#[derive(Debug, Clone)]
pub struct Failure {
    /// How the process ends.
    pub exit: Exit,
    /// Findings that explain it, where a code fits.
    pub findings: Vec<Finding>,
    /// What happened and what to do next.
    pub message: String,
}

impl Failure {
    /// The call or its input is wrong.
    #[expect(clippy::needless_pass_by_value, reason = "an error is given up to it: `map_err(Failure::wrong)`")]
    pub fn wrong(message: impl ToString) -> Self {
        Failure { exit: Exit::Wrong, findings: Vec::new(), message: message.to_string() }
    }

    /// Not possible now.
    #[expect(clippy::needless_pass_by_value, reason = "an error is given up to it: `map_err(Failure::unable)`")]
    pub fn unable(message: impl ToString) -> Self {
        Failure { exit: Exit::Unable, findings: Vec::new(), message: message.to_string() }
    }

    /// The verdict is bad.
    #[expect(clippy::needless_pass_by_value, reason = "an error is given up to it: `map_err(Failure::bad)`")]
    pub fn bad(message: impl ToString) -> Self {
        Failure { exit: Exit::Bad, findings: Vec::new(), message: message.to_string() }
    }

    /// The same with a finding.
    #[must_use]
    pub fn with(mut self, finding: Finding) -> Self {
        self.findings.push(finding);
        self
    }
}

#[derive(Serialize)]
struct Json<'a> {
    ok: bool,
    command: &'a str,
    findings: &'a [Finding],
    data: &'a Value,
}

/// Prints an answer or a failure and gives the exit code. The one place where binaries do so.
pub fn finish(command: &str, json: bool, result: Result<Answer, Failure>) -> ExitCode {
    let exit = exit_of(&result);
    let printed = if json { print_json(command, exit, result) } else { print_text(result) };
    match printed {
        // Whoever reads stopped reading; the exit code still tells.
        Ok(()) | Err(_) => exit.into(),
    }
}

/// How a result ends the process. What only another release can recompute is no verdict: not possible now.
fn exit_of(result: &Result<Answer, Failure>) -> Exit {
    let answer = match result {
        Ok(answer) if answer.is_ok() => return Exit::Good,
        Ok(answer) => answer,
        Err(failure) => return failure.exit,
    };
    let mut errors = answer.findings.iter().filter(|finding| finding.is_error()).peekable();
    let lacks_scorer = errors.peek().is_some() && errors.all(|error| error.code == FindingCode::ScorerUnsupported);
    if lacks_scorer { Exit::Unable } else { Exit::Bad }
}

fn print_json(command: &str, exit: Exit, result: Result<Answer, Failure>) -> io::Result<()> {
    let (findings, data) = match result {
        Ok(answer) => (answer.findings, answer.data),
        Err(failure) => (failure.findings, serde_json::json!({ "error": failure.message })),
    };
    let data = if data.is_null() { serde_json::json!({}) } else { data };
    let object = Json { ok: exit == Exit::Good, command, findings: &findings, data: &data };
    writeln!(io::stdout().lock(), "{}", serde_json::to_string(&object).expect("plain values serialise"))
}

fn print_text(result: Result<Answer, Failure>) -> io::Result<()> {
    match result {
        Ok(answer) => {
            let mut out = io::stdout().lock();
            out.write_all(answer.text.as_bytes())?;
            let mut err = io::stderr().lock();
            answer.findings.iter().try_for_each(|finding| writeln!(err, "{}", finding_line(finding)))
        }
        Err(failure) => {
            // A finding that the sentence says already lends it its code, so that one line says all.
            let (said, unsaid): (Vec<&Finding>, Vec<&Finding>) =
                failure.findings.iter().partition(|finding| failure.message.contains(&finding.message));
            let mut err = io::stderr().lock();
            unsaid.into_iter().try_for_each(|finding| writeln!(err, "{}", finding_line(finding)))?;
            let codes = said.into_iter().map(|finding| format!("{}: ", finding.code)).collect::<String>();
            writeln!(err, "amc: {codes}{}", failure.message)
        }
    }
}

fn finding_line(finding: &Finding) -> String {
    let weight = match finding.severity {
        amc_core::Severity::Error => "error",
        amc_core::Severity::Warn => "warning",
        amc_core::Severity::Info => "note",
    };
    format!("{weight}: {finding}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_another_scorer_is_no_verdict() {
        let with = |codes: &[FindingCode]| {
            let findings = codes.iter().map(|code| Finding::error(*code, "run/report.json", "what")).collect();
            exit_of(&Ok(Answer { findings, bad: true, ..Answer::default() }))
        };
        assert_eq!(with(&[FindingCode::ScorerUnsupported]), Exit::Unable);
        assert_eq!(with(&[FindingCode::ScorerUnsupported, FindingCode::BundleMalformed]), Exit::Bad);
        assert_eq!(with(&[FindingCode::ScoreMismatch]), Exit::Bad);
        assert_eq!(with(&[]), Exit::Bad, "a gate that denies");
        assert_eq!(exit_of(&Ok(Answer::default())), Exit::Good);
        assert_eq!(exit_of(&Err(Failure::wrong("no such file"))), Exit::Wrong);
    }
}
