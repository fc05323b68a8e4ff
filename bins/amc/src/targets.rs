//! Target profiles, read: what is aimed at, and what is missing to it.

use std::path::PathBuf;

use amc_core::{AgentId, Finding, FindingCode, RunId, limits};
use amc_scoring::{Bank, Report, Target};
use amc_workspace::home::{self, Home};
use amc_workspace::{Answer, Failure, Opening, SignedFile};
use clap::{Args, Subcommand};
use serde_json::json;

/// A report of a workspace with many sessions.
const REPORT_BYTES_MAX: usize = 64 << 20;

/// The verbs of `target`.
#[derive(Subcommand)]
pub(crate) enum TargetVerb {
    /// Check a target profile, sign it and put it in force.
    #[command(disable_help_flag = true)]
    Set {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
        rest: Vec<std::ffi::OsString>,
    },
    /// The targets of an agent, or one of them.
    Show {
        /// The target's id.
        target: Option<String>,
        /// The agent.
        #[arg(long, value_name = "ID")]
        agent: AgentId,
    },
    /// What a run misses to a target, question by question.
    Diff(DiffPlan),
}

/// What is compared.
#[derive(Args)]
pub(crate) struct DiffPlan {
    /// The run.
    run: RunId,
    /// Another target than the one that the run was made with.
    #[arg(long, value_name = "ID")]
    target: Option<String>,
}

/// A target's file with what its signature is worth.
struct Found {
    target: Target,
    file: SignedFile,
}

pub(crate) fn show(opening: &Opening, agent: &AgentId, wanted: Option<&str>) -> Result<Answer, Failure> {
    let home = opening.home()?;
    let bank = bank(&home)?;
    let ids = match wanted {
        Some(id) => vec![id.to_owned()],
        None => ids(&home, agent),
    };
    let found = ids.iter().map(|id| load(&home, agent, id, &bank)).collect::<Result<Vec<Found>, Failure>>()?;
    let mut text = String::new();
    let mut answer = Vec::new();
    for Found { target, file } in &found {
        let signed = file.version.map_or("not signed".to_owned(), |version| format!("version {version}, signed"));
        text += &format!("{} ({signed})\n", target.id);
        for (question, level) in target.levels.iter().filter(|_| wanted.is_some()) {
            text += &format!("  {level}  {question}\n");
        }
        let levels: Vec<_> =
            target.levels.iter().map(|(question, level)| json!({ "id": question, "level": level })).collect();
        answer.push(json!({
            "target": target.id, "path": file.path, "version": file.version, "sha256": target.sha256,
            "levels": levels,
        }));
    }
    if found.is_empty() {
        text = format!("{agent} has no target; set one with `amc target set FILE`\n");
    }
    let findings = found.into_iter().filter_map(|found| found.file.finding).collect();
    Ok(Answer { findings, ..Answer::new(&json!({ "agent_id": agent, "targets": answer }), text) })
}

pub(crate) fn diff(opening: &Opening, plan: &DiffPlan) -> Result<Answer, Failure> {
    let home = opening.home()?;
    let path = home.run(&plan.run).join("report.json");
    if !path.is_file() {
        let what = "there is no such run; `amc history --agent ID` lists them";
        let finding = Finding::error(FindingCode::RunMissing, plan.run.as_str(), what);
        return Err(Failure::wrong(format!("no run {} in {}", plan.run, home.root().display())).with(finding));
    }
    let bytes = home::read_bounded(&path, REPORT_BYTES_MAX).map_err(Failure::wrong)?;
    let report = Report::from_bytes(&bytes).map_err(Failure::bad)?;
    let id = plan.target.clone().or_else(|| report.target.as_ref().map(|target| target.id.clone()));
    let id = id.ok_or_else(|| {
        Failure::wrong(
            "the run was made without a target; name one with --target, or run again with `amc run --target ID`",
        )
    })?;
    let bank = bank(&home)?;
    let Found { target, file } = load(&home, &report.agent, &id, &bank)?;
    let mut gaps = Vec::new();
    let mut text = String::new();
    for question in &report.questions {
        let Some(wanted) = target.levels.get(&question.id) else { continue };
        let gap = wanted.saturating_sub(question.final_level);
        if gap > 0 {
            text += &format!("{} of {wanted}  {}: {}\n", question.final_level, question.id, question.title);
            for held in &question.held_back {
                text += &format!("        {}: {} of {}\n", held.what, held.have, held.need);
            }
        }
        gaps.push(json!({
            "id": question.id, "target": wanted, "final": question.final_level, "supported": question.supported,
            "gap": gap, "caps": question.caps,
        }));
    }
    if text.is_empty() {
        text = format!("{} reaches target {id} in every question that it names\n", plan.run);
    }
    let data = json!({ "run_id": plan.run, "agent_id": report.agent, "target": id, "questions": gaps });
    Ok(Answer { findings: file.finding.into_iter().collect(), ..Answer::new(&data, text) })
}

fn load(home: &Home, agent: &AgentId, id: &str, bank: &Bank) -> Result<Found, Failure> {
    let path = format!("agents/{agent}/targets/{id}.json");
    if !Target::is_id(id) || !home.file(&path).is_file() {
        let known = ids(home, agent).join(", ");
        let known = if known.is_empty() { "none".to_owned() } else { known };
        return Err(Failure::wrong(format!("{agent} has no target {id:?}; it has {known}")));
    }
    let policy = home.trust_policy().map_err(Failure::wrong)?;
    let keys = home.auditor_keys(&policy).map_err(Failure::wrong)?;
    let file = SignedFile::load(home, &path, Some(agent), &keys).map_err(Failure::wrong)?;
    let target = Target::parse(&file.bytes, agent, bank).map_err(Failure::wrong)?;
    Ok(Found { target, file })
}

fn ids(home: &Home, agent: &AgentId) -> Vec<String> {
    let dir: PathBuf = home.file(&format!("agents/{agent}/targets"));
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut ids: Vec<String> = names.filter_map(|name| Some(name.strip_suffix(".json")?.to_owned())).collect();
    ids.sort();
    ids
}

fn bank(home: &Home) -> Result<Bank, Failure> {
    let bytes = home::read_bounded(&home.file("bank.toml"), limits::CONFIG_BYTES_MAX).map_err(Failure::wrong)?;
    Bank::parse(&bytes).map_err(Failure::wrong)
}
