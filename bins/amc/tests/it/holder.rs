//! The process that holds the auditor's keys: verbs without a passphrase, the same answers, and keys
//! that are gone when they should be.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use amc_workspace::protocol::holder::{HolderReply, HolderRequest, HomeId, VerbCall};
use amc_workspace::protocol::{Client, PROTOCOL_VERSION};
use rustix::fs::{Mode, OFlags};
use serde_json::Value;

use crate::answer::Answer;
use crate::home::{PASSPHRASE, Scored, TestHome, until};
use crate::services::Up;

/// Locks what a test unlocked, also when the test fails.
struct Unlocked<'a> {
    home: &'a TestHome,
    pid: u64,
}

impl<'a> Unlocked<'a> {
    fn new(home: &'a TestHome) -> Self {
        Self::with(home, &[])
    }

    fn with(home: &'a TestHome, options: &[&str]) -> Self {
        let data = home.json(&[&["vault", "unlock"], options].concat()).ends(0).data();
        let pid = data["auditor"]["pid"].as_u64().unwrap_or_else(|| panic!("no process: {data}"));
        Unlocked { home, pid }
    }
}

impl Drop for Unlocked<'_> {
    fn drop(&mut self) {
        let lock = self.home.json(&["vault", "lock", "--role", "auditor"]);
        if !std::thread::panicking() {
            assert_eq!(lock.code, 0, "{lock}");
        }
    }
}

/// `amc` without any passphrase, as another terminal would call it.
fn bare(home: &TestHome, arguments: &[&str]) -> Answer {
    let mut command = home.command();
    Answer::of(command.env_remove("AMC_VAULT_PASSPHRASE").arg("--json").args(arguments))
}

fn runs(pid: u64) -> bool {
    // One that ended and that nobody has waited for does not run.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next());
    !matches!(state, None | Some('Z'))
}

fn is_locked(home: &TestHome) -> bool {
    let answer = bare(home, &["config", "sign", "gateway.yaml"]);
    answer.code == 3 && answer.errors().contains("VAULT_LOCKED")
}

#[test]
fn verbs_need_no_passphrase_until_lock_forgets_the_keys_on_every_terminal() {
    let Scored { home, run_id, .. } = TestHome::scored();
    assert!(is_locked(&home));
    let held = Unlocked::new(&home);
    let again = home.json(&["vault", "unlock"]).ends(0).data();
    assert_eq!(again["auditor"]["pid"].as_u64(), Some(held.pid), "unlocked once");

    let socket = fs::metadata(home.file("run/auditor.sock")).expect("a socket");
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    // Relative paths begin where the client works.
    let export = ["bundle", "export", "--agent", "support", "--run", &run_id, "--out", "by-holder.amcbundle"];
    bare(&home, &export).ends(0);
    assert!(home.beside("by-holder.amcbundle").is_file());
    bare(&home, &["bundle", "verify", "by-holder.amcbundle"]).ends(0);
    bare(&home, &["config", "sign", "gateway.yaml"]).ends(0);
    bare(&home, &["gateway", "init", "--listen", "127.0.0.1:0"]).ends(0);
    bare(&home, &["cosign"]).ends(0);
    let run = bare(&home, &["run", "--agent", "support"]);
    assert!([0, 1].contains(&run.code) && run.data()["run_id"].is_string(), "{run}");
    // The monitor's cosignature is not this process's to give, and nobody runs who could.
    let plain = home.command().env_remove("AMC_VAULT_PASSPHRASE").args(["run", "--agent", "support"]).output();
    let plain = String::from_utf8(plain.expect("amc starts").stdout).expect("text");
    assert!(plain.contains("no monitor runs"), "{plain}");
    bare(&home, &["verify"]).ends(0);

    let lock = bare(&home, &["vault", "lock"]).ends(0).data();
    assert_eq!(lock["locked"], serde_json::json!(["auditor"]));
    assert!(!runs(held.pid), "the process is gone when `lock` returns");
    assert!(is_locked(&home));
    assert!(!home.file("run/auditor.sock").exists());
    assert_eq!(bare(&home, &["vault", "lock"]).ends(0).data()["locked"], serde_json::json!([]));
}

#[test]
fn output_json_findings_and_exit_code_are_those_of_the_verb_itself() {
    let home = TestHome::new();
    let calls: [&[&str]; 4] = [
        &["run", "--agent", "nobody"],
        &["config", "sign", "no/such/file"],
        &["bundle", "export", "--agent", "support", "--run", "run-0123456789abcdef", "--out", "x.amcbundle"],
        &["gateway", "init", "--provider", "nonsense"],
    ];
    let ask = || -> Vec<Answer> { calls.iter().flat_map(|call| [home.json(call), home.amc(call)]).collect() };
    let without = ask();
    let held = Unlocked::new(&home);
    let with = ask();
    drop(held);
    for (one, other) in without.iter().zip(&with) {
        assert_ne!(one.code, 0, "{one}");
        assert_eq!((one.code, &one.stdout, &one.stderr), (other.code, &other.stdout, &other.stderr));
    }
}

