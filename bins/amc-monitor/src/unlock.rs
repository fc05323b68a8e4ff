//! From a home and a passphrase to keys and an open log.

use std::path::PathBuf;
use std::sync::Arc;

use amc_core::kinds::Role;
use amc_core::{Clock, Finding, FindingCode, WorkspaceName};
use amc_crypto::TrustPolicy;
use amc_ledger::{OpenError, Signers, Writer};
use amc_vault::{CommitmentKey, MonitorKeys, Passphrase, ReceiptKey, Secrets, Vault, VaultError, WitnessKey};
use amc_workspace::home::{self, Home};
use amc_workspace::passphrase::{self, Source};
use amc_workspace::{Failure, SystemClock};

/// What the command line says about home and passphrase.
pub(crate) struct Opening {
    pub(crate) home: Option<PathBuf>,
    pub(crate) passphrase_file: Option<PathBuf>,
}

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
}

impl Opening {
    pub(crate) fn home(&self) -> Result<Home, Failure> {
        let variable = std::env::var_os("AMC_HOME").map(PathBuf::from);
        let here = std::env::current_dir().map_err(Failure::unable)?;
        Home::find(self.home.as_deref(), variable.as_deref(), &here).map_err(Failure::wrong)
    }

    pub(crate) fn passphrase(&self, is_new: bool) -> Result<Passphrase, Failure> {
        let source = Source { file: self.passphrase_file.clone(), is_new };
        let mut line = passphrase::read(Role::Monitor, &source)?;
        Passphrase::from_line(std::mem::take(&mut *line)).map_err(Failure::wrong)
    }

    /// The vault of a home, for the workspace that its policy pins.
    pub(crate) fn vault(home: &Home, policy: &TrustPolicy) -> Result<Vault, Failure> {
        let pinned = home.pinned_log(policy, Role::Monitor).map_err(Failure::wrong)?;
        let workspace: Option<WorkspaceName> = home::workspace_of(&pinned);
        let workspace = workspace.ok_or_else(|| Failure::wrong("trust.policy names no workspace"))?;
        Ok(Vault::at(home.vault(), workspace))
    }

    pub(crate) fn unlock(&self) -> Result<Unlocked, Failure> {
        let home = self.home()?;
        let policy = home.trust_policy().map_err(Failure::wrong)?;
        let vault = Self::vault(&home, &policy)?;
        let passphrase = self.passphrase(false)?;
        let keys = vault.unlock_monitor(&passphrase).map_err(|error| vault_failure(&error))?;
        drop(passphrase);
        let clock = Arc::new(SystemClock::new().map_err(Failure::unable)?);
        let MonitorKeys { log, receipts, witness, commitments, secrets } = keys;
        let log = Arc::new(log);
        let signers = Signers { event: log.clone(), checkpoint: log };
        let writer_clock: Arc<dyn Clock> = clock.clone();
        let writer = Writer::open(&home.log(Role::Monitor), signers, writer_clock).map_err(open_failure)?;
        Ok(Unlocked { home, policy, writer, clock, receipts, witness, commitments, secrets })
    }
}

/// Seconds since the epoch.
pub(crate) fn now_s(clock: &SystemClock) -> u64 {
    u64::try_from(clock.now().wall_ns / 1_000_000_000).unwrap_or(0)
}

pub(crate) fn vault_failure(error: &VaultError) -> Failure {
    let message = error.to_string();
    let finding = |code| Finding::error(code, "vault.amcvault", &message);
    match error {
        VaultError::Missing(_) | VaultError::NoCompartment { .. } => Failure::wrong(&message),
        VaultError::Permissions { .. } => Failure::unable(&message).with(finding(FindingCode::VaultPermissions)),
        VaultError::Damaged { .. } | VaultError::Cost { .. } => {
            Failure::wrong(&message).with(finding(FindingCode::VaultDamaged))
        }
        _ => Failure::unable(&message).with(finding(FindingCode::VaultLocked)),
    }
}

pub(crate) fn open_failure(error: OpenError) -> Failure {
    match error {
        OpenError::Refused(ref finding) => {
            let finding = finding.clone();
            Failure::bad(&error).with(finding)
        }
        OpenError::Absent(_) => Failure::wrong(error),
        other => Failure::unable(other),
    }
}
