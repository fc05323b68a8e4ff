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

use crate::world::{Parts, Plan, S, World, archive};

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

/// Asks for nothing that a run without sessions does not have.
const LAX: &str = r#"{"minWindowDays": 0, "minIntegrityBp": 0, "minOverallBp": 0, "denyIfLowTrust": false}"#;

/// A world and its bundle, taken apart.
struct Whole {
    world: World,
    parts: Parts,
}

impl Whole {
    fn of(sessions: u8, window_days: u64) -> Self {
        let world = World::planned(Plan { sessions, window_days });
        Whole { parts: Parts::of(&world.export()), world }
    }

    /// Whether these bytes are allowed, under the lines of the trust policy that are there.
    fn allows(&self, bundle: Vec<u8>, trust: &[&str], policy: &str, is_signed: bool) -> bool {
        let Ok(trust) = TrustPolicy::parse((trust.join("\n") + "\n").as_bytes()) else { return false };
        let signature = self.world.keys.auditor.config_sig("gatePolicy.json", 1, None, policy.as_bytes());
        let signature = is_signed.then_some(signature.as_slice());
        let policy = PolicyFile { bytes: policy.as_bytes(), signature };
        let now_ns = self.world.evidence.now_ns().max(self.world.audit.now_ns()) + S;
        let call = GateCall { trust: &trust, policy, policy_key: None, policy_digest: None, now_ns };
        judge(Cursor::new(bundle), &call).is_ok_and(|judgement| judgement.is_allowed())
    }

    /// Whether what is left is allowed.
    fn is_allowed(&self, policy: &str, missing: &Missing) -> bool {
        let Whole { world, parts: whole } = self;
        let mut parts = whole.clone();
        let here = |name: &str, events: &[VerifiedEvent]| {
            let indices = whole.indices(name);
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
            false => archive(&whole.manifest(&world.keys.auditor), &parts.members),
        };
        let text = world.keys.policy_text();
        let trust = without(&text.lines().collect::<Vec<_>>(), &missing.trust);
        self.allows(bundle, &trust, policy, !missing.signature)
    }
}

const NOTHING: Missing =
    Missing { members: vec![], evidence: vec![], audit: vec![], trust: vec![], signature: false, repacked: true };

#[test]
fn nothing_that_is_missing_turns_a_denial_into_a_permission() {
    let (invalid, empty) = (Whole::of(3, 3), Whole::of(0, 14));
    assert!(empty.is_allowed(LAX, &NOTHING), "so it is not denied for want of anything else");
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
    for (whole, policy) in denied {
        assert!(!whole.is_allowed(policy, &NOTHING), "{policy}");
    }
    let mut runner = TestRunner::new(Config { cases: 200, ..Config::default() });
    let result = runner.run(&(0..denied.len(), missing()), |(which, missing)| {
        let (whole, policy) = denied[which];
        prop_assert!(!whole.is_allowed(policy, &missing), "{policy}");
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn without_any_one_member_nothing_is_allowed() {
    let whole = Whole::of(0, 14);
    let manifest = whole.parts.manifest(&whole.world.keys.auditor);
    let text = whole.world.keys.policy_text();
    let trust: Vec<&str> = text.lines().collect();
    assert!(whole.allows(archive(&manifest, &whole.parts.members), &trust, LAX, true), "with all of them");
    for name in whole.parts.members.keys() {
        let mut parts = whole.parts.clone();
        parts.members.remove(name);
        assert!(!whole.allows(archive(&manifest, &parts.members), &trust, LAX, true), "without {name}");
    }
}
