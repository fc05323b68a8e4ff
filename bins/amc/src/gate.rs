//! The release decision: judged here without a key, written for others, signed by an auditor on request.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;

use amc_bundle::gate::{PolicyFile, junit, sarif};
use amc_bundle::{GateCall, GateError, Judgement, judge};
use amc_core::{Clock as _, limits};
use amc_crypto::{PublicKey, VerifierKey};
use amc_workspace::home;
use amc_workspace::{Answer, Failure, Opening, SystemClock};
use serde_json::Value;

use crate::cli::GatePlan;
use crate::{bundles, signers, trust};

pub(crate) fn gate(opening: &Opening, plan: &GatePlan) -> Result<Answer, Failure> {
    drop(bundles::open(&plan.bundle)?);
    let (_, trusted) = trust::anchor(opening, plan.trust.as_deref())?;
    let bytes = home::read_bounded(&plan.policy, limits::CONFIG_BYTES_MAX).map_err(Failure::wrong)?;
    let mut signature_path = plan.policy.clone().into_os_string();
    signature_path.push(".sig");
    let signature = home::read_bounded(Path::new(&signature_path), limits::ENVELOPE_BYTES_MAX).ok();
    let call = GateCall {
        trust: &trusted,
        policy: PolicyFile { bytes: &bytes, signature: signature.as_deref() },
        policy_key: plan.policy_key.as_deref().map(named_key).transpose()?,
        policy_digest: plan.policy_digest,
        now_ns: SystemClock::new().map_err(Failure::unable)?.now().wall_ns,
    };
    let judgement = judge(bundles::open(&plan.bundle)?, &call).map_err(|error| wrong_call(plan, error))?;
    let artifact = plan.bundle.file_name().unwrap_or_default().to_string_lossy();
    if let Some(out) = &plan.junit {
        home::write_atomic(out, junit(&judgement, &artifact).as_bytes()).map_err(Failure::wrong)?;
    }
    if let Some(out) = &plan.sarif {
        let log = serde_json::to_string_pretty(&sarif(&judgement, &plan.bundle.to_string_lossy()))
            .expect("plain values serialise");
        home::write_atomic(out, (log + "\n").as_bytes()).map_err(Failure::wrong)?;
    }
    if let Some(out) = &plan.attest {
        attest(opening, plan, out, &judgement)?;
    }
    let allowed = judgement.is_allowed();
    let mut text = format!("{}\n", if allowed { "ALLOW" } else { "DENY" });
    for rule in &judgement.decision.rules {
        let mark = if rule.pass { "pass" } else { "FAIL" };
        text += &format!("  {mark}  {}: wanted {}, found {}\n", rule.rule, rule.wanted, rule.found);
    }
    Ok(Answer { findings: judgement.findings.clone(), bad: !allowed, ..Answer::new(&judgement, text) })
}

/// What is no bundle and what is no policy is a wrong call.
fn wrong_call(plan: &GatePlan, error: GateError) -> Failure {
    match error {
        GateError::NotABundle(finding) => {
            let what = format!("{} is no bundle: {}", plan.bundle.display(), finding.message);
            Failure::wrong(what).with(finding)
        }
        GateError::Policy(error) => Failure::wrong(format!("{}: {error}", plan.policy.display())),
        GateError::Read(error) => Failure::wrong(format!("{}: {error}", plan.bundle.display())),
    }
}

pub(crate) fn named_key(path: &Path) -> Result<PublicKey, Failure> {
    let text = home::read_bounded(path, limits::NOTE_BYTES_MAX).map_err(Failure::wrong)?;
    let key = String::from_utf8_lossy(&text).trim().parse::<VerifierKey>();
    Ok(key.map_err(|error| Failure::wrong(format!("{}: {error}", path.display())))?.public())
}

/// Has the auditor of this home judge the same and sign what it finds: it signs no words of ours.
fn attest(opening: &Opening, plan: &GatePlan, out: &Path, judgement: &Judgement) -> Result<(), Failure> {
    let home = opening.home().map_err(|missing| {
        let what = "--attest signs with the auditor's key of a home, and there is none";
        Failure { message: format!("{what}: {}; `amc init` makes one", missing.message), ..missing }
    })?;
    let mut arguments: Vec<OsString> = vec!["gate".into(), "--json".into(), "--home".into(), home.root().into()];
    let mut push = |flag: &str, value: Option<OsString>| {
        arguments.extend(value.into_iter().flat_map(|value| [OsString::from(flag), value]));
    };
    push("--bundle", Some(plan.bundle.clone().into()));
    push("--policy", Some(plan.policy.clone().into()));
    push("--policy-key", plan.policy_key.clone().map(Into::into));
    push("--policy-digest", plan.policy_digest.map(|digest| digest.to_string().into()));
    push("--trust", plan.trust.clone().map(Into::into));
    push("--passphrase-file", opening.passphrase_file.clone().map(Into::into));
    push("--attest", Some(out.into()));
    let program = signers::program("amc-auditor");
    // The signer's own terminal, flag and variable: it asks for its passphrase itself.
    let output = std::process::Command::new(&program)
        .args(arguments)
        .stdin(Stdio::inherit())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::unable(format!("cannot start {}: {error}", program.display())))?;
    let answer: Value = serde_json::from_slice(&output.stdout)
        .map_err(|_| Failure::unable(format!("{} gave no answer ({})", program.display(), output.status)))?;
    let data = &answer["data"];
    if let Some(error) = data["error"].as_str() {
        let message = format!("the verdict was not signed: {error}");
        return Err(if output.status.code() == Some(2) { Failure::wrong(message) } else { Failure::unable(message) });
    }
    let same = data["bundle_sha256"] == judgement.bundle_sha256.to_string()
        && data["policy_sha256"] == judgement.policy_sha256.to_string()
        && (data["decision"] == "allow") == judgement.is_allowed();
    if same {
        return Ok(());
    }
    // A verdict on other bytes than were judged here is nobody's.
    let _ = std::fs::remove_file(out);
    Err(Failure::unable("the bundle or its policy changed while it was judged; judge it again"))
}
