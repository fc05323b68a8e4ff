//! What is handed in, what the agent says, and what is aimed at: through the whole product.

use std::fs;

use serde_json::{Value, json};

use crate::answer::Answer;
use crate::home::{TestHome, model};

/// A file beside the home, handed in.
fn ingest(home: &TestHome, name: &str, text: &str, ingest_type: &str) -> Answer {
    fs::write(home.beside(name), text).expect("a file");
    home.json(&["ingest", name, "--agent", "support", "--type", ingest_type])
}

fn run(home: &TestHome) -> (Answer, Value) {
    let answer = home.json(&["run", "--agent", "support"]);
    assert!([0, 1].contains(&answer.code), "{answer}");
    let path = answer.data()["report"].as_str().expect("a path").to_owned();
    let report = fs::read(path).expect("the report is there");
    (answer, serde_json::from_slice(&report).expect("it is JSON"))
}

fn fact(report: &Value, id: &str) -> Option<Value> {
    report["facts"].as_array().expect("a list").iter().find(|fact| fact["fact"] == id).cloned()
}

#[test]
fn a_document_is_self_reported_until_the_auditor_attests_it() {
    let home = TestHome::new();
    home.wrap_sh("true").ends(0);
    let answer = ingest(&home, "charter.txt", "It answers questions about expenses.\n", "charter").ends(0);
    let index = answer.data()["index"].as_u64().expect("an index");
    let event = &home.evidence_of("ingested")[0];
    assert_eq!((event["tier"].as_str(), event["agent_id"].as_str()), (Some("SELF_REPORTED"), Some("support")));
    assert_eq!(event["session_id"], Value::Null);
    let (_, report) = run(&home);
    assert_eq!(fact(&report, "document.charter").expect("it counts")["best_tier"], "SELF_REPORTED");

    let attested =
        home.json(&["attest", "--agent", "support", "--event", &index.to_string(), "--expires", "30d"]).ends(0);
    assert_eq!(attested.data()["attested"][0]["index"], index);
    let (_, report) = run(&home);
    assert_eq!(fact(&report, "document.charter").expect("it counts")["best_tier"], "ATTESTED");
    home.json(&["verify"]).ends(0);
}

#[test]
fn only_what_was_handed_in_about_the_agent_is_attested() {
    let home = TestHome::new();
    home.wrap_sh("true").ends(0);
    let observed = home.evidence_of("session_open")[0]["index"].to_string();
    let handed = ingest(&home, "runbook.txt", "Turn it off and on.\n", "runbook").ends(0).data()["index"].to_string();
    let attest = |agent: &str, event: &str| home.json(&["attest", "--agent", agent, "--event", event]);
    for (agent, event, why) in [
        ("support", observed.as_str(), "observed and not handed in"),
        ("helper", handed.as_str(), "another agent"),
        ("support", "9999", "does not exist"),
    ] {
        let answer = attest(agent, event).ends(2);
        assert!(answer.json()["data"]["error"].as_str().is_some_and(|error| error.contains(why)), "{answer}");
    }
    let before = home.json(&["ledger", "head", "--log", "audit"]).ends(0).data()["size"].clone();
    attest("support", &handed).ends(0);
    let twice = home.json(&["attest", "--agent", "support", "--event", &handed, "--event", &observed]);
    twice.ends(2);
    let after = home.json(&["ledger", "tail", "--log", "audit", "-n", "1000"]).ends(0).data();
    let attested = after["events"].as_array().expect("a list").iter().filter(|event| event["kind"] == "attested");
    assert_eq!(attested.count(), 1, "all or none; the log had {before} events");
}

#[test]
fn a_large_file_is_attested_with_the_file_at_hand() {
    let home = TestHome::new();
    let text = "risk\n".repeat(400_000);
    let index = ingest(&home, "risks.txt", &text, "risk-assessment").ends(0).data()["index"].to_string();
    let answer = home.json(&["attest", "--agent", "support", "--event", &index]).ends(2);
    assert!(answer.json()["data"]["error"].as_str().is_some_and(|error| error.contains("--file")), "{answer}");
    fs::write(home.beside("other.txt"), "risk\n").expect("a file");
    home.json(&["attest", "--agent", "support", "--event", &index, "--file", "other.txt"]).ends(2);
    home.json(&["attest", "--agent", "support", "--event", &index, "--file", "risks.txt"]).ends(0);
}

