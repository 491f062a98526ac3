//! Plans of the statements that are carried out all the time, on tables without statistics.

use tokio_postgres::SimpleQueryMessage;

use super::{
    super::posts::{AFTER, BEFORE, BOARDS},
    away::shared,
    *,
};
use crate::store::postgres::session_digests::DIGESTS;

/// Greatest estimate of a plan's cost. From 100,000 on PostgreSQL compiles a statement, unless it is
/// told not to.
const COST_MAX: f64 = 1000.0;

/// Returns the estimated cost of a plan's first line, such as `Sort  (cost=0.25..33.12 rows=5 width=8)`.
fn cost(plan: &str) -> Option<f64> {
    plan.split_once("..")?.1.split_once(' ')?.0.parse().ok()
}

#[tokio::test]
async fn reads_of_every_second_are_planned_by_keys_on_a_store_that_was_just_made() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let store = opened(&env, &server).await;
    lobby(&store, 1).await;
    let db = shared(&env, &server).connect().await.expect("a connection");
    for (sql, values) in [
        (AFTER, "('lobby', 0, 500, 100, 100000)"),
        (BEFORE, "('lobby', 9, 500, 100, 100000)"),
        (BOARDS, ""),
        (DIGESTS, ""),
    ] {
        let explained = format!("DEALLOCATE ALL; PREPARE it AS {sql}; EXPLAIN EXECUTE it {values}");
        let answer = db.client.simple_query(&explained).await.expect("a plan");
        let lines = answer.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(line) => line.get(0),
            _ => None,
        });
        let plan = lines.collect::<Vec<_>>().join("\n");
        let estimate = cost(&plan).expect("a plan begins with its cost");
        assert!(estimate < COST_MAX, "{plan}");
        // It would read all posts of a board before the first of a page.
        assert!(!plan.contains("Bitmap"), "{plan}");
    }
}

#[tokio::test]
async fn no_statement_is_compiled() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    drop(opened(&env, &server).await);
    let db = shared(&env, &server).connect().await.expect("a connection");
    let setting = db.one("SHOW jit", &[]).await.expect("a setting");
    assert_eq!(setting.get::<_, &str>(0), "off");
}
