//! Whole runs over real logs: windows, sessions, findings, status, and the bytes of a report.

use crate::world::{Call, DAY_S, World, agent, has, level_of, records, shipped, small_bank};
use amc_core::kinds::*;
use amc_core::timestamp::NS_PER_S;
use amc_core::{FindingCode, Tier};
use amc_evidence::VerifiedEvent;
use amc_scoring::{Claims, Label, Report, Status, Target, select_audit};

fn selected(world: &World, as_of_ns: i64, window_s: u64) -> (Vec<VerifiedEvent>, Vec<VerifiedEvent>) {
    let chosen = world.select((as_of_ns, window_s), &world.evidence.events);
    let evidence = world.evidence.events.iter().filter(|event| chosen.contains(&event.event.index)).cloned().collect();
    let chosen = select_audit(&world.agent, records(&world.audit.events));
    let audit = world.audit.events.iter().filter(|event| chosen.contains(&event.event.index)).cloned().collect();
    (evidence, audit)
}

/// A busy workspace: another agent, tests, drills, broken configurations, clock trouble, failures.
fn busy() -> World {
    let mut world = World::new();
    let (bot, other) = (world.agent.clone(), agent("other"));
    world.days(6, 3);
    for purpose in [SessionPurpose::Agent, SessionPurpose::Drill, SessionPurpose::Test] {
        let session = world.open(&other, purpose);
        world.call(&other, session, &Call::default());
        world.seal(&other, session, SessionOutcome::Sealed);
    }
    world.load_config("gateway.yaml", ConfigState::Unsigned, 1);
    world.days(1, 2);
    world.load_config("gateway.yaml", ConfigState::Signed, 1);
    world.load_config("agents/other/agent.config.yaml", ConfigState::Unsigned, 1);
    world.sign_config("agents/bot/gatePolicy.json", 1);
    world.note(AgentKeyIgnored { provider: "demo".into(), header: "authorization".into() });
    let failing = Call { status: 500, ..Call::default() };
    world.session(2, &failing);
    world.note(LogRecovered { bytes_cut: 12 });
    world.next_day();
    world.test_session(0);
    let drill = world.open(&bot, SessionPurpose::Drill);
    world.seal(&bot, drill, SessionOutcome::Interrupted);
    world.next_day();
    world.now.wall_ns += 5 * NS_PER_S;
    world.note(ClockStep { delta_ns: 5 * NS_PER_S });
    world.days(5, 4);
    let lost = world.open(&bot, SessionPurpose::Agent);
    world.call(&bot, lost, &Call::default());
    world.days(2, 1);
    world.seal(&bot, lost, SessionOutcome::Recovered);
    world.open(&bot, SessionPurpose::Agent);
    world.wait_s(60);
    world.hourly_head();
    world
}

#[test]
fn the_whole_log_and_the_selection_give_the_same_bytes_in_any_order() {
    let world = busy();
    let bank = shipped();
    let newest = world.now.wall_ns + NS_PER_S;
    let past = newest - i64::try_from(4 * DAY_S).unwrap() * NS_PER_S;
    for (as_of_ns, days) in [(newest, 3), (newest, 8), (newest, 14), (newest, 400), (past, 5), (past, 1), (0, 14)] {
        let at = (as_of_ns, days * DAY_S);
        let whole = world.score_of(&bank, at, (&world.evidence.events, &world.audit.events), None, None);
        let (evidence, audit) = selected(&world, at.0, at.1);
        let part = world.score_of(&bank, at, (&evidence, &audit), None, None);
        assert_eq!(text(&whole), text(&part), "window of {days} days");
        let again = world.select(at, &evidence);
        assert_eq!(again.len(), evidence.len(), "selecting from a selection gives the selection");
        let backwards: Vec<_> = world.evidence.events.iter().rev().cloned().collect();
        let audit: Vec<_> = audit.into_iter().rev().collect();
        assert_eq!(text(&whole), text(&world.score_of(&bank, at, (&backwards, &audit), None, None)));
    }
}

