//! Upgrade of a store by a release that knows one schema step more, beside nodes of this one.

use super::{schema::refusal, *};
use crate::{
    env::real::TempDir,
    store::postgres::{
        backup::{back_up, restore},
        connection::Db,
        schema::{LOCK, Release, THIS_RELEASE},
    },
};

/// Step that only adds, and counts how often it is done.
const ADDS: &str = "
    ALTER TABLE boards ADD COLUMN colour BIGINT NOT NULL DEFAULT 7;
    ALTER TABLE posts ADD COLUMN colour BIGINT NOT NULL DEFAULT 7;
    INSERT INTO meta (name, value) VALUES ('upgrades', 1)
        ON CONFLICT (name) DO UPDATE SET value = meta.value + 1;
";

/// Step that older releases cannot read past.
const BREAKS: &str = "
    ALTER TABLE boards RENAME COLUMN last_posted_at TO newest_at;
    UPDATE chatchat_store SET min_reader = steps + 1;
";

/// Step that takes longer than any test.
const SLOW: &str = "SELECT pg_sleep(600)";

/// Whether that step runs, as a number.
const SLEEPS: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";

/// Whether it does not, as a number.
const NONE_SLEEPS: &str =
    "SELECT (count(*) = 0)::int FROM pg_stat_activity WHERE wait_event = 'PgSleep'";

/// Steps and the oldest reader of the store.
const VERSION: &str = "SELECT steps || ' ' || min_reader FROM chat.chatchat_store";

/// Number of steps that this release knows.
const KNOWN: usize = THIS_RELEASE.steps.len();

/// Returns a release that knows this step too.
fn next_release(step: &'static str) -> Release {
    let mut steps = THIS_RELEASE.steps.to_vec();
    steps.push(step);
    Release { steps: steps.leak(), ..THIS_RELEASE }
}

/// Returns what a process of a release shares.
fn process(env: &Env, server: &Server, release: Release, may_upgrade: bool) -> Shared {
    let limits = ServerLimits { may_upgrade, ..ServerLimits::new(PATIENT) };
    let mut shared = Shared::new(env, address(&server.url("chat")), None, limits, None);
    shared.release = release;
    shared
}

/// Connects as soon as the store is there, as a node does.
async fn connected(env: &Env, shared: &Shared) -> Db {
    let connected = async {
        loop {
            match shared.connect().await {
                Ok(db) => return db,
                Err(error) if error.is_away() => env.sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    env.timeout(PATIENT, connected).await.expect("connected in time")
}

/// Returns what a release says of a store that wants one with a step more.
fn too_new() -> String {
    format!(
        "it wants a release that knows step {}, and this one knows {KNOWN}: install a newer one",
        KNOWN + 1
    )
}

#[tokio::test]
async fn two_openers_of_a_newer_release_at_once_upgrade_a_store_once() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let store = opened(&env, &server).await;
    write(&store, &lobby(&store, 1).await, 1).await.expect("written");

    let newer = next_release(ADDS);
    let worker = process(&env, &server, newer, false);
    let away = worker.connect().await.map(drop).expect_err("a step is missing");
    let why = format!(
        "it has {KNOWN} of the {} steps that this release needs; start a master or \
         chatchat-cluster of this release first",
        KNOWN + 1
    );
    assert!(away.is_away() && away.to_string().contains(&why), "{away}");
    assert_eq!(server.sql(&env, VERSION).await, [format!("{KNOWN} 1")]);

    let [one, other] = [(); 2].map(|()| process(&env, &server, newer, true));
    // Both find that the step is missing before one of them may add it.
    let gate = one.reach().await.expect("reached");
    gate.client.batch_execute(&format!("BEGIN; {LOCK}")).await.expect("locked");
    let open = async {
        let wait = "SELECT count(*) / 2 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        away::until_some(&env, &server, wait).await;
        gate.client.batch_execute("COMMIT").await.expect("unlocked");
    };
    let (_one, _other, ()) = tokio::join!(connected(&env, &one), connected(&env, &other), open);
    let times = server.sql(&env, "SELECT value FROM chat.meta WHERE name = 'upgrades'").await;
    assert_eq!(times, ["1"]);
    assert_eq!(server.sql(&env, VERSION).await, [format!("{} 1", KNOWN + 1)]);
    connected(&env, &worker).await;
}

#[tokio::test]
async fn upgrade_may_take_longer_than_a_connection() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let store = opened(&env, &server).await;
    store.boards().await.expect("it is there");
    // Longer than a server may take for a connection.
    connected(&env, &process(&env, &server, next_release("SELECT pg_sleep(4)"), true)).await;
    assert_eq!(server.sql(&env, VERSION).await, [format!("{} 1", KNOWN + 1)]);
}

#[tokio::test]
async fn upgrade_that_takes_too_long_ends_on_the_server_too() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let store = opened(&env, &server).await;
    store.boards().await.expect("it is there");
    let mut shared = process(&env, &server, next_release(SLOW), true);
    shared.change_max = Duration::from_secs(1);
    let late = shared.connect().await.map(drop).expect_err("it takes too long");
    assert!(late.is_away(), "{late}");
    away::until_some(&env, &server, NONE_SLEEPS).await;
    assert_eq!(server.sql(&env, VERSION).await, [format!("{KNOWN} 1")]);
}

