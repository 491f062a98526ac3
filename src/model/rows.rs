//! Rows and errors of the shared store, as values.

pub use crate::model::bounds::MASTERS_MAX;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::model::{
    absence::AwayReason,
    ids::{
        Author, BoardName, Fingerprint, Incarnation, NodeId, Post, PostId, PostText, Resource,
        Role, Seq, SessionKey, StoreEpoch, Token,
    },
};

/// Permission to write one batch to one resource: a fencing token and the worker that may use
/// it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permission {
    /// Resource that it covers.
    pub resource: Resource,
    /// Fencing token.
    pub token: Token,
    /// `n` of the batch that must be the last one written of the resource, if this one was sent
    /// before that one was written.
    pub after: Option<u64>,
    /// Worker that may use it.
    pub worker: NodeId,
}

/// Holder of leases: one life of a master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Holder {
    /// The master.
    pub node: NodeId,
    /// Life of the master; a higher one of the same node is granted at once.
    pub incarnation: Incarnation,
}

/// Master as the store lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterRow {
    /// Id of the master.
    pub node: NodeId,
    /// Its current life.
    pub incarnation: Incarnation,
    /// Counter of touches; readers watch it change by their own clock.
    pub beat: u64,
    /// Address of its front end as browsers reach it, `http://host:port`.
    pub http: String,
    /// Address for links, `host:port`.
    pub link: String,
    /// Public key of its identity, SPKI DER.
    pub spki: Vec<u8>,
    /// Name for people.
    pub name: String,
    /// Whether it is being drained and takes nobody new.
    pub draining: bool,
    /// Filter for the Hellos by which it dials other masters; not a credential.
    pub guard: [u8; 32],
}

/// Post that is not committed yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewPost {
    /// Id that the client chose.
    pub id: PostId,
    /// Author of the post.
    pub author: Author,
    /// Text of the post.
    pub text: PostText,
}

/// Answer of the store about one post id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// The post is in its board.
    Committed(Post),
    /// The post was cancelled and never appears.
    Cancelled,
    /// The post is not committed; it may still come.
    Nothing,
}

/// Range of a board's posts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Range {
    /// Posts after this place, ascending from the lowest.
    After(Seq),
    /// Posts before this place: the nearest ones, listed ascending.
    Before(Seq),
    /// The last posts, listed ascending.
    Last,
}

/// Posts of a board, as one read returns them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Posts, ascending and without a gap.
    pub posts: Vec<Post>,
    /// Last place of the board at the time of the read.
    pub last_seq: Seq,
    /// Epoch of the store.
    pub epoch: StoreEpoch,
    /// Store time up to which all posts are included: what is committed later is not older.
    pub as_of_ms: u64,
}

/// Last place of every board.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boards {
    /// Boards in the order of names, with their last places.
    pub boards: Vec<(BoardName, Seq)>,
    /// Epoch of the store.
    pub epoch: StoreEpoch,
    /// Store time up to which all posts are included: what is committed later is not older.
    pub as_of_ms: u64,
}

impl Boards {
    /// Returns the last place of a board; `None` when there is no such board.
    #[must_use]
    pub fn last(&self, board: &BoardName) -> Option<Seq> {
        let at = self.boards.binary_search_by(|(name, _)| name.cmp(board)).ok()?;
        Some(self.boards[at].1)
    }

    /// Has a board end at `last` at the earliest.
    pub fn raise(&mut self, board: &BoardName, last: Seq) {
        match self.boards.binary_search_by(|(name, _)| name.cmp(board)) {
            Ok(at) => self.boards[at].1 = self.boards[at].1.max(last),
            Err(at) => self.boards.insert(at, (board.clone(), last)),
        }
    }
}

/// Session of a person, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// Hash of its token.
    pub key: SessionKey,
    /// Person of the session.
    pub user: Author,
    /// Last place read of each board, in the order of names.
    pub read_marks: Vec<(BoardName, Seq)>,
}

/// Active session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveUser {
    /// Person of the session.
    pub user: Author,
    /// Store time at which it became active.
    pub since_ms: u64,
    /// Store time at which it was last seen.
    pub last_seen_ms: u64,
}

/// Answer of the store to a question for the active people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Active {
    /// Active people of the whole system, ordered by name, then id.
    Users(Vec<ActiveUser>),
    /// Refusal: nobody touched for over 10 s, or time jumped. Touch, then ask again.
    TouchFirst,
}

/// State of a lease after its renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Renewed {
    /// Kept for another ttl.
    Kept,
    /// Kept, and another master that cannot reach the holder wishes for it.
    Wanted,
    /// Another holder has it.
    Lost,
}

/// Answer to a request for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lease {
    /// The asking master holds it.
    Granted {
        /// Epoch of the store.
        epoch: StoreEpoch,
        /// Number of the lease, counted up at each grant, also to the same holder: it may have
        /// forgotten the `n` that it gave out.
        lease: u64,
        /// Last `n` seen under it; the holder counts on from here, so its first is `n + 1`.
        n: u64,
    },
    /// Another master holds it, or it is kept for a master that wished for it.
    HeldBy {
        /// Holder of the lease.
        holder: Holder,
        /// Remaining term, in ms of store time.
        left_ms: u64,
    },
}

