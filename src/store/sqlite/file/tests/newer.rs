//! Files of a newer release, which knows one schema step more than this one.

use rusqlite::Connection;

use super::*;

/// Time-out on a busy machine.
const PATIENT: Duration = Duration::from_secs(30);

fn steps_of(path: &Path) -> u32 {
    let db = Connection::open(path).expect("opened");
    db.pragma_query_value(None, "user_version", |row| row.get(0)).expect("a number")
}

/// Changes the file at `path` as the next release does, whose step only adds. Returns its number of
/// steps.
fn upgrade(path: &Path) -> u32 {
    let steps = steps_of(path) + 1;
    let sql = format!(
        "BEGIN IMMEDIATE;
         ALTER TABLE boards ADD COLUMN colour INTEGER NOT NULL DEFAULT 7;
         ALTER TABLE posts ADD COLUMN colour INTEGER NOT NULL DEFAULT 7;
         CREATE TABLE colours (colour INTEGER PRIMARY KEY) STRICT;
         PRAGMA user_version = {steps};
         COMMIT"
    );
    Connection::open(path).expect("opened").execute_batch(&sql).expect("upgraded");
    steps
}

/// Changes the file at `path` as a release does that allows no older one. Returns a connection to it, and its
/// number of steps.
fn close(path: &Path) -> (Connection, u32) {
    let steps = upgrade(path);
    let db = Connection::open(path).expect("opened");
    db.execute("UPDATE cluster SET min_reader = ?1", [steps]).expect("set");
    (db, steps)
}

/// Returns a new store with a post, and its board.
async fn begun(env: &Env, path: &Path) -> (Store, Board) {
    let store = open(env, path, PATIENT).expect("a store");
    let board = Board::made(&store, 1).await;
    assert_eq!(seq_of(&board.write(&store, 2, 1).await), Some(1));
    (store, board)
}

#[tokio::test]
async fn file_of_a_newer_release_that_allows_this_one_is_used_and_keeps_its_step() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("store.db");
    let env = real_env();
    let (store, board) = begun(&env, &path).await;

    let steps = upgrade(&path);
    assert_eq!(seq_of(&board.write(&store, 3, 2).await), Some(2), "by a process that runs");
    for (expected, n) in [(Expected::AnyOrNew, 4), (Expected::Existing, 5)] {
        let limits = FileLimits { expected, ..FileLimits::new(PATIENT) };
        let again = open_with(&env, &path, limits).expect("by one that starts");
        let seq = n - 1;
        let post = u8::try_from(seq).expect("small");
        assert_eq!(seq_of(&board.write(&again, n, post).await), Some(seq));
        let page = again.read(board.name(), Range::Last, 9).await.expect("a page");
        assert_eq!(page.last_seq, Seq(seq));
    }
    assert_eq!(steps_of(&path), steps);
}

#[tokio::test]
async fn file_of_a_newer_release_that_allows_no_older_one_is_refused_with_the_remedy() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("store.db");
    let env = real_env();
    drop(open(&env, &path, PATIENT).expect("a store"));
    let (_, steps) = close(&path);

    let line = format!(
        "it wants a release that knows step {steps}, and this one knows {}: install a newer one",
        steps - 1
    );
    let refused = Err(StoreError::Refused { why: line });
    for expected in [Expected::AnyOrNew, Expected::Existing] {
        let limits = FileLimits { expected, ..FileLimits::new(PATIENT) };
        assert_eq!(open_with(&env, &path, limits).map(drop), refused, "{expected:?}");
    }
    assert_eq!(SqliteCore::open_to_read(&path, TIMEOUT).map(drop), refused);
    assert_eq!(steps_of(&path), steps);
}

#[tokio::test]
async fn process_whose_release_is_allowed_no_more_meanwhile_finds_the_store_away() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("store.db");
    let env = real_env();
    let (store, board) = begun(&env, &path).await;

    let (db, _) = close(&path);
    let away = [
        board.write(&store, 3, 2).await.map(drop).expect_err("a write"),
        store.read(board.name(), Range::Last, 9).await.map(drop).expect_err("a read"),
    ];
    for error in away {
        assert_eq!(error.away_reason(), Some(AwayReason::Replaced), "{error}");
        assert!(error.to_string().contains("install a newer one"), "{error}");
    }
    let posts = || db.query_row("SELECT count(*) FROM posts", [], |row| row.get::<_, u32>(0));
    assert_eq!(posts(), Ok(1));
    db.execute("UPDATE cluster SET min_reader = 1", []).expect("set");
    assert_eq!(seq_of(&board.write(&store, 3, 2).await), Some(2), "it may again");
}
