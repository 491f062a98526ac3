//! Queues of the tasks that are not written yet: one per resource, in the order of arrival.
//!
//! Each resource that a master has work for owns a [`Slot`], a small number by which the other
//! tables are indexed. A task is *waiting* in its slot or *taken* (in a batch, or forwarded).
//! Both count against the bounds, so a batch that comes back always fits.
//!
//! 1. `0 <= taken`, and waiting plus taken never exceeds the bounds.
//! 2. Tasks of a slot leave in the order they came; a returned batch goes before all others.
//! 3. A batch of a board is posts only, or one creation; one of sessions has few tasks. A task marked
//!    *alone* shares no batch, and tasks share one only with the same failed tries behind them.

use std::collections::{BTreeMap, VecDeque};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::{
    model::{
        ids::{BoardName, NodeId, Resource},
        message::Task,
    },
    protocol::tries::FailedTries,
};

/// Maximum number of tasks in a batch of sessions. A server carries out ten statements for some of them,
/// and more where a session ends for another: one after the other, within the store's time-out.
const SESSION_TASKS_MAX: usize = 16;

/// Index of a resource in a master's tables. Small, dense, reused after [`TaskQueue::retire`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

impl Slot {
    /// Returns the slot as an index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Number of a task, unique in one life of one master.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u64);

/// Node that a task came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This master: a client sent it here.
    Local,
    /// A worker of this master that held the post while the store was away.
    Holder,
    /// Another master; the task is never forwarded again.
    Forwarded(NodeId),
}

/// Task in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Task's number.
    pub id: TaskId,
    /// Node that the task came from.
    pub origin: Origin,
    /// Whether the task was ever sent to another node. From then on it may have been written.
    pub sent: bool,
    /// Whether the task must go in a batch of its own.
    pub alone: bool,
    /// Tries that failed.
    pub failed: FailedTries,
    /// Write to carry out.
    pub task: Task,
}

impl Entry {
    /// Returns whether another master sent the task here.
    #[must_use]
    pub const fn is_foreign(&self) -> bool {
        matches!(self.origin, Origin::Forwarded(_))
    }
}

/// Refusal of a task because a bound is reached. The task was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueFull {
    /// The resource has `queue_tasks_max` tasks.
    #[error("the queue of this resource is full")]
    Resource,
    /// All resources together have `queue_total_max` tasks.
    #[error("the master's queues are full")]
    Total,
    /// `resources_max` resources have work.
    #[error("too many resources have work")]
    Resources,
}

/// Bounds of a [`TaskQueue`].
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most tasks of one resource.
    pub tasks_max: usize,
    /// Most tasks of all resources together.
    pub total_max: usize,
    /// Most resources with a slot.
    pub resources_max: usize,
}

#[derive(Debug)]
struct Lane {
    resource: Option<Resource>,
    waiting: VecDeque<Entry>,
    taken: usize,
}

/// Task queues of one master.
///
/// The hash map of boards is only looked up, never iterated, so its order decides nothing.
#[derive(Debug)]
pub struct TaskQueue {
    bounds: Bounds,
    boards: HashMap<BoardName, Slot, FixedState>,
    sessions: BTreeMap<NodeId, Slot>,
    lanes: Vec<Lane>,
    free: Vec<Slot>,
    total: usize,
}

