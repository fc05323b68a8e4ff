//! Certificates: an issuer's statement that a VALID run passed a gate policy, good for a time.
//!
//! A certificate travels in an `.amccert`: the members of a bundle and `certificate.dsse.json`, all of them
//! bound by the manifest. To verify one is to verify the bundle, to evaluate the policy again, and to look
//! at the time and at revocations. `docs/formats/certificate.md` is the specification.

mod badge;
mod pack;
mod page;
mod revocation;
mod verify;

use amc_core::timestamp::{NS_PER_S, to_rfc3339};
use amc_core::{AgentId, CertificateId, Digest, RunId, WorkspaceName};
use amc_crypto::dsse::{Envelope, EnvelopeError};
use amc_crypto::{PredicateType, Statement, Subject};
use amc_scoring::Report;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::gate::SignedPolicy;
use crate::member;

pub use badge::badge;
pub use pack::pack_certificate;
pub use page::page;
pub use revocation::{Revocation, RevocationPredicate, revocation_statement};
pub use verify::{CertificateData, CertificateVerdict, VerifiedCertificate, verify_certificate};

/// The version of the certificate format.
pub const CERTIFICATE_VERSION: u32 = 1;
/// Longest validity, in days: a score speaks of the past, and agents change.
pub const VALIDITY_DAYS_MAX: u64 = 366;

/// The predicate of `urn:amc:predicate:certificate:v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificatePredicate {
    /// Always [`CERTIFICATE_VERSION`].
    pub version: u32,
    /// Derived from what it certifies.
    pub certificate_id: CertificateId,
    /// Origin of the issuer's audit log.
    pub issuer: String,
    /// The workspace.
    pub workspace: WorkspaceName,
    /// The agent.
    pub agent: AgentId,
    /// The run.
    pub run_id: RunId,
    /// What it passed.
    pub policy: CertifiedPolicy,
    /// The first second of its validity, RFC 3339 in UTC.
    pub not_before: String,
    /// The last second of its validity, RFC 3339 in UTC.
    pub not_after: String,
}

impl CertificatePredicate {
    /// Reads what an envelope says, whoever signed it: to show, never to rely on.
    ///
    /// # Errors
    /// [`EnvelopeError`] when it is no certificate.
    pub fn peek(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        Ok(peek_statement(bytes, PredicateType::Certificate)?.1.predicate_as()?)
    }
}

/// An envelope and the statement in it, whoever signed it.
fn peek_statement(bytes: &[u8], wanted: PredicateType) -> Result<(Envelope, Statement), EnvelopeError> {
    #[derive(Deserialize)]
    struct Payload {
        payload: String,
    }
    let envelope = Envelope::parse(bytes)?;
    let Payload { payload } = serde_json::from_slice(bytes)?;
    let payload = STANDARD.decode(payload).map_err(|_| EnvelopeError::Malformed("payload is not base64"))?;
    Ok((envelope, Statement::parse(&payload, wanted)?))
}

/// A gate policy inside a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertifiedPolicy {
    /// SHA-256 of the text.
    pub sha256: Digest,
    /// The version that its signature named.
    pub version: u64,
    /// The file as it was signed.
    pub text: String,
}

/// What an issuer certifies.
#[derive(Debug, Clone, Copy)]
pub struct CertificatePlan<'a> {
    /// The run's report.
    pub report: &'a Report,
    /// The policy's bytes, UTF-8.
    pub policy: &'a str,
    /// The same, with its signature verified.
    pub signed: &'a SignedPolicy,
    /// The first second of its validity, since the epoch.
    pub not_before_s: u64,
    /// The last second of its validity, since the epoch.
    pub not_after_s: u64,
}

impl CertificatePlan<'_> {
    /// What the certificate says.
    pub fn predicate(&self) -> CertificatePredicate {
        let report = self.report;
        let mut predicate = CertificatePredicate {
            version: CERTIFICATE_VERSION,
            certificate_id: CertificateId::new(format!("cert-{}", "0".repeat(32))).expect("32 digits"),
            issuer: report.audit.origin.clone(),
            workspace: report.workspace.clone(),
            agent: report.agent.clone(),
            run_id: report.run_id.clone(),
            policy: CertifiedPolicy {
                sha256: amc_crypto::sha256(self.policy.as_bytes()),
                version: self.signed.version,
                text: self.policy.to_owned(),
            },
            not_before: moment(self.not_before_s),
            not_after: moment(self.not_after_s),
        };
        predicate.certificate_id = certificate_id(&predicate, &report_digest(report));
        predicate
    }
}

/// The statement that the issuer signs.
pub fn certificate_statement(predicate: &CertificatePredicate, report: &Report) -> Statement {
    let subject = vec![Subject::new(member::REPORT_JSON, report_digest(report))];
    Statement::new(PredicateType::Certificate, subject, predicate).expect("one subject and a struct")
}

fn report_digest(report: &Report) -> Digest {
    amc_crypto::sha256(&report.to_bytes())
}

/// `cert-` and the first 16 bytes of a hash over what the certificate is about.
fn certificate_id(predicate: &CertificatePredicate, report: &Digest) -> CertificateId {
    let CertificatePredicate { issuer, run_id, policy, not_before, not_after, .. } = predicate;
    let what =
        format!("amc/certificate/v1\n{issuer}\n{run_id}\n{report}\n{}\n{not_before}\n{not_after}\n", policy.sha256);
    let hash = amc_crypto::sha256(what.as_bytes());
    CertificateId::new(format!("cert-{}", amc_core::digest::hex(&hash.0[..16]))).expect("32 hex digits")
}

/// A second as text.
pub(crate) fn moment(time_s: u64) -> String {
    to_rfc3339(i64::try_from(time_s).unwrap_or(i64::MAX / NS_PER_S).min(i64::MAX / NS_PER_S) * NS_PER_S)
}
