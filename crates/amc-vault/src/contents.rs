//! What a compartment holds once it is opened.
//!
//! ```text
//! version u8 = 1 or 2
//! role (8)                 as in the compartment's own prefix
//! workspace length u8 | workspace name
//! root secret (32)         other keys are derived from it
//! log key (32)             Ed25519 seed (RFC 8032)
//! witness key (32)         Ed25519 seed
//! in version 2 only: which keys are about to change u8, 1 the log key, 2 the witness key, 3 both
//!   next log key (32)      where that says so
//!   next witness key (32)  where that says so
//! number of secrets u16    then each, sorted by name, names unique:
//!   name length u8 | name | value length u16 | value
//! zeros up to the next multiple of 256 bytes
//! ```
//!
//! Version 2 is written while a rotation is under way and at no other time, so that each contents have
//! one spelling. Integers are big-endian. The padding hides the lengths of secrets. Buffers are sized before they
//! are filled, so that no half-filled copy is left behind in memory, and wiped when dropped.

use std::collections::BTreeMap;
use std::fmt;

use amc_core::kinds::{KeyPurpose, Role};
use amc_core::{WorkspaceName, limits};
use zeroize::Zeroizing;

use crate::file::{role_name, role_of};
use crate::secret::{NAME_BYTES_MAX, SECRET_BYTES_MAX, Secret32, SecretName, SecretValue};

/// Most secrets in a vault: one per provider, with room.
pub const SECRETS_MAX: usize = 64;

const VERSION: u8 = 1;
/// The version while a key is about to change.
const VERSION_ROTATING: u8 = 2;
const NEXT_LOG: u8 = 1;
const NEXT_WITNESS: u8 = 2;
const BLOCK_BYTES: usize = 256;
const FIXED_BYTES: usize = 1 + 8 + 1 + 3 * 32 + 2;
const BYTES_MAX: usize =
    FIXED_BYTES + 1 + 2 * 32 + limits::NAME_BYTES_MAX + SECRETS_MAX * (1 + NAME_BYTES_MAX + 2 + SECRET_BYTES_MAX);
/// The largest contents, padded.
pub(crate) const PADDED_BYTES_MAX: usize = BYTES_MAX.next_multiple_of(BLOCK_BYTES);

/// Everything in a compartment.
pub(crate) struct Contents {
    pub(crate) role: Role,
    pub(crate) workspace: WorkspaceName,
    pub(crate) root: Secret32,
    pub(crate) log_seed: Secret32,
    pub(crate) witness_seed: Secret32,
    /// What the log key is about to become.
    pub(crate) next_log_seed: Option<Secret32>,
    /// What the witness key is about to become.
    pub(crate) next_witness_seed: Option<Secret32>,
    pub(crate) secrets: Secrets,
}

/// The provider secrets of the monitor's compartment, by name.
#[derive(Default)]
pub struct Secrets(pub(crate) BTreeMap<SecretName, SecretValue>);

