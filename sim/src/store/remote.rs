//! Backend of a node: calls the store's host over the simulated network.
//!
//! 1. Writes go over one connection, and reads take turns on two others: as with a pool, answers to
//!    reads overtake each other, and those to writes.
//! 2. A call ends after `store_timeout`, whatever it waited for.
//! 3. A connection is made when first needed, within a time of its own, also once nobody waits for it any
//!    more. It carries any number of calls at once.
//! 4. A connection is given up when it breaks, or when a call was under way on it for `store_timeout`. A caller
//!    that gives up sooner, because it had waited for the connection, leaves it to others.
//! 5. As on PostgreSQL, a connection is used once the store behind it is not older than what this node
//!    saw of it.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chatchat::{
    env::{
        BoxFuture, BoxStream, Env, Task, TimedOut,
        lanes::{LaneReceiver, LaneSender, lanes},
        time::Mono,
    },
    model::{absence::AwayReason, ids::StoreEpoch, rows::StoreError},
    store::{
        Backend, Lane, Op, OpReply, OwnEnds, Store,
        history::{Expected, Mark, Seen},
    },
};
use tokio::{
    io::{ReadHalf, WriteHalf},
    sync::{oneshot, watch},
};

use super::frames::{self, First};

type Answer = Result<OpReply, StoreError>;
/// Calls by number that were not answered yet; `None` once the connection has ended.
type Calls = Arc<Mutex<Option<BTreeMap<u64, Call>>>>;
/// Answer, and the store's clock then.
type Timed = (Answer, u64);

/// Frames on their way onto a connection, by the lane of their operation.
pub(super) type Frames = LaneReceiver<Vec<u8>, { Lane::COUNT }>;

/// Connections of a node for reads.
const READING: u64 = 2;

/// Maximum number of calls of each lane that wait to be written on one connection.
const OUT_MAX: usize = 256;

/// Time in which a connection is made, up to the store's first frame. As on PostgreSQL it does not depend on
/// `store_timeout`.
const CONNECT_MAX: Duration = Duration::from_secs(3);

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
        shared: Arc::new(Shared {
            seen: Seen::new(Expected::AnyOrNew, "store"),
            absence: Mutex::default(),
        }),
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
    shared: Arc<Shared>,
}

/// State that the connections of a node share.
struct Shared {
    seen: Seen,
    /// Reason why the last connection was not made, until there is one again.
    absence: Mutex<Option<StoreError>>,
}

