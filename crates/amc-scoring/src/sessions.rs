//! The selected events as sessions: which count, which fail, which day they belong to.

use std::collections::{BTreeMap, BTreeSet};

use amc_core::kinds::{
    BoundaryMode, Fields, ProbeAttempt, ProbeOutcome, ProbePhase, ProbeTarget, SessionOpen, SessionOutcome,
    SessionPurpose,
};
use amc_core::timestamp::{NS_PER_DAY, NS_PER_S, utc_day};
use amc_core::{SessionId, Tier};
use amc_evidence::EventRecord;

use crate::select::{Place, clock_span};

/// A session that is still open counts from this age on, as a failing one; a seal must be cosigned
/// within as much.
pub const DAY_NS: i64 = NS_PER_DAY;

/// How a session stands at `as_of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Sealed in the ordinary way.
    Sealed,
    /// Sealed after the wrapper went away.
    Interrupted,
    /// Sealed after the monitor went away.
    Recovered,
    /// No seal, and younger than a day.
    Open,
    /// No seal, and a day old or more.
    Unsealed,
}

impl Outcome {
    /// The name in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Sealed => "sealed",
            Outcome::Interrupted => "interrupted",
            Outcome::Recovered => "recovered",
            Outcome::Open => "open",
            Outcome::Unsealed => "unsealed",
        }
    }

    /// Whether the session failed as a whole.
    pub const fn is_failing(self) -> bool {
        matches!(self, Outcome::Interrupted | Outcome::Recovered | Outcome::Unsealed)
    }
}

/// What a boundary probe said of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boundary {
    /// Probed, and nothing that matters was reached.
    Proven,
    /// Something was reached that must never be; the index of the event that says so.
    Violated(u64),
    /// The configuration in force declared that nothing is isolated; the index of the event.
    Shared(u64),
    /// Nobody tried.
    Unproven,
}

impl Boundary {
    /// The name in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Boundary::Proven => "proven",
            Boundary::Violated(_) => "violated",
            Boundary::Shared(_) => "shared",
            Boundary::Unproven => "unproven",
        }
    }
}

/// What one event says about the trust boundary.
///
/// Reaching a key, the vault, a passphrase, a way to write a log or what it rests on, a signing
/// socket, a trusted process, or a way to become any of them violates it. A provider's key within
/// reach is a cap and no violation; reading the home is neither. An attempt on one of these that
/// says nothing leaves the boundary unproven.
fn boundary_of(record: &EventRecord) -> Option<Boundary> {
    let Some(Fields::BoundaryProbe(probe)) = &record.fields else { return None };
    let any = |outcome: ProbeOutcome| {
        probe.attempts.iter().any(|attempt| attempt.outcome == outcome && matters(attempt.target))
    };
    Some(if any(ProbeOutcome::Reached) {
        Boundary::Violated(record.event.index)
    } else if probe.attempts.is_empty() || any(ProbeOutcome::Inconclusive) {
        Boundary::Unproven
    } else {
        Boundary::Proven
    })
}

/// The session that this one goes on with, as the monitor says.
fn continues(records: &[EventRecord]) -> Option<SessionId> {
    records.iter().find_map(|record| match &record.fields {
        Some(Fields::SessionContinues(continues)) => Some(continues.previous),
        _ => None,
    })
}

/// The boundary over a session's probes: any violation counts, every probe must have an answer, and
/// one must have run before the agent. Where the agent ran already, one must have run at all.
fn boundary_over(records: &[EventRecord]) -> Boundary {
    let said: Vec<Boundary> = records.iter().filter_map(boundary_of).collect();
    let before = records.iter().any(
        |record| matches!(&record.fields, Some(Fields::BoundaryProbe(probe)) if probe.phase == ProbePhase::Before),
    );
    let in_time = before || (!said.is_empty() && continues(records).is_some());
    let violated = said.iter().find(|boundary| matches!(boundary, Boundary::Violated(_)));
    let shared = records.iter().find(|record| {
        matches!(&record.fields, Some(Fields::BoundaryDeclared(declared)) if declared.mode == BoundaryMode::Shared)
    });
    match (violated, shared) {
        (Some(violated), _) => *violated,
        (None, Some(shared)) => Boundary::Shared(shared.event.index),
        (None, None) if in_time && !said.contains(&Boundary::Unproven) => Boundary::Proven,
        (None, None) => Boundary::Unproven,
    }
}

/// Whether reaching this violates the boundary.
const fn matters(target: ProbeTarget) -> bool {
    !matches!(target, ProbeTarget::ProviderKey | ProbeTarget::HomeRead)
}

