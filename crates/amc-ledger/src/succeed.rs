//! Ending a log that cannot go on, and beginning the next one of its line beside it.
//!
//! The role that writes the log *begins* the successor, whose first event names the old log's newest
//! signed state; the other role looks for itself whether the old log had to end, and *records* the
//! successor in its own log. Nothing is moved, overwritten or deleted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use amc_core::kinds::{Fields, LogHead, LogOpened, LogSucceeded, Role};
use amc_core::{Clock, Digest, Finding, FindingCode, SOFTWARE, Tier};
use amc_crypto::policy::{number_of_origin, role_of_origin, workspace_of_origin};
use amc_crypto::{Checkpoint, Note, PublicKey, Unverified, VerifierKey};
use amc_evidence::event::peek_kind;
use amc_evidence::{Draft, EventTrust, KeyHistory};

use crate::error::{AppendError, OpenError, ReadError};
use crate::line::{Introduced, Statements, introduced};
use crate::pair::{PairOptions, verify_known};
use crate::reader::LogReader;
use crate::storage::Files;
use crate::verify::VerifyMode;
use crate::writer::{Signers, Writer, create};
use crate::{frame, recovery};

/// Why no log was succeeded, or no succession recorded.
#[derive(Debug, thiserror::Error)]
pub enum SucceedError {
    /// Nothing is wrong with the log.
    #[error("{origin} is whole and its key was not revoked, so there is nothing to succeed; go on with it")]
    Healthy {
        /// The log.
        origin: String,
    },
    /// The key at hand is the one that was revoked.
    #[error(
        "the key at hand was revoked, so it cannot begin the next log; make a new one first: amc vault rotate-keys"
    )]
    SameKey,
    /// The trust policy does not lead to this log.
    #[error("nobody vouches for the log in {}: neither the trust policy nor a record of the other role leads to it", .0.display())]
    Untrusted(PathBuf),
    /// The successor does not fit what is known of the old log.
    #[error("the successor is not recorded: {0}")]
    Unfit(String),
    /// The log could not be opened or created.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The entry was not recorded.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// A log that has to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The newest state of it that is known to have been signed.
    pub old: LogHead,
    /// Events that can still be read.
    pub readable: u64,
    /// Why.
    pub finding: Finding,
}

/// Whether the log in `dir`, whose first key is `key`, has to end; looks only.
///
/// # Errors
/// [`SucceedError::Healthy`] when it does not have to, [`SucceedError::Read`] when it cannot be looked at.
pub fn examine(dir: &Path, key: &VerifierKey, statements: &Statements) -> Result<Ending, SucceedError> {
    let options = PairOptions { policy: &statements.policy, mode: VerifyMode::Full, brought: &[], progress: None };
    let origin = key.name().to_owned();
    let cosigned = statements.largest_cosigned(&origin);
    let report = match verify_known(dir, key, statements, &options, &mut |_| {}) {
        Ok(report) => report,
        Err(ReadError::Absent(_)) => {
            let finding = Finding::error(FindingCode::LedgerTruncated, &origin, "the log is gone");
            let old = cosigned.ok_or(SucceedError::Untrusted(dir.to_owned()))?;
            return Ok(Ending { old, readable: 0, finding });
        }
        Err(ReadError::Damaged(finding)) => {
            let old = cosigned.ok_or(SucceedError::Untrusted(dir.to_owned()))?;
            return Ok(Ending { old, readable: 0, finding });
        }
        Err(error) => return Err(error.into()),
    };
    let published = LogReader::open(dir).ok().filter(|log| log.checkpoint().origin == origin);
    let signed = |log: &LogReader| statements.policy.check_signatures(log.latest_checkpoint().clone()).is_ok();
    let published = published.filter(signed).map(|log| {
        let Checkpoint { origin, size, root } = log.checkpoint().clone();
        LogHead { origin, size, root }
    });
    let borne_out = report.checkpoint.is_some().then(|| report.head.clone());
    let states = [borne_out, published, cosigned].into_iter().flatten();
    let old = states.reduce(|largest, state| if state.size > largest.size { state } else { largest });
    let old = old.ok_or_else(|| SucceedError::Untrusted(dir.to_owned()))?;
    let newest = report.keys.newest();
    let revoked = statements.revoked_keys(&origin).iter().any(|revoked| revoked.public == newest);
    let finding = match report.findings.iter().find(|finding| finding.is_error()) {
        _ if revoked => Finding::error(FindingCode::KeyRevoked, &origin, "the key that signs this log was revoked"),
        Some(finding) => finding.clone(),
        None => return Err(SucceedError::Healthy { origin }),
    };
    Ok(Ending { old, readable: report.events, finding })
}

/// The newest log of a line and the one that comes after it: `(old, new)`, by number and directory. A
/// successor that the other role has not recorded yet is still the new one, so that a call that broke off
/// is gone on with.
pub fn next_of(newest: &Path, role: Role, statements: &Statements) -> Option<[(u32, PathBuf); 2]> {
    let number = role.log_number(newest.file_name()?.to_str()?)?;
    let recorded = statements
        .of_dir(newest)
        .is_some_and(|log| statements.successions(role).any(|entry| entry.succeeded.origin == log.opened.origin));
    let old = if number > 1 && !recorded { number - 1 } else { number };
    let dir = |number| newest.with_file_name(role.log_dir(number));
    Some([(old, dir(old)), (old + 1, dir(old + 1))])
}

