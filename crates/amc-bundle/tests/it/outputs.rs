//! What others make of a judgement: JUnit, SARIF and a SLSA VSA; and other small artifacts.

use amc_bundle::gate::{GateError, PolicyFile, junit, sarif, vsa::VsaPredicate, vsa_statement};
use amc_bundle::sigstore::{MEDIA_TYPE, sigstore_bundle};
use amc_bundle::{Difference, GateCall, Judgement, diff, judge};
use amc_core::FindingCode as Code;
use serde_json::Value;
use std::io::Cursor;

use crate::world::{DAY, Keys, Plan, S, World, verify};

const LAX: &str = r#"{"minWindowDays": 0, "minIntegrityBp": 0, "minOverallBp": 0}"#;

fn judged(world: &World, bundle: &[u8], policy: &str) -> Result<Judgement, GateError> {
    let signature = world.keys.auditor.config_sig("gatePolicy.json", 1, None, policy.as_bytes());
    let trust = world.keys.policy();
    let call = GateCall {
        trust: &trust,
        policy: PolicyFile { bytes: policy.as_bytes(), signature: Some(&signature) },
        policy_key: None,
        policy_digest: None,
        now_ns: world.audit.now_ns() + DAY,
    };
    judge(Cursor::new(bundle), &call)
}

