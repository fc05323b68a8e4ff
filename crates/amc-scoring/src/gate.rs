//! Gates: which level the facts of a question support.
//!
//! | level | passing facts / sessions / days | tiers counted | also |
//! |---|---|---|---|
//! | 1 | 2 / 1 / 1 | any | |
//! | 2 | 4 / 2 / 2 | any | |
//! | 3 | 8 / 3 / 3 | any | |
//! | 4 | 12 / 5 / 7 | ATTESTED and above | pass ratio ≥ 90 %, spread, no blocker |
//! | 5 | 16 / 8 / 10 | OBSERVED and above | pass ratio ≥ 95 %, spread, no blocker, sandbox where high-risk |
//!
//! Gates are cumulative. Adding a passing fact never lowers a level, removing one never raises it,
//! and adding a failing one never raises it; `tests/properties.rs` holds that.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use amc_core::Tier;

use crate::bank::{Question, Requirement, Tag, is_document};
use crate::facts::{Weighed, fact_kind};
use crate::report::Shortfall;

/// What a level asks of the supporting facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The level.
    pub level: u8,
    /// Passing facts.
    pub events: u64,
    /// Distinct sessions among them.
    pub sessions: u64,
    /// Distinct days among them.
    pub days: u64,
    /// The lowest tier that counts.
    pub tier: Tier,
    /// The least share of passing sessions, in basis points; 0 where none is asked for.
    pub pass_ratio_bp: u64,
}

/// The default table, by level.
pub const TABLE: [Row; 5] = [
    Row { level: 1, events: 2, sessions: 1, days: 1, tier: Tier::SelfReported, pass_ratio_bp: 0 },
    Row { level: 2, events: 4, sessions: 2, days: 2, tier: Tier::SelfReported, pass_ratio_bp: 0 },
    Row { level: 3, events: 8, sessions: 3, days: 3, tier: Tier::SelfReported, pass_ratio_bp: 0 },
    Row { level: 4, events: 12, sessions: 5, days: 7, tier: Tier::Attested, pass_ratio_bp: 9_000 },
    Row { level: 5, events: 16, sessions: 8, days: 10, tier: Tier::Observed, pass_ratio_bp: 9_500 },
];

impl Row {
    const fn is_strict(&self) -> bool {
        self.level >= 4
    }
}

/// What a gate needs to know of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// It counts as failing whatever its facts say, and its passing facts support nothing.
    pub failing: bool,
    /// It was cosigned in time, so it counts for levels 4 and 5.
    pub cosigned: bool,
    /// Its day counts for levels 4 and 5.
    pub day_covered: bool,
    /// A sandbox posture was attested for it.
    pub sandboxed: bool,
    /// It is no session, but the place where evidence is handed in.
    pub outside: bool,
}

/// What the gates of one question are measured on.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// The facts that the question names, at their effective tiers.
    pub facts: &'a [Weighed<'a>],
    /// The sessions that facts refer to by position.
    pub sessions: &'a [Standing],
    /// Whether a blocker stands.
    pub blocker: bool,
}

/// Whether one level's own gate holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// What is missing; the gate holds when nothing is.
    pub shortfalls: Vec<Shortfall>,
    /// The best of the supporting facts that count for it, as many as the gate asks for, best first.
    pub best: Vec<Weighed<'a>>,
    /// How many supporting facts count for it.
    pub support: u64,
    /// The events behind the best facts, as many as the gate asks for.
    pub events: BTreeSet<u64>,
}

impl Verdict<'_> {
    /// Whether nothing is missing.
    pub const fn holds(&self) -> bool {
        self.shortfalls.is_empty()
    }
}

