//! Writing a run with its evidence into one file.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use amc_bundle::sigstore::sigstore_bundle;
use amc_bundle::{ExportInput, ExportSummary, LogPart, Payloads, SignedBytes, export as write_bundle};
use amc_core::kinds::{Fields, LogHead};
use amc_core::{AgentId, Digest, RunId, limits};
use amc_crypto::Note;
use amc_crypto::dsse::Envelope;
use amc_evidence::{Event, PayloadRef};
use amc_ledger::line::Statements;
use amc_ledger::{LogReader, PayloadLocation};
use amc_scoring::Report;
use amc_workspace::home;
use amc_workspace::{AgentConfig, Answer, Failure, Opening, SignedFile, agent_of_path};
use clap::Args;
use serde_json::json;

use crate::logs::{BothLogs, EvidenceLog, VerifiedLog};
use crate::monitor;
use crate::unlock::{Unlocked, unlock};

/// A report of a workspace with many sessions.
const REPORT_BYTES_MAX: usize = 64 << 20;

/// Which run, and where to.
#[derive(Args)]
pub(crate) struct Plan {
    /// The agent.
    #[arg(long, value_name = "ID")]
    agent: AgentId,
    /// The run.
    #[arg(long, alias = "runId", alias = "run-id", value_name = "RUN")]
    run: RunId,
    /// The bundle to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Leave the payloads out; no score changes.
    #[arg(long)]
    without_payloads: bool,
    /// Also write the signed manifest as a Sigstore bundle (v0.3), for tools that read those.
    #[arg(long, value_name = "FILE")]
    sigstore: Option<PathBuf>,
    /// The evidence log, where it is not in this home.
    #[arg(long, value_name = "DIR")]
    evidence: Option<PathBuf>,
}

/// A run to be written, and how.
pub(crate) struct Wanted<'a> {
    pub(crate) agent: &'a AgentId,
    pub(crate) run: &'a RunId,
    pub(crate) out: &'a Path,
    pub(crate) payloads: Payloads,
    /// The evidence log, where it is not in this home.
    pub(crate) evidence: Option<&'a Path>,
}

pub(crate) fn export(opening: &Opening, plan: &Plan) -> Result<Answer, Failure> {
    let unlocked = unlock(opening)?;
    let payloads = if plan.without_payloads { Payloads::Withheld } else { Payloads::Included };
    let (agent, run, out) = (&plan.agent, &plan.run, plan.out.as_path());
    let wanted = Wanted { agent, run, out, payloads, evidence: plan.evidence.as_deref() };
    let (report, summary) = export_run(&unlocked, &wanted)?;
    if let Some(path) = &plan.sigstore {
        let wrapped = sigstore_bundle(summary.manifest.as_bytes()).map_err(Failure::bad)?;
        home::write_atomic(path, wrapped.as_bytes()).map_err(Failure::wrong)?;
    }
    unlocked.writer.close().map_err(Failure::unable)?;
    Ok(answer(plan, &report, &summary))
}

/// Writes a run's bundle; the auditor stays open.
pub(crate) fn export_run(unlocked: &Unlocked, plan: &Wanted<'_>) -> Result<(Report, ExportSummary), Failure> {
    let stored = StoredRun::read(unlocked, plan)?;
    let evidence_dir = unlocked.evidence_dir(plan.evidence);
    let BothLogs { evidence, audit, mut statements, .. } = unlocked.verified_logs(&evidence_dir, plan.agent)?;
    let LogHead { origin, size, root } = &stored.report.evidence;
    let evidence_note = statements.newest_with_quorum(origin, |at| at.size == *size && at.root == *root);
    let evidence_note = evidence_note.map(|state| state.note.clone()).ok_or_else(|| {
        Failure::unable(format!(
            "the quorum that the trust policy asks for has not cosigned {origin} at size {size}, up to which the run goes; \
             where outside witnesses are part of it, ask them: amc witness push"
        ))
    })?;
    let audit_note = match covering(&statements, &audit, &stored)? {
        Some(note) => note,
        None => {
            let ask = monitor::cosign(&unlocked.home, &unlocked.passphrase);
            statements = unlocked.verified_logs(&evidence_dir, plan.agent)?.statements;
            covering(&statements, &audit, &stored)?.ok_or_else(|| not_cosigned(ask.err()))?
        }
    };
    let summary = write(unlocked, plan, &stored, (&evidence, &evidence_note), (&audit, &audit_note))?;
    Ok((stored.report, summary))
}

