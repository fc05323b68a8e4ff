//! Strict postcard: the one way in which AMC turns event bytes into values.
//!
//! `postcard::from_bytes` ignores trailing bytes and accepts overlong varints, so two byte strings
//! could mean the same value. Here nothing may be left over and re-encoding must give the input.

use serde::{Serialize, de::DeserializeOwned};

/// Why bytes are not the canonical encoding of a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes do not decode as the expected shape.
    #[error("the bytes do not decode: {0}")]
    Malformed(postcard::Error),
    /// The value decodes and bytes are left over.
    #[error("{0} bytes are left over after the value")]
    TrailingBytes(usize),
    /// The value decodes, but its encoding differs (an overlong integer, for example).
    #[error("the encoding is not canonical")]
    NotCanonical,
}

/// Encodes `value` as postcard. Serialising our own types into memory cannot fail.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("serialising into a growing buffer has no failure for types of known length")
}

/// Decodes canonical postcard: nothing left over, and the same bytes when encoded again.
///
/// # Errors
/// [`CodecError`] when the bytes are malformed, too long, or not canonical.
pub fn decode_strict<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, rest) = postcard::take_from_bytes::<T>(bytes).map_err(CodecError::Malformed)?;
    if !rest.is_empty() {
        return Err(CodecError::TrailingBytes(rest.len()));
    }
    if encode(&value) != bytes {
        return Err(CodecError::NotCanonical);
    }
    Ok(value)
}

/// Decodes what the bytes begin with, to look at it: nothing is said about what follows, and an
/// encoding that is not canonical passes. Never a substitute for [`decode_strict`].
///
/// # Errors
/// [`CodecError::Malformed`] when they do not begin with such a value.
pub fn decode_prefix<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    postcard::take_from_bytes::<T>(bytes).map(|(value, _)| value).map_err(CodecError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&7u64);
        bytes.push(0);
        assert_eq!(decode_strict::<u64>(&bytes), Err(CodecError::TrailingBytes(1)));
    }

    #[test]
    fn overlong_varint_is_refused() {
        // 0x80 0x00 is a two-byte spelling of zero.
        assert_eq!(decode_strict::<u64>(&[0x80, 0x00]), Err(CodecError::NotCanonical));
        assert_eq!(decode_strict::<u64>(&[0x00]), Ok(0));
    }

    #[test]
    fn truncated_bytes_are_refused() {
        assert!(matches!(decode_strict::<String>(&[5, b'a']), Err(CodecError::Malformed(_))));
    }
}
