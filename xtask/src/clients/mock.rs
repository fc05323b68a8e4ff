//! aimock beside the clients: a provider of all three dialects by somebody else, with faults. The same is asked of it
//! directly and through the gateway, and the two answers have to be the same bytes.

use std::process::Command;
use std::time::Duration;

use super::{CLIENT_LIMIT, amc, parse, routes_to};
use crate::Failure;
use crate::process::Background;
use crate::stage::{Stage, port_of};
use crate::step::Step;
use serde_json::Value;
use std::path::Path;

/// Runs it; gives the number of calls that were compared.
///
/// # Errors
/// The mock did not start, or an answer or its evidence is not as it should be.
pub(super) fn walk(stage: &Stage, modules: &Path, programs: &Path) -> Result<usize, Failure> {
    let mut server = Command::new("node");
    server.env("NODE_PATH", modules).arg(programs.join("mock_server.cjs"));
    let mut server = Background::start(&mut server)?;
    let line = server.wait_for_line("listening", Duration::from_secs(60))?;
    let port = port_of(&line).ok_or_else(|| Failure::new(format!("the mock names no port: {line}")))?;
    let amc = |line: &str| amc(stage, line);
    Step::new("A workspace for a mock provider of three dialects.").run(&mut amc("init --name mock --agent node"))?;
    Step::new("All routes lead to aimock.").run(&mut amc(&routes_to(port)))?;
    let mut wrap = amc("wrap --agent node -- node");
    wrap.arg(programs.join("mock_client.cjs")).arg(format!("127.0.0.1:{port}"));
    let said =
        "Whole answers, streams, tool calls, refusals, errors and streams that end early: directly, and through.";
    let answer = Step::new(said).within(CLIENT_LIMIT).quietly().run(&mut wrap)?;
    let calls = answer.stdout.lines().map(parse).collect::<Result<Vec<_>, _>>()?;
    let tail = Step::new("What the evidence log holds of it.").quietly();
    let tail = tail.run(&mut amc("ledger tail -n 1000 --json"))?.json()?;
    if calls.len() != CALLS {
        return Err(Failure::new(format!("{} calls were made, not {CALLS}", calls.len())));
    }
    for call in &calls {
        check(call, &tail).map_err(|failure| {
            let [dialect, word, stream] = ["dialect", "word", "stream"].map(|key| &call[key]);
            failure.during(&format!("{dialect} {word}, stream: {stream}"))
        })?;
    }
    Ok(calls.len())
}

/// One call, as the client saw it both ways and as the log has it.
fn check(call: &Value, tail: &Value) -> Result<(), Failure> {
    let (direct, through) = (&call["direct"], &call["through"]);
    if direct != through {
        return Err(Failure::new(format!("directly {direct}, through the gateway {through}")));
    }
    let events = tail["data"]["events"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_it = |event: &&Value| event["kind"] == "llm_response" && event["fields"]["request_id"] == call["request_id"];
    let event = events.iter().find(is_it).ok_or_else(|| Failure::new("its answer is not in the log".to_owned()))?;
    let fields = &event["fields"];
    let word = call["word"].as_str().unwrap_or_default();
    let cut = word == "cut" && call["stream"] == true;
    let outcome = if cut { "upstream_truncated" } else { "complete" };
    let usage = &fields["usage"];
    let (is_plain, is_error) = (word == "plain", matches!(word, "busy" | "broken"));
    let mut same = vec![
        ("outcome", &fields["outcome"], Value::from(outcome)),
        ("status", &fields["status"], direct["status"].clone()),
        ("complete", &direct["complete"], Value::from(!cut)),
        ("body", &event["payload"]["wire_sha256"], direct["sha256"].clone()),
        ("tool calls", &fields["tool_calls"], Value::from(u32::from(word == "tool"))),
    ];
    if is_plain {
        same.extend([
            ("tokens in", &usage["input_tokens"], 5.into()),
            ("tokens out", &usage["output_tokens"], 7.into()),
        ]);
    }
    if is_error {
        same.push(("usage", usage, Value::Null));
    }
    match same.iter().find(|(_, recorded, wanted)| *recorded != wanted) {
        Some((what, recorded, wanted)) => Err(Failure::new(format!("{what}: {recorded}, not {wanted}"))),
        None => Ok(()),
    }
}

/// Three dialects, five kinds of answers, whole and as a stream.
const CALLS: usize = 3 * 5 * 2;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn outcome(change: impl FnOnce(&mut Value, &mut Value)) -> Result<(), Failure> {
        let seen = json!({"status": 200, "complete": false, "type": "text/event-stream", "sha256": "ab"});
        let mut call = json!({"dialect": "openai", "word": "cut", "stream": true, "direct": seen, "through": seen,
            "request_id": "req-1"});
        let mut event = json!({"kind": "llm_response", "payload": {"wire_sha256": "ab"}, "fields":
            {"request_id": "req-1", "outcome": "upstream_truncated", "status": 200, "tool_calls": 0}});
        change(&mut call, &mut event);
        check(&call, &json!({"data": {"events": [event]}}))
    }

    #[test]
    fn each_difference_is_found() {
        outcome(|_, _| ()).expect("all as it should be");
        assert!(outcome(|call, _| call["through"]["sha256"] = json!("cd")).is_err());
        assert!(outcome(|_, event| event["payload"]["wire_sha256"] = json!("cd")).is_err());
        assert!(outcome(|_, event| event["fields"]["outcome"] = json!("complete")).is_err());
        assert!(outcome(|_, event| event["fields"]["status"] = json!(502)).is_err());
        assert!(outcome(|call, _| call["request_id"] = json!("req-2")).is_err());
        assert!(outcome(|call, _| call["word"] = json!("tool")).is_err());
        let plain = |usage: Value| {
            outcome(|call, event| {
                call["word"] = json!("plain");
                (call["direct"]["complete"], call["through"]["complete"]) = (json!(true), json!(true));
                (event["fields"]["outcome"], event["fields"]["usage"]) = (json!("complete"), usage);
            })
        };
        plain(json!({"input_tokens": 5, "output_tokens": 7})).expect("all as it should be");
        assert!(plain(json!({"input_tokens": 5, "output_tokens": 8})).is_err() && plain(Value::Null).is_err());
    }
}
