//! Inputs that are just not valid: a valid one with one fault, of each kind that matters to its
//! target.

use super::{codec, crypto, handshake, link, people, renewal};
use crate::{crypto::handshake::RELEASE, wire::codec::encode};

/// Invalid inputs, each with the name of its fault.
pub(super) type Invalid = Vec<(&'static str, Vec<u8>)>;

/// Length that no input can have, in the codec's form.
const HOSTILE: [u8; 9] = [253, 255, 255, 255, 255, 255, 255, 255, 255];
/// Bytes of the number of a call in a frame, and of the kind before it.
const CALL_HEAD: usize = 9;

fn truncated(input: &[u8]) -> Vec<u8> {
    input[..input.len() - 1].to_vec()
}

fn trailing(input: &[u8]) -> Vec<u8> {
    [input, &[0]].concat()
}

/// Flips one bit of the last byte, where a tag or a signature ends.
fn flipped(input: &[u8]) -> Vec<u8> {
    let mut input = input.to_vec();
    if let Some(last) = input.last_mut() {
        *last ^= 1;
    }
    input
}

/// Replaces `old` bytes at a place.
fn replaced(input: &[u8], at: usize, old: usize, new: &[u8]) -> Vec<u8> {
    [&input[..at], new, &input[at + old..]].concat()
}

pub(super) fn frames() -> Invalid {
    let seeds = codec::frame_seeds();
    vec![
        ("truncated", truncated(&seeds[0])),
        ("truncated-head", seeds[3][..CALL_HEAD - 1].to_vec()),
        ("trailing", trailing(&seeds[3])),
        ("trailing-body", trailing(&seeds[7])),
        ("unknown-kind", replaced(&seeds[7], 0, 1, &[u8::MAX])),
        ("unknown-variant", replaced(&seeds[2], CALL_HEAD, 1, &[250])),
        ("hostile-length", replaced(&seeds[2], CALL_HEAD + 1, 1, &HOSTILE)),
        ("hostile-topics", [&seeds[6][..1], &HOSTILE].concat()),
    ]
}

pub(super) fn values() -> Invalid {
    let seeds = codec::value_seeds();
    vec![
        ("truncated", truncated(&seeds[0])),
        ("trailing", trailing(&seeds[0])),
        ("unknown-type", replaced(&seeds[0], 0, 1, &[u8::MAX])),
        ("unknown-variant", replaced(&seeds[2], 1, 1, &[250])),
        ("hostile-length", replaced(&seeds[2], 2, 1, &HOSTILE)),
        ("hostile-list", replaced(&seeds[1], 2, 1, &HOSTILE)),
    ]
}

pub(super) fn keys() -> Invalid {
    let [public, private, announcement, token] = &crypto::key_seeds()[..] else {
        return Vec::new();
    };
    // The DER of both keys begins with a sequence whose length has one byte and two bytes.
    let der = [0x84, 0xff, 0xff, 0xff, 0xff];
    vec![
        ("public-truncated", truncated(public)),
        ("public-trailing", trailing(public)),
        ("public-hostile-length", replaced(public, 2, 2, &der)),
        ("private-truncated", truncated(private)),
        ("private-trailing", trailing(private)),
        ("private-hostile-length", replaced(private, 2, 3, &der)),
        ("announcement-truncated", truncated(announcement)),
        ("announcement-trailing", trailing(announcement)),
        ("announcement-flipped", flipped(announcement)),
        ("announcement-hostile-length", [&announcement[..1], &HOSTILE].concat()),
        ("token-truncated", truncated(token)),
        ("token-trailing", trailing(token)),
        ("token-of-version-2", replaced(token, 1, 5, b"CHAT2")),
    ]
}

pub(super) fn records() -> Invalid {
    let seeds = crypto::record_seeds();
    let (first, all) = (&seeds[0], &seeds[seeds.len() - 1]);
    vec![
        ("truncated", truncated(first)),
        ("flipped", flipped(first)),
        ("replayed", first.repeat(2)),
        ("after-the-close", [&all[..], first].concat()),
        ("without-the-first", all[first.len()..].to_vec()),
        ("hostile-length", replaced(first, 0, 4, &[u8::MAX; 4])),
        ("no-length", replaced(first, 0, 4, &[0; 4])),
    ]
}

pub(super) fn envelopes() -> Invalid {
    let seeds = crypto::envelope_seeds();
    vec![
        ("truncated", truncated(&seeds[0])),
        ("truncated-head", seeds[0][..40].to_vec()),
        ("trailing", trailing(&seeds[0])),
        ("flipped", flipped(&seeds[1])),
        ("unknown-format", replaced(&seeds[0], 0, 1, &[2])),
        ("unknown-topic", replaced(&seeds[0], 1, 1, &[u8::MAX])),
        ("of-another-sender", replaced(&seeds[0], 34, 16, &[8; 16])),
    ]
}

pub(super) fn handshakes() -> Invalid {
    let [hello, reply, auth, insider, welcome] = &handshake::seeds()[..] else {
        return Vec::new();
    };
    // What a node of version 1 says: the same without a release.
    let of_version_1 = |plain: &[u8]| plain[..plain.len() - RELEASE.len() - 1].to_vec();
    let (body, proof): (Vec<u8>, Vec<u8>) =
        crate::wire::codec::decode(&insider[1..]).expect("genuine");
    let older = encode(&(of_version_1(&body), proof)).expect("short");
    vec![
        ("hello-truncated", truncated(hello)),
        ("hello-trailing", trailing(hello)),
        ("hello-flipped", flipped(hello)),
        ("hello-hostile-length", [&hello[..1], &HOSTILE].concat()),
        // Behind the kind and the length of the body: the oldest and the newest version.
        ("hello-of-version-9", replaced(hello, 2, 2, &[9, 9])),
        ("reply-truncated", truncated(reply)),
        ("reply-flipped", flipped(reply)),
        ("auth-truncated", truncated(auth)),
        ("auth-flipped", flipped(auth)),
        ("auth-of-version-1", [&insider[..1], &older].concat()),
        ("auth-hostile-length", [&insider[..1], &HOSTILE].concat()),
        ("welcome-truncated", truncated(welcome)),
        ("welcome-trailing", trailing(welcome)),
        ("welcome-of-version-1", of_version_1(welcome)),
    ]
}

pub(super) fn renewals() -> Invalid {
    let [request, reply, asked, said] = &renewal::seeds()[..] else { return Vec::new() };
    // A key or a wrapped secret stands behind the kind and a nonce.
    let hostile = |body: &[u8]| [&body[..33], &HOSTILE].concat();
    vec![
        ("request-truncated", truncated(request)),
        ("request-trailing", trailing(request)),
        ("request-flipped", flipped(request)),
        ("request-hostile-length", [&request[..1], &HOSTILE].concat()),
        ("reply-truncated", truncated(reply)),
        ("reply-trailing", trailing(reply)),
        ("reply-flipped", flipped(reply)),
        ("request-of-peer-truncated", truncated(asked)),
        ("request-of-peer-trailing", trailing(asked)),
        ("request-of-peer-hostile-length", hostile(asked)),
        ("reply-of-peer-truncated", truncated(said)),
        ("reply-of-peer-hostile-length", hostile(said)),
    ]
}

/// Steps of a peer that its link must not take.
pub(super) fn links() -> Invalid {
    let of = |name: &'static str, step: Vec<u8>| (name, [vec![0], step].concat());
    let mut inputs: Invalid =
        frames().into_iter().map(|(fault, frame)| of(fault, link::data(&frame))).collect();
    inputs.extend([
        of("unsealed", link::raw(&[7; 40])),
        of("unsealed-hostile-length", link::raw(&[u8::MAX; 40])),
    ]);
    inputs
}

pub(super) fn bodies() -> Invalid {
    let seeds = people::body_seeds();
    let deep = [&[0][..], &b"[".repeat(4000)].concat();
    vec![
        ("truncated", truncated(&seeds[1])),
        ("trailing", [&seeds[1][..], b"}"].concat()),
        ("unknown-kind", replaced(&seeds[1], 0, 1, &[u8::MAX])),
        ("not-utf-8", [&[1][..], b"{\"id\":\"\xff\"}"].concat()),
        ("deep", deep),
        ("hostile-number", [&[2][..], b"{\"seq\":18446744073709551616}"].concat()),
        ("event-truncated", truncated(&seeds[5])),
    ]
}

pub(super) fn cursors() -> Invalid {
    let many: Vec<_> = (0..1000).map(|n| format!("b{n}:{n}")).collect();
    let texts = [
        ("truncated", "7;dev:7,lobby:".to_owned()),
        ("trailing", "7;dev:7,lobby:42;".to_owned()),
        ("unknown-form", "7:dev;7".to_owned()),
        ("hostile-number", "18446744073709551616;".to_owned()),
        ("hostile-place", "7;dev:99999999999999999999999".to_owned()),
        ("too-many", format!("7;{}", many.join(","))),
    ];
    texts.map(|(fault, text)| (fault, text.into_bytes())).to_vec()
}
