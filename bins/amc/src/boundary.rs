//! The boundary probe of a session: run where the agent runs, judged here, recorded by the monitor.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::Path;

use amc_core::kinds::{BoundaryProbe, Isolation, ProbeAttempt, ProbeOutcome, ProbePhase, ProbeTarget};
use amc_sandbox::environment::{self, Environment, Routes};
use amc_sandbox::probe::{self, Probed, Targets};
use amc_sandbox::recorder::MonitorClient;
use amc_sandbox::{Asked, Chosen, Start, command};
use amc_workspace::Failure;
use amc_workspace::home;
use amc_workspace::protocol::operator::{KnownSecret, OperatorReply, OperatorRequest, ProcessFields};

use crate::{services, signers};

/// Candidates sent at once: well below the bound of a frame.
const BATCH_BYTES: usize = 256 * 1024;

/// A session's boundary and how to try it.
pub(crate) struct Boundary<'a> {
    pub(crate) start: &'a Start,
    pub(crate) chosen: &'a Chosen,
    pub(crate) environment: &'a Environment,
}

/// What an agent must not get at now: the home, its sockets, whoever listens there, the gateway, and
/// this process.
fn targets(home: &Path, client: &mut MonitorClient) -> Result<Targets, Failure> {
    let status = services::monitor_status(client)?;
    let mut targets = Targets::of(home);
    targets.trust(i32::try_from(status.pid).ok());
    targets.trust(status.gateway_pid);
    Ok(targets)
}

impl Boundary<'_> {
    /// Probes; `client` is asked which of what lies about is a secret.
    pub(crate) fn probe(&self, client: &mut MonitorClient, phase: ProbePhase) -> Result<ProcessFields, Failure> {
        let targets = targets(&self.start.home, client)?;
        let Probed { mut attempts, candidates, candidates_cut } =
            probe::run(self.start, self.chosen, self.environment, &targets).map_err(Failure::unable)?;
        attempts.extend(judge(client, &candidates, candidates_cut)?);
        let attempts = probe::bounded(attempts);
        Ok(ProcessFields::Probe(BoundaryProbe { phase, isolation: self.chosen.isolation.clone(), attempts }))
    }
}

/// What a trial of the isolation that `auto` takes here gave.
pub(crate) struct Trial {
    /// What it takes.
    pub(crate) isolation: Isolation,
    /// Why nothing stronger.
    pub(crate) why: Option<String>,
    /// What was reached, or could not be told.
    pub(crate) reached: Vec<String>,
}

/// Whether an agent that this machine isolates by default reaches nothing. Anything that goes wrong
/// means no.
pub(crate) fn trial(home: Option<&Path>) -> bool {
    try_out(home).is_some_and(|trial| trial.isolation != Isolation::None && trial.reached.is_empty())
}

/// Tries the isolation that `auto` takes with a decoy of a home beside where the real one is or will
/// be; `None` where that could not be done.
pub(crate) fn try_out(home: Option<&Path>) -> Option<Trial> {
    let parent = home.and_then(Path::parent).filter(|parent| parent.is_dir()).unwrap_or(Path::new("."));
    let decoy = parent.join(format!(".amc-trial-{}", std::process::id()));
    let tried = home::make_dir(&decoy).ok().and_then(|()| tried(&decoy));
    // What this function made itself a moment ago.
    let _ = std::fs::remove_dir_all(&decoy);
    tried
}

fn tried(decoy: &Path) -> Option<Trial> {
    home::make_dir(&decoy.join("logs/evidence")).ok()?;
    home::make_dir(&decoy.join("logs/audit")).ok()?;
    let files = ["vault.amcvault", "amc.yaml", "gateway.yaml", "trust.policy"];
    for name in files.into_iter().chain(["logs/evidence/checkpoint", "logs/audit/checkpoint"]) {
        home::write_atomic(&decoy.join(name), b"a decoy\n").ok()?;
    }
    let executable = command::resolve(OsStr::new("true"), std::env::var_os("PATH").as_deref()).ok()?;
    let start = Start {
        init: signers::program("amc-sandbox-init"),
        home: decoy.canonicalize().ok()?,
        work_dir: std::env::current_dir().ok()?,
        executable: executable.path,
        argv: vec!["true".into()],
    };
    let chosen = start.choose(&Asked::Auto).ok()?;
    let (isolation, why) = (chosen.isolation.clone(), chosen.why_not_stronger.clone());
    if isolation == Isolation::None {
        return Some(Trial { isolation, why, reached: Vec::new() });
    }
    let routes = Routes { listen: SocketAddr::from(([127, 0, 0, 1], 0)), providers: Vec::new(), proxy: None };
    let environment = environment::build(std::env::vars_os(), &[], &routes, "");
    let probed = probe::run(&start, &chosen, &environment, &Targets::of(&start.home)).ok()?;
    let reached = probed.attempts.iter().filter(|attempt| {
        attempt.target != ProbeTarget::HomeRead
            && !matches!(attempt.outcome, ProbeOutcome::Denied | ProbeOutcome::Absent)
    });
    Some(Trial { isolation, why, reached: reached.map(|attempt| attempt.subject.clone()).collect() })
}

/// Has the monitor say which candidates are secrets; nothing of them is recorded but the place.
fn judge(client: &mut MonitorClient, candidates: &[(String, String)], cut: bool) -> Result<Vec<ProbeAttempt>, Failure> {
    let mut found = Vec::new();
    let mut rest = candidates;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |(_, text): &&(String, String)| {
            bytes += text.len() + 8;
            bytes <= BATCH_BYTES
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (batch, later) = rest.split_at(count);
        let texts = batch.iter().map(|(_, text)| text.clone()).collect();
        let OperatorReply::Judged(known) = services::call(client, OperatorRequest::Judge { candidates: texts })? else {
            return Err(Failure::unable("the monitor gave an unexpected answer"));
        };
        for (number, secret) in known {
            let place = batch.get(number as usize).map(|(place, _)| place.clone()).unwrap_or_default();
            let target = match secret {
                KnownSecret::Passphrase => ProbeTarget::Passphrase,
                KnownSecret::ProviderKey => ProbeTarget::ProviderKey,
            };
            found.push(ProbeAttempt { target, subject: place, outcome: ProbeOutcome::Reached });
        }
        rest = later;
    }
    for (target, what) in [(ProbeTarget::Passphrase, "the passphrase"), (ProbeTarget::ProviderKey, "a provider's key")]
    {
        if !found.iter().any(|attempt| attempt.target == target) {
            let more = if cut { "the first " } else { "" };
            let subject = format!("{what} among {more}{} texts found", candidates.len());
            found.push(ProbeAttempt { target, subject, outcome: ProbeOutcome::Denied });
        }
    }
    Ok(found)
}
