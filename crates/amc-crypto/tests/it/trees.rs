//! RFC 6962 trees of 1 to 200 leaves against ct-merkle, an implementation by others.

use amc_core::Digest;
use amc_crypto::leaf_hash;
use amc_crypto::merkle::{
    Frontier, MemoryTree, ProofError, consistency_proof, inclusion_proof, root_at, root_of, verify_consistency,
    verify_inclusion,
};
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use proptest::prelude::*;

const LEAVES: u64 = 200;

fn leaf(index: u64) -> Vec<u8> {
    format!("leaf {index}").into_bytes()
}

fn leaves(size: u64) -> impl Iterator<Item = Digest> {
    (0..size).map(|index| leaf_hash(&leaf(index)))
}

fn others(size: u64) -> MemoryBackedTree<sha2::Sha256, Vec<u8>> {
    let mut tree = MemoryBackedTree::new();
    (0..size).for_each(|index| tree.push(leaf(index)));
    tree
}

fn digests(bytes: &[u8]) -> Vec<Digest> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    assert!(rest.is_empty());
    hashes.iter().map(|hash| Digest(*hash)).collect()
}

#[test]
fn roots() {
    let whole = MemoryTree::new(leaves(LEAVES));
    let mut frontier = Frontier::new();
    assert_eq!(frontier.root(), amc_crypto::sha256(b""), "the empty tree");
    for size in 1..=LEAVES {
        frontier.push(leaf_hash(&leaf(size - 1)));
        let theirs = Digest((*others(size).root().as_bytes()).into());
        assert_eq!(frontier.root(), theirs, "size {size}");
        assert_eq!(root_of(leaves(size)), theirs, "size {size}");
        assert_eq!(root_at(&whole, size), Ok(theirs), "size {size}, read from a larger tree");
    }
}

#[test]
fn inclusion_proofs() {
    let whole = MemoryTree::new(leaves(LEAVES));
    for size in 1..=LEAVES {
        let theirs = others(size);
        let root = root_of(leaves(size));
        for index in 0..size {
            let path = inclusion_proof(&whole, index, size).expect("in memory");
            let at = usize::try_from(index).expect("small");
            assert_eq!(path, digests(theirs.prove_inclusion(at).as_bytes()), "{index} of {size}");
            assert_eq!(verify_inclusion(leaf_hash(&leaf(index)), index, size, &path, &root), Ok(()));
        }
    }
}

#[test]
fn consistency_proofs() {
    let whole = MemoryTree::new(leaves(LEAVES));
    for second in 1..=LEAVES {
        let theirs = others(second);
        let second_root = root_of(leaves(second));
        for first in 1..=second {
            let path = consistency_proof(&whole, first, second).expect("in memory");
            if first < second {
                let added = usize::try_from(second - first).expect("small");
                assert_eq!(path, digests(theirs.prove_consistency(added).as_bytes()), "{first} to {second}");
            }
            let first_root = root_of(leaves(first));
            assert_eq!(verify_consistency(first, second, &path, &first_root, &second_root), Ok(()));
        }
    }
}

#[test]
fn a_frontier_goes_on_from_its_stored_parts() {
    let mut straight: Frontier = leaves(77).collect();
    let mut resumed = Frontier::from_parts(straight.size(), straight.peaks().to_vec()).expect("they fit");
    for index in 77..150 {
        straight.push(leaf_hash(&leaf(index)));
        resumed.push(leaf_hash(&leaf(index)));
    }
    assert_eq!(straight, resumed);
    assert_eq!(Frontier::from_parts(3, straight.peaks()[..1].to_vec()), None, "one peak is not size 3");
}

#[test]
fn every_complete_node_is_reported_once() {
    let whole = MemoryTree::new(leaves(LEAVES));
    let mut frontier = Frontier::new();
    let mut nodes = std::collections::BTreeMap::new();
    for digest in leaves(LEAVES) {
        frontier.push_with(digest, |level, index, hash| {
            assert_eq!(nodes.insert((level, index), *hash), None, "level {level}, index {index}");
        });
    }
    let wanted: u64 = (0..8).map(|level| LEAVES >> level).sum();
    assert_eq!(nodes.len() as u64, wanted);
    for ((level, index), hash) in nodes {
        assert_eq!(amc_crypto::merkle::HashReader::subtree(&whole, level, index), Ok(hash));
    }
}

