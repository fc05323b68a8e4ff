//! Keys of a workspace, and a log in memory that keeps its rules.

use std::collections::BTreeMap;

use amc_core::kinds::{KeyPurpose, KeyRotated, LogHead, LogOpened, Role};
use amc_core::{AgentId, Digest, Finding, Instant, SOFTWARE, Tier, WorkspaceName};
use amc_crypto::config::{self, ConfigPredicate};
use amc_crypto::dsse::{self, Envelope};
use amc_crypto::merkle::MemoryTree;
use amc_crypto::note::{self, KeyKind, NoteSignature};
use amc_crypto::signer::{SignError, StatementSigner, event_message};
use amc_crypto::{Note, PublicKey, Signature, Statement, TrustPolicy, Unverified, VerifierKey};
use amc_evidence::{Draft, Event, EventTrust, KeyHistory, LogState, PayloadRef, SignedEvent, VerifiedEvent};
use ed25519_dalek::{Signer, SigningKey};

use crate::world::{BOOT, DAY, S, T0};

/// A key that signs statements.
pub(crate) struct Key(pub(crate) SigningKey);

impl Key {
    pub(crate) fn new(seed: u8) -> Self {
        Key(SigningKey::from_bytes(&[seed; 32]))
    }

    pub(crate) fn public(&self) -> PublicKey {
        PublicKey::from_bytes(&self.0.verifying_key().to_bytes()).expect("a good key")
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }

    pub(crate) fn envelope(&self, statement: &Statement) -> Envelope {
        let payload = statement.to_json();
        Envelope::new(&payload, self.public(), &self.sign(&dsse::pae(dsse::PAYLOAD_TYPE, &payload)))
    }

    pub(crate) fn config_sig(&self, path: &str, version: u64, agent: Option<&AgentId>, bytes: &[u8]) -> Vec<u8> {
        let predicate = ConfigPredicate { path: path.into(), version, agent: agent.cloned() };
        self.envelope(&config::statement(&predicate, amc_crypto::sha256(bytes))).to_json().into_bytes()
    }
}

impl StatementSigner for Key {
    fn public_key(&self) -> PublicKey {
        self.public()
    }

    fn sign_statement(&self, statement: &Statement) -> Result<Envelope, SignError> {
        Ok(self.envelope(statement))
    }
}

/// The four keys of a workspace.
pub(crate) struct Keys {
    pub(crate) name: WorkspaceName,
    pub(crate) monitor: Key,
    pub(crate) monitor_witness: Key,
    pub(crate) auditor: Key,
    pub(crate) auditor_witness: Key,
}

impl Keys {
    pub(crate) fn new(name: &str, seed: u8) -> Self {
        Keys {
            name: WorkspaceName::new(name).expect("a name"),
            monitor: Key::new(seed),
            monitor_witness: Key::new(seed + 1),
            auditor: Key::new(seed + 2),
            auditor_witness: Key::new(seed + 3),
        }
    }

    pub(crate) fn origin(&self, role: Role) -> String {
        format!("{}/{}", self.name, role.log_name())
    }

    fn log_key(&self, role: Role) -> &Key {
        match role {
            Role::Monitor => &self.monitor,
            Role::Auditor => &self.auditor,
        }
    }

    fn witness_key(&self, role: Role) -> &Key {
        match role {
            Role::Monitor => &self.monitor_witness,
            Role::Auditor => &self.auditor_witness,
        }
    }

    pub(crate) fn log_vkey(&self, role: Role) -> VerifierKey {
        VerifierKey::new(self.origin(role), KeyKind::Ed25519, self.log_key(role).public()).expect("a vkey")
    }

    pub(crate) fn witness_vkey(&self, role: Role) -> VerifierKey {
        let name = format!("{}/{role}-witness", self.name);
        VerifierKey::new(name, KeyKind::Cosignature, self.witness_key(role).public()).expect("a vkey")
    }

    pub(crate) fn policy_text(&self) -> String {
        let roles = [Role::Monitor, Role::Auditor];
        TrustPolicy::for_roles(
            &roles.map(|role| self.log_vkey(role)),
            &roles.map(|role| (role, self.witness_vkey(role))),
        )
    }

    pub(crate) fn policy(&self) -> TrustPolicy {
        TrustPolicy::parse(self.policy_text().as_bytes()).expect("a policy")
    }

    pub(crate) fn note(&self, role: Role, log: &Log) -> Note {
        let text = log.state.checkpoint().text();
        let key = self.log_key(role);
        let bytes = key.sign(text.as_bytes()).0.to_vec();
        let vkey = VerifierKey::new(log.state.origin(), KeyKind::Ed25519, key.public()).expect("a vkey");
        Note::new(text, vec![NoteSignature { name: vkey.name().into(), key_id: vkey.key_id(), bytes }])
    }

