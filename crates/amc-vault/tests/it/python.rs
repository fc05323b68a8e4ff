//! The script of `docs/formats/vault.md` opens a vault of ours and finds the same keys and secrets.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::process::Command;

use amc_core::kinds::{KeyPurpose, Role};
use amc_core::{WorkspaceName, digest};
use amc_crypto::signer::{CheckpointSigner as _, Cosigner as _, EventSigner as _};
use amc_vault::{Passphrase, ScryptParams, SecretName, SecretValue, Vault};

const PAGE: &str = include_str!("../../../../docs/formats/vault.md");

fn script() -> &'static str {
    let (_, rest) = PAGE.split_once("```python\n").expect("the page has a script");
    rest.split_once("```").expect("the script ends").0
}

#[test]
fn the_script_of_the_format_page_opens_a_vault() {
    let probe = Command::new("python3").args(["-c", "import cryptography"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: python3 with the package cryptography is not here");
        return;
    }
    let dir = tempfile::TempDir::new().expect("a temporary directory");
    let home = dir.path().join("home");
    fs::DirBuilder::new().mode(0o700).create(&home).expect("a home");
    let path = home.join("vault.amcvault");
    let passphrase = || Passphrase::new("correct horse é".into()).expect("a passphrase");
    let vault = Vault::at(&path, WorkspaceName::new("acme-1").expect("a name"));
    vault.create(Role::Monitor, &passphrase(), ScryptParams::default()).expect("created");
    let name = SecretName::provider("openai").expect("a name");
    vault.set_secret(&passphrase(), name, SecretValue::new(b"sk-test".to_vec()).expect("a value")).expect("set");
    let keys = vault.unlock_monitor(&passphrase()).expect("opened");

    let open = |phrase: &str| {
        let script = Command::new("python3").args(["-c", script()]).arg(&path).args(["monitor", phrase]).output();
        script.expect("python3 runs")
    };
    let output = open("correct horse é");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(found["workspace"], "acme-1");
    assert_eq!(found["log_public"], digest::hex(&keys.log.verifier_key().public().to_bytes()));
    assert_eq!(found["witness_public"], digest::hex(&keys.witness.verifier_key().public().to_bytes()));
    assert_eq!(found["secrets"], serde_json::json!({"provider/openai": digest::hex(b"sk-test")}));
    assert_eq!(found["next_log_public"], serde_json::Value::Null);

    let keys = vault.prepare_rotation(Role::Monitor, &passphrase(), KeyPurpose::Log).expect("prepared");
    let found: serde_json::Value = serde_json::from_slice(&open("correct horse é").stdout).expect("JSON");
    let next = keys.next().log.as_ref().expect("a next key").public_key();
    assert_eq!(found["next_log_public"], digest::hex(&next.to_bytes()));
    assert_eq!(found["next_witness_public"], serde_json::Value::Null);
    assert_eq!(found["secrets"], serde_json::json!({"provider/openai": digest::hex(b"sk-test")}));
    assert!(!open("wrong").status.success(), "a wrong passphrase is refused");
}
