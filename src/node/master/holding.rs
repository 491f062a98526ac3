//! Posts on the disks of workers while the store is away: who is asked to hold one, and what holders
//! hand in.

use std::{sync::Mutex, sync::PoisonError, time::Duration};

use super::{
    Driver,
    held_ids::ids_at,
    input::Input,
    reads::WantBoards,
    waiters::{Waiter, handed_in},
};
use crate::{
    comm::{Link, Responder},
    model::{
        bounds::{HAND_OVER_VERSION, HOLD_TRIES_MAX},
        held::{HandInReply, HeldPost, HoldReply},
        ids::{LinkId, PostId, Resource, UserId},
        message::{Request, Response, Task, Update},
        outcome::{Outcome, TaskResult},
        rows::{Boards, DeadLetter, Found, SessionRow},
        stream::{Consistency, HeldState},
    },
    node::handle::{Read, Reply, Restored},
    protocol::{
        master::{HoldEnd, held_by_turn},
        task_queue::TaskId,
    },
    store::Store,
};

/// Returns the state of a held post after this outcome; `None` while it goes on waiting.
const fn state_of(outcome: &Outcome) -> Option<HeldState> {
    match outcome {
        Outcome::Settled(TaskResult::Committed { .. } | TaskResult::Duplicate { .. }) => {
            Some(HeldState::Committed)
        }
        Outcome::Settled(TaskResult::Cancelled) => Some(HeldState::Cancelled),
        Outcome::Settled(_) => Some(HeldState::Refused),
        Outcome::DeadLetter => Some(HeldState::DeadLetter),
        _ => None,
    }
}

/// Age from which a held post becomes a dead letter.
const HELD_FOR_MAX: Duration = Duration::from_secs(24 * 60 * 60);

impl Driver {
    /// Asks workers to hold a post until two do.
    pub(super) fn hold(&self, id: TaskId, post: HeldPost, holders: &[(LinkId, u8)]) {
        let (links, limit) = (self.open_links(holders), self.config.attempt_timeout);
        self.spawn("hold", async move {
            Input::HoldEnded { id, end: hold_twice(links, post, 0, limit).await }
        });
    }

    /// Has two workers hold a post of one that ends, and answers with how many do.
    pub(super) fn hand_over(
        &mut self,
        from: LinkId,
        post: HeldPost,
        age_ms: u64,
        answer: fn(u32) -> Response,
        reply: Responder,
    ) {
        self.core.on_worker_ends(from);
        let links = self.open_links(&self.core.holders(&post.post.id));
        // Who ends does not wait for long, and the next one is asked too.
        let limit = self.config.store_timeout / 2;
        let env = self.env.clone();
        self.env.spawn("hand-over", async move {
            let copies = hold_twice(links, post, age_ms, limit).await.copies;
            if copies > 1 {
                env.sometimes("a post of a worker that ends is held by two others");
            }
            let _ = reply.send(&answer(copies));
        });
    }

    /// Returns the links to these holders that are open, each with the number of its copy.
    fn open_links(&self, holders: &[(LinkId, u8)]) -> Vec<(Link, u8)> {
        let link = |(id, copy): &(LinkId, u8)| Some((self.links.get(*id)?.clone(), *copy));
        holders.iter().filter_map(link).collect()
    }

    /// Passes a post of another master on to a worker, and to the next but one if that has no room.
    pub(super) fn pass_hold(&self, post: HeldPost, copy: u8, age_ms: u64, reply: Responder) {
        let workers = self.links.workers().filter(|link| !self.core.is_ending(link.id()));
        let workers: Vec<_> = workers.cloned().collect();
        let first = held_by_turn(&post.post.id);
        let of_copy: Vec<_> = (usize::from(copy)..workers.len())
            .step_by(2)
            .take(HOLD_TRIES_MAX)
            .map(|nth| workers[(first + nth) % workers.len()].clone())
            .collect();
        let limit = self.config.store_timeout;
        self.env.spawn("pass-hold", async move {
            let mut said = HoldReply::Failed;
            for link in of_copy {
                said = ask_to_hold(&link, post.clone(), 0, age_ms, limit).await;
                if !matches!(said, HoldReply::Full | HoldReply::Failed) {
                    break;
                }
            }
            let _ = reply.send(&Response::Hold(said));
        });
    }

    /// Queues a post that a worker hands in.
    pub(super) fn on_hand_in(&mut self, held: HeldPost, age_ms: u64, reply: Responder) {
        if Duration::from_millis(age_ms) > HELD_FOR_MAX {
            let (store, author) = (self.store.clone(), (held.post.author.id, held.post.id));
            self.spawn("held-too-long", async move {
                Input::OldHeldEnded { author, state: end_of_old(&store, held).await, reply }
            });
            return;
        }
        let waiter = Waiter::Holder { user: held.post.author.id, id: held.post.id, reply };
        if self.tails.last(&held.board).is_some() {
            return self.queue_handed_in(held, waiter);
        }
        // The store says whether it is new, or is gone for good: a backup that was restored may lack it.
        let HeldPost { board, post } = held;
        let task = Task::Post { board: board.clone(), post };
        self.want_boards(WantBoards::Submit { board, task, waiter });
    }

    /// Queues a post that a worker handed in and whose board there is; `waiter` hears how it ends.
    pub(super) fn queue_handed_in(&mut self, held: HeldPost, waiter: Waiter) {
        let now = self.env.now();
        match self.core.on_handed_in(now, held, &mut self.out) {
            Ok(id) => self.waiters.add(now, id, waiter),
            Err(outcome) => waiter.answer(outcome),
        }
    }

