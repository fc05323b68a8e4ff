//! Vault files that somebody damaged or forged.

use std::ops::Range;

use amc_core::kinds::Role;

use super::{Home, phrase, workspace};
use crate::{ScryptParams, Vault, VaultError};

const HEADER: usize = 10;
const PREFIX: usize = 61;

/// Where each compartment stands in the file.
fn compartments(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut at = HEADER;
    let mut ranges = vec![];
    while at < bytes.len() {
        let length: [u8; 4] = bytes[at + PREFIX..at + PREFIX + 4].try_into().expect("four bytes");
        let end = at + PREFIX + 4 + usize::try_from(u32::from_be_bytes(length)).expect("a length") + 32;
        ranges.push(at..end);
        at = end;
    }
    ranges
}

/// Computes a compartment's checksum again, as somebody who forges would.
fn mend_checksum(bytes: &mut [u8], compartment: &Range<usize>) {
    let sum_at = compartment.end - 32;
    let sum = amc_crypto::sha256(&[&bytes[..HEADER], &bytes[compartment.start..sum_at]].concat());
    bytes[sum_at..compartment.end].copy_from_slice(&sum.0);
}

fn unlock(home: &Home, role: Role) -> Result<(), VaultError> {
    home.vault().unlock(role, &phrase(role.as_str())).map(drop)
}

#[test]
fn every_flipped_bit_is_refused() {
    let home = Home::with_both();
    let good = home.bytes();
    let places = compartments(&good);
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            home.overwrite(&bad);
            for (role, place) in [Role::Monitor, Role::Auditor].into_iter().zip(&places) {
                if at < HEADER || place.contains(&at) {
                    assert!(unlock(&home, role).is_err(), "{role}: byte {at}, bit {bit}");
                }
            }
        }
    }
    home.overwrite(&good);
    unlock(&home, Role::Monitor).expect("the good file opens");
}

