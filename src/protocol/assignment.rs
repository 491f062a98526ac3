//! Batches in flight: attempts, and the waits between them.
//!
//! 1. One batch of a slot is in flight at a time; each attempt of it has a number of its own,
//!    so a late answer is recognised.
//! 2. Tries on one registration of a worker have one token; the next worker gets a higher one.
//! 3. A batch that the store, the worker or the link did not take costs no try: it goes back to the
//!    queue and waits 100 ms, doubling to 1 s.
//! 4. A batch counts as sent, and may be written, unless nothing was done at each attempt.

use std::{sync::Arc, time::Duration};

use crate::{
    model::{ids::Token, message::Task, time::Mono},
    protocol::{
        task_queue::{Entry, Origin, Slot, TaskId},
        tries::{Assignee, FailedTries, Next, RetryPolicy},
    },
};

/// Number of an attempt, unique in one life of one master.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub u64);

/// Parts of a queued task that are its own while a batch holds the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskHead {
    /// Task's number.
    pub id: TaskId,
    /// Node that the task came from.
    pub origin: Origin,
    /// Whether the task was sent to another node before this batch.
    pub sent: bool,
    /// Whether the task must go in a batch of its own.
    pub alone: bool,
}

/// Tasks of one slot that are written together.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Heads of `tasks`, in the same order.
    pub heads: Vec<TaskHead>,
    /// Tasks to write; shared with the message that carries them.
    pub tasks: Arc<Vec<Task>>,
    /// Fencing token of the permission.
    pub token: Token,
    /// Worker that has the batch.
    pub assignee: Assignee,
    /// Attempt in flight, if there is one.
    pub attempt: Option<AttemptId>,
    /// Time of the next attempt while the batch waits for its backoff.
    pub retry_at: Option<Mono>,
    /// Whether an attempt may have been carried out.
    sent: bool,
    /// Tries that failed, the same for each task.
    failed: FailedTries,
}

impl Batch {
    /// Creates a batch for its first worker and empties `from` into it.
    #[must_use]
    pub fn new(from: &mut Vec<Entry>, token: Token, assignee: Assignee) -> Self {
        let failed = from.first().map(|entry| entry.failed.clone()).unwrap_or_default();
        let heads = from
            .iter()
            .map(|Entry { id, origin, sent, alone, .. }| TaskHead {
                id: *id,
                origin: *origin,
                sent: *sent,
                alone: *alone,
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
            sent: false,
            failed,
        }
    }

    /// Begins a try with the current worker. Returns how many tries there were that count, this
    /// one included.
    pub fn begin(&mut self, attempt: AttemptId) -> u32 {
        self.attempt = Some(attempt);
        self.retry_at = None;
        self.failed.total() + 1
    }

    /// Moves the batch to another worker, under a higher token.
    pub const fn reassign(&mut self, token: Token, assignee: Assignee) {
        self.token = token;
        self.assignee = assignee;
    }

    /// Turns the batch back into queue entries. With `alone`, each must go in a batch of its own,
    /// and has all its tries before it.
    pub fn into_entries(self, alone: bool) -> impl DoubleEndedIterator<Item = Entry> {
        let tasks = Arc::unwrap_or_clone(self.tasks);
        let failed = if alone { FailedTries::default() } else { self.failed };
        self.heads.into_iter().zip(tasks).map(move |(head, task)| Entry {
            id: head.id,
            origin: head.origin,
            sent: head.sent || self.sent,
            alone: alone || head.alone,
            failed: failed.clone(),
            task,
        })
    }
}

/// Batches of one master, by slot.
#[derive(Debug)]
pub struct Assignments {
    policy: RetryPolicy,
    lanes: Vec<Lane>,
    next: u64,
}

#[derive(Debug, Default)]
struct Lane {
    batch: Option<Batch>,
    /// Number of consecutive batches that were not taken.
    turned_back: u32,
    /// Earliest time of a new batch.
    not_before: Mono,
}

impl Assignments {
    /// Creates a table without batches.
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

    /// Returns the batch of a slot.
    #[must_use]
    pub fn batch(&self, slot: Slot) -> Option<&Batch> {
        self.lanes.get(slot.index())?.batch.as_ref()
    }

    /// Returns the batch of a slot for changing it.
    pub fn batch_mut(&mut self, slot: Slot) -> Option<&mut Batch> {
        self.lanes.get_mut(slot.index())?.batch.as_mut()
    }

    /// Returns the earliest time at which a slot takes a new batch; in the past when it may now.
    #[must_use]
    pub fn not_before(&self, slot: Slot) -> Mono {
        self.lanes.get(slot.index()).map_or(Mono::ZERO, |lane| lane.not_before)
    }

    /// Stores a batch in a slot that has none.
    pub fn put(&mut self, slot: Slot, batch: Batch) {
        let lane = self.lane_mut(slot);
        debug_assert!(lane.batch.is_none(), "invariant 1: one batch of a slot is in flight");
        lane.batch = Some(batch);
    }

    /// Removes and returns the batch of a slot.
    pub fn take(&mut self, slot: Slot) -> Option<Batch> {
        self.lanes.get_mut(slot.index())?.batch.take()
    }