#[test]
fn a_monitor_that_runs_gives_its_cosignature_to_the_holder() {
    let Scored { home, .. } = TestHome::scored();
    let (_up, _) = Up::start(&home);
    let _held = Unlocked::new(&home);
    let run = home.command().env_remove("AMC_VAULT_PASSPHRASE").args(["run", "--agent", "support"]).output();
    let text = String::from_utf8(run.expect("amc starts").stdout).expect("text");
    assert!(text.contains("Report:") && !text.contains("not cosigned"), "{text}");
}

#[test]
fn keys_are_forgotten_when_nobody_uses_them() {
    let home = TestHome::new();
    let held = Unlocked::with(&home, &["--idle", "1s"]);
    until(|| !runs(held.pid));
    assert!(is_locked(&home));
    for wrong in ["0s", "25h", "soon"] {
        home.json(&["vault", "unlock", "--idle", wrong]).ends(2);
    }
}

#[test]
fn a_killed_holder_leaves_a_socket_that_hinders_nobody() {
    let home = TestHome::new();
    let first = Unlocked::new(&home);
    let killed = Command::new("kill").args(["-9", &first.pid.to_string()]).status().expect("kill runs");
    assert!(killed.success());
    until(|| !runs(first.pid));
    assert!(home.file("run/auditor.sock").exists(), "nobody could remove it");
    assert!(is_locked(&home));
    home.json(&["config", "sign", "gateway.yaml"]).ends(0);
    let second = Unlocked::new(&home);
    assert_ne!(first.pid, second.pid);
    bare(&home, &["config", "sign", "gateway.yaml"]).ends(0);
    home.json(&["verify"]).ends(0);
}

#[test]
fn two_that_unlock_at_once_get_one_holder() {
    let home = TestHome::new();
    let start = || -> Child {
        let mut command = home.command();
        command.args(["--json", "vault", "unlock"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("amc starts")
    };
    let started: Vec<Child> = (0..4).map(|_| start()).collect();
    let pids: Vec<Option<u64>> = started
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().expect("it ends");
            let answer = Answer::from_output(output, "amc vault unlock".to_owned());
            // Whoever came between the start of another and its readiness is told so.
            if answer.code == 0 { answer.data()["auditor"]["pid"].as_u64() } else { None }
        })
        .collect();
    let held = Unlocked::new(&home);
    let told: Vec<u64> = pids.into_iter().flatten().collect();
    assert!(!told.is_empty() && told.iter().all(|pid| *pid == held.pid), "{told:?}");
    let pid = held.pid;
    drop(held);
    assert!(!runs(pid) && is_locked(&home), "no second one is left");
}

#[test]
fn a_wrong_passphrase_unlocks_nothing() {
    let home = TestHome::new();
    let mut command = home.command();
    command.env("AMC_VAULT_PASSPHRASE", "wrong").args(["--json", "vault", "unlock"]);
    let refused = Answer::of(&mut command).ends(3);
    assert!(refused.errors().contains("VAULT_LOCKED"), "{refused}");
    assert!(!home.file("run/auditor.sock").exists());
    assert!(is_locked(&home));
}

/// A verb waits for a pipe that nobody writes; the keys go all the same.
#[test]
fn a_lock_during_a_verb_ends_it_after_a_moment() {
    let home = TestHome::new();
    let held = Unlocked::new(&home);
    let pipe = home.beside("claims");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let mut command = home.command();
    command.env_remove("AMC_VAULT_PASSPHRASE").args(["--json", "run", "--agent", "support", "--claims"]).arg(&pipe);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("amc starts");
    // The holder waits for a writer as soon as the verb began, and then for what never comes.
    let mut writer = None;
    until(|| {
        writer = writer_of(&pipe);
        writer.is_some()
    });
    bare(&home, &["vault", "lock", "--role", "auditor"]).ends(0);
    assert!(!runs(held.pid));
    let cut = Answer::from_output(child.wait_with_output().expect("it ends"), "amc run".to_owned()).ends(3);
    assert!(cut.to_string().contains("ended meanwhile"), "{cut}");
    assert!(is_locked(&home));
    home.json(&["verify"]).ends(0);
    home.json(&["config", "sign", "gateway.yaml"]).ends(0);
}

/// The writing end, once somebody waits for it.
fn writer_of(pipe: &Path) -> Option<File> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(pipe, flags, Mode::empty()).ok().map(File::from)
}

