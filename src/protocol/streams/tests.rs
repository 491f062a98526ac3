use std::iter;

use proptest::prelude::*;

use super::*;
use crate::{
    model::{
        ids::{Author, Cursor, PostId, UserId},
        rows::{Boards, Page},
        stream::{PRESENCE_MAX, ResetReason},
        time::Mono,
    },
    protocol::active_list::ActiveList,
};

const SESSION: SessionKey = SessionKey([1; 32]);
const ANN: UserId = UserId([1; 16]);

fn post(board: &str, seq: u64) -> Post {
    Post {
        id: PostId([7; 16]),
        board: board.parse().expect("a name"),
        seq: Seq(seq),
        author: Author { id: UserId([1; 16]), name: "Ada".parse().expect("a name") },
        text: "hello".parse().expect("a text"),
        posted_at_ms: seq,
    }
}

fn posts(board: &str, range: std::ops::RangeInclusive<u64>) -> Vec<Post> {
    range.map(|seq| post(board, seq)).collect()
}

fn page(board: &str, range: std::ops::RangeInclusive<u64>) -> Page {
    let posts = posts(board, range);
    Page { last_seq: Seq(1000), posts, epoch: StoreEpoch(1), as_of_ms: 0 }
}

fn boards(epoch: u64, ends: &[(&str, u64)]) -> Boards {
    let ends = ends.iter().map(|(name, end)| (name.parse().expect("a name"), Seq(*end)));
    Boards { boards: ends.collect(), epoch: StoreEpoch(epoch), as_of_ms: 0 }
}

/// Memory and streams of one master: the tails keep 200 posts of a board.
struct Lab {
    tails: Tails,
    streams: Streams<u64>,
}

impl Lab {
    fn new(ends: &[(&str, u64)]) -> Self {
        let mut tails = Tails::new(StoreEpoch(1), 200);
        tails.on_boards(&boards(1, ends));
        Self { tails, streams: Streams::default() }
    }

    fn open(&mut self, id: u64, names: &[&str], cursor: &str) {
        let names: Vec<BoardName> = names.iter().map(|name| name.parse().expect("one")).collect();
        let cursor = Ok(Some(cursor.parse::<Cursor>().expect("a cursor")));
        let (reader, _) = Reader::open(&self.tails, &names, &cursor, None);
        self.streams.open(id, (SESSION, ANN), reader, None, []);
    }

    fn commit(&mut self, board: &str, range: std::ops::RangeInclusive<u64>) {
        let name = board.parse().expect("a name");
        self.tails.apply(self.tails.epoch(), &name, &posts(board, range));
    }

    /// Learns of a reader without room which read of the store it needs.
    fn fill(&mut self, id: u64) -> Option<(String, u64)> {
        let read = self.streams.take(id, &self.tails, 0).read;
        self.streams.on_room(id);
        read.map(|read| (read.board.to_string(), read.after.0))
    }

    fn take(&mut self, id: u64) -> Vec<Delivery> {
        self.streams.take(id, &self.tails, usize::MAX).deliveries
    }

    fn on_page(&mut self, id: u64, board: &str, range: std::ops::RangeInclusive<u64>) {
        self.give(id, &board.parse().expect("a name"), page(board, range));
    }

    fn give(&mut self, id: u64, board: &BoardName, page: Page) {
        let posts: Vec<_> = page.posts.into_iter().map(Shared::new).collect();
        self.streams.on_page(id, &self.tails, board, page.epoch, &posts);
    }

    /// Takes all that is due to a reader: the places of posts.
    fn seqs(&mut self, id: u64) -> Vec<u64> {
        self.take(id)
            .into_iter()
            .filter_map(|delivery| match delivery {
                Delivery::Post(post) => Some(post.seq.0),
                _ => None,
            })
            .collect()
    }
}

