//! A peer of the gateway on a real Unix socket: it grants leases, keeps evidence in memory and signs
//! receipts with a known test key. It can refuse, and hold answers back as a slow disk does.

use std::collections::{HashMap, HashSet};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use amc_core::kinds::{ConfigState, EgressStarted, LlmRequest, LlmResponse, WebSocketClosed};
use amc_core::{AgentId, Digest, LeaseId, SessionId};
use amc_crypto::jws::{ReceiptClaims, ReceiptKind, assemble, signing_input};
use amc_crypto::{Signature, VerifierKey};
use amc_workspace::protocol::gateway::{
    CapturedPayload, GatewayEvent, GatewayFields, GatewayReply, GatewayRequest, LeaseGrant, LeaseLimits, ReceiptPair,
    Recorded, Welcome,
};
use amc_workspace::protocol::{Connection, Frame, Refusal, read_frame, write_frame};
use ed25519_dalek::{Signer as _, SigningKey};

/// A vkey of the seed `0x42` × 32, under the name that receipts give their log.
pub(crate) const MONITOR_KEY: &str = "evidence.test/log+54a7d19c+ASFS+NGbeR0kRTJC4V8uq2y3z/p7al7TAJeWDgaYgdsS";

/// The two agents that have leases.
pub(crate) const ALICE: &str = "alice-lease-0123456789abcdef";
pub(crate) const BOB: &str = "bob-lease-fedcba9876543210";

#[derive(Default)]
struct State {
    in_pairs: bool,
    events: Vec<GatewayEvent>,
    /// By agent and either id.
    receipts: HashMap<(AgentId, String), ReceiptPair>,
    /// What leases may do, by token; those of nobody here bound nothing.
    limits: HashMap<Digest, LeaseLimits>,
    revoked: HashSet<Digest>,
    egress: Option<EgressStarted>,
    accepted: usize,
    refuse: Option<Refusal>,
    refuse_lookups: Option<Refusal>,
    hang_up_on_lookup: bool,
    held: bool,
    accepting_held: bool,
    connections: Vec<UnixStream>,
}

#[derive(Clone)]
pub(crate) struct TestMonitor {
    shared: Arc<(Mutex<State>, Condvar)>,
    welcome: Arc<Welcome>,
    pub(crate) socket: PathBuf,
}

