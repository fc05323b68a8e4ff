//! From what passed to evidence: fields, a redacted payload, and one event each for the request and
//! the answer. Evidence is finished on tasks of its own, so that neither a client that leaves nor a
//! provider that breaks off can lose it.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use amc_core::kinds::{AgentKeyIgnored, CallOutcome, Dialect, LlmRequest, LlmResponse};
use amc_core::limits::{MEDIA_TYPE_BYTES_MAX, PAYLOAD_STORED_BYTES_MAX, RULES_BYTES_MAX};
use amc_workspace::protocol::gateway::{Capture, CapturedPayload, GatewayEvent, GatewayFields, LeaseGrant, Recorded};
use http::{HeaderMap, Uri};
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinError;
use zeroize::Zeroizing;

use crate::facts::{self, AnswerFacts, RequestFacts, Scanner};
use crate::limits::CallSlot;
use crate::monitor::{Accept, ChannelError, Submitted};
use crate::state::{Gateway, Pending, Settings};
use crate::tap::{AgentBody, Copied, RequestEnd};
use crate::{headers, log, otlp};

/// One call, as both of its events name it.
pub(crate) struct Call {
    pub(crate) request_id: String,
    pub(crate) client_request_id: Option<String>,
    pub(crate) provider: String,
    pub(crate) dialect: Dialect,
    pub(crate) method: String,
    pub(crate) path: String,
    /// Where it goes.
    pub(crate) uri: Uri,
    /// The model that the request names, once its body has passed.
    pub(crate) model_asked: OnceLock<Option<String>>,
    /// How its body ended, once it has.
    pub(crate) request_end: OnceLock<RequestEnd>,
    pub(crate) grant: LeaseGrant,
    pub(crate) lease: Zeroizing<String>,
    /// Headers in which the agent sent a real key beside its lease.
    pub(crate) keys_ignored: Vec<&'static str>,
    pub(crate) media_type: String,
    pub(crate) encoding: Option<String>,
    pub(crate) started: Instant,
    /// The configuration under which it began.
    pub(crate) settings: Arc<Settings>,
}

/// How far a request's evidence is.
#[derive(Debug, Clone)]
pub(crate) enum Progress {
    /// Its body is passing.
    Passing,
    /// Its body has passed; the call says how it ended.
    Passed,
    /// Its event is on its way: what is submitted now comes after it.
    Submitted,
    /// The log has taken its event.
    Accepted,
    /// Its event is durable, or was refused.
    Recorded(Result<Recorded, ChannelError>),
}

impl Progress {
    const fn rank(&self) -> u8 {
        match self {
            Progress::Passing => 0,
            Progress::Passed => 1,
            Progress::Submitted => 2,
            Progress::Accepted => 3,
            Progress::Recorded(_) => 4,
        }
    }
}

/// Goes on, and never back: what comes later may be known sooner.
fn advance(progress: &watch::Sender<Progress>, to: Progress) {
    progress.send_if_modified(|now| {
        let forward = now.rank() < to.rank();
        if forward {
            *now = to;
        }
        forward
    });
}

/// Gathers a request's evidence; however its body ends, it ends in exactly one event.
pub(crate) struct RequestRecorder {
    gateway: Arc<Gateway>,
    call: Arc<Call>,
    progress: watch::Sender<Progress>,
    pending: Pending,
}

impl RequestRecorder {
    /// Begins with the body; the receiver hears how far its evidence is.
    pub(crate) fn new(gateway: &Arc<Gateway>, call: &Arc<Call>) -> (Self, watch::Receiver<Progress>) {
        let (progress, watched) = watch::channel(Progress::Passing);
        let (gateway, call, pending) = (Arc::clone(gateway), Arc::clone(call), gateway.unfinished.add());
        (RequestRecorder { gateway, call, progress, pending }, watched)
    }

    /// The body has ended; `unread` is it where nobody has read any of it.
    pub(crate) fn finish(self, copied: Copied, end: RequestEnd, unread: Option<AgentBody>) {
        self.gateway.runtime.clone().spawn(self.record(copied, end, unread));
    }

