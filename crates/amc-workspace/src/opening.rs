//! What every trusted process does first: find the home, read its trust policy, get a passphrase.

use std::path::PathBuf;

use amc_core::kinds::{Fields, KeyPurpose, Role};
use amc_core::{Clock as _, Digest, Finding, FindingCode, WorkspaceName};
use amc_crypto::TrustPolicy;
use amc_evidence::Event;
use zeroize::Zeroizing;

use crate::answer::{Exit, Failure};
use crate::clock::SystemClock;
use crate::home::{self, Home, HomeError};
use crate::passphrase::{self, Source};

/// What the command line says about home and passphrase.
#[derive(Debug, Clone, Default)]
pub struct Opening {
    /// `--home`.
    pub home: Option<PathBuf>,
    /// `--passphrase-file`, or the auditor's own for the auditor.
    pub passphrase_file: Option<PathBuf>,
    /// `--passphrase-file` of the monitor beside an auditor that has one of its own.
    pub monitor_passphrase_file: Option<PathBuf>,
}

impl Opening {
    /// The home that is meant: the flag, `AMC_HOME`, or the nearest `.amc` upward.
    ///
    /// # Errors
    /// [`Failure`] (2) when there is none or others can use it.
    pub fn home(&self) -> Result<Home, Failure> {
        let variable = std::env::var_os("AMC_HOME").map(PathBuf::from);
        let here = std::env::current_dir().map_err(Failure::unable)?;
        Home::find(self.home.as_deref(), variable.as_deref(), &here).map_err(|error| home_failure(&error))
    }

    /// Where a new home goes: the flag, `AMC_HOME`, or `.amc` here.
    pub fn new_home(&self) -> PathBuf {
        let variable = || std::env::var_os("AMC_HOME").map(PathBuf::from);
        self.home.clone().or_else(variable).unwrap_or_else(|| PathBuf::from(".amc"))
    }

    /// The home, its trust policy, and the workspace whose logs that pins.
    ///
    /// # Errors
    /// [`Failure`] (2) when one of them cannot be read.
    pub fn workspace(&self) -> Result<(Home, TrustPolicy, WorkspaceName), Failure> {
        let home = self.home()?;
        let policy = home.trust_policy().map_err(Failure::wrong)?;
        let workspace = policy.logs().iter().find_map(home::workspace_of);
        let workspace = workspace.ok_or_else(|| Failure::wrong("trust.policy pins no log of a workspace"))?;
        Ok((home, policy, workspace))
    }

    /// The bytes of a role's passphrase, its line ending included. Signers only.
    ///
    /// # Errors
    /// [`Failure`] (3) when there is none.
    pub fn passphrase(&self, role: Role, is_new: bool) -> Result<Zeroizing<Vec<u8>>, Failure> {
        passphrase::read(role, &Source { file: self.passphrase_file.clone(), is_new })
    }
}

/// A home that cannot be used; one that is open to others has the vault's code for that.
pub fn home_failure(error: &HomeError) -> Failure {
    let failure = Failure::wrong(error);
    match error {
        HomeError::Permissions { path, .. } => {
            let code = FindingCode::VaultPermissions;
            failure.with(Finding::error(code, path.display().to_string(), error.to_string()))
        }
        _ => failure,
    }
}

/// A failure of the vault, by the code that it has.
pub fn vault_failure(error: &dyn std::error::Error, code: Option<FindingCode>) -> Failure {
    let message = error.to_string();
    let exit = match code {
        None | Some(FindingCode::VaultDamaged) => Exit::Wrong,
        Some(_) => Exit::Unable,
    };
    let findings = code.map(|code| Finding::error(code, "vault.amcvault", &message)).into_iter().collect();
    Failure { exit, findings, message }
}

/// A log that did not open: refused by what it contains, or not possible now.
pub fn log_failure(error: &dyn std::error::Error, finding: Option<&Finding>) -> Failure {
    let exit = if finding.is_some() { Exit::Bad } else { Exit::Unable };
    Failure { exit, findings: finding.cloned().into_iter().collect(), message: error.to_string() }
}

/// The newest key of this purpose that events of a role's own log name; `None` when it never changed.
/// Whoever asks holds the keys and only wants to know how far a rotation of his own came.
pub fn newest_key(bodies: impl Iterator<Item = Vec<u8>>, purpose: KeyPurpose) -> Option<Digest> {
    let named = bodies.filter_map(|body| match Event::decode(&body) {
        Ok((_, Some(Fields::KeyRotated(rotated)))) if rotated.purpose == purpose => Some(rotated.public),
        _ => None,
    });
    named.last()
}

/// Seconds since the epoch.
pub fn now_s(clock: &SystemClock) -> u64 {
    u64::try_from(clock.now().wall_ns / 1_000_000_000).unwrap_or(0)
}