/// Judges the gate of `row` alone. `sandboxed_only`: count nothing but sandboxed sessions.
pub fn judge<'a>(question: &Question, row: &Row, ground: &Ground<'a>, sandboxed_only: bool) -> Verdict<'a> {
    let mut gaps = Gaps { strict: row.is_strict(), shortfalls: Vec::new() };
    let mut tally = Tally::new(ground, row.is_strict(), row.events);
    for (id, run) in runs(ground.facts) {
        if question.support.contains(id) && !(row.is_strict() && is_document(id)) {
            let counted = run.iter().filter(|weighed| weighed.tier >= row.tier);
            counted.filter(|weighed| counts(weighed, row, ground, sandboxed_only)).for_each(|one| tally.take(one));
        }
    }
    let support: Vec<&str> = question.support.iter().map(String::as_str).collect();
    let tally = tally.done();
    gaps.need("passing facts", tally.events, row.events, row.tier, &support);
    gaps.need("sessions with passing facts", tally.sessions, row.sessions, row.tier, &support);
    gaps.need("days with passing facts", tally.days, row.days, row.tier, &support);
    if row.is_strict() {
        let half = row.events.div_ceil(2);
        gaps.need("passing facts outside the richest session", tally.outside_session, half, row.tier, &support);
        gaps.need("passing facts outside the richest day", tally.outside_day, half, row.tier, &support);
    }
    let mut events = events_of(&tally.best);
    for requirement in question.requires.iter().filter(|requirement| requirement.level <= row.level) {
        events.extend(require(requirement, row, ground, sandboxed_only, &mut gaps));
    }
    if row.pass_ratio_bp > 0 {
        ratio(question, row, ground, &mut gaps);
        gaps.need("no blocker", u64::from(!ground.blocker), 1, Tier::SelfReported, &[]);
    }
    for forbidden in question.forbids.iter().filter(|forbidden| forbidden.level <= row.level) {
        let failed = |fact: &&String| {
            runs(ground.facts).any(|(id, run)| id == fact.as_str() && run.iter().any(|weighed| !weighed.fact.pass))
        };
        let failed: Vec<&str> = forbidden.facts.iter().filter(failed).map(String::as_str).collect();
        gaps.need("no failure of", u64::from(failed.is_empty()), 1, Tier::SelfReported, &failed);
    }
    Verdict { shortfalls: gaps.shortfalls, best: tally.best, support: tally.events, events }
}

/// The highest level whose gate, and all gates below, hold.
pub fn supported(question: &Question, ground: &Ground<'_>) -> u8 {
    let held = TABLE.iter().take_while(|row| judge(question, row, ground, false).holds());
    held.last().map_or(0, |row| row.level)
}

/// Whether level 5 holds on sandboxed sessions alone, as high-risk questions ask.
pub fn holds_sandboxed(question: &Question, ground: &Ground<'_>) -> bool {
    !question.is(Tag::HighRisk) || judge(question, &TABLE[4], ground, true).holds()
}

fn counts(weighed: &Weighed<'_>, row: &Row, ground: &Ground<'_>, sandboxed_only: bool) -> bool {
    let standing = ground.sessions.get(weighed.fact.session).copied().unwrap_or_default();
    weighed.fact.pass
        && !standing.failing
        && (!row.is_strict() || standing.cosigned)
        && (!sandboxed_only || standing.sandboxed || is_document(weighed.fact.id))
}

fn require(
    requirement: &Requirement,
    row: &Row,
    ground: &Ground<'_>,
    sandboxed_only: bool,
    gaps: &mut Gaps,
) -> BTreeSet<u64> {
    let documents_only = requirement.any.iter().all(|fact| is_document(fact));
    let tier = if documents_only { requirement.tier } else { requirement.tier.max(row.tier) };
    let mut tally = Tally::new(ground, row.is_strict(), requirement.events);
    for (_, run) in runs(ground.facts).filter(|(id, _)| requirement.any.contains(*id)) {
        let counted = run.iter().filter(|weighed| weighed.tier >= tier);
        counted.filter(|weighed| counts(weighed, row, ground, sandboxed_only)).for_each(|one| tally.take(one));
    }
    let facts: Vec<&str> = requirement.any.iter().map(String::as_str).collect();
    let tally = tally.done();
    gaps.need("passing facts", tally.events, requirement.events, tier, &facts);
    gaps.need("sessions with passing facts", tally.sessions, requirement.sessions, tier, &facts);
    gaps.need("days with passing facts", tally.days, requirement.days, tier, &facts);
    events_of(&tally.best)
}

/// Passing sessions ÷ sessions that have facts of the gate, or failed as a whole.
fn ratio(question: &Question, row: &Row, ground: &Ground<'_>, gaps: &mut Gaps) {
    let required = question.requires.iter().filter(|requirement| requirement.level <= row.level);
    let gate: BTreeSet<&str> =
        question.support.iter().chain(required.flat_map(|requirement| &requirement.any)).map(String::as_str).collect();
    let failing = ground.sessions.iter().enumerate().filter(|(_, standing)| standing.failing);
    let mut passes: BTreeMap<usize, bool> = failing.map(|(at, _)| (at, false)).collect();
    let outside = |session: usize| ground.sessions.get(session).is_some_and(|at| at.outside);
    for (_, run) in runs(ground.facts).filter(|(id, _)| gate.contains(*id)) {
        for same in run.chunk_by(|a, b| a.fact.session == b.fact.session) {
            let session = same[0].fact.session;
            if !outside(session) {
                *passes.entry(session).or_insert(true) &= same.iter().all(|weighed| weighed.fact.pass);
            }
        }
    }
    let passing = passes.values().filter(|passes| **passes).count() as u64;
    let share_bp = if passes.is_empty() { 0 } else { passing * 10_000 / passes.len() as u64 };
    let names: Vec<&str> = gate.into_iter().collect();
    gaps.need("basis points of sessions without a failure", share_bp, row.pass_ratio_bp, Tier::SelfReported, &names);
}

