//! The sealed bundle of the first release.

use std::path::{Path, PathBuf};

use amc_crypto::TrustPolicy;

use crate::world::{World, errors, verify};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/bundle").join(name)
}

/// `AMC_SEAL_FIXTURES=1` writes the files again, as `fixtures/bundle/README.md` says.
#[test]
fn the_sealed_bundle_still_verifies() {
    let (bundle, policy) = (fixture("v1.amcbundle"), fixture("v1.trust.policy"));
    if std::env::var_os("AMC_SEAL_FIXTURES").is_some() {
        let world = World::new();
        std::fs::write(&bundle, world.export()).expect("the fixture is written");
        std::fs::write(&policy, world.keys.policy_text()).expect("the fixture is written");
    }
    let policy = TrustPolicy::parse(&std::fs::read(policy).expect("there")).expect("a policy");
    let bytes = std::fs::read(bundle).expect("there");
    assert_eq!(errors(&verify(&bytes, &policy)), []);
}
