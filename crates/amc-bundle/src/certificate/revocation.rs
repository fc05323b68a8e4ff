//! Revocations: portable signed files, honoured only from the issuer of the certificate.

use amc_core::kinds::Role;
use amc_core::{CertificateId, Digest, Finding, FindingCode};
use amc_crypto::dsse::{Envelope, EnvelopeError, StatementTrust};
use amc_crypto::{PredicateType, PublicKey, Statement, Subject, TrustPolicy, Unverified, VerifierKey, policy as trust};
use amc_evidence::{EventTrust, KeyHistory, SignedEvent};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::VerifiedCertificate;
use crate::records::{EventRecords, write_event};

/// The version of the revocation format.
const REVOCATION_VERSION: u32 = 1;

/// The predicate of `urn:amc:predicate:revocation:v1`. The one subject is the certificate: its id, and the
/// digest of its `certificate.dsse.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevocationPredicate {
    /// Always 1.
    pub version: u32,
    /// The certificate.
    pub certificate_id: CertificateId,
    /// Origin of the issuer's audit log.
    pub issuer: String,
    /// When, RFC 3339 in UTC.
    pub revoked_at: String,
    /// Why, in the issuer's words.
    pub reason: String,
    /// The `key_rotated` events of the issuer's log in base64, as records of a bundle: they lead from the key
    /// that verifiers pin to the one that signs this. Empty where that is the same.
    pub key_events: String,
}

/// The statement that the issuer signs to revoke a certificate.
pub fn revocation_statement(
    certificate_id: &CertificateId,
    certificate_sha256: Digest,
    issuer: &str,
    revoked_at_s: u64,
    reason: &str,
    key_events: &[SignedEvent],
) -> Statement {
    let mut records = Vec::new();
    key_events.iter().for_each(|event| write_event(&mut records, event));
    let predicate = RevocationPredicate {
        version: REVOCATION_VERSION,
        certificate_id: certificate_id.clone(),
        issuer: issuer.to_owned(),
        revoked_at: super::moment(revoked_at_s),
        reason: reason.to_owned(),
        key_events: STANDARD.encode(records),
    };
    let subject = vec![Subject::new(certificate_id.as_str(), certificate_sha256)];
    Statement::new(PredicateType::Revocation, subject, &predicate).expect("one subject and a struct")
}

/// A revocation file as read: well formed, signed by whoever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    envelope: Envelope,
    /// What it says, unverified.
    says: (RevocationPredicate, Digest),
}

impl Revocation {
    /// Reads a file; verifies nothing.
    ///
    /// # Errors
    /// [`EnvelopeError`] when it is no revocation. Whoever was given it must not go on without it.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let (envelope, statement) = super::peek_statement(bytes, PredicateType::Revocation)?;
        let says = said(&statement)?;
        Ok(Revocation { envelope, says })
    }
}

fn said(statement: &Statement) -> Result<(RevocationPredicate, Digest), EnvelopeError> {
    let predicate: RevocationPredicate = statement.predicate_as()?;
    match statement.subject.as_slice() {
        [subject] if subject.name == predicate.certificate_id.as_str() && predicate.version == REVOCATION_VERSION => {
            Ok((predicate, subject.digest.sha256))
        }
        _ => Err(EnvelopeError::Malformed("a revocation has one subject, the certificate that it names")),
    }
}

/// Looks for revocations of this certificate; whose they are decides what they are worth.
pub(super) fn check(
    revocations: &[Revocation],
    certificate: &VerifiedCertificate,
    policy: &TrustPolicy,
    findings: &mut Vec<Finding>,
) {
    let id = &certificate.predicate.certificate_id;
    let about = |revocation: &&Revocation| {
        let (says, sha256) = &revocation.says;
        says.certificate_id == *id || *sha256 == certificate.sha256
    };
    for revocation in revocations.iter().filter(about) {
        let keys = issuer_keys(certificate, policy, &revocation.says.0);
        let trust = StatementTrust { keys: &keys, wanted: PredicateType::Revocation };
        let signed = Unverified::new(revocation.envelope.clone()).verify(&trust);
        let honoured = signed.is_ok_and(|signed| {
            said(&signed.statement).is_ok_and(|(says, _)| says.issuer == certificate.predicate.issuer)
        });
        let (says, _) = &revocation.says;
        findings.push(if honoured {
            let what = format!("its issuer revoked it at {}: {}", says.revoked_at, says.reason);
            Finding::error(FindingCode::CertRevoked, id.as_str(), what)
        } else {
            let what = format!(
                "a revocation names this certificate and is not signed by its issuer {}; it does not count",
                certificate.predicate.issuer
            );
            Finding::warn(FindingCode::RevocationIssuerMismatch, id.as_str(), what)
        });
    }
}

/// The key that signed the certificate, those that are pinned for its workspace's auditor, and those that the
/// pinned ones lead to by the events in the revocation.
fn issuer_keys(certificate: &VerifiedCertificate, policy: &TrustPolicy, says: &RevocationPredicate) -> Vec<PublicKey> {
    let of_workspace = |origin: &str| origin.split('/').next() == certificate.predicate.issuer.split('/').next();
    let auditors = policy.logs().iter().filter(|log| trust::role_of_origin(log.name()) == Some(Role::Auditor));
    let mut keys = vec![certificate.bundle.key];
    for log in auditors.filter(|log| of_workspace(log.name())) {
        keys.extend(led_to(log, &says.key_events));
    }
    keys
}

/// The keys of a log, as far as these events lead from its pinned one.
fn led_to(pinned: &VerifierKey, key_events: &str) -> Vec<PublicKey> {
    let mut keys = KeyHistory::pinned(pinned.public());
    let bytes = STANDARD.decode(key_events).unwrap_or_default();
    let mut records = EventRecords::new(bytes.as_slice());
    while let Ok(Some(signed)) = records.next_event() {
        let trust = EventTrust { origin: pinned.name(), keys: &keys };
        // What the key before did not sign leads nowhere.
        let Ok(record) = Unverified::new(signed).verify(&trust) else { break };
        if !keys.observe(&record) {
            break;
        }
    }
    keys.spans().iter().map(|(_, key)| *key).collect()
}
