//! What was read of a bundle, and how its pieces are held against each other.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{Read, Seek};

use amc_core::kinds::{KeyPurpose, KeyRevoked, LogHead, Role};
use amc_core::timestamp::NS_PER_S;
use amc_core::{Finding, FindingCode};
use amc_crypto::{
    Checkpoint, CosignedCheckpoint, Note, PublicKey, TrustPolicy, Verified, VerifierKey, policy as trust,
};
use amc_evidence::VerifiedEvent;
use amc_scoring::{
    Bank, Claims, EvidenceSource, Report, SCORER, ScoreInput, Selected, Selector, Target, score_selected, select_audit,
};

use super::again::{Again, read_again};
use super::configs::Configs;
use super::line;
use super::logs::{LogEvents, check_checkpoint, room_for};
use super::sessions::SessionCheck;
use super::{Halt, Issuer, LogCoverage, Stop, VerifiedBundle, score as recompute};
use crate::error::VerifyError;
use crate::manifest::{Listed, Manifest};
use crate::payloads::{self, Named, PayloadError};
use crate::{member, seal};

/// Everything that was read.
pub(super) struct Content {
    pub(super) manifest: Manifest,
    /// Members that are kept in memory, by name.
    pub(super) files: BTreeMap<String, Vec<u8>>,
    policy: TrustPolicy,
    key: PublicKey,
    audit: LogEvents,
    evidence: Option<LogEvents>,
    /// Where the evidence events stand in the file: from which byte on, and how many bytes.
    evidence_at: (u64, u64),
    sessions: Option<SessionCheck>,
    payloads: Option<Named>,
}

impl Content {
    /// What the manifest says must fit the key that signed it. Without a key it is a pinned issuer's, whose
    /// audit log has yet to name the key that signed.
    pub(super) fn new(manifest: Manifest, key: Option<PublicKey>, policy: &TrustPolicy) -> Result<Self, Halt> {
        let says = &manifest.predicate;
        let untrusted = |what: String| Halt::new(FindingCode::IssuerUntrusted, member::MANIFEST, what);
        let signed = |log: &&VerifierKey| key.is_none_or(|key| key == log.public());
        let audit = pinned(policy, &says.issuer, Role::Auditor).filter(signed).cloned();
        let audit = audit.or_else(|| line::successor_of_pinned(policy, &says.issuer, key?));
        let audit = audit.ok_or_else(|| untrusted(format!("its key is not pinned as that of {}", says.issuer)))?;
        if workspace_of(&says.issuer) != says.workspace.as_str() {
            let what = format!("the issuer {} does not speak for workspace {}", says.issuer, says.workspace);
            return Err(untrusted(what));
        }
        let key = key.unwrap_or(audit.public());
        let audit = LogEvents::new(&audit, Role::Auditor, member::AUDIT_EVENTS);
        let (files, policy) = (BTreeMap::new(), policy.clone());
        let (evidence, evidence_at, sessions, payloads) = (None, (0, 0), None, None);
        Ok(Content { manifest, files, policy, key, audit, evidence, evidence_at, sessions, payloads })
    }

    pub(super) fn read_audit(&mut self, source: &mut dyn Read, findings: &mut Vec<Finding>) -> Result<(), Stop> {
        self.audit.read(source, &mut |_| {}, findings)
    }

