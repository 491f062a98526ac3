//! A look at the store every `store_poll_interval`: whether it is there, its masters, its
//! boards, and the sessions that were closed.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Notify, mpsc};

use super::driver::Input;
use crate::{
    env::{Env, TimedOut},
    model::{
        ids::SessionKey,
        rows::{Boards, MasterRow, StoreError},
    },
    store::Store,
};

/// What one look showed.
#[derive(Debug)]
pub(super) struct Look {
    /// All masters.
    pub masters: Vec<MasterRow>,
    /// All boards.
    pub boards: Boards,
    /// Sessions that were closed since the look before, a page at most.
    pub closed: Vec<SessionKey>,
}

/// Looks for ever, and sooner when `look_now` asks for it. A look that takes longer than
/// `timeout` found the store away.
pub(super) async fn watch(
    env: Env,
    store: Store,
    interval: Duration,
    timeout: Duration,
    look_now: Arc<Notify>,
    to: mpsc::Sender<Input>,
) {
    let mut mark = 0;
    loop {
        let look = match env.timeout(timeout, look(&store, mark)).await {
            Ok(Ok((look, next))) => {
                mark = next;
                Ok(look)
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(TimedOut) => Err(format!("no answer in {} ms", timeout.as_millis())),
        };
        if to.send(Input::Looked(look)).await.is_err() {
            return;
        }
        tokio::select! {
            biased;
            // Not at once: what was slow is given a moment.
            () = look_now.notified() => env.sleep(interval / 10).await,
            () = env.sleep(interval) => {}
        }
    }
}

async fn look(store: &Store, mark: u64) -> Result<(Look, u64), StoreError> {
    let masters = store.masters().await?;
    let boards = store.boards().await?;
    let (closed, mark) = store.closed_since(mark).await?;
    Ok((Look { masters, boards, closed }, mark))
}
