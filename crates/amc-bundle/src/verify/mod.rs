//! Verifying a bundle: one pass from front to back, under pinned keys alone.
//!
//! The manifest comes first and must be signed by a pinned auditor, or by the key that the audit log of
//! a pinned issuer names as the next one; so everything after the audit log is read as what that auditor
//! signed: by name, size and digest, in the archive's order. Events are
//! verified as they pass and dropped; payloads are unpacked, hashed and dropped. At the end the pieces
//! are held against each other and the score is recomputed from the events, which are read again for
//! that and must be the same bytes. Nothing is written, no clock is read, and the trust policy inside
//! the bundle is not looked at.

mod again;
mod configs;
mod content;
mod line;
mod logs;
mod score;
mod sessions;

use std::io::{self, Read, Seek};

use amc_core::kinds::Role;
use amc_core::timestamp::{NS_PER_S, to_rfc3339};
use amc_core::{AgentId, Digest, Finding, FindingCode, RunId, limits};
use amc_crypto::dsse::EnvelopeError;
use amc_crypto::hash::BodyHasher;
use amc_crypto::{PublicKey, TrustPolicy, policy as trust};
use amc_evidence::VerifiedEvent;
use amc_scoring::{Label, Report, Status};
use serde::Serialize;

use crate::archive::{ArchiveError, ArchiveReader, MemberHeader};
use crate::error::VerifyError;
use crate::manifest::{Listed, Manifest, ManifestError, Payloads};
use crate::{member, records};
use content::Content;
#[cfg(test)]
pub(crate) use score::level5_not_observed;

/// Bytes of a report: some hundred questions with their events fit many times over.
pub const REPORT_BYTES_MAX: u64 = 16 << 20;
/// Bytes of a page made from a report.
const PAGE_BYTES_MAX: u64 = 64 << 20;
/// Bytes of all members together that are kept in memory, events and proofs not counted.
const KEPT_BYTES_MAX: u64 = 64 << 20;

/// A time of an artifact may lie this much ahead of the reader's clock.
pub(crate) const CLOCK_SKEW_NS: i64 = 300 * NS_PER_S;

/// Who signed a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Issuer {
    /// Origin of the audit log under which the key is pinned; `None` when it is not pinned.
    pub origin: Option<String>,
    /// Key id of in-toto: SHA-256 of the key's canonical JSON, in hex. For an issuer that is not
    /// pinned this is only what the bundle says.
    pub fingerprint: String,
}

/// One log's side of a verified bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogCoverage {
    /// The log's origin.
    pub origin: String,
    /// Size of the checkpoint.
    pub size: u64,
    /// Events that the bundle carries.
    pub events: u64,
    /// Pinned witnesses that count for this log and cosigned, with the time in seconds since the
    /// epoch.
    pub witnesses: Vec<(String, u64)>,
}

/// A bundle that verified: it exists only where [`verify`] found no error.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifiedBundle {
    /// The report, recomputed byte for byte.
    pub report: Report,
    /// Who signed it.
    pub issuer: Issuer,
    /// The evidence log.
    pub evidence: LogCoverage,
    /// The audit log.
    pub audit: LogCoverage,
    /// When the run was recorded, nanoseconds since the epoch: as its entry says, and no later than
    /// the newest cosignature of the audit log's checkpoint.
    pub recorded_ns: i64,
    /// Ids of questions at level 5 that do not rest on OBSERVED-class events alone.
    pub level5_not_observed: Vec<String>,
    /// Whether payloads travel along.
    pub payloads: Payloads,
    /// Payloads that events name and the issuer no longer has.
    pub payloads_absent: usize,
    /// The key that signed it.
    pub key: PublicKey,
    /// Keys of the auditor that the monitor's log revokes: what they signed outside of a log counts nowhere.
    pub revoked: Vec<Digest>,
    /// `certificate.dsse.json`, where it is there; not looked at here.
    pub certificate: Option<Vec<u8>>,
}

