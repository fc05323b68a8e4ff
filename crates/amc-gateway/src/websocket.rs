//! WebSockets (RFC 6455): the upgrade is asked of the provider, then bytes pass both ways as they
//! are. Frames are not read (those of an agent are masked, and either side may compress them): each
//! direction is hashed and counted, and nothing of it is kept.

use std::sync::Arc;
use std::time::Duration;

use amc_core::Digest;
use amc_core::kinds::{CallOutcome, WebSocketClosed};
use amc_crypto::hash::BodyHasher;
use amc_workspace::protocol::gateway::GatewayFields;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;

use crate::body::{PassingBody, whole};
use crate::forward::{self, Trailers, refused};
use crate::headers;
use crate::limits::CallSlot;
use crate::record::{self, AnswerRecorder, BY_THE_MONITOR, Call, Progress};
use crate::refusal::Failure;
use crate::state::{Gateway, Pending};
use crate::tap::Copied;

/// Whether a request asks for a WebSocket.
pub(crate) fn is_asked_for(request: &Request<Incoming>) -> bool {
    let lists = |name: &str, word: &str| {
        let values = request.headers().get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(word))
    };
    request.version() == Version::HTTP_11 && lists("connection", "upgrade") && lists("upgrade", "websocket")
}

/// Asks the provider for the upgrade; what follows passes on a task of its own.
pub(crate) async fn relay(
    gateway: &Arc<Gateway>,
    call: Arc<Call>,
    uri: Uri,
    mut fields: HeaderMap,
    agent: OnUpgrade,
    slot: CallSlot,
) -> Result<Response<PassingBody>, Failure> {
    let copied = Copied::new(None);
    let recorded = record::record_request(gateway, &call, copied).await.map_err(refused)?;
    let (_, progress) = watch::channel(Progress::Recorded(Ok(recorded.clone())));
    let mut answer = AnswerRecorder::new(gateway, &call, progress.clone(), slot);
    fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    fields.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let mut request = Request::new(whole(""));
    *request.uri_mut() = uri;
    *request.headers_mut() = fields;
    let asked = tokio::time::timeout(call.settings.first_byte, call.settings.upstream.upgrade(request)).await;
    let late = || Err(format!("no answer within {} ms", call.settings.first_byte.as_millis()));
    let mut response = match asked.unwrap_or_else(|_| late()) {
        Ok(response) => response,
        Err(message) => return forward::failed(gateway, &call, progress, answer, message).await,
    };
    answer.head(response.status().as_u16(), response.headers());
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return forward::deliver(gateway, &call, progress, answer, response, Trailers::No).await;
    }
    let mut back = Response::new(whole(""));
    *back.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *back.headers_mut() = response.headers().clone();
    headers::for_agent(back.headers_mut());
    back.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    back.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    forward::add_ours(gateway, &call, back.headers_mut(), recorded.receipt);
    let tunnel = Tunnel { call, answer, pending: gateway.unfinished.add() };
    let gateway = Arc::clone(gateway);
    gateway.runtime.clone().spawn(async move {
        // A side that does not come makes a tunnel of no bytes.
        let (agent, provider) = tokio::join!(agent, hyper::upgrade::on(&mut response));
        if let (Ok(agent), Ok(provider)) = (agent, provider) {
            tunnel.run(&gateway, TokioIo::new(agent), TokioIo::new(provider)).await;
        }
    });
    Ok(back)
}

struct Tunnel {
    call: Arc<Call>,
    answer: AnswerRecorder,
    pending: Pending,
}

impl Tunnel {
    async fn run(
        mut self,
        gateway: &Gateway,
        agent: impl AsyncRead + AsyncWrite,
        provider: impl AsyncRead + AsyncWrite,
    ) {
        let (agent_out, agent_in) = tokio::io::split(agent);
        let (provider_out, provider_in) = tokio::io::split(provider);
        let (mut sent, mut received) = (BodyHasher::default(), BodyHasher::default());
        let outcome = {
            let mut to_provider = std::pin::pin!(pass(agent_out, provider_in, &mut sent));
            let mut to_agent = std::pin::pin!(pass(provider_out, agent_in, &mut received));
            tokio::select! {
                // Whoever ends first has said its last word; what is under way to it may still arrive.
                ended = &mut to_provider => {
                    let _ = tokio::time::timeout(CLOSE_MAX, &mut to_agent).await;
                    if ended { CallOutcome::Complete } else { CallOutcome::ClientLeft }
                }
                ended = &mut to_agent => {
                    let _ = tokio::time::timeout(CLOSE_MAX, &mut to_provider).await;
                    if ended { CallOutcome::Complete } else { CallOutcome::UpstreamTruncated }
                }
                () = gateway.cut() => CallOutcome::ClientLeft,
                () = self.call.lease_ends(gateway) => CallOutcome::ClientLeft,
            }
        };
        let (sent, received): ((Digest, u64), (Digest, u64)) = (sent.finish(), received.finish());
        let duration_us = u64::try_from(self.call.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let closed = WebSocketClosed {
            request_id: self.call.request_id.clone(),
            request_index: BY_THE_MONITOR,
            provider: self.call.provider.clone(),
            sent_sha256: sent.0,
            sent_len: sent.1,
            received_sha256: received.0,
            received_len: received.1,
            duration_us,
        };
        // A refusal is logged where it is met.
        let _ = record::submit(gateway, &self.call, GatewayFields::WebSocket(closed), None).await;
        // The answer's event ends the call, so it comes last.
        drop(self.answer.finish(outcome));
        drop(self.pending);
    }
}

/// Passes one direction on until its end, which is passed on too; whether it ended by itself.
async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, hasher: &mut BodyHasher) -> bool {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) => return to.shutdown().await.is_ok(),
            Ok(len) => {
                if to.write_all(&buffer[..len]).await.is_err() || to.flush().await.is_err() {
                    return false;
                }
                // What was passed on is what is hashed.
                hasher.update(&buffer[..len]);
            }
            Err(_) => return false,
        }
    }
}

/// How long the second direction may take after the first has ended.
const CLOSE_MAX: Duration = Duration::from_secs(5);
