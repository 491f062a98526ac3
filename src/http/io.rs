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

use axum::body::Bytes;
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
    /// Until the peer has taken a share of the bytes that wait for it, or all of them.
    pub(super) write_share: Duration,
    /// From our last byte to the peer's.
    pub(super) linger: Duration,
}

/// State that a connection's bytes share with the handlers of its requests, beside hyper.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// Whether a request is with its handler, so that what comes is no header.
    is_busy: AtomicBool,
    /// Whether all that was written is out of every buffer of ours.
    is_flushed: AtomicBool,
}

impl Course {
    /// Notes whether a request is with its handler.
    pub(super) fn set_busy(&self, is_busy: bool) {
        self.is_busy.store(is_busy, Ordering::Relaxed);
    }

    /// Returns whether all that was written is out of every buffer of ours.
    pub(super) fn is_flushed(&self) -> bool {
        self.is_flushed.load(Ordering::Relaxed)
    }
}

/// Bytes of a peer that are read and dropped after our last one.
const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes that a peer has to take in [`Deadlines::write_share`]: one that takes a few now and then would
/// keep a long answer in memory for days.
const SHARE_BYTES: usize = 64 * 1024;
/// Bytes that a peer may send ahead of its turn, beyond those that hyper has read.
const AHEAD_BYTES_MAX: usize = 1024;

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

/// Share of the bytes that wait to be written.
#[derive(Clone, Copy, Debug)]
struct Share {
    /// Time by which the peer has to take it.
    by: Mono,
    /// Bytes that are left of it.
    left: usize,
}

/// Connection with [`Deadlines`]. Each handler has one of its own for its body.
///
/// Bytes that have arrived when a deadline is over still count. After our last byte the peer's are read
/// and dropped for a while: closed at once, the system would answer them with a reset, which also
/// takes our answer from the peer.
pub(super) struct Watched {
    stream: BoxStream,
    /// Bytes of the peer that are read before those of the stream.
    ahead: Bytes,
    env: Env,
    deadlines: &'static Deadlines,
    course: Arc<Course>,
    reading: Option<(Awaited, BoxFuture<'static, ()>)>,
    /// Deadline of a write; armed while it makes no progress.
    stalled: Option<BoxFuture<'static, ()>>,
    /// Share that the peer has to take; from the first write that has to wait until it was taken.
    share: Option<Share>,
    /// Deadline of the peer's end, and the bytes that it may still send.
    lingering: Option<(BoxFuture<'static, ()>, usize)>,
}

impl Watched {
    /// Returns the connection, from whose accept on the deadlines count.
    pub(super) fn new(env: &Env, stream: BoxStream, deadlines: &'static Deadlines) -> Self {
        let first = sleep_until(env, env.now() + deadlines.first_byte);
        Self {
            stream,
            ahead: Bytes::new(),
            env: env.clone(),
            deadlines,
            course: Arc::default(),
            reading: Some((Awaited::FirstByte, first)),
            stalled: None,
            share: None,
            lingering: None,
        }
    }

    /// Returns the state that is shared with the handlers of requests.
    pub(super) fn course(&self) -> &Arc<Course> {
        &self.course
    }

    /// Begins a long answer that is written without hyper, after the head: no request is awaited. `ahead`
    /// are bytes of the peer that hyper has read.
    pub(super) fn begin_long_answer(&mut self, ahead: Bytes) {
        self.course.set_busy(true);
        self.reading = None;
        // Bytes that hyper did not take are behind those that it did.
        self.ahead = match (ahead.is_empty(), self.ahead.is_empty()) {
            (_, true) => ahead,
            (true, false) => return,
            (false, false) => [&ahead[..], &self.ahead[..]].concat().into(),
        };
    }

    /// Ends it. The next request is awaited, of which bytes may be there already.
    pub(super) fn end_long_answer(&mut self) {
        self.course.set_busy(false);
    }

    /// Returns why the peer has left, once it has. What it sends meanwhile is kept for its next request;
    /// with something kept nothing more is read, so that it fills no memory of ours.
    pub(super) fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if !self.ahead.is_empty() {
            return Poll::Pending;
        }
        let mut room = [0; AHEAD_BYTES_MAX];
        let mut read = ReadBuf::new(&mut room);
        match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read)) {
            Err(why) => Poll::Ready(why),
            Ok(()) if read.filled().is_empty() => Poll::Ready(io::ErrorKind::UnexpectedEof.into()),
            Ok(()) => {
                self.ahead = Bytes::copy_from_slice(read.filled());
                Poll::Pending
            }
        }
    }

    fn poll_take(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let taken = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead.split_to(taken));
        Poll::Ready(Ok(()))
    }

    fn is_busy(&self) -> bool {
        self.course.is_busy.load(Ordering::Relaxed)
    }

    fn set_flushed(&self, is_flushed: bool) {
        self.course.is_flushed.store(is_flushed, Ordering::Relaxed);
    }

    fn await_(&mut self, what: Awaited) {
        let by = match what {
            Awaited::FirstByte => self.deadlines.first_byte,
            Awaited::Header => self.deadlines.header,
            Awaited::NextRequest => self.deadlines.idle,
        };
        self.reading = Some((what, sleep_until(&self.env, self.env.now() + by)));
    }

    /// Notes how a write went; `taken` returns how many bytes of those that wait the peer took.
    fn on_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        wrote: Poll<io::Result<T>>,
        taken: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(ended) = wrote {
            let taken = ended.as_ref().map_or(0, taken);
            if let Some(share) = &mut self.share {
                share.left = share.left.saturating_sub(taken);
            }
            self.share = self.share.filter(|share| share.left > 0);
            self.stalled = None;
            return Poll::Ready(ended);
        }
        let (env, deadlines, now) = (&self.env, self.deadlines, self.env.now());
        let share = Share { by: now + deadlines.write_share, left: SHARE_BYTES };
        let share = *self.share.get_or_insert(share);
        // It needs no timer: the peer that takes a little has this polled, and for one that takes nothing
        // there is the other deadline.
        if now < share.by {
            let limit = now + deadlines.write_stall;
            let stalled = self.stalled.get_or_insert_with(|| sleep_until(env, limit));
            ready!(stalled.as_mut().poll(cx));
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Notes that bytes of an answer went out: the header before it was whole. The next request is
    /// awaited from now on, whether or not hyper looks for it again.
    fn on_written(&mut self, cx: &mut Context<'_>) {
        if self.is_busy() {
            return;
        }
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
        let read = self.poll_take(cx, buf);
        if self.is_busy() {
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
        self.set_flushed(false);
        let wrote = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if wrote.is_ready() {
            self.on_written(cx);
        }
        self.on_write(cx, wrote, |bytes| *bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.set_flushed(false);
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        if wrote.is_ready() {
            self.on_written(cx);
        }
        self.on_write(cx, wrote, |bytes| *bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.set_flushed(matches!(flushed, Poll::Ready(Ok(()))));
        // It comes when all was written.
        self.on_write(cx, flushed, |()| usize::MAX)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
            ready!(self.on_write(cx, shut, |()| usize::MAX))?;
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
