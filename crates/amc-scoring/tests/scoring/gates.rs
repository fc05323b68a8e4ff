//! Every row of the default table, just below and just above each threshold, on made facts.

use amc_core::Tier;
use amc_core::timestamp::NS_PER_DAY;
use amc_scoring::Bank;
use amc_scoring::bank::Question;
use amc_scoring::caps::Circumstances;
use amc_scoring::facts::{Fact, weigh};
use amc_scoring::gate::{Ground, Standing, TABLE, judge, supported};
use amc_scoring::question::{Asked, Evidence, answer};

use crate::world::small_bank;

/// 120 days after the epoch; facts of day `d` are `120 − d` days old.
pub(crate) const AS_OF_NS: i64 = 120 * NS_PER_DAY;

/// Facts as (session, day, count) at a tier; sessions in order of their first use.
pub(crate) fn spread(tier: Tier, groups: &[(usize, i64, usize)]) -> Vec<Fact> {
    let made = groups.iter().enumerate().flat_map(|(group, (session, day, count))| {
        (0..*count).map(move |at| fact("llm.exchange", true, tier, *session, *day, (group * 1_000 + at) as u64))
    });
    made.collect()
}

pub(crate) fn fact(id: &'static str, pass: bool, tier: Tier, session: usize, day: i64, index: u64) -> Fact {
    Fact {
        id,
        pass,
        tier,
        session,
        day: i32::try_from(day).unwrap(),
        wall_ns: day * NS_PER_DAY,
        events: vec![index].into(),
        times: 1,
    }
}

pub(crate) const GOOD: Standing =
    Standing { failing: false, cosigned: true, day_covered: true, sandboxed: true, outside: false };

pub(crate) fn level(question: &Question, facts: &[Fact], sessions: &[Standing], blocker: bool) -> u8 {
    let facts: Vec<_> = facts.iter().filter_map(|fact| weigh(fact, AS_OF_NS, false)).collect();
    supported(question, &Ground { facts: &facts, sessions, blocker })
}

fn plain() -> Bank {
    small_bank("\"llm.exchange\", \"document.charter\"", "")
}

fn of(facts: &[Fact]) -> u8 {
    level(&plain().questions[0], facts, &[GOOD; 40], false)
}

/// `sessions` sessions on `days` days (the last days hold one each) with `total` facts, evenly.
fn even(tier: Tier, total: usize, sessions: usize, days: usize) -> Vec<Fact> {
    let groups: Vec<_> = (0..sessions)
        .map(|session| {
            let count = total / sessions + usize::from(session < total % sessions);
            (session, 100 + i64::try_from(session.min(days - 1)).unwrap(), count)
        })
        .collect();
    spread(tier, &groups)
}

#[test]
fn level_1() {
    assert_eq!(of(&[]), 0);
    assert_eq!(of(&even(Tier::SelfReported, 1, 1, 1)), 0);
    assert_eq!(of(&even(Tier::SelfReported, 2, 1, 1)), 1);
}

#[test]
fn level_2() {
    assert_eq!(of(&even(Tier::SelfReported, 3, 2, 2)), 1, "facts");
    assert_eq!(of(&even(Tier::SelfReported, 4, 1, 1)), 1, "sessions");
    assert_eq!(of(&even(Tier::SelfReported, 4, 2, 1)), 1, "days");
    assert_eq!(of(&even(Tier::SelfReported, 4, 2, 2)), 2);
}

#[test]
fn level_3() {
    assert_eq!(of(&even(Tier::SelfReported, 7, 3, 3)), 2, "facts");
    assert_eq!(of(&even(Tier::SelfReported, 8, 2, 2)), 2, "sessions");
    assert_eq!(of(&even(Tier::SelfReported, 8, 3, 2)), 2, "days");
    assert_eq!(of(&even(Tier::SelfReported, 8, 3, 3)), 3);
}

#[test]
fn level_4() {
    assert_eq!(of(&even(Tier::Attested, 11, 7, 7)), 3, "facts");
    assert_eq!(of(&even(Tier::Attested, 12, 7, 6)), 3, "days");
    assert_eq!(of(&even(Tier::SelfReported, 12, 7, 7)), 3, "tier");
    assert_eq!(of(&even(Tier::Attested, 12, 7, 7)), 4);
}

#[test]
fn level_4_asks_for_five_sessions_of_each_requirement_too() {
    let need = "requires = [{ level = 4, any = [\"session.sealed\"], events = 5, sessions = 5, days = 5 }]";
    let bank = small_bank("\"llm.exchange\"", need);
    let mut facts = even(Tier::Observed, 12, 7, 7);
    for session in 0..4 {
        facts.push(fact("session.sealed", true, Tier::Observed, session, 100 + session as i64, 9_000));
    }
    assert_eq!(level(&bank.questions[0], &facts, &[GOOD; 40], false), 3);
    facts.push(fact("session.sealed", true, Tier::Observed, 4, 104, 9_001));
    assert_eq!(level(&bank.questions[0], &facts, &[GOOD; 40], false), 4);
}

