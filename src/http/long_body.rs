//! Body of an answer that goes on for hours, such as a stream of events. hyper writes its head and its
//! first chunk; the connection may take the rest, so as not to keep hyper's buffers of 16 KiB for it.
//!
//! 1. The rest is with hyper or with the connection, never with both.
//! 2. A rest that nobody claims is an ordinary body: every client is served, some at a higher cost.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    response::Response,
};
use futures_util::Stream;
use hyper::body::Frame;

/// Chunks of a body, which end with it.
pub(super) type Chunks = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// Rest of a long body, behind its first chunk. Lies in the extensions of its answer.
#[derive(Clone)]
pub(super) struct Rest(Arc<Mutex<State>>);

struct State {
    /// The chunks, until they are taken.
    chunks: Option<Chunks>,
    /// Whether hyper waits for the rest instead of asking for its chunks.
    is_claimed: bool,
    /// Whether hyper has taken all that is before the rest.
    is_due: bool,
}

/// Makes a long body the body of an answer.
pub(super) fn long_answer(
    first: Bytes,
    rest: impl Stream<Item = Bytes> + Send + 'static,
    answer: impl FnOnce(Body) -> Response,
) -> Response {
    let state = State { chunks: Some(Box::pin(rest)), is_claimed: false, is_due: false };
    let rest = Rest(Arc::new(Mutex::new(state)));
    let mut answer = answer(Body::new(LongBody { first: Some(first), rest: rest.clone() }));
    answer.extensions_mut().insert(rest);
    answer
}

impl Rest {
    /// Keeps the rest for who takes it: from now on hyper waits for it in vain.
    pub(super) fn claim(&self) {
        self.state().is_claimed = true;
    }

    /// Returns whether hyper has taken all that is before the rest, and now waits for it.
    pub(super) fn is_due(&self) -> bool {
        self.state().is_due
    }

    /// Takes the chunks; `None` if they were taken before.
    pub(super) fn take(&self) -> Option<Chunks> {
        self.state().chunks.take()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct LongBody {
    first: Option<Bytes>,
    rest: Rest,
}

impl HttpBody for LongBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let mut state = self.rest.state();
        if state.is_claimed {
            state.is_due = true;
            return Poll::Pending;
        }
        let Some(chunks) = &mut state.chunks else { return Poll::Ready(None) };
        chunks.as_mut().poll_next(cx).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}
