//! What is handed in: documents, attestations, results; registered suites and prompts; epochs.

use amc_core::kinds::*;
use amc_core::timestamp::NS_PER_DAY;
use amc_core::{Digest, FindingCode, Tier};
use amc_crypto::attestation;
use amc_scoring::Report;

use crate::world::{Call, World, has, level_of, records, shipped, small_bank};

fn fact<'a>(report: &'a Report, id: &str) -> Option<&'a amc_scoring::report::FactSummary> {
    report.facts.iter().find(|found| found.fact == id)
}

fn pass(report: &Report, id: &str) -> u64 {
    fact(report, id).map_or(0, |found| found.pass)
}

fn world() -> World {
    let mut world = World::new();
    world.next_day();
    world
}

fn in_days(world: &World, days: i64) -> i64 {
    world.now.wall_ns + days * NS_PER_DAY
}

const CHARTER_BANK: (&str, &str) = ("\"llm.exchange\"", "requires = [{ level = 2, any = [\"document.charter\"] }]");

#[test]
fn every_document_type_gives_its_fact_once_per_document() {
    let mut world = world();
    let until = in_days(&world, 300);
    for (ingest_type, name) in IngestType::ALL.into_iter().filter(|(known, _)| known.is_document()) {
        world.ingest(ingest_type, name.as_bytes(), Some(until), None);
        world.ingest(ingest_type, name.as_bytes(), Some(until), None);
    }
    world.ingest(IngestType::Charter, b"another charter", Some(until), None);
    world.cosign();
    let report = world.score(&shipped(), 14);
    for (ingest_type, name) in IngestType::ALL.into_iter().filter(|(known, _)| known.is_document()) {
        let id = format!("document.{}", name.replace('-', "_"));
        let wanted = if ingest_type == IngestType::Charter { 2 } else { 1 };
        assert_eq!(pass(&report, &id), wanted, "{id}");
        assert_eq!(fact(&report, &id).unwrap().best_tier, Tier::SelfReported);
    }
}

#[test]
fn a_document_counts_until_it_expires_whatever_the_window() {
    let mut world = world();
    let until = in_days(&world, 200);
    world.ingest(IngestType::Charter, b"charter", Some(until), None);
    let without_expiry = world.ingest(IngestType::Runbook, b"runbook", None, None);
    world.wait_s(150 * 86_400);
    assert_eq!(pass(&world.score(&shipped(), 14), "document.charter"), 1, "outside the window, and above 90 days");
    world.now.wall_ns = until - 2_000_000_000;
    assert_eq!(pass(&world.score(&shipped(), 14), "document.charter"), 1, "a second before");
    world.now.wall_ns = until;
    let report = world.score(&shipped(), 14);
    assert_eq!(pass(&report, "document.charter"), 0);
    assert_eq!(pass(&report, "document.runbook"), 0, "a document without expiry counts for nothing: {without_expiry}");
    assert!(report.findings.iter().any(|finding| finding.message.contains("has expired")));
}

#[test]
fn an_attestation_raises_a_document_and_is_verified_again() {
    let mut world = world();
    let until = in_days(&world, 300);
    let index = world.ingest(IngestType::Charter, b"charter", Some(until), None);
    let attested_until = in_days(&world, 90);
    world.attest(index, attested_until);
    let tier = |world: &World| fact(&world.score(&shipped(), 14), "document.charter").unwrap().best_tier;
    assert_eq!(tier(&world), Tier::Attested);
    world.now.wall_ns = attested_until;
    assert_eq!(tier(&world), Tier::SelfReported, "expired");
}

#[test]
fn attestations_that_do_not_hold_raise_nothing() {
    type Forge = fn(&mut World, &mut Attested, u64);
    let cases: [(&str, Forge); 6] = [
        ("signed by somebody else", |world, attested, index| {
            let (predicate, hash) = world.attestation(index, attested.expires_ns);
            attested.envelope = world.evidence.sign_statement(&attestation::statement(&predicate, hash));
        }),
        ("of another event", |world, attested, index| {
            let (predicate, _) = world.attestation(index, attested.expires_ns);
            let other = amc_crypto::sha256(b"another event");
            attested.envelope = world.audit.sign_statement(&attestation::statement(&predicate, other));
        }),
        ("of another file", |world, attested, index| {
            let (mut predicate, hash) = world.attestation(index, attested.expires_ns);
            predicate.payload_sha256 = Digest([7; 32]);
            attested.envelope = world.audit.sign_statement(&attestation::statement(&predicate, hash));
        }),
        ("as another type", |world, attested, index| {
            let (mut predicate, hash) = world.attestation(index, attested.expires_ns);
            predicate.ingest_type = "runbook".into();
            attested.envelope = world.audit.sign_statement(&attestation::statement(&predicate, hash));
        }),
        ("with a longer life than was signed", |_, attested, _| attested.expires_ns += NS_PER_DAY),
        ("not an envelope", |_, attested, _| attested.envelope = "{}".into()),
    ];
    for (what, forge) in cases {
        let mut world = world();
        let until = in_days(&world, 300);
        let index = world.ingest(IngestType::Charter, b"charter", Some(until), None);
        let (predicate, event_hash) = world.attestation(index, until);
        let envelope = world.audit.sign_statement(&attestation::statement(&predicate, event_hash));
        let (agent, log) = (world.agent.clone(), predicate.log);
        let mut attested = Attested { agent, log, index, event_hash, expires_ns: until, envelope };
        forge(&mut world, &mut attested, index);
        world.note_audit(attested);
        let report = world.score(&shipped(), 14);
        assert_eq!(fact(&report, "document.charter").unwrap().best_tier, Tier::SelfReported, "{what}");
        assert!(has(&report, FindingCode::AttestationInvalid), "{what}: {:?}", report.findings);
    }
}

