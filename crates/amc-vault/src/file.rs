//! The bytes of a vault file: header and compartments, taken apart and put together. No secrets
//! here, and nothing is decrypted.
//!
//! ```text
//! file          magic "AMCVAULT" (8) | version u16 = 1 | compartment, one or two
//!
//! compartment   role (8)      "monitor" or "auditor", one zero byte behind
//!               log2 N u8 | r u32 | p u32
//!               salt (32) | nonce (12)
//!               ciphertext length u32
//!               ciphertext    AES-256-GCM, its last 16 bytes are the tag
//!               checksum (32) SHA-256 of the file header and the compartment up to here
//! ```
//!
//! Integers are big-endian. The associated data of a compartment is the file header and the
//! compartment up to and with its nonce. The checksum tells a damaged file from a wrong passphrase;
//! it protects nothing, since whoever alters a file can compute it again.

use std::path::Path;

use amc_core::kinds::Role;

use crate::contents;
use crate::error::VaultError;
use crate::params::ScryptParams;

const MAGIC: [u8; 8] = *b"AMCVAULT";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 10;
/// Role, parameters, salt and nonce: what is associated data beside the file header.
const PREFIX_BYTES: usize = 8 + 1 + 4 + 4 + SALT_BYTES + NONCE_BYTES;
const CHECKSUM_BYTES: usize = 32;
pub(crate) const SALT_BYTES: usize = 32;
pub(crate) const NONCE_BYTES: usize = 12;
pub(crate) const TAG_BYTES: usize = 16;
/// A ciphertext holds the largest contents and a tag.
const CIPHERTEXT_BYTES_MAX: usize = contents::PADDED_BYTES_MAX + TAG_BYTES;
const COMPARTMENT_BYTES_MAX: usize = PREFIX_BYTES + 4 + CIPHERTEXT_BYTES_MAX + CHECKSUM_BYTES;
/// A vault file: two compartments of the largest size.
pub(crate) const FILE_BYTES_MAX: usize = HEADER_BYTES + 2 * COMPARTMENT_BYTES_MAX;

/// A vault file, taken apart. Compartments keep the bytes in which they arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VaultFile {
    pub(crate) compartments: Vec<Compartment>,
}

/// One role's compartment, its bytes as they stand in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Compartment {
    pub(crate) role: Role,
    pub(crate) params: ScryptParams,
    bytes: Vec<u8>,
}

impl VaultFile {
    pub(crate) const fn empty() -> Self {
        VaultFile { compartments: Vec::new() }
    }

    pub(crate) fn parse(bytes: &[u8], path: &Path) -> Result<Self, VaultError> {
        let damaged = |what| VaultError::Damaged { path: path.to_owned(), what };
        if bytes.len() > FILE_BYTES_MAX {
            return Err(damaged("it is larger than any vault"));
        }
        let (magic, rest) = bytes.split_first_chunk::<8>().ok_or_else(|| damaged("it is cut off"))?;
        if *magic != MAGIC {
            return Err(damaged("it is not a vault"));
        }
        let (version, mut rest) = rest.split_first_chunk::<2>().ok_or_else(|| damaged("it is cut off"))?;
        let version = u16::from_be_bytes(*version);
        if version != VERSION {
            return Err(VaultError::Version { path: path.to_owned(), version });
        }
        let mut file = VaultFile::empty();
        while !rest.is_empty() {
            let (compartment, behind) = Compartment::parse(rest).map_err(damaged)?;
            if file.get(compartment.role).is_some() {
                return Err(damaged("a role has two compartments"));
            }
            file.compartments.push(compartment);
            rest = behind;
        }
        if file.compartments.is_empty() {
            return Err(damaged("it has no compartment"));
        }
        Ok(file)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = header().to_vec();
        self.compartments.iter().for_each(|compartment| bytes.extend_from_slice(&compartment.bytes));
        bytes
    }

    pub(crate) fn get(&self, role: Role) -> Option<&Compartment> {
        self.compartments.iter().find(|compartment| compartment.role == role)
    }

    /// Puts a compartment in the place of its role's older one, or behind the others.
    pub(crate) fn put(&mut self, compartment: Compartment) {
        match self.compartments.iter_mut().find(|known| known.role == compartment.role) {
            Some(known) => *known = compartment,
            None => self.compartments.push(compartment),
        }
    }
}

impl Compartment {
    /// Puts the parts together; `ciphertext` ends in its tag.
    pub(crate) fn new(prefix: &Prefix, ciphertext: &[u8]) -> Self {
        let length = u32::try_from(ciphertext.len()).expect("contents are bounded far below 4 GiB");
        let mut bytes = prefix.encode().to_vec();
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(ciphertext);
        bytes.extend_from_slice(&checksum(&bytes));
        Compartment { role: prefix.role, params: prefix.params, bytes }
    }

