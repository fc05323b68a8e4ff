//! What is to be set up, as the starter says it.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How the agent is kept apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Isolation {
    /// As the user who starts it.
    None,
    /// As another user, given by root.
    User {
        /// Its uid.
        uid: u32,
        /// Its gid.
        gid: u32,
    },
    /// In user, mount, pid and ipc namespaces of its own.
    Namespaces {
        /// The uid that the agent gets; for root another than 0.
        uid: u32,
        /// The gid that the agent gets.
        gid: u32,
    },
}

/// What is done at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Purpose {
    /// Become the agent.
    Agent,
    /// Probe as the agent would.
    Probe,
    /// Only look whether the command could be executed here.
    Trial,
    /// End whatever still runs as the agent's user.
    End,
}

/// A private socket, and what to ask there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ask {
    /// Its name in the home.
    pub(crate) socket: String,
    /// The bytes of a request for a signature, in hex.
    pub(crate) bytes: String,
}

/// What a probe tries, beside what it finds by itself. Names only, no secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Targets {
    /// Files of the home, relative to it.
    pub(crate) files: Vec<String>,
    /// Directories of the home; the empty name is the home itself.
    pub(crate) dirs: Vec<String>,
    /// Private sockets.
    pub(crate) sockets: Vec<Ask>,
    /// Process ids of trusted processes.
    pub(crate) trusted: Vec<(String, i32)>,
    /// Directories in which secrets may lie about, beside `HOME` and the work directory.
    pub(crate) look: Vec<PathBuf>,
    /// Whether the numbers may be those of another machine or namespace.
    pub(crate) elsewhere: bool,
    /// Users whose session buses and container engines are tried beside the agent's own.
    pub(crate) users: Vec<u32>,
}

/// A start, in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    /// How the agent is kept apart.
    pub(crate) isolation: Isolation,
    /// What is done at the end.
    pub(crate) purpose: Purpose,
    /// Where the agent works, and may write.
    pub(crate) work_dir: PathBuf,
    /// The AMC home, which is hidden.
    pub(crate) home: PathBuf,
    /// Files that the command names and that stay readable wherever they are.
    pub(crate) visible: Vec<PathBuf>,
    /// Whether standard input is a terminal that becomes the controlling one.
    pub(crate) terminal: bool,
    /// What to try, for the probe.
    pub(crate) targets: Targets,
}

/// Where in the way of a start this process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// At the beginning, outside.
    Enter,
    /// Process 1 of new namespaces.
    Inside,
    /// The last step.
    Become,
}

/// One call of this program.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The plan.
    pub(crate) plan: Plan,
    /// The plan's text, to hand on.
    pub(crate) plan_text: OsString,
    /// Where we stand.
    pub(crate) step: Step,
    /// The agent's executable.
    pub(crate) executable: PathBuf,
    /// The command as it was given.
    pub(crate) argv: Vec<OsString>,
}

impl Call {
    /// Takes the arguments apart.
    pub(crate) fn parse(arguments: Vec<OsString>) -> Result<Self, String> {
        let mut arguments = arguments.into_iter();
        let (Some(plan_text), Some(step), Some(executable)) = (arguments.next(), arguments.next(), arguments.next())
        else {
            return Err("this program is started by amc; see `amc wrap --help`".to_owned());
        };
        let plan = plan_text.to_str().ok_or("the plan is not UTF-8")?;
        let plan = serde_json::from_str(plan).map_err(|error| format!("the plan does not parse: {error}"))?;
        let step = match step.to_str() {
            Some("enter") => Step::Enter,
            Some("inside") => Step::Inside,
            Some("become") => Step::Become,
            _ => return Err(format!("{} is no step", step.display())),
        };
        let argv: Vec<OsString> = arguments.collect();
        if argv.is_empty() {
            return Err("there is no command".to_owned());
        }
        Ok(Call { plan, plan_text, step, executable: executable.into(), argv })
    }

    /// The command that goes on with `step` in a new process, from this very executable.
    pub(crate) fn next(&self, step: &str) -> std::process::Command {
        let mut command = std::process::Command::new("/proc/self/exe");
        command.arg(&self.plan_text).arg(step).arg(&self.executable).args(&self.argv);
        command
    }
}
