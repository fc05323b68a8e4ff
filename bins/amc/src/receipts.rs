//! Receipts: the signature anywhere; the position with a proof file, a bundle or the log.

use std::path::Path;

use amc_bundle::verify_and_find;
use amc_core::kinds::{Fields, Role};
use amc_core::{Digest, Finding, FindingCode, limits};
use amc_crypto::jws::{Receipt, ReceiptClaims, ReceiptTrust};
use amc_crypto::note::KeyKind;
use amc_crypto::proof::{FILE_BYTES_MAX, ProofTrust, TlogProof};
use amc_crypto::{Check, Note, TrustPolicy, Unverified, VerifierKey, merkle};
use amc_evidence::receipt::{claims_of, compare};
use amc_evidence::{Event, EventRecord, EventTrust, KeyHistory, SignedEvent};
use amc_ledger::{LogReader, StoredEvent, line};
use amc_workspace::home;
use amc_workspace::{Answer, Failure, Opening};
use serde_json::json;

use crate::cli::ReceiptVerifyPlan;
use crate::{bundles, trust, witness};

/// How far a receipt's place in the log is known.
enum Position {
    Unproven,
    /// By what it was proven.
    Proven(&'static str),
    Wrong(Vec<Finding>),
}

pub(crate) fn verify(opening: &Opening, plan: &ReceiptVerifyPlan) -> Result<Answer, Failure> {
    let parsed = read(&plan.receipt)?;
    let (_, policy) = trust::anchor(opening, plan.trust.as_deref())?;
    let policy = with_log(opening, plan.log.as_deref(), policy)?;
    let mut findings = Vec::new();
    let claims = match Unverified::new(parsed.clone()).verify(&ReceiptTrust { keys: &log_keys(&policy) }) {
        Ok(claims) => Some(claims.into_inner()),
        Err(error) => {
            findings.push(Finding::error(FindingCode::TraceReceiptInvalid, "receipt", error.to_string()));
            None
        }
    };
    let mut position = Position::Unproven;
    if let Some(claims) = &claims {
        findings.extend(plan.body.as_deref().map(|path| compare_body(claims, path)).transpose()?.flatten());
        position = match (&plan.proof, &plan.bundle) {
            (Some(path), _) => by_proof(path, &policy, claims)?,
            (None, Some(path)) => by_bundle(path, &policy, claims)?,
            (None, None) => by_log(opening, plan.log.as_deref(), &policy, claims)?,
        };
    }
    let (word, by) = match &position {
        Position::Unproven => ("unproven", None),
        Position::Proven(by) => ("proven", Some(*by)),
        Position::Wrong(_) => ("wrong", None),
    };
    if let Position::Wrong(found) = position {
        findings.extend(found);
    }
    let good = findings.is_empty();
    let data = json!({ "claims": parsed.claims(), "kid": parsed.kid(), "position": word, "proven_by": by });
    let verdict = if good { "The receipt is genuine" } else { "The receipt does not verify" };
    let by = by.map(|by| format!(" by {by}")).unwrap_or_default();
    Ok(Answer { findings, bad: !good, ..Answer::new(&data, format!("{verdict}; position: {word}{by}\n")) })
}

/// A receipt, or a file that holds it.
fn read(receipt: &str) -> Result<Receipt, Failure> {
    let text = match home::read_bounded(Path::new(receipt), limits::RECEIPT_BYTES_MAX) {
        Ok(bytes) => String::from_utf8(bytes).map_err(|_| Failure::wrong("the receipt is not text"))?,
        Err(_) => receipt.to_owned(),
    };
    Receipt::parse(text.trim()).map_err(Failure::wrong)
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

fn absent(claims: &ReceiptClaims, what: impl Into<String>) -> Position {
    let subject = format!("{}#{}", claims.log, claims.event_index);
    Position::Wrong(vec![Finding::error(FindingCode::TraceEventHashNotFound, subject, what)])
}

fn compared(claims: &ReceiptClaims, record: &EventRecord, by: &'static str) -> Position {
    match compare(claims, &claims.log, record) {
        None => Position::Proven(by),
        Some(finding) => Position::Wrong(vec![finding]),
    }
}

/// The policy with what the pinned keys signed since, where the log is at hand that says so.
fn with_log(opening: &Opening, named: Option<&Path>, policy: TrustPolicy) -> Result<TrustPolicy, Failure> {
    let home = opening.home().ok();
    let own = |role| home.as_ref().map(|home| home.log(role));
    let Some(evidence) = named.map(Path::to_owned).or_else(|| own(Role::Monitor)) else { return Ok(policy) };
    let audit = own(Role::Auditor).unwrap_or_else(|| evidence.clone());
    line::learned(&policy, &evidence, &audit).map_err(Failure::wrong)
}

/// Every key of the pinned logs, each under its log's name.
fn log_keys(policy: &TrustPolicy) -> Vec<VerifierKey> {
    let keys_of = |log: &VerifierKey| {
        let named = |key| VerifierKey::new(log.name(), KeyKind::Ed25519, key).ok();
        policy.log_keys(log.name()).into_iter().filter_map(named).collect::<Vec<_>>()
    };
    policy.logs().iter().flat_map(keys_of).collect()
}

/// A proof file needs a cosigned checkpoint of the receipt's own log.
fn by_proof(path: &Path, policy: &TrustPolicy, claims: &ReceiptClaims) -> Result<Position, Failure> {
    let describe = |error: &dyn std::fmt::Display| Failure::wrong(format!("{}: {error}", path.display()));
    let bytes = home::read_bounded(path, FILE_BYTES_MAX).map_err(Failure::wrong)?;
    let proof = TlogProof::parse(&bytes).map_err(|error| describe(&error))?;
    let leaf = match Unverified::new(proof).verify(&ProofTrust { policy, quorum: true }) {
        Ok(leaf) => leaf.into_inner(),
        Err(error) => return Ok(absent(claims, format!("{}: {error}", path.display()))),
    };
    let found = &leaf.checkpoint.checkpoint.origin;
    if *found != claims.log {
        return Ok(absent(claims, format!("the proof is of the log {found}")));
    }
    let hash = amc_crypto::leaf_hash(&leaf.body);
    let (event, fields) = Event::decode(&leaf.body).map_err(|error| describe(&error))?;
    if event.index != leaf.index {
        return Ok(absent(claims, "the event in the proof names another index than the proof"));
    }
    // The tree vouches for the body; no signature of the event is in a proof, and none is looked at.
    let signed = SignedEvent { body: leaf.body, signature: amc_crypto::Signature([0; 64]) };
    Ok(compared(claims, &EventRecord { event, fields, hash, signed }, "a proof file"))
}

fn by_bundle(path: &Path, policy: &TrustPolicy, claims: &ReceiptClaims) -> Result<Position, Failure> {
    let found = verify_and_find(bundles::open(path)?, policy, |record| record.event.index == claims.event_index);
    let (verdict, record) = found.map_err(|error| Failure::wrong(format!("{}: {error}", path.display())))?;
    bundles::refuse_what_is_none(path, &verdict.findings, verdict.issuer.is_none())?;
    let Some(bundle) = verdict.bundle() else { return Ok(Position::Wrong(verdict.findings.clone())) };
    if bundle.evidence.origin != claims.log {
        return Ok(absent(claims, format!("the bundle is of the log {}", bundle.evidence.origin)));
    }
    match record {
        Some(record) => Ok(compared(claims, &record, "a bundle")),
        None => Ok(absent(claims, "the bundle does not carry this event")),
    }
}

/// The log that was named, else the workspace's, where there is one.
fn by_log(
    opening: &Opening,
    named: Option<&Path>,
    policy: &TrustPolicy,
    claims: &ReceiptClaims,
) -> Result<Position, Failure> {
    let log = match (named, opening.home()) {
        (Some(dir), _) => LogReader::open(dir).map_err(Failure::wrong)?,
        (None, Ok(home)) => match LogReader::open(&home.log(Role::Monitor)) {
            Ok(log) => log,
            Err(_) => return Ok(Position::Unproven),
        },
        (None, Err(_)) => return Ok(Position::Unproven),
    };
    let origin = log.checkpoint().origin.clone();
    let Some(pinned) = policy.log(&claims.log).filter(|_| origin == claims.log) else {
        return match named {
            Some(_) => Ok(absent(claims, format!("the log is {origin}"))),
            None => Ok(Position::Unproven),
        };
    };
    let Some(stored) = log.event(claims.event_index).map_err(Failure::bad)? else {
        return Ok(absent(claims, "the log ends before this event"));
    };
    let keys = key_history(&log, pinned, claims.event_index)?;
    match Unverified::new(stored.signed).verify(&EventTrust { origin: &claims.log, keys: &keys }) {
        Ok(record) => Ok(compared(claims, &record, "the log")),
        Err(error) => Ok(absent(claims, error.to_string())),
    }
}

/// The keys of a log up to an event, from the pinned one on.
fn key_history(log: &LogReader, pinned: &VerifierKey, up_to: u64) -> Result<KeyHistory, Failure> {
    let mut keys = KeyHistory::pinned(pinned.public());
    for stored in log.events(0).take(usize::try_from(up_to).unwrap_or(usize::MAX)) {
        let stored = stored.map_err(Failure::bad)?;
        let (_, fields) = Event::decode(&stored.signed.body).map_err(Failure::bad)?;
        if matches!(fields, Some(Fields::KeyRotated(_))) {
            let trust = EventTrust { origin: pinned.name(), keys: &keys };
            let record = Unverified::new(stored.signed).verify(&trust).map_err(Failure::bad)?;
            keys.observe(&record);
        }
    }
    Ok(keys)
}

/// What a receipt is asked for by: its id, its event's hash, or itself.
enum Asked {
    Id(String),
    Hash(Digest),
}

impl Asked {
    fn parse(text: &str) -> Result<Self, Failure> {
        if text.starts_with("rcpt-") {
            return Ok(Asked::Id(text.to_owned()));
        }
        match text.parse::<Digest>() {
            Ok(hash) => Ok(Asked::Hash(hash)),
            Err(_) => Ok(Asked::Hash(read(text)?.claims().event_hash)),
        }
    }

    fn fits(&self, origin: &str, stored: &StoredEvent) -> Result<bool, Failure> {
        let hash = stored.signed.event_hash();
        match self {
            Asked::Hash(wanted) => Ok(*wanted == hash),
            Asked::Id(wanted) => {
                let (event, fields) = Event::decode(&stored.signed.body).map_err(Failure::bad)?;
                let claims = fields.and_then(|fields| claims_of(origin, &event, &fields, hash));
                Ok(claims.is_some_and(|claims| claims.receipt_id == *wanted))
            }
        }
    }
}

pub(crate) fn prove(opening: &Opening, id: &str, out: &Path) -> Result<Answer, Failure> {
    let asked = Asked::parse(id)?;
    let home = opening.home()?;
    let policy = home.trust_policy().map_err(Failure::wrong)?;
    let log = LogReader::open(&home.log(Role::Monitor)).map_err(Failure::wrong)?;
    let origin = log.checkpoint().origin.clone();
    let mut found = None;
    for stored in log.events(0) {
        let stored = stored.map_err(Failure::bad)?;
        if asked.fits(&origin, &stored)? {
            found = Some(stored);
            break;
        }
    }
    let stored = found.ok_or_else(|| {
        let what = "the evidence log has no event for this receipt";
        let finding = Finding::error(FindingCode::TraceEventHashNotFound, id, what);
        Failure::wrong(format!("{what}: {id}")).with(finding)
    })?;
    let note = cosigned_over(&home, &policy, &log, stored.index)?;
    let size = amc_crypto::Checkpoint::parse(note.text()).map_err(Failure::bad)?.size;
    let tree = log.tree().map_err(Failure::bad)?;
    let path = merkle::inclusion_proof(&tree, stored.index, size).map_err(Failure::bad)?;
    let text = amc_crypto::proof::encode(&stored.signed.body, stored.index, &path, &note);
    home::write_atomic(out, text.as_bytes()).map_err(Failure::wrong)?;
    let data = json!({ "index": stored.index, "event_hash": stored.signed.event_hash(), "size": size, "out": out });
    Ok(Answer::new(&data, format!("Wrote {}: event {} of {size}, cosigned\n", out.display(), stored.index)))
}

/// The newest checkpoint of the evidence log that covers the event and satisfies the policy's quorum.
fn cosigned_over(home: &home::Home, policy: &TrustPolicy, log: &LogReader, index: u64) -> Result<Note, Failure> {
    let origin = log.checkpoint().origin.clone();
    let mut notes: Vec<Note> = vec![log.latest_checkpoint().clone()];
    notes.extend(witness::cosigned(&home.log(Role::Monitor), policy).map(|cosigned| cosigned.note));
    if let Ok(audit) = LogReader::open(&home.log(Role::Auditor)) {
        for stored in audit.events(0) {
            let (_, fields) = Event::decode(&stored.map_err(Failure::bad)?.signed.body).map_err(Failure::bad)?;
            if let Some(Fields::CheckpointCosigned(cosigned)) = fields
                && cosigned.head.origin == origin
                && cosigned.head.size > index
            {
                notes.extend(Note::parse(cosigned.note.as_bytes()));
            }
        }
    }
    let counts = |note: Note| {
        let cosigned = policy.check(note.clone()).ok()?;
        let at = cosigned.checkpoint;
        (at.origin == origin && index < at.size && at.size <= log.size()).then_some((at.size, note))
    };
    let newest = notes.into_iter().filter_map(counts).max_by_key(|(size, _)| *size);
    let missing = || {
        Failure::unable(
            "no cosigned checkpoint covers this event yet, so nobody would believe a proof; `amc cosign` brings one",
        )
    };
    Ok(newest.ok_or_else(missing)?.1)
}