    /// The first compartment of `bytes` and what stands behind it.
    fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), &'static str> {
        let (prefix, rest) = bytes.split_first_chunk::<PREFIX_BYTES>().ok_or("it is cut off")?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or("it is cut off")?;
        let (role, params) = parse_prefix(prefix)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| "a length is out of range")?;
        if !(TAG_BYTES..=CIPHERTEXT_BYTES_MAX).contains(&length) {
            return Err("a length is out of range");
        }
        if rest.len() < length + CHECKSUM_BYTES {
            return Err("it is cut off");
        }
        let (own, behind) = bytes.split_at(PREFIX_BYTES + 4 + length + CHECKSUM_BYTES);
        Ok((Compartment { role, params, bytes: own.to_vec() }, behind))
    }

    /// Whether the checksum holds.
    pub(crate) fn is_intact(&self) -> bool {
        let (body, sum) = self.bytes.split_at(self.bytes.len() - CHECKSUM_BYTES);
        checksum(body) == sum
    }

    pub(crate) fn salt(&self) -> &[u8] {
        &self.bytes[17..17 + SALT_BYTES]
    }

    pub(crate) fn nonce(&self) -> [u8; NONCE_BYTES] {
        self.bytes[17 + SALT_BYTES..PREFIX_BYTES].try_into().expect("twelve bytes by the layout")
    }

    pub(crate) fn associated_data(&self) -> Vec<u8> {
        [&header()[..], &self.bytes[..PREFIX_BYTES]].concat()
    }

    pub(crate) fn ciphertext(&self) -> &[u8] {
        &self.bytes[PREFIX_BYTES + 4..self.bytes.len() - CHECKSUM_BYTES]
    }
}

/// The part of a compartment that is readable and authenticated.
pub(crate) struct Prefix {
    pub(crate) role: Role,
    pub(crate) params: ScryptParams,
    pub(crate) salt: [u8; SALT_BYTES],
    pub(crate) nonce: [u8; NONCE_BYTES],
}

impl Prefix {
    fn encode(&self) -> [u8; PREFIX_BYTES] {
        let mut bytes = [0; PREFIX_BYTES];
        bytes[..8].copy_from_slice(&role_name(self.role));
        bytes[8] = self.params.log_n;
        bytes[9..13].copy_from_slice(&self.params.r.to_be_bytes());
        bytes[13..17].copy_from_slice(&self.params.p.to_be_bytes());
        bytes[17..17 + SALT_BYTES].copy_from_slice(&self.salt);
        bytes[17 + SALT_BYTES..].copy_from_slice(&self.nonce);
        bytes
    }

    pub(crate) fn associated_data(&self) -> Vec<u8> {
        [&header()[..], &self.encode()].concat()
    }
}

/// A role's name in eight bytes, with a zero byte behind.
pub(crate) fn role_name(role: Role) -> [u8; 8] {
    let mut name = [0; 8];
    name[..7].copy_from_slice(role.as_str().as_bytes());
    name
}

pub(crate) fn role_of(name: &[u8; 8]) -> Option<Role> {
    [Role::Monitor, Role::Auditor].into_iter().find(|role| role_name(*role) == *name)
}

fn parse_prefix(bytes: &[u8; PREFIX_BYTES]) -> Result<(Role, ScryptParams), &'static str> {
    let (name, rest) = bytes.split_first_chunk::<8>().expect("a prefix is longer than a name");
    let (numbers, _) = rest.split_first_chunk::<9>().expect("a prefix has its parameters");
    let [log_n, r0, r1, r2, r3, p0, p1, p2, p3] = *numbers;
    let role = role_of(name).ok_or("a compartment has no known role")?;
    let params =
        ScryptParams { log_n, r: u32::from_be_bytes([r0, r1, r2, r3]), p: u32::from_be_bytes([p0, p1, p2, p3]) };
    Ok((role, params))
}

fn header() -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..].copy_from_slice(&VERSION.to_be_bytes());
    bytes
}

fn checksum(compartment: &[u8]) -> [u8; CHECKSUM_BYTES] {
    amc_crypto::sha256(&[&header()[..], compartment].concat()).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_format_page() {
        let page = include_str!("../../../docs/formats/vault.md");
        assert_eq!((HEADER_BYTES, PREFIX_BYTES, FILE_BYTES_MAX), (10, 61, 534_764));
        assert!(page.contains("A file has at most 534,764 bytes"));
    }
}
