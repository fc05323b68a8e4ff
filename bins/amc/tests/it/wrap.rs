//! `wrap`: what passes, what is recorded, what the agent gets and never gets, and how it ends.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Stdio};

use amc_testkit::binary;
use serde_json::{Value, json};

use crate::answer::{Answer, keys};
use crate::home::{PASSPHRASE, PROVIDER_KEY, TestHome, files_under, model, set_secret, until};

const WRAP: [&str; 6] = ["wrap", "--agent", "support", "--isolation", "none", "--"];

fn random_bytes(len: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::open("/dev/urandom").and_then(|file| file.take(len).read_to_end(&mut bytes)).expect("random bytes");
    bytes
}

fn start(home: &TestHome, command: &[&str]) -> Child {
    let mut amc = home.command();
    amc.args(WRAP).args(command).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    amc.spawn().expect("amc starts")
}

/// The outcome of the only session.
fn outcome(home: &TestHome) -> Value {
    let seals = home.evidence_of("session_seal");
    assert_eq!(seals.len(), 1, "{seals:?}");
    seals[0]["fields"]["outcome"].clone()
}

fn kill(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a process id")).expect("not zero");
    rustix::process::kill_process(pid, signal).expect("a process of this test");
}

#[test]
fn a_mebibyte_of_anything_passes_byte_for_byte_and_is_recorded() {
    let home = TestHome::new();
    let sent = random_bytes(1 << 20);
    let mut amc = start(&home, &["sh", "-c", "tee /dev/stderr; exit 7"]);
    let mut stdin = amc.stdin.take().expect("a pipe");
    let input = sent.clone();
    let writing = std::thread::spawn(move || stdin.write_all(&input).expect("it takes all"));
    let output = amc.wait_with_output().expect("it ends");
    writing.join().expect("it was written");
    assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout == sent, "{} bytes came back", output.stdout.len());
    // What wrap has to say comes after the agent's own last byte.
    assert!(output.stderr.starts_with(&sent), "standard error differs");
    let said = String::from_utf8_lossy(&output.stderr[sent.len()..]).into_owned();
    assert!(said.starts_with("amc: session ") && said.lines().count() == 1, "{said}");

    for stream in ["stdin", "stdout", "stderr"] {
        let pieces = home.evidence_of("process_output").into_iter().filter(|piece| piece["fields"]["stream"] == stream);
        let bytes: u64 = pieces.map(|piece| piece["payload"]["wire_len"].as_u64().expect("a length")).sum();
        assert_eq!(bytes, 1 << 20, "{stream}");
    }
    assert_eq!(outcome(&home), "sealed");
    home.json(&["verify"]).ends(0);
    home.assert_tidy();
}

#[test]
fn the_agents_end_is_wraps_end() {
    let home = TestHome::new();
    let running = crate::services::Up::start(&home);
    home.wrap_sh("exit 0").ends(0);
    home.wrap_sh("exit 7").ends(7);
    home.wrap_sh("kill -TERM $$").ends(128 + 15);
    home.wrap_sh("kill -KILL $$").ends(128 + 9);
    let exits = home.evidence_of("process_exit");
    let ends: Vec<Value> = exits.iter().map(|exit| json!([exit["fields"]["code"], exit["fields"]["signal"]])).collect();
    assert_eq!(ends, [json!([0, null]), json!([7, null]), json!([null, 15]), json!([null, 9])]);
    let seals = home.evidence_of("session_seal");
    assert!(seals.iter().all(|seal| seal["fields"]["outcome"] == "sealed"), "{seals:?}");
    drop(running);
}

#[test]
fn what_cannot_be_started_ends_as_env_has_it_and_opens_no_session() {
    let home = TestHome::new();
    let plain = home.beside("plain.txt");
    std::fs::write(&plain, "not a program").expect("a file");
    let wrap = |command: &str| home.amc(&[&WRAP[..], &[command]].concat());
    wrap("no-such-command-anywhere").ends(127).says(&["no-such-command-anywhere", "not found"]);
    wrap(&plain.display().to_string()).ends(126).says(&["plain.txt", "cannot be executed"]);
    assert!(home.evidence_of("session_open").is_empty());
    let before = home.evidence().len();

    // Locked: no passphrase and no terminal.
    let mut locked = home.command();
    let locked = Answer::of(locked.env_remove("AMC_VAULT_PASSPHRASE").args(WRAP).arg("true")).ends(125);
    assert!(locked.stderr.contains("locked") && locked.stderr.contains("--passphrase-file"), "{locked}");
    let wrong = Answer::of(home.command().env("AMC_VAULT_PASSPHRASE", "another").args(WRAP).arg("true")).ends(125);
    assert!(wrong.stderr.contains("passphrase"), "{wrong}");
    assert_eq!(home.evidence().len(), before, "a failed unlock wrote to the log");
    home.assert_tidy();
}

#[test]
fn an_interpreter_that_is_not_there_ends_with_an_error_and_a_sealed_session() {
    let home = TestHome::new();
    let script = home.beside("agent");
    std::fs::write(&script, "#!/no/such/interpreter\n").expect("a file");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("its mode");
    let answer = home.amc(&[&WRAP[..], &[&script.display().to_string()]].concat()).ends(127);
    assert!(answer.stderr.contains("No such file"), "{answer}");
    assert_eq!(outcome(&home), "sealed");
    home.json(&["verify"]).ends(0);
}

#[test]
fn a_killed_agent_is_sealed_and_wrap_says_so() {
    let home = TestHome::new();
    let mut amc = start(&home, &["sh", "-c", "echo $$; exec sleep 600"]);
    let pid = first_line(&mut amc).parse().expect("a process id");
    kill(pid, rustix::process::Signal::KILL);
    let output = amc.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(128 + 9));
    assert_eq!(outcome(&home), "sealed");
    home.json(&["verify"]).ends(0);
}

