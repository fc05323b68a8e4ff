//! A passphrase: bytes that are wiped when dropped, never printed, never copied.

use std::fmt;

use zeroize::{Zeroize as _, Zeroizing};

/// Longest passphrase: far beyond what a person types, and a whole key file by mistake is refused.
pub const PASSPHRASE_BYTES_MAX: usize = 1024;

/// A passphrase as the person gave it. The bytes count as they are; no Unicode normalisation.
///
/// It cannot be copied:
///
/// ```compile_fail,E0599
/// fn copy(passphrase: &amc_vault::Passphrase) -> amc_vault::Passphrase {
///     amc_vault::Passphrase::clone(passphrase)
/// }
/// ```
pub struct Passphrase(Zeroizing<Vec<u8>>);

/// A passphrase that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PassphraseError {
    /// Nothing there.
    #[error("the passphrase is empty; give one of at least one character")]
    Empty,
    /// More than [`PASSPHRASE_BYTES_MAX`].
    #[error("the passphrase is longer than {PASSPHRASE_BYTES_MAX} bytes; is this the right file?")]
    TooLong,
}

impl Passphrase {
    /// Takes the bytes; the vector given away is the only copy and is wiped later.
    ///
    /// # Errors
    /// [`PassphraseError`] when it is empty or longer than [`PASSPHRASE_BYTES_MAX`].
    pub fn new(bytes: Vec<u8>) -> Result<Self, PassphraseError> {
        let bytes = Zeroizing::new(bytes);
        match bytes.len() {
            0 => Err(PassphraseError::Empty),
            1..=PASSPHRASE_BYTES_MAX => Ok(Passphrase(bytes)),
            _ => Err(PassphraseError::TooLong),
        }
    }

    /// Takes the content of a file or a line of a terminal: one line ending at the end is cut off.
    ///
    /// # Errors
    /// As [`Passphrase::new`].
    pub fn from_line(mut line: Vec<u8>) -> Result<Self, PassphraseError> {
        let text = line.strip_suffix(b"\n").map_or(line.as_slice(), |text| text.strip_suffix(b"\r").unwrap_or(text));
        let length = text.len();
        line[length..].zeroize();
        line.truncate(length);
        Passphrase::new(line)
    }

    /// A check by which the same passphrase is known again, without keeping it: a BLAKE3 hash under
    /// a random key that lives as long as the check.
    ///
    /// # Panics
    /// When the operating system has no randomness.
    pub fn check(&self) -> PassphraseCheck {
        let mut key = [0; 32];
        getrandom::fill(&mut key).expect("an operating system that runs a vault has randomness");
        PassphraseCheck { hash: blake3::keyed_hash(&key, &self.0), key: Zeroizing::new(key) }
    }

    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// Knows a passphrase again; see [`Passphrase::check`].
pub struct PassphraseCheck {
    key: Zeroizing<[u8; 32]>,
    hash: blake3::Hash,
}

impl PassphraseCheck {
    /// Whether `text` is the passphrase. Takes the same time wherever they differ.
    pub fn matches(&self, text: &[u8]) -> bool {
        blake3::keyed_hash(&self.key, text) == self.hash
    }
}

impl fmt::Debug for PassphraseCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PassphraseCheck([redacted])")
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_ending_is_not_part_of_it() {
        for (line, want) in [("a b\n", "a b"), ("a b\r\n", "a b"), ("a b", "a b"), ("a\n\n", "a\n"), ("a\r", "a\r")] {
            let passphrase = Passphrase::from_line(line.as_bytes().to_vec()).expect("a passphrase");
            assert_eq!(passphrase.expose(), want.as_bytes(), "{line:?}");
        }
    }

    #[test]
    fn empty_and_endless_ones_are_refused() {
        assert_eq!(Passphrase::from_line(b"\n".to_vec()).err(), Some(PassphraseError::Empty));
        assert_eq!(Passphrase::new(vec![b'x'; 1025]).err(), Some(PassphraseError::TooLong));
    }

    #[test]
    fn it_is_known_again_and_nothing_else_is() {
        let check = Passphrase::new(b"hunter2".to_vec()).expect("a passphrase").check();
        assert!(check.matches(b"hunter2"));
        assert!(!check.matches(b"hunter3") && !check.matches(b"hunter2\n") && !check.matches(b""));
        assert_eq!(format!("{check:?}"), "PassphraseCheck([redacted])");
    }

    #[test]
    fn it_is_not_printed() {
        let passphrase = Passphrase::new(b"hunter2".to_vec()).expect("a passphrase");
        assert_eq!(format!("{passphrase:?}"), "Passphrase([redacted])");
    }
}
