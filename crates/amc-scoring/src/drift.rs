//! Drift: what changed between two runs of one agent, and why, as far as the reports tell.
//!
//! Pure, and no verdict: both reports are taken at their word. Levels that fell are explained by
//! caps that are new and by what the lost level misses now; levels that rose by caps that are gone
//! and by support that grew.

use std::collections::{BTreeMap, BTreeSet};

use amc_core::FindingCode;
use serde::Serialize;

use crate::report::{Cap, QuestionResult, Report};

/// What changed from one run to the next. Only what differs is listed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// Layers whose value changed, in the report's order.
    pub layers: Vec<LayerDrift>,
    /// Questions whose final level changed, in the report's order.
    pub questions: Vec<QuestionDrift>,
    /// Codes that were not found before, with how often they are found now.
    pub findings_new: Vec<CodeCount>,
    /// Codes that are found no more, with how often they were.
    pub findings_gone: Vec<CodeCount>,
    /// Inputs that are not the same and so explain much: `scorer`, `bank`, `window`, `claims`, `target`, `epoch`.
    pub inputs: Vec<&'static str>,
}

/// A layer's value before and after, in basis points of a level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerDrift {
    /// Its id.
    pub id: String,
    /// Before.
    pub from_bp: u32,
    /// After.
    pub to_bp: u32,
}

/// A question's final level before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QuestionDrift {
    /// Its id.
    pub id: String,
    /// Before; `None` where the bank did not ask it.
    pub from: Option<u8>,
    /// After; `None` where the bank asks it no more.
    pub to: Option<u8>,
    /// Why, in sentences without a full stop.
    pub why: Vec<String>,
}

/// How often a code was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CodeCount {
    /// The code.
    pub code: FindingCode,
    /// How often.
    pub count: u64,
}

/// What changed from `before` to `after`.
pub fn drift(before: &Report, after: &Report) -> Drift {
    let layers = after.layers.iter().filter_map(|layer| {
        let old = before.layers.iter().find(|old| old.id == layer.id)?;
        let changed = LayerDrift { id: layer.id.clone(), from_bp: old.level_bp, to_bp: layer.level_bp };
        (changed.from_bp != changed.to_bp).then_some(changed)
    });
    let asked =
        after.questions.iter().map(|question| (question.id.as_str(), before.question(&question.id), Some(question)));
    let dropped = before.questions.iter().filter(|question| after.question(&question.id).is_none());
    let dropped = dropped.map(|question| (question.id.as_str(), Some(question), None));
    let questions = asked.chain(dropped).filter_map(|(id, old, new)| question_drift(id, old, new));
    let (old, new) = (codes(before), codes(after));
    Drift {
        layers: layers.collect(),
        questions: questions.collect(),
        findings_new: only_in(&new, &old),
        findings_gone: only_in(&old, &new),
        inputs: inputs(before, after),
    }
}

fn question_drift(id: &str, old: Option<&QuestionResult>, new: Option<&QuestionResult>) -> Option<QuestionDrift> {
    let (from, to) = (old.map(|question| question.final_level), new.map(|question| question.final_level));
    let why = match (old, new) {
        _ if from == to => return None,
        (Some(old), Some(new)) if new.final_level < old.final_level => why_fallen(old, new),
        (Some(old), Some(new)) => why_risen(old, new),
        (None, _) => vec!["the bank did not ask it before".to_owned()],
        (_, None) => vec!["the bank asks it no more".to_owned()],
    };
    Some(QuestionDrift { id: id.to_owned(), from, to, why })
}

fn why_fallen(old: &QuestionResult, new: &QuestionResult) -> Vec<String> {
    let fresh = caps_only_in(new, old).filter(|cap| cap.limit < old.final_level);
    let mut why: Vec<String> = fresh.map(|cap| format!("new cap {}: at most level {}", cap.rule, cap.limit)).collect();
    if new.claimed != old.claimed && new.claimed.is_some_and(|claimed| claimed < old.final_level) {
        why.push("less is claimed".to_owned());
    }
    if new.supported < old.final_level {
        let missing = new.held_back.iter().map(|gap| format!("{}: {} of {}", gap.what, gap.have, gap.need));
        why.push(format!("level {} now misses {}", new.supported + 1, missing.collect::<Vec<_>>().join("; ")));
    }
    why
}

fn why_risen(old: &QuestionResult, new: &QuestionResult) -> Vec<String> {
    let gone = caps_only_in(old, new).filter(|cap| cap.limit < new.final_level);
    let mut why: Vec<String> = gone.map(|cap| format!("cap {} is gone", cap.rule)).collect();
    if new.claimed != old.claimed && old.claimed.is_some_and(|claimed| claimed < new.final_level) {
        why.push("the claim no longer holds it down".to_owned());
    }
    if new.supported > old.supported {
        why.push(format!("the evidence supports level {} where it supported {}", new.supported, old.supported));
    }
    why
}

fn caps_only_in<'a>(one: &'a QuestionResult, other: &QuestionResult) -> impl Iterator<Item = &'a Cap> {
    let known: BTreeSet<&Cap> = other.caps.iter().collect();
    let fresh: Vec<&Cap> = one.caps.iter().filter(|cap| !known.contains(cap)).collect();
    fresh.into_iter()
}

fn codes(report: &Report) -> BTreeMap<FindingCode, u64> {
    report.findings.iter().fold(BTreeMap::new(), |mut counts, finding| {
        *counts.entry(finding.code).or_default() += 1;
        counts
    })
}

fn only_in(one: &BTreeMap<FindingCode, u64>, other: &BTreeMap<FindingCode, u64>) -> Vec<CodeCount> {
    let fresh = one.iter().filter(|(code, _)| !other.contains_key(code));
    fresh.map(|(code, count)| CodeCount { code: *code, count: *count }).collect()
}

fn inputs(before: &Report, after: &Report) -> Vec<&'static str> {
    let epoch = |report: &Report| report.epochs.iter().map(|epoch| epoch.from_index).max();
    let target = |report: &Report| report.target.as_ref().map(|target| target.sha256);
    let differ = [
        ("scorer", before.scorer != after.scorer),
        ("bank", before.bank != after.bank),
        ("window", before.window_s != after.window_s),
        ("claims", before.claims_sha256 != after.claims_sha256),
        ("target", target(before) != target(after)),
        ("epoch", epoch(before) != epoch(after)),
    ];
    differ.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}
