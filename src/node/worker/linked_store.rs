//! Store for what a worker copies into its node database: it answers while one link to a master is open.
//!
//! 1. A worker that was expelled loses its link first. What it was reading then is not copied, and what was
//!    still to be read is not asked for: a store on SQLite refuses nobody.

use crate::{
    comm::Link,
    env::BoxFuture,
    model::{absence::AwayReason, rows::StoreError},
    store::{Backend, Op, OpReply, Store},
};

/// Returns a handle on a store that answers while this link is open.
pub(super) fn while_open(store: Store, link: Option<Link>) -> Store {
    let is_linked = move || link.as_ref().is_some_and(Link::is_open);
    Store::new(LinkedStore { store, is_linked })
}

struct LinkedStore<F> {
    store: Store,
    is_linked: F,
}

impl<F: Fn() -> bool> LinkedStore<F> {
    fn check(&self) -> Result<(), StoreError> {
        if (self.is_linked)() {
            return Ok(());
        }
        let why = "this worker has left the master for which it asked";
        Err(StoreError::away(AwayReason::NoLogin, why))
    }
}

impl<F: Fn() -> bool + Send + Sync + 'static> Backend for LinkedStore<F> {
    fn call(&self, op: Op) -> BoxFuture<'_, Result<OpReply, StoreError>> {
        Box::pin(async move {
            self.check()?;
            let answer = self.store.call(op).await?;
            self.check()?;
            Ok(answer)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use crate::testing::{memory_disk::MemDisk, stepped_world::run_on};

    /// Store whose answers are counted.
    struct Counts(Arc<AtomicUsize>);

    impl Backend for Counts {
        fn call(&self, _: Op) -> BoxFuture<'_, Result<OpReply, StoreError>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Ok(OpReply::Masters(Vec::new())) })
        }
    }

    #[test]
    fn nothing_is_asked_or_told_once_the_link_has_ended() {
        run_on(Arc::new(MemDisk::default()), |_| async {
            // The link ends after so many looks at it.
            for (looks, answers, asked) in [(4, 2, 2), (3, 1, 2), (2, 1, 1), (0, 0, 0)] {
                let (calls, left) = (Arc::default(), AtomicUsize::new(looks));
                let is_linked = move || {
                    let took = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                        left.checked_sub(1)
                    });
                    took.is_ok()
                };
                let store = Store::new(Counts(Arc::clone(&calls)));
                let store = Store::new(LinkedStore { store, is_linked });
                let mut told = 0;
                for _ in 0..2 {
                    told += usize::from(store.masters().await.is_ok());
                }
                assert_eq!((told, calls.load(Ordering::Relaxed)), (answers, asked), "{looks}");
            }
        });
    }
}
