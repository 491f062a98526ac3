//! Sizes and counts that have to fit one another, stated in one place and checked where they are
//! stated.
//!
//! ```text
//!   text ─► post ─► page, batch, update ─► frame of a link
//!   marks ─► session ─┘        members ─┘
//! ```
//!
//! 1. Every list that a node sends fits into a frame, whatever people write and the settings allow:
//!    it is cut by the greatest encoded length of what it holds.
//! 2. What is constant is checked by the compiler, what is set by
//!    [`Config::validate`](crate::config::Config::validate).

use crate::model::ids::{Post, PostId, PostText};

/// Greatest length of a link's frame, in bytes.
pub const FRAME_LEN_MAX: usize = 1024 * 1024;
/// Room in a frame for what stands around a list: the frame's fields, a permission, the head of a
/// page, and the head and the tag of an envelope.
pub const FRAME_HEAD_MAX: usize = 4096;
/// Bytes that the list in a message may take.
pub const LIST_BYTES_MAX: usize = FRAME_LEN_MAX - FRAME_HEAD_MAX;

/// Greatest encoded length of a post besides its text, and of any task or result without a text.
pub const POST_HEAD_MAX: usize = 256;
/// Greatest encoded length of a post.
pub const POST_LEN_MAX: usize = POST_HEAD_MAX + PostText::LEN_MAX;
/// Bytes in one page of posts, by their greatest encoded lengths.
pub const PAGE_BYTES_MAX: usize = LIST_BYTES_MAX;

/// Maximum number of boards of a cluster.
pub const BOARDS_MAX: usize = 1000;
/// Most boards that one session, or one address of people, creates at once at a master.
pub const BOARDS_AT_ONCE: u32 = 300;
/// Greatest encoded length of a board with a place in it.
pub const PLACE_LEN_MAX: usize = 42;
/// Greatest encoded length of a session: its key, its person, and a read mark for each board.
pub const SESSION_LEN_MAX: usize = POST_HEAD_MAX + BOARDS_MAX * PLACE_LEN_MAX;

/// Greatest encoded length of a task or its result.
pub const TASK_LEN_MAX: usize =
    if POST_LEN_MAX > SESSION_LEN_MAX { POST_LEN_MAX } else { SESSION_LEN_MAX };

/// Most nodes that a cluster enrols, and that a directory lists unless less is set.
pub const NODES_MAX: usize = 16_384;
/// Most masters of a cluster: so many the store lists, and every node watches.
pub const MASTERS_MAX: usize = 256;
/// Posts that a node database keeps, unless another number is set.
pub const REPLICA_POSTS_MAX: usize = 2_000_000;
/// Workers in a domain, unless another number is set.
pub const WORKERS_MAX: usize = 1024;
/// Most workers that one join token enrols.
pub const JOIN_USES_MAX: u32 = 1024;
/// Shortest life of a join token that an operator may ask for, ms: a minute.
pub const JOIN_LIFE_MIN_MS: u64 = 60 * 1000;
/// Longest life of a join token, ms: 30 days.
pub const JOIN_LIFE_MAX_MS: u64 = 30 * 24 * 3600 * 1000;
/// Greatest length of an address in the directory.
pub const ADDRESS_LEN_MAX: usize = 300;
/// Greatest length of a node's name, in bytes.
pub const NODE_NAME_LEN_MAX: usize = 64;
/// Range of the versions of the link's protocol that this release speaks: its own, and the one
/// before, so that a cluster can be upgraded node by node.
pub const LINK_VERSIONS: (u16, u16) = (1, 2);
/// First version of the link's protocol in which posts are handed over with their age, and a master
/// tells a worker to end.
pub const HAND_OVER_VERSION: u16 = 2;
/// Greatest length of the name of a release, in bytes.
pub const RELEASE_LEN_MAX: usize = 32;
/// Greatest length of a public key, SPKI DER.
pub const SPKI_LEN_MAX: usize = 600;
/// Greatest encoded length of a member of the directory.
pub const MEMBER_LEN_MAX: usize = 64 + NODE_NAME_LEN_MAX + 2 * ADDRESS_LEN_MAX + SPKI_LEN_MAX;
/// Most members in one message: the directory of a small cluster fits into one.
pub const PAGE_MEMBERS: usize = 64;

