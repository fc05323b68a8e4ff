//! Reading runs: report, explanation, history.

use std::fs;
use std::io::Write as _;

use amc_core::kinds::{Fields, Role};
use amc_core::{AgentId, Finding, FindingCode, RunId, timestamp};
use amc_evidence::Event;
use amc_ledger::LogReader;
use amc_scoring::{Report, Status};
use amc_workspace::home::{self, Home};
use amc_workspace::{Answer, Failure, Opening};
use serde_json::json;

use crate::cli::{ReportFormat, ReportPlan};

/// A report of a workspace with many sessions.
const REPORT_BYTES_MAX: usize = 64 << 20;

fn read(home: &Home, run: &RunId, name: &str) -> Result<Vec<u8>, Failure> {
    let dir = home.run(run);
    if !dir.is_dir() {
        let what = "there is no such run; `amc history --agent ID` lists them";
        let finding = Finding::error(FindingCode::RunMissing, run.as_str(), what);
        return Err(Failure::wrong(format!("no run {run} in {}", home.root().display())).with(finding));
    }
    home::read_bounded(&dir.join(name), REPORT_BYTES_MAX).map_err(Failure::wrong)
}

fn parsed(home: &Home, run: &RunId) -> Result<Report, Failure> {
    let bytes = read(home, run, "report.json")?;
    serde_json::from_slice(&bytes).map_err(|error| Failure::wrong(format!("the report of {run}: {error}")))
}

pub(crate) fn report(opening: &Opening, plan: &ReportPlan) -> Result<Answer, Failure> {
    let home = opening.home()?;
    let name = match plan.format {
        ReportFormat::Md => "report.md",
        ReportFormat::Html => "report.html",
        ReportFormat::Json => "report.json",
    };
    let bytes = read(&home, &plan.run, name)?;
    let path = home.run(&plan.run).join(name);
    let Some(out) = &plan.out else {
        let text = String::from_utf8(bytes).map_err(|_| Failure::wrong("the report is not UTF-8"))?;
        return Ok(Answer::new(
            &json!({ "run_id": plan.run, "path": path, "report": parsed(&home, &plan.run)? }),
            text,
        ));
    };
    let written = fs::File::create(out).and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()));
    written.map_err(|error| Failure::wrong(format!("cannot write {}: {error}", out.display())))?;
    Ok(Answer::new(&json!({ "run_id": plan.run, "out": out }), format!("Wrote {}\n", out.display())))
}

pub(crate) fn explain(opening: &Opening, run: &RunId, question: Option<&str>) -> Result<Answer, Failure> {
    let report = parsed(&opening.home()?, run)?;
    if let Some(id) = question
        && !report.questions.iter().any(|known| known.id == id)
    {
        let known: Vec<&str> = report.questions.iter().map(|known| known.id.as_str()).collect();
        return Err(Failure::wrong(format!("the bank has no question {id}; it has {}", known.join(", "))));
    }
    let questions: Vec<_> = report.questions.iter().filter(|known| question.is_none_or(|id| known.id == id)).collect();
    let data = json!({ "run_id": run, "status": report.status, "questions": questions });
    Ok(Answer::new(&data, amc_scoring::explain(&report, question)))
}

pub(crate) fn history(opening: &Opening, agent: &AgentId) -> Result<Answer, Failure> {
    let home = opening.home()?;
    let log = LogReader::open(&home.log(Role::Auditor)).map_err(Failure::wrong)?;
    let mut runs = Vec::new();
    let mut text = String::new();
    for stored in log.events(0) {
        let (event, fields) = Event::decode(&stored.map_err(Failure::bad)?.signed.body).map_err(Failure::bad)?;
        let Some(Fields::RunRecorded(run)) = fields else { continue };
        if run.agent != *agent {
            continue;
        }
        let when = timestamp::to_rfc3339(event.wall_ns);
        let mark = if run.status == Status::Valid.as_str() { "" } else { "  INVALID" };
        text += &format!(
            "{when}  {}  {}  overall {}.{:02}  integrity {} bp{mark}\n",
            run.run_id,
            run.label,
            run.overall_bp / 10_000,
            run.overall_bp % 10_000 / 100,
            run.integrity_bp
        );
        runs.push(json!({
            "run_id": run.run_id, "recorded": when, "status": run.status, "label": run.label,
            "overall_bp": run.overall_bp, "integrity_bp": run.integrity_bp,
        }));
    }
    if text.is_empty() {
        text = format!("No run of {agent} yet; make one with `amc run --agent {agent}`\n");
    }
    Ok(Answer::new(&json!({ "agent_id": agent, "runs": runs }), text))
}
