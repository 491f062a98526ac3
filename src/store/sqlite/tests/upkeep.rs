//! Tests of upkeep: what it drops, in which pieces, and what it leaves alone.

use super::*;
use crate::{
    env::{Env, real::RealWorld},
    model::{
        ids::{Fingerprint, Role},
        rows::{Enrolled, JoinToken},
    },
    store::bounds::CANCELS_MAX,
};

const HOUR_MS: u64 = 60 * 60 * 1000;

/// Bound of what one piece may change: its rows, and what belongs to its last session.
const PIECE_MAX: u64 = 600;

impl Desk {
    /// Fills the record of writes with rows 1 to `rows` and one far above them.
    fn fill_writes(&self, rows: u32) {
        self.fill(&format!(
            "WITH RECURSIVE n(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM n LIMIT {rows})
             INSERT INTO writes
             SELECT number, 'board:lobby', 3, 1, 1, zeroblob(16), 'write', 1, 0
             FROM (SELECT number FROM n UNION ALL SELECT 2000000)"
        ));
    }

    fn fill(&self, sql: &str) {
        self.core.db.execute_batch(sql).expect("filled");
    }

    fn rows(&self, table: &str) -> u64 {
        Tx { db: &self.core.db, now_ms: 0 }.count(table).expect("counted")
    }

    /// Applies an operation and returns how many rows it changed.
    fn changes(&mut self, op: &Op) -> u64 {
        let before = self.core.db.total_changes();
        self.apply(op);
        self.core.db.total_changes() - before
    }

    /// Does pieces until none is due; returns their number.
    fn keep_up(&mut self) -> u32 {
        let mut pieces = 1;
        loop {
            let before = self.core.db.total_changes();
            let reply = self.apply(&Op::KeepUp { clock_jumped: false });
            let changed = self.core.db.total_changes() - before;
            assert!(changed <= PIECE_MAX, "a piece changed {changed} rows");
            if reply == (OpReply::KeptUp { more: false }) {
                return pieces;
            }
            pieces += 1;
        }
    }
}

#[test]
fn touch_of_a_master_changes_few_rows_whatever_upkeep_is_due() {
    let mut desk = Desk::new();
    desk.fill_writes(5000);
    let mut most = 0;
    for _ in 0..25 * HOUR_MS / 60_000 {
        desk.now_ms += 60_000;
        most = most.max(desk.changes(&Op::TouchMaster { holder: LIFE, draining: false }));
    }
    assert!(most < 10, "a touch changed {most} rows");
}

#[test]
fn touch_of_sessions_changes_few_rows_however_many_are_not_active_any_more() {
    let mut desk = Desk::new();
    let touch = Op::TouchSessions { master: MASTER, keys: Vec::new() };
    desk.apply(&touch);
    desk.fill(&format!(
        "WITH RECURSIVE n(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM n LIMIT 5000)
         INSERT INTO presence SELECT CAST(number AS BLOB), zeroblob(16), 0, {START_MS} FROM n"
    ));
    for _ in 0..6 {
        desk.now_ms += 5000;
        let changed = desk.changes(&touch);
        assert!(changed < 10, "a touch changed {changed} rows");
    }
    assert!(desk.keep_up() > 8);
    assert_eq!(desk.rows("presence"), 0);
}

#[test]
fn read_mark_changes_few_rows_however_many_sessions_its_user_has() {
    let mut desk = Desk::new();
    desk.fill(
        "WITH RECURSIVE n(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM n LIMIT 3000)
         INSERT INTO sessions
         SELECT CAST(printf('%032d', number) AS BLOB), zeroblob(16), 'Ada', 0, 0 FROM n;
         UPDATE boards SET last_seq = 5",
    );
    let resource = Resource::Sessions(MASTER);
    let token = Token { n: 1, ..desk.lease(resource.clone()) };
    let permission = Permission { resource, token, after: None, worker: NodeId([9; 16]) };
    let key = SessionKey(*b"00000000000000000000000000000001");
    let mark = Task::SetReadMark { key, board: BoardName::lobby(), seq: Seq(1) };
    let changed =
        desk.changes(&Op::Write { permission, tasks: Arc::new(vec![mark]), known: Seq::default() });
    assert_eq!(desk.rows("read_marks"), 1);
    assert!(changed < 10, "a read mark changed {changed} rows");
}

#[test]
fn record_of_writes_is_trimmed_in_small_pieces() {
    let mut desk = Desk::new();
    desk.fill_writes(5000);
    assert!(desk.keep_up() > 8, "5,000 rows are many pieces");
    assert_eq!(desk.rows("writes"), 1, "no age is asked");
}

