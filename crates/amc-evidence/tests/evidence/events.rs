//! The event's bytes: one spelling, fixed for good; and its signature.

use crate::common::{ORIGIN, agent, at, key, open, public, session, sign};
use amc_core::kinds::{CallOutcome, Fields, LlmResponse, ProcessOutput, Stream};
use amc_core::{Digest, Tier, digest};
use amc_crypto::Unverified;
use amc_evidence::event::{EventError, Stored, StoredBytes};
use amc_evidence::{
    Changed, Draft, Event, EventTrust, KeyHistory, LogState, PayloadRef, Seen, SeenHash, SignedEvent, receipt,
};
use proptest::prelude::*;

fn sample() -> Event {
    let fields = Fields::from(ProcessOutput { stream: Stream::Stderr, offset: 300, len: 3 });
    Event {
        version: 1,
        index: 300,
        prev: Digest([0xaa; 32]),
        wall_ns: -1,
        boot_ns: 128,
        boot_id: [0xbb; 16],
        agent: Some(agent("bot")),
        session: Some(session(0xcc)),
        session_seq: 2,
        tier: Tier::Observed,
        payload: Some(PayloadRef {
            wire_sha256: Digest([0xdd; 32]),
            wire_len: 3,
            media_type: "a/b".into(),
            stored: Stored::Redacted(StoredBytes { sha256: Digest([0xee; 32]), len: 2, rules: "r1".into() }),
        }),
        kind: fields.kind(),
        fields: fields.encode(),
    }
}

#[test]
fn the_bytes_are_those_of_the_format_page() {
    let expected = [
        "01",             // version
        "ac02",           // index 300
        &"aa".repeat(32), // prev
        "01",             // wall_ns -1, zigzag
        "8001",           // boot_ns 128
        &"bb".repeat(16), // boot_id
        "01",
        "03",
        "626f74", // agent: some, 3 bytes, "bot"
        "01",
        &"cc".repeat(16), // session: some
        "02",             // session_seq
        "02",             // tier
        "01",
        &"dd".repeat(32), // payload: some, wire_sha256
        "03",
        "03",
        "612f62", // wire_len, media_type
        "01",
        &"ee".repeat(32), // stored: redacted, its digest
        "02",
        "02",
        "7231", // its length, the rules
        "6e",   // kind 110
        "04",
        "02",
        "ac02",
        "03", // fields: 4 bytes: stderr, offset 300, len 3
    ]
    .concat();
    assert_eq!(digest::hex(&sample().encode()), expected);
}

#[test]
fn the_hash_is_the_leaf_hash() {
    let signed = SignedEvent { body: sample().encode(), signature: amc_crypto::Signature([0; 64]) };
    assert_eq!(signed.event_hash(), amc_crypto::sha256(&[&[0], signed.body.as_slice()].concat()));
}

#[test]
fn bytes_left_over() {
    let mut body = sample().encode();
    body.push(0);
    assert!(matches!(Event::decode(&body), Err(EventError::Codec(_))));
}

#[test]
fn overlong_integer() {
    let mut body = sample().encode();
    // The session_seq of 2, spelt in two bytes.
    let place = 1 + 2 + 32 + 1 + 2 + 16 + 5 + 17;
    assert_eq!(body[place], 2);
    body.splice(place..=place, [0x82, 0x00]);
    assert!(matches!(Event::decode(&body), Err(EventError::Codec(_))));
}

