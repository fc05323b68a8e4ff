//! Proof files: read as they were written, and every line that one must not have.

use amc_crypto::checkpoint::CheckpointError;
use amc_crypto::proof::{FILE_BYTES_MAX, HEADER, ProofFileError, ProofTrust, TlogProof, TlogProofError};
use amc_crypto::{Checkpoint, Note, TrustPolicy, Unverified, leaf_hash, node_hash};

use super::TestKey;

struct World {
    log: TestKey,
    witness: TestKey,
    policy: TrustPolicy,
}

impl World {
    fn new() -> Self {
        let (log, witness) = (TestKey::log("acme/evidence", 1), TestKey::witness("acme/auditor-witness", 4));
        let text = format!("log {}\nwitness w {}\nquorum w\n", log.verifier, witness.verifier);
        World { log, witness, policy: TrustPolicy::parse(text.as_bytes()).expect("a good policy") }
    }

    /// The second of three events, proven.
    fn proof(&self) -> TlogProof {
        let leaves = [b"one".as_slice(), b"two", b"three"].map(leaf_hash);
        let root = node_hash(&node_hash(&leaves[0], &leaves[1]), &leaves[2]);
        let text = Checkpoint { origin: "acme/evidence".into(), size: 3, root }.text();
        let note = Note::new(text.clone(), vec![self.log.sign_text(&text), self.witness.cosign_text(&text, 1)]);
        TlogProof { body: b"two".to_vec(), index: 1, path: vec![leaves[0], leaves[2]], note }
    }

    fn check(&self, proof: TlogProof, quorum: bool) -> Result<(), TlogProofError> {
        let trust = ProofTrust { policy: &self.policy, quorum };
        Unverified::new(proof).verify(&trust).map(drop)
    }
}

#[test]
fn a_proof_is_read_as_it_was_written_and_holds() {
    let world = World::new();
    let proof = world.proof();
    let read = TlogProof::parse(proof.to_text().as_bytes()).expect("it is well-formed");
    assert_eq!(read, proof);
    let proven = Unverified::new(read).verify(&ProofTrust { policy: &world.policy, quorum: true }).expect("it holds");
    assert_eq!((proven.body.as_slice(), proven.index, proven.checkpoint.witnesses.len()), (b"two".as_slice(), 1, 1));
}

#[test]
fn a_proof_of_anything_else_does_not_hold() {
    let world = World::new();
    let change = |change: fn(&mut TlogProof)| {
        let mut proof = world.proof();
        change(&mut proof);
        world.check(proof, true)
    };
    assert!(matches!(change(|proof| proof.body.push(0)), Err(TlogProofError::Path(_))), "another event");
    assert!(matches!(change(|proof| proof.index = 0), Err(TlogProofError::Path(_))), "another place");
    assert!(matches!(change(|proof| proof.index = 3), Err(TlogProofError::Path(_))), "beyond the tree");
    assert!(matches!(change(|proof| proof.path.truncate(1)), Err(TlogProofError::Path(_))), "a hash too few");
    assert!(matches!(change(|proof| proof.path.push(proof.path[0])), Err(TlogProofError::Path(_))), "one too many");
    assert!(matches!(change(|proof| proof.path.swap(0, 1)), Err(TlogProofError::Path(_))), "in another order");
    let forged = TestKey::log("acme/evidence", 9);
    let mut proof = world.proof();
    proof.note = Note::new(proof.note.text().to_owned(), vec![forged.sign_text(proof.note.text())]);
    assert!(matches!(world.check(proof, false), Err(TlogProofError::Checkpoint(_))), "another key");
}

#[test]
fn a_quorum_is_asked_for_where_it_is_wanted() {
    let world = World::new();
    let mut proof = world.proof();
    proof.note = Note::new(proof.note.text().to_owned(), vec![world.log.sign_text(proof.note.text())]);
    world.check(proof.clone(), false).expect("the log's signature is enough here");
    let refused = world.check(proof, true);
    assert!(matches!(refused, Err(TlogProofError::Checkpoint(CheckpointError::NoQuorum { .. }))), "{refused:?}");
}

#[test]
fn a_malformed_file_is_refused() {
    let good = World::new().proof().to_text();
    let hash = good.lines().nth(3).expect("a hash").to_owned();
    let extra = good.lines().nth(1).expect("an extra line").to_owned();
    let (head, note) = good.split_once("\n\n").expect("an empty line");
    for (name, bad) in [
        ("another header", good.replacen("@v1", "@v2", 1)),
        ("no header", good.replacen(&format!("{HEADER}\n"), "", 1)),
        ("no extra", good.replacen(&format!("{extra}\n"), "", 1)),
        ("an empty extra", good.replacen(&extra, "extra ", 1)),
        ("an extra without padding", good.replacen(&extra, "extra dHc", 1)),
        ("an extra of other letters", good.replacen(&extra, "extra _-_-", 1)),
        ("leading zero", good.replacen("index 1", "index 01", 1)),
        ("plus sign", good.replacen("index 1", "index +1", 1)),
        ("no index", good.replacen("index 1\n", "", 1)),
        ("a number above 64 bits", good.replacen("index 1", "index 18446744073709551616", 1)),
        ("a short hash", good.replacen(&hash, &hash[4..], 1)),
        ("a blank before a hash", good.replacen(&hash, &format!(" {hash}"), 1)),
        ("carriage returns", good.replacen('\n', "\r\n", 1)),
        ("65 hashes", format!("{head}{}\n\n{note}", format!("\n{hash}").repeat(63))),
        ("no empty line", good.replacen("\n\n", "\n", 1)),
        ("no note", format!("{head}\n\n")),
        ("text after the note", format!("{good}x\n")),
    ] {
        assert!(TlogProof::parse(bad.as_bytes()).is_err(), "{name}");
    }
    assert_eq!(TlogProof::parse(&vec![b'x'; FILE_BYTES_MAX + 1]), Err(ProofFileError::TooLong));
    assert!(TlogProof::parse(b"\xff\n\n").is_err(), "not UTF-8");
}
