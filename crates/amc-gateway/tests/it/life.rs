//! Start, stop, and the end of the monitor.

use amc_core::kinds::CallOutcome;
use amc_gateway::egress::Resolver;
use amc_gateway::{GatewayError, Options, Socket, serve};
use amc_testkit::ModelOptions;
use reqwest::StatusCode;

use crate::monitor::{ALICE, TestMonitor};
use crate::rig::{Rig, chat};
use crate::upstream::EVENTS_HEAD;

async fn start(monitor: &TestMonitor, listen: Option<std::net::SocketAddr>) -> Result<(), GatewayError> {
    let options = Options {
        socket: Socket::connect(&monitor.socket).unwrap(),
        listen_override: listen,
        ready: |_| {},
        resolver: Resolver::default(),
    };
    serve(options, std::future::ready(())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_readiness_need_no_lease() {
    let (rig, _model) = Rig::with_model(ModelOptions::default()).await;
    for path in ["/amc/health", "/amc/ready"] {
        assert_eq!(rig.client.get(rig.url(path)).send().await.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(rig.client.get(rig.url("/amc/other")).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    assert_eq!(rig.monitor.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_the_stream_and_its_evidence() {
    let (rig, upstream) = Rig::with_upstream("").await;
    let (monitor, client, url) = (rig.monitor.clone(), rig.client.clone(), rig.url("/amc/health"));
    let answer = rig.start(rig.post("/openai/v1/chat/completions", chat("hello", true)));
    let mut peer = upstream.accept().await;
    peer.receive().await;
    peer.send(EVENTS_HEAD).await;
    let answer = answer.await.unwrap();
    let stopped = tokio::spawn(rig.stop());
    // New connections are refused from then on, while the stream goes on.
    while client.get(&url).header("connection", "close").send().await.is_ok() {
        tokio::task::yield_now().await;
    }
    peer.chunk("data: [DONE]\n\n").await;
    peer.chunk("").await;
    assert_eq!(answer.text().await.unwrap(), "data: [DONE]\n\n");
    stopped.await.unwrap().unwrap();
    assert_eq!(monitor.count(), 2, "the evidence is complete when the gateway ends");
    assert_eq!(monitor.call().await.response.outcome, CallOutcome::Complete);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_monitor_the_gateway_ends() {
    let (rig, _model) = Rig::with_model(ModelOptions::default()).await;
    rig.monitor.hang_up();
    let error = rig.ended().await.unwrap_err();
    assert!(matches!(error, GatewayError::MonitorGone) && error.exit_code() == 3, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_that_goes_during_a_call_makes_it_a_503() {
    let (rig, upstream) = Rig::with_upstream("").await;
    rig.monitor.hang_up_on_lookup();
    let answer = rig.post("/openai/v1/chat/completions", "{}").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(!upstream.was_called().await);
    assert!(matches!(rig.ended().await, Err(GatewayError::MonitorGone)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_of_a_start_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let error = Socket::connect(&dir.path().join("none.sock")).unwrap_err();
    assert!(error.to_string().contains("none.sock") && error.to_string().contains("amc up"), "{error}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let monitor = TestMonitor::start(dir.path(), "providers: {}\n".to_owned(), &[]);
    let error = start(&monitor, Some(address)).await.unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(
        error.to_string().contains(&format!("{address}: the port is in use")) && error.to_string().contains("--listen"),
        "{error}"
    );
    let dir = tempfile::tempdir().unwrap();
    let monitor = TestMonitor::start(dir.path(), "providers: {}\nretry: 3\n".to_owned(), &[]);
    let error = start(&monitor, None).await.unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("retry"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_carries_many_calls() {
    let (rig, _model) = Rig::with_model(ModelOptions::default()).await;
    for number in 0..10 {
        let request = rig.client.post(rig.url("/openai/v1/chat/completions")).bearer_auth(ALICE);
        let answer = request.body(chat(&format!("call {number}"), number % 2 == 1)).send().await.unwrap();
        assert!(answer.text().await.unwrap().contains("demo"));
    }
    assert_eq!(rig.monitor.events(20).await.len(), 20);
    rig.stop().await.unwrap();
}
