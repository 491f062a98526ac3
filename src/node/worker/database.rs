//! Async handle on the node database: one task writes, any number read, all of it off the async
//! threads.
//!
//! A database that failed is closed and opened again after [`REOPEN_AFTER`]; until then reads
//! find nothing and writes are lost, which the next poll of the store shows as gaps.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use crate::{
    env::{Cancelled, Env, Task},
    model::{
        ids::BoardName,
        message::{Member, Update},
        rows::{Boards, Page},
    },
    replica::{ApplyReport, Replica, ReplicaError, ReplicaLimits},
};

/// Pause before a failed database is opened again.
const REOPEN_AFTER: Duration = Duration::from_secs(1);
/// Maximum number of writes that wait.
const JOBS_MAX: usize = 256;

enum Job {
    Updates(Vec<Update>, oneshot::Sender<Option<ApplyReport>>),
    Page(BoardName, Box<Page>, oneshot::Sender<Option<ApplyReport>>),
    Observe(Boards, oneshot::Sender<Option<ApplyReport>>),
    Members(Vec<Member>),
    Persist(oneshot::Sender<()>),
}

/// Cheap handle on the node database.
#[derive(Clone)]
pub(super) struct Database {
    env: Env,
    open: Arc<Mutex<Option<Arc<Replica>>>>,
    jobs: mpsc::Sender<Job>,
}

impl Database {
    /// Opens the database and starts its writing task, which ends with the task handle or the node.
    ///
    /// # Errors
    /// The disk's error, when no database can be opened or created.
    pub(super) async fn open(env: &Env) -> Result<(Self, Task), ReplicaError> {
        let replica = open(env).await?;
        let (jobs, queue) = mpsc::channel(JOBS_MAX);
        let open = Arc::new(Mutex::new(Some(Arc::new(replica))));
        let database = Self { env: env.clone(), open, jobs };
        let writer = database.clone();
        let task = env.spawn("node-database", async move { writer.write(queue).await });
        Ok((database, task))
    }

    fn replica(&self) -> Option<Arc<Replica>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, replica: Option<Replica>) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = replica.map(Arc::new);
    }

    /// Reads from the database; `None` when it cannot be read now.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Replica) -> Result<T, ReplicaError> + Send + 'static,
    ) -> Option<T> {
        let replica = self.replica()?;
        match self.env.compute(move || read(&replica)).await {
            Ok(Ok(value)) => Some(value),
            Ok(Err(error)) => {
                tracing::warn!(%error, "a read of the node database");
                None
            }
            Err(Cancelled) => None,
        }
    }

    /// Writes a group of updates; `None` when it is lost.
    pub(super) async fn apply(&self, updates: Vec<Update>) -> Option<ApplyReport> {
        self.ask(|done| Job::Updates(updates, done)).await
    }

    /// Writes the page of a repair; `None` when it is lost.
    pub(super) async fn apply_page(&self, board: BoardName, page: Page) -> Option<ApplyReport> {
        self.ask(|done| Job::Page(board, Box::new(page), done)).await
    }

    /// Compares the database with the store's boards; `None` when it could not.
    pub(super) async fn observe(&self, seen: Boards) -> Option<ApplyReport> {
        self.ask(|done| Job::Observe(seen, done)).await
    }

    /// Keeps members of the directory, unless the queue is full: a later life then searches without
    /// them.
    pub(super) fn keep_members(&self, members: Vec<Member>) {
        let _ = self.jobs.try_send(Job::Members(members));
    }

    /// Makes everything that was written durable.
    pub(super) async fn persist(&self) {
        let (done, persisted) = oneshot::channel();
        if self.jobs.send(Job::Persist(done)).await.is_ok() {
            let _ = persisted.await;
        }
    }

    async fn ask(
        &self,
        job: impl FnOnce(oneshot::Sender<Option<ApplyReport>>) -> Job,
    ) -> Option<ApplyReport> {
        let (done, applied) = oneshot::channel();
        self.jobs.send(job(done)).await.ok()?;
        applied.await.ok().flatten()
    }

    async fn write(&self, mut queue: mpsc::Receiver<Job>) {
        while let Some(job) = queue.recv().await {
            // The caller may be gone; the write stands.
            match job {
                Job::Updates(updates, done) => {
                    let _ = done.send(self.change(move |to| to.apply(&updates)).await);
                }
                Job::Page(board, page, done) => {
                    let _ = done.send(self.change(move |to| to.apply_page(&board, &page)).await);
                }
                Job::Observe(seen, done) => {
                    let _ = done.send(self.change(move |to| to.observe(&seen)).await);
                }
                Job::Members(members) => {
                    self.change(move |to| to.put_members(&members)).await;
                }
                Job::Persist(done) => {
                    self.change(Replica::persist).await;
                    let _ = done.send(());
                }
            }
        }
    }

    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Replica) -> Result<T, ReplicaError> + Send + 'static,
    ) -> Option<T> {
        let Some(replica) = self.replica() else {
            self.reopen().await;
            return None;
        };
        match self.env.compute(move || change(&replica)).await.ok()? {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::error!(%error, "the node database is opened again");
                self.reopen().await;
                None
            }
        }
    }

    async fn reopen(&self) {
        // Readers let go of the old handle meanwhile.
        self.set(None);
        self.env.sleep(REOPEN_AFTER).await;
        match open(&self.env).await {
            Ok(replica) => self.set(Some(replica)),
            Err(error) => tracing::error!(%error, "the node database does not open"),
        }
    }
}

async fn open(env: &Env) -> Result<Replica, ReplicaError> {
    let disk = env.disk();
    let opened = env.compute(move || Replica::open(&disk, ReplicaLimits::default())).await;
    match opened {
        Ok(opened) => {
            let (replica, found) = opened?;
            tracing::debug!(?found, "the node database");
            Ok(replica)
        }
        Err(Cancelled) => Err(ReplicaError::Failed { why: "the node is going away".to_owned() }),
    }
}
