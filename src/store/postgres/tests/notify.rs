//! Notifications: who hears of a post, and what becomes of a lost connection.

use tokio::sync::mpsc;

use super::*;

/// Process whose query ended in listening, and not in the probe of a long silence.
const LISTENERS: &str = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%'";

/// Writes posts from `n` on until a reader hears of one, and returns the number after it.
async fn until_heard(
    env: &Env,
    (store, permission): (&Store, &Permission),
    reader: &NewEnds,
    mut n: u64,
) -> u64 {
    let heard = async {
        loop {
            write_patiently(env, store, permission, n).await;
            n += 1;
            let next = env.timeout(Duration::from_millis(500), reader.next());
            if let Ok(ends) = next.await {
                let seq = ends[&BoardName::lobby()];
                assert!((1..n).contains(&seq.0), "place {seq}, {n} is the next");
                break;
            }
        }
    };
    env.timeout(Duration::from_secs(60), heard).await.expect("the reader hears");
    n
}

#[tokio::test]
async fn post_written_through_one_store_wakes_the_readers_of_another() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let (ours, other) = (opened(&env, &server).await, opened(&env, &server).await);
    let permission = lobby(&ours, 1).await;
    assert_eq!(server.sql(&env, LISTENERS).await.len(), 0, "nobody asked for it");
    let (one, two) = (other.new_ends(), other.new_ends());
    let n = until_heard(&env, (&ours, &permission), &one, 1).await;
    // All readers of a process share a connection.
    env.timeout(PATIENT, two.next()).await.expect("it hears, too");
    assert_eq!(server.sql(&env, LISTENERS).await.len(), 1);
    // A store of the same database, in another schema, is another one.
    server.sql(&env, "CREATE SCHEMA elsewhere").await;
    let limits = ServerLimits::new(PATIENT);
    let elsewhere = open(&env, address(&server.url("elsewhere")), limits).await.expect("a store");
    let strange = lobby(&elsewhere, 1).await;
    for n in 1000..1010 {
        write_patiently(&env, &elsewhere, &strange, n).await;
    }
    until_heard(&env, (&ours, &permission), &one, n).await;
}

#[tokio::test]
async fn listener_comes_back_after_its_connection_was_ended() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let (ours, other) = (opened(&env, &server).await, opened(&env, &server).await);
    let permission = lobby(&ours, 1).await;
    let reader = other.new_ends();
    let n = until_heard(&env, (&ours, &permission), &reader, 1).await;
    let before = server.sql(&env, LISTENERS).await;
    let end = format!("SELECT pg_terminate_backend(pid) FROM ({LISTENERS}) AS listeners");
    assert_eq!(server.sql(&env, &end).await, ["t"]);
    let again = async {
        loop {
            let now = server.sql(&env, LISTENERS).await;
            if now.len() == 1 && now != before {
                break;
            }
            env.sleep(Duration::from_millis(20)).await;
        }
    };
    env.timeout(PATIENT, again).await.expect("another connection listens");
    until_heard(&env, (&ours, &permission), &reader, n).await;
}

#[tokio::test]
async fn server_that_was_away_is_listened_to_again() {
    let env = real_env();
    let Some(mut server) = Server::start(&env, &[]).await else { return };
    let (ours, other) = (opened(&env, &server).await, opened(&env, &server).await);
    let permission = lobby(&ours, 1).await;
    let reader = other.new_ends();
    let n = until_heard(&env, (&ours, &permission), &reader, 1).await;
    server.kill();
    let gone = write(&ours, &permission, n).await.expect_err("it is gone");
    assert!(gone.is_away(), "{gone}");
    server.restart(&env).await;
    until_heard(&env, (&ours, &permission), &reader, n).await;
}

#[tokio::test]
async fn burst_of_posts_takes_one_notification_in_twenty_milliseconds() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let store = opened(&env, &server).await;
    let permission = lobby(&store, 1).await;
    let (to, mut heard) = mpsc::channel(1000);
    let listening = away::shared(&env, &server).connect_with(Some(&to)).await.expect("connected");
    let channel = super::super::notify::channel(&listening);
    listening.batch_of(&format!("LISTEN {channel}")).await.expect("it listens");
    let began = env.now();
    for n in 1..=300 {
        write(&store, &permission, n).await.expect("written");
    }
    let mut notifications = 0;
    let last = async {
        while heard.recv().await.expect("it goes on") != "lobby:300 " {
            notifications += 1;
        }
    };
    env.timeout(PATIENT, last).await.expect("the last place is told");
    let bound = env.now().since(began).as_millis() / 20 + 2;
    assert!(notifications <= bound, "{notifications}, at most {bound}");
}

#[tokio::test]
async fn posts_are_committed_while_the_lock_of_notifications_is_held() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    server.sql(&env, "ALTER DATABASE postgres SET synchronous_commit = local").await;
    let store = opened(&env, &server).await;
    let permission = lobby(&store, 1).await;
    server.sql(&env, "CREATE TABLE probe (n BIGINT)").await;
    // Another program notifies, and its commit waits for a standby that never comes.
    server.sql(&env, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await;
    server.sql(&env, "SELECT pg_reload_conf()").await;
    let notify = "SET synchronous_commit = on; INSERT INTO probe VALUES (1); NOTIFY chatchat_test";
    let stuck = async {
        loop {
            server.sql(&env, notify).await;
        }
    };
    let waits = "SELECT count(*) FROM pg_stat_activity
                 WHERE wait_event = 'SyncRep' AND query LIKE '%NOTIFY%'";
    let writes = async {
        away::until_some(&env, &server, waits).await;
        for n in 1..=20 {
            write(&store, &permission, n).await.expect("no commit waits for it");
        }
    };
    tokio::select! {
        biased;
        () = writes => {}
        () = stuck => {}
    }
    assert_eq!(seqs(&store).await, in_order(20));
}
