//! Issuing certificates, revoking them, and signing a gate's verdict.
//!
//! A certificate is issued only for a VALID run whose gate allows, as this auditor judges the very bundle
//! that goes into it. Issue and revocation are entries of the audit log before anything is handed out.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use amc_bundle::certificate::{
    CertificatePlan, VALIDITY_DAYS_MAX, certificate_statement, pack_certificate, revocation_statement,
};
use amc_bundle::gate::{PolicyFile, vsa_statement};
use amc_bundle::{GateCall, Judgement, Payloads, Revocation, inspect, judge};
use amc_core::kinds::{CertificateIssued, CertificateRevoked, Fields, KeyPurpose, Role};
use amc_core::{AgentId, CertificateId, Clock as _, Digest, RunId, Tier, limits};
use amc_crypto::signer::StatementSigner as _;
use amc_crypto::{PublicKey, TrustPolicy, VerifierKey};
use amc_evidence::{Draft, Event, SignedEvent};
use amc_ledger::LogReader;
use amc_workspace::duration::seconds;
use amc_workspace::home;
use amc_workspace::opening::now_s;
use amc_workspace::{Answer, Failure, Opening};
use clap::Args;
use serde_json::json;

use crate::export::{Wanted, export_run, into_place};
use crate::monitor;
use crate::unlock::{Unlocked, unlock};

/// What is certified, by which policy, and for how long.
#[derive(Args)]
pub(crate) struct Plan {
    /// The agent.
    #[arg(long, value_name = "ID")]
    agent: AgentId,
    /// The run.
    #[arg(long, alias = "runId", alias = "run-id", value_name = "RUN")]
    run: RunId,
    /// The gate policy that it must pass, with its signature beside it in FILE.sig.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// A verifier key under which the policy may be signed, instead of a pinned auditor's.
    #[arg(long, value_name = "FILE")]
    policy_key: Option<PathBuf>,
    /// The certificate to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How long it is valid: a number and s, m, h, d or w.
    #[arg(long, default_value = "90d", value_parser = seconds)]
    valid_for: u64,
    /// Leave the payloads out; no score changes.
    #[arg(long)]
    without_payloads: bool,
    /// The evidence log, where it is not in this home.
    #[arg(long, value_name = "DIR")]
    evidence: Option<PathBuf>,
}

