//! Masters and their lives.

use super::{Lab, TTL_MS, board, holder, node};
use crate::model::{
    ids::Incarnation,
    rows::{Holder, Lease, MasterRow, StoreError},
};

pub(super) fn row(n: u8, link: &str) -> MasterRow {
    MasterRow {
        node: node(n),
        incarnation: Incarnation(0),
        beat: 0,
        http: format!("http://127.0.0.1:80{n}"),
        link: link.to_owned(),
        spki: vec![n; 300],
        name: format!("m{n}"),
        draining: false,
        guard: [n; 32],
    }
}

/// Row of another life of the same master: each draws a guard of its own, and saw the one before.
fn reborn(n: u8, link: &str, life: u8) -> MasterRow {
    let seen = Incarnation(u64::from(life) - 1);
    MasterRow { guard: [100 + life; 32], incarnation: seen, ..row(n, link) }
}

fn life(n: u8, incarnation: u64) -> Holder {
    Holder { node: node(n), incarnation: Incarnation(incarnation) }
}

pub(super) async fn registration_and_touch_count_up(lab: &Lab) {
    assert_eq!(lab.store.masters().await, Ok(Vec::new()));
    assert_eq!(lab.store.register_master(row(2, "b:1")).await, Ok(Incarnation(1)));
    assert_eq!(lab.store.register_master(row(1, "a:1")).await, Ok(Incarnation(1)));
    let changed = MasterRow { name: "again".to_owned(), ..reborn(1, "a:1", 2) };
    assert_eq!(lab.store.register_master(changed.clone()).await, Ok(Incarnation(2)));
    let listed = lab.store.masters().await.expect("listed");
    assert_eq!(listed.iter().map(|row| row.node).collect::<Vec<_>>(), [node(1), node(2)]);
    let beat = listed[0].beat;
    assert_eq!(listed[0], MasterRow { incarnation: Incarnation(2), beat, ..changed });
    lab.store.touch_master(life(1, 2), true).await.expect("touched");
    let listed = lab.store.masters().await.expect("listed");
    assert!(listed[0].beat > beat && listed[0].draining);
    assert_eq!(lab.store.register_master(reborn(1, "a:1", 3)).await, Ok(Incarnation(3)));
    let reborn = lab.store.masters().await.expect("listed");
    assert!(reborn[0].beat > listed[0].beat, "a restart is no silence");
}

pub(super) async fn registration_that_came_twice_is_one_life(lab: &Lab) {
    assert_eq!(lab.store.register_master(row(1, "a:1")).await, Ok(Incarnation(1)));
    lab.store.touch_master(life(1, 1), false).await.expect("touched");
    // The first answer was lost, or the first request comes late over a connection given up.
    assert_eq!(lab.store.register_master(row(1, "a:1")).await, Ok(Incarnation(1)));
    assert_eq!(lab.store.touch_master(life(1, 1), false).await, Ok(()), "it lives on");
    lab.store.leave_master(life(1, 1)).await.expect("left");
    let late = lab.store.register_master(row(1, "a:1")).await;
    assert_eq!(late, Err(StoreError::Stale), "it does not bring back who left");
    assert_eq!(lab.store.masters().await, Ok(Vec::new()));
}

pub(super) async fn registration_that_comes_after_a_newer_life_changes_nothing(lab: &Lab) {
    lab.store.register_master(row(1, "a:1")).await.expect("registered");
    lab.store.register_master(reborn(1, "a:1", 2)).await.expect("registered");
    let listed = lab.store.masters().await;
    for older in [row(1, "a:1"), MasterRow { guard: [99; 32], ..row(1, "a:1") }] {
        assert_eq!(lab.store.register_master(older).await, Err(StoreError::Stale));
    }
    assert_eq!(lab.store.masters().await, listed);
    assert_eq!(lab.store.touch_master(life(1, 2), false).await, Ok(()), "it lives on");
}

pub(super) async fn older_incarnation_is_stale(lab: &Lab) {
    let touch = |holder| lab.store.touch_master(holder, false);
    assert_eq!(touch(life(1, 1)).await, Err(StoreError::Stale), "never registered");
    for life in 1..3 {
        lab.store.register_master(reborn(1, "a:1", life)).await.expect("registered");
    }
    assert_eq!(touch(life(1, 1)).await, Err(StoreError::Stale));
    assert_eq!(touch(life(1, 2)).await, Ok(()));
    let stale = lab.store.acquire_lease(board("lobby"), life(1, 1), TTL_MS).await;
    assert_eq!(stale, Err(StoreError::Stale));
    let stale = lab.store.renew_leases(life(1, 1), Vec::new(), TTL_MS).await;
    assert_eq!(stale, Err(StoreError::Stale));
    lab.store.leave_master(life(1, 1)).await.expect("void");
    assert_eq!(lab.store.masters().await.expect("listed").len(), 1);
}

