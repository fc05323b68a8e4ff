//! Recomputing: the run's entry, the seal, the score and its pages.

use amc_core::kinds::Fields;
use amc_core::{Finding, FindingCode, Tier};
use amc_evidence::VerifiedEvent;
use amc_scoring::{Report, render};
use serde_json::Value;

use crate::member;
use crate::seal::run_entry;

/// The run's own entry. Beside it the report's slice leaves out only what happened to keys and logs since, which a
/// verifier walks from the pinned key to the checkpoint's.
pub(super) fn check_entry<'a>(
    report: &Report,
    audit: &'a [VerifiedEvent],
    findings: &mut Vec<Finding>,
) -> Option<&'a VerifiedEvent> {
    let mut error = |what: String| findings.push(Finding::error(FindingCode::RunMissing, member::AUDIT_EVENTS, what));
    let since = audit.iter().filter(|record| record.event.index >= report.audit.size);
    let mut after = since.filter(|record| {
        !matches!(&record.fields, Some(Fields::KeyRotated(_) | Fields::KeyRevoked(_) | Fields::LogSucceeded(_)))
    });
    let (Some(own), None) = (after.next(), after.next()) else {
        error(format!("it does not have exactly the run's entry after the {} that the run covers", report.audit.size));
        return None;
    };
    let wanted = run_entry(report);
    match &own.fields {
        Some(Fields::RunRecorded(entry)) if *entry == wanted => Some(own),
        Some(Fields::RunRecorded(_)) => {
            error(format!("entry {} records another run or says something else of this one", own.event.index));
            None
        }
        _ => {
            error(format!("entry {} is not the run's", own.event.index));
            None
        }
    }
}

/// What a reader looks at first; a difference there is named before any other.
const HEADLINES: [&str; 6] = ["scorer", "run_id", "status", "label", "overall_bp", "integrity_bp"];

/// The first field in which two reports differ, as a path such as `questions[3].final`.
pub(super) fn first_difference(found: &Report, wanted: &Report) -> Option<String> {
    let value = |report: &Report| serde_json::to_value(report).ok();
    let (found, wanted) = (value(found)?, value(wanted)?);
    let headline = |key: &&str| differs(key, found.get(key)?, wanted.get(key)?);
    HEADLINES.iter().find_map(headline).or_else(|| differs("", &found, &wanted))
}

fn differs(at: &str, found: &Value, wanted: &Value) -> Option<String> {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => wanted.iter().find_map(|(key, wanted)| {
            let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
            differs(&at, found.get(key).unwrap_or(&Value::Null), wanted)
        }),
        (Value::Array(found), Value::Array(wanted)) if found.len() != wanted.len() => {
            Some(format!("{at} (it has {} entries, and {} recompute)", found.len(), wanted.len()))
        }
        (Value::Array(found), Value::Array(wanted)) => {
            let mut pairs = found.iter().zip(wanted).enumerate();
            pairs.find_map(|(place, (found, wanted))| differs(&format!("{at}[{place}]"), found, wanted))
        }
        _ if found == wanted => None,
        _ => Some(format!("{at} (it says {}, and {} recomputes)", short(found), short(wanted))),
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() > 80 { text.chars().take(77).chain("...".chars()).collect() } else { text }
}

/// The pages of a report, by member.
pub(super) fn pages(report: &Report) -> [(&'static str, Vec<u8>); 2] {
    [
        (member::REPORT_MD, render::markdown(report).into_bytes()),
        (member::REPORT_HTML, render::html(report).into_bytes()),
    ]
}

/// Questions at level 5 with an event behind that level that is not OBSERVED-class, or with none.
pub(crate) fn level5_not_observed(report: &Report, tier_of: impl Fn(u64) -> Option<Tier>) -> Vec<String> {
    let observed = |index: &u64| tier_of(*index).is_some_and(|tier| tier >= Tier::Observed);
    let rests_on_observed = |events: &[u64]| !events.is_empty() && events.iter().all(observed);
    let fives = report.questions.iter().filter(|question| question.final_level >= 5);
    let others = fives.filter(|question| {
        let level = question.levels.iter().find(|level| level.level == 5);
        !level.is_some_and(|level| rests_on_observed(&level.events))
    });
    others.map(|question| question.id.clone()).collect()
}
