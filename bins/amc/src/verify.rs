//! `verify`: both logs, the signed files and the recorded runs of a workspace. Never writes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use amc_core::kinds::{ConfigSigned, ConfigState, Fields, LogHead, Role, RunRecorded};
use amc_core::{Finding, FindingCode, limits};
use amc_crypto::{Checkpoint, Note, TrustPolicy};
use amc_ledger::pair::is_file_of_log;
use amc_ledger::pair::{LogVerdict, PairOptions, PairVerdict, verify_pair};
use amc_ledger::{VerifyMode, line};
use amc_scoring::Report;
use amc_workspace::home::{self, Home};
use amc_workspace::{Answer, Failure, Opening, SignedFile, agent_of_path};
use serde_json::{Value, json};

use crate::cli::{VerifyPlan, WhichLogs};

/// A report of a workspace with many sessions.
const REPORT_BYTES_MAX: usize = 64 << 20;

#[derive(Default)]
struct Recorded {
    configs: BTreeMap<String, ConfigSigned>,
    runs: Vec<RunRecorded>,
}

impl Recorded {
    fn take(&mut self, fields: Option<&Fields>) {
        match fields {
            Some(Fields::ConfigSigned(signed)) => {
                self.configs.insert(signed.path.clone(), signed.clone());
            }
            Some(Fields::RunRecorded(run)) => self.runs.push(run.clone()),
            _ => {}
        }
    }
}

pub(crate) fn verify(opening: &Opening, plan: &VerifyPlan) -> Result<Answer, Failure> {
    let (home, policy, _) = opening.workspace()?;
    let policy = line::learned(&policy, &home.log(Role::Monitor), &home.log(Role::Auditor)).map_err(Failure::wrong)?;
    let brought = brought_checkpoints(&policy, &plan.checkpoints)?;
    let mode = if plan.quick { VerifyMode::Quick } else { VerifyMode::Full };
    let present = |role: Role, wanted: WhichLogs| {
        let dir = home.log(role);
        ((plan.log == wanted || plan.log == WhichLogs::All) && dir.is_dir()).then_some(dir)
    };
    let evidence = plan.evidence.clone().or_else(|| present(Role::Monitor, WhichLogs::Evidence));
    let audit = present(Role::Auditor, WhichLogs::Audit);
    let options = PairOptions { policy: &policy, mode, brought: &brought, progress: None };
    let mut recorded = Recorded::default();
    let verdict = verify_pair(evidence.as_deref(), audit.as_deref(), &options, &mut |role, event| {
        if role == Role::Auditor {
            recorded.take(event.fields.as_ref());
        }
    });
    let verdict = verdict.map_err(|error| {
        let failure = Failure::bad(&error);
        error.finding().cloned().into_iter().fold(failure, Failure::with)
    })?;
    let mut findings = log_findings(&home, &verdict);
    if verdict.audit.is_some() && mode == VerifyMode::Full {
        findings.extend(config_findings(&home, &policy, &recorded)?);
        findings.extend(
            recorded
                .runs
                .iter()
                .filter_map(|run| run_finding(&home, &policy, run).transpose())
                .collect::<Result<Vec<_>, _>>()?,
        );
    }
    let good = !findings.iter().any(Finding::is_error);
    Ok(Answer { findings, ..Answer::new(&data(&verdict, mode), text(&verdict, mode, good)) })
}

/// The findings of both logs; a file of a log is named as it stands in the home, since all logs have the same files.
fn log_findings(home: &Home, verdict: &PairVerdict) -> Vec<Finding> {
    let logs = [(Role::Monitor, &verdict.evidence), (Role::Auditor, &verdict.audit)];
    let found = logs.into_iter().filter_map(|(role, log)| Some((role, log.as_ref()?)));
    let placed = |role: Role, finding: &Finding| {
        let subject = &finding.subject;
        let is_ended = subject.split_once('/').is_some_and(|(dir, _)| role.log_number(dir).is_some());
        let subject = match is_file_of_log(subject) {
            true => format!("logs/{}/{subject}", role.log_dir(home.log_number(role))),
            false if is_ended => format!("logs/{subject}"),
            false => subject.clone(),
        };
        Finding { subject, ..finding.clone() }
    };
    found.flat_map(|(role, log)| log.report.findings.iter().map(move |finding| placed(role, finding))).collect()
}

/// Checkpoints that the caller brings count only under a pinned log's signature.
fn brought_checkpoints(policy: &TrustPolicy, paths: &[PathBuf]) -> Result<Vec<Checkpoint>, Failure> {
    let read = |path: &PathBuf| {
        let bytes = home::read_bounded(path, limits::NOTE_BYTES_MAX).map_err(Failure::wrong)?;
        let describe = |error: &dyn std::fmt::Display| Failure::wrong(format!("{}: {error}", path.display()));
        let note = Note::parse(&bytes).map_err(|error| describe(&error))?;
        policy.check_signatures(note).map(|cosigned| cosigned.checkpoint).map_err(|error| describe(&error))
    };
    paths.iter().map(read).collect()
}

