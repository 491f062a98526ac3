//! Operations on the store and their replies, as data, with their bounds.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    Active, Admission, Boards, ClusterRow, DeadLetter, Enrolled, Found, Holder, JoinToken, Lease,
    MasterRow, Page, Permission, Range, Renewed, SessionRow, WriteRow,
};
pub use crate::model::bounds::{BOARDS_MAX, PAGE_BYTES_MAX as READ_BYTES_MAX};
use crate::model::{
    copies::{SessionDigests, SessionPage},
    ids::{BoardName, Incarnation, NodeId, PostId, Resource, Seq, SessionKey, UserId},
    login::{StorePassword, StoreUser},
    message::Task,
    outcome::TaskResult,
};

/// Maximum number of posts in one page of a read.
pub const READ_POSTS_MAX: u32 = 1000;
/// Maximum number of keys in one reply to [`Op::ClosedSince`].
pub const CLOSED_PAGE_MAX: u32 = 4096;

/// Lane in which an operation waits for the store, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// A master's life: its row, the terms of its leases, the touch of its sessions, and what it
    /// polls. Few and short.
    Life,
    /// Leases that are asked for, given back or wished for: at most a few per resource.
    Leases,
    /// Everything else: what people write and read, and upkeep.
    Bulk,
}

impl Lane {
    /// Number of lanes.
    pub const COUNT: usize = 3;
}

/// Operation on the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Returns the identity of the cluster.
    Cluster,
    /// Registers a new incarnation of a master. `row.beat` is ignored, `row.incarnation` is the
    /// one that the master saw listed, 0 for none. With the guard of the newest incarnation it is
    /// that one again, so that it may be repeated. [`Stale`](super::StoreError::Stale) if that one
    /// left, or if a newer one is listed than the master saw.
    RegisterMaster(MasterRow),
    /// Marks an incarnation of a master as alive. [`Stale`](super::StoreError::Stale) if a newer
    /// one is registered, or if this one left or was expelled;
    /// [`Unknown`](super::StoreError::Unknown) if it was taken off the list for its silence alone: it
    /// may register anew.
    TouchMaster {
        /// The master and its incarnation.
        holder: Holder,
        /// Whether the master is being drained and takes nobody new.
        draining: bool,
    },
    /// Takes a master off the list, if this is still its incarnation.
    LeaveMaster(Holder),
    /// Lists all masters.
    Masters,
    /// Acquires a lease, or names its holder. [`Stale`](super::StoreError::Stale) if a newer
    /// incarnation of the asking master is registered or holds it.
    AcquireLease {
        /// Resource of the lease.
        resource: Resource,
        /// Master that asks.
        holder: Holder,
        /// Term of the lease, ms; cut to 60 s.
        ttl_ms: u64,
    },
    /// Renews the named leases of one holder. [`Stale`](super::StoreError::Stale) if a newer
    /// incarnation of it is registered.
    RenewLeases {
        /// Holder of the leases.
        holder: Holder,
        /// Resources with their lease numbers.
        leases: Vec<(Resource, u64)>,
        /// New term, ms; cut to 60 s.
        ttl_ms: u64,
    },
    /// Releases a lease; does nothing if the holder has another one or none.
    ReleaseLease {
        /// Resource of the lease.
        resource: Resource,
        /// Holder of the lease.
        holder: Holder,
        /// Number of the lease.
        lease: u64,
    },
    /// Records a wish for a lease in its row, if there is none or it is older than 3 s.
    Wish {
        /// Resource of the lease.
        resource: Resource,
        /// Master that cannot reach the holder.
        wisher: Holder,
    },
    /// Writes a batch of users' tasks under one permission, in one transaction.
    Write {
        /// Permission that the fencing check passes or refuses, once for the batch.
        permission: Permission,
        /// 1 to [`BATCH_TASKS_MAX`](crate::model::message::BATCH_TASKS_MAX) tasks, done in order;
        /// the first of a post's id wins.
        tasks: Arc<Vec<Task>>,
        /// Last post of the board that the writer knows; 0 for none. A store whose board ends before
        /// it is an older copy, and writes nothing.
        known: Seq,
    },
    /// Finds a post by its id.
    FindPost {
        /// Author of the post.
        user: UserId,
        /// Id of the post.
        id: PostId,
    },
    /// Reads posts of a board.
    Read {
        /// Name of the board.
        board: BoardName,
        /// Part of the board.
        range: Range,
        /// Maximum number of posts. [`READ_POSTS_MAX`] and [`READ_BYTES_MAX`] bound a page, too: it
        /// may be shorter than asked for, and its `last_seq` says whether there is more.
        limit: u32,
    },
    /// Lists the last place of every board.
    Boards,
    /// Finds an open session.
    FindSession(SessionKey),
    /// Lists sessions closed or swept since a mark that an earlier reply gave; 0 begins with the
    /// oldest kept (40 days). At most [`CLOSED_PAGE_MAX`]; ask again from the new mark.
    ClosedSince(u64),
    /// Returns the digests of all open sessions.
    SessionDigests,
    /// Lists open sessions of a bucket, a page at most.
    Sessions {
        /// Number of the bucket.
        bucket: u8,
        /// Key after which the page begins.
        after: Option<SessionKey>,
    },
    /// Marks sessions as active. After a silence of all masters, sets every row to now.
    TouchSessions {
        /// Master that has the sessions.
        master: NodeId,
        /// Keys of the sessions.
        keys: Vec<SessionKey>,
    },
    /// Takes sessions off the active list, each if this master touched it last and nobody did since
    /// the given time.
    LeaveSessions {
        /// Master that had the sessions.
        master: NodeId,
        /// Keys, each with the store time of the last touch that the master knows, ms; `u64::MAX`
        /// leaves at once.
        sessions: Vec<(SessionKey, u64)>,
    },
    /// Notes that open sessions are in use, so that they do not count as idle, and lists nobody as active.
    /// Each master says once an hour which sessions sent requests.
    UseSessions(Vec<SessionKey>),
    /// Lists the active users.
    ActiveUsers,
    /// Keeps a dead letter, once per post; above 10,000 letters the oldest is dropped.
    PutDeadLetter(DeadLetter),
    /// Lists the latest dead letters, newest first.
    DeadLetters {
        /// Number above those that are listed; none to begin with the newest.
        before: Option<u64>,
        /// Maximum number of letters.
        limit: u32,
    },
    /// Removes a dead letter; fine if it is gone.
    DropDeadLetter(u64),
    /// Keeps a join token; its life is cut to 30 days. It begins at the greatest time of any write, should
    /// the store's clock have gone back behind that.
    PutJoinToken(JoinToken),
    /// Revokes a join token; fine if it is gone.
    RevokeJoinToken([u8; 8]),
    /// Returns the admission lists.
    Admission,
    /// Enrols a node by a token's bearer and consumes one use; a node already enrolled gets its row
    /// back.
    Enrol {
        /// Id of the token.
        token: [u8; 8],
        /// SHA-256 of the bearer shown.
        bearer_sha256: [u8; 32],
        /// Node to enrol.
        node: Enrolled,
    },
    /// Marks enrolled nodes as used, so that a full list lets go of others. Each master says once an
    /// hour which nodes are in.
    UseNodes(Vec<NodeId>),
    /// Denies a node for good and revokes the token that enrolled it. Where nodes have logins of their
    /// own at the store, the node's is closed and its sessions are ended.
    Deny(NodeId),
    /// Says whether the store makes logins: it is a server, and the asking user may make others.
    MakesLogins,
    /// Gives an enrolled node a login of its own at the store, with this password from now on.
    /// [`Refused`](super::StoreError::Refused) for a node that is not enrolled, and where the asking
    /// user may make no others.
    PutLogin {
        /// Node that logs in.
        node: NodeId,
        /// Password of the login.
        password: StorePassword,
    },
    /// Does one small piece of upkeep: drops rows whose time is over.
    KeepUp {
        /// Whether the caller saw the store's clock jump since its last piece; then nothing is
        /// dropped by its age for a day.
        clock_jumped: bool,
    },
    /// Lists accepted batches and granted leases, for oracles and operators.
    Writes {
        /// Number of the row before the first.
        after: u64,
        /// Maximum number of rows.
        limit: u32,
    },
}

