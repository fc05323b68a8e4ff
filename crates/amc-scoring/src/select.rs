//! Which events a score reads, and hence which a bundle must carry.
//!
//! [`score`](crate::score()) itself looks at nothing else, so the whole log and the selection give
//! the same bytes. Selecting from a selection gives the selection again.
//!
//! | taken from the evidence log | which |
//! |---|---|
//! | the agent's sessions | opened in `[as_of − window, as_of)`, and by position between two such ones; whole |
//! | the session before the window | the last opened before; with it those that were still open then, and all between |
//! | `agent_head` | the newest before the first session that the run leaves out at the end |
//! | `log_opened`, `key_rotated`, `key_revoked`, `log_succeeded` | all |
//! | `config_loaded`, `gateway_started` | in the window, and the newest before it; nothing of other agents |
//! | `clock_step`, `clock_rollback` | where the time that they skip or repeat touches the window |
//! | `ingested` | before `as_of`: documents of any age, results in the window; of this agent only |
//! | `log_recovered`, `agent_key_ignored` outside of sessions | in the window; the latter of this agent only |

use std::collections::{BTreeMap, BTreeSet};

use amc_core::kinds::{AgentHead, Fields, SessionPurpose};
use amc_core::timestamp::NS_PER_S;
use amc_core::{AgentId, SessionId};
use amc_evidence::{Event, EventRecord, SignedEvent};

use crate::source::{EvidenceSource, SourceError};

/// The window `[as_of − window, as_of)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Inclusive, nanoseconds since the epoch.
    pub start_ns: i64,
    /// Exclusive, nanoseconds since the epoch.
    pub end_ns: i64,
}

impl Window {
    /// The window of this length that ends at `as_of_ns`.
    pub fn new(as_of_ns: i64, window_s: u64) -> Self {
        let length_ns = i64::try_from(window_s).unwrap_or(i64::MAX).saturating_mul(NS_PER_S);
        Window { start_ns: as_of_ns.saturating_sub(length_ns), end_ns: as_of_ns }
    }

    /// Whether the moment lies in it.
    pub const fn contains(self, wall_ns: i64) -> bool {
        self.start_ns <= wall_ns && wall_ns < self.end_ns
    }

    /// Whether any moment from `from_ns` to `to_ns` lies in it.
    pub const fn touches(self, from_ns: i64, to_ns: i64) -> bool {
        from_ns < self.end_ns && self.start_ns <= to_ns
    }
}

/// The moments that a clock event skips or repeats, first and last.
pub fn clock_span(record: &EventRecord) -> Option<(i64, i64)> {
    let now_ns = record.event.wall_ns;
    match record.fields.as_ref()? {
        Fields::ClockStep(step) => {
            let before_ns = now_ns.saturating_sub(step.delta_ns);
            Some((before_ns.min(now_ns), before_ns.max(now_ns)))
        }
        Fields::ClockRollback(back) => Some((now_ns, now_ns.saturating_add_unsigned(back.by_ns))),
        _ => None,
    }
}

/// Whether a workspace path belongs to `agent` or to all of them.
pub fn path_concerns(path: &str, agent: &AgentId) -> bool {
    path.strip_prefix("agents/").is_none_or(|rest| rest.split('/').next() == Some(agent.as_str()))
}

/// Where one session of the agent stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) open_index: u64,
    open_wall_ns: i64,
    pub(crate) purpose: SessionPurpose,
    pub(crate) seal_index: Option<u64>,
    /// The last of its events.
    pub(crate) last_index: u64,
    /// The session that it says it goes on with.
    pub(crate) previous: Option<SessionId>,
    /// Whether the agent said something of its calls.
    pub(crate) has_traces: bool,
    /// How many calls it made.
    pub(crate) calls: usize,
}

