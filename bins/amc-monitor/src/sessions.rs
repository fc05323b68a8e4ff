//! Live sessions and their leases: who may submit evidence, and for whom.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use amc_core::kinds::{BoundaryDeclared, BoundaryMode, LeaseIssued, SessionChannel, SessionOutcome};
use amc_core::{AgentId, Clock as _, Digest, LeaseId, SessionId, Tier};
use amc_evidence::{Content, Draft, SessionPlan};
use amc_ledger::{AppendError, Appended, Writer};
use amc_workspace::SystemClock;
use amc_workspace::protocol::Refusal;
use amc_workspace::protocol::gateway::LeaseGrant;
use amc_workspace::protocol::operator::SessionRequest;

/// How long a seal waits for answers that are still on their way through the gateway.
const SETTLE: Duration = Duration::from_secs(5);

/// The sessions that are open now.
#[derive(Default)]
pub(crate) struct Sessions {
    live: Mutex<Live>,
    settled: Condvar,
}

#[derive(Default)]
struct Live {
    by_lease: HashMap<LeaseId, Session>,
    by_token: HashMap<Digest, LeaseId>,
}

struct Session {
    grant: LeaseGrant,
    calls_under_way: u32,
}

/// A session that was just opened.
pub(crate) struct Opened {
    pub(crate) session: SessionId,
    pub(crate) number: u64,
    pub(crate) token: String,
}

impl Sessions {
    fn live(&self) -> MutexGuard<'_, Live> {
        // Every change under this lock is a single insert or remove, so a panic elsewhere leaves it whole.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session with a lease of its own. The wrapper's channel decides that it is one.
    pub(crate) fn open(
        &self,
        writer: &Writer,
        clock: &SystemClock,
        declared: BoundaryMode,
        request: SessionRequest,
    ) -> Result<Opened, Refusal> {
        let wall_ms = u64::try_from(clock.now().wall_ns / 1_000_000).unwrap_or(0);
        let session = SessionId::from_parts(wall_ms, random()?);
        let lease = LeaseId::new(format!("lease-{}", amc_core::digest::hex(&random::<8>()?)))
            .map_err(|error| Refusal::Invalid(error.to_string()))?;
        let token = format!("amc-lease-{}", amc_core::digest::hex(&random::<24>()?));
        let token_sha256 = amc_crypto::sha256(token.as_bytes());
        let SessionRequest { agent, purpose, isolation, argv, artifact } = request;
        let plan = SessionPlan {
            purpose,
            channel: SessionChannel::Wrapper,
            isolation,
            argv,
            artifact,
            lease: Some(lease.clone()),
        };
        let opening = Draft {
            agent: Some(agent.clone()),
            session: Some(session),
            tier: Tier::Observed,
            payload: None,
            content: Content::OpenSession(plan),
        };
        let issued = LeaseIssued { lease: lease.clone(), token_sha256, expires_ns: None };
        let issued = Draft::in_session(agent.clone(), session, Tier::Observed, issued);
        let declared = BoundaryDeclared { mode: declared };
        let declared = Draft::in_session(agent.clone(), session, Tier::Observed, declared);
        let opening = writer.submit(opening, None).map_err(refusal)?;
        let declared = writer.submit(declared, None).map_err(refusal)?;
        let issued = writer.submit(issued, None).map_err(refusal)?;
        let Appended { fields, .. } = opening.wait().map_err(refusal)?;
        declared.wait().map_err(refusal)?;
        issued.wait().map_err(refusal)?;
        let number = match fields {
            amc_core::kinds::Fields::SessionOpen(open) => open.number,
            _ => return Err(Refusal::Invalid("the log recorded something else than an opening".to_owned())),
        };
        let grant = LeaseGrant { lease: lease.clone(), agent, session };
        let mut live = self.live();
        live.by_token.insert(token_sha256, lease.clone());
        live.by_lease.insert(lease, Session { grant, calls_under_way: 0 });
        Ok(Opened { session, number, token })
    }

    /// The open session that a token stands for.
    pub(crate) fn of_token(&self, token_sha256: &Digest) -> Option<LeaseGrant> {
        let live = self.live();
        let lease = live.by_token.get(token_sha256)?;
        live.by_lease.get(lease).map(|session| session.grant.clone())
    }

    /// The open session of a lease.
    pub(crate) fn of_lease(&self, lease: &LeaseId) -> Option<LeaseGrant> {
        self.live().by_lease.get(lease).map(|session| session.grant.clone())
    }

    /// The agent of an open session.
    pub(crate) fn agent_of(&self, session: SessionId) -> Option<AgentId> {
        let live = self.live();
        live.by_lease.values().find(|open| open.grant.session == session).map(|open| open.grant.agent.clone())
    }

    /// Sessions that are open.
    pub(crate) fn ids(&self) -> Vec<SessionId> {
        let mut ids: Vec<SessionId> = self.live().by_lease.values().map(|open| open.grant.session).collect();
        ids.sort();
        ids
    }

    /// A call began or ended; a seal waits for calls under way.
    pub(crate) fn count_call(&self, lease: &LeaseId, began: bool) {
        if let Some(session) = self.live().by_lease.get_mut(lease) {
            let calls = session.calls_under_way;
            session.calls_under_way = if began { calls.saturating_add(1) } else { calls.saturating_sub(1) };
        }
        self.settled.notify_all();
    }

    /// Ends the lease, waits for calls under way, and seals.
    pub(crate) fn seal(
        &self,
        writer: &Writer,
        session: SessionId,
        outcome: SessionOutcome,
    ) -> Result<Appended, Refusal> {
        let Some(agent) = self.agent_of(session) else {
            return Err(Refusal::LeaseInvalid(format!("session {session} is not open")));
        };
        self.close_lease(session);
        let seal = Draft {
            agent: Some(agent),
            session: Some(session),
            tier: Tier::Observed,
            payload: None,
            content: Content::SealSession(outcome),
        };
        writer.append(seal, None).map_err(refusal)
    }

    fn close_lease(&self, session: SessionId) {
        let deadline = Instant::now() + SETTLE;
        let mut live = self.live();
        // No new call is admitted from here on; those under way may still report.
        let ended: Vec<LeaseId> = live
            .by_lease
            .iter()
            .filter(|(_, open)| open.grant.session == session)
            .map(|(lease, _)| lease.clone())
            .collect();
        live.by_token.retain(|_, lease| !ended.contains(lease));
        loop {
            let busy = live.by_lease.values().any(|open| open.grant.session == session && open.calls_under_way > 0);
            let left = deadline.saturating_duration_since(Instant::now());
            if !busy || left.is_zero() {
                break;
            }
            live = self.settled.wait_timeout(live, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        live.by_lease.retain(|_, open| open.grant.session != session);
    }
}

/// Random bytes from the operating system.
fn random<const N: usize>() -> Result<[u8; N], Refusal> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| Refusal::Invalid(format!("no randomness: {error}")))?;
    Ok(bytes)
}

/// What the other side hears of an append that failed.
pub(crate) fn refusal(error: AppendError) -> Refusal {
    match error {
        AppendError::Stopped(_) | AppendError::Closed => Refusal::LogUnavailable(error.to_string()),
        other => Refusal::Invalid(other.to_string()),
    }
}
