//! Reads for the front end: a strong one asks the store after it arrived, and node databases while
//! the store is away.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::Semaphore;

use super::{
    Driver,
    input::Input,
    waiters::{RETRY_MS, Waiter},
};
use crate::{
    model::{
        bounds::FAR_LOOKUPS_MAX,
        ids::{Author, BoardName, Cursor, SessionKey, StoreEpoch},
        message::Task,
        outcome::Outcome,
        rows::{Active, Boards, Page, Range, SessionRow, StoreError},
    },
    node::handle::{
        Consistency, People, PresenceForm, Read, Reply, RequestError, Restored, StreamHandle,
    },
    protocol::reads::{Reads, TooMany},
};

/// The most posts in one answer to a person.
pub(super) const POSTS_MAX: u32 = 200;

/// Request that waits for the boards to be read.
pub(super) enum WantBoards {
    Boards(Reply<Read<Boards>>),
    Posts {
        board: BoardName,
        range: Range,
        limit: u32,
        reply: Reply<Read<Page>>,
    },
    /// A session that was read before.
    Restore {
        session: SessionRow,
        reply: Reply<Read<Restored>>,
    },
    Stream(WantStream),
    /// A task for a board that memory does not know.
    Submit {
        board: BoardName,
        task: Task,
        waiter: Waiter,
    },
}

pub(super) struct WantStream {
    pub(super) key: SessionKey,
    /// Epoch of the store when the session was found.
    pub(super) epoch: StoreEpoch,
    pub(super) author: Author,
    pub(super) boards: Vec<BoardName>,
    pub(super) cursor: Result<Option<Cursor>, ()>,
    pub(super) presence: PresenceForm,
    pub(super) reply: Reply<StreamHandle>,
}

/// Request that waits for the active people to be read; `None` waits for the reading itself.
pub(super) type WantUsers = Option<Reply<Read<People>>>;

/// Reads of the store that are under way, and what waits for them.
pub(super) struct PendingReads {
    boards: Reads<WantBoards>,
    users: Reads<WantUsers>,
    /// Boards of which posts are being read for the tails.
    pub(super) tails: BTreeSet<BoardName>,
    /// Counts the times that workers were asked, so that they take turns.
    pub(super) worker_turn: u64,
    /// The same of other masters.
    pub(super) peer_turn: u64,
    /// Places of look-ups of sessions at other masters.
    pub(super) far_lookups: Arc<Semaphore>,
}

impl Default for PendingReads {
    fn default() -> Self {
        Self {
            boards: Reads::default(),
            users: Reads::default(),
            tails: BTreeSet::new(),
            worker_turn: 0,
            peer_turn: 0,
            far_lookups: Arc::new(Semaphore::new(FAR_LOOKUPS_MAX)),
        }
    }
}

impl PendingReads {
    /// Whether no request waits for the boards to be read.
    pub(super) fn is_idle(&self) -> bool {
        self.boards.is_idle()
    }
}

impl WantBoards {
    fn refuse(self, error: RequestError) {
        // A requester may be gone.
        match self {
            Self::Boards(reply) => drop(reply.send(Err(error))),
            Self::Posts { reply, .. } => drop(reply.send(Err(error))),
            Self::Restore { reply, .. } => drop(reply.send(Err(error))),
            Self::Stream(want) => drop(want.reply.send(Err(error))),
            Self::Submit { waiter, .. } => {
                waiter.answer(Outcome::Overloaded { retry_ms: RETRY_MS });
            }
        }
    }
}

/// Returns what a read's error is to who asked.
pub(super) const fn unread(error: &StoreError) -> RequestError {
    match error {
        StoreError::Unknown { .. } => RequestError::Unknown,
        StoreError::Busy => RequestError::Overloaded,
        _ => RequestError::Away,
    }
}

