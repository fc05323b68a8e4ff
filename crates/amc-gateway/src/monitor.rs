//! The async client of the monitor's gateway socket (`amc_workspace::protocol::gateway`).
//!
//! Two connections: evidence waits for flushes, lookups (leases, receipts) never wait behind it.
//! Requests are sent ahead; answers name theirs. Nothing is retried and nothing is kept when a
//! connection ends: a gateway without its monitor may let nothing pass.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use amc_core::kinds::{EgressStarted, GatewayReloaded, GatewayStarted, ProbeAttempt};
use amc_core::{Digest, LeaseId};
use amc_workspace::generation::GenerationReader;
use amc_workspace::protocol::gateway::{
    GatewayEvent, GatewayReply, GatewayRequest, LeaseGrant, ReceiptPair, Recorded, ReportedProbe, Welcome,
};
use amc_workspace::protocol::{Frame, PROTOCOL_VERSION, Refusal, decode_frame, encode_frame, frame_len};
use rustix::fs::{Mode, OFlags};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader, BufWriter};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::GatewayError;
use crate::granted::Granted;

/// A request that brought no answer of the kind it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChannelError {
    /// The connection is closed.
    #[error("the monitor is gone")]
    Closed,
    /// The monitor understood and refused.
    #[error("{0}")]
    Refused(Refusal),
    /// A lookup that took too long; evidence has no such bound, a flush takes what it takes.
    #[error("the monitor does not answer")]
    Late,
    /// An answer of another kind than the question's.
    #[error("an answer of the wrong kind")]
    Unexpected,
    /// The message is above the protocol's bound.
    #[error("a message is too long")]
    TooLong,
}

/// One pipelined connection.
#[derive(Debug)]
struct Channel {
    queue: mpsc::Sender<Outgoing>,
    next_id: AtomicU64,
    open: watch::Receiver<bool>,
}

struct Outgoing {
    id: u64,
    frame: Vec<u8>,
    pending: Pending,
}

/// Hears that the log has taken an event.
pub(crate) type Accept = Box<dyn FnOnce() + Send>;

/// Who waits for the answer to a request.
struct Pending {
    reply: oneshot::Sender<GatewayReply>,
    accept: Option<Accept>,
}

/// A request that was sent.
#[derive(Debug)]
struct Asked(oneshot::Receiver<GatewayReply>);

impl Asked {
    async fn reply(self) -> Result<GatewayReply, ChannelError> {
        match self.0.await {
            Ok(GatewayReply::Refused(refusal)) => Err(ChannelError::Refused(refusal)),
            Ok(reply) => Ok(reply),
            Err(_) => Err(ChannelError::Closed),
        }
    }
}

/// Evidence that was sent.
#[derive(Debug)]
pub(crate) struct Submitted(Asked);

impl Channel {
    fn new(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        let (queue, outgoing) = mpsc::channel(QUEUE_LEN);
        let (pending, answered) = mpsc::unbounded_channel();
        let (alive, open) = watch::channel(true);
        tokio::spawn(write_requests(writer, outgoing, pending));
        tokio::spawn(async move {
            read_replies(reader, answered).await;
            alive.send_replace(false);
        });
        Channel { queue, next_id: AtomicU64::new(0), open }
    }

    async fn ask(&self, body: GatewayRequest) -> Result<GatewayReply, ChannelError> {
        self.send(body, None).await?.reply().await
    }

    /// Sends a request; the next one goes after it, whoever sends it.
    async fn send(&self, body: GatewayRequest, accept: Option<Accept>) -> Result<Asked, ChannelError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let frame = encode_frame(&Frame { id, body }).map_err(|_| ChannelError::TooLong)?;
        let (reply, answer) = oneshot::channel();
        let pending = Pending { reply, accept };
        self.queue.send(Outgoing { id, frame, pending }).await.map_err(|_| ChannelError::Closed)?;
        Ok(Asked(answer))
    }

    async fn closed(&self) {
        // An error means that the reader is gone altogether, which is closed as well.
        let _ = self.open.clone().wait_for(|open| !open).await;
    }
}

