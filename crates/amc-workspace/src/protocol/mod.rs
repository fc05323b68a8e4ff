//! The private sockets: typed requests to the monitor and to the process that holds the auditor's
//! keys, one frame each.
//!
//! ```text
//! len u32 little-endian │ postcard of Frame { id u64, body }
//! ```
//!
//! The monitor has two sockets and each is a channel of its own: which one a message comes in by decides
//! what it can be and what tier it gets, and no field of a message can change that. Requests on one
//! connection are answered in order; `id` is echoed so that a client may send ahead. Out of that order are the
//! notice `GatewayReply::Accepted` and, on the gateway's channel, what needs no flush.

mod blocking;
pub mod gateway;
pub mod holder;
pub mod operator;
pub mod server;

pub use blocking::{Client, ClientError, Connection, read_frame, write_frame};

use amc_core::SessionId;
use amc_core::codec;
use amc_core::limits::FRAME_BYTES_MAX;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The version that both sides must speak; it is part of the sockets' names' contract in `Hello`.
pub const PROTOCOL_VERSION: u16 = 4;

/// One message with its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame<T> {
    /// Chosen by the client, echoed by the server.
    pub id: u64,
    /// The message.
    pub body: T,
}

/// A request that was understood and not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The log cannot take evidence (disk full, flush failed, shutting down).
    #[error("the evidence log takes nothing now: {0}")]
    LogUnavailable(String),
    /// No open session has this lease or id.
    #[error("{0}")]
    LeaseInvalid(String),
    /// The request makes no sense in this state.
    #[error("{0}")]
    Invalid(String),
    /// The session goes on in this one: say it there.
    #[error("the session goes on as {0}")]
    SessionContinued(SessionId),
}

/// A frame that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length is above the bound.
    #[error("a frame of {0} bytes is above the bound of {max}", max = FRAME_BYTES_MAX)]
    TooLong(usize),
    /// The bytes are no message of this protocol.
    #[error("a frame does not decode: {0}")]
    Codec(#[from] codec::CodecError),
}

/// Encodes a frame, length included.
///
/// # Errors
/// [`FrameError::TooLong`] when it is above the bound.
pub fn encode_frame<T: Serialize>(frame: &Frame<T>) -> Result<Vec<u8>, FrameError> {
    let mut bytes = codec::encode_after(vec![0; 4], frame);
    let body = bytes.len() - 4;
    let len = u32::try_from(body).ok().filter(|_| body <= FRAME_BYTES_MAX).ok_or(FrameError::TooLong(body))?;
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    Ok(bytes)
}

/// The length that a frame's first four bytes announce, checked against the bound.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn frame_len(prefix: [u8; 4]) -> Result<usize, FrameError> {
    let len = u32::from_le_bytes(prefix) as usize;
    if len > FRAME_BYTES_MAX { Err(FrameError::TooLong(len)) } else { Ok(len) }
}

/// Whether bytes that were read ahead begin with a whole frame: reading it will not wait.
pub fn holds_frame(ahead: &[u8]) -> bool {
    let prefix = ahead.first_chunk::<4>().and_then(|prefix| frame_len(*prefix).ok());
    prefix.is_some_and(|len| ahead.len() - 4 >= len)
}

/// Decodes the bytes after the length.
///
/// # Errors
/// [`FrameError::Codec`] when they are no message of this protocol.
pub fn decode_frame<T: Serialize + DeserializeOwned>(body: &[u8]) -> Result<Frame<T>, FrameError> {
    Ok(codec::decode_strict(body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_frame_is_read_without_waiting() {
        let frame = encode_frame(&Frame { id: 7, body: Refusal::Invalid("no".to_owned()) }).expect("it is short");
        let two = [frame.clone(), frame.clone()].concat();
        assert!(holds_frame(&frame) && holds_frame(&two));
        assert!((0..frame.len()).all(|len| !holds_frame(&frame[..len])));
        assert!(!holds_frame(&[0xff; 4096]), "longer than any frame");
    }
}
