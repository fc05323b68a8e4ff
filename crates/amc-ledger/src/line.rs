//! What the logs of a workspace say of each other: the keys that each had, which log follows which,
//! what was revoked, which states were cosigned.
//!
//! Begins at the trust policy and goes from what it pins to what the pinned keys signed; a log that
//! nobody vouches for is looked at and teaches nothing. Whether the logs themselves hold is decided by
//! [`crate::pair`]. Reads logs that are broken too, as far as their bytes go. Never writes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use amc_core::kinds::{Fields, KeyPurpose, KeyRevoked, LogHead, LogOpened, LogSucceeded, Role};
use amc_core::{Digest, limits};
use amc_crypto::note::{KeyKind, NoteSignature};
use amc_crypto::policy::{number_of_origin, precedes, role_of_origin, workspace_of_origin};
use amc_crypto::{Checkpoint, CosignedCheckpoint, Note, PublicKey, TrustPolicy, Unverified, VerifierKey};
use amc_evidence::event::peek_kind;
use amc_evidence::{Event, EventTrust, KeyHistory, SignedEvent};

use crate::engine::CHECKPOINT_FILE;
use crate::error::ReadError;
use crate::frame::{Cursor, Frame, segment_indices, segment_path};
use crate::revocation::is_marked;
use crate::storage::Files;
use crate::verify::RevokedKey;

/// The newest checkpoint with outside cosignatures, in the log's directory; a proof by itself.
pub const COSIGNED_FILE: &str = "cosigned";
/// Below the log's directory: every checkpoint with outside cosignatures, each named by its size.
pub const WITNESSED_DIR: &str = "witnessed";
/// Checkpoints with outside cosignatures that are looked at, the largest first.
const WITNESSED_MAX: usize = 1000;

/// Kinds that say something about logs and keys.
const KIND_ROTATED: u16 = 2;
const KIND_COSIGNED: u16 = 6;
const KIND_REVOKED: u16 = 7;
const KIND_SUCCEEDED: u16 = 8;

/// The logs of a line up to the one in `dir`, ascending, those that are here: `evidence`, then
/// `evidence-2` beside it. A directory of another name is a line of its own.
pub fn line_of(dir: &Path, role: Role) -> Vec<PathBuf> {
    let name = dir.file_name().and_then(|name| name.to_str());
    let (Some(number), Some(parent)) = (name.and_then(|name| role.log_number(name)), dir.parent()) else {
        return vec![dir.to_owned()];
    };
    let before = (1..number).map(|number| parent.join(role.log_dir(number))).filter(|dir| dir.is_dir());
    before.chain([dir.to_owned()]).collect()
}

/// A log as its first event introduces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduced {
    /// Where it stands.
    pub dir: PathBuf,
    /// Its fields; nothing of them is trusted before the log is.
    pub opened: LogOpened,
    /// The first event's hash.
    pub hash: Digest,
}

/// A succession that a trusted log records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// `<origin>#<index>` of the entry.
    pub place: String,
    /// What it says.
    pub succeeded: LogSucceeded,
}

/// A state that somebody cosigned, with every witness that counts for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CosignedState {
    /// The state.
    pub checkpoint: Checkpoint,
    /// Witnesses by their names in the policy, with the newest time of each.
    pub witnesses: BTreeMap<String, u64>,
    /// A note with all of their lines.
    pub note: Note,
}

/// All that the logs say of each other.
#[derive(Debug, Clone)]
pub struct Statements {
    /// The policy with what pinned keys signed since: successors, next keys; revoked witness keys are
    /// out.
    pub policy: TrustPolicy,
    /// Every log that could be looked at, evidence first, ascending.
    pub logs: Vec<Introduced>,
    /// Successions, each once.
    pub recorded: Vec<Recorded>,
    /// Revocations, each once.
    pub revoked: Vec<KeyRevoked>,
    /// Cosigned states by their text.
    cosigned: BTreeMap<String, CosignedState>,
}