#[test]
fn a_holder_serves_its_own_home_alone() {
    let (home, other) = (TestHome::new(), TestHome::new());
    let _held = Unlocked::new(&home);
    let connect = |id: HomeId| {
        let mut client =
            Client::<HolderRequest, HolderReply>::connect(&home.file("run/auditor.sock")).expect("it listens");
        let hello = HolderRequest::Hello { protocol: PROTOCOL_VERSION, home: id };
        (client.call(hello).expect("an answer"), client)
    };
    let own = HomeId::of(&home.root()).expect("a directory");
    let (welcome, mut client) = connect(own);
    assert!(matches!(welcome, HolderReply::Welcome(_)), "{welcome:?}");
    assert!(matches!(client.call(HolderRequest::Status), Ok(HolderReply::Status(_))));

    let (refused, mut client) = connect(HomeId::of(&other.root()).expect("a directory"));
    assert!(matches!(refused, HolderReply::Refused(_)), "{refused:?}");
    // Without a greeting nothing is done, neither a verb nor a lock.
    assert!(matches!(client.call(HolderRequest::Lock), Ok(HolderReply::Refused(_))));
    let call = VerbCall::of_this_process().expect("a call");
    assert!(matches!(client.call(HolderRequest::Carry(call)), Ok(HolderReply::Refused(_))));

    // Its socket in another home is somebody else's; that home's own keys are used.
    let mut command = other.command();
    fs::hard_link(home.file("run/auditor.sock"), other.file("run/auditor.sock")).expect("a second name");
    Answer::of(command.args(["config", "sign", "gateway.yaml"])).ends(0);
    assert!(is_locked(&other));
}

#[test]
fn a_holder_carries_out_verbs_and_nothing_that_is_none_of_them() {
    let home = TestHome::new();
    let held = Unlocked::new(&home);
    let ask = |arguments: &[&str]| {
        let mut client =
            Client::<HolderRequest, HolderReply>::connect(&home.file("run/auditor.sock")).expect("it listens");
        let id = HomeId::of(&home.root()).expect("a directory");
        client.call(HolderRequest::Hello { protocol: PROTOCOL_VERSION, home: id }).expect("an answer");
        let call = VerbCall::new(arguments.iter().map(Into::into), home.root());
        client.call(HolderRequest::Carry(call)).expect("an answer")
    };
    for arguments in [
        &["init"][..],
        &["vault", "rotate-keys", "--role", "auditor"],
        &["vault", "change-passphrase"],
        &["hold"],
        &["ledger", "reindex"],
        &["sign", "these bytes"],
        &[],
    ] {
        assert!(matches!(ask(arguments), HolderReply::Refused(_)), "{arguments:?}");
    }
    assert!(matches!(ask(&["config", "sign", "gateway.yaml"]), HolderReply::Carried(_)));
    // Nonsense on the socket ends that connection and nothing else.
    let mut stream = UnixStream::connect(home.file("run/auditor.sock")).expect("it listens");
    stream.write_all(&[0xff; 64]).expect("written");
    drop(stream);
    bare(&home, &["config", "sign", "gateway.yaml"]).ends(0);
    assert!(runs(held.pid));
}

/// Fields of `/proc/<pid>/status`.
fn status_of(pid: u64, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field");
    line.trim_start_matches(':').trim().to_owned()
}

#[test]
fn a_process_with_keys_leaves_no_core_and_no_passphrase_where_others_look() {
    let home = TestHome::new();
    let (_up, started) = Up::start(&home);
    let held = Unlocked::new(&home);
    let monitor = started["monitor"]["pid"].as_u64().expect("a process");
    for pid in [monitor, held.pid] {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a line");
        assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
        // Files of a process that is not dumpable are root's, whoever runs it.
        let owner = fs::metadata(format!("/proc/{pid}/environ")).expect("a file").uid();
        assert_eq!(owner, 0);
        let cmdline = fs::read(format!("/proc/{pid}/cmdline")).expect("arguments");
        assert!(!contains(&cmdline, PASSPHRASE.as_bytes()));
        let locked = compartment_locked(&home, pid);
        assert_eq!(locked, status_of(pid, "VmLck") != "0 kB");
        if is_root() {
            assert!(locked, "nothing limits it here");
        }
    }
    if let Ok(environ) = fs::read(format!("/proc/{}/environ", held.pid)) {
        assert!(!contains(&environ, PASSPHRASE.as_bytes()), "the holder has no passphrase in its environment");
    }
    for name in ["run/auditor.log", "run/monitor.log"] {
        let log = fs::read(home.file(name)).unwrap_or_default();
        assert!(!contains(&log, PASSPHRASE.as_bytes()), "{name}");
    }
}

