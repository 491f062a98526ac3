//! Files that take no writes, or may not even be read, when a process opens them.

use std::{fs, os::unix::fs::MetadataExt};

use super::*;
use crate::testing::small_disk::SmallDisk;

/// Returns a command that runs this test binary without root's right to read and write any file.
fn without_override(dir: &TempDir) -> Command {
    let this = std::env::current_exe().expect("this test");
    let is_root = fs::metadata(dir.path()).expect("a directory").uid() == 0;
    if !is_root {
        return Command::new(this);
    }
    let mut command = Command::new("setpriv");
    command.arg("--bounding-set=-dac_override,-dac_read_search").arg(this);
    command
}

/// Opens a store in a process of its own, and prints what came of it.
pub(super) fn open_and_tell(path: &Path) {
    let limits = FileLimits { expected: Expected::Existing, ..FileLimits::new(TIMEOUT * 10) };
    let reason = open_with(&real_env(), path, limits).map_err(|error| error.away_reason());
    println!("\nopened {:?}", reason.map(drop));
}

#[tokio::test]
async fn file_that_may_only_be_read_is_refused_at_the_start_and_left_alone() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("store.db");
    let store = open(&real_env(), &path, Duration::from_secs(30)).expect("a store");
    store.drop_dead_letter(1).await.expect("written");
    drop(store);
    let tell = || Process::run(without_override(&dir), "open", &path).said("opened ");
    let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
    mode(0o444);
    assert_eq!(tell(), "Err(Some(ReadOnly))");
    mode(0o600);
    assert_eq!(tell(), "Ok(())", "nothing read-only was left beside it");
}

#[test]
fn file_that_this_user_may_not_open_is_refused_at_the_start() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("store.db");
    let new = NewCluster { cluster: [0; 16], epoch: StoreEpoch(1), now_ms: 1 };
    // Its log is copied back and removed with the only connection.
    drop(SqliteCore::open_file(&path, &new, TIMEOUT).expect("a store"));
    let tell = || Process::run(without_override(&dir), "open", &path).said("opened ");
    let mode = |file: &Path, mode| {
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).expect("set");
    };
    mode(&path, 0);
    assert_eq!(tell(), "Err(Some(ReadOnly))");
    mode(&path, 0o600);
    for end in ["-wal", "-shm"] {
        let log = beside(&path, end);
        fs::write(&log, []).expect("written");
        mode(&log, 0);
        assert_eq!(tell(), "Err(Some(ReadOnly))", "{end}");
        fs::remove_file(&log).expect("removed");
    }
    assert_eq!(tell(), "Ok(())", "nothing was left beside it");
}

#[tokio::test]
async fn file_on_a_full_disk_is_refused_at_the_start() {
    let Some(disk) = SmallDisk::mounted() else { return };
    let (env, path) = (real_env(), disk.path("store.db"));
    let core = SqliteCore::open_file(
        &path,
        &NewCluster { cluster: [0; 16], epoch: StoreEpoch(1), now_ms: 1 },
        TIMEOUT,
    );
    // Its log is copied back and removed with the only connection.
    drop(core.expect("a store"));
    let ballast = disk.fill();
    let full = open(&env, &path, Duration::from_secs(30)).map(drop).expect_err("refused");
    assert_eq!(full.away_reason(), Some(AwayReason::Full), "{full}");
    fs::remove_file(&ballast).expect("removed");
    let store = open(&env, &path, Duration::from_secs(30)).expect("there is room");
    patiently(&env, async || store.boards().await).await.expect("it serves");

    let _ballast = disk.fill();
    let letter = |n: u32| DeadLetter {
        number: 0,
        resource: Resource::Board(BoardName::lobby()),
        post: None,
        why: format!("{n:0>10000}"),
        at_ms: 0,
    };
    let mut last = Ok(());
    for n in 0..2000 {
        last = store.put_dead_letter(letter(n)).await;
        if last.is_err() {
            break;
        }
    }
    let last = last.expect_err("no room is left");
    assert_eq!(last.away_reason(), Some(AwayReason::Full), "{last}");
    store.boards().await.expect("reads go on");
}

#[test]
fn write_that_is_tried_changes_nothing() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("store.db");
    let new = NewCluster { cluster: [0; 16], epoch: StoreEpoch(1), now_ms: 1 };
    let core = SqliteCore::open_file(&path, &new, Duration::from_millis(50)).expect("a store");
    let steps = |core: &SqliteCore| -> u32 {
        core.db.pragma_query_value(None, "user_version", |row| row.get(0)).expect("a number")
    };
    let before = (steps(&core), core.mark().map(|mark| mark.clock_ms));
    core.try_to_write().expect("written");
    assert_eq!((steps(&core), core.mark().map(|mark| mark.clock_ms)), before);
    let other = SqliteCore::open_existing(&path, Duration::from_millis(50)).expect("opened");
    core.db.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let busy = other.try_to_write().expect_err("locked");
    assert!(may_pass(&busy), "a store that is in use is not refused: {busy}");
}
