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

use std::{
    fs::OpenOptions,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc::SyncSender},
    task::{Context, Poll, Wake, Waker},
    thread::Thread,
    time::Duration,
};

use rand_chacha::rand_core::Rng;
use tokio::sync::oneshot;

use super::{
    NewCluster, SqliteCore,
    group::{Answer, GROUP_BATCHES_MAX, Job, Jobs, carry_out, gather},
    refused,
    write_lock::{WriteLock, holder_of_lock},
};
use crate::{
    env::{
        BoxFuture, Env,
        lanes::{LaneSender, TrySendError, lanes},
        real::open_private,
    },
    model::{ids::StoreEpoch, rows::StoreError},
    store::{Backend, Lane, Op, Store},
};

/// Maximum number of operations of each lane that wait to be written, and of those that wait to be
/// read.
const WAITING_MAX: usize = 1024;

/// Number of reading threads, each with a connection.
const READERS: usize = 2;

/// Bounds of a store in a file.
#[derive(Clone, Copy, Debug)]
pub struct FileLimits {
    /// Time after which a caller is told that the store is away.
    pub store_timeout: Duration,
    /// Maximum number of batches in one transaction; 1 switches group commit off.
    pub group_batches_max: usize,
}

impl FileLimits {
    /// Returns the default bounds with this time-out.
    #[must_use]
    pub const fn new(store_timeout: Duration) -> Self {
        Self { store_timeout, group_batches_max: GROUP_BATCHES_MAX }
    }
}

/// Backend that hands operations to the threads. They end when it is dropped.
struct FileStore {
    env: Env,
    path: PathBuf,
    timeout: Duration,
    writer: LaneSender<Job, { Lane::COUNT }>,
    readers: LaneSender<Job, { Lane::COUNT }>,
}

/// Opens the store in `path`, and creates it if there is none: cluster id and first epoch come
/// from `env`. While another process keeps the file locked this still succeeds after at most
/// `store_timeout`; every operation is then [`StoreError::Away`] until the lock is free.
///
/// # Errors
/// Errors that waiting does not mend: [`StoreError::Refused`] for a path that cannot be used, a file
/// of another program or of a release too new; [`StoreError::Broken`] for a damaged file.
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
    let writing = Writing { env: env.clone(), path: path.to_owned(), limits };
    thread("store-writer", move || writing.run(jobs, ready))?;
    let (readers, jobs) = lanes([WAITING_MAX; Lane::COUNT]);
    let jobs = Arc::new(Mutex::new(jobs));
    for _ in 0..READERS {
        let (env, path, jobs) = (env.clone(), path.to_owned(), Arc::clone(&jobs));
        thread("store-reader", move || read(&env, &path, store_timeout, &jobs))?;
    }
    match opened.recv_timeout(store_timeout) {
        Ok(Err(error)) if !error.is_away() => Err(error),
        // Open, or away for now: each operation tries again.
        _ => Ok(Store::new(FileStore {
            env: env.clone(),
            path: path.to_owned(),
            timeout: store_timeout,
            writer,
            readers,
        })),
    }
}

/// Starts a thread of its own, not a job of [`Env::compute`]: it lives as long as the store, and
/// may be blocked for as long as another process is.
fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(body);
    spawned.map(drop).map_err(|error| away(format!("no thread for it: {error}")))
}

impl Backend for FileStore {
    fn call(&self, op: Op) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            let thread = if op.is_write() { &self.writer } else { &self.readers };
            thread.try_send(op.lane() as usize, Job { op, reply }).map_err(|full| match full {
                TrySendError::Full(_) => StoreError::Busy,
                TrySendError::Closed(_) => away("its thread has ended"),
            })?;
            match self.env.timeout(self.timeout, answer).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(away("its thread has ended")),
                Err(_) => Err(away(self.why_late())),
            }
        })
    }
}

impl FileStore {
    fn why_late(&self) -> String {
        let ms = self.timeout.as_millis();
        match holder_of_lock(&self.path) {
            Some(pid) => format!("no answer for {ms} ms; process {pid} holds its lock"),
            None => format!("no answer for {ms} ms"),
        }
    }
}

