//! Async handle on the node database: one task writes, any number read, all of it off the async
//! threads.
//!
//! 1. The worker does not wait for it: a database whose last life ended uncleanly is checked while
//!    the worker registers and writes. Until it is open reads find nothing, and writes wait.
//! 2. A database that failed, or that made redb panic, is closed, checked whole and opened again, after
//!    [`REOPEN_AFTER`]; what was being written is lost, which the next poll of the store shows as
//!    gaps.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use crate::{
    env::{Cancelled, Env, Task},
    model::{
        held::{HeldKey, HeldPost, HoldReply},
        ids::BoardName,
        message::{Member, Update},
        rows::{Boards, Page},
        time::Wall,
    },
    replica::{ApplyReport, Check, OpenedAs, Replica, ReplicaError, ReplicaLimits},
    store::OwnEnds,
};

/// Pause before a failed database is opened again.
const REOPEN_AFTER: Duration = Duration::from_secs(1);
/// Maximum number of writes that wait.
const JOBS_MAX: usize = 256;
/// Maximum number of posts that one transaction puts on the disk to be held.
const HOLD_MAX: usize = 64;

enum Job {
    Updates(Vec<Update>, oneshot::Sender<Option<ApplyReport>>),
    Page(BoardName, Box<Page>, oneshot::Sender<Option<ApplyReport>>),
    Observe(Boards, oneshot::Sender<Option<ApplyReport>>),
    Members(Vec<Member>),
    /// A post, and since when it is held.
    Hold((HeldPost, Wall), oneshot::Sender<Option<HoldReply>>),
    LetGo(HeldKey),
    /// Opens the database again, unless it was since this opening.
    Reopen(u64),
    Close(oneshot::Sender<()>),
}

/// Cheap handle on the node database.
#[derive(Clone)]
pub(super) struct Database {
    env: Env,
    limits: ReplicaLimits,
    open: Arc<Mutex<Option<Arc<Replica>>>>,
    /// Number of times that it was opened in this life.
    openings: Arc<AtomicU64>,
    jobs: mpsc::Sender<Job>,
}

impl Database {
    /// Starts the writing task, which opens the database and ends with the task handle or the
    /// node. The receiver gets the members that it holds once it is open.
    pub(super) fn start(
        env: &Env,
        limits: ReplicaLimits,
    ) -> (Self, oneshot::Receiver<Vec<Member>>, Task) {
        let (jobs, queue) = mpsc::channel(JOBS_MAX);
        let (kept, members) = oneshot::channel();
        let (open, openings) = (Arc::default(), Arc::default());
        let database = Self { env: env.clone(), limits, open, openings, jobs };
        let writer = database.clone();
        let task = env.spawn("node-database", async move {
            writer.open_at_last(Check::AfterUncleanEnd).await;
            let members = writer.read(|replica| replica.members()).await;
            // The worker may not wait for them.
            let _ = kept.send(members.unwrap_or_default());
            writer.write(queue).await;
        });
        (database, members, task)
    }

