//! The gateway's channel: evidence of model calls, leases looked up, receipts minted.
//!
//! What this channel can say is fixed here: calls of a lease of an open session, tier OBSERVED. The
//! gateway chooses no agent, no session, no tier and no byte that is signed as an event.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use amc_core::kinds::{Fields, Role};
use amc_core::{Digest, RequestId, Tier};
use amc_crypto::signer::ReceiptSigner as _;
use amc_evidence::{Draft, Event, receipt};
use amc_ledger::{Appended, LogReader, Pending};
use amc_workspace::protocol::gateway::{
    GatewayEvent, GatewayFields, GatewayReply, GatewayRequest, ReceiptPair, Recorded, Welcome,
};
use amc_workspace::protocol::{Frame, PROTOCOL_VERSION, Refusal, read_frame, write_frame};

use crate::channels;
use crate::daemon::{Daemon, RunningGateway};
use crate::sessions::refusal;

/// Answers under way on one connection: as many flushes as a busy gateway can overlap.
const UNDER_WAY: usize = 1024;

enum Answer {
    Ready(GatewayReply),
    Durable(Pending),
}

/// Serves one connection. Requests are taken in order and answers given in order; those that wait
/// for a flush do not hold up the taking.
pub(crate) fn serve(daemon: &Arc<Daemon>, stream: UnixStream) {
    let Ok(writer) = stream.try_clone() else { return };
    let (answers, given) = sync_channel::<(u64, Answer)>(UNDER_WAY);
    let for_answers = Arc::clone(daemon);
    let answering = thread::spawn(move || give(&for_answers, writer, &given));
    let mut reader = std::io::BufReader::new(stream);
    let pid = channels::peer_pid(reader.get_ref());
    let mut is_gateway = false;
    while let Ok(Some(Frame { id, body })) = read_frame::<GatewayRequest>(&mut reader) {
        is_gateway |= matches!(body, GatewayRequest::Started(_));
        let answer = take(daemon, pid, body).unwrap_or_else(|refused| Answer::Ready(GatewayReply::Refused(refused)));
        if answers.send((id, answer)).is_err() {
            break;
        }
    }
    drop(answers);
    if is_gateway {
        daemon.set_gateway(None);
    }
    // Answering ends with the queue; a panic there would be a mistake of ours and is seen in the log.
    let _ = answering.join();
}

fn give(daemon: &Daemon, mut writer: UnixStream, given: &Receiver<(u64, Answer)>) {
    for (id, answer) in given {
        let body = match answer {
            Answer::Ready(reply) => reply,
            Answer::Durable(pending) => match pending.wait() {
                Ok(appended) => GatewayReply::Recorded(recorded(daemon, &appended)),
                Err(error) => GatewayReply::Refused(refusal(error)),
            },
        };
        if write_frame(&mut writer, &Frame { id, body }).is_err() {
            return;
        }
    }
}

fn take(daemon: &Daemon, pid: Option<i32>, request: GatewayRequest) -> Result<Answer, Refusal> {
    match request {
        GatewayRequest::Hello { protocol: PROTOCOL_VERSION } => welcome(daemon),
        GatewayRequest::Hello { protocol } => {
            Err(Refusal::Invalid(format!("this monitor speaks protocol {PROTOCOL_VERSION}, not {protocol}")))
        }
        GatewayRequest::Started(started) => {
            daemon.set_gateway(Some(RunningGateway { listen: started.listen.clone(), pid }));
            let appended = daemon.core.writer.append(Draft::new(Tier::Observed, started), None).map_err(refusal)?;
            drop(appended);
            Ok(Answer::Ready(GatewayReply::Done))
        }
        GatewayRequest::Authorize { token_sha256 } => {
            let grant = daemon.sessions.of_token(&token_sha256);
            let unknown = || Refusal::LeaseInvalid("no open session has this lease".to_owned());
            Ok(Answer::Ready(GatewayReply::Lease(grant.ok_or_else(unknown)?)))
        }
        GatewayRequest::Record(event) => record(daemon, *event),
        GatewayRequest::Receipts { request_id } => receipts(daemon, &request_id),
    }
}

