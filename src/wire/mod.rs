//! Encoding of what nodes send: the codec, the frames of a link, and length-prefixed plain
//! frames.
//!
//! 1. No length that a peer sent is allocated before it was checked against a bound.
//! 2. Whatever bytes arrive, decoding ends in a value or a typed error, never in a panic.
//! 3. A decoded value holds at most a small multiple of the bytes that it came from.

pub mod codec;
pub mod frame;
pub mod plain;

/// Greatest length of a link's frame, in bytes: a batch of 256 KiB, a page of posts or a page of
/// the directory fits with room to spare.
pub const FRAME_LEN_MAX: usize = 1024 * 1024;

/// Greatest length of a handshake's plain frame, in bytes.
pub const PLAIN_LEN_MAX: usize = 8 * 1024;
