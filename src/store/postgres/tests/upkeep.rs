//! Pieces of upkeep: what one takes, however much is due.

use super::*;

/// Number of sessions and leases that one piece ends.
const PIECE: u64 = 16;

/// Returns how many sessions and leases there are.
async fn left(env: &Env, server: &Server) -> (u64, u64) {
    let count = async |table: &str| -> u64 {
        let sql = format!("SELECT count(*) FROM chat.{table}");
        server.sql(env, &sql).await[0].parse().expect("a number")
    };
    assert_eq!(count("leases").await, count("lease_terms").await);
    (count("sessions").await, count("leases").await)
}

#[tokio::test]
async fn idle_sessions_and_ended_leases_go_in_pieces_of_few_statements() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let store = opened(&env, &server).await;
    lobby(&store, 1).await;
    server
        .sql(
            &env,
            // A jump of the clock is long ago.
            "UPDATE chat.meta SET value = 0 WHERE name = 'jumped_at';
             INSERT INTO chat.sessions (key, author, name, opened_at, used_at)
                 SELECT decode(lpad(to_hex(n), 64, '0'), 'hex'),
                        decode(lpad(to_hex(n), 32, '0'), 'hex'), 'Ada', 0,
                        CASE WHEN n <= 300 THEN 0 ELSE 9000000000000 END
                 FROM generate_series(1, 301) n;
             INSERT INTO chat.leases (resource, epoch, lease, n)
                 SELECT 'board:x' || n, 1, 1, 0 FROM generate_series(1, 400) n;
             INSERT INTO chat.lease_terms (resource, lease, incarnation, ttl, ends_at,
                                           wisher_incarnation, wished_at)
                 SELECT resource, lease, 0, 3000, 0, 0, 0 FROM chat.leases
                 WHERE resource LIKE 'board:x%'",
        )
        .await;
    let mut before = left(&env, &server).await;
    assert_eq!(before, (301, 401));
    for piece in 1..=400 / PIECE + 1 {
        let more = store.keep_up(false).await.expect("kept up");
        let after = left(&env, &server).await;
        let gone = (before.0 - after.0, before.1 - after.1);
        assert!(gone.0 <= PIECE && gone.1 <= PIECE, "piece {piece} ended {gone:?}");
        if !more {
            // The session that is in use, and the lobby's lease.
            assert_eq!(after, (1, 1));
            return;
        }
        before = after;
    }
    panic!("{before:?} are left");
}
