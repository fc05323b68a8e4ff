//! Signatures beside configuration files (`<file>.sig`): which file, which version, for whom.
//!
//! The predicate names the workspace-relative path, the version and the agent, so that a valid
//! signature can neither be moved to another file nor stand for another agent.

use amc_core::{AgentId, Digest, FindingCode};
use serde::{Deserialize, Serialize};

use crate::dsse::{Envelope, EnvelopeError, SignedStatement, StatementTrust};
use crate::key::PublicKey;
use crate::statement::{PredicateType, Statement, StatementError, Subject};
use crate::trust::Unverified;

/// The predicate of `urn:amc:predicate:config:v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigPredicate {
    /// Workspace-relative path, with `/` between parts.
    pub path: String,
    /// From 1, one more for every signature of this path.
    pub version: u64,
    /// The agent that the file is for, where it is for one.
    pub agent: Option<AgentId>,
}

/// A signature that does not make its file a signed one.
#[derive(Debug, thiserror::Error)]
pub enum ConfigSignatureError {
    /// Not an envelope that a pinned auditor signed.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The statement is not about these bytes.
    #[error("the signature is for other contents of the file")]
    OtherContents,
    /// The statement is for a file at another path or for another agent.
    #[error("the signature belongs to {0}")]
    OtherPlace(String),
}

impl ConfigSignatureError {
    /// The finding code that this error is reported under.
    pub const fn code(&self) -> FindingCode {
        match self {
            ConfigSignatureError::OtherPlace(_) => FindingCode::ConfigPathMismatch,
            ConfigSignatureError::Envelope(_) | ConfigSignatureError::OtherContents => {
                FindingCode::ConfigSignatureInvalid
            }
        }
    }
}

/// The statement that an auditor signs for a file with this digest.
pub fn statement(predicate: &ConfigPredicate, sha256: Digest) -> Statement {
    let subject = vec![Subject::new(&predicate.path, sha256)];
    Statement::new(PredicateType::Config, subject, predicate).expect("one subject and three named members")
}

/// Verifies the `.sig` beside a file: signed by one of `keys`, for these bytes.
///
/// # Errors
/// [`ConfigSignatureError`] when it is not.
pub fn verify_bytes(
    bytes: &[u8],
    signature: &[u8],
    keys: &[PublicKey],
) -> Result<(ConfigPredicate, PublicKey), ConfigSignatureError> {
    let envelope = Unverified::new(Envelope::parse(signature)?);
    let trust = StatementTrust { keys, wanted: PredicateType::Config };
    let SignedStatement { statement, key } = envelope.verify(&trust)?.into_inner();
    let predicate: ConfigPredicate = statement.predicate_as().map_err(EnvelopeError::Statement)?;
    let wanted = Subject::new(&predicate.path, crate::sha256(bytes));
    if statement.subject == [wanted] { Ok((predicate, key)) } else { Err(ConfigSignatureError::OtherContents) }
}

/// Like [`verify_bytes`], and also for this path and agent.
///
/// # Errors
/// [`ConfigSignatureError`] when it is not.
pub fn verify_at(
    path: &str,
    agent: Option<&AgentId>,
    bytes: &[u8],
    signature: &[u8],
    keys: &[PublicKey],
) -> Result<ConfigPredicate, ConfigSignatureError> {
    let (predicate, _) = verify_bytes(bytes, signature, keys)?;
    if predicate.path != path {
        return Err(ConfigSignatureError::OtherPlace(predicate.path));
    }
    if predicate.agent.as_ref() != agent {
        let whose = predicate.agent.map_or_else(|| "no agent".to_owned(), |agent| format!("agent {agent}"));
        return Err(ConfigSignatureError::OtherPlace(whose));
    }
    Ok(predicate)
}

impl From<StatementError> for ConfigSignatureError {
    fn from(error: StatementError) -> Self {
        ConfigSignatureError::Envelope(EnvelopeError::Statement(error))
    }
}
