//! Standbys that commits do not wait for: a warning at the start, as a fail-over may lose posts (G1).

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use super::*;

/// Lines that were logged.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    /// Counts the warnings so far.
    fn warnings(&self) -> usize {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let warning = "standby that commits do not wait for: after a fail-over to it acknowledged \
                       posts may be lost, so G1 does not hold; set synchronous_standby_names";
        String::from_utf8_lossy(&said).matches(warning).count()
    }
}

impl io::Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

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
    let said = Said::default();
    let writer = said.clone();
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    let _log = tracing::subscriber::set_default(log.finish());
    start_anew(&env, &primary).await;
    assert_eq!(said.warnings(), 0, "it is alone");

    let _standby = primary.standby(&env, "second").await;
    let streams = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    away::until_some(&env, &primary, streams).await;
    let store = start_anew(&env, &primary).await;
    assert_eq!(said.warnings(), 1, "once in a process");
    write(&store, &lobby(&store, 1).await, 1).await.expect("it works all the same");

    primary.sql(&env, "ALTER SYSTEM SET synchronous_standby_names = 'second'").await;
    primary.sql(&env, "SELECT pg_reload_conf()").await;
    let counts = "SELECT count(*) FROM pg_settings
                  WHERE name = 'synchronous_standby_names' AND setting = 'second'";
    away::until_some(&env, &primary, counts).await;
    start_anew(&env, &primary).await;
    assert_eq!(said.warnings(), 1, "commits wait for it");

    primary.sql(&env, "ALTER ROLE chatchat SET synchronous_commit = local").await;
    start_anew(&env, &primary).await;
    assert_eq!(said.warnings(), 2, "they do not for this user");
}
