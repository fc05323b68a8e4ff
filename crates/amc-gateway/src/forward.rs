//! One call on its way: the provider is called while the request's event becomes durable, and the
//! answer goes back as it comes.

use std::sync::Arc;
use std::time::Duration;

use amc_core::kinds::{CallOutcome, UpstreamAttempt};
use amc_core::limits::PAYLOAD_STORED_BYTES_MAX;
use amc_workspace::protocol::Refusal;
use amc_workspace::protocol::gateway::GatewayFields;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::sync::watch;

use crate::body::{PassingBody, broken_off, whole};
use crate::headers;
use crate::limits::CallSlot;
use crate::monitor::ChannelError;
use crate::record::{self, AnswerRecorder, Call, Progress, RequestRecorder};
use crate::refusal::Failure;
use crate::state::Gateway;
use crate::tap::{AnswerPassing, Copied, Held, RECEIPT_HEADER, RequestBody, RequestEnd, Room, Source, Unread};

/// A request that may pass, with the provider's address and key in it.
pub(crate) struct Outgoing {
    pub(crate) method: http::Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Source,
    /// The agent reads trailers, and its connection can carry them beside a Content-Length.
    pub(crate) trailers: Trailers,
}

/// What an agent's connection can do with trailers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trailers {
    /// It has not said that it reads them.
    No,
    /// HTTP/1.1: only after a chunked body.
    Chunked,
    /// HTTP/2: after any body.
    Any,
}

impl Trailers {
    /// From the agent's request.
    pub(crate) fn of(version: Version, fields: &HeaderMap) -> Self {
        match (headers::takes_trailers(fields), version) {
            (false, _) => Trailers::No,
            (true, Version::HTTP_2) => Trailers::Any,
            (true, _) => Trailers::Chunked,
        }
    }
}

/// Sends a request on and its answer back.
pub(crate) async fn forward(
    gateway: &Arc<Gateway>,
    call: Arc<Call>,
    outgoing: Outgoing,
    slot: CallSlot,
) -> Result<Response<PassingBody>, Failure> {
    let Outgoing { method, uri, headers, mut body, trailers } = outgoing;
    let mut _held = None;
    if call.settings.retries > 0 {
        (body, _held) = hold_small(body, &gateway.room).await?;
    }
    let head = RequestHead { method, uri, headers };
    let again = match &body {
        Source::Held(bytes) if call.settings.retries > 0 => Some((head.clone(), bytes.clone().unwrap_or_default())),
        _ => None,
    };
    let (body, mut progress) = if gateway.monitor.is_taking() {
        let (recorder, progress) = RequestRecorder::new(gateway, &call);
        (RequestBody::new(body, call.encoding.as_deref(), recorder).boxed_unsync(), progress)
    } else {
        let (body, progress) = record_first(gateway, &call, body).await?;
        (whole(body), progress)
    };
    let mut request = head.with(body);
    let mut answer = AnswerRecorder::new(gateway, &call, progress.clone(), slot);
    let mut attempt = 1;
    loop {
        let answered = answer_head(&call, &mut progress, request).await.and_then(not_switched);
        let tried_again = again.as_ref().filter(|_| attempt <= call.settings.retries && may_be_tried_again(&answered));
        let Some((head, bytes)) = tried_again else {
            return match answered {
                Ok(response) => {
                    answer.head(response.status().as_u16(), response.headers());
                    deliver(gateway, &call, progress, answer, response, trailers).await
                }
                Err(message) => failed(gateway, &call, progress, answer, message).await,
            };
        };
        let wait = retry_wait(&answered, attempt);
        record_attempt(gateway, &call, &mut progress, attempt, answered).await?;
        tokio::time::sleep(wait).await;
        attempt += 1;
        answer.attempt(attempt);
        request = head.clone().with(whole(bytes.clone()));
    }
}

/// What every attempt of a call has in common.
#[derive(Clone)]
struct RequestHead {
    method: http::Method,
    uri: Uri,
    headers: HeaderMap,
}

