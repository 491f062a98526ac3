//! Batches: what a worker does with an [`Assign`].
//!
//! 1. All posts of a batch go to the store in one append: a token is for one batch.
//! 2. A batch has an answer within its limit: a store that does not answer is *away*.
//! 3. One token is carried out once at a time: the same batch asked for again meanwhile gets
//!    the same answer.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    comm::Responder,
    env::{Env, TimedOut},
    model::{
        ids::{BoardName, NodeId, Post, Resource, Seq, Token},
        message::{Assign, AssignReply, Response, Task, TaskResult, Update},
        rows::{Appended, Found, NewPost, Permission, StoreError},
    },
    store::{Op, Reply, Store},
};

/// Batches that a worker writes at a time; more are turned back at once.
pub(super) const BATCHES_MAX: usize = 64;
/// The life of a handover ticket.
const TICKET_TTL_MS: u64 = 300_000;

/// What became of a batch.
#[derive(Debug)]
pub(super) struct Written {
    /// The answer.
    pub reply: AssignReply,
    /// What it put into the store, for the node database.
    pub news: Vec<Update>,
}

impl Written {
    fn nothing(reply: AssignReply) -> Self {
        Self { reply, news: Vec::new() }
    }
}

/// Why a batch has no results.
enum Stopped {
    Away(String),
    Fenced,
    Broken(String),
}

impl From<Stopped> for AssignReply {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Away(why) => Self::StoreAway { why },
            Stopped::Fenced => Self::Fenced,
            Stopped::Broken(why) => Self::Broken { why },
        }
    }
}

/// What a store's error is to one task: a result of it, or the end of the batch.
fn judge(error: StoreError) -> Result<TaskResult, Stopped> {
    match error {
        StoreError::Away { why } => Err(Stopped::Away(why)),
        StoreError::Fenced { .. } => Err(Stopped::Fenced),
        StoreError::Unknown { .. } | StoreError::Refused { .. } => {
            Ok(TaskResult::Refused(Box::new(error)))
        }
        StoreError::Stale | StoreError::InUse { .. } | StoreError::Broken { .. } => {
            Err(Stopped::Broken(error.to_string()))
        }
    }
}

/// Writes a batch to the store, in at most `limit`. Safe to repeat.
pub(super) async fn write(
    env: &Env,
    store: &Store,
    me: NodeId,
    limit: Duration,
    assign: &Assign,
) -> Written {
    if assign.permission.worker != me {
        let why = format!("the permission names {}", assign.permission.worker);
        return Written::nothing(AssignReply::Broken { why });
    }
    match env.timeout(limit, write_all(store, assign)).await {
        Ok(Ok((results, news))) => Written { reply: AssignReply::Done(results), news },
        Ok(Err(stopped)) => Written::nothing(stopped.into()),
        Err(TimedOut) => {
            let why = format!("no answer in {} ms", limit.as_millis());
            Written::nothing(AssignReply::StoreAway { why })
        }
    }
}

async fn write_all(
    store: &Store,
    assign: &Assign,
) -> Result<(Vec<TaskResult>, Vec<Update>), Stopped> {
    let permission = &assign.permission;
    let tasks = assign.tasks.iter();
    let posts: Vec<_> = tasks.filter_map(|task| as_post(task, permission)).cloned().collect();
    let (appended, news) = match &permission.resource {
        Resource::Board(board) if !posts.is_empty() => {
            append(store, permission, board, posts).await?
        }
        _ => (Vec::new(), None),
    };
    let (mut appended, mut results) = (appended.into_iter(), Vec::new());
    for task in assign.tasks.iter() {
        let result = match as_post(task, permission).and_then(|_| appended.next()) {
            Some(result) => result,
            None => write_one(store, permission, task).await?,
        };
        results.push(result);
    }
    Ok((results, news.into_iter().collect()))
}

/// One result per post.
async fn append(
    store: &Store,
    permission: &Permission,
    board: &BoardName,
    posts: Vec<NewPost>,
) -> Result<(Vec<TaskResult>, Option<Update>), Stopped> {
    match store.append(permission.clone(), posts.clone()).await {
        Ok(appended) if appended.len() == posts.len() => {
            let news = committed(permission.token, board, &posts, &appended);
            Ok((appended.into_iter().map(TaskResult::Posted).collect(), news))
        }
        Ok(appended) => {
            let why = format!("{} results for {} posts", appended.len(), posts.len());
            Err(Stopped::Broken(why))
        }
        Err(error) => Ok((vec![judge(error)?; posts.len()], None)),
    }
}

