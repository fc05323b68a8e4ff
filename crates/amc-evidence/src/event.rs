//! The event record: canonical postcard of [`Event`], its hash and its signature.
//!
//! ```text
//! version u8 = 1 │ index │ prev [32] │ wall_ns │ boot_ns │ boot_id [16] │ agent? │ session? [16]
//! │ session_seq │ tier u8 │ payload? │ kind │ fields (length-delimited postcard of the kind)
//!
//! event_hash = SHA-256(0x00 ‖ body)            the RFC 6962 leaf hash
//! signature  = Ed25519("amc/event/v1\n" ‖ origin ‖ "\n" ‖ event_hash)
//! ```

use amc_core::codec::{self, CodecError};
use amc_core::kinds::Fields;
use amc_core::{AgentId, Digest, SessionId, Tier, limits};
use amc_crypto::Signature;
use serde::{Deserialize, Serialize};

/// The version of the event record.
pub const EVENT_VERSION: u8 = 1;

/// What was stored of a payload, beside what passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stored {
    /// All of it, as it passed.
    Full,
    /// A copy with secrets replaced.
    Redacted(StoredBytes),
    /// Only its beginning.
    Truncated(StoredBytes),
    /// Nothing.
    Omitted,
}

/// The stored bytes where they differ from what passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredBytes {
    /// SHA-256 of the stored bytes.
    pub sha256: Digest,
    /// Their length.
    pub len: u64,
    /// The redaction rules or the bound that applied, at most 255 bytes.
    pub rules: String,
}

/// A reference to bytes that stand apart from the event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadRef {
    /// SHA-256 of the bytes that really passed.
    pub wire_sha256: Digest,
    /// Their length.
    pub wire_len: u64,
    /// Media type, at most 127 bytes.
    pub media_type: String,
    /// What was kept.
    pub stored: Stored,
}

impl PayloadRef {
    /// A payload that is kept whole.
    pub fn full(bytes: &[u8], media_type: &str) -> Self {
        PayloadRef {
            wire_sha256: amc_crypto::sha256(bytes),
            wire_len: bytes.len() as u64,
            media_type: media_type[..media_type.floor_char_boundary(limits::MEDIA_TYPE_BYTES_MAX)].to_owned(),
            stored: Stored::Full,
        }
    }

    /// Digest and length of the stored bytes; `None` when nothing was kept.
    pub fn stored_digest(&self) -> Option<(Digest, u64)> {
        match &self.stored {
            Stored::Full => Some((self.wire_sha256, self.wire_len)),
            Stored::Redacted(stored) | Stored::Truncated(stored) => Some((stored.sha256, stored.len)),
            Stored::Omitted => None,
        }
    }

    fn within_bounds(&self) -> bool {
        let rules = match &self.stored {
            Stored::Redacted(stored) | Stored::Truncated(stored) => stored.rules.len(),
            Stored::Full | Stored::Omitted => 0,
        };
        self.media_type.len() <= limits::MEDIA_TYPE_BYTES_MAX && rules <= limits::RULES_BYTES_MAX
    }
}

/// One event, decoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Always [`EVENT_VERSION`].
    pub version: u8,
    /// Position in the log, from 0.
    pub index: u64,
    /// event_hash of the event before; zeros at 0.
    pub prev: Digest,
    /// Wall time, nanoseconds since the epoch.
    pub wall_ns: i64,
    /// `CLOCK_BOOTTIME` in nanoseconds.
    pub boot_ns: u64,
    /// The kernel's boot id.
    pub boot_id: [u8; 16],
    /// The agent that it is about.
    pub agent: Option<AgentId>,
    /// The session that it belongs to.
    pub session: Option<SessionId>,
    /// Position within the session, from 0; 0 outside of sessions.
    pub session_seq: u32,
    /// How it came in.
    pub tier: Tier,
    /// Bytes that stand apart.
    pub payload: Option<PayloadRef>,
    /// The kind's number.
    pub kind: u16,
    /// The kind's fields, encoded.
    #[serde(with = "byte_string")]
    pub fields: Vec<u8>,
}

/// An event body that is not a canonical event of version 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Above the bound.
    #[error("an event has at most {max} bytes and this one has {0}", max = limits::EVENT_BYTES_MAX)]
    TooLong(usize),
    /// Not canonical postcard of an event.
    #[error("{0}")]
    Codec(#[from] CodecError),
    /// Another version.
    #[error("event version {0} is not known here")]
    Version(u8),
    /// A part above its own bound.
    #[error("a part of the event is longer than it may be")]
    OutOfBounds,
    /// The fields of a known kind do not decode.
    #[error("the fields of kind {kind} do not decode: {source}")]
    Fields {
        /// The kind's number.
        kind: u16,
        /// Why.
        source: CodecError,
    },
}

impl Event {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes canonical bytes and checks every bound and the fields of known kinds.
    ///
    /// # Errors
    /// [`EventError`] for anything else.
    pub fn decode(body: &[u8]) -> Result<(Self, Option<Fields>), EventError> {
        if body.len() > limits::EVENT_BYTES_MAX {
            return Err(EventError::TooLong(body.len()));
        }
        let event: Event = codec::decode_strict(body)?;
        if event.version != EVENT_VERSION {
            return Err(EventError::Version(event.version));
        }
        if !event.payload.as_ref().is_none_or(PayloadRef::within_bounds) {
            return Err(EventError::OutOfBounds);
        }
        let fields = Fields::decode(event.kind, &event.fields)
            .map_err(|source| EventError::Fields { kind: event.kind, source })?;
        Ok((event, fields))
    }
}

/// What stands in a body before its fields.
type Head =
    (u8, u64, Digest, i64, u64, [u8; 16], Option<AgentId>, Option<SessionId>, u32, Tier, Option<PayloadRef>, u16);

/// The kind that a body names, to decide whether to decode it; nothing is checked.
pub fn peek_kind(body: &[u8]) -> Option<u16> {
    codec::decode_prefix::<Head>(body).ok().map(|head| head.11)
}

/// An event as it is stored and carried: the exact body and its signature, nothing verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedEvent {
    /// The canonical bytes, as received.
    pub body: Vec<u8>,
    /// The role key's signature over the event_hash.
    pub signature: Signature,
}

impl SignedEvent {
    /// `SHA-256(0x00 ‖ body)`.
    pub fn event_hash(&self) -> Digest {
        amc_crypto::leaf_hash(&self.body)
    }
}

/// `Vec<u8>` as one length-delimited byte string rather than a sequence of numbers.
mod byte_string {
    use serde::{Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl de::Visitor<'_> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}
