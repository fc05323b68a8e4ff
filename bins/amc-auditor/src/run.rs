//! A run: verify both logs, score, seal, record.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use amc_bundle::seal::run_entry;
use amc_bundle::seal_statement;
use amc_core::kinds::LogHead;
use amc_core::timestamp::from_rfc3339;
use amc_core::{AgentId, Clock as _, Finding, Tier, limits};
use amc_crypto::signer::StatementSigner as _;
use amc_crypto::{Checkpoint, Note};
use amc_evidence::Draft;
use amc_scoring::{Bank, Claims, Report, ScoreInput, Status, render, score};
use amc_workspace::home::{self, Home};
use amc_workspace::{Answer, Failure, Opening, SignedFile, duration};
use clap::Args;

use crate::logs::BothLogs;
use crate::unlock::{Unlocked, unlock};
use crate::{monitor, targets};

/// What is to be scored.
#[derive(Args)]
pub(crate) struct Plan {
    /// The agent.
    #[arg(long, value_name = "ID")]
    agent: AgentId,
    /// How far back: a number and s, m, h, d or w.
    #[arg(long, default_value = "14d", value_parser = duration::seconds)]
    window: u64,
    /// The end of the window instead of now.
    #[arg(long, value_name = "RFC3339")]
    as_of: Option<String>,
    /// Claimed levels.
    #[arg(long, value_name = "FILE")]
    claims: Option<PathBuf>,
    /// The target profile to measure against.
    #[arg(long, value_name = "ID")]
    target: Option<String>,
    /// The evidence log, where it is not in this home.
    #[arg(long, value_name = "DIR")]
    evidence: Option<PathBuf>,
}

pub(crate) fn run(opening: &Opening, plan: &Plan) -> Result<Answer, Failure> {
    let as_of_ns = plan.as_of.as_deref().map(from_rfc3339).transpose().map_err(Failure::wrong)?;
    let claims_bytes = plan.claims.as_deref().map(|path| home::read_bounded(path, limits::CONFIG_BYTES_MAX));
    let claims_bytes = claims_bytes.transpose().map_err(Failure::wrong)?;
    let unlocked = unlock(opening)?;
    let (bank, bank_file) = bank_in_force(&unlocked)?;
    let claims =
        claims_bytes.as_deref().map(|bytes| Claims::parse(bytes, &bank)).transpose().map_err(Failure::wrong)?;
    let target = plan.target.as_deref().map(|id| targets::in_force(&unlocked, &plan.agent, id, &bank)).transpose()?;

    // The slice of the evidence is what the auditor has just cosigned; of its own log, what precedes the run.
    let evidence_dir = unlocked.evidence_dir(plan.evidence.as_deref());
    let cosigned = unlocked.cosign(&evidence_dir)?;
    let BothLogs { evidence, audit, findings, other_agents, .. } =
        unlocked.verified_logs(&evidence_dir, &plan.agent)?;
    if !evidence.is_of_agent {
        unlocked.writer.close().map_err(Failure::unable)?;
        return Err(never_recorded(&plan.agent, &other_agents));
    }

    let report = score(&ScoreInput {
        workspace: &unlocked.workspace,
        agent: &plan.agent,
        evidence_head: head_of(&cosigned)?,
        audit_head: head_of(audit.reader.latest_checkpoint())?,
        evidence: &evidence,
        audit: &audit.events,
        bank: &bank,
        as_of_ns: as_of_ns.unwrap_or_else(|| unlocked.clock.now().wall_ns),
        window_s: plan.window,
        claims: claims.as_ref(),
        target: target.as_ref().map(|target| &target.target),
    })
    .map_err(|error| Failure::bad(format!("the evidence log cannot be read a second time: {error}")))?;
    let target = target.as_ref().map(|target| &target.file);
    let inputs = Inputs { claims: claims_bytes.as_deref(), target, bank: &bank_file };
    let dir = seal_and_store(&unlocked, &report, &inputs)?;
    record(&unlocked, &report)?;
    let Unlocked { writer, home, passphrase, .. } = unlocked;
    writer.close().map_err(Failure::unable)?;
    let cosigned = monitor::cosign(&home, &passphrase);
    Ok(answer(&report, &dir, findings, cosigned.err().as_deref()))
}

/// A run stays in the audit log for ever, so a misspelt agent makes none. An agent with sessions, none of them in the
/// window, is scored: that nothing was recorded is then what the report says.
fn never_recorded(agent: &AgentId, others: &BTreeSet<AgentId>) -> Failure {
    let known: Vec<&str> = others.iter().map(AgentId::as_str).collect();
    let known = if known.is_empty() {
        "it has none of any agent yet".to_owned()
    } else {
        format!("it has some of {}", known.join(", "))
    };
    Failure::wrong(format!(
        "the evidence log has no session of {agent}, so there is nothing to score; {known}. \
         Record one with: amc wrap --agent {agent} -- COMMAND"
    ))
}

