//! Writes the seeds that come from the fixtures to `corpus/`; those written by hand stand there already.
//!
//! `cargo run --manifest-path fuzz/Cargo.toml --example seeds`, after a fixture of a new version has joined the others.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use amc_bundle::archive::{ArchiveReader, ArchiveWriter};
use amc_bundle::records::EventRecords;
use amc_core::SessionId;
use amc_core::kinds::SessionOutcome;
use amc_evidence::Event;
use amc_fuzz::segment_seed;
use amc_workspace::GatewayConfig;
use amc_workspace::protocol::operator::{CosignRequest, OperatorReply, OperatorRequest};
use amc_workspace::protocol::{Frame, PROTOCOL_VERSION, Refusal, encode_frame};
use serde::Serialize;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const MEMBER_BYTES_MAX: u64 = 1 << 20;
/// Seeds are kept small: a fuzzer looks at every byte.
const SEED_BYTES_MAX: usize = 16 << 10;

fn main() -> io::Result<()> {
    let read = |path: &str| fs::read(Path::new(ROOT).join(path));
    let bundle = read("fixtures/bundle/v1.amcbundle")?;
    let members = members(&bundle);
    from_bundle(&members)?;
    ledger(&read("fixtures/ledger/v1/segments/00000000000000000000.seg")?)?;
    write("checkpoint", "v1", &read("fixtures/ledger/v1/checkpoint")?)?;
    write("tile", "v1", &read("fixtures/ledger/v1/tile/0/000")?)?;
    write("bank", "shipped", amc_scoring::SHIPPED_BANK)?;
    write("policy", "v1", &read("fixtures/bundle/v1.trust.policy")?)?;
    write("config", "gateway", GatewayConfig::initial().render().as_bytes())?;
    frames()
}

fn members(bundle: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut reader = ArchiveReader::new(bundle);
    let mut members = BTreeMap::new();
    while let Some(header) = reader.next_member().expect("the fixture is an archive") {
        let bytes = reader.read_member(&header, MEMBER_BYTES_MAX).expect("the fixture's members are small");
        members.insert(header.name, bytes);
    }
    members
}

fn from_bundle(members: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut small = ArchiveWriter::new(&mut bytes);
    for (name, bytes) in members {
        println!("{name}: {} bytes", bytes.len());
        if name == "manifest.dsse.json" {
            write("envelope", "manifest", bytes)?;
            // The bundle's whole way, cut short after its manifest.
            small.append(name, bytes.len() as u64, &mut bytes.as_slice()).expect("memory takes it");
        }
        if name == "evidence/proof" || name == "audit/proof" {
            write("records", &name.replace('/', "-"), bytes)?;
        }
        if name == "evidence/payloads.zst" {
            write("records", "payloads", bytes)?;
        }
        if name == "run/report.json" {
            write("report", "v1", bytes)?;
        }
        if name == "run/seal.dsse.json" {
            write("envelope", "seal", bytes)?;
        }
        if name.ends_with("/checkpoint") {
            write("checkpoint", &name.replace('/', "-"), bytes)?;
        }
        if name == "evidence/events" || name == "audit/events" {
            write("records", &name.replace('/', "-"), &bytes[..bytes.len().min(SEED_BYTES_MAX)])?;
            events(bytes)?;
        }
    }
    for name in ["evidence/checkpoint", "evidence/proof", "trust.policy"] {
        let bytes = &members[name];
        small.append(name, bytes.len() as u64, &mut bytes.as_slice()).expect("memory takes it");
    }
    small.finish().expect("memory takes it");
    write("archive", "four-members", &bytes)?;
    write("bundle", "four-members", &bytes)
}

/// One event of every kind that occurs.
fn events(bytes: &[u8]) -> io::Result<()> {
    let mut reader = EventRecords::new(bytes);
    while let Some(signed) = reader.next_event().expect("the fixture's records") {
        let (event, _) = Event::decode(&signed.body).expect("the fixture's events");
        write("event", &format!("kind-{}", event.kind), &signed.body)?;
    }
    Ok(())
}

fn ledger(segment: &[u8]) -> io::Result<()> {
    write("segment", "frames", &segment_seed(segment, SEED_BYTES_MAX))?;
    let mut raw = vec![0];
    raw.extend_from_slice(&segment[..SEED_BYTES_MAX / 2]);
    write("segment", "file", &raw)
}

fn frames() -> io::Result<()> {
    let session = SessionId([7; 16]);
    let note = "o\n1\nAAAA\n\n— o AAAAAAAA\n".to_owned();
    frame("hello", OperatorRequest::Hello { protocol: PROTOCOL_VERSION })?;
    frame("seal", OperatorRequest::SealSession { session, outcome: SessionOutcome::Sealed })?;
    frame("cosign", OperatorRequest::Cosign(CosignRequest { note, old_size: 300, proof: vec![] }))?;
    frame("conflict", OperatorReply::CosignConflict { size: 70_000 })?;
    frame("refused", OperatorReply::Refused(Refusal::Invalid("no".into())))
}

fn frame<T: Serialize>(name: &str, body: T) -> io::Result<()> {
    write("frames", name, &encode_frame(&Frame { id: 1, body }).expect("it is small"))
}

fn write(target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let dir = Path::new(ROOT).join("fuzz/corpus").join(target);
    fs::create_dir_all(&dir)?;
    fs::write(dir.join(name), bytes)
}
