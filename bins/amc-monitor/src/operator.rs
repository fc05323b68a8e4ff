//! The operator's channel: sessions that `amc wrap` opens, what it observes, and their seals.

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use amc_core::kinds::{BoundaryMode, Fields, Ingested, SessionOutcome};
use amc_core::{AgentId, SessionId, Tier};
use amc_evidence::Draft;
use amc_ledger::witness::{self, Submission, WitnessError};
use amc_workspace::AmcConfig;
use amc_workspace::config::TrustBoundaryMode;
use amc_workspace::opening::now_s;
use amc_workspace::protocol::gateway::CapturedPayload;
use amc_workspace::protocol::operator::{
    CosignRequest, KnownSecret, MonitorStatus, OperatorReply, OperatorRequest, ProcessFields, SessionOpened,
    SessionRequest, SessionSealed,
};
use amc_workspace::protocol::{PROTOCOL_VERSION, Refusal};

use crate::channels;
use crate::daemon::Daemon;
use crate::sessions::refusal;

/// Bytes of a handed-in file's name.
const INGEST_NAME_BYTES_MAX: usize = 255;

/// Serves one connection; sessions that it leaves open are sealed as interrupted.
pub(crate) fn serve(daemon: &Arc<Daemon>, stream: &UnixStream) {
    let mut own = BTreeSet::new();
    channels::serve(stream, |request| answer(daemon, &mut own, request).unwrap_or_else(OperatorReply::Refused));
    for mut session in own {
        while let Some(next) = daemon.sessions.continued_in(session) {
            session = next;
        }
        // A log that stopped is told by the next command; the session then stays open and is found so.
        let _ = daemon.sessions.seal(&daemon.core.writer, session, SessionOutcome::Interrupted);
    }
    let _ = daemon.core.writer.publish();
}

/// Where a session of this connection goes on in another one, that one is this connection's too, and what was said is
/// to be said there.
fn check_continued(daemon: &Daemon, own: &mut BTreeSet<SessionId>, session: SessionId) -> Result<(), Refusal> {
    let Some(next) = daemon.sessions.continued_in(session).filter(|_| own.contains(&session)) else { return Ok(()) };
    own.remove(&session);
    own.insert(next);
    Err(Refusal::SessionContinued(next))
}

fn answer(
    daemon: &Arc<Daemon>,
    own: &mut BTreeSet<SessionId>,
    request: OperatorRequest,
) -> Result<OperatorReply, Refusal> {
    if let OperatorRequest::Record { session, .. } | OperatorRequest::SealSession { session, .. } = &request {
        check_continued(daemon, own, *session)?;
    }
    match request {
        OperatorRequest::Hello { protocol: PROTOCOL_VERSION } => Ok(OperatorReply::Welcome),
        OperatorRequest::Hello { protocol } => Err(Refusal::Invalid(format!(
            "this monitor speaks protocol {PROTOCOL_VERSION}, not {protocol}; use binaries of one release"
        ))),
        OperatorRequest::Status => Ok(OperatorReply::Status(status(daemon))),
        OperatorRequest::OpenSession(request) => open(daemon, own, request),
        OperatorRequest::Record { session, fields, payload } => record(daemon, own, session, fields, payload),
        OperatorRequest::Ingest { agent, fields, payload } => ingest(daemon, agent, fields, payload),
        OperatorRequest::SealSession { session, outcome } => seal(daemon, own, session, outcome),
        OperatorRequest::Judge { candidates } => Ok(OperatorReply::Judged(judge(daemon, &candidates))),
        OperatorRequest::Cosign(request) => cosign(daemon, request),
        OperatorRequest::Leave => Ok(OperatorReply::Left { stopping: daemon.leaves() }),
        OperatorRequest::Shutdown => {
            daemon.stop();
            Ok(OperatorReply::Done)
        }
        OperatorRequest::IssueLease(order) => {
            let issued = daemon.sessions.issue(&daemon.core.writer, &daemon.core.clock, order)?;
            Ok(OperatorReply::LeaseIssued(issued))
        }
        OperatorRequest::Leases => Ok(OperatorReply::Leases(daemon.sessions.leases(&daemon.core.clock))),
        OperatorRequest::RevokeLease { lease } => {
            daemon.sessions.revoke(&daemon.core.writer, &daemon.core.clock, &lease)?;
            Ok(OperatorReply::Done)
        }
    }
}

fn status(daemon: &Daemon) -> MonitorStatus {
    MonitorStatus {
        pid: std::process::id(),
        events: daemon.core.writer.with_state(amc_evidence::LogState::size),
        open_sessions: daemon.sessions.ids(),
        gateway_listen: daemon.gateway().map(|gateway| gateway.listen),
        gateway_pid: daemon.gateway().and_then(|gateway| gateway.pid),
        proxy_listen: daemon.gateway().and_then(|gateway| gateway.proxy_listen),
        gateway_reloads: daemon.gateway().map(|gateway| gateway.reloads).unwrap_or_default(),
    }
}

fn open(daemon: &Daemon, own: &mut BTreeSet<SessionId>, request: SessionRequest) -> Result<OperatorReply, Refusal> {
    let agent = request.agent.clone();
    let registered = daemon.registered(&agent)?;
    let opened = daemon.sessions.open(&daemon.core.writer, &daemon.core.clock, declared(daemon)?, request)?;
    own.insert(opened.session);
    if let Some(registered) = registered {
        let draft = Draft::in_session(agent, opened.session, Tier::Observed, registered);
        daemon.core.writer.append(draft, None).map_err(refusal)?;
    }
    let (session, number) = (opened.session, opened.number);
    Ok(OperatorReply::SessionOpened(SessionOpened { session, number, lease_token: opened.token }))
}

