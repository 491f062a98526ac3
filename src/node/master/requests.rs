//! Commands of the front end.

use super::{
    Driver,
    reads::{POSTS_MAX, WantBoards, WantStream},
};
use crate::{
    api::{MasterState, Readiness, StoreReach},
    model::{message::Task, rows::Found},
    node::handle::{Command, Consistency, ReadError},
};

impl Driver {
    pub(super) fn on_command(&mut self, command: Command) {
        let now = self.env.now();
        match command {
            Command::Submit { session, task, reply } => {
                if let Task::Post { .. } = &task {
                    self.env.sometimes("a person posted");
                    if let Some(key) = session {
                        self.people.presence.on_post(now, key);
                    }
                }
                self.submit(task, reply);
            }
            Command::Authenticate { key, reply } => self.authenticate(key, reply),
            Command::Restore { key, reply } => self.restore(key, reply),
            Command::Boards { reply } => self.want_boards(WantBoards::Boards(reply)),
            Command::Posts { board, range, limit, want, reply } => {
                let limit = limit.clamp(1, POSTS_MAX);
                match want {
                    Consistency::Strong => {
                        self.want_boards(WantBoards::Posts { board, range, limit, reply });
                    }
                    Consistency::Weak => self.weak_posts(board, range, limit, reply),
                }
            }
            Command::FindPost { user, id, reply } => {
                let store = self.store.clone();
                self.env.spawn("find-post", async move {
                    let answer: Result<Found, _> = store.find_post(user, id).await;
                    let _ = reply.send(answer.map_err(|_| ReadError::Away));
                });
            }
            Command::Users { reply } => self.ask_users(Some(reply)),
            Command::Stream { session, boards, cursor, reply } => {
                let want = WantStream { session, boards, cursor, reply };
                self.want_boards(WantBoards::Stream(want));
            }
            Command::Alive { key } => self.people.presence.on_alive(now, &key),
            Command::Cluster { reply } => {
                let _ = reply.send(self.view());
            }
            Command::Readiness { reply } => {
                let strong = self.core.is_strong(now);
                let ready = strong || !self.core.registrations().is_empty();
                let _ = reply.send(Readiness {
                    ready,
                    store: if strong { StoreReach::Here } else { StoreReach::Away },
                    state: MasterState::Serving,
                });
            }
            Command::Masters { reply } => {
                let _ = reply.send(self.poll.masters().to_vec());
            }
            Command::ClusterId { reply } => {
                let _ = reply.send(Some(self.me.cluster));
            }
            // Ends the loop before it comes here.
            Command::Leave { reply } => drop(reply),
        }
    }
}
