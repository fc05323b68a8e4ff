//! The shipped cost, and the mark that every linked artifact carries.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;

use amc_core::WorkspaceName;
use amc_core::kinds::Role;
use amc_crypto::signer::CheckpointSigner as _;
use amc_vault::{Passphrase, ScryptParams, Vault, VaultError};

#[test]
fn a_vault_at_the_least_accepted_cost() {
    let dir = tempfile::TempDir::new().expect("a temporary directory");
    let home = dir.path().join("home");
    fs::DirBuilder::new().mode(0o700).create(&home).expect("a home");
    let path = home.join("vault.amcvault");
    let vault = Vault::at(&path, WorkspaceName::new("acme").expect("a name"));
    let passphrase = |text: &str| Passphrase::new(text.into()).expect("a passphrase");
    let made = vault.create(Role::Auditor, &passphrase("p"), ScryptParams::default()).expect("created");
    let opened = vault.unlock_auditor(&passphrase("p")).expect("opened");
    assert_eq!(made.log().verifier_key(), opened.log.verifier_key());
    assert!(matches!(vault.unlock(Role::Auditor, &passphrase("q")), Err(VaultError::WrongPassphrase { .. })));
    let status = Vault::status(&path).expect("a status");
    let [compartment] = &status.compartments[..] else { panic!("one compartment") };
    assert_eq!((compartment.role, compartment.params.n()), (Role::Auditor, 131_072));
    assert_eq!((compartment.params.r(), compartment.params.p()), (8, 1));
}

#[test]
fn the_tripwire_is_in_what_links_this_crate() {
    let program = fs::read(std::env::current_exe().expect("a path")).expect("this program");
    // Put together at run time, so that this test does not bring the bytes itself.
    let mark = ["amc", "tripwire", "signer", "linked"].map(str::to_uppercase).join("-") + "-v1";
    assert!(program.windows(mark.len()).any(|window| window == mark.as_bytes()));
}
