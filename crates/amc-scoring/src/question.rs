//! One question: from facts to the level that stands, its value and what holds it back.

use amc_core::{Finding, FindingCode};

use crate::bank::{Question, Tag};
use crate::caps::{self, Circumstances};
use crate::facts::{Fact, Weighed, weigh};
use crate::gate::{Ground, Standing, TABLE, Verdict, holds_sandboxed, judge};
use crate::report::{Cap, LevelResult, QuestionResult};

/// A question, and what was said about it beforehand.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The question.
    pub question: &'a Question,
    /// The level that somebody claims.
    pub claimed: Option<u8>,
    /// The level to aim at.
    pub target: Option<u8>,
}

/// What there is to answer it with.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// All facts of the run, sorted.
    pub facts: &'a [Fact],
    /// The sessions that they refer to by position.
    pub sessions: &'a [Standing],
    /// Whether a blocker stands.
    pub blocker: bool,
    /// The end of the window, nanoseconds since the epoch.
    pub as_of_ns: i64,
    /// What limits questions.
    pub circumstances: &'a Circumstances,
}

/// The facts that a question names, from all facts of a run, sorted.
pub fn named<'a>(question: &Question, facts: &'a [Fact]) -> impl Iterator<Item = &'a Fact> {
    let ids: Vec<&str> = question.facts().into_iter().collect();
    let runs: Vec<&'a [Fact]> = ids
        .into_iter()
        .map(|id| {
            let from = facts.partition_point(|fact| fact.id < id);
            let len = facts[from..].partition_point(|fact| fact.id == id);
            &facts[from..from + len]
        })
        .collect();
    runs.into_iter().flatten()
}

/// Answers a question; the findings are about claims and missing sandboxes.
pub fn answer(asked: &Asked<'_>, evidence: &Evidence<'_>) -> (QuestionResult, Vec<Finding>) {
    let question = asked.question;
    let high_risk = question.is(Tag::HighRisk);
    let own = named(question, evidence.facts);
    let facts: Vec<Weighed<'_>> = own.filter_map(|fact| weigh(fact, evidence.as_of_ns, high_risk)).collect();
    let ground = Ground { facts: &facts, sessions: evidence.sessions, blocker: evidence.blocker };
    let verdicts = TABLE.each_ref().map(|row| judge(question, row, &ground, false));
    let held = verdicts.iter().take_while(|verdict| verdict.holds()).count();
    let supported = u8::try_from(held).expect("the table has five rows");
    let sandboxed = holds_sandboxed(question, &ground);
    let caps = caps::caps(question, &facts, sandboxed, evidence.circumstances);
    let final_level = supported.min(asked.claimed.unwrap_or(5)).min(caps::limit(&caps));
    let (value_bp, confidence_bp) = value(&verdicts, final_level);
    let held_back = verdicts.get(held).map(|verdict| verdict.shortfalls.clone());
    let levels = TABLE.iter().zip(verdicts).map(|(row, verdict)| LevelResult {
        level: row.level,
        holds: verdict.holds(),
        events: verdict.events.into_iter().collect(),
    });
    let findings = findings(asked, supported, &caps);
    let result = QuestionResult {
        id: question.id.clone(),
        layer: question.layer.id().to_owned(),
        title: question.title.clone(),
        tags: question.tags.iter().map(|tag| tag.as_str().to_owned()).collect(),
        final_level,
        supported,
        claimed: asked.claimed,
        target: asked.target,
        statement: question.levels[usize::from(final_level)].clone(),
        value_bp,
        confidence_bp,
        caps,
        held_back: held_back.unwrap_or_default(),
        levels: levels.collect(),
    };
    (result, findings)
}

/// Value and confidence: level × mean weight of the best facts, and support beyond the minimum.
fn value(verdicts: &[Verdict<'_>; 5], final_level: u8) -> (u32, u32) {
    let at = usize::from(final_level).checked_sub(1);
    let Some((row, verdict)) = at.and_then(|at| TABLE.get(at).zip(verdicts.get(at))) else { return (0, 0) };
    let weights: u64 = verdict.best.iter().map(|weighed| u64::from(weighed.weight_bp)).sum();
    let level = u64::from(final_level);
    let value = (level * weights / row.events).min(level * 10_000);
    let twice = 2 * row.events;
    let confidence = 10_000 * verdict.support.min(twice) / twice;
    let narrow = |number: u64| u32::try_from(number).expect("at most 50,000 by the minima above");
    (narrow(value), narrow(confidence))
}

fn findings(asked: &Asked<'_>, supported: u8, caps: &[Cap]) -> Vec<Finding> {
    let id = &asked.question.id;
    let mut findings = Vec::new();
    if let Some(claimed) = asked.claimed.filter(|claimed| *claimed > supported) {
        let what = format!("level {claimed} is claimed and the evidence supports {supported}");
        findings.push(Finding::warn(FindingCode::FlagUnsupportedClaim, id, what));
    }
    if supported == 5 && caps.iter().any(|cap| cap.rule == "sandbox_required") {
        let what = "level 5 of a high-risk question needs sessions with an attested sandbox; it stands at 4";
        findings.push(Finding::warn(FindingCode::FlagSandboxRequired, id, what));
    }
    findings
}