impl VerifiedBundle {
    /// What is wrong when each log's checkpoint must have been cosigned at most `max_age_s` seconds before
    /// `now_ns`: a bundle without fresh cosignatures may be of a history that was given up since.
    pub fn stale(&self, max_age_s: u64, now_ns: i64) -> Vec<Finding> {
        let most_ns = i64::try_from(max_age_s).unwrap_or(i64::MAX).saturating_mul(NS_PER_S);
        let logs = [(&self.evidence, member::EVIDENCE_CHECKPOINT), (&self.audit, member::AUDIT_CHECKPOINT)];
        let wrong = |(log, name): (&LogCoverage, &str)| {
            let newest = log.witnesses.iter().map(|(_, time_s)| *time_s).max();
            let Some(time_s) = newest.and_then(|time_s| i64::try_from(time_s).ok()) else {
                let what = "no pinned witness cosigned it, so nothing says how old it is";
                return Some(Finding::error(FindingCode::CheckpointInvalid, name, what));
            };
            let cosigned_ns = time_s.saturating_mul(NS_PER_S);
            let when = to_rfc3339(cosigned_ns);
            let age_ns = now_ns.saturating_sub(cosigned_ns);
            let what = if age_ns < -CLOCK_SKEW_NS {
                format!("it was cosigned at {when}, which is in the future; is this machine's clock right?")
            } else if age_ns > most_ns {
                format!("it was last cosigned at {when}, longer ago than {max_age_s} seconds; ask for a newer one")
            } else {
                return None;
            };
            Some(Finding::error(FindingCode::CheckpointInvalid, name, what))
        };
        logs.into_iter().filter_map(wrong).collect()
    }
}

/// What verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleVerdict {
    /// Everything found, in the order of reading.
    pub findings: Vec<Finding>,
    /// Who signed, as far as it is known.
    pub issuer: Option<Issuer>,
    bundle: Option<VerifiedBundle>,
}

/// The `data` of `amc --json bundle verify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerdictData {
    /// The run.
    pub run_id: Option<RunId>,
    /// The agent.
    pub agent_id: Option<AgentId>,
    /// The run's status.
    pub status: Option<Status>,
    /// The trust label.
    pub label: Option<Label>,
    /// Overall value, in basis points of a level.
    pub overall_bp: Option<u32>,
    /// IntegrityIndex, in basis points.
    pub integrity_bp: Option<u32>,
    /// Evidence events in the bundle.
    pub events: Option<u64>,
    /// Who signed.
    pub issuer: Option<Issuer>,
}

impl BundleVerdict {
    /// The bundle, when it verified.
    pub const fn bundle(&self) -> Option<&VerifiedBundle> {
        self.bundle.as_ref()
    }

    /// Whether the bundle is authentic and its score recomputes. What the score says is not judged.
    pub const fn is_good(&self) -> bool {
        self.bundle.is_some()
    }

    /// The first error, when there is one.
    pub fn first_error(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.is_error())
    }

    /// A verdict on a bundle that nobody read, for tests of what comes after.
    #[cfg(test)]
    pub(crate) const fn assumed(bundle: VerifiedBundle) -> Self {
        BundleVerdict { findings: Vec::new(), issuer: None, bundle: Some(bundle) }
    }

    /// What scripts lean on; of a bundle that did not verify only the issuer.
    pub fn data(&self) -> VerdictData {
        let report = self.bundle().map(|bundle| &bundle.report);
        VerdictData {
            run_id: report.map(|report| report.run_id.clone()),
            agent_id: report.map(|report| report.agent.clone()),
            status: report.map(|report| report.status),
            label: report.map(|report| report.label),
            overall_bp: report.map(|report| report.overall_bp),
            integrity_bp: report.map(|report| report.integrity_bp),
            events: self.bundle().map(|bundle| bundle.evidence.events),
            issuer: self.issuer.clone(),
        }
    }
}

/// Reads and verifies a bundle under the keys that `policy` pins.
///
/// # Errors
/// [`VerifyError`] when the bytes cannot be read. Whatever is wrong with them is a finding.
pub fn verify(source: impl Read + Seek, policy: &TrustPolicy) -> Result<BundleVerdict, VerifyError> {
    verify_and_find(source, policy, |_| false).map(|(verdict, _)| verdict)
}

