//! The fencing check: G8.

use super::{Lab, Leased, author, board, fenced, holder, key, name_of, node, post, post_id};
use crate::model::{
    ids::{BoardName, Incarnation, Resource, Seq, StoreEpoch, Token, UserId},
    message::Task,
    outcome::TaskResult,
    rows::{Holder, Permission, Range, StoreError},
};

async fn last_seq(lab: &Lab) -> Seq {
    lab.store.read(BoardName::lobby(), Range::Last, 0).await.expect("the lobby").last_seq
}

pub(super) async fn write_without_a_lease_is_fenced(lab: &Lab) {
    let epoch = lab.store.cluster().await.expect("a cluster").epoch;
    for lease in [0, 1] {
        let token = Token { epoch, lease, n: 1 };
        let permission =
            Permission { resource: board("lobby"), token, after: None, worker: node(9) };
        let refused = lab.append(permission, vec![post(1, "a")]).await;
        assert!(fenced(&refused), "{refused:?}");
    }
}

pub(super) async fn token_below_the_last_seen_is_fenced(lab: &Lab) {
    let lobby = lab.lobby().await;
    let refused = lab.append(lobby.at(0, 9), vec![post(1, "a")]).await;
    assert!(fenced(&refused), "n counts from 1: {refused:?}");
    lab.append(lobby.at(5, 9), vec![post(1, "a")]).await.expect("5");
    let refused = lab.append(lobby.at(4, 9), vec![post(2, "b")]).await;
    let seen = Token { n: 5, ..lobby.token };
    let token = Token { n: 4, ..lobby.token };
    assert_eq!(refused, Err(StoreError::Fenced { token, seen }));
    lab.append(lobby.at(9, 8), vec![post(3, "c")]).await.expect("9");
    assert_eq!(last_seq(lab).await, Seq(2));
}

pub(super) async fn batch_is_written_only_right_after_the_one_that_it_follows(lab: &Lab) {
    let lobby = lab.lobby().await;
    let after = |n, before| Permission { after: Some(before), ..lobby.at(n, 9) };
    let seen = |n| Token { n, ..lobby.token };
    let early = lab.append(after(3, 2), vec![post(3, "c")]).await;
    assert_eq!(early, Err(StoreError::NotNext { after: 2, seen: seen(0) }));
    lab.append(lobby.at(2, 9), vec![post(2, "b")]).await.expect("the first");
    let skips = lab.append(after(5, 3), vec![post(5, "e")]).await;
    assert_eq!(skips, Err(StoreError::NotNext { after: 3, seen: seen(2) }));
    let written = lab.append(after(3, 2), vec![post(3, "c")]).await.expect("the second");
    let again = lab.append(after(3, 2), vec![post(3, "c")]).await.expect("it is repeated");
    assert!(matches!(written[..], [TaskResult::Committed { seq: Seq(2), .. }]), "{written:?}");
    assert!(matches!(again[..], [TaskResult::Duplicate { seq: Seq(2), .. }]), "{again:?}");
    let late = lab.append(lobby.at(2, 9), vec![post(2, "b")]).await;
    assert!(fenced(&late), "the first again, after the second: {late:?}");
    lab.append(lobby.at(7, 9), vec![post(7, "g")]).await.expect("one that follows nothing");
    assert_eq!(last_seq(lab).await, Seq(3));
}

pub(super) async fn token_of_an_earlier_lease_is_fenced(lab: &Lab) {
    let old = lab.lobby().await;
    lab.append(old.at(7, 9), vec![post(1, "a")]).await.expect("the first lease");
    let newer = Holder { incarnation: Incarnation(2), ..holder(1) };
    let new = lab.lease(board("lobby"), newer).await;
    let refused = lab.append(old.at(8, 9), vec![post(2, "b")]).await;
    assert!(fenced(&refused), "{refused:?}");
    let ahead = Leased { token: Token { lease: new.token.lease + 1, ..new.token }, ..old };
    let refused = lab.append(ahead.at(9, 9), vec![post(2, "b")]).await;
    assert!(fenced(&refused), "a lease that was not granted yet: {refused:?}");
    lab.append(new.at(1, 9), vec![post(2, "b")]).await.expect("the second lease");
    assert_eq!(last_seq(lab).await, Seq(2));
}

pub(super) async fn token_of_another_epoch_is_fenced(lab: &Lab) {
    let lobby = lab.lobby().await;
    for epoch in [lobby.token.epoch.0 - 1, lobby.token.epoch.0 + 1] {
        let token = Token { epoch: StoreEpoch(epoch), ..lobby.token };
        let other = Leased { token, resource: board("lobby") };
        let refused = lab.append(other.at(1, 9), vec![post(1, "a")]).await;
        assert!(fenced(&refused), "{refused:?}");
    }
}

