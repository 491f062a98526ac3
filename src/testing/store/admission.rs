//! Admission lists and dead letters.

use super::{Lab, board, masters::row, node, post};
use crate::model::{
    bounds::JOIN_LIFE_MAX_MS,
    ids::{Fingerprint, NodeId, Resource, Role},
    rows::{DeadLetter, Enrolled, JoinToken, MasterRow, StoreError},
};

fn newcomer(n: u8) -> Enrolled {
    let fingerprint = Fingerprint([n; 32]);
    Enrolled { node: NodeId::of(&fingerprint), fingerprint, role: Role::Worker, guard: [n; 32] }
}

async fn put_token(lab: &Lab, n: u8, uses_left: u32) -> [u8; 8] {
    let now_ms = lab.store.cluster().await.expect("a cluster").now_ms;
    let token = JoinToken {
        id: [n; 8],
        guard: [n; 32],
        bearer_sha256: [n; 32],
        role: Role::Worker,
        uses_left,
        ends_at_ms: now_ms + 2 * JOIN_LIFE_MAX_MS,
    };
    for _ in 0..2 {
        assert_eq!(lab.store.put_join_token(token.clone()).await, Ok(()));
    }
    token.id
}

fn refused(result: Result<Enrolled, StoreError>) -> bool {
    matches!(result, Err(StoreError::Refused { .. }))
}

pub(super) async fn join_token_enrols_as_often_as_it_allows(lab: &Lab) {
    let token = put_token(lab, 5, 2).await;
    for n in [1, 2] {
        let enrolled = lab.store.enrol(token, [5; 32], newcomer(n)).await;
        assert_eq!(enrolled, Ok(newcomer(n)));
    }
    assert!(refused(lab.store.enrol(token, [5; 32], newcomer(3)).await), "spent");
    let lists = lab.store.admission().await.expect("listed");
    assert_eq!(lists.tokens.len(), 1, "still a guard");
    assert_eq!((lists.tokens[0].guard, lists.tokens[0].uses_left), ([5; 32], 0));
    assert_eq!(lists.allowed, [newcomer(1), newcomer(2)]);
    let other = JoinToken { bearer_sha256: [6; 32], ..lists.tokens[0].clone() };
    let taken = lab.store.put_join_token(other).await;
    assert!(matches!(taken, Err(StoreError::Refused { .. })), "{taken:?}");
}

pub(super) async fn wrong_bearer_role_or_id_is_refused(lab: &Lab) {
    let token = put_token(lab, 5, 1).await;
    assert!(refused(lab.store.enrol(token, [6; 32], newcomer(1)).await), "bearer");
    assert!(refused(lab.store.enrol([6; 8], [5; 32], newcomer(1)).await), "token");
    let master = Enrolled { role: Role::Master, ..newcomer(1) };
    assert!(refused(lab.store.enrol(token, [5; 32], master).await), "role");
    let stolen = Enrolled { node: node(9), ..newcomer(1) };
    assert!(refused(lab.store.enrol(token, [5; 32], stolen).await), "id");
    let lists = lab.store.admission().await.expect("listed");
    assert_eq!((lists.allowed, lists.tokens[0].uses_left), (Vec::new(), 1), "no use was spent");
}

pub(super) async fn enrolled_node_gets_its_row_back(lab: &Lab) {
    let token = put_token(lab, 5, 2).await;
    lab.store.enrol(token, [5; 32], newcomer(1)).await.expect("enrolled");
    let again = Enrolled { guard: [99; 32], ..newcomer(1) };
    assert_eq!(lab.store.enrol(token, [5; 32], again.clone()).await, Ok(newcomer(1)));
    let lists = lab.store.admission().await.expect("listed");
    assert_eq!((lists.tokens[0].uses_left, lists.allowed.len()), (1, 1));
    let promoted = Enrolled { role: Role::Master, ..again };
    assert!(refused(lab.store.enrol(token, [5; 32], promoted).await));
}

pub(super) async fn denied_node_stays_out(lab: &Lab) {
    let (token, other) = (put_token(lab, 5, 9).await, put_token(lab, 6, 9).await);
    lab.store.enrol(token, [5; 32], newcomer(1)).await.expect("enrolled");
    for _ in 0..2 {
        assert_eq!(lab.store.deny(newcomer(1).node).await, Ok(()));
    }
    let lists = lab.store.admission().await.expect("listed");
    assert_eq!((lists.denied, lists.allowed), (vec![newcomer(1).node], Vec::new()));
    let left: Vec<_> = lists.tokens.iter().map(|token| token.id).collect();
    assert_eq!(left, [other], "its token is revoked, so that no new identity comes by it");
    assert!(refused(lab.store.enrol(other, [6; 32], newcomer(1)).await));
    let master = MasterRow { node: newcomer(1).node, ..row(1, "a:1") };
    let registered = lab.store.register_master(master).await;
    assert!(matches!(registered, Err(StoreError::Refused { .. })), "{registered:?}");
}

