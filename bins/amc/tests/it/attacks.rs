//! What somebody with write access to the files can do, and how it is found: each attack on a copy
//! of a workspace that verifies, with the code that names it.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use crate::answer::Answer;
use crate::home::{Scored, TestHome, bare_command, copy_dir};

/// `verify` fails with one of these codes.
#[track_caller]
fn verify_fails(scored: &Scored, codes: &[&str]) -> Answer {
    let answer = scored.home.json(&["verify"]).ends(1);
    let found = answer.errors();
    assert!(codes.iter().any(|code| found.contains(*code)), "wanted one of {codes:?}: {answer}");
    // A log that does not verify is not scored either, and nothing is written for it.
    if codes.iter().any(|code| ["LEDGER", "EVENT", "CHAIN"].iter().any(|family| code.starts_with(family))) {
        let runs = || fs::read_dir(scored.home.file("runs")).expect("a directory").count();
        let before = runs();
        scored.home.json(&["run", "--agent", "support"]).ends(1);
        assert_eq!(runs(), before);
    }
    scored.home.assert_tidy();
    answer
}

fn segment(scored: &Scored, log: &str) -> PathBuf {
    let segments = scored.home.file(&format!("logs/{log}/segments"));
    let files = fs::read_dir(segments).expect("a directory").map(|entry| entry.expect("an entry").path());
    files.max().expect("a segment")
}

fn flip(path: &Path, at: u64) {
    let mut file = fs::File::options().read(true).write(true).open(path).expect("the file");
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).expect("it is that long");
    file.read_exact(&mut byte).expect("a byte");
    file.seek(SeekFrom::Start(at)).expect("it is that long");
    file.write_all(&[byte[0] ^ 1]).expect("it can be written");
}

/// Puts an older copy of a log in its place.
fn roll_back(scored: &Scored, log: &str) {
    let dir = scored.home.file(&format!("logs/{log}"));
    fs::remove_dir_all(&dir).expect("the log goes");
    copy_dir(&scored.earlier_log(log), &dir);
}

#[test]
fn the_tail_of_the_evidence_cut() {
    let scored = TestHome::scored();
    let path = segment(&scored, "evidence");
    let len = path.metadata().expect("it is there").len();
    fs::File::options().write(true).open(&path).and_then(|file| file.set_len(len - 600)).expect("it can be cut");
    verify_fails(&scored, &["LEDGER_TRUNCATED", "LEDGER_ROLLBACK"]);
}

#[test]
fn one_byte_of_an_event_flipped() {
    let scored = TestHome::scored();
    let path = segment(&scored, "evidence");
    let bytes = fs::read(&path).expect("it can be read");
    // Inside the event that says what environment the agent got.
    let at = bytes.windows(15).position(|window| window == b"OPENAI_BASE_URL").expect("the event stands there");
    flip(&path, at as u64);
    let answer = verify_fails(&scored, &["EVENT_HASH_MISMATCH", "EVENT_SIGNATURE_INVALID", "CHAIN_BROKEN"]);
    let value = answer.json();
    let subject = value["findings"][0]["subject"].as_str().expect("a place").to_owned();
    assert!(subject.starts_with("logs/evidence/segments/") || subject.starts_with("acme-test/evidence#"), "{subject}");
}

#[test]
fn one_byte_of_a_payload_flipped() {
    let scored = TestHome::scored();
    let pack = scored.home.file("logs/evidence/payloads/00000000.pack");
    let len = pack.metadata().expect("the session has payloads").len();
    flip(&pack, len / 2);
    let answer = scored.home.json(&["verify"]).ends(1);
    assert!(answer.errors().contains("PAYLOAD_HASH_MISMATCH"), "{answer}");
}

#[test]
fn the_audit_log_rolled_back() {
    let scored = TestHome::scored();
    roll_back(&scored, "audit");
    verify_fails(&scored, &["LEDGER_ROLLBACK", "LEDGER_TRUNCATED"]);
}

#[test]
fn the_evidence_log_rolled_back() {
    let scored = TestHome::scored();
    roll_back(&scored, "evidence");
    let answer = verify_fails(&scored, &["LEDGER_ROLLBACK", "LEDGER_TRUNCATED"]);
    // The old copy is sound in itself; it is the auditor's record that gives it away.
    let alone = scored.home.json(&["verify", "--log", "evidence"]).ends(0);
    assert!(alone.errors().is_empty(), "{answer}");
}

#[test]
fn an_event_of_another_workspace_in_the_log() {
    let scored = TestHome::scored();
    let dir = tempfile::tempdir().expect("a directory");
    Answer::of(crate::home::command_in(dir.path()).args(["init", "--name", "acme-test"])).ends(0);
    let evidence = scored.home.file("logs/evidence");
    fs::remove_dir_all(&evidence).expect("the log goes");
    copy_dir(&dir.path().join("home/logs/evidence"), &evidence);
    let answer = scored.home.json(&["verify"]).ends(1);
    assert!(!answer.errors().is_empty(), "{answer}");
}

