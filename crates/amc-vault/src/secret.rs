//! Secrets in memory: 32-byte keys, and the provider secrets with their names.

use std::fmt;
use std::str::FromStr;

use zeroize::{Zeroize as _, ZeroizeOnDrop, Zeroizing};

/// Longest secret: real provider keys have some hundred bytes, service account files some thousand.
pub const SECRET_BYTES_MAX: usize = 4096;
/// Longest name, its `provider/` included.
pub(crate) const NAME_BYTES_MAX: usize = 73;
const NAME_PREFIX: &str = "provider/";

/// 32 secret bytes on the heap, in one place, wiped when dropped.
#[derive(ZeroizeOnDrop)]
pub(crate) struct Secret32(Box<[u8; 32]>);

impl Secret32 {
    /// 32 bytes from the operating system.
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        let mut secret = Secret32(Box::new([0; 32]));
        getrandom::fill(secret.0.as_mut_slice())?;
        Ok(secret)
    }

    pub(crate) fn copy_of(bytes: &[u8; 32]) -> Self {
        let mut secret = Secret32(Box::new([0; 32]));
        secret.0.copy_from_slice(bytes);
        secret
    }

    pub(crate) fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn expose_mut(&mut self) -> &mut [u8; 32] {
        &mut self.0
    }
}

/// The name of a secret: `provider/<name>`, where the name is `[a-z0-9][a-z0-9_-]{0,63}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SecretName(String);

/// The value of a secret. Wiped when dropped, never printed, never copied.
pub struct SecretValue(Zeroizing<Vec<u8>>);

/// A name or a value that a vault does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Not `provider/<name>`.
    #[error(
        "{0:?} is not the name of a secret: write provider/ and a name of at most 64 of a-z, 0-9, _ and -, as in provider/openai"
    )]
    Name(String),
    /// An empty value.
    #[error("the secret's value is empty; pass it on standard input")]
    Empty,
    /// A value above the bound.
    #[error("the secret's value is longer than {SECRET_BYTES_MAX} bytes")]
    TooLong,
}

impl SecretName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`SecretError::Name`] when it is not `provider/<name>`.
    pub fn new(text: &str) -> Result<Self, SecretError> {
        let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let valid = text.strip_prefix(NAME_PREFIX).map(str::as_bytes).is_some_and(|name| {
            name.first().is_some_and(plain) && name.iter().all(|byte| plain(byte) || b"_-".contains(byte))
        });
        if valid && text.len() <= NAME_BYTES_MAX {
            Ok(SecretName(text.to_owned()))
        } else {
            Err(SecretError::Name(text.chars().take(80).collect()))
        }
    }

    /// The name of a provider's secret.
    ///
    /// # Errors
    /// [`SecretError::Name`] when `provider` is no such name.
    pub fn provider(provider: &str) -> Result<Self, SecretError> {
        SecretName::new(&format!("{NAME_PREFIX}{provider}"))
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretName {
    type Err = SecretError;
    fn from_str(text: &str) -> Result<Self, SecretError> {
        SecretName::new(text)
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl SecretValue {
    /// Takes the bytes; the vector given away is the only copy and is wiped later.
    ///
    /// # Errors
    /// [`SecretError`] when it is empty or longer than [`SECRET_BYTES_MAX`].
    pub fn new(bytes: Vec<u8>) -> Result<Self, SecretError> {
        let bytes = Zeroizing::new(bytes);
        match bytes.len() {
            0 => Err(SecretError::Empty),
            1..=SECRET_BYTES_MAX => Ok(SecretValue(bytes)),
            _ => Err(SecretError::TooLong),
        }
    }

    /// Takes what was read from standard input or a terminal: line endings at the end are cut off.
    ///
    /// # Errors
    /// As [`SecretValue::new`].
    pub fn from_line(mut line: Vec<u8>) -> Result<Self, SecretError> {
        let length = line.iter().rposition(|byte| !b"\r\n".contains(byte)).map_or(0, |last| last + 1);
        line[length..].zeroize();
        line.truncate(length);
        SecretValue::new(line)
    }

    /// The bytes, for the one place that hands them on.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        let longest = format!("provider/{}", "a".repeat(64));
        for good in ["provider/openai", "provider/0", "provider/my-own_2", longest.as_str()] {
            assert_eq!(SecretName::new(good).map(|name| name.to_string()).as_deref(), Ok(good));
        }
        let too_long = format!("{longest}a");
        for bad in ["", "openai", "provider/", "provider/-a", "provider/A", "provider/a/b", "other/a", &too_long] {
            assert!(matches!(SecretName::new(bad), Err(SecretError::Name(_))), "{bad}");
        }
    }

    #[test]
    fn values_are_bounded_and_not_printed() {
        assert_eq!(SecretValue::from_line(b"\r\n".to_vec()).err(), Some(SecretError::Empty));
        assert_eq!(SecretValue::new(vec![1; 4097]).err(), Some(SecretError::TooLong));
        let value = SecretValue::from_line(b"sk-1\n".to_vec()).expect("a value");
        assert_eq!(value.expose(), b"sk-1");
        assert_eq!(format!("{value:?}"), "SecretValue([redacted])");
    }
}
