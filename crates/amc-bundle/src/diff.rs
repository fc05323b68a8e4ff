//! What changed between two verified runs: window, status, levels, findings.

use std::collections::{BTreeMap, BTreeSet};

use amc_core::Finding;
use amc_scoring::Report;
use serde::Serialize;

/// A value before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change<T> {
    /// In the first; `None` where it has no such thing.
    pub from: Option<T>,
    /// In the second.
    pub to: Option<T>,
}

/// A change of something that has a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Named<T> {
    /// The name.
    pub id: String,
    /// The change.
    #[serde(flatten)]
    pub change: Change<T>,
}

/// The differences of two reports; what is equal is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Single values that differ, by the report's own names, in its order.
    pub values: Vec<Named<String>>,
    /// Layers whose level differs, in basis points of a level.
    pub layers: Vec<Named<u32>>,
    /// Questions whose final level differs.
    pub questions: Vec<Named<u8>>,
    /// Findings that only the first has.
    pub findings_gone: Vec<Finding>,
    /// Findings that only the second has.
    pub findings_new: Vec<Finding>,
}

impl Difference {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
            && self.layers.is_empty()
            && self.questions.is_empty()
            && self.findings_gone.is_empty()
            && self.findings_new.is_empty()
    }

    /// The differences as lines for a person.
    pub fn text(&self) -> String {
        fn shown<T: ToString>(value: Option<&T>) -> String {
            value.map_or_else(|| "-".to_owned(), ToString::to_string)
        }
        fn lines<T: ToString>(what: &str, changes: &[Named<T>]) -> String {
            let line = |named: &Named<T>| {
                let Change { from, to } = &named.change;
                format!("{what}{}: {} -> {}\n", named.id, shown(from.as_ref()), shown(to.as_ref()))
            };
            changes.iter().map(line).collect()
        }
        let found = |mark: &str, findings: &[Finding]| -> String {
            findings.iter().map(|finding| format!("{mark} {finding}\n")).collect()
        };
        if self.is_empty() {
            return "Nothing differs\n".to_owned();
        }
        lines("", &self.values)
            + &lines("layer ", &self.layers)
            + &lines("question ", &self.questions)
            + &found("gone:", &self.findings_gone)
            + &found("new: ", &self.findings_new)
    }
}

/// Compares two reports.
pub fn diff(from: &Report, to: &Report) -> Difference {
    let levels = |report: &Report| report.layers.iter().map(|layer| (layer.id.clone(), layer.level_bp)).collect();
    let finals =
        |report: &Report| report.questions.iter().map(|question| (question.id.clone(), question.final_level)).collect();
    let gone = |a: &Report, b: &Report| -> Vec<Finding> {
        let others: BTreeSet<&Finding> = b.findings.iter().collect();
        a.findings.iter().filter(|finding| !others.contains(finding)).cloned().collect()
    };
    Difference {
        values: values(from).into_iter().zip(values(to)).filter_map(|(a, b)| differing(a, b)).collect(),
        layers: named(levels(from), &levels(to)),
        questions: named(finals(from), &finals(to)),
        findings_gone: gone(from, to),
        findings_new: gone(to, from),
    }
}

/// The single values that a reader compares first.
fn values(report: &Report) -> [(&'static str, String); 15] {
    let counted = report.sessions.iter().filter(|session| session.counted).count();
    [
        ("workspace", report.workspace.to_string()),
        ("agent", report.agent.to_string()),
        ("run_id", report.run_id.to_string()),
        ("scorer", report.scorer.clone()),
        ("bank", report.bank.sha256.to_string()),
        ("target", report.target.as_ref().map_or_else(|| "-".into(), |target| target.sha256.to_string())),
        ("claims", report.claims_sha256.map_or_else(|| "-".into(), |sha256| sha256.to_string())),
        ("as_of", report.as_of.clone()),
        ("window_s", report.window_s.to_string()),
        ("evidence.size", report.evidence.size.to_string()),
        ("status", report.status.to_string()),
        ("label", report.label.to_string()),
        ("overall_bp", report.overall_bp.to_string()),
        ("integrity_bp", report.integrity_bp.to_string()),
        ("sessions counted", counted.to_string()),
    ]
}

fn differing(a: (&str, String), b: (&str, String)) -> Option<Named<String>> {
    (a.1 != b.1).then(|| Named { id: a.0.to_owned(), change: Change { from: Some(a.1), to: Some(b.1) } })
}

/// What differs between two lists of named values: those of the first in order of name, then the new ones.
fn named<T: Copy + PartialEq>(from: BTreeMap<String, T>, to: &BTreeMap<String, T>) -> Vec<Named<T>> {
    let new: Vec<Named<T>> = to
        .iter()
        .filter(|(id, _)| !from.contains_key(*id))
        .map(|(id, value)| Named { id: id.clone(), change: Change { from: None, to: Some(*value) } })
        .collect();
    let changed = from.into_iter().filter_map(|(id, value)| {
        let other = to.get(&id).copied();
        (other != Some(value)).then_some(Named { id, change: Change { from: Some(value), to: other } })
    });
    changed.chain(new).collect()
}
