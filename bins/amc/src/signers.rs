//! Starting the binaries that hold keys or speak to the network.
//!
//! A verb that needs a signer *becomes* that signer: same arguments, same terminal, same exit code.
//! Whoever is no signer gets no passphrase.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use amc_workspace::answer::{self, Failure};
use amc_workspace::passphrase;

use crate::boundary;

/// A program of the same release: in the same directory first, then in `PATH`.
pub(crate) fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join(name)));
    own.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(name))
}

/// A process that is no signer: without the passphrase and where it could be read.
pub(crate) fn keyless(name: &str) -> Command {
    let mut command = Command::new(program(name));
    command.env_remove(passphrase::VARIABLE).env_remove("CREDENTIALS_DIRECTORY");
    command
}

/// A program that holds keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signer {
    /// `amc-monitor`.
    Monitor,
    /// `amc-auditor`.
    Auditor,
}

impl Signer {
    /// Goes on as that program with the same arguments.
    pub(crate) fn take_over(self, command: &str, json: bool) -> ExitCode {
        match self {
            Signer::Monitor => become_monitor(command, json),
            Signer::Auditor => become_auditor(command, json),
        }
    }
}

/// Goes on as `amc-auditor` with the same arguments.
pub(crate) fn become_auditor(command: &str, json: bool) -> ExitCode {
    become_program("amc-auditor", std::env::args_os().skip(1).collect(), command, json)
}

/// Goes on as `amc-monitor` with the same arguments.
pub(crate) fn become_monitor(command: &str, json: bool) -> ExitCode {
    become_program("amc-monitor", std::env::args_os().skip(1).collect(), command, json)
}

/// `init` belongs to the auditor, unless only the monitor's part is wanted. Only `amc` starts agents,
/// so it tries here what the auditor then signs about the trust boundary.
pub(crate) fn become_for_init(rest: &[OsString], home: Option<&Path>, json: bool) -> ExitCode {
    let monitor = OsStr::new("monitor");
    let pairs = rest.windows(2).any(|pair| pair[0] == "--role" && pair[1] == monitor);
    let joined = rest.iter().any(|argument| argument == "--role=monitor");
    if pairs || joined {
        return become_monitor("init", json);
    }
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let asks_help = rest.iter().any(|argument| argument == "--help" || argument == "-h");
    if !asks_help && !rest.iter().any(|argument| argument.as_encoded_bytes().starts_with(b"--boundary")) {
        let mode = if boundary::trial(home) { "isolated" } else { "shared" };
        arguments.extend(["--boundary".into(), mode.into()]);
    }
    become_program("amc-auditor", arguments, "init", json)
}

fn become_program(name: &str, arguments: Vec<OsString>, command: &str, json: bool) -> ExitCode {
    let program = program(name);
    let error = Command::new(&program).args(arguments).exec();
    let message = format!("cannot start {}: {error}; install it beside amc or in PATH", program.display());
    answer::finish(command, json, Err(Failure::unable(message)))
}
