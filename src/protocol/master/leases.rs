//! Leases: the store's answers to requests and renewals, and whether the store is reached.

use super::{Effect, Master, UNREACHABLE_FOR};
use crate::{
    model::{
        event::FaultPoint,
        ids::{Resource, StoreEpoch},
        rows::{Lease, Renewed},
        time::Mono,
    },
    protocol::{permission::LeaseState, task_queue::Slot},
};

impl Master {
    /// Takes the store's answer to an [`Effect::AcquireLease`] sent at `sent_at`; `None` when there
    /// was none.
    pub fn on_lease(
        &mut self,
        now: Mono,
        slot: Slot,
        sent_at: Mono,
        answer: Option<Lease>,
        out: &mut Vec<Effect>,
    ) {
        if !matches!(self.permissions.state(slot), LeaseState::Asking { .. }) {
            // The slot was retired meanwhile: the lease runs out by itself.
            return;
        }
        // A lease of a store that was replaced is none.
        let answer = answer.filter(|answer| match answer {
            Lease::Granted { epoch, .. } => !self.permissions.is_outdated(*epoch),
            Lease::HeldBy { .. } => true,
        });
        let again_at = now + self.config.forward_retry;
        self.permissions.on_answer(now, slot, sent_at, answer, again_at);
        match answer {
            Some(Lease::Granted { .. }) => {
                out.push(Effect::FaultPoint(FaultPoint::LeaseGranted));
                self.reclaim(slot, |_| true);
            }
            Some(Lease::HeldBy { holder, .. }) => {
                let silence = self.config.forward_timeout;
                self.reclaim(slot, |with| {
                    with.to != holder.node && now.since(with.sent_at) >= silence
                });
            }
            None => {}
        }
        self.mark(slot);
        self.pump_marked(now, out);
    }

    /// Takes the store's answer to an [`Effect::RenewLeases`] sent at `sent_at`.
    pub fn on_renewed(
        &mut self,
        now: Mono,
        sent_at: Mono,
        asked: &[(Resource, u64)],
        answers: &[(Resource, Renewed)],
        out: &mut Vec<Effect>,
    ) {
        for ((resource, lease), (_, answer)) in asked.iter().zip(answers) {
            let Some(slot) = self.queue.find(resource) else { continue };
            self.permissions.on_renewed(slot, *lease, sent_at, *answer);
            match answer {
                Renewed::Kept => continue,
                Renewed::Wanted => {
                    out.push(Effect::Probe("a holder was wished away"));
                    if !self.assignments.is_in_flight(slot) {
                        self.put_back(slot, false);
                        self.release(slot, now + self.config.forward_retry, out);
                    }
                }
                Renewed::Lost => out.push(Effect::Probe("a lease was lost to another master")),
            }
            self.mark(slot);
        }
        self.pump_marked(now, out);
    }

    /// Gives a lease back if it is held, and sends back the tasks that others forwarded for it.
    pub(super) fn release(&mut self, slot: Slot, ask_at: Mono, out: &mut Vec<Effect>) {
        let LeaseState::Mine(held) = self.permissions.state(slot) else { return };
        self.permissions.drop_lease(slot, ask_at);
        if let Some(resource) = self.queue.resource(slot).cloned() {
            out.push(Effect::ReleaseLease { resource, lease: held.token.lease });
        }
        self.refuse_forwarded(slot, None, out);
    }

    /// Lets go of what is idle, and renews the other leases.
    pub(super) fn renew(&mut self, now: Mono, out: &mut Vec<Effect>) {
        self.retire_idle(now, out);
        self.hand_over(now, out);
        if !self.selection.anyone_reaches_store() {
            let since = *self.unreachable_since.get_or_insert(now);
            if now.since(since) >= UNREACHABLE_FOR {
                self.release_all(now, out);
                return;
            }
        } else {
            self.unreachable_since = None;
        }
        if !self.is_strong(now) {
            return;
        }
        let slots: Vec<_> = self.queue.slots().map(|(s, r)| (s, r.clone())).collect();
        let mut leases = Vec::new();
        for (slot, resource) in slots {
            let LeaseState::Mine(held) = self.permissions.state(slot) else { continue };
            leases.push((resource, held.token.lease));
        }
        if !leases.is_empty() {
            out.push(Effect::RenewLeases { leases });
        }
    }

    /// Gives back every lease without an attempt in flight: another master is to take it.
    pub(super) fn release_all(&mut self, now: Mono, out: &mut Vec<Effect>) {
        let slots: Vec<_> = self.queue.slots().map(|(slot, _)| slot).collect();
        for slot in slots {
            if self.assignments.is_in_flight(slot) {
                continue;
            }
            self.put_back(slot, false);
            self.release(slot, now, out);
            self.mark(slot);
        }
    }

    /// Notes whether a write of this master's own was done in the store.
    pub fn on_store_write(&mut self, now: Mono, done: bool, out: &mut Vec<Effect>) {
        let was_strong = self.is_strong(now);
        if done {
            self.wrote_at = Some(now);
        }
        if was_strong != self.is_strong(now) || !done {
            self.mark_all();
            self.pump_marked(now, out);
        }
    }

    /// Drops the leases of other epochs than the one that the store is in.
    pub fn on_store_epoch(&mut self, now: Mono, epoch: StoreEpoch, out: &mut Vec<Effect>) {
        self.permissions.on_epoch(epoch);
        self.mark_all();
        self.pump_marked(now, out);
    }
}