impl RequestHead {
    fn with(self, body: PassingBody) -> Request<PassingBody> {
        let mut request = Request::new(body);
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (self.method, self.uri, self.headers);
        request
    }
}

/// Reads a body of known, small length whole, so that it can be sent again; another stays as it is.
async fn hold_small(body: Source, room: &Room) -> Result<(Source, Option<Held>), Failure> {
    match body {
        Source::Agent(agents) if agents.size_hint().upper().is_some_and(|len| len <= RETRIED_BYTES_MAX as u64) => {
            let too_large = "it is larger than it said";
            let read = agents.read_whole(RETRIED_BYTES_MAX, room).await;
            let (bytes, held) = read.map_err(|why| Failure::unread(why, too_large))?;
            Ok((Source::whole(bytes), Some(held)))
        }
        body => Ok((body, None)),
    }
}

/// A provider may not speak another protocol on a call that did not ask for one.
fn not_switched(response: Response<Incoming>) -> Result<Response<Incoming>, String> {
    match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => Err("the provider switched to another protocol, unasked".to_owned()),
        _ => Ok(response),
    }
}

fn may_be_tried_again(answered: &Result<Response<Incoming>, String>) -> bool {
    answered.as_ref().map_or(true, |response| matches!(response.status().as_u16(), 429 | 500 | 502 | 503 | 504 | 529))
}

/// A quarter of a second, doubled with each attempt; longer where the provider says so, within reason.
fn retry_wait(answered: &Result<Response<Incoming>, String>, attempt: u32) -> Duration {
    let asked = answered.as_ref().ok().and_then(|response| headers::text(response.headers(), "retry-after"));
    let asked = asked.and_then(|text| text.parse().ok()).map(Duration::from_secs).unwrap_or_default();
    RETRY_WAIT.saturating_mul(1 << attempt.min(8).saturating_sub(1)).max(asked.min(RETRY_WAIT_MAX))
}

/// An attempt that is made again is an event of its own, after the request's.
async fn record_attempt(
    gateway: &Gateway,
    call: &Call,
    progress: &mut watch::Receiver<Progress>,
    attempt: u32,
    answered: Result<Response<Incoming>, String>,
) -> Result<(), Failure> {
    record::recorded(progress).await.map_err(refused)?;
    let status = answered.as_ref().map_or(0, |response| response.status().as_u16());
    let reason = answered.err().unwrap_or_default();
    let (request_id, provider) = (call.request_id.clone(), call.provider.clone());
    let fields = UpstreamAttempt { request_id, provider, attempt, status, reason };
    record::submit(gateway, call, GatewayFields::Attempt(fields), None).await.map_err(refused)?;
    Ok(())
}

/// After evidence was refused: nothing leaves before the log has taken the request.
async fn record_first(
    gateway: &Gateway,
    call: &Arc<Call>,
    body: Source,
) -> Result<(Bytes, watch::Receiver<Progress>), Failure> {
    let (bytes, _held) = match body {
        Source::Held(bytes) => (bytes.unwrap_or_default(), None),
        Source::Agent(agents) => {
            let read = agents.read_whole(PAYLOAD_STORED_BYTES_MAX, &gateway.room).await;
            read.map(|(bytes, held)| (bytes, Some(held))).map_err(|why| match why {
                Unread::Broke(_) => Failure::unread(why, ""),
                Unread::TooLarge | Unread::NoRoom => Failure::evidence(
                    "the log refused the last evidence, and until it takes some again only small requests are tried",
                ),
            })?
        }
    };
    let mut copied = Copied::new(call.encoding.as_deref());
    copied.push(&bytes);
    let recorded = record::record_request(gateway, call, copied).await.map_err(refused)?;
    let (_, progress) = watch::channel(Progress::Recorded(Ok(recorded)));
    Ok((bytes, progress))
}