    /// Answers a worker that handed a post in, and tells the author's streams how it ended.
    pub(super) fn end_handed_in(
        &mut self,
        (user, id): (UserId, PostId),
        reply: Responder,
        outcome: Outcome,
    ) {
        if let Some(state) = state_of(&outcome) {
            let update = Update::Pending { user, id, state };
            self.publish(update.into(), true);
        }
        Waiter::Holder { user, id, reply }.answer(outcome);
    }

    /// Answers a worker that handed in a post of more than [`HELD_FOR_MAX`], and tells the author's streams
    /// how it ended; `None` when the store was not there to end it.
    pub(super) fn end_old_held(
        &mut self,
        (user, id): (UserId, PostId),
        reply: Responder,
        state: Option<HeldState>,
    ) {
        let Some(state) = state else { return handed_in(reply, HandInReply::Later) };
        self.publish(Update::Pending { user, id, state }.into(), true);
        handed_in(reply, HandInReply::Ended);
    }

    /// Answers another master with the ids of a person's posts on the disks of this one's workers.
    pub(super) fn pass_held_of(&self, user: UserId, reply: Responder) {
        let holders: Vec<_> = self.links.holders().collect();
        // One that is silent must not keep what the others said from who asks. That one may have little
        // time left: it waited for a place over the link, or asked others before.
        let (env, limit) = (self.env.clone(), self.limit_for_a_peer(&reply));
        self.env.spawn("pass-held-of", async move {
            let _ = reply.send(&Response::HeldOf(ids_at(&env, holders, user, limit).await));
        });
    }

    /// Returns the ids of a person's posts that wait on workers' disks, one for each copy. Other
    /// masters are asked only while the store is away.
    pub(super) fn held_of(
        &self,
        user: UserId,
        state: Consistency,
    ) -> impl Future<Output = Vec<PostId>> + Send + use<> {
        let mut nodes: Vec<_> = self.links.holders().collect();
        if state == Consistency::Weak {
            nodes.extend(self.core.peers().filter_map(|(_, link)| self.links.asked(link)));
        }
        let (env, limit) = (self.env.clone(), self.config.store_timeout);
        async move { ids_at(&env, nodes, user, limit).await }
    }

    /// Answers with a session, the boards, and the person's posts that wait.
    pub(super) fn answer_restored(
        &self,
        session: SessionRow,
        boards: Read<Boards>,
        reply: Reply<Read<Restored>>,
    ) {
        let pending = self.held_of(session.user.id, boards.consistency);
        self.env.spawn("held-of", async move {
            let mut pending = pending.await;
            pending.sort_unstable();
            pending.dedup();
            let _ = reply.send(Ok(boards.restored(session, pending)));
        });
    }
}

/// Ends a post that was held for too long: it becomes a dead letter, unless the store knows its fate.
/// Returns how it ended; `None` if the store did not answer.
async fn end_of_old(store: &Store, held: HeldPost) -> Option<HeldState> {
    let HeldPost { board, post } = held;
    match store.find_post(post.author.id, post.id).await.ok()? {
        Found::Committed(_) => return Some(HeldState::Committed),
        Found::Cancelled => return Some(HeldState::Cancelled),
        Found::Nothing => {}
    }
    let resource = Resource::Board(board);
    let why = "it waited for the store for too long".to_owned();
    let letter = DeadLetter { number: 0, resource, post: Some(post), why, at_ms: 0 };
    store.put_dead_letter(letter).await.ok()?;
    Some(HeldState::DeadLetter)
}

/// Asks one worker after another, two at a time, until two hold the post.
async fn hold_twice(
    links: Vec<(Link, u8)>,
    post: HeldPost,
    age_ms: u64,
    limit: Duration,
) -> HoldEnd {
    let links = Mutex::new(links.into_iter());
    let lane = || async {
        let mut end = HoldEnd::default();
        loop {
            let next = links.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((link, copy)) = next else { return end };
            match ask_to_hold(&link, post.clone(), copy, age_ms, limit).await {
                HoldReply::Held => {
                    end.copies = 1;
                    return end;
                }
                HoldReply::Conflict => end.conflict = true,
                HoldReply::Unknown => end.in_doubt = true,
                HoldReply::Full | HoldReply::Failed => {}
            }
        }
    };
    let (one, two) = tokio::join!(lane(), lane());
    HoldEnd {
        copies: one.copies + two.copies,
        conflict: one.conflict || two.conflict,
        in_doubt: one.in_doubt || two.in_doubt,
    }
}

/// Asks a node to hold a post that was held for so long. One of the release before does not hear of the
/// age: there it begins again.
async fn ask_to_hold(
    link: &Link,
    held: HeldPost,
    copy: u8,
    age_ms: u64,
    limit: Duration,
) -> HoldReply {
    let request = if age_ms > 0 && link.peer().version >= HAND_OVER_VERSION {
        Request::HandOver { held, copy, age_ms }
    } else {
        Request::Hold { held, copy }
    };
    match link.call(request, limit).await {
        Ok(Response::Hold(answer)) => answer,
        Ok(_) => HoldReply::Failed,
        Err(error) if error.nothing_was_done() => HoldReply::Failed,
        Err(_) => HoldReply::Unknown,
    }
}
