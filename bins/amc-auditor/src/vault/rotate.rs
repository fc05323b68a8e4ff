//! Changing the auditor's keys, and revoking a stolen key of the monitor's.
//!
//! A rotation: the next key is put into the vault, the old one signs the event that names it, the
//! next one takes its place and the old one is erased. A crash between two steps is mended by the next
//! unlocking (see `unlock`). A revocation: this role's log says from which index on nothing that the
//! other role's key signed counts; then the other role's compartment gets a key for which nothing
//! vouches, and its log is succeeded.

use std::sync::Arc;

use amc_core::Tier;
use amc_core::kinds::{KeyPurpose, KeyRevoked, KeyRotated, Role};
use amc_crypto::PublicKey;
use amc_crypto::signer::{CheckpointSigner as _, Cosigner as _, EventSigner as _};
use amc_evidence::Draft;
use amc_ledger::{Signers, Writer, revocation};
use amc_vault::{AuditorKeys, Passphrase, Vault};
use amc_workspace::home::Home;
use amc_workspace::protocol::Client;
use amc_workspace::protocol::operator::{OperatorReply, OperatorRequest};
use amc_workspace::{Answer, Failure, Opening, SystemClock, hardening};
use clap::Args;
use serde_json::json;

use super::{OneRole, current};
use crate::holder::Claim;
use crate::monitor;
use crate::unlock::{Beside, log_failure, log_number, open_log, parsed, unlock, unlock_with, vault_failure};

/// Whose key, and why.
#[derive(Args)]
pub(crate) struct Plan {
    /// Whose.
    #[arg(long, value_enum)]
    role: OneRole,
    /// Which key.
    #[arg(long, value_parser = ["log", "witness", "all"], default_value = "log")]
    key: String,
    /// The key was stolen: nothing that it signed from this index of its log on counts.
    #[arg(long, value_name = "INDEX", requires = "reason")]
    revoke_from: Option<u64>,
    /// What happened, for the log.
    #[arg(long, value_name = "TEXT", requires = "revoke_from")]
    reason: Option<String>,
}

pub(crate) fn rotate(opening: &Opening, plan: &Plan) -> Result<Answer, Failure> {
    match (plan.role, plan.revoke_from, plan.reason.as_deref()) {
        (OneRole::Auditor, None, _) => rotate_own(opening, &plan.key),
        (OneRole::Monitor, Some(from_index), Some(reason)) => revoke(opening, &plan.key, from_index, reason),
        (OneRole::Monitor, None, _) => Err(Failure::wrong("the monitor's keys are changed by amc-monitor")),
        _ => Err(Failure::wrong("the auditor's stolen key is revoked by amc-monitor")),
    }
}

fn rotate_own(opening: &Opening, which: &str) -> Result<Answer, Failure> {
    let (home, _, workspace) = opening.workspace()?;
    hardening::protect()?;
    let _claim = Claim::take(&home)?;
    let line = opening.passphrase(Role::Auditor, false)?;
    let passphrase = parsed(&line)?;
    let vault = Vault::at(home.vault(), workspace.clone());
    // What an earlier rotation left is finished first.
    let keys = unlock_with(&home, &workspace, &passphrase)?;
    // The witness key first: the log key that everybody knows signs for it.
    if which != "log" {
        witness(&home, &vault, &keys, &passphrase)?;
    }
    if which != "witness" {
        log(&home, &vault, &keys, &passphrase)?;
    }
    let keys = unlock_with(&home, &workspace, &passphrase)?;
    let beside = match &opening.monitor_passphrase_file {
        Some(_) => Beside::Running,
        None => Beside::Passphrase(line),
    };
    // Asked for again by the next run; the keys have changed either way.
    let cosigned = monitor::cosign(&home, &beside);
    let (log_key, witness_key) = (keys.log.of_log(log_number(&home)).verifier_key(), keys.witness.verifier_key());
    let text = format!(
        "The auditor's keys are now\n  log {log_key}\n  witness {witness_key}\nOld signatures stay good; old private keys are erased\n"
    );
    let data = json!({
        "role": "auditor", "log_key": log_key.to_string(), "witness_key": witness_key.to_string(),
        "cosigned": cosigned.is_ok(),
    });
    Ok(Answer::new(&data, text))
}

