//! Bundles under keys that followed the pinned ones, and of logs that succeeded the pinned ones.

use amc_bundle::gate::{GateCall, PolicyFile, judge};
use amc_core::kinds::{KeyPurpose, KeyRevoked, LogHead, LogSucceeded, Role};
use amc_core::{Digest, FindingCode as Code, Tier};
use amc_crypto::note::KeyKind;
use amc_crypto::{TrustPolicy, VerifierKey};
use amc_evidence::Draft;
use std::io::Cursor;

use crate::world::{
    Aims, DAY, Key, Keys, Log, Plan, S, World, agent, checkpoint_cosigned, errors, other_agent, refused, session,
    verify,
};

fn run(keys: Keys, evidence: Log, audit: Log) -> World {
    World::run(keys, evidence, audit, 2, Aims::default())
}

/// A verdict on the world's bundle under a policy of first keys.
#[track_caller]
fn accepted(world: &World, policy: &TrustPolicy) {
    let verdict = verify(&world.export(), policy);
    assert!(verdict.is_good(), "{:#?}", verdict.findings);
}

#[test]
fn everything_after_a_rotation_verifies_from_the_pinned_first_keys() {
    let (mut keys, mut evidence, mut audit) = World::logs(Plan::default());
    let policy = keys.policy();
    let [monitor, auditor, witness] = [50, 51, 52].map(Key::new);
    evidence.rotate(KeyPurpose::Log, &monitor);
    audit.rotate(KeyPurpose::Log, &auditor);
    audit.rotate(KeyPurpose::Witness, &witness);
    keys = Keys { monitor, auditor, auditor_witness: witness, ..keys };
    evidence.at(evidence.now_ns() + DAY);
    session(&mut evidence, &agent(), 50);
    let cosigned = checkpoint_cosigned(&keys, &evidence);
    audit.at(evidence.now_ns() + S).append(Draft::new(Tier::Observed, cosigned));
    let world = run(keys, evidence, audit);
    let verdict = verify(&world.export(), &policy);
    assert!(verdict.is_good(), "{:#?}", verdict.findings);
    assert_eq!(verdict.issuer.expect("named").fingerprint, world.keys.auditor.public().dsse_key_id());
}

#[test]
fn keys_that_change_after_a_run_do_not_spoil_it() {
    let world = World::new();
    let policy = world.keys.policy();
    let world = world.rotated_since();
    let verdict = verify(&world.export(), &policy);
    assert!(verdict.is_good(), "{:#?}", verdict.findings);
    assert_eq!(verdict.issuer.expect("named").fingerprint, world.keys.auditor.public().dsse_key_id());
}

#[test]
fn a_manifest_by_a_retired_key() {
    let (mut keys, evidence, mut audit) = World::logs(Plan::default());
    let (policy, next) = (keys.policy(), Key::new(51));
    audit.rotate(KeyPurpose::Log, &next);
    let old = std::mem::replace(&mut keys.auditor, next);
    let world = run(keys, evidence, audit);
    let parts = crate::world::Parts::of(&world.export());
    refused("retired", &parts.pack(&old), &policy, Code::KeyOutOfValidity);
}

#[test]
fn a_manifest_by_a_key_that_the_audit_log_does_not_name() {
    let world = World::new();
    let parts = crate::world::Parts::of(&world.export());
    let stranger = Key::new(60);
    refused("stranger", &parts.pack(&stranger), &world.keys.policy(), Code::IssuerUntrusted);
}

#[test]
fn a_checkpoint_beyond_its_keys_revocation() {
    let (keys, mut evidence, mut audit) = World::logs(Plan::default());
    let from_index = evidence.state.size();
    // What follows is of another agent, so no event beyond the index is in the bundle.
    session(&mut evidence, &other_agent(), 70);
    let revoked = KeyRevoked {
        origin: keys.origin(Role::Monitor),
        purpose: KeyPurpose::Log,
        public: keys.monitor.public().to_digest(),
        from_index,
        reason: "the host was lost".into(),
    };
    audit.append(Draft::new(Tier::Observed, revoked));
    let world = run(keys, evidence, audit);
    refused("revoked", &world.export(), &world.keys.policy(), Code::KeyRevoked);
}

fn revoked_witness(keys: &Keys, role: Role, from_index: u64) -> KeyRevoked {
    let key = if role == Role::Monitor { &keys.monitor_witness } else { &keys.auditor_witness };
    KeyRevoked {
        origin: keys.origin(role),
        purpose: KeyPurpose::Witness,
        public: key.public().to_digest(),
        from_index,
        reason: "the host was lost".into(),
    }
}

#[test]
fn a_checkpoint_that_a_revoked_witness_cosigned() {
    let (keys, mut evidence, audit) = World::logs(Plan::default());
    evidence.append(Draft::new(Tier::Observed, revoked_witness(&keys, Role::Auditor, audit.state.size())));
    let world = run(keys, evidence, audit);
    refused("evidence", &world.export(), &world.keys.policy(), Code::CheckpointInvalid);

    let (keys, evidence, mut audit) = World::logs(Plan::default());
    audit.append(Draft::new(Tier::Observed, revoked_witness(&keys, Role::Monitor, 0)));
    let world = run(keys, evidence, audit);
    refused("audit", &world.export(), &world.keys.policy(), Code::CheckpointInvalid);
}

