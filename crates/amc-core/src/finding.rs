//! Findings: what a check found, under a code that scripts can rely on.

use serde::{Deserialize, Serialize};

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; changes no verdict.
    Info,
    /// Weakens what follows; the artifact still verifies.
    Warn,
    /// The check failed.
    Error,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal),+ $(,)?) => {
        /// The stable codes of findings. Scripts match on their text.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum FindingCode {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)+
        }

        impl FindingCode {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [FindingCode] = &[$(FindingCode::$variant),+];

            /// The code as scripts see it.
            pub const fn as_str(self) -> &'static str {
                match self { $(FindingCode::$variant => $text),+ }
            }
        }
    };
}

codes! {
    /// Stored bytes do not hash to what the log says.
    EventHashMismatch = "EVENT_HASH_MISMATCH",
    /// An event does not name its predecessor's hash.
    ChainBroken = "CHAIN_BROKEN",
    /// An event's signature does not verify under the key valid at its index.
    EventSignatureInvalid = "EVENT_SIGNATURE_INVALID",
    /// An event stands at another index than it says.
    EventOutOfOrder = "EVENT_OUT_OF_ORDER",
    /// Events that a checkpoint covers are missing at the end.
    LedgerTruncated = "LEDGER_TRUNCATED",
    /// The log is older than a state that somebody cosigned.
    LedgerRollback = "LEDGER_ROLLBACK",
    /// The log disagrees with a state that somebody cosigned.
    LedgerForked = "LEDGER_FORKED",
    /// A checkpoint does not verify.
    CheckpointInvalid = "CHECKPOINT_INVALID",
    /// A payload does not hash to what its event says.
    PayloadHashMismatch = "PAYLOAD_HASH_MISMATCH",
    /// A payload that should be stored is absent.
    PayloadMissing = "PAYLOAD_MISSING",
    /// A session's seal does not describe the session's events.
    SessionSealInvalid = "SESSION_SEAL_INVALID",
    /// A session has no seal.
    SessionUnsealed = "SESSION_UNSEALED",
    /// Session numbers or sequence numbers have a gap.
    SessionGap = "SESSION_GAP",
    /// Wall time went back.
    ClockRollback = "CLOCK_ROLLBACK",
    /// The log was opened after a crash and an incomplete record was cut.
    LedgerRecovered = "LEDGER_RECOVERED",
    /// The key history does not start at a pinned key.
    KeyHistoryUntrusted = "KEY_HISTORY_UNTRUSTED",
    /// A key signed where it was not valid.
    KeyOutOfValidity = "KEY_OUT_OF_VALIDITY",
    /// A key signed after its revocation.
    KeyRevoked = "KEY_REVOKED",
    /// The vault is locked.
    VaultLocked = "VAULT_LOCKED",
    /// The vault cannot be read.
    VaultDamaged = "VAULT_DAMAGED",
    /// The vault or its directory is readable by others.
    VaultPermissions = "VAULT_PERMISSIONS",
    /// An agent reached what it must never reach.
    TrustBoundaryViolated = "TRUST_BOUNDARY_VIOLATED",
    /// Nobody tried what the agent of a session can reach.
    TrustBoundaryUnproven = "TRUST_BOUNDARY_UNPROVEN",
    /// A configuration has no signature.
    ConfigUnsigned = "CONFIG_UNSIGNED",
    /// A configuration's signature does not verify.
    ConfigSignatureInvalid = "CONFIG_SIGNATURE_INVALID",
    /// A configuration went back to an earlier version.
    ConfigVersionRollback = "CONFIG_VERSION_ROLLBACK",
    /// A newer configuration existed when this one was loaded.
    ConfigStale = "CONFIG_STALE",
    /// A signature belongs to a file at another path.
    ConfigPathMismatch = "CONFIG_PATH_MISMATCH",
    /// A trace's receipt does not verify.
    TraceReceiptInvalid = "TRACE_RECEIPT_INVALID",
    /// A trace's receipt names an event that is not in the log.
    TraceEventHashNotFound = "TRACE_EVENT_HASH_NOT_FOUND",
    /// A trace's receipt names another body than the event.
    TraceBodyHashMismatch = "TRACE_BODY_HASH_MISMATCH",
    /// A trace's receipt belongs to another agent.
    TraceAgentMismatch = "TRACE_AGENT_MISMATCH",
    /// A trace's receipt belongs to another session.
    TraceSessionMismatch = "TRACE_SESSION_MISMATCH",
    /// A receipt was used more than once.
    TraceReceiptReplay = "TRACE_RECEIPT_REPLAY",
    /// A trace line of a call has no receipt.
    TraceReceiptMissing = "TRACE_RECEIPT_MISSING",
    /// Fewer than nine in ten trace lines have a valid receipt.
    TraceCorrelationLow = "TRACE_CORRELATION_LOW",
    /// A run's seal does not verify.
    RunSealInvalid = "RUN_SEAL_INVALID",
    /// A run that the log records is absent.
    RunMissing = "RUN_MISSING",
    /// The score does not recompute.
    ScoreMismatch = "SCORE_MISMATCH",
    /// This program does not have the scorer that made the report.
    ScorerUnsupported = "SCORER_UNSUPPORTED",
    /// Nothing pinned vouches for the issuer.
    IssuerUntrusted = "ISSUER_UNTRUSTED",
    /// A bundle member is not what the manifest says.
    BundleMemberMismatch = "BUNDLE_MEMBER_MISMATCH",
    /// A bundle member that no manifest names.
    BundleMemberUnexpected = "BUNDLE_MEMBER_UNEXPECTED",
    /// The file is not a canonical bundle.
    BundleMalformed = "BUNDLE_MALFORMED",
    /// A certificate's time is over.
    CertExpired = "CERT_EXPIRED",
    /// A certificate was revoked by its issuer.
    CertRevoked = "CERT_REVOKED",
    /// A revocation comes from somebody else than the issuer.
    RevocationIssuerMismatch = "REVOCATION_ISSUER_MISMATCH",
    /// Evidence says it is attested and no attestation is there.
    AttestationMissing = "ATTESTATION_MISSING",
    /// An attestation does not verify.
    AttestationInvalid = "ATTESTATION_INVALID",
    /// A drill ran another artifact than the agent's sessions.
    AssuranceArtifactMismatch = "ASSURANCE_ARTIFACT_MISMATCH",
    /// Sessions are missing from the agent's numbering.
    CherryPickGap = "CHERRY_PICK_GAP",
    /// A claim is higher than the evidence.
    FlagUnsupportedClaim = "FLAG_UNSUPPORTED_CLAIM",
    /// Level 5 of a high-risk question needs sandbox evidence.
    FlagSandboxRequired = "FLAG_SANDBOX_REQUIRED",
    /// The egress proxy refused a connection.
    NetworkEgressBlocked = "NETWORK_EGRESS_BLOCKED",
    /// The agent sent a provider key of its own; it was not used.
    AgentProvidedKeyIgnored = "AGENT_PROVIDED_KEY_IGNORED",
    /// A call came without a valid lease.
    LeaseInvalid = "LEASE_INVALID",
    /// The provider could not be reached or broke off.
    UpstreamFailed = "UPSTREAM_FAILED",
    /// An agent ran in a sandbox.
    SandboxExecutionEnabled = "SANDBOX_EXECUTION_ENABLED",
    /// A sandbox did not hold what it promised.
    SandboxPostureFailed = "SANDBOX_POSTURE_FAILED",
    /// A sandbox left something behind.
    SandboxCleanupFailed = "SANDBOX_CLEANUP_FAILED",
}

impl std::fmt::Display for FindingCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One finding: a code, its weight, what it is about, and a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// The stable code.
    pub code: FindingCode,
    /// The weight.
    pub severity: Severity,
    /// What it is about: `evidence#41`, `gateway.yaml`, `evidence/events`.
    pub subject: String,
    /// What happened and what to do next.
    pub message: String,
}

impl Finding {
    /// A finding that fails the check.
    pub fn error(code: FindingCode, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Finding { code, severity: Severity::Error, subject: subject.into(), message: message.into() }
    }

    /// A finding that weakens what follows.
    pub fn warn(code: FindingCode, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Finding { severity: Severity::Warn, ..Self::error(code, subject, message) }
    }

    /// A finding that is worth knowing.
    pub fn info(code: FindingCode, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Finding { severity: Severity::Info, ..Self::error(code, subject, message) }
    }

    /// Whether this finding fails the check.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}: {}", self.code, self.subject, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_read_the_same_everywhere() {
        for code in FindingCode::ALL {
            assert_eq!(serde_json::to_string(code).expect("serialises"), format!("\"{code}\""));
        }
    }
}
