//! Connections of a process, each with its operations.
//!
//! ```text
//!   call ──lane──> life, leases, writer: one connection each ──┐
//!        └──────────────────────────> readers (2) ─────────────┴─> PostgreSQL
//! ```
//!
//! 1. Each lane of writes has a connection of its own, so that a touch never waits behind a batch.
//! 2. A connection is opened when it is needed, and closed after a silence.
//! 3. An operation that was undone for others that ran beside it is repeated within its time. No
//!    other one is: its outcome may be unknown.
//! 4. Batches of users' tasks that wait together share one transaction. If one of them fails after
//!    its first row, all are undone and each is written by itself, so that it falls alone. So are the
//!    parts of a group that is too long to be written batch by batch (`groups.rs`): each part has the
//!    whole time, and its answers at once.
//! 5. A connection is tried once for all who wait for it: if it fails, none of them waits for the next
//!    try, and none is tried for whom nobody waits any more. One that comes late serves the next call.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rand_chacha::rand_core::Rng;
use tokio::sync::oneshot;

use super::{
    append::Append,
    connection::Db,
    groups::{STATEMENTS_MAX, divide, gather, statements},
    notify::ends_of,
    queue::{self, JobReceiver},
    shared::Shared,
    sql::{Failure, Outcome},
    tx::{Manner, Tx},
};
use crate::{
    env::{BoxFuture, TimedOut},
    model::{absence::AwayReason, rows::StoreError},
    store::{
        Op, OpReply,
        batch::Batch,
        job::{Answer, Job},
    },
};

/// Silence after which a connection is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Longest pause before an operation is repeated that was undone for others, ms.
const PAUSE_MAX_MS: u64 = 20;

/// One connection and its work.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: JobReceiver,
    /// Hears of the first connection; the worker then opens it at once.
    pub(super) ready: Option<oneshot::Sender<Result<(), StoreError>>>,
}

impl Worker {
    /// Works until the store is dropped.
    pub(super) async fn run(mut self) {
        let mut db = None;
        if let Some(ready) = self.ready.take() {
            let connected = self.connect(&mut db).await;
            // The opener may have gone on without waiting for this.
            let _ = ready.send(connected);
        }
        let mut next: Option<Job> = None;
        loop {
            let first = match next.take().filter(|job| !job.reply.is_closed()) {
                Some(job) => job,
                None => match self.next().await {
                    Ok(Some(job)) => job,
                    Ok(None) => return,
                    Err(_) => {
                        db = None;
                        continue;
                    }
                },
            };
            let mut group = vec![first];
            if let Err(error) = self.connect(&mut db).await {
                answer(group, |_| Err(error.clone()));
                continue;
            }
            next = gather(&mut group, &self.queue, self.shared.group_batches_max);
            if let Some(open) = db.take() {
                let _serving = self.queue.serving();
                db = self.serve(open, group).await;
            }
        }
    }