#[test]
fn a_selection_keeps_the_session_rules_of_a_part_of_a_log() {
    let world = busy();
    let newest = world.now.wall_ns + NS_PER_S;
    for (as_of_ns, days) in [(newest, 3), (newest, 14), (newest - 4 * 86_400 * NS_PER_S, 3)] {
        let (evidence, _) = selected(&world, as_of_ns, days * DAY_S);
        let mut rules = amc_evidence::SessionRules::part_of_log();
        for record in records(&evidence) {
            let found = rules.apply("part", &record.event, record.fields.as_ref(), record.hash);
            assert_eq!(found, vec![], "event {}", record.event.index);
        }
    }
}

#[test]
fn a_selection_holds_nothing_of_other_agents() {
    let world = busy();
    let (evidence, _) = selected(&world, world.now.wall_ns + NS_PER_S, 400 * DAY_S);
    for record in records(&evidence) {
        assert!(record.event.agent.as_ref().is_none_or(|whose| *whose == world.agent));
        if let Some(Fields::ConfigLoaded(load)) = &record.fields {
            assert!(!load.path.starts_with("agents/other"));
        }
    }
}

#[test]
fn leaving_out_any_session_changes_the_report() {
    let world = busy();
    let bank = shipped();
    let at = (world.now.wall_ns + NS_PER_S, 6 * DAY_S);
    let (evidence, audit) = selected(&world, at.0, at.1);
    let whole = world.score_of(&bank, at, (&evidence, &audit), None, None);
    let sessions: std::collections::BTreeSet<_> =
        records(&evidence).filter_map(|record| record.event.session).collect();
    for session in sessions {
        let rest: Vec<_> = evidence.iter().filter(|event| event.event.session != Some(session)).cloned().collect();
        let part = world.score_of(&bank, at, (&rest, &audit), None, None);
        assert_ne!(text(&whole), text(&part), "{session}");
        assert!(has(&part, FindingCode::CherryPickGap), "{session}");
        assert!(part.questions.iter().all(|question| question.final_level <= 3));
    }
}

#[test]
fn an_unprobed_session_makes_the_run_invalid_and_says_where() {
    let mut world = World::new();
    world.days(1, 2);
    let report = world.score(&shipped(), 14);
    assert_eq!((report.status, report.label), (Status::Invalid, Label::Unreliable));
    let session = &report.sessions[0];
    let finding = report.findings.iter().find(|found| found.code == FindingCode::TrustBoundaryUnproven).unwrap();
    assert!(finding.is_error() && finding.message.contains(&session.id.to_string()));
    assert_eq!(finding.subject, format!("evidence#{}", session.open_index));
    assert_eq!(report.next_actions[0].subject, "TRUST_BOUNDARY_UNPROVEN");
    assert!(report.overall_bp > 0, "levels are still shown");
}

#[test]
fn a_run_without_counted_sessions_supports_nothing() {
    let world = World::new();
    let report = world.score(&shipped(), 14);
    assert_eq!(report.status, Status::Valid, "nothing is unproven");
    assert_eq!((report.overall_bp, report.integrity_bp, report.label), (0, 0, Label::Unreliable));
    assert!(report.questions.iter().all(|question| question.final_level == 0));
}

#[test]
fn one_session_of_one_day_earns_level_one() {
    let mut world = World::new();
    world.days(1, 500);
    let report = world.score(&small_bank("\"llm.exchange\"", ""), 14);
    assert_eq!(level_of(&report), (1, 1));
    let missing: Vec<_> = report.questions[0].held_back.iter().map(|gap| (gap.have, gap.need)).collect();
    assert_eq!(missing, [(1, 2), (1, 2)], "a session and a day are missing, not facts");
}

