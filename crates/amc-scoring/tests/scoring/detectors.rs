//! Every fact that this release emits: an event stream that makes it pass, and one that makes it
//! fail, where it can.

use amc_core::Tier;
use amc_core::kinds::*;
use amc_scoring::Report;
use amc_scoring::facts::FACTS;
use amc_scoring::report::FactSummary;

use crate::world::{Call, World, line, shipped};

/// Passes, failures and best tier of a fact.
fn of(report: &Report, fact: &str) -> (u64, u64) {
    report.facts.iter().find(|found| found.fact == fact).map_or((0, 0), |found| (found.pass, found.fail))
}

fn one_call(call: &Call) -> Report {
    let mut world = World::new();
    world.next_day();
    world.session(1, call);
    world.score(&shipped(), 14)
}

/// One session, with whatever the closure puts into it between open and seal.
fn inside(fill: impl FnOnce(&mut World, amc_core::SessionId)) -> Report {
    let mut world = World::new();
    world.next_day();
    let bot = world.agent.clone();
    let session = world.open(&bot, SessionPurpose::Agent);
    fill(&mut world, session);
    world.seal(&bot, session, SessionOutcome::Sealed);
    world.score(&shipped(), 14)
}

#[test]
fn a_good_session_passes_everything_that_is_collected() {
    let mut world = World::new();
    for path in ["agents/bot/gatePolicy.json", "agents/bot/agent.config.yaml", "agents/bot/targets/prod.json"] {
        world.sign_config(path, 1);
    }
    world.next_day();
    world.session(1, &Call { status: 500, ..Call::default() });
    let bot = world.agent.clone();
    let session = world.open(&bot, SessionPurpose::Agent);
    world.say(&bot, session, Tier::Observed, crate::boundary::probe(ProbePhase::Before, &[]));
    world.call(&bot, session, &Call { status: 429, ..Call::default() });
    let system_prompts = vec![amc_crypto::sha256(b"be good")];
    world.say(&bot, session, Tier::Observed, AgentRegistered { config_version: 1, system_prompts, suites: vec![] });
    for _ in 0..20 {
        let answer = world.call(&bot, session, &Call::default());
        let lines = [TraceAbout::LlmResult, TraceAbout::VerificationStep].map(|about| line(&world, about, answer));
        world.trace(&bot, session, lines.to_vec());
    }
    world.say(&bot, session, Tier::Observed, tunnel("example.com"));
    world.exit(&bot, session, 0);
    world.seal(&bot, session, SessionOutcome::Sealed);
    world.test_session(0);
    for (ingest_type, name) in IngestType::ALL {
        let expires_ns = ingest_type.is_document().then_some(i64::MAX);
        let counts = (!ingest_type.is_document()).then_some(ResultCounts { passed: 1, failed: 0, skipped: 0 });
        world.ingest(ingest_type, name.as_bytes(), expires_ns, counts);
    }
    let report = world.score(&shipped(), 14);
    for fact in FACTS.iter().filter(|fact| fact.is_emitted()) {
        assert!(of(&report, fact.id).0 > 0, "{} never passed", fact.id);
    }
    let emitted =
        |found: &FactSummary| FACTS.iter().any(|fact| fact.id == found.fact && fact.detector == found.detector);
    assert!(report.facts.iter().all(emitted));
}

#[test]
fn exchanges() {
    let outcome = |outcome| of(&one_call(&Call { outcome, ..Call::default() }), "llm.exchange");
    assert_eq!(outcome(CallOutcome::Complete), (1, 0));
    for broken in [CallOutcome::UpstreamTruncated, CallOutcome::UpstreamFailed, CallOutcome::ClientLeft] {
        assert_eq!(outcome(broken), (0, 1), "{broken:?}");
    }
    let error = one_call(&Call { status: 503, ..Call::default() });
    assert_eq!(of(&error, "llm.exchange"), (1, 0), "an answer that arrived whole, whatever its status");
    assert_eq!(of(&error, "llm.usage_recorded"), (0, 0), "and nothing else is asked of it");
    assert_eq!(
        of(&one_call(&Call { outcome: CallOutcome::ClientLeft, ..Call::default() }), "llm.stream_complete"),
        (0, 1)
    );
}

