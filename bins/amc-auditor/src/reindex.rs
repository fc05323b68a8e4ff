//! `ledger reindex`: what follows from the audit log's segments, made anew. Needs no key; the log
//! must not be open.

use amc_core::kinds::Role;
use amc_ledger::{ReadError, ReindexError};
use amc_workspace::{Answer, Failure, Opening};
use serde_json::json;

/// Rebuilds the index and stores missing tiles again.
pub(crate) fn reindex(opening: &Opening) -> Result<Answer, Failure> {
    let done = amc_ledger::reindex(&opening.home()?.log(Role::Auditor)).map_err(|error| match error {
        ReindexError::Read(ReadError::Damaged(finding)) => {
            Failure::bad("the log is not what its checkpoint says; `amc verify` tells more").with(finding)
        }
        ReindexError::Read(error @ ReadError::Absent(_)) => Failure::wrong(error),
        error => Failure::unable(error),
    })?;
    let text = format!("Indexed {} events of the audit log; {} tiles were missing\n", done.events, done.tiles);
    Ok(Answer::new(&json!({ "events": done.events, "tiles": done.tiles }), text))
}