/// Reads what the logs in these directories say of each other.
///
/// # Errors
/// [`ReadError`] when a file cannot be read; what is damaged is passed over.
pub fn gather(policy: &TrustPolicy, dirs: &[PathBuf]) -> Result<Statements, ReadError> {
    let mut gathering = Gathering::new(policy, dirs)?;
    while gathering.learn()? {}
    gathering.finish()
}

/// The policy with what the pinned keys signed since, as far as the newest checkpoints of these two logs ask
/// for it: where the policy's own keys still sign both, nothing is read.
///
/// # Errors
/// As [`gather`].
pub fn learned(policy: &TrustPolicy, evidence: &Path, audit: &Path) -> Result<TrustPolicy, ReadError> {
    let is_known = |dir: &Path| {
        let note = Files::on_disk(dir).read(CHECKPOINT_FILE, limits::NOTE_BYTES_MAX).ok().flatten();
        let note = note.and_then(|bytes| Note::parse(&bytes).ok());
        note.is_none_or(|note| policy.check_signatures(note).is_ok())
    };
    let dirs = [line_of(evidence, Role::Monitor), line_of(audit, Role::Auditor)].concat();
    if is_known(evidence) && is_known(audit) && !dirs.iter().any(|dir| is_marked(dir)) {
        return Ok(policy.clone());
    }
    Ok(gather(policy, &dirs)?.policy)
}

impl Statements {
    /// The log in this directory.
    pub fn of_dir(&self, dir: &Path) -> Option<&Introduced> {
        self.logs.iter().find(|log| log.dir == dir)
    }

    /// Keys of this log that no longer count, and from where.
    pub fn revoked_keys(&self, origin: &str) -> Vec<RevokedKey> {
        let of_log = |revoked: &&KeyRevoked| revoked.origin == origin && revoked.purpose == KeyPurpose::Log;
        let keyed = self.revoked.iter().filter(of_log);
        let key = |revoked: &KeyRevoked| {
            Some(RevokedKey { public: PublicKey::try_from(revoked.public).ok()?, from_index: revoked.from_index })
        };
        keyed.filter_map(key).collect()
    }

    /// States of this log that a witness cosigned which counts for it.
    pub fn cosigned(&self, origin: &str) -> impl Iterator<Item = &CosignedState> {
        self.cosigned.values().filter(move |state| state.checkpoint.origin == origin)
    }

    /// The largest state of this log for which the policy's quorum cosigned and that `fits`.
    pub fn newest_with_quorum(&self, origin: &str, fits: impl Fn(&Checkpoint) -> bool) -> Option<&CosignedState> {
        let enough = self.cosigned(origin).filter(|state| fits(&state.checkpoint) && self.is_quorum(state));
        enough.max_by_key(|state| state.checkpoint.size)
    }

    fn is_quorum(&self, state: &CosignedState) -> bool {
        let names: Vec<(String, u64)> = state.witnesses.iter().map(|(name, time)| (name.clone(), *time)).collect();
        self.policy.is_quorum(&names)
    }

    /// The largest state of this log that any witness cosigned.
    pub fn largest_cosigned(&self, origin: &str) -> Option<LogHead> {
        let largest = self.cosigned(origin).max_by_key(|state| state.checkpoint.size)?;
        let Checkpoint { origin, size, root } = largest.checkpoint.clone();
        Some(LogHead { origin, size, root })
    }

    /// Successions of logs of this role.
    pub fn successions(&self, role: Role) -> impl Iterator<Item = &Recorded> {
        self.recorded.iter().filter(move |entry| role_of_origin(&entry.succeeded.origin) == Some(role))
    }
}

/// A note that a log records as cosigned by its role, and where.
struct Claimed {
    role: Role,
    at: (u64, u64),
    note: String,
}

struct Gathering {
    policy: TrustPolicy,
    logs: Vec<Introduced>,
    scanned: BTreeSet<PathBuf>,
    recorded: Vec<Recorded>,
    revoked: Vec<KeyRevoked>,
    claimed: Vec<Claimed>,
    dirs: Vec<PathBuf>,
}

