//! Tests beyond the contract suite: days of a clock, files of others, and a model.

mod backup;
mod model;
mod upkeep;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::*;
use crate::{
    env::real::TempDir,
    model::{
        ids::{
            Author, BoardName, Incarnation, NodeId, PostId, Resource, Seq, SessionKey, Token,
            UserId,
        },
        message::Task,
        outcome::TaskResult,
        rows::{DeadLetter, Holder, Lease, MASTERS_MAX, MasterRow, NewPost, Permission, Range},
    },
    testing::store::{self as contract, Lab, MoveClock},
};

const START_MS: u64 = 1_700_000_000_000;
const NEW: NewCluster = NewCluster { cluster: [7; 16], epoch: StoreEpoch(3), now_ms: START_MS };

const MASTER: NodeId = NodeId([1; 16]);
const LIFE: Holder = Holder { node: MASTER, incarnation: Incarnation(1) };

/// Store in memory with its clock.
struct Desk {
    core: SqliteCore,
    now_ms: u64,
}

fn master(node: NodeId) -> MasterRow {
    MasterRow {
        node,
        incarnation: Incarnation(0),
        beat: 0,
        http: String::new(),
        link: String::new(),
        spki: Vec::new(),
        name: String::new(),
        draining: false,
        guard: [0; 32],
    }
}

impl Desk {
    /// Opens a store with one registered master.
    fn new() -> Self {
        let core = SqliteCore::open_in_memory(&NEW).expect("a store in memory");
        let mut desk = Self { core, now_ms: START_MS };
        desk.apply(&Op::RegisterMaster(master(MASTER)));
        desk
    }

    fn apply(&mut self, op: &Op) -> OpReply {
        self.core.apply(op, self.now_ms).unwrap_or_else(|error| panic!("{}: {error}", op.name()))
    }

    /// Has the master touch its row and do a piece of upkeep every 10 minutes, for this long.
    fn keep_up_for(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        while self.now_ms < end_ms {
            self.now_ms = end_ms.min(self.now_ms + 10 * 60_000);
            self.apply(&Op::TouchMaster { holder: LIFE, draining: false });
            self.apply(&Op::KeepUp { clock_jumped: false });
        }
    }

    fn lease(&mut self, resource: Resource) -> Token {
        match self.apply(&Op::AcquireLease { resource, holder: LIFE, ttl_ms: 3000 }) {
            OpReply::Lease(Lease::Granted { epoch, lease, n }) => Token { epoch, lease, n },
            other => panic!("not granted: {other:?}"),
        }
    }

    fn open_session(&mut self) -> SessionKey {
        let resource = Resource::Sessions(MASTER);
        let token = Token { n: 1, ..self.lease(resource.clone()) };
        let permission = Permission { resource, token, after: None, worker: NodeId([9; 16]) };
        let user = Author { id: UserId([1; 16]), name: "Ada".parse().expect("a name") };
        let key = SessionKey([1; 32]);
        let tasks = Arc::new(vec![Task::OpenSession { key, user }]);
        self.apply(&Op::Write { permission, tasks, known: Seq::default() });
        key
    }

    fn is_open(&mut self, key: SessionKey) -> bool {
        self.apply(&Op::FindSession(key)) != OpReply::Session(None)
    }
}

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

#[tokio::test]
async fn memory_store_passes_the_contract_suite() {
    let fresh = |_: &contract::Check| {
        let clock = Arc::new(AtomicU64::new(START_MS));
        let now_ms = Arc::clone(&clock);
        let store = memory::open(&NEW, move || now_ms.load(Ordering::Relaxed));
        let moves: MoveClock = Arc::new(move |ms| {
            clock.fetch_add_signed(ms);
        });
        Lab { store: store.expect("a store in memory"), clock: Some(moves) }
    };
    assert_eq!(contract::suite("SQLite in memory", fresh).await, contract::CHECKS.len());
}

/// Adds a number that may be negative.
trait FetchAddSigned {
    fn fetch_add_signed(&self, by: i64);
}

impl FetchAddSigned for AtomicU64 {
    fn fetch_add_signed(&self, by: i64) {
        let now = self.load(Ordering::Relaxed);
        self.store(now.saturating_add_signed(by), Ordering::Relaxed);
    }
}

