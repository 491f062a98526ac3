//! Boards and posts: G2, G4.

use std::sync::Arc;

use futures_util::future::join_all;

use super::{DONE, Lab, author, board, fenced, holder, name_of, post, post_id};
use crate::{
    model::{
        absence::AwayReason,
        ids::{BoardName, PostText, Resource, Seq, UserId},
        message::{Response, Task},
        outcome::TaskResult,
        rows::{Found, NewPost, Page, Permission, Range, Renewed, StoreError},
    },
    store::{BOARDS_MAX, Op, OpReply, READ_BYTES_MAX},
    wire::frame,
};

async fn page(lab: &Lab, range: Range, limit: u32) -> Page {
    lab.store.read(BoardName::lobby(), range, limit).await.expect("the lobby")
}

/// Ids and places, as far as the answers tell.
fn places(answers: &[TaskResult]) -> Vec<Option<(bool, u64)>> {
    let place = |answer: &TaskResult| match answer {
        TaskResult::Committed { seq, .. } => Some((true, seq.0)),
        TaskResult::Duplicate { seq, .. } => Some((false, seq.0)),
        _ => None,
    };
    answers.iter().map(place).collect()
}

const NEW: bool = true;
const OLD: bool = false;

pub(super) async fn lobby_exists_in_a_new_store(lab: &Lab) {
    let boards = lab.store.boards().await.expect("boards");
    assert_eq!(boards.boards, [(BoardName::lobby(), Seq(0))]);
    let cluster = lab.store.cluster().await.expect("a cluster");
    assert_eq!(boards.epoch, cluster.epoch);
    assert_eq!(page(lab, Range::Last, 10).await.last_seq, Seq(0));
}

pub(super) async fn new_posts_are_numbered_in_batch_order(lab: &Lab) {
    let mut lobby = lab.lobby().await;
    // Neither sorted by id nor by text.
    let posts = vec![post(9, "c"), post(3, "a"), post(5, "b")];
    let answers = lab.append(lobby.next(), posts).await.expect("appended");
    assert_eq!(places(&answers), [Some((NEW, 1)), Some((NEW, 2)), Some((NEW, 3))]);
    let answers = lab.append(lobby.next(), vec![post(1, "d")]).await.expect("appended");
    assert_eq!(places(&answers), [Some((NEW, 4))]);
    let texts = page(lab, Range::After(Seq(0)), 10).await.posts;
    let texts: Vec<_> = texts.iter().map(|post| (post.seq.0, post.text.as_str())).collect();
    assert_eq!(texts, [(1, "c"), (2, "a"), (3, "b"), (4, "d")]);
}

pub(super) async fn repeated_post_keeps_its_place(lab: &Lab) {
    let mut lobby = lab.lobby().await;
    let permission = lobby.next();
    let batch = vec![post(2, "b"), post(1, "a")];
    let first = lab.append(permission.clone(), batch.clone()).await.expect("appended");
    let again = lab.append(permission, batch).await.expect("the same permission again");
    assert_eq!(places(&again), [Some((OLD, 1)), Some((OLD, 2))]);
    let times = |answers: &[TaskResult]| -> Vec<u64> {
        let at = |answer: &TaskResult| match answer {
            TaskResult::Committed { posted_at_ms, .. }
            | TaskResult::Duplicate { posted_at_ms, .. } => *posted_at_ms,
            other => panic!("no place: {other:?}"),
        };
        answers.iter().map(at).collect()
    };
    assert_eq!(times(&first), times(&again));
    // Mixed with new ones, in another order, under another lease: no hole, no move.
    let mut lobby = lab.lobby().await;
    let posts = vec![post(1, "a"), post(7, "x"), post(2, "b"), post(4, "y")];
    let mixed = lab.append(lobby.next(), posts).await.expect("appended");
    let want = [Some((OLD, 2)), Some((NEW, 3)), Some((OLD, 1)), Some((NEW, 4))];
    assert_eq!(places(&mixed), want);
    assert_eq!(page(lab, Range::Last, 10).await.last_seq, Seq(4));
}

