//! Memory that decoding takes for hostile lengths: inputs that claim far more than they hold.
//!
//! This program counts what each of its threads allocates, so it is one of its own: the library and
//! its other tests have the system's allocator. The figures are the most bytes held at one time.
//!
//! 1. A text that claims more than any input may claim in total takes nothing.
//! 2. A list takes at most [`LIST_MAX`] for a claim, however large: the decoder makes room for no
//!    more before it has read an element.
//! 3. A text below the total takes what it claims, until the decoder sees that the input is shorter. The
//!    total of a short input is far less than [`LARGE`] claims.
//! 4. What a stranger says is read without either: nothing is made room for.

use std::fmt::Debug;

use allocation_counter::measure;
use bytes::Bytes;
use chatchat::{
    crypto::{
        handshake::UncheckedHello,
        record::{HEADER_LEN, body_len},
    },
    testing::fuzz::target,
    wire::{
        FRAME_LEN_MAX, PLAIN_LEN_MAX,
        codec::{self, CodecError},
        frame::Frame,
        plain,
    },
};
use futures_util::FutureExt;
use serde::de::DeserializeOwned;

/// Room for errors with their texts, and for buffers as long as an input.
const LITTLE: u64 = 4 * 1024;
/// Most that a list makes room for at once: the bound of serde.
const LIST_MAX: u64 = 1024 * 1024;
/// Total that the lengths inside one input may claim, as `wire::codec` says.
const CLAIMS_MAX: u64 = 4 * FRAME_LEN_MAX as u64;

/// Length of an input that is not short.
const LONG: usize = codec::SHORT_LEN_MAX + 1;

/// Claims that no input may make.
const TOO_LARGE: [u64; 4] = [u64::MAX, u64::MAX / 2, u32::MAX as u64, CLAIMS_MAX + 1];
/// Claims that are refused only when the input ends.
const LARGE: [u64; 3] = [CLAIMS_MAX - 1024, FRAME_LEN_MAX as u64 + 1, FRAME_LEN_MAX as u64];

/// Returns what a call returns, and the most bytes that it held at one time.
fn held<T>(call: impl FnOnce() -> T) -> (T, u64) {
    let mut returned = None;
    let info = measure(|| returned = Some(call()));
    (returned.expect("it was called"), info.bytes_max)
}

/// Returns a length in the codec's form.
fn length(claim: u64) -> Vec<u8> {
    codec::encode(&claim).expect("a number")
}

/// Decodes bytes that must be refused, and returns the most bytes held at one time.
fn refused<T: DeserializeOwned + Debug>(bytes: &[u8]) -> u64 {
    let (read, held) = held(|| codec::decode::<T>(bytes));
    assert!(matches!(read, Err(CodecError::Malformed(_))), "{read:?}");
    held
}

#[test]
fn counter_sees_what_is_held_at_one_time() {
    let (kept, most) = held(|| drop((vec![1_u8; 5000], vec![2_u8; 6000])));
    assert_eq!((kept, most), ((), 11_000));
    assert!(held(|| length(7)).1 < 100);
}

#[test]
fn text_that_claims_too_much_takes_nothing() {
    for claim in TOO_LARGE {
        let most = refused::<String>(&length(claim));
        assert!(most <= LITTLE, "{most} bytes for a text of {claim}");
    }
    for claim in LARGE {
        let most = refused::<String>(&length(claim));
        assert!(most <= LITTLE, "{most} bytes for a text of {claim} in a short input");
        let long = [length(claim), vec![b'x'; LONG]].concat();
        let most = refused::<String>(&long);
        assert!(most <= claim + LITTLE, "{most} bytes for a text of {claim}");
    }
}

#[test]
fn list_takes_a_bounded_room_whatever_it_claims() {
    for claim in TOO_LARGE.into_iter().chain(LARGE) {
        let claimed = length(claim);
        for (what, most, lists) in [
            ("numbers", refused::<Vec<u64>>(&claimed), 1),
            ("bytes", refused::<Vec<u8>>(&claimed), 1),
            ("lists", refused::<Vec<Vec<u8>>>(&claimed), 1),
            ("a list inside", refused::<Vec<Vec<u8>>>(&[&[1][..], &claimed].concat()), 1),
            ("both", refused::<Vec<Vec<u8>>>(&claimed.repeat(2)), 2),
            ("three deep", refused::<Vec<Vec<Vec<u64>>>>(&claimed.repeat(3)), 3),
        ] {
            assert!(most <= lists * LIST_MAX + LITTLE, "{most} bytes for {what} of {claim}");
        }
    }
}

/// Puts hostile lengths into each place of a valid input of each type that a link carries, and of
/// each frame: once, and twice in a row.
#[test]
fn message_of_each_type_takes_a_bounded_room_whatever_it_claims() {
    for name in ["codec", "frames"] {
        let target = target(name).expect("a target");
        for (nth, seed) in (target.seeds)().iter().enumerate() {
            for (at, times) in (1..seed.len()).flat_map(|at| [(at, 1), (at, 2)]) {
                for claim in TOO_LARGE.into_iter().chain(LARGE) {
                    let hostile = length(claim).repeat(times);
                    let input = [&seed[..at], &hostile, &seed[at + 1..]].concat();
                    let texts =
                        if input.len() >= LONG && LARGE.contains(&claim) { claim } else { 0 };
                    let (_, most) = held(|| (target.run)(&input));
                    // A list that holds lists or texts has room for itself and for one of those.
                    let bound = times as u64 * LIST_MAX + texts + LITTLE;
                    assert!(most <= bound, "{name} {nth}, {times} times {claim} at {at}: {most}");
                }
            }
        }
    }
}

#[test]
fn hello_of_a_stranger_takes_a_bounded_room_whatever_it_claims() {
    for claim in TOO_LARGE.into_iter().chain(LARGE) {
        for before in [&[][..], &[0]] {
            let hello = [before, &length(claim)].concat();
            let (read, most) = held(|| UncheckedHello::read(hello).is_ok());
            assert!(!read && most <= LITTLE, "{most} bytes for {claim}");
        }
    }
}

#[test]
fn frame_that_is_too_long_is_not_read() {
    for len in [PLAIN_LEN_MAX + 1, FRAME_LEN_MAX + 1, u32::MAX as usize] {
        let header = u32::try_from(len).expect("four bytes").to_le_bytes();
        let (read, most) =
            held(|| plain::read_frame(&mut &header[..], PLAIN_LEN_MAX).now_or_never());
        assert!(matches!(read, Some(Err(plain::PlainError::TooLong { .. }))), "{read:?}");
        assert!(most <= LITTLE, "{most} bytes for a plain frame of {len}");
    }
    let header = u32::try_from(PLAIN_LEN_MAX).expect("four bytes").to_le_bytes();
    let (read, most) = held(|| plain::read_frame(&mut &header[..], PLAIN_LEN_MAX).now_or_never());
    assert!(matches!(read, Some(Err(plain::PlainError::Io(_)))), "{read:?}");
    assert!(most <= PLAIN_LEN_MAX as u64 + LITTLE, "{most} bytes for the longest one");

    for header in [[0xff; HEADER_LEN], [0, 0x10, 0, 1, 0]] {
        let (read, most) = held(|| body_len(header).is_err());
        assert!(read && most <= LITTLE, "{most} bytes for a record's header {header:?}");
    }
    for kind in 0..=9 {
        let long = vec![kind; FRAME_LEN_MAX + 1];
        let long = Bytes::from(long);
        let (read, most) = held(|| Frame::decode(long).is_err());
        assert!(read && most <= LITTLE, "{most} bytes for a long frame of kind {kind}");
    }
}
