//! The report as Markdown (CommonMark with tables).

use std::fmt::Write;

use super::escape::{md, md_code, md_prose};
use super::{
    correlation_text, document_name, document_text, documents, level_text, minus, percent_text, rule_text, window_text,
};
use crate::explain::status_sentence;
use crate::report::{QuestionResult, Report, Status};

/// The report as Markdown.
pub fn markdown(report: &Report) -> String {
    let mut text = String::new();
    write_all(&mut text, report).expect("writing into a string cannot fail");
    text
}

fn write_all(out: &mut String, report: &Report) -> std::fmt::Result {
    head(out, report)?;
    next(out, report)?;
    levels(out, report)?;
    integrity(out, report)?;
    findings(out, report)?;
    evidence(out, report)?;
    sessions(out, report)?;
    reported(out, report)?;
    history(out, report)
}

fn head(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "# Agent {}: {}, {}\n", md(report.agent.as_str()), report.status, report.label)?;
    writeln!(out, "{}\n", status_sentence(report))?;
    writeln!(out, "| | |\n|---|---|")?;
    writeln!(out, "| overall | {} of 5 |", level_text(report.overall_bp))?;
    writeln!(out, "| IntegrityIndex | {} |", percent_text(report.integrity_bp))?;
    writeln!(out, "| run | `{}` |", report.run_id)?;
    writeln!(out, "| window | {} up to {} |", window_text(report.window_s), md(&report.as_of))?;
    for head in [&report.evidence, &report.audit] {
        writeln!(out, "| {} | {} events, root `{}` |", md(&head.origin), head.size, head.root)?;
    }
    let bank = &report.bank;
    writeln!(out, "| bank | {} version {}, `{}` |", md(&bank.id), bank.version, bank.sha256)?;
    if let Some(digest) = &report.claims_sha256 {
        writeln!(out, "| claims | `{digest}` |")?;
    }
    if let Some(target) = &report.target {
        let missing = level_text(target.distance_bp);
        writeln!(out, "| target | {}, `{}`; {missing} levels are missing |", md(&target.id), target.sha256)?;
    }
    writeln!(out, "| scorer | {} |\n", md(&report.scorer))
}

fn next(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "## Next\n")?;
    for action in &report.next_actions {
        let (subject, gain) = (md_code(&action.subject), level_text(action.gain_bp));
        writeln!(out, "1. {} ({subject}, up to +{gain})", md_prose(&action.action))?;
    }
    writeln!(out)
}

fn levels(out: &mut String, report: &Report) -> std::fmt::Result {
    if report.status == Status::Invalid {
        writeln!(out, "The run is INVALID: the levels below are for reading and pass no gate.\n")?;
    }
    for layer in &report.layers {
        writeln!(out, "## {}: {}\n", md(&layer.title), level_text(layer.level_bp))?;
        writeln!(out, "| level | claimed | target | question | value | confidence | caps | next level misses |")?;
        writeln!(out, "|---|---|---|---|---|---|---|---|")?;
        for question in report.questions.iter().filter(|question| question.layer == layer.id) {
            row(out, question)?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn row(out: &mut String, question: &QuestionResult) -> std::fmt::Result {
    let level = |level: Option<u8>| level.map_or_else(|| "–".to_owned(), |level| level.to_string());
    let caps = question.caps.iter().map(|cap| format!("{} ≤ {}", md_code(&cap.rule), cap.limit));
    let gaps = question.held_back.iter().map(|gap| format!("{}: {} of {}", md(&gap.what), gap.have, gap.need));
    writeln!(
        out,
        "| {} | {} | {} | {} | {} | {} | {} | {} |",
        question.final_level,
        level(question.claimed),
        level(question.target),
        md(&question.title),
        level_text(question.value_bp),
        percent_text(question.confidence_bp),
        caps.collect::<Vec<_>>().join("; "),
        gaps.collect::<Vec<_>>().join("; ")
    )
}

fn integrity(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "## IntegrityIndex\n\n| rule | count | basis points |\n|---|---|---|")?;
    writeln!(out, "| coverage | | +{} |", report.integrity.coverage_bp)?;
    for penalty in &report.integrity.penalties {
        writeln!(out, "| {} | {} | {} |", rule_text(&penalty.rule), penalty.count, minus(penalty.penalty_bp))?;
    }
    writeln!(out, "| index | | {} |\n", report.integrity_bp)
}

fn findings(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "## Findings\n")?;
    if report.findings.is_empty() {
        writeln!(out, "None.")?;
    }
    for finding in &report.findings {
        writeln!(out, "- **{}** at {}: {}", finding.code, md(&finding.subject), md_prose(&finding.message))?;
    }
    writeln!(out)
}

/// Per question the events behind the level that stands and behind the next.
fn evidence(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "## Evidence\n\nIndices of the events that count, in the evidence log.\n")?;
    for question in &report.questions {
        let counted = question.levels.iter().filter(|level| !level.events.is_empty());
        let shown = counted.filter(|level| level.level == question.supported || level.level == question.supported + 1);
        let shown: Vec<String> = shown
            .map(|level| {
                let events: Vec<String> = level.events.iter().map(u64::to_string).collect();
                format!("level {}: {}", level.level, events.join(" "))
            })
            .collect();
        let shown = if shown.is_empty() { "none".to_owned() } else { shown.join("; ") };
        writeln!(out, "- {}: {shown}", md_code(&question.id))?;
    }
    writeln!(out)
}

