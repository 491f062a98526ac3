//! Presence: G12.

use super::{Lab, author, key, node};
use crate::model::rows::Active;

/// Ids of the people on the list, in its order; `None` when a touch must come first.
async fn people(lab: &Lab) -> Option<Vec<u8>> {
    match lab.store.active_users().await.expect("an answer") {
        Active::Users(users) => Some(users.iter().map(|active| active.user.id.0[0]).collect()),
        Active::TouchFirst => None,
    }
}

async fn touch(lab: &Lab, master: u8, keys: &[u8]) -> u64 {
    let keys = keys.iter().map(|n| key(*n)).collect();
    lab.store.touch_sessions(node(master), keys).await.expect("touched")
}

/// Sessions 1 to 3 of users 1 to 3.
async fn three_people(lab: &Lab) {
    let mut sessions = lab.sessions().await;
    for (n, name) in [(1, "Cleo"), (2, "Ada"), (3, "Bob")] {
        lab.open(&mut sessions, n, author(n, name)).await;
    }
}

pub(super) async fn touched_sessions_are_listed_once_per_user_by_name(lab: &Lab) {
    three_people(lab).await;
    assert_eq!(people(lab).await, None, "nobody ever touched");
    touch(lab, 1, &[]).await;
    assert_eq!(people(lab).await, Some(vec![]), "open is not active");
    touch(lab, 1, &[1, 3, 99]).await;
    let now_ms = touch(lab, 2, &[2]).await;
    assert_eq!(people(lab).await, Some(vec![2, 3, 1]), "one that is not open is not there");
    let Ok(Active::Users(users)) = lab.store.active_users().await else { panic!("no list") };
    assert_eq!((users[0].since_ms, users[0].last_seen_ms), (now_ms, now_ms));
    // A second session of the same user, by a ticket.
    let mut sessions = lab.sessions().await;
    lab.put_ticket(sessions.next(), [5; 32], key(1)).await.expect("a ticket");
    lab.redeem_ticket(sessions.next(), [5; 32], key(4)).await.expect("redeemed");
    touch(lab, 2, &[4]).await;
    assert_eq!(people(lab).await, Some(vec![2, 3, 1]));
    lab.close_session(sessions.next(), key(2)).await.expect("closed");
    assert_eq!(people(lab).await, Some(vec![3, 1]));
}

pub(super) async fn only_the_last_master_removes_a_session_from_the_list(lab: &Lab) {
    three_people(lab).await;
    touch(lab, 1, &[1, 2]).await;
    touch(lab, 2, &[1]).await;
    let leave = |master, n| lab.store.leave_sessions(node(master), vec![(key(n), u64::MAX)]);
    leave(1, 1).await.expect("void: it moved on to master 2");
    leave(1, 2).await.expect("left");
    leave(1, 2).await.expect("left already");
    assert_eq!(people(lab).await, Some(vec![1]));
}

pub(super) async fn session_not_touched_is_off_the_list(lab: &Lab) {
    three_people(lab).await;
    let began_ms = touch(lab, 1, &[1, 2, 3]).await;
    for _ in 0..5 {
        lab.advance(5000);
        touch(lab, 1, &[1]).await;
        touch(lab, 2, &[]).await;
    }
    assert_eq!(people(lab).await, Some(vec![2, 3, 1]), "25 s");
    lab.advance(1);
    assert_eq!(people(lab).await, Some(vec![1]));
    lab.advance(5000);
    touch(lab, 1, &[1, 2]).await;
    let Ok(Active::Users(users)) = lab.store.active_users().await else { panic!("no list") };
    let since: Vec<_> = users.iter().map(|user| user.since_ms - began_ms).collect();
    assert_eq!(since, [30_001, 0], "a returning session is active since its return");
}

pub(super) async fn active_list_after_a_silence_waits_for_a_touch(lab: &Lab) {
    three_people(lab).await;
    touch(lab, 1, &[1]).await;
    lab.advance(3000);
    touch(lab, 1, &[2]).await;
    lab.advance(10_000);
    assert_eq!(people(lab).await, Some(vec![2, 1]));
    lab.advance(60_000);
    assert_eq!(people(lab).await, None);
    let now_ms = touch(lab, 3, &[]).await;
    let Ok(Active::Users(users)) = lab.store.active_users().await else { panic!("no list") };
    let seen: Vec<_> = users.iter().map(|user| user.last_seen_ms).collect();
    assert_eq!(seen, [now_ms, now_ms], "all were set to now");
    for _ in 0..3 {
        lab.advance(9000);
        touch(lab, 3, &[]).await;
    }
    assert_eq!(people(lab).await, Some(vec![]), "and then age like any other");
}

pub(super) async fn active_list_after_the_clock_went_back_waits_for_a_touch(lab: &Lab) {
    three_people(lab).await;
    touch(lab, 1, &[1]).await;
    lab.advance(-600_000);
    assert_eq!(people(lab).await, None);
    let now_ms = touch(lab, 1, &[]).await;
    let Ok(Active::Users(users)) = lab.store.active_users().await else { panic!("no list") };
    assert_eq!((users[0].since_ms, users[0].last_seen_ms), (now_ms, now_ms));
}

pub(super) async fn touch_after_a_silence_does_not_revive_expired_sessions(lab: &Lab) {
    three_people(lab).await;
    touch(lab, 1, &[1, 2]).await;
    for _ in 0..3 {
        lab.advance(9000);
        touch(lab, 1, &[2]).await;
    }
    // 1 has been off the list for 2 s.
    lab.advance(60_000);
    touch(lab, 1, &[]).await;
    assert_eq!(people(lab).await, Some(vec![2]));
}

pub(super) async fn leave_after_a_newer_touch_is_ignored(lab: &Lab) {
    three_people(lab).await;
    let seen_ms = touch(lab, 1, &[1, 2]).await;
    lab.advance(2000);
    touch(lab, 1, &[1]).await;
    let leave = [1, 2].map(|n| (key(n), seen_ms)).to_vec();
    lab.store.leave_sessions(node(1), leave).await.expect("done");
    assert_eq!(people(lab).await, Some(vec![1]));
}

pub(super) async fn use_keeps_a_session_open_and_lists_nobody(lab: &Lab) {
    const STEP_MS: i64 = 20 * 3_600_000;
    three_people(lab).await;
    touch(lab, 1, &[]).await;
    // Longer than an idle session lives. Upkeep that misses a whole day drops nothing.
    for _ in 0..37 {
        lab.advance(STEP_MS);
        lab.store.use_sessions(vec![key(1), key(99)]).await.expect("noted");
        while lab.store.keep_up(false).await.expect("kept up") {}
    }
    touch(lab, 1, &[]).await;
    assert_eq!(people(lab).await, Some(vec![]), "in use is not active");
    for (n, is_open) in [(1, true), (2, false), (99, false)] {
        let found = lab.store.find_session(key(n)).await.expect("asked");
        assert_eq!(found.is_some(), is_open, "{n}");
    }
}
