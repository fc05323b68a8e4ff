//! Multiproofs against rs_merkle's own trees, and the attacks that its check lets through.

use amc_core::Digest;
use amc_crypto::merkle::{MemoryTree, ProofError, multiproof, verify_multiproof};
use amc_crypto::{leaf_hash, node_hash};
use proptest::prelude::*;

#[derive(Clone)]
struct Rfc6962;

impl rs_merkle::Hasher for Rfc6962 {
    type Hash = [u8; 32];

    fn hash(data: &[u8]) -> [u8; 32] {
        leaf_hash(data).0
    }

    fn concat_and_hash(left: &[u8; 32], right: Option<&[u8; 32]>) -> [u8; 32] {
        right.map_or(*left, |right| node_hash(&Digest(*left), &Digest(*right)).0)
    }
}

fn leaves(size: u64) -> Vec<Digest> {
    (0..size).map(|index| leaf_hash(&index.to_be_bytes())).collect()
}

fn pick(leaves: &[Digest], indices: &[u64]) -> Vec<Digest> {
    indices.iter().map(|index| leaves[usize::try_from(*index).expect("small")]).collect()
}

fn compare(size: u64, indices: &[u64]) {
    let all = leaves(size);
    let tree = MemoryTree::new(all.iter().copied());
    let proof = multiproof(&tree, indices, size).expect("in memory");
    let raw: Vec<[u8; 32]> = all.iter().map(|leaf| leaf.0).collect();
    let theirs = rs_merkle::MerkleTree::<Rfc6962>::from_leaves(&raw);
    let places: Vec<usize> = indices.iter().map(|index| usize::try_from(*index).expect("small")).collect();
    let wanted: Vec<Digest> = theirs.proof(&places).proof_hashes().iter().map(|hash| Digest(*hash)).collect();
    assert_eq!(proof, wanted, "{indices:?} of {size}");
    assert_eq!(Some(tree.root().0), theirs.root());
    assert_eq!(verify_multiproof(indices, pick(&all, indices), size, &proof, &tree.root()), Ok(()));
}

#[test]
fn single_leaves_pairs_and_all_of_every_size() {
    for size in 1..=200 {
        compare(size, &[0]);
        compare(size, &[size - 1]);
        compare(size, &[size / 2]);
        compare(size, &(0..size).collect::<Vec<_>>());
        compare(size, &(0..size).step_by(3).collect::<Vec<_>>());
        if size > 1 {
            compare(size, &[0, size - 1]);
            compare(size, &(size / 2..size).collect::<Vec<_>>());
        }
    }
}

#[test]
fn an_older_size_is_proven_from_a_larger_tree() {
    let all = leaves(200);
    let whole = MemoryTree::new(all.iter().copied());
    for size in [1, 2, 3, 77, 128, 199] {
        let indices: Vec<u64> = (0..size).step_by(5).collect();
        let proof = multiproof(&whole, &indices, size).expect("in memory");
        let root = amc_crypto::merkle::root_of(all[..usize::try_from(size).expect("small")].iter().copied());
        assert_eq!(verify_multiproof(&indices, pick(&all, &indices), size, &proof, &root), Ok(()), "size {size}");
    }
}

/// A tree of eleven leaves with a proof for three.
struct Case {
    all: Vec<Digest>,
    root: Digest,
    proof: Vec<Digest>,
}

const SIZE: u64 = 11;
const INDICES: [u64; 3] = [2, 5, 10];

fn case() -> Case {
    let all = leaves(SIZE);
    let tree = MemoryTree::new(all.iter().copied());
    Case { root: tree.root(), proof: multiproof(&tree, &INDICES, SIZE).expect("in memory"), all }
}

impl Case {
    fn verify(&self, indices: &[u64], leaves: &[Digest], size: u64, proof: &[Digest]) -> Result<(), ProofError> {
        verify_multiproof(indices, leaves, size, proof, &self.root)
    }

    fn leaves(&self) -> Vec<Digest> {
        pick(&self.all, &INDICES)
    }
}

#[test]
fn repeated_indices() {
    let case = case();
    let false_leaf = leaf_hash(b"false");
    let mut leaves = case.leaves();
    leaves.insert(1, false_leaf);
    assert!(matches!(case.verify(&[2, 2, 5, 10], &leaves, SIZE, &case.proof), Err(ProofError::OutOfRange(_))));
    leaves.swap(0, 1);
    assert!(matches!(case.verify(&[2, 2, 5, 10], &leaves, SIZE, &case.proof), Err(ProofError::OutOfRange(_))));
}