#[test]
fn an_unanswered_call_is_a_failure() {
    let report = inside(|world, session| {
        let bot = world.agent.clone();
        world.call(&bot, session, &Call::default());
        // An answer to another request than the one at that index answers nothing.
        let answered = world.evidence.events.iter().rev().find_map(|event| match &event.fields {
            Some(Fields::LlmResponse(response)) => Some(response.clone()),
            _ => None,
        });
        let stray =
            LlmResponse { request_id: "req-other".into(), outcome: CallOutcome::ClientLeft, ..answered.unwrap() };
        world.say(&bot, session, Tier::Observed, stray);
    });
    assert_eq!(of(&report, "llm.exchange"), (1, 0), "the stray answer changes nothing");
    let mut world = World::new();
    world.next_day();
    world.session(1, &Call::default());
    let request_only: Vec<_> = world
        .evidence
        .events
        .iter()
        .filter(|event| !matches!(event.fields, Some(Fields::LlmResponse(_))))
        .cloned()
        .collect();
    let at = (world.now.wall_ns + 1, 86_400 * 14);
    let report = world.score_of(&shipped(), at, (&request_only, &world.audit.events), None, None);
    assert_eq!(of(&report, "llm.exchange"), (0, 1));
}

#[test]
fn usage_tools_models_and_routes() {
    assert_eq!(of(&one_call(&Call { usage: false, ..Call::default() }), "llm.usage_recorded"), (0, 1));
    assert_eq!(
        of(&one_call(&Call { usage: false, ..Call::default() }), "budget.session"),
        (0, 0),
        "unknown use is no fact"
    );
    assert_eq!(of(&one_call(&Call { tools: 0, ..Call::default() }), "llm.tool_calls_offered"), (0, 1));
    assert_eq!(of(&one_call(&Call { config_version: 0, ..Call::default() }), "llm.route_signed"), (0, 1), "unsigned");
    assert_eq!(
        of(&one_call(&Call { config_version: 2, ..Call::default() }), "llm.route_signed"),
        (0, 1),
        "another one"
    );
    assert_eq!(of(&one_call(&Call::default()), "llm.route_signed"), (1, 0));
}

#[test]
fn a_route_is_signed_only_while_the_signed_configuration_is_in_force() {
    let mut world = World::new();
    world.next_day();
    world.load_config("gateway.yaml", ConfigState::Invalid, 1);
    world.session(2, &Call::default());
    assert_eq!(of(&world.score(&shipped(), 14), "llm.route_signed"), (0, 2));
    assert_eq!(of(&world.score(&shipped(), 14), "config.signed"), (0, 1));
    world.load_config("gateway.yaml", ConfigState::Signed, 1);
    world.session(2, &Call::default());
    let report = world.score(&shipped(), 14);
    assert_eq!(of(&report, "llm.route_signed"), (2, 2));
    assert_eq!(of(&report, "config.signed"), (1, 1));
    assert_eq!(of(&report, "config.current"), (1, 0));
}

#[test]
fn a_configuration_that_nobody_recorded_as_signed_is_not_current() {
    let mut world = World::new();
    world.next_day();
    world.load_config("users.yaml", ConfigState::Signed, 1);
    world.session(1, &Call::default());
    assert_eq!(of(&world.score(&shipped(), 14), "config.current"), (0, 1));
}

#[test]
fn failures_are_overcome_only_by_a_later_good_call() {
    let calls = |statuses: &[u16]| {
        inside(|world, session| {
            let bot = world.agent.clone();
            for status in statuses {
                world.call(&bot, session, &Call { status: *status, ..Call::default() });
            }
        })
    };
    assert_eq!(of(&calls(&[500, 200]), "llm.error_recovered"), (1, 0));
    assert_eq!(of(&calls(&[200, 500]), "llm.error_recovered"), (0, 1));
    assert_eq!(of(&calls(&[500, 500, 200, 429]), "llm.error_recovered"), (2, 1));
}

