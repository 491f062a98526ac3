mod damage;
mod formats;
mod held;
mod sessions;
mod snapshots;

use std::sync::Arc;

use proptest::prelude::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::*;
use crate::{
    model::{
        ids::{Author, NodeId, Post, PostId, Registration, Role, SessionKey, UserId},
        message::{Fact, Member, MemberState, Update},
        rows::{Boards, Page, Range, SessionRow},
    },
    testing::memory_disk::MemDisk,
};

fn fresh() -> (Arc<MemDisk>, Replica) {
    let disk = Arc::new(MemDisk::default());
    let (replica, found) = open(&(disk.clone() as Arc<dyn Disk>));
    assert_eq!(found, OpenedAs::New);
    (disk, replica)
}

fn open(disk: &Arc<dyn Disk>) -> (Replica, OpenedAs) {
    Replica::open(disk, ReplicaLimits::default(), Check::Whole, |_| ()).expect("opens")
}

fn board(name: &str) -> BoardName {
    name.parse().expect("a board's name")
}

fn author() -> Author {
    Author { id: UserId([3; 16]), name: "Ada".parse().expect("a name") }
}

fn post(name: &str, seq: u64) -> Post {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&seq.to_be_bytes());
    Post {
        id: PostId(id),
        board: board(name),
        seq: Seq(seq),
        author: author(),
        text: format!("{name} says {seq}").parse().expect("a text"),
        posted_at_ms: 1000 + seq,
    }
}

fn posts(epoch: u64, name: &str, seqs: impl IntoIterator<Item = u64>) -> Update {
    let posts: Vec<_> = seqs.into_iter().map(|seq| post(name, seq)).collect();
    let as_of_ms = posts.last().map_or(0, |last| last.posted_at_ms);
    Update::Posts { epoch: StoreEpoch(epoch), board: board(name), posts, as_of_ms }
}

fn session(key: u8, marks: &[(&str, u64)]) -> SessionRow {
    let read_marks = marks.iter().map(|(name, seq)| (board(name), Seq(*seq))).collect();
    SessionRow { key: SessionKey([key; 32]), user: author(), read_marks }
}

fn seqs(replica: &Replica, name: &str, range: Range, limit: u32) -> Vec<u64> {
    let page = replica.read(&board(name), range, limit).expect("reads").expect("is known");
    page.posts.iter().map(|post| post.seq.0).collect()
}

#[test]
fn posts_are_read_as_written_from_either_end() {
    let (_, replica) = fresh();
    let done = replica.apply(&[posts(7, "lobby", 1..=9), posts(7, "dev", 1..=2)]).expect("applied");
    assert_eq!(done, ApplyReport { posts: 11, ..ApplyReport::default() });
    let page = replica.read(&board("lobby"), Range::After(Seq(0)), 2).expect("reads");
    let want = Page {
        posts: vec![post("lobby", 1), post("lobby", 2)],
        last_seq: Seq(9),
        epoch: StoreEpoch(7),
        as_of_ms: 1009,
    };
    assert_eq!(page, Some(want));
    assert_eq!(seqs(&replica, "lobby", Range::After(Seq(7)), 99), [8, 9]);
    assert_eq!(seqs(&replica, "lobby", Range::After(Seq(u64::MAX)), 99), [0; 0]);
    assert_eq!(seqs(&replica, "lobby", Range::Before(Seq(4)), 2), [2, 3]);
    assert_eq!(seqs(&replica, "lobby", Range::Before(Seq(0)), 2), [0; 0]);
    assert_eq!(seqs(&replica, "lobby", Range::Last, 3), [7, 8, 9]);
    assert_eq!(seqs(&replica, "lobby", Range::Last, 0), [0; 0]);
    assert_eq!(replica.read(&board("other"), Range::Last, 1), Ok(None));
    let boards = replica.boards().expect("reads");
    assert_eq!(boards.boards, [(board("dev"), Seq(2)), (board("lobby"), Seq(9))]);
    assert_eq!((boards.epoch, boards.as_of_ms), (StoreEpoch(7), 1002));
}

#[test]
fn page_is_bounded_in_bytes_but_never_empty() {
    let (_, replica) = fresh();
    let long = |seq| Post { text: "x".repeat(8192).parse().expect("a text"), ..post("lobby", seq) };
    let all = (1..=100).map(long).collect();
    let news =
        Update::Posts { epoch: StoreEpoch(1), board: board("lobby"), posts: all, as_of_ms: 1 };
    replica.apply(&[news]).expect("applied");
    let fit = (PAGE_BYTES_MAX / 8192) as u64;
    assert_eq!(seqs(&replica, "lobby", Range::After(Seq(0)), 500), Vec::from_iter(1..=fit));
    assert_eq!(seqs(&replica, "lobby", Range::Last, 500), Vec::from_iter(101 - fit..=100));
}

