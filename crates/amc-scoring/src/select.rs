//! Which events a score reads, and hence which a bundle must carry.
use std::collections::BTreeSet;

use amc_core::AgentId;
use amc_evidence::EventRecord;

/// Indices of the evidence events that a run of `agent` reads.
pub fn select_evidence<'a>(
    agent: &AgentId,
    as_of_ns: i64,
    window_s: u64,
    records: impl Iterator<Item = &'a EventRecord>,
) -> BTreeSet<u64> {
    let _ = (agent, as_of_ns, window_s, records.count());
    BTreeSet::new()
}

/// Indices of the audit events that a run of `agent` reads.
pub fn select_audit<'a>(agent: &AgentId, records: impl Iterator<Item = &'a EventRecord>) -> BTreeSet<u64> {
    let _ = (agent, records.count());
    BTreeSet::new()
}
