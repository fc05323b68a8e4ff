//! Changing the monitor's keys, and revoking a stolen key of the auditor's.
//!
//! The counterpart of the auditor's `vault/rotate.rs`, where the steps are told; here no monitor may
//! run, since a running one signs with the key that it was started with.

use std::path::Path;
use std::sync::Arc;

use amc_core::Tier;
use amc_core::kinds::{KeyPurpose, KeyRevoked, KeyRotated, Role};
use amc_crypto::PublicKey;
use amc_crypto::signer::{CheckpointSigner, Cosigner as _, EventSigner as _};
use amc_evidence::Draft;
use amc_ledger::{Signers, Writer, revocation};
use amc_vault::{MonitorKeys, Passphrase, Vault};
use amc_workspace::home::Home;
use amc_workspace::passphrase::{self as source, Source};
use amc_workspace::protocol::Client;
use amc_workspace::protocol::holder::{Found, HolderClient};
use amc_workspace::protocol::operator::{OperatorReply, OperatorRequest};
use amc_workspace::{Answer, Failure, Opening, SystemClock, hardening};
use clap::Args;
use serde_json::json;

use crate::unlock::{log_failure, log_number, open_log, passphrase, unlock, unlock_with, vault, vault_failure};

/// Whose key, and why.
#[derive(Args)]
pub(crate) struct Plan {
    /// Whose.
    #[arg(long, value_parser = ["monitor", "auditor"])]
    role: String,
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

pub(crate) fn rotate(opening: &Opening, auditor_file: Option<&Path>, plan: &Plan) -> Result<Answer, Failure> {
    match (plan.role.as_str(), plan.revoke_from, plan.reason.as_deref()) {
        ("monitor", None, _) => rotate_own(opening, &plan.key),
        ("auditor", Some(from_index), Some(reason)) => revoke(opening, auditor_file, &plan.key, from_index, reason),
        ("auditor", None, _) => Err(Failure::wrong("the auditor's keys are changed by amc-auditor")),
        _ => Err(Failure::wrong("the monitor's stolen key is revoked by amc-auditor")),
    }
}

/// A running monitor goes on with the key that it was started with, so it has to end first.
fn refuse_beside_a_monitor(home: &Home) -> Result<(), Failure> {
    match Client::<OperatorRequest, OperatorReply>::connect(&home.monitor_socket()) {
        Ok(_) => Err(Failure::unable("the monitor runs and holds its keys and its log; stop it first: amc down")),
        Err(_) => Ok(()),
    }
}

fn rotate_own(opening: &Opening, which: &str) -> Result<Answer, Failure> {
    let (home, _, workspace) = opening.workspace()?;
    hardening::protect()?;
    refuse_beside_a_monitor(&home)?;
    let passphrase = passphrase(opening, false)?;
    let vault = vault(&home, workspace.clone());
    // What an earlier rotation left is finished first.
    let keys = unlock_with(&home, &workspace, &passphrase)?;
    // The witness key first: the log key that everybody knows signs for it.
    if which != "log" {
        witness(&home, &vault, &keys, &passphrase)?;
    }
    if which != "witness" {
        log(&home, &vault, &keys, &passphrase)?;
    }
    let keys = unlock_with(&home, &workspace, &passphrase)?.of_log(log_number(&home));
    let (log_key, witness_key) = (CheckpointSigner::verifier_key(&keys.log), keys.witness.verifier_key());
    let text = format!(
        "The monitor's keys are now\n  log {log_key}\n  witness {witness_key}\nOld signatures stay good; old private keys are erased\n"
    );
    let data = json!({
        "role": "monitor", "log_key": log_key.to_string(), "witness_key": witness_key.to_string(),
    });
    Ok(Answer::new(&data, text))
}

fn log(home: &Home, vault: &Vault, keys: &MonitorKeys, passphrase: &Passphrase) -> Result<(), Failure> {
    let prepared = vault.prepare_rotation(Role::Monitor, passphrase, KeyPurpose::Log);
    let prepared = prepared.map_err(|error| vault_failure(&error))?;
    let next = prepared.next().log.as_ref().expect("it was just put there").handle();
    let public = next.public_key();
    let next = Arc::new(next.of_log(log_number(home)));
    let writer = writer(home, keys)?;
    writer.rotate(Signers { event: next.clone(), checkpoint: next }).map_err(Failure::unable)?;
    writer.close().map_err(Failure::unable)?;
    finish(vault, passphrase, KeyPurpose::Log, public)
}

fn witness(home: &Home, vault: &Vault, keys: &MonitorKeys, passphrase: &Passphrase) -> Result<(), Failure> {
    let prepared = vault.prepare_rotation(Role::Monitor, passphrase, KeyPurpose::Witness);
    let prepared = prepared.map_err(|error| vault_failure(&error))?;
    let public = prepared.next().witness.as_ref().expect("it was just put there").verifier_key().public();
    let rotated = KeyRotated { purpose: KeyPurpose::Witness, public: public.to_digest() };
    let writer = writer(home, keys)?;
    writer.append(Draft::new(Tier::Observed, rotated), None).map_err(Failure::unable)?;
    writer.close().map_err(Failure::unable)?;
    finish(vault, passphrase, KeyPurpose::Witness, public)
}

fn writer(home: &Home, keys: &MonitorKeys) -> Result<Writer, Failure> {
    let clock = Arc::new(SystemClock::new().map_err(Failure::unable)?);
    open_log(home, keys.log.handle(), clock).map_err(|error| log_failure(&error))
}

fn finish(vault: &Vault, passphrase: &Passphrase, purpose: KeyPurpose, public: PublicKey) -> Result<(), Failure> {
    let finished = vault.finish_rotation(Role::Monitor, passphrase, purpose, public);
    finished.map_err(|error| vault_failure(&error))
}

fn revoke(
    opening: &Opening,
    auditor_file: Option<&Path>,
    which: &str,
    from_index: u64,
    reason: &str,
) -> Result<Answer, Failure> {
    if which != "log" {
        return Err(Failure::wrong(
            "only a log key is revoked from an index; change a stolen witness key with `--key witness` first, \
             then take its line out of the trust policies that pin it",
        ));
    }
    let home = opening.home()?;
    refuse_beside_a_monitor(&home)?;
    match HolderClient::find(&home) {
        Found::Nobody => {}
        _ => {
            let what = "a process holds the auditor's key that is to be revoked; end it first: amc vault lock";
            return Err(Failure::unable(what));
        }
    }
    let (_, policy, workspace) = opening.workspace()?;
    let vault = vault(&home, workspace);
    let here = vault.roles().map_err(|error| vault_failure(&error))?;
    if here.is_empty() {
        return Err(Failure::wrong("there is no compartment here; do this in the homes that have them"));
    }
    let logs = (home.log(Role::Monitor), home.log(Role::Auditor));
    let revoked = revocation::of_stolen(&policy, (&logs.0, &logs.1), Role::Auditor, from_index, reason);
    let revoked = revoked.map_err(Failure::wrong)?;
    let mut text =
        format!("Nothing counts that the auditor's log key signed in {} from index {from_index} on\n", revoked.origin);
    if here.contains(&Role::Monitor) {
        let unlocked = unlock(opening)?;
        revocation::record(&unlocked.writer, &home.log(Role::Monitor), &revoked).map_err(Failure::unable)?;
        unlocked.writer.close().map_err(Failure::unable)?;
    } else {
        text = "The monitor has to say so too, with the same command in its home\n".to_owned();
    }
    let new =
        if here.contains(&Role::Auditor) { Some(replace(opening, auditor_file, &vault, &revoked)?) } else { None };
    text += if new.is_some() {
        "The auditor has a new key, which the old one does not vouch for\n"
    } else {
        "The auditor gets its new key by the same command in its home\n"
    };
    text += "The log goes on as a successor: amc ledger succeed --log audit\n";
    let data = json!({
        "role": "auditor", "origin": revoked.origin, "revoked": revoked.public, "from_index": from_index,
        "new_public": new.map(|key| key.to_digest()),
    });
    Ok(Answer::new(&data, text))
}

/// A new key in the auditor's compartment, unless it has another one than the revoked already.
fn replace(
    opening: &Opening,
    auditor_file: Option<&Path>,
    vault: &Vault,
    revoked: &KeyRevoked,
) -> Result<PublicKey, Failure> {
    let file = auditor_file.map(Path::to_owned).or_else(|| opening.passphrase_file.clone());
    let line = source::read(Role::Auditor, &Source { file, is_new: false })?;
    let passphrase = Passphrase::from_line(line.to_vec()).map_err(Failure::wrong)?;
    let held = vault.public_key(Role::Auditor, &passphrase, KeyPurpose::Log).map_err(|error| vault_failure(&error))?;
    if held.to_digest() != revoked.public {
        return Ok(held);
    }
    vault.replace_key(Role::Auditor, &passphrase, KeyPurpose::Log).map_err(|error| vault_failure(&error))
}
