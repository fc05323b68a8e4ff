//! What somebody loosened, found and named by the probe: file modes, sockets, variables, descriptors,
//! histories, container engines, rules of sudo, programs that change the user.
//!
//! Tests that need another user of the machine need root and say so where there is none.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use amc_testkit::binary;
use serde_json::Value;

use crate::answer::Answer;
use crate::home::{PASSPHRASE, PROVIDER_KEY, TestHome, set_secret, until};
use crate::services::Up;

/// Another user of the machine for one test, each with its own: agents do not share one.
pub(crate) struct Other {
    pub(crate) name: &'static str,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Other {
    /// The user, where this test may use it.
    pub(crate) fn of(name: &'static str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: only root can start an agent as another user");
            return None;
        }
        let users = fs::read_to_string("/etc/passwd").expect("every machine has users");
        let user = users.lines().find_map(|line| {
            let mut fields = line.strip_prefix(name)?.strip_prefix(':')?.split(':').skip(1);
            Some(Other { name, uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
        });
        if user.is_none() {
            println!("SKIPPED: this machine has no user {name}");
        }
        user
    }

    pub(crate) fn isolation(&self) -> String {
        format!("user:{}", self.name)
    }
}

/// Lets every user come as far as the home and no further.
pub(crate) fn passable(home: &TestHome) {
    mode(&home.beside(""), 0o755);
}

pub(crate) fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("its mode");
}

fn wrap(home: &TestHome, isolation: &str) -> Answer {
    home.amc(&["wrap", "--agent", "support", "--isolation", isolation, "--", "true"])
}

/// Attempts of the last session's probes as `target: subject: outcome`.
pub(crate) fn attempts(home: &TestHome) -> Vec<String> {
    let probes = home.evidence_of("boundary_probe");
    let session = probes.last().expect("a probe")["session_id"].clone();
    let probes = probes.into_iter().filter(|probe| probe["session_id"] == session);
    let all = probes.flat_map(|probe| probe["fields"]["attempts"].as_array().expect("a list").clone());
    let text = |attempt: &Value, key: &str| attempt[key].as_str().expect("text").to_owned();
    all.map(|it| format!("{}: {}: {}", text(&it, "target"), text(&it, "subject"), text(&it, "outcome"))).collect()
}

#[track_caller]
pub(crate) fn says(attempts: &[String], wanted: &str) {
    assert!(attempts.iter().any(|attempt| attempt == wanted), "{wanted:?} is missing in {attempts:#?}");
}

pub(crate) fn reached(attempts: &[String]) -> Vec<&String> {
    attempts.iter().filter(|attempt| !attempt.ends_with(": denied") && !attempt.ends_with(": absent")).collect()
}

/// A run over the session is INVALID, and says by this attempt why.
#[track_caller]
fn is_invalid_by(home: &TestHome, why: &str) {
    let run = home.json(&["run", "--agent", "support"]).ends(1);
    assert_eq!(run.data()["status"], "INVALID", "{run}");
    let findings = run.json()["findings"].as_array().expect("a list").clone();
    let named = findings.iter().any(|finding| {
        finding["code"] == "TRUST_BOUNDARY_VIOLATED" && finding["message"].as_str().is_some_and(|it| it.contains(why))
    });
    assert!(named, "{why:?} is missing: {run}");
}

fn has_namespaces(home: &TestHome) -> bool {
    let answer = wrap(home, "namespaces");
    if answer.code != 0 {
        println!("SKIPPED: no namespaces for agents on this machine: {}", answer.stderr);
    }
    answer.code == 0
}

#[test]
fn every_trusted_process_is_tried_in_every_way_before_and_during_and_refuses() {
    let Some(other) = Other::of("games") else { return };
    let home = TestHome::new();
    passable(&home);
    wrap(&home, &other.isolation()).ends(0);
    let probes = home.evidence_of("boundary_probe");
    let phases: Vec<&str> = probes.iter().filter_map(|probe| probe["fields"]["phase"].as_str()).collect();
    assert_eq!(phases, ["before", "during"]);
    let attempts = attempts(&home);
    for process in ["amc", "amc-monitor", "amc-gateway"] {
        for way in [
            "signal",
            "trace",
            "open the memory of",
            "read the memory of",
            "take a descriptor of",
            "read the environment of",
            "list the descriptors of",
        ] {
            let wanted = format!("trusted_process: {way} {process}: denied");
            assert_eq!(attempts.iter().filter(|it| **it == wanted).count(), 2, "{wanted} in {attempts:#?}");
        }
    }
    for wanted in [
        "vault: read vault.amcvault: denied",
        "passphrase: read studio/admin.token: absent",
        "home_read: read logs/evidence/checkpoint: denied",
        "home_read: list logs/evidence/segments: denied",
        "log_write: write logs/evidence/checkpoint: denied",
        "log_write: create in logs/evidence/segments: denied",
        "home_write: write trust.policy: denied",
        "home_write: create in run: denied",
        "home_write: put another directory in the home's place: denied",
        "signing_socket: connect to run/monitor.sock: denied",
        "signing_socket: ask run/monitor.sock for a signature: denied",
        "signing_socket: connect to run/gateway.sock: denied",
        "signing_socket: ask run/gateway.sock for a signature: denied",
        "descriptor: look for descriptors left open: denied",
        "privilege: being root: denied",
        "privilege: having capabilities: denied",
    ] {
        says(&attempts, wanted);
    }
    assert_eq!(reached(&attempts), Vec::<&String>::new());
    assert_eq!(home.json(&["run", "--agent", "support"]).ends(0).data()["status"], "VALID");
}

