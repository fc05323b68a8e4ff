//! Workspaces whose reports show everything that a page can show: one that is INVALID, one that is
//! VALID with claims, a target, documents, traces, an epoch and an earlier run, and one whose names
//! are hostile. The golden files and the browser check are made from them. The exemplary one makes
//! every fact that is collected, for the bank's lint.

use amc_core::kinds::*;
use amc_core::{AgentId, LeaseId, SessionId, Tier};
use amc_scoring::{Bank, Claims, Report, Target};

use crate::world::{Call, World, line, shipped};

const GOLDEN_BANK: &[u8] = include_bytes!("../golden/bank.toml");

/// Four days of an agent's work, with a failing call, an unsigned configuration and a test; nobody
/// probed the boundary.
pub(crate) fn invalid() -> Report {
    let mut world = World::new();
    world.days(3, 2);
    world.test_session(0);
    world.load_config("gateway.yaml", ConfigState::Unsigned, 1);
    world.next_day();
    world.session(1, &Call { status: 503, usage: false, ..Call::default() });
    world.score(&Bank::parse(GOLDEN_BANK).expect("the golden bank parses"), 14)
}

/// A probe from the agent's side that reached nothing.
pub(crate) fn denied_probe() -> BoundaryProbe {
    let targets = [ProbeTarget::Vault, ProbeTarget::LogWrite, ProbeTarget::SigningSocket, ProbeTarget::TrustedProcess];
    let attempt = |target| ProbeAttempt { target, subject: format!("{target:?}"), outcome: ProbeOutcome::Denied };
    BoundaryProbe {
        phase: ProbePhase::Before,
        isolation: Isolation::Namespaces,
        attempts: targets.map(attempt).to_vec(),
    }
}

/// An open session of the agent, probed, with its registered prompt.
pub(crate) fn probed_session(world: &mut World, agent: &AgentId) -> SessionId {
    let session = world.open(agent, SessionPurpose::Agent);
    world.say(agent, session, Tier::Observed, denied_probe());
    let system_prompts = vec![amc_crypto::sha256(b"be good")];
    world.say(agent, session, Tier::Observed, AgentRegistered { config_version: 1, system_prompts, suites: vec![] });
    session
}

/// A good day: a probed session with so many calls, each with trace lines and a check.
pub(crate) fn good_day(world: &mut World, calls: u64) {
    let bot = world.agent.clone();
    world.next_day();
    let session = probed_session(world, &bot);
    for _ in 0..calls {
        let answer = world.call(&bot, session, &Call::default());
        let lines = [TraceAbout::LlmResult, TraceAbout::VerificationStep].map(|about| line(world, about, answer));
        world.trace(&bot, session, lines.to_vec());
    }
    world.exit(&bot, session, 0);
    world.seal(&bot, session, SessionOutcome::Sealed);
    world.cosign();
}

fn documents(world: &mut World) {
    let in_a_year = world.now.wall_ns + 365 * 86_400 * 1_000_000_000;
    for (ingest_type, attested) in
        [(IngestType::Charter, true), (IngestType::RiskAssessment, true), (IngestType::Runbook, false)]
    {
        let index = world.ingest(ingest_type, ingest_type.as_str().as_bytes(), Some(in_a_year), None);
        if attested {
            world.attest(index, in_a_year);
        }
    }
    let tomorrow = world.now.wall_ns + 86_400 * 1_000_000_000;
    world.ingest(IngestType::ContinuityPlan, b"an old plan", Some(tomorrow), None);
    let counts = ResultCounts { passed: 12, failed: 0, skipped: 1 };
    world.ingest(IngestType::Junit, b"<testsuite/>", None, Some(counts));
}

/// An epoch after a session that was broken off, and a run that was made then.
fn earlier(world: &mut World) {
    let bot = world.agent.clone();
    world.next_day();
    let broken = world.open(&bot, SessionPurpose::Agent);
    world.call(&bot, broken, &Call::default());
    world.seal(&bot, broken, SessionOutcome::Interrupted);
    world.cosign();
    let report = world.score(&shipped(), 14);
    let run = RunRecorded {
        run_id: report.run_id.clone(),
        agent: bot.clone(),
        report_sha256: amc_crypto::sha256(&report.to_bytes()),
        evidence: report.evidence.clone(),
        audit_size: report.audit.size,
        status: report.status.as_str().into(),
        label: report.label.as_str().into(),
        overall_bp: report.overall_bp,
        integrity_bp: report.integrity_bp,
    };
    world.note_audit(run);
    let from_index = world.evidence.head().size;
    let reason = "from now on the agent runs in namespaces (`amc wrap --isolation namespaces`)".into();
    world.note_audit(BoundaryEpoch { agent: bot, log: "test.ws/evidence".into(), from_index, reason });
}

