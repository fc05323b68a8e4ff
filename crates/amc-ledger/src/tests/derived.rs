//! What follows from a log: exported tiles, the index, tiles that went missing.

use std::path::{Path, PathBuf};

use amc_core::{AgentId, Digest};
use amc_crypto::Note;
use amc_crypto::merkle::{
    HashReader, consistency_proof, inclusion_proof, root_of, verify_consistency, verify_inclusion,
};

use super::{ORIGIN, TestClock, TestKey, agent, open_session, opened, output, seal, session};
use crate::tiles::tile_path;
use crate::{LogReader, ReadError, ReindexError, Writer, create, reindex};

/// A log of so many events in one sealed session.
fn log_of(events: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (key, clock) = (TestKey::new(1, ORIGIN), TestClock::new());
    create(dir.path(), opened(&key), &key.signers(), &*clock).expect("creates");
    let writer = Writer::open(dir.path(), key.signers(), clock).expect("opens");
    append(&writer, 1, events - 1);
    assert_eq!(writer.with_state(amc_evidence::LogState::size), events as u64);
    writer.close().expect("closes");
    dir
}

/// A session of so many events: its opening, pieces of output, its seal and the agent's head.
fn append(writer: &Writer, number: u8, events: usize) {
    let id = session(number);
    writer.append(open_session(id), None).expect("opens the session");
    let pieces = (0..events - 3).map(|at| output(id, format!("piece {at} of {number}").as_bytes()));
    let pending: Vec<_> = pieces.map(|(draft, bytes)| writer.submit(draft, bytes).expect("takes it")).collect();
    pending.into_iter().for_each(|pending| drop(pending.wait().expect("appends")));
    writer.append(seal(id), None).expect("seals the session");
}

/// A client of tlog-tiles: knows the size, and reads full and partial tiles.
struct Client {
    dir: PathBuf,
    size: u64,
}

impl HashReader for Client {
    type Error = String;

    fn subtree(&self, level: u8, index: u64) -> Result<Digest, String> {
        let (tile_level, within) = (level / 8, level % 8);
        let first = index << within;
        let number = first / 256;
        let there = ((self.size >> (8 * u32::from(tile_level))) - number * 256).min(256);
        let full = tile_path(tile_level, number);
        let path = if there == 256 { full } else { format!("{full}.p/{there}") };
        let bytes = std::fs::read(self.dir.join(&path)).map_err(|error| format!("{path}: {error}"))?;
        if bytes.len() as u64 != there * 32 {
            return Err(format!("{path} has {} bytes", bytes.len()));
        }
        let start = usize::try_from(first % 256).expect("below 256");
        let hashes = bytes.as_chunks::<32>().0[start..start + (1 << within)].iter();
        Ok(root_of(hashes.map(|hash| Digest(*hash))))
    }
}

#[test]
fn exported_tiles_prove_to_a_client_that_has_nothing_else() {
    for events in [4, 256, 600] {
        let (log, out) = (log_of(events), tempfile::tempdir().expect("a temporary directory"));
        let reader = LogReader::open(log.path()).expect("opens");
        let exported = reader.export_tiles(out.path()).expect("exports");
        let size = events as u64;
        let rest = u64::from(!size.is_multiple_of(256));
        assert_eq!((exported.size, exported.full), (size, size / 256));
        assert_eq!(exported.partial, rest + u64::from(size >= 256), "the edge of each level");

        let bytes = std::fs::read(out.path().join("checkpoint")).expect("reads");
        let checkpoint = amc_crypto::Checkpoint::parse(Note::parse(&bytes).expect("a note").text()).expect("one");
        assert_eq!(&checkpoint, reader.checkpoint());
        let client = Client { dir: out.path().to_owned(), size };
        for index in [0, 1, size / 2, size - 1] {
            let path = inclusion_proof(&client, index, size).expect("reads");
            let leaf = reader.event(index).expect("reads").expect("is there").signed.event_hash();
            assert_eq!(verify_inclusion(leaf, index, size, &path, &checkpoint.root), Ok(()), "{index} of {size}");
        }
        let old = size / 2;
        let path = consistency_proof(&client, old, size).expect("reads");
        let old_root = amc_crypto::merkle::root_at(&reader.tree().expect("has a tree"), old).expect("reads");
        assert_eq!(verify_consistency(old, size, &path, &old_root, &checkpoint.root), Ok(()));
        assert!(!out.path().join("tile/entries").exists(), "no event leaves the log");
    }
}

#[test]
fn an_export_grows_with_its_log() {
    let (log, out) = (log_of(250), tempfile::tempdir().expect("a temporary directory"));
    LogReader::open(log.path()).expect("opens").export_tiles(out.path()).expect("exports");
    let key = TestKey::new(1, ORIGIN);
    let writer = Writer::open(log.path(), key.signers(), TestClock::new()).expect("opens");
    append(&writer, 2, 50);
    writer.close().expect("closes");
    let reader = LogReader::open(log.path()).expect("opens");
    reader.export_tiles(out.path()).expect("exports again");
    let client = Client { dir: out.path().to_owned(), size: reader.size() };
    let root = amc_crypto::merkle::root_at(&client, reader.size()).expect("reads");
    assert_eq!(root, reader.checkpoint().root);
}