#[tokio::test]
async fn upgrade_ends_with_the_store_of_its_process() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let store = opened(&env, &server).await;
    store.boards().await.expect("it is there");
    let shared = Arc::new(process(&env, &server, next_release(SLOW), true));
    let ((to, queue), (ready, _opened)) = (queue::queue(), oneshot::channel());
    let worker = Worker { shared, queue, ready: Some(ready) };
    let end = async {
        away::until_some(&env, &server, SLEEPS).await;
        drop(to);
    };
    let both = async { tokio::join!(worker.run(), end) };
    env.timeout(PATIENT, both).await.expect("the connection ends with the store");
    away::until_some(&env, &server, NONE_SLEEPS).await;
    assert_eq!(server.sql(&env, VERSION).await, [format!("{KNOWN} 1")]);
}

#[tokio::test]
async fn node_of_this_release_goes_on_beside_a_newer_one_that_allows_it() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let store = opened(&env, &server).await;
    let permission = lobby(&store, 1).await;
    write(&store, &permission, 1).await.expect("written");
    assert_eq!(seqs(&store).await, in_order(1));

    connected(&env, &process(&env, &server, next_release(ADDS), true)).await;
    let version = [format!("{} 1", KNOWN + 1)];
    assert_eq!(server.sql(&env, VERSION).await, version);
    write(&store, &permission, 2).await.expect("written on the connection of before");
    assert_eq!(seqs(&store).await, in_order(2));
    let again = opened(&env, &server).await;
    write(&again, &permission, 3).await.expect("written on a new connection");
    let limits = ServerLimits {
        expected: Expected::Existing,
        may_upgrade: false,
        ..ServerLimits::new(PATIENT)
    };
    let worker = open(&env, address(&server.url("chat")), limits).await.expect("opened");
    assert_eq!(seqs(&worker).await, in_order(3));
    assert_eq!(server.sql(&env, VERSION).await, version, "the older one takes nothing back");
}

