//! The real world: tokio's sockets and tasks, a directory of files, the system's clocks.
//!
//! This is the one module that reads clocks and draws entropy. One [`RealWorld`] is one node
//! in one of its lives; several may live in one process, as the tests' do.
//!
//! 1. A node's files lie in its own data directory and are its owner's alone.
//! 2. A task that panics is reported to the one who asked for it; the other tasks go on.
//! 3. At most [`RealWorld::jobs_max`] compute jobs run at once; the others wait in turn.
//! 4. An event line waits for no file: a thread of its own writes it.

mod disk;
mod events;
mod files;
mod limits;
mod lines;
mod net;
mod temp;

use std::{
    any::Any,
    fmt, io,
    num::NonZero,
    panic::AssertUnwindSafe,
    path::PathBuf,
    sync::Arc,
    thread::available_parallelism,
    time::{Duration, Instant, SystemTime},
};

use futures_util::FutureExt;
use rustix::time::{ClockId, clock_gettime};
use tokio::{runtime::Handle, sync::Semaphore};

use self::{disk::RealDisk, events::EventLog};
pub use self::{
    events::ReopenEvents,
    files::{check_access, make_private_dir, open_private, replace_file},
    limits::{hang_up, raise_files_max, redirect_stderr},
    lines::{FLUSH_MAX, LineQueue},
    temp::TempDir,
};
use crate::{
    BoxFuture, BoxStream, Disk, Listener, Platform, Task,
    time::{Mono, Wall},
};

/// Clock of the system that goes on while the host sleeps.
#[cfg(any(target_os = "linux", target_os = "android"))]
const CONTINUOUS: ClockId = ClockId::Boottime;
/// Clock of the system that goes on while the host sleeps, as Apple's does; elsewhere it may stand
/// still then.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CONTINUOUS: ClockId = ClockId::Monotonic;

/// Receives the name of a task that panicked, and its message.
type OnPanic = dyn Fn(&'static str, &str) + Send + Sync;

/// Real world, as nodes in production see it.
pub struct RealWorld {
    runtime: Handle,
    start: Instant,
    disk: Arc<RealDisk>,
    jobs: Arc<Semaphore>,
    events: EventLog,
    log: Option<LineQueue>,
    on_panic: Option<Arc<OnPanic>>,
}

impl fmt::Debug for RealWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RealWorld").field("disk", &self.disk).finish_non_exhaustive()
    }
}

impl RealWorld {
    /// A node whose files lie in `data_dir`, which is made (mode 0700) if it is not there.
    ///
    /// # Errors
    /// The directory cannot be made or used, or the caller is not on a tokio runtime with its
    /// I/O and time drivers on.
    pub fn new(data_dir: impl Into<PathBuf>) -> io::Result<Self> {
        Self::over(RealDisk::new(data_dir.into(), None)?)
    }

    /// A node whose files are removed when it and all its open files are dropped. For tests.
    ///
    /// # Errors
    /// As [`RealWorld::new`].
    pub fn temporary() -> io::Result<Self> {
        let temp = TempDir::new()?;
        Self::over(RealDisk::new(temp.path().to_owned(), Some(temp))?)
    }

    /// Writes event lines also to this file, appending: JSON with `at_ms`, `by`, `by_role`. A
    /// file over 64 MiB is set aside as `NAME.1`. Lines are lost while the file cannot be written;
    /// the log says so once, and how many when it can be again.
    #[must_use]
    pub fn with_events_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.events = EventLog::to_file(path.into());
        self
    }

    /// Counts what this log loses among the node's lost lines.
    #[must_use]
    pub fn with_log(mut self, log: LineQueue) -> Self {
        self.log = Some(log);
        self
    }

    /// Returns the queue of event lines; flush it at the end of the program.
    #[must_use]
    pub fn event_lines(&self) -> Option<LineQueue> {
        self.events.queue().cloned()
    }

    /// Returns a handle that opens the file of event lines anew, for after it was moved.
    #[must_use]
    pub fn reopen_events(&self) -> ReopenEvents {
        self.events.reopen()
    }

    /// Calls `act` with the name of each task that panics, and with its message.
    #[must_use]
    pub fn with_panics_reported(
        mut self,
        act: impl Fn(&'static str, &str) + Send + Sync + 'static,
    ) -> Self {
        self.on_panic = Some(Arc::new(act));
        self
    }

    /// Returns how many compute jobs run at once: enough that a commit which waits for the disk
    /// does not stand behind key generations that fill the processors.
    #[must_use]
    pub fn jobs_max() -> usize {
        2 * available_parallelism().map_or(1, NonZero::get) + 2
    }

    fn over(disk: RealDisk) -> io::Result<Self> {
        let runtime = Handle::try_current().map_err(io::Error::other)?;
        Ok(Self {
            runtime,
            start: clock(),
            disk: Arc::new(disk),
            jobs: Arc::new(Semaphore::new(Self::jobs_max())),
            events: EventLog::default(),
            log: None,
            on_panic: None,
        })
    }
}

