//! Keys at rest and the signers: the only crate of AMC with private keys.
//!
//! A vault file has a compartment per role, each under its own passphrase (scrypt, AES-256-GCM).
//! Unlocking a compartment gives one type per purpose, each implementing one signing trait of
//! [`amc_crypto::signer`]; none of them signs bytes of a caller's choice, none can be cloned or
//! printed, and what they hold is wiped when they are dropped.
//!
//! This crate never prompts, never reads an environment variable and never touches a network.
//! The format is drawn in `docs/formats/vault.md`, and above the code in `file` and `contents`.

#![forbid(unsafe_code)]

mod contents;
mod disk;
mod error;
mod file;
mod keys;
mod number;
mod params;
mod passphrase;
mod rekey;
mod seal;
mod secret;
mod storage;
mod tripwire;
mod vault;

#[cfg(test)]
mod tests;

pub use contents::{SECRETS_MAX, Secrets};
pub use error::VaultError;
pub use keys::{
    AuditorKeys, CommitmentKey, EnvelopeKey, LogKey, MonitorKeys, NextKeys, ReceiptKey, RoleKeys, WitnessKey,
};
pub use number::LogNumber;
pub use params::ScryptParams;
pub use passphrase::{PASSPHRASE_BYTES_MAX, Passphrase, PassphraseCheck, PassphraseError};
pub use secret::{SECRET_BYTES_MAX, SecretError, SecretName, SecretValue};
pub use tripwire::TRIPWIRE;
pub use vault::{CompartmentStatus, Vault, VaultStatus};
