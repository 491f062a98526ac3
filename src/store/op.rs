//! What can be asked of the store, as data, and how much of it at once.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    Active, Admission, Boards, ClusterRow, DeadLetter, Enrolled, Found, Holder, JoinToken, Lease,
    MasterRow, Page, Permission, Range, Renewed, SessionRow, WriteRow,
};
use crate::model::{
    ids::{BoardName, Incarnation, NodeId, PostId, Resource, SessionKey, UserId},
    message::Task,
    outcome::TaskResult,
};

/// Boards that a store holds at most.
pub const BOARDS_MAX: usize = 1000;
/// Posts in one page of a read at most.
pub const READ_POSTS_MAX: u32 = 1000;
/// Text in one page of a read, give or take one post.
pub const READ_BYTES_MAX: usize = 1024 * 1024;
/// Keys in one answer of [`Op::ClosedSince`] at most.
pub const CLOSED_PAGE_MAX: u32 = 4096;

/// An operation on the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// What cluster this is.
    Cluster,
    /// Registers a master's new life. `row.incarnation` and `row.beat` are ignored.
    RegisterMaster(MasterRow),
    /// Says that this life is alive and whether it drains. [`Stale`](super::StoreError::Stale) if a newer one is registered.
    TouchMaster {
        /// Which life.
        holder: Holder,
        /// Whether it takes nobody new.
        draining: bool,
    },
    /// Takes a master off the list, if this is still its life.
    LeaveMaster(Holder),
    /// All masters.
    Masters,
    /// Asks for a lease. [`Stale`](super::StoreError::Stale) if a newer life of the holder is registered or holds it.
    AcquireLease {
        /// Of what.
        resource: Resource,
        /// For whom.
        holder: Holder,
        /// Its term.
        ttl_ms: u64,
    },
    /// Renews every lease of a holder that is named. [`Stale`](super::StoreError::Stale) if a newer life is registered.
    RenewLeases {
        /// Whose.
        holder: Holder,
        /// Which, with their lease numbers.
        leases: Vec<(Resource, u64)>,
        /// The new term.
        ttl_ms: u64,
    },
    /// Gives a lease back; nothing if it is not this one any more.
    ReleaseLease {
        /// Of what.
        resource: Resource,
        /// Whose.
        holder: Holder,
        /// Its number.
        lease: u64,
    },
    /// Writes a wish into the lease row if there is none or it is older than 3 s.
    Wish {
        /// Of what.
        resource: Resource,
        /// Whose.
        wisher: Holder,
    },
    /// Writes a batch of users' tasks under one permission, in one transaction.
    Write {
        /// Permission that the fencing check passes or refuses, once for the batch.
        permission: Permission,
        /// 1 to [`BATCH_TASKS_MAX`](crate::model::message::BATCH_TASKS_MAX) tasks, done in order;
        /// the first of a post's id wins.
        tasks: Arc<Vec<Task>>,
    },
    /// What is known of a post id.
    FindPost {
        /// Whose post.
        user: UserId,
        /// Which.
        id: PostId,
    },
    /// Reads a board.
    Read {
        /// Which.
        board: BoardName,
        /// What of it.
        range: Range,
        /// At most so many posts, and at most [`READ_POSTS_MAX`] or about [`READ_BYTES_MAX`]: a
        /// page may be shorter than asked for; `last_seq` says whether there is more.
        limit: u32,
    },
    /// The last place of every board.
    Boards,
    /// Finds an open session.
    FindSession(SessionKey),
    /// Sessions closed or swept since a mark that the last answer gave; 0 for the oldest kept (40
    /// days). At most [`CLOSED_PAGE_MAX`]; ask again from the new mark.
    ClosedSince(u64),
    /// Says that these sessions are active. Sets every row to now after a long silence.
    TouchSessions {
        /// By whom.
        master: NodeId,
        /// Which.
        keys: Vec<SessionKey>,
    },
    /// Takes a session off the active list if it is still by this master and untouched since `seen_ms`.
    LeaveSession {
        /// By whom.
        master: NodeId,
        /// Which.
        key: SessionKey,
        /// The store time of the last touch that the asker knows; `u64::MAX` leaves at once.
        seen_ms: u64,
    },
    /// The active people.
    ActiveUsers,
    /// Keeps a dead letter, once per post; above 10,000 the oldest gives way.
    PutDeadLetter(DeadLetter),
    /// The latest dead letters, newest first, at most this many.
    DeadLetters(u32),
    /// Removes a dead letter; fine if it is gone.
    DropDeadLetter(u64),
    /// Keeps a join token; its end is cut to 24 h from now.
    PutJoinToken(JoinToken),
    /// Revokes a join token; fine if it is gone.
    RevokeJoinToken([u8; 8]),
    /// The admission lists.
    Admission,
    /// Enrols a node by a token's bearer, consuming one use; a node already enrolled gets its row back.
    Enrol {
        /// Which token.
        token: [u8; 8],
        /// SHA-256 of the bearer shown.
        bearer_sha256: [u8; 32],
        /// Whom.
        node: Enrolled,
    },
    /// Denies a node for good and revokes the token that enrolled it.
    Deny(NodeId),
    /// Everything accepted under permissions and every grant, from this row number on, for oracles and operators.
    Writes {
        /// Rows after this number.
        after: u64,
        /// At most so many.
        limit: u32,
    },
}

