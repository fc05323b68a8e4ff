//! What signs, as traits: one per purpose, each taking a typed value.
//!
//! No trait here signs bytes of the caller's choice. The implementations, with the private keys,
//! are in `amc-vault`; everything else of AMC sees these traits only.

use amc_core::Digest;

use crate::checkpoint::Checkpoint;
use crate::jws::ReceiptClaims;
use crate::key::{PublicKey, Signature};
use crate::note::{NoteSignature, VerifierKey};
use crate::statement::Statement;

/// A key refused or failed to sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} was not signed: {why}")]
pub struct SignError {
    /// What should have been signed.
    pub what: &'static str,
    /// Why it was not.
    pub why: String,
}

/// The bytes that an event signature covers: `amc/event/v1`, the log's origin, the event_hash.
pub fn event_message(origin: &str, event_hash: &Digest) -> Vec<u8> {
    let mut message = Vec::with_capacity(origin.len() + 48);
    message.extend_from_slice(b"amc/event/v1\n");
    message.extend_from_slice(origin.as_bytes());
    message.push(b'\n');
    message.extend_from_slice(&event_hash.0);
    message
}

/// A role's log key: signs the events of that role's log.
pub trait EventSigner: Send + Sync {
    /// The origin of the log for which this key signs.
    fn origin(&self) -> &str;
    /// The public half.
    fn public_key(&self) -> PublicKey;
    /// Signs the event with this hash for [`EventSigner::origin`].
    ///
    /// # Errors
    /// [`SignError`] when the key cannot sign.
    fn sign_event(&self, event_hash: &Digest) -> Result<Signature, SignError>;
}

/// A role's log key: signs the checkpoints of that role's log.
pub trait CheckpointSigner: Send + Sync {
    /// The verifier key, whose name is the log's origin.
    fn verifier_key(&self) -> VerifierKey;
    /// Signs a checkpoint of this key's own log.
    ///
    /// # Errors
    /// [`SignError`] when the checkpoint's origin is another log's.
    fn sign_checkpoint(&self, checkpoint: &Checkpoint) -> Result<NoteSignature, SignError>;
}

/// A role's witness key: cosigns checkpoints of other logs. The caller has compared and persisted.
pub trait Cosigner: Send + Sync {
    /// The verifier key of type cosignature.
    fn verifier_key(&self) -> VerifierKey;
    /// Cosigns `checkpoint` at `time_s` (seconds since the epoch).
    ///
    /// # Errors
    /// [`SignError`] when the checkpoint is one of the witness's own role.
    fn cosign(&self, checkpoint: &Checkpoint, time_s: u64) -> Result<NoteSignature, SignError>;
}

/// The auditor's key: signs in-toto statements as DSSE envelopes.
pub trait StatementSigner: Send + Sync {
    /// The public half.
    fn public_key(&self) -> PublicKey;
    /// Signs a statement.
    ///
    /// # Errors
    /// [`SignError`] when the key cannot sign.
    fn sign_statement(&self, statement: &Statement) -> Result<crate::dsse::Envelope, SignError>;
}

/// The monitor's key: signs receipts of events that are durable.
pub trait ReceiptSigner: Send + Sync {
    /// The verifier key, whose name is the log's origin.
    fn verifier_key(&self) -> VerifierKey;
    /// Mints the receipt, a compact JWS.
    ///
    /// # Errors
    /// [`SignError`] when the claims name another log.
    fn sign_receipt(&self, claims: &ReceiptClaims) -> Result<String, SignError>;
}