#[test]
fn measured_limits_hold_at_the_limit_and_fall_above_it() {
    let limits = shipped().limits;
    let late = |us: u64| of(&one_call(&Call { first_byte_us: us, ..Call::default() }), "latency.session");
    assert_eq!(late(limits.first_byte_ms_max * 1_000), (1, 0));
    assert_eq!(late(limits.first_byte_ms_max * 1_000 + 1), (0, 1));
    let errors = |good: usize, bad: usize| {
        let report = inside(|world, session| {
            let bot = world.agent.clone();
            for at in 0..good + bad {
                world.call(&bot, session, &Call { status: if at < bad { 500 } else { 200 }, ..Call::default() });
            }
        });
        of(&report, "error_rate.session")
    };
    assert_eq!(errors(9, 1), (1, 0), "one in ten");
    assert_eq!(errors(8, 1), (0, 1), "one in nine");
    let tokens = |max: u64, calls: u64| {
        let mut bank = shipped();
        bank.limits.session_tokens_max = max;
        let mut world = World::new();
        world.next_day();
        world.session(calls, &Call::default());
        of(&world.score(&bank, 14), "budget.session")
    };
    assert_eq!(tokens(300, 2), (1, 0));
    assert_eq!(tokens(299, 2), (0, 1));
}

#[test]
fn processes_environments_and_streams() {
    let exit = |code, signal| {
        inside(|world, session| {
            let bot = world.agent.clone();
            world.say(&bot, session, Tier::Observed, ProcessExit { code, signal, duration_ms: 1 });
        })
    };
    assert_eq!(of(&exit(Some(0), None), "session.clean_exit"), (1, 0));
    assert_eq!(of(&exit(Some(3), None), "session.clean_exit"), (0, 1));
    assert_eq!(of(&exit(None, Some(9)), "session.clean_exit"), (0, 1));
    assert_eq!(of(&inside(|_, _| {}), "session.clean_exit"), (0, 1), "no exit was seen");
    let environment = |name: &str| {
        inside(|world, session| {
            let bot = world.agent.clone();
            let built = EnvironmentBuilt {
                passed: vec![name.into()],
                set: vec!["OPENAI_API_KEY".into()],
                withheld: 0,
                secrets_withheld: false,
            };
            world.say(&bot, session, Tier::Observed, built);
        })
    };
    assert_eq!(of(&environment("TZ"), "session.environment_clean"), (1, 0), "what AMC sets itself is no secret");
    assert_eq!(of(&environment("GITHUB_TOKEN"), "session.environment_clean"), (0, 1));
    let pieces = |pieces: &[(u64, u64)]| {
        inside(|world, session| {
            let bot = world.agent.clone();
            for (offset, len) in pieces {
                let piece = ProcessOutput { stream: Stream::Stderr, offset: *offset, len: *len };
                world.say(&bot, session, Tier::Observed, piece);
            }
        })
    };
    assert_eq!(of(&pieces(&[]), "session.streams_whole"), (0, 0));
    assert_eq!(of(&pieces(&[(0, 4), (4, 2), (6, 1)]), "session.streams_whole"), (1, 0));
    assert_eq!(of(&pieces(&[(0, 4), (5, 2)]), "session.streams_whole"), (0, 1), "a hole");
    assert_eq!(of(&pieces(&[(1, 4)]), "session.streams_whole"), (0, 1), "no beginning");
}

#[test]
fn own_keys_and_leases() {
    let with_key = inside(|world, session| {
        let bot = world.agent.clone();
        world.call(&bot, session, &Call::default());
        world.say(
            &bot,
            session,
            Tier::Observed,
            AgentKeyIgnored { provider: "demo".into(), header: "x-api-key".into() },
        );
    });
    assert_eq!(of(&with_key, "llm.lease_only"), (0, 1));
    assert_eq!(of(&inside(|_, _| {}), "llm.lease_only"), (0, 0), "no call, no fact");
}