/// What `amc.yaml` declares about the trust boundary now.
pub(crate) fn declared(daemon: &Daemon) -> Result<BoundaryMode, Refusal> {
    let invalid = |error: &dyn std::fmt::Display| Refusal::Invalid(error.to_string());
    let file = daemon.load_config("amc.yaml").map_err(|error| invalid(&error))?;
    let config = AmcConfig::parse(&file.bytes).map_err(|error| invalid(&error))?;
    Ok(match config.security.trust_boundary_mode {
        TrustBoundaryMode::Shared => BoundaryMode::Shared,
        TrustBoundaryMode::Isolated => BoundaryMode::Isolated,
    })
}

fn record(
    daemon: &Daemon,
    own: &BTreeSet<SessionId>,
    session: SessionId,
    fields: ProcessFields,
    payload: Option<CapturedPayload>,
) -> Result<OperatorReply, Refusal> {
    let agent = own.contains(&session).then(|| daemon.sessions.agent_of(session)).flatten();
    let agent = agent.ok_or_else(|| Refusal::LeaseInvalid(format!("session {session} is not open here")))?;
    let fields: Fields = match fields {
        ProcessFields::Environment(fields) => fields.into(),
        ProcessFields::Output(fields) => fields.into(),
        ProcessFields::Exit(fields) => fields.into(),
        ProcessFields::Probe(fields) => fields.into(),
        ProcessFields::Traces(fields) => fields.into(),
    };
    let mut draft = Draft::in_session(agent, session, Tier::Observed, fields);
    let mut bytes = None;
    if let Some(captured) = payload {
        let (reference, stored) = channels::payload(captured)?;
        draft = draft.with_payload(reference);
        bytes = stored;
    }
    let appended = daemon.core.writer.append(draft, bytes).map_err(refusal)?;
    Ok(OperatorReply::Recorded { index: appended.index })
}

/// What somebody hands in stands outside of sessions, and this channel makes it SELF_REPORTED.
fn ingest(
    daemon: &Daemon,
    agent: AgentId,
    fields: Ingested,
    payload: CapturedPayload,
) -> Result<OperatorReply, Refusal> {
    if fields.name.len() > INGEST_NAME_BYTES_MAX {
        return Err(Refusal::Invalid(format!("a file's name has at most {INGEST_NAME_BYTES_MAX} bytes")));
    }
    let (reference, stored) = channels::payload(payload)?;
    let draft = Draft { agent: Some(agent), ..Draft::new(Tier::SelfReported, fields) }.with_payload(reference);
    let appended = daemon.core.writer.append(draft, stored).map_err(refusal)?;
    Ok(OperatorReply::Recorded { index: appended.index })
}

/// Which candidates are secrets that this process knows; they are compared and forgotten.
fn judge(daemon: &Daemon, candidates: &[String]) -> Vec<(u32, KnownSecret)> {
    let core = &daemon.core;
    let known = |text: &String| {
        if core.passphrase.matches(text.as_bytes()) {
            return Some(KnownSecret::Passphrase);
        }
        let mut provider_keys = core.secrets.names().filter_map(|name| core.secrets.get(name));
        provider_keys.any(|key| key.expose() == text.as_bytes()).then_some(KnownSecret::ProviderKey)
    };
    let numbered = (0..).zip(candidates);
    numbered.filter_map(|(number, text)| known(text).map(|secret| (number, secret))).collect()
}

fn seal(
    daemon: &Daemon,
    own: &mut BTreeSet<SessionId>,
    session: SessionId,
    outcome: SessionOutcome,
) -> Result<OperatorReply, Refusal> {
    if !own.contains(&session) {
        return Err(Refusal::LeaseInvalid(format!("session {session} is not open here")));
    }
    let appended = daemon.sessions.seal(&daemon.core.writer, session, outcome)?;
    own.remove(&session);
    let note = daemon.core.writer.publish().map_err(refusal)?;
    daemon.seals.ring();
    let events = u64::from(appended.event.session_seq) + 1;
    Ok(OperatorReply::Sealed(SessionSealed { events, checkpoint: note.to_string() }))
}

fn cosign(daemon: &Daemon, request: CosignRequest) -> Result<OperatorReply, Refusal> {
    let invalid = |error: &dyn std::fmt::Display| Refusal::Invalid(error.to_string());
    let note = amc_crypto::Note::parse(request.note.as_bytes()).map_err(|error| invalid(&error))?;
    let submission = Submission { note, old_size: request.old_size, proof: request.proof };
    let core = &daemon.core;
    let one_at_a_time = daemon.witnessing();
    let policy = core.policy_now().map_err(|error| invalid(&error))?;
    let result = witness::cosign(&core.writer, &core.witness, &policy, submission, now_s(&core.clock));
    drop(one_at_a_time);
    match result {
        Ok(note) => {
            core.writer.publish().map_err(refusal)?;
            Ok(OperatorReply::Cosigned { note: note.to_string() })
        }
        Err(WitnessError::Conflict { size }) => Ok(OperatorReply::CosignConflict { size }),
        Err(error) => Err(invalid(&error)),
    }
}
