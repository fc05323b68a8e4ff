//! Where a vault stands: modes, links, locks, leftovers.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use amc_core::FindingCode;
use amc_core::kinds::Role;

use super::{Home, phrase, write_private};
use crate::disk::Disk;
use crate::{ScryptParams, SecretName, SecretValue, Vault, VaultError};

fn chmod(path: &std::path::Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

fn set_secret(home: &Home) -> Result<(), VaultError> {
    let name = SecretName::provider("openai").expect("a name");
    home.vault().set_secret(&phrase("monitor"), name, SecretValue::new(b"sk".to_vec()).expect("a value"))
}

#[test]
fn a_new_vault_is_closed_to_others_and_leaves_no_temporary_file() {
    let home = Home::with_both();
    let mode = fs::metadata(&home.path).expect("a file").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let dir = home.path.parent().expect("a directory");
    let mut names: Vec<_> = fs::read_dir(dir).expect("a directory").map(|e| e.expect("an entry").file_name()).collect();
    names.sort_unstable();
    assert_eq!(names, ["vault.amcvault", "vault.amcvault.lock"]);
}

#[test]
fn modes_open_to_others_are_refused_with_the_command_that_mends_it() {
    let home = Home::with_both();
    let dir = home.path.parent().expect("a directory");
    let cases = [
        (home.path.as_path(), 0o644, 0o600),
        (&home.path, 0o640, 0o600),
        (&home.path, 0o602, 0o600),
        (dir, 0o755, 0o700),
        (dir, 0o701, 0o700),
    ];
    for (path, loose, tight) in cases {
        chmod(path, loose);
        let errors = [
            Vault::status(&home.path).map(drop),
            home.vault().unlock(Role::Monitor, &phrase("monitor")).map(drop),
            set_secret(&home),
        ];
        for error in errors {
            let error = error.expect_err("refused");
            assert_eq!(error.code(), Some(FindingCode::VaultPermissions), "{error}");
            let mend = format!("chmod {tight:o} '{}'", path.display());
            assert!(error.to_string().ends_with(&mend), "{error}");
        }
        chmod(path, tight);
        home.vault().unlock(Role::Monitor, &phrase("monitor")).expect("mended");
    }
}

#[test]
fn only_a_regular_file_is_a_vault() {
    let home = Home::with_both();
    let real = home.path.with_file_name("real");
    fs::rename(&home.path, &real).expect("moved");
    let refused = |name: &str| {
        let error = Vault::status(&home.path).expect_err(name);
        assert!(matches!(error, VaultError::NotAFile(_)), "{name}: {error}");
        assert!(home.vault().create(Role::Monitor, &phrase("p"), ScryptParams::for_tests()).is_err(), "{name}");
    };
    symlink(&real, &home.path).expect("a link");
    refused("a symbolic link");
    fs::remove_file(&home.path).expect("removed");
    fs::create_dir(&home.path).expect("a directory");
    refused("a directory");
    fs::remove_dir(&home.path).expect("removed");
    let fifo = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &home.path, rustix::fs::FileType::Fifo, fifo, 0).expect("a named pipe");
    refused("a named pipe");
}

#[test]
fn two_writers_do_not_meet() {
    let home = Home::with_both();
    let held = Disk::for_writing(&home.path).expect("the lock");
    assert!(matches!(set_secret(&home), Err(VaultError::Busy(_))));
    home.vault().unlock(Role::Monitor, &phrase("monitor")).expect("readers need no lock");
    drop(held);
    set_secret(&home).expect("the lock is free again");
}

#[test]
fn what_a_crash_left_behind_does_not_hinder_and_is_not_followed() {
    let home = Home::with_both();
    let temp = home.path.with_file_name("vault.amcvault.new");
    write_private(&temp, b"half a vault");
    set_secret(&home).expect("written");
    assert!(!temp.exists());
    let elsewhere = home.path.with_file_name("elsewhere");
    write_private(&elsewhere, b"precious");
    symlink(&elsewhere, &temp).expect("a link");
    set_secret(&home).expect("written");
    assert_eq!(fs::read(&elsewhere).expect("still there"), b"precious");
}

#[test]
fn a_missing_home_is_a_missing_vault() {
    let home = Home::new();
    let path = home.path.with_file_name("nowhere").join("vault.amcvault");
    assert!(matches!(Vault::status(&path), Err(VaultError::Missing(_))));
}
