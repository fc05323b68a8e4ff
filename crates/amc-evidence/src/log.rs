//! The state of a log: what the next event must be, and whether a given one is.
//!
//! The writer asks [`LogState::build`] for the next event; whoever verifies feeds stored events to
//! [`LogState::apply`]. Both rest on the same state, so a log that was written by these rules
//! verifies by them, and one that was not does not.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use amc_core::kinds::{ClockRollback, ClockStep, Fields, LogHead};
use amc_core::timestamp::NS_PER_S;
use amc_core::{AgentId, Digest, Finding, FindingCode, Instant, SessionId, Tier, limits};
use amc_crypto::Checkpoint;
use amc_crypto::merkle::Frontier;
use serde::{Deserialize, Serialize};

use crate::event::{EVENT_VERSION, Event, PayloadRef};
use crate::session::{SessionPlan, SessionRules};

/// Wall and boot clock may differ by this much between neighbours; more is a step.
pub const CLOCK_STEP_NS: i64 = 2 * NS_PER_S;

/// What the next event should say; the state fills in the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The agent that it is about.
    pub agent: Option<AgentId>,
    /// The session that it belongs to.
    pub session: Option<SessionId>,
    /// How it came in: decided by the channel.
    pub tier: Tier,
    /// Bytes that stand apart.
    pub payload: Option<PayloadRef>,
    /// Its fields, or what they are to be made of.
    pub content: Content,
}

/// The fields of a draft; some can only be known when the event's place in the log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Known already.
    Fields(Fields),
    /// A session's opening: number and back link are filled in.
    OpenSession(SessionPlan),
    /// A session's seal: counts and root are filled in.
    SealSession(amc_core::kinds::SessionOutcome),
    /// The head of the draft's agent.
    AgentHead,
}

impl Draft {
    /// An event about the log or the workspace, without agent or session.
    pub fn new(tier: Tier, fields: impl Into<Fields>) -> Self {
        Draft { agent: None, session: None, tier, payload: None, content: Content::Fields(fields.into()) }
    }

    /// An event of a session.
    pub fn in_session(agent: AgentId, session: SessionId, tier: Tier, fields: impl Into<Fields>) -> Self {
        Draft { agent: Some(agent), session: Some(session), ..Draft::new(tier, fields) }
    }

    /// The same with a payload.
    #[must_use]
    pub fn with_payload(mut self, payload: PayloadRef) -> Self {
        self.payload = Some(payload);
        self
    }
}

/// The event that a draft becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextEvent {
    /// The event.
    pub event: Event,
    /// Its fields.
    pub fields: Fields,
    /// The event encoded, as it is hashed, signed and stored.
    pub body: Vec<u8>,
}

/// A draft that cannot be the next event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The session is not open (any more), or belongs to another agent.
    #[error("session {0} is not open for this agent")]
    SessionNotOpen(SessionId),
    /// The session exists already.
    #[error("session {0} exists already")]
    SessionExists(SessionId),
    /// Session content without session or agent.
    #[error("this event needs an agent and a session")]
    Incomplete,
    /// An agent's head is about all of its sessions and stands in none.
    #[error("an agent's head belongs to no session")]
    HeadInSession,
    /// Too many events in one session.
    #[error("session {0} is full")]
    SessionFull(SessionId),
    /// The encoded event would be above the bound.
    #[error("the event would have {0} bytes, more than {max}", max = limits::EVENT_BYTES_MAX)]
    TooLong(usize),
}

/// The state of a log after its last event. Serialises, so that a writer can resume from a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogState {
    origin: String,
    prev: Digest,
    frontier: Frontier,
    clock: Option<ClockReading>,
    sessions: SessionRules,
    cosigned: BTreeMap<String, LogHead>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct ClockReading {
    wall_ns: i64,
    boot_ns: u64,
    boot_id: [u8; 16],
}

impl LogState {
    /// An empty log.
    pub fn new(origin: impl Into<String>) -> Self {
        LogState {
            origin: origin.into(),
            prev: Digest::ZERO,
            frontier: Frontier::new(),
            clock: None,
            sessions: SessionRules::whole_log(),
            cosigned: BTreeMap::new(),
        }
    }

