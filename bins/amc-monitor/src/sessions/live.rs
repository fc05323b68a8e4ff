//! What is open now: sessions, the leases that they belong to, and when each is over.

use std::collections::HashMap;
use std::sync::Arc;

use amc_core::{AgentId, Digest, LeaseId, SessionId};
use amc_evidence::SessionPlan;
use amc_workspace::generation::Generation;
use amc_workspace::protocol::gateway::{LeaseGrant, LeaseLimits};

/// How long a session in which nothing begins any more stays open for what began in it.
const LINGER_MAX_NS: i64 = 3_600 * NS_PER_S;
/// At least so long, for events that are on their way.
const LINGER_MIN_NS: i64 = 10 * NS_PER_S;
/// A wrapped session goes on in another one at this age: with the time that its last calls are given, none is open
/// for longer than a day.
const CONTINUED_AT_NS: i64 = NS_PER_DAY - LINGER_MAX_NS;
const NS_PER_S: i64 = 1_000_000_000;
pub(super) const NS_PER_DAY: i64 = 86_400 * NS_PER_S;

/// The open sessions and who may use them.
#[derive(Default)]
pub(super) struct Live {
    /// Tokens of wrapped sessions; those of leases by hand are in the book.
    pub(super) by_token: HashMap<Digest, LeaseId>,
    /// The session that a lease's calls begin in.
    pub(super) current: HashMap<LeaseId, SessionId>,
    pub(super) sessions: HashMap<SessionId, Open>,
    /// The session that another one goes on in, open or not, and the lease of both.
    continued: HashMap<SessionId, (LeaseId, SessionId)>,
    /// Told of whatever changes what [`Live::grant`] gives.
    changes: Changes,
}

/// Where it is said that what was told of a lease counts no more. By default nobody listens.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes(Option<Arc<Generation>>);

impl Changes {
    /// Said in this number.
    pub(crate) const fn of(generation: Arc<Generation>) -> Self {
        Changes(Some(generation))
    }

    /// Says it.
    pub(crate) fn advance(&self) {
        if let Some(generation) = &self.0 {
            generation.advance();
        }
    }
}

/// One open session.
pub(super) struct Open {
    pub(super) agent: AgentId,
    pub(super) lease: LeaseId,
    pub(super) kind: Kind,
    pub(super) calls_under_way: u32,
    /// Whether the agent's side reported a probe.
    pub(super) probed: bool,
    /// Since when nothing begins in it any more.
    pub(super) closing_since_ns: Option<i64>,
    /// Its seal is being made.
    pub(super) is_ending: bool,
}

/// Whose session it is, which decides how long it lasts.
pub(super) enum Kind {
    /// Of a lease by hand: the UTC day that it is for.
    Day(i64),
    /// Of a wrapper: since when, and what its opening says, for the session that it goes on in.
    Wrapped { since_ns: i64, plan: SessionPlan },
}

impl Open {
    pub(super) fn new(agent: AgentId, lease: LeaseId, kind: Kind) -> Self {
        Open { agent, lease, kind, calls_under_way: 0, probed: false, closing_since_ns: None, is_ending: false }
    }

    /// The UTC day that it is for, where it is of a lease by hand.
    pub(super) const fn day(&self) -> Option<i64> {
        match self.kind {
            Kind::Day(day) => Some(day),
            Kind::Wrapped { .. } => None,
        }
    }

    fn is_over(&self, now_ns: i64) -> bool {
        let closed = self.closing_since_ns.or(self.day().map(|day| (day + 1) * NS_PER_DAY));
        closed.is_some_and(|since| {
            let lingered_ns = now_ns.saturating_sub(since);
            lingered_ns >= LINGER_MAX_NS || (lingered_ns >= LINGER_MIN_NS && self.calls_under_way == 0)
        })
    }
}

impl Live {
    pub(super) fn with_changes(changes: Changes) -> Self {
        Live { changes, ..Live::default() }
    }

