//! Spans of model calls for an OpenTelemetry collector, where `otlp` of gateway.yaml names one:
//! OTLP/HTTP with JSON, in the terms of the GenAI semantic conventions (spans of kind CLIENT).
//!
//! A span has names, counts and times, never a text of a body. No call waits for it: spans are put into
//! a bounded queue, what does not fit is dropped and counted, and a collector that fails costs spans
//! and nothing else. Spans are no evidence.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use amc_core::kinds::{CallOutcome, LlmResponse};
use amc_workspace::config::OtlpConfig;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::body::whole;
use crate::error::GatewayError;
use crate::log;
use crate::record::Call;
use crate::state::Gateway;

/// Where spans go.
#[derive(Debug)]
pub(crate) struct Collector {
    uri: Uri,
    headers: HeaderMap,
}

impl Collector {
    /// From a configuration that was checked.
    pub(crate) fn new(config: &OtlpConfig) -> Result<Self, GatewayError> {
        let OtlpConfig { endpoint, headers } = config;
        let uri = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
        let uri = Uri::try_from(uri).map_err(|error| GatewayError::Client(format!("otlp.endpoint: {error}")))?;
        let pair = |(name, value): (&String, &String)| {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            Some((name, HeaderValue::from_str(value).ok()?))
        };
        let mut headers: HeaderMap = headers.iter().filter_map(pair).collect();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Collector { uri, headers })
    }
}

/// Spans that wait to be sent.
#[derive(Debug)]
pub(crate) struct Spans {
    queue: mpsc::Sender<Value>,
    waiting: Mutex<mpsc::Receiver<Value>>,
}

impl Default for Spans {
    fn default() -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_LEN);
        Spans { queue, waiting: Mutex::new(waiting) }
    }
}

/// Queues the span of a call that has ended, where somebody collects them.
pub(crate) fn call_ended(gateway: &Gateway, call: &Call, answer: &LlmResponse, duration: Duration) {
    if gateway.settings().collector.is_none() {
        return;
    }
    let Some(operation) = operation(&call.path) else { return };
    let start = SystemTime::now().checked_sub(call.started.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH);
    let Some(span) = span(call, operation, answer, start, duration) else { return };
    if gateway.spans.queue.try_send(span).is_err() {
        gateway.metrics.spans(0, 1);
    }
}

/// What a path asks a model for; nothing where it asks for something else (files, lists, audio).
fn operation(path: &str) -> Option<&'static str> {
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    match last.rsplit(':').next().unwrap_or_default() {
        "completions" if path.contains("/chat/") => Some("chat"),
        "completions" | "complete" => Some("text_completion"),
        "responses" | "messages" => Some("chat"),
        "embeddings" | "embedContent" | "batchEmbedContents" => Some("embeddings"),
        "generateContent" | "streamGenerateContent" => Some("generate_content"),
        _ => None,
    }
}

/// The conventions' name of a provider that they know; else the configuration's.
fn provider_name(name: &str) -> &str {
    match name {
        "gemini" => "gcp.gemini",
        "azure" => "azure.ai.openai",
        "mistral" => "mistral_ai",
        "xai" => "x_ai",
        name => name,
    }
}

fn span(call: &Call, operation: &str, answer: &LlmResponse, start: SystemTime, duration: Duration) -> Option<Value> {
    let mut random = [0; 24];
    getrandom::fill(&mut random).ok()?;
    let asked = call.model_asked.get().and_then(Option::as_deref);
    let server = call.uri.host().unwrap_or_default();
    let port = call.uri.port_u16().unwrap_or(if call.uri.scheme_str() == Some("https") { 443 } else { 80 });
    let mut attributes = vec![
        text("gen_ai.operation.name", operation),
        text("gen_ai.provider.name", provider_name(&call.provider)),
        text("gen_ai.agent.id", call.grant.agent.as_str()),
        text("server.address", server),
        number("server.port", u64::from(port)),
        text("amc.request_id", &call.request_id),
    ];
    attributes.extend(asked.map(|model| text("gen_ai.request.model", model)));
    attributes.extend(answer.model.as_deref().map(|model| text("gen_ai.response.model", model)));
    if let Some(usage) = answer.usage {
        attributes.push(number("gen_ai.usage.input_tokens", usage.input_tokens));
        attributes.push(number("gen_ai.usage.output_tokens", usage.output_tokens));
    }
    let error = error_type(answer);
    attributes.extend(error.as_deref().map(|error| text("error.type", error)));
    let start_ns = start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    Some(json!({
        "traceId": amc_core::digest::hex(&random[..16]),
        "spanId": amc_core::digest::hex(&random[16..]),
        "name": asked.map_or(operation.to_owned(), |model| format!("{operation} {model}")),
        "kind": SPAN_KIND_CLIENT,
        "startTimeUnixNano": start_ns.to_string(),
        "endTimeUnixNano": (start_ns + duration.as_nanos()).to_string(),
        "attributes": attributes,
        "status": error.map_or(json!({}), |_| json!({"code": STATUS_CODE_ERROR})),
    }))
}

