//! The layout of a home, and the permissions without which it is not used.
//!
//! ```text
//! .amc/            0700
//!   amc.yaml  gateway.yaml  + .sig      trust.policy      vault.amcvault 0600
//!   agents/<id>/   logs/evidence  logs/audit   runs/<runId>/   run/ (sockets, logs of processes)
//! ```

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use amc_core::kinds::Role;
use amc_core::{AgentId, RunId, WorkspaceName, limits};
use amc_crypto::{PublicKey, TrustPolicy, VerifierKey, policy};

/// An opened home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
}

/// A home that cannot be used as it is.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// No `.amc` here or above.
    #[error("no AMC home at {0}; create one with `amc init`, or name one with --home or AMC_HOME")]
    Missing(PathBuf),
    /// A file where the home should be.
    #[error("{0} is not a directory; name the workspace's own with --home or AMC_HOME")]
    NotADirectory(PathBuf),
    /// A directory or file that others can use.
    #[error("{path} has mode {mode:o}, looser than {wanted:o}; mend it with: chmod {wanted:o} {path}")]
    Permissions {
        /// The path.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode that it should have.
        wanted: u32,
    },
    /// Something stands where the home should be created.
    #[error("{0} exists already; choose another --home, or remove it if nothing in it matters")]
    Exists(PathBuf),
    /// A file could not be read or written.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file is larger than it may be.
    #[error("{path} is larger than {max} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        max: usize,
    },
    /// The trust policy does not parse.
    #[error("{path}: {source}")]
    Policy {
        /// The file.
        path: PathBuf,
        /// The line and what is wrong there.
        source: policy::PolicyError,
    },
    /// The trust policy lacks a log.
    #[error("{path} pins no {role}'s log; add its `log` line, which its owner gives out with `amc trust export`")]
    NotPinned {
        /// The policy.
        path: PathBuf,
        /// Whose log.
        role: Role,
    },
}

impl Home {
    /// The home that is meant: `--home`, else `$AMC_HOME`, else the nearest `.amc` upward.
    ///
    /// # Errors
    /// [`HomeError::Missing`] when there is none, [`HomeError::Permissions`] when others can use it.
    pub fn find(named: Option<&Path>, variable: Option<&Path>, working_dir: &Path) -> Result<Self, HomeError> {
        if let Some(root) = named.or(variable) {
            return Self::open(root);
        }
        let nearest = working_dir.ancestors().map(|dir| dir.join(".amc")).find(|dir| dir.is_dir());
        nearest.map_or_else(|| Err(HomeError::Missing(working_dir.join(".amc"))), |root| Self::open(&root))
    }

    /// Opens the home at `root`.
    ///
    /// # Errors
    /// As [`Home::find`].
    pub fn open(root: &Path) -> Result<Self, HomeError> {
        let root = fs::canonicalize(root).map_err(|_| HomeError::Missing(root.to_owned()))?;
        if !root.is_dir() {
            return Err(HomeError::NotADirectory(root));
        }
        check_mode(&root, 0o700)?;
        Ok(Home { root })
    }

