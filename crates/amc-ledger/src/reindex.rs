//! Rebuilding what follows from the segments: the index, and tiles that are missing.
//!
//! Needs the writer's lock and no key. Changes no evidence: a tile that is there and differs
//! refuses.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use amc_core::FindingCode;
use amc_crypto::merkle::Frontier;
use amc_evidence::Event;

use crate::error::{FileError, ReindexError};
use crate::index::{CHUNK_EVENTS, Index, LET_GO};
use crate::reader::{LogReader, damage};
use crate::recovery;
use crate::storage::Files;
use crate::tiles::{Edge, Tile, tile_path};

/// What a rebuild did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reindexed {
    /// Events in the index.
    pub events: u64,
    /// Tiles that were missing and are stored again.
    pub tiles: u64,
}

/// Rebuilds the index of the log in `dir` from its segments and stores missing tiles again.
///
/// # Errors
/// [`ReindexError::Open`] when a writer holds the log, [`ReindexError::Read`] when its segments
/// cannot be read or do not give the published checkpoint; then there is no index.
pub fn reindex(dir: &Path) -> Result<Reindexed, ReindexError> {
    let files = Files::on_disk(dir);
    let reader = LogReader::over(&files)?;
    let _lock = recovery::lock(&files)?;
    let place = dir.join("index");
    remove(&place)?;
    let index = Index::open(&place)?;
    let mut done = Reindexed { events: 0, tiles: 0 };
    let (mut edge, mut frontier) = (Edge::default(), Frontier::new());
    let (mut chunk, mut full) = (Vec::with_capacity(CHUNK_EVENTS), Vec::new());
    for stored in reader.events(0) {
        let stored = stored?;
        let hash = stored.signed.event_hash();
        let (event, fields) = Event::decode(&stored.signed.body).map_err(|error| {
            let place = format!("{}#{}", reader.checkpoint().origin, stored.index);
            damage(FindingCode::EventHashMismatch, place, error.to_string())
        })?;
        frontier.push(hash);
        edge.push(hash, |tile| full.push(tile));
        for tile in full.drain(..) {
            done.tiles += u64::from(store(&files, &tile)?);
        }
        done.events = stored.index + 1;
        chunk.push((stored.index, hash, event, fields));
        if chunk.len() == CHUNK_EVENTS {
            index.add(&chunk, done.events)?;
            chunk.clear();
        }
    }
    if frontier.root() != reader.checkpoint().root {
        index.clear()?;
        let what = "the events lead to another root than the published checkpoint's; run `amc verify`";
        return Err(damage(FindingCode::LedgerForked, "checkpoint", what).into());
    }
    index.add(&chunk, done.events)?;
    index.flush()?;
    Ok(done)
}

/// Removes the old index. A database that was dropped in this process a moment ago may still write a file into the
/// directory while it is emptied; the log's lock says that nobody else does, so that moment is waited out.
fn remove(place: &Path) -> Result<(), FileError> {
    let deadline = Instant::now() + LET_GO;
    loop {
        match std::fs::remove_dir_all(place) {
            Ok(()) => return Ok(()),
            Err(source) if source.kind() == ErrorKind::NotFound && !place.exists() => return Ok(()),
            Err(source)
                if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty)
                    && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(source) => return Err(FileError { what: "empty", path: place.to_owned(), source }),
        }
    }
}

/// Whether the tile was missing; it is stored now.
fn store(files: &Files, tile: &Tile) -> Result<bool, ReindexError> {
    match tile.is_stored(files)? {
        Some(true) => Ok(false),
        None => tile.write(files).map(|()| true).map_err(ReindexError::from),
        Some(false) => {
            let what = "this tile disagrees with the events; run `amc verify`";
            Err(damage(FindingCode::EventHashMismatch, tile_path(tile.level, tile.number), what).into())
        }
    }
}
