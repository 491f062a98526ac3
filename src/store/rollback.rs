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
//!    after one from behind it. The backend is told what was decided, and keeps by it what it compares new
//!    connections with (`history.rs`).
//! 4. Any operation may reach an older copy before a read of the boards does. So the backend compares each new
//!    connection with what the node has, too, and a write carries what the node knows of its board meanwhile.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Backend, NewEnds, Op, OpReply, OwnEnds, Store, own_ends::lack};
use crate::{
    env::BoxFuture,
    model::{
        absence::AwayReason,
        ids::{Resource, StoreEpoch},
        message::Task,
        outcome::TaskResult,
        read_order::{ReadNumber, ReadOrder},
        rows::{Permission, StoreError},
    },
};

/// Returns the store behind the guard, and the place for the ends that the node has.
#[must_use]
pub fn guarded(store: Store) -> (Store, OwnEnds) {
    let ends = OwnEnds::default();
    store.compare(ends.clone());
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
    /// Takes the finding of a read, and returns whether it counts: `false` if one that began later has
    /// ended.
    fn end(&mut self, read: ReadNumber, is_behind: bool) -> bool {
        let counts = self.order.end(read);
        if counts {
            self.is_behind = is_behind;
        }
        counts
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
            match op {
                Op::Write { permission, tasks, .. } => self.write(permission, tasks).await,
                op => self.store.call(op).await,
            }
        })
    }

    fn follow(&self, ends: NewEnds) {
        self.store.follow(ends);
    }

    fn compare(&self, ends: OwnEnds) {
        self.store.compare(ends);
    }

    fn confirm(&self, epoch: StoreEpoch, as_of_ms: u64) {
        self.store.confirm(epoch, as_of_ms);
    }

    fn doubt(&self) {
        self.store.doubt();
    }
}

impl Guarded {
    fn reads(&self) -> MutexGuard<'_, Reads> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes with what the node knows of the board, and notes what was committed.
    async fn write(
        &self,
        permission: Permission,
        tasks: Arc<Vec<Task>>,
    ) -> Result<OpReply, StoreError> {
        let (known, number) = (self.ends.known(&permission), self.reads().order.begin());
        let (resource, epoch) = (permission.resource.clone(), permission.token.epoch);
        let reply = self.store.call(Op::Write { permission, tasks, known }).await;
        match (&reply, resource) {
            (Ok(OpReply::Written(results)), Resource::Board(board)) => {
                for result in results {
                    if let TaskResult::Committed { seq, .. } | TaskResult::Duplicate { seq, .. } =
                        result
                    {
                        self.ends.raise(epoch, &board, *seq);
                    }
                }
            }
            (Err(error), _) if error.away_reason() == Some(AwayReason::RolledBack) => {
                self.reads().end(number, true);
            }
            _ => {}
        }
        reply
    }

    /// Reads the boards, compares them with what the node had before, and tells the backend.
    async fn boards(&self) -> Result<OpReply, StoreError> {
        let (own, number) = (self.ends.get(), self.reads().order.begin());
        let read = self.store.boards().await?;
        let lack = lack(&own, &read);
        let mut reads = self.reads();
        if reads.end(number, lack.is_some()) {
            // Under the lock: the backend hears of them in the order in which they count.
            match &lack {
                Some(_) => self.store.doubt(),
                None => self.store.confirm(read.epoch, read.as_of_ms),
            }
        }
        drop(reads);
        match lack {
            Some(why) => Err(StoreError::away(AwayReason::RolledBack, why)),
            None => Ok(OpReply::Boards(read)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        ids::{BoardName, NodeId, PostId, Seq, Token, UserId},
        rows::Boards,
    };
    use crate::store::own_ends::tests::boards;

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

    /// Store whose boards end where the test says. Each write adds a post to the lobby.
    struct Fixed(Arc<Mutex<Boards>>);

    impl Backend for Fixed {
        fn call(&self, op: Op) -> BoxFuture<'_, Result<OpReply, StoreError>> {
            let mut boards = self.0.lock().expect("not poisoned");
            let lobby = BoardName::lobby();
            let last = boards.last(&lobby).unwrap_or_default();
            let reply = match op {
                Op::Boards => Ok(OpReply::Boards(boards.clone())),
                Op::Write { known, .. } if last < known => {
                    Err(StoreError::away(AwayReason::RolledBack, "it ends early"))
                }
                Op::Write { .. } => {
                    let seq = Seq(last.0 + 1);
                    boards.raise(&lobby, seq);
                    Ok(OpReply::Written(vec![TaskResult::Committed { seq, posted_at_ms: 1 }]))
                }
                _ => Ok(OpReply::Done),
            };
            Box::pin(async move { reply })
        }
    }

    /// Place of a read that lacked nothing; `None` for one that lacked something.
    type Finding = Option<(StoreEpoch, u64)>;

    /// Store that notes what it is told of reads.
    struct Told {
        stored: Fixed,
        told: Arc<Mutex<Vec<Finding>>>,
    }

    impl Backend for Told {
        fn call(&self, op: Op) -> BoxFuture<'_, Result<OpReply, StoreError>> {
            self.stored.call(op)
        }

        fn confirm(&self, epoch: StoreEpoch, as_of_ms: u64) {
            self.told.lock().expect("not poisoned").push(Some((epoch, as_of_ms)));
        }

        fn doubt(&self) {
            self.told.lock().expect("not poisoned").push(None);
        }
    }

