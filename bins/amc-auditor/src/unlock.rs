//! From a home and a passphrase to the auditor's keys and its open log.

use std::sync::{Arc, Mutex, PoisonError};

use amc_core::kinds::{ConfigSigned, Fields, KeyPurpose, Role};
use amc_core::{AgentId, Finding, FindingCode, Tier, WorkspaceName};
use amc_crypto::TrustPolicy;
use amc_crypto::config::{self, ConfigPredicate};
use amc_crypto::signer::{Cosigner as _, EventSigner as _, StatementSigner as _};
use amc_evidence::Draft;
use amc_evidence::Event;
use amc_ledger::{LogReader, OpenError, Signers, Writer, line};
use amc_vault::{AuditorKeys, EnvelopeKey, LogKey, LogNumber, Passphrase, Vault, VaultError, WitnessKey};
use amc_workspace::home::{self, Home};
use amc_workspace::opening::{self, Opening};
use amc_workspace::passphrase::{self, Source};
use amc_workspace::{Failure, SignedFile, SystemClock, hardening};
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
    /// How the monitor beside us is asked.
    pub(crate) passphrase: Beside,
}

/// How the monitor beside this auditor can be asked to cosign.
pub(crate) enum Beside {
    /// The running one, else one that is started for a moment with this passphrase: its own where one
    /// was named, else ours, which may serve both.
    Passphrase(Zeroizing<Vec<u8>>),
    /// The running one alone: this process holds the auditor's keys and nobody's passphrase.
    Running,
}

/// Keys that this process holds from one verb to the next. A process is a key holder or it is not;
/// every verb gets at keys through [`unlock`] alone, so here is where a holder keeps them.
static HELD: Mutex<Option<AuditorKeys>> = Mutex::new(None);

/// From now on verbs of this process use these keys; with `None` they are forgotten.
pub(crate) fn hold(keys: Option<AuditorKeys>) {
    *HELD.lock().unwrap_or_else(PoisonError::into_inner) = keys;
}

pub(crate) fn unlock(opening: &Opening) -> Result<Unlocked, Failure> {
    let (home, policy, workspace) = opening.workspace()?;
    hardening::protect()?;
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(AuditorKeys::handles);
    if let Some(keys) = held {
        return open(home, &policy, workspace, keys, Beside::Running);
    }
    let line = opening.passphrase(Role::Auditor, false)?;
    let own = parsed(&line)?;
    let passphrase = match opening.monitor_passphrase_file.clone() {
        None => line,
        file => passphrase::read(Role::Monitor, &Source { file, is_new: false })?,
    };
    let keys = unlock_with(&home, &workspace, &own)?;
    open(home, &policy, workspace, keys, Beside::Passphrase(passphrase))
}

/// Unlocks the compartment and finishes what a crash left of a rotation: which key is in force is
/// what the log says.
pub(crate) fn unlock_with(
    home: &Home,
    workspace: &WorkspaceName,
    passphrase: &Passphrase,
) -> Result<AuditorKeys, Failure> {
    let vault = Vault::at(home.vault(), workspace.clone());
    let mut keys = vault.unlock_auditor(passphrase).map_err(|error| vault_failure(&error))?;
    let finish = |purpose, public| {
        let finished = vault.finish_rotation(Role::Auditor, passphrase, purpose, public);
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
        let log = LogReader::open(&home.log(Role::Auditor)).map_err(Failure::unable)?;
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
    Writer::open(&home.log(Role::Auditor), signers, clock)
}

/// Which of the role's logs is in force.
pub(crate) fn log_number(home: &Home) -> LogNumber {
    LogNumber::successor(home.log_number(Role::Auditor)).unwrap_or(LogNumber::FIRST)
}

/// Opens the audit log with keys that are unlocked already.
pub(crate) fn open(
    home: Home,
    policy: &TrustPolicy,
    workspace: WorkspaceName,
    keys: AuditorKeys,
    passphrase: Beside,
) -> Result<Unlocked, Failure> {
    let AuditorKeys { log, envelopes, witness, next: _ } = keys;
    let clock = Arc::new(SystemClock::new().map_err(Failure::unable)?);
    let writer = open_log(&home, log, Arc::clone(&clock)).map_err(|error| log_failure(&error))?;
    let policy = line::learned(policy, &home.log(Role::Monitor), &home.log(Role::Auditor)).map_err(Failure::unable)?;
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

    /// A signed file, refused where a newer version was signed since: an old one with its good signature
    /// is not what is in force.
    pub(crate) fn newest_signed(&self, path: &str, agent: Option<&AgentId>) -> Result<SignedFile, Failure> {
        let keys = self.home.auditor_keys(&self.policy).map_err(Failure::wrong)?;
        let file = SignedFile::load(&self.home, path, agent, &keys).map_err(Failure::wrong)?;
        if let Some(finding) = file.finding.clone() {
            return Err(Failure::bad(format!("{path} is not signed, so nothing rests on it")).with(finding));
        }
        let (version, newest) = (file.version.unwrap_or(0), self.newest_version(path)?);
        if version < newest {
            let what = format!("{path} is version {version}, and version {newest} was signed since");
            let finding = Finding::error(FindingCode::ConfigVersionRollback, path, what.clone());
            let next = format!("put version {newest} back, or sign this one anew with `amc config sign {path}`");
            return Err(Failure::bad(format!("{what}; {next}")).with(finding));
        }
        Ok(file)
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
