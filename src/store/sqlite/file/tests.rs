//! Tests with real files and real processes.

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
};

use futures_util::future::join_all;

use super::*;
use crate::{
    env::real::{RealWorld, TempDir},
    model::{
        ids::{Author, BoardName, Incarnation, NodeId, PostId, Resource, Seq, Token, UserId},
        message::Task,
        outcome::TaskResult,
        rows::{DeadLetter, Holder, Lease, NewPost, Permission, Range},
    },
    store::{OpReply, sqlite::write_lock::beside},
    testing::{
        braked_world::braked,
        store::{self as contract, Lab, MoveClock},
    },
};

mod away;
mod given_up;
mod newer;
mod turns;
mod unwritable;

const TIMEOUT: Duration = Duration::from_millis(800);

/// Time of a store's clock that a test moves, at first.
const START_MS: u64 = 1_700_000_000_000;

/// Environment variables of a child process: its role and its file.
const ROLE: &str = "CHATCHAT_STORE_CHILD";
const FILE: &str = "CHATCHAT_STORE_FILE";

fn real_env() -> Env {
    Env::new(RealWorld::temporary().expect("a directory"))
}

fn holder(node: u8) -> Holder {
    Holder { node: NodeId([node; 16]), incarnation: Incarnation(1) }
}

/// Child process that runs this test binary in a role, killed with its handle.
struct Process(Child);

impl Process {
    fn start(role: &str, path: &Path) -> Self {
        Self::run(Command::new(std::env::current_exe().expect("this test")), role, path)
    }

    /// Starts it by a command that runs this test binary.
    fn run(mut this: Command, role: &str, path: &Path) -> Self {
        let child = this
            .args(["--exact", "store::sqlite::file::tests::in_a_role", "--nocapture"])
            .env(ROLE, role)
            .env(FILE, path)
            .stdout(Stdio::piped())
            .spawn();
        Self(child.expect("a process"))
    }

