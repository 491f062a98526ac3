//! The shared store, in domain words: what every node may ask of it and what it answers.
//!
//! An operation is data ([`Op`]), so that the same core runs behind a file, behind a
//! connection pool, and behind a simulated network that loses the answer. Every write is safe
//! to repeat. [`Store`] is the handle that nodes hold; a [`Backend`] carries operations out.
//!
//! 1. Every write of a user's task carries a [`Permission`] and is refused in its own
//!    transaction unless `(epoch, lease)` is the lease row's and `n` is not below the last seen.
//! 2. An id is unique per user over all boards; a cancelled id stays cancelled.
//! 3. In a board `seq` is 1..n without a hole and `posted_at` never falls.
//! 4. No write depends on a lease's time, only on its token.
//! 5. Time in the store is the store's own clock.
//! 6. A token names one worker, and of a board's writes one batch: what differs is refused.

pub mod contract;
#[cfg(feature = "net")]
pub mod sqlite;

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    env::BoxFuture,
    types::{
        Author, BoardName, Fingerprint, Incarnation, NodeId, Post, PostId, PostText, Resource,
        Role, Seq, SessionKey, StoreEpoch, Token, UserId,
    },
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

/// What became of one post of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Appended {
    /// It is in its board by this append.
    Committed {
        /// Its place.
        seq: Seq,
        /// Store time of the commit.
        posted_at_ms: u64,
    },
    /// It was in its board already.
    Duplicate {
        /// Its place.
        seq: Seq,
        /// Store time of that commit.
        posted_at_ms: u64,
    },
    /// The id stands for another text or board; nothing changed.
    Conflict,
    /// The id was cancelled before; nothing changed.
    Cancelled,
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

/// Boards that a store holds at most.
pub const BOARDS_MAX: usize = 1000;
/// Posts in one page of a read at most.
pub const READ_POSTS_MAX: u32 = 1000;
/// Text in one page of a read, give or take one post.
pub const READ_BYTES_MAX: usize = 1024 * 1024;
/// Posts in one append at most.
pub const APPEND_POSTS_MAX: usize = 4096;
/// Keys in one answer of [`Op::ClosedSince`] at most.
pub const CLOSED_PAGE_MAX: u32 = 4096;

/// An operation on the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// What cluster this is.
    Cluster,
    /// Registers a master's new life. `row.incarnation` and `row.beat` are ignored.
    RegisterMaster(MasterRow),
    /// Says that this life is alive and whether it drains. [`StoreError::Stale`] if a newer one is registered.
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
    /// Asks for a lease. [`StoreError::Stale`] if a newer life of the holder is registered or holds it.
    AcquireLease {
        /// Of what.
        resource: Resource,
        /// For whom.
        holder: Holder,
        /// Its term.
        ttl_ms: u64,
    },
    /// Renews every lease of a holder that is named. [`StoreError::Stale`] if a newer life is registered.
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
    /// Appends posts to the board that the permission names.
    Append {
        /// Leave to write.
        permission: Permission,
        /// At least one; the first of an id wins.
        posts: Vec<NewPost>,
    },
    /// Cancels a post id for good, unless it is in its board.
    CancelPost {
        /// Leave to write.
        permission: Permission,
        /// Whose post.
        user: UserId,
        /// Which.
        id: PostId,
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
    /// Creates the board that the permission names; fine if it is there.
    CreateBoard(Permission),
    /// Opens a session; fine if this key is open for this user.
    OpenSession {
        /// Leave to write.
        permission: Permission,
        /// The hash of its token.
        key: SessionKey,
        /// Who.
        user: Author,
    },
    /// Finds an open session.
    FindSession(SessionKey),
    /// Closes a session; fine if it is closed.
    CloseSession {
        /// Leave to write.
        permission: Permission,
        /// Which.
        key: SessionKey,
    },
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
    /// Raises a read mark; never lowers it.
    SetReadMark {
        /// Leave to write.
        permission: Permission,
        /// Whose.
        key: SessionKey,
        /// Of which board.
        board: BoardName,
        /// Up to where.
        seq: Seq,
    },
    /// Keeps a handover ticket.
    PutTicket {
        /// Leave to write.
        permission: Permission,
        /// SHA-256 of the ticket.
        ticket_sha256: [u8; 32],
        /// Whose session.
        key: SessionKey,
        /// Its life.
        ttl_ms: u64,
    },
    /// Spends a ticket for a new key of the same user's session.
    RedeemTicket {
        /// Leave to write.
        permission: Permission,
        /// SHA-256 of the ticket.
        ticket_sha256: [u8; 32],
        /// The new session's key.
        key: SessionKey,
    },
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
            Self::Append { .. } => "append",
            Self::CancelPost { .. } => "cancel_post",
            Self::FindPost { .. } => "find_post",
            Self::Read { .. } => "read",
            Self::Boards => "boards",
            Self::CreateBoard(_) => "create_board",
            Self::OpenSession { .. } => "open_session",
            Self::FindSession(_) => "find_session",
            Self::CloseSession { .. } => "close_session",
            Self::ClosedSince(_) => "closed_since",
            Self::TouchSessions { .. } => "touch_sessions",
            Self::LeaveSession { .. } => "leave_session",
            Self::ActiveUsers => "active_users",
            Self::SetReadMark { .. } => "set_read_mark",
            Self::PutTicket { .. } => "put_ticket",
            Self::RedeemTicket { .. } => "redeem_ticket",
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
    /// `grant`, or the name of the operation ([`Op::name`]).
    pub kind: String,
    /// How many rows of the store it made.
    pub rows: u32,
    /// Store time.
    pub at_ms: u64,
}