impl Platform for RealWorld {
    fn now(&self) -> Mono {
        Mono::ZERO + clock().duration_since(self.start)
    }

    fn continuous_now(&self) -> Mono {
        // It counts from the start of the system, so that its time is never below zero.
        Mono::ZERO + Duration::try_from(clock_gettime(CONTINUOUS)).unwrap_or_default()
    }

    fn wall(&self) -> Wall {
        wall()
    }

    fn sleep_until(&self, at: Mono) -> BoxFuture<'static, ()> {
        let at = self.start + Duration::from_nanos(at.as_ns());
        Box::pin(tokio::time::sleep_until(at.into()))
    }

    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> Task {
        tracing::trace!(task = name, "spawned");
        let on_panic = self.on_panic.clone();
        let running = self.runtime.spawn(async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await
                && let Some(act) = on_panic
            {
                act(name, panic_message(&*panic));
            }
        });
        Task::new(move || running.abort())
    }

    fn connect(&self, addr: &str) -> BoxFuture<'static, io::Result<BoxStream>> {
        Box::pin(net::connect(addr.to_owned()))
    }

    fn listen(&self, addr: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        Box::pin(net::listen(addr.to_owned()))
    }

    fn entropy(&self, _label: &str) -> [u8; 32] {
        entropy()
    }

    fn disk(&self) -> Arc<dyn Disk> {
        self.disk.clone()
    }

    fn compute(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        let (runtime, jobs) = (self.runtime.clone(), Arc::clone(&self.jobs));
        Box::pin(async move {
            let turn = jobs.acquire_owned().await.expect("the semaphore is never closed");
            let ran = runtime.spawn_blocking(move || {
                job();
                drop(turn);
            });
            // A job that panicked dropped its result, which its asker sees as cancelled.
            let _ = ran.await;
        })
    }

    fn event(&self, line: &str) {
        self.events.event(wall(), line);
    }

    fn fault_point(&self, _name: &'static str) {}

    fn sometimes(&self, probe: &'static str) {
        self.events.sometimes(wall(), probe);
    }

    fn identify(&self, node: &str, role: &str) {
        self.events.identify(node, role);
    }

    fn lines_lost(&self) -> u64 {
        let queues = [self.events.queue(), self.log.as_ref()];
        queues.into_iter().flatten().map(LineQueue::lost).sum()
    }

    /// From `/proc`; 0 on a system without it.
    fn resident_bytes(&self) -> u64 {
        let kib = || {
            let status = std::fs::read_to_string("/proc/self/status").ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        };
        kib().map_or(0, |kib| kib * 1024)
    }
}

#[expect(clippy::disallowed_methods, reason = "this is what every other module asks")]
fn clock() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "this is what every other module asks")]
fn wall() -> Wall {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Wall { ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
}

/// Returns the message of a panic that was caught.
#[must_use]
pub fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let formatted = panic.downcast_ref::<String>().map(String::as_str);
    formatted.or_else(|| panic.downcast_ref().copied()).unwrap_or("no message")
}

fn entropy() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("a system without entropy cannot run a node");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Env;

    #[tokio::test]
    async fn panicking_job_is_a_cancelled_one() {
        let env = Env::new(RealWorld::temporary().expect("a directory"));
        let lost = env.compute(|| assert_eq!(1, 2, "on purpose")).await;
        assert_eq!(lost, Err(crate::Cancelled));
        assert_eq!(env.compute(|| 7).await, Ok(7), "and its turn was given back");
    }

    #[tokio::test]
    async fn panicking_task_is_reported_by_name_and_the_others_go_on() {
        let (say, mut said) = tokio::sync::mpsc::channel(1);
        let world = RealWorld::temporary().expect("a directory");
        let env = Env::new(world.with_panics_reported(move |task, why| {
            say.try_send((task, why.to_owned())).expect("there is room");
        }));
        let _task = env.spawn("part", async { panic!("{} on purpose", 1) });
        assert_eq!(said.recv().await, Some(("part", "1 on purpose".to_owned())));
        assert_eq!(env.compute(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn jobs_beyond_the_bound_wait_and_all_run() {
        let env = Env::new(RealWorld::temporary().expect("a directory"));
        let count = 3 * RealWorld::jobs_max();
        let ran = futures_util::future::try_join_all((0..count).map(|n| env.compute(move || n)));
        assert_eq!(ran.await, Ok((0..count).collect::<Vec<_>>()));
    }

    #[tokio::test]
    async fn memory_is_told_where_the_system_tells() {
        let env = Env::new(RealWorld::temporary().expect("a directory"));
        if std::path::Path::new("/proc/self/status").exists() {
            assert!(env.resident_bytes() > 100 * 1024);
        }
    }
}
