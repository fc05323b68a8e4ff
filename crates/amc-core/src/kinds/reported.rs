//! Kinds 150 to 169: what an agent or its owner says, and how it was said.
//!
//! A file that somebody hands in is SELF_REPORTED. That a trace line was printed is observed; what
//! it says is a claim that correlation holds against the evidence.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Stream;
use crate::Digest;

/// What a file that was handed in is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IngestType {
    /// What the agent is for, and what it is not for.
    Charter,
    /// When a person decides.
    EscalationRule,
    /// What can go wrong and what is done about it.
    RiskAssessment,
    /// What went wrong and what was learnt.
    IncidentReview,
    /// What to do when it breaks.
    Runbook,
    /// Whether like people are treated alike.
    BiasReview,
    /// How the work goes on without agent or provider.
    ContinuityPlan,
    /// What becomes of personal data.
    DataProtection,
    /// Results of a test suite as JUnit XML.
    Junit,
    /// Results of promptfoo as JSON.
    Promptfoo,
    /// A log of inspect-ai as JSON.
    InspectAi,
    /// Traces of OpenTelemetry as OTLP JSON.
    OtelTrace,
}

impl IngestType {
    /// Every type, with its name.
    pub const ALL: [(IngestType, &'static str); 12] = [
        (IngestType::Charter, "charter"),
        (IngestType::EscalationRule, "escalation-rule"),
        (IngestType::RiskAssessment, "risk-assessment"),
        (IngestType::IncidentReview, "incident-review"),
        (IngestType::Runbook, "runbook"),
        (IngestType::BiasReview, "bias-review"),
        (IngestType::ContinuityPlan, "continuity-plan"),
        (IngestType::DataProtection, "data-protection"),
        (IngestType::Junit, "junit"),
        (IngestType::Promptfoo, "promptfoo"),
        (IngestType::InspectAi, "inspect-ai"),
        (IngestType::OtelTrace, "otel-trace"),
    ];

    /// The name on the command line and in JSON.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(known, _)| *known == self).map_or("", |(_, name)| name)
    }

    /// Whether it is a document, which has an expiry instead of an age.
    pub const fn is_document(self) -> bool {
        !matches!(self, IngestType::Junit | IngestType::Promptfoo | IngestType::InspectAi | IngestType::OtelTrace)
    }
}

impl fmt::Display for IngestType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that is no [`IngestType`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no type of evidence; there are {known}", known = IngestType::ALL.map(|(_, name)| name).join(", "))]
pub struct IngestTypeError(pub String);

impl FromStr for IngestType {
    type Err = IngestTypeError;

    fn from_str(text: &str) -> Result<Self, IngestTypeError> {
        let known = Self::ALL.iter().find(|(_, name)| *name == text);
        known.map(|(known, _)| *known).ok_or_else(|| IngestTypeError(text.to_owned()))
    }
}

/// Results as the file that was handed in counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultCounts {
    /// Cases that passed; for traces, spans of model calls without an error.
    pub passed: u64,
    /// Cases that failed or broke; for traces, spans of model calls with an error.
    pub failed: u64,
    /// Cases that were not run.
    pub skipped: u64,
}

/// A file was handed in. The payload is the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ingested {
    /// What it is.
    pub ingest_type: IngestType,
    /// The file's name, cut to a bound.
    pub name: String,
    /// Until when a document counts, nanoseconds since the epoch; `None` for results.
    pub expires_ns: Option<i64>,
    /// What a file of results says; `None` for documents.
    pub counts: Option<ResultCounts>,
}

/// What a trace line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TraceAbout {
    /// The agent sends a request to a model.
    LlmCall,
    /// The agent has a model's answer.
    LlmResult,
    /// The agent is about to use a tool.
    ToolIntent,
    /// The agent has a tool's result.
    ToolResult,
    /// The agent checked its work.
    VerificationStep,
}

impl TraceAbout {
    /// Whether the line is about a model call.
    pub const fn is_llm(self) -> bool {
        matches!(self, TraceAbout::LlmCall | TraceAbout::LlmResult)
    }
}

/// One trace line that the agent printed. What it says is the agent's claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceLine {
    /// The stream that it was printed on.
    pub stream: Stream,
    /// Bytes of that stream before the line.
    pub offset: u64,
    /// What it is about.
    pub about: TraceAbout,
    /// The agent that it names, cut to a bound.
    pub agent_id: String,
    /// The request that it names, cut to a bound.
    pub request_id: Option<String>,
    /// The receipt as printed, cut to a bound that no receipt reaches.
    pub receipt: Option<String>,
}

/// Trace lines that the agent printed, in order. The bytes stand in the stream's own events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceLines {
    /// The lines.
    pub lines: Vec<TraceLine>,
}

/// A test suite that the signed configuration of the agent names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredSuite {
    /// Its command.
    pub argv: Vec<String>,
    /// SHA-256 of its executable.
    pub artifact: Digest,
}

/// What the signed `agent.config.yaml` registers for the agent, as the session began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRegistered {
    /// The version that the signature names.
    pub config_version: u64,
    /// SHA-256 of the texts of system prompts that the agent may run with.
    pub system_prompts: Vec<Digest>,
    /// Its test suites.
    pub suites: Vec<RegisteredSuite>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_types_are_one_to_one() {
        for (known, name) in IngestType::ALL {
            assert_eq!(name.parse(), Ok(known));
            assert_eq!(known.to_string(), name);
            assert_eq!(serde_json::to_string(&known).ok(), Some(format!("{name:?}")));
        }
        let error = "memo".parse::<IngestType>().expect_err("no such type");
        assert!(error.to_string().contains("charter, escalation-rule"), "{error}");
    }
}
