//! Adapters of hyper to the node's clock, and deadlines of idle connections.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use hyper::rt::{Sleep, Timer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    env::{BoxFuture, BoxStream, Env},
    model::time::Mono,
};

/// hyper's timer on the node's clock. hyper counts in [`Instant`]s; here they are distances from
/// one fixed point.
#[derive(Clone, Debug)]
pub(super) struct EnvTimer {
    env: Env,
    instant: Instant,
    mono: Mono,
}

impl EnvTimer {
    pub(super) fn new(env: &Env) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "there is no other way to make an Instant; only distances from it are used"
        )]
        let instant = Instant::now();
        Self { env: env.clone(), instant, mono: env.now() }
    }

    fn wait_until(&self, at: Mono) -> Pin<Box<dyn Sleep>> {
        Box::pin(EnvSleep { wait: std::sync::Mutex::new(sleep_until(&self.env, at)) })
    }
}

impl Timer for EnvTimer {
    fn sleep(&self, by: Duration) -> Pin<Box<dyn Sleep>> {
        self.wait_until(self.env.now() + by)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.wait_until(self.mono + deadline.saturating_duration_since(self.instant))
    }

    fn now(&self) -> Instant {
        self.instant + self.env.now().since(self.mono)
    }
}

fn sleep_until(env: &Env, at: Mono) -> BoxFuture<'static, ()> {
    let env = env.clone();
    Box::pin(async move { env.sleep_until(at).await })
}

/// hyper wants its sleeps `Sync`; the mutex is never locked, it only says that nobody shares it.
struct EnvSleep {
    wait: std::sync::Mutex<BoxFuture<'static, ()>>,
}

impl Future for EnvSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let wait = self.get_mut().wait.get_mut();
        wait.unwrap_or_else(std::sync::PoisonError::into_inner).as_mut().poll(cx)
    }
}

impl Sleep for EnvSleep {}

/// Connection with two deadlines of its own: for the peer's first byte, and for the peer to
/// take what is written. hyper has the one for headers, each handler the one for its body.
pub(super) struct Watched {
    stream: BoxStream,
    env: Env,
    /// Deadline of the first byte; disarmed when it came.
    first_byte: Option<BoxFuture<'static, ()>>,
    /// Deadline of a write; armed while it makes no progress.
    stalled: Option<BoxFuture<'static, ()>>,
    write_stall_max: Duration,
}

impl Watched {
    pub(super) fn new(
        env: &Env,
        stream: BoxStream,
        first_byte_timeout: Duration,
        write_stall_max: Duration,
    ) -> Self {
        let first_byte = Some(sleep_until(env, env.now() + first_byte_timeout));
        Self { stream, env: env.clone(), first_byte, stalled: None, write_stall_max }
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
        let (env, limit) = (&self.env, self.write_stall_max);
        let stalled = self.stalled.get_or_insert_with(|| sleep_until(env, env.now() + limit));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            self.first_byte = None;
        } else if let Some(deadline) = &mut self.first_byte {
            ready!(deadline.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.on_write(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
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
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.on_write(cx, shut)
    }
}