impl Driver {
    pub(super) fn want_boards(&mut self, want: WantBoards) {
        match self.reads.boards.add(want) {
            Ok(true) => self.read_boards(),
            Ok(false) => {}
            Err(TooMany(want)) => want.refuse(RequestError::Overloaded),
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
                (want, Err(StoreError::Busy)) => want.refuse(RequestError::Overloaded),
                (WantBoards::Boards(reply), answer) => {
                    let _ = reply.send(Ok(self.boards_read(answer)));
                }
                (WantBoards::Restore { session, reply }, answer) => {
                    self.answer_restored(session, self.boards_read(answer), reply);
                }
                (WantBoards::Posts { board, range, limit, reply }, Ok(boards)) => {
                    self.answer_posts(boards, board, range, limit, reply);
                }
                (WantBoards::Posts { board, range, limit, reply }, Err(_)) => {
                    let weak = self.ask_replicas(board, range, limit);
                    self.env.spawn("weak-read", async move {
                        let _ = reply.send(weak.await);
                    });
                }
                (WantBoards::Submit { board, task, waiter }, answer) => {
                    self.submit_found(&board, task, waiter, answer);
                }
                (WantBoards::Stream(want), answer) => self.open_stream(want, answer.as_ref().ok()),
            }
        }
    }

    /// Returns the boards that the store told, else those that memory knows.
    fn boards_read(&self, answer: &Result<Boards, StoreError>) -> Read<Boards> {
        answer.as_ref().map_or_else(
            |_| self.known_boards(),
            |boards| Read { value: boards.clone(), consistency: Consistency::Strong },
        )
    }

    /// Returns the boards as memory knows them.
    pub(super) fn known_boards(&self) -> Read<Boards> {
        let boards = self.tails.boards().map(|(board, last)| (board.clone(), last)).collect();
        let value = Boards { boards, epoch: self.tails.epoch(), as_of_ms: self.tails.as_of_ms() };
        Read { value, consistency: Consistency::Weak }
    }

    fn answer_posts(
        &mut self,
        boards: &Boards,
        board: BoardName,
        range: Range,
        limit: u32,
        reply: Reply<Read<Page>>,
    ) {
        let Some(last) = boards.last(&board) else {
            let _ = reply.send(Err(RequestError::Unknown));
            return;
        };
        let in_memory = (self.tails.epoch() == boards.epoch
            && self.tails.last(&board).is_some_and(|have| have >= last))
        .then(|| self.page_of_memory(&board, range, limit))
        .flatten();
        if let Some(page) = in_memory {
            let page = Page { as_of_ms: boards.as_of_ms, ..page };
            let _ = reply.send(Ok(Read { value: page, consistency: Consistency::Strong }));
            return;
        }
        let (store, weak) = (self.store.clone(), self.ask_replicas(board.clone(), range, limit));
        self.env.spawn("read", async move {
            let answer = match store.read(board, range, limit).await {
                Ok(value) => Ok(Read { value, consistency: Consistency::Strong }),
                Err(StoreError::Away { .. }) => weak.await,
                Err(error) => Err(unread(&error)),
            };
            let _ = reply.send(answer);
        });
    }

    /// Looks a session up in the store, for the requests that wait for it or to check it.
    pub(super) fn look_up_session(&mut self, key: SessionKey) {
        let (store, weak) = (self.store.clone(), self.ask_replicas_for(key, None));
        self.spawn("session", async move {
            let (answer, is_copied) = match store.find_session(key).await {
                Err(StoreError::Busy) => (Err(StoreError::Busy), false),
                // Not in doubt: a copy of it is as good until the store is back.
                Err(error) => match weak.await {
                    Some(row) => (Ok(Some(row)), true),
                    None => (Err(error), false),
                },
                found => (found, false),
            };
            Input::SessionLookedUp { key, answer, is_copied }
        });
    }

    /// Checks sessions of which a store that took the place of another one has yet to tell, some at a time.
    pub(super) fn check_sessions(&mut self) {
        while let Some(key) = self.people.sessions.next_check() {
            self.look_up_session(key);
        }
    }

    pub(super) fn on_session_closed(&mut self, key: SessionKey) {
        self.people.sessions.close(&key);
        self.people.presence.forget(&key);
        self.streams.log_out(&key);
    }

    /// Reads a session, and then all boards, from the store.
    pub(super) fn restore(&self, key: SessionKey, reply: Reply<Read<Restored>>) {
        let store = self.store.clone();
        self.spawn("restore", async move {
            Input::SessionRead { key, answer: store.find_session(key).await, reply }
        });
    }

    pub(super) fn on_session_read(
        &mut self,
        key: SessionKey,
        answer: Result<Option<SessionRow>, StoreError>,
        reply: Reply<Read<Restored>>,
    ) {
        match answer {
            Ok(Some(session)) => self.want_boards(WantBoards::Restore { session, reply }),
            Ok(None) => {
                // It was known here: word of its end was lost.
                self.on_session_closed(key);
                let _ = reply.send(Err(RequestError::Unauthorised));
            }
            Err(StoreError::Busy) => {
                let _ = reply.send(Err(RequestError::Overloaded));
            }
            Err(_) => {
                let cached = self.people.sessions.get(&key).cloned();
                let weak = self.ask_replicas_for(key, cached);
                self.spawn("weak-restore", async move {
                    Input::SessionRestored { session: weak.await, reply }
                });
            }
        }
    }

    /// Answers with what the copies know of a session, and the boards as memory knows them.
    pub(super) fn on_session_restored(
        &self,
        session: Option<SessionRow>,
        reply: Reply<Read<Restored>>,
    ) {
        match session {
            Some(session) => self.answer_restored(session, self.known_boards(), reply),
            None => drop(reply.send(Err(RequestError::Away))),
        }
    }

    /// Answers those who wait for the active people with what is known: the store could not be
    /// told who is here.
    pub(super) fn give_up_users(&mut self) {
        for reply in self.reads.users.take_queued().into_iter().flatten() {
            let value = self.people.known();
            let _ = reply.send(Ok(Read { value, consistency: Consistency::Weak }));
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
                    let _ = reply.send(Err(RequestError::Overloaded));
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
                if self.people.active.take(users) {
                    self.streams.table.set_presence(self.people.active.users());
                    self.deliver_all();
                }
                Ok(Consistency::Strong)
            }
            Err(StoreError::Busy) => Err(RequestError::Overloaded),
            Err(_) => Ok(Consistency::Weak),
        };
        for reply in waited.into_iter().flatten() {
            let value = self.people.known();
            let _ = reply.send(answer.map(|consistency| Read { value, consistency }));
        }
        if self.reads.users.begin() {
            self.read_users();
        }
    }
}
