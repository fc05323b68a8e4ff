//! The lint of a bank: what makes it honest, shown on generated facts and on a generated workspace.
//!
//! `cargo xtask bank-lint` runs it over the shipped bank or over a file; the tests here run it over
//! banks with a defect each.

use std::collections::BTreeSet;

use amc_core::Tier;
use amc_core::timestamp::NS_PER_DAY;
use amc_scoring::bank::{Bank, Question, is_document};
use amc_scoring::facts::{FACTS, Fact, FactKind, fact_kind, weigh};
use amc_scoring::gate::{Ground, Row, Standing, TABLE, judge, supported};
use amc_scoring::report::{Report, Shortfall};

/// Facts and families whose emitter is still to come, and what brings it. Empty once all are there.
pub(crate) const PENDING: [(&str, &str); 3] = [
    ("assurance", "drills: the assurance packs and their runner"),
    ("egress.default_deny", "the sandbox, which leaves the egress proxy as the only way out"),
    ("sandbox", "the sandbox and its posture self-test"),
];

/// A day after the newest generated fact.
const AS_OF_NS: i64 = 121 * NS_PER_DAY;
/// Sessions that generated facts may come from.
const SESSIONS: usize = 64;
const GOOD: Standing = Standing { failing: false, cosigned: true, day_covered: true, sandboxed: true, outside: false };

/// Everything that is wrong with a bank. `shown`: the report of a workspace that makes every fact.
pub(crate) fn violations(bank: &Bank, shown: &Report, pending: &[(&str, &str)]) -> Vec<String> {
    let mut found = Vec::new();
    fact_violations(bank, shown, pending, &mut found);
    for question in &bank.questions {
        for row in &TABLE {
            level_violations(question, row, &mut found);
        }
        if level(question, &documents(question)) > 3 {
            found.push(format!("{}: documents alone reach level 4", question.id));
        }
        reach_violations(question, shown, &mut found);
    }
    found
}

/// Every fact that a gate names has a detector and a fixture, or is listed with what brings it.
fn fact_violations(bank: &Bank, shown: &Report, pending: &[(&str, &str)], found: &mut Vec<String>) {
    let named: BTreeSet<&str> = bank.questions.iter().flat_map(Question::facts).collect();
    for kind in named.into_iter().filter_map(fact_kind) {
        let listed = pending.iter().any(|(name, _)| is_called(kind, name));
        let made = shown.facts.iter().any(|fact| fact.fact == kind.id && fact.pass > 0);
        match (kind.is_emitted(), listed) {
            (true, true) => found.push(format!("{}: collected, and still listed as pending", kind.id)),
            (true, false) if !made => found.push(format!("{}: no fixture makes it", kind.id)),
            (false, false) => found.push(format!("{}: nothing collects it, and nothing is listed to", kind.id)),
            _ => {}
        }
    }
    for (name, _) in pending {
        if !FACTS.iter().any(|kind| is_called(kind, name)) {
            found.push(format!("{name}: listed as pending, and no fact is called so"));
        }
    }
}

fn is_called(kind: &FactKind, name: &str) -> bool {
    kind.id == name || kind.family() == name
}

/// A level is reached by exactly what it asks for, and missed with one fact, session or day less of
/// any of its requirements.
fn level_violations(question: &Question, row: &Row, found: &mut Vec<String>) {
    let facts = enough(question, row);
    let reached = level(question, &facts);
    if reached < row.level {
        found.push(format!("{}: level {} is not reached by what it asks for ({reached})", question.id, row.level));
        return;
    }
    for want in wants(question, row) {
        for (name, fewer, need) in want.neighbours(&facts) {
            let verdict_misses = |gap: &Shortfall| {
                gap.need == need
                    && gap.have + 1 == need
                    && gap.facts.iter().eq(&want.facts)
                    && gap.what.starts_with(name)
            };
            let weighed: Vec<_> = fewer.iter().filter_map(|fact| weigh(fact, AS_OF_NS, false)).collect();
            let ground = Ground { facts: &weighed, sessions: &[GOOD; SESSIONS], blocker: false };
            let missed = judge(question, row, &ground, false).shortfalls.iter().any(verdict_misses);
            if level(question, &fewer) >= row.level || !missed {
                let facts = want.facts.join(", ");
                found.push(format!(
                    "{}: level {} is not missed with one of {name} less ({facts})",
                    question.id, row.level
                ));
            }
        }
    }
    for forbidden in question.forbids.iter().filter(|forbidden| forbidden.level <= row.level) {
        for id in &forbidden.facts {
            let failed = [facts.as_slice(), &[fact(id, false, SESSIONS - 1, 0, 900_000)]].concat();
            if level(question, &failed) >= forbidden.level {
                found.push(format!("{}: level {} stands although {id} failed", question.id, row.level));
            }
        }
    }
}