#[test]
fn a_tree_of_another_root_is_not_exported() {
    let (log, out) = (log_of(600), tempfile::tempdir().expect("a temporary directory"));
    let tree = |dir: &Path| LogReader::open(dir).expect("opens").export_tiles(out.path());
    assert!(tree(log.path()).is_ok());
    let checkpoint = log.path().join("checkpoint");
    let text = std::fs::read_to_string(&checkpoint).expect("reads");
    let mut lines: Vec<&str> = text.lines().collect();
    lines[2] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    std::fs::write(&checkpoint, lines.join("\n") + "\n").expect("writes");
    let kept = std::fs::read(out.path().join("checkpoint")).expect("reads");
    assert!(matches!(tree(log.path()), Err(ReadError::Damaged(_))), "another root than the checkpoint's");
    assert_eq!(std::fs::read(out.path().join("checkpoint")).expect("reads"), kept, "the export is as it was");
}

#[test]
fn reindexing_rebuilds_index_and_tiles_and_nothing_else() {
    let log = log_of(600);
    let read = |path: &str| std::fs::read(log.path().join(path)).expect("reads");
    let (segment, tile) = (read("segments/00000000000000000000.seg"), read("tile/0/001"));
    std::fs::remove_file(log.path().join("tile/0/001")).expect("removes");
    for entry in std::fs::read_dir(log.path().join("index")).expect("lists").flatten() {
        if entry.path().is_file() {
            std::fs::write(entry.path(), b"no index").expect("writes");
        }
    }
    let done = reindex(log.path()).expect("rebuilds");
    assert_eq!((done.events, done.tiles), (600, 1));
    assert_eq!((read("segments/00000000000000000000.seg"), read("tile/0/001")), (segment, tile));

    let key = TestKey::new(1, ORIGIN);
    let writer = Writer::open(log.path(), key.signers(), TestClock::new()).expect("opens");
    assert_eq!(writer.indexed().expect("has an index"), 600);
    assert_eq!(writer.lookup_session(session(1)).expect("looks up").len(), 598, "all but the first and the head");
    assert!(matches!(reindex(log.path()), Err(ReindexError::Open(_))), "a writer holds the log");
}

#[test]
fn files_that_appear_while_the_old_index_is_removed_are_waited_out() {
    let log = log_of(40);
    let index = log.path().join("index");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // What a database does that was dropped and has not ended yet, for a while.
        scope.spawn(|| {
            for number in 0..2_000 {
                let _ = std::fs::write(index.join(format!("late-{}", number % 40)), b"late");
            }
            done.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        let mut rebuilt = 0;
        while !done.load(std::sync::atomic::Ordering::SeqCst) || rebuilt == 0 {
            assert_eq!(reindex(log.path()).expect("rebuilds").events, 40);
            rebuilt += 1;
        }
    });
}

#[test]
fn reindexing_refuses_a_tile_that_disagrees() {
    let log = log_of(300);
    let path = log.path().join("tile/0/000");
    let mut tile = std::fs::read(&path).expect("reads");
    tile[40] ^= 1;
    std::fs::write(&path, &tile).expect("writes");
    assert!(matches!(reindex(log.path()), Err(ReindexError::Read(ReadError::Damaged(_)))));
    assert_eq!(std::fs::read(&path).expect("reads"), tile, "left for a verification to name");
}

#[test]
fn events_are_found_by_agent_and_time() {
    let log = log_of(40);
    reindex(log.path()).expect("rebuilds");
    let key = TestKey::new(1, ORIGIN);
    let times: Vec<i64> = LogReader::open(log.path())
        .expect("opens")
        .events(0)
        .map(|stored| amc_evidence::Event::decode(&stored.expect("reads").signed.body).expect("decodes").0.wall_ns)
        .collect();
    let writer = Writer::open(log.path(), key.signers(), TestClock::new()).expect("opens");
    let found = |from, until| writer.lookup_agent(&agent(), from, until).expect("looks up");
    assert_eq!(found(i64::MIN, i64::MAX), (1..40).collect::<Vec<_>>(), "all but the log's own first event");
    assert_eq!(found(times[10], times[20]), (10..20).collect::<Vec<_>>(), "from counts, until does not");
    assert_eq!(found(times[20], times[10]), [0; 0]);
    let other = AgentId::new("bo").expect("a good id");
    assert_eq!(writer.lookup_agent(&other, i64::MIN, i64::MAX).expect("looks up"), [0; 0], "no prefix of a name");
}

#[test]
fn an_index_that_is_just_being_let_go_is_waited_for() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let place = dir.path().join("index");
    let held = crate::index::Index::open(&place).expect("opens");
    let (waiting, begins) = std::sync::mpsc::channel();
    let letting_go = std::thread::spawn(move || {
        begins.recv().expect("the other side is there");
        drop(held);
    });
    waiting.send(()).expect("the other side is there");
    crate::index::Index::open(&place).expect("opens when it is let go");
    letting_go.join().expect("ends");
}
