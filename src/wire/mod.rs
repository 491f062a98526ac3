//! Bytes and what they mean: the codec, the frames of a link, and length-prefixed plain frames.
//!
//! 1. No length that a peer sent is allocated before it was held against a bound.
//! 2. Whatever bytes arrive, decoding ends in a value or a typed error, never in a panic.
//! 3. What was decoded holds at most a small multiple of the bytes that it came from.

pub mod codec;
pub mod frame;
pub mod plain;

/// The longest frame of a link, in bytes: a batch of 256 KiB, a page of posts or a page of the
/// directory fits with room to spare.
pub const FRAME_LEN_MAX: usize = 1024 * 1024;

/// The longest plain frame of a handshake, in bytes.
pub const PLAIN_LEN_MAX: usize = 8 * 1024;
