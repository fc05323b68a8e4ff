//! The trusted side of the boundary probe: it repeats every attempt as a control, compares what the
//! probe got with what is really there, and decides.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};

use amc_core::digest::hex;
use amc_core::kinds::{ProbeAttempt, ProbeOutcome, ProbeTarget};
use serde::Deserialize;

use crate::environment::Environment;
use crate::isolation::{Chosen, Purpose, Start};

/// Most lines of one probe.
const LINES_MAX: usize = 16_384;
/// A line above this is no probe's.
const LINE_BYTES_MAX: u64 = 16 * 1024;

/// What the probe says; see `amc-sandbox-init`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Attempt { target: ProbeTarget, subject: String, got: Got, bytes: Option<String> },
    Candidate { place: String, text: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Got {
    Reached,
    Denied,
    Absent,
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
pub fn run(
    start: &Start,
    chosen: &Chosen,
    environment: &Environment,
    trusted: &[(String, i32)],
) -> Result<Probed, ProbeError> {
    let mut command = start.command(chosen, Purpose::Probe, false, trusted);
    command.env_clear().envs(&environment.variables);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let lines = read_lines(&mut child);
    let status = child.wait()?;
    let mut probed = Probed::default();
    let whole = lines.is_ok() && status.success();
    for line in lines.unwrap_or_default() {
        match line {
            Line::Candidate { place, text } => probed.candidates.push((place, text)),
            Line::Attempt { target, subject, got, bytes } => {
                let outcome = decide(&start.home, trusted, target, &subject, got, bytes.as_deref());
                probed.attempts.push(ProbeAttempt { target, subject, outcome });
            }
        }
    }
    for target in TRIED {
        if !whole || !probed.attempts.iter().any(|attempt| attempt.target == *target) {
            let subject = "the probe did not finish".to_owned();
            probed.attempts.push(ProbeAttempt { target: *target, subject, outcome: ProbeOutcome::Inconclusive });
        }
    }
    Ok(probed)
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

/// What the control says of an attempt.
enum Control {
    /// The trusted side can do it; what it read, where it read.
    Works(Option<String>),
    /// There is nothing.
    Absent,
    /// It fails here too.
    Fails,
}

fn decide(
    home: &Path,
    trusted: &[(String, i32)],
    target: ProbeTarget,
    subject: &str,
    got: Got,
    bytes: Option<&str>,
) -> ProbeOutcome {
    let control = control(home, trusted, target, subject);
    match (got, control) {
        // It read something: is it what is really there?
        (Got::Reached, Control::Works(Some(real))) => {
            if bytes == Some(real.as_str()) {
                ProbeOutcome::Reached
            } else {
                ProbeOutcome::Inconclusive
            }
        }
        (Got::Reached, _) => ProbeOutcome::Reached,
        (Got::Denied | Got::Absent, Control::Works(_)) => ProbeOutcome::Denied,
        (Got::Denied | Got::Absent, Control::Absent) => ProbeOutcome::Absent,
        (Got::Denied | Got::Absent, Control::Fails) => ProbeOutcome::Inconclusive,
    }
}

fn control(home: &Path, trusted: &[(String, i32)], target: ProbeTarget, subject: &str) -> Control {
    match target {
        ProbeTarget::Vault | ProbeTarget::HomeRead => file_control(home, subject, "read "),
        ProbeTarget::LogWrite | ProbeTarget::HomeWrite => {
            // A directory or file of the home that the trusted side can write.
            let name = ["write ", "create in "].iter().find_map(|prefix| subject.strip_prefix(prefix));
            let path =
                name.map_or_else(|| home.to_owned(), |name| home.join(if name == "the home" { "" } else { name }));
            match rustix::fs::access(&path, rustix::fs::Access::WRITE_OK) {
                Ok(()) => Control::Works(None),
                Err(rustix::io::Errno::NOENT) => Control::Absent,
                Err(_) => Control::Fails,
            }
        }
        ProbeTarget::SigningSocket => connect(&home.join(subject.strip_prefix("connect to ").unwrap_or_default())),
        ProbeTarget::ContainerEngine | ProbeTarget::SessionBus => {
            connect(Path::new(subject.strip_prefix("connect to ").unwrap_or_default()))
        }
        ProbeTarget::TrustedProcess => {
            let named = trusted.iter().find(|(name, _)| subject.contains(name.as_str()));
            let pid = named.and_then(|(_, pid)| rustix::process::Pid::from_raw(*pid));
            match pid.map(rustix::process::test_kill_process) {
                Some(Ok(())) => Control::Works(None),
                Some(Err(rustix::io::Errno::SRCH)) | None => Control::Absent,
                Some(Err(_)) => Control::Fails,
            }
        }
        // Nothing on the trusted side compares: what was refused was refused.
        ProbeTarget::Descriptor | ProbeTarget::Privilege | ProbeTarget::Passphrase | ProbeTarget::ProviderKey => {
            Control::Works(None)
        }
    }
}

fn file_control(home: &Path, subject: &str, prefix: &str) -> Control {
    let path = home.join(subject.strip_prefix(prefix).unwrap_or_default());
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(64).read_to_end(&mut bytes)) {
        Ok(_) => Control::Works(Some(hex(&bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Control::Absent,
        Err(_) => Control::Fails,
    }
}

fn connect(path: &Path) -> Control {
    match UnixStream::connect(path) {
        Ok(_) => Control::Works(None),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Control::Absent
        }
        Err(_) => Control::Fails,
    }
}
