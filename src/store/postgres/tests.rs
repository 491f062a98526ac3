//! Tests with private servers: the contract suite, and what only a server can do.

mod append;
mod away;
mod backup;
mod certificates;
mod conflicts;
mod login;
mod notify;
mod older_copy;
mod plans;
mod round_trips;
mod schema;
mod silent;
mod standby;
mod upgrade;
mod upkeep;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::*;
use crate::{
    env::real::RealWorld,
    model::{
        absence::AwayReason,
        ids::{
            Author, BoardName, Incarnation, NodeId, PostId, Resource, Seq, SessionKey, Token,
            UserId,
        },
        message::Task,
        outcome::TaskResult,
        rows::{Holder, Lease, NewPost, Permission, Range},
    },
    testing::{
        postgres::Server,
        store::{self as contract, Lab, MoveClock},
    },
};

const START_MS: u64 = 1_700_000_000_000;

/// Time-out on a busy machine.
const PATIENT: Duration = Duration::from_secs(20);

fn real_env() -> Env {
    Env::new(RealWorld::temporary().expect("a directory"))
}

fn address(url: &str) -> Address {
    Address::parse(url).expect("a good URL")
}

/// Opens the store of a schema, which is made first.
async fn opened(env: &Env, server: &Server) -> Store {
    server.sql(env, "CREATE SCHEMA IF NOT EXISTS chat").await;
    let limits = ServerLimits::new(PATIENT);
    open(env, address(&server.url("chat")), limits).await.expect("a store")
}

fn post(n: u64) -> Task {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&n.to_be_bytes());
    let author = Author { id: UserId([1; 16]), name: "Ada".parse().expect("a name") };
    let text = format!("post {n}").parse().expect("a text");
    Task::Post { board: BoardName::lobby(), post: NewPost { id: PostId(id), author, text } }
}

fn holder(node: u8) -> Holder {
    Holder { node: NodeId([node; 16]), incarnation: Incarnation(1) }
}

/// Acquires a lease for a master of this number.
async fn acquired(store: &Store, resource: Resource, master: u8) -> Permission {
    let lease = store.acquire_lease(resource.clone(), holder(master), 3000).await;
    let Ok(Lease::Granted { epoch, lease, .. }) = lease else { panic!("not granted: {lease:?}") };
    Permission {
        resource,
        token: Token { epoch, lease, n: 0 },
        after: None,
        worker: NodeId([9; 16]),
    }
}

/// Acquires the lease of the lobby for a master of this number.
async fn lobby(store: &Store, master: u8) -> Permission {
    acquired(store, Resource::Board(BoardName::lobby()), master).await
}

/// Writes tasks with this `n` of the token.
async fn write_at(
    store: &Store,
    permission: &Permission,
    n: u64,
    tasks: Vec<Task>,
) -> Result<Vec<TaskResult>, StoreError> {
    let token = Token { n, ..permission.token };
    store.write(Permission { token, ..permission.clone() }, Arc::new(tasks)).await
}

/// Writes post `n` with the token's `n` of the same number.
async fn write(
    store: &Store,
    permission: &Permission,
    n: u64,
) -> Result<Vec<TaskResult>, StoreError> {
    write_at(store, permission, n, vec![post(n)]).await
}

/// Repeats a write as long as the store is away, as a node does, and returns how often it was.
async fn write_patiently(env: &Env, store: &Store, permission: &Permission, n: u64) -> usize {
    let mut away = 0;
    let written = async {
        loop {
            match write(store, permission, n).await {
                Ok(_) => break,
                Err(error) if error.is_away() => away += 1,
                Err(error) => panic!("post {n}: {error}"),
            }
            env.sleep(Duration::from_millis(50)).await;
        }
    };
    env.timeout(Duration::from_secs(60), written).await.expect("written in time");
    away
}

async fn seqs(store: &Store) -> Vec<(u64, String)> {
    let page = store.read(BoardName::lobby(), Range::After(Seq(0)), 1000).await.expect("a page");
    page.posts.iter().map(|post| (post.seq.0, post.text.as_str().to_owned())).collect()
}

/// Posts 1 to `n`, each once and in its place.
fn in_order(n: u64) -> Vec<(u64, String)> {
    (1..=n).map(|n| (n, format!("post {n}"))).collect()
}

#[tokio::test]
async fn postgres_passes_the_contract_suite() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let schemas: Vec<_> =
        (0..contract::CHECKS.len()).map(|n| format!("CREATE SCHEMA lab{n};")).collect();
    server.sql(&env, &schemas.concat()).await;
    let mut labs = 0..;
    let fresh = |_: &contract::Check| {
        let lab = labs.next().expect("endless");
        let clock = Arc::new(AtomicU64::new(START_MS));
        let now_ms = Arc::clone(&clock);
        let url = server.url(&format!("lab{lab}"));
        let (store, _) = start(&env, address(&url), None, ServerLimits::new(PATIENT), Some(now_ms));
        let moves: MoveClock = Arc::new(move |ms| {
            let now_ms = clock.load(Ordering::Relaxed).saturating_add_signed(ms);
            clock.store(now_ms, Ordering::Relaxed);
        });
        Lab { store, clock: Some(moves) }
    };
    assert_eq!(contract::suite("PostgreSQL", fresh).await, contract::CHECKS.len());
}

#[tokio::test]
async fn batches_that_wait_together_share_a_transaction_and_fall_alone() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let store = opened(&env, &server).await;
    let permission = lobby(&store, 1).await;
    let stale = Permission { token: Token { lease: 9, ..permission.token }, ..permission.clone() };
    // The first transaction holds its turn until the others wait.
    let turn = "BEGIN; SELECT at FROM chat.clock FOR UPDATE; SELECT pg_sleep(0.4); COMMIT";
    let blocked = server.sql(&env, turn);
    let writes = async {
        env.sleep(Duration::from_millis(150)).await;
        let all = (1..=20).map(|n| write(&store, if n == 7 { &stale } else { &permission }, n));
        futures_util::future::join_all(all).await
    };
    let (_, answers) = tokio::join!(blocked, writes);
    for (n, answer) in (1..).zip(&answers) {
        let fenced = matches!(answer, Err(StoreError::Fenced { .. }));
        assert_eq!(fenced, n == 7, "{n}: {answer:?}");
    }
    let transactions = "SELECT count(DISTINCT xmin::text) FROM chat.writes WHERE kind = 'write'";
    let count: u64 = server.sql(&env, transactions).await[0].parse().expect("a number");
    assert!(count <= 2, "19 batches in {count} transactions");
    assert_eq!(seqs(&store).await.len(), 19);
}
