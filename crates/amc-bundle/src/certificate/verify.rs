//! Verifying a certificate: the bundle, the issuer's statement, the policy again, the time, revocations.

use std::io::{Read, Seek};

use amc_core::timestamp::{NS_PER_S, from_rfc3339};
use amc_core::{AgentId, CertificateId, Digest, Finding, FindingCode, RunId};
use amc_crypto::dsse::{Envelope, EnvelopeError, StatementTrust};
use amc_crypto::{PredicateType, PublicKey, TrustPolicy, Unverified};
use amc_scoring::{Label, Status};
use serde::Serialize;

use super::revocation::{self, Revocation};
use super::{CERTIFICATE_VERSION, CertificatePredicate, VALIDITY_DAYS_MAX, certificate_id, certificate_statement};
use crate::error::VerifyError;
use crate::gate::{Decision, GateDecision, GatePolicy, decide_plain};
use crate::member;
use crate::verify::{BundleVerdict, CLOCK_SKEW_NS, Issuer, VerifiedBundle, verify};

/// A certificate that is authentic, in its time, and not revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifiedCertificate {
    /// What it says.
    pub predicate: CertificatePredicate,
    /// SHA-256 of `certificate.dsse.json`.
    pub sha256: Digest,
    /// The bundle with the run.
    pub bundle: VerifiedBundle,
    /// The policy's rules, evaluated again for the moment of issue.
    pub rules: GateDecision,
}

/// What verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateVerdict {
    /// Everything found, the bundle's findings first.
    pub findings: Vec<Finding>,
    /// Who signed, as far as it is known.
    pub issuer: Option<Issuer>,
    certificate: Option<VerifiedCertificate>,
}

/// The `data` of `amc --json cert verify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CertificateData {
    /// The certificate.
    pub certificate_id: Option<CertificateId>,
    /// The run.
    pub run_id: Option<RunId>,
    /// The agent.
    pub agent_id: Option<AgentId>,
    /// The run's status.
    pub status: Option<Status>,
    /// The trust label.
    pub label: Option<Label>,
    /// Overall value, in basis points of a level.
    pub overall_bp: Option<u32>,
    /// IntegrityIndex, in basis points.
    pub integrity_bp: Option<u32>,
    /// SHA-256 of the policy that it passed.
    pub policy_sha256: Option<Digest>,
    /// The first second of its validity.
    pub not_before: Option<String>,
    /// The last second of its validity.
    pub not_after: Option<String>,
    /// Who signed.
    pub issuer: Option<Issuer>,
}

impl CertificateVerdict {
    /// The certificate, when it verified.
    pub const fn certificate(&self) -> Option<&VerifiedCertificate> {
        self.certificate.as_ref()
    }

    /// Whether it is authentic, in its time and not revoked.
    pub const fn is_good(&self) -> bool {
        self.certificate.is_some()
    }

    /// The first error, when there is one.
    pub fn first_error(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.is_error())
    }

    /// Takes the certificate's good standing away, for a reason that is not in the file.
    pub fn refuse(&mut self, finding: Finding) {
        self.certificate = self.certificate.take().filter(|_| !finding.is_error());
        self.findings.push(finding);
    }

    /// What scripts lean on; of a certificate that did not verify only the issuer.
    pub fn data(&self) -> CertificateData {
        let good = self.certificate();
        let report = good.map(|certificate| &certificate.bundle.report);
        let says = good.map(|certificate| &certificate.predicate);
        CertificateData {
            certificate_id: says.map(|says| says.certificate_id.clone()),
            run_id: says.map(|says| says.run_id.clone()),
            agent_id: says.map(|says| says.agent.clone()),
            status: report.map(|report| report.status),
            label: report.map(|report| report.label),
            overall_bp: report.map(|report| report.overall_bp),
            integrity_bp: report.map(|report| report.integrity_bp),
            policy_sha256: says.map(|says| says.policy.sha256),
            not_before: says.map(|says| says.not_before.clone()),
            not_after: says.map(|says| says.not_after.clone()),
            issuer: self.issuer.clone(),
        }
    }
}

/// Reads and verifies a certificate under the keys that `policy` pins, at `now_ns` (since the epoch).
///
/// # Errors
/// [`VerifyError`] when the bytes cannot be read. Whatever is wrong with them is a finding.
pub fn verify_certificate(
    source: impl Read + Seek,
    policy: &TrustPolicy,
    revocations: &[Revocation],
    now_ns: i64,
) -> Result<CertificateVerdict, VerifyError> {
    let bundle = verify(source, policy)?;
    let mut verdict =
        CertificateVerdict { findings: bundle.findings.clone(), issuer: bundle.issuer.clone(), certificate: None };
    let certificate = check(&bundle, &mut verdict.findings);
    if let Some(certificate) = certificate {
        check_time(&certificate.predicate, now_ns, &mut verdict.findings);
        revocation::check(revocations, &certificate, policy, &mut verdict.findings);
        verdict.certificate = Some(certificate).filter(|_| verdict.first_error().is_none());
    }
    Ok(verdict)
}

