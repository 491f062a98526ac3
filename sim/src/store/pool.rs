//! Exhausted pool of connections: few statements run at once, the others wait for one that ends.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chatchat::env::Env;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// Connections that are left while others have the rest of them.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    free: Arc<Semaphore>,
    /// Time that a statement keeps its connection, besides its own.
    by: Duration,
    /// Statements that found no connection free.
    waited: Arc<AtomicU64>,
}

/// Connections that a statement keeps until this is dropped.
#[derive(Debug, Default)]
pub(super) struct Taken {
    connections: Vec<OwnedSemaphorePermit>,
    /// Whether it waited: its caller may have given up.
    pub(super) waited: bool,
}

impl Pool {
    pub(super) fn new(count: u32, by: Duration) -> Self {
        let free = Arc::new(Semaphore::new(usize::try_from(count).unwrap_or(usize::MAX)));
        Self { free, by, waited: Arc::default() }
    }

    /// Lets all statements go on that wait, and returns how many ever waited.
    pub(super) fn end(&self) -> u64 {
        self.free.close();
        self.waited.load(Ordering::Relaxed)
    }
}

/// Waits for a connection of each pool; one that is exhausted no more is not waited for.
pub(super) async fn take(env: &Env, pools: Vec<Pool>) -> Taken {
    let mut taken = Taken::default();
    for pool in pools {
        let connection = match Arc::clone(&pool.free).try_acquire_owned() {
            Err(TryAcquireError::NoPermits) => {
                pool.waited.fetch_add(1, Ordering::Relaxed);
                taken.waited = true;
                Arc::clone(&pool.free).acquire_owned().await.ok()
            }
            connection => connection.ok(),
        };
        if connection.is_some() && !pool.by.is_zero() {
            env.sleep(pool.by).await;
        }
        taken.connections.extend(connection);
    }
    taken
}
