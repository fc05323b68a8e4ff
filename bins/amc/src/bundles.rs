//! Verifying and showing bundles, anywhere, with pinned keys alone.

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek};
use std::path::Path;

use amc_bundle::BundleVerdict;
use amc_bundle::archive::TOTAL_BYTES_MAX;
use amc_core::{Clock as _, Finding, FindingCode};
use amc_crypto::TrustPolicy;
use amc_workspace::{Answer, Failure, Opening, SystemClock};
use serde_json::json;

use crate::trust;

/// A file that can be read twice.
pub(crate) trait Source: Read + Seek {}

impl<T: Read + Seek> Source for T {}

/// A file as it is, and what comes from a pipe as it came.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Source>, Failure> {
    let describe = |error| Failure::wrong(format!("cannot read {}: {error}", path.display()));
    let mut file = File::open(path).map_err(describe)?;
    if file.stream_position().is_ok() {
        return Ok(Box::new(BufReader::new(file)));
    }
    let mut bytes = Vec::new();
    file.take(TOTAL_BYTES_MAX).read_to_end(&mut bytes).map_err(describe)?;
    Ok(Box::new(Cursor::new(bytes)))
}

pub(crate) fn verdict(path: &Path, policy: &TrustPolicy) -> Result<BundleVerdict, Failure> {
    let verdict = amc_bundle::verify(open(path)?, policy);
    let verdict = verdict.map_err(|error| Failure::wrong(format!("{}: {error}", path.display())))?;
    refuse_what_is_none(path, &verdict.findings, verdict.issuer.is_none())?;
    Ok(verdict)
}

/// Where not even a manifest could be read the file is no bundle; where the rest does not hold up to an authentic
/// manifest, that is a verdict.
pub(crate) fn refuse_what_is_none(path: &Path, findings: &[Finding], nobody_signed: bool) -> Result<(), Failure> {
    match findings.iter().find(|finding| finding.is_error()) {
        Some(error) if error.code == FindingCode::BundleMalformed && nobody_signed => {
            let what = format!("{} is no bundle: {}", path.display(), error.message);
            Err(Failure::wrong(what).with(error.clone()))
        }
        _ => Ok(()),
    }
}

pub(crate) fn verify(
    opening: &Opening,
    file: &Path,
    trusted: Option<&Path>,
    max_age_s: Option<u64>,
) -> Result<Answer, Failure> {
    // A file that is not there is the first thing to say.
    drop(open(file)?);
    let (_, policy) = trust::anchor(opening, trusted)?;
    let mut verdict = verdict(file, &policy)?;
    let stale = match (verdict.bundle(), max_age_s) {
        (Some(bundle), Some(max_age_s)) => {
            let now_ns = SystemClock::new().map_err(Failure::unable)?.now().wall_ns;
            bundle.stale(max_age_s, now_ns)
        }
        _ => Vec::new(),
    };
    let bad = !verdict.is_good() || !stale.is_empty();
    verdict.findings.extend(stale);
    let text = match verdict.bundle() {
        Some(bundle) if !bad => {
            let report = &bundle.report;
            format!(
                "Authentic, and the score recomputes: {} of {}\nStatus {}, {}; overall {} bp of a level, integrity {} bp\n\
                 {} evidence events of {}, cosigned by {}\n",
                report.run_id,
                report.agent,
                report.status,
                report.label,
                report.overall_bp,
                report.integrity_bp,
                bundle.evidence.events,
                bundle.evidence.size,
                names(&bundle.evidence.witnesses)
            )
        }
        _ => format!("{} does not verify\n", file.display()),
    };
    Ok(Answer { findings: verdict.findings.clone(), bad, ..Answer::new(&verdict.data(), text) })
}

fn names(witnesses: &[(String, u64)]) -> String {
    if witnesses.is_empty() {
        return "nobody".to_owned();
    }
    witnesses.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
}

pub(crate) fn inspect(file: &Path) -> Result<Answer, Failure> {
    let inspection =
        amc_bundle::inspect(open(file)?).map_err(|error| Failure::wrong(format!("{}: {error}", file.display())))?;
    let data = json!({
        "verified": false, "says": inspection.says, "issuer_key_id": inspection.issuer_key_id,
        "certificate": inspection.certificate, "bytes": inspection.bytes, "report": inspection.report,
    });
    let says = serde_json::to_string_pretty(&inspection.says).expect("plain values serialise");
    let text = format!(
        "Nothing here is verified; use `amc bundle verify`.\nIssuer key {}\n{says}\n",
        inspection.issuer_key_id
    );
    Ok(Answer::new(&data, text))
}