/// One session of the agent in the window, without its events.
#[derive(Debug, Clone)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// What its opening says.
    pub open: SessionOpen,
    /// Index of its opening.
    pub open_index: u64,
    /// Wall time of its opening.
    pub open_wall_ns: i64,
    /// Tier of its opening.
    pub open_tier: Tier,
    /// Index of its seal.
    pub seal_index: Option<u64>,
    /// Its number of events, the seal not counted.
    pub events: u64,
    /// How it stands.
    pub outcome: Outcome,
    /// What is known of its trust boundary.
    pub boundary: Boundary,
    /// What a violating probe reached, for a person.
    pub reached: String,
    /// The session that it goes on with.
    pub continues: Option<SessionId>,
    /// Whether what runs in it goes on in another one.
    pub is_continued: bool,
    /// Whether a probe found a provider's key within the agent's reach.
    pub provider_key_reached: bool,
    /// Whether the auditor cosigned it within a day of its seal.
    pub cosigned: bool,
    /// Whether its day counts for levels 4 and 5.
    pub day_covered: bool,
    /// Whether a sandbox posture was attested for it. Nothing emits that yet.
    pub sandboxed: bool,
    /// Whether it opened before the boundary epoch from which on the run counts.
    pub before_epoch: bool,
}

/// What the probe at `index` reached, for a person: at most three of its attempts.
fn reached_at(records: &[EventRecord], index: u64) -> String {
    let record = records.iter().find(|record| record.event.index == index);
    let Some(Fields::BoundaryProbe(probe)) = record.and_then(|record| record.fields.as_ref()) else {
        return String::new();
    };
    let reached = probe.attempts.iter().filter(|a| a.outcome == ProbeOutcome::Reached && matters(a.target));
    reached.map(|attempt| attempt.subject.as_str()).take(3).collect::<Vec<_>>().join("; ")
}

fn reaches_provider_key(record: &EventRecord) -> bool {
    let is_key =
        |attempt: &ProbeAttempt| attempt.target == ProbeTarget::ProviderKey && attempt.outcome == ProbeOutcome::Reached;
    matches!(&record.fields, Some(Fields::BoundaryProbe(probe)) if probe.attempts.iter().any(is_key))
}

impl Session {
    /// Whether its facts count.
    pub fn counted(&self) -> bool {
        self.outcome != Outcome::Open && self.open.purpose != SessionPurpose::Drill && !self.before_epoch
    }

    /// Whether it has no ordinary seal and that counts against the run.
    pub fn counts_as_bad(&self) -> bool {
        self.outcome.is_failing() && !self.before_epoch
    }

    /// Whether it is the agent's own work and counts.
    pub fn is_work(&self) -> bool {
        self.counted() && self.open.purpose == SessionPurpose::Agent
    }

    /// UTC day of its opening.
    pub const fn day(&self) -> i64 {
        utc_day(self.open_wall_ns)
    }
}

/// The agent's sessions in the window, and what surrounds them.
#[derive(Debug, Clone, Default)]
pub struct Sessions {
    /// Those in the window, by position.
    pub list: Vec<Session>,
    /// Number of the session before the first one in the window; 0 when there is none.
    pub number_before: u64,
    /// The last number that the newest head of the agent names.
    pub last_number: u64,
}

/// What cosigned checkpoints say about time: which sizes were witnessed when.
#[derive(Debug, Clone, Default)]
pub struct Witnessed {
    /// Size and the earliest time (seconds) at which this size or a larger one was cosigned, by size.
    by_size: Vec<(u64, u64)>,
    /// The largest size cosigned on each UTC day.
    by_day: BTreeMap<i64, u64>,
}

impl Witnessed {
    /// From `checkpoint_cosigned` events of the audit log about the evidence log `origin`.
    pub fn new<'a>(origin: &str, audit: impl Iterator<Item = &'a EventRecord>) -> Self {
        let mut by_size = Vec::new();
        let mut by_day = BTreeMap::new();
        for record in audit {
            let Some(Fields::CheckpointCosigned(cosigned)) = &record.fields else { continue };
            if cosigned.head.origin != origin {
                continue;
            }
            by_size.push((cosigned.head.size, cosigned.time_s));
            let time_ns = i64::try_from(cosigned.time_s).unwrap_or(i64::MAX).saturating_mul(NS_PER_S);
            let largest = by_day.entry(utc_day(time_ns)).or_insert(cosigned.head.size);
            *largest = cosigned.head.size.max(*largest);
        }
        by_size.sort_unstable();
        let mut earliest = u64::MAX;
        for (_, time_s) in by_size.iter_mut().rev() {
            earliest = earliest.min(*time_s);
            *time_s = earliest;
        }
        Witnessed { by_size, by_day }
    }

    /// When a checkpoint that covers this index was first cosigned, in seconds since the epoch.
    pub fn first_covering(&self, index: u64) -> Option<u64> {
        let at = self.by_size.partition_point(|(size, _)| *size <= index);
        self.by_size.get(at).map(|(_, time_s)| *time_s)
    }

    /// Whether a cosignature of that UTC day covers this index.
    pub fn covers_on(&self, day: i64, index: u64) -> bool {
        self.by_day.get(&day).is_some_and(|size| *size > index)
    }
}

