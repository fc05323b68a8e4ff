//! From the agent's streams to the monitor: pieces are gathered, redacted and recorded in order.
//!
//! A thread of its own talks to the monitor, so copying never waits for a flush until the queue is
//! full. When the monitor stops taking evidence the recorder says so and the agent is ended: what
//! cannot be recorded does not go on.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use amc_core::SessionId;
use amc_core::kinds::{ProcessOutput, Stream};
use amc_workspace::protocol::gateway::{Capture, CapturedPayload};
use amc_workspace::protocol::operator::{OperatorReply, OperatorRequest, ProcessFields};
use amc_workspace::protocol::{Client, ClientError, Refusal};

use crate::redact::Redactor;
use crate::traces::Scanner;

/// Gathered bytes that make an event at once.
const PIECE_BYTES: usize = 64 * 1024;
/// Gathered bytes wait no longer than this for more.
const GATHER: Duration = Duration::from_millis(200);
/// Pieces under way before copying waits: with pipes of 64 KiB at most 4 MiB.
const QUEUE: usize = 64;

/// The connection to the monitor's operator socket.
pub type MonitorClient = Client<OperatorRequest, OperatorReply>;

/// Evidence that could not be recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecorderError {
    /// The connection broke.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The monitor refused.
    #[error("the monitor refused evidence: {0}")]
    Refused(#[from] Refusal),
    /// The monitor answered something else.
    #[error("the monitor gave an unexpected answer")]
    Unexpected,
}

/// Records a session's streams.
pub struct Recorder {
    queue: Option<SyncSender<Item>>,
    worker: Option<JoinHandle<(MonitorClient, Result<u64, RecorderError>)>>,
}

/// What waits to be recorded.
enum Item {
    Piece(Stream, Vec<u8>),
    Event(Box<ProcessFields>),
    /// What comes after this is too late: something that the agent left behind may hold its streams.
    End,
}

/// A sender for one thread.
#[derive(Clone)]
pub struct Tap(SyncSender<Item>);

impl Tap {
    /// Hands a piece over; `false` when nothing is recorded any more.
    pub fn piece(&self, stream: Stream, bytes: &[u8]) -> bool {
        self.0.send(Item::Piece(stream, bytes.to_vec())).is_ok()
    }

    /// Hands an event of the session over; `false` when nothing is recorded any more.
    pub fn event(&self, fields: ProcessFields) -> bool {
        self.0.send(Item::Event(Box::new(fields))).is_ok()
    }
}

impl Recorder {
    /// Starts recording over `client`; `secret` never reaches the stored bytes.
    pub fn start(client: MonitorClient, session: SessionId, secret: &[u8]) -> Self {
        let (queue, pieces) = sync_channel(QUEUE);
        let secret = secret.to_vec();
        let worker = thread::spawn(move || {
            let mut worker = Worker { client, session, secret, streams: BTreeMap::new(), events: 0 };
            let result = worker.run(&pieces).map(|()| worker.events);
            (worker.client, result)
        });
        Recorder { queue: Some(queue), worker: Some(worker) }
    }

    /// A sender for a copying thread.
    ///
    /// # Panics
    /// After [`Recorder::finish`].
    pub fn tap(&self) -> Tap {
        Tap(self.queue.clone().expect("taps are made before the end"))
    }

    /// Waits until every piece is durable; gives the connection back and the number of events.
    ///
    /// # Panics
    /// When the recording thread panicked, which is a mistake of ours.
    pub fn finish(mut self) -> (MonitorClient, Result<u64, RecorderError>) {
        // A worker that has stopped already needs no end.
        let _ = self.queue.take().expect("finish is called once").send(Item::End);
        self.worker.take().expect("finish is called once").join().expect("the recorder does not panic")
    }
}

struct Worker {
    client: MonitorClient,
    session: SessionId,
    secret: Vec<u8>,
    streams: BTreeMap<Stream, Gathered>,
    events: u64,
}

