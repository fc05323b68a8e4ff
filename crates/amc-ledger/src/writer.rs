//! The one writer of a log: producers hand over events, one thread stages and flushes them in
//! groups, another publishes what is durable.
//!
//! ```text
//! producers ──queue──► commit thread ──durable──► replies
//!                            └──tiles, checkpoint──► publisher ──► index
//! ```

use std::collections::VecDeque;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

use amc_core::kinds::{Fields, KeyPurpose, KeyRotated, LogOpened, kind_name};
use amc_core::{AgentId, Clock, Digest, Instant, RequestId, SessionId};
use amc_crypto::Note;
use amc_crypto::signer::{CheckpointSigner, EventSigner};
use amc_evidence::{Content, Draft, Event, LogState, SignedEvent};

use crate::engine::{Engine, Hands, Live, look};
use crate::error::{AppendError, IndexError, OpenError};
use crate::index::{Feeder, Recent};
use crate::payload::{Packed, pack};
use crate::publish::Publisher;
use crate::recovery;
use crate::storage::{Files, Lock};

/// Events waiting for the commit thread; beyond this, producers wait.
const QUEUE_EVENTS_MAX: usize = 4096;
/// Bytes of payloads waiting with them; beyond this, producers wait.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Bytes of events and payloads in one flush; what is beyond goes with the next one.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// The keys of the role that writes the log.
#[derive(Clone)]
pub struct Signers {
    /// Signs events.
    pub event: Arc<dyn EventSigner>,
    /// Signs checkpoints.
    pub checkpoint: Arc<dyn CheckpointSigner>,
}

/// Creates a log in `dir` with its first event and first checkpoint, durable when this returns.
///
/// # Errors
/// [`OpenError::Exists`] when there is a log already; otherwise what failed.
pub fn create(dir: &Path, opened: LogOpened, signers: &Signers, clock: &dyn Clock) -> Result<Note, OpenError> {
    let clock = Arc::new(Reading(clock.now()));
    recovery::create(&Files::on_disk(dir), opened, Hands { signers: signers.clone(), clock })
}

/// The one reading of the clock that a new log needs.
struct Reading(Instant);

impl Clock for Reading {
    fn now(&self) -> Instant {
        self.0
    }
}

/// What opening had to mend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Bytes of an unfinished flush that were cut.
    pub bytes_cut: u64,
    /// Sessions that were left open and are sealed as recovered now.
    pub sessions: Vec<SessionId>,
}

/// An event that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Its index in the log.
    pub index: u64,
    /// Its event_hash.
    pub hash: Digest,
    /// The event.
    pub event: Event,
    /// Its fields.
    pub fields: Fields,
    /// Body and signature as they were stored.
    pub signed: SignedEvent,
}

/// An event on its way to the disk.
#[must_use = "an event is durable only when `wait` returned it"]
pub struct Pending {
    reply: Receiver<Result<Appended, AppendError>>,
}

impl Pending {
    /// Waits for the flush that makes the event durable.
    ///
    /// # Errors
    /// [`AppendError`] when it is not recorded.
    pub fn wait(self) -> Result<Appended, AppendError> {
        self.reply.recv().unwrap_or(Err(AppendError::Closed))
    }
}

/// Where a request's event stands: known as soon as it is staged, before it is durable.
#[derive(Debug, Clone, Default)]
pub struct RequestPlace(Arc<OnceLock<u64>>);

/// What an event is in a call, whose events may be handed over before any of them has an index.
#[derive(Debug, Clone)]
pub enum CallPart {
    /// It names no other event.
    Apart,
    /// The request: its index is noted.
    Request(RequestPlace),
    /// It names the request, which was handed over before: its `request_index` is filled in.
    OfRequest(RequestPlace),
}

impl CallPart {
    /// Fills in what is known by now.
    fn complete(&self, content: &mut Content) -> Result<(), AppendError> {
        let CallPart::OfRequest(RequestPlace(place)) = self else { return Ok(()) };
        let index = *place.get().ok_or(AppendError::NoRequest)?;
        match content {
            Content::Fields(Fields::LlmResponse(answer)) => answer.request_index = index,
            Content::Fields(Fields::WebSocketClosed(closed)) => closed.request_index = index,
            _ => {}
        }
        Ok(())
    }

