//! Writing a bundle: which events, which files, one multiproof per log, and a signed manifest.
//!
//! The caller has verified what it passes in (events are [`VerifiedEvent`]s). What is chosen from
//! them is what [`amc_scoring`] says that it reads, no event more.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, Read, Seek, SeekFrom, Write};

use amc_core::Digest;
use amc_core::kinds::{Fields, LogHead};
use amc_crypto::dsse::Envelope;
use amc_crypto::hash::BodyHasher;
use amc_crypto::merkle::{HashReader, multiproof, verify_multiproof};
use amc_crypto::signer::StatementSigner;
use amc_crypto::{Checkpoint, Note};
use amc_evidence::VerifiedEvent;
use amc_scoring::{EvidenceSource, Report, Selector, SourceError, render};

use crate::archive::ArchiveWriter;
use crate::error::ExportError;
use crate::manifest::{BUNDLE_VERSION, BundlePredicate, Manifest, MemberEntry, Payloads};
use crate::{member, payloads, records};

/// One log's side of a bundle.
pub struct LogPart<'a, T, S: ?Sized = [VerifiedEvent]> {
    /// Verified events in log order: all of the slice, or at least those that the score reads. Those of the evidence log
    /// are read more than once.
    pub events: &'a S,
    /// The cosigned checkpoint that the proof leads to.
    pub checkpoint: &'a Note,
    /// Where the tree's hashes are read from; it has at least the checkpoint's size.
    pub tree: &'a T,
}

/// A file with its signature.
#[derive(Debug, Clone, Copy)]
pub struct SignedBytes<'a> {
    /// Workspace-relative path.
    pub path: &'a str,
    /// The bytes.
    pub bytes: &'a [u8],
    /// The `.sig` beside it, where there is one.
    pub signature: Option<&'a [u8]>,
}

/// Everything that goes into a bundle.
pub struct ExportInput<'a, E, A> {
    /// The report, as sealed.
    pub report: &'a Report,
    /// Its seal.
    pub seal: &'a Envelope,
    /// The evidence log; the checkpoint is the one that the report names.
    pub evidence: LogPart<'a, E, dyn EvidenceSource + 'a>,
    /// The audit log; the checkpoint covers the run's own entry.
    pub audit: LogPart<'a, A>,
    /// The question bank, path `bank.toml`.
    pub bank: SignedBytes<'a>,
    /// Configuration files as they stand in the workspace. Those that are not the version that the
    /// audit slice has newest are left out, and the summary says which.
    pub configs: &'a [SignedBytes<'a>],
    /// The claims file, where the run had one.
    pub claims: Option<&'a [u8]>,
    /// The target profile, where the run had one.
    pub target: Option<SignedBytes<'a>>,
    /// The issuer's trust policy, for reading.
    pub trust_policy: &'a [u8],
    /// Whether payloads go along.
    pub payloads: Payloads,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportSummary {
    /// Bytes of the bundle.
    pub bytes: u64,
    /// Members, the manifest counted.
    pub members: usize,
    /// Evidence events.
    pub evidence_events: usize,
    /// Audit events.
    pub audit_events: usize,
    /// Payloads that go along.
    pub payloads: usize,
    /// Payloads that events name and the store no longer has.
    pub payloads_absent: usize,
    /// The signed manifest, as it stands in the archive.
    pub manifest: String,
    /// Paths of configuration files that changed since the run, and so do not go along.
    pub configs_left_out: Vec<String>,
}

/// Gives a stored payload by digest, or `None` when it is gone.
pub type PayloadSource<'a> = dyn FnMut(&Digest) -> io::Result<Option<Vec<u8>>> + 'a;

