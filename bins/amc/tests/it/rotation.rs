//! Keys that change and keys that were stolen: what old signatures are worth, what a crash between two
//! steps leaves, and what nobody can do any more.

use std::fs::{self, File};
use std::path::Path;

use serde_json::{Value, json};

use crate::answer::Answer;
use crate::bundle_more::{CALL, with_receipt};
use crate::home::{Scored, TestHome, copy_dir, model};
use crate::services::Up;

pub(crate) fn rotate(home: &TestHome, role: &str, key: &str) -> Value {
    home.json(&["vault", "rotate-keys", "--role", role, "--key", key]).ends(0).data()
}

/// Runs, exports and verifies; gives the bundle.
fn bundle(home: &TestHome, name: &str) -> String {
    let run = home.json(&["run", "--agent", "support"]);
    let id = run.data()["run_id"].as_str().unwrap_or_else(|| panic!("no run: {run}")).to_owned();
    let path = home.beside(name).display().to_string();
    home.json(&["bundle", "export", "--agent", "support", "--run", &id, "--out", &path]).ends(0);
    home.json(&["bundle", "verify", &path]).ends(0);
    path
}

fn wrap(home: &TestHome) -> Answer {
    home.wrap_sh("echo work").ends(0)
}

#[test]
fn every_signature_of_before_and_after_verifies_from_the_pinned_keys() {
    let Scored { home, bundle: earlier, .. } = TestHome::scored();
    let policy = fs::read(home.file("trust.policy")).expect("a policy");
    let pinned = String::from_utf8(policy.clone()).expect("text");
    for (role, key) in [("auditor", "log"), ("monitor", "log"), ("monitor", "all"), ("auditor", "all")] {
        let changed = rotate(&home, role, key);
        let new = changed["log_key"].as_str().expect("a key");
        assert!(!pinned.contains(new), "{new} is not the pinned one");
        wrap(&home);
    }
    home.json(&["verify"]).ends(0);
    assert_eq!(fs::read(home.file("trust.policy")).expect("a policy"), policy, "nobody has to pin anything anew");
    // Configurations signed by the first key, and by the newest one.
    home.json(&["config", "sign", "gateway.yaml"]).ends(0);
    for path in ["amc.yaml", "bank.toml", "gateway.yaml", "agents/support/gatePolicy.json"] {
        let state = home.json(&["config", "verify", path]).ends(0);
        assert_eq!(state.data()["state"], "signed", "{path}: {state}");
    }
    wrap(&home);
    let later = bundle(&home, "later.amcbundle");
    let earlier = earlier.display().to_string();
    home.json(&["bundle", "verify", &earlier]).ends(0);
    // A policy that the pinned key signed goes on deciding.
    let gate_policy = home.file("agents/support/gatePolicy.json").display().to_string();
    let gate = |bundle: &str| home.json(&["gate", "--bundle", bundle, "--policy", &gate_policy]);
    let codes = |bundle: &str| gate(bundle).errors();
    assert!(
        !codes(&earlier).contains("CONFIG_SIGNATURE_INVALID") && !codes(&later).contains("CONFIG_SIGNATURE_INVALID")
    );
    // One that the newest key signed decides where the bundle leads to that key from the pinned one.
    home.json(&["config", "sign", "agents/support/gatePolicy.json"]).ends(0);
    assert!(!codes(&later).contains("CONFIG_SIGNATURE_INVALID"), "{}", gate(&later));
    assert!(codes(&earlier).contains("CONFIG_SIGNATURE_INVALID"), "{}", gate(&earlier));
    home.assert_tidy();
}

#[test]
fn receipts_of_before_and_after_verify() {
    let home = with_receipt();
    let old = home.beside("receipt.jws").display().to_string();
    home.json(&["receipt", "verify", &old]).ends(0);
    rotate(&home, "monitor", "log");
    fs::rename(&old, home.beside("old.jws")).expect("kept");
    let model = model(&[]);
    home.route_to(model.listening());
    let call = ["wrap", "--agent", "support", "--isolation", "none", "--", "python3", "-c", CALL];
    home.amc(&call).ends(0);
    let new = home.json(&["receipt", "verify", &old, "--body", "body.json"]).ends(0);
    assert_eq!(new.data()["position"], "proven", "{new}");
    let old = home.beside("old.jws").display().to_string();
    let proven = home.json(&["receipt", "verify", &old]).ends(0);
    assert_eq!(proven.data()["position"], "proven", "{proven}");
}

