//! The second reading: one session after the other becomes facts, findings and a line of the report, and its events are
//! let go. What is in memory at a time is the sessions that are open there.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use amc_core::kinds::{Fields, SessionPurpose};
use amc_core::{AgentId, Finding, FindingCode, SessionId};
use amc_evidence::{EventRecord, VerifiedEvent};

use crate::bank::Limits;
use crate::calls::{Calls, Point};
use crate::coalesce::Collector;
use crate::configs::Configs;
use crate::correlate::{Correlated, Keys};
use crate::detect::{self, Egress, Ground, Output, Whole};
use crate::select::{Selected, lean, without_bytes};
use crate::sessions::{Session, Sessions, Surroundings};
use crate::summary::Models;
use crate::upstreams::{UpstreamCounts, Upstreams};

/// What is known before a session is judged.
pub(crate) struct Known<'k> {
    pub(crate) agent: &'k AgentId,
    pub(crate) selected: &'k Selected<'k>,
    pub(crate) around: &'k Surroundings,
    pub(crate) configs: &'k Configs<'k>,
    pub(crate) keys: &'k Keys<'k>,
    pub(crate) limits: &'k Limits,
    pub(crate) upstreams: &'k Upstreams<'k>,
}

/// What all sessions gave.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    pub(crate) sessions: Sessions,
    pub(crate) correlated: Correlated,
    pub(crate) findings: Vec<Finding>,
    pub(crate) upstreams: UpstreamCounts,
    pub(crate) models: Models,
    /// Keys of its own that the agent sent, by provider.
    pub(crate) own_keys: BTreeMap<String, OwnKey>,
    /// Whether it reached a provider's own host through the egress proxy.
    pub(crate) past_gateway: bool,
    /// Connections that the egress proxy refused.
    pub(crate) egress_blocked: u64,
}

/// A key of its own that the agent sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OwnKey {
    /// Position of the session in which it was first sent; those outside of sessions come last.
    pub(crate) session: usize,
    /// The first event of it there.
    pub(crate) index: u64,
    pub(crate) times: u64,
}

/// A session and what is held of it.
type Ended = (SessionId, Held);

/// What is held of a session: of events that may be very many, what is asked of them and no more.
#[derive(Debug, Default)]
struct Held {
    /// How many events there were.
    events: u64,
    records: Vec<EventRecord>,
    calls: Calls,
    output: Output,
    egress: Egress,
}

impl Held {
    /// With room for so many calls.
    fn for_calls(calls: usize) -> Self {
        Held { calls: Calls::with_room(calls), ..Held::default() }
    }

    /// Takes the next event; calls are held as they are too where `correlated`, which compares them with what the agent
    /// said of them.
    fn push(&mut self, record: EventRecord, correlated: bool) {
        self.events += 1;
        match &record.fields {
            Some(Fields::LlmRequest(request)) => self.calls.request(&record, request),
            Some(Fields::LlmResponse(response)) => self.calls.answer(&record, response),
            Some(Fields::AgentKeyIgnored(ignored)) => return self.calls.own_key(&record, ignored),
            Some(Fields::EgressBlocked(_)) => return self.egress.block(&record),
            Some(Fields::EgressTunnel(tunnel)) => return self.egress.pass(&record, tunnel),
            Some(Fields::ProcessOutput(piece)) => return self.output.take(&record, piece),
            // Nothing is asked of these.
            Some(Fields::UpstreamAttempt(_) | Fields::WebSocketClosed(_)) => return,
            _ => return self.records.push(record),
        }
        if correlated {
            self.records.push(record);
        }
    }
}

