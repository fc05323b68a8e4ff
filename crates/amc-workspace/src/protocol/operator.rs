//! The operator's channel: what `amc` asks of a running monitor, `wrap` above all.

use amc_core::kinds::{
    BoundaryProbe, EnvironmentBuilt, GatewayReloaded, Ingested, Isolation, ProcessExit, ProcessOutput, SessionOutcome,
    SessionPurpose, TraceLines,
};
use amc_core::{AgentId, Digest, LeaseId, SessionId};
use serde::{Deserialize, Serialize};

use super::Refusal;
use super::gateway::{CapturedPayload, LeaseLimits};

/// What `amc` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperatorRequest {
    /// First message of a connection.
    Hello {
        /// [`super::PROTOCOL_VERSION`].
        protocol: u16,
    },
    /// What runs, and where.
    Status,
    /// Open a session for an agent that is about to be started. The session belongs to this
    /// connection: when the connection ends without a seal, it is sealed as interrupted.
    OpenSession(SessionRequest),
    /// Append evidence about the session's process; answered when it is durable.
    Record {
        /// The session.
        session: SessionId,
        /// What was observed.
        fields: ProcessFields,
        /// The bytes of a stream.
        payload: Option<CapturedPayload>,
    },
    /// Seal a session of this connection.
    SealSession {
        /// The session.
        session: SessionId,
        /// How it ended.
        outcome: SessionOutcome,
    },
    /// Which of these texts are secrets that the monitor knows? Asked after a probe; the texts are
    /// compared and forgotten.
    Judge {
        /// What a probe found lying about.
        candidates: Vec<String>,
    },
    /// Cosign a checkpoint of the audit log (as in C2SP tlog-witness).
    Cosign(CosignRequest),
    /// Record a file that somebody hands in about an agent. It is SELF_REPORTED, whatever it says.
    Ingest {
        /// The agent.
        agent: AgentId,
        /// What the file is.
        fields: Ingested,
        /// The file.
        payload: CapturedPayload,
    },
    /// This connection is about to end; answered with [`OperatorReply::Left`].
    Leave,
    /// Finish what is under way and stop.
    Shutdown,
    /// Issue a lease that needs no wrapper.
    IssueLease(LeaseOrder),
    /// The leases that were issued so.
    Leases,
    /// End a lease now.
    RevokeLease {
        /// Which.
        lease: LeaseId,
    },
}

/// A lease to be issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseOrder {
    /// Who it is for.
    pub agent: AgentId,
    /// How long it holds, in seconds.
    pub expires_s: u64,
    /// What it may be used for.
    pub limits: LeaseLimits,
}

/// A lease that was issued.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedLease {
    /// Its public id.
    pub lease: LeaseId,
    /// Its token: a secret for the agent alone, kept nowhere.
    pub token: String,
    /// When it ends, nanoseconds since the epoch.
    pub expires_ns: i64,
}

impl std::fmt::Debug for IssuedLease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedLease").field("lease", &self.lease).finish_non_exhaustive()
    }
}

/// A lease, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseSummary {
    /// Its public id.
    pub lease: LeaseId,
    /// Who it is for.
    pub agent: AgentId,
    /// When it ends, nanoseconds since the epoch.
    pub expires_ns: i64,
    /// Whether it was revoked.
    pub revoked: bool,
    /// Whether it has ended by itself.
    pub expired: bool,
    /// What it may be used for.
    pub limits: LeaseLimits,
    /// Its session of this day, where it was used.
    pub session: Option<SessionId>,
}

/// A secret that the monitor knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KnownSecret {
    /// The vault's passphrase.
    Passphrase,
    /// A provider's key.
    ProviderKey,
}

/// A session to be opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRequest {
    /// The agent.
    pub agent: AgentId,
    /// What for.
    pub purpose: SessionPurpose,
    /// What isolation was asked for.
    pub isolation: Isolation,
    /// The command.
    pub argv: Vec<String>,
    /// SHA-256 of the executable.
    pub artifact: Option<Digest>,
}

/// The kinds that the wrapper may submit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcessFields {
    /// The environment that the agent got.
    Environment(EnvironmentBuilt),
    /// A piece of a stream.
    Output(ProcessOutput),
    /// The end of the process.
    Exit(ProcessExit),
    /// What was tried from where the agent runs.
    Probe(BoundaryProbe),
    /// Trace lines that the agent printed.
    Traces(TraceLines),
}

/// A checkpoint to cosign, with the proof that it extends the one cosigned before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CosignRequest {
    /// The signed note.
    pub note: String,
    /// Size of the checkpoint that the witness cosigned last; 0 for none.
    pub old_size: u64,
    /// Consistency proof from `old_size`; empty from 0.
    pub proof: Vec<Digest>,
}

/// What the monitor answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperatorReply {
    /// Both sides speak the same version.
    Welcome,
    /// What runs.
    Status(MonitorStatus),
    /// The session is open and durable.
    SessionOpened(SessionOpened),
    /// The event is durable.
    Recorded {
        /// Its index.
        index: u64,
    },
    /// The session is sealed and durable.
    Sealed(SessionSealed),
    /// Positions of the candidates that are secrets, and what they are.
    Judged(Vec<(u32, KnownSecret)>),
    /// The checkpoint is cosigned: the note with the cosignature added.
    Cosigned {
        /// The note.
        note: String,
    },
    /// The witness has cosigned this size already; ask again with a proof from it.
    CosignConflict {
        /// The size it has.
        size: u64,
    },
    /// Goodbye; whether the monitor stops now because nobody else uses it.
    Left {
        /// It stops.
        stopping: bool,
    },
    /// Done.
    Done,
    /// Understood and not carried out.
    Refused(Refusal),
    /// The lease is issued and durable.
    LeaseIssued(IssuedLease),
    /// The leases, oldest first.
    Leases(Vec<LeaseSummary>),
}

/// A running monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorStatus {
    /// Its process id.
    pub pid: u32,
    /// Events in the log.
    pub events: u64,
    /// Sessions without a seal.
    pub open_sessions: Vec<SessionId>,
    /// Where the gateway listens, when one is connected.
    pub gateway_listen: Option<String>,
    /// Its process id.
    pub gateway_pid: Option<i32>,
    /// Where the egress proxy listens, when there is one.
    pub proxy_listen: Option<String>,
    /// How often the gateway has read its configuration again, and what came of the last time.
    pub gateway_reloads: (u64, Option<GatewayReloaded>),
}

/// A session that is open.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOpened {
    /// The session.
    pub session: SessionId,
    /// Its number.
    pub number: u64,
    /// The lease's token: a secret for the agent alone.
    pub lease_token: String,
}

impl std::fmt::Debug for SessionOpened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionOpened")
            .field("session", &self.session)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// A session that is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionSealed {
    /// The session's events, the seal included.
    pub events: u64,
    /// The checkpoint that covers the seal, signed by the log.
    pub checkpoint: String,
}
