//! RFC 6962 trees: the frontier of a growing log, proofs read from stored subtrees, and the checks.
//!
//! Three proofs are known here: inclusion of one leaf, consistency of two sizes, and a multiproof
//! of many leaves. A multiproof's hashes stand in rs_merkle's order: level by level from the
//! leaves, left to right. It is checked in one pass that holds one hash per level, which rs_merkle
//! itself cannot; the tests hold both against each other.

use std::borrow::Borrow;

use amc_core::Digest;
use serde::{Deserialize, Serialize};

use crate::hash::node_hash;

/// A proof that does not hold, or that cannot be asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Index or sizes make no sense together.
    #[error("the index or the sizes do not fit a tree: {0}")]
    OutOfRange(&'static str),
    /// The proof has another number of hashes than its place in the tree needs.
    #[error("the proof has {found} hashes where {wanted} are needed")]
    WrongLength {
        /// Hashes that the place needs.
        wanted: usize,
        /// Hashes that are there.
        found: usize,
    },
    /// The hashes lead to another root.
    #[error("the proof leads to another root")]
    WrongRoot,
}

/// The right edge of a growing tree: one hash per complete subtree, largest first.
///
/// Appending is O(1) amortised, the root O(log n). Never more than 64 hashes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "FrontierParts")]
pub struct Frontier {
    size: u64,
    peaks: Vec<Digest>,
}

#[derive(Deserialize)]
struct FrontierParts {
    size: u64,
    peaks: Vec<Digest>,
}

impl TryFrom<FrontierParts> for Frontier {
    type Error = &'static str;
    fn try_from(parts: FrontierParts) -> Result<Self, Self::Error> {
        Frontier::from_parts(parts.size, parts.peaks).ok_or("the number of peaks does not fit the size")
    }
}

impl Frontier {
    /// The empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// A frontier from stored parts; `None` when their number does not fit the size.
    pub fn from_parts(size: u64, peaks: Vec<Digest>) -> Option<Self> {
        (peaks.len() == size.count_ones() as usize).then_some(Frontier { size, peaks })
    }

    /// Number of leaves.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Roots of the complete subtrees, largest first.
    pub fn peaks(&self) -> &[Digest] {
        &self.peaks
    }

    /// Appends a leaf hash.
    pub fn push(&mut self, leaf: Digest) {
        self.push_with(leaf, |_, _, _| {});
    }

    /// Appends a leaf hash and reports every node that becomes complete: level, index, hash.
    pub fn push_with(&mut self, leaf: Digest, mut complete: impl FnMut(u8, u64, &Digest)) {
        complete(0, self.size, &leaf);
        let mut node = leaf;
        let mut level = 0u8;
        while self.size >> level & 1 == 1 {
            let left = self.peaks.pop().expect("a set bit of the size stands for a peak");
            node = node_hash(&left, &node);
            level += 1;
            complete(level, self.size >> level, &node);
        }
        self.peaks.push(node);
        self.size += 1;
    }

    /// The root; for the empty tree SHA-256 of nothing.
    pub fn root(&self) -> Digest {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else { return crate::sha256(b"") };
        peaks.fold(*last, |right, left| node_hash(left, &right))
    }
}

impl FromIterator<Digest> for Frontier {
    fn from_iter<I: IntoIterator<Item = Digest>>(leaves: I) -> Self {
        leaves.into_iter().fold(Frontier::new(), |mut frontier, leaf| {
            frontier.push(leaf);
            frontier
        })
    }
}

/// The root over leaf hashes.
pub fn root_of(leaves: impl IntoIterator<Item = Digest>) -> Digest {
    leaves.into_iter().collect::<Frontier>().root()
}

/// Where complete subtrees' hashes are read from: tiles, or a tree in memory.
pub trait HashReader {
    /// Why a hash could not be read.
    type Error;

    /// The hash of the complete subtree over leaves `[index << level, (index + 1) << level)`.
    ///
    /// # Errors
    /// When it cannot be read.
    fn subtree(&self, level: u8, index: u64) -> Result<Digest, Self::Error>;
}

