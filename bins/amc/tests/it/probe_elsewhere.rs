//! `amc probe`: the boundary probe of an agent that AMC does not start, over the gateway, and what its
//! word is worth.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::answer::Answer;
use crate::home::{PASSPHRASE, TestHome, bare_command};
use crate::leases::{issue, listen_of, send};
use crate::probe::{Other, mode, passable};
use crate::services::Up;

/// `amc probe` in a directory of its own, as an agent's container would run it.
fn probe(dir: &Path, listen: &str, token: &str) -> Command {
    let mut command = bare_command(dir);
    command.env("AMC_LEASE", token).env("AMC_GATEWAY", format!("http://{listen}")).args(["--json", "probe"]);
    command
}

fn attempts(answer: &Answer) -> Vec<String> {
    let data = answer.data();
    let text = |attempt: &Value, key: &str| attempt[key].as_str().expect("text").to_owned();
    let all = data["attempts"].as_array().expect("a list").clone();
    all.iter().map(|it| format!("{}: {}: {}", text(it, "target"), text(it, "subject"), text(it, "outcome"))).collect()
}

#[test]
fn it_is_recorded_as_the_agents_own_word_and_reaches_nothing_as_another_user() {
    let Some(other) = Other::of("uucp") else { return };
    let home = TestHome::new();
    passable(&home);
    let place = tempfile::tempdir().expect("a directory");
    mode(place.path(), 0o755);
    let (_lease, token) = issue(&home, &[]);
    let (up, data) = Up::start(&home);
    let mut command = probe(place.path(), &listen_of(&data), &token);
    let answer = Answer::of(command.uid(other.uid).gid(other.gid)).ends(0);
    let said = attempts(&answer);
    for wanted in [
        "vault: read vault.amcvault: denied",
        "log_write: create in logs/evidence/segments: denied",
        "signing_socket: ask run/monitor.sock for a signature: denied",
        "trusted_process: trace amc-monitor: denied",
        "trusted_process: read the memory of amc-gateway: denied",
        "home_read: read fleet.yaml: absent",
        "privilege: being root: denied",
        "passphrase: look for AMC's passphrase by its name: denied",
        &format!("trusted_process: being the monitor's own user on its machine, as uid {}: denied", other.uid),
    ] {
        assert!(said.iter().any(|it| it == wanted), "{wanted:?} is missing in {said:#?}");
    }
    // Again later in the session; a passphrase left in the agent's environment is named, and not sent.
    let mut command = probe(place.path(), &listen_of(&data), &token);
    command.env("AMC_VAULT_PASSPHRASE", PASSPHRASE);
    let answer = Answer::of(command.uid(other.uid).gid(other.gid)).ends(1);
    let said = attempts(&answer);
    assert!(said.iter().any(|it| it == "passphrase: environment AMC_VAULT_PASSPHRASE: reached"), "{said:#?}");
    drop(up);

    let probes = home.evidence_of("boundary_probe");
    let told: Vec<_> = probes.iter().map(|it| (it["tier"].clone(), it["fields"]["phase"].clone())).collect();
    let word = json!("SELF_REPORTED");
    assert_eq!(told, [(word.clone(), json!("before")), (word, json!("during"))]);
    let opened = &home.evidence_of("session_open")[0];
    assert_eq!((&opened["fields"]["channel"], &opened["session_id"]), (&json!("lease"), &probes[0]["session_id"]));
    home.json(&["verify"]).ends(0);
}

#[test]
fn a_report_from_the_monitors_own_user_is_a_violation_whatever_it_says() {
    let home = TestHome::new();
    let (_lease, token) = issue(&home, &[]);
    let (up, data) = Up::start(&home);
    let listen = listen_of(&data);
    let targets = [
        "vault",
        "home_read",
        "log_write",
        "home_write",
        "signing_socket",
        "trusted_process",
        "passphrase",
        "provider_key",
        "descriptor",
        "privilege",
        "container_engine",
        "session_bus",
    ];
    let denied = |target: &&str| json!({"target": target, "subject": "all is well", "got": "denied"});
    let forged = json!({ "attempts": targets.iter().map(denied).collect::<Vec<_>>() }).to_string();
    let answer = send(&listen, "/amc/probe", &format!("authorization: Bearer {token}"), &forged);
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer: Value = serde_json::from_str(&answer.text).expect("JSON");
    let reached: Vec<&Value> =
        answer["attempts"].as_array().expect("a list").iter().filter(|it| it["outcome"] == "reached").collect();
    assert_eq!(reached.len(), 1, "{answer}");
    assert!(reached[0]["subject"].as_str().is_some_and(|it| it.starts_with("being the monitor's own user")));
    // What it leaves out is open, and what it cannot know about this machine it does not learn.
    let partial = json!({"attempts": [
        {"target": "vault", "subject": "read ../../../etc/shadow", "got": "denied"},
        {"target": "vault", "subject": "read /no/such/file", "got": "denied"},
    ]});
    let answer = send(&listen, "/amc/probe", &format!("x-api-key: {token}"), &partial.to_string());
    let answer: Value = serde_json::from_str(&answer.text).expect("JSON");
    let outcome = |at: usize| answer["attempts"][at]["outcome"].clone();
    assert_eq!((outcome(0), outcome(1)), (json!("denied"), json!("denied")));
    let open = answer["attempts"].as_array().expect("a list").iter().filter(|it| it["outcome"] == "inconclusive");
    assert_eq!(open.count(), targets.len() - 1);
    drop(up);
    home.json(&["verify"]).ends(0);
}

