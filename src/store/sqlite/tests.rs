//! What only the core can show: its pragmas, its clockwork over days, its refusals at the edges.

use super::*;
use crate::{
    store::{Appended, Holder, Lease, NewPost, Permission},
    types::{Author, BoardName, Incarnation, NodeId, PostId, Resource, Seq, Token, UserId},
};

const NEW: NewCluster = NewCluster { cluster: [7; 16], epoch: StoreEpoch(3), now_ms: 1_000_000 };

fn core() -> SqliteCore {
    SqliteCore::open_in_memory(&NEW).expect("a store in memory")
}

fn lobby() -> Resource {
    Resource::Board(BoardName::lobby())
}

fn post(n: u8, text: &str) -> NewPost {
    let author = Author { id: UserId([1; 16]), name: "Ada".parse().expect("a name") };
    NewPost { id: PostId([n; 16]), author, text: text.parse().expect("a text") }
}

fn lease(core: &mut SqliteCore, resource: Resource, node: u8, now_ms: u64) -> Token {
    let holder = Holder { node: NodeId([node; 16]), incarnation: Incarnation(1) };
    let op = Op::AcquireLease { resource, holder, ttl_ms: 3000 };
    match core.apply(&op, now_ms) {
        Ok(Reply::Lease(Lease::Granted { epoch, lease, n })) => Token { epoch, lease, n },
        other => panic!("not granted: {other:?}"),
    }
}

fn permission(token: Token, n: u64) -> Permission {
    Permission { resource: lobby(), token: Token { n, ..token }, worker: NodeId([9; 16]) }
}

#[test]
fn posts_are_numbered_and_repeats_keep_their_place() {
    let mut core = core();
    let token = lease(&mut core, lobby(), 1, 1_000_000);
    let mut append = |n, posts: Vec<NewPost>, now_ms| {
        let op = Op::Append { permission: permission(token, n), posts };
        core.apply(&op, now_ms)
    };
    let at = |seq, posted_at_ms| Appended::Committed { seq: Seq(seq), posted_at_ms };
    let first = append(1, vec![post(2, "b"), post(1, "a")], 1_000_100);
    assert_eq!(first, Ok(Reply::Appended(vec![at(1, 1_000_100), at(2, 1_000_100)])));
    // The clock went back: the board's time did not.
    let second = append(2, vec![post(1, "a"), post(3, "c"), post(2, "other")], 900_000);
    let repeat = Appended::Duplicate { seq: Seq(2), posted_at_ms: 1_000_100 };
    let want = vec![repeat, at(3, 1_000_100), Appended::Conflict];
    assert_eq!(second, Ok(Reply::Appended(want)));
    let late = append(1, vec![post(4, "late")], 1_000_200);
    assert!(matches!(late, Err(StoreError::Fenced { .. })), "{late:?}");
}
