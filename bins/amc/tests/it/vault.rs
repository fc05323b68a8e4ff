//! The vault from outside: its status, permissions, passphrases, compartments that are missing, and
//! what the processes that hold keys do to protect themselves.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::answer::Answer;
use crate::home::{PASSPHRASE, TestHome, bare_command};
use crate::services::Up;

/// A passphrase file of mode 0600 beside the home.
fn words(home: &TestHome, name: &str, text: &str) -> String {
    let path = home.beside(name);
    fs::write(&path, text).expect("a small file");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("closed");
    path.display().to_string()
}

/// `amc` with this passphrase file and no variable.
fn with_file(home: &TestHome, file: &str, arguments: &[&str]) -> Answer {
    let mut command = home.command();
    command.env_remove("AMC_VAULT_PASSPHRASE").args(["--json", "--passphrase-file", file]);
    Answer::of(command.args(arguments))
}

fn compartment(data: &Value, role: &str) -> Value {
    let found = data["compartments"].as_array().expect("a list").iter().find(|one| one["role"] == role);
    found.unwrap_or_else(|| panic!("no compartment of the {role}: {data}")).clone()
}

#[test]
fn the_status_tells_the_cost_of_a_guess_and_who_is_unlocked() {
    let home = TestHome::new();
    let status = || {
        let mut command = bare_command(&home.beside("."));
        Answer::of(command.env("AMC_HOME", home.root()).args(["--json", "vault", "status"])).ends(0).data()
    };
    let data = status();
    for role in ["monitor", "auditor"] {
        let one = compartment(&data, role);
        let n = one["scrypt"]["n"].as_u64().expect("a number");
        assert!(n >= 1 << 17 && n.is_power_of_two(), "{one}");
        assert_eq!(one["scrypt"]["memory_bytes"].as_u64(), Some(128 * 8 * n), "{one}");
        assert_eq!((&one["unlocked"], &one["intact"]), (&Value::Null, &json!(true)), "{one}");
    }
    let (up, started) = Up::start(&home);
    let monitor = compartment(&status(), "monitor");
    assert_eq!(monitor["unlocked"]["pid"], started["monitor"]["pid"]);
    assert_eq!(compartment(&status(), "auditor")["unlocked"], Value::Null);
    drop(up);
    assert_eq!(compartment(&status(), "monitor")["unlocked"], Value::Null);
    let answer = home.amc(&["vault", "status"]).ends(0);
    let text = answer.text();
    assert!(text.contains("each guess of the passphrase costs") && text.contains("MiB of memory"), "{text}");
}

#[test]
fn a_mode_open_to_others_is_refused_with_the_chmod_that_mends_it() {
    for (path, loose, tight) in
        [("vault.amcvault", 0o644, "600"), ("", 0o755, "700"), ("run", 0o750, "700"), ("logs", 0o711, "700")]
    {
        let home = TestHome::new();
        let path = home.file(path);
        fs::set_permissions(&path, Permissions::from_mode(loose)).expect("chmod");
        let answer = home.json(&["vault", "status"]);
        assert_ne!(answer.code, 0, "{}: {answer}", path.display());
        assert!(answer.errors().contains("VAULT_PERMISSIONS"), "{}: {answer}", path.display());
        let told = answer.to_string();
        assert!(told.contains(&format!("chmod {tight}")), "{told}");
    }
}

#[test]
fn a_changed_passphrase_opens_both_compartments_and_the_old_one_none() {
    let home = TestHome::new();
    let (old, new) = (words(&home, "old", PASSPHRASE), words(&home, "new", "quite other words"));
    let change = ["vault", "change-passphrase", "--new-passphrase-file", &new];
    assert_eq!(with_file(&home, &old, &change).ends(0).data()["roles"], json!(["monitor", "auditor"]));
    for (verb, locked) in [(["config", "sign", "gateway.yaml"], "auditor"), (["vault", "secret", "list"], "monitor")] {
        let refused = with_file(&home, &old, &verb).ends(3);
        assert!(refused.errors().contains("VAULT_LOCKED"), "{locked}: {refused}");
        with_file(&home, &new, &verb).ends(0);
    }
    // One role alone; then one passphrase does not open both, and it is not said which it opens.
    let third = words(&home, "third", "the auditor's own");
    let change = ["vault", "change-passphrase", "--role", "auditor", "--new-passphrase-file", &third];
    with_file(&home, &new, &change).ends(0);
    let told = [&new, &third].map(|file| {
        let refused = with_file(&home, file, &["vault", "change-passphrase", "--new-passphrase-file", &old]).ends(3);
        assert!(refused.errors().contains("VAULT_LOCKED"), "{refused}");
        refused.data()["error"].as_str().expect("a sentence").to_owned()
    });
    assert_eq!(told[0], told[1]);
    with_file(&home, &third, &["config", "sign", "gateway.yaml"]).ends(0);
    home.assert_tidy();
}

