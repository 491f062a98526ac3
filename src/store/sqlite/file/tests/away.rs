//! Files that are moved, replaced or rolled back under a running store.

use rusqlite::Connection;

use super::*;
use crate::{
    model::{absence::AwayReason, ids::SessionKey},
    store::OwnEnds,
};

/// Running store, and its file with the log and its index beside it.
struct Moved {
    dir: TempDir,
    env: Env,
    store: Store,
}

impl Moved {
    async fn new() -> Self {
        let (dir, env) = (TempDir::new().expect("a directory"), real_env());
        let store = open(&env, &dir.path().join("store.db"), Duration::from_secs(30));
        let moved = Self { dir, env, store: store.expect("a store") };
        moved.write("first").await.expect("kept");
        moved.store.boards().await.expect("read");
        moved
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("store.db")
    }

    async fn write(&self, why: &str) -> Result<(), StoreError> {
        let resource = Resource::Board(BoardName::lobby());
        let why = why.to_owned();
        let letter = DeadLetter { number: 0, resource, post: None, why, at_ms: 0 };
        self.store.put_dead_letter(letter).await
    }

    /// Moves the file, with its log and index, from one name to another.
    fn rename(&self, from: &str, to: &str) {
        let path = |name: &str, suffix| beside(&self.dir.path().join(name), suffix);
        for suffix in ["", "-wal", "-shm"] {
            std::fs::rename(path(from, suffix), path(to, suffix)).expect("moved");
        }
    }

    /// Makes a copy of the store as it is now.
    fn copy(&self, to: &str) {
        let to = self.dir.path().join(to);
        let db = Connection::open(self.path()).expect("opens");
        db.execute("VACUUM INTO ?1", [to.to_str().expect("text")]).expect("copied");
    }

    /// Checks that neither a write nor a read reaches what lies there now.
    async fn is_away(&self, reason: AwayReason) -> String {
        let written = self.write("refused").await.expect_err("away");
        let read = self.store.boards().await.expect_err("away");
        for error in [&written, &read] {
            assert_eq!((error.is_away(), error.away_reason()), (true, Some(reason)), "{error}");
        }
        written.to_string()
    }

    /// Checks that the store goes on with all that was written, and nothing that was refused.
    async fn is_back(&self, want: &[&str]) {
        self.write("last").await.expect("kept");
        let letters = self.store.dead_letters(10).await.expect("listed");
        let whys: Vec<_> = letters.iter().rev().map(|letter| letter.why.as_str()).collect();
        assert_eq!(whys, [want, &["last"]].concat());
    }
}

#[tokio::test]
async fn file_that_was_moved_is_away_until_it_is_back_and_no_other_is_made() {
    let moved = Moved::new().await;
    std::fs::rename(moved.path(), moved.dir.path().join("elsewhere")).expect("moved");
    moved.is_away(AwayReason::Gone).await;
    assert!(!moved.path().exists(), "a new store was made");
    std::fs::rename(moved.dir.path().join("elsewhere"), moved.path()).expect("moved back");
    moved.is_back(&["first"]).await;
    moved.rename("store.db", "elsewhere");
    moved.is_away(AwayReason::Gone).await;
    moved.rename("elsewhere", "store.db");
    moved.is_back(&["first"]).await;
}

#[tokio::test]
async fn directory_that_was_moved_is_away_until_it_is_back() {
    let moved = Moved::new().await;
    let (dir, elsewhere) = (moved.dir.path().to_owned(), moved.dir.path().with_extension("old"));
    std::fs::rename(&dir, &elsewhere).expect("moved");
    moved.is_away(AwayReason::Gone).await;
    std::fs::rename(&elsewhere, &dir).expect("moved back");
    moved.is_back(&["first"]).await;
}

#[tokio::test]
async fn file_that_was_replaced_by_an_empty_or_a_foreign_one_is_away() {
    let moved = Moved::new().await;
    moved.rename("store.db", "kept");
    for (content, reason) in [
        (String::new(), AwayReason::Replaced),
        ("no database, but long enough ".repeat(99), AwayReason::Damaged),
    ] {
        std::fs::write(moved.path(), &content).expect("written");
        moved.is_away(reason).await;
        assert_eq!(std::fs::read(moved.path()).expect("read"), content.as_bytes(), "untouched");
        std::fs::remove_file(moved.path()).expect("removed");
    }
    let theirs = Moved::new().await;
    theirs.copy("copy");
    std::fs::copy(theirs.dir.path().join("copy"), moved.path()).expect("copied");
    let why = moved.is_away(AwayReason::Replaced).await;
    assert!(why.contains("another cluster"), "{why}");
    for suffix in ["", "-wal", "-shm"] {
        // SQLite may have left its log with the last connection.
        let _ = std::fs::remove_file(beside(&moved.path(), suffix));
    }
    moved.rename("kept", "store.db");
    moved.is_back(&["first"]).await;
}

