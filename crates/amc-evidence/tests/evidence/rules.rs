//! The state machine over a log: what it builds it accepts, and each broken rule has its code.

use crate::common::{agent, at, build, head, judge, open, output, rechain, seal, session, take};
use amc_core::kinds::{Fields, KeyPurpose, KeyRotated, SessionSeal};
use amc_core::{Digest, FindingCode, Tier};
use amc_evidence::log::BuildError;
use amc_evidence::{Draft, Event, LogState, NextEvent};
use proptest::prelude::*;

fn small_log() -> Vec<Event> {
    build([
        open("bot", 1),
        output("bot", 1, 0),
        output("bot", 1, 1),
        seal("bot", 1),
        head("bot"),
        open("bot", 2),
        output("bot", 2, 0),
        seal("bot", 2),
        head("bot"),
    ])
}

#[test]
fn a_log_that_was_built_has_no_findings() {
    assert_eq!(judge(&small_log()), []);
}

#[test]
fn seals_say_what_the_session_held() {
    let events = small_log();
    let Some(Fields::SessionSeal(seal)) = Event::decode(&events[3].encode()).expect("decodes").1 else {
        panic!("the fourth event is the seal");
    };
    let hashes = events[..3].iter().map(|event| amc_crypto::leaf_hash(&event.encode()));
    assert_eq!((seal.events, seal.first_index, seal.last_index), (3, 0, 2));
    assert_eq!(seal.root, amc_crypto::merkle::root_of(hashes));
}

#[test]
fn event_removed() {
    let mut events = small_log();
    events.remove(1);
    let found = judge(&events);
    assert!(found.contains(&(1, "EVENT_OUT_OF_ORDER")) && found.contains(&(1, "CHAIN_BROKEN")), "{found:?}");
    assert!(found.contains(&(1, "SESSION_GAP")), "{found:?}");
}

#[test]
fn event_removed_and_chained_anew() {
    let mut events = small_log();
    events.remove(1);
    let found = judge(&rechain(events));
    assert_eq!(found[..2], [(1, "SESSION_GAP"), (2, "SESSION_GAP")], "sequence numbers do not close up");
    assert!(found.contains(&(2, "SESSION_SEAL_INVALID")), "{found:?}");
}

#[test]
fn events_reordered() {
    let mut events = small_log();
    events.swap(1, 2);
    let found = judge(&events);
    assert!(found.contains(&(1, "EVENT_OUT_OF_ORDER")) && found.contains(&(1, "CHAIN_BROKEN")), "{found:?}");
}

#[test]
fn session_left_out() {
    let events = small_log();
    let found = judge(&rechain(events[5..].to_vec()));
    assert!(found.contains(&(0, "SESSION_GAP")), "the first session here says that it is number 2: {found:?}");
}

#[test]
fn seal_replayed() {
    let mut events = small_log();
    events.push(events[3].clone());
    let found = judge(&rechain(events));
    assert!(found.contains(&(9, "SESSION_SEAL_INVALID")), "{found:?}");
}

#[test]
fn seal_with_another_count() {
    let mut events = small_log();
    let Some(Fields::SessionSeal(seal)) = Event::decode(&events[3].encode()).expect("decodes").1 else {
        panic!("the fourth event is the seal");
    };
    events[3].fields = Fields::from(SessionSeal { events: 2, ..seal }).encode();
    assert!(judge(&rechain(events)).contains(&(3, "SESSION_SEAL_INVALID")));
}

#[test]
fn event_after_its_session_was_sealed() {
    let mut events = small_log();
    events.insert(4, Event { session_seq: 4, ..events[2].clone() });
    assert!(judge(&rechain(events)).contains(&(4, "SESSION_GAP")));
}

#[test]
fn event_of_another_agent_in_a_session() {
    let mut events = small_log();
    events[1].agent = Some(agent("other"));
    assert!(judge(&rechain(events)).contains(&(1, "SESSION_GAP")));
}

#[test]
fn session_opened_twice() {
    let mut events = small_log();
    events.insert(1, events[0].clone());
    assert!(judge(&rechain(events)).contains(&(1, "SESSION_GAP")));
}

#[test]
fn head_that_hides_a_session() {
    let events = small_log();
    let mut changed = events.clone();
    changed[8].fields.clone_from(&events[4].fields);
    assert!(judge(&rechain(changed)).contains(&(8, "SESSION_GAP")));
}

#[test]
fn head_within_a_session() {
    let mut events = small_log();
    let hidden = Event { session: Some(session(2)), session_seq: 1, ..events[4].clone() };
    events.insert(6, hidden);
    let found = judge(&rechain(events));
    assert_eq!(found.iter().filter(|finding| **finding == (6, "SESSION_GAP")).count(), 2, "its place and its words");
    let inside = Draft { session: Some(session(1)), ..head("bot") };
    assert_eq!(LogState::new(crate::common::ORIGIN).build(inside, &at(0)), Err(BuildError::HeadInSession));
}

#[test]
fn wall_clock_back() {
    let mut events = small_log();
    events[2].wall_ns = events[1].wall_ns - 1;
    let found = judge(&rechain(events));
    assert!(found.contains(&(2, "CLOCK_ROLLBACK")), "{found:?}");
}

