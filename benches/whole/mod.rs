//! Whole cluster for benches: real TCP on loopback, HTTP, sealed links and a real store. Each node
//! has a runtime of its own, as it has in a process of its own, so that the operating system
//! schedules the nodes.

#![expect(clippy::disallowed_methods, reason = "a bench measures the wall clock")]
#![allow(dead_code, reason = "each bench uses a part of it")]

pub(crate) mod raw;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
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
    store::{
        Store,
        postgres::{self, Address, ServerLimits},
        sqlite,
    },
    testing::{
        cluster::{NodeParts, TestCluster},
        postgres::Server,
    },
};
use rand_chacha::rand_core::Rng;
use tokio::runtime::Runtime;

/// Ordinary line of a chat.
pub(crate) const TEXT: &str = "an ordinary line of an ordinary evening, as long as such lines are";

/// Number of nodes, their settings and their store.
#[derive(Clone)]
pub(crate) struct Shape {
    pub(crate) masters: usize,
    pub(crate) workers: usize,
    pub(crate) config: Config,
    /// URL of a store on PostgreSQL; else it is a file of SQLite.
    pub(crate) postgres: Option<String>,
}

impl Default for Shape {
    fn default() -> Self {
        // A bench measures the cluster, not the limits of requests.
        let config = Config {
            session_requests_per_s: 1_000_000,
            session_requests_burst: 1_000_000,
            openings_per_s: 1_000_000,
            openings_burst: 1_000_000,
            ..Config::default()
        };
        Self { masters: 2, workers: 3, config, postgres: None }
    }
}

/// Running cluster, with the world and the store of its clients.
pub(crate) struct Cluster {
    pub(crate) runtime: Runtime,
    /// The clients' world.
    pub(crate) env: Env,
    pub(crate) cluster: TestCluster,
    /// One runtime for each node.
    _runtimes: Vec<Runtime>,
    pub(crate) store: Store,
    pub(crate) dir: TempDir,
}

impl Cluster {
    pub(crate) fn start(shape: &Shape) -> Self {
        let runtime = runtime();
        let dir = TempDir::new().expect("a folder");
        let nodes: Vec<_> = (0..shape.masters + shape.workers).map(|_| self::runtime()).collect();
        let env = world(&runtime, dir.path().join("clients"));
        let cluster = runtime.block_on(start_nodes(&nodes, dir.path(), shape));
        let store = runtime.block_on(store(&env, dir.path(), shape));
        Self { runtime, env, cluster, _runtimes: nodes, store, dir }
    }

    /// Posts `posts` times with all these clients at once, each waiting for its answers: to its
    /// board of the list, one after the other. Returns the time of all, and of each.
    pub(crate) fn post(
        &self,
        clients: &mut [Api],
        boards: &[BoardName],
        posts: u64,
    ) -> (Duration, Vec<Duration>) {
        let env = &self.env;
        let started = Instant::now();
        let waits = self.runtime.block_on(async {
            let count = clients.len() as u64;
            let all = clients.iter_mut().zip(0_u64..).map(|(api, nth)| {
                let share = posts / count + u64::from(nth < posts % count);
                let mut rng = env.rng("bench-posts");
                async move {
                    let mut waits = Vec::new();
                    for turn in 0..share {
                        let at = usize::try_from(nth + turn * count).unwrap_or_default();
                        waits.push(post(api, &boards[at % boards.len()], &mut rng).await);
                    }
                    waits
                }
            });
            futures_util::future::join_all(all).await
        });
        (started.elapsed(), waits.into_iter().flatten().collect())
    }

