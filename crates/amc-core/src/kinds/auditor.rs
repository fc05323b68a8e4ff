//! Kinds 300 to 399: what the auditor decided and signed.

use serde::{Deserialize, Serialize};

use crate::{AgentId, CertificateId, Digest, RunId};

/// A configuration file was signed; the newest version per path is the one in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigSigned {
    /// Workspace-relative path.
    pub path: String,
    /// Version: contiguous per path, from 1.
    pub version: u64,
    /// SHA-256 of the file.
    pub sha256: Digest,
    /// The agent that it is for, where it is for one.
    pub agent: Option<AgentId>,
}

/// A run was scored and sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecorded {
    /// The run.
    pub run_id: RunId,
    /// The agent.
    pub agent: AgentId,
    /// SHA-256 of `report.json`.
    pub report_sha256: Digest,
    /// The evidence that it covers.
    pub evidence: super::LogHead,
    /// The audit entries that it covers: those before this one.
    pub audit_size: u64,
    /// `VALID` or `INVALID`.
    pub status: String,
    /// The trust label.
    pub label: String,
    /// Overall value, in basis points of a level.
    pub overall_bp: u32,
    /// IntegrityIndex, in basis points.
    pub integrity_bp: u32,
}

/// A certificate was issued for a run that a gate allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateIssued {
    /// The certificate.
    pub certificate_id: CertificateId,
    /// SHA-256 of `certificate.dsse.json`.
    pub certificate_sha256: Digest,
    /// The run.
    pub run_id: RunId,
    /// The agent.
    pub agent: AgentId,
    /// SHA-256 of the gate policy that the run passed.
    pub policy_sha256: Digest,
    /// The first second of its validity, since the epoch.
    pub not_before_s: u64,
    /// The last second of its validity, since the epoch.
    pub not_after_s: u64,
}

/// A certificate counts no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRevoked {
    /// The certificate.
    pub certificate_id: CertificateId,
    /// SHA-256 of `certificate.dsse.json`.
    pub certificate_sha256: Digest,
    /// When, in seconds since the epoch.
    pub revoked_at_s: u64,
    /// Why, in the issuer's words.
    pub reason: String,
}

/// Evidence that somebody handed in was looked at and is what it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attested {
    /// The agent that it is about.
    pub agent: AgentId,
    /// Origin of the log that holds the event.
    pub log: String,
    /// The event's index.
    pub index: u64,
    /// The event_hash.
    pub event_hash: Digest,
    /// Until when the attestation counts, nanoseconds since the epoch.
    pub expires_ns: i64,
    /// The signed statement, a DSSE envelope as JSON.
    pub envelope: String,
}

/// The agent's trust boundary was put in order: runs count its sessions from here on, and list
/// those before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundaryEpoch {
    /// The agent.
    pub agent: AgentId,
    /// Origin of the evidence log.
    pub log: String,
    /// Sessions opened below this index of it are listed and not counted.
    pub from_index: u64,
    /// Why, in the auditor's words.
    pub reason: String,
}
