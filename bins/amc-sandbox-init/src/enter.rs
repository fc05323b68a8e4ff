//! The first step: new namespaces where the plan says so, then the next step.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Command, ExitCode, Stdio};

use nix::sched::{CloneFlags, unshare};
use rustix::process::{Signal, getegid, geteuid, set_parent_process_death_signal};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, configure_capability_in_ambient_set,
    set_capabilities,
};

use crate::plan::{Call, Isolation};
use crate::{become_agent, wait};

/// Makes the isolation and goes on; the exit code is the agent's.
pub(crate) fn enter(call: &Call) -> io::Result<u8> {
    // Nothing of this outlives whoever records it.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    match call.plan.isolation {
        Isolation::None | Isolation::User { .. } => become_agent::become_agent(call),
        Isolation::Namespaces { .. } => {
            let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC;
            if geteuid().is_root() {
                unshare(flags)?;
            } else {
                flags |= CloneFlags::CLONE_NEWUSER;
                let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
                unshare(flags)?;
                fs::write("/proc/self/setgroups", "deny")?;
                fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
                fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
                keep_mounting()?;
            }
            // The first child is process 1 of the new namespace.
            wait::run_to_end(&mut call.next("inside"))
        }
    }
}

/// The next step mounts under the same, unprivileged user, so this one capability (of the new user
/// namespace alone) has to survive its start. It is dropped before the agent's.
fn keep_mounting() -> io::Result<()> {
    let mut sets = capabilities(None)?;
    sets.inheritable = CapabilitySet::SYS_ADMIN;
    set_capabilities(None, sets)?;
    Ok(configure_capability_in_ambient_set(CapabilitySet::SYS_ADMIN, true)?)
}

/// Nothing of the new namespaces can be changed any more.
pub(crate) fn stop_mounting() -> io::Result<()> {
    clear_ambient_capability_set()?;
    if !geteuid().is_root() {
        let none = CapabilitySet::empty();
        set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    }
    Ok(())
}

/// A user namespace in which `on_disk` appears as `shown`, for an id-mapped mount.
pub(crate) fn mapping(on_disk: (u32, u32), shown: (u32, u32)) -> io::Result<OwnedFd> {
    let mut holder = Command::new("/proc/self/exe").arg("hold").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut ready = String::new();
    BufReader::new(holder.stdout.take().expect("standard output is a pipe")).read_line(&mut ready)?;
    let mapped = (|| {
        if ready != "ready\n" {
            return Err(io::Error::other("no user namespace can be made"));
        }
        let proc_dir = format!("/proc/{}", holder.id());
        fs::write(format!("{proc_dir}/uid_map"), format!("{} {} 1", on_disk.0, shown.0))?;
        fs::write(format!("{proc_dir}/gid_map"), format!("{} {} 1", on_disk.1, shown.1))?;
        Ok(OwnedFd::from(File::open(format!("{proc_dir}/ns/user"))?))
    })();
    drop(holder.stdin.take());
    holder.wait()?;
    mapped
}

/// Holds a new user namespace open until standard input ends.
pub(crate) fn hold() -> ExitCode {
    if unshare(CloneFlags::CLONE_NEWUSER).is_err() {
        return ExitCode::FAILURE;
    }
    let mut out = io::stdout();
    if out.write_all(b"ready\n").and_then(|()| out.flush()).is_err() {
        return ExitCode::FAILURE;
    }
    // The parent closes our input when it has what it needs.
    let _ = io::stdin().read(&mut [0]);
    ExitCode::SUCCESS
}
