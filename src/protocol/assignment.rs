//! What becomes of a batch: attempts, retries, the next worker, splitting, giving up.
//!
//! 1. One batch of a slot is in flight at a time; each attempt of it has a number of its own,
//!    so an answer that comes late is known as such.
//! 2. At most `attempts_per_worker` tries on one registration of a worker, with one token;
//!    then the worker has failed and the token is raised for the next.
//! 3. A batch that two workers failed is split: each task goes alone, with attempts of its own.
//! 4. After `attempts_max` tries a single task is a dead letter.
//! 5. A store that is away costs no attempt: the batch goes back, and waits 100 ms, doubling to 1 s.

use std::{sync::Arc, time::Duration};

use crate::{
    model::{
        ids::{NodeId, Registration, Token},
        message::Task,
        time::Mono,
    },
    protocol::task_queue::{Entry, Origin, Slot, TaskId},
};

/// An attempt's number in one life of one master.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub u64);

/// A worker in one registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Assignee {
    /// The worker.
    pub node: NodeId,
    /// Its registration.
    pub registration: Registration,
}

/// What a task needs besides its content while a batch holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskHead {
    /// Its number.
    pub id: TaskId,
    /// Whose it is.
    pub origin: Origin,
    /// When it came.
    pub came_at: Mono,
    /// It goes in a batch of its own.
    pub alone: bool,
}

/// Tasks that are written together.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Who waits, in the order of `tasks`.
    pub heads: Vec<TaskHead>,
    /// What to write; shared with the message that carries it.
    pub tasks: Arc<Vec<Task>>,
    /// The permission's token.
    pub token: Token,
    /// Whom it is with.
    pub assignee: Assignee,
    /// The attempt in flight, if one is.
    pub attempt: Option<AttemptId>,
    /// When the next attempt is due, if it waits for its backoff.
    pub retry_at: Option<Mono>,
    /// Workers that failed it, in the order of failing.
    pub failed: Vec<NodeId>,
    tries_here: u32,
    tries: u32,
}

impl Batch {
    /// A batch for its first worker. Takes the entries out of `from`.
    #[must_use]
    pub fn new(from: &mut Vec<Entry>, token: Token, assignee: Assignee) -> Self {
        let heads = from
            .iter()
            .map(|entry| TaskHead {
                id: entry.id,
                origin: entry.origin,
                came_at: entry.came_at,
                alone: entry.alone,
            })
            .collect();
        let tasks = from.drain(..).map(|entry| entry.task).collect();
        Self {
            heads,
            tasks: Arc::new(tasks),
            token,
            assignee,
            attempt: None,
            retry_at: None,
            failed: Vec::new(),
            tries_here: 0,
            tries: 0,
        }
    }

    /// Begins a try with the current worker; which one it is of all, from 1.
    pub const fn begin(&mut self, attempt: AttemptId) -> u32 {
        self.attempt = Some(attempt);
        self.retry_at = None;
        self.tries_here += 1;
        self.tries += 1;
        self.tries
    }

    /// Gives the batch to a further worker under a higher token.
    pub const fn reassign(&mut self, token: Token, assignee: Assignee) {
        self.token = token;
        self.assignee = assignee;
        self.tries_here = 0;
    }

    /// The entries again, to be put back. `alone` makes each go in a batch of its own.
    pub fn into_entries(self, alone: bool) -> impl DoubleEndedIterator<Item = Entry> {
        let tasks = Arc::unwrap_or_clone(self.tasks);
        self.heads.into_iter().zip(tasks).map(move |(head, task)| Entry {
            id: head.id,
            origin: head.origin,
            sent: true,
            alone: alone || head.alone,
            came_at: head.came_at,
            task,
        })
    }
}

/// What to do after a try that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The same worker and token again, at this time.
    Retry(Mono),
    /// The worker has failed; another one, with a higher token.
    Reassign,
    /// The worker has failed, as one did before; each task alone.
    Split,
    /// The worker has failed; give the task up.
    GiveUp,
}

