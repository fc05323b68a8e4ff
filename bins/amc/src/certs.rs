//! Certificates and differences: verifying, showing, comparing, anywhere, with pinned keys alone.

use std::fs;
use std::path::{Path, PathBuf};

use amc_bundle::certificate::{badge, page};
use amc_bundle::{CertificateVerdict, Revocation, diff as compare, verify_certificate};
use amc_core::kinds::{Fields, Role};
use amc_core::{Clock as _, Finding, FindingCode, limits, timestamp};
use amc_crypto::{TrustPolicy, Unverified};
use amc_evidence::{Event, EventTrust, KeyHistory};
use amc_ledger::LogReader;
use amc_workspace::home;
use amc_workspace::{Answer, Failure, Opening, SystemClock};
use serde_json::json;

use crate::bundles;
use crate::cli::{CertFormat, CertInspectPlan, CertVerifyPlan};
use crate::trust;

/// Files that are looked through in a directory of revocations.
const REVOCATIONS_MAX: usize = 10_000;

pub(crate) fn verify(opening: &Opening, plan: &CertVerifyPlan) -> Result<Answer, Failure> {
    drop(bundles::open(&plan.file)?);
    let (_, policy) = trust::anchor(opening, plan.trust.as_deref())?;
    let mut verdict = judged(opening, &plan.file, &policy, plan.revocations.as_deref())?;
    let stale = match (verdict.certificate(), plan.max_age) {
        (Some(good), Some(max_age_s)) => good.bundle.stale(max_age_s, now_ns()?),
        _ => Vec::new(),
    };
    let bad = !verdict.is_good() || !stale.is_empty();
    verdict.findings.extend(stale);
    let text = match verdict.certificate().filter(|_| !bad) {
        Some(good) => format!(
            "Authentic and in its time: {}\n{} of {}, status {}, {}; overall {} bp of a level, integrity {} bp\n\
             Valid from {} to {}, under the policy {}\n",
            good.predicate.certificate_id,
            good.predicate.run_id,
            good.predicate.agent,
            good.bundle.report.status,
            good.bundle.report.label,
            good.bundle.report.overall_bp,
            good.bundle.report.integrity_bp,
            good.predicate.not_before,
            good.predicate.not_after,
            good.predicate.policy.sha256
        ),
        None => format!("{} does not verify\n", plan.file.display()),
    };
    Ok(Answer { findings: verdict.findings.clone(), bad, ..Answer::new(&verdict.data(), text) })
}

pub(crate) fn inspect(opening: &Opening, plan: &CertInspectPlan) -> Result<Answer, Failure> {
    let file = bundles::open(&plan.file)?;
    let picture = match plan.format {
        CertFormat::Text => return shown(&plan.file, file),
        CertFormat::Html => page,
        CertFormat::Badge => badge,
    };
    drop(file);
    let (_, policy) = trust::anchor(opening, plan.trust.as_deref())?;
    let verdict = judged(opening, &plan.file, &policy, plan.revocations.as_deref())?;
    // Figures are shown of what verified, and of nothing else.
    let Some(certificate) = verdict.certificate() else {
        let text = format!("{} does not verify, so there is nothing to show\n", plan.file.display());
        return Ok(Answer { findings: verdict.findings.clone(), bad: true, ..Answer::new(&verdict.data(), text) });
    };
    let text = picture(certificate);
    let findings = verdict.findings.clone();
    let Some(out) = &plan.out else {
        let data = json!({ "verified": true, "certificate_id": certificate.predicate.certificate_id, "content": text });
        return Ok(Answer { findings, ..Answer::new(&data, text) });
    };
    home::write_atomic(out, text.as_bytes()).map_err(Failure::wrong)?;
    let data = json!({ "verified": true, "certificate_id": certificate.predicate.certificate_id, "out": out });
    Ok(Answer { findings, ..Answer::new(&data, format!("Wrote {}\n", out.display())) })
}

/// What the file says of itself.
fn shown(path: &Path, file: impl std::io::Read) -> Result<Answer, Failure> {
    let describe = |what: &dyn std::fmt::Display| Failure::wrong(format!("{}: {what}", path.display()));
    let shown = amc_bundle::inspect(file).map_err(|error| describe(&error))?;
    let Some(says) = shown.certificate else {
        return Err(describe(&"it holds no certificate; `amc bundle inspect` shows bundles"));
    };
    let data = json!({
        "verified": false, "certificate": says, "says": shown.says, "issuer_key_id": shown.issuer_key_id,
        "bytes": shown.bytes, "report": shown.report,
    });
    let text = serde_json::to_string_pretty(&says).expect("plain values serialise");
    let text =
        format!("Nothing here is verified; use `amc cert verify`.\nIssuer key {}\n{text}\n", shown.issuer_key_id);
    Ok(Answer::new(&data, text))
}

