//! Stored bytes become a [`VerifiedEvent`]: canonical, and signed by the key valid at its index.

use amc_core::Digest;
use amc_core::kinds::{Fields, KeyPurpose};
use amc_crypto::key::{Claim, verify_all};
use amc_crypto::signer::event_message;
use amc_crypto::trust::CheckAll;
use amc_crypto::{Check, PublicKey, Signature, Verified};

use crate::event::{Event, EventError, SignedEvent};

/// An event with its decoded fields and its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRecord {
    /// The envelope.
    pub event: Event,
    /// The fields; `None` for a kind that this release does not know.
    pub fields: Option<Fields>,
    /// The event_hash.
    pub hash: Digest,
    /// The bytes and the signature as they were received.
    pub signed: SignedEvent,
}

/// An event whose bytes are canonical and whose signature holds under the key valid at its index.
pub type VerifiedEvent = Verified<EventRecord>;

/// The log and the keys under which its events are to be verified.
#[derive(Debug, Clone)]
pub struct EventTrust<'a> {
    /// The log's origin.
    pub origin: &'a str,
    /// The keys of that log.
    pub keys: &'a KeyHistory,
}

/// Bytes that are no event of this log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Not a canonical event.
    #[error(transparent)]
    Event(#[from] EventError),
    /// The key valid at this index did not sign it.
    #[error("the signature of event {index} does not verify under the key valid at that index")]
    Signature {
        /// The event's index, as it says.
        index: u64,
    },
}

impl Check<SignedEvent> for EventTrust<'_> {
    type Output = EventRecord;
    type Error = VerifyError;

    fn check(&self, signed: SignedEvent) -> Result<EventRecord, VerifyError> {
        let (event, fields) = Event::decode(&signed.body)?;
        let hash = signed.event_hash();
        let key = self.keys.key_at(event.index);
        key.verify(&event_message(self.origin, &hash), &signed.signature)
            .map_err(|_| VerifyError::Signature { index: event.index })?;
        Ok(EventRecord { event, fields, hash, signed })
    }
}

impl CheckAll<SignedEvent> for EventTrust<'_> {
    fn check_all(&self, values: Vec<SignedEvent>) -> Vec<Result<EventRecord, VerifyError>> {
        let decoded: Vec<_> = values.iter().map(|signed| Event::decode(&signed.body)).collect();
        let hashes: Vec<Digest> = values.iter().map(SignedEvent::event_hash).collect();
        let messages: Vec<Vec<u8>> = hashes.iter().map(|hash| event_message(self.origin, hash)).collect();
        let claims = values.iter().zip(&messages).zip(&decoded).filter_map(|((signed, message), decoded)| {
            let (event, _) = decoded.as_ref().ok()?;
            Some(Claim { key: self.keys.key_at(event.index), message, signature: &signed.signature })
        });
        let mut holds = verify_all(&claims.collect::<Vec<_>>()).into_iter();
        let decide = |((signed, hash), decoded): ((SignedEvent, Digest), Result<_, EventError>)| {
            let (event, fields): (Event, Option<Fields>) = decoded?;
            if holds.next() == Some(true) {
                Ok(EventRecord { event, fields, hash, signed })
            } else {
                Err(VerifyError::Signature { index: event.index })
            }
        };
        values.into_iter().zip(hashes).zip(decoded).map(decide).collect()
    }
}

/// What is kept of an event that verified, so that the same bytes need not be held to count again: a digest over body
/// and signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen(Digest);

impl Seen {
    /// Of an event that verified.
    pub fn of(event: &VerifiedEvent) -> Self {
        Self::digest(&event.hash, &event.signed)
    }

    fn digest(hash: &Digest, signed: &SignedEvent) -> Self {
        Seen(amc_crypto::sha256(&[hash.0.as_slice(), &signed.signature.0].concat()))
    }
}

/// Bytes read again that are not those that verified.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the bytes of an event changed after they were verified")]
pub struct Changed;

impl Check<SignedEvent> for Seen {
    type Output = EventRecord;
    type Error = Changed;

    fn check(&self, signed: SignedEvent) -> Result<EventRecord, Changed> {
        let hash = signed.event_hash();
        if Self::digest(&hash, &signed) != *self {
            return Err(Changed);
        }
        let (event, fields) = Event::decode(&signed.body).map_err(|_| Changed)?;
        Ok(EventRecord { event, fields, hash, signed })
    }
}

/// As [`Seen`], where the event_hash is kept for other reasons too. The signature is not looked at again, and so the
/// record has none, and no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenHash(Digest);

impl SeenHash {
    /// Of an event that verified.
    pub fn of(event: &VerifiedEvent) -> Self {
        SeenHash(event.hash)
    }

    /// The event_hash.
    pub const fn event_hash(&self) -> Digest {
        self.0
    }
}

impl Check<SignedEvent> for SeenHash {
    type Output = EventRecord;
    type Error = Changed;

    fn check(&self, signed: SignedEvent) -> Result<EventRecord, Changed> {
        if signed.event_hash() != self.0 {
            return Err(Changed);
        }
        let (event, fields) = Event::decode(&signed.body).map_err(|_| Changed)?;
        let signed = SignedEvent { body: Vec::new(), signature: Signature([0; 64]) };
        Ok(EventRecord { event, fields, hash: self.0, signed })
    }
}

/// The log keys of one log by position: the pinned one from 0, each next from where it was
/// introduced by an event that the one before signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyHistory {
    spans: Vec<(u64, PublicKey)>,
}

impl KeyHistory {
    /// Starts at the pinned key.
    pub fn pinned(key: PublicKey) -> Self {
        KeyHistory { spans: vec![(0, key)] }
    }

    /// A history from its spans: the index from which each key signs, and the key. `None` unless
    /// the first begins at 0 and the indices ascend.
    pub fn from_spans(spans: Vec<(u64, PublicKey)>) -> Option<Self> {
        let sound = spans.first().is_some_and(|(from, _)| *from == 0) && spans.is_sorted_by(|a, b| a.0 < b.0);
        sound.then_some(KeyHistory { spans })
    }

    /// The index from which each key signs, and the key; ascending.
    pub fn spans(&self) -> &[(u64, PublicKey)] {
        &self.spans
    }

    /// The key that signs the event at `index`.
    pub fn key_at(&self, index: u64) -> PublicKey {
        let after = self.spans.partition_point(|(from, _)| *from <= index);
        self.spans[after - 1].1
    }

    /// The newest key.
    pub fn newest(&self) -> PublicKey {
        self.spans[self.spans.len() - 1].1
    }

    /// Takes note of a verified event, in log order: a rotation counts from the next index on.
    /// `false` when the event names a key that no signature could verify under.
    pub fn observe(&mut self, record: &VerifiedEvent) -> bool {
        let Some(Fields::KeyRotated(rotated)) = &record.fields else { return true };
        if rotated.purpose != KeyPurpose::Log {
            return true;
        }
        match PublicKey::try_from(rotated.public) {
            Ok(key) => {
                self.spans.push((record.event.index + 1, key));
                true
            }
            Err(_) => false,
        }
    }
}
