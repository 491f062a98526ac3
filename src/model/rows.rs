//! What the store keeps and tells, as values.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::model::ids::{
    Author, BoardName, Fingerprint, Incarnation, NodeId, Post, PostId, PostText, Resource, Role,
    Seq, SessionKey, StoreEpoch, Token,
};

/// Leave to write one batch to one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permission {
    /// What it covers.
    pub resource: Resource,
    /// Its fencing token.
    pub token: Token,
    /// The one worker that it names.
    pub worker: NodeId,
}

/// Who holds leases: one life of a master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Holder {
    /// The master.
    pub node: NodeId,
    /// Which of its lives; a higher one of the same node is granted at once.
    pub incarnation: Incarnation,
}

/// A master as the store lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterRow {
    /// Its id.
    pub node: NodeId,
    /// Its current life.
    pub incarnation: Incarnation,
    /// Counted up at each touch; readers watch it change by their own clock.
    pub beat: u64,
    /// `http://host:port` of its front end, as browsers reach it.
    pub http: String,
    /// `host:port` for links.
    pub link: String,
    /// Its identity's public key, SPKI DER.
    pub spki: Vec<u8>,
    /// A name for people.
    pub name: String,
    /// It is being drained and takes nobody new.
    pub draining: bool,
    /// Filters the Hellos by which it dials other masters; not a credential.
    pub guard: [u8; 32],
}

/// A post on its way in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewPost {
    /// The client's id of it.
    pub id: PostId,
    /// Who wrote it.
    pub author: Author,
    /// What it says.
    pub text: PostText,
}

/// What the store knows of one post id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// It is in its board.
    Committed(Post),
    /// It was cancelled and never appears.
    Cancelled,
    /// Not committed; may still come.
    Nothing,
}

/// Which posts of a board.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Range {
    /// Those after this place, ascending from the lowest.
    After(Seq),
    /// Those before this place, the nearest ones, still listed ascending.
    Before(Seq),
    /// The last ones, listed ascending.
    Last,
}

/// Some posts of a board.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Ascending, gapless.
    pub posts: Vec<Post>,
    /// The board's last place at that moment.
    pub last_seq: Seq,
    /// The store's epoch.
    pub epoch: StoreEpoch,
    /// Store time of the read.
    pub as_of_ms: u64,
}

/// The last place of every board.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boards {
    /// In the order of names.
    pub boards: Vec<(BoardName, Seq)>,
    /// The store's epoch.
    pub epoch: StoreEpoch,
    /// Store time of the read.
    pub as_of_ms: u64,
}

impl Boards {
    /// The last place of a board; `None` when there is no such board.
    #[must_use]
    pub fn last(&self, board: &BoardName) -> Option<Seq> {
        let at = self.boards.binary_search_by(|(name, _)| name.cmp(board)).ok()?;
        Some(self.boards[at].1)
    }
}

/// A person's session as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// The hash of its token.
    pub key: SessionKey,
    /// Who it is.
    pub user: Author,
    /// Up to where each board was read, in the order of names.
    pub read_marks: Vec<(BoardName, Seq)>,
}

/// One active session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveUser {
    /// Who.
    pub user: Author,
    /// Active since, store time.
    pub since_ms: u64,
    /// Last seen, store time.
    pub last_seen_ms: u64,
}

/// The active people of the whole system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Active {
    /// Ordered by name, then id.
    Users(Vec<ActiveUser>),
    /// Nobody touched for over 10 s, or time jumped: touch, then ask again.
    TouchFirst,
}

/// What became of a lease at renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Renewed {
    /// Kept for another ttl.
    Kept,
    /// Kept, and another master that cannot reach the holder wishes for it.
    Wanted,
    /// Another holder has it.
    Lost,
}

/// The answer to asking for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lease {
    /// The asker holds it.
    Granted {
        /// The store's epoch.
        epoch: StoreEpoch,
        /// Counted up at each grant, to the same holder too: it may have forgotten which `n` it
        /// gave out.
        lease: u64,
        /// The last `n` seen under it; the asker counts on from here, so its first is `n + 1`.
        n: u64,
    },
    /// Another master holds it, or it is kept for a wisher.
    HeldBy {
        /// Who.
        holder: Holder,
        /// How much of its term is left, store time.
        left_ms: u64,
    },
}

