//! Agents that try everything, and two agents beside each other: what they end with is nothing.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::home::{TestHome, until};
use crate::probe::{Other, Unprivileged, mode, passable};
use crate::services::Up;

/// A Python that users without a home can run.
const PYTHON: &str = "/usr/bin/python3";

fn has_python() -> bool {
    let has = Path::new(PYTHON).exists();
    if !has {
        println!("SKIPPED: the hostile agent needs {PYTHON}, which is not there");
    }
    has
}

/// The agent, where every user can read it.
fn agent(home: &TestHome) -> PathBuf {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/agents/hostile.py");
    let path = home.beside("hostile.py");
    fs::copy(fixture, &path).expect("a copy");
    mode(&path, 0o644);
    path
}

/// Lets the agent do its worst and checks that nothing came of it.
fn ends_with_nothing(home: &TestHome, isolation: &str) {
    let (up, status) = Up::start(home);
    let monitor = status["monitor"]["pid"].as_u64().expect("a process id");
    let work = home.beside("work");
    fs::create_dir(&work).expect("a directory");
    mode(&work, 0o777);
    let summary = work.join("summary.json");
    let before: Vec<(PathBuf, Vec<u8>)> = ["vault.amcvault", "trust.policy", "amc.yaml", "gateway.yaml"]
        .map(|name| (home.file(name), fs::read(home.file(name)).expect("a file")))
        .into();
    let mut amc = home.command();
    amc.current_dir(&work).args(["wrap", "--agent", "support", "--isolation", isolation, "--summary"]);
    amc.arg(&summary).args(["--", PYTHON]).arg(agent(home)).arg(home.root());
    amc.args([monitor.to_string(), std::process::id().to_string()]);
    let output = amc.stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("amc starts");
    let said = String::from_utf8_lossy(&output.stderr).chars().rev().take(2000).collect::<String>();
    let said: String = said.chars().rev().collect();
    assert_eq!(output.status.code(), Some(23), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("the agent's report");
    let attempts = report.as_object().expect("an object");
    assert!(attempts.len() >= 22, "{report}");
    for (name, outcome) in attempts {
        assert!(outcome.is_string(), "{name} got something: {outcome}");
    }

    // The link in the place of the summary was not followed.
    assert!(!summary.is_symlink(), "the summary is written in place of the link");
    let summary: Value = serde_json::from_slice(&fs::read(&summary).expect("a summary")).expect("JSON");
    assert_eq!((&summary["exit_status"], &summary["outcome"]), (&json!(23), &json!("sealed")));
    for (path, bytes) in before {
        assert_eq!(fs::read(&path).expect("it is there"), bytes, "{} was changed", path.display());
    }

    // The same monitor is still there, and what it recorded is what was seen.
    assert_eq!(home.json(&["status"]).ends(0).data()["monitor"]["pid"], monitor);
    drop(up);
    home.json(&["verify"]).ends(0);
    assert_eq!(home.evidence_of("session_open").len(), 1);
    let seals = home.evidence_of("session_seal");
    assert_eq!((seals.len(), &seals[0]["fields"]["outcome"]), (1, &json!("sealed")));
    for forged in ["llm_request", "llm_response", "agent_key_ignored"] {
        assert!(home.evidence_of(forged).is_empty(), "{forged} was forged");
    }
    assert!(home.evidence().iter().all(|event| event["tier"] != "OBSERVED_HARDENED"));
    assert_eq!(home.evidence_of("process_exit")[0]["fields"]["code"], 23);
    assert_eq!(home.json(&["run", "--agent", "support"]).ends(0).data()["status"], "VALID");
}

#[test]
fn a_hostile_agent_in_namespaces_ends_with_nothing() {
    let home = TestHome::new();
    if !has_python() {
        return;
    }
    let answer = home.amc(&["wrap", "--agent", "helper", "--isolation", "namespaces", "--", "true"]);
    if answer.code != 0 {
        println!("SKIPPED: no namespaces for agents on this machine: {}", answer.stderr);
        return;
    }
    ends_with_nothing(&TestHome::new(), "namespaces");
}

#[test]
fn a_hostile_agent_as_another_user_ends_with_nothing() {
    let Some(other) = Other::of("backup") else { return };
    if !has_python() {
        return;
    }
    let home = TestHome::new();
    passable(&home);
    ends_with_nothing(&home, &other.isolation());
    // Nor does anything of it go on.
    until(|| !has_processes(other.uid));
}

/// The attempts are worth something: without isolation, by an operator who is not root, they work.
#[test]
fn the_hostile_agent_gets_at_everything_where_nothing_keeps_it_apart() {
    let Some(operator) = Unprivileged::new(61_004) else { return };
    if !has_python() {
        return;
    }
    let home = &operator.home;
    let work = home.beside("work");
    fs::create_dir(&work).expect("a directory");
    mode(&work, 0o777);
    let script = agent(home).display().to_string();
    let root = home.root().display().to_string();
    let mut amc = home.command();
    amc.current_dir(&work).args(["wrap", "--agent", "support", "--isolation", "none", "--", PYTHON, &script, &root]);
    let answer = operator.run(&mut amc);
    assert_ne!(answer.code, 0);
    let report = fs::read(work.join("attempts.json")).expect("what it got");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    for name in ["read", "write", "forge_events", "replace_the_home"] {
        assert!(
            report[name]["got"].as_array().is_some_and(|got| !got.is_empty()) || report[name]["got"].is_string(),
            "{name}: {report}"
        );
    }
    // The home has another name now, and its log is no log any more.
    let renamed = format!("{root}.old");
    let verified = operator.amc(&["--json", "verify", "--home", &renamed]);
    assert_ne!(verified.code, 0, "{verified}");
}

#[test]
fn the_hostile_agent_is_answered_by_the_sockets_where_nothing_keeps_it_apart() {
    let Some(operator) = Unprivileged::new(61_005) else { return };
    if !has_python() {
        return;
    }
    let home = &operator.home;
    let script = agent(home);
    // The same without what would break the home first.
    let text = fs::read_to_string(&script).expect("a script");
    let (head, tail) = text.split_once("@attempt(\"forge_events\")").expect("the attempt");
    let (_, tail) = tail.split_once("def frame(body):").expect("the next part");
    fs::write(&script, format!("{head}def frame(body):{tail}")).expect("a script");
    let work = home.beside("work");
    fs::create_dir(&work).expect("a directory");
    mode(&work, 0o777);
    let root = home.root().display().to_string();
    let mut amc = home.command();
    amc.current_dir(&work).args(["wrap", "--agent", "support", "--isolation", "none", "--", PYTHON]);
    operator.run(amc.arg(&script).arg(&root));
    let report = fs::read(work.join("attempts.json")).expect("what it got");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    assert!(report["ask_monitor_for_a_signature"]["got"].is_string(), "{report}");
    assert!(report["stop_monitor"]["got"].is_string(), "{report}");
    // Its socket is gone with it, and the run says why it counts for nothing.
    until(|| !home.file("run/monitor.sock").exists());
    let run = operator.amc(&["--json", "run", "--agent", "support"]);
    assert_eq!((run.code, &run.data()["status"]), (1, &json!("INVALID")), "{run}");
}

fn has_processes(uid: u32) -> bool {
    let statuses = fs::read_dir("/proc").expect("a directory").flatten();
    let statuses = statuses.filter_map(|entry| fs::read_to_string(entry.path().join("status")).ok());
    let line = format!("Uid:\t{uid}\t");
    statuses.into_iter().any(|status| status.contains(&line))
}

/// An agent that waits, says its process id, and later what it got of the other one.
struct Beside(Child);

impl Beside {
    fn start(home: &TestHome, agent: &str, isolation: &str, own: &str) -> Self {
        // Each tells its number, waits for the other's, and tries what it can.
        let script = format!(
            "echo $$ > {own}; chmod 644 {own}; echo there; read other < /dev/stdin; \
             kill -0 $other 2>/dev/null && echo signalled; cat /proc/$other/environ 2>/dev/null | tr -d '\\0'; \
             head -c 1 /proc/$other/mem >/dev/null 2>&1 && echo read; ls -l /proc/$other/cwd 2>/dev/null; \
             touch tried-{own}; while [ ! -e go ]; do sleep 0.01; done; exit 0"
        );
        let mut amc = home.command();
        amc.current_dir(home.beside("work")).args(["wrap", "--agent", agent, "--isolation", isolation, "--"]);
        amc.args(["sh", "-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Beside(amc.spawn().expect("amc starts"))
    }

    fn tell(&mut self, other: &str) {
        use std::io::Write as _;
        let mut stdin = self.0.stdin.take().expect("a pipe");
        writeln!(stdin, "{other}").expect("it is taken");
    }

    fn ends(mut self) -> String {
        let status = self.0.wait().expect("it ends");
        let (mut out, mut said) = (String::new(), String::new());
        self.0.stdout.take().expect("a pipe").read_to_string(&mut out).expect("text");
        self.0.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
        assert!(status.success(), "{said}");
        out
    }
}

fn beside_each_other(home: &TestHome, isolations: [&str; 2]) {
    let (up, _) = Up::start(home);
    let work = home.beside("work");
    fs::create_dir(&work).expect("a directory");
    mode(&work, 0o777);
    let mut first = Beside::start(home, "support", isolations[0], "a");
    let mut second = Beside::start(home, "helper", isolations[1], "b");
    let number = |name: &str| fs::read_to_string(work.join(name)).unwrap_or_default().trim().to_owned();
    until(|| !number("a").is_empty() && !number("b").is_empty());
    first.tell(&number("b"));
    second.tell(&number("a"));
    until(|| work.join("tried-a").exists() && work.join("tried-b").exists());

    if isolations[0].starts_with("user:") {
        // While it runs, its user is nobody else's.
        let third = home.amc(&["wrap", "--agent", "helper", "--isolation", isolations[0], "--", "true"]).ends(125);
        third.says(&["user of its own", isolations[0].trim_start_matches("user:"), "/etc/subuid"]);
    }
    fs::write(work.join("go"), "").expect("a file");
    for agent in [first, second] {
        assert_eq!(agent.ends(), "there\n");
    }
    drop(up);
    for agent in ["support", "helper"] {
        assert_eq!(home.json(&["run", "--agent", agent]).ends(0).data()["status"], "VALID", "{agent}");
    }
}

#[test]
fn two_agents_as_users_of_their_own_cannot_get_at_each_other() {
    let (Some(first), Some(second)) = (Other::of("list"), Other::of("www-data")) else { return };
    let home = TestHome::new();
    passable(&home);
    beside_each_other(&home, [&first.isolation(), &second.isolation()]);
}

#[test]
fn two_agents_in_namespaces_of_their_own_cannot_get_at_each_other() {
    let home = TestHome::new();
    let answer = home.amc(&["wrap", "--agent", "helper", "--isolation", "namespaces", "--", "true"]);
    if answer.code != 0 {
        println!("SKIPPED: no namespaces for agents on this machine: {}", answer.stderr);
        return;
    }
    two_in_namespaces(&home);
}

/// In namespaces of their own both have the same number, so each is told one that it does not have.
fn two_in_namespaces(home: &TestHome) {
    let (up, _) = Up::start(home);
    let work = home.beside("work");
    fs::create_dir(&work).expect("a directory");
    let script =
        |own: &str| format!("ls /proc | grep -c '^[0-9]' > {own}; while [ ! -e go ]; do sleep 0.01; done; id -u");
    let start = |agent: &str, own: &str| {
        let mut amc = home.command();
        amc.current_dir(&work).args(["wrap", "--agent", agent, "--isolation", "namespaces", "--", "sh", "-c"]);
        Beside(amc.arg(script(own)).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("amc starts"))
    };
    let agents = [start("support", "a"), start("helper", "b")];
    let count = |name: &str| fs::read_to_string(work.join(name)).ok()?.trim().parse::<u32>().ok();
    until(|| count("a").is_some() && count("b").is_some());
    fs::write(work.join("go"), "").expect("a file");
    let uids = agents.map(Beside::ends);
    // Each sees process 1, its own and the two of this very look; of the other nothing.
    for seen in [count("a"), count("b")] {
        assert!(seen.is_some_and(|seen| seen <= 5), "{seen:?} processes");
    }
    if rustix::process::geteuid().is_root() {
        assert_ne!(uids[0], uids[1], "each has a user of its own");
    }
    drop(up);
    for agent in ["support", "helper"] {
        assert_eq!(home.json(&["run", "--agent", agent]).ends(0).data()["status"], "VALID", "{agent}");
    }
}
