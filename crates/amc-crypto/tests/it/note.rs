//! Signed notes: the published vector, and every way in which a note can be wrong.

use amc_crypto::note::{KeyKind, NoteError, VerifierKey, VerifierKeyError};
use amc_crypto::{Checkpoint, Note, TrustPolicy, Unverified, leaf_hash, merkle};

use super::{TestKey, checkpoint};

const NOTE: &str = "evidence.test/log\n3\nWqx3HImawpLnS/Gv4ubjAvi1WIOy0b8Ze0amvqbavKk=\n\n\
    — evidence.test/log VKfRnEWGMi0kVwlVZbTxeBgPWJIrav83E48XZnlOVLQOaDqdlpnhM4S/tuc0TTSvkZZaEaZu5Y2pU/IW0B8ZJmS3MgU=\n\
    — witness.test/w1 2strhQAAAABlU/EAWToAEzSEjYbP/YAUxAl2NxtiVMKmiPIM+ZQqKqI9sRsu1LZmu0f+hsHtSk7y+XZCZ6nEplxPfH0VXlmNkSnFBg==\n";
const LOG_KEY: &str = "evidence.test/log+54a7d19c+ASFS+NGbeR0kRTJC4V8uq2y3z/p7al7TAJeWDgaYgdsS";
const WITNESS_KEY: &str = "witness.test/w1+dacb6b85+BCL8KXeS8Lb/wL/P237bDAqhTgJaNl7A40Lobjgpy3S2";

fn vector_keys() -> (TestKey, TestKey) {
    (TestKey::log("evidence.test/log", 0x42), TestKey::witness("witness.test/w1", 0x43))
}

#[test]
fn the_published_vector_comes_out_byte_for_byte() {
    let (log, witness) = vector_keys();
    assert_eq!((log.verifier.to_string(), witness.verifier.to_string()), (LOG_KEY.into(), WITNESS_KEY.into()));
    let root = merkle::root_of(["one", "two", "three"].map(|leaf| leaf_hash(leaf.as_bytes())));
    let text = Checkpoint { origin: "evidence.test/log".into(), size: 3, root }.text();
    let note = Note::new(text.clone(), vec![log.sign_text(&text), witness.cosign_text(&text, 1_700_000_000)]);
    assert_eq!(note.to_string(), NOTE);
}

#[test]
fn the_published_vector_verifies() {
    let policy = format!("log {LOG_KEY}\nwitness w1 {WITNESS_KEY}\nquorum w1\n");
    let policy = TrustPolicy::parse(policy.as_bytes()).expect("a policy");
    let note = Note::parse(NOTE.as_bytes()).expect("a note");
    assert_eq!(note.to_string(), NOTE);
    let cosigned = Unverified::new(note).verify(&policy).expect("verifies");
    assert_eq!((cosigned.checkpoint.size, &cosigned.witnesses[..]), (3, &[("w1".to_owned(), 1_700_000_000)][..]));
}