    fn replica(&self) -> Option<Arc<Replica>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the open database, and the number of openings up to its own.
    fn opened(&self) -> Option<(Arc<Replica>, u64)> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // It is counted under the same lock.
        open.clone().map(|replica| (replica, self.openings()))
    }

    fn set(&self, replica: Option<Replica>) -> Option<Arc<Replica>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if replica.is_some() {
            self.openings.fetch_add(1, Ordering::Relaxed);
        }
        std::mem::replace(&mut *open, replica.map(Arc::new))
    }

    /// Returns how often the database was opened: what it holds may be another from time to time.
    pub(super) fn openings(&self) -> u64 {
        self.openings.load(Ordering::Relaxed)
    }

    /// Returns whether the database can be read and written now.
    pub(super) fn is_open(&self) -> bool {
        self.replica().is_some()
    }

    /// Tells the guard of the store how far the boards go here.
    pub(super) async fn tell_ends(&self, ends: &OwnEnds) {
        if let Some(known) = self.read(|replica| replica.boards()).await {
            ends.set(known);
        }
    }

    /// Reads from the database; `None` when it cannot be read now.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Replica) -> Result<T, ReplicaError> + Send + 'static,
    ) -> Option<T> {
        let (replica, opening) = self.opened()?;
        match self.env.compute(move || read(&replica)).await {
            Ok(Ok(value)) => Some(value),
            Ok(Err(error)) => {
                tracing::warn!(%error, "a read of the node database");
                // A full queue has a write that finds out as well.
                let _ = self.jobs.try_send(Job::Reopen(opening));
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
        // Comparisons must not pile up before a database that is being checked.
        self.replica()?;
        self.ask(|done| Job::Observe(seen, done)).await
    }

    /// Keeps members of the directory, unless the queue is full: a later life then searches without
    /// them.
    pub(super) fn keep_members(&self, members: Vec<Member>) {
        let _ = self.jobs.try_send(Job::Members(members));
    }

    /// Puts a post that is held since then on the disk; it is durable when this returns.
    pub(super) async fn hold(&self, post: HeldPost, since: Wall) -> HoldReply {
        if self.replica().is_none() {
            return HoldReply::Failed;
        }
        let (done, held) = oneshot::channel();
        if self.jobs.send(Job::Hold((post, since), done)).await.is_err() {
            return HoldReply::Failed;
        }
        held.await.ok().flatten().unwrap_or(HoldReply::Unknown)
    }

    /// Deletes a post that was held. One that stays, because the database fails, is handed in again
    /// after the next opening.
    pub(super) async fn let_go(&self, key: HeldKey) {
        // Without the writing task the node is going away.
        let _ = self.jobs.send(Job::LetGo(key)).await;
    }

    /// Makes everything that was written durable and closes the database, so that its next life
    /// need not check it. A database that is being checked is left as it is.
    pub(super) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.replica().is_some() && self.jobs.send(Job::Close(done)).await.is_ok() {
            let _ = closed.await;
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
        let mut next = None;
        loop {
            let Some(job) = (match next.take() {
                Some(job) => Some(job),
                None => queue.recv().await,
            }) else {
                return;
            };
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
                Job::Hold(post, done) => {
                    let (mut posts, mut waiters) = (vec![post], vec![done]);
                    while posts.len() < HOLD_MAX
                        && next.is_none()
                        && let Ok(job) = queue.try_recv()
                    {
                        match job {
                            Job::Hold(post, done) => {
                                posts.push(post);
                                waiters.push(done);
                            }
                            other => next = Some(other),
                        }
                    }
                    let posts: Vec<_> =
                        posts.into_iter().map(|(post, since)| (post, since.ms)).collect();
                    let held = self.change(move |to| to.hold(&posts)).await;
                    let mut answers = held.unwrap_or_default().into_iter();
                    for waiter in waiters {
                        let _ = waiter.send(answers.next());
                    }
                }
                Job::LetGo(key) => {
                    self.change(move |to| to.let_go(key)).await;
                }
                // Of reads that failed together the first one had it opened again.
                Job::Reopen(opening) if opening != self.openings() => {}
                Job::Reopen(_) => self.reopen().await,
                Job::Close(done) => {
                    if let Some(replica) = self.set(None) {
                        let persisted = self.env.compute(move || replica.persist()).await;
                        if let Ok(Err(error)) = persisted {
                            tracing::warn!(%error, "the node database was not closed cleanly");
                        }
                    }
                    let _ = done.send(());
                    return;
                }
            }
        }
    }

    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Replica) -> Result<T, ReplicaError> + Send + 'static,
    ) -> Option<T> {
        let replica = self.replica()?;
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
        let old = self.set(None);
        self.env.sleep(REOPEN_AFTER).await;
        // Closing writes: the file must not be open anew before its last reader let go of it.
        while old.as_ref().is_some_and(|old| Arc::strong_count(old) > 1) {
            self.env.sleep(REOPEN_AFTER).await;
        }
        let _ = self.env.compute(move || drop(old)).await;
        self.open_at_last(Check::Whole).await;
    }

    /// Opens the database, however often that fails.
    async fn open_at_last(&self, check: Check) {
        loop {
            match open(&self.env, self.limits, check).await {
                Ok(replica) => {
                    self.set(Some(replica));
                    return;
                }
                Err(error) => tracing::error!(%error, "the node database does not open"),
            }
            self.env.sleep(REOPEN_AFTER).await;
        }
    }
}

async fn open(env: &Env, limits: ReplicaLimits, check: Check) -> Result<Replica, ReplicaError> {
    let disk = env.disk();
    let progress = |done: f64| {
        let percent = (done * 100.0).round();
        tracing::info!(percent, "the node database is checked; the worker works meanwhile");
    };
    let opened = env.compute(move || Replica::open(&disk, limits, check, progress)).await;
    match opened {
        Ok(opened) => {
            let (replica, found) = opened?;
            match found {
                OpenedAs::Unreadable { why } => {
                    tracing::warn!(why, "the node database was unreadable; a new one is filled");
                }
                found => tracing::debug!(?found, "the node database"),
            }
            Ok(replica)
        }
        Err(Cancelled) => Err(ReplicaError::Failed { why: "the node is going away".to_owned() }),
    }
}

#[cfg(all(test, feature = "net"))]
mod tests {
    use futures_util::future::join_all;

    use super::*;
    use crate::{env::real::RealWorld, model::message::Task as Work, testing::worker::post};

    #[tokio::test]
    async fn reads_that_fail_together_have_the_database_opened_again_once() {
        let env = Env::new(RealWorld::temporary().expect("a directory of its own"));
        let (database, members, _writing) = Database::start(&env, ReplicaLimits::default());
        members.await.expect("it opens");
        assert_eq!(database.openings(), 1);
        let damaged = || ReplicaError::Damaged { why: "on purpose".to_owned() };
        let reads = (0..25).map(|_| database.read::<()>(move |_| Err(damaged())));
        assert!(join_all(reads).await.iter().all(Option::is_none));
        let Work::Post { board, post } = post(1) else { panic!("it is a post") };
        let held = HeldPost { board, post };
        let hold = async {
            loop {
                match database.hold(held.clone(), env.wall()).await {
                    HoldReply::Failed => env.sleep(Duration::from_millis(10)).await,
                    said => break said,
                }
            }
        };
        assert_eq!(env.timeout(Duration::from_secs(20), hold).await, Ok(HoldReply::Held));
        assert_eq!(database.openings(), 2);
        // One that fails later has it opened again.
        assert_eq!(database.read::<()>(move |_| Err(damaged())).await, None);
        let again = async {
            while database.openings() < 3 {
                env.sleep(Duration::from_millis(10)).await;
            }
        };
        env.timeout(Duration::from_secs(20), again).await.expect("it is opened again");
    }
}
