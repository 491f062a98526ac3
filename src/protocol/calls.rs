//! Calls to workers: which batches leave together, and how many calls each worker has.
//!
//! ```text
//!   batches of several resources ──► open call of a worker ──close──► call in flight ──► end
//! ```
//!
//! 1. What a worker is given in one go leaves in one call, so that it costs one message, one wake
//!    and one transaction of the store each way.
//! 2. A worker has room while it has fewer calls than the maximum, the open one included, or its open
//!    call has room. What comes meanwhile waits, and so leaves together.
//! 3. A batch that is tried again leaves in a call of its own, and needs no room: what holds it up is
//!    not to hold up others again.
//! 4. A call has at most [`WORKER_BATCHES_MAX`] batches and [`BATCH_TASKS_MAX`] tasks, and fits into
//!    a frame with its answer.

use std::collections::BTreeMap;

use crate::{
    model::{
        bounds::{
            ASSIGN_HEAD_MAX, BATCH_BYTES_MAX, BATCH_TASKS_MAX, TASK_LEN_MAX, WORKER_BATCHES_MAX,
        },
        ids::{NodeId, Registration},
        message::{Assign, Task},
    },
    protocol::{assignment::AttemptId, task_queue::Slot, tries::Assignee},
};

/// Attempt to have a batch written, on its way in a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Slot of the batch.
    pub slot: Slot,
    /// Number of the attempt.
    pub number: AttemptId,
    /// Whether the batch failed before.
    pub again: bool,
    /// The batch.
    pub assign: Assign,
}

/// Call to a worker: one or more attempts, each for a batch of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Worker that is called.
    pub worker: Assignee,
    /// Attempts, in the order in which they were made.
    pub attempts: Vec<Attempt>,
}

/// Tasks and bytes that the next batch of a call may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Number of batches.
    batches: usize,
    /// Number of tasks.
    pub tasks: usize,
    /// Bytes, by their greatest encoded lengths.
    pub bytes: usize,
}

impl Room {
    const WHOLE: Self =
        Self { batches: WORKER_BATCHES_MAX, tasks: BATCH_TASKS_MAX, bytes: BATCH_BYTES_MAX };

    /// Returns what is left after a batch; `None` if it does not fit.
    fn less(self, tasks: &[Task]) -> Option<Self> {
        let bytes: usize = tasks.iter().map(Task::weight).sum();
        Some(Self {
            batches: self.batches.checked_sub(1)?,
            tasks: self.tasks.checked_sub(tasks.len())?,
            bytes: self.bytes.checked_sub(bytes)?,
        })
    }

    /// Returns what is left for one batch more; `None` if not even one task surely fits.
    fn for_another(self) -> Option<Self> {
        let bytes = self.bytes.checked_sub(ASSIGN_HEAD_MAX)?;
        let is_left = self.batches > 0 && self.tasks > 0 && bytes >= TASK_LEN_MAX;
        is_left.then_some(Self { bytes, ..self })
    }
}

/// Calls of one worker that are in flight.
#[derive(Debug)]
struct Lane {
    registration: Registration,
    in_flight: usize,
}

/// Calls of one master to its workers.
#[derive(Debug)]
pub struct Calls {
    max: usize,
    lanes: BTreeMap<NodeId, Lane>,
    /// Calls that are being filled, each with the room that is left.
    open: BTreeMap<NodeId, (Room, Call)>,
    /// Calls that were full before all of it was given out, and those of batches that failed before.
    full: Vec<Call>,
}

impl Calls {
    /// Creates a table in which a worker has at most `max` calls.
    #[must_use]
    pub const fn new(max: usize) -> Self {
        Self { max, lanes: BTreeMap::new(), open: BTreeMap::new(), full: Vec::new() }
    }

    /// Returns what the next batch for a worker may have; `None` while it has no room.
    #[must_use]
    pub fn room(&self, worker: Assignee) -> Option<Room> {
        let lane = self.lanes.get(&worker.node);
        let Some(lane) = lane.filter(|lane| lane.registration == worker.registration) else {
            return Some(Room::WHOLE);
        };
        let open = self.open.get(&worker.node);
        let more = lane.in_flight + usize::from(open.is_some()) < self.max;
        open.and_then(|(room, _)| room.for_another()).or_else(|| more.then_some(Room::WHOLE))
    }