    fn staged(&self, appended: &Appended) {
        if let CallPart::Request(RequestPlace(place)) = self {
            // One place is of one request; a second one would not change it.
            place.get_or_init(|| appended.index);
        }
    }
}

/// The one writer of a log. Producers share it by reference; each append waits for its flush.
pub struct Writer {
    shared: Arc<Shared>,
    live: Live,
    publisher: Arc<Publisher>,
    index: Option<Feeder>,
    commit: Option<JoinHandle<()>>,
    recovery: Recovery,
    _lock: Box<dyn Lock>,
}

/// What producers and the commit thread share.
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    on_stop: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Packed payload bytes of the jobs.
    bytes: usize,
    recent: Recent,
    closed: bool,
    stopped: Option<String>,
    note: Option<Note>,
    /// The commit thread waits for jobs.
    idle: bool,
}

/// Hears what came of a job, on the commit thread.
type Then = Box<dyn FnOnce(Result<Appended, AppendError>) + Send>;

/// The answer that is owed for a job that was taken. One that is dropped, by a thread that panics, is given too.
struct Reply(Option<Then>);

impl Reply {
    fn give(mut self, appended: Result<Appended, AppendError>) {
        if let Some(then) = self.0.take() {
            then(appended);
        }
    }

    fn refuse(self, why: &str) {
        self.give(Err(AppendError::Stopped(why.to_owned())));
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(then) = self.0.take() {
            then(Err(AppendError::Closed));
        }
    }
}

/// An answer that is waited for, and where it is waited for.
fn awaited() -> (Then, Pending) {
    let (then, reply) = channel();
    // A producer that went away does not want to know.
    (Box::new(move |appended| drop(then.send(appended))), Pending { reply })
}

struct Job {
    task: Task,
    reply: Reply,
}

enum Task {
    Append(Box<Draft>, Option<Packed>, CallPart),
    Rotate(Signers),
}

impl Task {
    fn append(draft: Draft, payload: Option<Vec<u8>>, part: CallPart) -> Result<Self, AppendError> {
        refuse_reserved(&draft.content)?;
        let packed = pack(draft.payload.as_ref(), payload)?;
        Ok(Task::Append(Box::new(draft), packed, part))
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the writer: whoever waits or comes later hears why.
    fn stop(&self, why: &str) {
        let mut queue = self.queue();
        queue.stopped.get_or_insert_with(|| why.to_owned());
        for job in std::mem::take(&mut queue.jobs) {
            job.reply.refuse(why);
        }
        self.changed.notify_all();
        drop(queue);
        if let Some(on_stop) = self.on_stop.get() {
            on_stop();
        }
    }
}

impl Queue {
    fn is_full(&self) -> bool {
        self.jobs.len() >= QUEUE_EVENTS_MAX || self.bytes >= QUEUE_BYTES_MAX
    }

    fn is_open(&self) -> Result<(), AppendError> {
        match &self.stopped {
            Some(why) => Err(AppendError::Stopped(why.clone())),
            None if self.closed => Err(AppendError::Closed),
            None => Ok(()),
        }
    }
}

impl Writer {
    /// Opens the log in `dir` for writing: takes the lock, cuts an unfinished flush, seals the
    /// sessions that were left open. What it mended is in [`Writer::recovery`].
    ///
    /// # Errors
    /// [`OpenError::Refused`] with the finding when the log is not what its checkpoints say.
    pub fn open(dir: &Path, signers: Signers, clock: Arc<dyn Clock>) -> Result<Writer, OpenError> {
        let files = Files::on_disk(dir);
        if files.names("segments")?.is_empty() {
            return Err(OpenError::Absent(dir.to_owned()));
        }
        Self::start(&files, Hands { signers, clock }, Some(dir))
    }

