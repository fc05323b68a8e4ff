//! Live sessions and their leases: who may submit evidence, and for whom.
//!
//! A session is of one lease. `amc wrap` opens one with a lease of its own, which ends with it. A
//! lease that was issued by hand has a session per UTC day: opened by its first use, sealed when the
//! day is over and what began in it has come to its end. A wrapped session that gets as old as a day
//! goes on in another one ([`continuing`]).

mod continuing;
mod live;

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use amc_core::kinds::{
    BoundaryDeclared, BoundaryMode, Fields, Isolation, LeaseIssued, SessionChannel, SessionOutcome, SessionPurpose,
};
use amc_core::{AgentId, Clock, Digest, LeaseId, SessionId, Tier};
use amc_evidence::{Content, Draft, SessionPlan};
use amc_ledger::{AppendError, Appended, Pending, Writer};
use amc_workspace::protocol::Refusal;
use amc_workspace::protocol::gateway::{LeaseGrant, LeaseLimits};
use amc_workspace::protocol::operator::{IssuedLease, LeaseOrder, LeaseSummary, SessionRequest};

pub(crate) use self::live::Changes;
use self::live::{Kind, Live, NS_PER_DAY, Open};
use crate::leases::LeaseBook;

/// How long a seal waits for answers that are still on their way through the gateway.
const SETTLE: Duration = Duration::from_secs(5);

/// The sessions that are open now, and the leases that can open one.
#[derive(Default)]
pub(crate) struct Sessions {
    live: Mutex<Live>,
    book: Mutex<LeaseBook>,
    /// Held while the session of a day is opened: two first calls open one.
    opening: Mutex<()>,
    /// Held while a session goes on in another, or begins its end: never both at once.
    turning: Mutex<()>,
    settled: Condvar,
    changes: Changes,
}

/// A session that was just opened.
pub(crate) struct Opened {
    pub(crate) session: SessionId,
    pub(crate) number: u64,
    pub(crate) token: String,
}

