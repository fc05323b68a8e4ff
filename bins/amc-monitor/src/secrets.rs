//! Provider secrets in the monitor's compartment.

use std::io::Read as _;

use amc_vault::{Passphrase, SecretName, SecretValue, Vault};
use amc_workspace::{Answer, Failure, Opening, hardening};
use serde_json::json;

use crate::unlock::{self, vault_failure};

fn open(opening: &Opening) -> Result<(Vault, Passphrase), Failure> {
    let (home, _, workspace) = opening.workspace()?;
    hardening::protect()?;
    Ok((unlock::vault(&home, workspace), unlock::passphrase(opening, false)?))
}

pub(crate) fn set(opening: &Opening, name: &str) -> Result<Answer, Failure> {
    let name = SecretName::new(name).map_err(Failure::wrong)?;
    let mut line = Vec::new();
    std::io::stdin().take(64 * 1024).read_to_end(&mut line).map_err(Failure::unable)?;
    let value = SecretValue::from_line(line).map_err(Failure::wrong)?;
    let (vault, passphrase) = open(opening)?;
    vault.set_secret(&passphrase, name.clone(), value).map_err(|error| vault_failure(&error))?;
    let text = format!("Set the secret {name}; a running gateway takes it at its next start\n", name = name.as_str());
    Ok(Answer::new(&json!({ "name": name.as_str() }), text))
}

pub(crate) fn list(opening: &Opening) -> Result<Answer, Failure> {
    let (vault, passphrase) = open(opening)?;
    let names = vault.list_secrets(&passphrase).map_err(|error| vault_failure(&error))?;
    let names: Vec<&str> = names.iter().map(SecretName::as_str).collect();
    let text = names.iter().map(|name| format!("{name}\n")).collect::<String>();
    Ok(Answer::new(&json!({ "secrets": names }), text))
}

pub(crate) fn remove(opening: &Opening, name: &str) -> Result<Answer, Failure> {
    let name = SecretName::new(name).map_err(Failure::wrong)?;
    let (vault, passphrase) = open(opening)?;
    vault.remove_secret(&passphrase, &name).map_err(|error| vault_failure(&error))?;
    Ok(Answer::new(&json!({ "name": name.as_str() }), format!("Removed the secret {}\n", name.as_str())))
}