/// What an operation answers. Each [`Op`] says by its method on [`Store`] which one it gets.
#[expect(missing_docs, reason = "each variant is the return type of the method of its name")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    Done,
    Cluster(ClusterRow),
    Registered(Incarnation),
    Masters(Vec<MasterRow>),
    Lease(Lease),
    Renewed(Vec<(Resource, Renewed)>),
    Appended(Vec<Appended>),
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

/// What carries operations out.
pub trait Backend: Send + Sync + 'static {
    /// Carries out one operation. Dropping the future leaves a write's outcome unknown.
    fn call(&self, op: Op) -> BoxFuture<'_, Result<Reply, StoreError>>;
}

/// The shared store as nodes hold it.
#[derive(Clone)]
pub struct Store(Arc<dyn Backend>);

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

/// An answer of another kind than the operation's: a fault of the backend.
fn other_answer(got: &Reply) -> StoreError {
    let text = format!("{got:?}");
    let kind = text.split(['(', ' ', '{']).next().unwrap_or_default();
    StoreError::Broken { why: format!("unexpected answer {kind}") }
}

macro_rules! ask {
    ($store:expr, $op:expr, $reply:pat => $value:expr) => {
        match $store.0.call($op).await? {
            $reply => Ok($value),
            other => Err(other_answer(&other)),
        }
    };
}

/// Every method may fail with [`StoreError::Away`]; other errors are named where they can occur.
#[expect(clippy::missing_errors_doc, reason = "said once, above")]
impl Store {
    /// Wraps a backend.
    #[must_use]
    pub fn new(backend: impl Backend) -> Self {
        Self(Arc::new(backend))
    }

    /// Carries out an operation as data.
    pub async fn call(&self, op: Op) -> Result<Reply, StoreError> {
        self.0.call(op).await
    }

    /// What cluster this is.
    pub async fn cluster(&self) -> Result<ClusterRow, StoreError> {
        ask!(self, Op::Cluster, Reply::Cluster(row) => row)
    }

    /// Registers a master's new life. [`StoreError::InUse`] while the same identity is fresh elsewhere.
    pub async fn register_master(&self, row: MasterRow) -> Result<Incarnation, StoreError> {
        ask!(self, Op::RegisterMaster(row), Reply::Registered(incarnation) => incarnation)
    }

    /// Says that this life is alive. [`StoreError::Stale`] when a newer one is registered.
    pub async fn touch_master(&self, holder: Holder, draining: bool) -> Result<(), StoreError> {
        ask!(self, Op::TouchMaster { holder, draining }, Reply::Done => ())
    }

    /// Takes a master off the list.
    pub async fn leave_master(&self, holder: Holder) -> Result<(), StoreError> {
        ask!(self, Op::LeaveMaster(holder), Reply::Done => ())
    }

    /// All masters, in the order of ids.
    pub async fn masters(&self) -> Result<Vec<MasterRow>, StoreError> {
        ask!(self, Op::Masters, Reply::Masters(rows) => rows)
    }

