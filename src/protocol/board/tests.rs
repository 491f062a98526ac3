use proptest::prelude::*;

use super::*;
use crate::model::{
    bounds::PAGE_BYTES_MAX,
    ids::{Author, PostId, PostText, UserId},
    rows::NewPost,
};

const EPOCH: StoreEpoch = StoreEpoch(7);

fn post(n: u64) -> Post {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&n.to_be_bytes());
    Post {
        id: PostId(id),
        board: BoardName::lobby(),
        seq: Seq(n),
        author: Author { id: UserId([1; 16]), name: "ann".parse().expect("a name") },
        text: format!("post {n}").parse().expect("a text"),
        posted_at_ms: n,
    }
}

fn posts(from: u64, to: u64) -> Vec<Post> {
    (from..=to).map(post).collect()
}

fn ends(epoch: u64, last: u64) -> Boards {
    let boards = vec![(BoardName::lobby(), Seq(last))];
    Boards { boards, epoch: StoreEpoch(epoch), as_of_ms: last }
}

fn seqs(posts: &[Shared<Post>]) -> Vec<u64> {
    posts.iter().map(|post| post.seq.0).collect()
}

fn tails_at(last: u64, posts_max: usize) -> Tails {
    let mut tails = Tails::new(EPOCH, posts_max);
    tails.on_boards(&ends(EPOCH.0, last));
    tails
}

#[test]
fn tail_is_extended_or_reports_the_gap() {
    let lobby = BoardName::lobby();
    let mut tails = tails_at(10, 4);
    let mut apply = |from, to| tails.apply(EPOCH, &lobby, &posts(from, to));
    assert_eq!(apply(11, 12), TailChange::Extended { from: Seq(11), to: Seq(12) });
    assert_eq!(apply(9, 12), TailChange::Duplicate);
    assert_eq!(apply(14, 15), TailChange::Gap { have: Seq(12), want: Seq(14) });
    assert_eq!(apply(12, 16), TailChange::Extended { from: Seq(13), to: Seq(16) });
    assert_eq!(tails.apply(EPOCH, &lobby, &[post(17), post(19)]), TailChange::Malformed);
    assert_eq!(tails.apply(StoreEpoch(6), &lobby, &posts(17, 17)), TailChange::OldEpoch);
    assert_eq!(tails.apply(StoreEpoch(8), &lobby, &posts(1, 1)), TailChange::NewEpoch);
    assert_eq!(tails.last(&lobby), Some(Seq(16)));
}

#[test]
fn new_store_epoch_empties_tails_and_an_old_reading_changes_nothing() {
    let lobby = BoardName::lobby();
    let mut tails = tails_at(10, 4);
    let noted = tails.on_boards(&ends(8, 3));
    assert!(noted.new_epoch && tails.last(&lobby) == Some(Seq(3)));
    assert_eq!(tails.on_boards(&ends(7, 99)), BoardChanges::default());
    assert_eq!(tails.on_boards(&ends(8, 2)), BoardChanges::default());
    assert_eq!(tails.on_boards(&ends(8, 5)).behind, [(lobby, Seq(3))]);
}

