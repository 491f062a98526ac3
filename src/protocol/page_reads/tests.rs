use proptest::prelude::*;

use super::*;
use crate::{
    model::{
        ids::{Author, BoardName, Cursor, Post, PostId, SessionKey, StoreEpoch, UserId},
        rows::{Boards, Page, Range},
        shared::Shared,
        stream::Delivery,
    },
    protocol::{
        board::{Reader, Tails},
        streams::Streams,
    },
};

fn board(nth: usize) -> BoardName {
    format!("board-{nth}").parse().expect("a name")
}

fn needed(after: u64) -> StoreRead {
    StoreRead { board: board(0), after: Seq(after) }
}

#[test]
fn streams_that_are_behind_by_about_as_much_share_a_read() {
    let mut pages = PageReads::default();
    let step = u64::from(STEP);
    assert_eq!(pages.add(1, needed(step + 9)), Some(needed(step)));
    assert_eq!(pages.add(2, needed(2 * step - 1)), None);
    assert_eq!(pages.add(3, needed(2 * step)), Some(needed(2 * step)));
    assert_eq!(pages.end(&needed(step)), BTreeSet::from([1, 2]));
    assert_eq!(pages.end(&needed(step)), BTreeSet::new(), "a read ends once");
    assert_eq!(pages.add(1, needed(step)), Some(needed(step)), "it is no longer under way");
}

/// Memory, streams and reads of one master, and the store that it asks.
struct Lab {
    tails: Tails,
    streams: Streams<u64>,
    pages: PageReads<u64>,
    epoch: u64,
    /// Last place of each board in the store.
    ends: Vec<u64>,
    /// Reads under way, with the answer as the store had it when they began.
    running: Vec<(StoreRead, Page)>,
    reads: usize,
    /// Epoch and place up to which each open stream was given each board.
    seen: BTreeMap<u64, Cursor>,
    last_id: u64,
}

impl Lab {
    /// Starts a master: its tails are empty.
    fn new(ends: Vec<u64>, tail_posts_max: usize) -> Self {
        let tails = Tails::new(StoreEpoch(1), tail_posts_max);
        let mut lab = Self {
            tails,
            streams: Streams::default(),
            pages: PageReads::default(),
            epoch: 1,
            ends,
            running: Vec::new(),
            reads: 0,
            seen: BTreeMap::new(),
            last_id: 0,
        };
        lab.poll();
        lab
    }

    fn poll(&mut self) {
        let ends = self.ends.iter().enumerate();
        let boards = ends.map(|(nth, end)| (board(nth), Seq(*end))).collect();
        self.tails.on_boards(&Boards { boards, epoch: StoreEpoch(self.epoch), as_of_ms: 0 });
    }

    fn post(&self, nth: usize, seq: u64) -> Post {
        Post {
            id: PostId([7; 16]),
            board: board(nth),
            seq: Seq(seq),
            author: Author { id: UserId([1; 16]), name: "Ada".parse().expect("a name") },
            text: "hello".parse().expect("a text"),
            // Tells posts of two epochs apart.
            posted_at_ms: self.epoch,
        }
    }

    /// Opens a stream of all boards, so many posts behind each.
    fn open(&mut self, behind: impl Fn(usize) -> u64) -> u64 {
        self.last_id += 1;
        let ends = self.ends.iter().enumerate();
        let places = ends.map(|(nth, end)| (board(nth), Seq(end.saturating_sub(behind(nth)))));
        let cursor = Cursor { epoch: StoreEpoch(self.epoch), boards: places.collect() };
        let boards: Vec<_> = cursor.boards.keys().cloned().collect();
        let (reader, reset) = Reader::open(&self.tails, &boards, &Ok(Some(cursor)), None);
        assert_eq!(reset, None);
        self.seen.insert(self.last_id, reader.cursor().clone());
        let whose = (SessionKey([1; 32]), UserId([1; 16]));
        self.streams.open(self.last_id, whose, reader, None, []);
        self.last_id
    }

