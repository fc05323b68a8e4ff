//! What a boundary probe means for a run: proven, violated, unproven, capped.

use amc_core::kinds::{
    BoundaryDeclared, BoundaryMode, BoundaryProbe, Isolation, ProbeAttempt, ProbeOutcome, ProbePhase, ProbeTarget,
    SessionOutcome, SessionPurpose,
};
use amc_core::{FindingCode, Tier};
use amc_scoring::{Report, Status};

use crate::world::{World, shipped};

const TARGETS: [ProbeTarget; 12] = [
    ProbeTarget::Vault,
    ProbeTarget::HomeRead,
    ProbeTarget::LogWrite,
    ProbeTarget::HomeWrite,
    ProbeTarget::SigningSocket,
    ProbeTarget::TrustedProcess,
    ProbeTarget::Passphrase,
    ProbeTarget::ProviderKey,
    ProbeTarget::Descriptor,
    ProbeTarget::Privilege,
    ProbeTarget::ContainerEngine,
    ProbeTarget::SessionBus,
];

/// A probe that was denied everything but what `except` says.
pub(crate) fn probe(phase: ProbePhase, except: &[(ProbeTarget, ProbeOutcome)]) -> BoundaryProbe {
    let outcome_of = |target| except.iter().find(|(named, _)| *named == target).map_or(ProbeOutcome::Denied, |it| it.1);
    let attempts = TARGETS
        .iter()
        .map(|target| ProbeAttempt { target: *target, subject: format!("{target:?}"), outcome: outcome_of(*target) })
        .collect();
    BoundaryProbe { phase, isolation: Isolation::Namespaces, attempts }
}

fn probed(probes: &[BoundaryProbe]) -> Report {
    let mut world = World::new();
    world.next_day();
    let bot = world.agent.clone();
    let session = world.open(&bot, SessionPurpose::Agent);
    for probe in probes {
        world.say(&bot, session, Tier::Observed, probe.clone());
    }
    world.exit(&bot, session, 0);
    world.seal(&bot, session, SessionOutcome::Sealed);
    world.score(&shipped(), 14)
}

fn has(report: &Report, code: FindingCode) -> bool {
    report.findings.iter().any(|finding| finding.code == code)
}

#[test]
fn a_probe_that_was_denied_everything_proves_the_boundary() {
    let report = probed(&[probe(ProbePhase::Before, &[]), probe(ProbePhase::During, &[])]);
    assert_eq!((report.status, report.sessions[0].boundary.as_str()), (Status::Valid, "proven"));
    let absent = probe(ProbePhase::Before, &[(ProbeTarget::ContainerEngine, ProbeOutcome::Absent)]);
    assert_eq!(probed(&[absent]).status, Status::Valid);
}

#[test]
fn without_a_probe_before_the_agent_nothing_is_proven() {
    for probes in [vec![], vec![probe(ProbePhase::During, &[])]] {
        let report = probed(&probes);
        assert_eq!(report.status, Status::Invalid);
        assert!(has(&report, FindingCode::TrustBoundaryUnproven));
    }
    let nothing_tried = BoundaryProbe { attempts: Vec::new(), ..probe(ProbePhase::Before, &[]) };
    assert!(has(&probed(&[nothing_tried]), FindingCode::TrustBoundaryUnproven));
}

#[test]
fn whatever_matters_violates_when_reached_and_leaves_unproven_when_inconclusive() {
    for target in TARGETS {
        let matters = !matches!(target, ProbeTarget::HomeRead | ProbeTarget::ProviderKey);
        for phase in [ProbePhase::Before, ProbePhase::During] {
            for (outcome, code) in [
                (ProbeOutcome::Reached, FindingCode::TrustBoundaryViolated),
                (ProbeOutcome::Inconclusive, FindingCode::TrustBoundaryUnproven),
            ] {
                let other =
                    probe(if phase == ProbePhase::Before { ProbePhase::During } else { ProbePhase::Before }, &[]);
                let report = probed(&[probe(phase, &[(target, outcome)]), other]);
                assert_eq!(report.status == Status::Invalid, matters, "{target:?} {outcome:?} {phase:?}");
                assert_eq!(has(&report, code), matters, "{target:?} {outcome:?} {phase:?}");
            }
        }
    }
}

#[test]
fn the_finding_names_the_session_the_event_and_what_was_reached() {
    let report = probed(&[probe(ProbePhase::Before, &[(ProbeTarget::Vault, ProbeOutcome::Reached)])]);
    let finding = report.findings.iter().find(|finding| finding.code == FindingCode::TrustBoundaryViolated);
    let finding = finding.expect("a reached vault is found");
    assert!(finding.subject.starts_with("evidence#") && finding.message.contains("Vault"), "{finding}");
}

#[test]
fn a_provider_key_within_reach_caps_the_supply_chain_and_is_no_violation() {
    let report = probed(&[probe(ProbePhase::Before, &[(ProbeTarget::ProviderKey, ProbeOutcome::Reached)])]);
    assert_eq!(report.status, Status::Valid);
    let capped =
        report.questions.iter().any(|question| question.caps.iter().any(|cap| cap.rule == "route_past_gateway"));
    assert!(capped, "no question is capped");
}

#[test]
fn a_boundary_declared_shared_is_invalid_by_declaration_and_isolated_alone_proves_nothing() {
    let declared = |mode, probes: &[BoundaryProbe]| {
        let mut world = World::new();
        world.next_day();
        let bot = world.agent.clone();
        let session = world.open(&bot, SessionPurpose::Agent);
        let index = world.say(&bot, session, Tier::Observed, BoundaryDeclared { mode });
        for probe in probes {
            world.say(&bot, session, Tier::Observed, probe.clone());
        }
        world.exit(&bot, session, 0);
        world.seal(&bot, session, SessionOutcome::Sealed);
        (index, world.score(&shipped(), 14))
    };
    let good = [probe(ProbePhase::Before, &[])];
    let (index, report) = declared(BoundaryMode::Shared, &good);
    assert_eq!((report.status, report.sessions[0].boundary.as_str()), (Status::Invalid, "shared"));
    let subject = format!("evidence#{index}");
    assert!(report.findings.iter().any(|it| it.code == FindingCode::TrustBoundaryUnproven && it.subject == subject));
    assert_eq!(declared(BoundaryMode::Isolated, &good).1.status, Status::Valid);
    assert_eq!(declared(BoundaryMode::Isolated, &[]).1.status, Status::Invalid);
}
