//! Proves that the newest event stands in a log, and that the log only grew, to somebody who has
//! the public key and nothing else of it: `cargo run -p amc-ledger --example prove -- DIR`.

#[expect(dead_code, reason = "each example uses its part of it")]
mod key;

use std::error::Error;
use std::path::Path;

use amc_crypto::merkle::{consistency_proof, inclusion_proof, root_at, verify_consistency, verify_inclusion};
use amc_crypto::{Checkpoint, Note, leaf_hash};
use amc_ledger::LogReader;

pub(crate) fn run(dir: &Path) -> Result<(), Box<dyn Error>> {
    // The side that has the log reads some hashes from its tiles.
    let reader = LogReader::open(dir)?;
    let (tree, size) = (reader.tree()?, reader.size());
    let index = size.checked_sub(1).ok_or("the log is empty")?;
    let event = reader.event(index)?.ok_or("the log ended early")?;
    let inclusion = inclusion_proof(&tree, index, size)?;
    let (old_size, old_root) = (size.div_ceil(2), root_at(&tree, size.div_ceil(2))?);
    let consistency = consistency_proof(&tree, old_size, size)?;
    let sent = (event.signed.body, reader.latest_checkpoint().to_string());

    // The other side has a pinned key, the event, a signed checkpoint and the hashes.
    let (body, note) = (sent.0, Note::parse(sent.1.as_bytes())?);
    note.verify_signature(&key::pinned())?;
    let checkpoint = Checkpoint::parse(note.text())?;
    verify_inclusion(leaf_hash(&body), index, checkpoint.size, &inclusion, &checkpoint.root)?;
    println!("event {index} of {} is proven by {} hashes", checkpoint.size, inclusion.len());

    // And remembers the root of an earlier size.
    verify_consistency(old_size, checkpoint.size, &consistency, &old_root, &checkpoint.root)?;
    println!("the first {old_size} events are the same ones, by {} hashes", consistency.len());
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    run(Path::new(&std::env::args().nth(1).ok_or("which directory?")?))
}