#[test]
fn files_that_are_not_what_they_are_called_leave_nothing_behind() {
    let home = TestHome::new();
    let before = home.evidence().len();
    for (name, text, ingest_type) in [
        ("a.xml", "<html/>", "junit"),
        ("b.json", "{}", "promptfoo"),
        ("c.json", "[", "inspect-ai"),
        ("d.json", "{\"resourceSpans\":[]}", "otel-trace"),
        ("e.txt", "", "charter"),
        ("f.txt", "x", "memo"),
    ] {
        ingest(&home, name, text, ingest_type).ends(2);
    }
    home.json(&["ingest", "missing.txt", "--agent", "support", "--type", "charter"]).ends(2);
    home.json(&["ingest", "f.txt", "--agent", "support", "--type", "charter", "--expires", "2001-01-01T00:00:00Z"])
        .ends(2);
    assert_eq!(home.evidence().len(), before);
}

#[test]
fn results_are_counted_and_stay_self_reported() {
    let home = TestHome::new();
    home.wrap_sh("true").ends(0);
    let text = "<testsuite><testcase/><testcase><skipped/></testcase></testsuite>";
    let answer = ingest(&home, "results.xml", text, "junit").ends(0);
    assert_eq!(answer.data()["counts"], json!({"passed": 1, "failed": 0, "skipped": 1}));
    let (_, report) = run(&home);
    let suite = fact(&report, "test.suite").expect("it counts");
    assert_eq!((suite["pass"].as_u64(), suite["best_tier"].as_str()), (Some(1), Some("SELF_REPORTED")));
}

#[test]
fn an_honest_trace_is_correlated() {
    let home = TestHome::new();
    let model = model(&[]);
    home.route_to(model.listening());
    let agent = amc_testkit::binary("amc-demo-agent");
    let agent = agent.to_str().expect("a path");
    let wrapped = ["wrap", "--agent", "support", "--isolation", "none", "--", agent, "--plain", "3", "--trace"];
    home.amc(&wrapped).ends(0);
    let (_, report) = run(&home);
    let wanted = json!({"applicable": true, "lines": 3, "valid": 3, "ratio_bp": 10_000});
    assert_eq!(report["correlation"], wanted, "{} {:#?}", report["findings"], home.evidence_of("trace_lines"));
    assert_eq!(fact(&report, "trace.correlated").expect("it counts")["pass"], 3);
}

#[test]
fn a_trace_that_is_made_up_is_found_out() {
    let home = TestHome::new();
    let line = |receipt: &str| {
        format!(
            r#"{{"amc_trace_v":1,"ts":"2026-01-02T03:04:05Z","agent_id":"support","event":"llm_result","receipt":"{receipt}"}}"#
        )
    };
    let forged = line("eyJhbGciOiJFZERTQSJ9.e30.AAAA");
    home.wrap_sh(&format!("for i in 1 2 3 4 5 6 7 8 9 10; do echo '{forged}'; done")).ends(0);
    assert!(!home.evidence_of("trace_lines").is_empty());
    let (answer, report) = run(&home);
    assert!(answer.findings().contains("TRACE_RECEIPT_INVALID"), "{answer}");
    assert!(answer.findings().contains("TRACE_CORRELATION_LOW"), "{answer}");
    assert!(answer.findings().contains("TRACE_EVENT_HASH_NOT_FOUND"), "calls that nobody saw: {answer}");
    assert_eq!(report["correlation"]["valid"], 0);
    assert_eq!(fact(&report, "trace.correlated").expect("it is counted")["fail"], 10);
}

