//! Attempts: workers' answers to batches, and what follows when there is none.

use std::sync::Arc;

use thiserror::Error;

use super::{Effect, Master};
use crate::{
    model::{
        ids::{BoardName, Post, Resource, StoreEpoch},
        message::{AssignReply, Task, Update},
        outcome::{Outcome, TaskResult},
        rows::{DeadLetter, NewPost, SessionRow},
        time::Mono,
    },
    protocol::{
        assignment::{AttemptId, Batch},
        task_queue::Slot,
        tries::{Assignee, Next},
    },
};

/// End of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptEnd {
    /// Slot of its batch.
    pub slot: Slot,
    /// Number of the attempt.
    pub attempt: AttemptId,
    /// Answer of the worker, or why there is none.
    pub answer: Result<AssignReply, CallFailed>,
}

/// Reason why a call had no answer.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CallFailed {
    /// Not in time.
    #[error("no answer in time")]
    TimedOut,
    /// The link ended meanwhile.
    #[error("the link is gone")]
    Gone,
    /// The link had ended before; nothing was sent.
    #[error("the link is closed")]
    Closed,
    /// The link has no room; nothing was sent.
    #[error("the link is full")]
    Full,
}

impl CallFailed {
    /// Returns whether the peer cannot have begun the work.
    #[must_use]
    pub const fn nothing_was_done(self) -> bool {
        matches!(self, Self::Closed | Self::Full)
    }
}

impl Master {
    /// Handles the end of a call to a worker: settles, retries, reassigns or splits the batch of each
    /// attempt that it carried.
    pub fn on_call(
        &mut self,
        now: Mono,
        worker: Assignee,
        ends: impl IntoIterator<Item = AttemptEnd>,
        out: &mut Vec<Effect>,
    ) {
        self.calls.on_ended(worker);
        let mut settled = Vec::new();
        for AttemptEnd { slot, attempt, answer } in ends {
            let written = self.on_attempt(now, slot, attempt, answer, out);
            settled.extend(written.map(|(batch, results)| (slot, batch, results)));
        }
        // The next batches go before these are published: the store waits for nobody's page.
        self.pump_marked(now, out);
        let mut ends = Vec::new();
        for (slot, batch, results) in settled {
            // What a store had that was replaced is no news of the one that is there now.
            let is_news = !self.permissions.is_outdated(batch.token.epoch);
            settle(self.queue.resource(slot), batch, results, is_news, out, &mut ends);
        }
        out.append(&mut ends);
    }

    /// Handles the end of one attempt. Returns its batch with the results if it was written.
    fn on_attempt(
        &mut self,
        now: Mono,
        slot: Slot,
        attempt: AttemptId,
        answer: Result<AssignReply, CallFailed>,
        out: &mut Vec<Effect>,
    ) -> Option<(Batch, Vec<TaskResult>)> {
        let nothing_was_done = match &answer {
            Ok(
                AssignReply::Busy
                | AssignReply::Fenced
                | AssignReply::NotNext
                | AssignReply::StaleRegistration,
            ) => true,
            Ok(_) => false,
            Err(failed) => failed.nothing_was_done(),
        };
        let at = self.assignments.on_ended(slot, attempt, nothing_was_done)?;
        let batch = self.assignments.get(slot, at)?;
        let Assignee { node, registration } = batch.assignee;
        let tasks = batch.tasks.len();
        let here = self.registrations.get(&node).filter(|here| here.registration == registration);
        if let Some(link) = here.map(|here| here.link) {
            self.selection.finish(&node);
            if answer == Err(CallFailed::Gone) {
                // That its link is over is on the way.
                self.on_worker_ends(link);
            }
        }
        let mut settled = None;
        match answer {
            Ok(AssignReply::Done(results)) if results.len() == tasks => {
                self.assignments.on_written(slot);
                self.selection.on_written(&node);
                settled = self.assignments.take(slot, at).map(|batch| (batch, results));
                self.queue.end(slot, tasks);
            }
            _ if at > 0 => {
                // The one before it may be what failed: that one's answer says.
                out.push(Effect::Probe("a batch failed before the one that it follows ended"));
                self.turn_back(now, slot, at);
            }
            answer => {
                if self.assignments.count(slot) > 1 {
                    out.push(Effect::Probe("later batches fell with the one that they follow"));
                    self.put_back_from(slot, 1, false);
                }
                self.on_unwritten(now, slot, answer, out);
            }
        }
        if self.permissions.held(now, slot).is_some_and(|held| held.wanted)
            && !self.assignments.is_in_flight(slot)
        {
            self.put_back(slot, false);
            self.release(slot, now + self.config.forward_retry, out);
        }
        self.mark(slot);
        settled
    }

