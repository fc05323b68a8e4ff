//! Trust policies (C2SP tlog-policy): pinned logs, pinned witnesses, and the quorum.
//!
//! AMC adds one rule: a witness of a role does not count for that role's own log of its own
//! workspace, so nobody can be their own witness. A role's witness is called `monitor-witness` or
//! `auditor-witness` in the policy, or `<workspace>/monitor-witness` and `/auditor-witness` by its key.
//!
//! The file pins first keys only. What pinned keys signed since (the next key, the successor of a log)
//! is *learned* from verified logs by the `learn_…` functions, and never parsed.

use std::collections::{BTreeMap, BTreeSet};

use amc_core::kinds::Role;
use amc_core::{Digest, limits};

use crate::checkpoint::{Checkpoint, CheckpointError, CosignedCheckpoint};
use crate::key::PublicKey;
use crate::note::{KeyKind, Note, VerifierKey};
use crate::trust::Check;

/// Most logs, witnesses or groups in one policy.
const ENTRIES_MAX: usize = 64;

/// A pinned witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// Its name in the policy.
    pub name: String,
    /// Its cosignature key.
    pub key: VerifierKey,
    /// Where it can be asked, where the policy says.
    pub url: Option<String>,
}

/// What is trusted: parsed from the text of a policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustPolicy {
    logs: Vec<VerifierKey>,
    witnesses: Vec<Witness>,
    groups: BTreeMap<String, (usize, Vec<String>)>,
    quorum: Option<String>,
    /// Successors of pinned logs.
    successors: Vec<VerifierKey>,
    /// Keys of logs by position, where there is more than the first.
    histories: BTreeMap<String, Vec<(u64, PublicKey)>>,
    /// Log keys whose envelopes count no longer.
    revoked: BTreeSet<Digest>,
}

/// A policy file that breaks a rule, with its line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("trust policy, line {line}: {what}")]
pub struct PolicyError {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub what: String,
}