#[test]
fn sessions_at_the_windows_ends() {
    let mut world = World::new();
    world.next_day();
    let opened_ns = world.now.wall_ns;
    world.session(2, &Call::default());
    let bank = small_bank("\"llm.exchange\"", "");
    let at = |as_of_ns: i64| {
        let logs = (world.evidence.events.as_slice(), world.audit.events.as_slice());
        world.score_of(&bank, (as_of_ns, DAY_S), logs, None, None).sessions.len()
    };
    let day_ns = 86_400 * NS_PER_S;
    assert_eq!(at(opened_ns), 0, "the end is exclusive");
    assert_eq!(at(opened_ns + 1), 1);
    assert_eq!(at(opened_ns + day_ns), 1, "the start is inclusive");
    assert_eq!(at(opened_ns + day_ns + 1), 0);
}

#[test]
fn an_open_session_is_listed_and_counts_as_failing_after_a_day() {
    let mut world = World::new();
    let bot = world.agent.clone();
    world.next_day();
    let session = world.open(&bot, SessionPurpose::Agent);
    world.call(&bot, session, &Call::default());
    let opened_ns = world.evidence.events.iter().find(|event| event.event.session.is_some()).unwrap().event.wall_ns;
    let bank = small_bank("\"llm.exchange\"", "");
    let at = |age_s: u64| {
        let as_of_ns = opened_ns + i64::try_from(age_s).unwrap() * NS_PER_S;
        world.score_of(&bank, (as_of_ns, 14 * DAY_S), (&world.evidence.events, &world.audit.events), None, None)
    };
    let young = at(DAY_S - 1);
    assert_eq!((young.sessions[0].outcome.as_str(), young.sessions[0].counted), ("open", false));
    assert_eq!((young.findings.len(), young.status), (0, Status::Valid));
    let old = at(DAY_S);
    assert_eq!((old.sessions[0].outcome.as_str(), old.sessions[0].counted), ("unsealed", true));
    assert!(has(&old, FindingCode::SessionUnsealed));
    assert!(old.questions[0].caps.iter().any(|cap| cap.rule == "cherry_picking"));
    assert_eq!(penalty(&old, "session_unsealed_interrupted_or_missing"), (1, 500));
}

#[test]
fn interrupted_sessions_support_nothing_and_cost_integrity() {
    let bank = small_bank("\"llm.exchange\"", "");
    for outcome in [SessionOutcome::Interrupted, SessionOutcome::Recovered] {
        let mut world = World::new();
        let bot = world.agent.clone();
        world.next_day();
        let session = world.open(&bot, SessionPurpose::Agent);
        for _ in 0..4 {
            world.call(&bot, session, &Call::default());
        }
        world.seal(&bot, session, outcome);
        let report = world.score(&bank, 14);
        assert_eq!(level_of(&report), (0, 0));
        assert_eq!(penalty(&report, "session_unsealed_interrupted_or_missing"), (1, 500));
        assert!(!has(&report, FindingCode::CherryPickGap) && !has(&report, FindingCode::SessionUnsealed));
    }
}

#[test]
fn drills_and_tests_are_not_the_agents_work() {
    let bank = small_bank("\"llm.exchange\", \"test.suite\"", "");
    for (purpose, level) in [(SessionPurpose::Drill, 0), (SessionPurpose::Test, 0), (SessionPurpose::Agent, 1)] {
        let mut world = World::new();
        let bot = world.agent.clone();
        world.next_day();
        let session = world.open(&bot, purpose);
        for _ in 0..4 {
            world.call(&bot, session, &Call::default());
        }
        world.seal(&bot, session, SessionOutcome::Sealed);
        assert_eq!(level_of(&world.score(&bank, 14)), (level, level), "{purpose:?}");
    }
}

#[test]
fn another_agents_sessions_change_nothing() {
    let mut world = World::new();
    world.days(2, 3);
    let bank = shipped();
    let before = world.score(&bank, 14);
    let other = agent("other");
    let session = world.open(&other, SessionPurpose::Agent);
    world.say(&other, session, Tier::Observed, AgentKeyIgnored { provider: "demo".into(), header: "x".into() });
    world.seal(&other, session, SessionOutcome::Interrupted);
    let after = world.score(&bank, 14);
    assert_eq!((before.questions, before.findings), (after.questions, after.findings));
}