    /// Handles the answer to a slot's only batch that was not written, or not for certain.
    fn on_unwritten(
        &mut self,
        now: Mono,
        slot: Slot,
        answer: Result<AssignReply, CallFailed>,
        out: &mut Vec<Effect>,
    ) {
        let Some(batch) = self.assignments.first(slot) else { return };
        let (Assignee { node, .. }, token, tasks) =
            (batch.assignee, batch.token, batch.tasks.len());
        match answer {
            Ok(AssignReply::Done(_)) => self.fail_attempt(now, slot, false, out),
            Ok(AssignReply::StoreAway { .. }) => {
                out.push(Effect::Probe("a worker found the store away"));
                self.turn_back(now, slot, 0);
            }
            // Its worker may be well: that is for its beats to say.
            Ok(AssignReply::Busy | AssignReply::NotNext)
            | Err(CallFailed::Full | CallFailed::Closed) => {
                out.push(Effect::Probe("a batch was not taken"));
                self.turn_back(now, slot, 0);
            }
            Ok(AssignReply::Fenced) => {
                out.push(Effect::Probe("the store refused an old token"));
                let held = self.permissions.held(now, slot);
                let held = held.filter(|held| held.token.lease == token.lease);
                self.put_back(slot, false);
                if let Some(held) = held {
                    let confirmed = self.permissions.confirmed_at(&held);
                    self.permissions.drop_lease(slot, now);
                    if self.selection.on_fenced(now, &node, confirmed) {
                        let why = "it finds tokens too old that the store granted: another store?";
                        self.fail_worker(now, node, why, out);
                    }
                }
            }
            Ok(AssignReply::StaleRegistration) => {
                // Its newer registration, or its end, is on the way.
                self.selection.set_reaches_store(&node, false);
                self.put_back(slot, false);
            }
            Ok(AssignReply::Broken { why }) if tasks == 1 => {
                self.give_up(slot, &format!("the store failed at it: {why}"), out);
            }
            Ok(AssignReply::Broken { .. }) => {
                out.push(Effect::Probe("a batch was split"));
                self.put_back(slot, true);
            }
            Err(failed) => {
                self.fail_attempt(now, slot, failed == CallFailed::Gone, out);
            }
        }
    }

    /// Puts a batch that was not taken back, with those after it, to be given out again after a
    /// wait.
    fn turn_back(&mut self, now: Mono, slot: Slot, from: usize) {
        let again_at = self.assignments.on_turned_back(now, slot);
        self.put_back_from(slot, from, false);
        self.wake(again_at, slot);
    }

    fn fail_attempt(&mut self, now: Mono, slot: Slot, gone: bool, out: &mut Vec<Effect>) {
        let Some(Assignee { node, registration }) =
            self.assignments.first(slot).map(|batch| batch.assignee)
        else {
            return;
        };
        let Some(next) = self.assignments.on_failed(now, slot, gone) else { return };
        if next == Next::Retry {
            out.push(Effect::Probe("a batch was tried again on the same worker"));
            return;
        }
        // The end of a link says itself whether its worker left or failed.
        if !gone && self.is_registered(&node, registration) {
            self.fail_worker(now, node, "it did not answer to its tasks", out);
        }
        match next {
            Next::Retry | Next::Reassign => {}
            Next::Split => {
                out.push(Effect::Probe("a batch was split"));
                self.put_back(slot, true);
            }
            Next::GiveUp => self.give_up(slot, "no worker answered to it", out),
        }
    }

