//! The events of one log in a bundle: signed, in order, chained where neighbours are there, and all
//! of them in the tree of a cosigned checkpoint.

use std::io::Read;

use amc_core::kinds::{Fields, KeyPurpose, KeyRevoked, LogOpened, Role};
use amc_core::{Digest, Finding, FindingCode, Tier};
use amc_crypto::merkle::verify_multiproof;
use amc_crypto::trust::CheckAll;
use amc_crypto::{Check, CosignedCheckpoint, Note, TrustPolicy, Unverified, Verified, VerifierKey};
use amc_evidence::{EventRecord, EventTrust, KeyHistory, SeenHash, SignedEvent, VerifiedEvent, verify as events};

use super::Stop;
use crate::records::{EVENTS_MAX, EventRecords, RecordError, read_proof};

/// After this many bad events of one log nobody learns more from the next.
const BAD_EVENTS_MAX: u64 = 20;

/// Signatures that are decided together; more gain little and hold more bytes at a time.
const BATCH: usize = 256;

/// How far the reading of one log has come.
#[derive(Default)]
struct Tally {
    at: u64,
    bad: u64,
}

/// Verifies an event and lets go of its bytes: what scoring reads is decoded, and a bundle may have very many.
struct LeanTrust<'a>(EventTrust<'a>);

fn lean(mut record: EventRecord) -> EventRecord {
    record.signed.body = Vec::new();
    record
}

impl Check<SignedEvent> for LeanTrust<'_> {
    type Output = EventRecord;
    type Error = events::VerifyError;

    fn check(&self, signed: SignedEvent) -> Result<EventRecord, events::VerifyError> {
        self.0.check(signed).map(lean)
    }
}

impl CheckAll<SignedEvent> for LeanTrust<'_> {
    fn check_all(&self, values: Vec<SignedEvent>) -> Vec<Result<EventRecord, events::VerifyError>> {
        self.0.check_all(values).into_iter().map(|decided| decided.map(lean)).collect()
    }
}

/// The verified events of one log; their bytes are gone.
#[derive(Debug)]
pub(super) struct LogEvents {
    /// The log's pinned key, whose name is the origin.
    pub(super) pinned: VerifierKey,
    role: Role,
    member: &'static str,
    keys: KeyHistory,
    /// In log order; of the evidence log only those outside of sessions, and of kinds that concern logs and keys.
    pub(super) events: Vec<VerifiedEvent>,
    /// The index of every event.
    pub(super) indices: Indices,
    /// What was seen of every event.
    pub(super) seen: Vec<SeenHash>,
    /// The tier of every event.
    tiers: Vec<Tier>,
}

/// Ascending indices, each run of neighbours once.
#[derive(Debug, Default)]
pub(super) struct Indices {
    /// The first of each run, and how many come before it.
    runs: Vec<(u64, usize)>,
    len: usize,
    last: Option<u64>,
}

impl Indices {
    /// How many.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    const fn last(&self) -> Option<u64> {
        self.last
    }

    /// Appends one that is above the last.
    fn push(&mut self, index: u64) {
        if self.last.is_none_or(|last| last + 1 != index) {
            self.runs.push((index, self.len));
        }
        (self.len, self.last) = (self.len + 1, Some(index));
    }

    /// Which one it is, where it is here.
    fn position(&self, index: u64) -> Option<usize> {
        let run = self.runs.partition_point(|(first, _)| *first <= index).checked_sub(1)?;
        let (first, before) = self.runs[run];
        let ends = self.runs.get(run + 1).map_or(self.len, |(_, before)| *before);
        let at = before + usize::try_from(index - first).ok()?;
        (at < ends).then_some(at)
    }

    fn iter(&self) -> impl Iterator<Item = u64> + Clone {
        let ends = self.runs.iter().skip(1).map(|(_, before)| *before).chain([self.len]);
        self.runs.iter().zip(ends).flat_map(|((first, before), end)| *first..*first + (end - *before) as u64)
    }
}

/// Whether an event of the evidence log is held while its bundle is verified.
fn is_held(record: &EventRecord) -> bool {
    let about_logs = matches!(
        &record.fields,
        Some(
            Fields::LogOpened(_)
                | Fields::KeyRotated(_)
                | Fields::KeyRevoked(_)
                | Fields::LogSucceeded(_)
                | Fields::CheckpointCosigned(_)
                | Fields::ConfigLoaded(_)
        )
    );
    record.event.session.is_none() || about_logs
}

impl LogEvents {
    pub(super) fn new(pinned: &VerifierKey, role: Role, member: &'static str) -> Self {
        let keys = KeyHistory::pinned(pinned.public());
        let (events, indices, seen, tiers) = (Vec::new(), Indices::default(), Vec::new(), Vec::new());
        LogEvents { pinned: pinned.clone(), role, member, keys, events, indices, seen, tiers }
    }