    fn feed(&mut self, id: u64) {
        let taken = self.streams.take(id, &self.tails, usize::MAX);
        for delivery in taken.deliveries {
            let seen = self.seen.get_mut(&id).expect("an open stream");
            match delivery {
                Delivery::Post(post) => {
                    let place = seen.boards.get_mut(&post.board).expect("a followed board");
                    assert_eq!(post.seq, place.next(), "{id}: {}", post.board);
                    assert_eq!(post.posted_at_ms, seen.epoch.0, "{id}: {}", post.board);
                    *place = post.seq;
                }
                Delivery::Reset { cursor, .. } => *seen = cursor,
                other => panic!("{other:?}"),
            }
        }
        if let Some(needed) = taken.read {
            self.want(id, needed);
        }
    }

    fn feed_all(&mut self) {
        for id in self.streams.ids() {
            self.feed(id);
        }
    }

    fn want(&mut self, id: u64, needed: StoreRead) {
        let Some(read) = self.pages.add(id, needed) else { return };
        assert!(self.running.iter().all(|(other, _)| *other != read), "invariant 1");
        let nth = (0..self.ends.len()).find(|nth| board(*nth) == read.board).expect("a board");
        let last = self.ends[nth].min(read.after.0 + u64::from(PAGE_POSTS_MAX));
        let posts = (read.after.0 + 1..=last).map(|seq| self.post(nth, seq)).collect();
        let (last_seq, epoch) = (Seq(self.ends[nth]), StoreEpoch(self.epoch));
        self.running.push((read, Page { posts, last_seq, epoch, as_of_ms: 0 }));
        self.reads += 1;
    }

    /// Lets the store answer one of the reads under way.
    fn answer(&mut self, nth: usize) {
        if self.running.is_empty() {
            return;
        }
        let (read, page) = self.running.remove(nth % self.running.len());
        let posts: Vec<_> = page.posts.into_iter().map(Shared::new).collect();
        let waited = self.pages.end(&read);
        self.tails.prepend(page.epoch, &read.board, &posts);
        for id in waited {
            self.streams.on_page(id, &self.tails, &read.board, page.epoch, &posts);
            self.feed(id);
        }
    }

    /// Lets the store be too busy for one of the reads under way.
    fn fail(&mut self, nth: usize) {
        if self.running.is_empty() {
            return;
        }
        let (read, _) = self.running.remove(nth % self.running.len());
        for id in self.pages.end(&read) {
            match self.streams.on_read_failed(id, &self.tails, read.board.clone()) {
                Some(needed) => self.want(id, needed),
                None => self.feed(id),
            }
        }
    }

    /// Lets the store answer all reads, and those that follow from them.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.answer(0);
        }
        assert!(self.running.is_empty() && self.pages.running.is_empty(), "reads come to an end");
    }

    fn commit(&mut self, nth: usize, count: u64) {
        let from = self.ends[nth] + 1;
        self.ends[nth] += count;
        let posts: Vec<_> = (from..from + count).map(|seq| self.post(nth, seq)).collect();
        self.tails.apply(StoreEpoch(self.epoch), &board(nth), &posts);
        for id in self.streams.followers(&board(nth)) {
            self.feed(id);
        }
    }

    fn assert_all_at_the_end(&self) {
        for (id, seen) in &self.seen {
            for (nth, end) in self.ends.iter().enumerate() {
                assert_eq!(seen.boards[&board(nth)], Seq(*end), "stream {id}, board {nth}");
            }
        }
    }
}

const BOARDS: usize = 5;

/// Returns how far the stream is behind a board: one to fifty posts.
fn a_few(stream: u64, nth: usize) -> u64 {
    1 + (stream * 7 + nth as u64 * 13) % 50
}

fn fresh_master() -> Lab {
    Lab::new((0..BOARDS as u64).map(|nth| 1000 + 37 * nth).collect(), 1024)
}

