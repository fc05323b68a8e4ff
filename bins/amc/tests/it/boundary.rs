//! The trust boundary, tried with real agents: isolated, not isolated, and with secrets lying about.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use serde_json::Value;

use crate::answer::Answer;
use crate::home::{PASSPHRASE, PROVIDER_KEY, TestHome, set_secret};

/// Runs a shell agent under this isolation.
fn wrap(home: &TestHome, isolation: &str, script: &str) -> Answer {
    home.amc(&["wrap", "--agent", "support", "--isolation", isolation, "--", "sh", "-c", script])
}

/// Whether this machine gives namespaces; says so where it does not.
fn has_namespaces(home: &TestHome) -> bool {
    let answer = wrap(home, "namespaces", "true");
    let has = answer.code == 0;
    if !has {
        println!("SKIPPED: no namespaces for agents on this machine: {}", answer.stderr);
    }
    has
}

fn run(home: &TestHome) -> Answer {
    home.json(&["run", "--agent", "support"])
}

fn codes(answer: &Answer) -> Vec<String> {
    let findings = answer.json()["findings"].as_array().expect("a list").clone();
    findings.iter().map(|finding| format!("{} {}", text(finding, "code"), text(finding, "message"))).collect()
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// Attempts of all probes with this outcome, as `target: subject`.
fn attempts(home: &TestHome, outcome: &str) -> Vec<String> {
    let probes = home.evidence_of("boundary_probe");
    let all = probes.iter().flat_map(|probe| probe["fields"]["attempts"].as_array().expect("a list").clone());
    all.filter(|attempt| attempt["outcome"] == outcome)
        .map(|attempt| format!("{}: {}", text(&attempt, "target"), text(&attempt, "subject")))
        .collect()
}

#[test]
fn an_agent_of_the_same_user_reaches_the_keys_and_the_run_is_invalid() {
    let home = TestHome::new();
    wrap(&home, "none", "true").ends(0);
    let answer = run(&home).ends(1);
    assert_eq!(answer.data()["status"], "INVALID");
    let codes = codes(&answer);
    assert!(
        codes.iter().any(|code| code.starts_with("TRUST_BOUNDARY_VIOLATED") && code.contains("vault")),
        "{codes:?}"
    );
    let reached = attempts(&home, "reached");
    for wanted in ["vault: read vault.amcvault", "signing_socket: connect to run/gateway.sock"] {
        assert!(reached.iter().any(|attempt| attempt == wanted), "{wanted} is missing in {reached:?}");
    }
}

#[test]
fn an_agent_in_namespaces_gets_nothing_and_the_run_is_valid() {
    let home = TestHome::new();
    if !has_namespaces(&home) {
        return;
    }
    let hostile = "cat home/vault.amcvault home/amc.yaml home/logs/evidence/checkpoint; \
                   echo x >> home/logs/evidence/checkpoint; mv home elsewhere; rmdir home; touch /etc/amc-was-here; \
                   kill -9 1; umount home; echo made > made.txt; cat made.txt; exit 5";
    let answer = wrap(&home, "auto", hostile).ends(5);
    assert_eq!(answer.text(), "made\n", "{}", answer.stderr);
    assert!(answer.stderr.contains("isolation namespaces"), "{}", answer.stderr);
    let made = fs::metadata(home.beside("made.txt")).expect("the work directory is the agent's to write");
    assert_eq!(made.uid(), rustix::process::geteuid().as_raw(), "on disk it is the operator's");
    assert_eq!(attempts(&home, "reached"), Vec::<String>::new());
    assert!(attempts(&home, "denied").iter().any(|attempt| attempt == "vault: read vault.amcvault"));
    home.json(&["verify"]).ends(0);
    let answer = run(&home).ends(0);
    assert_eq!(answer.data()["status"], "VALID");
}

#[test]
fn the_status_of_an_isolated_agent_is_passed_on() {
    let home = TestHome::new();
    if !has_namespaces(&home) {
        return;
    }
    wrap(&home, "namespaces", "exit 0").ends(0);
    wrap(&home, "namespaces", "kill -TERM $$").ends(143);
    home.amc(&["wrap", "--agent", "support", "--isolation", "namespaces", "--", "no-such-command-here"]).ends(127);
}

#[test]
fn a_passphrase_left_in_the_work_directory_is_found_and_named() {
    let home = TestHome::new();
    if !has_namespaces(&home) {
        return;
    }
    let note = home.beside("notes.txt");
    fs::write(&note, format!("remember: {PASSPHRASE}\n{PASSPHRASE}\n")).expect("written");
    fs::set_permissions(&note, fs::Permissions::from_mode(0o644)).expect("readable");
    wrap(&home, "namespaces", "true").ends(0);
    let answer = run(&home).ends(1);
    let codes = codes(&answer);
    assert!(
        codes.iter().any(|code| code.starts_with("TRUST_BOUNDARY_VIOLATED") && code.contains("notes.txt")),
        "{codes:?}"
    );
}

#[test]
fn a_readable_provider_key_is_found_and_caps_without_making_the_run_invalid() {
    let home = TestHome::new();
    if !has_namespaces(&home) {
        return;
    }
    set_secret(home.root().parent().expect("it is in a directory"), PROVIDER_KEY);
    fs::write(home.beside(".env"), format!("OPENAI_API_KEY=\"{PROVIDER_KEY}\"\n")).expect("written");
    wrap(&home, "namespaces", "true").ends(0);
    assert!(
        attempts(&home, "reached")
            .iter()
            .any(|attempt| attempt.starts_with("provider_key: ") && attempt.ends_with("/.env"))
    );
    let answer = run(&home).ends(0);
    let capped = answer.data()["questions"].as_array().expect("a list").iter().any(|question| {
        question["caps"].as_array().is_some_and(|caps| caps.iter().any(|cap| cap["rule"] == "route_past_gateway"))
    });
    assert!(capped, "{}", answer.data());
}

#[test]
fn another_user_reaches_nothing_and_the_run_is_valid() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: only root can start an agent as another user");
        return;
    }
    let home = TestHome::new();
    let answer = wrap(&home, "user:nobody", "id -un; id -G; cat home/vault.amcvault");
    assert!(answer.text().starts_with("nobody\n"), "{} {}", answer.text(), answer.stderr);
    assert_eq!(attempts(&home, "reached"), Vec::<String>::new());
    assert_eq!(run(&home).ends(0).data()["status"], "VALID");
}

#[test]
fn isolation_that_cannot_be_had_is_said_before_anything_runs() {
    let home = TestHome::new();
    for (asked, said) in [("user:no-such-user-here", "no user"), ("castle", "none of auto")] {
        let answer = wrap(&home, asked, "true");
        assert!(matches!(answer.code, 125 | 2), "{:?}", answer.code);
        assert!(answer.stderr.contains(said), "{}", answer.stderr);
    }
    assert!(home.evidence_of("session_open").is_empty());
}
