//! This role as the witness of another log: compare, record, then cosign (C2SP tlog-witness).
//!
//! What the witness cosigned last stands in its own log, so the record is as durable as evidence
//! and never goes back. The cosignature is made first, travels inside the event that records it,
//! and is handed out only when that event is durable.

use amc_core::kinds::{CheckpointCosigned, LogHead};
use amc_core::{Digest, Tier};
use amc_crypto::checkpoint::CheckpointError;
use amc_crypto::merkle::{self, ProofError};
use amc_crypto::signer::{Cosigner, SignError};
use amc_crypto::{Checkpoint, Note, TrustPolicy};
use amc_evidence::Draft;

use crate::error::{AppendError, ReadError};
use crate::reader::LogReader;
use crate::writer::Writer;

/// A checkpoint that was not cosigned.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// Not a checkpoint that a pinned log signed.
    #[error("the checkpoint is not cosigned: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The size that was assumed is not the one that was cosigned last: ask again from this one.
    #[error("this witness has cosigned size {size} of that log already")]
    Conflict {
        /// What it has.
        size: u64,
    },
    /// The log went back: it is smaller than what was cosigned, or differs at the same size.
    #[error("the log {origin} is not what this witness cosigned at size {known}: it was rolled back or forked")]
    NotTheSame {
        /// The log.
        origin: String,
        /// The size that was cosigned.
        known: u64,
    },
    /// The proof does not lead from the cosigned state to this one.
    #[error("the log does not extend what this witness cosigned: {0}")]
    Inconsistent(#[from] ProofError),
    /// The key refused.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The cosignature could not be recorded, so it is not given out.
    #[error("the cosignature is not given out, since it could not be recorded: {0}")]
    Append(#[from] AppendError),
    /// The other log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// A checkpoint with the proof that it extends the one that this witness cosigned last.
#[derive(Debug, Clone)]
pub struct Submission {
    /// The note that the log signed.
    pub note: Note,
    /// The size that the proof starts from; 0 for none.
    pub old_size: u64,
    /// Consistency proof from there; empty from 0.
    pub proof: Vec<Digest>,
}

impl Submission {
    /// The newest published checkpoint of a log that can be read, with the proof from `old_size`.
    ///
    /// # Errors
    /// [`WitnessError::NotTheSame`] when the log is smaller than that, or what reading found.
    pub fn from_log(log: &LogReader, old_size: u64) -> Result<Self, WitnessError> {
        Self::of_note(log, log.latest_checkpoint(), old_size)
    }

    /// A checkpoint of that log that is not larger than the published one, with the proof from `old_size`.
    ///
    /// # Errors
    /// As [`Submission::from_log`], and when the note is no such checkpoint.
    pub fn of_note(log: &LogReader, note: &Note, old_size: u64) -> Result<Self, WitnessError> {
        let Checkpoint { origin, size, .. } = Checkpoint::parse(note.text())?;
        if size < old_size || size > log.size() || origin != log.checkpoint().origin {
            return Err(WitnessError::NotTheSame { origin, known: old_size });
        }
        let proof = match old_size {
            0 => Vec::new(),
            old_size => merkle::consistency_proof(&log.tree()?, old_size, size)?,
        };
        Ok(Submission { note: note.clone(), old_size, proof })
    }
}

/// Cosigns a submitted checkpoint at `now_s` (seconds since the epoch) and records it in the
/// witness's own log. Callers do this one at a time.
///
/// # Errors
/// [`WitnessError`]; nothing was handed out then.
pub fn cosign(
    own: &Writer,
    key: &dyn Cosigner,
    policy: &TrustPolicy,
    submission: Submission,
    now_s: u64,
) -> Result<Note, WitnessError> {
    let Submission { mut note, old_size, proof } = submission;
    let checkpoint = policy.check_signatures(note.clone())?.checkpoint;
    let known = own.with_state(|state| state.cosigned(&checkpoint.origin).cloned());
    match known {
        None if old_size != 0 => return Err(WitnessError::Conflict { size: 0 }),
        Some(known) if known.size != old_size => return Err(WitnessError::Conflict { size: known.size }),
        Some(known) if known.size > checkpoint.size => {
            return Err(WitnessError::NotTheSame { origin: checkpoint.origin, known: known.size });
        }
        // Every log extends the empty one; at that size there is nothing to prove.
        Some(known) if known.size == 0 => {}
        Some(known) => {
            merkle::verify_consistency(known.size, checkpoint.size, &proof, &known.root, &checkpoint.root)?;
        }
        None => {}
    }
    if checkpoint.size == 0 && checkpoint.root != amc_crypto::sha256(b"") {
        return Err(WitnessError::Inconsistent(ProofError::WrongRoot));
    }
    note.push(key.cosign(&checkpoint, now_s)?);
    let head = LogHead { origin: checkpoint.origin, size: checkpoint.size, root: checkpoint.root };
    let recorded = CheckpointCosigned { head, time_s: now_s, note: note.to_string() };
    own.append(Draft::new(Tier::Observed, recorded), None)?;
    Ok(note)
}

/// Cosigns the newest published checkpoint of a log that can be read.
///
/// # Errors
/// As [`cosign`].
pub fn cosign_log(
    own: &Writer,
    key: &dyn Cosigner,
    policy: &TrustPolicy,
    other: &LogReader,
    now_s: u64,
) -> Result<Note, WitnessError> {
    let origin = &other.checkpoint().origin;
    let old_size = own.with_state(|state| state.cosigned(origin).map_or(0, |head| head.size));
    cosign(own, key, policy, Submission::from_log(other, old_size)?, now_s)
}