#[test]
fn a_retired_private_key_is_gone_and_an_old_copy_of_the_vault_does_not_open_the_log() {
    let home = TestHome::new();
    let old = fs::read(home.file("vault.amcvault")).expect("a vault");
    rotate(&home, "auditor", "log");
    let new = fs::read(home.file("vault.amcvault")).expect("a vault");
    fs::write(home.file("vault.amcvault"), old).expect("as a backup puts it back");
    let refused = home.json(&["config", "sign", "gateway.yaml"]).ends(1);
    assert!(refused.errors().contains("KEY_OUT_OF_VALIDITY"), "{refused}");
    fs::write(home.file("vault.amcvault"), new).expect("written");
    home.json(&["config", "sign", "gateway.yaml"]).ends(0);
}

#[test]
fn a_role_whose_keys_are_in_use_is_not_rotated_and_it_is_said_what_to_do() {
    let home = TestHome::new();
    let before = fs::read(home.file("vault.amcvault")).expect("a vault");
    let (up, _) = Up::start(&home);
    let refused = home.json(&["vault", "rotate-keys", "--role", "monitor"]).ends(3);
    assert!(refused.to_string().contains("amc down"), "{refused}");
    let stolen = ["--revoke-from", "0", "--reason", "test"];
    for role in ["monitor", "auditor"] {
        let revoke = [&["vault", "rotate-keys", "--role", role], &stolen[..]].concat();
        assert!(home.json(&revoke).ends(3).to_string().contains("amc down"), "{role}");
    }
    // The auditor's keys change beside a running monitor, which takes what the new ones sign.
    home.json(&["vault", "unlock"]).ends(0);
    let refused = home.json(&["vault", "rotate-keys", "--role", "auditor"]).ends(3);
    assert!(refused.to_string().contains("amc vault lock"), "{refused}");
    home.json(&["vault", "lock", "--role", "auditor"]).ends(0);
    assert_eq!(fs::read(home.file("vault.amcvault")).expect("a vault"), before);
    assert_eq!(rotate(&home, "auditor", "all")["cosigned"], json!(true));
    home.json(&["config", "sign", "gateway.yaml"]).ends(0);
    wrap(&home);
    drop(up);
    home.json(&["verify"]).ends(0);
    let loaded = home.evidence_of("config_loaded");
    assert!(loaded.iter().all(|event| event["fields"]["state"] == "signed"), "{loaded:?}");
}

#[test]
fn calls_that_cannot_be_meant_are_refused() {
    let home = TestHome::new();
    let before = fs::read(home.file("vault.amcvault")).expect("a vault");
    for arguments in [
        &["vault", "rotate-keys"][..],
        &["vault", "rotate-keys", "--role", "all"],
        &["vault", "rotate-keys", "--role", "monitor", "--key", "both"],
        &["vault", "rotate-keys", "--role", "monitor", "--revoke-from", "3"],
        &["vault", "rotate-keys", "--role", "monitor", "--reason", "why"],
        &["vault", "rotate-keys", "--role", "monitor", "--key", "witness", "--revoke-from", "3", "--reason", "why"],
    ] {
        home.json(arguments).ends(2);
    }
    let mut wrong = home.command();
    wrong.env("AMC_VAULT_PASSPHRASE", "wrong").args(["--json", "vault", "rotate-keys", "--role", "monitor"]);
    assert!(Answer::of(&mut wrong).ends(3).errors().contains("VAULT_LOCKED"));
    assert_eq!(fs::read(home.file("vault.amcvault")).expect("a vault"), before);
}

/// Stands in for a crash between the vault's first write and the log: the log is held by somebody else.
fn rotate_and_stop_before_the_log(home: &TestHome, role: &str, log: &str, key: &str) {
    let lock = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(home.file(&format!("logs/{log}/lock")));
    let lock = lock.expect("the log's lock");
    lock.lock().expect("nobody else has it");
    home.json(&["vault", "rotate-keys", "--role", role, "--key", key]).ends(3);
}

/// Something that needs the role's log key and, for the other's sake, its witness key.
fn uses_keys(home: &TestHome, role: &str) -> Answer {
    match role {
        "auditor" => home.json(&["cosign"]),
        _ => home.wrap_sh("echo work"),
    }
}

