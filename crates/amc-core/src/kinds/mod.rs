//! The registry of event kinds: a number and a struct for each, as `docs/formats/kinds.md` lists.
//!
//! A published struct is frozen: a change is a new kind with a new number, and numbers are never
//! used again. A kind that a reader does not know is checked as an envelope and never counts.
//!
//! | numbers | owner |
//! |---|---|
//! | 1–99 | any log: opening, keys, clock, recovery, witnessing |
//! | 100–199 | monitor: sessions, process, configuration, leases, what is reported |
//! | 200–299 | gateway: model calls, egress |
//! | 300–399 | auditor: configuration versions, runs, attestations |

mod auditor;
mod gateway;
mod log;
mod monitor;
mod reported;

pub use auditor::*;
pub use gateway::*;
pub use log::*;
pub use monitor::*;
pub use reported::*;

use crate::codec::{self, CodecError};

macro_rules! kinds {
    ($($number:literal $variant:ident $name:literal),+ $(,)?) => {
        /// The typed fields of an event.
        ///
        /// Serialises untagged for people (`--json`); in events the kind number stands beside the
        /// encoded fields, so use [`Fields::kind`] and [`Fields::encode`].
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
        #[serde(untagged)]
        pub enum Fields {
            $(
                #[doc = concat!("`", $name, "`, kind ", stringify!($number), ".")]
                $variant($variant),
            )+
        }

        impl Fields {
            /// The kind number of these fields.
            pub const fn kind(&self) -> u16 {
                match self { $(Fields::$variant(_) => $number),+ }
            }

            /// The fields as canonical postcard.
            pub fn encode(&self) -> Vec<u8> {
                match self { $(Fields::$variant(fields) => codec::encode(fields)),+ }
            }

            /// Decodes the fields of `kind`; `None` for a kind that this release does not know.
            ///
            /// # Errors
            /// [`CodecError`] when the bytes are not the canonical encoding of a known kind.
            pub fn decode(kind: u16, bytes: &[u8]) -> Result<Option<Fields>, CodecError> {
                match kind {
                    $($number => codec::decode_strict::<$variant>(bytes).map(|fields| Some(Fields::$variant(fields))),)+
                    _ => Ok(None),
                }
            }
        }

        $(
            impl From<$variant> for Fields {
                fn from(fields: $variant) -> Self { Fields::$variant(fields) }
            }
        )+

        /// The name of a kind, or `None` when this release does not know it.
        pub const fn kind_name(kind: u16) -> Option<&'static str> {
            match kind { $($number => Some($name),)+ _ => None }
        }

        /// Every known kind: number and name, ascending.
        pub const KINDS: &[(u16, &str)] = &[$(($number, $name)),+];
    };
}

kinds! {
    1 LogOpened "log_opened",
    2 KeyRotated "key_rotated",
    3 LogRecovered "log_recovered",
    4 ClockStep "clock_step",
    5 ClockRollback "clock_rollback",
    6 CheckpointCosigned "checkpoint_cosigned",
    7 KeyRevoked "key_revoked",
    8 LogSucceeded "log_succeeded",
    100 SessionOpen "session_open",
    101 SessionSeal "session_seal",
    102 AgentHead "agent_head",
    103 SessionContinued "session_continued",
    104 SessionContinues "session_continues",
    110 ProcessOutput "process_output",
    111 ProcessExit "process_exit",
    112 EnvironmentBuilt "environment_built",
    120 ConfigLoaded "config_loaded",
    121 LeaseIssued "lease_issued",
    122 LeaseRevoked "lease_revoked",
    123 LeaseTerms "lease_terms",
    130 MonitorStarted "monitor_started",
    131 MonitorStopped "monitor_stopped",
    140 BoundaryProbe "boundary_probe",
    141 BoundaryDeclared "boundary_declared",
    150 Ingested "ingested",
    160 TraceLines "trace_lines",
    165 AgentRegistered "agent_registered",
    200 LlmRequest "llm_request",
    201 LlmResponse "llm_response",
    202 AgentKeyIgnored "agent_key_ignored",
    203 GatewayStarted "gateway_started",
    204 GatewayReloaded "gateway_reloaded",
    205 UpstreamAttempt "upstream_attempt",
    206 WebSocketClosed "websocket_closed",
    210 EgressStarted "egress_started",
    211 EgressTunnel "egress_tunnel",
    212 EgressBlocked "egress_blocked",
    300 ConfigSigned "config_signed",
    301 RunRecorded "run_recorded",
    302 Attested "attested",
    303 BoundaryEpoch "boundary_epoch",
    320 CertificateIssued "certificate_issued",
    321 CertificateRevoked "certificate_revoked",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ascend_and_names_are_unique() {
        assert!(KINDS.is_sorted_by(|a, b| a.0 < b.0));
        let names: std::collections::BTreeSet<_> = KINDS.iter().map(|(_, name)| name).collect();
        assert_eq!(names.len(), KINDS.len());
    }

    #[test]
    fn fields_round_trip_and_unknown_kinds_are_envelopes() {
        let fields = Fields::from(ClockRollback { by_ns: 5 });
        let bytes = fields.encode();
        assert_eq!(Fields::decode(fields.kind(), &bytes), Ok(Some(fields)));
        assert_eq!(Fields::decode(65_000, b"anything"), Ok(None));
        assert!(Fields::decode(5, b"\x0a\x0b").is_err());
    }
}