#[test]
fn idle_sessions_are_swept_in_small_pieces_until_none_is_left() {
    let mut desk = Desk::new();
    desk.fill(
        "WITH RECURSIVE n(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM n LIMIT 3000)
         INSERT INTO sessions
         SELECT CAST(printf('%032d', number) AS BLOB), CAST(printf('%016d', number) AS BLOB),
                'Ada', 0, 0 FROM n",
    );
    desk.keep_up_for(DAY_MS + HOUR_MS);
    assert!(desk.keep_up() >= 1);
    assert_eq!((desk.rows("sessions"), desk.rows("closed_sessions")), (0, 3000));
}

#[test]
fn pause_of_an_hour_is_no_jump_and_puts_nothing_off() {
    let mut desk = Desk::new();
    let key = desk.open_session();
    // Every day has its pause: a night without any master.
    for _ in 0..32 * 24 / 10 {
        desk.now_ms += 10 * HOUR_MS;
        desk.keep_up();
    }
    assert!(!desk.is_open(key));
}

#[test]
fn reported_jump_puts_sweeps_off_for_a_day() {
    let mut desk = Desk::new();
    let key = desk.open_session();
    desk.keep_up_for(29 * DAY_MS);
    desk.now_ms += 20 * HOUR_MS;
    desk.apply(&Op::KeepUp { clock_jumped: true });
    desk.keep_up_for(23 * HOUR_MS);
    assert!(desk.is_open(key), "an age is worth nothing on the day of a jump");
    desk.keep_up_for(2 * HOUR_MS);
    assert!(!desk.is_open(key));
}

#[test]
fn step_back_of_the_clock_puts_sweeps_off_for_a_day() {
    let mut desk = Desk::new();
    let key = desk.open_session();
    desk.keep_up_for(30 * DAY_MS - HOUR_MS);
    desk.now_ms -= 30 * 60_000;
    desk.keep_up_for(23 * HOUR_MS);
    assert!(desk.is_open(key));
    desk.keep_up_for(2 * HOUR_MS);
    assert!(!desk.is_open(key));
}

/// Makes a store of the first schema step, with a cancelled id and a session.
fn of_the_first_step(path: &Path) -> SqliteCore {
    let core = SqliteCore::open_file(path, &NEW, Duration::from_secs(1)).expect("made");
    core.db
        .execute_batch(
            "DROP INDEX sessions_used; DROP INDEX closed_sessions_at; DROP INDEX tickets_end;
             DROP INDEX presence_seen; DROP INDEX lease_terms_end;
             ALTER TABLE enrolled DROP COLUMN used_at;
             DROP TABLE cancels; INSERT INTO post_ids VALUES (x'01', x'02', NULL, NULL);
             DELETE FROM meta WHERE name = 'clock';
             DROP TABLE session_digests;
             INSERT INTO sessions VALUES (zeroblob(32), zeroblob(16), 'Ada', 0, 0);
             UPDATE boards SET last_posted_at = 77;
             PRAGMA user_version = 1",
        )
        .expect("as the first release made it");
    core
}

#[test]
fn store_of_the_first_schema_step_is_brought_up_to_date_and_kept() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("store.db");
    let busy = Duration::from_secs(1);
    {
        let mut core = of_the_first_step(&path);
        let boards = core.apply(&Op::Boards, START_MS);
        assert!(boards.is_ok(), "{boards:?}");
    }
    let mut old_reader = SqliteCore::open_to_read(&path, busy).expect("reads beside the upgrade");
    let mut core = SqliteCore::open_file(&path, &NEW, busy).expect("brought up to date");
    let number = |name| -> u32 {
        core.db.pragma_query_value(None, name, |row| row.get(0)).expect("a pragma")
    };
    assert_eq!(number("user_version"), 5);
    let indexes: u32 = core
        .db
        .query_row(
            "SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL",
            [],
            |row| row.get(0),
        )
        .expect("a number");
    assert_eq!(indexes, 10);
    let at: u32 = core
        .db
        .query_row("SELECT at FROM cancels", [], |row| row.get(0))
        .expect("the cancelled id");
    assert_eq!(at, 77);
    let found = core.apply(&Op::FindSession(SessionKey([0; 32])), START_MS);
    let Ok(OpReply::Session(Some(session))) = found else { panic!("{found:?}") };
    let digests = core.apply(&Op::SessionDigests, START_MS);
    let Ok(OpReply::SessionDigests(digests)) = digests else { panic!("{digests:?}") };
    assert_eq!(digests.open[..2], [session.digest(), 0], "sessions of before are counted");
    for core in [&mut core, &mut old_reader] {
        let Ok(OpReply::Boards(boards)) = core.apply(&Op::Boards, START_MS) else {
            panic!("no boards")
        };
        assert_eq!((boards.boards.len(), boards.as_of_ms), (1, 77), "not below any post");
    }
}