#[test]
fn levels_four_and_five_need_days_sessions_and_cosignatures_in_time() {
    let bank = small_bank("\"llm.exchange\"", "");
    let run = |days: u64| {
        let mut world = World::new();
        world.days(days, 4);
        level_of(&world.score(&bank, 60))
    };
    assert_eq!(run(2), (2, 2));
    assert_eq!(run(3), (3, 3));
    assert_eq!(run(6), (3, 3), "six days are not seven");
    assert_eq!(run(7), (4, 4));
    assert_eq!(run(9), (4, 4), "nine days are not ten");
    assert_eq!(run(10), (5, 5));
}

#[test]
fn a_day_without_a_cosignature_of_its_own_does_not_count() {
    let bank = small_bank("\"llm.exchange\"", "");
    let mut world = World::new();
    let bot = world.agent.clone();
    world.days(6, 4);
    world.next_day();
    let session = world.open(&bot, SessionPurpose::Agent);
    world.call(&bot, session, &Call::default());
    world.exit(&bot, session, 0);
    world.seal(&bot, session, SessionOutcome::Sealed);
    let seal_ns = world.now.wall_ns;
    assert_eq!(level_of(&world.score(&bank, 60)).0, 3, "not cosigned");
    let cosigned_at = |world: &mut World, time_ns: i64| {
        let head = world.evidence.head();
        let time_s = u64::try_from(time_ns / NS_PER_S).unwrap();
        world.note_audit(CheckpointCosigned { head, time_s, note: String::new() });
    };
    let day_ns = 86_400 * NS_PER_S;
    world.now.wall_ns = seal_ns + 2 * day_ns;
    cosigned_at(&mut world, seal_ns + day_ns + NS_PER_S);
    let late = world.score(&bank, 60);
    assert!(!late.sessions[6].cosigned, "a second too late");
    cosigned_at(&mut world, seal_ns + day_ns);
    let in_time = world.score(&bank, 60);
    assert!(in_time.sessions[6].cosigned, "in time for the session");
    assert_eq!(level_of(&in_time).0, 3, "on another day: the day does not count");
    cosigned_at(&mut world, seal_ns);
    assert_eq!(level_of(&world.score(&bank, 60)).0, 4);
}

#[test]
fn a_clock_step_takes_its_day_away() {
    let bank = small_bank("\"llm.exchange\"", "");
    let mut world = World::new();
    world.days(7, 4);
    assert_eq!(level_of(&world.score(&bank, 60)).0, 4);
    world.now.wall_ns += 10 * NS_PER_S;
    world.note(ClockStep { delta_ns: 10 * NS_PER_S });
    let stepped = world.score(&bank, 60);
    assert_eq!(level_of(&stepped).0, 3);
    assert_eq!(penalty(&stepped, "clock_step_or_rollback"), (1, 500));
    assert!(has(&stepped, FindingCode::ClockRollback));
}

#[test]
fn tiny_sessions_around_midnight_are_two_days() {
    let bank = small_bank("\"llm.exchange\"", "");
    let mut world = World::new();
    let midnight = (world.now.wall_ns / (86_400 * NS_PER_S) + 1) * 86_400 * NS_PER_S;
    world.wait_s(u64::try_from((midnight - world.now.wall_ns) / NS_PER_S).unwrap() - 120);
    for _ in 0..40 {
        world.session(1, &Call::default());
        world.wait_s(5);
    }
    assert_eq!(level_of(&world.score(&bank, 60)), (2, 2));
}

