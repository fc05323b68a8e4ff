//! A quorum with an outside witness, end to end: another workspace's monitor cosigns over HTTP, and without it no
//! bundle goes out.

use std::process::Command;

use amc_crypto::proof::{ProofTrust, TlogProof};
use amc_crypto::{TrustPolicy, Unverified};
use amc_testkit::Program;
use tempfile::TempDir;

use crate::answer::Answer;
use crate::home::{TestHome, command_in, until};
use crate::services::Up;

/// A workspace of somebody else, with its monitor running.
struct Neighbour {
    dir: TempDir,
}

impl Neighbour {
    fn new(logs: &TrustPolicy) -> Self {
        let neighbour = Neighbour { dir: TempDir::new().expect("a directory") };
        Answer::of(neighbour.command().args(["init", "--name", "neighbour"])).ends(0);
        Answer::of(neighbour.command().args(["gateway", "init", "--listen", "127.0.0.1:0"])).ends(0);
        let lines: String = logs.logs().iter().map(|key| format!("log {key}\n")).collect();
        let path = neighbour.dir.path().join("home/trust.policy");
        let text = std::fs::read_to_string(&path).expect("a policy");
        std::fs::write(&path, text + &lines).expect("the policy can be written");
        Answer::of(neighbour.command().arg("up")).ends(0);
        neighbour
    }

    fn command(&self) -> Command {
        command_in(self.dir.path())
    }

    fn serve(&self) -> Program {
        Program::start(self.command().args(["witness", "serve", "--listen", "127.0.0.1:0"]))
    }

    fn witness_key(&self) -> String {
        let policy = policy_at(&self.dir.path().join("home/trust.policy"));
        let own = policy.witnesses().iter().find(|witness| witness.name == "monitor-witness").expect("it has one");
        own.key.to_string()
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        Answer::of(self.command().arg("down"));
    }
}

fn policy_at(path: &std::path::Path) -> TrustPolicy {
    TrustPolicy::parse(&std::fs::read(path).expect("a policy")).expect("it parses")
}

/// The roles and the neighbour have to cosign everything.
fn want_neighbour(home: &TestHome, neighbour: &Neighbour, address: std::net::SocketAddr) {
    let path = home.file("trust.policy");
    let text = std::fs::read_to_string(&path).expect("a policy");
    let text = text.replace("quorum roles\n", "");
    let key = neighbour.witness_key();
    let lines =
        format!("witness outside {key} http://{address}\ngroup everybody all roles outside\nquorum everybody\n");
    std::fs::write(&path, text + &lines).expect("the policy can be written");
}

#[test]
fn without_the_outside_witness_of_the_quorum_no_bundle_goes_out_and_with_it_every_verifier_sees_it() {
    let home = TestHome::new();
    let before = home.beside("before.policy");
    std::fs::copy(home.file("trust.policy"), &before).expect("copies");
    let neighbour = Neighbour::new(&policy_at(&before));
    let server = neighbour.serve();
    want_neighbour(&home, &neighbour, server.listening());

    home.wrap_sh("echo work").ends(0);
    let verified = home.json(&["verify"]).ends(0).data();
    assert_eq!(verified["evidence"]["cosigned_size"], 0, "the auditor alone is no quorum");
    let run = home.json(&["run", "--agent", "support"]).data();
    let id = run["run_id"].as_str().expect("a run id").to_owned();
    let bundle = home.beside("run.amcbundle").display().to_string();
    let export = ["bundle", "export", "--agent", "support", "--run", &id, "--out", &bundle];
    let refused = home.json(&export).ends(3);
    assert!(refused.to_string().contains("amc witness push"), "{refused}");
    assert!(!home.beside("run.amcbundle").exists());

    let pushed = home.json(&["witness", "push"]).ends(0).data();
    let logs: Vec<&str> =
        pushed["cosigned"].as_array().expect("a list").iter().filter_map(|told| told["log"].as_str()).collect();
    assert!(logs.contains(&"acme-test/evidence") && logs.contains(&"acme-test/audit"), "{pushed}");
    home.json(&export).ends(0);
    home.json(&["bundle", "verify", &bundle]).ends(0);
    home.json(&["bundle", "verify", &bundle, "--trust", &before.display().to_string()]).ends(0);
    let verified = home.json(&["verify"]).ends(0).data();
    let names = verified["evidence"]["cosigned_by"].as_array().expect("a list");
    assert!(names.iter().any(|name| name == "outside"), "{verified}");
    assert!(verified["evidence"]["cosigned_size"].as_u64() > Some(0), "{verified}");
    assert!(verified["audit"]["cosigned_size"].as_u64() > Some(0), "{verified}");
}

