//! `ingest`: a file that somebody hands in, recorded as SELF_REPORTED evidence.
//!
//! The file is read and understood here, in a keyless process; the monitor gets typed counts and the
//! bytes. `docs/formats/ingest.md` says what each type is.

mod results;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use amc_core::kinds::{IngestType, Ingested};
use amc_core::{AgentId, limits, timestamp};
use amc_workspace::protocol::gateway::{Capture, CapturedPayload};
use amc_workspace::protocol::operator::{OperatorReply, OperatorRequest};
use amc_workspace::{Answer, Failure, Opening, duration, home};
use clap::Args;
use serde_json::json;

use crate::services;

/// The largest file that is taken; beyond what is stored whole, its digest still covers all of it.
const FILE_BYTES_MAX: usize = 16 << 20;
/// Bytes of a file's name that are kept.
const NAME_BYTES_MAX: usize = 255;
const NS_PER_S: i64 = 1_000_000_000;

/// What is handed in.
#[derive(Args)]
pub(crate) struct IngestPlan {
    /// The file.
    path: PathBuf,
    /// The agent that it is about.
    #[arg(long, value_name = "ID")]
    agent: AgentId,
    /// What it is.
    #[arg(long = "type", value_name = "TYPE")]
    ingest_type: IngestType,
    /// Until when a document counts: a length of time from now, or an RFC 3339 time.
    #[arg(long, value_name = "365d|RFC3339", default_value = "365d", value_parser = expiry)]
    expires: Expiry,
}

/// When a document ends to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expiry {
    InSeconds(u64),
    AtNs(i64),
}

fn expiry(text: &str) -> Result<Expiry, String> {
    let length = duration::seconds(text).map(Expiry::InSeconds);
    length.or_else(|problem| {
        let moment = timestamp::from_rfc3339(text).map(Expiry::AtNs);
        moment.map_err(|_| format!("{problem}, or an RFC 3339 time such as 2027-01-31T00:00:00Z"))
    })
}

impl Expiry {
    fn at_ns(self, now_ns: i64) -> Option<i64> {
        match self {
            Expiry::AtNs(at_ns) => Some(at_ns),
            Expiry::InSeconds(seconds) => {
                let ns = i64::try_from(seconds).ok()?.checked_mul(NS_PER_S)?;
                now_ns.checked_add(ns)
            }
        }
    }
}

pub(crate) fn ingest(opening: &Opening, plan: &IngestPlan) -> Result<Answer, Failure> {
    let bytes = home::read_bounded(&plan.path, FILE_BYTES_MAX).map_err(Failure::wrong)?;
    if bytes.is_empty() {
        return Err(Failure::wrong(format!("{} is empty; nothing was recorded", plan.path.display())));
    }
    let now_ns = now_ns()?;
    let (expires_ns, counts) = if plan.ingest_type.is_document() {
        let at_ns = plan.expires.at_ns(now_ns).filter(|at_ns| *at_ns > now_ns);
        (Some(at_ns.ok_or_else(|| Failure::wrong("a document has to expire in the time that is to come"))?), None)
    } else {
        let counts = results::read(plan.ingest_type, &bytes).map_err(|problem| {
            Failure::wrong(format!("{} is not what {} names: {problem}", plan.path.display(), plan.ingest_type))
        })?;
        (None, Some(counts))
    };
    let fields = Ingested { ingest_type: plan.ingest_type, name: name_of(&plan.path), expires_ns, counts };
    let request =
        OperatorRequest::Ingest { agent: plan.agent.clone(), fields, payload: payload(&bytes, plan.ingest_type) };
    let index = record(opening, request)?;
    let expires = expires_ns.map(timestamp::to_rfc3339);
    let sha256 = amc_crypto::sha256(&bytes);
    let data = json!({
        "index": index, "agent_id": plan.agent, "type": plan.ingest_type, "sha256": sha256, "expires": expires,
        "counts": counts,
    });
    let until = expires.map_or_else(String::new, |expires| format!(", until {expires}"));
    let text = format!(
        "Recorded {} as event {index}: {} of {}, SELF_REPORTED{until}\nThe auditor raises it with: amc attest --agent {} --event {index}\n",
        plan.path.display(),
        plan.ingest_type,
        plan.agent,
        plan.agent
    );
    Ok(Answer::new(&data, text))
}

/// Over the running monitor, else one that runs for this call.
fn record(opening: &Opening, request: OperatorRequest) -> Result<u64, Failure> {
    let home = opening.home()?;
    let starting = services::starting(&home)?;
    let mut started = None;
    let mut client = match services::connect(&home)? {
        Some(client) => client,
        None => {
            started = Some(services::start_monitor(opening, &home, true)?);
            let gone = || Failure::unable("the monitor stopped again; see its message above");
            services::connect(&home)?.ok_or_else(gone)?
        }
    };
    drop(starting);
    let reply = services::call(&mut client, request)?;
    services::call(&mut client, OperatorRequest::Leave)?;
    drop(client);
    if let Some(mut monitor) = started {
        // It ends with its last connection, which was ours.
        monitor.wait().map_err(Failure::unable)?;
    }
    match reply {
        OperatorReply::Recorded { index } => Ok(index),
        _ => Err(Failure::unable("the monitor gave an unexpected answer")),
    }
}

fn payload(bytes: &[u8], ingest_type: IngestType) -> CapturedPayload {
    let media_type = match ingest_type {
        IngestType::Junit => "application/xml",
        IngestType::Promptfoo | IngestType::InspectAi | IngestType::OtelTrace => "application/json",
        _ => "application/octet-stream",
    };
    let kept = &bytes[..bytes.len().min(limits::PAYLOAD_STORED_BYTES_MAX)];
    CapturedPayload {
        wire_sha256: amc_crypto::sha256(bytes),
        wire_len: bytes.len() as u64,
        media_type: media_type.to_owned(),
        capture: if kept.len() == bytes.len() { Capture::Full } else { Capture::Truncated(String::new()) },
        bytes: kept.to_vec(),
    }
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut name: String = name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    name.truncate(name.floor_char_boundary(NAME_BYTES_MAX));
    name
}

fn now_ns() -> Result<i64, Failure> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(Failure::unable)?;
    i64::try_from(since.as_nanos()).map_err(Failure::unable)
}