#[test]
fn master_beyond_the_most_takes_the_place_of_one_long_silent() {
    let mut desk = Desk::new();
    let nth = |n: usize| {
        let mut node = [9; 16];
        node[..8].copy_from_slice(&(n as u64).to_be_bytes());
        Op::RegisterMaster(master(NodeId(node)))
    };
    for n in 1..MASTERS_MAX {
        desk.apply(&nth(n));
    }
    let refused = desk.core.apply(&nth(1000), desk.now_ms);
    assert!(matches!(&refused, Err(StoreError::Refused { .. })), "{refused:?}");
    desk.now_ms += 2 * 60 * 60 * 1000;
    desk.apply(&Op::TouchMaster { holder: LIFE, draining: false });
    desk.apply(&nth(1000));
    let OpReply::Masters(listed) = desk.apply(&Op::Masters) else { panic!("another reply") };
    assert_eq!(listed.len(), MASTERS_MAX);
    assert!(listed.iter().any(|row| row.node == MASTER), "it is not silent");
}

#[test]
fn session_idle_for_thirty_days_is_swept_but_not_on_the_day_of_a_clock_jump() {
    let mut desk = Desk::new();
    let key = desk.open_session();
    // A month passes at once: it may be the clock.
    desk.now_ms += 31 * DAY_MS;
    desk.keep_up_for(DAY_MS - 10_000);
    assert!(desk.is_open(key), "an age is worth nothing on the day of a jump");
    desk.keep_up_for(2 * 60 * 60 * 1000);
    assert!(!desk.is_open(key));
    let closed = desk.apply(&Op::ClosedSince(0));
    assert_eq!(closed, OpReply::Closed { keys: vec![key], mark: 1 }, "copies of it must go, too");
}

#[test]
fn session_in_use_is_not_swept() {
    let mut desk = Desk::new();
    let key = desk.open_session();
    desk.now_ms += 29 * DAY_MS;
    desk.apply(&Op::TouchSessions { master: MASTER, keys: vec![key] });
    desk.now_ms += 28 * DAY_MS;
    desk.keep_up_for(DAY_MS + 2 * 60 * 60 * 1000);
    assert!(desk.is_open(key));
}

#[test]
fn forgotten_resource_is_leased_again_above_its_old_tokens() {
    let mut desk = Desk::new();
    let typo = Resource::Board("typo".parse().expect("a name"));
    let lobby = Resource::Board(BoardName::lobby());
    for _ in 0..5 {
        desk.lease(typo.clone());
        desk.lease(lobby.clone());
    }
    let rows = |desk: &mut Desk| {
        let tx = Tx { db: &desk.core.db, now_ms: 0 };
        tx.count("leases").expect("counted")
    };
    assert_eq!(rows(&mut desk), 2);
    desk.keep_up_for(2 * DAY_MS + 2 * 60 * 60 * 1000);
    assert_eq!(rows(&mut desk), 1, "the board was never made");
    assert_eq!(desk.lease(typo).lease, 6);
    assert_eq!(desk.lease(lobby).lease, 6);
}

#[test]
fn master_silent_for_a_day_is_taken_off_the_list() {
    let mut desk = Desk::new();
    let other = NodeId([2; 16]);
    let OpReply::Masters(rows) = desk.apply(&Op::Masters) else { panic!("no list") };
    desk.apply(&Op::RegisterMaster(MasterRow { node: other, ..rows[0].clone() }));
    desk.keep_up_for(DAY_MS + 2 * 60 * 60 * 1000);
    let OpReply::Masters(rows) = desk.apply(&Op::Masters) else { panic!("no list") };
    assert_eq!(rows.iter().map(|row| row.node).collect::<Vec<_>>(), [MASTER]);
}

