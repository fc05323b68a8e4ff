//! `ledger succeed`: the monitor begins the successor of an evidence log that cannot go on, and records
//! the successor of an audit log that the auditor began.

use std::path::PathBuf;
use std::sync::Arc;

use amc_core::kinds::Role;
use amc_crypto::VerifierKey;
use amc_crypto::signer::Cosigner as _;
use amc_ledger::Signers;
use amc_ledger::line::{Statements, gather, line_of};
use amc_ledger::succeed::{self, SucceedError};
use amc_vault::{LogNumber, MonitorKeys};
use amc_workspace::home::Home;
use amc_workspace::{Answer, Failure, Opening, SystemClock, hardening};
use serde_json::json;

use crate::unlock::{self, unlock, vault_failure};

/// Which log is succeeded.
pub(crate) fn succeed(opening: &Opening, log: &str, key: Option<&str>) -> Result<Answer, Failure> {
    let key = key.map(str::parse::<VerifierKey>).transpose().map_err(Failure::wrong)?;
    match log {
        "audit" => record(opening, key.as_ref()),
        _ => begin(opening),
    }
}

/// Begins the next evidence log; the auditor has to record it.
fn begin(opening: &Opening) -> Result<Answer, Failure> {
    let (home, policy, workspace) = opening.workspace()?;
    hardening::protect()?;
    let passphrase = unlock::passphrase(opening, false)?;
    // The log does not open, so nobody can ask it which key is in force: the vault's is.
    let keys = unlock::vault(&home, workspace).unlock_monitor(&passphrase).map_err(|error| vault_failure(&error))?;
    let MonitorKeys { log, witness, .. } = keys;
    let statements = gather(&policy, &dirs(&home)).map_err(Failure::unable)?;
    let [(old_number, old), (new_number, new)] = next(&home, Role::Monitor, &statements)?;
    let named = |number: u32| {
        let number = LogNumber::successor(number).unwrap_or(LogNumber::FIRST);
        Arc::new(log.handle().of_log(number))
    };
    let old_origin = amc_crypto::signer::EventSigner::origin(&*named(old_number)).to_owned();
    let old_key = statements.policy.log(&old_origin);
    let old_key = old_key.ok_or_else(|| failure(SucceedError::Untrusted(old.clone())))?;
    let key = named(new_number);
    let signers = Signers { event: key.clone(), checkpoint: key };
    let clock = Arc::new(SystemClock::new().map_err(Failure::unable)?);
    let witness = witness.verifier_key().public();
    let begun = succeed::begin((&old, old_key), &new, &statements, (&signers, witness), clock).map_err(failure)?;
    let data = json!({
        "log": "evidence", "origin": begun.origin, "key": begun.key.to_string(), "dir": begun.dir,
        "opening": begun.opening, "predecessor": begun.old, "recorded": false,
    });
    let text = format!(
        "Began {} after {} at size {}. It counts once the auditor has recorded it: amc ledger succeed\n",
        begun.origin, begun.old.origin, begun.old.size
    );
    Ok(Answer::new(&data, text))
}

/// Records the successor of the audit log in the evidence log.
fn record(opening: &Opening, key: Option<&VerifierKey>) -> Result<Answer, Failure> {
    let unlocked = unlock(opening)?;
    let (_, policy, _) = opening.workspace()?;
    let statements = gather(&policy, &dirs(&unlocked.home)).map_err(Failure::unable)?;
    let new = unlocked.home.log(Role::Auditor);
    let [(_, old), _] = next(&unlocked.home, Role::Auditor, &statements)?;
    let said = succeed::record(&unlocked.writer, (&old, &new), &statements, key).map_err(failure)?;
    unlocked.writer.close().map_err(Failure::unable)?;
    let text = format!("Recorded that {} succeeds {} at size {}\n", said.origin, said.old.origin, said.old.size);
    Ok(Answer::new(&json!({ "log": "audit", "origin": said.origin, "predecessor": said.old, "recorded": true }), text))
}

/// The logs of both roles in this home.
fn dirs(home: &Home) -> Vec<PathBuf> {
    let line = |role| line_of(&home.log(role), role);
    [line(Role::Monitor), line(Role::Auditor)].concat()
}

fn next(home: &Home, role: Role, statements: &Statements) -> Result<[(u32, PathBuf); 2], Failure> {
    let newest = home.log(role);
    let untrusted = || failure(SucceedError::Untrusted(newest.clone()));
    succeed::next_of(&newest, role, statements).ok_or_else(untrusted)
}

fn failure(error: SucceedError) -> Failure {
    match error {
        SucceedError::Open(error) => unlock::log_failure(&error),
        SucceedError::Healthy { .. } | SucceedError::Append(_) | SucceedError::SameKey => Failure::unable(error),
        error => Failure::bad(error),
    }
}
