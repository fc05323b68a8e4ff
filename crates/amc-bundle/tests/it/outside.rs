//! What others make of a bundle: Python's tarfile and a check written from the format's page, and
//! the sealed bundle of the first release.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use amc_bundle::archive::ArchiveReader;
use amc_bundle::member;
use amc_crypto::TrustPolicy;

use crate::world::{Parts, World, errors, verify};

fn python(bundle: &[u8]) -> Output {
    let mut child = Command::new("python3")
        .args(["-c", include_str!("check_bundle.py")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 with its standard library is on the machine");
    child.stdin.take().expect("piped").write_all(bundle).expect("python reads all of it");
    child.wait_with_output().expect("python ends")
}

#[test]
fn python_lists_and_recomputes_the_same() {
    let bundle = World::new().export();
    let output = python(&bundle);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut archive = ArchiveReader::new(bundle.as_slice());
    let headers = std::iter::from_fn(|| archive.next_member().expect("canonical"));
    let wanted: String = headers.map(|header| format!("{} {}\n", header.name, header.size)).collect();
    assert_eq!(String::from_utf8(output.stdout).expect("text"), wanted);
}

#[test]
fn python_refuses_what_we_refuse() {
    let world = World::new();
    let good = Parts::of(&world.export());
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, &str, Change); 4] = [
        ("tree", member::EVIDENCE_PROOF, |bytes| bytes[40] ^= 1),
        ("tree", member::AUDIT_CHECKPOINT, |bytes| {
            let root = bytes.iter().position(|byte| *byte == b'\n').expect("three lines") + 6;
            bytes[root] = if bytes[root] == b'A' { b'B' } else { b'A' };
        }),
        ("spare", member::EVIDENCE_PROOF, |bytes| bytes.extend_from_slice(&[0; 32])),
        ("record", member::AUDIT_EVENTS, |bytes| bytes.truncate(bytes.len() - 1)),
    ];
    for (what, name, change) in changes {
        let mut parts = good.clone();
        parts.edit(name, change);
        let bundle = parts.pack(&world.keys.auditor);
        assert!(!verify(&bundle, &world.keys.policy()).is_good());
        let output = python(&bundle);
        assert!(!output.status.success(), "{name}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(what), "{name}: {output:?}");
    }
    let mut flipped = world.export();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    assert!(!python(&flipped).status.success());
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/bundle").join(name)
}

/// `AMC_SEAL_FIXTURES=1` writes the files again, as `fixtures/bundle/README.md` says.
#[test]
fn the_sealed_bundle_still_verifies() {
    let (bundle, policy) = (fixture("v1.amcbundle"), fixture("v1.trust.policy"));
    if std::env::var_os("AMC_SEAL_FIXTURES").is_some() {
        let world = World::new();
        std::fs::write(&bundle, world.export()).expect("the fixture is written");
        std::fs::write(&policy, world.keys.policy_text()).expect("the fixture is written");
    }
    let policy = TrustPolicy::parse(&std::fs::read(policy).expect("there")).expect("a policy");
    let bytes = std::fs::read(bundle).expect("there");
    assert_eq!(errors(&verify(&bytes, &policy)), []);
    assert!(python(&bytes).status.success());
}
