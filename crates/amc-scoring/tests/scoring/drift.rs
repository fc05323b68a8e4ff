//! Explanations as data, and drift between runs.

use amc_core::FindingCode;
use amc_core::kinds::*;
use amc_scoring::drift::drift;
use amc_scoring::explain::{HeldBy, explanation};
use amc_scoring::{Claims, Report};

use crate::world::{World, small_bank};

/// Seven good days, then what `change` does, then the run.
fn after(change: impl FnOnce(&mut World)) -> Report {
    let mut world = World::new();
    world.days(7, 4);
    change(&mut world);
    world.score(&small_bank("\"llm.exchange\"", ""), 60)
}

#[test]
fn nothing_changed_is_no_drift() {
    let report = after(|_| {});
    assert_eq!(drift(&report, &report), amc_scoring::drift::Drift::default());
}

#[test]
fn a_fall_is_explained_by_the_cap_that_is_new_and_the_rise_by_the_cap_that_is_gone() {
    let good = after(|_| {});
    let broken = after(|world| {
        world.load_config("amc.yaml", ConfigState::Unsigned, 1);
    });
    let fell = drift(&good, &broken);
    assert_eq!(fell.questions.len(), 1);
    let question = &fell.questions[0];
    assert_eq!((question.from, question.to), (Some(4), Some(3)));
    assert_eq!(question.why, ["new cap config_untrusted: at most level 3"]);
    assert_eq!(fell.findings_new.iter().map(|new| new.code).collect::<Vec<_>>(), [FindingCode::ConfigUnsigned]);
    assert_eq!((fell.layers.len(), fell.layers[0].id.as_str()), (1, "skills"));
    let rose = drift(&broken, &good);
    assert_eq!(rose.questions[0].why, ["cap config_untrusted is gone"]);
    assert_eq!(rose.findings_gone, fell.findings_new);
}

#[test]
fn a_fall_for_want_of_evidence_says_what_is_missing() {
    let seven = after(|_| {});
    let mut world = World::new();
    world.days(6, 4);
    let six = world.score(&small_bank("\"llm.exchange\"", ""), 60);
    let fell = drift(&seven, &six);
    assert!(fell.questions[0].why[0].starts_with("level 4 now misses days with passing facts"), "{fell:?}");
    let rose = drift(&six, &seven);
    assert_eq!(rose.questions[0].why, ["the evidence supports level 4 where it supported 3"]);
}

#[test]
fn other_inputs_are_named() {
    let mut world = World::new();
    world.days(3, 4);
    let bank = small_bank("\"llm.exchange\"", "");
    let plain = world.score(&bank, 14);
    let claims = Claims::parse(br#"{"version":1,"levels":{"q":1}}"#, &bank).unwrap();
    let claimed = world.score_with(&bank, 14, Some(&claims), None);
    let lower = drift(&plain, &claimed);
    assert_eq!(
        (lower.inputs.as_slice(), lower.questions[0].why.as_slice()),
        (&["claims"][..], &["less is claimed".to_owned()][..])
    );
    assert_eq!(drift(&claimed, &plain).questions[0].why, ["the claim no longer holds it down"]);
    let other = small_bank("\"llm.exchange\", \"session.sealed\"", "");
    assert_eq!(drift(&plain, &world.score(&other, 30)).inputs, ["bank", "window"]);
}

#[test]
fn what_holds_a_level_is_named() {
    let held = |report: &Report| explanation(&report.questions[0]).held_by;
    assert_eq!(held(&after(|_| {})), HeldBy::Evidence);
    let broken = after(|world| {
        world.load_config("amc.yaml", ConfigState::Unsigned, 1);
    });
    assert_eq!(held(&broken), HeldBy::Cap);
    let explained = explanation(&broken.questions[0]);
    let cap = explained.caps.iter().find(|cap| cap.rule == "config_untrusted").unwrap();
    assert!(cap.bites && cap.remedy.contains("amc config sign"));
    let ten = after(|world| world.days(3, 4));
    assert_eq!(held(&ten), HeldBy::Nothing);
    let mut world = World::new();
    world.days(3, 4);
    let bank = small_bank("\"llm.exchange\"", "");
    let claims = Claims::parse(br#"{"version":1,"levels":{"q":1}}"#, &bank).unwrap();
    assert_eq!(held(&world.score_with(&bank, 14, Some(&claims), None)), HeldBy::Claim);
}