/// Writes a bundle. `spool` is scratch space (an empty temporary file) for the events and the packed payloads, whose
/// digests must stand in the manifest before them.
///
/// # Errors
/// [`ExportError`] when pieces do not belong together or something cannot be read, signed or written.
pub fn export<E, A>(
    input: &ExportInput<'_, E, A>,
    payload: &mut PayloadSource<'_>,
    signer: &dyn StatementSigner,
    spool: &mut (impl Read + Write + Seek),
    out: impl Write,
) -> Result<ExportSummary, ExportError>
where
    E: HashReader<Error: Display>,
    A: HashReader<Error: Display>,
{
    let report = input.report;
    let audit = choose_audit(input)?;
    let mut files = Files::default();
    let mut spooled = Vec::new();
    let (evidence, named) = {
        let mut sink = Hashing { inner: &mut *spool, hasher: BodyHasher::new() };
        let (places, named) = write_evidence(input, &mut sink)?;
        sink.flush().map_err(ExportError::Spool)?;
        let (sha256, size) = sink.hasher.finish();
        spooled.push((MemberEntry { name: member::EVIDENCE_EVENTS.to_owned(), size, unpacked: None }, sha256));
        (places, named)
    };
    let part = &input.evidence;
    files.proof(&evidence, part.checkpoint, part.tree, member::EVIDENCE_PROOF, member::EVIDENCE_CHECKPOINT)?;
    let mut bytes = Vec::new();
    audit.iter().for_each(|record| records::write_event(&mut bytes, &record.signed));
    files.add(member::AUDIT_EVENTS, bytes);
    let places: Places = audit.iter().map(|record| (record.event.index, record.hash)).unzip();
    let part = &input.audit;
    files.proof(&places, part.checkpoint, part.tree, member::AUDIT_PROOF, member::AUDIT_CHECKPOINT)?;
    check_inputs(input)?;
    files.run(input);
    let configs = input.configs.iter();
    let (current, changed) = configs.partition::<Vec<&SignedBytes<'_>>, _>(|config| is_current(config, &audit));
    for config in current {
        files.signed(format!("{}{}", member::CONFIG_DIR, config.path), config);
    }

    let evidence_events = evidence.0.len();
    drop(evidence);
    let wanted = named.finish()?;
    let mut absent = Vec::new();
    if input.payloads == Payloads::Included {
        let mut sink = Hashing { inner: &mut *spool, hasher: BodyHasher::new() };
        let written = payloads::write(&wanted, payload, &mut sink)?;
        let (sha256, size) = sink.hasher.finish();
        absent = written.absent;
        let name = member::EVIDENCE_PAYLOADS.to_owned();
        spooled.push((MemberEntry { name, size, unpacked: Some(written.unpacked) }, sha256));
    }

    let mut listed: Vec<(MemberEntry, Digest)> = files.0.iter().map(|(name, bytes)| list(name, bytes)).collect();
    // Their order in the archive, too.
    listed.extend(spooled);
    listed.sort_by(|a, b| a.0.name.cmp(&b.0.name));
    let (members, digests): (Vec<_>, Vec<_>) = listed.into_iter().unzip();
    let payloads_absent = absent.len();
    let predicate = BundlePredicate {
        version: BUNDLE_VERSION,
        workspace: report.workspace.clone(),
        agent: report.agent.clone(),
        run_id: report.run_id.clone(),
        issuer: report.audit.origin.clone(),
        payloads: input.payloads,
        payloads_absent: absent,
        members,
    };
    let manifest = signer.sign_statement(&Manifest::statement(&predicate, &digests))?.to_json();
    // Whatever a reader would refuse of a manifest is refused here already.
    Manifest::peek(manifest.as_bytes()).map_err(|error| ExportError::Inconsistent(error.to_string()))?;

    let mut archive = ArchiveWriter::new(out);
    archive.append(member::MANIFEST, manifest.len() as u64, &mut manifest.as_bytes())?;
    spool.seek(SeekFrom::Start(0)).map_err(ExportError::Spool)?;
    for entry in &predicate.members {
        match files.0.get(&entry.name) {
            Some(bytes) => archive.append(&entry.name, entry.size, &mut bytes.as_ref())?,
            None => archive.append(&entry.name, entry.size, spool)?,
        }
    }
    Ok(ExportSummary {
        bytes: archive.finish()?,
        members: predicate.members.len() + 1,
        evidence_events,
        audit_events: audit.len(),
        payloads: if input.payloads == Payloads::Included { wanted.len() - payloads_absent } else { 0 },
        payloads_absent,
        manifest,
        configs_left_out: changed.into_iter().map(|config| config.path.to_owned()).collect(),
    })
}