#[test]
fn a_wrapped_agent_has_no_say_about_its_own_boundary() {
    let home = TestHome::new();
    let (up, data) = Up::start(&home);
    let script = "echo $OPENAI_API_KEY > token; while [ ! -e go ]; do sleep 0.01; done";
    let mut command = home.command();
    command.args(["wrap", "--agent", "support", "--isolation", "none", "--", "sh", "-c", script]);
    let mut amc = command.stderr(std::process::Stdio::null()).spawn().expect("amc starts");
    let token = || fs::read_to_string(home.beside("token")).unwrap_or_default().trim().to_owned();
    crate::home::until(|| !token().is_empty());
    let forged = json!({"attempts": [{"target": "vault", "subject": "read vault.amcvault", "got": "denied"}]});
    let header = format!("authorization: Bearer {}", token());
    let answer = send(&listen_of(&data), "/amc/probe", &header, &forged.to_string());
    assert_eq!(answer.status, 400);
    assert!(answer.text.contains("probes this session itself"), "{}", answer.text);
    fs::write(home.beside("go"), "").expect("a file");
    assert!(amc.wait().expect("it ends").success());
    drop(up);
    let probes = home.evidence_of("boundary_probe");
    assert!(probes.iter().all(|probe| probe["tier"] == "OBSERVED"), "{probes:?}");
    assert_eq!(home.json(&["run", "--agent", "support"]).ends(1).data()["status"], "INVALID");
}

#[test]
fn reports_that_are_none_are_refused_and_nothing_is_recorded() {
    let home = TestHome::new();
    let (_lease, token) = issue(&home, &[]);
    let (up, data) = Up::start(&home);
    let listen = listen_of(&data);
    let one = |subject: String| json!({"target": "vault", "subject": subject, "got": "denied"});
    let many: Vec<Value> = (0..449).map(|number| one(number.to_string())).collect();
    for (body, header, status) in [
        ("{}".to_owned(), format!("authorization: Bearer {token}"), 400),
        ("not JSON".to_owned(), format!("authorization: Bearer {token}"), 400),
        (json!({"attempts": [], "tier": "OBSERVED"}).to_string(), format!("authorization: Bearer {token}"), 400),
        (json!({ "attempts": many }).to_string(), format!("authorization: Bearer {token}"), 400),
        (json!({"attempts": [one("x".repeat(200))]}).to_string(), format!("authorization: Bearer {token}"), 400),
        (json!({"attempts": [one("a\nb".into())]}).to_string(), format!("authorization: Bearer {token}"), 400),
        (json!({"attempts": [one("x".repeat(300_000))]}).to_string(), format!("authorization: Bearer {token}"), 400),
        (json!({"attempts": []}).to_string(), "authorization: Bearer amc-lease-0000".to_owned(), 401),
        (json!({"attempts": []}).to_string(), "x-none: none".to_owned(), 401),
    ] {
        let answer = send(&listen, "/amc/probe", &header, &body);
        assert_eq!(answer.status, status, "{}: {}", &body[..body.len().min(80)], answer.text);
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut nowhere = bare_command(dir.path());
    Answer::of(nowhere.args(["probe"])).ends(2).says(&["no gateway", "--gateway"]);
    let mut unlet = bare_command(dir.path());
    Answer::of(unlet.args(["probe", "--gateway", &format!("http://{listen}")]))
        .ends(2)
        .says(&["no lease", "AMC_LEASE"]);
    drop(up);
    assert!(home.evidence_of("boundary_probe").is_empty());
}
