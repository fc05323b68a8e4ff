//! in-toto Statements v1: subjects by SHA-256, a predicate type, and a predicate.

use amc_core::Digest;
use serde::{Deserialize, Serialize};

/// The `_type` of every statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// What a statement is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The file's name within its context.
    pub name: String,
    /// Its digests; SHA-256 always.
    pub digest: SubjectDigest,
}

/// The digest of a subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectDigest {
    /// SHA-256 of the bytes.
    pub sha256: Digest,
}

impl Subject {
    /// A subject with its SHA-256.
    pub fn new(name: impl Into<String>, sha256: Digest) -> Self {
        Subject { name: name.into(), digest: SubjectDigest { sha256 } }
    }
}

/// What a statement says of its subjects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PredicateType {
    /// A run's seal.
    #[serde(rename = "urn:amc:predicate:run:v1")]
    Run,
    /// A configuration, target, bank or policy.
    #[serde(rename = "urn:amc:predicate:config:v1")]
    Config,
    /// An attestation of ingested evidence.
    #[serde(rename = "urn:amc:predicate:attestation:v1")]
    Attestation,
    /// A bundle's manifest.
    #[serde(rename = "urn:amc:predicate:bundle:v1")]
    Bundle,
    /// A certificate.
    #[serde(rename = "urn:amc:predicate:certificate:v1")]
    Certificate,
    /// A revocation of a certificate.
    #[serde(rename = "urn:amc:predicate:revocation:v1")]
    Revocation,
    /// A gate's verdict (SLSA VSA).
    #[serde(rename = "https://slsa.dev/verification_summary/v1")]
    VerificationSummary,
}

/// An in-toto Statement v1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Always [`STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    statement_type: String,
    /// What it is about; never empty.
    pub subject: Vec<Subject>,
    /// What the predicate means.
    #[serde(rename = "predicateType")]
    pub predicate_type: PredicateType,
    /// The predicate, a JSON object with at least one member.
    pub predicate: serde_json::Map<String, serde_json::Value>,
}

/// A payload that is no in-toto statement of ours.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// Not the JSON of a statement.
    #[error("the payload is not an in-toto statement: {0}")]
    Json(#[from] serde_json::Error),
    /// Another `_type`, or no subject.
    #[error("the payload is not an in-toto Statement v1 with a subject")]
    Shape,
    /// A statement of another kind than this place needs.
    #[error("the statement says {found:?} where {wanted:?} is needed")]
    PredicateType {
        /// What this place needs.
        wanted: PredicateType,
        /// What it is.
        found: PredicateType,
    },
}

impl Statement {
    /// A statement about `subject`; the predicate is any struct that serialises to a JSON object.
    ///
    /// # Errors
    /// [`StatementError`] when there is no subject or the predicate is no object.
    pub fn new<P: Serialize>(
        predicate_type: PredicateType,
        subject: Vec<Subject>,
        predicate: &P,
    ) -> Result<Self, StatementError> {
        let serde_json::Value::Object(predicate) = serde_json::to_value(predicate)? else {
            return Err(StatementError::Shape);
        };
        let statement = Statement { statement_type: STATEMENT_TYPE.to_owned(), subject, predicate_type, predicate };
        statement.checked()
    }

    /// Parses a verified payload.
    ///
    /// # Errors
    /// [`StatementError`] when it is not a statement of the wanted kind.
    pub fn parse(payload: &[u8], wanted: PredicateType) -> Result<Self, StatementError> {
        let statement = serde_json::from_slice::<Statement>(payload)?.checked()?;
        match statement.predicate_type {
            found if found == wanted => Ok(statement),
            found => Err(StatementError::PredicateType { wanted, found }),
        }
    }

    /// The JSON bytes that an envelope carries and its signature covers.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and JSON values serialise")
    }

    /// The predicate as the struct that its type demands.
    ///
    /// # Errors
    /// [`StatementError::Json`] when it has another shape.
    pub fn predicate_as<P: serde::de::DeserializeOwned>(&self) -> Result<P, StatementError> {
        Ok(serde_json::from_value(serde_json::Value::Object(self.predicate.clone()))?)
    }

    fn checked(self) -> Result<Self, StatementError> {
        let well_formed =
            self.statement_type == STATEMENT_TYPE && !self.subject.is_empty() && !self.predicate.is_empty();
        if well_formed { Ok(self) } else { Err(StatementError::Shape) }
    }
}