impl TaskQueue {
    /// Creates queues without tasks.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            boards: HashMap::default(),
            sessions: BTreeMap::new(),
            lanes: Vec::new(),
            free: Vec::new(),
            total: 0,
        }
    }

    /// Returns the slot of a resource, and gives it one if it has none.
    ///
    /// # Errors
    /// [`QueueFull::Resources`]; nothing changed.
    pub fn slot(&mut self, resource: &Resource) -> Result<Slot, QueueFull> {
        if let Some(slot) = self.find(resource) {
            return Ok(slot);
        }
        if self.boards.len() + self.sessions.len() >= self.bounds.resources_max {
            return Err(QueueFull::Resources);
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.lanes.push(Lane { resource: None, waiting: VecDeque::new(), taken: 0 });
            Slot(u32::try_from(self.lanes.len() - 1).expect("resources_max is far below 2^32"))
        });
        self.lanes[slot.index()].resource = Some(resource.clone());
        match resource {
            Resource::Board(board) => drop(self.boards.insert(board.clone(), slot)),
            Resource::Sessions(master) => drop(self.sessions.insert(*master, slot)),
        }
        Ok(slot)
    }

    /// Returns the slot of a resource, if it has one.
    #[must_use]
    pub fn find(&self, resource: &Resource) -> Option<Slot> {
        match resource {
            Resource::Board(board) => self.boards.get(board).copied(),
            Resource::Sessions(master) => self.sessions.get(master).copied(),
        }
    }

    /// Returns the slot of a task that `master` coordinates, and gives its resource one if it has
    /// none.
    ///
    /// # Errors
    /// [`QueueFull::Resources`]; nothing changed.
    pub fn slot_of(&mut self, task: &Task, master: NodeId) -> Result<Slot, QueueFull> {
        let known = match task {
            // Without a copy of the board's name: this runs once per task.
            Task::Post { board, .. } | Task::CreateBoard { board } => self.boards.get(board),
            _ => self.sessions.get(&master),
        };
        known.copied().map_or_else(|| self.slot(&task.resource(master)), Ok)
    }

    /// Returns the resource of a slot; `None` when the slot was retired.
    #[must_use]
    pub fn resource(&self, slot: Slot) -> Option<&Resource> {
        self.lanes.get(slot.index())?.resource.as_ref()
    }

    /// Iterates over all slots in use, ascending.
    pub fn slots(&self) -> impl Iterator<Item = (Slot, &Resource)> {
        self.lanes.iter().zip(0..).filter_map(|(lane, n)| Some((Slot(n), lane.resource.as_ref()?)))
    }

    /// Appends a task to its queue.
    ///
    /// # Errors
    /// [`QueueFull`] with the task, which was not queued.
    #[expect(clippy::result_large_err, reason = "a refused task goes back whole to who sent it")]
    pub fn push(&mut self, slot: Slot, entry: Entry) -> Result<(), (QueueFull, Entry)> {
        let lane = &mut self.lanes[slot.index()];
        if lane.waiting.len() + lane.taken >= self.bounds.tasks_max {
            return Err((QueueFull::Resource, entry));
        }
        if self.total >= self.bounds.total_max {
            return Err((QueueFull::Total, entry));
        }
        lane.waiting.push_back(entry);
        self.total += 1;
        Ok(())
    }

    /// Moves the next batch into `batch`, which is cleared first: at most this many tasks, of sessions
    /// no more than 16, and at most this many bytes, but at least one task if any waits.
    pub fn take_batch(
        &mut self,
        slot: Slot,
        tasks_max: usize,
        bytes_max: usize,
        batch: &mut Vec<Entry>,
    ) {
        batch.clear();
        let lane = &mut self.lanes[slot.index()];
        let is_board = matches!(lane.resource, Some(Resource::Board(_)));
        let tasks_max = if is_board { tasks_max } else { tasks_max.min(SESSION_TASKS_MAX) };
        let mut bytes = 0;
        while let Some(next) = lane.waiting.front() {
            let single = next.alone || (is_board && !matches!(next.task, Task::Post { .. }));
            bytes += next.task.weight();
            let is_full = batch.len() >= tasks_max || bytes > bytes_max;
            if batch.first().is_some_and(|first| single || is_full || first.failed != next.failed) {
                break;
            }
            batch.extend(lane.waiting.pop_front());
            if single {
                break;
            }
        }
        lane.taken += batch.len();
    }

    /// Takes the first waiting task that `wanted` accepts, to forward or to refuse it.
    pub fn take_where(
        &mut self,
        slot: Slot,
        mut wanted: impl FnMut(&Entry) -> bool,
    ) -> Option<Entry> {
        let lane = &mut self.lanes[slot.index()];
        let at = lane.waiting.iter().position(&mut wanted)?;
        let entry = lane.waiting.remove(at)?;
        lane.taken += 1;
        Some(entry)
    }

    /// Returns whether any waiting task is accepted by `wanted`.
    #[must_use]
    pub fn has_waiting(&self, slot: Slot, wanted: impl FnMut(&Entry) -> bool) -> bool {
        self.lanes[slot.index()].waiting.iter().any(wanted)
    }

    /// Puts taken tasks back before all others, in the same order.
    pub fn put_back(&mut self, slot: Slot, entries: impl DoubleEndedIterator<Item = Entry>) {
        let lane = &mut self.lanes[slot.index()];
        for entry in entries.rev() {
            lane.taken -= 1;
            lane.waiting.push_front(entry);
        }
    }

    /// Ends this many taken tasks.
    pub fn end(&mut self, slot: Slot, tasks: usize) {
        let lane = &mut self.lanes[slot.index()];
        debug_assert!(lane.taken >= tasks, "invariant 1: more tasks end than were taken");
        lane.taken -= tasks;
        self.total -= tasks;
    }

    /// Frees a slot for reuse. Returns `false`, and changes nothing, while the slot has tasks.
    pub fn retire(&mut self, slot: Slot) -> bool {
        let lane = &mut self.lanes[slot.index()];
        if !lane.waiting.is_empty() || lane.taken > 0 {
            return false;
        }
        let Some(resource) = lane.resource.take() else { return false };
        match &resource {
            Resource::Board(board) => self.boards.remove(board),
            Resource::Sessions(master) => self.sessions.remove(master),
        };
        self.free.push(slot);
        true
    }

    /// Returns the number of tasks waiting in a slot.
    #[must_use]
    pub fn waiting(&self, slot: Slot) -> usize {
        self.lanes[slot.index()].waiting.len()
    }

    /// Returns the first waiting task of a slot.
    #[must_use]
    pub fn front(&self, slot: Slot) -> Option<&Entry> {
        self.lanes[slot.index()].waiting.front()
    }

    /// Returns the number of tasks taken from a slot and not ended.
    #[must_use]
    pub fn taken(&self, slot: Slot) -> usize {
        self.lanes[slot.index()].taken
    }

    /// Returns the number of waiting and taken tasks of all slots.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{
        ids::{Author, PostId, SessionKey, UserId},
        rows::NewPost,
    };

    fn queue(tasks_max: usize, total_max: usize) -> TaskQueue {
        TaskQueue::new(Bounds { tasks_max, total_max, resources_max: 2 })
    }

    fn board(name: &str) -> Resource {
        Resource::Board(name.parse().expect("a board's name"))
    }

    fn entry(id: u64, task: Task) -> Entry {
        let (origin, failed) = (Origin::Local, FailedTries::default());
        Entry { id: TaskId(id), origin, sent: false, alone: false, failed, task }
    }

    fn post(id: u64) -> Entry {
        let author = Author { id: UserId([1; 16]), name: "Ada".parse().expect("a person's name") };
        let post =
            NewPost { id: PostId([2; 16]), author, text: "hello".parse().expect("a post's text") };
        entry(id, Task::Post { board: BoardName::lobby(), post })
    }

    fn take(queue: &mut TaskQueue, slot: Slot, tasks_max: usize) -> Vec<u64> {
        let mut batch = Vec::new();
        queue.take_batch(slot, tasks_max, usize::MAX, &mut batch);
        batch.iter().map(|entry| entry.id.0).collect()
    }

    #[test]
    fn creation_of_a_board_shares_no_batch() {
        let mut queue = queue(10, 10);
        let slot = queue.slot(&board("lobby")).expect("room");
        for id in [1, 2, 4] {
            let _ = queue.push(slot, post(id));
            if id == 2 {
                let create = Task::CreateBoard { board: BoardName::lobby() };
                let _ = queue.push(slot, entry(3, create));
            }
        }
        let batches: Vec<_> = (0..4).map(|_| take(&mut queue, slot, 10)).collect();
        assert_eq!(batches, [vec![1, 2], vec![3], vec![4], vec![]]);
    }

    #[test]
    fn batch_of_sessions_has_few_tasks() {
        let mut queue = queue(40, 40);
        let slot = queue.slot(&Resource::Sessions(NodeId([1; 16]))).expect("room");
        for id in 1..=30 {
            let close = Task::CloseSession { key: SessionKey([1; 32]) };
            let _ = queue.push(slot, entry(id, close));
        }
        let sizes = [8, 64, 64].map(|tasks_max| take(&mut queue, slot, tasks_max).len());
        assert_eq!(sizes, [8, 16, 6]);
    }

    #[test]
    fn task_marked_alone_shares_no_batch() {
        let mut queue = queue(10, 10);
        let slot = queue.slot(&board("lobby")).expect("room");
        for id in 1..=3 {
            let _ = queue.push(slot, Entry { alone: id == 2, ..post(id) });
        }
        let batches: Vec<_> = (0..3).map(|_| take(&mut queue, slot, 10)).collect();
        assert_eq!(batches, [[1], [2], [3]]);
    }

    #[test]
    fn batch_is_bounded_by_bytes_but_not_empty() {
        let mut queue = queue(10, 10);
        let slot = queue.slot(&board("lobby")).expect("room");
        let weight = post(1).task.weight();
        for id in 1..=3 {
            let _ = queue.push(slot, post(id));
        }
        let mut batch = Vec::new();
        queue.take_batch(slot, 10, 1, &mut batch);
        assert_eq!(batch.len(), 1);
        queue.take_batch(slot, 10, 2 * weight, &mut batch);
        assert_eq!(batch.len(), 2);
    }

    #[test]
    fn slot_is_reused_only_after_its_tasks_ended() {
        let mut queue = queue(10, 10);
        let lobby = queue.slot(&board("lobby")).expect("room");
        let dev = queue.slot(&board("dev")).expect("room");
        assert_eq!(queue.slot(&board("ops")), Err(QueueFull::Resources));
        let _ = queue.push(lobby, post(1));
        assert!(!queue.retire(lobby));
        assert_eq!(take(&mut queue, lobby, 1), [1]);
        assert!(!queue.retire(lobby), "its task has not ended");
        queue.end(lobby, 1);
        assert!(queue.retire(lobby));
        assert_eq!(queue.find(&board("lobby")), None);
        assert_eq!(queue.slot(&board("ops")), Ok(lobby));
        assert_eq!(queue.find(&board("dev")), Some(dev));
    }

    proptest! {
        /// Compares order, bounds and counts with a plain list of ids.
        #[test]
        fn queue_behaves_like_a_list(moves in prop::collection::vec((0..4u8, 1..5usize), 1..200)) {
            let mut queue = queue(8, 8);
            let slot = queue.slot(&board("lobby")).expect("room");
            let mut waiting = VecDeque::new();
            let mut taken: Vec<Vec<Entry>> = Vec::new();
            let mut next = 0;
            for (kind, n) in moves {
                match kind {
                    0 => {
                        next += 1;
                        let full = waiting.len() + taken.iter().map(Vec::len).sum::<usize>() >= 8;
                        let pushed = queue.push(slot, post(next));
                        prop_assert_eq!(pushed.is_err(), full);
                        if !full {
                            waiting.push_back(next);
                        }
                    }
                    1 => {
                        let mut batch = Vec::new();
                        queue.take_batch(slot, n, usize::MAX, &mut batch);
                        let ids: Vec<_> = batch.iter().map(|entry| entry.id.0).collect();
                        let model: Vec<_> = waiting.drain(..n.min(waiting.len())).collect();
                        prop_assert_eq!(ids, model);
                        taken.push(batch);
                    }
                    2 => if let Some(batch) = taken.pop() {
                        for entry in batch.iter().rev() {
                            waiting.push_front(entry.id.0);
                        }
                        queue.put_back(slot, batch.into_iter());
                    }
                    _ => if let Some(batch) = taken.pop() {
                        queue.end(slot, batch.len());
                    }
                }
                prop_assert_eq!(queue.waiting(slot), waiting.len());
                prop_assert_eq!(queue.taken(slot), taken.iter().map(Vec::len).sum::<usize>());
                prop_assert_eq!(queue.total(), queue.waiting(slot) + queue.taken(slot));
            }
        }
    }
}
