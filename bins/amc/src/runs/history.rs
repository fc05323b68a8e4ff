//! `amc history`: the runs of an agent, oldest first, and what changed between neighbours.

use std::fmt::Write as _;

use amc_core::kinds::RunRecorded;
use amc_core::{AgentId, Finding, timestamp};
use amc_scoring::Report;
use amc_scoring::drift::{Drift, drift};
use amc_workspace::{Answer, Failure, Opening};
use serde_json::{Value, json};

use super::{Unreadable, mark, recorded, report_of};

/// A run as the audit log records it, and its report where that is here and the recorded one.
struct Run {
    wall_ns: i64,
    entry: RunRecorded,
    report: Result<Report, Unreadable>,
}

pub(crate) fn history(opening: &Opening, agent: &AgentId) -> Result<Answer, Failure> {
    let home = opening.home()?;
    let own = recorded(&home)?.into_iter().filter(|(_, entry)| entry.agent == *agent);
    let runs: Vec<Run> = own
        .map(|(wall_ns, entry)| Run { wall_ns, report: report_of(&home, &entry.run_id, Some(&entry)), entry })
        .collect();
    let mut text = String::new();
    let mut list = Vec::with_capacity(runs.len());
    for (at, run) in runs.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| &runs[before]);
        write_run(&mut text, run, before).expect("writing into a string cannot fail");
        list.push(data(run, before));
    }
    if runs.is_empty() {
        text = format!("No run of {agent} yet; make one with `amc run --agent {agent}`\n");
    }
    let findings: Vec<Finding> =
        runs.iter().filter_map(|run| Some(run.report.as_ref().err()?.finding(&run.entry.run_id))).collect();
    Ok(Answer { findings, ..Answer::new(&json!({ "agent_id": agent, "runs": list }), text) })
}

/// What changed inside the reports, where both are here.
fn inside(run: &Run, before: &Run) -> Option<Drift> {
    Some(drift(before.report.as_ref().ok()?, run.report.as_ref().ok()?))
}

fn data(run: &Run, before: Option<&Run>) -> Value {
    let Run { wall_ns, entry, report } = run;
    let report = match report {
        Ok(_) => "here",
        Err(Unreadable::Missing) => "missing",
        Err(Unreadable::Differs(_)) => "differs",
    };
    let changed = before.map(|before| {
        let old = &before.entry;
        let mut changed = json!({
            "overall_bp": i64::from(entry.overall_bp) - i64::from(old.overall_bp),
            "integrity_bp": i64::from(entry.integrity_bp) - i64::from(old.integrity_bp),
            "status": (entry.status != old.status).then_some([&old.status, &entry.status]),
            "label": (entry.label != old.label).then_some([&old.label, &entry.label]),
            "layers": null, "questions": null, "findings_new": null, "findings_gone": null, "inputs": null,
        });
        if let Some(inside) = inside(run, before) {
            changed["layers"] = json!(inside.layers);
            changed["questions"] = json!(inside.questions);
            changed["findings_new"] = json!(inside.findings_new);
            changed["findings_gone"] = json!(inside.findings_gone);
            changed["inputs"] = json!(inside.inputs);
        }
        changed
    });
    json!({
        "run_id": entry.run_id, "recorded": timestamp::to_rfc3339(*wall_ns), "status": entry.status,
        "label": entry.label, "overall_bp": entry.overall_bp, "integrity_bp": entry.integrity_bp,
        "report": report, "drift": changed,
    })
}

fn write_run(text: &mut String, run: &Run, before: Option<&Run>) -> std::fmt::Result {
    let entry = &run.entry;
    let when = timestamp::to_rfc3339(run.wall_ns);
    let (overall, integrity) = (level_text(entry.overall_bp), percent_text(entry.integrity_bp));
    let mark = mark(&entry.status);
    writeln!(text, "{when}  {}  {}  overall {overall}  integrity {integrity}{mark}", entry.run_id, entry.label)?;
    if let Err(why) = &run.report {
        writeln!(text, "    {}", why.finding(&entry.run_id).message)?;
    }
    let Some(before) = before else { return Ok(()) };
    let old = &before.entry;
    let mut changes = Vec::new();
    changes.extend(change("overall", old.overall_bp, entry.overall_bp, level_text));
    changes.extend(change("integrity", old.integrity_bp, entry.integrity_bp, percent_text));
    changes.extend((old.status != entry.status).then(|| format!("{} became {}", old.status, entry.status)));
    changes.extend((old.label != entry.label).then(|| format!("{} became {}", old.label, entry.label)));
    if !changes.is_empty() {
        writeln!(text, "    {}", changes.join(", "))?;
    }
    match inside(run, before) {
        Some(inside) => write_drift(text, &inside),
        None => writeln!(text, "    what changed inside cannot be told without both reports"),
    }
}

fn write_drift(text: &mut String, drift: &Drift) -> std::fmt::Result {
    if !drift.inputs.is_empty() {
        writeln!(text, "    another {}", drift.inputs.join(", another "))?;
    }
    for layer in &drift.layers {
        let (from, to) = (level_text(layer.from_bp), level_text(layer.to_bp));
        writeln!(text, "    layer {} {from} to {to}", layer.id)?;
    }
    let level = |level: Option<u8>| level.map_or_else(|| "–".to_owned(), |level| level.to_string());
    for question in &drift.questions {
        let word = if question.to < question.from { "fell" } else { "rose" };
        let (from, to) = (level(question.from), level(question.to));
        let why = if question.why.is_empty() { String::new() } else { format!(": {}", question.why.join("; ")) };
        writeln!(text, "    {word} {} {from} to {to}{why}", question.id)?;
    }
    for (word, codes) in [("new", &drift.findings_new), ("gone", &drift.findings_gone)] {
        for found in codes {
            writeln!(text, "    {word} {}, {} time(s)", found.code, found.count)?;
        }
    }
    Ok(())
}

/// A change of a figure, in its own units; `None` where it did not change.
fn change(name: &str, from: u32, to: u32, shown: impl Fn(u32) -> String) -> Option<String> {
    let sign = if to < from { "−" } else { "+" };
    (from != to).then(|| format!("{name} {sign}{}", shown(from.abs_diff(to))))
}

fn level_text(bp: u32) -> String {
    format!("{}.{:02}", bp / 10_000, bp % 10_000 / 100)
}

fn percent_text(bp: u32) -> String {
    format!("{}.{:02} %", bp / 100, bp % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_have_their_sign() {
        assert_eq!(change("overall", 20_000, 10_050, level_text).as_deref(), Some("overall −0.99"));
        assert_eq!(change("integrity", 100, 9_100, percent_text).as_deref(), Some("integrity +90.00 %"));
        assert_eq!(change("overall", 7, 7, level_text), None);
    }
}
