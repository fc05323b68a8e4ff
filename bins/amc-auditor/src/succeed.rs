//! `ledger succeed`: ends a log that cannot go on and begins the next one, with both roles: the log's own
//! begins it, the other one looks for itself and records it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use amc_core::kinds::{LogHead, LogSucceeded, Role};
use amc_crypto::VerifierKey;
use amc_crypto::signer::{Cosigner as _, EventSigner as _};
use amc_ledger::Signers;
use amc_ledger::line::{Statements, gather, line_of};
use amc_ledger::succeed::{self, Begun, SucceedError};
use amc_vault::{AuditorKeys, LogNumber, Vault};
use amc_workspace::home::Home;
use amc_workspace::passphrase::{self, Source};
use amc_workspace::{Answer, Failure, Opening, SystemClock, hardening};
use clap::Args;
use serde_json::json;
use zeroize::Zeroizing;

use crate::monitor;
use crate::unlock::{self, log_failure, unlock, vault_failure};

/// Which log, and where the other role's part is.
#[derive(Args)]
pub(crate) struct Plan {
    /// Which log cannot go on.
    #[arg(long, value_parser = ["evidence", "audit"], default_value = "evidence")]
    log: String,
    /// The new evidence log, where it is not in this home.
    #[arg(long, value_name = "DIR")]
    evidence: Option<PathBuf>,
    /// The new log's key, compared with its owner; needed where the old one was revoked.
    #[arg(long, value_name = "VKEY")]
    key: Option<VerifierKey>,
}

pub(crate) fn succeed(opening: &Opening, plan: &Plan) -> Result<Answer, Failure> {
    match plan.log.as_str() {
        "audit" => audit(opening),
        _ => evidence(opening, plan),
    }
}

/// The monitor begins the next evidence log, this auditor records and cosigns it.
fn evidence(opening: &Opening, plan: &Plan) -> Result<Answer, Failure> {
    let home = opening.home()?;
    let mut key = plan.key.clone();
    if plan.evidence.is_none() {
        let passphrase = monitors_passphrase(opening)?;
        let begun = monitor::call(home.root(), &["ledger", "succeed", "--log", "evidence"], &passphrase);
        let begun = begun.map_err(Failure::unable)?;
        key = key.or_else(|| begun["data"]["key"].as_str()?.parse().ok());
    }
    let mut unlocked = unlock(opening)?;
    let (_, policy, _) = opening.workspace()?;
    let new = plan.evidence.clone().unwrap_or_else(|| home.log(Role::Monitor));
    let dirs = [line_of(&new, Role::Monitor), line_of(&home.log(Role::Auditor), Role::Auditor)].concat();
    let statements = gather(&policy, &dirs).map_err(Failure::unable)?;
    let old = before(&new, Role::Monitor)?;
    let said = succeed::record(&unlocked.writer, (&old, &new), &statements, key.as_ref()).map_err(failure)?;
    unlocked.writer.publish().map_err(Failure::unable)?;
    unlocked.policy = gather(&policy, &dirs).map_err(Failure::unable)?.policy;
    unlocked.cosign(&new)?;
    unlocked.writer.close().map_err(Failure::unable)?;
    let cosigned = monitor::cosign(&home, &unlocked.passphrase);
    Ok(answer("evidence", &said, &new, cosigned.err().as_deref()))
}

/// This auditor begins the next audit log, the monitor records it.
fn audit(opening: &Opening) -> Result<Answer, Failure> {
    let home = opening.home()?;
    let monitors = monitors_passphrase(opening)?;
    let begun = begin(opening, &home)?;
    let arguments = ["ledger", "succeed", "--log", "audit", "--key", &begun.key.to_string()];
    let recorded = monitor::call(home.root(), &arguments, &monitors);
    recorded.map_err(|why| Failure::unable(format!("{} was begun and is not recorded: {why}", begun.origin)))?;
    let unlocked = unlock(opening)?;
    let newest = home.log(Role::Monitor);
    let cosigned = if newest.is_dir() { Some(unlocked.cosign(&newest)?) } else { None };
    unlocked.writer.close().map_err(Failure::unable)?;
    let uncosigned = monitor::cosign(&home, &unlocked.passphrase).err();
    drop(cosigned);
    let said = LogSucceeded {
        old: begun.old,
        origin: begun.origin,
        log_public: begun.key.public().to_digest(),
        opening: begun.opening,
        code: String::new(),
        reason: String::new(),
    };
    Ok(answer("audit", &said, &begun.dir, uncosigned.as_deref()))
}

