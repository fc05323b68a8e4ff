//! Whose events are here, and whether sessions are missing.
//!
//! Completeness is the monitor's signed statement: session numbers are contiguous and linked, every
//! seal describes its session's events, and `agent_head` names the newest session. A bundle must
//! agree with it.

use std::collections::BTreeSet;

use amc_core::kinds::{AgentHead, Fields, SessionOpen};
use amc_core::{AgentId, Finding, FindingCode, SessionId};
use amc_evidence::{SessionRules, VerifiedEvent};

use super::logs::LogEvents;

/// Checks all of it.
pub(super) fn check(log: &LogEvents, agent: &AgentId, findings: &mut Vec<Finding>) {
    let mut rules = SessionRules::part_of_log();
    let mut known = BTreeSet::new();
    for record in &log.events {
        let event = &record.event;
        let subject = log.subject(event.index);
        if event.agent.as_ref().is_some_and(|other| other != agent) {
            let what = format!("this event is of another agent than {agent}; a bundle holds one agent's events");
            findings.push(Finding::error(FindingCode::BundleMemberMismatch, subject, what));
            continue;
        }
        match (&record.fields, event.session) {
            // Heads may name sessions before the first one here, so they have checks of their own.
            (Some(Fields::AgentHead(head)), None) => check_open(&subject, head, &rules, &known, findings),
            (fields, session) => {
                known.extend(session);
                findings.extend(rules.apply(&subject, event, fields.as_ref(), record.hash));
            }
        }
    }
    check_head(log, findings);
}

/// Of the sessions that are here, a head lists exactly those that are open where it stands.
fn check_open(
    subject: &str,
    head: &AgentHead,
    rules: &SessionRules,
    known: &BTreeSet<SessionId>,
    findings: &mut Vec<Finding>,
) {
    let listed = head.open_sessions.iter().filter(|id| known.contains(id));
    if !listed.eq(rules.open().keys()) {
        let what = "the head does not list the sessions that are open where it stands";
        findings.push(Finding::error(FindingCode::SessionGap, subject, what));
    }
}

fn opening(record: &VerifiedEvent) -> Option<(&VerifiedEvent, &SessionOpen)> {
    match &record.fields {
        Some(Fields::SessionOpen(open)) => Some((record, open)),
        _ => None,
    }
}

fn head(record: &VerifiedEvent) -> Option<(&VerifiedEvent, &AgentHead)> {
    match &record.fields {
        Some(Fields::AgentHead(head)) => Some((record, head)),
        _ => None,
    }
}

fn check_head(log: &LogEvents, findings: &mut Vec<Finding>) {
    let mut gap = |subject: String, what: String| {
        findings.push(Finding::error(FindingCode::SessionGap, subject, what));
    };
    let sealed = log.events.iter().filter(|record| matches!(record.fields, Some(Fields::SessionSeal(_)))).count();
    let Some((record, newest)) = log.events.iter().rev().find_map(head) else {
        // The head follows each seal; a slice may end between the very first seal and its head.
        if sealed > 1 {
            gap(
                log.origin().to_owned(),
                "no agent_head is here, so nobody can tell whether sessions are missing".into(),
            );
        }
        return;
    };
    let before = log.events.iter().take_while(|other| other.event.index < record.event.index);
    let last = before.filter_map(opening).last();
    let subject = log.subject(record.event.index);
    match last {
        Some((open, fields)) if fields.number == newest.last_number && open.hash == newest.last_open_hash => {}
        Some((_, fields)) => {
            let what = format!(
                "the agent's newest session before this head is number {}, and the one here is number {}; sessions \
                 are missing",
                newest.last_number, fields.number
            );
            gap(subject, what);
        }
        None if newest.last_number == 0 => {}
        None => gap(subject, format!("the agent had {} sessions and none is here", newest.last_number)),
    }
}
