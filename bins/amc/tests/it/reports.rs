//! What is read from runs: pages, explanations, history; and the bank that asks.

use std::fs;

use serde_json::{Value, json};

use crate::answer::keys;
use crate::home::{Scored, TestHome};

/// A second run of the scored home, after one more session.
fn two_runs() -> (Scored, String) {
    let scored = TestHome::scored();
    scored.home.wrap_sh("exit 3").ends(3);
    let second = scored.home.json(&["run", "--agent", "support"]);
    let second = second.data()["run_id"].as_str().expect("a run id").to_owned();
    (scored, second)
}

fn report_path(scored: &Scored, run: &str) -> std::path::PathBuf {
    scored.home.file(&format!("runs/{run}/report.json"))
}

fn history(scored: &Scored, code: i32) -> Value {
    scored.home.json(&["history", "--agent", "support"]).ends(code).json()
}

#[test]
fn a_report_comes_as_page_as_markdown_and_as_its_sealed_bytes() {
    let scored = TestHome::scored();
    let out = scored.home.beside("page.html").display().to_string();
    scored.home.amc(&["report", &scored.run_id, "--format", "html", "--out", &out]).ends(0);
    let page = fs::read_to_string(&out).expect("it was written");
    assert!(page.starts_with("<!doctype html>") && page.contains("Content-Security-Policy"), "{page}");
    let stored = fs::read_to_string(scored.home.file(&format!("runs/{}/report.html", scored.run_id))).expect("a file");
    assert_eq!(page, stored, "the page is the one that was made with the run");
    let markdown = scored.home.amc(&["report", &scored.run_id]).ends(0);
    assert!(markdown.text().starts_with("# Agent support: "), "{markdown}");
    let sealed = scored.home.amc(&["report", &scored.run_id, "--format", "json"]).ends(0);
    assert_eq!(sealed.stdout, fs::read(report_path(&scored, &scored.run_id)).expect("a file"));
}

#[test]
fn a_page_that_was_edited_is_not_what_is_shown() {
    let scored = TestHome::scored();
    let page = scored.home.file(&format!("runs/{}/report.html", scored.run_id));
    fs::write(&page, "<h1>level 5</h1>").expect("it can be written");
    let shown = scored.home.amc(&["report", &scored.run_id, "--format", "html"]).ends(0);
    assert!(!shown.text().contains("<h1>level 5</h1>"), "it is made from the sealed report");
}

#[test]
fn a_report_that_is_not_the_recorded_one_is_not_shown() {
    let scored = TestHome::scored();
    let path = report_path(&scored, &scored.run_id);
    let text = fs::read_to_string(&path).expect("a report");
    fs::write(&path, text.replace("\"final\": 0", "\"final\": 5")).expect("it can be written");
    for verb in ["report", "explain"] {
        let answer = scored.home.json(&[verb, &scored.run_id]).ends(1);
        assert_eq!(answer.errors().into_iter().collect::<Vec<_>>(), ["RUN_SEAL_INVALID"], "{answer}");
    }
}

#[test]
fn an_explanation_names_what_holds_a_level_back() {
    let scored = TestHome::scored();
    let all = scored.home.json(&["explain", &scored.run_id]).ends(0).data();
    let questions = all["questions"].as_array().expect("a list");
    assert!(questions.len() >= 42);
    let wanted = [
        "caps",
        "claimed",
        "final",
        "held_back",
        "held_by",
        "id",
        "levels",
        "statement",
        "supported",
        "target",
        "title",
    ];
    assert_eq!(keys(&questions[0]), wanted);
    let one = scored.home.json(&["explain", &scored.run_id, "call-observability"]).ends(0).data();
    let question = &one["questions"][0];
    assert_eq!((question["final"].as_u64(), question["held_by"].as_str()), (Some(1), Some("evidence")));
    let missing = question["held_back"].as_array().expect("a list");
    assert!(missing.iter().any(|gap| gap["what"] == "days with passing facts" && gap["need"] == 2), "{question}");
    let events = question["levels"][0]["events"].as_array().expect("a list");
    assert!(!events.is_empty());
    for event in events {
        let index = event.to_string();
        let shown = scored.home.json(&["ledger", "show", &index]).ends(0).data();
        assert_eq!(shown["events"][0]["agent_id"], "support", "an index leads to an event of the agent");
    }
    let text = scored.home.amc(&["explain", &scored.run_id, "call-observability"]).ends(0);
    for part in ["level 2 needs:", ", 1 missing", "its events in the evidence log: "] {
        assert!(text.text().contains(part), "{part}: {text}");
    }
    scored
        .home
        .amc(&["explain", &scored.run_id, "no-such"])
        .ends(2)
        .says(&["no question no-such", "call-observability"]);
}

