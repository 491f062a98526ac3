//! World for tests in one thread, whose clock steps to the next timer when nothing else is to
//! be done: an hour's silence takes no time.
//!
//! It runs on tokio's paused clock. Streams are made by the test (such as `tokio::io::duplex`):
//! this world neither connects nor listens.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    env::{BoxFuture, BoxStream, Disk, DiskFile, Env, Listener, Platform, Task},
    model::time::{Mono, Wall},
};

/// One second.
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Runs a test in a fresh world, on a runtime of its own.
///
/// # Panics
/// When the test does, or when the runtime cannot be made.
pub(crate) fn run<T, F: Future<Output = T>>(test: impl FnOnce(Env) -> F) -> T {
    run_on(Arc::<SmallFiles>::default(), test)
}

/// Runs a test in a fresh world with this disk, as [`run`] does.
///
/// # Panics
/// As [`run`].
pub(crate) fn run_on<T, F: Future<Output = T>>(
    disk: Arc<dyn Disk>,
    test: impl FnOnce(Env) -> F,
) -> T {
    run_in(|| SteppedWorld::with(disk), test)
}

/// Runs a test in a fresh world, as [`run`] does, with the time for which its host slept, in
/// milliseconds: the test adds to it.
///
/// # Panics
/// As [`run`].
pub(crate) fn run_with_sleep<T, F: Future<Output = T>>(
    test: impl FnOnce(Env, Arc<AtomicU64>) -> F,
) -> T {
    let slept_ms = Arc::<AtomicU64>::default();
    let of_world = Arc::clone(&slept_ms);
    let world =
        || SteppedWorld { slept_ms: of_world, ..SteppedWorld::with(Arc::<SmallFiles>::default()) };
    run_in(world, |env| test(env, slept_ms))
}

fn run_in<T, F: Future<Output = T>>(
    world: impl FnOnce() -> SteppedWorld,
    test: impl FnOnce(Env) -> F,
) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O can always be made");
    runtime.block_on(async { test(Env::new(world())).await })
}

/// Has everything stand still for so long: the clock goes on, and no task runs meanwhile.
pub(crate) async fn stand_still(time: Duration) {
    tokio::time::advance(time).await;
}

/// The world of one test. Make it on a tokio runtime whose clock is paused.
pub(crate) struct SteppedWorld {
    start: Instant,
    slept_ms: Arc<AtomicU64>,
    drawn: AtomicU64,
    disk: Arc<dyn Disk>,
}

impl SteppedWorld {
    /// Returns a world whose monotonic clock starts now.
    #[cfg(feature = "net")]
    pub(crate) fn new() -> Self {
        Self::with(Arc::<SmallFiles>::default())
    }

    fn with(disk: Arc<dyn Disk>) -> Self {
        let slept_ms = Arc::default();
        Self { start: Instant::now(), slept_ms, drawn: AtomicU64::new(0), disk }
    }
}

impl Platform for SteppedWorld {
    fn now(&self) -> Mono {
        Mono::ZERO + self.start.elapsed()
    }

    fn continuous_now(&self) -> Mono {
        self.now() + Duration::from_millis(self.slept_ms.load(Ordering::Relaxed))
    }

    fn wall(&self) -> Wall {
        Wall { ms: u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX) }
    }

    fn sleep_until(&self, at: Mono) -> BoxFuture<'static, ()> {
        let at = self.start + Duration::from_nanos(at.as_ns());
        Box::pin(async move {
            // Tokio's timers have a resolution of a millisecond.
            while Instant::now() < at {
                #[expect(clippy::disallowed_methods, reason = "this is a world")]
                tokio::time::sleep(at - Instant::now()).await;
            }
        })
    }

    fn spawn(&self, _: &'static str, task: BoxFuture<'static, ()>) -> Task {
        #[expect(clippy::disallowed_methods, reason = "this is a world")]
        let handle = tokio::spawn(task);
        Task::new(move || handle.abort())
    }

    fn connect(&self, _: &str) -> BoxFuture<'static, io::Result<BoxStream>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn listen(&self, _: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn entropy(&self, _: &str) -> [u8; 32] {
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&self.drawn.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        seed
    }

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk)
    }

    fn compute(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        job();
        Box::pin(async {})
    }

    fn event(&self, _: &str) {}

    fn fault_point(&self, _: &'static str) {}

    fn sometimes(&self, _: &'static str) {}
}

/// Disk of whole small files in memory.
#[derive(Debug, Default)]
struct SmallFiles(Mutex<BTreeMap<String, Vec<u8>>>);

impl Disk for SmallFiles {
    fn open(&self, _: &str) -> io::Result<Box<dyn DiskFile>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().expect("one thread").get(name).cloned())
    }

    fn write_atomic(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().expect("one thread").insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().expect("one thread").remove(name);
        Ok(())
    }
}
