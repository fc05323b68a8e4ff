//! Keys: the verbs of `amc vault` that need the vault's format or the auditor's part in them.

mod init;
mod passphrase;
mod rotate;
mod status;
mod unlock;

use std::path::PathBuf;

use amc_core::kinds::Role;
use amc_vault::Passphrase;
use amc_workspace::passphrase::{self as source, Source};
use amc_workspace::{Answer, Failure, Opening};
use clap::{Subcommand, ValueEnum};

use crate::unlock::parsed;

/// What is done with keys.
#[derive(Subcommand)]
pub(crate) enum VaultVerb {
    /// Compartments, what a guess costs, and what is unlocked now.
    Status,
    /// Give a workspace a compartment that it lacks, with new keys.
    Init {
        /// Whose; what is missing unless this says so.
        #[arg(long, value_enum)]
        role: Option<OneRole>,
    },
    /// Put compartments under another passphrase.
    ChangePassphrase {
        /// Whose; all that are here unless this says so.
        #[arg(long, value_enum)]
        role: Option<OneRole>,
        /// Read the new passphrase from this file; - is standard input.
        #[arg(long, value_name = "FILE")]
        new_passphrase_file: Option<PathBuf>,
    },
    /// Keep the auditor's keys in a process of their own until `lock`, or until nobody uses them.
    Unlock {
        /// Whose; `amc` starts the monitor for its own.
        #[arg(long, value_enum, default_value = "auditor")]
        role: Roles,
        #[command(flatten)]
        hold: crate::holder::Plan,
    },
    /// Change the auditor's keys, or revoke a stolen one of the monitor's.
    RotateKeys(rotate::Plan),
}

/// One role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OneRole {
    /// The monitor.
    Monitor,
    /// The auditor.
    Auditor,
}

/// One role or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Roles {
    /// Both.
    All,
    /// The monitor.
    Monitor,
    /// The auditor.
    Auditor,
}

impl From<OneRole> for Role {
    fn from(role: OneRole) -> Role {
        match role {
            OneRole::Monitor => Role::Monitor,
            OneRole::Auditor => Role::Auditor,
        }
    }
}

pub(crate) fn run(verb: VaultVerb, opening: &Opening) -> (&'static str, Result<Answer, Failure>) {
    match verb {
        VaultVerb::Status => ("vault status", status::status(opening)),
        VaultVerb::Init { role } => ("vault init", init::init(opening, role.map(Role::from))),
        VaultVerb::ChangePassphrase { role, new_passphrase_file } => {
            let role = role.map(Role::from);
            ("vault change-passphrase", passphrase::change(opening, role, new_passphrase_file.as_deref()))
        }
        VaultVerb::RotateKeys(plan) => ("vault rotate-keys", rotate::rotate(opening, &plan)),
        VaultVerb::Unlock { role, hold } => ("vault unlock", unlock::unlock(opening, role, &hold)),
    }
}

/// Where the command line has a role's passphrase.
fn file_of(opening: &Opening, role: Role) -> Option<PathBuf> {
    match role {
        Role::Auditor => opening.passphrase_file.clone(),
        Role::Monitor => opening.monitor_passphrase_file.clone().or_else(|| opening.passphrase_file.clone()),
    }
}

/// A role's passphrase as it is now.
fn current(opening: &Opening, role: Role) -> Result<Passphrase, Failure> {
    parsed(&source::read(role, &Source { file: file_of(opening, role), is_new: false })?)
}