/// A post of the board that the permission covers.
fn as_post<'a>(task: &'a Task, permission: &Permission) -> Option<&'a NewPost> {
    match (task, &permission.resource) {
        (Task::Post { board, post }, Resource::Board(covered)) if board == covered => Some(post),
        _ => None,
    }
}

/// The posts that this append put into the board: their places are one run.
fn committed(
    token: Token,
    board: &BoardName,
    posts: &[NewPost],
    appended: &[Appended],
) -> Option<Update> {
    let mut committed: Vec<Post> = Vec::new();
    for (post, appended) in posts.iter().zip(appended) {
        if let Appended::Committed { seq, posted_at_ms } = appended {
            committed.push(Post {
                id: post.id,
                board: board.clone(),
                seq: *seq,
                author: post.author.clone(),
                text: post.text.clone(),
                posted_at_ms: *posted_at_ms,
            });
        }
    }
    let as_of_ms = committed.last()?.posted_at_ms;
    Some(Update::Posts { epoch: token.epoch, board: board.clone(), posts: committed, as_of_ms })
}

async fn write_one(
    store: &Store,
    permission: &Permission,
    task: &Task,
) -> Result<TaskResult, Stopped> {
    let Some(op) = op_of(task, permission) else {
        let why = format!("not covered by the permission of {}", permission.resource);
        return Ok(TaskResult::Refused(Box::new(StoreError::Refused { why })));
    };
    match store.call(op).await {
        Ok(Reply::Done) => Ok(TaskResult::Done),
        Ok(Reply::Found(Found::Cancelled)) => Ok(TaskResult::Cancelled),
        Ok(Reply::Found(Found::Committed(post))) => {
            Ok(TaskResult::AlreadyCommitted(Box::new(post)))
        }
        Ok(Reply::Session(Some(row))) => Ok(TaskResult::Session(Box::new(row))),
        Ok(_) => Err(Stopped::Broken("an answer of another kind".to_owned())),
        Err(error) => judge(error),
    }
}

/// The operation of a task that is no post; `None` when another resource covers it.
fn op_of(task: &Task, permission: &Permission) -> Option<Op> {
    let is_board = matches!(permission.resource, Resource::Board(_));
    let permission = permission.clone();
    Some(match task {
        Task::Post { .. } => return None,
        Task::CreateBoard { board } => {
            return (permission.resource == Resource::Board(board.clone()))
                .then_some(Op::CreateBoard(permission));
        }
        _ if is_board => return None,
        Task::CancelPost { user, id } => Op::CancelPost { permission, user: *user, id: *id },
        Task::OpenSession { key, user } => {
            Op::OpenSession { permission, key: *key, user: user.clone() }
        }
        Task::CloseSession { key } => Op::CloseSession { permission, key: *key },
        Task::SetReadMark { key, board, seq } => {
            Op::SetReadMark { permission, key: *key, board: board.clone(), seq: Seq(seq.0) }
        }
        Task::PutTicket { key, ticket_sha256 } => Op::PutTicket {
            permission,
            ticket_sha256: *ticket_sha256,
            key: *key,
            ttl_ms: TICKET_TTL_MS,
        },
        Task::RedeemTicket { ticket_sha256, key } => {
            Op::RedeemTicket { permission, ticket_sha256: *ticket_sha256, key: *key }
        }
    })
}

/// The batches that are being written, with who waits for each.
#[derive(Debug, Default)]
pub(super) struct Batches {
    in_flight: BTreeMap<BatchId, InFlight>,
}

/// What names a batch.
pub(super) type BatchId = (Resource, Token);

#[derive(Debug)]
struct InFlight {
    tasks: Arc<Vec<Task>>,
    waiting: Vec<Responder>,
}

/// What to do with a batch that was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// Write it, then [`Batches::finish`].
    Write,
    /// It is being written; who asked waits for it.
    Wait,
}