    /// Adds an attempt to the worker's open call, or opens one.
    pub fn add(&mut self, worker: Assignee, attempt: Attempt) {
        let Assignee { node, registration } = worker;
        let fresh = || Lane { registration, in_flight: 0 };
        let lane = self.lanes.entry(node).or_insert_with(fresh);
        if lane.registration != registration {
            *lane = fresh();
            self.open.remove(&node);
        }
        if attempt.again {
            self.full.push(Call { worker, attempts: vec![attempt] });
            lane.in_flight += 1;
            return;
        }
        if let Some((room, call)) = self.open.get_mut(&node) {
            let left = room.for_another().and_then(|room| room.less(&attempt.assign.tasks));
            if let Some(left) = left {
                *room = left;
                call.attempts.push(attempt);
                return;
            }
        }
        let none = Room { batches: 0, tasks: 0, bytes: 0 };
        let room = Room::WHOLE.less(&attempt.assign.tasks).unwrap_or(none);
        let call = Call { worker, attempts: vec![attempt] };
        if let Some((_, full)) = self.open.insert(node, (room, call)) {
            self.full.push(full);
            lane.in_flight += 1;
        }
    }

    /// Closes all open calls, and returns the calls that are to be made now.
    pub fn close(&mut self) -> impl Iterator<Item = Call> + use<> {
        let open = std::mem::take(&mut self.open);
        for node in open.keys() {
            if let Some(lane) = self.lanes.get_mut(node) {
                lane.in_flight += 1;
            }
        }
        let full = std::mem::take(&mut self.full);
        full.into_iter().chain(open.into_values().map(|(_, call)| call))
    }

    /// Takes note that a call ended, however it ended. Ignores one of another registration.
    pub fn on_ended(&mut self, worker: Assignee) {
        if let Some(lane) = self.lanes.get_mut(&worker.node)
            && lane.registration == worker.registration
        {
            lane.in_flight = lane.in_flight.saturating_sub(1);
        }
    }

