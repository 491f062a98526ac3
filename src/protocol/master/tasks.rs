//! Tasks from people and from other masters: queued, and given to workers as their turns come.

use super::{Effect, Master, RETRY_MS};
use crate::{
    model::{
        event::{Event, FaultPoint},
        ids::{NodeId, PostId, Registration},
        message::{Assign, ForwardReply, Task},
        outcome::Outcome,
        rows::{Holder, Permission},
        time::Mono,
    },
    protocol::{
        assignment::{AttemptId, Batch},
        calls::Attempt,
        permission::LeaseState,
        task_queue::{Entry, Origin, QueueFull, Slot, TaskId},
        tries::{Assignee, FailedTries},
    },
};

impl Master {
    /// Queues a person's task. It will end by an [`Effect::End`] with the number returned.
    ///
    /// # Errors
    /// Overloaded or unavailable, at once; nothing was done.
    pub fn on_submit(
        &mut self,
        now: Mono,
        task: Task,
        out: &mut Vec<Effect>,
    ) -> Result<TaskId, Outcome> {
        let taken = self.queue_person_task(now, task, out);
        self.pump_marked(now, out);
        taken
    }

    /// Queues tasks of people, as [`Master::on_submit`] does one, before any of them is sent: those
    /// of one resource share its batches.
    pub fn on_submit_all(
        &mut self,
        now: Mono,
        tasks: impl IntoIterator<Item = Task>,
        out: &mut Vec<Effect>,
    ) -> Vec<Result<TaskId, Outcome>> {
        let taken = tasks.into_iter().map(|task| self.queue_person_task(now, task, out)).collect();
        self.pump_marked(now, out);
        taken
    }

    fn queue_person_task(
        &mut self,
        now: Mono,
        task: Task,
        out: &mut Vec<Effect>,
    ) -> Result<TaskId, Outcome> {
        if self.is_idle(now) && !self.has_successor() && !self.may_hold(now, &task) {
            return Err(Outcome::Unavailable { retry_ms: RETRY_MS });
        }
        self.enqueue(now, task, Origin::Local, out)
    }

    /// Queues another master's tasks. Each will end by an [`Effect::End`] or an
    /// [`Effect::SendBack`] with the number returned; one that is refused has its answer at once, and
    /// nothing was done.
    pub fn on_forwarded(
        &mut self,
        now: Mono,
        from: NodeId,
        tasks: impl IntoIterator<Item = Task>,
        out: &mut Vec<Effect>,
    ) -> Vec<Result<TaskId, ForwardReply>> {
        let queue = |task| self.queue_forwarded(now, from, task, out);
        let taken = tasks.into_iter().map(queue).collect();
        self.pump_marked(now, out);
        taken
    }

    fn queue_forwarded(
        &mut self,
        now: Mono,
        from: NodeId,
        task: Task,
        out: &mut Vec<Effect>,
    ) -> Result<TaskId, ForwardReply> {
        if !self.can_write(now) {
            return Err(ForwardReply::Ended(Outcome::Unavailable { retry_ms: RETRY_MS }));
        }
        let slot = self.queue.find(&task.resource(self.me.node));
        if let Some(slot) = slot
            && let LeaseState::Other { holder, until, look_at } = self.permissions.state(slot)
        {
            if holder.node == from {
                // It gave the lease back: who holds one forwards nothing.
                self.permissions.drop_lease(slot, now);
            } else if now < until.min(look_at) {
                return Err(ForwardReply::HeldBy(Some(holder)));
            }
        }
        self.enqueue(now, task, Origin::Forwarded(from), out).map_err(ForwardReply::Ended)
    }

