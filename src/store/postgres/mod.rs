//! The shared store on PostgreSQL, for clusters of many hosts.
//!
//! The same operations as on SQLite, with the same answers: the suite of `testing::store` holds both to
//! it. Only statements of standard PostgreSQL are used.
//!
//! 1. Writes of users' tasks follow each other over all hosts, by one locked row; several batches
//!    that wait together share one transaction.
//! 2. Every write raises the row `clock` to its time, and what is read is as of that row.
//! 3. A caller that waited `store_timeout` is told [`StoreError::Away`]; its write may have been
//!    committed, as after a connection that broke in the commit. An operation whose caller gave up
//!    before it began is not done any more, and keeps no other one out, however long a server that
//!    does not answer is tried.
//! 4. A server is used only while its store is the one that was seen before and not older: a
//!    standby that lags behind what was acknowledged is *away*.
//! 5. Time is the server's, read once in each transaction.
//! 6. Who follows what others write is woken by notifications; whoever gets none polls as before.
//!
//! [`backup`] writes such a store to a file as SQLite's backup does, and fills its tables from one.

mod address;
mod admission;
mod append;
pub mod backup;
mod connect;
mod connection;
mod dead_letters;
mod groups;
mod leases;
mod login;
mod maintenance;
mod masters;
mod notify;
mod pool;
mod posts;
mod presence;
mod queue;
mod readers;
mod schema;
mod session_digests;
mod sessions;
mod shared;
mod sql;
#[cfg(test)]
mod tests;
mod tls;
mod tx;
mod writes;

use std::{
    sync::{Arc, OnceLock, atomic::AtomicU64},
    time::Duration,
};

use tokio::sync::oneshot;

pub use self::address::{Address, AddressError, is_postgres, masked};
use self::{
    pool::Worker,
    queue::{JobReceiver, JobSender},
    shared::Shared,
    sql::Outcome,
    tx::Tx,
};
use super::{Op, OpReply, StoreError};
pub use crate::store::history::Expected;
use crate::{
    env::{BoxFuture, Env, TaskGuard},
    model::ids::StoreEpoch,
    store::{
        Backend, Lane, LoginSlot, NewEnds, OwnEnds, Store,
        batch::Batch,
        job::{Answer, GROUP_BATCHES_MAX, Job},
    },
};

/// Connections that read what people ask for.
const READERS: usize = 2;

/// Bounds of a store on PostgreSQL.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Time after which a caller is told that the store is away.
    pub store_timeout: Duration,
    /// Maximum number of batches in one transaction; 1 switches group commit off.
    pub group_batches_max: usize,
    /// Store that the database has to hold.
    pub expected: Expected,
    /// Whether steps of the schema may be added.
    pub may_upgrade: bool,
}

impl ServerLimits {
    /// Returns the default bounds with this time-out.
    #[must_use]
    pub const fn new(store_timeout: Duration) -> Self {
        Self {
            store_timeout,
            group_batches_max: GROUP_BATCHES_MAX,
            expected: Expected::AnyOrNew,
            may_upgrade: true,
        }
    }
}

/// Backend that hands operations to the connections. They end when it is dropped.
struct PostgresStore {
    shared: Arc<Shared>,
    /// Queue of each lane's writes, and of the life's reads.
    lanes: [JobSender; Lane::COUNT],
    readers: JobSender,
    /// Hears what others write, once somebody wants to know.
    listener: OnceLock<TaskGuard>,
    _notifier: TaskGuard,
}

/// Opens the store at an address, and creates it if there is none and it may be. While no server is
/// reached this still succeeds, after at most `store_timeout`; every operation is then
/// [`StoreError::Away`] until one is.
///
/// # Errors
/// Errors that waiting does not mend: [`StoreError::Refused`] for a log-in, a database, a setting of
/// the server or a schema that cannot be used.
pub async fn open(env: &Env, address: Address, limits: ServerLimits) -> Result<Store, StoreError> {
    open_with(env, address, None, limits).await
}

/// Opens the store as [`open`] does, with the login of a slot if there is one. While the slot is
/// empty, and while the server refuses its login, the store is [`StoreError::Away`].
///
/// # Errors
/// As those of [`open`].
pub async fn open_with(
    env: &Env,
    address: Address,
    login: Option<LoginSlot>,
    limits: ServerLimits,
) -> Result<Store, StoreError> {
    let (store, opened) = start(env, address, login, limits, None);
    match env.timeout(limits.store_timeout, opened).await {
        Ok(Ok(Err(error))) if !error.is_away() => Err(error),
        // Open, or away for now: each operation tries again.
        _ => Ok(store),
    }
}

/// Starts the connections of a store, whose time is that of `clock` if there is one. The receiver hears
/// of the first connection.
fn start(
    env: &Env,
    address: Address,
    login: Option<LoginSlot>,
    limits: ServerLimits,
    clock: Option<Arc<AtomicU64>>,
) -> (Store, oneshot::Receiver<Result<(), StoreError>>) {
    let shared = Arc::new(Shared::new(env, address, login, limits, clock));
    let work = |queue: &JobReceiver, ready| {
        let worker = Worker { shared: Arc::clone(&shared), queue: queue.clone(), ready };
        drop(env.spawn("store-worker", worker.run()));
    };
    let (ready, opened) = oneshot::channel();
    let mut ready = Some(ready);
    let lanes = std::array::from_fn(|_| {
        let (sender, queue) = queue::queue();
        work(&queue, ready.take());
        sender
    });
    let (readers, queue) = queue::queue();
    for _ in 0..READERS {
        work(&queue, None);
    }
    let notifying = notify::notify_all(Arc::clone(&shared));
    let _notifier = env.spawn("store-notifier", notifying).abort_on_drop();
    let store = PostgresStore { shared, lanes, readers, listener: OnceLock::new(), _notifier };
    (Store::new(store), opened)
}