fn sessions(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "## Sessions\n\n{} before the window.\n", report.sessions_before)?;
    writeln!(out, "| number | purpose | opened | outcome | events | boundary | |\n|---|---|---|---|---|---|---|")?;
    for session in &report.sessions {
        writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} |",
            session.number,
            md(&session.purpose),
            md(&session.opened),
            md(&session.outcome),
            session.events,
            md(&session.boundary),
            md(&session.reason)
        )?;
    }
    writeln!(out, "\n| day | hardened | observed | attested | self-reported |\n|---|---|---|---|---|")?;
    for day in &report.timeline {
        let (hardened, observed) = (day.observed_hardened, day.observed);
        writeln!(out, "| {} | {hardened} | {observed} | {} | {} |", md(&day.day), day.attested, day.self_reported)?;
    }
    writeln!(out)
}

fn reported(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "## Trace\n\n{}\n", md(&correlation_text(&report.correlation)))?;
    writeln!(out, "## Documents\n\n| document | how it came in |\n|---|---|")?;
    for (kind, summary) in documents(report) {
        writeln!(out, "| {} | {} |", document_name(kind), document_text(summary))?;
    }
    writeln!(out, "\n## Boundary epochs\n")?;
    if report.epochs.is_empty() {
        writeln!(out, "None: every session of the window counts.")?;
    }
    for epoch in &report.epochs {
        let (recorded, from, reason) = (md(&epoch.recorded), epoch.from_index, md_prose(&epoch.reason));
        writeln!(out, "- {recorded}, audit entry {}: sessions from event {from} on count; {reason}", epoch.index)?;
    }
    writeln!(out)
}

fn history(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "## Programs, providers and models\n\n| program | sessions | first | last |\n|---|---|---|---|")?;
    for artifact in &report.artifacts {
        let digest = artifact.sha256.map_or_else(|| "unknown".to_owned(), |digest| format!("`{digest}`"));
        let (count, first, last) = (artifact.sessions, artifact.first_session, artifact.last_session);
        writeln!(out, "| {digest} | {count} | {first} | {last} |")?;
    }
    writeln!(out, "\n| provider | address | calls |\n|---|---|---|")?;
    for upstream in &report.upstreams {
        let base_url = upstream.base_url.as_deref().map_or_else(|| "not on record".to_owned(), md);
        writeln!(out, "| {} | {base_url} | {} |", md(&upstream.provider), upstream.calls)?;
    }
    writeln!(out, "\n| provider | asked | answered | calls |\n|---|---|---|---|")?;
    for model in &report.models {
        let name = |name: &Option<String>| name.as_deref().map_or_else(|| "–".to_owned(), md);
        let (asked, answered) = (name(&model.asked), name(&model.answered));
        writeln!(out, "| {} | {asked} | {answered} | {} |", md(&model.provider), model.calls)?;
    }
    writeln!(out, "\n## Earlier runs\n")?;
    if report.earlier_runs.is_empty() {
        writeln!(out, "None.")?;
    }
    for run in &report.earlier_runs {
        let (recorded, status, label) = (md(&run.recorded), md(&run.status), md(&run.label));
        writeln!(out, "- {recorded} `{}`: {status}, {label}, {}", run.run_id, level_text(run.overall_bp))?;
    }
    Ok(())
}