/// A successor that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// Its directory.
    pub dir: PathBuf,
    /// Its origin.
    pub origin: String,
    /// The key that signs it from its first event on.
    pub key: VerifierKey,
    /// The first event's hash.
    pub opening: Digest,
    /// The state of the old log that it names.
    pub old: LogHead,
}

/// Begins the successor of the log in `old_dir` in `new_dir`, and says again in it what the old log said
/// about the other role and, for an auditor, about configurations. Goes on where an earlier call broke
/// off.
///
/// # Errors
/// [`SucceedError`]; a successor that was begun stays and is gone on with by the next call.
pub fn begin(
    (old_dir, old_key): (&Path, &VerifierKey),
    new_dir: &Path,
    statements: &Statements,
    (signers, witness_public): (&Signers, PublicKey),
    clock: Arc<dyn Clock>,
) -> Result<Begun, SucceedError> {
    let role = role_of_origin(old_key.name()).ok_or_else(|| SucceedError::Untrusted(old_dir.to_owned()))?;
    let key = signers.checkpoint.verifier_key();
    if introduced(new_dir)?.is_none() {
        let ending = examine_locked(old_dir, old_key, statements)?;
        if ending.finding.code == FindingCode::KeyRevoked
            && statements.revoked_keys(old_key.name()).iter().any(|revoked| revoked.public == key.public())
        {
            return Err(SucceedError::SameKey);
        }
        let opened = LogOpened {
            origin: key.name().to_owned(),
            role,
            log_public: key.public().to_digest(),
            witness_public: witness_public.to_digest(),
            software: SOFTWARE.to_owned(),
            predecessor: Some(ending.old),
        };
        create(new_dir, opened, signers, &*clock)?;
    }
    let begun = introduced(new_dir)?.ok_or_else(|| SucceedError::Untrusted(new_dir.to_owned()))?;
    restate(old_dir, old_key, new_dir, signers, clock)?;
    let Introduced { opened, hash, .. } = begun;
    let old = opened.predecessor.ok_or_else(|| SucceedError::Untrusted(new_dir.to_owned()))?;
    Ok(Begun { dir: new_dir.to_owned(), origin: opened.origin, key, opening: hash, old })
}

/// As [`examine`], with nobody writing the log meanwhile.
fn examine_locked(dir: &Path, key: &VerifierKey, statements: &Statements) -> Result<Ending, SucceedError> {
    let files = Files::on_disk(dir);
    let lock = if dir.is_dir() { Some(recovery::lock(&files)?) } else { None };
    let ending = examine(dir, key, statements);
    drop(lock);
    ending
}

/// What the old log said that its successor must know: the newest states that this role cosigned, what
/// it recorded of the other role's keys and logs, the newest version of every configuration.
fn restate(
    old_dir: &Path,
    old_key: &VerifierKey,
    new_dir: &Path,
    signers: &Signers,
    clock: Arc<dyn Clock>,
) -> Result<(), SucceedError> {
    let wanted = restated(&Files::on_disk(old_dir), old_key)?;
    let there = restated(&Files::on_disk(new_dir), &signers.checkpoint.verifier_key())?;
    let writer = Writer::open(new_dir, signers.clone(), clock)?;
    for fields in wanted.into_iter().filter(|fields| !there.contains(fields)) {
        writer.append(Draft::new(Tier::Observed, fields), None)?;
    }
    writer.close()?;
    Ok(())
}

/// Kinds that are looked at: rotations for the keys; then cosigned states, revocations, successions; then what the
/// auditor decided and others rely on: configurations, attestations, boundary epochs, certificates. Runs stay with the
/// log that they were scored over.
const RESTATED: [u16; 9] = [2, 6, 7, 8, 300, 302, 303, 320, 321];

/// A key that tells two statements of one kind apart, where only the newest counts.
type Subject = (u16, String);