impl Gathering {
    fn new(policy: &TrustPolicy, dirs: &[PathBuf]) -> Result<Self, ReadError> {
        let introduced = dirs.iter().map(|dir| introduced(dir));
        let logs = introduced.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
        Ok(Gathering {
            policy: policy.clone(),
            logs,
            scanned: BTreeSet::new(),
            recorded: Vec::new(),
            revoked: Vec::new(),
            claimed: Vec::new(),
            dirs: dirs.to_vec(),
        })
    }

    /// Scans what is trusted by now; whether that taught anything.
    fn learn(&mut self) -> Result<bool, ReadError> {
        let fresh = |log: &&Introduced| !self.scanned.contains(&log.dir);
        let trusted = |log: &&Introduced| self.policy.log(&log.opened.origin).is_some();
        if let Some(log) = self.logs.iter().find(|log| fresh(log) && trusted(log)).cloned() {
            self.scanned.insert(log.dir.clone());
            self.scan(&log)?;
            self.trust_successors();
            return Ok(true);
        }
        // A successor under a key of the line itself speaks for its role; whether it is the one that the other
        // role recorded is judged apart.
        let same_key = |log: &&Introduced| {
            let before = self.logs.iter().filter(|other| precedes(&other.opened.origin, &log.opened.origin));
            let pinned = self.policy.logs().iter().filter(|key| precedes(key.name(), &log.opened.origin));
            let origins = before.map(|other| other.opened.origin.as_str()).chain(pinned.map(VerifierKey::name));
            let mut keys = origins.flat_map(|origin| self.policy.log_keys(origin));
            keys.any(|key| key.to_digest() == log.opened.log_public)
        };
        let Some(log) = self.logs.iter().filter(fresh).find(same_key) else { return Ok(false) };
        let key = named_key(&log.opened.origin, log.opened.log_public);
        self.scanned.insert(log.dir.clone());
        let log = log.clone();
        if let Some(key) = key {
            self.policy.learn_successor(key);
            self.scan(&log)?;
        }
        Ok(true)
    }

    fn trust_successors(&mut self) {
        for Recorded { succeeded, .. } in &self.recorded {
            if self.policy.log(&succeeded.old.origin).is_some()
                && let Some(key) = named_key(&succeeded.origin, succeeded.log_public)
            {
                self.policy.learn_successor(key);
            }
        }
    }

    /// Takes in what a trusted log says. A rotation, a revocation and a succession count under their own
    /// signature; a cosigned note proves itself.
    fn scan(&mut self, log: &Introduced) -> Result<(), ReadError> {
        let Introduced { dir, opened, .. } = log;
        let (origin, role) = (opened.origin.as_str(), opened.role);
        let Some(key) = self.policy.log(origin).cloned() else { return Ok(()) };
        let workspace = workspace_of_origin(origin).to_owned();
        let of_other =
            |about: &str| role_of_origin(about) == Some(role.other()) && workspace_of_origin(about) == workspace;
        let number = number_of_origin(origin).unwrap_or(1);
        let (mut recorded, mut revoked, mut claimed, mut witness_keys) = (vec![], vec![], vec![], vec![]);
        let keys = statements_in(&Files::on_disk(dir), &key, &mut |index, fields| match fields {
            Fields::LogSucceeded(succeeded) if of_other(&succeeded.origin) && follows(&succeeded) => {
                recorded.push(Recorded { place: format!("{origin}#{index}"), succeeded });
            }
            Fields::KeyRevoked(entry) if of_other(&entry.origin) => revoked.push(entry),
            Fields::CheckpointCosigned(cosigned) => {
                claimed.push(Claimed { role, at: (number, index), note: cosigned.note });
            }
            Fields::KeyRotated(rotated) if rotated.purpose == KeyPurpose::Witness => witness_keys.push(rotated.public),
            _ => {}
        })?;
        self.policy.learn_log_keys(origin, keys.spans());
        for public in witness_keys.into_iter().filter_map(|public| PublicKey::try_from(public).ok()) {
            self.policy.learn_witness_key(&workspace, role, public);
        }
        // What a successor says again is the same statement.
        for entry in recorded {
            if !self.recorded.iter().any(|known| known.succeeded == entry.succeeded) {
                self.recorded.push(entry);
            }
        }
        for entry in revoked {
            if !self.revoked.contains(&entry) {
                self.revoked.push(entry);
            }
        }
        self.claimed.extend(claimed);
        Ok(())
    }

