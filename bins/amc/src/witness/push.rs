//! `witness push`: asks the outside witnesses that the trust policy names with a URL for cosignatures of the newest
//! checkpoint, and of the newest one that the other role cosigned, since a quorum is asked of one checkpoint. The notes
//! are kept beside the log. Only lines that verify under the pinned key are kept, so nobody has to trust this process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use amc_core::kinds::Role;
use amc_core::limits;
use amc_crypto::policy::Witness;
use amc_crypto::witness::{AddCheckpoint, decimal, parse_cosignatures};
use amc_crypto::{Checkpoint, CosignedCheckpoint, Note, TrustPolicy};
use amc_ledger::LogReader;
use amc_ledger::line::{
    self, COSIGNED_FILE, Statements, WITNESSED_DIR, gather, line_of, outside_notes, witnessed_name,
};
use amc_ledger::witness::Submission;
use amc_workspace::home;
use amc_workspace::{Answer, Failure, Opening};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, StatusCode};
use serde_json::json;

use crate::cli::WhichLogs;

use super::{ADD_CHECKPOINT, SIZE_TYPE};

/// A witness that takes longer is asked again at the next push.
const ANSWERS: Duration = Duration::from_secs(30);
/// The first try may meet a size, the second somebody else's; a third conflict is a fault.
const TRIES: usize = 3;

/// Asks every outside witness about the logs that are here.
pub(crate) fn push(opening: &Opening, logs: WhichLogs) -> Result<Answer, Failure> {
    let (home, policy, _) = opening.workspace()?;
    let outside: Vec<&Witness> = policy.witnesses().iter().filter(|witness| witness.url.is_some()).collect();
    if outside.is_empty() {
        let how = "add one: witness NAME VKEY URL, and let a group of the quorum count it";
        return Err(Failure::wrong(format!("{}: no witness has a URL; {how}", home.trust_policy_path().display())));
    }
    let roles = match logs {
        WhichLogs::Evidence => vec![Role::Monitor],
        WhichLogs::Audit => vec![Role::Auditor],
        WhichLogs::All => vec![Role::Monitor, Role::Auditor],
    };
    let here = roles.into_iter().map(|role| home.log(role)).filter(|dir| dir.is_dir());
    let client = client()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::unable)?;
    let policy = line::learned(&policy, &home.log(Role::Monitor), &home.log(Role::Auditor)).map_err(Failure::wrong)?;
    let dirs = [Role::Monitor, Role::Auditor].map(|role| line_of(&home.log(role), role)).concat();
    let statements = gather(&policy, &dirs).map_err(Failure::wrong)?;
    let (mut pushed, mut text, mut failed) = (Vec::new(), String::new(), Vec::new());
    for dir in here {
        let log = LogReader::open(&dir).map_err(Failure::wrong)?;
        let mut kept = Kept::load(&dir, &log, &policy, &statements)?;
        let origin = log.checkpoint().origin.clone();
        for witness in &outside {
            let mut known = kept.size_of(witness);
            for at in 0..kept.notes.len() {
                let (size, newest) = (kept.notes[at].size, at + 1 == kept.notes.len());
                // An older one only where the witness has not gone past it.
                if !newest && known >= size {
                    continue;
                }
                let asked = runtime.block_on(ask(&client, witness, &log, &kept.notes[at].note, known));
                match asked.and_then(|note| kept.notes[at].take(witness, &note)) {
                    Ok(time_s) => {
                        known = size;
                        text += &format!("{} cosigned {origin} at size {size}\n", witness.name);
                        pushed.push(json!({ "log": origin, "witness": witness.name, "size": size, "time_s": time_s }));
                    }
                    Err(why) if newest => failed.push(format!("{} did not cosign {origin}: {why}", witness.name)),
                    Err(_) => {}
                }
            }
        }
        kept.store(&dir)?;
    }
    if failed.is_empty() {
        return Ok(Answer::new(&json!({ "cosigned": pushed }), text));
    }
    Err(Failure::unable(failed.join("\n")))
}

/// The newest checkpoint that was kept in `dir`, where it proves itself under the policy.
pub(crate) fn cosigned(dir: &Path, policy: &TrustPolicy) -> Option<CosignedCheckpoint> {
    let bytes = home::read_bounded(&dir.join(COSIGNED_FILE), limits::NOTE_BYTES_MAX).ok()?;
    policy.check_signatures(Note::parse(&bytes).ok()?).ok()
}

/// What is kept of a log's outside cosignatures.
struct Kept {
    /// What was kept before, whatever its size.
    before: Vec<Note>,
    /// The checkpoints that are asked for, the newest last.
    notes: Vec<Growing>,
}

/// A checkpoint with what is known of it.
struct Growing {
    size: u64,
    note: Note,
    grew: bool,
}