async fn write_requests(
    writer: OwnedWriteHalf,
    mut outgoing: mpsc::Receiver<Outgoing>,
    asked: mpsc::UnboundedSender<(u64, Pending)>,
) {
    let mut writer = BufWriter::with_capacity(64 * 1024, writer);
    while let Some(first) = outgoing.recv().await {
        let mut next = Some(first);
        while let Some(Outgoing { id, frame, pending }) = next {
            // Registered before it is written, so that no answer can come too early. A failure on
            // either side drops `pending`, which tells the asker that the connection is closed.
            if asked.send((id, pending)).is_err() || writer.write_all(&frame).await.is_err() {
                return;
            }
            next = outgoing.try_recv().ok();
        }
        if writer.flush().await.is_err() {
            return;
        }
    }
}

async fn read_replies(reader: OwnedReadHalf, mut asked: mpsc::UnboundedReceiver<(u64, Pending)>) {
    let mut reader = BufReader::new(reader);
    let mut waiting: HashMap<u64, Pending> = HashMap::new();
    let mut asked_before = 0;
    while let Some(Frame { id, body }) = read_reply(&mut reader).await {
        while let Ok((id, pending)) = asked.try_recv() {
            waiting.insert(id, pending);
            asked_before = asked_before.max(id + 1);
        }
        if body == GatewayReply::Accepted && id < asked_before {
            // The answer may have been faster.
            if let Some(accept) = waiting.get_mut(&id).and_then(|pending| pending.accept.take()) {
                accept();
            }
            continue;
        }
        match waiting.remove(&id) {
            // An asker that has left wants no answer.
            Some(pending) => drop(pending.reply.send(body)),
            None => return,
        }
    }
}

async fn read_reply(reader: &mut BufReader<OwnedReadHalf>) -> Option<Frame<GatewayReply>> {
    let mut prefix = [0; 4];
    reader.read_exact(&mut prefix).await.ok()?;
    let mut body = vec![0; frame_len(prefix).ok()?];
    reader.read_exact(&mut body).await.ok()?;
    decode_frame(&body).ok()
}

/// Both connections to the monitor's socket, made before the process gives up the right to make them:
/// the monitor sees who connected, not who speaks later.
#[derive(Debug)]
pub struct Socket {
    evidence: StdUnixStream,
    lookups: StdUnixStream,
    file: OwnedFd,
    /// Opened for the same reason; without it every call is asked for.
    generation: Option<GenerationReader>,
}

impl Socket {
    /// Connects to `run/gateway.sock` of a home.
    ///
    /// # Errors
    /// [`GatewayError::NoMonitor`] when nobody listens there.
    pub fn connect(path: &Path) -> Result<Self, GatewayError> {
        let missing = |source| GatewayError::NoMonitor { path: path.to_owned(), source };
        let file = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let file = file.map_err(|error| missing(error.into()))?;
        let connect = || StdUnixStream::connect(path).map_err(missing);
        let generation = GenerationReader::open(&path.with_extension("generation")).ok();
        Ok(Socket { evidence: connect()?, lookups: connect()?, file, generation })
    }

    /// The socket's file, by which is seen later whether it was taken away; its path may be out of reach
    /// by then.
    pub(crate) fn file(&self) -> io::Result<OwnedFd> {
        self.file.try_clone()
    }
}

/// Whether a file has no name any more.
pub(crate) fn is_removed(file: &OwnedFd) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| stat.st_nlink == 0)
}

/// The monitor, as the gateway sees it.
#[derive(Debug)]
pub(crate) struct Monitor {
    evidence: Channel,
    lookups: Channel,
    taking: AtomicBool,
    granted: Granted,
}

impl Monitor {
    /// Says hello on both connections.
    pub(crate) async fn connect(socket: Socket) -> Result<(Self, Welcome), GatewayError> {
        let granted = Granted::new(socket.generation);
        let (evidence, welcome) = greet(socket.evidence).await?;
        let (lookups, _) = greet(socket.lookups).await?;
        Ok((Monitor { evidence, lookups, taking: AtomicBool::new(true), granted }, welcome))
    }

    /// Reports that the gateway listens.
    pub(crate) async fn started(&self, started: GatewayStarted) -> Result<(), ChannelError> {
        self.report(GatewayRequest::Started(started)).await
    }