    /// Creates the directories of a new home. `root` must not exist, or be an empty directory.
    ///
    /// # Errors
    /// [`HomeError::Exists`] when something is there, [`HomeError::Io`] when it cannot be made.
    pub fn create(root: &Path) -> Result<Self, HomeError> {
        if fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_some()) || root.is_file() {
            return Err(HomeError::Exists(root.to_owned()));
        }
        make_dir(root)?;
        let home = Home { root: fs::canonicalize(root).map_err(io_error("find", root))? };
        check_mode(&home.root, 0o700)?;
        for dir in ["agents", "logs", "runs", "run"] {
            make_dir(&home.root.join(dir))?;
        }
        Ok(home)
    }

    /// The directory itself, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A file by its workspace-relative path.
    pub fn file(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// The vault.
    pub fn vault(&self) -> PathBuf {
        self.root.join("vault.amcvault")
    }

    /// The log of a role that is in force: the newest of its line.
    pub fn log(&self, role: Role) -> PathBuf {
        self.log_at(role, self.log_number(role))
    }

    /// Its number: 1, unless it was succeeded.
    pub fn log_number(&self, role: Role) -> u32 {
        let entries = fs::read_dir(self.root.join("logs")).into_iter().flatten().flatten();
        let numbers = entries.filter_map(|entry| role.log_number(entry.file_name().to_str()?));
        // A directory without a segment is what an interrupted creation left.
        numbers.filter(|number| *number == 1 || holds_log(&self.log_at(role, *number))).max().unwrap_or(1)
    }

    /// The log of a role with this number, whether or not there is one.
    pub fn log_at(&self, role: Role, number: u32) -> PathBuf {
        self.root.join("logs").join(role.log_dir(number))
    }

    /// The trust policy.
    pub fn trust_policy_path(&self) -> PathBuf {
        self.root.join("trust.policy")
    }

    /// The directory of a run.
    pub fn run(&self, run: &RunId) -> PathBuf {
        self.root.join("runs").join(run.as_str())
    }

    /// The directory of an agent.
    pub fn agent(&self, agent: &AgentId) -> PathBuf {
        self.root.join("agents").join(agent.as_str())
    }

    /// The operator's socket of the monitor.
    pub fn monitor_socket(&self) -> PathBuf {
        self.root.join("run/monitor.sock")
    }

    /// The gateway's socket of the monitor.
    pub fn gateway_socket(&self) -> PathBuf {
        self.root.join("run/gateway.sock")
    }

    /// The number that changes with what the monitor would say of a lease ([`crate::generation`]).
    pub fn gateway_generation(&self) -> PathBuf {
        self.root.join("run/gateway.generation")
    }

    /// The socket of the process that holds the auditor's keys.
    pub fn auditor_socket(&self) -> PathBuf {
        self.root.join("run/auditor.sock")
    }

    /// Held by that process, and by whoever changes the auditor's keys.
    pub fn auditor_lock(&self) -> PathBuf {
        self.root.join("run/auditor.lock")
    }

    /// Where a background process writes its diagnostics.
    pub fn process_log(&self, name: &str) -> PathBuf {
        self.root.join("run").join(format!("{name}.log"))
    }

    /// The agents that have a directory, ascending.
    ///
    /// # Errors
    /// [`HomeError::Io`] when the directory cannot be read.
    pub fn agents(&self) -> Result<Vec<AgentId>, HomeError> {
        let dir = self.root.join("agents");
        let entries = fs::read_dir(&dir).map_err(io_error("read", &dir))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut agents: Vec<AgentId> = names.filter_map(|name| AgentId::new(name).ok()).collect();
        agents.sort();
        Ok(agents)
    }

    /// Reads and parses the trust policy.
    ///
    /// # Errors
    /// [`HomeError`] when it is missing, too large or broken.
    pub fn trust_policy(&self) -> Result<TrustPolicy, HomeError> {
        let path = self.trust_policy_path();
        let bytes = read_bounded(&path, limits::POLICY_BYTES_MAX)?;
        TrustPolicy::parse(&bytes).map_err(|source| HomeError::Policy { path, source })
    }

    /// The pinned key of a role's log.
    ///
    /// # Errors
    /// [`HomeError::NotPinned`] when the policy has none.
    pub fn pinned_log(&self, policy: &TrustPolicy, role: Role) -> Result<VerifierKey, HomeError> {
        let pinned = policy.logs().iter().find(|key| policy::role_of_origin(key.name()) == Some(role));
        pinned.cloned().ok_or_else(|| HomeError::NotPinned { path: self.trust_policy_path(), role })
    }

    /// The keys whose envelopes count as the auditor's: the pinned one, and with a policy that has learned
    /// what it signed since, the next ones.
    ///
    /// # Errors
    /// [`HomeError::NotPinned`] when the policy has none.
    pub fn auditor_keys(&self, policy: &TrustPolicy) -> Result<Vec<PublicKey>, HomeError> {
        let pinned = self.pinned_log(policy, Role::Auditor)?;
        Ok(policy.keys_of_role(policy::workspace_of_origin(pinned.name()), Role::Auditor))
    }
}

fn holds_log(dir: &Path) -> bool {
    let mut segments = fs::read_dir(dir.join("segments")).into_iter().flatten().flatten();
    segments.any(|entry| entry.path().extension().is_some_and(|extension| extension == "seg"))
}

/// The workspace's name, as the origin of a pinned log says it.
pub fn workspace_of(key: &VerifierKey) -> Option<WorkspaceName> {
    key.name().split('/').next().and_then(|name| WorkspaceName::new(name).ok())
}

/// Refuses a path that anybody but its owner can use.
///
/// # Errors
/// [`HomeError::Permissions`] with the command that mends it.
pub fn check_mode(path: &Path, wanted: u32) -> Result<(), HomeError> {
    let mode = fs::metadata(path).map_err(io_error("look at", path))?.mode() & 0o7777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(HomeError::Permissions { path: path.to_owned(), mode, wanted }) }
}

/// Makes a directory (and what is above it) with mode 0700; one that exists is left as it is.
///
/// # Errors
/// [`HomeError::Io`].
pub fn make_dir(path: &Path) -> Result<(), HomeError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error("create", path))
}

/// Reads a file that must not be larger than `max`.
///
/// # Errors
/// [`HomeError::TooLarge`] or [`HomeError::Io`].
pub fn read_bounded(path: &Path, max: usize) -> Result<Vec<u8>, HomeError> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(io_error("read", path))?;
    file.take(max as u64 + 1).read_to_end(&mut bytes).map_err(io_error("read", path))?;
    if bytes.len() > max { Err(HomeError::TooLarge { path: path.to_owned(), max }) } else { Ok(bytes) }
}

/// Replaces a file whole or not at all: temporary file, fsync, rename, fsync of the directory.
///
/// # Errors
/// [`HomeError::Io`]; the old file is then still there.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), HomeError> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = dir.join(format!(".{name}.{}.tmp", std::process::id()));
    let directory = fs::File::open(dir).map_err(io_error("open", dir))?;
    let written = (|| {
        // A name that is there already is a leftover, or a link that somebody else wants followed.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        directory.sync_all()
    })();
    if written.is_err() {
        // The rename did not happen or its flush failed; a leftover temporary file helps nobody.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(io_error("write", path))
}

/// Names an I/O failure.
pub fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HomeError {
    let path = path.to_owned();
    move |source| HomeError::Io { what, path, source }
}