pub(super) async fn token_used_by_a_second_worker_is_fenced(lab: &Lab) {
    let (lobby, sessions) = (lab.lobby().await, lab.sessions().await);
    let batch = vec![post(1, "a")];
    lab.append(lobby.at(1, 8), batch.clone()).await.expect("worker 8");
    let refused = lab.append(lobby.at(1, 9), batch.clone()).await;
    assert!(fenced(&refused), "{refused:?}");
    lab.append(lobby.at(1, 8), batch.clone()).await.expect("worker 8 again");
    lab.append(lobby.at(2, 9), batch).await.expect("worker 9 under its own token");
    lab.open_session(sessions.at(1, 8), key(1), author(1, "Ada")).await.expect("worker 8");
    let refused = lab.close_session(sessions.at(1, 9), key(1)).await;
    assert!(fenced(&refused), "{refused:?}");
    lab.open_session(sessions.at(1, 8), key(1), author(1, "Ada")).await.expect("the same batch");
}

pub(super) async fn token_used_for_a_second_batch_is_fenced(lab: &Lab) {
    let lobby = lab.lobby().await;
    lab.append(lobby.at(1, 9), vec![post(1, "a"), post(2, "b")]).await.expect("a batch");
    for other in [vec![post(3, "c")], vec![post(1, "a")], vec![post(2, "b"), post(1, "a")]] {
        let refused = lab.append(lobby.at(1, 9), other).await;
        assert!(fenced(&refused), "{refused:?}");
    }
    assert_eq!(last_seq(lab).await, Seq(2));
    let sessions = lab.sessions().await;
    let open = |n| Task::OpenSession { key: key(n), user: author(1, "Ada") };
    let cancel = |n| Task::CancelPost { user: UserId([1; 16]), id: post_id(n) };
    let batch = vec![open(1), cancel(8)];
    for _ in 0..2 {
        let results = lab.write(sessions.at(1, 9), batch.clone()).await;
        assert_eq!(results, Ok(vec![TaskResult::Done, TaskResult::Cancelled]));
    }
    let close = Task::CloseSession { key: key(1) };
    for other in [vec![open(1)], vec![cancel(8), open(1)], vec![open(2), cancel(8)], vec![close]] {
        let refused = lab.write(sessions.at(1, 9), other).await;
        assert!(fenced(&refused), "{refused:?}");
    }
}

pub(super) async fn refused_batch_leaves_nothing_behind(lab: &Lab) {
    let mut nowhere = lab.lease(board("nowhere"), holder(1)).await;
    let empty = lab.append(nowhere.at(50, 8), Vec::new()).await;
    assert!(matches!(empty, Err(StoreError::Refused { .. })), "{empty:?}");
    let longer = (0..=4096).map(|n| post(n, "a")).collect();
    let refused = lab.append(nowhere.at(50, 8), longer).await;
    assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
    let ahead = Token { lease: nowhere.token.lease + 1, ..nowhere.token };
    let ahead = Leased { token: ahead, resource: board("nowhere") };
    let refused = lab.append(ahead.at(50, 8), vec![post(1, "a")]).await;
    assert!(fenced(&refused), "{refused:?}");
    // Neither its n nor its worker was remembered.
    lab.create_board(nowhere.next()).await.expect("n = 1 is still good");
    let kinds = lab.store.writes(0, 100).await.expect("the record");
    let kinds: Vec<_> = kinds.iter().map(|row| (row.kind.as_str(), row.token.n)).collect();
    assert_eq!(kinds, [("grant", 0), ("write", 1)]);
}

