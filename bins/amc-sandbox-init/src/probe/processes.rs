//! Trusted processes: signals, tracing, memory and descriptors. Each way is tried on a decoy of this
//! very user too, so that a refusal says something about the process and not about the way.

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

use super::{Attempt, Got, Line, Out};
use crate::plan::{Isolation, Plan};

/// A way to get at a process.
type Way = (&'static str, fn(Pid) -> Result<(), Errno>);

const WAYS: &[Way] = &[
    ("signal", |pid| kill(pid, None)),
    ("trace", |pid| ptrace::seize(pid, ptrace::Options::empty())),
    ("open the memory of", |pid| open_proc(pid, "mem")),
    ("read the memory of", read_memory),
    ("take a descriptor of", take_descriptor),
    ("read the environment of", |pid| open_proc(pid, "environ")),
    ("list the descriptors of", list_descriptors),
];

pub(super) fn try_all(out: &mut Out, plan: &Plan) -> io::Result<()> {
    let mut decoy = Decoy::start();
    // Once: what is traced already cannot be traced again.
    let on_decoy: Vec<Option<Got>> =
        WAYS.iter().map(|(_, attempt)| decoy.as_ref().map(|decoy| tried(*attempt, decoy.pid()))).collect();
    // Numbers of another pid namespace mean other processes here.
    let own_numbers = plan.targets.elsewhere || matches!(plan.isolation, Isolation::Namespaces { .. });
    for (name, number) in &plan.targets.trusted {
        let pid = Pid::from_raw(*number);
        for ((way, attempt), decoy) in WAYS.iter().zip(&on_decoy) {
            let there = !own_numbers || is(pid, name);
            let got = if there { tried(*attempt, pid) } else { Got::Denied };
            let subject = format!("{way} {name}");
            let attempt = Attempt { target: ProbeTarget::TrustedProcess, subject, got, bytes: None, decoy: *decoy };
            out.line(&Line::Attempt(attempt))?;
        }
    }
    if let Some(decoy) = &mut decoy {
        decoy.stop();
    }
    Ok(())
}

/// Whether that process is visible here under its name.
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

fn of_errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

fn open_proc(pid: Pid, file: &str) -> Result<(), Errno> {
    File::open(format!("/proc/{pid}/{file}")).map(drop).map_err(|error| of_errno(&error))
}

fn list_descriptors(pid: Pid) -> Result<(), Errno> {
    fs::read_dir(format!("/proc/{pid}/fd")).map(drop).map_err(|error| of_errno(&error))
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

/// A process of the agent's own user that lets itself be traced.
struct Decoy(Child);

impl Decoy {
    fn start() -> Option<Self> {
        let mut decoy = Command::new("/proc/self/exe");
        decoy.arg("decoy").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok().map(Decoy)
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
