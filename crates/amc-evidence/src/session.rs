//! The rules of sessions: contiguous numbers, contiguous sequences, seals that say the truth.

use std::collections::BTreeMap;

use amc_core::kinds::{
    AgentHead, Fields, Isolation, SessionChannel, SessionLink, SessionOpen, SessionOutcome, SessionPurpose, SessionSeal,
};
use amc_core::{AgentId, Digest, Finding, FindingCode, LeaseId, SessionId};
use amc_crypto::merkle::Frontier;
use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::log::BuildError;

/// What an opening says beyond number and back link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPlan {
    /// What the session is for.
    pub purpose: SessionPurpose,
    /// How it is observed.
    pub channel: SessionChannel,
    /// What isolation was asked for.
    pub isolation: Isolation,
    /// The command.
    pub argv: Vec<String>,
    /// SHA-256 of the executable.
    pub artifact: Option<Digest>,
    /// The lease.
    pub lease: Option<LeaseId>,
}

/// A session without a seal so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSession {
    /// Whose it is.
    pub agent: AgentId,
    /// Index of its open.
    pub first_index: u64,
    /// Index of its newest event.
    pub last_index: u64,
    /// The next `session_seq`.
    pub next_seq: u32,
    hashes: Frontier,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Agent {
    last: SessionLink,
}

/// The sessions of a log, or of a part of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRules {
    open: BTreeMap<SessionId, OpenSession>,
    agents: BTreeMap<AgentId, Agent>,
    whole: bool,
}

impl SessionRules {
    /// For a log from its first event on: numbers start at 1.
    pub const fn whole_log() -> Self {
        SessionRules { open: BTreeMap::new(), agents: BTreeMap::new(), whole: true }
    }

    /// For a part of a log: an agent's first session here may have any number and back link.
    pub const fn part_of_log() -> Self {
        SessionRules { open: BTreeMap::new(), agents: BTreeMap::new(), whole: false }
    }

    /// Sessions without a seal.
    pub const fn open(&self) -> &BTreeMap<SessionId, OpenSession> {
        &self.open
    }

    /// The newest opening of an agent.
    pub fn last_open(&self, agent: &AgentId) -> Option<&SessionLink> {
        self.agents.get(agent).map(|known| &known.last)
    }

    /// Agents that ever had a session, ascending.
    pub fn agents(&self) -> impl Iterator<Item = &AgentId> {
        self.agents.keys()
    }

    pub(crate) fn open_fields(
        &self,
        agent: &AgentId,
        session: SessionId,
        plan: SessionPlan,
    ) -> Result<SessionOpen, BuildError> {
        if self.open.contains_key(&session) {
            return Err(BuildError::SessionExists(session));
        }
        let previous = self.last_open(agent).cloned();
        let SessionPlan { purpose, channel, isolation, argv, artifact, lease } = plan;
        let number = previous.as_ref().map_or(1, |link| link.number + 1);
        Ok(SessionOpen { number, purpose, channel, isolation, argv, artifact, lease, previous })
    }

    pub(crate) fn seal_fields(&self, session: SessionId, outcome: SessionOutcome) -> Result<SessionSeal, BuildError> {
        let open = self.open.get(&session).ok_or(BuildError::SessionNotOpen(session))?;
        Ok(open.seal(outcome))
    }

    pub(crate) fn head_fields(&self, agent: &AgentId) -> AgentHead {
        let (last_number, last_open_hash) =
            self.last_open(agent).map_or((0, Digest::ZERO), |link| (link.number, link.event_hash));
        let open_sessions = self.open.iter().filter(|(_, open)| open.agent == *agent).map(|(id, _)| *id).collect();
        AgentHead { last_number, last_open_hash, open_sessions }
    }

    pub(crate) fn next_seq(
        &self,
        agent: Option<&AgentId>,
        session: Option<SessionId>,
        fields: &Fields,
    ) -> Result<u32, BuildError> {
        let Some(session) = session else { return Ok(0) };
        match (self.open.get(&session), fields) {
            (None, Fields::SessionOpen(_)) => Ok(0),
            (Some(_), Fields::SessionOpen(_)) => Err(BuildError::SessionExists(session)),
            // The last number is kept for the seal.
            (Some(open), fields) if Some(&open.agent) == agent => match (open.next_seq, fields) {
                (u32::MAX, Fields::SessionSeal(_)) | (..u32::MAX, _) => Ok(open.next_seq),
                (u32::MAX, _) => Err(BuildError::SessionFull(session)),
            },
            _ => Err(BuildError::SessionNotOpen(session)),
        }
    }