    /// Whose lease a token is, by its SHA-256: as the monitor would say it now.
    pub(crate) async fn authorize(&self, token_sha256: Digest) -> Result<LeaseGrant, ChannelError> {
        // Read before asking: what changes in between makes the answer one that is not used again.
        let generation = self.granted.generation().filter(|_| self.is_taking());
        if let Some(grant) = generation.and_then(|generation| self.granted.known(&token_sha256, generation)) {
            return Ok(grant);
        }
        match self.look_up(GatewayRequest::Authorize { token_sha256 }).await? {
            GatewayReply::Lease(grant) => {
                if let Some(generation) = generation {
                    self.granted.note(token_sha256, generation, &grant);
                }
                Ok(grant)
            }
            _ => Err(ChannelError::Unexpected),
        }
    }

    /// Returns when the lease no longer holds, or its session is over: revocation ends what is open, too.
    pub(crate) async fn lease_ends(&self, token: &str) {
        // Most calls are over before the first look, and nothing is hashed for them.
        tokio::time::sleep(LEASE_EVERY).await;
        let token_sha256 = amc_crypto::sha256(token.as_bytes());
        loop {
            let known = self.authorize(token_sha256).await;
            if matches!(known, Err(ChannelError::Refused(Refusal::LeaseInvalid(_)))) {
                return;
            }
            tokio::time::sleep(LEASE_EVERY).await;
        }
    }

    /// Reports that the egress proxy listens.
    pub(crate) async fn egress_started(&self, started: EgressStarted) -> Result<(), ChannelError> {
        self.report(GatewayRequest::EgressStarted(started)).await
    }

    /// Reports what came of reading the configuration again.
    pub(crate) async fn reloaded(&self, reloaded: GatewayReloaded) -> Result<(), ChannelError> {
        self.report(GatewayRequest::Reloaded(reloaded)).await
    }

    async fn report(&self, request: GatewayRequest) -> Result<(), ChannelError> {
        match self.evidence.ask(request).await? {
            GatewayReply::Done | GatewayReply::Recorded(_) => Ok(()),
            _ => Err(ChannelError::Unexpected),
        }
    }

    /// The configuration as it is now, read and judged again.
    pub(crate) async fn welcome(&self) -> Result<Welcome, ChannelError> {
        match self.look_up(GatewayRequest::Hello { protocol: PROTOCOL_VERSION }).await? {
            GatewayReply::Welcome(welcome) => Ok(*welcome),
            _ => Err(ChannelError::Unexpected),
        }
    }

    /// Sends evidence; what is sent later comes after it in the log. A receipt is made where one is asked for.
    /// `accept` hears when the log has taken it.
    pub(crate) async fn submit(
        &self,
        event: GatewayEvent,
        receipt: bool,
        accept: Option<Accept>,
    ) -> Result<Submitted, ChannelError> {
        let request = GatewayRequest::Record { event: Box::new(event), receipt, notice: accept.is_some() };
        self.evidence.send(request, accept).await.map(Submitted)
    }

    /// Sends evidence that nobody waits for a receipt of, and returns when it is durable.
    pub(crate) async fn record(&self, event: GatewayEvent) -> Result<Recorded, ChannelError> {
        let submitted = self.submit(event, false, None).await;
        self.recorded(submitted).await
    }

    /// Returns when what [`Monitor::submit`] gave is durable; whether the log takes evidence is noted here.
    pub(crate) async fn recorded(&self, submitted: Result<Submitted, ChannelError>) -> Result<Recorded, ChannelError> {
        let answer = async {
            match submitted?.0.reply().await? {
                GatewayReply::Recorded(recorded) => Ok(recorded),
                _ => Err(ChannelError::Unexpected),
            }
        };
        let answer = answer.await;
        match &answer {
            Ok(_) => self.taking.store(true, Ordering::Relaxed),
            Err(ChannelError::Refused(Refusal::LogUnavailable(_)) | ChannelError::Closed) => {
                self.taking.store(false, Ordering::Relaxed);
            }
            Err(_) => {}
        }
        answer
    }

    /// The receipts of a call of the lease's agent.
    pub(crate) async fn receipts(&self, lease: LeaseId, request_id: String) -> Result<ReceiptPair, ChannelError> {
        match self.look_up(GatewayRequest::Receipts { lease, request_id }).await? {
            GatewayReply::Receipts(pair) => Ok(pair),
            _ => Err(ChannelError::Unexpected),
        }
    }