pub(super) async fn revoked_join_token_enrols_nobody(lab: &Lab) {
    let token = put_token(lab, 5, 9).await;
    for _ in 0..2 {
        assert_eq!(lab.store.revoke_join_token(token).await, Ok(()));
    }
    assert!(refused(lab.store.enrol(token, [5; 32], newcomer(1)).await));
    assert_eq!(lab.store.admission().await.expect("listed").tokens, []);
}

pub(super) async fn expired_join_token_enrols_nobody(lab: &Lab) {
    let token = put_token(lab, 5, 9).await;
    let life_ms = i64::try_from(JOIN_LIFE_MAX_MS).expect("small");
    lab.advance(life_ms - 1);
    lab.store.enrol(token, [5; 32], newcomer(1)).await.expect("within its life");
    lab.advance(1);
    assert!(refused(lab.store.enrol(token, [5; 32], newcomer(2)).await), "cut to 30 days");
    assert_eq!(lab.store.admission().await.expect("listed").tokens, []);
}

pub(super) async fn ended_join_token_stays_ended_when_the_clock_goes_back(lab: &Lab) {
    let token = put_token(lab, 5, 9).await;
    lab.advance(i64::try_from(JOIN_LIFE_MAX_MS).expect("small"));
    // A write: the store knows how late it is.
    lab.store.deny(node(77)).await.expect("denied");
    lab.advance(-60_000);
    assert!(refused(lab.store.enrol(token, [5; 32], newcomer(1)).await));
    assert_eq!(lab.store.admission().await.expect("listed").tokens, []);
}

pub(super) async fn dead_letters_are_kept_once_and_listed_newest_first(lab: &Lab) {
    let letter = |post, why: &str| DeadLetter {
        number: 0,
        resource: board("lobby"),
        post,
        why: why.to_owned(),
        at_ms: 0,
    };
    let session = DeadLetter { resource: Resource::Sessions(node(1)), ..letter(None, "tried") };
    for letter in [
        letter(Some(post(1, "a")), "first"),
        letter(Some(post(2, "b")), "second"),
        session.clone(),
        session,
        letter(Some(post(1, "a")), "a repeat"),
    ] {
        assert_eq!(lab.store.put_dead_letter(letter).await, Ok(()));
    }
    let kept = lab.store.dead_letters(10).await.expect("listed");
    let whys: Vec<_> = kept.iter().map(|letter| letter.why.as_str()).collect();
    assert_eq!(whys, ["a repeat", "tried", "second"]);
    assert_eq!(kept[2].post, Some(post(2, "b")));
    assert_eq!(lab.store.dead_letters(1).await, Ok(vec![kept[0].clone()]));
    for (before, limit, want) in [
        (Some(kept[0].number), 10, &kept[1..]),
        (Some(kept[0].number), 1, &kept[1..2]),
        (Some(kept[2].number + 1), 1, &kept[2..]),
        (Some(kept[2].number), 10, &[]),
        (Some(u64::MAX), 1, &kept[..1]),
    ] {
        let listed = lab.store.dead_letters_before(before, limit).await.expect("listed");
        assert_eq!(listed, want, "{before:?}");
    }
    for _ in 0..2 {
        assert_eq!(lab.store.drop_dead_letter(kept[1].number).await, Ok(()));
    }
    assert_eq!(lab.store.dead_letters(10).await.expect("listed").len(), 2);
}

pub(super) async fn join_token_lives_its_time_after_the_clock_went_back(lab: &Lab) {
    let (hours_ms, life_ms) = (2 * 3_600_000, 60_000);
    lab.advance(hours_ms);
    // A write: the store knows how late it was.
    lab.store.deny(node(77)).await.expect("denied");
    lab.advance(-hours_ms);
    let token = |n: u8, ends_at_ms| JoinToken {
        id: [n; 8],
        guard: [n; 32],
        bearer_sha256: [n; 32],
        role: Role::Worker,
        uses_left: 9,
        ends_at_ms,
    };
    let now_ms = lab.store.cluster().await.expect("a cluster").now_ms;
    let short = token(5, now_ms + life_ms);
    lab.store.put_join_token(short).await.expect("kept");
    lab.store.put_join_token(token(6, u64::MAX >> 1)).await.expect("kept");
    let enrol = |n: u8, node: u8| lab.store.enrol([n; 8], [n; 32], newcomer(node));
    assert_eq!(enrol(5, 1).await, Ok(newcomer(1)));
    let ends = lab.store.admission().await.expect("listed").tokens;
    let left: Vec<_> = ends.iter().map(|token| token.ends_at_ms - now_ms).collect();
    let hours_ms = hours_ms.unsigned_abs();
    assert_eq!(left, [life_ms, JOIN_LIFE_MAX_MS].map(|life_ms| hours_ms + life_ms));
    lab.advance(i64::try_from(hours_ms + life_ms).expect("small"));
    assert!(refused(enrol(5, 2).await), "its minute is over");
    assert_eq!(enrol(6, 3).await, Ok(newcomer(3)));
}
