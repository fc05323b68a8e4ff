//! The directory: found, opened only when nobody else can use it, read within bounds, written whole.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use amc_core::AgentId;
use amc_core::kinds::Role;
use amc_workspace::home::{self, Home, HomeError};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode can be set");
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

/// A directory of the test's own with a home in it.
fn new_home() -> (tempfile::TempDir, Home) {
    let dir = tempfile::tempdir().expect("a directory");
    let home = Home::create(&dir.path().join(".amc")).expect("a new home");
    (dir, home)
}

#[test]
fn a_new_home_is_closed_to_others() {
    let (_dir, home) = new_home();
    for path in [home.root().to_owned(), home.file("agents"), home.file("logs"), home.file("runs"), home.file("run")] {
        assert_eq!(mode_of(&path), 0o700, "{}", path.display());
    }
    assert_eq!(Home::open(home.root()).expect("it opens"), home);
}

#[test]
fn every_looser_mode_is_refused_with_the_command_that_mends_it() {
    let (_dir, home) = new_home();
    for mode in [0o701, 0o710, 0o704, 0o740, 0o755, 0o770, 0o777] {
        set_mode(home.root(), mode);
        let refused = Home::open(home.root()).expect_err("others can use it");
        assert!(refused.to_string().contains("chmod 700"), "{refused}");
        assert!(matches!(refused, HomeError::Permissions { mode: found, wanted: 0o700, .. } if found == mode));
    }
    set_mode(home.root(), 0o500);
    assert!(Home::open(home.root()).is_ok(), "tighter is fine");
    set_mode(home.root(), 0o700);
}

#[test]
fn a_file_mode_is_checked_like_a_directory() {
    let (_dir, home) = new_home();
    let file = home.file("secret");
    home::write_atomic(&file, b"x").expect("written");
    assert!(home::check_mode(&file, 0o600).is_ok());
    set_mode(&file, 0o640);
    assert!(home::check_mode(&file, 0o600).expect_err("readable by a group").to_string().contains("chmod 600"));
}

#[test]
fn the_flag_wins_over_the_variable_and_both_over_the_nearest() {
    let (dir, nearest) = new_home();
    let (_other_dir, other) = new_home();
    let below = dir.path().join("a/b");
    fs::create_dir_all(&below).expect("directories");
    assert_eq!(Home::find(None, None, &below).expect("upward"), nearest);
    assert_eq!(Home::find(None, Some(other.root()), &below).expect("the variable"), other);
    assert_eq!(Home::find(Some(nearest.root()), Some(other.root()), &below).expect("the flag"), nearest);
}

#[test]
fn no_home_is_said_with_what_to_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = dir.path().join("nowhere");
    let refused = Home::find(Some(&missing), None, dir.path()).expect_err("there is none");
    assert!(matches!(refused, HomeError::Missing(_)) && refused.to_string().contains("amc init"), "{refused}");
    let file = dir.path().join("file");
    fs::write(&file, b"").expect("a file");
    assert!(matches!(Home::open(&file), Err(HomeError::NotADirectory(_))), "a file is no home");
}

#[test]
fn a_directory_with_something_in_it_is_left_as_it_is() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("mine"), b"precious").expect("a file");
    assert!(matches!(Home::create(dir.path()), Err(HomeError::Exists(_))));
    let entries: Vec<_> =
        fs::read_dir(dir.path()).expect("readable").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(entries, ["mine"]);
}

#[test]
fn agents_are_the_directories_with_an_agents_name() {
    let (_dir, home) = new_home();
    for name in ["beta", "alpha", "Not-An-Agent", ".hidden"] {
        fs::create_dir(home.file("agents").join(name)).expect("a directory");
    }
    let names: Vec<AgentId> = home.agents().expect("readable");
    assert_eq!(names.iter().map(AgentId::as_str).collect::<Vec<_>>(), ["alpha", "beta"]);
}

#[test]
fn reading_stops_at_the_bound() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("file");
    fs::write(&path, vec![7; 100]).expect("a file");
    assert_eq!(home::read_bounded(&path, 100).expect("as large as may be").len(), 100);
    assert!(matches!(home::read_bounded(&path, 99), Err(HomeError::TooLarge { max: 99, .. })));
    // A device without an end is refused after the bound, not read for ever.
    assert!(matches!(home::read_bounded(Path::new("/dev/zero"), 4096), Err(HomeError::TooLarge { .. })));
    let missing = home::read_bounded(&dir.path().join("none"), 1).expect_err("not there");
    assert!(missing.to_string().contains("none"), "{missing}");
}

#[test]
fn a_file_is_replaced_whole_closed_to_others_and_nothing_is_left_beside_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("file");
    fs::write(&path, vec![b'a'; 10_000]).expect("an older file");
    home::write_atomic(&path, b"new").expect("written");
    assert_eq!(fs::read(&path).expect("readable"), b"new");
    assert_eq!(mode_of(&path), 0o600);
    assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1, "no temporary file");
}

#[test]
fn a_file_that_cannot_be_replaced_stays_and_nothing_is_left_beside_it() {
    let dir = tempfile::tempdir().expect("a directory");
    // A directory of that name: the rename fails after everything was written.
    let path = dir.path().join("taken");
    fs::create_dir(&path).expect("a directory");
    fs::write(path.join("inside"), b"old").expect("a file");
    let refused = home::write_atomic(&path, b"new").expect_err("a directory stands there");
    assert!(refused.to_string().contains("taken"), "{refused}");
    assert_eq!(fs::read(path.join("inside")).expect("still there"), b"old");
    assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1, "no temporary file");
    assert!(home::write_atomic(&dir.path().join("no/such/dir"), b"").is_err());
}

#[test]
fn a_policy_without_a_role_names_whom_it_lacks() {
    let (_dir, home) = new_home();
    let public = ed25519_dalek::SigningKey::from_bytes(&[0x42; 32]).verifying_key().to_bytes();
    let key = amc_crypto::PublicKey::from_bytes(&public).expect("a key");
    let key = amc_crypto::VerifierKey::new("acme/evidence", amc_crypto::note::KeyKind::Ed25519, key).expect("a name");
    home::write_atomic(&home.trust_policy_path(), format!("log {key}\nquorum none\n").as_bytes()).expect("written");
    let policy = home.trust_policy().expect("it parses");
    assert_eq!(home.pinned_log(&policy, Role::Monitor).expect("pinned"), key);
    assert_eq!(home::workspace_of(&key).expect("a workspace").as_str(), "acme");
    assert!(matches!(home.pinned_log(&policy, Role::Auditor), Err(HomeError::NotPinned { role: Role::Auditor, .. })));
    assert!(home.auditor_keys(&policy).is_err());
}

#[test]
fn a_broken_policy_is_refused_with_its_file_and_line() {
    let (_dir, home) = new_home();
    home::write_atomic(&home.trust_policy_path(), b"# fine\ntrust everybody\n").expect("written");
    let refused = home.trust_policy().expect_err("no such line").to_string();
    assert!(refused.contains("trust.policy") && refused.contains("line 2"), "{refused}");
    home::write_atomic(&home.trust_policy_path(), &vec![b'#'; 70_000]).expect("written");
    assert!(matches!(home.trust_policy(), Err(HomeError::TooLarge { .. })));
}
