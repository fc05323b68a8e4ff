//! The boundary probe: what a hostile agent would try, tried from where the agent runs.
//!
//! It judges nothing and holds no secret. Every attempt is a line of JSON on standard output, with
//! what was got where something was; the trusted side compares and decides. It opens files for
//! writing and writes nothing, asks for a signature and uses none, and lets go of a process at once.

mod descriptors;
mod files;
mod privilege;
mod processes;
mod secrets;
mod sockets;

use std::io::{self, Write as _};

use amc_core::kinds::ProbeTarget;
use serde::Serialize;

use crate::plan::Plan;

/// What an attempt gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Got {
    /// It worked.
    Reached,
    /// It was refused.
    Denied,
    /// There is nothing.
    Absent,
    /// It broke, and says nothing.
    Unclear,
}

/// One line for the trusted side.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    /// An attempt and what it gave.
    Attempt(Attempt),
    /// A descriptor that the agent would inherit, beside its three streams.
    Descriptor(descriptors::Descriptor),
    /// Something that could be a secret, and where it was.
    Candidate {
        /// Where.
        place: String,
        /// The text.
        text: String,
    },
    /// The last line.
    Done {
        /// Whether there was more that could be a secret than is said.
        candidates_cut: bool,
    },
}

/// An attempt.
#[derive(Debug, Serialize)]
pub(crate) struct Attempt {
    /// What it tried to get at.
    pub(crate) target: ProbeTarget,
    /// How and where.
    pub(crate) subject: String,
    /// What it gave.
    pub(crate) got: Got,
    /// The beginning of a file that could be read, in hex.
    pub(crate) bytes: Option<String>,
    /// What the same gave on a decoy of this very user, where there is one.
    pub(crate) decoy: Option<Got>,
}

/// Where lines go.
pub(crate) struct Out(io::Stdout);

impl Out {
    pub(crate) fn line(&mut self, line: &Line) -> io::Result<()> {
        let text = serde_json::to_string(line).map_err(io::Error::other)?;
        writeln!(self.0, "{text}")
    }

    pub(crate) fn attempt(&mut self, target: ProbeTarget, subject: impl Into<String>, got: Got) -> io::Result<()> {
        self.line(&Line::Attempt(Attempt { target, subject: subject.into(), got, bytes: None, decoy: None }))
    }
}

/// Tries everything; always ends with 0, since the answers are on standard output.
pub(crate) fn probe(plan: &Plan) -> io::Result<u8> {
    let mut out = Out(io::stdout());
    files::try_all(&mut out, &plan.home, &plan.targets)?;
    sockets::try_all(&mut out, &plan.home, &plan.targets)?;
    processes::try_all(&mut out, plan)?;
    let readable = descriptors::try_all(&mut out, &plan.home)?;
    privilege::try_all(&mut out)?;
    let candidates_cut = secrets::collect(&mut out, plan, readable)?;
    out.line(&Line::Done { candidates_cut })?;
    out.0.flush()?;
    Ok(0)
}

pub(crate) fn refused(error: &io::Error) -> Got {
    if error.kind() == io::ErrorKind::NotFound { Got::Absent } else { Got::Denied }
}