struct Gathered {
    bytes: Vec<u8>,
    offset: u64,
    since: Instant,
    redactor: Redactor,
    traces: Scanner,
}

impl Worker {
    fn run(&mut self, pieces: &Receiver<Item>) -> Result<(), RecorderError> {
        loop {
            match pieces.recv_timeout(GATHER) {
                Ok(Item::Piece(stream, bytes)) => self.gather(stream, &bytes)?,
                Ok(Item::Event(fields)) => {
                    record(&mut self.client, self.session, *fields, None)?;
                    self.events += 1;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Item::End) | Err(RecvTimeoutError::Disconnected) => break,
            }
            for stream in self.due() {
                self.record(stream, false)?;
            }
        }
        let streams: Vec<Stream> = self.streams.keys().copied().collect();
        streams.into_iter().try_for_each(|stream| self.record(stream, true))
    }

    fn gather(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), RecorderError> {
        let secret = &self.secret;
        let gathered = self.streams.entry(stream).or_insert_with(|| Gathered {
            bytes: Vec::new(),
            offset: 0,
            since: Instant::now(),
            redactor: Redactor::new(secret),
            traces: Scanner::new(stream, secret),
        });
        if gathered.bytes.is_empty() {
            gathered.since = Instant::now();
        }
        gathered.bytes.extend_from_slice(bytes);
        if gathered.bytes.len() >= PIECE_BYTES { self.record(stream, false) } else { Ok(()) }
    }

    fn due(&self) -> Vec<Stream> {
        let is_due = |gathered: &Gathered| !gathered.bytes.is_empty() && gathered.since.elapsed() >= GATHER;
        self.streams.iter().filter(|(_, gathered)| is_due(gathered)).map(|(stream, _)| *stream).collect()
    }

    fn record(&mut self, stream: Stream, last: bool) -> Result<(), RecorderError> {
        let Some(gathered) = self.streams.get_mut(&stream) else { return Ok(()) };
        let wire = std::mem::take(&mut gathered.bytes);
        let (mut stored, replaced) = gathered.redactor.push(&wire);
        if last {
            stored.extend(gathered.redactor.finish());
        }
        let mut traces = if stream == Stream::Stdin { Vec::new() } else { gathered.traces.push(&wire) };
        if last && stream != Stream::Stdin {
            traces.extend(gathered.traces.finish());
        }
        if wire.is_empty() && stored.is_empty() && traces.is_empty() {
            return Ok(());
        }
        let len = wire.len() as u64;
        let capture = if !replaced && stored == wire { Capture::Full } else { Capture::Redacted("lease".to_owned()) };
        let payload = CapturedPayload {
            wire_sha256: amc_crypto::sha256(&wire),
            wire_len: len,
            media_type: "application/octet-stream".to_owned(),
            capture,
            bytes: stored,
        };
        let output = ProcessOutput { stream, offset: gathered.offset, len };
        gathered.offset += len;
        if len > 0 || !payload.bytes.is_empty() {
            record(&mut self.client, self.session, ProcessFields::Output(output), Some(payload))?;
            self.events += 1;
        }
        for lines in traces {
            record(&mut self.client, self.session, ProcessFields::Traces(lines), None)?;
            self.events += 1;
        }
        Ok(())
    }
}

/// Records one event of the session and waits until it is durable.
///
/// # Errors
/// [`RecorderError`] when the monitor does not take it.
pub fn record(
    client: &mut MonitorClient,
    session: SessionId,
    fields: ProcessFields,
    payload: Option<CapturedPayload>,
) -> Result<(), RecorderError> {
    match client.call(OperatorRequest::Record { session, fields, payload })? {
        OperatorReply::Recorded { .. } => Ok(()),
        OperatorReply::Refused(refusal) => Err(refusal.into()),
        _ => Err(RecorderError::Unexpected),
    }
}
