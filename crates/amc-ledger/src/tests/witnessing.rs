//! This role as the witness of another log: what it cosigns, what it refuses, what it remembers.

use std::path::Path;
use std::sync::Arc;

use amc_core::Tier;
use amc_core::kinds::{MonitorStarted, Role};
use amc_crypto::note::{KeyKind, NoteSignature, cosignature_message};
use amc_crypto::signer::{CheckpointSigner as _, Cosigner, SignError};
use amc_crypto::{Checkpoint, Note, TrustPolicy, VerifierKey};
use amc_evidence::Draft;
use ed25519_dalek::{Signer as _, SigningKey};

use super::{ORIGIN, TestClock, TestKey, copy_dir, opened};
use crate::witness::{Submission, WitnessError, cosign, cosign_log};
use crate::{LogReader, Writer, create};

pub(super) struct WitnessKey {
    key: SigningKey,
    name: &'static str,
}

impl WitnessKey {
    pub(super) fn new(seed: u8, name: &'static str) -> Self {
        WitnessKey { key: SigningKey::from_bytes(&[seed; 32]), name }
    }

    pub(super) fn verifier(&self) -> VerifierKey {
        let public = amc_crypto::PublicKey::from_bytes(&self.key.verifying_key().to_bytes()).expect("a good key");
        VerifierKey::new(self.name, KeyKind::Cosignature, public).expect("a good name")
    }
}

impl Cosigner for WitnessKey {
    fn verifier_key(&self) -> VerifierKey {
        self.verifier()
    }

    fn cosign(&self, checkpoint: &Checkpoint, time_s: u64) -> Result<NoteSignature, SignError> {
        let key = self.verifier();
        let signature = self.key.sign(&cosignature_message(&checkpoint.text(), time_s)).to_bytes();
        let bytes = [time_s.to_be_bytes().as_slice(), &signature].concat();
        Ok(NoteSignature { name: key.name().to_owned(), key_id: key.key_id(), bytes })
    }
}

/// The witness with its own log, and the log that it witnesses.
struct Pair {
    dir: tempfile::TempDir,
    witness: WitnessKey,
    own: Writer,
    other_key: Arc<TestKey>,
    other: Writer,
    policy: TrustPolicy,
}

impl Pair {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (own_key, other_key) = (TestKey::new(1, "test/audit"), TestKey::new(2, ORIGIN));
        let witness = WitnessKey::new(3, "test/auditor-witness");
        let own = new_log(&dir.path().join("own"), &own_key);
        let other = new_log(&dir.path().join("other"), &other_key);
        let logs = [other_key.verifier(), own_key.verifier()];
        let text = TrustPolicy::for_roles(&logs, &[(Role::Auditor, witness.verifier())]);
        let policy = TrustPolicy::parse(text.as_bytes()).expect("a good policy");
        Pair { dir, witness, own, other_key, other, policy }
    }

    fn grow(&self) {
        let started = MonitorStarted { software: "amc test".into() };
        self.other.append(Draft::new(Tier::Observed, started), None).expect("appends");
        self.other.publish().expect("publishes");
    }

    fn reader(&self) -> LogReader {
        LogReader::open(&self.dir.path().join("other")).expect("opens")
    }

    fn cosign_newest(&self) -> Result<Note, WitnessError> {
        cosign_log(&self.own, &self.witness, &self.policy, &self.reader(), 1_700_000_000)
    }

    fn cosign(&self, submission: Submission) -> Result<Note, WitnessError> {
        cosign(&self.own, &self.witness, &self.policy, submission, 1_700_000_000)
    }

    fn remembered(&self) -> Option<u64> {
        self.own.with_state(|state| state.cosigned(ORIGIN).map(|head| head.size))
    }

    /// A checkpoint of the other log's key, whatever it says.
    fn signed(&self, checkpoint: &Checkpoint) -> Note {
        let signature = self.other_key.sign_checkpoint(checkpoint).expect("signs");
        Note::new(checkpoint.text(), vec![signature])
    }
}

fn new_log(dir: &Path, key: &Arc<TestKey>) -> Writer {
    std::fs::create_dir(dir).expect("a new directory");
    let clock = TestClock::new();
    create(dir, opened(key), &key.signers(), &*clock).expect("creates");
    Writer::open(dir, key.signers(), clock).expect("opens")
}

#[test]
fn a_growing_log_is_cosigned_again_and_again_and_each_time_recorded() {
    let pair = Pair::new();
    for size in 1..20 {
        let note = pair.cosign_newest().expect("cosigns");
        let cosigned = pair.policy.check_signatures(note).expect("both signatures hold");
        assert_eq!((cosigned.checkpoint.size, cosigned.witnesses.len()), (size, 1));
        assert_eq!(pair.remembered(), Some(size));
        pair.grow();
    }
}

