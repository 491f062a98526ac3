//! Questions of the front end.

use super::{
    Driver,
    reads::{POSTS_MAX, WantBoards, WantStream},
};
use crate::{
    api::{MasterState, Readiness, StoreReach},
    model::{message::Task, rows::Found},
    node::handle::{Ask, Consistency},
};

impl Driver {
    pub(super) fn on_ask(&mut self, ask: Ask) {
        let now = self.env.now();
        match ask {
            Ask::Submit { session, task, reply } => {
                if let Task::Post { .. } = &task {
                    self.env.sometimes("a person posted");
                    if let Some(key) = session {
                        self.presence.on_post(now, key);
                    }
                }
                self.submit(task, reply);
            }
            Ask::Authenticate { key, reply } => self.authenticate(key, reply),
            Ask::Restore { key, reply } => self.restore(key, reply),
            Ask::Boards { reply } => self.want_boards(WantBoards::Boards(reply)),
            Ask::Posts { board, range, limit, want, reply } => {
                let limit = limit.clamp(1, POSTS_MAX);
                match want {
                    Consistency::Strong => {
                        self.want_boards(WantBoards::Posts { board, range, limit, reply });
                    }
                    Consistency::Weak => self.weak_posts(board, range, limit, reply),
                }
            }
            Ask::FindPost { user, id, reply } => {
                let store = self.store.clone();
                self.env.spawn("find-post", async move {
                    let answer: Result<Found, _> = store.find_post(user, id).await;
                    let _ = reply.send(answer.map_err(|_| crate::node::handle::ReadError::Away));
                });
            }
            Ask::Users { reply } => self.ask_users(Some(reply)),
            Ask::Stream { session, boards, cursor, reply } => {
                let want = WantStream { session, boards, cursor, reply };
                self.want_boards(WantBoards::Stream(want));
            }
            Ask::Alive { key } => self.presence.on_alive(now, &key),
            Ask::Cluster { reply } => {
                let _ = reply.send(self.view());
            }
            Ask::Readiness { reply } => {
                let strong = self.core.is_strong(now);
                let ready = strong || !self.core.registrations().is_empty();
                let _ = reply.send(Readiness {
                    ready,
                    store: if strong { StoreReach::Here } else { StoreReach::Away },
                    state: MasterState::Serving,
                });
            }
            Ask::Masters { reply } => {
                let _ = reply.send(self.masters.clone());
            }
            Ask::ClusterId { reply } => {
                let _ = reply.send(Some(self.cluster));
            }
            // Ends the loop before it comes here.
            Ask::Leave { reply } => drop(reply),
        }
    }
}
