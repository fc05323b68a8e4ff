//! The gate: a release decision on a verified bundle under a signed policy.
//!
//! [`policy`] reads and verifies `gatePolicy.json`; [`decide`] evaluates it. Every rule is listed with
//! what was wanted and what was found, whether it holds or not. What is not there denies. [`judge`] does
//! a whole call of the gate, and [`junit()`], [`sarif()`] and [`vsa`] say what came of it to others.

mod decide;
mod judge;
mod junit;
pub mod policy;
mod sarif;
mod upstream;
pub mod vsa;

pub use decide::{Decision, GateDecision, GateRule, decide};
pub(crate) use decide::{NOT_ASKED, decide_plain};
pub use judge::{GateCall, GateError, Judgement, judge};
pub use junit::junit;
pub use policy::{GatePolicy, PolicyError, PolicyFile, PolicyTrust, SignedPolicy, pinned_policy_keys};
pub use sarif::sarif;
pub use upstream::{Origin, OriginError};
pub use vsa::vsa_statement;