pub(super) async fn post_id_with_another_text_or_board_is_a_conflict(lab: &Lab) {
    let mut lobby = lab.lobby().await;
    let mut dev = lab.lease(board("dev"), holder(1)).await;
    lab.create_board(dev.next()).await.expect("created");
    lab.append(lobby.next(), vec![post(1, "a")]).await.expect("appended");
    let posts = vec![post(1, "b"), post(2, "fresh")];
    let answers = lab.append(lobby.next(), posts).await.expect("answered");
    assert_eq!(answers[0], TaskResult::Conflict, "another text");
    assert_eq!(places(&answers), [None, Some((NEW, 2))]);
    let answers = lab.append(dev.next(), vec![post(1, "a")]).await.expect("answered");
    assert_eq!(answers, [TaskResult::Conflict], "another board");
    let boards = lab.store.boards().await.expect("boards").boards;
    assert_eq!(boards, [(name_of("dev"), Seq(0)), (name_of("lobby"), Seq(2))]);
}

pub(super) async fn first_post_of_an_id_in_a_batch_wins(lab: &Lab) {
    let mut lobby = lab.lobby().await;
    let posts = vec![post(5, "one"), post(1, "x"), post(5, "one"), post(5, "two")];
    let answers = lab.append(lobby.next(), posts).await.expect("answered");
    let want = [Some((NEW, 1)), Some((NEW, 2)), Some((OLD, 1)), None];
    assert_eq!(places(&answers), want);
    assert_eq!(answers[3], TaskResult::Conflict);
    assert_eq!(page(lab, Range::Last, 10).await.last_seq, Seq(2));
}

pub(super) async fn same_id_of_two_users_is_two_posts(lab: &Lab) {
    let mut lobby = lab.lobby().await;
    let theirs = NewPost { author: author(2, "Bob"), ..post(1, "mine too") };
    let posts = vec![post(1, "mine"), theirs];
    let answers = lab.append(lobby.next(), posts).await.expect("answered");
    assert_eq!(places(&answers), [Some((NEW, 1)), Some((NEW, 2))]);
}

pub(super) async fn cancelled_id_is_never_committed(lab: &Lab) {
    let (mut lobby, mut sessions) = (lab.lobby().await, lab.sessions().await);
    let user = UserId([1; 16]);
    assert_eq!(lab.store.find_post(user, post_id(1)).await, Ok(Found::Nothing));
    for _ in 0..2 {
        let cancelled = lab.cancel_post(sessions.next(), user, post_id(1)).await;
        assert_eq!(cancelled, Ok(TaskResult::Cancelled));
    }
    let posts = vec![post(1, "late"), post(2, "x"), post(1, "late")];
    let answers = lab.append(lobby.next(), posts).await.expect("answered");
    assert_eq!(places(&answers), [None, Some((NEW, 1)), None]);
    assert_eq!((&answers[0], &answers[2]), (&TaskResult::Cancelled, &TaskResult::Cancelled));
    assert_eq!(lab.store.find_post(user, post_id(1)).await, Ok(Found::Cancelled));
}

pub(super) async fn committed_post_is_not_cancelled(lab: &Lab) {
    let (mut lobby, mut sessions) = (lab.lobby().await, lab.sessions().await);
    lab.append(lobby.next(), vec![post(1, "in")]).await.expect("appended");
    let user = UserId([1; 16]);
    let answer = lab.cancel_post(sessions.next(), user, post_id(1)).await;
    let stored = page(lab, Range::Last, 1).await.posts.remove(0);
    assert_eq!(answer, Ok(TaskResult::AlreadyCommitted(Box::new(stored.clone()))));
    assert_eq!(lab.store.find_post(user, post_id(1)).await, Ok(Found::Committed(stored)));
}

