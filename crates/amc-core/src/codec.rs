//! Strict postcard: the one way in which AMC turns event bytes into values.
//!
//! `postcard::from_bytes` ignores trailing bytes and accepts overlong varints, so two byte strings
//! could mean the same value. Here nothing may be left over and re-encoding must give the input.

use postcard::ser_flavors::Flavor;
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
    encode_after(Vec::new(), value)
}

/// The same, after the bytes that are there already.
pub fn encode_after<T: Serialize + ?Sized>(mut bytes: Vec<u8>, value: &T) -> Vec<u8> {
    bytes.reserve(ENCODED_BYTES);
    let encoded = postcard::serialize_with_flavor(value, Growing(bytes));
    encoded.expect("serialising into a growing buffer has no failure for types of known length")
}

/// Room for most of what is encoded, so that it need not grow again and again.
const ENCODED_BYTES: usize = 512;

struct Growing(Vec<u8>);

impl Flavor for Growing {
    type Output = Vec<u8>;

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Vec<u8>> {
        Ok(self.0)
    }
}

/// Whether `bytes` are what `value` is encoded as.
fn is_encoding_of<T: Serialize>(bytes: &[u8], value: &T) -> bool {
    postcard::serialize_with_flavor(value, Compared(bytes)).is_ok_and(<[u8]>::is_empty)
}

/// What is left to be compared; the first difference is an error.
struct Compared<'a>(&'a [u8]);

impl<'a> Flavor for Compared<'a> {
    type Output = &'a [u8];

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0 = self.0.strip_prefix(bytes).ok_or(postcard::Error::SerializeBufferFull)?;
        Ok(())
    }

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        match self.0 {
            [first, rest @ ..] if *first == byte => self.0 = rest,
            _ => return Err(postcard::Error::SerializeBufferFull),
        }
        Ok(())
    }

    fn finalize(self) -> postcard::Result<&'a [u8]> {
        Ok(self.0)
    }
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
    if !is_encoding_of(bytes, &value) {
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
    fn what_differs_anywhere_is_not_canonical() {
        let value = ("text", 300_u32, vec![1_u8, 2]);
        let bytes = encode(&value);
        assert!(is_encoding_of(&bytes, &value) && encode_after(vec![9], &value)[1..] == bytes);
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert!(!is_encoding_of(&other, &value), "byte {at}");
            assert!(!is_encoding_of(&bytes[..at], &value), "cut at {at}");
        }
        assert!(!is_encoding_of(&[bytes, vec![0]].concat(), &value), "a byte more");
    }

    #[test]
    fn truncated_bytes_are_refused() {
        assert!(matches!(decode_strict::<String>(&[5, b'a']), Err(CodecError::Malformed(_))));
    }
}
