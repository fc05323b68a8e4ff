//! `amc vault`: which program carries a verb out. This one starts and stops what holds keys; whatever
//! needs a key or the vault's format is done by a signer.

use amc_workspace::protocol::holder::{Found, HolderClient};
use amc_workspace::{Answer, Failure, Opening};
use serde_json::{Value, json};

use crate::cli::{OneRole, Roles, RotatePlan, VaultVerb};
use crate::services;
use crate::signers::Signer;

/// What becomes of a verb.
pub(crate) enum Next {
    /// A signer goes on with it.
    Become(Signer, &'static str),
    /// It is done.
    Answer(&'static str, Result<Answer, Failure>),
}

pub(crate) fn run(opening: &Opening, verb: &VaultVerb) -> Next {
    match *verb {
        VaultVerb::Status => Next::Become(Signer::Auditor, "vault status"),
        VaultVerb::Init { .. } => Next::Become(Signer::Auditor, "vault init"),
        VaultVerb::ChangePassphrase { .. } => Next::Become(Signer::Auditor, "vault change-passphrase"),
        VaultVerb::Secret { .. } => Next::Become(Signer::Monitor, "vault secret"),
        VaultVerb::Unlock { role, idle: _ } => unlock(opening, role),
        VaultVerb::Lock { role } => Next::Answer("vault lock", lock(opening, role)),
        VaultVerb::RotateKeys(RotatePlan { role, revoke_from, .. }) => {
            // A stolen key is revoked by the other role.
            let signer = match (role, revoke_from) {
                (OneRole::Monitor, None) | (OneRole::Auditor, Some(_)) => Signer::Monitor,
                (OneRole::Auditor, None) | (OneRole::Monitor, Some(_)) => Signer::Auditor,
            };
            Next::Become(signer, "vault rotate-keys")
        }
    }
}

fn unlock(opening: &Opening, role: Roles) -> Next {
    const COMMAND: &str = "vault unlock";
    if role == Roles::Auditor {
        return Next::Become(Signer::Auditor, COMMAND);
    }
    match services::up(opening) {
        Ok(_) if role == Roles::All => Next::Become(Signer::Auditor, COMMAND),
        up => Next::Answer(COMMAND, up),
    }
}

/// The auditor's first: the monitor may have streams to finish.
fn lock(opening: &Opening, role: Roles) -> Result<Answer, Failure> {
    let home = opening.home()?;
    let mut locked: Vec<&str> = Vec::new();
    if role != Roles::Monitor {
        match HolderClient::find(&home) {
            Found::Nobody => {}
            Found::Stranger(why) => return Err(Failure::unable(why)),
            Found::Holder(holder) => {
                holder.lock()?;
                locked.push("auditor");
            }
        }
    }
    if role != Roles::Auditor && services::connect(&home)?.is_some() {
        services::down(opening)?;
        locked.push("monitor");
    }
    let text = match locked.as_slice() {
        [] => "Nothing was unlocked\n".to_owned(),
        roles => format!("Locked: {}\n", roles.join(", ")),
    };
    let data: Value = json!({ "locked": locked });
    Ok(Answer::new(&data, text))
}