    /// Asks for a lease.
    pub async fn acquire_lease(
        &self,
        resource: Resource,
        holder: Holder,
        ttl_ms: u64,
    ) -> Result<Lease, StoreError> {
        ask!(self, Op::AcquireLease { resource, holder, ttl_ms }, Reply::Lease(lease) => lease)
    }

    /// Renews leases; answers in the order asked.
    pub async fn renew_leases(
        &self,
        holder: Holder,
        leases: Vec<(Resource, u64)>,
        ttl_ms: u64,
    ) -> Result<Vec<(Resource, Renewed)>, StoreError> {
        ask!(self, Op::RenewLeases { holder, leases, ttl_ms }, Reply::Renewed(rows) => rows)
    }

    /// Gives a lease back.
    pub async fn release_lease(
        &self,
        resource: Resource,
        holder: Holder,
        lease: u64,
    ) -> Result<(), StoreError> {
        ask!(self, Op::ReleaseLease { resource, holder, lease }, Reply::Done => ())
    }

    /// Wishes for a lease whose holder cannot be reached.
    pub async fn wish(&self, resource: Resource, wisher: Holder) -> Result<(), StoreError> {
        ask!(self, Op::Wish { resource, wisher }, Reply::Done => ())
    }

    /// Appends posts; one answer per post, in order. [`StoreError::Fenced`], [`StoreError::Unknown`] board.
    pub async fn append(
        &self,
        permission: Permission,
        posts: Vec<NewPost>,
    ) -> Result<Vec<Appended>, StoreError> {
        ask!(self, Op::Append { permission, posts }, Reply::Appended(rows) => rows)
    }

    /// Cancels a post id, or says that it is committed. [`StoreError::Fenced`].
    pub async fn cancel_post(
        &self,
        permission: Permission,
        user: UserId,
        id: PostId,
    ) -> Result<Found, StoreError> {
        ask!(self, Op::CancelPost { permission, user, id }, Reply::Found(found) => found)
    }

    /// What is known of a post id.
    pub async fn find_post(&self, user: UserId, id: PostId) -> Result<Found, StoreError> {
        ask!(self, Op::FindPost { user, id }, Reply::Found(found) => found)
    }

    /// Reads a board. [`StoreError::Unknown`] board.
    pub async fn read(
        &self,
        board: BoardName,
        range: Range,
        limit: u32,
    ) -> Result<Page, StoreError> {
        ask!(self, Op::Read { board, range, limit }, Reply::Page(page) => page)
    }

    /// The last place of every board.
    pub async fn boards(&self) -> Result<Boards, StoreError> {
        ask!(self, Op::Boards, Reply::Boards(boards) => boards)
    }

    /// Creates the board that the permission names. [`StoreError::Fenced`]; [`StoreError::Refused`]
    /// above [`BOARDS_MAX`].
    pub async fn create_board(&self, permission: Permission) -> Result<(), StoreError> {
        ask!(self, Op::CreateBoard(permission), Reply::Done => ())
    }

    /// Opens a session. [`StoreError::Fenced`]; [`StoreError::Refused`] if the key was closed or is
    /// another user's.
    pub async fn open_session(
        &self,
        permission: Permission,
        key: SessionKey,
        user: Author,
    ) -> Result<(), StoreError> {
        ask!(self, Op::OpenSession { permission, key, user }, Reply::Done => ())
    }

    /// Closes a session. [`StoreError::Fenced`].
    pub async fn close_session(
        &self,
        permission: Permission,
        key: SessionKey,
    ) -> Result<(), StoreError> {
        ask!(self, Op::CloseSession { permission, key }, Reply::Done => ())
    }

    /// Finds an open session.
    pub async fn find_session(&self, key: SessionKey) -> Result<Option<SessionRow>, StoreError> {
        ask!(self, Op::FindSession(key), Reply::Session(row) => row)
    }

    /// Sessions closed since a mark, and the next mark; a full page says that there may be more.
    pub async fn closed_since(&self, mark: u64) -> Result<(Vec<SessionKey>, u64), StoreError> {
        ask!(self, Op::ClosedSince(mark), Reply::Closed { keys, mark } => (keys, mark))
    }

