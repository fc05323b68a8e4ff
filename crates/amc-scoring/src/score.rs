//! The run: events in, report out.

use amc_core::kinds::LogHead;
use amc_core::{AgentId, WorkspaceName};
use amc_evidence::VerifiedEvent;

use crate::bank::Bank;
use crate::claims::{Claims, Target};
use crate::report::Report;

/// Everything that a score depends on. Nothing else changes a byte of the report.
#[derive(Debug, Clone)]
pub struct ScoreInput<'a> {
    /// The workspace.
    pub workspace: &'a WorkspaceName,
    /// The agent.
    pub agent: &'a AgentId,
    /// The slice of the evidence log: events from its size on are ignored.
    pub evidence_head: LogHead,
    /// The slice of the audit log: events from its size on are ignored.
    pub audit_head: LogHead,
    /// The whole slice, or exactly what [`select_evidence`](crate::select_evidence) names, in any order.
    pub evidence: &'a [VerifiedEvent],
    /// The whole slice, or exactly what [`select_audit`](crate::select_audit) names, in any order.
    pub audit: &'a [VerifiedEvent],
    /// The bank in force.
    pub bank: &'a Bank,
    /// The end of the window (exclusive), nanoseconds since the epoch.
    pub as_of_ns: i64,
    /// The window's length in seconds.
    pub window_s: u64,
    /// What is claimed, if anything.
    pub claims: Option<&'a Claims>,
    /// What is aimed at, if anything.
    pub target: Option<&'a Target>,
}

/// Scores a run. The same input gives the same bytes, whatever the order of the events.
pub fn score(input: &ScoreInput<'_>) -> Report {
    let _ = input;
    unreachable!("under construction")
}
