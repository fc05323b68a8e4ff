//! Portable artifacts: what leaves a workspace must convince somebody who has only pinned keys.
//!
//! [`export()`] writes a bundle from verified events; [`verify()`] reads one from front to back with
//! nothing but a trust policy and recomputes its score; [`inspect()`] shows what one says without
//! believing it; [`gate`] decides a release on a verified bundle under a signed policy. Nothing
//! inside an artifact is ever an anchor. No file is opened here, no clock read, no key held.
//!
//! `docs/formats/bundle.md` and `docs/formats/gate-policy.md` are the specifications.

#![forbid(unsafe_code)]

pub mod archive;
pub mod error;
pub mod export;
pub mod gate;
pub mod inspect;
pub mod manifest;
pub mod member;
pub mod payloads;
pub mod records;
pub mod seal;
pub mod verify;

pub use error::{ExportError, VerifyError};
pub use export::{ExportInput, ExportSummary, LogPart, SignedBytes, export};
pub use gate::{Decision, GateDecision, GatePolicy, GateRule, PolicyError, decide};
pub use inspect::{Inspection, inspect};
pub use manifest::{BundlePredicate, Payloads};
pub use seal::{RunPredicate, seal_statement};
pub use verify::{BundleVerdict, Issuer, LogCoverage, VerifiedBundle, verify};
