//! A log's tree as static files that any client of C2SP tlog-tiles reads: full and partial hash
//! tiles and the checkpoint. No entries: what an event says stays with the log.
//!
//! ```text
//! <dir>/tile/<L>/<N>          full: 256 hashes
//! <dir>/tile/<L>/<N>.p/<W>    partial: the W hashes that there are, at the right edge
//! <dir>/checkpoint            the signed note, put in place last
//! ```
//!
//! Every hash that a tile of a higher level holds is recomputed from the level below, and the root
//! from all of them: a tree that is not the checkpoint's is not exported.

use std::io;
use std::path::Path;

use amc_core::{Digest, FindingCode};
use amc_crypto::merkle::{root_at, root_of};

use crate::engine::CHECKPOINT_FILE;
use crate::error::{FileError, ReadError};
use crate::reader::{LogReader, Tree, damage};
use crate::tiles::{TILE_HASHES, tile_path};

/// What an export wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportedTiles {
    /// Number of events that the tree covers.
    pub size: u64,
    /// Full tiles.
    pub full: u64,
    /// Partial tiles.
    pub partial: u64,
}

impl LogReader {
    /// Writes the tree at [`LogReader::size`] to `dir`, which is created, or holds an earlier
    /// export of this log and grows.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] when the tiles do not give the checkpoint's root; nothing that an
    /// earlier export wrote is worse then, since its checkpoint stays.
    pub fn export_tiles(&self, dir: &Path) -> Result<ExportedTiles, ReadError> {
        let tree = self.tree()?;
        let size = self.size();
        let mut exported = ExportedTiles { size, full: 0, partial: 0 };
        let mut below: Option<Vec<Digest>> = None;
        for level in 0u8..8 {
            let hashes = size >> (8 * u32::from(level));
            if hashes == 0 {
                break;
            }
            below = Some(export_level(&tree, dir, (level, hashes), below.as_deref(), &mut exported)?);
        }
        if root_at(&tree, size)? != self.checkpoint().root {
            let what = "the tiles lead to another root than the checkpoint's";
            return Err(damage(FindingCode::EventHashMismatch, CHECKPOINT_FILE, what));
        }
        put(&dir.join(CHECKPOINT_FILE), self.latest_checkpoint().to_string().as_bytes())?;
        Ok(exported)
    }
}

/// Writes the tiles of a level; gives the hash over each full one, which the next level holds.
fn export_level(
    tree: &Tree,
    dir: &Path,
    (level, hashes): (u8, u64),
    below: Option<&[Digest]>,
    exported: &mut ExportedTiles,
) -> Result<Vec<Digest>, ReadError> {
    let width = TILE_HASHES as u64;
    let mut above = Vec::new();
    for number in 0..hashes.div_ceil(width) {
        let first = number * width;
        let count = width.min(hashes - first);
        let row = tree.row(level, first, count)?;
        let mut path = tile_path(level, number);
        let start = usize::try_from(first).unwrap_or(usize::MAX);
        if below.is_some_and(|below| below.get(start..start + row.len()) != Some(row.as_slice())) {
            let what = "this tile disagrees with the tiles below it";
            return Err(damage(FindingCode::EventHashMismatch, path, what));
        }
        if count == width {
            above.push(root_of(row.iter().copied()));
            exported.full += 1;
        } else {
            path = format!("{path}.p/{count}");
            exported.partial += 1;
        }
        let bytes: Vec<u8> = row.iter().flat_map(|hash| hash.0).collect();
        put(&dir.join(path), &bytes)?;
    }
    Ok(above)
}

/// Puts a file in place whole. An export is a copy, so nothing waits for the disk.
fn put(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let parent = path.parent().expect("every exported file is in a directory");
    let fresh = path.with_added_extension("new");
    let written = std::fs::create_dir_all(parent)
        .and_then(|()| std::fs::write(&fresh, bytes))
        .and_then(|()| std::fs::rename(&fresh, path));
    written.map_err(|source: io::Error| FileError { what: "write", path: path.to_owned(), source })
}
