//! Forwards: tasks that are sent to other masters, and their answers.
//!
//! 1. Tasks of one resource leave together, and what comes while [`FORWARD_CALLS`] calls of the
//!    resource are in flight waits. A call whose tasks were all taken back counts no more.
//! 2. A call is answered as a whole, once all of its tasks have ended. A late answer ends no task that
//!    was taken back or sent again meanwhile.

use std::collections::BTreeSet;

use super::{CallFailed, Effect, ForwardId, Forwarded, Master};
use crate::{
    model::{
        bounds::{BATCH_BYTES_MAX, BATCH_TASKS_MAX, FORWARD_CALLS},
        ids::{LinkId, NodeId},
        message::{ForwardReply, Task},
        outcome::Outcome,
        rows::Holder,
        time::Mono,
    },
    protocol::{
        permission::LeaseState,
        task_queue::{Entry, Slot, TaskId},
    },
};

impl Master {
    /// Sends the tasks of a slot that wait to another master, as far as there is room.
    pub(super) fn forward_waiting(
        &mut self,
        now: Mono,
        slot: Slot,
        to: NodeId,
        out: &mut Vec<Effect>,
    ) {
        let Some(link) = self.peers.get(&to).map(|peer| peer.link) else { return };
        let is_open = |me: &Self| {
            let same = me.forward_calls.values().filter(|call| **call == (slot, link));
            same.count() < FORWARD_CALLS
        };
        while is_open(self) {
            let call = ForwardId(self.last_forward.0 + 1);
            let tasks = self.take_for_forward(now, slot, to, (link, call));
            if tasks.is_empty() {
                return;
            }
            self.last_forward = call;
            self.forward_calls.insert(call, (slot, link));
            out.push(Effect::Forward { link, call, tasks });
        }
    }

    /// Takes as many tasks for another master as one call carries, in their order.
    fn take_for_forward(
        &mut self,
        now: Mono,
        slot: Slot,
        to: NodeId,
        (link, call): (LinkId, ForwardId),
    ) -> Vec<(TaskId, Task)> {
        let (mut tasks, mut bytes, mut is_full) = (Vec::new(), 0, false);
        while tasks.len() < BATCH_TASKS_MAX {
            let next = self.queue.take_where(slot, |entry: &Entry| {
                let is_next = !is_full && !entry.is_foreign();
                is_full |= is_next && bytes + entry.task.weight() > BATCH_BYTES_MAX;
                is_next && !is_full
            });
            let Some(mut entry) = next else { break };
            bytes += entry.task.weight();
            tasks.push((entry.id, entry.task.clone()));
            let sent_before = std::mem::replace(&mut entry.sent, true);
            let look_at = now + self.config.forward_timeout;
            let id = entry.id;
            let forward =
                Forwarded { slot, sent_before, call, to, link, sent_at: now, look_at, entry };
            self.forwards.insert(id, forward);
        }
        tasks
    }

    /// Takes another master's answers to the tasks of a call, or its failure to answer. Ignores
    /// those that were taken back meanwhile.
    pub fn on_forward(
        &mut self,
        now: Mono,
        call: ForwardId,
        ends: impl IntoIterator<Item = (TaskId, Result<ForwardReply, CallFailed>)>,
        out: &mut Vec<Effect>,
    ) {
        let Some((slot, _)) = self.forward_calls.remove(&call) else { return };
        let mut back = Vec::new();
        for (id, answer) in ends {
            if self.forwards.get(&id).is_some_and(|forward| forward.call == call) {
                back.extend(self.on_forward_end(now, id, answer, out));
            }
        }
        if !back.is_empty() {
            out.push(Effect::Probe("a task came back from another master"));
            self.queue.put_back(slot, back.into_iter());
        }
        self.mark(slot);
        self.pump_marked(now, out);
    }

