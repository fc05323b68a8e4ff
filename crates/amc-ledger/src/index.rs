//! The sled index: by request id, session, agent and time, and event hash. Fed behind the log from the log itself,
//! so it may lag, may be deleted, and is never needed to verify or to append.

mod shared;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use amc_core::kinds::Fields;
use amc_core::{AgentId, Digest, SessionId};
use amc_evidence::Event;

use self::shared::{Digests, Times};
use crate::error::{IndexError, ReadError};
use crate::reader::{Events, LogReader};

/// Memory for sled's cache: enough for recent sessions.
const CACHE_BYTES: u64 = 4 << 20;
/// Events that are written together, and share entries ([`shared`]).
pub(crate) const CHUNK_EVENTS: usize = 4096;
/// For how long events are gathered before they are fed, where they are few.
const GATHER: Duration = Duration::from_millis(200);
/// How much the feeding gives way to everything else.
const FEEDER_NICE: i32 = 19;
/// The layout of the keys; another one is rebuilt.
const LAYOUT: &[u8] = b"amc-index/4";

/// The open index.
pub(crate) struct Index {
    database: sled::Db,
    requests: Digests,
    sessions: sled::Tree,
    agents: Times,
    hashes: Digests,
}

/// How long a database that was just dropped in this process may take to let its lock go.
pub(crate) const LET_GO: Duration = Duration::from_secs(5);

/// Opens the database. sled's background threads keep its lock for a moment after the last handle is
/// dropped; the log's own lock says that nobody else has it, so that moment is waited out.
fn when_let_go(config: &sled::Config) -> Result<sled::Db, sled::Error> {
    let deadline = Instant::now() + LET_GO;
    loop {
        match config.open() {
            Err(sled::Error::Io(error))
                if error.to_string().contains("could not acquire lock") && Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(5));
            }
            opened => return opened,
        }
    }
}

impl Index {
    pub(crate) fn open(dir: &Path) -> Result<Self, sled::Error> {
        let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(Some(1_000));
        let database = when_let_go(&config)?;
        let index = Index {
            requests: Digests::new(database.open_tree("requests")?),
            sessions: database.open_tree("sessions")?,
            agents: Times::new(database.open_tree("agents")?),
            hashes: Digests::new(database.open_tree("hashes")?),
            database,
        };
        if index.database.get("layout")?.as_deref() != Some(LAYOUT) {
            index.clear()?;
        }
        Ok(index)
    }

    /// Empties the index, to be fed from the first event on.
    pub(crate) fn clear(&self) -> Result<(), sled::Error> {
        self.database.remove("next")?;
        for tree in [self.requests.tree(), &self.sessions, self.agents.tree(), self.hashes.tree()] {
            tree.clear()?;
        }
        self.database.insert("layout", LAYOUT)?;
        Ok(())
    }

    fn next(&self) -> Result<u64, sled::Error> {
        Ok(self.database.get("next")?.map_or(0, |bytes| number(&bytes)))
    }

    /// Adds events whose indices follow the ones before; done twice it changes nothing.
    pub(crate) fn add(&self, events: &[(u64, Digest, Event, Option<Fields>)], next: u64) -> Result<(), sled::Error> {
        let (mut sessions, mut requests) = (Vec::new(), Vec::new());
        let mut hashes = Vec::with_capacity(events.len());
        let mut agents: BTreeMap<&AgentId, Vec<(i64, u64)>> = BTreeMap::new();
        for (index, hash, event, fields) in events {
            hashes.push((*hash, *index));
            if let Some(session) = event.session {
                sessions.push((session, *index));
            }
            if let Some(agent) = &event.agent {
                agents.entry(agent).or_default().push((event.wall_ns, *index));
            }
            if let Some(request) = fields.as_ref().and_then(request_of) {
                requests.push((amc_crypto::sha256(request.as_bytes()), *index));
            }
        }
        // One by one and not as one batch: what a crash leaves is fed again, since `next` comes last.
        self.hashes.add(hashes)?;
        self.requests.add(requests)?;
        for (agent, events) in agents {
            self.agents.add(agent, &events)?;
        }
        sessions.sort_unstable();
        for run in sessions.chunk_by(|a, b| a.0 == b.0 && a.1 + 1 == b.1) {
            self.sessions.insert(session_key(run[0].0, run[0].1), &(run.len() as u64).to_be_bytes())?;
        }
        self.database.insert("next", &next.to_be_bytes())?;
        Ok(())
    }

