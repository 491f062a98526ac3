//! Reads for the front end: a strong one asks the store after it arrived, a weak one a worker's
//! node database.

use std::{collections::BTreeSet, future::Future};

use tokio::sync::oneshot;

use super::{Driver, input::Input};
use crate::{
    comm::Link,
    model::{
        ids::{BoardName, Cursor, Post, SessionKey},
        message::{Request, Response},
        rows::{Active, ActiveUser, Boards, Page, Range, SessionRow, StoreError},
        shared::Shared,
    },
    node::handle::{Consistency, Read, ReadError, Restored, StreamHandle},
    protocol::reads::{Reads, TooMany},
};

/// The most workers that are asked for a weak read before memory answers.
const REPLICAS_MAX: usize = 3;
/// The most posts in one answer to a person.
pub(super) const POSTS_MAX: u32 = 200;

/// Where the row of a session goes.
pub(super) type SessionReply = oneshot::Sender<Result<SessionRow, ReadError>>;

/// Request that waits for the boards to be read.
pub(super) enum WantBoards {
    Boards(oneshot::Sender<Result<Read<Boards>, ReadError>>),
    Posts {
        board: BoardName,
        range: Range,
        limit: u32,
        reply: oneshot::Sender<Result<Read<Page>, ReadError>>,
    },
    Stream(WantStream),
}

pub(super) struct WantStream {
    pub(super) session: SessionRow,
    pub(super) boards: Vec<BoardName>,
    pub(super) cursor: Result<Option<Cursor>, ()>,
    pub(super) reply: oneshot::Sender<Result<StreamHandle, ReadError>>,
}

/// Request that waits for the active people to be read; `None` waits for the reading itself.
pub(super) type WantUsers = Option<oneshot::Sender<Result<Read<Vec<ActiveUser>>, ReadError>>>;

/// Reads of the store that are under way, and what waits for them.
#[derive(Default)]
pub(super) struct PendingReads {
    boards: Reads<WantBoards>,
    users: Reads<WantUsers>,
    /// Boards of which posts are being read for the tails.
    pub(super) tails: BTreeSet<BoardName>,
    /// Counts weak reads, so that the workers take turns.
    weak_turn: u64,
}

impl WantBoards {
    fn refuse(self, error: ReadError) {
        // A requester may be gone.
        match self {
            Self::Boards(reply) => drop(reply.send(Err(error))),
            Self::Posts { reply, .. } => drop(reply.send(Err(error))),
            Self::Stream(want) => drop(want.reply.send(Err(error))),
        }
    }
}

impl Driver {
    pub(super) fn want_boards(&mut self, want: WantBoards) {
        match self.reads.boards.add(want) {
            Ok(true) => self.read_boards(),
            Ok(false) => {}
            Err(TooMany(want)) => want.refuse(ReadError::Overloaded),
        }
    }

    fn read_boards(&self) {
        let store = self.store.clone();
        self.spawn("boards", async move { Input::BoardsRead(store.boards().await) });
    }

    pub(super) fn on_fresh_boards(&mut self, answer: Result<Boards, StoreError>) {
        let waited = self.reads.boards.end();
        if self.reads.boards.begin() {
            self.read_boards();
        }
        if let Ok(boards) = &answer {
            self.take_boards(boards);
        }
        for want in waited {
            match (want, &answer) {
                (WantBoards::Boards(reply), Ok(boards)) => {
                    let consistency = Consistency::Strong;
                    let _ = reply.send(Ok(Read { value: boards.clone(), consistency }));
                }
                (WantBoards::Boards(reply), Err(_)) => {
                    let _ = reply.send(Ok(self.known_boards()));
                }
                (WantBoards::Posts { board, range, limit, reply }, Ok(boards)) => {
                    self.answer_posts(boards, board, range, limit, reply);
                }
                (WantBoards::Posts { board, range, limit, reply }, Err(_)) => {
                    self.reads.weak_turn += 1;
                    let weak = self.ask_replicas(board, range, limit);
                    self.env.spawn("weak-read", async move {
                        let _ = reply.send(weak.await);
                    });
                }
                (WantBoards::Stream(want), answer) => self.open_stream(want, answer.as_ref().ok()),
            }
        }
    }

    /// Returns the boards as memory knows them.
    fn known_boards(&self) -> Read<Boards> {
        let boards = self.tails.boards().map(|(board, last)| (board.clone(), last)).collect();
        let value = Boards { boards, epoch: self.tails.epoch(), as_of_ms: self.tails.as_of_ms() };
        Read { value, consistency: Consistency::Weak }
    }