#[test]
fn a_target_is_signed_measured_and_carried_along() {
    let home = TestHome::new();
    home.wrap_sh("true").ends(0);
    let target = json!({"version": 1, "id": "production", "agent": "support", "bank": "amc-core", "bank_version": 1,
        "levels": {"complete-record": 4, "key-custody": 0}});
    fs::write(home.beside("target.json"), target.to_string()).expect("a file");
    home.json(&["run", "--agent", "support", "--target", "production"]).ends(2);
    home.json(&["target", "set", "target.json"]).ends(0);
    let shown = home.json(&["target", "show", "--agent", "support", "production"]).ends(0).data();
    assert_eq!(shown["targets"][0]["levels"][0], json!({"id": "complete-record", "level": 4}));
    fs::write(home.beside("claims.json"), r#"{"version":1,"levels":{"key-custody":5}}"#).expect("a file");
    let answer = home.json(&["run", "--agent", "support", "--target", "production", "--claims", "claims.json"]);
    assert!(answer.findings().contains("FLAG_UNSUPPORTED_CLAIM"), "{answer}");
    let run_id = answer.data()["run_id"].as_str().expect("an id").to_owned();
    let diff = home.json(&["target", "diff", &run_id]).ends(0).data();
    let gaps: Vec<(&str, u64)> = diff["questions"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|question| (question["id"].as_str().expect("an id"), question["gap"].as_u64().expect("a number")))
        .collect();
    assert_eq!(gaps.len(), 2);
    assert!(gaps.iter().any(|(id, gap)| *id == "complete-record" && *gap > 0), "{gaps:?}");

    let bundle = home.beside("run.amcbundle");
    let out = bundle.to_str().expect("a path");
    home.json(&["bundle", "export", "--agent", "support", "--run", &run_id, "--out", out]).ends(0);
    let trust = home.file("trust.policy");
    let verified = home.json(&["bundle", "verify", out, "--trust", trust.to_str().expect("a path")]).ends(0);
    assert_eq!(verified.data()["run_id"], run_id);
}

#[test]
fn targets_that_cannot_be_meant_are_refused() {
    let home = TestHome::new();
    let good =
        json!({"version": 1, "id": "t", "agent": "support", "bank": "amc-core", "bank_version": 1, "levels": {}});
    let changed = |key: &str, value: Value| {
        let mut target = good.clone();
        target[key] = value;
        fs::write(home.beside("target.json"), target.to_string()).expect("a file");
        home.json(&["target", "set", "target.json"])
    };
    for (key, value) in [
        ("id", json!("../../amc.yaml")),
        ("id", json!("")),
        ("bank", json!("another")),
        ("bank_version", json!(99)),
        ("levels", json!({"no-such-question": 1})),
        ("levels", json!({"key-custody": 6})),
        ("extra", json!(1)),
        ("agent", json!("../x")),
    ] {
        changed(key, value.clone()).ends(2);
    }
    changed("levels", json!({"key-custody": 5})).ends(0);
    let path = home.file("agents/support/targets/t.json");
    let signature = home.file("agents/support/targets/t.json.sig");
    let first = (fs::read(&path).expect("the target"), fs::read(&signature).expect("its signature"));
    changed("levels", json!({"key-custody": 2})).ends(0);
    let second = (fs::read(&path).expect("the target"), fs::read(&signature).expect("its signature"));
    let put = |pair: &(Vec<u8>, Vec<u8>)| {
        fs::write(&path, &pair.0).and_then(|()| fs::write(&signature, &pair.1)).expect("both are written");
    };
    home.wrap_sh("true").ends(0);
    put(&first);
    let older = home.json(&["run", "--agent", "support", "--target", "t"]).ends(1);
    assert!(older.errors().contains("CONFIG_VERSION_ROLLBACK"), "{older}");
    put(&second);
    let text = fs::read_to_string(&path).expect("it was written").replace('2', "1");
    fs::write(&path, text).expect("a file");
    let edited = home.json(&["run", "--agent", "support", "--target", "t"]).ends(1);
    assert!(edited.errors().contains("CONFIG_SIGNATURE_INVALID"), "{edited}");
}

#[test]
fn a_registered_suite_is_observed() {
    let home = TestHome::new();
    let script = "exit 0";
    let wrap = ["wrap", "--agent", "support", "--kind", "test", "--isolation", "none", "--", "sh", "-c", script];
    home.amc(&wrap).ends(0);
    let opened = home.evidence_of("session_open").remove(0);
    let artifact = opened["fields"]["artifact"].as_str().expect("the digest of sh").to_owned();
    let config =
        format!("agent: support\ntestSuites:\n  - command: [sh, -c, \"{script}\"]\n    executable: {artifact}\n");
    fs::write(home.file("agents/support/agent.config.yaml"), config).expect("a file");
    home.amc(&["config", "sign", "agents/support/agent.config.yaml"]).ends(0);
    home.amc(&wrap).ends(0);
    assert_eq!(home.evidence_of("agent_registered").len(), 1);
    let (_, report) = run(&home);
    let suite = fact(&report, "test.suite").expect("it counts");
    assert_eq!((suite["pass"].as_u64(), suite["best_tier"].as_str()), (Some(2), Some("OBSERVED")), "{suite}");
}

#[test]
fn an_epoch_lists_what_was_before_and_says_why() {
    let home = TestHome::new();
    home.wrap_sh("true").ends(0);
    let (before, _) = run(&home);
    assert!(before.errors().iter().any(|code| code.starts_with("TRUST_BOUNDARY")), "{before}");
    home.json(&["epoch", "--agent", "support", "--reason", ""]).ends(2);
    home.json(&["epoch", "--agent", "support", "--reason", "a user of its own from now on"]).ends(0);
    let (after, report) = run(&home);
    assert_eq!(after.code, 0, "no counted session is unproven: {after}");
    assert_eq!(report["epochs"][0]["reason"], "a user of its own from now on");
    assert_eq!(report["sessions"][0]["counted"], false);
}