pub(super) async fn posts_are_read_as_written_from_either_end(lab: &Lab) {
    let mut lobby = lab.lobby().await;
    let text = |n: u16| format!("zeile {n} \u{1f600}\nzweite");
    for n in 1..=12 {
        lab.append(lobby.next(), vec![post(n, &text(n))]).await.expect("appended");
    }
    let seqs = |page: &Page| -> Vec<u64> { page.posts.iter().map(|post| post.seq.0).collect() };
    for (range, limit, want) in [
        (Range::After(Seq(0)), 5, vec![1, 2, 3, 4, 5]),
        (Range::After(Seq(9)), 5, vec![10, 11, 12]),
        (Range::After(Seq(12)), 5, vec![]),
        (Range::After(Seq(u64::MAX)), 5, vec![]),
        (Range::Before(Seq(4)), 2, vec![2, 3]),
        (Range::Before(Seq(1)), 2, vec![]),
        (Range::Last, 3, vec![10, 11, 12]),
        (Range::Last, 0, vec![]),
    ] {
        let page = page(lab, range, limit).await;
        assert_eq!(seqs(&page), want, "{range:?}");
        assert_eq!(page.last_seq, Seq(12));
        for post in &page.posts {
            let n = u16::try_from(post.seq.0).expect("small");
            assert_eq!((post.id, post.text.as_str()), (post_id(n), text(n).as_str()));
            assert_eq!((&post.author, &post.board), (&author(1, "Ada"), &BoardName::lobby()));
            assert!(post.posted_at_ms <= page.as_of_ms);
        }
    }
}

pub(super) async fn long_page_is_cut_and_tells_the_last_seq(lab: &Lab) {
    let mut lobby = lab.lobby().await;
    let longest = "x".repeat(PostText::LEN_MAX);
    let all = READ_BYTES_MAX / PostText::LEN_MAX + 20;
    for n in 0..u16::try_from(all).expect("few") {
        lab.append(lobby.next(), vec![post(n, &longest)]).await.expect("appended");
    }
    let cut = page(lab, Range::After(Seq(0)), 1000).await;
    assert!(cut.posts.len() < all && !cut.posts.is_empty());
    let framed = frame::response(1, &Response::Page(Some(cut.clone())));
    assert!(framed.is_ok(), "a page fits into a frame: {:?}", framed.err());
    assert_eq!((cut.posts[0].seq, cut.last_seq), (Seq(1), Seq(all as u64)));
    let cut = page(lab, Range::Last, 1000).await;
    assert!(cut.posts.len() < all);
    assert_eq!(cut.posts.last().map(|post| post.seq), Some(cut.last_seq));
}

pub(super) async fn unknown_board_is_reported_as_unknown(lab: &Lab) {
    let unknown = |error: StoreError| matches!(error, StoreError::Unknown { .. });
    let read = lab.store.read(name_of("nowhere"), Range::Last, 1).await;
    assert!(read.is_err_and(unknown));
    let mut nowhere = lab.lease(board("nowhere"), holder(1)).await;
    let results = lab.append(nowhere.next(), vec![post(1, "a"), post(2, "b")]).await;
    for result in results.expect("one result per post") {
        assert!(matches!(result, TaskResult::Refused(why) if unknown(why.as_ref().clone())));
    }
    assert_eq!(lab.store.find_post(UserId([1; 16]), post_id(1)).await, Ok(Found::Nothing));
}

pub(super) async fn board_is_created_once_and_listed_by_name(lab: &Lab) {
    for name in ["zoo", "art"] {
        let mut leased = lab.lease(board(name), holder(1)).await;
        let permission = leased.next();
        for _ in 0..2 {
            assert_eq!(lab.create_board(permission.clone()).await, DONE);
        }
        assert_eq!(lab.create_board(leased.next()).await, DONE, "under another token");
    }
    let boards = lab.store.boards().await.expect("boards").boards;
    let names: Vec<_> = boards.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["art", "lobby", "zoo"]);
}

