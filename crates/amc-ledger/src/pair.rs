//! Two lines of logs that witness each other, verified together.
//!
//! Each log is checked against its pinned key, against every state of it that the other role or an
//! outside witness cosigned, and against the other role's revocations. So a rollback or a fork of one
//! needs a rollback or a fork of the other. A log that was succeeded is *ended*: what is wrong with it
//! is said and no longer fails; that it was really to be ended, and by this one successor, is checked.

use std::path::{Path, PathBuf};

use amc_core::kinds::{LogHead, Role};
use amc_core::{Finding, FindingCode, Severity};
use amc_crypto::policy::{number_of_origin, role_of_origin};
use amc_crypto::{Checkpoint, TrustPolicy, VerifierKey};
use amc_evidence::VerifiedEvent;

use crate::error::ReadError;
use crate::line::{Introduced, Statements, gather, line_of};
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
    /// The verification of the log in force, findings included, and those about its line.
    pub report: VerifyReport,
    /// The largest size of it for which a quorum cosigned; 0 for none.
    pub cosigned_size: u64,
    /// Witnesses that cosigned that state, by their names in the policy, with the time of each.
    pub witnesses: Vec<(String, u64)>,
    /// Logs that it succeeds, oldest first.
    pub ended: Vec<LogHead>,
}

/// What was found in both; `None` for a log that was not given.
#[derive(Debug, Clone)]
pub struct PairVerdict {
    /// The monitor's log.
    pub evidence: Option<LogVerdict>,
    /// The auditor's log.
    pub audit: Option<LogVerdict>,
    /// What the logs say of each other.
    pub statements: Statements,
}

impl PairVerdict {
    /// The findings of both, the evidence log's first.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        [&self.evidence, &self.audit].into_iter().flatten().flat_map(|verdict| &verdict.report.findings)
    }
}

/// Verifies the logs that are given, each also against what the other says of it. Logs that they succeed
/// are looked for beside them ([`line_of`]).
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
    let line = |dir: Option<&Path>, role| dir.map_or_else(Vec::new, |dir| line_of(dir, role));
    let lines = [(Role::Monitor, line(evidence, Role::Monitor)), (Role::Auditor, line(audit, Role::Auditor))];
    let dirs: Vec<PathBuf> = lines.iter().flat_map(|(_, dirs)| dirs.clone()).collect();
    let statements = gather(options.policy, &dirs)?;
    let mut verdicts = Vec::new();
    for (role, line) in &lines {
        let other_is_here = lines.iter().any(|(other, dirs)| other != role && !dirs.is_empty());
        let judge = LineJudge { role: *role, line, statements: &statements, options, other_is_here };
        verdicts.push(judge.verdict(sink)?);
    }
    let audit = verdicts.pop().flatten();
    Ok(PairVerdict { evidence: verdicts.pop().flatten(), audit, statements })
}

/// Verifies one log of a line with everything that is known of it.
///
/// # Errors
/// [`ReadError`] when it cannot be read at all.
pub fn verify_known(
    dir: &Path,
    key: &VerifierKey,
    statements: &Statements,
    options: &PairOptions<'_>,
    sink: &mut dyn FnMut(VerifiedEvent),
) -> Result<VerifyReport, ReadError> {
    let origin = key.name();
    let cosigned = statements.cosigned(origin).map(|state| state.checkpoint.clone());
    let brought = options.brought.iter().filter(|checkpoint| checkpoint.origin == origin).cloned();
    let known: Vec<Checkpoint> = cosigned.chain(brought).collect();
    let revoked = statements.revoked_keys(origin);
    let role = role_of_origin(origin).unwrap_or(Role::Monitor);
    let progress = options.progress.map(|progress| move |at: Progress| progress(role, at));
    let verify_options = VerifyOptions {
        known: &known,
        mode: options.mode,
        revoked: &revoked,
        progress: progress.as_ref().map(|progress| progress as &dyn Fn(Progress)),
        ..VerifyOptions::full(key)
    };
    verify(dir, &verify_options, sink)
}

/// Whether a finding's subject is a file below the log's directory.
pub fn is_file_of_log(subject: &str) -> bool {
    ["checkpoint", "payloads/", "segments/", "tile/"].iter().any(|file| subject.starts_with(file))
}

/// One role's logs, and what is known to judge them by.
struct LineJudge<'a> {
    role: Role,
    line: &'a [PathBuf],
    statements: &'a Statements,
    options: &'a PairOptions<'a>,
    other_is_here: bool,
}

