//! Every byte of one handshake of each version, and of a link's new one, with keys and random numbers
//! that never change.
//!
//! A difference is a change of the wire: nodes of the release before do not understand it, and the
//! version has to say so.

use super::*;
use crate::{
    crypto::{
        keys::{IdentityKey, Verified, fingerprint},
        record::{Side, session_of},
        secret::Secret,
    },
    testing::snapshots,
};

/// Release that stands in a snapshot in place of the real one, which is another each time.
const STAND_IN: &str = "0.0.0";

fn lines(out: &mut String, what: &str, bytes: &[u8]) {
    out.push_str(&format!("\n{what}, {} bytes\n", bytes.len()));
    for line in bytes.chunks(48) {
        out.push_str(&hex::encode(line));
        out.push('\n');
    }
}

/// Writes the fingerprints of the keys of a snapshot.
fn keys(out: &mut String, keys: [(&str, &[u8]); 3]) {
    for (whose, spki) in keys {
        out.push_str(&format!("{whose} key {}\n", fingerprint(spki)));
    }
}

fn sealed(sealer: &mut Sealer, plain: &[u8]) -> Vec<u8> {
    let mut record = Vec::new();
    sealer.seal(RecordKind::Data, plain, &mut record).expect("short");
    record
}

/// Text of a handshake: its keys, its five messages, and the first record of each direction.
fn transcript(fixture: &Fixture, wire: &[Vec<u8>], mut links: [Sealer; 2]) -> String {
    let mut seen = String::new();
    keys(
        &mut seen,
        [
            ("master", fixture.acceptor_params.identity.spki()),
            ("worker", fixture.worker.spki()),
            ("handshake", fixture.handshake.spki()),
        ],
    );
    for (what, message) in ["Hello", "Reply", "Auth", "Welcome", "Ready"].iter().zip(wire) {
        lines(&mut seen, what, message);
    }
    for (what, sealer) in ["First record of the dialer", "of the acceptor"].iter().zip(&mut links) {
        lines(&mut seen, what, &sealed(sealer, b"hello"));
    }
    seen
}

/// Replaces the release at the end of a message: its length in one byte, and its text.
fn with_stand_in(plain: &[u8]) -> Vec<u8> {
    let ending = |release: &str| {
        let len = u8::try_from(release.len()).expect("short");
        [&[len], release.as_bytes()].concat()
    };
    let before = plain.strip_suffix(&ending(RELEASE)[..]).expect("it ends with the release");
    [before, &ending(STAND_IN)].concat()
}

#[test]
fn handshake_with_fixed_keys_is_the_same_byte_for_byte() {
    let (fixture, played) = play_version(1);
    let seen = transcript(&fixture, &played.wire, [played.dialer.1, played.acceptor.1]);
    snapshots().bind(|| insta::assert_snapshot!("handshake_suite_1", seen));
}

/// Writes the two messages that say the release as a node of the release [`STAND_IN`] would send
/// them. Everything that leads to their bytes is first shown to give those that were sent.
#[test]
fn handshake_of_version_2_is_the_same_byte_for_byte_but_for_the_release() {
    let (fixture, played) = play_version(2);
    let mut wire = played.wire;
    let said = Signed::decode(&wire[1], PLAIN_LEN_MAX).expect("a frame");
    let said: messages::Reply = codec::decode(&said.body).expect("a Reply");
    let context: [&[u8]; 2] = [&wire[0], &said.head];
    let k0 = fixture
        .handshake
        .unwrap(Verified::without_signature(), &mut rng(1), WRAP, &context, &said.wrapped)
        .expect("its own");
    let secret = link_secret(&k0, &wire[0], &wire[1]);
    let sealer = |side| link(&secret, side).0;
    let opened = |what, side, record: &[u8]| {
        let (header, body) = one_record(record);
        open_message(&mut link(&secret, side).1, what, header, body).expect("genuine")
    };

    let plain = opened("Auth", Side::Acceptor, &wire[2]);
    assert_eq!(sealed(&mut sealer(Side::Dialer), &plain), wire[2]);
    let auth = Signed::decode(&plain, PLAIN_LEN_MAX).expect("a frame");
    let (label, before) = ("chatchat/v1/handshake/auth", [&wire[0][..], &wire[1]]);
    let worker = IdentityKey::from_spki(fixture.worker.spki(), WEAK).expect("a key");
    let signed = worker.verify(label, &[before[0], before[1], &auth.body], &auth.proof);
    assert!(signed.is_ok(), "{signed:?}");
    let body = with_stand_in(&auth.body);
    let proof = fixture.worker.sign(&mut rng(20), label, &[before[0], before[1], &body]);
    let proof = proof.expect("in order");
    let plain = Signed { body, proof }.encode().expect("short");
    let auth = sealed(&mut sealer(Side::Dialer), &plain);

    // Pages of the directory follow the head, and say no release.
    let (header, body) = one_record(&wire[3]);
    let (head, pages) = wire[3].split_at(header.len() + body.len());
    let plain = opened("Welcome", Side::Dialer, head);
    assert_eq!(sealed(&mut sealer(Side::Acceptor), &plain), head);
    let head = sealed(&mut sealer(Side::Acceptor), &with_stand_in(&plain));
    let welcome = [&head[..], pages].concat();

    (wire[2], wire[3]) = (auth, welcome);
    let seen = transcript(&fixture, &wire, [played.dialer.1, played.acceptor.1]);
    snapshots().bind(|| insta::assert_snapshot!("handshake_version_2", seen));
}

#[test]
fn new_handshake_of_a_link_is_the_same_byte_for_byte() {
    let secret = Secret::from_slice(&[42; 32]).expect("32 bytes");
    let [master, worker] = [MASTER, WORKER].map(|seed| Arc::new(identity(seed)));
    let params = |own: &Arc<Identity>, peer: &Identity| RenewalParams {
        session: session_of(&secret),
        identity: Arc::clone(own),
        peer_spki: peer.spki().to_vec(),
        bounds: WEAK,
    };
    let pair = WrapPair::new(pair(3));
    let mut seen = String::new();
    let of_all = [("master", master.spki()), ("worker", worker.spki()), ("handshake", pair.spki())];
    keys(&mut seen, of_all);
    let (waiting, request) =
        params(&worker, &master).request(pair, &mut rng(10)).expect("in order");
    let (fresh, reply) = params(&master, &worker).answer(&request, &mut rng(11)).expect("in order");
    let taken = waiting.on_reply(&reply, &mut rng(12)).expect("in order");
    assert_eq!(taken.expose(), fresh.expose());
    lines(&mut seen, "Request", &request);
    lines(&mut seen, "Reply", &reply);
    for (whose, side) in [("dialer", Side::Dialer), ("acceptor", Side::Acceptor)] {
        let (mut sealer, _) = link(&secret, side);
        let mut switch = Vec::new();
        sealer.switch(&fresh, &mut switch).expect("open");
        lines(&mut seen, &format!("Change of the {whose}'s keys"), &switch);
        lines(&mut seen, "First record after it", &sealed(&mut sealer, b"hello"));
    }
    snapshots().bind(|| insta::assert_snapshot!("renewal_suite_1", seen));
}
