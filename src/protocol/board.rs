//! Tails of all boards, as a master keeps them in memory, and readers' positions in them.
//!
//! ```text
//!   1 .. base | base+1 .. last |            the tail of one board
//!   the store |   in memory    | posts after a gap are taken only once the gap is filled
//! ```
//!
//! 1. A tail has no gap: it holds exactly the posts `base+1..=last`, at most `posts_max`. It grows at
//!    its end, and at its beginning by what readers had read from the store.
//! 2. All sequence numbers are of one store epoch; a new epoch empties every tail.
//! 3. A reader gets a board's posts in order, each once; a jump is announced by a reset. It gets no
//!    board that it was opened without.

use std::collections::{BTreeMap, VecDeque};

use crate::model::{
    bounds::{fitting, post_len},
    ids::{BoardName, Cursor, Post, Seq, StoreEpoch},
    message::Task,
    rows::{Boards, Range},
    shared::Shared,
    stream::ResetReason,
};

pub use crate::model::bounds::BOARDS_MAX;

/// Result of applying posts to a board's tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TailChange {
    /// New posts were appended.
    Extended {
        /// First new sequence number.
        from: Seq,
        /// Last sequence number now.
        to: Seq,
    },
    /// All posts were known; nothing changed.
    Duplicate,
    /// Posts after `have` and before `want` are missing; nothing changed. Fetch them.
    Gap {
        /// Last sequence number in the tail.
        have: Seq,
        /// First sequence number of the posts.
        want: Seq,
    },
    /// The posts are of an earlier store epoch; nothing changed.
    OldEpoch,
    /// The posts are of a newer store epoch; nothing changed. Read the store's boards.
    NewEpoch,
    /// The posts do not ascend without a gap, are of several boards, or of one board too many;
    /// nothing changed.
    Malformed,
}

/// Differences between the store's boards and the tails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BoardChanges {
    /// Whether the store epoch is new; then all tails were emptied.
    pub new_epoch: bool,
    /// Boards that were not known, in the order of names.
    pub new_boards: Vec<BoardName>,
    /// Boards whose tails lack posts after the sequence number given.
    pub behind: Vec<(BoardName, Seq)>,
}

#[derive(Clone, Debug, Default)]
struct Tail {
    /// Last sequence number that is not in memory.
    base: Seq,
    posts: VecDeque<Shared<Post>>,
}

impl Tail {
    fn last(&self) -> Seq {
        Seq(self.base.0 + self.posts.len() as u64)
    }

    /// Returns up to `limit` posts after `after`, which is not below the base.
    fn after(&self, after: Seq, limit: usize) -> Vec<Shared<Post>> {
        let skip = usize::try_from(after.0 - self.base.0).unwrap_or(usize::MAX);
        self.posts.iter().skip(skip).take(limit).cloned().collect()
    }
}

/// Tails of all boards.
#[derive(Clone, Debug)]
pub struct Tails {
    epoch: StoreEpoch,
    boards: BTreeMap<BoardName, Tail>,
    posts_max: usize,
    as_of_ms: u64,
}

/// Knowledge of memory about the board that a task needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Existence {
    /// The board exists, the task creates it, or it needs none.
    Known,
    /// Memory does not know the board: ask the store before anything is kept for its name.
    Unheard(BoardName),
    /// The task would create a board too many. Boards are never deleted, so this stays true.
    NoRoom,
}

impl Tails {
    /// Returns what is known of the board that a task needs.
    #[must_use]
    pub fn existence(&self, task: &Task) -> Existence {
        match task {
            Task::Post { board, .. } if !self.boards.contains_key(board) => {
                Existence::Unheard(board.clone())
            }
            Task::CreateBoard { board }
                if self.boards.len() >= BOARDS_MAX && !self.boards.contains_key(board) =>
            {
                Existence::NoRoom
            }
            _ => Existence::Known,
        }
    }

    /// Returns whether a stream of these boards may be opened from memory alone. A board that memory
    /// lacks may exist all the same, and a stream never gets a board that it was opened without.
    #[must_use]
    pub fn can_open(&self, boards: &[BoardName]) -> bool {
        // Every store has a board: a memory without any has not heard of it yet.
        !self.boards.is_empty() && boards.iter().all(|board| self.boards.contains_key(board))
    }

    /// Creates tails for this store epoch, without boards; each keeps at most `posts_max` posts.
    #[must_use]
    pub const fn new(epoch: StoreEpoch, posts_max: usize) -> Self {
        Self { epoch, boards: BTreeMap::new(), posts_max, as_of_ms: 0 }
    }

    /// Returns the store epoch of all sequence numbers.
    #[must_use]
    pub const fn epoch(&self) -> StoreEpoch {
        self.epoch
    }

    /// Returns the newest store time up to which all boards were complete here, in milliseconds.
    #[must_use]
    pub const fn as_of_ms(&self) -> u64 {
        self.as_of_ms
    }

