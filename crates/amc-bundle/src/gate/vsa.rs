//! A judgement as a SLSA Verification Summary Attestation v1 (`https://slsa.dev/verification_summary/v1`).
//!
//! The statement is for whoever runs the gate to sign; here it is only put together. `verifiedLevels`
//! has a value of ours, since SLSA's own levels speak of builds.

use amc_core::kinds::Role;
use amc_core::{Digest, SOFTWARE, timestamp};
use amc_crypto::{PredicateType, Statement, Subject, policy as trust};
use serde::{Deserialize, Serialize};

use super::judge::Judgement;

/// The version of SLSA that the predicate follows.
const SLSA_VERSION: &str = "1.1";
/// `verifiedLevels` of a judgement that allows.
pub const LEVEL_ALLOWED: &str = "AMC_GATE_ALLOWED";
/// `verifiedLevels` of one that denies, as the specification names it.
pub const LEVEL_FAILED: &str = "FAILED";

/// The predicate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VsaPredicate {
    /// Who judged.
    pub verifier: Verifier,
    /// When, RFC 3339 in UTC.
    pub time_verified: String,
    /// What was judged: the agent where the bundle verified, else the bytes.
    pub resource_uri: String,
    /// The policy.
    pub policy: Descriptor,
    /// The bundle.
    pub input_attestations: Vec<Descriptor>,
    /// `PASSED` or `FAILED`.
    pub verification_result: String,
    /// [`LEVEL_ALLOWED`] or [`LEVEL_FAILED`].
    pub verified_levels: Vec<String>,
    /// The version of SLSA.
    pub slsa_version: String,
}

/// Who judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verifier {
    /// `urn:amc:verifier:<origin of the signer's audit log>`.
    pub id: String,
    /// The program, by name.
    pub version: std::collections::BTreeMap<String, String>,
}

/// A resource with its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Descriptor {
    /// Its name.
    pub uri: String,
    /// Its digest.
    pub digest: amc_crypto::statement::SubjectDigest,
}

fn descriptor(uri: String, sha256: Digest) -> Descriptor {
    Descriptor { uri, digest: amc_crypto::statement::SubjectDigest { sha256 } }
}

/// The statement for a judgement by the auditor of the log `origin`; `artifact` and `policy` are file names.
///
/// # Panics
/// When `origin` is no audit log's: only auditors sign statements.
pub fn vsa_statement(judgement: &Judgement, origin: &str, artifact: &str, policy: &str) -> Statement {
    assert!(trust::role_of_origin(origin) == Some(Role::Auditor), "statements are signed by an auditor");
    let report = judgement.verdict.bundle().map(|bundle| &bundle.report);
    let resource_uri = match report {
        Some(report) => format!("urn:amc:agent:{}:{}", report.workspace, report.agent),
        None => format!("urn:amc:bundle:{}", judgement.bundle_sha256),
    };
    let (result, level) = if judgement.is_allowed() { ("PASSED", LEVEL_ALLOWED) } else { ("FAILED", LEVEL_FAILED) };
    let (name, version) = SOFTWARE.split_once(' ').unwrap_or((SOFTWARE, ""));
    let predicate = VsaPredicate {
        verifier: Verifier {
            id: format!("urn:amc:verifier:{origin}"),
            version: [(name.to_owned(), version.to_owned())].into(),
        },
        time_verified: timestamp::to_rfc3339(judgement.judged_ns / timestamp::NS_PER_S * timestamp::NS_PER_S),
        resource_uri,
        policy: descriptor(policy.to_owned(), judgement.policy_sha256),
        input_attestations: vec![descriptor(artifact.to_owned(), judgement.bundle_sha256)],
        verification_result: result.to_owned(),
        verified_levels: vec![level.to_owned()],
        slsa_version: SLSA_VERSION.to_owned(),
    };
    let subject = vec![Subject::new(artifact, judgement.bundle_sha256)];
    Statement::new(PredicateType::VerificationSummary, subject, &predicate).expect("one subject and a struct")
}