    async fn record(self, mut copied: Copied, end: RequestEnd, unread: Option<AgentBody>) {
        let RequestRecorder { gateway, call, progress, pending } = self;
        if let Some(incoming) = unread {
            drain(incoming, &mut copied).await;
        }
        // Set here alone, and before anybody hears of it.
        let _ = call.request_end.set(end);
        advance(&progress, Progress::Passed);
        let watching = progress.clone();
        let accept = move || advance(&watching, Progress::Accepted);
        let accept: Option<Accept> = if call.settings.is_durable() { None } else { Some(Box::new(accept)) };
        let submitted = submit_request(&gateway, &call, copied, accept).await;
        advance(&progress, Progress::Submitted);
        let recorded = settled(&gateway, &call, submitted).await;
        advance(&progress, Progress::Recorded(recorded));
        drop(pending);
    }
}

/// Submits a request's event and waits until it is durable.
pub(crate) async fn record_request(
    gateway: &Gateway,
    call: &Arc<Call>,
    copied: Copied,
) -> Result<Recorded, ChannelError> {
    let submitted = submit_request(gateway, call, copied, None).await;
    settled(gateway, call, submitted).await
}

/// Submits a request's event; `accept` hears when the log has taken it.
async fn submit_request(
    gateway: &Gateway,
    call: &Arc<Call>,
    mut copied: Copied,
    accept: Option<Accept>,
) -> Result<Submitted, ChannelError> {
    for header in &call.keys_ignored {
        let ignored = AgentKeyIgnored { provider: call.provider.clone(), header: (*header).to_owned() };
        submit(gateway, call, GatewayFields::KeyIgnored(ignored), None).await?;
    }
    let (of, len) = (Arc::clone(call), copied.bytes.len());
    let read = move || {
        let facts = request_facts(&of, &mut copied);
        (facts, captured(&of, copied, &of.media_type, of.encoding.as_deref()))
    };
    let (facts, payload) = beside_calls(len, read).await;
    let fields = LlmRequest {
        request_id: call.request_id.clone(),
        client_request_id: call.client_request_id.clone(),
        provider: call.provider.clone(),
        dialect: call.dialect,
        method: call.text(&call.method, PATH_BYTES_MAX),
        path: call.text(&call.path, PATH_BYTES_MAX),
        lease: call.grant.lease.clone(),
        model: call.model_asked.get_or_init(|| facts.model.map(|model| call.text(&model, PATH_BYTES_MAX))).clone(),
        stream: facts.stream,
        system_prompt_sha256: facts.system_prompt_sha256,
        tools_offered: facts.tools_offered,
        config_version: call.settings.config_version,
    };
    gateway.metrics.bytes(payload.wire_len, 0);
    send(gateway, call, GatewayFields::Request(fields), Some(payload), accept).await
}

fn request_facts(call: &Call, copied: &mut Copied) -> RequestFacts {
    let read = |body: &[u8]| RequestFacts::read(call.dialect, &call.path, &call.media_type, body);
    let facts = copied.readable().map(|body| read(&body)).unwrap_or_default();
    if facts.model.is_some() { facts } else { read(copied.beginning()) }
}

/// Does what takes long for a long body on a thread of its own: other calls go on meanwhile.
async fn beside_calls<T: Send + 'static>(body_len: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if body_len < LONG_BYTES {
        return work();
    }
    match tokio::task::spawn_blocking(work).await.map_err(JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // It is cancelled only with the whole runtime, which ends what waits here, too.
        Err(Err(_)) => std::future::pending().await,
    }
}

/// Submits one event of a call and waits until it is durable.
pub(crate) async fn submit(
    gateway: &Gateway,
    call: &Call,
    fields: GatewayFields,
    payload: Option<CapturedPayload>,
) -> Result<Recorded, ChannelError> {
    let submitted = send(gateway, call, fields, payload, None).await;
    settled(gateway, call, submitted).await
}

async fn send(
    gateway: &Gateway,
    call: &Call,
    fields: GatewayFields,
    payload: Option<CapturedPayload>,
    accept: Option<Accept>,
) -> Result<Submitted, ChannelError> {
    let LeaseGrant { lease, session, .. } = &call.grant;
    let event = GatewayEvent { lease: lease.clone(), session: *session, fields, payload };
    // Without durable receipts no head waits for one; they are made when somebody asks.
    gateway.monitor.submit(event, call.settings.is_durable(), accept).await
}

