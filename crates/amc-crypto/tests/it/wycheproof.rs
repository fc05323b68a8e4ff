//! Wycheproof's Ed25519 cases: what is valid verifies, alone and in batches, and nothing else does.

use amc_crypto::key::{Claim, verify_all};
use amc_crypto::{PublicKey, Signature};
use wycheproof::TestResult;
use wycheproof::eddsa::{TestName, TestSet};

#[test]
fn wycheproof_ed25519() {
    let set = TestSet::load(TestName::Ed25519).expect("the crate carries its own vectors");
    let (mut valid, mut invalid) = (0, 0);
    for group in &set.test_groups {
        let key: [u8; 32] = group.key.pk.as_slice().try_into().expect("a key of 32 bytes");
        let key = PublicKey::from_bytes(&key);
        for case in &group.tests {
            let signature = Signature::try_from(case.sig.as_slice());
            let alone = match (&key, &signature) {
                (Ok(key), Ok(signature)) => key.verify(&case.msg, signature).is_ok(),
                _ => false,
            };
            let wanted = case.result == TestResult::Valid;
            assert_eq!(alone, wanted, "case {}: {}", case.tc_id, case.comment);
            if let (Ok(key), Ok(signature)) = (&key, &signature) {
                let claim = || Claim { key: *key, message: case.msg.as_slice(), signature };
                assert_eq!(verify_all(&[claim(), claim()]), [wanted; 2], "case {} in a batch", case.tc_id);
            }
            *(if wanted { &mut valid } else { &mut invalid }) += 1;
        }
    }
    assert!(valid > 50 && invalid > 50, "{valid} valid, {invalid} not");
}
