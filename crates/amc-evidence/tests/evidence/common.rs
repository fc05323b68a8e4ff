//! Keys, drafts and small logs for the tests of this crate.

use amc_core::kinds::{Isolation, ProcessOutput, SessionChannel, SessionOutcome, SessionPurpose, Stream};
use amc_core::{AgentId, Finding, Instant, SessionId, Tier};
use amc_crypto::signer::event_message;
use amc_crypto::{PublicKey, Signature};
use amc_evidence::{Content, Draft, Event, LogState, SessionPlan, SignedEvent};
use ed25519_dalek::{Signer as _, SigningKey};

pub(crate) const ORIGIN: &str = "test/evidence";

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub(crate) fn public(key: &SigningKey) -> PublicKey {
    PublicKey::from_bytes(&key.verifying_key().to_bytes()).expect("a fresh key is a good key")
}

pub(crate) fn sign(event: &Event, origin: &str, key: &SigningKey) -> SignedEvent {
    let body = event.encode();
    let message = event_message(origin, &amc_crypto::leaf_hash(&body));
    SignedEvent { body, signature: Signature(key.sign(&message).to_bytes()) }
}

pub(crate) fn agent(name: &str) -> AgentId {
    AgentId::new(name).expect("a good id")
}

pub(crate) fn session(number: u8) -> SessionId {
    SessionId([number; 16])
}

pub(crate) fn at(ms: i64) -> Instant {
    let boot_ns = u64::try_from(ms).expect("after the boot") * 1_000_000;
    Instant { wall_ns: 1_700_000_000_000_000_000 + ms * 1_000_000, boot_ns, boot_id: [7; 16] }
}

pub(crate) fn open(name: &str, number: u8) -> Draft {
    let plan = SessionPlan {
        purpose: SessionPurpose::Agent,
        channel: SessionChannel::Wrapper,
        isolation: Isolation::None,
        argv: vec!["agent".into(), "--work".into()],
        artifact: None,
        lease: None,
    };
    in_session(name, number, Content::OpenSession(plan))
}

pub(crate) fn seal(name: &str, number: u8) -> Draft {
    in_session(name, number, Content::SealSession(SessionOutcome::Sealed))
}

pub(crate) fn output(name: &str, number: u8, offset: u64) -> Draft {
    let fields = ProcessOutput { stream: Stream::Stdout, offset, len: 1 };
    in_session(name, number, Content::Fields(fields.into()))
}

pub(crate) fn head(name: &str) -> Draft {
    let draft = in_session(name, 0, Content::AgentHead);
    Draft { session: None, ..draft }
}

fn in_session(name: &str, number: u8, content: Content) -> Draft {
    Draft { agent: Some(agent(name)), session: Some(session(number)), tier: Tier::Observed, payload: None, content }
}

/// Builds the events of these drafts one millisecond apart.
pub(crate) fn build(drafts: impl IntoIterator<Item = Draft>) -> Vec<Event> {
    let mut state = LogState::new(ORIGIN);
    let mut events = Vec::new();
    for (ms, draft) in (0..).zip(drafts) {
        let event = state.build(draft, &at(ms)).expect("fits").event;
        assert_eq!(take(&mut state, &event), [], "what the rules build they accept");
        events.push(event);
    }
    events
}

/// Applies an event as a verifier does: from its bytes.
pub(crate) fn take(state: &mut LogState, event: &Event) -> Vec<Finding> {
    let body = event.encode();
    let (event, fields) = Event::decode(&body).expect("decodes");
    state.apply(&event, fields.as_ref(), amc_crypto::leaf_hash(&body))
}

/// Chains and numbers events anew, as somebody with the key would.
pub(crate) fn rechain(events: impl IntoIterator<Item = Event>) -> Vec<Event> {
    let mut prev = amc_core::Digest::ZERO;
    let chain = (0u64..).zip(events).map(|(index, event)| {
        let event = Event { index, prev, ..event };
        prev = amc_crypto::leaf_hash(&event.encode());
        event
    });
    chain.collect()
}

/// The codes with the index of the event at which each was found.
pub(crate) fn judge(events: &[Event]) -> Vec<(usize, &'static str)> {
    let mut state = LogState::new(ORIGIN);
    let found = events.iter().enumerate().flat_map(|(index, event)| {
        take(&mut state, event).into_iter().map(move |finding| (index, finding.code.as_str()))
    });
    found.collect()
}
