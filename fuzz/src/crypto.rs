//! Notes, proofs, policies, envelopes, receipts, and what a log and a witness say to each other.

use amc_core::Digest;
use amc_crypto::dsse::{Envelope, StatementTrust};
use amc_crypto::jws::{Receipt, ReceiptTrust};
use amc_crypto::merkle::{self, MemoryTree};
use amc_crypto::note::{KeyKind, NoteSignature, VerifierKey};
use amc_crypto::proof::{ProofTrust, TlogProof};
use amc_crypto::witness::{AddCheckpoint, decimal, parse_cosignatures};
use amc_crypto::{Checkpoint, Note, PredicateType, PublicKey, Statement, TrustPolicy, Unverified, sha256};

const LOG: &str = "evidence.test/log+54a7d19c+ASFS+NGbeR0kRTJC4V8uq2y3z/p7al7TAJeWDgaYgdsS";
const WITNESS: &str = "witness.test/w1+dacb6b85+BCL8KXeS8Lb/wL/P237bDAqhTgJaNl7A40Lobjgpy3S2";

fn key(text: &str) -> VerifierKey {
    text.parse().expect("the vector's own key")
}

/// A note is spelt in one way only, and signatures hold for the text that was signed.
pub(crate) fn checkpoint(data: &[u8]) {
    let Ok(note) = Note::parse(data) else { return };
    assert_eq!(note.to_string().as_bytes(), data, "a note that parses is written as it was read");
    let _ = note.verify_signature(&key(LOG));
    let _ = note.verify_cosignature(&key(WITNESS));
    let Ok(checkpoint) = Checkpoint::parse(note.text()) else { return };
    assert_eq!(checkpoint.text(), note.text());
    if note.verify_signature(&key(LOG)).is_ok() {
        assert_eq!((checkpoint.origin.as_str(), checkpoint.size), ("evidence.test/log", 3), "this key signed one text");
    }
}

/// Proofs of a small tree hold exactly for what they prove; any other hashes, indices and sizes never panic.
///
/// Input: leaves, index, second index, then 8 bytes of a size and hashes to try.
pub(crate) fn proof(data: &[u8]) {
    let [leaves, first, second, rest @ ..] = data else { return };
    let leaves = u64::from(*leaves % 64) + 1;
    let hashes: Vec<Digest> = (0..leaves).map(|leaf| sha256(&leaf.to_le_bytes())).collect();
    let tree = MemoryTree::new(hashes.iter().copied());
    let (first, second) = (u64::from(*first) % leaves, u64::from(*second) % leaves);
    let (low, high) = (first.min(second), first.max(second));
    let leaf = |index: u64| hashes[usize::try_from(index).expect("below 64")];
    let root = tree.root();

    let path = merkle::inclusion_proof(&tree, first, leaves).expect("memory is read");
    merkle::verify_inclusion(leaf(first), first, leaves, &path, &root).expect("its own proof holds");
    if first != second {
        assert!(merkle::verify_inclusion(leaf(first), second, leaves, &path, &root).is_err(), "it holds elsewhere too");
    }
    let path = merkle::consistency_proof(&tree, low + 1, high + 1).expect("memory is read");
    let roots =
        [low, high].map(|at| merkle::root_of(hashes[..=usize::try_from(at).expect("below 64")].iter().copied()));
    merkle::verify_consistency(low + 1, high + 1, &path, &roots[0], &roots[1]).expect("its own proof holds");
    let mut indices = vec![low, high];
    indices.dedup();
    let proven: Vec<Digest> = indices.iter().map(|index| leaf(*index)).collect();
    let path = merkle::multiproof(&tree, &indices, leaves).expect("memory is read");
    merkle::verify_multiproof(&indices, &proven, leaves, &path, &root).expect("its own proof holds");

    let Some((size, rest)) = rest.split_first_chunk::<8>() else { return };
    let size = u64::from_le_bytes(*size);
    let (given, _) = rest.as_chunks::<32>();
    let given: Vec<Digest> = given.iter().copied().map(Digest).collect();
    let _ = merkle::verify_inclusion(leaf(first), size.rotate_left(1), size, &given, &root);
    let included = merkle::verify_inclusion(leaf(first), first, leaves, &given, &root).is_ok();
    assert!(!included || merkle::inclusion_proof(&tree, first, leaves).expect("memory is read") == given);
    let _ = merkle::verify_consistency(first, size, &given, &root, &root);
    let _ = merkle::verify_consistency(size, size.saturating_add(first), &given, &root, &root);
    let _ = merkle::verify_multiproof(&indices, &proven, size, &given, &root);
    let _ = merkle::verify_multiproof(&[size.saturating_sub(2)], &proven[..1], size, &given, &root);
    let held = merkle::verify_multiproof(&indices, &proven, leaves, &given, &root).is_ok();
    assert!(!held || given == path, "a tree has one multiproof of these leaves");
}

