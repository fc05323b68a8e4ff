//! Appends a session to a log, which it creates: `cargo run -p amc-ledger --example write -- DIR`.

#[expect(dead_code, reason = "each example uses its part of it")]
mod key;

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use amc_core::kinds::{Isolation, ProcessOutput, SessionChannel, SessionOutcome, SessionPurpose, Stream};
use amc_core::{AgentId, SessionId, Tier};
use amc_evidence::{Content, Draft, PayloadRef, SessionPlan};
use amc_ledger::{Writer, create};

pub(crate) fn run(dir: &Path) -> Result<(), Box<dyn Error>> {
    let clock = Arc::new(key::Now(std::time::Instant::now()));
    if !dir.join("checkpoint").exists() {
        create(dir, key::opened(), &key::signers(), &*clock)?;
    }
    let writer = Writer::open(dir, key::signers(), clock)?;
    let (agent, size) = (AgentId::new("example-agent")?, writer.with_state(amc_evidence::LogState::size));
    let session = SessionId(u128::from(size).to_be_bytes());
    let of_session = |content| Draft {
        agent: Some(agent.clone()),
        session: Some(session),
        tier: Tier::Observed,
        payload: None,
        content,
    };

    let (argv, isolation) = (vec!["agent".to_owned()], Isolation::None);
    let (purpose, channel) = (SessionPurpose::Agent, SessionChannel::Wrapper);
    let plan = SessionPlan { purpose, channel, isolation, argv, artifact: None, lease: None };
    writer.append(of_session(Content::OpenSession(plan)), None)?;

    // Bytes stand apart from the event that names their hash.
    let bytes = b"what the agent said".to_vec();
    let fields = ProcessOutput { stream: Stream::Stdout, offset: 0, len: bytes.len() as u64 };
    let draft = of_session(Content::Fields(fields.into())).with_payload(PayloadRef::full(&bytes, "text/plain"));
    let appended = writer.append(draft, Some(bytes))?;
    println!("event {} is durable, its hash is {}", appended.index, appended.hash);

    writer.append(of_session(Content::SealSession(SessionOutcome::Sealed)), None)?;
    print!("{}", writer.close()?);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    run(Path::new(&std::env::args().nth(1).ok_or("which directory?")?))
}
