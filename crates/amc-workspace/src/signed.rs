//! Files that the auditor signs, as a trusted process loads them.

use std::io;

use amc_core::kinds::{ConfigLoaded, ConfigState};
use amc_core::{AgentId, Digest, Finding, FindingCode, limits};
use amc_crypto::{PublicKey, config};

use crate::home::{Home, HomeError, read_bounded};

/// A configuration file with what its signature is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedFile {
    /// Workspace-relative path.
    pub path: String,
    /// The bytes, as read once; what was judged is what is used.
    pub bytes: Vec<u8>,
    /// SHA-256 of them.
    pub sha256: Digest,
    /// What the signature is worth.
    pub state: ConfigState,
    /// The signed version, where the signature holds.
    pub version: Option<u64>,
    /// What is wrong, where something is.
    pub finding: Option<Finding>,
}

/// The agent that a workspace path belongs to, where it belongs to one: its signature names it.
pub fn agent_of_path(path: &str) -> Option<AgentId> {
    path.strip_prefix("agents/")?.split('/').next().and_then(|id| AgentId::new(id).ok())
}

impl SignedFile {
    /// Reads `relative` and its `.sig`, and judges the signature under the pinned keys.
    ///
    /// # Errors
    /// [`HomeError`] when the file itself cannot be read; a missing or bad signature is a state.
    pub fn load(home: &Home, relative: &str, agent: Option<&AgentId>, keys: &[PublicKey]) -> Result<Self, HomeError> {
        let bytes = read_bounded(&home.file(relative), limits::CONFIG_BYTES_MAX)?;
        let signature = match read_bounded(&home.file(&format!("{relative}.sig")), limits::ENVELOPE_BYTES_MAX) {
            Ok(signature) => Some(signature),
            Err(HomeError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self::judge(relative, agent, bytes, signature.as_deref(), keys))
    }

    /// Judges bytes and signature that were read already.
    pub fn judge(
        relative: &str,
        agent: Option<&AgentId>,
        bytes: Vec<u8>,
        signature: Option<&[u8]>,
        keys: &[PublicKey],
    ) -> Self {
        let (state, version, finding) = match signature {
            None => {
                let what = format!("{relative} has no signature; sign it with `amc config sign {relative}`");
                (ConfigState::Unsigned, None, Some(Finding::warn(FindingCode::ConfigUnsigned, relative, what)))
            }
            Some(signature) => match config::verify_at(relative, agent, &bytes, signature, keys) {
                Ok(predicate) => (ConfigState::Signed, Some(predicate.version), None),
                Err(error) => {
                    let what = format!("{error}; check the file and sign it with `amc config sign {relative}`");
                    (ConfigState::Invalid, None, Some(Finding::error(error.code(), relative, what)))
                }
            },
        };
        let sha256 = amc_crypto::sha256(&bytes);
        SignedFile { path: relative.to_owned(), bytes, sha256, state, version, finding }
    }

    /// The event that says that this file was loaded.
    pub fn loaded(&self) -> ConfigLoaded {
        ConfigLoaded { path: self.path.clone(), version: self.version, sha256: self.sha256, state: self.state }
    }
}
