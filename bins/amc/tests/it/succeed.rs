//! A log that cannot go on, end to end: it refuses, `ledger succeed` begins the next one beside it, and everything
//! from a session to a verified bundle goes on under the trust policy of before.

use std::fs::{self, File};
use std::path::PathBuf;

use serde_json::Value;

use crate::home::TestHome;

/// Cuts a little off the end of the newest segment of a log.
fn damage(home: &TestHome, log: &str) {
    let segments = home.file(&format!("logs/{log}/segments"));
    let newest = fs::read_dir(segments).expect("lists").map(|entry| entry.expect("an entry").path()).max();
    let file = File::options().write(true).open(newest.expect("a log has a segment")).expect("opens");
    let len = file.metadata().expect("it has a length").len();
    file.set_len(len - 30).expect("cuts");
}

/// Every file below a log's directory with its bytes.
fn contents(home: &TestHome, log: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = crate::home::files_under(&home.file(&format!("logs/{log}")));
    files.retain(|path| !path.to_string_lossy().contains("/index/") && path.file_name().is_some_and(|n| n != "lock"));
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(path).expect("reads"))).collect()
}

fn codes(answer: &Value, severity: &str) -> Vec<String> {
    let findings = answer["findings"].as_array().expect("a list");
    let wanted = findings.iter().filter(|finding| finding["severity"] == severity);
    wanted.map(|finding| finding["code"].as_str().expect("a code").to_owned()).collect()
}

#[test]
fn a_broken_evidence_log_is_succeeded_and_everything_goes_on() {
    let home = TestHome::new();
    home.wrap_sh("echo before").ends(0);
    damage(&home, "evidence");
    let refused = home.wrap_sh("echo lost").ends(125);
    assert!(refused.to_string().contains("LEDGER_TRUNCATED"), "{refused}");
    let before = contents(&home, "evidence");

    let done = home.json(&["ledger", "succeed"]).ends(0);
    assert_eq!(done.data()["origin"], "acme-test/evidence/2");
    assert_eq!(contents(&home, "evidence"), before, "nothing of the old log is touched");
    let verified = home.json(&["verify"]).ends(0);
    assert_eq!(verified.data()["evidence"]["origin"], "acme-test/evidence/2");
    assert_eq!(verified.data()["evidence"]["ended"][0]["origin"], "acme-test/evidence");
    assert_eq!(codes(&verified.json(), "error"), Vec::<String>::new());
    assert!(codes(&verified.json(), "info").contains(&"LEDGER_TRUNCATED".to_owned()), "{verified}");

    home.wrap_sh("echo after").ends(0);
    assert_eq!(home.evidence_of("session_open").len(), 1, "sessions of the old log do not count");
    let run = home.json(&["run", "--agent", "support"]);
    let id = run.data()["run_id"].as_str().expect("a run id").to_owned();
    let bundle = home.beside("run.amcbundle").display().to_string();
    home.amc(&["bundle", "export", "--agent", "support", "--run", &id, "--out", &bundle]).ends(0);
    // The policy is that of before: nobody had to pin anything anew.
    let verified = home.json(&["bundle", "verify", &bundle]).ends(0);
    assert!(codes(&verified.json(), "warn").contains(&"LEDGER_TRUNCATED".to_owned()), "{verified}");
    home.json(&["verify"]).ends(0);
    // The log that is whole now is left alone.
    let healthy = home.json(&["ledger", "succeed"]).ends(3);
    assert!(healthy.to_string().contains("nothing to succeed"), "{healthy}");
    assert!(!home.file("logs/evidence-3").exists());
}

#[test]
fn a_broken_audit_log_is_succeeded_and_configurations_keep_their_versions() {
    let home = TestHome::new();
    home.wrap_sh("echo work").ends(0);
    damage(&home, "audit");
    home.json(&["config", "sign", "amc.yaml"]).ends(1);
    home.json(&["ledger", "succeed", "--log", "audit"]).ends(0);
    let verified = home.json(&["verify"]).ends(0);
    assert_eq!(verified.data()["audit"]["origin"], "acme-test/audit/2");
    let signed = home.json(&["config", "sign", "amc.yaml"]).ends(0);
    assert_eq!(signed.data()["version"], 2, "the first version is known to the new log");
    let run = home.json(&["run", "--agent", "support"]);
    let id = run.data()["run_id"].as_str().expect("a run id").to_owned();
    let bundle = home.beside("run.amcbundle").display().to_string();
    home.amc(&["bundle", "export", "--agent", "support", "--run", &id, "--out", &bundle]).ends(0);
    home.json(&["verify"]).ends(0);
}

#[test]
fn a_whole_log_and_one_that_is_held_are_not_succeeded() {
    let home = TestHome::new();
    home.json(&["ledger", "succeed"]).ends(3);
    home.json(&["ledger", "succeed", "--log", "audit"]).ends(3);
    let (_up, _) = crate::services::Up::start(&home);
    damage(&home, "evidence");
    let held = home.json(&["ledger", "succeed"]).ends(3);
    assert!(held.to_string().contains("held by another writer"), "{held}");
    assert!(!home.file("logs/evidence-2").exists(), "nothing was begun");
}

#[test]
fn a_successor_that_was_taken_away_again_is_found() {
    let home = TestHome::new();
    damage(&home, "evidence");
    home.json(&["ledger", "succeed"]).ends(0);
    home.wrap_sh("echo work").ends(0);
    fs::remove_dir_all(home.file("logs/evidence-2")).expect("removes");
    let found = home.json(&["verify"]).ends(1);
    assert!(codes(&found.json(), "error").contains(&"LEDGER_ROLLBACK".to_owned()), "{found}");
}
