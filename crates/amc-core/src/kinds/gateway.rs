//! Kinds 200 to 299: what the gateway saw of model calls and of egress.
//!
//! Everything that scoring needs from a body is extracted by the gateway into these fields, since
//! a score never reads a body.

use serde::{Deserialize, Serialize};

use super::ConfigState;
use crate::{Digest, LeaseId};

/// The shape of a provider's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// OpenAI and what is compatible with it.
    Openai,
    /// Anthropic's Messages API.
    Anthropic,
    /// Google's Gemini API.
    Gemini,
}

/// A request left for the provider. The payload is its body as sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LlmRequest {
    /// The gateway's id of this call.
    pub request_id: String,
    /// The id that the client chose, where it sent one.
    pub client_request_id: Option<String>,
    /// The provider's name in the signed configuration.
    pub provider: String,
    /// The API's shape.
    pub dialect: Dialect,
    /// HTTP method.
    pub method: String,
    /// Path at the provider, without the query.
    pub path: String,
    /// The lease that was used.
    pub lease: LeaseId,
    /// The model asked for.
    pub model: Option<String>,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// SHA-256 of the system prompt's text, where there is one.
    pub system_prompt_sha256: Option<Digest>,
    /// Number of tools offered to the model.
    pub tools_offered: u32,
    /// Version of the gateway's configuration in force; 0 when unsigned.
    pub config_version: u64,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallOutcome {
    /// The answer arrived whole, whatever its status.
    Complete,
    /// The provider stopped halfway.
    UpstreamTruncated,
    /// The provider could not be reached or did not answer.
    UpstreamFailed,
    /// The agent left before the end, or its lease ended.
    ClientLeft,
}

/// Tokens as the provider counted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens in.
    pub input_tokens: u64,
    /// Tokens out.
    pub output_tokens: u64,
}

/// An answer passed back to the agent. The payload is its body as it passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LlmResponse {
    /// The gateway's id of this call.
    pub request_id: String,
    /// Index of the `llm_request`.
    pub request_index: u64,
    /// The provider's name in the signed configuration.
    pub provider: String,
    /// HTTP status; 0 when there was none.
    pub status: u16,
    /// How it ended.
    pub outcome: CallOutcome,
    /// The model that answered, as it says.
    pub model: Option<String>,
    /// Tokens, where the provider said them.
    pub usage: Option<Usage>,
    /// Tool calls that the model made.
    pub tool_calls: u32,
    /// Whether the answer carries the provider's own refusal marker.
    pub refusal: bool,
    /// From the request's start to the answer's first byte, in microseconds.
    pub first_byte_us: u64,
    /// From the request's start to the end, in microseconds.
    pub duration_us: u64,
    /// Which attempt this was, from 1.
    pub attempt: u32,
}

/// The agent sent a provider key of its own; it was replaced and not recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentKeyIgnored {
    /// The provider it was meant for.
    pub provider: String,
    /// The header that carried it.
    pub header: String,
}

/// The gateway began to listen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayStarted {
    /// The release that runs.
    pub software: String,
    /// Address and port.
    pub listen: String,
    /// Names of the configured providers, ascending, each with its base URL.
    pub providers: Vec<(String, String)>,
}

/// A running gateway was told to read its configuration again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayReloaded {
    /// Version of the file that was read; 0 when unsigned.
    pub config_version: u64,
    /// What its signature is worth.
    pub config_state: ConfigState,
    /// Whether it is in force now; else the one before stays.
    pub applied: bool,
    /// Why it is not in force, or what of it needs a new start; empty when nothing is to be said.
    pub note: String,
}

/// One attempt of a call that was tried again, since it had brought no usable answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamAttempt {
    /// The gateway's id of this call.
    pub request_id: String,
    /// The provider's name in the signed configuration.
    pub provider: String,
    /// Which attempt this was, from 1.
    pub attempt: u32,
    /// Its HTTP status; 0 when there was none.
    pub status: u16,
    /// Why it did not count, where there was no status.
    pub reason: String,
}

/// A WebSocket between agent and provider has ended. Frames pass as they are and are not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebSocketClosed {
    /// The gateway's id of this call.
    pub request_id: String,
    /// Index of the `llm_request`.
    pub request_index: u64,
    /// The provider's name in the signed configuration.
    pub provider: String,
    /// SHA-256 of the bytes from the agent, after the upgrade.
    pub sent_sha256: Digest,
    /// Their number.
    pub sent_len: u64,
    /// SHA-256 of the bytes from the provider, after the upgrade.
    pub received_sha256: Digest,
    /// Their number.
    pub received_len: u64,
    /// From the request's start to the end, in microseconds.
    pub duration_us: u64,
}

/// The egress proxy began to listen; what is not named here is denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressStarted {
    /// Address and port.
    pub listen: String,
    /// What the configuration allows, `host:port`, ascending.
    pub allow: Vec<String>,
    /// Hosts of it that may have addresses of private networks.
    pub internal: Vec<String>,
}

/// How bytes went through the egress proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EgressMethod {
    /// A tunnel (`CONNECT`).
    Connect,
    /// A plain HTTP request in absolute form.
    Http,
}

/// A connection through the egress proxy has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressTunnel {
    /// The lease that was used.
    pub lease: LeaseId,
    /// Tunnel or request.
    pub method: EgressMethod,
    /// The host as asked for, lowercase.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The address that was dialled, after it was checked.
    pub address: String,
    /// The server name of the TLS ClientHello, where there was one.
    pub server_name: Option<String>,
    /// Bytes from the agent.
    pub sent_len: u64,
    /// Bytes to the agent.
    pub received_len: u64,
    /// From the request to the end, in microseconds.
    pub duration_us: u64,
}

/// Why the egress proxy refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EgressRefusal {
    /// The host and port are on no allow-list.
    NotAllowed,
    /// The host is written in a way that two programs may read differently.
    Malformed,
    /// The name has an address in a private, local or otherwise special range.
    PrivateAddress,
    /// What came through the tunnel is not TLS, where the port wants it.
    NotTls,
    /// The ClientHello names another server.
    ServerName,
    /// The lease is not for egress.
    Scope,
}

/// The egress proxy refused a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressBlocked {
    /// The lease that was used.
    pub lease: LeaseId,
    /// Tunnel or request.
    pub method: EgressMethod,
    /// The host as asked for, cut to a bound.
    pub host: String,
    /// The port; 0 when none could be read.
    pub port: u16,
    /// Why.
    pub reason: EgressRefusal,
}