fn log(home: &Home, vault: &Vault, keys: &AuditorKeys, passphrase: &Passphrase) -> Result<(), Failure> {
    let prepared = vault.prepare_rotation(Role::Auditor, passphrase, KeyPurpose::Log);
    let prepared = prepared.map_err(|error| vault_failure(&error))?;
    let next = prepared.next().log.as_ref().expect("it was just put there").handle();
    let public = next.public_key();
    let next = Arc::new(next.of_log(log_number(home)));
    let writer = writer(home, keys)?;
    writer.rotate(Signers { event: next.clone(), checkpoint: next }).map_err(Failure::unable)?;
    writer.close().map_err(Failure::unable)?;
    finish(vault, passphrase, KeyPurpose::Log, public)
}

fn witness(home: &Home, vault: &Vault, keys: &AuditorKeys, passphrase: &Passphrase) -> Result<(), Failure> {
    let prepared = vault.prepare_rotation(Role::Auditor, passphrase, KeyPurpose::Witness);
    let prepared = prepared.map_err(|error| vault_failure(&error))?;
    let public = prepared.next().witness.as_ref().expect("it was just put there").verifier_key().public();
    let rotated = KeyRotated { purpose: KeyPurpose::Witness, public: public.to_digest() };
    let writer = writer(home, keys)?;
    writer.append(Draft::new(Tier::Observed, rotated), None).map_err(Failure::unable)?;
    writer.close().map_err(Failure::unable)?;
    finish(vault, passphrase, KeyPurpose::Witness, public)
}

fn writer(home: &Home, keys: &AuditorKeys) -> Result<Writer, Failure> {
    let clock = Arc::new(SystemClock::new().map_err(Failure::unable)?);
    open_log(home, keys.log.handle(), clock).map_err(|error| log_failure(&error))
}

fn finish(vault: &Vault, passphrase: &Passphrase, purpose: KeyPurpose, public: PublicKey) -> Result<(), Failure> {
    let finished = vault.finish_rotation(Role::Auditor, passphrase, purpose, public);
    finished.map_err(|error| vault_failure(&error))
}

fn revoke(opening: &Opening, which: &str, from_index: u64, reason: &str) -> Result<Answer, Failure> {
    if which != "log" {
        return Err(Failure::wrong(
            "only a log key is revoked from an index; change a stolen witness key with `--key witness` first, \
             then take its line out of the trust policies that pin it",
        ));
    }
    let home = opening.home()?;
    if Client::<OperatorRequest, OperatorReply>::connect(&home.monitor_socket()).is_ok() {
        return Err(Failure::unable("the monitor runs with the key that is to be revoked; stop it first: amc down"));
    }
    let _claim = Claim::take(&home)?;
    let (_, policy, workspace) = opening.workspace()?;
    let vault = Vault::at(home.vault(), workspace);
    let here = vault.roles().map_err(|error| vault_failure(&error))?;
    if here.is_empty() {
        return Err(Failure::wrong("there is no compartment here; do this in the homes that have them"));
    }
    let logs = (home.log(Role::Monitor), home.log(Role::Auditor));
    let revoked = revocation::of_stolen(&policy, (&logs.0, &logs.1), Role::Monitor, from_index, reason);
    let revoked = revoked.map_err(Failure::wrong)?;
    let mut text =
        format!("Nothing counts that the monitor's log key signed in {} from index {from_index} on\n", revoked.origin);
    if here.contains(&Role::Auditor) {
        let unlocked = unlock(opening)?;
        revocation::record(&unlocked.writer, &home.log(Role::Auditor), &revoked).map_err(Failure::unable)?;
        unlocked.writer.close().map_err(Failure::unable)?;
    } else {
        text = "The auditor has to say so too, with the same command in its home\n".to_owned();
    }
    let new = if here.contains(&Role::Monitor) { Some(replace(opening, &vault, &revoked)?) } else { None };
    text += if new.is_some() {
        "The monitor has a new key, which the old one does not vouch for\n"
    } else {
        "The monitor gets its new key by the same command in its home\n"
    };
    text += "The log goes on as a successor: amc ledger succeed\n";
    let data = json!({
        "role": "monitor", "origin": revoked.origin, "revoked": revoked.public, "from_index": from_index,
        "new_public": new.map(|key| key.to_digest()),
    });
    Ok(Answer::new(&data, text))
}

/// A new key in the monitor's compartment, unless it has another one than the revoked already.
fn replace(opening: &Opening, vault: &Vault, revoked: &KeyRevoked) -> Result<PublicKey, Failure> {
    let passphrase = current(opening, Role::Monitor)?;
    let held = vault.public_key(Role::Monitor, &passphrase, KeyPurpose::Log).map_err(|error| vault_failure(&error))?;
    if held.to_digest() != revoked.public {
        return Ok(held);
    }
    vault.replace_key(Role::Monitor, &passphrase, KeyPurpose::Log).map_err(|error| vault_failure(&error))
}
