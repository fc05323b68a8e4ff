//! Whether what a client saw is what the evidence log holds. Pure functions over both.

use super::Upstream;
use crate::Failure;
use serde_json::Value;

/// What one client program printed about one call.
#[derive(Debug)]
pub(super) struct Call(pub(super) Value);

/// One client program's session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) provider: String,
    pub(super) calls: Vec<Call>,
}

impl Call {
    /// Its receipts: the request's and the answer's.
    pub(super) fn receipts(&self) -> Vec<&str> {
        ["request", "response"].iter().filter_map(|role| self.0["receipts"][role].as_str()).collect()
    }

    /// For people.
    pub(super) fn in_words(&self) -> String {
        let tokens = format!("{} tokens in, {} out", self.0["input_tokens"], self.0["output_tokens"]);
        let arrivals = self.arrivals();
        match (arrivals.first(), arrivals.last()) {
            (Some(first), Some(last)) => {
                format!("stream: {tokens}; {} pieces from {first:.0} ms to {last:.0} ms", arrivals.len())
            }
            _ => format!("plain: {tokens}"),
        }
    }

    fn arrivals(&self) -> Vec<f64> {
        self.0["at_ms"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
    }

    fn streams(&self) -> bool {
        self.0["call"] == "stream"
    }
}

/// Compares a session with the newest events of the log, as `amc ledger tail --json` gives them.
///
/// # Errors
/// The first thing that is not as it should be.
pub(super) fn session(session: &Session, tail: &Value, upstream: &Upstream) -> Result<(), Failure> {
    let events: Vec<&Value> = tail["data"]["events"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|event| event["session_id"] == session.id.as_str())
        .collect();
    let kinds: Vec<&str> = session.calls.iter().filter_map(|call| call.0["call"].as_str()).collect();
    expect(kinds == ["plain", "stream"], || format!("a plain and a streaming call were to be made, not {kinds:?}"))?;
    for kind in ["llm_request", "llm_response"] {
        let count = events.iter().filter(|event| event["kind"] == kind).count();
        expect(count == session.calls.len(), || format!("{count} {kind} events for {} calls", session.calls.len()))?;
    }
    for call in &session.calls {
        answer(call, upstream)?;
        evidence(call, &events, session)?;
    }
    Ok(())
}

/// The answer itself and when it came.
fn answer(call: &Call, upstream: &Upstream) -> Result<(), Failure> {
    let text = call.0["text"].as_str().unwrap_or_default();
    expect(!text.is_empty(), || "an answer without text".into())?;
    if let Some(wanted) = upstream.text {
        expect(text.contains(wanted), || format!("the answer is {text:?}"))?;
    }
    expect(call.receipts().len() == 2, || format!("not two receipts: {}", call.0["receipts"]))?;
    if !call.streams() {
        return Ok(());
    }
    let at = call.arrivals();
    expect(at.len() >= PIECES_MIN, || format!("{} pieces are no stream", at.len()))?;
    expect(at.is_sorted(), || format!("pieces out of order: {at:?}"))?;
    // What is held back and let go at once arrives within a fraction of the time it took to be made.
    let spread = at[at.len() - 1] - at[0];
    let least = f64::from(upstream.piece_ms) * (at.len() - 1) as f64 * SPREAD_LEAST;
    expect(spread > 0.0 && spread >= least, || {
        format!("{} pieces within {spread:.0} ms, at least {least:.0} ms were expected: something held them", at.len())
    })
}

/// What the log says about the call.
fn evidence(call: &Call, events: &[&Value], session: &Session) -> Result<(), Failure> {
    let of = |kind: &str| {
        let mut found = events.iter().filter(|event| {
            event["kind"] == kind
                && event["fields"]["request_id"] == call.0["request_id"]
                && event["tier"] == "OBSERVED"
        });
        found.next().ok_or_else(|| Failure::new(format!("no {kind} event for {}", call.0["request_id"])))
    };
    let (request, response) = (of("llm_request")?, of("llm_response")?);
    let fields = &response["fields"];
    let same = [
        ("provider", &request["fields"]["provider"], &Value::from(session.provider.as_str())),
        ("stream", &request["fields"]["stream"], &Value::from(call.streams())),
        ("outcome", &fields["outcome"], &Value::from("complete")),
        ("status", &fields["status"], &Value::from(200)),
        ("input tokens", &fields["usage"]["input_tokens"], &call.0["input_tokens"]),
        ("output tokens", &fields["usage"]["output_tokens"], &call.0["output_tokens"]),
    ];
    for (what, recorded, seen) in same {
        expect(recorded == seen && !seen.is_null(), || format!("{what}: the log says {recorded}, the client {seen}"))?;
    }
    if let Some(body) = call.0.get("body_sha256") {
        let recorded = &response["payload"]["wire_sha256"];
        expect(recorded == body, || format!("the log has the body {recorded}, the client got {body}"))?;
    }
    if call.streams() {
        let (first, whole) = (fields["first_byte_us"].as_u64(), fields["duration_us"].as_u64());
        expect(first.is_some() && first < whole, || format!("first byte at {first:?} of {whole:?} µs"))?;
    }
    Ok(())
}

/// The receipt with the first character of its signature replaced.
pub(super) fn with_changed_signature(receipt: &str) -> String {
    let (signed, signature) = receipt.rsplit_once('.').unwrap_or(("", receipt));
    let other = if signature.starts_with('A') { 'B' } else { 'A' };
    format!("{signed}.{other}{}", signature.get(1..).unwrap_or_default())
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::new(otherwise())) }
}