/// Bank, claims and target are those that the report was made with.
fn check_inputs<E, A>(input: &ExportInput<'_, E, A>) -> Result<(), ExportError> {
    let report = input.report;
    let checks = [
        ("question bank", Some(input.bank.bytes), Some(report.bank.sha256)),
        ("claims", input.claims, report.claims_sha256),
        ("target", input.target.map(|target| target.bytes), report.target.as_ref().map(|target| target.sha256)),
    ];
    match checks.iter().find(|(_, bytes, wanted)| bytes.map(amc_crypto::sha256) != *wanted) {
        Some((what, ..)) => Err(ExportError::Inconsistent(format!("the {what} is not what the report was made with"))),
        None => Ok(()),
    }
}

/// Whether a configuration is the version that these audit events have newest.
fn is_current(config: &SignedBytes<'_>, audit: &[&VerifiedEvent]) -> bool {
    let newest = audit.iter().rev().find_map(|record| match &record.fields {
        Some(Fields::ConfigSigned(entry)) if entry.path == config.path => Some(entry.sha256),
        _ => None,
    });
    match newest {
        Some(sha256) => config.signature.is_some() && sha256 == amc_crypto::sha256(config.bytes),
        None => config.signature.is_none(),
    }
}

fn list(name: &str, bytes: &[u8]) -> (MemberEntry, Digest) {
    let entry = MemberEntry { name: name.to_owned(), size: bytes.len() as u64, unpacked: None };
    (entry, amc_crypto::sha256(bytes))
}

/// The index and the event_hash of each event.
type Places = (Vec<u64>, Vec<Digest>);

/// Writes the events of the slice that the score reads; gives their places and the payloads that they name.
fn write_evidence<E, A>(
    input: &ExportInput<'_, E, A>,
    out: &mut impl Write,
) -> Result<(Places, payloads::Named), ExportError> {
    let report = input.report;
    if checkpoint_of(input.evidence.checkpoint)? != report.evidence {
        let what = "the evidence checkpoint is not the one that the report names";
        return Err(ExportError::Inconsistent(what.into()));
    }
    let as_of = report.as_of_ns().ok_or_else(|| ExportError::Inconsistent("the report's as_of is no time".into()))?;
    let size = report.evidence.size;
    let selector = Selector::new(&report.agent, as_of, report.window_s);
    let selected = selector.select(input.evidence.events, size).map_err(unread)?;
    let (mut places, mut named) = (Places::default(), payloads::Named::default());
    let (mut bytes, mut written) = (Vec::new(), Ok(()));
    let write = &mut |record: Cow<'_, VerifiedEvent>| {
        if written.is_err() || record.event.index >= size || !selected.contains(&record) {
            return;
        }
        places.0.push(record.event.index);
        places.1.push(record.hash);
        named.note(&record);
        bytes.clear();
        records::write_event(&mut bytes, &record.signed);
        written = out.write_all(&bytes);
    };
    input.evidence.events.read(write).map_err(unread)?;
    written.map_err(ExportError::Spool)?;
    Ok((places, named))
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
fn unread(error: SourceError) -> ExportError {
    ExportError::Inconsistent(format!("the evidence cannot be read again: {error}"))
}