pub(super) async fn identity_in_use_at_another_address_is_refused(lab: &Lab) {
    lab.store.register_master(row(1, "a:1")).await.expect("registered");
    let copied = lab.store.register_master(reborn(1, "b:1", 2)).await;
    assert_eq!(copied, Err(StoreError::InUse { at: "a:1".to_owned() }));
    assert_eq!(lab.store.touch_master(life(1, 1), false).await, Ok(()), "it lives on");
    lab.store.leave_master(life(1, 1)).await.expect("left");
    assert_eq!(lab.store.register_master(reborn(1, "b:1", 2)).await, Ok(Incarnation(2)));
}

pub(super) async fn master_that_left_is_not_listed_and_keeps_its_count(lab: &Lab) {
    lab.store.register_master(row(1, "a:1")).await.expect("registered");
    for _ in 0..2 {
        assert_eq!(lab.store.leave_master(life(1, 1)).await, Ok(()));
    }
    assert_eq!(lab.store.masters().await, Ok(Vec::new()));
    let touched = lab.store.touch_master(life(1, 1), false).await;
    assert_eq!(touched, Err(StoreError::Stale));
    assert_eq!(lab.store.register_master(reborn(1, "a:1", 2)).await, Ok(Incarnation(2)));
}

pub(super) async fn identity_is_free_once_its_owner_is_silent(lab: &Lab) {
    lab.store.register_master(row(1, "a:1")).await.expect("registered");
    lab.advance(4000);
    lab.store.touch_master(life(1, 1), false).await.expect("touched");
    lab.advance(4000);
    let copied = lab.store.register_master(reborn(1, "b:1", 2)).await;
    assert_eq!(copied, Err(StoreError::InUse { at: "a:1".to_owned() }));
    lab.advance(1001);
    assert_eq!(lab.store.register_master(reborn(1, "b:1", 2)).await, Ok(Incarnation(2)));
}

pub(super) async fn master_off_the_list_for_its_silence_is_told_from_one_that_left(lab: &Lab) {
    for n in 1..=4 {
        let registered = lab.store.register_master(row(n, &format!("{n}:1"))).await;
        assert_eq!(registered, Ok(Incarnation(1)));
    }
    lab.store.leave_master(life(3, 1)).await.expect("left");
    lab.store.deny(node(4)).await.expect("denied");
    // No age counts on the day of the first piece.
    for _ in 0..26 {
        lab.advance(60 * 60 * 1000);
        lab.store.touch_master(life(2, 1), false).await.expect("touched");
        lab.store.keep_up(false).await.expect("a piece");
    }
    let listed = lab.store.masters().await.expect("listed");
    assert_eq!(listed.iter().map(|row| row.node).collect::<Vec<_>>(), [node(2)]);
    let touch = |holder| lab.store.touch_master(holder, false);
    let silent = touch(life(1, 1)).await;
    assert!(matches!(silent, Err(StoreError::Unknown { .. })), "{silent:?}");
    for (gone, why) in [(life(1, 0), "older"), (life(3, 1), "left"), (life(4, 1), "expelled")] {
        assert_eq!(touch(gone).await, Err(StoreError::Stale), "{why}");
    }
    assert_eq!(lab.store.register_master(reborn(1, "1:1", 2)).await, Ok(Incarnation(2)));
    assert_eq!(touch(life(1, 2)).await, Ok(()));
    assert_eq!(touch(life(1, 1)).await, Err(StoreError::Stale), "a newer life is listed");
}

pub(super) async fn leaving_master_gives_back_all_its_leases(lab: &Lab) {
    lab.lobby().await;
    lab.lease(board("dev"), holder(1)).await;
    lab.lease(board("ops"), holder(3)).await;
    lab.store.leave_master(holder(1)).await.expect("left");
    lab.lease(board("lobby"), holder(2)).await;
    lab.lease(board("dev"), holder(2)).await;
    let kept = lab.store.acquire_lease(board("ops"), holder(2), TTL_MS).await.expect("an answer");
    assert!(matches!(kept, Lease::HeldBy { .. }), "{kept:?}");
}