fn restated(files: &Files, key: &VerifierKey) -> Result<Vec<Fields>, ReadError> {
    let mut keys = KeyHistory::pinned(key.public());
    let (mut newest, mut all): (BTreeMap<Subject, Fields>, Vec<Fields>) = (BTreeMap::new(), Vec::new());
    for first in frame::segment_indices(&files.names("segments")?) {
        let Some(file) = files.open(&frame::segment_path(first))? else { continue };
        let mut cursor = frame::Cursor::new(file, first);
        while let Ok(Some(frame)) = cursor.next() {
            let frame::Frame::Event { signed, .. } = frame else { continue };
            if !peek_kind(&signed.body).is_some_and(|kind| RESTATED.contains(&kind)) {
                continue;
            }
            let trust = EventTrust { origin: key.name(), keys: &keys };
            let Ok(record) = Unverified::new(signed).verify(&trust) else { continue };
            keys.observe(&record);
            let record = record.into_inner();
            let kind = record.event.kind;
            match record.fields {
                Some(
                    fields @ (Fields::KeyRevoked(_)
                    | Fields::LogSucceeded(_)
                    | Fields::Attested(_)
                    | Fields::BoundaryEpoch(_)
                    | Fields::CertificateIssued(_)
                    | Fields::CertificateRevoked(_)),
                ) if !all.contains(&fields) => all.push(fields),
                Some(Fields::CheckpointCosigned(cosigned)) => {
                    newest.insert((kind, cosigned.head.origin.clone()), cosigned.into());
                }
                Some(Fields::ConfigSigned(signed)) => {
                    newest.insert((kind, signed.path.clone()), signed.into());
                }
                _ => {}
            }
        }
    }
    all.extend(newest.into_values());
    Ok(all)
}

/// Records in `own` log that the log in `new_dir` succeeds the other role's log in `old_dir`, after
/// looking at both: the old one has to end, and no earlier than this role cosigned it; the new one is
/// signed by a key of the old one that still counts, or by `expected`, which a person compared.
///
/// # Errors
/// [`SucceedError`]; nothing is recorded then.
pub fn record(
    own: &Writer,
    (old_dir, new_dir): (&Path, &Path),
    statements: &Statements,
    expected: Option<&VerifierKey>,
) -> Result<LogSucceeded, SucceedError> {
    let unfit = |what: String| SucceedError::Unfit(what);
    let Introduced { opened, hash, .. } =
        introduced(new_dir)?.ok_or_else(|| SucceedError::Untrusted(new_dir.to_owned()))?;
    let old = opened.predecessor.clone().ok_or_else(|| unfit(format!("{} names no predecessor", opened.origin)))?;
    let old_key = statements.policy.log(&old.origin).ok_or_else(|| SucceedError::Untrusted(old_dir.to_owned()))?;
    let follows = number_of_origin(&old.origin).and_then(|number| number.checked_add(1))
        == number_of_origin(&opened.origin)
        && role_of_origin(&old.origin) == role_of_origin(&opened.origin)
        && workspace_of_origin(&old.origin) == workspace_of_origin(&opened.origin);
    if !follows {
        return Err(unfit(format!("{} does not come after {}", opened.origin, old.origin)));
    }
    let known = statements.recorded.iter().find(|entry| entry.succeeded.old.origin == old.origin);
    if let Some(entry) = known {
        let same = entry.succeeded.opening == hash && entry.succeeded.log_public == opened.log_public;
        return match same {
            true => Ok(entry.succeeded.clone()),
            false => Err(unfit(format!("{} has a successor already ({})", old.origin, entry.place))),
        };
    }
    let key = PublicKey::try_from(opened.log_public).map_err(|error| unfit(error.to_string()))?;
    let revoked = statements.revoked_keys(&old.origin);
    let of_old = statements.policy.log_keys(&old.origin).contains(&key) && !revoked.iter().any(|r| r.public == key);
    let named = expected.is_some_and(|expected| expected.name() == opened.origin && expected.public() == key);
    if !of_old && !named {
        return Err(unfit(format!(
            "{} is signed by another key than {}; compare it with its owner and name it with --key",
            opened.origin, old.origin
        )));
    }
    let ending = examine(old_dir, old_key, statements)?;
    if ending.old.size > old.size || (ending.old.size == old.size && ending.old.root != old.root) {
        let what = format!(
            "it says that {} ended at size {}, and a state of size {} was signed",
            old.origin, old.size, ending.old.size
        );
        return Err(unfit(what));
    }
    check_opening(new_dir, &opened, &key)?;
    let Finding { code, message, .. } = ending.finding;
    let succeeded = LogSucceeded {
        old,
        origin: opened.origin,
        log_public: opened.log_public,
        opening: hash,
        code: code.as_str().to_owned(),
        reason: message,
    };
    own.append(Draft::new(Tier::Observed, succeeded.clone()), None)?;
    Ok(succeeded)
}

/// The new log's first event and published checkpoint are signed by its key.
fn check_opening(dir: &Path, opened: &LogOpened, key: &PublicKey) -> Result<(), SucceedError> {
    let unfit = |what: &str| SucceedError::Unfit(format!("{}: {what}", opened.origin));
    let log = LogReader::open(dir)?;
    let first = log.event(0)?.ok_or_else(|| unfit("it is empty"))?;
    let keys = KeyHistory::pinned(*key);
    let trust = EventTrust { origin: &opened.origin, keys: &keys };
    Unverified::new(first.signed).verify(&trust).map_err(|error| unfit(&error.to_string()))?;
    let verifier = VerifierKey::new(&opened.origin, amc_crypto::note::KeyKind::Ed25519, *key);
    let verifier = verifier.map_err(|error| unfit(&error.to_string()))?;
    let note: &Note = log.latest_checkpoint();
    note.verify_signature(&verifier).map_err(|error| unfit(&error.to_string()))?;
    Ok(())
}
