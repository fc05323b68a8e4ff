//! What can go wrong with a vault, told to a person: what happened, where, and what to do next.

use std::io;
use std::path::{Path, PathBuf};

use amc_core::FindingCode;
use amc_core::kinds::Role;

use crate::params::ScryptParams;
use crate::secret::SecretName;

/// A vault that could not be read, opened or written.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// No file there.
    #[error("there is no vault at {}; `amc vault init` makes one in a workspace that has none", .0.display())]
    Missing(PathBuf),
    /// A file is there already.
    #[error("there is a vault at {} already; it was left as it is", .0.display())]
    Exists(PathBuf),
    /// The path has a symbolic link, a directory or a device where the vault file should be.
    #[error("{} is not a regular file; the vault has to stand there itself", .0.display())]
    NotAFile(PathBuf),
    /// The file or its directory is open to others than its owner.
    #[error("{} has mode {mode:04o} and has to be closed to others: chmod {wanted:o} '{}'", path.display(), path.display())]
    Permissions {
        /// The file or directory.
        path: PathBuf,
        /// The mode that was found.
        mode: u32,
        /// The mode that is right.
        wanted: u32,
    },
    /// The bytes are not those of a vault, or a checksum does not hold.
    #[error("the vault {} is damaged: {what}; put back a copy of the file", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, without saying which byte.
        what: &'static str,
    },
    /// A version that this program does not know.
    #[error("{} is a vault of version {version}; this program reads version 1", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        version: u16,
    },
    /// The cost parameters in the file are outside what is accepted.
    #[error("the {role}'s compartment of {} asks for {params}, outside the accepted range ({range})", path.display())]
    Cost {
        /// The file.
        path: PathBuf,
        /// The compartment.
        role: Role,
        /// What it asks for.
        params: ScryptParams,
        /// What is accepted.
        range: String,
    },
    /// The file has no compartment for the role.
    #[error("{} has no compartment for the {role}; name the home that has it with --home", path.display())]
    NoCompartment {
        /// The file.
        path: PathBuf,
        /// The role.
        role: Role,
    },
    /// The file has a compartment for the role already.
    #[error("{} has a compartment for the {role} already; it was left as it is", path.display())]
    CompartmentExists {
        /// The file.
        path: PathBuf,
        /// The role.
        role: Role,
    },
    /// The authenticated decryption failed.
    #[error("the {role}'s compartment of {} did not open: the passphrase is wrong or the compartment was altered", path.display())]
    WrongPassphrase {
        /// The file.
        path: PathBuf,
        /// The compartment.
        role: Role,
    },
    /// One passphrase was to open several compartments and did not.
    #[error("the passphrase did not open every compartment of {}: it is wrong, or a compartment has one of its own; name one with --role", .0.display())]
    NotEvery(PathBuf),
    /// The rotation that should be finished is not the one under way.
    #[error("{} holds no such next key of the {role}; rotate again", path.display())]
    NotRotating {
        /// The file.
        path: PathBuf,
        /// The compartment.
        role: Role,
    },
    /// The compartment opened and belongs to another workspace.
    #[error("the {role}'s compartment of {} belongs to the workspace {found}, not to {wanted}; is it the right --home?", path.display())]
    OtherWorkspace {
        /// The file.
        path: PathBuf,
        /// The compartment.
        role: Role,
        /// The workspace whose keys these are.
        found: String,
        /// The workspace that was asked for.
        wanted: String,
    },
    /// Somebody else is writing.
    #[error("another program is changing {}; try again when it is done", .0.display())]
    Busy(PathBuf),
    /// No secret of this name.
    #[error("the vault has no secret {0}; `amc vault secret list` shows the names")]
    NoSecret(SecretName),
    /// No room for another secret.
    #[error("the vault holds {} secrets already; remove one first", crate::SECRETS_MAX)]
    TooManySecrets,
    /// The operating system refused a step.
    #[error("could not {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// No randomness from the operating system.
    #[error("the operating system gave no random bytes: {0}")]
    Random(#[from] getrandom::Error),
}

impl VaultError {
    /// The finding code that scripts match on, where there is one.
    pub const fn code(&self) -> Option<FindingCode> {
        match self {
            VaultError::Permissions { .. } => Some(FindingCode::VaultPermissions),
            VaultError::Damaged { .. }
            | VaultError::Version { .. }
            | VaultError::NotAFile(_)
            | VaultError::Cost { .. } => Some(FindingCode::VaultDamaged),
            VaultError::WrongPassphrase { .. } | VaultError::NotEvery(_) => Some(FindingCode::VaultLocked),
            _ => None,
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VaultError {
        let path = path.to_owned();
        move |source| VaultError::Io { action, path, source }
    }
}