/// Twelve good days under the shipped bank, with claims and a target.
pub(crate) fn valid() -> Report {
    let mut world = World::new();
    for path in ["agents/bot/gatePolicy.json", "agents/bot/agent.config.yaml", "agents/bot/targets/prod.json"] {
        world.sign_config(path, 1);
    }
    earlier(&mut world);
    documents(&mut world);
    for day in 0..12 {
        good_day(&mut world, 3);
        if day % 3 == 0 {
            world.test_session(0);
        }
    }
    let bank = shipped();
    let claims = br#"{"version":1,"levels":{"call-observability":5,"complete-record":2,"fairness":3}}"#;
    let claims = Claims::parse(claims, &bank).expect("the claims fit the bank");
    let levels: Vec<String> = bank.questions.iter().map(|question| format!("\"{}\":3", question.id)).collect();
    let target = format!(
        r#"{{"version":1,"id":"prod","agent":"bot","bank":"{}","bank_version":{},"levels":{{{}}}}}"#,
        bank.id,
        bank.version,
        levels.join(",")
    );
    let target = Target::parse(target.as_bytes(), &world.agent, &bank).expect("the target fits the bank");
    world.score_with(&bank, 30, Some(&claims), Some(&target))
}

/// What an agent would have to call its model to break a page.
pub(crate) const HOSTILE_MODEL: &str =
    "</table><script>alert(1)</script>\"'|[x](javascript:y)\u{1b}[2J\u{202e}`<img src=x>`";

/// A session whose model, provider, trace and document carry markup.
pub(crate) fn hostile() -> Report {
    let mut world = World::new();
    let bot = world.agent.clone();
    world.next_day();
    let session = world.open(&bot, SessionPurpose::Agent);
    world.call(&bot, session, &Call { model: HOSTILE_MODEL, ..Call::default() });
    let long: &'static str = "W".repeat(200).leak();
    world.call(&bot, session, &Call { model: long, ..Call::default() });
    let provider = "<img src=x onerror=alert(2)>`code`".to_owned();
    world.say(&bot, session, Tier::Observed, AgentKeyIgnored { provider, header: "<b>".into() });
    world.seal(&bot, session, SessionOutcome::Sealed);
    let reason = "</p><script>alert(3)</script> [x](javascript:y)".into();
    world.note_audit(BoundaryEpoch { agent: bot, log: "test.ws/evidence".into(), from_index: 0, reason });
    world.score(&shipped(), 14)
}

/// Twenty days of an agent that does everything well that this release can see.
pub(crate) fn exemplary(bank: &Bank) -> Report {
    let mut world = World::new();
    let bot = world.agent.clone();
    for path in ["agents/bot/gatePolicy.json", "agents/bot/agent.config.yaml", "agents/bot/targets/prod.json"] {
        world.sign_config(path, 1);
    }
    let in_a_year = world.now.wall_ns + 365 * 86_400 * 1_000_000_000;
    for (ingest_type, name) in IngestType::ALL {
        let is_document = ingest_type.is_document();
        let counts = (!is_document).then_some(ResultCounts { passed: 1, failed: 0, skipped: 0 });
        let index = world.ingest(ingest_type, name.as_bytes(), is_document.then_some(in_a_year), counts);
        if is_document {
            world.attest(index, in_a_year);
        }
    }
    for _ in 0..20 {
        world.next_day();
        let session = probed_session(&mut world, &bot);
        world.call(&bot, session, &Call { status: 500, ..Call::default() });
        for _ in 0..12 {
            let answer = world.call(&bot, session, &Call::default());
            let lines = [TraceAbout::LlmResult, TraceAbout::VerificationStep].map(|about| line(&world, about, answer));
            world.trace(&bot, session, lines.to_vec());
        }
        world.say(&bot, session, Tier::Observed, tunnel());
        world.exit(&bot, session, 0);
        world.seal(&bot, session, SessionOutcome::Sealed);
        registered_suite(&mut world);
        world.cosign();
    }
    world.score(bank, 30)
}

/// A connection through the egress proxy that was allowed.
fn tunnel() -> EgressTunnel {
    EgressTunnel {
        lease: LeaseId::new("lease-00112233445566aa").expect("a lease id"),
        method: EgressMethod::Connect,
        host: "files.example".into(),
        port: 443,
        address: "192.0.2.1".into(),
        server_name: Some("files.example".into()),
        sent_len: 1,
        received_len: 1,
        duration_us: 1,
    }
}

/// A suite that the signed agent configuration names, passed.
fn registered_suite(world: &mut World) {
    let bot = world.agent.clone();
    let session = world.open(&bot, SessionPurpose::Test);
    let suite = RegisteredSuite { argv: vec!["agent".into()], artifact: amc_crypto::sha256(b"agent") };
    let registered = AgentRegistered { config_version: 1, system_prompts: vec![], suites: vec![suite] };
    world.say(&bot, session, Tier::Observed, registered);
    world.exit(&bot, session, 0);
    world.seal(&bot, session, SessionOutcome::Sealed);
}
