//! Bundles that must verify, and what they hold.

use amc_bundle::manifest::Payloads;
use amc_bundle::{ExportError, member};
use amc_core::FindingCode;
use amc_core::kinds::{Fields, Role};
use amc_crypto::merkle::MemoryTree;
use amc_scoring::{Bank, SHIPPED_BANK};

use crate::world::{Aims, Log, Parts, Plan, T0, TARGET_PATH, World, agent, errors, other_agent, refused, verify};

#[test]
fn a_bundle_verifies_with_the_pinned_policy_alone() {
    let world = World::new();
    let (bytes, summary) = world.export_with(Payloads::Included);
    assert_eq!(summary.bytes, bytes.len() as u64);
    let verdict = verify(&bytes, &world.keys.policy());
    assert_eq!(errors(&verdict), []);
    let bundle = verdict.bundle().expect("verifies");
    assert_eq!(bundle.report, world.report);
    assert_eq!(bundle.evidence.events, summary.evidence_events as u64);
    assert_eq!(bundle.evidence.witnesses.len(), 1);
    assert_eq!(bundle.audit.witnesses[0].0, "monitor-witness");
    let data = serde_json::to_value(verdict.data()).expect("serialises");
    assert_eq!(data["agent_id"], "alpha");
    assert_eq!(data["issuer"]["fingerprint"], world.keys.auditor.public().dsse_key_id());
}

#[test]
fn it_holds_no_event_and_no_payload_of_another_agent() {
    let world = World::new();
    let parts = Parts::of(&world.export());
    let indices = parts.indices(member::EVIDENCE_EVENTS);
    assert!(indices.len() < world.evidence.events.len());
    for record in world.evidence.events.iter().filter(|record| indices.contains(&record.event.index)) {
        assert_ne!(record.event.agent, Some(other_agent()));
    }
    let bytes = world.export();
    assert!(!bytes.windows(4).any(|window| window == b"beta"), "nothing names the other agent");
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let world = World::new();
    assert_eq!(world.export(), world.export());
}

#[test]
fn withheld_payloads_change_no_score() {
    let world = World::new();
    let (bytes, summary) = world.export_with(Payloads::Withheld);
    assert_eq!(summary.payloads, 0);
    let verdict = verify(&bytes, &world.keys.policy());
    let bundle = verdict.bundle().expect("verifies");
    assert_eq!((bundle.payloads, &bundle.report), (Payloads::Withheld, &world.report));
}

#[test]
fn payloads_that_are_gone_are_said() {
    let mut world = World::new();
    world.evidence.payloads.retain(|_, bytes| !bytes.starts_with(b"answer 2 to alpha"));
    let (bytes, summary) = world.export_with(Payloads::Included);
    assert_eq!(summary.payloads_absent, 1);
    let verdict = verify(&bytes, &world.keys.policy());
    assert_eq!(verdict.bundle().map(|bundle| bundle.payloads_absent), Some(1), "{:?}", verdict.findings);
}

#[test]
fn an_agent_without_sessions_has_a_bundle_too() {
    let world = World::planned(Plan { sessions: 0, window_days: 14 });
    let verdict = verify(&world.export(), &world.keys.policy());
    assert_eq!(errors(&verdict), []);
}

#[test]
fn sessions_in_between_and_before_the_window_are_there() {
    let world = World::planned(Plan { sessions: 6, window_days: 2 });
    let verdict = verify(&world.export(), &world.keys.policy());
    assert_eq!(errors(&verdict), []);
    let numbers: Vec<u64> = world.report.sessions.iter().map(|session| session.number).collect();
    assert_eq!(numbers, [5, 6]);
    let parts = Parts::of(&world.export());
    let opened = |number: u64| {
        world.evidence.events.iter().find_map(|record| match &record.fields {
            Some(Fields::SessionOpen(open)) if open.number == number && record.event.agent == Some(agent()) => {
                Some(record.event.index)
            }
            _ => None,
        })
    };
    let indices = parts.indices(member::EVIDENCE_EVENTS);
    assert!(indices.contains(&opened(4).expect("there")), "the session before the window");
    assert!(!indices.contains(&opened(3).expect("there")), "and no more");
}

#[test]
fn export_refuses_what_does_not_belong_together() {
    let mut mixed = World::new();
    mixed.evidence_note = World::planned(Plan { sessions: 2, window_days: 2 }).evidence_note;
    let error = mixed.try_export(Payloads::Included).expect_err("a checkpoint that is not the report's");
    assert!(matches!(error, ExportError::Inconsistent(_)), "{error}");

    let mut early = World::new();
    early.audit_note = early.keys.note(Role::Auditor, &Log::open(&early.keys, Role::Auditor, T0));
    let error = early.try_export(Payloads::Included).expect_err("a checkpoint from before the run's entry");
    assert!(matches!(error, ExportError::RunNotCovered), "{error}");

    let mut damaged = World::new();
    damaged.evidence.payloads.values_mut().for_each(|bytes| bytes.push(0));
    let error = damaged.try_export(Payloads::Included).expect_err("payloads that were changed in the store");
    assert!(matches!(error, ExportError::Payloads(_)), "{error}");

    let mut torn = World::new();
    torn.evidence.tree = MemoryTree::new(torn.evidence.events.iter().rev().map(|record| record.hash));
    let error = torn.try_export(Payloads::Included).expect_err("a tree that is not the log's");
    assert!(matches!(error, ExportError::Proof { .. }), "{error}");
}

#[test]
fn a_configuration_that_changed_since_the_run_is_left_out_and_said() {
    let world = World::new();
    let changed = b"listen: 127.0.0.1:9999\n";
    let (bytes, summary) = world.export_configs(&[("gateway.yaml", None, changed), ("amc.yaml", None, b"new: 1\n")]);
    assert_eq!(summary.configs_left_out, ["gateway.yaml", "amc.yaml"]);
    let verdict = verify(&bytes, &world.keys.policy());
    assert_eq!(errors(&verdict), []);
}

#[test]
fn claims_and_target_travel_along_and_cannot_be_changed() {
    let bank = Bank::parse(SHIPPED_BANK).expect("the shipped bank");
    let question = &bank.questions[0].id;
    let claims = format!(r#"{{"version":1,"levels":{{"{question}":5}}}}"#).into_bytes();
    let target = crate::world::target();
    let aims = Aims { claims: Some(claims), target: Some(target) };
    let (keys, evidence, audit) = World::logs(Plan::default());
    let world = World::run(keys, evidence, audit, 2, aims);
    assert!(world.report.claims_sha256.is_some() && world.report.target.is_some());
    let bundle = world.export();
    let policy = world.keys.policy();
    assert_eq!(errors(&verify(&bundle, &policy)), []);

    let target_name = format!("{}{TARGET_PATH}", member::TARGET_DIR);
    for name in [member::CLAIMS, target_name.as_str()] {
        let mut without = Parts::of(&bundle);
        without.members.remove(name);
        without.members.remove(&format!("{name}.sig"));
        refused(name, &without.pack(&world.keys.auditor), &policy, FindingCode::ScoreMismatch);
        let mut changed = Parts::of(&bundle);
        changed.edit(name, |bytes| bytes.push(b' '));
        refused(name, &changed.pack(&world.keys.auditor), &policy, FindingCode::ScoreMismatch);
        let mut broken = Parts::of(&bundle);
        broken.edit(name, |bytes| bytes.truncate(bytes.len() - 1));
        refused(name, &broken.pack(&world.keys.auditor), &policy, FindingCode::BundleMalformed);
    }
}
