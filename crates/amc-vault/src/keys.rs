//! The keys of an unlocked compartment, one type per purpose.
//!
//! Each signs typed values of one kind, builds the signed bytes itself, and refuses what is not its
//! own: another log's checkpoint, its own role's checkpoint as a witness, another log's receipt.
//! A role's log key serves events, checkpoints and (monitor) receipts or (auditor) envelopes; what
//! is signed for one purpose cannot be taken for another, because the messages begin differently:
//!
//! | purpose | the signed bytes begin with |
//! |---|---|
//! | event | `amc/event/v1` and a newline |
//! | checkpoint | `<workspace>/evidence` or `<workspace>/audit`, a successor's number, and a newline |
//! | cosignature (a key of its own) | `cosignature/v1` and a newline |
//! | receipt | `eyJ`, the base64url of `{"`; no workspace name has capitals |
//! | envelope | `DSSEv1 `; no workspace name has capitals or spaces |

use std::fmt;
use std::sync::Arc;

use amc_core::kinds::Role;
use amc_core::{Digest, WorkspaceName};
use amc_crypto::dsse::{self, Envelope};
use amc_crypto::jws::{self, ReceiptClaims};
use amc_crypto::note::{self, KeyKind, NoteSignature, VerifierKey};
use amc_crypto::policy::{role_of_origin, workspace_of_origin};
use amc_crypto::signer::{self, CheckpointSigner, Cosigner, EventSigner, ReceiptSigner, SignError, StatementSigner};
use amc_crypto::{Checkpoint, PublicKey, Signature, Statement};
use ed25519_dalek::{Signer as _, SigningKey};

use crate::contents::{Contents, Secrets};
use crate::number::LogNumber;
use crate::secret::Secret32;

/// Context of the key for commitments (BLAKE3 `derive_key`).
const COMMITMENT_CONTEXT: &str = "amc vault v1: key for commitments to redacted secrets";

/// An Ed25519 key with its verifier key. The inner signing key wipes itself when dropped.
struct NamedKey {
    signing: SigningKey,
    verifier: VerifierKey,
}

impl NamedKey {
    fn new(seed: &Secret32, name: String, kind: KeyKind) -> Self {
        let signing = SigningKey::from_bytes(seed.expose());
        let public = public_of(seed);
        let verifier = VerifierKey::new(name, kind, public).expect("workspace names are valid in key names");
        NamedKey { signing, verifier }
    }

    /// The same key under another log's name.
    fn renamed(&self, name: String) -> Self {
        let verifier = VerifierKey::new(name, self.verifier.kind(), self.verifier.public());
        NamedKey { signing: self.signing.clone(), verifier: verifier.expect("origins are valid in key names") }
    }

    fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.signing.sign(message).to_bytes())
    }

    fn note_signature(&self, bytes: Vec<u8>) -> NoteSignature {
        NoteSignature { name: self.verifier.name().to_owned(), key_id: self.verifier.key_id(), bytes }
    }
}

macro_rules! redacted {
    ($($name:ident => $shown:expr),+ $(,)?) => {
        $(impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let shown: fn(&Self) -> &str = $shown;
                write!(f, concat!(stringify!($name), "({}, [redacted])"), shown(self))
            }
        })+
    };
}

redacted! {
    LogKey => |key| key.0.verifier.name(),
    ReceiptKey => |key| key.0.verifier.name(),
    EnvelopeKey => |key| key.0.verifier.name(),
    WitnessKey => |key| key.key.verifier.name(),
    CommitmentKey => |_| "blake3",
}

/// A role's log key: signs events and checkpoints of `<workspace>/evidence` or `<workspace>/audit`,
/// or of one successor of it (see [`LogKey::of_log`]).
///
/// It cannot be copied:
///
/// ```compile_fail,E0599
/// fn copy(key: &amc_vault::LogKey) -> amc_vault::LogKey {
///     let copied: amc_vault::LogKey = amc_vault::LogKey::clone(key);
///     copied
/// }
/// ```
pub struct LogKey(Arc<NamedKey>);

/// The monitor's log key in its other duty: receipts.
pub struct ReceiptKey(Arc<NamedKey>);

/// The auditor's log key in its other duty: DSSE envelopes.
pub struct EnvelopeKey(Arc<NamedKey>);

/// A role's witness key, `<workspace>/monitor-witness` or `<workspace>/auditor-witness`.
pub struct WitnessKey {
    role: Role,
    key: Arc<NamedKey>,
}

/// Makes keyed BLAKE3 commitments to secrets that were redacted: the same secret gives the same
/// commitment within a workspace, and nobody without the key can test a guess.
pub struct CommitmentKey(Secret32);

