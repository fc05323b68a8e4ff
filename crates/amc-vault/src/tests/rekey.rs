//! Other passphrases and other keys: what each step leaves, and what a crash at any write leaves.

use amc_core::kinds::{KeyPurpose, Role};
use amc_crypto::PublicKey;
use amc_crypto::signer::{CheckpointSigner, Cosigner as _, EventSigner as _, StatementSigner as _};

use super::crash::every_crash_of;
use super::{Home, phrase};
use crate::contents::Contents;
use crate::number::LogNumber;
use crate::{RoleKeys, ScryptParams, Vault, VaultError};

const BOTH: [KeyPurpose; 2] = [KeyPurpose::Log, KeyPurpose::Witness];

fn public(keys: &RoleKeys, purpose: KeyPurpose) -> PublicKey {
    match purpose {
        KeyPurpose::Log => keys.log().public_key(),
        KeyPurpose::Witness => keys.witness().verifier_key().public(),
    }
}

fn next(keys: &RoleKeys, purpose: KeyPurpose) -> Option<PublicKey> {
    match purpose {
        KeyPurpose::Log => keys.next().log.as_ref().map(|key| key.public_key()),
        KeyPurpose::Witness => keys.next().witness.as_ref().map(|key| key.verifier_key().public()),
    }
}

fn unlock(vault: &Vault, role: Role) -> RoleKeys {
    vault.unlock(role, &phrase(role.as_str())).expect("opened")
}

#[test]
fn one_passphrase_is_changed_for_all_compartments_at_once() {
    let home = Home::new();
    let (vault, cheap) = (home.vault(), ScryptParams::for_tests());
    vault.create(Role::Monitor, &phrase("old"), cheap).expect("created");
    vault.add_compartment(Role::Auditor, &phrase("old"), cheap).expect("added");
    let roles = vault.roles().expect("two");
    let dearer = ScryptParams { log_n: 3, ..cheap };
    vault.change_passphrase(&roles, &phrase("old"), &phrase("new"), dearer).expect("changed");
    for role in &roles {
        vault.unlock(*role, &phrase("new")).expect("opens with the new one");
        assert!(matches!(vault.unlock(*role, &phrase("old")), Err(VaultError::WrongPassphrase { .. })));
    }
    let params = |vault: &Vault| Vault::status(vault.path()).expect("a status").compartments.clone();
    assert!(params(&vault).iter().all(|compartment| compartment.params == dearer));
    vault.change_passphrase(&roles, &phrase("new"), &phrase("newer"), cheap).expect("changed");
    assert!(params(&vault).iter().all(|compartment| compartment.params == dearer), "a cost never goes down");
}

#[test]
fn a_passphrase_that_opens_one_of_two_changes_none_and_does_not_say_which() {
    let home = Home::with_both();
    let before = home.bytes();
    let vault = home.vault();
    let mut told = Vec::new();
    for old in ["monitor", "auditor", "neither"] {
        let params = ScryptParams::for_tests();
        let roles = [Role::Monitor, Role::Auditor];
        let error = vault.change_passphrase(&roles, &phrase(old), &phrase("new"), params).expect_err(old);
        assert!(matches!(error, VaultError::NotEvery(_)), "{error}");
        told.push(error.to_string());
    }
    told.dedup();
    assert_eq!(told.len(), 1, "the same words whichever opened: {told:?}");
    assert_eq!(home.bytes(), before);
}