#[test]
fn every_flipped_bit_under_a_mended_checksum_is_refused() {
    let home = Home::with_both();
    let good = home.bytes();
    let place = compartments(&good)[0].clone();
    for at in place.start..place.end - 32 {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            mend_checksum(&mut bad, &place);
            home.overwrite(&bad);
            let error = unlock(&home, Role::Monitor).expect_err("refused");
            let told = matches!(
                error,
                VaultError::WrongPassphrase { .. } | VaultError::Damaged { .. } | VaultError::Cost { .. }
            );
            assert!(told, "byte {at}, bit {bit}: {error}");
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    let home = Home::with_both();
    let good = home.bytes();
    let places = compartments(&good);
    for length in 0..good.len() {
        home.overwrite(&good[..length]);
        if length == places[0].end {
            unlock(&home, Role::Monitor).expect("the first compartment is whole");
            assert!(matches!(unlock(&home, Role::Auditor), Err(VaultError::NoCompartment { .. })));
        } else {
            for role in [Role::Monitor, Role::Auditor] {
                let error = unlock(&home, role).expect_err("refused");
                assert!(matches!(error, VaultError::Damaged { .. }), "{role}, {length} bytes: {error}");
            }
        }
    }
}

#[test]
fn damage_and_wrong_passphrase_are_told_apart() {
    let home = Home::with_both();
    let good = home.bytes();
    let place = compartments(&good)[0].clone();
    let mut bad = good.clone();
    bad[place.start + PREFIX + 10] ^= 1;
    home.overwrite(&bad);
    assert!(matches!(unlock(&home, Role::Monitor), Err(VaultError::Damaged { .. })), "bit rot");
    unlock(&home, Role::Auditor).expect("the other compartment is not concerned");
    let intact: Vec<_> = Vault::status(&home.path).expect("status").compartments.iter().map(|c| c.intact).collect();
    assert_eq!(intact, [false, true]);
    mend_checksum(&mut bad, &place);
    home.overwrite(&bad);
    assert!(matches!(unlock(&home, Role::Monitor), Err(VaultError::WrongPassphrase { .. })), "a forger");
}

#[test]
fn swapped_ciphertexts_are_refused() {
    let home = Home::new();
    let params = ScryptParams::for_tests();
    home.vault().create(Role::Monitor, &phrase("same"), params).expect("created");
    home.vault().add_compartment(Role::Auditor, &phrase("same"), params).expect("added");
    let mut bytes = home.bytes();
    let [one, two] = &compartments(&bytes)[..] else { panic!("two compartments") };
    // Everything but the role's name changes places: salts, nonces and ciphertexts still fit.
    for offset in 8..one.len() {
        bytes.swap(one.start + offset, two.start + offset);
    }
    mend_checksum(&mut bytes, one);
    mend_checksum(&mut bytes, two);
    home.overwrite(&bytes);
    for role in [Role::Monitor, Role::Auditor] {
        let error = home.vault().unlock(role, &phrase("same")).expect_err("refused");
        assert!(matches!(error, VaultError::WrongPassphrase { .. }), "{role}: {error}");
    }
}

#[test]
fn a_compartment_twice_is_refused() {
    let home = Home::with_both();
    let mut bytes = home.bytes();
    let first = compartments(&bytes)[0].clone();
    bytes.extend_from_within(first);
    home.overwrite(&bytes);
    assert!(matches!(
        unlock(&home, Role::Monitor),
        Err(VaultError::Damaged { what: "a role has two compartments", .. })
    ));
}

#[test]
fn a_file_that_is_no_vault() {
    let home = Home::new();
    for (name, bytes) in
        [("empty", &b""[..]), ("text", b"hello, this is a text\n"), ("header alone", b"AMCVAULT\0\x01")]
    {
        home.overwrite(bytes);
        assert!(matches!(unlock(&home, Role::Monitor), Err(VaultError::Damaged { .. })), "{name}");
        let create = home.vault().create(Role::Monitor, &phrase("p"), ScryptParams::for_tests());
        assert!(matches!(create, Err(VaultError::Exists(_))), "{name}: nothing is overwritten");
        assert_eq!(home.bytes(), bytes, "{name}");
    }
    home.overwrite(&vec![b'A'; crate::file::FILE_BYTES_MAX + 1]);
    assert!(matches!(unlock(&home, Role::Monitor), Err(VaultError::Damaged { .. })), "endless");
}

#[test]
fn a_version_of_the_future() {
    let home = Home::with_both();
    let mut bytes = home.bytes();
    bytes[9] = 2;
    home.overwrite(&bytes);
    assert!(matches!(unlock(&home, Role::Monitor), Err(VaultError::Version { version: 2, .. })));
}

#[test]
fn a_cost_bomb_is_refused_before_memory_is_taken() {
    let home = Home::with_both();
    let good = home.bytes();
    let place = compartments(&good)[0].clone();
    // At 2^40 blocks of 2 KiB an allocation would end the test.
    for (name, log_n, r, p) in [
        ("N above the cap", 21, 8u32, 1u32),
        ("N of 2^40", 40, 16, 1),
        ("N beyond a machine word", 255, 8, 1),
        ("r above the cap", 17, 17, 1),
        ("p above the cap", 17, 8, 5),
        ("products that overflow", 20, u32::MAX, u32::MAX),
        ("r zero", 17, 0, 1),
        ("p zero", 17, 8, 0),
    ] {
        let mut bad = good.clone();
        bad[place.start + 8] = log_n;
        bad[place.start + 9..place.start + 13].copy_from_slice(&r.to_be_bytes());
        bad[place.start + 13..place.start + 17].copy_from_slice(&p.to_be_bytes());
        mend_checksum(&mut bad, &place);
        home.overwrite(&bad);
        assert!(matches!(unlock(&home, Role::Monitor), Err(VaultError::Cost { .. })), "{name}");
        assert!(Vault::status(&home.path).is_ok(), "{name}: the status shows it");
    }
}

#[test]
fn shipped_programs_refuse_a_cheap_vault() {
    let home = Home::with_both();
    let error = Vault::at(&home.path, workspace()).unlock(Role::Monitor, &phrase("monitor")).expect_err("refused");
    assert!(matches!(error, VaultError::Cost { .. }), "{error}");
}
