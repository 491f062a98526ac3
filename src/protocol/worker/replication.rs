//! Replication into the node database: updates in groups, and repair of boards that lack posts.
//!
//! 1. A group is complete with [`GROUP_POSTS`] posts, or when its first update has waited for
//!    [`GROUP_WAIT`]. One group is written at a time.
//! 2. A board that lacks posts is repaired after [`REPAIR_GRACE`], in which they may still arrive.
//!    Repairs go on until no post is missing, one a second while they bring none. At most
//!    [`REPAIRS_MAX`] boards are repaired at a time.
//! 3. Posts that the queue has no room for are dropped, and their board is repaired later.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use crate::model::{ids::BoardName, message::Update, time::Mono};

/// Posts that complete a group. A transaction writes each page of the database that it changes once:
/// where hundreds of boards are busy, a small group changes a page for nearly each of its posts.
pub const GROUP_POSTS: usize = 1024;
/// Longest time for which an update waits for its group to be complete.
pub const GROUP_WAIT: Duration = Duration::from_millis(250);
/// Most updates of one group.
const GROUP_UPDATES_MAX: usize = 2 * GROUP_POSTS;
/// Most posts and other updates that wait to be written.
const QUEUE_MAX: usize = 4096;
/// Time between the first sign that a board lacks posts and its repair.
pub const REPAIR_GRACE: Duration = Duration::from_millis(200);
/// Wait after a repair that brought no posts.
const REPAIR_RETRY: Duration = Duration::from_secs(1);
/// Most boards that are repaired at a time.
pub const REPAIRS_MAX: usize = 4;
/// Most boards noted as lacking posts; the next reading of the store finds the others again.
const GAPS_MAX: usize = 1024;

#[derive(Clone, Copy, Debug)]
struct Gap {
    due: Mono,
    repairing: bool,
}

/// Updates on their way to the node database, and boards to repair.
#[derive(Clone, Debug, Default)]
pub struct Replication {
    queue: VecDeque<Update>,
    /// Number of posts in the queue, plus one for each other update.
    weight: usize,
    /// Time since which the first update waits for its group.
    since: Option<Mono>,
    /// Boards of the group that is being written.
    writing: Option<BTreeSet<BoardName>>,
    gaps: BTreeMap<BoardName, Gap>,
}

fn weight(update: &Update) -> usize {
    match update {
        Update::Posts { posts, .. } => posts.len(),
        _ => 1,
    }
}

impl Replication {
    /// Queues an update of posts, boards or sessions, from the master or from this worker.
    pub fn on_update(&mut self, now: Mono, update: Update) {
        if self.weight + weight(&update) > QUEUE_MAX {
            if let Update::Posts { board, .. } = update {
                self.on_gap(now, board);
            }
            return;
        }
        self.weight += weight(&update);
        self.since.get_or_insert(now);
        self.queue.push_back(update);
    }

    /// Notes that a board lacks posts.
    pub fn on_gap(&mut self, now: Mono, board: BoardName) {
        if self.gaps.len() < GAPS_MAX || self.gaps.contains_key(&board) {
            let fresh = Gap { due: now + REPAIR_GRACE, repairing: false };
            self.gaps.entry(board).or_insert(fresh);
        }
    }

    /// Takes the next group if it is due; write it, then call [`Replication::on_written`].
    pub fn next_group(&mut self, now: Mono) -> Option<Vec<Update>> {
        let due = self.group_due().is_some_and(|due| due <= now);
        if !due {
            return None;
        }
        let (mut group, mut boards, mut posts) = (Vec::new(), BTreeSet::new(), 0);
        while posts < GROUP_POSTS && group.len() < GROUP_UPDATES_MAX {
            let Some(update) = self.queue.pop_front() else { break };
            self.weight -= weight(&update);
            if let Update::Posts { board, posts: more, .. } = &update {
                boards.insert(board.clone());
                posts += more.len();
            }
            group.push(update);
        }
        self.since = (!self.queue.is_empty()).then_some(now);
        self.writing = Some(boards);
        Some(group)
    }

    /// Ends the write of a group; `gaps` are boards that lack posts.
    pub fn on_written(&mut self, now: Mono, written: bool, gaps: Vec<BoardName>) {
        let boards = self.writing.take().unwrap_or_default();
        let lost = boards.into_iter().filter(|_| !written);
        for board in lost.chain(gaps) {
            self.on_gap(now, board);
        }
    }

    /// Returns the next board to repair, if one is due; then call [`Replication::on_repaired`].
    pub fn next_repair(&mut self, now: Mono) -> Option<BoardName> {
        if self.gaps.values().filter(|gap| gap.repairing).count() >= REPAIRS_MAX {
            return None;
        }
        let due = |gap: &Gap| !gap.repairing && gap.due <= now;
        let (board, gap) =
            self.gaps.iter_mut().filter(|(_, gap)| due(gap)).min_by_key(|(_, l)| l.due)?;
        gap.repairing = true;
        Some(board.clone())
    }

