//! Reading runs: report, explanation, history.
//!
//! What is shown is made from `report.json`, held against the digest that the audit log recorded
//! where this home has that log. Nothing here recomputes a score; `verify` and `bundle verify` do.

mod history;

use std::fs;
use std::io::Write as _;

use amc_core::kinds::{Fields, Role, RunRecorded};
use amc_core::{Finding, FindingCode, RunId};
use amc_evidence::Event;
use amc_ledger::LogReader;
use amc_scoring::explain::explanation;
use amc_scoring::{Report, Status, render};
use amc_workspace::home::{self, Home};
use amc_workspace::{Answer, Failure, Opening};
use serde_json::json;

use crate::cli::{ReportFormat, ReportPlan};

pub(crate) use history::history;

/// A report of a workspace with many sessions.
const REPORT_BYTES_MAX: usize = 64 << 20;

/// The runs that the audit logs of this home record, in their order: when, and the entry.
fn recorded(home: &Home) -> Result<Vec<(i64, RunRecorded)>, Failure> {
    let mut runs = Vec::new();
    for number in 1..=home.log_number(Role::Auditor) {
        let dir = home.log_at(Role::Auditor, number);
        if !dir.is_dir() {
            continue;
        }
        for stored in LogReader::open(&dir).map_err(Failure::wrong)?.events(0) {
            let (event, fields) = Event::decode(&stored.map_err(Failure::bad)?.signed.body).map_err(Failure::bad)?;
            if let Some(Fields::RunRecorded(run)) = fields {
                runs.push((event.wall_ns, run));
            }
        }
    }
    Ok(runs)
}

/// Why a report cannot be relied on.
enum Unreadable {
    /// Its file is not here.
    Missing,
    /// It is another than was recorded, or no report.
    Differs(String),
}

impl Unreadable {
    fn finding(&self, run: &RunId) -> Finding {
        match self {
            Unreadable::Missing => {
                let what = "the audit log records this run and its report is not here; restore it from a copy";
                Finding::error(FindingCode::RunMissing, run.as_str(), what)
            }
            Unreadable::Differs(what) => Finding::error(FindingCode::RunSealInvalid, run.as_str(), what),
        }
    }
}

/// The report of a run, where it is the one that was recorded.
fn report_of(home: &Home, run: &RunId, entry: Option<&RunRecorded>) -> Result<Report, Unreadable> {
    let path = home.run(run).join("report.json");
    let bytes = home::read_bounded(&path, REPORT_BYTES_MAX).map_err(|_| Unreadable::Missing)?;
    if entry.is_some_and(|entry| amc_crypto::sha256(&bytes) != entry.report_sha256) {
        let what = "report.json is not the report that was recorded; restore it from a copy, or from a bundle";
        return Err(Unreadable::Differs(what.to_owned()));
    }
    Report::from_bytes(&bytes).map_err(|error| Unreadable::Differs(error.to_string()))
}

/// One run for somebody who wants to read it.
fn read(home: &Home, run: &RunId) -> Result<Report, Failure> {
    let runs = recorded(home)?;
    let entry = runs.iter().map(|(_, entry)| entry).find(|entry| entry.run_id == *run);
    if entry.is_none() && !home.run(run).is_dir() {
        let what = "there is no such run; `amc history --agent ID` lists them";
        let finding = Finding::error(FindingCode::RunMissing, run.as_str(), what);
        return Err(Failure::wrong(format!("no run {run} in {}", home.root().display())).with(finding));
    }
    report_of(home, run, entry).map_err(|why| {
        let finding = why.finding(run);
        let message = format!("the report of {run} cannot be shown: {}", finding.message);
        let failure = match why {
            Unreadable::Missing => Failure::wrong(message),
            Unreadable::Differs(_) => Failure::bad(message),
        };
        failure.with(finding)
    })
}

pub(crate) fn report(opening: &Opening, plan: &ReportPlan) -> Result<Answer, Failure> {
    let home = opening.home()?;
    let report = read(&home, &plan.run)?;
    let (name, text) = match plan.format {
        ReportFormat::Md => ("report.md", render::markdown(&report)),
        ReportFormat::Html => ("report.html", render::html(&report)),
        ReportFormat::Json => {
            ("report.json", String::from_utf8(report.to_bytes()).expect("a report's JSON is UTF-8 by its encoder"))
        }
    };
    let Some(out) = &plan.out else {
        let path = home.run(&plan.run).join(name);
        return Ok(Answer::new(&json!({ "run_id": plan.run, "path": path, "report": report }), text));
    };
    let written =
        fs::File::create(out).and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|error| Failure::wrong(format!("cannot write {}: {error}", out.display())))?;
    Ok(Answer::new(&json!({ "run_id": plan.run, "out": out }), format!("Wrote {}\n", out.display())))
}

pub(crate) fn explain(opening: &Opening, run: &RunId, question: Option<&str>) -> Result<Answer, Failure> {
    let report = read(&opening.home()?, run)?;
    if let Some(id) = question
        && report.question(id).is_none()
    {
        let known: Vec<&str> = report.questions.iter().map(|known| known.id.as_str()).collect();
        return Err(Failure::wrong(format!("the bank has no question {id}; it has {}", known.join(", "))));
    }
    let chosen = report.questions.iter().filter(|known| question.is_none_or(|id| known.id == id));
    let questions: Vec<_> = chosen.map(explanation).collect();
    let data = json!({ "run_id": run, "status": report.status, "questions": questions });
    let text = amc_scoring::explain(&report, question);
    let text = match question {
        None => text + "\nOne question in full, with its events: amc explain RUN QUESTION\n",
        Some(_) => text,
    };
    Ok(Answer::new(&data, text))
}

/// A mark for runs that pass no gate.
fn mark(status: &str) -> &'static str {
    if status == Status::Valid.as_str() { "" } else { "  INVALID" }
}