/// What is revoked, and why.
#[derive(Args)]
pub(crate) struct RevokePlan {
    /// The certificate: its id, or the file.
    certificate: String,
    /// Why, for those who relied on it.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// The revocation file to write, for those who verify offline.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// A gate's call whose verdict is to be signed.
#[derive(Args)]
pub(crate) struct GatePlan {
    /// The bundle.
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    /// The policy, with its signature beside it in FILE.sig.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// A verifier key under which the policy may be signed, instead of the pinned auditor's.
    #[arg(long, value_name = "FILE")]
    policy_key: Option<PathBuf>,
    /// The policy's SHA-256, to refuse any other version.
    #[arg(long, value_name = "HEX")]
    policy_digest: Option<Digest>,
    /// The trust policy that pins the bundle's issuer.
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// Where the signed verdict goes.
    #[arg(long, value_name = "FILE")]
    attest: PathBuf,
}

/// Longest reason that an entry keeps.
const REASON_BYTES_MAX: usize = 1_024;

pub(crate) fn certify(opening: &Opening, plan: &Plan) -> Result<Answer, Failure> {
    if plan.valid_for > VALIDITY_DAYS_MAX * 86_400 {
        return Err(Failure::wrong(format!("a certificate is valid for at most {VALIDITY_DAYS_MAX} days")));
    }
    let policy = Policy::read(&plan.policy)?;
    let key = plan.policy_key.as_deref().map(named_key).transpose()?;
    let unlocked = unlock(opening)?;
    let answer = issue(&unlocked, plan, &policy, key);
    close(unlocked)?;
    answer
}

fn issue(unlocked: &Unlocked, plan: &Plan, policy: &Policy, key: Option<PublicKey>) -> Result<Answer, Failure> {
    let bundle = beside(&plan.out, "bundle.tmp");
    let issued = issue_from(unlocked, plan, policy, key, &bundle);
    // Of this call alone; the certificate holds all of it.
    let _ = fs::remove_file(&bundle);
    issued
}

fn issue_from(
    unlocked: &Unlocked,
    plan: &Plan,
    policy: &Policy,
    key: Option<PublicKey>,
    bundle: &Path,
) -> Result<Answer, Failure> {
    let payloads = if plan.without_payloads { Payloads::Withheld } else { Payloads::Included };
    let (agent, run) = (&plan.agent, &plan.run);
    let wanted = Wanted { agent, run, out: bundle, payloads, evidence: plan.evidence.as_deref() };
    let (report, _) = export_run(unlocked, &wanted)?;
    // The moment of issue is a whole second, for which whoever verifies evaluates the policy again.
    let not_before_s = now_s(&unlocked.clock);
    let call = GateCall {
        trust: &unlocked.policy,
        policy: policy.file(),
        policy_key: key,
        policy_digest: None,
        now_ns: i64::try_from(not_before_s).unwrap_or(i64::MAX).saturating_mul(amc_core::timestamp::NS_PER_S),
    };
    let judgement = judged(bundle, &call)?;
    if !judgement.is_allowed() {
        return Ok(denied(plan, &judgement));
    }
    let signed = judgement.policy.as_ref().expect("only a policy that somebody trusted signed allows");
    let text = std::str::from_utf8(&policy.bytes).map_err(|_| Failure::wrong("the policy is not UTF-8"))?;
    let not_after_s = not_before_s + plan.valid_for;
    let says = CertificatePlan { report: &report, policy: text, signed, not_before_s, not_after_s }.predicate();
    let envelope =
        unlocked.envelopes.sign_statement(&certificate_statement(&says, &report)).map_err(Failure::unable)?;
    let certificate_sha256 = amc_crypto::sha256(envelope.to_json().as_bytes());
    let entry = CertificateIssued {
        certificate_id: says.certificate_id.clone(),
        certificate_sha256,
        run_id: report.run_id.clone(),
        agent: report.agent.clone(),
        policy_sha256: says.policy.sha256,
        not_before_s,
        not_after_s,
    };
    let bytes = into_place(&plan.out, |out, _| {
        let mut source = File::open(bundle).map_err(Failure::unable)?;
        let written = pack_certificate(&mut source, &envelope, &unlocked.envelopes, out).map_err(Failure::bad)?;
        // The file gets its name only when the log has the entry.
        unlocked.writer.append(Draft::new(Tier::Observed, entry), None).map_err(Failure::unable)?;
        Ok(written)
    })?;
    let data = json!({
        "certificate_id": says.certificate_id, "certificate_sha256": certificate_sha256, "run_id": report.run_id,
        "agent_id": report.agent, "not_before": says.not_before, "not_after": says.not_after, "out": plan.out,
        "bytes": bytes, "gate": judgement,
    });
    let text = format!(
        "Wrote {} ({bytes} bytes): {}\n{} of {}, valid from {} to {}\n",
        plan.out.display(),
        says.certificate_id,
        report.run_id,
        report.agent,
        says.not_before,
        says.not_after
    );
    Ok(Answer { findings: judgement.findings.clone(), ..Answer::new(&data, text) })
}

fn denied(plan: &Plan, judgement: &Judgement) -> Answer {
    let mut text = format!("{} does not pass {}; no certificate was issued\n", plan.run, plan.policy.display());
    for rule in judgement.decision.rules.iter().filter(|rule| !rule.pass) {
        text += &format!("  FAIL  {}: wanted {}, found {}\n", rule.rule, rule.wanted, rule.found);
    }
    let data = json!({ "certificate_id": null, "run_id": plan.run, "agent_id": plan.agent, "gate": judgement });
    Answer { findings: judgement.findings.clone(), bad: true, ..Answer::new(&data, text) }
}

pub(crate) fn revoke(opening: &Opening, plan: &RevokePlan) -> Result<Answer, Failure> {
    if plan.reason.trim().is_empty() || plan.reason.len() > REASON_BYTES_MAX {
        return Err(Failure::wrong(format!("a reason has 1 to {REASON_BYTES_MAX} bytes")));
    }
    let id = named_certificate(&plan.certificate)?;
    let unlocked = unlock(opening)?;
    let answer = revoke_certificate(&unlocked, plan, &id);
    close(unlocked)?;
    answer
}

fn revoke_certificate(unlocked: &Unlocked, plan: &RevokePlan, id: &CertificateId) -> Result<Answer, Failure> {
    let (issued, revoked) = recorded(unlocked, id)?;
    let issued = issued.ok_or_else(|| Failure::wrong(format!("this auditor's log records no certificate {id}")))?;
    let is_new = revoked.is_none();
    let entry = match revoked {
        // Revoked once, a certificate stays so; the file is written again as it was.
        Some(entry) => entry,
        None => {
            let entry = CertificateRevoked {
                certificate_id: id.clone(),
                certificate_sha256: issued.certificate_sha256,
                revoked_at_s: now_s(&unlocked.clock),
                reason: plan.reason.clone(),
            };
            unlocked.writer.append(Draft::new(Tier::Observed, entry.clone()), None).map_err(Failure::unable)?;
            entry
        }
    };
    let origin =
        LogReader::open(&unlocked.home.log(Role::Auditor)).map_err(Failure::unable)?.checkpoint().origin.clone();
    let CertificateRevoked { certificate_sha256, revoked_at_s, reason, .. } = &entry;
    let events = key_events(unlocked)?;
    let statement = revocation_statement(id, *certificate_sha256, &origin, *revoked_at_s, reason, &events);
    let envelope = unlocked.envelopes.sign_statement(&statement).map_err(Failure::unable)?.to_json();
    Revocation::parse(envelope.as_bytes()).map_err(Failure::bad)?;
    home::write_atomic(&plan.out, envelope.as_bytes()).map_err(Failure::wrong)?;
    let when = amc_core::timestamp::to_rfc3339(
        i64::try_from(*revoked_at_s).unwrap_or(0).saturating_mul(amc_core::timestamp::NS_PER_S),
    );
    let data = json!({
        "certificate_id": id, "revoked_at": when, "reason": reason, "out": plan.out, "already_revoked": !is_new,
    });
    let again = if is_new { "" } else { " before, for the reason that the log records" };
    let text = format!(
        "Revoked {id}{again}. Give {} to whoever relies on it; they name it with --revocations\n",
        plan.out.display()
    );
    Ok(Answer::new(&data, text))
}

/// The events by which the audit log's key changed, for verifiers that pin its first one.
fn key_events(unlocked: &Unlocked) -> Result<Vec<SignedEvent>, Failure> {
    let reader = LogReader::open(&unlocked.home.log(Role::Auditor)).map_err(Failure::unable)?;
    let mut events = Vec::new();
    for stored in reader.events(0) {
        let signed = stored.map_err(Failure::unable)?.signed;
        let (_, fields) = Event::decode(&signed.body).map_err(Failure::unable)?;
        if matches!(fields, Some(Fields::KeyRotated(rotated)) if rotated.purpose == KeyPurpose::Log) {
            events.push(signed);
        }
    }
    Ok(events)
}

/// What the audit log records of a certificate.
fn recorded(
    unlocked: &Unlocked,
    id: &CertificateId,
) -> Result<(Option<CertificateIssued>, Option<CertificateRevoked>), Failure> {
    unlocked.writer.publish().map_err(Failure::unable)?;
    let reader = LogReader::open(&unlocked.home.log(Role::Auditor)).map_err(Failure::unable)?;
    let (mut issued, mut revoked) = (None, None);
    for stored in reader.events(0) {
        let (_, fields) = Event::decode(&stored.map_err(Failure::unable)?.signed.body).map_err(Failure::unable)?;
        match fields {
            Some(Fields::CertificateIssued(entry)) if entry.certificate_id == *id => issued = Some(entry),
            Some(Fields::CertificateRevoked(entry)) if entry.certificate_id == *id => {
                revoked.get_or_insert(entry);
            }
            _ => {}
        }
    }
    Ok((issued, revoked))
}

/// An id, or the id in a file, which the log then has to confirm.
fn named_certificate(text: &str) -> Result<CertificateId, Failure> {
    if let Ok(id) = CertificateId::new(text) {
        return Ok(id);
    }
    let file = File::open(text)
        .map_err(|error| Failure::wrong(format!("{text} is neither a certificate's id nor a file: {error}")))?;
    let shown = inspect(BufReader::new(file)).map_err(|error| Failure::wrong(format!("{text}: {error}")))?;
    let says = shown.certificate.ok_or_else(|| Failure::wrong(format!("{text} holds no certificate")))?;
    Ok(says.certificate_id)
}

/// Judges a bundle as `amc gate` does and signs the verdict. It is no entry of the log: it says what
/// anybody can judge again.
pub(crate) fn gate(opening: &Opening, plan: &GatePlan) -> Result<Answer, Failure> {
    let policy = Policy::read(&plan.policy)?;
    let key = plan.policy_key.as_deref().map(named_key).transpose()?;
    let unlocked = unlock(opening)?;
    let answer = attest(&unlocked, plan, &policy, key);
    unlocked.writer.close().map_err(Failure::unable)?;
    answer
}

fn attest(unlocked: &Unlocked, plan: &GatePlan, policy: &Policy, key: Option<PublicKey>) -> Result<Answer, Failure> {
    let trust = match plan.trust.clone().or_else(|| std::env::var_os("AMC_TRUST").map(PathBuf::from)) {
        None => unlocked.policy.clone(),
        Some(path) => {
            let bytes = home::read_bounded(&path, limits::POLICY_BYTES_MAX).map_err(Failure::wrong)?;
            TrustPolicy::parse(&bytes).map_err(|error| Failure::wrong(format!("{}: {error}", path.display())))?
        }
    };
    let call = GateCall {
        trust: &trust,
        policy: policy.file(),
        policy_key: key,
        policy_digest: plan.policy_digest,
        now_ns: unlocked.clock.now().wall_ns,
    };
    let judgement = judged(&plan.bundle, &call)?;
    let origin =
        LogReader::open(&unlocked.home.log(Role::Auditor)).map_err(Failure::unable)?.checkpoint().origin.clone();
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let statement = vsa_statement(&judgement, &origin, &name(&plan.bundle), &name(&plan.policy));
    let envelope = unlocked.envelopes.sign_statement(&statement).map_err(Failure::unable)?;
    home::write_atomic(&plan.attest, envelope.to_json().as_bytes()).map_err(Failure::wrong)?;
    let text = format!("Wrote {}, signed by {origin}\n", plan.attest.display());
    let bad = !judgement.is_allowed();
    Ok(Answer { findings: judgement.findings.clone(), bad, ..Answer::new(&judgement, text) })
}

fn judged(bundle: &Path, call: &GateCall<'_>) -> Result<Judgement, Failure> {
    let describe = |error: &dyn std::fmt::Display| Failure::wrong(format!("{}: {error}", bundle.display()));
    let file = File::open(bundle).map_err(|error| describe(&error))?;
    judge(BufReader::new(file), call).map_err(|error| describe(&error))
}

/// A gate policy with what stands beside it.
struct Policy {
    bytes: Vec<u8>,
    signature: Option<Vec<u8>>,
}

impl Policy {
    fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = home::read_bounded(path, limits::CONFIG_BYTES_MAX).map_err(Failure::wrong)?;
        let signature = home::read_bounded(&beside(path, "sig"), limits::ENVELOPE_BYTES_MAX).ok();
        Ok(Policy { bytes, signature })
    }

    fn file(&self) -> PolicyFile<'_> {
        PolicyFile { bytes: &self.bytes, signature: self.signature.as_deref() }
    }
}

fn named_key(path: &Path) -> Result<PublicKey, Failure> {
    let text = home::read_bounded(path, limits::NOTE_BYTES_MAX).map_err(Failure::wrong)?;
    let key = String::from_utf8_lossy(&text).trim().parse::<VerifierKey>();
    Ok(key.map_err(|error| Failure::wrong(format!("{}: {error}", path.display())))?.public())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{suffix}"));
    PathBuf::from(name)
}

fn close(unlocked: Unlocked) -> Result<(), Failure> {
    let Unlocked { writer, home, passphrase, .. } = unlocked;
    writer.close().map_err(Failure::unable)?;
    // Cosigned later when the monitor cannot be had now; a run and an export ask for it again.
    let _ = monitor::cosign(&home, &passphrase);
    Ok(())
}
