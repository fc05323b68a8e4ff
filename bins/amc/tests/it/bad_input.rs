//! Bad input: one clear sentence that says what to do, the right exit code, nothing half-written.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use amc_testkit::binary;
use serde_json::json;

use crate::answer::Answer;
use crate::home::{TestHome, bare_command, model, set_secret};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("its mode can be set");
}

#[test]
fn a_missing_home() {
    let dir = tempfile::tempdir().expect("a directory");
    let nowhere = dir.path().join("nowhere").display().to_string();
    for arguments in [&["verify"][..], &["status"], &["up"], &["run", "--agent", "support"], &["vault", "status"]] {
        let answer = Answer::of(bare_command(dir.path()).args(arguments).args(["--home", &nowhere])).ends(2);
        answer.says(&["no AMC home at", &nowhere, "amc init"]);
    }
    let wrap = ["--home", &nowhere, "wrap", "--agent", "a", "--", "true"];
    Answer::of(bare_command(dir.path()).args(wrap)).ends(125).says(&["no AMC home at", "amc init"]);
    Answer::of(bare_command(dir.path()).arg("verify")).ends(2).says(&["no AMC home at", "amc init"]);
    assert!(!Path::new(&nowhere).exists());
}

#[test]
fn a_home_whose_path_is_too_long_for_a_socket() {
    let home = TestHome::new();
    let deep = home.beside(&"deep/".repeat(20));
    fs::create_dir_all(&deep).expect("directories");
    let moved = deep.join("home");
    fs::rename(home.root(), &moved).expect("it moves");
    let moved = moved.display().to_string();
    home.amc(&["--home", &moved, "verify"]).ends(0);
    home.amc(&["--home", &moved, "up"]).ends(3).says(&["too many for a socket", "shorter path"]);
    let wrap = ["--home", &moved, "wrap", "--agent", "support", "--isolation", "none", "--", "true"];
    home.amc(&wrap).ends(125).says(&["shorter path"]);
}

#[test]
fn a_file_where_the_home_should_be() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("home");
    fs::write(&file, "mine").expect("a file");
    let name = file.display().to_string();
    let verify = Answer::of(bare_command(dir.path()).args(["verify", "--home", &name])).ends(2);
    verify.says(&["is not a directory", &name]);
    let mut init = bare_command(dir.path());
    let init = Answer::of(init.env("AMC_VAULT_PASSPHRASE", "pass phrase").args(["init", "--home", &name])).ends(2);
    init.says(&["exists already", "--home"]);
    assert_eq!(fs::read(&file).expect("it is still there"), b"mine");
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 1);
}

#[test]
fn a_home_that_others_can_read() {
    let home = TestHome::new();
    set_mode(&home.root(), 0o755);
    let root = home.root().display().to_string();
    let chmod = format!("chmod 700 {root}");
    home.amc(&["verify"]).ends(2).says(&["has mode 755", &chmod]);
    home.amc(&["run", "--agent", "support"]).ends(2).says(&[&chmod]);
    home.amc(&["wrap", "--agent", "support", "--", "true"]).ends(125).says(&[&chmod]);
    set_mode(&home.root(), 0o700);
    home.amc(&["verify"]).ends(0);
}

#[test]
fn a_vault_that_others_can_read() {
    let home = TestHome::new();
    let vault = home.file("vault.amcvault");
    set_mode(&vault, 0o644);
    let answer = home.json(&["run", "--agent", "support"]).ends(3);
    assert!(answer.errors().contains("VAULT_PERMISSIONS"), "{answer}");
    assert!(answer.data()["error"].as_str().expect("why").contains("chmod 600"), "{answer}");
}

