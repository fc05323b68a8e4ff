//! Correlation: every code, the ratio at its threshold, and what each means for levels and index.

use amc_core::kinds::*;
use amc_core::{AgentId, FindingCode, SessionId, Tier};
use amc_scoring::Report;

use crate::world::{Call, World, agent, has, level_of, line, shipped, small_bank};

struct Traced {
    world: World,
    bot: AgentId,
    session: SessionId,
    answers: Vec<u64>,
}

/// An open session with so many calls.
fn traced(calls: usize) -> Traced {
    let mut world = World::new();
    world.next_day();
    let bot = world.agent.clone();
    let session = world.open(&bot, SessionPurpose::Agent);
    let answers = (0..calls).map(|_| world.call(&bot, session, &Call::default())).collect();
    Traced { world, bot, session, answers }
}

impl Traced {
    fn say(&mut self, lines: Vec<TraceLine>) {
        let (bot, session) = (self.bot.clone(), self.session);
        self.world.trace(&bot, session, lines);
    }

    fn report(mut self) -> Report {
        let (bot, session) = (self.bot.clone(), self.session);
        self.world.exit(&bot, session, 0);
        self.world.seal(&bot, session, SessionOutcome::Sealed);
        self.world.cosign();
        self.world.score(&shipped(), 14)
    }

    fn result(&self, at: usize) -> TraceLine {
        line(&self.world, TraceAbout::LlmResult, self.answers[at])
    }
}

/// How often a fact passed and failed.
pub(crate) fn of(report: &Report, fact: &str) -> (u64, u64) {
    report.facts.iter().find(|found| found.fact == fact).map_or((0, 0), |found| (found.pass, found.fail))
}

fn penalty(report: &Report, rule: &str) -> u32 {
    report.integrity.penalties.iter().find(|row| row.rule == rule).expect("the rule exists").penalty_bp
}

fn caps(report: &Report) -> Vec<&str> {
    let mut rules: Vec<&str> =
        report.questions.iter().flat_map(|question| &question.caps).map(|cap| cap.rule.as_str()).collect();
    rules.sort_unstable();
    rules.dedup();
    rules
}

/// One line made from a good one, in a session with two calls.
fn one(change: impl FnOnce(&mut Traced, &mut TraceLine)) -> Report {
    let mut traced = traced(2);
    let mut changed = traced.result(0);
    change(&mut traced, &mut changed);
    traced.say(vec![changed]);
    traced.report()
}

#[test]
fn no_trace_lines_are_not_applicable() {
    let report = traced(2).report();
    assert!(!report.correlation.applicable);
    assert!(!caps(&report).contains(&"correlation_low"));
}

#[test]
fn receipts_that_hold_are_correlated() {
    let mut traced = traced(3);
    let request = traced.answers[0] - 1;
    let lines = vec![line(&traced.world, TraceAbout::LlmCall, request), traced.result(0), traced.result(1)];
    traced.say(lines);
    let step = line(&traced.world, TraceAbout::VerificationStep, traced.answers[1]);
    traced.say(vec![step]);
    let report = traced.report();
    assert_eq!((report.correlation.lines, report.correlation.valid, report.correlation.ratio_bp), (3, 3, 10_000));
    assert_eq!(of(&report, "trace.correlated"), (3, 0));
    assert_eq!(of(&report, "trace.verified"), (1, 0));
    let fact = report.facts.iter().find(|fact| fact.fact == "trace.correlated").unwrap();
    assert_eq!(fact.best_tier, Tier::Observed);
}

#[test]
fn each_defect_of_a_receipt_has_its_code() {
    let forged = |report: &Report, code| {
        assert!(has(report, code), "{code}: {:?}", report.findings);
        assert_eq!(of(report, "trace.correlated"), (0, 1), "{code}");
        assert_eq!(penalty(report, "receipt_invalid_or_replayed"), 500, "{code}");
    };
    let report = one(|_, line| line.receipt = Some("eyJhbGciOiJFZERTQSJ9.e30.AAAA".into()));
    forged(&report, FindingCode::TraceReceiptInvalid);
    assert!(caps(&report).contains(&"forged_receipt"));

    let report = one(|traced, line| {
        let mut claims = traced.world.evidence.claims(traced.answers[0]);
        claims.model = Some("a better one".into());
        line.receipt = Some(traced.world.audit.sign_claims(&claims));
    });
    forged(&report, FindingCode::TraceReceiptInvalid);

    let report = one(|traced, line| {
        let mut claims = traced.world.evidence.claims(traced.answers[0]);
        claims.event_hash = amc_crypto::sha256(b"nothing");
        line.receipt = Some(traced.world.evidence.sign_claims(&claims));
    });
    forged(&report, FindingCode::TraceEventHashNotFound);
    assert!(caps(&report).contains(&"forged_receipt"));

    let report = one(|traced, line| {
        let mut claims = traced.world.evidence.claims(traced.answers[0]);
        claims.body_sha256 = amc_crypto::sha256(b"another body");
        line.receipt = Some(traced.world.evidence.sign_claims(&claims));
    });
    forged(&report, FindingCode::TraceBodyHashMismatch);

    let report = one(|traced, line| {
        let other = agent("other");
        let session = traced.world.open(&other, SessionPurpose::Agent);
        let index = traced.world.call(&other, session, &Call::default());
        line.receipt = Some(traced.world.evidence.receipt(index));
    });
    forged(&report, FindingCode::TraceAgentMismatch);
    assert!(!caps(&report).contains(&"forged_receipt"), "stolen, not forged");

    let report = one(|traced, line| {
        let bot = traced.bot.clone();
        let session = traced.world.open(&bot, SessionPurpose::Agent);
        let index = traced.world.call(&bot, session, &Call::default());
        traced.world.seal(&bot, session, SessionOutcome::Sealed);
        line.receipt = Some(traced.world.evidence.receipt(index));
    });
    forged(&report, FindingCode::TraceSessionMismatch);

    let report = one(|_, line| line.about = TraceAbout::LlmCall);
    forged(&report, FindingCode::TraceReceiptInvalid);
}