fn compartment_locked(home: &TestHome, pid: u64) -> bool {
    let data = home.json(&["vault", "status"]).ends(0).data();
    let all = data["compartments"].as_array().expect("a list").clone();
    let one = all.iter().find(|one| one["unlocked"]["pid"].as_u64() == Some(pid)).expect("its compartment");
    one["unlocked"]["memory_locked"].as_bool().expect("said")
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// As another process of the same user; tests that run as root take a user without any rights, since
/// root is kept out of nothing.
#[test]
fn another_process_of_the_same_user_cannot_read_the_memory_of_a_holder() {
    const USER: u32 = 60_123;
    let home = TestHome::new();
    let as_user = |mut command: Command| {
        if is_root() {
            command.uid(USER).gid(USER);
        }
        command
    };
    if is_root() {
        give(&home.beside("."), USER);
    }
    let amc = |arguments: &[&str]| {
        let mut command = home.command();
        command.arg("--json").args(arguments);
        Answer::of(&mut as_user(command))
    };
    let held = amc(&["vault", "unlock"]).ends(0).data()["auditor"]["pid"].as_u64().expect("a process");
    let try_read = |pid: u64| {
        let mut command = as_user(Command::new("sh"));
        let script =
            format!("head -c 1 /proc/{pid}/mem >/dev/null 2>&1; head -c 1 /proc/{pid}/environ && ls /proc/{pid}/fd");
        command.args(["-c", &script]).output().expect("sh runs").status.success()
    };
    let mut control = as_user(Command::new("sleep"));
    let mut control = control.arg("60").spawn().expect("sleep runs");
    let (of_control, of_holder) = (try_read(u64::from(control.id())), try_read(held));
    control.kill().expect("it runs");
    control.wait().expect("it ended");
    amc(&["vault", "lock"]).ends(0);
    assert!(of_control, "an ordinary process of the same user is readable, so the attempt can succeed");
    assert!(!of_holder, "a process with keys is not");
}

/// Gives a directory and all in it to a user.
fn give(dir: &Path, user: u32) {
    let mut pending: Vec<PathBuf> = vec![dir.canonicalize().expect("a directory")];
    while let Some(path) = pending.pop() {
        chown(&path, Some(user), Some(user)).expect("root may");
        if path.is_dir() {
            pending.extend(fs::read_dir(&path).expect("a directory").map(|entry| entry.expect("an entry").path()));
        }
    }
}

#[test]
fn both_roles_are_unlocked_and_locked_by_one_command_each() {
    let home = TestHome::new();
    let log = File::create(home.beside("unlock.log")).expect("a file");
    let output = home.command().args(["--json", "vault", "unlock", "--role", "all"]).stderr(log).output();
    let unlocked = Answer::from_output(output.expect("amc starts"), "amc vault unlock".to_owned());
    let status = bare(&home, &["vault", "status"]);
    let locked = bare(&home, &["vault", "lock"]).ends(0).data();
    unlocked.ends(0);
    let status = status.ends(0).data();
    let all = status["compartments"].as_array().expect("a list");
    assert!(all.iter().all(|one| one["unlocked"]["pid"].is_u64()), "{status}");
    assert_eq!(locked["locked"], serde_json::json!(["auditor", "monitor"]));
    let status = bare(&home, &["vault", "status"]).ends(0).data();
    let all = status["compartments"].as_array().expect("a list");
    assert!(all.iter().all(|one| one["unlocked"] == Value::Null), "{status}");
    assert_eq!(home.json(&["status"]).ends(0).data()["monitor"], Value::Null);
}

/// An agent of the holder's user reaches its socket, and that is found.
#[test]
fn the_probe_tries_the_holder_too() {
    let home = TestHome::new();
    let _held = Unlocked::new(&home);
    home.wrap_sh("true").ends(0);
    let probes = home.evidence_of("boundary_probe");
    let attempts: Vec<&Value> =
        probes.iter().flat_map(|probe| probe["fields"]["attempts"].as_array().expect("a list")).collect();
    for subject in ["connect to run/auditor.sock", "ask run/auditor.sock for a signature", "signal amc-auditor"] {
        let tried = attempts.iter().find(|attempt| attempt["subject"] == subject);
        assert_eq!(tried.unwrap_or_else(|| panic!("not tried: {subject}"))["outcome"], "reached", "{subject}");
    }
}

/// What `status` says while a holder is there.
#[test]
fn the_status_says_which_process_and_for_how_long() {
    let home = TestHome::new();
    let held = Unlocked::with(&home, &["--idle", "2h"]);
    let data = bare(&home, &["vault", "status"]).ends(0).data();
    let all = data["compartments"].as_array().expect("a list");
    let auditor = all.iter().find(|one| one["role"] == "auditor").expect("its compartment");
    assert_eq!(auditor["unlocked"]["pid"].as_u64(), Some(held.pid));
    let left = auditor["unlocked"]["left_s"].as_u64().expect("a number");
    assert!((1..=7200).contains(&left), "{left}");
    assert_eq!(all.iter().find(|one| one["role"] == "monitor").expect("its")["unlocked"], Value::Null);
}
