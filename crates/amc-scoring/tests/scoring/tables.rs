//! Rows of the specification's tables that no other test here looks at alone, each just below and
//! just above its threshold: coverage, weights, age, means, and what was broken before the window.

use amc_core::Tier;
use amc_core::kinds::*;
use amc_core::timestamp::{NS_PER_DAY, NS_PER_S};
use amc_scoring::facts::{Fact, HORIZON_S, fact_kind, weigh};
use amc_scoring::{Bank, Report};

use crate::world::{Call, DAY_S, World, small_bank};

/// A bank with these questions, each `(id, layer, fact)`.
fn bank_of(questions: &[(&str, &str, &str)]) -> Bank {
    let mut text = String::from(
        "format = 1\nid = \"tables\"\nversion = 1\n[limits]\nsession_tokens_max = 1000\nfirst_byte_ms_max = 1000\n\
         first_byte_share_bp_min = 9500\nerror_rate_bp_max = 1000\n",
    );
    for (id, layer, fact) in questions {
        text += &format!(
            "[[question]]\nid = \"{id}\"\nlayer = \"{layer}\"\ntitle = \"T\"\nask = \"A\"\nnext = \"n\"\n\
             levels = [\"0\", \"1\", \"2\", \"3\", \"4\", \"5\"]\nsupport = [\"{fact}\"]\n"
        );
    }
    Bank::parse(text.as_bytes()).expect("the bank parses")
}

fn coverage(world: &World, facts: &[&str]) -> u32 {
    let ids: Vec<String> = (0..facts.len()).map(|at| format!("q{at}")).collect();
    let questions: Vec<_> = ids.iter().zip(facts).map(|(id, fact)| (id.as_str(), "skills", *fact)).collect();
    world.score(&bank_of(&questions), 14).integrity.coverage_bp
}

#[test]
fn coverage_is_the_mean_weight_of_the_best_tier() {
    let mut world = World::new();
    assert_eq!(coverage(&world, &["llm.exchange"]), 0, "no fact");
    world.next_day();
    world.test_session(0);
    assert_eq!(coverage(&world, &["test.suite"]), 4_000, "SELF_REPORTED");
    world.session(1, &Call::default());
    assert_eq!(coverage(&world, &["llm.exchange"]), 10_000, "OBSERVED");
    assert_eq!(coverage(&world, &["llm.exchange", "test.suite"]), 7_000);
    assert_eq!(coverage(&world, &["llm.exchange", "test.suite", "sandbox.posture"]), 4_666, "rounds down");
}

#[test]
fn a_document_covers_as_reported_until_it_is_attested() {
    let with = |attested: bool| {
        let mut world = World::new();
        let in_a_year = world.now.wall_ns + 365 * NS_PER_DAY;
        let index = world.ingest(IngestType::Charter, b"charter", Some(in_a_year), None);
        if attested {
            world.attest(index, in_a_year);
        }
        world.wait_s(1);
        let bank = small_bank("\"llm.exchange\"", "requires = [{ level = 1, any = [\"document.charter\"] }]");
        world.score(&bank, 14).integrity.coverage_bp
    };
    assert_eq!((with(false), with(true)), (4_000, 8_000));
}

fn weight(tier: Tier, age_s: u64, high_risk: bool) -> Option<(Tier, u32)> {
    let id = fact_kind("llm.exchange").unwrap().id;
    let fact = Fact { id, pass: true, tier, session: 0, day: 0, wall_ns: 0, events: vec![1].into(), times: 1 };
    let as_of_ns = i64::try_from(age_s).unwrap() * NS_PER_S;
    weigh(&fact, as_of_ns, high_risk).map(|weighed| (weighed.tier, weighed.weight_bp))
}

#[test]
fn tiers_weigh_what_the_table_says() {
    let fresh = |tier| weight(tier, 0, false).unwrap().1;
    let weights = Tier::ALL.map(fresh);
    assert_eq!(weights, [4_000, 8_000, 10_000, 11_000]);
}

#[test]
fn evidence_at_the_horizon_keeps_its_tier_and_a_second_later_drops_one() {
    let of = |tier, age_s| weight(tier, age_s, false);
    assert_eq!(of(Tier::Observed, HORIZON_S), Some((Tier::Observed, 5_000)));
    assert_eq!(of(Tier::Observed, HORIZON_S + 1), Some((Tier::Attested, 4_000)));
    assert_eq!(of(Tier::ObservedHardened, HORIZON_S + 1), Some((Tier::Observed, 5_000)));
    assert_eq!(of(Tier::SelfReported, HORIZON_S), Some((Tier::SelfReported, 2_000)));
    assert_eq!(of(Tier::SelfReported, HORIZON_S + 1), None, "discarded");
}

#[test]
fn high_risk_questions_use_half_the_horizon() {
    let half = HORIZON_S / 2;
    assert_eq!(weight(Tier::Observed, half, true), Some((Tier::Observed, 5_000)));
    assert_eq!(weight(Tier::Observed, half + 1, true), Some((Tier::Attested, 4_000)));
    assert_eq!(weight(Tier::Observed, half + 1, false).map(|(tier, _)| tier), Some(Tier::Observed));
    assert_eq!(weight(Tier::Observed, half / 3, true), Some((Tier::Observed, 10_000)));
    assert_eq!(weight(Tier::Observed, half / 3 + 1, true), Some((Tier::Observed, 9_999)));
}

#[test]
fn a_document_keeps_its_weight_whatever_its_age() {
    let id = fact_kind("document.charter").unwrap().id;
    let fact =
        Fact { id, pass: true, tier: Tier::Attested, session: 0, day: 0, wall_ns: 0, events: vec![1].into(), times: 1 };
    let old = weigh(&fact, 3 * i64::try_from(HORIZON_S).unwrap() * NS_PER_S, true).unwrap();
    assert_eq!((old.tier, old.weight_bp), (Tier::Attested, 8_000));
}

#[test]
fn layers_are_means_with_unanswered_questions_as_nought_and_the_whole_is_the_mean_of_layers() {
    let mut world = World::new();
    world.days(1, 4);
    let report: Report = world.score(
        &bank_of(&[
            ("a", "skills", "llm.exchange"),
            ("b", "skills", "llm.exchange"),
            ("c", "skills", "sandbox.posture"),
            ("d", "resilience", "llm.exchange"),
        ]),
        14,
    );
    let levels: Vec<u32> = report.layers.iter().map(|layer| layer.level_bp).collect();
    assert_eq!(levels, [0, 0, 0, 10_000, 6_666], "two of three at level 1, rounded down");
    assert_eq!(report.overall_bp, 3_333, "16,666 among five layers, rounded down");
}

#[test]
fn configuration_broken_before_the_window_caps_while_it_is_in_force() {
    let run = |repaired: bool| {
        let mut world = World::new();
        world.load_config("gateway.yaml", ConfigState::Unsigned, 1);
        if repaired {
            world.wait_s(60);
            world.load_config("gateway.yaml", ConfigState::Signed, 1);
        }
        world.days(12, 4);
        let at = (world.now.wall_ns + NS_PER_S, 8 * DAY_S);
        let logs = (world.evidence.events.as_slice(), world.audit.events.as_slice());
        let report = world.score_of(&small_bank("\"llm.exchange\"", ""), at, logs, None, None);
        report.questions[0].final_level
    };
    assert_eq!((run(false), run(true)), (3, 4));
}