    fn answer_posts(
        &self,
        boards: &Boards,
        board: BoardName,
        range: Range,
        limit: u32,
        reply: oneshot::Sender<Result<Read<Page>, ReadError>>,
    ) {
        let Some(last) = boards.last(&board) else {
            let _ = reply.send(Err(ReadError::Unknown));
            return;
        };
        let in_memory = (self.tails.epoch() == boards.epoch
            && self.tails.last(&board).is_some_and(|have| have >= last))
        .then(|| self.tails.read(&board, range, limit as usize))
        .flatten();
        if let Some(posts) = in_memory {
            let page = Page {
                posts: posts.iter().map(|post| Post::clone(post)).collect(),
                last_seq: self.tails.last(&board).unwrap_or(last).max(last),
                epoch: boards.epoch,
                as_of_ms: boards.as_of_ms,
            };
            let _ = reply.send(Ok(Read { value: page, consistency: Consistency::Strong }));
            return;
        }
        let (store, weak) = (self.store.clone(), self.ask_replicas(board.clone(), range, limit));
        self.env.spawn("read", async move {
            let answer = match store.read(board, range, limit).await {
                Ok(value) => Ok(Read { value, consistency: Consistency::Strong }),
                Err(StoreError::Unknown { .. }) => Err(ReadError::Unknown),
                Err(_) => weak.await,
            };
            let _ = reply.send(answer);
        });
    }

    /// Answers a read that was asked for as weak. The store answers where no copy is, such as at a
    /// master without workers.
    pub(super) fn weak_posts(
        &mut self,
        board: BoardName,
        range: Range,
        limit: u32,
        reply: oneshot::Sender<Result<Read<Page>, ReadError>>,
    ) {
        self.reads.weak_turn += 1;
        let (store, weak) = (self.store.clone(), self.ask_replicas(board.clone(), range, limit));
        self.env.spawn("weak-read", async move {
            let answer = match weak.await {
                Err(ReadError::Away) => match store.read(board, range, limit).await {
                    Ok(value) => Ok(Read { value, consistency: Consistency::Weak }),
                    Err(StoreError::Unknown { .. }) => Err(ReadError::Unknown),
                    Err(_) => Err(ReadError::Away),
                },
                told => told,
            };
            let _ = reply.send(answer);
        });
    }

    /// Returns links to workers, beginning with the one whose turn it is.
    fn replicas(&self) -> Vec<Link> {
        let mut links: Vec<_> = self.links.workers().cloned().collect();
        if !links.is_empty() {
            let turn = usize::try_from(self.reads.weak_turn).unwrap_or(0) % links.len();
            links.rotate_left(turn);
        }
        links.truncate(REPLICAS_MAX);
        links
    }