    /// Makes the one task of a slot's batch a dead letter.
    fn give_up(&mut self, slot: Slot, why: &str, out: &mut Vec<Effect>) {
        let Some(batch) = self.assignments.take(slot, 0) else { return };
        let Some(resource) = self.queue.resource(slot).cloned() else { return };
        self.queue.end(slot, batch.tasks.len());
        for (head, task) in batch.heads.iter().zip(batch.tasks.iter()) {
            let post = match task {
                Task::Post { post, .. } => Some(post.clone()),
                _ => None,
            };
            let resource = resource.clone();
            let why = why.to_owned();
            let letter = DeadLetter { number: 0, resource, post, why, at_ms: 0 };
            out.push(Effect::DeadLetter(Box::new(letter)));
            out.push(Effect::Probe("a task became a dead letter"));
            out.push(Effect::End { id: head.id, outcome: Outcome::DeadLetter });
        }
    }
}

/// Ends a batch that the store decided: publishes it, of what is no news the closed sessions only. What
/// answers those who wait for it goes to `ends`, for after all that is published.
fn settle(
    resource: Option<&Resource>,
    batch: Batch,
    results: Vec<TaskResult>,
    is_news: bool,
    out: &mut Vec<Effect>,
    ends: &mut Vec<Effect>,
) {
    // The message that carried them is gone by now: nothing is copied.
    let tasks = Arc::unwrap_or_clone(batch.tasks);
    match resource {
        Some(Resource::Board(board)) if is_news => {
            publish_posts(board, batch.token.epoch, tasks, &results, out);
        }
        Some(Resource::Board(_)) => {}
        _ => publish_sessions(&tasks, &results, is_news, out),
    }
    for (head, result) in batch.heads.iter().zip(results) {
        ends.push(Effect::End { id: head.id, outcome: Outcome::Settled(result) });
    }
}

fn publish(update: Update, out: &mut Vec<Effect>) {
    out.push(Effect::Publish { update, spread: true });
}

/// Publishes what a batch did to a board. Duplicates too: the master that wrote them first may
/// have died before it published them.
fn publish_posts(
    board: &BoardName,
    epoch: StoreEpoch,
    tasks: Vec<Task>,
    results: &[TaskResult],
    out: &mut Vec<Effect>,
) {
    let mut posts = Vec::with_capacity(tasks.len());
    for (task, result) in tasks.into_iter().zip(results) {
        match (task, result) {
            (
                Task::Post { board, post },
                TaskResult::Committed { seq, posted_at_ms }
                | TaskResult::Duplicate { seq, posted_at_ms },
            ) => {
                let NewPost { id, author, text } = post;
                let (seq, posted_at_ms) = (*seq, *posted_at_ms);
                posts.push(Post { id, board, seq, author, text, posted_at_ms });
            }
            (Task::CreateBoard { board }, TaskResult::Done) => {
                publish(Update::BoardCreated(board), out);
            }
            _ => {}
        }
    }
    posts.sort_by_key(|post| post.seq);
    posts.dedup_by_key(|post| post.seq);
    let mut publish_run = |posts: Vec<Post>| {
        let Some(last) = posts.last() else { return };
        let as_of_ms = last.posted_at_ms;
        publish(Update::Posts { epoch, board: board.clone(), posts, as_of_ms }, out);
    };
    while let Some(at) = posts.windows(2).position(|pair| pair[0].seq.next() != pair[1].seq) {
        let rest = posts.split_off(at + 1);
        publish_run(std::mem::replace(&mut posts, rest));
    }
    publish_run(posts);
}

/// Publishes what a batch did to sessions; only which of them it closed unless it `is_news`. One that was
/// closed is closed in whatever store comes next.
fn publish_sessions(tasks: &[Task], results: &[TaskResult], is_news: bool, out: &mut Vec<Effect>) {
    for (task, result) in tasks.iter().zip(results) {
        let update = match (task, result) {
            (Task::CloseSession { key }, TaskResult::Done) => Update::SessionClosed(*key),
            _ if !is_news => continue,
            (Task::OpenSession { key, user }, TaskResult::Done) => {
                let read_marks = Vec::new();
                Update::Session(SessionRow { key: *key, user: user.clone(), read_marks })
            }
            (Task::RedeemTicket { .. }, TaskResult::Session(row)) => {
                Update::Session((**row).clone())
            }
            (Task::SetReadMark { key, board, seq }, TaskResult::Done) => {
                Update::ReadMark { key: *key, board: board.clone(), seq: *seq }
            }
            _ => continue,
        };
        publish(update, out);
    }
}