    /// Returns a new attempt's number.
    pub const fn number(&mut self) -> AttemptId {
        self.next += 1;
        AttemptId(self.next)
    }

    /// Ends an attempt, of which `nothing_was_done` or which may have been carried out. Returns
    /// `false` for a late answer: the attempt is not the one in flight.
    pub fn on_ended(&mut self, slot: Slot, attempt: AttemptId, nothing_was_done: bool) -> bool {
        let Some(batch) = self.batch_mut(slot) else { return false };
        if batch.attempt != Some(attempt) {
            return false;
        }
        batch.attempt = None;
        batch.sent |= !nothing_was_done;
        true
    }

    /// Counts a failed try: the worker did not answer, or is gone (`lost`). Returns the next step;
    /// the batch stays in its slot.
    pub fn on_failed(&mut self, now: Mono, slot: Slot, lost: bool) -> Option<Next> {
        let policy = self.policy;
        let batch = self.batch_mut(slot)?;
        let next = batch.failed.add(policy, batch.assignee, lost, batch.tasks.len());
        if next == Next::Retry {
            batch.retry_at = Some(now + policy.backoff);
        }
        Some(next)
    }

    /// Notes that a batch was not taken: the store could not be reached, or its worker or the link
    /// has no room. The slot takes no new batch until the time returned.
    pub fn on_turned_back(&mut self, now: Mono, slot: Slot) -> Mono {
        let lane = self.lane_mut(slot);
        let wait =
            Duration::from_millis(100 << lane.turned_back.min(4)).min(Duration::from_secs(1));
        lane.turned_back = lane.turned_back.saturating_add(1);
        lane.not_before = now + wait;
        lane.not_before
    }

    /// Notes that a batch was written: the slot takes new batches at once.
    pub fn on_written(&mut self, slot: Slot) {
        let lane = self.lane_mut(slot);
        lane.turned_back = 0;
        lane.not_before = Mono::ZERO;
    }

    /// Clears a retired slot.
    pub fn forget(&mut self, slot: Slot) {
        *self.lane_mut(slot) = Lane::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::{BoardName, NodeId, Registration, StoreEpoch};

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
                failed: FailedTries::default(),
                task: Task::CreateBoard { board: BoardName::lobby() },
            })
            .collect();
        let mut table = table();
        table.put(SLOT, Batch::new(&mut from, token(1), assignee(1)));
        table
    }

    /// Fails one try of the batch.
    fn fail(table: &mut Assignments) -> Option<Next> {
        let number = table.number();
        table.batch_mut(SLOT).expect("it stays").begin(number);
        assert!(table.on_ended(SLOT, number, false));
        table.on_failed(Mono::ZERO, SLOT, false)
    }

    #[test]
    fn tries_stay_with_a_batch_that_goes_to_another_worker_or_back_to_the_queue() {
        let mut table = with_tasks(1);
        assert_eq!([fail(&mut table), fail(&mut table)], [Some(Next::Retry), Some(Next::Reassign)]);
        table.batch_mut(SLOT).expect("it stays").reassign(token(2), assignee(2));
        assert_eq!(fail(&mut table), Some(Next::Retry));
        let mut back = table.take(SLOT).expect("it stays").into_entries(false).collect();
        table.put(SLOT, Batch::new(&mut back, token(3), assignee(2)));
        assert_eq!(fail(&mut table), Some(Next::GiveUp));
    }

    #[test]
    fn tasks_of_a_split_batch_go_alone_with_all_their_tries() {
        let mut table = with_tasks(3);
        assert_eq!(fail(&mut table), Some(Next::Retry));
        let entries: Vec<_> = table.take(SLOT).expect("it stays").into_entries(true).collect();
        assert!(entries.iter().all(|entry| entry.alone && entry.sent && entry.failed.total() == 0));
        assert_eq!(entries.iter().map(|entry| entry.id.0).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn task_counts_as_sent_unless_nothing_was_done() {
        for (nothing_was_done, sent) in [(true, false), (false, true)] {
            let mut table = with_tasks(1);
            let number = table.number();
            table.batch_mut(SLOT).expect("it stays").begin(number);
            assert!(table.on_ended(SLOT, number, nothing_was_done));
            let mut entries = table.take(SLOT).expect("it stays").into_entries(false);
            assert_eq!(entries.next().map(|entry| entry.sent), Some(sent));
        }
    }

    #[test]
    fn answer_to_an_earlier_attempt_is_recognised_as_late() {
        let mut table = with_tasks(1);
        let (first, second) = (table.number(), table.number());
        table.batch_mut(SLOT).expect("it stays").begin(first);
        assert!(table.on_ended(SLOT, first, false));
        table.batch_mut(SLOT).expect("it stays").begin(second);
        assert!(!table.on_ended(SLOT, first, false));
        assert!(table.on_ended(SLOT, second, false));
    }

    #[test]
    fn wait_after_a_batch_was_not_taken_doubles_up_to_a_second() {
        let mut table = table();
        let waits: Vec<_> = (0..6)
            .map(|_| table.on_turned_back(Mono::ZERO, SLOT).since(Mono::ZERO).as_millis())
            .collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        table.on_written(SLOT);
        assert_eq!(table.not_before(SLOT), Mono::ZERO);
    }
}
