//! The monitor's part of a new home: its compartment of the vault and the evidence log.

use std::sync::Arc;

use amc_core::kinds::{LogOpened, Role};
use amc_core::{SOFTWARE, WorkspaceName};
use amc_crypto::signer::{CheckpointSigner, Cosigner as _, EventSigner as _};
use amc_crypto::{TrustPolicy, VerifierKey};
use amc_ledger::Signers;
use amc_vault::{LogKey, ScryptParams, Vault, WitnessKey};
use amc_workspace::home::{self, Home, HomeError};
use amc_workspace::{Answer, Failure, Opening, SystemClock, hardening};
use serde::Serialize;

use crate::unlock::{log_failure, passphrase, vault_failure};

#[derive(Serialize)]
struct Created {
    home: String,
    workspace: WorkspaceName,
    log_key: String,
    witness_key: String,
}

pub(crate) fn init(opening: &Opening, name: &WorkspaceName) -> Result<Answer, Failure> {
    hardening::protect()?;
    let root = opening.new_home();
    let (home, alone) = match Home::create(&root) {
        Ok(home) => (home, true),
        // `amc-auditor init` has made it and calls this for its monitor.
        Err(HomeError::Exists(_)) => (Home::open(&root).map_err(Failure::wrong)?, false),
        Err(error) => return Err(Failure::wrong(error)),
    };
    let made = create(&home, name, opening)?;
    if alone {
        pin_own(&home, &made)?;
    }
    let text = format!("Created the monitor of {name} with the log key {}\n", made.log_key);
    Ok(Answer::new(&made, text))
}

/// A home with the monitor alone begins with its own keys; the auditor's come by `amc trust pin`.
fn pin_own(home: &Home, made: &Created) -> Result<(), Failure> {
    let key = |text: &str| text.parse::<VerifierKey>().map_err(Failure::unable);
    let policy = TrustPolicy::for_roles(&[key(&made.log_key)?], &[(Role::Monitor, key(&made.witness_key)?)]);
    home::write_atomic(&home.trust_policy_path(), policy.as_bytes()).map_err(Failure::unable)
}

/// `vault init`: the compartment, and the log where there is none. Where there is one, it goes on under
/// the new key as a successor.
pub(crate) fn add(opening: &Opening) -> Result<Answer, Failure> {
    let (home, _, workspace) = opening.workspace()?;
    hardening::protect()?;
    let made = create(&home, &workspace, opening)?;
    let text = format!("Made the monitor's compartment with the log key {}\n", made.log_key);
    Ok(Answer::new(&made, text))
}

fn create(home: &Home, name: &WorkspaceName, opening: &Opening) -> Result<Created, Failure> {
    let vault = Vault::at(home.vault(), name.clone());
    let passphrase = passphrase(opening, true)?;
    let params = ScryptParams::calibrated(hardening::memory_bytes());
    let made = if home.vault().exists() {
        vault.add_compartment(Role::Monitor, &passphrase, params)
    } else {
        vault.create(Role::Monitor, &passphrase, params)
    };
    let (log, witness) = made.map_err(|error| vault_failure(&error))?.into_log_and_witness();
    let created = Created {
        home: home.root().display().to_string(),
        workspace: name.clone(),
        log_key: CheckpointSigner::verifier_key(&log).to_string(),
        witness_key: witness.verifier_key().to_string(),
    };
    let dir = home.log(Role::Monitor);
    if dir.join("segments").is_dir() {
        return Ok(created);
    }
    let opened = log_opened(&log, &witness);
    let log = Arc::new(log);
    let signers = Signers { event: log.clone(), checkpoint: log };
    let clock = SystemClock::new().map_err(Failure::unable)?;
    amc_ledger::create(&dir, opened, &signers, &clock).map_err(|error| log_failure(&error))?;
    Ok(created)
}

/// The first event of a monitor's first log.
pub(crate) fn log_opened(log: &LogKey, witness: &WitnessKey) -> LogOpened {
    LogOpened {
        origin: log.origin().to_owned(),
        role: Role::Monitor,
        log_public: log.public_key().to_digest(),
        witness_public: witness.verifier_key().public().to_digest(),
        software: SOFTWARE.to_owned(),
        predecessor: None,
    }
}
