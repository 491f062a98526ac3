//! Store whose list of closed sessions takes three pages.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    env::{BoxFuture, Env},
    model::{ids::SessionKey, rows::StoreError},
    store::{Backend, CLOSED_PAGE_MAX, Op, OpReply, Store},
};

const PAGE: u64 = CLOSED_PAGE_MAX as u64;

/// Sessions by which a page goes on: it begins with the last one of the page before.
const STEP: u64 = PAGE - 1;

/// Sessions on the list.
const CLOSED: u64 = 2 * PAGE + 5;

/// Another store, but for its list of closed sessions, which is made up. It notes the marks that pages began at.
#[derive(Clone)]
pub(crate) struct LongList {
    inner: Store,
    marks: Arc<Mutex<Vec<u64>>>,
}

impl LongList {
    pub(crate) fn new(inner: Store) -> Self {
        Self { inner, marks: Arc::default() }
    }

    /// Waits until each page was asked for, the one after the other.
    pub(crate) async fn is_read(&self, env: &Env, limit: Duration) {
        let read = async {
            while self.marks.lock().expect("not poisoned").iter().all(|mark| *mark < 2 * STEP) {
                env.sleep(Duration::from_millis(10)).await;
            }
        };
        env.timeout(limit, read).await.expect("the list is read to its end");
        let mut marks = self.marks.lock().expect("not poisoned").clone();
        // A page that could not be used is asked for again.
        marks.dedup();
        assert_eq!(marks[..3], [0, STEP, 2 * STEP]);
    }
}

impl Backend for LongList {
    fn call(&self, op: Op) -> BoxFuture<'_, Result<OpReply, StoreError>> {
        Box::pin(async move {
            let Op::ClosedSince(mark) = op else { return self.inner.call(op).await };
            self.marks.lock().expect("not poisoned").push(mark);
            let end = CLOSED.min(mark + PAGE);
            Ok(OpReply::Closed { keys: (mark..end).map(key).collect(), mark: end })
        })
    }
}

fn key(nth: u64) -> SessionKey {
    let mut bytes = [0xc5; 32];
    bytes[..8].copy_from_slice(&nth.to_be_bytes());
    SessionKey(bytes)
}
