//! Fuzz targets: each parser of AMC on bytes that nobody vouches for. A target panics on a fault and says nothing else.
//!
//! A parser must not panic, hang or take memory without bound; beyond that each target holds a property of its own,
//! such as that what was accepted is spelt in one way only. libFuzzer drives them (`cargo xtask fuzz`), and the tests
//! below drive the same functions over the seeds and fixed mutations of them, with any toolchain.
#![forbid(unsafe_code)]

mod bundle;
mod crypto;
mod ledger;
mod scoring;
mod workspace;

/// A target: its name, as of its binary and its corpus, and what it does with one input.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("event", ledger::event),
    ("segment", ledger::segment),
    ("tile", ledger::tile),
    ("checkpoint", crypto::checkpoint),
    ("proof", crypto::proof),
    ("policy", crypto::policy),
    ("envelope", crypto::envelope),
    ("receipt", crypto::receipt),
    ("witness", crypto::witness),
    ("archive", bundle::archive),
    ("bundle", bundle::bundle),
    ("records", bundle::records),
    ("gate_policy", bundle::gate_policy),
    ("config", workspace::config),
    ("frames", workspace::frames),
    ("bank", scoring::bank),
    ("claims", scoring::claims),
    ("report", scoring::report),
];

/// Runs the target of this name on one input.
///
/// # Panics
/// On a fault in what is tested, and when there is no such target.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|(own, _)| *own == name);
    target.unwrap_or_else(|| panic!("there is no target {name}")).1(data);
}

pub use ledger::segment_seed;

#[cfg(test)]
mod tests;