    /// Takes the end of one forwarded task. Returns the task if it comes back.
    fn on_forward_end(
        &mut self,
        now: Mono,
        id: TaskId,
        answer: Result<ForwardReply, CallFailed>,
        out: &mut Vec<Effect>,
    ) -> Option<Entry> {
        let forward = self.forwards.remove(&id)?;
        let slot = forward.slot;
        let look_at = now + self.config.forward_retry;
        let may_be_done = match &answer {
            Ok(reply) => *reply == ForwardReply::Ended(Outcome::Unknown),
            Err(failed) => !failed.nothing_was_done(),
        };
        let ended = match answer {
            Ok(ForwardReply::Ended(Outcome::Overloaded { .. })) if forward.sent_before => {
                self.permissions.on_told(slot, None, now, look_at);
                None
            }
            // Whether it can write is its beats' to say: this may have been overtaken by one. What
            // it could not end may be done here: the same task again is safe.
            Ok(ForwardReply::Ended(Outcome::Unavailable { .. } | Outcome::Unknown))
            | Err(CallFailed::TimedOut | CallFailed::Full) => {
                self.permissions.on_told(slot, None, now, look_at);
                None
            }
            Ok(ForwardReply::Ended(outcome)) => Some(outcome),
            Ok(ForwardReply::HeldBy(holder)) => {
                // Me: by hearsay only. The store knows.
                let holder = holder.filter(|holder| holder.node != self.me.node);
                let until = now + self.config.lease_ttl;
                self.permissions.on_told(slot, holder, until, look_at);
                None
            }
            Err(CallFailed::Gone | CallFailed::Closed) => {
                self.lose_peer(now, forward.to, forward.link);
                self.permissions.look_again(slot, now);
                None
            }
        };
        if let Some(outcome) = ended {
            self.queue.end(slot, 1);
            out.push(Effect::End { id, outcome });
            return None;
        }
        let sent = forward.sent_before || may_be_done;
        Some(Entry { sent, ..forward.entry })
    }

    /// Wishes for the leases of masters that have not answered for `forward_timeout`, and asks for
    /// them again until one of both has the task.
    pub(super) fn wish_for_silent(&mut self, now: Mono, out: &mut Vec<Effect>) {
        let mut silent = BTreeSet::new();
        for forward in self.forwards.values_mut() {
            if now >= forward.look_at {
                forward.look_at = now + self.config.forward_retry;
                silent.insert(forward.slot);
            }
        }
        for slot in silent {
            // Who cannot write waits: a master that is linked has the task written or sends it back.
            // Of two questions under way the store's second answer would find nobody.
            if !self.can_write(now)
                || matches!(self.permissions.state(slot), LeaseState::Asking { .. })
            {
                continue;
            }
            let Some(resource) = self.queue.resource(slot).cloned() else { continue };
            out.push(Effect::Wish { resource: resource.clone(), by: self.me });
            out.push(Effect::Probe("a master wished for a lease whose holder is silent"));
            self.permissions.on_asked(now, slot);
            out.push(Effect::AcquireLease { slot, resource });
        }
    }

    /// Returns the master to which tasks go that this one cannot have written.
    pub(super) fn strong_peer(&self) -> Option<NodeId> {
        self.peers.iter().find(|(_, peer)| peer.can_write).map(|(node, _)| *node)
    }

    /// Wishes for the lease of a holder out of reach in the name of the master to which the tasks go:
    /// that one may reach the holder, so that it would not wish itself, and may not pass them on.
    pub(super) fn wish_for_another(&self, slot: Slot, out: &mut Vec<Effect>) {
        let row = self.strong_peer().and_then(|to| self.watch.get(&to));
        let (Some(row), Some(resource)) = (row, self.queue.resource(slot).cloned()) else { return };
        let by = Holder { node: row.node, incarnation: row.incarnation };
        out.push(Effect::Wish { resource, by });
        out.push(Effect::Probe("a master wished for a lease in the name of another"));
    }

    /// Takes back the tasks of a slot that wait at other masters and that `wanted` accepts: the
    /// lease is held elsewhere now. If one of them was written all the same, the store says so.
    pub(super) fn reclaim(&mut self, slot: Slot, wanted: impl Fn(&Forwarded) -> bool) {
        let ids: Vec<TaskId> = self
            .forwards
            .iter()
            .filter(|(_, forward)| forward.slot == slot && wanted(forward))
            .map(|(id, _)| *id)
            .collect();
        for id in ids.into_iter().rev() {
            if let Some(forward) = self.forwards.remove(&id) {
                self.queue.put_back(slot, std::iter::once(forward.entry));
            }
        }
        let under_way: BTreeSet<_> = self.forwards.values().map(|forward| forward.call).collect();
        self.forward_calls.retain(|call, (of, _)| *of != slot || under_way.contains(call));
    }
}
