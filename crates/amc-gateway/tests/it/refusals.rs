//! Calls that must not pass, and that no provider sees.

use amc_testkit::ModelOptions;
use amc_workspace::protocol::Refusal;
use reqwest::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::monitor::ALICE;
use crate::rig::{Rig, chat};
use crate::upstream::{PATIENCE, Upstream, json};

/// Sends bytes as they are and reads until the gateway closes or `until` has come.
async fn raw(rig: &Rig, bytes: &str, until: &str) -> String {
    let mut stream = TcpStream::connect(rig.gateway).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut received = Vec::new();
    let read = async {
        while stream.read_buf(&mut received).await.unwrap_or(0) > 0 {
            if String::from_utf8_lossy(&received).contains(until) {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("an answer or an end");
    String::from_utf8_lossy(&received).into_owned()
}

async fn nobody_called(rig: &Rig, upstream: &Upstream) {
    assert!(!upstream.was_called().await);
    assert_eq!(rig.monitor.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_valid_lease_nothing_passes() {
    let (rig, upstream) = Rig::with_upstream("").await;
    let real = "sk-proj-abcdefghijklmnopqrstuvwxyz012345";
    let unknown = format!("Bearer amc-lease-{}", "0123456789abcdef".repeat(3));
    for (header, value, says) in [
        ("x-none", "", "no lease came where the client puts its key"),
        ("authorization", "Bearer stranger", "no lease has this token"),
        ("x-api-key", "stranger", "no lease has this token"),
        ("api-key", &ALICE[1..], "no lease has this token"),
        ("authorization", &format!("Bearer {real}"), "a provider's key came in authorization"),
        ("authorization", &unknown, "the token in authorization is no valid lease"),
    ] {
        let answer = rig.client.post(rig.url("/openai/v1/chat/completions")).header(header, value).body("{}");
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        let body: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        let message = body["error"]["message"].as_str().unwrap();
        assert_eq!(body["error"]["code"], "lease_invalid");
        assert!(message.contains("LEASE_INVALID") && message.contains(says), "{message}");
        assert!(!message.contains("stranger") && !message.contains(real), "{message}");
    }
    let answer = rig.client.post(rig.url("/anthropic/v1/messages")).body("{}").send().await.unwrap();
    let body: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!((&body["type"], &body["error"]["type"]), (&"error".into(), &"authentication_error".into()));
    nobody_called(&rig, &upstream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_of_no_provider_are_told_which_there_are() {
    let (rig, upstream) = Rig::with_upstream("").await;
    for path in
        ["/openaiX/v1/models", "/v1/models", "/", "/OpenAI/v1/models", "//openai/v1/models", "/openai%2fv1/models"]
    {
        let answer =
            raw(&rig, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ALICE}\r\n\r\n"), "}}").await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
        assert!(answer.contains("/anthropic/, /azure/, /gemini/, /keyless/, /openai/"), "{answer}");
    }
    nobody_called(&rig, &upstream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_others_read_differently_are_refused() {
    let (rig, upstream) = Rig::with_upstream("").await;
    for path in [
        "/openai/v1/../admin",
        "/openai/../anthropic/v1/messages",
        "/openai/v1/%2e%2e/admin",
        "/openai/v1/..%2Fadmin",
        "/openai/v1/.%2E%5cadmin",
        "/openai/%2e/v1",
    ] {
        let answer =
            raw(&rig, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ALICE}\r\n\r\n"), "}}").await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
    }
    nobody_called(&rig, &upstream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_lengths_make_one_request() {
    let (rig, upstream) = Rig::with_upstream("").await;
    // By Content-Length the body ends within the chunk, and a second request hides in the rest.
    let hidden = "POST /openai/v1/hidden HTTP/1.1\r\nhost: x\r\n\r\n";
    let chunk = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    for lengths in
        ["content-length: 4\r\ntransfer-encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 4"]
    {
        let head =
            format!("POST /openai/v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ALICE}\r\n{lengths}\r\n\r\n");
        let (bytes, gateway) = (format!("{head}{chunk}"), rig.gateway);
        let mut stream = TcpStream::connect(gateway).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut peer = upstream.accept().await;
        let received = peer.receive().await;
        assert!(received.header("content-length").is_none() || received.header("transfer-encoding").is_none());
        assert_eq!((received.target(), received.body.as_slice()), ("/v1/files", hidden.as_bytes()));
        assert!(peer.left_over().is_empty(), "{:?}", String::from_utf8_lossy(peer.left_over()));
        // The answer closes this connection, so that the next round has a new one.
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    }
    rig.monitor.events(4).await;
    assert!(!upstream.was_called().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_no_two_servers_read_alike_are_refused() {
    let (rig, upstream) = Rig::with_upstream("").await;
    for fields in [
        "content-length: 4\r\ncontent-length: 5",
        "content-length: +4",
        "transfer-encoding: chunked, identity",
        "transfer-encoding : chunked",
        "content-length: 4\r\n bad: folded",
    ] {
        let request = format!(
            "POST /openai/v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ALICE}\r\n{fields}\r\n\r\nabcd"
        );
        let answer = raw(&rig, &request, "\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{fields}: {answer}");
    }
    nobody_called(&rig, &upstream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_evidence_no_call() {
    let (rig, upstream) = Rig::with_upstream("").await;
    rig.monitor.refuse_lookups(Refusal::LogUnavailable("the disk is full".into()));
    let answer = rig.post("/openai/v1/chat/completions", "{}").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.text().await.unwrap().contains("the disk is full"));
    nobody_called(&rig, &upstream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_refused_evidence_no_provider_is_called_until_the_log_takes_some() {
    let (rig, upstream) = Rig::with_upstream("").await;
    rig.monitor.refuse(Some(Refusal::LogUnavailable("the disk is full".into())));
    // The first call is on its way while its evidence is refused; its answer never leaves.
    let first = rig.start(rig.post("/openai/v1/chat/completions", "{}"));
    let mut peer = upstream.accept().await;
    peer.receive().await;
    peer.send(json("{\"secret\":\"answer\"}")).await;
    let first = first.await.unwrap();
    assert_eq!(first.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(!first.text().await.unwrap().contains("answer\""));
    drop(peer);
    let ready = rig.client.get(rig.url("/amc/ready")).send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    for body in ["{}".to_owned(), "x".repeat(3 << 20)] {
        let answer = rig.post("/anthropic/v1/messages", body).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    nobody_called(&rig, &upstream).await;
    rig.monitor.refuse(None);
    let answer = rig.start(rig.post("/openai/v1/chat/completions", chat("again", false)));
    let mut peer = upstream.accept().await;
    assert_eq!(peer.receive().await.body, chat("again", false).into_bytes());
    peer.send(json("{}")).await;
    assert_eq!(answer.await.unwrap().status(), StatusCode::OK);
    assert_eq!(rig.monitor.call().await.request.model.as_deref(), Some("m-1"));
    let ready = rig.client.get(rig.url("/amc/ready")).send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_evidence_does_not_leave() {
    let (rig, upstream) = Rig::with_upstream("").await;
    let answer = rig.start(rig.post("/openai/v1/chat/completions", "{}"));
    let mut peer = upstream.accept().await;
    peer.receive().await;
    rig.monitor.events(1).await;
    rig.monitor.refuse(Some(Refusal::LogUnavailable("the disk is full".into())));
    peer.send(json("{\"the\":\"answer\"}")).await;
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(!answer.text().await.unwrap().contains("\"the\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_ends_during_the_call_is_said() {
    let (rig, _model) = Rig::with_model(ModelOptions::default()).await;
    rig.monitor.refuse(Some(Refusal::LeaseInvalid("the session is sealed".into())));
    let answer = rig.post("/openai/v1/chat/completions", chat("x", false)).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert!(answer.text().await.unwrap().contains("the session is sealed"));
    rig.monitor.refuse(None);
    let answer = rig.post("/openai/v1/chat/completions", chat("x", false)).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "other leases are not concerned");
}
