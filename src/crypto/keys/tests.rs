use proptest::prelude::*;

use super::*;
use crate::testing::keys::{WEAK, identity, pair, rng};

#[test]
fn signature_verifies_only_for_its_key_label_and_parts() {
    let one = identity(1);
    let key = IdentityKey::from_spki(one.spki(), WEAK).expect("a key");
    let other = IdentityKey::from_spki(identity(2).spki(), WEAK).expect("a key");
    let signature = one.sign(&mut rng(9), "label", &[b"a", b"b"]).expect("it signs");
    assert!(key.verify("label", &[b"a", b"b"], &signature).is_ok());
    for (key, label, parts) in [
        (&other, "label", [&b"a"[..], b"b"]),
        (&key, "lebal", [b"a", b"b"]),
        (&key, "label", [b"ab", b""]),
    ] {
        assert_eq!(key.verify(label, &parts, &signature).err(), Some(KeyError::BadSignature));
    }
    assert_eq!(key.verify("label", &[b"a", b"b"], b"").err(), Some(KeyError::BadSignature));
    assert_eq!((one.signatures(), key.node()), (1, one.node()));
}

#[test]
fn wrapped_secret_opens_only_for_its_key_label_and_context() {
    let (one, other) = (WrapPair::new(pair(1)), WrapPair::new(pair(2)));
    let key = WrapKey::from_spki(one.spki(), WEAK).expect("a key");
    let secret = Secret::random(&mut rng(3));
    let wrapped = key.wrap(&mut rng(4), "label", &[b"c"], &secret).expect("it wraps");
    let opened = one
        .unwrap(Verified::without_signature(), &mut rng(5), "label", &[b"c"], &wrapped)
        .expect("it opens");
    assert_eq!(opened.expose(), secret.expose());
    for (pair, label, context) in
        [(&other, "label", b"c"), (&one, "lebal", b"c"), (&one, "label", b"d")]
    {
        let refused = pair
            .unwrap(Verified::without_signature(), &mut rng(5), label, &[context], &wrapped)
            .err();
        assert_eq!(refused, Some(KeyError::BadWrap));
    }
    assert_eq!((one.unwraps(), other.unwraps()), (3, 1));
}

#[test]
fn small_keys_are_refused_under_the_standard_bounds() {
    let size = Err(KeyError::Size { bits: 1024, min: 2048, max: 4096 });
    let der = pair(1).to_pkcs8_der().expect("it encodes");
    assert_eq!(KeyPair::from_pkcs8_der(&der, KeyBounds::STANDARD).map(|_| ()), size);
    let spki = identity(1).spki().to_vec();
    assert_eq!(IdentityKey::from_spki(&spki, KeyBounds::STANDARD).map(|_| ()), size);
    assert_eq!(WrapKey::from_spki(&spki, KeyBounds::STANDARD).map(|_| ()), size);
    let made = KeyPair::generate(&mut rng(1), 1024, KeyBounds::STANDARD).map(|_| ());
    assert_eq!(made, size);
}

#[test]
fn another_exponent_or_a_second_encoding_is_refused() {
    let spki = identity(1).spki().to_vec();
    let refused = |bytes: &[u8]| {
        assert_eq!(
            IdentityKey::from_spki(bytes, WEAK).map(|_| ()),
            Err(KeyError::Malformed),
            "{}",
            hex::encode(bytes)
        );
    };
    let mut other_exponent = spki.clone();
    assert_eq!(other_exponent.split_off(spki.len() - 3), EXPONENT);
    other_exponent.extend([1, 0, 3]);
    refused(&other_exponent);
    let mut trailing = spki.clone();
    trailing.push(0);
    refused(&trailing);
    // The same key under the algorithm id of PSS would have another fingerprint.
    let at = spki.windows(2).position(|pair| pair == [0x05, 0x00]).expect("the NULL");
    let mut as_pss = spki.clone();
    as_pss.drain(at..at + 2);
    as_pss[at - 1] = 0x0a;
    as_pss[2] -= 2;
    as_pss[4] -= 2;
    assert!(RsaPublicKey::from_public_key_der(&as_pss).is_ok());
    refused(&as_pss);
    refused(&[]);
    refused(&[0x30; SPKI_LEN_MAX + 1]);
}

#[test]
fn same_seed_gives_the_same_key() {
    let make = || KeyPair::generate(&mut rng(7), 1024, WEAK).expect("1024 bits").spki;
    assert_eq!(make(), make());
    // A changed snapshot means a release of the rsa crate in which stored seeds give other keys.
    insta::assert_snapshot!(fingerprint(&make()), @"4105e067b3dd329bbb3ca50aef51f48a8062d8cec718172b5eac19686758ec85");
}

proptest! {
    #[test]
    fn random_bytes_are_refused_as_a_key(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(IdentityKey::from_spki(&bytes, WEAK).is_err());
        prop_assert!(KeyPair::from_pkcs8_der(&bytes, WEAK).is_err());
    }

    #[test]
    fn changed_key_is_refused_or_has_another_id(
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let identity = identity(1);
        let mut spki = identity.spki().to_vec();
        let at = at.index(spki.len());
        spki[at] ^= 1 << bit;
        let signature = identity.sign(&mut rng(1), "l", &[]).expect("it signs");
        if let Ok(key) = IdentityKey::from_spki(&spki, WEAK) {
            prop_assert_ne!(key.node(), identity.node());
            prop_assert!(key.verify("l", &[], &signature).is_err());
        }
    }
}

#[test]
fn signature_with_a_salt_of_another_length_is_refused() {
    let one = identity(1);
    let key = IdentityKey::from_spki(one.spki(), WEAK).expect("a key");
    let hash = labelled_hash("label", &[b"a"]);
    for (salt_len, want) in
        [(0, Err(KeyError::BadSignature)), (20, Err(KeyError::BadSignature)), (32, Ok(()))]
    {
        let padding = Pss::<Sha256>::new_with_salt(salt_len);
        let signature = one.private.sign_with_rng(&mut rng(9), padding, &hash).expect("it signs");
        let verified = key.verify("label", &[b"a"], &signature).map(|_| ());
        assert_eq!(verified, want, "{salt_len}");
    }
}