#[test]
fn read_beside_an_open_write_says_a_time_that_the_write_is_not_below() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("store.db");
    let busy = Duration::from_secs(1);
    let core = SqliteCore::open_file(&path, &NEW, busy).expect("made");
    let mut reader = SqliteCore::open_to_read(&path, busy).expect("there");
    let mut desk = Desk { core, now_ms: START_MS };
    let lobby = Resource::Board(BoardName::lobby());
    let token = Token { n: 1, ..desk.lease(lobby.clone()) };
    let permission = Permission { resource: lobby, token, after: None, worker: NodeId([9; 16]) };
    let author = Author { id: UserId([1; 16]), name: "Ada".parse().expect("a name") };
    let post = NewPost { id: PostId([5; 16]), author, text: "late".parse().expect("a text") };
    let board = BoardName::lobby();
    // The writer takes its time, and waits for its disk while somebody reads.
    let open = desk.core.db.transaction_with_behavior(TransactionBehavior::Immediate);
    let open = open.expect("begun");
    let tasks = [Task::Post { board: board.clone(), post }];
    let written = Tx { db: &open, now_ms: START_MS + 10 }.write(Batch {
        permission: &permission,
        tasks: &tasks,
        known: Seq::default(),
    });
    let Ok([TaskResult::Committed { posted_at_ms, .. }]) = written.as_deref() else {
        panic!("{written:?}")
    };
    let mut read_at = |now_ms| {
        let read = Op::Read { board: board.clone(), range: Range::Last, limit: 9 };
        match (reader.apply(&read, now_ms), reader.apply(&Op::Boards, now_ms)) {
            (Ok(OpReply::Page(page)), Ok(OpReply::Boards(boards))) => {
                assert_eq!(page.as_of_ms, boards.as_of_ms);
                (page.posts.len(), page.as_of_ms)
            }
            other => panic!("{other:?}"),
        }
    };
    let (posts, as_of_ms) = read_at(START_MS + 20);
    assert_eq!(posts, 0);
    assert!(*posted_at_ms >= as_of_ms, "post of {posted_at_ms} came after a read as of {as_of_ms}");
    Tx { db: &open, now_ms: START_MS + 10 }.raise_clock().expect("raised");
    open.commit().expect("committed");
    assert_eq!(read_at(START_MS + 30), (1, START_MS + 10));
}

#[test]
fn file_is_durable_and_reads_do_not_wait() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("store.db");
    let busy = Duration::from_secs(1);
    let writer = SqliteCore::open_file(&path, &NEW, busy).expect("made");
    let mut reader = SqliteCore::open_to_read(&path, busy).expect("there");
    for core in [&writer, &reader] {
        let number = |name| -> i64 {
            core.db.pragma_query_value(None, name, |row| row.get(0)).expect("a pragma")
        };
        let mode: String =
            core.db.pragma_query_value(None, "journal_mode", |row| row.get(0)).expect("a mode");
        assert_eq!(mode, "wal");
        assert_eq!(number("synchronous"), 2, "FULL");
        assert_eq!(number("busy_timeout"), 1000);
        assert_eq!(number("temp_store"), 2, "MEMORY");
    }
    writer.db.execute_batch("BEGIN IMMEDIATE; DELETE FROM boards").expect("begun");
    let boards = reader.apply(&Op::Boards, START_MS);
    assert!(matches!(boards, Ok(OpReply::Boards(boards)) if boards.boards.len() == 1));
    let wrote = reader.apply(&Op::DropDeadLetter(1), START_MS);
    assert!(wrote.is_err(), "a reading connection does not write: {wrote:?}");
}

#[test]
fn store_is_created_once() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("store.db");
    let busy = Duration::from_secs(1);
    for epoch in [3, 4] {
        let new = NewCluster { epoch: StoreEpoch(epoch), ..NEW };
        let mut core = SqliteCore::open_file(&path, &new, busy).expect("opened");
        let want = ClusterRow { cluster: [7; 16], epoch: StoreEpoch(3), now_ms: 5 };
        assert_eq!(core.apply(&Op::Cluster, 5), Ok(OpReply::Cluster(want)));
    }
}

#[test]
fn files_of_other_programs_are_refused_and_not_changed() {
    let dir = TempDir::new().expect("a directory");
    let busy = Duration::from_secs(1);
    let open = |name: &str| SqliteCore::open_file(&dir.path().join(name), &NEW, busy);
    let change = |name: &str, sql: &str| {
        let db = Connection::open(dir.path().join(name)).expect("opened");
        db.execute_batch(sql).expect("changed");
    };
    change("other", "CREATE TABLE theirs (x)");
    let before = std::fs::read(dir.path().join("other")).expect("read");
    let other = open("other").map(drop);
    assert!(matches!(other, Err(StoreError::Refused { .. })), "{other:?}");
    assert_eq!(std::fs::read(dir.path().join("other")).expect("read"), before);
    drop(open("newer").expect("made"));
    change("newer", "UPDATE cluster SET min_reader = 99");
    let newer = open("newer").map(drop);
    assert!(matches!(newer, Err(StoreError::Refused { .. })), "{newer:?}");
    std::fs::write(dir.path().join("text"), "not a database, but long enough ".repeat(9))
        .expect("written");
    let text = open("text").map(drop);
    assert!(matches!(text, Err(StoreError::Broken { .. })), "{text:?}");
    std::fs::write(dir.path().join("empty"), []).expect("written");
    for name in ["nowhere", "empty"] {
        let read = SqliteCore::open_to_read(&dir.path().join(name), busy).map(drop);
        assert!(read.is_err_and(|error| error.is_away()), "{name}: it may be made yet");
    }
}