/// A task that ended without an outcome, kept for operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The store's number of it; 0 when putting.
    pub number: u64,
    /// Its resource.
    pub resource: Resource,
    /// The post, when it was one.
    pub post: Option<NewPost>,
    /// What was tried and how it ended.
    pub why: String,
    /// Store time.
    pub at_ms: u64,
}

/// A join token as the store keeps it: neither field lets a reader enrol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// Its public id.
    pub id: [u8; 8],
    /// Filters Hellos; not a credential.
    pub guard: [u8; 32],
    /// SHA-256 of the bearer.
    pub bearer_sha256: [u8; 32],
    /// Which role it enrols.
    pub role: Role,
    /// How many nodes it still enrols.
    pub uses_left: u32,
    /// Store time of its end.
    pub ends_at_ms: u64,
}

/// An enrolled node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// Who.
    pub node: NodeId,
    /// Its identity key's fingerprint.
    pub fingerprint: Fingerprint,
    /// Its role.
    pub role: Role,
    /// Its own guard for later Hellos; its id is the node id.
    pub guard: [u8; 32],
}

/// Who may join: a master's copy of the store's admission lists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// Tokens that still enrol or still count as guards.
    pub tokens: Vec<JoinToken>,
    /// Nodes that were enrolled.
    pub allowed: Vec<Enrolled>,
    /// Nodes that were expelled.
    pub denied: Vec<NodeId>,
}

/// What the cluster is, set once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRow {
    /// Random, made with the store; cookies and Hellos carry it.
    pub cluster: [u8; 16],
    /// The store's epoch.
    pub epoch: StoreEpoch,
    /// Store time.
    pub now_ms: u64,
}

/// One row of the record of writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteRow {
    /// 1.., in the order of commits.
    pub number: u64,
    /// Of what.
    pub resource: Resource,
    /// Under which token; `n` is 0 in a grant.
    pub token: Token,
    /// Who wrote; the holder in a grant.
    pub node: NodeId,
    /// `grant` for a lease that was granted, `write` for a batch that passed the fencing check.
    pub kind: String,
    /// Rows of the store that it made or ended.
    pub rows: u32,
    /// Store time.
    pub at_ms: u64,
}

/// Why an operation did nothing, or is not known to have done anything.
#[derive(Clone, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreError {
    /// The store did not answer, or with a passing error (connection, lock, full, read-only). A
    /// write may have been committed; repeating it is safe.
    #[error("the store is away: {why}")]
    Away {
        /// What was seen.
        why: String,
    },
    /// The permission's token is not of the current lease, is older than one the store has seen, or
    /// was seen with another worker or batch. Nothing was written.
    #[error("refused: token {token} does not follow {seen}")]
    Fenced {
        /// The token shown.
        token: Token,
        /// The newest seen; all zero if the resource was never leased.
        seen: Token,
    },
    /// The asker is not what it was: a newer life is registered. Nothing was written.
    #[error("a newer life of this node is registered")]
    Stale,
    /// The same identity is alive at another address. Nothing was written.
    #[error("this identity is in use at {at}")]
    InUse {
        /// Its link address.
        at: String,
    },
    /// There is no such board, session, ticket, token. Nothing was written.
    #[error("no such {what}")]
    Unknown {
        /// What was asked for.
        what: String,
    },
    /// Against a rule of the store, such as too many boards. Nothing was written.
    #[error("refused: {why}")]
    Refused {
        /// Which rule.
        why: String,
    },
    /// The store failed at this very operation; repeating it will fail again. Nothing was written.
    #[error("the store failed: {why}")]
    Broken {
        /// What it said.
        why: String,
    },
}

impl StoreError {
    /// Whether waiting may help.
    #[must_use]
    pub const fn is_away(&self) -> bool {
        matches!(self, Self::Away { .. })
    }
}
