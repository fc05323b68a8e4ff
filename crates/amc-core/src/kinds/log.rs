//! Kinds 1 to 99: what every log says about itself.

use serde::{Deserialize, Serialize};

use crate::Digest;

/// Who writes a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Writes the evidence log.
    Monitor,
    /// Writes the audit log.
    Auditor,
}

impl Role {
    /// `monitor` or `auditor`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Monitor => "monitor",
            Role::Auditor => "auditor",
        }
    }

    /// The last part of the origin of this role's log: `evidence` or `audit`.
    pub const fn log_name(self) -> &'static str {
        match self {
            Role::Monitor => "evidence",
            Role::Auditor => "audit",
        }
    }

    /// The directory of this role's log with this number, below `logs/`: `evidence`, then
    /// `evidence-2` for the log `<workspace>/evidence/2` that succeeded it, and so on.
    pub fn log_dir(self, number: u32) -> String {
        match number {
            0 | 1 => self.log_name().to_owned(),
            number => format!("{}-{number}", self.log_name()),
        }
    }

    /// The number of the log that stands in a directory of this name, where it is one of this role's.
    pub fn log_number(self, dir: &str) -> Option<u32> {
        match dir.strip_prefix(self.log_name())? {
            "" => Some(1),
            rest => rest.strip_prefix('-')?.parse().ok().filter(|number| *number > 1 && self.log_dir(*number) == dir),
        }
    }

    /// The other role, which is this role's witness.
    pub const fn other(self) -> Role {
        match self {
            Role::Monitor => Role::Auditor,
            Role::Auditor => Role::Monitor,
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The end of a log: its origin, number of events and RFC 6962 root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogHead {
    /// The log's origin.
    pub origin: String,
    /// Number of events.
    pub size: u64,
    /// RFC 6962 root over them.
    pub root: Digest,
}

/// The first event of every log: it introduces the keys, which trust policies pin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOpened {
    /// The log's origin, `<workspace>/evidence` or `<workspace>/audit`.
    pub origin: String,
    /// Who writes it.
    pub role: Role,
    /// Ed25519 public key that signs this log's events and checkpoints.
    pub log_public: Digest,
    /// Ed25519 public key with which this role cosigns the other's checkpoints.
    pub witness_public: Digest,
    /// The release that opened it.
    pub software: String,
    /// The log that this one succeeds, where there was one.
    pub predecessor: Option<LogHead>,
}

/// A purpose that a key serves; no key serves two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyPurpose {
    /// Signs the events and checkpoints of the role's log (and the monitor's receipts, the
    /// auditor's envelopes).
    Log,
    /// Cosigns the other role's checkpoints.
    Witness,
}

/// A new key for this log, signed by the old one; it counts from the next event on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRotated {
    /// What the key is for.
    pub purpose: KeyPurpose,
    /// The new Ed25519 public key.
    pub public: Digest,
}

/// The log was opened after a crash: an incomplete last record was cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecovered {
    /// Bytes that were cut, all of them above the newest signed checkpoint.
    pub bytes_cut: u64,
}

/// The wall clock and the boot clock moved apart by more than two seconds since the event before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockStep {
    /// Wall time passed minus boot time passed, in nanoseconds.
    pub delta_ns: i64,
}

/// The wall clock went back since the event before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockRollback {
    /// How far back, in nanoseconds.
    pub by_ns: u64,
}

/// This role, as a witness, cosigned a checkpoint of the other role's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointCosigned {
    /// What was cosigned.
    pub head: LogHead,
    /// When, in seconds since the epoch, as in the cosignature.
    pub time_s: u64,
    /// The whole signed note with the log's signature and this cosignature.
    pub note: String,
}

/// A key of the *other* role no longer counts from an index on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRevoked {
    /// The other role's log.
    pub origin: String,
    /// What the key was for.
    pub purpose: KeyPurpose,
    /// The key.
    pub public: Digest,
    /// First index at which nothing it signed counts.
    pub from_index: u64,
    /// Why, in the auditor's words.
    pub reason: String,
}

/// A log of the *other* role ended and goes on in a new one: what lets a verifier that pins the old
/// log accept the new one, and no second one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSucceeded {
    /// The newest state of the old log that is known to have been signed.
    pub old: LogHead,
    /// The new log's origin.
    pub origin: String,
    /// Ed25519 public key that signs the new log from its first event on.
    pub log_public: Digest,
    /// event_hash of the new log's first event.
    pub opening: Digest,
    /// The finding code that says why the old log ended.
    pub code: String,
    /// The same in words.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logs_directory_has_one_name() {
        for (dir, number) in [("evidence", Some(1)), ("evidence-2", Some(2)), ("evidence-10", Some(10))] {
            assert_eq!(Role::Monitor.log_number(dir), number, "{dir}");
            assert_eq!(Role::Monitor.log_dir(number.expect("it has one")), dir);
        }
        for dir in ["evidence-", "evidence-0", "evidence-1", "evidence-02", "evidence-+2", "evidence2", "audit", "logs"]
        {
            assert_eq!(Role::Monitor.log_number(dir), None, "{dir}");
        }
    }
}
