//! Ed25519 public keys and signatures (RFC 8032), verified strictly.
//!
//! "Strict" refuses small-order and non-canonical points and scalars, so nobody can turn a signature
//! into another one for the same message and key, and no key verifies everything.

use std::fmt;

use amc_core::Digest;
use curve25519_dalek::edwards::EdwardsPoint;
use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::batch;

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

/// A signature, and what it is said to cover.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The pinned key.
    pub key: PublicKey,
    /// What it is said to have signed.
    pub message: &'a [u8],
    /// The signature.
    pub signature: &'a Signature,
}

/// Below this many signatures a batch is no faster than one by one.
const BATCH_MIN: usize = 8;

/// Verifies many signatures together, several times faster than one by one; says of each whether
/// it holds. A batch that does not hold is decided again one by one, strictly.
///
/// A batch does not see one thing that [`PublicKey::verify`] does: a point R with a component of
/// small order. Only the holder of the private key can make such a signature, for a message that
/// it signs thereby, so nobody else gains from it; what a few signatures decide (a receipt, a
/// proof, a cosignature) is verified strictly. Encodings of R that are not canonical and points of
/// small order are never given to a batch.
pub fn verify_all(claims: &[Claim<'_>]) -> Vec<bool> {
    let strictly = |claim: &Claim<'_>| claim.key.verify(claim.message, claim.signature).is_ok();
    let (batch, odd): (Vec<&Claim<'_>>, Vec<&Claim<'_>>) =
        claims.iter().partition(|claim| has_ordinary_point(claim.signature));
    if batch.len() < BATCH_MIN || !batch::hold_together(&batch) {
        return claims.iter().map(strictly).collect();
    }
    if odd.is_empty() {
        return vec![true; claims.len()];
    }
    claims.iter().map(|claim| has_ordinary_point(claim.signature) || strictly(claim)).collect()
}

/// The y coordinates of the eight points of small order, little-endian: 0, 1, -1, and two of order 8.
const SMALL_ORDER_Y: [[u8; 32]; 5] = [
    [0; 32],
    {
        let mut one = [0; 32];
        one[0] = 1;
        one
    },
    {
        let mut minus_one = [0xff; 32];
        minus_one[0] = 0xec;
        minus_one[31] = 0x7f;
        minus_one
    },
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
];

/// Whether R is encoded canonically (y below 2^255 - 19) and not of small order.
fn has_ordinary_point(signature: &Signature) -> bool {
    let mut y: [u8; 32] = *signature.0.first_chunk().expect("64 bytes begin with 32");
    y[31] &= 0x7f;
    let is_above = y[0] >= 0xed && y[31] == 0x7f && y[1..31].iter().all(|byte| *byte == 0xff);
    !is_above && !SMALL_ORDER_Y.contains(&y)
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

    /// The point itself.
    pub(crate) fn point(&self) -> EdwardsPoint {
        self.0.to_edwards()
    }

    #[cfg(test)]
    pub(crate) const fn verifying_key(&self) -> VerifyingKey {
        self.0
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
    fn the_list_of_small_order_is_what_the_curve_says() {
        for (at, y) in SMALL_ORDER_Y.into_iter().enumerate() {
            for sign in [0, 0x80] {
                let mut bytes = y;
                bytes[31] |= sign;
                let point = VerifyingKey::from_bytes(&bytes);
                assert!(point.is_ok_and(|point| point.is_weak()), "y number {at}, sign {sign}");
                let mut signature = Signature([1; 64]);
                signature.0[..32].copy_from_slice(&bytes);
                assert!(!has_ordinary_point(&signature));
            }
        }
    }

    /// Signatures of one key over numbered messages.
    fn signed(count: u8) -> (PublicKey, Vec<(Vec<u8>, Signature)>) {
        use ed25519_dalek::Signer as _;
        let signer = ed25519_dalek::SigningKey::from_bytes(&[0x42; 32]);
        let key = PublicKey::from_bytes(&signer.verifying_key().to_bytes()).expect("a good key");
        let sign = |number| (vec![number], Signature(signer.sign(&[number]).to_bytes()));
        (key, (0..count).map(sign).collect())
    }

    fn all(key: PublicKey, signed: &[(Vec<u8>, Signature)]) -> Vec<bool> {
        let claim = |(message, signature)| Claim { key, message, signature };
        verify_all(
            &signed.iter().map(|(message, signature)| claim((message.as_slice(), signature))).collect::<Vec<_>>(),
        )
    }

    #[test]
    fn a_batch_names_the_signatures_that_do_not_hold() {
        let (key, good) = signed(40);
        assert_eq!(all(key, &good), [true; 40]);
        assert_eq!(all(key, &good[..3]), [true; 3], "too few for a batch");
        assert_eq!(all(key, &[]), [true; 0]);
        for bit in [0, 255, 256, 511] {
            let mut bad = good.clone();
            bad[17].1.0[bit / 8] ^= 1 << (bit % 8);
            bad[30].0.push(0);
            let wanted: Vec<bool> = (0..40).map(|at| at != 17 && at != 30).collect();
            assert_eq!(all(key, &bad), wanted, "bit {bit}");
        }
        let (mut swapped, other) = (good.clone(), good[1].1);
        swapped[0].1 = other;
        assert!(!all(key, &swapped)[0], "another message's signature");
    }

    #[test]
    fn a_batch_decides_odd_points_one_by_one() {
        let (key, mut odd) = signed(40);
        odd[5].1.0[..32].copy_from_slice(&SMALL_ORDER_Y[3]);
        odd[6].1.0[..32].copy_from_slice(&[0xff; 32]);
        let wanted: Vec<bool> = (0..40).map(|at| at != 5 && at != 6).collect();
        assert_eq!(all(key, &odd), wanted);
    }

    #[test]
    fn key_ids_are_those_of_securesystemslib() {
        let signer = ed25519_dalek::SigningKey::from_bytes(&[0x42; 32]);
        let key = PublicKey::from_bytes(&signer.verifying_key().to_bytes()).expect("a good key");
        assert_eq!(key.dsse_key_id().len(), 64);
        assert!(amc_core::digest::unhex(&key.dsse_key_id()).is_some());
    }
}
