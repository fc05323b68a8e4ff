//! How lines become outcomes, with a home and sockets that are really there.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use tempfile::TempDir;

use super::judge::Judge;
use super::*;

struct Place {
    dir: TempDir,
    targets: Targets,
    _listener: UnixListener,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(dir.path().join("logs/evidence")).expect("directories");
        fs::create_dir(dir.path().join("run")).expect("a directory");
        fs::write(dir.path().join("vault.amcvault"), b"a vault").expect("a file");
        let listener = UnixListener::bind(dir.path().join("run/monitor.sock")).expect("a socket");
        let targets = Targets::of(dir.path());
        Place { dir, targets, _listener: listener }
    }

    fn home(&self) -> &Path {
        self.dir.path()
    }

    fn outcome(&self, attempt: Attempt) -> (String, ProbeOutcome) {
        let decided = Judge::new(self.home(), &self.targets).attempt(attempt);
        (decided.subject, decided.outcome)
    }
}

fn attempt(target: ProbeTarget, subject: &str, got: Got) -> Attempt {
    Attempt { target, subject: subject.to_owned(), got, bytes: None, decoy: None }
}

#[test]
fn a_refusal_counts_where_the_control_works() {
    let place = Place::new();
    for (target, subject, expected) in [
        (ProbeTarget::Vault, "read vault.amcvault", ProbeOutcome::Denied),
        (ProbeTarget::Vault, "read vault.amcvault by way of descriptor 5", ProbeOutcome::Denied),
        (ProbeTarget::HomeRead, "read amc.yaml", ProbeOutcome::Absent),
        (ProbeTarget::Passphrase, "read studio/admin.token", ProbeOutcome::Absent),
        (ProbeTarget::HomeRead, "list logs/evidence", ProbeOutcome::Denied),
        (ProbeTarget::LogWrite, "create in logs/evidence", ProbeOutcome::Denied),
        (ProbeTarget::LogWrite, "write logs/audit/checkpoint", ProbeOutcome::Absent),
        (ProbeTarget::SigningSocket, "connect to run/monitor.sock", ProbeOutcome::Denied),
        (ProbeTarget::SigningSocket, "connect to run/gateway.sock", ProbeOutcome::Absent),
        (ProbeTarget::SigningSocket, "ask run/gateway.sock for a signature", ProbeOutcome::Absent),
        (ProbeTarget::ContainerEngine, "connect to /no/engine/here.sock", ProbeOutcome::Absent),
    ] {
        assert_eq!(place.outcome(attempt(target, subject, Got::Denied)).1, expected, "{subject}");
    }
    assert_eq!(
        place.outcome(attempt(ProbeTarget::Vault, "read vault.amcvault", Got::Unclear)).1,
        ProbeOutcome::Inconclusive
    );
}

#[test]
fn what_was_read_must_be_what_is_there() {
    let place = Place::new();
    let read = |bytes: Option<&str>| Attempt {
        bytes: bytes.map(str::to_owned),
        ..attempt(ProbeTarget::Vault, "read vault.amcvault", Got::Reached)
    };
    let real = amc_core::digest::hex(b"a vault");
    assert_eq!(place.outcome(read(Some(&real))).1, ProbeOutcome::Reached);
    assert_eq!(place.outcome(read(Some("00"))).1, ProbeOutcome::Inconclusive);
    assert_eq!(place.outcome(read(None)).1, ProbeOutcome::Inconclusive);
}

#[test]
fn a_refusal_by_a_process_counts_where_a_decoy_is_reached() {
    let place = Place::new();
    let (name, _) = place.targets.trusted.last().expect("this very process").clone();
    let outcome = |way: &str, decoy| {
        let subject = format!("{way} {name}");
        place.outcome(Attempt { decoy, ..attempt(ProbeTarget::TrustedProcess, &subject, Got::Denied) })
    };
    assert_eq!(outcome("trace", Some(Got::Reached)).1, ProbeOutcome::Denied);
    let (subject, closed) = outcome("trace", Some(Got::Denied));
    assert_eq!(closed, ProbeOutcome::Denied);
    assert!(subject.contains("decoy"), "{subject}");
    assert_eq!(outcome("signal", Some(Got::Denied)).1, ProbeOutcome::Inconclusive);
    assert_eq!(outcome("trace", None).1, ProbeOutcome::Inconclusive);
}

