//! Store in one file that the processes of a host share.
//!
//! ```text
//!   call ──lanes──> writing thread ──lock──> SQLite ┐
//!        └─lanes──> reading threads (2) ──> SQLite ─┴─> FILE, FILE-wal, FILE-shm
//! ```
//!
//! 1. One thread per process writes, under the write lock (`FILE.gate`); reads never wait for it.
//! 2. A caller that waited `store_timeout` is told [`StoreError::Away`]; an operation whose caller
//!    gave up before it began is not done any more.
//! 3. An operation's time is read when it begins: under the lock for a write, so time is the order of
//!    the writes.
//! 4. Batches of users' tasks that wait when the thread gets the lock share one transaction and its
//!    sync (group commit), in the order they came, up to a bound. Any other operation has a
//!    transaction of its own and ends the group.
//! 5. The file, its log and its lock file are readable by their owner only.
//! 6. Each [`Lane`] has places of its own and goes before the next, so that people's writes and
//!    reads neither delay nor refuse a touch or a lease. Within a lane the order is kept.
//! 7. A file that is not there, another one, or an older copy is *away*, never a new store. Only
//!    an opener that may, and that has seen none yet, makes one.
//! 8. A file that takes no writes, because this user may not open or only read it or because its disk
//!    is full, is refused to an opener; later the store is *away*.

use std::{
    fs::OpenOptions,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::SyncSender,
    },
    task::{Context, Poll, Wake, Waker},
    thread::Thread,
    time::Duration,
};

use rand_chacha::rand_core::Rng;
use tokio::sync::oneshot;

use super::{
    NewCluster, SqliteCore,
    group::{Answer, GROUP_BATCHES_MAX, Job, Jobs, carry_out, gather},
    identity::{Opened, Seen, on_file},
    new_file::or_denied,
    refused,
    write_lock::{Held, WriteLock, holder_of_lock},
};
use crate::{
    env::{
        BoxFuture, Env,
        lanes::{LaneSender, TrySendError, lanes},
        real::open_private,
    },
    model::{absence::AwayReason, ids::StoreEpoch, rows::StoreError, time::Mono},
    store::{Backend, Lane, Op, OwnEnds, Store, job::WAITING_MAX},
};

pub use super::identity::Expected;

/// Number of reading threads, each with a connection.
const READERS: usize = 2;

/// Bounds of a store in a file.
#[derive(Clone, Copy, Debug)]
pub struct FileLimits {
    /// Time after which a caller is told that the store is away.
    pub store_timeout: Duration,
    /// Maximum number of batches in one transaction; 1 switches group commit off.
    pub group_batches_max: usize,
    /// Store that the file has to hold.
    pub expected: Expected,
}

impl FileLimits {
    /// Returns the default bounds with this time-out.
    #[must_use]
    pub const fn new(store_timeout: Duration) -> Self {
        let expected = Expected::AnyOrNew;
        Self { store_timeout, group_batches_max: GROUP_BATCHES_MAX, expected }
    }
}

/// Backend that hands operations to the threads. They end when it is dropped.
struct FileStore {
    env: Env,
    path: PathBuf,
    timeout: Duration,
    seen: Arc<Seen>,
    writer: Threads,
    readers: Threads,
}

/// Way to threads that share a queue.
struct Threads {
    jobs: LaneSender<Job, { Lane::COUNT }>,
    moved: Arc<Moved>,
}

/// Time at which a thread last took an operation or ended one, in nanoseconds of the monotonic clock.
#[derive(Default)]
struct Moved(AtomicU64);

impl Moved {
    fn at(&self, now: Mono) {
        self.0.store(now.as_ns(), Ordering::Relaxed);
    }

    /// Returns whether nothing was taken or ended for so long.
    fn is_stuck(&self, now: Mono, limit: Duration) -> bool {
        now.since(Mono::from_ns(self.0.load(Ordering::Relaxed))) >= limit
    }
}

/// Opens the store in `path`, and creates it if there is none: cluster id and first epoch come
/// from `env`. While another process keeps the file locked this still succeeds after at most
/// `store_timeout`; every operation is then [`StoreError::Away`] until the lock is free.
///
/// # Errors
/// Errors that waiting does not mend: [`StoreError::Refused`] for a path that cannot be used, a file
/// of another program or of a release too new; [`StoreError::Broken`] for a damaged file;
/// [`StoreError::Away`] for one that this user may not open or only read, or on a full disk.
pub fn open(env: &Env, path: &Path, store_timeout: Duration) -> Result<Store, StoreError> {
    open_with(env, path, FileLimits::new(store_timeout))
}

