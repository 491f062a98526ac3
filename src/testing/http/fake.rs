//! Fake master in memory, for tests of the front end: one store, no workers, no waiting. Tests set
//! the failures that it answers with.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::{mpsc, oneshot};

use crate::{
    api::{
        ClusterState, FailedNode, HelloEvent, JoinInvitation, JoinTerms, JoinTokenList,
        JoinTokenState, KeyState, LeaseOwner, MasterState, NodeState, QueueState, Readiness,
        StoreReach,
    },
    env::Env,
    model::{
        ids::{
            Author, BoardName, Cursor, Domain, Incarnation, KeyEpoch, NodeId, Post, PostId,
            Registration, Role, Seq, SessionKey, StoreEpoch, Token, TokenId, UserId,
        },
        message::{MemberState, Task},
        outcome::{Outcome, TaskResult},
        rows::{
            ActiveUser, Boards, DeadLetter, Found, NewPost, Page, Range, SessionRow, StoreError,
        },
        shared::Shared,
    },
    node::handle::{
        Command, Commands, Consistency, Delivery, DrainError, DrainSignal, Fate, FirstReset,
        MasterHandle, MasterInfo, People, PresenceForm, Read, RequestError, SessionRequest,
        StreamGuard, StreamHandle, WorkerDrainError, Written,
    },
};

const EPOCH: StoreEpoch = StoreEpoch(7);
pub(crate) const CLUSTER: [u8; 16] = [0xcc; 16];
pub(crate) const BEAT_MS: u64 = 4000;

#[derive(Clone)]
pub(crate) struct Fake(Arc<Mutex<State>>);

#[derive(Default)]
pub(crate) struct State {
    sessions: BTreeMap<SessionKey, SessionRow>,
    boards: BTreeMap<BoardName, Vec<Post>>,
    by_id: BTreeMap<(UserId, PostId), Found>,
    tickets: BTreeMap<[u8; 32], SessionKey>,
    /// The next write is answered with this instead.
    pub(crate) outcome: Option<Outcome>,
    /// Every read is answered with this instead.
    pub(crate) read_error: Option<RequestError>,
    /// Requests that are not answered at all.
    pub(crate) silent: Silent,
    /// Requests that are never answered, kept open.
    kept: Vec<Command>,
    pub(crate) readiness: Option<Readiness>,
    /// Masters besides this one.
    pub(crate) others: Vec<MasterInfo>,
    /// Word on this one's drain.
    pub(crate) drain: DrainSignal,
    /// The newest stream.
    pub(crate) stream: Option<OpenStream>,
    /// Reset with which streams begin.
    pub(crate) reset: Option<FirstReset>,
    pub(crate) letters: Vec<DeadLetter>,
    /// Whether the store is away when a dead letter is to be removed.
    pub(crate) letters_stay: bool,
    /// Terms of the newest join token.
    pub(crate) join_terms: Option<JoinTerms>,
    pub(crate) alive: usize,
    pub(crate) submitted: usize,
    /// Messages to the master.
    pub(crate) messages: usize,
}

/// Requests that a hanging master does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Silent {
    #[default]
    Nothing,
    Writes,
    All,
}

/// The master's end of a stream.
pub(crate) struct OpenStream {
    pub(crate) boards: Vec<BoardName>,
    pub(crate) cursor: Result<Option<Cursor>, ()>,
    pub(crate) presence: PresenceForm,
    pub(crate) events: Option<mpsc::Sender<Delivery>>,
    pub(crate) gone: oneshot::Receiver<()>,
}

pub(crate) fn this_master() -> MasterInfo {
    let id = NodeId([0xaa; 16]);
    MasterInfo { id, name: "north".to_owned(), http: "http://127.0.0.1:8080".to_owned() }
}

impl Fake {
    pub(crate) fn start(env: &Env) -> (Self, MasterHandle) {
        let (handle, Commands { receiver: mut commands, drain }) = MasterHandle::channel(64);
        let fake = Self(Arc::default());
        fake.state().drain = drain;
        fake.state().boards.insert(BoardName::lobby(), Vec::new());
        let served = fake.clone();
        env.spawn("fake master", async move {
            while let Some(command) = commands.recv().await {
                served.state().on_command(command);
            }
        });
        (fake, handle)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("not poisoned")
    }

    pub(crate) fn stream(&self) -> OpenStream {
        self.state().stream.take().expect("a stream was opened")
    }
}

