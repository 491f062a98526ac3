//! The shared store in domain words: its operations, its handle, and its backends.
//!
//! An operation is data ([`Op`]), so that the same core runs behind a file, behind a
//! connection pool, and behind a simulated network that loses the answer. Every write is safe
//! to repeat. [`Store`] is the handle that nodes hold; a [`Backend`] carries operations out.
//!
//! 1. Users' tasks are written by one operation alone, [`Store::write`]. It carries a
//!    [`Permission`] and is refused in its own transaction unless `(epoch, lease)` is the lease
//!    row's and `n` is not below the last seen.
//! 2. An id is unique per user over all boards; a cancelled id stays cancelled.
//! 3. In a board `seq` is 1..n without a hole and `posted_at` never falls.
//! 4. No write depends on a lease's time, only on its token.
//! 5. Time in the store is the store's own clock.
//! 6. A token names one worker and one batch: what differs is refused.
//! 7. When a rule refuses one task, the others of its batch stand; the fencing check refuses the
//!    whole batch.

#[cfg(feature = "net")]
mod batch;
#[cfg(feature = "net")]
mod bounds;
pub mod closings;
#[cfg(feature = "net")]
pub mod history;
#[cfg(feature = "net")]
mod job;
mod login;
pub mod new_ends;
mod op;
pub mod own_ends;
#[cfg(feature = "net")]
pub mod postgres;
pub mod rollback;
#[cfg(feature = "net")]
pub mod sqlite;
#[cfg(feature = "net")]
mod tables;
#[cfg(feature = "net")]
mod term;

use std::{fmt, sync::Arc, time::Duration};

pub use self::{login::LoginSlot, new_ends::NewEnds, op::*, own_ends::OwnEnds};

use crate::{
    env::BoxFuture,
    model::{
        copies::{SessionDigests, SessionPage},
        ids::{
            BoardName, Incarnation, NodeId, PostId, Resource, Seq, SessionKey, StoreEpoch, UserId,
        },
        login::{StorePassword, StoreUser},
        message::Task,
        outcome::TaskResult,
        rows::*,
        variant_name,
    },
};

/// Longest time until a node that found the store away asks again.
pub const RETRY_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// Implementation of the store: carries operations out.
pub trait Backend: Send + Sync + 'static {
    /// Carries out one operation. Dropping the future leaves the outcome of a write unknown.
    fn call(&self, op: Op) -> BoxFuture<'_, Result<OpReply, StoreError>>;

    /// Adds to `ends`, until their reader drops them, where others write posts or make boards. Only a
    /// hint that it is time to read; a backend that hears of nothing ignores it.
    fn follow(&self, ends: NewEnds) {
        drop(ends);
    }

    /// Compares each new connection to the store with what a node has of it from now on: a store that ends
    /// before that is [away](StoreError::Away). A backend that is always on the same store ignores it.
    fn compare(&self, ends: OwnEnds) {
        drop(ends);
    }

    /// Notes that a read of the boards, of this epoch and as of this time of the store, lacked nothing that
    /// the node had. A backend that remembers what it saw of the store then takes none that is older.
    fn confirm(&self, epoch: StoreEpoch, as_of_ms: u64) {
        let _ = (epoch, as_of_ms);
    }

    /// Notes that the store lacks what the node had of it: what was seen since the last [`Self::confirm`]
    /// may be of an older copy.
    fn doubt(&self) {}
}

/// Cheap handle on the shared store.
#[derive(Clone)]
pub struct Store(Arc<dyn Backend>);

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

/// Error for a reply that is not the operation's: a fault of the backend.
fn other_answer(got: &OpReply) -> StoreError {
    StoreError::Broken { why: format!("unexpected answer {}", variant_name(got)) }
}

/// Error of a rule that forbids an operation.
#[cfg(feature = "net")]
fn refused(why: impl Into<String>) -> StoreError {
    StoreError::Refused { why: why.into() }
}