    /// Says that sessions are active; answers the store's time.
    pub async fn touch_sessions(
        &self,
        master: NodeId,
        keys: Vec<SessionKey>,
    ) -> Result<u64, StoreError> {
        ask!(self, Op::TouchSessions { master, keys }, Reply::Touched { now_ms } => now_ms)
    }

    /// Takes a session off the active list.
    pub async fn leave_session(
        &self,
        master: NodeId,
        key: SessionKey,
        seen_ms: u64,
    ) -> Result<(), StoreError> {
        ask!(self, Op::LeaveSession { master, key, seen_ms }, Reply::Done => ())
    }

    /// The active people.
    pub async fn active_users(&self) -> Result<Active, StoreError> {
        ask!(self, Op::ActiveUsers, Reply::Active(active) => active)
    }

    /// Raises a read mark. [`StoreError::Fenced`], [`StoreError::Unknown`] session or board,
    /// [`StoreError::Refused`] above the board's end.
    pub async fn set_read_mark(
        &self,
        permission: Permission,
        key: SessionKey,
        board: BoardName,
        seq: Seq,
    ) -> Result<(), StoreError> {
        ask!(self, Op::SetReadMark { permission, key, board, seq }, Reply::Done => ())
    }

    /// Keeps a handover ticket. [`StoreError::Fenced`], [`StoreError::Unknown`] session.
    pub async fn put_ticket(
        &self,
        permission: Permission,
        ticket_sha256: [u8; 32],
        key: SessionKey,
        ttl_ms: u64,
    ) -> Result<(), StoreError> {
        ask!(self, Op::PutTicket { permission, ticket_sha256, key, ttl_ms }, Reply::Done => ())
    }

    /// Spends a ticket for a new session of the same user. [`StoreError::Fenced`],
    /// [`StoreError::Unknown`] ticket (spent, ended, or its session is closed).
    pub async fn redeem_ticket(
        &self,
        permission: Permission,
        ticket_sha256: [u8; 32],
        key: SessionKey,
    ) -> Result<SessionRow, StoreError> {
        match self.0.call(Op::RedeemTicket { permission, ticket_sha256, key }).await? {
            Reply::Session(Some(row)) => Ok(row),
            other => Err(other_answer(&other)),
        }
    }

    /// Keeps a dead letter.
    pub async fn put_dead_letter(&self, letter: DeadLetter) -> Result<(), StoreError> {
        ask!(self, Op::PutDeadLetter(letter), Reply::Done => ())
    }

    /// The latest dead letters.
    pub async fn dead_letters(&self, limit: u32) -> Result<Vec<DeadLetter>, StoreError> {
        ask!(self, Op::DeadLetters(limit), Reply::DeadLetters(rows) => rows)
    }

    /// Removes a dead letter.
    pub async fn drop_dead_letter(&self, number: u64) -> Result<(), StoreError> {
        ask!(self, Op::DropDeadLetter(number), Reply::Done => ())
    }

    /// Keeps a join token.
    pub async fn put_join_token(&self, token: JoinToken) -> Result<(), StoreError> {
        ask!(self, Op::PutJoinToken(token), Reply::Done => ())
    }

    /// Revokes a join token.
    pub async fn revoke_join_token(&self, id: [u8; 8]) -> Result<(), StoreError> {
        ask!(self, Op::RevokeJoinToken(id), Reply::Done => ())
    }

    /// The admission lists.
    pub async fn admission(&self) -> Result<Admission, StoreError> {
        ask!(self, Op::Admission, Reply::Admission(lists) => lists)
    }

    /// Enrols a node. [`StoreError::Refused`] for a wrong, spent, ended or denied one.
    pub async fn enrol(
        &self,
        token: [u8; 8],
        bearer_sha256: [u8; 32],
        node: Enrolled,
    ) -> Result<Enrolled, StoreError> {
        ask!(self, Op::Enrol { token, bearer_sha256, node }, Reply::Enrolled(row) => row)
    }

    /// Denies a node for good, with the token that enrolled it.
    pub async fn deny(&self, node: NodeId) -> Result<(), StoreError> {
        ask!(self, Op::Deny(node), Reply::Done => ())
    }

    /// The record of writes.
    pub async fn writes(&self, after: u64, limit: u32) -> Result<Vec<WriteRow>, StoreError> {
        ask!(self, Op::Writes { after, limit }, Reply::Writes(rows) => rows)
    }
}