/// The rules of trying again.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Tries on one registration of a worker.
    pub per_worker: u32,
    /// Tries in all.
    pub max: u32,
    /// Between two tries.
    pub backoff: Duration,
}

/// The batches of one master, by slot.
#[derive(Debug)]
pub struct Assignments {
    policy: RetryPolicy,
    lanes: Vec<Lane>,
    next: u64,
}

#[derive(Debug, Default)]
struct Lane {
    batch: Option<Batch>,
    /// The store was away this often in a row.
    away: u32,
    /// No new batch before.
    not_before: Mono,
}

impl Assignments {
    /// No batches.
    #[must_use]
    pub const fn new(policy: RetryPolicy) -> Self {
        Self { policy, lanes: Vec::new(), next: 0 }
    }

    fn lane_mut(&mut self, slot: Slot) -> &mut Lane {
        if self.lanes.len() <= slot.index() {
            self.lanes.resize_with(slot.index() + 1, Lane::default);
        }
        &mut self.lanes[slot.index()]
    }

    /// The batch of a slot.
    #[must_use]
    pub fn batch(&self, slot: Slot) -> Option<&Batch> {
        self.lanes.get(slot.index())?.batch.as_ref()
    }

    /// The batch of a slot, to be changed.
    pub fn batch_mut(&mut self, slot: Slot) -> Option<&mut Batch> {
        self.lanes.get_mut(slot.index())?.batch.as_mut()
    }

    /// Until when a slot takes no new batch; in the past when it may.
    #[must_use]
    pub fn not_before(&self, slot: Slot) -> Mono {
        self.lanes.get(slot.index()).map_or(Mono::ZERO, |lane| lane.not_before)
    }

    /// Keeps a batch; the slot has none.
    pub fn put(&mut self, slot: Slot, batch: Batch) {
        let lane = self.lane_mut(slot);
        debug_assert!(lane.batch.is_none(), "invariant 1: one batch of a slot is in flight");
        lane.batch = Some(batch);
    }

    /// Takes a batch out.
    pub fn take(&mut self, slot: Slot) -> Option<Batch> {
        self.lanes.get_mut(slot.index())?.batch.take()
    }

    /// A number for the next attempt.
    pub const fn number(&mut self) -> AttemptId {
        self.next += 1;
        AttemptId(self.next)
    }

    /// An attempt has ended. `false` when it is not the one in flight: a late answer.
    pub fn on_ended(&mut self, slot: Slot, attempt: AttemptId) -> bool {
        let Some(batch) = self.batch_mut(slot) else { return false };
        if batch.attempt != Some(attempt) {
            return false;
        }
        batch.attempt = None;
        true
    }

    /// The worker was not heard, or is gone (`lost`). Says what to do; the batch stays.
    pub fn on_failed(&mut self, now: Mono, slot: Slot, lost: bool) -> Option<Next> {
        let policy = self.policy;
        let batch = self.batch_mut(slot)?;
        if !lost && batch.tries_here < policy.per_worker && batch.tries < policy.max {
            let at = now + policy.backoff;
            batch.retry_at = Some(at);
            return Some(Next::Retry(at));
        }
        batch.failed.push(batch.assignee.node);
        Some(if batch.tasks.len() > 1 && batch.failed.len() > 1 {
            Next::Split
        } else if batch.tries < policy.max {
            Next::Reassign
        } else if batch.tasks.len() > 1 {
            Next::Split
        } else {
            Next::GiveUp
        })
    }

    /// The store was away: no new batch of this slot until the time returned.
    pub fn on_store_away(&mut self, now: Mono, slot: Slot) -> Mono {
        let lane = self.lane_mut(slot);
        let wait = Duration::from_millis(100 << lane.away.min(4)).min(Duration::from_secs(1));
        lane.away += 1;
        lane.not_before = now + wait;
        lane.not_before
    }

