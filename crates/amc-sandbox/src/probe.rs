//! The trusted side of the boundary probe: it says what is to be tried, repeats every attempt as a
//! control, compares what the probe got with what is really there, and decides.

mod elsewhere;
mod judge;
mod schedule;
mod targets;

use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use amc_core::kinds::{ProbeAttempt, ProbeOutcome, ProbeTarget};
use amc_workspace::protocol::gateway::{PROBE_ATTEMPTS_MAX, PROBE_SUBJECT_BYTES_MAX};
use serde::Deserialize;

use crate::environment::Environment;
use crate::isolation::{Chosen, Purpose, Start};

pub use elsewhere::report;
pub use schedule::{EVERY, Wake, repeat};
pub use targets::{Ask, Targets};

/// Most lines of one probe: every candidate is one.
const LINES_MAX: usize = 65_536;
/// A line above this is no probe's.
const LINE_BYTES_MAX: u64 = 16 * 1024;

/// What the probe says; see `amc-sandbox-init`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Attempt(Attempt),
    Descriptor(Descriptor),
    Candidate { place: String, text: String },
    Done { candidates_cut: bool },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Attempt {
    target: ProbeTarget,
    subject: String,
    got: Got,
    bytes: Option<String>,
    decoy: Option<Got>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Descriptor {
    number: i32,
    shown: String,
    dev: u64,
    ino: u64,
    ends: Vec<PathBuf>,
    process: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Got {
    Reached,
    Denied,
    Absent,
    Unclear,
}

/// A probe that could not be run.
#[derive(Debug, thiserror::Error)]
#[error("the boundary probe could not be run: {0}")]
pub struct ProbeError(#[from] io::Error);

/// What a probe gave, judged but for the candidates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probed {
    /// The attempts, decided.
    pub attempts: Vec<ProbeAttempt>,
    /// Texts that could be secrets, each with its place; only the monitor can compare them.
    pub candidates: Vec<(String, String)>,
    /// Whether there were more.
    pub candidates_cut: bool,
}

/// Targets that every probe tries; one that is missing was not tried.
const TRIED: &[ProbeTarget] = &[
    ProbeTarget::Vault,
    ProbeTarget::HomeRead,
    ProbeTarget::LogWrite,
    ProbeTarget::HomeWrite,
    ProbeTarget::SigningSocket,
    ProbeTarget::TrustedProcess,
    ProbeTarget::Descriptor,
    ProbeTarget::Privilege,
    ProbeTarget::ContainerEngine,
    ProbeTarget::SessionBus,
];

/// Runs the probe as the agent will run, and judges it.
///
/// # Errors
/// [`ProbeError`] when it could not be started.
pub fn run(start: &Start, chosen: &Chosen, environment: &Environment, targets: &Targets) -> Result<Probed, ProbeError> {
    let mut command = start.command(chosen, Purpose::Probe, false, targets);
    command.env_clear().envs(&environment.variables);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let lines = read_lines(&mut child);
    let status = child.wait()?;
    let lines = lines.ok().filter(|_| status.success()).unwrap_or_default();
    Ok(judged(lines, &judge::Judge::new(&start.home, targets)))
}

fn judged(lines: Vec<Line>, judge: &judge::Judge<'_>) -> Probed {
    let mut probed = Probed::default();
    let mut whole = false;
    for line in lines {
        match line {
            Line::Candidate { place, text } => probed.candidates.push((place, text)),
            Line::Attempt(attempt) => probed.attempts.push(judge.attempt(attempt)),
            Line::Descriptor(descriptor) => probed.attempts.push(judge.descriptor(&descriptor)),
            Line::Done { candidates_cut } => (whole, probed.candidates_cut) = (true, candidates_cut),
        }
    }
    for target in TRIED {
        if !whole || !probed.attempts.iter().any(|attempt| attempt.target == *target) {
            let subject = "the probe did not finish".to_owned();
            probed.attempts.push(ProbeAttempt { target: *target, subject, outcome: ProbeOutcome::Inconclusive });
        }
    }
    probed.attempts = bounded(probed.attempts);
    probed
}

/// At most as many attempts as an event holds; what says something is kept first.
pub fn bounded(mut attempts: Vec<ProbeAttempt>) -> Vec<ProbeAttempt> {
    for attempt in &mut attempts {
        let end = attempt.subject.floor_char_boundary(PROBE_SUBJECT_BYTES_MAX);
        attempt.subject.truncate(end);
    }
    if attempts.len() > PROBE_ATTEMPTS_MAX {
        let weight = |attempt: &ProbeAttempt| match attempt.outcome {
            ProbeOutcome::Reached => 0,
            ProbeOutcome::Inconclusive => 1,
            ProbeOutcome::Denied => 2,
            ProbeOutcome::Absent => 3,
        };
        attempts.sort_by_key(weight);
        attempts.truncate(PROBE_ATTEMPTS_MAX);
    }
    attempts
}

fn read_lines(child: &mut Child) -> io::Result<Vec<Line>> {
    let mut out = BufReader::new(child.stdout.take().expect("standard output is a pipe"));
    let mut lines = Vec::new();
    loop {
        let mut text = String::new();
        if out.by_ref().take(LINE_BYTES_MAX).read_line(&mut text)? == 0 {
            return Ok(lines);
        }
        if lines.len() == LINES_MAX {
            return Err(io::Error::other("too many lines"));
        }
        lines.push(serde_json::from_str(&text).map_err(io::Error::other)?);
    }
}

#[cfg(test)]
mod tests;
