//! `--json`: one object on standard output, with the keys that scripts rely on, and the exit codes.

use serde_json::{Value, json};

use crate::answer::{Answer, keys};
use crate::home::{TestHome, bare_command, command_in};

#[test]
fn init_answers_with_home_workspace_agents_and_log_keys() {
    let dir = tempfile::tempdir().expect("a directory");
    let arguments = ["--json", "init", "--name", "fresh", "--agent", "one", "--agent", "two"];
    let answer = Answer::of(command_in(dir.path()).args(arguments)).ends(0);
    assert_eq!(answer.json()["command"], "init");
    let data = answer.data();
    assert_eq!(keys(&data), ["agents", "home", "log_keys", "workspace"]);
    assert_eq!(data["workspace"], "fresh");
    assert_eq!(data["agents"], json!(["one", "two"]));
    let home = dir.path().join("home").canonicalize().expect("it was made");
    assert_eq!(data["home"], home.display().to_string());
    let log_keys = data["log_keys"].as_array().expect("a list");
    let origins = ["fresh/evidence+", "fresh/audit+"];
    assert!(log_keys.iter().zip(origins).all(|(key, origin)| key.as_str().expect("a key").starts_with(origin)));
    assert_eq!(log_keys.len(), 2);

    // A workspace that was just made verifies, and each role has cosigned the other.
    let verified = Answer::of(command_in(dir.path()).args(["--json", "verify"])).ends(0).data();
    for log in ["evidence", "audit"] {
        assert!(verified[log]["cosigned_size"].as_u64().expect("a size") >= 1, "{verified}");
    }

    // A second one in the same place is refused, and the first is untouched.
    let again = Answer::of(command_in(dir.path()).args(["--json", "init"])).ends(2);
    assert_eq!(again.json()["command"], "init");
    assert!(again.data()["error"].as_str().expect("why").contains("exists already"));
    Answer::of(command_in(dir.path()).args(["--json", "verify"])).ends(0);
}

#[test]
fn verify_answers_with_both_logs() {
    let scored = TestHome::scored();
    let answer = scored.home.json(&["verify"]).ends(0);
    assert_eq!(answer.json()["command"], "verify");
    let data = answer.data();
    assert_eq!(keys(&data), ["audit", "evidence", "mode"]);
    assert_eq!(data["mode"], "full");
    for log in ["evidence", "audit"] {
        let wanted =
            ["cosigned_by", "cosigned_size", "ended", "events", "open_sessions", "origin", "root", "sessions", "size"];
        assert_eq!(keys(&data[log]), wanted);
        assert_eq!(data[log]["events"], data[log]["size"]);
        assert_eq!(data[log]["root"].as_str().expect("hex").len(), 64);
    }
    assert_eq!(data["evidence"]["sessions"], 1);
    let quick = scored.home.json(&["verify", "--quick"]).ends(0);
    assert_eq!(quick.data()["mode"], "quick");
    let text = scored.home.amc(&["verify", "--quick"]).ends(0);
    assert!(text.text().contains("signatures and payloads were not checked"), "{text}");
    let evidence = scored.home.json(&["verify", "--log", "evidence"]).ends(0).data();
    assert_eq!(evidence["audit"], json!({ "absent": true }));
}

#[test]
fn run_answers_with_the_report_in_short() {
    let scored = TestHome::scored();
    let before = scored.home.json(&["history", "--agent", "support"]).ends(0).data();
    assert_eq!(before["runs"].as_array().expect("a list").len(), 1);
    let answer = scored.home.json(&["run", "--agent", "support"]);
    let data = answer.data();
    assert_eq!(answer.json()["command"], "run");
    let wanted = ["integrity_bp", "label", "layers", "overall_bp", "questions", "report", "run_id", "status"];
    assert_eq!(keys(&data), wanted);
    assert_eq!(data["layers"].as_array().expect("a list").len(), 5);
    assert_eq!(keys(&data["layers"][0]), ["id", "level_bp"]);
    assert_eq!(keys(&data["questions"][0]), ["caps", "claimed", "final", "id", "supported"]);
    assert!(data["overall_bp"].is_u64() && data["integrity_bp"].is_u64() && data["label"].is_string());
    // The verdict is the exit code: 0 for VALID, 1 for INVALID.
    let code = match data["status"].as_str().expect("a status") {
        "VALID" => 0,
        "INVALID" => 1,
        other => panic!("a status {other}"),
    };
    assert_eq!(answer.code, code, "{answer}");
    let report = std::fs::read(data["report"].as_str().expect("a path")).expect("the report is there");
    let report: Value = serde_json::from_slice(&report).expect("it is JSON");
    assert_eq!(report["run_id"], data["run_id"]);
    scored.home.json(&["verify"]).ends(0);
    scored.home.assert_tidy();
}