/// Opens the store in `path` within these bounds, as [`open`] does.
///
/// # Errors
/// As [`open`].
pub fn open_with(env: &Env, path: &Path, limits: FileLimits) -> Result<Store, StoreError> {
    let store_timeout = limits.store_timeout;
    let (ready, opened) = std::sync::mpsc::sync_channel(1);
    let (writer, jobs) = lanes([WAITING_MAX; Lane::COUNT]);
    let writer = Threads { jobs: writer, moved: Arc::default() };
    let seen = Arc::new(Seen::new(limits.expected));
    let writing = Writing {
        env: env.clone(),
        path: path.to_owned(),
        limits,
        seen: Arc::clone(&seen),
        moved: Arc::clone(&writer.moved),
    };
    thread("store-writer", move || writing.run(jobs, ready))?;
    let (readers, jobs) = lanes([WAITING_MAX; Lane::COUNT]);
    let readers = Threads { jobs: readers, moved: Arc::default() };
    let jobs = Arc::new(Mutex::new(jobs));
    for _ in 0..READERS {
        let reading = Reading {
            env: env.clone(),
            path: path.to_owned(),
            timeout: store_timeout,
            seen: Arc::clone(&seen),
            moved: Arc::clone(&readers.moved),
        };
        let jobs = Arc::clone(&jobs);
        thread("store-reader", move || reading.run(&jobs))?;
    }
    match opened.recv_timeout(store_timeout) {
        Ok(Err(error)) if !may_pass(&error) => Err(error),
        // Open, or away for now: each operation tries again.
        _ => Ok(Store::new(FileStore {
            env: env.clone(),
            path: path.to_owned(),
            timeout: store_timeout,
            seen,
            writer,
            readers,
        })),
    }
}

/// Returns whether waiting may mend an error of the first opening, without an operator.
const fn may_pass(error: &StoreError) -> bool {
    match error.away_reason() {
        Some(AwayReason::Full | AwayReason::ReadOnly) => false,
        _ => error.is_away(),
    }
}

/// Starts a thread of its own, not a job of [`Env::compute`]: it lives as long as the store, and
/// may be blocked for as long as another process is.
fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(body);
    spawned.map(drop).map_err(|error| failing(format!("no thread for it: {error}")))
}

impl Backend for FileStore {
    fn call(&self, op: Op) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            let threads = if op.is_write() { &self.writer } else { &self.readers };
            let sent = threads.jobs.try_send(op.lane() as usize, Job { op, reply });
            sent.map_err(|full| match full {
                // Who waits there was given up: the queue is as full as the store is away.
                TrySendError::Full(_) if threads.moved.is_stuck(self.env.now(), self.timeout) => {
                    self.locked("its queue is full, and stands".to_owned(), AwayReason::NoAnswer)
                }
                TrySendError::Full(_) => StoreError::Busy,
                TrySendError::Closed(_) => failing("its thread has ended"),
            })?;
            match self.env.timeout(self.timeout, answer).await {
                Ok(Ok(Err(StoreError::Away { reason: AwayReason::Locked, why }))) => {
                    Err(self.locked(why, AwayReason::Locked))
                }
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(failing("its thread has ended")),
                Err(_) => {
                    let why = format!("no answer for {} ms", self.timeout.as_millis());
                    Err(self.locked(why, AwayReason::NoAnswer))
                }
            }
        })
    }

    fn compare(&self, ends: OwnEnds) {
        self.seen.compare(&ends);
    }

    fn confirm(&self, epoch: StoreEpoch, as_of_ms: u64) {
        self.seen.confirm(epoch, as_of_ms);
    }

    fn doubt(&self) {
        self.seen.doubt();
    }
}

impl FileStore {
    /// Names the other process that holds the lock; the reason is `without` if none does.
    fn locked(&self, why: String, without: AwayReason) -> StoreError {
        match holder_of_lock(&self.path).filter(|pid| *pid != std::process::id()) {
            Some(pid) => {
                StoreError::away(AwayReason::Locked, format!("{why}; process {pid} holds its lock"))
            }
            None => StoreError::away(without, why),
        }
    }
}

/// The writing thread.
struct Writing {
    env: Env,
    path: PathBuf,
    limits: FileLimits,
    seen: Arc<Seen>,
    moved: Arc<Moved>,
}

/// Lock and connection of the writing thread, once they are open.
#[derive(Default)]
struct WriterFiles {
    lock: Option<WriteLock>,
    opened: Option<Opened>,
}

impl Writing {
    fn run(self, mut jobs: Jobs, ready: SyncSender<Result<(), StoreError>>) {
        let mut files = WriterFiles::default();
        let first = self.inside(&mut files, |core| core.try_to_write());
        let hopeless = first.as_ref().is_err_and(|error| !error.is_away());
        // The opener may have gone on without waiting for this.
        let _ = ready.try_send(first);
        if hopeless {
            return;
        }
        let mut next = None;
        while let Some(first) = next.take().or_else(|| next_job(&mut jobs)) {
            self.moved.at(self.env.now());
            // After a long wait for the lock there may be a queue full of these.
            if first.reply.is_closed() {
                continue;
            }
            let mut group = vec![first];
            let answers = self.inside(&mut files, |core| {
                // Under the lock, so that what came while it was taken joins or overtakes.
                next = gather(&mut group, &mut jobs, self.limits.group_batches_max);
                group.retain(|job| !job.reply.is_closed());
                Ok(carry_out(core, &group, self.env.wall().ms))
            });
            let answers = answers.unwrap_or_else(|error| vec![Err(error); group.len()]);
            self.moved.at(self.env.now());
            for (job, answer) in group.into_iter().zip(answers) {
                let _ = job.reply.send(answer);
            }
        }
    }

