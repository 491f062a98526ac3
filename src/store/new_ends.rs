//! Ends of boards that somebody wrote to lately, on their way to one reader.
//!
//! They are a hint: what is lost, late or wrong costs a read of the store or a wait for the next poll,
//! and nothing else.
//!
//! 1. Of each board only the greatest end waits, and at most [`BOARDS_MAX`] boards do, however seldom
//!    the reader looks.
//! 2. Adding never waits.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

use crate::model::{
    bounds::BOARDS_MAX,
    ids::{BoardName, Seq},
};

/// Last places of boards.
pub type Ends = BTreeMap<BoardName, Seq>;

/// Ends that wait for one reader. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct NewEnds(Arc<Waiting>);

#[derive(Default)]
struct Waiting {
    ends: Mutex<Ends>,
    added: Notify,
}

impl fmt::Debug for NewEnds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewEnds")
    }
}

impl NewEnds {
    /// Adds ends, and wakes the reader if there are any.
    pub fn add(&self, new: impl IntoIterator<Item = (BoardName, Seq)>) {
        let mut ends = self.0.ends.lock().unwrap_or_else(PoisonError::into_inner);
        merge(&mut ends, new);
        let some = !ends.is_empty();
        drop(ends);
        if some {
            self.0.added.notify_one();
        }
    }

    /// Waits until there are ends, and takes them. It may be dropped at any time without loss.
    pub async fn next(&self) -> Ends {
        loop {
            let ends =
                std::mem::take(&mut *self.0.ends.lock().unwrap_or_else(PoisonError::into_inner));
            if !ends.is_empty() {
                return ends;
            }
            self.0.added.notified().await;
        }
    }

    /// Returns whether nobody else holds these ends any more.
    #[cfg(feature = "net")]
    pub(super) fn is_forsaken(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

/// Keeps the greater end of each board, and of new boards as many as there is room for.
pub fn merge(ends: &mut Ends, new: impl IntoIterator<Item = (BoardName, Seq)>) {
    for (board, seq) in new {
        if let Some(end) = ends.get_mut(&board) {
            *end = seq.max(*end);
        } else if ends.len() < BOARDS_MAX {
            ends.insert(board, seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn board(n: usize) -> BoardName {
        format!("board-{n}").parse().expect("a name")
    }

    #[test]
    fn reader_gets_the_greatest_end_of_each_board_once() {
        let ends = NewEnds::default();
        assert_eq!(ends.next().now_or_never(), None, "nobody wrote");
        ends.add([(board(1), Seq(3)), (board(2), Seq(1))]);
        ends.add([(board(1), Seq(2)), (board(2), Seq(4))]);
        let both = Ends::from([(board(1), Seq(3)), (board(2), Seq(4))]);
        assert_eq!(ends.next().now_or_never(), Some(both));
        assert_eq!(ends.next().now_or_never(), None, "they were taken");
    }

    #[test]
    fn boards_above_the_bound_are_left_to_the_poll() {
        let ends = NewEnds::default();
        ends.add((0..BOARDS_MAX + 5).map(|n| (board(n), Seq(1))));
        ends.add([(board(0), Seq(2))]);
        let taken = ends.next().now_or_never().expect("there are some");
        assert_eq!((taken.len(), taken[&board(0)]), (BOARDS_MAX, Seq(2)));
    }
}
