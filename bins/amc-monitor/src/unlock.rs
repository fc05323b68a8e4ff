//! From a home and a passphrase to the monitor's keys and its open log.

use std::sync::Arc;

use amc_core::kinds::Role;
use amc_core::{Clock, WorkspaceName};
use amc_crypto::TrustPolicy;
use amc_ledger::{OpenError, Signers, Writer};
use amc_vault::{
    CommitmentKey, MonitorKeys, Passphrase, PassphraseCheck, ReceiptKey, Secrets, Vault, VaultError, WitnessKey,
};
use amc_workspace::home::Home;
use amc_workspace::opening::{self, Opening};
use amc_workspace::{Failure, SystemClock};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

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
    // An agent of the same user must not trace this process or read its memory.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| Failure::unable(error.to_string()))?;
    let passphrase = passphrase(opening, false)?;
    let keys = vault(&home, workspace).unlock_monitor(&passphrase);
    let MonitorKeys { log, receipts, witness, commitments, secrets } = keys.map_err(|error| vault_failure(&error))?;
    let check = passphrase.check();
    drop(passphrase);
    let log = Arc::new(log);
    let signers = Signers { event: log.clone(), checkpoint: log };
    let clock = Arc::new(SystemClock::new().map_err(Failure::unable)?);
    let writer_clock: Arc<dyn Clock> = clock.clone();
    let writer = Writer::open(&home.log(Role::Monitor), signers, writer_clock).map_err(|error| log_failure(&error))?;
    Ok(Unlocked { home, policy, writer, clock, receipts, witness, commitments, secrets, passphrase: check })
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