impl State {
    fn on_command(&mut self, command: Command) {
        self.messages += 1;
        let is_write = matches!(
            command,
            Command::Submit { .. } | Command::Request { request: SessionRequest::Write { .. }, .. }
        );
        if self.silent == Silent::All || (self.silent == Silent::Writes && is_write) {
            return self.kept.push(command);
        }
        // Who asked may be gone; then nobody wants the answer.
        match command {
            Command::Request { key, user, request } => match self.session(key) {
                Ok(session) if user.is_some_and(|user| user != session.user.id) => {
                    request.refuse(RequestError::OtherUser);
                }
                Ok(session) => self.serve(session, request),
                Err(why) => request.refuse(why),
            },
            Command::Submit { task, reply } => drop(reply.send(self.submit(task))),
            Command::Leave { reply } => drop(reply.send(())),
            Command::Drain { force, reply } => {
                let _ = reply.send(if force { Ok(()) } else { Err(DrainError::LastMaster) });
            }
            Command::DrainWorker { node, force, reply } => {
                let answer = match (node.0[0], force) {
                    (0xbb, true) => Ok(2500),
                    (0xbb, false) => Err(WorkerDrainError::LastWorker),
                    (0xdd, _) => Err(WorkerDrainError::Elsewhere { master: "south".to_owned() }),
                    (0xee, _) => Err(WorkerDrainError::OldRelease),
                    _ => Err(WorkerDrainError::Unknown),
                };
                let _ = reply.send(answer);
            }
            Command::Boards { reply } => {
                drop(reply.send(self.ok().map(|()| self.read(self.boards()))));
            }
            Command::Cluster { reply } => drop(reply.send(cluster_view())),
            Command::Readiness { reply } => drop(reply.send(self.readiness.unwrap_or(Readiness {
                ready: true,
                store: StoreReach::Here,
                store_reason: None,
                state: MasterState::Serving,
            }))),
            Command::Masters { reply } => {
                let others = self.others.iter().cloned();
                drop(reply.send([this_master()].into_iter().chain(others).collect()));
            }
            Command::ClusterId { reply } => drop(reply.send(Some(CLUSTER))),
            Command::JoinTokens { reply } => {
                let id = TokenId([7; 8]);
                let token =
                    JoinTokenState { id, role: Role::Worker, uses_left: 1, ends_at: 86_400_000 };
                drop(reply.send(self.ok().map(|()| JoinTokenList { now: 0, tokens: vec![token] })))
            }
            Command::RevokeJoinToken { id, reply } => {
                let is_known = id == TokenId([7; 8]);
                let known = if is_known { Ok(()) } else { Err(RequestError::Unknown) };
                let _ = reply.send(self.ok().and(known));
            }
            Command::Expel { node, reply } => {
                let is_known = node == NodeId([0xbb; 16]);
                let known = if is_known { Ok(()) } else { Err(RequestError::Unknown) };
                let _ = reply.send(self.ok().and(known));
            }
            Command::DeadLetters { before, limit, reply } => {
                let letters = self.letters.iter();
                let listed =
                    letters.filter(|letter| before.is_none_or(|before| letter.number < before));
                let listed = listed.take(limit as usize).cloned().collect();
                drop(reply.send(self.ok().map(|()| listed)));
            }
            Command::DropDeadLetter { number, reply } => {
                let done = if self.letters_stay { Err(RequestError::Away) } else { self.ok() };
                self.letters.retain(|letter| done.is_err() || letter.number != number);
                let _ = reply.send(done);
            }
            Command::NewJoinToken { terms, reply } => {
                self.join_terms = Some(terms);
                drop(reply.send(self.ok().map(|()| JoinInvitation {
                    token: "CHAT1.a.b.c".to_owned(),
                    masters: vec!["127.0.0.1:8180".to_owned()],
                    pins: Vec::new(),
                })))
            }
        }
    }

