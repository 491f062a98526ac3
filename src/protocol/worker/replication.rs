//! How news reaches the node database: in groups, and by repair where some is missing.
//!
//! 1. A group is up to [`GROUP_POSTS`] posts; none waits longer than [`GROUP_WAIT`]. One group
//!    is written at a time.
//! 2. A board that lacks posts is asked for after [`REPAIR_GRACE`], in which the missing may
//!    still arrive; again and again until it is whole, in vain once a second. At most
//!    [`REPAIRS_MAX`] boards are asked for at a time.
//! 3. What the queue has no room for is dropped, and its board asked for later.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use crate::model::{ids::BoardName, message::Update, time::Mono};

/// Posts of one group.
pub const GROUP_POSTS: usize = 64;
/// The longest wait of a piece of news.
pub const GROUP_WAIT: Duration = Duration::from_millis(250);
/// Pieces of news of one group that are no posts.
const GROUP_OTHERS: usize = 256;
/// Posts and other pieces that wait to be written.
const QUEUE_MAX: usize = 4096;
/// How long a board may lack posts before they are asked for.
pub const REPAIR_GRACE: Duration = Duration::from_millis(200);
/// Between two repairs of a board in vain.
const REPAIR_RETRY: Duration = Duration::from_secs(1);
/// Boards that are asked for at a time.
pub const REPAIRS_MAX: usize = 4;
/// Boards that lack posts; the others are found again by the next reading of the store.
const LACKING_MAX: usize = 1024;

#[derive(Clone, Copy, Debug)]
struct Lack {
    due: Mono,
    asking: bool,
}

/// The news on its way to the node database.
#[derive(Clone, Debug, Default)]
pub struct Replication {
    queue: VecDeque<Update>,
    /// Its posts, and one for each other piece.
    weight: usize,
    since: Option<Mono>,
    /// Boards of the group that is being written.
    writing: Option<BTreeSet<BoardName>>,
    lacking: BTreeMap<BoardName, Lack>,
}

fn weight(news: &Update) -> usize {
    match news {
        Update::Posts { posts, .. } => posts.len(),
        _ => 1,
    }
}

impl Replication {
    /// Update of posts, boards or sessions arrived, or is this worker's own doing.
    pub fn on_update(&mut self, now: Mono, news: Update) {
        if self.weight + weight(&news) > QUEUE_MAX {
            if let Update::Posts { board, .. } = news {
                self.on_gap(now, board);
            }
            return;
        }
        self.weight += weight(&news);
        self.since.get_or_insert(now);
        self.queue.push_back(news);
    }

    /// A board was seen to lack posts.
    pub fn on_gap(&mut self, now: Mono, board: BoardName) {
        if self.lacking.len() < LACKING_MAX || self.lacking.contains_key(&board) {
            let fresh = Lack { due: now + REPAIR_GRACE, asking: false };
            self.lacking.entry(board).or_insert(fresh);
        }
    }

    /// The next group, if it is time; write it, then say [`Replication::on_written`].
    pub fn next_group(&mut self, now: Mono) -> Option<Vec<Update>> {
        let due = self.group_due().is_some_and(|due| due <= now);
        if !due {
            return None;
        }
        let (mut group, mut boards, mut posts) = (Vec::new(), BTreeSet::new(), 0);
        while posts < GROUP_POSTS && group.len() < GROUP_OTHERS {
            let Some(news) = self.queue.pop_front() else { break };
            self.weight -= weight(&news);
            if let Update::Posts { board, posts: more, .. } = &news {
                boards.insert(board.clone());
                posts += more.len();
            }
            group.push(news);
        }
        self.since = (!self.queue.is_empty()).then_some(now);
        self.writing = Some(boards);
        Some(group)
    }

    /// The group was written, or not, and these boards lack posts.
    pub fn on_written(&mut self, now: Mono, written: bool, gaps: Vec<BoardName>) {
        let boards = self.writing.take().unwrap_or_default();
        let lost = boards.into_iter().filter(|_| !written);
        for board in lost.chain(gaps) {
            self.on_gap(now, board);
        }
    }

