//! Verifying receipts: the signature anywhere, the position where the log is.

use std::path::Path;

use amc_core::kinds::Role;
use amc_core::{Finding, FindingCode, limits};
use amc_crypto::jws::{Receipt, ReceiptClaims, ReceiptTrust};
use amc_crypto::{TrustPolicy, Unverified};
use amc_evidence::{EventTrust, KeyHistory, receipt as rules};
use amc_ledger::LogReader;
use amc_workspace::home;
use amc_workspace::{Answer, Failure, Opening};
use serde_json::json;

use crate::trust;

pub(crate) fn verify(
    opening: &Opening,
    receipt: &str,
    body: Option<&Path>,
    trusted: Option<&Path>,
) -> Result<Answer, Failure> {
    let text = match home::read_bounded(Path::new(receipt), limits::RECEIPT_BYTES_MAX) {
        Ok(bytes) => String::from_utf8(bytes).map_err(|_| Failure::wrong("the receipt is not text"))?,
        Err(_) => receipt.to_owned(),
    };
    let parsed = Receipt::parse(text.trim()).map_err(Failure::wrong)?;
    let (_, policy) = trust::anchor(opening, trusted)?;
    let mut findings = Vec::new();
    let claims = match Unverified::new(parsed.clone()).verify(&ReceiptTrust { keys: policy.logs() }) {
        Ok(claims) => Some(claims.into_inner()),
        Err(error) => {
            findings.push(Finding::error(FindingCode::TraceReceiptInvalid, "receipt", error.to_string()));
            None
        }
    };
    let mut position = "unproven";
    if let Some(claims) = &claims {
        findings.extend(body.map(|path| compare_body(claims, path)).transpose()?.flatten());
        if let Some(found) = compare_log(opening, &policy, claims)? {
            position = if found.is_empty() { "proven" } else { "wrong" };
            findings.extend(found);
        }
    }
    let good = findings.is_empty();
    let data = json!({ "claims": parsed.claims(), "kid": parsed.kid(), "position": position });
    let verdict = if good { "The receipt is genuine" } else { "The receipt does not verify" };
    Ok(Answer { findings, bad: !good, ..Answer::new(&data, format!("{verdict}; position: {position}\n")) })
}

fn compare_body(claims: &ReceiptClaims, path: &Path) -> Result<Option<Finding>, Failure> {
    let mut file = std::fs::File::open(path).map_err(|error| Failure::wrong(format!("{}: {error}", path.display())))?;
    let mut hasher = amc_crypto::hash::BodyHasher::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match std::io::Read::read(&mut file, &mut buffer).map_err(Failure::wrong)? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    let differs = hasher.finish().0 != claims.body_sha256;
    let what = "the body is not the one that passed";
    Ok(differs.then(|| Finding::error(FindingCode::TraceBodyHashMismatch, path.display().to_string(), what)))
}

/// Compares with the workspace's evidence log; `None` when there is none here.
fn compare_log(
    opening: &Opening,
    policy: &TrustPolicy,
    claims: &ReceiptClaims,
) -> Result<Option<Vec<Finding>>, Failure> {
    let Ok(home) = opening.home() else { return Ok(None) };
    let Ok(log) = LogReader::open(&home.log(Role::Monitor)) else { return Ok(None) };
    let Some(pinned) = policy.log(&claims.log).filter(|_| log.checkpoint().origin == claims.log) else {
        return Ok(None);
    };
    let subject = format!("{}#{}", claims.log, claims.event_index);
    let absent =
        |what: &str| Ok(Some(vec![Finding::error(FindingCode::TraceEventHashNotFound, subject.clone(), what)]));
    let Some(stored) = log.event(claims.event_index).map_err(Failure::bad)? else {
        return absent("the log ends before this event");
    };
    let keys = KeyHistory::pinned(pinned.public());
    let trust = EventTrust { origin: &claims.log, keys: &keys };
    match Unverified::new(stored.signed).verify(&trust) {
        Ok(record) => Ok(Some(rules::compare(claims, &claims.log, &record).into_iter().collect())),
        Err(error) => absent(&error.to_string()),
    }
}