#[test]
fn posts_ahead_of_a_gap_are_dropped_and_reported_until_a_page_closes_it() {
    let (_, replica) = fresh();
    replica.apply(&[posts(1, "lobby", 1..=3)]).expect("applied");
    let gap = |have, offered| Gap { board: board("lobby"), have: Seq(have), offered: Seq(offered) };
    let done = replica.apply(&[posts(1, "lobby", 6..=7)]).expect("applied");
    assert_eq!(done, ApplyReport { gaps: vec![gap(3, 7)], ..ApplyReport::default() });
    assert_eq!(seqs(&replica, "lobby", Range::Last, 9), [1, 2, 3]);
    let page = |seqs: std::ops::RangeInclusive<u64>, last_seq| Page {
        posts: seqs.map(|seq| post("lobby", seq)).collect(),
        last_seq: Seq(last_seq),
        epoch: StoreEpoch(1),
        as_of_ms: 5000,
    };
    let done = replica.apply_page(&board("lobby"), &page(4..=5, 8)).expect("applied");
    assert_eq!(done, ApplyReport { posts: 2, gaps: vec![gap(5, 8)], ..ApplyReport::default() });
    let as_of = |replica: &Replica| replica.boards().expect("reads").as_of_ms;
    assert_eq!(as_of(&replica), 1003, "not yet as of the page's time");
    let done = replica.apply_page(&board("lobby"), &page(5..=8, 8)).expect("applied");
    assert_eq!(done, ApplyReport { posts: 3, ..ApplyReport::default() });
    assert_eq!(as_of(&replica), 5000);
}

#[test]
fn reordered_publishes_within_a_group_are_no_gap() {
    let (_, replica) = fresh();
    let group = [posts(1, "lobby", 3..=4), posts(1, "lobby", 1..=2), posts(1, "lobby", 2..=3)];
    let done = replica.apply(&group).expect("applied");
    assert_eq!(done, ApplyReport { posts: 4, ..ApplyReport::default() });
}

#[test]
fn malformed_updates_are_ignored() {
    let (_, replica) = fresh();
    replica.apply(&[posts(5, "lobby", 1..=2)]).expect("applied");
    let of_another = Update::Posts {
        epoch: StoreEpoch(5),
        board: board("lobby"),
        posts: vec![post("dev", 3)],
        as_of_ms: 1,
    };
    for wrong in [
        posts(4, "lobby", 3..=3),
        posts(5, "lobby", []),
        posts(5, "lobby", [3, 5]),
        posts(5, "lobby", [4, 3]),
        posts(5, "lobby", [0, 1]),
        of_another,
    ] {
        let done = replica.apply(std::slice::from_ref(&wrong)).expect("a typed outcome");
        assert_eq!(done, ApplyReport { ignored: 1, ..ApplyReport::default() }, "{wrong:?}");
    }
    assert_eq!(seqs(&replica, "lobby", Range::Last, 9), [1, 2]);
    let mut forged = post("lobby", 2);
    forged.text = "something else".parse().expect("a text");
    let page = Page { posts: vec![forged], last_seq: Seq(2), epoch: StoreEpoch(5), as_of_ms: 1 };
    replica.apply_page(&board("lobby"), &page).expect("applied");
    let kept = replica.read(&board("lobby"), Range::Last, 1).expect("reads").expect("is known");
    assert_eq!(kept.posts, [post("lobby", 2)], "what stands at a place stays");
}

#[test]
fn newer_epoch_empties_posts_and_sessions_but_not_the_directory() {
    let (_, replica) = fresh();
    replica.apply(&[Update::Session(session(1, &[]))]).expect("applied");
    let first = replica.apply(&[posts(5, "lobby", 1..=2)]).expect("applied");
    assert!(!first.emptied, "learning the first epoch is no change");
    let member = member(1, Role::Master, 1, MemberState::In);
    replica.put_members(std::slice::from_ref(&member)).expect("applied");
    assert!(replica.session(SessionKey([1; 32])).expect("reads").is_some());
    let done = replica.apply(&[posts(6, "dev", 1..=1), posts(5, "lobby", 3..=3)]).expect("applied");
    assert_eq!(done, ApplyReport { posts: 1, emptied: true, ignored: 1, ..ApplyReport::default() });
    assert_eq!(replica.epoch(), Ok(StoreEpoch(6)));
    assert_eq!(replica.read(&board("lobby"), Range::Last, 1), Ok(None));
    assert_eq!(replica.session(SessionKey([1; 32])), Ok(None));
    assert_eq!(replica.members(), Ok(vec![member]));
}