#[test]
fn a_crash_between_any_two_steps_of_a_rotation_is_mended_by_the_next_unlocking() {
    for (role, log) in [("auditor", "audit"), ("monitor", "evidence")] {
        for key in ["log", "witness"] {
            let home = TestHome::new();
            rotate_and_stop_before_the_log(&home, role, log, key);
            // The vault holds a next key and the log knows none: the old one goes on.
            let prepared = fs::read(home.file("vault.amcvault")).expect("a vault");
            uses_keys(&home, role).ends(0);

            // The log names the next key and the vault does not know that yet.
            rotate(&home, role, key);
            let rotated = fs::read(home.file("vault.amcvault")).expect("a vault");
            fs::write(home.file("vault.amcvault"), &prepared).expect("written");
            uses_keys(&home, role).ends(0);
            home.json(&["verify"]).ends(0);
            let mended = fs::read(home.file("vault.amcvault")).expect("a vault");
            assert!(mended != prepared && mended != rotated, "{role}, {key}: the next key took the old one's place");
        }
    }
}

/// A log that goes on under a key which is neither of the vault's two: nothing is erased for its sake.
#[test]
fn a_log_under_a_strange_key_does_not_finish_a_rotation() {
    let home = TestHome::new();
    let (vault, logs) = (home.file("vault.amcvault"), home.file("logs/audit"));
    let first = home.beside("first");
    copy_dir(&home.file("logs/audit"), &first);
    let original = fs::read(&vault).expect("a vault");
    rotate(&home, "auditor", "log");
    let strange = home.beside("strange");
    copy_dir(&logs, &strange);
    let put = |from: &Path| {
        fs::remove_dir_all(&logs).expect("removed");
        copy_dir(from, &logs);
    };
    // The first key again, with a next one that is another than the log was told of.
    put(&first);
    fs::write(&vault, original).expect("written");
    rotate_and_stop_before_the_log(&home, "auditor", "audit", "log");
    let prepared = fs::read(&vault).expect("a vault");
    put(&strange);
    assert!(home.json(&["config", "sign", "gateway.yaml"]).ends(1).errors().contains("KEY_OUT_OF_VALIDITY"));
    assert_eq!(fs::read(&vault).expect("a vault"), prepared, "both keys are still there");
    put(&first);
    home.json(&["config", "sign", "gateway.yaml"]).ends(0);
}

fn size_of(home: &TestHome, log: &str) -> u64 {
    home.json(&["ledger", "head", "--log", log]).ends(0).data()["size"].as_u64().expect("a size")
}

fn revoke(home: &TestHome, role: &str, from_index: u64) -> Value {
    let from = from_index.to_string();
    let arguments = ["vault", "rotate-keys", "--role", role, "--revoke-from", &from, "--reason", "a copy was stolen"];
    home.json(&arguments).ends(0).data()
}

#[test]
fn a_stolen_key_of_the_monitor_counts_up_to_its_index_and_the_log_goes_on_as_a_successor() {
    let Scored { home, bundle: earlier, .. } = TestHome::scored();
    let size = size_of(&home, "evidence");
    let said = revoke(&home, "monitor", size);
    assert_eq!(said["origin"], "acme-test/evidence");
    assert_ne!(said["new_public"], said["revoked"]);
    home.json(&["verify"]).ends(0);
    // Said twice it is one entry, and the key is not changed again.
    let audit = size_of(&home, "audit");
    assert_eq!(revoke(&home, "monitor", size), said);
    assert_eq!(size_of(&home, "audit"), audit);
    // What was signed before stays good; nothing more is recorded under the old log.
    home.json(&["bundle", "verify", &earlier.display().to_string()]).ends(0);
    let refused = home.wrap_sh("echo lost").ends(125);
    assert!(refused.to_string().contains("KEY_OUT_OF_VALIDITY"), "{refused}");

    let succeeded = home.json(&["ledger", "succeed"]).ends(0);
    assert_eq!(succeeded.data()["origin"], "acme-test/evidence/2", "{succeeded}");
    wrap(&home);
    let verified = home.json(&["verify"]).ends(0);
    assert_eq!(verified.data()["evidence"]["origin"], "acme-test/evidence/2");
    bundle(&home, "after.amcbundle");
}

