//! Commands of the front end.

use super::{
    Driver,
    reads::{POSTS_MAX, WantBoards, WantStream, unread},
    waiters::{RETRY_MS, SessionWaiter, Waiter},
};
use crate::{
    api::{MasterState, Readiness, StoreReach},
    model::{
        absence::AwayReason,
        held::HeldPost,
        ids::{Author, BoardName, Seq, SessionKey, UserId},
        message::Task,
        outcome::{Outcome, TaskResult},
        rows::{Boards, Found, SessionRow, StoreError},
        time::Mono,
    },
    node::handle::{Command, Consistency, Fate, RequestError, SessionRequest, Write},
    protocol::{
        board::{BOARDS_MAX, Existence},
        read_marks::Gathered,
        reads::TooMany,
    },
};

/// Answers a command without doing anything, while this master is in `state` and does not serve.
pub(super) fn refuse(command: Command, state: MasterState, store_reason: Option<AwayReason>) {
    // Who asked may be gone.
    match command {
        Command::Readiness { reply } => {
            let store = StoreReach::Away;
            let _ = reply.send(Readiness { ready: false, state, store, store_reason });
        }
        Command::Request { request, .. } => request.refuse(RequestError::Away),
        Command::Submit { reply, .. } => {
            drop(reply.send(Outcome::Unavailable { retry_ms: RETRY_MS }));
        }
        // No answer is one: the front end says 503.
        _ => {}
    }
}

/// Outcome of a task that a rule refuses.
fn refused(why: StoreError) -> Outcome {
    Outcome::Settled(TaskResult::Refused(Box::new(why)))
}

impl Driver {
    pub(super) fn on_command(&mut self, command: Command) {
        let now = self.env.now();
        match command {
            Command::Request { key, user, request } => self.on_session_request(key, user, request),
            Command::Submit { task, reply } => self.submit(task, Waiter::Newcomer(reply)),
            Command::Boards { reply } => self.want_boards(WantBoards::Boards(reply)),
            Command::Cluster { reply } => {
                let _ = reply.send(self.view());
            }
            Command::Readiness { reply } => {
                let strong = self.core.is_strong(now);
                let serves = strong || !self.core.registrations().is_empty();
                let state = match self.drain {
                    Some(_) => MasterState::Draining,
                    // Every store has a lobby: until it is known, streams are refused.
                    None if !self.tails.can_open(&[BoardName::lobby()]) => MasterState::Starting,
                    None => MasterState::Serving,
                };
                let ready = serves && state == MasterState::Serving;
                let _ = reply.send(Readiness {
                    ready,
                    store: if strong { StoreReach::Here } else { StoreReach::Away },
                    store_reason: self.poll.watch.absence().map(|absence| absence.reason),
                    state,
                });
            }
            Command::Masters { reply } => {
                let _ = reply.send(self.poll.masters().to_vec());
            }
            Command::ClusterId { reply } => {
                let _ = reply.send(Some(self.me.cluster));
            }
            Command::NewJoinToken { terms, reply } => self.invite(terms, reply),
            Command::JoinTokens { reply } => self.list_join_tokens(reply),
            Command::RevokeJoinToken { id, reply } => self.revoke_join_token(id, reply),
            Command::Expel { node, reply } => self.expel(node, reply),
            Command::DeadLetters { before, limit, reply } => {
                self.list_dead_letters(before, limit, reply);
            }
            Command::DropDeadLetter { number, reply } => self.drop_dead_letter(number, reply),
            Command::Drain { force, reply } => {
                let _ = reply.send(self.drain(force));
            }
            Command::DrainWorker { node, force, reply } => self.drain_worker(node, force, reply),
            // Ends the loop before it comes here.
            Command::Leave { reply } => drop(reply),
        }
    }