#[test]
fn bundle_verify_answers_the_same_with_nothing_but_the_pinned_keys() {
    let scored = TestHome::scored();
    let trust = scored.home.file("trust.policy").display().to_string();
    let elsewhere = tempfile::tempdir().expect("a directory");
    let bundle = scored.bundle.display().to_string();
    let verify = ["--json", "bundle", "verify", &bundle, "--trust", &trust];
    let answer = Answer::of(bare_command(elsewhere.path()).args(verify)).ends(0);
    assert_eq!(answer.json()["command"], "bundle verify");
    let data = answer.data();
    let wanted = ["agent_id", "events", "integrity_bp", "issuer", "label", "overall_bp", "run_id", "status"];
    assert_eq!(keys(&data), wanted);
    assert_eq!((&data["agent_id"], &data["run_id"]), (&json!("support"), &json!(scored.run_id)));
    assert!(data["events"].as_u64().is_some_and(|events| events > 0));
    let at_home = scored.home.json(&["bundle", "verify", &bundle]).ends(0);
    assert_eq!(at_home.data(), data);
    assert_eq!(std::fs::read_dir(elsewhere.path()).expect("a directory").count(), 0, "verifying wrote something");
}

#[test]
fn gate_answers_with_a_decision_and_its_rules() {
    let scored = TestHome::scored();
    let policy = scored.home.file("agents/support/gatePolicy.json").display().to_string();
    let bundle = scored.bundle.display().to_string();
    let answer = scored.home.json(&["gate", "--bundle", &bundle, "--policy", &policy]);
    assert_eq!(answer.json()["command"], "gate");
    let data = answer.data();
    assert_eq!(keys(&data), ["bundle_sha256", "decision", "policy_sha256", "rules"]);
    for rule in data["rules"].as_array().expect("a list") {
        assert_eq!(keys(rule), ["found", "pass", "rule", "wanted"]);
    }
    // One day of one session is not the fourteen that the default asks for.
    assert_eq!((answer.code, &data["decision"]), (1, &json!("deny")));

    // Without its signature the same policy denies too, and says why.
    std::fs::remove_file(format!("{policy}.sig")).expect("it was there");
    let unsigned = scored.home.json(&["gate", "--bundle", &bundle, "--policy", &policy]).ends(1);
    assert!(unsigned.errors().contains("CONFIG_UNSIGNED"), "{unsigned}");
    assert_eq!(unsigned.data()["decision"], "deny");
}

#[test]
fn ledger_events_have_their_nine_keys() {
    let scored = TestHome::scored();
    let tail = scored.home.json(&["ledger", "tail", "-n", "100"]).ends(0);
    assert_eq!(tail.json()["command"], "ledger tail");
    let events = tail.data()["events"].clone();
    let events = events.as_array().expect("a list");
    let wanted = ["agent_id", "event_hash", "fields", "index", "kind", "payload", "session_id", "tier", "wall_time"];
    for (index, event) in events.iter().enumerate() {
        assert_eq!(keys(event), wanted);
        assert_eq!(event["index"], index);
        assert_eq!(event["event_hash"].as_str().expect("hex").len(), 64);
    }
    // A body that is kept as it passed, and one of which a redacted copy is kept.
    let payload_of = |kind: &str| {
        let found = events.iter().find(|event| event["kind"] == kind).expect("the session has one");
        found["payload"].clone()
    };
    let whole = payload_of("llm_request");
    assert_eq!(keys(&whole), ["media_type", "stored", "wire_len", "wire_sha256"]);
    assert_eq!(whole["stored"], "full");
    let last = events.last().expect("events").clone();
    let show = scored.home.json(&["ledger", "show", &last["index"].to_string()]).ends(0);
    assert_eq!(show.data(), json!({ "events": [last] }));
    let audit = scored.home.json(&["ledger", "tail", "--log", "audit", "-n", "1"]).ends(0);
    assert_eq!(audit.data()["events"].as_array().map(Vec::len), Some(1));
    let beyond = scored.home.json(&["ledger", "show", "100000"]).ends(2);
    assert!(beyond.data()["error"].as_str().expect("why").contains("no event 100000"));
}