#[test]
fn places_outside_a_tree() {
    let (hash, root) = (leaf_hash(b"x"), leaf_hash(b"x"));
    assert_eq!(verify_inclusion(hash, 0, 1, &[], &root), Ok(()));
    assert!(matches!(verify_inclusion(hash, 0, 0, &[], &root), Err(ProofError::OutOfRange(_))));
    assert!(matches!(verify_inclusion(hash, 1, 1, &[], &root), Err(ProofError::OutOfRange(_))));
    assert!(matches!(verify_consistency(0, 0, &[], &root, &root), Err(ProofError::OutOfRange(_))));
    assert!(matches!(verify_consistency(0, 1, &[], &root, &root), Err(ProofError::OutOfRange(_))));
    assert!(matches!(verify_consistency(2, 1, &[], &root, &root), Err(ProofError::OutOfRange(_))));
    let long = vec![root; 70];
    let wrong = verify_inclusion(hash, u64::MAX - 1, u64::MAX, &long, &root);
    assert_eq!(wrong, Err(ProofError::WrongLength { wanted: 63, found: 70 }));
    assert!(verify_consistency(u64::MAX - 1, u64::MAX, &long, &root, &root).is_err());
}

proptest! {
    #[test]
    fn an_altered_inclusion_proof_is_refused(size in 1..300u64, index in 0..300u64, byte in 0..32usize, bit in 0..8u8, at in 0..9usize) {
        let index = index % size;
        let whole = MemoryTree::new(leaves(size));
        let (root, hash) = (whole.root(), leaf_hash(&leaf(index)));
        let path = inclusion_proof(&whole, index, size).expect("in memory");
        let wrong_leaf = verify_inclusion(leaf_hash(b"another"), index, size, &path, &root);
        prop_assert_eq!(wrong_leaf, Err(ProofError::WrongRoot));
        if !path.is_empty() {
            let mut flipped = path.clone();
            flipped[at % path.len()].0[byte] ^= 1 << bit;
            prop_assert_eq!(verify_inclusion(hash, index, size, &flipped, &root), Err(ProofError::WrongRoot));
            let shorter = verify_inclusion(hash, index, size, &path[1..], &root);
            prop_assert_eq!(shorter, Err(ProofError::WrongLength { wanted: path.len(), found: path.len() - 1 }));
            prop_assert!(verify_inclusion(hash, (index + 1) % size, size, &path, &root).is_err());
        }
        let mut longer = path.clone();
        longer.push(root);
        prop_assert_eq!(
            verify_inclusion(hash, index, size, &longer, &root),
            Err(ProofError::WrongLength { wanted: path.len(), found: path.len() + 1 })
        );
    }

    #[test]
    fn a_forked_history_has_no_consistency_proof(second in 2..200u64, first in 1..200u64, fork in 0..200u64) {
        let (first, fork) = (1 + first % (second - 1), fork % second);
        // Two histories that differ in one leaf; the older head is of the one, the newer of the other.
        let forked = MemoryTree::new((0..second).map(|index| {
            if index == fork { leaf_hash(b"rewritten") } else { leaf_hash(&leaf(index)) }
        }));
        let (old, new) = (root_of(leaves(first)), forked.root());
        let path = consistency_proof(&forked, first, second).expect("in memory");
        let verdict = verify_consistency(first, second, &path, &old, &new);
        prop_assert_eq!(verdict.is_ok(), fork >= first, "only a change behind the older head is a continuation");
    }

    #[test]
    fn proofs_of_anything_never_panic(a in any::<u64>(), b in any::<u64>(), length in 0..80usize, fill in any::<u8>()) {
        let (path, root) = (vec![Digest([fill; 32]); length], Digest([fill; 32]));
        let _ = verify_inclusion(root, a, b, &path, &root);
        let _ = verify_consistency(a, b, &path, &root, &root);
    }
}