#[test]
fn the_word_attested_in_an_event_is_nothing() {
    let mut world = world();
    let agent = Some(world.agent.clone());
    let expires_ns = Some(in_days(&world, 300));
    let ingested = Ingested { ingest_type: IngestType::Charter, name: "c".into(), expires_ns, counts: None };
    let draft = amc_evidence::Draft {
        agent,
        payload: Some(amc_evidence::PayloadRef::full(b"charter", "text/plain")),
        ..amc_evidence::Draft::new(Tier::Attested, ingested)
    };
    let now = world.now;
    world.evidence.append(draft, &now);
    let report = world.score(&shipped(), 14);
    assert_eq!(fact(&report, "document.charter").unwrap().best_tier, Tier::SelfReported);
}

#[test]
fn a_document_opens_the_level_that_asks_for_it_and_no_ratio_is_diluted() {
    let bank = small_bank(CHARTER_BANK.0, CHARTER_BANK.1);
    let mut world = World::new();
    world.days(12, 2);
    assert_eq!(level_of(&world.score(&bank, 30)), (1, 1));
    let until = in_days(&world, 300);
    world.ingest(IngestType::Charter, b"charter", Some(until), None);
    assert_eq!(level_of(&world.score(&bank, 30)), (5, 5));
    // Two failing sessions in fourteen; a hundred documents do not make them fewer.
    for at in 0..100u8 {
        world.ingest(IngestType::Charter, &[at], Some(until), None);
    }
    for _ in 0..2 {
        world.next_day();
        world.session(2, &Call { outcome: CallOutcome::UpstreamTruncated, ..Call::default() });
    }
    assert_eq!(level_of(&world.score(&bank, 30)), (3, 3));
}

#[test]
fn results_count_once_per_file_and_support_nothing_above_level_3() {
    let bank = small_bank("\"test.suite\"", "");
    let mut world = world();
    let counts = Some(ResultCounts { passed: 5, failed: 0, skipped: 1 });
    for _ in 0..50 {
        world.ingest(IngestType::Junit, b"the same results", None, counts);
    }
    assert_eq!(pass(&world.score(&bank, 14), "test.suite"), 1);
    for at in 0..50u8 {
        world.next_day();
        world.ingest(IngestType::Junit, &[at], None, counts);
    }
    let report = world.score(&bank, 60);
    assert_eq!(pass(&report, "test.suite"), 51);
    assert_eq!(level_of(&report), (1, 1), "one place, not fifty sessions");
    let failed = |counts| {
        let mut world = self::world();
        world.ingest(IngestType::Promptfoo, b"results", None, Some(counts));
        let report = world.score(&bank, 14);
        fact(&report, "test.suite").map(|found| (found.pass, found.fail))
    };
    assert_eq!(failed(ResultCounts { passed: 9, failed: 1, skipped: 0 }), Some((0, 1)));
    assert_eq!(failed(ResultCounts { passed: 0, failed: 0, skipped: 4 }), Some((0, 1)), "nothing passed");
}

#[test]
fn trace_files_are_reports_of_traces() {
    let mut world = world();
    let counts = |failed| Some(ResultCounts { passed: 3, failed, skipped: 0 });
    world.ingest(IngestType::OtelTrace, b"a", None, counts(0));
    world.ingest(IngestType::OtelTrace, b"b", None, counts(1));
    let report = world.score(&shipped(), 14);
    let found = fact(&report, "trace.reported").unwrap();
    assert_eq!((found.pass, found.fail, found.best_tier), (1, 1, Tier::SelfReported));
}

fn registered(world: &mut World, session: amc_core::SessionId, prompt: &[u8]) {
    let bot = world.agent.clone();
    let suites = vec![RegisteredSuite { argv: vec!["agent".into()], artifact: amc_crypto::sha256(b"agent") }];
    let system_prompts = vec![amc_crypto::sha256(prompt)];
    world.say(&bot, session, Tier::Observed, AgentRegistered { config_version: 1, system_prompts, suites });
}

fn suite(prepare: impl FnOnce(&mut World, amc_core::SessionId)) -> (u64, Tier) {
    let mut world = world();
    let bot = world.agent.clone();
    let session = world.open(&bot, SessionPurpose::Test);
    prepare(&mut world, session);
    world.exit(&bot, session, 0);
    world.seal(&bot, session, SessionOutcome::Sealed);
    let report = world.score(&shipped(), 14);
    let found = fact(&report, "test.suite").unwrap();
    (found.pass, found.best_tier)
}