#[test]
fn reader_with_room_is_given_all_that_is_due_and_one_without_goes_on_when_it_has_some() {
    let mut lab = Lab::new(&[("lobby", 0)]);
    lab.open(1, &["lobby"], "1;lobby:0");
    lab.open(2, &["lobby"], "1;lobby:0");
    lab.commit("lobby", 1..=200);
    assert_eq!(lab.seqs(1), (1..=200).collect::<Vec<_>>(), "more than one backlog");
    let first = lab.streams.take(2, &lab.tails, 150);
    assert_eq!((first.deliveries.len(), first.waits_for_room), (150, true));
    let meanwhile = lab.streams.take(2, &lab.tails, 50);
    assert_eq!(meanwhile, Taken::default(), "room is waited for once");
    assert!(lab.streams.open[&2].backlog.len() <= BACKLOG_MAX);
    lab.streams.on_room(2);
    let rest = lab.streams.take(2, &lab.tails, 50);
    assert_eq!((rest.deliveries.len(), rest.waits_for_room), (50, false));
}

#[test]
fn posts_out_of_memory_are_read_from_the_store_page_by_page() {
    let mut lab = Lab::new(&[("lobby", 300)]);
    lab.commit("lobby", 301..=301);
    lab.open(1, &["lobby"], "1;lobby:100");
    assert_eq!(lab.fill(1), Some(("lobby".to_owned(), 100)));
    assert_eq!(lab.fill(1), None, "one read is under way");
    lab.on_page(1, "lobby", 101..=220);
    assert_eq!(lab.fill(1), Some(("lobby".to_owned(), 220)));
    lab.on_page(1, "lobby", 221..=300);
    assert_eq!(lab.seqs(1), (101..=301).collect::<Vec<_>>(), "the rest is in memory");
}

#[test]
fn second_board_waits_for_the_read_of_the_first() {
    let mut lab = Lab::new(&[("dev", 9), ("lobby", 9)]);
    lab.open(1, &["dev", "lobby"], "1;dev:8,lobby:8");
    assert_eq!(lab.fill(1), Some(("dev".to_owned(), 8)));
    lab.on_page(1, "dev", 9..=9);
    assert_eq!(lab.fill(1), Some(("lobby".to_owned(), 8)));
}

#[test]
fn page_that_would_leave_a_gap_is_read_again() {
    let mut lab = Lab::new(&[("lobby", 9)]);
    lab.open(1, &["lobby"], "1;lobby:3");
    assert_eq!(lab.fill(1), Some(("lobby".to_owned(), 3)));
    lab.on_page(1, "lobby", 6..=9);
    assert_eq!(lab.fill(1), Some(("lobby".to_owned(), 3)));
    lab.on_page(1, "lobby", 2..=9);
    assert_eq!(lab.seqs(1), [4, 5, 6, 7, 8, 9], "what it has already is left out");
}

#[test]
fn failed_read_is_repeated_from_the_readers_place() {
    let mut lab = Lab::new(&[("lobby", 9)]);
    lab.open(1, &["lobby"], "1;lobby:3");
    assert!(lab.fill(1).is_some());
    let again = lab.streams.on_read_failed(1, &lab.tails, BoardName::lobby());
    assert_eq!(again, Some(StoreRead { board: BoardName::lobby(), after: Seq(3) }));
    assert_eq!(lab.fill(1), None, "it is still under way");
    lab.streams.end(1);
    assert_eq!(lab.streams.on_read_failed(1, &lab.tails, BoardName::lobby()), None);
    assert_eq!(lab.streams.on_read_failed(2, &lab.tails, BoardName::lobby()), None);
}

#[test]
fn stream_of_a_board_that_a_restored_store_lacks_is_reset_when_its_read_fails() {
    let mut lab = Lab::new(&[("dev", 9)]);
    lab.open(1, &["dev"], "1;dev:3");
    assert_eq!(lab.fill(1), Some(("dev".to_owned(), 3)));
    lab.tails.on_boards(&boards(2, &[("lobby", 4)]));
    assert_eq!(lab.take(1), [], "a page is on its way");
    let dev = "dev".parse().expect("a name");
    assert_eq!(lab.streams.on_read_failed(1, &lab.tails, dev), None);
    let cursor = Cursor { epoch: StoreEpoch(2), boards: BTreeMap::new() };
    assert_eq!(lab.take(1), [Delivery::Reset { reason: ResetReason::Epoch, cursor }]);
    assert_eq!(lab.fill(1), None);
}

