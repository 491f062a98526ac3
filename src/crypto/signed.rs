//! Message with its proof: a signature, or a guard's HMAC.
//!
//! The message inside stays encoded, so that the proof and hashes cover the bytes as received.

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::wire::codec::{self, CodecError};

/// Encoded message with its proof.
#[derive(Serialize, Deserialize)]
pub(super) struct Signed {
    /// Encoded message, byte for byte as it was sent.
    #[serde(with = "serde_bytes")]
    pub(super) body: Vec<u8>,
    /// Signature or HMAC over the message.
    #[serde(with = "serde_bytes")]
    pub(super) proof: Vec<u8>,
}

impl Drop for Signed {
    fn drop(&mut self) {
        // The body of an Auth holds a bearer.
        self.body.zeroize();
    }
}

impl Signed {
    /// Encodes both parts as one frame.
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