/// The facts in runs of one id. A score has them sorted, so that a run holds all of its id.
fn runs<'g, 'a>(facts: &'g [Weighed<'a>]) -> impl Iterator<Item = (&'static str, &'g [Weighed<'a>])> {
    facts.chunk_by(|a, b| std::ptr::eq(a.fact.id, b.fact.id)).map(|run| (run[0].fact.id, run))
}

/// Best first: weight, then time, then the facts' own order.
fn better(a: &Weighed<'_>, b: &Weighed<'_>) -> Ordering {
    let newer = b.fact.wall_ns.cmp(&a.fact.wall_ns);
    b.weight_bp.cmp(&a.weight_bp).then(newer).then_with(|| a.fact.cmp(b.fact))
}

fn events_of(best: &[Weighed<'_>]) -> BTreeSet<u64> {
    best.iter().flat_map(|weighed| weighed.fact.events.iter().copied()).collect()
}

/// Counts facts one by one and keeps the best of them.
struct Tally<'g, 'a> {
    ground: &'g Ground<'a>,
    strict: bool,
    wanted: usize,
    events: u64,
    best: Vec<Weighed<'a>>,
    sessions: BTreeMap<usize, u64>,
    days: BTreeMap<i32, u64>,
    good_days: BTreeSet<i32>,
    /// Facts of one session, which mostly follow each other: session, day, how many.
    run: Option<(usize, i32, u64)>,
}

/// What was counted.
struct Counted<'a> {
    events: u64,
    sessions: u64,
    days: u64,
    outside_session: u64,
    outside_day: u64,
    best: Vec<Weighed<'a>>,
}

impl<'g, 'a> Tally<'g, 'a> {
    fn new(ground: &'g Ground<'a>, strict: bool, wanted: u64) -> Self {
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let (sessions, days, good_days) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Tally { ground, strict, wanted, events: 0, best: Vec::new(), sessions, days, good_days, run: None }
    }

    fn take(&mut self, weighed: &Weighed<'a>) {
        let times = weighed.fact.times;
        self.events += times;
        let (session, day) = (weighed.fact.session, weighed.fact.day);
        match &mut self.run {
            Some(run) if (run.0, run.1) == (session, day) => run.2 += times,
            _ => {
                self.settle();
                self.run = Some((session, day, times));
            }
        }
        self.best.push(*weighed);
        // Now and then the worst are let go, so that what is kept stays small.
        if self.best.len() >= self.wanted.saturating_mul(4).saturating_add(64) {
            self.best.select_nth_unstable_by(self.wanted, better);
            self.best.truncate(self.wanted);
        }
    }

    fn settle(&mut self) {
        let Some((session, day, count)) = self.run.take() else { return };
        *self.sessions.entry(session).or_default() += count;
        *self.days.entry(day).or_default() += count;
        if !self.strict || self.ground.sessions.get(session).is_some_and(|standing| standing.day_covered) {
            self.good_days.insert(day);
        }
    }

    fn done(mut self) -> Counted<'a> {
        self.settle();
        self.best.sort_unstable_by(better);
        self.best.truncate(self.wanted);
        Counted {
            events: self.events,
            sessions: self.sessions.len() as u64,
            days: self.good_days.len() as u64,
            outside_session: self.events - self.sessions.values().max().copied().unwrap_or(0),
            outside_day: self.events - self.days.values().max().copied().unwrap_or(0),
            best: self.best,
        }
    }
}

struct Gaps {
    strict: bool,
    shortfalls: Vec<Shortfall>,
}

impl Gaps {
    fn need(&mut self, what: &str, have: u64, need: u64, tier: Tier, facts: &[&str]) {
        if have >= need {
            return;
        }
        let at = if tier > Tier::SelfReported { format!(" at {tier} or above") } else { String::new() };
        let in_time = if self.strict && what.contains("passing facts") { ", cosigned in time" } else { "" };
        let pending = facts.iter().filter(|fact| fact_kind(fact).is_some_and(|kind| !kind.is_emitted()));
        self.shortfalls.push(Shortfall {
            what: format!("{what}{at}{in_time}"),
            have,
            need,
            facts: facts.iter().map(|fact| (*fact).to_owned()).collect(),
            pending: pending.map(|fact| (*fact).to_owned()).collect(),
        });
    }
}
