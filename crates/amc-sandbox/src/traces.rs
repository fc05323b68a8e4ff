//! Trace lines in the agent's output: found, parsed into typed fields, and never believed.
//!
//! A trace line is one JSON object on a line of its own with `"amc_trace_v": 1`, `ts`, `agent_id`,
//! `event`, and where there is one `request_id`, `receipt` and `note` (`docs/formats/ingest.md`).
//! This runs in the keyless process that captures the streams. Whatever is no such line is output
//! like any other; the line's bytes stand in the stream's own events in any case.

use amc_core::kinds::{Stream, TraceAbout, TraceLine, TraceLines};
use amc_core::{codec, limits};
use serde::Deserialize;

/// A line above this is no trace line: a receipt and a note with room to spare.
pub const LINE_BYTES_MAX: usize = 4 * limits::RECEIPT_BYTES_MAX;
/// Lines of one event, encoded, at most; an event holds 65,535 bytes.
const EVENT_LINES_BYTES_MAX: usize = 48 * 1024;
const REQUEST_ID_BYTES_MAX: usize = 128;
/// What stands in a field that held the session's lease.
const WITHHELD: &str = "[lease]";

/// Finds trace lines in one stream, whatever pieces it comes in.
#[derive(Debug)]
pub struct Scanner {
    stream: Stream,
    secret: String,
    /// The line under way, and where it began.
    line: Vec<u8>,
    began: u64,
    offset: u64,
    /// The line under way is too long to be one.
    skipping: bool,
}

#[derive(Deserialize)]
struct Json {
    amc_trace_v: u8,
    agent_id: String,
    event: TraceAbout,
    request_id: Option<String>,
    receipt: Option<String>,
    #[serde(rename = "ts")]
    _ts: String,
}

impl Scanner {
    /// A scanner at the beginning of `stream`; no field of a line carries `secret` on.
    pub fn new(stream: Stream, secret: &[u8]) -> Self {
        let secret = String::from_utf8_lossy(secret).into_owned();
        Scanner { stream, secret, line: Vec::new(), began: 0, offset: 0, skipping: false }
    }

    /// Takes the next piece; gives the events of the lines that ended in it.
    pub fn push(&mut self, piece: &[u8]) -> Vec<TraceLines> {
        let mut found = Vec::new();
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let ends = part.ends_with(b"\n");
            if self.line.len() + part.len() > LINE_BYTES_MAX {
                self.skipping = true;
            }
            if !self.skipping {
                self.line.extend_from_slice(part);
            }
            self.offset += part.len() as u64;
            if ends {
                found.extend(self.take());
            }
        }
        events(found)
    }

    /// The stream has ended: a last line without an ending counts, too.
    pub fn finish(&mut self) -> Vec<TraceLines> {
        let last = self.take();
        events(last.into_iter().collect())
    }

    fn take(&mut self) -> Option<TraceLine> {
        let began = std::mem::replace(&mut self.began, self.offset);
        let whole = !std::mem::take(&mut self.skipping);
        let line = std::mem::take(&mut self.line);
        let text = std::str::from_utf8(line.trim_ascii()).ok().filter(|_| whole)?;
        // Most output is no JSON object; this is cheaper than asking the parser.
        if !text.starts_with('{') || !text.contains("\"amc_trace_v\"") {
            return None;
        }
        let json: Json = serde_json::from_str(text).ok().filter(|json: &Json| json.amc_trace_v == 1)?;
        Some(TraceLine {
            stream: self.stream,
            offset: began,
            about: json.event,
            agent_id: self.bounded(json.agent_id, limits::NAME_BYTES_MAX),
            request_id: json.request_id.map(|id| self.bounded(id, REQUEST_ID_BYTES_MAX)),
            // One byte more than a receipt may have, so that a cut one cannot pass for a whole one.
            receipt: json.receipt.map(|receipt| self.bounded(receipt, limits::RECEIPT_BYTES_MAX + 1)),
        })
    }

    fn bounded(&self, mut text: String, max: usize) -> String {
        if !self.secret.is_empty() && text.contains(&self.secret) {
            return WITHHELD.to_owned();
        }
        text.truncate(text.floor_char_boundary(max));
        text
    }
}

