//! What passes is what was sent: bytes, order, lengths, ends.

use std::io::Write as _;

use amc_core::kinds::CallOutcome;
use amc_crypto::sha256;
use amc_testkit::ModelOptions;
use amc_testkit::answer::{self, Answer};
use amc_workspace::protocol::gateway::Capture;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::rig::{PROVIDER_KEY, Rig, chat};
use crate::upstream::{EVENTS_HEAD, PATIENCE, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_arrives_byte_for_byte_with_the_providers_key() {
    let (rig, upstream) = Rig::with_upstream("").await;
    // Unknown fields, repeated keys, odd spacing, an escape: nothing is parsed and written again.
    let body = "{ \"model\" : \"m\",\"model\":\"n\", \"x_unknown\":[1e3, -0.0],\t\"t\":\"\\u00e9é\" }\r\n";
    let request = rig.post("/openai/v1/chat/completions?a=%20b&c", body);
    let request = request.header("openai-organization", "org-1").header("x-amc-forged", "1").header("te", "trailers");
    let answer = rig.start(request);
    let mut peer = upstream.accept().await;
    let received = peer.receive().await;
    assert_eq!(received.target(), "/v1/chat/completions?a=%20b&c");
    assert_eq!(received.body, body.as_bytes());
    assert_eq!(received.header("content-length"), Some(body.len().to_string().as_str()));
    assert_eq!(received.header("authorization"), Some(format!("Bearer {PROVIDER_KEY}").as_str()));
    assert_eq!(received.header("openai-organization"), Some("org-1"));
    assert_eq!(received.header("host"), Some(upstream.addr().to_string().as_str()));
    assert_eq!((received.header("x-amc-forged"), received.header("te")), (None, None));
    let reply = "{\"odd\" :  1}\n";
    let head = "HTTP/1.1 200 OK\r\nconnection: x-hop\r\nx-hop: 1\r\nx-provider: kept\r\nx-amc-receipt: forged\r\n";
    peer.send(format!("{head}content-type: application/json\r\ncontent-length: {}\r\n\r\n{reply}", reply.len())).await;
    let answer = answer.await.unwrap();
    assert_eq!((answer.headers()["x-provider"].as_bytes(), answer.headers().get("x-hop")), (&b"kept"[..], None));
    assert_ne!(answer.headers()["x-amc-receipt"], "forged");
    assert_eq!(answer.headers()["content-length"], reply.len().to_string().as_str());
    assert_eq!(answer.bytes().await.unwrap(), reply);
    let call = rig.monitor.call().await;
    assert_eq!((call.sent.wire_sha256, call.sent.bytes.as_slice()), (sha256(body.as_bytes()), body.as_bytes()));
    assert_eq!(
        (call.received.wire_sha256, call.received.bytes.as_slice()),
        (sha256(reply.as_bytes()), reply.as_bytes())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_added_to_a_request_and_its_query_is_not_written_anew() {
    let (rig, upstream) = Rig::with_upstream("").await;
    let mut agent = TcpStream::connect(rig.gateway).await.unwrap();
    let head = format!("host: gateway\r\nauthorization: Bearer {}\r\nx-one: 1\r\n", crate::monitor::ALICE);
    let line = "GET /openai/v1/models?q='it'&r=%27 HTTP/1.1";
    agent.write_all(format!("{line}\r\n{head}\r\n").as_bytes()).await.unwrap();
    let mut peer = upstream.accept().await;
    let received = peer.receive().await;
    assert_eq!(received.target(), "/v1/models?q='it'&r=%27");
    let lines = received.head.lines().skip(1).filter(|line| !line.is_empty());
    let mut names: Vec<&str> = lines.map(|line| line.split(':').next().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["authorization", "host", "x-one"], "{}", received.head);
    peer.send(json("{}")).await;
    assert_eq!(rig.monitor.call().await.response.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn anthropic_gets_its_key_in_its_own_header_and_keyless_providers_none() {
    let (rig, upstream) = Rig::with_upstream("").await;
    let request = rig.client.post(rig.url("/anthropic/v1/messages")).header("x-api-key", crate::monitor::ALICE);
    let answer =
        rig.start(request.header("anthropic-version", "2023-06-01").header("anthropic-beta", "b-1").body("{}"));
    let mut peer = upstream.accept().await;
    let received = peer.receive().await;
    assert_eq!((received.target(), received.header("x-api-key")), ("/v1/messages", Some(PROVIDER_KEY)));
    assert_eq!((received.header("authorization"), received.header("anthropic-beta")), (None, Some("b-1")));
    peer.send(json("{}")).await;
    assert_eq!(answer.await.unwrap().status(), 200);
    let answer = rig.start(rig.post("/keyless/chat/completions", "{}"));
    let mut peer = upstream.accept_or(peer).await;
    let received = peer.receive().await;
    assert_eq!((received.target(), received.header("authorization")), ("/v1/chat/completions", None));
    peer.send(json("{}")).await;
    assert_eq!(answer.await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_passes_piece_by_piece() {
    let (rig, upstream) = Rig::with_upstream("").await;
    let answer = rig.start(rig.post("/openai/v1/chat/completions", chat("hello", true)));
    let mut peer = upstream.accept().await;
    peer.receive().await;
    peer.send(EVENTS_HEAD).await;
    let mut answer = answer.await.unwrap();
    let pieces = ["data: {\"model\":\"m-2\",\"choices\":[]}\n\n", ": a comment\n\n", "data: [DONE]\n\n"];
    for piece in pieces {
        // The next piece is not written before this one has arrived: a gateway that buffers hangs here.
        peer.chunk(piece).await;
        let arrived = tokio::time::timeout(PATIENCE, answer.chunk()).await.expect("the piece is not held back");
        assert_eq!(arrived.unwrap().unwrap(), piece);
    }
    peer.chunk("").await;
    assert_eq!(answer.chunk().await.unwrap(), None);
    let call = rig.monitor.call().await;
    assert_eq!(call.response.outcome, CallOutcome::Complete);
    assert_eq!(call.received.wire_sha256, sha256(pieces.concat().as_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_models_stream_has_the_same_bytes_with_and_without_the_gateway() {
    let (rig, model) = Rig::with_model(ModelOptions::default()).await;
    let body = chat("What is a receipt?", true);
    let through = rig.post("/openai/v1/chat/completions", body.clone()).send().await.unwrap();
    assert_eq!(through.headers()["content-type"], "text/event-stream; charset=utf-8");
    let through = through.bytes().await.unwrap();
    let direct = rig.client.post(format!("http://{}/v1/chat/completions", model.addr())).body(body.clone());
    let direct = direct.send().await.unwrap().bytes().await.unwrap();
    assert_eq!(through, direct);
    let call = rig.monitor.call().await;
    let expected = Answer::to(body.as_bytes(), &serde_json::from_str(&body).unwrap());
    let usage = call.response.usage.unwrap();
    assert_eq!((usage.input_tokens, usage.output_tokens), (expected.input_tokens, expected.output_tokens));
    assert_eq!(call.received.bytes, answer::chat::stream(&expected, true).concat().into_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_have_no_size_of_ours() {
    let (rig, _model) = Rig::with_model(ModelOptions::default()).await;
    for (number, len) in (1..).zip([70 << 10, 5 << 20]) {
        let body = chat(&"word ".repeat(len / 5), false);
        let answer = rig.post("/openai/v1/chat/completions", body.clone()).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.text().await.unwrap().contains("demo model"));
        let events = rig.monitor.events(2 * number).await;
        let sent = events[2 * number - 2].payload.clone().unwrap();
        assert_eq!((sent.wire_sha256, sent.wire_len), (sha256(body.as_bytes()), body.len() as u64));
        let kept = body.len().min(amc_core::limits::PAYLOAD_STORED_BYTES_MAX);
        assert_eq!(sent.bytes, body.as_bytes()[..kept]);
        let cut = Capture::Truncated(String::new());
        assert_eq!(sent.capture, if kept == body.len() { Capture::Full } else { cut });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gzip_answer_stays_compressed_and_its_usage_is_read() {
    let (rig, upstream) = Rig::with_upstream("").await;
    let request = rig.post("/openai/v1/chat/completions", chat("hello", false)).header("accept-encoding", "gzip");
    let answer = rig.start(request);
    let mut peer = upstream.accept().await;
    assert_eq!(peer.receive().await.header("accept-encoding"), Some("gzip"));
    let plain = r#"{"model":"m-2","usage":{"prompt_tokens":7,"completion_tokens":11},"choices":[]}"#;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain.as_bytes()).unwrap();
    let packed = encoder.finish().unwrap();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: ";
    peer.send(format!("{head}{}\r\n\r\n", packed.len())).await;
    peer.send(&packed).await;
    let answer = answer.await.unwrap();
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    assert_eq!(answer.bytes().await.unwrap(), packed);
    let call = rig.monitor.call().await;
    assert_eq!((call.received.capture, call.received.bytes), (Capture::Full, packed));
    assert_eq!(call.response.usage.map(|usage| (usage.input_tokens, usage.output_tokens)), Some((7, 11)));
    assert_eq!(call.response.model.as_deref(), Some("m-2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_ends_the_providers_call() {
    let (rig, upstream) = Rig::with_upstream("").await;
    let answer = rig.start(rig.post("/openai/v1/chat/completions", chat("hello", true)));
    let mut peer = upstream.accept().await;
    peer.receive().await;
    peer.send(EVENTS_HEAD).await;
    peer.chunk("data: {\"choices\":[]}\n\n").await;
    let mut answer = answer.await.unwrap();
    assert!(answer.chunk().await.unwrap().is_some());
    drop(answer);
    peer.closed().await;
    let call = rig.monitor.call().await;
    assert_eq!((call.response.outcome, call.response.status), (CallOutcome::ClientLeft, 200));
    assert_eq!(call.received.wire_len, 22);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_after_the_last_word_has_it_all() {
    let (rig, upstream) = Rig::with_upstream("").await;
    let answer = rig.start(rig.post("/openai/v1/chat/completions", chat("hello", true)));
    let mut peer = upstream.accept().await;
    peer.receive().await;
    peer.send(EVENTS_HEAD).await;
    peer.chunk("data: [DONE]\n\n").await;
    let mut answer = answer.await.unwrap();
    assert!(answer.chunk().await.unwrap().is_some());
    drop(answer);
    assert_eq!(rig.monitor.call().await.response.outcome, CallOutcome::Complete);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_before_the_head_is_recorded() {
    let (rig, upstream) = Rig::with_upstream("").await;
    let answer = rig.start(rig.post("/openai/v1/chat/completions", chat("hello", false)));
    let mut peer = upstream.accept().await;
    peer.receive().await;
    answer.abort();
    peer.closed().await;
    let call = rig.monitor.call().await;
    assert_eq!((call.response.outcome, call.response.status), (CallOutcome::ClientLeft, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_breaks_off_leaves_a_broken_answer() {
    for (head, piece) in [
        (EVENTS_HEAD, "5\r\ndata:\r\n"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n", "data:"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", "data:"),
    ] {
        let (rig, upstream) = Rig::with_upstream("").await;
        let answer = rig.start(rig.post("/openai/v1/chat/completions", chat("hello", true)));
        let mut peer = upstream.accept().await;
        peer.receive().await;
        peer.send(format!("{head}{piece}")).await;
        drop(peer);
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.bytes().await.is_err(), "{head}");
        let call = rig.monitor.call().await;
        assert_eq!((call.response.outcome, call.response.status), (CallOutcome::UpstreamTruncated, 200), "{head}");
        assert_eq!(call.received.bytes, b"data:");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_fails_after_three_events_is_recorded_as_it_was() {
    let (rig, _model) = Rig::with_model(ModelOptions { fail_after_chunks: Some(3), ..ModelOptions::default() }).await;
    let answer = rig.post("/anthropic/v1/messages", chat("hello", true)).send().await.unwrap();
    assert!(answer.bytes().await.is_err());
    let call = rig.monitor.call().await;
    assert_eq!((call.response.outcome, call.response.usage), (CallOutcome::UpstreamTruncated, None));
    assert_eq!(call.received.bytes.windows(6).filter(|window| window == b"event:").count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_is_bounded_between_bytes_and_before_the_first() {
    let (rig, upstream) = Rig::with_upstream("timeouts:\n  idleMs: 80\n  firstByteMs: 80\n").await;
    let answer = rig.start(rig.post("/openai/v1/chat/completions", chat("hello", true)));
    let mut peer = upstream.accept().await;
    peer.receive().await;
    peer.send(EVENTS_HEAD).await;
    assert!(answer.await.unwrap().bytes().await.is_err());
    let call = rig.monitor.call().await;
    assert_eq!(call.response.outcome, CallOutcome::UpstreamTruncated);
    let answer = rig.start(rig.post("/openai/v1/chat/completions", chat("hello", true)));
    let _silent = upstream.accept().await;
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 502);
    assert!(answer.text().await.unwrap().contains("no answer within 80 ms"));
    let call = crate::monitor::RecordedCall::of(&rig.monitor.events(4).await[2..]);
    assert_eq!(call.response.outcome, CallOutcome::UpstreamFailed);
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_may_speak_http_2_and_chunked() {
    let (rig, upstream) = Rig::with_upstream("").await;
    let client = amc_testkit::client::builder().unwrap().http2_prior_knowledge().build().unwrap();
    let pieces = futures_util::stream::iter([Ok::<_, std::io::Error>("{\"a\":"), Ok("1}")]);
    let request = client.post(rig.url("/openai/v1/chat/completions")).bearer_auth(crate::monitor::ALICE);
    let answer = rig.start(request.body(reqwest::Body::wrap_stream(pieces)));
    let mut peer = upstream.accept().await;
    let received = peer.receive().await;
    assert_eq!((received.body.as_slice(), received.header("transfer-encoding")), (&b"{\"a\":1}"[..], Some("chunked")));
    peer.send(json("{\"ok\":true}")).await;
    let answer = answer.await.unwrap();
    assert_eq!(answer.version(), reqwest::Version::HTTP_2);
    assert_eq!(answer.text().await.unwrap(), "{\"ok\":true}");
    assert_eq!(rig.monitor.call().await.sent.wire_len, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_keep_their_heads() {
    let (rig, upstream) = Rig::with_upstream("").await;
    let request = rig.client.head(rig.url("/openai/v1/models")).bearer_auth(crate::monitor::ALICE);
    let answer = rig.start(request);
    let mut peer = upstream.accept().await;
    assert!(peer.receive().await.head.starts_with("HEAD /v1/models "));
    peer.send("HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n").await;
    let answer = answer.await.unwrap();
    assert_eq!(answer.headers()["content-length"], "1234");
    let call = rig.monitor.call().await;
    assert_eq!((call.response.outcome, call.received.wire_len), (CallOutcome::Complete, 0));
    let answer = rig.start(rig.post("/openai/v1/files", "{}"));
    let mut peer = upstream.accept_or(peer).await;
    peer.receive().await;
    peer.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(answer.await.unwrap().status(), 204);
    assert_eq!(rig.monitor.events(4).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_the_end_of_the_request_passes() {
    let (rig, upstream) = Rig::with_upstream("").await;
    let (more, pieces) = tokio::sync::mpsc::channel::<Result<&'static str, std::io::Error>>(1);
    let pieces =
        futures_util::stream::unfold(pieces, |mut pieces| async { pieces.recv().await.map(|piece| (piece, pieces)) });
    more.send(Ok("the beginning")).await.unwrap();
    let answer = rig.start(rig.post("/openai/v1/files", reqwest::Body::wrap_stream(pieces)));
    let mut peer = upstream.accept().await;
    // An answer before its request has begun is none.
    peer.receive_head().await;
    peer.send("HTTP/1.1 413 Payload Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nno!").await;
    let answer = answer.await.unwrap();
    assert_eq!(
        (answer.status(), answer.text().await.unwrap().as_str()),
        (reqwest::StatusCode::PAYLOAD_TOO_LARGE, "no!")
    );
    drop((more, peer));
    let call = rig.monitor.call().await;
    assert_eq!((call.response.status, call.response.outcome), (413, CallOutcome::Complete));
}