#[test]
fn a_cosignature_recorded_before_the_witness_was_revoked_counts() {
    let (keys, mut evidence, mut audit) = World::logs(Plan::default());
    let from_index = audit.state.size() + 1;
    evidence.append(Draft::new(Tier::Observed, revoked_witness(&keys, Role::Auditor, from_index)));
    let cosigned = checkpoint_cosigned(&keys, &evidence);
    audit.at(evidence.now_ns() + S).append(Draft::new(Tier::Observed, cosigned));
    let world = run(keys, evidence, audit);
    accepted(&world, &world.keys.policy());
}

/// A workspace whose evidence log ended and goes on; what the audit log says of that is up to `change`.
fn succeeded(change: impl FnOnce(&mut LogSucceeded, &mut LogHead) -> u32) -> World {
    let (keys, evidence, mut audit) = World::logs(Plan::default());
    let mut old = evidence.state.head();
    let mut said = LogSucceeded {
        old: old.clone(),
        origin: format!("{}/2", keys.origin(Role::Monitor)),
        log_public: keys.monitor.public().to_digest(),
        opening: Digest::ZERO,
        code: Code::LedgerTruncated.as_str().into(),
        reason: "a segment is gone".into(),
    };
    let times = change(&mut said, &mut old);
    let mut next = Log::succeeding(&keys, Role::Monitor, old, evidence.now_ns() + S);
    if said.opening == Digest::ZERO {
        said.opening = next.events[0].hash;
    }
    audit.at(next.now_ns() + S);
    for time in 0..times {
        let reason = format!("{} {time}", said.reason);
        audit.append(Draft::new(Tier::Observed, LogSucceeded { reason, ..said.clone() }));
    }
    next.at(next.now_ns() + DAY);
    session(&mut next, &agent(), 80);
    let cosigned = checkpoint_cosigned(&keys, &next);
    audit.at(next.now_ns() + S).append(Draft::new(Tier::Observed, cosigned));
    run(keys, next, audit)
}

#[test]
fn a_recorded_successor_counts_under_the_old_policy_and_is_said() {
    let world = succeeded(|_, _| 1);
    let verdict = verify(&world.export(), &world.keys.policy());
    assert!(verdict.is_good(), "{:#?}", verdict.findings);
    assert_eq!(verdict.bundle().expect("good").evidence.origin, "ws-1/evidence/2");
    assert!(verdict.findings.iter().any(|finding| finding.subject == "ws-1/evidence/2"), "{:#?}", verdict.findings);
}

#[test]
fn a_recorded_successor_may_have_another_key() {
    let (keys, evidence, mut audit) = World::logs(Plan::default());
    let (policy, old) = (keys.policy(), evidence.state.head());
    let keys = Keys { monitor: Key::new(50), ..keys };
    let mut next = Log::succeeding(&keys, Role::Monitor, old.clone(), evidence.now_ns() + S);
    let said = LogSucceeded {
        old,
        origin: next.state.origin().to_owned(),
        log_public: keys.monitor.public().to_digest(),
        opening: next.events[0].hash,
        code: Code::KeyRevoked.as_str().into(),
        reason: "the host was lost".into(),
    };
    audit.at(next.now_ns() + S).append(Draft::new(Tier::Observed, said));
    session(&mut next, &agent(), 80);
    accepted(&run(keys, next, audit), &policy);
}

#[test]
fn a_successor_that_nobody_recorded() {
    let world = succeeded(|_, _| 0);
    refused("unrecorded", &world.export(), &world.keys.policy(), Code::CheckpointInvalid);
}

#[test]
fn another_log_than_the_recorded_successor() {
    let world = succeeded(|said, _| {
        said.opening = Digest([7; 32]);
        1
    });
    refused("another", &world.export(), &world.keys.policy(), Code::LedgerForked);
}

#[test]
fn a_successor_that_names_another_head() {
    let world = succeeded(|_, old| {
        old.root = Digest([7; 32]);
        1
    });
    refused("another head", &world.export(), &world.keys.policy(), Code::LedgerForked);
}

#[test]
fn a_second_successor_of_the_same_log() {
    let world = succeeded(|_, _| 2);
    refused("second", &world.export(), &world.keys.policy(), Code::LedgerForked);
}

#[test]
fn a_successor_of_less_than_was_cosigned() {
    let world = succeeded(|said, old| {
        old.size -= 1;
        old.root = Digest([7; 32]);
        said.old = old.clone();
        1
    });
    refused("rolled back", &world.export(), &world.keys.policy(), Code::LedgerRollback);
}

