//! Connection of the front end with deadlines of its own, and an end that lets the peer read.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    env::{BoxFuture, BoxStream, Env},
    model::time::Mono,
};

/// Longest waits of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    /// From accept to the first byte.
    pub(super) first_byte: Duration,
    /// From the first byte of a request to the end of its header.
    pub(super) header: Duration,
    /// From the last byte written to the first byte of the next request.
    pub(super) idle: Duration,
    /// Without the peer taking any of the bytes written to it.
    pub(super) write_stall: Duration,
    /// From our last byte to the peer's.
    pub(super) linger: Duration,
}

/// Bytes of a peer that are read and dropped after our last one.
const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;

fn sleep_until(env: &Env, at: Mono) -> BoxFuture<'static, ()> {
    let env = env.clone();
    Box::pin(async move { env.sleep_until(at).await })
}

/// Byte that a connection waits for while nothing comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    FirstByte,
    Header,
    NextRequest,
}

/// Connection with [`Deadlines`]. Each handler has one of its own for its body.
///
/// Bytes that have arrived when a deadline is over still count. After our last byte the peer's are read
/// and dropped for a while: closed at once, the system would answer them with a reset, which also
/// takes our answer from the peer.
pub(super) struct Watched {
    stream: BoxStream,
    env: Env,
    deadlines: Deadlines,
    /// Whether a request is with its handler, so that what comes is no header.
    busy: Arc<AtomicBool>,
    reading: Option<(Awaited, BoxFuture<'static, ()>)>,
    /// Deadline of a write; armed while it makes no progress.
    stalled: Option<BoxFuture<'static, ()>>,
    /// Deadline of the peer's end, and the bytes that it may still send.
    lingering: Option<(BoxFuture<'static, ()>, usize)>,
}

impl Watched {
    /// Returns the connection; `busy` is true while a request is with its handler.
    pub(super) fn new(
        env: &Env,
        stream: BoxStream,
        deadlines: Deadlines,
        busy: Arc<AtomicBool>,
    ) -> Self {
        let first = sleep_until(env, env.now() + deadlines.first_byte);
        Self {
            stream,
            env: env.clone(),
            deadlines,
            busy,
            reading: Some((Awaited::FirstByte, first)),
            stalled: None,
            lingering: None,
        }
    }

    fn await_(&mut self, what: Awaited) {
        let by = match what {
            Awaited::FirstByte => self.deadlines.first_byte,
            Awaited::Header => self.deadlines.header,
            Awaited::NextRequest => self.deadlines.idle,
        };
        self.reading = Some((what, sleep_until(&self.env, self.env.now() + by)));
    }

    fn on_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        wrote: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.stalled = None;
            return wrote;
        }
        let (env, limit) = (&self.env, self.deadlines.write_stall);
        let stalled = self.stalled.get_or_insert_with(|| sleep_until(env, env.now() + limit));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Notes that bytes of an answer went out: the header before it was whole. The next request is
    /// awaited from now on, whether or not hyper looks for it again.
    fn on_written(&mut self, cx: &mut Context<'_>) {
        self.await_(Awaited::NextRequest);
        if let Some((_, deadline)) = &mut self.reading {
            // It has only begun; this says which task to wake.
            let _ = deadline.as_mut().poll(cx);
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.busy.load(Ordering::Relaxed) {
            self.reading = None;
            return read;
        }
        if read.is_ready() {
            let is_header = self.reading.as_ref().is_some_and(|(what, _)| *what == Awaited::Header);
            if buf.filled().len() > before && !is_header {
                self.await_(Awaited::Header);
            }
            return read;
        }
        if self.reading.is_none() {
            self.await_(Awaited::NextRequest);
        }
        let Some((what, deadline)) = &mut self.reading else { return Poll::Pending };
        let what = *what;
        ready!(deadline.as_mut().poll(cx));
        self.reading = None;
        match what {
            // As if the peer had closed it: nothing is wrong.
            Awaited::NextRequest => Poll::Ready(Ok(())),
            Awaited::FirstByte | Awaited::Header => {
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if wrote.is_ready() {
            self.on_written(cx);
        }
        self.on_write(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        if wrote.is_ready() {
            self.on_written(cx);
        }
        self.on_write(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.on_write(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
            ready!(self.on_write(cx, shut))?;
            let limit = sleep_until(&self.env, self.env.now() + self.deadlines.linger);
            self.lingering = Some((limit, LINGER_BYTES_MAX));
        }
        let Self { stream, lingering, .. } = &mut *self;
        let Some((limit, left)) = lingering else { return Poll::Ready(Ok(())) };
        let mut room = [0; 4096];
        loop {
            let mut dropped = ReadBuf::new(&mut room);
            match Pin::new(&mut *stream).poll_read(cx, &mut dropped) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) if (1..*left).contains(&dropped.filled().len()) => {
                    *left -= dropped.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
            }
        }
        ready!(limit.as_mut().poll(cx));
        Poll::Ready(Ok(()))
    }
}