    /// Waits for the next operation; an error tells of a long silence.
    fn next(&self) -> BoxFuture<'_, Result<Option<Job>, TimedOut>> {
        Box::pin(async move { self.shared.env.timeout(IDLE_MAX, self.queue.next()).await })
    }

    /// Opens the connection unless it is open. An error is also the answer to all who wait for it.
    fn connect<'a>(&'a self, db: &'a mut Option<Db>) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            db.take_if(|db| !self.is_good(db));
            if db.is_none() {
                // A change of the tables may take minutes: nobody waits for it once the store is dropped.
                let connected = tokio::select! {
                    biased;
                    () = self.queue.end() => Err(queue::ended()),
                    connected = self.shared.connect() => connected,
                };
                match connected {
                    Ok(open) => *db = Some(open),
                    Err(error) => {
                        self.shared.set_absence(Some(error.clone()));
                        // A silent server takes longer to be tried again than a caller waits.
                        self.queue.fail_waiting(&error);
                        return Err(error);
                    }
                }
            }
            self.shared.set_absence(None);
            Ok(())
        })
    }

    /// Returns whether a connection may be used on.
    fn is_good(&self, db: &Db) -> bool {
        !db.is_closed() && db.closed == self.shared.closed.load(Ordering::Relaxed)
    }

    /// Carries out a group and answers it; gives the connection back if it is still good. If it cannot
    /// be written together, its parts are, one after the other, each in a time of its own.
    pub(super) fn serve(&self, db: Db, group: Vec<Job>) -> BoxFuture<'_, Option<Db>> {
        Box::pin(async move {
            let mut parts = VecDeque::from([group]);
            while let Some(mut group) = parts.pop_front() {
                // Callers that gave up meanwhile want nothing any more.
                group.retain(|job| !job.reply.is_closed());
                if group.is_empty() {
                    continue;
                }
                let done = {
                    let work: BoxFuture<'_, Option<Vec<Answer>>> =
                        Box::pin(self.carry_out(&db, &group));
                    self.shared.env.timeout(self.shared.timeout, work).await
                };
                let answers = match done {
                    Ok(Some(answers)) => answers,
                    Ok(None) => {
                        // Before the parts that came after them.
                        divide(group).into_iter().rev().for_each(|part| parts.push_front(part));
                        continue;
                    }
                    Err(TimedOut) => {
                        parts.push_front(group);
                        answer(parts.into_iter().flatten(), |_| Err(self.shared.no_answer()));
                        return None;
                    }
                };
                let written = group.iter().zip(&answers);
                let ends = written.filter_map(|(job, answer)| ends_of(&job.op, answer));
                self.shared.written.add(ends);
                if answers.iter().any(finds_closed) {
                    self.shared.closed.fetch_add(1, Ordering::Relaxed);
                }
                let is_good = self.is_good(&db) && !answers.iter().any(ends_connection);
                let mut answers = answers.into_iter();
                answer(group, |_| answers.next().unwrap_or_else(|| Err(unanswered())));
                if !is_good {
                    // Nothing of these was done.
                    let lost = StoreError::away(AwayReason::Unreachable, "the connection is gone");
                    answer(parts.into_iter().flatten(), |_| Err(lost.clone()));
                    return None;
                }
            }
            Some(db)
        })
    }

    /// Carries out a group. `None` if it has to be divided: nothing was written then.
    async fn carry_out(&self, db: &Db, group: &[Job]) -> Option<Vec<Answer>> {
        if let [job] = group
            && job.task_bytes().is_none()
        {
            return Some(vec![self.one(db, &job.op).await]);
        }
        match self.group(db, group).await {
            Ok(answers) => answers,
            Err(error) => Some(vec![Err(error); group.len()]),
        }
    }

    /// Carries out one operation, and again if it was undone because of others.
    async fn one(&self, db: &Db, op: &Op) -> Answer {
        loop {
            match once(db, op).await {
                Ok(reply) => return Ok(reply),
                Err(failure) => self.after(db, failure).await?,
            }
        }
    }

    /// Writes a group of batches, and again if it was undone because of others.
    async fn group(&self, db: &Db, group: &[Job]) -> Result<Option<Vec<Answer>>, StoreError> {
        loop {
            match together(db, group).await {
                Ok(answers) => return Ok(answers),
                Err(failure) => self.after(db, failure).await?,
            }
        }
    }

    /// Ends a transaction that failed, and waits a little if it is to be repeated.
    async fn after(&self, db: &Db, failure: Failure) -> Result<(), StoreError> {
        let rolled_back = db.is_closed() || db.roll_back().await.is_ok();
        if !failure.is_conflict() || !rolled_back {
            return Err(failure.into());
        }
        let pause_ms = self.shared.env.rng("store-pause").next_u64() % PAUSE_MAX_MS;
        self.shared.env.sleep(Duration::from_millis(pause_ms)).await;
        Ok(())
    }
}