    pub(super) fn enqueue(
        &mut self,
        now: Mono,
        task: Task,
        origin: Origin,
        out: &mut Vec<Effect>,
    ) -> Result<TaskId, Outcome> {
        let overloaded = Outcome::Overloaded { retry_ms: RETRY_MS };
        let me = self.me.node;
        let slot = match self.queue.slot_of(&task, me) {
            Ok(slot) => slot,
            Err(QueueFull::Resources) if self.retire_one(now, out) => {
                self.queue.slot_of(&task, me).map_err(|_| overloaded.clone())?
            }
            Err(_) => return Err(overloaded),
        };
        self.used_at.insert(slot, now);
        self.tasks += 1;
        let id = TaskId(self.tasks);
        let failed = FailedTries::default();
        let entry = Entry { id, origin, sent: false, alone: false, failed, task };
        self.queue.push(slot, entry).map_err(|_| overloaded)?;
        self.mark(slot);
        Ok(id)
    }

    /// Lets go of the least recently used slot without work. Returns whether there was one.
    fn retire_one(&mut self, now: Mono, out: &mut Vec<Effect>) -> bool {
        let idle = self.idle_slots().min();
        idle.is_some_and(|(_, slot)| self.retire(now, slot, out))
    }

    /// Lets go of every slot that had no task for `lease_idle`.
    pub(super) fn retire_idle(&mut self, now: Mono, out: &mut Vec<Effect>) {
        let idle: Vec<_> = self
            .idle_slots()
            .filter(|(used_at, _)| now.since(*used_at) >= self.config.lease_idle)
            .collect();
        for (_, slot) in idle {
            self.retire(now, slot, out);
        }
    }

    /// Iterates over the slots without work, each with the time of its last task.
    fn idle_slots(&self) -> impl Iterator<Item = (Mono, Slot)> {
        self.queue.slots().filter_map(|(slot, _)| {
            let is_idle = self.queue.waiting(slot) == 0
                && self.queue.taken(slot) == 0
                && !matches!(self.permissions.state(slot), LeaseState::Asking { .. });
            is_idle.then(|| (self.used_at.get(&slot).copied().unwrap_or(Mono::ZERO), slot))
        })
    }

    /// Frees a slot without work and gives its lease back.
    fn retire(&mut self, now: Mono, slot: Slot, out: &mut Vec<Effect>) -> bool {
        self.release(slot, now, out);
        self.permissions.forget(slot);
        self.assignments.forget(slot);
        self.forward_calls.retain(|_, (of, _)| *of != slot);
        self.used_at.remove(&slot);
        self.queue.retire(slot)
    }

    /// Ends a person's request that has waited as long as it may, and returns its outcome. The
    /// task itself goes on if it was sent anywhere.
    pub fn on_waited(&mut self, id: TaskId) -> Outcome {
        if self.forwards.contains_key(&id) {
            return Outcome::Unknown;
        }
        let slots: Vec<_> = self.queue.slots().map(|(slot, _)| slot).collect();
        for slot in slots {
            if self.queue.take_where(slot, |entry| entry.id == id && !entry.sent).is_some() {
                self.queue.end(slot, 1);
                return Outcome::Unavailable { retry_ms: RETRY_MS };
            }
        }
        Outcome::Unknown
    }

    /// Moves the work of the marked slots on: the last step of each entry point.
    pub(super) fn pump_marked(&mut self, now: Mono, out: &mut Vec<Effect>) {
        // Who waits for a worker comes before the slot whose batch just made room.
        while !self.turns.is_empty() && self.pick().is_some() {
            if let Some(slot) = self.turns.pop() {
                self.pump(now, slot, out);
            }
        }
        let mut marked = std::mem::take(&mut self.marked);
        for slot in marked.drain(..) {
            self.pump(now, slot, out);
        }
        // Its room is reused: moving work on marks nothing.
        self.marked = marked;
        for call in self.calls.close() {
            let registered = self.registrations.get(&call.worker.node);
            debug_assert!(registered.is_some(), "nothing here ends a worker");
            if let Some(registered) = registered {
                out.push(Effect::Assign { link: registered.link, call });
                out.push(Effect::FaultPoint(FaultPoint::AssignSent));
            }
        }
    }

