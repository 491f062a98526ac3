//! Writer of the rest of a long body, in the chunks of HTTP/1.1.
//!
//! 1. The next chunk is asked for when the one before is with the system: a slow reader fills nothing here.
//! 2. A peer that leaves ends it at once.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::Bytes;
use bytes::{Buf, buf::Chain};
use tokio::io::AsyncWrite;

use super::{io::Watched, long_body::Chunks};

/// A chunk between its size and its end of line.
type Framed = Chain<Chain<Bytes, Bytes>, &'static [u8]>;

/// Writes all chunks, and the mark that no more follow. Returns the connection.
///
/// # Errors
/// The peer left, or takes nothing; the answer is cut off.
pub(super) async fn write_chunks(mut io: Watched, mut chunks: Chunks) -> io::Result<Watched> {
    loop {
        let next = poll_fn(|cx| match io.poll_left(cx) {
            Poll::Ready(why) => Poll::Ready(Err(why)),
            Poll::Pending => chunks.as_mut().poll_next(cx).map(Ok),
        });
        let next = next.await?;
        if next.as_ref().is_some_and(Bytes::is_empty) {
            // It would read as the end.
            continue;
        }
        let is_last = next.is_none();
        let mut framed = framed(next.unwrap_or_default());
        let written = poll_fn(|cx| match io.poll_left(cx) {
            Poll::Ready(why) => Poll::Ready(Err(why)),
            Poll::Pending => poll_write_all(&mut io, &mut framed, cx),
        });
        written.await?;
        if is_last {
            return Ok(io);
        }
    }
}

/// Frames a chunk; an empty one is the mark of the end.
fn framed(chunk: Bytes) -> Framed {
    Bytes::from(format!("{:X}\r\n", chunk.len())).chain(chunk).chain(b"\r\n")
}

fn poll_write_all(
    io: &mut Watched,
    bytes: &mut Framed,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while bytes.has_remaining() {
        let mut slices = [IoSlice::new(&[]); 3];
        let count = bytes.chunks_vectored(&mut slices);
        let wrote = ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices[..count]))?;
        if wrote == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        bytes.advance(wrote);
    }
    Pin::new(io).poll_flush(cx)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(chunk: &'static str) -> String {
        let mut framed = framed(Bytes::from_static(chunk.as_bytes()));
        String::from_utf8(framed.copy_to_bytes(framed.remaining()).to_vec()).expect("a text")
    }

    #[test]
    fn chunk_stands_between_its_size_in_hexadecimal_and_an_end_of_line() {
        assert_eq!(text("data: a\n\n12"), "B\r\ndata: a\n\n12\r\n");
        assert_eq!(text(""), "0\r\n\r\n", "the end");
    }
}