/// Refuses a store to a release that knows `steps` of its schema where it wants one that knows `min_reader`.
#[cfg(feature = "net")]
fn allowed(min_reader: u64, steps: usize) -> Result<(), StoreError> {
    if min_reader <= steps as u64 {
        return Ok(());
    }
    Err(refused(format!(
        "it wants a release that knows step {min_reader}, and this one knows {steps}: install a newer one"
    )))
}

/// Error of an operation on something that is not there.
#[cfg(feature = "net")]
fn unknown(what: impl Into<String>) -> StoreError {
    StoreError::Unknown { what: what.into() }
}

macro_rules! ask {
    ($store:expr, $op:expr, $reply:pat => $value:expr) => {
        match $store.0.call($op).await? {
            $reply => Ok($value),
            other => Err(other_answer(&other)),
        }
    };
}

/// Every method may fail with [`StoreError::Away`] or [`StoreError::Busy`]; other errors are named
/// where they can occur.
#[expect(clippy::missing_errors_doc, reason = "said once, above")]
impl Store {
    /// Wraps a backend.
    #[must_use]
    pub fn new(backend: impl Backend) -> Self {
        Self(Arc::new(backend))
    }

    /// Carries out an operation as data.
    pub async fn call(&self, op: Op) -> Result<OpReply, StoreError> {
        self.0.call(op).await
    }

    /// Returns the ends of boards that others write to, as far as the backend hears of them: a hint
    /// that it is time to read. The reader may wait for them for ever.
    #[must_use]
    pub fn new_ends(&self) -> NewEnds {
        let ends = NewEnds::default();
        self.follow(ends.clone());
        ends
    }

    /// Has the backend add to `ends` what it hears of.
    pub fn follow(&self, ends: NewEnds) {
        self.0.follow(ends);
    }

    /// Has the backend compare new connections with what a node has.
    pub fn compare(&self, ends: OwnEnds) {
        self.0.compare(ends);
    }

    /// Tells the backend that a read of the boards lacked nothing that the node had.
    pub fn confirm(&self, epoch: StoreEpoch, as_of_ms: u64) {
        self.0.confirm(epoch, as_of_ms);
    }

    /// Tells the backend that the store lacks what the node had of it.
    pub fn doubt(&self) {
        self.0.doubt();
    }

    /// Returns the identity of the cluster.
    pub async fn cluster(&self) -> Result<ClusterRow, StoreError> {
        ask!(self, Op::Cluster, OpReply::Cluster(row) => row)
    }

    /// Registers a new incarnation of a master and returns its number. [`StoreError::InUse`] while
    /// the same identity is alive at another address. A repetition, known by the row's guard, is the
    /// same incarnation; [`StoreError::Stale`] once that left, or if another incarnation is listed
    /// than `row.incarnation`.
    pub async fn register_master(&self, row: MasterRow) -> Result<Incarnation, StoreError> {
        ask!(self, Op::RegisterMaster(row), OpReply::Registered(incarnation) => incarnation)
    }

    /// Marks an incarnation of a master as alive. [`StoreError::Stale`] when a newer one is
    /// registered, or when it left; [`StoreError::Unknown`] when it was taken off the list for its
    /// silence alone.
    pub async fn touch_master(&self, holder: Holder, draining: bool) -> Result<(), StoreError> {
        ask!(self, Op::TouchMaster { holder, draining }, OpReply::Done => ())
    }

    /// Takes a master off the list.
    pub async fn leave_master(&self, holder: Holder) -> Result<(), StoreError> {
        ask!(self, Op::LeaveMaster(holder), OpReply::Done => ())
    }

    /// Lists all masters in the order of their ids.
    pub async fn masters(&self) -> Result<Vec<MasterRow>, StoreError> {
        ask!(self, Op::Masters, OpReply::Masters(rows) => rows)
    }

    /// Acquires a lease, or names its holder.
    pub async fn acquire_lease(
        &self,
        resource: Resource,
        holder: Holder,
        ttl_ms: u64,
    ) -> Result<Lease, StoreError> {
        ask!(self, Op::AcquireLease { resource, holder, ttl_ms }, OpReply::Lease(lease) => lease)
    }

