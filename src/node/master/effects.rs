//! Effects of the master's decisions, carried out in order, and the results that come back.

use std::{future::Future, iter::Peekable, vec::IntoIter};

use super::{
    Driver, NodeError,
    input::Input,
    waiters::{RETRY_MS, Waiter, Waits},
};
use crate::{
    comm::CallError,
    model::{
        ids::{LinkId, Resource},
        message::{
            AssignReply, Close, Direct, ForwardReply, Request, Response, Task, Update, Updates,
        },
        outcome::Outcome,
        rows::{DeadLetter, Holder, StoreError},
        time::Mono,
    },
    node::begun::begun,
    protocol::{
        calls::{Attempt, Call},
        master::{AttemptEnd, CallFailed, Effect, ForwardId},
        task_queue::{Slot, TaskId},
    },
};

impl Driver {
    /// Carries out what was decided, and what that leads to at once.
    pub(super) fn carry(&mut self) {
        while !self.out.is_empty() {
            let mut effects = std::mem::take(&mut self.out).into_iter().peekable();
            while let Some(effect) = effects.next() {
                self.carry_one(effect, &mut effects);
            }
        }
    }

    /// Carries an effect out, and those of `rest` that are published with it.
    fn carry_one(&mut self, effect: Effect, rest: &mut Peekable<IntoIter<Effect>>) {
        match effect {
            Effect::AcquireLease { slot, resource } => self.acquire_lease(slot, resource),
            Effect::RenewLeases { leases } => self.renew_leases(leases),
            Effect::ReleaseLease { resource, lease } => self.release_lease(resource, lease),
            Effect::Wish { resource, by } => self.wish(resource, by),
            Effect::Assign { link, call } => self.assign(link, call),
            Effect::Forward { link, call, tasks } => self.forward(link, call, tasks),
            Effect::Hold { id, post, holders } => self.hold(id, *post, &holders),
            Effect::End { id, outcome } => self.end(id, outcome),
            Effect::SendBack { id, holder } => self.send_back(id, holder),
            Effect::Publish { update, spread } => self.publish_run(update, spread, rest),
            Effect::Send { link, direct } => self.send(link, &direct),
            Effect::Close { link, close } => self.close(link, close),
            Effect::Keys(step) => self.carry_key(step),
            Effect::DeadLetter(letter) => self.keep_dead_letter(*letter),
            Effect::Event(event) => self.env.event(&event),
            Effect::FaultPoint(point) => self.env.fault_point(point.name()),
            Effect::Probe(probe) => self.env.sometimes(probe),
        }
    }

    /// Publishes an update together with those that follow it.
    fn publish_run(&mut self, first: Update, spread: bool, rest: &mut Peekable<IntoIter<Effect>>) {
        let is_like = |next: &Effect| match next {
            Effect::Publish { spread: same, .. } => *same == spread,
            _ => false,
        };
        let mut updates = Updates::from(first);
        while let Some(Effect::Publish { update, .. }) = rest.next_if(is_like) {
            if let Err(update) = updates.push(update) {
                let full = std::mem::replace(&mut updates, update.into());
                self.publish(full, spread);
            }
        }
        self.publish(updates, spread);
    }

    /// Runs something that takes time and brings its result back.
    pub(super) fn spawn(
        &self,
        name: &'static str,
        work: impl Future<Output = Input> + Send + 'static,
    ) {
        let inputs = self.inputs.clone();
        self.env.spawn(name, async move {
            // Without a driver nobody wants it.
            let _ = inputs.send(work.await).await;
        });
    }

    fn acquire_lease(&self, slot: Slot, resource: Resource) {
        let (store, holder, ttl_ms) = (self.store.clone(), self.me.holder, self.lease_ttl_ms());
        let sent_at = self.env.now();
        self.spawn("lease", async move {
            let answer = store.acquire_lease(resource, holder, ttl_ms).await;
            Input::LeaseAnswered { slot, sent_at, answer }
        });
    }

    fn renew_leases(&self, leases: Vec<(Resource, u64)>) {
        let (store, holder, ttl_ms) = (self.store.clone(), self.me.holder, self.lease_ttl_ms());
        let sent_at = self.env.now();
        self.spawn("renew", async move {
            let answers = store.renew_leases(holder, leases.clone(), ttl_ms).await;
            Input::LeasesRenewed { sent_at, asked: leases, answers }
        });
    }

    fn release_lease(&self, resource: Resource, lease: u64) {
        let (store, holder) = (self.store.clone(), self.me.holder);
        self.env.spawn("release", async move {
            let _ = store.release_lease(resource, holder, lease).await;
        });
    }

    fn wish(&self, resource: Resource, by: Holder) {
        let store = self.store.clone();
        self.env.spawn("wish", async move {
            // Another master's life may be over: that says nothing of this one.
            let _ = store.wish(resource, by).await;
        });
    }

