//! Forwards: other masters' answers to tasks that were forwarded to them.

use std::collections::BTreeSet;

use super::{CallFailed, Effect, Forwarded, Master};
use crate::{
    model::{message::ForwardReply, outcome::Outcome, time::Mono},
    protocol::{
        permission::LeaseState,
        task_queue::{Slot, TaskId},
    },
};

impl Master {
    /// Takes another master's answer, or its failure to answer. Does nothing if the task was taken
    /// back meanwhile.
    pub fn on_forward(
        &mut self,
        now: Mono,
        id: TaskId,
        answer: Result<ForwardReply, CallFailed>,
        out: &mut Vec<Effect>,
    ) {
        let Some(forward) = self.forwards.remove(&id) else { return };
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
                if self.peers.get(&forward.to).is_some_and(|peer| peer.link == forward.link)
                    && let Some(peer) = self.peers.remove(&forward.to)
                {
                    self.note_lost_peer(now, peer);
                }
                self.permissions.look_again(slot, now);
                None
            }
        };
        let mut entry = forward.entry;
        if let Some(outcome) = ended {
            self.queue.end(slot, 1);
            out.push(Effect::End { id, outcome });
        } else {
            entry.sent = forward.sent_before || may_be_done;
            out.push(Effect::Probe("a task came back from another master"));
            self.queue.put_back(slot, std::iter::once(entry));
            self.mark(slot);
            self.pump_marked(now, out);
        }
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
            // Who cannot write leaves it to who may; of two questions under way the store's
            // second answer would find nobody.
            if !self.can_write(now)
                || matches!(self.permissions.state(slot), LeaseState::Asking { .. })
            {
                continue;
            }
            let Some(resource) = self.queue.resource(slot).cloned() else { continue };
            out.push(Effect::Wish { resource: resource.clone() });
            out.push(Effect::Probe("a master wished for a lease whose holder is silent"));
            self.permissions.on_asked(now, slot);
            out.push(Effect::AcquireLease { slot, resource });
        }
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
    }
}