#[test]
fn board_is_not_read_before_anything_is_known_of_the_store() {
    let (_, replica) = fresh();
    let read = |replica: &Replica| replica.read(&board("a"), Range::Last, 9).expect("reads");
    replica.apply(&[Update::BoardCreated(board("a"))]).expect("applied");
    assert_eq!(read(&replica), None);
    let boards = vec![(board("a"), Seq(0))];
    let seen = Boards { boards, epoch: StoreEpoch(1), as_of_ms: 7 };
    replica.observe(&seen).expect("written");
    let page = read(&replica).expect("known now");
    assert_eq!((page.epoch, page.as_of_ms, page.posts.len()), (StoreEpoch(1), 7, 0));
}

#[test]
fn bounds_hold_and_the_least_recently_written_session_is_dropped() {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::default());
    let limits = ReplicaLimits {
        boards_max: 2,
        sessions_max: 2,
        members_max: 1,
        ..ReplicaLimits::default()
    };
    let (replica, _) = Replica::open(&disk, limits, Check::Whole, |_| ()).expect("opens");
    let boards = ["a", "b", "c"].map(|name| Update::BoardCreated(board(name)));
    assert_eq!(replica.apply(&boards).expect("applied").ignored, 1);
    assert_eq!(replica.boards().expect("reads").boards.len(), 2);
    for key in [1, 2, 1, 3] {
        replica.apply(&[Update::Session(session(key, &[("a", 1)]))]).expect("applied");
    }
    let known = [1, 2, 3].map(|key| replica.session(SessionKey([key; 32])).expect("reads"));
    assert_eq!(known.map(|row| row.is_some()), [true, false, true]);
    let two = [1, 2].map(|node| member(node, Role::Worker, 1, MemberState::In));
    assert_eq!(replica.apply(&[Update::Members(two.into())]).expect("applied").ignored, 1);
}

#[test]
fn oldest_posts_go_first_and_a_page_that_begins_with_them_is_not_given() {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::default());
    let limits = ReplicaLimits { posts_max: 10, ..ReplicaLimits::default() };
    let (replica, _) = Replica::open(&disk, limits, Check::Whole, |_| ()).expect("opens");
    let apply = |name: &str, seqs| replica.apply(&[posts(7, name, seqs)]).expect("applied");
    let given = |name: &str, range| {
        let page = replica.read(&board(name), range, 50).expect("reads");
        page.map(|page| page.posts.iter().map(|post| post.seq.0).collect::<Vec<_>>())
    };
    // Their times are their places.
    apply("dev", 1..=4);
    apply("lobby", 1..=6);
    assert_eq!(given("dev", Range::Last), Some(vec![1, 2, 3, 4]), "there is room");
    apply("lobby", 7..=12);
    let (dev, lobby) = (given("dev", Range::Last), given("lobby", Range::Last));
    let kept = dev.iter().chain(&lobby).map(Vec::len).sum::<usize>();
    assert!((8..=10).contains(&kept), "{dev:?} {lobby:?}");
    apply("lobby", 13..=40);
    assert_eq!(given("dev", Range::Last), None, "all of it is older");
    assert_eq!(replica.last(&board("dev")), Ok(Some(Seq(4))), "it is read on from there");
    assert_eq!(replica.last(&board("other")), Ok(None));
    assert_eq!(given("dev", Range::After(Seq(0))), None);
    assert_eq!(given("dev", Range::After(Seq(4))), Some(vec![]));
    assert_eq!(given("dev", Range::Before(Seq(1))), Some(vec![]));
    let first = given("lobby", Range::Last).expect("some are there")[0];
    assert!((31..=33).contains(&first), "{first}");
    assert_eq!(given("lobby", Range::After(Seq(first - 1))), Some((first..=40).collect()));
    assert_eq!(given("lobby", Range::After(Seq(first - 2))), None);
    assert_eq!(given("lobby", Range::Before(Seq(first + 2))), Some(vec![first, first + 1]));
    assert_eq!(given("lobby", Range::Before(Seq(first))), None);
    // What is new goes on, also of a board that holds nothing.
    apply("dev", 5..=5);
    assert_eq!(replica.boards().expect("reads").last(&board("dev")), Some(Seq(5)));
    apply("lobby", 41..=41);
    let last = given("lobby", Range::Last).expect("some are there");
    assert_eq!(last.last(), Some(&41));
}

fn member(node: u8, role: Role, registration: u64, state: MemberState) -> Member {
    Member {
        fact: Fact {
            node: NodeId([node; 16]),
            role,
            registration: Registration(registration),
            state,
            master: NodeId([9; 16]),
        },
        name: format!("n{node}"),
        link: (role == Role::Master).then(|| "h:1".to_owned()),
        http: None,
        spki: vec![node; 4],
    }
}

