//! Backend of a node: calls the store's host over the simulated network.
//!
//! 1. Writes go over one connection, and reads take turns on two others: as with a pool, answers to
//!    reads overtake each other, and those to writes.
//! 2. A connection carries any number of calls at once. It is made when first needed, and given up
//!    when it breaks or when a call on it was not answered in time, which begins once it is made.
//! 3. As on PostgreSQL, a connection is used once the store behind it is not older than what this node
//!    saw of it when it connected and wrote.

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
    model::{absence::AwayReason, ids::StoreEpoch, rows::StoreError},
    store::{Backend, Lane, Op, OpReply, Store},
};
use tokio::{
    io::{ReadHalf, WriteHalf},
    sync::{oneshot, watch},
};

use super::frames::{self, Mark};

type Answer = Result<OpReply, StoreError>;
/// Calls under way by number; `None` once the connection has ended.
type Calls = Arc<Mutex<Option<BTreeMap<u64, oneshot::Sender<Timed>>>>>;
/// Answer, and the store's clock then.
type Timed = (Answer, u64);
/// Newest mark of the store that this node saw.
type Seen = Arc<Mutex<Option<Mark>>>;

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
        seen: Arc::default(),
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
    seen: Seen,
}

struct Connection {
    out: LaneSender<Vec<u8>, { Lane::COUNT }>,
    calls: Calls,
    /// Epoch of the store that it was made to, or why it could not be made.
    made: watch::Receiver<Option<Result<StoreEpoch, StoreError>>>,
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

/// Keeps a mark of the store, unless a newer one was seen.
fn raise(seen: &Seen, mark: Mark) {
    let mut newest = seen.lock().unwrap_or_else(PoisonError::into_inner);
    *newest = (*newest).max(Some(mark));
}

impl Connection {
    fn dial(env: &Env, addr: String, limit: Duration, seen: &Seen) -> Arc<Self> {
        let (out, frames) = lanes([OUT_MAX; Lane::COUNT]);
        let calls: Calls = Arc::new(Mutex::new(Some(BTreeMap::new())));
        let (tell, made) = watch::channel(None);
        let (of_node, open, seen) = (env.clone(), Arc::clone(&calls), Arc::clone(seen));
        let task = env.spawn("store-client", async move {
            match connect(&of_node, &addr, limit, &seen).await {
                Ok((stream, mark)) => {
                    tell.send_replace(Some(Ok(mark.epoch)));
                    let _ = carry(stream, frames, &open).await;
                }
                Err(why) => drop(tell.send_replace(Some(Err(why)))),
            }
            // Dropping the reply senders ends the calls under way.
            open.lock().unwrap_or_else(PoisonError::into_inner).take();
        });
        Arc::new(Self { out, calls, made, task: Mutex::new(Some(task)) })
    }

    fn is_open(&self) -> bool {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Waits until it is made, and returns the epoch of its store.
    async fn made(&self) -> Result<StoreEpoch, StoreError> {
        let ended = || broken("the connection has ended");
        let mut made = self.made.clone();
        let made = made.wait_for(Option::is_some).await.map_err(|_| ended())?;
        made.clone().unwrap_or_else(|| Err(ended()))
    }

    async fn call(&self, number: u64, op: &Op, epoch: StoreEpoch, seen: &Seen) -> Answer {
        let frame = frames::frame(number, op)
            .map_err(|why| StoreError::Broken { why: format!("the operation: {why}") })?;
        let (tell, told) = oneshot::channel();
        match &mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(calls) => calls.insert(number, tell),
            None => return Err(broken("the connection has ended")),
        };
        let lane = op.lane() as usize;
        self.out.send(lane, frame).await.map_err(|_| broken("the connection has ended"))?;
        let Ok((answer, clock_ms)) = told.await else {
            return Err(broken("the connection ended before the answer"));
        };
        let reply = answer?;
        if op.is_write() {
            raise(seen, Mark { epoch, clock_ms });
        }
        Ok(reply)
    }

    fn forget(&self, number: u64) {
        if let Some(calls) = &mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner) {
            calls.remove(&number);
        }
    }
}

/// Connects to the store, and compares it with what was seen of it before.
async fn connect(
    env: &Env,
    addr: &str,
    limit: Duration,
    seen: &Seen,
) -> Result<(BoxStream, Mark), StoreError> {
    let before = *seen.lock().unwrap_or_else(PoisonError::into_inner);
    let failed = |why: io::Error| broken(why.to_string());
    let mut stream = env.connect(addr, limit).await.map_err(failed)?;
    let first = env.timeout(limit, frames::read::<Mark>(&mut stream)).await;
    let (_, mark) = first.map_err(|TimedOut| broken("no first frame"))?.map_err(failed)?;
    if before.is_some_and(|before| mark < before) {
        env.sometimes("a connection to an older copy of the store was given up");
        return Err(StoreError::away(AwayReason::RolledBack, "it is an older copy"));
    }
    raise(seen, mark);
    Ok((stream, mark))
}

async fn carry(stream: BoxStream, frames: Frames, calls: &Calls) -> io::Result<()> {
    let (read, write) = tokio::io::split(stream);
    tokio::select! {
        biased;
        ended = receive(read, calls) => ended,
        ended = transmit(write, frames) => ended,
    }
}

async fn receive(mut from: ReadHalf<BoxStream>, calls: &Calls) -> io::Result<()> {
    loop {
        let (number, answer): (u64, Timed) = frames::read(&mut from).await?;
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
        let connection = Connection::dial(&self.env, self.addr.clone(), self.timeout, &self.seen);
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
            let epoch = connection.made().await?;
            match self
                .env
                .timeout(self.timeout, connection.call(number, &op, epoch, &self.seen))
                .await
            {
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