/// The openings of the sessions that a run covers, by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Covered {
    /// First and last opening in the window.
    window: Option<(u64, u64)>,
    /// First and last opening that is carried; the first may lie before the window.
    carried: Option<(u64, u64)>,
    /// The first opening after them.
    after: Option<u64>,
}

impl Covered {
    /// Decides from openings, each with its wall time and its seal's index.
    fn decide<'p>(places: impl Iterator<Item = &'p Place> + Clone, window: Window) -> Covered {
        let opens = || places.clone().filter(|place| window.contains(place.open_wall_ns)).map(|place| place.open_index);
        let in_window = opens().min().zip(opens().max());
        let newest_before = || {
            let before = places.clone().filter(|place| place.open_wall_ns < window.end_ns);
            before.map(|place| place.open_index).max().map(|index| (index, index))
        };
        let Some((base, last)) = in_window.or_else(newest_before) else {
            return Covered { after: places.map(|place| place.open_index).min(), ..Covered::default() };
        };
        let before = places.clone().filter(|place| place.open_index < base);
        let newest = before.clone().map(|place| place.open_index).max();
        let still_open = before.filter(|place| place.seal_index.is_none_or(|seal| seal > base));
        let first = still_open.map(|place| place.open_index).chain(newest.filter(|_| in_window.is_some())).min();
        let after = places.map(|place| place.open_index).filter(|index| *index > last).min();
        Covered { window: in_window, carried: Some((first.unwrap_or(base), last)), after }
    }
}

const fn within(span: Option<(u64, u64)>, index: u64) -> bool {
    match span {
        Some((first, last)) => first <= index && index <= last,
        None => false,
    }
}

/// What is known of a session before its opening was seen.
#[derive(Debug, Default)]
struct Noted {
    open: Option<(u64, i64, SessionPurpose)>,
    seal_index: Option<u64>,
    last_index: u64,
    previous: Option<(u64, SessionId)>,
    has_traces: bool,
    calls: usize,
}

impl Noted {
    fn place(self) -> Option<Place> {
        let (open_index, open_wall_ns, purpose) = self.open?;
        let previous = self.previous.map(|(_, previous)| previous);
        Some(Place {
            open_index,
            open_wall_ns,
            purpose,
            seal_index: self.seal_index,
            last_index: self.last_index,
            previous,
            has_traces: self.has_traces,
            calls: self.calls,
        })
    }
}

/// A record whose place outside of sessions, or whose kind, makes it matter to the whole run.
#[derive(Debug)]
struct Candidate {
    record: EventRecord,
    /// The session that must be carried for it.
    session: Option<SessionId>,
}

/// Decides which events of the evidence log a run of an agent reads, and so which exactly a bundle of it must carry.
/// Takes every event of the slice once, in any order; what it keeps grows with the sessions, not with their events.
#[derive(Debug)]
pub struct Selector<'a> {
    agent: &'a AgentId,
    window: Window,
    sessions: BTreeMap<SessionId, Noted>,
    heads: BTreeMap<u64, AgentHead>,
    candidates: BTreeMap<u64, Candidate>,
    newest: BTreeMap<Series, (u64, EventRecord)>,
}

/// Of each of these the newest before the window counts, and those in it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Series {
    Config(String),
    Gateway,
}

impl<'a> Selector<'a> {
    /// For the run of `agent` at `as_of_ns` over `window_s` seconds.
    pub fn new(agent: &'a AgentId, as_of_ns: i64, window_s: u64) -> Self {
        let window = Window::new(as_of_ns, window_s);
        Selector {
            agent,
            window,
            sessions: BTreeMap::new(),
            heads: BTreeMap::new(),
            candidates: BTreeMap::new(),
            newest: BTreeMap::new(),
        }
    }

