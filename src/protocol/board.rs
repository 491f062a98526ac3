//! The ends of all boards as a master keeps them in memory, and readers' places in them.
//!
//! ```text
//!   1 .. base | base+1 .. last |            the tail of one board
//!   the store |   in memory    | a gap is asked for before anything after it is taken
//! ```
//!
//! 1. A tail is gapless: it holds exactly the posts `base+1..=last`, at most `posts_max`.
//! 2. All places are of one store epoch; a new one empties every tail.
//! 3. A reader is given a board's posts in order, each once; a hole is a reset first.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use crate::model::{
    ids::{BoardName, Cursor, Post, Seq, StoreEpoch},
    rows::{Boards, Range},
    stream::ResetReason,
};

/// The most boards of a cluster; the store refuses more.
pub const BOARDS_MAX: usize = 1000;

/// What became of posts that were told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TailChange {
    /// The tail goes on to `to`; `from` is the first that is new.
    Extended {
        /// The first new place.
        from: Seq,
        /// The last place now.
        to: Seq,
    },
    /// All of them were known; nothing changed.
    Duplicate,
    /// Posts between are missing; nothing changed. Ask for those after `have`, below `want`.
    Gap {
        /// The last place known.
        have: Seq,
        /// The first place told.
        want: Seq,
    },
    /// The places are of a store epoch that is over; nothing changed.
    OldEpoch,
    /// The places are of a newer store epoch; nothing changed. Read the boards.
    NewEpoch,
    /// Not ascending and gapless, or of several boards, or one board too many; nothing changed.
    Malformed,
}

/// What a reading of the store's boards showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BoardChanges {
    /// The store epoch is a new one: all tails were emptied.
    pub new_epoch: bool,
    /// Boards that were not known, in the order of names.
    pub new_boards: Vec<BoardName>,
    /// Boards whose tails lack posts after the place given.
    pub behind: Vec<(BoardName, Seq)>,
}

#[derive(Clone, Debug, Default)]
struct Tail {
    /// The last place that is not in memory.
    base: Seq,
    posts: VecDeque<Arc<Post>>,
}

impl Tail {
    fn last(&self) -> Seq {
        Seq(self.base.0 + self.posts.len() as u64)
    }

    /// The posts after `after`, which is not below the base.
    fn after(&self, after: Seq, limit: usize) -> Vec<Arc<Post>> {
        let skip = usize::try_from(after.0 - self.base.0).unwrap_or(usize::MAX);
        self.posts.iter().skip(skip).take(limit).cloned().collect()
    }
}

/// The tails of all boards.
#[derive(Clone, Debug)]
pub struct Tails {
    epoch: StoreEpoch,
    boards: BTreeMap<BoardName, Tail>,
    posts_max: usize,
    as_of_ms: u64,
}

impl Tails {
    /// Knows no board of this store epoch; keeps at most `posts_max` posts of each.
    #[must_use]
    pub const fn new(epoch: StoreEpoch, posts_max: usize) -> Self {
        Self { epoch, boards: BTreeMap::new(), posts_max, as_of_ms: 0 }
    }

    /// The store epoch of all places.
    #[must_use]
    pub const fn epoch(&self) -> StoreEpoch {
        self.epoch
    }

    /// Store time up to which all boards were known, as last told.
    #[must_use]
    pub const fn as_of_ms(&self) -> u64 {
        self.as_of_ms
    }

    /// The store was read. A board that was not known begins at its end; older posts are the
    /// store's to give.
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
        // A promise of all that was there by then: not while a board lacks some of it.
        if noted.behind.is_empty() {
            self.as_of_ms = self.as_of_ms.max(read.as_of_ms);
        }
        noted
    }

    /// A board was created. Whether it was not known.
    pub fn on_created(&mut self, board: &BoardName) -> bool {
        let is_new = !self.boards.contains_key(board) && self.boards.len() < BOARDS_MAX;
        if is_new {
            self.boards.insert(board.clone(), Tail::default());
        }
        is_new
    }

    /// Posts were told of, by a worker, a peer or the store.
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
        // Told of before it was heard of: it begins where this does.
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
        tail.posts.extend(new.map(|post| Arc::new(post.clone())));
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

    /// The last place of a board; `None` when it is not known.
    #[must_use]
    pub fn last(&self, board: &BoardName) -> Option<Seq> {
        self.boards.get(board).map(Tail::last)
    }

    /// All boards with their last places, in the order of names.
    pub fn boards(&self) -> impl Iterator<Item = (&BoardName, Seq)> {
        self.boards.iter().map(|(board, tail)| (board, tail.last()))
    }

    /// Part of a board, ascending, if all of it is in memory; else ask the store.
    #[must_use]
    pub fn read(&self, board: &BoardName, range: Range, limit: usize) -> Option<Vec<Arc<Post>>> {
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
        (after >= tail.base).then(|| tail.after(after, count))
    }
}

/// What a reader is to be given next of a board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// These, ascending from its place; call [`Reader::delivered`] with the last.
    Posts(Vec<Arc<Post>>),
    /// Posts that are not in memory: read the store after this place.
    AskStore {
        /// Its place.
        after: Seq,
    },
    /// Nothing new.
    Nothing,
    /// Its places mean nothing any more: [`Reader::reset`], then go on.
    Reset(ResetReason),
}

/// One stream's place in each board that it follows.
#[derive(Clone, Debug)]
pub struct Reader {
    at: Cursor,
}

impl Reader {
    /// Begins a stream of the boards that are known, at most 32. A board that the cursor does
    /// not name begins at its end. `read` is what the store said after the cursor was shown: a
    /// place past that and past the tail's end is an error. Without it, it is a sign that this
    /// memory is behind.
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

    /// Its places, as the stream's ids say them.
    #[must_use]
    pub const fn cursor(&self) -> &Cursor {
        &self.at
    }

    /// What to give it next of a board, at most `limit` posts.
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

    /// It was given a board's posts up to `seq`. Never goes back.
    pub fn delivered(&mut self, board: &BoardName, seq: Seq) {
        if let Some(place) = self.at.boards.get_mut(board) {
            *place = seq.max(*place);
        }
    }

    /// Goes on from the end of each board that it follows and that is still known.
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
