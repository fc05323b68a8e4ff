//! Waiting for a child: signals passed on, orphans reaped, the exit status as a code.
//!
//! No thread is started: after `unshare` of the pid namespace none can be.

use std::io::{self, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitCode, ExitStatus};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

/// Starts `command`, passes signals to it until it ends, reaps whatever else ends meanwhile (as
/// process 1 every orphan is ours), and gives its status, or 128 and the signal's number.
pub(crate) fn run_to_end(command: &mut Command) -> io::Result<u8> {
    let mut signals = Signals::new([SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2])?;
    let child: Child = command.spawn()?;
    let pid = Pid::from_child(&child);
    loop {
        if let Some(status) = reap(pid)? {
            return Ok(code_of(status));
        }
        for signal in signals.wait().filter(|signal| *signal != SIGCHLD) {
            // The child may have ended meanwhile.
            let _ = Signal::from_named_raw(signal).map(|signal| kill_process(pid, signal));
        }
    }
}

/// Reaps all that has ended; the status of `awaited` when it is among them.
fn reap(awaited: Pid) -> io::Result<Option<ExitStatus>> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((reaped, status))) if reaped == awaited => return Ok(Some(ExitStatus::from_raw(status.as_raw()))),
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(125);
    u8::try_from(code & 0xff).expect("masked to eight bits")
}

/// A process to try things on: it waits until standard input ends.
pub(crate) fn decoy() -> ExitCode {
    // Whatever happens to it, waiting is over then.
    let _ = io::stdin().read(&mut [0]);
    ExitCode::SUCCESS
}