/// The status of an answer that is no success, or how the call ended.
fn error_type(answer: &LlmResponse) -> Option<String> {
    match answer.outcome {
        CallOutcome::Complete if answer.status >= 400 => Some(answer.status.to_string()),
        CallOutcome::Complete => None,
        CallOutcome::UpstreamTruncated => Some("upstream_truncated".to_owned()),
        CallOutcome::UpstreamFailed => Some("upstream_failed".to_owned()),
        CallOutcome::ClientLeft => Some("client_left".to_owned()),
    }
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

/// Numbers of 64 bits are texts in protobuf's JSON.
fn number(key: &str, value: u64) -> Value {
    json!({"key": key, "value": {"intValue": value.to_string()}})
}

/// Sends spans in batches until the gateway stops, and then what is left.
pub(crate) async fn export(gateway: Arc<Gateway>, mut stopped: oneshot::Receiver<()>) {
    let mut waiting = gateway.spans.waiting.lock().await;
    let (mut batch, mut failing, mut stops) = (Vec::new(), false, false);
    while !stops {
        tokio::select! {
            _ = waiting.recv_many(&mut batch, BATCH_LEN) => {
                // More may follow soon, and one message for them all is cheaper.
                stops = tokio::time::timeout(BATCH_WAIT, &mut stopped).await.is_ok();
            }
            _ = &mut stopped => stops = true,
        }
        loop {
            while batch.len() < BATCH_LEN
                && let Ok(span) = waiting.try_recv()
            {
                batch.push(span);
            }
            if batch.is_empty() {
                break;
            }
            let len = batch.len() as u64;
            let sent = send(&gateway, std::mem::take(&mut batch)).await;
            match &sent {
                Ok(rejected) => gateway.metrics.spans(len.saturating_sub(*rejected), *rejected),
                Err(_) => gateway.metrics.spans(0, len),
            }
            // Said when it begins, and again when it has been well in between.
            if let Err(why) = &sent
                && !failing
            {
                log::warn("spans_not_sent", &json!({"why": why}));
            }
            failing = sent.is_err();
        }
    }
}

/// Sends one batch; how many of it the collector did not take, or why it took none.
async fn send(gateway: &Gateway, spans: Vec<Value>) -> Result<u64, String> {
    let settings = gateway.settings();
    let Some(collector) = &settings.collector else { return Err("nobody collects spans any more".to_owned()) };
    let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    let resource = json!({"attributes": [text("service.name", name), text("service.version", version)]});
    let scope = json!({"name": name, "version": version});
    let body = json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": spans}]}]});
    let mut request = Request::new(whole(body.to_string()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = collector.uri.clone();
    *request.headers_mut() = collector.headers.clone();
    let exchange = async {
        let answer = settings.upstream.send(request).await?;
        if !answer.status().is_success() {
            return Err(format!("the collector answered {}", answer.status().as_u16()));
        }
        let told = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let told = told.map(|told| told.to_bytes()).unwrap_or_default();
        let told: Value = serde_json::from_slice(&told).unwrap_or_default();
        let rejected = &told["partialSuccess"]["rejectedSpans"];
        Ok(rejected.as_u64().or_else(|| rejected.as_str()?.parse().ok()).unwrap_or(0))
    };
    tokio::time::timeout(SEND_MAX, exchange).await.unwrap_or_else(|_| Err("the collector does not answer".to_owned()))
}

/// Numbers of OTLP's protobuf.
const SPAN_KIND_CLIENT: u32 = 3;
const STATUS_CODE_ERROR: u32 = 2;

/// Spans that wait; each has about a kilobyte.
const QUEUE_LEN: usize = 2048;

/// Spans of one message.
const BATCH_LEN: usize = 512;

/// How long a batch waits for more.
const BATCH_WAIT: Duration = Duration::from_millis(500);

/// How long a collector may take for a batch.
const SEND_MAX: Duration = Duration::from_secs(10);

/// What is read of a collector's answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_say_what_a_model_is_asked_for() {
        for (path, expected) in [
            ("/v1/chat/completions", Some("chat")),
            ("/openai/deployments/d/chat/completions", Some("chat")),
            ("/v1/completions", Some("text_completion")),
            ("/v1/responses", Some("chat")),
            ("/v1/messages", Some("chat")),
            ("/v1/embeddings", Some("embeddings")),
            ("/v1beta/models/g:embedContent", Some("embeddings")),
            ("/v1beta/models/g:streamGenerateContent", Some("generate_content")),
            ("/v1/models", None),
            ("/v1/files", None),
            ("/v1/messages/count_tokens", None),
            ("/", None),
        ] {
            assert_eq!(operation(path), expected, "{path}");
        }
    }
}