    /// Takes an event in and says which session rule it breaks.
    pub fn apply(&mut self, subject: &str, event: &Event, fields: Option<&Fields>, hash: Digest) -> Vec<Finding> {
        let mut report = Report { subject, findings: Vec::new() };
        match (event.session, fields) {
            (Some(session), Some(Fields::SessionOpen(open))) => self.opens(&mut report, session, event, open, hash),
            (Some(session), Some(Fields::AgentHead(head))) => {
                report.error(FindingCode::SessionGap, format!("an agent head stands in session {session}"));
                self.heads(&mut report, event, head);
                self.continues(&mut report, session, event, fields, hash);
            }
            (Some(session), _) => self.continues(&mut report, session, event, fields, hash),
            (None, Some(Fields::SessionOpen(_) | Fields::SessionSeal(_))) => {
                report.error(FindingCode::SessionGap, "a session's opening or seal names no session".into());
            }
            (None, Some(Fields::AgentHead(head))) => self.heads(&mut report, event, head),
            (None, _) => {}
        }
        report.findings
    }

    fn opens(&mut self, report: &mut Report<'_>, id: SessionId, event: &Event, open: &SessionOpen, hash: Digest) {
        let Some(agent) = &event.agent else {
            return report.error(FindingCode::SessionGap, format!("session {id} opens without an agent"));
        };
        if self.open.contains_key(&id) || event.session_seq != 0 {
            report.error(FindingCode::SessionGap, format!("session {id} opens a second time or not at sequence 0"));
        }
        let last = self.last_open(agent);
        let known = self.whole || last.is_some();
        let wanted = last.map_or(1, |link| link.number + 1);
        if known && (open.number != wanted || open.previous.as_ref() != last) {
            let what = format!("session {id} of {agent} has number {} where {wanted} follows", open.number);
            report.error(FindingCode::SessionGap, what);
        }
        let link = SessionLink { number: open.number, event_hash: hash, index: event.index };
        self.agents.insert(agent.clone(), Agent { last: link });
        let mut fresh = OpenSession {
            agent: agent.clone(),
            first_index: event.index,
            last_index: event.index,
            next_seq: 0,
            hashes: Frontier::new(),
        };
        fresh.push(event.index, hash);
        self.open.insert(id, fresh);
    }

    fn continues(
        &mut self,
        report: &mut Report<'_>,
        id: SessionId,
        event: &Event,
        fields: Option<&Fields>,
        hash: Digest,
    ) {
        let Some(open) = self.open.get_mut(&id) else {
            let (code, what) = if matches!(fields, Some(Fields::SessionSeal(_))) {
                (FindingCode::SessionSealInvalid, "is sealed without being open")
            } else {
                (FindingCode::SessionGap, "has an event without being open")
            };
            return report.error(code, format!("session {id} {what}"));
        };
        if event.agent.as_ref() != Some(&open.agent) {
            report.error(FindingCode::SessionGap, format!("session {id} belongs to {}, not to this agent", open.agent));
        }
        if event.session_seq != open.next_seq {
            let what = format!("session {id} has sequence {} where {} follows", event.session_seq, open.next_seq);
            report.error(FindingCode::SessionGap, what);
        }
        if let Some(Fields::SessionSeal(seal)) = fields {
            if *seal != open.seal(seal.outcome) {
                let what = format!("the seal of session {id} does not describe its events");
                report.error(FindingCode::SessionSealInvalid, what);
            }
            self.open.remove(&id);
        } else {
            open.push(event.index, hash);
        }
    }

    fn heads(&self, report: &mut Report<'_>, event: &Event, head: &AgentHead) {
        let Some(agent) = &event.agent else {
            return report.error(FindingCode::SessionGap, "an agent head names no agent".into());
        };
        if *head != self.head_fields(agent) && (self.whole || self.last_open(agent).is_some()) {
            let what = format!("the head of {agent} does not describe its sessions");
            report.error(FindingCode::SessionGap, what);
        }
    }
}

impl OpenSession {
    /// Number of events so far.
    pub const fn events(&self) -> u64 {
        self.hashes.size()
    }

    fn push(&mut self, index: u64, hash: Digest) {
        self.last_index = index;
        self.next_seq = self.next_seq.saturating_add(1);
        self.hashes.push(hash);
    }

    fn seal(&self, outcome: SessionOutcome) -> SessionSeal {
        SessionSeal {
            events: self.hashes.size(),
            first_index: self.first_index,
            last_index: self.last_index,
            root: self.hashes.root(),
            outcome,
        }
    }
}

struct Report<'a> {
    subject: &'a str,
    findings: Vec<Finding>,
}

impl Report<'_> {
    fn error(&mut self, code: FindingCode, message: String) {
        self.findings.push(Finding::error(code, self.subject, message));
    }
}
