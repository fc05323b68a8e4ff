//! The report as Markdown (CommonMark with tables).

use std::fmt::Write;

use super::html::minus;
use super::{level_text, percent_text, window_text};
use crate::explain::status_sentence;
use crate::report::Report;

/// The report as Markdown.
pub fn markdown(report: &Report) -> String {
    let mut text = String::new();
    write_all(&mut text, report).expect("writing into a string cannot fail");
    text
}

fn write_all(out: &mut String, report: &Report) -> std::fmt::Result {
    head(out, report)?;
    levels(out, report)?;
    integrity(out, report)?;
    findings(out, report)?;
    sessions(out, report)?;
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
    writeln!(out, "| scorer | {} |\n", md(&report.scorer))
}

fn levels(out: &mut String, report: &Report) -> std::fmt::Result {
    for layer in &report.layers {
        writeln!(out, "## {}: {}\n", md(&layer.title), level_text(layer.level_bp))?;
        writeln!(out, "| level | question | value | confidence | caps | what the next level misses |")?;
        writeln!(out, "|---|---|---|---|---|---|")?;
        for question in report.questions.iter().filter(|question| question.layer == layer.id) {
            let caps: Vec<String> =
                question.caps.iter().map(|cap| format!("{} ≤ {}", md(&cap.rule), cap.limit)).collect();
            let gaps: Vec<String> = question
                .held_back
                .iter()
                .map(|gap| format!("{}: {} of {}", md(&gap.what), gap.have, gap.need))
                .collect();
            writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} |",
                question.final_level,
                md(&question.title),
                level_text(question.value_bp),
                percent_text(question.confidence_bp),
                caps.join("; "),
                gaps.join("; ")
            )?;
        }
        writeln!(out)?;
    }
    writeln!(out, "## Next\n")?;
    for action in &report.next_actions {
        let gain = level_text(action.gain_bp);
        writeln!(out, "1. {} (`{}`, up to +{gain})", md(&action.action), action.subject)?;
    }
    writeln!(out)
}

fn integrity(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "## IntegrityIndex\n\n| rule | count | basis points |\n|---|---|---|")?;
    writeln!(out, "| coverage | | +{} |", report.integrity.coverage_bp)?;
    for penalty in &report.integrity.penalties {
        writeln!(out, "| {} | {} | {} |", md(&penalty.rule), penalty.count, minus(penalty.penalty_bp))?;
    }
    writeln!(out, "| index | | {} |\n", report.integrity_bp)
}

fn findings(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "## Findings\n")?;
    if report.findings.is_empty() {
        writeln!(out, "None.")?;
    }
    for finding in &report.findings {
        writeln!(out, "- **{}** at {}: {}", finding.code, md(&finding.subject), md(&finding.message))?;
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

fn history(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "## Models and providers\n\n| provider | asked | answered | calls |\n|---|---|---|---|")?;
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
        let (recorded, status) = (md(&run.recorded), md(&run.status));
        writeln!(out, "- {recorded} `{}`: {status}, {}", run.run_id, level_text(run.overall_bp))?;
    }
    Ok(())
}

/// Escapes text so that it is text in any place of a document of ours.
fn md(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '#' | '!' => safe.extend(['\\', character]),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            control if control.is_control() => safe.push('\u{fffd}'),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_text_becomes_markup() {
        assert_eq!(
            super::md("a|b<script>&[x](y)`*_\n"),
            r"a\|b&lt;script&gt;&amp;\[x\](y)\`\*\_".to_owned() + "\u{fffd}"
        );
    }
}