    /// The store answered.
    pub fn on_store_here(&mut self, slot: Slot) {
        let lane = self.lane_mut(slot);
        lane.away = 0;
        lane.not_before = Mono::ZERO;
    }

    /// Forgets a retired slot.
    pub fn forget(&mut self, slot: Slot) {
        *self.lane_mut(slot) = Lane::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::{BoardName, StoreEpoch};

    const SLOT: Slot = Slot(0);

    fn table() -> Assignments {
        Assignments::new(RetryPolicy { per_worker: 2, max: 4, backoff: Duration::from_millis(100) })
    }

    fn assignee(n: u8) -> Assignee {
        Assignee { node: NodeId([n; 16]), registration: Registration(1) }
    }

    fn token(n: u64) -> Token {
        Token { epoch: StoreEpoch(1), lease: 1, n }
    }

    fn with_tasks(tasks: usize) -> Assignments {
        let mut from = (0..tasks as u64)
            .map(|id| Entry {
                id: TaskId(id),
                origin: Origin::Local,
                sent: false,
                alone: false,
                came_at: Mono::ZERO,
                task: Task::CreateBoard { board: BoardName::lobby() },
            })
            .collect();
        let mut table = table();
        table.put(SLOT, Batch::new(&mut from, token(1), assignee(1)));
        table
    }

    /// Fails tries until something else than a retry is to be done.
    fn fail_worker(table: &mut Assignments) -> (u32, Option<Next>) {
        for tries in 1.. {
            let number = table.number();
            table.batch_mut(SLOT).expect("it stays").begin(number);
            assert!(table.on_ended(SLOT, number));
            match table.on_failed(Mono::ZERO, SLOT, false) {
                Some(Next::Retry(_)) => {}
                next => return (tries, next),
            }
        }
        unreachable!("tries are bounded")
    }

    #[test]
    fn a_single_task_is_given_up_after_two_tries_on_each_of_two_workers() {
        let mut table = with_tasks(1);
        assert_eq!(fail_worker(&mut table), (2, Some(Next::Reassign)));
        table.batch_mut(SLOT).expect("it stays").reassign(token(2), assignee(2));
        assert_eq!(fail_worker(&mut table), (2, Some(Next::GiveUp)));
    }

    #[test]
    fn a_batch_that_two_workers_failed_is_split() {
        let mut table = with_tasks(3);
        assert_eq!(fail_worker(&mut table), (2, Some(Next::Reassign)));
        table.batch_mut(SLOT).expect("it stays").reassign(token(2), assignee(2));
        assert_eq!(fail_worker(&mut table), (2, Some(Next::Split)));
        let entries: Vec<_> = table.take(SLOT).expect("it stays").into_entries(true).collect();
        assert!(entries.iter().all(|entry| entry.alone && entry.sent));
        assert_eq!(entries.iter().map(|entry| entry.id.0).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn a_lost_worker_gets_no_second_try() {
        let mut table = with_tasks(1);
        let number = table.number();
        table.batch_mut(SLOT).expect("it stays").begin(number);
        assert!(table.on_ended(SLOT, number));
        assert_eq!(table.on_failed(Mono::ZERO, SLOT, true), Some(Next::Reassign));
    }

    #[test]
    fn a_late_answer_is_known_as_such() {
        let mut table = with_tasks(1);
        let (first, second) = (table.number(), table.number());
        table.batch_mut(SLOT).expect("it stays").begin(first);
        assert!(table.on_ended(SLOT, first));
        table.batch_mut(SLOT).expect("it stays").begin(second);
        assert!(!table.on_ended(SLOT, first));
        assert!(table.on_ended(SLOT, second));
    }

    #[test]
    fn a_store_that_is_away_is_asked_ever_more_rarely() {
        let mut table = table();
        let waits: Vec<_> = (0..6)
            .map(|_| table.on_store_away(Mono::ZERO, SLOT).since(Mono::ZERO).as_millis())
            .collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        table.on_store_here(SLOT);
        assert_eq!(table.not_before(SLOT), Mono::ZERO);
    }
}
