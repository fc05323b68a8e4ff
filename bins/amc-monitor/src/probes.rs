//! Boundary probes that the agent's side runs itself and reports through the gateway.
//!
//! The report is the agent's side's word, so the event is SELF_REPORTED: the channel decides. What it
//! says was reached counts; what it says was refused is held against a control here where there is
//! one. A session that `amc wrap` opened takes none: the wrapper probes there.

use amc_core::kinds::{BoundaryProbe, Isolation, ProbeAttempt, ProbeOutcome, ProbePhase, ProbeTarget};
use amc_core::{LeaseId, Tier};
use amc_evidence::Draft;
use amc_workspace::protocol::Refusal;
use amc_workspace::protocol::gateway::{
    GatewayReply, PROBE_ATTEMPTS_MAX, PROBE_SUBJECT_BYTES_MAX, ReportedAttempt, ReportedGot, ReportedProbe,
};
use rustix::process::geteuid;

use crate::daemon::Daemon;
use crate::sessions::refusal;

/// What every probe tries; a report that lacks one leaves it open.
const TRIED: &[ProbeTarget] = &[
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

/// Where to look: names, and no secret.
pub(crate) fn plan(daemon: &Daemon, lease: &LeaseId) -> Result<GatewayReply, Refusal> {
    let unknown = || Refusal::LeaseInvalid(format!("{lease} belongs to no open session"));
    daemon.sessions.agent_of_lease(lease).ok_or_else(unknown)?;
    let own = i32::try_from(std::process::id()).ok().map(|pid| ("amc-monitor".to_owned(), pid));
    let gateway = daemon.gateway().and_then(|gateway| gateway.pid).map(|pid| ("amc-gateway".to_owned(), pid));
    let home = daemon.core.home.root().display().to_string();
    Ok(GatewayReply::ProbePlan { home, trusted: own.into_iter().chain(gateway).collect() })
}

/// Decides and records.
pub(crate) fn take(daemon: &Daemon, report: ReportedProbe) -> Result<GatewayReply, Refusal> {
    let ReportedProbe { lease, session, attempts, peer_uid } = report;
    let own = daemon.sessions.of_lease(&lease, session);
    let (agent, session) = own.ok_or_else(|| Refusal::LeaseInvalid(format!("{lease} belongs to no open session")))?;
    let Some(is_first) = daemon.sessions.probed_by_hand(session) else {
        return Err(Refusal::Invalid("`amc wrap` probes this session itself".to_owned()));
    };
    let is_text = |attempt: &ReportedAttempt| {
        attempt.subject.len() <= PROBE_SUBJECT_BYTES_MAX && !attempt.subject.chars().any(char::is_control)
    };
    if attempts.len() >= PROBE_ATTEMPTS_MAX - TRIED.len() || !attempts.iter().all(is_text) {
        return Err(Refusal::Invalid(format!("a report has at most {PROBE_ATTEMPTS_MAX} short attempts")));
    }
    let decide = |attempt: ReportedAttempt| {
        let outcome = decided(daemon, &attempt);
        ProbeAttempt { target: attempt.target, subject: attempt.subject, outcome }
    };
    let mut attempts: Vec<ProbeAttempt> = attempts.into_iter().map(decide).collect();
    for target in TRIED.iter().filter(|target| !attempts.iter().any(|it| it.target == **target)).collect::<Vec<_>>() {
        let subject = "nothing of this was tried".to_owned();
        attempts.push(ProbeAttempt { target: *target, subject, outcome: ProbeOutcome::Inconclusive });
    }
    attempts.extend(peer_uid.map(seen));
    // A session of a lease begins when the lease is used, so its first probe stands for its beginning.
    let phase = if is_first { ProbePhase::Before } else { ProbePhase::During };
    let probe = BoundaryProbe { phase, isolation: Isolation::None, attempts: attempts.clone() };
    let draft = Draft::in_session(agent, session, Tier::SelfReported, probe);
    let index = daemon.core.writer.append(draft, None).map_err(refusal)?.index;
    Ok(GatewayReply::Probed { index, attempts })
}

/// What nobody reports: the user of the process that sent it, where the kernel says so here.
fn seen(uid: u32) -> ProbeAttempt {
    let is_ours = uid == 0 || uid == geteuid().as_raw();
    let outcome = if is_ours { ProbeOutcome::Reached } else { ProbeOutcome::Denied };
    let subject = format!("being the monitor's own user on its machine, as uid {uid}");
    ProbeAttempt { target: ProbeTarget::TrustedProcess, subject, outcome }
}

fn decided(daemon: &Daemon, attempt: &ReportedAttempt) -> ProbeOutcome {
    match (attempt.got, exists_here(daemon, attempt)) {
        (ReportedGot::Reached, _) => ProbeOutcome::Reached,
        (ReportedGot::Unclear, _) => ProbeOutcome::Inconclusive,
        (ReportedGot::Denied | ReportedGot::Absent, Some(true)) => ProbeOutcome::Denied,
        (ReportedGot::Denied | ReportedGot::Absent, Some(false)) => ProbeOutcome::Absent,
        // Of the agent's own machine, where the probe has decoys: its word.
        (ReportedGot::Denied, None) => ProbeOutcome::Denied,
        (ReportedGot::Absent, None) => ProbeOutcome::Absent,
    }
}

/// A name of the home's, and no way out of it: what else is on this machine is not told.
fn is_inside(name: &str) -> bool {
    !name.starts_with('/') && name.split('/').all(|part| part != "..")
}

/// The control: whether what was tried is there on this side. `None` where this side cannot know.
fn exists_here(daemon: &Daemon, attempt: &ReportedAttempt) -> Option<bool> {
    let home = daemon.core.home.root();
    let subject = attempt.subject.as_str();
    match attempt.target {
        ProbeTarget::Vault | ProbeTarget::HomeRead | ProbeTarget::LogWrite | ProbeTarget::HomeWrite => {
            let prefixes = ["read ", "write ", "create in ", "list "];
            let name = prefixes.iter().find_map(|prefix| subject.strip_prefix(prefix));
            let name = name.map(|name| name.split(" by way of ").next().unwrap_or(name));
            Some(name.is_none_or(|name| name == "the home" || !is_inside(name) || home.join(name).exists()))
        }
        ProbeTarget::SigningSocket => {
            let name = subject.split_whitespace().find(|word| word.starts_with("run/"));
            Some(name.is_none_or(|name| !is_inside(name) || home.join(name).exists()))
        }
        // This very process runs, and the gateway that passed the report on.
        ProbeTarget::TrustedProcess => Some(true),
        ProbeTarget::Passphrase
        | ProbeTarget::ProviderKey
        | ProbeTarget::Descriptor
        | ProbeTarget::Privilege
        | ProbeTarget::ContainerEngine
        | ProbeTarget::SessionBus => None,
    }
}
