//! Tables in which the events that were gathered together share entries: an entry for each event is most of what feeding
//! costs, and most of the index's size.

use std::ops::Range;

use amc_core::codec::{decode_strict, encode};
use amc_core::{AgentId, Digest};

use crate::error::IndexError;

/// Bytes of a digest that are kept; the first of them is the bucket.
const DIGEST_BYTES: usize = 16;

/// Indices by digest. Key: the bucket (the digest's first byte) and the first index in it; value: the rest of each
/// digest, and its index from there. Who looks up reads a bucket, which is a 256th of the table.
pub(super) struct Digests(sled::Tree);

type Bucket = Vec<([u8; DIGEST_BYTES - 1], u64)>;

impl Digests {
    pub(super) const fn new(tree: sled::Tree) -> Self {
        Digests(tree)
    }

    pub(super) const fn tree(&self) -> &sled::Tree {
        &self.0
    }

    pub(super) fn add(&self, mut gathered: Vec<(Digest, u64)>) -> Result<(), sled::Error> {
        gathered.sort_unstable();
        for bucket in gathered.chunk_by(|a, b| a.0.0[0] == b.0.0[0]) {
            let first = bucket.iter().map(|(_, index)| *index).min().unwrap_or_default();
            let values: Bucket = bucket.iter().map(|(digest, index)| (rest(digest), index - first)).collect();
            let key = [&bucket[0].0.0[..1], &first.to_be_bytes()].concat();
            self.0.insert(key, encode(&values))?;
        }
        Ok(())
    }

    /// Ascending, each once.
    pub(super) fn get(&self, digest: &Digest) -> Result<Vec<u64>, IndexError> {
        let (wanted, mut indices) = (rest(digest), Vec::new());
        for entry in self.0.scan_prefix(&digest.0[..1]) {
            let (key, value) = entry?;
            let bucket: Bucket = decode_strict(&value).map_err(|error| IndexError::Unavailable(error.to_string()))?;
            let found = bucket.iter().filter(|(rest, _)| *rest == wanted);
            indices.extend(found.map(|(_, from_first)| super::number(&key).saturating_add(*from_first)));
        }
        // What a crash had fed twice stands in two entries.
        indices.sort_unstable();
        indices.dedup();
        Ok(indices)
    }
}

fn rest(digest: &Digest) -> [u8; DIGEST_BYTES - 1] {
    *digest.0[1..].first_chunk().expect("a digest is longer")
}

/// Indices by agent and wall time. Key: the agent, a zero byte (no id has one), the latest time so that it sorts, and the
/// first index; value: the earliest time, and of each event its time and index from there.
pub(super) struct Times(sled::Tree);

type Gathered = (i64, Vec<(u64, u64)>);

impl Times {
    pub(super) const fn new(tree: sled::Tree) -> Self {
        Times(tree)
    }

    pub(super) const fn tree(&self) -> &sled::Tree {
        &self.0
    }

    /// Events as (wall time, index), by index.
    pub(super) fn add(&self, agent: &AgentId, events: &[(i64, u64)]) -> Result<(), sled::Error> {
        let times = events.iter().map(|(wall_ns, _)| *wall_ns);
        let (Some(earliest), Some(latest), Some((_, first))) = (times.clone().min(), times.max(), events.first())
        else {
            return Ok(());
        };
        let from_there = |(wall_ns, index): &(i64, u64)| (wall_ns.abs_diff(earliest), index - first);
        let value: Gathered = (earliest, events.iter().map(from_there).collect());
        self.0.insert(time_key(agent, latest, *first), encode(&value))?;
        Ok(())
    }

    /// By time, then index, each once.
    pub(super) fn get(&self, agent: &AgentId, span_ns: Range<i64>) -> Result<Vec<u64>, IndexError> {
        if span_ns.is_empty() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        let all = time_key(agent, span_ns.start, 0)..=time_key(agent, i64::MAX, u64::MAX);
        for entry in self.0.range(all) {
            let (key, value) = entry?;
            let gathered = decode_strict::<Gathered>(&value);
            let (earliest, events) = gathered.map_err(|error| IndexError::Unavailable(error.to_string()))?;
            let first = super::number(&key);
            let events = events.into_iter().map(|(after_ns, from_first)| {
                (earliest.saturating_add_unsigned(after_ns), first.saturating_add(from_first))
            });
            found.extend(events.filter(|(wall_ns, _)| span_ns.contains(wall_ns)));
        }
        found.sort_unstable();
        found.dedup();
        Ok(found.into_iter().map(|(_, index)| index).collect())
    }
}

fn time_key(agent: &AgentId, wall_ns: i64, first: u64) -> Vec<u8> {
    let time = wall_ns.cast_unsigned() ^ (1 << 63);
    [agent.as_str().as_bytes(), &[0], &time.to_be_bytes(), &first.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> sled::Tree {
        let database = sled::Config::new().temporary(true).open().expect("opens");
        database.open_tree("table").expect("opens")
    }

    #[test]
    fn digests_of_one_bucket_are_told_apart_and_known_once() {
        let digest = |bucket: u8, last: u8| {
            let mut digest = Digest::ZERO;
            (digest.0[0], digest.0[DIGEST_BYTES - 1]) = (bucket, last);
            digest
        };
        let table = Digests::new(tree());
        let gathered = vec![(digest(7, 1), 300), (digest(7, 2), 301), (digest(8, 1), 302), (digest(7, 1), 303)];
        table.add(gathered.clone()).expect("adds");
        table.add(gathered[1..].to_vec()).expect("adds again, after a crash, what begins elsewhere");
        table.add(vec![(digest(7, 2), 999)]).expect("adds");
        assert_eq!(table.get(&digest(7, 1)).expect("looks up"), [300, 303]);
        assert_eq!(table.get(&digest(7, 2)).expect("looks up"), [301, 999]);
        assert_eq!(table.get(&digest(8, 1)).expect("looks up"), [302]);
        assert_eq!(table.get(&digest(8, 2)).expect("looks up"), [0; 0]);
    }

    #[test]
    fn an_agents_events_are_found_by_time_across_gatherings_and_a_clock_that_went_back() {
        let (bot, other) = (AgentId::new("bot").expect("an id"), AgentId::new("bot2").expect("an id"));
        let table = Times::new(tree());
        table.add(&bot, &[(100, 1), (110, 3), (105, 4)]).expect("adds");
        table.add(&bot, &[(102, 5), (-7, 6)]).expect("adds");
        table.add(&bot, &[(102, 5), (-7, 6), (300, 9)]).expect("adds again, after a crash");
        table.add(&other, &[(101, 2)]).expect("adds");
        let found = |span| table.get(&bot, span).expect("looks up");
        assert_eq!(found(i64::MIN..i64::MAX), [6, 1, 5, 4, 3, 9]);
        assert_eq!(found(100..110), [1, 5, 4], "the start counts, the end does not");
        assert_eq!(found(111..300), [0; 0]);
        assert_eq!(found(-7..101), [6, 1]);
        let backwards = Range { start: 9, end: 3 };
        assert_eq!(found(backwards), [0; 0]);
        assert_eq!(table.get(&other, 0..200).expect("looks up"), [2]);
    }
}