    /// What a probe on the agent's side is to try.
    pub(crate) async fn probe_plan(&self, lease: LeaseId) -> Result<(String, Vec<(String, i32)>), ChannelError> {
        match self.look_up(GatewayRequest::ProbePlan { lease }).await? {
            GatewayReply::ProbePlan { home, trusted } => Ok((home, trusted)),
            _ => Err(ChannelError::Unexpected),
        }
    }

    /// Hands over what a probe on the agent's side gave; returns when it is durable.
    pub(crate) async fn probe(&self, probe: ReportedProbe) -> Result<(u64, Vec<ProbeAttempt>), ChannelError> {
        match self.lookups.ask(GatewayRequest::Probe(Box::new(probe))).await? {
            GatewayReply::Probed { index, attempts } => Ok((index, attempts)),
            _ => Err(ChannelError::Unexpected),
        }
    }

    async fn look_up(&self, request: GatewayRequest) -> Result<GatewayReply, ChannelError> {
        let answer = tokio::time::timeout(LOOKUP_MAX, self.lookups.ask(request)).await;
        answer.unwrap_or(Err(ChannelError::Late))
    }

    /// Whether the log took the last evidence that it was given.
    pub(crate) fn is_taking(&self) -> bool {
        self.taking.load(Ordering::Relaxed)
    }

    /// Whether both connections stand.
    pub(crate) fn is_connected(&self) -> bool {
        *self.evidence.open.borrow() && *self.lookups.open.borrow()
    }

    /// Returns when a connection is closed.
    pub(crate) async fn gone(&self) {
        tokio::select! {
            () = self.evidence.closed() => {}
            () = self.lookups.closed() => {}
        }
    }
}

async fn greet(stream: StdUnixStream) -> Result<(Channel, Welcome), GatewayError> {
    let stream = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
    let channel = Channel::new(stream.map_err(GatewayError::Setup)?);
    match channel.ask(GatewayRequest::Hello { protocol: PROTOCOL_VERSION }).await? {
        GatewayReply::Welcome(welcome) => Ok((channel, *welcome)),
        _ => Err(ChannelError::Unexpected.into()),
    }
}

/// How soon a revocation ends what is open.
const LEASE_EVERY: Duration = Duration::from_secs(1);

/// A lookup reads memory; a monitor that takes longer hangs.
const LOOKUP_MAX: Duration = Duration::from_secs(10);

/// Messages that wait to be written; each may carry a stored payload of a megabyte.
const QUEUE_LEN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(id: u64, body: GatewayReply) -> Vec<u8> {
        encode_frame(&Frame { id, body }).expect("it is short")
    }

    /// Reads one request, then writes.
    async fn answer(stream: &mut UnixStream, bytes: &[u8]) {
        let mut prefix = [0; 4];
        stream.read_exact(&mut prefix).await.expect("a request");
        let mut body = vec![0; frame_len(prefix).expect("it is short")];
        stream.read_exact(&mut body).await.expect("a request");
        stream.write_all(bytes).await.expect("it reads");
    }

    #[tokio::test]
    async fn a_notice_may_come_after_its_answer_and_none_of_what_was_never_asked() {
        let (ours, mut theirs) = UnixStream::pair().expect("two ends");
        let channel = Channel::new(ours);
        let hello = || GatewayRequest::Hello { protocol: PROTOCOL_VERSION };
        let late = [reply(0, GatewayReply::Done), reply(0, GatewayReply::Accepted)].concat();
        let accept: Accept = Box::new(|| panic!("nobody waits for it any more"));
        let asked = async { channel.send(hello(), Some(accept)).await?.reply().await };
        let (first, ()) = tokio::join!(asked, answer(&mut theirs, &late));
        assert_eq!(first, Ok(GatewayReply::Done));
        let done = reply(1, GatewayReply::Done);
        let (next, ()) = tokio::join!(channel.ask(hello()), answer(&mut theirs, &done));
        assert_eq!(next, Ok(GatewayReply::Done), "the connection goes on");
        theirs.write_all(&reply(9, GatewayReply::Accepted)).await.expect("writes");
        tokio::time::timeout(Duration::from_secs(20), channel.closed()).await.expect("it ends");
        assert_eq!(channel.ask(hello()).await, Err(ChannelError::Closed));
    }
}
