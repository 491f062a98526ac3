//! Journal of the store's writes, from which older copies of the store are made, and the greatest time of any
//! write, by which an older copy is told from the store.

use std::sync::{MutexGuard, PoisonError};

use chatchat::{
    model::rows::StoreError,
    store::{
        Op, OpReply,
        history::Mark,
        sqlite::{NewCluster, SqliteCore},
    },
};

use super::{StoreHost, frames::First};

/// Writes in their order, from which the store as it was can be made again.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) new: NewCluster,
    /// Operations with their times; `None` as long as nobody asked for it.
    pub(super) writes: Option<Vec<(Op, u64)>>,
    /// Greatest time of any write.
    pub(super) clock_ms: u64,
}

/// Content in whose place an older copy stands.
#[derive(Debug)]
pub struct Replaced {
    core: SqliteCore,
    /// Number of its writes.
    writes: usize,
    clock_ms: u64,
}

impl StoreHost {
    pub(super) fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps, from now on, what [`Self::roll_back`] needs. Must be called before anything is
    /// written.
    pub fn keep_journal(&self) {
        self.journal().writes = Some(Vec::new());
    }

    /// Returns the number of writes so far.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.journal().writes.as_ref().map_or(0, Vec::len)
    }

    /// Puts the store as it was after so many writes in the place of the present one, and returns that.
    ///
    /// # Errors
    /// As [`SqliteCore::open_in_memory`].
    pub fn roll_back(&self, writes: usize) -> Result<Replaced, StoreError> {
        let (mut core, mut journal) = (self.core(), self.journal());
        let mut old = SqliteCore::open_in_memory(&journal.new)?;
        let mut clock_ms = 0;
        for (op, now_ms) in journal.writes.iter().flatten().take(writes) {
            // What was refused then is refused again.
            let _ = old.apply(op, *now_ms);
            clock_ms = clock_ms.max(*now_ms);
        }
        let core = std::mem::replace(&mut *core, old);
        let clock_ms = std::mem::replace(&mut journal.clock_ms, clock_ms);
        Ok(Replaced { core, writes: journal.writes.as_ref().map_or(0, Vec::len), clock_ms })
    }

    /// Puts a content back in whose place an older copy stood. What that one took is gone.
    pub fn put_back(&self, Replaced { core, writes, clock_ms }: Replaced) {
        let (mut present, mut journal) = (self.core(), self.journal());
        if let Some(kept) = &mut journal.writes {
            kept.truncate(writes);
        }
        journal.clock_ms = clock_ms;
        *present = core;
    }

    pub(super) fn core(&self) -> MutexGuard<'_, SqliteCore> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns by what a node knows its content.
    pub(super) fn first(&self, now_ms: u64) -> Result<First, StoreError> {
        let boards = match self.apply(&Op::Boards, now_ms)? {
            OpReply::Boards(boards) => boards,
            other => return Err(StoreError::Broken { why: format!("{other:?}") }),
        };
        // Its creation and a restore raise its clock as well, and no read that confirms it may be newer.
        let clock_ms = boards.as_of_ms.max(self.journal().clock_ms);
        let mark = Mark { cluster: self.made_with().cluster, epoch: boards.epoch, clock_ms };
        Ok(First { mark, boards })
    }

    pub(super) fn keep(&self, op: &Op, now_ms: u64) {
        let mut journal = self.journal();
        if !op.is_write() {
            return;
        }
        journal.clock_ms = journal.clock_ms.max(now_ms);
        if let Some(writes) = &mut journal.writes {
            writes.push((op.clone(), now_ms));
        }
    }
}
