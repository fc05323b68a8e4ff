//! Attestations and boundary epochs: what the auditor says about evidence, for a person's reasons.

use std::path::{Path, PathBuf};

use amc_core::kinds::{Attested, BoundaryEpoch, Fields, Ingested, LogHead, Role};
use amc_core::{AgentId, Clock as _, Tier, timestamp};
use amc_crypto::Checkpoint;
use amc_crypto::attestation::{self, AttestationPredicate};
use amc_crypto::signer::StatementSigner as _;
use amc_evidence::{Draft, Stored, VerifiedEvent};
use amc_ledger::LogReader;
use amc_workspace::{Answer, Failure, Opening, duration, home};
use clap::Args;
use serde_json::json;

use crate::configs;
use crate::logs::EvidenceLog;
use crate::unlock::{Unlocked, unlock};

/// The largest file that `amc ingest` takes.
const FILE_BYTES_MAX: usize = 16 << 20;
const REASON_BYTES_MAX: usize = 1024;
const NS_PER_S: i64 = 1_000_000_000;

/// What is attested.
#[derive(Args)]
pub(crate) struct Plan {
    /// The agent.
    #[arg(long, value_name = "ID")]
    agent: AgentId,
    /// Index of an event that was handed in; may be given more than once.
    #[arg(long = "event", value_name = "INDEX", required = true)]
    events: Vec<u64>,
    /// For how long it counts; never longer than the document itself.
    #[arg(long, value_name = "TIME", default_value = "365d", value_parser = duration::seconds)]
    expires: u64,
    /// The file itself, where it was too large to be kept whole.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The evidence log, where it is not in this home.
    #[arg(long, value_name = "DIR")]
    evidence: Option<PathBuf>,
}

/// From where on an agent's sessions count.
#[derive(Args)]
pub(crate) struct EpochPlan {
    /// The agent.
    #[arg(long, value_name = "ID")]
    agent: AgentId,
    /// Why; it stands in every report.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: String,
    /// The evidence log, where it is not in this home.
    #[arg(long, value_name = "DIR")]
    evidence: Option<PathBuf>,
}

fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.len() > REASON_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(format!("a reason has 1 to {REASON_BYTES_MAX} bytes on one line"));
    }
    Ok(text.to_owned())
}

pub(crate) fn attest(opening: &Opening, plan: &Plan) -> Result<Answer, Failure> {
    let file = plan.file.as_deref().map(|path| home::read_bounded(path, FILE_BYTES_MAX)).transpose();
    let file = file.map_err(Failure::wrong)?;
    let unlocked = unlock(opening)?;
    let evidence_dir = unlocked.evidence_dir(plan.evidence.as_deref());
    // What is attested lies under a checkpoint that the auditor has cosigned.
    unlocked.cosign(&evidence_dir)?;
    let logs = unlocked.verified_logs(&evidence_dir, &plan.agent)?;
    let now_ns = unlocked.clock.now().wall_ns;
    // All are looked at before any is signed.
    let looked = plan.events.iter().map(|index| look(&logs.evidence, plan, *index, file.as_deref(), now_ns));
    let looked: Vec<Looked> = looked.collect::<Result<_, _>>()?;
    let mut done = Vec::new();
    let mut text = String::new();
    for one in looked {
        let expires_ns = one.expires_ns;
        let entry = sign(&unlocked, plan, &logs.evidence, &one)?;
        let appended = unlocked.writer.append(Draft::new(Tier::Observed, entry), None).map_err(Failure::unable)?;
        let expires = timestamp::to_rfc3339(expires_ns);
        let index = one.record.event.index;
        text += &format!("Attested event {index} ({}) until {expires}\n", one.ingested.ingest_type);
        done.push(
            json!({ "index": index, "event_hash": one.record.hash, "audit_index": appended.index, "expires": expires }),
        );
    }
    configs::close(unlocked)?;
    let data = json!({ "agent_id": plan.agent, "attested": done });
    Ok(Answer { findings: logs.findings, ..Answer::new(&data, text) })
}

/// An event that was handed in, with its file looked at.
struct Looked {
    record: VerifiedEvent,
    ingested: Ingested,
    expires_ns: i64,
}

