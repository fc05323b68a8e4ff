//! The state of a log where a segment begins, so that opening replays the newest segment only.
//!
//! A snapshot is a convenience of the writer. Its size and root are compared with the signed
//! checkpoint beside it; the rest of it is found out by a full verification, which starts from
//! nothing.

use amc_core::Digest;
use amc_core::codec;
use amc_core::kinds::{Fields, KeyPurpose};
use amc_crypto::PublicKey;
use amc_evidence::{KeyHistory, LogState};
use serde::{Deserialize, Serialize};

use crate::tiles::{Edge, Tile};

/// State, tree edge, keys and the segments before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) state: LogState,
    pub(crate) edge: Edge,
    /// Log keys with the index from which each signs.
    keys: Vec<(u64, Digest)>,
    /// First index and length of every segment before this one.
    pub(crate) segments: Vec<(u64, u64)>,
}

impl Snapshot {
    /// Of an empty log.
    pub(crate) fn empty(origin: &str, key: PublicKey) -> Self {
        Snapshot {
            state: LogState::new(origin),
            edge: Edge::default(),
            keys: vec![(0, key.to_digest())],
            segments: Vec::new(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes and checks that the parts fit each other.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let snapshot: Snapshot = codec::decode_strict(bytes).ok()?;
        let sound = snapshot.edge.is_sound() && snapshot.edge.size() == snapshot.state.size();
        (sound && snapshot.key_history().is_some()).then_some(snapshot)
    }

    /// The keys by position.
    pub(crate) fn key_history(&self) -> Option<KeyHistory> {
        let spans = self.keys.iter().map(|(from, key)| Some((*from, PublicKey::try_from(*key).ok()?)));
        KeyHistory::from_spans(spans.collect::<Option<Vec<_>>>()?)
    }

    /// The key that signs the next event.
    pub(crate) fn newest_key(&self) -> Digest {
        self.keys.last().map_or(Digest::ZERO, |(_, key)| *key)
    }

    /// The key that signs a checkpoint of this size: the one that signed the last event in it.
    pub(crate) fn checkpoint_key(&self, size: u64) -> Option<PublicKey> {
        Some(self.key_history()?.key_at(size.saturating_sub(1)))
    }

    /// Takes in an event that `state` has taken in already.
    pub(crate) fn follow(&mut self, fields: Option<&Fields>, hash: Digest, full: impl FnMut(Tile)) {
        self.edge.push(hash, full);
        if let Some(Fields::KeyRotated(rotated)) = fields
            && rotated.purpose == KeyPurpose::Log
        {
            self.keys.push((self.state.size(), rotated.public));
        }
    }
}