#[test]
fn passphrases_that_cannot_be_meant_change_nothing() {
    let home = TestHome::new();
    let before = fs::read(home.file("vault.amcvault")).expect("a vault");
    let (old, empty) = (words(&home, "old", PASSPHRASE), words(&home, "empty", "\n"));
    let change = |new: &[&str]| with_file(&home, &old, &[&["vault", "change-passphrase"], new].concat());
    assert!(change(&["--new-passphrase-file", &empty]).ends(2).to_string().contains("empty"));
    change(&["--new-passphrase-file", "/nonexistent/file"]).ends(2);
    // The variable holds the old one and is no source of the new.
    assert!(home.json(&["vault", "change-passphrase"]).ends(3).to_string().contains("--new-passphrase-file"));
    let mut both = home.command();
    both.args(["--json", "--passphrase-file", "-", "vault", "change-passphrase", "--new-passphrase-file", "-"]);
    assert!(Answer::of(&mut both).ends(2).to_string().contains("standard input"));
    assert_eq!(fs::read(home.file("vault.amcvault")).expect("a vault"), before);
}

#[test]
fn a_role_that_a_home_lacks_is_added_with_its_log_and_its_pins_and_never_twice() {
    let home = TestHome::new();
    let before = fs::read(home.file("vault.amcvault")).expect("a vault");
    assert!(home.json(&["vault", "init"]).ends(2).to_string().contains("no role lacks keys"));
    assert!(home.json(&["vault", "init", "--role", "auditor"]).ends(2).to_string().contains("already"));
    assert_eq!(fs::read(home.file("vault.amcvault")).expect("a vault"), before);

    let alone = home.beside("alone").display().to_string();
    let amc = |arguments: &[&str]| home.json(&[&["--home", &alone], arguments].concat());
    amc(&["init", "--role", "auditor", "--name", "grown", "--agent", "support"]).ends(0);
    let made = amc(&["vault", "init"]).ends(0).data();
    assert_eq!((&made["role"], &made["succeed"]), (&json!("monitor"), &json!(false)), "{made}");
    let policy = fs::read_to_string(PathBuf::from(&alone).join("trust.policy")).expect("a policy");
    assert!(policy.contains(made["log_key"].as_str().expect("a key")), "{policy}");
    assert!(policy.contains("group roles any auditor-witness monitor-witness"), "{policy}");
    // The monitor that was added works: it records, and both witness each other.
    amc(&["gateway", "init", "--listen", "127.0.0.1:0"]).ends(0);
    let wrap = ["--home", &alone, "wrap", "--agent", "support", "--isolation", "none", "--", "true"];
    assert!(home.amc(&wrap).ends(0).stderr.contains("cosigned by the auditor"));
    amc(&["verify"]).ends(0);
    assert!(amc(&["vault", "init"]).ends(2).to_string().contains("no role lacks keys"));
}

/// Answers every question for a passphrase on a terminal of its own, and prints what was shown.
const TERMINAL: &str = r#"
import os, pty, select, sys, time
answer, program, *arguments = sys.argv[1:]
child, terminal = pty.fork()
if child == 0:
    os.execv(program, [program] + arguments)
shown, answered, deadline = b"", 0, time.time() + 60
while time.time() < deadline and os.waitpid(child, os.WNOHANG) == (0, 0):
    if select.select([terminal], [], [], 0.05)[0]:
        try:
            shown += os.read(terminal, 4096)
        except OSError:
            break
    # A prompt is a last line without an end, once echo is off.
    last = shown.rsplit(b"\n", 1)[-1]
    if last.endswith(b": ") and shown.count(b": ") > answered:
        answered = shown.count(b": ")
        time.sleep(0.1)
        os.write(terminal, answer.encode() + b"\n")
else:
    if time.time() >= deadline:
        sys.exit("nobody answered: " + shown.decode())
sys.stdout.write(shown.decode())
"#;

/// What is started in the background asks on the terminal of whoever starts it.
#[test]
fn a_passphrase_is_asked_for_at_the_terminal_and_not_shown() {
    let home = TestHome::new();
    let at_terminal = |arguments: &[&str]| {
        let mut command = std::process::Command::new("python3");
        command.args(["-c", TERMINAL, PASSPHRASE]).arg(amc_testkit::binary("amc")).args(arguments);
        command.env_remove("AMC_VAULT_PASSPHRASE").env("AMC_HOME", home.root());
        let output = command.output().expect("python3 runs");
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{shown}\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(!shown.contains(PASSPHRASE), "{shown}");
        shown
    };
    let shown = at_terminal(&["up"]);
    let running = home.json(&["status"]).ends(0).data();
    home.json(&["down"]).ends(0);
    assert!(shown.contains("Passphrase of the monitor") && running["monitor"]["pid"].is_u64(), "{shown}\n{running}");
    let shown = at_terminal(&["vault", "unlock"]);
    let locked = home.json(&["vault", "lock"]).ends(0).data();
    assert!(shown.contains("Passphrase of the auditor") && shown.contains("unlocked in process"), "{shown}");
    assert_eq!(locked["locked"], json!(["auditor"]));
}

#[test]
fn a_compartment_for_a_role_that_lives_elsewhere_is_not_made() {
    let home = TestHome::new();
    fs::remove_dir_all(home.file("logs/evidence")).expect("as on the auditor's own machine");
    fs::remove_file(home.file("vault.amcvault")).expect("a vault");
    let refused = home.json(&["vault", "init", "--role", "monitor"]).ends(2);
    assert!(refused.to_string().contains("in another home"), "{refused}");
    assert!(!home.file("vault.amcvault").exists());
}
