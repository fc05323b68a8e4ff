//! The last step before the agent's program: run in the child, then replaced by it.
//!
//! `amc` starts itself with [`MARKER`] as first argument and comes here. Doing this in a process of
//! its own needs no unsafe code, and what it sets up holds from the agent's first instruction.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::Signal;

/// The first argument that means "come here".
pub const MARKER: &str = "__start-agent";
/// Before the command: make standard input the controlling terminal.
pub const WITH_TERMINAL: &str = "--terminal";

/// Sets the process up and becomes the agent's program. Returns only when that failed: the error
/// and the exit status that `env` would give.
pub fn become_agent(mut arguments: Vec<OsString>) -> (io::Error, u8) {
    let terminal = arguments.first().is_some_and(|first| first == WITH_TERMINAL);
    if terminal {
        arguments.remove(0);
    }
    let [path, name, rest @ ..] = arguments.as_slice() else {
        return (io::Error::other("nothing to start"), 125);
    };
    if let Err(error) = prepare(terminal) {
        return (error, 125);
    }
    let error = Command::new(path).arg0(name).args(rest).exec();
    let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
    (error, code)
}

fn prepare(terminal: bool) -> io::Result<()> {
    // An agent does not outlive the wrapper that records it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if terminal {
        rustix::process::setsid()?;
        rustix::process::ioctl_tiocsctty(io::stdin())?;
    }
    Ok(())
}
