//! Trace lines: what an agent says it did, one JSON object per line of its output.
//!
//! ```text
//! {"amc_trace_v":1,"ts":"2026-01-02T03:04:05Z","agent_id":"support","event":"llm_result",
//!  "request_id":"req-1","receipt":"eyJ…","note":"…"}                          (one line)
//! ```
//!
//! `request_id`, `receipt` and `note` are left out where there is none. A line is a claim of the
//! agent's; its receipt is what makes it count.

use std::io::{self, Write};

use amc_core::{AgentId, RequestId, limits, timestamp};
use serde::Serialize;

/// The version that lines of this crate carry in `amc_trace_v`.
pub const TRACE_VERSION: u8 = 1;
/// A note is a remark for people, not a place for prompts or answers.
pub const NOTE_BYTES_MAX: usize = 1024;
/// A line: its receipt and its note, escaped at worst sixfold, with room for ids.
pub const LINE_BYTES_MAX: usize = limits::RECEIPT_BYTES_MAX + 6 * NOTE_BYTES_MAX + 1024;

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TraceEvent {
    /// A model is about to be called.
    LlmCall,
    /// Its answer is there.
    LlmResult,
    /// A tool is about to be used.
    ToolIntent,
    /// What the tool gave is there.
    ToolResult,
    /// Something was checked.
    VerificationStep,
}

/// One trace line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceLine<'a> {
    /// When, in nanoseconds since the epoch by the agent's clock.
    pub wall_ns: i64,
    /// Who.
    pub agent: &'a AgentId,
    /// What.
    pub event: TraceEvent,
    /// The call, by the gateway's id.
    pub request_id: Option<&'a RequestId>,
    /// The receipt that proves it.
    pub receipt: Option<&'a str>,
    /// A remark, at most [`NOTE_BYTES_MAX`] bytes.
    pub note: Option<&'a str>,
}

/// A line that would not be taken.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The note is above its bound.
    #[error("a note has at most {NOTE_BYTES_MAX} bytes, and this one has {0}; shorten it")]
    NoteTooLong(usize),
    /// The receipt is above its bound, so it is none.
    #[error("a receipt has at most {max} bytes, and this one has {0}", max = limits::RECEIPT_BYTES_MAX)]
    ReceiptTooLong(usize),
    /// The receipt is no compact JWS, so it cannot be matched with evidence.
    #[error("a receipt is base64url in three parts; pass it on as it came in the header")]
    ReceiptMalformed,
    /// The output took nothing.
    #[error("the trace line could not be written: {0}")]
    Write(#[from] io::Error),
}

#[derive(Serialize)]
struct Json<'a> {
    amc_trace_v: u8,
    ts: String,
    agent_id: &'a AgentId,
    event: TraceEvent,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a RequestId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
}

impl<'a> TraceLine<'a> {
    /// A line of an event, with nothing more.
    pub const fn new(wall_ns: i64, agent: &'a AgentId, event: TraceEvent) -> Self {
        TraceLine { wall_ns, agent, event, request_id: None, receipt: None, note: None }
    }

    /// The line, without its ending; at most [`LINE_BYTES_MAX`] bytes and without a line break.
    ///
    /// # Errors
    /// [`TraceError`] when a part is above its bound or the receipt is none.
    pub fn to_json(&self) -> Result<String, TraceError> {
        if let Some(note) = self.note.filter(|note| note.len() > NOTE_BYTES_MAX) {
            return Err(TraceError::NoteTooLong(note.len()));
        }
        self.receipt.map_or(Ok(()), check_receipt)?;
        let json = Json {
            amc_trace_v: TRACE_VERSION,
            ts: timestamp::to_rfc3339(self.wall_ns),
            agent_id: self.agent,
            event: self.event,
            request_id: self.request_id,
            receipt: self.receipt,
            note: self.note,
        };
        Ok(serde_json::to_string(&json).expect("plain fields serialise"))
    }

    /// Writes the line and its ending in one write, so that lines of several threads do not mix.
    ///
    /// # Errors
    /// As [`TraceLine::to_json`], and [`TraceError::Write`].
    pub fn write(&self, out: &mut impl Write) -> Result<(), TraceError> {
        let line = self.to_json()? + "\n";
        out.write_all(line.as_bytes())?;
        Ok(out.flush()?)
    }
}

