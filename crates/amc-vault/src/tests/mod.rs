//! Tests of whole vaults, at a cost that only this crate's own tests accept.

mod altered;
mod crash;
mod place;
mod rekey;
mod round_trip;
mod signers;

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use amc_core::WorkspaceName;
use amc_core::kinds::Role;
use tempfile::TempDir;

use crate::{Passphrase, ScryptParams, Vault};

/// A directory of mode 0700 with a place for a vault in it.
struct Home {
    _dir: TempDir,
    path: PathBuf,
}

impl Home {
    fn new() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let home = dir.path().join("home");
        fs::DirBuilder::new().mode(0o700).create(&home).expect("a home");
        Home { path: home.join("vault.amcvault"), _dir: dir }
    }

    fn vault(&self) -> Vault {
        Vault::for_tests(&self.path, workspace())
    }

    /// A vault with both compartments, under the passphrases `monitor` and `auditor`.
    fn with_both() -> Self {
        let home = Home::new();
        let params = ScryptParams::for_tests();
        home.vault().create(Role::Monitor, &phrase("monitor"), params).expect("created");
        home.vault().add_compartment(Role::Auditor, &phrase("auditor"), params).expect("added");
        home
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).expect("a vault file")
    }

    fn overwrite(&self, bytes: &[u8]) {
        write_private(&self.path, bytes);
    }
}

fn write_private(path: &Path, bytes: &[u8]) {
    use std::io::Write as _;
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).expect("a file");
    file.write_all(bytes).expect("written");
}

fn workspace() -> WorkspaceName {
    WorkspaceName::new("acme-1").expect("a name")
}

fn phrase(text: &str) -> Passphrase {
    Passphrase::new(text.as_bytes().to_vec()).expect("a passphrase")
}
