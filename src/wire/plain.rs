//! Plain frames: a length of four bytes, little-endian, and that many bytes. Used by handshakes,
//! which have no keys yet, and by protocols that need none.

use std::io;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Error of a plain frame; the stream cannot be used any more.
#[derive(Debug, Error)]
pub enum PlainError {
    /// The length is over the bound; nothing of the frame was allocated, sent or read.
    #[error("a plain frame of {len} bytes is over the bound of {max}")]
    TooLong {
        /// Length of the frame, in bytes.
        len: usize,
        /// Greatest length allowed.
        max: usize,
    },
    /// The stream failed or ended, at an unknown place in the frame.
    #[error("the stream broke: {0}")]
    Io(#[from] io::Error),
}

/// Reads one frame of at most `len_max` bytes. Not cancel-safe; the caller bounds its time.
///
/// # Errors
/// [`PlainError`]; the stream is then at an unknown place.
pub async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin + ?Sized),
    len_max: usize,
) -> Result<Vec<u8>, PlainError> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let len = u32::from_le_bytes(length) as usize;
    if len > len_max {
        return Err(PlainError::TooLong { len, max: len_max });
    }
    let mut frame = vec![0; len];
    stream.read_exact(&mut frame).await?;
    Ok(frame)
}

/// Writes one frame of at most `len_max` bytes, and flushes. Not cancel-safe; the caller bounds
/// its time.
///
/// # Errors
/// [`PlainError`]; after [`PlainError::TooLong`] nothing was written.
pub async fn write_frame(
    stream: &mut (impl AsyncWrite + Unpin + ?Sized),
    frame: &[u8],
    len_max: usize,
) -> Result<(), PlainError> {
    let len = u32::try_from(frame.len()).ok().filter(|_| frame.len() <= len_max);
    let Some(len) = len else {
        return Err(PlainError::TooLong { len: frame.len(), max: len_max });
    };
    // One write: a peer, and a world that splits writes, sees whole frames where it can.
    let mut out = Vec::with_capacity(4 + frame.len());
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(frame);
    stream.write_all(&out).await?;
    stream.flush().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn frames_arrive_in_order_and_over_long_ones_are_not_read() {
        let (mut near, mut far) = tokio::io::duplex(64 * 1024);
        async {
            write_frame(&mut near, b"hello", 8).await.expect("room");
            write_frame(&mut near, b"", 8).await.expect("room");
            let refused = write_frame(&mut near, b"nine byte", 8).await;
            assert!(matches!(refused, Err(PlainError::TooLong { len: 9, max: 8 })));
            near.write_all(&u32::MAX.to_le_bytes()).await.expect("room");
            assert_eq!(read_frame(&mut far, 8).await.expect("sent"), b"hello");
            assert_eq!(read_frame(&mut far, 8).await.expect("sent"), b"");
            let refused = read_frame(&mut far, 8).await;
            assert!(matches!(refused, Err(PlainError::TooLong { max: 8, .. })));
        }
        .now_or_never()
        .expect("the pipe holds all of it");
    }

    #[test]
    fn end_within_a_frame_is_an_error() {
        let (mut near, mut far) = tokio::io::duplex(64);
        async {
            near.write_all(&[5, 0, 0, 0, b'h']).await.expect("room");
            drop(near);
            assert!(matches!(read_frame(&mut far, 8).await, Err(PlainError::Io(_))));
        }
        .now_or_never()
        .expect("nothing waits");
    }
}
