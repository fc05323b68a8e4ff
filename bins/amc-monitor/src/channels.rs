//! What the monitor's two private sockets share: who may connect, how frames become answers, and the
//! bodies that keyless processes captured.

use amc_evidence::PayloadRef;
use amc_evidence::event::{Stored, StoredBytes};
use amc_workspace::protocol::Refusal;
use amc_workspace::protocol::gateway::{Capture, CapturedPayload};
pub(crate) use amc_workspace::protocol::server::{is_trusted, listen, peer_pid, serve};

/// The reference and the bytes to store of a body that a keyless process captured.
pub(crate) fn payload(captured: CapturedPayload) -> Result<(PayloadRef, Option<Vec<u8>>), Refusal> {
    let CapturedPayload { wire_sha256, wire_len, media_type, capture, bytes } = captured;
    let differing = |rules| StoredBytes { sha256: amc_crypto::sha256(&bytes), len: bytes.len() as u64, rules };
    let stored = match capture {
        Capture::Full => Stored::Full,
        Capture::Redacted(rules) => Stored::Redacted(differing(rules)),
        Capture::Truncated(rules) => Stored::Truncated(differing(rules)),
        Capture::Omitted => Stored::Omitted,
    };
    let bytes = (stored != Stored::Omitted).then_some(bytes);
    Ok((PayloadRef { wire_sha256, wire_len, media_type, stored }, bytes))
}