impl Batches {
    /// A batch is asked for.
    ///
    /// # Errors
    /// Who asked and the answer: too many are under way, or the token is in use for another.
    pub(super) fn begin(
        &mut self,
        assign: &Assign,
        responder: Responder,
    ) -> Result<Begin, (Responder, AssignReply)> {
        let id = (assign.permission.resource.clone(), assign.permission.token);
        if let Some(known) = self.in_flight.get_mut(&id) {
            if known.tasks != assign.tasks {
                let why = "the token is in use for another batch".to_owned();
                return Err((responder, AssignReply::Broken { why }));
            }
            // Who asks again gave the call before up.
            known.waiting.retain(|waiting| !waiting.is_cancelled());
            known.waiting.push(responder);
            return Ok(Begin::Wait);
        }
        if self.in_flight.len() >= BATCHES_MAX {
            let why = format!("{BATCHES_MAX} batches are waiting for it already");
            return Err((responder, AssignReply::StoreAway { why }));
        }
        let waiting = vec![responder];
        self.in_flight.insert(id, InFlight { tasks: Arc::clone(&assign.tasks), waiting });
        Ok(Begin::Write)
    }

    /// A batch ended: answers all who wait for it.
    pub(super) fn finish(&mut self, id: &BatchId, reply: &AssignReply) {
        let Some(ended) = self.in_flight.remove(id) else { return };
        let response = Response::Assign(reply.clone());
        for responder in ended.waiting {
            // A caller that gave up asks again, or its link is gone.
            let _ = responder.send(&response);
        }
    }

    /// How many are under way.
    pub(super) fn len(&self) -> usize {
        self.in_flight.len()
    }
}

#[cfg(all(test, feature = "net"))]
mod tests {
    use super::*;
    use crate::{
        env::real::RealWorld,
        model::{
            ids::{Author, Incarnation, PostId, Registration, SessionKey, StoreEpoch, UserId},
            rows::{Holder, Lease},
        },
        store::sqlite::{NewCluster, memory},
    };

    const ME: NodeId = NodeId([1; 16]);
    const MASTER: NodeId = NodeId([2; 16]);

    struct Bench {
        env: Env,
        store: Store,
        n: u64,
    }

    impl Bench {
        fn new() -> Self {
            let new = NewCluster { cluster: [1; 16], epoch: StoreEpoch(7), now_ms: 1000 };
            let store = memory::open(&new, || 1000).expect("opens");
            let world = RealWorld::temporary().expect("a directory of its own");
            Self { env: Env::new(world), store, n: 0 }
        }

        async fn write(&mut self, resource: Resource, tasks: Vec<Task>) -> Written {
            let holder = Holder { node: MASTER, incarnation: Incarnation(1) };
            let granted = self.store.acquire_lease(resource.clone(), holder, 3000).await;
            let Ok(Lease::Granted { epoch, lease, .. }) = granted else { panic!("{granted:?}") };
            self.n += 1;
            let token = Token { epoch, lease, n: self.n };
            let permission = Permission { resource, token, worker: ME };
            let (registration, tasks) = (Registration(1), tasks.into());
            let assign = Assign { registration, permission, tasks };
            write(&self.env, &self.store, ME, Duration::from_secs(5), &assign).await
        }

        async fn results(&mut self, resource: Resource, tasks: Vec<Task>) -> Vec<TaskResult> {
            match self.write(resource, tasks).await.reply {
                AssignReply::Done(results) => results,
                other => panic!("{other:?}"),
            }
        }
    }

    fn ann() -> Author {
        Author { id: UserId([9; 16]), name: "ann".parse().expect("a name") }
    }

    fn post(n: u8, board: &BoardName) -> Task {
        let text = format!("post {n}").parse().expect("a text");
        let post = NewPost { id: PostId([n; 16]), author: ann(), text };
        Task::Post { board: board.clone(), post }
    }

    fn is_unknown(result: &TaskResult) -> bool {
        matches!(result, TaskResult::Refused(why) if matches!(**why, StoreError::Unknown { .. }))
    }