/// What the workspace of good work reaches is everything that can be reached without pending facts.
fn reach_violations(question: &Question, shown: &Report, found: &mut Vec<String>) {
    let collected = |id: &String| fact_kind(id).is_some_and(|kind| kind.is_emitted());
    let support = question.support.iter().any(&collected);
    let barred = question.requires.iter().filter(|one| !one.any.iter().any(collected)).map(|one| one.level);
    let reachable = if support { barred.min().map_or(5, |level| level - 1) } else { 0 };
    let reached = shown.question(&question.id).map_or(0, |result| result.supported);
    if reached < reachable {
        let missing = shown.question(&question.id).map(|result| format!("{:?}", result.held_back)).unwrap_or_default();
        found.push(format!("{}: good work reaches {reached} of {reachable}: {missing}", question.id));
    }
}

/// One count that a level asks for: of the support, or of a requirement.
struct Want {
    facts: Vec<String>,
    events: u64,
    sessions: u64,
    days: u64,
}

fn wants(question: &Question, row: &Row) -> Vec<Want> {
    let own = Want {
        facts: question.support.iter().cloned().collect(),
        events: row.events,
        sessions: row.sessions,
        days: row.days,
    };
    let required = question.requires.iter().filter(|one| one.level <= row.level).map(|one| Want {
        facts: one.any.iter().cloned().collect(),
        events: one.events,
        sessions: one.sessions,
        days: one.days,
    });
    [own].into_iter().chain(required).collect()
}

impl Want {
    fn has(&self, fact: &Fact) -> bool {
        self.facts.iter().any(|id| id == fact.id)
    }

    /// The same facts with one fact, one session and one day less of this count.
    fn neighbours(&self, facts: &[Fact]) -> Vec<(&'static str, Vec<Fact>, u64)> {
        let mut all = Vec::new();
        let mut kept = 0;
        let fewer = facts.iter().filter(|fact| {
            kept += u64::from(self.has(fact));
            !self.has(fact) || kept < self.events
        });
        all.push(("passing facts", fewer.cloned().collect(), self.events));
        if self.sessions > 1 {
            let mut at = 0;
            let moved = facts.iter().cloned().map(|mut fact| {
                if self.has(&fact) {
                    fact.session = at % usize::try_from(self.sessions - 1).expect("small");
                    at += 1;
                }
                fact
            });
            all.push(("sessions with passing facts", moved.collect(), self.sessions));
        }
        if self.days > 1 {
            let mut at = 0;
            let moved = facts.iter().cloned().map(|mut fact| {
                if self.has(&fact) {
                    fact.day = 100 + at % (i32::try_from(self.days).expect("small") - 1);
                    at += 1;
                }
                fact
            });
            all.push(("days with passing facts", moved.collect(), self.days));
        }
        all
    }
}

/// Passing facts that make exactly the counts of the level, and of all below.
fn enough(question: &Question, row: &Row) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut index = 0;
    let mut required: Vec<Want> = wants(question, row).into_iter().skip(1).collect();
    // What asks for the most first: it stands for what asks for less of the same.
    required.sort_by_key(|want| std::cmp::Reverse(want.events));
    for want in &required {
        let apart = want.facts.iter().find(|id| !question.support.contains(*id));
        let id = apart.or(want.facts.first()).expect("a requirement names a fact");
        let have = facts.iter().filter(|fact: &&Fact| want.has(fact)).count() as u64;
        for at in have..want.events {
            facts.push(fact(id, true, place(at, want.sessions), place(at, want.days), index));
            index += 1;
        }
    }
    let no_document = question.support.iter().find(|id| !is_document(id)).expect("the bank's parser asks for one");
    let counted = |fact: &&Fact| question.support.contains(fact.id) && !is_document(fact.id);
    let have = facts.iter().filter(counted).count() as u64;
    // What stands for other counts too lies on their few days; the support has its own spread.
    let more = row.events.max(row.days).max(row.sessions);
    for at in 0..more.max(row.events.saturating_sub(have)) {
        facts.push(fact(no_document, true, place(at, row.sessions), place(at, row.days), index));
        index += 1;
    }
    facts
}