fn begin(opening: &Opening, home: &Home) -> Result<Begun, Failure> {
    let (_, policy, workspace) = opening.workspace()?;
    hardening::protect()?;
    let line = opening.passphrase(Role::Auditor, false)?;
    // The log does not open, so nobody can ask it which key is in force: the vault's is.
    let keys = Vault::at(home.vault(), workspace).unlock_auditor(&unlock::parsed(&line)?);
    let AuditorKeys { log, witness, .. } = keys.map_err(|error| vault_failure(&error))?;
    let dirs =
        [line_of(&home.log(Role::Monitor), Role::Monitor), line_of(&home.log(Role::Auditor), Role::Auditor)].concat();
    let statements = gather(&policy, &dirs).map_err(Failure::unable)?;
    let [(old_number, old), (new_number, new)] = next(home, &statements)?;
    let named = |number: u32| {
        let number = LogNumber::successor(number).unwrap_or(LogNumber::FIRST);
        Arc::new(log.handle().of_log(number))
    };
    let old_key = statements.policy.log(named(old_number).origin());
    let old_key = old_key.ok_or_else(|| failure(SucceedError::Untrusted(old.clone())))?;
    let key = named(new_number);
    let signers = Signers { event: key.clone(), checkpoint: key };
    let clock = Arc::new(SystemClock::new().map_err(Failure::unable)?);
    let witness = witness.verifier_key().public();
    succeed::begin((&old, old_key), &new, &statements, (&signers, witness), clock).map_err(failure)
}

fn next(home: &Home, statements: &Statements) -> Result<[(u32, PathBuf); 2], Failure> {
    let newest = home.log(Role::Auditor);
    let next = succeed::next_of(&newest, Role::Auditor, statements);
    next.ok_or_else(|| failure(SucceedError::Untrusted(newest)))
}

/// The directory of the log before this one.
fn before(new: &Path, role: Role) -> Result<PathBuf, Failure> {
    let number = new.file_name().and_then(|name| role.log_number(name.to_str()?)).filter(|number| *number > 1);
    let number = number.ok_or_else(|| {
        let what = "is no successor: the next log of evidence is in a directory evidence-2, with evidence beside it";
        Failure::wrong(format!("{} {what}", new.display()))
    })?;
    Ok(new.with_file_name(role.log_dir(number - 1)))
}

/// The monitor's own passphrase where one was named, else the one that serves both.
fn monitors_passphrase(opening: &Opening) -> Result<Zeroizing<Vec<u8>>, Failure> {
    match opening.monitor_passphrase_file.clone() {
        None => opening.passphrase(Role::Auditor, false),
        file => passphrase::read(Role::Monitor, &Source { file, is_new: false }),
    }
}

fn answer(log: &str, said: &LogSucceeded, dir: &Path, uncosigned: Option<&str>) -> Answer {
    let LogHead { origin: old, size, .. } = &said.old;
    let data = json!({ "log": log, "origin": said.origin, "dir": dir, "predecessor": said.old, "recorded": true });
    let mut text = format!(
        "{old} ended at size {size}; {} goes on in {}. Sessions of the old log no longer count\n",
        said.origin,
        dir.display()
    );
    if let Some(why) = uncosigned {
        text += &format!("The monitor has not cosigned the audit log yet ({why})\n");
    }
    Answer::new(&data, text)
}

fn failure(error: SucceedError) -> Failure {
    match error {
        SucceedError::Open(error) => log_failure(&error),
        SucceedError::Healthy { .. } | SucceedError::Append(_) | SucceedError::SameKey => Failure::unable(error),
        error => Failure::bad(error),
    }
}
