//! Verifying a log from its files alone; never writes.

mod judge;
mod scan;
mod workers;

use std::path::Path;

use amc_core::kinds::LogHead;
use amc_core::{AgentId, Finding, SessionId};
use amc_crypto::{Checkpoint, Note, PublicKey, VerifierKey};
use amc_evidence::{KeyHistory, VerifiedEvent};

use crate::error::ReadError;
use crate::storage::Files;
use judge::Judge;

/// How thoroughly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyMode {
    /// Every signature, every payload, chain, sessions, tree, checkpoints, tiles.
    Full,
    /// Chain, sessions, tree, checkpoints and tiles; of the signatures only the newest
    /// checkpoint's, and no payload. Gives no verified events.
    Quick,
}

/// A key that no longer counts from an index on, as the other role's log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedKey {
    /// The key.
    pub public: PublicKey,
    /// First index at which nothing that it signed counts.
    pub from_index: u64,
}

/// How far a verification has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Events done.
    pub events: u64,
    /// Events in all, as the published checkpoint says.
    pub total: u64,
}

/// What to verify against.
pub struct VerifyOptions<'a> {
    /// The pinned key of the log; its name is the origin.
    pub log: &'a VerifierKey,
    /// How thoroughly.
    pub mode: VerifyMode,
    /// States of this log that somebody brought and has verified: the other role's cosigned
    /// record, a checkpoint from elsewhere. A log that does not contain one was rolled back or
    /// forked.
    pub known: &'a [Checkpoint],
    /// Revocations from the other role's log.
    pub revoked: &'a [RevokedKey],
    /// Called now and then.
    pub progress: Option<&'a dyn Fn(Progress)>,
}

impl<'a> VerifyOptions<'a> {
    /// A full verification against the pinned key alone.
    pub const fn full(log: &'a VerifierKey) -> Self {
        VerifyOptions { log, mode: VerifyMode::Full, known: &[], revoked: &[], progress: None }
    }
}

/// What a verification found.
#[derive(Debug, Clone)]
pub struct VerifyReport {
    /// How thoroughly it looked.
    pub mode: VerifyMode,
    /// The log's end: the newest signed checkpoint that its segments bear out.
    pub head: LogHead,
    /// That checkpoint as the note that the log signed.
    pub checkpoint: Option<Note>,
    /// Number of events.
    pub events: u64,
    /// Number of sessions.
    pub sessions: u64,
    /// Number of payloads that were read and hashed.
    pub payloads: u64,
    /// Sessions without a seal: normal on a live log.
    pub open_sessions: Vec<(SessionId, AgentId)>,
    /// The log's keys by position.
    pub keys: KeyHistory,
    /// What was found, in log order; at most some thousand.
    pub findings: Vec<Finding>,
}

impl VerifyReport {
    /// Whether no finding fails the check.
    pub fn is_good(&self) -> bool {
        !self.findings.iter().any(Finding::is_error)
    }
}

/// Verifies the log in `dir` and, in full mode, hands every event that verifies to `sink`, in
/// order.
///
/// # Errors
/// [`ReadError`] when there is no log or a file cannot be read; what is wrong with a log that can
/// be read stands in the report.
pub fn verify(
    dir: &Path,
    options: &VerifyOptions<'_>,
    sink: &mut dyn FnMut(VerifiedEvent),
) -> Result<VerifyReport, ReadError> {
    verify_files(&Files::on_disk(dir), options, sink)
}

pub(crate) fn verify_files(
    files: &Files,
    options: &VerifyOptions<'_>,
    sink: &mut dyn FnMut(VerifiedEvent),
) -> Result<VerifyReport, ReadError> {
    let judge = Judge::new(files, options, sink)?;
    workers::run(files, options, judge)
}