#[test]
fn no_passphrase_and_a_wrong_one() {
    let home = TestHome::new();
    let unlocked_verbs: [&[&str]; 5] = [
        &["run", "--agent", "support"],
        &["config", "sign", "gateway.yaml"],
        &["gateway", "init"],
        &["vault", "secret", "list"],
        &["up"],
    ];
    let before = fs::read(home.file("gateway.yaml")).expect("it can be read");
    for arguments in unlocked_verbs {
        let mut command = home.command();
        let locked = Answer::of(command.env_remove("AMC_VAULT_PASSPHRASE").args(arguments)).ends(3);
        assert!(locked.stdout.is_empty(), "{locked}");
        for word in ["locked", "--passphrase-file", "AMC_VAULT_PASSPHRASE"] {
            assert!(locked.stderr.contains(word), "{word} is missing: {locked}");
        }
    }
    // The monitor's compartment and the auditor's.
    for arguments in [&["up"][..], &["gateway", "init"]] {
        let wrong = Answer::of(home.command().env("AMC_VAULT_PASSPHRASE", "not this one").args(arguments)).ends(3);
        assert!(wrong.stderr.contains("passphrase"), "{wrong}");
    }
    let mut wrong = home.command();
    let wrong = wrong.env("AMC_VAULT_PASSPHRASE", "not this one").args(["--json", "run", "--agent", "support"]);
    assert_eq!(Answer::of(wrong).ends(3).errors().into_iter().collect::<Vec<_>>(), ["VAULT_LOCKED"]);
    assert_eq!(fs::read(home.file("gateway.yaml")).expect("it can be read"), before);
    let missing = home.beside("no-such-file").display().to_string();
    home.amc(&["--passphrase-file", &missing, "run", "--agent", "support"])
        .ends(2)
        .says(&["passphrase file", &missing]);
    home.amc(&["verify"]).ends(0);
    home.assert_tidy();
}

#[test]
fn a_passphrase_file_opens_the_vault() {
    let home = TestHome::new();
    let file = home.beside("passphrase");
    fs::write(&file, format!("{}\n", crate::home::PASSPHRASE)).expect("a file");
    let mut command = home.command();
    command.env_remove("AMC_VAULT_PASSPHRASE").arg("--passphrase-file").arg(&file);
    Answer::of(command.args(["vault", "secret", "list"])).ends(0);
}

#[test]
fn a_damaged_vault() {
    let home = TestHome::new();
    let vault = home.file("vault.amcvault");
    let whole = fs::read(&vault).expect("it can be read");
    // The magic, and a vault that is cut.
    let mut magic = whole.clone();
    magic[0] ^= 1;
    for damaged in [&magic[..], &whole[..whole.len() / 2], &[]] {
        fs::write(&vault, damaged).expect("it can be written");
        let answer = home.json(&["run", "--agent", "support"]).ends(2);
        assert_eq!(answer.errors().into_iter().collect::<Vec<_>>(), ["VAULT_DAMAGED"], "{answer}");
        home.amc(&["wrap", "--agent", "support", "--", "true"]).ends(125);
        assert_eq!(fs::read(&vault).expect("it can be read"), damaged, "nothing repairs it silently");
    }
    // A byte of a ciphertext cannot be told from a wrong passphrase by everybody; it never opens.
    let mut flipped = whole.clone();
    *flipped.last_mut().expect("bytes") ^= 1;
    fs::write(&vault, &flipped).expect("it can be written");
    let answer = home.json(&["run", "--agent", "support"]);
    assert!([2, 3].contains(&answer.code), "{answer}");
    assert!(answer.errors().iter().all(|code| code.starts_with("VAULT_")) && !answer.errors().is_empty(), "{answer}");
    fs::write(&vault, &whole).expect("it can be written");
    fs::remove_file(&vault).expect("it was there");
    let gone = home.json(&["run", "--agent", "support"]).ends(2);
    assert!(gone.data()["error"].as_str().expect("why").contains("vault.amcvault"), "{gone}");
    home.assert_tidy();
}

#[test]
fn what_is_no_bundle() {
    let scored = TestHome::scored();
    let whole = fs::read(&scored.bundle).expect("it can be read");
    let file = scored.home.beside("input");
    let name = file.display().to_string();
    let policy = scored.home.file("agents/support/gatePolicy.json").display().to_string();
    let gate = ["gate", "--bundle", &name, "--policy", &policy];
    for bytes in [&b""[..], b"PK\x03\x04 something else", &whole[..100], &whole[..700], &[0; 4096]] {
        fs::write(&file, bytes).expect("it can be written");
        let verify = scored.home.json(&["bundle", "verify", &name]).ends(2);
        assert_eq!(verify.errors().into_iter().collect::<Vec<_>>(), ["BUNDLE_MALFORMED"], "{verify}");
        scored.home.amc(&["bundle", "verify", &name]).ends(2).says(&["BUNDLE_MALFORMED", &name, "is no bundle"]);
        scored.home.amc(&["bundle", "inspect", &name]).ends(2).says(&[&name]);
        scored.home.amc(&gate).ends(2).says(&[&name]);
    }
    let missing = scored.home.beside("missing.amcbundle").display().to_string();
    scored.home.amc(&["bundle", "verify", &missing]).ends(2).says(&[&missing, "No such file"]);
    let dir = scored.home.beside("").display().to_string();
    scored.home.amc(&["bundle", "verify", &dir]).ends(2).says(&[&dir]);
}