/// Carries out one operation in a transaction of its own.
async fn once(db: &Db, op: &Op) -> Outcome<OpReply> {
    let manner = Manner::of(op);
    let tx = match manner {
        Manner::InTurn => Tx::in_turn(db).await?,
        Manner::Beside => Tx::beside(db).await?,
        Manner::Read => return Tx::reading(db).carry_out(op).await,
    };
    let reply = tx.carry_out(op).await?;
    tx.commit(manner).await?;
    if let Op::Deny(node) = op {
        // The denial stands even where the node's login cannot be closed.
        Tx::reading(db).close_login(*node).await?;
    }
    Ok(reply)
}

/// Writes batches in one transaction. `None` if one of several failed in a manner that may have left
/// rows behind, or if they have to be written one after the other and are too long for that: nothing is
/// written then.
async fn together(db: &Db, group: &[Job]) -> Outcome<Option<Vec<Answer>>> {
    let batches: Vec<Batch<'_>> = group.iter().filter_map(|job| Batch::of(&job.op)).collect();
    debug_assert_eq!(batches.len(), group.len(), "a group is of batches only");
    let append = Append::of(batches.iter().copied());
    let appends = !append.is_empty();
    match write_all(db, &batches, append).await {
        // An id was used before, or the rows of a board are refused or damaged: each batch finds out,
        // so that one does not fail for another.
        Err(failure) if appends && failure.is_of_rows() => {
            db.roll_back().await?;
            write_all(db, &batches, Append::default()).await
        }
        outcome => outcome,
    }
}

/// Writes batches: those that only append at once, the others one after the other. `None` as
/// [`together`] says.
async fn write_all<'a>(
    db: &Db,
    batches: &[Batch<'a>],
    mut append: Append<'a>,
) -> Outcome<Option<Vec<Answer>>> {
    let tx = append.begin(db).await?;
    let mut answers = Vec::with_capacity(batches.len());
    for batch in batches {
        let Ok(answer) = append.add(*batch, &tx) else {
            append = Append::default();
            answers.clear();
            break;
        };
        answers.push(answer);
    }
    answers.resize(batches.len(), None);
    let is_alone = batches.len() == 1;
    let others = batches.iter().zip(&answers).filter(|(_, answer)| answer.is_none());
    let length: usize = others.map(|(batch, _)| statements(batch.tasks)).sum();
    if length > STATEMENTS_MAX && !is_alone {
        db.roll_back().await?;
        return Ok(None);
    }
    for (batch, answer) in batches.iter().zip(&mut answers) {
        if answer.is_some() {
            continue;
        }
        *answer = Some(match tx.write(*batch).await {
            Ok(results) => Ok(OpReply::Written(results)),
            // Both are decided before the first row.
            Err(Failure::Rule(
                refusal @ (StoreError::Fenced { .. }
                | StoreError::NotNext { .. }
                | StoreError::Refused { .. }),
            )) => Err(refusal),
            Err(failure) if failure.is_of_rows() && !is_alone => {
                db.roll_back().await?;
                return Ok(None);
            }
            Err(failure) => return Err(failure),
        });
    }
    append.commit(tx).await?;
    Ok(Some(answers.into_iter().flatten().collect()))
}

fn answer(group: impl IntoIterator<Item = Job>, mut with: impl FnMut(&Op) -> Answer) {
    for job in group {
        let answer = with(&job.op);
        let _ = job.reply.send(answer);
    }
}

fn unanswered() -> StoreError {
    StoreError::Broken { why: "an operation without an answer".to_owned() }
}

/// Returns whether the answer says that the store is not this release's any more.
fn finds_closed(answer: &Answer) -> bool {
    let reason = answer.as_ref().err().and_then(StoreError::away_reason);
    reason == Some(AwayReason::Replaced)
}

/// Returns whether a connection is not to be used again after this answer: its server is going, or
/// takes no writes any more.
fn ends_connection(answer: &Answer) -> bool {
    matches!(
        answer,
        Err(StoreError::Away {
            reason: AwayReason::Unreachable
                | AwayReason::ReadOnly
                | AwayReason::NoAnswer
                | AwayReason::Gone,
            ..
        })
    )
}
