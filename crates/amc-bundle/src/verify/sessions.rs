//! Whose events are here, and whether sessions are missing.
//!
//! Completeness is the monitor's signed statement: session numbers are contiguous and linked, every
//! seal describes its session's events, and `agent_head` names the newest session. A bundle must
//! agree with it.

use std::collections::BTreeSet;

use amc_core::kinds::{AgentHead, Fields};
use amc_core::{AgentId, Digest, Finding, FindingCode, SessionId};
use amc_evidence::{SessionRules, VerifiedEvent};

/// Checks all of it, while the events pass.
pub(super) struct SessionCheck {
    origin: String,
    agent: AgentId,
    rules: SessionRules,
    known: BTreeSet<SessionId>,
    sealed: u64,
    opened: Option<Opened>,
    head: Option<Head>,
    findings: Vec<Finding>,
}

/// The newest opening: the session's number, the event's hash.
type Opened = (u64, Digest);

/// The newest head.
struct Head {
    index: u64,
    says: AgentHead,
    /// The newest opening before it.
    opened: Option<Opened>,
}

impl SessionCheck {
    pub(super) fn new(origin: &str, agent: &AgentId) -> Self {
        SessionCheck {
            origin: origin.to_owned(),
            agent: agent.clone(),
            rules: SessionRules::part_of_log(),
            known: BTreeSet::new(),
            sealed: 0,
            opened: None,
            head: None,
            findings: Vec::new(),
        }
    }

    fn subject(&self, index: u64) -> String {
        format!("{}#{index}", self.origin)
    }

    /// The next event.
    pub(super) fn take(&mut self, record: &VerifiedEvent) {
        let event = &record.event;
        match &record.fields {
            Some(Fields::SessionSeal(_)) => self.sealed += 1,
            Some(Fields::SessionOpen(open)) => self.opened = Some((open.number, record.hash)),
            Some(Fields::AgentHead(head)) => {
                self.head = Some(Head { index: event.index, says: head.clone(), opened: self.opened });
            }
            _ => {}
        }
        let subject = self.subject(event.index);
        if event.agent.as_ref().is_some_and(|other| *other != self.agent) {
            let what = format!("this event is of another agent than {}; a bundle holds one agent's events", self.agent);
            self.findings.push(Finding::error(FindingCode::BundleMemberMismatch, subject, what));
            return;
        }
        match (&record.fields, event.session) {
            // Heads may name sessions before the first one here, so they have checks of their own.
            (Some(Fields::AgentHead(head)), None) => {
                check_open(&subject, head, &self.rules, &self.known, &mut self.findings);
            }
            (fields, session) => {
                self.known.extend(session);
                self.findings.extend(self.rules.apply(&subject, event, fields.as_ref(), record.hash));
            }
        }
    }

    /// What is wrong.
    pub(super) fn finish(mut self) -> Vec<Finding> {
        self.check_head();
        self.findings
    }

    fn check_head(&mut self) {
        let Some(Head { index, says: newest, opened }) = self.head.take() else {
            // The head follows each seal; a slice may end between the very first seal and its head.
            if self.sealed > 1 {
                let what = "no agent_head is here, so nobody can tell whether sessions are missing";
                self.findings.push(Finding::error(FindingCode::SessionGap, self.origin.clone(), what));
            }
            return;
        };
        let what = match opened {
            Some((number, hash)) if number == newest.last_number && hash == newest.last_open_hash => return,
            Some((number, _)) => format!(
                "the agent's newest session before this head is number {}, and the one here is number {number}; sessions \
                 are missing",
                newest.last_number
            ),
            None if newest.last_number == 0 => return,
            None => format!("the agent had {} sessions and none is here", newest.last_number),
        };
        self.findings.push(Finding::error(FindingCode::SessionGap, self.subject(index), what));
    }
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
