//! Leases, renewals, wishes.

use super::{Lab, TTL_MS, board, fenced, holder, post};
use crate::model::{
    ids::Incarnation,
    rows::{Holder, Lease, Renewed, StoreError},
};

/// Asks for the lobby's lease.
async fn ask(lab: &Lab, holder: Holder) -> Lease {
    lab.store.acquire_lease(board("lobby"), holder, TTL_MS).await.expect("an answer")
}

fn held_by(lease: Lease) -> Option<Holder> {
    match lease {
        Lease::HeldBy { holder, .. } => Some(holder),
        Lease::Granted { .. } => None,
    }
}

async fn renew(lab: &Lab, holder: Holder, lease: u64) -> Renewed {
    let renewed = lab.store.renew_leases(holder, vec![(board("lobby"), lease)], TTL_MS).await;
    let renewed = renewed.expect("an answer");
    assert_eq!(renewed.len(), 1);
    renewed[0].1
}

pub(super) async fn held_lease_is_not_granted_to_another_master(lab: &Lab) {
    lab.lobby().await;
    match ask(lab, holder(2)).await {
        Lease::HeldBy { holder: by, left_ms } => {
            assert_eq!(by, holder(1));
            assert!(left_ms <= TTL_MS, "{left_ms}");
        }
        granted => panic!("{granted:?}"),
    }
    lab.lease(board("dev"), holder(2)).await;
}

pub(super) async fn every_grant_raises_the_lease_number(lab: &Lab) {
    let first = lab.lobby().await;
    lab.append(first.at(4, 9), vec![post(1, "a")]).await.expect("appended");
    // It forgot which n it gave out, so it must not count on under the same number.
    let second = lab.lobby().await;
    assert_eq!(second.token.lease, first.token.lease + 1);
    assert!(fenced(&lab.append(first.at(5, 9), vec![post(2, "b")]).await));
    let granted = lab.store.writes(0, 10).await.expect("the record");
    let grants = granted.iter().filter(|row| row.kind == "grant");
    assert_eq!(grants.map(|row| row.token.lease).collect::<Vec<_>>(), [1, 2]);
}

pub(super) async fn newer_incarnation_takes_over_at_once(lab: &Lab) {
    let old = lab.lobby().await;
    let newer = Holder { incarnation: Incarnation(2), ..holder(1) };
    let new = lab.lease(board("lobby"), newer).await;
    assert_eq!(new.token.lease, old.token.lease + 1);
    let stale = lab.store.acquire_lease(board("lobby"), holder(1), TTL_MS).await;
    assert_eq!(stale, Err(StoreError::Stale));
    assert_eq!(renew(lab, holder(1), old.token.lease).await, Renewed::Lost);
}

pub(super) async fn released_lease_is_granted_to_another_master(lab: &Lab) {
    let lobby = lab.lobby().await;
    let release = |holder, lease| lab.store.release_lease(board("lobby"), holder, lease);
    assert_eq!(release(holder(2), lobby.token.lease).await, Ok(()));
    assert_eq!(release(holder(1), lobby.token.lease + 1).await, Ok(()));
    assert_eq!(held_by(ask(lab, holder(2)).await), Some(holder(1)), "neither was its release");
    assert_eq!(release(holder(1), lobby.token.lease).await, Ok(()));
    assert_eq!(renew(lab, holder(1), lobby.token.lease).await, Renewed::Lost);
    let next = lab.lease(board("lobby"), holder(2)).await;
    assert_eq!(next.token.lease, lobby.token.lease + 1);
}

pub(super) async fn renewal_reports_each_lost_lease(lab: &Lab) {
    let lobby = lab.lobby().await;
    let dev = lab.lease(board("dev"), holder(2)).await;
    let asked = vec![
        (board("never"), 1),
        (board("lobby"), lobby.token.lease),
        (board("dev"), dev.token.lease),
        (board("lobby"), lobby.token.lease + 1),
    ];
    let told = lab.store.renew_leases(holder(1), asked.clone(), TTL_MS).await.expect("told");
    let (resources, fates): (Vec<_>, Vec<_>) = told.into_iter().unzip();
    assert_eq!(resources, asked.into_iter().map(|(resource, _)| resource).collect::<Vec<_>>());
    assert_eq!(fates, [Renewed::Lost, Renewed::Kept, Renewed::Lost, Renewed::Lost]);
}

