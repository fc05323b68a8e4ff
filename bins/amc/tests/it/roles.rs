//! Roles apart: two homes of two users, who hand each other policies and copies of logs and nothing
//! else; and what pinning a key takes and refuses.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use amc_testkit::binary;
use tempfile::TempDir;

use crate::answer::Answer;
use crate::home::{PASSPHRASE, TestHome, bare_command, copy_dir, files_under};
use crate::probe::mode;

/// One role: a home in a directory that is its user's alone.
struct Apart {
    dir: PathBuf,
    home: PathBuf,
    uid: Option<u32>,
    passphrase: String,
}

impl Apart {
    fn new(base: &Path, role: &str, uid: Option<u32>) -> Self {
        let dir = base.join(role);
        fs::create_dir(&dir).expect("a directory");
        mode(&dir, 0o700);
        chown(&dir, uid, uid).expect("root gives directories away");
        let apart = Apart { home: dir.join("home"), dir, uid, passphrase: format!("{PASSPHRASE} of the {role}") };
        apart.amc(&["init", "--role", role, "--name", "apart"]).ends(0);
        apart
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(binary(program));
        let like = bare_command(&self.dir);
        command.env_clear().envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("AMC_VAULT_PASSPHRASE", &self.passphrase).env("AMC_HOME", &self.home);
        command.current_dir(&self.dir).stdin(Stdio::null());
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command
    }

    fn amc(&self, arguments: &[&str]) -> Answer {
        Answer::of(self.command("amc").args(arguments))
    }

    /// Puts a copy of somebody's files into the home, for its user.
    fn takes(&self, from: &Path, to: &str) {
        let to = self.home.join(to);
        if from.is_dir() {
            if to.exists() {
                fs::remove_dir_all(&to).expect("an older copy goes");
            }
            copy_dir(from, &to);
        } else {
            fs::copy(from, &to).expect("a copy");
        }
        own(&to, self.uid);
    }
}

fn own(path: &Path, uid: Option<u32>) {
    chown(path, uid, uid).expect("root gives files away");
    if path.is_dir() {
        fs::read_dir(path).expect("a directory").for_each(|entry| own(&entry.expect("an entry").path(), uid));
    }
}

/// A copy that everybody can read and nobody who is not root can write.
fn published(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).expect("an older copy goes");
    }
    copy_dir(from, to);
    open_up(to);
}

fn open_up(path: &Path) {
    chown(path, Some(0), Some(0)).expect("root takes files");
    let directory = path.is_dir();
    mode(path, if directory { 0o555 } else { 0o444 });
    if directory {
        fs::read_dir(path).expect("a directory").for_each(|entry| open_up(&entry.expect("an entry").path()));
    }
}