    /// What is selected of the first `size` events of a source.
    ///
    /// # Errors
    /// The events could not be read.
    pub fn select(mut self, events: &dyn EvidenceSource, size: u64) -> Result<Selected<'a>, SourceError> {
        events.read(&mut |event| {
            if event.event.index < size {
                self.take(&event);
            }
        })?;
        Ok(self.finish())
    }

    /// Takes note of an event.
    fn take(&mut self, record: &EventRecord) {
        let (event, window) = (&record.event, self.window);
        let ours = event.agent.as_ref() == Some(self.agent);
        if let Some(session) = event.session {
            if ours {
                self.take_of_session(session, record);
            }
            return;
        }
        let concerns = ours || event.agent.is_none();
        let chosen = match &record.fields {
            Some(Fields::LogOpened(_) | Fields::KeyRotated(_) | Fields::KeyRevoked(_) | Fields::LogSucceeded(_)) => {
                true
            }
            Some(Fields::AgentHead(head)) if ours => {
                self.heads.insert(event.index, head.clone());
                false
            }
            Some(Fields::ConfigLoaded(load)) if concerns && path_concerns(&load.path, self.agent) => {
                self.take_of_series(Series::Config(load.path.clone()), record)
            }
            Some(Fields::GatewayStarted(_)) => self.take_of_series(Series::Gateway, record),
            Some(Fields::ClockStep(_) | Fields::ClockRollback(_)) => {
                clock_span(record).is_some_and(|(from, to)| window.touches(from, to))
            }
            Some(Fields::Ingested(ingested)) if ours => {
                window.contains(event.wall_ns) || ingested.ingest_type.is_document() && event.wall_ns < window.end_ns
            }
            Some(Fields::LogRecovered(_)) => window.contains(event.wall_ns),
            Some(Fields::AgentKeyIgnored(_)) => ours && window.contains(event.wall_ns),
            _ => false,
        };
        if chosen {
            self.keep(record, None);
        }
    }

    fn take_of_session(&mut self, session: SessionId, record: &EventRecord) {
        let index = record.event.index;
        let seen = self.sessions.entry(session).or_default();
        seen.last_index = index.max(seen.last_index);
        match &record.fields {
            Some(Fields::SessionOpen(open)) if seen.open.is_none_or(|(known, ..)| index < known) => {
                seen.open = Some((index, record.event.wall_ns, open.purpose));
            }
            Some(Fields::SessionSeal(_)) => {
                seen.seal_index = Some(seen.seal_index.map_or(index, |known| index.min(known)));
            }
            Some(Fields::SessionContinues(continues)) if seen.previous.is_none_or(|(known, _)| index < known) => {
                seen.previous = Some((index, continues.previous));
            }
            Some(Fields::TraceLines(_)) => seen.has_traces = true,
            Some(Fields::LlmRequest(_)) => seen.calls += 1,
            // Of no session by the monitor's rules; where one has them all the same, they say what they say anywhere.
            Some(
                Fields::LogOpened(_)
                | Fields::KeyRotated(_)
                | Fields::KeyRevoked(_)
                | Fields::GatewayStarted(_)
                | Fields::ClockStep(_)
                | Fields::ClockRollback(_)
                | Fields::LogRecovered(_),
            ) => self.keep(record, Some(session)),
            _ => {}
        }
    }

    fn keep(&mut self, record: &EventRecord, session: Option<SessionId>) {
        self.candidates.insert(record.event.index, Candidate { record: lean(record), session });
    }

    /// Whether it lies in the window; before that, only the newest of a series counts.
    fn take_of_series(&mut self, series: Series, record: &EventRecord) -> bool {
        let index = record.event.index;
        if record.event.wall_ns < self.window.start_ns
            && self.newest.get(&series).is_none_or(|(known, _)| *known < index)
        {
            self.newest.insert(series, (index, lean(record)));
        }
        self.window.contains(record.event.wall_ns)
    }

    /// What is selected of the events that were taken.
    fn finish(self) -> Selected<'a> {
        let places = self.sessions.into_iter().filter_map(|(id, seen)| Some((id, seen.place()?)));
        let mut places: BTreeMap<SessionId, Place> = places.collect();
        let covered = Covered::decide(places.values(), self.window);
        places.retain(|_, place| within(covered.carried, place.open_index));
        let head = self.heads.into_iter().rfind(|(index, _)| covered.after.is_none_or(|after| *index < after));
        let is_carried = |candidate: &Candidate| candidate.session.is_none_or(|session| places.contains_key(&session));
        let kept = self.candidates.into_values().filter(is_carried).map(|candidate| candidate.record);
        let mut outside: Vec<EventRecord> = kept.chain(self.newest.into_values().map(|(_, record)| record)).collect();
        outside.sort_by_key(|record| record.event.index);
        Selected { agent: self.agent, window: covered.window, places, head, outside }
    }
}