    /// Serves a request of a session that memory knows; looks another session up first.
    fn on_session_request(
        &mut self,
        key: SessionKey,
        user: Option<UserId>,
        request: SessionRequest,
    ) {
        self.people.presence.on_alive(self.env.now(), &key);
        self.served_at = self.env.now();
        if let Some(row) = self.people.sessions.get(&key) {
            let author = row.user.clone();
            return self.serve(key, author, user, request);
        }
        match self.people.sessions.wait(key, (user, request)) {
            Ok(true) => self.look_up_session(key),
            Ok(false) => {}
            Err(TooMany((_, request))) => request.refuse(RequestError::Overloaded),
        }
    }

    pub(super) fn on_session(
        &mut self,
        key: SessionKey,
        answer: &Result<Option<SessionRow>, StoreError>,
        is_copied: bool,
    ) {
        let row = answer.as_ref().ok().and_then(Option::as_ref);
        let Some(waited) = self.people.sessions.on_looked_up(&key, row) else {
            // It may be of a store before the one that is there now.
            self.look_up_next();
            return self.check_sessions();
        };
        if answer.is_ok() && !is_copied {
            self.people.sessions.on_confirmed(&key);
            if row.is_none() {
                self.end_unknown_session(key);
            }
            self.check_sessions();
        }
        for (user, request) in waited {
            match self.people.sessions.get(&key) {
                Some(row) => {
                    let author = row.user.clone();
                    self.serve(key, author, user, request);
                }
                // Never was, or was closed while it was looked up.
                None => request.refuse(match answer {
                    Ok(_) => RequestError::Unauthorised,
                    Err(error) => unread(error),
                }),
            }
        }
        self.look_up_next();
    }

    /// Begins the look-up whose turn it is.
    fn look_up_next(&mut self) {
        if let Some(next) = self.people.sessions.next_lookup() {
            self.look_up_session(next);
        }
    }

    /// Ends a session that is in use here and that the store does not know: word of its end was lost, or the
    /// store was restored from a backup without it. Of a made-up key nothing is kept.
    fn end_unknown_session(&mut self, key: SessionKey) {
        let is_cached = self.people.sessions.get(&key).is_some();
        if is_cached || !self.streams.table.of_session(&key).is_empty() {
            self.on_session_closed(key);
        } else {
            self.people.presence.forget(&key);
        }
    }

    /// Queues a task if its board exists or may be created: a name that somebody made up gets no
    /// queue, no lease and no row.
    fn submit_existing(&mut self, task: Task, waiter: Waiter) {
        match self.tails.existence(&task) {
            Existence::Known => self.submit(task, waiter),
            Existence::Unheard(board) => {
                self.want_boards(WantBoards::Submit { board, task, waiter });
            }
            Existence::NoRoom => {
                let why = format!("{BOARDS_MAX} boards are the most");
                waiter.answer(refused(StoreError::Refused { why }));
            }
        }
    }

    /// Goes on with a task whose board was looked for in the store.
    pub(super) fn submit_found(
        &mut self,
        board: &BoardName,
        task: Task,
        waiter: Waiter,
        answer: &Result<Boards, StoreError>,
    ) {
        match answer {
            Ok(boards) if boards.last(board).is_some() => match (task, waiter) {
                (Task::Post { board, post }, waiter @ Waiter::Holder { .. }) => {
                    self.queue_handed_in(HeldPost { board, post }, waiter);
                }
                (task, waiter) => self.submit(task, waiter),
            },
            Ok(_) => {
                let what = format!("board {board}");
                let outcome = refused(StoreError::Unknown { what });
                match waiter {
                    Waiter::Holder { user, id, reply } => {
                        self.end_handed_in((user, id), reply, outcome);
                    }
                    waiter => waiter.answer(outcome),
                }
            }
            Err(_) => waiter.answer(Outcome::Unavailable { retry_ms: RETRY_MS }),
        }
    }

