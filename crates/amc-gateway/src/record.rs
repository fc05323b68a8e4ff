//! From what passed to evidence: fields, a redacted payload, and one event each for the request and
//! the answer. Evidence is finished on tasks of its own, so that neither a client that leaves nor a
//! provider that breaks off can lose it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use amc_core::kinds::{AgentKeyIgnored, CallOutcome, Dialect, LlmRequest, LlmResponse};
use amc_core::limits::{MEDIA_TYPE_BYTES_MAX, PAYLOAD_STORED_BYTES_MAX, RULES_BYTES_MAX};
use amc_workspace::protocol::gateway::{Capture, CapturedPayload, GatewayEvent, GatewayFields, LeaseGrant, Recorded};
use http::HeaderMap;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::{oneshot, watch};
use zeroize::Zeroizing;

use crate::facts::{self, AnswerFacts, RequestFacts, Scanner};
use crate::headers;
use crate::monitor::ChannelError;
use crate::state::{Gateway, Pending};
use crate::tap::{Copied, PassedRequest, RequestEnd};

/// One call, as both of its events name it.
pub(crate) struct Call {
    pub(crate) request_id: String,
    pub(crate) client_request_id: Option<String>,
    pub(crate) provider: String,
    pub(crate) dialect: Dialect,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) grant: LeaseGrant,
    pub(crate) lease: Zeroizing<String>,
    /// Headers in which the agent sent a real key beside its lease.
    pub(crate) keys_ignored: Vec<&'static str>,
    pub(crate) media_type: String,
    pub(crate) encoding: Option<String>,
    pub(crate) started: Instant,
}

/// How far a request's evidence is.
#[derive(Debug, Clone)]
pub(crate) enum Progress {
    /// Its body is passing.
    Passing,
    /// Its body has passed.
    Passed(RequestEnd),
    /// Its event is durable, or was refused.
    Recorded(Result<Recorded, ChannelError>),
}

/// Records a request as soon as its body has passed.
pub(crate) fn request(
    gateway: &Arc<Gateway>,
    call: &Arc<Call>,
    passed: oneshot::Receiver<PassedRequest>,
) -> watch::Receiver<Progress> {
    let (progress, watched) = watch::channel(Progress::Passing);
    let (gateway, call, pending) = (Arc::clone(gateway), Arc::clone(call), gateway.unfinished.add());
    gateway.runtime.clone().spawn(async move {
        let Ok(PassedRequest { mut copied, end, unread }) = passed.await else { return };
        if let Some(incoming) = unread {
            drain(incoming, &mut copied).await;
        }
        progress.send_replace(Progress::Passed(end));
        let recorded = record_request(&gateway, &call, copied).await;
        progress.send_replace(Progress::Recorded(recorded));
        drop(pending);
    });
    watched
}

/// Submits a request's event and waits until it is durable.
pub(crate) async fn record_request(gateway: &Gateway, call: &Call, copied: Copied) -> Result<Recorded, ChannelError> {
    for header in &call.keys_ignored {
        let ignored = AgentKeyIgnored { provider: call.provider.clone(), header: (*header).to_owned() };
        submit(gateway, call, GatewayFields::KeyIgnored(ignored), None).await?;
    }
    let encoding = call.encoding.as_deref();
    let body = copied.whole().and_then(|body| facts::decoded(encoding, body));
    let facts = body.map(|body| RequestFacts::read(call.dialect, &body)).unwrap_or_default();
    let text = |text: &str, keep: usize| gateway.redactor.redact_text(&call.lease, text, keep);
    let fields = LlmRequest {
        request_id: call.request_id.clone(),
        client_request_id: call.client_request_id.clone(),
        provider: call.provider.clone(),
        dialect: call.dialect,
        method: call.method.clone(),
        path: text(&call.path, PATH_BYTES_MAX),
        lease: call.grant.lease.clone(),
        model: facts.model.map(|model| text(&model, PATH_BYTES_MAX)),
        stream: facts.stream,
        system_prompt_sha256: facts.system_prompt_sha256,
        tools_offered: facts.tools_offered,
        config_version: gateway.config_version,
    };
    let payload = captured(gateway, call, copied, &call.media_type, encoding);
    submit(gateway, call, GatewayFields::Request(fields), Some(payload)).await
}

