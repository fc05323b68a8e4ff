//! What a log and a witness say to each other (C2SP tlog-witness), as text: `add-checkpoint` and its
//! answer. Carries nothing over a network and trusts nothing that it parses.
//!
//! ```text
//! request                          answer
//! old <size>                       — <witness> <base64(key id ‖ time ‖ signature)>   one or more
//! <base64(hash)>   0 to 63
//!
//! <checkpoint note>
//! ```

use amc_core::{Digest, limits};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::note::{Note, NoteError, NoteSignature};

/// Most hashes of a consistency proof: a tree of 2⁶³ leaves has no longer one.
pub const PROOF_HASHES_MAX: usize = 63;

/// Most bytes of a request: the first line, the proof, and a note.
pub const REQUEST_BYTES_MAX: usize = 64 + PROOF_HASHES_MAX * 45 + limits::NOTE_BYTES_MAX;

/// A checkpoint that a log submits, with the proof that it extends the one of `old_size`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// Size of the checkpoint that the witness is believed to have cosigned last; 0 for none.
    pub old_size: u64,
    /// Consistency proof from there, unverified.
    pub proof: Vec<Digest>,
    /// The signed checkpoint, unverified.
    pub note: Note,
}

/// Bytes that are no such message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// More bytes than any request has.
    #[error("a request has at most {REQUEST_BYTES_MAX} bytes")]
    TooLong,
    /// A line is not what it should be.
    #[error("not an add-checkpoint message: {0}")]
    Malformed(&'static str),
    /// What follows the empty line is no note.
    #[error(transparent)]
    Note(#[from] NoteError),
}

impl AddCheckpoint {
    /// Parses the body of a request; strict in every line.
    ///
    /// # Errors
    /// [`MessageError`] when it is anything else.
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        if bytes.len() > REQUEST_BYTES_MAX {
            return Err(MessageError::TooLong);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| MessageError::Malformed("it is not UTF-8"))?;
        let (head, note) = text.split_once("\n\n").ok_or(MessageError::Malformed("no empty line before the note"))?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old "));
        let old_size = old.and_then(decimal).ok_or(MessageError::Malformed("the first line is not `old SIZE`"))?;
        let proof = lines.map(hash).collect::<Option<Vec<_>>>();
        let proof = proof.ok_or(MessageError::Malformed("a proof line is not 32 bytes of base64"))?;
        if proof.len() > PROOF_HASHES_MAX {
            return Err(MessageError::Malformed("more than 63 proof lines"));
        }
        Ok(AddCheckpoint { old_size, proof, note: Note::parse(note.as_bytes())? })
    }

    /// The body of the request.
    pub fn to_text(&self) -> String {
        let hashes: String = self.proof.iter().map(|hash| STANDARD.encode(hash.0) + "\n").collect();
        format!("old {}\n{hashes}\n{}", self.old_size, self.note)
    }
}

/// The lines of an answer, unverified; a client looks only at those of witnesses that it pinned.
///
/// # Errors
/// [`MessageError`] when a line is no signature line, or there is none.
pub fn parse_cosignatures(bytes: &[u8]) -> Result<Vec<NoteSignature>, MessageError> {
    if bytes.len() > limits::NOTE_BYTES_MAX {
        return Err(MessageError::TooLong);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| MessageError::Malformed("it is not UTF-8"))?;
    // The answer has the form of what follows a note's text, so it is read as one.
    let note = Note::parse(format!("\n\n{text}").as_bytes())?;
    let only_lines = note.text() == "\n";
    only_lines.then(|| note.signatures().to_vec()).ok_or(MessageError::Malformed("there is more than signature lines"))
}

/// A decimal number without leading zeros.
///
/// `None` for anything else, a plus sign and an empty text among it.
pub fn decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

fn hash(line: &str) -> Option<Digest> {
    Some(Digest(STANDARD.decode(line).ok()?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTE: &str = "evidence.test/log\n3\nWqx3HImawpLnS/Gv4ubjAvi1WIOy0b8Ze0amvqbavKk=\n\n\
        — evidence.test/log VKfRnEWGMi0kVwlVZbTxeBgPWJIrav83E48XZnlOVLQOaDqdlpnhM4S/tuc0TTSvkZZaEaZu5Y2pU/IW0B8ZJmS3MgU=\n";
    const LINE: &str = "— witness.test/w1 2strhQAAAABlU/EAWToAEzSEjYbP/YAUxAl2NxtiVMKmiPIM+ZQqKqI9sRsu1LZmu0f+hsHtSk7y+XZCZ6nEplxPfH0VXlmNkSnFBg==\n";

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let hash = "Wqx3HImawpLnS/Gv4ubjAvi1WIOy0b8Ze0amvqbavKk=\n";
        for text in [format!("old 0\n\n{NOTE}"), format!("old 2\n{hash}{hash}\n{NOTE}")] {
            let parsed = AddCheckpoint::parse(text.as_bytes()).expect("it is well-formed");
            assert_eq!(parsed.to_text(), text);
        }
    }

    #[test]
    fn a_malformed_request_is_refused() {
        let hash = "Wqx3HImawpLnS/Gv4ubjAvi1WIOy0b8Ze0amvqbavKk=\n";
        for (name, bad) in [
            ("no old line", format!("\n{NOTE}")),
            ("leading zero", format!("old 03\n\n{NOTE}")),
            ("plus sign", format!("old +3\n\n{NOTE}")),
            ("two blanks", format!("old  3\n\n{NOTE}")),
            ("no number", format!("old \n\n{NOTE}")),
            ("number above 64 bits", format!("old 18446744073709551616\n\n{NOTE}")),
            ("carriage return", format!("old 3\r\n\n{NOTE}")),
            ("short hash", format!("old 3\nWqx3\n\n{NOTE}")),
            ("hash with blanks", format!("old 3\n {hash}\n{NOTE}")),
            ("64 hashes", format!("old 3\n{}\n{NOTE}", hash.repeat(64))),
            ("no empty line", format!("old 3\n{NOTE}")),
            ("no note", "old 3\n\n".to_owned()),
            ("text after the note", format!("old 3\n\n{NOTE}x\n")),
        ] {
            assert!(AddCheckpoint::parse(bad.as_bytes()).is_err(), "{name}");
        }
        assert_eq!(AddCheckpoint::parse(&vec![b'o'; REQUEST_BYTES_MAX + 1]), Err(MessageError::TooLong));
    }

    #[test]
    fn an_answer_is_signature_lines_and_nothing_else() {
        let lines = parse_cosignatures(LINE.as_bytes()).expect("one line");
        assert_eq!(lines.iter().map(NoteSignature::line).collect::<String>(), LINE);
        assert_eq!(parse_cosignatures(LINE.repeat(2).as_bytes()).expect("two lines").len(), 2);
        for (name, bad) in [
            ("nothing", String::new()),
            ("no final newline", LINE.trim_end().to_owned()),
            ("a text before", format!("text\n{LINE}")),
            ("a note before", format!("{NOTE}\n{LINE}")),
            ("an empty line between", format!("{LINE}\n{LINE}")),
        ] {
            assert!(parse_cosignatures(bad.as_bytes()).is_err(), "{name}");
        }
    }
}
