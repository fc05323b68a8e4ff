//! How the agent is kept from the keys: what was asked for, what the machine can do, and what the
//! command can live with.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

use amc_core::kinds;
use rustix::process::{getegid, geteuid};
use serde::Serialize;

/// What `--isolation` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// The strongest that works here for this command.
    Auto,
    /// None: the agent runs as the operator.
    None,
    /// Another user of the machine.
    User(String),
    /// Namespaces of its own.
    Namespaces,
}

impl FromStr for Asked {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "auto" => Ok(Asked::Auto),
            None if text == "none" => Ok(Asked::None),
            None if text == "namespaces" => Ok(Asked::Namespaces),
            Some(("user", name)) if !name.is_empty() => Ok(Asked::User(name.to_owned())),
            _ => Err(format!("{text:?} is none of auto, none, user:NAME and namespaces")),
        }
    }
}

/// Isolation that was asked for and cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum IsolationError {
    /// No such user.
    #[error("there is no user {0:?} on this machine")]
    NoUser(String),
    /// Only root can start a process as somebody else.
    #[error("to run the agent as {0:?} amc must run as root; as another user, --isolation namespaces may work")]
    NotRoot(String),
    /// The machine does not allow it, or the command cannot run there.
    #[error("this command cannot run isolated by {what}: {why}")]
    Refused {
        /// Which isolation.
        what: kinds::Isolation,
        /// What the trial said.
        why: String,
    },
}

/// The command and its surroundings.
#[derive(Debug, Clone)]
pub struct Start {
    /// `amc-sandbox-init`.
    pub init: PathBuf,
    /// The AMC home, which is hidden where that is possible.
    pub home: PathBuf,
    /// Where the agent works.
    pub work_dir: PathBuf,
    /// Its executable.
    pub executable: PathBuf,
    /// The command as it was given.
    pub argv: Vec<OsString>,
}

/// An isolation that was tried with this very command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// As events name it.
    pub isolation: kinds::Isolation,
    /// As `amc-sandbox-init` takes it.
    level: Level,
    /// Why nothing stronger, for `auto`.
    pub why_not_stronger: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Level {
    None,
    User { uid: u32, gid: u32 },
    Namespaces { uid: u32, gid: u32 },
}

/// What `amc-sandbox-init` is to do at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Become the agent.
    Agent,
    /// Probe as the agent would.
    Probe,
    /// Only try whether the command could be executed.
    Trial,
}

#[derive(Serialize)]
struct Plan<'a> {
    isolation: Level,
    purpose: Purpose,
    work_dir: &'a Path,
    home: &'a Path,
    visible: Vec<PathBuf>,
    terminal: bool,
    trusted: &'a [(String, i32)],
}

impl Start {
    /// The isolation that was asked for, tried with this command; `auto` takes the strongest that
    /// works.
    ///
    /// # Errors
    /// [`IsolationError`] when what was asked for cannot be had.
    pub fn choose(&self, asked: &Asked) -> Result<Chosen, IsolationError> {
        match asked {
            Asked::None => Ok(Chosen::none(None)),
            Asked::User(name) => {
                let chosen = as_user(name)?;
                self.tried(chosen)
            }
            Asked::Namespaces => self.tried(in_namespaces()),
            Asked::Auto => Ok(match self.tried(in_namespaces()) {
                Ok(chosen) => chosen,
                Err(error) => Chosen::none(Some(error.to_string())),
            }),
        }
    }

    /// The command line that starts `purpose` under `chosen`.
    pub fn command(&self, chosen: &Chosen, purpose: Purpose, terminal: bool, trusted: &[(String, i32)]) -> Command {
        let plan = Plan {
            isolation: chosen.level,
            purpose,
            work_dir: &self.work_dir,
            home: &self.home,
            visible: self.visible(),
            terminal,
            trusted,
        };
        let plan = serde_json::to_string(&plan).expect("plain values serialise");
        let mut command = Command::new(&self.init);
        command.arg(plan).arg("enter").arg(&self.executable).args(&self.argv).current_dir(&self.work_dir);
        command
    }

    fn tried(&self, chosen: Chosen) -> Result<Chosen, IsolationError> {
        let mut trial = self.command(&chosen, Purpose::Trial, false, &[]);
        let output = trial.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output();
        let why = match output {
            Ok(output) if output.status.success() => return Ok(chosen),
            Ok(output) if output.status.code() == Some(1) => {
                "its program or a file that it names cannot be read there".to_owned()
            }
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => format!("{}: {error}", self.init.display()),
        };
        Err(IsolationError::Refused { what: chosen.isolation, why })
    }

    /// Files that the command names: they stay readable wherever they are.
    fn visible(&self) -> Vec<PathBuf> {
        let named = self.argv.iter().skip(1).map(OsString::as_os_str).chain([self.executable.as_os_str()]);
        let is_file = |text: &&OsStr| text.as_encoded_bytes().contains(&b'/') && Path::new(text).is_file();
        named.filter(is_file).filter_map(|text| fs::canonicalize(text).ok()).collect()
    }
}

impl Chosen {
    const fn none(why_not_stronger: Option<String>) -> Self {
        Chosen { isolation: kinds::Isolation::None, level: Level::None, why_not_stronger }
    }
}

fn as_user(name: &str) -> Result<Chosen, IsolationError> {
    let user = nix::unistd::User::from_name(name).ok().flatten();
    let user = user.ok_or_else(|| IsolationError::NoUser(name.to_owned()))?;
    if !geteuid().is_root() {
        return Err(IsolationError::NotRoot(name.to_owned()));
    }
    let level = Level::User { uid: user.uid.as_raw(), gid: user.gid.as_raw() };
    Ok(Chosen { isolation: kinds::Isolation::User(name.to_owned()), level, why_not_stronger: None })
}

/// As root the agent gets a uid of its own that no process and no user has; else it keeps ours.
fn in_namespaces() -> Chosen {
    let (uid, gid) = if geteuid().is_root() {
        let uid = free_uid();
        (uid, uid)
    } else {
        (geteuid().as_raw(), getegid().as_raw())
    };
    let level = Level::Namespaces { uid, gid };
    Chosen { isolation: kinds::Isolation::Namespaces, level, why_not_stronger: None }
}

/// Uids that systemd leaves to short-lived services; nobody else uses them.
const FREE_UIDS: std::ops::Range<u32> = 61_184..65_520;

fn free_uid() -> u32 {
    let count = FREE_UIDS.end - FREE_UIDS.start;
    let start = std::process::id() % count;
    let candidates = (0..count).map(|step| FREE_UIDS.start + (start + step) % count);
    let mut free = candidates.filter(|uid| !in_use(*uid));
    free.next().unwrap_or(FREE_UIDS.start)
}

fn in_use(uid: u32) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|entry| entry.metadata().ok()).any(|meta| meta.uid() == uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_asked_for() {
        assert_eq!("auto".parse(), Ok(Asked::Auto));
        assert_eq!("user:bob".parse(), Ok(Asked::User("bob".into())));
        for wrong in ["", "user:", "user", "Auto", "docker", "namespaces:x"] {
            assert!(wrong.parse::<Asked>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_user_that_does_not_exist_is_said() {
        assert!(matches!(as_user("no-such-user-here"), Err(IsolationError::NoUser(_))));
    }
}