/// As few events as hold the lines.
fn events(found: Vec<TraceLine>) -> Vec<TraceLines> {
    let mut events: Vec<TraceLines> = Vec::new();
    let mut room = 0;
    for line in found {
        let bytes = codec::encode(&line).len();
        match events.last_mut().filter(|_| bytes <= room) {
            Some(event) => event.lines.push(line),
            None => {
                room = EVENT_LINES_BYTES_MAX;
                events.push(TraceLines { lines: vec![line] });
            }
        }
        room -= bytes.min(room);
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"amc_trace_v":1,"ts":"2026-01-02T03:04:05Z","agent_id":"bot","event":"llm_result","request_id":"r-1","receipt":"a.b.c"}"#;

    fn scan(text: &[u8]) -> Vec<TraceLine> {
        let mut scanner = Scanner::new(Stream::Stdout, b"amc-lease-00");
        let mut events = scanner.push(text);
        events.extend(scanner.finish());
        events.into_iter().flat_map(|event| event.lines).collect()
    }

    #[test]
    fn a_line_becomes_typed_fields() {
        let lines = scan(format!("working\n{LINE}\r\ndone\n").as_bytes());
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!((line.offset, line.about), (8, TraceAbout::LlmResult));
        assert_eq!((line.agent_id.as_str(), line.request_id.as_deref()), ("bot", Some("r-1")));
        assert_eq!(line.receipt.as_deref(), Some("a.b.c"));
    }

    #[test]
    fn pieces_do_not_matter() {
        let text = format!("{LINE}\nx\n{LINE}");
        let whole = scan(text.as_bytes());
        assert_eq!(whole.len(), 2, "the last one has no ending");
        for size in 1..40 {
            let mut scanner = Scanner::new(Stream::Stdout, b"");
            let mut events: Vec<TraceLines> =
                text.as_bytes().chunks(size).flat_map(|piece| scanner.push(piece)).collect();
            events.extend(scanner.finish());
            let lines: Vec<TraceLine> = events.into_iter().flat_map(|event| event.lines).collect();
            assert_eq!(lines, whole, "pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_trace_line_is_output() {
        for other in [
            "{}",
            r#"{"amc_trace_v":2,"ts":"","agent_id":"bot","event":"llm_call"}"#,
            r#"{"amc_trace_v":1,"ts":"","agent_id":"bot","event":"levitate"}"#,
            r#"{"amc_trace_v":1,"ts":"","agent_id":7,"event":"llm_call"}"#,
            r#"[{"amc_trace_v":1}]"#,
            "{\"amc_trace_v\":1",
        ] {
            assert_eq!(scan(other.as_bytes()), [], "{other}");
        }
        assert_eq!(scan(b"{\"amc_trace_v\":1,\"ts\":\"\xff\"}\n"), []);
    }

    #[test]
    fn a_line_without_end_takes_bounded_memory_and_hides_nothing_after_it() {
        let mut text = vec![b'{'; 3 * LINE_BYTES_MAX];
        text.extend_from_slice(format!("\n{LINE}\n").as_bytes());
        let mut scanner = Scanner::new(Stream::Stdout, b"");
        let mut found = 0;
        for piece in text.chunks(1000) {
            found += scanner.push(piece).len();
            assert!(scanner.line.len() <= LINE_BYTES_MAX);
        }
        assert_eq!(found, 1);
    }

    #[test]
    fn no_field_carries_the_lease_and_none_is_longer_than_its_bound() {
        let line = |field: &str, value: &str| {
            let json = LINE.replace("bot", if field == "agent_id" { value } else { "bot" });
            let json = json.replace("r-1", if field == "request_id" { value } else { "r-1" });
            let json = json.replace("a.b.c", if field == "receipt" { value } else { "a.b.c" });
            scan(json.as_bytes()).remove(0)
        };
        for field in ["agent_id", "request_id", "receipt"] {
            let shown = format!("{:?}", line(field, "x amc-lease-00 y"));
            assert!(!shown.contains("amc-lease-00") && shown.contains(WITHHELD), "{field}: {shown}");
        }
        let long = line("receipt", &"r".repeat(2 * limits::RECEIPT_BYTES_MAX));
        assert_eq!(long.receipt.map(|receipt| receipt.len()), Some(limits::RECEIPT_BYTES_MAX + 1));
        assert_eq!(line("agent_id", &"é".repeat(99)).agent_id.len(), limits::NAME_BYTES_MAX);
    }

    #[test]
    fn a_flood_of_lines_fits_into_events() {
        let receipt = "r".repeat(limits::RECEIPT_BYTES_MAX);
        let flood = format!("{}\n", LINE.replace("a.b.c", &receipt)).repeat(50);
        let mut scanner = Scanner::new(Stream::Stderr, b"");
        let events = scanner.push(flood.as_bytes());
        assert_eq!(events.iter().map(|event| event.lines.len()).sum::<usize>(), 50);
        assert!(events.iter().all(|event| codec::encode(event).len() <= limits::EVENT_BYTES_MAX - 4096));
    }
}
