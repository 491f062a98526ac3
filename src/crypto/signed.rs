//! A message and the proof that goes with it: a signature, or a guard's HMAC.
//!
//! The message travels as bytes inside, so that what is proved and hashed is what was received.

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::wire::codec::{self, CodecError};

/// Bytes and their proof.
#[derive(Serialize, Deserialize)]
pub(super) struct Signed {
    /// An encoded message.
    pub(super) body: Vec<u8>,
    /// What proves it.
    pub(super) proof: Vec<u8>,
}

/// An Auth's body holds a bearer.
impl Drop for Signed {
    fn drop(&mut self) {
        self.body.zeroize();
    }
}

impl Signed {
    /// Both as one frame.
    pub(super) fn encode(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode(self)
    }

    /// Reads a frame of at most `len_max` bytes.
    pub(super) fn decode(frame: &[u8], len_max: usize) -> Result<Self, CodecError> {
        if frame.len() > len_max {
            return Err(CodecError::TooLong { len: frame.len(), max: len_max });
        }
        codec::decode(frame)
    }
}
