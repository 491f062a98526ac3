use proptest::prelude::*;

use super::*;
use crate::testing::keys::record_pair;

fn seal(sealer: &mut Sealer, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    sealer.seal(RecordKind::Data, plain, &mut out).expect("within the bound");
    out
}

fn open(opener: &mut Opener, record: &[u8]) -> Result<Vec<u8>, RecordError> {
    let (header, body) = record.split_at(HEADER_LEN);
    let header = header.try_into().expect("HEADER_LEN bytes");
    body_len(header)?;
    let mut body = body.to_vec();
    opener.open(header, &mut body).map(|_| body)
}

fn small(records_max: u64, bytes_max: u64) -> (Sealer, Opener) {
    let prk = Secret::from_slice(&[1; 32]).expect("32 bytes");
    let limits = Limits { records_max, bytes_max };
    (link_with(&prk, Side::Dialer, limits).0, link_with(&prk, Side::Acceptor, limits).1)
}

#[test]
fn sealed_text_opens_at_the_other_end_in_both_directions() {
    let ((mut a_seal, mut a_open), (mut b_seal, mut b_open)) = record_pair();
    for text in [&b""[..], b"hello", &[9; 70_000]] {
        assert_eq!(open(&mut b_open, &seal(&mut a_seal, text)).as_deref(), Ok(text));
        assert_eq!(open(&mut a_open, &seal(&mut b_seal, text)).as_deref(), Ok(text));
    }
}

#[test]
fn replayed_reordered_dropped_and_reflected_records_are_refused() {
    let records = |sealer: &mut Sealer| [seal(sealer, b"one"), seal(sealer, b"two")];
    let ((mut sealer, mut reflected), (_, mut opener)) = record_pair();
    let [one, two] = records(&mut sealer);
    assert_eq!(open(&mut reflected, &one), Err(RecordError::Forged));
    assert_eq!(open(&mut opener, &one).as_deref(), Ok(&b"one"[..]));
    assert_eq!(open(&mut opener, &one), Err(RecordError::Forged));
    // The opener is dead: it refuses even the right record now.
    assert_eq!(open(&mut opener, &two), Err(RecordError::Closed));

    let (_, (_, mut opener)) = record_pair();
    assert_eq!(open(&mut opener, &two), Err(RecordError::Forged));
}

#[test]
fn record_of_another_session_is_refused() {
    let (mut sealer, _) = small(10, 1000);
    let (_, (_, mut opener)) = record_pair();
    assert_eq!(open(&mut opener, &seal(&mut sealer, b"one")), Err(RecordError::Forged));
}

#[test]
fn nothing_is_sealed_or_opened_after_a_close() {
    let ((mut sealer, _), (_, mut opener)) = record_pair();
    let mut out = Vec::new();
    sealer.seal(RecordKind::Close, b"bye", &mut out).expect("within the bound");
    let end = out.len();
    assert_eq!(sealer.seal(RecordKind::Data, b"x", &mut out), Err(RecordError::Closed));
    assert_eq!(out.len(), end);
    let (header, body) = out.split_at(HEADER_LEN);
    let mut body = body.to_vec();
    let header = header.try_into().expect("HEADER_LEN bytes");
    assert_eq!(opener.open(header, &mut body), Ok(RecordKind::Close));
    assert_eq!(body, b"bye");
    assert_eq!(opener.open(header, &mut body), Err(RecordError::Closed));
}

#[test]
fn hostile_length_is_refused_before_allocation() {
    let len = PLAIN_MAX + 1;
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(&(len as u32).to_be_bytes());
    assert_eq!(body_len(header), Err(RecordError::TooLong { len }));
    assert!(body_len([0xff; HEADER_LEN]).is_err());
    let ((mut sealer, _), _) = record_pair();
    let mut out = Vec::new();
    let long = vec![0; len];
    assert_eq!(sealer.seal(RecordKind::Data, &long, &mut out), Err(RecordError::TooLong { len }));
    assert!(out.is_empty());
}

#[test]
fn keys_change_at_their_bounds_and_on_request_at_both_ends() {
    for (mut sealer, mut opener) in [small(3, u64::MAX), small(u64::MAX, 40)] {
        for n in 0_u8..50 {
            if n % 7 == 0 {
                sealer.rekey();
            }
            let text = [n; 11];
            assert_eq!(open(&mut opener, &seal(&mut sealer, &text)).as_deref(), Ok(&text[..]));
            assert!(sealer.chain.records <= 3 || sealer.chain.bytes < 40);
            assert!(sealer.chain.nonce_base == opener.chain.nonce_base);
        }
    }
}

#[test]
fn peer_that_overuses_a_key_is_refused() {
    let (mut sealer, mut opener) = small(3, u64::MAX);
    sealer.chain.limits.records_max = u64::MAX;
    for n in 0..2 {
        assert!(open(&mut opener, &seal(&mut sealer, &[n])).is_ok());
    }
    assert_eq!(open(&mut opener, &seal(&mut sealer, b"x")), Err(RecordError::Overused));
}

#[test]
fn same_key_and_texts_give_the_same_bytes() {
    let ((mut sealer, _), _) = record_pair();
    let mut out = seal(&mut sealer, b"golden");
    sealer.rekey();
    out.extend(seal(&mut sealer, b""));
    out.extend(seal(&mut sealer, b"after a new key"));
    // A changed snapshot means a changed wire format.
    insta::assert_snapshot!(hex::encode(out), @"00000006015d8b7c690f3f54e2b0fd1321c5b64a0893a5a3968e6f0000000081c6a83f738cacb71d32d62441ec0357c50000000f01642536af948edd83b6eba3f353782b5adc7fb71ecc86ac7edf99d9fc2931eb");
}

proptest! {
    #[test]
    fn record_with_a_flipped_bit_is_refused(
        text in prop::collection::vec(any::<u8>(), 0..64),
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let ((mut sealer, _), (_, mut opener)) = record_pair();
        let mut record = seal(&mut sealer, &text);
        let at = at.index(record.len());
        record[at] ^= 1 << bit;
        prop_assert!(open(&mut opener, &record).is_err());
    }

    #[test]
    fn random_bytes_are_refused_as_a_record(record in prop::collection::vec(any::<u8>(), HEADER_LEN..200)) {
        let (_, (_, mut opener)) = record_pair();
        prop_assert!(open(&mut opener, &record).is_err());
    }
}