impl Sessions {
    /// Numbers that are missing between the session before the window and the agent's head.
    pub fn missing(&self) -> Vec<u64> {
        let Some(first) = self.list.first() else {
            return (self.number_before.saturating_add(1)..=self.last_number).take(MISSING_MAX).collect();
        };
        let have: BTreeSet<u64> = self.list.iter().map(|session| session.open.number).collect();
        let from = self.number_before.saturating_add(1);
        let last = have.last().copied().unwrap_or(0).max(self.last_number);
        let out_of_order = self.list.windows(2).any(|pair| pair[0].open.number >= pair[1].open.number);
        let gaps = (from..=last).filter(|number| !have.contains(number));
        let twice = out_of_order.then_some(first.open.number);
        gaps.take(MISSING_MAX).chain(twice).collect()
    }
}

/// As many missing numbers are told apart; more make no difference to any rule.
const MISSING_MAX: usize = 100;

/// What surrounds all sessions.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// The end of the window.
    pub(crate) as_of_ns: i64,
    /// What cosigned checkpoints say about time.
    pub(crate) witnessed: Witnessed,
    /// Days that a clock step or rollback touches.
    pub(crate) stepped: BTreeSet<i64>,
    /// Sessions opened below it are listed and do not count.
    pub(crate) epoch: u64,
}

impl Session {
    /// From its events, in log order; `events` is how many there are, those that are not held among them.
    pub(crate) fn of(place: &Place, records: &[EventRecord], events: u64, around: &Surroundings) -> Option<Session> {
        let opening = records.iter().find(|record| record.event.index == place.open_index)?;
        let Some(Fields::SessionOpen(open)) = &opening.fields else { return None };
        let seal = records.iter().find_map(|record| match &record.fields {
            Some(Fields::SessionSeal(seal)) => Some((record, seal)),
            _ => None,
        });
        let open_wall_ns = opening.event.wall_ns;
        let outcome = match seal.map(|(_, seal)| seal.outcome) {
            Some(SessionOutcome::Sealed) => Outcome::Sealed,
            Some(SessionOutcome::Interrupted) => Outcome::Interrupted,
            Some(SessionOutcome::Recovered) => Outcome::Recovered,
            None if around.as_of_ns.saturating_sub(open_wall_ns) < DAY_NS => Outcome::Open,
            None => Outcome::Unsealed,
        };
        let cosigned = seal.is_some_and(|(record, _)| {
            let latest_ns = record.event.wall_ns.saturating_add(DAY_NS);
            let latest_s = u64::try_from(latest_ns / NS_PER_S).unwrap_or(0);
            around.witnessed.first_covering(record.event.index).is_some_and(|time_s| time_s <= latest_s)
        });
        let day = utc_day(open_wall_ns);
        let boundary = boundary_over(records);
        let reached = match boundary {
            Boundary::Violated(index) => reached_at(records, index),
            _ => String::new(),
        };
        let continued = |record: &EventRecord| matches!(record.fields, Some(Fields::SessionContinued(_)));
        Some(Session {
            id: opening.event.session?,
            open: open.clone(),
            open_index: place.open_index,
            open_wall_ns,
            open_tier: opening.event.tier,
            seal_index: seal.map(|(record, _)| record.event.index),
            events: events - u64::from(seal.is_some()),
            outcome,
            boundary,
            reached,
            continues: continues(records),
            is_continued: records.iter().any(continued),
            provider_key_reached: records.iter().any(reaches_provider_key),
            cosigned,
            day_covered: around.witnessed.covers_on(day, place.open_index) && !around.stepped.contains(&day),
            sandboxed: false,
            before_epoch: place.open_index < around.epoch,
        })
    }
}

/// Days that a clock step or rollback touches; a step over years touches its ends only, and every
/// day between has no session of its own.
pub(crate) fn stepped_days(records: &[EventRecord]) -> BTreeSet<i64> {
    let spans = records.iter().filter_map(clock_span);
    spans.flat_map(|(from, to)| (utc_day(from)..=utc_day(to)).take(4_000).chain([utc_day(to)])).collect()
}