impl Op {
    /// Returns whether the operation may change the store.
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
                | Self::SessionDigests
                | Self::Sessions { .. }
                | Self::ActiveUsers
                | Self::DeadLetters { .. }
                | Self::Admission
                | Self::MakesLogins
                | Self::Writes { .. }
        )
    }

    /// Returns the lane in which the operation waits.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        match self {
            Self::RegisterMaster(_)
            | Self::TouchMaster { .. }
            | Self::LeaveMaster(_)
            | Self::RenewLeases { .. }
            | Self::TouchSessions { .. }
            | Self::Cluster
            | Self::Masters
            | Self::Boards
            | Self::Admission
            | Self::ClosedSince(_) => Lane::Life,
            Self::AcquireLease { .. } | Self::ReleaseLease { .. } | Self::Wish { .. } => {
                Lane::Leases
            }
            _ => Lane::Bulk,
        }
    }

    /// Returns the name of the operation, for logs.
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
            Self::SessionDigests => "session_digests",
            Self::Sessions { .. } => "sessions",
            Self::TouchSessions { .. } => "touch_sessions",
            Self::LeaveSessions { .. } => "leave_sessions",
            Self::UseSessions(_) => "use_sessions",
            Self::ActiveUsers => "active_users",
            Self::PutDeadLetter(_) => "put_dead_letter",
            Self::DeadLetters { .. } => "dead_letters",
            Self::DropDeadLetter(_) => "drop_dead_letter",
            Self::PutJoinToken(_) => "put_join_token",
            Self::RevokeJoinToken(_) => "revoke_join_token",
            Self::Admission => "admission",
            Self::Enrol { .. } => "enrol",
            Self::UseNodes(_) => "use_nodes",
            Self::Deny(_) => "deny",
            Self::MakesLogins => "makes_logins",
            Self::PutLogin { .. } => "put_login",
            Self::KeepUp { .. } => "keep_up",
            Self::Writes { .. } => "writes",
        }
    }
}

/// OpReply to an operation. The method of [`Store`](super::Store) for an [`Op`] says which one it
/// gets.
#[expect(missing_docs, reason = "each variant is the return type of the method of its name")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpReply {
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
    SessionDigests(SessionDigests),
    Sessions(SessionPage),
    Touched { now_ms: u64 },
    Active(Active),
    DeadLetters(Vec<DeadLetter>),
    Admission(Admission),
    Enrolled(Enrolled),
    MakesLogins(bool),
    Login(Option<StoreUser>),
    KeptUp { more: bool },
    Writes(Vec<WriteRow>),
}
