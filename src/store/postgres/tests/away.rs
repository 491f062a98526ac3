//! Servers and connections that go, and fencing across connections.

use super::*;

#[tokio::test]
async fn write_of_an_earlier_lease_is_fenced_on_every_connection() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let (first, second) = (opened(&env, &server).await, opened(&env, &server).await);
    let old = lobby(&first, 1).await;
    write(&first, &old, 1).await.expect("it holds the lease");
    first.release_lease(old.resource.clone(), holder(1), old.token.lease).await.expect("released");
    let new = lobby(&second, 2).await;
    let late = write(&first, &old, 2).await;
    assert!(matches!(late, Err(StoreError::Fenced { .. })), "{late:?}");
    write(&second, &new, 2).await.expect("it holds the lease");
    assert_eq!(seqs(&first).await, in_order(2));
}

/// Has commits wait for a standby that never comes, and waits until one does.
async fn await_nobody(env: &Env, server: &Server) {
    server.sql(env, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await;
    server.sql(env, "SELECT pg_reload_conf()").await;
    // The processes of the server read the setting one after the other.
    let commits = async {
        loop {
            let commit = server.sql(
                env,
                "CREATE TABLE IF NOT EXISTS chat.probe (n BIGINT);
                                          INSERT INTO chat.probe VALUES (1)",
            );
            let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            // On a busy machine a commit may be as slow without waiting for anybody.
            if env.timeout(Duration::from_millis(300), commit).await.is_err()
                && server.sql(env, waits).await[0] != "0"
            {
                break;
            }
        }
    };
    env.timeout(PATIENT, commits).await.expect("the setting counts");
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE wait_event = 'SyncRep'";
    server.sql(env, end).await;
}

/// Repeats a query until it counts something.
pub(super) async fn until_some(env: &Env, server: &Server, query: &str) {
    let counted = async {
        while server.sql(env, query).await[0] == "0" {
            env.sleep(Duration::from_millis(10)).await;
        }
    };
    env.timeout(PATIENT, counted).await.expect("it waits in the commit");
}

#[tokio::test]
async fn backend_ended_in_the_commit_leaves_the_outcome_unknown_and_a_repeat_safe() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let store = opened(&env, &server).await;
    let permission = lobby(&store, 1).await;
    write(&store, &permission, 1).await.expect("written");
    await_nobody(&env, &server).await;
    let end = async {
        let waits = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                     WHERE wait_event = 'SyncRep'";
        until_some(&env, &server, waits).await;
        server.sql(&env, "ALTER SYSTEM RESET synchronous_standby_names").await;
        server.sql(&env, "SELECT pg_reload_conf()").await;
    };
    let (written, ()) = tokio::join!(write(&store, &permission, 2), end);
    assert!(written.as_ref().is_err_and(StoreError::is_away), "unknown: {written:?}");
    write_patiently(&env, &store, &permission, 2).await;
    assert_eq!(seqs(&store).await, in_order(2), "it is there once");
}

#[tokio::test]
async fn commit_that_no_standby_confirmed_is_not_acknowledged() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let store = opened(&env, &server).await;
    let permission = lobby(&store, 1).await;
    write(&store, &permission, 1).await.expect("written");
    await_nobody(&env, &server).await;
    let cancel = async {
        // An operator ends the wait; PostgreSQL then reports the commit as done, and warns.
        let waits = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity
                     WHERE wait_event = 'SyncRep'";
        until_some(&env, &server, waits).await;
    };
    let (written, ()) = tokio::join!(write(&store, &permission, 2), cancel);
    let why = written.expect_err("not certain").to_string();
    assert!(why.contains("not certain"), "{why}");
}

#[tokio::test]
async fn server_that_was_killed_is_used_again_once_it_is_back() {
    let env = real_env();
    let Some(mut server) = Server::start(&env, &[]).await else { return };
    let store = opened(&env, &server).await;
    let permission = lobby(&store, 1).await;
    write(&store, &permission, 1).await.expect("written");
    server.kill();
    // The server's process for a connection lives on until it notices.
    let refused = async {
        loop {
            if let Err(gone) = write(&store, &permission, 2).await {
                return gone;
            }
            env.sleep(Duration::from_millis(10)).await;
        }
    };
    let gone = env.timeout(PATIENT, refused).await.expect("it is gone");
    assert_eq!(gone.away_reason(), Some(AwayReason::Unreachable), "{gone}");
    // A connection that was open tells of its own end first, a new one of the server.
    let named = async {
        while !store.boards().await.expect_err("it is gone").to_string().contains(".s.PGSQL") {
            env.sleep(Duration::from_millis(10)).await;
        }
    };
    env.timeout(PATIENT, named).await.expect("the reason names the server");
    server.restart(&env).await;
    write_patiently(&env, &store, &permission, 2).await;
    assert_eq!(seqs(&store).await, in_order(2));
}