#[test]
fn unsigned_and_invalid_configuration_caps_until_it_is_repaired() {
    let bank = small_bank("\"llm.exchange\"", "");
    for (state, code) in [
        (ConfigState::Unsigned, FindingCode::ConfigUnsigned),
        (ConfigState::Invalid, FindingCode::ConfigSignatureInvalid),
    ] {
        let mut world = World::new();
        world.days(7, 4);
        world.load_config("amc.yaml", state, 1);
        let broken = world.score(&bank, 60);
        assert_eq!(broken.questions[0].final_level, 3);
        assert!(broken.questions[0].caps.iter().any(|cap| cap.rule == "config_untrusted" && cap.limit == 3));
        assert_eq!(penalty(&broken, "config_broken"), (1, 2_000));
        assert!(has(&broken, code));
        world.load_config("amc.yaml", ConfigState::Signed, 1);
        let repaired = world.score(&bank, 60);
        assert_eq!(repaired.questions[0].final_level, 4);
        assert_eq!(penalty(&repaired, "config_broken"), (0, 0));
        assert!(has(&repaired, code), "the repaired break is still shown");
        world.next_day();
        world.wait_s(9 * 3_600);
        world.session(1, &Call::default());
        let later = world.score(&bank, 1);
        assert!(!has(&later, code), "and leaves with the window");
    }
}

#[test]
fn configuration_that_went_back_or_was_stale_is_found() {
    let mut world = World::new();
    world.next_day();
    world.sign_config("gateway.yaml", 2);
    world.wait_s(10);
    world.load_config("gateway.yaml", ConfigState::Signed, 1);
    world.session(2, &Call::default());
    let stale = world.score(&small_bank("\"config.current\"", ""), 14);
    assert!(has(&stale, FindingCode::ConfigStale));
    assert_eq!(stale.facts.iter().find(|fact| fact.fact == "config.current").map(|fact| fact.fail), Some(1));
    world.load_config("gateway.yaml", ConfigState::Signed, 2);
    world.load_config("gateway.yaml", ConfigState::Signed, 1);
    assert!(has(&world.score(&shipped(), 14), FindingCode::ConfigVersionRollback));
}

#[test]
fn a_key_of_the_agents_own_is_shown_and_caps() {
    let bank = small_bank("\"llm.exchange\"", "tags = [\"supply_chain\"]");
    let mut world = World::new();
    let bot = world.agent.clone();
    world.days(6, 4);
    world.next_day();
    let session = world.open(&bot, SessionPurpose::Agent);
    world.say(&bot, session, Tier::Observed, AgentKeyIgnored { provider: "demo".into(), header: "x-api-key".into() });
    world.call(&bot, session, &Call::default());
    world.seal(&bot, session, SessionOutcome::Sealed);
    world.cosign();
    let report = world.score(&bank, 14);
    assert!(has(&report, FindingCode::AgentProvidedKeyIgnored));
    assert_eq!((report.questions[0].final_level, report.questions[0].supported), (3, 4));
    assert_eq!(report.facts.iter().find(|fact| fact.fact == "llm.lease_only").map(|fact| fact.fail), Some(1));
}

#[test]
fn events_after_a_keys_revocation_make_the_run_invalid() {
    let mut world = World::new();
    let public = match &world.evidence.events[0].fields {
        Some(Fields::LogOpened(opened)) => opened.log_public,
        _ => unreachable!("the first event opens the log"),
    };
    let newest = world.evidence.head().size;
    let revoke = |from_index| KeyRevoked {
        origin: "test.ws/evidence".into(),
        purpose: KeyPurpose::Log,
        public,
        from_index,
        reason: "lost".into(),
    };
    world.note_audit(revoke(newest));
    assert!(!has(&world.score(&shipped(), 14), FindingCode::KeyRevoked), "what came before stays good");
    world.note_audit(revoke(newest - 1));
    let report = world.score(&shipped(), 14);
    assert!(has(&report, FindingCode::KeyRevoked));
    assert_eq!((report.status, report.integrity_bp), (Status::Invalid, 0));
}

