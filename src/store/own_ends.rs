//! Ends of the boards that a node has, and what a store lacks of them.
//!
//! A node has only posts that were committed, so a store of the same epoch that ends before them is an older
//! copy.

#[cfg(feature = "net")]
use std::sync::Weak;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::{
    ids::{BoardName, Resource, Seq, StoreEpoch},
    rows::{Boards, Permission},
    update::Update,
};

/// Ends of the boards as this node has them. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct OwnEnds(Arc<Mutex<Arc<Boards>>>);

impl OwnEnds {
    /// Replaces what the node has by what it has now. In one epoch no board ends earlier than before, and what
    /// is of an earlier epoch was read before the last change.
    pub fn set(&self, mut boards: Boards) {
        let mut ends = self.lock();
        if boards.epoch < ends.epoch {
            return;
        }
        if ends.epoch == boards.epoch {
            for (board, last) in &ends.boards {
                boards.raise(board, *last);
            }
        }
        *ends = Arc::new(boards);
    }

    /// Notes a post that was committed in an epoch.
    pub(super) fn raise(&self, epoch: StoreEpoch, board: &BoardName, seq: Seq) {
        let mut ends = self.lock();
        if ends.epoch == epoch && ends.last(board) < Some(seq) {
            Arc::make_mut(&mut ends).raise(board, seq);
        }
    }

    /// Notes the posts of an update, which were committed.
    pub fn note(&self, update: &Update) {
        if let Update::Posts { epoch, board, posts, .. } = update
            && let Some(last) = posts.last()
        {
            self.raise(*epoch, board, last.seq);
        }
    }

    /// Returns the last post that the node knows of what a permission covers; 0 for none.
    pub(super) fn known(&self, permission: &Permission) -> Seq {
        let ends = self.lock();
        match &permission.resource {
            Resource::Board(board) if ends.epoch == permission.token.epoch => {
                ends.last(board).unwrap_or_default()
            }
            _ => Seq::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Boards>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self) -> Arc<Boards> {
        Arc::clone(&self.lock())
    }
}

/// Ends of all nodes that use a backend, for as long as each lives.
#[cfg(feature = "net")]
#[derive(Debug, Default)]
pub(super) struct OwnEndsOfAll(Mutex<Vec<Weak<Mutex<Arc<Boards>>>>>);

#[cfg(feature = "net")]
impl OwnEndsOfAll {
    /// Adds a node's.
    pub(super) fn add(&self, ends: &OwnEnds) {
        self.lock().push(Arc::downgrade(&ends.0));
    }

    /// Returns what each node has now.
    pub(super) fn get(&self) -> Vec<Arc<Boards>> {
        let mut all = self.lock();
        all.retain(|ends| ends.strong_count() > 0);
        all.iter().filter_map(|ends| Some(OwnEnds(ends.upgrade()?).get())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Mutex<Arc<Boards>>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns what a store lacks of that which a node had before it read; `None` if nothing.
pub(super) fn lack(own: &Boards, read: &Boards) -> Option<String> {
    if own.epoch > read.epoch {
        return Some(format!("it is of epoch {}, and this node saw {}", read.epoch, own.epoch));
    }
    if own.epoch < read.epoch {
        return None;
    }
    own.boards.iter().find_map(|(board, have)| {
        let last = read.last(board).unwrap_or_default();
        (last < *have).then(|| ends_early(board, last, *have))
    })
}

/// Says that a board ends before what a node has of it.
pub(super) fn ends_early(board: &BoardName, last: Seq, known: Seq) -> String {
    format!("its board {board} ends at {last}, and this node has {known}; put the newer file back")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Boards of an epoch: a lobby that ends there.
    pub(in crate::store) fn boards(epoch: u64, lobby: u64) -> Boards {
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
    fn ends_only_rise_in_one_epoch() {
        let ends = OwnEnds::default();
        ends.set(boards(7, 5));
        ends.set(boards(7, 3));
        assert_eq!(ends.get().last(&BoardName::lobby()), Some(Seq(5)));
        ends.raise(StoreEpoch(6), &BoardName::lobby(), Seq(9));
        assert_eq!(ends.get().last(&BoardName::lobby()), Some(Seq(5)), "of an earlier epoch");
        let dev: BoardName = "dev".parse().expect("a name");
        ends.raise(StoreEpoch(7), &dev, Seq(2));
        assert_eq!((ends.get().last(&dev), ends.get().boards.len()), (Some(Seq(2)), 2));
        ends.set(boards(8, 1));
        assert_eq!(ends.get().boards, boards(8, 1).boards);
        ends.set(boards(7, 9));
        assert_eq!(*ends.get(), boards(8, 1), "read before the epoch began");
    }

    #[test]
    fn ends_of_a_node_that_is_gone_count_no_more() {
        let all = OwnEndsOfAll::default();
        let (stays, goes) = (OwnEnds::default(), OwnEnds::default());
        all.add(&stays);
        all.add(&goes);
        stays.set(boards(7, 2));
        goes.set(boards(7, 5));
        assert_eq!(all.get(), [Arc::new(boards(7, 2)), Arc::new(boards(7, 5))]);
        drop(goes);
        assert_eq!(all.get(), [Arc::new(boards(7, 2))]);
    }
}
