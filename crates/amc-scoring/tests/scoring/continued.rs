//! A process that outlives its session: what the next session owes to the one before, and what not.

use amc_core::kinds::*;
use amc_core::{FindingCode, Tier};
use amc_scoring::{Report, Status};

use crate::boundary::probe;
use crate::traces::of;
use crate::world::{Call, World, has, line, shipped};

/// What differs between the cases.
#[derive(Default, Clone, Copy)]
struct Case {
    says_so: bool,
    probed: bool,
    shown_before: bool,
}

fn report(case: Case) -> Report {
    world(case).score(&shipped(), 14)
}

/// A session with a call that goes on in another one, where the call's receipt is shown.
fn world(case: Case) -> World {
    let mut world = World::new();
    world.next_day();
    let bot = world.agent.clone();
    let first = world.open(&bot, SessionPurpose::Agent);
    world.say(&bot, first, Tier::Observed, probe(ProbePhase::Before, &[]));
    let answer = world.call(&bot, first, &Call::default());
    let result = line(&world, TraceAbout::LlmResult, answer);
    if case.shown_before {
        world.trace(&bot, first, vec![result.clone()]);
    }
    world.wait_s(3_600);
    let second = world.open(&bot, SessionPurpose::Agent);
    if case.says_so {
        world.say(&bot, second, Tier::Observed, SessionContinues { previous: first });
        world.say(&bot, first, Tier::Observed, SessionContinued { next: second });
    }
    world.seal(&bot, first, SessionOutcome::Sealed);
    if case.probed {
        world.say(&bot, second, Tier::Observed, probe(ProbePhase::During, &[]));
    }
    world.trace(&bot, second, vec![result]);
    world.exit(&bot, second, 0);
    world.seal(&bot, second, SessionOutcome::Sealed);
    world.cosign();
    world
}

const WHOLE: Case = Case { says_so: true, probed: true, shown_before: false };

#[test]
fn a_process_that_goes_on_fails_nothing_and_ends_once() {
    let report = report(WHOLE);
    assert_eq!(report.status, Status::Valid);
    assert_eq!(of(&report, "session.sealed"), (2, 0));
    assert_eq!(of(&report, "session.clean_exit"), (1, 0));
    assert_eq!(of(&report, "trace.correlated"), (1, 0));
    assert_eq!(report.correlation.valid, 1, "a receipt of the session before counts");
}

#[test]
fn a_session_that_goes_on_has_to_be_probed_too() {
    let report = report(Case { probed: false, ..WHOLE });
    assert_eq!(report.status, Status::Invalid);
    assert!(has(&report, FindingCode::TrustBoundaryUnproven));
}

#[test]
fn nothing_is_owed_to_a_session_that_the_monitor_does_not_name() {
    let report = report(Case { says_so: false, ..WHOLE });
    assert_eq!(report.status, Status::Invalid, "a probe while the agent ran says nothing of before");
    assert_eq!(of(&report, "session.clean_exit"), (1, 1));
    assert!(has(&report, FindingCode::TraceSessionMismatch));
}

#[test]
fn a_receipt_shown_in_both_sessions_is_shown_twice() {
    let report = report(Case { shown_before: true, ..WHOLE });
    assert!(has(&report, FindingCode::TraceReceiptReplay));
    assert_eq!(report.correlation.valid, 1);
}

#[test]
fn a_receipt_of_the_session_before_counts_also_where_the_window_begins_between_them() {
    let world = world(WHOLE);
    // They opened an hour apart.
    let at = (world.now.wall_ns + 1_000_000_000, 1_800);
    let report = world.score_of(&shipped(), at, (&world.evidence.events, &world.audit.events), None, None);
    assert_eq!((report.sessions.len(), report.sessions_before), (1, 1));
    assert_eq!(report.correlation.valid, 1, "{:#?}", report.findings);
    assert!(!has(&report, FindingCode::TraceEventHashNotFound));
}

#[test]
fn a_long_line_of_sessions_that_wait_for_the_first_is_judged_to_its_end() {
    const SESSIONS: u64 = 4_000;
    let mut world = World::new();
    world.next_day();
    let bot = world.agent.clone();
    let first = world.open(&bot, SessionPurpose::Agent);
    let mut previous = first;
    for _ in 1..SESSIONS {
        let next = world.open(&bot, SessionPurpose::Agent);
        world.say(&bot, next, Tier::Observed, SessionContinues { previous });
        world.seal(&bot, next, SessionOutcome::Sealed);
        previous = next;
    }
    world.seal(&bot, first, SessionOutcome::Sealed);
    world.cosign();
    let report = world.score(&shipped(), 14);
    assert_eq!(report.sessions.len() as u64, SESSIONS);
    assert!(report.sessions.iter().all(|session| session.counted), "each is judged");
}
