//! Explanations, in plain text and as data: why a level stands, what is missing for the next, which
//! caps apply and what lifts them, and which events count.

use std::fmt::Write;

use serde::Serialize;

use crate::actions::cap_remedy;
use crate::caps;
use crate::render::{level_text, percent_text};
use crate::report::{LevelResult, QuestionResult, Report, Shortfall, Status};

/// What keeps a question's level from being higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldBy {
    /// Nothing: it stands at 5.
    Nothing,
    /// The gate of the next level.
    Evidence,
    /// A cap below what the evidence supports.
    Cap,
    /// A claim below what evidence and caps allow.
    Claim,
}

/// A cap, whether it bites, and what lifts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CapExplained<'a> {
    /// The rule's name.
    pub rule: &'a str,
    /// The highest level that it allows.
    pub limit: u8,
    /// Whether the evidence supports more than it allows.
    pub bites: bool,
    /// What lifts it.
    pub remedy: &'static str,
}

/// One question, explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its title.
    pub title: &'a str,
    /// The bank's sentence for the level that stands.
    pub statement: &'a str,
    /// The level that stands.
    #[serde(rename = "final")]
    pub final_level: u8,
    /// What the evidence supports.
    pub supported: u8,
    /// What was claimed.
    pub claimed: Option<u8>,
    /// What the target wants.
    pub target: Option<u8>,
    /// What keeps the level from being higher.
    pub held_by: HeldBy,
    /// Every cap that applies.
    pub caps: Vec<CapExplained<'a>>,
    /// What the level above `supported` misses.
    pub held_back: &'a [Shortfall],
    /// Levels 1 to 5 with the events that count.
    pub levels: &'a [LevelResult],
}

/// Explains one question as data.
pub fn explanation(question: &QuestionResult) -> Explanation<'_> {
    let allowed = caps::limit(&question.caps);
    let held_by = if question.claimed.is_some_and(|claimed| claimed < question.supported.min(allowed)) {
        HeldBy::Claim
    } else if allowed < question.supported {
        HeldBy::Cap
    } else if question.supported < 5 {
        HeldBy::Evidence
    } else {
        HeldBy::Nothing
    };
    let caps = question.caps.iter().map(|one| CapExplained {
        rule: &one.rule,
        limit: one.limit,
        bites: one.limit < question.supported,
        remedy: cap_remedy(&one.rule),
    });
    Explanation {
        id: &question.id,
        title: &question.title,
        statement: &question.statement,
        final_level: question.final_level,
        supported: question.supported,
        claimed: question.claimed,
        target: question.target,
        held_by,
        caps: caps.collect(),
        held_back: &question.held_back,
        levels: &question.levels,
    }
}

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
            let gap = held_line(question);
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

/// What holds the question back, after its title.
fn held_line(question: &QuestionResult) -> String {
    let explained = explanation(question);
    match explained.held_by {
        HeldBy::Nothing => String::new(),
        HeldBy::Claim => "; no more is claimed".to_owned(),
        HeldBy::Cap => {
            let biting = explained.caps.iter().filter(|cap| cap.bites).min_by_key(|cap| cap.limit);
            biting.map_or_else(String::new, |cap| format!("; cap {} holds it at {}", cap.rule, cap.limit))
        }
        HeldBy::Evidence => question.held_back.first().map_or_else(String::new, |gap| {
            format!("; level {} asks for {}: {} of {}", question.supported + 1, gap.what, gap.have, gap.need)
        }),
    }
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
    for cap in explanation(question).caps {
        let bites = if cap.bites { ", and it bites" } else { "" };
        writeln!(text, "cap {} at level {}{bites}: {}", cap.rule, cap.limit, cap.remedy)?;
    }
    if !question.held_back.is_empty() {
        writeln!(text, "level {} needs:", question.supported + 1)?;
    }
    for gap in &question.held_back {
        let missing = gap.need.saturating_sub(gap.have);
        writeln!(text, "  {}: {} of {}, {missing} missing", gap.what, gap.have, gap.need)?;
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