    /// Waits for the line that begins so, and gives what follows.
    fn said(&mut self, begin: &str) -> String {
        let lines = BufReader::new(self.0.stdout.as_mut().expect("piped")).lines();
        let mut lines = lines.map(|line| line.expect("text"));
        let found = lines.find_map(|line| line.strip_prefix(begin).map(str::to_owned));
        found.unwrap_or_else(|| panic!("the child ended without {begin:?}"))
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.0.id().to_string()]).status();
        assert!(sent.expect("the kill command").success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Body of the child processes; does nothing in an ordinary run.
#[tokio::test]
async fn in_a_role() {
    let (Ok(role), Ok(file)) = (std::env::var(ROLE), std::env::var(FILE)) else { return };
    match role.split_once(' ') {
        Some(("append", node)) => {
            turns::append_under_load(file.as_ref(), node.parse().expect("1..")).await
        }
        _ if role == "open" => unwritable::open_and_tell(file.as_ref()),
        _ => hold(file.as_ref()),
    }
}

/// Stays in the middle of a transaction, with the write lock, until it is killed.
fn hold(path: &Path) {
    let lock = WriteLock::of(path).expect("a lock file");
    let _held = lock.acquire().expect("acquired");
    let new = NewCluster { cluster: [0; 16], epoch: StoreEpoch(1), now_ms: 1 };
    let core = SqliteCore::open_file(path, &new, TIMEOUT).expect("a store");
    let begin = "BEGIN IMMEDIATE; UPDATE boards SET last_seq = 99 WHERE name = 'lobby'";
    core.db.execute_batch(begin).expect("begun");
    println!("\nholding now");
    loop {
        std::thread::park();
    }
}

/// Repeats a call while the store is away, as a busy machine may make it.
async fn patiently<T>(
    env: &Env,
    mut ask: impl AsyncFnMut() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let end = env.now() + Duration::from_secs(30);
    loop {
        match ask().await {
            Err(error) if error.is_away() && env.now() < end => {
                env.sleep(Duration::from_millis(20)).await;
            }
            answer => return answer,
        }
    }
}

#[tokio::test]
async fn file_store_passes_the_contract_suite() {
    let mut dirs = Vec::new();
    let fresh = |check: &contract::Check| {
        let dir = TempDir::new().expect("a directory");
        let (env, brake) = braked(&dir);
        // Checks that move no clock hold by one that runs.
        let clock = check.moves_clock.then(|| -> MoveClock {
            brake.stop_wall(START_MS);
            Arc::new(move |ms| brake.move_wall(ms))
        });
        let store = open(&env, &dir.path().join("store.db"), Duration::from_secs(30));
        dirs.push(dir);
        Lab { store: store.expect("a store"), clock }
    };
    assert_eq!(contract::suite("SQLite in a file", fresh).await, contract::CHECKS.len());
}

#[tokio::test]
async fn store_is_away_while_a_writer_is_stopped_in_mid_transaction() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("store.db");
    let env = real_env();
    let store = open(&env, &path, TIMEOUT).expect("a store");
    let letter = |why: &str| DeadLetter {
        number: 0,
        resource: Resource::Board(BoardName::lobby()),
        post: None,
        why: why.to_owned(),
        at_ms: 0,
    };
    patiently(&env, async || store.put_dead_letter(letter("before")).await).await.expect("kept");
    let mut child = Process::start("hold", &path);
    child.said("holding ");
    child.signal("-STOP");

    let pid = child.0.id();
    assert_eq!(holder_of_lock(&path), Some(pid));
    for _ in 0..2 {
        let late = store.put_dead_letter(letter("given up")).await;
        let Err(StoreError::Away { reason, why }) = late else { panic!("{late:?}") };
        assert_eq!(reason, AwayReason::Locked, "{why}");
        assert!(why.contains(&pid.to_string()), "{why}");
    }
    let boards = patiently(&env, async || store.boards().await).await.expect("reads go on");
    assert_eq!(boards.boards, [(BoardName::lobby(), Seq(0))]);
    let second = open(&env, &path, TIMEOUT).expect("opens all the same");
    assert!(second.put_dead_letter(letter("given up")).await.is_err_and(|error| error.is_away()));

    drop(child);
    for store in [&store, &second] {
        patiently(&env, async || store.put_dead_letter(letter("after")).await).await.expect("kept");
    }
    let letters = patiently(&env, async || store.dead_letters(10).await).await.expect("listed");
    let whys: Vec<_> = letters.iter().map(|letter| letter.why.as_str()).collect();
    assert_eq!(whys, ["after", "before"], "what was given up is not done later");
    let boards = store.boards().await.expect("boards").boards;
    assert_eq!(boards, [(BoardName::lobby(), Seq(0))], "half a transaction is none");
    assert_eq!(holder_of_lock(&path), None);
}

#[tokio::test]
async fn full_queue_of_writes_is_away_while_a_writer_is_stopped_and_busy_before() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("store.db");
    let env = real_env();
    let store = open(&env, &path, TIMEOUT).expect("a store");
    let touch = || store.touch_sessions(NodeId([1; 16]), Vec::new());
    patiently(&env, touch).await.expect("touched");
    let mut child = Process::start("hold", &path);
    child.said("holding ");
    let pid = child.0.id();
    // The thread takes it, and waits for the lock.
    let first = env.timeout(TIMEOUT / 8, touch()).await;
    assert!(first.is_err(), "{first:?}");
    let mut asked = join_all((0..=WAITING_MAX).map(|_| touch())).await;
    let last = asked.pop().expect("the last");
    assert!(matches!(last, Err(StoreError::Busy)), "{last:?}");
    for answer in [asked.swap_remove(0), touch().await] {
        let Err(StoreError::Away { reason, why }) = answer else { panic!("{answer:?}") };
        assert_eq!(reason, AwayReason::Locked, "{why}");
        assert!(why.contains(&pid.to_string()), "{why}");
    }
    drop(child);
    touched_again(&env, &store).await;
}

