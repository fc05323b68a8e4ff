//! Ways to become another user: being root already, sudo, programs that change the user or carry
//! capabilities.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use amc_core::kinds::ProbeTarget;

use super::{Got, Out, refused};

/// Programs of distributions that change the user and then ask for a password, or do one thing.
/// A program that is none of them and changes the user is a way to become that user.
const KNOWN: &[&str] = &[
    "at",
    "bwrap",
    "chage",
    "chfn",
    "chrome-sandbox",
    "chsh",
    "crontab",
    "dbus-daemon-launch-helper",
    "doas",
    "dotlockfile",
    "expiry",
    "fusermount",
    "fusermount3",
    "gpasswd",
    "gst-ptp-helper",
    "mount",
    "mount.cifs",
    "mount.nfs",
    "newgidmap",
    "newgrp",
    "newuidmap",
    "ntfs-3g",
    "pam_timestamp_check",
    "passwd",
    "ping",
    "ping6",
    "pkexec",
    "polkit-agent-helper-1",
    "ssh-agent",
    "ssh-keysign",
    "su",
    "sudo",
    "sudoedit",
    "umount",
    "unix_chkpwd",
    "utempter",
    "wall",
    "write",
    "Xorg.wrap",
];
/// Where programs are, beside `PATH`.
const PLACES: &[&str] = &[
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
    "/usr/lib",
    "/usr/libexec",
    "/opt",
];
/// More than a directory of programs has.
const ENTRIES: usize = 16_384;
/// As many are named; more make no difference.
const NAMED: usize = 8;

pub(super) fn try_all(out: &mut Out) -> io::Result<()> {
    out.attempt(ProbeTarget::Privilege, "being root", if is_root() { Got::Reached } else { Got::Denied })?;
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    out.attempt(ProbeTarget::Privilege, "sudo without a password", sudo(&["-n", "true"]))?;
    out.attempt(ProbeTarget::Privilege, "a rule of sudo without a password", sudo_rule())?;
    // With this bit the kernel gives nothing to such programs.
    let closed = status("NoNewPrivs").as_deref() == Some("1");
    let found = changing_user();
    for path in found.iter().take(NAMED) {
        let got = if closed { Got::Denied } else { Got::Reached };
        out.attempt(ProbeTarget::Privilege, format!("run {}, which changes the user", path.display()), got)?;
    }
    if found.is_empty() {
        out.attempt(ProbeTarget::Privilege, "look for programs that change the user", Got::Denied)?;
    }
    let capable = status("CapEff").is_some_and(|set| set.bytes().any(|digit| digit != b'0'));
    let got = if capable { Got::Reached } else { Got::Denied };
    out.attempt(ProbeTarget::Privilege, "having capabilities", got)
}

/// Root of the machine; root of a user namespace that stands for somebody else is not.
fn is_root() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let fields: Vec<u32> = map.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    let stands_for_root = fields.chunks(3).any(|line| matches!(line, [0, 0, _]));
    rustix::process::geteuid().is_root() && (stands_for_root || fields.is_empty())
}

fn status(name: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(|value| value.trim().to_owned())
}

fn sudo(arguments: &[&str]) -> Got {
    let mut sudo = Command::new("sudo");
    let tried = sudo.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    match tried {
        Ok(status) if status.success() => Got::Reached,
        Ok(_) => Got::Denied,
        Err(error) => refused(&error),
    }
}

/// A rule for some command only is a way as well: most programs can be made to read or write a file.
fn sudo_rule() -> Got {
    match Command::new("sudo").args(["-n", "-l"]).stdin(Stdio::null()).stderr(Stdio::null()).output() {
        Ok(listed) if listed.status.success() && String::from_utf8_lossy(&listed.stdout).contains("NOPASSWD") => {
            Got::Reached
        }
        Ok(_) => Got::Denied,
        Err(error) => refused(&error),
    }
}

/// Programs that change the user or carry capabilities and are none of the known ones.
fn changing_user() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).chain(PLACES.iter().map(PathBuf::from)).collect();
    places.iter_mut().for_each(|place| *place = place.canonicalize().unwrap_or_default());
    places.sort();
    places.dedup();
    let entries = places.iter().flat_map(|place| fs::read_dir(place).into_iter().flatten().flatten().take(ENTRIES));
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| changes_user(path)).collect();
    found.sort();
    found
}

fn changes_user(path: &Path) -> bool {
    let Ok(meta) = fs::symlink_metadata(path) else { return false };
    if !meta.is_file() || meta.mode() & 0o111 == 0 {
        return false;
    }
    let known = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| KNOWN.contains(&name));
    let own = rustix::process::geteuid().as_raw();
    let setuid = meta.mode() & 0o4000 != 0 && meta.uid() != own;
    !known && (setuid || has_capabilities(path))
}

fn has_capabilities(path: &Path) -> bool {
    rustix::fs::getxattr(path, "security.capability", &mut [0_u8; 64]).is_ok_and(|length| length > 0)
}
