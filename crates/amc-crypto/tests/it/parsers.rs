//! Parsers under any bytes: they never panic, and what they accept has one spelling.

use amc_crypto::dsse::Envelope;
use amc_crypto::jws::Receipt;
use amc_crypto::note::VerifierKey;
use amc_crypto::{Checkpoint, Note, PublicKey, TrustPolicy};
use proptest::prelude::*;

/// Texts with the pieces that these formats are made of.
fn texts() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\n".to_owned()),
        Just("\n\n".to_owned()),
        Just("— ".to_owned()),
        Just(" ".to_owned()),
        Just("+".to_owned()),
        Just(".".to_owned()),
        Just("log ".to_owned()),
        Just("witness ".to_owned()),
        Just("group ".to_owned()),
        Just("quorum none\n".to_owned()),
        "[A-Za-z0-9+/]{4}",
        "[a-z]{1,5}",
        "[0-9]{1,20}",
        any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn notes(text in texts()) {
        if let Ok(note) = Note::parse(text.as_bytes()) {
            prop_assert_eq!(note.to_string(), text);
        }
    }

    #[test]
    fn checkpoints(text in texts()) {
        if let Ok(checkpoint) = Checkpoint::parse(&text) {
            prop_assert_eq!(checkpoint.text(), text);
        }
    }

    #[test]
    fn checkpoints_come_back(origin in "[a-z./]{1,20}", size in any::<u64>(), root in any::<[u8; 32]>()) {
        let checkpoint = Checkpoint { origin, size, root: amc_core::Digest(root) };
        prop_assert_eq!(Checkpoint::parse(&checkpoint.text()), Ok(checkpoint));
    }

    #[test]
    fn verifier_keys(text in texts()) {
        if let Ok(key) = text.parse::<VerifierKey>() {
            prop_assert_eq!(key.to_string(), text);
        }
    }

    #[test]
    fn the_rest(text in texts(), bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = TrustPolicy::parse(text.as_bytes());
        let _ = TrustPolicy::parse(&bytes);
        let _ = Envelope::parse(&bytes);
        let _ = Receipt::parse(&text);
        let _ = Note::parse(&bytes);
    }

    #[test]
    fn public_keys(bytes in any::<[u8; 32]>()) {
        if let Ok(key) = PublicKey::from_bytes(&bytes) {
            prop_assert_eq!(key.to_bytes(), bytes);
        }
    }
}