/// Takes the selected events in log order.
pub(crate) struct Judge<'k> {
    known: Known<'k>,
    /// Session by opening: its position in the run.
    positions: BTreeMap<u64, usize>,
    /// First and last event of each session of the agent's work in the window.
    work: Vec<(u64, u64)>,
    /// The last session before the window.
    before: Option<u64>,
    /// Sessions in which the agent said something of its calls, and those that they go on with.
    correlated: BTreeSet<SessionId>,
    /// How many sessions go on with this one and are not judged yet.
    wanted_by: BTreeMap<SessionId, usize>,
    open: BTreeMap<SessionId, Held>,
    /// Judged, and wanted by one that goes on with it.
    kept: BTreeMap<SessionId, Vec<EventRecord>>,
    /// Ended, by the session that they go on with, which is not judged yet.
    waiting: BTreeMap<SessionId, Vec<Ended>>,
    list: Vec<Option<Session>>,
    facts: Collector,
    judged: Judged,
}

impl<'k> Judge<'k> {
    pub(crate) fn new(known: Known<'k>, facts: Collector) -> Self {
        let places = || known.selected.places.values();
        let in_window = || places().filter(|place| known.selected.in_window(place.open_index));
        let mut opens: Vec<u64> = in_window().map(|place| place.open_index).collect();
        opens.sort_unstable();
        let positions: BTreeMap<u64, usize> = opens.iter().enumerate().map(|(at, open)| (*open, at)).collect();
        let is_work = |place: &&crate::select::Place| place.purpose == SessionPurpose::Agent;
        let work = in_window().filter(is_work);
        let work = work.map(|place| (place.open_index, place.seal_index.unwrap_or(u64::MAX))).collect();
        let outside = places().map(|place| place.open_index).filter(|open| !positions.contains_key(open));
        let before = outside.max();
        let list = vec![None; opens.len()];
        let (wanted_by, open, kept, waiting) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let judged = Judged::default();
        let with_traces = || known.selected.places.iter().filter(|(_, place)| place.has_traces);
        let correlated = with_traces().map(|(id, _)| *id).chain(with_traces().filter_map(|(_, place)| place.previous));
        let correlated = correlated.collect();
        let mut judge =
            Judge { known, positions, work, before, correlated, wanted_by, open, kept, waiting, list, facts, judged };
        let in_window = judge.known.selected.places.iter().filter(|(_, place)| judge.is_looked_at(place.open_index));
        let mut wanted_by: BTreeMap<SessionId, usize> = BTreeMap::new();
        for previous in in_window.filter_map(|(session, _)| judge.previous(*session)) {
            *wanted_by.entry(previous).or_default() += 1;
        }
        judge.wanted_by = wanted_by;
        judge
    }

    /// Whether the events of the session with this opening are looked at.
    fn is_looked_at(&self, open_index: u64) -> bool {
        self.positions.contains_key(&open_index) || self.before == Some(open_index)
    }

    /// Takes the next event of the log that belongs to a carried session.
    pub(crate) fn take(&mut self, session: SessionId, event: Cow<'_, VerifiedEvent>) {
        let Some(place) = self.known.selected.places.get(&session) else { return };
        if !self.is_looked_at(place.open_index) {
            return;
        }
        let index = event.event.index;
        let record = match event {
            Cow::Borrowed(event) => lean(event),
            Cow::Owned(event) => without_bytes(event.into_inner()),
        };
        let held = self.open.entry(session).or_insert_with(|| Held::for_calls(place.calls));
        held.push(record, self.correlated.contains(&session));
        if index == place.last_index
            && let Some(held) = self.open.remove(&session)
        {
            self.end((session, held));
        }
    }

    /// The session that this one goes on with, where that is looked at.
    fn previous(&self, session: SessionId) -> Option<SessionId> {
        let previous = self.known.selected.places.get(&session)?.previous?;
        let place = self.known.selected.places.get(&previous)?;
        (previous != session && self.is_looked_at(place.open_index)).then_some(previous)
    }

    /// Judges a session that has ended as soon as the one that it goes on with is judged, and then those that waited
    /// for it.
    fn end(&mut self, ended: Ended) {
        let mut ready = vec![ended];
        while let Some((session, held)) = ready.pop() {
            match self.previous(session).filter(|previous| !self.kept.contains_key(previous)) {
                Some(previous) => self.waiting.entry(previous).or_default().push((session, held)),
                None => {
                    self.judge((session, held));
                    let next = self.waiting.remove(&session).unwrap_or_default();
                    ready.extend(self.in_order(next).into_iter().rev());
                }
            }
        }
    }