/// Holds the certificate against the bundle that it came in; `None` where there is none to speak of.
fn check(verdict: &BundleVerdict, findings: &mut Vec<Finding>) -> Option<VerifiedCertificate> {
    let bundle = verdict.bundle()?;
    let mut error = |code, what: String| findings.push(Finding::error(code, member::CERTIFICATE, what));
    let Some(bytes) = &bundle.certificate else {
        let what = "there is no certificate inside; it is a bundle, which `amc bundle verify` reads";
        error(FindingCode::BundleMalformed, what.into());
        return None;
    };
    let predicate = match read(bytes, bundle.key) {
        Ok(predicate) => predicate,
        Err(wrong) => {
            error(FindingCode::BundleMemberMismatch, wrong.to_string());
            return None;
        }
    };
    if let Some(what) = contradiction(&predicate, bundle) {
        error(FindingCode::BundleMemberMismatch, format!("it is not about this run: {what}"));
        return None;
    }
    let policy = match GatePolicy::parse(predicate.policy.text.as_bytes()) {
        Ok(policy) => policy,
        Err(wrong) => {
            error(FindingCode::BundleMemberMismatch, format!("the policy that it names: {wrong}"));
            return None;
        }
    };
    let issued_ns = from_rfc3339(&predicate.not_before).ok()?;
    let rules = decide_plain(verdict, &policy, issued_ns);
    if rules.decision == Decision::Deny {
        let failing = rules
            .rules
            .iter()
            .find(|rule| !rule.pass)
            .map(|rule| format!("{}: wanted {}, found {}", rule.rule, rule.wanted, rule.found));
        let what = format!("the run does not pass the policy that it names; {}", failing.unwrap_or_default());
        error(FindingCode::BundleMemberMismatch, what);
        return None;
    }
    Some(VerifiedCertificate { sha256: amc_crypto::sha256(bytes), predicate, bundle: bundle.clone(), rules })
}

/// The predicate, signed by the issuer of the bundle.
fn read(bytes: &[u8], key: PublicKey) -> Result<CertificatePredicate, EnvelopeError> {
    let trust = StatementTrust { keys: &[key], wanted: PredicateType::Certificate };
    let signed = Unverified::new(Envelope::parse(bytes)?).verify(&trust)?.into_inner();
    let predicate: CertificatePredicate = signed.statement.predicate_as()?;
    let [subject] = signed.statement.subject.as_slice() else {
        return Err(EnvelopeError::Malformed("a certificate has one subject, the report"));
    };
    // The id names the report's digest as well, so the subject is checked with it.
    if subject.name != member::REPORT_JSON
        || certificate_id(&predicate, &subject.digest.sha256) != predicate.certificate_id
    {
        return Err(EnvelopeError::Malformed("the certificate's id is not that of its contents"));
    }
    Ok(predicate)
}

/// What a certificate says otherwise than its bundle, or cannot say at all.
fn contradiction(says: &CertificatePredicate, bundle: &VerifiedBundle) -> Option<&'static str> {
    let report = &bundle.report;
    let moments = from_rfc3339(&says.not_before).ok().zip(from_rfc3339(&says.not_after).ok());
    let longest_ns = i64::try_from(VALIDITY_DAYS_MAX).expect("some hundred") * 86_400 * NS_PER_S;
    let validity = moments.is_some_and(|(from, to)| {
        let canonical = super::moment(u64::try_from(from / NS_PER_S).unwrap_or(0)) == says.not_before
            && super::moment(u64::try_from(to / NS_PER_S).unwrap_or(0)) == says.not_after;
        canonical && from <= to && to.saturating_sub(from) <= longest_ns
    });
    let same_report = certificate_statement(says, report).subject;
    let wanted_id = certificate_id(says, &same_report[0].digest.sha256);
    let differs = [
        ("version", says.version != CERTIFICATE_VERSION),
        ("issuer", says.issuer != report.audit.origin),
        ("workspace", says.workspace != report.workspace),
        ("agent", says.agent != report.agent),
        ("run_id", says.run_id != report.run_id),
        ("the report's digest", says.certificate_id != wanted_id),
        ("policy.sha256", says.policy.sha256 != amc_crypto::sha256(says.policy.text.as_bytes())),
        ("not_before and not_after", !validity),
        ("status", report.status != Status::Valid),
    ];
    differs.iter().find(|(_, differs)| *differs).map(|(field, _)| *field)
}

fn check_time(says: &CertificatePredicate, now_ns: i64, findings: &mut Vec<Finding>) {
    let (from, to) = (from_rfc3339(&says.not_before), from_rfc3339(&says.not_after));
    let subject = says.certificate_id.as_str();
    let mut error = |what: String| findings.push(Finding::error(FindingCode::CertExpired, subject, what));
    if from.is_ok_and(|from| now_ns < from.saturating_sub(CLOCK_SKEW_NS)) {
        error(format!("it is not valid before {}; is this machine's clock right?", says.not_before));
    }
    // The last second counts whole.
    if to.is_ok_and(|to| now_ns >= to.saturating_add(NS_PER_S)) {
        error(format!("its time was over at {}; ask the issuer for a newer one", says.not_after));
    }
}
