//! Frames between nodes and the store's host: length, number, then the value.

use std::io;

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Maximum length of a frame, bytes. A page of posts is cut at 1 MiB of text; names and ids come on
/// top.
const LEN_MAX: usize = 4 * 1024 * 1024;

fn invalid(why: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}

pub(super) fn frame<T: Serialize>(number: u64, value: &T) -> io::Result<Vec<u8>> {
    let body =
        bincode::serde::encode_to_vec(value, bincode::config::standard()).map_err(invalid)?;
    let len = u32::try_from(body.len() + 8).map_err(invalid)?;
    let mut frame = Vec::with_capacity(12 + body.len());
    frame.extend_from_slice(&len.to_le_bytes());
    frame.extend_from_slice(&number.to_le_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

pub(super) async fn write(to: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> io::Result<()> {
    to.write_all(frame).await?;
    to.flush().await
}

pub(super) async fn read<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
) -> io::Result<(u64, T)> {
    let len = from.read_u32_le().await? as usize;
    if !(8..=LEN_MAX).contains(&len) {
        return Err(invalid("a frame of an impossible length"));
    }
    let number = from.read_u64_le().await?;
    let mut body = vec![0; len - 8];
    from.read_exact(&mut body).await?;
    let config = bincode::config::standard().with_limit::<{ 4 * LEN_MAX }>();
    let (value, _) = bincode::serde::decode_from_slice(&body, config).map_err(invalid)?;
    Ok((number, value))
}
