//! Hash tiles (C2SP tlog-tiles): every 256 hashes of a level make one file of 8 KiB.
//!
//! Tile level L holds the tree's hashes of level 8·L. Only full tiles are written; the right edge
//! (fewer than 256 hashes a level) is kept in memory and follows from the newest segment.

use amc_core::Digest;
use amc_crypto::merkle::root_of;
use serde::{Deserialize, Serialize};

use crate::error::FileError;
use crate::storage::Files;

/// Hashes in a full tile.
pub(crate) const TILE_HASHES: usize = 256;
/// Bytes of a full tile.
pub(crate) const TILE_BYTES: usize = TILE_HASHES * 32;

/// A tile that became full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tile {
    pub(crate) level: u8,
    pub(crate) number: u64,
    pub(crate) hashes: Vec<Digest>,
}

/// `tile/<L>/<N>`, N in groups of three digits, all but the last prefixed with `x`.
pub(crate) fn tile_path(level: u8, number: u64) -> String {
    let mut groups = vec![format!("{:03}", number % 1000)];
    let mut rest = number / 1000;
    while rest > 0 {
        groups.push(format!("x{:03}", rest % 1000));
        rest /= 1000;
    }
    groups.reverse();
    format!("tile/{level}/{}", groups.join("/"))
}

impl Tile {
    fn bytes(&self) -> Vec<u8> {
        self.hashes.iter().flat_map(|hash| hash.0).collect()
    }

    /// Writes the tile, durable in content.
    pub(crate) fn write(&self, files: &Files) -> Result<(), FileError> {
        let path = tile_path(self.level, self.number);
        if let Some((dir, _)) = path.rsplit_once('/') {
            files.create_dir(dir)?;
            files.replace(&path, &self.bytes())?;
            files.sync_dir(dir)?;
        }
        Ok(())
    }

    /// Whether the stored tile has these hashes; `None` when there is none.
    pub(crate) fn is_stored(&self, files: &Files) -> Result<Option<bool>, FileError> {
        Ok(files.read(&tile_path(self.level, self.number), TILE_BYTES)?.map(|bytes| bytes == self.bytes()))
    }
}

/// The hashes of a stored full tile; `None` when there is none of the right size.
pub(crate) fn read_tile(files: &Files, level: u8, number: u64) -> Result<Option<Vec<Digest>>, FileError> {
    let bytes = files.read(&tile_path(level, number), TILE_BYTES)?.filter(|bytes| bytes.len() == TILE_BYTES);
    Ok(bytes.map(|bytes| bytes.as_chunks::<32>().0.iter().map(|chunk| Digest(*chunk)).collect()))
}

/// The right edge of the tiles: per level the hashes that do not fill a tile yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Edge {
    size: u64,
    rows: Vec<Vec<Digest>>,
}

impl Edge {
    /// Number of leaves.
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// Whether the rows have the lengths that the size demands.
    pub(crate) fn is_sound(&self) -> bool {
        self.rows.len() <= 8
            && (0..8).all(|level| {
                let len = self.rows.get(level).map_or(0, Vec::len) as u64;
                len == self.size >> (8 * level) & 0xff
            })
    }

    /// Appends a leaf hash and reports every tile that becomes full.
    pub(crate) fn push(&mut self, leaf: Digest, mut full: impl FnMut(Tile)) {
        let mut hash = leaf;
        let mut count = self.size;
        self.size += 1;
        for level in 0u8..8 {
            if self.rows.len() == usize::from(level) {
                self.rows.push(Vec::new());
            }
            let row = &mut self.rows[usize::from(level)];
            row.push(hash);
            if row.len() < TILE_HASHES {
                return;
            }
            let tile = Tile { level, number: count >> 8, hashes: std::mem::take(row) };
            hash = root_of(tile.hashes.iter().copied());
            count >>= 8;
            full(tile);
        }
    }

    /// The hash at a place of a tile level that is not in a full tile yet.
    pub(crate) fn hash(&self, level: u8, index: u64) -> Option<Digest> {
        let first = self.size >> (8 * u32::from(level)) & !0xff;
        let at = usize::try_from(index.checked_sub(first)?).ok()?;
        self.rows.get(usize::from(level))?.get(at).copied()
    }
}

#[cfg(test)]
mod tests {
    use amc_crypto::merkle::{HashReader as _, MemoryTree};

    use super::*;

    #[test]
    fn paths_are_those_of_tlog_tiles() {
        assert_eq!(tile_path(0, 1_234_067), "tile/0/x001/x234/067");
        assert_eq!(tile_path(2, 0), "tile/2/000");
        assert_eq!(tile_path(1, 1000), "tile/1/x001/000");
    }

    #[test]
    fn edge_and_tiles_hold_the_tree() {
        let leaves: Vec<Digest> = (0u32..70_000).map(|n| amc_crypto::leaf_hash(&n.to_le_bytes())).collect();
        let tree = MemoryTree::new(leaves.iter().copied());
        let (mut edge, mut tiles) = (Edge::default(), Vec::new());
        for leaf in leaves {
            edge.push(leaf, |tile| tiles.push(tile));
            assert!(edge.is_sound());
        }
        assert_eq!(tiles.len(), 70_000 / 256 + 1);
        for tile in &tiles {
            for (at, hash) in tile.hashes.iter().enumerate() {
                let place = tile.number * 256 + at as u64;
                assert_eq!(tree.subtree(tile.level * 8, place).as_ref(), Ok(hash));
            }
        }
        assert_eq!(edge.hash(2, 0), tree.subtree(16, 0).ok());
        assert_eq!(edge.hash(1, 272), tree.subtree(8, 272).ok());
        assert_eq!(edge.hash(0, 69_999), tree.subtree(0, 69_999).ok());
        assert_eq!(edge.hash(0, 70_000), None);
    }
}