#[test]
fn events_that_a_stolen_key_signed_from_the_index_on_are_found() {
    let Scored { home, .. } = TestHome::scored();
    let size = size_of(&home, "evidence");
    revoke(&home, "monitor", size - 1);
    let found = home.json(&["verify"]).ends(1);
    assert!(found.errors().contains("KEY_REVOKED"), "{found}");
    assert!(home.json(&["run", "--agent", "support"]).ends(1).errors().contains("KEY_REVOKED"));
}

#[test]
fn a_stolen_key_of_the_auditor_is_revoked_by_the_monitor() {
    let home = TestHome::new();
    let said = revoke(&home, "auditor", size_of(&home, "audit"));
    assert_eq!(said["origin"], "acme-test/audit");
    assert!(home.json(&["config", "sign", "gateway.yaml"]).ends(1).errors().contains("KEY_OUT_OF_VALIDITY"));
    let succeeded = home.json(&["ledger", "succeed", "--log", "audit"]).ends(0);
    assert_eq!(succeeded.data()["origin"], "acme-test/audit/2", "{succeeded}");
    // Nobody can tell when a stolen key signed an envelope, so none of its envelopes counts any more.
    let loose = home.json(&["config", "verify", "gateway.yaml"]).ends(1);
    assert!(loose.errors().contains("CONFIG_SIGNATURE_INVALID"), "{loose}");
    home.json(&["run", "--agent", "support"]).ends(1);
    let policies = ["agents/helper/gatePolicy.json", "agents/support/gatePolicy.json"];
    for path in [&["amc.yaml", "gateway.yaml", "bank.toml"][..], &policies].concat() {
        home.json(&["config", "sign", path]).ends(0);
    }
    wrap(&home);
    home.json(&["verify"]).ends(0);
    let loaded = home.evidence_of("config_loaded");
    assert_eq!(loaded.last().expect("a load")["fields"]["state"], "signed");
}

/// Each role has a home with its own compartment: one says that the key does not count, the other makes
/// a new one.
#[test]
fn roles_apart_revoke_in_two_places() {
    let home = TestHome::new();
    let (monitors, auditors) = (home.beside("m"), home.beside("a"));
    let amc =
        |root: &Path, arguments: &[&str]| home.json(&[&["--home", &root.display().to_string()], arguments].concat());
    amc(&auditors, &["init", "--role", "auditor", "--name", "apart"]).ends(0);
    let made = amc(&monitors, &["init", "--role", "monitor", "--name", "apart"]).ends(0).data();
    let own = fs::read_to_string(auditors.join("trust.policy")).expect("a policy");
    let lines = |word: &str| own.lines().filter(|line| line.starts_with(word)).collect::<String>();
    let policy = format!(
        "log {}\n{}\nwitness monitor-witness {}\n{}\ngroup roles any monitor-witness auditor-witness\nquorum roles\n",
        made["log_key"].as_str().expect("a key"),
        lines("log "),
        made["witness_key"].as_str().expect("a key"),
        lines("witness ")
    );
    for root in [&monitors, &auditors] {
        fs::write(root.join("trust.policy"), &policy).expect("written");
    }
    copy_dir(&monitors.join("logs/evidence"), &auditors.join("logs/evidence"));

    let revoke = ["vault", "rotate-keys", "--role", "monitor", "--revoke-from", "1", "--reason", "stolen"];
    let said = amc(&auditors, &revoke).ends(0).data();
    assert_eq!(said["new_public"], Value::Null, "{said}");
    let replaced = amc(&monitors, &revoke).ends(0).data();
    assert_eq!(replaced["revoked"], said["revoked"]);
    assert!(replaced["new_public"].is_string(), "{replaced}");
    let again = amc(&monitors, &revoke).ends(0).data();
    assert_eq!(again, replaced, "a key is replaced once");
    assert!(
        amc(&monitors, &["vault", "rotate-keys", "--role", "monitor"]).ends(1).errors().contains("KEY_OUT_OF_VALIDITY")
    );
    // Where the whole vault is lost, new keys are made for the log that there is, and it is said what comes next.
    fs::remove_file(monitors.join("vault.amcvault")).expect("a vault");
    let made = amc(&monitors, &["vault", "init", "--role", "monitor"]).ends(0).data();
    assert_eq!(made["succeed"], json!(true), "{made}");
    // A home without any compartment can say and change nothing.
    fs::remove_file(auditors.join("vault.amcvault")).expect("a vault");
    amc(&auditors, &revoke).ends(2);
}