impl Secrets {
    /// The value of this name.
    pub fn get(&self, name: &SecretName) -> Option<&SecretValue> {
        self.0.get(name)
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &SecretName> {
        self.0.keys()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

impl Contents {
    /// New keys for a role, from the operating system's randomness.
    pub(crate) fn generate(role: Role, workspace: WorkspaceName) -> Result<Self, getrandom::Error> {
        Ok(Contents {
            role,
            workspace,
            root: Secret32::random()?,
            log_seed: Secret32::random()?,
            witness_seed: Secret32::random()?,
            next_log_seed: None,
            next_witness_seed: None,
            secrets: Secrets::default(),
        })
    }

    /// The key of this purpose, and what it is about to become.
    pub(crate) fn seeds_mut(&mut self, purpose: KeyPurpose) -> (&mut Secret32, &mut Option<Secret32>) {
        match purpose {
            KeyPurpose::Log => (&mut self.log_seed, &mut self.next_log_seed),
            KeyPurpose::Witness => (&mut self.witness_seed, &mut self.next_witness_seed),
        }
    }

    fn next_seeds(&self) -> impl Iterator<Item = &Secret32> {
        [&self.next_log_seed, &self.next_witness_seed].into_iter().flatten()
    }

    /// Which keys are about to change, as the format says it.
    fn rotating(&self) -> u8 {
        let (log, witness) = (self.next_log_seed.is_some(), self.next_witness_seed.is_some());
        u8::from(log) * NEXT_LOG + u8::from(witness) * NEXT_WITNESS
    }

    fn len(&self) -> usize {
        let secrets = self.secrets.0.iter().map(|(name, value)| 3 + name.as_str().len() + value.expose().len());
        let rotating = usize::from(self.rotating() != 0) + 32 * self.next_seeds().count();
        FIXED_BYTES + rotating + self.workspace.as_str().len() + secrets.sum::<usize>()
    }

    /// The plaintext, with `spare` bytes of capacity behind it for a tag.
    pub(crate) fn encode(&self, spare: usize) -> Zeroizing<Vec<u8>> {
        let padded = self.len().next_multiple_of(BLOCK_BYTES);
        let mut bytes = Zeroizing::new(Vec::with_capacity(padded + spare));
        let short = |length: usize| u8::try_from(length).expect("names have at most 73 bytes");
        let long = |length: usize| u16::try_from(length).expect("values have at most 4096 bytes").to_be_bytes();
        bytes.push(if self.rotating() == 0 { VERSION } else { VERSION_ROTATING });
        bytes.extend_from_slice(&role_name(self.role));
        bytes.push(short(self.workspace.as_str().len()));
        bytes.extend_from_slice(self.workspace.as_str().as_bytes());
        for key in [&self.root, &self.log_seed, &self.witness_seed] {
            bytes.extend_from_slice(key.expose());
        }
        if self.rotating() != 0 {
            bytes.push(self.rotating());
            self.next_seeds().for_each(|key| bytes.extend_from_slice(key.expose()));
        }
        bytes.extend_from_slice(&long(self.secrets.0.len()));
        for (name, value) in &self.secrets.0 {
            bytes.push(short(name.as_str().len()));
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(&long(value.expose().len()));
            bytes.extend_from_slice(value.expose());
        }
        assert_eq!(bytes.len(), self.len(), "the buffer was sized for exactly this");
        bytes.resize(padded, 0);
        bytes
    }

    /// Reads a plaintext; `None` when it is not exactly what [`Contents::encode`] gives.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let is_rotating = match reader.byte()? {
            VERSION => false,
            VERSION_ROTATING => true,
            _ => return None,
        };
        let role = role_of(reader.array::<8>()?)?;
        let workspace = WorkspaceName::new(reader.text()?).ok()?;
        let (root, log_seed, witness_seed) = (reader.key()?, reader.key()?, reader.key()?);
        let rotating = match is_rotating {
            true => reader.byte().filter(|keys| (1..=NEXT_LOG + NEXT_WITNESS).contains(keys))?,
            false => 0,
        };
        let mut next = |key: u8| if rotating & key == 0 { Some(None) } else { reader.key().map(Some) };
        let (next_log_seed, next_witness_seed) = (next(NEXT_LOG)?, next(NEXT_WITNESS)?);
        let secrets = reader.secrets()?;
        let contents =
            Contents { role, workspace, root, log_seed, witness_seed, next_log_seed, next_witness_seed, secrets };
        let padded = contents.len().next_multiple_of(BLOCK_BYTES) == bytes.len();
        (padded && reader.0.iter().all(|byte| *byte == 0)).then_some(contents)
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn key(&mut self) -> Option<Secret32> {
        self.array().map(Secret32::copy_of)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| *byte)
    }

    fn short(&mut self) -> Option<usize> {
        self.array().map(|bytes| usize::from(u16::from_be_bytes(*bytes)))
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::from(self.byte()?);
        std::str::from_utf8(self.bytes(length)?).ok()
    }

    fn secrets(&mut self) -> Option<Secrets> {
        let count = self.short()?;
        if count > SECRETS_MAX {
            return None;
        }
        let mut secrets = Secrets::default();
        for _ in 0..count {
            let name = SecretName::new(self.text()?).ok()?;
            let length = self.short()?;
            let value = SecretValue::new(self.bytes(length)?.to_vec()).ok()?;
            if secrets.0.last_key_value().is_some_and(|(last, _)| *last >= name) {
                return None;
            }
            secrets.0.insert(name, value);
        }
        Some(secrets)
    }
}