#[test]
fn a_key_rotates_in_two_writes_and_the_old_one_is_gone() {
    for (role, purpose) in [Role::Monitor, Role::Auditor].into_iter().flat_map(|role| BOTH.map(|of| (role, of))) {
        let home = Home::with_both();
        let (vault, words) = (home.vault(), phrase(role.as_str()));
        let old = public(&unlock(&vault, role), purpose);
        let prepared = vault.prepare_rotation(role, &words, purpose).expect("prepared");
        assert_eq!(public(&prepared, purpose), old, "nothing has changed yet");
        let coming = next(&prepared, purpose).expect("a next key");
        let again = vault.prepare_rotation(role, &words, purpose).expect("prepared");
        assert_eq!(next(&again, purpose), Some(coming), "a second start goes on with the same key");
        let opened = unlock(&vault, role);
        assert_eq!((public(&opened, purpose), next(&opened, purpose)), (old, Some(coming)));

        let stranger = public(&unlock(&vault, role.other()), purpose);
        let other = vault.finish_rotation(role, &words, purpose, stranger);
        assert!(matches!(other, Err(VaultError::NotRotating { .. })));
        vault.finish_rotation(role, &words, purpose, coming).expect("finished");
        let opened = unlock(&vault, role);
        assert_eq!((public(&opened, purpose), next(&opened, purpose)), (coming, None));
        let written = home.bytes();
        vault.finish_rotation(role, &words, purpose, coming).expect("finished already");
        assert_eq!(home.bytes(), written, "nothing is written twice");
        assert!(matches!(vault.finish_rotation(role, &words, purpose, old), Err(VaultError::NotRotating { .. })));
    }
}

#[test]
fn both_keys_of_a_role_can_be_on_the_way_at_once() {
    let home = Home::with_both();
    let (vault, words) = (home.vault(), phrase("monitor"));
    for purpose in BOTH {
        vault.prepare_rotation(Role::Monitor, &words, purpose).expect("prepared");
    }
    let keys = unlock(&vault, Role::Monitor);
    let coming = BOTH.map(|purpose| next(&keys, purpose).expect("a next key"));
    vault.finish_rotation(Role::Monitor, &words, KeyPurpose::Witness, coming[1]).expect("finished");
    let keys = unlock(&vault, Role::Monitor);
    assert_eq!((next(&keys, KeyPurpose::Log), next(&keys, KeyPurpose::Witness)), (Some(coming[0]), None));
    assert_eq!(public(&keys, KeyPurpose::Witness), coming[1]);
}

#[test]
fn the_next_key_takes_over_every_duty_of_the_old_one() {
    let home = Home::with_both();
    let vault = home.vault();
    vault.prepare_rotation(Role::Auditor, &phrase("auditor"), KeyPurpose::Log).expect("prepared");
    vault.prepare_rotation(Role::Monitor, &phrase("monitor"), KeyPurpose::Log).expect("prepared");
    let auditor = vault.unlock_auditor(&phrase("auditor")).expect("opened");
    let coming = auditor.next.log.as_ref().map(|key| key.public_key());
    let auditor = auditor.handles().of_log(LogNumber::successor(2).expect("a number")).advance_log();
    assert_eq!(Some(auditor.log.public_key()), coming);
    assert_eq!(Some(auditor.envelopes.public_key()), coming);
    assert_eq!(auditor.log.origin(), "acme-1/audit/2");
    assert!(auditor.next.log.is_none());
    let monitor = vault.unlock_monitor(&phrase("monitor")).expect("opened");
    let coming = monitor.next.log.as_ref().map(|key| key.public_key());
    let monitor = monitor.advance_log();
    assert_eq!(Some(monitor.log.public_key()), coming);
    let minted = amc_crypto::signer::ReceiptSigner::verifier_key(&monitor.receipts);
    assert_eq!(minted, CheckpointSigner::verifier_key(&monitor.log));
    let same = monitor.log.public_key();
    assert_eq!(monitor.advance_log().log.public_key(), same, "without a next key nothing happens");
}

#[test]
fn a_stolen_key_is_replaced_at_once() {
    for purpose in BOTH {
        let home = Home::with_both();
        let (vault, words) = (home.vault(), phrase("auditor"));
        let old = public(&unlock(&vault, Role::Auditor), purpose);
        vault.prepare_rotation(Role::Auditor, &words, purpose).expect("prepared");
        assert_eq!(vault.public_key(Role::Auditor, &words, purpose).expect("a key"), old);
        let new = vault.replace_key(Role::Auditor, &words, purpose).expect("replaced");
        let keys = unlock(&vault, Role::Auditor);
        assert_eq!((public(&keys, purpose), next(&keys, purpose)), (new, None));
        assert_ne!(new, old);
    }
}

