//! Store in memory behind a mutex, for tests and small experiments. It ends with its handle.

use std::sync::{Mutex, PoisonError};

use super::{NewCluster, SqliteCore};
use crate::{
    env::BoxFuture,
    model::rows::StoreError,
    store::{Backend, Op, OpReply, Store},
};

/// Backend that carries out one operation at a time, at the time that `now_ms` returns.
struct MemoryStore<F> {
    core: Mutex<SqliteCore>,
    now_ms: F,
}

impl<F: Fn() -> u64 + Send + Sync + 'static> Backend for MemoryStore<F> {
    fn call(&self, op: Op) -> BoxFuture<'_, Result<OpReply, StoreError>> {
        Box::pin(async move {
            // An operation that panicked was rolled back: the core is whole.
            let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
            core.apply(&op, (self.now_ms)())
        })
    }
}

/// Opens a new store in memory; `now_ms` is its clock, ms since the Unix epoch.
///
/// # Errors
/// As [`SqliteCore::open_in_memory`].
pub fn open(
    new: &NewCluster,
    now_ms: impl Fn() -> u64 + Send + Sync + 'static,
) -> Result<Store, StoreError> {
    let core = Mutex::new(SqliteCore::open_in_memory(new)?);
    Ok(Store::new(MemoryStore { core, now_ms }))
}
