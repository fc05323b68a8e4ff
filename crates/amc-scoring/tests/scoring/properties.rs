//! Properties over generated facts and generated event streams.

use amc_core::Tier;
use amc_core::kinds::*;
use amc_scoring::bank::Question;
use amc_scoring::facts::Fact;
use amc_scoring::gate::Standing;
use proptest::prelude::*;

use crate::gates::{GOOD, fact, level};
use crate::world::{Call, World, shipped, small_bank};

const SESSIONS: usize = 12;

fn question() -> Question {
    let more = "requires = [{ level = 3, any = [\"session.sealed\"], events = 2, sessions = 2 }]\n\
                forbids = [{ level = 4, facts = [\"llm.lease_only\"] }]";
    small_bank("\"llm.exchange\", \"llm.usage_recorded\"", more).questions[0].clone()
}

fn any_fact() -> impl Strategy<Value = Fact> {
    let ids = prop::sample::select(vec!["llm.exchange", "llm.usage_recorded", "session.sealed", "llm.lease_only"]);
    let tiers = prop::sample::select(Tier::ALL.to_vec());
    // A session has one day; most facts pass, so that high levels are reached.
    (ids, prop::bool::weighted(0.97), tiers, 0..SESSIONS, 0..1_000_000u64).prop_map(
        |(id, pass, tier, session, index)| fact(id, pass, tier, session, 100 + i64::try_from(session).unwrap(), index),
    )
}

/// A base of strong evidence on every day, so that the generated part moves levels 3 to 5 too.
fn base() -> impl Strategy<Value = Vec<Fact>> {
    (0..=2usize, 0..=SESSIONS).prop_map(|(each, days)| {
        let mut facts = Vec::new();
        for session in 0..days {
            let day = 100 + i64::try_from(session).unwrap();
            facts.extend((0..each).map(|at| fact("llm.exchange", true, Tier::Observed, session, day, at as u64)));
            facts.push(fact("session.sealed", true, Tier::Observed, session, day, 50));
        }
        facts
    })
}

