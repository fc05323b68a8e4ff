//! The boundary probe of a session: run where the agent runs, judged here, recorded by the monitor.

use amc_core::kinds::{BoundaryProbe, ProbeAttempt, ProbeOutcome, ProbePhase, ProbeTarget};
use amc_sandbox::environment::Environment;
use amc_sandbox::probe::{self, Probed};
use amc_sandbox::recorder::MonitorClient;
use amc_sandbox::{Chosen, Start};
use amc_workspace::Failure;
use amc_workspace::protocol::operator::{KnownSecret, OperatorReply, OperatorRequest, ProcessFields};

use crate::services;

/// Candidates sent at once: well below the bound of a frame.
const BATCH_BYTES: usize = 256 * 1024;

/// A session's boundary and how to try it.
pub(crate) struct Boundary<'a> {
    pub(crate) start: &'a Start,
    pub(crate) chosen: &'a Chosen,
    pub(crate) environment: &'a Environment,
    pub(crate) trusted: Vec<(String, i32)>,
}

/// The processes that an agent must not get at: the monitor, the gateway, and this one.
pub(crate) fn trusted_processes(client: &mut MonitorClient) -> Result<Vec<(String, i32)>, Failure> {
    let status = services::monitor_status(client)?;
    let number = |pid: u32| i32::try_from(pid).map_err(Failure::unable);
    let mut trusted = vec![("amc-monitor".to_owned(), number(status.pid)?)];
    trusted.extend(status.gateway_pid.map(|pid| ("amc-gateway".to_owned(), pid)));
    trusted.push(("amc".to_owned(), number(std::process::id())?));
    Ok(trusted)
}

impl Boundary<'_> {
    /// Probes; `client` is asked which of what lies about is a secret.
    pub(crate) fn probe(&self, client: &mut MonitorClient, phase: ProbePhase) -> Result<ProcessFields, Failure> {
        let Probed { mut attempts, candidates } =
            probe::run(self.start, self.chosen, self.environment, &self.trusted).map_err(Failure::unable)?;
        attempts.extend(judge(client, &candidates)?);
        Ok(ProcessFields::Probe(BoundaryProbe { phase, isolation: self.chosen.isolation.clone(), attempts }))
    }
}

/// Has the monitor say which candidates are secrets; nothing of them is recorded but the place.
fn judge(client: &mut MonitorClient, candidates: &[(String, String)]) -> Result<Vec<ProbeAttempt>, Failure> {
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
            let subject = format!("{what} among {} texts found", candidates.len());
            found.push(ProbeAttempt { target, subject, outcome: ProbeOutcome::Denied });
        }
    }
    Ok(found)
}
