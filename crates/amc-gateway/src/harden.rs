//! What this process gives up once it listens: new privileges, writing files, reading others than
//! those that names and certificates need, and system calls that no proxy makes.
//!
//! It parses what agents and providers send. Whoever takes it over finds a process that can start no
//! program, trace no other, mount nothing, load nothing into the kernel, and change no file. What the
//! machine does not offer is left out and said.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus,
};
use nix::unistd::User;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// What of it this machine offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardening {
    /// No program that is started gains privileges.
    pub no_new_privileges: bool,
    /// Files are out of reach, in words of how far.
    pub landlock: &'static str,
    /// System calls are filtered.
    pub seccomp: bool,
}

/// Where root starts the gateway and the machine has the user [`OWN_USER`], becomes that user, of its own
/// group alone. Called when the monitor's socket is connected, and before there is a second thread.
///
/// # Errors
/// The system's, where the user is there and cannot be taken: a proxy does not go on as root then.
pub fn become_own_user() -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let Some(user) = User::from_name(OWN_USER)? else { return Ok(()) };
    nix::unistd::setgroups(&[])?;
    nix::unistd::setresgid(user.gid, user.gid, user.gid)?;
    nix::unistd::setresuid(user.uid, user.uid, user.uid)?;
    Ok(())
}

/// The user that the gateway runs as where root starts it.
pub const OWN_USER: &str = "amc-gateway";

/// Gives up what is not needed; it holds for this thread and those that it starts, so it is called
/// before there is a second one. `certificates` may be read besides: files or directories that the
/// operator names.
pub fn harden(certificates: &[PathBuf]) -> Hardening {
    let no_new_privileges = rustix::thread::set_no_new_privs(true).is_ok();
    let landlock = match files(certificates) {
        Ok(RulesetStatus::FullyEnforced) => "full",
        Ok(RulesetStatus::PartiallyEnforced) => "partial",
        Ok(RulesetStatus::NotEnforced) | Err(_) => "none",
    };
    Hardening { no_new_privileges, landlock, seccomp: system_calls().is_some() }
}

/// Reading below these is all that is left of the file system.
fn files(certificates: &[PathBuf]) -> Result<RulesetStatus, landlock::RulesetError> {
    let abi = ABI::V5;
    let ruleset =
        Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(AccessFs::from_all(abi))?;
    let mut ruleset = ruleset.create()?;
    for path in READ.iter().map(Path::new).chain(certificates.iter().map(PathBuf::as_path)) {
        // What is not there needs no rule.
        let Ok(path) = PathFd::new(path) else { continue };
        ruleset = ruleset.add_rule(PathBeneath::new(path, AccessFs::ReadFile | AccessFs::ReadDir))?;
    }
    Ok(ruleset.restrict_self()?.ruleset)
}

fn system_calls() -> Option<()> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).ok()?;
    let denied: BTreeMap<i64, Vec<seccompiler::SeccompRule>> = DENIED.iter().map(|call| (*call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(u32::try_from(libc::EPERM).ok()?);
    let filter = SeccompFilter::new(denied, SeccompAction::Allow, refuse, arch).ok()?;
    let program: BpfProgram = filter.try_into().ok()?;
    seccompiler::apply_filter(&program).ok()
}

/// Names and certificates: resolver, hosts, time zones, CA certificates, the libraries of the name
/// service (which the C library loads at the first lookup), and what the runtime asks of the kernel.
const READ: &[&str] = &[
    "/etc",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share",
    "/usr/local/share",
    "/usr/local/lib",
    "/lib",
    "/lib64",
    "/run/systemd/resolve",
    "/proc/sys",
    "/proc/self",
    "/sys/fs/cgroup",
    "/dev/null",
    "/dev/urandom",
    "/nix/store",
    "/var/lib/ca-certificates",
];

/// Calls that a proxy has no use for, and whoever takes one over has.
const DENIED: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_personality,
    libc::SYS_kcmp,
    libc::SYS_open_by_handle_at,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
];