    fn serve(&mut self, session: SessionRow, request: SessionRequest) {
        match request {
            SessionRequest::Alive { reply } => {
                self.alive += 1;
                let _ = reply.send(Ok(()));
            }
            SessionRequest::Write { write, reply } => {
                let author = session.user;
                let outcome = self.submit(write.into_task(session.key, &author));
                drop(reply.send(Ok(Written { author, outcome })));
            }
            SessionRequest::Restore { reply } => {
                drop(reply.send(Ok(self.read(self.boards()).restored(session, Vec::new()))));
            }
            SessionRequest::Posts { board, range, limit, want, reply } => {
                let page = self.page(&board, range, limit);
                drop(reply.send(page.map(|value| Read { value, consistency: want })));
            }
            SessionRequest::FindPost { id, reply } => {
                let found = self.by_id.get(&(session.user.id, id)).cloned();
                drop(reply.send(Ok(Fate::Stored(found.unwrap_or(Found::Nothing)))));
            }
            SessionRequest::Users { reply } => {
                let people = People { version: 3, users: Shared::new(self.users()) };
                drop(reply.send(Ok(self.read(people))));
            }
            SessionRequest::Stream { boards, cursor, presence, reply } => {
                drop(reply.send(Ok(self.open_stream(boards, cursor, presence))));
            }
            SessionRequest::Cluster { reply } => drop(reply.send(Ok(cluster_view()))),
        }
    }

    fn ok(&self) -> Result<(), RequestError> {
        self.read_error.map_or(Ok(()), Err)
    }

    fn read<T>(&self, value: T) -> Read<T> {
        Read { value, consistency: Consistency::Strong }
    }

    fn session(&self, key: SessionKey) -> Result<SessionRow, RequestError> {
        self.ok()?;
        self.sessions.get(&key).cloned().ok_or(RequestError::Unauthorised)
    }

    fn boards(&self) -> Boards {
        let ends =
            |(name, posts): (&BoardName, &Vec<Post>)| (name.clone(), Seq(posts.len() as u64));
        Boards { boards: self.boards.iter().map(ends).collect(), epoch: EPOCH, as_of_ms: 1000 }
    }

    pub(crate) fn users(&self) -> Vec<ActiveUser> {
        let mut users: Vec<_> =
            self.sessions.values().map(|session| session.user.clone()).collect();
        users.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        users
            .into_iter()
            .map(|user| ActiveUser { user, since_ms: 500, last_seen_ms: 900 })
            .collect()
    }

    fn page(&self, board: &BoardName, range: Range, limit: u32) -> Result<Page, RequestError> {
        let all = self.boards.get(board).ok_or(RequestError::Unknown)?;
        let limit = limit as usize;
        let posts = match range {
            Range::After(seq) => all.iter().filter(|post| post.seq > seq).take(limit).collect(),
            Range::Before(seq) => last(all.iter().filter(|post| post.seq < seq), limit),
            Range::Last => last(all.iter(), limit),
        };
        let posts: Vec<Post> = posts.into_iter().cloned().collect();
        Ok(Page { posts, last_seq: Seq(all.len() as u64), epoch: EPOCH, as_of_ms: 1000 })
    }

    fn submit(&mut self, task: Task) -> Outcome {
        self.submitted += 1;
        if let Some(outcome) = self.outcome.take() {
            return outcome;
        }
        let refused = |why| TaskResult::Refused(Box::new(why));
        let unknown = |what: &str| StoreError::Unknown { what: what.to_owned() };
        Outcome::Settled(match task {
            Task::Post { board, post } => self.append(board, post).unwrap_or_else(refused),
            Task::CreateBoard { board } => {
                self.boards.entry(board).or_default();
                TaskResult::Done
            }
            Task::CancelPost { user, id } => match self.by_id.get(&(user, id)) {
                Some(Found::Committed(post)) => {
                    TaskResult::AlreadyCommitted(Box::new(post.clone()))
                }
                _ => {
                    self.by_id.insert((user, id), Found::Cancelled);
                    TaskResult::Cancelled
                }
            },
            Task::OpenSession { key, user } => {
                self.sessions.insert(key, SessionRow { key, user, read_marks: Vec::new() });
                TaskResult::Done
            }
            Task::CloseSession { key } => {
                self.sessions.remove(&key);
                TaskResult::Done
            }
            Task::SetReadMark { key, board, seq } => match self.boards.get(&board) {
                None => refused(unknown("board")),
                Some(posts) if seq.0 > posts.len() as u64 => refused(StoreError::Refused {
                    why: format!("the board ends at {}", posts.len()),
                }),
                Some(_) => {
                    let row = self.sessions.get_mut(&key).expect("authenticated");
                    row.read_marks = vec![(board, seq)];
                    TaskResult::Done
                }
            },
            Task::PutTicket { key, ticket_sha256 } => {
                self.tickets.insert(ticket_sha256, key);
                TaskResult::Done
            }
            Task::RedeemTicket { ticket_sha256, key } => {
                match self.tickets.remove(&ticket_sha256) {
                    None => refused(unknown("ticket")),
                    Some(of) => {
                        let row = SessionRow { key, ..self.sessions[&of].clone() };
                        self.sessions.insert(key, row.clone());
                        TaskResult::Session(Box::new(row))
                    }
                }
            }
        })
    }