/// A record without the bytes that it was decoded from.
pub(crate) fn lean(record: &EventRecord) -> EventRecord {
    let signed = SignedEvent { body: Vec::new(), signature: record.signed.signature };
    let event = Event { fields: Vec::new(), ..record.event.clone() };
    EventRecord { event, fields: record.fields.clone(), hash: record.hash, signed }
}

/// The same of a record that may be changed.
pub(crate) fn without_bytes(mut record: EventRecord) -> EventRecord {
    record.signed.body = Vec::new();
    record.event.fields = Vec::new();
    record
}

/// What a run reads of the evidence log.
#[derive(Debug)]
pub struct Selected<'a> {
    agent: &'a AgentId,
    /// First and last opening in the window.
    window: Option<(u64, u64)>,
    /// The agent's sessions that are carried.
    pub(crate) places: BTreeMap<SessionId, Place>,
    /// The newest head of the agent before what is left out at the end, and its index.
    pub(crate) head: Option<(u64, AgentHead)>,
    /// What else is selected outside of sessions, and what of sessions matters to the whole run, by index; without the bytes
    /// that they were decoded from.
    pub(crate) outside: Vec<EventRecord>,
}

impl Selected<'_> {
    /// Whether a run reads this event of the log.
    pub fn contains(&self, record: &EventRecord) -> bool {
        match record.event.session {
            Some(session) => self.is_carried(record.event.agent.as_ref(), session),
            None => {
                let index = record.event.index;
                self.head.as_ref().is_some_and(|(head, _)| *head == index)
                    || self.outside.binary_search_by_key(&index, |kept| kept.event.index).is_ok()
            }
        }
    }

    fn is_carried(&self, agent: Option<&AgentId>, session: SessionId) -> bool {
        agent == Some(self.agent) && self.places.contains_key(&session)
    }

    /// Whether the session with this opening is in the window.
    pub(crate) const fn in_window(&self, open_index: u64) -> bool {
        within(self.window, open_index)
    }
}

/// Indices of the audit events that a run of `agent` reads: signed configurations that concern it,
/// cosigned checkpoints, its runs, attestations and boundary epochs, and all key events. The order of `records` does not matter.
pub fn select_audit<'a>(agent: &AgentId, records: impl Iterator<Item = &'a EventRecord>) -> BTreeSet<u64> {
    let reads = |record: &&EventRecord| match &record.fields {
        Some(
            Fields::LogOpened(_)
            | Fields::KeyRotated(_)
            | Fields::KeyRevoked(_)
            | Fields::LogSucceeded(_)
            | Fields::CheckpointCosigned(_),
        ) => true,
        Some(Fields::ConfigSigned(signed)) => {
            path_concerns(&signed.path, agent) && signed.agent.as_ref().is_none_or(|whose| whose == agent)
        }
        Some(Fields::RunRecorded(run)) => run.agent == *agent,
        Some(Fields::Attested(attested)) => attested.agent == *agent,
        Some(Fields::BoundaryEpoch(epoch)) => epoch.agent == *agent,
        _ => false,
    };
    records.filter(reads).map(|record| record.event.index).collect()
}
