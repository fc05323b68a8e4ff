//! Ed25519 public keys and signatures (RFC 8032), verified strictly.
//!
//! "Strict" refuses small-order and non-canonical points and scalars, so nobody can turn a signature
//! into another one for the same message and key, and no key verifies everything.

use std::fmt;

use amc_core::Digest;
use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An Ed25519 public key: a point in its one encoding, and not of small order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

/// Bytes that are no usable Ed25519 public key, or a signature that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The bytes are not a point, not canonical, or a point of small order.
    #[error("the 32 bytes are not a usable Ed25519 public key")]
    NotAKey,
    /// The signature does not verify under this key.
    #[error("the signature does not verify")]
    BadSignature,
}

/// The 64 bytes of an Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

impl PublicKey {
    /// Takes the 32 bytes of RFC 8032.
    ///
    /// # Errors
    /// [`KeyError::NotAKey`] for anything that strict verification would never accept.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::NotAKey)?;
        // Decompression accepts non-canonical encodings; the canonical one must give these bytes.
        if key.is_weak() || key.to_edwards().compress().as_bytes() != bytes {
            return Err(KeyError::NotAKey);
        }
        Ok(PublicKey(key))
    }

    /// The 32 bytes of RFC 8032.
    pub fn to_bytes(self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The bytes as a digest-shaped value, as events carry them.
    pub fn to_digest(self) -> Digest {
        Digest(self.to_bytes())
    }

    /// Verifies `signature` over `message`, strictly.
    ///
    /// # Errors
    /// [`KeyError::BadSignature`] when it does not hold.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), KeyError> {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        self.0.verify_strict(message, &signature).map_err(|_| KeyError::BadSignature)
    }

    /// The key id of in-toto and securesystemslib: SHA-256 of the key's canonical JSON, in hex.
    pub fn dsse_key_id(&self) -> String {
        let public = amc_core::digest::hex(&self.to_bytes());
        let json = format!(r#"{{"keytype":"ed25519","keyval":{{"public":"{public}"}},"scheme":"ed25519"}}"#);
        crate::sha256(json.as_bytes()).to_string()
    }
}

impl TryFrom<Digest> for PublicKey {
    type Error = KeyError;
    fn try_from(bytes: Digest) -> Result<Self, KeyError> {
        Self::from_bytes(&bytes.0)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", amc_core::digest::hex(&self.to_bytes()))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({}…)", amc_core::digest::hex(&self.0[..8]))
    }
}

impl TryFrom<&[u8]> for Signature {
    type Error = KeyError;
    fn try_from(bytes: &[u8]) -> Result<Self, KeyError> {
        bytes.try_into().map(Signature).map_err(|_| KeyError::BadSignature)
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&amc_core::digest::hex(&self.0))
        } else {
            let (low, high) = self.0.split_at(32);
            (<&[u8; 32]>::try_from(low).expect("half of 64"), <&[u8; 32]>::try_from(high).expect("half of 64"))
                .serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = if deserializer.is_human_readable() {
            amc_core::digest::unhex(&String::deserialize(deserializer)?)
                .ok_or_else(|| de::Error::custom("a signature is 128 lowercase hex digits"))?
        } else {
            let (low, high) = <([u8; 32], [u8; 32])>::deserialize(deserializer)?;
            [low, high].concat()
        };
        Signature::try_from(bytes.as_slice()).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_order_and_non_canonical_points_are_no_keys() {
        assert_eq!(PublicKey::from_bytes(&[0; 32]), Err(KeyError::NotAKey), "order 4");
        let mut identity = [0; 32];
        identity[0] = 1;
        assert_eq!(PublicKey::from_bytes(&identity), Err(KeyError::NotAKey), "order 1");
        let mut above_p = [0xff; 32];
        above_p[0] = 0xee;
        above_p[31] = 0x7f;
        assert_eq!(PublicKey::from_bytes(&above_p), Err(KeyError::NotAKey), "y = p + 1");
    }

    #[test]
    fn key_ids_are_those_of_securesystemslib() {
        let signer = ed25519_dalek::SigningKey::from_bytes(&[0x42; 32]);
        let key = PublicKey::from_bytes(&signer.verifying_key().to_bytes()).expect("a good key");
        assert_eq!(key.dsse_key_id().len(), 64);
        assert!(amc_core::digest::unhex(&key.dsse_key_id()).is_some());
    }
}