/// Fewer would say nothing about timing.
const PIECES_MIN: usize = 3;

/// How much of the time between pieces has to be left at the client: pieces may bunch, not all at once.
const SPREAD_LEAST: f64 = 0.5;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const UPSTREAM: Upstream = Upstream { port: 1, model: "demo", text: Some("red"), piece_ms: 40, gemini: true };

    fn call(kind: &str) -> Value {
        let mut call = json!({"call": kind, "text": "red, green", "input_tokens": 3, "output_tokens": 2,
            "receipts": {"request": "a.b.c", "response": "a.b.d"}, "request_id": format!("req-{kind}")});
        if kind == "stream" {
            call["at_ms"] = json!([50.0, 90.0, 131.0, 170.0]);
        } else {
            call["body_sha256"] = json!("ab");
        }
        call
    }

    fn events(kind: &str) -> Vec<Value> {
        let id = format!("req-{kind}");
        let common = |name: &str, fields: Value| {
            json!({"kind": name, "session_id": "s", "tier": "OBSERVED",
            "fields": fields, "payload": {"wire_sha256": "ab"}})
        };
        let request = json!({"request_id": id, "provider": "openai", "stream": kind == "stream"});
        let response = json!({"request_id": id, "outcome": "complete", "status": 200, "first_byte_us": 10,
            "duration_us": 200, "usage": {"input_tokens": 3, "output_tokens": 2}});
        vec![common("llm_request", request), common("llm_response", response)]
    }

    fn outcome(change: impl FnOnce(&mut Value, &mut Vec<Value>)) -> Result<(), Failure> {
        let mut calls = json!([call("plain"), call("stream")]);
        let mut log = [events("plain"), events("stream")].concat();
        change(&mut calls, &mut log);
        let calls = calls.as_array().expect("a list").iter().cloned().map(Call).collect();
        let seen = Session { id: "s".into(), provider: "openai".into(), calls };
        session(&seen, &json!({"data": {"events": log}}), &UPSTREAM)
    }

    #[test]
    fn what_agrees_is_taken() {
        outcome(|_, _| ()).expect("all as it should be");
    }

    #[test]
    fn each_disagreement_is_found() {
        type Change = fn(&mut Value, &mut Vec<Value>);
        let changes: [(&str, Change); 11] = [
            ("a stream that came at once", |calls, _| calls[1]["at_ms"] = json!([170.0, 170.5, 171.0, 171.2])),
            ("pieces out of order", |calls, _| calls[1]["at_ms"] = json!([50.0, 10.0, 131.0, 170.0])),
            ("a stream of one piece", |calls, _| calls[1]["at_ms"] = json!([50.0])),
            ("another answer", |calls, _| calls[0]["text"] = json!("blue")),
            ("a receipt missing", |calls, _| calls[1]["receipts"]["response"] = Value::Null),
            ("another usage", |calls, _| calls[1]["output_tokens"] = json!(9)),
            ("another body", |calls, _| calls[0]["body_sha256"] = json!("cd")),
            ("no usage anywhere", |calls, log| {
                calls[0]["input_tokens"] = Value::Null;
                log[1]["fields"]["usage"] = Value::Null;
            }),
            ("an event missing", |_, log| drop(log.pop())),
            ("another session's event", |_, log| log[0]["session_id"] = json!("t")),
            ("a truncated answer", |_, log| log[3]["fields"]["outcome"] = json!("upstream_truncated")),
        ];
        for (name, change) in changes {
            assert!(outcome(change).is_err(), "{name}");
        }
    }

    #[test]
    fn a_changed_signature_is_another_of_the_same_length() {
        assert_eq!(with_changed_signature("h.c.Axy"), "h.c.Bxy");
        assert_eq!(with_changed_signature("h.c.xyz"), "h.c.Ayz");
    }
}
