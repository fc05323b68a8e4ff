//! Saying in one role's log that a log key of the other role was stolen.
//!
//! The entry names the log, the key and the index from which nothing that the key signed counts. A
//! file beside the segments says that the log has such an entry, so that whoever judges envelopes
//! reads it; the file alone says nothing, and without it a verification finds the entry all the same.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use amc_core::Tier;
use amc_core::kinds::{Fields, KeyPurpose, KeyRevoked, Role};
use amc_crypto::TrustPolicy;
use amc_evidence::{Draft, Event};

use crate::error::{AppendError, ReadError};
use crate::line::{gather, line_of};
use crate::reader::LogReader;
use crate::writer::Writer;

/// In the directory of a log that revokes a key of the other role.
pub const MARK_FILE: &str = "revokes";

/// A revocation that cannot be said.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    /// The log of the stolen key is not here.
    #[error("there is no {} log in {}; bring a copy of it, however broken", .role.log_name(), .dir.display())]
    NoLog {
        /// Whose key.
        role: Role,
        /// Where its log should be.
        dir: PathBuf,
    },
    /// The trust policy says nothing of that log.
    #[error("the trust policy does not lead to the log {0}")]
    Unknown(String),
    /// A log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A stored event is none.
    #[error(transparent)]
    Event(#[from] amc_evidence::event::EventError),
    /// The log takes nothing.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The mark cannot be written.
    #[error("cannot write {path}: {source}")]
    Mark {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What is to be said of the key that signs `role`'s log at this index, as the log's own history has
/// it. `evidence`, `audit`: the directories of both logs; that of `role` may be broken.
///
/// # Errors
/// [`RevocationError`] when the log is not here or not known.
pub fn of_stolen(
    policy: &TrustPolicy,
    (evidence, audit): (&Path, &Path),
    role: Role,
    from_index: u64,
    reason: &str,
) -> Result<KeyRevoked, RevocationError> {
    let dirs = [line_of(evidence, Role::Monitor), line_of(audit, Role::Auditor)].concat();
    let statements = gather(policy, &dirs)?;
    let dir = match role {
        Role::Monitor => evidence,
        Role::Auditor => audit,
    };
    let known = statements.of_dir(dir).map(|log| log.opened.origin.clone());
    let origin = known.ok_or_else(|| RevocationError::NoLog { role, dir: dir.to_owned() })?;
    let key = statements.policy.log_key_at(&origin, from_index.saturating_add(1));
    let key = key.ok_or_else(|| RevocationError::Unknown(origin.clone()))?;
    let public = key.public().to_digest();
    Ok(KeyRevoked { origin, purpose: KeyPurpose::Log, public, from_index, reason: reason.to_owned() })
}

/// Has the log in `dir`, open in `writer`, say it once: saying it again, after a crash, adds nothing.
///
/// # Errors
/// [`RevocationError`] when the log cannot be read or takes nothing.
pub fn record(writer: &Writer, dir: &Path, revoked: &KeyRevoked) -> Result<(), RevocationError> {
    // The mark first: a mark without an entry costs time, an entry without a mark could be passed over.
    let path = dir.join(MARK_FILE);
    let marked = File::create(&path).and_then(|file| file.sync_all()).and_then(|()| File::open(dir)?.sync_all());
    marked.map_err(|source| RevocationError::Mark { path, source })?;
    writer.publish()?;
    for stored in LogReader::open(dir)?.events(0) {
        let (_, fields) = Event::decode(&stored?.signed.body)?;
        if let Some(Fields::KeyRevoked(said)) = fields
            && (&said.origin, said.public, said.from_index) == (&revoked.origin, revoked.public, revoked.from_index)
        {
            return Ok(());
        }
    }
    writer.append(Draft::new(Tier::Observed, revoked.clone()), None)?;
    writer.publish()?;
    Ok(())
}

/// Whether the log in this directory may revoke a key.
pub(crate) fn is_marked(dir: &Path) -> bool {
    dir.join(MARK_FILE).exists()
}