    /// Compares the tails with the store's boards. The tail of an unknown board begins at the
    /// board's end; older posts are read from the store once a reader needs them.
    pub fn on_boards(&mut self, read: &Boards) -> BoardChanges {
        let mut noted = BoardChanges::default();
        if read.epoch < self.epoch {
            return noted;
        }
        if read.epoch > self.epoch {
            *self = Self::new(read.epoch, self.posts_max);
            noted.new_epoch = true;
        }
        for (board, last) in &read.boards {
            match self.boards.get(board) {
                Some(tail) if tail.last() < *last => {
                    noted.behind.push((board.clone(), tail.last()));
                }
                Some(_) => {}
                None if self.boards.len() < BOARDS_MAX => {
                    let tail = Tail { base: *last, posts: VecDeque::new() };
                    self.boards.insert(board.clone(), tail);
                    noted.new_boards.push(board.clone());
                }
                None => {}
            }
        }
        // `as_of_ms` promises every post written by then, so it waits while a board lacks some.
        if noted.behind.is_empty() {
            self.as_of_ms = self.as_of_ms.max(read.as_of_ms);
        }
        noted
    }

    /// Adds a board that was created. Returns whether it was unknown.
    pub fn on_created(&mut self, board: &BoardName) -> bool {
        let is_new = !self.boards.contains_key(board) && self.boards.len() < BOARDS_MAX;
        if is_new {
            self.boards.insert(board.clone(), Tail::default());
        }
        is_new
    }

    /// Appends the posts that are new, as told by a worker, a peer or the store.
    pub fn apply(&mut self, epoch: StoreEpoch, board: &BoardName, posts: &[Post]) -> TailChange {
        if epoch != self.epoch {
            return if epoch < self.epoch { TailChange::OldEpoch } else { TailChange::NewEpoch };
        }
        let Some(first) = posts.first() else { return TailChange::Duplicate };
        let gapless = posts.windows(2).all(|pair| pair[0].seq.next() == pair[1].seq)
            && posts.iter().all(|post| post.board == *board);
        if !gapless || first.seq == Seq(0) {
            return TailChange::Malformed;
        }
        let is_known = self.boards.contains_key(board);
        if !is_known && self.boards.len() >= BOARDS_MAX {
            return TailChange::Malformed;
        }
        // First update of an unknown board: its tail starts here.
        let before = Seq(first.seq.0 - 1);
        let tail = self
            .boards
            .entry(board.clone())
            .or_insert_with(|| Tail { base: before, posts: VecDeque::new() });
        let have = tail.last();
        if first.seq > have.next() {
            return TailChange::Gap { have, want: first.seq };
        }
        let new = posts.iter().filter(|post| post.seq > have);
        tail.posts.extend(new.map(|post| Shared::new(post.clone())));
        while tail.posts.len() > self.posts_max {
            tail.posts.pop_front();
            tail.base = tail.base.next();
        }
        debug_assert!(tail.posts.iter().zip(tail.base.0 + 1..).all(|(p, n)| p.seq.0 == n));
        let to = tail.last();
        if to > have {
            TailChange::Extended { from: have.next(), to }
        } else {
            TailChange::Duplicate
        }
    }

    /// Puts posts that were read from the store of this epoch before a tail, as many as it has room
    /// for, if they reach up to it. Whoever needs them next finds them in memory.
    pub fn prepend(&mut self, epoch: StoreEpoch, board: &BoardName, posts: &[Shared<Post>]) {
        if epoch != self.epoch {
            return;
        }
        let Some(tail) = self.boards.get_mut(board) else { return };
        let older = posts.partition_point(|post| post.seq <= tail.base);
        for post in posts[..older].iter().rev() {
            let fits = tail.posts.len() < self.posts_max;
            if !fits || post.seq != tail.base || tail.base == Seq(0) || post.board != *board {
                return;
            }
            tail.posts.push_front(post.clone());
            tail.base = Seq(tail.base.0 - 1);
        }
    }

    /// Returns the last sequence number of a board; `None` when the board is unknown.
    #[must_use]
    pub fn last(&self, board: &BoardName) -> Option<Seq> {
        self.boards.get(board).map(Tail::last)
    }

    /// Iterates over all boards with their last sequence numbers, in the order of names.
    pub fn boards(&self) -> impl Iterator<Item = (&BoardName, Seq)> {
        self.boards.iter().map(|(board, tail)| (board, tail.last()))
    }