    /// Renews leases; one result per lease, in order.
    pub async fn renew_leases(
        &self,
        holder: Holder,
        leases: Vec<(Resource, u64)>,
        ttl_ms: u64,
    ) -> Result<Vec<(Resource, Renewed)>, StoreError> {
        ask!(self, Op::RenewLeases { holder, leases, ttl_ms }, OpReply::Renewed(rows) => rows)
    }

    /// Releases a lease.
    pub async fn release_lease(
        &self,
        resource: Resource,
        holder: Holder,
        lease: u64,
    ) -> Result<(), StoreError> {
        ask!(self, Op::ReleaseLease { resource, holder, lease }, OpReply::Done => ())
    }

    /// Records a wish for a lease whose holder cannot be reached.
    pub async fn wish(&self, resource: Resource, wisher: Holder) -> Result<(), StoreError> {
        ask!(self, Op::Wish { resource, wisher }, OpReply::Done => ())
    }

    /// Writes a batch of users' tasks; one result per task, in order. [`StoreError::Fenced`];
    /// [`StoreError::Refused`] for a batch that is empty or too long. A rule that refuses one
    /// task is that task's result, and the other tasks stand.
    pub async fn write(
        &self,
        permission: Permission,
        tasks: Arc<Vec<Task>>,
    ) -> Result<Vec<TaskResult>, StoreError> {
        let want = tasks.len();
        // The guard against an older copy adds what the node knows.
        let op = Op::Write { permission, tasks, known: Seq::default() };
        let results = ask!(self, op, OpReply::Written(results) => results)?;
        if results.len() == want {
            Ok(results)
        } else {
            Err(StoreError::Broken { why: format!("{} results for {want} tasks", results.len()) })
        }
    }

    /// Finds a post by its id.
    pub async fn find_post(&self, user: UserId, id: PostId) -> Result<Found, StoreError> {
        ask!(self, Op::FindPost { user, id }, OpReply::Found(found) => found)
    }

    /// Reads posts of a board. [`StoreError::Unknown`] board.
    pub async fn read(
        &self,
        board: BoardName,
        range: Range,
        limit: u32,
    ) -> Result<Page, StoreError> {
        ask!(self, Op::Read { board, range, limit }, OpReply::Page(page) => page)
    }

    /// Lists the last place of every board.
    pub async fn boards(&self) -> Result<Boards, StoreError> {
        ask!(self, Op::Boards, OpReply::Boards(boards) => boards)
    }

    /// Finds an open session.
    pub async fn find_session(&self, key: SessionKey) -> Result<Option<SessionRow>, StoreError> {
        ask!(self, Op::FindSession(key), OpReply::Session(row) => row)
    }

    /// Lists sessions closed since a mark, and the next mark; after a full page there may be more.
    pub async fn closed_since(&self, mark: u64) -> Result<(Vec<SessionKey>, u64), StoreError> {
        ask!(self, Op::ClosedSince(mark), OpReply::Closed { keys, mark } => (keys, mark))
    }

    /// Returns the digests of all open sessions.
    pub async fn session_digests(&self) -> Result<SessionDigests, StoreError> {
        ask!(self, Op::SessionDigests, OpReply::SessionDigests(digests) => digests)
    }

    /// Lists open sessions of a bucket, in the order of keys.
    pub async fn sessions(
        &self,
        bucket: u8,
        after: Option<SessionKey>,
    ) -> Result<SessionPage, StoreError> {
        ask!(self, Op::Sessions { bucket, after }, OpReply::Sessions(page) => page)
    }

    /// Marks sessions as active; returns the store's time, ms.
    pub async fn touch_sessions(
        &self,
        master: NodeId,
        keys: Vec<SessionKey>,
    ) -> Result<u64, StoreError> {
        ask!(self, Op::TouchSessions { master, keys }, OpReply::Touched { now_ms } => now_ms)
    }

    /// Takes sessions off the active list.
    pub async fn leave_sessions(
        &self,
        master: NodeId,
        sessions: Vec<(SessionKey, u64)>,
    ) -> Result<(), StoreError> {
        ask!(self, Op::LeaveSessions { master, sessions }, OpReply::Done => ())
    }