    pub(crate) fn indexed(&self) -> Result<u64, IndexError> {
        Ok(self.next()?)
    }

    pub(crate) fn request(&self, request: &str) -> Result<Vec<u64>, IndexError> {
        self.requests.get(&amc_crypto::sha256(request.as_bytes()))
    }

    pub(crate) fn session(&self, session: SessionId) -> Result<Vec<u64>, IndexError> {
        let mut indices = Vec::new();
        for run in self.sessions.scan_prefix(session.0) {
            let (key, len) = run?;
            let first = number(&key);
            // Events that were fed twice, after a crash, may stand in two runs.
            let known = indices.last().map_or(0, |last| last + 1);
            indices.extend(first.max(known)..first + number(&len));
        }
        Ok(indices)
    }

    /// Events of an agent by wall time, then index; `from_ns` counts, `until_ns` does not.
    pub(crate) fn agent(&self, agent: &AgentId, from_ns: i64, until_ns: i64) -> Result<Vec<u64>, IndexError> {
        self.agents.get(agent, from_ns..until_ns)
    }

    pub(crate) fn flush(&self) -> Result<(), sled::Error> {
        self.database.flush().map(drop)
    }

    pub(crate) fn hash(&self, hash: &Digest) -> Result<Option<u64>, IndexError> {
        Ok(self.hashes.get(hash)?.first().copied())
    }
}

/// The request ids of the newest events, in memory: what the index has not caught up with yet.
#[derive(Default)]
pub(crate) struct Recent {
    indices: HashMap<String, Vec<u64>>,
    order: VecDeque<String>,
}

/// Events that [`Recent`] remembers: some seconds at full speed.
const RECENT_MAX: usize = 16_384;

impl Recent {
    /// Takes note of a durable event.
    pub(crate) fn add(&mut self, index: u64, fields: &Fields) {
        let Some(request) = request_of(fields) else { return };
        if self.order.len() == RECENT_MAX
            && let Some(oldest) = self.order.pop_front()
            && let Some(indices) = self.indices.get_mut(&oldest)
        {
            indices.remove(0);
            if indices.is_empty() {
                self.indices.remove(&oldest);
            }
        }
        self.order.push_back(request.to_owned());
        self.indices.entry(request.to_owned()).or_default().push(index);
    }

    pub(crate) fn request(&self, request: &str) -> &[u64] {
        self.indices.get(request).map_or(&[], Vec::as_slice)
    }
}

fn request_of(fields: &Fields) -> Option<&str> {
    match fields {
        Fields::LlmRequest(call) => Some(&call.request_id),
        Fields::LlmResponse(call) => Some(&call.request_id),
        _ => None,
    }
}

/// The session, and the index of the first of consecutive events of it; their number is the value.
fn session_key(session: SessionId, first: u64) -> Vec<u8> {
    [session.0.as_slice(), &first.to_be_bytes()].concat()
}

fn number(bytes: &[u8]) -> u64 {
    bytes.last_chunk().copied().map_or(0, u64::from_be_bytes)
}

/// The thread that opens the index and feeds it.
pub(crate) struct Feeder {
    bell: Sender<u64>,
    stop: Arc<AtomicBool>,
    index: Arc<OnceLock<Result<Arc<Index>, String>>>,
    thread: JoinHandle<()>,
}