#[test]
fn full_or_read_only_disk_is_away() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("store.db");
    let busy = Duration::from_millis(50);
    let mut core = SqliteCore::open_file(&path, &NEW, busy).expect("made");
    let letter = |n: u32| {
        let why = format!("{n:0>1000}");
        let resource = Resource::Board(BoardName::lobby());
        Op::PutDeadLetter(DeadLetter { number: 0, resource, post: None, why, at_ms: 0 })
    };
    let reason = |answer: Result<OpReply, StoreError>| match answer {
        Err(error) if error.is_away() => error.away_reason(),
        other => panic!("{other:?}"),
    };
    let pages: u32 =
        core.db.pragma_query_value(None, "page_count", |row| row.get(0)).expect("a number");
    let limit = |core: &SqliteCore, pages: u32| {
        let set = core.db.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()));
        set.expect("a limit");
    };
    limit(&core, pages + 2);
    let full = (0..100).map(|n| core.apply(&letter(n), START_MS)).find(Result::is_err);
    assert_eq!(full.and_then(reason), Some(AwayReason::Full));
    limit(&core, u32::MAX - 1);
    assert_eq!(core.apply(&letter(200), START_MS), Ok(OpReply::Done), "and it is over");
    core.db.pragma_update(None, "query_only", true).expect("a pragma");
    assert_eq!(reason(core.apply(&letter(201), START_MS)), Some(AwayReason::ReadOnly));
    core.db.pragma_update(None, "query_only", false).expect("a pragma");
    let mut other = SqliteCore::open_file(&path, &NEW, busy).expect("opened");
    core.db.execute_batch("BEGIN IMMEDIATE").expect("locked");
    assert_eq!(reason(other.apply(&letter(202), START_MS)), Some(AwayReason::Locked));
}

#[test]
fn group_fails_as_a_whole_when_the_disk_is_full() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("store.db");
    let busy = Duration::from_millis(50);
    let core = SqliteCore::open_file(&path, &NEW, busy).expect("made");
    let mut desk = Desk { core, now_ms: START_MS };
    let lobby = Resource::Board(BoardName::lobby());
    let token = Token { n: 1, ..desk.lease(lobby.clone()) };
    let permission = Permission { resource: lobby, token, after: None, worker: NodeId([9; 16]) };
    let batch = |first: u16| -> Vec<Task> {
        let post = |n: u16| {
            let mut id = [0; 16];
            id[..2].copy_from_slice(&n.to_be_bytes());
            let author = Author { id: UserId([1; 16]), name: "Ada".parse().expect("a name") };
            let text = "x".repeat(1000).parse().expect("a text");
            let post = NewPost { id: PostId(id), author, text };
            Task::Post { board: BoardName::lobby(), post }
        };
        (first..first + 50).map(post).collect()
    };
    let next = Permission { token: Token { n: 2, ..token }, ..permission.clone() };
    let (small, large) = (vec![batch(0).remove(0)], batch(100));
    let group = [(&permission, &small), (&next, &large)].map(|(permission, tasks)| Batch {
        permission,
        tasks,
        known: Seq::default(),
    });
    let pages: u32 =
        desk.core.db.pragma_query_value(None, "page_count", |row| row.get(0)).expect("a number");
    let limit = |desk: &Desk, pages: u32| {
        let set = desk.core.db.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()));
        set.expect("a limit");
    };
    limit(&desk, pages + 2);
    let answers = desk.core.write_group(&group, START_MS);
    assert!(matches!(&answers[..], [Err(StoreError::Away { .. }), Err(StoreError::Away { .. })]));
    limit(&desk, u32::MAX - 1);
    let answers = desk.core.write_group(&group, START_MS);
    let committed = |seq: u64| TaskResult::Committed { seq: Seq(seq), posted_at_ms: START_MS };
    assert_eq!(answers[0], Ok(vec![committed(1)]), "nothing of the first try is left");
    assert_eq!(answers[1].as_ref().map(|results| results.last().cloned()), Ok(Some(committed(51))));
}