    fn serve(
        &mut self,
        key: SessionKey,
        author: Author,
        user: Option<UserId>,
        request: SessionRequest,
    ) {
        if user.is_some_and(|user| user != author.id) {
            return request.refuse(RequestError::OtherUser);
        }
        self.people.presence.on_used(key);
        match request {
            SessionRequest::Alive { reply } => {
                let _ = reply.send(Ok(()));
            }
            SessionRequest::Write { write, reply } => {
                if matches!(write, Write::Post { .. }) {
                    self.env.sometimes("a person posted");
                    self.people.presence.on_post(self.env.now(), key);
                }
                let waiter = SessionWaiter { author, reply };
                if let Write::SetReadMark { board, seq } = write {
                    return self.gather_mark(key, board, seq, waiter);
                }
                let task = write.into_task(key, &waiter.author);
                self.submit_existing(task, Waiter::Session(waiter));
            }
            SessionRequest::Restore { reply } => self.restore(key, reply),
            SessionRequest::Posts { board, range, limit, want, reply } => {
                let limit = limit.clamp(1, POSTS_MAX);
                match want {
                    Consistency::Strong => {
                        self.want_boards(WantBoards::Posts { board, range, limit, reply });
                    }
                    Consistency::Weak => self.weak_posts(board, range, limit, reply),
                }
            }
            SessionRequest::FindPost { id, reply } => {
                let (store, held) = (self.store.clone(), self.held_of(author.id, self.state()));
                self.env.spawn("find-post", async move {
                    let found = store.find_post(author.id, id).await;
                    if let Ok(found @ (Found::Committed(_) | Found::Cancelled)) = found {
                        let _ = reply.send(Ok(Fate::Stored(found)));
                        return;
                    }
                    let copies = held.await.iter().filter(|held| **held == id).count();
                    if let Ok(copies @ 1..) = u32::try_from(copies) {
                        let _ = reply.send(Ok(Fate::Pending { copies }));
                        return;
                    }
                    // A held post may have been written, and let go of, between the two answers.
                    let found = match found {
                        Ok(_) => store.find_post(author.id, id).await,
                        Err(error) => Err(error),
                    };
                    let _ = reply.send(found.map(Fate::Stored).map_err(|error| unread(&error)));
                });
            }
            SessionRequest::Users { reply } => self.ask_users(Some(reply)),
            SessionRequest::Stream { boards, cursor, presence, reply } => {
                let epoch = self.tails.epoch();
                let want = WantStream { key, epoch, author, boards, cursor, presence, reply };
                self.want_boards(WantBoards::Stream(want));
            }
            SessionRequest::Cluster { reply } => {
                let _ = reply.send(Ok(self.view()));
            }
        }
    }

    fn state(&self) -> Consistency {
        Consistency::of(self.core.is_strong(self.env.now()))
    }

    fn gather_mark(&mut self, key: SessionKey, board: BoardName, seq: Seq, waiter: SessionWaiter) {
        let now = self.env.now();
        if let Err(TooMany(waiter)) = self.people.marks.add(now, key, board, seq, waiter) {
            waiter.answer(Outcome::Overloaded { retry_ms: RETRY_MS });
        }
    }

    /// Submits the read marks that were gathered, when it is time.
    pub(super) fn write_marks(&mut self, now: Mono) {
        let marks = self.people.marks.due(now);
        let task = |mark: &Gathered<SessionWaiter>| Task::SetReadMark {
            key: mark.key,
            board: mark.board.clone(),
            seq: mark.seq,
        };
        let taken = self.core.on_submit_all(now, marks.iter().map(task), &mut self.out);
        for (mark, taken) in marks.into_iter().zip(taken) {
            match taken {
                Ok(id) => self.waiters.add(now, id, Waiter::Marks(mark)),
                Err(outcome) => Waiter::Marks(mark).answer(outcome),
            }
        }
    }

    /// Answers those who set a read mark. A refusal of the highest place says nothing of lower ones.
    pub(super) fn end_mark(&mut self, mut mark: Gathered<SessionWaiter>, outcome: Outcome) {
        if matches!(&outcome, Outcome::Settled(TaskResult::Refused(_))) {
            for (seq, waiter) in mark.take_lower() {
                self.gather_mark(mark.key, mark.board.clone(), seq, waiter);
            }
        }
        Waiter::Marks(mark).answer(outcome);
    }
}