/// Two users where root can make two; else one, with the same files and no more between them.
fn users() -> [Option<u32>; 2] {
    let (first, second) = (61_011, 61_012);
    let runs = |uid: u32| {
        let version = Command::new(binary("amc")).arg("--version").uid(uid).gid(uid).stdout(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    };
    if rustix::process::geteuid().is_root() && runs(first) { [Some(first), Some(second)] } else { [None, None] }
}

#[test]
fn monitor_and_auditor_in_homes_of_two_users_hand_each_other_policies_and_copies() {
    let users = users();
    if users[0].is_none() {
        println!("SKIPPED: only root makes two users of one test, and they must be able to run amc");
        return;
    }
    let base = TempDir::new().expect("a directory");
    mode(base.path(), 0o755);
    let (monitor, auditor) =
        (Apart::new(base.path(), "monitor", users[0]), Apart::new(base.path(), "auditor", users[1]));
    // Neither reads what is the other's.
    for (one, other) in [(&monitor, &auditor), (&auditor, &monitor)] {
        let mut cat = Command::new("cat");
        let uid = one.uid.expect("two users");
        let read = cat.arg(other.home.join("vault.amcvault")).uid(uid).gid(uid).stderr(Stdio::null()).status();
        assert!(!read.expect("cat starts").success());
    }

    // Policies travel as files, or as their text.
    let policy = |of: &Apart, to: &str| {
        let path = base.path().join(to);
        fs::write(&path, of.amc(&["trust", "export"]).ends(0).text()).expect("a file");
        mode(&path, 0o644);
        path
    };
    let (of_monitor, of_auditor) = (policy(&monitor, "monitor.policy"), policy(&auditor, "auditor.policy"));
    monitor.amc(&["trust", "pin", &of_auditor.display().to_string()]).ends(0);
    auditor.amc(&["trust", "pin", &of_monitor.display().to_string()]).ends(0);

    // The auditor signs what the monitor works by.
    auditor.amc(&["gateway", "init", "--listen", "127.0.0.1:0"]).ends(0);
    for name in ["amc.yaml", "amc.yaml.sig", "gateway.yaml", "gateway.yaml.sig"] {
        monitor.takes(&auditor.home.join(name), name);
    }
    let wrapped = monitor.amc(&["wrap", "--agent", "bot", "--isolation", "namespaces", "--", "true"]);
    if wrapped.code == 125 {
        println!("SKIPPED: no user namespaces on this machine: {}", wrapped.stderr);
        return;
    }
    wrapped.ends(0);

    // It scores a copy that it cannot write.
    let evidence = base.path().join("evidence");
    let at = evidence.display().to_string();
    published(&monitor.home.join("logs/evidence"), &evidence);
    let before: Vec<(PathBuf, Vec<u8>)> =
        files_under(&evidence).into_iter().map(|path| (path.clone(), fs::read(path).expect("a file"))).collect();
    let run = auditor.amc(&["--json", "run", "--agent", "bot", "--evidence", &at]).ends(0);
    assert_eq!(run.data()["status"], "VALID", "{run}");
    let run_id = run.data()["run_id"].as_str().expect("a run").to_owned();
    auditor.amc(&["verify", "--evidence", &at]).ends(0);
    let after: Vec<(PathBuf, Vec<u8>)> =
        files_under(&evidence).into_iter().map(|path| (path.clone(), fs::read(path).expect("a file"))).collect();
    assert_eq!(before, after);

    // The monitor cosigns a copy of the audit log; with what it recorded the run can be exported.
    monitor.takes(&auditor.home.join("logs/audit"), "logs/audit");
    Answer::of(monitor.command("amc-monitor").arg("cosign")).ends(0);
    published(&monitor.home.join("logs/evidence"), &evidence);
    let bundle = auditor.dir.join("bot.amcbundle").display().to_string();
    let export = ["bundle", "export", "--agent", "bot", "--run", &run_id, "--out", &bundle, "--evidence", &at];
    auditor.amc(&export).ends(0);

    // A third, who has the policy of one of them by another way.
    let trust = policy(&auditor, "both.policy").display().to_string();
    let third = TempDir::new().expect("a directory");
    Answer::of(bare_command(third.path()).args(["bundle", "verify", &bundle, "--trust", &trust])).ends(0);
    let stranger = of_monitor.display().to_string();
    Answer::of(bare_command(third.path()).args(["bundle", "verify", &bundle, "--trust", &stranger])).ends(1);
}

#[test]
fn a_pinned_name_keeps_its_key_unless_somebody_says_otherwise() {
    let base = TempDir::new().expect("a directory");
    let (first, impostor) = (Apart::new(base.path(), "monitor", None), base.path().join("elsewhere"));
    fs::create_dir(&impostor).expect("a directory");
    let impostor = Apart::new(&impostor, "monitor", None);
    let exported = impostor.dir.join("policy").display().to_string();
    impostor.amc(&["trust", "export", "--out", &exported]).ends(0);
    let policy = || fs::read(first.home.join("trust.policy")).expect("a policy");
    let before = policy();

    let refused = first.amc(&["trust", "pin", &exported]).ends(1);
    refused.says(&["apart/evidence", "another key", "--replace", "Nothing was changed"]);
    assert_eq!(policy(), before);
    let key = impostor.amc(&["--json", "trust", "show"]).ends(0).data()["logs"][0]["key"].clone();
    let key = key.as_str().expect("a key").to_owned();
    first.amc(&["trust", "pin", &key]).ends(1);
    assert_eq!(policy(), before);

    let pinned = first.amc(&["--json", "trust", "pin", &exported, "--replace"]).ends(0);
    let states: Vec<_> =
        pinned.data()["pins"].as_array().expect("a list").iter().map(|it| it["state"].clone()).collect();
    assert_eq!(states, ["replaced", "replaced"]);
    assert!(String::from_utf8_lossy(&policy()).contains(&key));
    // The same again changes nothing.
    let after = policy();
    first.amc(&["trust", "pin", &key]).ends(0);
    assert_eq!(policy(), after);
}

#[test]
fn nothing_inside_an_artifact_and_nothing_broken_becomes_a_pin() {
    let scored = TestHome::scored();
    let home = &scored.home;
    let before = fs::read(home.file("trust.policy")).expect("a policy");
    let bundle = scored.bundle.display().to_string();
    let empty = home.beside("empty").display().to_string();
    fs::write(&empty, "").expect("a file");
    let vault = home.file("vault.amcvault").display().to_string();
    let broken = "acme-test/evidence+00000000+AZLNMs4CAZOL6zJPaMQk5NmsrEDP8gyh6Ul2SBJbCog7";
    for given in [bundle.as_str(), &empty, &vault, "no-such-file", broken] {
        home.amc(&["trust", "pin", given]).ends(2);
        home.amc(&["trust", "pin", given, "--replace"]).ends(2);
        assert_eq!(fs::read(home.file("trust.policy")).expect("a policy"), before, "{given}");
    }
    let policy = home.file("trust.policy");
    assert_eq!(fs::metadata(policy).expect("it is there").permissions().mode() & 0o777, 0o600);
}
