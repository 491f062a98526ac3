//! Posts on this worker's disk that wait for the store: taken from a master, and handed in to one.

use std::{
    future::Future,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::future::join_all;

use super::{
    database::Database,
    driver::{Driver, answer},
    ending::HAND_OVER_MAX,
    input::Input,
};
use crate::{
    comm::{Link, Responder},
    model::{
        bounds::{HAND_INS_MAX, HAND_OVER_VERSION},
        event::FaultPoint,
        held::{HandInReply, HeldKey, HeldPost, HoldReply},
        message::{Direct, Request, Response},
        time::{Mono, Wall},
    },
};

/// Number of other workers that hold a post that was handed over.
const COPIES: u32 = 2;

impl Driver {
    /// Puts a post that was held for so long elsewhere on the disk, then says so.
    pub(super) fn hold(&mut self, post: HeldPost, age_ms: u64, reply: Responder) {
        let key = post.key();
        // One that ends would keep it for its next life.
        if self.is_ending() || !self.held.has_room(&key) {
            return answer(reply, &Response::Hold(HoldReply::Full));
        }
        self.held_tasks += 1;
        let (env, database) = (self.parts.env.clone(), self.parts.database.clone());
        self.spawn("hold", async move {
            let since = Wall { ms: env.wall().ms.saturating_sub(age_ms) };
            let held = database.hold(post, since).await;
            if held == HoldReply::Held {
                env.fault_point(FaultPoint::PendingHeld.name());
            }
            Some(Input::Held { key, age_ms, answer: held, reply })
        });
    }

    /// Tells the master what came of a post to hold that was of this age, in milliseconds, and the number of
    /// posts first: it may look for the post at once.
    pub(super) fn on_held(
        &mut self,
        now: Mono,
        (key, age_ms): (HeldKey, u64),
        held: HoldReply,
        reply: Responder,
    ) {
        self.held_tasks = self.held_tasks.saturating_sub(1);
        // One that may be on the disk is looked for there when it is handed in.
        if matches!(held, HoldReply::Held | HoldReply::Unknown) {
            self.held.on_held(now, key, Duration::from_millis(age_ms));
            self.tell_held();
        }
        // Too late to be handed over: until the next life it is of no use to anybody.
        let is_late = self.hands_over && held == HoldReply::Held;
        answer(reply, &Response::Hold(if is_late { HoldReply::Unknown } else { held }));
    }

    /// Reads which posts the node database holds, after each time that it was opened, and has it compared
    /// with the store: what was read of the store before was compared with nothing.
    pub(super) fn on_opening(&mut self) {
        let openings = self.parts.database.openings();
        if openings != self.held_of_opening {
            self.held_of_opening = openings;
            self.parts.poll_now.notify_one();
            self.held_tasks += 1;
            let database = self.parts.database.clone();
            self.spawn("held-posts", async move {
                Some(Input::HeldFound(database.read(|replica| replica.held()).await))
            });
        }
    }

    pub(super) fn on_held_found(&mut self, now: Mono, found: Option<Vec<(HeldKey, u64)>>) {
        match found {
            Some(posts) => {
                // Of an earlier life no other clock tells.
                let wall = self.parts.env.wall();
                for (key, ms) in posts {
                    self.held.on_held(now, key, wall.since(Wall { ms }));
                }
                self.tell_held();
            }
            // It is opened again.
            None => tracing::warn!("posts that wait for the store could not be read"),
        }
        self.held_tasks = self.held_tasks.saturating_sub(1);
    }

    /// Hands in the posts whose turn it is.
    pub(super) fn hand_in(&mut self, now: Mono) {
        while let Some(key) = self.held.next(now) {
            let (database, link) = (self.parts.database.clone(), self.link.clone());
            let limit = self.parts.config.request_timeout;
            let age_ms = millis(self.held.age(now, &key));
            self.spawn("hand-in", async move {
                let Some(found) = database.read(move |replica| replica.held_post(key)).await else {
                    return Some(Input::HandedIn { key, answer: None });
                };
                let Some((held, _)) = found else { return Some(Input::HeldLost(key)) };
                let answer = match link {
                    Some(link) => link.call(Request::HandIn { held, age_ms }, limit).await.ok(),
                    None => None,
                };
                let answer = match answer {
                    Some(Response::HandIn(answer)) => Some(answer),
                    _ => None,
                };
                Some(Input::HandedIn { key, answer })
            });
        }
    }

    pub(super) fn on_handed_in(&mut self, now: Mono, key: HeldKey, answer: Option<HandInReply>) {
        if self.held.on_answer(now, key, answer) {
            let database = self.parts.database.clone();
            self.spawn("let-go", async move {
                database.let_go(key).await;
                None
            });
            self.tell_held();
        }
    }

    /// Has two other workers hold each post that waits here, as far as they do so in time: this one ends.
    /// Posts that fewer hold stay too, and are handed in by its next life.
    pub(super) fn hand_over(&self) -> impl Future<Output = ()> + Send + use<> {
        let (env, database) = (self.parts.env.clone(), self.parts.database.clone());
        let (link, now) = (self.link.clone(), env.now());
        let posts = self.held.keys().map(|key| (key, millis(self.held.age(now, &key))));
        let posts: Vec<_> = posts.collect();
        // Of an earlier life, or still on their way to the disk.
        let may_be_more = self.parts.database.openings() == 0 || self.held_tasks > 0;
        if may_be_more {
            tracing::warn!(
                "held posts may be on this disk that nobody else has: start this worker again"
            );
        }
        async move {
            if posts.is_empty() {
                return;
            }
            let left = AtomicUsize::new(posts.len());
            if let Some(link) = &link {
                let all = async {
                    for some in posts.chunks(HAND_INS_MAX) {
                        let one = |post: &(HeldKey, u64)| hand_over(&database, link, *post, &left);
                        join_all(some.iter().map(one)).await;
                    }
                };
                if env.timeout(HAND_OVER_MAX, all).await.is_ok() {
                    env.sometimes("a worker that ends handed its held posts over");
                }
            }
            let (posts, left) = (posts.len(), left.into_inner());
            if left > 0 {
                tracing::warn!(
                    posts,
                    left,
                    "held posts stay on this disk: start this worker again"
                );
            } else if !may_be_more {
                tracing::info!(posts, "two other workers have each post that was held here");
            }
        }
    }

    /// Tells the master how many posts wait here.
    pub(super) fn tell_held(&self) {
        self.send(&Direct::Holds(u32::try_from(self.held.len()).unwrap_or(u32::MAX)));
    }
}

/// Has two other workers hold a post of this age, in milliseconds, and deletes it here if they do. Lowers
/// `left` if it is here no more.
async fn hand_over(
    database: &Database,
    link: &Link,
    (key, age_ms): (HeldKey, u64),
    left: &AtomicUsize,
) {
    let Some(found) = database.read(move |replica| replica.held_post(key)).await else { return };
    if let Some((held, _)) = found {
        let request = if link.peer().version >= HAND_OVER_VERSION {
            Request::HandOver { held, copy: 0, age_ms }
        } else {
            Request::Hold { held, copy: 0 }
        };
        let answer = link.call(request, HAND_OVER_MAX).await;
        if !matches!(answer, Ok(Response::HandOver { copies: COPIES.. })) {
            return;
        }
        database.let_go(key).await;
    }
    left.fetch_sub(1, Ordering::Relaxed);
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