fn place(at: u64, among: u64) -> usize {
    usize::try_from(at % among.max(1)).expect("small")
}

fn fact(id: &str, pass: bool, session: usize, day: usize, index: u64) -> Fact {
    let id = fact_kind(id).expect("the bank's parser knows it").id;
    let day = 100 + i32::try_from(day).expect("small");
    let wall_ns = i64::from(day) * NS_PER_DAY;
    Fact { id, pass, tier: Tier::ObservedHardened, session, day, wall_ns, events: vec![index].into(), times: 1 }
}

/// More documents than anybody has, of every type, attested, on many days.
fn documents(question: &Question) -> Vec<Fact> {
    let named = question.facts().into_iter().filter(|id| is_document(id)).collect::<Vec<_>>();
    let each = |id: &str, at: usize| Fact { tier: Tier::Attested, ..fact(id, true, at, at % 20, at as u64) };
    named.iter().flat_map(|id| (0..SESSIONS - 1).map(|at| each(id, at))).collect()
}

fn level(question: &Question, facts: &[Fact]) -> u8 {
    let weighed: Vec<_> = facts.iter().filter_map(|fact| weigh(fact, AS_OF_NS, false)).collect();
    supported(question, &Ground { facts: &weighed, sessions: &[GOOD; SESSIONS], blocker: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::showcase::exemplary;
    use crate::world::{shipped, small_bank};

    #[test]
    fn the_shipped_bank_is_honest() {
        let bank = shipped();
        assert_eq!(violations(&bank, &exemplary(&bank), &PENDING), Vec::<String>::new());
    }

    #[test]
    fn a_fact_without_a_fixture_is_found() {
        let bank = small_bank("\"llm.exchange\"", "");
        let nothing = crate::world::World::new().score(&bank, 14);
        let found = violations(&bank, &nothing, &PENDING);
        assert!(found.iter().any(|what| what.starts_with("llm.exchange: no fixture")), "{found:?}");
        assert!(found.iter().any(|what| what.starts_with("q: good work reaches 0 of 5")), "{found:?}");
    }

    #[test]
    fn pending_lists_that_do_not_fit_are_found() {
        let bank = small_bank("\"sandbox.posture\", \"llm.exchange\"", "");
        let shown = exemplary(&bank);
        let found = violations(&bank, &shown, &[]);
        assert_eq!(found, ["sandbox.posture: nothing collects it, and nothing is listed to"]);
        let found = violations(&bank, &shown, &[("sandbox", "a"), ("llm", "b"), ("nothing", "c")]);
        assert_eq!(
            found,
            [
                "llm.exchange: collected, and still listed as pending",
                "nothing: listed as pending, and no fact is called so"
            ]
        );
    }

    #[test]
    fn a_requirement_that_asks_for_nothing_more_is_found() {
        let mut bank = small_bank("\"llm.exchange\"", "requires = [{ level = 3, any = [\"session.sealed\"] }]");
        assert!(violations(&bank, &exemplary(&bank), &PENDING).is_empty());
        let requirement = &mut bank.questions[0].requires[0];
        (requirement.events, requirement.sessions, requirement.days) = (0, 0, 0);
        let found = violations(&bank, &exemplary(&bank), &PENDING);
        assert!(found.iter().any(|what| what.contains("level 3 is not missed")), "{found:?}");
    }

    #[test]
    fn a_level_that_nothing_reaches_is_found() {
        let mut bank = small_bank("\"llm.exchange\"", "requires = [{ level = 4, any = [\"session.sealed\"] }]");
        bank.questions[0].requires[0].sessions = 9;
        let found = violations(&bank, &exemplary(&bank), &PENDING);
        assert!(found.iter().any(|what| what.contains("level 4 is not reached")), "{found:?}");
    }
}