/// What the monitor can do once its compartment is unlocked.
#[derive(Debug)]
pub struct MonitorKeys {
    /// Events and checkpoints of the evidence log.
    pub log: LogKey,
    /// Receipts of events of the evidence log.
    pub receipts: ReceiptKey,
    /// Cosignatures of other logs' checkpoints.
    pub witness: WitnessKey,
    /// Commitments to redacted secrets.
    pub commitments: CommitmentKey,
    /// Provider secrets.
    pub secrets: Secrets,
    /// What is about to become of the keys.
    pub next: NextKeys,
}

/// Keys of a rotation that is under way. Which key is in force is what the role's log says: the old
/// one until the log names the next, then that one.
#[derive(Debug, Default)]
pub struct NextKeys {
    /// The log key's successor.
    pub log: Option<LogKey>,
    /// The witness key's successor.
    pub witness: Option<WitnessKey>,
}

/// What the auditor can do once its compartment is unlocked.
#[derive(Debug)]
pub struct AuditorKeys {
    /// Events and checkpoints of the audit log.
    pub log: LogKey,
    /// Envelopes: seals, configurations, attestations, manifests, certificates.
    pub envelopes: EnvelopeKey,
    /// Cosignatures of other logs' checkpoints.
    pub witness: WitnessKey,
    /// What is about to become of the keys.
    pub next: NextKeys,
}

/// The keys of an unlocked compartment.
#[derive(Debug)]
pub enum RoleKeys {
    /// The monitor's.
    Monitor(MonitorKeys),
    /// The auditor's.
    Auditor(AuditorKeys),
}

impl RoleKeys {
    pub(crate) fn new(contents: Contents) -> Self {
        match contents.role {
            Role::Monitor => RoleKeys::Monitor(MonitorKeys::new(contents)),
            Role::Auditor => RoleKeys::Auditor(AuditorKeys::new(contents)),
        }
    }

    /// Whose keys these are.
    pub const fn role(&self) -> Role {
        match self {
            RoleKeys::Monitor(_) => Role::Monitor,
            RoleKeys::Auditor(_) => Role::Auditor,
        }
    }

    /// The key of the role's log.
    pub const fn log(&self) -> &LogKey {
        match self {
            RoleKeys::Monitor(keys) => &keys.log,
            RoleKeys::Auditor(keys) => &keys.log,
        }
    }

    /// The role's witness key.
    pub const fn witness(&self) -> &WitnessKey {
        match self {
            RoleKeys::Monitor(keys) => &keys.witness,
            RoleKeys::Auditor(keys) => &keys.witness,
        }
    }

    /// Takes the two keys that every role has: its log's and its witness's.
    pub fn into_log_and_witness(self) -> (LogKey, WitnessKey) {
        match self {
            RoleKeys::Monitor(keys) => (keys.log, keys.witness),
            RoleKeys::Auditor(keys) => (keys.log, keys.witness),
        }
    }

    /// The keys of a rotation that is under way.
    pub const fn next(&self) -> &NextKeys {
        match self {
            RoleKeys::Monitor(keys) => &keys.next,
            RoleKeys::Auditor(keys) => &keys.next,
        }
    }
}

impl NextKeys {
    fn new(contents: &Contents) -> Self {
        let origin = || LogNumber::FIRST.origin(&contents.workspace, contents.role);
        let log = contents.next_log_seed.as_ref().map(|seed| NamedKey::new(seed, origin(), KeyKind::Ed25519));
        let witness = contents.next_witness_seed.as_ref();
        NextKeys {
            log: log.map(|key| LogKey(Arc::new(key))),
            witness: witness.map(|seed| WitnessKey::new(contents.role, &contents.workspace, seed)),
        }
    }

    fn of_log(self, number: LogNumber) -> Self {
        NextKeys { log: self.log.map(|key| key.of_log(number)), ..self }
    }

    fn handles(&self) -> Self {
        NextKeys { log: self.log.as_ref().map(LogKey::handle), witness: self.witness.as_ref().map(WitnessKey::handle) }
    }
}

/// The public half of a seed.
pub(crate) fn public_of(seed: &Secret32) -> PublicKey {
    let signing = SigningKey::from_bytes(seed.expose());
    PublicKey::from_bytes(&signing.verifying_key().to_bytes())
        .expect("the public key of a clamped scalar is canonical and of full order")
}

fn log_key(contents: &Contents) -> Arc<NamedKey> {
    let origin = LogNumber::FIRST.origin(&contents.workspace, contents.role);
    Arc::new(NamedKey::new(&contents.log_seed, origin, KeyKind::Ed25519))
}