#[tokio::test]
async fn file_that_was_replaced_by_an_older_copy_is_away_until_the_newer_one_is_back() {
    let moved = Moved::new().await;
    moved.copy("older");
    moved.env.sleep(Duration::from_millis(5)).await;
    moved.write("second").await.expect("kept");
    // Beside the log of the newer file it is not even opened.
    std::fs::rename(moved.path(), moved.dir.path().join("newer")).expect("moved");
    std::fs::copy(moved.dir.path().join("older"), moved.path()).expect("copied");
    let why = moved.is_away(AwayReason::Replaced).await;
    assert!(why.contains("store.db-wal"), "{why}");
    for suffix in ["-wal", "-shm"] {
        let newer = beside(&moved.dir.path().join("newer"), suffix);
        std::fs::rename(beside(&moved.path(), suffix), newer).expect("moved");
    }
    let why = moved.is_away(AwayReason::RolledBack).await;
    assert!(why.contains("put the newer file back"), "{why}");
    moved.rename("store.db", "away");
    moved.rename("newer", "store.db");
    moved.is_back(&["first", "second"]).await;
}

#[tokio::test]
async fn newer_file_is_taken_back_after_an_older_copy_that_others_wrote_to() {
    let moved = Moved::new().await;
    moved.copy("older");
    moved.env.sleep(Duration::from_millis(5)).await;
    moved.write("second").await.expect("kept");
    let boards = moved.store.boards().await.expect("read");
    moved.store.confirm(boards.epoch, boards.as_of_ms);
    moved.rename("store.db", "newer");
    std::fs::copy(moved.dir.path().join("older"), moved.path()).expect("copied");
    moved.is_away(AwayReason::RolledBack).await;
    // A process that starts now knows of nothing newer. Its write brings the copy's clock forward.
    let fresh = open(&moved.env, &moved.path(), Duration::from_secs(30)).expect("a store");
    fresh.drop_dead_letter(1).await.expect("dropped");
    moved.store.boards().await.expect("its clock is the newest");
    moved.store.doubt();
    moved.rename("store.db", "away");
    moved.rename("newer", "store.db");
    moved.is_back(&["first", "second"]).await;
}

#[tokio::test]
async fn older_copy_with_a_newer_clock_answers_nothing_where_a_node_has_posts_that_it_lacks() {
    let moved = Moved::new().await;
    let ends = OwnEnds::default();
    moved.store.compare(ends.clone());
    moved.copy("older");
    let db = Connection::open(moved.path()).expect("opens");
    db.execute("UPDATE boards SET last_seq = 1 WHERE name = 'lobby'", []).expect("a post");
    drop(db);
    ends.set(moved.store.boards().await.expect("read"));
    moved.rename("store.db", "newer");
    std::fs::copy(moved.dir.path().join("older"), moved.path()).expect("copied");
    // A process that starts now knows of nothing newer. Its write brings the copy's clock forward.
    let fresh = open(&moved.env, &moved.path(), Duration::from_secs(30)).expect("a store");
    moved.env.sleep(Duration::from_millis(5)).await;
    fresh.drop_dead_letter(1).await.expect("dropped");
    for _ in 0..2 {
        let written = moved.store.drop_dead_letter(2).await.expect_err("a write");
        let found = moved.store.find_session(SessionKey([1; 32])).await.expect_err("a read");
        for error in [written, found] {
            assert_eq!(error.away_reason(), Some(AwayReason::RolledBack), "{error}");
            assert!(error.to_string().contains("lobby ends at 0"), "{error}");
        }
    }
    moved.rename("store.db", "away");
    moved.rename("newer", "store.db");
    moved.is_back(&["first"]).await;
}

#[tokio::test]
async fn lock_file_that_was_removed_is_made_again() {
    let moved = Moved::new().await;
    std::fs::remove_file(beside(&moved.path(), ".gate")).expect("removed");
    moved.is_back(&["first"]).await;
    assert!(beside(&moved.path(), ".gate").exists());
}

#[tokio::test]
async fn store_that_has_to_be_there_is_never_made() {
    let (dir, env) = (TempDir::new().expect("a directory"), real_env());
    let path = dir.path().join("store.db");
    let existing = |expected| {
        let limits = FileLimits { expected, ..FileLimits::new(Duration::from_secs(30)) };
        open_with(&env, &path, limits)
    };
    let missing = existing(Expected::Existing).map(drop);
    assert!(matches!(missing, Err(StoreError::Refused { .. })), "{missing:?}");
    assert!(!path.exists(), "a new store was made");
    std::fs::write(&path, []).expect("written");
    let empty = existing(Expected::Existing).map(drop);
    assert!(matches!(empty, Err(StoreError::Refused { .. })), "{empty:?}");
    std::fs::remove_file(&path).expect("removed");
    let store = open(&env, &path, Duration::from_secs(30)).expect("made");
    let cluster = store.cluster().await.expect("a row").cluster;
    drop(existing(Expected::Cluster(cluster)).expect("its own"));
    let other = existing(Expected::Cluster([0xab; 16])).map(drop);
    let Err(StoreError::Refused { why }) = other else { panic!("{other:?}") };
    assert!(why.contains("abababab") && why.contains("--store"), "{why}");
}
