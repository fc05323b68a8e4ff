//! The IntegrityIndex and the label: how far the evidence as a whole can be trusted.

use crate::configs;
use crate::report::{IntegrityBreakdown, Label, Penalty, Status};

/// How often each rule applies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Files in force that are unsigned or invalid, by path.
    pub broken_configs: Vec<String>,
    /// Claims above support.
    pub unsupported_claims: u64,
    /// Trace lines whose fields disagree with the event that they name.
    pub contradictions: u64,
    /// Invalid or replayed receipts.
    pub bad_receipts: u64,
    /// Whether fewer than nine in ten trace lines have a valid receipt.
    pub correlation_low: bool,
    /// Blocked egress outside of drills and probes.
    pub egress_blocked: u64,
    /// Sessions with traces of calls and no evidence of calls.
    pub llm_evidence_missing: u64,
    /// Assurance packs that the bank names and nobody ran.
    pub packs_not_run: u64,
    /// Sessions unsealed, interrupted, recovered or missing.
    pub bad_sessions: u64,
    /// Clock steps and rollbacks inside the window.
    pub clock_events: u64,
}

/// Coverage minus penalties. `log_fails`: the index is 0, whatever else.
pub fn integrity(coverage_bp: u32, counts: &Counts, log_fails: bool) -> (u32, IntegrityBreakdown) {
    let rows = [
        ("config_broken", counts.broken_configs.len() as u64, config_penalty_bp(&counts.broken_configs)),
        ("unsupported_claim", counts.unsupported_claims, per(counts.unsupported_claims, 800, 5_000)),
        ("contradiction", counts.contradictions, per(counts.contradictions, 500, 5_000)),
        ("receipt_invalid_or_replayed", counts.bad_receipts, per(counts.bad_receipts, 500, 3_000)),
        ("correlation_low", u64::from(counts.correlation_low), per(u64::from(counts.correlation_low), 1_000, 1_000)),
        ("egress_blocked", counts.egress_blocked, per(counts.egress_blocked, 300, 1_500)),
        ("llm_evidence_missing", counts.llm_evidence_missing, per(counts.llm_evidence_missing, 500, 2_500)),
        ("assurance_not_run", counts.packs_not_run, per(counts.packs_not_run, 800, 3_500)),
        ("session_unsealed_interrupted_or_missing", counts.bad_sessions, per(counts.bad_sessions, 500, 2_500)),
        ("clock_step_or_rollback", counts.clock_events, per(counts.clock_events, 500, 1_500)),
    ];
    let lost: u32 = rows.iter().map(|(_, _, penalty_bp)| penalty_bp).sum();
    let index = if log_fails { 0 } else { coverage_bp.min(10_000).saturating_sub(lost) };
    let penalties = rows.into_iter().map(|(rule, count, penalty_bp)| Penalty { rule: rule.into(), count, penalty_bp });
    (index, IntegrityBreakdown { coverage_bp, penalties: penalties.collect() })
}

fn per(count: u64, each_bp: u32, most_bp: u32) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX).saturating_mul(each_bp).min(most_bp)
}

fn config_penalty_bp(paths: &[String]) -> u32 {
    let sum = paths.iter().fold(0u32, |sum, path| sum.saturating_add(configs::penalty_bp(path)));
    if paths.is_empty() { 0 } else { sum.clamp(2_000, 100_000) }
}

/// The label of an index. `config_finding`: something is wrong with a configuration; `observed`:
/// half of the counted facts are OBSERVED or better.
pub fn label(index_bp: u32, status: Status, config_finding: bool, observed: bool) -> Label {
    match index_bp {
        _ if status == Status::Invalid => Label::Unreliable,
        ..4_000 => Label::Unreliable,
        4_000..6_000 => Label::Low,
        8_000.. if !config_finding && observed => Label::High,
        6_000.. => Label::Moderate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sets one row's count; then what it costs each, and at most.
    type Row = (fn(&mut Counts, u64), u32, u32);

    fn lost(counts: &Counts) -> u32 {
        10_000 - integrity(10_000, counts, false).0
    }

    #[test]
    fn configurations_cost_by_kind_and_two_thousand_at_least() {
        let paths = |paths: &[&str]| Counts {
            broken_configs: paths.iter().map(|path| (*path).to_owned()).collect(),
            ..Counts::default()
        };
        assert_eq!(lost(&paths(&[])), 0);
        assert_eq!(lost(&paths(&["gateway.yaml"])), 2_000);
        assert_eq!(lost(&paths(&["gateway.yaml", "amc.yaml"])), 2_500);
        assert_eq!(lost(&paths(&["fleet.yaml", "agents/a/agent.config.yaml"])), 2_000);
        assert_eq!(lost(&paths(&["users.yaml", "agents/a/gatePolicy.json"])), 2_400);
    }

    #[test]
    fn every_row_costs_each_and_at_most() {
        let row = |set: fn(&mut Counts, u64), count: u64| {
            let mut counts = Counts::default();
            set(&mut counts, count);
            lost(&counts)
        };
        let rows: [Row; 8] = [
            (|counts, n| counts.unsupported_claims = n, 800, 5_000),
            (|counts, n| counts.contradictions = n, 500, 5_000),
            (|counts, n| counts.bad_receipts = n, 500, 3_000),
            (|counts, n| counts.egress_blocked = n, 300, 1_500),
            (|counts, n| counts.llm_evidence_missing = n, 500, 2_500),
            (|counts, n| counts.packs_not_run = n, 800, 3_500),
            (|counts, n| counts.bad_sessions = n, 500, 2_500),
            (|counts, n| counts.clock_events = n, 500, 1_500),
        ];
        for (set, each, most) in rows {
            assert_eq!(row(set, 0), 0);
            assert_eq!(row(set, 1), each);
            let full = u64::from(most.div_ceil(each));
            assert_eq!(row(set, full), most);
            assert_eq!(row(set, full - 1), each * (u32::try_from(full).expect("small") - 1));
            assert_eq!(row(set, u64::MAX), most);
        }
        assert_eq!(lost(&Counts { correlation_low: true, ..Counts::default() }), 1_000);
    }

    #[test]
    fn the_index_is_clamped_and_zero_when_a_log_fails() {
        let bad = Counts { contradictions: 99, unsupported_claims: 99, bad_receipts: 99, ..Counts::default() };
        assert_eq!(integrity(10_000, &bad, false).0, 0);
        assert_eq!(integrity(11_000, &Counts::default(), false).0, 10_000);
        assert_eq!(integrity(10_000, &Counts::default(), true).0, 0);
    }

    #[test]
    fn labels_change_at_their_thresholds() {
        let plain = |index| label(index, Status::Valid, false, true);
        assert_eq!(plain(3_999), Label::Unreliable);
        assert_eq!(plain(4_000), Label::Low);
        assert_eq!(plain(5_999), Label::Low);
        assert_eq!(plain(6_000), Label::Moderate);
        assert_eq!(plain(7_999), Label::Moderate);
        assert_eq!(plain(8_000), Label::High);
        assert_eq!(label(9_000, Status::Valid, true, true), Label::Moderate, "a config finding");
        assert_eq!(label(9_000, Status::Valid, false, false), Label::Moderate, "too little observed");
        assert_eq!(label(9_000, Status::Invalid, false, true), Label::Unreliable);
    }
}
