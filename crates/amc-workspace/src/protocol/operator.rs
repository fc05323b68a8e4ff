//! The operator's channel: what `amc` asks of a running monitor, `wrap` above all.

use amc_core::kinds::{
    BoundaryProbe, EnvironmentBuilt, Isolation, ProcessExit, ProcessOutput, SessionOutcome, SessionPurpose,
};
use amc_core::{AgentId, Digest, SessionId};
use serde::{Deserialize, Serialize};

use super::Refusal;
use super::gateway::CapturedPayload;

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
    /// This connection is about to end; answered with [`OperatorReply::Left`].
    Leave,
    /// Finish what is under way and stop.
    Shutdown,
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
