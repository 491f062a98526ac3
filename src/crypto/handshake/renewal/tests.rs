use proptest::prelude::*;

use super::*;
use crate::{
    crypto::{
        keys::{KeyError, Verified},
        record::{
            HEADER_LEN, Opener, RecordError, RecordKind, Sealer, Side, body_len, link, session_of,
        },
    },
    testing::keys::{WEAK, identity, pair, rng},
};

const MASTER: u8 = 1;
const WORKER: u8 = 2;
const HANDSHAKE: u8 = 3;

fn prk() -> Secret {
    Secret::from_slice(&[42; 32]).expect("32 bytes")
}

fn params(session: &Secret, own: u8, peer: u8) -> RenewalParams {
    RenewalParams {
        session: session.clone(),
        identity: Arc::new(identity(own)),
        peer_spki: identity(peer).spki().to_vec(),
        bounds: WEAK,
    }
}

fn ask(session: &Secret) -> (AwaitRenewal, Vec<u8>) {
    let pair = WrapPair::new(pair(HANDSHAKE));
    params(session, WORKER, MASTER).request(pair, &mut rng(10)).expect("in order")
}

fn answer(session: &Secret, request: &[u8]) -> Result<(Secret, Vec<u8>), HandshakeFault> {
    params(session, MASTER, WORKER).answer(request, &mut rng(11))
}

fn is_bad_signature<T>(result: Result<T, HandshakeFault>) -> bool {
    matches!(result, Err(HandshakeFault::Key { why: KeyError::BadSignature, .. }))
}

fn open(opener: &mut Opener, record: &[u8]) -> Result<(RecordKind, Vec<u8>), RecordError> {
    let (header, body) = record.split_first_chunk::<HEADER_LEN>().expect("a header");
    body_len(*header)?;
    let mut body = body.to_vec();
    opener.open(*header, &mut body).map(|kind| (kind, body))
}

fn seal(sealer: &mut Sealer, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    sealer.seal(RecordKind::Data, plain, &mut out).expect("short");
    out
}

fn switch(sealer: &mut Sealer, fresh: &Secret) -> Vec<u8> {
    let mut out = Vec::new();
    sealer.switch(fresh, &mut out).expect("open");
    out
}

/// Both ends of one direction, and the secret that a handshake agreed on.
fn renewed() -> (Sealer, Opener, Secret) {
    let session = session_of(&prk());
    let (waiting, request) = ask(&session);
    let (at_acceptor, reply) = answer(&session, &request).expect("in order");
    let at_dialer = waiting.on_reply(&reply, &mut rng(12)).expect("in order");
    assert_eq!(at_dialer.expose(), at_acceptor.expose());
    (link(&prk(), Side::Dialer).0, link(&prk(), Side::Acceptor).1, at_dialer)
}

#[test]
fn both_ends_agree_and_records_go_on_under_keys_that_the_old_ones_do_not_give() {
    let (mut sealer, mut opener, fresh) = renewed();
    assert_eq!(sealer.session().expose(), session_of(&prk()).expose());
    for round in 0..3_u8 {
        assert_eq!(
            open(&mut opener, &seal(&mut sealer, b"old")),
            Ok((RecordKind::Data, b"old".to_vec()))
        );
        sealer.rekey();
        assert!(open(&mut opener, &seal(&mut sealer, &[round])).is_ok());
        let announced = switch(&mut sealer, &fresh);
        assert_eq!(open(&mut opener, &announced), Ok((RecordKind::Switch, Vec::new())));
        assert_eq!(opener.switch(&fresh), Ok(()));
        assert_eq!(opener.switch(&fresh), Err(RecordError::Closed));
    }
    assert!(open(&mut opener, &seal(&mut sealer, b"new")).is_ok());
    assert_eq!(sealer.session().expose(), session_of(&fresh).expose());
}

