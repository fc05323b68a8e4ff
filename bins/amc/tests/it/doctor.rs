//! `doctor`: what it says of a machine and a home, and how it ends.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use crate::answer::{Answer, keys};
use crate::home::{TestHome, bare_command, files_under};
use crate::probe::mode;

fn checks(answer: &Answer) -> BTreeMap<String, Value> {
    let data = answer.data();
    assert_eq!(keys(&data), ["checks", "isolation"], "{answer}");
    assert_eq!(keys(&data["isolation"]), ["auto", "available", "reached", "why"], "{answer}");
    let checks = data["checks"].as_array().expect("a list").clone();
    let by_id = checks.into_iter().map(|check| {
        assert_eq!(keys(&check), ["found", "id", "mend", "state"], "{check}");
        assert!(["ok", "limited", "missing"].contains(&check["state"].as_str().expect("text")), "{check}");
        (check["id"].as_str().expect("text").to_owned(), check)
    });
    by_id.collect()
}

#[test]
fn it_names_everything_under_stable_keys_and_leaves_nothing_behind() {
    let home = TestHome::new();
    let before = files_under(&home.beside(""));
    let answer = home.json(&["doctor"]);
    let checks = checks(&answer);
    let ids: Vec<&str> = checks.keys().map(String::as_str).collect();
    let known = [
        "core_dumps",
        "docker",
        "home",
        "landlock",
        "locked_memory",
        "ptrace_scope",
        "seccomp",
        "user",
        "user_namespaces",
    ];
    assert_eq!(ids, known);
    assert_eq!(checks["home"]["state"], "ok");
    assert_eq!(answer.code == 0, answer.data()["isolation"]["available"] == json!(true));
    assert_eq!(files_under(&home.beside("")), before);
    // It says what `wrap` then does.
    let wrapped = home.amc(&["wrap", "--agent", "support", "--", "true"]).ends(0);
    let auto = answer.data()["isolation"]["auto"].as_str().expect("text").to_owned();
    assert!(wrapped.stderr.contains(&format!("isolation {auto}")), "{wrapped}");
}

#[test]
fn a_loose_home_is_named_with_the_commands_that_mend_it() {
    let home = TestHome::new();
    mode(&home.file("vault.amcvault"), 0o640);
    mode(&home.file("logs"), 0o755);
    let answer = home.json(&["doctor"]).ends(1);
    let found = checks(&answer)["home"].clone();
    assert_eq!(found["state"], "missing");
    for wanted in [("600", "vault.amcvault"), ("700", "logs")] {
        let command = format!("chmod {} {}", wanted.0, home.file(wanted.1).display());
        assert!(found["mend"].as_str().is_some_and(|mend| mend.contains(&command)), "{found}");
    }
    mode(&home.root(), 0o755);
    let answer = home.json(&["doctor"]).ends(1);
    let found = checks(&answer)["home"].clone();
    assert_eq!(found["mend"], format!("chmod 700 {}", home.root().display()));
}

#[test]
fn without_its_other_half_there_is_no_isolation_and_it_says_so() {
    let home = TestHome::new();
    let alone = home.beside("amc");
    fs::copy(amc_testkit::binary("amc"), &alone).expect("a copy");
    let mut command = std::process::Command::new(&alone);
    let like = bare_command(&home.beside(""));
    command.env_clear().envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("PATH", "/usr/bin:/bin").current_dir(home.beside("")).args(["--json", "doctor"]);
    let answer = Answer::of(&mut command).ends(1);
    assert_eq!(answer.data()["isolation"]["auto"], "none");
    let landlock = checks(&answer)["landlock"].clone();
    assert!(landlock["mend"].as_str().is_some_and(|mend| mend.contains("amc-sandbox-init")), "{landlock}");
}

#[test]
fn without_a_home_it_still_says_what_the_machine_can_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = bare_command(dir.path());
    let answer = Answer::of(command.args(["--json", "doctor"]));
    assert_eq!(checks(&answer)["home"]["mend"], "amc init");
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0, "the trial is cleared away");
}
