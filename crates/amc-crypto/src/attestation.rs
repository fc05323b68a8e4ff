//! Attestations: the auditor looked at evidence that was handed in, and says that it is what it says.
//!
//! The subject is the event_hash; the predicate binds log, position, agent, the payload and an
//! expiry, so that no attestation can be moved to other evidence or outlive its time.

use amc_core::{AgentId, Digest, timestamp};
use serde::{Deserialize, Serialize};

use crate::dsse::{Envelope, EnvelopeError, SignedStatement, StatementTrust};
use crate::key::PublicKey;
use crate::statement::{PredicateType, Statement, Subject};
use crate::trust::Unverified;

/// The predicate of `urn:amc:predicate:attestation:v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttestationPredicate {
    /// Origin of the log that holds the event.
    pub log: String,
    /// The event's index.
    pub index: u64,
    /// The agent that the evidence is about.
    pub agent: AgentId,
    /// What the evidence is, as `amc ingest` names it.
    #[serde(rename = "type")]
    pub ingest_type: String,
    /// SHA-256 of the file that was handed in.
    pub payload_sha256: Digest,
    /// Until when it counts, RFC 3339 in UTC.
    pub expires: String,
}

/// An attestation that does not count.
#[derive(Debug, thiserror::Error)]
pub enum AttestationError {
    /// Not an envelope that a pinned auditor signed.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// It is about another event.
    #[error("the attestation is about other evidence")]
    OtherEvidence,
    /// Its expiry is no time.
    #[error("the attestation's expiry cannot be read: {0}")]
    Expiry(#[from] timestamp::TimestampError),
}

/// The statement that an auditor signs for the event with this hash.
pub fn statement(predicate: &AttestationPredicate, event_hash: Digest) -> Statement {
    let name = format!("{}#{}", predicate.log, predicate.index);
    Statement::new(PredicateType::Attestation, vec![Subject::new(name, event_hash)], predicate)
        .expect("one subject and six named members")
}

/// Verifies an attestation of exactly this evidence; gives its expiry in nanoseconds since the epoch.
///
/// # Errors
/// [`AttestationError`] when none of `keys` signed it, or it is about something else. Whether it has
/// expired is the caller's question.
pub fn verify(
    envelope: &[u8],
    wanted: &AttestationPredicate,
    event_hash: Digest,
    keys: &[PublicKey],
) -> Result<i64, AttestationError> {
    let envelope = Unverified::new(Envelope::parse(envelope)?);
    let trust = StatementTrust { keys, wanted: PredicateType::Attestation };
    let SignedStatement { statement, .. } = envelope.verify(&trust)?.into_inner();
    let found: AttestationPredicate = statement.predicate_as().map_err(EnvelopeError::Statement)?;
    let about = AttestationPredicate { expires: found.expires.clone(), ..wanted.clone() };
    let [subject] = statement.subject.as_slice() else { return Err(AttestationError::OtherEvidence) };
    if found != about || subject.digest.sha256 != event_hash {
        return Err(AttestationError::OtherEvidence);
    }
    Ok(timestamp::from_rfc3339(&found.expires)?)
}