impl Op {
    /// Whether it may change the store.
    #[must_use]
    pub const fn is_write(&self) -> bool {
        !matches!(
            self,
            Self::Cluster
                | Self::Masters
                | Self::FindPost { .. }
                | Self::Read { .. }
                | Self::Boards
                | Self::FindSession(_)
                | Self::ClosedSince(_)
                | Self::ActiveUsers
                | Self::DeadLetters(_)
                | Self::Admission
                | Self::Writes { .. }
        )
    }

    /// What it is called, in logs and in the record of writes.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::RegisterMaster(_) => "register_master",
            Self::TouchMaster { .. } => "touch_master",
            Self::LeaveMaster(_) => "leave_master",
            Self::Masters => "masters",
            Self::AcquireLease { .. } => "acquire_lease",
            Self::RenewLeases { .. } => "renew_leases",
            Self::ReleaseLease { .. } => "release_lease",
            Self::Wish { .. } => "wish",
            Self::Write { .. } => "write",
            Self::FindPost { .. } => "find_post",
            Self::Read { .. } => "read",
            Self::Boards => "boards",
            Self::FindSession(_) => "find_session",
            Self::ClosedSince(_) => "closed_since",
            Self::TouchSessions { .. } => "touch_sessions",
            Self::LeaveSession { .. } => "leave_session",
            Self::ActiveUsers => "active_users",
            Self::PutDeadLetter(_) => "put_dead_letter",
            Self::DeadLetters(_) => "dead_letters",
            Self::DropDeadLetter(_) => "drop_dead_letter",
            Self::PutJoinToken(_) => "put_join_token",
            Self::RevokeJoinToken(_) => "revoke_join_token",
            Self::Admission => "admission",
            Self::Enrol { .. } => "enrol",
            Self::Deny(_) => "deny",
            Self::Writes { .. } => "writes",
        }
    }
}

/// What an operation answers. Each [`Op`] says by its method on [`Store`](super::Store) which one it gets.
#[expect(missing_docs, reason = "each variant is the return type of the method of its name")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    Done,
    Cluster(ClusterRow),
    Registered(Incarnation),
    Masters(Vec<MasterRow>),
    Lease(Lease),
    Renewed(Vec<(Resource, Renewed)>),
    Written(Vec<TaskResult>),
    Found(Found),
    Page(Page),
    Boards(Boards),
    Session(Option<SessionRow>),
    Closed { keys: Vec<SessionKey>, mark: u64 },
    Touched { now_ms: u64 },
    Active(Active),
    DeadLetters(Vec<DeadLetter>),
    Admission(Admission),
    Enrolled(Enrolled),
    Writes(Vec<WriteRow>),
}
