//! Facts that are alike to every rule become one that stands for many.
//!
//! A gate counts facts and looks at the best few of them. So of facts with the same id, outcome, tier,
//! session and day, which no threshold of age tells apart, the best *k* are kept as they are, *k* being
//! the largest number that any gate of the bank asks for, and the best of the others stands for them all.
//! What stands for many is never among the best *k*: as many better ones count wherever it does.

use std::cmp::Ordering;

use crate::bank::Bank;
use crate::facts::{Fact, HORIZON_S, age_s};
use crate::gate::TABLE;

/// From this number on facts are coalesced while they are collected.
const COLLECTED_MAX: usize = 8_192;

/// How many of the best facts any gate of this bank looks at.
pub fn best_wanted(bank: &Bank) -> usize {
    let required = bank.questions.iter().flat_map(|question| &question.requires).map(|requirement| requirement.events);
    let most = TABLE.iter().map(|row| row.events).chain(required).max().unwrap_or(0);
    usize::try_from(most).unwrap_or(usize::MAX)
}

/// Collects facts and coalesces them now and then, so that what is kept does not grow with their number.
#[derive(Debug, Clone)]
pub struct Collector {
    as_of_ns: i64,
    best: usize,
    facts: Vec<Fact>,
    coalesce_at: usize,
}

impl Collector {
    /// For a score at `as_of_ns` whose gates look at the `best` best facts.
    pub const fn new(as_of_ns: i64, best: usize) -> Self {
        Collector { as_of_ns, best, facts: Vec::new(), coalesce_at: COLLECTED_MAX }
    }

    /// Takes one fact in.
    pub fn push(&mut self, fact: Fact) {
        self.facts.push(fact);
        if self.facts.len() >= self.coalesce_at {
            self.coalesce();
            self.coalesce_at = COLLECTED_MAX.max(2 * self.facts.len());
        }
    }

    /// The facts, coalesced.
    pub fn finish(mut self) -> Vec<Fact> {
        self.coalesce();
        self.facts.shrink_to_fit();
        self.facts
    }

    fn coalesce(&mut self) {
        let as_of_ns = self.as_of_ns;
        self.facts.sort_unstable_by(|a, b| alike(a, b, as_of_ns).then_with(|| better(a, b)));
        let mut kept: Vec<Fact> = Vec::with_capacity(self.facts.len().min(COLLECTED_MAX));
        let mut from = 0;
        for fact in self.facts.drain(..) {
            if kept.get(from).is_some_and(|first| alike(first, &fact, as_of_ns).is_ne()) {
                from = kept.len();
            }
            // Of failing facts no gate asks which they are.
            let best = if fact.pass { self.best } else { 0 };
            match kept.get_mut(from.saturating_add(best)) {
                Some(others) => others.times += fact.times,
                None => kept.push(fact),
            }
        }
        self.facts = kept;
    }
}

/// Equal for facts that no rule tells apart, save which of them is better.
fn alike(a: &Fact, b: &Fact, as_of_ns: i64) -> Ordering {
    let key = |fact: &Fact| (fact.pass, fact.tier, fact.session, fact.day, age_class(fact.wall_ns, as_of_ns));
    a.id.cmp(b.id).then_with(|| key(a).cmp(&key(b)))
}

/// Newer ones first, since evidence only loses with age; then the facts' own order.
fn better(a: &Fact, b: &Fact) -> Ordering {
    b.wall_ns.cmp(&a.wall_ns).then_with(|| a.cmp(b))
}

/// Which of the thresholds of age it has passed: half the horizon counts for high-risk questions.
fn age_class(wall_ns: i64, as_of_ns: i64) -> u8 {
    match age_s(wall_ns, as_of_ns) {
        age if age <= HORIZON_S / 2 => 0,
        age if age <= HORIZON_S => 1,
        _ => 2,
    }
}