#[test]
fn new_store_epoch_replaces_the_backlog_by_a_reset() {
    let mut lab = Lab::new(&[("lobby", 0)]);
    lab.open(1, &["lobby"], "1;lobby:0");
    lab.commit("lobby", 1..=3);
    assert_eq!(lab.fill(1), None);
    lab.tails.on_boards(&boards(2, &[("lobby", 1)]));
    assert_eq!(lab.fill(1), None);
    let cursor = "2;lobby:1".parse().expect("a cursor");
    let reset = Delivery::Reset { reason: ResetReason::Epoch, cursor };
    assert_eq!(lab.take(1), [reset]);
}

#[test]
fn page_of_a_new_epoch_does_not_come_before_its_reset() {
    let mut lab = Lab::new(&[("lobby", 300)]);
    lab.open(1, &["lobby"], "1;lobby:100");
    assert!(lab.fill(1).is_some());
    lab.tails.on_boards(&boards(2, &[("lobby", 300)]));
    let page = Page { epoch: StoreEpoch(2), ..page("lobby", 101..=228) };
    lab.give(1, &BoardName::lobby(), page);
    let cursor = "2;lobby:300".parse().expect("a cursor");
    assert_eq!(lab.take(1), [Delivery::Reset { reason: ResetReason::Epoch, cursor }]);
}

#[test]
fn newest_state_overtakes_posts_and_replaces_the_one_before() {
    let mut lab = Lab::new(&[("lobby", 0)]);
    lab.open(1, &["lobby"], "1;lobby:0");
    lab.commit("lobby", 1..=1);
    assert_eq!(lab.fill(1), None);
    lab.streams.set_state(Consistency::Weak);
    lab.streams.set_state(Consistency::Strong);
    let first = lab.streams.take(1, &lab.tails, 1).deliveries;
    assert_eq!(first, [Delivery::State(Consistency::Strong)]);
    lab.streams.on_room(1);
    assert_eq!(lab.seqs(1), [1]);
}

/// A person by number, as the list has them.
fn active(n: u16) -> ActiveUser {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&n.to_be_bytes());
    let name = "Ada".parse().expect("a name");
    ActiveUser { user: Author { id: UserId(id), name }, since_ms: 1, last_seen_ms: 1 }
}

/// Version and people that a reader of changes knows.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen(u64, BTreeSet<UserId>);