/// The answer's head, or in words why there is none. The wait is bounded from the request's end.
async fn answer_head(
    call: &Call,
    progress: &mut watch::Receiver<Progress>,
    request: Request<PassingBody>,
) -> Result<Response<Incoming>, String> {
    let late = async {
        // An error means that the request's task has ended, and with it its body.
        let _ = progress.wait_for(|progress| !matches!(progress, Progress::Passing)).await;
        tokio::time::sleep(call.settings.first_byte).await;
    };
    tokio::select! {
        answered = call.settings.upstream.send(request) => answered,
        () = late => Err(format!("no answer within {} ms", call.settings.first_byte.as_millis())),
    }
}

/// No answer: the event says so, then the agent is told.
pub(crate) async fn failed(
    gateway: &Gateway,
    call: &Call,
    mut progress: watch::Receiver<Progress>,
    mut answer: AnswerRecorder,
    message: String,
) -> Result<Response<PassingBody>, Failure> {
    let _ = progress.wait_for(|progress| !matches!(progress, Progress::Passing)).await;
    let broke = call.request_end.get() == Some(&RequestEnd::ClientBroke);
    let outcome = if broke { CallOutcome::ClientLeft } else { CallOutcome::UpstreamFailed };
    let answered = answer.finish(outcome);
    let request_receipt = record::recorded(&mut progress).await.map_err(refused)?.receipt;
    let failure = match broke {
        true => Failure::bad_request("the request broke off: its connection closed, or nothing more of it came"),
        false => Failure::upstream(message),
    };
    let mut response = failure.into_response(call.dialect);
    add_ours(gateway, call, response.headers_mut(), request_receipt);
    if call.settings.is_durable() {
        add_receipt(response.headers_mut(), answered.await.ok().and_then(|recorded| recorded.receipt));
    }
    Ok(response)
}

/// An answer on its way back.
pub(crate) async fn deliver(
    gateway: &Arc<Gateway>,
    call: &Arc<Call>,
    mut progress: watch::Receiver<Progress>,
    mut answer: AnswerRecorder,
    response: Response<Incoming>,
    trailers: Trailers,
) -> Result<Response<PassingBody>, Failure> {
    let events = headers::is_event_stream(&headers::media_type(response.headers()));
    let len = response.body().size_hint().exact();
    let bounded = !events && len.is_some_and(|len| len <= BOUNDED_BYTES_MAX);
    let durable = call.settings.is_durable();
    // A provider may answer before it has read the request (it refuses a body's size, say). There is
    // no request event to wait for then; it follows when the body has ended. An answer waits a
    // moment: a request that has left whole may only not have been seen to end yet.
    if durable {
        let ended = progress.wait_for(|progress| !matches!(progress, Progress::Passing));
        let _ = tokio::time::timeout(REQUEST_END_WAIT, ended).await;
    }
    let passing = matches!(&*progress.borrow(), Progress::Passing);
    let (mut parts, body) = response.into_parts();
    headers::for_agent(&mut parts.headers);
    parts.extensions.clear();
    parts.version = Version::HTTP_11;
    headers::framed_by(&body, &mut parts.headers);
    if parts.status == StatusCode::NOT_MODIFIED {
        // It would name a length that no body follows.
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    if durable && !passing && bounded {
        // Read while the request's event becomes durable, so that both may go with one flush.
        let (outcome, bytes) = read_bounded(body, &mut answer, call.settings.idle).await;
        let answered = answer.finish(outcome);
        let request = record::recorded(&mut progress).await.map_err(refused)?;
        let answered = answered.await;
        let answered = answered.map_err(|_| Failure::evidence("the answer came and its evidence was not recorded"))?;
        add_ours(gateway, call, &mut parts.headers, request.receipt);
        add_receipt(&mut parts.headers, answered.receipt);
        let body = if outcome == CallOutcome::Complete { whole(bytes) } else { broken_off(bytes) };
        return Ok(Response::from_parts(parts, body));
    }
    let request_receipt = match (passing, durable) {
        (true, _) => None,
        (false, true) => record::recorded(&mut progress).await.map_err(refused)?.receipt,
        (false, false) => record::accepted(&mut progress).await.map_err(refused)?.and_then(|recorded| recorded.receipt),
    };
    add_ours(gateway, call, &mut parts.headers, request_receipt);
    let chunked = !parts.headers.contains_key(header::CONTENT_LENGTH);
    let in_trailer = durable && (trailers == Trailers::Any || (trailers == Trailers::Chunked && chunked));
    if in_trailer {
        parts.headers.append(header::TRAILER, HeaderValue::from_name(RECEIPT_HEADER));
    }
    let (held, of) = (Arc::clone(gateway), Arc::clone(call));
    let lease_ends = Box::pin(async move { of.lease_ends(&held).await });
    let body = AnswerPassing::new(body, answer, lease_ends, call.settings.idle, in_trailer);
    Ok(Response::from_parts(parts, body.boxed_unsync()))
}

/// Reads an answer of known, small length whole.
async fn read_bounded(mut body: Incoming, answer: &mut AnswerRecorder, idle: Duration) -> (CallOutcome, Bytes) {
    let mut bytes = BytesMut::new();
    loop {
        match tokio::time::timeout(idle, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                if let Ok(piece) = frame.into_data() {
                    answer.push(&piece);
                    bytes.extend_from_slice(&piece);
                }
            }
            Ok(None) => return (CallOutcome::Complete, bytes.freeze()),
            Ok(Some(Err(_))) | Err(_) => return (CallOutcome::UpstreamTruncated, bytes.freeze()),
        }
    }
}