    #[tokio::test]
    async fn a_board_is_created_then_written_and_others_boards_are_refused() {
        let mut bench = Bench::new();
        let dev: BoardName = "dev".parse().expect("a board");
        let on_dev = || Resource::Board(dev.clone());
        let unknown = bench.results(on_dev(), vec![post(1, &dev), post(2, &dev)]).await;
        assert!(unknown.len() == 2 && unknown.iter().all(is_unknown), "{unknown:?}");
        let create = Task::CreateBoard { board: dev.clone() };
        assert_eq!(bench.results(on_dev(), vec![create.clone()]).await, [TaskResult::Done]);
        let close = Task::CloseSession { key: SessionKey([1; 32]) };
        let tasks = vec![post(1, &dev), post(3, &BoardName::lobby()), post(2, &dev), close];
        let mixed = bench.write(on_dev(), tasks).await;
        let AssignReply::Done(results) = &mixed.reply else { panic!("{mixed:?}") };
        let kinds: Vec<_> = results.iter().map(|r| matches!(r, TaskResult::Posted(_))).collect();
        assert_eq!(kinds, [true, false, true, false]);
        let [Update::Posts { posts, .. }] = &mixed.news[..] else { panic!("{mixed:?}") };
        assert_eq!(posts.iter().map(|post| post.seq.0).collect::<Vec<_>>(), [1, 2]);
        let lobby = Resource::Board(BoardName::lobby());
        let elsewhere = bench.results(lobby, vec![create]).await;
        let is_refused = matches!(&elsewhere[..], [TaskResult::Refused(why)]
            if matches!(**why, StoreError::Refused { .. }));
        assert!(is_refused, "{elsewhere:?}");
    }

    #[tokio::test]
    async fn what_is_no_post_goes_by_its_own_operation() {
        let mut bench = Bench::new();
        let sessions = || Resource::Sessions(MASTER);
        let (key, other, ticket) = (SessionKey([1; 32]), SessionKey([2; 32]), [3; 32]);
        let cancel = |id| Task::CancelPost { user: ann().id, id: PostId([id; 16]) };
        bench
            .results(Resource::Board(BoardName::lobby()), vec![post(1, &BoardName::lobby())])
            .await;
        bench.n = 0;
        let tasks = vec![
            Task::OpenSession { key, user: ann() },
            Task::SetReadMark { key, board: BoardName::lobby(), seq: Seq(1) },
            Task::PutTicket { key, ticket_sha256: ticket },
            Task::RedeemTicket { ticket_sha256: ticket, key: other },
            cancel(1),
            cancel(2),
            Task::CloseSession { key },
            Task::SetReadMark { key, board: BoardName::lobby(), seq: Seq(1) },
        ];
        let results = bench.results(sessions(), tasks).await;
        assert_eq!(results[..3], [TaskResult::Done, TaskResult::Done, TaskResult::Done]);
        assert!(matches!(&results[3], TaskResult::Session(row) if row.key == other));
        assert!(matches!(&results[4], TaskResult::AlreadyCommitted(post) if post.seq == Seq(1)));
        assert_eq!(results[5..7], [TaskResult::Cancelled, TaskResult::Done]);
        assert!(is_unknown(&results[7]));
    }

    #[tokio::test]
    async fn a_permission_of_another_worker_is_the_batchs_fault() {
        let bench = Bench::new();
        let token = Token { epoch: StoreEpoch(7), lease: 1, n: 1 };
        let resource = Resource::Board(BoardName::lobby());
        let permission = Permission { resource, token, worker: MASTER };
        let tasks = vec![post(1, &BoardName::lobby())].into();
        let assign = Assign { registration: Registration(1), permission, tasks };
        let written = write(&bench.env, &bench.store, ME, Duration::from_secs(5), &assign).await;
        assert!(matches!(written.reply, AssignReply::Broken { .. }), "{written:?}");
    }

    #[test]
    fn every_error_of_the_store_is_a_result_or_an_end() {
        let why = || "x".to_owned();
        let kind = |error| match judge(error) {
            Ok(TaskResult::Refused(_)) => "refused",
            Ok(_) => "another result",
            Err(Stopped::Away(_)) => "away",
            Err(Stopped::Fenced) => "fenced",
            Err(Stopped::Broken(_)) => "broken",
        };
        let (token, seen) = (Token::default(), Token::default());
        assert_eq!(kind(StoreError::Away { why: why() }), "away");
        assert_eq!(kind(StoreError::Fenced { token, seen }), "fenced");
        assert_eq!(kind(StoreError::Unknown { what: why() }), "refused");
        assert_eq!(kind(StoreError::Refused { why: why() }), "refused");
        assert_eq!(kind(StoreError::Broken { why: why() }), "broken");
        assert_eq!(kind(StoreError::Stale), "broken");
    }
}