fn both() -> (World, Judgement, Judgement) {
    let world = World::planned(Plan { sessions: 0, window_days: 14 });
    let bundle = world.export();
    let allowed = judged(&world, &bundle, LAX).expect("a judgement");
    let denied = judged(&world, &bundle, r#"{"agentId": "beta", "denyIfLowTrust": true}"#).expect("a judgement");
    assert!(allowed.is_allowed() && !denied.is_allowed());
    (world, allowed, denied)
}

#[test]
fn junit_counts_what_fails_and_says_why() {
    let (_, allowed, denied) = both();
    let text = junit(&allowed, "bot.amcbundle");
    let rules = allowed.decision.rules.len();
    assert!(text.contains(&format!("tests=\"{rules}\" failures=\"0\"")), "{text}");
    assert_eq!((text.matches("<testcase ").count(), text.matches("<failure ").count()), (rules, 0));
    let text = junit(&denied, "a<b>&\".amcbundle");
    assert!(text.contains("failures=\"2\"") && text.contains("a&lt;b&gt;&amp;&quot;"), "{text}");
    assert!(text.contains("message=\"wanted beta, found alpha\""), "{text}");
}

#[test]
fn sarif_has_a_result_for_every_rule() {
    let (_, allowed, denied) = both();
    for judgement in [&allowed, &denied] {
        let log = sarif(judgement, "bot.amcbundle");
        let run = &log["runs"][0];
        let (rules, results) = (&run["tool"]["driver"]["rules"], run["results"].as_array().expect("results"));
        assert_eq!(results.len(), judgement.decision.rules.len() + judgement.findings.len());
        for (result, rule) in results.iter().zip(&judgement.decision.rules) {
            let index = usize::try_from(result["ruleIndex"].as_u64().expect("a number")).expect("small");
            assert_eq!(rules[index]["id"], result["ruleId"]);
            assert_eq!(result["ruleId"], rule.rule.as_str());
            let wanted = if rule.pass { ("pass", "none") } else { ("fail", "error") };
            assert_eq!((result["kind"].as_str(), result["level"].as_str()), (Some(wanted.0), Some(wanted.1)));
        }
        assert_eq!(run["artifacts"][0]["hashes"]["sha-256"], judgement.bundle_sha256.to_string());
    }
}

#[test]
fn a_vsa_says_what_was_judged_and_how() {
    let (world, allowed, denied) = both();
    for (judgement, result, level) in [(&allowed, "PASSED", "AMC_GATE_ALLOWED"), (&denied, "FAILED", "FAILED")] {
        let statement = vsa_statement(judgement, "ci/audit", "bot.amcbundle", "gatePolicy.json");
        assert_eq!(statement.subject[0].digest.sha256, amc_crypto::sha256(&world.export()));
        let says: VsaPredicate = statement.predicate_as().expect("a VSA");
        assert_eq!((says.verification_result.as_str(), says.verified_levels[0].as_str()), (result, level));
        assert_eq!(says.resource_uri, "urn:amc:agent:ws-1:alpha");
        assert_eq!(says.verifier.id, "urn:amc:verifier:ci/audit");
        assert_eq!(says.policy.digest.sha256, judgement.policy_sha256);
        let value: Value = serde_json::from_slice(&statement.to_json()).expect("JSON");
        assert_eq!(value["predicateType"], "https://slsa.dev/verification_summary/v1");
        let keys: Vec<&str> = value["predicate"].as_object().expect("an object").keys().map(String::as_str).collect();
        for key in ["inputAttestations", "policy", "resourceUri", "slsaVersion", "timeVerified", "verifiedLevels"] {
            assert!(keys.contains(&key), "{key}");
        }
    }
}

#[test]
fn a_vsa_of_a_bundle_that_does_not_verify_names_only_its_bytes() {
    let (world, ..) = both();
    let mut bundle = world.export();
    let middle = bundle.len() / 2;
    bundle[middle] ^= 1;
    let judgement = judged(&world, &bundle, LAX).expect("a judgement");
    assert!(!judgement.is_allowed());
    assert_eq!(judgement.bundle_sha256, amc_crypto::sha256(&bundle), "all bytes, though reading stopped early");
    let says: VsaPredicate = vsa_statement(&judgement, "ci/audit", "b", "p").predicate_as().expect("a VSA");
    assert_eq!(says.resource_uri, format!("urn:amc:bundle:{}", judgement.bundle_sha256));
    assert_eq!(says.verification_result, "FAILED");
}

#[test]
fn what_is_missing_never_allows() {
    let world = World::planned(Plan { sessions: 0, window_days: 14 });
    let (bundle, trust) = (world.export(), world.keys.policy());
    let signature = world.keys.auditor.config_sig("gatePolicy.json", 1, None, LAX.as_bytes());
    let whole = GateCall {
        trust: &trust,
        policy: PolicyFile { bytes: LAX.as_bytes(), signature: Some(&signature) },
        policy_key: None,
        policy_digest: None,
        now_ns: world.audit.now_ns() + S,
    };
    assert!(judge(Cursor::new(&bundle), &whole).expect("a judgement").is_allowed());
    let nobody = amc_crypto::TrustPolicy::parse(b"quorum none\n").expect("pins nobody");
    let stranger = Keys::new("ws-1", 60);
    let cases: [(&str, GateCall<'_>); 5] = [
        ("no signature", GateCall { policy: PolicyFile { signature: None, ..whole.policy }, ..whole }),
        ("nobody pinned", GateCall { trust: &nobody, ..whole }),
        ("another policy key", GateCall { policy_key: Some(stranger.auditor.public()), ..whole }),
        ("another digest", GateCall { policy_digest: Some(amc_core::Digest([1; 32])), ..whole }),
        (
            "an edited policy",
            GateCall { policy: PolicyFile { bytes: b"{\"minWindowDays\": 0}", ..whole.policy }, ..whole },
        ),
    ];
    for (name, call) in cases {
        let judgement = judge(Cursor::new(&bundle), &call).expect("a judgement");
        assert!(!judgement.is_allowed(), "{name}");
        assert!(judgement.decision.rules.iter().any(|rule| !rule.pass), "{name}: says which rule");
    }
    for cut in (1..bundle.len()).step_by(4_001) {
        assert!(
            judge(Cursor::new(&bundle[..cut]), &whole).map_or(true, |judgement| !judgement.is_allowed()),
            "{cut} bytes"
        );
    }
    for (name, policy) in [("unknown key", r#"{"minOveralBp": 1}"#), ("status", r#"{"requireStatusValid": false}"#)] {
        assert!(matches!(judged(&world, &bundle, policy), Err(GateError::Policy(_))), "{name}");
    }
    assert!(matches!(judged(&world, b"hello", LAX), Err(GateError::NotABundle(_))));
}

#[test]
fn freshness_comes_from_cosignatures() {
    let world = World::planned(Plan { sessions: 0, window_days: 14 });
    let verdict = verify(&world.export(), &world.keys.policy());
    let bundle = verdict.bundle().expect("verifies");
    let oldest = bundle.evidence.witnesses.iter().chain(&bundle.audit.witnesses).map(|(_, time)| *time).min();
    let oldest_ns = i64::try_from(oldest.expect("both were cosigned")).expect("small") * S;
    assert_eq!(bundle.stale(3_600, oldest_ns + 3_600 * S), []);
    let stale = bundle.stale(3_600, oldest_ns + 3_600 * S + 1);
    assert_eq!(stale.len(), 1);
    assert_eq!((stale[0].code, stale[0].is_error()), (Code::CheckpointInvalid, true));
    assert_eq!(bundle.stale(3_600, oldest_ns - DAY).len(), 2, "a cosignature of tomorrow is no fresh one");
    // Without a witness that counts there is no time to go by.
    let logs = [amc_core::kinds::Role::Monitor, amc_core::kinds::Role::Auditor].map(|role| world.keys.log_vkey(role));
    let alone = format!("log {}\nlog {}\nquorum none\n", logs[0], logs[1]);
    let alone = amc_crypto::TrustPolicy::parse(alone.as_bytes()).expect("a policy");
    let verdict = verify(&world.export(), &alone);
    assert_eq!(verdict.bundle().expect("no quorum is asked for").stale(u64::MAX, oldest_ns).len(), 2);
}

#[test]
fn differences_are_named_and_equals_left_out() {
    let first = World::new();
    let second = World::planned(Plan { sessions: 4, window_days: 3 });
    assert!(diff(&first.report, &first.report).is_empty());
    let found: Difference = diff(&first.report, &second.report);
    let value = |id: &str| found.values.iter().find(|named| named.id == id);
    let window = value("window_s").expect("differs");
    assert_eq!(window.change.from.as_deref(), Some("172800"));
    assert_eq!(window.change.to.as_deref(), Some("259200"));
    assert!(value("workspace").is_none() && value("status").is_none());
    assert!(found.text().contains("window_s: 172800 -> 259200"), "{}", found.text());
    let back = diff(&second.report, &first.report);
    assert_eq!(back.findings_new, found.findings_gone);
    let mut raised = first.report.clone();
    raised.questions[0].final_level += 1;
    raised.layers.remove(0);
    let found = diff(&first.report, &raised);
    assert_eq!(found.questions.len(), 1);
    assert_eq!(found.layers[0].change.to, None, "a layer that is gone");
}

#[test]
fn the_sigstore_wrapper_holds_the_envelope_unchanged() {
    let world = World::new();
    let manifest = world.export_with(amc_bundle::Payloads::Withheld).1.manifest;
    let wrapped: Value = serde_json::from_str(&sigstore_bundle(manifest.as_bytes()).expect("wraps")).expect("JSON");
    assert_eq!(wrapped["mediaType"], MEDIA_TYPE);
    assert_eq!(wrapped["verificationMaterial"]["publicKey"]["hint"], world.keys.auditor.public().dsse_key_id());
    assert_eq!(wrapped["dsseEnvelope"], serde_json::from_str::<Value>(&manifest).expect("JSON"));
    let line = manifest.trim_end().trim_end_matches("]}");
    let signature = line.split("\"signatures\":[").nth(1).expect("one");
    let two = format!("{line},{signature}]}}");
    assert!(sigstore_bundle(two.as_bytes()).is_err(), "two signatures");
    assert!(sigstore_bundle(b"{}").is_err());
}
