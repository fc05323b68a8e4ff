//! What the same disk and the same cores give without the log.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use amc_crypto::key::{Claim, verify_all};
use amc_crypto::signer::EventSigner as _;
use ed25519_dalek::{Signature, VerifyingKey, verify_batch};
use rustix::fs::FallocateFlags;
use serde_json::{Value, json};

use crate::load::{Key, PAYLOAD_BYTES};
use crate::report::latencies;

/// 1 KiB appended to a file with space reserved ahead, and `fdatasync`, again and again.
pub(crate) fn flushes(dir: &Path, time: Duration) -> Value {
    let path = dir.join("flushes");
    let file = std::fs::File::create(&path).expect("creates a file");
    rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 64 << 20).expect("reserves space");
    let (begin, mut offset, mut took) = (Instant::now(), 0, Vec::new());
    while begin.elapsed() < time {
        let begun = Instant::now();
        file.write_all_at(&[0x5a; PAYLOAD_BYTES], offset).expect("writes");
        file.sync_data().expect("flushes");
        took.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
        offset += PAYLOAD_BYTES as u64;
    }
    let measured = latencies(took, begin.elapsed());
    std::fs::remove_file(path).expect("removes its own file");
    measured
}

/// SQLite as Python has it: one connection, one table, `rows` rows of 1 KiB in a commit. `None`,
/// with a line that says so, where there is no Python.
pub(crate) fn sqlite(dir: &Path, seconds: f64, rows: u32) -> Option<Value> {
    let path = dir.join(format!("baseline-{rows}.sqlite"));
    let args = [path.to_str().expect("text").to_owned(), seconds.to_string(), rows.to_string()];
    let output = Command::new("python3").arg("-c").arg(include_str!("sqlite.py")).args(args).output();
    for suffix in ["", "-wal", "-shm"] {
        // What is not there needs no removing.
        let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
    }
    match output {
        Ok(output) if output.status.success() => Some(serde_json::from_slice(&output.stdout).expect("JSON")),
        Ok(output) => {
            println!("SKIPPED: SQLite baseline: {}", String::from_utf8_lossy(&output.stderr).trim());
            None
        }
        Err(error) => {
            println!("SKIPPED: SQLite baseline: python3: {error}");
            None
        }
    }
}

/// Batches of 256 Ed25519 signatures of one key, verified on all cores, nothing else: by `ed25519-dalek` as it is, and
/// by our own, which take the terms of one key together.
pub(crate) fn batches(time: Duration) -> [Value; 2] {
    let key = Key::new();
    let messages: Vec<Vec<u8>> = (0u32..256).map(|n| format!("message {n:056}").into_bytes()).collect();
    let signatures: Vec<_> = messages.iter().map(|message| key.sign(message)).collect();
    let claims: Vec<Claim<'_>> = messages
        .iter()
        .zip(&signatures)
        .map(|(message, signature)| Claim { key: key.public_key(), message, signature })
        .collect();
    let texts: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    let theirs: Vec<_> = signatures.iter().map(|signature| Signature::from_bytes(&signature.0)).collect();
    let public = VerifyingKey::from_bytes(&key.public_key().to_bytes()).expect("a good key");
    let keys = vec![public; texts.len()];
    let library = || assert!(verify_batch(&texts, &theirs, &keys).is_ok());
    let ours = || assert!(verify_all(&claims).into_iter().all(|holds| holds));
    [on_all_cores(time, claims.len() as u64, &library), on_all_cores(time, claims.len() as u64, &ours)]
}

/// Repeats a piece of work on every core; gives how many of its parts were done a second.
fn on_all_cores(time: Duration, parts: u64, work: &(dyn Fn() + Sync)) -> Value {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let begin = Instant::now();
    let count: u64 = std::thread::scope(|scope| {
        let repeat = || {
            let mut done = 0;
            while begin.elapsed() < time {
                work();
                done += parts;
            }
            done
        };
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(repeat)).collect();
        handles.into_iter().map(|handle| handle.join().expect("a thread ends")).sum()
    });
    let rate = crate::report::per_second(count, begin.elapsed());
    json!({ "rate": rate, "threads": threads })
}
