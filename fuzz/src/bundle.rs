//! Bundles, what stands in them, and gate policies.

use std::io::Cursor;
use std::sync::OnceLock;

use amc_bundle::archive::{ArchiveReader, ArchiveWriter};
use amc_bundle::certificate::CertificatePredicate;
use amc_bundle::records::{EventRecords, read_proof, write_event, write_proof};
use amc_bundle::sigstore::sigstore_bundle;
use amc_bundle::{GatePolicy, Revocation, inspect, payloads, verify, verify_certificate};
use amc_core::Digest;
use amc_crypto::TrustPolicy;

const POLICY: &[u8] = include_bytes!("../../fixtures/bundle/v1.trust.policy");
const BUNDLE: &[u8] = include_bytes!("../../fixtures/bundle/v1.amcbundle");
/// Far above every seed.
const MEMBER_BYTES_MAX: u64 = 1 << 20;

fn trust() -> &'static TrustPolicy {
    static TRUST: OnceLock<TrustPolicy> = OnceLock::new();
    TRUST.get_or_init(|| TrustPolicy::parse(POLICY).expect("the fixture's policy"))
}

/// An archive that is read to its end is the one that writing its members gives.
pub(crate) fn archive(data: &[u8]) {
    let mut reader = ArchiveReader::new(data);
    let mut writer = ArchiveWriter::new(Vec::new());
    loop {
        match reader.next_member() {
            Err(_) => return,
            Ok(None) => break,
            Ok(Some(header)) => {
                let Ok(bytes) = reader.read_member(&header, MEMBER_BYTES_MAX) else { return };
                writer.append(&header.name, header.size, &mut bytes.as_slice()).expect("what was read can be written");
            }
        }
    }
    assert_eq!(writer.finish().expect("memory takes it"), data.len() as u64, "an archive has one form");
}

/// Only the fixture itself verifies under the fixture's keys.
pub(crate) fn bundle(data: &[u8]) {
    let _ = inspect(data);
    let Ok(verdict) = verify(Cursor::new(data), trust()) else { return };
    assert!(verdict.first_error().is_some() || data == BUNDLE, "a bundle that nobody signed verifies");
}

/// Events and proofs read back as they were written; a zstd frame unpacks to no more than what is wanted.
pub(crate) fn records(data: &[u8]) {
    let (mut reader, mut again) = (EventRecords::new(data), Vec::new());
    while let Ok(Some(event)) = reader.next_event() {
        write_event(&mut again, &event);
    }
    assert!(data.starts_with(&again), "a record has one form");
    if let Ok(hashes) = read_proof(data) {
        assert_eq!(write_proof(&hashes), data);
    }
    let wanted = [(Digest([7; 32]), 100)].into_iter().collect();
    assert!(payloads::check(data, 104, &wanted, &[]).is_err(), "no bytes hash to this digest");
}

/// A certificate's predicate has one form; nothing that nobody signed is a certificate, whatever is said to revoke it.
pub(crate) fn certificate(data: &[u8]) {
    if let Ok(says) = CertificatePredicate::peek(data) {
        let text = serde_json::to_string(&says).expect("plain values serialise");
        assert_eq!(serde_json::from_str::<CertificatePredicate>(&text).expect("its own text"), says);
    }
    let _ = sigstore_bundle(data);
    let revocations: Vec<Revocation> = Revocation::parse(data).into_iter().collect();
    let verdict = verify_certificate(Cursor::new(data), trust(), &revocations, 1_772_323_200_000_000_000);
    let Ok(verdict) = verdict else { return };
    assert!(!verdict.is_good(), "a certificate that nobody signed verifies");
}

/// Whatever parses holds the one rule that no policy may drop.
pub(crate) fn gate_policy(data: &[u8]) {
    if let Ok(policy) = GatePolicy::parse(data) {
        assert!(policy.require_status_valid);
    }
}
