//! The gateway's channel: what `amc-gateway` may ask and report.
//!
//! The gateway holds no key. It submits typed fields; the monitor builds, orders and signs the
//! event, and takes it only for a lease of an open session.

use amc_core::kinds::{
    AgentKeyIgnored, ConfigState, EgressBlocked, EgressStarted, EgressTunnel, GatewayReloaded, GatewayStarted,
    LeaseScope, LlmRequest, LlmResponse, ProbeAttempt, ProbeTarget, UpstreamAttempt, WebSocketClosed,
};
use amc_core::{AgentId, Digest, LeaseId, SessionId};
use serde::{Deserialize, Serialize};

use super::Refusal;

/// What the gateway says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GatewayRequest {
    /// First message of a connection, and again when the gateway is to read its configuration again;
    /// the monitor loads and judges `gateway.yaml` and answers with [`GatewayReply::Welcome`].
    Hello {
        /// [`super::PROTOCOL_VERSION`].
        protocol: u16,
    },
    /// The gateway listens.
    Started(GatewayStarted),
    /// Whose lease has this token? Only its SHA-256 travels.
    Authorize {
        /// SHA-256 of the token's text.
        token_sha256: Digest,
    },
    /// Append evidence; the answer comes when it is durable.
    Record {
        /// What was observed, and for whom.
        event: Box<GatewayEvent>,
        /// The answer is to carry the event's receipt.
        receipt: bool,
        /// [`GatewayReply::Accepted`] is to come as soon as the log has taken the event.
        notice: bool,
    },
    /// The receipts of a call of the lease's agent, by the gateway's request id or the client's own.
    Receipts {
        /// Who asks: two agents may choose the same id.
        lease: LeaseId,
        /// Either id.
        request_id: String,
    },
    /// The egress proxy listens.
    EgressStarted(EgressStarted),
    /// The gateway has read its configuration again.
    Reloaded(GatewayReloaded),
    /// What a probe on the agent's side is to try.
    ProbePlan {
        /// Whose side.
        lease: LeaseId,
    },
    /// What a probe on the agent's side gave; answered with [`GatewayReply::Probed`] when it is durable.
    Probe(Box<ReportedProbe>),
}

/// What a probe gave, as the agent's side reports it. Only a lease that no wrapper uses can report one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedProbe {
    /// The lease that it came with.
    pub lease: LeaseId,
    /// The lease's open session.
    pub session: SessionId,
    /// Every attempt, at most [`PROBE_ATTEMPTS_MAX`].
    pub attempts: Vec<ReportedAttempt>,
    /// The user of the process that sent it, where that process is on this machine and in the
    /// gateway's network namespace: seen by the gateway, not reported.
    pub peer_uid: Option<u32>,
}

/// One attempt of a probe on the agent's side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedAttempt {
    /// What it tried to get at.
    pub target: ProbeTarget,
    /// How and where, at most [`PROBE_SUBJECT_BYTES_MAX`] bytes.
    pub subject: String,
    /// What it gave there, before any control.
    pub got: ReportedGot,
}

/// What an attempt gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportedGot {
    /// It worked.
    Reached,
    /// It was refused.
    Denied,
    /// There is nothing.
    Absent,
    /// It broke, and says nothing.
    Unclear,
}

/// Most attempts of one probe, and bytes of a subject: together they stay within an event's bound.
pub const PROBE_ATTEMPTS_MAX: usize = 448;
/// As said at [`PROBE_ATTEMPTS_MAX`].
pub const PROBE_SUBJECT_BYTES_MAX: usize = 112;

/// Evidence from the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayEvent {
    /// The lease that the call used.
    pub lease: LeaseId,
    /// Which of the lease's sessions it began in; a lease without a wrapper has one per UTC day.
    pub session: SessionId,
    /// What was observed.
    pub fields: GatewayFields,
    /// The body.
    pub payload: Option<CapturedPayload>,
}

/// The kinds that the gateway may submit. Where one has a `request_index`, the monitor fills it in: by its
/// `request_id`, from the request's event that came before it on this connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GatewayFields {
    /// A request left.
    Request(LlmRequest),
    /// An answer passed.
    Response(LlmResponse),
    /// The agent sent a key of its own.
    KeyIgnored(AgentKeyIgnored),
    /// An attempt that is made again.
    Attempt(UpstreamAttempt),
    /// A WebSocket ended.
    WebSocket(WebSocketClosed),
    /// A connection through the egress proxy ended.
    Egress(EgressTunnel),
    /// The egress proxy refused.
    Blocked(EgressBlocked),
}