async fn submit(
    gateway: &Gateway,
    call: &Call,
    fields: GatewayFields,
    payload: Option<CapturedPayload>,
) -> Result<Recorded, ChannelError> {
    let recorded = gateway.monitor.record(GatewayEvent { lease: call.grant.lease.clone(), fields, payload }).await;
    if let Err(error) = &recorded {
        eprintln!("amc-gateway: {}: evidence not recorded: {error}", call.request_id);
    }
    recorded
}

/// Reads what an agent sent and no provider took, as far as it would be kept.
async fn drain(mut incoming: Incoming, copied: &mut Copied) {
    let read = async {
        while let Some(Ok(frame)) = incoming.frame().await {
            if let Some(piece) = frame.data_ref() {
                copied.push(piece);
            }
            if copied.whole().is_none() {
                break;
            }
        }
    };
    // What has not come by then is not waited for: the agent gets its answer.
    let _ = tokio::time::timeout(DRAIN_MAX, read).await;
}

/// Waits until a request's event is durable.
pub(crate) async fn recorded(progress: &mut watch::Receiver<Progress>) -> Result<Recorded, ChannelError> {
    match progress.wait_for(|progress| matches!(progress, Progress::Recorded(_))).await.as_deref() {
        Ok(Progress::Recorded(recorded)) => recorded.clone(),
        _ => Err(ChannelError::Closed),
    }
}

/// Gathers an answer's evidence; whatever happens to the answer, it ends in exactly one event.
pub(crate) struct AnswerRecorder(Option<Gathering>);

struct Gathering {
    gateway: Arc<Gateway>,
    call: Arc<Call>,
    request: watch::Receiver<Progress>,
    status: u16,
    media_type: String,
    encoding: Option<String>,
    copied: Copied,
    scanner: Scanner,
    first_byte: Option<Duration>,
    pending: Pending,
}

impl AnswerRecorder {
    /// Begins with the call; there is no answer yet.
    pub(crate) fn new(gateway: &Arc<Gateway>, call: &Arc<Call>, request: watch::Receiver<Progress>) -> Self {
        AnswerRecorder(Some(Gathering {
            gateway: Arc::clone(gateway),
            call: Arc::clone(call),
            request,
            status: 0,
            media_type: String::new(),
            encoding: None,
            copied: Copied::default(),
            scanner: Scanner::new(call.dialect, false),
            first_byte: None,
            pending: gateway.unfinished.add(),
        }))
    }

    /// The answer's head has come.
    pub(crate) fn head(&mut self, status: u16, fields: &HeaderMap) {
        let Some(gathering) = &mut self.0 else { return };
        gathering.status = status;
        gathering.media_type = headers::media_type(fields);
        gathering.encoding = headers::content_encoding(fields);
        let plain_events = headers::is_event_stream(&gathering.media_type) && gathering.encoding.is_none();
        gathering.scanner = Scanner::new(gathering.call.dialect, plain_events);
    }

    /// The next piece of the body.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        let Some(gathering) = &mut self.0 else { return };
        if gathering.first_byte.is_none() {
            gathering.first_byte = Some(gathering.call.started.elapsed());
        }
        gathering.copied.push(piece);
        gathering.scanner.push(piece);
    }

    /// Ends it. The receiver gets where the event stands, once it is durable; nothing when it was
    /// refused or is finished already.
    pub(crate) fn finish(&mut self, outcome: CallOutcome) -> oneshot::Receiver<Recorded> {
        let (sender, receiver) = oneshot::channel();
        if let Some(gathering) = self.0.take() {
            let duration = gathering.call.started.elapsed();
            gathering.gateway.runtime.clone().spawn(gathering.record(outcome, duration, sender));
        }
        receiver
    }
}

impl Drop for AnswerRecorder {
    fn drop(&mut self) {
        // A client that leaves after the stream's own last word has had the whole answer.
        let ended = self.0.as_ref().is_some_and(|gathering| gathering.scanner.has_ended());
        self.finish(if ended { CallOutcome::Complete } else { CallOutcome::ClientLeft });
    }
}