    /// The next board to be asked for, if it is time; then say [`Replication::on_repaired`].
    pub fn next_repair(&mut self, now: Mono) -> Option<BoardName> {
        if self.lacking.values().filter(|lack| lack.asking).count() >= REPAIRS_MAX {
            return None;
        }
        let due = |lack: &Lack| !lack.asking && lack.due <= now;
        let (board, lack) =
            self.lacking.iter_mut().filter(|(_, lack)| due(lack)).min_by_key(|(_, l)| l.due)?;
        lack.asking = true;
        Some(board.clone())
    }

    /// A repair ended: whether it brought posts, and whether the board still lacks some.
    pub fn on_repaired(&mut self, now: Mono, board: &BoardName, progress: bool, lacks: bool) {
        if !lacks {
            self.lacking.remove(board);
        } else if let Some(lack) = self.lacking.get_mut(board) {
            lack.asking = false;
            lack.due = if progress { now } else { now + REPAIR_RETRY };
        }
    }

    fn group_due(&self) -> Option<Mono> {
        let since = self.since.filter(|_| self.writing.is_none())?;
        Some(if self.weight >= GROUP_POSTS { since } else { since + GROUP_WAIT })
    }

    /// When a group or a repair is due next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        let asking = self.lacking.values().filter(|lack| lack.asking).count();
        let repair = self
            .lacking
            .values()
            .filter(|lack| !lack.asking && asking < REPAIRS_MAX)
            .map(|lack| lack.due)
            .min();
        self.group_due().into_iter().chain(repair).min()
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
    fn a_group_is_full_or_a_quarter_second_old_and_alone() {
        let mut news = Replication::default();
        news.on_update(at(0), posts(1, 3));
        assert_eq!((news.next_group(at(249)), news.next_deadline()), (None, Some(at(250))));
        assert_eq!(news.next_group(at(250)).map(|g| g.len()), Some(1));
        news.on_update(at(251), posts(4, 64));
        assert_eq!((news.next_group(at(600)), news.next_deadline()), (None, None));
        news.on_written(at(600), true, vec![]);
        assert_eq!(news.next_group(at(600)).map(|g| g.len()), Some(1));
    }

    #[test]
    fn a_gap_is_asked_for_after_its_grace_until_it_is_whole() {
        let (mut news, lobby) = (Replication::default(), BoardName::lobby());
        news.on_update(at(0), posts(5, 1));
        news.next_group(at(250));
        news.on_written(at(260), true, vec![lobby.clone()]);
        assert_eq!((news.next_repair(at(459)), news.next_deadline()), (None, Some(at(460))));
        assert_eq!(news.next_repair(at(460)), Some(lobby.clone()));
        assert_eq!((news.next_repair(at(461)), news.next_deadline()), (None, None));
        news.on_repaired(at(470), &lobby, true, true);
        assert_eq!(news.next_repair(at(470)), Some(lobby.clone()));
        news.on_repaired(at(480), &lobby, false, true);
        assert_eq!(news.next_deadline(), Some(at(1480)));
        assert_eq!(news.next_repair(at(1480)), Some(lobby.clone()));
        news.on_repaired(at(1490), &lobby, true, false);
        assert_eq!(news.next_deadline(), None);
    }

    #[test]
    fn a_group_that_was_not_written_is_repaired() {
        let mut news = Replication::default();
        news.on_update(at(0), posts(1, 1));
        news.next_group(at(250));
        news.on_written(at(260), false, vec![]);
        assert_eq!(news.next_repair(at(460)), Some(BoardName::lobby()));
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_once_in_order_or_its_board_is_asked_for(
            steps in proptest::collection::vec((0..300_u64, 0..100_u64, any::<bool>()), 0..120),
        ) {
            let mut news = Replication::default();
            let (mut now, mut next, mut seen, mut writing) = (0, 1, 0, false);
            for (pass, count, writes) in steps {
                now += pass;
                let before = news.weight;
                news.on_update(at(now), posts(next, count));
                prop_assert!(news.weight <= QUEUE_MAX);
                if news.weight == before && count > 0 {
                    prop_assert!(news.lacking.contains_key(&BoardName::lobby()));
                }
                next += count;
                if let Some(group) = news.next_group(at(now)) {
                    prop_assert!(!writing);
                    writing = true;
                    for news in group {
                        let Update::Posts { posts, .. } = news else { panic!("posts only") };
                        for post in posts {
                            prop_assert!(post.seq.0 > seen);
                            seen = post.seq.0;
                        }
                    }
                }
                if writes {
                    writing = false;
                    news.on_written(at(now), true, vec![]);
                }
            }
        }
    }
}
