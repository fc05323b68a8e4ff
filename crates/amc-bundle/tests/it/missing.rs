//! A missing piece never turns a denial into a permission: members of the archive, events of the logs, lines of the trust
//! policy, the signature beside a policy, in any combination, taken away by whoever, an issuer with the key included.

use std::collections::BTreeSet;
use std::io::Cursor;

use amc_bundle::gate::PolicyFile;
use amc_bundle::{GateCall, judge, member};
use amc_crypto::TrustPolicy;
use amc_evidence::VerifiedEvent;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

use crate::world::{Parts, Plan, S, World};

/// What is taken away.
#[derive(Debug, Clone)]
struct Missing {
    members: Vec<Index>,
    evidence: Vec<Index>,
    audit: Vec<Index>,
    trust: Vec<Index>,
    signature: bool,
    /// The manifest names what is left, signed by the issuer; else it names all.
    repacked: bool,
}

fn missing() -> impl Strategy<Value = Missing> {
    let some = |most: usize| proptest::collection::vec(any::<Index>(), 0..=most);
    let parts = (some(3), some(3), some(2), some(2), prop::bool::weighted(0.1), prop::bool::weighted(0.8));
    parts.prop_map(|(members, evidence, audit, trust, signature, repacked)| Missing {
        members,
        evidence,
        audit,
        trust,
        signature,
        repacked,
    })
}

/// All but the chosen ones.
fn without<T: Clone>(all: &[T], chosen: &[Index]) -> Vec<T> {
    let gone: BTreeSet<usize> = chosen.iter().filter(|_| !all.is_empty()).map(|index| index.index(all.len())).collect();
    all.iter().enumerate().filter(|(at, _)| !gone.contains(at)).map(|(_, one)| one.clone()).collect()
}

/// Whether what is left of a world's bundle is allowed.
fn is_allowed(world: &World, policy: &str, now_ns: i64, missing: &Missing) -> bool {
    let whole = world.export();
    let mut parts = Parts::of(&whole);
    let manifest = parts.manifest(&world.keys.auditor);
    let here = |name: &str, events: &[VerifiedEvent]| {
        let indices = parts.indices(name);
        events.iter().filter(|record| indices.contains(&record.event.index)).cloned().collect::<Vec<_>>()
    };
    let evidence = without(&here(member::EVIDENCE_EVENTS, &world.evidence.events), &missing.evidence);
    let audit = without(&here(member::AUDIT_EVENTS, &world.audit.events), &missing.audit);
    // A proof of nothing cannot be asked for.
    if !missing.evidence.is_empty() && !evidence.is_empty() {
        parts.put_evidence(&world.evidence.tree, &evidence.iter().collect::<Vec<_>>());
    }
    if !missing.audit.is_empty() && !audit.is_empty() {
        parts.put_audit(&world.audit.tree, &audit.iter().collect::<Vec<_>>());
    }
    let names: Vec<String> = parts.members.keys().cloned().collect();
    let left = without(&names, &missing.members);
    parts.members.retain(|name, _| left.contains(name));
    let bundle = match missing.repacked {
        true => parts.pack(&world.keys.auditor),
        false => crate::world::archive(&manifest, &parts.members),
    };
    let text = world.keys.policy_text();
    let lines = without(&text.lines().collect::<Vec<_>>(), &missing.trust);
    let Ok(trust) = TrustPolicy::parse((lines.join("\n") + "\n").as_bytes()) else { return false };
    let signature = world.keys.auditor.config_sig("gatePolicy.json", 1, None, policy.as_bytes());
    let policy =
        PolicyFile { bytes: policy.as_bytes(), signature: Some(signature.as_slice()).filter(|_| !missing.signature) };
    let call = GateCall { trust: &trust, policy, policy_key: None, policy_digest: None, now_ns };
    judge(Cursor::new(bundle), &call).is_ok_and(|judgement| judgement.is_allowed())
}

const NOTHING: Missing =
    Missing { members: vec![], evidence: vec![], audit: vec![], trust: vec![], signature: false, repacked: true };

#[test]
fn nothing_that_is_missing_turns_a_denial_into_a_permission() {
    const LAX: &str = r#"{"minWindowDays": 0, "minIntegrityBp": 0, "minOverallBp": 0, "denyIfLowTrust": false}"#;
    let invalid = World::planned(Plan { sessions: 3, window_days: 3 });
    let empty = World::planned(Plan { sessions: 0, window_days: 14 });
    let now_ns = |world: &World| world.evidence.now_ns().max(world.audit.now_ns()) + S;
    assert!(is_allowed(&empty, LAX, now_ns(&empty), &NOTHING), "so it is not denied for want of anything else");
    let denied = [
        (&invalid, LAX),
        (&empty, r#"{"minWindowDays": 0, "minOverallBp": 1}"#),
        (&empty, r#"{"minWindowDays": 0, "denyIfLowTrust": true}"#),
        (&empty, r#"{"minWindowDays": 15}"#),
        (&empty, r#"{"minWindowDays": 0, "agentId": "another"}"#),
        (&empty, r#"{"minWindowDays": 0, "witnessQuorum": 9}"#),
        (&empty, r#"{"minWindowDays": 0, "allowedBanks": []}"#),
        (&empty, r#"{"minWindowDays": 0, "assurance": {"injection": 1}}"#),
    ];
    for (world, policy) in denied {
        assert!(!is_allowed(world, policy, now_ns(world), &NOTHING), "{policy}");
    }
    let mut runner = TestRunner::new(Config { cases: 200, ..Config::default() });
    let result = runner.run(&(0..denied.len(), missing()), |(which, missing)| {
        let (world, policy) = denied[which];
        prop_assert!(!is_allowed(world, policy, now_ns(world), &missing), "{policy}");
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn without_any_one_member_or_pinned_key_nothing_is_allowed_that_rests_on_it() {
    const LAX: &str = r#"{"minWindowDays": 0, "minIntegrityBp": 0, "minOverallBp": 0, "denyIfLowTrust": false}"#;
    let world = World::planned(Plan { sessions: 0, window_days: 14 });
    let now_ns = world.evidence.now_ns().max(world.audit.now_ns()) + S;
    let whole = Parts::of(&world.export());
    let manifest = whole.manifest(&world.keys.auditor);
    for name in whole.members.keys() {
        let mut parts = whole.clone();
        parts.members.remove(name);
        let signature = world.keys.auditor.config_sig("gatePolicy.json", 1, None, LAX.as_bytes());
        let trust = world.keys.policy();
        let policy = PolicyFile { bytes: LAX.as_bytes(), signature: Some(&signature) };
        let call = GateCall { trust: &trust, policy, policy_key: None, policy_digest: None, now_ns };
        let judged = judge(Cursor::new(crate::world::archive(&manifest, &parts.members)), &call);
        assert!(!judged.is_ok_and(|judgement| judgement.is_allowed()), "without {name}");
    }
}
