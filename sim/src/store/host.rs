//! Host of the store: its durable state, and the process that serves it.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chatchat::{
    config::Config,
    env::{
        BoxFuture, BoxStream, Env,
        lanes::{LaneReceiver, LaneSender, TrySendError, lanes},
    },
    model::{absence::AwayReason, event::FaultPoint, outcome::TaskResult, rows::StoreError},
    store::{
        Backend, Lane, Op, OpReply, Store,
        sqlite::{
            NewCluster, SqliteCore,
            group::{self, Answer, Job, Jobs},
        },
    },
};
use chatchat_scenarios::fault::Dose;
use dst_world::FaultId;
use rand_chacha::ChaCha20Rng;
use rand_core::Rng;
use tokio::sync::{Mutex as Turn, MutexGuard as Held, oneshot};

use super::{
    files::Files,
    frames,
    journal::Journal,
    pool::{self, Taken},
    remote::transmit,
    troubles::{Trouble, Troubles},
};

/// Maximum number of operations of one connection and lane that wait to be written, or to be read, or
/// of answers to be sent.
const WAITING_MAX: usize = 1024;

/// Pause after a connection that could not be taken.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Reads of one connection at a time, as in a process on a file.
const READERS: usize = 2;

/// Longest pause before a transaction is repeated that was undone for others, ms. As on PostgreSQL.
const PAUSE_MAX_MS: u64 = 20;

/// Operation that reads, with its number on its connection.
#[derive(Debug)]
struct Read {
    number: u64,
    op: Op,
}

/// Reads that wait.
type Reads = LaneReceiver<Read, { Lane::COUNT }>;

/// Way of answers onto a connection.
type Out = LaneSender<Vec<u8>, { Lane::COUNT }>;

/// Listener that is told the address of whoever is given a page with posts.
type OnPage = Arc<dyn Fn(&str) + Send + Sync>;

/// Durable state of the store. It survives crashes of its host.
#[derive(Clone)]
pub struct StoreHost {
    pub(super) core: Arc<Mutex<SqliteCore>>,
    pub(super) journal: Arc<Mutex<Journal>>,
    /// Files of a store that is not in memory.
    pub(super) files: Option<Arc<Files>>,
    troubles: Arc<Mutex<Troubles>>,
    /// Time for which a transaction is repeated that others undo.
    timeout: Duration,
    /// Time of the store instead of its host's wall clock, in tests.
    clock: Option<Arc<AtomicU64>>,
    on_page: Option<OnPage>,
}

impl StoreHost {
    /// Creates an empty store.
    ///
    /// # Errors
    /// As [`SqliteCore::open_in_memory`].
    pub fn new(new: &NewCluster) -> Result<Self, StoreError> {
        let core = Arc::new(Mutex::new(SqliteCore::open_in_memory(new)?));
        let journal = Arc::new(Mutex::new(Journal { new: *new, writes: None, clock_ms: 0 }));
        let timeout = Config::default().store_timeout;
        let troubles = Arc::default();
        Ok(Self { core, journal, files: None, troubles, timeout, clock: None, on_page: None })
    }

    /// Has transactions repeated for this `store_timeout` of the nodes, instead of the usual one.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Tells who is given a page with posts.
    #[must_use]
    pub(crate) fn on_page(self, tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { on_page: Some(Arc::new(tell)), ..self }
    }

