//! The gateway's channel: evidence of model calls, leases looked up, receipts minted.
//!
//! What this channel can say is fixed here: calls of a lease of an open session, tier OBSERVED. The
//! gateway chooses no agent, no session, no tier and no byte that is signed as an event.

use std::collections::{HashMap, VecDeque};
use std::io::{BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use amc_core::kinds::{Fields, Role};
use amc_core::{AgentId, Digest, LeaseId, RequestId, Tier};
use amc_crypto::signer::ReceiptSigner as _;
use amc_evidence::{Draft, Event, receipt};
use amc_ledger::{AppendError, Appended, CallPart, LogReader, RequestPlace};
use amc_workspace::protocol::gateway::{
    GatewayEvent, GatewayFields, GatewayReply, GatewayRequest, ReceiptPair, Recorded, Welcome,
};
use amc_workspace::protocol::{Frame, PROTOCOL_VERSION, Refusal, encode_frame, holds_frame, read_frame};

use crate::daemon::{Daemon, RunningGateway};
use crate::sessions::refusal;
use crate::{channels, operator, probes};

/// Events under way on one connection: as many flushes as a busy gateway can overlap.
const UNDER_WAY: usize = 1024;

/// Answers that go out in one write; each may have a receipt to sign first, for which the others wait.
const WRITTEN_TOGETHER: usize = 16;

/// Calls of one connection whose answers have not come; a gateway has fewer connections.
const CALLS_MAX: usize = 1 << 18;

/// What is read ahead of a connection, so that a busy one takes few calls of the system.
const READ_AHEAD_BYTES: usize = 64 << 10;

/// What a request comes to.
enum Answer {
    Ready(GatewayReply),
    /// The log has taken the event; the answer comes with its flush.
    Taken,
}

/// What came of an event, and for which request.
struct Settled {
    id: u64,
    /// Its receipt is asked for.
    receipt: bool,
    appended: Result<Appended, AppendError>,
}

impl Settled {
    fn reply(self, daemon: &Daemon) -> (u64, GatewayReply) {
        let reply = match self.appended {
            Ok(appended) => GatewayReply::Recorded(recorded(daemon, &appended, self.receipt)),
            Err(error) => GatewayReply::Refused(refusal(error)),
        };
        (self.id, reply)
    }
}

/// Where answers are written: from the thread that waits for flushes, and from the other what needs none.
type Replies = Arc<Mutex<UnixStream>>;

/// One connection, as its requests are taken.
struct Serving {
    daemon: Arc<Daemon>,
    replies: Replies,
    settled: Sender<Settled>,
    /// Has room for the events that may be under way: one is put in when it was taken, and out when it was answered.
    under_way: SyncSender<()>,
    /// Where the requests of calls under way stand, by request id.
    places: HashMap<String, RequestPlace>,
}

/// Serves one connection. Requests are taken in order. What needs no flush is answered at once, and the rest in order.
pub(crate) fn serve(daemon: &Arc<Daemon>, stream: UnixStream) {
    let Ok(writer) = stream.try_clone() else { return };
    let replies: Replies = Arc::new(Mutex::new(writer));
    let (settled, given) = channel();
    let (under_way, answered) = sync_channel(UNDER_WAY);
    let (for_answers, given_to) = (Arc::clone(daemon), Arc::clone(&replies));
    let answering = thread::spawn(move || give(&for_answers, &given_to, &given, &answered));
    let mut reader = BufReader::with_capacity(READ_AHEAD_BYTES, stream);
    let pid = channels::peer_pid(reader.get_ref());
    let mut serving = Serving { daemon: Arc::clone(daemon), replies, settled, under_way, places: HashMap::new() };
    let is_gateway = serving.requests(&mut reader, pid);
    drop(serving);
    if is_gateway {
        daemon.set_gateway(None);
    }
    // Answering ends with the queue; a panic there would be a mistake of ours and is seen in the log.
    let _ = answering.join();
}

impl Serving {
    /// Takes requests until the connection ends; whether it was a gateway's.
    fn requests(&mut self, reader: &mut BufReader<UnixStream>, pid: Option<i32>) -> bool {
        let (mut is_gateway, mut replies) = (false, Vec::new());
        while let Ok(Some(Frame { id, body })) = read_frame::<GatewayRequest>(reader) {
            is_gateway |= matches!(body, GatewayRequest::Started(_));
            let notice = matches!(body, GatewayRequest::Record { notice: true, .. });
            let answer = self.take(pid, id, body);
            // Notices of events that came together go out together; nothing else waits for what was read ahead.
            let gathers = matches!(answer, Ok(Answer::Taken)) && holds_frame(reader.buffer());
            replies.extend(match answer {
                Ok(Answer::Ready(reply)) => Some((id, reply)),
                Ok(Answer::Taken) => notice.then_some((id, GatewayReply::Accepted)),
                Err(refused) => Some((id, GatewayReply::Refused(refused))),
            });
            if gathers && replies.len() < WRITTEN_TOGETHER {
                continue;
            }
            if !replies.is_empty() && !write(&self.replies, &replies) {
                break;
            }
            replies.clear();
        }
        is_gateway
    }

    fn take(&mut self, pid: Option<i32>, id: u64, request: GatewayRequest) -> Result<Answer, Refusal> {
        let daemon = &Arc::clone(&self.daemon);
        let core = &daemon.core;
        let done = || Ok(Answer::Ready(GatewayReply::Done));
        match request {
            GatewayRequest::Hello { protocol: PROTOCOL_VERSION } => welcome(daemon),
            GatewayRequest::Hello { protocol } => {
                Err(Refusal::Invalid(format!("this monitor speaks protocol {PROTOCOL_VERSION}, not {protocol}")))
            }
            GatewayRequest::Started(started) => {
                daemon.set_gateway(Some(RunningGateway { listen: started.listen.clone(), pid, ..Default::default() }));
                core.writer.append(Draft::new(Tier::Observed, started), None).map_err(refusal)?;
                done()
            }
            GatewayRequest::EgressStarted(started) => {
                daemon.change_gateway(|gateway| gateway.proxy_listen = Some(started.listen.clone()));
                core.writer.append(Draft::new(Tier::Observed, started), None).map_err(refusal)?;
                done()
            }
            GatewayRequest::Reloaded(reloaded) => {
                core.writer.append(Draft::new(Tier::Observed, reloaded.clone()), None).map_err(refusal)?;
                daemon.change_gateway(|gateway| gateway.reloads = (gateway.reloads.0 + 1, Some(reloaded)));
                done()
            }
            GatewayRequest::Authorize { token_sha256 } => {
                // Fail closed: what could not be recorded does not begin.
                core.writer.is_taking().map_err(refusal)?;
                let declared = || operator::declared(daemon);
                let grant = daemon.sessions.authorize(&core.writer, &core.clock, declared, &token_sha256)?;
                Ok(Answer::Ready(GatewayReply::Lease(grant)))
            }
            GatewayRequest::Record { event, receipt, .. } => {
                let settled = self.settled.clone();
                // A connection that has ended wants no answer.
                let then = move |appended| drop(settled.send(Settled { id, receipt, appended }));
                let part = self.part(&event.fields)?;
                let began = match (&part, &event.fields) {
                    (CallPart::Request(place), GatewayFields::Request(call)) => {
                        Some((call.request_id.clone(), place.clone()))
                    }
                    _ => None,
                };
                record(daemon, *event, part, then)?;
                self.places.extend(began);
                // An error means that nobody answers any more.
                let ended = |_| Refusal::LogUnavailable("this connection has ended".to_owned());
                self.under_way.send(()).map_err(ended)?;
                Ok(Answer::Taken)
            }
            GatewayRequest::Receipts { lease, request_id } => receipts(daemon, &lease, &request_id),
            GatewayRequest::ProbePlan { lease } => probes::plan(daemon, &lease).map(Answer::Ready),
            GatewayRequest::Probe(report) => probes::take(daemon, *report).map(Answer::Ready),
        }
    }

    /// What an event is in its call; an answer ends what is known of its request.
    fn part(&mut self, fields: &GatewayFields) -> Result<CallPart, Refusal> {
        let place = match fields {
            GatewayFields::Request(_) if self.places.len() >= CALLS_MAX => {
                return Err(Refusal::Invalid(format!("{CALLS_MAX} calls are under way already")));
            }
            GatewayFields::Request(_) => return Ok(CallPart::Request(RequestPlace::default())),
            GatewayFields::WebSocket(closed) => self.places.get(&closed.request_id).cloned(),
            GatewayFields::Response(answer) => self.places.remove(&answer.request_id),
            _ => return Ok(CallPart::Apart),
        };
        let unknown = || Refusal::Invalid("it answers no request of this connection".to_owned());
        place.map(CallPart::OfRequest).ok_or_else(unknown)
    }
}

/// Answers that became durable with one flush go out in a few writes.
fn give(daemon: &Daemon, replies: &Replies, given: &Receiver<Settled>, answered: &Receiver<()>) {
    while let Ok(first) = given.recv() {
        let mut batch = vec![first.reply(daemon)];
        let others = given.try_iter().take(WRITTEN_TOGETHER - 1);
        batch.extend(others.map(|settled| settled.reply(daemon)));
        if !write(replies, &batch) {
            return;
        }
        for _ in batch {
            // An error means that the connection takes no more.
            let _ = answered.recv();
        }
    }
}

fn write(replies: &Replies, batch: &[(u64, GatewayReply)]) -> bool {
    let mut bytes = Vec::new();
    for (id, body) in batch {
        let Ok(frame) = encode_frame(&Frame { id: *id, body }) else { return false };
        bytes.extend_from_slice(&frame);
    }
    // A panic within a write leaves half a frame, which the other side takes for the end.
    let mut writer = replies.lock().unwrap_or_else(PoisonError::into_inner);
    writer.write_all(&bytes).is_ok()
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

fn record(
    daemon: &Daemon,
    event: GatewayEvent,
    part: CallPart,
    then: impl FnOnce(Result<Appended, AppendError>) + Send + 'static,
) -> Result<(), Refusal> {
    let GatewayEvent { lease, session, fields, payload } = event;
    let own = daemon.sessions.of_lease(&lease, session);
    let (agent, session) = own.ok_or_else(|| Refusal::LeaseInvalid(format!("{lease} belongs to no open session")))?;
    let named = match &fields {
        GatewayFields::Request(call) => Some(&call.lease),
        GatewayFields::Egress(tunnel) => Some(&tunnel.lease),
        GatewayFields::Blocked(blocked) => Some(&blocked.lease),
        _ => None,
    };
    if named.is_some_and(|named| *named != lease) {
        return Err(Refusal::Invalid("the call names another lease than its own".to_owned()));
    }
    let began = match &fields {
        GatewayFields::Request(_) => Some(true),
        GatewayFields::Response(_) => Some(false),
        _ => None,
    };
    let chosen = match &fields {
        GatewayFields::Request(call) => call.client_request_id.clone().map(|id| (id, call.request_id.clone())),
        _ => None,
    };
    let fields: Fields = match fields {
        GatewayFields::Request(fields) => fields.into(),
        GatewayFields::Response(fields) => fields.into(),
        GatewayFields::KeyIgnored(fields) => fields.into(),
        GatewayFields::Attempt(fields) => fields.into(),
        GatewayFields::WebSocket(fields) => fields.into(),
        GatewayFields::Egress(fields) => fields.into(),
        GatewayFields::Blocked(fields) => fields.into(),
    };
    let mut draft = Draft::in_session(agent.clone(), session, Tier::Observed, fields);
    let mut bytes = None;
    if let Some(captured) = payload {
        let (reference, stored) = channels::payload(captured)?;
        draft = draft.with_payload(reference);
        bytes = stored;
    }
    daemon.core.writer.submit_then(draft, bytes, part, then).map_err(refusal)?;
    if let Some(began) = began {
        daemon.sessions.count_call(session, began);
    }
    if let Some((client_id, request_id)) = chosen {
        daemon.client_ids.insert(agent, client_id, request_id);
    }
    Ok(())
}

/// The ids that agents chose for their newest calls, each with the gateway's own. Receipts of older
/// calls are asked for by the gateway's id.
#[derive(Default)]
pub(crate) struct ClientIds(Mutex<NewestIds>);

#[derive(Default)]
struct NewestIds {
    known: HashMap<(AgentId, String), String>,
    order: VecDeque<(AgentId, String)>,
}

impl ClientIds {
    fn insert(&self, agent: AgentId, client_id: String, request_id: String) {
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (agent, client_id);
        if newest.known.insert(key.clone(), request_id).is_none() {
            newest.order.push_back(key);
        }
        if newest.order.len() > CLIENT_IDS_MAX
            && let Some(oldest) = newest.order.pop_front()
        {
            newest.known.remove(&oldest);
        }
    }

    fn request_id(&self, agent: &AgentId, client_id: &str) -> Option<String> {
        let newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        newest.known.get(&(agent.clone(), client_id.to_owned())).cloned()
    }
}

/// Some megabytes at most; clients ask soon or not at all.
const CLIENT_IDS_MAX: usize = 16_384;

fn recorded(daemon: &Daemon, appended: &Appended, receipt: bool) -> Recorded {
    let mint = || mint(daemon, &appended.event, &appended.fields, appended.hash);
    let receipt = receipt.then(mint).flatten();
    Recorded { index: appended.index, event_hash: appended.hash, receipt }
}

fn mint(daemon: &Daemon, event: &Event, fields: &Fields, hash: Digest) -> Option<String> {
    let key = &daemon.core.receipts;
    let claims = receipt::claims_of(key.verifier_key().name(), event, fields, hash)?;
    key.sign_receipt(&claims).ok()
}

/// Receipts are a function of durable events, so they are made again whenever asked for; an agent
/// gets its own.
fn receipts(daemon: &Daemon, lease: &LeaseId, request_id: &str) -> Result<Answer, Refusal> {
    let unknown = || Refusal::LeaseInvalid(format!("{lease} belongs to no open session"));
    let agent = daemon.sessions.agent_of_lease(lease).ok_or_else(unknown)?;
    let request_id = daemon.client_ids.request_id(&agent, request_id).unwrap_or_else(|| request_id.to_owned());
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
            let Some(fields) = fields.filter(|_| event.agent.as_ref() == Some(&agent)) else { continue };
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