    /// Moves a slot's work on as far as it can go now.
    fn pump(&mut self, now: Mono, slot: Slot, out: &mut Vec<Effect>) {
        if self.queue.resource(slot).is_none() {
            return;
        }
        if self.assignments.waiting(slot).is_some() {
            self.resume(now, slot, out);
        }
        if self.hands_over() && self.assignments.count(slot) == 0 {
            self.release(slot, now, out);
        }
        if self.is_alone(now) {
            self.hold_waiting(slot, out);
        }
        if self.queue.waiting(slot) == 0 {
            return;
        }
        match self.permissions.state(slot) {
            LeaseState::Mine(held) if now < held.until => {
                if self.assignments.count(slot) > 0 {
                    if !held.wanted && !self.hands_over() {
                        self.follow(now, slot, out);
                    }
                } else if held.wanted {
                    self.release(slot, now + self.config.forward_retry, out);
                } else {
                    self.start(now, slot, out);
                }
            }
            LeaseState::Mine(_) => {
                self.permissions.drop_lease(slot, now);
                self.pump(now, slot, out);
            }
            LeaseState::Asking { .. } => {}
            LeaseState::Free { ask_at } if ask_at > now => self.wake(ask_at, slot),
            LeaseState::Free { .. } if self.can_write(now) => self.ask(now, slot, out),
            LeaseState::Free { .. } => self.pass_on(now, slot, out),
            LeaseState::Other { holder, until, look_at } => {
                self.go_to_holder(now, slot, holder, (until, look_at), out);
            }
        }
    }

    fn ask(&mut self, now: Mono, slot: Slot, out: &mut Vec<Effect>) {
        if let Some(resource) = self.queue.resource(slot).cloned() {
            self.permissions.on_asked(now, slot);
            out.push(Effect::AcquireLease { slot, resource });
        }
    }

    /// Forwards a slot's tasks to a master that can have them written, or ends them, when nobody is
    /// known to coordinate the resource and this master cannot have it written.
    fn pass_on(&mut self, now: Mono, slot: Slot, out: &mut Vec<Effect>) {
        self.refuse_forwarded(slot, None, out);
        if let Some(to) = self.strong_peer() {
            self.forward_waiting(now, slot, to, out);
        } else if self.is_idle(now) {
            while let Some(entry) = self.queue.take_where(slot, |entry| !entry.sent) {
                self.queue.end(slot, 1);
                let outcome = Outcome::Unavailable { retry_ms: RETRY_MS };
                out.push(Effect::End { id: entry.id, outcome });
            }
        }
        // Else a worker is waited for: each that comes, each beat that says so, and each renewal
        // looks here.
    }

    fn go_to_holder(
        &mut self,
        now: Mono,
        slot: Slot,
        holder: Holder,
        (until, look_at): (Mono, Mono),
        out: &mut Vec<Effect>,
    ) {
        let is_reached = self.peers.contains_key(&holder.node);
        let look_at = until.min(look_at);
        let may_ask = look_at <= now && self.can_write(now);
        // A term that is over, of a holder that is gone, is no answer to who asks from elsewhere.
        if !may_ask && (is_reached || now < until) {
            self.refuse_forwarded(slot, Some(holder), out);
        }
        if self.queue.waiting(slot) == 0 {
            return;
        }
        // What is known is old: who sent a task here may have been the holder itself, or have
        // wished for the lease in this master's name.
        let asks_anew = may_ask && self.queue.has_waiting(slot, Entry::is_foreign);
        if is_reached && !asks_anew {
            self.forward_waiting(now, slot, holder.node, out);
            return;
        }
        if look_at > now {
            self.wake(look_at, slot);
            return;
        }
        if !self.can_write(now) {
            self.wish_for_another(slot, out);
            self.permissions.drop_lease(slot, now);
            self.pass_on(now, slot, out);
            return;
        }
        // Out of reach: masters that cannot see each other take turns by wishing.
        if !is_reached && let Some(resource) = self.queue.resource(slot).cloned() {
            out.push(Effect::Wish { resource, by: self.me });
            out.push(Effect::Probe("a master wished for a lease whose holder it cannot reach"));
        }
        self.ask(now, slot, out);
    }

