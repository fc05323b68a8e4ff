//! Many Ed25519 signatures of few keys, verified together (Bernstein, Duif, Lange, Schwabe, Yang: *High-speed
//! high-security signatures*, section 5).
//!
//! ```text
//! h = SHA-512(R ‖ A ‖ M)      z: 128 bits each, from SHA-512 of all that is verified
//! Σ z·R + Σ over keys (Σ z·h)·A − (Σ z·s)·B = 0
//! ```
//!
//! The terms of one key are one term, and a log has one key for long stretches: half of the points of the usual
//! equation are not there. Whoever makes the signatures cannot choose z, since it depends on every bit of them. The
//! equation is without the cofactor, as in strict verification of one; [`crate::key::verify_all`] says what remains.

use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::{IsIdentity as _, VartimeMultiscalarMul as _};
use sha2::{Digest as _, Sha512};

use crate::key::{Claim, PublicKey};

/// What the numbers z are derived for.
const CONTEXT: &[u8] = b"amc/ed25519-batch/v1\n";

/// Whether all of these hold; `false` as soon as one does not, whichever it is.
pub(crate) fn hold_together(claims: &[&Claim<'_>]) -> bool {
    let Some(read) = claims.iter().map(|claim| Read::new(claim)).collect::<Option<Vec<_>>>() else { return false };
    let mut factors = Factors::over(&read);
    let mut base = Scalar::ZERO;
    let mut keys: Vec<(PublicKey, Scalar)> = Vec::new();
    let mut scalars = Vec::with_capacity(read.len() + 4);
    for Read { key, h, s, .. } in &read {
        let z = factors.next();
        base -= z * s;
        match keys.iter_mut().find(|(known, _)| known == key) {
            Some((_, sum)) => *sum += z * h,
            None => keys.push((*key, z * h)),
        }
        scalars.push(z);
    }
    scalars.push(base);
    scalars.extend(keys.iter().map(|(_, sum)| *sum));
    let points = read.iter().map(|read| read.r.decompress());
    let points = points.chain([Some(ED25519_BASEPOINT_POINT)]).chain(keys.iter().map(|(key, _)| Some(key.point())));
    EdwardsPoint::optional_multiscalar_mul(scalars, points).is_some_and(|sum| sum.is_identity())
}

/// A claim with what its signature says.
struct Read {
    key: PublicKey,
    r: CompressedEdwardsY,
    s: Scalar,
    h: Scalar,
}

impl Read {
    /// `None` for an s that is not reduced, which no strict verification takes.
    fn new(claim: &Claim<'_>) -> Option<Self> {
        let (r, s) = claim.signature.0.split_first_chunk::<32>()?;
        let s = Option::from(Scalar::from_canonical_bytes(s.try_into().ok()?))?;
        let hash = Sha512::new().chain_update(r).chain_update(claim.key.to_bytes()).chain_update(claim.message);
        let h = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
        Some(Read { key: claim.key, r: CompressedEdwardsY(*r), s, h })
    }
}

/// The numbers z, four from each hash.
struct Factors {
    seed: [u8; 64],
    block: [u8; 64],
    used: u64,
}

impl Factors {
    fn over(all: &[Read]) -> Self {
        let mut hasher = Sha512::new();
        hasher.update(CONTEXT);
        for Read { key, r, s, h } in all {
            // h covers the message.
            hasher.update(key.to_bytes());
            hasher.update(r.as_bytes());
            hasher.update(s.as_bytes());
            hasher.update(h.as_bytes());
        }
        Factors { seed: hasher.finalize().into(), block: [0; 64], used: 0 }
    }

    fn next(&mut self) -> Scalar {
        let (block, part) = (self.used / 4, usize::try_from(self.used % 4).expect("below four"));
        if part == 0 {
            self.block = Sha512::new().chain_update(self.seed).chain_update(block.to_le_bytes()).finalize().into();
        }
        self.used += 1;
        let bytes = *self.block[part * 16..].first_chunk().expect("four parts of 16 bytes");
        Scalar::from(u128::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;
    use crate::key::Signature;

    struct Signed {
        key: PublicKey,
        message: Vec<u8>,
        signature: Signature,
    }

    /// Signatures of three keys in turn.
    fn signed(count: u8) -> Vec<Signed> {
        let keys = [1, 2, 3].map(|seed| SigningKey::from_bytes(&[seed; 32]));
        let sign = |number: u8| {
            let key = &keys[usize::from(number % 3)];
            let public = PublicKey::from_bytes(&key.verifying_key().to_bytes()).expect("a good key");
            let message = vec![number; usize::from(number)];
            let signature = Signature(key.sign(&message).to_bytes());
            Signed { key: public, message, signature }
        };
        (0..count).map(sign).collect()
    }

    fn hold(signed: &[Signed]) -> bool {
        let claim = |signed: &'_ Signed| -> (PublicKey, Vec<u8>, Signature) {
            (signed.key, signed.message.clone(), signed.signature)
        };
        let owned: Vec<_> = signed.iter().map(claim).collect();
        let claims: Vec<Claim<'_>> =
            owned.iter().map(|(key, message, signature)| Claim { key: *key, message, signature }).collect();
        hold_together(&claims.iter().collect::<Vec<_>>())
    }

    #[test]
    fn good_signatures_of_several_keys_hold_together() {
        for count in [0, 1, 2, 3, 8, 100] {
            assert!(hold(&signed(count)), "{count}");
        }
    }

    #[test]
    fn every_bit_of_every_part_matters() {
        for bit in 0..512 {
            let mut all = signed(9);
            all[4].signature.0[bit / 8] ^= 1 << (bit % 8);
            assert!(!hold(&all), "bit {bit} of a signature");
        }
        let mut all = signed(9);
        all[8].message[0] ^= 1;
        assert!(!hold(&all), "another message");
        let mut all = signed(9);
        all[0].key = all[1].key;
        assert!(!hold(&all), "another key");
    }

    #[test]
    fn two_wrongs_do_not_make_a_right() {
        // What one has too much the other has too little: with factors of anybody's choice this would hold.
        let mut all = signed(9);
        let s = |signed: &Signed| Scalar::from_canonical_bytes(*signed.signature.0[32..].first_chunk().expect("32"));
        for (at, add) in [(2, Scalar::ONE), (5, -Scalar::ONE)] {
            let sum = Option::<Scalar>::from(s(&all[at])).expect("reduced") + add;
            all[at].signature.0[32..].copy_from_slice(sum.as_bytes());
        }
        assert_eq!(all[2].key, all[5].key);
        assert!(!hold(&all));
        // Two signatures of one key, each for the other's message.
        let mut all = signed(9);
        let (one, other) = (all[2].signature, all[5].signature);
        (all[2].signature, all[5].signature) = (other, one);
        assert!(!hold(&all));
    }

    #[test]
    fn an_s_beyond_the_order_is_refused() {
        let mut all = signed(9);
        // The order, little-endian, added to s: the same number, in a second spelling.
        let order = Scalar::ZERO - Scalar::ONE;
        let mut carry = 1u16;
        for (byte, more) in all[3].signature.0[32..].iter_mut().zip(order.as_bytes()) {
            let sum = u16::from(*byte) + u16::from(*more) + carry;
            *byte = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
        assert!(!hold(&all));
    }

    #[test]
    fn it_says_what_the_library_says() {
        let all = signed(60);
        let messages: Vec<&[u8]> = all.iter().map(|signed| signed.message.as_slice()).collect();
        let keys: Vec<_> = all.iter().map(|signed| signed.key.verifying_key()).collect();
        for flipped in [None, Some(7), Some(59)] {
            let mut signatures: Vec<_> = all.iter().map(|signed| signed.signature.0).collect();
            if let Some(at) = flipped {
                signatures[at][40] ^= 1;
            }
            let theirs: Vec<_> = signatures.iter().map(ed25519_dalek::Signature::from_bytes).collect();
            let ours: Vec<Signed> = signed(60)
                .into_iter()
                .zip(&signatures)
                .map(|(signed, signature)| Signed { signature: Signature(*signature), ..signed })
                .collect();
            assert_eq!(hold(&ours), ed25519_dalek::verify_batch(&messages, &theirs, &keys).is_ok(), "{flipped:?}");
        }
    }
}
