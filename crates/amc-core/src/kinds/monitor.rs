//! Kinds 100 to 199: what the monitor observes of sessions, processes and configuration.

use serde::{Deserialize, Serialize};

use crate::{Digest, LeaseId, SessionId};

/// What a session is for; only `agent` sessions are scored as the agent's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionPurpose {
    /// The agent doing its work.
    Agent,
    /// A test suite run under the monitor.
    Test,
    /// An assurance drill.
    Drill,
}

/// How the monitor hears of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionChannel {
    /// `amc wrap` started the agent and captures its streams.
    Wrapper,
    /// Only a lease: the agent was started by somebody else.
    Lease,
}

/// The isolation that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// The agent runs as the operator's own user.
    None,
    /// The agent runs as another user.
    User(String),
    /// The agent runs in namespaces of its own.
    Namespaces,
}

impl std::fmt::Display for Isolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Isolation::None => f.write_str("none"),
            Isolation::User(name) => write!(f, "user:{name}"),
            Isolation::Namespaces => f.write_str("namespaces"),
        }
    }
}

/// The agent's previous `session_open`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionLink {
    /// Its number.
    pub number: u64,
    /// Its event_hash.
    pub event_hash: Digest,
    /// Its index in the log.
    pub index: u64,
}

/// A session begins. `session_seq` of this event is 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOpen {
    /// The agent's session number: contiguous per agent, from 1.
    pub number: u64,
    /// What it is for.
    pub purpose: SessionPurpose,
    /// How it is observed.
    pub channel: SessionChannel,
    /// What isolation was asked for.
    pub isolation: Isolation,
    /// The command, each entry cut to a bound.
    pub argv: Vec<String>,
    /// SHA-256 of the executable or image, where it could be read.
    pub artifact: Option<Digest>,
    /// The lease that the session's calls use.
    pub lease: Option<LeaseId>,
    /// The session before this one of the same agent.
    pub previous: Option<SessionLink>,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionOutcome {
    /// In the ordinary way, whatever the agent's exit status.
    Sealed,
    /// The wrapper went away.
    Interrupted,
    /// The monitor went away; sealed when the log was opened again.
    Recovered,
}

/// A session ends; nothing of it comes after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionSeal {
    /// Number of the session's events, from the open to the last before this one.
    pub events: u64,
    /// Index of the open.
    pub first_index: u64,
    /// Index of the last event before this one.
    pub last_index: u64,
    /// RFC 6962 root over those events' hashes.
    pub root: Digest,
    /// How it ended.
    pub outcome: SessionOutcome,
}

/// What the monitor knows of an agent, so that nobody can leave sessions out: appended at every
/// seal and hourly. The envelope names the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentHead {
    /// The newest session's number; 0 before the first.
    pub last_number: u64,
    /// The event_hash of its open; zeros before the first.
    pub last_open_hash: Digest,
    /// Sessions still open, ascending.
    pub open_sessions: Vec<SessionId>,
}

/// What this session is about goes on in another one: nothing begins here any more, and no process
/// ends here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionContinued {
    /// The session in which it goes on, of the same agent and the same lease.
    pub next: SessionId,
}

/// This session goes on with what another one began; it stands directly after the opening.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionContinues {
    /// The session before, which a [`SessionContinued`] ends.
    pub previous: SessionId,
}

/// One of the agent's standard streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// What the agent read.
    Stdin,
    /// What it printed.
    Stdout,
    /// What it printed as errors.
    Stderr,
}

/// A piece of a stream; the bytes are the payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessOutput {
    /// Which stream.
    pub stream: Stream,
    /// Bytes of this stream before this piece.
    pub offset: u64,
    /// Bytes in this piece.
    pub len: u64,
}

/// The agent's process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessExit {
    /// The exit status, where it exited by itself.
    pub code: Option<i32>,
    /// The signal, where one ended it.
    pub signal: Option<i32>,
    /// From start to end, in milliseconds.
    pub duration_ms: u64,
}

/// The environment that the agent got, by name; values are never recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentBuilt {
    /// Names passed on from the operator's environment, ascending.
    pub passed: Vec<String>,
    /// Names set by AMC, ascending.
    pub set: Vec<String>,
    /// How many of the operator's variables were withheld.
    pub withheld: u32,
    /// Whether a withheld variable had the shape of a provider key or a passphrase.
    pub secrets_withheld: bool,
}