impl Sessions {
    /// No session is open; the leases are those of a log. Changes of what they are worth are said there.
    pub(crate) fn with_leases(book: LeaseBook, changes: Changes) -> Self {
        let live = Mutex::new(Live::with_changes(changes.clone()));
        Sessions { live, book: Mutex::new(book), changes, ..Sessions::default() }
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        // Every change under this lock is a single insert or remove, so a panic elsewhere leaves it whole.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn book(&self) -> MutexGuard<'_, LeaseBook> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turning(&self) -> MutexGuard<'_, ()> {
        self.turning.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session that another one goes on in.
    pub(crate) fn continued_in(&self, session: SessionId) -> Option<SessionId> {
        self.live().continued_in(session)
    }

    /// Opens a session with a lease of its own. The wrapper's channel decides that it is one.
    pub(crate) fn open(
        &self,
        writer: &Writer,
        clock: &impl Clock,
        declared: BoundaryMode,
        request: SessionRequest,
    ) -> Result<Opened, Refusal> {
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
        let session = new_session(clock)?;
        let since_ns = clock.now().wall_ns;
        let opening = submit_opening(writer, &agent, session, declared, plan.clone())?;
        let issued = LeaseIssued { lease: lease.clone(), token_sha256, expires_ns: None };
        let issued = Draft::in_session(agent.clone(), session, Tier::Observed, issued);
        let issued = writer.submit(issued, None).map_err(refusal)?;
        let number = opening.wait()?;
        issued.wait().map_err(refusal)?;
        let mut live = self.live();
        live.by_token.insert(token_sha256, lease.clone());
        live.insert(session, Open::new(agent, lease, Kind::Wrapped { since_ns, plan }));
        Ok(Opened { session, number, token })
    }

    /// The open session that a token stands for; the first use of a lease by hand on a day opens one.
    pub(crate) fn authorize(
        &self,
        writer: &Writer,
        clock: &impl Clock,
        declared: impl FnOnce() -> Result<BoundaryMode, Refusal>,
        token_sha256: &Digest,
    ) -> Result<LeaseGrant, Refusal> {
        let wrapped = {
            let live = self.live();
            let lease = live.by_token.get(token_sha256);
            lease.and_then(|lease| live.grant(lease, None, &LeaseLimits::default()))
        };
        if let Some(grant) = wrapped {
            return Ok(grant);
        }
        let now_ns = clock.now().wall_ns;
        let (lease, agent, limits, expires_ns) = {
            let book = self.book();
            let unknown = || Refusal::LeaseInvalid("no open session has this lease".to_owned());
            let (id, lease) = book.of_token(token_sha256).ok_or_else(unknown)?;
            if let Some(why) = lease.why_not(id, now_ns) {
                return Err(Refusal::LeaseInvalid(why));
            }
            (id.clone(), lease.agent.clone(), lease.limits.clone(), lease.expires_ns)
        };
        let day = now_ns.div_euclid(NS_PER_DAY);
        let bounded = |grant: LeaseGrant| {
            let holds_until_ns = grant.holds_until_ns.min(expires_ns);
            LeaseGrant { holds_until_ns, ..grant }
        };
        if let Some(grant) = self.live().grant(&lease, Some(day), &limits) {
            return Ok(bounded(grant));
        }
        let _one_at_a_time = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(grant) = self.live().grant(&lease, Some(day), &limits) {
            return Ok(bounded(grant));
        }
        let session = new_session(clock)?;
        let plan = SessionPlan {
            purpose: SessionPurpose::Agent,
            channel: SessionChannel::Lease,
            isolation: Isolation::None,
            argv: Vec::new(),
            artifact: None,
            lease: Some(lease.clone()),
        };
        submit_opening(writer, &agent, session, declared()?, plan)?.wait()?;
        let mut live = self.live();
        live.close(&lease, now_ns);
        live.insert(session, Open::new(agent, lease.clone(), Kind::Day(day)));
        let grant = live.grant(&lease, Some(day), &limits);
        grant.map(bounded).ok_or_else(|| Refusal::LeaseInvalid(format!("{lease} has ended")))
    }

    /// The agent and the open session that evidence of a lease belongs to: the one that it names,
    /// where that is of this lease and open, else the lease's newest.
    pub(crate) fn of_lease(&self, lease: &LeaseId, named: SessionId) -> Option<(AgentId, SessionId)> {
        let live = self.live();
        let own = live.sessions.get(&named).filter(|open| open.lease == *lease).map(|_| named);
        let session = own.or_else(|| live.current.get(lease).copied())?;
        live.sessions.get(&session).map(|open| (open.agent.clone(), session))
    }

    /// The agent of a lease, open or not.
    pub(crate) fn agent_of_lease(&self, lease: &LeaseId) -> Option<AgentId> {
        let live = self.live();
        let open = live.current.get(lease).and_then(|session| live.sessions.get(session));
        open.map(|open| open.agent.clone()).or_else(|| self.book().get(lease).map(|lease| lease.agent.clone()))
    }

    /// The agent of an open session.
    pub(crate) fn agent_of(&self, session: SessionId) -> Option<AgentId> {
        self.live().sessions.get(&session).map(|open| open.agent.clone())
    }

    /// Notes a probe of the agent's side: whether it is the session's first. `None` where the session
    /// is no lease's by hand.
    pub(crate) fn probed_by_hand(&self, session: SessionId) -> Option<bool> {
        let mut live = self.live();
        let open = live.sessions.get_mut(&session).filter(|open| open.day().is_some())?;
        Some(!std::mem::replace(&mut open.probed, true))
    }

    /// Sessions that are open.
    pub(crate) fn ids(&self) -> Vec<SessionId> {
        let mut ids: Vec<SessionId> = self.live().sessions.keys().copied().collect();
        ids.sort();
        ids
    }

    /// A call began or ended; a seal waits for calls under way.
    pub(crate) fn count_call(&self, session: SessionId, began: bool) {
        let mut live = self.live();
        let Some(open) = live.sessions.get_mut(&session) else { return };
        let calls = open.calls_under_way;
        open.calls_under_way = if began { calls.saturating_add(1) } else { calls.saturating_sub(1) };
        if open.calls_under_way == 0 {
            self.settled.notify_all();
        }
    }

    /// Issues a lease by hand.
    pub(crate) fn issue(&self, writer: &Writer, clock: &impl Clock, order: LeaseOrder) -> Result<IssuedLease, Refusal> {
        self.book().issue(writer, clock.now().wall_ns, order)
    }

    /// Ends a lease by hand at once; its session is sealed when what is under way has ended.
    pub(crate) fn revoke(&self, writer: &Writer, clock: &impl Clock, lease: &LeaseId) -> Result<(), Refusal> {
        let revoked = self.book().revoke(writer, &self.changes, lease);
        self.live().close(lease, clock.now().wall_ns);
        revoked
    }

    /// The leases by hand.
    pub(crate) fn leases(&self, clock: &impl Clock) -> Vec<LeaseSummary> {
        let mut list = self.book().list(clock.now().wall_ns);
        let live = self.live();
        for lease in &mut list {
            lease.session = live.current.get(&lease.lease).copied();
        }
        list
    }

    /// Seals the sessions whose time is over; whether there were any.
    pub(crate) fn tend(&self, writer: &Writer, now_ns: i64) -> Result<bool, Refusal> {
        let over = self.live().take_over(now_ns);
        let any = !over.is_empty();
        for (session, agent) in over {
            writer.append(sealing(agent, session, SessionOutcome::Sealed), None).map_err(refusal)?;
        }
        Ok(any)
    }

    /// Ends the lease, waits for calls under way, and seals. Not where the session goes on in another.
    pub(crate) fn seal(
        &self,
        writer: &Writer,
        session: SessionId,
        outcome: SessionOutcome,
    ) -> Result<Appended, Refusal> {
        let Some(agent) = self.agent_of(session) else {
            return Err(Refusal::LeaseInvalid(format!("session {session} is not open")));
        };
        {
            let _turn = self.turning();
            let mut live = self.live();
            if let Some(next) = live.continued_in(session) {
                return Err(Refusal::SessionContinued(next));
            }
            if let Some(open) = live.sessions.get_mut(&session) {
                open.is_ending = true;
            }
        }
        self.seal_here(writer, session, agent, outcome)
    }

    fn seal_here(
        &self,
        writer: &Writer,
        session: SessionId,
        agent: AgentId,
        outcome: SessionOutcome,
    ) -> Result<Appended, Refusal> {
        self.close_session(session);
        writer.append(sealing(agent, session, outcome), None).map_err(refusal)
    }

    /// Seals everything: the monitor stops. The day of a lease ends in the ordinary way, a wrapper's
    /// session does not.
    pub(crate) fn seal_all(&self, writer: &Writer) -> Result<(), Refusal> {
        for session in self.ids() {
            let live = self.live();
            let ended_already = live.continued_in(session).is_some();
            let open = live.sessions.get(&session).map(|open| (open.day().is_some(), open.agent.clone()));
            drop(live);
            let Some((is_day, agent)) = open else { continue };
            let is_over = is_day || ended_already;
            let outcome = if is_over { SessionOutcome::Sealed } else { SessionOutcome::Interrupted };
            self.seal_here(writer, session, agent, outcome)?;
        }
        Ok(())
    }

    fn close_session(&self, session: SessionId) {
        let deadline = Instant::now() + SETTLE;
        let mut live = self.live();
        // No new call is admitted from here on; those under way may still report.
        let lease = live.sessions.get(&session).map(|open| open.lease.clone());
        if let Some(lease) = lease.filter(|_| live.continued_in(session).is_none()) {
            live.end_lease(&lease);
        }
        loop {
            let busy = live.sessions.get(&session).is_some_and(|open| open.calls_under_way > 0);
            let left = deadline.saturating_duration_since(Instant::now());
            if !busy || left.is_zero() {
                break;
            }
            live = self.settled.wait_timeout(live, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        live.remove(session);
    }
}

/// A session's first events on their way.
struct Opening {
    open: Pending,
    declared: Pending,
}

impl Opening {
    /// The session's number, when its opening is durable.
    fn wait(self) -> Result<u64, Refusal> {
        let opened = self.open.wait().map_err(refusal)?;
        self.declared.wait().map_err(refusal)?;
        match opened.fields {
            Fields::SessionOpen(open) => Ok(open.number),
            _ => Err(Refusal::Invalid("the log recorded something else than an opening".to_owned())),
        }
    }
}

fn submit_opening(
    writer: &Writer,
    agent: &AgentId,
    session: SessionId,
    declared: BoundaryMode,
    plan: SessionPlan,
) -> Result<Opening, Refusal> {
    let opening = Draft {
        agent: Some(agent.clone()),
        session: Some(session),
        tier: Tier::Observed,
        payload: None,
        content: Content::OpenSession(plan),
    };
    let declared = BoundaryDeclared { mode: declared };
    let declared = Draft::in_session(agent.clone(), session, Tier::Observed, declared);
    let open = writer.submit(opening, None).map_err(refusal)?;
    let declared = writer.submit(declared, None).map_err(refusal)?;
    Ok(Opening { open, declared })
}

fn sealing(agent: AgentId, session: SessionId, outcome: SessionOutcome) -> Draft {
    Draft {
        agent: Some(agent),
        session: Some(session),
        tier: Tier::Observed,
        payload: None,
        content: Content::SealSession(outcome),
    }
}

fn new_session(clock: &impl Clock) -> Result<SessionId, Refusal> {
    let wall_ms = u64::try_from(clock.now().wall_ns / 1_000_000).unwrap_or(0);
    Ok(SessionId::from_parts(wall_ms, random()?))
}

/// Random bytes from the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Refusal> {
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
