//! Portable artifacts: what leaves a workspace must convince somebody who has only pinned keys.
//!
//! [`export()`] writes a bundle from verified events; [`verify()`] reads one from front to back with
//! nothing but a trust policy and recomputes its score; [`inspect()`] shows what one says without
//! believing it; [`gate`] decides a release on a verified bundle under a signed policy; [`certificate`]
//! is a bundle with an issuer's statement that its run passed such a policy. Nothing
//! inside an artifact is ever an anchor. No file is opened here, no clock read, no key held.
//!
//! `docs/formats/bundle.md` and `docs/formats/gate-policy.md` are the specifications.

#![forbid(unsafe_code)]

pub mod archive;
pub mod certificate;
mod diff;
pub mod error;
pub mod export;
pub mod gate;
pub mod inspect;
pub mod manifest;
pub mod member;
pub mod payloads;
pub mod records;
pub mod seal;
pub mod sigstore;
pub mod verify;

pub use certificate::{CertificateVerdict, Revocation, VerifiedCertificate, verify_certificate};
pub use diff::{Difference, diff};
pub use error::{ExportError, VerifyError};
pub use export::{ExportInput, ExportSummary, LogPart, SignedBytes, export};
pub use gate::{
    Decision, GateCall, GateDecision, GateError, GatePolicy, GateRule, Judgement, PolicyError, decide, judge,
};
pub use inspect::{Inspection, inspect};
pub use manifest::{BundlePredicate, Payloads};
pub use seal::{RunPredicate, seal_statement};
pub use verify::{BundleVerdict, Issuer, LogCoverage, VerifiedBundle, verify, verify_and_find};