    pub(crate) fn cosign(&self, witness: Role, note: &mut Note, time_s: u64) {
        let signature = self.witness_key(witness).sign(&note::cosignature_message(note.text(), time_s));
        let bytes = [time_s.to_be_bytes().as_slice(), &signature.0].concat();
        let vkey = self.witness_vkey(witness);
        note.push(NoteSignature { name: vkey.name().into(), key_id: vkey.key_id(), bytes });
    }
}

/// A log with its events and its tree.
pub(crate) struct Log {
    pub(crate) state: LogState,
    pub(crate) events: Vec<VerifiedEvent>,
    pub(crate) tree: MemoryTree,
    pub(crate) payloads: BTreeMap<Digest, Vec<u8>>,
    key: SigningKey,
    now_ns: i64,
}

impl Log {
    pub(crate) fn open(keys: &Keys, role: Role, now_ns: i64) -> Self {
        Self::open_as(keys, role, keys.origin(role), None, now_ns)
    }

    /// The log that comes after one of this role that ended there.
    pub(crate) fn succeeding(keys: &Keys, role: Role, old: LogHead, now_ns: i64) -> Self {
        Self::open_as(keys, role, format!("{}/2", keys.origin(role)), Some(old), now_ns)
    }

    fn open_as(keys: &Keys, role: Role, origin: String, predecessor: Option<LogHead>, now_ns: i64) -> Self {
        let mut log = Log {
            state: LogState::new(&origin),
            events: Vec::new(),
            tree: MemoryTree::default(),
            payloads: BTreeMap::new(),
            key: keys.log_key(role).0.clone(),
            now_ns,
        };
        let opened = LogOpened {
            origin,
            role,
            log_public: keys.log_key(role).public().to_digest(),
            witness_public: keys.witness_key(role).public().to_digest(),
            software: SOFTWARE.into(),
            predecessor,
        };
        log.append(Draft::new(Tier::Observed, opened));
        log
    }

    /// The old key names the next one, which signs from then on.
    pub(crate) fn rotate(&mut self, purpose: KeyPurpose, next: &Key) {
        let rotated = KeyRotated { purpose, public: next.public().to_digest() };
        self.append(Draft::new(Tier::Observed, rotated));
        if purpose == KeyPurpose::Log {
            self.key = next.0.clone();
        }
    }

    /// Moves the log's clock.
    pub(crate) fn at(&mut self, now_ns: i64) -> &mut Self {
        assert!(now_ns >= self.now_ns, "time goes forward");
        self.now_ns = now_ns;
        self
    }

    pub(crate) fn now_ns(&self) -> i64 {
        self.now_ns
    }

    pub(crate) fn append(&mut self, draft: Draft) -> u64 {
        let (index, findings) = self.append_anything(draft);
        assert_eq!(findings, [], "the log keeps its rules");
        index
    }

    /// Appends what breaks the rules of sessions, signed all the same, and says what is wrong with it.
    pub(crate) fn append_anything(&mut self, draft: Draft) -> (u64, Vec<Finding>) {
        self.now_ns += S / 100;
        let boot_ns = u64::try_from(self.now_ns - T0 + 1_000 * DAY).expect("after boot");
        let now = Instant { wall_ns: self.now_ns, boot_ns, boot_id: BOOT };
        let event = self.state.build(draft, &now).expect("fits the log").event;
        self.take(&event)
    }

    pub(crate) fn append_payload(&mut self, draft: Draft, bytes: &[u8]) -> u64 {
        self.payloads.insert(amc_crypto::sha256(bytes), bytes.to_vec());
        self.append(draft.with_payload(PayloadRef::full(bytes, "text/plain")))
    }

    fn take(&mut self, event: &Event) -> (u64, Vec<Finding>) {
        let signed = sign_event(&self.key, self.state.origin(), event);
        let public = PublicKey::from_bytes(&self.key.verifying_key().to_bytes()).expect("a good key");
        let keys = KeyHistory::pinned(public);
        let record = Unverified::new(signed)
            .verify(&EventTrust { origin: self.state.origin(), keys: &keys })
            .expect("just signed");
        let findings = self.state.apply(&record.event, record.fields.as_ref(), record.hash);
        self.tree.push(record.hash);
        let index = record.event.index;
        self.events.push(record);
        (index, findings)
    }
}

pub(crate) fn sign_event(key: &SigningKey, origin: &str, event: &Event) -> SignedEvent {
    let body = event.encode();
    let hash = amc_crypto::leaf_hash(&body);
    SignedEvent { body, signature: Signature(key.sign(&event_message(origin, &hash)).to_bytes()) }
}
