//! Reading the logs as an auditor: verified whole, before anything rests on them.

use std::path::{Path, PathBuf};

use amc_core::Finding;
use amc_core::kinds::{Fields, LogHead, Role};
use amc_crypto::{Check as _, CosignedCheckpoint, Note};
use amc_evidence::VerifiedEvent;
use amc_ledger::witness::{self, WitnessError};
use amc_ledger::{LogReader, VerifyMode, VerifyOptions, verify};
use amc_workspace::opening::now_s;
use amc_workspace::{Answer, Failure, Opening};
use serde_json::json;

use crate::unlock::{Unlocked, unlock};

/// A log that verified, with all of its events.
pub(crate) struct VerifiedLog {
    pub(crate) reader: LogReader,
    pub(crate) events: Vec<VerifiedEvent>,
    pub(crate) findings: Vec<Finding>,
}

impl Unlocked {
    /// The evidence log: a copy or mount that was named, else this home's.
    pub(crate) fn evidence_dir(&self, named: Option<&Path>) -> PathBuf {
        named.map_or_else(|| self.home.log(Role::Monitor), Path::to_owned)
    }

    /// Cosigns the newest published checkpoint of the evidence log.
    pub(crate) fn cosign(&self, evidence: &Path) -> Result<Note, Failure> {
        let reader = LogReader::open(evidence).map_err(Failure::wrong)?;
        let now_s = now_s(&self.clock);
        let note = witness::cosign_log(&self.writer, &self.witness, &self.policy, &reader, now_s);
        let note = note.map_err(|error| match error {
            WitnessError::Append(_) | WitnessError::Sign(_) => Failure::unable(error),
            other => Failure::bad(other),
        })?;
        self.writer.publish().map_err(Failure::unable)?;
        Ok(note)
    }

    /// Verifies a role's log against its pinned key and what the other role cosigned of it. A quick
    /// verification gives no events.
    pub(crate) fn verified(
        &self,
        role: Role,
        dir: &Path,
        cosigned: &[Note],
        mode: VerifyMode,
    ) -> Result<VerifiedLog, Failure> {
        let pinned = self.home.pinned_log(&self.policy, role).map_err(Failure::wrong)?;
        let known: Vec<_> = cosigned
            .iter()
            .filter_map(|note| self.policy.check(note.clone()).ok())
            .filter(|cosigned| cosigned.checkpoint.origin == pinned.name())
            .map(|CosignedCheckpoint { checkpoint, .. }| checkpoint)
            .collect();
        let options = VerifyOptions { known: &known, mode, ..VerifyOptions::full(&pinned) };
        let mut events = Vec::new();
        let report = verify(dir, &options, &mut |event| events.push(event)).map_err(Failure::wrong)?;
        if !report.is_good() {
            let message = format!("the {} log does not verify, so nothing rests on it", role.log_name());
            return Err(report.findings.into_iter().fold(Failure::bad(message), Failure::with));
        }
        let reader = LogReader::open(dir).map_err(Failure::wrong)?;
        Ok(VerifiedLog { reader, events, findings: report.findings })
    }
}

impl VerifiedLog {
    /// The newest cosigned checkpoint that this log records of the other role's log and that `fits`.
    pub(crate) fn newest_cosigned(&self, fits: impl Fn(&LogHead) -> bool) -> Option<Note> {
        let newest = self.events.iter().rev().find_map(|record| match &record.fields {
            Some(Fields::CheckpointCosigned(cosigned)) if fits(&cosigned.head) => Some(cosigned),
            _ => None,
        });
        newest.and_then(|cosigned| Note::parse(cosigned.note.as_bytes()).ok())
    }

    /// The cosigned notes that this log records of the other role's log, oldest first.
    pub(crate) fn cosigned_notes(&self) -> Vec<Note> {
        let notes = self.events.iter().filter_map(|record| match &record.fields {
            Some(Fields::CheckpointCosigned(cosigned)) => Note::parse(cosigned.note.as_bytes()).ok(),
            _ => None,
        });
        notes.collect()
    }
}

/// Both logs, each verified against its key and against what the other role cosigned of it.
pub(crate) struct BothLogs {
    pub(crate) evidence: VerifiedLog,
    pub(crate) audit: VerifiedLog,
}

impl Unlocked {
    /// Verifies both logs.
    pub(crate) fn verified_logs(&self, evidence_dir: &Path) -> Result<BothLogs, Failure> {
        let audit_dir = self.home.log(Role::Auditor);
        let audit = self.verified(Role::Auditor, &audit_dir, &[], VerifyMode::Full)?;
        let evidence = self.verified(Role::Monitor, evidence_dir, &audit.cosigned_notes(), VerifyMode::Full)?;
        // What the monitor cosigned of this log is known only now that the evidence is verified.
        self.verified(Role::Auditor, &audit_dir, &evidence.cosigned_notes(), VerifyMode::Quick)?;
        Ok(BothLogs { evidence, audit })
    }
}

pub(crate) fn cosign_once(opening: &Opening, evidence: Option<&Path>) -> Result<Answer, Failure> {
    let unlocked = unlock(opening)?;
    let note = unlocked.cosign(&unlocked.evidence_dir(evidence))?;
    unlocked.writer.close().map_err(Failure::unable)?;
    Ok(Answer::new(&json!({ "note": note.to_string() }), "Cosigned the evidence log\n"))
}
