//! Effects, carried out in order; and what comes back of them.

use std::future::Future;

use super::{Done, Driver, NodeError, Waiter};
use crate::{
    comm::{CallError, Responder},
    model::{
        message::{AssignReply, Direct, ForwardReply, Request, Response, Task, Update},
        outcome::Outcome,
        rows::StoreError,
    },
    protocol::{
        master::{CallFailed, Effect},
        task_queue::TaskId,
    },
};

pub(super) fn respond(reply: Responder, answer: ForwardReply) {
    // Who asked may be gone: its own deadline ends its call.
    let _ = reply.send(&Response::Forward(answer));
}

const fn call_failed(error: &CallError) -> CallFailed {
    match error {
        CallError::Full | CallError::TimedOut => CallFailed::TimedOut,
        CallError::Closed | CallError::Lost | CallError::TooLong(_) => CallFailed::Gone,
    }
}

impl Driver {
    /// Runs something that takes time and brings its result back.
    pub(super) fn spawn(
        &self,
        name: &'static str,
        work: impl Future<Output = Done> + Send + 'static,
    ) {
        let done = self.done.clone();
        self.env.spawn(name, async move {
            // Without a driver nobody wants it.
            let _ = done.send(work.await).await;
        });
    }

    fn spawn_alone(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.env.spawn(name, work);
    }

    /// Carries out what was decided, and what that leads to at once.
    pub(super) fn carry(&mut self) {
        while !self.out.is_empty() {
            for effect in std::mem::take(&mut self.out) {
                self.carry_one(effect);
            }
        }
    }

    fn carry_one(&mut self, effect: Effect) {
        let now = self.env.now();
        match effect {
            Effect::Ask { slot, resource } => {
                let (store, holder, ttl_ms) = (self.store.clone(), self.holder, self.ttl_ms());
                self.spawn("lease", async move {
                    let answer = store.acquire_lease(resource, holder, ttl_ms).await;
                    Done::Lease { slot, sent_at: now, answer }
                });
            }
            Effect::Renew { leases } => {
                let (store, holder, ttl_ms) = (self.store.clone(), self.holder, self.ttl_ms());
                self.spawn("renew", async move {
                    let answers = store.renew_leases(holder, leases.clone(), ttl_ms).await;
                    Done::Renewed { sent_at: now, asked: leases, answers }
                });
            }
            Effect::Release { resource, lease } => {
                let (store, holder) = (self.store.clone(), self.holder);
                self.spawn_alone("release", async move {
                    let _ = store.release_lease(resource, holder, lease).await;
                });
            }
            Effect::Wish { resource } => {
                let (store, holder) = (self.store.clone(), self.holder);
                self.spawn_alone("wish", async move {
                    let _ = store.wish(resource, holder).await;
                });
            }
            Effect::Assign { link, slot, attempt, assign } => {
                let (link, limit) = (self.links.get(&link).cloned(), self.config.attempt_timeout);
                self.spawn("assign", async move {
                    let answer = match link {
                        None => Err(CallFailed::Gone),
                        Some(link) => assigned(link.call(Request::Assign(assign), limit).await),
                    };
                    Done::Attempt { slot, attempt, answer }
                });
            }
            Effect::Forward { link, id, task } => {
                let (link, limit) = (self.links.get(&link).cloned(), self.config.request_timeout);
                self.spawn("forward", async move {
                    let answer = match link {
                        None => Err(CallFailed::Gone),
                        Some(link) => forwarded(link.call(Request::Forward(task), limit).await),
                    };
                    Done::Forward { id, answer }
                });
            }
            Effect::End { id, outcome } => self.end(id, outcome),
            Effect::SendBack { id, holder } => {
                if let Some(Waiter::Peer(reply)) = self.waiters.remove(&id) {
                    respond(reply, ForwardReply::HeldBy(holder));
                }
            }
            Effect::Publish { news, spread } => self.publish(news, spread),
            Effect::Send { link, direct } => {
                if let Some(link) = self.links.get(&link) {
                    // Digests make up for what a full link did not take.
                    let _ = link.send(&direct);
                }
            }
            Effect::Close { link, close } => {
                if let Some(link) = self.links.get(&link) {
                    link.close(close);
                }
            }
            Effect::DeadLetter(letter) => {
                tracing::warn!(resource = %letter.resource, why = letter.why, "dead letter");
                let store = self.store.clone();
                self.spawn_alone("dead-letter", async move {
                    if let Err(error) = store.put_dead_letter(*letter).await {
                        tracing::error!(%error, "a dead letter was not kept");
                    }
                });
            }
            Effect::Event(event) => self.env.event(&event),
            Effect::FaultPoint(point) => self.env.fault_point(point.name()),
            Effect::Probe(probe) => self.env.sometimes(probe),
        }
    }

