//! Sealing and opening a compartment: scrypt (RFC 7914) turns the passphrase into a key, AES-256-GCM
//! (NIST SP 800-38D) encrypts and authenticates. Salt and nonce are new at every write, so no key
//! ever meets two plaintexts.

use std::path::Path;

use aes_gcm::aead::AeadInOut as _;
use aes_gcm::{Aes256Gcm, KeyInit as _};
use zeroize::Zeroizing;

use crate::contents::Contents;
use crate::error::VaultError;
use crate::file::{Compartment, NONCE_BYTES, Prefix, SALT_BYTES, TAG_BYTES};
use crate::params::{Bounds, ScryptParams};
use crate::passphrase::Passphrase;
use crate::secret::Secret32;

/// Encrypts contents under a passphrase. `params` are within the bounds of the caller.
pub(crate) fn seal(
    contents: &Contents,
    passphrase: &Passphrase,
    params: ScryptParams,
) -> Result<Compartment, VaultError> {
    let mut prefix = Prefix { role: contents.role, params, salt: [0; SALT_BYTES], nonce: [0; NONCE_BYTES] };
    getrandom::fill(&mut prefix.salt)?;
    getrandom::fill(&mut prefix.nonce)?;
    let mut buffer = contents.encode(TAG_BYTES);
    let cipher = cipher(passphrase, &prefix.salt, params);
    cipher
        .encrypt_in_place(&prefix.nonce.into(), &prefix.associated_data(), &mut *buffer)
        .expect("contents are bounded far below the length that the cipher takes");
    Ok(Compartment::new(&prefix, &buffer))
}

/// Decrypts a compartment. Bounds come first, then the checksum, then the memory for scrypt.
pub(crate) fn open(
    compartment: &Compartment,
    passphrase: &Passphrase,
    bounds: &Bounds,
    path: &Path,
) -> Result<Contents, VaultError> {
    let (role, params) = (compartment.role, compartment.params);
    let damaged = |what| VaultError::Damaged { path: path.to_owned(), what };
    if !compartment.is_intact() {
        return Err(damaged("a checksum does not hold"));
    }
    if !bounds.hold(params) {
        return Err(VaultError::Cost { path: path.to_owned(), role, params, range: bounds.to_string() });
    }
    let cipher = cipher(passphrase, compartment.salt(), params);
    let mut buffer = Zeroizing::new(compartment.ciphertext().to_vec());
    cipher
        .decrypt_in_place(&compartment.nonce().into(), &compartment.associated_data(), &mut *buffer)
        .map_err(|_| VaultError::WrongPassphrase { path: path.to_owned(), role })?;
    let contents = Contents::decode(&buffer).ok_or_else(|| damaged("a compartment opens and its contents do not"))?;
    if contents.role == role { Ok(contents) } else { Err(damaged("a compartment holds another role's keys")) }
}

fn cipher(passphrase: &Passphrase, salt: &[u8], params: ScryptParams) -> Aes256Gcm {
    let mut key = Secret32::copy_of(&[0; 32]);
    let params = scrypt::Params::new(params.log_n, params.r, params.p).expect("within bounds that scrypt accepts");
    scrypt::scrypt(passphrase.expose(), salt, &params, key.expose_mut()).expect("32 bytes are a valid length");
    Aes256Gcm::new(key.expose().into())
}