impl LineJudge<'_> {
    fn verdict(&self, sink: &mut dyn FnMut(Role, VerifiedEvent)) -> Result<Option<LogVerdict>, ReadError> {
        let Some((dir, before)) = self.line.split_last() else { return Ok(None) };
        let log = self.statements.of_dir(dir);
        let key = self.key(log)?;
        let trusted = log.is_none_or(|log| self.statements.policy.log(&log.opened.origin).is_some());
        let mut nobody = |_: VerifiedEvent| {};
        let mut taken = |event: VerifiedEvent| sink(self.role, event);
        // Nothing that a log says counts before somebody vouches for it.
        let sink: &mut dyn FnMut(VerifiedEvent) = if trusted { &mut taken } else { &mut nobody };
        let mut report = verify_known(dir, &key, self.statements, self.options, sink)?;
        let (mut findings, mut ended) = (Vec::new(), Vec::new());
        for dir in before {
            self.look_at_ended(dir, &mut findings, &mut ended)?;
        }
        self.judge_line(key.name(), &mut findings);
        findings.append(&mut report.findings);
        report.findings = findings;
        let newest = self.statements.newest_with_quorum(key.name(), |_| true);
        let cosigned_size = newest.map_or(0, |state| state.checkpoint.size);
        let witnesses = newest.into_iter().flat_map(|state| state.witnesses.clone()).collect();
        Ok(Some(LogVerdict { report, cosigned_size, witnesses, ended }))
    }

    /// The key of the log in force: trusted where somebody vouches for it, else as it says itself, so that
    /// there is something to say about it.
    fn key(&self, log: Option<&Introduced>) -> Result<VerifierKey, ReadError> {
        let policy = &self.statements.policy;
        let workspace = |key: &VerifierKey| key.name().split('/').next().map(str::to_owned);
        let pinned = policy.logs().iter().find(|key| role_of_origin(key.name()) == Some(self.role));
        let ours = |log: &&Introduced| {
            log.opened.role == self.role
                && policy.logs().iter().filter_map(workspace).any(|name| log.opened.origin.starts_with(&(name + "/")))
        };
        let log = log.filter(ours).filter(|log| number_of_origin(&log.opened.origin) != Some(1));
        let own = log.and_then(|log| {
            let key = amc_crypto::PublicKey::try_from(log.opened.log_public).ok()?;
            let named = VerifierKey::new(&log.opened.origin, amc_crypto::note::KeyKind::Ed25519, key).ok();
            policy.log(&log.opened.origin).cloned().or(named)
        });
        own.or_else(|| pinned.cloned()).ok_or_else(|| {
            let what = format!(
                "the trust policy pins no {role}'s log; add its `log` line, which its owner gives out with `amc trust export`",
                role = self.role
            );
            ReadError::Damaged(Finding::error(FindingCode::KeyHistoryUntrusted, self.role.log_name(), what))
        })
    }

    /// An ended log: what is wrong with it is worth knowing, and that nothing is would be a fraud.
    fn look_at_ended(
        &self,
        dir: &Path,
        findings: &mut Vec<Finding>,
        ended: &mut Vec<LogHead>,
    ) -> Result<(), ReadError> {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let log = self.statements.of_dir(dir);
        let Some(key) = log.and_then(|log| self.statements.policy.log(&log.opened.origin)) else {
            let what = "this log was succeeded and cannot be read any more";
            findings.push(Finding::warn(FindingCode::LedgerTruncated, name, what));
            return Ok(());
        };
        let origin = key.name();
        let report = match verify_known(dir, key, self.statements, self.options, &mut |_| {}) {
            Ok(report) => report,
            Err(error @ ReadError::File(_)) => return Err(error),
            Err(error) => {
                findings.push(Finding::warn(FindingCode::LedgerTruncated, name, error.to_string()));
                return Ok(());
            }
        };
        let revoked = self.statements.revoked_keys(origin);
        let is_revoked = revoked.iter().any(|revoked| revoked.public == report.keys.newest());
        if report.is_good() && !is_revoked && self.options.mode == VerifyMode::Full {
            let what = "this log is whole and its key was not revoked, and yet it was succeeded: what it holds is \
                        hidden by that";
            findings.push(Finding::error(FindingCode::LedgerRollback, origin, what));
        }
        let entry = self.statements.successions(self.role).find(|entry| entry.succeeded.old.origin == origin);
        if let Some(entry) = entry {
            let (old, next) = (&entry.succeeded.old, &entry.succeeded.origin);
            let what = format!(
                "this log ended at size {} ({}) and {next} goes on; {} of its events can be read, none counts",
                old.size, entry.succeeded.code, report.events
            );
            findings.push(Finding::info(FindingCode::LedgerTruncated, origin, what));
            ended.push(old.clone());
        }
        let place =
            |subject: &str| if is_file_of_log(subject) { format!("{name}/{subject}") } else { subject.to_owned() };
        let soften = |finding: Finding| Finding {
            severity: finding.severity.min(Severity::Warn),
            subject: place(&finding.subject),
            message: format!("in the ended log {origin}: {}", finding.message),
            ..finding
        };
        findings.extend(report.findings.into_iter().map(soften));
        Ok(())
    }

    /// Whether the log in force is the one, and the only one, that the other role recorded.
    fn judge_line(&self, in_force: &str, findings: &mut Vec<Finding>) {
        let number = number_of_origin(in_force).unwrap_or(1);
        let entries: Vec<_> = self.statements.successions(self.role).collect();
        let mut error = |code, subject: &str, what: String| findings.push(Finding::error(code, subject, what));
        for entry in &entries {
            let of = |origin: &str| number_of_origin(origin).unwrap_or(1);
            let said = &entry.succeeded;
            if of(&said.origin) > number {
                let what = format!(
                    "{} was succeeded by {}, which is not here: an older log was put in its place",
                    said.old.origin, said.origin
                );
                error(FindingCode::LedgerRollback, &entry.place, what);
            }
            let first = entries.iter().find(|other| other.succeeded.old.origin == said.old.origin);
            if first.is_some_and(|first| first != entry) {
                let what = format!("a second log is recorded as the successor of {}", said.old.origin);
                error(FindingCode::LedgerForked, &entry.place, what);
            }
            self.judge_old_head(&said.old, &entry.place, &mut error);
        }
        for log in self.line.iter().filter_map(|dir| self.statements.of_dir(dir)) {
            self.judge_opening(log, &mut error);
        }
        let here = |number: u64| {
            let mut logs = self.line.iter().filter_map(|dir| self.statements.of_dir(dir));
            logs.any(|log| number_of_origin(&log.opened.origin) == Some(number))
        };
        if (1..number).any(|number| !here(number)) {
            let what = "a log that it succeeds is not here, so nobody can see that it had to end";
            findings.push(Finding::warn(FindingCode::LedgerTruncated, in_force, what));
        }
    }

    /// The old log ended no earlier than somebody cosigned it.
    fn judge_old_head(&self, old: &LogHead, place: &str, error: &mut dyn FnMut(FindingCode, &str, String)) {
        for state in self.statements.cosigned(&old.origin) {
            let known = &state.checkpoint;
            let code = match known.size.cmp(&old.size) {
                std::cmp::Ordering::Greater => FindingCode::LedgerRollback,
                std::cmp::Ordering::Equal if known.root != old.root => FindingCode::LedgerForked,
                _ => continue,
            };
            let what = format!(
                "{} is said to have ended at size {}, and another state of size {} was cosigned",
                old.origin, old.size, known.size
            );
            return error(code, place, what);
        }
    }

    /// A successor names its predecessor as the other role recorded it.
    fn judge_opening(&self, log: &Introduced, error: &mut dyn FnMut(FindingCode, &str, String)) {
        let origin = &log.opened.origin;
        let subject = format!("{origin}#0");
        if number_of_origin(origin) == Some(1) {
            if log.opened.predecessor.is_some() {
                let what = "the first log of a line names a predecessor".to_owned();
                error(FindingCode::LedgerForked, &subject, what);
            }
            return;
        }
        let entry = self.statements.successions(self.role).find(|entry| entry.succeeded.origin == *origin);
        let Some(entry) = entry else {
            let (other, name) = (self.role.other(), self.role.other().log_name());
            if self.other_is_here {
                let what = format!(
                    "the {other} did not record this successor in its {name} log, so it does not count; \
                     `amc ledger succeed` records it"
                );
                error(FindingCode::KeyHistoryUntrusted, &subject, what);
            } else if !self.statements.policy.pins(origin) {
                let what =
                    format!("whether the {other} recorded this successor stands in its {name} log, which is not here");
                error(FindingCode::KeyHistoryUntrusted, &subject, what);
            }
            return;
        };
        let said = &entry.succeeded;
        if said.log_public != log.opened.log_public || said.opening != log.hash {
            let what = format!("another log of this name is recorded as the successor ({})", entry.place);
            error(FindingCode::LedgerForked, &subject, what);
        } else if log.opened.predecessor.as_ref() != Some(&said.old) {
            let what = format!("it names another end of {} than is recorded ({})", said.old.origin, entry.place);
            error(FindingCode::LedgerForked, &subject, what);
        }
    }
}