#[test]
fn higher_fact_of_a_member_stays() {
    let (_, replica) = fresh();
    let states = [MemberState::Failed, MemberState::In, MemberState::Left];
    for (registration, state) in [(2, states[0]), (2, states[1]), (1, states[2])] {
        let told = member(4, Role::Worker, registration, state);
        replica.put_members(&[told]).expect("applied");
    }
    let newest = member(4, Role::Worker, 2, MemberState::Failed);
    assert_eq!(replica.members(), Ok(vec![newest]));
}

#[test]
fn view_of_the_store_reports_gaps_and_the_time_up_to_which_the_rest_is_complete() {
    let (_, replica) = fresh();
    replica.apply(&[posts(1, "lobby", 1..=3), posts(1, "dev", 1..=1)]).expect("applied");
    let seen = |epoch, as_of_ms, boards: &[(&str, u64)]| Boards {
        boards: boards.iter().map(|(name, seq)| (board(name), Seq(*seq))).collect(),
        epoch: StoreEpoch(epoch),
        as_of_ms,
    };
    let as_of = |name| {
        replica.read(&board(name), Range::Last, 1).expect("reads").expect("is known").as_of_ms
    };
    let done = replica.observe(&seen(1, 9000, &[("dev", 2), ("lobby", 3), ("new", 0)]));
    let gap = Gap { board: board("dev"), have: Seq(1), offered: Seq(2) };
    assert_eq!(done, Ok(ApplyReport { gaps: vec![gap], ..ApplyReport::default() }));
    assert_eq!([as_of("dev"), as_of("lobby"), as_of("new")], [1001, 9000, 9000]);
    let done = replica.observe(&seen(0, 9999, &[("lobby", 9)]));
    assert_eq!(done, Ok(ApplyReport { ignored: 1, ..ApplyReport::default() }));
    let done = replica.observe(&seen(2, 10_000, &[("lobby", 0)])).expect("taken in");
    assert!(done.emptied && done.gaps.is_empty(), "{done:?}");
    assert_eq!(as_of("lobby"), 10_000);
    assert_eq!(replica.read(&board("dev"), Range::Last, 1), Ok(None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Invariants 1 and 5: whatever comes in whatever order, and wherever a crash falls.
    #[test]
    fn crash_leaves_a_gapless_prefix_with_everything_durable(
        seed in any::<u64>(),
        groups in prop::collection::vec(prop::collection::vec((0..2_usize, 1..40_u64, 1..6_u64), 0..4), 1..40),
        persist_at in 0..40_usize,
        crash_at in 0..40_usize,
    ) {
        let names = ["lobby", "dev"];
        let (disk, replica) = fresh();
        let mut model = [0_u64; 2];
        let mut durable = [0_u64; 2];
        for (nth, group) in groups.iter().enumerate().take(crash_at + 1) {
            let news: Vec<_> = group
                .iter()
                .map(|&(at, first, count)| posts(1, names[at], first..first + count))
                .collect();
            let done = replica.apply(&news).expect("applied");
            let mut spans = group.clone();
            spans.sort_unstable();
            for (at, first, count) in spans {
                if first <= model[at] + 1 {
                    model[at] = model[at].max(first + count - 1);
                }
            }
            for gap in &done.gaps {
                let at = usize::from(gap.board == board("dev"));
                prop_assert!(gap.have == Seq(model[at]) && gap.offered > gap.have);
            }
            if nth == persist_at {
                replica.persist().expect("persisted");
                durable = model;
            }
        }
        for (at, name) in names.iter().enumerate() {
            let page = replica.read(&board(name), Range::After(Seq(0)), 500).expect("reads");
            let read: Vec<_> = page.map_or_else(Vec::new, |page| page.posts);
            prop_assert_eq!(read, (1..=model[at]).map(|seq| post(name, seq)).collect::<Vec<_>>());
        }
        let left = disk.crash(&mut ChaCha20Rng::seed_from_u64(seed));
        let (replica, found) = open(&left);
        prop_assert_eq!(found, OpenedAs::Kept);
        for (at, name) in names.iter().enumerate() {
            let page = replica.read(&board(name), Range::After(Seq(0)), 500).expect("reads");
            let read: Vec<_> = page.map_or_else(Vec::new, |page| page.posts);
            let last = read.len() as u64;
            prop_assert!((durable[at]..=model[at]).contains(&last), "{last} of {durable:?}..{model:?}");
            prop_assert_eq!(read, (1..=last).map(|seq| post(name, seq)).collect::<Vec<_>>());
        }
    }
}