    /// Makes room for as many events as so many bytes may hold; room that is not used costs nothing.
    pub(super) fn with_room(mut self, bytes: u64) -> Self {
        let room = room_for(bytes);
        self.seen.reserve(room);
        self.tiers.reserve(room);
        self
    }

    /// The tier of the event at this index, where it is here.
    pub(super) fn tier_of(&self, index: u64) -> Option<Tier> {
        self.indices.position(index).map(|at| self.tiers[at])
    }

    pub(super) fn origin(&self) -> &str {
        self.pinned.name()
    }

    pub(super) fn subject(&self, index: u64) -> String {
        format!("{}#{index}", self.origin())
    }

    /// The log's key history, as far as its events are here.
    pub(super) const fn keys(&self) -> &KeyHistory {
        &self.keys
    }

    /// The log's first event and how it introduces the log.
    pub(super) fn opening(&self) -> Option<(Digest, &LogOpened)> {
        let first = self.events.first().filter(|record| record.event.index == 0)?;
        match &first.fields {
            Some(Fields::LogOpened(opened)) => Some((first.hash, opened)),
            _ => None,
        }
    }

    /// Reads and verifies all records; `each` sees every one that verifies, in order.
    pub(super) fn read(
        &mut self,
        source: &mut dyn Read,
        each: &mut dyn FnMut(&VerifiedEvent),
        findings: &mut Vec<Finding>,
    ) -> Result<(), Stop> {
        let mut records = EventRecords::new(source);
        let mut tally = Tally::default();
        loop {
            let mut batch = Vec::with_capacity(BATCH);
            let mut end = None;
            while batch.len() < BATCH && end.is_none() {
                match records.next_event() {
                    Ok(Some(signed)) => batch.push(Unverified::new(signed)),
                    Ok(None) => end = Some(Ok(())),
                    Err(RecordError::Read(error)) => end = Some(Err(Stop::Read(error))),
                    Err(error) => end = Some(Err(Stop::malformed(self.member, error.to_string()))),
                }
            }
            self.take_batch(batch, &mut tally, each, findings)?;
            if let Some(end) = end {
                end?;
                break;
            }
        }
        self.check_opening(findings);
        Ok(())
    }

    /// Signatures are decided together, in the order of the log; where one of the events brings a new key, those
    /// after it are decided again under that.
    fn take_batch(
        &mut self,
        mut batch: Vec<Unverified<SignedEvent>>,
        tally: &mut Tally,
        each: &mut dyn FnMut(&VerifiedEvent),
        findings: &mut Vec<Finding>,
    ) -> Result<(), Stop> {
        while !batch.is_empty() {
            let trust = LeanTrust(EventTrust { origin: self.pinned.name(), keys: &self.keys });
            let decided = Unverified::verify_all(batch.clone(), &trust);
            let keys_before = self.keys.spans().len();
            let mut done = 0;
            for verified in decided {
                done += 1;
                match verified {
                    Ok(record) => self.take(record, each, findings)?,
                    Err(error) => {
                        findings.push(self.bad_event(tally.at, &error));
                        tally.bad += 1;
                    }
                }
                if tally.bad == BAD_EVENTS_MAX {
                    let what = format!("{} events do not verify; the rest was not looked at", tally.bad);
                    let code = FindingCode::EventSignatureInvalid;
                    return Err(Stop::Finding(Finding::error(code, self.member, what)));
                }
                tally.at += 1;
                if self.keys.spans().len() != keys_before {
                    break;
                }
            }
            batch.drain(..done);
        }
        Ok(())
    }

    fn bad_event(&self, at: u64, error: &events::VerifyError) -> Finding {
        match error {
            events::VerifyError::Signature { index } => {
                Finding::error(FindingCode::EventSignatureInvalid, self.subject(*index), error.to_string())
            }
            events::VerifyError::Event(_) => {
                let subject = format!("{} record {at}", self.member);
                Finding::error(FindingCode::BundleMalformed, subject, error.to_string())
            }
        }
    }

    fn take(
        &mut self,
        record: VerifiedEvent,
        each: &mut dyn FnMut(&VerifiedEvent),
        findings: &mut Vec<Finding>,
    ) -> Result<(), Stop> {
        let index = record.event.index;
        if let (Some(last), Some(seen)) = (self.indices.last(), self.seen.last()) {
            if index <= last {
                let what = format!("it stands after event {last}; events are ascending, each once");
                let finding = Finding::error(FindingCode::EventOutOfOrder, self.subject(index), what);
                return Err(Stop::Finding(finding));
            }
            if index == last + 1 && record.event.prev != seen.event_hash() {
                let what = "this event does not name the hash of the event before it";
                findings.push(Finding::error(FindingCode::ChainBroken, self.subject(index), what));
            }
        } else if index == 0 && record.event.prev != Digest::ZERO {
            let what = "the first event of a log names a predecessor";
            findings.push(Finding::error(FindingCode::ChainBroken, self.subject(0), what));
        }
        if !self.keys.observe(&record) {
            let what = "it names a new key that is no usable key";
            findings.push(Finding::error(FindingCode::KeyHistoryUntrusted, self.subject(index), what));
        }
        self.indices.push(index);
        self.seen.push(SeenHash::of(&record));
        self.tiers.push(record.event.tier);
        each(&record);
        if self.role == Role::Auditor || is_held(&record) {
            self.events.push(record);
        }
        Ok(())
    }