#[test]
fn unsorted_indices() {
    let case = case();
    let [a, b, c] = case.leaves()[..] else { panic!("three leaves") };
    assert!(matches!(case.verify(&[5, 2, 10], &[b, a, c], SIZE, &case.proof), Err(ProofError::OutOfRange(_))));
}

#[test]
fn surplus_and_missing_hashes() {
    let case = case();
    let wanted = case.proof.len();
    let mut surplus = case.proof.clone();
    surplus.push(leaf_hash(b"surplus"));
    let verdict = case.verify(&INDICES, &case.leaves(), SIZE, &surplus);
    assert_eq!(verdict, Err(ProofError::WrongLength { wanted, found: wanted + 1 }));
    let verdict = case.verify(&INDICES, &case.leaves(), SIZE, &case.proof[1..]);
    assert_eq!(verdict, Err(ProofError::WrongLength { wanted, found: wanted - 1 }));
}

#[test]
fn wrong_totals() {
    let case = case();
    let accepted: Vec<u64> =
        (0..200).filter(|size| case.verify(&INDICES, &case.leaves(), *size, &case.proof).is_ok()).collect();
    assert_eq!(accepted, [SIZE]);
}

#[test]
fn an_index_at_the_size() {
    let case = case();
    assert!(matches!(case.verify(&[2, 5, 11], &case.leaves(), SIZE, &case.proof), Err(ProofError::OutOfRange(_))));
}

#[test]
fn false_leaves() {
    let case = case();
    for at in 0..3 {
        let mut leaves = case.leaves();
        leaves[at] = leaf_hash(b"false");
        assert_eq!(case.verify(&INDICES, &leaves, SIZE, &case.proof), Err(ProofError::WrongRoot), "leaf {at}");
    }
    let mut leaves = case.leaves();
    leaves.swap(0, 1);
    assert_eq!(case.verify(&INDICES, &leaves, SIZE, &case.proof), Err(ProofError::WrongRoot), "swapped");
}

#[test]
fn more_or_fewer_leaves_than_indices() {
    let case = case();
    let mut more = case.leaves();
    more.push(leaf_hash(b"more"));
    for leaves in [&more[..], &more[..2], &[]] {
        assert!(matches!(case.verify(&INDICES, leaves, SIZE, &case.proof), Err(ProofError::OutOfRange(_))));
    }
    assert!(
        matches!(case.verify(&[], &[], SIZE, &[case.root]), Err(ProofError::OutOfRange(_))),
        "nothing proves nothing"
    );
}

#[test]
fn flipped_and_swapped_hashes() {
    let case = case();
    for at in 0..case.proof.len() {
        let mut proof = case.proof.clone();
        proof[at].0[31] ^= 1;
        assert_eq!(case.verify(&INDICES, &case.leaves(), SIZE, &proof), Err(ProofError::WrongRoot), "hash {at}");
    }
    let mut proof = case.proof.clone();
    proof.swap(0, 1);
    assert_eq!(case.verify(&INDICES, &case.leaves(), SIZE, &proof), Err(ProofError::WrongRoot));
}

#[test]
fn enormous_sizes_are_checked_at_once() {
    for size in [1 << 32, (1 << 53) + 1, 1 << 63, u64::MAX] {
        for index in [0, size / 2, size - 1] {
            let verdict = verify_multiproof([index], [leaf_hash(b"x")], size, &[], &leaf_hash(b"x"));
            let Err(ProofError::WrongLength { wanted, .. }) = verdict else { panic!("{size}: {verdict:?}") };
            let proof = vec![leaf_hash(b"y"); wanted];
            let verdict = verify_multiproof([index], [leaf_hash(b"x")], size, &proof, &leaf_hash(b"x"));
            assert_eq!(verdict, Err(ProofError::WrongRoot), "{index} of {size}");
        }
    }
}

proptest! {
    #[test]
    fn any_subset_of_any_tree(size in 1..150u64, mask in any::<[u64; 3]>()) {
        let chosen = |index: &u64| mask[usize::try_from(index / 64).expect("small")] >> (index % 64) & 1 == 1;
        let indices: Vec<u64> = (0..size).filter(chosen).collect();
        if !indices.is_empty() {
            compare(size, &indices);
        }
    }

    #[test]
    fn anything_else_is_refused_without_panic(
        indices in proptest::collection::vec(any::<u64>(), 0..6),
        count in 0..6usize,
        length in 0..70usize,
        size in any::<u64>(),
    ) {
        let leaves = vec![leaf_hash(b"x"); count];
        let proof = vec![leaf_hash(b"y"); length];
        prop_assert!(verify_multiproof(&indices, &leaves, size, &proof, &leaf_hash(b"z")).is_err());
    }
}
