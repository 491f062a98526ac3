//! Batches that a worker writes, from an [`Assign`] to its answer.
//!
//! 1. A batch is one write to the store: one result per task. The batches of one call reach the store
//!    together, in their order, so that they share a transaction there.
//! 2. A batch is answered within its limit: a store that does not answer is *away*.
//! 3. The batch of a token is written once at a time: a repeated request meanwhile gets the same
//!    answer.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    comm::Responder,
    config::WORKER_BATCHES_MAX,
    env::{Env, TimedOut},
    model::{
        bounds::WHY_LEN_MAX,
        ids::{NodeId, Post, Registration, Resource, Token},
        message::{Assign, AssignReply, Task, Update},
        outcome::TaskResult,
        rows::{Permission, StoreError},
    },
    node::parts::{Part, PartedCalls},
    store::Store,
};

/// Maximum number of batches that a worker writes at a time; more are turned back at once.
pub(super) const BATCHES_MAX: usize = 2 * WORKER_BATCHES_MAX;

/// Outcome of a batch.
#[derive(Debug)]
pub(super) struct Written {
    /// Answer to the master.
    pub reply: AssignReply,
    /// Posts that it put into the store, for the node database.
    pub update: Option<Update>,
}

impl Written {
    fn nothing(reply: AssignReply) -> Self {
        Self { reply, update: None }
    }
}

/// Cuts a reason, so that the answers of a call fit into a frame.
fn short(mut why: String) -> String {
    why.truncate(why.floor_char_boundary(WHY_LEN_MAX));
    why
}