/// A proof file is spelt in one way only, and holds for the three events of the vector's log at their places.
pub(crate) fn tlog_proof(data: &[u8]) {
    let Ok(proof) = TlogProof::parse(data) else { return };
    assert_eq!(proof.to_text().as_bytes(), data, "a proof that parses is written as it was read");
    let policy = TrustPolicy::parse(format!("log {LOG}\nquorum none\n").as_bytes()).expect("the vector's own key");
    if let Ok(proven) = Unverified::new(proof).verify(&ProofTrust { policy: &policy, quorum: true }) {
        let events: [&[u8]; 3] = [b"one", b"two", b"three"];
        let at = usize::try_from(proven.index).expect("below three");
        assert_eq!(proven.body, events[at], "the log holds three events");
    }
}

/// A policy that parses gives keys that read back, and judges any note without panic.
pub(crate) fn policy(data: &[u8]) {
    let Ok(policy) = TrustPolicy::parse(data) else { return };
    let keys = policy.logs().iter().chain(policy.witnesses().iter().map(|witness| &witness.key));
    for key in keys {
        assert_eq!(key.to_string().parse::<VerifierKey>().as_ref(), Ok(key));
    }
    let everybody: Vec<(String, u64)> = policy.witnesses().iter().map(|witness| (witness.name.clone(), 1)).collect();
    assert!(policy.is_quorum(&everybody), "all witnesses together are every quorum that a policy can ask for");
    assert!(!policy.wants_quorum() || !policy.is_quorum(&[]), "nobody is a quorum only where none is asked for");
}

/// Nothing verifies under a key that signed nothing, whatever the envelope says.
pub(crate) fn envelope(data: &[u8]) {
    let _ = Statement::parse(data, PredicateType::Config);
    let Ok(envelope) = Envelope::parse(data) else { return };
    let again = Envelope::parse(envelope.to_json().as_bytes()).expect("what it writes it reads");
    assert_eq!(again, envelope);
    let keys: [PublicKey; 1] = [key(LOG).public()];
    let trust = StatementTrust { keys: &keys, wanted: PredicateType::Run };
    assert!(Unverified::new(envelope).verify(&trust).is_err(), "this key signed no statement");
}

/// Nothing verifies under a key that signed no receipt.
pub(crate) fn receipt(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(receipt) = Receipt::parse(text) else { return };
    let named = VerifierKey::new(receipt.claims().log.clone(), KeyKind::Ed25519, key(LOG).public());
    let keys: Vec<VerifierKey> = named.into_iter().collect();
    assert!(Unverified::new(receipt).verify(&ReceiptTrust { keys: &keys }).is_err(), "this key signed no receipt");
}

/// Requests and answers are spelt in one way only.
pub(crate) fn witness(data: &[u8]) {
    if let Ok(request) = AddCheckpoint::parse(data) {
        assert_eq!(request.to_text().as_bytes(), data);
    }
    if let Ok(lines) = parse_cosignatures(data) {
        let text: String = lines.iter().map(NoteSignature::line).collect();
        assert_eq!(text.as_bytes(), data);
    }
    let number = std::str::from_utf8(data).ok().and_then(decimal);
    assert!(number.is_none_or(|number| number.to_string().as_bytes() == data));
}