impl TestMonitor {
    pub(crate) fn start(dir: &Path, config: String, secrets: &[(&str, &str)]) -> Self {
        let socket = dir.join("gateway.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let secrets = secrets.iter().map(|(name, key)| ((*name).to_owned(), (*key).to_owned())).collect();
        let welcome = Welcome {
            config,
            config_version: 3,
            config_state: ConfigState::Signed,
            secrets,
            commitment_key: Digest([9; 32]),
            monitor_key: MONITOR_KEY.to_owned(),
        };
        let monitor = TestMonitor { shared: Arc::default(), welcome: Arc::new(welcome), socket };
        let accepting = monitor.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, monitor) = (stream.unwrap(), accepting.clone());
                accepting.state(|state| state.connections.push(stream.try_clone().unwrap()));
                std::thread::spawn(move || monitor.serve(stream));
            }
        });
        monitor
    }

    fn serve(&self, stream: UnixStream) {
        let (mut reader, mut writer) = Connection::new(stream).unwrap().split();
        let mut waiting = Vec::new();
        while let Ok(Some(frame)) = read_frame::<GatewayRequest>(&mut reader) {
            waiting.push(frame);
            if waiting.len() < 2 && self.pairs(&waiting[0].body) {
                continue;
            }
            if !self.serve_all(waiting.drain(..), &mut writer) {
                return;
            }
        }
    }

    /// Whether evidence waits until there are two of it.
    fn pairs(&self, request: &GatewayRequest) -> bool {
        matches!(request, GatewayRequest::Record { .. }) && self.state(|state| state.in_pairs)
    }

    fn serve_all(&self, requests: impl Iterator<Item = Frame<GatewayRequest>>, mut writer: &mut UnixStream) -> bool {
        for Frame { id, body } in requests {
            if matches!(body, GatewayRequest::Record { notice: true, .. }) && self.accepts() {
                write_frame(&mut writer, &Frame { id, body: GatewayReply::Accepted }).unwrap();
                self.state(|state| state.accepted += 1);
            }
            let Some(body) = self.answer(body) else {
                let _ = writer.shutdown(std::net::Shutdown::Both);
                return false;
            };
            if write_frame(&mut writer, &Frame { id, body }).is_err() {
                return false;
            }
        }
        true
    }

    fn accepts(&self) -> bool {
        let (lock, changed) = &*self.shared;
        let state = changed.wait_while(lock.lock().unwrap(), |state| state.accepting_held).unwrap();
        state.refuse.is_none()
    }

    fn answer(&self, request: GatewayRequest) -> Option<GatewayReply> {
        Some(match request {
            GatewayRequest::Hello { .. } => GatewayReply::Welcome(Box::new(Welcome::clone(&self.welcome))),
            GatewayRequest::Started(_) | GatewayRequest::Reloaded(_) => GatewayReply::Done,
            GatewayRequest::EgressStarted(started) => {
                self.state(|state| state.egress = Some(started));
                GatewayReply::Done
            }
            GatewayRequest::Authorize { token_sha256 } => {
                let state = self.shared.0.lock().unwrap();
                let granted = grant(token_sha256).filter(|_| !state.revoked.contains(&token_sha256));
                match (&state.refuse_lookups, granted) {
                    _ if state.hang_up_on_lookup => return None,
                    (Some(refusal), _) => GatewayReply::Refused(refusal.clone()),
                    (None, Some(mut grant)) => {
                        grant.limits = state.limits.get(&token_sha256).cloned().unwrap_or_default();
                        GatewayReply::Lease(grant)
                    }
                    (None, None) => GatewayReply::Refused(Refusal::LeaseInvalid("no lease has this token".into())),
                }
            }
            GatewayRequest::Record { event, .. } => self.record(*event),
            GatewayRequest::ProbePlan { .. } | GatewayRequest::Probe(_) => {
                GatewayReply::Refused(Refusal::Invalid("probes are tried against the real monitor".into()))
            }
            GatewayRequest::Receipts { lease, request_id } => {
                let agent = agent_of(&lease);
                GatewayReply::Receipts(
                    self.state(|state| state.receipts.get(&(agent, request_id)).cloned().unwrap_or_default()),
                )
            }
        })
    }

    fn record(&self, mut event: GatewayEvent) -> GatewayReply {
        let (lock, changed) = &*self.shared;
        let mut state = changed.wait_while(lock.lock().unwrap(), |state| state.held).unwrap();
        if let Some(refusal) = &state.refuse {
            return GatewayReply::Refused(refusal.clone());
        }
        if let GatewayFields::Response(LlmResponse { request_id, request_index, .. })
        | GatewayFields::WebSocket(WebSocketClosed { request_id, request_index, .. }) = &mut event.fields
        {
            let asked = |event: &GatewayEvent| matches!(&event.fields, GatewayFields::Request(call) if call.request_id == *request_id);
            let Some(index) = state.events.iter().position(asked) else {
                return GatewayReply::Refused(Refusal::Invalid("it answers no request".into()));
            };
            *request_index = index as u64;
        }
        let index = state.events.len() as u64;
        let receipt = receipt(&event, index);
        if let Some(receipt) = &receipt {
            state.file(&event, receipt);
        }
        state.events.push(event);
        changed.notify_all();
        GatewayReply::Recorded(Recorded { index, event_hash: event_hash(index), receipt })
    }

    fn state<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        let answer = with(&mut self.shared.0.lock().unwrap());
        self.shared.1.notify_all();
        answer
    }

    /// Refuses evidence from now on, or takes it again.
    pub(crate) fn refuse(&self, refusal: Option<Refusal>) {
        self.state(|state| state.refuse = refusal);
    }

    /// Refuses lookups from now on.
    pub(crate) fn refuse_lookups(&self, refusal: Refusal) {
        self.state(|state| state.refuse_lookups = Some(refusal));
    }

    /// Closes the connection at the next lookup.
    pub(crate) fn hang_up_on_lookup(&self) {
        self.state(|state| state.hang_up_on_lookup = true);
    }

    /// Holds all evidence, as if a flush took long, or lets it go.
    pub(crate) fn hold(&self, held: bool) {
        self.state(|state| state.held = held);
    }

    /// Answers evidence in pairs from now on, as a flush that takes two events.
    pub(crate) fn answer_in_pairs(&self) {
        self.state(|state| state.in_pairs = true);
    }

    /// Holds back even the notice that evidence is taken, or lets it go.
    pub(crate) fn hold_acceptance(&self, held: bool) {
        self.state(|state| state.accepting_held = held);
    }

    /// How often evidence was said to be taken before it was durable.
    pub(crate) fn accepted(&self) -> usize {
        self.state(|state| state.accepted)
    }

    /// Bounds what a lease may do.
    pub(crate) fn limit(&self, token: &str, limits: LeaseLimits) {
        self.state(|state| state.limits.insert(amc_crypto::sha256(token.as_bytes()), limits));
    }

    /// Ends a lease.
    pub(crate) fn revoke(&self, token: &str) {
        self.state(|state| state.revoked.insert(amc_crypto::sha256(token.as_bytes())));
    }

    /// Where the egress proxy listens.
    pub(crate) fn egress(&self) -> EgressStarted {
        self.state(|state| state.egress.clone()).expect("it has started")
    }

    /// Closes every connection.
    pub(crate) fn hang_up(&self) {
        self.state(|state| {
            state.connections.drain(..).for_each(|stream| drop(stream.shutdown(std::net::Shutdown::Both)));
        });
    }

    /// How many events there are.
    pub(crate) fn count(&self) -> usize {
        self.state(|state| state.events.len())
    }

    /// Waits until there are so many events, and returns them.
    pub(crate) async fn events(&self, count: usize) -> Vec<GatewayEvent> {
        let monitor = self.clone();
        tokio::task::spawn_blocking(move || monitor.wait_for(count)).await.unwrap()
    }

    fn wait_for(&self, count: usize) -> Vec<GatewayEvent> {
        let (lock, changed) = &*self.shared;
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut state = lock.lock().unwrap();
        while state.events.len() < count {
            let left = deadline.checked_duration_since(Instant::now());
            let left = left.unwrap_or_else(|| panic!("{} of {count} events", state.events.len()));
            state = changed.wait_timeout(state, left).unwrap().0;
        }
        state.events.clone()
    }

    /// Waits for the two events of one call.
    pub(crate) async fn call(&self) -> RecordedCall {
        RecordedCall::of(&self.events(2).await)
    }
}