fn check_receipt(receipt: &str) -> Result<(), TraceError> {
    if receipt.len() > limits::RECEIPT_BYTES_MAX {
        return Err(TraceError::ReceiptTooLong(receipt.len()));
    }
    let is_part =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    let parts: Vec<&str> = receipt.split('.').collect();
    if parts.len() == 3 && parts.into_iter().all(is_part) { Ok(()) } else { Err(TraceError::ReceiptMalformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: i64 = 1_767_323_045_000_000_000;

    fn agent() -> AgentId {
        AgentId::new("support").expect("an id")
    }

    #[test]
    fn a_line_has_exactly_the_keys_of_its_parts() {
        let (agent, id) = (agent(), RequestId::new("req-1").expect("an id"));
        let bare = TraceLine::new(AT, &agent, TraceEvent::ToolIntent);
        let wanted = r#"{"amc_trace_v":1,"ts":"2026-01-02T03:04:05Z","agent_id":"support","event":"tool_intent"}"#;
        assert_eq!(bare.to_json().expect("it is within bounds"), wanted);
        let full = TraceLine { request_id: Some(&id), receipt: Some("a.b-_.c"), note: Some("why"), ..bare };
        let wanted = wanted.replace('}', r#","request_id":"req-1","receipt":"a.b-_.c","note":"why"}"#);
        assert_eq!(full.to_json().expect("it is within bounds"), wanted);
    }

    #[test]
    fn every_event_has_its_name() {
        use TraceEvent::{LlmCall, LlmResult, ToolIntent, ToolResult, VerificationStep};
        let named = [
            (LlmCall, "llm_call"),
            (LlmResult, "llm_result"),
            (ToolIntent, "tool_intent"),
            (ToolResult, "tool_result"),
            (VerificationStep, "verification_step"),
        ];
        for (event, name) in named {
            let line = TraceLine::new(AT, &agent(), event).to_json().expect("it is within bounds");
            assert!(line.contains(&format!(r#""event":"{name}""#)), "{line}");
        }
    }

    #[test]
    fn a_note_cannot_start_a_line_of_its_own() {
        let note = "done\n{\"amc_trace_v\":1}\r\u{2028}";
        let mut out = Vec::new();
        let agent = agent();
        let line = TraceLine { note: Some(note), ..TraceLine::new(AT, &agent, TraceEvent::VerificationStep) };
        line.write(&mut out).expect("it is within bounds");
        assert_eq!(out.iter().filter(|byte| **byte == b'\n' || **byte == b'\r').count(), 1);
        let parsed: serde_json::Value = serde_json::from_slice(&out).expect("one object");
        assert_eq!(parsed["note"], note);
    }

    #[test]
    fn the_worst_line_within_bounds_is_within_the_line_bound() {
        let (agent, id) = (AgentId::new("a".repeat(64)).expect("an id"), RequestId::new("r".repeat(128)));
        let id = id.expect("an id");
        let (note, receipt) = ("\u{1}".repeat(NOTE_BYTES_MAX), "a".repeat(limits::RECEIPT_BYTES_MAX - 4) + ".b.c");
        let line = TraceLine {
            request_id: Some(&id),
            receipt: Some(&receipt),
            note: Some(&note),
            ..TraceLine::new(i64::MAX, &agent, TraceEvent::VerificationStep)
        };
        assert!(line.to_json().expect("each part is within its bound").len() <= LINE_BYTES_MAX);
    }

    #[test]
    fn what_is_above_its_bound_or_no_receipt_is_refused() {
        let agent = agent();
        let bare = TraceLine::new(AT, &agent, TraceEvent::LlmResult);
        let long = "a".repeat(NOTE_BYTES_MAX + 1);
        let noted = TraceLine { note: Some(&long), ..bare.clone() };
        assert!(matches!(noted.to_json(), Err(TraceError::NoteTooLong(1025))));
        let long = "a".repeat(limits::RECEIPT_BYTES_MAX + 1);
        let with = |receipt| TraceLine { receipt: Some(receipt), ..bare.clone() };
        assert!(matches!(with(&long).to_json(), Err(TraceError::ReceiptTooLong(_))));
        for bad in ["", "a.b", "a..c", "a.b.c.d", "a.b.c\n", "a.b.{}"] {
            assert!(matches!(with(bad).to_json(), Err(TraceError::ReceiptMalformed)), "{bad:?}");
        }
    }
}