#[test]
fn a_home_that_belongs_to_the_agents_user_is_found_and_named() {
    let Some(other) = Other::of("man") else { return };
    let home = TestHome::new();
    passable(&home);
    let up = Up::start(&home);
    fs::create_dir(home.file("studio")).expect("a directory");
    fs::write(home.file("studio/admin.token"), "a token of the console").expect("a file");
    mode(&home.file("studio/admin.token"), 0o600);
    for path in ["", "vault.amcvault", "logs", "logs/evidence", "studio", "studio/admin.token"] {
        chown(home.file(path), Some(other.uid), Some(other.gid)).expect("root gives files away");
    }
    wrap(&home, &other.isolation()).ends(0);
    let attempts = attempts(&home);
    for wanted in [
        "vault: read vault.amcvault: reached",
        "home_write: write vault.amcvault: reached",
        "passphrase: read studio/admin.token: reached",
        "home_write: create in the home: reached",
        "log_write: create in logs/evidence: reached",
        "home_read: list the home: reached",
        "signing_socket: connect to run/monitor.sock: denied",
    ] {
        says(&attempts, wanted);
    }
    drop(up);
    is_invalid_by(&home, "vault.amcvault");
}

#[test]
fn a_readable_log_and_a_socket_for_everybody_are_found_and_the_socket_answers_no_stranger() {
    let Some(other) = Other::of("lp") else { return };
    let home = TestHome::new();
    passable(&home);
    let up = Up::start(&home);
    // The modes that are looked at stay strict; what is loosened is below.
    chown(home.root(), Some(other.uid), Some(other.gid)).expect("root gives files away");
    for path in ["logs", "logs/evidence", "logs/evidence/segments", "run"] {
        mode(&home.file(path), 0o755);
    }
    let segment = "logs/evidence/segments/00000000000000000000.seg";
    mode(&home.file(segment), 0o644);
    mode(&home.file("run/monitor.sock"), 0o666);
    wrap(&home, &other.isolation()).ends(0);
    let attempts = attempts(&home);
    for wanted in [
        &format!("home_read: read {segment}: reached"),
        "home_read: list logs/evidence: reached",
        &format!("log_write: write {segment}: denied"),
        "signing_socket: connect to run/monitor.sock: reached",
        // Whoever connects is looked at.
        "signing_socket: ask run/monitor.sock for a signature: denied",
        "signing_socket: connect to run/gateway.sock: denied",
    ] {
        says(&attempts, wanted);
    }
    drop(up);
    is_invalid_by(&home, "create in the home");
}

#[test]
fn a_socket_that_nobody_knows_is_tried_and_its_listener_is_trusted() {
    let Some(other) = Other::of("mail") else { return };
    let home = TestHome::new();
    passable(&home);
    let listener = UnixListener::bind(home.file("run/another.sock")).expect("a socket");
    // It ends with the test's process.
    std::thread::spawn(move || listener.incoming().for_each(drop));
    wrap(&home, &other.isolation()).ends(0);
    let attempts = attempts(&home);
    says(&attempts, "signing_socket: connect to run/another.sock: denied");
    says(&attempts, "signing_socket: ask run/another.sock for a signature: denied");
    let own = fs::read_to_string("/proc/self/comm").expect("our own name");
    says(&attempts, &format!("trusted_process: trace {}: denied", own.trim_end()));
}

#[test]
fn a_passphrase_that_is_passed_on_in_a_variable_is_found_and_named() {
    let home = TestHome::new();
    if !has_namespaces(&home) {
        return;
    }
    let mut amc = home.command();
    amc.env("SETTINGS", PASSPHRASE).args(["wrap", "--agent", "support", "--isolation", "namespaces"]);
    Answer::of(amc.args(["--pass-env", "SETTINGS", "--", "true"])).ends(0);
    says(&attempts(&home), "passphrase: environment SETTINGS: reached");
    is_invalid_by(&home, "environment SETTINGS");
}

