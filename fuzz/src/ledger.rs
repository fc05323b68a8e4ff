//! Events, segments and tiles: the log on disk as somebody else may have left it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use amc_crypto::merkle;
use amc_crypto::note::{KeyKind, VerifierKey};
use amc_crypto::{Checkpoint, PublicKey, sha256};
use amc_evidence::Event;
use amc_ledger::{LogReader, VerifyMode, VerifyOptions, verify};

/// The log that the first release wrote, and its key.
const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/ledger/v1");
const ORIGIN: &str = "fixture/evidence";
const PUBLIC: [u8; 32] = [
    0x21, 0x52, 0xf8, 0xd1, 0x9b, 0x79, 0x1d, 0x24, 0x45, 0x32, 0x42, 0xe1, 0x5f, 0x2e, 0xab, 0x6c, 0xb7, 0xcf, 0xfa,
    0x7b, 0x6a, 0x5e, 0xd3, 0x00, 0x97, 0x96, 0x0e, 0x06, 0x98, 0x81, 0xdb, 0x12,
];
const TILE: &str = "tile/0/000";
const SEGMENT: &str = "segments/00000000000000000000.seg";
const HEADER_BYTES: usize = 64;

fn log_key() -> VerifierKey {
    let public = PublicKey::from_bytes(&PUBLIC).expect("the fixture's key");
    VerifierKey::new(ORIGIN, KeyKind::Ed25519, public).expect("the fixture's origin")
}

/// What decodes is canonical.
pub(crate) fn event(data: &[u8]) {
    if let Ok((event, _)) = Event::decode(data) {
        assert_eq!(event.encode(), data, "an event has one encoding");
    }
}

/// A segment with anything in it is read and judged, and is never good unless it is the fixture's own.
///
/// Input: an even first byte, and the file as it is; an odd one, and frames as [`segment_seed`] writes them, to which
/// header and checks are added here, so that what is made up reaches the code behind them.
pub(crate) fn segment(data: &[u8]) {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    let dir = DIR.get_or_init(|| copy_of_fixture("segment"));
    let Some((mode, rest)) = data.split_first() else { return };
    let bytes = if mode % 2 == 0 { rest.to_vec() } else { framed(rest) };
    fs::write(dir.join(SEGMENT), &bytes).expect("the temporary directory takes files");
    let note = last_note(&bytes);
    let published =
        note.unwrap_or_else(|| fs::read(Path::new(FIXTURE).join("checkpoint")).expect("the fixture is there"));
    fs::write(dir.join("checkpoint"), published).expect("the temporary directory takes files");
    look_at(dir);
    let (key, mut events) = (log_key(), 0);
    if let Ok(report) = verify(dir, &VerifyOptions::full(&key), &mut |_| events += 1) {
        let signed = report.checkpoint.as_ref().filter(|note| note.verify_signature(&key).is_ok());
        let head = signed.and_then(|note| Checkpoint::parse(note.text()).ok()).map(|signed| (signed.size, signed.root));
        let found = Some((report.head.size, report.head.root));
        assert!(!report.is_good() || head == found, "a log is good that its key did not sign");
        assert!(events <= report.events, "more events were handed out than the log has");
    }
}

fn look_at(dir: &Path) {
    let Ok(reader) = LogReader::open(dir) else { return };
    for stored in reader.events(0) {
        let Ok(stored) = stored else { break };
        if let Ok((Event { payload: Some(payload), .. }, _)) = Event::decode(&stored.signed.body) {
            let _ = reader.payload(&payload, stored.payload_location);
        }
    }
    if let Ok(tree) = reader.tree() {
        let _ = merkle::root_at(&tree, reader.size());
    }
}

/// Any other bytes in a tile's place are found by a verification.
pub(crate) fn tile(data: &[u8]) {
    static DIR: OnceLock<(PathBuf, Vec<u8>)> = OnceLock::new();
    let (dir, whole) = DIR.get_or_init(|| {
        let dir = copy_of_fixture("tile");
        let whole = fs::read(dir.join(TILE)).expect("the fixture has a tile");
        (dir, whole)
    });
    fs::write(dir.join(TILE), data).expect("the temporary directory takes files");
    let key = log_key();
    let options = VerifyOptions { mode: VerifyMode::Quick, ..VerifyOptions::full(&key) };
    let report = verify(dir, &options, &mut |_| {}).expect("the log itself is whole");
    assert_eq!(report.is_good(), data == whole, "{:?}", report.findings);
    look_at(dir);
}

/// A copy of the fixture in a directory of this process's own.
fn copy_of_fixture(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("amc-fuzz-{name}-{}", std::process::id()));
    for sub in ["segments", "payloads", "tile/0"] {
        fs::create_dir_all(dir.join(sub)).expect("the temporary directory takes directories");
    }
    for file in ["checkpoint", SEGMENT, TILE, "payloads/00000000.pack"] {
        fs::copy(Path::new(FIXTURE).join(file), dir.join(file)).expect("the fixture is copied");
    }
    dir
}

/// Frames without checks: tag (one byte), length (u16 little-endian), content.
const TAGS: [&[u8; 4]; 3] = [b"EVNT", b"CKPT", b"SNAP"];

fn framed(mut data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[..8].copy_from_slice(b"amc-seg\n");
    bytes[8] = 1;
    bytes[24..56].copy_from_slice(&sha256(ORIGIN.as_bytes()).0);
    let check = blake3::hash(&bytes[..56]);
    bytes[56..].copy_from_slice(&check.as_bytes()[..8]);
    while let [tag, low, high, rest @ ..] = data {
        let (content, rest) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes([*low, *high]))));
        let start = bytes.len();
        bytes.extend_from_slice(TAGS[usize::from(*tag) % TAGS.len()]);
        bytes.extend_from_slice(&u32::try_from(content.len()).expect("below 64 KiB").to_le_bytes());
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(&0u64.to_le_bytes())
            .update(&(start as u64).to_le_bytes())
            .update(&bytes[start..])
            .update(content);
        bytes.extend_from_slice(&hasher.finalize().as_bytes()[..16]);
        bytes.extend_from_slice(content);
        data = rest;
    }
    bytes
}

/// The note of the last `CKPT` frame, looking by its tag alone.
fn last_note(bytes: &[u8]) -> Option<Vec<u8>> {
    let at = bytes.windows(4).rposition(|tag| tag == TAGS[1])?;
    let len = u32::from_le_bytes(bytes.get(at + 4..at + 8)?.try_into().expect("four bytes")) as usize;
    Some(bytes.get(at + 24 + 20..(at + 24).checked_add(len)?)?.to_vec())
}

/// The beginning of a segment, up to its last `CKPT` within `limit` bytes, in the form that the target takes.
pub fn segment_seed(segment: &[u8], limit: usize) -> Vec<u8> {
    let (mut seed, mut kept, mut at) = (vec![1], 1, HEADER_BYTES);
    while at + 24 <= segment.len() && seed.len() < limit {
        let tag = TAGS.iter().position(|tag| tag[..] == segment[at..at + 4]).expect("a frame of the fixture");
        let len = u32::from_le_bytes(segment[at + 4..at + 8].try_into().expect("four bytes"));
        let content = &segment[at + 24..at + 24 + len as usize];
        seed.push(u8::try_from(tag).expect("three tags"));
        seed.extend_from_slice(&u16::try_from(len).expect("the fixture's frames are small").to_le_bytes());
        seed.extend_from_slice(content);
        if tag == 1 {
            kept = seed.len();
        }
        at += 24 + len as usize;
    }
    seed.truncate(kept);
    seed
}