/// Loads and judges `gateway.yaml`, records that, and hands over what the gateway needs.
fn welcome(daemon: &Daemon) -> Result<Answer, Refusal> {
    let core = &daemon.core;
    let unavailable = |error: &dyn std::fmt::Display| Refusal::Invalid(error.to_string());
    let file = daemon.load_config("gateway.yaml").map_err(|error| unavailable(&error))?;
    let config = String::from_utf8(file.bytes).map_err(|_| Refusal::Invalid("gateway.yaml is not UTF-8".into()))?;
    let provider_secret = |name: &str| name.strip_prefix("provider/").map(str::to_owned);
    let secrets = core.secrets.names().filter_map(|name| {
        let value = core.secrets.get(name)?;
        let value = String::from_utf8(value.expose().to_vec()).ok()?;
        Some((provider_secret(name.as_str())?, value))
    });
    Ok(Answer::Ready(GatewayReply::Welcome(Box::new(Welcome {
        config,
        config_version: file.version.unwrap_or(0),
        config_state: file.state,
        secrets: secrets.collect(),
        commitment_key: core.commitments.commit(b"gateway redaction"),
        monitor_key: core.receipts.verifier_key().to_string(),
    }))))
}

fn record(daemon: &Daemon, event: GatewayEvent) -> Result<Answer, Refusal> {
    let GatewayEvent { lease, fields, payload } = event;
    let grant = daemon.sessions.of_lease(&lease);
    let grant = grant.ok_or_else(|| Refusal::LeaseInvalid(format!("{lease} belongs to no open session")))?;
    let began = match &fields {
        GatewayFields::Request(call) if call.lease != lease => {
            return Err(Refusal::Invalid("the call names another lease than its own".to_owned()));
        }
        GatewayFields::Request(_) => Some(true),
        GatewayFields::Response(_) => Some(false),
        GatewayFields::KeyIgnored(_) => None,
    };
    let fields: Fields = match fields {
        GatewayFields::Request(fields) => fields.into(),
        GatewayFields::Response(fields) => fields.into(),
        GatewayFields::KeyIgnored(fields) => fields.into(),
    };
    let mut draft = Draft::in_session(grant.agent, grant.session, Tier::Observed, fields);
    let mut bytes = None;
    if let Some(captured) = payload {
        let (reference, stored) = channels::payload(captured)?;
        draft = draft.with_payload(reference);
        bytes = stored;
    }
    let pending = daemon.core.writer.submit(draft, bytes).map_err(refusal)?;
    if let Some(began) = began {
        daemon.sessions.count_call(&lease, began);
    }
    Ok(Answer::Durable(pending))
}

fn recorded(daemon: &Daemon, appended: &Appended) -> Recorded {
    let receipt = mint(daemon, &appended.event, &appended.fields, appended.hash);
    Recorded { index: appended.index, event_hash: appended.hash, receipt }
}

fn mint(daemon: &Daemon, event: &Event, fields: &Fields, hash: Digest) -> Option<String> {
    let key = &daemon.core.receipts;
    let claims = receipt::claims_of(key.verifier_key().name(), event, fields, hash)?;
    key.sign_receipt(&claims).ok()
}

/// Receipts are a function of durable events, so they are made again whenever asked for.
fn receipts(daemon: &Daemon, request_id: &str) -> Result<Answer, Refusal> {
    let request_id = RequestId::new(request_id).map_err(|error| Refusal::Invalid(error.to_string()))?;
    let core = &daemon.core;
    let unavailable = |error: &dyn std::fmt::Display| Refusal::Invalid(error.to_string());
    let indices = core.writer.lookup_request(&request_id).map_err(|error| unavailable(&error))?;
    let mut pair = ReceiptPair::default();
    if !indices.is_empty() {
        core.writer.publish().map_err(refusal)?;
        let reader = LogReader::open(&core.home.log(Role::Monitor)).map_err(|error| unavailable(&error))?;
        for index in indices {
            let Some(stored) = reader.event(index).map_err(|error| unavailable(&error))? else { continue };
            let (event, fields) = Event::decode(&stored.signed.body).map_err(|error| unavailable(&error))?;
            let Some(fields) = fields else { continue };
            let receipt = mint(daemon, &event, &fields, stored.signed.event_hash());
            match fields {
                Fields::LlmRequest(_) => pair.request = receipt,
                Fields::LlmResponse(_) => pair.response = receipt,
                _ => {}
            }
        }
    }
    Ok(Answer::Ready(GatewayReply::Receipts(pair)))
}