#[test]
fn history_tells_what_changed_between_runs() {
    let (scored, second) = two_runs();
    let data = history(&scored, 0)["data"].take();
    let runs = data["runs"].as_array().expect("a list");
    assert_eq!(runs.iter().map(|run| &run["run_id"]).collect::<Vec<_>>(), [&json!(scored.run_id), &json!(second)]);
    let wanted = ["drift", "integrity_bp", "label", "overall_bp", "recorded", "report", "run_id", "status"];
    assert_eq!(keys(&runs[0]), wanted);
    assert_eq!(runs[0]["drift"], Value::Null, "the first run has no neighbour");
    let drift = &runs[1]["drift"];
    let wanted = [
        "findings_gone",
        "findings_new",
        "inputs",
        "integrity_bp",
        "label",
        "layers",
        "overall_bp",
        "questions",
        "status",
    ];
    assert_eq!(keys(drift), wanted);
    let overall = |at: usize| runs[at]["overall_bp"].as_i64().expect("a number");
    assert_eq!(drift["overall_bp"], overall(1) - overall(0));
    let questions = drift["questions"].as_array().expect("a list");
    assert!(!questions.is_empty(), "a second session lifts or lowers something: {drift}");
    for question in questions {
        assert_eq!(keys(question), ["from", "id", "to", "why"]);
        assert!(!question["why"].as_array().expect("a list").is_empty(), "{question}");
    }
    let text = scored.home.amc(&["history", "--agent", "support"]).ends(0);
    assert!(text.text().contains("    layer ") && text.text().contains(&second), "{text}");
}

#[test]
fn history_says_which_report_is_missing_or_another() {
    let (scored, second) = two_runs();
    let path = report_path(&scored, &second);
    let kept = fs::read_to_string(&path).expect("a report");
    fs::write(&path, kept.replace("\"support\"", "\"helper\"")).expect("it can be written");
    let answer = history(&scored, 1);
    assert_eq!(answer["data"]["runs"][1]["report"], "differs");
    assert_eq!(answer["findings"][0]["code"], "RUN_SEAL_INVALID");
    assert!(answer["data"]["runs"][1]["drift"]["overall_bp"].is_i64(), "the log still tells the figures");
    assert_eq!(answer["data"]["runs"][1]["drift"]["questions"], Value::Null, "and nothing else");
    fs::write(&path, kept).expect("it can be written");
    history(&scored, 0);
    fs::remove_file(report_path(&scored, &scored.run_id)).expect("it was there");
    let answer = history(&scored, 1);
    assert_eq!(
        (&answer["data"]["runs"][0]["report"], &answer["data"]["runs"][1]["report"]),
        (&json!("missing"), &json!("here"))
    );
    assert_eq!(answer["findings"][0]["code"], "RUN_MISSING");
}

#[test]
fn the_bank_in_force_is_shown_with_its_gates() {
    let home = TestHome::new();
    let data = home.json(&["bank", "show"]).ends(0).data();
    assert_eq!(
        (&data["shipped"], &data["state"], &data["signed_version"]),
        (&json!(true), &json!("signed"), &json!(1))
    );
    assert_eq!(data["question_count"].as_u64(), data["questions"].as_array().map(|list| list.len() as u64));
    let one = home.json(&["bank", "show", "key-custody"]).ends(0).data();
    assert_eq!(one["questions"][0]["tags"], json!(["high_risk", "supply_chain"]));
    let text = home.amc(&["bank", "show", "key-custody"]).ends(0);
    for part in ["12 passing facts from 5 sessions on 7 days", "boundary.probe_denied", "no failure of: llm.lease_only"]
    {
        assert!(text.text().contains(part), "{part}: {text}");
    }
    home.amc(&["bank", "show", "no-such"]).ends(2).says(&["no question no-such"]);
    assert_eq!(home.json(&["bank", "verify"]).ends(0).data()["state"], "signed");
}