#[test]
fn a_run_over_a_log_that_had_ended() {
    let (keys, evidence, mut audit) = World::logs(Plan::default());
    let next = Log::succeeding(&keys, Role::Monitor, evidence.state.head(), evidence.now_ns() + S);
    let said = LogSucceeded {
        old: evidence.state.head(),
        origin: next.state.origin().to_owned(),
        log_public: keys.monitor.public().to_digest(),
        opening: next.events[0].hash,
        code: Code::LedgerTruncated.as_str().into(),
        reason: "a segment is gone".into(),
    };
    audit.append(Draft::new(Tier::Observed, said));
    let world = run(keys, evidence, audit);
    refused("ended", &world.export(), &world.keys.policy(), Code::LedgerRollback);
}

#[test]
fn a_succeeded_audit_log_needs_the_monitors_record() {
    let bundle = |recorded: bool| {
        let (keys, mut evidence, audit) = World::logs(Plan::default());
        let mut next = Log::succeeding(&keys, Role::Auditor, audit.state.head(), evidence.now_ns() + S);
        if recorded {
            let said = LogSucceeded {
                old: audit.state.head(),
                origin: next.state.origin().to_owned(),
                log_public: keys.auditor.public().to_digest(),
                opening: next.events[0].hash,
                code: Code::LedgerTruncated.as_str().into(),
                reason: "a segment is gone".into(),
            };
            evidence.at(next.now_ns() + 2 * S).append(Draft::new(Tier::Observed, said));
        }
        // What the old log said of configurations is said again.
        let again = audit.events.iter().filter(|record| record.event.kind == 300).map(|record| record.fields.clone());
        for fields in again.flatten() {
            next.append(Draft::new(Tier::Observed, fields));
        }
        next.at(next.now_ns().max(evidence.now_ns()) + S);
        evidence.at(next.now_ns() + S);
        run(keys, evidence, next)
    };
    let world = bundle(true);
    accepted(&world, &world.keys.policy());
    let world = bundle(false);
    refused("unrecorded", &world.export(), &world.keys.policy(), Code::KeyHistoryUntrusted);
    let verdict = verify(&world.export(), &world.keys.policy());
    assert_eq!(errors(&verdict), [(Code::KeyHistoryUntrusted, "ws-1/audit/2#0")]);
}

/// After a theft the auditor's log goes on under a new key; somebody who also kept the old one, to verify older
/// bundles, must not take policies from whoever stole it.
#[test]
fn a_gate_policy_by_a_revoked_key_of_the_auditor() {
    let (stolen, mut evidence, audit) = World::logs(Plan::default());
    let (same, ..) = World::logs(Plan::default());
    let keys = Keys { auditor: Key::new(50), ..same };
    let mut next = Log::succeeding(&keys, Role::Auditor, audit.state.head(), evidence.now_ns() + S);
    let said = LogSucceeded {
        old: audit.state.head(),
        origin: next.state.origin().to_owned(),
        log_public: keys.auditor.public().to_digest(),
        opening: next.events[0].hash,
        code: Code::KeyRevoked.as_str().into(),
        reason: "the host was lost".into(),
    };
    let revoked = KeyRevoked {
        origin: stolen.origin(Role::Auditor),
        purpose: KeyPurpose::Log,
        public: stolen.auditor.public().to_digest(),
        from_index: audit.state.size(),
        reason: "the host was lost".into(),
    };
    evidence.at(next.now_ns() + S).append(Draft::new(Tier::Observed, revoked));
    evidence.append(Draft::new(Tier::Observed, said));
    for record in audit.events.iter().filter(|record| record.event.kind == 300) {
        next.append(Draft::new(Tier::Observed, record.fields.clone().expect("a known kind")));
    }
    next.at(next.now_ns().max(evidence.now_ns()) + S);
    let new_key = VerifierKey::new("ws-1/audit/2", KeyKind::Ed25519, keys.auditor.public()).expect("a key");
    let trust = TrustPolicy::parse(format!("log {new_key}\n{}", stolen.policy_text()).as_bytes()).expect("pins both");
    let world = run(keys, evidence, next);
    let bundle = world.export_with(amc_bundle::manifest::Payloads::Included).0;
    let verdict = verify(&bundle, &trust);
    assert!(verdict.is_good(), "{:#?}", verdict.findings);

    let text = br#"{"minWindowDays": 0}"#;
    let judged = |key: &Key, policy_key| {
        let signature = key.config_sig("gatePolicy.json", 1, None, text);
        let policy = PolicyFile { bytes: text, signature: Some(&signature) };
        let now_ns = world.audit.now_ns() + S;
        let call = GateCall { trust: &trust, policy, policy_key, policy_digest: None, now_ns };
        judge(Cursor::new(&bundle), &call).expect("a judgement")
    };
    let by_new = judged(&world.keys.auditor, None);
    assert_ne!(by_new.decision.rules[0].rule, "policySigned", "the auditor's new key counts");
    for policy_key in [None, Some(stolen.auditor.public())] {
        let by_stolen = judged(&stolen.auditor, policy_key);
        assert!(!by_stolen.is_allowed());
        assert_eq!(by_stolen.decision.rules[0].rule, "policySigned");
        assert!(by_stolen.findings.iter().any(|finding| finding.code == Code::KeyRevoked), "{by_stolen:#?}");
    }
}