#[test]
fn crowd_that_comes_to_a_fresh_master_at_once_costs_two_reads_per_board() {
    let mut lab = fresh_master();
    for stream in 0..1000 {
        lab.open(|nth| a_few(stream, nth));
    }
    lab.feed_all();
    lab.settle();
    lab.assert_all_at_the_end();
    assert!(lab.reads <= 2 * BOARDS, "{} reads", lab.reads);
}

#[test]
fn crowd_that_comes_one_by_one_costs_two_reads_per_board() {
    let mut lab = fresh_master();
    for stream in 0..1000 {
        let id = lab.open(|nth| a_few(stream, nth));
        lab.feed(id);
        while !lab.running.is_empty() {
            lab.answer(0);
        }
    }
    lab.assert_all_at_the_end();
    assert!(lab.reads <= 2 * BOARDS, "{} reads", lab.reads);
}

#[test]
fn crowd_asks_a_busy_store_no_more_often_than_one_stream() {
    let mut lab = fresh_master();
    for stream in 0..1000 {
        lab.open(|nth| a_few(stream, nth));
    }
    lab.feed_all();
    let before = lab.running.len();
    for _ in 0..10 {
        lab.fail(0);
    }
    assert_eq!(lab.running.len(), before);
    lab.settle();
    lab.assert_all_at_the_end();
    assert!(lab.reads <= 2 * BOARDS + 10, "{} reads", lab.reads);
}

#[derive(Clone, Copy, Debug)]
enum Move {
    Open(u64),
    End(usize),
    Close(usize),
    Answer(usize),
    Fail(usize),
    Commit(usize, u64),
    Epoch,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        6 => (0..400_u64).prop_map(Move::Open),
        1 => (0..50_usize).prop_map(Move::End),
        1 => (0..50_usize).prop_map(Move::Close),
        8 => (0..50_usize).prop_map(Move::Answer),
        2 => (0..50_usize).prop_map(Move::Fail),
        4 => (0..2_usize, 1..60_u64).prop_map(|(nth, count)| Move::Commit(nth, count)),
        1 => Just(Move::Epoch),
    ];
    prop::collection::vec(one, 1..60)
}

proptest! {
    /// Invariants 1 to 3: whatever is asked, ends or comes late, each stream is given exactly the
    /// posts after its cursor, in their order.
    #[test]
    fn shared_pages_leave_nothing_out_and_repeat_nothing(moves in moves(), tail in 1..200_usize) {
        let mut lab = Lab::new(vec![300, 90], tail);
        for one in moves {
            let chosen = |nth: usize| lab.seen.keys().nth(nth).copied();
            match one {
                Move::Open(behind) => {
                    let id = lab.open(|nth| behind / (1 + nth as u64));
                    lab.feed(id);
                }
                Move::End(nth) => if let Some(id) = chosen(nth) {
                    lab.streams.end(id);
                    lab.seen.remove(&id);
                },
                Move::Close(nth) => if let Some(id) = chosen(nth) {
                    lab.streams.close(id);
                    lab.seen.remove(&id);
                },
                Move::Answer(nth) => lab.answer(nth),
                Move::Fail(nth) => lab.fail(nth),
                Move::Commit(nth, count) => lab.commit(nth, count),
                Move::Epoch => {
                    lab.epoch += 1;
                    for end in &mut lab.ends {
                        *end -= *end / 3;
                    }
                    lab.poll();
                    lab.feed_all();
                }
            }
            for (nth, end) in lab.ends.iter().enumerate() {
                prop_assert_eq!(lab.tails.last(&board(nth)), Some(Seq(*end)));
                let too_many = lab.tails.read(&board(nth), Range::Last, tail + 1);
                prop_assert!(too_many.is_none_or(|posts| posts.len() <= tail));
            }
        }
        lab.settle();
        lab.assert_all_at_the_end();
    }
}
