//! Witnessing over HTTP: one workspace's monitor cosigns another's logs, and refuses what the protocol says it must.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;

use amc_crypto::{Note, TrustPolicy};
use amc_testkit::Program;
use tempfile::TempDir;

use crate::answer::Answer;
use crate::home::{TestHome, command_in};
use crate::services::Up;

/// A workspace of somebody else: other keys, another name.
struct Other {
    dir: TempDir,
}

impl Other {
    fn new() -> Self {
        let other = Other { dir: TempDir::new().expect("a directory") };
        Answer::of(other.command().args(["init", "--name", "other"])).ends(0);
        other
    }

    fn command(&self) -> Command {
        command_in(self.dir.path())
    }

    fn json(&self, arguments: &[&str]) -> Answer {
        Answer::of(self.command().arg("--json").args(arguments))
    }

    /// A line in its trust policy.
    fn trust(&self, line: &str) {
        add_line(&self.dir.path().join("home/trust.policy"), line);
    }

    fn cosigned(&self, log: &str) -> Option<Note> {
        let bytes = std::fs::read(self.dir.path().join("home/logs").join(log).join("cosigned")).ok()?;
        Some(Note::parse(&bytes).expect("what is kept is a note"))
    }
}

fn add_line(path: &std::path::Path, line: &str) {
    let text = std::fs::read_to_string(path).expect("the policy is there");
    std::fs::write(path, format!("{text}{line}\n")).expect("the policy can be written");
}

fn policy_of(home: &std::path::Path) -> TrustPolicy {
    TrustPolicy::parse(&std::fs::read(home.join("trust.policy")).expect("a policy")).expect("it parses")
}

/// A witness that knows the logs of `other`; the first workspace's monitor signs.
fn witness_of(home: &TestHome, other: &Other) {
    for key in policy_of(&other.dir.path().join("home")).logs() {
        add_line(&home.file("trust.policy"), &format!("log {key}"));
    }
}

fn serve(home: &TestHome) -> Program {
    Program::start(home.command().args(["witness", "serve", "--listen", "127.0.0.1:0"]))
}

/// The answer as (status, head, body).
fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let head = format!(
        "{method} /{path} HTTP/1.1\r\nHost: witness\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).expect("it takes the request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers in text");
    let _ = stream.shutdown(Shutdown::Both);
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, head.to_ascii_lowercase(), body.to_owned())
}

fn submit(address: SocketAddr, body: &str) -> (u16, String, String) {
    ask(address, "POST", "add-checkpoint", body)
}

#[test]
fn an_outside_witness_cosigns_what_grows_and_the_cosignature_is_kept() {
    let (home, other) = (TestHome::new(), Other::new());
    witness_of(&home, &other);
    let (_up, _) = Up::start(&home);
    let server = serve(&home);
    let witness = policy_of(&home.root());
    let witness = witness.witnesses().iter().find(|witness| witness.name == "monitor-witness").expect("it has one");
    other.trust(&format!("witness outside {} http://{}", witness.key, server.listening()));

    let known = home.evidence_of("checkpoint_cosigned").len();
    let first = other.json(&["witness", "push", "--log", "audit"]).ends(0).data();
    assert_eq!(first["cosigned"].as_array().map(Vec::len), Some(1), "{first}");
    let before = other.cosigned("audit").expect("it is kept");
    assert!(matches!(before.verify_cosignature(&witness.key), Ok(Some(_))));

    // The log grows; the witness is told from where, and the proof holds.
    other.json(&["config", "sign", "amc.yaml"]).ends(0);
    other.json(&["witness", "push", "--log", "audit"]).ends(0);
    let after = other.cosigned("audit").expect("it is kept");
    assert_ne!(after.text(), before.text(), "the newest checkpoint is kept");
    let head = other.json(&["ledger", "head", "--log", "audit"]).ends(0).data();
    assert_eq!(head["cosigned"]["size"], head["size"], "{head}");
    assert_eq!(head["cosigned"]["witnesses"][0]["name"], "outside", "{head}");

    // One that has forgotten what it pushed learns it from the 409.
    std::fs::remove_file(other.dir.path().join("home/logs/audit/cosigned")).expect("it is there");
    std::fs::remove_dir_all(other.dir.path().join("home/logs/audit/witnessed")).expect("it is there");
    other.json(&["witness", "push", "--log", "audit"]).ends(0);
    assert_eq!(other.cosigned("audit").expect("it is kept").text(), after.text());
    other.json(&["verify"]).ends(0);

    // Another workspace's evidence log is no log of this monitor's own.
    other.json(&["witness", "push", "--log", "evidence"]).ends(0);
    assert!(other.cosigned("evidence").is_some());

    // The witness's own log says what it signed, and is whole.
    let recorded = home.evidence_of("checkpoint_cosigned").split_off(known);
    for (log, least) in [("other/audit", 3), ("other/evidence", 1)] {
        let count = recorded.iter().filter(|event| event["fields"]["head"]["origin"] == log).count();
        assert!(count >= least, "{log}: {count} of {recorded:?}");
    }
    home.json(&["verify"]).ends(0);
    let origin_hash = amc_crypto::sha256(b"other/audit");
    let (status, _, note) = ask(server.listening(), "GET", &format!("{origin_hash}/checkpoint"), "");
    assert_eq!((status, Note::parse(note.as_bytes()).expect("a note").text()), (200, after.text()));
}

