//! The monitor as the witness of the audit log.

use amc_core::kinds::Role;
use amc_crypto::Note;
use amc_ledger::LogReader;
use amc_ledger::witness::{self, WitnessError};
use amc_workspace::opening::now_s;
use amc_workspace::{Answer, Failure, Opening};
use serde_json::json;

use crate::unlock::{Unlocked, unlock};

/// Unlocks, cosigns once, and closes; for when no monitor runs.
pub(crate) fn cosign_once(opening: &Opening) -> Result<Answer, Failure> {
    let unlocked = unlock(opening)?;
    let note = cosign(&unlocked).map_err(witness_failure)?;
    unlocked.writer.close().map_err(Failure::unable)?;
    Ok(Answer::new(&json!({ "note": note.to_string() }), "Cosigned the audit log\n"))
}

/// Cosigns the newest published checkpoint of the home's audit log.
pub(crate) fn cosign(unlocked: &Unlocked) -> Result<Note, WitnessError> {
    let audit = LogReader::open(&unlocked.home.log(Role::Auditor))?;
    let (policy, now_s) = (unlocked.policy_now()?, now_s(&unlocked.clock));
    witness::cosign_log(&unlocked.writer, &unlocked.witness, &policy, &audit, now_s)
}

fn witness_failure(error: WitnessError) -> Failure {
    match error {
        WitnessError::Append(_) | WitnessError::Sign(_) | WitnessError::Read(_) => Failure::unable(error),
        other => Failure::bad(other),
    }
}
