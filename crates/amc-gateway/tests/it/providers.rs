//! What is read of each provider's answers, however they are packed, and attempts that are made again.

use std::io::Write as _;

use amc_core::kinds::{CallOutcome, Usage};
use amc_crypto::sha256;
use amc_workspace::protocol::gateway::{Capture, GatewayFields};
use serde_json::json;

use crate::monitor::RecordedCall;
use crate::rig::{Rig, chat};
use crate::upstream::{EVENTS_HEAD, json};

/// Plays one answer to one request and gives what was recorded.
async fn played(path: &str, body: String, head: &str, answer: &[u8]) -> RecordedCall {
    let (rig, upstream) = Rig::with_upstream("").await;
    let passed = rig.start(rig.post(path, body));
    let mut peer = upstream.accept().await;
    peer.receive().await;
    peer.send(format!("HTTP/1.1 200 OK\r\n{head}content-length: {}\r\n\r\n", answer.len())).await;
    peer.send(answer).await;
    assert_eq!(passed.await.unwrap().bytes().await.unwrap(), answer, "bytes pass as they are");
    rig.monitor.call().await
}

fn usage(input_tokens: u64, output_tokens: u64) -> Option<Usage> {
    Some(Usage { input_tokens, output_tokens })
}

#[tokio::test(flavor = "multi_thread")]
async fn gemini_is_read_as_json_as_events_and_as_an_array() {
    let whole = json!({"modelVersion": "g-2.5", "candidates": [{"content": {"parts": [{"functionCall": {"name": "f"}}]},
        "finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 5}});
    let asked = json!({"systemInstruction": {"parts": [{"text": "Be kind."}]}, "contents": []}).to_string();
    let array = format!("[{whole},\r\n{whole}]");
    let events = format!("data: {whole}\r\n\r\n");
    for (method, kind, answer, tool_calls) in [
        ("generateContent", "application/json", whole.to_string(), 1),
        ("streamGenerateContent", "application/json", array, 2),
        ("streamGenerateContent?alt=sse", "text/event-stream", events, 1),
    ] {
        let path = format!("/gemini/v1beta/models/g-2.5:{method}");
        let call = played(&path, asked.clone(), &format!("content-type: {kind}\r\n"), answer.as_bytes()).await;
        assert_eq!((call.request.model.as_deref(), call.request.stream), (Some("g-2.5"), method.starts_with("stream")));
        assert_eq!(call.request.system_prompt_sha256, Some(sha256(b"Be kind.")));
        assert_eq!((call.response.usage, call.response.tool_calls), (usage(3, 5), tool_calls), "{method}");
        assert_eq!((call.response.model.as_deref(), call.response.outcome), (Some("g-2.5"), CallOutcome::Complete));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_stands_at_the_end_of_megabytes_in_every_encoding() {
    let mut plain = Vec::new();
    for number in 0..40_000 {
        write!(plain, "data: {{\"choices\":[],\"padding\":\"some text that is long {number}\"}}\n\n").unwrap();
    }
    plain.extend_from_slice(b"data: {\"model\":\"m-9\",\"choices\":[],\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":9}}\n\ndata: [DONE]\n\n");
    assert!(plain.len() > 2 << 20);
    let level = flate2::Compression::none();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), level);
    gzip.write_all(&plain).unwrap();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), level);
    zlib.write_all(&plain).unwrap();
    for (encoding, packed) in [("gzip", gzip.finish().unwrap()), ("deflate", zlib.finish().unwrap())] {
        assert!(packed.len() > 2 << 20);
        let head = format!("content-type: text/event-stream\r\ncontent-encoding: {encoding}\r\n");
        let call = played("/openai/v1/chat/completions", chat("x", true), &head, &packed).await;
        assert_eq!((call.response.usage, call.response.model.as_deref()), (usage(8, 9), Some("m-9")), "{encoding}");
        assert_eq!(call.received.capture, Capture::Omitted, "what cannot be looked into whole is not kept");
    }
    let call =
        played("/openai/v1/chat/completions", chat("x", true), "content-type: text/event-stream\r\n", &plain).await;
    assert_eq!(call.response.usage, usage(8, 9));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_megabytes_has_its_facts_and_its_embedding_its_usage() {
    let picture = "data:image/png;base64,".to_owned() + &"iVBORw0KGgo".repeat(300_000);
    let asked = json!({"messages": [{"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": picture}}]}],
        "tools": [{}, {}], "stream": false, "model": "m-7"});
    let answer = json!({"model": "m-7", "data": [{"embedding": vec![0; 700_000]}], "usage": {"prompt_tokens": 4}});
    let call = played(
        "/openai/v1/embeddings",
        asked.to_string(),
        "content-type: application/json\r\n",
        answer.to_string().as_bytes(),
    )
    .await;
    assert!(call.sent.wire_len > 3 << 20 && call.received.wire_len > 1 << 20);
    assert_eq!((call.request.model.as_deref(), call.request.tools_offered), (Some("m-7"), 2));
    assert_eq!(call.request.system_prompt_sha256, Some(sha256(b"Be kind.")));
    assert_eq!(call.response.usage, usage(4, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_tried_again_unless_it_is_asked_for() {
    let (rig, upstream) = Rig::with_upstream("").await;
    let answer = rig.start(rig.post("/openai/v1/chat/completions", "{}"));
    let mut peer = upstream.accept().await;
    peer.receive().await;
    peer.send("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    assert_eq!(answer.await.unwrap().status(), 503);
    assert!(!upstream.was_called().await);
    assert_eq!(rig.monitor.call().await.response.attempt, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_attempt_is_an_event() {
    let (rig, upstream) = Rig::with_upstream("retries: 2\n").await;
    let body = chat("again", false);
    let answer = rig.start(rig.post("/openai/v1/chat/completions", body.clone()));
    let mut peer = upstream.accept().await;
    assert_eq!(peer.receive().await.body, body.as_bytes());
    peer.send("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    drop(upstream.accept().await);
    let mut peer = upstream.accept().await;
    assert_eq!(peer.receive().await.body, body.as_bytes(), "each attempt sends the same bytes");
    peer.send(json("{\"model\":\"m\"}")).await;
    assert_eq!(answer.await.unwrap().status(), 200);
    let events = rig.monitor.events(4).await;
    let attempts: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.fields {
            GatewayFields::Attempt(attempt) => Some((attempt.attempt, attempt.status, attempt.reason.is_empty())),
            _ => None,
        })
        .collect();
    assert_eq!(attempts, [(1, 503, true), (2, 0, false)]);
    assert_eq!(RecordedCall::of(&events).response.attempt, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_begun_is_never_tried_again() {
    let (rig, upstream) = Rig::with_upstream("retries: 2\n").await;
    let answer = rig.start(rig.post("/openai/v1/chat/completions", chat("x", true)));
    let mut peer = upstream.accept().await;
    peer.receive().await;
    peer.send(EVENTS_HEAD).await;
    peer.chunk("data: {}\n\n").await;
    drop(peer);
    assert!(answer.await.unwrap().bytes().await.is_err());
    assert!(!upstream.was_called().await);
    assert_eq!(rig.monitor.call().await.response.outcome, CallOutcome::UpstreamTruncated);
}
