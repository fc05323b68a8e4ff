//! The Sigstore bundle wrapper (v0.3) around one of our envelopes, for tools that read nothing else.
//!
//! The envelope is unchanged; what is added is a media type and the hint of the key. There is no entry
//! of a public transparency log and no certificate: the verifier brings the key.

use amc_crypto::dsse::{Envelope, EnvelopeError};
use serde_json::{Value, json};

/// The media type of the wrapper.
pub const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// The wrapper of an envelope as JSON, on one line with a final newline.
///
/// # Errors
/// [`EnvelopeError`] when the bytes are no envelope with exactly one signature, which the format wants.
pub fn sigstore_bundle(envelope: &[u8]) -> Result<String, EnvelopeError> {
    let parsed = Envelope::parse(envelope)?;
    let value: Value = serde_json::from_slice(envelope)?;
    if value["signatures"].as_array().map(Vec::len) != Some(1) {
        return Err(EnvelopeError::Malformed("a Sigstore bundle holds an envelope with exactly one signature"));
    }
    let wrapped = json!({
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": { "publicKey": { "hint": parsed.key_id_hint() }, "tlogEntries": [] },
        "dsseEnvelope": value,
    });
    Ok(wrapped.to_string() + "\n")
}
