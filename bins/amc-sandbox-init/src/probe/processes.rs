//! Trusted processes: signals, tracing, memory and descriptors.

use std::fs::{self, File};
use std::io::{self, IoSliceMut};
use std::process::{Child, Command, Stdio};

use amc_core::kinds::ProbeTarget;
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::kill;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::{Got, Out};

/// A way to get at a process.
type Way = (&'static str, fn(Pid) -> Result<(), Errno>);

const WAYS: &[Way] = &[
    ("signal", |pid| kill(pid, None)),
    ("trace", |pid| ptrace::seize(pid, ptrace::Options::empty())),
    ("open the memory of", open_memory),
    ("read the memory of", read_memory),
    ("take a descriptor of", take_descriptor),
    ("read the environment of", |pid| open_proc(pid, "environ")),
];

pub(super) fn try_all(out: &mut Out, trusted: &[(String, i32)]) -> io::Result<()> {
    let mut decoy = Decoy::start();
    for (name, number) in trusted {
        let pid = Pid::from_raw(*number);
        for (way, attempt) in WAYS {
            let got = if is(pid, name) { tried(*attempt, pid) } else { Got::Denied };
            // A way that is closed even towards a child of our own is closed altogether.
            let general = decoy.as_ref().is_some_and(|decoy| tried(*attempt, decoy.pid()) == Got::Denied);
            let note = if general && got == Got::Denied { " (closed towards a child of its own too)" } else { "" };
            out.attempt(ProbeTarget::TrustedProcess, format!("{way} {name}{note}"), got)?;
        }
    }
    if let Some(decoy) = &mut decoy {
        decoy.stop();
    }
    Ok(())
}

/// Whether that process is visible here under its name: another namespace has other numbers.
fn is(pid: Pid, name: &str) -> bool {
    let shown = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    // The kernel keeps 15 bytes of a name.
    shown.trim_end() == &name[..name.len().min(15)]
}

fn tried(attempt: fn(Pid) -> Result<(), Errno>, pid: Pid) -> Got {
    match attempt(pid) {
        // A bad address or descriptor means that the permission was there.
        Ok(()) | Err(Errno::EFAULT | Errno::EBADF) => Got::Reached,
        Err(_) => Got::Denied,
    }
}

fn open_proc(pid: Pid, file: &str) -> Result<(), Errno> {
    let opened = File::open(format!("/proc/{pid}/{file}"));
    opened.map(drop).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
}

fn open_memory(pid: Pid) -> Result<(), Errno> {
    open_proc(pid, "mem")
}

fn read_memory(pid: Pid) -> Result<(), Errno> {
    let mut byte = [0];
    let remote = [RemoteIoVec { base: 0x1000, len: 1 }];
    process_vm_readv(pid, &mut [IoSliceMut::new(&mut byte)], &remote).map(drop)
}

fn take_descriptor(pid: Pid) -> Result<(), Errno> {
    let translate = |error: rustix::io::Errno| Errno::from_raw(error.raw_os_error());
    let target = rustix::process::Pid::from_raw(pid.as_raw()).ok_or(Errno::ESRCH)?;
    let pidfd = pidfd_open(target, PidfdFlags::empty()).map_err(translate)?;
    pidfd_getfd(&pidfd, 0, PidfdGetfdFlags::empty()).map(drop).map_err(translate)
}

/// A process of the agent's own, to see whether a way works at all.
struct Decoy(Child);

impl Decoy {
    fn start() -> Option<Self> {
        let mut sleep = Command::new("sleep");
        sleep.arg("60").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok().map(Decoy)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).expect("a process id fits"))
    }

    fn stop(&mut self) {
        // It may have been stopped by tracing; killing ends it all the same.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
