//! Looking at the logs. Reading needs no lock and no key; nothing here is verified but what says so.

use std::path::Path;

use amc_core::kinds::{Role, kind_name};
use amc_core::{Digest, timestamp};
use amc_crypto::{Checkpoint, Note, merkle};
use amc_evidence::Event;
use amc_evidence::event::{PayloadRef, Stored};
use amc_ledger::line::{gather, learned, line_of};
use amc_ledger::{LogReader, ReadError, StoredEvent};
use amc_workspace::home;
use amc_workspace::{Answer, Failure, Opening};
use serde_json::{Value, json};

use crate::cli::WhichLog;
use crate::witness;

/// Most events that one call shows.
const SHOWN_MAX: u64 = 10_000;

impl WhichLog {
    const fn role(self) -> Role {
        match self {
            WhichLog::Evidence => Role::Monitor,
            WhichLog::Audit => Role::Auditor,
        }
    }
}

fn open(opening: &Opening, log: WhichLog) -> Result<LogReader, Failure> {
    LogReader::open(&opening.home()?.log(log.role())).map_err(Failure::wrong)
}

pub(crate) fn head(opening: &Opening, log: WhichLog) -> Result<Answer, Failure> {
    let reader = open(opening, log)?;
    let (checkpoint, note) = (reader.checkpoint(), reader.latest_checkpoint().to_string());
    let cosigned = outside_cosignatures(opening, log)?;
    let mut text = note.clone();
    for witness in cosigned["witnesses"].as_array().into_iter().flatten() {
        text += &format!("cosigned at size {} by {}\n", cosigned["size"], witness["name"].as_str().unwrap_or("-"));
    }
    let data = json!({
        "origin": checkpoint.origin, "size": checkpoint.size, "root": checkpoint.root, "checkpoint": note,
        "cosigned": cosigned,
    });
    Ok(Answer::new(&data, text))
}

/// What `witness push` has kept, as far as it verifies under the trust policy; null where there is nothing.
fn outside_cosignatures(opening: &Opening, log: WhichLog) -> Result<Value, Failure> {
    let home = opening.home()?;
    let Ok(policy) = home.trust_policy() else { return Ok(Value::Null) };
    let (evidence, audit) = (home.log(Role::Monitor), home.log(Role::Auditor));
    let policy = learned(&policy, &evidence, &audit).map_err(Failure::wrong)?;
    let Some(cosigned) = witness::cosigned(&home.log(log.role()), &policy) else { return Ok(Value::Null) };
    let witnesses = cosigned.witnesses.iter().map(|(name, time_s)| json!({ "name": name, "time_s": time_s }));
    let witnesses: Vec<Value> = witnesses.collect();
    Ok(json!({ "size": cosigned.checkpoint.size, "witnesses": witnesses, "checkpoint": cosigned.note.to_string() }))
}

pub(crate) fn show(opening: &Opening, log: WhichLog, index: u64) -> Result<Answer, Failure> {
    let reader = open(opening, log)?;
    let missing = || Failure::wrong(format!("the log has {} events, so there is no event {index}", reader.size()));
    let stored = reader.event(index).map_err(Failure::bad)?.ok_or_else(missing)?;
    let shown = described(&stored)?;
    let text = serde_json::to_string_pretty(&shown).expect("plain values serialise") + "\n";
    Ok(Answer::new(&json!({ "events": [shown] }), text))
}

pub(crate) fn tail(opening: &Opening, log: WhichLog, count: u64) -> Result<Answer, Failure> {
    let reader = open(opening, log)?;
    let from = reader.size().saturating_sub(count.min(SHOWN_MAX));
    let events = reader.events(from).map(|stored| described(&stored.map_err(Failure::bad)?));
    let events = events.collect::<Result<Vec<Value>, Failure>>()?;
    let text = events.iter().map(line).collect::<String>();
    Ok(Answer::new(&json!({ "events": events }), text))
}

fn line(event: &Value) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or("-").to_owned();
    format!(
        "{:>6}  {}  {:<18} {:<10} {}\n",
        event["index"],
        text("wall_time"),
        text("kind"),
        text("tier"),
        text("agent_id")
    )
}

