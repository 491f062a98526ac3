//! Batches in flight: attempts, and the waits between them.
//!
//! ```text
//!   first ◄── after ── second ◄── after ── third     all at one registration of a worker
//! ```
//!
//! 1. A few batches of a slot are in flight at a time, under rising tokens, at one registration of a
//!    worker; each but the first names the one before it, and is written only right after that.
//! 2. Either all batches of a slot have an attempt in flight, or there is one batch, without.
//! 3. Each attempt has a number of its own, so a late answer is recognised.
//! 4. Tries on one registration of a worker have one token, unless a later batch was sent after the
//!    first of them; the next worker gets a higher one.
//! 5. A batch that the store, the worker or the link did not take costs no try: it goes back to the
//!    queue and waits 100 ms, doubling to 1 s.
//! 6. Waits are jittered down to their half, differently for each slot and each master, so that
//!    not all of them try again at once when an outage ends.
//! 7. A batch counts as sent, and may be written, unless nothing was done at each attempt.

use std::{collections::VecDeque, hash::BuildHasher, sync::Arc, time::Duration};

use foldhash::fast::FixedState;

use crate::{
    model::{ids::Token, message::Task, time::Mono},
    protocol::{
        jitter::jittered,
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
    /// `n` of the batch that must be written right before this one, if there is one.
    pub after: Option<u64>,
    /// Worker that has the batch.
    pub assignee: Assignee,
    /// Whether a later batch was sent after this one: its token may be too old for another try.
    pub followed: bool,
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
            after: None,
            assignee,
            followed: false,
            attempt: None,
            retry_at: None,
            sent: false,
            failed,
        }
    }

    /// Returns whether a later batch may be sent before this one is written: it has not failed.
    #[must_use]
    fn is_untried(&self) -> bool {
        self.failed.total() == 0 && self.heads.iter().all(|head| !head.alone)
    }

    /// Begins a try with the current worker. Returns how many tries there were that count, this
    /// one included.
    pub fn begin(&mut self, attempt: AttemptId) -> u32 {
        self.attempt = Some(attempt);
        self.retry_at = None;
        self.failed.total() + 1
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
    /// Number that spreads the waits of several masters.
    draw: u64,
    /// Number of waits so far.
    waits: u64,
}

#[derive(Debug, Default)]
struct Lane {
    /// Batches in the order of their tokens, without those that were written before an earlier one
    /// was answered.
    batches: VecDeque<Batch>,
    /// `n` that the next batch follows while there are others: that of the last one sent.
    last_n: Option<u64>,
    /// Number of consecutive batches that were not taken.
    turned_back: u32,
    /// Earliest time of a new batch.
    not_before: Mono,
}

impl Assignments {
    /// Creates a table without batches. `draw` is a random number for the jitter of waits.
    #[must_use]
    pub const fn new(policy: RetryPolicy, draw: u64) -> Self {
        Self { policy, lanes: Vec::new(), next: 0, draw, waits: 0 }
    }

    fn lane_mut(&mut self, slot: Slot) -> &mut Lane {
        if self.lanes.len() <= slot.index() {
            self.lanes.resize_with(slot.index() + 1, Lane::default);
        }
        &mut self.lanes[slot.index()]
    }

    /// Returns the first batch of a slot.
    #[must_use]
    pub fn first(&self, slot: Slot) -> Option<&Batch> {
        self.get(slot, 0)
    }

    /// Returns a batch of a slot by its place.
    #[must_use]
    pub fn get(&self, slot: Slot, at: usize) -> Option<&Batch> {
        self.lanes.get(slot.index())?.batches.get(at)
    }

    /// Returns the last batch of a slot for changing it: the one without an attempt, if there is one.
    pub fn last_mut(&mut self, slot: Slot) -> Option<&mut Batch> {
        self.lanes.get_mut(slot.index())?.batches.back_mut()
    }

    /// Returns the batch of a slot that has no attempt in flight.
    #[must_use]
    pub fn waiting(&self, slot: Slot) -> Option<&Batch> {
        self.first(slot).filter(|batch| batch.attempt.is_none())
    }

    /// Returns whether a batch of a slot has an attempt in flight.
    #[must_use]
    pub fn is_in_flight(&self, slot: Slot) -> bool {
        self.first(slot).is_some_and(|batch| batch.attempt.is_some())
    }

