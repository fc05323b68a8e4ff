//! What a lease bounds, told in the words and the shape of each client's own API.

use std::io::Write as _;

use amc_core::kinds::LeaseScope;
use amc_testkit::ModelOptions;
use amc_workspace::protocol::gateway::LeaseLimits;
use reqwest::StatusCode;
use serde_json::Value;

use crate::monitor::{ALICE, BOB};
use crate::rig::{PROVIDER_KEY, Rig, chat};
use crate::upstream::{PATIENCE, json};

async fn refusal(answer: reqwest::Response) -> (u16, Value) {
    let status = answer.status().as_u16();
    (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_api_hears_in_its_own_shape_why_a_lease_is_not_enough() {
    let (rig, upstream) = Rig::with_upstream("").await;
    rig.monitor.limit(ALICE, LeaseLimits { providers: vec!["azure".into()], ..LeaseLimits::default() });
    let (status, error) = refusal(rig.post("/openai/v1/chat/completions", "{}").send().await.unwrap()).await;
    assert_eq!(
        (status, &error["error"]["type"], &error["error"]["code"]),
        (403, &"permission_error".into(), &"lease_scope".into())
    );
    let (status, error) = refusal(rig.post("/anthropic/v1/messages", "{}").send().await.unwrap()).await;
    assert_eq!((status, &error["error"]["type"]), (403, &"permission_error".into()));
    let (status, error) =
        refusal(rig.post("/gemini/v1beta/models/g:generateContent", "{}").send().await.unwrap()).await;
    assert_eq!(
        (status, &error["error"]["status"], &error["error"]["code"]),
        (403, &"PERMISSION_DENIED".into(), &403.into())
    );
    assert!(error["error"]["message"].as_str().unwrap().contains("is for azure, not for gemini"), "{error}");
    rig.monitor.limit(ALICE, LeaseLimits { scopes: vec![LeaseScope::Egress], ..LeaseLimits::default() });
    let (status, error) = refusal(rig.post("/openai/v1/chat/completions", "{}").send().await.unwrap()).await;
    assert!(status == 403 && error.to_string().contains("scope llm"), "{error}");
    let unknown = rig.client.post(rig.url("/gemini/v1beta/models/g:generateContent?key=nobody")).send().await.unwrap();
    let (status, error) = refusal(unknown).await;
    assert_eq!((status, &error["error"]["status"]), (401, &"UNAUTHENTICATED".into()));
    assert!(error["error"]["message"].as_str().unwrap().contains("the token in ?key="), "{error}");
    assert!(!upstream.was_called().await);
    assert_eq!(rig.monitor.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_has_a_time_after_which_to_try_again_and_a_call_ends_with_its_answer() {
    let (rig, upstream) = Rig::with_upstream("").await;
    rig.monitor.limit(ALICE, LeaseLimits { concurrency: 1, ..LeaseLimits::default() });
    let first = rig.start(rig.post("/openai/v1/chat/completions", "{}"));
    let mut peer = upstream.accept().await;
    peer.receive().await;
    let second = rig.post("/openai/v1/chat/completions", "{}").send().await.unwrap();
    assert_eq!(second.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(second.headers()["retry-after"], "1");
    peer.send(json("{}")).await;
    assert_eq!(first.await.unwrap().bytes().await.unwrap(), "{}");
    // Others are not concerned, and the next call of the same lease passes.
    for lease in [BOB, ALICE] {
        let request = rig.client.post(rig.url("/openai/v1/chat/completions")).bearer_auth(lease).body("{}");
        let next = rig.start(request);
        peer = upstream.accept_or(peer).await;
        peer.receive().await;
        peer.send(json("{}")).await;
        assert_eq!(next.await.unwrap().status(), StatusCode::OK);
    }
    rig.monitor.limit(ALICE, LeaseLimits { requests_per_minute: 1, ..LeaseLimits::default() });
    let passed = rig.start(rig.post("/openai/v1/chat/completions", "{}"));
    peer = upstream.accept_or(peer).await;
    peer.receive().await;
    peer.send(json("{}")).await;
    assert_eq!(passed.await.unwrap().status(), StatusCode::OK);
    let refused = rig.post("/anthropic/v1/messages", "{}").send().await.unwrap();
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    let (status, error) = refusal(refused).await;
    assert_eq!((status, &error["error"]["type"]), (429, &"rate_limit_error".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_compared_wherever_it_stands() {
    let (rig, upstream) = Rig::with_upstream("").await;
    rig.monitor.limit(ALICE, LeaseLimits { models: vec!["m-1".into()], ..LeaseLimits::default() });
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(br#"{"model":"m-2"}"#).unwrap();
    let packed = encoder.finish().unwrap();
    let form = "--b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nm-2\r\n--b--\r\n";
    let far_in = format!("{{\"messages\":[\"{}\"],\"model\":\"m-2\"}}", "x".repeat(2 << 20));
    for (path, kind, encoding, body) in [
        ("/openai/v1/chat/completions", "application/json", None, br#"{"model":"m-2"}"#.to_vec()),
        ("/openai/v1/chat/completions", "application/json", None, br#"{"model":"m-1","mod\u0065l":"m-2"}"#.to_vec()),
        ("/openai/v1/chat/completions", "application/json", None, far_in.into_bytes()),
        ("/openai/v1/chat/completions", "application/json", Some("gzip"), packed),
        ("/openai/v1/chat/completions", "application/json", Some("unheard-of"), br#"{"model":"m-1"}"#.to_vec()),
        ("/openai/v1/chat/completions", "application/json", None, b"{\"model\":\"m-1\"".to_vec()),
        ("/openai/v1/audio/transcriptions", "multipart/form-data; boundary=b", None, form.into()),
        ("/gemini/v1beta/models/m-2:generateContent", "application/json", None, b"{}".to_vec()),
        ("/azure/openai/deployments/m-2/chat/completions", "application/json", None, br#"{"model":"m-1"}"#.to_vec()),
    ] {
        let mut request = rig.client.post(rig.url(path)).bearer_auth(ALICE).header("content-type", kind);
        if let Some(encoding) = encoding {
            request = request.header("content-encoding", encoding);
        }
        let (status, error) = refusal(request.body(body.clone()).send().await.unwrap()).await;
        assert_eq!(status, 403, "{path} {kind} {encoding:?}: {error}");
    }
    assert!(!upstream.was_called().await);
    for body in [r#"{ "model" : "m-1", "x":1 }"#, "{}"] {
        let answer = rig.start(rig.post("/openai/v1/chat/completions", body));
        let mut peer = upstream.accept().await;
        assert_eq!(peer.receive().await.body, body.as_bytes(), "what was read passes byte for byte");
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}").await;
        assert_eq!(answer.await.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_provider_gets_its_key_where_it_wants_it_and_nothing_of_the_agents() {
    let (rig, upstream) = Rig::with_upstream("").await;
    for (path, expected) in [
        (format!("/gemini/v1beta/models/g:streamGenerateContent?alt=sse&key={ALICE}"), "x-goog-api-key"),
        (format!("/gemini/v1beta/models/g:streamGenerateContent?alt=sse&k%65y={ALICE}"), "x-goog-api-key"),
        ("/azure/openai/deployments/d/chat/completions?api-version=1".to_owned(), "api-key"),
    ] {
        let mut request = rig.client.post(rig.url(&path)).body("{}");
        if expected == "api-key" {
            request = request.header("api-key", ALICE);
        }
        let answer = rig.start(request);
        let mut peer = upstream.accept().await;
        let received = peer.receive().await;
        for header in ["authorization", "x-api-key", "api-key", "x-goog-api-key"] {
            let key = (header == expected).then_some(PROVIDER_KEY);
            assert_eq!(received.header(header), key, "{path}: {header}");
        }
        assert!(!received.head.contains(ALICE), "{}", received.head);
        assert!(
            received.target().ends_with("alt=sse") || received.target().ends_with("api-version=1"),
            "{}",
            received.target()
        );
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}").await;
        assert_eq!(answer.await.unwrap().status(), StatusCode::OK);
    }
    let events = rig.monitor.events(6).await;
    assert!(!format!("{events:?}").contains(ALICE));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_agents_may_choose_the_same_request_id() {
    let (rig, _model) = Rig::with_model(ModelOptions::default()).await;
    let mut seen = Vec::new();
    for lease in [ALICE, BOB] {
        let request = rig.client.post(rig.url("/openai/v1/chat/completions")).bearer_auth(lease);
        let answer = request.header("x-request-id", "same").body(chat(lease, false)).send().await.unwrap();
        seen.push(answer.headers()["x-amc-receipt"].to_str().unwrap().to_owned());
    }
    for (lease, receipt) in [ALICE, BOB].into_iter().zip(seen) {
        let request = rig.client.get(rig.url("/amc/receipts/same")).bearer_auth(lease);
        let pair: Value = serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap();
        assert_eq!(pair["response"], receipt.as_str(), "{lease}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn eager_answers_wait_for_the_log_to_take_the_evidence_and_for_no_flush() {
    let (rig, upstream) = Rig::with_upstream("receipts: eager\n").await;
    rig.monitor.hold(true);
    rig.monitor.hold_acceptance(true);
    let answer = rig.start(rig.post("/openai/v1/chat/completions", "{}"));
    let mut peer = upstream.accept().await;
    peer.receive().await;
    peer.send(json("{\"the\":\"answer\"}")).await;
    // The provider has answered; nothing leaves before the log has taken the request's event.
    let waited = tokio::time::timeout(std::time::Duration::from_millis(100), async {
        while !answer.is_finished() {
            tokio::task::yield_now().await;
        }
    });
    assert!(waited.await.is_err(), "the head left before the evidence was taken");
    rig.monitor.hold_acceptance(false);
    let answer = tokio::time::timeout(PATIENCE, answer).await.expect("no flush is waited for").unwrap();
    assert_eq!(answer.bytes().await.unwrap(), "{\"the\":\"answer\"}");
    assert_eq!((rig.monitor.count(), rig.monitor.accepted()), (0, 1));
    rig.monitor.hold(false);
    rig.monitor.call().await;
}