/// Touches until there is room for it, and returns how often that was tried.
async fn touched_again(env: &Env, store: &Store) -> usize {
    let mut touches = 0;
    patiently(env, async || {
        touches += 1;
        match store.touch_sessions(NodeId([1; 16]), Vec::new()).await {
            Err(StoreError::Busy) => Err(failing("it has yet to throw away what was given up")),
            answer => answer,
        }
    })
    .await
    .expect("touched again");
    touches
}

/// Board with its lease, for batches under it.
struct Board {
    resource: Resource,
    token: Token,
}

impl Board {
    async fn made(store: &Store, n: u8) -> Self {
        let resource = Resource::Board(format!("board-{n}").parse().expect("a name"));
        let lease = store.acquire_lease(resource.clone(), holder(1), 60_000).await;
        let Ok(Lease::Granted { epoch, lease, .. }) = lease else { panic!("{lease:?}") };
        let board = Self { resource, token: Token { epoch, lease, n: 0 } };
        let create = Task::CreateBoard { board: board.name() };
        store.write(board.permission(1), vec![create].into()).await.expect("created");
        board
    }

    fn name(&self) -> BoardName {
        let Resource::Board(name) = &self.resource else { panic!("a board") };
        name.clone()
    }

    fn permission(&self, n: u64) -> Permission {
        let (resource, token) = (self.resource.clone(), Token { n, ..self.token });
        Permission { resource, token, after: None, worker: NodeId([9; 16]) }
    }

    /// A post of the user that has the board's number.
    fn post(&self, n: u8) -> Task {
        let name = self.name();
        let author = Author {
            id: UserId([name.as_str().as_bytes()[6]; 16]),
            name: "Ada".parse().expect("a name"),
        };
        let text = "x".repeat(1000).parse().expect("a text");
        Task::Post { board: name, post: NewPost { id: PostId([n; 16]), author, text } }
    }

    async fn write(&self, store: &Store, n: u64, post: u8) -> Result<Vec<TaskResult>, StoreError> {
        store.write(self.permission(n), vec![self.post(post)].into()).await
    }
}

/// Returns the end of each frame of a write-ahead log, and whether the frame is a commit.
fn frames(log: &[u8]) -> Vec<(usize, bool)> {
    let page_len = u32::from_be_bytes(log[8..12].try_into().expect("four bytes")) as usize;
    let frames = log[32..].chunks_exact(24 + page_len);
    let is_commit = |frame: &[u8]| frame[4..8] != [0; 4];
    frames.enumerate().map(|(nth, f)| (32 + (nth + 1) * (24 + page_len), is_commit(f))).collect()
}

fn commits(path: &Path) -> usize {
    let log = std::fs::read(beside(path, "-wal")).expect("a log");
    frames(&log).iter().filter(|(_, is_commit)| *is_commit).count()
}

/// Holds the write lock while the calls are made, so that they wait together.
async fn held_up<T>(path: &Path, env: &Env, calls: impl Future<Output = T>) -> T {
    let lock = WriteLock::of(path).expect("a lock file");
    let held = lock.acquire().expect("acquired");
    let open = async {
        env.sleep(Duration::from_millis(100)).await;
        drop(held);
    };
    futures_util::future::join(calls, open).await.0
}

fn seq_of(answer: &Result<Vec<TaskResult>, StoreError>) -> Option<u64> {
    match answer.as_deref() {
        Ok([TaskResult::Committed { seq, .. }]) => Some(seq.0),
        _ => None,
    }
}

#[tokio::test]
async fn waiting_batches_share_a_commit_and_a_fenced_one_fails_alone() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("store.db");
    let env = real_env();
    let store = open(&env, &path, Duration::from_secs(30)).expect("a store");
    let mut boards = Vec::new();
    for n in 1..=6 {
        boards.push(Board::made(&store, n).await);
    }
    let before = commits(&path);
    let calls = boards.iter().enumerate().map(|(nth, board)| {
        // The fourth one's token is of an earlier n.
        board.write(&store, if nth == 3 { 0 } else { 2 }, 1)
    });
    let answers = held_up(&path, &env, join_all(calls)).await;
    let seqs: Vec<_> = answers.iter().map(seq_of).collect();
    assert_eq!(seqs, [Some(1), Some(1), Some(1), None, Some(1), Some(1)]);
    assert!(matches!(answers[3], Err(StoreError::Fenced { .. })), "{:?}", answers[3]);
    assert_eq!(commits(&path) - before, 1);
    let refused = store.read(boards[3].name(), Range::Last, 9).await.expect("a page");
    assert_eq!(refused.last_seq, Seq(0));
    assert_eq!(seq_of(&boards[3].write(&store, 2, 1).await), Some(1), "its n is still good");
}

