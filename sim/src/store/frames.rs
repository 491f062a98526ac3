//! Frames between nodes and the store's host: plain frames that hold a number, then a value. That of the
//! first of a connection is [`First`].

use std::io;

use chatchat::{
    model::rows::Boards,
    store::history::Mark,
    wire::{
        codec,
        plain::{self, PlainError},
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncWrite};

/// Maximum length of a frame, bytes. A page of posts is cut at 1 MiB of text; names and ids come on
/// top.
const LEN_MAX: usize = 4 * 1024 * 1024;
/// Greatest total of the lengths that a value may claim, bytes.
const CLAIMS_MAX: usize = 4 * LEN_MAX;
const NUMBER_LEN: usize = 8;

/// Value of the first frame, by which a node knows the store.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct First {
    /// Its place in its history.
    pub(super) mark: Mark,
    /// Its boards with their ends.
    pub(super) boards: Boards,
}

/// Returns the frame of a value.
pub(super) fn frame<T: Serialize>(number: u64, value: &T) -> io::Result<Vec<u8>> {
    let body = codec::encode_within(value, LEN_MAX - NUMBER_LEN).map_err(invalid)?;
    Ok([&number.to_le_bytes()[..], &body].concat())
}

/// Writes a frame.
pub(super) async fn write(to: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> io::Result<()> {
    plain::write_frame(to, frame, LEN_MAX).await.map_err(broken)
}

/// Reads the next frame.
pub(super) async fn read<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
) -> io::Result<(u64, T)> {
    let frame = plain::read_frame(from, LEN_MAX).await.map_err(broken)?;
    let Some((number, body)) = frame.split_first_chunk::<NUMBER_LEN>() else {
        return Err(invalid("a frame without a number"));
    };
    let value = codec::decode_within::<T, CLAIMS_MAX>(body, LEN_MAX).map_err(invalid)?;
    Ok((u64::from_le_bytes(*number), value))
}

fn invalid(why: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}

fn broken(error: PlainError) -> io::Error {
    match error {
        PlainError::Io(why) => why,
        too_long @ PlainError::TooLong { .. } => invalid(too_long),
    }
}