#[test]
fn a_killed_wrap_takes_the_agent_with_it_and_the_session_is_interrupted() {
    let home = TestHome::new();
    let mut amc = start(&home, &["sh", "-c", "echo $$; exec sleep 600"]);
    let agent: i32 = first_line(&mut amc).parse().expect("a process id");
    kill(amc.id(), rustix::process::Signal::KILL);
    assert_eq!(amc.wait().expect("it ends").signal(), Some(9));
    let agent = rustix::process::Pid::from_raw(agent).expect("not zero");
    until(|| rustix::process::test_kill_process(agent).is_err());
    // The monitor that it started ends with its last user, after the seal.
    until(|| !home.file("run/monitor.sock").exists());
    assert_eq!(outcome(&home), "interrupted");
    home.json(&["verify"]).ends(0);
}

#[test]
fn a_terminated_wrap_passes_the_signal_on() {
    let home = TestHome::new();
    let mut amc = start(&home, &["sh", "-c", "trap 'echo ended; exit 3' TERM; echo $$; while :; do sleep 0.01; done"]);
    first_line(&mut amc);
    kill(amc.id(), rustix::process::Signal::TERM);
    let output = amc.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), &b"ended\n"[..]));
    assert_eq!(outcome(&home), "sealed");
}

/// The agent's first line of output, read byte by byte so that the rest stays.
fn first_line(amc: &mut Child) -> String {
    let out = amc.stdout.as_mut().expect("a pipe");
    let (mut line, mut byte) = (Vec::new(), [0]);
    loop {
        out.read_exact(&mut byte).expect("the agent writes a line");
        if byte == *b"\n" {
            return String::from_utf8(line).expect("text");
        }
        line.push(byte[0]);
    }
}

#[test]
fn no_secret_of_the_operator_reaches_the_agent_and_none_is_stored() {
    const OPERATORS_KEY: &str = "sk-operator-fedcba9876543210fedcba9876543210";
    let home = TestHome::new();
    let model = model(&["--require-key", PROVIDER_KEY]);
    home.route_to(model.listening());
    set_secret(home.beside("").as_path(), PROVIDER_KEY);
    let agent = format!("env; exec {} --plain 1 --stream 1", binary("amc-demo-agent").display());
    let mut command = home.command();
    command.env("OPENAI_API_KEY", OPERATORS_KEY).env("GITHUB_TOKEN", OPERATORS_KEY).env("LANG", "C.UTF-8");
    let answer = Answer::of(command.args(WRAP).args(["sh", "-c", &agent])).ends(0);
    assert!(answer.text().contains("This is a demo model"), "{answer}");

    let variables: Vec<(&str, &str)> = answer.text().lines().filter_map(|line| line.split_once('=')).collect();
    let variable = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    let lease = variable("OPENAI_API_KEY").expect("a lease in the key's place");
    assert!(lease.starts_with("amc-lease-"), "{lease}");
    assert_eq!(variable("ANTHROPIC_API_KEY"), Some(lease));
    assert_eq!(variable("LANG"), Some("C.UTF-8"));
    assert_eq!((variable("AMC_VAULT_PASSPHRASE"), variable("AMC_HOME"), variable("GITHUB_TOKEN")), (None, None, None));
    let openai = variable("OPENAI_BASE_URL").expect("a base URL");
    let origin = openai.strip_suffix("/openai/v1").expect("OpenAI's clients want /v1");
    assert!(origin.starts_with("http://127.0.0.1:"), "{origin}");
    assert_eq!(variable("ANTHROPIC_BASE_URL"), Some(format!("{origin}/anthropic").as_str()));
    for secret in [OPERATORS_KEY, PASSPHRASE, PROVIDER_KEY] {
        assert!(!answer.text().contains(secret), "the agent was given {secret}");
    }

    // It printed its lease, and sent it twice; the provider's key went out twice. Neither is stored.
    for path in files_under(&home.root()) {
        let bytes = std::fs::read(&path).expect("a readable file");
        for secret in [lease, OPERATORS_KEY, PASSPHRASE, PROVIDER_KEY] {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} stands in {}", path.display());
        }
    }
    let environment = &home.evidence_of("environment_built")[0]["fields"];
    assert_eq!(environment["secrets_withheld"], true);
    assert_eq!(home.evidence_of("llm_request").len(), 2);
    assert_eq!(home.evidence_of("llm_response").len(), 2);
    home.json(&["verify"]).ends(0);
}

#[test]
fn the_summary_has_four_keys() {
    let home = TestHome::new();
    let file = home.beside("summary.json");
    let summary = file.display().to_string();
    let arguments = ["wrap", "--agent", "support", "--summary", &summary, "--isolation", "none", "--"];
    let answer = home.amc(&[&arguments[..], &["sh", "-c", "exit 9"]].concat()).ends(9);
    let summary: Value = serde_json::from_slice(&std::fs::read(&file).expect("it was written")).expect("JSON");
    assert_eq!(keys(&summary), ["events", "exit_status", "outcome", "session"]);
    let seal = &home.evidence_of("session_seal")[0];
    assert_eq!((&summary["session"], &summary["exit_status"]), (&seal["session_id"], &json!(9)));
    assert_eq!(summary["outcome"], "sealed");
    let of_session = home.evidence().iter().filter(|event| event["session_id"] == seal["session_id"]).count();
    assert_eq!(summary["events"], of_session);
    assert!(answer.stderr.contains("cosigned by the auditor"), "{answer}");
}
