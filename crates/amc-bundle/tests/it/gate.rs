//! The gate on real bundles: who may sign a policy, and what a missing piece does.

use std::collections::BTreeMap;

use amc_bundle::gate::{PolicyFile, PolicyTrust, SignedPolicy, pinned_policy_keys};
use amc_bundle::{Decision, GateDecision, GatePolicy, PolicyError, decide};
use amc_core::FindingCode;
use amc_crypto::{PublicKey, Unverified, Verified};

use serde_json::{Value, json};

use crate::world::{DAY, Key, Keys, Plan, S, World, verify};

fn signed(key: &Key, text: &str) -> Verified<SignedPolicy> {
    let signature = key.config_sig("somewhere/gatePolicy.json", 1, None, text.as_bytes());
    let file = PolicyFile { bytes: text.as_bytes(), signature: Some(&signature) };
    let trust = PolicyTrust { keys: &[key.public()], digest: None };
    Unverified::new(file).verify(&trust).expect("signed by the named key")
}

fn failing(decision: &GateDecision) -> Vec<&str> {
    decision.rules.iter().filter(|rule| !rule.pass).map(|rule| rule.rule.as_str()).collect()
}

/// Asks for nothing that a run without sessions does not have.
const LAX: &str = r#"{"minWindowDays": 0, "minIntegrityBp": 0, "minOverallBp": 0}"#;

#[test]
fn a_verified_bundle_that_meets_every_rule_is_allowed() {
    let world = World::planned(Plan { sessions: 0, window_days: 14 });
    let verdict = verify(&world.export(), &world.keys.policy());
    let now_ns = verdict.bundle().expect("verifies").recorded_ns + S;
    let decision = decide(&verdict, &signed(&world.keys.auditor, LAX), now_ns);
    assert_eq!((decision.decision, failing(&decision)), (Decision::Allow, vec![]));
    let strict = r#"{"denyIfLowTrust": true, "minOverallBp": 1, "agentId": "beta", "maxAgeHours": 1}"#;
    let decision = decide(&verdict, &signed(&world.keys.auditor, strict), now_ns + DAY);
    assert_eq!(decision.decision, Decision::Deny);
    assert_eq!(failing(&decision), ["agentId", "denyIfLowTrust", "minOverallBp", "maxAgeHours"]);
}

#[test]
fn an_invalid_run_is_denied_whatever_the_policy_says() {
    let world = World::new();
    let verdict = verify(&world.export(), &world.keys.policy());
    assert!(verdict.is_good(), "authentic all the same");
    let decision = decide(&verdict, &signed(&world.keys.auditor, LAX), world.evidence.now_ns() + DAY);
    assert_eq!((decision.decision, failing(&decision)), (Decision::Deny, vec!["requireStatusValid"]));
    let rule = decision.rules.iter().find(|rule| rule.rule == "requireStatusValid").expect("listed");
    assert_eq!((rule.wanted.as_str(), rule.found.as_str()), ("VALID", "INVALID"));
}

#[test]
fn a_bundle_that_does_not_verify_is_denied_and_every_rule_is_listed() {
    let world = World::planned(Plan { sessions: 0, window_days: 14 });
    let good = world.export();
    let policy = signed(&world.keys.auditor, LAX);
    let now_ns = world.evidence.now_ns() + DAY;
    let all = decide(&verify(&good, &world.keys.policy()), &policy, now_ns);
    let mut flipped = good.clone();
    let middle = good.len() / 2;
    flipped[middle] ^= 1;
    let stranger = Keys::new("ws-1", 60);
    for (name, verdict) in [
        ("flipped", verify(&flipped, &world.keys.policy())),
        ("cut", verify(&good[..middle], &world.keys.policy())),
        ("stranger", verify(&good, &stranger.policy())),
        ("empty", verify(&[], &world.keys.policy())),
    ] {
        let decision = decide(&verdict, &policy, now_ns);
        assert_eq!(decision.decision, Decision::Deny, "{name}");
        assert!(failing(&decision).contains(&"verified"), "{name}");
        let names = |decision: &GateDecision| decision.rules.iter().map(|rule| rule.rule.clone()).collect::<Vec<_>>();
        assert_eq!(names(&decision), names(&all), "{name}: the same rules, in the same order");
    }
}