    /// Notes that sessions are in use, those of them that are open.
    pub async fn use_sessions(&self, keys: Vec<SessionKey>) -> Result<(), StoreError> {
        ask!(self, Op::UseSessions(keys), OpReply::Done => ())
    }

    /// Lists the active users.
    pub async fn active_users(&self) -> Result<Active, StoreError> {
        ask!(self, Op::ActiveUsers, OpReply::Active(active) => active)
    }

    /// Keeps a dead letter.
    pub async fn put_dead_letter(&self, letter: DeadLetter) -> Result<(), StoreError> {
        ask!(self, Op::PutDeadLetter(letter), OpReply::Done => ())
    }

    /// Lists the latest dead letters, newest first.
    pub async fn dead_letters(&self, limit: u32) -> Result<Vec<DeadLetter>, StoreError> {
        self.dead_letters_before(None, limit).await
    }

    /// Lists the latest dead letters whose numbers are below `before`, newest first.
    pub async fn dead_letters_before(
        &self,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        ask!(self, Op::DeadLetters { before, limit }, OpReply::DeadLetters(rows) => rows)
    }

    /// Removes a dead letter.
    pub async fn drop_dead_letter(&self, number: u64) -> Result<(), StoreError> {
        ask!(self, Op::DropDeadLetter(number), OpReply::Done => ())
    }

    /// Keeps a join token.
    pub async fn put_join_token(&self, token: JoinToken) -> Result<(), StoreError> {
        ask!(self, Op::PutJoinToken(token), OpReply::Done => ())
    }

    /// Revokes a join token.
    pub async fn revoke_join_token(&self, id: [u8; 8]) -> Result<(), StoreError> {
        ask!(self, Op::RevokeJoinToken(id), OpReply::Done => ())
    }

    /// Returns the admission lists.
    pub async fn admission(&self) -> Result<Admission, StoreError> {
        ask!(self, Op::Admission, OpReply::Admission(lists) => lists)
    }

    /// Enrols a node. [`StoreError::Refused`] for a wrong, spent, ended or denied one.
    pub async fn enrol(
        &self,
        token: [u8; 8],
        bearer_sha256: [u8; 32],
        node: Enrolled,
    ) -> Result<Enrolled, StoreError> {
        ask!(self, Op::Enrol { token, bearer_sha256, node }, OpReply::Enrolled(row) => row)
    }

    /// Marks nodes as used, those of them that are enrolled.
    pub async fn use_nodes(&self, nodes: Vec<NodeId>) -> Result<(), StoreError> {
        ask!(self, Op::UseNodes(nodes), OpReply::Done => ())
    }

    /// Denies a node for good, with the token that enrolled it and its login at the store.
    /// [`StoreError::Refused`] if the node is denied, but the login could not be closed.
    pub async fn deny(&self, node: NodeId) -> Result<(), StoreError> {
        ask!(self, Op::Deny(node), OpReply::Done => ())
    }

    /// Returns whether the store makes logins for nodes.
    pub async fn makes_logins(&self) -> Result<bool, StoreError> {
        ask!(self, Op::MakesLogins, OpReply::MakesLogins(makes) => makes)
    }

    /// Gives an enrolled node a login with this password and returns its user; `None` for a store that
    /// has no logins. [`StoreError::Refused`] for a node that is not enrolled, and where this user may
    /// make no others.
    pub async fn put_login(
        &self,
        node: NodeId,
        password: StorePassword,
    ) -> Result<Option<StoreUser>, StoreError> {
        ask!(self, Op::PutLogin { node, password }, OpReply::Login(user) => user)
    }

    /// Does one small piece of upkeep, and returns whether more is due now. `clock_jumped` says
    /// that the store's clock jumped since the caller's last piece.
    pub async fn keep_up(&self, clock_jumped: bool) -> Result<bool, StoreError> {
        ask!(self, Op::KeepUp { clock_jumped }, OpReply::KeptUp { more } => more)
    }

    /// Lists accepted batches and granted leases, in the order of commits.
    pub async fn writes(&self, after: u64, limit: u32) -> Result<Vec<WriteRow>, StoreError> {
        ask!(self, Op::Writes { after, limit }, OpReply::Writes(rows) => rows)
    }
}