/// The bank in force: this home's, if the auditor signed it.
pub(crate) fn bank_in_force(unlocked: &Unlocked) -> Result<(Bank, SignedFile), Failure> {
    let file = unlocked.newest_signed("bank.toml", None)?;
    let bank = Bank::parse(&file.bytes).map_err(Failure::wrong)?;
    Ok((bank, file))
}

fn head_of(note: &Note) -> Result<LogHead, Failure> {
    let Checkpoint { origin, size, root } = Checkpoint::parse(note.text()).map_err(Failure::bad)?;
    Ok(LogHead { origin, size, root })
}

/// What a run was given, kept beside its report: without it nobody could recompute the score.
struct Inputs<'a> {
    claims: Option<&'a [u8]>,
    target: Option<&'a SignedFile>,
    bank: &'a SignedFile,
}

impl Inputs<'_> {
    fn files(&self, home: &Home) -> Result<Vec<(&'static str, Vec<u8>)>, Failure> {
        let signature = |file: &SignedFile| {
            home::read_bounded(&home.file(&format!("{}.sig", file.path)), limits::ENVELOPE_BYTES_MAX)
                .map_err(Failure::unable)
        };
        let mut files = vec![("bank.toml", self.bank.bytes.clone()), ("bank.toml.sig", signature(self.bank)?)];
        if let Some(target) = self.target {
            files.extend([("target.json", target.bytes.clone()), ("target.json.sig", signature(target)?)]);
        }
        files.extend(self.claims.map(|bytes| ("claims.json", bytes.to_vec())));
        Ok(files)
    }
}

/// Writes the run's directory whole or not at all.
fn seal_and_store(unlocked: &Unlocked, report: &Report, inputs: &Inputs<'_>) -> Result<PathBuf, Failure> {
    let seal = unlocked.envelopes.sign_statement(&seal_statement(report)).map_err(Failure::unable)?;
    let dir = unlocked.home.run(&report.run_id);
    let staging = dir.with_extension("tmp");
    home::make_dir(&staging).map_err(Failure::unable)?;
    let files = [
        ("report.json", report.to_bytes()),
        ("report.md", render::markdown(report).into_bytes()),
        ("report.html", render::html(report).into_bytes()),
        ("seal.dsse.json", seal.to_json().into_bytes()),
    ];
    for (name, bytes) in files.into_iter().chain(inputs.files(&unlocked.home)?) {
        home::write_atomic(&staging.join(name), &bytes).map_err(Failure::unable)?;
    }
    let describe = |error| Failure::unable(format!("cannot put {} in place: {error}", dir.display()));
    fs::rename(&staging, &dir).map_err(describe)?;
    Ok(dir)
}

fn record(unlocked: &Unlocked, report: &Report) -> Result<(), Failure> {
    unlocked.writer.append(Draft::new(Tier::Observed, run_entry(report)), None).map_err(Failure::unable)?;
    unlocked.writer.publish().map_err(Failure::unable)?;
    Ok(())
}

fn answer(report: &Report, dir: &Path, mut findings: Vec<Finding>, uncosigned: Option<&str>) -> Answer {
    let layers: Vec<_> =
        report.layers.iter().map(|layer| serde_json::json!({ "id": layer.id, "level_bp": layer.level_bp })).collect();
    let questions: Vec<_> = report
        .questions
        .iter()
        .map(|question| {
            serde_json::json!({
                "id": question.id, "final": question.final_level, "supported": question.supported,
                "claimed": question.claimed, "caps": question.caps,
            })
        })
        .collect();
    let data = serde_json::json!({
        "run_id": report.run_id, "status": report.status, "label": report.label,
        "overall_bp": report.overall_bp, "integrity_bp": report.integrity_bp,
        "layers": layers, "questions": questions, "report": dir.join("report.json"),
    });
    let mut text = format!(
        "{}\nStatus {}, {}; overall level {}, integrity {}\nReport: {}\n",
        report.run_id,
        report.status,
        report.label,
        level_text(report.overall_bp),
        percent_text(report.integrity_bp),
        dir.join("report.html").display()
    );
    if let Some(why) = uncosigned {
        text += &format!(
            "The monitor has not cosigned this run yet ({why}); `amc bundle export` asks it again, so have it up by then with `amc up`\n"
        );
    }
    findings.extend(report.findings.iter().cloned());
    Answer { findings, bad: report.status == Status::Invalid, ..Answer::new(&data, text) }
}

fn level_text(level_bp: u32) -> String {
    format!("{}.{:02}", level_bp / 10_000, level_bp % 10_000 / 100)
}

fn percent_text(bp: u32) -> String {
    format!("{}.{:02} %", bp / 100, bp % 100)
}