    /// The evidence checkpoint stands before the events in the archive and names their log. `at`: where the events
    /// begin in the file, and their bytes; `each` sees every event.
    pub(super) fn read_evidence(
        &mut self,
        source: &mut dyn Read,
        at: (u64, u64),
        each: &mut dyn FnMut(&VerifiedEvent),
        findings: &mut Vec<Finding>,
    ) -> Result<(), Stop> {
        let bytes = self.files.get(member::EVIDENCE_CHECKPOINT).map_or(&[][..], Vec::as_slice);
        let checkpoint = Note::parse(bytes).ok().and_then(|note| Checkpoint::parse(note.text()).ok());
        let refuse = |code, what: String| Stop::Finding(Finding::error(code, member::EVIDENCE_CHECKPOINT, what));
        let Some(Checkpoint { origin, .. }) = checkpoint else {
            return Err(refuse(FindingCode::CheckpointInvalid, "it is no signed checkpoint".into()));
        };
        let workspace = &self.manifest.predicate.workspace;
        let log = pinned(&self.policy, &origin, Role::Monitor).cloned();
        let log = log.or_else(|| line::recorded_successor(&self.policy, &self.audit, &origin));
        let log = log.filter(|_| workspace_of(&origin) == workspace.as_str());
        let Some(log) = log else {
            let what = format!(
                "{origin:?} is not pinned as an evidence log of workspace {workspace}; if it is one, name the \
                 policy that pins it with --trust FILE"
            );
            return Err(refuse(FindingCode::CheckpointInvalid, what));
        };
        let mut events = LogEvents::new(&log, Role::Monitor, member::EVIDENCE_EVENTS).with_room(at.1);
        let mut sessions = SessionCheck::new(events.origin(), &self.manifest.predicate.agent);
        let mut named = Named::with_room(room_for(at.1));
        let mut seen = |record: &VerifiedEvent| {
            sessions.take(record);
            named.note(record);
            each(record);
        };
        events.read(source, &mut seen, findings)?;
        self.evidence = Some(events);
        (self.evidence_at, self.sessions, self.payloads) = (at, Some(sessions), Some(named));
        Ok(())
    }

    pub(super) fn read_payloads(
        &mut self,
        source: &mut dyn Read,
        listed: &Listed,
        findings: &mut Vec<Finding>,
    ) -> Result<(), Stop> {
        let mut error = |code, what: String| {
            findings.push(Finding::error(code, member::EVIDENCE_PAYLOADS, what));
            Ok(())
        };
        let wanted = match self.payloads.take().unwrap_or_default().finish() {
            Ok(wanted) => wanted,
            Err(wrong) => return error(FindingCode::PayloadHashMismatch, wrong.to_string()),
        };
        let unpacked = listed.entry.unpacked.unwrap_or(0);
        match payloads::check(source, unpacked, &wanted, &self.manifest.predicate.payloads_absent) {
            Ok(()) => Ok(()),
            Err(PayloadError::Io(error)) => Err(Stop::Read(error)),
            Err(wrong @ PayloadError::Size(_)) => error(FindingCode::PayloadMissing, wrong.to_string()),
            Err(wrong @ PayloadError::Frame(_)) => error(FindingCode::BundleMalformed, wrong.to_string()),
            Err(wrong) => error(FindingCode::PayloadHashMismatch, wrong.to_string()),
        }
    }

    /// Holds the pieces against each other; `None` where a piece is missing that the rest rests on. The events are read
    /// again from `source`.
    ///
    /// # Errors
    /// The second reading failed, or gave other bytes than the first.
    pub(super) fn judge<R: Read + Seek>(
        mut self,
        source: R,
        findings: &mut Vec<Finding>,
    ) -> Result<Option<VerifiedBundle>, VerifyError> {
        self.payloads = None;
        let sessions = self.sessions.take().map(SessionCheck::finish).unwrap_or_default();
        let evidence =
            self.evidence.as_ref().expect("every manifest names the evidence events, and all members were read");
        let audit_checkpoint =
            self.checkpoint((&self.audit, evidence), member::AUDIT_CHECKPOINT, member::AUDIT_PROOF, findings);
        let evidence_checkpoint =
            self.checkpoint((evidence, &self.audit), member::EVIDENCE_CHECKPOINT, member::EVIDENCE_PROOF, findings);
        line::check(evidence, &self.audit, &self.policy, findings);
        line::check(&self.audit, evidence, &self.policy, findings);
        let size = |checkpoint: &Option<Verified<CosignedCheckpoint>>| {
            checkpoint.as_ref().map_or(0, |cosigned| cosigned.checkpoint.size)
        };
        evidence.check_revoked(size(&evidence_checkpoint), line::revocations(&self.audit.events), findings);
        self.audit.check_revoked(size(&audit_checkpoint), line::revocations(&evidence.events), findings);
        self.check_issuer(evidence, findings);
        findings.extend(sessions);

        let Some(report) = self.report(findings) else { return Ok(None) };
        let again = Again::new(source, self.evidence_at, &evidence.seen);
        if let Some(checkpoint) = &evidence_checkpoint {
            self.check_slice(&report, &checkpoint.checkpoint, evidence, findings);
        }
        let Some(selected) = self.check_chosen(&report, evidence, &again, findings)? else { return Ok(None) };
        let entry = recompute::check_entry(&report, &self.audit.events, findings);
        if let Err(error) = seal::verify_seal(&self.files[member::SEAL], &report, &self.auditor_keys()) {
            findings.push(Finding::error(FindingCode::RunSealInvalid, member::SEAL, error.to_string()));
        }
        let Some(bank) = self.check_files(&report, evidence, findings) else { return Ok(None) };
        if self.check_score(&report, &bank, (&again, &selected), findings)?.is_none() {
            return Ok(None);
        }

        let (Some(audit_checkpoint), Some(evidence_checkpoint), Some(entry)) =
            (audit_checkpoint, evidence_checkpoint, entry)
        else {
            return Ok(None);
        };
        let seen_ns = newest_ns(&audit_checkpoint.witnesses);
        let entry_ns = entry.event.wall_ns;
        Ok(Some(VerifiedBundle {
            issuer: Issuer { origin: Some(self.audit.origin().to_owned()), fingerprint: self.key.dsse_key_id() },
            evidence: coverage(evidence, &evidence_checkpoint),
            audit: coverage(&self.audit, &audit_checkpoint),
            recorded_ns: seen_ns.map_or(entry_ns, |seen| seen.min(entry_ns)),
            level5_not_observed: recompute::level5_not_observed(&report, |index| evidence.tier_of(index)),
            payloads: self.manifest.predicate.payloads,
            payloads_absent: self.manifest.predicate.payloads_absent.len(),
            key: self.key,
            revoked: line::revocations(&evidence.events)
                .filter(|revoked| is_auditors(revoked))
                .map(|revoked| revoked.public)
                .collect(),
            certificate: self.files.get(member::CERTIFICATE).cloned(),
            report,
        }))
    }