#[test]
fn each_refusal_has_the_status_that_the_protocol_gives_it() {
    let (home, other, stranger) = (TestHome::new(), Other::new(), Other::new());
    witness_of(&home, &other);
    let (_up, _) = Up::start(&home);
    let server = serve(&home);
    let address = server.listening();
    let known = home.evidence_of("checkpoint_cosigned").len();
    let note = |answer: Answer| answer.ends(0).data()["checkpoint"].as_str().expect("a note").to_owned();
    let checkpoint = note(other.json(&["ledger", "head", "--log", "audit"]));
    let size: u64 = checkpoint.lines().nth(1).and_then(|line| line.parse().ok()).expect("a size");
    let root = checkpoint.lines().nth(2).expect("a root").to_owned();

    let (status, _, _) = submit(address, "old x\n\n");
    assert_eq!(status, 400, "malformed");
    let (status, _, _) = submit(address, &format!("old {}\n\n{checkpoint}", size + 1));
    assert_eq!(status, 400, "old size above the checkpoint's");
    let (status, _, _) = submit(address, &"x".repeat(100_000));
    assert_eq!(status, 400, "longer than any request");
    let (status, _, _) = submit(address, &format!("old 0\n\n{}", checkpoint.replacen("other/", "nobody/", 1)));
    assert_eq!(status, 404, "unknown origin");
    let own = note(home.json(&["ledger", "head"]));
    let (status, _, _) = submit(address, &format!("old 0\n\n{own}"));
    assert_eq!(status, 404, "its own log");
    let forged = checkpoint.replacen(&format!("\n{size}\n"), &format!("\n{}\n", size + 1), 1);
    let (status, _, _) = submit(address, &format!("old 0\n\n{forged}"));
    assert_eq!(status, 403, "a signature that does not verify");
    let foreign = note(stranger.json(&["ledger", "head", "--log", "audit"]));
    let (status, _, _) = submit(address, &format!("old 0\n\n{foreign}"));
    assert_eq!(status, 403, "a log of that name under another key");
    let (status, _, _) = submit(address, &format!("old 0\n{root}\n\n{checkpoint}"));
    assert_eq!(status, 422, "a proof from size 0");
    let (status, head, body) = submit(address, &format!("old 1\n{root}\n\n{checkpoint}"));
    assert_eq!((status, body.as_str()), (409, "0\n"), "it has cosigned nothing yet");
    assert!(head.contains("content-type: text/x.tlog.size"), "{head}");
    let (status, _, _) = ask(address, "GET", "add-checkpoint", "");
    assert_eq!(status, 405);

    let (status, _, body) = submit(address, &format!("old 0\n\n{checkpoint}"));
    assert_eq!(status, 200, "{body}");
    assert!(body.starts_with("— acme-test/monitor-witness ") && body.lines().count() == 1, "{body}");
    let (status, _, body) = submit(address, &format!("old 0\n\n{checkpoint}"));
    assert_eq!((status, body), (409, format!("{size}\n")));
    other.json(&["config", "sign", "amc.yaml"]).ends(0);
    let grown = note(other.json(&["ledger", "head", "--log", "audit"]));
    let (status, _, _) = submit(address, &format!("old {size}\n{root}\n\n{grown}"));
    assert_eq!(status, 422, "a proof that does not hold");
    assert_eq!(home.evidence_of("checkpoint_cosigned").len(), known + 1, "only the good one is recorded");
}

#[test]
fn without_a_monitor_a_url_or_a_loopback_address_there_is_no_witnessing() {
    let home = TestHome::new();
    home.amc(&["witness", "serve", "--listen", "127.0.0.1:0"]).ends(3);
    home.amc(&["witness", "serve", "--listen", "0.0.0.0:0"]).ends(2);
    home.json(&["witness", "push"]).ends(2);
}
