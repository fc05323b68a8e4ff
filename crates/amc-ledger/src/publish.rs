//! The publisher: stores full tiles and replaces the `checkpoint` file behind the flushes.
//!
//! Producers do not wait for it. It always publishes the newest checkpoint, so under load several
//! flushes share one replacement, and what readers see was durable before. Replacements that nobody
//! waits for keep a distance ([`APART`]): one costs about as much as a flush, on the same disk.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use amc_crypto::Note;

use crate::engine;
use crate::error::FileError;
use crate::storage::Files;
use crate::tiles::Tile;

/// Called once, with the reason, when publishing failed.
pub(crate) type OnFailure = Box<dyn Fn(&str) + Send>;

/// Between two replacements that nobody waits for: as old as `checkpoint` may be beside a busy writer.
const APART: Duration = Duration::from_millis(25);

/// The publisher's shared side.
pub(crate) struct Publisher {
    state: Mutex<State>,
    changed: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct State {
    tiles: Vec<Tile>,
    wanted: (u64, Note),
    published: (u64, Note),
    /// The size that somebody waits for.
    awaited: u64,
    failed: Option<String>,
    closing: bool,
}

impl Publisher {
    /// Starts behind a log whose checkpoint of `size` is published already. `feed` hears of every
    /// size that became visible.
    pub(crate) fn start(
        files: &Files,
        size: u64,
        note: Note,
        on_failure: OnFailure,
        feed: Option<Sender<u64>>,
    ) -> std::io::Result<Arc<Self>> {
        let state = State {
            tiles: Vec::new(),
            wanted: (size, note.clone()),
            published: (size, note),
            awaited: 0,
            failed: None,
            closing: false,
        };
        let publisher =
            Arc::new(Publisher { state: Mutex::new(state), changed: Condvar::new(), thread: Mutex::new(None) });
        let (shared, files) = (Arc::clone(&publisher), files.clone());
        let run = move || {
            let guard = FailOnPanic(shared);
            guard.0.run(&files, &on_failure, feed.as_ref());
        };
        let thread = std::thread::Builder::new().name("amc-ledger-publish".into()).spawn(run)?;
        *publisher.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(publisher)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over what became durable.
    pub(crate) fn offer(&self, size: u64, note: &Note, tiles: Vec<Tile>) {
        let mut state = self.state();
        state.wanted = (size, note.clone());
        state.tiles.extend(tiles);
        self.changed.notify_all();
    }

    /// Waits until everything handed over so far is stored; gives the checkpoint that is published.
    pub(crate) fn wait(&self) -> Result<Note, String> {
        let mut state = self.state();
        let target = state.wanted.0;
        state.awaited = target.max(state.awaited);
        self.changed.notify_all();
        loop {
            if let Some(why) = &state.failed {
                return Err(why.clone());
            }
            if state.published.0 >= target {
                return Ok(state.published.1.clone());
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The checkpoint that is published.
    pub(crate) fn published(&self) -> Note {
        self.state().published.1.clone()
    }

    /// Stores what is left and ends the thread.
    pub(crate) fn finish(&self) {
        self.state().closing = true;
        self.changed.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            self.state().failed.get_or_insert_with(|| "the publisher ended unexpectedly".into());
        }
    }

    fn run(&self, files: &Files, on_failure: &OnFailure, feed: Option<&Sender<u64>>) {
        let mut not_before = Instant::now();
        while let Some((tiles, (size, note))) = self.take(not_before) {
            let stored = store(files, &tiles, &note);
            not_before = Instant::now() + APART;
            let mut state = self.state();
            match stored {
                Ok(()) => state.published = (size, note),
                Err(error) => {
                    let why = error.to_string();
                    state.failed = Some(why.clone());
                    self.changed.notify_all();
                    drop(state);
                    return on_failure(&why);
                }
            }
            self.changed.notify_all();
            drop(state);
            // Without an index nobody listens.
            let _ = feed.map(|feed| feed.send(size));
        }
        // The names of the last replacements; a loss would only make the file older.
        let _ = files.sync_dir("");
    }

    fn take(&self, not_before: Instant) -> Option<(Vec<Tile>, (u64, Note))> {
        let mut state = self.state();
        loop {
            let left = not_before.saturating_duration_since(Instant::now());
            let is_due = state.closing || state.awaited > state.published.0 || left.is_zero();
            let is_behind = state.wanted.0 > state.published.0;
            if is_behind && is_due {
                return Some((std::mem::take(&mut state.tiles), state.wanted.clone()));
            }
            if state.closing {
                return None;
            }
            state = if is_behind {
                self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
            } else {
                self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
            };
        }
    }
}

/// A publisher that panics must not leave anybody waiting.
struct FailOnPanic(Arc<Publisher>);

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.state().failed.get_or_insert_with(|| "the publisher ended unexpectedly".into());
            self.0.changed.notify_all();
        }
    }
}

fn store(files: &Files, tiles: &[Tile], note: &Note) -> Result<(), FileError> {
    for tile in tiles {
        tile.write(files)?;
    }
    engine::publish(files, note)
}