#[test]
fn claims_only_lower_and_are_flagged_above_support() {
    let bank = small_bank("\"llm.exchange\"", "");
    let mut world = World::new();
    world.days(3, 4);
    let claims = |level: u8| Claims::parse(format!(r#"{{"version":1,"levels":{{"q":{level}}}}}"#).as_bytes(), &bank);
    let with = |level: u8| world.score_with(&bank, 14, Some(&claims(level).unwrap()), None);
    assert_eq!(with(2).questions[0].final_level, 2);
    assert!(!has(&with(3), FindingCode::FlagUnsupportedClaim));
    let above = with(4);
    assert_eq!((above.questions[0].final_level, above.questions[0].claimed), (3, Some(4)));
    assert!(has(&above, FindingCode::FlagUnsupportedClaim));
    assert_eq!(penalty(&above, "unsupported_claim"), (1, 800));
    assert_ne!(with(3).run_id, above.run_id, "claims are inputs");
}

#[test]
fn claims_and_targets_with_unknown_keys_or_questions_are_refused() {
    let bank = small_bank("\"llm.exchange\"", "");
    let claims = |text: &str| Claims::parse(text.as_bytes(), &bank).map(|claims| claims.levels.len());
    assert_eq!(claims(r#"{"version":1,"levels":{"q":5}}"#).unwrap(), 1);
    for bad in [
        r#"{"version":2,"levels":{}}"#,
        r#"{"version":1,"levels":{"x":1}}"#,
        r#"{"version":1,"levels":{"q":6}}"#,
        r#"{"version":1,"levels":{},"more":1}"#,
        "[]",
    ] {
        assert!(claims(bad).is_err(), "{bad}");
    }
    let target = |agent_id: &str, version: u32, level: u8| {
        let text = format!(
            r#"{{"version":1,"id":"prod","agent":"{agent_id}","bank":"small","bank_version":{version},"levels":{{"q":{level}}}}}"#
        );
        Target::parse(text.as_bytes(), &agent("bot"), &bank)
    };
    assert!(target("other", 1, 4).is_err() && target("bot", 2, 4).is_err() && target("bot", 1, 6).is_err());
    let mut world = World::new();
    world.days(3, 4);
    let report = world.score_with(&bank, 14, None, Some(&target("bot", 1, 5).unwrap()));
    assert_eq!(report.target.map(|target| target.distance_bp), Some(20_000));
}

#[test]
fn earlier_runs_artifacts_and_upstreams_are_listed() {
    let mut world = World::new();
    world.days(2, 2);
    let first = world.score(&shipped(), 14);
    let run = |world: &World, name: &str| RunRecorded {
        run_id: first.run_id.clone(),
        agent: agent(name),
        report_sha256: amc_crypto::sha256(&first.to_bytes()),
        evidence: world.evidence.head(),
        audit_size: 1,
        status: "INVALID".into(),
        label: "UNRELIABLE".into(),
        overall_bp: 1,
        integrity_bp: 2,
    };
    let (own, others) = (run(&world, "bot"), run(&world, "other"));
    world.note_audit(own);
    world.note_audit(others);
    let report = world.score(&shipped(), 14);
    assert_eq!(report.earlier_runs.len(), 1, "this agent's only");
    assert_eq!(report.earlier_runs[0].run_id, first.run_id);
    assert_ne!(report.run_id, first.run_id, "another slice is another run");
    assert_eq!((report.artifacts.len(), report.artifacts[0].sessions), (1, 2));
    assert_eq!(report.upstreams[0].base_url.as_deref(), Some("http://127.0.0.1:8000/v1"));
    assert_eq!(report.upstreams[0].calls, 4);
}

#[test]
fn reports_read_back_and_reformatted_ones_are_refused() {
    let report = busy().score(&shipped(), 14);
    let bytes = report.to_bytes();
    assert_eq!(Report::from_bytes(&bytes).unwrap(), report);
    assert_eq!(bytes.last(), Some(&b'\n'));
    assert!(!String::from_utf8(bytes.clone()).unwrap().contains("e+"), "no floats");
    assert!(Report::from_bytes(&bytes[..bytes.len() - 1]).is_err());
    let edited = String::from_utf8(bytes).unwrap().replacen("  \"scorer\"", "\"scorer\"", 1);
    assert!(Report::from_bytes(edited.as_bytes()).is_err());
}

fn penalty(report: &Report, rule: &str) -> (u64, u32) {
    let row = report.integrity.penalties.iter().find(|penalty| penalty.rule == rule).unwrap();
    (row.count, row.penalty_bp)
}

fn text(report: &Report) -> String {
    String::from_utf8(report.to_bytes()).unwrap()
}