#[test]
fn a_bundle_cut_off() {
    let scored = TestHome::scored();
    let whole = fs::read(&scored.bundle).expect("it can be read");
    let file = scored.home.beside("input");
    let name = file.display().to_string();
    let policy = scored.home.file("agents/support/gatePolicy.json").display().to_string();
    // Its manifest is authentic and the rest does not hold up to it, so verification fails.
    for len in [whole.len() - 1, whole.len() - 1024, whole.len() / 2, whole.len() / 3] {
        fs::write(&file, &whole[..len]).expect("it can be written");
        let verify = scored.home.json(&["bundle", "verify", &name]).ends(1);
        assert_eq!(verify.errors().into_iter().collect::<Vec<_>>(), ["BUNDLE_MALFORMED"], "{len} bytes: {verify}");
        let value = verify.json();
        let message = value["findings"][0]["message"].as_str().expect("a message");
        assert!(message.contains("cut off") && message.contains("fetch it again"), "{message}");
        let gate = scored.home.json(&["gate", "--bundle", &name, "--policy", &policy]).ends(1);
        assert_eq!(gate.data()["decision"], "deny", "{gate}");
    }
}

#[test]
fn what_is_no_policy() {
    let scored = TestHome::scored();
    let bundle = scored.bundle.display().to_string();
    let path = "agents/support/gatePolicy.json";
    let policy = scored.home.file(path);
    let name = policy.display().to_string();
    let gate = ["gate", "--bundle", &bundle, "--policy", &name];
    for text in ["", "{", "[]", r#"{"agentId": "support", "noSuchKey": 1}"#, r#"{"requireStatusValid": false}"#] {
        fs::write(&policy, text).expect("it can be written");
        // The old signature is for other bytes, so it denies; nobody signs the new ones.
        let denied = scored.home.json(&gate).ends(1);
        assert_eq!(denied.data()["decision"], "deny", "{denied}");
        assert!(denied.errors().contains("CONFIG_SIGNATURE_INVALID"), "{denied}");
        scored.home.amc(&["config", "sign", path]).ends(2).says(&["the gate policy"]);
    }
    fs::remove_file(&policy).expect("it was there");
    scored.home.amc(&gate).ends(2).says(&[&name]);
    scored.home.assert_tidy();
}

#[test]
fn an_agent_that_was_never_recorded() {
    let scored = TestHome::scored();
    let before = scored.home.json(&["ledger", "tail", "--log", "audit", "-n", "1000"]).ends(0).data();
    let runs = |data: &serde_json::Value| {
        data["events"].as_array().expect("a list").iter().filter(|event| event["kind"] == "run_recorded").count()
    };
    // `helper` has a directory and no session; `nobody` is a slip of the pen.
    for agent in ["nobody", "helper"] {
        let answer = scored.home.amc(&["run", "--agent", agent]).ends(2);
        answer.says(&[&format!("no session of {agent}"), "it has some of support", "amc wrap --agent"]);
    }
    let after = scored.home.json(&["ledger", "tail", "--log", "audit", "-n", "1000"]).ends(0).data();
    assert_eq!(runs(&before), runs(&after), "a run that never was is recorded");
    assert_eq!(fs::read_dir(scored.home.file("runs")).expect("a directory").count(), 1);
    // An agent with sessions and none in the window gets a report that says so.
    let empty = scored.home.json(&["run", "--agent", "support", "--as-of", "2020-01-01T00:00:00Z"]);
    assert!([0, 1].contains(&empty.code), "{empty}");
    assert_eq!(empty.data()["overall_bp"], 0);
    let data = scored.home.json(&["history", "--agent", "nobody"]).ends(0).data();
    assert_eq!(data["runs"], json!([]));
    scored.home.json(&["verify"]).ends(0);
}