/// The audit events of the slice that the score reads, and the run's own entry.
fn choose_audit<'a, E, A>(input: &ExportInput<'a, E, A>) -> Result<Vec<&'a VerifiedEvent>, ExportError> {
    let report = input.report;
    let head = checkpoint_of(input.audit.checkpoint)?;
    let events = input.audit.events;
    let slice = || events.iter().filter(|record| record.event.index < report.audit.size);
    let chosen = amc_scoring::select_audit(&report.agent, slice().map(|record| &**record));
    let own = events.iter().find(|record| {
        record.event.index >= report.audit.size
            && matches!(&record.fields, Some(Fields::RunRecorded(run)) if run.run_id == report.run_id)
    });
    let own = own.filter(|record| record.event.index < head.size).ok_or(ExportError::RunNotCovered)?;
    // What the run did not read yet and a verifier must walk from the pinned key to the checkpoint's.
    let later = events.iter().filter(|record| {
        let index = record.event.index;
        let about_keys =
            matches!(&record.fields, Some(Fields::KeyRotated(_) | Fields::KeyRevoked(_) | Fields::LogSucceeded(_)));
        about_keys && index >= report.audit.size && index < head.size
    });
    let mut all: Vec<_> =
        slice().filter(|record| chosen.contains(&record.event.index)).chain([own]).chain(later).collect();
    all.sort_by_key(|record| record.event.index);
    Ok(all)
}

fn checkpoint_of(note: &Note) -> Result<LogHead, ExportError> {
    let Checkpoint { origin, size, root } =
        Checkpoint::parse(note.text()).map_err(|error| ExportError::Inconsistent(error.to_string()))?;
    Ok(LogHead { origin, size, root })
}

/// Members that are small enough for memory, by name.
#[derive(Default)]
struct Files<'a>(BTreeMap<String, Cow<'a, [u8]>>);

impl<'a> Files<'a> {
    fn add(&mut self, name: impl Into<String>, bytes: impl Into<Cow<'a, [u8]>>) {
        self.0.insert(name.into(), bytes.into());
    }

    fn signed(&mut self, name: String, file: &SignedBytes<'a>) {
        if let Some(signature) = file.signature {
            self.add(format!("{name}.sig"), signature);
        }
        self.add(name, file.bytes);
    }

    fn run<E, A>(&mut self, input: &ExportInput<'a, E, A>) {
        self.add(member::REPORT_JSON, input.report.to_bytes());
        self.add(member::REPORT_MD, render::markdown(input.report).into_bytes());
        self.add(member::REPORT_HTML, render::html(input.report).into_bytes());
        self.add(member::SEAL, input.seal.to_json().into_bytes());
        self.add(member::TRUST_POLICY, input.trust_policy);
        self.signed(member::BANK.to_owned(), &input.bank);
        if let Some(claims) = input.claims {
            self.add(member::CLAIMS, claims);
        }
        if let Some(target) = &input.target {
            self.signed(format!("{}{}", member::TARGET_DIR, target.path), target);
        }
    }

    /// The checkpoint, and the proof of events under it.
    fn proof<T: HashReader<Error: Display>>(
        &mut self,
        (indices, leaves): &Places,
        note: &Note,
        tree: &T,
        proof: &str,
        checkpoint: &str,
    ) -> Result<(), ExportError> {
        let head = checkpoint_of(note)?;
        let log = head.origin.clone();
        if indices.is_empty() || !indices.is_sorted_by(|a, b| a < b) || indices.iter().any(|index| *index >= head.size)
        {
            let what = format!("the events of {log} are none, out of order or beyond its checkpoint");
            return Err(ExportError::Inconsistent(what));
        }
        let hashes = multiproof(tree, indices, head.size);
        let hashes = hashes.map_err(|error| ExportError::Tree { log: log.clone(), why: error.to_string() })?;
        verify_multiproof(indices, leaves, head.size, &hashes, &head.root)
            .map_err(|source| ExportError::Proof { log, source })?;
        self.add(proof, records::write_proof(&hashes));
        self.add(checkpoint, note.to_string().into_bytes());
        Ok(())
    }
}

/// Hashes and counts what is written.
struct Hashing<W> {
    inner: W,
    hasher: BodyHasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