fn described(stored: &StoredEvent) -> Result<Value, Failure> {
    let (event, fields) = Event::decode(&stored.signed.body).map_err(Failure::bad)?;
    let kind = kind_name(event.kind).map_or_else(|| format!("kind {}", event.kind), str::to_owned);
    Ok(json!({
        "index": event.index, "event_hash": stored.signed.event_hash(), "kind": kind, "tier": event.tier,
        "agent_id": event.agent, "session_id": event.session, "wall_time": timestamp::to_rfc3339(event.wall_ns),
        "payload": event.payload.as_ref().map(payload), "fields": fields,
    }))
}

/// A payload reference with the names that the event format gives its parts.
fn payload(reference: &PayloadRef) -> Value {
    let (stored, differing) = match &reference.stored {
        Stored::Full => ("full", None),
        Stored::Redacted(bytes) => ("redacted", Some(bytes)),
        Stored::Truncated(bytes) => ("truncated", Some(bytes)),
        Stored::Omitted => ("omitted", None),
    };
    let mut shown = json!({
        "wire_sha256": reference.wire_sha256, "wire_len": reference.wire_len,
        "media_type": reference.media_type, "stored": stored,
    });
    if let Some(bytes) = differing {
        shown["stored_sha256"] = json!(bytes.sha256);
        shown["stored_len"] = json!(bytes.len);
        shown["rules"] = json!(bytes.rules);
    }
    shown
}

pub(crate) fn export(opening: &Opening, log: WhichLog, dir: &Path) -> Result<Answer, Failure> {
    let reader = open(opening, log)?;
    let done = reader.export_tiles(dir).map_err(|error| match error {
        ReadError::Damaged(finding) => Failure::bad("the log's tree was not exported").with(finding),
        error => Failure::wrong(error),
    })?;
    let data = json!({ "dir": dir, "size": done.size, "full": done.full, "partial": done.partial });
    let text = format!(
        "Wrote {} full and {} partial tiles of {} events to {}\n",
        done.full,
        done.partial,
        done.size,
        dir.display()
    );
    Ok(Answer::new(&data, text))
}

pub(crate) fn prove(opening: &Opening, log: WhichLog, event: Digest, out: &Path) -> Result<Answer, Failure> {
    let reader = open(opening, log)?;
    let mut found = None;
    for stored in reader.events(0) {
        let stored = stored.map_err(Failure::bad)?;
        if stored.signed.event_hash() == event {
            found = Some(stored);
            break;
        }
    }
    let stored = found.ok_or_else(|| Failure::wrong(format!("the log has no event {event}")))?;
    let (note, size, cosigned_by) = checkpoint_over(opening, &reader, stored.index)?;
    let tree = reader.tree().map_err(Failure::bad)?;
    let path = merkle::inclusion_proof(&tree, stored.index, size).map_err(Failure::bad)?;
    let text = amc_crypto::proof::encode(&stored.signed.body, stored.index, &path, &note);
    home::write_atomic(out, text.as_bytes()).map_err(Failure::wrong)?;
    let data = json!({
        "index": stored.index, "event_hash": event, "size": size, "cosigned_by": cosigned_by, "out": out,
    });
    let by = if cosigned_by.is_empty() {
        "not cosigned yet".to_owned()
    } else {
        format!("cosigned by {}", cosigned_by.join(", "))
    };
    Ok(Answer::new(&data, format!("Wrote {}: event {} of {size}, {by}\n", out.display(), stored.index)))
}

/// The newest checkpoint over this event for which the policy's quorum cosigned, with its size and the witnesses; the
/// published one where nobody did yet.
fn checkpoint_over(opening: &Opening, reader: &LogReader, index: u64) -> Result<(Note, u64, Vec<String>), Failure> {
    let (home, policy, _) = opening.workspace()?;
    let dirs = [Role::Monitor, Role::Auditor].map(|role| line_of(&home.log(role), role)).concat();
    let statements = gather(&policy, &dirs).map_err(Failure::wrong)?;
    let covers = |at: &Checkpoint| at.size > index && at.size <= reader.size();
    let newest = statements.newest_with_quorum(&reader.checkpoint().origin, covers);
    Ok(match newest {
        Some(state) => (state.note.clone(), state.checkpoint.size, state.witnesses.keys().cloned().collect()),
        None => (reader.latest_checkpoint().clone(), reader.size(), Vec::new()),
    })
}