    fn finish(mut self) -> Result<Statements, ReadError> {
        let mut cosigned = BTreeMap::new();
        for claimed in std::mem::take(&mut self.claimed) {
            let Ok(note) = Note::parse(claimed.note.as_bytes()) else { continue };
            let gone = self.revoked_witnesses(claimed.role, claimed.at);
            let proven = match gone.is_empty() {
                true => self.policy.check_signatures(note),
                false => without(&self.policy, &gone).check_signatures(note),
            };
            take_state(&mut cosigned, &self.policy, proven.ok());
        }
        let everywhere: Vec<PublicKey> = [Role::Monitor, Role::Auditor]
            .into_iter()
            .flat_map(|role| self.revoked_witnesses(role, (u64::MAX, u64::MAX)))
            .collect();
        self.policy = without(&self.policy, &everywhere);
        for revoked in self.revoked.iter().filter(|revoked| revoked.purpose == KeyPurpose::Log) {
            self.policy.discount_log_key(revoked.public);
        }
        for dir in &self.dirs {
            for note in outside_notes(dir)? {
                take_state(&mut cosigned, &self.policy, self.policy.check_signatures(note).ok());
            }
        }
        let Gathering { policy, logs, recorded, revoked, .. } = self;
        Ok(Statements { policy, logs, recorded, revoked, cosigned })
    }

    /// Witness keys of a role that no longer count at this place of its own log.
    fn revoked_witnesses(&self, role: Role, at: (u64, u64)) -> Vec<PublicKey> {
        let of_role = |revoked: &&KeyRevoked| {
            revoked.purpose == KeyPurpose::Witness
                && role_of_origin(&revoked.origin) == Some(role)
                && (number_of_origin(&revoked.origin).unwrap_or(1), revoked.from_index) <= at
        };
        self.revoked.iter().filter(of_role).filter_map(|revoked| PublicKey::try_from(revoked.public).ok()).collect()
    }
}

fn without(policy: &TrustPolicy, gone: &[PublicKey]) -> TrustPolicy {
    let mut policy = policy.clone();
    gone.iter().for_each(|key| policy.discount_witness(*key));
    policy
}

/// Adds a proven note to what is known of its state.
fn take_state(states: &mut BTreeMap<String, CosignedState>, policy: &TrustPolicy, proven: Option<CosignedCheckpoint>) {
    let Some(CosignedCheckpoint { checkpoint, witnesses, note }) = proven else { return };
    if witnesses.is_empty() && policy.wants_quorum() {
        return;
    }
    let state = states.entry(checkpoint.text()).or_insert_with(|| CosignedState {
        checkpoint,
        witnesses: BTreeMap::new(),
        note: Note::new(note.text().to_owned(), Vec::new()),
    });
    for (name, time_s) in witnesses {
        let newest = state.witnesses.entry(name).or_insert(time_s);
        *newest = time_s.max(*newest);
    }
    // One line of each key, the newest: a note has a bound, and a witness may have signed many times.
    let mut lines: Vec<NoteSignature> = state.note.signatures().to_vec();
    for line in note.signatures() {
        match lines.iter_mut().find(|known| known.name == line.name && known.key_id == line.key_id) {
            // A cosignature begins with its time, big-endian.
            Some(known) if known.bytes.get(..8) < line.bytes.get(..8) => known.bytes.clone_from(&line.bytes),
            Some(_) => {}
            None => lines.push(line.clone()),
        }
    }
    state.note = Note::new(state.note.text().to_owned(), lines);
}

