//! Waiting for a child: signals passed on, orphans reaped, the exit status as a code.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus};
use std::thread;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

/// Passes signals to `child` until it ends; gives its status, or 128 and the signal's number.
pub(crate) fn wait_for(child: &mut Child) -> io::Result<u8> {
    let pid = Pid::from_child(child);
    pass_signals(pid)?;
    let status = child.wait()?;
    Ok(code_of(status))
}

/// The same as process 1, where every orphan of the namespace becomes our child.
pub(crate) fn wait_as_init(child: &Child) -> io::Result<u8> {
    let pid = Pid::from_child(child);
    pass_signals(pid)?;
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((reaped, status))) if reaped == pid => return Ok(code_of(ExitStatus::from_raw(status.as_raw()))),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(125);
    u8::try_from(code & 0xff).expect("masked to eight bits")
}

fn pass_signals(pid: Pid) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2])?;
    thread::spawn(move || {
        for signal in signals.forever() {
            // The child may have ended meanwhile.
            let _ = Signal::from_named_raw(signal).map(|signal| kill_process(pid, signal));
        }
    });
    Ok(())
}
