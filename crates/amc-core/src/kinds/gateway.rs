//! Kinds 200 to 299: what the gateway saw of model calls.
//!
//! Everything that scoring needs from a body is extracted by the gateway into these fields, since
//! a score never reads a body.

use serde::{Deserialize, Serialize};

use crate::{Digest, LeaseId};

/// The shape of a provider's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// OpenAI and what is compatible with it.
    Openai,
    /// Anthropic's Messages API.
    Anthropic,
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
    /// The agent left before the end.
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
