//! What goes in comes out: keys, secrets, passphrases.

use amc_core::WorkspaceName;
use amc_core::kinds::Role;
use amc_crypto::signer::{CheckpointSigner as _, Cosigner as _};

use super::{Home, phrase};
use crate::{RoleKeys, SECRETS_MAX, ScryptParams, SecretName, SecretValue, Vault, VaultError};

fn name(text: &str) -> SecretName {
    SecretName::new(text).expect("a name")
}

fn value(text: &str) -> SecretValue {
    SecretValue::new(text.as_bytes().to_vec()).expect("a value")
}

fn verifier_keys(keys: &RoleKeys) -> (String, String) {
    (keys.log().verifier_key().to_string(), keys.witness().verifier_key().to_string())
}

#[test]
fn a_compartment_opens_with_the_keys_it_was_made_with() {
    let home = Home::new();
    for role in [Role::Monitor, Role::Auditor] {
        let (vault, phrase, params) = (home.vault(), phrase(role.as_str()), ScryptParams::for_tests());
        let made = match role {
            Role::Monitor => vault.create(role, &phrase, params),
            Role::Auditor => vault.add_compartment(role, &phrase, params),
        };
        let made = made.expect("made");
        let opened = vault.unlock(role, &phrase).expect("opened");
        assert_eq!((made.role(), opened.role()), (role, role));
        assert_eq!(verifier_keys(&made), verifier_keys(&opened));
        assert_eq!(opened.log().verifier_key().name(), format!("acme-1/{}", role.log_name()));
        assert_eq!(opened.witness().verifier_key().name(), format!("acme-1/{role}-witness"));
    }
    let status = Vault::status(&home.path).expect("a status");
    let roles: Vec<_> = status.compartments.iter().map(|c| (c.role, c.params, c.intact)).collect();
    let params = ScryptParams::for_tests();
    assert_eq!(roles, [(Role::Monitor, params, true), (Role::Auditor, params, true)]);
}

#[test]
fn every_key_is_another() {
    let home = Home::with_both();
    let monitor = home.vault().unlock(Role::Monitor, &phrase("monitor")).expect("opened");
    let auditor = home.vault().unlock(Role::Auditor, &phrase("auditor")).expect("opened");
    let mut publics = vec![];
    for keys in [&monitor, &auditor] {
        publics.push(keys.log().verifier_key().public().to_bytes());
        publics.push(keys.witness().verifier_key().public().to_bytes());
    }
    publics.sort_unstable();
    publics.dedup();
    assert_eq!(publics.len(), 4);
}

#[test]
fn wrong_passphrase() {
    let home = Home::with_both();
    for wrong in ["auditor", "Monitor", "monitor ", "m"] {
        let error = home.vault().unlock(Role::Monitor, &phrase(wrong)).expect_err(wrong);
        assert!(matches!(error, VaultError::WrongPassphrase { role: Role::Monitor, .. }), "{error}");
        assert!(error.to_string().contains("the passphrase is wrong or the compartment was altered"));
    }
}

#[test]
fn another_workspace() {
    let home = Home::with_both();
    let vault = Vault::for_tests(&home.path, WorkspaceName::new("other").expect("a name"));
    let error = vault.unlock(Role::Monitor, &phrase("monitor")).expect_err("refused");
    assert!(matches!(error, VaultError::OtherWorkspace { .. }), "{error}");
}

#[test]
fn missing_and_doubled_compartments() {
    let home = Home::new();
    let (vault, params) = (home.vault(), ScryptParams::for_tests());
    let add = |role| vault.add_compartment(role, &phrase("p"), params).expect_err("refused");
    assert!(matches!(vault.unlock(Role::Monitor, &phrase("p")), Err(VaultError::Missing(_))));
    assert!(matches!(add(Role::Monitor), VaultError::Missing(_)));
    vault.create(Role::Monitor, &phrase("p"), params).expect("created");
    let before = home.bytes();
    assert!(matches!(vault.create(Role::Auditor, &phrase("p"), params), Err(VaultError::Exists(_))));
    assert!(matches!(add(Role::Monitor), VaultError::CompartmentExists { role: Role::Monitor, .. }));
    assert!(matches!(vault.unlock(Role::Auditor, &phrase("p")), Err(VaultError::NoCompartment { .. })));
    assert_eq!(home.bytes(), before, "a refusal changes nothing");
}

#[test]
fn secrets_are_kept_replaced_listed_and_removed() {
    let home = Home::with_both();
    let (vault, phrase) = (home.vault(), phrase("monitor"));
    vault.set_secret(&phrase, name("provider/openai"), value("sk-old")).expect("set");
    vault.set_secret(&phrase, name("provider/anthropic"), value("sk-ant")).expect("set");
    vault.set_secret(&phrase, name("provider/openai"), value("sk-new")).expect("replaced");
    assert_eq!(vault.list_secrets(&phrase).expect("listed"), [name("provider/anthropic"), name("provider/openai")]);
    let keys = vault.unlock_monitor(&phrase).expect("opened");
    assert_eq!(keys.secrets.get(&name("provider/openai")).map(SecretValue::expose), Some(&b"sk-new"[..]));
    assert!(keys.secrets.get(&name("provider/none")).is_none());

    vault.remove_secret(&phrase, &name("provider/openai")).expect("removed");
    let gone = vault.remove_secret(&phrase, &name("provider/openai"));
    assert!(matches!(gone, Err(VaultError::NoSecret(_))));
    assert_eq!(vault.list_secrets(&phrase).expect("listed"), [name("provider/anthropic")]);
}

