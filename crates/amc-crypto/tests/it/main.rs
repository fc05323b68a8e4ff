//! The verifying crate as others use it: published vectors, other implementations, and what an
//! attacker would send. Keys come from ed25519-dalek directly; this crate has none.

mod dsse;
mod jws;
mod multiproof;
mod note;
mod parsers;
mod policy;
mod proof;
mod trees;
mod vectors;
mod wycheproof;

use amc_crypto::note::{KeyKind, NoteSignature, VerifierKey, cosignature_message};
use amc_crypto::{Checkpoint, PublicKey, Signature};
use ed25519_dalek::{Signer as _, SigningKey};

/// A key that signs, by the byte that its seed repeats.
struct TestKey {
    signing: SigningKey,
    verifier: VerifierKey,
}

impl TestKey {
    fn log(name: &str, seed: u8) -> Self {
        TestKey::new(name, seed, KeyKind::Ed25519)
    }

    fn witness(name: &str, seed: u8) -> Self {
        TestKey::new(name, seed, KeyKind::Cosignature)
    }

    fn new(name: &str, seed: u8, kind: KeyKind) -> Self {
        let signing = SigningKey::from_bytes(&[seed; 32]);
        let public = PublicKey::from_bytes(&signing.verifying_key().to_bytes()).expect("a good key");
        TestKey { signing, verifier: VerifierKey::new(name, kind, public).expect("a good name") }
    }

    fn public(&self) -> PublicKey {
        self.verifier.public()
    }

    fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.signing.sign(message).to_bytes())
    }

    fn line(&self, bytes: Vec<u8>) -> NoteSignature {
        NoteSignature { name: self.verifier.name().to_owned(), key_id: self.verifier.key_id(), bytes }
    }

    fn sign_text(&self, text: &str) -> NoteSignature {
        self.line(self.sign(text.as_bytes()).0.to_vec())
    }

    fn cosign_text(&self, text: &str, time_s: u64) -> NoteSignature {
        let signature = self.sign(&cosignature_message(text, time_s));
        self.line([&time_s.to_be_bytes()[..], &signature.0].concat())
    }
}

fn checkpoint(origin: &str) -> Checkpoint {
    Checkpoint { origin: origin.to_owned(), size: 3, root: amc_crypto::sha256(b"root") }
}
