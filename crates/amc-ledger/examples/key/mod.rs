//! What an embedder brings: a key that signs, and a clock. A real key stays in a vault.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use amc_core::kinds::{LogOpened, Role};
use amc_core::{Clock, Digest};
use amc_crypto::note::{KeyKind, NoteSignature};
use amc_crypto::signer::{CheckpointSigner, EventSigner, SignError, event_message};
use amc_crypto::{Checkpoint, PublicKey, Signature, VerifierKey};
use amc_ledger::Signers;
use ed25519_dalek::{Signer as _, SigningKey};

const ORIGIN: &str = "example/evidence";

struct Key(SigningKey);

/// The key for both purposes, always the same one.
pub(crate) fn signers() -> Signers {
    let key = || Key(SigningKey::from_bytes(&[7; 32]));
    Signers { event: Arc::new(key()), checkpoint: Arc::new(key()) }
}

/// What a verifier pins.
pub(crate) fn pinned() -> VerifierKey {
    signers().checkpoint.verifier_key()
}

/// The first event of the log: who signs it, and who may witness it.
pub(crate) fn opened() -> LogOpened {
    let log_public = signers().event.public_key().to_digest();
    let (origin, software) = (ORIGIN.to_owned(), "example".to_owned());
    LogOpened { origin, role: Role::Monitor, log_public, witness_public: Digest([1; 32]), software, predecessor: None }
}

impl EventSigner for Key {
    fn origin(&self) -> &str {
        ORIGIN
    }
    fn public_key(&self) -> PublicKey {
        PublicKey::from_bytes(&self.0.verifying_key().to_bytes()).expect("a seed gives a good key")
    }
    fn sign_event(&self, event_hash: &Digest) -> Result<Signature, SignError> {
        Ok(Signature(self.0.sign(&event_message(ORIGIN, event_hash)).to_bytes()))
    }
}

impl CheckpointSigner for Key {
    fn verifier_key(&self) -> VerifierKey {
        VerifierKey::new(ORIGIN, KeyKind::Ed25519, self.public_key()).expect("a good name")
    }
    fn sign_checkpoint(&self, checkpoint: &Checkpoint) -> Result<NoteSignature, SignError> {
        let bytes = self.0.sign(checkpoint.text().as_bytes()).to_bytes().to_vec();
        Ok(NoteSignature { name: ORIGIN.to_owned(), key_id: self.verifier_key().key_id(), bytes })
    }
}

/// Wall time, and the time since this process began in place of the machine's boot clock.
pub(crate) struct Now(pub(crate) Instant);

impl Clock for Now {
    fn now(&self) -> amc_core::Instant {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |wall| wall.as_nanos());
        amc_core::Instant {
            wall_ns: i64::try_from(wall).unwrap_or(i64::MAX),
            boot_ns: u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX),
            boot_id: u128::from(std::process::id()).to_be_bytes(),
        }
    }
}
