//! Batches: what a worker does with an [`Assign`].
//!
//! 1. Posts of a batch that stand together go to the store in one append.
//! 2. A batch has an answer within its limit: a store that does not answer is *away*.
//! 3. One token is carried out once at a time: the same batch asked for again meanwhile gets
//!    the same answer.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    comm::Responder,
    env::{Env, TimedOut},
    event::Moment,
    message::{Assign, AssignReply, News, Response, Task, TaskResult},
    store::{Appended, Found, NewPost, Op, Permission, Reply, Store, StoreError},
    types::{BoardName, NodeId, Post, Resource, Seq, Token},
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
    pub news: Vec<News>,
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
        StoreError::Unknown { .. } | StoreError::Refused { .. } => Ok(TaskResult::Refused(error)),
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
    match env.timeout(limit, write_all(env, store, assign)).await {
        Ok(Ok((results, news))) => Written { reply: AssignReply::Done(results), news },
        Ok(Err(stopped)) => Written::nothing(stopped.into()),
        Err(TimedOut) => {
            let why = format!("no answer in {} ms", limit.as_millis());
            Written::nothing(AssignReply::StoreAway { why })
        }
    }
}

async fn write_all(
    env: &Env,
    store: &Store,
    assign: &Assign,
) -> Result<(Vec<TaskResult>, Vec<News>), Stopped> {
    let permission = &assign.permission;
    let (mut results, mut news) = (Vec::new(), Vec::new());
    let mut rest = assign.tasks.iter().peekable();
    while let Some(task) = rest.next() {
        let Some((board, post)) = as_post(task, permission) else {
            results.push(write_one(store, permission, task).await?);
            continue;
        };
        let mut posts = vec![post.clone()];
        while let Some((_, post)) = rest.peek().and_then(|task| as_post(task, permission)) {
            posts.push(post.clone());
            rest.next();
        }
        match store.append(permission.clone(), posts.clone()).await {
            Ok(appended) if appended.len() == posts.len() => {
                env.moment(Moment::AppendCommitted);
                news.extend(committed(permission.token, board, &posts, &appended));
                results.extend(appended.into_iter().map(TaskResult::Posted));
            }
            Ok(appended) => {
                let why = format!("{} results for {} posts", appended.len(), posts.len());
                return Err(Stopped::Broken(why));
            }
            Err(error) => {
                let result = judge(error)?;
                results.extend(std::iter::repeat_n(result, posts.len()));
            }
        }
    }
    Ok((results, news))
}

/// A post of the board that the permission covers.
fn as_post<'a>(task: &'a Task, permission: &Permission) -> Option<(&'a BoardName, &'a NewPost)> {
    match (task, &permission.resource) {
        (Task::Post { board, post }, Resource::Board(covered)) if board == covered => {
            Some((board, post))
        }
        _ => None,
    }
}

/// The posts that this append put into the board: their places are one run.
fn committed(
    token: Token,
    board: &BoardName,
    posts: &[NewPost],
    appended: &[Appended],
) -> Option<News> {
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
    Some(News::Posts { epoch: token.epoch, board: board.clone(), posts: committed, as_of_ms })
}

async fn write_one(
    store: &Store,
    permission: &Permission,
    task: &Task,
) -> Result<TaskResult, Stopped> {
    let Some(op) = op_of(task, permission) else {
        let why = format!("not covered by the permission of {}", permission.resource);
        return Ok(TaskResult::Refused(StoreError::Refused { why }));
    };
    match store.call(op).await {
        Ok(Reply::Done) => Ok(TaskResult::Done),
        Ok(Reply::Found(Found::Cancelled)) => Ok(TaskResult::Cancelled),
        Ok(Reply::Found(Found::Committed(post))) => Ok(TaskResult::AlreadyCommitted(post)),
        Ok(Reply::Session(Some(row))) => Ok(TaskResult::Session(row)),
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
    tasks: Arc<[Task]>,
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