/// The name under which a checkpoint of this size is kept in [`WITNESSED_DIR`].
pub fn witnessed_name(size: u64) -> String {
    format!("{size:020}")
}

/// Notes with outside cosignatures that were kept beside a log, nothing of them verified.
///
/// # Errors
/// [`ReadError`] when the directory cannot be read.
pub fn outside_notes(dir: &Path) -> Result<Vec<Note>, ReadError> {
    let files = Files::on_disk(dir);
    let kept = files.names(WITNESSED_DIR)?.into_iter().rev().take(WITNESSED_MAX);
    let paths = kept.map(|name| format!("{WITNESSED_DIR}/{name}")).chain([COSIGNED_FILE.to_owned()]);
    // One that is too large or no note proves nothing.
    let read = |path: String| files.read(&path, limits::NOTE_BYTES_MAX).ok().flatten();
    Ok(paths.filter_map(|path| Note::parse(&read(path)?).ok()).collect())
}

fn named_key(origin: &str, public: Digest) -> Option<VerifierKey> {
    VerifierKey::new(origin, KeyKind::Ed25519, PublicKey::try_from(public).ok()?).ok()
}

/// Whether an entry leads from a log to the next one of its line.
fn follows(entry: &LogSucceeded) -> bool {
    let next = number_of_origin(&entry.old.origin).and_then(|number| number.checked_add(1));
    precedes(&entry.old.origin, &entry.origin) && next == number_of_origin(&entry.origin)
}

/// How the first event introduces the log in `dir`; `None` where no such event can be read.
pub(crate) fn introduced(dir: &Path) -> Result<Option<Introduced>, ReadError> {
    let files = Files::on_disk(dir);
    let Some(file) = files.open(&segment_path(0))? else { return Ok(None) };
    let mut cursor = Cursor::new(file, 0);
    while let Ok(Some(frame)) = cursor.next() {
        let Frame::Event { signed, .. } = frame else { continue };
        let Ok((_, Some(Fields::LogOpened(opened)))) = Event::decode(&signed.body) else { return Ok(None) };
        let in_order =
            role_of_origin(&opened.origin) == Some(opened.role) && number_of_origin(&opened.origin).is_some();
        let hash = signed.event_hash();
        return Ok(in_order.then(|| Introduced { dir: dir.to_owned(), opened, hash }));
    }
    Ok(None)
}

/// Hands every statement about logs and keys to `take`, in log order, with its index; gives the keys.
/// Statements that bind by their signature are verified; damage is passed over.
pub(crate) fn statements_in(
    files: &Files,
    key: &VerifierKey,
    take: &mut dyn FnMut(u64, Fields),
) -> Result<KeyHistory, ReadError> {
    let mut keys = KeyHistory::pinned(key.public());
    for first in segment_indices(&files.names("segments")?) {
        let Some(file) = files.open(&segment_path(first))? else { continue };
        let mut cursor = Cursor::new(file, first);
        while let Ok(Some(frame)) = cursor.next() {
            let Frame::Event { signed, .. } = frame else { continue };
            if let Some((index, fields)) = statement(signed, key.name(), &mut keys) {
                take(index, fields);
            }
        }
    }
    Ok(keys)
}

fn statement(signed: SignedEvent, origin: &str, keys: &mut KeyHistory) -> Option<(u64, Fields)> {
    match peek_kind(&signed.body)? {
        KIND_COSIGNED => {
            let (event, fields) = Event::decode(&signed.body).ok()?;
            Some((event.index, fields?))
        }
        KIND_ROTATED | KIND_REVOKED | KIND_SUCCEEDED => {
            let trust = EventTrust { origin, keys };
            let record = Unverified::new(signed).verify(&trust).ok()?;
            keys.observe(&record);
            let record = record.into_inner();
            Some((record.event.index, record.fields?))
        }
        _ => None,
    }
}
