//! Sessions, read marks, tickets: G6.

use super::{DONE, Lab, Leased, author, board, holder, key, name_of, node, post};
use crate::model::{
    copies::{SessionDigests, SessionEntry},
    ids::{BoardName, Seq, SessionKey},
    message::Task,
    rows::{SessionRow, StoreError},
};

fn unknown<T>(result: Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Unknown { .. }))
}

fn refused<T>(result: Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Refused { .. }))
}

pub(super) async fn open_session_is_found_until_it_is_closed(lab: &Lab) {
    let mut sessions = lab.sessions().await;
    assert_eq!(lab.store.find_session(key(1)).await, Ok(None));
    for _ in 0..2 {
        lab.open(&mut sessions, 1, author(1, "Ada")).await;
    }
    let row = SessionRow { key: key(1), user: author(1, "Ada"), read_marks: Vec::new() };
    assert_eq!(lab.store.find_session(key(1)).await, Ok(Some(row)));
    for _ in 0..2 {
        assert_eq!(lab.close_session(sessions.next(), key(1)).await, DONE);
    }
    assert_eq!(lab.store.find_session(key(1)).await, Ok(None));
}

pub(super) async fn closed_session_never_opens_again(lab: &Lab) {
    let mut sessions = lab.sessions().await;
    lab.open(&mut sessions, 1, author(1, "Ada")).await;
    let other = lab.open_session(sessions.next(), key(1), author(2, "Bob")).await;
    assert!(refused(other), "another user's");
    lab.close_session(sessions.next(), key(1)).await.expect("closed");
    let again = lab.open_session(sessions.next(), key(1), author(1, "Ada")).await;
    assert!(refused(again), "a late repeat must not undo a log-out");
}

pub(super) async fn closed_sessions_are_listed_once_by_mark(lab: &Lab) {
    let mut sessions = lab.sessions().await;
    for n in 1..=4 {
        lab.open(&mut sessions, n, author(n, "Ada")).await;
    }
    let (none, start) = lab.store.closed_since(0).await.expect("told");
    assert_eq!(none, []);
    for n in [3, 1] {
        lab.close_session(sessions.next(), key(n)).await.expect("closed");
    }
    let (keys, mark) = lab.store.closed_since(start).await.expect("told");
    assert_eq!(keys, [key(3), key(1)]);
    lab.close_session(sessions.next(), key(4)).await.expect("closed");
    lab.close_session(sessions.next(), key(4)).await.expect("closed already");
    let (keys, mark) = lab.store.closed_since(mark).await.expect("told");
    assert_eq!(keys, [key(4)]);
    assert_eq!(lab.store.closed_since(mark).await, Ok((Vec::new(), mark)));
}