fn config_findings(home: &Home, policy: &TrustPolicy, recorded: &Recorded) -> Result<Vec<Finding>, Failure> {
    let keys = home.auditor_keys(policy).map_err(Failure::wrong)?;
    let mut findings = Vec::new();
    for (path, newest) in &recorded.configs {
        let file = match SignedFile::load(home, path, newest.agent.as_ref(), &keys) {
            Ok(file) => file,
            Err(error) => {
                findings.push(Finding::error(FindingCode::ConfigSignatureInvalid, path, error.to_string()));
                continue;
            }
        };
        findings.extend(match (file.state, file.version) {
            // A signed version exists, so a missing signature is no oversight.
            (ConfigState::Unsigned, _) => {
                file.finding.map(|finding| Finding { severity: amc_core::Severity::Error, ..finding })
            }
            (ConfigState::Signed, Some(version)) if version < newest.version => {
                let what = format!("this is version {version}; the audit log holds version {}", newest.version);
                Some(Finding::error(FindingCode::ConfigVersionRollback, path, what))
            }
            _ => file.finding,
        });
    }
    Ok(findings)
}

fn run_finding(home: &Home, policy: &TrustPolicy, run: &RunRecorded) -> Result<Option<Finding>, Failure> {
    let keys = home.auditor_keys(policy).map_err(Failure::wrong)?;
    let dir = home.run(&run.run_id);
    let finding = |code, what: String| Ok(Some(Finding::error(code, run.run_id.as_str(), what)));
    let Ok(bytes) = home::read_bounded(&dir.join("report.json"), REPORT_BYTES_MAX) else {
        return finding(
            FindingCode::RunMissing,
            "the audit log records this run and its report is not here".to_owned(),
        );
    };
    if amc_crypto::sha256(&bytes) != run.report_sha256 {
        return finding(FindingCode::RunSealInvalid, "report.json is not the report that was recorded".to_owned());
    }
    let seal =
        home::read_bounded(&dir.join("seal.dsse.json"), limits::ENVELOPE_BYTES_MAX).map_err(|error| error.to_string());
    let report = serde_json::from_slice::<Report>(&bytes).map_err(|error| error.to_string());
    let sealed =
        seal.and_then(|seal| amc_bundle::seal::verify_seal(&seal, &report?, &keys).map_err(|error| error.to_string()));
    match sealed {
        Ok(_) => Ok(None),
        Err(what) => finding(FindingCode::RunSealInvalid, what),
    }
}

fn data(verdict: &PairVerdict, mode: VerifyMode) -> Value {
    let log = |log: &Option<LogVerdict>| match log {
        None => json!({ "absent": true }),
        Some(LogVerdict { report, cosigned_size, witnesses, ended }) => json!({
            "origin": report.head.origin, "events": report.events, "sessions": report.sessions,
            "size": report.head.size, "root": report.head.root, "cosigned_size": cosigned_size,
            "cosigned_by": witnesses.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            "open_sessions": report.open_sessions.len(), "ended": ended,
        }),
    };
    let mode = if mode == VerifyMode::Full { "full" } else { "quick" };
    json!({ "evidence": log(&verdict.evidence), "audit": log(&verdict.audit), "mode": mode })
}

fn text(verdict: &PairVerdict, mode: VerifyMode, good: bool) -> String {
    let line = |name: &str, log: &Option<LogVerdict>| match log {
        None => format!("{name:<9} absent\n"),
        Some(LogVerdict { report, cosigned_size, witnesses, ended }) => {
            let LogHead { origin, size, root } = &report.head;
            let by: Vec<&str> = witnesses.iter().map(|(name, _)| name.as_str()).collect();
            let by = if by.is_empty() { String::new() } else { format!(" by {}", by.join(", ")) };
            let sessions = report.sessions;
            let before = ended.iter().map(|old| format!("{:<9} {} ended at size {}\n", "", old.origin, old.size));
            before.collect::<String>()
                + &format!(
                    "{name:<9} {origin}: {size} events, {sessions} sessions, root {root}; cosigned up to {cosigned_size}{by}\n"
                )
        }
    };
    let mut text = line("evidence", &verdict.evidence) + &line("audit", &verdict.audit);
    if mode == VerifyMode::Quick {
        text += "Quick: tree and checkpoints only; event signatures and payloads were not checked\n";
    }
    text + if good { "Everything verifies\n" } else { "Something does not verify\n" }
}

/// One configuration file and its signature.
pub(crate) fn config(opening: &Opening, path: &str) -> Result<Answer, Failure> {
    let (home, policy, _) = opening.workspace()?;
    let policy = line::learned(&policy, &home.log(Role::Monitor), &home.log(Role::Auditor)).map_err(Failure::wrong)?;
    let keys = home.auditor_keys(&policy).map_err(Failure::wrong)?;
    let file = SignedFile::load(&home, path, agent_of_path(path).as_ref(), &keys).map_err(Failure::wrong)?;
    if path == "gateway.yaml" {
        amc_workspace::GatewayConfig::parse(&file.bytes).map_err(Failure::wrong)?;
    }
    let state = match file.state {
        ConfigState::Signed => "signed",
        ConfigState::Unsigned => "unsigned",
        ConfigState::Invalid => "invalid",
    };
    let data = json!({ "path": path, "state": state, "version": file.version, "sha256": file.sha256 });
    let version = file.version.map(|version| format!(", version {version}")).unwrap_or_default();
    let bad = file.state != ConfigState::Signed;
    let findings = file.finding.into_iter().collect();
    Ok(Answer { findings, bad, ..Answer::new(&data, format!("{path}: {state}{version}\n")) })
}
