//! Standbys that commits do not wait for: a warning at the start, as a fail-over may lose posts (G1).

use super::*;
use crate::testing::logged::Logged;

/// Warning that posts may be lost.
const WARNING: &str = "standby that commits do not wait for: after a fail-over to it acknowledged posts \
                       may be lost, so G1 does not hold; set synchronous_standby_names";

/// Opens the store as a process that starts does.
async fn start_anew(env: &Env, server: &Server) -> Store {
    let store = opened(env, server).await;
    // On several connections.
    store.boards().await.expect("it is there");
    store.masters().await.expect("it is there");
    store
}

#[tokio::test]
async fn standby_that_commits_do_not_wait_for_is_warned_of_once_at_each_start() {
    let env = real_env();
    let Some(primary) = Server::start(&env, &[]).await else { return };
    let log = Logged::here();
    start_anew(&env, &primary).await;
    assert_eq!(log.count(WARNING), 0, "it is alone");

    let _standby = primary.standby(&env, "second").await;
    let streams = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    away::until_some(&env, &primary, streams).await;
    let store = start_anew(&env, &primary).await;
    assert_eq!(log.count(WARNING), 1, "once in a process");
    write(&store, &lobby(&store, 1).await, 1).await.expect("it works all the same");

    primary.sql(&env, "ALTER SYSTEM SET synchronous_standby_names = 'second'").await;
    primary.sql(&env, "SELECT pg_reload_conf()").await;
    let counts = "SELECT count(*) FROM pg_settings
                  WHERE name = 'synchronous_standby_names' AND setting = 'second'";
    away::until_some(&env, &primary, counts).await;
    start_anew(&env, &primary).await;
    assert_eq!(log.count(WARNING), 1, "commits wait for it");

    primary.sql(&env, "ALTER ROLE chatchat SET synchronous_commit = local").await;
    start_anew(&env, &primary).await;
    assert_eq!(log.count(WARNING), 2, "they do not for this user");
}
