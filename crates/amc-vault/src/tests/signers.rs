//! Each key signs what is its own, verifiably, and refuses the rest.

use amc_core::kinds::Role;
use amc_core::{AgentId, SessionId};
use amc_crypto::dsse::{Envelope, StatementTrust};
use amc_crypto::jws::{Receipt, ReceiptClaims, ReceiptKind, ReceiptTrust};
use amc_crypto::note::KeyKind;
use amc_crypto::signer::{CheckpointSigner as _, Cosigner as _, EventSigner as _, ReceiptSigner as _};
use amc_crypto::signer::{StatementSigner as _, event_message};
use amc_crypto::{Checkpoint, Note, PredicateType, Statement, Subject, TrustPolicy, Unverified, merkle};

use super::workspace;
use crate::contents::Contents;
use crate::keys::{AuditorKeys, LogKey, MonitorKeys, WitnessKey};
use crate::number::LogNumber;

fn monitor() -> MonitorKeys {
    MonitorKeys::new(Contents::generate(Role::Monitor, workspace()).expect("random bytes"))
}

fn auditor() -> AuditorKeys {
    AuditorKeys::new(Contents::generate(Role::Auditor, workspace()).expect("random bytes"))
}

fn checkpoint(origin: &str) -> Checkpoint {
    Checkpoint { origin: origin.to_owned(), size: 7, root: amc_crypto::sha256(b"root") }
}

fn claims(log: &str) -> ReceiptClaims {
    ReceiptClaims {
        v: 1,
        receipt_id: "r-1".into(),
        kind: ReceiptKind::LlmResponse,
        ts: "2026-01-02T03:04:05Z".into(),
        agent_id: AgentId::new("agent").expect("an id"),
        session_id: SessionId([7; 16]),
        request_id: "q-1".into(),
        provider: "openai".into(),
        model: None,
        log: log.into(),
        event_index: 4,
        event_hash: amc_crypto::sha256(b"event"),
        body_sha256: amc_crypto::sha256(b"body"),
    }
}

/// The vector that an unrelated verifier accepted: seeds 0x42 and 0x43, three leaves.
#[test]
fn the_published_note_comes_out_byte_for_byte() {
    const NOTE: &str = "evidence.test/log\n3\nWqx3HImawpLnS/Gv4ubjAvi1WIOy0b8Ze0amvqbavKk=\n\n\
        — evidence.test/log VKfRnEWGMi0kVwlVZbTxeBgPWJIrav83E48XZnlOVLQOaDqdlpnhM4S/tuc0TTSvkZZaEaZu5Y2pU/IW0B8ZJmS3MgU=\n\
        — witness.test/w1 2strhQAAAABlU/EAWToAEzSEjYbP/YAUxAl2NxtiVMKmiPIM+ZQqKqI9sRsu1LZmu0f+hsHtSk7y+XZCZ6nEplxPfH0VXlmNkSnFBg==\n";
    let log = LogKey::for_tests([0x42; 32], "evidence.test/log");
    let witness = WitnessKey::for_tests([0x43; 32], "witness.test/w1", Role::Auditor);
    let root = merkle::root_of(["one", "two", "three"].map(|leaf| amc_crypto::leaf_hash(leaf.as_bytes())));
    let head = Checkpoint { origin: "evidence.test/log".into(), size: 3, root };
    let mut note = Note::new(head.text(), vec![log.sign_checkpoint(&head).expect("signed")]);
    note.push(witness.cosign(&head, 1_700_000_000).expect("cosigned"));
    assert_eq!(note.to_string(), NOTE);
    assert_eq!(
        log.verifier_key().to_string(),
        "evidence.test/log+54a7d19c+ASFS+NGbeR0kRTJC4V8uq2y3z/p7al7TAJeWDgaYgdsS"
    );
    assert_eq!(
        witness.verifier_key().to_string(),
        "witness.test/w1+dacb6b85+BCL8KXeS8Lb/wL/P237bDAqhTgJaNl7A40Lobjgpy3S2"
    );
}

#[test]
fn events_verify_under_the_log_key() {
    let keys = monitor();
    let hash = amc_crypto::leaf_hash(b"an event");
    let signature = keys.log.sign_event(&hash).expect("signed");
    let verify = |origin: &str| keys.log.public_key().verify(&event_message(origin, &hash), &signature);
    assert_eq!(verify("acme-1/evidence"), Ok(()));
    assert!(verify("acme-1/audit").is_err(), "the origin is under the signature");
}

#[test]
fn both_roles_checkpoints_reach_the_quorum_of_the_policy_of_init() {
    let (monitor, auditor) = (monitor(), auditor());
    let policy = TrustPolicy::for_roles(
        &[monitor.log.verifier_key(), auditor.log.verifier_key()],
        &[(Role::Monitor, monitor.witness.verifier_key()), (Role::Auditor, auditor.witness.verifier_key())],
    );
    let policy = TrustPolicy::parse(policy.as_bytes()).expect("a policy");
    for (log, witness) in [(&monitor.log, &auditor.witness), (&auditor.log, &monitor.witness)] {
        let head = checkpoint(log.origin());
        let mut note = Note::new(head.text(), vec![log.sign_checkpoint(&head).expect("signed")]);
        assert!(Unverified::new(note.clone()).verify(&policy).is_err(), "not cosigned yet");
        note.push(witness.cosign(&head, 1_700_000_000).expect("cosigned"));
        Unverified::new(note).verify(&policy).expect("signed and cosigned");
    }
}