    /// Sends back the tasks that other masters forwarded here: this master does not coordinate them.
    pub(super) fn refuse_forwarded(
        &mut self,
        slot: Slot,
        holder: Option<Holder>,
        out: &mut Vec<Effect>,
    ) {
        while let Some(entry) = self.queue.take_where(slot, Entry::is_foreign) {
            self.queue.end(slot, 1);
            out.push(if entry.sent {
                Effect::End { id: entry.id, outcome: Outcome::Unknown }
            } else {
                Effect::SendBack { id: entry.id, holder }
            });
        }
    }

    /// Gives the next batch to a worker. Nothing is in flight, and the lease is held here.
    fn start(&mut self, now: Mono, slot: Slot, out: &mut Vec<Effect>) {
        let not_before = self.assignments.not_before(slot);
        if not_before > now {
            self.wake(not_before, slot);
            return;
        }
        let Some(assignee) = self.pick_for(slot) else { return };
        self.send_batch(now, slot, assignee, out);
    }

    /// Gives a batch more to the worker that has the others of the slot, so that it does not wait
    /// for work while their answers are on the way. Small ones would cost more than that wait: it
    /// leaves once it is no smaller than the last one. Whoever waits for a worker comes first.
    fn follow(&mut self, now: Mono, slot: Slot, out: &mut Vec<Effect>) {
        if self.assignments.count(slot) >= self.config.batches_in_flight
            || self.assignments.not_before(slot) > now
            || !self.turns.is_empty()
        {
            return;
        }
        let Some(last) = self.assignments.to_follow(slot) else { return };
        let assignee = last.assignee;
        if self.queue.waiting(slot) < last.tasks.len() {
            return;
        }
        let is_well = |entry: &Entry| !entry.alone && entry.failed.total() == 0;
        let Assignee { node, registration } = assignee;
        if self.takes_work(&node, registration)
            && self.selection.has_room(&node)
            && self.calls.room(assignee).is_some()
            && self.queue.front(slot).is_some_and(is_well)
        {
            self.send_batch(now, slot, assignee, out);
        }
    }

    /// Sends the next batch of a slot to a worker that is registered. The lease is held here.
    fn send_batch(&mut self, now: Mono, slot: Slot, assignee: Assignee, out: &mut Vec<Effect>) {
        let Some(room) = self.calls.room(assignee) else { return };
        let Some(token) = self.permissions.raise(now, slot) else { return };
        let mut entries = std::mem::take(&mut self.scratch);
        let tasks_max = self.config.batch_tasks_max.min(room.tasks);
        let bytes_max = self.config.batch_bytes_max.min(room.bytes);
        self.queue.take_batch(slot, tasks_max, bytes_max, &mut entries);
        let batch = Batch::new(&mut entries, token, assignee);
        self.scratch = entries;
        self.assignments.put(slot, batch);
        self.attempt(slot, out);
    }

    fn pick(&self) -> Option<Assignee> {
        let worker = |node: &NodeId| {
            let registration = self.registrations.get(node)?.registration;
            self.takes_work(node, registration).then_some(Assignee { node: *node, registration })
        };
        let has_room = |node: &NodeId| worker(node).is_some_and(|w| self.calls.room(w).is_some());
        worker(&self.selection.pick(has_room)?)
    }

    /// Picks a worker for a slot, which else waits for its turn.
    fn pick_for(&mut self, slot: Slot) -> Option<Assignee> {
        let picked = self.pick();
        if picked.is_none() {
            self.turns.push(slot);
        }
        picked
    }