#[test]
fn wrong_values_of_flags() {
    let home = TestHome::new();
    let calls: [(&[&str], &[&str]); 9] = [
        (&["run", "--agent", "support", "--window", "14"], &["14d"]),
        (&["run", "--agent", "support", "--as-of", "yesterday"], &["yesterday"]),
        (&["report", "run-1"], &["run-1"]),
        (&["report", "run-00000000000000000000000000000000"], &["amc history"]),
        (&["gateway", "init", "--provider", "nobody"], &["nobody=BASE_URL", "groq"]),
        (&["gateway", "init", "--allow", "https://h"], &["egress.allow"]),
        (&["gateway", "init", "--provider", "openai=ftp://x"], &["http"]),
        (&["config", "sign", "../outside"], &["not a file of this workspace"]),
        (&["ledger", "prove", "--event", "12", "--out", "x"], &["12"]),
    ];
    for (arguments, words) in calls {
        let answer = home.amc(arguments).ends(2);
        assert!(answer.stdout.is_empty(), "{answer}");
        words.iter().for_each(|word| assert!(answer.stderr.contains(word), "{word:?} is missing: {answer}"));
    }
    home.amc(&["verify"]).ends(0);
    home.assert_tidy();
}

#[test]
fn a_port_in_use() {
    let home = TestHome::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("an address").to_string();
    let up = crate::services::Up::start(&home);
    let answer = home.amc(&["gateway", "start", "--listen", &port]).ends(3);
    answer.says(&[&port, "in use"]);
    drop(up);

    // Without a monitor it says what is missing.
    let alone = home.amc(&["gateway", "start"]).ends(3);
    alone.says(&["monitor", "amc up"]);
}

#[test]
fn a_provider_that_is_down() {
    let home = TestHome::new();
    // A port that was free a moment ago, and where nobody listens.
    let address = std::net::TcpListener::bind("127.0.0.1:0").and_then(|at| at.local_addr()).expect("a free port");
    home.route_to(address);
    let agent = binary("amc-demo-agent").display().to_string();
    let answer = home.amc(&["wrap", "--agent", "support", "--isolation", "none", "--", &agent]).ends(1);
    assert!(answer.stderr.contains("502 Bad Gateway"), "{answer}");
    assert!(answer.stderr.contains(r#""code":"upstream_failed""#), "the answer has OpenAI's shape: {answer}");
    let (requests, responses) = (home.evidence_of("llm_request"), home.evidence_of("llm_response"));
    assert_eq!((requests.len(), responses.len()), (1, 1));
    assert_eq!(requests[0]["fields"]["request_id"], responses[0]["fields"]["request_id"]);
    assert_eq!(home.evidence_of("session_seal")[0]["fields"]["outcome"], "sealed");
    home.json(&["verify"]).ends(0);
}

#[test]
fn a_provider_that_refuses_the_key() {
    let home = TestHome::new();
    let model = model(&["--require-key", "another key"]);
    home.route_to(model.listening());
    set_secret(home.beside("").as_path(), crate::home::PROVIDER_KEY);
    let agent = binary("amc-demo-agent").display().to_string();
    let answer = home.amc(&["wrap", "--agent", "support", "--isolation", "none", "--", &agent]).ends(1);
    // The provider's own words pass unchanged.
    assert!(answer.stderr.contains("401") && answer.stderr.contains("the demo model wants another key"), "{answer}");
    assert_eq!(home.evidence_of("llm_response")[0]["fields"]["status"], 401);
}

#[test]
fn a_place_that_cannot_be_written() {
    let scored = TestHome::scored();
    // A directory that is not there: the same for root, who may write anywhere.
    let out = scored.home.beside("no-such-dir/out").display().to_string();
    let export = ["bundle", "export", "--agent", "support", "--run", &scored.run_id, "--out", &out];
    scored.home.amc(&export).ends(2).says(&["cannot write", &out]);
    scored.home.amc(&["report", &scored.run_id, "--out", &out]).ends(2).says(&["cannot write", &out]);
    scored.home.amc(&["trust", "export", "--out", &out]).ends(2).says(&["no-such-dir"]);
    // A runs directory that is a file: the run fails and is not recorded.
    let runs = scored.home.file("runs");
    fs::rename(&runs, scored.home.beside("runs")).expect("it moves");
    fs::write(&runs, "").expect("a file");
    scored.home.amc(&["run", "--agent", "support"]).ends(3).says(&["runs"]);
    fs::remove_file(&runs).expect("it was there");
    fs::rename(scored.home.beside("runs"), &runs).expect("it moves back");
    let verified = scored.home.json(&["verify"]).ends(0);
    assert!(verified.errors().is_empty(), "{verified}");
    scored.home.assert_tidy();
}
