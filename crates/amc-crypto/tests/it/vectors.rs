//! Third-party vectors, kept beside the workspace (`../shared/vectors`); skipped where absent.

use std::fs;
use std::path::{Path, PathBuf};

use amc_core::{Digest, digest};
use amc_crypto::key::{Claim, verify_all};
use amc_crypto::{PublicKey, Signature, merkle};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

/// The folder of vectors, or a line that says it is absent.
fn folder(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors").join(name);
    if path.is_dir() {
        return Some(path);
    }
    println!("SKIPPED: no vectors at ../shared/vectors/{name} beside the workspace");
    None
}

fn json_files(folder: &Path) -> Vec<(String, Value)> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(json_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "json") {
            let value = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
            found.push((path.display().to_string(), value));
        }
    }
    found
}

/// A hash in base64; `None` where it has another length, which this crate's types refuse.
fn hash(value: &Value) -> Option<Digest> {
    let bytes = STANDARD.decode(value.as_str().unwrap_or_default()).expect("base64");
    bytes.try_into().ok().map(Digest)
}

/// As [`hash`]; for the cases whose roots are placeholders and matter only as equal or different.
fn root(value: &Value) -> Digest {
    hash(value).unwrap_or_else(|| amc_crypto::sha256(value.to_string().as_bytes()))
}

fn hashes(value: &Value) -> Option<Vec<Digest>> {
    value.as_array().into_iter().flatten().map(hash).collect()
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

#[test]
fn merkle_inclusion() {
    let Some(folder) = folder("merkle/inclusion") else { return };
    let files = json_files(&folder);
    assert!(files.len() > 50, "{} files", files.len());
    for (name, case) in files {
        let (index, size) = (number(&case["leafIdx"]), number(&case["treeSize"]));
        let accepted = (|| {
            let (leaf, root, path) = (hash(&case["leafHash"])?, hash(&case["root"])?, hashes(&case["proof"])?);
            merkle::verify_inclusion(leaf, index, size, &path, &root).ok()
        })();
        assert_eq!(accepted.is_none(), case["wantErr"].as_bool().expect("wantErr"), "{name}");
    }
}

#[test]
fn merkle_consistency() {
    let Some(folder) = folder("merkle/consistency") else { return };
    let files = json_files(&folder);
    assert!(files.len() > 50, "{} files", files.len());
    for (name, case) in files {
        let (first, second) = (number(&case["size1"]), number(&case["size2"]));
        let accepted = (|| {
            let path = hashes(&case["proof"])?;
            merkle::verify_consistency(first, second, &path, &root(&case["root1"]), &root(&case["root2"])).ok()
        })();
        assert_eq!(accepted.is_none(), case["wantErr"].as_bool().expect("wantErr"), "{name}");
    }
}

/// What a cofactorless, strict verifier takes: points with a component of small order whose parts
/// cancel out. Points of small order, other encodings of a point, and a residue are all refused.
const HARMLESS: [&str; 2] = ["low_order_component_A", "low_order_component_R"];

#[test]
fn ed25519_edge_cases() {
    let Some(folder) = folder("ed25519") else { return };
    let files = json_files(&folder);
    let cases = files[0].1.as_array().expect("an array");
    let mut accepted = 0;
    for case in cases {
        let bytes = |field: &str| digest::unhex(case[field].as_str().expect("hex")).expect("hex");
        let key = <[u8; 32]>::try_from(bytes("key")).expect("32 bytes");
        let signature = Signature::try_from(bytes("sig").as_slice()).expect("64 bytes");
        let message = case["msg"].as_str().expect("a message").as_bytes();
        let holds = PublicKey::from_bytes(&key).is_ok_and(|key| key.verify(message, &signature).is_ok());
        let flags = case["flags"].as_array().cloned().unwrap_or_default();
        let harmless = flags.iter().all(|flag| HARMLESS.contains(&flag.as_str().expect("a flag")));
        assert_eq!(holds, harmless, "vector {}: {flags:?}", case["number"]);
        accepted += usize::from(holds);
    }
    assert!(accepted > 0 && accepted < cases.len() / 2, "{accepted} of {} accepted", cases.len());
}

/// A batch decides as the strict check does, save for a residue of small order, which it may miss:
/// only the key's own holder can make one.
#[test]
fn ed25519_edge_cases_in_a_batch() {
    let Some(folder) = folder("ed25519") else { return };
    let files = json_files(&folder);
    let company = crate::TestKey::log("test/evidence", 7);
    let others: Vec<_> = (0u8..32).map(|number| ([number], company.sign(&[number]))).collect();
    let mut refused = 0;
    for case in files[0].1.as_array().expect("an array") {
        let bytes = |field: &str| digest::unhex(case[field].as_str().expect("hex")).expect("hex");
        let Ok(key) = PublicKey::from_bytes(&bytes("key").try_into().expect("32 bytes")) else { continue };
        let signature = Signature::try_from(bytes("sig").as_slice()).expect("64 bytes");
        let message = case["msg"].as_str().expect("a message").as_bytes();
        let strict = key.verify(message, &signature).is_ok();
        let mut claims: Vec<_> = others
            .iter()
            .map(|(message, signature)| Claim { key: company.public(), message: message.as_slice(), signature })
            .collect();
        claims.insert(11, Claim { key, message, signature: &signature });
        let mut decided = verify_all(&claims);
        let in_batch = decided.remove(11);
        assert_eq!(decided, [true; 32], "the others keep their verdict beside vector {}", case["number"]);
        let residue = case["flags"].to_string().contains("low_order_residue");
        assert!(in_batch == strict || (residue && !strict), "vector {}: {}", case["number"], case["flags"]);
        assert_eq!(verify_all(&claims[11..12]), [strict], "few signatures are decided strictly");
        refused += usize::from(!in_batch);
    }
    assert!(refused > 50, "{refused} refused");
}
