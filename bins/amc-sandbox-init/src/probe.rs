//! The boundary probe: what a hostile agent would try, tried from where the agent runs.
//!
//! It judges nothing and holds no secret. Every attempt is a line of JSON on standard output, with
//! what was got where something was; the trusted side compares and decides. It opens files for
//! writing and writes nothing, and lets go of a process at once.

mod processes;
mod secrets;
mod sockets;

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use amc_core::digest::hex;
use amc_core::kinds::ProbeTarget;
use rustix::fs::{Access, access};
use serde::Serialize;

use crate::plan::Plan;

/// Bytes of a file that are shown to the trusted side, to compare.
const SHOWN: usize = 64;

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
}

/// One line for the trusted side.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    /// An attempt and what it gave.
    Attempt {
        /// What it tried to get at.
        target: ProbeTarget,
        /// How and where.
        subject: String,
        /// What it gave.
        got: Got,
        /// The beginning of a file that could be read, in hex.
        bytes: Option<String>,
    },
    /// Something that could be a secret, and where it was.
    Candidate {
        /// Where.
        place: String,
        /// The text.
        text: String,
    },
}

/// Where lines go.
pub(crate) struct Out(io::Stdout);

impl Out {
    pub(crate) fn line(&mut self, line: &Line) -> io::Result<()> {
        let text = serde_json::to_string(line).map_err(io::Error::other)?;
        writeln!(self.0, "{text}")
    }

    pub(crate) fn attempt(&mut self, target: ProbeTarget, subject: impl Into<String>, got: Got) -> io::Result<()> {
        self.line(&Line::Attempt { target, subject: subject.into(), got, bytes: None })
    }
}

/// Tries everything; the exit code is 0 when all was tried.
pub(crate) fn probe(plan: &Plan) -> io::Result<u8> {
    let mut out = Out(io::stdout());
    files(&mut out, &plan.home)?;
    sockets::try_all(&mut out, &plan.home)?;
    processes::try_all(&mut out, &plan.trusted)?;
    descriptors(&mut out, &plan.home)?;
    privileges(&mut out)?;
    secrets::collect(&mut out, &plan.work_dir)?;
    out.0.flush()?;
    Ok(0)
}

fn files(out: &mut Out, home: &Path) -> io::Result<()> {
    let read = |out: &mut Out, target, name: &str| {
        let (got, bytes) = read_some(&home.join(name));
        out.line(&Line::Attempt { target, subject: format!("read {name}"), got, bytes })
    };
    read(out, ProbeTarget::Vault, "vault.amcvault")?;
    for name in ["amc.yaml", "gateway.yaml", "trust.policy", "logs/evidence/checkpoint", "logs/audit/checkpoint"] {
        read(out, ProbeTarget::HomeRead, name)?;
    }
    for name in ["logs/evidence/checkpoint", "logs/audit/checkpoint"] {
        out.attempt(ProbeTarget::LogWrite, format!("write {name}"), open_to_write(&home.join(name)))?;
    }
    for log in ["evidence", "audit"] {
        for dir in ["", "/segments", "/payloads", "/tile"] {
            let name = format!("logs/{log}{dir}");
            out.attempt(ProbeTarget::LogWrite, format!("create in {name}"), writable_dir(&home.join(&name)))?;
        }
        if let Ok(entries) = fs::read_dir(home.join(format!("logs/{log}/segments"))) {
            for entry in entries.flatten() {
                let name = format!("logs/{log}/segments/{}", entry.file_name().display());
                out.attempt(ProbeTarget::LogWrite, format!("write {name}"), open_to_write(&entry.path()))?;
            }
        }
    }
    for name in ["trust.policy", "gateway.yaml", "amc.yaml", "vault.amcvault"] {
        out.attempt(ProbeTarget::HomeWrite, format!("write {name}"), open_to_write(&home.join(name)))?;
    }
    out.attempt(ProbeTarget::HomeWrite, "create in the home", writable_dir(home))?;
    out.attempt(ProbeTarget::HomeWrite, "put another directory in the home's place", replaceable(home))
}

fn read_some(path: &Path) -> (Got, Option<String>) {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(SHOWN as u64).read_to_end(&mut bytes)) {
        Ok(_) => (Got::Reached, Some(hex(&bytes))),
        Err(error) => (refused(&error), None),
    }
}

fn open_to_write(path: &Path) -> Got {
    match File::options().append(true).open(path) {
        Ok(_) => Got::Reached,
        Err(error) => refused(&error),
    }
}

fn writable_dir(path: &Path) -> Got {
    match access(path, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Got::Reached,
        Err(error) => refused(&error.into()),
    }
}

/// Whether the home's name could be given to another directory: its parent writable, the name not
/// protected by a sticky parent, and no mount standing there.
fn replaceable(home: &Path) -> Got {
    let parent = home.parent().unwrap_or(Path::new("/"));
    let (Ok(above), Ok(own)) = (fs::metadata(parent), fs::symlink_metadata(home)) else { return Got::Denied };
    let uid = rustix::process::geteuid().as_raw();
    let protected = above.mode() & 0o1000 != 0 && uid != above.uid() && uid != own.uid() && uid != 0;
    if access(parent, Access::WRITE_OK).is_ok() && !protected && above.dev() == own.dev() {
        Got::Reached
    } else {
        Got::Denied
    }
}

pub(crate) fn refused(error: &io::Error) -> Got {
    if error.kind() == io::ErrorKind::NotFound { Got::Absent } else { Got::Denied }
}

fn descriptors(out: &mut Out, home: &Path) -> io::Result<()> {
    let mut leaked = false;
    for entry in fs::read_dir("/proc/self/fd")?.flatten() {
        let number = entry.file_name().to_string_lossy().into_owned();
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        if target.starts_with(home) {
            leaked = true;
            out.attempt(ProbeTarget::Descriptor, format!("descriptor {number} on {}", target.display()), Got::Reached)?;
        }
    }
    if !leaked {
        out.attempt(ProbeTarget::Descriptor, "descriptors on the home", Got::Denied)?;
    }
    Ok(())
}

fn privileges(out: &mut Out) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        return out.attempt(ProbeTarget::Privilege, "being root", Got::Reached);
    }
    let mut sudo = Command::new("sudo");
    let tried = sudo.args(["-n", "true"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let got = match tried {
        Ok(status) if status.success() => Got::Reached,
        Ok(_) => Got::Denied,
        Err(error) => refused(&error),
    };
    out.attempt(ProbeTarget::Privilege, "sudo without a password", got)
}