    /// Acts on the connection under the write lock; opens both if they are not open, or if other
    /// files lie there now.
    fn inside<T>(
        &self,
        files: &mut WriterFiles,
        act: impl FnOnce(&mut SqliteCore) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let _held = self.lock(&mut files.lock).map_err(|e| self.unusable(&e))?;
        let done = on_file(
            &mut files.opened,
            &self.path,
            &self.seen,
            || self.connect(),
            |core| {
                let done = act(core)?;
                if let Ok(now) = core.mark() {
                    self.seen.raise(now);
                }
                Ok(done)
            },
        );
        done.map_err(|error| or_denied(&self.path, error))
    }

    /// Takes the write lock of the lock file that lies there now.
    fn lock(&self, slot: &mut Option<WriteLock>) -> io::Result<Held> {
        if let Some(lock) = slot {
            let held = lock.acquire()?;
            if lock.is_of(&self.path) {
                return Ok(held);
            }
        }
        slot.insert(WriteLock::of(&self.path)?).acquire()
    }

    fn connect(&self) -> Result<SqliteCore, StoreError> {
        let timeout = self.limits.store_timeout;
        if !self.seen.may_create() {
            return match self.path.metadata() {
                Ok(meta) if meta.is_file() => SqliteCore::open_existing(&self.path, timeout),
                Ok(_) => Err(refused("it is no file")),
                Err(error) => Err(self.unusable(&error)),
            };
        }
        // Only where there is none: to open and close a file that SQLite has open in this
        // process would drop its locks.
        let made =
            open_private(OpenOptions::new().write(true).create_new(true), &self.path).map(drop);
        match made {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(self.unusable(&error));
            }
            Err(_) if !self.path.is_file() => return Err(refused("it is no file")),
            Err(_) => {}
            Ok(()) => tracing::info!(store = %self.path.display(), "a new store is made"),
        }
        SqliteCore::open_file(&self.path, &self.new_cluster(), timeout)
    }

    fn new_cluster(&self) -> NewCluster {
        let mut cluster = [0; 16];
        self.env.rng("store-cluster").fill_bytes(&mut cluster);
        let now_ms = self.env.wall().ms;
        NewCluster { cluster, epoch: StoreEpoch(now_ms / 1000), now_ms }
    }

    /// Error of a path that cannot be used: refused if no store can be there and none was seen,
    /// else away.
    fn unusable(&self, error: &io::Error) -> StoreError {
        let why = match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => "it is not there".to_owned(),
            _ => error.to_string(),
        };
        let reason = match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => AwayReason::Gone,
            ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => AwayReason::ReadOnly,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => AwayReason::Full,
            _ => AwayReason::Failing,
        };
        let is_lasting = matches!(
            error.kind(),
            ErrorKind::NotFound
                | ErrorKind::NotADirectory
                | ErrorKind::IsADirectory
                | ErrorKind::InvalidFilename
        );
        if is_lasting && self.seen.newest().is_none() {
            refused(why)
        } else {
            StoreError::away(reason, why)
        }
    }
}

/// Blocks this thread until there is a job; `None` once the store was dropped.
fn next_job(jobs: &mut Jobs) -> Option<Job> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        if let Poll::Ready(job) = jobs.poll_recv(&mut Context::from_waker(&waker)) {
            return job;
        }
        std::thread::park();
    }
}

/// Waker of a thread that blocks.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A reading thread.
struct Reading {
    env: Env,
    path: PathBuf,
    timeout: Duration,
    seen: Arc<Seen>,
    moved: Arc<Moved>,
}

impl Reading {
    /// Carries out one operation after another.
    fn run(self, jobs: &Mutex<Jobs>) {
        let mut opened = None;
        loop {
            // The lock is held while waiting: the other readers then wait for the lock instead.
            let job = next_job(&mut jobs.lock().unwrap_or_else(PoisonError::into_inner));
            let Some(Job { op, reply }) = job else { return };
            self.moved.at(self.env.now());
            if reply.is_closed() {
                continue;
            }
            let open = || SqliteCore::open_to_read(&self.path, self.timeout);
            let act = |core: &mut SqliteCore| core.apply(&op, self.env.wall().ms);
            let _ = reply.send(on_file(&mut opened, &self.path, &self.seen, open, act));
            self.moved.at(self.env.now());
        }
    }
}

fn failing(why: impl Into<String>) -> StoreError {
    StoreError::away(AwayReason::Failing, why)
}

#[cfg(test)]
mod tests;