#[test]
fn the_same_checkpoint_may_be_cosigned_again() {
    let pair = Pair::new();
    pair.cosign_newest().expect("cosigns");
    pair.cosign_newest().expect("cosigns the same size and root again");
    assert_eq!(pair.remembered(), Some(1));
}

#[test]
fn a_wrong_assumption_about_the_last_size_is_told_the_right_one() {
    let pair = Pair::new();
    pair.cosign_newest().expect("cosigns");
    pair.grow();
    let refused = pair.cosign(Submission::from_log(&pair.reader(), 0).expect("reads"));
    assert!(matches!(refused, Err(WitnessError::Conflict { size: 1 })), "{refused:?}");
    let fresh = Pair::new();
    let refused = fresh.cosign(Submission { old_size: 1, ..Submission::from_log(&fresh.reader(), 0).expect("reads") });
    assert!(matches!(refused, Err(WitnessError::Conflict { size: 0 })), "{refused:?}");
}

#[test]
fn a_log_that_went_back_is_refused() {
    let pair = Pair::new();
    let earlier = pair.dir.path().join("earlier");
    pair.grow();
    copy_dir(&pair.dir.path().join("other"), &earlier);
    pair.grow();
    pair.cosign_newest().expect("cosigns");
    let log = LogReader::open(&earlier).expect("opens");
    let refused = cosign_log(&pair.own, &pair.witness, &pair.policy, &log, 1_700_000_000);
    assert!(matches!(refused, Err(WitnessError::NotTheSame { known: 3, .. })), "{refused:?}");
    let smaller = Submission { note: log.latest_checkpoint().clone(), old_size: 3, proof: Vec::new() };
    let refused = pair.cosign(smaller);
    assert!(matches!(refused, Err(WitnessError::NotTheSame { known: 3, .. })), "{refused:?}");
    assert_eq!(pair.remembered(), Some(3));
}

#[test]
fn a_fork_and_a_false_proof_are_refused() {
    let pair = Pair::new();
    pair.cosign_newest().expect("cosigns");
    let forked = Checkpoint { origin: ORIGIN.into(), size: 1, root: amc_crypto::sha256(b"another history") };
    let refused = pair.cosign(Submission { note: pair.signed(&forked), old_size: 1, proof: Vec::new() });
    assert!(matches!(refused, Err(WitnessError::Inconsistent(_))), "{refused:?}");
    pair.grow();
    let honest = Submission::from_log(&pair.reader(), 1).expect("reads");
    for proof in [Vec::new(), [honest.proof.clone(), honest.proof.clone()].concat()] {
        let refused = pair.cosign(Submission { proof, ..honest.clone() });
        assert!(matches!(refused, Err(WitnessError::Inconsistent(_))), "{refused:?}");
    }
    assert_eq!(pair.remembered(), Some(1));
    pair.cosign(honest).expect("the honest one is still taken");
}

#[test]
fn a_checkpoint_of_an_unpinned_or_another_key_is_refused() {
    let pair = Pair::new();
    let stranger = TestKey::new(9, ORIGIN);
    let checkpoint = pair.reader().checkpoint().clone();
    let signature = stranger.sign_checkpoint(&checkpoint).expect("signs");
    let note = Note::new(checkpoint.text(), vec![signature]);
    let refused = pair.cosign(Submission { note, old_size: 0, proof: Vec::new() });
    assert!(matches!(refused, Err(WitnessError::Checkpoint(_))), "{refused:?}");
    let elsewhere = Checkpoint { origin: "elsewhere/evidence".into(), ..checkpoint };
    let refused = pair.cosign(Submission { note: pair.signed(&elsewhere), old_size: 0, proof: Vec::new() });
    assert!(matches!(refused, Err(WitnessError::Checkpoint(_))), "{refused:?}");
    assert_eq!(pair.remembered(), None);
}

#[test]
fn an_empty_log_cosigned_once_is_not_shut_out_for_ever() {
    let pair = Pair::new();
    let odd = Checkpoint { origin: ORIGIN.into(), size: 0, root: amc_crypto::sha256(b"not empty") };
    let refused = pair.cosign(Submission { note: pair.signed(&odd), old_size: 0, proof: Vec::new() });
    assert!(matches!(refused, Err(WitnessError::Inconsistent(_))), "{refused:?}");
    let empty = Checkpoint { origin: ORIGIN.into(), size: 0, root: amc_crypto::sha256(b"") };
    pair.cosign(Submission { note: pair.signed(&empty), old_size: 0, proof: Vec::new() }).expect("cosigns");
    assert_eq!(pair.remembered(), Some(0));
    pair.cosign_newest().expect("the first event comes after the empty log");
    assert_eq!(pair.remembered(), Some(1));
}