#[test]
fn level_5() {
    assert_eq!(of(&even(Tier::Observed, 15, 10, 10)), 4, "facts");
    assert_eq!(of(&even(Tier::Observed, 16, 10, 9)), 4, "days");
    assert_eq!(of(&even(Tier::Attested, 16, 10, 10)), 4, "tier");
    assert_eq!(of(&even(Tier::Observed, 16, 10, 10)), 5);
}

#[test]
fn sessions_of_levels_4_and_5() {
    // Several facts per session on days of their own: days are counted by facts, sessions apart.
    let groups = |sessions: usize, days: i64, each: usize| -> Vec<(usize, i64, usize)> {
        (0..days).map(|day| (usize::try_from(day).unwrap() % sessions, 100 + day, each)).collect()
    };
    assert_eq!(of(&spread(Tier::Observed, &groups(4, 9, 2))), 3, "four sessions");
    assert_eq!(of(&spread(Tier::Observed, &groups(5, 9, 2))), 4, "five sessions");
    assert_eq!(of(&spread(Tier::Observed, &groups(7, 10, 2))), 4, "seven sessions");
    assert_eq!(of(&spread(Tier::Observed, &groups(8, 10, 2))), 5, "eight sessions");
}

#[test]
fn spread_outside_the_richest_session_and_day() {
    // Level 4 needs 12 facts; 6 of them outside the richest session, and outside the richest day.
    let others = |count: usize| -> Vec<(usize, i64, usize)> {
        (1..=6).map(|session| (session, 100 + i64::try_from(session).unwrap(), usize::from(session <= count))).collect()
    };
    let with = |outside: usize, extra: &[(usize, i64, usize)]| {
        of(&spread(Tier::Observed, &[&[(0, 100, 40)], others(outside).as_slice(), extra].concat()))
    };
    assert_eq!(with(6, &[]), 4, "six outside the session with forty");
    assert_eq!(with(5, &[(8, 107, 0)]), 3, "five outside");
    assert_eq!(with(5, &[(8, 100, 1)]), 3, "six outside the richest session, five outside the richest day");
}

#[test]
fn the_session_pass_ratio() {
    let bank = plain();
    let ratio = |sessions: usize, failing: usize| {
        let mut facts = even(Tier::Observed, sessions * 4, sessions, 12);
        for session in 0..failing {
            facts.push(fact("llm.exchange", false, Tier::Observed, session, 100, 9_000 + session as u64));
        }
        level(&bank.questions[0], &facts, &[GOOD; 40], false)
    };
    assert_eq!(ratio(20, 0), 5);
    assert_eq!(ratio(20, 1), 5, "95 %");
    assert_eq!(ratio(20, 2), 4, "90 %");
    assert_eq!(ratio(20, 3), 3, "85 %");
    assert_eq!(ratio(19, 1), 4, "94.7 %");
    assert_eq!(ratio(19, 2), 3, "89.4 %");
}

#[test]
fn cheap_passes_do_not_dilute_a_failing_session() {
    let bank = plain();
    let mut facts = even(Tier::Observed, 16, 10, 10);
    facts.extend([
        fact("llm.exchange", false, Tier::Observed, 0, 100, 1),
        fact("llm.exchange", false, Tier::Observed, 1, 101, 2),
    ]);
    facts.extend((0..500).map(|at| fact("llm.exchange", true, Tier::Observed, 0, 100, 10_000 + at)));
    assert_eq!(level(&bank.questions[0], &facts, &[GOOD; 40], false), 3);
}

#[test]
fn a_session_that_failed_as_a_whole_fails_every_question() {
    let bank = plain();
    let facts = even(Tier::Observed, 30, 10, 10);
    let mut sessions = [GOOD; 12];
    assert_eq!(level(&bank.questions[0], &facts, &sessions, false), 5);
    sessions[11].failing = true;
    assert_eq!(level(&bank.questions[0], &facts, &sessions, false), 4, "10 of 11 pass, though it has no fact");
    sessions[10].failing = true;
    assert_eq!(level(&bank.questions[0], &facts, &sessions, false), 3, "10 of 12");
}

#[test]
fn blockers_forbid_levels_4_and_5() {
    let bank = plain();
    let facts = even(Tier::Observed, 30, 10, 10);
    assert_eq!(level(&bank.questions[0], &facts, &[GOOD; 40], true), 3);
}

#[test]
fn uncosigned_sessions_and_uncovered_days_do_not_count_for_levels_4_and_5() {
    let bank = plain();
    let facts = even(Tier::Observed, 14, 7, 7);
    let mut sessions = [GOOD; 40];
    assert_eq!(level(&bank.questions[0], &facts, &sessions, false), 4);
    sessions[3].day_covered = false;
    assert_eq!(level(&bank.questions[0], &facts, &sessions, false), 3, "six days");
    sessions[3] = Standing { cosigned: false, ..GOOD };
    assert_eq!(level(&bank.questions[0], &facts, &sessions, false), 3, "six sessions' facts");
}