#[test]
fn every_prefix_is_refused() {
    let body = sample().encode();
    for len in 0..body.len() {
        assert!(Event::decode(&body[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn another_version() {
    assert_eq!(Event::decode(&Event { version: 2, ..sample() }.encode()), Err(EventError::Version(2)));
}

#[test]
fn parts_that_are_too_long() {
    let mut long = sample();
    long.payload.as_mut().expect("has one").media_type = "x".repeat(128);
    assert_eq!(Event::decode(&long.encode()), Err(EventError::OutOfBounds));
    let mut long = sample();
    if let Some(PayloadRef { stored: Stored::Redacted(stored), .. }) = &mut long.payload {
        stored.rules = "x".repeat(256);
    }
    assert_eq!(Event::decode(&long.encode()), Err(EventError::OutOfBounds));
    let body = Event { kind: 60_000, fields: vec![0; 65_536], ..sample() }.encode();
    assert_eq!(Event::decode(&body), Err(EventError::TooLong(body.len())));
}

#[test]
fn fields_that_are_not_their_kind() {
    assert!(matches!(
        Event::decode(&Event { fields: vec![9], ..sample() }.encode()),
        Err(EventError::Fields { kind: 110, .. })
    ));
}

#[test]
fn unknown_kinds_are_envelopes() {
    let event = Event { kind: 60_000, fields: b"anything".to_vec(), ..sample() };
    assert_eq!(Event::decode(&event.encode()), Ok((event, None)));
}

#[test]
fn signatures_hold_for_one_log_one_key_one_body() {
    let (mine, other) = (key(1), key(2));
    let keys = KeyHistory::pinned(public(&mine));
    let trust = EventTrust { origin: ORIGIN, keys: &keys };
    let good = sign(&sample(), ORIGIN, &mine);
    let record = Unverified::new(good.clone()).verify(&trust).expect("verifies");
    assert_eq!((record.event.clone(), record.hash, record.signed.clone()), (sample(), good.event_hash(), good.clone()));
    let another_log = sign(&sample(), "test/audit", &mine);
    let another_key = sign(&sample(), ORIGIN, &other);
    let another_body = SignedEvent { body: Event { index: 301, ..sample() }.encode(), ..good.clone() };
    let mut another_signature = good;
    another_signature.signature.0[0] ^= 1;
    for (what, bad) in
        [("log", another_log), ("key", another_key), ("body", another_body), ("signature", another_signature)]
    {
        assert!(Unverified::new(bad).verify(&trust).is_err(), "another {what}");
    }
}

#[test]
fn what_was_seen_is_read_again_or_refused() {
    let mine = key(1);
    let keys = KeyHistory::pinned(public(&mine));
    let good = sign(&sample(), ORIGIN, &mine);
    let record = Unverified::new(good.clone()).verify(&EventTrust { origin: ORIGIN, keys: &keys }).expect("verifies");
    let (seen, seen_hash) = (Seen::of(&record), SeenHash::of(&record));
    assert_eq!(seen_hash.event_hash(), good.event_hash());
    let again = Unverified::new(good.clone()).verify(&seen).expect("the same bytes");
    assert_eq!(*again, *record);
    let again = Unverified::new(good.clone()).verify(&seen_hash).expect("the same body");
    assert_eq!((&again.event, &again.fields, again.hash), (&record.event, &record.fields, record.hash));

    let another_body = SignedEvent { body: Event { index: 301, ..sample() }.encode(), ..good.clone() };
    let no_event = SignedEvent { body: b"?".to_vec(), ..good.clone() };
    let mut another_signature = good;
    another_signature.signature.0[63] ^= 1;
    for (what, bad) in [("body", &another_body), ("no event", &no_event), ("signature", &another_signature)] {
        assert_eq!(Unverified::new(bad.clone()).verify(&seen), Err(Changed), "{what}");
    }
    for (what, bad) in [("body", another_body), ("no event", no_event)] {
        assert_eq!(Unverified::new(bad).verify(&seen_hash), Err(Changed), "{what}");
    }
}

fn response() -> (Event, Fields, Digest) {
    let mut state = LogState::new(ORIGIN);
    let open = state.build(open("bot", 1), &at(0)).expect("fits").event;
    assert_eq!(crate::common::take(&mut state, &open), []);
    let fields = LlmResponse {
        request_id: "req-1".into(),
        request_index: 0,
        provider: "demo".into(),
        status: 200,
        outcome: CallOutcome::Complete,
        model: Some("m".into()),
        usage: None,
        tool_calls: 0,
        refusal: false,
        first_byte_us: 1,
        duration_us: 2,
        attempt: 1,
    };
    let draft = Draft::in_session(agent("bot"), session(1), Tier::Observed, fields.clone());
    let event =
        state.build(draft.with_payload(PayloadRef::full(b"body", "application/json")), &at(1)).expect("fits").event;
    let hash = amc_crypto::leaf_hash(&event.encode());
    (event, fields.into(), hash)
}

#[test]
fn a_receipt_is_compared_in_every_claim() {
    let (event, fields, hash) = response();
    let claims = receipt::claims_of(ORIGIN, &event, &fields, hash).expect("responses have receipts");
    let mine = key(1);
    let keys = KeyHistory::pinned(public(&mine));
    let record = Unverified::new(sign(&event, ORIGIN, &mine))
        .verify(&EventTrust { origin: ORIGIN, keys: &keys })
        .expect("verifies");
    assert_eq!(receipt::compare(&claims, ORIGIN, &record), None);
    let code = |change: fn(&mut amc_crypto::jws::ReceiptClaims)| {
        let mut changed = claims.clone();
        change(&mut changed);
        receipt::compare(&changed, ORIGIN, &record).map(|finding| finding.code.as_str())
    };
    assert_eq!(code(|claims| claims.event_hash = Digest([1; 32])), Some("TRACE_EVENT_HASH_NOT_FOUND"));
    assert_eq!(code(|claims| claims.event_index += 1), Some("TRACE_EVENT_HASH_NOT_FOUND"));
    assert_eq!(code(|claims| claims.log = "test/audit".into()), Some("TRACE_EVENT_HASH_NOT_FOUND"));
    assert_eq!(code(|claims| claims.body_sha256 = Digest([1; 32])), Some("TRACE_BODY_HASH_MISMATCH"));
    assert_eq!(code(|claims| claims.agent_id = agent("other")), Some("TRACE_AGENT_MISMATCH"));
    assert_eq!(code(|claims| claims.session_id = session(9)), Some("TRACE_SESSION_MISMATCH"));
    assert_eq!(code(|claims| claims.model = None), Some("TRACE_RECEIPT_INVALID"));
    assert_eq!(code(|claims| claims.request_id = "req-2".into()), Some("TRACE_RECEIPT_INVALID"));
    assert_eq!(code(|claims| claims.v = 2), Some("TRACE_RECEIPT_INVALID"));
}

#[test]
fn events_without_calls_have_no_receipts() {
    let (event, ..) = response();
    let fields = Fields::from(ProcessOutput { stream: Stream::Stdout, offset: 0, len: 1 });
    assert_eq!(receipt::claims_of(ORIGIN, &event, &fields, Digest::ZERO), None);
}

proptest! {
    #[test]
    fn any_bytes_decode_to_themselves_or_not_at_all(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok((event, _)) = Event::decode(&body) {
            prop_assert_eq!(event.encode(), body);
        }
    }

    #[test]
    fn a_changed_byte_never_decodes_to_the_same_event(at in 0usize..170, flip in 1u8..) {
        let mut body = sample().encode();
        let at = at % body.len();
        body[at] ^= flip;
        if let Ok((event, _)) = Event::decode(&body) {
            prop_assert_ne!(&event, &sample());
            prop_assert_eq!(event.encode(), body);
        }
    }
}