#[test]
fn another_bank_is_refused_until_the_auditor_signs_it_and_is_named_in_the_report() {
    let home = TestHome::new();
    home.wrap_sh("exit 0").ends(0);
    let path = home.file("bank.toml");
    let shipped = fs::read_to_string(&path).expect("a bank");
    let own = shipped.replacen("id = \"amc-core\"\nversion = 1", "id = \"acme-core\"\nversion = 7", 1);
    assert_ne!(own, shipped);
    let draft = home.beside("own.toml");
    fs::write(&draft, &own).expect("it can be written");
    let checked = home.json(&["bank", "verify", &draft.display().to_string()]).ends(0).data();
    assert_eq!(
        (&checked["id"], &checked["state"], &checked["shipped"]),
        (&json!("acme-core"), &Value::Null, &json!(false))
    );

    fs::write(&path, &own).expect("it can be written");
    let refused = home.json(&["run", "--agent", "support"]).ends(1);
    assert!(refused.findings().contains("CONFIG_SIGNATURE_INVALID"), "{refused}");
    assert_eq!(home.json(&["bank", "verify"]).ends(1).data()["state"], "invalid");
    fs::remove_file(home.file("bank.toml.sig")).expect("it was there");
    let refused = home.json(&["run", "--agent", "support"]).ends(1);
    assert!(refused.findings().contains("CONFIG_UNSIGNED"), "{refused}");

    home.amc(&["config", "sign", "bank.toml"]).ends(0);
    assert_eq!(home.json(&["bank", "verify"]).ends(0).data()["sha256"], checked["sha256"]);
    let run = home.json(&["run", "--agent", "support"]).data();
    let report = home.json(&["report", run["run_id"].as_str().expect("a run id")]).ends(0).data();
    assert_eq!(report["report"]["bank"], json!({"id": "acme-core", "version": 7, "sha256": checked["sha256"]}));
}

#[test]
fn an_older_signed_bank_is_a_rollback() {
    let home = TestHome::new();
    let keep = |name: &str| fs::read(home.file(name)).expect("a file");
    let (bank, signature) = (keep("bank.toml"), keep("bank.toml.sig"));
    fs::write(home.file("bank.toml"), [bank.as_slice(), b"# newer\n"].concat()).expect("it can be written");
    home.amc(&["config", "sign", "bank.toml"]).ends(0);
    fs::write(home.file("bank.toml"), bank).expect("it can be written");
    fs::write(home.file("bank.toml.sig"), signature).expect("it can be written");
    let answer = home.json(&["bank", "verify"]).ends(1);
    assert_eq!(answer.errors().into_iter().collect::<Vec<_>>(), ["CONFIG_VERSION_ROLLBACK"]);
    home.wrap_sh("true").ends(0);
    let run = home.json(&["run", "--agent", "support"]).ends(1);
    assert_eq!(run.errors().into_iter().collect::<Vec<_>>(), ["CONFIG_VERSION_ROLLBACK"], "nothing is scored by it");
}

#[test]
fn a_bank_that_does_not_parse_is_refused_with_its_line() {
    let home = TestHome::new();
    let path = home.file("bank.toml");
    let text = fs::read_to_string(&path).expect("a bank");
    fs::write(&path, text.replacen("\"llm.lease_only\"", "\"llm.lease\"", 1)).expect("it can be written");
    for call in [&["bank", "show"][..], &["bank", "verify"], &["config", "sign", "bank.toml"]] {
        home.amc(call).ends(2).says(&["line ", "llm.lease"]);
    }
}