/// Returns the answer to a batch that the store did not accept.
fn reply_to(error: StoreError) -> AssignReply {
    match error {
        StoreError::Away { why, .. } => AssignReply::StoreAway { why: short(why) },
        StoreError::Busy => AssignReply::Busy,
        StoreError::Fenced { .. } => AssignReply::Fenced,
        StoreError::NotNext { .. } => AssignReply::NotNext,
        StoreError::Unknown { .. }
        | StoreError::Refused { .. }
        | StoreError::Stale
        | StoreError::InUse { .. }
        | StoreError::Broken { .. } => AssignReply::Broken { why: short(error.to_string()) },
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
    let Assign { permission, tasks, .. } = assign;
    if permission.worker != me {
        let why = format!("the permission names {}", permission.worker);
        return Written::nothing(AssignReply::Broken { why });
    }
    match env.timeout(limit, store.write(permission.clone(), Arc::clone(tasks))).await {
        Ok(Ok(results)) => {
            let update = committed(permission, tasks, &results);
            Written { reply: AssignReply::Done(results), update }
        }
        Ok(Err(error)) => Written::nothing(reply_to(error)),
        Err(TimedOut) => {
            let why = format!("no answer in {} ms", limit.as_millis());
            Written::nothing(AssignReply::StoreAway { why })
        }
    }
}

/// Returns the posts that a batch put into its board: their places are one run.
fn committed(permission: &Permission, tasks: &[Task], results: &[TaskResult]) -> Option<Update> {
    let Resource::Board(board) = &permission.resource else { return None };
    let mut posts: Vec<Post> = Vec::new();
    for (task, result) in tasks.iter().zip(results) {
        if let (Task::Post { post, .. }, TaskResult::Committed { seq, posted_at_ms }) =
            (task, result)
        {
            posts.push(Post {
                id: post.id,
                board: board.clone(),
                seq: *seq,
                author: post.author.clone(),
                text: post.text.clone(),
                posted_at_ms: *posted_at_ms,
            });
        }
    }
    let as_of_ms = posts.last()?.posted_at_ms;
    Some(Update::Posts { epoch: permission.token.epoch, board: board.clone(), posts, as_of_ms })
}

/// Batches that are being written, each with the calls that wait for it.
#[derive(Debug, Default)]
pub(super) struct Batches {
    in_flight: BTreeMap<BatchId, InFlight>,
    calls: PartedCalls<Responder, AssignReply>,
}

/// Name of a batch.
pub(super) type BatchId = (Resource, Token);

/// Call with an answer to each of its batches.
pub(super) type Answered = (Responder, Vec<AssignReply>);

#[derive(Debug)]
struct InFlight {
    tasks: Arc<Vec<Task>>,
    waiting: Vec<Part>,
}

/// Next step for a batch that was asked for.
#[derive(Debug, PartialEq, Eq)]
enum Begin {
    /// Write it, then [`Batches::finish`].
    Write,
    /// It is being written; this call waits for it.
    Wait,
}

/// Next steps for a call.
#[derive(Debug, Default)]
pub(super) struct Begun {
    /// Batches to write; each is then to be ended by [`Batches::finish`].
    pub write: Vec<Assign>,
    /// Whether one of them is being written already.
    pub waits: bool,
    /// The call, if it has all its answers.
    pub answered: Option<Answered>,
}

impl Batches {
    /// Takes a call. Batches of another registration than `mine` are refused, and those beyond `room`
    /// of them at a time, or whose token is in use for another batch.
    pub(super) fn begin(
        &mut self,
        mine: Option<Registration>,
        room: usize,
        batches: Vec<Assign>,
        reply: Responder,
    ) -> Begun {
        let mut begun = Begun::default();
        if batches.is_empty() {
            begun.answered = Some((reply, Vec::new()));
            return begun;
        }
        let parts = self.calls.open(reply, batches.len());
        for (part, assign) in parts.zip(batches) {
            let next = if mine == Some(assign.registration) {
                self.begin_one(&assign, room, part)
            } else {
                Err(AssignReply::StaleRegistration)
            };
            match next {
                Ok(Begin::Write) => begun.write.push(assign),
                Ok(Begin::Wait) => begun.waits = true,
                Err(said) => begun.answered = self.calls.answer(part, said),
            }
        }
        begun
    }

    fn begin_one(
        &mut self,
        assign: &Assign,
        room: usize,
        part: Part,
    ) -> Result<Begin, AssignReply> {
        let id = (assign.permission.resource.clone(), assign.permission.token);
        if let Some(known) = self.in_flight.get_mut(&id) {
            if known.tasks != assign.tasks {
                let why = "the token is in use for another batch".to_owned();
                return Err(AssignReply::Broken { why });
            }
            // The call before may have been given up. It waits all the same, so that it ends: there are
            // no more than are made within the store's time-out.
            known.waiting.push(part);
            return Ok(Begin::Wait);
        }
        if self.in_flight.len() >= room {
            return Err(AssignReply::Busy);
        }
        let tasks = Arc::clone(&assign.tasks);
        self.in_flight.insert(id, InFlight { tasks, waiting: vec![part] });
        Ok(Begin::Write)
    }

    /// Ends a batch. Returns the calls that waited for it and now have all their answers.
    pub(super) fn finish(&mut self, id: &BatchId, reply: &AssignReply) -> Vec<Answered> {
        let ended = self.in_flight.remove(id);
        let waiting = ended.into_iter().flat_map(|ended| ended.waiting);
        waiting.filter_map(|part| self.calls.answer(part, reply.clone())).collect()
    }

    /// Number of batches under way.
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
            absence::AwayReason,
            ids::{
                Author, BoardName, Incarnation, PostId, Registration, Seq, SessionKey, StoreEpoch,
                UserId,
            },
            rows::{Holder, Lease, NewPost},
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
            let permission = Permission { resource, token, after: None, worker: ME };
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
    async fn board_is_created_then_written_and_other_boards_are_refused() {
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
        let committed = |result: &TaskResult| matches!(result, TaskResult::Committed { .. });
        assert_eq!(results.iter().map(committed).collect::<Vec<_>>(), [true, false, true, false]);
        let Some(Update::Posts { posts, .. }) = &mixed.update else { panic!("{mixed:?}") };
        assert_eq!(posts.iter().map(|post| post.seq.0).collect::<Vec<_>>(), [1, 2]);
        let lobby = Resource::Board(BoardName::lobby());
        let elsewhere = bench.results(lobby, vec![create]).await;
        let is_refused = matches!(&elsewhere[..], [TaskResult::Refused(why)]
            if matches!(**why, StoreError::Refused { .. }));
        assert!(is_refused, "{elsewhere:?}");
    }

    #[tokio::test]
    async fn batch_of_sessions_has_one_result_per_task() {
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
    async fn permission_of_another_worker_breaks_the_batch() {
        let bench = Bench::new();
        let token = Token { epoch: StoreEpoch(7), lease: 1, n: 1 };
        let resource = Resource::Board(BoardName::lobby());
        let permission = Permission { resource, token, after: None, worker: MASTER };
        let tasks = vec![post(1, &BoardName::lobby())].into();
        let assign = Assign { registration: Registration(1), permission, tasks };
        let written = write(&bench.env, &bench.store, ME, Duration::from_secs(5), &assign).await;
        assert!(matches!(written.reply, AssignReply::Broken { .. }), "{written:?}");
    }

    #[test]
    fn each_store_error_has_its_answer() {
        let why = || "x".to_owned();
        let kind = |error| match reply_to(error) {
            AssignReply::StoreAway { .. } => "away",
            AssignReply::Fenced => "fenced",
            AssignReply::NotNext => "not next",
            AssignReply::Broken { .. } => "broken",
            AssignReply::Busy => "busy",
            AssignReply::Done(_) | AssignReply::StaleRegistration => "another",
        };
        let (token, seen) = (Token::default(), Token::default());
        assert_eq!(kind(StoreError::away(AwayReason::Full, why())), "away");
        assert_eq!(kind(StoreError::Busy), "busy");
        assert_eq!(kind(StoreError::Fenced { token, seen }), "fenced");
        assert_eq!(kind(StoreError::NotNext { after: 1, seen }), "not next");
        assert_eq!(kind(StoreError::Unknown { what: why() }), "broken");
        assert_eq!(kind(StoreError::Refused { why: why() }), "broken");
        assert_eq!(kind(StoreError::Broken { why: why() }), "broken");
        assert_eq!(kind(StoreError::Stale), "broken");
    }
}
