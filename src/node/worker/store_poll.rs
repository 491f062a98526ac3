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

/// Polls for ever, and sooner when `poll_now` asks for it or the store is away. A poll one of whose answers
/// takes longer than `timeout` found it away.
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
        let polled = match poll_once(&env, &store, place, timeout).await {
            Ok((view, closed)) => {
                log_outs = Some(closed);
                Some(Ok(view))
            }
            // Says nothing of the store.
            Err(StoreError::Busy) => None,
            Err(error) => Some(Err(error)),
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

/// Asks for the boards first: they tell whether the store is an older copy. Each answer has `limit`, as each
/// write has: a store that is far away takes longer for all of them, and is there all the same.
async fn poll_once(
    env: &Env,
    store: &Store,
    place: ClosingsPlace,
    limit: Duration,
) -> Result<(StoreView, ClosingsPage), StoreError> {
    let boards = in_time(env, limit, store.boards()).await?;
    let masters = in_time(env, limit, store.masters()).await?;
    let closed = in_time(env, limit, store.closings(place)).await?;
    Ok((StoreView { masters, boards }, closed))
}

async fn in_time<T>(
    env: &Env,
    limit: Duration,
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    env.timeout(limit, answer).await.unwrap_or_else(|TimedOut| {
        let why = format!("no answer in {} ms", limit.as_millis());
        Err(StoreError::away(AwayReason::NoAnswer, why))
    })
}

/// Closes sessions in the node database, and returns whether that was written.
async fn close_sessions(database: &Database, closed: Vec<SessionKey>) -> bool {
    let updates: Vec<_> = closed.into_iter().map(Update::SessionClosed).collect();
    updates.is_empty() || database.is_open() && database.apply(updates).await.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        env::BoxFuture,
        model::ids::StoreEpoch,
        store::{
            Backend, Op, OpReply,
            sqlite::{NewCluster, memory},
        },
        testing::stepped_world,
    };

    /// Store whose answers take this long.
    struct Far {
        env: Env,
        inner: Store,
        answers_take: Duration,
    }

    impl Backend for Far {
        fn call(&self, op: Op) -> BoxFuture<'_, Result<OpReply, StoreError>> {
            Box::pin(async move {
                self.env.sleep(self.answers_take).await;
                self.inner.call(op).await
            })
        }
    }

    /// Polls a store once whose answers take this long; returns whether it was there, and the time it took.
    fn polled(answers_take: Duration) -> (Result<(), StoreError>, Duration) {
        const LIMIT: Duration = Duration::from_millis(800);
        stepped_world::run(|env| async move {
            let new = NewCluster { cluster: [1; 16], epoch: StoreEpoch(1), now_ms: 1000 };
            let inner = memory::open(&new, || 1000).expect("opens");
            let store = Store::new(Far { env: env.clone(), inner, answers_take });
            let from = env.now();
            let polled = poll_once(&env, &store, ClosingsPlace::default(), LIMIT).await;
            (polled.map(drop), env.now().since(from))
        })
    }

    #[test]
    fn store_whose_answers_are_each_in_time_is_there() {
        let (polled, took) = polled(Duration::from_millis(300));
        assert_eq!(polled, Ok(()));
        assert!(took > Duration::from_millis(800), "it is a store that is far away: {took:?}");
    }

    #[test]
    fn store_one_of_whose_answers_is_late_is_away_after_the_limit_of_one() {
        let (polled, took) = polled(Duration::from_millis(900));
        assert!(polled.expect_err("late").is_away());
        assert_eq!(took, Duration::from_millis(800));
    }
}