impl Gathering {
    async fn record(mut self, outcome: CallOutcome, duration: Duration, done: oneshot::Sender<Recorded>) {
        let request = recorded(&mut self.request).await;
        // Without a request's event there is nothing that an answer's could name; that is logged.
        let Ok(request) = request else { return };
        let Gathering { gateway, call, status, media_type, encoding, copied, scanner, first_byte, pending, .. } = self;
        let decoded = copied.whole().and_then(|body| facts::decoded(encoding.as_deref(), body));
        let AnswerFacts { model, usage, tool_calls, refusal } =
            scanner.finish(decoded.as_deref(), headers::is_event_stream(&media_type));
        drop(decoded);
        let fields = LlmResponse {
            request_id: call.request_id.clone(),
            request_index: request.index,
            provider: call.provider.clone(),
            status,
            outcome,
            model: model.map(|model| gateway.redactor.redact_text(&call.lease, &model, PATH_BYTES_MAX)),
            usage,
            tool_calls,
            refusal,
            first_byte_us: micros(first_byte.unwrap_or(duration)),
            duration_us: micros(duration),
            attempt: 1,
        };
        let payload = captured(&gateway, &call, copied, &media_type, encoding.as_deref());
        if let Ok(recorded) = submit(&gateway, &call, GatewayFields::Response(fields), Some(payload)).await {
            // Most answers are not waited for.
            let _ = done.send(recorded);
        }
        drop(pending);
    }
}

/// A body as the monitor stores it: without secrets, and bounded. A compressed body is stored as it
/// passed when nothing in it had to go, unpacked when something had, and not at all when it cannot
/// be looked into.
fn captured(
    gateway: &Gateway,
    call: &Call,
    copied: Copied,
    media_type: &str,
    encoding: Option<&str>,
) -> CapturedPayload {
    let Copied { hasher, bytes } = copied;
    let (wire_sha256, wire_len) = hasher.finish();
    let whole = wire_len == bytes.len() as u64;
    let media_type = gateway.redactor.redact_text(&call.lease, media_type, MEDIA_TYPE_BYTES_MAX);
    let payload = |capture, bytes| CapturedPayload { wire_sha256, wire_len, media_type, capture, bytes };
    let redact = |bytes: &[u8]| gateway.redactor.redact(&call.lease, bytes, PAYLOAD_STORED_BYTES_MAX);
    let Some(encoding) = encoding else {
        let redacted = redact(&bytes);
        let capture = capture(wire_len > PAYLOAD_STORED_BYTES_MAX as u64, &redacted.rules);
        return payload(capture, redacted.bytes);
    };
    let fits = whole && bytes.len() <= PAYLOAD_STORED_BYTES_MAX;
    let Some(plain) = facts::decoded(Some(encoding), &bytes).filter(|_| fits) else {
        return payload(Capture::Omitted, Vec::new());
    };
    let redacted = gateway.redactor.redact(&call.lease, &plain, plain.len());
    if redacted.rules.is_empty() {
        return payload(Capture::Full, bytes);
    }
    let cut = redacted.bytes.len() > PAYLOAD_STORED_BYTES_MAX;
    let mut stored = redacted.bytes;
    stored.truncate(PAYLOAD_STORED_BYTES_MAX);
    let rules: Vec<&'static str> = ["gunzip"].into_iter().chain(redacted.rules).collect();
    payload(capture(cut, &rules), stored)
}

fn capture(truncated: bool, rules: &[&'static str]) -> Capture {
    let mut names = rules.join(",");
    names.truncate(RULES_BYTES_MAX);
    match (truncated, rules.is_empty()) {
        (true, _) => Capture::Truncated(names),
        (false, false) => Capture::Redacted(names),
        (false, true) => Capture::Full,
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Texts from outside that become fields: an event has 64 KiB for all of them.
const PATH_BYTES_MAX: usize = 1024;

/// How long an agent's body is read that no provider takes.
const DRAIN_MAX: Duration = Duration::from_secs(2);
