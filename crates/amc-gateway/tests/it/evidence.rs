//! What the monitor is told about a call.

use amc_core::kinds::{CallOutcome, Dialect};
use amc_crypto::sha256;
use amc_testkit::ModelOptions;
use amc_workspace::protocol::gateway::{Capture, GatewayFields};
use serde_json::json;

use crate::monitor::{ALICE, BOB, RecordedCall, grant};
use crate::rig::{Rig, chat};

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_call_is_two_events_with_typed_fields() {
    let (rig, _model) = Rig::with_model(ModelOptions::default()).await;
    let body = json!({"model": "m-1", "tools": [{"type": "function", "function": {"name": "look"}}], "messages": [
        {"role": "system", "content": "Be kind."}, {"role": "user", "content": "call a tool"}]});
    let request = rig.post("/openai/v1/chat/completions?x=1", body.to_string()).header("x-request-id", "mine-1");
    let answer = request.send().await.unwrap();
    let id = answer.headers()["x-amc-request-id"].to_str().unwrap().to_owned();
    assert_eq!((id.len(), &id[..4]), (30, "req-"));
    let text = answer.text().await.unwrap();
    let RecordedCall { request, sent, response, received } = rig.monitor.call().await;
    assert_eq!((request.request_id.as_str(), request.client_request_id.as_deref()), (id.as_str(), Some("mine-1")));
    assert_eq!((request.provider.as_str(), request.dialect), ("openai", Dialect::Openai));
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/v1/chat/completions"));
    assert_eq!((request.model.as_deref(), request.stream, request.tools_offered), (Some("m-1"), false, 1));
    assert_eq!(request.system_prompt_sha256, Some(sha256(b"Be kind.")));
    assert_eq!(request.config_version, 3);
    assert_eq!(Some(request.lease), grant(sha256(ALICE.as_bytes())).map(|grant| grant.lease));
    assert_eq!((sent.media_type.as_str(), sent.capture), ("application/json", Capture::Full));
    assert_eq!((response.request_id.as_str(), response.request_index), (id.as_str(), 0));
    assert_eq!((response.status, response.outcome, response.attempt), (200, CallOutcome::Complete, 1));
    assert_eq!((response.tool_calls, response.refusal), (1, false));
    assert!(response.usage.is_some() && response.first_byte_us <= response.duration_us && response.duration_us > 0);
    assert_eq!(received.bytes, text.into_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anthropic_stream_tells_usage_and_refusal() {
    let (rig, _model) = Rig::with_model(ModelOptions::default()).await;
    let body = json!({"model": "c-1", "max_tokens": 9, "system": "Be kind.", "stream": true,
        "messages": [{"role": "user", "content": "refuse this"}]});
    let answer = rig.post("/anthropic/v1/messages", body.to_string()).send().await.unwrap();
    assert!(answer.text().await.unwrap().contains("event: message_stop"));
    let call = rig.monitor.call().await;
    assert_eq!((call.request.stream, call.request.dialect), (true, Dialect::Anthropic));
    assert_eq!(call.request.system_prompt_sha256, Some(sha256(b"Be kind.")));
    assert_eq!((call.response.refusal, call.response.model.as_deref()), (true, Some("c-1")));
    assert_eq!(call.response.usage.map(|usage| usage.input_tokens), Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_without_a_body_is_recorded_too() {
    let (rig, _model) = Rig::with_model(ModelOptions::default()).await;
    let answer = rig.client.get(rig.url("/openai/v1/models")).bearer_auth(ALICE).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let call = rig.monitor.call().await;
    assert_eq!((call.request.method.as_str(), call.sent.wire_len, call.sent.wire_sha256), ("GET", 0, sha256(b"")));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_agents_are_told_apart() {
    let (rig, _model) = Rig::with_model(ModelOptions::default()).await;
    let calls = (0..20).map(|number| {
        let lease = if number % 2 == 0 { ALICE } else { BOB };
        let request = rig.client.post(rig.url("/openai/v1/chat/completions")).bearer_auth(lease);
        request.body(chat(&format!("I am {lease}, call {number}"), number % 3 == 0)).send()
    });
    for answer in futures_util::future::join_all(calls).await {
        answer.unwrap().bytes().await.unwrap();
    }
    let events = rig.monitor.events(40).await;
    let of = |lease: &str| {
        let lease = grant(sha256(lease.as_bytes())).unwrap().lease;
        events.iter().filter(|event| event.lease == lease).count()
    };
    assert_eq!((of(ALICE), of(BOB)), (20, 20));
    for event in &events {
        if let GatewayFields::Response(response) = &event.fields {
            let index = usize::try_from(response.request_index).unwrap();
            let GatewayFields::Request(request) = &events[index].fields else { panic!("index {index} is no request") };
            assert_eq!((&request.request_id, &request.lease), (&response.request_id, &event.lease));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_down_is_a_502_with_both_events() {
    let upstream = crate::upstream::Upstream::start().await;
    let address = upstream.addr();
    drop(upstream);
    let rig = Rig::new(address, "").await;
    for (path, kind) in [("/openai/v1/chat/completions", "/error/type"), ("/anthropic/v1/messages", "/error/type")] {
        let answer = rig.post(path, chat("is anybody there", false)).send().await.unwrap();
        assert_eq!(answer.status(), 502);
        assert!(
            answer.headers().contains_key("x-amc-receipt") && answer.headers().contains_key("x-amc-request-receipt")
        );
        let body: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!(body.pointer(kind).unwrap(), "api_error");
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains("UPSTREAM_FAILED") && message.contains(&address.to_string()), "{message}");
    }
    let call = RecordedCall::of(&rig.monitor.events(2).await[..2]);
    assert_eq!((call.response.outcome, call.response.status), (CallOutcome::UpstreamFailed, 0));
    assert_eq!(
        call.sent.wire_sha256,
        sha256(chat("is anybody there", false).as_bytes()),
        "what the agent said is kept"
    );
    assert_eq!(call.request.model.as_deref(), Some("m-1"));
}