/// A body as captured by a keyless process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedPayload {
    /// SHA-256 of the bytes that passed.
    pub wire_sha256: Digest,
    /// Their number.
    pub wire_len: u64,
    /// Media type.
    pub media_type: String,
    /// How `bytes` relate to what passed.
    pub capture: Capture,
    /// The bytes to store, at most [`amc_core::limits::PAYLOAD_STORED_BYTES_MAX`].
    #[serde(with = "serde_bytes_vec")]
    pub bytes: Vec<u8>,
}

/// How the stored bytes relate to what passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Capture {
    /// They are the same.
    Full,
    /// Secrets are replaced; the names of the rules that applied.
    Redacted(String),
    /// Only the beginning is kept (and redacted, where rules are named).
    Truncated(String),
    /// Nothing is kept.
    Omitted,
}

/// What the monitor answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GatewayReply {
    /// The configuration in force and what the gateway needs to work by it.
    Welcome(Box<Welcome>),
    /// Done.
    Done,
    /// The lease that the token stands for.
    Lease(LeaseGrant),
    /// The event is durable.
    Recorded(Recorded),
    /// The log has taken the event; whether it became durable is said by the answer under the same id, which a fast
    /// flush may send first.
    Accepted,
    /// The receipts that exist by now.
    Receipts(ReceiptPair),
    /// Understood and not carried out.
    Refused(Refusal),
    /// What a probe on the agent's side is to try: the home's path and trusted processes.
    ProbePlan {
        /// The home.
        home: String,
        /// Name and process id.
        trusted: Vec<(String, i32)>,
    },
    /// The probe is judged and durable.
    Probed {
        /// Index of the event.
        index: u64,
        /// The attempts, decided.
        attempts: Vec<ProbeAttempt>,
    },
}

/// What a gateway starts with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// `gateway.yaml` as the monitor read and judged it.
    pub config: String,
    /// Its signed version; 0 when unsigned.
    pub config_version: u64,
    /// What its signature is worth.
    pub config_state: ConfigState,
    /// Provider secrets by provider name.
    pub secrets: Vec<(String, String)>,
    /// 32 bytes for keyed commitments to redacted secrets.
    pub commitment_key: Digest,
    /// The monitor's verifier key, as agents see it in `x-amc-monitor-key`.
    pub monitor_key: String,
}

impl std::fmt::Debug for Welcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Welcome")
            .field("config_version", &self.config_version)
            .field("config_state", &self.config_state)
            .field("secrets", &format_args!("[{} redacted]", self.secrets.len()))
            .finish_non_exhaustive()
    }
}

/// Who a lease speaks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseGrant {
    /// The lease.
    pub lease: LeaseId,
    /// The agent.
    pub agent: AgentId,
    /// Its open session.
    pub session: SessionId,
    /// What it may be used for.
    pub limits: LeaseLimits,
    /// Wall time (nanoseconds since the epoch) from which on the monitor has to be asked again, whatever
    /// [`crate::generation`] says.
    pub holds_until_ns: i64,
}

/// What a lease may be used for. The default bounds nothing: what `amc wrap` gives its agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseLimits {
    /// What for.
    pub scopes: Vec<LeaseScope>,
    /// Providers that may be called; empty: all.
    pub providers: Vec<String>,
    /// Models that may be asked for; empty: all.
    pub models: Vec<String>,
    /// Where the egress proxy may go beyond what the configuration allows, `host:port`.
    pub allow: Vec<String>,
    /// Requests per minute; 0: any number.
    pub requests_per_minute: u32,
    /// Calls at the same time; 0: any number.
    pub concurrency: u32,
}

impl Default for LeaseLimits {
    fn default() -> Self {
        LeaseLimits {
            scopes: vec![LeaseScope::Llm, LeaseScope::Egress],
            providers: Vec::new(),
            models: Vec::new(),
            allow: Vec::new(),
            requests_per_minute: 0,
            concurrency: 0,
        }
    }
}

/// Where durable evidence stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Index in the evidence log.
    pub index: u64,
    /// event_hash.
    pub event_hash: Digest,
    /// The receipt, for kinds that have one.
    pub receipt: Option<String>,
}

/// The receipts of one call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptPair {
    /// Of the request.
    pub request: Option<String>,
    /// Of the answer.
    pub response: Option<String>,
}

mod serde_bytes_vec {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        <&[u8]>::deserialize(deserializer).map(<[u8]>::to_vec)
    }
}