    /// Fills the lobby with this many posts of one text.
    pub(crate) fn fill_lobby(&mut self, posts: u8, text: &str) {
        let author = Author { id: UserId([9; 16]), name: "Zoe".parse().expect("a name") };
        for n in 0..posts {
            let text = text.parse().expect("a text");
            let post = NewPost { id: PostId([n; 16]), author: author.clone(), text };
            self.append(BoardName::lobby(), post).expect("there is a lobby");
        }
    }

    fn append(&mut self, name: BoardName, post: NewPost) -> Result<TaskResult, StoreError> {
        let board = self.boards.get_mut(&name);
        let board = board.ok_or_else(|| StoreError::Unknown { what: "board".to_owned() })?;
        let key = (post.author.id, post.id);
        Ok(match self.by_id.get(&key) {
            Some(Found::Committed(old)) if old.text == post.text && old.board == name => {
                TaskResult::Duplicate { seq: old.seq, posted_at_ms: old.posted_at_ms }
            }
            Some(Found::Committed(_)) => TaskResult::Conflict,
            Some(Found::Cancelled) => TaskResult::Cancelled,
            _ => {
                let seq = Seq(board.len() as u64 + 1);
                let (id, author, text) = (post.id, post.author, post.text);
                let posted_at_ms = 1000 + seq.0;
                let post = Post { id, board: name, seq, author, text, posted_at_ms };
                board.push(post.clone());
                self.by_id.insert(key, Found::Committed(post));
                TaskResult::Committed { seq, posted_at_ms }
            }
        })
    }

    fn open_stream(
        &mut self,
        boards: Vec<BoardName>,
        cursor: Result<Option<Cursor>, ()>,
        presence: PresenceForm,
    ) -> StreamHandle {
        let (events, delivered) = mpsc::channel(8);
        let (gone_guard, gone) = oneshot::channel();
        let at = boards.iter().map(|board| (board.clone(), Seq(0))).collect();
        let hello = HelloEvent {
            node: this_master(),
            masters: vec![this_master()],
            cursor: Cursor { epoch: EPOCH, boards: at },
            beat_ms: BEAT_MS,
        };
        self.stream = Some(OpenStream { boards, cursor, presence, events: Some(events), gone });
        StreamHandle {
            hello,
            reset: self.reset.clone(),
            deliveries: delivered,
            guard: StreamGuard { _gone: gone_guard },
        }
    }
}

fn last<'a>(posts: impl DoubleEndedIterator<Item = &'a Post>, limit: usize) -> Vec<&'a Post> {
    let mut posts: Vec<_> = posts.rev().take(limit).collect();
    posts.reverse();
    posts
}

/// A cluster of one master and one worker that just failed.
fn cluster_view() -> ClusterState {
    let (master, worker) = (NodeId([0xaa; 16]), NodeId([0xbb; 16]));
    let node = |id, name: &str, role, state, http, reaches_store| NodeState {
        id,
        name: name.to_owned(),
        role,
        registration: Registration(3),
        state,
        master,
        http,
        reaches_store,
        in_flight: 0,
        resident_bytes: None,
        held_posts: 0,
        release: None,
    };
    let http = Some(this_master().http);
    ClusterState {
        node: master,
        domain: Domain { master, incarnation: Incarnation(3) },
        key_epoch: KeyEpoch(2),
        keys: KeyState { age_ms: 4000, lacking: vec![worker], ..KeyState::default() },
        store_epoch: EPOCH,
        store: Consistency::Strong,
        store_away: None,
        store_absences: Vec::new(),
        refusals: Vec::new(),
        nodes: vec![
            node(master, "north", Role::Master, MemberState::In, http, Some(true)),
            node(worker, "w1", Role::Worker, MemberState::Failed, None, None),
        ],
        failed: vec![FailedNode {
            id: worker,
            registration: Registration(3),
            why: "silent".to_owned(),
            for_ms: 1200,
            times: 1,
        }],
        queues: vec![QueueState {
            resource: "board:lobby".to_owned(),
            held: LeaseOwner::Mine,
            holder: Some(master),
            token: Some(Token { epoch: EPOCH, lease: 1, n: 9 }),
            waiting: 2,
            in_flight: 1,
        }],
        boards: vec![(BoardName::lobby(), Seq(4))],
        streams: 1,
    }
}