    /// The keys that the audit log had: what one of them signed is bound to an entry of that log, whose own
    /// key counts where it stands.
    fn auditor_keys(&self) -> Vec<PublicKey> {
        self.audit.keys().spans().iter().map(|(_, key)| *key).collect()
    }

    /// A manifest stands nowhere in a log, so one by a revoked or a retired key never counts.
    fn check_issuer(&self, evidence: &LogEvents, findings: &mut Vec<Finding>) {
        let about_issuer = |revoked: &&KeyRevoked| is_auditors(revoked) && revoked.public == self.key.to_digest();
        let mut error = |code, what: String| findings.push(Finding::error(code, member::MANIFEST, what));
        if let Some(revoked) = line::revocations(&evidence.events).find(about_issuer) {
            error(FindingCode::KeyRevoked, format!("the key that signed it was revoked: {}", revoked.reason));
        }
        if self.audit.keys().newest() != self.key {
            let what = "the audit log had put another key in the place of the one that signed it";
            error(FindingCode::KeyOutOfValidity, what.to_owned());
        }
    }

    /// The issuer's key, among those that the audit log had.
    pub(super) fn issuer_by_history(&self, manifest: &[u8]) -> Option<PublicKey> {
        Manifest::verify(manifest, &self.auditor_keys()).ok().map(|(_, key)| key)
    }

    /// The key that turned out to have signed the manifest.
    pub(super) const fn set_issuer(&mut self, key: PublicKey) {
        self.key = key;
    }

    /// The checkpoint of a log, when it counts, with the proof checked against it.
    fn checkpoint(
        &self,
        (log, other): (&LogEvents, &LogEvents),
        name: &str,
        proof: &str,
        findings: &mut Vec<Finding>,
    ) -> Option<Verified<CosignedCheckpoint>> {
        let policy = line::learned(&self.policy, log, other, &self.files[name]);
        match check_checkpoint(&self.files[name], log.origin(), name, &policy) {
            Ok(checkpoint) => {
                log.check_proof(&checkpoint, proof, &self.files[proof], findings);
                Some(checkpoint)
            }
            Err(finding) => {
                findings.push(finding);
                None
            }
        }
    }

