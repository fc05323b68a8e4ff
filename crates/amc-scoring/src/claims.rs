//! Claims and targets: what somebody says the level is, and what it should be.
//!
//! Both are JSON with levels by question id, checked against the bank when they are read; keys that
//! the format does not know are errors. A claim can only lower a final level.

use std::collections::BTreeMap;

use amc_core::{AgentId, Digest};
use serde::Deserialize;

use crate::bank::Bank;

/// A claims or target file; levels for some hundred questions fit.
pub const LEVELS_BYTES_MAX: usize = 256 * 1024;

/// Levels that somebody claims, by question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// SHA-256 of the file.
    pub sha256: Digest,
    /// Claimed level per question id.
    pub levels: BTreeMap<String, u8>,
}

/// Levels to aim at, by question, for one agent and one version of a bank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The target's id.
    pub id: String,
    /// SHA-256 of the file.
    pub sha256: Digest,
    /// Wanted level per question id.
    pub levels: BTreeMap<String, u8>,
}

/// Why bytes are no claims.
#[derive(Debug, thiserror::Error)]
pub enum ClaimsError {
    /// Not JSON of this shape.
    #[error("the claims do not parse: {0}")]
    Json(#[source] serde_json::Error),
    /// The shape is right and the content is not.
    #[error("the claims {0}")]
    Content(String),
}

/// Why bytes are no target.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Not JSON of this shape.
    #[error("the target does not parse: {0}")]
    Json(#[source] serde_json::Error),
    /// The shape is right and the content is not.
    #[error("the target {0}")]
    Content(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawClaims {
    version: u32,
    levels: BTreeMap<String, u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTarget {
    version: u32,
    id: String,
    agent: AgentId,
    bank: String,
    bank_version: u32,
    levels: BTreeMap<String, u8>,
}

impl Claims {
    /// Reads `{"version": 1, "levels": {"question": 0..5}}`.
    ///
    /// # Errors
    /// [`ClaimsError`] for unknown keys, questions that the bank does not have, levels above 5.
    pub fn parse(bytes: &[u8], bank: &Bank) -> Result<Claims, ClaimsError> {
        bounded(bytes).map_err(ClaimsError::Content)?;
        let raw: RawClaims = serde_json::from_slice(bytes).map_err(ClaimsError::Json)?;
        check(raw.version, &raw.levels, bank).map_err(ClaimsError::Content)?;
        Ok(Claims { sha256: amc_crypto::sha256(bytes), levels: raw.levels })
    }
}

impl Target {
    /// Reads `{"version": 1, "id", "agent", "bank", "bank_version", "levels": {"question": 0..5}}`.
    ///
    /// # Errors
    /// [`TargetError`] as for claims, and for another agent or another bank.
    pub fn parse(bytes: &[u8], agent: &AgentId, bank: &Bank) -> Result<Target, TargetError> {
        bounded(bytes).map_err(TargetError::Content)?;
        let raw: RawTarget = serde_json::from_slice(bytes).map_err(TargetError::Json)?;
        if raw.agent != *agent {
            return Err(TargetError::Content(format!("is for agent {} and not for {agent}", raw.agent)));
        }
        if raw.bank != bank.id || raw.bank_version != bank.version {
            return Err(TargetError::Content(format!(
                "is for bank {} version {}, and {} version {} is in force",
                raw.bank, raw.bank_version, bank.id, bank.version
            )));
        }
        if !Target::is_id(&raw.id) {
            return Err(TargetError::Content(format!("has the id {:?}; it is 1 to 64 of a-z, 0-9, _ and -", raw.id)));
        }
        check(raw.version, &raw.levels, bank).map_err(TargetError::Content)?;
        Ok(Target { id: raw.id, sha256: amc_crypto::sha256(bytes), levels: raw.levels })
    }

    /// The agent that a target file names, so that it can be read for that agent.
    ///
    /// # Errors
    /// [`TargetError`] when it is no target.
    pub fn agent_of(bytes: &[u8]) -> Result<AgentId, TargetError> {
        bounded(bytes).map_err(TargetError::Content)?;
        serde_json::from_slice::<RawTarget>(bytes).map(|raw| raw.agent).map_err(TargetError::Json)
    }

    /// Whether a target may have this id, which is also its file's name.
    pub fn is_id(id: &str) -> bool {
        (1..=64).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte))
    }
}

fn bounded(bytes: &[u8]) -> Result<(), String> {
    if bytes.len() > LEVELS_BYTES_MAX { Err(format!("have more than {LEVELS_BYTES_MAX} bytes")) } else { Ok(()) }
}

fn check(version: u32, levels: &BTreeMap<String, u8>, bank: &Bank) -> Result<(), String> {
    if version != 1 {
        return Err(format!("have version {version}, and this release reads 1"));
    }
    for (id, level) in levels {
        if bank.question(id).is_none() {
            return Err(format!("name {id:?}, which bank {} version {} does not ask", bank.id, bank.version));
        }
        if *level > 5 {
            return Err(format!("say level {level} for {id:?}; levels go from 0 to 5"));
        }
    }
    Ok(())
}
