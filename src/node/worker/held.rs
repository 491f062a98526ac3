//! Posts on this worker's disk that wait for the store: taken from a master, and handed in to one.

use super::{
    driver::{Driver, answer},
    input::Input,
};
use crate::{
    comm::Responder,
    model::{
        event::FaultPoint,
        held::{HandInReply, HeldKey, HeldPost, HoldReply},
        message::{Direct, Request, Response},
        time::{Mono, Wall},
    },
};

impl Driver {
    /// Puts a post on the disk, then says so.
    pub(super) fn hold(&self, post: HeldPost, reply: Responder) {
        let key = post.key();
        if !self.held.has_room(&key) {
            return answer(reply, &Response::Hold(HoldReply::Full));
        }
        let (env, database) = (self.parts.env.clone(), self.parts.database.clone());
        self.spawn("hold", async move {
            let held = database.hold(post).await;
            if held == HoldReply::Held {
                env.fault_point(FaultPoint::PendingHeld.name());
            }
            answer(reply, &Response::Hold(held));
            // One that may be on the disk is looked for there when it is handed in.
            matches!(held, HoldReply::Held | HoldReply::Unknown).then_some(Input::Held(key))
        });
    }

    /// Hands in the posts whose turn it is.
    pub(super) fn hand_in(&mut self, now: Mono) {
        while let Some(key) = self.held.next(now) {
            let (env, link) = (self.parts.env.clone(), self.link.clone());
            let database = self.parts.database.clone();
            let limit = self.parts.config.request_timeout;
            self.spawn("hand-in", async move {
                let Some(found) = database.read(move |replica| replica.held_post(key)).await else {
                    return Some(Input::HandedIn { key, answer: None });
                };
                let Some((held, wall_ms)) = found else { return Some(Input::HeldLost(key)) };
                let age = env.wall().since(Wall { ms: wall_ms });
                let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
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
            self.parts.database.let_go(key);
            self.tell_held();
        }
    }

    /// Tells the master how many posts wait here.
    pub(super) fn tell_held(&self) {
        self.send(&Direct::Holds(u32::try_from(self.held.len()).unwrap_or(u32::MAX)));
    }
}