/// The same, and the first evidence event that `wanted` says yes to, where the bundle verified. It is
/// decoded; its bytes are not kept.
///
/// # Errors
/// [`VerifyError`] when the bytes cannot be read.
pub fn verify_and_find(
    mut source: impl Read + Seek,
    policy: &TrustPolicy,
    wanted: impl Fn(&VerifiedEvent) -> bool,
) -> Result<(BundleVerdict, Option<VerifiedEvent>), VerifyError> {
    let begins = source.stream_position().map_err(|source| VerifyError::Read { offset: 0, source })?;
    let mut found: Option<VerifiedEvent> = None;
    let mut verdict = BundleVerdict { findings: Vec::new(), issuer: None, bundle: None };
    let mut look = |event: &VerifiedEvent| {
        if found.is_none() && wanted(event) {
            found = Some(event.clone());
        }
    };
    match read(source, begins, policy, &mut look, &mut verdict) {
        Ok((content, source)) => {
            let bundle = content.judge(source, &mut verdict.findings)?;
            verdict.bundle = bundle.filter(|_| verdict.first_error().is_none());
        }
        Err(Halt::Finding(finding)) => verdict.findings.push(finding),
        Err(Halt::Read(error)) => return Err(error),
    }
    let found = found.filter(|_| verdict.is_good());
    Ok((verdict, found))
}

/// What ends the reading: a defect after which nothing more can be said, or a failure to read.
enum Halt {
    Finding(Finding),
    Read(VerifyError),
}

impl Halt {
    fn new(code: FindingCode, subject: &str, message: impl Into<String>) -> Self {
        Halt::Finding(Finding::error(code, subject, message))
    }
}

impl From<ArchiveError> for Halt {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Read { offset, source } => Halt::Read(VerifyError::Read { offset, source }),
            other => Halt::new(FindingCode::BundleMalformed, "bundle", other.to_string()),
        }
    }
}

/// Reads all of it; `begins`: where the file begins in the source.
fn read<R: Read>(
    source: R,
    begins: u64,
    policy: &TrustPolicy,
    look: &mut dyn FnMut(&VerifiedEvent),
    verdict: &mut BundleVerdict,
) -> Result<(Content, R), Halt> {
    let mut archive = ArchiveReader::new(source);
    let (manifest, signer) = read_manifest(&mut archive, policy, verdict)?;
    let mut content = Content::new(manifest, signer.key(), policy)?;
    let mut members = content.manifest.members.clone().into_iter();
    let mut kept = 0;
    if let Signer::Unknown { manifest, untrusted } = signer {
        // The audit log comes first; nothing else is read before it has named the key that signed the manifest.
        let (mut found, mut read, mut at_audit) = (Vec::new(), Ok(()), false);
        while !at_audit
            && read.is_ok()
            && let Some(listed) = members.next()
        {
            read = read_listed(
                &mut archive,
                &listed,
                &mut Reading { content: &mut content, begins, look: &mut *look, kept: &mut kept },
                &mut found,
            );
            at_audit = listed.entry.name.as_str() >= member::AUDIT_EVENTS;
        }
        match (read, content.issuer_by_history(&manifest)) {
            (Ok(()), Some(key)) if !found.iter().any(Finding::is_error) => {
                content.set_issuer(key);
                let origin = Some(content.manifest.predicate.issuer.clone());
                verdict.issuer = Some(Issuer { origin, fingerprint: key.dsse_key_id() });
                verdict.findings.append(&mut found);
            }
            (Err(Halt::Read(error)), _) => return Err(Halt::Read(error)),
            _ => return Err(untrusted),
        }
    }
    for listed in members {
        let reading = &mut Reading { content: &mut content, begins, look: &mut *look, kept: &mut kept };
        read_listed(&mut archive, &listed, reading, &mut verdict.findings)?;
    }
    match archive.next_member()? {
        None => Ok((content, archive.into_inner())),
        Some(header) => Err(unexpected(&header.name)),
    }
}

/// What the members go into.
struct Reading<'r> {
    content: &'r mut Content,
    /// Where the file begins in the source.
    begins: u64,
    /// Sees every evidence event.
    look: &'r mut dyn FnMut(&VerifiedEvent),
    /// Bytes that are kept in memory so far.
    kept: &'r mut u64,
}

fn read_listed<R: Read>(
    archive: &mut ArchiveReader<R>,
    listed: &Listed,
    reading: &mut Reading<'_>,
    findings: &mut Vec<Finding>,
) -> Result<(), Halt> {
    let header = archive.next_member()?.ok_or_else(|| missing(&listed.entry.name))?;
    check_listed(listed, &header)?;
    read_member(archive, &header, listed, reading, findings)
}