#[test]
fn documents_never_carry_levels_4_and_5() {
    let bank = plain();
    let mut facts = even(Tier::Attested, 16, 10, 10);
    for fact in &mut facts {
        fact.id = "document.charter";
    }
    assert_eq!(level(&bank.questions[0], &facts, &[GOOD; 40], false), 3);
}

#[test]
fn a_forbidden_failure_bars_its_level() {
    let bank = small_bank("\"llm.exchange\"", "forbids = [{ level = 3, facts = [\"llm.lease_only\"] }]");
    let mut facts = even(Tier::Observed, 30, 10, 10);
    assert_eq!(level(&bank.questions[0], &facts, &[GOOD; 40], false), 5);
    facts.push(fact("llm.lease_only", false, Tier::Observed, 0, 100, 9_999));
    assert_eq!(level(&bank.questions[0], &facts, &[GOOD; 40], false), 2);
}

#[test]
fn level_5_of_a_high_risk_question_needs_sandboxed_sessions() {
    let bank = small_bank("\"llm.exchange\"", "tags = [\"high_risk\"]");
    let facts = even(Tier::Observed, 30, 10, 10);
    let final_level = |sandboxed: usize| {
        let sessions: Vec<_> = (0..10).map(|at| Standing { sandboxed: at < sandboxed, ..GOOD }).collect();
        let circumstances = Circumstances { llm_evidence: true, ..Circumstances::default() };
        let evidence = Evidence {
            facts: &facts,
            sessions: &sessions,
            blocker: false,
            as_of_ns: 112 * NS_PER_DAY,
            circumstances: &circumstances,
        };
        let asked = Asked { question: &bank.questions[0], claimed: None, target: None };
        let (result, findings) = answer(&asked, &evidence);
        assert_eq!(result.supported, 5);
        (result.final_level, findings.len())
    };
    assert_eq!(final_level(0), (4, 1), "flagged");
    assert_eq!(final_level(9), (4, 1), "nine days are not ten");
    assert_eq!(final_level(10), (5, 0));
}

#[test]
fn value_and_confidence() {
    let bank = plain();
    let circumstances = Circumstances { llm_evidence: true, ..Circumstances::default() };
    let of = |facts: &[Fact]| {
        let evidence = Evidence {
            facts,
            sessions: &[GOOD; 40],
            blocker: false,
            as_of_ns: AS_OF_NS,
            circumstances: &circumstances,
        };
        let result = answer(&Asked { question: &bank.questions[0], claimed: None, target: None }, &evidence).0;
        (result.final_level, result.value_bp, result.confidence_bp)
    };
    assert_eq!(of(&[]), (0, 0, 0));
    assert_eq!(of(&spread(Tier::Observed, &[(0, 110, 2)])), (1, 10_000, 5_000), "the minimum");
    assert_eq!(of(&spread(Tier::Observed, &[(0, 110, 3)])), (1, 10_000, 7_500));
    assert_eq!(of(&spread(Tier::Observed, &[(0, 110, 9)])), (1, 10_000, 10_000), "twice the minimum and more");
    assert_eq!(of(&spread(Tier::ObservedHardened, &[(0, 110, 4)])).1, 10_000, "never above the level");
    assert_eq!(of(&spread(Tier::SelfReported, &[(0, 110, 4)])).1, 4_000);
    let mixed = [spread(Tier::SelfReported, &[(0, 110, 1)]), spread(Tier::Observed, &[(1, 110, 1)])].concat();
    assert_eq!(of(&mixed).1, 7_000, "mean of the best two");
    assert_eq!(of(&spread(Tier::Observed, &[(0, 60, 2)])).1, 7_500, "sixty days old");
    assert_eq!(of(&spread(Tier::SelfReported, &[(0, 10, 9)])), (0, 0, 0), "too old to count");
}

#[test]
fn shortfalls_say_how_much_is_missing_and_what_nothing_collects() {
    let bank = small_bank("\"llm.exchange\"", "requires = [{ level = 1, any = [\"sandbox.posture\"] }]");
    let facts = even(Tier::Observed, 1, 1, 1);
    let weighed: Vec<_> = facts.iter().filter_map(|fact| weigh(fact, AS_OF_NS, false)).collect();
    let verdict =
        judge(&bank.questions[0], &TABLE[0], &Ground { facts: &weighed, sessions: &[GOOD], blocker: false }, false);
    let said: Vec<_> = verdict.shortfalls.iter().map(|gap| (gap.have, gap.need, gap.pending.len())).collect();
    assert_eq!(said, [(1, 2, 0), (0, 1, 1), (0, 1, 1), (0, 1, 1)]);
    assert_eq!(verdict.shortfalls[1].pending, ["sandbox.posture"]);
}
