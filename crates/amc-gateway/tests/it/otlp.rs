//! Spans reach a collector, say what the conventions ask for and no word of a body, and a collector
//! that fails or hangs costs no call anything.

use serde_json::Value;

use crate::rig::{Rig, chat};
use crate::upstream::{Upstream, json};

/// A gateway with a collector that the test plays.
async fn collected(more: &str) -> (Rig, Upstream, Upstream) {
    let collector = Upstream::start().await;
    let config = format!("otlp:\n  endpoint: http://{}/base/\n{more}", collector.addr());
    let (rig, upstream) = Rig::with_upstream(&config).await;
    (rig, upstream, collector)
}

async fn call(rig: &Rig, upstream: &Upstream, path: &str, answer: &str) -> u16 {
    let answered = rig.start(rig.post(path, chat("a secret of mine", false)));
    let mut peer = upstream.accept().await;
    peer.receive().await;
    peer.send(answer.replacen("\r\n", "\r\nconnection: close\r\n", 1)).await;
    answered.await.unwrap().status().as_u16()
}

fn attribute<'a>(span: &'a Value, key: &str) -> Option<&'a Value> {
    let attributes = span["attributes"].as_array().unwrap();
    let found = attributes.iter().find(|attribute| attribute["key"] == key)?;
    found["value"].as_object().unwrap().values().next()
}

fn spans(body: &[u8]) -> Vec<Value> {
    let body: Value = serde_json::from_slice(body).unwrap();
    let resource = &body["resourceSpans"][0];
    assert_eq!(resource["resource"]["attributes"][0]["value"]["stringValue"], "amc-gateway");
    resource["scopeSpans"][0]["spans"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_has_what_the_conventions_name_and_nothing_of_the_bodies() {
    let (rig, upstream, collector) = collected("  headers:\n    x-scope-orgid: tenant-1\n").await;
    let answer = r#"{"model":"m-2","usage":{"prompt_tokens":7,"completion_tokens":11},"said":"a secret of theirs"}"#;
    assert_eq!(call(&rig, &upstream, "/openai/v1/chat/completions", &json(answer)).await, 200);
    let mut peer = collector.accept().await;
    let received = peer.receive().await;
    assert!(received.head.starts_with("POST /base/v1/traces "), "{}", received.head);
    assert_eq!(received.header("x-scope-orgid"), Some("tenant-1"));
    assert_eq!(received.header("content-type"), Some("application/json"));
    assert!(!String::from_utf8_lossy(&received.body).contains("secret of"), "a span has no text of a body");
    peer.send(json("{}")).await;
    let span = &spans(&received.body)[0];
    assert_eq!((&span["name"], &span["kind"]), (&"chat m-1".into(), &3.into()));
    assert_eq!((span["traceId"].as_str().unwrap().len(), span["spanId"].as_str().unwrap().len()), (32, 16));
    let time = |key: &str| span[key].as_str().unwrap().parse::<u128>().unwrap();
    assert!(time("startTimeUnixNano") <= time("endTimeUnixNano") && time("startTimeUnixNano") > 0);
    let port = upstream.addr().port().to_string();
    for (key, value) in [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "openai"),
        ("gen_ai.request.model", "m-1"),
        ("gen_ai.response.model", "m-2"),
        ("gen_ai.usage.input_tokens", "7"),
        ("gen_ai.usage.output_tokens", "11"),
        ("gen_ai.agent.id", "alice"),
        ("server.address", "127.0.0.1"),
        ("server.port", port.as_str()),
    ] {
        assert_eq!(attribute(span, key), Some(&value.into()), "{key}");
    }
    assert_eq!(attribute(span, "error.type"), None);
    // A call that fails says how.
    let busy = "HTTP/1.1 429 Busy\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(call(&rig, &upstream, "/openai/v1/chat/completions", busy).await, 429);
    let mut peer = collector.accept_or(peer).await;
    let received = peer.receive().await;
    let span = &spans(&received.body)[0];
    assert_eq!((attribute(span, "error.type"), &span["status"]["code"]), (Some(&"429".into()), &2.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_or_fails_harms_no_call() {
    let (rig, upstream, collector) = collected("").await;
    for _ in 0..3 {
        assert_eq!(call(&rig, &upstream, "/openai/v1/chat/completions", &json("{}")).await, 200);
    }
    let mut peer = collector.accept().await;
    peer.receive().await;
    peer.send("HTTP/1.1 500 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    drop((peer, collector));
    assert_eq!(call(&rig, &upstream, "/openai/v1/chat/completions", &json("{}")).await, 200);
    assert_eq!(rig.monitor.events(8).await.len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_sends_what_is_left() {
    let (rig, upstream, collector) = collected("").await;
    assert_eq!(call(&rig, &upstream, "/anthropic/v1/messages", &json("{}")).await, 200);
    let stopped = tokio::spawn(rig.stop());
    let mut peer = collector.accept().await;
    let received = peer.receive().await;
    assert_eq!(attribute(&spans(&received.body)[0], "gen_ai.provider.name"), Some(&"anthropic".into()));
    peer.send(json("{}")).await;
    stopped.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn opentelemetrys_own_messages_take_what_is_sent() {
    let (rig, upstream, collector) = collected("").await;
    let answer = r#"{"model":"m-2","usage":{"prompt_tokens":7,"completion_tokens":11}}"#;
    call(&rig, &upstream, "/openai/v1/chat/completions", &json(answer)).await;
    let mut peer = collector.accept().await;
    let received = peer.receive().await;
    // Unknown fields and wrong types are errors there. Ids are hex in OTLP and base64 in protobuf's JSON;
    // the length of theirs happens to be base64 as well.
    let program = "import sys\ntry:\n from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as t\n \
                   from google.protobuf.json_format import Parse\nexcept ImportError:\n sys.exit(77)\n\
                   m = Parse(sys.stdin.read(), t.ExportTraceServiceRequest())\n\
                   print(m.resource_spans[0].scope_spans[0].spans[0].name)\n";
    let child = std::process::Command::new("python3")
        .args(["-c", program])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        println!("SKIPPED: OpenTelemetry's messages: no python3");
        return;
    };
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &received.body).unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.code() == Some(77) {
        println!("SKIPPED: OpenTelemetry's messages: the Python package opentelemetry-proto is not there");
        return;
    }
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "chat m-1\n");
}
