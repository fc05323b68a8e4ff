//! Kinds 300 to 399: what the auditor decided and signed.

use serde::{Deserialize, Serialize};

use crate::{AgentId, Digest, RunId};

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