#[test]
fn reader_with_all_keys_of_the_link_but_not_the_wrapped_secret_opens_nothing_new() {
    let (mut sealer, _, fresh) = renewed();
    let guesses = [prk(), session_of(&prk()), session_of(&fresh)];
    let announced = switch(&mut sealer, &fresh);
    let record = seal(&mut sealer, b"new");
    for guess in guesses {
        // It holds the very keys of the receiving end until the switch.
        let (_, mut stolen) = link(&prk(), Side::Acceptor);
        assert!(open(&mut stolen, &announced).is_ok());
        assert_eq!(stolen.switch(&guess), Ok(()));
        assert_eq!(open(&mut stolen, &record), Err(RecordError::Forged));
    }
    let (_, mut stolen) = link(&prk(), Side::Acceptor);
    assert!(open(&mut stolen, &announced).is_ok());
    assert_eq!(open(&mut stolen, &record), Err(RecordError::Closed), "not without a secret");
}

#[test]
fn stolen_identities_do_not_open_a_recorded_renewal() {
    let session = session_of(&prk());
    let (waiting, request) = ask(&session);
    let (_, reply) = answer(&session, &request).expect("in order");
    let said = Signed::decode(&reply, PLAIN_LEN_MAX).expect("a frame");
    let said: RenewalReply = codec::decode(&said.body).expect("a reply");
    let context: [&[u8]; 3] = [session.expose(), &request, &said.nonce];
    for stolen in [MASTER, WORKER] {
        let stolen = WrapPair::new(pair(stolen));
        assert!(
            stolen
                .unwrap(Verified::without_signature(), &mut rng(1), WRAP, &context, &said.wrapped)
                .is_err()
        );
    }
    assert!(
        waiting
            .pair
            .unwrap(Verified::without_signature(), &mut rng(1), WRAP, &context, &said.wrapped)
            .is_ok()
    );
}

#[test]
fn forged_signature_is_refused_before_anything_is_wrapped_or_unwrapped() {
    let session = session_of(&prk());
    let pair_of = || WrapPair::new(pair(HANDSHAKE));
    let (_, forged) = params(&session, 9, MASTER).request(pair_of(), &mut rng(1)).expect("made");
    let master = params(&session, MASTER, WORKER);
    let identity = Arc::clone(&master.identity);
    assert!(is_bad_signature(master.answer(&forged, &mut rng(2))));
    assert_eq!(identity.signatures(), 0);

    let (waiting, request) = ask(&session);
    let forger = params(&session, 9, WORKER);
    let (_, forged) = forger.answer(&request, &mut rng(2)).expect("made");
    assert!(is_bad_signature(waiting.on_reply(&forged, &mut rng(3))));
}

#[test]
fn messages_of_another_session_or_of_an_earlier_exchange_are_refused() {
    let session = session_of(&prk());
    let (waiting, request) = ask(&session);
    let (fresh, reply) = answer(&session, &request).expect("in order");
    let later = session_of(&fresh);
    assert!(is_bad_signature(answer(&later, &request)));
    let (waiting_again, request_again) = ask(&later);
    assert_ne!(request, request_again);
    assert!(is_bad_signature(waiting_again.on_reply(&reply, &mut rng(3))));
    // Nor does a message of one kind pass for the other.
    assert!(is_bad_signature(answer(&session, &reply)));
    assert!(is_bad_signature(waiting.on_reply(&request, &mut rng(3))));
}

#[test]
fn messages_are_short_even_with_the_longest_keys() {
    let session = session_of(&prk());
    let (_, request) = ask(&session);
    let (_, reply) = answer(&session, &request).expect("in order");
    // Two values grow with the keys: four times as long at 4096 bits.
    assert!(4 * request.len() <= PLAIN_LEN_MAX && 4 * reply.len() <= PLAIN_LEN_MAX);
    let long = vec![0; PLAIN_LEN_MAX + 1];
    assert!(matches!(answer(&session, &long), Err(HandshakeFault::Malformed { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn message_with_a_flipped_bit_is_refused(at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let session = session_of(&prk());
        let flipped = |mut bytes: Vec<u8>| {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            bytes
        };
        let (waiting, request) = ask(&session);
        prop_assert!(answer(&session, &flipped(request.clone())).is_err());
        let (_, reply) = answer(&session, &request).expect("in order");
        prop_assert!(waiting.on_reply(&flipped(reply), &mut rng(3)).is_err());
    }
}