    /// Returns part of a board, ascending, as much as fits into one page; `None` when not all of it
    /// is in memory: ask the store.
    #[must_use]
    pub fn read(&self, board: &BoardName, range: Range, limit: usize) -> Option<Vec<Shared<Post>>> {
        let tail = self.boards.get(board)?;
        let limit_seq = limit as u64;
        let (after, count) = match range {
            Range::After(seq) => (seq.min(tail.last()), limit),
            Range::Before(seq) => {
                let end = seq.0.saturating_sub(1).min(tail.last().0);
                let count = end.min(limit_seq);
                (Seq(end - count), usize::try_from(count).unwrap_or(limit))
            }
            Range::Last => (Seq(tail.last().0.saturating_sub(limit_seq)), limit),
        };
        if after < tail.base {
            return None;
        }
        // Cut from the end that is far from where the range begins, as the store does.
        let mut posts = tail.after(after, count);
        if let Range::After(_) = range {
            posts.truncate(fitting(posts.iter().map(|post| post_len(post))));
        } else {
            let kept = fitting(posts.iter().rev().map(|post| post_len(post)));
            posts.drain(..posts.len().saturating_sub(kept));
        }
        Some(posts)
    }
}

/// Next delivery of a board to a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// Posts that follow the reader's position; call [`Reader::delivered`] with the last.
    Posts(Vec<Shared<Post>>),
    /// Posts that are not in memory: read the store.
    AskStore {
        /// Sequence number after which to read.
        after: Seq,
    },
    /// No new posts.
    Nothing,
    /// The reader's cursor is invalid: call [`Reader::reset`], then go on.
    Reset(ResetReason),
}

/// Position of one stream in each board that it follows.
#[derive(Clone, Debug)]
pub struct Reader {
    at: Cursor,
}

impl Reader {
    /// Opens a stream of those boards that are known, at most 32. A board that the cursor does
    /// not name begins at its end.
    ///
    /// `read` is a reading of the store's boards that is newer than the cursor. With it, a cursor
    /// beyond both the reading and the tail is invalid; without it, such a cursor only means that
    /// this master is behind, and [`Tails::can_open`] says whether the stream may be opened at all.
    #[must_use]
    pub fn open(
        tails: &Tails,
        boards: &[BoardName],
        cursor: &Result<Option<Cursor>, ()>,
        read: Option<&Boards>,
    ) -> (Self, Option<ResetReason>) {
        let mut at = Cursor { epoch: tails.epoch(), boards: BTreeMap::new() };
        for board in boards {
            if at.boards.len() < Cursor::BOARDS_MAX
                && let Some(last) = tails.last(board)
            {
                at.boards.insert(board.clone(), last);
            }
        }
        let mut reader = Self { at };
        let cursor = match cursor {
            Err(()) => return (reader, Some(ResetReason::Malformed)),
            Ok(None) => return (reader, None),
            Ok(Some(cursor)) if cursor.epoch != tails.epoch() => {
                return (reader, Some(ResetReason::Epoch));
            }
            Ok(Some(cursor)) => cursor,
        };
        let ends = reader.at.boards.clone();
        for (board, place) in &mut reader.at.boards {
            if let Some(shown) = cursor.boards.get(board) {
                *place = *shown;
            }
        }
        let ahead = read.is_some_and(|read| {
            let stored = |board| read.last(board).unwrap_or_default();
            ends.iter().any(|(board, end)| reader.at.boards[board] > stored(board).max(*end))
        });
        if ahead {
            reader.at.boards = ends;
        }
        (reader, ahead.then_some(ResetReason::Ahead))
    }

    /// Returns the stream's cursor, as its event ids carry it.
    #[must_use]
    pub const fn cursor(&self) -> &Cursor {
        &self.at
    }

    /// Returns whether anything is due of any board. Costs less than to ask for it.
    #[must_use]
    pub fn is_due(&self, tails: &Tails) -> bool {
        let is_behind = |(board, place): (&BoardName, &Seq)| {
            tails.boards.get(board).is_some_and(|tail| *place < tail.last())
        };
        self.at.epoch != tails.epoch() || self.at.boards.iter().any(is_behind)
    }

    /// Returns the next delivery of a board, at most `limit` posts.
    #[must_use]
    pub fn due(&self, tails: &Tails, board: &BoardName, limit: usize) -> Due {
        if self.at.epoch != tails.epoch() {
            return Due::Reset(ResetReason::Epoch);
        }
        let (Some(place), Some(tail)) = (self.at.boards.get(board), tails.boards.get(board)) else {
            return Due::Nothing;
        };
        if *place >= tail.last() {
            Due::Nothing
        } else if *place < tail.base {
            Due::AskStore { after: *place }
        } else {
            Due::Posts(tail.after(*place, limit))
        }
    }

    /// Moves the position in a board up to `seq`, the last post delivered. Never moves it back.
    pub fn delivered(&mut self, board: &BoardName, seq: Seq) {
        if let Some(place) = self.at.boards.get_mut(board) {
            *place = seq.max(*place);
        }
    }

    /// Moves the position to the end of each board; boards that are no longer known are dropped.
    pub fn reset(&mut self, tails: &Tails) {
        self.at.epoch = tails.epoch();
        self.at.boards.retain(|board, place| match tails.last(board) {
            Some(last) => {
                *place = last;
                true
            }
            None => false,
        });
    }
}

#[cfg(test)]
mod tests;
