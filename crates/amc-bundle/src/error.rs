//! Why an artifact could not be written or read at all. What a verifier finds wrong with one is
//! not here: those are findings.

use std::io;

use amc_crypto::merkle::ProofError;
use amc_crypto::signer::SignError;

use crate::archive::ArchiveError;
use crate::payloads::PayloadError;

/// A bundle that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The pieces do not belong together.
    #[error("the bundle cannot be put together: {0}")]
    Inconsistent(String),
    /// The audit events do not have the run's own entry, or its checkpoint does not cover it.
    #[error(
        "the audit log's cosigned checkpoint does not cover the run's entry yet; have it cosigned and export again"
    )]
    RunNotCovered,
    /// A hash of a log's tree could not be read.
    #[error("the tree of {log} cannot be read: {why}")]
    Tree {
        /// The log's origin.
        log: String,
        /// Why.
        why: String,
    },
    /// The proof that was made does not hold: events and tree disagree.
    #[error("the events of {log} are not those of its checkpoint: {source}")]
    Proof {
        /// The log's origin.
        log: String,
        /// Why.
        source: ProofError,
    },
    /// The payloads could not be packed.
    #[error("payloads: {0}")]
    Payloads(#[from] PayloadError),
    /// The manifest was not signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The archive could not be written.
    #[error("the archive: {0}")]
    Archive(#[from] ArchiveError),
    /// The spool could not be read back.
    #[error("the temporary file of packed payloads: {0}")]
    Spool(#[source] io::Error),
}

/// A bundle whose bytes could not be read.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Reading failed.
    #[error("the bundle cannot be read at byte {offset}: {source}")]
    Read {
        /// Where, from the start of the file.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// Reading the events a second time failed, or gave other bytes than verified.
    #[error("the bundle's events cannot be read a second time: {0}; leave the file as it is while it is verified")]
    Again(#[source] io::Error),
}
