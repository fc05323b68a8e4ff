//! Explanations in plain text: why a level stands, what is missing for the next, which caps apply,
//! and which events count.

use std::fmt::Write;

use crate::actions::cap_remedy;
use crate::render::{level_text, percent_text};
use crate::report::{QuestionResult, Report, Status};

/// Explains a report, or the question with this id, in plain text. An id that the report does not
/// have gives a list of those that it has.
pub fn explain(report: &Report, question: Option<&str>) -> String {
    let mut text = String::new();
    let written = match question.map(|id| report.question(id).ok_or(id)) {
        None => overview(&mut text, report),
        Some(Ok(question)) => one(&mut text, report, question),
        Some(Err(id)) => unknown(&mut text, report, id),
    };
    written.expect("writing into a string cannot fail");
    text
}

/// What the status means, in a sentence.
pub(crate) fn status_sentence(report: &Report) -> String {
    match report.status {
        Status::Valid => "The logs verify, and the trust boundary is proven for every counted session.".to_owned(),
        Status::Invalid => {
            let errors = report.findings.iter().filter(|finding| finding.is_error()).count();
            format!(
                "INVALID: the evidence cannot carry a verdict, for {errors} reason(s) listed under findings. The levels \
                 are shown for reading and pass no gate."
            )
        }
    }
}

fn overview(text: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(text, "{} of agent {} in {}", report.run_id, report.agent, report.workspace)?;
    writeln!(text, "status {}, {}, integrity {}", report.status, report.label, percent_text(report.integrity_bp))?;
    writeln!(text, "{}", status_sentence(report))?;
    writeln!(text, "overall {} of 5", level_text(report.overall_bp))?;
    for layer in &report.layers {
        writeln!(text, "\n{}: {}", layer.title, level_text(layer.level_bp))?;
        for question in report.questions.iter().filter(|question| question.layer == layer.id) {
            let gap = question.held_back.first().map_or_else(String::new, |gap| {
                format!("; the next level asks for {}: {} of {}", gap.what, gap.have, gap.need)
            });
            writeln!(text, "  {} {}: {}{gap}", question.final_level, question.id, question.title)?;
        }
    }
    if !report.findings.is_empty() {
        writeln!(text, "\nfindings:")?;
        for finding in &report.findings {
            writeln!(text, "  {finding}")?;
        }
    }
    writeln!(text, "\nnext:")?;
    for action in &report.next_actions {
        writeln!(text, "  {}: {} (up to +{})", action.subject, action.action, level_text(action.gain_bp))?;
    }
    Ok(())
}

fn one(text: &mut String, report: &Report, question: &QuestionResult) -> std::fmt::Result {
    writeln!(text, "{} ({})", question.title, question.id)?;
    writeln!(text, "level {}: {}", question.final_level, question.statement)?;
    if report.status == Status::Invalid {
        writeln!(text, "{}", status_sentence(report))?;
    }
    writeln!(text, "the evidence supports level {}", question.supported)?;
    if let Some(claimed) = question.claimed {
        writeln!(text, "level {claimed} is claimed")?;
    }
    if let Some(target) = question.target {
        writeln!(text, "level {target} is the target")?;
    }
    let (value, confidence) = (level_text(question.value_bp), percent_text(question.confidence_bp));
    writeln!(text, "value {value} of 5, confidence {confidence}")?;
    for cap in &question.caps {
        writeln!(text, "cap {} at level {}: {}", cap.rule, cap.limit, cap_remedy(&cap.rule))?;
    }
    if !question.held_back.is_empty() {
        writeln!(text, "level {} needs:", question.supported + 1)?;
    }
    for gap in &question.held_back {
        writeln!(text, "  {}: {} of {}", gap.what, gap.have, gap.need)?;
        if !gap.facts.is_empty() {
            writeln!(text, "    counted: {}", gap.facts.join(", "))?;
        }
        if !gap.pending.is_empty() {
            writeln!(text, "    not collected by this release: {}", gap.pending.join(", "))?;
        }
    }
    for level in question.levels.iter().filter(|level| !level.events.is_empty()) {
        let events: Vec<String> = level.events.iter().map(u64::to_string).collect();
        let holds = if level.holds { "holds" } else { "does not hold" };
        writeln!(text, "level {} {holds}; its events in the evidence log: {}", level.level, events.join(", "))?;
    }
    Ok(())
}

fn unknown(text: &mut String, report: &Report, id: &str) -> std::fmt::Result {
    writeln!(text, "this report has no question {id:?}; it has:")?;
    for question in &report.questions {
        writeln!(text, "  {}", question.id)?;
    }
    Ok(())
}