#[test]
fn a_wrong_passphrase_changes_no_key() {
    let home = Home::with_both();
    let (vault, wrong, before) = (home.vault(), phrase("wrong"), home.bytes());
    let key = public(&unlock(&vault, Role::Monitor), KeyPurpose::Log);
    let refused = [
        vault.prepare_rotation(Role::Monitor, &wrong, KeyPurpose::Log).map(drop),
        vault.finish_rotation(Role::Monitor, &wrong, KeyPurpose::Log, key),
        vault.replace_key(Role::Monitor, &wrong, KeyPurpose::Log).map(drop),
    ];
    for result in refused {
        assert!(matches!(result, Err(VaultError::WrongPassphrase { .. })));
    }
    assert_eq!(home.bytes(), before);
}

#[test]
fn a_crash_while_the_passphrase_changes_leaves_the_old_or_the_new_one_for_all() {
    let home = Home::new();
    let (vault, params) = (home.vault(), ScryptParams::for_tests());
    vault.create(Role::Monitor, &phrase("old"), params).expect("created");
    vault.add_compartment(Role::Auditor, &phrase("old"), params).expect("added");
    let roles = [Role::Monitor, Role::Auditor];
    every_crash_of(
        &home,
        |model| vault.change_passphrase_in(model, &roles, &phrase("old"), &phrase("new"), params),
        |is_new| {
            let words = if is_new { "new" } else { "old" };
            for role in roles {
                vault.unlock(role, &phrase(words)).expect("every compartment opens with the same one");
            }
        },
    );
}

#[test]
fn a_crash_in_any_step_of_a_rotation_leaves_the_key_before_or_after_it() {
    for purpose in BOTH {
        let home = Home::with_both();
        let (vault, words) = (home.vault(), phrase("monitor"));
        let old = public(&unlock(&vault, Role::Monitor), purpose);
        every_crash_of(
            &home,
            |model| vault.prepare_rotation_in(model, Role::Monitor, &words, purpose).map(drop),
            |is_new| {
                let keys = unlock(&vault, Role::Monitor);
                assert_eq!((public(&keys, purpose), next(&keys, purpose).is_some()), (old, is_new));
            },
        );
        let prepared = vault.prepare_rotation(Role::Monitor, &words, purpose).expect("prepared");
        let coming = next(&prepared, purpose).expect("a next key");
        every_crash_of(
            &home,
            |model| vault.finish_rotation_in(model, Role::Monitor, &words, purpose, coming),
            |is_new| {
                let keys = unlock(&vault, Role::Monitor);
                let wanted = if is_new { (coming, None) } else { (old, Some(coming)) };
                assert_eq!((public(&keys, purpose), next(&keys, purpose)), wanted);
            },
        );
        every_crash_of(
            &home,
            |model| vault.replace_key_in(model, Role::Monitor, &words, purpose).map(drop),
            |is_new| assert_eq!(public(&unlock(&vault, Role::Monitor), purpose) == old, !is_new),
        );
    }
}

#[test]
fn contents_have_one_spelling_each() {
    let workspace = super::workspace();
    let mut contents = Contents::generate(Role::Monitor, workspace).expect("random bytes");
    let plain = contents.encode(0);
    assert_eq!(plain[0], 1, "nothing rotates");
    assert!(Contents::decode(&plain).is_some());
    let seed = || crate::secret::Secret32::random().expect("random bytes");
    for (log, witness, flags) in [(true, false, 1), (false, true, 2), (true, true, 3)] {
        contents.next_log_seed = log.then(seed);
        contents.next_witness_seed = witness.then(seed);
        let bytes = contents.encode(0);
        let at = 1 + 8 + 1 + "acme-1".len() + 96;
        assert_eq!((bytes[0], bytes[at]), (2, flags));
        let decoded = Contents::decode(&bytes).expect("decodes");
        assert_eq!(*decoded.encode(0), *bytes);
        for (name, place, value) in
            [("a version 2 without a next key", at, 0), ("an unknown key", at, 4), ("an unknown version", 0, 3)]
        {
            let mut bad = bytes.to_vec();
            bad[place] = value;
            assert!(Contents::decode(&bad).is_none(), "{name}");
        }
        let mut bad = bytes.to_vec();
        bad[0] = 1;
        assert!(Contents::decode(&bad).is_none(), "a version 1 with next keys");
    }
}