    /// Reads posts from a worker's node database, or from this master's memory if no worker has
    /// them.
    fn ask_replicas(
        &self,
        board: BoardName,
        range: Range,
        limit: u32,
    ) -> impl Future<Output = Result<Read<Page>, ReadError>> + Send + 'static {
        let (links, wait) = (self.replicas(), self.config.store_timeout);
        let memory = self.tails.read(&board, range, limit as usize).map(|posts| Page {
            posts: posts.iter().map(|post| Post::clone(post)).collect(),
            last_seq: self.tails.last(&board).unwrap_or_default(),
            epoch: self.tails.epoch(),
            as_of_ms: self.tails.as_of_ms(),
        });
        let env = self.env.clone();
        async move {
            for link in links {
                let request = Request::Read { board: board.clone(), range, limit };
                if let Ok(Response::Page(Some(value))) = link.call(request, wait).await {
                    env.sometimes("a worker's node database answered a read");
                    return Ok(Read { value, consistency: Consistency::Weak });
                }
            }
            let value = memory.ok_or(ReadError::Away)?;
            Ok(Read { value, consistency: Consistency::Weak })
        }
    }

    /// Looks a session up in workers' node databases.
    fn ask_replicas_for(
        &self,
        key: SessionKey,
    ) -> impl Future<Output = Option<SessionRow>> + Send + 'static {
        let (links, wait) = (self.replicas(), self.config.store_timeout);
        async move {
            for link in links {
                if let Ok(Response::Session(Some(row))) =
                    link.call(Request::Session(key), wait).await
                {
                    return Some(row);
                }
            }
            None
        }
    }

    /// Answers with a session, from memory or else from the store.
    pub(super) fn authenticate(&mut self, key: SessionKey, reply: SessionReply) {
        let now = self.env.now();
        self.people.presence.on_alive(now, &key);
        if let Some(row) = self.people.sessions.get(&key) {
            let _ = reply.send(Ok(row.clone()));
            return;
        }
        match self.people.sessions.wait(key, reply) {
            Ok(true) => {}
            Ok(false) => return,
            Err(TooMany(reply)) => {
                let _ = reply.send(Err(ReadError::Overloaded));
                return;
            }
        }
        let (store, weak) = (self.store.clone(), self.ask_replicas_for(key));
        self.spawn("session", async move {
            let answer = match store.find_session(key).await {
                // Not in doubt: a copy of it is as good until the store is back.
                Err(error) => weak.await.map_or(Err(error), |row| Ok(Some(row))),
                found => found,
            };
            Input::SessionLookedUp { key, answer }
        });
    }

    pub(super) fn on_session(
        &mut self,
        key: SessionKey,
        answer: Result<Option<SessionRow>, StoreError>,
    ) {
        let row = answer.as_ref().ok().and_then(Option::as_ref);
        for reply in self.people.sessions.on_looked_up(&key, row) {
            let answer = match &answer {
                Ok(Some(row)) => Ok(row.clone()),
                Ok(None) => Err(ReadError::Unknown),
                Err(_) => Err(ReadError::Away),
            };
            let _ = reply.send(answer);
        }
    }

    pub(super) fn on_session_closed(&mut self, key: SessionKey) {
        self.people.sessions.close(&key);
        self.people.presence.forget(&key);
        self.streams.log_out(&key);
    }

    /// Answers with a session and all that it had, read now.
    pub(super) fn restore(
        &self,
        key: SessionKey,
        reply: oneshot::Sender<Result<Read<Restored>, ReadError>>,
    ) {
        let (store, weak) = (self.store.clone(), self.ask_replicas_for(key));
        let known = self.known_boards().value;
        self.env.spawn("restore", async move {
            let answer = match (store.find_session(key).await, store.boards().await) {
                (Ok(Some(session)), Ok(boards)) => Ok(Read {
                    value: Restored { session, boards, pending: Vec::new() },
                    consistency: Consistency::Strong,
                }),
                (Ok(None), _) => Err(ReadError::Unknown),
                _ => weak.await.map_or(Err(ReadError::Away), |session| {
                    let value = Restored { session, boards: known, pending: Vec::new() };
                    Ok(Read { value, consistency: Consistency::Weak })
                }),
            };
            let _ = reply.send(answer);
        });
    }

    /// Answers those who wait for the active people with what is known: the store could not be
    /// told who is here.
    pub(super) fn give_up_users(&mut self) {
        for reply in self.reads.users.take_queued().into_iter().flatten() {
            let _ = reply.send(Ok(Read {
                value: self.people.active.to_vec(),
                consistency: Consistency::Weak,
            }));
        }
    }

    /// Has the active people read again.
    pub(super) fn want_users(&mut self) {
        self.ask_users(None);
    }

    pub(super) fn ask_users(&mut self, want: WantUsers) {
        match self.reads.users.add(want) {
            Ok(true) => self.read_users(),
            Ok(false) => {}
            Err(TooMany(want)) => {
                if let Some(reply) = want {
                    let _ = reply.send(Err(ReadError::Overloaded));
                }
            }
        }
    }

    fn read_users(&self) {
        let store = self.store.clone();
        self.spawn("users", async move { Input::UsersRead(store.active_users().await) });
    }

    pub(super) fn on_fresh_users(&mut self, answer: Result<Active, StoreError>) {
        let waited = self.reads.users.end();
        let answer = match answer {
            Ok(Active::TouchFirst) => {
                // They wait for the read that follows the touch.
                self.reads.users.put_back(waited.into_iter().filter(Option::is_some));
                self.people.presence.on_touch_wanted(self.env.now());
                return;
            }
            Ok(Active::Users(users)) => {
                self.take_users(Active::Users(users));
                Ok(Consistency::Strong)
            }
            Err(_) => Ok(Consistency::Weak),
        };
        for reply in waited.into_iter().flatten() {
            let value = self.people.active.to_vec();
            let _ = reply.send(answer.map(|consistency| Read { value, consistency }));
        }
        if self.reads.users.begin() {
            self.read_users();
        }
    }

    pub(super) fn take_users(&mut self, active: Active) {
        let Active::Users(users) = active else {
            self.people.presence.on_touch_wanted(self.env.now());
            return;
        };
        let known = &self.people.active;
        let same = users.len() == known.len()
            && users
                .iter()
                .zip(known.iter())
                .all(|(a, b)| (&a.user, a.since_ms) == (&b.user, b.since_ms));
        self.people.active = Shared::new(users);
        if !same {
            self.streams.table.set_presence(&self.people.active);
            self.flush_all();
        }
    }
}