#[test]
fn descriptors_left_open_are_found_by_what_they_are() {
    let home = TestHome::new();
    if !has_namespaces(&home) {
        return;
    }
    fs::write(home.beside("pass"), format!("{PASSPHRASE}\n")).expect("a file");
    mode(&home.beside("pass"), 0o600);
    let script = "exec 9<home/vault.amcvault 8<pass 7</; exec \"$0\" wrap --agent support --isolation namespaces \
                  -- true";
    let mut shell = Command::new("sh");
    let like = home.command();
    shell.env_clear().envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.current_dir(home.beside("")).stdin(Stdio::null()).args(["-c", script]).arg(binary("amc"));
    Answer::of(&mut shell).ends(0);
    let attempts = attempts(&home);
    says(&attempts, "descriptor: descriptor 9 on vault.amcvault: reached");
    let tried = attempts.iter().any(|it| it.starts_with("vault: read vault.amcvault by way of descriptor 7: "));
    assert!(tried, "{attempts:#?}");
    let found = attempts.iter().find(|it| it.starts_with("passphrase: ") && it.ends_with(": reached"));
    assert!(found.is_some_and(|it| it.contains("pass")), "{attempts:#?}");
    is_invalid_by(&home, "descriptor 9 on vault.amcvault");
}

#[test]
fn secrets_in_a_history_are_found_and_named() {
    let home = TestHome::new();
    if !has_namespaces(&home) {
        return;
    }
    set_secret(&home.beside(""), PROVIDER_KEY);
    let history = format!("ls\necho {PASSPHRASE} | amc up\ncurl -H 'x-api-key: {PROVIDER_KEY}' https://example.test\n");
    fs::write(home.beside(".bash_history"), history).expect("a file");
    mode(&home.beside(".bash_history"), 0o644);
    wrap(&home, "namespaces").ends(0);
    let attempts = attempts(&home);
    for target in ["passphrase", "provider_key"] {
        let found = attempts.iter().any(|it| it.starts_with(target) && it.ends_with("/.bash_history: reached"));
        assert!(found, "{target} in {attempts:#?}");
    }
}

#[test]
fn a_container_engine_within_reach_is_found_and_named() {
    let home = TestHome::new();
    if !has_namespaces(&home) {
        return;
    }
    let socket = home.beside("engine.sock");
    let _engine = UnixListener::bind(&socket).expect("a socket");
    mode(&socket, 0o666);
    let mut amc = home.command();
    amc.env("DOCKER_HOST", format!("unix://{}", socket.display()));
    amc.args(["wrap", "--agent", "support", "--isolation", "namespaces", "--pass-env", "DOCKER_HOST", "--", "true"]);
    Answer::of(&mut amc).ends(0);
    let engine = format!("connect to {}", socket.display());
    says(&attempts(&home), &format!("container_engine: {engine}: reached"));
    is_invalid_by(&home, &engine);
}

#[test]
fn a_rule_of_sudo_for_one_command_is_found_and_named() {
    let home = TestHome::new();
    if !has_namespaces(&home) {
        return;
    }
    // In the place of sudo with a rule, which a test must not write into the machine's configuration:
    // what is under test is that its list is read.
    let programs = home.beside("programs");
    fs::create_dir(&programs).expect("a directory");
    let sudo = "#!/bin/sh\n[ \"$*\" = '-n -l' ] && echo '(root) NOPASSWD: /usr/bin/less /var/log/agent.log'\n";
    fs::write(programs.join("sudo"), sudo).expect("a file");
    mode(&programs.join("sudo"), 0o755);
    let path = format!("{}:/usr/bin:/bin", programs.display());
    let mut amc = home.command();
    amc.env("PATH", path).args(["wrap", "--agent", "support", "--isolation", "namespaces", "--", "true"]);
    Answer::of(&mut amc).ends(0);
    let attempts = attempts(&home);
    says(&attempts, "privilege: sudo without a password: denied");
    says(&attempts, "privilege: a rule of sudo without a password: reached");
    is_invalid_by(&home, "a rule of sudo without a password");
}

/// A home whose owner is not root, and `amc` as that owner.
pub(crate) struct Unprivileged {
    pub(crate) home: TestHome,
    uid: u32,
}

