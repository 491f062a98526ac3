//! Waiters for the outcome of a task: people's requests and other masters' calls.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tokio::sync::oneshot;

use crate::{
    comm::Responder,
    model::{
        held::HandInReply,
        ids::{Author, PostId, UserId},
        message::{ForwardReply, Response},
        outcome::Outcome,
        time::Mono,
    },
    node::{
        handle::{Reply, Written},
        parts::{Part, PartedCalls},
    },
    protocol::{read_marks::Gathered, task_queue::TaskId},
};

/// Wait that a request is asked for when nothing can be done now, in milliseconds.
pub(super) const RETRY_MS: u64 = 1000;

/// Waiter for one task's outcome, as the table keeps it.
pub(super) enum Waits {
    /// One that is answered by itself.
    One(Waiter),
    /// Another master, which forwarded the task with others.
    Peer(Part),
}

/// Waiter for one task's outcome, answered by itself.
pub(super) enum Waiter {
    /// A person who opens a session.
    Newcomer(oneshot::Sender<Outcome>),
    /// A session's request.
    Session(SessionWaiter),
    /// Requests of one session to set its read mark of a board.
    Marks(Gathered<SessionWaiter>),
    /// A worker, which hands in a post that it held.
    Holder {
        /// Author of the post.
        user: UserId,
        /// Id of the post.
        id: PostId,
        /// Call of the worker.
        reply: Responder,
    },
}

impl Waiter {
    pub(super) fn answer(self, outcome: Outcome) {
        match self {
            // A person who is gone sends the same again, or does not care.
            Self::Newcomer(reply) => drop(reply.send(outcome)),
            Self::Session(waiter) => waiter.answer(outcome),
            Self::Marks(marks) => marks.into_waiters().for_each(|one| one.answer(outcome.clone())),
            Self::Holder { reply, .. } => handed_in(
                reply,
                match outcome {
                    Outcome::Settled(_) => HandInReply::Ended,
                    Outcome::DeadLetter => HandInReply::DeadLetter,
                    _ => HandInReply::Later,
                },
            ),
        }
    }
}

/// Request of a session that waits for the outcome of its write.
pub(super) struct SessionWaiter {
    pub(super) author: Author,
    pub(super) reply: Reply<Written>,
}

impl SessionWaiter {
    pub(super) fn answer(self, outcome: Outcome) {
        let _ = self.reply.send(Ok(Written { author: self.author, outcome }));
    }
}

/// Answers a worker that handed a post in.
pub(super) fn handed_in(reply: Responder, answer: HandInReply) {
    let _ = reply.send(&Response::HandIn(answer));
}

/// Waiters by task. Each waits at most `wait_max`; the tasks go on.
pub(super) struct Waiters {
    by_task: BTreeMap<TaskId, Waits>,
    /// Calls of other masters.
    calls: PartedCalls<Responder, ForwardReply>,
    deadlines: VecDeque<(Mono, TaskId)>,
    wait_max: Duration,
}

impl Waiters {
    pub(super) fn new(wait_max: Duration) -> Self {
        let calls = PartedCalls::default();
        Self { by_task: BTreeMap::new(), calls, deadlines: VecDeque::new(), wait_max }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_task.is_empty()
    }

    pub(super) fn add(&mut self, now: Mono, id: TaskId, waiter: Waiter) {
        self.insert(now, id, Waits::One(waiter));
    }

    /// Adds a call of another master: each of its tasks, at least one, waits here under its number,
    /// or has its answer already.
    pub(super) fn add_call(
        &mut self,
        now: Mono,
        reply: Responder,
        tasks: Vec<Result<TaskId, ForwardReply>>,
    ) {
        let parts = self.calls.open(reply, tasks.len());
        for (part, task) in parts.zip(tasks) {
            match task {
                Ok(id) => self.insert(now, id, Waits::Peer(part)),
                Err(answer) => self.answer_peer(part, answer),
            }
        }
    }

    fn insert(&mut self, now: Mono, id: TaskId, waits: Waits) {
        self.by_task.insert(id, waits);
        self.deadlines.push_back((now + self.wait_max, id));
    }

    /// Tells who waited for a task how it ended.
    pub(super) fn answer(&mut self, waits: Waits, outcome: Outcome) {
        match waits {
            Waits::One(waiter) => waiter.answer(outcome),
            Waits::Peer(part) => self.answer_peer(part, ForwardReply::Ended(outcome)),
        }
    }

    /// Takes the answer to one of the tasks that another master forwarded, and answers the call if
    /// it was the last one.
    pub(super) fn answer_peer(&mut self, part: Part, answer: ForwardReply) {
        if let Some((reply, answers)) = self.calls.answer(part, answer) {
            // A caller that is gone has ended its call by its own deadline.
            let _ = reply.send(&Response::Forward(answers));
        }
    }

    pub(super) fn remove(&mut self, id: TaskId) -> Option<Waits> {
        self.by_task.remove(&id)
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        self.deadlines.front().map(|(at, _)| *at)
    }

    /// Removes and returns the first waiter that has waited as long as it may.
    pub(super) fn expire(&mut self, now: Mono) -> Option<(TaskId, Waits)> {
        while let Some((_, id)) = self.deadlines.pop_front_if(|(at, _)| *at <= now) {
            if let Some(waits) = self.by_task.remove(&id) {
                return Some((id, waits));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono::ZERO + Duration::from_millis(ms)
    }

    fn person() -> Waiter {
        Waiter::Newcomer(oneshot::channel().0)
    }

    #[test]
    fn waiter_expires_at_its_deadline_unless_it_was_answered() {
        let mut waiters = Waiters::new(Duration::from_millis(100));
        for (ms, id) in [(0, 1), (10, 2), (20, 3)] {
            waiters.add(at(ms), TaskId(id), person());
        }
        assert!(waiters.remove(TaskId(2)).is_some());
        assert_eq!(waiters.next_deadline(), Some(at(100)));
        assert!(waiters.expire(at(99)).is_none());
        let mut expired = Vec::new();
        while let Some((id, _)) = waiters.expire(at(120)) {
            expired.push(id);
        }
        assert_eq!(expired, [TaskId(1), TaskId(3)]);
        assert_eq!(waiters.next_deadline(), None);
        assert!(waiters.remove(TaskId(1)).is_none());
    }
}
