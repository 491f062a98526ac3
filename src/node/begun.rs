//! Start of work that goes on in a task of its own: tasks may run in any order, but what leaves first
//! is to leave in the order of decisions.

use std::{
    future::Future,
    task::{Context, Poll, Waker},
};

/// Polls `work` once, and returns the rest of it. What it does before it first waits has then been
/// done.
pub(super) fn begun<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> impl Future<Output = T> + Send + 'static {
    let mut work = Box::pin(work);
    // The waker is replaced at the next poll, which the task that is spawned does in any case.
    let first = work.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    async move {
        match first {
            Poll::Ready(done) => done,
            Poll::Pending => work.await,
        }
    }
}