    fn assign(&self, link: LinkId, call: Call) {
        let (link, limit) = (self.links.get(link).cloned(), self.config.attempt_timeout);
        let Call { worker, attempts } = call;
        let mut of = Vec::with_capacity(attempts.len());
        let mut batches = Vec::with_capacity(attempts.len());
        for Attempt { slot, number, assign, .. } in attempts {
            of.push((slot, number));
            batches.push(assign);
        }
        // Batches of a resource leave in the order of their tokens.
        let call = begun(async move {
            let answers = match link {
                None => Err(CallFailed::Closed),
                Some(link) => assigned(of.len(), link.call(Request::Assign(batches), limit).await),
            };
            let end = |((slot, attempt), answer)| AttemptEnd { slot, attempt, answer };
            let ends = of.into_iter().zip(each(answers)).map(end).collect();
            Input::CallEnded { worker, ends }
        });
        self.spawn("assign", call);
    }

    fn forward(&self, link: LinkId, call: ForwardId, tasks: Vec<(TaskId, Task)>) {
        let (link, limit) = (self.links.get(link).cloned(), self.config.request_timeout);
        let (ids, tasks): (Vec<_>, Vec<_>) = tasks.into_iter().unzip();
        // Calls of a resource leave in the order in which their tasks came.
        let call = begun(async move {
            let answers = match link {
                None => Err(CallFailed::Closed),
                Some(link) => forwarded(ids.len(), link.call(Request::Forward(tasks), limit).await),
            };
            let ends = ids.into_iter().zip(each(answers)).collect();
            Input::ForwardEnded { call, ends }
        });
        self.spawn("forward", call);
    }

    fn end(&mut self, id: TaskId, outcome: Outcome) {
        match self.waiters.remove(id) {
            Some(Waits::One(Waiter::Marks(mark))) => self.end_mark(mark, outcome),
            Some(Waits::One(Waiter::Holder { user, id, reply })) => {
                self.end_handed_in((user, id), reply, outcome);
            }
            Some(waits) => self.waiters.answer(waits, outcome),
            None => {}
        }
    }

    fn send_back(&mut self, id: TaskId, holder: Option<Holder>) {
        match self.waiters.remove(id) {
            Some(Waits::Peer(part)) => {
                self.waiters.answer_peer(part, ForwardReply::HeldBy(holder));
            }
            // A person's task is never sent back; should it be, its outcome is not known.
            Some(person) => self.waiters.answer(person, Outcome::Unknown),
            None => {}
        }
    }

    pub(super) fn send(&self, link: LinkId, direct: &Direct) {
        if let Some(link) = self.links.get(link) {
            // Digests and polls make up for what a full link did not take.
            let _ = link.send(direct);
        }
    }

    fn close(&self, link: LinkId, close: Close) {
        if let Some(link) = self.links.get(link) {
            link.close(close);
        }
    }

    fn keep_dead_letter(&mut self, letter: DeadLetter) {
        tracing::warn!(resource = %letter.resource, why = letter.why, "dead letter");
        if let Some(lost) = self.letters.push(letter) {
            tracing::error!(resource = %lost.resource, "too many dead letters wait; the oldest is lost");
        }
    }

    /// Writes the dead letter whose turn it is.
    pub(super) fn write_dead_letter(&mut self, now: Mono) {
        if let Some(letter) = self.letters.due(now) {
            let store = self.store.clone();
            self.spawn("dead-letter", async move {
                Input::LetterWritten(store.put_dead_letter(letter).await)
            });
        }
    }

    fn lease_ttl_ms(&self) -> u64 {
        u64::try_from(self.config.lease_ttl.as_millis()).unwrap_or(u64::MAX)
    }

    /// Queues a person's task: its outcome goes to `waiter`, at the latest after
    /// `request_timeout`.
    pub(super) fn submit(&mut self, task: Task, waiter: Waiter) {
        if self.refuses(&task) {
            return waiter.answer(Outcome::Unavailable { retry_ms: RETRY_MS });
        }
        let now = self.env.now();
        match self.core.on_submit(now, task, &mut self.out) {
            Ok(id) => self.waiters.add(now, id, waiter),
            Err(outcome) => waiter.answer(outcome),
        }
    }