    pub(super) fn insert(&mut self, session: SessionId, open: Open) {
        self.current.insert(open.lease.clone(), session);
        self.sessions.insert(session, open);
        self.changes.advance();
    }

    pub(super) fn remove(&mut self, session: SessionId) -> Option<Open> {
        self.current.retain(|_, known| *known != session);
        let removed = self.sessions.remove(&session);
        self.changes.advance();
        removed
    }

    pub(super) fn grant(&self, lease: &LeaseId, day: Option<i64>, limits: &LeaseLimits) -> Option<LeaseGrant> {
        let session = *self.current.get(lease)?;
        let open = self.sessions.get(&session).filter(|open| open.day() == day && open.closing_since_ns.is_none())?;
        // A wrapped session's end is said when it comes.
        let holds_until_ns = day.map_or(i64::MAX, |day| (day + 1).saturating_mul(NS_PER_DAY));
        let (lease, agent, limits) = (lease.clone(), open.agent.clone(), limits.clone());
        Some(LeaseGrant { lease, agent, session, limits, holds_until_ns })
    }

    pub(super) fn close(&mut self, lease: &LeaseId, now_ns: i64) {
        for open in self.sessions.values_mut().filter(|open| open.lease == *lease) {
            open.closing_since_ns.get_or_insert(now_ns);
        }
        self.changes.advance();
    }

    pub(super) fn take_over(&mut self, now_ns: i64) -> Vec<(SessionId, AgentId)> {
        let over = self.sessions.iter().filter(|(_, open)| open.is_over(now_ns)).map(|(session, _)| *session);
        let mut over: Vec<SessionId> = over.collect();
        over.sort();
        over.into_iter().filter_map(|session| Some((session, self.remove(session)?.agent))).collect()
    }

    /// Wrapped sessions that are to go on in another one.
    pub(super) fn to_continue(&self, now_ns: i64) -> Vec<SessionId> {
        let is_old = |open: &Open| match open.kind {
            Kind::Wrapped { since_ns, .. } => now_ns.saturating_sub(since_ns) >= CONTINUED_AT_NS,
            Kind::Day(_) => false,
        };
        let old =
            self.sessions.iter().filter(|(_, open)| is_old(open) && open.closing_since_ns.is_none() && !open.is_ending);
        let mut old: Vec<SessionId> = old.map(|(session, _)| *session).collect();
        old.sort();
        old
    }

    /// `next` takes the place of an open session, which lasts until what began in it has ended.
    pub(super) fn go_on(&mut self, session: SessionId, next: SessionId, open: Open, now_ns: i64) {
        self.close(&open.lease, now_ns);
        self.continued.insert(session, (open.lease.clone(), next));
        self.insert(next, open);
    }

    /// The session that this one goes on in.
    pub(super) fn continued_in(&self, session: SessionId) -> Option<SessionId> {
        self.continued.get(&session).map(|(_, next)| *next)
    }

    /// The lease of a wrapper ends.
    pub(super) fn end_lease(&mut self, lease: &LeaseId) {
        self.by_token.retain(|_, known| known != lease);
        self.continued.retain(|_, (known, _)| known != lease);
        self.changes.advance();
    }
}

#[cfg(test)]
mod tests {
    use amc_core::kinds::{Isolation, SessionChannel, SessionPurpose};

    use super::*;

    fn live(day: i64) -> (Live, LeaseId, SessionId) {
        let lease = LeaseId::new("lease-0000000000000001").expect("an id");
        let session = SessionId::from_parts(1, [day.to_le_bytes()[0]; 10]);
        let mut live = Live::default();
        live.insert(session, Open::new(AgentId::new("bot").expect("an id"), lease.clone(), Kind::Day(day)));
        (live, lease, session)
    }