impl Backend for PostgresStore {
    fn call(&self, op: Op) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            let [.., bulk] = &self.lanes;
            let queue = match op.lane() {
                Lane::Bulk if op.is_write() => bulk,
                Lane::Bulk => &self.readers,
                lane => self.lanes.get(lane as usize).unwrap_or(bulk),
            };
            // While there is no connection, the reason for that says more.
            let absence = || self.shared.absence().filter(StoreError::is_away);
            queue.send(Job { op, reply }).map_err(|error| match error {
                StoreError::Busy => absence().unwrap_or(StoreError::Busy),
                ended => ended,
            })?;
            match self.shared.env.timeout(self.shared.timeout, answer).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(queue::ended()),
                Err(_) => Err(absence().unwrap_or_else(|| self.shared.no_answer())),
            }
        })
    }

    fn follow(&self, ends: NewEnds) {
        let shared = &self.shared;
        shared.readers.add(ends);
        self.listener.get_or_init(|| {
            shared.env.spawn("store-listener", notify::listen(Arc::clone(shared))).abort_on_drop()
        });
    }

    fn compare(&self, ends: OwnEnds) {
        self.shared.seen.compare(&ends);
    }

    fn confirm(&self, epoch: StoreEpoch, as_of_ms: u64) {
        self.shared.seen.confirm(epoch, as_of_ms);
    }

    fn doubt(&self) {
        self.shared.seen.doubt();
    }
}

impl Tx<'_> {
    async fn carry_out(&self, op: &Op) -> Outcome<OpReply> {
        Ok(match op {
            Op::Cluster => OpReply::Cluster(self.cluster().await?),
            Op::RegisterMaster(row) => OpReply::Registered(self.register_master(row).await?),
            Op::TouchMaster { holder, draining } => {
                done(self.touch_master(*holder, *draining).await)?
            }
            Op::LeaveMaster(holder) => done(self.leave_master(*holder).await)?,
            Op::Masters => OpReply::Masters(self.masters().await?),
            Op::AcquireLease { resource, holder, ttl_ms } => {
                OpReply::Lease(self.acquire_lease(resource, *holder, *ttl_ms).await?)
            }
            Op::RenewLeases { holder, leases, ttl_ms } => {
                OpReply::Renewed(self.renew_leases(*holder, leases, *ttl_ms).await?)
            }
            Op::ReleaseLease { resource, holder, lease } => {
                done(self.release_lease(resource, *holder, *lease).await)?
            }
            Op::Wish { resource, wisher } => done(self.wish(resource, *wisher).await)?,
            Op::Write { permission, tasks, known } => {
                let batch = Batch { permission, tasks, known: *known };
                OpReply::Written(self.write(batch).await?)
            }
            Op::FindPost { user, id } => OpReply::Found(self.find_post(*user, *id).await?),
            Op::Read { board, range, limit } => {
                OpReply::Page(self.read(board, *range, *limit).await?)
            }
            Op::Boards => OpReply::Boards(self.boards().await?),
            Op::FindSession(key) => OpReply::Session(self.find_session(*key).await?),
            Op::ClosedSince(mark) => {
                let (keys, mark) = self.closed_since(*mark).await?;
                OpReply::Closed { keys, mark }
            }
            Op::SessionDigests => OpReply::SessionDigests(self.session_digests().await?),
            Op::Sessions { bucket, after } => {
                OpReply::Sessions(self.sessions(*bucket, after.as_ref()).await?)
            }
            Op::TouchSessions { master, keys } => {
                self.touch_sessions(*master, keys).await?;
                OpReply::Touched { now_ms: self.now_ms }
            }
            Op::LeaveSessions { master, sessions } => {
                done(self.leave_sessions(*master, sessions).await)?
            }
            Op::UseSessions(keys) => done(self.use_sessions(keys).await)?,
            Op::ActiveUsers => OpReply::Active(self.active_users().await?),
            Op::PutDeadLetter(letter) => done(self.put_dead_letter(letter).await)?,
            Op::DeadLetters { before, limit } => {
                OpReply::DeadLetters(self.dead_letters(*before, *limit).await?)
            }
            Op::DropDeadLetter(number) => done(self.drop_dead_letter(*number).await)?,
            Op::PutJoinToken(token) => done(self.put_join_token(token).await)?,
            Op::RevokeJoinToken(id) => done(self.revoke_join_token(id).await)?,
            Op::Admission => OpReply::Admission(self.admission().await?),
            Op::Enrol { token, bearer_sha256, node } => {
                OpReply::Enrolled(self.enrol(token, bearer_sha256, node).await?)
            }
            Op::UseNodes(nodes) => done(self.use_nodes(nodes).await)?,
            Op::Deny(node) => done(self.deny(*node).await)?,
            Op::MakesLogins => OpReply::MakesLogins(self.makes_logins().await?),
            Op::PutLogin { node, password } => {
                OpReply::Login(Some(self.put_login(*node, password).await?))
            }
            Op::KeepUp { clock_jumped } => {
                OpReply::KeptUp { more: self.keep_up(*clock_jumped).await? }
            }
            Op::Writes { after, limit } => OpReply::Writes(self.writes(*after, *limit).await?),
        })
    }
}

fn done(result: Outcome<()>) -> Outcome<OpReply> {
    result.map(|()| OpReply::Done)
}