#[test]
fn a_descriptor_is_known_by_its_inode_wherever_its_path_leads() {
    use std::os::unix::fs::MetadataExt as _;
    let place = Place::new();
    let vault = fs::metadata(place.home().join("vault.amcvault")).expect("it is there");
    let descriptor = |ino, ends: &[&str], process| Descriptor {
        number: 9,
        shown: "/elsewhere".to_owned(),
        dev: vault.dev(),
        ino,
        ends: ends.iter().map(PathBuf::from).collect(),
        process,
    };
    let judge = Judge::new(place.home(), &place.targets);
    let said = judge.descriptor(&descriptor(vault.ino(), &[], false));
    assert_eq!((said.subject.as_str(), said.outcome), ("descriptor 9 on vault.amcvault", ProbeOutcome::Reached));
    let socket = place.home().join("run/monitor.sock").display().to_string();
    assert_eq!(judge.descriptor(&descriptor(0, &[&socket], false)).outcome, ProbeOutcome::Reached);
    assert_eq!(judge.descriptor(&descriptor(0, &[], true)).outcome, ProbeOutcome::Reached);
    assert_eq!(judge.descriptor(&descriptor(0, &["/run/other.sock"], false)).outcome, ProbeOutcome::Denied);
}

#[test]
fn what_was_not_tried_to_the_end_says_nothing() {
    let place = Place::new();
    let judge = Judge::new(place.home(), &place.targets);
    let line = || Line::Attempt(attempt(ProbeTarget::Vault, "read vault.amcvault", Got::Denied));
    let probed = judged(vec![line()], &judge);
    for target in TRIED {
        assert!(
            probed.attempts.iter().any(|it| it.target == *target && it.outcome == ProbeOutcome::Inconclusive),
            "{target:?}"
        );
    }
    let probed = judged(vec![line(), Line::Done { candidates_cut: true }], &judge);
    let unclear =
        |target| probed.attempts.iter().any(|it| it.target == target && it.outcome == ProbeOutcome::Inconclusive);
    assert!(!unclear(ProbeTarget::Vault) && unclear(ProbeTarget::LogWrite) && probed.candidates_cut);
}

#[test]
fn however_much_was_tried_it_fits_into_an_event_and_what_was_reached_stays() {
    let attempt = |number: usize| ProbeAttempt {
        target: ProbeTarget::HomeRead,
        subject: format!("read {number} {}", "é".repeat(400)),
        outcome: if number == 1999 { ProbeOutcome::Reached } else { ProbeOutcome::Denied },
    };
    let kept = bounded((0..2000).map(attempt).collect());
    assert!(kept.iter().any(|attempt| attempt.outcome == ProbeOutcome::Reached));
    let probe = amc_core::kinds::BoundaryProbe {
        phase: amc_core::kinds::ProbePhase::Before,
        isolation: amc_core::kinds::Isolation::Namespaces,
        attempts: kept,
    };
    assert!(amc_core::codec::encode(&probe).len() < 60_000);
}

#[test]
fn every_socket_of_the_home_is_asked_and_who_listens_is_trusted() {
    let place = Place::new();
    let _other = UnixListener::bind(place.home().join("run/auditor.sock")).expect("a socket");
    let targets = Targets::of(place.home());
    let names: Vec<&str> = targets.sockets.iter().map(|ask| ask.socket.as_str()).collect();
    assert_eq!(names, ["run/auditor.sock", "run/gateway.sock", "run/monitor.sock"]);
    assert!(targets.sockets.iter().all(|ask| ask.bytes.len() >= 14));
    let own = i32::try_from(std::process::id()).expect("a process id");
    assert_eq!(targets.trusted.iter().filter(|(_, pid)| *pid == own).count(), 1, "{:?}", targets.trusted);
}
