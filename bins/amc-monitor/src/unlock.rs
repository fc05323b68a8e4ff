//! From a home and a passphrase to the monitor's keys and its open log.

use std::sync::Arc;

use amc_core::kinds::{KeyPurpose, Role};
use amc_core::{FindingCode, WorkspaceName};
use amc_crypto::TrustPolicy;
use amc_crypto::signer::{Cosigner as _, EventSigner as _};
use amc_ledger::{LogReader, OpenError, ReadError, Signers, Writer, line};
use amc_vault::{
    CommitmentKey, LogKey, LogNumber, MonitorKeys, Passphrase, PassphraseCheck, ReceiptKey, Secrets, Vault, VaultError,
    WitnessKey,
};
use amc_workspace::home::Home;
use amc_workspace::opening::{self, Opening};
use amc_workspace::{Failure, SystemClock, hardening};

/// The monitor, unlocked, with its log open for writing.
pub(crate) struct Unlocked {
    pub(crate) home: Home,
    pub(crate) policy: TrustPolicy,
    pub(crate) writer: Writer,
    pub(crate) clock: Arc<SystemClock>,
    pub(crate) receipts: ReceiptKey,
    pub(crate) witness: WitnessKey,
    pub(crate) commitments: CommitmentKey,
    pub(crate) secrets: Secrets,
    /// To find the passphrase lying about, without keeping it.
    pub(crate) passphrase: PassphraseCheck,
}

pub(crate) fn unlock(opening: &Opening) -> Result<Unlocked, Failure> {
    let (home, policy, workspace) = opening.workspace()?;
    hardening::protect()?;
    let passphrase = passphrase(opening, false)?;
    let keys = unlock_with(&home, &workspace, &passphrase)?.of_log(log_number(&home));
    let MonitorKeys { log, receipts, witness, commitments, secrets, next: _ } = keys;
    let check = passphrase.check();
    drop(passphrase);
    let clock = Arc::new(SystemClock::new().map_err(Failure::unable)?);
    let writer = open_log(&home, log, Arc::clone(&clock)).map_err(|error| log_failure(&error))?;
    let policy = line::learned(&policy, &home.log(Role::Monitor), &home.log(Role::Auditor)).map_err(Failure::unable)?;
    Ok(Unlocked { home, policy, writer, clock, receipts, witness, commitments, secrets, passphrase: check })
}

impl Unlocked {
    /// The pinned keys with what they signed since: the auditor may have changed its own while this runs.
    pub(crate) fn policy_now(&self) -> Result<TrustPolicy, ReadError> {
        line::learned(&self.policy, &self.home.log(Role::Monitor), &self.home.log(Role::Auditor))
    }
}

/// Unlocks the compartment and finishes what a crash left of a rotation: which key is in force is
/// what the log says.
pub(crate) fn unlock_with(
    home: &Home,
    workspace: &WorkspaceName,
    passphrase: &Passphrase,
) -> Result<MonitorKeys, Failure> {
    let vault = Vault::at(home.vault(), workspace.clone());
    let mut keys = vault.unlock_monitor(passphrase).map_err(|error| vault_failure(&error))?;
    let finish = |purpose, public| {
        let finished = vault.finish_rotation(Role::Monitor, passphrase, purpose, public);
        finished.map_err(|error| vault_failure(&error))
    };
    if let Some(next) = keys.next.log.as_ref().map(LogKey::handle) {
        let clock = Arc::new(SystemClock::new().map_err(Failure::unable)?);
        match open_log(home, keys.log.handle(), Arc::clone(&clock)) {
            Ok(writer) => drop(writer),
            Err(error) if error.code() == Some(FindingCode::KeyOutOfValidity) => {
                // Only a log that goes on with the next key says that the old one can be erased.
                let public = next.public_key();
                drop(open_log(home, next, clock).map_err(|error| log_failure(&error))?);
                finish(KeyPurpose::Log, public)?;
                keys = keys.advance_log();
            }
            Err(error) => return Err(log_failure(&error)),
        }
    }
    if let Some(public) = keys.next.witness.as_ref().map(|key| key.verifier_key().public()) {
        let log = LogReader::open(&home.log(Role::Monitor)).map_err(Failure::unable)?;
        let events = log.events(0).filter_map(|stored| Some(stored.ok()?.signed.body));
        if opening::newest_key(events, KeyPurpose::Witness) == Some(public.to_digest()) {
            finish(KeyPurpose::Witness, public)?;
            keys = keys.advance_witness();
        }
    }
    Ok(keys)
}

/// Opens the role's log that is in force, with the key as that log's.
pub(crate) fn open_log(home: &Home, key: LogKey, clock: Arc<SystemClock>) -> Result<Writer, OpenError> {
    let key = Arc::new(key.of_log(log_number(home)));
    let signers = Signers { event: key.clone(), checkpoint: key };
    Writer::open(&home.log(Role::Monitor), signers, clock)
}

/// Which of the role's logs is in force.
pub(crate) fn log_number(home: &Home) -> LogNumber {
    LogNumber::successor(home.log_number(Role::Monitor)).unwrap_or(LogNumber::FIRST)
}

pub(crate) fn vault(home: &Home, workspace: WorkspaceName) -> Vault {
    Vault::at(home.vault(), workspace)
}

pub(crate) fn passphrase(opening: &Opening, is_new: bool) -> Result<Passphrase, Failure> {
    let mut line = opening.passphrase(Role::Monitor, is_new)?;
    Passphrase::from_line(std::mem::take(&mut *line)).map_err(Failure::wrong)
}

pub(crate) fn vault_failure(error: &VaultError) -> Failure {
    opening::vault_failure(error, error.code())
}

pub(crate) fn log_failure(error: &OpenError) -> Failure {
    opening::log_failure(error, error.finding())
}