impl Seen {
    fn hear(&mut self, deliveries: Vec<Delivery>) {
        for delivery in deliveries {
            match delivery {
                Delivery::PresenceWindow { window, own } => {
                    let users = window.users.iter().chain(&own).map(|one| one.user.id);
                    *self = Self(window.version, users.collect());
                }
                Delivery::PresenceChange(change) => {
                    assert_eq!(change.version, self.0 + 1, "no version is left out");
                    self.0 = change.version;
                    self.1.retain(|id| !change.left.contains(id));
                    self.1.extend(change.came.iter().map(|one| one.user.id));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// A master's list and its open streams, all of changes.
struct Hall {
    lab: Lab,
    list: ActiveList,
    now: Mono,
}

impl Hall {
    fn new() -> Self {
        let lab = Lab::new(&[("lobby", 0)]);
        Self { lab, list: ActiveList::new(Mono::ZERO), now: Mono::ZERO }
    }

    fn open(&mut self, id: u64, person: u16) {
        let (reader, _) = Reader::open(&self.lab.tails, &[], &Ok(None), None);
        let own = self.list.row_of(&active(person).user, 1);
        let first = window_for(&own, self.list.window());
        let whose = (SESSION, active(person).user.id);
        self.lab.streams.open(id, whose, reader, Some(own), [first]);
    }

    /// Lets the store tell who is active, and a second pass.
    fn read(&mut self, people: impl IntoIterator<Item = u16>) {
        self.list.take(people.into_iter().map(active).collect());
        self.now = self.now + Duration::from_secs(1);
        if let Some(version) = self.list.due(self.now) {
            self.lab.streams.set_presence_version(&version);
        }
    }
}

#[test]
fn reader_of_changes_gets_a_window_then_each_change() {
    let mut hall = Hall::new();
    hall.read([1, 2]);
    hall.open(1, 2);
    hall.open(2, 9);
    let mut seen = Seen::default();
    seen.hear(hall.lab.take(1));
    assert_eq!(seen, Seen(1, [1, 2].map(|n| active(n).user.id).into()));
    let Some(Delivery::PresenceWindow { own, .. }) = hall.lab.take(2).pop() else { panic!() };
    assert_eq!(own, Some(active(9)), "a reader sees their own person before the list does");
    hall.read([2, 3]);
    let [Delivery::PresenceChange(first)] = &hall.lab.take(1)[..] else { panic!() };
    let [Delivery::PresenceChange(second)] = &hall.lab.take(2)[..] else { panic!() };
    first.encoded(|_| "once".into());
    assert_eq!(second.encoded(|_| "twice".into()), "once", "all readers share one encoding");
}

#[test]
fn reader_that_missed_a_version_gets_a_whole_window() {
    let mut hall = Hall::new();
    hall.open(1, 1);
    let mut seen = Seen::default();
    seen.hear(hall.lab.take(1));
    for last in 2..5 {
        hall.read(1..=last);
    }
    let deliveries = hall.lab.take(1);
    assert!(matches!(&deliveries[..], [Delivery::PresenceWindow { .. }]), "{deliveries:?}");
    seen.hear(deliveries);
    hall.read(1..=6);
    seen.hear(hall.lab.take(1));
    assert_eq!(seen, Seen(4, (1..=6).map(|n| active(n).user.id).collect()));
}

#[test]
fn first_window_that_was_not_taken_is_replaced_by_a_newer_one() {
    let mut hall = Hall::new();
    hall.open(1, 1);
    hall.read([1, 2]);
    let mut seen = Seen::default();
    seen.hear(hall.lab.take(1));
    assert_eq!(seen, Seen(1, [1, 2].map(|n| active(n).user.id).into()));
}

#[test]
fn readers_of_lists_are_told_no_changes_and_the_other_way_round() {
    let mut hall = Hall::new();
    hall.open(1, 1);
    hall.lab.open(2, &["lobby"], "1;lobby:0");
    assert_eq!(hall.lab.take(1).len(), 1);
    hall.read([1]);
    assert_eq!(hall.lab.take(2), []);
    hall.lab.streams.set_presence(hall.list.users());
    assert_eq!(hall.lab.take(2), [Delivery::Presence(hall.list.users().clone())]);
    assert!(matches!(hall.lab.take(1)[..], [Delivery::PresenceChange(_)]));
}

proptest! {
    /// Promise of presence: whoever holds an open stream is listed to every reader, also in a
    /// crowd of which a window shows a part, and each reader that takes what it is given is at the
    /// newest version.
    #[test]
    fn nobody_with_an_open_stream_is_missing(
        steps in prop::collection::vec((0..6_u16, any::<bool>(), 0..300_u16, 0..8_u8), 1..60),
    ) {
        let mut hall = Hall::new();
        let mut open: BTreeMap<u16, Seen> = BTreeMap::new();
        for (person, opens, crowd, takers) in steps {
            if opens && !open.contains_key(&person) {
                hall.open(u64::from(person), 900 + person);
                open.insert(person, Seen::default());
            } else if !opens && open.remove(&person).is_some() {
                hall.lab.streams.close(u64::from(person));
            }
            // The crowd stands before them in the list.
            let here: Vec<u16> = (0..crowd).chain(open.keys().map(|n| 900 + n)).collect();
            hall.read(here.iter().copied());
            for (nth, (person, seen)) in open.iter_mut().enumerate() {
                if takers >> (nth % 8) & 1 == 1 {
                    seen.hear(hall.lab.take(u64::from(*person)));
                }
            }
        }
        let all: BTreeSet<_> = hall.list.users().iter().map(|one| one.user.id).collect();
        for (person, seen) in &mut open {
            seen.hear(hall.lab.take(u64::from(*person)));
            prop_assert_eq!(seen.0, hall.list.version());
            prop_assert!(seen.1.is_subset(&all));
            prop_assert!(seen.1.contains(&active(900 + person).user.id), "their own");
            if all.len() <= PRESENCE_MAX {
                prop_assert_eq!(&seen.1, &all);
            }
        }
    }
}

#[test]
fn news_of_the_cluster_ask_for_no_posts_when_none_are_due() {
    let mut lab = Lab::new(&[("lobby", 9)]);
    lab.open(1, &["lobby"], "1;lobby:9");
    let reader = |lab: &Lab| lab.streams.open[&1].reader.is_due(&lab.tails);
    assert!(!reader(&lab));
    lab.commit("lobby", 10..=10);
    assert!(reader(&lab));
    assert_eq!(lab.seqs(1), [10]);
    assert!(!reader(&lab));
    lab.tails.on_boards(&boards(2, &[("lobby", 10)]));
    assert!(reader(&lab), "another epoch resets the reader");
}

#[test]
fn ended_stream_is_given_nothing_more() {
    let mut lab = Lab::new(&[("lobby", 0)]);
    lab.open(1, &["lobby"], "1;lobby:0");
    lab.commit("lobby", 1..=1);
    assert_eq!(lab.fill(1), None);
    lab.streams.end(1);
    lab.streams.set_state(Consistency::Weak);
    lab.commit("lobby", 2..=2);
    assert_eq!(lab.fill(1), None);
    assert_eq!(lab.take(1), []);
    assert_eq!(lab.streams.len(), 1, "until its reader is gone");
}

#[test]
fn closed_stream_follows_no_board() {
    let mut lab = Lab::new(&[("lobby", 0)]);
    lab.open(1, &["lobby"], "1;lobby:0");
    lab.open(2, &["lobby"], "1;lobby:0");
    let lobby = BoardName::lobby();
    assert_eq!(lab.streams.followers(&lobby), [1, 2]);
    assert_eq!(lab.streams.of_session(&SESSION), [1, 2]);
    assert_eq!(lab.streams.sessions(), BTreeSet::from([SESSION]));
    assert_eq!(lab.streams.close(1), Some(SESSION));
    assert_eq!(lab.streams.close(1), None);
    assert_eq!(lab.streams.followers(&lobby), [2]);
    lab.streams.close(2);
    assert!(lab.streams.is_empty() && lab.streams.by_board.is_empty());
    assert!(lab.streams.sessions().is_empty());
}

#[derive(Clone, Copy, Debug)]
enum Move {
    Commit(u64),
    /// The master learns where the board ends without its posts.
    Poll,
    /// The reader has room for so many.
    Take(usize),
    /// The store answers with so many posts, from a place that may be too late.
    Page {
        posts: u64,
        skip: u64,
    },
    /// The store answers, or the reader has room again, whichever is waited for.
    Answer,
    ReadFailed,
    Epoch,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        4 => (1..300_u64).prop_map(Move::Commit),
        1 => Just(Move::Poll),
        8 => (0..200_usize).prop_map(Move::Take),
        4 => (0..128_u64, 0..2_u64).prop_map(|(posts, skip)| Move::Page { posts, skip }),
        1 => Just(Move::ReadFailed),
        1 => Just(Move::Epoch),
    ];
    prop::collection::vec(one, 1..80)
}

proptest! {
    /// Invariants 1 to 3 and 5, for one reader of one board and a store that is one number.
    #[test]
    fn reader_sees_no_gap_without_a_reset_and_reaches_the_end(moves in moves(), from in 0..50_u64) {
        let mut lab = Lab::new(&[("lobby", 50)]);
        lab.open(1, &["lobby"], &format!("1;lobby:{from}"));
        let lobby = BoardName::lobby();
        let (mut end, mut epoch, mut seen) = (50, 1, from);
        let mut reading: Option<StoreRead> = None;
        // Nothing is asked of the table any more unless an answer or room calls for it.
        let quiet = [Move::Poll, Move::Take(200)].into_iter().chain(iter::repeat(Move::Answer));
        for (nth, one) in moves.into_iter().chain(quiet.take(100)).enumerate() {
            let mut room = None;
            match one {
                Move::Commit(count) => {
                    // As the master is told: a batch at a time, gapless.
                    let known = lab.tails.last(&lobby).expect("known").0;
                    if known == end {
                        lab.commit("lobby", end + 1..=end + count);
                    }
                    end += count;
                }
                Move::Poll => {
                    lab.tails.on_boards(&boards(epoch, &[("lobby", end)]));
                }
                Move::Take(count) => room = Some(count),
                Move::Page { posts, skip } => if let Some(read) = reading.take() {
                    let first = read.after.0 + 1 + skip;
                    let last = (first + posts).min(end);
                    let page = Page { epoch: StoreEpoch(epoch), ..page("lobby", first..=last) };
                    lab.give(1, &lobby, page);
                    room = Some(100);
                },
                Move::Answer => match reading.take() {
                    Some(read) => {
                        let last = (read.after.0 + u64::from(PAGE_POSTS_MAX)).min(end);
                        let page = page("lobby", read.after.0 + 1..=last);
                        let page = Page { epoch: StoreEpoch(epoch), ..page };
                        lab.give(1, &lobby, page);
                        room = Some(100);
                    }
                    None => room = lab.streams.open[&1].is_blocked.then_some(100),
                },
                Move::ReadFailed => if let Some(read) = reading.take() {
                    reading = lab.streams.on_read_failed(1, &lab.tails, read.board);
                    // As the driver does: it may be reset now.
                    if reading.is_none() {
                        room = Some(100);
                    }
                },
                Move::Epoch => {
                    epoch += 1;
                    end /= 2;
                    lab.tails.on_boards(&boards(epoch, &[("lobby", end)]));
                }
            }
            let Some(room) = room else { continue };
            lab.streams.on_room(1);
            let taken = lab.streams.take(1, &lab.tails, room);
            prop_assert!(taken.deliveries.len() <= room);
            for delivery in taken.deliveries {
                match delivery {
                    Delivery::Post(post) => {
                        prop_assert_eq!(post.seq.0, seen + 1, "move {}", nth);
                        seen += 1;
                    }
                    Delivery::Reset { cursor, .. } => seen = cursor.boards[&lobby].0,
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            if taken.read.is_some() {
                prop_assert_eq!(&reading, &None, "one read is under way");
                reading = taken.read;
            }
            let waiting = lab.streams.open[&1].backlog.len();
            prop_assert!(waiting <= BACKLOG_MAX + PAGE_POSTS_MAX as usize + 1, "{}", waiting);
        }
        prop_assert_eq!(seen, end, "the reader stands at the end of the board");
    }
}

#[test]
fn states_of_held_posts_go_to_their_authors_streams_alone_and_only_the_newest() {
    let mut lab = Lab::new(&[("lobby", 3)]);
    for id in [1, 2] {
        lab.open(id, &["lobby"], "1;lobby:3");
    }
    let (reader, _) = Reader::open(&lab.tails, &[], &Ok(None), None);
    lab.streams.open(3, (SessionKey([2; 32]), UserId([2; 16])), reader, None, []);
    let post = |n| PostId([n; 16]);
    for state in [HeldState::Pending, HeldState::Committed] {
        assert_eq!(lab.streams.set_pending(&ANN, post(1), state), [1, 2]);
    }
    for stream in [1, 2] {
        let told = lab.streams.take(stream, &lab.tails, 9).deliveries;
        assert_eq!(told, [Delivery::Pending { id: post(1), state: HeldState::Committed }]);
    }
    assert_eq!(lab.streams.take(3, &lab.tails, 9).deliveries, []);
    // A reader that takes nothing is told of so many, and of each the newest.
    for n in 0..=u8::try_from(PENDING_MAX).expect("small") {
        lab.streams.set_pending(&ANN, post(n), HeldState::Pending);
    }
    lab.streams.set_pending(&ANN, post(0), HeldState::DeadLetter);
    let told = lab.streams.take(1, &lab.tails, 999).deliveries;
    assert_eq!(told.len(), PENDING_MAX);
    assert_eq!(told[0], Delivery::Pending { id: post(0), state: HeldState::DeadLetter });
    lab.streams.close(1);
    lab.streams.close(2);
    assert!(lab.streams.set_pending(&ANN, post(1), HeldState::Pending).is_empty());
}