impl Kept {
    fn load(dir: &Path, log: &LogReader, policy: &TrustPolicy, statements: &Statements) -> Result<Self, Failure> {
        let newest = log.latest_checkpoint().clone();
        policy.check_signatures(newest.clone()).map_err(Failure::bad)?;
        let kept = outside_notes(dir).map_err(Failure::wrong)?;
        let before: Vec<Note> = kept.into_iter().filter(|note| policy.check_signatures(note.clone()).is_ok()).collect();
        let Checkpoint { origin, size, .. } = log.checkpoint().clone();
        let by_role = statements.cosigned(&origin).filter(|state| state.checkpoint.size <= size);
        let by_role = by_role.max_by_key(|state| state.checkpoint.size).map(|state| state.note.clone());
        let asked = by_role.filter(|note| note.text() != newest.text()).into_iter().chain([newest]);
        let growing = |note: Note| {
            let size = Checkpoint::parse(note.text()).map_or(0, |checkpoint| checkpoint.size);
            let same = before.iter().find(|before| before.text() == note.text()).cloned();
            Growing { size, note: same.unwrap_or(note), grew: false }
        };
        let notes = asked.map(growing).collect();
        Ok(Kept { before, notes })
    }

    /// Size that this witness is known to have cosigned; 0 where nothing is known.
    fn size_of(&self, witness: &Witness) -> u64 {
        let signed = self.before.iter().filter(|note| matches!(note.verify_cosignature(&witness.key), Ok(Some(_))));
        let sizes = signed.filter_map(|note| Checkpoint::parse(note.text()).ok()).map(|checkpoint| checkpoint.size);
        sizes.max().unwrap_or(0)
    }

    fn store(&self, dir: &Path) -> Result<(), Failure> {
        for growing in self.notes.iter().filter(|growing| growing.grew) {
            let kept = dir.join(WITNESSED_DIR);
            home::make_dir(&kept).map_err(Failure::unable)?;
            let bytes = growing.note.to_string();
            home::write_atomic(&kept.join(witnessed_name(growing.size)), bytes.as_bytes()).map_err(Failure::unable)?;
        }
        // The newest has a name of its own, for whoever serves it.
        if let Some(newest) = self.notes.last().filter(|growing| growing.grew) {
            let bytes = newest.note.to_string();
            home::write_atomic(&dir.join(COSIGNED_FILE), bytes.as_bytes()).map_err(Failure::unable)?;
        }
        Ok(())
    }
}

impl Growing {
    /// Takes over the witness's own line, when it verifies.
    fn take(&mut self, witness: &Witness, answer: &Note) -> Result<u64, String> {
        let time_s = answer.verify_cosignature(&witness.key).map_err(|error| error.to_string())?;
        let time_s = time_s.ok_or("its answer has no cosignature under the pinned key")?;
        let (name, key_id) = (witness.key.name(), witness.key.key_id());
        for line in answer.signatures().iter().filter(|line| line.name == name && line.key_id == key_id) {
            if !self.note.signatures().contains(line) {
                self.note.push(line.clone());
                self.grew = true;
            }
        }
        Ok(time_s)
    }
}

/// The checkpoint with the lines that the witness answered.
async fn ask(client: &Client, witness: &Witness, log: &LogReader, note: &Note, known: u64) -> Result<Note, String> {
    let url = witness.url.as_deref().unwrap_or_default();
    let url = format!("{}/{ADD_CHECKPOINT}", url.trim_end_matches('/'));
    let mut old_size = known;
    for _ in 0..TRIES {
        let submission = Submission::of_note(log, note, old_size).map_err(|error| error.to_string())?;
        let Submission { note, old_size: from, proof } = submission;
        let body = AddCheckpoint { old_size: from, proof, note: note.clone() }.to_text();
        let response = client.post(&url).body(body).send().await.map_err(|error| reason(&error))?;
        let (status, kind) = (response.status(), response.headers().get(CONTENT_TYPE).cloned());
        let answer = bounded(response).await?;
        match status {
            StatusCode::OK => {
                let lines = parse_cosignatures(&answer).map_err(|error| error.to_string())?;
                return Ok(Note::new(note.text().to_owned(), lines));
            }
            StatusCode::CONFLICT if kind.is_some_and(|kind| kind.as_bytes().starts_with(SIZE_TYPE.as_bytes())) => {
                let text = String::from_utf8_lossy(&answer);
                old_size = text.strip_suffix('\n').and_then(decimal).ok_or("its 409 names no size")?;
            }
            status => {
                let text: String = String::from_utf8_lossy(&answer).chars().filter(|c| !c.is_control()).collect();
                return Err(format!("it answers {status}: {}", text.chars().take(200).collect::<String>()));
            }
        }
    }
    Err("it names another size every time".into())
}

/// The answer's body, which is short.
async fn bounded(mut response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| reason(&error))? {
        body.extend_from_slice(&chunk);
        if body.len() > limits::NOTE_BYTES_MAX {
            return Err("its answer is longer than any answer".into());
        }
    }
    Ok(body)
}

/// The innermost cause, which names what happened.
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// A client that asks once and follows nothing. Without CA certificates it still reaches `http://`.
fn client() -> Result<Client, Failure> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let tls = tls.map_err(Failure::unable)?.with_root_certificates(roots).with_no_client_auth();
    let client = Client::builder().tls_backend_preconfigured(tls).no_proxy();
    let client = client.redirect(reqwest::redirect::Policy::none()).retry(reqwest::retry::never());
    client.referer(false).timeout(ANSWERS).build().map_err(Failure::unable)
}
