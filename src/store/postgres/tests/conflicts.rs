//! Transactions that PostgreSQL undoes for others that ran beside them: it is repeated, and nobody hears.

use super::{connection::Db, *};

/// Marks each line of the log with its SQLSTATE, and leaves time to close a circle of waits.
const OPTIONS: [&str; 2] = ["log_line_prefix=%e ", "deadlock_timeout=3s"];

/// Waits until somebody waits for a lock.
const UNTIL_AWAITED: &str = "DO $$ BEGIN
         FOR n IN 1..4000 LOOP
             EXIT WHEN EXISTS (SELECT FROM pg_locks WHERE NOT granted);
             PERFORM pg_sleep(0.005);
         END LOOP;
     END $$;";

/// Does the work while a transaction is open that began with these statements; it carries out the last
/// one, and commits, once somebody waits for it.
async fn beside<T>(
    env: &Env,
    server: &Server,
    (first, last): (&str, &str),
    work: impl Future<Output = T>,
) -> T {
    // Who never looks for a circle of waits is not the one that is undone for it.
    let sql =
        format!("SET deadlock_timeout = '10min'; BEGIN; {first}; {UNTIL_AWAITED} {last}; COMMIT");
    let work = async {
        let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        away::until_some(env, server, sleeps).await;
        work.await
    };
    tokio::join!(server.sql(env, &sql), work).1
}

/// Counts the statements that the server refused with this SQLSTATE.
fn refusals(server: &Server, state: &str) -> usize {
    let log = std::fs::read_to_string(server.dir().join("log")).expect("a log");
    log.lines().filter(|line| line.starts_with(&format!("{state} ERROR"))).count()
}

#[tokio::test]
async fn deadlock_is_hidden_by_a_repetition() {
    let env = real_env();
    let Some(server) = Server::start(&env, &OPTIONS).await else { return };
    let store = opened(&env, &server).await;
    let permission = lobby(&store, 1).await;
    write(&store, &permission, 1).await.expect("written");
    // It has the row of the lease and wants the turn; a write has the turn and wants the row.
    let circle = ("SELECT 1 FROM chat.leases FOR UPDATE", "SELECT at FROM chat.clock FOR UPDATE");

    let written = beside(&env, &server, circle, write(&store, &permission, 2)).await;
    assert!(matches!(written.as_deref(), Ok([TaskResult::Committed { .. }])), "{written:?}");
    assert_eq!(refusals(&server, "40P01"), 1, "the batch was undone");

    let (resource, lease) = (permission.resource.clone(), permission.token.lease);
    store.release_lease(resource, holder(1), lease).await.expect("released");
    let next = beside(&env, &server, circle, lobby(&store, 2)).await;
    assert_eq!(refusals(&server, "40P01"), 2, "the grant was undone");
    assert_eq!(next.token.lease, lease + 1, "it was granted once");
    let again = write(&store, &next, 1).await;
    assert!(matches!(again.as_deref(), Ok([TaskResult::Duplicate { .. }])), "{again:?}");
    assert_eq!(seqs(&store).await, in_order(2));
}

/// Worker of the pool whose transactions may fail to be serialised, as those of an engine that knows
/// no weaker isolation do.
async fn strict(env: &Env, server: &Server) -> (Worker, Db) {
    let shared = Shared { timeout: PATIENT, ..away::shared(env, server) };
    let db = shared.connect().await.expect("a connection");
    let isolation = "SET default_transaction_isolation = 'repeatable read'";
    db.batch(isolation).await.expect("set");
    let (_, queue) = queue::queue();
    (Worker { shared: Arc::new(shared), queue, ready: None }, db)
}

#[tokio::test]
async fn serialisation_failure_is_hidden_by_a_repetition() {
    let env = real_env();
    let Some(server) = Server::start(&env, &OPTIONS).await else { return };
    let store = opened(&env, &server).await;
    let permission = lobby(&store, 1).await;
    let token = Token { n: 1, ..permission.token };
    let permission = Permission { token, ..permission };
    let dev = Resource::Board("dev".parse().expect("a name"));
    let ops = [
        // By itself, and as a group.
        Op::AcquireLease { resource: dev, holder: holder(1), ttl_ms: 3000 },
        Op::Write { permission, tasks: Arc::new(vec![post(1)]), known: Seq::default() },
    ];
    let (worker, mut db) = strict(&env, &server).await;
    let newer = ("UPDATE chat.clock SET at = at + 1 WHERE one = 1", "SELECT 1");
    for (nth, op) in (1..).zip(ops) {
        let (reply, answer) = oneshot::channel();
        let work = worker.serve(db, vec![Job { op, reply }]);
        let kept = beside(&env, &server, newer, work).await;
        db = kept.expect("the connection is good");
        let answer = answer.await.expect("answered");
        let is_done =
            matches!(answer, Ok(OpReply::Lease(Lease::Granted { .. }) | OpReply::Written(_)));
        assert!(is_done, "{answer:?}");
        assert_eq!(refusals(&server, "40001"), nth, "it was undone");
    }
    assert_eq!(seqs(&store).await, in_order(1));
}
