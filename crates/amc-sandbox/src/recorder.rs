//! From the agent's streams to the monitor: pieces are gathered, redacted and recorded in order.
//!
//! A thread of its own talks to the monitor, so copying never waits for a flush until the queue is
//! full. When the monitor stops taking evidence the recorder says so and the agent is ended: what
//! cannot be recorded does not go on. Where the monitor has a session go on in another one, what it
//! was told last is said there, after what the new session needs to stand alone.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use amc_core::SessionId;
use amc_core::kinds::{EnvironmentBuilt, ProcessOutput, Stream};
use amc_workspace::protocol::gateway::{Capture, CapturedPayload};
use amc_workspace::protocol::operator::{OperatorReply, OperatorRequest, ProcessFields};
use amc_workspace::protocol::{Client, ClientError, Refusal};

use crate::probe::Wake;
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
    worker: Option<JoinHandle<(MonitorClient, Result<Recorded, RecorderError>)>>,
}

/// What was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// The session at the end: the first one, or the one that it went on in.
    pub session: SessionId,
    /// Events that the recorder made.
    pub events: u64,
}

/// What a session that goes on with another one needs.
#[derive(Debug, Clone)]
pub struct Continuing {
    /// The agent's environment, which is said again.
    pub environment: EnvironmentBuilt,
    /// Who probes the boundary, at once.
    pub probe: Sender<Wake>,
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
    pub fn start(client: MonitorClient, session: SessionId, secret: &[u8], continuing: Continuing) -> Self {
        let (queue, pieces) = sync_channel(QUEUE);
        let secret = secret.to_vec();
        let worker = thread::spawn(move || {
            let mut worker = Worker { client, session, secret, continuing, streams: BTreeMap::new(), events: 0 };
            let result = worker.run(&pieces).map(|()| Recorded { session: worker.session, events: worker.events });
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

    /// Waits until every piece is durable; gives the connection back and what was recorded.
    ///
    /// # Panics
    /// When the recording thread panicked, which is a mistake of ours.
    pub fn finish(mut self) -> (MonitorClient, Result<Recorded, RecorderError>) {
        // A worker that has stopped already needs no end.
        let _ = self.queue.take().expect("finish is called once").send(Item::End);
        self.worker.take().expect("finish is called once").join().expect("the recorder does not panic")
    }
}

struct Worker {
    client: MonitorClient,
    session: SessionId,
    secret: Vec<u8>,
    continuing: Continuing,
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
                Ok(Item::Event(fields)) => self.say(&fields, None)?,
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
        if len > 0 || !payload.bytes.is_empty() {
            self.output(stream, len, &payload)?;
        }
        traces.into_iter().try_for_each(|lines| self.say(&ProcessFields::Traces(lines), None))
    }

    /// A piece of a stream, whose place counts from the beginning of the session that it is said in.
    fn output(&mut self, stream: Stream, len: u64, payload: &CapturedPayload) -> Result<(), RecorderError> {
        loop {
            let offset = self.streams.get(&stream).map_or(0, |gathered| gathered.offset);
            let output = ProcessFields::Output(ProcessOutput { stream, offset, len });
            if self.is_said_here(&output, Some(payload))? {
                break;
            }
        }
        if let Some(gathered) = self.streams.get_mut(&stream) {
            gathered.offset += len;
        }
        Ok(())
    }

    fn say(&mut self, fields: &ProcessFields, payload: Option<&CapturedPayload>) -> Result<(), RecorderError> {
        while !self.is_said_here(fields, payload)? {}
        Ok(())
    }

    /// Says it in this session; `false` where that goes on in another one, which is this recorder's from then on.
    fn is_said_here(
        &mut self,
        fields: &ProcessFields,
        payload: Option<&CapturedPayload>,
    ) -> Result<bool, RecorderError> {
        match record(&mut self.client, self.session, fields.clone(), payload.cloned()) {
            Ok(()) => {
                self.events += 1;
                Ok(true)
            }
            Err(RecorderError::Refused(Refusal::SessionContinued(next))) => {
                self.session = next;
                self.streams.values_mut().for_each(|gathered| gathered.offset = 0);
                let environment = ProcessFields::Environment(self.continuing.environment.clone());
                record(&mut self.client, next, environment, None)?;
                self.events += 1;
                // Nobody probes any more when the agent has ended.
                let _ = self.continuing.probe.send(Wake::Now);
                Ok(false)
            }
            Err(error) => Err(error),
        }
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::sync::mpsc::channel;

    use amc_workspace::protocol::{Frame, read_frame, write_frame};

    use super::*;

    const FIRST: SessionId = SessionId([1; 16]);
    const SECOND: SessionId = SessionId([2; 16]);

    /// A monitor that has the first session go on in the second at the second thing that is said in it; gives what it
    /// took.
    fn monitor(listener: UnixListener) -> JoinHandle<Vec<(SessionId, ProcessFields)>> {
        thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a connection");
            let mut writer = stream.try_clone().expect("a handle");
            let mut reader = std::io::BufReader::new(stream);
            let mut taken = Vec::new();
            while let Ok(Some(Frame { id, body })) = read_frame::<OperatorRequest>(&mut reader) {
                let OperatorRequest::Record { session, fields, .. } = body else { panic!("{body:?}") };
                let body = if session == FIRST && taken.len() == 1 {
                    OperatorReply::Refused(Refusal::SessionContinued(SECOND))
                } else {
                    taken.push((session, fields));
                    OperatorReply::Recorded { index: 0 }
                };
                write_frame(&mut writer, &Frame { id, body }).expect("the other side listens");
            }
            taken
        })
    }

    #[test]
    fn what_a_continued_session_refuses_is_said_in_the_next_with_all_that_it_needs() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let socket = dir.path().join("socket");
        let monitor = monitor(UnixListener::bind(&socket).expect("a socket"));
        let environment =
            EnvironmentBuilt { passed: vec!["PATH".to_owned()], set: Vec::new(), withheld: 0, secrets_withheld: false };
        let (probe, woken) = channel();
        let client = MonitorClient::connect(&socket).expect("it listens");
        let continuing = Continuing { environment: environment.clone(), probe };
        let recorder = Recorder::start(client, FIRST, b"amc-lease-of-a-test", continuing);
        let tap = recorder.tap();
        // Whole pieces are said at once, so the order is this one.
        let piece = vec![b'x'; PIECE_BYTES];
        assert!((0..3).all(|_| tap.piece(Stream::Stdout, &piece)));
        let (client, recorded) = recorder.finish();
        assert_eq!(recorded.expect("all is recorded"), Recorded { session: SECOND, events: 4 });
        drop(client);
        let offset =
            |offset| ProcessFields::Output(ProcessOutput { stream: Stream::Stdout, offset, len: PIECE_BYTES as u64 });
        let wanted = [
            (FIRST, offset(0)),
            (SECOND, ProcessFields::Environment(environment)),
            (SECOND, offset(0)),
            (SECOND, offset(PIECE_BYTES as u64)),
        ];
        assert_eq!(monitor.join().expect("no panic"), wanted);
        assert_eq!(woken.try_iter().collect::<Vec<_>>(), [Wake::Now], "a new session is probed at once");
    }
}
