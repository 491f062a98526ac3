//! Bench of posts committed per second, end to end: real TCP on loopback, HTTP, sealed links, a
//! real SQLite file, two masters and three workers. Each node has a runtime of its own, as it has
//! in a process of its own, so that the operating system schedules the nodes.
//!
//! The same run measures raw SQLite on the same disk, with the cluster's mean batch size and with
//! one post per commit. The table at the end gives the ratios, which differ less between machines
//! than the rates.

#![expect(clippy::disallowed_methods, reason = "a bench measures the wall clock")]

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use chatchat::{
    client::{Answer, Api, Limits, Request},
    comm::key_source::GeneratedKeys,
    config::Config,
    env::{
        Env,
        real::{RealWorld, TempDir},
    },
    model::ids::{BoardName, PostId, Role},
    store::{Store, sqlite},
    testing::cluster::{NodeParts, TestCluster},
};
use criterion::{BenchmarkId, Criterion, Throughput};
use rand_chacha::rand_core::Rng;
use tokio::runtime::Runtime;

const MASTERS: usize = 2;
const WORKERS: usize = 3;
const CLIENTS: [usize; 3] = [1, 16, 64];
/// Ordinary line of a chat.
const TEXT: &str = "an ordinary line of an ordinary evening, as long as such lines are";

/// Running cluster, with the world and the store of its clients.
struct Cluster {
    runtime: Runtime,
    /// The clients' world.
    env: Env,
    cluster: TestCluster,
    /// One runtime for each node.
    _runtimes: Vec<Runtime>,
    store: Store,
    dir: TempDir,
}

impl Cluster {
    fn start() -> Self {
        let runtime = runtime();
        let dir = TempDir::new().expect("a folder");
        let db = dir.path().join("store.db");
        let nodes: Vec<_> = (0..MASTERS + WORKERS).map(|_| self::runtime()).collect();
        let env = world(&runtime, dir.path().join("clients"));
        let cluster = runtime.block_on(start_nodes(&nodes, dir.path(), &db));
        let store = sqlite::open(&env, &db, Config::default().store_timeout).expect("a store");
        Self { runtime, env, cluster, _runtimes: nodes, store, dir }
    }

    /// Posts `posts` times with all these clients at once, each waiting for its answers.
    fn post(&self, clients: &mut [Api], posts: u64) -> Duration {
        let env = &self.env;
        let started = Instant::now();
        self.runtime.block_on(async {
            let count = clients.len() as u64;
            let all = clients.iter_mut().zip(0_u64..).map(|(api, nth)| {
                let share = posts / count + u64::from(nth < posts % count);
                let mut rng = env.rng("bench-posts");
                async move {
                    for _ in 0..share {
                        let mut id = [0; 16];
                        rng.fill_bytes(&mut id);
                        let request = Request::Post {
                            board: BoardName::lobby(),
                            id: PostId(id),
                            text: TEXT.parse().expect("a text"),
                        };
                        match api.call(&request).await {
                            Ok(Answer::Posted(_)) => {}
                            other => panic!("a post was not committed: {other:?}"),
                        }
                    }
                }
            });
            futures_util::future::join_all(all).await;
        });
        started.elapsed()
    }

    fn clients(&self, count: usize) -> Vec<Api> {
        self.runtime.block_on(async {
            let mut clients = Vec::new();
            for nth in 0..count {
                clients.push(self.client(nth).await);
            }
            clients
        })
    }

    async fn client(&self, nth: usize) -> Api {
        let urls = self.cluster.urls();
        let url = &urls[nth % urls.len()];
        let mut api = Api::new(&self.env, url, None, Limits::default());
        let name = format!("client {nth}").parse().expect("a name");
        for _ in 0..100 {
            if let Ok(Answer::Opened(opened)) =
                api.call(&Request::OpenSession { name: Clone::clone(&name) }).await
            {
                api.set_token(opened.token);
                return api;
            }
            self.env.sleep(Duration::from_millis(50)).await;
        }
        panic!("no session at {url}");
    }

    /// Returns the mean number of posts in the batches after a row of the record of writes.
    fn mean_batch(&self, after: u64) -> f64 {
        let rows = self.writes(after);
        let batches: Vec<u32> =
            rows.iter().filter(|(kind, _)| kind == "write").map(|(_, rows)| *rows).collect();
        f64::from(batches.iter().sum::<u32>()) / batches.len().max(1) as f64
    }

    fn writes(&self, mut after: u64) -> Vec<(String, u32)> {
        let mut all = Vec::new();
        loop {
            let page = self.runtime.block_on(self.store.writes(after, 1000)).expect("the store");
            let Some(last) = page.last() else { return all };
            after = last.number;
            all.extend(page.into_iter().map(|row| (row.kind, row.rows)));
        }
    }
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().expect("a runtime")
}

/// Returns the world of a node whose tasks run on this runtime.
fn world(on: &Runtime, dir: PathBuf) -> Env {
    let _entered = on.enter();
    Env::new(RealWorld::new(dir).expect("a folder"))
}