struct StoredRun {
    report: Report,
    seal: Envelope,
    claims: Option<Vec<u8>>,
    target: Option<StoredFile>,
    bank: StoredFile,
}

/// A signed file as the run had it.
struct StoredFile {
    path: String,
    bytes: Vec<u8>,
    signature: Option<Vec<u8>>,
}

impl StoredFile {
    fn signed(&self) -> SignedBytes<'_> {
        SignedBytes { path: &self.path, bytes: &self.bytes, signature: self.signature.as_deref() }
    }
}

impl StoredRun {
    fn read(unlocked: &Unlocked, plan: &Wanted<'_>) -> Result<Self, Failure> {
        let dir = unlocked.home.run(plan.run);
        if !dir.is_dir() {
            let finding = amc_core::Finding::error(
                amc_core::FindingCode::RunMissing,
                plan.run.as_str(),
                "no such run; `amc history --agent ID` lists them",
            );
            return Err(Failure::wrong(format!("there is no run {} in this workspace", plan.run)).with(finding));
        }
        let read = |name: &str| home::read_bounded(&dir.join(name), REPORT_BYTES_MAX).map_err(Failure::wrong);
        let bytes = read("report.json")?;
        let report: Report = serde_json::from_slice(&bytes)
            .map_err(|error| Failure::wrong(format!("{}: {error}", dir.join("report.json").display())))?;
        let seal = read("seal.dsse.json")?;
        let keys = unlocked.home.auditor_keys(&unlocked.policy).map_err(Failure::wrong)?;
        amc_bundle::seal::verify_seal(&seal, &report, &keys).map_err(Failure::bad)?;
        if report.to_bytes() != bytes {
            return Err(Failure::bad("report.json is not spelt as it was sealed"));
        }
        if report.agent != *plan.agent {
            return Err(Failure::wrong(format!("{} is a run of {}, not of {}", plan.run, report.agent, plan.agent)));
        }
        let given = |name: &str| dir.join(name).is_file().then(|| read(name)).transpose();
        let bank =
            StoredFile { path: "bank.toml".to_owned(), bytes: read("bank.toml")?, signature: given("bank.toml.sig")? };
        let target = match (&report.target, given("target.json")?) {
            (Some(target), Some(bytes)) => {
                let path = format!("agents/{}/targets/{}.json", report.agent, target.id);
                Some(StoredFile { path, bytes, signature: given("target.json.sig")? })
            }
            _ => None,
        };
        let claims = given("claims.json")?;
        Ok(StoredRun { seal: Envelope::parse(&seal).map_err(Failure::bad)?, report, claims, target, bank })
    }
}

/// The newest audit checkpoint for which the quorum cosigned and that covers the run's own entry.
fn covering(statements: &Statements, audit: &VerifiedLog, stored: &StoredRun) -> Result<Option<Note>, Failure> {
    let entry = audit
        .events
        .iter()
        .find(|record| matches!(&record.fields, Some(Fields::RunRecorded(run)) if run.run_id == stored.report.run_id));
    let index = entry.ok_or_else(|| Failure::bad("the audit log does not record this run"))?.event.index;
    let origin = &audit.reader.checkpoint().origin;
    let newest = statements.newest_with_quorum(origin, |at| at.size > index && at.size <= audit.reader.size());
    Ok(newest.map(|state| state.note.clone()))
}

fn not_cosigned(why: Option<String>) -> Failure {
    let Some(why) = why else {
        return Failure::unable(
            "the quorum that the trust policy asks for has not cosigned the audit log up to this run; where outside \
             witnesses are part of it, ask them and export again: amc witness push",
        );
    };
    Failure::unable(format!(
        "the monitor has not cosigned the audit log up to this run, so nobody could verify the bundle: {why}. \
         Start it with `amc up`, then export again"
    ))
}