/// What came of an event; that it is not recorded is said and counted here.
async fn settled(
    gateway: &Gateway,
    call: &Call,
    submitted: Result<Submitted, ChannelError>,
) -> Result<Recorded, ChannelError> {
    let recorded = gateway.monitor.recorded(submitted).await;
    if let Err(error) = &recorded {
        gateway.metrics.evidence_failed();
        log::warn("evidence_not_recorded", &json!({"request_id": call.request_id, "why": error.to_string()}));
    }
    recorded
}

impl Call {
    /// Returns when the lease that it came with no longer holds.
    pub(crate) async fn lease_ends(&self, gateway: &Gateway) {
        gateway.monitor.lease_ends(&self.lease).await;
    }

    /// A text from outside without secrets, for a field.
    fn text(&self, text: &str, keep: usize) -> String {
        self.settings.redactor.redact_text(&self.lease, text, keep)
    }
}

/// Reads what an agent sent and no provider took, as far as it would be kept.
async fn drain(mut incoming: AgentBody, copied: &mut Copied) {
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

/// Waits until a request's event is on its way; whether it is.
async fn submitted(progress: &mut watch::Receiver<Progress>) -> bool {
    let on_its_way = |progress: &Progress| !matches!(progress, Progress::Passing | Progress::Passed);
    let reached = progress.wait_for(on_its_way).await;
    reached.is_ok_and(|progress| !matches!(*progress, Progress::Recorded(Err(_))))
}

/// Waits until a request's event is durable.
pub(crate) async fn recorded(progress: &mut watch::Receiver<Progress>) -> Result<Recorded, ChannelError> {
    match progress.wait_for(|progress| matches!(progress, Progress::Recorded(_))).await.as_deref() {
        Ok(Progress::Recorded(recorded)) => recorded.clone(),
        _ => Err(ChannelError::Closed),
    }
}

/// Waits until a request's event is taken by the log, or durable.
pub(crate) async fn accepted(progress: &mut watch::Receiver<Progress>) -> Result<Option<Recorded>, ChannelError> {
    let taken = |progress: &Progress| matches!(progress, Progress::Accepted | Progress::Recorded(_));
    match progress.wait_for(taken).await.as_deref() {
        Ok(Progress::Accepted) => Ok(None),
        Ok(Progress::Recorded(recorded)) => recorded.clone().map(Some),
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
    attempt: u32,
    /// The call counts as running until its answer has ended.
    slot: Option<CallSlot>,
    pending: Pending,
}

impl AnswerRecorder {
    /// Begins with the call; there is no answer yet.
    pub(crate) fn new(
        gateway: &Arc<Gateway>,
        call: &Arc<Call>,
        request: watch::Receiver<Progress>,
        slot: CallSlot,
    ) -> Self {
        AnswerRecorder(Some(Gathering {
            gateway: Arc::clone(gateway),
            call: Arc::clone(call),
            request,
            status: 0,
            media_type: String::new(),
            encoding: None,
            copied: Copied::default(),
            scanner: Scanner::whole(call.dialect),
            first_byte: None,
            attempt: 1,
            slot: Some(slot),
            pending: gateway.unfinished.add(),
        }))
    }

    /// The answer's head has come.
    pub(crate) fn head(&mut self, status: u16, fields: &HeaderMap) {
        let Some(gathering) = &mut self.0 else { return };
        gathering.status = status;
        gathering.media_type = headers::media_type(fields);
        gathering.encoding = headers::content_encoding(fields);
        gathering.copied = Copied::new(gathering.encoding.as_deref());
        let (dialect, encoding) = (gathering.call.dialect, gathering.encoding.as_deref());
        gathering.scanner = match headers::is_event_stream(&gathering.media_type) {
            true => Scanner::events(dialect, encoding),
            false => Scanner::whole(dialect),
        };
    }

    /// Another attempt begins.
    pub(crate) fn attempt(&mut self, attempt: u32) {
        if let Some(gathering) = &mut self.0 {
            gathering.attempt = attempt;
        }
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
        if let Some(mut gathering) = self.0.take() {
            let duration = gathering.call.started.elapsed();
            gathering.slot = None;
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
        // Without a request's event there is nothing that an answer's could name; that is logged.
        if !submitted(&mut self.request).await {
            return;
        }
        let Gathering { gateway, call, status, media_type, encoding, mut copied, .. } = self;
        let (scanner, first_byte, attempt, pending) = (self.scanner, self.first_byte, self.attempt, self.pending);
        let (of, len) = (Arc::clone(&call), copied.bytes.len());
        let read = move || {
            let body = if headers::is_event_stream(&media_type) { None } else { copied.readable() };
            let facts = scanner.finish(body.as_deref());
            drop(body);
            (facts, captured(&of, copied, &media_type, encoding.as_deref()))
        };
        let (AnswerFacts { model, usage, tool_calls, refusal }, payload) = beside_calls(len, read).await;
        gateway.metrics.call(&call.provider, status, outcome, first_byte.unwrap_or(duration));
        let fields = LlmResponse {
            request_id: call.request_id.clone(),
            request_index: BY_THE_MONITOR,
            provider: call.provider.clone(),
            status,
            outcome,
            model: model.map(|model| call.text(&model, PATH_BYTES_MAX)),
            usage,
            tool_calls,
            refusal,
            first_byte_us: micros(first_byte.unwrap_or(duration)),
            duration_us: micros(duration),
            attempt,
        };
        otlp::call_ended(&gateway, &call, &fields, duration);
        gateway.metrics.bytes(0, payload.wire_len);
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
fn captured(call: &Call, copied: Copied, media_type: &str, encoding: Option<&str>) -> CapturedPayload {
    let Copied { hasher, bytes, .. } = copied;
    let (wire_sha256, wire_len) = hasher.finish();
    let whole = wire_len == bytes.len() as u64;
    let shown = call.text(media_type, MEDIA_TYPE_BYTES_MAX);
    let payload = |capture, bytes| CapturedPayload { wire_sha256, wire_len, media_type: shown, capture, bytes };
    // A list may be a stream too, which is written as it grows.
    let redacted = |plain: &[u8], keep: usize| match headers::is_of_values(media_type) || plain.starts_with(b"[") {
        true => call.settings.redactor.redact_stream(&call.lease, plain, keep),
        false => call.settings.redactor.redact(&call.lease, plain, keep),
    };
    let Some(encoding) = encoding.or_else(|| facts::sniffed(&bytes)) else {
        let redacted = redacted(&bytes, PAYLOAD_STORED_BYTES_MAX);
        let capture = capture(wire_len > PAYLOAD_STORED_BYTES_MAX as u64, &redacted.rules);
        return payload(capture, redacted.bytes);
    };
    let fits = whole && bytes.len() <= PAYLOAD_STORED_BYTES_MAX;
    let Some(plain) = facts::decoded(Some(encoding), &bytes).filter(|_| fits) else {
        return payload(Capture::Omitted, Vec::new());
    };
    let redacted = redacted(&plain, usize::MAX);
    if redacted.rules.is_empty() {
        drop(plain);
        return payload(Capture::Full, bytes);
    }
    let cut = redacted.bytes.len() > PAYLOAD_STORED_BYTES_MAX;
    let mut stored = redacted.bytes;
    stored.truncate(PAYLOAD_STORED_BYTES_MAX);
    let unpacked = if encoding.ends_with("gzip") { "gunzip" } else { "unpack" };
    let rules: Vec<&'static str> = [unpacked].into_iter().chain(redacted.rules).collect();
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

/// For a `request_index`: an answer may be submitted before its request's event has one.
pub(crate) const BY_THE_MONITOR: u64 = 0;

/// Texts from outside that become fields: an event has 64 KiB for all of them.
const PATH_BYTES_MAX: usize = 1024;

/// Reading a body from here on takes longer than handing it to another thread.
const LONG_BYTES: usize = 64 * 1024;

/// How long an agent's body is read that no provider takes.
const DRAIN_MAX: Duration = Duration::from_secs(2);
