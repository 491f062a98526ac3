//! Posts while the store is away: workers hold them on their disks, and hand them in when it is back.
//!
//! A master that cannot have anything written, and knows no other that can, has each post of its
//! people held by two workers: its own first, then those of other masters. The holders hand the post in
//! as an ordinary task, so the check for duplicates makes it one, however many hand it in.

use super::{Effect, Master, RETRY_MS};
use crate::{
    model::{
        bounds::HOLD_TRIES_MAX,
        held::HeldPost,
        ids::{LinkId, NodeId, PostId, UserId},
        message::{Task, Update},
        outcome::{Outcome, TaskResult},
        stream::HeldState,
        time::Mono,
    },
    protocol::task_queue::{Entry, Origin, Slot, TaskId},
};

/// Post that workers are asked to hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holding {
    slot: Slot,
    /// Whether it was sent to be written before.
    sent: bool,
    user: UserId,
    post: PostId,
}

/// Returns a number that spreads posts over workers.
#[must_use]
pub fn held_by_turn(id: &PostId) -> usize {
    // Clients draw ids at random.
    usize::from(u16::from_le_bytes([id.0[0], id.0[1]]))
}

/// Answers of the workers that were asked to hold a post.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HoldEnd {
    /// Number of workers that hold it.
    pub copies: u32,
    /// Whether a worker holds another post under its id.
    pub conflict: bool,
    /// Whether a worker may hold it that did not answer.
    pub in_doubt: bool,
}

impl Master {
    /// Returns whether nothing can be written here nor at another master, for longer than a start
    /// takes.
    pub(super) fn is_alone(&self, now: Mono) -> bool {
        self.is_idle(now) && !self.has_successor() && now.since(self.began_at) >= super::WEAK_AFTER
    }

    /// Returns whether a task would be held: it is a post, and there is somebody to ask.
    pub(super) fn may_hold(&self, now: Mono, task: &Task) -> bool {
        matches!(task, Task::Post { .. }) && self.is_alone(now) && self.has_holders()
    }

    fn has_holders(&self) -> bool {
        let mut own = self.registrations.links();
        own.any(|link| !self.is_ending(link)) || !self.peers.is_empty()
    }

    /// Has the waiting posts of people held, and ends those that holders handed in: they are held.
    pub(super) fn hold_waiting(&mut self, slot: Slot, out: &mut Vec<Effect>) {
        while let Some(entry) = self.queue.take_where(slot, |e| e.origin == Origin::Holder) {
            self.queue.end(slot, 1);
            let retry = Outcome::Unavailable { retry_ms: RETRY_MS };
            let outcome = if entry.sent { Outcome::Unknown } else { retry };
            out.push(Effect::End { id: entry.id, outcome });
        }
        if !self.has_holders() {
            return;
        }
        let wanted = |entry: &Entry| {
            entry.origin == Origin::Local && matches!(entry.task, Task::Post { .. })
        };
        while let Some(Entry { id, sent, task, .. }) = self.queue.take_where(slot, wanted) {
            let Task::Post { board, post } = task else { continue };
            let holding = Holding { slot, sent, user: post.author.id, post: post.id };
            self.holding.insert(id, holding);
            let holders = self.holders(&post.id);
            let post = Box::new(HeldPost { board, post });
            out.push(Effect::Hold { id, post, holders });
        }
    }

    /// Notes that the worker at this link ends: it holds nothing more, and gets no more batches.
    pub fn on_worker_ends(&mut self, link: LinkId) {
        if self.registrations.by_link(link).is_some() {
            self.ending.insert(link);
        }
    }

    /// Notes that the worker at this link goes on after all: it did not say that it ends.
    pub fn on_worker_stays(&mut self, now: Mono, link: LinkId, out: &mut Vec<Effect>) {
        if self.ending.remove(&link) {
            self.mark_all();
            self.pump_marked(now, out);
        }
    }

    /// Returns whether the worker at this link is known to end.
    #[must_use]
    pub fn is_ending(&self, link: LinkId) -> bool {
        self.ending.contains(&link)
    }

    /// Returns whether this worker is registered here and known to end.
    #[must_use]
    pub fn is_worker_ending(&self, node: &NodeId) -> bool {
        self.registrations.get(node).is_some_and(|registered| self.is_ending(registered.link))
    }

    /// Returns links over which a post can be held, with the number of the copy, those to try first in
    /// front: this master's own workers that do not end, then other masters, for one copy each and then
    /// for a second one. Which worker comes first is drawn by the post's id, so that a post that is sent
    /// again goes to the same ones.
    #[must_use]
    pub fn holders(&self, id: &PostId) -> Vec<(LinkId, u8)> {
        let own = self.registrations.links().filter(|link| !self.is_ending(*link));
        let mut own: Vec<_> = own.map(|link| (link, 0)).collect();
        if !own.is_empty() {
            let first = held_by_turn(id) % own.len();
            own.rotate_left(first);
        }
        let peers = |copy| self.peers.values().map(move |peer| (peer.link, copy));
        own.into_iter().chain(peers(0)).chain(peers(1)).take(HOLD_TRIES_MAX).collect()
    }

    /// Ends a post that workers were asked to hold.
    pub fn on_hold_end(&mut self, id: TaskId, end: HoldEnd, out: &mut Vec<Effect>) {
        let Some(Holding { slot, sent, user, post }) = self.holding.remove(&id) else { return };
        self.queue.end(slot, 1);
        let HoldEnd { copies, conflict, in_doubt } = end;
        let outcome = match (copies, conflict) {
            (1.., false) => Outcome::Pending { copies },
            (0, true) if !sent && !in_doubt => Outcome::Settled(TaskResult::Conflict),
            (0, false) if !sent && !in_doubt => Outcome::Unavailable { retry_ms: RETRY_MS },
            // Written before, or on one disk while another has its id: the store will say.
            _ => Outcome::Unknown,
        };
        if matches!(outcome, Outcome::Pending { .. }) {
            out.push(Effect::Probe("a post was held until the store is back"));
            let update = Update::Pending { user, id: post, state: HeldState::Pending };
            out.push(Effect::Publish { update, spread: true });
        }
        out.push(Effect::End { id, outcome });
    }

    /// Queues a post that a worker held. It will end by an [`Effect::End`] with the number returned.
    ///
    /// # Errors
    /// Overloaded or unavailable, at once; nothing was done.
    pub fn on_handed_in(
        &mut self,
        now: Mono,
        held: HeldPost,
        out: &mut Vec<Effect>,
    ) -> Result<TaskId, Outcome> {
        if self.is_idle(now) && !self.has_successor() {
            return Err(Outcome::Unavailable { retry_ms: RETRY_MS });
        }
        out.push(Effect::Probe("a held post was handed in"));
        let HeldPost { board, post } = held;
        let taken = self.enqueue(now, Task::Post { board, post }, Origin::Holder, out);
        self.pump_marked(now, out);
        taken
    }
}