    fn ttl_ms(&self) -> u64 {
        u64::try_from(self.config.lease_ttl.as_millis()).unwrap_or(u64::MAX)
    }

    fn end(&mut self, id: TaskId, outcome: Outcome) {
        match self.waiters.remove(&id) {
            Some(Waiter::Person(reply)) => {
                let _ = reply.send(outcome);
            }
            Some(Waiter::Peer(reply)) => respond(reply, ForwardReply::Ended(outcome)),
            None => {}
        }
    }

    /// A task of a person's: its outcome goes to `reply`, at the latest after `request_timeout`.
    pub(super) fn submit(&mut self, task: Task, reply: tokio::sync::oneshot::Sender<Outcome>) {
        let now = self.env.now();
        match self.core.on_submit(now, task, &mut self.out) {
            Ok(id) => {
                self.waiters.insert(id, Waiter::Person(reply));
                self.deadlines.push_back((now + self.config.request_timeout, id));
            }
            Err(outcome) => {
                let _ = reply.send(outcome);
            }
        }
    }

    /// Takes news in here, publishes them to the domain, and to the other masters if `spread`.
    fn publish(&mut self, news: Update, spread: bool) {
        let direct = Direct::Update(news);
        if spread {
            for (_, link) in self.core.peers() {
                if let Some(link) = self.links.get(&link) {
                    // Polls make up for what a full link did not take.
                    let _ = link.send(&direct);
                }
            }
        }
        let Direct::Update(news) = direct else { return };
        self.fan_out(&news);
        self.take_news(news);
    }

    pub(super) fn on_done(&mut self, done: Done) -> Result<(), NodeError> {
        let now = self.env.now();
        match done {
            Done::Lease { slot, sent_at, answer } => {
                self.superseded(&answer)?;
                self.core.on_lease(now, slot, sent_at, answer.ok(), &mut self.out);
            }
            Done::Renewed { sent_at, asked, answers } => {
                self.superseded(&answers)?;
                if let Ok(answers) = answers {
                    self.core.on_renewed(now, sent_at, &asked, &answers, &mut self.out);
                }
            }
            Done::Attempt { slot, attempt, answer } => {
                self.core.on_attempt(now, slot, attempt, answer, &mut self.out);
            }
            Done::Forward { id, answer } => {
                self.core.on_forward(now, id, answer, &mut self.out);
            }
            Done::Touched(answer) => {
                self.superseded(&answer)?;
                self.on_touched(now, answer.is_ok());
            }
            Done::Polled(polled) => self.on_polled(now, *polled),
            Done::Boards(answer) => self.on_fresh_boards(answer),
            Done::Users(answer) => self.on_fresh_users(answer),
            Done::SessionsTouched { keys, answer } => self.on_sessions_touched(&keys, answer),
            Done::Session { key, answer } => self.on_session(key, answer),
            Done::TailPage { board, answer } => self.on_tail_page(board, answer),
            Done::StreamPage { id, board, answer } => self.on_stream_page(id, board, answer),
            Done::StreamRoom { id, has_room } => self.on_stream_room(id, has_room),
            Done::StreamGone { id } => self.on_stream_gone(id),
            Done::Accepted(arrival) => self.on_arrival(*arrival),
            Done::Dialed { node, arrival } => {
                self.dialer.on_dialed(now, node, arrival.is_some());
                if let Some(arrival) = arrival {
                    self.on_arrival(*arrival);
                }
            }
        }
        Ok(())
    }

    fn superseded<T>(&self, answer: &Result<T, StoreError>) -> Result<(), NodeError> {
        match answer {
            Err(StoreError::Stale) => Err(NodeError::Superseded),
            _ => Ok(()),
        }
    }
}

fn assigned(answer: Result<Response, CallError>) -> Result<AssignReply, CallFailed> {
    match answer {
        Ok(Response::Assign(reply)) => Ok(reply),
        Ok(_) => Err(CallFailed::TimedOut),
        Err(error) => Err(call_failed(&error)),
    }
}

fn forwarded(answer: Result<Response, CallError>) -> Result<ForwardReply, CallFailed> {
    match answer {
        Ok(Response::Forward(reply)) => Ok(reply),
        // It did nothing and may come to do so later.
        Ok(_) => Ok(ForwardReply::Ended(Outcome::Unavailable { retry_ms: 0 })),
        Err(CallError::Full) => Ok(ForwardReply::HeldBy(None)),
        Err(error) => Err(call_failed(&error)),
    }
}