#[test]
fn suites_count_as_self_reported_until_the_agent_configuration_names_them() {
    let mut world = World::new();
    world.next_day();
    world.test_session(0);
    world.test_session(1);
    let report = world.score(&shipped(), 14);
    let suite = report.facts.iter().find(|fact| fact.fact == "test.suite").unwrap();
    assert_eq!((suite.pass, suite.fail, suite.best_tier), (1, 1, Tier::SelfReported));
}

#[test]
fn signed_policies_count_from_the_moment_of_their_signature() {
    let mut world = World::new();
    world.next_day();
    world.session(1, &Call::default());
    world.wait_s(60);
    world.sign_config("agents/bot/gatePolicy.json", 1);
    world.sign_config("agents/other/agent.config.yaml", 1);
    world.session(1, &Call::default());
    let report = world.score(&shipped(), 14);
    assert_eq!(of(&report, "policy.gate_signed"), (1, 0));
    assert_eq!(of(&report, "policy.agent_config_signed"), (0, 0), "another agent's");
}

#[test]
fn tiers_are_those_that_the_channel_can_carry() {
    for (said, stands) in [
        (Tier::SelfReported, Tier::SelfReported),
        (Tier::Attested, Tier::SelfReported),
        (Tier::Observed, Tier::Observed),
        (Tier::ObservedHardened, Tier::Observed),
    ] {
        let report = one_call(&Call { tier: said, ..Call::default() });
        let exchange = report.facts.iter().find(|fact| fact.fact == "llm.exchange").unwrap();
        assert_eq!(exchange.best_tier, stands, "{said} without attestation or posture");
    }
}

pub(crate) fn tunnel(host: &str) -> EgressTunnel {
    EgressTunnel {
        lease: amc_core::LeaseId::new("lease-00112233445566aa").unwrap(),
        method: EgressMethod::Connect,
        host: host.into(),
        port: 443,
        address: "192.0.2.1".into(),
        server_name: Some(host.into()),
        sent_len: 1,
        received_len: 1,
        duration_us: 1,
    }
}

#[test]
fn connections_through_the_egress_proxy() {
    let with = |tunnels: u64, blocked: u64| {
        inside(|world, session| {
            let bot = world.agent.clone();
            world.call(&bot, session, &Call::default());
            for _ in 0..tunnels {
                world.say(&bot, session, Tier::Observed, tunnel("example.com"));
            }
            for _ in 0..blocked {
                let EgressTunnel { lease, method, host, port, .. } = tunnel("evil.example");
                let reason = EgressRefusal::NotAllowed;
                world.say(&bot, session, Tier::Observed, EgressBlocked { lease, method, host, port, reason });
            }
        })
    };
    assert_eq!(of(&with(0, 0), "egress.allowed_only"), (0, 0));
    assert_eq!(of(&with(3, 0), "egress.allowed_only"), (1, 0));
    let report = with(3, 2);
    assert_eq!(of(&report, "egress.allowed_only"), (0, 1));
    let penalty = |report: &Report| {
        let row = report.integrity.penalties.iter().find(|row| row.rule == "egress_blocked").unwrap();
        row.penalty_bp
    };
    assert_eq!(penalty(&report), 600);
    assert_eq!(penalty(&with(0, 9)), 1_500, "at most");
    assert!(crate::world::has(&report, amc_core::FindingCode::NetworkEgressBlocked));
}

#[test]
fn a_tunnel_to_a_provider_is_a_route_past_the_gateway() {
    let caps = |host: &str| {
        let mut world = World::new();
        world.started("https://api.provider.example:443/v1");
        world.next_day();
        let bot = world.agent.clone();
        let session = world.open(&bot, SessionPurpose::Agent);
        world.call(&bot, session, &Call::default());
        world.say(&bot, session, Tier::Observed, tunnel(host));
        world.seal(&bot, session, SessionOutcome::Sealed);
        let report = world.score(&shipped(), 14);
        report.questions.iter().any(|question| question.caps.iter().any(|cap| cap.rule == "route_past_gateway"))
    };
    assert!(caps("api.provider.example"));
    assert!(!caps("files.provider.example"));
}
