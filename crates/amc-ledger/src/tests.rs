//! What the tests of this crate share: keys, a clock that is told what to say, logs.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use amc_core::kinds::{
    CallOutcome, Isolation, LlmResponse, LogOpened, ProcessOutput, Role, SessionChannel, SessionOutcome,
    SessionPurpose, Stream,
};
use amc_core::{AgentId, Clock, Digest, Instant, SessionId, Tier};
use amc_crypto::note::{KeyKind, NoteSignature};
use amc_crypto::signer::{CheckpointSigner, EventSigner, SignError, event_message};
use amc_crypto::{Checkpoint, PublicKey, Signature, VerifierKey};
use amc_evidence::{Content, Draft, PayloadRef, SessionPlan};
use ed25519_dalek::{Signer as _, SigningKey};

use crate::engine::Hands;
use crate::writer::Signers;

mod attacks;
mod crashes;
mod derived;
mod forge;
mod logs;
mod succession;
mod witnessing;

pub(crate) const ORIGIN: &str = "test/evidence";

/// A role's log key for tests.
pub(crate) struct TestKey {
    key: SigningKey,
    origin: String,
}

impl TestKey {
    pub(crate) fn new(seed: u8, origin: &str) -> Arc<Self> {
        Arc::new(TestKey { key: SigningKey::from_bytes(&[seed; 32]), origin: origin.to_owned() })
    }

    pub(crate) fn public(&self) -> PublicKey {
        PublicKey::from_bytes(&self.key.verifying_key().to_bytes()).expect("a fresh key is a good key")
    }

    pub(crate) fn verifier(&self) -> VerifierKey {
        VerifierKey::new(&self.origin, KeyKind::Ed25519, self.public()).expect("a good name")
    }

    pub(crate) fn signers(self: &Arc<Self>) -> Signers {
        Signers { event: Arc::<TestKey>::clone(self), checkpoint: Arc::<TestKey>::clone(self) }
    }
}

impl EventSigner for TestKey {
    fn origin(&self) -> &str {
        &self.origin
    }

    fn public_key(&self) -> PublicKey {
        self.public()
    }

    fn sign_event(&self, event_hash: &Digest) -> Result<Signature, SignError> {
        Ok(Signature(self.key.sign(&event_message(&self.origin, event_hash)).to_bytes()))
    }
}

impl CheckpointSigner for TestKey {
    fn verifier_key(&self) -> VerifierKey {
        self.verifier()
    }

    fn sign_checkpoint(&self, checkpoint: &Checkpoint) -> Result<NoteSignature, SignError> {
        let key = self.verifier();
        let bytes = self.key.sign(checkpoint.text().as_bytes()).to_bytes().to_vec();
        Ok(NoteSignature { name: key.name().to_owned(), key_id: key.key_id(), bytes })
    }
}

/// A clock that ticks a millisecond at every reading, and can be set.
pub(crate) struct TestClock {
    wall_ns: AtomicI64,
    boot_ns: AtomicU64,
}

impl TestClock {
    pub(crate) fn new() -> Arc<Self> {
        let wall_ns = AtomicI64::new(1_700_000_000_000_000_000);
        Arc::new(TestClock { wall_ns, boot_ns: AtomicU64::new(1_000_000_000) })
    }

    /// Moves the wall clock, not the boot clock.
    pub(crate) fn shift(&self, ns: i64) {
        self.wall_ns.fetch_add(ns, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Instant {
        let wall_ns = self.wall_ns.fetch_add(1_000_000, Ordering::SeqCst);
        Instant { wall_ns, boot_ns: self.boot_ns.fetch_add(1_000_000, Ordering::SeqCst), boot_id: [7; 16] }
    }
}

pub(crate) fn opened(key: &TestKey) -> LogOpened {
    LogOpened {
        origin: key.origin.clone(),
        role: Role::Monitor,
        log_public: key.public().to_digest(),
        witness_public: Digest([9; 32]),
        software: "amc test".into(),
        predecessor: None,
    }
}

pub(crate) fn hands(key: &Arc<TestKey>) -> Hands {
    Hands { signers: key.signers(), clock: TestClock::new() }
}

pub(crate) fn agent() -> AgentId {
    AgentId::new("bot").expect("a good id")
}

pub(crate) fn session(number: u8) -> SessionId {
    SessionId([number; 16])
}

pub(crate) fn open_session(id: SessionId) -> Draft {
    let plan = SessionPlan {
        purpose: SessionPurpose::Agent,
        channel: SessionChannel::Wrapper,
        isolation: Isolation::None,
        argv: vec!["agent".into()],
        artifact: None,
        lease: None,
    };
    in_session(id, Content::OpenSession(plan))
}

pub(crate) fn seal(id: SessionId) -> Draft {
    in_session(id, Content::SealSession(SessionOutcome::Sealed))
}

fn in_session(id: SessionId, content: Content) -> Draft {
    Draft { agent: Some(agent()), session: Some(id), tier: Tier::Observed, payload: None, content }
}

/// A piece of output with its bytes.
pub(crate) fn output(id: SessionId, bytes: &[u8]) -> (Draft, Option<Vec<u8>>) {
    let fields = ProcessOutput { stream: Stream::Stdout, offset: 0, len: bytes.len() as u64 };
    let draft = Draft::in_session(agent(), id, Tier::Observed, fields);
    (draft.with_payload(PayloadRef::full(bytes, "text/plain")), Some(bytes.to_vec()))
}

/// The codes of the findings that fail a verification, in order, each once.
/// An answer to a request with this id; the index that it names is filled in, or nobody looks.
pub(crate) fn answer(request_id: &str) -> LlmResponse {
    LlmResponse {
        request_id: request_id.to_owned(),
        request_index: 4711,
        provider: "openai".to_owned(),
        status: 200,
        outcome: CallOutcome::Complete,
        model: None,
        usage: None,
        tool_calls: 0,
        refusal: false,
        first_byte_us: 1,
        duration_us: 2,
        attempt: 1,
    }
}

pub(crate) fn codes(report: &crate::VerifyReport) -> Vec<&'static str> {
    let mut codes: Vec<&'static str> =
        report.findings.iter().filter(|finding| finding.is_error()).map(|finding| finding.code.as_str()).collect();
    codes.dedup();
    codes
}

/// Copies a directory tree.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("creates");
    for entry in std::fs::read_dir(from).expect("lists") {
        let entry = entry.expect("lists");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("has a type").is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copies");
        }
    }
}