    #[tokio::test]
    async fn backend_is_told_whether_a_read_lacked_something() {
        let stored = Arc::new(Mutex::new(Boards { as_of_ms: 100, ..boards(7, 3) }));
        let told = Arc::<Mutex<Vec<_>>>::default();
        let backend = Told { stored: Fixed(Arc::clone(&stored)), told: Arc::clone(&told) };
        let (store, ends) = guarded(Store::new(backend));
        ends.set(store.boards().await.expect("a new node has nothing"));
        *stored.lock().expect("not poisoned") = Boards { as_of_ms: 300, ..boards(7, 2) };
        store.boards().await.expect_err("it lacks a post");
        store.drop_dead_letter(1).await.expect_err("it still does");
        *stored.lock().expect("not poisoned") = Boards { as_of_ms: 200, ..boards(7, 3) };
        store.drop_dead_letter(1).await.expect("the newer one is back");
        store.drop_dead_letter(1).await.expect("not read again");
        let told = told.lock().expect("not poisoned").clone();
        let whole = |at_ms| Some((StoreEpoch(7), at_ms));
        assert_eq!(told, [whole(100), None, None, whole(200)]);
    }

    fn write_of(epoch: u64) -> (Permission, Arc<Vec<Task>>) {
        let token = Token { epoch: StoreEpoch(epoch), lease: 1, n: 1 };
        let resource = Resource::Board(BoardName::lobby());
        let permission = Permission { resource, token, after: None, worker: NodeId([1; 16]) };
        let task = Task::CancelPost { user: UserId([1; 16]), id: PostId([1; 16]) };
        (permission, Arc::new(vec![task]))
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
    async fn older_copy_takes_no_post_even_before_it_is_read() {
        let stored = Arc::new(Mutex::new(boards(7, 3)));
        let (store, ends) = guarded(Store::new(Fixed(Arc::clone(&stored))));
        ends.set(boards(7, 3));
        let write = async |epoch| {
            let (permission, tasks) = write_of(epoch);
            store.write(permission, tasks).await
        };
        let lacks = |error: StoreError| error.away_reason() == Some(AwayReason::RolledBack);
        write(7).await.expect("it has all");
        *stored.lock().expect("not poisoned") = boards(7, 3);
        assert!(write(7).await.is_err_and(lacks), "its own post is known without a read");
        assert!(write(7).await.is_err_and(lacks), "and a refused write added none");
        assert!(store.drop_dead_letter(1).await.is_err_and(lacks), "known from then on");
        *stored.lock().expect("not poisoned") = boards(7, 4);
        write(7).await.expect("the newer file is back");
        ends.raise(StoreEpoch(7), &BoardName::lobby(), Seq(9));
        assert!(write(7).await.is_err_and(lacks), "what others wrote counts as well");
        *stored.lock().expect("not poisoned") = boards(8, 1);
        write(8).await.expect("restored: a new epoch");
    }
}
