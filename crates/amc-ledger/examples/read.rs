//! Reads a log and verifies it: `cargo run -p amc-ledger --example read -- DIR`. Needs no lock and
//! no key but the public one, and works beside the writer, on a copy, on a read-only mount.

#[expect(dead_code, reason = "each example uses its part of it")]
mod key;

use std::error::Error;
use std::path::Path;

use amc_core::kinds::kind_name;
use amc_evidence::Event;
use amc_ledger::{LogReader, VerifyOptions, verify};

pub(crate) fn run(dir: &Path) -> Result<(), Box<dyn Error>> {
    let reader = LogReader::open(dir)?;
    println!("{} events of {}", reader.size(), reader.checkpoint().origin);
    for stored in reader.events(0) {
        // Frames are checked here; signatures and rules are not.
        let stored = stored?;
        let (event, _) = Event::decode(&stored.signed.body)?;
        let payload = match &event.payload {
            Some(payload) => reader.payload(payload, stored.payload_location)?,
            None => None,
        };
        let kept = payload.map_or_else(String::new, |bytes| format!(", {} bytes beside it", bytes.len()));
        println!("{:>4} {}{kept}", stored.index, kind_name(event.kind).unwrap_or("unknown"));
    }

    // What anything is to rest on comes from here: each event signed, in its place, by the rules.
    let (pinned, mut verified) = (key::pinned(), Vec::new());
    let report = verify(dir, &VerifyOptions::full(&pinned), &mut |event| verified.push(event))?;
    for finding in &report.findings {
        println!("{finding}");
    }
    println!("{} of {} events verify; good: {}", verified.len(), report.events, report.is_good());
    if report.is_good() { Ok(()) } else { Err("the log does not verify".into()) }
}

fn main() -> Result<(), Box<dyn Error>> {
    run(Path::new(&std::env::args().nth(1).ok_or("which directory?")?))
}
