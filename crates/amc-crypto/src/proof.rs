//! Proof files (C2SP tlog-proof v1): one event, its audit path and a checkpoint, checkable alone.
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra <base64(event body)>
//! index <n>
//! <base64(hash)>            one line each, leaf side first, at most 64
//!
//! <checkpoint note>
//! ```
//!
//! A parsed file proves nothing; [`ProofTrust`] turns one into a [`ProvenLeaf`].

use amc_core::{Digest, limits};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::checkpoint::{CheckpointError, CosignedCheckpoint};
use crate::merkle::{self, ProofError};
use crate::note::{Note, NoteError};
use crate::policy::TrustPolicy;
use crate::trust::Check;
use crate::witness::decimal;

/// The first line of every proof file.
pub const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// Most hashes of a path: a tree has no more levels than a size has bits.
pub const PATH_HASHES_MAX: usize = 64;

/// Most bytes of a file: the body in base64, the path, a note, and what names them.
pub const FILE_BYTES_MAX: usize =
    limits::EVENT_BYTES_MAX.div_ceil(3) * 4 + PATH_HASHES_MAX * 45 + limits::NOTE_BYTES_MAX + 128;

/// The text of a `.tlog-proof` for the event at `index`.
pub fn encode(event_body: &[u8], index: u64, path: &[Digest], checkpoint: &Note) -> String {
    let hashes: String = path.iter().map(|hash| STANDARD.encode(hash.0) + "\n").collect();
    format!("{HEADER}\nextra {}\nindex {index}\n{hashes}\n{checkpoint}", STANDARD.encode(event_body))
}

/// A proof file as it was read, nothing verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlogProof {
    /// The event's body.
    pub body: Vec<u8>,
    /// Where the event is said to stand.
    pub index: u64,
    /// The audit path, the leaf's side first.
    pub path: Vec<Digest>,
    /// The checkpoint that the path is said to lead to.
    pub note: Note,
}

/// Bytes that are no proof file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofFileError {
    /// More bytes than any proof file has.
    #[error("a proof file has at most {FILE_BYTES_MAX} bytes")]
    TooLong,
    /// A line is not what it should be.
    #[error("not a proof file: {0}")]
    Malformed(&'static str),
    /// What follows the empty line is no note.
    #[error(transparent)]
    Note(#[from] NoteError),
}

impl TlogProof {
    /// Parses a file; strict in every line, so that what parses encodes to the same bytes.
    ///
    /// # Errors
    /// [`ProofFileError`] when it is anything else.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProofFileError> {
        let malformed = ProofFileError::Malformed;
        if bytes.len() > FILE_BYTES_MAX {
            return Err(ProofFileError::TooLong);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| malformed("it is not UTF-8"))?;
        let (head, note) = text.split_once("\n\n").ok_or(malformed("no empty line before the note"))?;
        let mut lines = head.split('\n');
        if lines.next() != Some(HEADER) {
            return Err(malformed("the first line is not c2sp.org/tlog-proof@v1"));
        }
        let extra = lines.next().and_then(|line| line.strip_prefix("extra "));
        let body = extra.and_then(|extra| STANDARD.decode(extra).ok());
        let body = body.filter(|body| (1..=limits::EVENT_BYTES_MAX).contains(&body.len()));
        let body = body.ok_or(malformed("the second line is not `extra` and an event in base64"))?;
        let index = lines.next().and_then(|line| line.strip_prefix("index ")).and_then(decimal);
        let index = index.ok_or(malformed("the third line is not `index` and a number"))?;
        let path = lines.map(hash).collect::<Option<Vec<Digest>>>();
        let path = path.ok_or(malformed("a line of the path is not 32 bytes of base64"))?;
        if path.len() > PATH_HASHES_MAX {
            return Err(malformed("more than 64 hashes"));
        }
        Ok(TlogProof { body, index, path, note: Note::parse(note.as_bytes())? })
    }

    /// The file's text.
    pub fn to_text(&self) -> String {
        encode(&self.body, self.index, &self.path, &self.note)
    }
}

fn hash(line: &str) -> Option<Digest> {
    Some(Digest(STANDARD.decode(line).ok()?.try_into().ok()?))
}

/// What a proof file is held against.
#[derive(Debug, Clone, Copy)]
pub struct ProofTrust<'a> {
    /// Pinned logs and witnesses.
    pub policy: &'a TrustPolicy,
    /// Whether the checkpoint must carry the policy's quorum of cosignatures.
    pub quorum: bool,
}

/// An event body that stands at an index of a log, as a checkpoint of that log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenLeaf {
    /// The event's body.
    pub body: Vec<u8>,
    /// Its index.
    pub index: u64,
    /// The checkpoint, with the cosignatures that count.
    pub checkpoint: CosignedCheckpoint,
}

/// A file that does not prove what it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlogProofError {
    /// The checkpoint does not count.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The path does not lead from the event to the checkpoint.
    #[error("the event is not in the tree of this checkpoint: {0}")]
    Path(#[from] ProofError),
}

impl Check<TlogProof> for ProofTrust<'_> {
    type Output = ProvenLeaf;
    type Error = TlogProofError;

    fn check(&self, proof: TlogProof) -> Result<ProvenLeaf, TlogProofError> {
        let TlogProof { body, index, path, note } = proof;
        let checkpoint = if self.quorum { self.policy.check(note)? } else { self.policy.check_signatures(note)? };
        let at = &checkpoint.checkpoint;
        merkle::verify_inclusion(crate::leaf_hash(&body), index, at.size, &path, &at.root)?;
        Ok(ProvenLeaf { body, index, checkpoint })
    }
}