/// Task that ended without an outcome, kept for operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Number that the store gives it; 0 when it is put.
    pub number: u64,
    /// Resource of the task.
    pub resource: Resource,
    /// The post, when it was one.
    pub post: Option<NewPost>,
    /// Reason, with the attempts that were made.
    pub why: String,
    /// Store time at which it was put.
    pub at_ms: u64,
}

/// Join token as the store keeps it: neither field lets a reader enrol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// Public id.
    pub id: [u8; 8],
    /// Filter for Hellos; not a credential.
    pub guard: [u8; 32],
    /// SHA-256 of the bearer.
    pub bearer_sha256: [u8; 32],
    /// Role that it enrols.
    pub role: Role,
    /// Number of nodes that it still enrols.
    pub uses_left: u32,
    /// Store time at which it ends.
    pub ends_at_ms: u64,
}

/// Node that was enrolled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// Id of the node.
    pub node: NodeId,
    /// Fingerprint of its identity key.
    pub fingerprint: Fingerprint,
    /// Its role.
    pub role: Role,
    /// Guard of the node for later Hellos; the guard's id is the node id.
    pub guard: [u8; 32],
}

/// Admission lists of the store: nodes and tokens that may join.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// Tokens that still enrol or still count as guards.
    pub tokens: Vec<JoinToken>,
    /// Nodes that were enrolled.
    pub allowed: Vec<Enrolled>,
    /// Nodes that were expelled.
    pub denied: Vec<NodeId>,
}

/// Identity of the cluster, set once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRow {
    /// Random id, made with the store; cookies and Hellos carry it.
    pub cluster: [u8; 16],
    /// Epoch of the store.
    pub epoch: StoreEpoch,
    /// Store time of the answer.
    pub now_ms: u64,
}

/// Row of the record of writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteRow {
    /// Number, from 1, in the order of commits.
    pub number: u64,
    /// Resource that was written.
    pub resource: Resource,
    /// Token of the write; `n` is 0 in a grant.
    pub token: Token,
    /// Node that wrote; the holder in a grant.
    pub node: NodeId,
    /// `grant` for a lease that was granted, `write` for a batch that passed the fencing check.
    pub kind: String,
    /// Number of store rows that it made or ended.
    pub rows: u32,
    /// Store time of the commit.
    pub at_ms: u64,
}

/// Error of a store operation: nothing was done, or it is unknown whether anything was.
#[derive(Clone, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreError {
    /// The store did not answer, or with a passing error (connection, lock, full, read-only). A
    /// write may have been committed; repeating it is safe.
    #[error("the store is away: {why}")]
    Away {
        /// Reason, as far as it is known.
        reason: AwayReason,
        /// Symptom, for logs and `status`.
        why: String,
    },
    /// The permission's token is not of the current lease, is older than one the store has seen, or
    /// was seen with another worker or batch. Nothing was written.
    #[error("refused: token {token} does not follow {seen}")]
    Fenced {
        /// Token of the permission.
        token: Token,
        /// Newest token seen; all zero if the resource was never leased.
        seen: Token,
    },
    /// The batch that the permission follows is not the last one written. Nothing was written.
    #[error("refused: token {seen} was seen last, not n {after}")]
    NotNext {
        /// `n` of the batch that has to be written before.
        after: u64,
        /// Newest token seen.
        seen: Token,
    },
    /// A newer life of the asking node is registered. Nothing was written.
    #[error("a newer life of this node is registered")]
    Stale,
    /// The same identity is alive at another address. Nothing was written.
    #[error("this identity is in use at {at}")]
    InUse {
        /// Link address of the other process.
        at: String,
    },
    /// There is no such board, session, ticket, token. Nothing was written.
    #[error("no such {what}")]
    Unknown {
        /// Thing that was asked for.
        what: String,
    },
    /// A rule of the store forbids it, such as the bound on boards. Nothing was written.
    #[error("refused: {why}")]
    Refused {
        /// Rule that forbids it.
        why: String,
    },
    /// The store failed at this very operation; repeating it will fail again. Nothing was written.
    #[error("the store failed: {why}")]
    Broken {
        /// Message of the store.
        why: String,
    },
    /// Too many operations of this node wait for the store already. Nothing was done, and nothing is
    /// said of the store.
    #[error("too many operations wait for the store")]
    Busy,
}

impl StoreError {
    /// Returns the error of a store that is away.
    #[must_use]
    pub fn away(reason: AwayReason, why: impl Into<String>) -> Self {
        Self::Away { reason, why: why.into() }
    }

    /// Returns why the store cannot be used, if the error says that.
    #[must_use]
    pub const fn away_reason(&self) -> Option<AwayReason> {
        match self {
            Self::Away { reason, .. } => Some(*reason),
            Self::Broken { .. } => Some(AwayReason::Damaged),
            _ => None,
        }
    }

    /// Returns whether the store is away.
    #[must_use]
    pub const fn is_away(&self) -> bool {
        matches!(self, Self::Away { .. })
    }
}
