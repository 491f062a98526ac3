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
//! 4. A write may reach an older copy before any read does. A post that it put where this node has
//!    another is not acknowledged: the write is *away*, and its post is sent again to the newer store.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Backend, NewEnds, Op, OpReply, Store};
use crate::{
    env::BoxFuture,
    model::{
        absence::AwayReason,
        ids::Resource,
        outcome::TaskResult,
        read_order::{ReadNumber, ReadOrder},
        rows::{Boards, Permission, StoreError},
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
            match &op {
                Op::Write { permission, .. } => self.write(permission.clone(), op).await,
                _ => self.store.call(op).await,
            }
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

    /// Writes, and compares the places of new posts with what the node had before.
    async fn write(&self, permission: Permission, op: Op) -> Result<OpReply, StoreError> {
        let (own, number) = (self.ends.get(), self.reads().order.begin());
        let reply = self.store.call(op).await?;
        if let OpReply::Written(results) = &reply
            && let Some(why) = lacked(&own, &permission, results)
        {
            self.reads().end(number, true);
            return Err(StoreError::away(AwayReason::RolledBack, why));
        }
        Ok(reply)
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

/// Returns what a store lacked that put these posts where the node had others before; `None` if nothing.
fn lacked(own: &Boards, permission: &Permission, results: &[TaskResult]) -> Option<String> {
    let Resource::Board(board) = &permission.resource else { return None };
    // A restored store begins a new epoch, and may end earlier.
    if own.epoch != permission.token.epoch {
        return None;
    }
    let have = own.last(board)?;
    results.iter().find_map(|result| match result {
        TaskResult::Committed { seq, .. } if *seq <= have => Some(format!(
            "its board {board} got post {seq} now, and this node has {have}; put the newer file back"
        )),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        ids::{BoardName, NodeId, PostId, Seq, StoreEpoch, Token, UserId},
        message::Task,
    };

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
                let next = boards.last(&BoardName::lobby()).unwrap_or_default().0 + 1;
                Ok(match op {
                    Op::Boards => OpReply::Boards(boards),
                    Op::Write { .. } => OpReply::Written(vec![
                        TaskResult::Duplicate { seq: Seq(1), posted_at_ms: 1 },
                        TaskResult::Committed { seq: Seq(next), posted_at_ms: 2 },
                    ]),
                    _ => OpReply::Done,
                })
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

    #[tokio::test]
    async fn post_that_an_older_copy_takes_before_it_is_read_is_not_acknowledged() {
        let stored = Arc::new(Mutex::new(boards(7, 3)));
        let (store, ends) = guarded(Store::new(Fixed(Arc::clone(&stored))));
        ends.set(boards(7, 3));
        let write = |epoch| {
            let token = Token { epoch: StoreEpoch(epoch), lease: 1, n: 1 };
            let resource = Resource::Board(BoardName::lobby());
            let permission = Permission { resource, token, after: None, worker: NodeId([1; 16]) };
            let cancel = |n| Task::CancelPost { user: UserId([n; 16]), id: PostId([n; 16]) };
            store.write(permission, Arc::new(vec![cancel(1), cancel(2)]))
        };
        write(7).await.expect("its post stands behind all that the node has");
        *stored.lock().expect("not poisoned") = boards(8, 2);
        write(8).await.expect("restored: a new epoch");
        *stored.lock().expect("not poisoned") = boards(7, 2);
        let behind = |error: StoreError| error.away_reason() == Some(AwayReason::RolledBack);
        assert!(write(7).await.is_err_and(behind));
        assert!(store.drop_dead_letter(1).await.is_err_and(behind), "known from then on");
        *stored.lock().expect("not poisoned") = boards(7, 4);
        write(7).await.expect("the newer file is back");
    }
}
