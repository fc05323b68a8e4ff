//! A pseudo-terminal for an agent that is started on a terminal.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

/// Both ends of a new pseudo-terminal, as large as the operator's terminal.
pub(crate) fn open_pair() -> io::Result<(File, OwnedFd)> {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&controller)?;
    unlockpt(&controller)?;
    let name = ptsname(&controller, Vec::new())?;
    let name = name.to_str().map_err(io::Error::other)?;
    let agent_end = File::options().read(true).write(true).open(name)?;
    let controller = File::from(controller);
    follow_size(&controller);
    Ok((controller, agent_end.into()))
}

/// Gives the pseudo-terminal the operator's terminal's size.
pub(crate) fn follow_size(controller: &File) {
    if let Ok(size) = tcgetwinsize(io::stdin()) {
        // A terminal without a size leaves the agent with the default one.
        let _ = tcsetwinsize(controller, size);
    }
}

/// The operator's terminal in raw mode for as long as this lives.
pub(crate) struct RawMode(Termios);

impl RawMode {
    pub(crate) fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(RawMode(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // The terminal may be gone; there is nobody left to tell.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