impl Feeder {
    /// Starts beside a log in `dir`; neither opening nor catching up is waited for.
    pub(crate) fn start(dir: &Path) -> std::io::Result<Self> {
        let (bell, rings) = channel();
        let index = Arc::new(OnceLock::new());
        let stop = Arc::new(AtomicBool::new(false));
        let (slot, dir, stopped) = (Arc::clone(&index), dir.to_owned(), Arc::clone(&stop));
        let run = move || {
            // On Linux this is the thread's own: appends go first where cores are few.
            let _ = rustix::process::nice(FEEDER_NICE);
            let opened = Index::open(&dir.join("index")).map(Arc::new);
            let feed = opened.as_ref().ok().map(Arc::clone);
            slot.get_or_init(|| opened.map_err(|error| error.to_string()));
            if let Some(index) = feed {
                // A fault of the index is no fault of the log: lookups show that it lags.
                let _ = feed_all(&index, &dir, &rings, &stopped);
                let _ = index.database.flush();
            }
        };
        let thread = thread::Builder::new().name("amc-ledger-index".into()).spawn(run)?;
        Ok(Feeder { bell, stop, index, thread })
    }

    /// Where to send sizes that became visible.
    pub(crate) fn bell(&self) -> Sender<u64> {
        self.bell.clone()
    }

    /// The index, when it has opened.
    pub(crate) fn index(&self) -> Result<Arc<Index>, IndexError> {
        self.index.wait().clone().map_err(IndexError::Unavailable)
    }

    /// Ends; what is not fed yet is fed after the next start. Every other bell must be gone.
    pub(crate) fn finish(self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(self.bell);
        // A thread that panicked leaves an index that lags, and the next start feeds it.
        let _ = self.thread.join();
    }
}

/// What stopped the feeding.
#[derive(Debug, thiserror::Error)]
enum FeedError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Index(#[from] sled::Error),
    #[error(transparent)]
    Event(#[from] amc_evidence::event::EventError),
}

fn feed_all(index: &Index, dir: &Path, rings: &Receiver<u64>, stop: &AtomicBool) -> Result<(), FeedError> {
    let reader = LogReader::open(dir)?;
    if index.next()? > reader.size() {
        // An index of more events than there are belongs to another copy of the log.
        index.clear()?;
    }
    let mut events = reader.events(index.next()?);
    let mut next = index.next()?;
    next = feed(index, &mut events, next, stop)?;
    while let Ok(mut size) = rings.recv() {
        // A moment's events go in together: each alone costs several times as much.
        let until = Instant::now() + GATHER;
        while size < next + CHUNK_EVENTS as u64
            && !stop.load(Ordering::SeqCst)
            && let Ok(later) = rings.recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            size = later;
        }
        events.extend(rings.try_iter().last().unwrap_or(size));
        next = feed(index, &mut events, next, stop)?;
    }
    Ok(())
}

fn feed(index: &Index, events: &mut Events, mut next: u64, stop: &AtomicBool) -> Result<u64, FeedError> {
    let mut chunk = Vec::with_capacity(CHUNK_EVENTS);
    loop {
        let stored = events.next().transpose()?;
        let last = stored.is_none();
        if let Some(stored) = stored {
            let (event, fields) = Event::decode(&stored.signed.body)?;
            next = stored.index + 1;
            chunk.push((stored.index, stored.signed.event_hash(), event, fields));
        }
        if chunk.len() == CHUNK_EVENTS || (last && !chunk.is_empty()) {
            index.add(&chunk, next)?;
            chunk.clear();
        }
        if last || (chunk.is_empty() && stop.load(Ordering::SeqCst)) {
            return Ok(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_recent_requests_is_bounded_and_forgets_the_oldest() {
        let mut recent = Recent::default();
        for event in 0..2 * RECENT_MAX {
            recent.add(event as u64, &crate::tests::answer(&(event / 2).to_string()).into());
        }
        assert_eq!(recent.order.len(), RECENT_MAX);
        assert_eq!(recent.indices.len(), RECENT_MAX / 2);
        assert!(recent.request("0").is_empty());
        let newest = RECENT_MAX as u64 - 1;
        assert_eq!(recent.request(&newest.to_string()), [2 * newest, 2 * newest + 1]);
    }
}