#[test]
fn a_log_key_refuses_another_logs_checkpoint() {
    for origin in ["acme-1/audit", "acme-1/evidence/2", "acme-1/evidence\n", "other/evidence"] {
        let error = monitor().log.sign_checkpoint(&checkpoint(origin)).expect_err(origin);
        assert_eq!(error.what, "the checkpoint");
    }
}

#[test]
fn a_witness_refuses_its_own_roles_logs_and_what_is_no_checkpoint() {
    let (monitor, auditor) = (monitor().witness, auditor().witness);
    for origin in ["acme-1/evidence", "acme-1/evidence/2"] {
        assert!(monitor.cosign(&checkpoint(origin), 1).is_err(), "{origin}");
        assert!(auditor.cosign(&checkpoint(origin), 1).is_ok(), "{origin}");
    }
    assert!(auditor.cosign(&checkpoint("acme-1/audit"), 1).is_err());
    assert!(monitor.cosign(&checkpoint("acme-1/audit"), 1).is_ok());
    assert!(monitor.cosign(&checkpoint("outside.example/log"), 1).is_ok());
    assert!(monitor.cosign(&checkpoint("other/evidence"), 1).is_ok(), "another workspace's monitor is another role");
    for origin in ["", "acme-1/audit\n99", "acme-1/audit\nmore\n"] {
        assert!(monitor.cosign(&checkpoint(origin), 1).is_err(), "{origin:?}");
    }
    for time_s in [0, u64::MAX, i64::MAX as u64 + 1] {
        assert!(monitor.cosign(&checkpoint("acme-1/audit"), time_s).is_err(), "time {time_s}");
    }
}

#[test]
fn receipts_verify_and_are_for_the_own_log_only() {
    let keys = monitor();
    let text = keys.receipts.sign_receipt(&claims("acme-1/evidence")).expect("signed");
    let trust = [keys.log.verifier_key()];
    let receipt = Unverified::new(Receipt::parse(&text).expect("a receipt"));
    let verified = receipt.verify(&ReceiptTrust { keys: &trust }).expect("verifies");
    assert_eq!(*verified, claims("acme-1/evidence"));
    assert!(keys.receipts.sign_receipt(&claims("acme-1/audit")).is_err());
    assert!(keys.receipts.sign_receipt(&ReceiptClaims { v: 2, ..claims("acme-1/evidence") }).is_err());
}

#[test]
fn envelopes_verify_and_statements_without_a_subject_are_refused() {
    let keys = auditor();
    let subject = vec![Subject::new("report.json", amc_crypto::sha256(b"report"))];
    let predicate = serde_json::json!({"run": "run-1"});
    let mut statement = Statement::new(PredicateType::Run, subject, &predicate).expect("a statement");
    let envelope = keys.envelopes.sign_statement(&statement).expect("signed");
    let envelope = Envelope::parse(envelope.to_json().as_bytes()).expect("an envelope");
    let trust = StatementTrust { keys: &[keys.envelopes.public_key()], wanted: PredicateType::Run };
    assert_eq!(Unverified::new(envelope).verify(&trust).expect("verifies").statement, statement);
    statement.subject.clear();
    assert!(keys.envelopes.sign_statement(&statement).is_err());
}

#[test]
fn a_witness_key_is_of_the_cosignature_type() {
    assert_eq!(monitor().witness.verifier_key().kind(), KeyKind::Cosignature);
    assert_eq!(monitor().log.verifier_key().kind(), KeyKind::Ed25519);
}

#[test]
fn the_key_of_a_successor_is_the_same_key_and_signs_for_that_log_alone() {
    let keys = monitor();
    let public = keys.log.public_key();
    let second = LogNumber::successor(2).expect("a successor");
    let keys = keys.of_log(second);
    assert_eq!((keys.log.origin(), keys.log.public_key()), ("acme-1/evidence/2", public));
    let head = checkpoint("acme-1/evidence/2");
    let note = Note::new(head.text(), vec![keys.log.sign_checkpoint(&head).expect("signed")]);
    note.verify_signature(&keys.log.verifier_key()).expect("verifies under the key of that name");
    for origin in ["acme-1/evidence", "acme-1/evidence/3", "acme-1/audit/2"] {
        keys.log.sign_checkpoint(&checkpoint(origin)).expect_err(origin);
        keys.receipts.sign_receipt(&claims(origin)).expect_err(origin);
    }
    let text = keys.receipts.sign_receipt(&claims("acme-1/evidence/2")).expect("signed");
    let trust = [keys.log.verifier_key()];
    let receipt = Unverified::new(Receipt::parse(&text).expect("a receipt"));
    receipt.verify(&ReceiptTrust { keys: &trust }).expect("verifies");
    assert_eq!(keys.log.of_log(LogNumber::FIRST).origin(), "acme-1/evidence");
}

#[test]
fn the_auditors_successor_key_signs_the_same_envelopes() {
    let keys = auditor();
    let public = keys.envelopes.public_key();
    let keys = keys.of_log(LogNumber::successor(3).expect("a successor"));
    assert_eq!(keys.log.origin(), "acme-1/audit/3");
    assert_eq!(keys.envelopes.public_key(), public);
}
