//! The last step: privileges dropped for good, then the agent's program, or the probe.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::fs::{Access, access};
use rustix::process::{
    DumpableBehavior, Signal, geteuid, ioctl_tiocsctty, set_dumpable_behavior, set_parent_process_death_signal, setsid,
};
use rustix::thread::set_no_new_privs;

use crate::plan::{Call, Isolation, Purpose};
use crate::{mounts, probe};

/// Drops what the agent must not have and becomes it. Returns only when that failed (with the exit
/// status that `env` gives), or when the purpose was another.
pub(crate) fn become_agent(call: &Call) -> io::Result<u8> {
    if call.plan.terminal && call.plan.purpose == Purpose::Agent {
        setsid()?;
        ioctl_tiocsctty(io::stdin())?;
    }
    let private_home = drop_privileges(call)?;
    // Changing the user cleared it.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    match call.plan.purpose {
        Purpose::Probe => {
            // The agent may run already, as this very user; it shall not speak through the probe.
            set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
            probe::probe(&call.plan)
        }
        Purpose::Trial => Ok(trial(call)),
        Purpose::End => Ok(end()),
        Purpose::Agent => {
            let mut command = Command::new(&call.executable);
            command.arg0(&call.argv[0]).args(&call.argv[1..]);
            if let Some(home) = private_home {
                command.env("HOME", home);
            }
            let error = command.exec();
            eprintln!("amc: {}: {error}", call.executable.display());
            Ok(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
        }
    }
}

/// Another uid where the plan says so, and no way back; gives a `HOME` where the old one is of no use.
fn drop_privileges(call: &Call) -> io::Result<Option<std::path::PathBuf>> {
    let (Isolation::User { uid, gid } | Isolation::Namespaces { uid, gid }) = call.plan.isolation else {
        return Ok(None);
    };
    let mut private_home = None;
    if geteuid().is_root() {
        if matches!(call.plan.isolation, Isolation::Namespaces { .. }) {
            private_home = Some(mounts::private_home(uid, gid)?);
        }
        setgroups(&[])?;
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)?;
    }
    set_no_new_privs(true)?;
    let home = std::env::var_os("HOME");
    let usable = home.as_ref().is_some_and(|home| access(home, Access::READ_OK | Access::EXEC_OK).is_ok());
    Ok(private_home.filter(|_| !usable))
}

/// Ends every process of this user but this one, which the user was given to an agent for. Never as
/// root, for whom that would be the machine.
fn end() -> u8 {
    if geteuid().is_root() {
        return 1;
    }
    match nix::sys::signal::kill(nix::unistd::Pid::from_raw(-1), nix::sys::signal::Signal::SIGKILL) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => 0,
        Err(_) => 1,
    }
}

/// Whether the command could be executed here: its program, and every file that it names.
fn trial(call: &Call) -> u8 {
    let readable = |path: &Path| fs::File::open(path).is_ok();
    let runs = access(&call.executable, Access::EXEC_OK).is_ok();
    if runs && call.plan.visible.iter().all(|path| readable(path)) { 0 } else { 1 }
}
