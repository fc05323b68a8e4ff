//! Fuzz targets: each parser of AMC on bytes that nobody vouches for. A target panics on a fault and says nothing else.
//!
//! A parser must not panic, hang or take memory without bound; beyond that each target holds a property of its own,
//! such as that what was accepted is spelt in one way only. libFuzzer drives them (`cargo xtask fuzz`), and the tests
//! below drive the same functions over the seeds and fixed mutations of them, with any toolchain.
#![forbid(unsafe_code)]

#[cfg(feature = "artifacts")]
mod bundle;
mod crypto;
#[cfg(feature = "artifacts")]
mod egress;
mod ledger;
#[cfg(feature = "artifacts")]
mod scoring;
#[cfg(feature = "artifacts")]
mod workspace;

/// A target: its name, as of its binary and its corpus, and what it does with one input.
pub type Target = (&'static str, fn(&[u8]));

/// What a log is made of, and what is shown of one.
pub const LOG_TARGETS: &[Target] = &[
    ("event", ledger::event),
    ("segment", ledger::segment),
    ("tile", ledger::tile),
    ("checkpoint", crypto::checkpoint),
    ("proof", crypto::proof),
    ("tlog_proof", crypto::tlog_proof),
    ("policy", crypto::policy),
    ("envelope", crypto::envelope),
    ("receipt", crypto::receipt),
    ("witness", crypto::witness),
];

/// Everything else.
#[cfg(feature = "artifacts")]
pub const ARTIFACT_TARGETS: &[Target] = &[
    ("archive", bundle::archive),
    ("bundle", bundle::bundle),
    ("records", bundle::records),
    ("certificate", bundle::certificate),
    ("gate_policy", bundle::gate_policy),
    ("config", workspace::config),
    ("frames", workspace::frames),
    ("bank", scoring::bank),
    ("claims", scoring::claims),
    ("report", scoring::report),
    ("client_hello", egress::client_hello),
    ("connect", egress::connect),
];

#[cfg(not(feature = "artifacts"))]
const ARTIFACT_TARGETS: &[Target] = &[];

/// Every target of this build.
pub fn targets() -> impl Iterator<Item = &'static Target> {
    LOG_TARGETS.iter().chain(ARTIFACT_TARGETS)
}

/// Runs the target of this name on one input.
///
/// # Panics
/// On a fault in what is tested, and when there is no such target.
pub fn run(name: &str, data: &[u8]) {
    let target = targets().find(|(own, _)| *own == name);
    target.unwrap_or_else(|| panic!("there is no target {name}")).1(data);
}

pub use ledger::segment_seed;

#[cfg(all(test, feature = "artifacts"))]
mod tests;