/// A whole tree in memory, level by level; for small logs and tests.
#[derive(Debug, Clone, Default)]
pub struct MemoryTree {
    levels: Vec<Vec<Digest>>,
    frontier: Frontier,
}

impl MemoryTree {
    /// Builds the tree over leaf hashes.
    pub fn new(leaves: impl IntoIterator<Item = Digest>) -> Self {
        let mut tree = MemoryTree::default();
        leaves.into_iter().for_each(|leaf| tree.push(leaf));
        tree
    }

    /// Appends a leaf hash.
    pub fn push(&mut self, leaf: Digest) {
        let levels = &mut self.levels;
        self.frontier.push_with(leaf, |level, _, hash| {
            let level = usize::from(level);
            if levels.len() == level {
                levels.push(Vec::new());
            }
            levels[level].push(*hash);
        });
    }

    /// Number of leaves.
    pub const fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The root.
    pub fn root(&self) -> Digest {
        self.frontier.root()
    }
}

impl HashReader for MemoryTree {
    type Error = ProofError;

    fn subtree(&self, level: u8, index: u64) -> Result<Digest, ProofError> {
        let row = self.levels.get(usize::from(level));
        let at = usize::try_from(index).map_err(|_| ProofError::OutOfRange("index"))?;
        row.and_then(|row| row.get(at)).copied().ok_or(ProofError::OutOfRange("subtree not complete"))
    }
}

/// The hash over leaves `[start, end)`, where `start` is aligned as RFC 6962 splits.
fn range_hash<R: HashReader>(reader: &R, start: u64, end: u64) -> Result<Digest, R::Error> {
    let count = end - start;
    if count.is_power_of_two() {
        let level = u8::try_from(count.trailing_zeros()).expect("at most 63");
        return reader.subtree(level, start >> level);
    }
    let left = split(count);
    Ok(node_hash(&range_hash(reader, start, start + left)?, &range_hash(reader, start + left, end)?))
}

/// The largest power of two below `count` (at least 2).
const fn split(count: u64) -> u64 {
    1 << (63 - (count - 1).leading_zeros())
}

/// The root at `size` from stored subtrees.
///
/// # Errors
/// When a subtree cannot be read.
pub fn root_at<R: HashReader>(reader: &R, size: u64) -> Result<Digest, R::Error> {
    if size == 0 { Ok(crate::sha256(b"")) } else { range_hash(reader, 0, size) }
}

/// The audit path of the leaf at `index` in a tree of `size` (RFC 6962, 2.1.1), leaf side first.
///
/// # Errors
/// When a subtree cannot be read. `index` must be below `size`.
pub fn inclusion_proof<R: HashReader>(reader: &R, index: u64, size: u64) -> Result<Vec<Digest>, R::Error> {
    assert!(index < size, "an inclusion proof is asked for a leaf of the tree");
    let (mut start, mut end) = (0, size);
    let mut path = Vec::new();
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            path.push(range_hash(reader, middle, end)?);
            end = middle;
        } else {
            path.push(range_hash(reader, start, middle)?);
            start = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// The consistency proof between `first` and `second` (RFC 6962, 2.1.2); empty when they are equal.
///
/// # Errors
/// When a subtree cannot be read. `first` must be at least 1 and at most `second`.
pub fn consistency_proof<R: HashReader>(reader: &R, first: u64, second: u64) -> Result<Vec<Digest>, R::Error> {
    assert!(1 <= first && first <= second, "a consistency proof goes from a non-empty tree to a later one");
    let (mut start, mut end) = (0, second);
    let mut path = Vec::new();
    while first != end {
        let middle = start + split(end - start);
        if first <= middle {
            path.push(range_hash(reader, middle, end)?);
            end = middle;
        } else {
            path.push(range_hash(reader, start, middle)?);
            start = middle;
        }
    }
    if start != 0 {
        path.push(range_hash(reader, start, end)?);
    }
    path.reverse();
    Ok(path)
}

/// Checks an inclusion proof against a root (RFC 9162, 2.1.3.2).
///
/// # Errors
/// [`ProofError`] when it does not hold.
pub fn verify_inclusion(leaf: Digest, index: u64, size: u64, path: &[Digest], root: &Digest) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::OutOfRange("the index is not below the size"));
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = leaf;
    for sibling in path {
        if last == 0 {
            return Err(ProofError::WrongLength { wanted: inclusion_length(index, size), found: path.len() });
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(ProofError::WrongLength { wanted: inclusion_length(index, size), found: path.len() });
    }
    if hash == *root { Ok(()) } else { Err(ProofError::WrongRoot) }
}

