//! Encoding of what nodes send: the codec, the frames of a link, and length-prefixed plain
//! frames.
//!
//! 1. No length that a peer sent is allocated before it was checked against a bound.
//! 2. Whatever bytes arrive, decoding ends in a value or a typed error, never in a panic.
//! 3. A decoded value holds at most a small multiple of the bytes that it came from.

pub mod codec;
pub mod frame;
pub mod plain;

pub use crate::model::bounds::FRAME_LEN_MAX;

/// Greatest length of a handshake's message, in bytes.
pub const PLAIN_LEN_MAX: usize = 8 * 1024;