pub(super) async fn refused_task_leaves_the_rest_of_its_batch(lab: &Lab) {
    let refused = |result: &TaskResult| matches!(result, TaskResult::Refused(_));
    let mut sessions = lab.sessions().await;
    let (open, closed) = (author(1, "Ada"), key(3));
    lab.open(&mut sessions, 3, open.clone()).await;
    lab.close_session(sessions.next(), closed).await.expect("closed");
    let mark = |seq| Task::SetReadMark { key: key(1), board: name_of("lobby"), seq: Seq(seq) };
    let batch = vec![
        Task::OpenSession { key: key(1), user: open },
        mark(9),
        Task::OpenSession { key: key(1), user: author(2, "Bob") },
        Task::PutTicket { key: key(1), ticket_sha256: [5; 32] },
        Task::RedeemTicket { ticket_sha256: [5; 32], key: closed },
        mark(0),
    ];
    let results = lab.write(sessions.next(), batch).await.expect("accepted");
    let refusals: Vec<_> = results.iter().map(refused).collect();
    assert_eq!(refusals, [false, true, true, false, true, false], "{results:?}");
    let row = lab.store.find_session(key(1)).await.expect("asked").expect("it stands");
    assert_eq!((row.user.id, row.read_marks), (UserId([1; 16]), vec![(name_of("lobby"), Seq(0))]));
    let spent = lab.redeem_ticket(sessions.next(), [5; 32], key(2)).await;
    assert!(spent.is_ok(), "a refused redemption spends no ticket: {spent:?}");
    let mut lobby = lab.lobby().await;
    let posted = |n, board: &str| Task::Post { board: name_of(board), post: post(n, "a") };
    let batch = vec![posted(1, "lobby"), posted(2, "dev"), posted(3, "lobby")];
    let results = lab.write(lobby.next(), batch).await.expect("accepted");
    assert_eq!(results.iter().map(refused).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(last_seq(lab).await, Seq(2));
}

pub(super) async fn board_is_created_and_written_in_one_batch(lab: &Lab) {
    let mut dev = lab.lease(board("dev"), holder(1)).await;
    let posted = |n| Task::Post { board: name_of("dev"), post: post(n, "a") };
    let create = Task::CreateBoard { board: name_of("dev") };
    let batch = vec![posted(1), create, posted(1), posted(2), posted(1)];
    let results = lab.write(dev.next(), batch).await.expect("accepted");
    assert!(matches!(results[0], TaskResult::Refused(_)), "not yet there: {results:?}");
    assert_eq!(results[1], TaskResult::Done);
    let place = |result: &TaskResult| match result {
        TaskResult::Committed { seq, .. } => (true, seq.0),
        TaskResult::Duplicate { seq, .. } => (false, seq.0),
        other => panic!("{other:?}"),
    };
    let places: Vec<_> = results[2..].iter().map(place).collect();
    assert_eq!(places, [(true, 1), (true, 2), (false, 1)]);
}

pub(super) async fn every_kind_of_task_is_fenced(lab: &Lab) {
    let (mut lobby, mut sessions) = (lab.lobby().await, lab.sessions().await);
    lab.open(&mut sessions, 1, author(1, "Ada")).await;
    lab.append(lobby.next(), vec![post(1, "a")]).await.expect("appended");
    lab.put_ticket(sessions.next(), [5; 32], key(1)).await.expect("a ticket");
    let (token, seen) = (Token { n: 1, ..sessions.token }, sessions.token);
    let stale = || sessions.at(1, 200);
    let fenced = Err(StoreError::Fenced { token, seen });
    let store = &lab.store;
    let user = UserId([1; 16]);
    assert_eq!(lab.cancel_post(stale(), user, post_id(9)).await, fenced);
    assert_eq!(lab.open_session(stale(), key(2), author(2, "Bob")).await, fenced);
    assert_eq!(lab.close_session(stale(), key(1)).await, fenced);
    let marked = lab.set_read_mark(stale(), key(1), BoardName::lobby(), Seq(1)).await;
    assert_eq!(marked, fenced);
    assert_eq!(lab.put_ticket(stale(), [6; 32], key(1)).await, fenced);
    let redeemed = lab.redeem_ticket(stale(), [5; 32], key(3)).await;
    assert_eq!(redeemed.map(|_| TaskResult::Done), fenced);
    let mut dev = lab.lease(board("dev"), holder(1)).await;
    let old = dev.next();
    lab.lease(board("dev"), holder(1)).await;
    assert!(super::fenced(&lab.create_board(old).await));
    let session = store.find_session(key(1)).await.expect("asked").expect("still open");
    assert_eq!(session.read_marks, []);
    assert_eq!(store.find_session(key(2)).await, Ok(None));
}

pub(super) async fn task_of_another_resource_is_refused(lab: &Lab) {
    let (mut lobby, mut sessions) = (lab.lobby().await, lab.sessions().await);
    let refused = |error: StoreError| matches!(error, StoreError::Refused { .. });
    let results = lab.append(sessions.next(), vec![post(1, "a")]).await.expect("accepted");
    assert!(matches!(&results[..], [TaskResult::Refused(why)] if refused((**why).clone())));
    assert!(lab.create_board(sessions.next()).await.is_err_and(refused));
    let opened = lab.open_session(lobby.next(), key(1), author(1, "Ada")).await;
    assert!(opened.is_err_and(refused));
    let cancelled = lab.cancel_post(lobby.next(), UserId([1; 16]), post_id(1)).await;
    assert!(cancelled.is_err_and(refused));
}

pub(super) async fn record_lists_grants_and_writes_in_order(lab: &Lab) {
    let mut lobby = lab.lobby().await;
    let permission = lobby.next();
    lab.append(permission.clone(), vec![post(1, "a"), post(2, "b")]).await.expect("new");
    lab.append(permission, vec![post(1, "a"), post(2, "b")]).await.expect("a repeat");
    let mut sessions = lab.sessions().await;
    lab.open(&mut sessions, 1, author(1, "Ada")).await;
    let rows = lab.store.writes(0, 100).await.expect("the record");
    let seen: Vec<_> = rows
        .iter()
        .map(|row| (row.number, row.kind.as_str(), row.token.n, row.node, row.rows))
        .collect();
    let (master, worker) = (node(1), node(200));
    assert_eq!(
        seen,
        [
            (1, "grant", 0, master, 0),
            (2, "write", 1, worker, 2),
            (3, "write", 1, worker, 0),
            (4, "grant", 0, master, 0),
            (5, "write", 1, worker, 1),
        ]
    );
    assert_eq!(rows[4].resource, Resource::Sessions(node(1)));
    assert_eq!(rows[1].resource, Resource::Board(name_of("lobby")));
    let page = lab.store.writes(3, 1).await.expect("the record");
    assert_eq!(page, rows[3..4]);
}
