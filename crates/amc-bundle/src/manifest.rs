//! The manifest: a DSSE envelope whose statement names every other member with digest and size.

use amc_core::{AgentId, Digest, RunId, WorkspaceName};
use amc_crypto::dsse::{Envelope, EnvelopeError, SignedStatement, StatementTrust};
use amc_crypto::{PredicateType, PublicKey, Statement, Subject, Unverified};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::archive::{MEMBER_BYTES_MAX, MEMBERS_MAX};
use crate::member;

/// The version of the bundle format.
pub const BUNDLE_VERSION: u32 = 1;

/// Whether payloads travel with the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Payloads {
    /// `evidence/payloads.zst` is there.
    Included,
    /// It is not, by the issuer's choice; no score changes by it.
    Withheld,
}

/// The predicate of `urn:amc:predicate:bundle:v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundlePredicate {
    /// Always [`BUNDLE_VERSION`].
    pub version: u32,
    /// The workspace.
    pub workspace: WorkspaceName,
    /// The agent.
    pub agent: AgentId,
    /// The run.
    pub run_id: RunId,
    /// Origin of the issuer's audit log, whose key signs everything here.
    pub issuer: String,
    /// Whether payloads travel with the events.
    pub payloads: Payloads,
    /// Digests of stored payloads that the issuer no longer has, ascending; empty when withheld.
    pub payloads_absent: Vec<Digest>,
    /// Every other member, in the archive's order.
    pub members: Vec<MemberEntry>,
}

/// A member in the manifest; its digest is the subject at the same place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberEntry {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// For a compressed member: what it unpacks to, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unpacked: Option<u64>,
}

/// A member as the manifest names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Name and sizes.
    pub entry: MemberEntry,
    /// SHA-256 of its bytes.
    pub sha256: Digest,
}

/// A manifest whose parts agree with each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What it says.
    pub predicate: BundlePredicate,
    /// The other members, in the archive's order.
    pub members: Vec<Listed>,
}

/// Bytes that are no manifest that a trusted key signed.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not signed by a pinned key, or no envelope.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The envelope is spelled in another way than its signer wrote it.
    #[error("the envelope is not in its canonical spelling; it was edited or reformatted")]
    NotCanonical,
    /// The parts of the statement do not agree.
    #[error("the manifest {0}")]
    Content(String),
}

impl Manifest {
    /// Verifies the envelope under `keys` and reads what it says.
    ///
    /// # Errors
    /// [`ManifestError`] when it is not signed by one of them or does not hold together.
    pub fn verify(bytes: &[u8], keys: &[PublicKey]) -> Result<(Manifest, PublicKey), ManifestError> {
        let envelope = Envelope::parse(bytes)?;
        let canonical = envelope.to_json().as_bytes() == bytes;
        let hint = envelope.key_id_hint().to_owned();
        let trust = StatementTrust { keys, wanted: PredicateType::Bundle };
        let SignedStatement { statement, key } = Unverified::new(envelope).verify(&trust)?.into_inner();
        // The hint is not signed; a manifest with another one is not the one that was issued.
        if !canonical || hint != key.dsse_key_id() || signature_count(bytes) != Some(1) {
            return Err(ManifestError::NotCanonical);
        }
        Ok((Self::from_statement(&statement)?, key))
    }

    /// Reads what an envelope says, whoever signed it: to show, never to rely on.
    ///
    /// # Errors
    /// [`ManifestError`] when it is no manifest.
    pub fn peek(bytes: &[u8]) -> Result<(Manifest, String), ManifestError> {
        #[derive(Deserialize)]
        struct Payload {
            payload: String,
        }
        let envelope = Envelope::parse(bytes)?;
        let Payload { payload } = serde_json::from_slice(bytes).map_err(EnvelopeError::Json)?;
        let payload = STANDARD.decode(payload).map_err(|_| EnvelopeError::Malformed("payload is not base64"))?;
        let statement = Statement::parse(&payload, PredicateType::Bundle).map_err(EnvelopeError::Statement)?;
        Ok((Self::from_statement(&statement)?, envelope.key_id_hint().to_owned()))
    }

    /// The statement to sign for these members.
    pub(crate) fn statement(predicate: &BundlePredicate, digests: &[Digest]) -> Statement {
        let named = predicate.members.iter().zip(digests);
        let subject = named.map(|(entry, sha256)| Subject::new(&entry.name, *sha256)).collect();
        Statement::new(PredicateType::Bundle, subject, predicate)
            .expect("a bundle has members, and its predicate is an object")
    }

    fn from_statement(statement: &Statement) -> Result<Manifest, ManifestError> {
        let predicate: BundlePredicate = statement.predicate_as().map_err(EnvelopeError::Statement)?;
        let content = |what: &str| Err(ManifestError::Content(what.to_owned()));
        if predicate.version != BUNDLE_VERSION {
            return content("has a version that this release does not know; a newer one may read it");
        }
        let entries = &predicate.members;
        let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        if names.len() >= MEMBERS_MAX || !names.is_sorted_by(|a, b| a < b) || names.contains(&member::MANIFEST) {
            return content("does not name the other members once each and sorted");
        }
        if !statement.subject.iter().map(|subject| subject.name.as_str()).eq(names.iter().copied()) {
            return content("names other subjects than members");
        }
        if let Some(what) = names.iter().find_map(|name| member::check_name(name).err()) {
            return Err(ManifestError::Content(format!("cannot hold: {what}")));
        }
        if let Some(name) = member::REQUIRED.iter().find(|name| **name != member::MANIFEST && !names.contains(name)) {
            return Err(ManifestError::Content(format!("does not name {name}, which every bundle has")));
        }
        if entries.iter().any(|entry| entry.size > MEMBER_BYTES_MAX) {
            return content("names a member that is larger than any may be");
        }
        let withheld = predicate.payloads == Payloads::Withheld;
        if names.contains(&member::EVIDENCE_PAYLOADS) == withheld {
            return content("says of the payloads something else than its members");
        }
        let unpacks = |entry: &MemberEntry| entry.unpacked.is_some() == (entry.name == member::EVIDENCE_PAYLOADS);
        if !entries.iter().all(unpacks) {
            return content("does not say what the payloads, and only they, unpack to");
        }
        let absent = &predicate.payloads_absent;
        if !absent.is_sorted_by(|a, b| a < b) || (withheld && !absent.is_empty()) {
            return content("does not list absent payloads once each and sorted");
        }
        let members = entries.iter().zip(&statement.subject);
        let members = members.map(|(entry, subject)| Listed { entry: entry.clone(), sha256: subject.digest.sha256 });
        Ok(Manifest { members: members.collect(), predicate })
    }
}

fn signature_count(bytes: &[u8]) -> Option<usize> {
    let envelope: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    envelope.get("signatures")?.as_array().map(Vec::len)
}