    /// Forgets a worker that is gone or listed.
    pub fn forget(&mut self, node: &NodeId) {
        self.lanes.remove(node);
        self.open.remove(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        bounds::POST_HEAD_MAX,
        ids::{Author, BoardName, PostId, PostText, Resource, Token, UserId},
        rows::{NewPost, Permission},
    };

    fn worker(n: u8, registration: u64) -> Assignee {
        Assignee { node: NodeId([n; 16]), registration: Registration(registration) }
    }

    fn attempt(n: u64, tasks: usize, text: usize) -> Attempt {
        let author = Author { id: UserId([1; 16]), name: "Ada".parse().expect("a name") };
        let text = "x".repeat(text).parse().expect("a text");
        let post = NewPost { id: PostId([1; 16]), author, text };
        let task = Task::Post { board: BoardName::lobby(), post };
        let permission = Permission {
            resource: Resource::Board(BoardName::lobby()),
            token: Token::default(),
            after: None,
            worker: NodeId([1; 16]),
        };
        let registration = Registration(1);
        let assign = Assign { registration, permission, tasks: vec![task; tasks].into() };
        Attempt { slot: Slot(0), number: AttemptId(n), again: false, assign }
    }

    fn closed(calls: &mut Calls) -> Vec<(u8, Vec<u64>)> {
        let numbers = |call: Call| call.attempts.iter().map(|one| one.number.0).collect();
        calls.close().map(|call| (call.worker.node.0[0], numbers(call))).collect()
    }

    #[test]
    fn batches_of_one_go_leave_together_and_what_comes_while_all_calls_are_out_waits() {
        let mut calls = Calls::new(2);
        let (one, two) = (worker(1, 1), worker(2, 1));
        for (to, n) in [(two, 1), (one, 2), (two, 3)] {
            assert!(calls.room(to).is_some());
            calls.add(to, attempt(n, 1, 5));
        }
        assert_eq!(closed(&mut calls), [(1, vec![2]), (2, vec![1, 3])]);
        assert_eq!(closed(&mut calls), []);
        calls.add(two, attempt(4, 1, 5));
        assert!(calls.room(two).is_some(), "its second call is open");
        assert_eq!(closed(&mut calls), [(2, vec![4])]);
        assert_eq!(calls.room(two), None);
        calls.on_ended(worker(2, 9));
        assert_eq!(calls.room(two), None, "that was another registration's");
        calls.on_ended(two);
        assert!(calls.room(two).is_some());
    }

    #[test]
    fn batch_that_is_tried_again_leaves_alone_although_all_calls_are_out() {
        let mut calls = Calls::new(1);
        calls.add(worker(1, 1), attempt(1, 1, 5));
        calls.add(worker(1, 1), Attempt { again: true, ..attempt(2, 1, 5) });
        assert_eq!(closed(&mut calls), [(1, vec![2]), (1, vec![1])]);
        calls.on_ended(worker(1, 1));
        assert_eq!(calls.room(worker(1, 1)), None, "one is still out");
    }

    #[test]
    fn worker_with_a_full_open_call_has_the_room_of_its_second() {
        let mut calls = Calls::new(2);
        for n in 0..u64::try_from(WORKER_BATCHES_MAX).expect("small") {
            calls.add(worker(1, 1), attempt(n, 1, 5));
        }
        assert_eq!(calls.room(worker(1, 1)), Some(Room::WHOLE));
        calls.add(worker(1, 1), attempt(99, 1, 5));
        let sizes: Vec<_> = closed(&mut calls).into_iter().map(|(_, of)| of.len()).collect();
        assert_eq!(sizes, [WORKER_BATCHES_MAX, 1]);
        assert_eq!(calls.room(worker(1, 1)), None);
    }

    #[test]
    fn new_registration_begins_without_calls() {
        let mut calls = Calls::new(1);
        calls.add(worker(1, 1), attempt(1, 1, 5));
        assert_eq!(calls.close().count(), 1);
        assert_eq!((calls.room(worker(1, 1)), calls.room(worker(1, 2))), (None, Some(Room::WHOLE)));
        calls.add(worker(1, 2), attempt(2, 1, 5));
        assert_eq!(closed(&mut calls), [(1, vec![2])]);
        calls.forget(&worker(1, 2).node);
        assert_eq!(calls.room(worker(1, 2)), Some(Room::WHOLE));
    }

    #[test]
    fn call_is_full_at_its_tasks_and_at_its_bytes() {
        for (tasks, text) in [(1000, 5), (10, PostText::LEN_MAX)] {
            let mut calls = Calls::new(2);
            for n in 0..20 {
                calls.add(worker(1, 1), attempt(n, tasks, text));
            }
            let all: Vec<_> = calls.close().collect();
            assert!(all.len() > 1, "they do not fit into one call");
            for call in &all {
                let of = || call.attempts.iter().map(|one| &one.assign.tasks);
                let bytes: usize = of().flat_map(|tasks| tasks.iter().map(Task::weight)).sum();
                assert!(of().map(|tasks| tasks.len()).sum::<usize>() <= BATCH_TASKS_MAX);
                assert!(bytes + (call.attempts.len() - 1) * ASSIGN_HEAD_MAX <= BATCH_BYTES_MAX);
            }
            let order = all.iter().flat_map(|call| call.attempts.iter().map(|one| one.number.0));
            assert!(order.eq(0..20), "in the order in which they were made");
        }
    }

    #[test]
    fn next_batch_of_an_open_call_has_the_room_that_is_left() {
        let mut calls = Calls::new(1);
        calls.add(worker(1, 1), attempt(1, 100, 5));
        let room = calls.room(worker(1, 1)).expect("there is some");
        assert_eq!(room.tasks, BATCH_TASKS_MAX - 100);
        calls.add(worker(1, 1), attempt(2, room.bytes / (POST_HEAD_MAX + 5), 5));
        assert_eq!(calls.room(worker(1, 1)), None);
        assert_eq!(closed(&mut calls), [(1, vec![1, 2])]);
    }
}
