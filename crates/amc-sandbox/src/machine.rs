//! What this machine can do for keeping an agent apart, and what would help where it cannot.
//!
//! It looks and changes nothing. What only a system call tells is asked of `amc-sandbox-init`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Resource, geteuid, getrlimit};
use serde::{Deserialize, Serialize};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is there.
    Ok,
    /// It is there in part, or not needed as things are.
    Limited,
    /// It is not there.
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// A stable name.
    pub id: &'static str,
    /// How it ended.
    pub state: State,
    /// What was found, for a person.
    pub found: String,
    /// The command or page that mends it.
    pub mend: Option<String>,
}

/// The least memory that can be locked for keys to stay out of swap, in bytes.
const LOCKED_MIN: u64 = 64 * 1024;

/// Looks at the machine; `init` is `amc-sandbox-init`.
pub fn look(init: &Path) -> Vec<Check> {
    let kernel = kernel(init);
    let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let limits = NamespaceLimits {
        root: geteuid().is_root(),
        most: read("/proc/sys/user/max_user_namespaces"),
        unprivileged: read("/proc/sys/kernel/unprivileged_userns_clone"),
        restricted: read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
    };
    vec![
        user(),
        limits.check(),
        landlock(kernel.as_ref().map(|kernel| kernel.landlock_abi)),
        seccomp(read("/proc/sys/kernel/seccomp/actions_avail").is_some()),
        traced(read("/proc/sys/kernel/yama/ptrace_scope").as_deref()),
        docker(),
        locked(getrlimit(Resource::Memlock).current),
        cores(getrlimit(Resource::Core).current),
    ]
}

/// What `amc-sandbox-init machine` says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kernel {
    landlock_abi: i64,
}

fn kernel(init: &Path) -> Option<Kernel> {
    let output = Command::new(init).arg("machine").env_clear().stdin(Stdio::null()).output().ok()?;
    serde_json::from_slice(&output.stdout).ok()
}

fn check(id: &'static str, state: State, found: impl Into<String>, mend: Option<&str>) -> Check {
    Check { id, state, found: found.into(), mend: mend.map(str::to_owned) }
}

fn user() -> Check {
    if geteuid().is_root() {
        let found = "root: an agent can get a user of its own (--isolation user:NAME, or a free uid in namespaces)";
        return check("user", State::Ok, found, None);
    }
    let found = format!("uid {}: another user for the agent needs root, namespaces do not", geteuid().as_raw());
    check("user", State::Limited, found, Some("docs/deploy/service.md"))
}

/// What the kernel's settings say about user namespaces.
struct NamespaceLimits {
    root: bool,
    most: Option<String>,
    unprivileged: Option<String>,
    restricted: Option<String>,
}

impl NamespaceLimits {
    fn check(&self) -> Check {
        const ID: &str = "user_namespaces";
        let NamespaceLimits { root, most, unprivileged, restricted } = self;
        match most.as_deref() {
            _ if *root => check(ID, State::Ok, "not needed by root, who makes the others without", None),
            None => check(ID, State::Missing, "this kernel has none", Some("docs/deploy/service.md")),
            Some("0") => {
                let mend = "sysctl -w user.max_user_namespaces=15000";
                check(ID, State::Missing, "user.max_user_namespaces is 0", Some(mend))
            }
            Some(_) if unprivileged.as_deref() == Some("0") => {
                let mend = "sysctl -w kernel.unprivileged_userns_clone=1";
                check(ID, State::Missing, "kernel.unprivileged_userns_clone is 0", Some(mend))
            }
            Some(_) if restricted.as_deref() == Some("1") => {
                let mend = "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0";
                check(ID, State::Missing, "AppArmor restricts them to programs with a profile", Some(mend))
            }
            Some(most) => check(ID, State::Ok, format!("{most} allowed"), None),
        }
    }
}