    /// Retries or reassigns a batch that has no attempt in flight.
    fn resume(&mut self, now: Mono, slot: Slot, out: &mut Vec<Effect>) {
        let Some(batch) = self.assignments.waiting(slot) else { return };
        let (assignee, followed) = (batch.assignee, batch.followed);
        let Assignee { node, registration } = assignee;
        let is_here = self.takes_work(&node, registration);
        match batch.retry_at {
            _ if self.hands_over() => self.put_back(slot, false),
            Some(at) if at > now => self.wake(at, slot),
            Some(_) if is_here && !followed => self.attempt(slot, out),
            _ if !self.permissions.usable(now, slot) => self.put_back(slot, false),
            Some(_) if is_here => self.raise(now, slot, assignee, out),
            _ => {
                let Some(assignee) = self.pick_for(slot) else { return };
                out.push(Effect::Probe("a batch was given to another worker"));
                self.raise(now, slot, assignee, out);
            }
        }
    }

    /// Tries a slot's only batch under a higher token: at another worker, or because a later batch
    /// may have been written under one that is higher than its own.
    fn raise(&mut self, now: Mono, slot: Slot, assignee: Assignee, out: &mut Vec<Effect>) {
        let Some(token) = self.permissions.raise(now, slot) else { return };
        self.assignments.reassign(slot, token, assignee);
        out.push(Effect::FaultPoint(FaultPoint::TokenRaised));
        self.attempt(slot, out);
    }

    /// Puts all batches of a slot back at the head of its queue.
    pub(super) fn put_back(&mut self, slot: Slot, alone: bool) {
        self.put_back_from(slot, 0, alone);
    }

    /// Puts the batches of a slot from this one on back at the head of its queue, in their order.
    pub(super) fn put_back_from(&mut self, slot: Slot, from: usize, alone: bool) {
        for batch in self.assignments.cut(slot, from).into_iter().rev() {
            let Assignee { node, registration } = batch.assignee;
            if batch.attempt.is_some() && self.is_registered(&node, registration) {
                self.selection.finish(&node);
            }
            self.queue.put_back(slot, batch.into_entries(alone));
        }
    }

    pub(super) fn is_registered(&self, node: &NodeId, registration: Registration) -> bool {
        self.registrations.get(node).is_some_and(|here| here.registration == registration)
    }

    /// Returns whether a registration is here and its worker does not end.
    fn takes_work(&self, node: &NodeId, registration: Registration) -> bool {
        self.is_registered(node, registration) && !self.is_worker_ending(node)
    }

    /// Makes one attempt with the last batch of a slot and its worker, which is registered, and
    /// counts it there until it ends. It leaves with the worker's open call.
    fn attempt(&mut self, slot: Slot, out: &mut Vec<Effect>) {
        let attempt: AttemptId = self.assignments.number();
        let Some(resource) = self.queue.resource(slot).cloned() else { return };
        let Some(batch) = self.assignments.last_mut(slot) else { return };
        let Assignee { node, registration } = batch.assignee;
        let nth = batch.begin(attempt);
        let again = nth > 1;
        self.selection.start(&node);
        let posts: Vec<PostId> = batch.tasks.iter().filter_map(post_id).collect();
        let token = batch.token;
        let after = batch.after;
        let permission = Permission { resource: resource.clone(), token, after, worker: node };
        let tasks = batch.tasks.clone();
        out.push(Effect::Event(Event::Assign {
            worker: node,
            registration,
            resource,
            token,
            after,
            posts,
            attempt: nth,
        }));
        let assign = Assign { registration, permission, tasks };
        self.calls
            .add(Assignee { node, registration }, Attempt { slot, number: attempt, again, assign });
    }
}

const fn post_id(task: &Task) -> Option<PostId> {
    match task {
        Task::Post { post, .. } => Some(post.id),
        _ => None,
    }
}
