//! Tests of a small cluster in one process: whole nodes over real sockets, a store in memory, and
//! the real client.

mod closings;
mod held;
mod lives;
mod log_outs;
mod operators;
mod readiness;
mod restored;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    api::{Node, PostState, SessionRestored, StoreReach, StreamEvent, TicketIssued},
    client::{
        Answer, ChatClient, Failure, Follow, FollowEvent, Limits, MasterList, Method, NoObserver,
        Request,
    },
    comm::key_source::IDENTITY_FILE,
    config::Config,
    env::{
        BoxFuture, Env,
        real::{RealWorld, TempDir},
    },
    model::{
        absence::AwayReason,
        copies::SessionEntry,
        held::HeldPost,
        ids::{BoardName, Cursor, NodeId, Role, Seq, StoreEpoch},
        message::MemberState,
        rows::{NewPost, Range, StoreError},
        stream::{Consistency, HeldState},
    },
    replica::{Check, Replica, ReplicaLimits},
    store::{
        Backend, NewEnds, Op, OpReply, Store,
        sqlite::{self, NewCluster, SqliteCore, memory},
    },
    testing::{
        cluster::{NodeParts, TestCluster},
        keys::TestKeys,
    },
};

const SOON: Duration = Duration::from_secs(40);

async fn start(masters: usize, workers: usize) -> TestCluster {
    start_with(masters, workers, &Config::default()).await
}

async fn start_with(masters: usize, workers: usize, config: &Config) -> TestCluster {
    let clock = env();
    let store = memory::open(&new_cluster(&clock), move || clock.wall().ms).expect("opens");
    start_on(masters, workers, store, config).await
}

fn new_cluster(clock: &Env) -> NewCluster {
    NewCluster { cluster: [1; 16], epoch: StoreEpoch(7), now_ms: clock.wall().ms }
}

async fn start_on(masters: usize, workers: usize, store: Store, config: &Config) -> TestCluster {
    let node = |role, number: usize| {
        let number = u8::try_from(number).expect("a few nodes");
        let first_key = match role {
            Role::Master => 100 + 20 * number,
            Role::Worker => 180 + 10 * number,
        };
        NodeParts { env: env(), store: store.clone(), keys: TestKeys::from(first_key) }
    };
    TestCluster::start(masters, workers, config, node).await
}

/// Returns a client that begins at master `first`, with a session if it has one.
fn client(cluster: &TestCluster, first: usize, token: Option<String>) -> ChatClient {
    let roster = MasterList::new(cluster.urls(), first).expect("there is a master");
    ChatClient::new(&env(), roster, token, Limits::default(), Arc::new(NoObserver))
}

fn env() -> Env {
    Env::new(RealWorld::temporary().expect("a directory of its own"))
}

async fn within<T>(client: &ChatClient, what: &str, work: impl Future<Output = T>) -> T {
    client.env().timeout(SOON, work).await.unwrap_or_else(|_| panic!("{what} took over {SOON:?}"))
}

/// Returns the client's session as its master restores it.
async fn restored(client: &ChatClient) -> SessionRestored {
    match client.call(&Request::Restore, SOON).await {
        Ok(Answer::Restored(restored)) => restored,
        other => panic!("not restored: {other:?}"),
    }
}

/// Waits until a stream is open.
async fn opens(client: &ChatClient, follow: &mut Follow) {
    let opened = async {
        while !matches!(follow.next().await, FollowEvent::Event(StreamEvent::Hello(_))) {}
    };
    within(client, "a stream", opened).await;
}

async fn say(client: &ChatClient, text: &str) -> Seq {
    let text = text.parse().expect("a text");
    let lobby = BoardName::lobby();
    let sent = client.send(&lobby, client.new_post_id(), text);
    within(client, "a post", sent).await.expect("posted").seq
}

async fn read(client: &ChatClient, wanted: Consistency) -> (Vec<String>, Consistency) {
    let (board, range) = (BoardName::lobby(), Range::After(Seq(0)));
    let request = Request::Read { board, range, limit: 50, wanted };
    match client.call(&request, SOON).await {
        Ok(Answer::Page(page)) => {
            let texts = page.posts.iter().map(|post| post.text.as_str().to_owned()).collect();
            (texts, page.consistency)
        }
        other => panic!("{other:?}"),
    }
}

/// Returns the masters of the workers that the client's master knows, and that master.
async fn masters_of_workers(client: &ChatClient) -> (Vec<NodeId>, NodeId) {
    match client.call(&Request::Cluster, SOON).await {
        Ok(Answer::Cluster(seen)) => {
            let is_worker =
                |node: &&Node| (node.role, node.state) == (Role::Worker, MemberState::In);
            (seen.nodes.iter().filter(is_worker).map(|node| node.master).collect(), seen.node)
        }
        other => panic!("{other:?}"),
    }
}