    /// The log's origin.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Number of events; the next index.
    pub const fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The checkpoint that describes this state.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint { origin: self.origin.clone(), size: self.size(), root: self.frontier.root() }
    }

    /// The same as a head, as events carry it.
    pub fn head(&self) -> LogHead {
        let Checkpoint { origin, size, root } = self.checkpoint();
        LogHead { origin, size, root }
    }

    /// The tree's right edge.
    pub const fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// Sessions and agents.
    pub const fn sessions(&self) -> &SessionRules {
        &self.sessions
    }

    /// The newest checkpoint of another log that this log's role cosigned, as recorded here.
    pub fn cosigned(&self, origin: &str) -> Option<&LogHead> {
        self.cosigned.get(origin)
    }

    /// What happened to the clock since the last event, if anything did: append it first.
    pub fn clock_event(&self, now: &Instant) -> Option<Fields> {
        let last = self.clock?;
        if now.wall_ns < last.wall_ns {
            return Some(ClockRollback { by_ns: last.wall_ns.abs_diff(now.wall_ns) }.into());
        }
        let delta_ns = last.step_to(now)?;
        Some(ClockStep { delta_ns }.into())
    }

    /// The event that this draft becomes as the next of the log.
    ///
    /// # Errors
    /// [`BuildError`] when the draft does not fit the state; the state is unchanged either way.
    pub fn build(&self, draft: Draft, now: &Instant) -> Result<NextEvent, BuildError> {
        let fields = match draft.content {
            Content::Fields(fields) => fields,
            Content::OpenSession(plan) => {
                let (agent, session) = draft.agent.as_ref().zip(draft.session).ok_or(BuildError::Incomplete)?;
                self.sessions.open_fields(agent, session, plan)?.into()
            }
            Content::SealSession(outcome) => {
                let session = draft.session.ok_or(BuildError::Incomplete)?;
                self.sessions.seal_fields(session, outcome)?.into()
            }
            Content::AgentHead if draft.session.is_some() => return Err(BuildError::HeadInSession),
            Content::AgentHead => self.sessions.head_fields(draft.agent.as_ref().ok_or(BuildError::Incomplete)?).into(),
        };
        let session_seq = self.sessions.next_seq(draft.agent.as_ref(), draft.session, &fields)?;
        let event = Event {
            version: EVENT_VERSION,
            index: self.size(),
            prev: self.prev,
            wall_ns: now.wall_ns,
            boot_ns: now.boot_ns,
            boot_id: now.boot_id,
            agent: draft.agent,
            session: draft.session,
            session_seq,
            tier: draft.tier,
            payload: draft.payload,
            kind: fields.kind(),
            fields: fields.encode(),
        };
        let body = event.encode();
        if body.len() > limits::EVENT_BYTES_MAX {
            return Err(BuildError::TooLong(body.len()));
        }
        Ok(NextEvent { event, fields, body })
    }

    /// Takes the next event in and says what is wrong with it; an empty list means nothing.
    ///
    /// The state moves on either way, so one defect does not hide the next.
    pub fn apply(&mut self, event: &Event, fields: Option<&Fields>, hash: Digest) -> Vec<Finding> {
        let mut findings = Vec::new();
        let subject = format!("{}#{}", self.origin, self.size());
        if event.index != self.size() {
            let what = format!("this event says that its index is {} and stands at {}", event.index, self.size());
            findings.push(Finding::error(FindingCode::EventOutOfOrder, &subject, what));
        }
        if event.prev != self.prev {
            let what = "this event does not name the hash of the event before it";
            findings.push(Finding::error(FindingCode::ChainBroken, &subject, what));
        }
        if let Some(last) = self.clock.filter(|last| event.wall_ns < last.wall_ns) {
            let what = format!("wall time went back by {} ns", last.wall_ns.abs_diff(event.wall_ns));
            findings.push(Finding::warn(FindingCode::ClockRollback, &subject, what));
        }
        if let Some(Fields::LogRecovered(recovered)) = fields {
            let what = format!("opened after a crash; {} bytes of an unfinished record were cut", recovered.bytes_cut);
            findings.push(Finding::info(FindingCode::LedgerRecovered, &subject, what));
        }
        if let Some(Fields::CheckpointCosigned(cosigned)) = fields {
            findings.extend(self.witnesses(&subject, &cosigned.head));
        }
        findings.extend(self.sessions.apply(&subject, event, fields, hash));
        self.clock = Some(ClockReading { wall_ns: event.wall_ns, boot_ns: event.boot_ns, boot_id: event.boot_id });
        self.prev = hash;
        self.frontier.push(hash);
        findings
    }
}

impl LogState {
    /// A witness never goes back, and never signs one size with two roots.
    fn witnesses(&mut self, subject: &str, head: &LogHead) -> Option<Finding> {
        let known = self.cosigned.insert(head.origin.clone(), head.clone())?;
        let (code, what) = match head.size.cmp(&known.size) {
            Ordering::Less => (FindingCode::LedgerRollback, "a smaller size than before"),
            Ordering::Equal if head.root != known.root => (FindingCode::LedgerForked, "another root than before"),
            Ordering::Equal | Ordering::Greater => return None,
        };
        Some(Finding::error(code, subject, format!("the witness cosigned {} with {what}", head.origin)))
    }
}

impl ClockReading {
    /// Wall time passed minus boot time passed, when that is a step; never across a reboot.
    fn step_to(&self, now: &Instant) -> Option<i64> {
        if now.boot_id != self.boot_id {
            return None;
        }
        let wall = i128::from(now.wall_ns) - i128::from(self.wall_ns);
        let boot = i128::from(now.boot_ns) - i128::from(self.boot_ns);
        let delta = i64::try_from(wall - boot).unwrap_or(i64::MAX);
        (delta.unsigned_abs() > CLOCK_STEP_NS.unsigned_abs()).then_some(delta)
    }
}