#[test]
fn the_largest_contents_fit_and_one_secret_more_does_not() {
    let home = Home::with_both();
    let phrase = phrase("monitor");
    let secret = |number: usize| name(&format!("provider/{number:064}"));
    let full = || SecretValue::new(vec![0xff; crate::SECRET_BYTES_MAX]).expect("a value");
    let vault = home.vault();
    let mut disk = crate::disk::Disk::for_writing(&home.path).expect("the lock");
    let fill = |contents: &mut crate::contents::Contents| {
        contents.secrets.0.extend((0..SECRETS_MAX).map(|number| (secret(number), full())));
        Ok(())
    };
    vault.edit_in(&mut disk, Role::Monitor, &phrase, fill).expect("64 secrets of full length");
    drop(disk);
    let before = home.bytes();
    let more = vault.set_secret(&phrase, secret(SECRETS_MAX), full());
    assert!(matches!(more, Err(VaultError::TooManySecrets)));
    assert_eq!(home.bytes(), before);
    vault.set_secret(&phrase, secret(0), value("shorter")).expect("an old one is replaced");
    assert_eq!(vault.list_secrets(&phrase).expect("listed").len(), SECRETS_MAX);
}

#[test]
fn the_length_of_a_secret_does_not_show() {
    let home = Home::with_both();
    let mut lengths = vec![];
    for text in ["a", "a much longer value of the secret"] {
        home.vault().set_secret(&phrase("monitor"), name("provider/openai"), value(text)).expect("set");
        lengths.push(home.bytes().len());
    }
    assert_eq!(lengths[0], lengths[1]);
}

#[test]
fn the_other_compartment_stays_byte_for_byte() {
    let home = Home::with_both();
    // Both compartments are equally long: the auditor's is the second half behind the header.
    let auditors = |bytes: &[u8]| bytes[10 + (bytes.len() - 10) / 2..].to_vec();
    let before = home.bytes();
    let vault = home.vault();
    vault.set_secret(&phrase("monitor"), name("provider/openai"), value("sk")).expect("set");
    let after = home.bytes();
    assert_ne!(before, after);
    assert_eq!(auditors(&before), auditors(&after));
    vault
        .change_passphrase(&[Role::Monitor], &phrase("monitor"), &phrase("new"), ScryptParams::for_tests())
        .expect("changed");
    assert_eq!(auditors(&before), auditors(&home.bytes()));
    vault.unlock(Role::Auditor, &phrase("auditor")).expect("still opens");
}

#[test]
fn a_changed_passphrase_replaces_the_old_one_and_keeps_the_keys() {
    let home = Home::with_both();
    let vault = home.vault();
    let before = vault.unlock(Role::Monitor, &phrase("monitor")).expect("opened");
    let params = ScryptParams::for_tests();
    let wrong = vault.change_passphrase(&[Role::Monitor], &phrase("x"), &phrase("new"), params);
    assert!(matches!(wrong, Err(VaultError::WrongPassphrase { .. })));
    vault.change_passphrase(&[Role::Monitor], &phrase("monitor"), &phrase("new"), params).expect("changed");
    assert!(matches!(vault.unlock(Role::Monitor, &phrase("monitor")), Err(VaultError::WrongPassphrase { .. })));
    let after = vault.unlock(Role::Monitor, &phrase("new")).expect("opened");
    assert_eq!(verifier_keys(&before), verifier_keys(&after));
}

#[test]
fn commitments_are_stable_within_a_workspace_and_differ_between() {
    let (one, two) = (Home::with_both(), Home::with_both());
    let commit =
        |home: &Home| home.vault().unlock_monitor(&phrase("monitor")).expect("opened").commitments.commit(b"s");
    assert_eq!(commit(&one), commit(&one));
    assert_ne!(commit(&one), commit(&two));
}

#[test]
fn nothing_secret_is_printed() {
    let home = Home::with_both();
    let vault = home.vault();
    vault.set_secret(&phrase("monitor"), name("provider/openai"), value("sk-very-secret")).expect("set");
    let keys = vault.unlock(Role::Monitor, &phrase("monitor")).expect("opened");
    let wanted = "Monitor(MonitorKeys { log: LogKey(acme-1/evidence, [redacted]), \
                  receipts: ReceiptKey(acme-1/evidence, [redacted]), \
                  witness: WitnessKey(acme-1/monitor-witness, [redacted]), \
                  commitments: CommitmentKey(blake3, [redacted]), \
                  secrets: {SecretName(\"provider/openai\")}, \
                  next: NextKeys { log: None, witness: None } })";
    assert_eq!(format!("{keys:?}"), wanted);
}