    /// The report in its canonical spelling, about the run that the manifest names.
    fn report(&self, findings: &mut Vec<Finding>) -> Option<Report> {
        let mut error = |code, what: String| findings.push(Finding::error(code, member::REPORT_JSON, what));
        let bytes = &self.files[member::REPORT_JSON];
        let report = match Report::from_bytes(bytes) {
            Ok(report) => report,
            Err(_) if scorer_of(bytes).is_some_and(|scorer| scorer != SCORER) => {
                error(FindingCode::ScorerUnsupported, unsupported(&scorer_of(bytes).unwrap_or_default()));
                return None;
            }
            Err(wrong) => {
                error(FindingCode::ScoreMismatch, wrong.to_string());
                return None;
            }
        };
        let says = &self.manifest.predicate;
        let same = report.run_id == says.run_id && report.agent == says.agent && report.workspace == says.workspace;
        if !same || report.audit.origin != says.issuer {
            let what = "its run, agent, workspace or audit log is not the one that the manifest names";
            error(FindingCode::BundleMemberMismatch, what.into());
        }
        Some(report)
    }

    /// The run covers the evidence log up to exactly the checkpoint that is here.
    fn check_slice(&self, report: &Report, at: &Checkpoint, evidence: &LogEvents, findings: &mut Vec<Finding>) {
        let Checkpoint { origin, size, root } = at.clone();
        if report.evidence != (LogHead { origin, size, root }) {
            let what = format!(
                "the report covers {} events of {}, and the checkpoint that is here is of another state of {}",
                report.evidence.size,
                report.evidence.origin,
                evidence.origin()
            );
            findings.push(Finding::error(FindingCode::CheckpointInvalid, member::EVIDENCE_CHECKPOINT, what));
        }
    }

    /// The events are exactly those that the score reads, so nothing of anybody else is here; gives which it reads.
    fn check_chosen<'r>(
        &self,
        report: &'r Report,
        evidence: &LogEvents,
        again: &dyn EvidenceSource,
        findings: &mut Vec<Finding>,
    ) -> Result<Option<Selected<'r>>, VerifyError> {
        let Some(as_of_ns) = report.as_of_ns() else {
            let what = "its as_of is no time";
            findings.push(Finding::error(FindingCode::ScoreMismatch, member::REPORT_JSON, what));
            return Ok(None);
        };
        let selector = Selector::new(&report.agent, as_of_ns, report.window_s);
        let selected = selector.select(again, report.evidence.size).map_err(read_again)?;
        let mut stray = None;
        let find = &mut |record: Cow<'_, VerifiedEvent>| {
            if stray.is_none() && !selected.contains(&record) {
                stray = Some(record.event.index);
            }
        };
        again.read(find).map_err(read_again)?;
        let slice = || self.audit.events.iter().filter(|record| record.event.index < report.audit.size);
        let chosen_audit = select_audit(&report.agent, slice().map(|record| &**record));
        let indices = slice().map(|record| record.event.index);
        let stray_audit = indices.into_iter().find(|index| !chosen_audit.contains(index));
        for (log, stray) in [(evidence, stray), (&self.audit, stray_audit)] {
            if let Some(stray) = stray {
                let what = "this event is not one that the score of this agent and window reads";
                let subject = log.subject(stray);
                findings.push(Finding::error(FindingCode::BundleMemberMismatch, subject, what));
            }
        }
        Ok(Some(selected))
    }

    /// Configurations, target and bank; gives the bank.
    fn check_files(&self, report: &Report, evidence: &LogEvents, findings: &mut Vec<Finding>) -> Option<Bank> {
        let keys = self.auditor_keys();
        let configs =
            Configs { files: &self.files, keys: &keys, audit: &self.audit.events, evidence: &evidence.events };
        configs.check_all(findings);
        let bytes = &self.files[member::BANK];
        // A bank that ships with AMC needs no signature; whether it is allowed, the gate says.
        let shipped = amc_crypto::sha256(bytes) == amc_crypto::sha256(amc_scoring::SHIPPED_BANK);
        if !shipped || self.files.contains_key(member::BANK_SIG) {
            configs.check(member::BANK, member::BANK, None, bytes, findings);
        }
        let mut error = |code, what: String| findings.push(Finding::error(code, member::BANK, what));
        if amc_crypto::sha256(bytes) != report.bank.sha256 {
            error(FindingCode::ScoreMismatch, "it is not the bank that the report names".into());
        }
        match Bank::parse(bytes) {
            Ok(bank) => Some(bank),
            Err(wrong) => {
                error(FindingCode::BundleMalformed, wrong.to_string());
                None
            }
        }
    }

    /// Scores again and compares bytes: the report's, and those of its pages.
    fn check_score(
        &self,
        report: &Report,
        bank: &Bank,
        (again, selected): (&dyn EvidenceSource, &Selected<'_>),
        findings: &mut Vec<Finding>,
    ) -> Result<Option<()>, VerifyError> {
        let mut error = |code, name: &str, what: String| findings.push(Finding::error(code, name, what));
        if report.scorer != SCORER {
            error(FindingCode::ScorerUnsupported, member::REPORT_JSON, unsupported(&report.scorer));
            return Ok(None);
        }
        let claims = self.files.get(member::CLAIMS).map(|bytes| Claims::parse(bytes, bank)).transpose();
        let claims = match claims {
            Ok(claims) => claims,
            Err(wrong) => {
                error(FindingCode::BundleMalformed, member::CLAIMS, wrong.to_string());
                return Ok(None);
            }
        };
        let target = self
            .target()
            .map(|(name, bytes)| Target::parse(bytes, &report.agent, bank).map_err(|wrong| (name, wrong.to_string())));
        let target = match target.transpose() {
            Ok(target) => target,
            Err((name, wrong)) => {
                error(FindingCode::BundleMalformed, name, wrong);
                return Ok(None);
            }
        };
        let Some(as_of_ns) = report.as_of_ns() else { return Ok(None) };
        let input = ScoreInput {
            workspace: &report.workspace,
            agent: &report.agent,
            evidence_head: report.evidence.clone(),
            audit_head: report.audit.clone(),
            evidence: again,
            audit: &self.audit.events,
            bank,
            as_of_ns,
            window_s: report.window_s,
            claims: claims.as_ref(),
            target: target.as_ref(),
        };
        let recomputed = score_selected(&input, selected).map_err(read_again)?;
        if recomputed.to_bytes() != self.files[member::REPORT_JSON] {
            let what = match recompute::first_difference(report, &recomputed) {
                Some(place) => {
                    format!("the score does not recompute from the evidence; the first difference is {place}")
                }
                None => "the score recomputes to other bytes".to_owned(),
            };
            error(FindingCode::ScoreMismatch, member::REPORT_JSON, what);
        }
        for (name, page) in recompute::pages(report) {
            let listed = self.manifest.members.iter().find(|listed| listed.entry.name == name);
            if listed.is_none_or(|listed| listed.sha256 != amc_crypto::sha256(&page)) {
                error(FindingCode::ScoreMismatch, name, "it is not the page that the report makes".into());
            }
        }
        Ok(Some(()))
    }

    fn target(&self) -> Option<(&str, &[u8])> {
        let mut below = self.files.iter().filter(|(name, _)| name.starts_with(member::TARGET_DIR));
        let (name, bytes) = below.find(|(name, _)| !name.ends_with(".sig"))?;
        Some((name, bytes))
    }
}

