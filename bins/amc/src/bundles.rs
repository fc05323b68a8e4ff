//! Verifying bundles and deciding on them, anywhere, with pinned keys alone.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use amc_bundle::gate::{PolicyFile, PolicyTrust, pinned_policy_keys};
use amc_bundle::{BundleVerdict, Decision};
use amc_core::{Clock as _, FindingCode, limits};
use amc_crypto::{TrustPolicy, Unverified, VerifierKey};
use amc_workspace::home;
use amc_workspace::{Answer, Failure, Opening, SystemClock};
use serde_json::json;

use crate::cli::GatePlan;
use crate::trust;

fn open(path: &Path) -> Result<BufReader<File>, Failure> {
    let file = File::open(path).map_err(|error| Failure::wrong(format!("cannot read {}: {error}", path.display())))?;
    Ok(BufReader::new(file))
}

fn verdict(path: &Path, policy: &TrustPolicy) -> Result<BundleVerdict, Failure> {
    let verdict = amc_bundle::verify(open(path)?, policy);
    let verdict = verdict.map_err(|error| Failure::wrong(format!("{}: {error}", path.display())))?;
    // Where not even a manifest could be read the file is no bundle; where the rest does not hold up to an authentic
    // manifest, that is a verdict.
    match verdict.first_error() {
        Some(error) if error.code == FindingCode::BundleMalformed && verdict.issuer.is_none() => {
            let what = format!("{} is no bundle: {}", path.display(), error.message);
            Err(Failure::wrong(what).with(error.clone()))
        }
        _ => Ok(verdict),
    }
}

pub(crate) fn verify(opening: &Opening, file: &Path, trusted: Option<&Path>) -> Result<Answer, Failure> {
    // A file that is not there is the first thing to say.
    drop(open(file)?);
    let (_, policy) = trust::anchor(opening, trusted)?;
    let verdict = verdict(file, &policy)?;
    let text = match verdict.bundle() {
        Some(bundle) if verdict.is_good() => {
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
    Ok(Answer { findings: verdict.findings.clone(), bad: !verdict.is_good(), ..Answer::new(&verdict.data(), text) })
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
        "bytes": inspection.bytes, "report": inspection.report,
    });
    let says = serde_json::to_string_pretty(&inspection.says).expect("plain values serialise");
    let text = format!(
        "Nothing here is verified; use `amc bundle verify`.\nIssuer key {}\n{says}\n",
        inspection.issuer_key_id
    );
    Ok(Answer::new(&data, text))
}

pub(crate) fn gate(opening: &Opening, plan: &GatePlan) -> Result<Answer, Failure> {
    drop(open(&plan.bundle)?);
    let (_, trusted) = trust::anchor(opening, plan.trust.as_deref())?;
    let bytes = home::read_bounded(&plan.policy, limits::CONFIG_BYTES_MAX).map_err(Failure::wrong)?;
    let mut signature_path = plan.policy.clone().into_os_string();
    signature_path.push(".sig");
    let signature = home::read_bounded(Path::new(&signature_path), limits::ENVELOPE_BYTES_MAX).ok();
    let keys = match &plan.policy_key {
        None => pinned_policy_keys(&trusted),
        Some(path) => {
            let text = home::read_bounded(path, limits::NOTE_BYTES_MAX).map_err(Failure::wrong)?;
            let text = String::from_utf8_lossy(&text);
            let key = text.trim().parse::<VerifierKey>();
            vec![key.map_err(|error| Failure::wrong(format!("{}: {error}", path.display())))?.public()]
        }
    };
    let file = PolicyFile { bytes: &bytes, signature: signature.as_deref() };
    let policy = Unverified::new(file).verify(&PolicyTrust { keys: &keys, digest: plan.policy_digest });
    let verdict = verdict(&plan.bundle, &trusted)?;
    let policy = match policy {
        Ok(policy) => policy,
        Err(error) => return policy_failure(plan, &error),
    };
    let clock = SystemClock::new().map_err(Failure::unable)?;
    let decision = amc_bundle::decide(&verdict, &policy, clock.now().wall_ns);
    let allowed = decision.decision == Decision::Allow;
    let mut text = format!("{}\n", if allowed { "ALLOW" } else { "DENY" });
    for rule in &decision.rules {
        let mark = if rule.pass { "pass" } else { "FAIL" };
        text += &format!("  {mark}  {}: wanted {}, found {}\n", rule.rule, rule.wanted, rule.found);
    }
    Ok(Answer { findings: verdict.findings.clone(), bad: !allowed, ..Answer::new(&decision, text) })
}

/// A policy that is malformed is a wrong call; one that nobody trusted signed is a deny.
fn policy_failure(plan: &GatePlan, error: &amc_bundle::PolicyError) -> Result<Answer, Failure> {
    let message = format!("{}: {error}", plan.policy.display());
    if matches!(
        error,
        amc_bundle::PolicyError::TooLong | amc_bundle::PolicyError::Json(_) | amc_bundle::PolicyError::Content(_)
    ) {
        return Err(Failure::wrong(message));
    }
    let rule = json!({ "rule": "policySigned", "wanted": "a signature of a trusted key", "found": error.to_string(), "pass": false });
    let data = json!({ "decision": Decision::Deny, "rules": [rule] });
    let finding = amc_core::Finding::error(error.code(), plan.policy.display().to_string(), &message);
    Ok(Answer {
        findings: vec![finding],
        bad: true,
        ..Answer::new(&data, format!("DENY\n  FAIL  policySigned: {error}\n"))
    })
}
