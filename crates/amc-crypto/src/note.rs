//! Signed notes (C2SP signed-note v1) with Ed25519 signatures and Ed25519 cosignatures.
//!
//! ```text
//! text, ending in a newline
//!
//! — <key name> <base64(key id, 4 bytes ‖ signature)>
//! ```
//!
//! `key id = SHA-256(name ‖ 0x0A ‖ type ‖ public)[..4]`; a verifier key is written
//! `name+hex(key id)+base64(type ‖ public)`.

use std::fmt;
use std::str::FromStr;

use amc_core::{digest, limits};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::key::{Claim, PublicKey, Signature, verify_all};

/// What a note key's signatures mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyKind {
    /// Type 0x01: Ed25519 over the text.
    Ed25519,
    /// Type 0x04: a timestamped Ed25519 cosignature of a checkpoint.
    Cosignature,
}

impl KeyKind {
    const fn byte(self) -> u8 {
        match self {
            KeyKind::Ed25519 => 0x01,
            KeyKind::Cosignature => 0x04,
        }
    }
}

/// A public key with its name: a C2SP verifier key ("vkey").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    kind: KeyKind,
    public: PublicKey,
}

/// A text that is not a verifier key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifierKeyError {
    /// Not three parts joined by `+`.
    #[error("a verifier key is name+hash+key")]
    Shape,
    /// The name is empty or has a space, a plus or a control character.
    #[error("the key name {0:?} is empty or has a space, a + or a control character")]
    Name(String),
    /// Neither an Ed25519 key nor an Ed25519 cosignature key.
    #[error("the key is neither of type Ed25519 (1) nor of type Ed25519 cosignature (4)")]
    Type,
    /// Not a usable public key.
    #[error("{0}")]
    Key(#[from] crate::key::KeyError),
    /// The four hash bytes belong to another name or key.
    #[error("the key hash does not belong to this name and key")]
    Hash,
}

impl VerifierKey {
    /// Names a public key.
    ///
    /// # Errors
    /// [`VerifierKeyError::Name`] when the name cannot stand in a note.
    pub fn new(name: impl Into<String>, kind: KeyKind, public: PublicKey) -> Result<Self, VerifierKeyError> {
        let name = name.into();
        if name_is_valid(&name) { Ok(VerifierKey { name, kind, public }) } else { Err(VerifierKeyError::Name(name)) }
    }

    /// The key's name; a log's is its origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its signatures mean.
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The public key.
    pub const fn public(&self) -> PublicKey {
        self.public
    }

    /// The four bytes that name this key in signature lines.
    pub fn key_id(&self) -> [u8; 4] {
        let mut bytes = Vec::with_capacity(self.name.len() + 34);
        bytes.extend_from_slice(self.name.as_bytes());
        bytes.extend_from_slice(&[b'\n', self.kind.byte()]);
        bytes.extend_from_slice(&self.public.to_bytes());
        let hash = crate::sha256(&bytes);
        [hash.0[0], hash.0[1], hash.0[2], hash.0[3]]
    }

    /// `<name>+<key id in hex>`, the `kid` of receipts.
    pub fn kid(&self) -> String {
        format!("{}+{}", self.name, digest::hex(&self.key_id()))
    }
}

fn name_is_valid(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c == '+' || c.is_whitespace() || c.is_control())
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut material = vec![self.kind.byte()];
        material.extend_from_slice(&self.public.to_bytes());
        write!(f, "{}+{}", self.kid(), STANDARD.encode(material))
    }
}

impl FromStr for VerifierKey {
    type Err = VerifierKeyError;

    fn from_str(text: &str) -> Result<Self, VerifierKeyError> {
        // The base64 part may itself contain a plus, so only the first two separate.
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(VerifierKeyError::Shape);
        };
        let material = STANDARD.decode(key).map_err(|_| VerifierKeyError::Shape)?;
        let (kind, public) = match material.split_first() {
            Some((0x01, public)) => (KeyKind::Ed25519, public),
            Some((0x04, public)) => (KeyKind::Cosignature, public),
            _ => return Err(VerifierKeyError::Type),
        };
        let public: &[u8; 32] = public.try_into().map_err(|_| VerifierKeyError::Type)?;
        let key = VerifierKey::new(name, kind, PublicKey::from_bytes(public)?)?;
        if digest::unhex(hash).as_deref() == Some(&key.key_id()) { Ok(key) } else { Err(VerifierKeyError::Hash) }
    }
}

/// One signature line of a note, as it stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    /// The key's name.
    pub name: String,
    /// The key's four-byte id.
    pub key_id: [u8; 4],
    /// 64 bytes for Ed25519; eight bytes of time and 64 for a cosignature; unknown keys: anything.
    pub bytes: Vec<u8>,
}

impl NoteSignature {
    /// The line with its final newline.
    pub fn line(&self) -> String {
        let blob = [self.key_id.as_slice(), &self.bytes].concat();
        format!("— {} {}\n", self.name, STANDARD.encode(blob))
    }
}

/// A note: text and signature lines, parsed and not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// Bytes that are not a signed note, or a note that a pinned key did not sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Above the bound.
    #[error("a note has at most {} bytes", limits::NOTE_BYTES_MAX)]
    TooLong,
    /// Not UTF-8, control characters, or no empty line before the signatures.
    #[error("not a signed note: {0}")]
    Malformed(&'static str),
    /// A pinned key's signature is there and does not verify.
    #[error("the signature of {0} on the note does not verify")]
    BadSignature(String),
    /// The pinned key did not sign.
    #[error("{0} did not sign the note")]
    Unsigned(String),
}