fn write(
    unlocked: &Unlocked,
    plan: &Wanted<'_>,
    stored: &StoredRun,
    (evidence, evidence_note): (&EvidenceLog, &Note),
    (audit, audit_note): (&VerifiedLog, &Note),
) -> Result<ExportSummary, Failure> {
    let keys = unlocked.home.auditor_keys(&unlocked.policy).map_err(Failure::wrong)?;
    let load = |path: &str| {
        let signature = fs::read(unlocked.home.file(&format!("{path}.sig"))).ok();
        let file = SignedFile::load(&unlocked.home, path, agent_of_path(path).as_ref(), &keys);
        file.map(|file| (file, signature)).map_err(Failure::wrong)
    };
    let of_agent = AgentConfig::path(&stored.report.agent);
    let of_agent = Some(of_agent).filter(|path| unlocked.home.file(path).is_file());
    let paths = ["amc.yaml", "gateway.yaml"].into_iter().chain(of_agent.as_deref());
    let files = paths.map(load).collect::<Result<Vec<_>, _>>()?;
    let configs: Vec<SignedBytes<'_>> = files
        .iter()
        .map(|(file, signature)| SignedBytes { path: &file.path, bytes: &file.bytes, signature: signature.as_deref() })
        .collect();
    let policy = home::read_bounded(&unlocked.home.trust_policy_path(), limits::POLICY_BYTES_MAX);
    let input = ExportInput {
        report: &stored.report,
        seal: &stored.seal,
        evidence: LogPart {
            events: evidence,
            checkpoint: evidence_note,
            tree: &evidence.reader.tree().map_err(Failure::unable)?,
        },
        audit: LogPart {
            events: &audit.events,
            checkpoint: audit_note,
            tree: &audit.reader.tree().map_err(Failure::unable)?,
        },
        bank: stored.bank.signed(),
        configs: &configs,
        claims: stored.claims.as_deref(),
        target: stored.target.as_ref().map(StoredFile::signed),
        trust_policy: &policy.map_err(Failure::wrong)?,
        payloads: plan.payloads,
    };
    let places = payload_places(&evidence.reader, stored.report.evidence.size)?;
    let mut payload = |digest: &Digest| -> io::Result<Option<Vec<u8>>> {
        let Some((reference, location)) = places.get(digest) else { return Ok(None) };
        evidence.reader.payload(reference, *location).map_err(io::Error::other)
    };
    into_place(plan.out, |out, spool| {
        write_bundle(&input, &mut payload, &unlocked.envelopes, spool, out).map_err(Failure::bad)
    })
}

type Places = HashMap<Digest, (PayloadRef, Option<PayloadLocation>)>;

fn payload_places(reader: &LogReader, size: u64) -> Result<Places, Failure> {
    let mut places = Places::new();
    for stored in reader.events(0).take(usize::try_from(size).unwrap_or(usize::MAX)) {
        let stored = stored.map_err(Failure::unable)?;
        let (event, _) = Event::decode(&stored.signed.body).map_err(Failure::bad)?;
        if let Some(payload) = event.payload
            && let Some((digest, _)) = payload.stored_digest()
        {
            places.insert(digest, (payload, stored.payload_location));
        }
    }
    Ok(places)
}

/// Writes beside the final name and renames: a bundle is there whole or not at all.
pub(crate) fn into_place<T>(
    out: &Path,
    write: impl FnOnce(&mut BufWriter<File>, &mut File) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let describe = |error: io::Error| Failure::wrong(format!("cannot write {}: {error}", out.display()));
    let beside = |suffix: &str| {
        let mut name = out.as_os_str().to_owned();
        name.push(format!(".{}.{suffix}", std::process::id()));
        PathBuf::from(name)
    };
    let (temporary, spool_path) = (beside("tmp"), beside("spool"));
    let written = (|| {
        let mut spool = File::options().read(true).write(true).create_new(true).open(&spool_path).map_err(describe)?;
        let mut file = BufWriter::new(File::create(&temporary).map_err(describe)?);
        let written = write(&mut file, &mut spool)?;
        file.flush().map_err(describe)?;
        file.get_ref().sync_all().map_err(describe)?;
        fs::rename(&temporary, out).map_err(describe)?;
        Ok(written)
    })();
    // Scratch space of this call alone.
    let _ = fs::remove_file(&spool_path);
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn answer(plan: &Plan, report: &Report, summary: &ExportSummary) -> Answer {
    let data = json!({
        "run_id": report.run_id, "agent_id": report.agent, "out": plan.out, "bytes": summary.bytes,
        "events": summary.evidence_events, "audit_events": summary.audit_events,
        "payloads": summary.payloads, "payloads_absent": summary.payloads_absent, "sigstore": plan.sigstore,
    });
    let text = format!(
        "Wrote {} ({} bytes): {} evidence events, {} audit events, {} payloads\n",
        plan.out.display(),
        summary.bytes,
        summary.evidence_events,
        summary.audit_events,
        summary.payloads
    );
    Answer::new(&data, text)
}