    /// By opening.
    fn in_order(&self, mut sessions: Vec<Ended>) -> Vec<Ended> {
        sessions.sort_by_key(|(session, _)| self.known.selected.places[session].open_index);
        sessions
    }

    fn judge(&mut self, (id, held): Ended) {
        let previous = self.previous(id);
        let place = &self.known.selected.places[&id];
        if let Some(session) = Session::of(place, &held.records, held.events, self.known.around) {
            match self.positions.get(&place.open_index).copied() {
                Some(position) => self.judge_at((position, place.last_index), session, &held, previous),
                None => self.judged.sessions.number_before = session.open.number,
            }
        }
        if let Some(previous) = previous {
            let wanted = self.wanted_by.entry(previous).or_default();
            *wanted = wanted.saturating_sub(1);
            if *wanted == 0 {
                self.kept.remove(&previous);
            }
        }
        if self.wanted_by.get(&id).is_some_and(|wanted| *wanted > 0) {
            self.kept.insert(id, held.records);
        }
    }

    fn judge_at(
        &mut self,
        (position, last_index): (usize, u64),
        session: Session,
        held: &Held,
        previous: Option<SessionId>,
    ) {
        let (known, Held { records, calls, output, egress, .. }) = (&self.known, held);
        let mut lines = Vec::new();
        if session.is_work() {
            known.upstreams.count(calls, &mut self.judged.upstreams);
            self.judged.models.count(calls);
            self.judged.past_gateway |= egress.hosts.iter().any(|host| known.upstreams.is_host(host));
            let previous = previous.and_then(|id| Some((id, self.kept.get(&id)?.as_slice())));
            lines = self.judged.correlated.judge(known.agent, known.keys, &session, records, previous);
        }
        let ground = Ground { configs: known.configs, limits: known.limits, work: &self.work };
        let whole = Whole { session: &session, records, output, egress, position, last_index };
        detect::detect(whole, ground, calls, &lines, &mut self.facts);
        if session.is_work() {
            self.egress_finding(&session, egress);
            for (point, provider) in calls.own_keys() {
                note_own_key(&mut self.judged.own_keys, provider, position, point.index);
            }
        }
        self.list[position] = Some(session);
    }

    /// A finding about connections that the egress proxy refused.
    fn egress_finding(&mut self, session: &Session, egress: &Egress) {
        let Some(Point { index: first, .. }) = egress.blocked.first() else { return };
        let count = egress.blocked.len() as u64;
        self.judged.egress_blocked += count;
        let what = format!(
            "the agent of session {} (number {}) tried {count} connection(s) that are not allowed; the events say which",
            session.id, session.open.number,
        );
        let subject = format!("evidence#{first}");
        self.judged.findings.push(Finding::warn(FindingCode::NetworkEgressBlocked, subject, what));
    }

    /// What all of them gave, and the facts.
    pub(crate) fn finish(mut self) -> (Judged, Collector) {
        // Sessions that go on with one another in a circle, which the monitor never writes.
        let left = std::mem::take(&mut self.waiting).into_values().flatten().collect();
        self.in_order(left).into_iter().for_each(|ended| self.judge(ended));
        let Judge { known, list, facts, mut judged, .. } = self;
        judged.sessions.list = list.into_iter().flatten().collect();
        judged.sessions.last_number = known.selected.head.as_ref().map_or(0, |(_, head)| head.last_number);
        judged.correlated.finish(known.agent);
        (judged, facts)
    }
}

/// Counts a key of its own that the agent sent.
pub(crate) fn note_own_key(keys: &mut BTreeMap<String, OwnKey>, provider: &str, session: usize, index: u64) {
    let first = OwnKey { session, index, times: 0 };
    let known = keys.entry(provider.to_owned()).or_insert(first);
    *known = OwnKey { times: known.times + 1, ..if first.session < known.session { first } else { *known } };
}