/// Who signed the manifest.
enum Signer {
    /// A pinned auditor.
    Pinned(PublicKey),
    /// Nobody that is pinned; it names a pinned issuer, whose audit log may have another key by now.
    Unknown { manifest: Vec<u8>, untrusted: Halt },
}

impl Signer {
    const fn key(&self) -> Option<PublicKey> {
        match self {
            Signer::Pinned(key) => Some(*key),
            Signer::Unknown { .. } => None,
        }
    }
}

fn missing(name: &str) -> Halt {
    Halt::new(FindingCode::BundleMemberMismatch, name, "the manifest names this member and it is not there")
}

fn unexpected(name: &str) -> Halt {
    Halt::new(FindingCode::BundleMemberUnexpected, name, "the manifest does not name this member")
}

/// Archive and manifest are in one order, so the next member is the next listed one or a defect.
fn check_listed(listed: &Listed, header: &MemberHeader) -> Result<(), Halt> {
    let wanted = &listed.entry;
    match header.name.cmp(&wanted.name) {
        std::cmp::Ordering::Less => return Err(unexpected(&header.name)),
        std::cmp::Ordering::Greater => return Err(missing(&wanted.name)),
        std::cmp::Ordering::Equal => {}
    }
    if header.size != wanted.size {
        let what = format!("it has {} bytes and the manifest says {}", header.size, wanted.size);
        return Err(Halt::new(FindingCode::BundleMemberMismatch, &wanted.name, what));
    }
    Ok(())
}

/// The pinned auditors: origin and key.
fn auditors(policy: &TrustPolicy) -> Vec<(String, PublicKey)> {
    let audit = policy.logs().iter().filter(|log| trust::role_of_origin(log.name()) == Some(Role::Auditor));
    audit.map(|log| (log.name().to_owned(), log.public())).collect()
}

fn read_manifest<R: Read>(
    archive: &mut ArchiveReader<R>,
    policy: &TrustPolicy,
    verdict: &mut BundleVerdict,
) -> Result<(Manifest, Signer), Halt> {
    let header = archive.next_member()?.expect("an archive without members is an error of the reader");
    let bytes = archive.read_member(&header, limits::ENVELOPE_BYTES_MAX as u64)?;
    let auditors = auditors(policy);
    let keys: Vec<PublicKey> = auditors.iter().map(|(_, key)| *key).collect();
    match Manifest::verify(&bytes, &keys) {
        Ok((manifest, key)) => {
            let origin = auditors.into_iter().find(|(_, pinned)| *pinned == key).map(|(origin, _)| origin);
            verdict.issuer = Some(Issuer { origin, fingerprint: key.dsse_key_id() });
            Ok((manifest, Signer::Pinned(key)))
        }
        Err(error @ ManifestError::Envelope(EnvelopeError::Untrusted { .. })) => {
            let untrusted = manifest_halt(error, verdict);
            let Ok((manifest, _)) = Manifest::peek(&bytes) else { return Err(untrusted) };
            match auditors.iter().any(|(origin, _)| *origin == manifest.predicate.issuer) {
                true => Ok((manifest, Signer::Unknown { manifest: bytes, untrusted })),
                false => Err(untrusted),
            }
        }
        Err(error) => Err(manifest_halt(error, verdict)),
    }
}

fn manifest_halt(error: ManifestError, verdict: &mut BundleVerdict) -> Halt {
    match error {
        ManifestError::Envelope(EnvelopeError::Untrusted { keyid }) => {
            let what = format!(
                "no pinned auditor signed this bundle; it names the key {keyid}. If you know the issuer, get its trust \
                 policy from the issuer by another way than this file, compare this fingerprint, and pin it: name that \
                 policy with --trust FILE or AMC_TRUST, or keep it as ~/.config/amc/trust.policy"
            );
            verdict.issuer = Some(Issuer { origin: None, fingerprint: keyid });
            Halt::new(FindingCode::IssuerUntrusted, member::MANIFEST, what)
        }
        ManifestError::Envelope(EnvelopeError::BadSignature { keyid }) => {
            let what = format!("it was changed after the pinned key {keyid} signed it");
            Halt::new(FindingCode::BundleMemberMismatch, member::MANIFEST, what)
        }
        other => Halt::new(FindingCode::BundleMalformed, member::MANIFEST, other.to_string()),
    }
}

