//! Seam between a node and the world it runs in: network, clocks, disk, entropy, tasks.
//!
//! A node holds an [`Env`] and nothing else of the outside. Two worlds stand behind it: the
//! real one (`real`: tokio, files, the system's clocks) and a simulated one (the package
//! `dst-world`). One contract suite, `contract`, holds both to the same behaviour.
//!
//! 1. Dropping a stream closes it; what was written before is still delivered.
//! 2. `now` and `continuous_now` never go backwards. `wall` may.
//! 3. After a [`Platform::spawn`]ed task was aborted it is not polled again.
//! 4. What [`Disk::write_atomic`] and [`DiskFile::sync`] returned for survives a power loss.
//! 5. Two calls of [`Platform::entropy`] never give the same bytes, not even across restarts.
//!
//! ```
//! # #[cfg(feature = "real")]
//! # fn main() -> std::io::Result<()> {
//! use std::time::Duration;
//!
//! use dst_env::{Env, real::RealWorld};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! // A node's code takes an `Env` and nothing else of the outside.
//! async fn ping(env: Env, addr: String) -> std::io::Result<u8> {
//!     let mut stream = env.connect(&addr, Duration::from_secs(5)).await?;
//!     stream.write_u8(7).await?;
//!     stream.read_u8().await
//! }
//!
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! runtime.block_on(async {
//!     let env = Env::new(RealWorld::temporary()?);
//!     let mut listener = env.listen("127.0.0.1:0").await?;
//!     let addr = listener.local_addr();
//!     env.spawn("echo", async move {
//!         if let Ok((mut stream, _)) = listener.accept().await
//!             && let Ok(byte) = stream.read_u8().await
//!         {
//!             let _ = stream.write_u8(byte + 1).await;
//!         }
//!     });
//!     assert_eq!(ping(env, addr).await?, 8);
//!     Ok(())
//! })
//! # }
//! # #[cfg(not(feature = "real"))]
//! # fn main() {}
//! ```

#[cfg(any(test, feature = "testing"))]
pub mod contract;
pub mod lanes;
#[cfg(feature = "real")]
pub mod real;
pub mod rng;
pub mod time;

use std::{fmt, future::Future, io, pin::Pin, sync::Arc, time::Duration};

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use serde::Serialize;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
};

use crate::time::{Mono, Wall};

/// A boxed future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A connected, ordered, reliable two-way byte stream with half-close.
pub trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

/// Connection, in either world.
pub type BoxStream = Box<dyn Stream>;

/// Takes connections on one address.
pub trait Listener: Send {
    /// Returns the next connection and its peer's `host:port`. Cancel-safe.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxStream, String)>>;

    /// Returns the `host:port` that it listens on, with the port that was chosen for port 0.
    fn local_addr(&self) -> String;
}

/// A node's own directory of small named files. Names are plain: no separators.
///
/// Calls block; large work belongs on [`Env::compute`].
pub trait Disk: Send + Sync {
    /// Opens a file for reading and writing, making it if it is not there.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// A whole file, `None` if it is not there.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Replaces a whole file, readable by its owner only. Durable when it returns; after a
    /// crash the file is the old or the new one, whole.
    fn write_atomic(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Removes a file; fine if it is not there.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// An open file with reads and writes at offsets.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Returns whether it is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `out` from `offset`; an end of file before that is an error.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`, growing the file.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts or grows (with zeros) to `len` bytes.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes everything written durable.
    fn sync(&self) -> io::Result<()>;
}

/// Platform behind an [`Env`]: clock, entropy, tasks, network and disk. One value is one node in one of its lives.
pub trait Platform: Send + Sync + 'static {
    /// Returns the time of the node's monotonic clock.
    fn now(&self) -> Mono;

    /// Returns the time of a monotonic clock that goes on while the host sleeps, if there is one. It
    /// has a start of its own: its times are compared with each other only.
    fn continuous_now(&self) -> Mono {
        self.now()
    }

    /// Returns the time of the node's wall clock.
    fn wall(&self) -> Wall;

    /// Ready when the monotonic clock has reached `at`.
    fn sleep_until(&self, at: Mono) -> BoxFuture<'static, ()>;

    /// Runs a task beside the caller. The name is for traces.
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> Task;

    /// Connects to `host:port`. May hang as long as a SYN can; bound it.
    fn connect(&self, addr: &str) -> BoxFuture<'static, io::Result<BoxStream>>;

    /// Listens on `host:port`.
    fn listen(&self, addr: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>>;

    /// Fresh secret bytes. The label names the stream they are drawn from, so that in
    /// simulation one consumer's draws never move another's.
    fn entropy(&self, label: &str) -> [u8; 32];

    /// Returns the node's directory.
    fn disk(&self) -> Arc<dyn Disk>;

    /// Runs blocking work off the async threads. Ready when it ran.
    fn compute(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()>;

    /// Records an event line: the text of one JSON object. The world adds node and time.
    fn event(&self, line: &str);

    /// Marks a point where a fault is likely to matter. Does nothing in production.
    fn fault_point(&self, name: &'static str);

    /// Marks a rare state as reached. A campaign that never reaches one of them fails.
    fn sometimes(&self, probe: &'static str);

    /// Says what the node just received, for worlds that draw it; others do not ask for the text.
    fn trace(&self, _text: &dyn Fn() -> String) {}

    /// Names the node and its role, for worlds that add them to its lines.
    fn identify(&self, _node: &str, _role: &str) {}

    /// Returns the number of event and log lines that could not be written and are lost.
    fn lines_lost(&self) -> u64 {
        0
    }

    /// Returns the node's resident memory in bytes, 0 where the world cannot tell.
    fn resident_bytes(&self) -> u64 {
        0
    }
}

/// A running task. Dropping this lets it run on.
pub struct Task {
    abort: Box<dyn FnOnce() + Send + Sync>,
}

impl Task {
    /// Wraps what stops the task.
    #[must_use]
    pub fn new(abort: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self { abort: Box::new(abort) }
    }

    /// Stops it at its next await.
    pub fn abort(self) {
        (self.abort)();
    }

    /// Stops it when the guard is dropped.
    #[must_use]
    pub const fn abort_on_drop(self) -> TaskGuard {
        TaskGuard(Some(self))
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Task")
    }
}

/// Aborts its task when dropped.
#[derive(Debug)]
pub struct TaskGuard(Option<Task>);

impl Drop for TaskGuard {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

/// Error of a wait whose time ran out; the work that was waited for was dropped.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("timed out")]
pub struct TimedOut;

/// A cheap handle on the world, and the only way a node reaches it.
#[derive(Clone)]
pub struct Env(Arc<dyn Platform>);

impl Env {
    /// Wraps a world.
    #[must_use]
    pub fn new(world: impl Platform) -> Self {
        Self(Arc::new(world))
    }

    /// Returns the time of the node's monotonic clock.
    #[must_use]
    pub fn now(&self) -> Mono {
        self.0.now()
    }

    /// Returns the time of a clock that goes on while the host sleeps; see
    /// [`Platform::continuous_now`].
    #[must_use]
    pub fn continuous_now(&self) -> Mono {
        self.0.continuous_now()
    }

    /// Returns the time of the node's wall clock.
    #[must_use]
    pub fn wall(&self) -> Wall {
        self.0.wall()
    }

    /// Waits until the monotonic clock reaches `at`.
    pub async fn sleep_until(&self, at: Mono) {
        self.0.sleep_until(at).await;
    }

    /// Waits this long by the node's clock.
    pub async fn sleep(&self, by: Duration) {
        self.0.sleep_until(self.0.now() + by).await;
    }

    /// Waits for `work`, but no longer than `limit`.
    ///
    /// # Errors
    /// [`TimedOut`] when the limit passed first; `work` is dropped.
    pub async fn timeout<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, TimedOut> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.sleep(limit) => Err(TimedOut),
        }
    }

    /// Runs a task beside the caller; see [`Platform::spawn`].
    pub fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Task {
        self.0.spawn(name, Box::pin(task))
    }

    /// Connects to `host:port`, waiting at most `limit`.
    ///
    /// # Errors
    /// The world's error, or `TimedOut` as an [`io::Error`]; nothing is left open.
    pub async fn connect(&self, addr: &str, limit: Duration) -> io::Result<BoxStream> {
        match self.timeout(limit, self.0.connect(addr)).await {
            Ok(connected) => connected,
            Err(TimedOut) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Listens on `host:port`.
    ///
    /// # Errors
    /// The world's error, such as an address in use.
    pub async fn listen(&self, addr: &str) -> io::Result<Box<dyn Listener>> {
        self.0.listen(addr).await
    }

    /// A generator of its own, freshly seeded; see [`Platform::entropy`].
    #[must_use]
    pub fn rng(&self, label: &str) -> ChaCha20Rng {
        ChaCha20Rng::from_seed(self.0.entropy(label))
    }

    /// Returns the node's directory.
    #[must_use]
    pub fn disk(&self) -> Arc<dyn Disk> {
        self.0.disk()
    }

    /// Runs blocking or heavy work off the async threads and returns its result.
    ///
    /// # Errors
    /// [`Cancelled`] when the world is shutting down and dropped the job.
    pub async fn compute<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Cancelled> {
        let (done, result) = oneshot::channel();
        let run = Box::new(move || {
            // The asker may be gone; then nobody wants the result.
            let _ = done.send(job());
        });
        self.0.compute(run).await;
        result.await.map_err(|_| Cancelled)
    }

    /// Records an event, which must serialise as a JSON object; see [`Platform::event`].
    ///
    /// An event that cannot be serialised is recorded as `{"event":"unserialisable"}`.
    pub fn event(&self, event: &impl Serialize) {
        let line = serde_json::to_string(event);
        self.0.event(line.as_deref().unwrap_or(r#"{"event":"unserialisable"}"#));
    }

    /// Marks a point where a fault is likely to matter; see [`Platform::fault_point`].
    pub fn fault_point(&self, name: &'static str) {
        self.0.fault_point(name);
    }

    /// Marks a rare state as reached; see [`Platform::sometimes`].
    pub fn sometimes(&self, probe: &'static str) {
        self.0.sometimes(probe);
    }

    /// Says what the node just received; see [`Platform::trace`].
    pub fn trace(&self, text: impl Fn() -> String) {
        self.0.trace(&text);
    }

    /// Names the node and its role; see [`Platform::identify`].
    pub fn identify(&self, node: &str, role: &str) {
        self.0.identify(node, role);
    }

    /// Returns the number of event and log lines that the node lost; see [`Platform::lines_lost`].
    #[must_use]
    pub fn lines_lost(&self) -> u64 {
        self.0.lines_lost()
    }

    /// Returns the node's resident memory in bytes, 0 where the world cannot tell.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.0.resident_bytes()
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Env")
    }
}

/// Error of work that was dropped before it ran: the world is shutting down.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the work was dropped before it ran")]
pub struct Cancelled;
