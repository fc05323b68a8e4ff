//! Coalesced facts give every answer that the facts one by one give.

use amc_core::Tier;
use amc_core::timestamp::NS_PER_DAY;
use amc_scoring::bank::Bank;
use amc_scoring::caps::Circumstances;
use amc_scoring::coalesce::{Collector, best_wanted};
use amc_scoring::facts::Fact;
use amc_scoring::gate::Standing;
use amc_scoring::question::{Asked, Evidence, answer};
use proptest::prelude::*;

use crate::gates::{AS_OF_NS, GOOD, fact};
use crate::world::small_bank;

const SESSIONS: usize = 12;

fn bank(tags: &str) -> Bank {
    let more = format!(
        "{tags}requires = [{{ level = 3, any = [\"session.sealed\"], events = 20, sessions = 2 }}]\n\
         forbids = [{{ level = 4, facts = [\"llm.lease_only\"] }}]"
    );
    small_bank("\"llm.exchange\", \"llm.usage_recorded\", \"document.charter\"", &more)
}

fn any_fact() -> impl Strategy<Value = Fact> {
    let ids = vec!["llm.exchange", "llm.usage_recorded", "session.sealed", "llm.lease_only", "document.charter"];
    let tiers = prop::sample::select(Tier::ALL.to_vec());
    // Around both thresholds of age, with many at the same moment.
    let days = prop::sample::select(vec![10i64, 29, 30, 31, 74, 75, 76, 100, 119]);
    (prop::sample::select(ids), prop::bool::weighted(0.95), tiers, 0..SESSIONS, days, 0..3i64, 0..1_000_000u64)
        .prop_map(|(id, pass, tier, session, day, later, index)| {
            let day_of_session = 100 + i64::try_from(session).unwrap();
            let one = fact(id, pass, tier, session, day_of_session, index);
            Fact { wall_ns: day * NS_PER_DAY + later * (NS_PER_DAY / 2), ..one }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_answer_is_that_of_the_facts_one_by_one(
        one_by_one in prop::collection::vec(any_fact(), 0..600),
        busy in prop::collection::vec(any_fact(), 0..3),
        each in 0..9_000u64,
        standings in prop::collection::vec((prop::bool::weighted(0.1), prop::bool::weighted(0.9)), SESSIONS),
        high_risk in any::<bool>(),
    ) {
        let bank = bank(if high_risk { "tags = [\"high_risk\"]\n" } else { "" });
        let mut facts = one_by_one;
        // A session with very many facts, so that the collector coalesces on its way.
        for like in busy {
            facts.extend((0..each).map(|at| Fact { events: vec![at].into(), ..like.clone() }));
        }
        let mut collector = Collector::new(AS_OF_NS, best_wanted(&bank));
        facts.iter().cloned().for_each(|fact| collector.push(fact));
        let mut coalesced = collector.finish();
        coalesced.sort_unstable();
        facts.sort_unstable();
        prop_assert_eq!(coalesced.iter().map(|fact| fact.times).sum::<u64>(), facts.len() as u64);
        let standings: Vec<Standing> =
            standings.into_iter().map(|(failing, cosigned)| Standing { failing, cosigned, ..GOOD }).collect();
        let circumstances = Circumstances::default();
        let of = |facts: &[Fact]| {
            let asked = Asked { question: &bank.questions[0], claimed: None, target: None };
            let ground =
                Evidence { facts, sessions: &standings, blocker: false, as_of_ns: AS_OF_NS, circumstances: &circumstances };
            answer(&asked, &ground)
        };
        prop_assert_eq!(of(&coalesced), of(&facts));
    }
}