/// Returns the number of workers that the client's master knows.
async fn workers(client: &ChatClient) -> usize {
    masters_of_workers(client).await.0.len()
}

/// Returns the number of workers registered with the client's master.
async fn workers_of_its_own(client: &ChatClient) -> usize {
    let (masters, own) = masters_of_workers(client).await;
    masters.into_iter().filter(|master| *master == own).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_are_taken_by_any_master_and_outlive_the_worker_that_wrote_them() {
    let mut cluster = start(2, 2).await;
    let ann = client(&cluster, 0, None);
    ann.open_session("ann".parse().expect("a name"), SOON).await.expect("a session");
    assert_eq!(say(&ann, "one").await, Seq(1));
    let elsewhere = client(&cluster, 1, ann.token());
    assert_eq!(say(&elsewhere, "two").await, Seq(2));
    let strong = (vec!["one".to_owned(), "two".to_owned()], Consistency::Strong);
    assert_eq!(read(&ann, Consistency::Strong).await, strong);
    let weak = async {
        loop {
            let (texts, consistency) = read(&ann, Consistency::Weak).await;
            assert_eq!(consistency, Consistency::Weak);
            if texts == strong.0 {
                break;
            }
            ann.env().sleep(Duration::from_millis(50)).await;
        }
    };
    within(&ann, "a weak read of all", weak).await;
    // One of two workers dies.
    cluster.stop_worker(0);
    assert_eq!(say(&ann, "three").await, Seq(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_and_clients_move_when_their_master_dies() {
    let mut cluster = start(2, 2).await;
    let ann = client(&cluster, 0, None);
    ann.open_session("ann".parse().expect("a name"), SOON).await.expect("a session");
    assert_eq!(say(&ann, "one").await, Seq(1));
    let bob = client(&cluster, 1, None);
    bob.open_session("bob".parse().expect("a name"), SOON).await.expect("a session");
    // The coordinator of the lobby dies.
    cluster.stop_master(0);
    assert_eq!(say(&bob, "two").await, Seq(2));
    assert_eq!(say(&ann, "three").await, Seq(3));
    assert!(ann.master().starts_with(&cluster.urls()[1]), "{ann:?}");
    let moved = async {
        while workers_of_its_own(&bob).await < 2 {
            bob.env().sleep(Duration::from_millis(100)).await;
        }
    };
    within(&bob, "the move of both workers", moved).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_mark_is_seen_at_once_by_another_session_of_its_user() {
    let cluster = start(1, 1).await;
    let ann = client(&cluster, 0, None);
    ann.open_session("ann".parse().expect("a name"), SOON).await.expect("a session");
    let end = say(&ann, "one").await;
    let second = client(&cluster, 0, Some(second_session(&ann).await));
    assert_eq!(mark_of(&second).await, (Seq(0), Consistency::Strong));
    let mark = Request::ReadMark { board: BoardName::lobby(), seq: end };
    assert_eq!(ann.call(&mark, SOON).await, Ok(Answer::Done));
    assert_eq!(mark_of(&second).await, (end, Consistency::Strong));
}

/// Returns the client's read mark of the lobby, as the list of boards has it.
async fn mark_of(client: &ChatClient) -> (Seq, Consistency) {
    match client.call(&Request::Boards, SOON).await {
        Ok(Answer::Boards(list)) => (list.boards[0].read_mark, list.consistency),
        other => panic!("{other:?}"),
    }
}

/// Opens a second session of the client's user by a ticket, and returns its token.
async fn second_session(client: &ChatClient) -> String {
    let mut api = client.api(&client.master());
    let issued = api.raw(Method::POST, "/api/v1/handover", None).await.expect("a ticket");
    let issued: TicketIssued = serde_json::from_slice(&issued.body).expect("a ticket");
    let body = serde_json::json!({ "ticket": issued.ticket }).to_string();
    let master = client.master();
    let address = master.strip_prefix("http://").expect("a URL");
    let mut stream = client.env().connect(address, SOON).await.expect("it listens");
    let request = format!(
        "POST /api/v1/handover/redeem HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    // A browser's session is told by its cookie only.
    let cookie = answer.lines().find(|line| line.starts_with("set-cookie:")).expect("a cookie");
    let (_, token) =
        cookie.split(';').next().and_then(|pair| pair.split_once('=')).expect("a pair");
    token.to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reader_far_behind_many_quiet_boards_catches_up_on_either_master() {
    const POSTS: u64 = 400;
    let config = Config {
        session_requests_per_s: 1_000_000,
        session_requests_burst: 1_000_000,
        // Most of the lobby is no longer in memory.
        tail_posts_max: 150,
        ..Config::default()
    };
    let cluster = start_with(2, 1, &config).await;
    let ann = client(&cluster, 0, None);
    ann.open_session("ann".parse().expect("a name"), SOON).await.expect("a session");
    let mut boards = vec![BoardName::lobby()];
    for nth in 1..30 {
        let board: BoardName = format!("board-{nth}").parse().expect("a name");
        ann.call(&Request::CreateBoard { board: board.clone() }, SOON).await.expect("a board");
        boards.push(board);
    }
    let text = |n: u64| format!("number {n}").parse().expect("a text");
    // A client each, since the posts of one outbox to one board wait for each other.
    let writers = (0..8).map(|writer| {
        let (ann, boards) = (client(&cluster, 0, ann.token()), &boards);
        async move {
            for n in (writer..POSTS).step_by(8) {
                let other = &boards[1 + usize::try_from(n).expect("small") % (boards.len() - 1)];
                for board in [&boards[0], other] {
                    let sent = ann.send(board, ann.new_post_id(), text(n));
                    within(&ann, "a post", sent).await.expect("posted");
                }
            }
        }
    });
    join_all(writers).await;
    let cursor = Cursor {
        epoch: StoreEpoch(7),
        boards: boards.iter().map(|board| (board.clone(), Seq(0))).collect(),
    };
    for first in [0, 1] {
        let reader = client(&cluster, first, ann.token());
        let mut follow = reader.follow(boards.clone(), Some(cursor.clone()));
        let all = async {
            let mut seen = BTreeMap::new();
            while seen.values().sum::<u64>() < 2 * POSTS {
                if let FollowEvent::Event(StreamEvent::Post(post)) = follow.next().await {
                    let at = seen.entry(post.board.clone()).or_insert(0);
                    *at += 1;
                    assert_eq!(post.seq, Seq(*at), "{}", post.board);
                }
            }
        };
        within(&reader, "catching up", all).await;
    }
}

/// Store in memory whose reads of the boards wait while `gate` is locked.
struct HeldUp {
    core: Mutex<SqliteCore>,
    clock: Env,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    lock: tokio::sync::Mutex<()>,
    waiting: AtomicUsize,
}

impl Backend for HeldUp {
    fn call(&self, op: Op) -> BoxFuture<'_, Result<OpReply, StoreError>> {
        Box::pin(async move {
            if matches!(op, Op::Boards) {
                self.gate.waiting.fetch_add(1, Ordering::SeqCst);
                drop(self.gate.lock.lock().await);
                self.gate.waiting.fetch_sub(1, Ordering::SeqCst);
            }
            self.core.lock().expect("not poisoned").apply(&op, self.clock.wall().ms)
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_of_a_session_that_was_closed_meanwhile_does_not_open() {
    let (clock, gate) = (env(), Arc::new(Gate::default()));
    let core = SqliteCore::open_in_memory(&new_cluster(&clock)).expect("opens");
    let store = Store::new(HeldUp { core: Mutex::new(core), clock, gate: gate.clone() });
    let cluster = start_on(1, 1, store, &Config::default()).await;
    let ann = client(&cluster, 0, None);
    ann.open_session("ann".parse().expect("a name"), SOON).await.expect("a session");
    let held_up = gate.lock.lock().await;
    let api = ann.api(&ann.master());
    let boards = [BoardName::lobby()];
    let logging_out = async {
        // The master's poll, and the stream.
        while gate.waiting.load(Ordering::SeqCst) < 2 {
            ann.env().sleep(Duration::from_millis(10)).await;
        }
        let left = ann.call(&Request::Leave, SOON).await;
        drop(held_up);
        left
    };
    let both = async { tokio::join!(api.stream(&boards, None), logging_out) };
    let (opened, left) = within(&ann, "a log-out while a stream opens", both).await;
    assert_eq!(left, Ok(Answer::Done));
    let refused = opened.err();
    assert!(matches!(refused, Some(Failure::Refused { status: 401, .. })), "{refused:?}");
}

/// Reason for which a store fails; `None` for one that works.
type Failing = Arc<Mutex<Option<AwayReason>>>;

/// Store in memory whose file a test can make fail, or replace by another.
struct Fragile {
    core: Arc<Mutex<SqliteCore>>,
    failure: Failing,
    clock: Env,
}

impl Fragile {
    /// Returns a new store, and the reason for which it fails from now on.
    fn in_memory() -> (Store, Failing) {
        let clock = env();
        let core = SqliteCore::open_in_memory(&new_cluster(&clock)).expect("opens");
        let (core, failure) = (Arc::new(Mutex::new(core)), Failing::default());
        (Store::new(Self { core, failure: Arc::clone(&failure), clock }), failure)
    }
}

impl Backend for Fragile {
    fn call(&self, op: Op) -> BoxFuture<'_, Result<OpReply, StoreError>> {
        Box::pin(async move {
            if let Some(reason) = *self.failure.lock().expect("not poisoned") {
                return Err(StoreError::away(reason, "on purpose"));
            }
            self.core.lock().expect("not poisoned").apply(&op, self.clock.wall().ms)
        })
    }
}

/// Cluster's store in a file of a directory, where a test can put other stores in its place.
struct StoreFile {
    dir: TempDir,
    new: NewCluster,
    core: Arc<Mutex<SqliteCore>>,
}

impl StoreFile {
    /// Name of the file with which it begins.
    const NAME: &str = "store.db";

    fn new() -> Self {
        let (dir, new) = (TempDir::new().expect("a directory"), new_cluster(&env()));
        let core = SqliteCore::open_file(&dir.path().join(Self::NAME), &new, SOON).expect("opens");
        Self { dir, new, core: Arc::new(Mutex::new(core)) }
    }

    fn store(&self) -> Store {
        let failure = Arc::new(Mutex::new(None));
        Store::new(Fragile { core: Arc::clone(&self.core), failure, clock: env() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn open(&self, name: &str) -> SqliteCore {
        SqliteCore::open_file(&self.path(name), &self.new, SOON).expect("opens")
    }

    /// Puts another store in the place of the present one, and returns that.
    fn replace(&self, core: SqliteCore) -> SqliteCore {
        std::mem::replace(&mut *self.core.lock().expect("not poisoned"), core)
    }
}

/// Waits until the cluster tells this reason for the store's absence; `None` for a store that is
/// here.
async fn reason_is(client: &ChatClient, wanted: Option<AwayReason>) {
    let told = async {
        loop {
            let reach = match client.call(&Request::Cluster, SOON).await {
                Ok(Answer::Cluster(seen)) => (seen.store, seen.store_reason),
                other => panic!("{other:?}"),
            };
            let here = if wanted.is_none() { StoreReach::Here } else { StoreReach::Away };
            if reach == (here, wanted) {
                break;
            }
            client.env().sleep(Duration::from_millis(50)).await;
        }
    };
    within(client, "the reason", told).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absence_of_the_store_names_its_reason_until_it_is_back() {
    let (store, failure) = Fragile::in_memory();
    let cluster = start_on(1, 1, store, &Config::default()).await;
    let ann = client(&cluster, 0, None);
    ann.open_session("ann".parse().expect("a name"), SOON).await.expect("a session");
    reason_is(&ann, None).await;
    for reason in [AwayReason::Full, AwayReason::Gone] {
        *failure.lock().expect("not poisoned") = Some(reason);
        reason_is(&ann, Some(reason)).await;
    }
    *failure.lock().expect("not poisoned") = None;
    reason_is(&ann, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_that_lacks_posts_of_its_epoch_is_away_and_no_strong_read_is_served() {
    let file = StoreFile::new();
    let cluster = start_on(1, 1, file.store(), &Config::default()).await;
    let ann = client(&cluster, 0, None);
    ann.open_session("ann".parse().expect("a name"), SOON).await.expect("a session");
    {
        let _nobody_writes = file.core.lock().expect("not poisoned");
        for end in ["", "-wal"] {
            let name = |name: &str| file.path(&format!("{name}{end}"));
            std::fs::copy(name(StoreFile::NAME), name("older.db")).expect("copied");
        }
    }
    assert_eq!(say(&ann, "one").await, Seq(1));
    let copied = async {
        while read(&ann, Consistency::Weak).await.0.is_empty() {
            ann.env().sleep(Duration::from_millis(50)).await;
        }
    };
    within(&ann, "a copy at the worker", copied).await;
    // Longer than a poll, so that both know what they have.
    ann.env().sleep(Duration::from_millis(1500)).await;
    let newer = file.replace(file.open("older.db"));
    reason_is(&ann, Some(AwayReason::RolledBack)).await;
    assert_eq!(read(&ann, Consistency::Strong).await, (vec!["one".to_owned()], Consistency::Weak));
    drop(file.replace(newer));
    reason_is(&ann, None).await;
    assert_eq!(say(&ann, "two").await, Seq(2));
}

/// Store of one node, which may be cut off.
struct Cut {
    inner: Store,
    is_cut: Arc<AtomicBool>,
    /// Whether this node may read a session of a bucket; it is set once it did.
    sessions: Option<Arc<AtomicBool>>,
}

impl Backend for Cut {
    fn call(&self, op: Op) -> BoxFuture<'_, Result<OpReply, StoreError>> {
        Box::pin(async move {
            let is_hidden = matches!(op, Op::SessionDigests) && self.sessions.is_none();
            if is_hidden || self.is_cut.load(Ordering::SeqCst) {
                return Err(StoreError::away(AwayReason::Unreachable, "cut off"));
            }
            let reply = self.inner.call(op).await?;
            if let (OpReply::Sessions(page), Some(sessions)) = (&reply, &self.sessions) {
                let is_ann = |entry: &SessionEntry| matches!(entry, SessionEntry::Open(row) if row.user.name.as_str() == "ann");
                sessions.fetch_or(page.entries.iter().any(is_ann), Ordering::SeqCst);
            }
            Ok(reply)
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_of_before_all_disks_were_lost_is_restored_from_workers_while_the_store_is_away() {
    let clock = env();
    let new = new_cluster(&clock);
    let store = memory::open(&new, move || clock.wall().ms).expect("opens");
    let before = start_on(1, 1, store.clone(), &Config::default()).await;
    let ann = client(&before, 0, None);
    let opened = ann.open_session("ann".parse().expect("a name"), SOON).await.expect("a session");
    let end = say(&ann, "one").await;
    let mark = Request::ReadMark { board: BoardName::lobby(), seq: end };
    assert_eq!(ann.call(&mark, SOON).await, Ok(Answer::Done));
    drop(before);
    // New nodes on the same store. Only worker 0 may read sessions from it.
    let (is_cut, was_read) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let node = |role, number: usize| {
        let first_key = match role {
            Role::Master => 120 + 20 * u8::try_from(number).expect("a few nodes"),
            Role::Worker => 190 + 10 * u8::try_from(number).expect("a few nodes"),
        };
        let sessions = (role == Role::Worker && number == 0).then(|| was_read.clone());
        let cut = Cut { inner: store.clone(), is_cut: is_cut.clone(), sessions };
        NodeParts { env: env(), store: Store::new(cut), keys: TestKeys::from(first_key) }
    };
    let cluster = TestCluster::start(2, 2, &Config::default(), node).await;
    let bobs = [client(&cluster, 0, None), client(&cluster, 1, None)];
    let settled = async {
        for bob in &bobs {
            bob.open_session("bob".parse().expect("a name"), SOON).await.expect("a session");
            while workers_of_its_own(bob).await != 1 {
                bob.env().sleep(Duration::from_millis(100)).await;
            }
            // Masters find each other by the store, and tell each other of their workers.
            while workers(bob).await != 2 {
                bob.env().sleep(Duration::from_millis(100)).await;
            }
        }
        while !was_read.load(Ordering::SeqCst) {
            bobs[0].env().sleep(Duration::from_millis(100)).await;
        }
    };
    within(&bobs[0], "a worker for each master and a read of sessions", settled).await;
    is_cut.store(true, Ordering::SeqCst);
    // The master of worker 1 has it from there, and worker 1 from worker 0.
    for first in [0, 1] {
        let ann = client(&cluster, first, ann.token());
        let restored = ann.call_at(&cluster.urls()[first], &Request::Restore);
        let restored = async {
            let mut answer = restored.await;
            while !matches!(answer, Ok(Answer::Restored(_))) {
                ann.env().sleep(Duration::from_millis(100)).await;
                answer = ann.call_at(&cluster.urls()[first], &Request::Restore).await;
            }
            answer
        };
        let Ok(Answer::Restored(restored)) = within(&ann, "a weak answer", restored).await else {
            unreachable!("it was waited for");
        };
        assert_eq!((restored.user, restored.consistency), (opened.user.clone(), Consistency::Weak));
        assert_eq!(restored.boards[0].read_mark, end);
    }
}

/// Asks the master at `url` until it answers.
async fn answer_of(client: &ChatClient, url: &str, request: &Request) -> Answer {
    let answered = async {
        loop {
            if let Ok(answer) = client.call_at(url, request).await {
                return answer;
            }
            client.env().sleep(Duration::from_millis(100)).await;
        }
    };
    within(client, "an answer", answered).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn master_without_workers_has_session_and_history_from_those_of_another_while_the_store_is_away()
 {
    const POSTS: usize = 30;
    let clock = env();
    let store = memory::open(&new_cluster(&clock), move || clock.wall().ms).expect("opens");
    let before = start_on(1, 1, store.clone(), &Config::default()).await;
    let ann = client(&before, 0, None);
    let opened = ann.open_session("ann".parse().expect("a name"), SOON).await.expect("a session");
    drop(before);
    // New nodes, so that no master has the session in memory.
    let (is_cut, was_read) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let node = |role, number: usize| {
        let first_key = match role {
            Role::Master => 120 + 20 * u8::try_from(number).expect("a few nodes"),
            Role::Worker => 190,
        };
        let sessions = (role == Role::Worker).then(|| was_read.clone());
        let cut = Cut { inner: store.clone(), is_cut: is_cut.clone(), sessions };
        NodeParts { env: env(), store: Store::new(cut), keys: TestKeys::from(first_key) }
    };
    let config = Config { tail_posts_max: 8, ..Config::default() };
    let cluster = TestCluster::start(2, 1, &config, node).await;
    let bobs = [client(&cluster, 0, None), client(&cluster, 1, None)];
    let settled = async {
        for bob in &bobs {
            bob.open_session("bob".parse().expect("a name"), SOON).await.expect("a session");
            // The other master tells of the worker over the link that is asked over later.
            while workers(bob).await != 1 {
                bob.env().sleep(Duration::from_millis(100)).await;
            }
        }
        while !was_read.load(Ordering::SeqCst) {
            bobs[0].env().sleep(Duration::from_millis(100)).await;
        }
    };
    within(&bobs[0], "one worker at both masters and a read of sessions", settled).await;
    let mut texts = Vec::new();
    for n in 0..POSTS {
        let text = format!("number {n}");
        say(&bobs[0], &text).await;
        texts.push(text);
    }
    let far = usize::from(workers_of_its_own(&bobs[0]).await == 1);
    assert_eq!(workers_of_its_own(&bobs[far]).await, 0, "one worker has one master");
    is_cut.store(true, Ordering::SeqCst);
    let (ann, url) = (client(&cluster, far, ann.token()), &cluster.urls()[far]);
    let Answer::Restored(restored) = answer_of(&ann, url, &Request::Restore).await else {
        panic!("another answer")
    };
    assert_eq!((restored.user, restored.consistency), (opened.user, Consistency::Weak));
    let (board, range) = (BoardName::lobby(), Range::After(Seq(0)));
    let all = Request::Read { board, range, limit: 50, wanted: Consistency::Strong };
    let read = async {
        loop {
            let Answer::Page(page) = answer_of(&ann, url, &all).await else {
                panic!("another answer")
            };
            assert_eq!(page.consistency, Consistency::Weak);
            // The copy is complete a moment after the last post.
            if page.posts.len() == POSTS {
                return page;
            }
            ann.env().sleep(Duration::from_millis(50)).await;
        }
    };
    let page = within(&ann, "all of the board", read).await;
    let seen: Vec<_> = page.posts.iter().map(|post| post.text.as_str().to_owned()).collect();
    assert_eq!(seen, texts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_that_the_store_denies_is_cut_everywhere_and_does_not_come_back() {
    let clock = env();
    let store = memory::open(&new_cluster(&clock), move || clock.wall().ms).expect("opens");
    let cluster = start_on(2, 2, store.clone(), &Config::default()).await;
    let ann = client(&cluster, 0, None);
    ann.open_session("ann".parse().expect("a name"), SOON).await.expect("a session");
    let workers = async |first: usize, state: MemberState| match ann
        .call_at(&cluster.urls()[first], &Request::Cluster)
        .await
    {
        Ok(Answer::Cluster(seen)) => {
            let nodes = seen.nodes.into_iter();
            let found = nodes.filter(|n| n.role == Role::Worker && n.state == state);
            found.map(|node| node.id).collect()
        }
        _ => Vec::new(),
    };
    let both = async {
        while workers(0, MemberState::In).await.len() != 2 {
            ann.env().sleep(Duration::from_millis(50)).await;
        }
    };
    within(&ann, "the workers", both).await;
    let expelled = workers(0, MemberState::In).await[0];
    store.deny(expelled).await.expect("denied");
    let cut = async {
        for first in [0, 1] {
            while workers(first, MemberState::Left).await != [expelled] {
                ann.env().sleep(Duration::from_millis(50)).await;
            }
        }
    };
    within(&ann, "the expulsion at both masters", cut).await;
    say(&ann, "without it").await;
    ann.env().sleep(Duration::from_secs(2)).await;
    for first in [0, 1] {
        assert_eq!(workers(first, MemberState::Left).await, [expelled], "it stays out");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dump_of_the_store_holds_no_secret_that_lets_anybody_in() {
    let (dir, clock) = (TempDir::new().expect("a directory"), env());
    let path = dir.path().join("store.db");
    let store = sqlite::open(&clock, &path, Duration::from_secs(3)).expect("opens");
    let mut nodes = Vec::new();
    let cluster = TestCluster::start(1, 1, &Config::default(), |role, _| {
        let first_key = if role == Role::Master { 100 } else { 180 };
        let node = env();
        nodes.push(node.clone());
        NodeParts { env: node, store: store.clone(), keys: TestKeys::from(first_key) }
    })
    .await;
    let ann = client(&cluster, 0, None);
    ann.open_session("ann".parse().expect("a name"), SOON).await.expect("a session");
    assert_eq!(say(&ann, "a post that the dump holds").await, Seq(1));
    let session = ann.token().expect("it is open");
    let second = second_session(&ann).await;
    let issued = ann.api(&ann.master()).raw(Method::POST, "/api/v1/handover", None).await;
    let issued: TicketIssued =
        serde_json::from_slice(&issued.expect("a ticket").body).expect("a ticket");

    let mut dump = Vec::new();
    for entry in std::fs::read_dir(dir.path()).expect("a directory") {
        dump.extend(std::fs::read(entry.expect("readable").path()).expect("readable"));
    }
    let holds = |part: &[u8]| dump.windows(part.len()).any(|window| window == part);
    let bytes = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).expect("base64");
    let hash = Sha256::digest(bytes(&session));
    assert!(holds(b"a post that the dump holds") && holds(&hash), "this is the store");
    let (_, join_secret) = cluster.token().rsplit_once('.').expect("a token");
    for text in [&session, &second, &issued.ticket, join_secret] {
        assert!(!holds(text.as_bytes()) && !holds(&bytes(text)));
    }
    for node in nodes {
        let key = node.disk().read(IDENTITY_FILE).expect("readable").expect("a key");
        // Its first half is the public key, which the store may hold.
        assert!(!key[key.len() / 2..].chunks_exact(16).any(holds));
    }
    // What the dump holds of a session opens none.
    let thief = client(&cluster, 0, Some(BASE64_URL_SAFE_NO_PAD.encode(hash)));
    let refused = thief.call(&Request::Restore, SOON).await;
    assert!(matches!(refused, Err(Failure::Refused { status: 401, .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_of_while_the_store_is_away_are_pending_on_two_disks_and_then_written_once() {
    let clock = env();
    let inner = memory::open(&new_cluster(&clock), move || clock.wall().ms).expect("opens");
    let is_cut = Arc::new(AtomicBool::new(false));
    let store = Store::new(Cut { inner, is_cut: is_cut.clone(), sessions: None });
    let cluster = start_on(2, 2, store, &Config::default()).await;
    let ann = client(&cluster, 0, None);
    ann.open_session("ann".parse().expect("a name"), SOON).await.expect("a session");
    assert_eq!(say(&ann, "before").await, Seq(1));
    let known = async |url: &String| match ann.call_at(url, &Request::Cluster).await {
        Ok(Answer::Cluster(seen)) => seen
            .nodes
            .iter()
            .filter(|n| n.role == Role::Worker && n.state == MemberState::In)
            .count(),
        _ => 0,
    };
    let all_known = async {
        for url in cluster.urls() {
            while known(url).await != 2 {
                ann.env().sleep(Duration::from_millis(100)).await;
            }
        }
    };
    within(&ann, "both workers at both masters", all_known).await;
    let bob = client(&cluster, 0, None);
    bob.open_session("bob".parse().expect("a name"), SOON).await.expect("a session");
    // Streams of the author at both masters, and one of somebody else.
    let readers = [(0, &ann), (1, &ann), (1, &bob)]
        .map(|(first, whose)| client(&cluster, first, whose.token()));
    let mut streams: Vec<_> =
        readers.iter().map(|one| one.follow(vec![BoardName::lobby()], None)).collect();
    for follow in &mut streams {
        opens(&ann, follow).await;
    }
    is_cut.store(true, Ordering::SeqCst);
    let (id, board) = (ann.new_post_id(), BoardName::lobby());
    let post = Request::Post { board, id, text: "meanwhile".parse().expect("a text") };
    let urls = cluster.urls();
    let pending = async {
        loop {
            if let Ok(Answer::Pending { copies: 2 }) = ann.call_at(&urls[0], &post).await {
                return;
            }
            ann.env().sleep(Duration::from_millis(100)).await;
        }
    };
    within(&ann, "a post on two disks", pending).await;
    // Either master finds it, wherever it is.
    for url in urls {
        let found = ann.call_at(url, &Request::Outcome { id }).await;
        assert_eq!(found, Ok(Answer::Fate(Some(PostState::Pending { id, copies: 2 }))));
        let Ok(Answer::Restored(restored)) = ann.call_at(url, &Request::Restore).await else {
            panic!("not restored")
        };
        assert_eq!(restored.pending, [id]);
    }
    is_cut.store(false, Ordering::SeqCst);
    let written = async {
        while read(&ann, Consistency::Strong).await.0.len() < 2 {
            ann.env().sleep(Duration::from_millis(100)).await;
        }
    };
    within(&ann, "the post in its board", written).await;
    let emptied = async {
        loop {
            let Ok(Answer::Restored(restored)) = ann.call(&Request::Restore, SOON).await else {
                panic!("not restored")
            };
            if restored.pending.is_empty() {
                return;
            }
            ann.env().sleep(Duration::from_millis(100)).await;
        }
    };
    within(&ann, "no post that waits", emptied).await;
    assert_eq!(say(&ann, "after").await, Seq(3));
    let mut told = Vec::new();
    for follow in &mut streams {
        let mut states = Vec::new();
        let to_the_last = async {
            loop {
                match follow.next().await {
                    FollowEvent::Event(StreamEvent::Pending(event)) => {
                        assert_eq!(event.id, id);
                        states.push(event.state);
                    }
                    FollowEvent::Event(StreamEvent::Post(post)) if post.seq == Seq(3) => return,
                    _ => {}
                }
            }
        };
        within(&ann, "the last post", to_the_last).await;
        // Each holder hands it in, and sent again it is held again.
        states.dedup();
        told.push(states);
    }
    let [here, there, elsewhere] = &told[..] else { unreachable!("three") };
    for author in [here, there] {
        assert_eq!(author.first(), Some(&HeldState::Pending));
        assert_eq!(author.last(), Some(&HeldState::Committed));
    }
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    let (texts, state) = read(&ann, Consistency::Strong).await;
    assert_eq!(
        (texts, state),
        (
            vec!["before", "meanwhile", "after"].into_iter().map(str::to_owned).collect(),
            Consistency::Strong
        )
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn post_that_was_held_for_over_a_day_is_a_dead_letter_and_its_author_is_told() {
    let clock = env();
    let store = memory::open(&new_cluster(&clock), move || clock.wall().ms).expect("opens");
    let mut cluster = start_on(1, 1, store.clone(), &Config::default()).await;
    let ann = client(&cluster, 0, None);
    ann.open_session("ann".parse().expect("a name"), SOON).await.expect("a session");
    let restored = restored(&ann).await;
    let mut follow = ann.follow(vec![BoardName::lobby()], None);
    opens(&ann, &mut follow).await;

    let (holder, id) = (env(), ann.new_post_id());
    let (replica, _) =
        Replica::open(&holder.disk(), ReplicaLimits::default(), Check::Whole, |_| ())
            .expect("opens");
    let text = "of yesterday".parse().expect("a text");
    let post = NewPost { id, author: restored.user, text };
    let yesterday = holder.wall().ms - 24 * 60 * 60 * 1000 - 1;
    let board = BoardName::lobby();
    replica.hold(&[(HeldPost { board, post }, yesterday)]).expect("held");
    drop(replica);
    let parts = NodeParts { env: holder, store: store.clone(), keys: TestKeys::from(190) };
    cluster.add_worker(parts, &Config::default());

    let told = async {
        loop {
            if let FollowEvent::Event(StreamEvent::Pending(event)) = follow.next().await {
                return (event.id, event.state);
            }
        }
    };
    assert_eq!(within(&ann, "the end of the post", told).await, (id, HeldState::DeadLetter));
    let letters = store.dead_letters(10).await.expect("the store answers");
    let posts: Vec<_> = letters.into_iter().filter_map(|letter| Some(letter.post?.id)).collect();
    assert_eq!(posts, [id]);
    assert!(read(&ann, Consistency::Strong).await.0.is_empty());
}

/// Store in memory that counts polls and tells of posts when a test says so.
struct Telling {
    inner: Store,
    polls: Arc<AtomicUsize>,
    readers: Arc<Mutex<Vec<NewEnds>>>,
}

impl Backend for Telling {
    fn call(&self, op: Op) -> BoxFuture<'_, Result<OpReply, StoreError>> {
        // Nothing but a poll asks for it.
        let is_poll = matches!(op, Op::ClosedSince(_));
        Box::pin(async move {
            let reply = self.inner.call(op).await;
            self.polls.fetch_add(usize::from(is_poll), Ordering::SeqCst);
            reply
        })
    }

    fn follow(&self, ends: NewEnds) {
        self.readers.lock().expect("not poisoned").push(ends);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn post_that_the_store_tells_of_and_a_master_lacks_brings_its_poll_forward() {
    let clock = env();
    let inner = memory::open(&new_cluster(&clock), move || clock.wall().ms).expect("opens");
    let (polls, readers) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<_>>>::default());
    let store = Telling { inner, polls: polls.clone(), readers: readers.clone() };
    let config = Config { store_poll_interval: 3 * SOON, ..Config::default() };
    let _cluster = start_on(1, 0, Store::new(store), &config).await;
    let env = env();
    let until = |count: usize| {
        let (env, polls, readers) = (&env, &polls, &readers);
        let reached = async move {
            while polls.load(Ordering::SeqCst) < count
                || readers.lock().expect("not poisoned").is_empty()
            {
                env.sleep(Duration::from_millis(10)).await;
            }
        };
        async move { env.timeout(SOON, reached).await.expect("in time") }
    };
    until(1).await;
    readers.lock().expect("not poisoned")[0].add([(BoardName::lobby(), Seq(1))]);
    until(2).await;
}
