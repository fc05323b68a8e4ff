//! Trust tiers: how evidence came in decides what it can carry, never what it says.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The trust tier of an event, ordered from weakest to strongest.
///
/// Encoded as one byte in events (0 to 3) and by name in text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Tier {
    /// Ingested without attestation.
    SelfReported = 0,
    /// Imported, and later attested by the auditor's signature.
    Attested = 1,
    /// Captured live by the monitor or the gateway.
    Observed = 2,
    /// Observed under a sandbox posture that was proven for that very session.
    ObservedHardened = 3,
}

impl Tier {
    /// All tiers, weakest first.
    pub const ALL: [Tier; 4] = [Tier::SelfReported, Tier::Attested, Tier::Observed, Tier::ObservedHardened];

    /// The byte that stands for this tier in an event.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The tier with this byte, if there is one.
    pub fn from_code(code: u8) -> Option<Tier> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// The name that reports and JSON use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Tier::SelfReported => "SELF_REPORTED",
            Tier::Attested => "ATTESTED",
            Tier::Observed => "OBSERVED",
            Tier::ObservedHardened => "OBSERVED_HARDENED",
        }
    }

    /// The weight in a score, in basis points.
    pub const fn weight_bp(self) -> u32 {
        match self {
            Tier::SelfReported => 4_000,
            Tier::Attested => 8_000,
            Tier::Observed => 10_000,
            Tier::ObservedHardened => 11_000,
        }
    }
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Tier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(self.as_str())
        } else {
            serializer.serialize_u8(self.code())
        }
    }
}

impl<'de> Deserialize<'de> for Tier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let name = String::deserialize(deserializer)?;
            Self::ALL
                .into_iter()
                .find(|tier| tier.as_str() == name)
                .ok_or_else(|| de::Error::custom(format!("unknown trust tier {name:?}")))
        } else {
            let code = u8::deserialize(deserializer)?;
            Self::from_code(code).ok_or_else(|| de::Error::custom(format!("unknown trust tier {code}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_in_events_a_name_in_text() {
        for tier in Tier::ALL {
            assert_eq!(crate::codec::encode(&tier), vec![tier.code()]);
            let text = serde_json::to_string(&tier).expect("serialises");
            assert_eq!(serde_json::from_str::<Tier>(&text).expect("parses"), tier);
        }
        assert!(crate::codec::decode_strict::<Tier>(&[4]).is_err());
    }
}