impl TrustPolicy {
    /// Parses policy text.
    ///
    /// # Errors
    /// [`PolicyError`] at the first line that breaks a rule.
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        let fail = |line: usize, what: &str| PolicyError { line, what: what.to_owned() };
        if bytes.len() > limits::POLICY_BYTES_MAX {
            return Err(fail(1, "the file is larger than 64 KiB"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| fail(1, "the file is not UTF-8"))?;
        if !text.is_empty() && !text.ends_with('\n') {
            return Err(fail(text.lines().count(), "the last line has no newline"));
        }
        let mut parser = Parser::default();
        for (at, line) in text.split_terminator('\n').enumerate() {
            if line.chars().any(|c| c.is_control() && c != '\t') {
                return Err(fail(at + 1, "control characters"));
            }
            let items: Vec<&str> = line.split([' ', '\t']).filter(|item| !item.is_empty()).collect();
            parser.line(&items).map_err(|what| PolicyError { line: at + 1, what })?;
        }
        let quorum = parser.quorum.ok_or_else(|| fail(text.lines().count().max(1), "no quorum line"))?;
        let Parser { logs, witnesses, groups, .. } = parser;
        Ok(TrustPolicy {
            logs,
            witnesses,
            groups,
            quorum,
            successors: Vec::new(),
            histories: BTreeMap::new(),
            revoked: BTreeSet::new(),
        })
    }

    /// The policy that `init` writes: both logs, both roles' witnesses, any of them a quorum.
    pub fn for_roles(logs: &[VerifierKey], witnesses: &[(Role, VerifierKey)]) -> String {
        let mut text = String::from("# Pinned keys. Whoever changes this file changes whom this workspace trusts.\n");
        for key in logs {
            text += &format!("log {key}\n");
        }
        for (role, key) in witnesses {
            text += &format!("witness {role}-witness {key}\n");
        }
        let names: Vec<String> = witnesses.iter().map(|(role, _)| format!("{role}-witness")).collect();
        text + &format!("group roles any {}\nquorum roles\n", names.join(" "))
    }

    /// The first key of the log with this origin: pinned, or learned of a successor.
    pub fn log(&self, origin: &str) -> Option<&VerifierKey> {
        self.logs.iter().chain(&self.successors).find(|key| key.name() == origin)
    }

    /// Whether the file itself pins the log with this origin.
    pub fn pins(&self, origin: &str) -> bool {
        self.logs.iter().any(|key| key.name() == origin)
    }

    /// The key that signs this log's checkpoint of `size`: the one that signed the last event in it.
    pub fn log_key_at(&self, origin: &str, size: u64) -> Option<VerifierKey> {
        let first = self.log(origin)?;
        let Some(spans) = self.histories.get(origin) else { return Some(first.clone()) };
        let last = size.saturating_sub(1);
        let key = spans.iter().rev().find(|(from, _)| *from <= last).map_or(first.public(), |(_, key)| *key);
        VerifierKey::new(origin, KeyKind::Ed25519, key).ok()
    }

    /// Every key that this log had, the first one first.
    pub fn log_keys(&self, origin: &str) -> Vec<PublicKey> {
        let first = self.log(origin).map(VerifierKey::public);
        let later = self.histories.get(origin).into_iter().flatten().map(|(_, key)| *key);
        let mut keys: Vec<PublicKey> = first.into_iter().collect();
        for key in later {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }

    /// Every key that the logs of a role in a workspace had, pinned and learned, save revoked ones: an
    /// envelope stands nowhere in a log, so nobody can tell whether a stolen key signed it before or after.
    pub fn keys_of_role(&self, workspace: &str, role: Role) -> Vec<PublicKey> {
        let ours = |key: &&VerifierKey| {
            role_of_origin(key.name()) == Some(role) && workspace_of_origin(key.name()) == workspace
        };
        let logs = self.logs.iter().chain(&self.successors).filter(ours);
        let mut keys = Vec::new();
        for key in logs.flat_map(|log| self.log_keys(log.name())) {
            if !keys.contains(&key) && !self.revoked.contains(&key.to_digest()) {
                keys.push(key);
            }
        }
        keys
    }

    /// Takes out a log key that was revoked: envelopes under it no longer count. What it signed in its
    /// log counts by position, as ever.
    pub fn discount_log_key(&mut self, public: Digest) {
        self.revoked.insert(public);
    }

    /// The witness of a role in a workspace, where it is pinned.
    fn role_witness(&self, workspace: &str, role: Role) -> Option<&Witness> {
        let name = format!("{workspace}/{role}-witness");
        self.witnesses.iter().find(|witness| witness.key.name() == name)
    }

    /// Takes in the keys of a log by position, as a verification of that log under its first key gave
    /// them: the index from which each signs, ascending.
    pub fn learn_log_keys(&mut self, origin: &str, spans: &[(u64, PublicKey)]) {
        let begins_pinned = self.log(origin).is_some_and(|key| spans.first() == Some(&(0, key.public())));
        if begins_pinned && spans.len() > 1 {
            self.histories.insert(origin.to_owned(), spans.to_vec());
        }
    }

    /// Takes in the first key of a successor that the other role's verified log names.
    pub fn learn_successor(&mut self, key: VerifierKey) {
        if self.log(key.name()).is_none() {
            self.successors.push(key);
        }
    }

    /// Takes in a role's next witness key, which the role's verified log names: it counts where the
    /// pinned one of that role counts.
    pub fn learn_witness_key(&mut self, workspace: &str, role: Role, public: PublicKey) {
        let Some(pinned) = self.role_witness(workspace, role) else { return };
        let known = self.witnesses.iter().any(|witness| witness.key.public() == public);
        if let (false, Ok(key)) = (known, VerifierKey::new(pinned.key.name(), KeyKind::Cosignature, public)) {
            let next = Witness { name: pinned.name.clone(), key, url: pinned.url.clone() };
            self.witnesses.push(next);
        }
    }

    /// Takes out a witness's key that was revoked: its cosignatures no longer count.
    pub fn discount_witness(&mut self, public: PublicKey) {
        self.witnesses.retain(|witness| witness.key.public() != public);
    }

    /// All pinned logs.
    pub fn logs(&self) -> &[VerifierKey] {
        &self.logs
    }

    /// All pinned witnesses.
    pub fn witnesses(&self) -> &[Witness] {
        &self.witnesses
    }

    /// Whether the policy asks for cosignatures at all.
    pub const fn wants_quorum(&self) -> bool {
        self.quorum.is_some()
    }

    /// The log's own signature and every cosignature of a pinned witness; the quorum is not asked
    /// for. Use this only where a fresh checkpoint is looked at before it can be cosigned.
    ///
    /// # Errors
    /// [`CheckpointError`] when the text is no checkpoint, the log is not pinned, or a signature of
    /// a pinned key does not verify.
    pub fn check_signatures(&self, note: Note) -> Result<CosignedCheckpoint, CheckpointError> {
        let checkpoint = Checkpoint::parse(note.text())?;
        let unknown = || CheckpointError::UnknownLog(checkpoint.origin.clone());
        let key = self.log_key_at(&checkpoint.origin, checkpoint.size).ok_or_else(unknown)?;
        note.verify_signature(&key)?;
        let mut witnesses = Vec::new();
        for witness in &self.witnesses {
            if let Some(time_s) = note.verify_cosignature(&witness.key)?
                && !is_own_witness(&checkpoint.origin, witness)
            {
                witnesses.push((witness.name.clone(), time_s));
            }
        }
        Ok(CosignedCheckpoint { checkpoint, witnesses, note })
    }

    /// Whether these cosigners (names in this policy) are a quorum.
    pub fn is_quorum(&self, witnesses: &[(String, u64)]) -> bool {
        let Some(quorum) = &self.quorum else { return true };
        let present: BTreeSet<&str> = witnesses.iter().map(|(name, _)| name.as_str()).collect();
        self.holds(quorum, &present)
    }

    fn holds(&self, name: &str, present: &BTreeSet<&str>) -> bool {
        match self.groups.get(name) {
            None => present.contains(name),
            Some((needed, members)) => members.iter().filter(|member| self.holds(member, present)).count() >= *needed,
        }
    }
}

/// A signed note becomes a cosigned checkpoint when a pinned log signed it and the quorum holds.
impl Check<Note> for TrustPolicy {
    type Output = CosignedCheckpoint;
    type Error = CheckpointError;

    fn check(&self, note: Note) -> Result<CosignedCheckpoint, CheckpointError> {
        let cosigned = self.check_signatures(note)?;
        if self.is_quorum(&cosigned.witnesses) {
            Ok(cosigned)
        } else {
            let Checkpoint { origin, size, .. } = cosigned.checkpoint;
            Err(CheckpointError::NoQuorum { origin, size })
        }
    }
}

/// The role whose log has this origin: `<workspace>/evidence` or `/audit`, or a successor
/// (`<workspace>/evidence/2`).
pub fn role_of_origin(origin: &str) -> Option<Role> {
    let (_, rest) = origin.split_once('/')?;
    let (log, number) = rest.split_once('/').unwrap_or((rest, "2"));
    let numbered = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    [Role::Monitor, Role::Auditor].into_iter().find(|role| numbered && role.log_name() == log)
}

/// The workspace whose log has this origin.
pub fn workspace_of_origin(origin: &str) -> &str {
    origin.split('/').next().unwrap_or_default()
}

/// The number of a log in its role's line: 1, or what stands behind a successor's name.
pub fn number_of_origin(origin: &str) -> Option<u64> {
    role_of_origin(origin)?;
    match origin.splitn(3, '/').nth(2) {
        None => Some(1),
        Some(number) => number.parse().ok().filter(|n: &u64| *n > 1 && n.to_string() == number),
    }
}

/// Whether a log comes before another of the same role and workspace.
pub fn precedes(origin: &str, than: &str) -> bool {
    let role = role_of_origin(origin);
    let same =
        role.is_some() && role == role_of_origin(than) && workspace_of_origin(origin) == workspace_of_origin(than);
    same && number_of_origin(origin).zip(number_of_origin(than)).is_some_and(|(number, than)| number < than)
}

/// A role's witness is nobody for that role's log of its own workspace. In the policy the role's own
/// name is kept for this workspace's witness, whatever its key is called.
fn is_own_witness(origin: &str, witness: &Witness) -> bool {
    role_of_origin(origin).is_some_and(|role| {
        let own = format!("{role}-witness");
        witness.name == own || witness.key.name() == format!("{}/{own}", workspace_of_origin(origin))
    })
}

#[derive(Default)]
struct Parser {
    logs: Vec<VerifierKey>,
    witnesses: Vec<Witness>,
    groups: BTreeMap<String, (usize, Vec<String>)>,
    used: BTreeSet<String>,
    quorum: Option<Option<String>>,
}

impl Parser {
    fn line(&mut self, items: &[&str]) -> Result<(), String> {
        match items {
            [] => Ok(()),
            [first, ..] if first.starts_with('#') => Ok(()),
            ["log", key] | ["log", key, _] => self.log(key),
            ["witness", name, key] => self.witness(name, key, None),
            ["witness", name, key, url] => self.witness(name, key, Some(url)),
            ["group", name, threshold, members @ ..] => self.group(name, threshold, members),
            ["quorum", name] => self.quorum(name),
            [first, ..] => Err(format!("{first:?} with {} items is not a policy line", items.len() - 1)),
        }
    }

    fn log(&mut self, key: &str) -> Result<(), String> {
        let key: VerifierKey = key.parse().map_err(|error| format!("{error}"))?;
        if key.kind() != KeyKind::Ed25519 {
            return Err("a log's key is of type Ed25519 (1)".into());
        }
        if self.logs.iter().any(|known| known.public() == key.public() || known.name() == key.name()) {
            return Err(format!("the log {} or its key stands there already", key.name()));
        }
        self.logs.push(key);
        full(self.logs.len())
    }

    fn witness(&mut self, name: &str, key: &str, url: Option<&str>) -> Result<(), String> {
        let key: VerifierKey = key.parse().map_err(|error| format!("{error}"))?;
        if key.kind() != KeyKind::Cosignature {
            return Err("a witness's key is of type cosignature (4)".into());
        }
        if self.witnesses.iter().any(|known| known.key.public() == key.public()) {
            return Err("this witness's key stands there already".into());
        }
        self.fresh(name)?;
        self.witnesses.push(Witness { name: name.to_owned(), key, url: url.map(str::to_owned) });
        full(self.witnesses.len())
    }

    fn group(&mut self, name: &str, threshold: &str, members: &[&str]) -> Result<(), String> {
        let needed = match threshold {
            "all" => members.len(),
            "any" => 1,
            number if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                number.parse().map_err(|_| format!("{number} is too large"))?
            }
            other => return Err(format!("{other:?} is neither all, any nor a number")),
        };
        if needed == 0 || needed > members.len() {
            return Err(format!("a group of {} cannot need {needed}", members.len()));
        }
        self.fresh(name)?;
        for member in members {
            if !self.known(member) {
                return Err(format!("{member:?} is not defined above"));
            }
            if !self.used.insert((*member).to_owned()) {
                return Err(format!("{member:?} is a member twice"));
            }
        }
        self.groups.insert(name.to_owned(), (needed, members.iter().map(|m| (*m).to_owned()).collect()));
        full(self.groups.len())
    }

    fn quorum(&mut self, name: &str) -> Result<(), String> {
        if self.quorum.is_some() {
            return Err("a second quorum line".into());
        }
        if name != "none" && !self.known(name) {
            return Err(format!("{name:?} is not defined above"));
        }
        self.quorum = Some((name != "none").then(|| name.to_owned()));
        Ok(())
    }

    fn known(&self, name: &str) -> bool {
        self.groups.contains_key(name) || self.witnesses.iter().any(|witness| witness.name == name)
    }

    fn fresh(&self, name: &str) -> Result<(), String> {
        if name == "none" || self.known(name) { Err(format!("the name {name:?} is taken")) } else { Ok(()) }
    }
}

fn full(count: usize) -> Result<(), String> {
    if count > ENTRIES_MAX { Err(format!("more than {ENTRIES_MAX} of one sort")) } else { Ok(()) }
}