    pub(super) fn on_input(&mut self, input: Input) -> Result<(), NodeError> {
        let now = self.env.now();
        match input {
            Input::LeaseAnswered { slot, sent_at, answer } => {
                ends_if_superseded(&answer)?;
                self.core.on_lease(now, slot, sent_at, answer.ok(), &mut self.out);
            }
            Input::LeasesRenewed { sent_at, asked, answers } => {
                ends_if_superseded(&answers)?;
                if let Ok(answers) = answers {
                    self.core.on_renewed(now, sent_at, &asked, &answers, &mut self.out);
                }
            }
            Input::CallEnded { worker, ends } => {
                self.core.on_call(now, worker, ends, &mut self.out);
            }
            Input::ForwardEnded { call, ends } => {
                self.core.on_forward(now, call, ends, &mut self.out);
            }
            Input::HoldEnded { id, end } => self.core.on_hold_end(id, end, &mut self.out),
            Input::OldHeldEnded { author, reply, state } => self.end_old_held(author, reply, state),
            Input::LetterWritten(answer) => {
                if let Some(lost) = self.letters.on_written(now, &answer) {
                    tracing::error!(resource = %lost.resource, ?answer, "a dead letter was not kept");
                }
            }
            Input::MasterTouched(answer) => {
                ends_if_superseded(&answer)?;
                if matches!(answer, Err(StoreError::Unknown { .. })) {
                    return Err(NodeError::Unlisted);
                }
                self.on_touched(now, &answer);
            }
            Input::SessionsTouched { keys, answer } => self.on_sessions_touched(&keys, answer),
            Input::SessionsUsed { keys, answer } => {
                // What it refused for good it would refuse again, before all others.
                if matches!(answer, Err(StoreError::Away { .. } | StoreError::Busy)) {
                    self.people.presence.on_uses_failed(keys);
                }
            }
            Input::SessionsLeft => self.people.presence.on_left(),
            Input::Denied { node, answer, reply } => self.on_denied(node, answer, reply),
            Input::WorkerAnsweredDrain { link, answer, reply } => {
                self.on_worker_answered_drain(link, answer, reply);
            }
            Input::StorePolled(polled) => self.on_polled(now, *polled),
            Input::ClosingsRead { from, page } => self.on_closings(from, page),
            Input::BoardsRead(answer) => self.on_fresh_boards(answer),
            Input::UsersRead(answer) => self.on_fresh_users(answer),
            Input::SessionLookedUp { key, answer, is_copied } => {
                self.on_session(key, &answer, is_copied);
            }
            Input::SessionRead { key, answer, reply } => self.on_session_read(key, answer, reply),
            Input::SessionRestored { session, reply } => self.on_session_restored(session, reply),
            Input::TailRead { board, answer } => self.on_tail_page(board, answer),
            Input::StreamPage { page, answer } => self.on_stream_page(&page, answer),
            Input::StreamRoom { id, has_room } => self.on_stream_room(id, has_room),
            Input::StreamGone { id } => self.on_stream_gone(id),
            Input::KeyMade { epoch, draw, made } => self.on_key_made(epoch, draw, made),
            Input::LinkAccepted(arrival) => self.on_arrival(*arrival),
            Input::MasterDialed { node, number, arrival } => {
                self.on_dialed(now, node, number, arrival.map(|arrival| *arrival));
            }
        }
        Ok(())
    }
}

fn ends_if_superseded<T>(answer: &Result<T, StoreError>) -> Result<(), NodeError> {
    match answer {
        Err(StoreError::Stale) => Err(NodeError::Superseded),
        _ => Ok(()),
    }
}

const fn call_failed(error: &CallError) -> CallFailed {
    match error {
        CallError::Full | CallError::TooLong(_) => CallFailed::Full,
        CallError::Closed => CallFailed::Closed,
        CallError::TimedOut => CallFailed::TimedOut,
        CallError::Lost => CallFailed::Gone,
    }
}

/// Returns a worker's replies to a call with so many batches.
fn assigned(
    batches: usize,
    answer: Result<Response, CallError>,
) -> Result<Vec<AssignReply>, CallFailed> {
    match answer {
        Ok(Response::Assign(replies)) if replies.len() == batches => Ok(replies),
        Ok(_) => Err(CallFailed::TimedOut),
        // The batch's fault: it fits into no worker's frame.
        Err(CallError::TooLong(error)) if batches == 1 => {
            Ok(vec![AssignReply::Broken { why: error.to_string() }])
        }
        Err(error) => Err(call_failed(&error)),
    }
}

/// Returns another master's replies to a call with so many tasks.
fn forwarded(
    tasks: usize,
    answer: Result<Response, CallError>,
) -> Result<Vec<ForwardReply>, CallFailed> {
    match answer {
        Ok(Response::Forward(replies)) if replies.len() == tasks => Ok(replies),
        Ok(Response::Forward(_)) => Err(CallFailed::TimedOut),
        // It did nothing and may come to do so later.
        Ok(_) => Ok(vec![ForwardReply::Ended(Outcome::Unavailable { retry_ms: 0 }); tasks]),
        Err(error) => Err(call_failed(&error)),
    }
}

/// Returns the answer to each part of a call, or the reason why none of them has one, again and
/// again.
fn each<T>(answers: Result<Vec<T>, CallFailed>) -> impl Iterator<Item = Result<T, CallFailed>> {
    let (answers, failed) = match answers {
        Ok(answers) => (answers, None),
        Err(failed) => (Vec::new(), Some(failed)),
    };
    let reasons = std::iter::from_fn(move || failed.map(Err));
    answers.into_iter().map(Ok).chain(reasons)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_that_was_not_sent_is_not_one_without_an_answer() {
        for error in [CallError::Full, CallError::Closed, CallError::TimedOut, CallError::Lost] {
            assert_eq!(call_failed(&error).nothing_was_done(), error.nothing_was_done());
        }
    }
}