    /// Ends a repair: `progress` if it brought posts, `lacks` if the board still lacks some.
    pub fn on_repaired(&mut self, now: Mono, board: &BoardName, progress: bool, lacks: bool) {
        if !lacks {
            self.gaps.remove(board);
        } else if let Some(gap) = self.gaps.get_mut(board) {
            gap.repairing = false;
            gap.due = if progress { now } else { now + REPAIR_RETRY };
        }
    }

    /// Returns the time at which the next group is due.
    #[must_use]
    pub fn group_due(&self) -> Option<Mono> {
        let since = self.since.filter(|_| self.writing.is_none())?;
        Some(if self.weight >= GROUP_POSTS { since } else { since + GROUP_WAIT })
    }

    /// Returns the time at which the next repair is due.
    #[must_use]
    pub fn repair_due(&self) -> Option<Mono> {
        let repairing = self.gaps.values().filter(|gap| gap.repairing).count();
        self.gaps
            .values()
            .filter(|gap| !gap.repairing && repairing < REPAIRS_MAX)
            .map(|gap| gap.due)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::ids::{Author, Post, PostId, Seq, StoreEpoch, UserId};

    fn at(ms: u64) -> Mono {
        Mono::ZERO + Duration::from_millis(ms)
    }

    fn posts(n: u64, count: u64) -> Update {
        let board = BoardName::lobby();
        let post = |seq| Post {
            id: PostId([0; 16]),
            board: board.clone(),
            seq: Seq(seq),
            author: Author { id: UserId([1; 16]), name: "ann".parse().expect("a name") },
            text: "hello".parse().expect("a text"),
            posted_at_ms: 0,
        };
        let posts = (n..n + count).map(post).collect();
        Update::Posts { epoch: StoreEpoch(1), board: board.clone(), posts, as_of_ms: 0 }
    }

    #[test]
    fn group_is_due_when_full_or_a_quarter_second_old_and_after_the_one_being_written() {
        let mut replication = Replication::default();
        replication.on_update(at(0), posts(1, 3));
        assert_eq!(
            (replication.next_group(at(249)), replication.group_due()),
            (None, Some(at(250)))
        );
        assert_eq!(replication.next_group(at(250)).map(|g| g.len()), Some(1));
        replication.on_update(at(251), posts(4, GROUP_POSTS as u64));
        assert_eq!((replication.next_group(at(600)), replication.group_due()), (None, None));
        replication.on_written(at(600), true, vec![]);
        assert_eq!(replication.next_group(at(600)).map(|g| g.len()), Some(1));
    }

    #[test]
    fn board_with_a_gap_is_repaired_after_its_grace_until_it_is_whole() {
        let (mut replication, lobby) = (Replication::default(), BoardName::lobby());
        replication.on_update(at(0), posts(5, 1));
        replication.next_group(at(250));
        replication.on_written(at(260), true, vec![lobby.clone()]);
        assert_eq!(
            (replication.next_repair(at(459)), replication.repair_due()),
            (None, Some(at(460)))
        );
        assert_eq!(replication.next_repair(at(460)), Some(lobby.clone()));
        assert_eq!((replication.next_repair(at(461)), replication.repair_due()), (None, None));
        replication.on_repaired(at(470), &lobby, true, true);
        assert_eq!(replication.next_repair(at(470)), Some(lobby.clone()));
        replication.on_repaired(at(480), &lobby, false, true);
        assert_eq!(replication.repair_due(), Some(at(1480)));
        assert_eq!(replication.next_repair(at(1480)), Some(lobby.clone()));
        replication.on_repaired(at(1490), &lobby, true, false);
        assert_eq!(replication.repair_due(), None);
    }

    #[test]
    fn board_of_a_failed_write_is_repaired() {
        let mut replication = Replication::default();
        replication.on_update(at(0), posts(1, 1));
        replication.next_group(at(250));
        replication.on_written(at(260), false, vec![]);
        assert_eq!(replication.next_repair(at(460)), Some(BoardName::lobby()));
    }

    proptest! {
        #[test]
        fn posts_are_written_once_in_order_or_their_board_is_repaired(
            steps in proptest::collection::vec((0..300_u64, 0..600_u64, any::<bool>()), 0..120),
        ) {
            let mut replication = Replication::default();
            let (mut now, mut next, mut seen, mut writing) = (0, 1, 0, false);
            for (pass, count, writes) in steps {
                now += pass;
                let before = replication.weight;
                replication.on_update(at(now), posts(next, count));
                prop_assert!(replication.weight <= QUEUE_MAX);
                if replication.weight == before && count > 0 {
                    prop_assert!(replication.gaps.contains_key(&BoardName::lobby()));
                }
                next += count;
                if let Some(group) = replication.next_group(at(now)) {
                    prop_assert!(!writing);
                    writing = true;
                    for update in group {
                        let Update::Posts { posts, .. } = update else { panic!("posts only") };
                        for post in posts {
                            prop_assert!(post.seq.0 > seen);
                            seen = post.seq.0;
                        }
                    }
                }
                if writes {
                    writing = false;
                    replication.on_written(at(now), true, vec![]);
                }
            }
        }
    }
}