async fn start_nodes(nodes: &[Runtime], dir: &Path, db: &Path) -> TestCluster {
    // The bench measures the cluster, not the limit of requests per session.
    let config = Config {
        session_requests_per_s: 1_000_000,
        session_requests_burst: 1_000_000,
        ..Config::default()
    };
    let (of_masters, of_workers) = nodes.split_at(MASTERS);
    TestCluster::start(MASTERS, WORKERS, &config, |role, number| {
        let on = match role {
            Role::Master => &of_masters[number],
            Role::Worker => &of_workers[number],
        };
        let env = world(on, dir.join(format!("{role}-{number}")));
        let store = sqlite::open(&env, db, config.store_timeout).expect("a store");
        NodeParts { env, store, keys: Arc::new(GeneratedKeys) }
    })
    .await
}

/// Raw SQLite with the store's settings and one table of posts.
struct Raw {
    db: rusqlite::Connection,
    next: i64,
}

impl Raw {
    fn new(path: &Path) -> Self {
        let db = rusqlite::Connection::open(path).expect("a database");
        db.pragma_update(None, "journal_mode", "WAL").expect("WAL");
        db.pragma_update(None, "synchronous", "FULL").expect("FULL");
        db.execute_batch(
            "CREATE TABLE posts (board INTEGER, seq INTEGER, user BLOB, id BLOB, text TEXT,
             posted_at INTEGER, PRIMARY KEY (board, seq)) WITHOUT ROWID;
             CREATE UNIQUE INDEX by_id ON posts (user, id);",
        )
        .expect("a table");
        Self { db, next: 0 }
    }

    fn post(&mut self, posts: u64, batch: u64) -> Duration {
        let started = Instant::now();
        let mut left = posts;
        while left > 0 {
            let commit = self.db.transaction().expect("a transaction");
            {
                let mut insert = commit
                    .prepare_cached("INSERT INTO posts VALUES (1, ?1, ?2, ?3, ?4, ?5)")
                    .expect("a statement");
                for _ in 0..batch.min(left) {
                    self.next += 1;
                    let id = u128::from(self.next.unsigned_abs())
                        .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
                    let (user, id) = ([1_u8; 16], id.to_be_bytes());
                    insert
                        .execute(rusqlite::params![self.next, user, id, TEXT, self.next])
                        .expect("a row");
                }
            }
            commit.commit().expect("a commit");
            left -= batch.min(left);
        }
        started.elapsed()
    }
}

/// Rates of the samples, in posts per second.
#[derive(Default)]
struct Rates(Mutex<Vec<f64>>);

impl Rates {
    fn note(&self, posts: u64, took: Duration) -> Duration {
        let rate = posts as f64 / took.as_secs_f64();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(rate);
        took
    }

    fn median(&self) -> f64 {
        let mut rates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4))
        .sample_size(10)
        .configure_from_args();
    let cluster = Cluster::start();
    let mut raw = Raw::new(&cluster.dir.path().join("raw.db"));
    let mut group = criterion.benchmark_group("loopback");
    group.throughput(Throughput::Elements(1));
    let mut table = Vec::new();
    for count in CLIENTS {
        let mut clients = cluster.clients(count);
        let before = cluster.runtime.block_on(last_write(&cluster.store));
        let (rate, raw_rate, single_rate) = (Rates::default(), Rates::default(), Rates::default());
        group.bench_function(BenchmarkId::new("cluster", count), |bench| {
            bench.iter_custom(|posts| rate.note(posts, cluster.post(&mut clients, posts)));
        });
        let mean = cluster.mean_batch(before);
        let batch = (mean.round() as u64).max(1);
        group.bench_function(BenchmarkId::new("raw-sqlite-same-batch", count), |bench| {
            bench.iter_custom(|posts| raw_rate.note(posts, raw.post(posts, batch)));
        });
        group.bench_function(BenchmarkId::new("raw-sqlite-one-per-commit", count), |bench| {
            bench.iter_custom(|posts| single_rate.note(posts, raw.post(posts, 1)));
        });
        table.push((count, mean, rate.median(), raw_rate.median(), single_rate.median()));
    }
    group.finish();
    println!(
        "clients  batch  cluster/s  raw same batch/s  raw one each/s  of same batch  of one each"
    );
    for (count, mean, cluster, raw, single) in table {
        let (of_raw, of_single) = (cluster / raw, cluster / single);
        println!(
            "{count:7}  {mean:5.1}  {cluster:9.0}  {raw:16.0}  {single:14.0}  {of_raw:13.2}  {of_single:11.2}"
        );
    }
    criterion.final_summary();
}

/// Returns the number of the newest row of the record of writes.
async fn last_write(store: &Store) -> u64 {
    let mut last = 0;
    while let Ok(page) = store.writes(last, 1000).await {
        let Some(row) = page.last() else { break };
        last = row.number;
    }
    last
}
