//! The state of a log where a segment begins, so that opening replays the newest segment only.
//!
//! A snapshot is a convenience of the writer. Its size and root are compared with the signed
//! checkpoint beside it; the rest of it is found out by a full verification, which starts from
//! nothing. A snapshot in a layout of another release is passed over: the log is replayed instead.

use amc_core::Digest;
use amc_core::codec;
use amc_core::kinds::{Fields, KeyPurpose};
use amc_crypto::PublicKey;
use amc_evidence::{KeyHistory, LogState};
use serde::{Deserialize, Serialize};

use crate::tiles::{Edge, Tile};

/// The layout of a snapshot, its first byte. Raise it whenever [`LogState`] or anything else in it
/// changes its shape.
const LAYOUT: u8 = 1;

/// What stands in a `SNAP` frame.
#[derive(Debug)]
pub(crate) enum Stored {
    /// A snapshot of this release's layout.
    Known(Box<Snapshot>),
    /// Another release's layout.
    Foreign,
    /// Neither.
    Damaged,
}

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
        let mut bytes = vec![LAYOUT];
        bytes.extend(codec::encode(self));
        bytes
    }

    /// Decodes and checks that the parts fit each other and the index at which they should stand.
    pub(crate) fn decode(bytes: &[u8], index: u64) -> Stored {
        let Some((layout, rest)) = bytes.split_first() else { return Stored::Damaged };
        if *layout != LAYOUT {
            return Stored::Foreign;
        }
        let sound = |snapshot: &Snapshot| {
            snapshot.state.size() == index
                && snapshot.edge.size() == index
                && snapshot.edge.is_sound()
                && snapshot.key_history().is_some()
        };
        let snapshot = codec::decode_strict(rest).ok().filter(sound);
        snapshot.map_or(Stored::Damaged, |snapshot| Stored::Known(Box::new(snapshot)))
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
