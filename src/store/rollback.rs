//! Guard against a store that was rolled back: it lacks posts that this node has of it.
//!
//! A node has only posts that were committed, so a store of the same epoch that ends before them is
//! an older copy. What such a store says of anything else is as old, so it is *away* until it has
//! the posts again or a new epoch begins.
//!
//! 1. A read of the boards is compared with what the node had before it asked: the store is never
//!    called older than its own answer.
//! 2. While the store is behind, every operation reads the boards first, and goes no further.
//! 3. Of two reads, the one that began later decides: an answer from before the roll-back may come
//!    after one from behind it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Backend, NewEnds, Op, OpReply, Store};
use crate::{
    env::BoxFuture,
    model::{
        absence::AwayReason,
        read_order::{ReadNumber, ReadOrder},
        rows::{Boards, StoreError},
    },
};

/// Ends of the boards as this node has them. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct OwnEnds(Arc<Mutex<Arc<Boards>>>);

impl OwnEnds {
    /// Replaces what the node has by what it has now.
    pub fn set(&self, boards: Boards) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(boards);
    }

    fn get(&self) -> Arc<Boards> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Returns the store behind the guard, and the place for the ends that the node has.
#[must_use]
pub fn guarded(store: Store) -> (Store, OwnEnds) {
    let ends = OwnEnds::default();
    (Store::new(Guarded { store, ends: ends.clone(), reads: Mutex::default() }), ends)
}

struct Guarded {
    store: Store,
    ends: OwnEnds,
    reads: Mutex<Reads>,
}

/// Reads of the boards, and what they found.
#[derive(Default)]
struct Reads {
    order: ReadOrder,
    is_behind: bool,
}

impl Reads {
    /// Takes the finding of a read, unless one that began later has ended.
    fn end(&mut self, read: ReadNumber, is_behind: bool) {
        if self.order.end(read) {
            self.is_behind = is_behind;
        }
    }
}

impl Backend for Guarded {
    fn call(&self, op: Op) -> BoxFuture<'_, Result<OpReply, StoreError>> {
        Box::pin(async move {
            if op == Op::Boards {
                return self.boards().await;
            }
            if self.reads().is_behind {
                self.boards().await?;
            }
            self.store.call(op).await
        })
    }

    fn follow(&self, ends: NewEnds) {
        self.store.follow(ends);
    }
}

impl Guarded {
    fn reads(&self) -> MutexGuard<'_, Reads> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the boards, and compares them with what the node had before.
    async fn boards(&self) -> Result<OpReply, StoreError> {
        let (own, number) = (self.ends.get(), self.reads().order.begin());
        let read = self.store.boards().await?;
        let lack = lack(&own, &read);
        self.reads().end(number, lack.is_some());
        match lack {
            Some(why) => Err(StoreError::away(AwayReason::RolledBack, why)),
            None => Ok(OpReply::Boards(read)),
        }
    }
}

/// Returns what a store lacks of that which a node had before it read; `None` if nothing.
fn lack(own: &Boards, read: &Boards) -> Option<String> {
    if own.epoch > read.epoch {
        return Some(format!("it is of epoch {}, and this node saw {}", read.epoch, own.epoch));
    }
    if own.epoch < read.epoch {
        return None;
    }
    own.boards.iter().find_map(|(board, have)| {
        let last = read.last(board).unwrap_or_default();
        (last < *have).then(|| {
            format!("its board {board} ends at {last}, and this node has {have}; put the newer file back")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::{Seq, StoreEpoch};

    fn boards(epoch: u64, lobby: u64) -> Boards {
        let lobby = ("lobby".parse().expect("a name"), Seq(lobby));
        Boards { boards: vec![lobby], epoch: StoreEpoch(epoch), as_of_ms: 0 }
    }

    #[test]
    fn store_that_ends_earlier_in_the_same_epoch_lacks_something() {
        assert_eq!(lack(&Boards::default(), &boards(7, 3)), None, "a new node has nothing");
        assert_eq!(lack(&boards(7, 3), &boards(7, 3)), None);
        assert_eq!(lack(&boards(7, 3), &boards(8, 1)), None, "restored: a new epoch");
        assert!(lack(&boards(7, 3), &boards(7, 2)).is_some());
        assert!(lack(&boards(7, 3), &boards(6, 9)).is_some());
        let gone = Boards { boards: Vec::new(), ..boards(7, 0) };
        assert!(lack(&boards(7, 3), &gone).is_some(), "a board that is not there any more");
    }

    #[test]
    fn read_that_began_earlier_and_ends_later_decides_nothing() {
        let mut reads = Reads::default();
        let (before, behind) = (reads.order.begin(), reads.order.begin());
        reads.end(behind, true);
        reads.end(before, false);
        assert!(reads.is_behind);
        let whole = reads.order.begin();
        reads.end(whole, false);
        assert!(!reads.is_behind);
    }

    /// Store whose boards end where the test says.
    struct Fixed(Arc<Mutex<Boards>>);

    impl Backend for Fixed {
        fn call(&self, op: Op) -> BoxFuture<'_, Result<OpReply, StoreError>> {
            let boards = self.0.lock().expect("not poisoned").clone();
            Box::pin(async move {
                Ok(if op == Op::Boards { OpReply::Boards(boards) } else { OpReply::Done })
            })
        }
    }

    #[tokio::test]
    async fn nothing_is_read_or_written_until_the_store_has_the_posts_again() {
        let stored = Arc::new(Mutex::new(boards(7, 3)));
        let (store, ends) = guarded(Store::new(Fixed(Arc::clone(&stored))));
        ends.set(store.boards().await.expect("it has all"));
        store.drop_dead_letter(1).await.expect("written");
        *stored.lock().expect("not poisoned") = boards(7, 2);
        let behind = |error: StoreError| error.away_reason() == Some(AwayReason::RolledBack);
        assert!(store.boards().await.is_err_and(behind));
        assert!(store.drop_dead_letter(1).await.is_err_and(behind));
        *stored.lock().expect("not poisoned") = boards(7, 3);
        store.drop_dead_letter(1).await.expect("the newer file is back");
    }
}