fn look(evidence: &EvidenceLog, plan: &Plan, index: u64, file: Option<&[u8]>, now_ns: i64) -> Result<Looked, Failure> {
    let wrong = |what: &str| Failure::wrong(format!("event {index} of the evidence log {what}; nothing was attested"));
    let record = evidence.event(index)?;
    let record = record.ok_or_else(|| wrong("does not exist, or is about another agent"))?;
    let Some(Fields::Ingested(ingested)) = &record.fields else {
        return Err(wrong("was observed and not handed in: only what `amc ingest` recorded is attested"));
    };
    let ingested = ingested.clone();
    if !holds(evidence, &record, file)? {
        return Err(wrong("names a file that is not kept whole here; hand it over with --file"));
    }
    let length_ns = i64::try_from(plan.expires).ok().and_then(|seconds| seconds.checked_mul(NS_PER_S));
    let wanted = length_ns.and_then(|length_ns| now_ns.checked_add(length_ns)).unwrap_or(i64::MAX);
    let expires_ns = ingested.expires_ns.map_or(wanted, |document| document.min(wanted));
    if expires_ns <= now_ns {
        return Err(wrong("has expired"));
    }
    Ok(Looked { record, ingested, expires_ns })
}

/// Whether the file that the event names is here, byte for byte.
fn holds(evidence: &EvidenceLog, record: &VerifiedEvent, file: Option<&[u8]>) -> Result<bool, Failure> {
    let Some(payload) = &record.event.payload else { return Ok(false) };
    if let Some(file) = file {
        return Ok(amc_crypto::sha256(file) == payload.wire_sha256);
    }
    if payload.stored != Stored::Full {
        return Ok(false);
    }
    let stored = evidence.reader.events(record.event.index).next().transpose().map_err(Failure::unable)?;
    let Some(stored) = stored else { return Ok(false) };
    let bytes = evidence.reader.payload(payload, stored.payload_location).map_err(Failure::unable)?;
    Ok(bytes.is_some_and(|bytes| amc_crypto::sha256(&bytes) == payload.wire_sha256))
}

fn sign(unlocked: &Unlocked, plan: &Plan, evidence: &EvidenceLog, looked: &Looked) -> Result<Attested, Failure> {
    let Looked { record, ingested, expires_ns } = looked;
    let log = evidence.reader.checkpoint().origin.clone();
    let payload = record.event.payload.as_ref().expect("its file was compared");
    let predicate = AttestationPredicate {
        log: log.clone(),
        index: record.event.index,
        agent: plan.agent.clone(),
        ingest_type: ingested.ingest_type.to_string(),
        payload_sha256: payload.wire_sha256,
        expires: timestamp::to_rfc3339(*expires_ns),
    };
    let statement = attestation::statement(&predicate, record.hash);
    let envelope = unlocked.envelopes.sign_statement(&statement).map_err(Failure::unable)?;
    Ok(Attested {
        agent: plan.agent.clone(),
        log,
        index: record.event.index,
        event_hash: record.hash,
        expires_ns: *expires_ns,
        envelope: envelope.to_json(),
    })
}

pub(crate) fn epoch(opening: &Opening, plan: &EpochPlan) -> Result<Answer, Failure> {
    let unlocked = unlock(opening)?;
    let evidence_dir = unlocked.evidence_dir(plan.evidence.as_deref());
    unlocked.cosign(&evidence_dir)?;
    let LogHead { origin: log, size: from_index, .. } = head_of(&evidence_dir)?;
    let entry = BoundaryEpoch { agent: plan.agent.clone(), log, from_index, reason: plan.reason.clone() };
    let appended = unlocked.writer.append(Draft::new(Tier::Observed, entry), None).map_err(Failure::unable)?;
    configs::close(unlocked)?;
    let data = json!({ "agent_id": plan.agent, "from_index": from_index, "audit_index": appended.index });
    let text = format!(
        "From event {from_index} of the {} log on the sessions of {} count; those before are listed in reports with your reason\n",
        Role::Monitor.log_name(),
        plan.agent
    );
    Ok(Answer::new(&data, text))
}

fn head_of(evidence: &Path) -> Result<LogHead, Failure> {
    let reader = LogReader::open(evidence).map_err(Failure::wrong)?;
    let Checkpoint { origin, size, root } = reader.checkpoint().clone();
    Ok(LogHead { origin, size, root })
}
