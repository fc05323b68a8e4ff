//! The gate: a release decision on a verified bundle under a signed policy.
//!
//! [`policy`] reads and verifies `gatePolicy.json`; [`decide`] evaluates it. Every rule is listed with
//! what was wanted and what was found, whether it holds or not. What is not there denies.

mod decide;
pub mod policy;
mod upstream;

pub use decide::{Decision, GateDecision, GateRule, decide};
pub use policy::{GatePolicy, PolicyError, PolicyFile, PolicyTrust, SignedPolicy, pinned_policy_keys};
pub use upstream::{Origin, OriginError};