#[tokio::test]
async fn batches_of_one_board_keep_their_order_in_a_group() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("store.db");
    let env = real_env();
    let store = open(&env, &path, Duration::from_secs(30)).expect("a store");
    let board = Board::made(&store, 1).await;
    let before = commits(&path);
    let calls = async {
        let touch = store.drop_dead_letter(1);
        let first = join_all([board.write(&store, 2, 1), board.write(&store, 3, 2)]);
        let last = board.write(&store, 4, 3);
        let (first, touched, last) = futures_util::future::join3(first, touch, last).await;
        touched.expect("done");
        [&first[..], &[last]].concat()
    };
    let answers = held_up(&path, &env, calls).await;
    assert_eq!(answers.iter().map(seq_of).collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
    // The operation between changed nothing, so it is no commit in the log.
    assert_eq!(commits(&path) - before, 2);
}

#[tokio::test]
async fn crash_keeps_a_whole_group_or_nothing_of_it() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("store.db");
    let env = real_env();
    let store = open(&env, &path, Duration::from_secs(30)).expect("a store");
    let mut boards = Vec::new();
    for n in 1..=3 {
        boards.push(Board::made(&store, n).await);
    }
    let log = || std::fs::read(beside(&path, "-wal")).expect("a log");
    let before = log().len();
    let calls = boards.iter().map(|board| board.write(&store, 2, 1));
    let answers = held_up(&path, &env, join_all(calls)).await;
    assert!(answers.iter().all(|answer| seq_of(answer) == Some(1)), "{answers:?}");
    let log = log();
    let file = std::fs::read(&path).expect("a file");
    let mut ends: Vec<_> = frames(&log).into_iter().map(|(end, _)| end).collect();
    ends.retain(|end| *end >= before);
    assert!(ends.len() > 3, "several pages: {ends:?}");
    for end in &ends {
        // The log as a crash of the machine may leave it: cut after any frame.
        let copy = dir.path().join(format!("cut-{end}"));
        std::fs::write(&copy, &file).expect("written");
        std::fs::write(beside(&copy, "-wal"), &log[..*end]).expect("written");
        let new = NewCluster { cluster: [0; 16], epoch: StoreEpoch(1), now_ms: 1 };
        let mut core = SqliteCore::open_file(&copy, &new, TIMEOUT).expect("a store");
        let Ok(OpReply::Boards(found)) = core.apply(&Op::Boards, 1) else { panic!("no boards") };
        let whole = u64::from(Some(end) == ends.last());
        for board in &boards {
            assert_eq!(found.last(&board.name()), Some(Seq(whole)), "cut at {end}");
        }
    }
}

#[tokio::test]
async fn group_has_a_bound() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("store.db");
    let env = real_env();
    let limits = FileLimits { group_batches_max: 2, ..FileLimits::new(Duration::from_secs(30)) };
    let store = open_with(&env, &path, limits).expect("a store");
    let mut boards = Vec::new();
    for n in 1..=5 {
        boards.push(Board::made(&store, n).await);
    }
    let before = commits(&path);
    let calls = boards.iter().map(|board| board.write(&store, 2, 1));
    let answers = held_up(&path, &env, join_all(calls)).await;
    assert!(answers.iter().all(|answer| seq_of(answer) == Some(1)), "{answers:?}");
    assert_eq!(commits(&path) - before, 3, "two, two and one");
}