    #[test]
    fn a_day_admits_nothing_of_the_next_and_is_sealed_when_it_has_settled() {
        let (mut live, lease, session) = live(5);
        let limits = LeaseLimits::default();
        assert_eq!(live.grant(&lease, Some(5), &limits).map(|grant| grant.session), Some(session));
        assert!(live.grant(&lease, Some(6), &limits).is_none());
        let midnight_ns = 6 * NS_PER_DAY;
        assert!(live.take_over(midnight_ns - 1).is_empty());
        live.sessions.get_mut(&session).expect("it is open").calls_under_way = 1;
        assert!(live.take_over(midnight_ns + LINGER_MIN_NS).is_empty(), "a stream across midnight is recorded in it");
        live.sessions.get_mut(&session).expect("it is open").calls_under_way = 0;
        assert_eq!(live.take_over(midnight_ns + LINGER_MIN_NS).len(), 1);
        assert!(live.sessions.is_empty() && live.current.is_empty());
    }

    #[test]
    fn what_never_ends_does_not_keep_a_day_open() {
        let (mut live, _, session) = live(5);
        live.sessions.get_mut(&session).expect("it is open").calls_under_way = 1;
        assert_eq!(live.take_over(6 * NS_PER_DAY + LINGER_MAX_NS).len(), 1);
    }

    #[test]
    fn the_next_day_is_another_session_beside_the_one_that_ends() {
        let (mut live, lease, before) = live(5);
        live.close(&lease, 6 * NS_PER_DAY);
        let after = SessionId::from_parts(2, [9; 10]);
        live.insert(after, Open::new(AgentId::new("bot").expect("an id"), lease.clone(), Kind::Day(6)));
        assert_eq!(live.grant(&lease, Some(6), &LeaseLimits::default()).map(|grant| grant.session), Some(after));
        let sealed = live.take_over(6 * NS_PER_DAY + LINGER_MIN_NS);
        assert_eq!(sealed.into_iter().map(|(session, _)| session).collect::<Vec<_>>(), [before]);
        assert_eq!(live.current.get(&lease), Some(&after));
    }

    #[test]
    fn a_wrapped_session_goes_on_in_another_within_a_day_and_is_sealed_within_it() {
        let mut live = Live::default();
        let agent = AgentId::new("bot").expect("an id");
        let lease = LeaseId::new("lease-0000000000000002").expect("an id");
        let wrapped = |since_ns| {
            let plan = SessionPlan {
                purpose: SessionPurpose::Agent,
                channel: SessionChannel::Wrapper,
                isolation: Isolation::None,
                argv: Vec::new(),
                artifact: None,
                lease: Some(lease.clone()),
            };
            Open::new(agent.clone(), lease.clone(), Kind::Wrapped { since_ns, plan })
        };
        let [first, second] = [1, 2].map(|number| SessionId::from_parts(number, [7; 10]));
        live.insert(first, wrapped(0));
        assert!(live.to_continue(CONTINUED_AT_NS - 1).is_empty());
        assert_eq!(live.to_continue(CONTINUED_AT_NS), [first]);
        assert_eq!(live.continued_in(first), None);
        live.go_on(first, second, wrapped(CONTINUED_AT_NS), CONTINUED_AT_NS);
        assert_eq!(live.continued_in(first), Some(second));
        assert_eq!(live.continued_in(second), None);
        assert!(live.to_continue(NS_PER_DAY).is_empty(), "once");
        let grant = live.grant(&lease, None, &LeaseLimits::default()).expect("the lease goes on");
        assert_eq!(grant.session, second);
        live.sessions.get_mut(&first).expect("it is open").calls_under_way = 1;
        assert_eq!(live.take_over(NS_PER_DAY), [(first, agent)], "what never ends does not keep it open");
        assert_eq!(live.continued_in(first), Some(second), "a wrapper that was silent hears of it later");
        live.end_lease(&lease);
        assert_eq!(live.continued_in(first), None);
    }

    #[test]
    fn a_closed_lease_admits_nothing() {
        let (mut live, lease, _) = live(5);
        live.close(&lease, 5 * NS_PER_DAY);
        assert!(live.grant(&lease, Some(5), &LeaseLimits::default()).is_none());
    }
}