impl Note {
    /// A note to be signed. `text` must end in a newline.
    pub fn new(text: String, signatures: Vec<NoteSignature>) -> Self {
        debug_assert!(text.ends_with('\n'), "a note's text ends in a newline");
        Note { text, signatures }
    }

    /// The signed text, with its final newline.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signature lines, in order.
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Adds a signature line.
    pub fn push(&mut self, signature: NoteSignature) {
        self.signatures.push(signature);
    }

    /// Parses a note; verifies nothing.
    ///
    /// # Errors
    /// [`NoteError::TooLong`] or [`NoteError::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > limits::NOTE_BYTES_MAX {
            return Err(NoteError::TooLong);
        }
        let whole = std::str::from_utf8(bytes).map_err(|_| NoteError::Malformed("it is not UTF-8"))?;
        if whole.chars().any(|c| c != '\n' && c.is_control()) {
            return Err(NoteError::Malformed("it has control characters"));
        }
        let split = whole.rfind("\n\n").ok_or(NoteError::Malformed("no empty line before the signatures"))?;
        let (text, lines) = (&whole[..=split], &whole[split + 2..]);
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Malformed("the last line has no newline"))?;
        let signatures = lines.split('\n').map(parse_line).collect::<Option<Vec<_>>>();
        let signatures = signatures.ok_or(NoteError::Malformed("a signature line is not `— name base64`"))?;
        if signatures.len() > limits::NOTE_SIGNATURES_MAX {
            return Err(NoteError::Malformed("too many signatures"));
        }
        Ok(Note { text: text.to_owned(), signatures })
    }

    /// Verifies the Ed25519 signature of a pinned key of type [`KeyKind::Ed25519`].
    ///
    /// # Errors
    /// [`NoteError::Unsigned`] when it did not sign, [`NoteError::BadSignature`] when any line under
    /// its name and id does not verify.
    pub fn verify_signature(&self, key: &VerifierKey) -> Result<(), NoteError> {
        let mut signed = false;
        for line in self.lines_of(key) {
            let bad = || NoteError::BadSignature(key.name().to_owned());
            let signature = Signature::try_from(line.bytes.as_slice()).map_err(|_| bad())?;
            key.public().verify(self.text.as_bytes(), &signature).map_err(|_| bad())?;
            signed = true;
        }
        if signed { Ok(()) } else { Err(NoteError::Unsigned(key.name().to_owned())) }
    }

    /// As [`Note::verify_signature`] for many notes at once, each with its key: whether it holds.
    /// See [`verify_all`] for what a batch does not see.
    pub fn verify_signatures(notes: &[(&Note, &VerifierKey)]) -> Vec<bool> {
        let lines = |(at, (note, key)): (usize, &(&Note, &VerifierKey))| {
            let of_note = note.lines_of(key).map(move |line| (at, Signature::try_from(line.bytes.as_slice())));
            of_note.collect::<Vec<_>>()
        };
        let found: Vec<_> = notes.iter().enumerate().flat_map(lines).collect();
        let mut holds = vec![false; notes.len()];
        found.iter().for_each(|(at, _)| holds[*at] = true);
        let mut claims = Vec::with_capacity(found.len());
        for (at, signature) in &found {
            let (note, key) = notes[*at];
            match signature {
                Ok(signature) => {
                    claims.push((*at, Claim { key: key.public(), message: note.text.as_bytes(), signature }))
                }
                Err(_) => holds[*at] = false,
            }
        }
        let decided = verify_all(&claims.iter().map(|(_, claim)| *claim).collect::<Vec<_>>());
        for ((at, _), good) in claims.iter().zip(decided) {
            holds[*at] &= good;
        }
        holds
    }

    /// Verifies a cosignature by a pinned witness; gives its time in seconds since the epoch, or
    /// `None` when that witness did not cosign. With several, the newest counts.
    ///
    /// # Errors
    /// [`NoteError::BadSignature`] when any line under its name and id does not verify.
    pub fn verify_cosignature(&self, key: &VerifierKey) -> Result<Option<u64>, NoteError> {
        let mut newest = None;
        for line in self.lines_of(key) {
            let bad = || NoteError::BadSignature(key.name().to_owned());
            let (time, signature) = line.bytes.split_first_chunk::<8>().ok_or_else(bad)?;
            let time_s = u64::from_be_bytes(*time);
            let signature = Signature::try_from(signature).map_err(|_| bad())?;
            if time_s > i64::MAX as u64 {
                return Err(bad());
            }
            key.public().verify(&cosignature_message(&self.text, time_s), &signature).map_err(|_| bad())?;
            newest = newest.max(Some(time_s));
        }
        Ok(newest)
    }

    fn lines_of<'a>(&'a self, key: &'a VerifierKey) -> impl Iterator<Item = &'a NoteSignature> {
        let key_id = key.key_id();
        self.signatures.iter().filter(move |line| line.name == key.name() && line.key_id == key_id)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|line| f.write_str(&line.line()))
    }
}

/// The bytes that an Ed25519 cosignature covers (C2SP tlog-cosignature v1).
pub fn cosignature_message(checkpoint_text: &str, time_s: u64) -> Vec<u8> {
    format!("cosignature/v1\ntime {time_s}\n{checkpoint_text}").into_bytes()
}

fn parse_line(line: &str) -> Option<NoteSignature> {
    let (name, blob) = line.strip_prefix("— ")?.split_once(' ')?;
    let blob = STANDARD.decode(blob).ok()?;
    let (key_id, bytes) = blob.split_first_chunk::<4>()?;
    if !name_is_valid(name) || bytes.is_empty() {
        return None;
    }
    Some(NoteSignature { name: name.to_owned(), key_id: *key_id, bytes: bytes.to_vec() })
}
