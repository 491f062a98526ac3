//! Host of the store: its durable state, and the process that serves it.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chatchat::{
    env::{
        BoxFuture, BoxStream, Env,
        lanes::{TrySendError, lanes},
    },
    model::{event::FaultPoint, outcome::TaskResult, rows::StoreError},
    store::{
        Backend, Lane, Op, OpReply, Store,
        sqlite::{
            NewCluster, SqliteCore,
            group::{self, Answer, Job, Jobs},
        },
    },
};
use rand_chacha::ChaCha20Rng;
use rand_core::Rng;
use tokio::sync::{Mutex as Turn, oneshot};

use super::{frames, remote::transmit};

/// Maximum number of operations of one connection and lane that wait to be written, or to be read, or
/// of answers to be sent.
const WAITING_MAX: usize = 1024;

/// Reads of one connection at a time, as in a process on a file.
const READERS: usize = 2;

/// Durable state of the store. It survives crashes of its host.
#[derive(Clone)]
pub struct StoreHost {
    core: Arc<Mutex<SqliteCore>>,
}

impl StoreHost {
    /// Creates an empty store.
    ///
    /// # Errors
    /// As [`SqliteCore::open_in_memory`].
    pub fn new(new: &NewCluster) -> Result<Self, StoreError> {
        Ok(Self { core: Arc::new(Mutex::new(SqliteCore::open_in_memory(new)?)) })
    }

    /// Carries out an operation without the network, for builders of clusters and for oracles.
    ///
    /// # Errors
    /// As [`SqliteCore::apply`].
    pub fn apply(&self, op: &Op, now_ms: u64) -> Result<OpReply, StoreError> {
        // An operation that panicked was rolled back: the core is whole.
        self.core.lock().unwrap_or_else(PoisonError::into_inner).apply(op, now_ms)
    }

    /// Returns a handle that needs no network; `now_ms` is its clock.
    #[must_use]
    pub fn direct(&self, now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Store {
        Store::new(Direct { host: self.clone(), now_ms })
    }

    /// Serves `addr` until the host is stopped.
    pub async fn serve(self, env: Env, addr: &'static str) {
        let mut listener = env.listen(addr).await.expect("the host is the store's alone");
        let lock = Arc::new(Turn::new(()));
        while let Ok((stream, _)) = listener.accept().await {
            let (host, lock, of_host) = (self.clone(), Arc::clone(&lock), env.clone());
            env.spawn("store-connection", async move {
                // Ends with the connection, which the caller sees break, too.
                let _ = host.converse(of_host, stream, lock).await;
            });
        }
    }

    /// Serves one connection as a process serves itself: one writer, and readers beside it.
    async fn converse(self, env: Env, stream: BoxStream, lock: Arc<Turn<()>>) -> io::Result<()> {
        let (mut from, to) = tokio::io::split(stream);
        let (out, frames) = lanes([WAITING_MAX; Lane::COUNT]);
        env.spawn("store-answers", async move {
            // The reading half sees the same break.
            let _ = transmit(to, frames).await;
        });
        let (writes, jobs) = lanes([WAITING_MAX; Lane::COUNT]);
        env.spawn("store-writer", self.clone().write(env.clone(), jobs, lock));
        let (reads, jobs) = lanes([WAITING_MAX; Lane::COUNT]);
        let jobs = Arc::new(Turn::new((jobs, env.rng("store-read-time"))));
        for _ in 0..READERS {
            env.spawn("store-reader", self.clone().read(env.clone(), Arc::clone(&jobs)));
        }
        loop {
            let (number, op): (u64, Op) = frames::read(&mut from).await?;
            let (reply, answer) = oneshot::channel();
            let lane = op.lane() as usize;
            let out = out.clone();
            env.spawn("store-call", async move {
                // Without an answer the writer was stopped with its host.
                let Ok(answer) = answer.await else { return };
                if let Ok(frame) = answer_frame(number, &answer) {
                    let _ = out.send(lane, frame).await;
                }
            });
            let queue = if op.is_write() { &writes } else { &reads };
            // Here the host is there, so that it has an answer of its own for a full queue.
            if let Err(TrySendError::Full(job)) = queue.try_send(lane, Job { op, reply }) {
                let _ = job.reply.send(Err(StoreError::Busy));
            }
        }
    }

    /// Reads what comes over one connection, beside other readers.
    async fn read(self, env: Env, jobs: Arc<Turn<(Jobs, ChaCha20Rng)>>) {
        loop {
            let (job, takes) = {
                let (jobs, rng) = &mut *jobs.lock().await;
                let Some(job) = jobs.recv().await else { return };
                (job, Duration::from_micros(30 + rng.next_u64() % 90))
            };
            let answer = self.apply(&job.op, env.wall().ms);
            env.sleep(takes).await;
            // The connection may have ended.
            let _ = job.reply.send(answer);
        }
    }

    /// Writes what comes over one connection. What is written can be read once the disk has it;
    /// until then others read beside it, and its time is the one at which it began.
    async fn write(self, env: Env, mut jobs: Jobs, lock: Arc<Turn<()>>) {
        let mut rng = env.rng("store-commit-time");
        let mut next = None;
        loop {
            let first = match next.take() {
                Some(job) => Some(job),
                None => jobs.recv().await,
            };
            let Some(first) = first else { return };
            let held = lock.lock().await;
            let mut group = vec![first];
            next = group::gather(&mut group, &mut jobs, group::GROUP_BATCHES_MAX);
            if group.len() > 1 {
                env.sometimes("batches shared a transaction of the store");
            }
            let began_ms = env.wall().ms;
            env.sleep(Duration::from_micros(300 + rng.next_u64() % 900)).await;
            let answers = {
                let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
                group::carry_out(&mut core, &group, began_ms)
            };
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
                // The connection may have ended.
                let _ = job.reply.send(answer);
            }
        }
    }
}

/// Returns the frame of an answer, or of the error that it is too long.
fn answer_frame(number: u64, answer: &Answer) -> io::Result<Vec<u8>> {
    frames::frame(number, answer).or_else(|why| {
        let broken = StoreError::Broken { why: format!("the answer: {why}") };
        frames::frame(number, &Err::<OpReply, _>(broken))
    })
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