fn read_member<R: Read>(
    archive: &mut ArchiveReader<R>,
    header: &MemberHeader,
    listed: &Listed,
    reading: &mut Reading<'_>,
    findings: &mut Vec<Finding>,
) -> Result<(), Halt> {
    let Reading { content, begins, look, kept } = reading;
    let at = (*begins + header.offset + crate::archive::BLOCK_BYTES as u64, header.size);
    let mut hashed = Hashed { inner: archive, hasher: BodyHasher::new() };
    // What is found in a member only counts when the member is the listed one.
    let mut found = Vec::new();
    let outcome = match header.name.as_str() {
        member::EVIDENCE_EVENTS => content.read_evidence(&mut hashed, at, *look, &mut found),
        member::AUDIT_EVENTS => content.read_audit(&mut hashed, &mut found),
        member::EVIDENCE_PAYLOADS => content.read_payloads(&mut hashed, listed, &mut found),
        member::REPORT_HTML | member::REPORT_MD => bound(header, PAGE_BYTES_MAX),
        name => {
            **kept += if matches!(name, member::AUDIT_PROOF | member::EVIDENCE_PROOF) { 0 } else { header.size };
            bound(header, kept_max(name, **kept)).and_then(|()| {
                let mut bytes = Vec::new();
                hashed.read_to_end(&mut bytes).map_err(Stop::Read)?;
                content.files.insert(name.to_owned(), bytes);
                Ok(())
            })
        }
    };
    let read = |source: io::Error, offset: u64| Halt::Read(VerifyError::Read { offset, source });
    if let Err(Stop::Read(error)) = outcome {
        return Err(read(error, hashed.inner.offset()));
    }
    if let Err(error) = io::copy(&mut hashed, &mut io::sink()) {
        return Err(read(error, hashed.inner.offset()));
    }
    let (sha256, len) = hashed.hasher.finish();
    if len != header.size {
        let what =
            format!("byte {}: the file ends inside {}; it was cut off, fetch it again", archive.offset(), header.name);
        return Err(Halt::new(FindingCode::BundleMalformed, "bundle", what));
    }
    if sha256 != listed.sha256 {
        let what = format!(
            "its bytes (from byte {} of the file) hash to {sha256} and the manifest says {}; they were changed",
            header.offset + crate::archive::BLOCK_BYTES as u64,
            listed.sha256
        );
        return Err(Halt::new(FindingCode::BundleMemberMismatch, &header.name, what));
    }
    findings.append(&mut found);
    match outcome {
        Ok(()) => Ok(()),
        Err(Stop::Finding(finding)) => Err(Halt::Finding(finding)),
        Err(Stop::Read(_)) => unreachable!("returned above"),
    }
}

/// What ends the reading of one member.
enum Stop {
    Finding(Finding),
    Read(io::Error),
}

impl Stop {
    fn malformed(name: &str, message: impl Into<String>) -> Self {
        Stop::Finding(Finding::error(FindingCode::BundleMalformed, name, message))
    }
}

fn bound(header: &MemberHeader, max: u64) -> Result<(), Stop> {
    if header.size > max {
        let what = format!("it has {} bytes, more than the {max} that a reader grants it", header.size);
        return Err(Stop::malformed(&header.name, what));
    }
    Ok(())
}

/// How large a member that is kept in memory may be, with `kept` bytes kept, this one included.
fn kept_max(name: &str, kept: u64) -> u64 {
    match name {
        _ if kept > KEPT_BYTES_MAX => 0,
        member::AUDIT_CHECKPOINT | member::EVIDENCE_CHECKPOINT => limits::NOTE_BYTES_MAX as u64,
        member::AUDIT_PROOF | member::EVIDENCE_PROOF => records::PROOF_BYTES_MAX,
        member::REPORT_JSON => REPORT_BYTES_MAX,
        _ if name.ends_with(".sig") || name == member::SEAL || name == member::CERTIFICATE => {
            limits::ENVELOPE_BYTES_MAX as u64
        }
        _ => limits::CONFIG_BYTES_MAX as u64,
    }
}

/// Reads a member and hashes what passes.
struct Hashed<'a, R> {
    inner: &'a mut ArchiveReader<R>,
    hasher: BodyHasher,
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}
