//! Identifiers. Each is its own type, valid by construction.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::limits;

/// A text that breaks the rule of the id it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}: {rule}")]
pub struct IdError {
    /// The refused text, cut to a printable length.
    pub text: String,
    /// What it should have been, with its article.
    pub what: &'static str,
    /// The rule, for a person.
    pub rule: &'static str,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Checks `text` against the rule of this id.
            ///
            /// # Errors
            /// [`IdError`] with the rule, when it does not hold.
            pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                let valid: fn(&str) -> bool = $valid;
                if valid(&text) {
                    Ok($name(text))
                } else {
                    Err(IdError { text: text.chars().take(80).collect(), what: $what, rule: $rule })
                }
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                $name::new(text)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $name::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }
    };
}

fn name_of(text: &str, also: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.len() <= limits::NAME_BYTES_MAX
        && bytes.first().is_some_and(plain)
        && bytes.iter().all(|byte| plain(byte) || also.contains(byte))
}

text_id!(
    /// An agent: `[a-z0-9][a-z0-9_-]{0,63}`.
    AgentId,
    "an agent id",
    "it starts with a-z or 0-9 and goes on with at most 63 of a-z, 0-9, _ and -",
    |text| name_of(text, b"_-")
);

text_id!(
    /// A workspace: `[a-z0-9][a-z0-9.-]{0,63}`. The log origins start with it.
    WorkspaceName,
    "a workspace name",
    "it starts with a-z or 0-9 and goes on with at most 63 of a-z, 0-9, . and -",
    |text| name_of(text, b".-")
);

text_id!(
    /// One request through the gateway, given by the gateway or taken from the client's own header:
    /// 1 to 128 of `[A-Za-z0-9._:-]`.
    RequestId,
    "a request id",
    "it is 1 to 128 of A-Z, a-z, 0-9, . _ : and -",
    |text| {
        (1..=limits::REQUEST_ID_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte))
    }
);

text_id!(
    /// A certificate: `cert-` and 32 lowercase hex digits, derived from what it certifies.
    CertificateId,
    "a certificate id",
    "it is cert- followed by 32 lowercase hex digits",
    |text| text.strip_prefix("cert-").is_some_and(|rest| rest.len() == 32 && crate::digest::unhex(rest).is_some())
);

text_id!(
    /// A run: `run-` and 32 lowercase hex digits, derived from the report's inputs.
    RunId,
    "a run id",
    "it is run- followed by 32 lowercase hex digits",
    |text| text.strip_prefix("run-").is_some_and(|rest| rest.len() == 32 && crate::digest::unhex(rest).is_some())
);

text_id!(
    /// A lease, by its public id (never its token): `lease-` and 16 lowercase hex digits.
    LeaseId,
    "a lease id",
    "it is lease- followed by 16 lowercase hex digits",
    |text| text.strip_prefix("lease-").is_some_and(|rest| rest.len() == 16 && crate::digest::unhex(rest).is_some())
);

/// A session: a ULID, 16 bytes in events and 26 characters in text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; 16]);

impl SessionId {
    /// A session id from its time (milliseconds since the epoch, low 48 bits) and 80 random bits.
    pub fn from_parts(wall_ms: u64, random: [u8; 10]) -> Self {
        let mut bytes = [0u8; 16];
        bytes[..6].copy_from_slice(&wall_ms.to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&random);
        SessionId(bytes)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ulid::Ulid::from_bytes(self.0).fmt(f)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

impl FromStr for SessionId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let refused = || IdError {
            text: text.chars().take(80).collect(),
            what: "a session id",
            rule: "it is a ULID of 26 upper-case characters",
        };
        let parsed = ulid::Ulid::from_string(text).map_err(|_| refused())?;
        let id = SessionId(parsed.to_bytes());
        if id.to_string() == text { Ok(id) } else { Err(refused()) }
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
        } else {
            <[u8; 16]>::deserialize(deserializer).map(SessionId)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_ids_follow_the_rule() {
        let longest = "a".repeat(64);
        for good in ["a", "0", "my-agent_2", longest.as_str()] {
            assert!(AgentId::new(good).is_ok(), "{good}");
        }
        let too_long = "a".repeat(65);
        for bad in ["", "-a", "_a", "A", "a.b", "a/b", "é", too_long.as_str(), "a\n"] {
            assert!(AgentId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_decoded_id_is_checked() {
        let bytes = crate::codec::encode("NOT AN ID");
        assert!(crate::codec::decode_strict::<AgentId>(&bytes).is_err());
        assert!(serde_json::from_str::<AgentId>("\"../etc\"").is_err());
    }

    #[test]
    fn sessions_are_ulids() {
        let id = SessionId::from_parts(1_700_000_000_000, [7; 10]);
        assert_eq!(id.to_string().len(), 26);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.to_string().to_lowercase().parse::<SessionId>().is_err(), "one value, one spelling");
        assert_eq!(crate::codec::encode(&id).len(), 16);
    }
}