#[test]
fn clock_events_are_due_when_the_clocks_part() {
    let mut state = LogState::new(crate::common::ORIGIN);
    assert_eq!(state.clock_event(&at(5)), None, "nothing to compare with");
    let event = state.build(open("bot", 1), &at(5_000)).expect("fits").event;
    assert_eq!(take(&mut state, &event), []);
    assert_eq!(state.clock_event(&at(7_000)), None);
    assert!(matches!(state.clock_event(&at(4_999)), Some(Fields::ClockRollback(back)) if back.by_ns == 1_000_000));
    let mut stepped = at(6_000);
    stepped.wall_ns += 2_000_000_000;
    assert_eq!(state.clock_event(&stepped), None, "two seconds are no step");
    stepped.wall_ns += 1;
    assert!(matches!(state.clock_event(&stepped), Some(Fields::ClockStep(step)) if step.delta_ns == 2_000_000_001));
    stepped.boot_id = [8; 16];
    assert_eq!(state.clock_event(&stepped), None, "boot clocks do not compare across a reboot");
    let mut slept = at(5_000);
    slept.wall_ns += 3_600_000_000_000;
    slept.boot_ns += 3_600_000_000_000;
    assert_eq!(state.clock_event(&slept), None, "sleep is no step");
}

#[test]
fn drafts_that_do_not_fit_change_nothing() {
    let mut state = LogState::new(crate::common::ORIGIN);
    let event = state.build(open("bot", 1), &at(0)).expect("fits").event;
    assert_eq!(take(&mut state, &event), []);
    let before = state.clone();
    let id = session(1);
    assert_eq!(state.build(open("bot", 1), &at(1)), Err(BuildError::SessionExists(id)));
    assert_eq!(state.build(output("other", 1, 0), &at(1)), Err(BuildError::SessionNotOpen(id)));
    assert_eq!(state.build(output("bot", 2, 0), &at(1)), Err(BuildError::SessionNotOpen(session(2))));
    assert_eq!(state.build(Draft { agent: None, ..head("bot") }, &at(1)), Err(BuildError::Incomplete));
    let too_long = amc_core::kinds::MonitorStarted { software: "x".repeat(70_000) };
    assert!(matches!(state.build(Draft::new(Tier::Observed, too_long), &at(1)), Err(BuildError::TooLong(_))));
    assert_eq!(state, before);
}

#[test]
fn a_state_resumes_from_its_bytes() {
    let events = small_log();
    let mut whole = LogState::new(crate::common::ORIGIN);
    for (index, event) in events.iter().enumerate() {
        let bytes = amc_core::codec::encode(&whole);
        let mut resumed: LogState = amc_core::codec::decode_strict(&bytes).expect("decodes");
        assert_eq!(take(&mut resumed, event), [], "at {index}");
        take(&mut whole, event);
        assert_eq!(resumed, whole);
    }
}

#[test]
fn findings_name_the_log_and_the_place() {
    let mut state = LogState::new(crate::common::ORIGIN);
    let event = state.build(open("bot", 1), &at(0)).expect("fits").event;
    let findings = take(&mut state, &Event { prev: Digest([1; 32]), ..event });
    assert_eq!(findings[0].code, FindingCode::ChainBroken);
    assert_eq!(findings[0].subject, "test/evidence#0");
}

#[test]
fn a_rotation_of_the_witness_key_is_no_rotation_of_the_log_key() {
    use amc_crypto::Unverified;
    use amc_evidence::{EventTrust, KeyHistory};
    let (first, next) = (crate::common::key(1), crate::common::key(2));
    let mut keys = KeyHistory::pinned(crate::common::public(&first));
    for (purpose, spans) in [(KeyPurpose::Witness, 1), (KeyPurpose::Log, 2)] {
        let fields = KeyRotated { purpose, public: crate::common::public(&next).to_digest() };
        let event =
            LogState::new(crate::common::ORIGIN).build(Draft::new(Tier::Observed, fields), &at(0)).expect("fits").event;
        let signed = crate::common::sign(&event, crate::common::ORIGIN, &first);
        let trust = EventTrust { origin: crate::common::ORIGIN, keys: &keys };
        let record = Unverified::new(signed).verify(&trust).expect("verifies");
        assert!(keys.observe(&record));
        assert_eq!(keys.spans().len(), spans);
    }
    assert_eq!((keys.key_at(0), keys.key_at(1)), (crate::common::public(&first), crate::common::public(&next)));
    assert_eq!(KeyHistory::from_spans(keys.spans().to_vec()), Some(keys.clone()));
    assert_eq!(KeyHistory::from_spans(vec![(1, crate::common::public(&first))]), None, "the first key begins at 0");
    assert_eq!(KeyHistory::from_spans(Vec::new()), None);
}

/// What producers may ask for in any order, sensible or not.
fn any_draft() -> impl Strategy<Value = Draft> {
    let name = prop_oneof![Just("bot"), Just("other")];
    (0..4u8, name, 1..5u8).prop_map(|(what, name, number)| match what {
        0 => open(name, number),
        1 => output(name, number, 0),
        2 => seal(name, number),
        _ => head(name),
    })
}

proptest! {
    #[test]
    fn whatever_is_asked_the_log_verifies(drafts in proptest::collection::vec(any_draft(), 1..60)) {
        let mut writer = LogState::new(crate::common::ORIGIN);
        let mut verifier = LogState::new(crate::common::ORIGIN);
        for (ms, draft) in (0..).zip(drafts) {
            let Ok(NextEvent { event, .. }) = writer.build(draft, &at(ms)) else { continue };
            prop_assert_eq!(take(&mut writer, &event), []);
            prop_assert_eq!(take(&mut verifier, &event), []);
        }
        prop_assert_eq!(writer.checkpoint(), verifier.checkpoint());
        prop_assert_eq!(writer, verifier);
    }
}