    /// Returns the number of batches of a slot.
    #[must_use]
    pub fn count(&self, slot: Slot) -> usize {
        self.lanes.get(slot.index()).map_or(0, |lane| lane.batches.len())
    }

    /// Returns the last batch of a slot if another one may be sent after it: all are in flight, and
    /// none has failed.
    #[must_use]
    pub fn to_follow(&self, slot: Slot) -> Option<&Batch> {
        let batches = &self.lanes.get(slot.index())?.batches;
        let is_well = |batch: &Batch| batch.attempt.is_some() && batch.is_untried();
        batches.back().filter(|_| batches.iter().all(is_well))
    }

    /// Returns the earliest time at which a slot takes a new batch; in the past when it may now.
    #[must_use]
    pub fn not_before(&self, slot: Slot) -> Mono {
        self.lanes.get(slot.index()).map_or(Mono::ZERO, |lane| lane.not_before)
    }

    /// Adds a batch after those of its slot, which are all in flight. Its own first attempt follows.
    pub fn put(&mut self, slot: Slot, mut batch: Batch) {
        let lane = self.lane_mut(slot);
        debug_assert!(lane.batches.iter().all(|before| before.attempt.is_some()), "invariant 2");
        if lane.batches.is_empty() {
            lane.last_n = None;
        }
        batch.after = lane.last_n.replace(batch.token.n);
        for before in &mut lane.batches {
            before.followed = true;
        }
        lane.batches.push_back(batch);
    }

    /// Gives a slot's only batch to a worker under a higher token.
    pub fn reassign(&mut self, slot: Slot, token: Token, assignee: Assignee) {
        let lane = self.lane_mut(slot);
        if let Some(batch) = lane.batches.back_mut() {
            (batch.token, batch.assignee) = (token, assignee);
            (batch.after, batch.followed) = (None, false);
            lane.last_n = Some(token.n);
        }
    }

    /// Removes and returns a batch that was written; later ones stay.
    pub fn take(&mut self, slot: Slot, at: usize) -> Option<Batch> {
        self.lanes.get_mut(slot.index())?.batches.remove(at)
    }

    /// Removes and returns the batches of a slot from this one on, in order. Attempts in flight are
    /// given up: they may be carried out, and their answers are late.
    pub fn cut(&mut self, slot: Slot, from: usize) -> Vec<Batch> {
        let Some(lane) = self.lanes.get_mut(slot.index()) else { return Vec::new() };
        let mut cut: Vec<_> = lane.batches.drain(from.min(lane.batches.len())..).collect();
        if let Some(first) = cut.first() {
            lane.last_n = first.after;
        }
        for batch in &mut cut {
            batch.sent |= batch.attempt.is_some();
        }
        cut
    }

    /// Returns a new attempt's number.
    pub const fn number(&mut self) -> AttemptId {
        self.next += 1;
        AttemptId(self.next)
    }

    /// Ends an attempt, of which `nothing_was_done` or which may have been carried out. Returns the
    /// place of its batch among those of the slot; `None` for a late answer: the attempt is not in
    /// flight.
    pub fn on_ended(
        &mut self,
        slot: Slot,
        attempt: AttemptId,
        nothing_was_done: bool,
    ) -> Option<usize> {
        let batches = &mut self.lanes.get_mut(slot.index())?.batches;
        let at = batches.iter().position(|batch| batch.attempt == Some(attempt))?;
        let batch = &mut batches[at];
        batch.attempt = None;
        batch.sent |= !nothing_was_done;
        Some(at)
    }

    /// Counts a failed try of a slot's only batch: the worker did not answer, or is gone (`lost`).
    /// Returns the next step; the batch stays in its slot.
    pub fn on_failed(&mut self, now: Mono, slot: Slot, lost: bool) -> Option<Next> {
        let policy = self.policy;
        let wait = self.jittered(slot, policy.backoff);
        let batch = self.last_mut(slot)?;
        let next = batch.failed.add(policy, batch.assignee, lost, batch.tasks.len());
        if next == Next::Retry {
            batch.retry_at = Some(now + wait);
        }
        Some(next)
    }