fn standings() -> impl Strategy<Value = Vec<Standing>> {
    let standing = (prop::bool::weighted(0.05), prop::bool::weighted(0.95), prop::bool::weighted(0.95))
        .prop_map(|(failing, cosigned, day_covered)| Standing { failing, cosigned, day_covered, ..GOOD });
    prop::collection::vec(standing, SESSIONS)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn adding_a_pass_never_lowers_and_adding_a_failure_never_raises(
        base in base(),
        more in prop::collection::vec(any_fact(), 0..40),
        one in any_fact(),
        sessions in standings(),
        blocker in prop::bool::weighted(0.1),
    ) {
        let question = question();
        let mut facts = [base, more].concat();
        let before = level(&question, &facts, &sessions, blocker);
        facts.push(Fact { pass: true, ..one.clone() });
        let with_pass = level(&question, &facts, &sessions, blocker);
        prop_assert!(with_pass >= before, "{with_pass} < {before}");
        facts.pop();
        facts.push(Fact { pass: false, ..one });
        let with_failure = level(&question, &facts, &sessions, blocker);
        prop_assert!(with_failure <= before, "{with_failure} > {before}");
    }

    #[test]
    fn removing_a_pass_never_raises(
        base in base(),
        more in prop::collection::vec(any_fact(), 1..40),
        at in any::<prop::sample::Index>(),
        sessions in standings(),
    ) {
        let question = question();
        let mut facts = [base, more].concat();
        let before = level(&question, &facts, &sessions, false);
        let at = at.index(facts.len());
        if facts[at].pass {
            facts.remove(at);
            prop_assert!(level(&question, &facts, &sessions, false) <= before);
        }
    }

    #[test]
    fn the_order_of_facts_changes_nothing(
        facts in prop::collection::vec(any_fact(), 0..60).prop_flat_map(|facts| (Just(facts.clone()), Just(facts).prop_shuffle())),
        sessions in standings(),
    ) {
        let question = question();
        prop_assert_eq!(level(&question, &facts.0, &sessions, false), level(&question, &facts.1, &sessions, false));
    }

    #[test]
    fn self_reports_never_exceed_level_3(
        groups in prop::collection::vec((0..SESSIONS, 1..60usize), 0..60),
    ) {
        let facts: Vec<Fact> = groups
            .iter()
            .flat_map(|(session, count)| {
                let day = 100 + i64::try_from(*session).unwrap();
                (0..*count).map(move |at| fact("llm.exchange", true, Tier::SelfReported, *session, day, at as u64))
            })
            .chain((0..SESSIONS).map(|at| fact("session.sealed", true, Tier::SelfReported, at, 100, 0)))
            .collect();
        prop_assert!(level(&question(), &facts, &[GOOD; SESSIONS], false) <= 3);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Day,
    Session { calls: u64, status: u16, tier: Tier, outcome: SessionOutcome, cosigned: bool },
    Config { state: ConfigState },
    Test { code: i32 },
}

fn step(tiers: Vec<Tier>) -> impl Strategy<Value = Step> {
    let outcomes = prop_oneof![9 => Just(SessionOutcome::Sealed), 1 => Just(SessionOutcome::Interrupted)];
    let session = (
        0..5u64,
        prop::sample::select(vec![200, 200, 200, 429, 500]),
        prop::sample::select(tiers),
        outcomes,
        any::<bool>(),
    )
        .prop_map(|(calls, status, tier, outcome, cosigned)| Step::Session {
            calls,
            status,
            tier,
            outcome,
            cosigned,
        });
    let config = prop::sample::select(vec![ConfigState::Signed, ConfigState::Signed, ConfigState::Unsigned])
        .prop_map(|state| Step::Config { state });
    prop_oneof![4 => Just(Step::Day), 8 => session, 1 => config, 1 => (0..2).prop_map(|code| Step::Test { code })]
}

fn play(steps: &[Step]) -> World {
    let mut world = World::new();
    let bot = world.agent.clone();
    for step in steps {
        match step {
            Step::Day => world.next_day(),
            Step::Session { calls, status, tier, outcome, cosigned } => {
                let session = world.open(&bot, SessionPurpose::Agent);
                for _ in 0..*calls {
                    world.call(&bot, session, &Call { status: *status, tier: *tier, ..Call::default() });
                }
                world.exit(&bot, session, 0);
                world.seal(&bot, session, *outcome);
                if *cosigned {
                    world.cosign();
                }
            }
            Step::Config { state } => {
                world.load_config("gateway.yaml", *state, 1);
            }
            Step::Test { code } => world.test_session(*code),
        }
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn shuffled_events_give_the_same_bytes(
        steps in prop::collection::vec(step(Tier::ALL.to_vec()), 1..24),
        seed in any::<u64>(),
    ) {
        let world = play(&steps);
        let bank = shipped();
        let straight = world.score(&bank, 14).to_bytes();
        let mut evidence = world.evidence.events.clone();
        let mut audit = world.audit.events.clone();
        // Any fixed order that depends on the seed is as good as a shuffle.
        evidence.sort_by_key(|event| event.event.index.wrapping_mul(seed | 1).rotate_left(17));
        audit.sort_by_key(|event| event.event.index.wrapping_mul(seed | 1).rotate_left(23));
        evidence.extend(evidence.clone());
        let at = (world.now.wall_ns + 1_000_000_000, 14 * 86_400);
        let shuffled = world.score_of(&bank, at, (&evidence, &audit), None, None).to_bytes();
        prop_assert_eq!(straight, shuffled, "shuffled, and every event twice");
    }

    #[test]
    fn self_reported_calls_never_lift_a_question_above_level_3(
        steps in prop::collection::vec(step(vec![Tier::SelfReported, Tier::Attested]), 40..80),
    ) {
        let report = play(&steps).score(&small_bank("\"llm.exchange\", \"llm.usage_recorded\"", ""), 60);
        prop_assert!(report.questions[0].supported <= 3);
    }
}