/// The writing thread.
struct Writing {
    env: Env,
    path: PathBuf,
    limits: FileLimits,
}

impl Writing {
    fn run(self, mut jobs: Jobs, ready: SyncSender<Result<(), StoreError>>) {
        let mut connection = None;
        let first = self.inside(&mut connection, |_| Ok(()));
        let hopeless = first.as_ref().is_err_and(|error| !error.is_away());
        // The opener may have gone on without waiting for this.
        let _ = ready.try_send(first);
        if hopeless {
            return;
        }
        let mut next = None;
        while let Some(first) = next.take().or_else(|| next_job(&mut jobs)) {
            let mut group = vec![first];
            let answers = self.inside(&mut connection, |core| {
                // Under the lock, so that what came while it was taken joins or overtakes.
                next = gather(&mut group, &mut jobs, self.limits.group_batches_max);
                group.retain(|job| !job.reply.is_closed());
                Ok(carry_out(core, &group, self.env.wall().ms))
            });
            let answers = answers.unwrap_or_else(|error| vec![Err(error); group.len()]);
            for (job, answer) in group.into_iter().zip(answers) {
                let _ = job.reply.send(answer);
            }
        }
    }

    /// Acts on the connection under the write lock; opens both if they are not open.
    fn inside<T>(
        &self,
        connection: &mut Option<(WriteLock, Option<SqliteCore>)>,
        act: impl FnOnce(&mut SqliteCore) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (lock, core) = match connection {
            Some(open) => open,
            none => none.insert((WriteLock::of(&self.path).map_err(|e| self.unusable(&e))?, None)),
        };
        let _held = lock.acquire().map_err(|error| away(error.to_string()))?;
        let core = match core {
            Some(core) => core,
            none => none.insert(self.connect()?),
        };
        act(core)
    }

    fn connect(&self) -> Result<SqliteCore, StoreError> {
        // Only where there is none: to open and close a file that SQLite has open in this
        // process would drop its locks.
        let made =
            open_private(OpenOptions::new().write(true).create_new(true), &self.path).map(drop);
        match made {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(self.unusable(&error));
            }
            Err(_) if !self.path.is_file() => {
                return Err(refused(format!("{}: not a file", self.path.display())));
            }
            _ => {}
        }
        SqliteCore::open_file(&self.path, &self.new_cluster(), self.limits.store_timeout)
    }

    fn new_cluster(&self) -> NewCluster {
        let mut cluster = [0; 16];
        self.env.rng("store-cluster").fill_bytes(&mut cluster);
        let now_ms = self.env.wall().ms;
        NewCluster { cluster, epoch: StoreEpoch(now_ms / 1000), now_ms }
    }

    /// Error of a path that cannot be used: away if it may pass, refused if an operator must mend it.
    fn unusable(&self, error: &std::io::Error) -> StoreError {
        let why = format!("{}: {error}", self.path.display());
        match error.kind() {
            ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
            | ErrorKind::InvalidFilename => refused(why),
            _ => away(why),
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

/// Body of a reading thread: carries out one operation after another.
fn read(env: &Env, path: &Path, timeout: Duration, jobs: &Mutex<Jobs>) {
    let mut connection = None;
    loop {
        // The lock is held while waiting: the other readers then wait for the lock instead.
        let job = next_job(&mut jobs.lock().unwrap_or_else(PoisonError::into_inner));
        let Some(Job { op, reply }) = job else { return };
        if reply.is_closed() {
            continue;
        }
        let core = match &mut connection {
            Some(core) => Ok(core),
            none => SqliteCore::open_to_read(path, timeout).map(|core| none.insert(core)),
        };
        let answer = core.and_then(|core| core.apply(&op, env.wall().ms));
        let _ = reply.send(answer);
    }
}

fn away(why: impl Into<String>) -> StoreError {
    StoreError::Away { why: why.into() }
}

#[cfg(test)]
mod tests;
