//! What workers answer, or do not, and what is made of it.

use thiserror::Error;

use super::{Effect, End, Master};
use crate::{
    message::{AssignReply, News, Task, TaskResult},
    protocol::{
        assignment::{Assignee, AttemptId, Batch, Next},
        task_queue::Slot,
    },
    store::{Appended, DeadLetter},
    time::Mono,
    types::{Post, Resource},
};

/// A call had no answer. What was asked may have been done, or may be done later.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CallFailed {
    /// Not in time.
    #[error("no answer in time")]
    TimedOut,
    /// The link is gone.
    #[error("the link is gone")]
    Gone,
}

impl Master {
    /// An attempt ended.
    pub fn on_attempt(
        &mut self,
        now: Mono,
        slot: Slot,
        attempt: AttemptId,
        answer: Result<AssignReply, CallFailed>,
        out: &mut Vec<Effect>,
    ) {
        if !self.assignments.on_ended(slot, attempt) {
            out.push(Effect::Probe("a worker answered too late"));
            return;
        }
        let Some(batch) = self.assignments.batch(slot) else { return };
        let Assignee { node, registration } = batch.assignee;
        let (tasks, token) = (batch.tasks.len(), batch.token);
        if self.roster.get(&node).is_some_and(|r| r.registration == registration) {
            self.selection.finish(&node);
        }
        match answer {
            Ok(AssignReply::Done(results)) if results.len() == tasks => {
                self.assignments.on_store_here(slot);
                if let Some(batch) = self.assignments.take(slot) {
                    self.settle(slot, batch, results, out);
                }
            }
            Ok(AssignReply::Done(_)) => self.fail_attempt(now, slot, false, out),
            Ok(AssignReply::StoreAway { .. }) => {
                out.push(Effect::Probe("a worker found the store away"));
                let again_at = self.assignments.on_store_away(now, slot);
                self.put_back(slot, false);
                self.wake(again_at, slot);
            }
            Ok(AssignReply::Fenced) => {
                out.push(Effect::Probe("the store refused an old token"));
                if self.permissions.held(now, slot).is_some_and(|h| h.token.lease == token.lease) {
                    self.permissions.drop_hold(slot, now);
                }
                self.put_back(slot, false);
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
        if self.permissions.held(now, slot).is_some_and(|held| held.wanted)
            && self.assignments.batch(slot).is_none_or(|batch| batch.attempt.is_none())
        {
            self.put_back(slot, false);
            self.release(slot, now + self.config.forward_retry, out);
        }
        self.pump(now, slot, out);
    }

    fn fail_attempt(&mut self, now: Mono, slot: Slot, gone: bool, out: &mut Vec<Effect>) {
        let Some(Assignee { node, registration }) =
            self.assignments.batch(slot).map(|batch| batch.assignee)
        else {
            return;
        };
        let Some(next) = self.assignments.on_failed(now, slot, gone) else { return };
        if let Next::Retry(at) = next {
            out.push(Effect::Probe("a batch was tried again on the same worker"));
            self.wake(at, slot);
            return;
        }
        if self.roster.get(&node).is_some_and(|r| r.registration == registration) {
            self.fail_worker(now, node, "it did not answer to its tasks", out);
        }
        match next {
            Next::Retry(_) | Next::Reassign => {}
            Next::Split => {
                out.push(Effect::Probe("a batch was split"));
                self.put_back(slot, true);
            }
            Next::GiveUp => self.give_up(slot, "no worker answered to it", out),
        }
    }

    /// The one task of a slot's batch becomes a dead letter.
    fn give_up(&mut self, slot: Slot, why: &str, out: &mut Vec<Effect>) {
        let Some(batch) = self.assignments.take(slot) else { return };
        let Some(resource) = self.queue.resource(slot).cloned() else { return };
        self.queue.end(slot, batch.tasks.len());
        for (ticket, task) in batch.tickets.iter().zip(batch.tasks.iter()) {
            let post = match task {
                Task::Post { post, .. } => Some(post.clone()),
                _ => None,
            };
            let resource = resource.clone();
            let why = why.to_owned();
            out.push(Effect::DeadLetter(DeadLetter { number: 0, resource, post, why, at_ms: 0 }));
            out.push(Effect::Probe("a task became a dead letter"));
            let end = End::DeadLetter;
            out.push(Effect::End { id: ticket.id, origin: ticket.origin, end });
        }
    }

    fn settle(
        &mut self,
        slot: Slot,
        batch: Batch,
        results: Vec<TaskResult>,
        out: &mut Vec<Effect>,
    ) {
        self.queue.end(slot, batch.tasks.len());
        publish(self.queue.resource(slot), &batch, &results, out);
        for (ticket, result) in batch.tickets.iter().zip(results) {
            let end = End::Settled(result);
            out.push(Effect::End { id: ticket.id, origin: ticket.origin, end });
        }
    }
}

/// News of what a batch did: of duplicates too, for their first news may have died with who was
/// to tell it.
fn publish(
    resource: Option<&Resource>,
    batch: &Batch,
    results: &[TaskResult],
    out: &mut Vec<Effect>,
) {
    if let Some(Resource::Board(board)) = resource {
        let mut posts: Vec<Post> = batch
            .tasks
            .iter()
            .zip(results)
            .filter_map(|(task, result)| match (task, result) {
                (
                    Task::Post { post, .. },
                    TaskResult::Posted(
                        Appended::Committed { seq, posted_at_ms }
                        | Appended::Duplicate { seq, posted_at_ms },
                    ),
                ) => Some(Post {
                    id: post.id,
                    board: board.clone(),
                    seq: *seq,
                    author: post.author.clone(),
                    text: post.text.clone(),
                    posted_at_ms: *posted_at_ms,
                }),
                _ => None,
            })
            .collect();
        posts.sort_by_key(|post| post.seq);
        posts.dedup_by_key(|post| post.seq);
        for run in posts.chunk_by(|a, b| a.seq.next() == b.seq) {
            let as_of_ms = run.last().map_or(0, |post| post.posted_at_ms);
            let news = News::Posts {
                epoch: batch.token.epoch,
                board: board.clone(),
                posts: run.to_vec(),
                as_of_ms,
            };
            out.push(Effect::Publish { news, spread: true });
        }
    }
    for (task, result) in batch.tasks.iter().zip(results) {
        let news = match (task, result) {
            (Task::CreateBoard { board }, TaskResult::Done) => News::BoardCreated(board.clone()),
            (Task::OpenSession { key, user }, TaskResult::Done) => {
                News::Session(crate::store::SessionRow {
                    key: *key,
                    user: user.clone(),
                    read_marks: Vec::new(),
                })
            }
            (Task::RedeemTicket { .. }, TaskResult::Session(row)) => News::Session(row.clone()),
            (Task::CloseSession { key }, TaskResult::Done) => News::SessionClosed(*key),
            (Task::SetReadMark { key, board, seq }, TaskResult::Done) => {
                News::ReadMark { key: *key, board: board.clone(), seq: *seq }
            }
            _ => continue,
        };
        out.push(Effect::Publish { news, spread: true });
    }
}