#[tokio::test]
async fn client_stopped_in_its_turn_is_ended_by_the_server_and_holds_up_no_write_beside() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let store = opened(&env, &server).await;
    let permission = lobby(&store, 1).await;
    let shared = shared(&env, &server);
    let stopped = shared.connect().await.expect("a connection");
    let _turn = Tx::in_turn(&stopped).await.expect("its turn");
    let began = env.now();
    // What a master lives by takes no turn.
    store.touch_sessions(NodeId([1; 16]), Vec::new()).await.expect("touched");
    store
        .renew_leases(holder(1), vec![(permission.resource.clone(), 1)], 3000)
        .await
        .expect("kept");
    assert!(env.now().since(began) < Duration::from_millis(900), "they do not wait");
    write_patiently(&env, &store, &permission, 1).await;
    // The server ends its transaction after a second.
    assert!(env.now().since(began) < Duration::from_secs(6), "the next in turn waits no longer");
    drop(stopped);
}

#[tokio::test]
async fn connection_has_statements_and_waits_for_locks_given_up_after_a_second() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let _store = opened(&env, &server).await;
    let shared = shared(&env, &server);
    let [one, other] =
        [shared.connect().await, shared.connect().await].map(|db| db.expect("connected"));
    for (name, value) in [
        ("statement_timeout", "1s"),
        ("lock_timeout", "1s"),
        ("idle_in_transaction_session_timeout", "1s"),
        ("default_transaction_isolation", "read committed"),
        ("jit", "off"),
        ("enable_bitmapscan", "off"),
    ] {
        let shown = one.client.query_one(&format!("SHOW {name}"), &[]).await.expect("shown");
        assert_eq!(shown.get::<_, &str>(0), value, "{name}");
    }
    let state = |ended: Result<(), tokio_postgres::Error>| {
        ended.expect_err("given up").code().map(|code| code.code().to_owned())
    };
    let long = one.client.batch_execute("SELECT pg_sleep(60)").await;
    assert_eq!(state(long).as_deref(), Some("57014"), "a statement");
    let hold = "SET idle_in_transaction_session_timeout = 0; BEGIN; LOCK TABLE chat.clock";
    other.client.batch_execute(hold).await.expect("locked");
    let waits = state(one.client.batch_execute("SELECT at FROM chat.clock FOR UPDATE").await);
    // Both time-outs are over at once.
    assert!(matches!(waits.as_deref(), Some("55P03" | "57014")), "{waits:?}");
    other.client.batch_execute("COMMIT").await.expect("nobody ended it");
    one.client.batch_execute("BEGIN").await.expect("begun");
    env.sleep(Duration::from_millis(1500)).await;
    one.client.batch_execute("SELECT 1").await.expect_err("the server ended what stood");
}

/// State of a connection of its own.
pub(super) fn shared(env: &Env, server: &Server) -> Shared {
    let limits = ServerLimits {
        store_timeout: Duration::from_secs(1),
        group_batches_max: 1,
        expected: Expected::Existing,
        may_upgrade: false,
    };
    Shared::new(env, address(&server.url("chat")), None, limits, None)
}

#[tokio::test]
async fn fail_over_to_a_synchronous_standby_loses_nothing() {
    let env = real_env();
    let Some(mut primary) = Server::start(&env, &[]).await else { return };
    primary.sql(&env, "CREATE SCHEMA chat").await;
    let standby = primary.standby(&env, "second").await;
    primary.sql(&env, "ALTER SYSTEM SET synchronous_standby_names = 'second'").await;
    primary.sql(&env, "SELECT pg_reload_conf()").await;
    let url = format!(
        "postgres://chatchat@{},{}/postgres?options=-csearch_path%3Dchat",
        standby.host(),
        primary.host()
    );
    let limits = ServerLimits::new(Duration::from_secs(2));
    let store = open(&env, address(&url), limits).await.expect("the primary is found");
    let permission = lobby(&store, 1).await;
    for n in 1..=20 {
        write_patiently(&env, &store, &permission, n).await;
    }
    primary.kill();
    let gone = write(&store, &permission, 21).await.expect_err("no server takes writes");
    assert!(gone.is_away(), "{gone}");
    standby.promote(&env).await;
    for n in 21..=40 {
        write_patiently(&env, &store, &permission, n).await;
    }
    assert_eq!(seqs(&store).await, in_order(40));
    // The old primary comes back with its own end of the history: it is never used again.
    primary.restart(&env).await;
    drop(standby);
    let older = store.boards().await.expect_err("it is an older copy");
    let reasons = [AwayReason::RolledBack, AwayReason::Unreachable];
    assert!(older.away_reason().is_some_and(|reason| reasons.contains(&reason)), "{older}");
    let why = env.timeout(PATIENT, async {
        loop {
            let error = store.boards().await.expect_err("it is an older copy");
            if error.away_reason() == Some(AwayReason::RolledBack) {
                break error.to_string();
            }
            env.sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(why.await.expect("in time").contains("older copy"));
}
