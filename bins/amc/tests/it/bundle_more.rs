//! Differences, freshness, wrappers, and receipts that somebody can check without the log.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::answer::Answer;
use crate::home::{Scored, TestHome, bare_command, model, until};

fn second_run(scored: &Scored) -> String {
    let run = scored.home.json(&["run", "--agent", "support", "--window", "7d"]);
    run.data()["run_id"].as_str().expect("a run id").to_owned()
}

fn export(scored: &Scored, run: &str, name: &str, more: &[&str]) -> String {
    let out = scored.home.beside(name).display().to_string();
    let arguments = ["bundle", "export", "--agent", "support", "--run", run, "--out", &out];
    scored.home.amc(&[&arguments[..], more].concat()).ends(0);
    out
}

#[test]
fn what_changed_between_two_bundles() {
    let scored = TestHome::scored();
    let first = scored.bundle.display().to_string();
    let same = scored.home.amc(&["bundle", "diff", &first, &first]).ends(0);
    assert_eq!(same.text(), "Nothing differs\n");
    let run = second_run(&scored);
    let second = export(&scored, &run, "second.amcbundle", &[]);
    let data = scored.home.json(&["bundle", "diff", &first, &second]).ends(0).data();
    let values = data["values"].as_array().expect("a list").clone();
    let window = values.iter().find(|value| value["id"] == "window_s").expect("it differs");
    assert_eq!((window["from"].as_str(), window["to"].as_str()), (Some("1209600"), Some("604800")));
    assert!(values.iter().any(|value| value["id"] == "run_id" && value["to"] == run.as_str()));
    // What does not verify is not compared.
    let bad = scored.home.beside("bad.amcbundle");
    let mut bytes = fs::read(&second).expect("it can be read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&bad, bytes).expect("it can be written");
    let answer = scored.home.json(&["bundle", "diff", &first, &bad.display().to_string()]).ends(1);
    assert!(!answer.errors().is_empty(), "{answer}");
}

#[test]
fn a_bundle_grows_stale() {
    let scored = TestHome::scored();
    let bundle = scored.bundle.display().to_string();
    scored.home.json(&["bundle", "verify", &bundle, "--max-age", "365d"]).ends(0);
    until(|| scored.home.json(&["bundle", "verify", &bundle, "--max-age", "1s"]).code == 1);
    let answer = scored.home.json(&["bundle", "verify", &bundle, "--max-age", "1s"]).ends(1);
    assert!(answer.errors().contains("CHECKPOINT_INVALID"), "{answer}");
    scored.home.json(&["bundle", "verify", &bundle]).ends(0);
    scored.home.amc(&["bundle", "verify", &bundle, "--max-age", "soon"]).ends(2);
}

#[test]
fn an_export_without_payloads_with_the_sigstore_wrapper() {
    let scored = TestHome::scored();
    let wrapper = scored.home.beside("manifest.sigstore.json").display().to_string();
    let more = ["--without-payloads", "--sigstore", &wrapper];
    let bundle = export(&scored, &scored.run_id, "slim.amcbundle", &more);
    let slim = scored.home.json(&["bundle", "verify", &bundle]).ends(0).data();
    let whole = scored.home.json(&["bundle", "verify", &scored.bundle.display().to_string()]).ends(0).data();
    assert_eq!(slim["overall_bp"], whole["overall_bp"]);
    let says = scored.home.json(&["bundle", "inspect", &bundle]).ends(0).data()["says"].clone();
    assert_eq!(says["payloads"], "withheld", "it says what is not there");
    assert!(!says["members"].as_array().expect("a list").iter().any(|entry| entry["name"] == "evidence/payloads.zst"));
    let wrapped: Value = serde_json::from_slice(&fs::read(wrapper).expect("written")).expect("JSON");
    assert_eq!(wrapped["mediaType"], "application/vnd.dev.sigstore.bundle.v0.3+json");
    assert_eq!(wrapped["dsseEnvelope"]["signatures"][0]["keyid"], wrapped["verificationMaterial"]["publicKey"]["hint"]);
}

/// Calls the model once and keeps the answer's receipt.
pub(crate) const CALL: &str = r#"
import json, os, urllib.request
body = json.dumps({"model": "demo-1", "messages": [{"role": "user", "content": "hello"}]}).encode()
head = {"content-type": "application/json", "authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}
request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", body, head)
with urllib.request.urlopen(request) as answer:
    content = answer.read()
    open("receipt.jws", "w").write(answer.headers["x-amc-receipt"])
    open("body.json", "wb").write(content)
"#;

/// A home in whose work directory lie a receipt and its body.
pub(crate) fn with_receipt() -> TestHome {
    let home = TestHome::new();
    let model = model(&[]);
    home.route_to(model.listening());
    let wrap = ["wrap", "--agent", "support", "--isolation", "none", "--", "python3", "-c", CALL];
    home.amc(&wrap).ends(0);
    home
}

fn position(answer: &Answer) -> (String, Value) {
    let data = answer.data();
    (data["position"].as_str().expect("a word").to_owned(), data["proven_by"].clone())
}

#[test]
fn a_receipt_is_proven_by_a_file_a_bundle_or_the_log() {
    let home = with_receipt();
    let receipt = home.beside("receipt.jws").display().to_string();
    let at_home = home.json(&["receipt", "verify", &receipt, "--body", "body.json"]).ends(0);
    assert_eq!(position(&at_home), ("proven".into(), "the log".into()));
    let id = at_home.data()["claims"]["receipt_id"].as_str().expect("an id").to_owned();
    let hash = at_home.data()["claims"]["event_hash"].as_str().expect("a hash").to_owned();

    let proof = home.beside("call.tlog-proof").display().to_string();
    for name in [&id, &hash, &receipt] {
        home.amc(&["receipt", "prove", name, "--out", &proof]).ends(0);
    }
    let trust = home.file("trust.policy").display().to_string();
    let elsewhere = home.beside("elsewhere");
    fs::create_dir(&elsewhere).expect("a directory");
    let outside = |arguments: &[&str]| {
        let mut command = bare_command(&elsewhere);
        Answer::of(command.args(["--json", "receipt", "verify", &receipt, "--trust", &trust]).args(arguments))
    };
    assert_eq!(position(&outside(&[]).ends(0)), ("unproven".into(), Value::Null));
    assert_eq!(position(&outside(&["--proof", &proof]).ends(0)), ("proven".into(), "a proof file".into()));
    let log = home.file("logs/evidence").display().to_string();
    assert_eq!(position(&outside(&["--log", &log]).ends(0)), ("proven".into(), "the log".into()));
    let run = home.json(&["run", "--agent", "support"]).data()["run_id"].as_str().expect("an id").to_owned();
    let bundle = home.beside("run.amcbundle").display().to_string();
    home.amc(&["bundle", "export", "--agent", "support", "--run", &run, "--out", &bundle]).ends(0);
    assert_eq!(position(&outside(&["--bundle", &bundle]).ends(0)), ("proven".into(), "a bundle".into()));

    // Another body, another event's proof, a damaged proof, a damaged bundle.
    fs::write(home.beside("other.json"), "{}").expect("a file");
    let other = home.beside("other.json").display().to_string();
    let wrong = outside(&["--body", &other, "--proof", &proof]).ends(1);
    assert!(wrong.errors().contains("TRACE_BODY_HASH_MISMATCH"), "{wrong}");
    let first = home.evidence()[0]["event_hash"].as_str().expect("a hash").to_owned();
    let another = home.beside("first.tlog-proof").display().to_string();
    home.amc(&["receipt", "prove", &first, "--out", &another]).ends(0);
    let wrong = outside(&["--proof", &another]).ends(1);
    assert!(wrong.errors().contains("TRACE_EVENT_HASH_NOT_FOUND"), "{wrong}");
    assert_eq!(position(&wrong).0, "wrong");
    damage(Path::new(&proof), "index ");
    assert!(outside(&["--proof", &proof]).code > 0);
    damage(Path::new(&bundle), "amc/event");
    let unknown = format!("rcpt-{}", "0".repeat(32));
    let missing = home.json(&["receipt", "prove", &unknown, "--out", &another]).ends(2);
    assert!(missing.errors().contains("TRACE_EVENT_HASH_NOT_FOUND"), "{missing}");
}

/// Changes a byte behind the first `mark`, or in the middle.
fn damage(path: &Path, mark: &str) {
    let mut bytes = fs::read(path).expect("it can be read");
    let at = bytes.windows(mark.len()).position(|window| window == mark.as_bytes());
    let at = at.map_or(bytes.len() / 2, |at| at + mark.len());
    bytes[at] = if bytes[at] == b'1' { b'2' } else { b'1' };
    fs::write(path, bytes).expect("it can be written");
}

#[test]
fn a_receipt_that_no_checkpoint_covers_yet_is_not_proven() {
    let home = with_receipt();
    let receipt = home.beside("receipt.jws").display().to_string();
    let audit = home.file("logs/audit");
    // The audit log of before the call knows of no checkpoint that covers it.
    fs::rename(&audit, home.beside("audit-gone")).expect("it moves");
    let out = home.beside("p.tlog-proof").display().to_string();
    home.amc(&["receipt", "prove", &receipt, "--out", &out]).ends(3).says(&["cosigned", "amc cosign"]);
    assert!(!Path::new(&out).exists());
}
