//! Another passphrase for one compartment or for all, in one write of the vault.

use std::path::Path;

use amc_core::kinds::Role;
use amc_vault::{ScryptParams, Vault};
use amc_workspace::passphrase as source;
use amc_workspace::{Answer, Failure, Opening, hardening};
use serde_json::json;

use super::{current, file_of};
use crate::unlock::{parsed, vault_failure};

pub(crate) fn change(opening: &Opening, role: Option<Role>, new_file: Option<&Path>) -> Result<Answer, Failure> {
    let (home, _, workspace) = opening.workspace()?;
    hardening::protect()?;
    let vault = Vault::at(home.vault(), workspace);
    let roles = match role {
        Some(role) => vec![role],
        None => vault.roles().map_err(|error| vault_failure(&error))?,
    };
    // Where there are two and the old one is of both, it is asked for once.
    let asked = *roles.last().unwrap_or(&Role::Auditor);
    let standard_input = Path::new("-");
    if new_file == Some(standard_input) && file_of(opening, asked).as_deref() == Some(standard_input) {
        return Err(Failure::wrong("only one passphrase can come from standard input; use a file for the other"));
    }
    let old = current(opening, asked)?;
    let new = parsed(&source::read_new(asked, new_file)?)?;
    let params = ScryptParams::calibrated(hardening::memory_bytes());
    vault.change_passphrase(&roles, &old, &new, params).map_err(|error| vault_failure(&error))?;
    let names: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    let text = format!(
        "Changed the passphrase of {}. Copies of the old vault file still open with the old one\n",
        names.join(" and ")
    );
    Ok(Answer::new(&json!({ "roles": names }), text))
}