#[test]
fn a_policy_counts_only_under_a_trusted_signature() {
    let world = World::new();
    let stranger = Key::new(99);
    let pinned = pinned_policy_keys(&world.keys.policy());
    assert_eq!(pinned, [world.keys.auditor.public()], "the auditor, and not the monitor");
    let check = |text: &str, signature: Option<&[u8]>, keys: &[PublicKey], digest| {
        let file = PolicyFile { bytes: text.as_bytes(), signature };
        Unverified::new(file).verify(&PolicyTrust { keys, digest })
    };
    let by = |key: &Key, text: &str| key.config_sig("gatePolicy.json", 3, None, text.as_bytes());
    let good = by(&world.keys.auditor, LAX);
    assert_eq!(check(LAX, Some(&good), &pinned, None).expect("counts").version, 3);

    assert!(matches!(check(LAX, None, &pinned, None), Err(PolicyError::Unsigned)));
    let strangers = by(&stranger, LAX);
    assert!(matches!(check(LAX, Some(&strangers), &pinned, None), Err(PolicyError::Signature(_))));
    assert!(check(LAX, Some(&strangers), &[stranger.public()], None).is_ok(), "--policy-key");
    assert!(matches!(check(LAX, Some(&good), &[stranger.public()], None), Err(PolicyError::Signature(_))));
    assert!(matches!(check(LAX, Some(&good), &[], None), Err(PolicyError::Signature(_))));
    let edited = LAX.replace("\"minOverallBp\": 0", "\"minOverallBp\": 1");
    assert!(matches!(check(&edited, Some(&good), &pinned, None), Err(PolicyError::Signature(_))));
    assert!(matches!(check(LAX, Some(b"{}"), &pinned, None), Err(PolicyError::Signature(_))));
    let seal = world.seal.to_json().into_bytes();
    assert!(matches!(check(LAX, Some(&seal), &pinned, None), Err(PolicyError::Signature(_))), "a seal is no config");

    let digest = amc_crypto::sha256(LAX.as_bytes());
    assert!(check(LAX, Some(&good), &pinned, Some(digest)).is_ok());
    let older = "{}";
    let signature = by(&world.keys.auditor, older);
    assert!(matches!(check(older, Some(&signature), &pinned, Some(digest)), Err(PolicyError::Digest { .. })));

    for bad in [r#"{"minOveralBp": 1}"#, r#"{"requireStatusValid": false}"#] {
        let signature = by(&world.keys.auditor, bad);
        let error = check(bad, Some(&signature), &pinned, None);
        assert!(matches!(error, Err(PolicyError::Json(_) | PolicyError::Content(_))), "{bad}");
    }
}

#[test]
fn schema_page_and_reader_agree() {
    let schema: Value =
        serde_json::from_str(include_str!("../../../../docs/formats/gate-policy.schema.json")).expect("JSON");
    let page = include_str!("../../../../docs/formats/gate-policy.md");
    let example = page.split("```json").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    assert!(GatePolicy::parse(example.as_bytes()).is_ok(), "the page's example parses");
    let properties = schema["properties"].as_object().expect("properties");
    assert_eq!(properties.len(), 15);
    for (key, property) in properties {
        assert!(page.contains(&format!("| `{key}` |")), "{key} is on the page");
        let value = match (&property["type"], &property["const"]) {
            (_, Value::Bool(true)) => json!(true),
            (Value::String(kind), _) => match kind.as_str() {
                "string" => json!("alpha"),
                "boolean" => json!(false),
                "integer" => json!(1),
                "object" => json!({"a": 1}),
                _ => json!([]),
            },
            other => panic!("{key}: {other:?}"),
        };
        assert!(GatePolicy::parse(json!({ key: value }).to_string().as_bytes()).is_ok(), "{key}");
        assert!(GatePolicy::parse(json!({ key: null }).to_string().as_bytes()).is_err(), "{key}: null");
    }
    let codes: Vec<&str> = FindingCode::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(properties["forbidFindings"]["items"]["enum"], json!(codes));
}

/// The same files are judged under the schema by a validator of others, in `cargo xtask strangers`.
#[test]
fn the_reader_judges_policies_as_the_schema_does() {
    type Policies = BTreeMap<String, BTreeMap<String, String>>;
    let policies: Policies =
        serde_json::from_str(include_str!("../../../../fixtures/gate-policies.json")).expect("JSON");
    assert!(policies.len() == 4 && policies["good"].len() > 5 && policies["bad"].len() > 30);
    for (group, texts) in &policies {
        for (name, text) in texts {
            let read = GatePolicy::parse(text.as_bytes());
            assert_eq!(read.is_ok(), group == "good", "{group}, {name}: {read:?}");
        }
    }
}

#[test]
fn an_unknown_key_is_named() {
    for text in [r#"{"minOveralBp": 1}"#, r#"{"agentId": "a", "require_status_valid": true}"#] {
        let error = GatePolicy::parse(text.as_bytes()).expect_err("no such key").to_string();
        let key = text.rsplit('"').nth(1).expect("a key");
        assert!(error.contains(key) && error.contains("line 1"), "{error}");
    }
}