fn landlock(abi: Option<i64>) -> Check {
    const ID: &str = "landlock";
    match abi {
        Some(abi) if abi > 0 => check(ID, State::Ok, format!("ABI {abi}"), None),
        Some(_) => check(ID, State::Limited, "not in this kernel; namespaces do not need it", None),
        None => {
            let mend = "install amc-sandbox-init beside amc";
            check(ID, State::Missing, "amc-sandbox-init cannot be run, and with it no agent", Some(mend))
        }
    }
}

fn seccomp(filters: bool) -> Check {
    if filters {
        check("seccomp", State::Ok, "filters", None)
    } else {
        check("seccomp", State::Limited, "no filters in this kernel; namespaces do not need them", None)
    }
}

fn traced(scope: Option<&str>) -> Check {
    const ID: &str = "ptrace_scope";
    match scope {
        Some("0") | None => {
            let found = "every process of a user may trace the others; signers protect themselves";
            check(ID, State::Limited, found, scope.map(|_| "sysctl -w kernel.yama.ptrace_scope=1"))
        }
        Some(scope) => check(ID, State::Ok, scope, None),
    }
}

fn docker() -> Check {
    let mut docker = Command::new("docker");
    let output = docker.args(["version", "--format", "{{.Server.Version}}"]).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => {
            let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            check("docker", State::Ok, format!("engine {version}; keep its socket from agents"), None)
        }
        Ok(_) => check("docker", State::Limited, "the client is there and no engine answers", None),
        Err(_) => check("docker", State::Limited, "not installed, and not needed for --isolation", None),
    }
}

fn locked(limit: Option<u64>) -> Check {
    const ID: &str = "locked_memory";
    match limit {
        None => check(ID, State::Ok, "unlimited", None),
        Some(bytes) if bytes >= LOCKED_MIN => check(ID, State::Ok, format!("{} KiB", bytes / 1024), None),
        Some(bytes) => {
            let found = format!("{bytes} bytes: keys may be swapped out");
            check(ID, State::Limited, found, Some("ulimit -l 64, or LimitMEMLOCK=64K in the unit"))
        }
    }
}

fn cores(limit: Option<u64>) -> Check {
    match limit {
        Some(0) => check("core_dumps", State::Ok, "off", None),
        _ => check("core_dumps", State::Ok, "on for others; signers switch them off for themselves", None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(most: Option<&str>, unprivileged: Option<&str>, restricted: Option<&str>) -> Check {
        let own = |text: Option<&str>| text.map(str::to_owned);
        let (most, unprivileged, restricted) = (own(most), own(unprivileged), own(restricted));
        NamespaceLimits { root: false, most, unprivileged, restricted }.check()
    }

    #[test]
    fn closed_namespaces_come_with_the_command_that_opens_them() {
        for (check, setting) in [
            (limits(Some("0"), None, None), "user.max_user_namespaces=15000"),
            (limits(Some("100"), Some("0"), None), "kernel.unprivileged_userns_clone=1"),
            (limits(Some("100"), Some("1"), Some("1")), "kernel.apparmor_restrict_unprivileged_userns=0"),
        ] {
            assert_eq!(check.state, State::Missing);
            assert!(check.mend.is_some_and(|mend| mend == format!("sysctl -w {setting}")), "{setting}");
        }
        assert_eq!(limits(None, None, None).state, State::Missing);
        for open in [limits(Some("100"), None, None), limits(Some("100"), Some("1"), Some("0"))] {
            assert_eq!((open.state, open.mend), (State::Ok, None));
        }
    }

    #[test]
    fn whatever_is_missing_says_what_helps() {
        for check in [landlock(None), locked(Some(4096)), traced(Some("0"))] {
            assert!(check.state != State::Ok && check.mend.is_some(), "{check:?}");
        }
        for check in [landlock(Some(7)), locked(None), locked(Some(8 << 20)), traced(Some("1")), cores(Some(0))] {
            assert_eq!((check.state, &check.mend), (State::Ok, &None), "{check:?}");
        }
        assert_eq!(landlock(Some(0)).state, State::Limited);
    }
}
