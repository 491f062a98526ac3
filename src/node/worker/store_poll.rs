//! Poll of the store every `store_poll_interval`: whether it answers, its masters, its boards, and
//! the sessions that were closed.
//!
//! 1. Closed sessions that fill a page are followed by the next page at once, as far as the pause between two
//!    polls goes: the list may be long when the worker starts, and no poll waits for it.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;

use super::{
    database::Database,
    input::{Input, StoreView},
};
use crate::{
    env::{Env, TimedOut},
    model::{absence::AwayReason, ids::SessionKey, message::Update, rows::StoreError},
    node::inbox::Inputs,
    store::{RETRY_INTERVAL_MAX, Store, is_full_page},
};

/// Polls for ever, and sooner when `poll_now` asks for it or the store is away. A poll that takes
/// longer than `timeout` found it away.
pub(super) async fn poll(
    env: Env,
    store: Store,
    interval: Duration,
    timeout: Duration,
    poll_now: Arc<Notify>,
    (to, database): (Inputs<Input>, Database),
) {
    let retry_interval = interval.min(RETRY_INTERVAL_MAX);
    let mut mark = 0;
    loop {
        let mut log_outs = None;
        let polled = match env.timeout(timeout, poll_once(&store, mark)).await {
            Ok(Ok((view, closed))) => {
                log_outs = Some(closed);
                Some(Ok(view))
            }
            // Says nothing of the store.
            Ok(Err(StoreError::Busy)) => None,
            Ok(Err(error)) => Some(Err(error)),
            Err(TimedOut) => {
                let why = format!("no answer in {} ms", timeout.as_millis());
                Some(Err(StoreError::away(AwayReason::NoAnswer, why)))
            }
        };
        let pause = match &polled {
            Some(Err(_)) => retry_interval,
            _ => interval,
        };
        if let Some(polled) = polled
            && !to.send(Input::StorePolled(polled)).await
        {
            return;
        }
        let mut has_more = false;
        // What was not written is read again.
        if let Some((closed, next)) = log_outs {
            let is_full = is_full_page(&closed) && next > mark;
            if let Ok(true) = env.timeout(timeout, close_sessions(&database, closed)).await {
                (mark, has_more) = (next, is_full);
            }
        }
        let reading_on = async {
            while has_more {
                let page = env.timeout(timeout, store.closed_since(mark)).await;
                // The next poll asks again.
                let Ok(Ok((closed, next))) = page else { break };
                has_more = is_full_page(&closed) && next > mark;
                let Ok(true) = env.timeout(timeout, close_sessions(&database, closed)).await else {
                    break;
                };
                mark = next;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            // Not at once: a store that was slow gets a moment, a tenth of a second at most.
            () = poll_now.notified() => env.sleep(retry_interval / 10).await,
            () = env.sleep(pause) => {}
            () = reading_on => {}
        }
    }
}

/// Sessions that were closed since a mark, a page at most, and the next mark.
type LogOuts = (Vec<SessionKey>, u64);

async fn poll_once(store: &Store, mark: u64) -> Result<(StoreView, LogOuts), StoreError> {
    let masters = store.masters().await?;
    let boards = store.boards().await?;
    Ok((StoreView { masters, boards }, store.closed_since(mark).await?))
}

/// Closes sessions in the node database, and returns whether that was written.
async fn close_sessions(database: &Database, closed: Vec<SessionKey>) -> bool {
    let updates: Vec<_> = closed.into_iter().map(Update::SessionClosed).collect();
    updates.is_empty() || database.is_open() && database.apply(updates).await.is_some()
}