fn judged(
    opening: &Opening,
    path: &Path,
    policy: &TrustPolicy,
    revocations: Option<&Path>,
) -> Result<CertificateVerdict, Failure> {
    let given = revocations.map(read_revocations).transpose()?.unwrap_or_default();
    let verdict = verify_certificate(bundles::open(path)?, policy, &given, now_ns()?);
    let mut verdict = verdict.map_err(|error| Failure::wrong(format!("{}: {error}", path.display())))?;
    bundles::refuse_what_is_none(path, &verdict.findings, verdict.issuer.is_none())?;
    if let Some(finding) = revoked_here(opening, &verdict, policy)? {
        verdict.refuse(finding);
    }
    Ok(verdict)
}

fn now_ns() -> Result<i64, Failure> {
    Ok(SystemClock::new().map_err(Failure::unable)?.now().wall_ns)
}

/// A file, or all files of a directory: one that does not parse is an error, since it may be the one that counts.
fn read_revocations(path: &Path) -> Result<Vec<Revocation>, Failure> {
    let describe = |path: &Path, what: &dyn std::fmt::Display| {
        Failure::wrong(format!("{} is no revocation: {what}; leave it out to go on without it", path.display()))
    };
    let mut files: Vec<PathBuf> = Vec::new();
    if path.is_dir() {
        for entry in fs::read_dir(path).map_err(|error| describe(path, &error))? {
            let path = entry.map_err(|error| describe(path, &error))?.path();
            if path.is_file() {
                files.push(path);
            }
        }
        files.sort();
    } else {
        files.push(path.to_owned());
    }
    if files.len() > REVOCATIONS_MAX {
        return Err(Failure::wrong(format!("{} has more than {REVOCATIONS_MAX} files", path.display())));
    }
    let read = |path: &PathBuf| {
        let bytes = home::read_bounded(path, limits::ENVELOPE_BYTES_MAX).map_err(Failure::wrong)?;
        Revocation::parse(&bytes).map_err(|error| describe(path, &error))
    };
    files.iter().map(read).collect()
}

/// In the issuer's own workspace the audit log says what was revoked, file or no file.
fn revoked_here(
    opening: &Opening,
    verdict: &CertificateVerdict,
    policy: &TrustPolicy,
) -> Result<Option<Finding>, Failure> {
    let Some(says) = verdict.certificate().map(|certificate| &certificate.predicate) else { return Ok(None) };
    let Ok(home) = opening.home() else { return Ok(None) };
    let Ok(log) = LogReader::open(&home.log(Role::Auditor)) else { return Ok(None) };
    let Some(pinned) = policy.log(&says.issuer).filter(|_| log.checkpoint().origin == says.issuer) else {
        return Ok(None);
    };
    let mut keys = KeyHistory::pinned(pinned.public());
    for stored in log.events(0) {
        let stored = stored.map_err(Failure::bad)?;
        let (_, fields) = Event::decode(&stored.signed.body).map_err(Failure::bad)?;
        let matters = match &fields {
            Some(Fields::CertificateRevoked(entry)) => entry.certificate_id == says.certificate_id,
            Some(Fields::KeyRotated(_)) => true,
            _ => false,
        };
        if !matters {
            continue;
        }
        let trust = EventTrust { origin: &says.issuer, keys: &keys };
        let record = Unverified::new(stored.signed).verify(&trust).map_err(Failure::bad)?;
        keys.observe(&record);
        if let Some(Fields::CertificateRevoked(entry)) = &record.fields {
            let at_ns = i64::try_from(entry.revoked_at_s).unwrap_or(0).saturating_mul(timestamp::NS_PER_S);
            let what =
                format!("this workspace's audit log revoked it at {}: {}", timestamp::to_rfc3339(at_ns), entry.reason);
            return Ok(Some(Finding::error(FindingCode::CertRevoked, says.certificate_id.as_str(), what)));
        }
    }
    Ok(None)
}

pub(crate) fn diff(opening: &Opening, from: &Path, to: &Path, trusted: Option<&Path>) -> Result<Answer, Failure> {
    drop((bundles::open(from)?, bundles::open(to)?));
    let (_, policy) = trust::anchor(opening, trusted)?;
    let verdicts = [bundles::verdict(from, &policy)?, bundles::verdict(to, &policy)?];
    let findings: Vec<Finding> = verdicts.iter().flat_map(|verdict| verdict.findings.clone()).collect();
    let [Some(a), Some(b)] = [verdicts[0].bundle(), verdicts[1].bundle()] else {
        let which = if verdicts[0].is_good() { to } else { from };
        let text = format!("{} does not verify, so there is nothing to compare\n", which.display());
        return Ok(Answer { findings, bad: true, ..Answer::new(&json!({}), text) });
    };
    let found = compare(&a.report, &b.report);
    Ok(Answer { findings, ..Answer::new(&found, found.text()) })
}
