//! From a home and a passphrase to the auditor's keys and its open log.

use std::sync::Arc;

use amc_core::kinds::Fields;
use amc_core::kinds::{ConfigSigned, Role};
use amc_core::{AgentId, Clock, Tier, WorkspaceName};
use amc_crypto::config::{self, ConfigPredicate};
use amc_crypto::signer::StatementSigner as _;
use amc_crypto::{PublicKey, TrustPolicy};
use amc_evidence::Draft;
use amc_evidence::Event;
use amc_ledger::{LogReader, OpenError, Signers, Writer};
use amc_vault::{AuditorKeys, EnvelopeKey, Passphrase, Vault, VaultError, WitnessKey};
use amc_workspace::home::{self, Home};
use amc_workspace::opening::{self, Opening};
use amc_workspace::passphrase::{self, Source};
use amc_workspace::{Failure, SystemClock};
use zeroize::Zeroizing;

/// The auditor, unlocked, with its log open for writing.
pub(crate) struct Unlocked {
    pub(crate) home: Home,
    pub(crate) policy: TrustPolicy,
    pub(crate) workspace: WorkspaceName,
    pub(crate) writer: Writer,
    pub(crate) clock: Arc<SystemClock>,
    pub(crate) envelopes: EnvelopeKey,
    pub(crate) witness: WitnessKey,
    /// For the monitor beside us: its own where one was named, else ours, which may serve both.
    pub(crate) passphrase: Zeroizing<Vec<u8>>,
}

pub(crate) fn unlock(opening: &Opening) -> Result<Unlocked, Failure> {
    let (home, policy, workspace) = opening.workspace()?;
    let line = opening.passphrase(Role::Auditor, false)?;
    let keys = Vault::at(home.vault(), workspace.clone()).unlock_auditor(&parsed(&line)?);
    let keys = keys.map_err(|error| vault_failure(&error))?;
    let beside = opening.monitor_passphrase_file.clone();
    let passphrase = match beside {
        None => line,
        file => passphrase::read(Role::Monitor, &Source { file, is_new: false })?,
    };
    open(home, policy, workspace, keys, passphrase)
}

/// Opens the audit log with keys that are unlocked already.
pub(crate) fn open(
    home: Home,
    policy: TrustPolicy,
    workspace: WorkspaceName,
    keys: AuditorKeys,
    passphrase: Zeroizing<Vec<u8>>,
) -> Result<Unlocked, Failure> {
    let AuditorKeys { log, envelopes, witness } = keys;
    let log = Arc::new(log);
    let signers = Signers { event: log.clone(), checkpoint: log };
    let clock = Arc::new(SystemClock::new().map_err(Failure::unable)?);
    let writer_clock: Arc<dyn Clock> = clock.clone();
    let writer = Writer::open(&home.log(Role::Auditor), signers, writer_clock).map_err(|error| log_failure(&error))?;
    Ok(Unlocked { home, policy, workspace, writer, clock, envelopes, witness, passphrase })
}

pub(crate) fn parsed(line: &[u8]) -> Result<Passphrase, Failure> {
    Passphrase::from_line(line.to_vec()).map_err(Failure::wrong)
}

pub(crate) fn vault_failure(error: &VaultError) -> Failure {
    opening::vault_failure(error, error.code())
}

pub(crate) fn log_failure(error: &OpenError) -> Failure {
    opening::log_failure(error, error.finding())
}

impl Unlocked {
    /// The key whose envelopes count as this auditor's.
    pub(crate) fn public_key(&self) -> PublicKey {
        self.envelopes.public_key()
    }

    /// Signs a file as the next version of its path: `.sig` beside it, entry in the audit log.
    pub(crate) fn sign_config(&self, path: &str, agent: Option<&AgentId>, bytes: &[u8]) -> Result<u64, Failure> {
        let version = self.newest_version(path)? + 1;
        let predicate = ConfigPredicate { path: path.to_owned(), version, agent: agent.cloned() };
        let sha256 = amc_crypto::sha256(bytes);
        let envelope =
            self.envelopes.sign_statement(&config::statement(&predicate, sha256)).map_err(Failure::unable)?;
        let entry = ConfigSigned { path: path.to_owned(), version, sha256, agent: agent.cloned() };
        self.writer.append(Draft::new(Tier::Observed, entry), None).map_err(Failure::unable)?;
        home::write_atomic(&self.home.file(&format!("{path}.sig")), envelope.to_json().as_bytes())
            .map_err(Failure::unable)?;
        Ok(version)
    }

    fn newest_version(&self, path: &str) -> Result<u64, Failure> {
        self.writer.publish().map_err(Failure::unable)?;
        let reader = LogReader::open(&self.home.log(Role::Auditor)).map_err(Failure::unable)?;
        let mut newest = 0;
        for stored in reader.events(0) {
            let stored = stored.map_err(Failure::unable)?;
            let (_, fields) = Event::decode(&stored.signed.body).map_err(Failure::unable)?;
            if let Some(Fields::ConfigSigned(signed)) = fields
                && signed.path == path
            {
                newest = newest.max(signed.version);
            }
        }
        Ok(newest)
    }
}
