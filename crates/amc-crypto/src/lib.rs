//! Hashes, strict Ed25519 verification, RFC 6962 trees, signed notes, checkpoints, cosignatures,
//! trust policies, DSSE envelopes and JWS receipts.
//!
//! This crate verifies; it holds no private key and has no type for one. What signs is described
//! here as traits, one per purpose, each taking a typed value and never bytes of a caller's choice
//! ([`signer`]). Verification results are types: see [`trust`].

#![forbid(unsafe_code)]

pub mod attestation;
mod batch;
pub mod checkpoint;
pub mod config;
pub mod dsse;
pub mod hash;
pub mod jws;
pub mod key;
pub mod merkle;
pub mod note;
pub mod policy;
pub mod proof;
pub mod signer;
pub mod statement;
pub mod trust;
pub mod witness;

pub use checkpoint::{Checkpoint, CosignedCheckpoint};
pub use hash::{leaf_hash, node_hash, sha256};
pub use key::{PublicKey, Signature};
pub use note::{Note, VerifierKey};
pub use policy::TrustPolicy;
pub use statement::{PredicateType, Statement, Subject};
pub use trust::{Check, Unverified, Verified};