#[test]
fn what_an_outside_witness_saw_cannot_be_taken_back() {
    let home = TestHome::new();
    let neighbour = Neighbour::new(&policy_at(&home.file("trust.policy")));
    let server = neighbour.serve();
    want_neighbour(&home, &neighbour, server.listening());
    let earlier = home.beside("earlier");
    crate::home::copy_dir(&home.file("logs"), &earlier);
    home.wrap_sh("echo work").ends(0);
    home.json(&["witness", "push"]).ends(0);
    let kept = home.beside("kept");
    std::fs::copy(home.file("logs/evidence/cosigned"), &kept).expect("the note is kept");
    // Whoever holds every file and both roles' keys puts both logs back; the neighbour's note is elsewhere.
    std::fs::remove_dir_all(home.file("logs")).expect("removes");
    crate::home::copy_dir(&earlier, &home.file("logs"));
    home.json(&["verify"]).ends(0);
    let brought = home.json(&["verify", "--checkpoint", &kept.display().to_string()]).ends(1);
    assert!(brought.errors().contains("LEDGER_ROLLBACK"), "{brought}");
}

#[test]
fn a_proof_file_carries_the_cosignatures_that_its_verifier_asks_for() {
    let home = TestHome::new();
    home.wrap_sh("echo work").ends(0);
    let opened = home.evidence_of("session_open").remove(0);
    let (hash, out) = (opened["event_hash"].as_str().expect("a hash"), home.beside("open.tlog-proof"));
    let proved = home.json(&["ledger", "prove", "--event", hash, "--out", &out.display().to_string()]).ends(0).data();
    assert_eq!(proved["cosigned_by"], serde_json::json!(["auditor-witness"]));
    let proof = TlogProof::parse(&std::fs::read(&out).expect("the file is there")).expect("it is well-formed");
    let policy = policy_at(&home.file("trust.policy"));
    let proven = Unverified::new(proof).verify(&ProofTrust { policy: &policy, quorum: true }).expect("it holds");
    assert_eq!(serde_json::json!(proven.index), opened["index"]);
    assert_eq!(amc_crypto::leaf_hash(&proven.body).to_string(), hash);
}

/// Forgets the auditor's keys, also when the test fails.
struct Unlocked<'a>(&'a TestHome);

impl Drop for Unlocked<'_> {
    fn drop(&mut self) {
        self.0.json(&["vault", "lock", "--role", "auditor"]);
    }
}

#[test]
fn at_a_seal_the_running_monitor_has_the_unlocked_auditor_cosign() {
    let home = TestHome::new();
    let (_up, _) = Up::start(&home);
    home.json(&["vault", "unlock"]).ends(0);
    let _unlocked = Unlocked(&home);
    // Nobody at this terminal could unlock the auditor.
    let wrap = ["wrap", "--agent", "support", "--isolation", "none", "--", "sh", "-c", "echo work"];
    Answer::of(home.command().env_remove("AMC_VAULT_PASSPHRASE").args(wrap)).ends(0);
    let sealed = home.evidence_of("session_seal").pop().expect("one session");
    let index = sealed["index"].as_u64().expect("an index");
    until(|| home.json(&["verify"]).ends(0).data()["evidence"]["cosigned_size"].as_u64() > Some(index));
    // The cosignature made the audit log grow, which the monitor cosigns at the next seal.
    Answer::of(home.command().env_remove("AMC_VAULT_PASSPHRASE").args(wrap)).ends(0);
    let recorded = || home.evidence_of("checkpoint_cosigned").pop().map(|event| event["index"].as_u64());
    until(|| recorded().is_some_and(|at| at > Some(index)));
}
