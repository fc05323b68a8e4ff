//! The run seal: the auditor's statement about `report.json`, and what it says of the run.

use amc_core::kinds::{LogHead, RunRecorded};
use amc_core::{AgentId, RunId, WorkspaceName};
use amc_crypto::dsse::{Envelope, EnvelopeError, StatementTrust};
use amc_crypto::{PredicateType, PublicKey, Statement, Subject, Unverified};
use amc_scoring::{Label, Report, Status};
use serde::{Deserialize, Serialize};

/// The name of the seal's one subject.
pub const SUBJECT: &str = "report.json";

/// The predicate of `urn:amc:predicate:run:v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunPredicate {
    /// The run.
    pub run_id: RunId,
    /// The workspace.
    pub workspace: WorkspaceName,
    /// The agent.
    pub agent: AgentId,
    /// The scorer that made the report.
    pub scorer: String,
    /// The slice of the evidence log that it covers.
    pub evidence: LogHead,
    /// The slice of the audit log that it covers.
    pub audit: LogHead,
    /// Whether the run may be relied on.
    pub status: Status,
    /// The trust label.
    pub label: Label,
    /// Overall value, in basis points of a level.
    pub overall_bp: u32,
    /// IntegrityIndex, in basis points.
    pub integrity_bp: u32,
}

impl RunPredicate {
    /// What the seal of this report says.
    pub fn of(report: &Report) -> Self {
        RunPredicate {
            run_id: report.run_id.clone(),
            workspace: report.workspace.clone(),
            agent: report.agent.clone(),
            scorer: report.scorer.clone(),
            evidence: report.evidence.clone(),
            audit: report.audit.clone(),
            status: report.status,
            label: report.label,
            overall_bp: report.overall_bp,
            integrity_bp: report.integrity_bp,
        }
    }
}

/// The entry that records a run in the audit log: what the report says of itself, and its digest.
pub fn run_entry(report: &Report) -> RunRecorded {
    RunRecorded {
        run_id: report.run_id.clone(),
        agent: report.agent.clone(),
        report_sha256: amc_crypto::sha256(&report.to_bytes()),
        evidence: report.evidence.clone(),
        audit_size: report.audit.size,
        status: report.status.to_string(),
        label: report.label.to_string(),
        overall_bp: report.overall_bp,
        integrity_bp: report.integrity_bp,
    }
}

/// The statement that the auditor signs for a report.
pub fn seal_statement(report: &Report) -> Statement {
    let subject = vec![Subject::new(SUBJECT, amc_crypto::sha256(&report.to_bytes()))];
    Statement::new(PredicateType::Run, subject, &RunPredicate::of(report)).expect("one subject and a struct")
}

/// A seal that does not vouch for a report.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Not an envelope that a pinned auditor signed.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// It is about another report, or says something else of it.
    #[error("the seal is for another report: it differs in {0}")]
    Other(&'static str),
}

/// Verifies that one of `keys` sealed this report, and that the seal says of it what it says itself.
///
/// # Errors
/// [`SealError`] when it did not.
pub fn verify_seal(seal: &[u8], report: &Report, keys: &[PublicKey]) -> Result<RunPredicate, SealError> {
    let trust = StatementTrust { keys, wanted: PredicateType::Run };
    let signed = Unverified::new(Envelope::parse(seal)?).verify(&trust)?.into_inner();
    let said: RunPredicate = signed.statement.predicate_as().map_err(EnvelopeError::Statement)?;
    if signed.statement.subject != seal_statement(report).subject {
        return Err(SealError::Other("its subject's digest"));
    }
    let wanted = RunPredicate::of(report);
    let differs = [
        ("run_id", said.run_id != wanted.run_id),
        ("workspace", said.workspace != wanted.workspace),
        ("agent", said.agent != wanted.agent),
        ("scorer", said.scorer != wanted.scorer),
        ("evidence", said.evidence != wanted.evidence),
        ("audit", said.audit != wanted.audit),
        ("status", said.status != wanted.status),
        ("label", said.label != wanted.label),
        ("overall_bp", said.overall_bp != wanted.overall_bp),
        ("integrity_bp", said.integrity_bp != wanted.integrity_bp),
    ];
    match differs.iter().find(|(_, differs)| *differs) {
        Some((field, _)) => Err(SealError::Other(field)),
        None => Ok(said),
    }
}
