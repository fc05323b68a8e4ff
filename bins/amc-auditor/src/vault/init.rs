//! A compartment for a role that a workspace lacks: new keys, its log, and its lines of the trust
//! policy. Where the role's log is there and its compartment is not, the new key waits for a successor
//! of that log.

use amc_core::WorkspaceName;
use amc_core::kinds::Role;
use amc_crypto::TrustPolicy;
use amc_crypto::policy::role_of_origin;
use amc_crypto::signer::{CheckpointSigner as _, Cosigner as _};
use amc_vault::Vault;
use amc_workspace::home::{self, Home};
use amc_workspace::passphrase::{self, Source};
use amc_workspace::{Answer, Failure, Opening, hardening, pins};
use serde_json::json;

use super::file_of;
use crate::init::{create_compartment, create_log};
use crate::monitor;
use crate::unlock::{parsed, vault_failure};

pub(crate) fn init(opening: &Opening, role: Option<Role>) -> Result<Answer, Failure> {
    let (home, policy, workspace) = opening.workspace()?;
    hardening::protect()?;
    let vault = Vault::at(home.vault(), workspace.clone());
    let here = vault.roles().map_err(|error| vault_failure(&error))?;
    let wanted = match role {
        Some(role) if here.contains(&role) => {
            let path = home.vault();
            return Err(Failure::wrong(format!(
                "{} has a compartment for the {role} already; it was left as it is. \
                 `amc vault rotate-keys` changes keys, `amc vault change-passphrase` the passphrase",
                path.display()
            )));
        }
        Some(role) => vec![role],
        // A role whose log is pinned has its keys elsewhere, unless somebody says that they are lost.
        None => {
            let missing = |role: &Role| !here.contains(role) && !is_pinned(&policy, *role);
            [Role::Monitor, Role::Auditor].into_iter().filter(missing).collect()
        }
    };
    let Some(role) = wanted.first().copied() else {
        return Err(Failure::wrong(
            "no role lacks keys: each has a compartment here, or a pinned log whose keys are in another home; \
             name a role with --role whose keys are lost",
        ));
    };
    if wanted.len() > 1 {
        return Err(Failure::wrong("neither role has keys here; say whose to make with --role"));
    }
    let has_log = home.log(role).join("segments").is_dir();
    if is_pinned(&policy, role) && !has_log {
        return Err(Failure::wrong(format!(
            "trust.policy pins the {role}'s log and it is not here: its keys are in another home. \
             Take its lines out of trust.policy first if they are to be made anew"
        )));
    }
    let passphrase = passphrase::read(role, &Source { file: file_of(opening, role), is_new: true })?;
    let made = match role {
        Role::Auditor => auditor(&home, &workspace, &passphrase, has_log)?,
        Role::Monitor => {
            let answer = monitor::call(home.root(), &["vault", "init"], &passphrase).map_err(Failure::unable)?;
            let text = |field: &str| answer["data"][field].as_str().unwrap_or_default().to_owned();
            (text("log_key"), text("witness_key"))
        }
    };
    if !has_log {
        pin(&home, role, &made)?;
    }
    let (log_key, witness_key) = made;
    let mut text = format!("Made the {role}'s compartment with the log key {log_key}\n");
    if has_log {
        text += "Its log goes on under that key once `amc ledger succeed` has begun the next one\n";
    }
    let data = json!({
        "role": role, "log_key": log_key, "witness_key": witness_key, "succeed": has_log,
    });
    Ok(Answer::new(&data, text))
}

fn is_pinned(policy: &TrustPolicy, role: Role) -> bool {
    policy.logs().iter().any(|key| role_of_origin(key.name()) == Some(role))
}

fn auditor(
    home: &Home,
    workspace: &WorkspaceName,
    passphrase: &[u8],
    has_log: bool,
) -> Result<(String, String), Failure> {
    let keys = create_compartment(home, workspace, &parsed(passphrase)?)?;
    let made = (keys.log.verifier_key().to_string(), keys.witness.verifier_key().to_string());
    if !has_log {
        create_log(home, keys)?;
    }
    Ok(made)
}

fn pin(home: &Home, role: Role, (log_key, witness_key): &(String, String)) -> Result<(), Failure> {
    let path = home.trust_policy_path();
    let old = std::fs::read_to_string(&path).map_err(Failure::wrong)?;
    let new = pins::with_role(&old, role, log_key, witness_key);
    TrustPolicy::parse(new.as_bytes()).map_err(|error| {
        Failure::wrong(format!(
            "{}: add these two lines yourself, since the file is of no shape known here ({error}):\n\
             log {log_key}\nwitness {role}-witness {witness_key}",
            path.display()
        ))
    })?;
    home::write_atomic(&path, new.as_bytes()).map_err(Failure::unable)
}