#[tokio::test]
async fn two_openers_at_once_bring_a_store_up_to_date_once() {
    let env = Env::new(RealWorld::temporary().expect("a directory"));
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("store.db");
    let gate = of_the_first_step(&path).db;
    // Both find that steps are missing before one of them may add these.
    gate.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let opener = || {
        let path = path.clone();
        let busy = Duration::from_secs(30);
        env.compute(move || SqliteCore::open_file(&path, &NEW, busy).map(drop))
    };
    let open = async {
        env.sleep(Duration::from_millis(300)).await;
        gate.execute_batch("COMMIT").expect("unlocked");
    };
    let (one, other, ()) = tokio::join!(opener(), opener(), open);
    for opened in [one, other] {
        assert_eq!(opened.expect("it ran"), Ok(()));
    }
    let number = |sql| -> u32 { gate.query_row(sql, [], |row| row.get(0)).expect("a number") };
    assert_eq!(number("PRAGMA user_version"), 5);
    assert_eq!(number("SELECT count(*) FROM cancels"), 1, "a step that is done twice adds two");
}

#[test]
fn full_table_of_leases_lets_go_of_the_one_that_ended_first() {
    let mut desk = Desk::new();
    desk.fill(&format!(
        "WITH RECURSIVE n(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM n LIMIT 16384)
         INSERT INTO leases SELECT 'board:x' || number, 3, number, 0, NULL, NULL FROM n;
         INSERT INTO lease_terms
         SELECT resource, lease, NULL, 1, 3000, {START_MS} - 20000 + lease, NULL, 0, 0 FROM leases"
    ));
    let token = desk.lease(Resource::Board(BoardName::lobby()));
    assert_eq!(token.lease, 2, "above the one that was forgotten");
    assert_eq!(desk.rows("leases WHERE resource = 'board:x1'"), 0);
    assert_eq!(desk.rows("leases"), 16_384);
}

#[test]
fn cancelled_ids_are_forgotten_by_age_and_beyond_a_number_of_one_person() {
    let mut desk = Desk::new();
    let resource = Resource::Sessions(MASTER);
    let cancel = |number: u64| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        Task::CancelPost { user: UserId([1; 16]), id: PostId(id) }
    };
    for batch in 1..=3 {
        let token = Token { n: batch, ..desk.lease(resource.clone()) };
        let permission =
            Permission { resource: resource.clone(), token, after: None, worker: NodeId([9; 16]) };
        let first = batch * CANCELS_MAX as u64;
        let tasks: Vec<_> = (first..first + CANCELS_MAX as u64).map(cancel).collect();
        let reply =
            desk.apply(&Op::Write { permission, tasks: Arc::new(tasks), known: Seq::default() });
        let OpReply::Written(results) = reply else { panic!("{reply:?}") };
        assert!(results.iter().all(|result| *result == TaskResult::Cancelled));
        assert_eq!(desk.rows("cancels"), CANCELS_MAX as u64);
        assert_eq!(desk.rows("post_ids"), CANCELS_MAX as u64);
    }
    desk.keep_up_for(39 * DAY_MS);
    assert_eq!(desk.rows("post_ids"), CANCELS_MAX as u64, "a late post may still come");
    desk.keep_up_for(2 * DAY_MS);
    desk.keep_up();
    assert_eq!((desk.rows("post_ids"), desk.rows("cancels")), (0, 0));
}

#[test]
fn full_list_of_nodes_lets_go_of_the_one_unused_longest_and_of_no_used_one() {
    let mut desk = Desk::new();
    let token = JoinToken {
        id: [5; 8],
        guard: [5; 32],
        bearer_sha256: [5; 32],
        role: Role::Worker,
        uses_left: 9,
        ends_at_ms: u64::MAX >> 1,
    };
    desk.keep_up_for(2 * DAY_MS);
    desk.apply(&Op::PutJoinToken(token));
    let old_ms = desk.now_ms - 8 * DAY_MS;
    desk.fill(&format!(
        "WITH RECURSIVE n(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM n LIMIT 16384)
         INSERT INTO enrolled
         SELECT CAST(printf('%016d', number) AS BLOB), zeroblob(32), 'worker', zeroblob(32),
                zeroblob(8), {old_ms} + number FROM n"
    ));
    let first = NodeId(*b"0000000000000001");
    desk.apply(&Op::UseNodes(vec![first]));
    let enrol = |desk: &mut Desk, n: u8| {
        let fingerprint = Fingerprint([n; 32]);
        let node = NodeId::of(&fingerprint);
        let node = Enrolled { node, fingerprint, role: Role::Worker, guard: [n; 32] };
        desk.core.apply(&Op::Enrol { token: [5; 8], bearer_sha256: [5; 32], node }, desk.now_ms)
    };
    enrol(&mut desk, 1).expect("there is room");
    let have = |desk: &Desk, number: u32| {
        desk.rows(&format!("enrolled WHERE node = CAST('{number:016}' AS BLOB)"))
    };
    assert_eq!((have(&desk, 1), have(&desk, 2), have(&desk, 3)), (1, 0, 1));
    desk.fill(&format!("UPDATE enrolled SET used_at = {}", desk.now_ms));
    assert!(enrol(&mut desk, 2).is_err(), "all are used");
}
