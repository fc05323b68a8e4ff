//! DSSE 1.0 envelopes with in-toto payloads.
//!
//! Signed bytes are `"DSSEv1" SP len(type) SP type SP len(body) SP body`. The `keyid` is a hint: a
//! verifier tries its pinned keys. The bytes that were verified are the bytes that are parsed.

use amc_core::limits;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::key::{PublicKey, Signature};
use crate::statement::{PredicateType, Statement, StatementError};
use crate::trust::Check;

/// The payload type of every envelope of ours.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// Most signatures in one envelope.
const SIGNATURES_MAX: usize = 8;

/// A DSSE envelope, parsed and not verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvelopeSignature {
    keyid: String,
    sig: String,
}

/// Bytes that are no envelope, or an envelope that no pinned key signed.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Above the bound.
    #[error("an envelope has at most {} bytes", limits::ENVELOPE_BYTES_MAX)]
    TooLong,
    /// Not the JSON of an envelope.
    #[error("not a DSSE envelope: {0}")]
    Json(#[from] serde_json::Error),
    /// Another payload type, bad base64, no signature or too many.
    #[error("not a DSSE envelope of ours: {0}")]
    Malformed(&'static str),
    /// No pinned key signed it.
    #[error("no trusted key signed this envelope; it names the key {keyid}")]
    Untrusted {
        /// The key id that the envelope itself names.
        keyid: String,
    },
    /// A trusted key is named and its signature does not hold.
    #[error("the signature under the trusted key {keyid} does not verify")]
    BadSignature {
        /// The key id.
        keyid: String,
    },
    /// The payload is no statement of the wanted kind.
    #[error(transparent)]
    Statement(#[from] StatementError),
}

/// The bytes that an envelope's signature covers.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

impl Envelope {
    /// Assembles an envelope from a payload and its signature.
    pub fn new(payload: &[u8], key: PublicKey, signature: &Signature) -> Self {
        let signature = EnvelopeSignature { keyid: key.dsse_key_id(), sig: STANDARD.encode(signature.0) };
        Envelope {
            payload: STANDARD.encode(payload),
            payload_type: PAYLOAD_TYPE.to_owned(),
            signatures: vec![signature],
        }
    }

    /// Parses the JSON of an envelope; verifies nothing.
    ///
    /// # Errors
    /// [`EnvelopeError`] when it is too long or has another shape.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        if bytes.len() > limits::ENVELOPE_BYTES_MAX {
            return Err(EnvelopeError::TooLong);
        }
        let envelope: Envelope = serde_json::from_slice(bytes)?;
        if envelope.payload_type != PAYLOAD_TYPE {
            return Err(EnvelopeError::Malformed("the payload type is not application/vnd.in-toto+json"));
        }
        if !(1..=SIGNATURES_MAX).contains(&envelope.signatures.len()) {
            return Err(EnvelopeError::Malformed("it has no signature or too many"));
        }
        Ok(envelope)
    }

    /// The JSON text, on one line with a final newline.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings serialise") + "\n"
    }

    /// The key id that the first signature names: a hint for a person.
    pub fn key_id_hint(&self) -> &str {
        &self.signatures[0].keyid
    }

    /// Finds the pinned key that signed and gives the payload bytes it covers.
    fn open(&self, keys: &[PublicKey]) -> Result<(Vec<u8>, PublicKey), EnvelopeError> {
        let payload = STANDARD.decode(&self.payload).map_err(|_| EnvelopeError::Malformed("payload is not base64"))?;
        let message = pae(&self.payload_type, &payload);
        let mut named = None;
        for line in &self.signatures {
            let bytes = STANDARD.decode(&line.sig).map_err(|_| EnvelopeError::Malformed("sig is not base64"))?;
            let signature =
                Signature::try_from(bytes.as_slice()).map_err(|_| EnvelopeError::Malformed("sig is not 64 bytes"))?;
            for key in keys {
                if key.verify(&message, &signature).is_ok() {
                    return Ok((payload, *key));
                }
                if key.dsse_key_id() == line.keyid {
                    named = Some(line.keyid.clone());
                }
            }
        }
        Err(match named {
            Some(keyid) => EnvelopeError::BadSignature { keyid },
            None => EnvelopeError::Untrusted { keyid: self.key_id_hint().to_owned() },
        })
    }
}

/// Pinned keys and the kind of statement that a place needs.
#[derive(Debug, Clone)]
pub struct StatementTrust<'a> {
    /// The keys, any of which may have signed.
    pub keys: &'a [PublicKey],
    /// The kind of statement.
    pub wanted: PredicateType,
}

/// A statement, with the key that signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedStatement {
    /// The statement.
    pub statement: Statement,
    /// The pinned key that signed it.
    pub key: PublicKey,
}

impl Check<Envelope> for StatementTrust<'_> {
    type Output = SignedStatement;
    type Error = EnvelopeError;

    fn check(&self, envelope: Envelope) -> Result<SignedStatement, EnvelopeError> {
        let (payload, key) = envelope.open(self.keys)?;
        Ok(SignedStatement { statement: Statement::parse(&payload, self.wanted)?, key })
    }
}