impl Shared {
    fn absence(&self) -> Option<StoreError> {
        self.absence.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_absence(&self, why: Option<StoreError>) {
        *self.absence.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}

struct Connection {
    out: LaneSender<Vec<u8>, { Lane::COUNT }>,
    calls: Calls,
    /// Whether it was made, or why it could not be.
    made: watch::Receiver<Option<Result<(), StoreError>>>,
    /// Task that dials, writes and reads.
    task: Mutex<Option<Task>>,
}

/// Call that was not answered yet.
struct Call {
    /// Time since which it is under way; `None` while it waits for its place on the connection.
    began: Option<Mono>,
    is_write: bool,
    reply: oneshot::Sender<Answer>,
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

fn ended() -> StoreError {
    broken("the connection has ended")
}

impl Connection {
    fn dial(env: &Env, addr: String, shared: &Arc<Shared>) -> Arc<Self> {
        let (out, frames) = lanes([OUT_MAX; Lane::COUNT]);
        let calls: Calls = Arc::new(Mutex::new(Some(BTreeMap::new())));
        let (tell, made) = watch::channel(None);
        let (of_node, open, of_all) = (env.clone(), Arc::clone(&calls), Arc::clone(shared));
        let task = env.spawn("store-client", async move {
            let connected = connect(&of_node, &addr, &of_all.seen).await;
            of_all.set_absence(connected.as_ref().err().cloned());
            match connected {
                Ok((stream, mark)) => {
                    tell.send_replace(Some(Ok(())));
                    let _ = carry(stream, frames, &open, (mark, &of_all.seen)).await;
                }
                Err(why) => drop(tell.send_replace(Some(Err(why)))),
            }
            // Dropping the reply senders ends the calls under way.
            open.lock().unwrap_or_else(PoisonError::into_inner).take();
        });
        Arc::new(Self { out, calls, made, task: Mutex::new(Some(task)) })
    }

    fn calls(&self) -> MutexGuard<'_, Option<BTreeMap<u64, Call>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether it may carry another call: it has not ended, and no call was under way on it for as
    /// long as `limit`.
    fn is_usable(&self, now: Mono, limit: Duration) -> bool {
        let mut calls = self.calls();
        let Some(calls) = &mut *calls else { return false };
        // Nobody waits for these any more, and they were never sent.
        calls.retain(|_, call| call.began.is_some() || !call.reply.is_closed());
        calls.values().all(|call| call.began.is_none_or(|began| now.since(began) < limit))
    }

    /// Waits until it is made.
    async fn made(&self) -> Result<(), StoreError> {
        let mut made = self.made.clone();
        let made = made.wait_for(Option::is_some).await.map_err(|_| ended())?;
        made.clone().unwrap_or_else(|| Err(ended()))
    }

    /// Calls once it is made. Whoever drops this leaves a call that was sent under way.
    async fn call(&self, env: &Env, number: u64, op: &Op) -> Answer {
        let frame = frames::frame(number, op)
            .map_err(|why| StoreError::Broken { why: format!("the operation: {why}") })?;
        let (reply, answer) = oneshot::channel();
        match &mut *self.calls() {
            Some(calls) => {
                calls.insert(number, Call { began: None, is_write: op.is_write(), reply })
            }
            None => return Err(ended()),
        };
        self.out.send(op.lane() as usize, frame).await.map_err(|_| ended())?;
        if let Some(call) = self.calls().as_mut().and_then(|calls| calls.get_mut(&number)) {
            call.began = Some(env.now());
        }
        answer.await.unwrap_or_else(|_| Err(broken("the connection ended before the answer")))
    }
}

/// Connects to the store, and compares it with what was seen of it before.
async fn connect(env: &Env, addr: &str, seen: &Seen) -> Result<(BoxStream, Mark), StoreError> {
    let before = seen.before();
    let making = async {
        let mut stream = env.connect(addr, CONNECT_MAX).await?;
        let (_, first) = frames::read::<First>(&mut stream).await?;
        Ok::<_, io::Error>((stream, first))
    };
    let (stream, First { mark, boards }) = env
        .timeout(CONNECT_MAX, making)
        .await
        .map_err(|TimedOut| broken(format!("no connection within {} s", CONNECT_MAX.as_secs())))?
        .map_err(|why| broken(why.to_string()))?;
    seen.check_new(&before, mark, &boards).inspect_err(|_| {
        env.sometimes("a connection to an older copy of the store was given up");
    })?;
    Ok((stream, mark))
}

async fn carry(
    stream: BoxStream,
    frames: Frames,
    calls: &Calls,
    seen: (Mark, &Seen),
) -> io::Result<()> {
    let (read, write) = tokio::io::split(stream);
    tokio::select! {
        biased;
        ended = receive(read, calls, seen) => ended,
        ended = transmit(write, frames) => ended,
    }
}

/// Reads answers. What the store committed counts as seen, also once its caller gave up.
async fn receive(
    mut from: ReadHalf<BoxStream>,
    calls: &Calls,
    (begun, seen): (Mark, &Seen),
) -> io::Result<()> {
    loop {
        let (number, (answer, clock_ms)): (u64, Timed) = frames::read(&mut from).await?;
        let call = match &mut *calls.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(calls) => calls.remove(&number),
            None => None,
        };
        let Some(call) = call else { continue };
        if call.is_write && answer.is_ok() {
            seen.raise(Mark { clock_ms, ..begun });
        }
        // The caller may have given up.
        let _ = call.reply.send(answer);
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
    /// Returns connection number `nth`, and makes one if there is none that can be used.
    fn connection(&self, nth: u64) -> Arc<Connection> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let is_usable = |it: &&Arc<Connection>| it.is_usable(self.env.now(), self.timeout);
        if let Some(connection) = open.get(&nth).filter(is_usable) {
            return Arc::clone(connection);
        }
        let connection = Connection::dial(&self.env, self.addr.clone(), &self.shared);
        open.insert(nth, Arc::clone(&connection));
        connection
    }

    fn give_up(&self, connection: &Arc<Connection>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, other| !Arc::ptr_eq(other, connection));
    }

    async fn call_on(&self, connection: &Connection, number: u64, op: &Op) -> Answer {
        connection.made().await?;
        self.shared.set_absence(None);
        connection.call(&self.env, number, op).await
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
            let called = self.call_on(&connection, number, &op);
            match self.env.timeout(self.timeout, called).await {
                Ok(answer) => answer,
                Err(TimedOut) => {
                    if !connection.is_usable(self.env.now(), self.timeout) {
                        self.give_up(&connection);
                    }
                    // While there is no connection, the reason for that says more.
                    Err(self.shared.absence().unwrap_or_else(|| {
                        let why = format!("no answer to {} within {:?}", op.name(), self.timeout);
                        StoreError::away(AwayReason::NoAnswer, why)
                    }))
                }
            }
        })
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