fn pinned<'p>(policy: &'p TrustPolicy, origin: &str, role: Role) -> Option<&'p VerifierKey> {
    policy.log(origin).filter(|log| trust::role_of_origin(log.name()) == Some(role))
}

fn is_auditors(revoked: &KeyRevoked) -> bool {
    revoked.purpose == KeyPurpose::Log && trust::role_of_origin(&revoked.origin) == Some(Role::Auditor)
}

fn workspace_of(origin: &str) -> &str {
    origin.split('/').next().unwrap_or_default()
}

/// The scorer that a report of whatever format names.
fn scorer_of(bytes: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    Some(value.get("scorer")?.as_str()?.to_owned())
}

fn unsupported(scorer: &str) -> String {
    let scorer: String = scorer.chars().filter(|c| !c.is_control()).take(64).collect();
    format!("the report was made by {scorer:?} and this release has {SCORER:?}; verify with a release that has it")
}

fn coverage(log: &LogEvents, checkpoint: &CosignedCheckpoint) -> LogCoverage {
    LogCoverage {
        origin: log.origin().to_owned(),
        size: checkpoint.checkpoint.size,
        events: log.indices.len() as u64,
        witnesses: checkpoint.witnesses.clone(),
    }
}

/// The newest of these times, in nanoseconds since the epoch.
fn newest_ns(witnesses: &[(String, u64)]) -> Option<i64> {
    let newest = witnesses.iter().map(|(_, time_s)| *time_s).max()?;
    Some(i64::try_from(newest).unwrap_or(i64::MAX).saturating_mul(NS_PER_S))
}