    /// Opens sessions, in turn at the masters.
    pub(crate) fn clients(&self, count: usize) -> Vec<Api> {
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
        for _ in 0..200 {
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

    /// Creates this many boards and returns their names; the lobby alone for one.
    pub(crate) fn boards(&self, count: usize) -> Vec<BoardName> {
        if count == 1 {
            return vec![BoardName::lobby()];
        }
        let mut api = self.clients(1).remove(0);
        let name = |nth| format!("board-{nth}").parse().expect("a board's name");
        let boards: Vec<BoardName> = (0..count).map(name).collect();
        for board in &boards {
            let request = Request::CreateBoard { board: board.clone() };
            self.runtime.block_on(api.call(&request)).expect("a board");
        }
        boards
    }

    /// Returns the mean number of posts in the batches after a row of the record of writes.
    pub(crate) fn mean_batch(&self, after: u64) -> f64 {
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

    /// Returns the number of the newest row of the record of writes.
    pub(crate) fn last_write(&self) -> u64 {
        let mut last = 0;
        while let Ok(page) = self.runtime.block_on(self.store.writes(last, 1000)) {
            let Some(row) = page.last() else { break };
            last = row.number;
        }
        last
    }
}

pub(crate) fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().expect("a runtime")
}

/// Returns the world of a node whose tasks run on this runtime.
pub(crate) fn world(on: &Runtime, dir: PathBuf) -> Env {
    let _entered = on.enter();
    Env::new(RealWorld::new(dir).expect("a folder"))
}

async fn store(env: &Env, dir: &Path, shape: &Shape) -> Store {
    let timeout = shape.config.store_timeout;
    match &shape.postgres {
        None => sqlite::open(env, &dir.join("store.db"), timeout).expect("a store"),
        Some(url) => {
            let address = Address::parse(url).expect("an address");
            postgres::open(env, address, ServerLimits::new(timeout)).await.expect("a store")
        }
    }
}

async fn start_nodes(nodes: &[Runtime], dir: &Path, shape: &Shape) -> TestCluster {
    let (of_masters, of_workers) = nodes.split_at(shape.masters);
    let mut parts = Vec::new();
    for (on, (role, number)) in of_masters
        .iter()
        .zip((0..).map(|n| (Role::Master, n)))
        .chain(of_workers.iter().zip((0..).map(|n| (Role::Worker, n))))
    {
        let env = world(on, dir.join(format!("{role}-{number}")));
        let store = store(&env, dir, shape).await;
        parts.push(NodeParts { env, store, keys: Arc::new(GeneratedKeys) });
    }
    let mut parts = parts.into_iter();
    TestCluster::start(shape.masters, shape.workers, &shape.config, |_, _| {
        parts.next().expect("masters first, then workers")
    })
    .await
}

/// Posts once, under a new id. Returns how long the answer took.
pub(crate) async fn post(api: &mut Api, board: &BoardName, rng: &mut impl Rng) -> Duration {
    let mut id = [0; 16];
    rng.fill_bytes(&mut id);
    let text = TEXT.parse().expect("a text");
    let request = Request::Post { board: board.clone(), id: PostId(id), text };
    let asked = Instant::now();
    match api.call(&request).await {
        Ok(Answer::Posted(_)) => asked.elapsed(),
        other => panic!("a post was not committed: {other:?}"),
    }
}

/// Starts a server of PostgreSQL on the same disk as everything else, and makes a schema; `None`
/// where it is not installed.
pub(crate) fn postgres_server(runtime: &Runtime, env: &Env) -> Option<Server> {
    runtime.block_on(async {
        let server = Server::start_on_disk(env, &["fsync=on", "max_connections=200"]).await?;
        server.sql(env, "CREATE SCHEMA chat").await;
        Some(server)
    })
}

/// Returns the time that this process has spent on all cores, people and nodes together.
pub(crate) fn cpu_time() -> Duration {
    const TICK: Duration = Duration::from_millis(10);
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux has it");
    // Fields 14 and 15; the name in parentheses may hold spaces.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields = after_name.split_whitespace().skip(11).take(2);
    let ticks: u32 = fields.map(|field| field.parse::<u32>().expect("a number")).sum();
    TICK * ticks
}

/// Returns the median and the 99th part of a hundred.
pub(crate) fn quantiles(mut of: Vec<Duration>) -> (Duration, Duration) {
    of.sort();
    let at = |part: usize| of.get(of.len() * part / 100).copied().unwrap_or_default();
    (at(50), at(99))
}

pub(crate) fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}