#[test]
fn a_signature_moved_from_another_file() {
    let scored = TestHome::scored();
    let home = &scored.home;
    fs::copy(home.file("amc.yaml"), home.file("gateway.yaml")).expect("a copy");
    fs::copy(home.file("amc.yaml.sig"), home.file("gateway.yaml.sig")).expect("a copy");
    verify_fails(&scored, &["CONFIG_PATH_MISMATCH"]);
    let config = home.json(&["config", "verify", "amc.yaml"]).ends(0);
    assert_eq!(config.data()["state"], "signed");
}

#[test]
fn an_older_signed_version_put_back() {
    let scored = TestHome::scored();
    for file in ["gateway.yaml", "gateway.yaml.sig"] {
        fs::copy(scored.home.beside(&format!("earlier-{file}")), scored.home.file(file)).expect("a copy");
    }
    let answer = verify_fails(&scored, &["CONFIG_VERSION_ROLLBACK"]);
    assert!(answer.text().contains("version 2; the audit log holds version 3"), "{answer}");
}

#[test]
fn a_policy_for_one_agent_moved_to_another() {
    let scored = TestHome::scored();
    for file in ["gatePolicy.json", "gatePolicy.json.sig"] {
        let from = scored.home.file(&format!("agents/helper/{file}"));
        fs::copy(from, scored.home.file(&format!("agents/support/{file}"))).expect("a copy");
    }
    verify_fails(&scored, &["CONFIG_PATH_MISMATCH"]);
}

#[test]
fn a_report_edited() {
    let scored = TestHome::scored();
    let path = scored.home.file(&format!("runs/{}/report.json", scored.run_id));
    let report = fs::read_to_string(&path).expect("it can be read");
    fs::write(&path, report.replacen("INVALID", "VALID", 1)).expect("it can be written");
    let answer = verify_fails(&scored, &["RUN_SEAL_INVALID"]);
    assert!(answer.text().contains(&scored.run_id), "{answer}");
    let out = scored.home.beside("edited.amcbundle").display().to_string();
    let arguments = ["bundle", "export", "--agent", "support", "--run", &scored.run_id, "--out", &out];
    scored.home.json(&arguments).ends(1);
    assert!(!Path::new(&out).exists());
    scored.home.assert_tidy();
}

#[test]
fn a_seal_taken_away() {
    let scored = TestHome::scored();
    fs::remove_file(scored.home.file(&format!("runs/{}/seal.dsse.json", scored.run_id))).expect("it was there");
    verify_fails(&scored, &["RUN_SEAL_INVALID"]);
}

#[test]
fn a_run_removed() {
    let scored = TestHome::scored();
    fs::remove_dir_all(scored.home.file(&format!("runs/{}", scored.run_id))).expect("it was there");
    verify_fails(&scored, &["RUN_MISSING"]);
    let report = scored.home.json(&["report", &scored.run_id]).ends(2);
    assert!(report.errors().contains("RUN_MISSING"), "{report}");
}

#[test]
fn a_byte_of_the_bundle_flipped_anywhere() {
    let scored = TestHome::scored();
    let trust = scored.home.file("trust.policy").display().to_string();
    let whole = fs::read(&scored.bundle).expect("it can be read");
    let copy = scored.home.beside("flipped.amcbundle");
    // Header, body and padding of members from the first to the last.
    for step in 0..12 {
        let at = whole.len() / 12 * step + 7 * step;
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&copy, &bytes).expect("it can be written");
        let arguments = ["bundle", "verify", &copy.display().to_string(), "--trust", &trust];
        let answer = scored.home.json(&arguments);
        assert!([1, 2].contains(&answer.code), "byte {at}: {answer}");
        assert!(!answer.errors().is_empty(), "byte {at}: {answer}");
    }
}

#[test]
fn a_strangers_bundle_is_untrusted_and_its_fingerprint_is_shown() {
    let scored = TestHome::scored();
    let dir = tempfile::tempdir().expect("a directory");
    Answer::of(crate::home::command_in(dir.path()).args(["init", "--name", "stranger"])).ends(0);
    let trust = dir.path().join("home/trust.policy").display().to_string();
    let bundle = scored.bundle.display().to_string();
    let shown = scored.home.json(&["trust", "show"]).ends(0).data();
    let audit = shown["logs"].as_array().expect("a list").iter().find(|log| log["origin"] == "acme-test/audit");
    let fingerprint = audit.expect("it is pinned")["key_id"].as_str().expect("hex").to_owned();

    let verify = ["--json", "bundle", "verify", &bundle, "--trust", &trust];
    let answer = Answer::of(bare_command(dir.path()).args(verify)).ends(1);
    assert!(answer.errors().contains("ISSUER_UNTRUSTED"), "{answer}");
    let value = answer.json();
    let message = value["findings"][0]["message"].as_str().expect("a message");
    assert!(message.contains(&fingerprint) && message.contains("--trust"), "{message}");

    let policy = scored.home.file("agents/support/gatePolicy.json").display().to_string();
    let gate = ["--json", "gate", "--bundle", &bundle, "--policy", &policy, "--trust", &trust];
    let denied = Answer::of(bare_command(dir.path()).args(gate)).ends(1);
    assert_eq!(denied.data()["decision"], "deny");

    // With no anchor at all the call is wrong, and says where one comes from.
    let nothing = ["bundle", "verify", &bundle];
    Answer::of(bare_command(dir.path().join("home").as_path()).env("HOME", "/").args(nothing))
        .ends(2)
        .says(&["no trust policy", "--trust FILE"]);
}