    /// Notes that a batch was not taken: the store could not be reached, or its worker or the link
    /// has no room. The slot takes no new batch until the time returned.
    pub fn on_turned_back(&mut self, now: Mono, slot: Slot) -> Mono {
        let turned_back = self.lane_mut(slot).turned_back;
        let whole = Duration::from_millis(100 << turned_back.min(4)).min(Duration::from_secs(1));
        let wait = self.jittered(slot, whole);
        let lane = self.lane_mut(slot);
        lane.turned_back = turned_back.saturating_add(1);
        lane.not_before = now + wait;
        lane.not_before
    }

    /// Returns a wait jittered down from `whole`, another one each time.
    fn jittered(&mut self, slot: Slot, whole: Duration) -> Duration {
        self.waits = self.waits.wrapping_add(1);
        let draw = FixedState::with_seed(self.draw).hash_one((slot.index(), self.waits));
        jittered(whole, draw)
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
        drawn(0)
    }

    fn drawn(draw: u64) -> Assignments {
        let backoff = Duration::from_millis(100);
        Assignments::new(RetryPolicy { per_worker: 2, max: 4, backoff }, draw)
    }

    fn assignee(n: u8) -> Assignee {
        Assignee { node: NodeId([n; 16]), registration: Registration(1) }
    }

    fn token(n: u64) -> Token {
        Token { epoch: StoreEpoch(1), lease: 1, n }
    }

    fn batch(tasks: usize, n: u64) -> Batch {
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
        Batch::new(&mut from, token(n), assignee(1))
    }

    fn with_tasks(tasks: usize) -> Assignments {
        let mut table = table();
        table.put(SLOT, batch(tasks, 1));
        table
    }

    /// Begins an attempt of the last batch.
    fn begin(table: &mut Assignments) -> AttemptId {
        let number = table.number();
        table.last_mut(SLOT).expect("there is one").begin(number);
        number
    }

    /// Fails one try of the only batch.
    fn fail(table: &mut Assignments) -> Option<Next> {
        let number = begin(table);
        assert_eq!(table.on_ended(SLOT, number, false), Some(0));
        table.on_failed(Mono::ZERO, SLOT, false)
    }

    fn entries(table: &mut Assignments, alone: bool) -> Vec<Entry> {
        let cut = table.cut(SLOT, 0);
        cut.into_iter().flat_map(|batch| batch.into_entries(alone)).collect()
    }

    #[test]
    fn tries_stay_with_a_batch_that_goes_to_another_worker_or_back_to_the_queue() {
        let mut table = with_tasks(1);
        assert_eq!([fail(&mut table), fail(&mut table)], [Some(Next::Retry), Some(Next::Reassign)]);
        table.reassign(SLOT, token(2), assignee(2));
        assert_eq!(fail(&mut table), Some(Next::Retry));
        let mut back = entries(&mut table, false);
        table.put(SLOT, Batch::new(&mut back, token(3), assignee(2)));
        assert_eq!(fail(&mut table), Some(Next::GiveUp));
    }

