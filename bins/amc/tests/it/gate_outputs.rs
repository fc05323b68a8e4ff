//! What the gate hands on: JUnit, SARIF, a signed verdict; and how it ends.

use std::fs;

use serde_json::Value;

use crate::answer::Answer;
use crate::home::{Scored, TestHome, bare_command, command_in};

fn files(scored: &Scored) -> [String; 3] {
    let policy = scored.home.file("agents/support/gatePolicy.json").display().to_string();
    [scored.bundle.display().to_string(), policy, scored.home.file("trust.policy").display().to_string()]
}

#[test]
fn a_denial_is_written_for_every_reader_and_signed() {
    let scored = TestHome::scored();
    let [bundle, policy, _] = files(&scored);
    let out = |name: &str| scored.home.beside(name).display().to_string();
    let (junit, sarif, vsa) = (out("gate.xml"), out("gate.sarif"), out("gate.vsa.json"));
    let gate =
        ["gate", "--bundle", &bundle, "--policy", &policy, "--junit", &junit, "--sarif", &sarif, "--attest", &vsa];
    let answer = scored.home.json(&gate).ends(1);
    let rules = answer.data()["rules"].as_array().expect("rules").clone();
    let failing = rules.iter().filter(|rule| rule["pass"] == false).count();
    assert!(failing > 0 && rules.len() >= 16, "{answer}");

    let junit = fs::read_to_string(junit).expect("written");
    assert!(junit.contains(&format!("tests=\"{}\" failures=\"{failing}\"", rules.len())), "{junit}");
    let sarif: Value = serde_json::from_slice(&fs::read(sarif).expect("written")).expect("JSON");
    let results = sarif["runs"][0]["results"].as_array().expect("results").clone();
    assert_eq!(results.iter().filter(|result| result["level"] == "error").count(), failing);

    let envelope: Value = serde_json::from_slice(&fs::read(&vsa).expect("written")).expect("JSON");
    let shown = scored.home.json(&["trust", "show"]).ends(0).data();
    let audit = shown["logs"].as_array().expect("a list").iter().find(|log| log["origin"] == "acme-test/audit");
    assert_eq!(envelope["signatures"][0]["keyid"], audit.expect("pinned")["key_id"]);
    scored.home.assert_tidy();
}

#[test]
fn a_gate_signs_with_a_home_of_its_own() {
    let scored = TestHome::scored();
    let [bundle, policy, trust] = files(&scored);
    let ci = tempfile::tempdir().expect("a directory");
    let vsa = ci.path().join("vsa.json");
    let target = vsa.display().to_string();
    let gate = ["--json", "gate", "--bundle", &bundle, "--policy", &policy, "--trust", &trust, "--attest", &target];
    // Without a home there is no key to sign with, and nothing is written.
    let without = Answer::of(bare_command(ci.path()).args(gate)).ends(2);
    assert!(without.data()["error"].as_str().expect("why").contains("--attest"), "{without}");
    assert!(!vsa.exists());
    Answer::of(command_in(ci.path()).args(["init", "--name", "ci"])).ends(0);
    Answer::of(command_in(ci.path()).args(gate)).ends(1);
    assert!(vsa.is_file());
    // Locked: the verdict stands, and it was not signed.
    fs::remove_file(&vsa).expect("it was written");
    let locked = Answer::of(command_in(ci.path()).env_remove("AMC_VAULT_PASSPHRASE").args(gate)).ends(3);
    assert!(locked.data()["error"].as_str().expect("why").contains("was not signed"), "{locked}");
    assert!(!vsa.exists());
}

#[test]
fn a_policy_that_nobody_signed_denies_and_one_that_does_not_parse_is_a_wrong_call() {
    let scored = TestHome::scored();
    let [bundle, policy, _] = files(&scored);
    let gate = ["gate", "--bundle", &bundle, "--policy", &policy];
    let digest = "0".repeat(64);
    scored.home.json(&[&gate[..], &["--policy-digest", &digest]].concat()).ends(1);
    fs::write(&policy, "{}").expect("it can be written");
    let answer = scored.home.json(&gate).ends(1);
    assert_eq!(answer.data()["rules"][0]["rule"], "policySigned");
    assert!(answer.errors().contains("CONFIG_SIGNATURE_INVALID"), "{answer}");
    fs::remove_file(format!("{policy}.sig")).expect("it was there");
    let answer = scored.home.json(&gate).ends(1);
    assert!(answer.errors().contains("CONFIG_UNSIGNED"), "{answer}");
    let text = scored.home.beside("text.amcbundle");
    fs::write(&text, "hello\n").expect("a file");
    let text = text.display().to_string();
    scored.home.amc(&["gate", "--bundle", &text, "--policy", &policy]).ends(2).says(&["is no bundle"]);
}
