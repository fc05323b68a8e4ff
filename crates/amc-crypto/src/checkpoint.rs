//! Checkpoints (C2SP tlog-checkpoint v1): origin, size and root of a log, one line each.

use amc_core::Digest;
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::note::{Note, NoteError};

/// The head of a log: `origin\nsize\nbase64(root)\n`, without extension lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's origin.
    pub origin: String,
    /// Number of leaves.
    pub size: u64,
    /// RFC 6962 root.
    pub root: Digest,
}

/// A checkpoint that its log signed, with the cosignatures that hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CosignedCheckpoint {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Witnesses of the policy that cosigned it and count for this log: name in the policy and
    /// time in seconds since the epoch.
    pub witnesses: Vec<(String, u64)>,
    /// The note as it was received.
    pub note: Note,
}

/// A note that is no checkpoint of ours, or one that its log or its witnesses did not sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not three lines of origin, size and root.
    #[error("not a checkpoint: {0}")]
    Malformed(&'static str),
    /// The note does not verify.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// No pinned log has this origin.
    #[error("no log {0:?} is pinned in the trust policy")]
    UnknownLog(String),
    /// Not enough witnesses cosigned.
    #[error(
        "the checkpoint of {origin} at size {size} lacks the quorum of cosignatures that the trust policy asks for"
    )]
    NoQuorum {
        /// The log.
        origin: String,
        /// The checkpoint's size.
        size: u64,
    },
}

impl Checkpoint {
    /// The signed text, with its final newline.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root.0))
    }

    /// Parses the text of a note.
    ///
    /// # Errors
    /// [`CheckpointError::Malformed`] for anything but the three lines, spelt canonically.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let body = text.strip_suffix('\n').ok_or(CheckpointError::Malformed("no final newline"))?;
        let mut lines = body.split('\n');
        let (Some(origin), Some(size), Some(root), None) = (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(CheckpointError::Malformed("it has other than three lines"));
        };
        let root = STANDARD.decode(root).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let parsed = Checkpoint {
            origin: origin.to_owned(),
            size: size.parse().map_err(|_| CheckpointError::Malformed("the size is not a number"))?,
            root: Digest(root.ok_or(CheckpointError::Malformed("the root is not 32 bytes of base64"))?),
        };
        // One spelling: no leading zeros, plus signs or empty origins.
        if origin.is_empty() || parsed.text() != text {
            return Err(CheckpointError::Malformed("it is not spelt canonically"));
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_spelling_parses() {
        let good = Checkpoint { origin: "w/evidence".into(), size: 3, root: crate::sha256(b"") };
        assert_eq!(Checkpoint::parse(&good.text()), Ok(good.clone()));
        for (name, bad) in [
            ("leading zero", good.text().replace("\n3\n", "\n03\n")),
            ("plus sign", good.text().replace("\n3\n", "\n+3\n")),
            ("extension line", format!("{}ext\n", good.text())),
            ("no newline", good.text().trim_end().to_owned()),
            ("empty origin", good.text().replace("w/evidence", "")),
            ("short root", good.text().replace('=', "")),
        ] {
            assert!(Checkpoint::parse(&bad).is_err(), "{name}");
        }
    }
}
