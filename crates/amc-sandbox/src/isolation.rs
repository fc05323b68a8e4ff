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

use crate::claim::{self, Claim};
use crate::probe::Targets;

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
    /// The agent could not have a user of its own.
    #[error("the agent cannot have a user of its own: {why}")]
    NoOwnUser {
        /// Why, and what helps.
        why: String,
    },
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
#[derive(Debug, Clone)]
pub struct Chosen {
    /// As events name it.
    pub isolation: kinds::Isolation,
    /// As `amc-sandbox-init` takes it.
    level: Level,
    /// The user that no other agent has meanwhile.
    claim: Option<Claim>,
    /// Variables that are another user's: `HOME` and the like.
    variables: Vec<(&'static str, OsString)>,
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
    /// End whatever still runs as the agent's user.
    End,
}

#[derive(Serialize)]
struct Plan<'a> {
    isolation: Level,
    purpose: Purpose,
    work_dir: &'a Path,
    home: &'a Path,
    visible: Vec<PathBuf>,
    terminal: bool,
    targets: &'a Targets,
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
                let chosen = as_user(name, &self.work_dir)?;
                self.tried(chosen)
            }
            Asked::Namespaces => self.tried(in_namespaces()?),
            Asked::Auto => Ok(match in_namespaces().and_then(|chosen| self.tried(chosen)) {
                Ok(chosen) => chosen,
                Err(error) => Chosen::none(Some(error.to_string())),
            }),
        }
    }

    /// The command line that starts `purpose` under `chosen`.
    pub fn command(&self, chosen: &Chosen, purpose: Purpose, terminal: bool, targets: &Targets) -> Command {
        let plan = Plan {
            isolation: chosen.level,
            purpose,
            work_dir: &self.work_dir,
            home: &self.home,
            visible: self.visible(),
            terminal,
            targets,
        };
        let plan = serde_json::to_string(&plan).expect("plain values serialise");
        let mut command = Command::new(&self.init);
        command.arg(plan).arg("enter").arg(&self.executable).args(&self.argv).current_dir(&self.work_dir);
        command
    }

    fn tried(&self, chosen: Chosen) -> Result<Chosen, IsolationError> {
        let mut trial = self.command(&chosen, Purpose::Trial, false, &Targets::default());
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

    /// Ends what the agent left running. In namespaces of its own nothing outlives it, and as our own
    /// user nothing of it can be told from anything else; a user of its own is looked through.
    pub fn end(&self, chosen: &Chosen) {
        if !matches!(chosen.level, Level::User { .. }) {
            return;
        }
        let mut end = self.command(chosen, Purpose::End, false, &Targets::default());
        // What could not be ended keeps the user from being given to another agent.
        let _ = end.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }

    /// Files that the command names: they stay readable wherever they are.
    fn visible(&self) -> Vec<PathBuf> {
        let named = self.argv.iter().skip(1).map(OsString::as_os_str).chain([self.executable.as_os_str()]);
        let is_file = |text: &&OsStr| text.as_encoded_bytes().contains(&b'/') && Path::new(text).is_file();
        named.filter(is_file).filter_map(|text| fs::canonicalize(text).ok()).collect()
    }
}

impl Chosen {
    /// Variables that the agent gets in place of the operator's: another user has another `HOME`.
    pub fn variables(&self) -> &[(&'static str, OsString)] {
        &self.variables
    }

    /// The user that the agent gets, where it is not ours.
    pub fn uid(&self) -> Option<u32> {
        self.claim.as_ref().map(|claim| claim.uid)
    }

    /// Nothing changed: for a probe from where somebody else starts the agent.
    pub(crate) const fn as_it_is() -> Self {
        Chosen::none(None)
    }

    const fn none(why_not_stronger: Option<String>) -> Self {
        let variables = Vec::new();
        Chosen { isolation: kinds::Isolation::None, level: Level::None, claim: None, variables, why_not_stronger }
    }
}

fn as_user(name: &str, work_dir: &Path) -> Result<Chosen, IsolationError> {
    let user = nix::unistd::User::from_name(name).ok().flatten();
    let user = user.ok_or_else(|| IsolationError::NoUser(name.to_owned()))?;
    if !geteuid().is_root() {
        return Err(IsolationError::NotRoot(name.to_owned()));
    }
    if user.uid.is_root() {
        return Err(IsolationError::NoOwnUser { why: format!("{name} is root") });
    }
    let claim = claim::of_user(name, (user.uid.as_raw(), user.gid.as_raw())).map_err(|error| {
        let how = "end them, name another user, or give this one subordinate uids in /etc/subuid";
        IsolationError::NoOwnUser { why: format!("{error}; {how}") }
    })?;
    let home = if user.dir.is_dir() { user.dir } else { work_dir.to_owned() };
    let variables = vec![("HOME", home.into_os_string()), ("LOGNAME", name.into()), ("USER", name.into())];
    let level = Level::User { uid: claim.uid, gid: claim.gid };
    let isolation = kinds::Isolation::User(name.to_owned());
    Ok(Chosen { isolation, level, claim: Some(claim), variables, why_not_stronger: None })
}

/// As root the agent gets a uid of its own that no process and no user has; else it keeps ours.
fn in_namespaces() -> Result<Chosen, IsolationError> {
    let claim = if geteuid().is_root() {
        Some(claim::of_nobody().map_err(|error| IsolationError::NoOwnUser { why: error.to_string() })?)
    } else {
        None
    };
    let own = (geteuid().as_raw(), getegid().as_raw());
    let (uid, gid) = claim.as_ref().map_or(own, |claim| (claim.uid, claim.gid));
    let level = Level::Namespaces { uid, gid };
    let isolation = kinds::Isolation::Namespaces;
    Ok(Chosen { isolation, level, claim, variables: Vec::new(), why_not_stronger: None })
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
        assert!(matches!(as_user("no-such-user-here", Path::new("/")), Err(IsolationError::NoUser(_))));
    }

    #[test]
    fn root_is_no_user_for_an_agent() {
        let refused = as_user("root", Path::new("/"));
        assert!(matches!(refused, Err(IsolationError::NoOwnUser { .. } | IsolationError::NotRoot(_))), "{refused:?}");
    }
}