pub(super) async fn board_above_the_bound_is_refused(lab: &Lab) {
    for n in 1..BOARDS_MAX {
        let mut leased = lab.lease(board(&format!("b{n}")), holder(1)).await;
        assert_eq!(lab.create_board(leased.next()).await, DONE);
    }
    let mut leased = lab.lease(board("one-more"), holder(1)).await;
    let refused = lab.create_board(leased.next()).await;
    assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
    let mut leased = lab.lease(board("b1"), holder(1)).await;
    assert_eq!(lab.create_board(leased.next()).await, DONE, "it is there");
    assert_eq!(lab.store.boards().await.expect("boards").boards.len(), BOARDS_MAX);
}

pub(super) async fn concurrent_writes_leave_no_hole(lab: &Lab) {
    let lobby = lab.lobby().await;
    let appends = (1..=20).map(|n| {
        let posts = vec![post(n, "new"), post(100, "all of them")];
        lab.append(lobby.at(u64::from(n), 200), posts)
    });
    let renewed =
        lab.store.renew_leases(holder(1), vec![(lobby.resource.clone(), lobby.token.lease)], 3000);
    let (answers, renewed) = futures_util::future::join(join_all(appends), renewed).await;
    assert_eq!(renewed, Ok(vec![(Resource::Board(BoardName::lobby()), Renewed::Kept)]));
    let mut made = 0;
    for answer in answers {
        assert!(answer.is_ok() || fenced(&answer), "{answer:?}");
        let committed = |answer: &&TaskResult| matches!(answer, TaskResult::Committed { .. });
        made += answer.iter().flatten().filter(committed).count();
    }
    let page = page(lab, Range::After(Seq(0)), 100).await;
    let seqs: Vec<_> = page.posts.iter().map(|post| post.seq.0).collect();
    assert_eq!(seqs, (1..=made as u64).collect::<Vec<_>>());
    assert_eq!(page.posts.iter().filter(|post| post.id == post_id(100)).count(), 1);
}

pub(super) async fn board_that_ends_before_what_the_writer_knows_takes_nothing(lab: &Lab) {
    let mut lobby = lab.lobby().await;
    let mut absent = lab.lease(board("dev"), holder(1)).await;
    let write = async |permission: Permission, post: NewPost, known: u64| {
        let Resource::Board(board) = permission.resource.clone() else { unreachable!() };
        let tasks = Arc::new(vec![Task::Post { board, post }]);
        lab.store.call(Op::Write { permission, tasks, known: Seq(known) }).await
    };
    let older = |answer: Result<OpReply, StoreError>| {
        answer.is_err_and(|why| why.away_reason() == Some(AwayReason::RolledBack))
    };
    let first = lab.append(lobby.next(), vec![post(1, "a")]).await.expect("appended");
    assert_eq!(places(&first), [Some((NEW, 1))]);
    assert!(older(write(lobby.next(), post(2, "b"), 2).await), "a new post");
    assert!(older(write(lobby.next(), post(1, "a"), 2).await), "one that is there");
    assert!(older(write(absent.next(), post(3, "c"), 1).await), "a board that is not there");
    assert_eq!(page(lab, Range::Last, 10).await.last_seq, Seq(1), "nothing was written");
    let both = join_all(
        [(post(2, "b"), 1), (post(4, "d"), 0)]
            .map(|(post, known)| write(lobby.next(), post, known)),
    );
    for answer in both.await {
        let Ok(OpReply::Written(results)) = answer else { panic!("{answer:?}") };
        assert!(matches!(results[..], [TaskResult::Committed { .. }]), "{results:?}");
    }
}

pub(super) async fn posted_at_never_falls_within_a_board(lab: &Lab) {
    let mut lobby = lab.lobby().await;
    for (n, ms) in [(1, 0), (2, 700), (3, -60_000), (4, 0), (5, 120_000)] {
        lab.advance(ms);
        lab.append(lobby.next(), vec![post(n, "tick")]).await.expect("appended");
    }
    let posts = page(lab, Range::Last, 10).await.posts;
    let first = posts[0].posted_at_ms;
    let since: Vec<_> = posts.iter().map(|post| post.posted_at_ms - first).collect();
    assert_eq!(since, [0, 700, 700, 700, 60_700]);
}