#[tokio::test]
async fn store_of_a_release_that_allows_no_older_one_is_refused_with_the_remedy() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let store = opened(&env, &server).await;
    store.boards().await.expect("it is there");
    let newer = next_release(BREAKS);
    let [first, second] = [(); 2].map(|()| process(&env, &server, newer, true));
    connected(&env, &first).await;
    assert_eq!(server.sql(&env, VERSION).await, [format!("{0} {0}", KNOWN + 1)]);

    let master = ServerLimits::new(PATIENT);
    let worker = ServerLimits { expected: Expected::Existing, may_upgrade: false, ..master };
    for limits in [master, worker] {
        let why = refusal(&env, &server, limits).await;
        assert!(why.ends_with(&too_new()), "{why}");
    }
    // A node that runs finds out with its next connection, and waits for an operator.
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    server.sql(&env, end).await;
    let away = async {
        loop {
            match store.boards().await {
                Err(error) if error.to_string().contains(&too_new()) => return error,
                _ => env.sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let away = env.timeout(PATIENT, away).await.expect("it finds out");
    assert_eq!(away.away_reason(), Some(AwayReason::Replaced), "{away}");
    connected(&env, &second).await;
}

#[tokio::test]
async fn node_that_is_allowed_no_more_meanwhile_finds_the_store_away_on_the_connections_of_before()
{
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let store = opened(&env, &server).await;
    let permission = lobby(&store, 1).await;
    write(&store, &permission, 1).await.expect("written");
    store.touch_sessions(NodeId([1; 16]), Vec::new()).await.expect("touched");
    assert_eq!(seqs(&store).await, in_order(1));

    let closes = "UPDATE chat.chatchat_store SET min_reader = steps + 1";
    server.sql(&env, closes).await;
    let written = write(&store, &permission, 2).await.expect_err("a write in turn");
    let read = store.boards().await.map(drop).expect_err("a read after it");
    let touched = store.touch_sessions(NodeId([1; 16]), Vec::new()).await;
    let touched = touched.map(drop).expect_err("a write beside");
    for error in [written, read, touched] {
        assert_eq!(error.away_reason(), Some(AwayReason::Replaced), "{error}");
        assert!(error.to_string().contains(&too_new()), "{error}");
    }
    server.sql(&env, "UPDATE chat.chatchat_store SET min_reader = 1").await;
    write_patiently(&env, &store, &permission, 2).await;
    assert_eq!(seqs(&store).await, in_order(2));
}

#[tokio::test]
async fn store_that_a_newer_release_made_is_used_if_that_allows_it() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    for (step, min_reader) in [(ADDS, THIS_RELEASE.min_reader), ("", KNOWN as i64 + 1)] {
        server.sql(&env, "DROP SCHEMA IF EXISTS chat CASCADE; CREATE SCHEMA chat").await;
        let newer = Release { min_reader, ..next_release(step) };
        connected(&env, &process(&env, &server, newer, true)).await;
        let version = format!("{} {min_reader}", KNOWN + 1);
        assert_eq!(server.sql(&env, VERSION).await, [version]);
        if min_reader == THIS_RELEASE.min_reader {
            let store = opened(&env, &server).await;
            write(&store, &lobby(&store, 1).await, 1).await.expect("written");
        } else {
            let why = refusal(&env, &server, ServerLimits::new(PATIENT)).await;
            assert!(why.ends_with(&too_new()), "{why}");
        }
    }
}

#[tokio::test]
async fn store_of_a_newer_release_is_neither_backed_up_nor_replaced_by_this_one() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let store = opened(&env, &server).await;
    write(&store, &lobby(&store, 1).await, 1).await.expect("written");
    let dir = TempDir::new().expect("a directory");
    let (before, after) = (dir.path().join("before"), dir.path().join("after"));
    let at = || address(&server.url("chat"));
    back_up(&env, at(), &before).await.expect("it is of this release");
    connected(&env, &process(&env, &server, next_release(ADDS), true)).await;

    let line = format!(
        "its tables have {} steps, and this release knows {KNOWN}; take the chatctl of the release \
         that the masters run",
        KNOWN + 1
    );
    let copied = back_up(&env, at(), &after).await.map(drop);
    let replaced = restore(&env, at(), &before).await.map(drop);
    for refused in [copied, replaced] {
        assert_eq!(refused, Err(StoreError::Refused { why: line.clone() }));
    }
    assert!(!after.exists());
    assert_eq!(seqs(&store).await, in_order(1));
}
