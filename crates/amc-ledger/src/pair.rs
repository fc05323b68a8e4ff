//! Two logs that witness each other, verified together.
//!
//! Each log is checked against its pinned key and against every checkpoint of it that the other
//! role cosigned, so a rollback or a fork of one needs a rollback or a fork of the other. The
//! cosigned notes prove themselves: a pinned log and a pinned witness signed them.

use std::path::Path;

use amc_core::kinds::{Fields, Role};
use amc_core::{Finding, FindingCode};
use amc_crypto::checkpoint::CheckpointError;
use amc_crypto::policy::role_of_origin;
use amc_crypto::{Check as _, Checkpoint, Note, TrustPolicy, VerifierKey};
use amc_evidence::{Event, VerifiedEvent};

use crate::error::ReadError;
use crate::reader::LogReader;
use crate::verify::{Progress, VerifyMode, VerifyOptions, VerifyReport, verify};

/// What to verify against.
pub struct PairOptions<'a> {
    /// Pinned logs and witnesses.
    pub policy: &'a TrustPolicy,
    /// How thoroughly.
    pub mode: VerifyMode,
    /// Checkpoints that somebody brought, signatures checked: of either log.
    pub brought: &'a [Checkpoint],
    /// Called now and then, with the role whose log is read.
    pub progress: Option<&'a dyn Fn(Role, Progress)>,
}

/// What was found in one of the two.
#[derive(Debug, Clone)]
pub struct LogVerdict {
    /// The verification of the log itself, findings included.
    pub report: VerifyReport,
    /// The largest size of it that the other role cosigned; 0 for none.
    pub cosigned_size: u64,
}

/// What was found in both; `None` for a log that was not given.
#[derive(Debug, Clone)]
pub struct PairVerdict {
    /// The monitor's log.
    pub evidence: Option<LogVerdict>,
    /// The auditor's log.
    pub audit: Option<LogVerdict>,
}

impl PairVerdict {
    /// The findings of both, the evidence log's first.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        [&self.evidence, &self.audit].into_iter().flatten().flat_map(|verdict| &verdict.report.findings)
    }
}

/// Verifies the logs that are given, each also against what the other says of it.
///
/// # Errors
/// [`ReadError`] when a log cannot be read at all; what is wrong with one that can stands in the
/// verdict.
pub fn verify_pair(
    evidence: Option<&Path>,
    audit: Option<&Path>,
    options: &PairOptions<'_>,
    sink: &mut dyn FnMut(Role, VerifiedEvent),
) -> Result<PairVerdict, ReadError> {
    let known_of_evidence = audit.map_or_else(|| Ok(Vec::new()), |dir| cosigned_in(dir, options))?;
    let known_of_audit = evidence.map_or_else(|| Ok(Vec::new()), |dir| cosigned_in(dir, options))?;
    let mut one = |dir: Option<&Path>, role: Role, known: &[Checkpoint]| {
        dir.map(|dir| verify_one(dir, role, known, options, sink)).transpose()
    };
    Ok(PairVerdict {
        evidence: one(evidence, Role::Monitor, &known_of_evidence)?,
        audit: one(audit, Role::Auditor, &known_of_audit)?,
    })
}

fn verify_one(
    dir: &Path,
    role: Role,
    cosigned: &[Checkpoint],
    options: &PairOptions<'_>,
    sink: &mut dyn FnMut(Role, VerifiedEvent),
) -> Result<LogVerdict, ReadError> {
    let pinned = pinned(options.policy, role)?;
    let ours = |checkpoint: &&Checkpoint| checkpoint.origin == pinned.name();
    let known: Vec<Checkpoint> = cosigned.iter().chain(options.brought).filter(ours).cloned().collect();
    let cosigned_size = cosigned.iter().filter(ours).map(|checkpoint| checkpoint.size).max().unwrap_or(0);
    let progress = options.progress.map(|progress| move |at: Progress| progress(role, at));
    let verify_options = VerifyOptions {
        known: &known,
        mode: options.mode,
        progress: progress.as_ref().map(|progress| progress as &dyn Fn(Progress)),
        ..VerifyOptions::full(pinned)
    };
    let report = verify(dir, &verify_options, &mut |event| sink(role, event))?;
    Ok(LogVerdict { report, cosigned_size })
}

fn pinned(policy: &TrustPolicy, role: Role) -> Result<&VerifierKey, ReadError> {
    let pinned = policy.logs().iter().find(|key| role_of_origin(key.name()) == Some(role));
    pinned.ok_or_else(|| {
        let what = format!("the trust policy pins no {role}'s log; add its `log` line, which its owner gives out with `amc trust export`");
        ReadError::Damaged(Finding::error(FindingCode::KeyHistoryUntrusted, role.log_name(), what))
    })
}

/// Checkpoints of the other log that this one records as cosigned and that prove themselves.
fn cosigned_in(dir: &Path, options: &PairOptions<'_>) -> Result<Vec<Checkpoint>, ReadError> {
    let reader = LogReader::open(dir)?;
    let mut checkpoints = Vec::new();
    for stored in reader.events(0) {
        // What cannot be read or decoded is found, with its place, when this log is verified.
        let Ok(stored) = stored else { break };
        let Ok((_, Some(Fields::CheckpointCosigned(cosigned)))) = Event::decode(&stored.signed.body) else { continue };
        let proven = Note::parse(cosigned.note.as_bytes()).map_err(CheckpointError::from);
        if let Ok(proven) = proven.and_then(|note| options.policy.check(note)) {
            checkpoints.push(proven.checkpoint);
        }
    }
    Ok(checkpoints)
}
