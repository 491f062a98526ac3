//! Backend of a node: calls the store's host over the simulated network.
//!
//! 1. Writes go over one connection, and reads take turns on two others: as with a pool, answers to
//!    reads overtake each other, and those to writes.
//! 2. A connection carries any number of calls at once. It is made when first needed, and given up
//!    when it breaks or when a call on it was not answered in time.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chatchat::{
    env::{
        BoxFuture, BoxStream, Env, Task, TimedOut,
        lanes::{LaneReceiver, LaneSender, lanes},
    },
    model::{absence::AwayReason, rows::StoreError},
    store::{Backend, Lane, Op, OpReply, Store},
};
use tokio::{
    io::{ReadHalf, WriteHalf},
    sync::oneshot,
};

use super::frames;

type Answer = Result<OpReply, StoreError>;
/// Calls under way by number; `None` once the connection has ended.
type Calls = Arc<Mutex<Option<BTreeMap<u64, oneshot::Sender<Answer>>>>>;

/// Frames on their way onto a connection, by the lane of their operation.
pub(super) type Frames = LaneReceiver<Vec<u8>, { Lane::COUNT }>;

/// Connections of a node for reads.
const READING: u64 = 2;

/// Maximum number of calls of each lane that wait to be written on one connection.
const OUT_MAX: usize = 256;

/// Returns a handle on the store at `addr`; a call ends after `timeout`.
#[must_use]
pub fn remote(env: &Env, addr: &str, timeout: Duration) -> Store {
    Store::new(RemoteStore {
        env: env.clone(),
        addr: addr.to_owned(),
        timeout,
        next: AtomicU64::new(1),
        reads: AtomicU64::new(0),
        open: Mutex::default(),
    })
}

struct RemoteStore {
    env: Env,
    addr: String,
    timeout: Duration,
    next: AtomicU64,
    /// Reads so far.
    reads: AtomicU64,
    /// Connections by their numbers; 0 is the one for writes.
    open: Mutex<BTreeMap<u64, Arc<Connection>>>,
}

struct Connection {
    out: LaneSender<Vec<u8>, { Lane::COUNT }>,
    calls: Calls,
    /// Task that dials, writes and reads.
    task: Mutex<Option<Task>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

fn broken(why: impl Into<String>) -> StoreError {
    StoreError::away(AwayReason::Unreachable, why)
}

impl Connection {
    fn dial(env: &Env, addr: String, limit: Duration) -> Arc<Self> {
        let (out, frames) = lanes([OUT_MAX; Lane::COUNT]);
        let calls: Calls = Arc::new(Mutex::new(Some(BTreeMap::new())));
        let (of_node, open) = (env.clone(), Arc::clone(&calls));
        let task = env.spawn("store-client", async move {
            // Dropping the reply senders ends the calls under way.
            let _ = carry(&of_node, &addr, limit, frames, &open).await;
            open.lock().unwrap_or_else(PoisonError::into_inner).take();
        });
        Arc::new(Self { out, calls, task: Mutex::new(Some(task)) })
    }

    fn is_open(&self) -> bool {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    async fn call(&self, number: u64, op: &Op) -> Answer {
        let frame = frames::frame(number, op)
            .map_err(|why| StoreError::Broken { why: format!("the operation: {why}") })?;
        let (tell, told) = oneshot::channel();
        match &mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(calls) => calls.insert(number, tell),
            None => return Err(broken("the connection has ended")),
        };
        let lane = op.lane() as usize;
        self.out.send(lane, frame).await.map_err(|_| broken("the connection has ended"))?;
        told.await.unwrap_or_else(|_| Err(broken("the connection ended before the answer")))
    }

    fn forget(&self, number: u64) {
        if let Some(calls) = &mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner) {
            calls.remove(&number);
        }
    }
}

async fn carry(
    env: &Env,
    addr: &str,
    limit: Duration,
    frames: Frames,
    calls: &Calls,
) -> io::Result<()> {
    let stream = env.connect(addr, limit).await?;
    let (read, write) = tokio::io::split(stream);
    tokio::select! {
        biased;
        ended = receive(read, calls) => ended,
        ended = transmit(write, frames) => ended,
    }
}

async fn receive(mut from: ReadHalf<BoxStream>, calls: &Calls) -> io::Result<()> {
    loop {
        let (number, answer): (u64, Answer) = frames::read(&mut from).await?;
        let asker = match &mut *calls.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(calls) => calls.remove(&number),
            None => None,
        };
        if let Some(asker) = asker {
            // The caller may have given up.
            let _ = asker.send(answer);
        }
    }
}

/// Writes frames until there are no more.
pub(super) async fn transmit(mut to: WriteHalf<BoxStream>, mut frames: Frames) -> io::Result<()> {
    while let Some(frame) = frames.recv().await {
        frames::write(&mut to, &frame).await?;
    }
    Ok(())
}

impl RemoteStore {
    /// Returns connection number `nth`, and makes it if it is not open.
    fn connection(&self, nth: u64) -> Arc<Connection> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = open.get(&nth).filter(|connection| connection.is_open()) {
            return Arc::clone(connection);
        }
        let connection = Connection::dial(&self.env, self.addr.clone(), self.timeout);
        open.insert(nth, Arc::clone(&connection));
        connection
    }

    fn give_up(&self, connection: &Arc<Connection>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, other| !Arc::ptr_eq(other, connection));
    }
}

impl Backend for RemoteStore {
    fn call(&self, op: Op) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let nth = match op.is_write() {
                true => 0,
                false => 1 + self.reads.fetch_add(1, Ordering::Relaxed) % READING,
            };
            let connection = self.connection(nth);
            match self.env.timeout(self.timeout, connection.call(number, &op)).await {
                Ok(answer) => answer,
                Err(TimedOut) => {
                    connection.forget(number);
                    self.give_up(&connection);
                    let why = format!("no answer to {} within {:?}", op.name(), self.timeout);
                    Err(StoreError::away(AwayReason::NoAnswer, why))
                }
            }
        })
    }
}