#[test]
fn every_flipped_byte_of_the_vector_is_refused() {
    let policy = format!("log {LOG_KEY}\nwitness w1 {WITNESS_KEY}\nquorum w1\n");
    let policy = TrustPolicy::parse(policy.as_bytes()).expect("a policy");
    for at in 0..NOTE.len() {
        for bit in 0..8 {
            let mut bad = NOTE.as_bytes().to_vec();
            bad[at] ^= 1 << bit;
            let accepted = Note::parse(&bad).is_ok_and(|note| Unverified::new(note).verify(&policy).is_ok());
            assert!(!accepted, "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn malformed_notes() {
    let (log, _) = vector_keys();
    let text = checkpoint("evidence.test/log").text();
    let good = Note::new(text.clone(), vec![log.sign_text(&text)]).to_string();
    assert!(Note::parse(good.as_bytes()).is_ok());
    let many: String = (0..101).map(|_| log.sign_text(&text).line()).collect();
    for (name, bad) in [
        ("empty", String::new()),
        ("no signature", format!("{text}\n")),
        ("no empty line", good.replace("\n\n", "\n")),
        ("no final newline", good.trim_end().to_owned()),
        ("carriage return", good.replace('\n', "\r\n")),
        ("control character", good.replace("evidence", "evi\u{7}dence")),
        ("a hyphen for the dash", good.replace('—', "-")),
        ("two spaces", good.replace("— evidence.test/log ", "— evidence.test/log  ")),
        ("no name", good.replace("— evidence.test/log ", "—  ")),
        ("a plus in the name", good.replace("— evidence.test/log", "— evidence+log")),
        ("not base64", good.replace("VKfR", "VK!R")),
        ("base64 without padding", good.replace("=\n", "\n")),
        ("a key id and nothing else", format!("{text}\n— evidence.test/log VKfRnA==\n")),
        ("shorter than a key id", format!("{text}\n— evidence.test/log VKc=\n")),
        ("empty line at the end", format!("{good}\n")),
        ("more than a hundred signatures", format!("{text}\n{many}")),
    ] {
        assert!(matches!(Note::parse(bad.as_bytes()), Err(NoteError::Malformed(_))), "{name}: {bad:?}");
    }
    assert!(matches!(Note::parse(b"a\xff\n\n"), Err(NoteError::Malformed(_))), "not UTF-8");
    assert_eq!(Note::parse(&vec![b'a'; 16 * 1024 + 1]), Err(NoteError::TooLong));
}

#[test]
fn base64_has_one_spelling() {
    // The last character's unused bits are set: the same bytes to a lenient reader.
    let bad = NOTE.replace("MgU=", "MgV=");
    assert_ne!(bad, NOTE);
    assert!(Note::parse(bad.as_bytes()).is_err());
}

#[test]
fn signatures_of_the_pinned_key() {
    let (log, witness) = vector_keys();
    let text = checkpoint("evidence.test/log").text();
    let stranger = TestKey::log("evidence.test/log", 0x99).sign_text(&text);
    let namesake = TestKey::log("another.test/log", 0x42).sign_text(&text);
    let verify = |signatures: Vec<_>| Note::new(text.clone(), signatures).verify_signature(&log.verifier);
    let bad = Err(NoteError::BadSignature("evidence.test/log".into()));

    assert_eq!(verify(vec![log.sign_text(&text)]), Ok(()));
    assert_eq!(verify(vec![stranger.clone(), log.sign_text(&text)]), Ok(()), "unknown keys are ignored");
    assert_eq!(verify(vec![stranger, namesake]), Err(NoteError::Unsigned("evidence.test/log".into())));
    assert_eq!(verify(vec![log.sign_text("other\n")]), bad, "another text");
    assert_eq!(verify(vec![log.sign_text(&text), log.sign_text("other\n")]), bad, "one good, one bad");
    assert_eq!(verify(vec![log.line(vec![0; 63])]), bad, "63 bytes");
    assert_eq!(verify(vec![log.line([&log.sign(text.as_bytes()).0[..], b"x"].concat())]), bad, "65 bytes");
    let as_log = witness.sign_text(&text);
    let note = Note::new(text.clone(), vec![as_log]);
    assert!(note.verify_cosignature(&witness.verifier).is_err(), "a plain signature is no cosignature");
}

#[test]
fn cosignatures_of_the_pinned_witness() {
    let (_, witness) = vector_keys();
    let text = checkpoint("evidence.test/log").text();
    let verify = |signatures: Vec<_>| Note::new(text.clone(), signatures).verify_cosignature(&witness.verifier);
    let bad = Err(NoteError::BadSignature("witness.test/w1".into()));
    let good = |time_s| witness.cosign_text(&text, time_s);
    let moved = || {
        let mut line = good(10);
        line.bytes[7] = 11;
        line
    };

    assert_eq!(verify(vec![]), Ok(None));
    assert_eq!(verify(vec![good(10)]), Ok(Some(10)));
    assert_eq!(verify(vec![good(10), good(30), good(20)]), Ok(Some(30)), "the newest counts");
    assert_eq!(verify(vec![moved()]), bad, "another time");
    assert_eq!(verify(vec![good(10), moved()]), bad, "one good, one bad");
    assert_eq!(verify(vec![witness.cosign_text("other\n", 10)]), bad, "another text");
    assert_eq!(verify(vec![good(1 << 63)]), bad, "a time beyond signed 64 bits");
    assert_eq!(verify(vec![witness.line(vec![1; 7])]), bad, "shorter than a time");
}

#[test]
fn verifier_keys() {
    let (log, _) = vector_keys();
    assert_eq!(LOG_KEY.parse::<VerifierKey>(), Ok(log.verifier.clone()));
    assert_eq!(log.verifier.kid(), "evidence.test/log+54a7d19c");
    let error = |text: &str| text.parse::<VerifierKey>().expect_err(text);
    assert_eq!(error("evidence.test/log"), VerifierKeyError::Shape);
    assert_eq!(error("evidence.test/log+54a7d19c"), VerifierKeyError::Shape);
    assert_eq!(error(&LOG_KEY.replace("+ASFS", "+!SFS")), VerifierKeyError::Shape, "not base64");
    assert_eq!(error(&LOG_KEY.replace("54a7d19c", "54a7d19d")), VerifierKeyError::Hash);
    assert_eq!(error(&LOG_KEY.replace("54a7d19c", "54A7D19C")), VerifierKeyError::Hash, "upper case");
    assert_eq!(error(&LOG_KEY.replace("54a7d19c", "54a7d1")), VerifierKeyError::Hash, "short");
    assert_eq!(error(&LOG_KEY.replace(".test", ".best")), VerifierKeyError::Hash, "another name");
    assert_eq!(error(&LOG_KEY.replace("+ASFS", "+AiFS")), VerifierKeyError::Type);
    assert_eq!(error("evidence.test/log+54a7d19c+AQ=="), VerifierKeyError::Type, "no key behind the type");
    assert!(matches!(error(&LOG_KEY.replace(".test", " test")), VerifierKeyError::Name(_)));
    assert!(matches!(error(&LOG_KEY.replace("evidence.test/log", "")), VerifierKeyError::Name(_)));
    let small_order = "evidence.test/log+54a7d19c+AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    assert!(matches!(error(small_order), VerifierKeyError::Key(_)));
    for name in ["", "a+b", "a b", "a\u{a0}b", "a\nb", "a\u{7f}"] {
        assert!(VerifierKey::new(name, KeyKind::Ed25519, log.public()).is_err(), "{name:?}");
    }
}
