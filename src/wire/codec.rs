//! Codec of all binary data: bincode behind two functions, [`encode`] and [`decode`].
//!
//! Integers are variable in length, enum variants are numbered in the order they are written
//! down (append, never reorder), and a value has one encoding. Nothing is decoded from a
//! reader: the bytes are whole and bounded before they come here.
//!
//! 1. Input over [`FRAME_LEN_MAX`] is refused unread.
//! 2. Texts and numbers inside the input may claim at most four times that bound in total, and at most
//!    128 KiB inside an input of up to 8 KiB. A list is bounded by its type, or by what serde makes
//!    room for before it has read an element: 1 MiB.
//! 3. Trailing bytes are refused: nothing hides behind a value.
//!
//! Sign and hash bytes as received, never a re-encoding of the decoded value.

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use super::FRAME_LEN_MAX;

/// Error of a value that cannot be encoded, or of bytes that cannot be decoded. Nothing was kept
/// of either.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CodecError {
    /// The encoding is over the bound; it was not sent, or not read.
    #[error("{len} bytes are over the bound of {max}")]
    TooLong {
        /// Number of bytes.
        len: usize,
        /// Greatest number allowed.
        max: usize,
    },
    /// The bytes are not an encoding of the type.
    #[error("malformed: {0}")]
    Malformed(String),
    /// The bytes go on after the value.
    #[error("{0} bytes after the end")]
    Trailing(usize),
    /// The value has no encoding, such as a sequence of unknown length.
    #[error("cannot be encoded: {0}")]
    Unencodable(String),
}

/// Greatest total of the lengths that an input of [`decode`] may claim, in bytes.
const CLAIMS_MAX: usize = 4 * FRAME_LEN_MAX;

/// Longest short input of [`decode`], in bytes. The lengths inside a short input have a smaller bound.
pub const SHORT_LEN_MAX: usize = 8 * 1024;
/// Greatest total of the lengths that a short input of [`decode`] may claim, in bytes: a byte claims
/// at most 16, as the shortest form of the longest number.
const SHORT_CLAIMS_MAX: usize = 16 * SHORT_LEN_MAX;

fn config<const CLAIMS_MAX: usize>() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<CLAIMS_MAX>()
}

/// Returns the value's only encoding.
///
/// # Errors
/// [`CodecError::TooLong`] over [`FRAME_LEN_MAX`], [`CodecError::Unencodable`].
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    encode_within(value, FRAME_LEN_MAX)
}

/// Returns the value's only encoding, for links with a bound of their own.
///
/// # Errors
/// [`CodecError::TooLong`] over `len_max`, [`CodecError::Unencodable`].
pub fn encode_within<T: Serialize>(value: &T, len_max: usize) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::new();
    append(value, &mut out, len_max)?;
    Ok(out)
}

/// Appends the value's encoding to `out`.
///
/// # Errors
/// As [`encode`]; `out` is unchanged.
pub fn encode_into<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    append(value, out, FRAME_LEN_MAX)
}

fn append<T: Serialize>(value: &T, out: &mut Vec<u8>, len_max: usize) -> Result<(), CodecError> {
    let before = out.len();
    let written = match bincode::serde::encode_into_std_write(value, out, config::<CLAIMS_MAX>()) {
        Ok(written) if written <= len_max => return Ok(()),
        Ok(len) => Err(CodecError::TooLong { len, max: len_max }),
        Err(why) => Err(CodecError::Unencodable(why.to_string())),
    };
    out.truncate(before);
    written
}

/// Decodes a value from all of these bytes.
///
/// # Errors
/// [`CodecError::TooLong`], [`CodecError::Malformed`], [`CodecError::Trailing`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() <= SHORT_LEN_MAX {
        return decode_within::<T, SHORT_CLAIMS_MAX>(bytes, SHORT_LEN_MAX);
    }
    decode_within::<T, CLAIMS_MAX>(bytes, FRAME_LEN_MAX)
}

/// Decodes a value from all of these bytes, for links with a bound of their own. Lengths inside
/// the input may claim at most `CLAIMS_MAX` in total.
///
/// # Errors
/// [`CodecError::TooLong`] over `len_max`, [`CodecError::Malformed`], [`CodecError::Trailing`].
pub fn decode_within<T: DeserializeOwned, const CLAIMS_MAX: usize>(
    bytes: &[u8],
    len_max: usize,
) -> Result<T, CodecError> {
    if bytes.len() > len_max {
        return Err(CodecError::TooLong { len: bytes.len(), max: len_max });
    }
    let (value, read) = bincode::serde::decode_from_slice(bytes, config::<CLAIMS_MAX>())
        .map_err(|why| CodecError::Malformed(why.to_string()))?;
    if read < bytes.len() {
        return Err(CodecError::Trailing(bytes.len() - read));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        model::{
            message::{AssignReply, Direct, Request, Response, Update, Welcome},
            outcome::TaskResult,
        },
        store::Op,
    };

    #[test]
    fn value_reads_back_and_trailing_bytes_are_refused() {
        let value = (7u64, "text".to_owned(), vec![Some(1u32), None]);
        let mut bytes = encode(&value).expect("plain data");
        assert_eq!(decode(&bytes), Ok(value.clone()));
        bytes.push(0);
        assert_eq!(decode::<(u64, String, Vec<Option<u32>>)>(&bytes), Err(CodecError::Trailing(1)));
        bytes.truncate(bytes.len() - 2);
        assert!(matches!(
            decode::<(u64, String, Vec<Option<u32>>)>(&bytes),
            Err(CodecError::Malformed(_))
        ));
    }

    #[test]
    fn over_long_data_is_refused_both_ways_and_the_buffer_is_unchanged() {
        let mut out = vec![1, 2, 3];
        let long = vec![0u8; FRAME_LEN_MAX];
        assert!(matches!(encode_into(&long, &mut out), Err(CodecError::TooLong { .. })));
        assert_eq!(out, [1, 2, 3]);
        let long = vec![0u8; FRAME_LEN_MAX + 1];
        assert!(matches!(decode::<u8>(&long), Err(CodecError::TooLong { .. })));
    }

    #[test]
    fn hostile_length_is_an_error() {
        // The varint for u64::MAX, where a length is expected.
        let bytes = [253, 255, 255, 255, 255, 255, 255, 255, 255];
        assert!(decode::<String>(&bytes).is_err());
        assert!(decode::<Vec<u64>>(&bytes).is_err());
        assert!(decode::<Vec<Vec<u8>>>(&bytes).is_err());
    }

    #[test]
    fn list_of_one_byte_results_is_bounded_in_memory() {
        let many =
            AssignReply::Done(vec![TaskResult::Done; crate::model::message::BATCH_TASKS_MAX + 1]);
        let bytes = encode(&many).expect("one byte each");
        assert!(matches!(decode::<AssignReply>(&bytes), Err(CodecError::Malformed(_))));
        let most =
            AssignReply::Done(vec![TaskResult::Done; crate::model::message::BATCH_TASKS_MAX]);
        assert_eq!(decode(&encode(&most).expect("one byte each")), Ok(most));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            // A decoded value encodes back to itself; only a longer varint reads as the same value.
            if let Ok(value) = decode::<Request>(&bytes) {
                prop_assert_eq!(decode(&encode(&value).expect("it was decoded")), Ok(value));
            }
            let _ = decode::<Response>(&bytes);
            let _ = decode::<Direct>(&bytes);
            let _ = decode::<Update>(&bytes);
            let _ = decode::<Welcome>(&bytes);
            let _ = decode::<Op>(&bytes);
        }
    }
}