/// The key for the log of that number of the same role and workspace.
fn for_log(key: &NamedKey, number: LogNumber) -> Arc<NamedKey> {
    let origin = key.verifier.name();
    let workspace = origin.split('/').next().and_then(|name| WorkspaceName::new(name).ok());
    let (workspace, role) =
        workspace.zip(role_of_origin(origin)).expect("a log key is named after a workspace and its role's log");
    Arc::new(key.renamed(number.origin(&workspace, role)))
}

impl LogKey {
    /// A second handle on this same key; nothing secret is copied.
    #[must_use]
    pub fn handle(&self) -> Self {
        LogKey(Arc::clone(&self.0))
    }

    /// The same key as that of the role's log with this number. It signs for that log alone.
    #[must_use]
    pub fn of_log(self, number: LogNumber) -> Self {
        LogKey(for_log(&self.0, number))
    }
}

impl ReceiptKey {
    /// The same key as that of the role's log with this number. It signs for that log alone.
    #[must_use]
    pub fn of_log(self, number: LogNumber) -> Self {
        ReceiptKey(for_log(&self.0, number))
    }
}

impl MonitorKeys {
    /// These keys with the log's for the log of that number.
    #[must_use]
    pub fn of_log(self, number: LogNumber) -> Self {
        let (receipts, next) = (self.receipts.of_log(number), self.next.of_log(number));
        MonitorKeys { log: self.log.of_log(number), receipts, next, ..self }
    }

    /// These keys with the next log key in force, once the log names it.
    #[must_use]
    pub fn advance_log(mut self) -> Self {
        if let Some(LogKey(key)) = self.next.log.take() {
            self.receipts = ReceiptKey(Arc::clone(&key));
            self.log = LogKey(key);
        }
        self
    }

    /// These keys with the next witness key in force, once the log names it.
    #[must_use]
    pub fn advance_witness(mut self) -> Self {
        self.witness = self.next.witness.take().unwrap_or(self.witness);
        self
    }

    pub(crate) fn new(contents: Contents) -> Self {
        let log = log_key(&contents);
        MonitorKeys {
            receipts: ReceiptKey(Arc::clone(&log)),
            log: LogKey(log),
            witness: WitnessKey::new(Role::Monitor, &contents.workspace, &contents.witness_seed),
            next: NextKeys::new(&contents),
            commitments: CommitmentKey::new(&contents.root),
            secrets: contents.secrets,
        }
    }
}

impl AuditorKeys {
    /// These keys with the log's for the log of that number. Envelopes name no log.
    #[must_use]
    pub fn of_log(self, number: LogNumber) -> Self {
        AuditorKeys { log: self.log.of_log(number), next: self.next.of_log(number), ..self }
    }

    /// These keys with the next log key in force, once the log names it.
    #[must_use]
    pub fn advance_log(mut self) -> Self {
        if let Some(LogKey(key)) = self.next.log.take() {
            self.envelopes = EnvelopeKey(Arc::clone(&key));
            self.log = LogKey(key);
        }
        self
    }

    /// These keys with the next witness key in force, once the log names it.
    #[must_use]
    pub fn advance_witness(mut self) -> Self {
        self.witness = self.next.witness.take().unwrap_or(self.witness);
        self
    }

    /// Second handles on these same keys, for a process that does one thing after the other with
    /// them. Nothing secret is copied; the keys are wiped when the last handle is dropped.
    #[must_use]
    pub fn handles(&self) -> Self {
        AuditorKeys {
            log: self.log.handle(),
            envelopes: EnvelopeKey(Arc::clone(&self.envelopes.0)),
            witness: self.witness.handle(),
            next: self.next.handles(),
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "the seeds are wiped once the keys are made")]
    pub(crate) fn new(contents: Contents) -> Self {
        let log = log_key(&contents);
        AuditorKeys {
            envelopes: EnvelopeKey(Arc::clone(&log)),
            log: LogKey(log),
            witness: WitnessKey::new(Role::Auditor, &contents.workspace, &contents.witness_seed),
            next: NextKeys::new(&contents),
        }
    }
}

#[cfg(test)]
impl LogKey {
    pub(crate) fn for_tests(seed: [u8; 32], origin: &str) -> Self {
        LogKey(Arc::new(NamedKey::new(&Secret32::copy_of(&seed), origin.to_owned(), KeyKind::Ed25519)))
    }
}

#[cfg(test)]
impl WitnessKey {
    pub(crate) fn for_tests(seed: [u8; 32], name: &str, role: Role) -> Self {
        let key = NamedKey::new(&Secret32::copy_of(&seed), name.to_owned(), KeyKind::Cosignature);
        WitnessKey { role, key: Arc::new(key) }
    }
}

