//! The report as pages for people: Markdown, and one self-contained HTML page.
//!
//! Both show what the report says and nothing else. Every value is escaped: provider and model
//! names are words of untrusted parties.

mod escape;
mod html;
mod markdown;
mod style;

use amc_core::Tier;

use crate::facts::{FACTS, FactKind};
use crate::report::{Correlation, FactSummary, Report};

pub use html::html;
pub use markdown::markdown;

/// Every kind of document, and what the run has of it.
fn documents(report: &Report) -> impl Iterator<Item = (&'static FactKind, Option<&FactSummary>)> {
    let kinds = FACTS.iter().filter(|kind| kind.family() == "document");
    kinds.map(|kind| (kind, report.facts.iter().find(|fact| fact.fact == kind.id && fact.pass > 0)))
}

/// A kind of document for people.
fn document_name(kind: &FactKind) -> String {
    kind.id.trim_start_matches("document.").replace('_', " ")
}

/// How the best document of a kind came to be believed.
fn document_text(summary: Option<&FactSummary>) -> String {
    let Some(summary) = summary else { return "not on record".to_owned() };
    let how = match summary.best_tier {
        Tier::SelfReported => "handed in, and attested by nobody",
        _ => "attested by the auditor",
    };
    if summary.pass > 1 { format!("{} files, the best {how}", summary.pass) } else { how.to_owned() }
}

/// What the agent's trace is worth, in a sentence.
fn correlation_text(correlation: &Correlation) -> String {
    if !correlation.applicable {
        return "Not applicable: the agent printed no trace lines about model calls.".to_owned();
    }
    let low = if correlation.ratio_bp < crate::correlate::RATIO_BP_MIN {
        " Nine in ten is the least, so questions about observability, verification and honesty are capped."
    } else {
        ""
    };
    let (lines, valid, ratio) = (correlation.lines, correlation.valid, percent_text(correlation.ratio_bp));
    format!("{valid} of {lines} trace lines about model calls have a receipt of their own that holds: {ratio}.{low}")
}

/// A level in basis points as text: 32,500 is `3.25`. Rounds down.
pub(crate) fn level_text(bp: u32) -> String {
    format!("{}.{:02}", bp / 10_000, bp % 10_000 / 100)
}

/// Basis points as a percentage: 8,750 is `87.50 %`.
pub(crate) fn percent_text(bp: u32) -> String {
    format!("{}.{:02} %", bp / 100, bp % 100)
}

/// What is taken away, with its sign where there is anything.
fn minus(bp: u32) -> String {
    if bp == 0 { "0".to_owned() } else { format!("−{bp}") }
}

/// A rule's name for people.
fn rule_text(rule: &str) -> String {
    rule.replace('_', " ")
}

/// A window as text: whole days where it is, else seconds.
pub(crate) fn window_text(window_s: u64) -> String {
    match (window_s / 86_400, window_s % 86_400) {
        (1, 0) => "1 day".to_owned(),
        (days, 0) => format!("{days} days"),
        _ => format!("{window_s} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_down() {
        assert_eq!(level_text(0), "0.00");
        assert_eq!(level_text(32_599), "3.25");
        assert_eq!(level_text(50_000), "5.00");
        assert_eq!(percent_text(8_750), "87.50 %");
        assert_eq!(percent_text(9), "0.09 %");
        assert_eq!(window_text(14 * 86_400), "14 days");
        assert_eq!(window_text(86_400), "1 day");
        assert_eq!(window_text(90), "90 s");
    }
}
