//! Logs of a bundle that succeed others, keys that followed pinned ones, keys that were revoked.
//!
//! A policy pins first keys. A successor counts where the other log of the bundle records exactly this
//! one, and either that other log is pinned itself or the successor is signed by a pinned key of its own
//! role: two logs that nobody pins cannot vouch for each other.

use amc_core::kinds::{Fields, KeyPurpose, KeyRevoked, LogHead, LogSucceeded};
use amc_core::{Finding, FindingCode};
use amc_crypto::note::KeyKind;
use amc_crypto::policy::{precedes, role_of_origin, workspace_of_origin};
use amc_crypto::{Checkpoint, Note, PublicKey, TrustPolicy, VerifierKey};
use amc_evidence::VerifiedEvent;

use super::logs::LogEvents;

/// The key of an audit log that succeeds a pinned one under the same public key.
pub(super) fn successor_of_pinned(policy: &TrustPolicy, origin: &str, key: PublicKey) -> Option<VerifierKey> {
    let mut pinned = policy.logs().iter().filter(|log| precedes(log.name(), origin));
    pinned.find(|log| log.public() == key)?;
    VerifierKey::new(origin, KeyKind::Ed25519, key).ok()
}

/// The key of an evidence log that nobody pins and that these audit events record as a successor.
pub(super) fn recorded_successor(policy: &TrustPolicy, audit: &LogEvents, origin: &str) -> Option<VerifierKey> {
    let recorded = successions(&audit.events).find(|said| said.origin == origin)?;
    let key = PublicKey::try_from(recorded.log_public).ok()?;
    let from_pinned = policy.logs().iter().any(|log| precedes(log.name(), origin));
    let vouched = policy.pins(audit.origin()) || successor_of_pinned(policy, origin, key).is_some();
    let log = VerifierKey::new(origin, KeyKind::Ed25519, key).ok()?;
    (from_pinned && vouched).then_some(log)
}

fn successions(events: &[VerifiedEvent]) -> impl Iterator<Item = &LogSucceeded> {
    events.iter().filter_map(|record| match &record.fields {
        Some(Fields::LogSucceeded(said)) => Some(said),
        _ => None,
    })
}

pub(super) fn revocations(events: &[VerifiedEvent]) -> impl Iterator<Item = &KeyRevoked> {
    events.iter().filter_map(|record| match &record.fields {
        Some(Fields::KeyRevoked(revoked)) => Some(revoked),
        _ => None,
    })
}

/// A log is the one that the other log records, names its predecessor truly, and was not succeeded itself.
pub(super) fn check(log: &LogEvents, other: &LogEvents, policy: &TrustPolicy, findings: &mut Vec<Finding>) {
    let origin = log.origin();
    let mut error = |code, subject: String, what: String| findings.push(Finding::error(code, subject, what));
    let said: Vec<&LogSucceeded> = successions(&other.events).filter(|said| said.origin == origin).collect();
    if let Some(ended) = successions(&other.events).find(|said| said.old.origin == origin) {
        let what = format!("this log ended, and {} goes on; what it holds does not count", ended.origin);
        error(FindingCode::LedgerRollback, origin.to_owned(), what);
    }
    let Some((hash, opened)) = log.opening() else { return };
    let Some(predecessor) = &opened.predecessor else {
        if !said.is_empty() {
            let what = "another log of this name is recorded, one that succeeds a log".to_owned();
            error(FindingCode::LedgerForked, log.subject(0), what);
        }
        return;
    };
    match said.as_slice() {
        [] if policy.pins(origin) => {}
        [] => {
            let what = format!("{} does not record that it succeeds {}", other.origin(), predecessor.origin);
            error(FindingCode::KeyHistoryUntrusted, log.subject(0), what);
        }
        [first, rest @ ..] => {
            if rest.iter().any(|more| more != first) {
                let what = format!("{} records two successors of {}", other.origin(), predecessor.origin);
                error(FindingCode::LedgerForked, log.subject(0), what);
            }
            if first.opening != hash || first.log_public != opened.log_public || first.old != *predecessor {
                let what = format!("{} records another successor of {}", other.origin(), first.old.origin);
                error(FindingCode::LedgerForked, log.subject(0), what);
            }
        }
    }
    check_end(log, other, predecessor, findings);
    let what = format!(
        "it succeeds {}, which ended at size {}: nothing of that one counts",
        predecessor.origin, predecessor.size
    );
    findings.push(Finding::warn(FindingCode::LedgerTruncated, origin, what));
}

/// The predecessor ended no earlier than the other role cosigned it.
fn check_end(log: &LogEvents, other: &LogEvents, predecessor: &LogHead, findings: &mut Vec<Finding>) {
    let cosigned = other.events.iter().filter_map(|record| match &record.fields {
        Some(Fields::CheckpointCosigned(cosigned)) if cosigned.head.origin == predecessor.origin => {
            Some(&cosigned.head)
        }
        _ => None,
    });
    let newest = cosigned.max_by_key(|head| head.size);
    let Some(newest) = newest.filter(|newest| {
        newest.size > predecessor.size || (newest.size == predecessor.size && newest.root != predecessor.root)
    }) else {
        return;
    };
    let what = format!(
        "it says that {} ended at size {}, and another state of size {} was cosigned",
        predecessor.origin, predecessor.size, newest.size
    );
    findings.push(Finding::error(FindingCode::LedgerRollback, log.subject(0), what));
}

/// The policy with what both logs teach, to judge the checkpoint of `log`, which the other role's witness
/// cosigned: next keys count, revoked witness keys do not.
pub(super) fn learned(policy: &TrustPolicy, log: &LogEvents, other: &LogEvents, note: &[u8]) -> TrustPolicy {
    let mut policy = policy.clone();
    for part in [log, other] {
        policy.learn_successor(part.pinned.clone());
        policy.learn_log_keys(part.origin(), part.keys().spans());
        let Some(role) = role_of_origin(part.origin()) else { continue };
        for record in &part.events {
            if let Some(Fields::KeyRotated(rotated)) = &record.fields
                && rotated.purpose == KeyPurpose::Witness
                && let Ok(key) = PublicKey::try_from(rotated.public)
            {
                policy.learn_witness_key(workspace_of_origin(part.origin()), role, key);
            }
        }
    }
    let head = Note::parse(note).ok().and_then(|note| Checkpoint::parse(note.text()).ok());
    for (says, about) in [(log, other), (other, log)] {
        let witness = |revoked: &&KeyRevoked| revoked.purpose == KeyPurpose::Witness;
        for revoked in revocations(&says.events).filter(witness) {
            let is_before = head.as_ref().is_some_and(|head| is_cosigned_before(about, head, revoked));
            if let (false, Ok(key)) = (is_before, PublicKey::try_from(revoked.public)) {
                policy.discount_witness(key);
            }
        }
    }
    policy
}

/// Whether the witness recorded this cosignature before the index at which its key was revoked.
fn is_cosigned_before(witness: &LogEvents, head: &Checkpoint, revoked: &KeyRevoked) -> bool {
    witness.events.iter().any(|record| {
        let same = matches!(&record.fields, Some(Fields::CheckpointCosigned(cosigned))
            if cosigned.head.origin == head.origin && cosigned.head.size == head.size && cosigned.head.root == head.root);
        // A successor of the log that the index is about comes after all of it.
        same && witness.origin() == revoked.origin && record.event.index < revoked.from_index
    })
}
