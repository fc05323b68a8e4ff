//! SHA-256 (FIPS 180-4) and the leaf and node hashes of RFC 6962, section 2.1.

use amc_core::Digest;
use sha2::Digest as _;

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> Digest {
    Digest(sha2::Sha256::digest(bytes).into())
}

/// `SHA-256(0x00 ‖ leaf)`: a leaf of an RFC 6962 tree. For an event body this is its event_hash.
pub fn leaf_hash(leaf: &[u8]) -> Digest {
    let mut hasher = sha2::Sha256::new();
    hasher.update([0x00]);
    hasher.update(leaf);
    Digest(hasher.finalize().into())
}

/// `SHA-256(0x01 ‖ left ‖ right)`: an inner node of an RFC 6962 tree.
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let mut hasher = sha2::Sha256::new();
    hasher.update([0x01]);
    hasher.update(left.0);
    hasher.update(right.0);
    Digest(hasher.finalize().into())
}

/// SHA-256 of a body that arrives in pieces, with its length.
#[derive(Clone, Default)]
pub struct BodyHasher {
    inner: sha2::Sha256,
    len: u64,
}

impl BodyHasher {
    /// An empty body.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.inner.update(piece);
        self.len += piece.len() as u64;
    }

    /// Bytes so far.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing has arrived.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The digest and the length in bytes.
    pub fn finish(self) -> (Digest, u64) {
        (Digest(self.inner.finalize().into()), self.len)
    }
}

impl std::fmt::Debug for BodyHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodyHasher").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(b"").to_string(), empty);
        assert_eq!(leaf_hash(b"x"), sha256(b"\x00x"));
        let mut hasher = BodyHasher::new();
        hasher.update(b"ab");
        hasher.update(b"c");
        assert_eq!(hasher.finish(), (sha256(b"abc"), 3));
    }
}