pub(crate) fn add_ours(gateway: &Gateway, call: &Call, fields: &mut HeaderMap, request_receipt: Option<String>) {
    let mut add = |name: HeaderName, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            fields.insert(name, value);
        }
    };
    add(REQUEST_ID_HEADER, &call.request_id);
    add(RECEIPT_URL_HEADER, &format!("/amc/receipts/{}", call.request_id));
    if let Some(receipt) = request_receipt {
        add(REQUEST_RECEIPT_HEADER, &receipt);
    }
    if let Some(key) = &gateway.monitor_key {
        fields.insert(MONITOR_KEY_HEADER, key.clone());
    }
}

/// What an answer carries besides [`RECEIPT_HEADER`].
const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-amc-request-id");
const RECEIPT_URL_HEADER: HeaderName = HeaderName::from_static("x-amc-receipt-url");
const REQUEST_RECEIPT_HEADER: HeaderName = HeaderName::from_static("x-amc-request-receipt");
const MONITOR_KEY_HEADER: HeaderName = HeaderName::from_static("x-amc-monitor-key");

fn add_receipt(fields: &mut HeaderMap, receipt: Option<String>) {
    if let Some(value) = receipt.and_then(|receipt| HeaderValue::from_str(&receipt).ok()) {
        fields.insert(RECEIPT_HEADER, value);
    }
}

/// Why a call may not pass when the monitor does not take its evidence.
pub(crate) fn refused(error: ChannelError) -> Failure {
    match error {
        ChannelError::Refused(Refusal::LeaseInvalid(why)) => Failure::lease_invalid(why),
        error => Failure::evidence(error.to_string()),
    }
}

/// Up to here an answer of known length is held until its receipt can go in its head.
const BOUNDED_BYTES_MAX: u64 = 256 * 1024;

/// How long an answer waits for the end of its request to be seen.
const REQUEST_END_WAIT: Duration = Duration::from_millis(100);

/// Requests up to here can be tried again; they are held until they are answered.
const RETRIED_BYTES_MAX: usize = 1 << 20;

const RETRY_WAIT: Duration = Duration::from_millis(250);

/// A provider that wants more is not waited for: the agent's own client knows better what to do.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(8);