    #[test]
    fn tasks_of_a_split_batch_go_alone_with_all_their_tries() {
        let mut table = with_tasks(3);
        assert_eq!(fail(&mut table), Some(Next::Retry));
        let entries = entries(&mut table, true);
        assert!(entries.iter().all(|entry| entry.alone && entry.sent && entry.failed.total() == 0));
        assert_eq!(entries.iter().map(|entry| entry.id.0).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn task_counts_as_sent_unless_nothing_was_done() {
        for (nothing_was_done, sent) in [(true, false), (false, true)] {
            let mut table = with_tasks(1);
            let number = begin(&mut table);
            assert_eq!(table.on_ended(SLOT, number, nothing_was_done), Some(0));
            assert_eq!(entries(&mut table, false)[0].sent, sent);
        }
    }

    #[test]
    fn task_that_may_be_written_counts_as_sent_whatever_later_attempts_did() {
        let mut table = with_tasks(1);
        for nothing_was_done in [false, true] {
            let number = begin(&mut table);
            assert_eq!(table.on_ended(SLOT, number, nothing_was_done), Some(0));
        }
        assert!(entries(&mut table, false)[0].sent);
    }

    #[test]
    fn answer_to_an_earlier_attempt_is_recognised_as_late() {
        let mut table = with_tasks(1);
        let first = begin(&mut table);
        assert_eq!(table.on_ended(SLOT, first, false), Some(0));
        let second = begin(&mut table);
        assert_eq!(table.on_ended(SLOT, first, false), None);
        assert_eq!(table.on_ended(SLOT, second, false), Some(0));
    }

    #[test]
    fn each_later_batch_names_the_one_before_it_which_then_needs_a_new_token_to_be_tried_again() {
        let mut table = with_tasks(1);
        begin(&mut table);
        table.put(SLOT, batch(1, 2));
        let second = begin(&mut table);
        table.put(SLOT, batch(1, 5));
        begin(&mut table);
        assert_eq!(table.on_ended(SLOT, second, false), Some(1));
        table.take(SLOT, 1).expect("it was written");
        let cut = table.cut(SLOT, 0);
        let told: Vec<_> = cut.iter().map(|b| (b.token.n, b.after, b.followed)).collect();
        assert_eq!(told, [(1, None, true), (5, Some(2), false)]);
        assert!(cut.into_iter().flat_map(|batch| batch.into_entries(false)).all(|e| e.sent));
    }

    #[test]
    fn nothing_follows_a_batch_that_waits_or_has_failed() {
        let mut table = with_tasks(1);
        assert!(table.to_follow(SLOT).is_none(), "it has no attempt yet");
        begin(&mut table);
        assert_eq!(table.to_follow(SLOT).map(|batch| batch.token.n), Some(1));
        let mut table = with_tasks(1);
        fail(&mut table);
        begin(&mut table);
        assert!(table.to_follow(SLOT).is_none(), "it has failed");
        let mut table = with_tasks(2);
        begin(&mut table);
        let mut alone = entries(&mut table, true);
        table.put(SLOT, Batch::new(&mut alone, token(2), assignee(1)));
        begin(&mut table);
        assert!(table.to_follow(SLOT).is_none(), "its tasks go alone");
    }

    #[test]
    fn wait_after_a_batch_was_not_taken_doubles_up_to_a_second() {
        for draw in 0..50 {
            let mut table = drawn(draw);
            for (wait, whole) in turned_back(&mut table, SLOT).iter().zip([1, 2, 4, 8, 10, 10]) {
                let whole = Duration::from_millis(100 * whole);
                assert!(*wait >= whole / 2 && *wait <= whole, "{wait:?} of {whole:?}");
            }
            table.on_written(SLOT);
            assert_eq!(table.not_before(SLOT), Mono::ZERO);
        }
    }

    /// Turns batches of a slot back, one after another. Returns the waits.
    fn turned_back(table: &mut Assignments, slot: Slot) -> Vec<Duration> {
        (0..6).map(|_| table.on_turned_back(Mono::ZERO, slot).since(Mono::ZERO)).collect()
    }

    #[test]
    fn waits_differ_between_slots_and_between_masters_and_are_the_same_for_the_same_draw() {
        let waits = |draw, slot| turned_back(&mut drawn(draw), Slot(slot));
        assert_eq!(waits(1, 0), waits(1, 0));
        for (one, other) in [((1, 0), (1, 1)), ((1, 0), (2, 0)), ((1, 1), (2, 0))] {
            assert_ne!(waits(one.0, one.1), waits(other.0, other.1));
        }
        // Slots that one outage turns back together do not come again together.
        let mut table = drawn(1);
        let slots = (0..20).map(Slot);
        let again: std::collections::BTreeSet<_> =
            slots.map(|slot| table.on_turned_back(Mono::ZERO, slot)).collect();
        assert_eq!(again.len(), 20);
    }

    #[test]
    fn wait_between_two_tries_is_jittered_down_from_the_backoff() {
        let mut waits = std::collections::BTreeSet::new();
        for draw in 0..20 {
            let mut table = drawn(draw);
            table.put(SLOT, batch(1, 1));
            assert_eq!(fail(&mut table), Some(Next::Retry));
            let again_at = table.waiting(SLOT).and_then(|batch| batch.retry_at);
            let wait = again_at.expect("it waits").since(Mono::ZERO);
            assert!(wait >= Duration::from_millis(50) && wait <= Duration::from_millis(100));
            waits.insert(wait);
        }
        assert_eq!(waits.len(), 20);
    }
}
