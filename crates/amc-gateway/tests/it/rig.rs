//! One gateway with its monitor, in this process, on a free port.

use std::net::SocketAddr;

use amc_gateway::egress::Resolver;
use amc_gateway::{GatewayError, Options, Socket, serve};
use amc_testkit::{DemoModel, ModelOptions};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::monitor::{ALICE, TestMonitor};
use crate::upstream::{PATIENCE, Upstream};

/// The provider's key, which no agent and no stored byte may show.
pub(crate) const PROVIDER_KEY: &str = "provider-secret-0123456789";

pub(crate) struct Rig {
    pub(crate) monitor: TestMonitor,
    pub(crate) gateway: SocketAddr,
    pub(crate) client: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), GatewayError>>,
    _dir: tempfile::TempDir,
}

impl Rig {
    /// A gateway in front of one upstream, as `openai` and as `anthropic`; `more` is appended to
    /// `gateway.yaml`.
    pub(crate) async fn new(upstream: SocketAddr, more: &str) -> Self {
        Rig::resolving(upstream, more, Resolver::default()).await
    }

    /// The same with an egress proxy that finds addresses so.
    pub(crate) async fn resolving(upstream: SocketAddr, more: &str, resolver: Resolver) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "listen: 127.0.0.1:0\nproviders:\n  \
             openai:\n    dialect: openai\n    baseUrl: http://{upstream}/v1\n  \
             anthropic:\n    dialect: anthropic\n    baseUrl: http://{upstream}\n  \
             keyless:\n    dialect: openai\n    baseUrl: http://{upstream}/v1\n  \
             gemini:\n    dialect: gemini\n    baseUrl: http://{upstream}\n  \
             azure:\n    dialect: openai\n    baseUrl: http://{upstream}\n    keyHeader: api-key\nmetrics: null\n{more}"
        );
        let secrets = ["openai", "anthropic", "gemini", "azure"].map(|name| (name, PROVIDER_KEY));
        let monitor = TestMonitor::start(dir.path(), config, &secrets);
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, listening) = oneshot::channel();
        let options = Options {
            socket: Socket::connect(&monitor.socket).unwrap(),
            listen_override: None,
            ready: |address| ready.send(address).unwrap(),
            resolver,
        };
        let task = tokio::spawn(serve(options, async move { drop(stopped.await) }));
        let gateway = listening.await.expect("the gateway listens");
        let client = amc_testkit::client::client().unwrap();
        Rig { monitor, gateway, client, stop: Some(stop), task, _dir: dir }
    }

    /// A gateway in front of a demo model.
    pub(crate) async fn with_model(options: ModelOptions) -> (Self, DemoModel) {
        let model = DemoModel::start(options).await.unwrap();
        (Rig::new(model.addr(), "").await, model)
    }

    /// A gateway in front of an upstream that the test plays.
    pub(crate) async fn with_upstream(more: &str) -> (Self, Upstream) {
        let upstream = Upstream::start().await;
        (Rig::new(upstream.addr(), more).await, upstream)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway)
    }

    /// A request of alice's.
    pub(crate) fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        let request = self.client.post(self.url(path)).bearer_auth(ALICE);
        request.header("content-type", "application/json").body(body)
    }

    /// Sends a request on a task of its own, so that the test can play the upstream.
    pub(crate) fn start(&self, request: reqwest::RequestBuilder) -> JoinHandle<reqwest::Response> {
        tokio::spawn(async move { tokio::time::timeout(PATIENCE, request.send()).await.expect("an answer").unwrap() })
    }

    /// Tells the gateway to stop; returns with how it ended.
    pub(crate) async fn stop(mut self) -> Result<(), GatewayError> {
        self.stop.take().unwrap().send(()).unwrap();
        self.ended().await
    }

    /// Waits until the gateway ends by itself.
    pub(crate) async fn ended(self) -> Result<(), GatewayError> {
        tokio::time::timeout(PATIENCE, self.task).await.expect("the gateway ends in time").unwrap()
    }
}

/// A chat request.
pub(crate) fn chat(prompt: &str, stream: bool) -> String {
    let messages = serde_json::json!([{"role": "system", "content": "Be kind."}, {"role": "user", "content": prompt}]);
    serde_json::json!({"model": "m-1", "messages": messages, "stream": stream, "stream_options": {"include_usage": stream}})
        .to_string()
}