/// Lists the open sessions of all buckets.
async fn all(lab: &Lab) -> Vec<SessionRow> {
    let mut rows = Vec::new();
    for bucket in 0..=u8::MAX {
        let mut after = None;
        loop {
            let page = lab.store.sessions(bucket, after).await.expect("listed");
            for entry in page.entries {
                match entry {
                    SessionEntry::Open(row) => rows.push(row),
                    SessionEntry::Closed(key) => panic!("{key} is closed"),
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    rows
}

/// Compares the digests with those of the rows.
async fn digests_are_true(lab: &Lab) {
    let digests = lab.store.session_digests().await.expect("told");
    let mut want = SessionDigests::empty(digests.epoch);
    for row in all(lab).await {
        want.open[usize::from(row.key.0[0])] ^= row.digest();
    }
    assert_eq!(digests, want);
}

pub(super) async fn digests_follow_sessions_and_read_marks(lab: &Lab) {
    digests_are_true(lab).await;
    let mut sessions = lab.sessions().await;
    for n in [1, 2, 3, 250] {
        lab.open(&mut sessions, n, author(n, "Ada")).await;
    }
    digests_are_true(lab).await;
    let mut lobby = lab.lobby().await;
    lab.append(lobby.next(), vec![post(1, "one"), post(2, "two")]).await.expect("posted");
    for seq in [0, 2, 1, 2] {
        let mark = lab.set_read_mark(sessions.next(), key(1), BoardName::lobby(), Seq(seq)).await;
        assert_eq!(mark, DONE);
        digests_are_true(lab).await;
    }
    // A second session of the same user has its marks, and keeps them.
    lab.put_ticket(sessions.next(), [7; 32], key(1)).await.expect("kept");
    lab.redeem_ticket(sessions.next(), [7; 32], key(9)).await.expect("redeemed");
    digests_are_true(lab).await;
    let open: Vec<_> = all(lab).await.iter().map(|row| (row.key, row.read_marks.len())).collect();
    assert_eq!(open, [(key(1), 1), (key(2), 0), (key(3), 0), (key(9), 1), (key(250), 0)]);
    for n in [1, 2, 9] {
        assert_eq!(lab.close_session(sessions.next(), key(n)).await, DONE);
        digests_are_true(lab).await;
    }
    // A bucket of many pages.
    let in_bucket = |n: u16| {
        let mut key = [4; 32];
        key[1..3].copy_from_slice(&n.to_be_bytes());
        SessionKey(key)
    };
    let open = |n: u16| {
        let [_, user] = n.to_be_bytes();
        Task::OpenSession { key: in_bucket(n), user: author(user, "Ada") }
    };
    lab.write(sessions.next(), (0..600).map(open).collect()).await.expect("opened");
    digests_are_true(lab).await;
    let first = lab.store.sessions(4, None).await.expect("listed");
    assert_eq!((first.entries.len(), first.next), (256, Some(in_bucket(255))));
    assert_eq!(all(lab).await.len(), 602);
}

pub(super) async fn read_mark_changes_the_digests_of_all_sessions_of_its_user(lab: &Lab) {
    let (mut lobby, mut sessions) = (lab.lobby().await, lab.sessions().await);
    lab.append(lobby.next(), vec![post(1, "one"), post(2, "two")]).await.expect("posted");
    // Three in each of 20 buckets.
    let nth = |n: u8| {
        let mut key = [n; 32];
        key[0] = n % 20;
        SessionKey(key)
    };
    let open = |n| Task::OpenSession { key: nth(n), user: author(1, "Ada") };
    lab.write(sessions.next(), (0..60).map(open).collect()).await.expect("opened");
    lab.open(&mut sessions, 240, author(2, "Bob")).await;
    for seq in [1, 2, 1] {
        let mark = lab.set_read_mark(sessions.next(), nth(7), BoardName::lobby(), Seq(seq)).await;
        assert_eq!(mark, DONE);
        digests_are_true(lab).await;
    }
    let marked = all(lab).await.iter().filter(|row| !row.read_marks.is_empty()).count();
    assert_eq!(marked, 60);
}

pub(super) async fn read_mark_only_rises_and_stays_within_the_board(lab: &Lab) {
    let (mut lobby, mut sessions) = (lab.lobby().await, lab.sessions().await);
    let mut art = lab.lease(board("art"), holder(1)).await;
    lab.create_board(art.next()).await.expect("created");
    lab.append(lobby.next(), (1..=5).map(|n| post(n, "x")).collect()).await.expect("posts");
    lab.open(&mut sessions, 1, author(1, "Ada")).await;
    let mut mark =
        |n, board: &str, seq| lab.set_read_mark(sessions.next(), key(n), name_of(board), Seq(seq));
    assert_eq!(mark(1, "lobby", 4).await, DONE);
    assert_eq!(mark(1, "lobby", 2).await, DONE, "lower: fine, and nothing");
    assert!(refused(mark(1, "lobby", 6).await), "above the end");
    assert_eq!(mark(1, "art", 0).await, DONE);
    assert!(unknown(mark(1, "nowhere", 0).await));
    assert!(unknown(mark(2, "lobby", 1).await), "no such session");
    let row = lab.store.find_session(key(1)).await.expect("asked").expect("open");
    assert_eq!(row.read_marks, [(name_of("art"), Seq(0)), (BoardName::lobby(), Seq(4))]);
}

pub(super) async fn ticket_opens_one_session_of_the_same_user(lab: &Lab) {
    let (mut lobby, mut sessions) = (lab.lobby().await, lab.sessions().await);
    lab.append(lobby.next(), vec![post(1, "x")]).await.expect("a post");
    lab.open(&mut sessions, 1, author(1, "Ada")).await;
    let marked = lab.set_read_mark(sessions.next(), key(1), BoardName::lobby(), Seq(1));
    marked.await.expect("marked");
    let nobody = lab.put_ticket(sessions.next(), [9; 32], key(7)).await;
    assert!(unknown(nobody), "no such session");
    for _ in 0..2 {
        let put = lab.put_ticket(sessions.next(), [5; 32], key(1)).await;
        assert_eq!(put, DONE);
    }
    let mut redeem = |ticket, n| lab.redeem_ticket(sessions.next(), ticket, key(n));
    assert!(unknown(redeem([6; 32], 2).await), "no such ticket");
    let read_marks = vec![(BoardName::lobby(), Seq(1))];
    let row = SessionRow { key: key(2), user: author(1, "Ada"), read_marks };
    assert_eq!(redeem([5; 32], 2).await, Ok(row.clone()));
    assert_eq!(redeem([5; 32], 2).await, Ok(row.clone()), "the answer was lost");
    assert!(unknown(redeem([5; 32], 3).await), "spent");
    assert_eq!(lab.store.find_session(key(2)).await, Ok(Some(row)));
    let first = lab.store.find_session(key(1)).await.expect("asked");
    assert!(first.is_some(), "the first session goes on");
}

pub(super) async fn ticket_of_a_closed_session_is_unknown(lab: &Lab) {
    let mut sessions = lab.sessions().await;
    lab.open(&mut sessions, 1, author(1, "Ada")).await;
    lab.put_ticket(sessions.next(), [5; 32], key(1)).await.expect("a ticket");
    lab.close_session(sessions.next(), key(1)).await.expect("closed");
    assert!(unknown(lab.redeem_ticket(sessions.next(), [5; 32], key(2)).await));
    assert_eq!(lab.store.find_session(key(2)).await, Ok(None));
}

pub(super) async fn expired_ticket_is_unknown(lab: &Lab) {
    let mut sessions = lab.sessions().await;
    lab.open(&mut sessions, 1, author(1, "Ada")).await;
    for ticket in [[5; 32], [6; 32]] {
        lab.put_ticket(sessions.next(), ticket, key(1)).await.expect("five minutes");
    }
    lab.advance(299_999);
    lab.redeem_ticket(sessions.next(), [5; 32], key(2)).await.expect("in time");
    lab.advance(1);
    assert!(unknown(lab.redeem_ticket(sessions.next(), [6; 32], key(3)).await));
}

pub(super) async fn ticket_that_was_put_last_stands_when_there_are_too_many(lab: &Lab) {
    let mut sessions = lab.sessions().await;
    lab.open(&mut sessions, 1, author(1, "Ada")).await;
    // They may all end at the same time.
    for ticket in 1..=9 {
        lab.put_ticket(sessions.next(), [ticket; 32], key(1)).await.expect("a ticket");
    }
    let mut redeemed = Vec::new();
    for ticket in 1..=9 {
        let spent = lab.redeem_ticket(sessions.next(), [ticket; 32], key(10 + ticket)).await;
        if spent.is_ok() {
            redeemed.push(ticket);
        } else {
            assert!(unknown(spent));
        }
    }
    assert_eq!((redeemed.len(), redeemed.last()), (8, Some(&9)), "{redeemed:?}");
}

pub(super) async fn ticket_lives_its_time_after_the_clock_went_back(lab: &Lab) {
    let hours_ms = 2 * 3_600_000;
    let mut sessions = lab.sessions().await;
    lab.advance(hours_ms);
    // A write: the store knows how late it was.
    lab.open(&mut sessions, 1, author(1, "Ada")).await;
    lab.advance(-hours_ms);
    for ticket in [[5; 32], [6; 32]] {
        lab.put_ticket(sessions.next(), ticket, key(1)).await.expect("five minutes");
    }
    lab.redeem_ticket(sessions.next(), [5; 32], key(2)).await.expect("at once");
    lab.advance(hours_ms + 300_000);
    assert!(unknown(lab.redeem_ticket(sessions.next(), [6; 32], key(3)).await));
}

/// Opens a session of user 1 by a ticket of another one, a little later.
async fn hand_over(lab: &Lab, sessions: &mut Leased, from: u8, to: u8) {
    lab.advance(1);
    lab.put_ticket(sessions.next(), [to; 32], key(from)).await.expect("a ticket");
    let row = lab.redeem_ticket(sessions.next(), [to; 32], key(to)).await.expect("redeemed");
    assert_eq!((row.key, row.user), (key(to), author(1, "Ada")));
}

pub(super) async fn session_too_many_ends_the_one_unused_for_the_longest_time(lab: &Lab) {
    let mut sessions = lab.sessions().await;
    lab.open(&mut sessions, 1, author(1, "Ada")).await;
    for to in 2..=64 {
        hand_over(lab, &mut sessions, 1, to).await;
    }
    assert_eq!(all(lab).await.len(), 64);
    lab.open(&mut sessions, 200, author(2, "Bob")).await;
    assert_eq!(lab.store.closed_since(0).await.expect("told").0, [], "all have room");
    // The second one has a stream, and the third one sends requests.
    lab.advance(1);
    lab.store.touch_sessions(node(1), vec![key(2)]).await.expect("touched");
    lab.advance(2 * 3_600_000);
    lab.store.use_sessions(vec![key(3)]).await.expect("noted");

    // The first one is older than the fourth, and hands over.
    hand_over(lab, &mut sessions, 1, 65).await;
    assert_eq!(lab.store.closed_since(0).await.expect("told").0, [key(4)]);
    let again = lab.redeem_ticket(sessions.next(), [65; 32], key(65)).await;
    assert!(again.is_ok(), "the answer was lost: {again:?}");
    hand_over(lab, &mut sessions, 5, 66).await;
    lab.open(&mut sessions, 67, author(1, "Ada")).await;
    assert_eq!(lab.store.closed_since(0).await.expect("told").0, [4, 1, 5].map(key));
    let open: Vec<_> = all(lab).await.iter().map(|row| row.key).collect();
    let stay = [2, 3].into_iter().chain(6..=67).chain([200]);
    assert_eq!(open, stay.map(key).collect::<Vec<_>>());
    digests_are_true(lab).await;
}