impl State {
    fn file(&mut self, event: &GatewayEvent, receipt: &str) {
        let mut ids = Vec::new();
        match &event.fields {
            GatewayFields::Request(call) => {
                ids.push(call.request_id.clone());
                ids.extend(call.client_request_id.clone());
            }
            GatewayFields::Response(call) => {
                // The client's own id is known from the request.
                let same = |event: &&GatewayEvent| matches!(&event.fields, GatewayFields::Request(request) if request.request_id == call.request_id);
                let request = self.events.iter().find(same).expect("a request comes before its answer");
                ids.push(call.request_id.clone());
                if let GatewayFields::Request(request) = &request.fields {
                    ids.extend(request.client_request_id.clone());
                }
            }
            _ => {}
        }
        for id in ids {
            let pair = self.receipts.entry((agent_of(&event.lease), id)).or_default();
            match &event.fields {
                GatewayFields::Request(_) => pair.request = Some(receipt.to_owned()),
                _ => pair.response = Some(receipt.to_owned()),
            }
        }
    }
}

fn agent_of(lease: &LeaseId) -> AgentId {
    let agents = [ALICE, BOB].map(|token| grant(amc_crypto::sha256(token.as_bytes())).unwrap());
    agents.into_iter().find(|grant| grant.lease == *lease).expect("a lease of ours").agent
}

/// The two events of one call.
#[derive(Debug)]
pub(crate) struct RecordedCall {
    pub(crate) request: LlmRequest,
    pub(crate) sent: CapturedPayload,
    pub(crate) response: LlmResponse,
    pub(crate) received: CapturedPayload,
}

impl RecordedCall {
    pub(crate) fn of(events: &[GatewayEvent]) -> Self {
        let (mut request, mut response) = (None, None);
        for event in events {
            match &event.fields {
                GatewayFields::Request(fields) => request = Some((fields.clone(), event.payload.clone().unwrap())),
                GatewayFields::Response(fields) => response = Some((fields.clone(), event.payload.clone().unwrap())),
                _ => {}
            }
        }
        let ((request, sent), (response, received)) = (request.unwrap(), response.unwrap());
        RecordedCall { request, sent, response, received }
    }
}

pub(crate) fn grant(token_sha256: Digest) -> Option<LeaseGrant> {
    let number = [ALICE, BOB].iter().position(|token| amc_crypto::sha256(token.as_bytes()) == token_sha256)?;
    let number = u8::try_from(number).unwrap();
    Some(LeaseGrant {
        lease: LeaseId::new(format!("lease-{number:016x}")).unwrap(),
        agent: AgentId::new(["alice", "bob"][usize::from(number)]).unwrap(),
        session: SessionId::from_parts(1_700_000_000_000, [number; 10]),
        limits: LeaseLimits::default(),
        holds_until_ns: 0,
    })
}

fn event_hash(index: u64) -> Digest {
    amc_crypto::leaf_hash(&index.to_le_bytes())
}

/// The receipt of an event, really signed.
fn receipt(event: &GatewayEvent, index: u64) -> Option<String> {
    let (kind, request_id, provider, model) = match &event.fields {
        GatewayFields::Request(call) => (ReceiptKind::LlmRequest, &call.request_id, &call.provider, &call.model),
        GatewayFields::Response(call) => (ReceiptKind::LlmResponse, &call.request_id, &call.provider, &call.model),
        _ => return None,
    };
    let agents = [ALICE, BOB].map(|token| grant(amc_crypto::sha256(token.as_bytes())).unwrap());
    let grant = agents.into_iter().find(|grant| grant.lease == event.lease)?;
    let key: VerifierKey = MONITOR_KEY.parse().unwrap();
    let claims = ReceiptClaims {
        v: 1,
        receipt_id: format!("rcpt-{index}"),
        kind,
        ts: "2026-01-01T00:00:00Z".to_owned(),
        agent_id: grant.agent,
        session_id: grant.session,
        request_id: request_id.clone(),
        provider: provider.clone(),
        model: model.clone(),
        log: key.name().to_owned(),
        event_index: index,
        event_hash: event_hash(index),
        body_sha256: event.payload.as_ref()?.wire_sha256,
    };
    let input = signing_input(&key, &claims);
    let signature = SigningKey::from_bytes(&[0x42; 32]).sign(input.as_bytes());
    Some(assemble(&input, &Signature(signature.to_bytes())))
}