    /// Gives it the time of this clock, ms since the Unix epoch, instead of its host's wall clock.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn with_clock(self, clock: Arc<AtomicU64>) -> Self {
        Self { clock: Some(clock), ..self }
    }

    fn now_ms(&self, env: &Env) -> u64 {
        self.clock.as_ref().map_or_else(|| env.wall().ms, |clock| clock.load(Ordering::Relaxed))
    }

    /// Returns the parameters that it was made with.
    pub(super) fn made_with(&self) -> NewCluster {
        self.journal().new
    }

    fn troubles(&self) -> MutexGuard<'_, Troubles> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a trouble of writes, which draws from `rng`.
    pub fn begin_trouble(&self, fault: FaultId, trouble: Trouble, dose: Dose, rng: dst_world::Rng) {
        self.troubles().begin(fault, trouble, dose, rng);
    }

    /// Leaves so many connections, each of which a statement keeps `by` longer: the others wait.
    pub fn exhaust(&self, fault: FaultId, count: u32, by: Duration) {
        self.troubles().begin_pool(fault, count, by);
    }

    /// Lets the primary write without any answer, until the host is started again, as its standby.
    /// `rng` draws which of its last transactions the standby has.
    pub fn begin_promotion(&self, fault: FaultId, rng: dst_world::Rng) {
        self.troubles().begin_promotion(fault, rng);
    }

    /// Returns whether the primary of a promotion has not ended yet.
    #[must_use]
    pub fn is_promoting(&self, fault: FaultId) -> bool {
        self.troubles().is_promoting(fault)
    }

    /// Ends a trouble and returns how many operations it hit, or how many transactions a promotion held.
    pub fn end_trouble(&self, fault: FaultId) -> u64 {
        self.troubles().end(fault)
    }

    /// Carries out an operation without the network, for builders of clusters and for oracles.
    ///
    /// # Errors
    /// As [`SqliteCore::apply`].
    pub fn apply(&self, op: &Op, now_ms: u64) -> Result<OpReply, StoreError> {
        self.keep(op, now_ms);
        // An operation that panicked was rolled back: the core is whole.
        self.core().apply(op, now_ms)
    }

    /// Returns a handle that needs no network; `now_ms` is its clock.
    #[must_use]
    pub fn direct(&self, now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Store {
        Store::new(Direct { host: self.clone(), now_ms })
    }

    /// Serves `addr` until the host is stopped.
    pub async fn serve(self, env: Env, addr: &'static str) {
        self.promote(&env);
        let mut listener = env.listen(addr).await.expect("the host is the store's alone");
        let lock = Arc::new(Turn::new(()));
        loop {
            let Ok((stream, peer)) = listener.accept().await else {
                // It has no room for another connection.
                env.sleep(ACCEPT_BACKOFF).await;
                continue;
            };
            let (host, lock, of_host) = (self.clone(), Arc::clone(&lock), env.clone());
            env.spawn("store-connection", async move {
                // Ends with the connection, which the caller sees break, too.
                let _ = host.converse(of_host, (stream, peer), lock).await;
            });
        }
    }

    /// Serves one connection as a process serves itself: one writer, and readers beside it.
    async fn converse(
        self,
        env: Env,
        (stream, peer): (BoxStream, String),
        lock: Arc<Turn<()>>,
    ) -> io::Result<()> {
        let (mut from, mut to) = tokio::io::split(stream);
        let first =
            self.first(self.now_ms(&env)).map_err(|why| io::Error::other(why.to_string()))?;
        frames::write(&mut to, &frames::frame(0, &first)?).await?;
        let (out, frames) = lanes([WAITING_MAX; Lane::COUNT]);
        env.spawn("store-answers", async move {
            // The reading half sees the same break.
            let _ = transmit(to, frames).await;
        });
        // The caller has given up once this is dropped.
        let caller = Arc::new(());
        let (writes, jobs) = lanes([WAITING_MAX; Lane::COUNT]);
        let writing = self.clone().write(env.clone(), jobs, lock, Arc::downgrade(&caller));
        env.spawn("store-writer", writing);
        let peer: Arc<str> = peer.into();
        let (reads, queue) = lanes([WAITING_MAX; Lane::COUNT]);
        let queue = Arc::new(Turn::new((queue, env.rng("store-read-time"))));
        for _ in 0..READERS {
            let (queue, caller) = (Arc::clone(&queue), Arc::downgrade(&caller));
            let from = (queue, Arc::clone(&peer));
            let reading = self.clone().read(env.clone(), from, out.clone(), caller);
            env.spawn("store-reader", reading);
        }
        loop {
            let (number, op): (u64, Op) = frames::read(&mut from).await?;
            let lane = op.lane() as usize;
            let (reply, answer) = oneshot::channel();
            // Here the host is there, so that it has an answer of its own for a full queue.
            if op.is_write() {
                if let Err(TrySendError::Full(job)) = writes.try_send(lane, Job { op, reply }) {
                    let _ = job.reply.send(Err(StoreError::Busy));
                }
            } else {
                match reads.try_send(lane, Read { number, op }) {
                    Ok(()) => continue,
                    Err(_) => drop(reply.send(Err(StoreError::Busy))),
                }
            }
            let (out, host) = (out.clone(), self.clone());
            env.spawn("store-call", async move {
                // Without an answer the writer was stopped with its host.
                let Ok(answer) = answer.await else { return };
                if let Ok(frame) = host.answer_frame(number, &answer) {
                    let _ = out.send(lane, frame).await;
                }
            });
        }
    }

    /// Reads what comes over one connection, beside other readers.
    async fn read(
        self,
        env: Env,
        (queue, peer): (Arc<Turn<(Reads, ChaCha20Rng)>>, Arc<str>),
        out: Out,
        caller: Weak<()>,
    ) {
        loop {
            let (read, takes) = {
                let (queue, rng) = &mut *queue.lock().await;
                let Some(read) = queue.recv().await else { return };
                (read, Duration::from_micros(30 + rng.next_u64() % 90))
            };
            let taken = self.connection(&env).await;
            if taken.waited && caller.strong_count() == 0 {
                return;
            }
            let answer = self.apply(&read.op, self.now_ms(&env));
            if let (Some(tell), Ok(OpReply::Page(page))) = (&self.on_page, &answer)
                && !page.posts.is_empty()
            {
                tell(&peer);
            }
            env.sleep(takes).await;
            drop(taken);
            if let Ok(frame) = self.answer_frame(read.number, &answer)
                && out.send(read.op.lane() as usize, frame).await.is_err()
            {
                // The connection has ended.
                return;
            }
        }
    }

    /// Writes what comes over one connection. What is written can be read once the disk has it;
    /// until then others read beside it, and its time is the one at which it began.
    async fn write(self, env: Env, mut jobs: Jobs, lock: Arc<Turn<()>>, caller: Weak<()>) {
        let mut rng = env.rng("store-commit-time");
        let mut next = None;
        loop {
            let first = match next.take() {
                Some(job) => Some(job),
                None => jobs.recv().await,
            };
            let Some(first) = first else { return };
            let taken = self.connection(&env).await;
            if taken.waited && caller.strong_count() == 0 {
                return;
            }
            let held = lock.lock().await;
            let mut group = vec![first];
            next = group::gather(&mut group, &mut jobs, group::GROUP_BATCHES_MAX);
            if group.len() > 1 {
                env.sometimes("batches shared a transaction of the store");
            }
            let Some((held, began_ms)) = self.up_to_commit(&env, &lock, held, &mut rng).await
            else {
                for job in group {
                    // The connection may have ended.
                    let _ = job.reply.send(Err(self.no_answer()));
                }
                continue;
            };
            let group = self.refuse_some(group);
            if group.is_empty() {
                continue;
            }
            let confirmed = self.troubles().hold(group, began_ms);
            let Some(group) = confirmed else {
                drop(held);
                // Nobody confirms the commit: this connection ends with its primary.
                return std::future::pending().await;
            };
            let answers = self.commit(&group, began_ms);
            drop(held);
            for (job, answer) in group.into_iter().zip(answers) {
                if let Ok(OpReply::Written(results)) = &answer
                    && results.iter().any(|result| matches!(result, TaskResult::Committed { .. }))
                {
                    env.fault_point(FaultPoint::AppendCommitted.name());
                }
                if matches!(answer, Err(StoreError::Fenced { .. })) {
                    env.sometimes("the store refused an old token");
                }
                if answer.is_ok() && self.troubles().hits(Trouble::LostAck) {
                    continue;
                }
                // The connection may have ended.
                let _ = job.reply.send(answer);
            }
            drop(taken);
        }
    }

    /// Waits for a connection as long as they are few.
    async fn connection(&self, env: &Env) -> Taken {
        let pools = self.troubles().pools();
        pool::take(env, pools).await
    }

    /// Carries a transaction out up to its commit, and again whenever it is undone for others, as a
    /// node on PostgreSQL does. Returns its turn and its time; nothing once it was repeated for too
    /// long.
    async fn up_to_commit<'a>(
        &self,
        env: &Env,
        lock: &'a Turn<()>,
        mut held: Held<'a, ()>,
        rng: &mut ChaCha20Rng,
    ) -> Option<(Held<'a, ()>, u64)> {
        let start = env.now();
        loop {
            let began_ms = self.now_ms(env);
            env.sleep(Duration::from_micros(300 + rng.next_u64() % 900)).await;
            let is_undone = self.troubles().hits(Trouble::Conflict);
            if !is_undone {
                return Some((held, began_ms));
            }
            drop(held);
            if env.now().since(start) >= self.timeout {
                env.sometimes("conflicts kept a transaction of the store from its commit");
                return None;
            }
            env.sometimes("a transaction of the store was repeated after a conflict");
            let pause_ms = env.rng("store-pause").next_u64() % PAUSE_MAX_MS;
            env.sleep(Duration::from_millis(pause_ms)).await;
            held = lock.lock().await;
        }
    }

    fn no_answer(&self) -> StoreError {
        let why = format!("no answer for {} ms", self.timeout.as_millis());
        StoreError::away(AwayReason::NoAnswer, why)
    }

    fn commit(&self, group: &[Job], began_ms: u64) -> Vec<Answer> {
        let mut core = self.core();
        for job in group {
            self.keep(&job.op, began_ms);
        }
        group::carry_out(&mut core, group, began_ms)
    }

    /// Begins as the standby of a primary that ended, if one did: with all that anybody was told of,
    /// and with some of what nobody was told of.
    fn promote(&self, env: &Env) {
        let (there, all) = self.troubles().promote();
        if there.len() < all {
            env.sometimes("a promoted standby lacked a transaction that nobody was told of");
        }
        for last in there {
            env.sometimes("a promoted standby had a transaction that nobody was told of");
            drop(self.commit(&last.group, last.began_ms));
        }
    }

    /// Lets those writes fail that a trouble hits, and returns the others.
    fn refuse_some(&self, group: Vec<Job>) -> Vec<Job> {
        let mut troubles = self.troubles();
        let mut others = Vec::with_capacity(group.len());
        for job in group {
            if troubles.hits(Trouble::Error) {
                let why = StoreError::away(AwayReason::Failing, "disk I/O error");
                // The connection may have ended.
                let _ = job.reply.send(Err(why));
            } else {
                others.push(job);
            }
        }
        others
    }

    /// Returns the frame of an answer, or of the error that it is too long.
    fn answer_frame(&self, number: u64, answer: &Answer) -> io::Result<Vec<u8>> {
        let clock_ms = self.journal().clock_ms;
        frames::frame(number, &(answer, clock_ms)).or_else(|why| {
            let broken = StoreError::Broken { why: format!("the answer: {why}") };
            frames::frame(number, &(Err::<OpReply, _>(broken), clock_ms))
        })
    }
}

struct Direct<F> {
    host: StoreHost,
    now_ms: F,
}

impl<F: Fn() -> u64 + Send + Sync + 'static> Backend for Direct<F> {
    fn call(&self, op: Op) -> BoxFuture<'_, Result<OpReply, StoreError>> {
        Box::pin(async move { self.host.apply(&op, (self.now_ms)()) })
    }
}