#[test]
fn read_from_memory_is_cut_to_one_page() {
    let lobby = BoardName::lobby();
    let longest: PostText = "x".repeat(PostText::LEN_MAX).parse().expect("a text");
    let long = |n| Post { text: longest.clone(), ..post(n) };
    let mut tails = tails_at(0, 500);
    tails.apply(EPOCH, &lobby, &(1..=400).map(long).collect::<Vec<_>>());
    for (range, near) in
        [(Range::After(Seq(0)), 1), (Range::Before(Seq(400)), 399), (Range::Last, 400)]
    {
        let page = tails.read(&lobby, range, 300).expect("in memory");
        let bytes: usize = page.iter().map(|post| post_len(post)).sum();
        assert!(bytes <= PAGE_BYTES_MAX && page.len() > 100, "{bytes} of {}", page.len());
        let seqs = seqs(&page);
        assert!(seqs.contains(&near) && seqs.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    }
}

#[test]
fn read_is_answered_whole_from_memory_or_left_to_the_store() {
    let lobby = BoardName::lobby();
    let mut tails = tails_at(10, 4);
    tails.apply(EPOCH, &lobby, &posts(11, 16));
    let read = |range, limit| tails.read(&lobby, range, limit).map(|posts| seqs(&posts));
    assert_eq!(read(Range::After(Seq(13)), 2), Some(vec![14, 15]));
    assert_eq!(read(Range::After(Seq(11)), 2), None);
    assert_eq!(read(Range::After(Seq(99)), 2), Some(vec![]));
    assert_eq!(read(Range::Before(Seq(16)), 3), Some(vec![13, 14, 15]));
    assert_eq!(read(Range::Before(Seq(16)), 4), None);
    assert_eq!(read(Range::Last, 4), Some(vec![13, 14, 15, 16]));
    assert_eq!(read(Range::Last, 5), None);
    assert!(tails.read(&"dev".parse().expect("a board"), Range::Last, 1).is_none());
}

#[test]
fn short_board_is_read_whole_from_memory() {
    let lobby = BoardName::lobby();
    let mut tails = tails_at(0, 4);
    tails.apply(EPOCH, &lobby, &posts(1, 3));
    let read = |range| tails.read(&lobby, range, 50).map(|posts| seqs(&posts));
    assert_eq!(read(Range::Last), Some(vec![1, 2, 3]));
    assert_eq!(read(Range::Before(Seq(3))), Some(vec![1, 2]));
    assert_eq!(read(Range::Before(Seq(0))), Some(vec![]));
    assert_eq!(read(Range::Before(Seq(u64::MAX))), Some(vec![1, 2, 3]));
}

#[test]
fn stream_opens_at_its_cursor_or_with_a_reset_reason() {
    let (lobby, dev): (_, BoardName) = (BoardName::lobby(), "dev".parse().expect("a board"));
    let tails = tails_at(10, 4);
    let open_with = |text: &str, read: Option<&Boards>| {
        let cursor = text.parse::<Cursor>().map(Some).map_err(|_| ());
        let (reader, reset) = Reader::open(&tails, &[lobby.clone(), dev.clone()], &cursor, read);
        (reader.cursor().to_string(), reset)
    };
    let stored = ends(7, 10);
    let open = |text: &str, fresh: bool| open_with(text, fresh.then_some(&stored));
    assert_eq!(open("7;lobby:4,dev:2", true), ("7;lobby:4".to_owned(), None));
    assert_eq!(open("7;", true), ("7;lobby:10".to_owned(), None));
    assert_eq!(open("6;lobby:4", true), ("7;lobby:10".to_owned(), Some(ResetReason::Epoch)));
    assert_eq!(open("7;lobby:11", true), ("7;lobby:10".to_owned(), Some(ResetReason::Ahead)));
    assert_eq!(open("7;lobby:11", false), ("7;lobby:11".to_owned(), None));
    // The store is further than this memory: so may be who comes from another master.
    assert_eq!(open_with("7;lobby:11", Some(&ends(7, 12))), ("7;lobby:11".to_owned(), None));
    assert_eq!(open("junk", true), ("7;lobby:10".to_owned(), Some(ResetReason::Malformed)));
}

#[test]
fn stream_opens_from_memory_only_if_it_knows_all_boards_asked_for() {
    let (lobby, dev): (_, BoardName) = (BoardName::lobby(), "dev".parse().expect("a board"));
    let both = [lobby, dev.clone()];
    let empty = Tails::new(EPOCH, 4);
    for asked in [&both[..], &both[..1], &[]] {
        assert!(!empty.can_open(asked), "nothing was heard of the store: {asked:?}");
    }
    let mut tails = tails_at(10, 4);
    assert!(tails.can_open(&[]) && tails.can_open(&both[..1]));
    assert!(!tails.can_open(&both));
    // What another master tells is as good as the store's word.
    tails.on_created(&dev);
    assert!(tails.can_open(&both));
    tails.on_boards(&ends(8, 3));
    assert!(tails.can_open(&both[..1]) && !tails.can_open(&both), "of the epoch before");
}

#[test]
fn reader_of_a_board_that_memory_hears_of_later_is_not_shown_it() {
    let (lobby, dev): (_, BoardName) = (BoardName::lobby(), "dev".parse().expect("a board"));
    let mut tails = tails_at(10, 4);
    let cursor = Ok(Some("7;dev:2,lobby:10".parse::<Cursor>().expect("a cursor")));
    let (reader, reset) = Reader::open(&tails, &[lobby, dev.clone()], &cursor, None);
    assert_eq!((reader.cursor().to_string().as_str(), reset), ("7;lobby:10", None));
    let boards = vec![(BoardName::lobby(), Seq(10)), (dev.clone(), Seq(5))];
    tails.on_boards(&Boards { boards, epoch: EPOCH, as_of_ms: 10 });
    assert_eq!((reader.is_due(&tails), reader.due(&tails, &dev, 9)), (false, Due::Nothing));
}

#[test]
fn reader_is_reset_after_the_store_was_restored() {
    let lobby = BoardName::lobby();
    let mut tails = tails_at(10, 4);
    let (mut reader, _) = Reader::open(&tails, std::slice::from_ref(&lobby), &Ok(None), None);
    tails.on_boards(&ends(8, 3));
    assert_eq!(reader.due(&tails, &lobby, 9), Due::Reset(ResetReason::Epoch));
    reader.reset(&tails);
    assert_eq!(
        (reader.cursor().to_string().as_str(), reader.due(&tails, &lobby, 9)),
        ("8;lobby:3", Due::Nothing)
    );
}

#[test]
fn tail_grows_backwards_by_posts_that_reach_up_to_it_as_far_as_it_has_room() {
    let lobby = BoardName::lobby();
    let mut tails = tails_at(10, 6);
    tails.apply(EPOCH, &lobby, &posts(11, 11));
    let page = |from, to| posts(from, to).into_iter().map(Shared::new).collect::<Vec<_>>();
    let held = |tails: &Tails, first: u64| {
        assert_eq!(tails.read(&lobby, Range::After(Seq(first - 2)), 99), None);
        let read = tails.read(&lobby, Range::After(Seq(first - 1)), 99).expect("in memory");
        assert_eq!(seqs(&read), (first..=11).collect::<Vec<_>>());
    };
    tails.prepend(EPOCH, &lobby, &page(4, 9));
    tails.prepend(StoreEpoch(6), &lobby, &page(4, 10));
    tails.prepend(EPOCH, &lobby, &page(12, 13));
    tails.prepend(EPOCH, &"dev".parse().expect("a board"), &page(4, 10));
    held(&tails, 11);
    tails.prepend(EPOCH, &lobby, &page(9, 13));
    held(&tails, 9);
    tails.prepend(EPOCH, &lobby, &page(2, 8));
    held(&tails, 6);
}

#[test]
fn tail_reaches_back_to_the_first_post() {
    let lobby = BoardName::lobby();
    let mut tails = tails_at(3, 6);
    let page: Vec<_> = posts(1, 3).into_iter().map(Shared::new).collect();
    for _ in 0..2 {
        tails.prepend(EPOCH, &lobby, &page);
        let read = tails.read(&lobby, Range::Last, 99).expect("in memory");
        assert_eq!(seqs(&read), [1, 2, 3]);
    }
}

proptest! {
    /// Applies posts in any order and overlap, and reads gaps from the store: the reader gets
    /// each post once.
    #[test]
    fn reader_gets_every_post_once_in_order(
        told in proptest::collection::vec((1..40_u64, 0..6_u64, any::<bool>()), 0..60),
        start in 0..40_u64,
        posts_max in 1..6_usize,
    ) {
        let lobby = BoardName::lobby();
        let mut tails = tails_at(20, posts_max);
        let cursor = Cursor { epoch: EPOCH, boards: [(lobby.clone(), Seq(start))].into() };
        let (mut reader, reset) =
            Reader::open(&tails, std::slice::from_ref(&lobby), &Ok(Some(cursor)), Some(&ends(7, 20)));
        prop_assert_eq!(reset.is_some(), start > 20);
        let mut expected = if start > 20 { 21 } else { start + 1 };
        let mut last = 20;
        for (from, more, reads) in told {
            match tails.apply(EPOCH, &lobby, &posts(from, from + more)) {
                TailChange::Gap { have, want } => {
                    prop_assert_eq!((have.0, want.0), (last, from));
                    prop_assert!(from > last + 1);
                }
                TailChange::Extended { from: first, to } => {
                    prop_assert_eq!((first.0, to.0), (last + 1, from + more));
                    last = to.0;
                }
                TailChange::Duplicate => prop_assert!(from + more <= last),
                other => prop_assert!(false, "{other:?}"),
            }
            if !reads {
                continue;
            }
            loop {
                let given = match reader.due(&tails, &lobby, 3) {
                    Due::Nothing => break,
                    Due::Posts(given) => seqs(&given),
                    Due::AskStore { after } => {
                        (after.0 + 1..=last.min(after.0 + 3)).collect()
                    }
                    Due::Reset(why) => panic!("{why:?}"),
                };
                for seq in given {
                    prop_assert_eq!(seq, expected);
                    expected += 1;
                    reader.delivered(&lobby, Seq(seq));
                }
            }
        }
    }
}

#[test]
fn task_for_an_unknown_board_waits_for_the_store_and_no_board_too_many_is_created() {
    let mut tails = Tails::new(StoreEpoch(1), 8);
    let name = |n: usize| -> BoardName { format!("b{n}").parse().expect("a name") };
    let post = |board| {
        let author = Author { id: UserId([1; 16]), name: "Ada".parse().expect("a name") };
        let text = "hello".parse().expect("a text");
        Task::Post { board, post: NewPost { id: PostId([1; 16]), author, text } }
    };
    assert_eq!(tails.existence(&post(name(0))), Existence::Unheard(name(0)));
    assert_eq!(tails.existence(&Task::CreateBoard { board: name(0) }), Existence::Known);
    for n in 0..BOARDS_MAX {
        tails.on_created(&name(n));
    }
    assert_eq!(tails.existence(&post(name(0))), Existence::Known);
    assert_eq!(tails.existence(&Task::CreateBoard { board: name(7) }), Existence::Known);
    let more = Task::CreateBoard { board: name(BOARDS_MAX) };
    assert_eq!(tails.existence(&more), Existence::NoRoom);
}