fn inclusion_length(index: u64, size: u64) -> usize {
    let (mut start, mut end, mut length) = (0, size, 0);
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            end = middle;
        } else {
            start = middle;
        }
        length += 1;
    }
    length
}

/// Checks a consistency proof between two roots (RFC 9162, 2.1.4.2). Size 0 has no proof.
///
/// # Errors
/// [`ProofError`] when it does not hold.
pub fn verify_consistency(
    first: u64,
    second: u64,
    path: &[Digest],
    first_root: &Digest,
    second_root: &Digest,
) -> Result<(), ProofError> {
    if first == 0 || first > second {
        return Err(ProofError::OutOfRange("the first size is zero or above the second"));
    }
    if first == second {
        return match (path.is_empty(), first_root == second_root) {
            (false, _) => Err(ProofError::WrongLength { wanted: 0, found: path.len() }),
            (true, false) => Err(ProofError::WrongRoot),
            (true, true) => Ok(()),
        };
    }
    let wrong_length = || ProofError::WrongLength { wanted: consistency_length(first, second), found: path.len() };
    // A first tree that is one complete subtree is the proof's own first hash.
    let mut hashes = path.iter();
    let seed = if first.is_power_of_two() { first_root } else { hashes.next().ok_or_else(wrong_length)? };
    let (mut node, mut last) = (first - 1, second - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut first_hash, mut second_hash) = (*seed, *seed);
    for sibling in hashes {
        if last == 0 {
            return Err(wrong_length());
        }
        if node & 1 == 1 || node == last {
            first_hash = node_hash(sibling, &first_hash);
            second_hash = node_hash(sibling, &second_hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            second_hash = node_hash(&second_hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(wrong_length());
    }
    if first_hash == *first_root && second_hash == *second_root { Ok(()) } else { Err(ProofError::WrongRoot) }
}

fn consistency_length(first: u64, second: u64) -> usize {
    let (mut start, mut end, mut length) = (0, second, 0);
    while first != end {
        let middle = start + split(end - start);
        if first <= middle {
            end = middle;
        } else {
            start = middle;
        }
        length += 1;
    }
    length + usize::from(start != 0)
}

/// Climbs from leaves, ascending by index, to the root of a tree of `size`, node by node from the left; what is held
/// on the way is one node per level. `sibling` gives a node that is above none of the leaves, by level and index.
fn climb<T>(
    leaves: impl Iterator<Item = (u64, T)>,
    size: u64,
    mut sibling: impl FnMut(u8, u64) -> T,
    join: impl Fn(T, T) -> T,
) -> Option<T> {
    // By level: a left node whose right sibling is above a leaf that is still to come.
    let mut waiting: [Option<T>; 64] = std::array::from_fn(|_| None);
    let mut leaves = leaves.peekable();
    while let Some((leaf, node)) = leaves.next() {
        let next = leaves.peek().map(|(next, _)| *next);
        let (mut node, mut level, mut last) = (Some(node), 0u8, size - 1);
        while last > 0
            && let Some(known) = node.take()
        {
            let index = leaf >> level;
            let right_comes = next.is_some_and(|next| next >> level == index + 1);
            node = if index & 1 == 1 {
                let left = waiting[usize::from(level)].take().unwrap_or_else(|| sibling(level, index - 1));
                Some(join(left, known))
            } else if index == last {
                Some(known)
            } else if right_comes {
                waiting[usize::from(level)] = Some(known);
                None
            } else {
                Some(join(known, sibling(level, index + 1)))
            };
            level += 1;
            last >>= 1;
        }
        if node.is_some() {
            return node;
        }
    }
    None
}

/// Places (level, index) whose hashes a multiproof carries, in its order.
fn multiproof_places(indices: &[u64], size: u64) -> Vec<(u8, u64)> {
    let mut places = Vec::new();
    let leaves = indices.iter().map(|index| (*index, ()));
    climb(leaves, size, |level, index| places.push((level, index)), |(), ()| ());
    places.sort_unstable();
    places
}

/// Indices are strictly ascending and below the size; how many there are.
fn check_indices(indices: impl Iterator<Item = u64>, size: u64) -> Result<usize, ProofError> {
    let (mut count, mut least) = (0, 0);
    for index in indices {
        if index < least {
            return Err(ProofError::OutOfRange("indices are not strictly ascending"));
        }
        if index >= size {
            return Err(ProofError::OutOfRange("an index is not below the size"));
        }
        (count, least) = (count + 1, index + 1);
    }
    if count == 0 { Err(ProofError::OutOfRange("no indices")) } else { Ok(count) }
}

/// The multiproof of many leaves, its hashes in rs_merkle's order.
///
/// # Errors
/// When a subtree cannot be read. `indices` must be strictly ascending, at least one, below `size`.
pub fn multiproof<R: HashReader>(reader: &R, indices: &[u64], size: u64) -> Result<Vec<Digest>, R::Error> {
    let checked = check_indices(indices.iter().copied(), size);
    assert!(checked.is_ok(), "a multiproof is asked for leaves of the tree, in order");
    let hash_at = |(level, index): (u8, u64)| {
        let start = index << level;
        range_hash(reader, start, size.min(start.saturating_add(1 << level)))
    };
    multiproof_places(indices, size).into_iter().map(hash_at).collect()
}

/// Checks a multiproof: `leaves` are the hashes at `indices`, `size` and `root` are a checkpoint's.
///
/// Beside what is given it takes memory for one hash per level.
///
/// # Errors
/// [`ProofError`] when indices, leaves or the number of hashes are not what the tree's shape
/// demands, or when the root differs.
pub fn verify_multiproof<I, L>(
    indices: I,
    leaves: L,
    size: u64,
    proof: &[Digest],
    root: &Digest,
) -> Result<(), ProofError>
where
    I: IntoIterator<Item: Borrow<u64>, IntoIter: Clone>,
    L: IntoIterator<Item: Borrow<Digest>, IntoIter: ExactSizeIterator>,
{
    let indices = indices.into_iter().map(|index| *index.borrow());
    let count = check_indices(indices.clone(), size)?;
    let leaves = leaves.into_iter();
    if leaves.len() != count {
        return Err(ProofError::OutOfRange("as many leaves as indices are needed"));
    }
    // The hashes of a level stand together; the next one of each is found by counting them first.
    let mut next = [0; 64];
    climb(indices.clone().map(|index| (index, ())), size, |level, _| next[usize::from(level)] += 1, |(), ()| ());
    let mut wanted = 0;
    for begin in &mut next {
        wanted += std::mem::replace(begin, wanted);
    }
    if proof.len() != wanted {
        return Err(ProofError::WrongLength { wanted, found: proof.len() });
    }
    let given = |level: u8, _| {
        let at = &mut next[usize::from(level)];
        *at += 1;
        proof[*at - 1]
    };
    let leaves = indices.zip(leaves.map(|leaf| *leaf.borrow()));
    let found = climb(leaves, size, given, |left, right| node_hash(&left, &right));
    if found.as_ref() == Some(root) { Ok(()) } else { Err(ProofError::WrongRoot) }
}