pub(super) async fn wish_is_reported_at_renewal_and_served_first(lab: &Lab) {
    let lobby = lab.lobby().await;
    let wish = |by| lab.store.wish(board("lobby"), by);
    wish(holder(1)).await.expect("void: it is the holder's own");
    assert_eq!(renew(lab, holder(1), lobby.token.lease).await, Renewed::Kept);
    wish(holder(2)).await.expect("wished");
    wish(holder(3)).await.expect("void: there is one");
    assert_eq!(renew(lab, holder(1), lobby.token.lease).await, Renewed::Wanted);
    assert_eq!(held_by(ask(lab, holder(2)).await), Some(holder(1)), "a wish takes nothing");
    let released = lab.store.release_lease(board("lobby"), holder(1), lobby.token.lease).await;
    assert_eq!(released, Ok(()));
    let served = lab.lease(board("lobby"), holder(2)).await;
    assert_eq!(renew(lab, holder(2), served.token.lease).await, Renewed::Kept, "it is served");
    assert_eq!(lab.store.wish(board("never"), holder(2)).await, Ok(()));
}

pub(super) async fn renewal_prolongs_a_term_and_expired_lease_is_free(lab: &Lab) {
    let lobby = lab.lobby().await;
    lab.advance(2000);
    assert_eq!(renew(lab, holder(1), lobby.token.lease).await, Renewed::Kept);
    lab.advance(2000);
    assert_eq!(
        ask(lab, holder(2)).await,
        Lease::HeldBy { holder: holder(1), left_ms: TTL_MS - 2000 }
    );
    lab.advance(1001);
    let next = lab.lease(board("lobby"), holder(2)).await;
    assert_eq!(next.token.lease, lobby.token.lease + 1);
    assert_eq!(renew(lab, holder(1), lobby.token.lease).await, Renewed::Lost);
}

pub(super) async fn expired_lease_still_writes_until_the_next_grant(lab: &Lab) {
    let lobby = lab.lobby().await;
    lab.advance(60_000);
    lab.append(lobby.at(1, 9), vec![post(1, "late")]).await.expect("nobody else asked");
    lab.lease(board("lobby"), holder(2)).await;
    assert!(fenced(&lab.append(lobby.at(2, 9), vec![post(2, "too late")]).await));
}

pub(super) async fn term_is_cut_after_the_clock_went_back(lab: &Lab) {
    lab.lobby().await;
    lab.advance(-600_000);
    match ask(lab, holder(2)).await {
        Lease::HeldBy { left_ms, .. } => assert!(left_ms <= TTL_MS, "{left_ms}"),
        granted => panic!("{granted:?}"),
    }
    lab.advance(i64::try_from(TTL_MS).expect("small") + 1);
    lab.lease(board("lobby"), holder(2)).await;
}

pub(super) async fn expired_wish_gives_way_to_another(lab: &Lab) {
    let lobby = lab.lobby().await;
    let wish = |by| lab.store.wish(board("lobby"), by);
    let release = || lab.store.release_lease(board("lobby"), holder(1), lobby.token.lease);
    wish(holder(2)).await.expect("wished");
    lab.advance(2000);
    wish(holder(3)).await.expect("void");
    assert_eq!(renew(lab, holder(1), lobby.token.lease).await, Renewed::Wanted);
    lab.advance(1001);
    wish(holder(3)).await.expect("the first one is too old");
    release().await.expect("released");
    assert_eq!(held_by(ask(lab, holder(2)).await), Some(holder(3)));
    lab.lease(board("lobby"), holder(3)).await;
}

pub(super) async fn released_lease_is_reserved_for_its_wisher_for_a_second(lab: &Lab) {
    let lobby = lab.lobby().await;
    lab.store.wish(board("lobby"), holder(2)).await.expect("wished");
    lab.store.release_lease(board("lobby"), holder(1), lobby.token.lease).await.expect("released");
    lab.advance(900);
    for other in [1, 3] {
        assert_eq!(held_by(ask(lab, holder(other)).await), Some(holder(2)), "{other}");
    }
    lab.advance(-600_000);
    assert_eq!(held_by(ask(lab, holder(3)).await), Some(holder(2)));
    lab.advance(1001);
    lab.lease(board("lobby"), holder(3)).await;
}