impl Unprivileged {
    pub(crate) fn new(uid: u32) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: only root can act as an operator who is not root");
            return None;
        }
        let can = Command::new(binary("amc")).arg("--version").uid(uid).gid(uid).stdout(Stdio::null()).status();
        if !can.is_ok_and(|status| status.success()) {
            println!("SKIPPED: {} cannot be run by another user", binary("amc").display());
            return None;
        }
        let home = TestHome::new();
        give(&home.beside(""), uid);
        Some(Unprivileged { home, uid })
    }

    pub(crate) fn amc(&self, arguments: &[&str]) -> Answer {
        self.run(self.home.command().args(arguments))
    }

    /// Runs a command as the operator; a root's groups do not go along.
    pub(crate) fn run(&self, command: &mut Command) -> Answer {
        Answer::of(command.uid(self.uid).gid(self.uid))
    }
}

impl Drop for Unprivileged {
    fn drop(&mut self) {
        // What agents left behind; the shell that ends them is one of them.
        let _ = Command::new("sh").args(["-c", "kill -9 -1"]).uid(self.uid).gid(self.uid).status();
    }
}

fn give(path: &Path, uid: u32) {
    chown(path, Some(uid), Some(uid)).expect("root gives files away");
    if path.is_dir() {
        fs::read_dir(path).expect("a directory").for_each(|entry| give(&entry.expect("an entry").path(), uid));
    }
}

#[test]
fn an_operator_without_root_keeps_an_agent_apart_by_namespaces() {
    let Some(operator) = Unprivileged::new(61_001) else { return };
    let wrapped = operator.amc(&["wrap", "--agent", "support", "--isolation", "namespaces", "--", "true"]);
    if wrapped.code == 125 {
        println!("SKIPPED: no user namespaces on this machine: {}", wrapped.stderr);
        return;
    }
    wrapped.ends(0);
    let attempts = attempts(&operator.home);
    assert_eq!(reached(&attempts), Vec::<&String>::new());
    says(&attempts, "vault: read vault.amcvault: denied");
    says(&attempts, "trusted_process: signal amc-monitor: denied");
    let run = operator.amc(&["--json", "run", "--agent", "support"]).ends(0);
    assert_eq!(run.data()["status"], "VALID");
}

#[test]
fn a_directory_from_outside_leads_an_unprivileged_agent_to_the_vault_and_is_found() {
    let Some(operator) = Unprivileged::new(61_002) else { return };
    let mut shell = Command::new("sh");
    let like = operator.home.command();
    shell.env_clear().envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let script = "exec 7</; exec \"$0\" wrap --agent support --isolation namespaces -- true";
    shell.current_dir(operator.home.beside("")).stdin(Stdio::null()).args(["-c", script]).arg(binary("amc"));
    let wrapped = Answer::of(shell.uid(operator.uid).gid(operator.uid));
    if wrapped.code == 125 {
        println!("SKIPPED: no user namespaces on this machine: {}", wrapped.stderr);
        return;
    }
    says(&attempts(&operator.home), "vault: read vault.amcvault by way of descriptor 7: reached");
    let run = operator.amc(&["--json", "run", "--agent", "support"]).ends(1);
    assert_eq!(run.data()["status"], "INVALID");
}

#[test]
fn a_program_that_changes_the_user_is_found_and_named() {
    let Some(operator) = Unprivileged::new(61_003) else { return };
    let programs = operator.home.beside("programs");
    fs::create_dir(&programs).expect("a directory");
    fs::copy("/bin/cat", programs.join("read-anything")).expect("a copy");
    mode(&programs, 0o755);
    mode(&programs.join("read-anything"), 0o4755);
    let path = format!("{}:/usr/bin:/bin", programs.display());
    let wrap = |isolation: &str| {
        let mut amc = operator.home.command();
        amc.env("PATH", &path).args(["wrap", "--agent", "support", "--isolation", isolation, "--", "true"]);
        Answer::of(amc.uid(operator.uid).gid(operator.uid))
    };
    let program = format!("privilege: run {}, which changes the user", programs.join("read-anything").display());
    wrap("none").ends(0);
    says(&attempts(&operator.home), &format!("{program}: reached"));
    // In namespaces the kernel gives such a program nothing.
    if wrap("namespaces").code == 0 {
        says(&attempts(&operator.home), &format!("{program}: denied"));
    }
}

#[test]
fn an_agent_that_leaves_a_process_behind_keeps_neither_wrap_nor_its_user() {
    let Some(other) = Other::of("news") else { return };
    let home = TestHome::new();
    passable(&home);
    let script = "sleep 600 & echo $!";
    let wrapped =
        home.amc(&["wrap", "--agent", "support", "--isolation", &other.isolation(), "--", "sh", "-c", script]);
    let left = wrapped.ends(0).text().trim().to_owned();
    until(|| !Path::new(&format!("/proc/{left}")).exists());
    wrap(&home, &other.isolation()).ends(0);
    assert_eq!(home.json(&["run", "--agent", "support"]).ends(0).data()["status"], "VALID");
}
