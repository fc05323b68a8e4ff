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

use amc_core::kinds::Fields;
use amc_core::timestamp::NS_PER_S;
use amc_core::{AgentId, SessionId};
use amc_evidence::EventRecord;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    open_index: u64,
    open_wall_ns: i64,
    seal_index: Option<u64>,
}

/// The openings of the sessions that a run covers, by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Covered {
    /// First and last opening in the window.
    pub(crate) window: Option<(u64, u64)>,
    /// First and last opening that is carried; the first may lie before the window.
    carried: Option<(u64, u64)>,
    /// The first opening after them.
    after: Option<u64>,
}

impl Covered {
    /// Decides from openings, each with its wall time and its seal's index.
    fn decide(places: &[Place], window: Window) -> Covered {
        let opens = || places.iter().filter(|place| window.contains(place.open_wall_ns)).map(|place| place.open_index);
        let in_window = opens().min().zip(opens().max());
        let newest_before = || {
            let before = places.iter().filter(|place| place.open_wall_ns < window.end_ns);
            before.map(|place| place.open_index).max().map(|index| (index, index))
        };
        let Some((base, last)) = in_window.or_else(newest_before) else {
            return Covered { after: places.iter().map(|place| place.open_index).min(), ..Covered::default() };
        };
        let before = places.iter().filter(|place| place.open_index < base);
        let newest = before.clone().map(|place| place.open_index).max();
        let still_open = before.filter(|place| place.seal_index.is_none_or(|seal| seal > base));
        let first = still_open.map(|place| place.open_index).chain(newest.filter(|_| in_window.is_some())).min();
        let after = places.iter().map(|place| place.open_index).filter(|index| *index > last).min();
        Covered { window: in_window, carried: Some((first.unwrap_or(base), last)), after }
    }

    const fn carries(&self, open_index: u64) -> bool {
        match self.carried {
            Some((first, last)) => first <= open_index && open_index <= last,
            None => false,
        }
    }

    /// Whether the session with this opening is in the window.
    pub(crate) const fn in_window(&self, open_index: u64) -> bool {
        match self.window {
            Some((first, last)) => first <= open_index && open_index <= last,
            None => false,
        }
    }

    /// Decides from the openings and seals among `records`.
    pub(crate) fn of<'a>(
        agent: &AgentId,
        window: Window,
        records: impl Iterator<Item = &'a EventRecord>,
    ) -> (Covered, BTreeMap<SessionId, u64>) {
        let mut found: BTreeMap<SessionId, Place> = BTreeMap::new();
        let mut seals: BTreeMap<SessionId, u64> = BTreeMap::new();
        for record in records {
            note_place(agent, record, &mut found, &mut seals);
        }
        let covered = Covered::settle(&mut found, &seals, window);
        (covered, found.into_iter().map(|(id, place)| (id, place.open_index)).collect())
    }

    fn settle(found: &mut BTreeMap<SessionId, Place>, seals: &BTreeMap<SessionId, u64>, window: Window) -> Covered {
        for (id, place) in found.iter_mut() {
            place.seal_index = seals.get(id).copied();
        }
        let places: Vec<Place> = found.values().copied().collect();
        Covered::decide(&places, window)
    }
}

fn note_place(
    agent: &AgentId,
    record: &EventRecord,
    found: &mut BTreeMap<SessionId, Place>,
    seals: &mut BTreeMap<SessionId, u64>,
) {
    let event = &record.event;
    let Some(session) = event.session.filter(|_| event.agent.as_ref() == Some(agent)) else { return };
    match &record.fields {
        Some(Fields::SessionOpen(_)) => {
            let place = Place { open_index: event.index, open_wall_ns: event.wall_ns, seal_index: None };
            let known = found.entry(session).or_insert(place);
            if event.index < known.open_index {
                *known = place;
            }
        }
        Some(Fields::SessionSeal(_)) => {
            let known = seals.entry(session).or_insert(event.index);
            *known = event.index.min(*known);
        }
        _ => {}
    }
}

/// The newest of a series before the window; those in the window are taken one by one.
#[derive(Default)]
struct NewestBefore<K>(BTreeMap<K, u64>);

impl<K: Ord> NewestBefore<K> {
    fn take(&mut self, chosen: &mut BTreeSet<u64>, window: Window, key: K, record: &EventRecord) {
        let index = record.event.index;
        if window.contains(record.event.wall_ns) {
            chosen.insert(index);
        } else if record.event.wall_ns < window.start_ns {
            let newest = self.0.entry(key).or_insert(index);
            *newest = index.max(*newest);
        }
    }
}

/// Indices of the evidence events that a run of `agent` reads, and so of exactly those that a
/// bundle of it must carry. The order of `records` does not matter.
pub fn select_evidence<'a>(
    agent: &AgentId,
    as_of_ns: i64,
    window_s: u64,
    records: impl Iterator<Item = &'a EventRecord>,
) -> BTreeSet<u64> {
    let window = Window::new(as_of_ns, window_s);
    let mut chosen = BTreeSet::new();
    let mut found = BTreeMap::new();
    let mut seals = BTreeMap::new();
    let mut by_session: BTreeMap<SessionId, Vec<u64>> = BTreeMap::new();
    let mut heads = BTreeSet::new();
    let mut configs = NewestBefore::default();
    let mut gateways = NewestBefore::default();
    for record in records {
        let event = &record.event;
        note_place(agent, record, &mut found, &mut seals);
        let ours = event.agent.as_ref() == Some(agent);
        let nobodys = event.agent.is_none();
        match (&record.fields, event.session) {
            (_, Some(session)) if ours => by_session.entry(session).or_default().push(event.index),
            (_, Some(_)) => {}
            (
                Some(Fields::LogOpened(_) | Fields::KeyRotated(_) | Fields::KeyRevoked(_) | Fields::LogSucceeded(_)),
                None,
            ) => {
                chosen.insert(event.index);
            }
            (Some(Fields::AgentHead(_)), None) if ours => {
                heads.insert(event.index);
            }
            (Some(Fields::ConfigLoaded(load)), None) if (ours || nobodys) && path_concerns(&load.path, agent) => {
                configs.take(&mut chosen, window, load.path.as_str(), record);
            }
            (Some(Fields::GatewayStarted(_)), None) => gateways.take(&mut chosen, window, (), record),
            (Some(Fields::ClockStep(_) | Fields::ClockRollback(_)), None)
                if clock_span(record).is_some_and(|(from, to)| window.touches(from, to)) =>
            {
                chosen.insert(event.index);
            }
            (Some(Fields::Ingested(ingested)), None)
                if ours
                    && (window.contains(event.wall_ns)
                        || ingested.ingest_type.is_document() && event.wall_ns < window.end_ns) =>
            {
                chosen.insert(event.index);
            }
            (Some(Fields::LogRecovered(_)), None) if window.contains(event.wall_ns) => {
                chosen.insert(event.index);
            }
            (Some(Fields::AgentKeyIgnored(_)), None) if ours && window.contains(event.wall_ns) => {
                chosen.insert(event.index);
            }
            _ => {}
        }
    }
    let covered = Covered::settle(&mut found, &seals, window);
    let carried = found.iter().filter(|(_, place)| covered.carries(place.open_index));
    chosen.extend(carried.filter_map(|(id, _)| by_session.get(id)).flatten());
    chosen.extend(heads.into_iter().rev().find(|index| covered.after.is_none_or(|after| *index < after)));
    chosen.extend(configs.0.into_values().chain(gateways.0.into_values()));
    chosen
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
