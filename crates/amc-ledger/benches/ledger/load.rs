//! The load: a key, a clock, payloads of 1 KiB, producers.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use amc_core::kinds::{
    Isolation, LogOpened, ProcessOutput, Role, SessionChannel, SessionOutcome, SessionPurpose, Stream,
};
use amc_core::{AgentId, Clock, Digest, SessionId, Tier};
use amc_crypto::note::{KeyKind, NoteSignature};
use amc_crypto::signer::{CheckpointSigner, EventSigner, SignError, event_message};
use amc_crypto::{Checkpoint, PublicKey, Signature, VerifierKey};
use amc_evidence::{Content, Draft, PayloadRef, SessionPlan};
use amc_ledger::{Pending, Signers, Writer};
use ed25519_dalek::{Signer as _, SigningKey};

const ORIGIN: &str = "bench/evidence";
/// Bytes of a payload.
pub(crate) const PAYLOAD_BYTES: usize = 1024;

/// The log's key.
pub(crate) struct Key(SigningKey);

impl Key {
    pub(crate) fn new() -> Self {
        Key(SigningKey::from_bytes(&[42; 32]))
    }

    pub(crate) fn verifier(&self) -> VerifierKey {
        VerifierKey::new(ORIGIN, KeyKind::Ed25519, self.public_key()).expect("a good name")
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }

    pub(crate) fn signers() -> Signers {
        Signers { event: Arc::new(Key::new()), checkpoint: Arc::new(Key::new()) }
    }
}

impl EventSigner for Key {
    fn origin(&self) -> &str {
        ORIGIN
    }

    fn public_key(&self) -> PublicKey {
        PublicKey::from_bytes(&self.0.verifying_key().to_bytes()).expect("a good key")
    }

    fn sign_event(&self, event_hash: &Digest) -> Result<Signature, SignError> {
        Ok(self.sign(&event_message(ORIGIN, event_hash)))
    }
}

impl CheckpointSigner for Key {
    fn verifier_key(&self) -> VerifierKey {
        self.verifier()
    }

    fn sign_checkpoint(&self, checkpoint: &Checkpoint) -> Result<NoteSignature, SignError> {
        let key = self.verifier();
        let bytes = self.sign(checkpoint.text().as_bytes()).0.to_vec();
        Ok(NoteSignature { name: key.name().to_owned(), key_id: key.key_id(), bytes })
    }
}

/// The machine's clocks.
struct Now(Instant);

impl Clock for Now {
    fn now(&self) -> amc_core::Instant {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).expect("some centuries");
        amc_core::Instant {
            wall_ns: i64::try_from(wall.as_nanos()).expect("some centuries"),
            boot_ns: nanos(self.0.elapsed()),
            boot_id: [1; 16],
        }
    }
}

/// Opens the log in `dir`, after creating it where there is none.
pub(crate) fn open(dir: &Path) -> Writer {
    let (key, clock) = (Key::new(), Now(Instant::now()));
    if !dir.join("segments").exists() {
        let opened = LogOpened {
            origin: ORIGIN.into(),
            role: Role::Monitor,
            log_public: key.public_key().to_digest(),
            witness_public: Digest([9; 32]),
            software: "bench".into(),
            predecessor: None,
        };
        amc_ledger::create(dir, opened, &Key::signers(), &clock).expect("creates a log");
    }
    Writer::open(dir, Key::signers(), Arc::new(clock)).expect("opens the log")
}

fn agent() -> AgentId {
    AgentId::new("bench").expect("a good id")
}

/// Opens a session, numbered by the log's size.
pub(crate) fn open_session(writer: &Writer) -> SessionId {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&writer.with_state(amc_evidence::LogState::size).to_be_bytes());
    let plan = SessionPlan {
        purpose: SessionPurpose::Agent,
        channel: SessionChannel::Wrapper,
        isolation: Isolation::None,
        argv: vec!["bench".into()],
        artifact: None,
        lease: None,
    };
    session_event(writer, SessionId(id), Content::OpenSession(plan));
    SessionId(id)
}

/// Seals it.
pub(crate) fn seal(writer: &Writer, session: SessionId) {
    session_event(writer, session, Content::SealSession(SessionOutcome::Sealed));
}

fn session_event(writer: &Writer, session: SessionId, content: Content) {
    let draft = Draft { agent: Some(agent()), session: Some(session), tier: Tier::Observed, payload: None, content };
    writer.append(draft, None).expect("appends");
}

/// A piece of output: 1 KiB of hex digits, which compress to little more than half.
fn output(session: SessionId, state: &mut u64) -> (Draft, Option<Vec<u8>>) {
    let mut bytes = Vec::with_capacity(PAYLOAD_BYTES);
    while bytes.len() < PAYLOAD_BYTES {
        // xorshift64: quick, and no content comes twice.
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        bytes.extend_from_slice(format!("{state:016x}").as_bytes());
    }
    let fields = ProcessOutput { stream: Stream::Stdout, offset: 0, len: PAYLOAD_BYTES as u64 };
    let draft = Draft::in_session(agent(), session, Tier::Observed, fields);
    (draft.with_payload(PayloadRef::full(&bytes, "text/plain")), Some(bytes))
}

/// When producers stop.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    /// So many appends in all.
    Count(u64),
    /// This long.
    Time(Duration),
}

/// Runs producers and gives the latency of every append, in microseconds, in no order.
pub(crate) fn produce(
    writer: &Writer,
    session: SessionId,
    producers: usize,
    in_flight: usize,
    until: Until,
) -> Vec<u32> {
    let (begin, taken) = (Instant::now(), AtomicU64::new(0));
    let more = || match until {
        Until::Count(count) => taken.fetch_add(1, Ordering::Relaxed) < count,
        Until::Time(time) => begin.elapsed() < time,
    };
    let seed = writer.with_state(amc_evidence::LogState::size);
    let producer = |number: usize| {
        let mut state = 0x9e37_79b9_7f4a_7c15 ^ (seed << 20) ^ (number as u64 + 1);
        let (mut waiting, mut latencies) = (VecDeque::<(Instant, Pending)>::new(), Vec::new());
        let mut finish = |(begun, pending): (Instant, Pending)| {
            pending.wait().expect("appends");
            latencies.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
        };
        while more() {
            let (draft, bytes) = output(session, &mut state);
            let begun = Instant::now();
            waiting.push_back((begun, writer.submit(draft, bytes).expect("takes it")));
            if waiting.len() == in_flight {
                waiting.pop_front().into_iter().for_each(&mut finish);
            }
        }
        waiting.into_iter().for_each(&mut finish);
        latencies
    };
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..producers).map(|number| scope.spawn(move || producer(number))).collect();
        handles.into_iter().flat_map(|handle| handle.join().expect("a producer ends")).collect()
    })
}