impl EventSigner for LogKey {
    fn origin(&self) -> &str {
        self.0.verifier.name()
    }

    fn public_key(&self) -> PublicKey {
        self.0.verifier.public()
    }

    fn sign_event(&self, event_hash: &Digest) -> Result<Signature, SignError> {
        Ok(self.0.sign(&signer::event_message(self.origin(), event_hash)))
    }
}

impl CheckpointSigner for LogKey {
    fn verifier_key(&self) -> VerifierKey {
        self.0.verifier.clone()
    }

    fn sign_checkpoint(&self, checkpoint: &Checkpoint) -> Result<NoteSignature, SignError> {
        let own = self.0.verifier.name();
        if checkpoint.origin != own {
            let why = format!("it is of the log {:?} and this key is of {own:?}", checkpoint.origin);
            return Err(SignError { what: "the checkpoint", why });
        }
        Ok(self.0.note_signature(self.0.sign(checkpoint.text().as_bytes()).0.to_vec()))
    }
}

impl WitnessKey {
    fn handle(&self) -> Self {
        WitnessKey { role: self.role, key: Arc::clone(&self.key) }
    }

    fn new(role: Role, workspace: &WorkspaceName, seed: &Secret32) -> Self {
        let name = format!("{workspace}/{role}-witness");
        WitnessKey { role, key: Arc::new(NamedKey::new(seed, name, KeyKind::Cosignature)) }
    }
}

impl Cosigner for WitnessKey {
    fn verifier_key(&self) -> VerifierKey {
        self.key.verifier.clone()
    }

    fn cosign(&self, checkpoint: &Checkpoint, time_s: u64) -> Result<NoteSignature, SignError> {
        let refuse = |why: String| Err(SignError { what: "the cosignature", why });
        let same_workspace = workspace_of_origin(&checkpoint.origin) == workspace_of_origin(self.key.verifier.name());
        if same_workspace && role_of_origin(&checkpoint.origin) == Some(self.role) {
            return refuse(format!("{:?} is a log of the {}'s own", checkpoint.origin, self.role));
        }
        if time_s == 0 || i64::try_from(time_s).is_err() {
            return refuse(format!("{time_s} is no time of a cosignature"));
        }
        let text = checkpoint.text();
        // An origin with a newline would put lines of somebody's choice under the signature.
        if Checkpoint::parse(&text).as_ref() != Ok(checkpoint) {
            return refuse("the checkpoint cannot be written down".to_owned());
        }
        let signature = self.key.sign(&note::cosignature_message(&text, time_s));
        Ok(self.key.note_signature([&time_s.to_be_bytes()[..], &signature.0].concat()))
    }
}

impl ReceiptSigner for ReceiptKey {
    fn verifier_key(&self) -> VerifierKey {
        self.0.verifier.clone()
    }

    fn sign_receipt(&self, claims: &ReceiptClaims) -> Result<String, SignError> {
        let own = self.0.verifier.name();
        let refuse = |why: String| Err(SignError { what: "the receipt", why });
        if claims.log != own {
            return refuse(format!("it is for the log {:?} and this key is of {own:?}", claims.log));
        }
        if claims.v != 1 {
            return refuse(format!("its version is {} and not 1", claims.v));
        }
        let input = jws::signing_input(&self.0.verifier, claims);
        Ok(jws::assemble(&input, &self.0.sign(input.as_bytes())))
    }
}

impl StatementSigner for EnvelopeKey {
    fn public_key(&self) -> PublicKey {
        self.0.verifier.public()
    }

    fn sign_statement(&self, statement: &Statement) -> Result<Envelope, SignError> {
        let payload = statement.to_json();
        // What no verifier would take is not signed.
        Statement::parse(&payload, statement.predicate_type)
            .map_err(|error| SignError { what: "the statement", why: error.to_string() })?;
        let signature = self.0.sign(&dsse::pae(dsse::PAYLOAD_TYPE, &payload));
        Ok(Envelope::new(&payload, self.0.verifier.public(), &signature))
    }
}

impl CommitmentKey {
    fn new(root: &Secret32) -> Self {
        let mut key = Secret32::copy_of(&[0; 32]);
        let mut hasher = blake3::Hasher::new_derive_key(COMMITMENT_CONTEXT);
        hasher.update(root.expose());
        hasher.finalize_xof().fill(key.expose_mut());
        CommitmentKey(key)
    }

    /// The commitment to `secret`.
    pub fn commit(&self, secret: &[u8]) -> Digest {
        Digest(blake3::keyed_hash(self.0.expose(), secret).into())
    }
}
