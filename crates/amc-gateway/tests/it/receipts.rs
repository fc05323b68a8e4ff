//! Receipts reach the agent in headers, in a trailer and by request id, and only for durable events.

use std::time::Duration;

use amc_crypto::jws::{Receipt, ReceiptClaims, ReceiptKind, ReceiptTrust};
use amc_crypto::trust::Check as _;
use amc_crypto::{VerifierKey, sha256};
use amc_testkit::ModelOptions;
use reqwest::StatusCode;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::monitor::{ALICE, BOB, MONITOR_KEY};
use crate::rig::{Rig, chat};
use crate::upstream::{EVENTS_HEAD, PATIENCE, json};

/// Verifies a receipt under the pinned key, as anybody can.
fn verified(receipt: &str) -> ReceiptClaims {
    let key: VerifierKey = MONITOR_KEY.parse().unwrap();
    ReceiptTrust { keys: &[key] }.check(Receipt::parse(receipt).unwrap()).unwrap()
}

async fn receipts(rig: &Rig, lease: &str, path: &str) -> (StatusCode, Value) {
    let answer = rig.client.get(rig.url(path)).bearer_auth(lease).send().await.unwrap();
    (answer.status(), serde_json::from_str(&answer.text().await.unwrap()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounded_answer_carries_both_receipts() {
    let (rig, _model) = Rig::with_model(ModelOptions::default()).await;
    let body = chat("hello", false);
    let answer = rig.post("/openai/v1/chat/completions", body.clone()).send().await.unwrap();
    let headers = answer.headers().clone();
    let text = answer.text().await.unwrap();
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let request = verified(&header("x-amc-request-receipt"));
    let response = verified(&header("x-amc-receipt"));
    assert_eq!((request.kind, request.body_sha256), (ReceiptKind::LlmRequest, sha256(body.as_bytes())));
    assert_eq!((response.kind, response.body_sha256), (ReceiptKind::LlmResponse, sha256(text.as_bytes())));
    assert_eq!(response.request_id, header("x-amc-request-id"));
    assert_eq!((response.agent_id.as_str(), header("x-amc-monitor-key").as_str()), ("alice", MONITOR_KEY));
    let (status, pair) = receipts(&rig, ALICE, &header("x-amc-receipt-url")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(pair["request"], header("x-amc-request-receipt"));
    assert_eq!(pair["response"], header("x-amc-receipt"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streams_receipts_come_by_either_id_to_their_agent_only() {
    let (rig, _model) = Rig::with_model(ModelOptions::default()).await;
    let request = rig.post("/openai/v1/chat/completions", chat("hello", true)).header("x-client-request-id", "my.id:7");
    let answer = request.send().await.unwrap();
    let url = answer.headers()["x-amc-receipt-url"].to_str().unwrap().to_owned();
    assert!(answer.headers().get("x-amc-receipt").is_none());
    let text = answer.text().await.unwrap();
    for path in [url.as_str(), "/amc/receipts/my.id:7"] {
        let (status, pair) = receipts(&rig, ALICE, &format!("{path}?wait=10s")).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(verified(pair["response"].as_str().unwrap()).body_sha256, sha256(text.as_bytes()));
        let (status, answer) = receipts(&rig, BOB, path).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{answer}");
    }
    assert_eq!(receipts(&rig, "nobody", &url).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(receipts(&rig, ALICE, "/amc/receipts/never").await.0, StatusCode::NOT_FOUND);
    assert_eq!(receipts(&rig, ALICE, &format!("{url}?wait=1h")).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_head_waits_for_its_event_and_the_provider_does_not() {
    let (rig, upstream) = Rig::with_upstream("").await;
    rig.monitor.hold(true);
    let mut answer = rig.start(rig.post("/openai/v1/chat/completions", chat("hello", true)));
    let mut peer = upstream.accept().await;
    peer.receive().await;
    peer.send(format!("{EVENTS_HEAD}e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")).await;
    let early = tokio::time::timeout(Duration::from_millis(100), &mut answer).await;
    assert!(early.is_err(), "the head left before its event was durable");
    assert_eq!(rig.monitor.count(), 0);
    rig.monitor.hold(false);
    let answer = answer.await.unwrap();
    assert_eq!(verified(answer.headers()["x-amc-request-receipt"].to_str().unwrap()).event_index, 0);
    assert_eq!(answer.text().await.unwrap(), "data: [DONE]\n\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eager_head_waits_for_nothing() {
    let (rig, upstream) = Rig::with_upstream("receipts: eager\n").await;
    rig.monitor.hold(true);
    let answer = rig.start(rig.post("/openai/v1/chat/completions", chat("hello", false)));
    let mut peer = upstream.accept().await;
    peer.receive().await;
    peer.send(json("{}")).await;
    let answer = answer.await.unwrap();
    assert!(answer.headers().get("x-amc-receipt").is_none() && answer.headers().get("x-amc-request-receipt").is_none());
    let url = answer.headers()["x-amc-receipt-url"].to_str().unwrap().to_owned();
    assert_eq!(answer.text().await.unwrap(), "{}");
    assert_eq!(receipts(&rig, ALICE, &url).await.0, StatusCode::NOT_FOUND, "no receipt before the event is durable");
    rig.monitor.hold(false);
    let (status, pair) = receipts(&rig, ALICE, &format!("{url}?wait=10s")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(verified(pair["response"].as_str().unwrap()).body_sha256, sha256(b"{}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_receipt_for_clients_that_read_trailers() {
    let (rig, upstream) = Rig::with_upstream("").await;
    for (te, expected) in [("te: trailers\r\nconnection: te\r\n", true), ("", false)] {
        let mut client = TcpStream::connect(rig.gateway).await.unwrap();
        let head = "POST /openai/v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
        client
            .write_all(format!("{head}{te}authorization: Bearer {ALICE}\r\ncontent-length: 2\r\n\r\n{{}}").as_bytes())
            .await
            .unwrap();
        let mut peer = upstream.accept().await;
        peer.receive().await;
        let head = EVENTS_HEAD.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
        peer.send(format!("{head}e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")).await;
        let mut text = String::new();
        tokio::time::timeout(PATIENCE, client.read_to_string(&mut text)).await.unwrap().unwrap();
        let (_, end) = text.split_once("E\r\ndata: [DONE]\n\n\r\n0\r\n").expect("the body is untouched");
        assert_eq!(text.contains("trailer: x-amc-receipt\r\n"), expected, "{text}");
        match end.strip_prefix("x-amc-receipt: ") {
            Some(receipt) => {
                assert!(expected);
                assert_eq!(verified(receipt.trim_end()).body_sha256, sha256(b"data: [DONE]\n\n"));
            }
            None => assert_eq!((end, expected), ("\r\n", false)),
        }
    }
}

#[test]
fn the_receipt_in_the_format_page_verifies() {
    let page = include_str!("../../../../docs/formats/receipts.md");
    let receipt = page.lines().map(str::trim).find(|line| line.starts_with("eyJ")).unwrap();
    assert!(page.lines().any(|line| line.trim() == MONITOR_KEY));
    let claims = verified(receipt);
    assert_eq!((claims.event_index, claims.body_sha256), (7, sha256(b"{\"answer\":42}")));
    for name in serde_json::to_value(&claims).unwrap().as_object().unwrap().keys() {
        assert!(page.contains(&format!("| `{name}` |")), "the page does not describe {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_events_of_a_durable_call_may_go_with_one_flush() {
    let (rig, upstream) = Rig::with_upstream("").await;
    rig.monitor.answer_in_pairs();
    let answer = rig.start(rig.post("/openai/v1/chat/completions", "{}"));
    let mut peer = upstream.accept().await;
    peer.receive().await;
    peer.send(json("{}")).await;
    let answer = tokio::time::timeout(PATIENCE, answer).await.expect("neither waits for the other").unwrap();
    assert!(answer.headers().contains_key("x-amc-request-receipt") && answer.headers().contains_key("x-amc-receipt"));
    let call = rig.monitor.call().await;
    assert_eq!((call.request.request_id, call.response.request_index), (call.response.request_id, 0));
}
