//! Reading the logs as an auditor: verified whole, before anything rests on them.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use amc_core::kinds::Role;
use amc_core::{AgentId, Finding};
use amc_crypto::{Note, Unverified};
use amc_evidence::{Seen, VerifiedEvent};
use amc_ledger::line::Statements;
use amc_ledger::pair::{PairOptions, verify_pair};
use amc_ledger::witness::{self, WitnessError};
use amc_ledger::{LogReader, VerifyMode, line};
use amc_scoring::{EvidenceSource, SourceError};
use amc_workspace::opening::now_s;
use amc_workspace::{Answer, Failure, Opening};
use serde_json::json;

use crate::unlock::{Unlocked, unlock};

/// A log that verified, with its events.
pub(crate) struct VerifiedLog {
    pub(crate) reader: LogReader,
    pub(crate) events: Vec<VerifiedEvent>,
}

/// The evidence log, verified. Its events are read again where they are needed, and must be those that verified.
pub(crate) struct EvidenceLog {
    pub(crate) reader: LogReader,
    /// Those that are about the agent, or about none: index and what was seen.
    seen: Vec<(u64, Seen)>,
    /// Whether any is about the agent.
    pub(crate) is_of_agent: bool,
}

impl EvidenceLog {
    /// An event that is about the agent, or about none.
    pub(crate) fn event(&self, index: u64) -> Result<Option<VerifiedEvent>, Failure> {
        let Ok(at) = self.seen.binary_search_by_key(&index, |(index, _)| *index) else { return Ok(None) };
        let stored = self.reader.event(index).map_err(Failure::unable)?;
        let seen = &self.seen[at].1;
        stored.map(|stored| Unverified::new(stored.signed).verify(seen)).transpose().map_err(Failure::bad)
    }
}

impl EvidenceSource for EvidenceLog {
    fn read(&self, take: &mut dyn FnMut(Cow<'_, VerifiedEvent>)) -> Result<(), SourceError> {
        let mut wanted = self.seen.iter().peekable();
        for stored in self.reader.events(0) {
            let Some((index, seen)) = wanted.peek() else { return Ok(()) };
            let stored = stored?;
            if stored.index == *index {
                take(Cow::Owned(Unverified::new(stored.signed).verify(seen)?));
                wanted.next();
            }
        }
        match wanted.next() {
            None => Ok(()),
            Some((index, _)) => Err(format!("event {index} verified and cannot be found again").into()),
        }
    }
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
        let policy = line::learned(&self.policy, evidence, &self.home.log(Role::Auditor)).map_err(Failure::wrong)?;
        let note = witness::cosign_log(&self.writer, &self.witness, &policy, &reader, now_s);
        let note = note.map_err(|error| match error {
            WitnessError::Append(_) | WitnessError::Sign(_) => Failure::unable(error),
            other => Failure::bad(other),
        })?;
        self.writer.publish().map_err(Failure::unable)?;
        Ok(note)
    }

    /// Verifies both logs, each against its key and against what the other role cosigned of it. All of
    /// the evidence is verified; read again can be what is about this agent, or about none.
    pub(crate) fn verified_logs(&self, evidence_dir: &Path, agent: &AgentId) -> Result<BothLogs, Failure> {
        let audit_dir = self.home.log(Role::Auditor);
        let options = PairOptions { policy: &self.policy, mode: VerifyMode::Full, brought: &[], progress: None };
        let (mut seen, mut audit, mut is_of_agent) = (Vec::new(), Vec::new(), false);
        let mut agents = BTreeSet::new();
        let verdict = verify_pair(Some(evidence_dir), Some(&audit_dir), &options, &mut |role, event| match role {
            Role::Monitor => match &event.event.agent {
                Some(other) if other != agent => {
                    if !agents.contains(other) {
                        agents.insert(other.clone());
                    }
                }
                about => {
                    is_of_agent |= about.is_some();
                    seen.push((event.event.index, Seen::of(&event)));
                }
            },
            Role::Auditor => audit.push(event),
        });
        let verdict = verdict.map_err(Failure::wrong)?;
        let findings: Vec<Finding> = verdict.findings().cloned().collect();
        if findings.iter().any(Finding::is_error) {
            let failure = Failure::bad("the logs do not verify, so nothing rests on them");
            return Err(findings.into_iter().fold(failure, Failure::with));
        }
        let open = |dir: &Path| LogReader::open(dir).map_err(Failure::wrong);
        let reader = open(evidence_dir)?;
        // The writer may have gone on beyond the checkpoint that is published; a run ends at one, and no later.
        seen.truncate(seen.partition_point(|(index, _)| *index < reader.size()));
        let evidence = EvidenceLog { reader, seen, is_of_agent };
        let audit = VerifiedLog { reader: open(&audit_dir)?, events: audit };
        Ok(BothLogs { evidence, audit, other_agents: agents, findings, statements: verdict.statements })
    }
}

/// Both logs, each verified against its key and against what the other role cosigned of it.
pub(crate) struct BothLogs {
    pub(crate) evidence: EvidenceLog,
    pub(crate) audit: VerifiedLog,
    /// Agents of the evidence log whose events were verified and not kept.
    pub(crate) other_agents: BTreeSet<AgentId>,
    /// Warnings and notes of both; an error would have ended it.
    pub(crate) findings: Vec<Finding>,
    /// What they say of each other, outside witnesses included.
    pub(crate) statements: Statements,
}

pub(crate) fn cosign_once(opening: &Opening, evidence: Option<&Path>) -> Result<Answer, Failure> {
    let unlocked = unlock(opening)?;
    let note = unlocked.cosign(&unlocked.evidence_dir(evidence))?;
    unlocked.writer.close().map_err(Failure::unable)?;
    Ok(Answer::new(&json!({ "note": note.to_string() }), "Cosigned the evidence log\n"))
}