/// The state of a signature beside a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigState {
    /// Signed by the pinned auditor for this path and version.
    Signed,
    /// No signature.
    Unsigned,
    /// A signature is there and does not hold.
    Invalid,
}

/// A trusted process loaded a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigLoaded {
    /// Workspace-relative path, such as `gateway.yaml`.
    pub path: String,
    /// The version that the signature names, where it holds.
    pub version: Option<u64>,
    /// SHA-256 of the file.
    pub sha256: Digest,
    /// What its signature is worth.
    pub state: ConfigState,
}

/// A lease was issued; its token is known only to the agent, its hash to the monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseIssued {
    /// The lease's public id.
    pub lease: LeaseId,
    /// SHA-256 of the token.
    pub token_sha256: Digest,
    /// When it ends, nanoseconds since the epoch; `None`: with its session.
    pub expires_ns: Option<i64>,
}

/// A lease no longer counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRevoked {
    /// Which.
    pub lease: LeaseId,
}

/// The monitor began to listen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorStarted {
    /// The release that runs.
    pub software: String,
}

/// The monitor stopped in the ordinary way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorStopped {
    /// Events appended since it started, this one not counted.
    pub events: u64,
}

/// When a boundary probe ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbePhase {
    /// Before the agent of the session was started.
    Before,
    /// While it ran.
    During,
}

/// What a probe tried to get at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeTarget {
    /// Read the vault.
    Vault,
    /// Read a log or a configuration of the home.
    HomeRead,
    /// Write a log.
    LogWrite,
    /// Replace a signed configuration, the trust policy or an entry of the home.
    HomeWrite,
    /// Speak on the monitor's sockets.
    SigningSocket,
    /// Signal, trace or read the memory of a trusted process, or take its descriptors.
    TrustedProcess,
    /// Find the vault's passphrase.
    Passphrase,
    /// Find a provider's key.
    ProviderKey,
    /// Use a descriptor that was left open.
    Descriptor,
    /// Become another user: sudo and programs that change the user.
    Privilege,
    /// Speak to a container engine, which can do anything.
    ContainerEngine,
    /// Speak to the session bus, which can start programs outside.
    SessionBus,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeOutcome {
    /// The agent's side got it.
    Reached,
    /// The same attempt works on the trusted side and was refused on the agent's.
    Denied,
    /// There is nothing to get on this machine.
    Absent,
    /// The attempt says nothing: its control failed too, or it broke.
    Inconclusive,
}

/// One attempt of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeAttempt {
    /// What it tried to get at.
    pub target: ProbeTarget,
    /// How and where: `open vault.amcvault`, `ptrace amc-monitor`.
    pub subject: String,
    /// How it ended.
    pub outcome: ProbeOutcome,
}

/// What was tried from where the agent of the session runs, as it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundaryProbe {
    /// When.
    pub phase: ProbePhase,
    /// The isolation in force.
    pub isolation: Isolation,
    /// Every attempt.
    pub attempts: Vec<ProbeAttempt>,
}

/// What `security.trustBoundaryMode` of `amc.yaml` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoundaryMode {
    /// The agent may share a user with the trusted processes: every run is INVALID by declaration.
    Shared,
    /// The agent cannot reach what is trusted. The claim alone proves nothing.
    Isolated,
}

/// What the operator's configuration declared about the trust boundary when the session opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundaryDeclared {
    /// The declaration.
    pub mode: BoundaryMode,
}

/// What a lease may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseScope {
    /// Model calls.
    Llm,
    /// The egress proxy.
    Egress,
}

/// What a lease that was issued by hand may be used for; it stands directly before its
/// `lease_issued`. The envelope names the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseTerms {
    /// The lease's public id.
    pub lease: LeaseId,
    /// What for, ascending.
    pub scopes: Vec<LeaseScope>,
    /// Providers that may be called; empty: all.
    pub providers: Vec<String>,
    /// Models that may be asked for; empty: all.
    pub models: Vec<String>,
    /// Where the egress proxy may go beyond what the configuration allows, `host:port`.
    pub allow: Vec<String>,
    /// Requests per minute; 0: any number.
    pub requests_per_minute: u32,
    /// Calls at the same time; 0: any number.
    pub concurrency: u32,
}
