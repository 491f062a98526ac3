//! Older copy of the store that somebody wrote to, and the newer store after it.

use super::*;
use crate::store::rollback::guarded;

const PAUSE: Duration = Duration::from_millis(20);

/// Puts other contents into the tables. All connections end, as with a server that gives way to another.
async fn replace(env: &Env, server: &Server, contents: &str) {
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    server.sql(env, end).await;
    server.sql(env, contents).await;
    server.sql(env, end).await;
}

/// Reads the boards until the store is away for a reason with these words.
async fn until_older(env: &Env, store: &Store, words: &str) {
    let told = async {
        loop {
            match store.boards().await {
                Err(error) if error.to_string().contains(words) => break error,
                _ => env.sleep(PAUSE).await,
            }
        }
    };
    let error = env.timeout(PATIENT, told).await.expect("told in time");
    assert_eq!(error.away_reason(), Some(AwayReason::RolledBack), "{error}");
}

#[tokio::test]
async fn node_goes_on_with_the_newer_store_after_an_older_copy_that_others_wrote_to() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let (node, ends) = guarded(opened(&env, &server).await);
    let permission = lobby(&node, 1).await;
    for n in 1..=2 {
        write(&node, &permission, n).await.expect("written");
    }
    ends.set(node.boards().await.expect("it has all"));
    let keep = "CREATE SCHEMA kept;
                CREATE TABLE kept.clock AS SELECT at FROM chat.clock;
                CREATE TABLE kept.boards AS SELECT board, last_seq FROM chat.boards";
    server.sql(&env, keep).await;

    let older = "UPDATE chat.boards SET last_seq = 1; UPDATE chat.clock SET at = at - 1000";
    replace(&env, &server, older).await;
    until_older(&env, &node, "it is an older copy").await;

    // A node that starts now knows of nothing newer. Its write brings the copy's clock forward.
    let fresh = opened(&env, &server).await;
    acquired(&fresh, Resource::Sessions(holder(2).node), 2).await;
    drop(fresh);
    until_older(&env, &node, "its board lobby ends at 1").await;

    let newer = "UPDATE chat.boards b SET last_seq = k.last_seq FROM kept.boards k
                     WHERE k.board = b.board;
                 UPDATE chat.clock SET at = k.at FROM kept.clock k";
    replace(&env, &server, newer).await;
    let back = async {
        while let Err(error) = node.boards().await {
            assert!(error.is_away(), "{error}");
            env.sleep(PAUSE).await;
        }
    };
    env.timeout(PATIENT, back).await.expect("the newer store is taken back");
    write_patiently(&env, &node, &permission, 3).await;
    assert_eq!(seqs(&node).await, in_order(3));
}

#[tokio::test]
async fn older_copy_with_a_newer_clock_answers_nothing_where_a_node_has_posts_that_it_lacks() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let (node, ends) = (opened(&env, &server).await, OwnEnds::default());
    node.compare(ends.clone());
    let permission = lobby(&node, 1).await;
    for n in 1..=2 {
        write(&node, &permission, n).await.expect("written");
    }
    ends.set(node.boards().await.expect("it has all"));
    let older = "UPDATE chat.boards SET last_seq = 1; UPDATE chat.clock SET at = at + 1000";
    replace(&env, &server, older).await;
    for _ in 0..3 {
        let read = node.find_session(SessionKey([1; 32])).await.expect_err("a read");
        let written = node.drop_dead_letter(1).await.expect_err("a write");
        let leased = node.acquire_lease(Resource::Board(BoardName::lobby()), holder(2), 3000).await;
        for error in [read, written, leased.expect_err("a lease")] {
            assert!(error.is_away(), "{error}");
        }
        env.sleep(PAUSE).await;
    }
    until_older(&env, &node, "its board lobby ends at 1").await;
    replace(&env, &server, "UPDATE chat.boards SET last_seq = 2").await;
    write_patiently(&env, &node, &permission, 3).await;
    assert_eq!(seqs(&node).await, in_order(3));
}
