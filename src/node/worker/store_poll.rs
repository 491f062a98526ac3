//! Poll of the store every `store_poll_interval`: whether it answers, its masters, its boards, and
//! the sessions that were closed.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;

use super::input::{Input, StoreView};
use crate::{
    env::{Env, TimedOut},
    model::{absence::AwayReason, rows::StoreError},
    node::inbox::Inputs,
    store::Store,
};

/// Polls for ever, and sooner when `poll_now` asks for it. A poll that takes longer than
/// `timeout` found the store away.
pub(super) async fn poll(
    env: Env,
    store: Store,
    interval: Duration,
    timeout: Duration,
    poll_now: Arc<Notify>,
    to: Inputs<Input>,
) {
    let mut mark = 0;
    loop {
        let polled = match env.timeout(timeout, poll_once(&store, mark)).await {
            Ok(Ok((view, next))) => {
                mark = next;
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
        if let Some(polled) = polled
            && !to.send(Input::StorePolled(polled)).await
        {
            return;
        }
        tokio::select! {
            biased;
            // Not at once: a store that was slow gets a moment.
            () = poll_now.notified() => env.sleep(interval / 10).await,
            () = env.sleep(interval) => {}
        }
    }
}

async fn poll_once(store: &Store, mark: u64) -> Result<(StoreView, u64), StoreError> {
    let masters = store.masters().await?;
    let boards = store.boards().await?;
    let (closed, mark) = store.closed_since(mark).await?;
    Ok((StoreView { masters, boards, closed }, mark))
}