#[tokio::test]
async fn files_are_readable_by_their_owner_only() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("store.db");
    let env = real_env();
    let store = open(&env, &path, Duration::from_secs(30)).expect("a store");
    store.drop_dead_letter(1).await.expect("written");
    for suffix in ["", "-wal", "-shm", ".gate"] {
        let meta = std::fs::metadata(beside(&path, suffix)).expect("a file");
        assert_eq!(meta.permissions().mode() & 0o777, 0o600, "{suffix:?}");
    }
}

#[tokio::test]
async fn two_stores_of_one_process_share_a_file() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("store.db");
    let env = real_env();
    let open = || open(&env, &path, Duration::from_secs(30)).expect("a store");
    let (one, two) = (open(), open());
    assert_eq!(
        one.cluster().await.map(|row| row.cluster),
        two.cluster().await.map(|row| row.cluster)
    );
    let granted = one.acquire_lease(Resource::Board(BoardName::lobby()), holder(1), 60_000).await;
    assert!(matches!(granted, Ok(Lease::Granted { .. })), "{granted:?}");
    drop(one);
    let other = two.acquire_lease(Resource::Board(BoardName::lobby()), holder(2), 60_000).await;
    assert!(matches!(other, Ok(Lease::HeldBy { .. })), "{other:?}");
}

#[tokio::test]
async fn unusable_path_is_refused_at_once() {
    let dir = TempDir::new().expect("a directory");
    let env = real_env();
    let open = |name: &str| open(&env, &dir.path().join(name), Duration::from_secs(30)).map(drop);
    let missing = open("no/such/directory");
    assert!(matches!(missing, Err(StoreError::Refused { .. })), "{missing:?}");
    let directory = open(".");
    assert!(directory.is_err_and(|error| !error.is_away()));
    std::fs::write(dir.path().join("text"), "not a database, but long enough ".repeat(9))
        .expect("written");
    let text = open("text");
    assert!(matches!(text, Err(StoreError::Broken { .. })), "{text:?}");
}

#[tokio::test]
async fn operation_beyond_those_that_may_wait_is_not_called_an_outage() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("store.db");
    let env = real_env();
    let store = open(&env, &path, TIMEOUT).expect("opens");
    let calls = (0..WAITING_MAX + 200).map(|_| store.drop_dead_letter(1));
    let answers = held_up(&path, &env, join_all(calls)).await;
    let refused: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
    assert!(!refused.is_empty(), "the bound holds");
    let away = refused.iter().find(|error| matches!(error, StoreError::Away { .. }));
    assert_eq!(away, None);
}

#[tokio::test]
async fn touch_and_leases_pass_a_full_queue_of_writes() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("store.db");
    let env = real_env();
    let store = open(&env, &path, Duration::from_secs(30)).expect("opens");
    let board = Board::made(&store, 1).await;
    let bulk = join_all((2..WAITING_MAX as u64 + 200).map(|n| board.write(&store, n, 1)));
    let leases = vec![(board.resource.clone(), board.token.lease)];
    let other = Resource::Board("other".parse().expect("a name"));
    let urgent = futures_util::future::join3(
        store.renew_leases(holder(1), leases, 3000),
        store.touch_sessions(NodeId([1; 16]), Vec::new()),
        store.acquire_lease(other.clone(), holder(1), 3000),
    );
    let calls = futures_util::future::join(bulk, urgent);
    let (bulk, (renewed, touched, leased)) = held_up(&path, &env, calls).await;
    assert!(bulk.contains(&Err(StoreError::Busy)), "the queue was full");
    assert!(renewed.is_ok() && touched.is_ok(), "{renewed:?} {touched:?}");
    assert!(matches!(leased, Ok(Lease::Granted { .. })), "{leased:?}");
    let rows = store.writes(0, 10_000).await.expect("the record");
    let grant = rows.iter().position(|row| row.resource == other).expect("the grant");
    // The making of the board, and a group that may have begun.
    assert!(grant <= 2 + GROUP_BATCHES_MAX, "{grant} of {} went first", rows.len());
}