    /// The log's first event introduces the key that is pinned.
    fn check_opening(&self, findings: &mut Vec<Finding>) {
        let opened = self.events.first().filter(|record| record.event.index == 0);
        let agrees = matches!(
            opened.and_then(|record| record.fields.as_ref()),
            Some(Fields::LogOpened(opened)) if opened.origin == self.origin()
                && opened.role == self.role
                && opened.log_public == self.pinned.public().to_digest()
        );
        if !agrees {
            let what = "the log's first event is not here, or does not introduce the pinned key";
            findings.push(Finding::error(FindingCode::KeyHistoryUntrusted, self.subject(0), what));
        }
    }

    /// Refuses events and the checkpoint of `size` from the index on at which the other role's log revokes
    /// their key.
    pub(super) fn check_revoked<'a>(
        &self,
        size: u64,
        revoked: impl Iterator<Item = &'a KeyRevoked>,
        findings: &mut Vec<Finding>,
    ) {
        for revocation in revoked {
            if revocation.origin != self.origin() || revocation.purpose != KeyPurpose::Log {
                continue;
            }
            let signed_after = self.indices.iter().find(|index| {
                *index >= revocation.from_index && self.keys.key_at(*index).to_digest() == revocation.public
            });
            let what = format!("its key was revoked from event {} on: {}", revocation.from_index, revocation.reason);
            let newest = size.saturating_sub(1);
            if let Some(index) = signed_after {
                findings.push(Finding::error(FindingCode::KeyRevoked, self.subject(index), what));
            } else if newest >= revocation.from_index && self.keys.key_at(newest).to_digest() == revocation.public {
                // Its events beyond that index are not here; the checkpoint over them is signed by that key.
                findings.push(Finding::error(FindingCode::KeyRevoked, self.subject(newest), what));
            }
        }
    }

    /// All events are leaves of the checkpoint's tree.
    pub(super) fn check_proof(
        &self,
        checkpoint: &CosignedCheckpoint,
        name: &str,
        proof: &[u8],
        findings: &mut Vec<Finding>,
    ) {
        let leaves = self.seen.iter().map(SeenHash::event_hash);
        let (size, root) = (checkpoint.checkpoint.size, &checkpoint.checkpoint.root);
        let failed = match read_proof(proof) {
            Ok(hashes) => {
                verify_multiproof(self.indices.iter(), leaves, size, &hashes, root).err().map(|error| error.to_string())
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = failed {
            let what = format!("the events are not in the tree of the checkpoint of size {size}: {error}");
            findings.push(Finding::error(FindingCode::CheckpointInvalid, name, what));
        }
    }
}

/// More events than an events member of so many bytes can hold.
pub(super) fn room_for(bytes: u64) -> usize {
    usize::try_from(bytes / RECORD_BYTES_MIN + 1).unwrap_or(EVENTS_MAX).min(EVENTS_MAX)
}

/// Length, the smallest body, signature: an event has at least its envelope.
const RECORD_BYTES_MIN: u64 = 4 + 100 + 64;

/// A checkpoint of the log with this origin, signed by its pinned key and by a quorum of witnesses
/// that count for it.
pub(super) fn check_checkpoint(
    bytes: &[u8],
    origin: &str,
    name: &str,
    policy: &TrustPolicy,
) -> Result<Verified<CosignedCheckpoint>, Finding> {
    let refuse = |what: String| Finding::error(FindingCode::CheckpointInvalid, name, what);
    let note = Note::parse(bytes).map_err(|error| refuse(error.to_string()))?;
    let cosigned = Unverified::new(note).verify(policy).map_err(|error| refuse(error.to_string()))?;
    let found = &cosigned.checkpoint.origin;
    if found == origin { Ok(cosigned) } else { Err(refuse(format!("it is a checkpoint of {found}, not of {origin}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_kept_as_runs() {
        let all = [0, 1, 2, 7, 9, 10, u64::MAX - 1];
        let mut indices = Indices::default();
        assert_eq!((indices.len(), indices.last(), indices.position(0), indices.iter().count()), (0, None, None, 0));
        all.iter().for_each(|index| indices.push(*index));
        assert_eq!(indices.iter().collect::<Vec<_>>(), all);
        assert_eq!((indices.len(), indices.last(), indices.runs.len()), (7, Some(u64::MAX - 1), 4));
        for (at, index) in all.iter().enumerate() {
            assert_eq!(indices.position(*index), Some(at));
        }
        for missing in [3, 6, 8, 11, u64::MAX] {
            assert_eq!(indices.position(missing), None, "{missing}");
        }
    }
}