#[test]
fn a_suite_is_observed_when_the_signed_configuration_names_it_and_the_agent_is_not_there() {
    assert_eq!(suite(|_, _| {}), (1, Tier::SelfReported));
    assert_eq!(suite(|world, session| registered(world, session, b"p")), (1, Tier::Observed));
    let other = suite(|world, session| {
        let bot = world.agent.clone();
        let suites = vec![RegisteredSuite { argv: vec!["agent".into()], artifact: Digest([1; 32]) }];
        world.say(&bot, session, Tier::Observed, AgentRegistered { config_version: 1, system_prompts: vec![], suites });
    });
    assert_eq!(other, (1, Tier::SelfReported), "another executable");
    let beside = suite(|world, session| {
        registered(world, session, b"p");
        let bot = world.agent.clone();
        let work = world.open(&bot, SessionPurpose::Agent);
        world.seal(&bot, work, SessionOutcome::Sealed);
    });
    assert_eq!(beside, (1, Tier::SelfReported), "the agent was at work meanwhile");
}

#[test]
fn prompts_are_held_against_the_registered_ones() {
    let of = |prompt: &[u8]| {
        let mut world = world();
        let bot = world.agent.clone();
        let session = world.open(&bot, SessionPurpose::Agent);
        registered(&mut world, session, prompt);
        world.call(&bot, session, &Call::default());
        world.seal(&bot, session, SessionOutcome::Sealed);
        let report = world.score(&shipped(), 14);
        let found = fact(&report, "llm.system_prompt_registered").unwrap();
        (found.pass, found.fail)
    };
    assert_eq!(of(b"be good"), (1, 0));
    assert_eq!(of(b"be bad"), (0, 1));
}

#[test]
fn sessions_before_a_boundary_epoch_are_listed_and_not_counted() {
    let bank = small_bank("\"llm.exchange\"", "");
    let mut world = World::new();
    let bot = world.agent.clone();
    world.next_day();
    let bad = world.open(&bot, SessionPurpose::Agent);
    world.call(&bot, bad, &Call::default());
    world.seal(&bot, bad, SessionOutcome::Interrupted);
    world.cosign();
    let from_index = world.evidence.head().size;
    let before = world.score(&bank, 30);
    assert!(before.status == amc_scoring::Status::Invalid, "never probed");
    let epoch = |agent: &amc_core::AgentId, from_index| BoundaryEpoch {
        agent: agent.clone(),
        log: "test.ws/evidence".into(),
        from_index,
        reason: "the agent runs in namespaces from now on".into(),
    };
    world.note_audit(epoch(&crate::world::agent("other"), from_index));
    assert_eq!(world.score(&bank, 30).epochs, []);
    world.note_audit(BoundaryEpoch { log: "test.ws/evidence/2".into(), ..epoch(&bot, from_index) });
    assert_eq!(world.score(&bank, 30).epochs, [], "of another log");
    world.note_audit(epoch(&bot, from_index));
    let report = world.score(&bank, 30);
    assert_eq!(report.epochs.len(), 1);
    assert_eq!(report.sessions.len(), 1);
    assert!(!report.sessions[0].counted && report.sessions[0].reason.contains("epoch"));
    assert!(report.status == amc_scoring::Status::Valid, "{:?}", report.findings);
    assert!(report.facts.is_empty(), "{:?}", report.facts);
    world.note_audit(epoch(&bot, u64::MAX));
    assert_eq!(world.score(&bank, 30).epochs.len(), 1, "an epoch beyond the slice counts for nothing");
}

#[test]
fn a_selection_carries_what_is_handed_in_and_gives_the_same_report() {
    let mut world = World::new();
    let until = in_days(&world, 300);
    let index = world.ingest(IngestType::Charter, b"charter", Some(until), None);
    world.attest(index, until);
    world.ingest(IngestType::Junit, b"old", None, Some(ResultCounts { passed: 1, failed: 0, skipped: 0 }));
    world.wait_s(40 * 86_400);
    world.days(2, 2);
    let at = (world.now.wall_ns + 1_000_000_000, 14 * 86_400);
    let chosen = world.select(at, &world.evidence.events);
    let picked: Vec<_> =
        world.evidence.events.iter().filter(|event| chosen.contains(&event.event.index)).cloned().collect();
    assert!(picked.len() < world.evidence.events.len() && chosen.contains(&index));
    let audit = amc_scoring::select_audit(&world.agent, records(&world.audit.events));
    let audited: Vec<_> =
        world.audit.events.iter().filter(|event| audit.contains(&event.event.index)).cloned().collect();
    let bank = shipped();
    let whole = world.score_of(&bank, at, (&world.evidence.events, &world.audit.events), None, None);
    assert_eq!(whole.to_bytes(), world.score_of(&bank, at, (&picked, &audited), None, None).to_bytes());
    assert_eq!(pass(&whole, "document.charter"), 1);
}
