//! Posts on the disks of workers while the store is away: who is asked to hold one, and what holders
//! hand in.

use std::{sync::Mutex, sync::PoisonError, time::Duration};

use super::{
    Driver,
    input::Input,
    waiters::{Waiter, handed_in},
};
use crate::{
    comm::{Link, Responder},
    model::{
        bounds::HELD_ANSWERS_MAX,
        held::{HandInReply, HeldPost, HoldReply},
        ids::{LinkId, PostId, UserId},
        message::{Request, Response},
        rows::{Boards, SessionRow},
        stream::Consistency,
    },
    node::handle::{Read, Reply, Restored},
    protocol::{
        master::{HoldEnd, Master},
        task_queue::TaskId,
    },
};

/// Age from which a held post becomes a dead letter.
const HELD_FOR_MAX: Duration = Duration::from_secs(24 * 60 * 60);

impl Driver {
    /// Asks workers to hold a post until two do.
    pub(super) fn hold(&self, id: TaskId, post: HeldPost, holders: &[LinkId]) {
        let links = holders.iter().filter_map(|id| self.links.get(*id).cloned()).collect();
        let limit = self.config.attempt_timeout;
        self.spawn("hold", async move {
            Input::HoldEnded { id, end: hold_twice(links, post, limit).await }
        });
    }

    /// Passes another master's post on to a worker that holds it.
    pub(super) fn pass_hold(&self, post: HeldPost, reply: Responder) {
        let workers: Vec<_> = self.links.workers().cloned().collect();
        let turn = usize::from(post.post.id.0[0]) % workers.len().max(1);
        let Some(link) = workers.get(turn).cloned() else {
            let _ = reply.send(&Response::Hold(HoldReply::Failed));
            return;
        };
        let limit = self.config.store_timeout;
        self.env.spawn("pass-hold", async move {
            let _ = reply.send(&Response::Hold(ask_to_hold(&link, post, limit).await));
        });
    }

    /// Queues a post that a worker hands in.
    pub(super) fn on_hand_in(&mut self, held: HeldPost, age_ms: u64, reply: Responder) {
        if Duration::from_millis(age_ms) > HELD_FOR_MAX {
            Master::on_held_too_long(held, &mut self.out);
            return handed_in(reply, HandInReply::Ended);
        }
        // A board that is not known yet is heard of soon, if there is one.
        if self.tails.last(&held.board).is_none() {
            return handed_in(reply, HandInReply::Later);
        }
        let now = self.env.now();
        match self.core.on_handed_in(now, held, &mut self.out) {
            Ok(id) => self.waiters.add(now, id, Waiter::Holder(reply)),
            Err(outcome) => Waiter::Holder(reply).answer(outcome),
        }
    }

    /// Answers another master with the ids of a person's posts on the disks of this one's workers.
    pub(super) fn pass_held_of(&self, user: UserId, reply: Responder) {
        let (holders, limit) = (self.own_holders(), self.config.store_timeout);
        self.env.spawn("pass-held-of", async move {
            let _ = reply.send(&Response::HeldOf(ids_at(holders, user, limit).await));
        });
    }

    fn own_holders(&self) -> Vec<Link> {
        self.links.holders().take(HELD_ANSWERS_MAX).cloned().collect()
    }

    /// Returns the ids of a person's posts that wait on workers' disks, one for each copy. Other
    /// masters are asked only while the store is away.
    pub(super) fn held_of(
        &self,
        user: UserId,
        state: Consistency,
    ) -> impl Future<Output = Vec<PostId>> + Send + use<> {
        let mut links = self.own_holders();
        if state == Consistency::Weak {
            links.extend(self.core.peers().filter_map(|(_, link)| self.links.get(link).cloned()));
            links.truncate(HELD_ANSWERS_MAX);
        }
        ids_at(links, user, self.config.store_timeout)
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

/// Asks one worker after another, two at a time, until two hold the post.
async fn hold_twice(links: Vec<Link>, post: HeldPost, limit: Duration) -> HoldEnd {
    let links = Mutex::new(links.into_iter());
    let lane = || async {
        let mut end = HoldEnd::default();
        loop {
            let next = links.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(link) = next else { return end };
            match ask_to_hold(&link, post.clone(), limit).await {
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

async fn ask_to_hold(link: &Link, post: HeldPost, limit: Duration) -> HoldReply {
    match link.call(Request::Hold(post), limit).await {
        Ok(Response::Hold(answer)) => answer,
        Ok(_) => HoldReply::Failed,
        Err(error) if error.nothing_was_done() => HoldReply::Failed,
        Err(_) => HoldReply::Unknown,
    }
}

/// Asks all these nodes at a time for a person's posts.
async fn ids_at(links: Vec<Link>, user: UserId, limit: Duration) -> Vec<PostId> {
    let asked = links.iter().map(|link| link.call(Request::HeldOf(user), limit));
    let told = futures_util::future::join_all(asked).await;
    let ids = told.into_iter().filter_map(|told| match told {
        Ok(Response::HeldOf(ids)) => Some(ids),
        _ => None,
    });
    ids.flatten().collect()
}
