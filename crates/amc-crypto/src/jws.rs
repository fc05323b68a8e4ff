//! Receipts as compact JWS (RFC 7515, RFC 8037): `alg` EdDSA, `typ` amc-receipt+jws.
//!
//! ```text
//! base64url(header) "." base64url(claims) "." base64url(signature)
//! ```

use amc_core::{AgentId, Digest, SessionId, limits};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::key::Signature;
use crate::note::VerifierKey;
use crate::trust::Check;

/// What a receipt is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptKind {
    /// A request that left for a provider.
    LlmRequest,
    /// An answer that came back.
    LlmResponse,
    /// A tool call on a recorded channel.
    ToolAction,
    /// A tunnel through the egress proxy.
    Egress,
}

/// The claims of a receipt. A receipt exists only for an event that is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptClaims {
    /// Always 1.
    pub v: u8,
    /// Unique per receipt; derived from the event_hash.
    pub receipt_id: String,
    /// What it is for.
    pub kind: ReceiptKind,
    /// The event's wall time, RFC 3339.
    pub ts: String,
    /// The agent.
    pub agent_id: AgentId,
    /// The session.
    pub session_id: SessionId,
    /// The gateway's request id.
    pub request_id: String,
    /// The provider's name.
    pub provider: String,
    /// The model, where known.
    pub model: Option<String>,
    /// Origin of the log.
    pub log: String,
    /// Index of the event.
    pub event_index: u64,
    /// The event_hash.
    pub event_hash: Digest,
    /// SHA-256 of the body's bytes as they passed.
    pub body_sha256: Digest,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
    kid: String,
}

/// A receipt, taken apart and not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    kid: String,
    claims: ReceiptClaims,
    signed: String,
    signature: Signature,
}

/// A text that is no receipt, or one that the pinned monitor did not sign.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// Above the bound.
    #[error("a receipt has at most {} bytes", limits::RECEIPT_BYTES_MAX)]
    TooLong,
    /// Not three base64url parts with the right header and claims.
    #[error("not an AMC receipt: {0}")]
    Malformed(&'static str),
    /// Header or claims are not the JSON they should be.
    #[error("not an AMC receipt: {0}")]
    Json(#[from] serde_json::Error),
    /// No pinned key has this key id.
    #[error("the receipt is signed under {0}, which is not pinned")]
    UnknownKey(String),
    /// The signature does not hold.
    #[error("the receipt's signature does not verify under {0}")]
    BadSignature(String),
}

/// The part of a compact JWS that is signed: header and claims.
pub fn signing_input(key: &VerifierKey, claims: &ReceiptClaims) -> String {
    let header = Header { alg: "EdDSA".into(), typ: "amc-receipt+jws".into(), kid: key.kid() };
    let part = |json: serde_json::Result<String>| URL_SAFE_NO_PAD.encode(json.expect("plain fields serialise"));
    format!("{}.{}", part(serde_json::to_string(&header)), part(serde_json::to_string(claims)))
}

/// Appends the signature to [`signing_input`].
pub fn assemble(signing_input: &str, signature: &Signature) -> String {
    format!("{signing_input}.{}", URL_SAFE_NO_PAD.encode(signature.0))
}

impl Receipt {
    /// Takes a compact JWS apart; verifies nothing.
    ///
    /// # Errors
    /// [`ReceiptError`] when it has another shape, algorithm or type.
    pub fn parse(text: &str) -> Result<Self, ReceiptError> {
        if text.len() > limits::RECEIPT_BYTES_MAX {
            return Err(ReceiptError::TooLong);
        }
        let mut parts = text.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(ReceiptError::Malformed("it has other than three parts"));
        };
        let decode = |part: &str| {
            URL_SAFE_NO_PAD.decode(part).map_err(|_| ReceiptError::Malformed("a part is not base64url without padding"))
        };
        let parsed: Header = serde_json::from_slice(&decode(header)?)?;
        if parsed.alg != "EdDSA" || parsed.typ != "amc-receipt+jws" {
            return Err(ReceiptError::Malformed("the header is not EdDSA of type amc-receipt+jws"));
        }
        let parsed_claims: ReceiptClaims = serde_json::from_slice(&decode(claims)?)?;
        if parsed_claims.v != 1 {
            return Err(ReceiptError::Malformed("its version is not 1"));
        }
        let signature = Signature::try_from(decode(signature)?.as_slice())
            .map_err(|_| ReceiptError::Malformed("its signature is not 64 bytes"))?;
        Ok(Receipt { kid: parsed.kid, claims: parsed_claims, signed: format!("{header}.{claims}"), signature })
    }

    /// The claims, to show them or to find the event; not to rely on before verification.
    pub const fn claims(&self) -> &ReceiptClaims {
        &self.claims
    }

    /// The key id that the receipt names.
    pub fn kid(&self) -> &str {
        &self.kid
    }
}

/// The pinned monitor keys under which a receipt may be signed.
#[derive(Debug, Clone)]
pub struct ReceiptTrust<'a> {
    /// The keys; their names are log origins.
    pub keys: &'a [VerifierKey],
}

impl Check<Receipt> for ReceiptTrust<'_> {
    type Output = ReceiptClaims;
    type Error = ReceiptError;

    fn check(&self, receipt: Receipt) -> Result<ReceiptClaims, ReceiptError> {
        let known = self.keys.iter().find(|key| key.kid() == receipt.kid && key.name() == receipt.claims.log);
        let key = known.ok_or_else(|| ReceiptError::UnknownKey(receipt.kid.clone()))?;
        key.public()
            .verify(receipt.signed.as_bytes(), &receipt.signature)
            .map_err(|_| ReceiptError::BadSignature(receipt.kid))?;
        Ok(receipt.claims)
    }
}