    /// Opens a log on any storage; the index only where there is a real directory.
    pub(crate) fn start(files: &Files, hands: Hands, index: Option<&Path>) -> Result<Writer, OpenError> {
        let lock = recovery::lock(files)?;
        let (engine, recovery) = recovery::open(files, hands)?;
        let note = engine.note().clone();
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue { note: Some(note.clone()), ..Queue::default() }),
            changed: Condvar::new(),
            on_stop: OnceLock::new(),
        });
        let index = index.map(Feeder::start).transpose().map_err(OpenError::Thread)?;
        let stopper = Arc::clone(&shared);
        let on_failure = Box::new(move |why: &str| stopper.stop(why));
        let feed = index.as_ref().map(Feeder::bell);
        let publisher = Publisher::start(files, engine.size(), note, on_failure, feed).map_err(OpenError::Thread)?;
        let live = Arc::clone(engine.live());
        let worker = Committer { shared: Arc::clone(&shared), publisher: Arc::clone(&publisher), engine };
        let commit = std::thread::Builder::new().name("amc-ledger-commit".into()).spawn(move || worker.run());
        let commit = Some(commit.map_err(OpenError::Thread)?);
        Ok(Writer { shared, live, publisher, index, commit, recovery, _lock: lock })
    }

    /// What opening had to mend.
    pub const fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Hands over an event, with its payload's stored bytes where the draft has a payload that
    /// keeps any. A seal is followed by the agent's head in the same flush; a clock step or
    /// rollback is recorded before it. Order is the order of calls.
    ///
    /// # Errors
    /// [`AppendError`] when it was not taken; what is known only later comes from [`Pending::wait`].
    pub fn submit(&self, draft: Draft, payload: Option<Vec<u8>>) -> Result<Pending, AppendError> {
        let (then, pending) = awaited();
        self.hand_over(Task::append(draft, payload, CallPart::Apart)?, then)?;
        Ok(pending)
    }

    /// As [`Writer::submit`], for a producer that waits for many at once, events of calls among them: `then` is called
    /// with what [`Pending::wait`] would return: in the log's order where the event is recorded, at once where it is
    /// refused. It holds up every other append, so it hands over and returns. It is called exactly once.
    ///
    /// # Errors
    /// [`AppendError`] when the event was not taken, and then `then` is not called.
    pub fn submit_then(
        &self,
        draft: Draft,
        payload: Option<Vec<u8>>,
        part: CallPart,
        then: impl FnOnce(Result<Appended, AppendError>) + Send + 'static,
    ) -> Result<(), AppendError> {
        self.hand_over(Task::append(draft, payload, part)?, Box::new(then))
    }

    fn hand_over(&self, task: Task, then: Then) -> Result<(), AppendError> {
        let mut queue = self.shared.queue();
        while queue.is_full() && queue.is_open().is_ok() {
            queue = self.shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.is_open()?;
        if let Task::Append(_, Some(packed), _) = &task {
            queue.bytes += packed.bytes();
        }
        queue.jobs.push_back(Job { task, reply: Reply(Some(then)) });
        if queue.idle {
            self.shared.changed.notify_all();
        }
        Ok(())
    }

    /// Appends an event and waits until it is durable.
    ///
    /// # Errors
    /// [`AppendError`] when it is not recorded.
    pub fn append(&self, draft: Draft, payload: Option<Vec<u8>>) -> Result<Appended, AppendError> {
        self.submit(draft, payload)?.wait()
    }

    /// Changes the log's key: the old one signs the event that names the next one, which signs
    /// everything after it. Whoever pins the old key finds the next one in the log. Keep the old
    /// key until this has returned.
    ///
    /// # Errors
    /// [`AppendError::Sign`] when the next key is none of this log; then the old one goes on.
    pub fn rotate(&self, next: Signers) -> Result<Appended, AppendError> {
        let (then, pending) = awaited();
        self.hand_over(Task::Rotate(next), then)?;
        pending.wait()
    }

    /// Whether events are taken now; after a failed flush none is ever again.
    ///
    /// # Errors
    /// [`AppendError`], as the next append would have it.
    pub fn is_taking(&self) -> Result<(), AppendError> {
        self.shared.queue().is_open()
    }

    /// Has somebody called when a failure ends the taking of events; the first one that asks for it.
    pub fn on_stop(&self, call: impl Fn() + Send + Sync + 'static) {
        self.shared.on_stop.get_or_init(|| Box::new(call));
    }

    /// Looks at the log's state: size, sessions, agents. It may include events of the flush under
    /// way.
    pub fn with_state<T>(&self, view: impl FnOnce(&LogState) -> T) -> T {
        view(&look(&self.live).state)
    }

    /// The newest durable checkpoint, signed by the log.
    pub fn checkpoint(&self) -> Note {
        self.shared.queue().note.clone().expect("a log has a checkpoint from its first event on")
    }

    /// Publishes the newest durable checkpoint in the `checkpoint` file and returns what stands
    /// there: readers beside this writer see every append that returned before.
    ///
    /// # Errors
    /// [`AppendError`] when the writer has stopped.
    pub fn publish(&self) -> Result<Note, AppendError> {
        self.shared.queue().is_open()?;
        self.publisher.wait().map_err(AppendError::Stopped)
    }

    /// Indices of the events with this request id, ascending: those that the index knows, and the
    /// newest ones, which it may not know yet.
    ///
    /// # Errors
    /// [`IndexError`] when there is no index and the request is not a recent one.
    pub fn lookup_request(&self, request: &RequestId) -> Result<Vec<u64>, IndexError> {
        let recent = self.shared.queue().recent.request(request.as_str()).to_vec();
        let mut indices = match self.index().and_then(|index| index.request(request.as_str())) {
            Err(_) if !recent.is_empty() => Vec::new(),
            indexed => indexed?,
        };
        indices.extend(recent);
        indices.sort_unstable();
        indices.dedup();
        Ok(indices)
    }

    /// Indices of the events of a session, ascending, as far as the index has come.
    ///
    /// # Errors
    /// [`IndexError`] when there is no index.
    pub fn lookup_session(&self, session: SessionId) -> Result<Vec<u64>, IndexError> {
        self.index()?.session(session)
    }

    /// Indices of the events of an agent in a span of wall time (nanoseconds since the epoch;
    /// `from_ns` counts, `until_ns` does not), by time, as far as the index has come.
    ///
    /// # Errors
    /// [`IndexError`] when there is no index.
    pub fn lookup_agent(&self, agent: &AgentId, from_ns: i64, until_ns: i64) -> Result<Vec<u64>, IndexError> {
        self.index()?.agent(agent, from_ns, until_ns)
    }

    /// Index of the event with this event_hash, as far as the index has come.
    ///
    /// # Errors
    /// [`IndexError`] when there is no index.
    pub fn lookup_hash(&self, hash: &Digest) -> Result<Option<u64>, IndexError> {
        self.index()?.hash(hash)
    }

    /// Number of events that the index knows.
    ///
    /// # Errors
    /// [`IndexError`] when there is no index.
    pub fn indexed(&self) -> Result<u64, IndexError> {
        self.index()?.indexed()
    }

    fn index(&self) -> Result<Arc<crate::index::Index>, IndexError> {
        let absent = || IndexError::Unavailable("this writer keeps none".into());
        self.index.as_ref().ok_or_else(absent)?.index()
    }

    /// Finishes what was submitted, publishes, and gives up the lock.
    ///
    /// # Errors
    /// [`AppendError`] when the writer had stopped.
    pub fn close(mut self) -> Result<Note, AppendError> {
        self.finish();
        match &self.shared.queue().stopped {
            Some(why) => Err(AppendError::Stopped(why.clone())),
            None => Ok(self.publisher.published()),
        }
    }

    fn finish(&mut self) {
        self.shared.queue().closed = true;
        self.shared.changed.notify_all();
        if let Some(commit) = self.commit.take()
            && commit.join().is_err()
        {
            self.shared.stop("the commit thread ended unexpectedly");
        }
        self.publisher.finish();
        if let Some(index) = self.index.take() {
            index.finish();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Kinds that only the log's own rules may write, since their fields describe the log itself.
fn refuse_reserved(content: &Content) -> Result<(), AppendError> {
    match content {
        Content::Fields(
            fields @ (Fields::LogOpened(_)
            | Fields::LogRecovered(_)
            | Fields::KeyRotated(KeyRotated { purpose: KeyPurpose::Log, .. })
            | Fields::ClockStep(_)
            | Fields::ClockRollback(_)
            | Fields::SessionOpen(_)
            | Fields::SessionSeal(_)
            | Fields::AgentHead(_)),
        ) => Err(AppendError::Reserved(kind_name(fields.kind()).unwrap_or("unknown"))),
        _ => Ok(()),
    }
}

/// The commit thread.
struct Committer {
    shared: Arc<Shared>,
    publisher: Arc<Publisher>,
    engine: Engine,
}

impl Committer {
    fn run(mut self) {
        let _guard = StopOnPanic(Arc::clone(&self.shared));
        while let Some(jobs) = self.take() {
            if let Err(why) = self.commit(jobs) {
                self.shared.stop(&why);
                return;
            }
        }
    }

    /// Everything that waits; `None` when the writer is closed and nothing waits any more.
    fn take(&self) -> Option<VecDeque<Job>> {
        let mut queue = self.shared.queue();
        loop {
            if queue.stopped.is_some() {
                return None;
            }
            if !queue.jobs.is_empty() {
                // Producers wait only where there was no room.
                if queue.is_full() {
                    self.shared.changed.notify_all();
                }
                let jobs = std::mem::take(&mut queue.jobs);
                queue.bytes = 0;
                return Some(jobs);
            }
            if queue.closed {
                return None;
            }
            queue.idle = true;
            queue = self.shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle = false;
        }
    }

    /// Stages and flushes, in as many flushes as the bound on one asks for.
    fn commit(&mut self, mut jobs: VecDeque<Job>) -> Result<(), String> {
        let mut waiting: Vec<(Reply, Appended)> = Vec::with_capacity(jobs.len());
        while let Some(Job { task, reply }) = jobs.pop_front() {
            let done = match task {
                Task::Append(draft, packed, part) => self.stage(*draft, packed.as_ref(), &part),
                // Its own flush, so that what was staged before stays under the old key.
                Task::Rotate(next) => match self.flush(&mut waiting) {
                    Ok(()) => self.engine.rotate(next),
                    Err(why) => Err(AppendError::Stopped(why)),
                },
            };
            match done {
                Ok(appended) => waiting.push((reply, appended)),
                Err(AppendError::Stopped(why)) => {
                    reply.refuse(&why);
                    return Err(fail(waiting, jobs, why));
                }
                Err(error) => reply.give(Err(error)),
            }
            if (self.engine.staged_bytes() >= BATCH_BYTES_MAX || jobs.is_empty())
                && let Err(error) = self.flush(&mut waiting)
            {
                return Err(fail(waiting, jobs, error));
            }
        }
        Ok(())
    }

    fn stage(&mut self, mut draft: Draft, packed: Option<&Packed>, part: &CallPart) -> Result<Appended, AppendError> {
        part.complete(&mut draft.content)?;
        let appended = self.engine.stage(draft, packed)?;
        part.staged(&appended);
        Ok(appended)
    }

    fn flush(&mut self, waiting: &mut Vec<(Reply, Appended)>) -> Result<(), String> {
        self.engine.flush().map_err(|error| error.to_string())?;
        {
            let mut queue = self.shared.queue();
            queue.note = Some(self.engine.note().clone());
            waiting.iter().for_each(|(_, appended)| queue.recent.add(appended.index, &appended.fields));
        }
        // Before the replies, so that `publish` covers every append that has returned.
        let tiles = self.engine.take_tiles();
        self.publisher.offer(self.engine.size(), self.engine.note(), tiles);
        for (reply, appended) in waiting.drain(..) {
            reply.give(Ok(appended));
        }
        if self.engine.is_full() {
            self.publisher.wait()?;
            self.engine.turn().map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

fn fail(waiting: Vec<(Reply, Appended)>, jobs: VecDeque<Job>, why: String) -> String {
    let replies = waiting.into_iter().map(|(reply, _)| reply).chain(jobs.into_iter().map(|job| job.reply));
    replies.for_each(|reply| reply.refuse(&why));
    why
}

/// A commit thread that panics must not leave producers waiting.
struct StopOnPanic(Arc<Shared>);

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop("the commit thread ended unexpectedly");
        }
    }
}