#[test]
fn one_receipt_shown_twenty_times_counts_once() {
    let mut traced = traced(2);
    let lines = vec![traced.result(0); 20];
    traced.say(lines);
    let report = traced.report();
    assert_eq!((report.correlation.lines, report.correlation.valid, report.correlation.ratio_bp), (20, 1, 500));
    assert!(has(&report, FindingCode::TraceReceiptReplay));
    assert!(has(&report, FindingCode::TraceCorrelationLow));
    assert_eq!(penalty(&report, "receipt_invalid_or_replayed"), 3_000, "at most");
    assert_eq!(penalty(&report, "correlation_low"), 1_000);
    assert!(caps(&report).contains(&"correlation_low"));
}

#[test]
fn nine_in_ten_is_enough_and_less_is_low() {
    let with_missing = |good: usize, missing: usize| {
        let mut traced = traced(good + 1);
        let mut lines: Vec<TraceLine> = (0..good).map(|at| traced.result(at)).collect();
        lines.extend((0..missing).map(|_| TraceLine { receipt: None, ..traced.result(0) }));
        traced.say(lines);
        traced.report()
    };
    let enough = with_missing(9, 1);
    assert_eq!(enough.correlation.ratio_bp, 9_000);
    assert!(!has(&enough, FindingCode::TraceCorrelationLow) && has(&enough, FindingCode::TraceReceiptMissing));
    let low = with_missing(8, 1);
    assert_eq!(low.correlation.ratio_bp, 8_888);
    assert!(has(&low, FindingCode::TraceCorrelationLow));
}

#[test]
fn lines_that_disagree_with_their_event_are_contradictions() {
    let report = one(|_, line| line.agent_id = "somebody-else".into());
    assert_eq!(penalty(&report, "contradiction"), 500);
    assert_eq!(of(&report, "trace.correlated"), (0, 1));
    let report = one(|_, line| line.request_id = Some("req-999".into()));
    assert_eq!(penalty(&report, "contradiction"), 500);
    let report = one(|traced, line| {
        line.request_id = Some(traced.world.evidence.claims(traced.answers[0]).request_id);
    });
    assert_eq!(penalty(&report, "contradiction"), 0);
}

#[test]
fn calls_that_nobody_saw_are_missing_evidence() {
    let mut traced = traced(0);
    let invented = TraceLine {
        stream: Stream::Stdout,
        offset: 0,
        about: TraceAbout::LlmResult,
        agent_id: "bot".into(),
        request_id: Some("req-1".into()),
        receipt: None,
    };
    traced.say(vec![invented; 3]);
    let report = traced.report();
    assert_eq!(penalty(&report, "llm_evidence_missing"), 500, "per session, however many lines");
    assert_eq!(of(&report, "trace.correlated"), (0, 0));
}

#[test]
fn a_forged_receipt_is_a_blocker() {
    let bank = small_bank("\"llm.exchange\"", "");
    let mut world = World::new();
    world.days(12, 2);
    assert_eq!(level_of(&world.score(&bank, 30)), (5, 5));
    let bot = world.agent.clone();
    world.next_day();
    let session = world.open(&bot, SessionPurpose::Agent);
    let index = world.call(&bot, session, &Call::default());
    let made_up = TraceLine { receipt: Some("a.b.c".into()), ..line(&world, TraceAbout::LlmResult, index) };
    world.trace(&bot, session, vec![made_up]);
    world.exit(&bot, session, 0);
    world.seal(&bot, session, SessionOutcome::Sealed);
    world.cosign();
    assert_eq!(level_of(&world.score(&bank, 30)), (3, 3));
}
