//! The vocabulary of AMC: ids, digests, trust tiers, event kinds with their typed fields,
//! finding codes, limits and the clock trait.
//!
//! This crate is pure. It opens no file, reads no clock, holds no key and knows no network.
//! Everything here is either a name that the other crates share or a bound that they respect.

#![forbid(unsafe_code)]

pub mod clock;
pub mod codec;
pub mod digest;
pub mod finding;
pub mod ids;
pub mod kinds;
pub mod limits;
pub mod tier;
pub mod timestamp;

pub use clock::{Clock, Instant};
pub use digest::Digest;
pub use finding::{Finding, FindingCode, Severity};
pub use ids::{AgentId, CertificateId, LeaseId, RequestId, RunId, SessionId, WorkspaceName};
pub use tier::Tier;

/// The release of AMC that this library belongs to, as events and reports name it.
pub const SOFTWARE: &str = concat!("amc ", env!("CARGO_PKG_VERSION"));
