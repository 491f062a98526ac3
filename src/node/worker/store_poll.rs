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
    store::{
        RETRY_INTERVAL_MAX, Store,
        closings::{ClosingsPage, ClosingsPlace},
    },
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
    let mut place = ClosingsPlace::default();
    loop {
        let mut log_outs = None;
        let polled = match env.timeout(timeout, poll_once(&store, place)).await {
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
        if let Some(page) = log_outs {
            let goes_on = page.is_full && page.end != place;
            if let Ok(true) = env.timeout(timeout, close_sessions(&database, page.keys)).await {
                (place, has_more) = (page.end, goes_on);
            }
        }
        let reading_on = async {
            while has_more {
                let page = env.timeout(timeout, store.closings(place)).await;
                // The next poll asks again.
                let Ok(Ok(page)) = page else { break };
                has_more = page.is_full && page.end != place;
                let closed = close_sessions(&database, page.keys);
                let Ok(true) = env.timeout(timeout, closed).await else { break };
                place = page.end;
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

/// Asks for the boards first: they tell whether the store is an older copy.
async fn poll_once(
    store: &Store,
    place: ClosingsPlace,
) -> Result<(StoreView, ClosingsPage), StoreError> {
    let boards = store.boards().await?;
    let masters = store.masters().await?;
    Ok((StoreView { masters, boards }, store.closings(place).await?))
}

/// Closes sessions in the node database, and returns whether that was written.
async fn close_sessions(database: &Database, closed: Vec<SessionKey>) -> bool {
    let updates: Vec<_> = closed.into_iter().map(Update::SessionClosed).collect();
    updates.is_empty() || database.is_open() && database.apply(updates).await.is_some()
}