#[test]
fn ledger_export_writes_a_tree_and_reindex_goes_to_the_log_s_owner() {
    let scored = TestHome::scored();
    for (log, owner) in [("evidence", "monitor"), ("audit", "auditor")] {
        let head = scored.home.json(&["ledger", "head", "--log", log]).ends(0).data();
        let out = scored.bundle.with_extension(format!("{log}-tiles"));
        let path = out.to_str().expect("text");
        let export = scored.home.json(&["ledger", "export", "--tiles", path, "--log", log]).ends(0);
        assert_eq!(keys(&export.data()), ["dir", "full", "partial", "size"]);
        assert_eq!(export.data()["size"], head["size"]);
        let checkpoint = std::fs::read_to_string(out.join("checkpoint")).expect("was exported");
        assert_eq!(checkpoint, head["checkpoint"].as_str().expect("a note"));
        let edge = out.join(format!("tile/0/000.p/{}", head["size"]));
        assert_eq!(std::fs::metadata(edge).expect("was exported").len(), head["size"].as_u64().expect("a size") * 32);

        let reindex = scored.home.json(&["ledger", "reindex", "--log", log]).ends(0);
        assert_eq!(reindex.json()["command"], "ledger reindex", "{owner}");
        assert_eq!(reindex.data(), json!({ "events": head["size"], "tiles": 0 }));
    }
}

#[test]
fn a_wrong_flag_is_2_and_with_json_still_one_object() {
    let home = TestHome::new();
    let text = home.amc(&["verify", "--no-such-flag"]).ends(2);
    assert!(text.stdout.is_empty() && text.stderr.contains("--no-such-flag"), "{text}");
    // The same from amc itself and from the signers that it becomes.
    let calls: [(&[&str], &str); 4] = [
        (&["verify", "--no-such-flag"], "verify"),
        (&["bundle", "verify"], "bundle verify"),
        (&["run", "--agent", "UPPER"], "run"),
        (&["vault", "secret", "set"], "vault secret set"),
    ];
    for (arguments, command) in calls {
        let answer = home.json(arguments).ends(2);
        assert_eq!(answer.json()["command"], command, "{answer}");
        assert!(answer.data()["error"].as_str().is_some_and(|why| !why.is_empty()), "{answer}");
    }
    for arguments in [&["wrap", "--agent", "a", "--", "true"][..], &["completions", "bash"], &["gateway", "start"]] {
        let refused = home.json(arguments).ends(2);
        assert!(refused.data()["error"].as_str().expect("why").contains("no --json"), "{refused}");
    }
}

#[test]
fn each_class_of_end_has_its_exit_code() {
    let scored = TestHome::scored();
    scored.home.json(&["status"]).ends(0);
    let report = scored.home.file("runs").join(&scored.run_id).join("report.json");
    std::fs::write(&report, "{}").expect("it can be written");
    scored.home.json(&["verify"]).ends(1);
    scored.home.json(&["bundle", "verify", "no-such-file"]).ends(2);
    let locked =
        scored.home.command().env_remove("AMC_VAULT_PASSPHRASE").args(["--json", "run", "--agent", "support"]).output();
    let locked = Answer::from_output(locked.expect("it starts"), "run".to_owned()).ends(3);
    assert_eq!(locked.errors().into_iter().collect::<Vec<_>>(), ["VAULT_LOCKED"]);
}

#[test]
fn the_manual_has_a_page_for_amc_and_for_each_verb() {
    let home = TestHome::new();
    let page = home.amc(&["man"]).ends(0);
    for verb in ["wrap", "verify", "bundle", "gate", "ingest", "target"] {
        assert!(page.text().contains(&format!("amc\\-{verb}(1)")), "{verb}: {page}");
    }
    let page = home.json(&["man", "bundle", "verify"]).ends(0).data();
    assert!(page["page"].as_str().is_some_and(|page| page.contains(".TH amc-bundle-verify")), "{page}");
    home.json(&["man", "levitate"]).ends(2);
}