/// Largest number of tasks in one batch, on any node. Longer received lists are refused: a result
/// may take one byte on the wire and a hundred in memory.
pub const BATCH_TASKS_MAX: usize = 4096;
/// Bytes of one batch, and of its results, that may be set at most.
pub const BATCH_BYTES_MAX: usize = LIST_BYTES_MAX;
/// Greatest encoded length of what stands around the tasks of a batch, and around its results.
pub const ASSIGN_HEAD_MAX: usize = 256;
/// Greatest length of the reason that a worker gives for a batch that was not written.
pub const WHY_LEN_MAX: usize = 200;
/// Calls with batches that a master has in flight at one worker, unless more batches of one resource
/// may be: while one is answered, the store writes the other.
pub const WORKER_CALLS: usize = 2;
/// Most updates that are published together.
pub const UPDATES_MAX: usize = 64;
/// Calls with tasks of one resource that a master has in flight at another master. What comes
/// meanwhile waits, and leaves together.
pub const FORWARD_CALLS: usize = 2;
/// Most batches that a master has in flight at one worker. The worker takes twice as many: those of
/// its registration before may still be under way.
pub const WORKER_BATCHES_MAX: usize = 64;
/// Most batches of one resource that are on their way to a worker at once.
pub const BATCHES_IN_FLIGHT_MAX: usize = 8;
/// Most posts that a worker holds until the store is back. Their ids fit into one message.
pub const HELD_MAX: usize = 1000;
/// Most nodes that are asked to hold one post, two at a time.
pub const HOLD_TRIES_MAX: usize = 8;
/// Most nodes that are asked at a time for the posts that a person has on their disks.
pub const HELD_ANSWERS_MAX: usize = 32;
/// Most questions for people's posts that a master asks a node at a time.
pub const HELD_ASKS_MAX: usize = 128;
/// Most open sessions of one person. One more ends the one that was unused for the longest time.
pub const SESSIONS_OF_USER_MAX: u64 = 64;
/// Most sessions that one more session of their person ends: releases before had no bound, and what they
/// left goes little by little.
pub const SESSIONS_ENDED_MAX: u64 = 2;
/// Most look-ups of sessions that a master has under way.
pub const LOOKUPS_MAX: usize = 256;
/// Most requests at once, from one address of people, of sessions that their front end has not met.
pub const UNMET_AT_ONCE: u32 = 200;
/// Most sessions that a master asks other masters for at a time. Made-up keys cost every node that is
/// asked a look at its disk.
pub const FAR_LOOKUPS_MAX: usize = 32;
/// Most held posts that a worker has handed in at a time.
pub const HAND_INS_MAX: usize = 32;
/// Bound on the calls under way on a link each way, on every node.
pub const IN_FLIGHT_MAX: usize = 1024;

const _: () = {
    assert!(POST_LEN_MAX <= PAGE_BYTES_MAX, "a page holds one post at least");
    assert!(TASK_LEN_MAX <= BATCH_BYTES_MAX && WHY_LEN_MAX < ASSIGN_HEAD_MAX);
    assert!(BOARDS_MAX * PLACE_LEN_MAX <= LIST_BYTES_MAX, "a worker's state names every board");
    assert!(3 * BOARDS_AT_ONCE as usize <= BOARDS_MAX, "one address leaves the others most boards");
    assert!((UNMET_AT_ONCE as usize) < LOOKUPS_MAX, "one address leaves look-ups for the others");
    assert!(SESSIONS_OF_USER_MAX >= 2, "the new session and the one that it comes from stay");
    assert!(SESSIONS_ENDED_MAX >= 2, "what releases before left becomes less");
    assert!(PAGE_MEMBERS * MEMBER_LEN_MAX <= LIST_BYTES_MAX);
    assert!(4 * WORKER_BATCHES_MAX <= IN_FLIGHT_MAX, "batches leave calls of other kinds room");
    assert!(BATCHES_IN_FLIGHT_MAX <= WORKER_BATCHES_MAX);
    assert!(MASTERS_MAX + WORKERS_MAX <= NODES_MAX);
    assert!(JOIN_USES_MAX as usize <= NODES_MAX, "no token enrols more than the cluster does");
    assert!(HELD_ANSWERS_MAX * HELD_MAX * size_of::<PostId>() <= LIST_BYTES_MAX);
    assert!(FAR_LOOKUPS_MAX <= IN_FLIGHT_MAX / 8, "look-ups leave calls of other kinds room");
    assert!(HAND_INS_MAX <= IN_FLIGHT_MAX / 8, "hand-ins leave calls of other kinds room");
    assert!(HELD_ASKS_MAX <= IN_FLIGHT_MAX / 8, "questions leave calls of other kinds room");
};

/// Returns the greatest length that a post takes in a list.
#[must_use]
pub fn post_len(post: &Post) -> usize {
    POST_HEAD_MAX + post.text.as_str().len()
}

/// Returns how many of these lengths fit into one page, at least one.
pub fn fitting(lengths: impl IntoIterator<Item = usize>) -> usize {
    let mut bytes = 0;
    let fits = |len: &usize| {
        bytes += len;
        bytes <= PAGE_BYTES_MAX
    };
    lengths.into_iter().take_while(fits).count().max(1)
}
