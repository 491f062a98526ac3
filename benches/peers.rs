//! Bench of the cluster beside Redis and PostgreSQL, on the same disk, in the same run and with as
//! many clients, each of which waits for its answer before it sends again.
//!
//! Redis appends to a stream with `appendfsync always`; PostgreSQL inserts single rows, each in a
//! transaction of its own, with `fsync`. Rounds alternate, so that other load affects all alike. What
//! is not installed is left out, and said so (Debian: `apt-get install redis-server postgresql`).

#![expect(clippy::disallowed_methods, reason = "a bench measures the wall clock")]

mod whole;

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use chatchat::{
    client::Api,
    env::{Env, real::TempDir},
    model::ids::BoardName,
    testing::postgres::Server,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    runtime::Runtime,
};
use tokio_postgres::Statement;

use self::whole::{Cluster, Shape, TEXT, median, quantiles, raw::connect};

const CLIENTS: [usize; 2] = [1, 64];
const ROUNDS: usize = 5;

/// Something that takes posts, with the clients that post to it.
trait Peer {
    /// Posts so many times with all clients. Returns the time of all, and of each.
    fn post(&mut self, posts: u64) -> (Duration, Vec<Duration>);
}

struct Chatchat<'a> {
    cluster: &'a Cluster,
    clients: Vec<Api>,
}

impl Peer for Chatchat<'_> {
    fn post(&mut self, posts: u64) -> (Duration, Vec<Duration>) {
        self.cluster.post(&mut self.clients, &[BoardName::lobby()], posts)
    }
}

/// Server of Redis, which ends with this value.
struct RedisServer {
    process: Child,
    dir: TempDir,
}

impl RedisServer {
    fn start() -> Option<Self> {
        let dir = TempDir::new().expect("a folder");
        let mut redis = Command::new("redis-server");
        redis.args(["--port", "0", "--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
        redis.arg("--dir").arg(dir.path()).arg("--unixsocket").arg(dir.path().join("socket"));
        match redis.stdout(Stdio::null()).spawn() {
            Ok(process) => Some(Self { process, dir }),
            Err(_) => {
                eprintln!("LEFT OUT: redis-server is not installed");
                None
            }
        }
    }

    async fn connect(&self, env: &Env) -> BufReader<UnixStream> {
        for _ in 0..200 {
            if let Ok(stream) = UnixStream::connect(self.dir.path().join("socket")).await {
                return BufReader::new(stream);
            }
            env.sleep(Duration::from_millis(25)).await;
        }
        panic!("the server of Redis did not start");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Redis<'a> {
    runtime: &'a Runtime,
    clients: Vec<BufReader<UnixStream>>,
}

impl Peer for Redis<'_> {
    fn post(&mut self, posts: u64) -> (Duration, Vec<Duration>) {
        let share = posts / self.clients.len() as u64;
        let text = format!("${}\r\n{TEXT}\r\n", TEXT.len());
        let append = format!("*5\r\n$4\r\nXADD\r\n$5\r\nlobby\r\n$1\r\n*\r\n$4\r\ntext\r\n{text}");
        timed(
            self.runtime,
            self.clients.iter_mut().map(|client| {
                let append = append.as_bytes();
                async move {
                    let (mut waits, mut line) = (Vec::new(), String::new());
                    for _ in 0..share {
                        let asked = Instant::now();
                        client.get_mut().write_all(append).await.expect("sent");
                        for _ in 0..2 {
                            line.clear();
                            client.read_line(&mut line).await.expect("an answer");
                            assert!(!line.starts_with('-'), "{line}");
                        }
                        waits.push(asked.elapsed());
                    }
                    waits
                }
            }),
        )
    }
}

struct Postgres<'a> {
    runtime: &'a Runtime,
    clients: Vec<(tokio_postgres::Client, Statement)>,
}

impl Postgres<'_> {
    async fn connect(server: &Server) -> (tokio_postgres::Client, Statement) {
        let client = connect(server).await;
        let insert = "INSERT INTO single (text) VALUES ($1) RETURNING seq";
        let insert = client.prepare(insert).await.expect("a statement");
        (client, insert)
    }
}

impl Peer for Postgres<'_> {
    fn post(&mut self, posts: u64) -> (Duration, Vec<Duration>) {
        let share = posts / self.clients.len() as u64;
        timed(
            self.runtime,
            self.clients.iter().map(|(client, insert)| async move {
                let mut waits = Vec::new();
                for _ in 0..share {
                    let asked = Instant::now();
                    client.query_one(insert, &[&TEXT]).await.expect("inserted");
                    waits.push(asked.elapsed());
                }
                waits
            }),
        )
    }
}

fn timed<F: Future<Output = Vec<Duration>>>(
    runtime: &Runtime,
    clients: impl Iterator<Item = F>,
) -> (Duration, Vec<Duration>) {
    let started = Instant::now();
    let waits = runtime.block_on(futures_util::future::join_all(clients));
    (started.elapsed(), waits.into_iter().flatten().collect())
}

fn main() {
    let cluster = Cluster::start(&Shape::default());
    let (runtime, env) = (&cluster.runtime, &cluster.env);
    let redis = RedisServer::start();
    let postgres = whole::postgres_server(runtime, env);
    if let Some(server) = &postgres {
        let table = "CREATE TABLE single (seq bigserial PRIMARY KEY, text text NOT NULL)";
        runtime.block_on(server.sql(env, table));
    }
    println!("clients  peer      posts/s  p50 ms  p99 ms  cluster's pace, as a part of it");
    for count in CLIENTS {
        let clients = cluster.clients(count);
        let mut peers: Vec<(&str, Box<dyn Peer + '_>)> =
            vec![("cluster", Box::new(Chatchat { cluster: &cluster, clients }))];
        if let Some(redis) = &redis {
            let connect = (0..count).map(|_| redis.connect(env));
            let clients = runtime.block_on(futures_util::future::join_all(connect));
            peers.push(("Redis", Box::new(Redis { runtime, clients })));
        }
        if let Some(server) = &postgres {
            let connect = (0..count).map(|_| Postgres::connect(server));
            let clients = runtime.block_on(futures_util::future::join_all(connect));
            peers.push(("Postgres", Box::new(Postgres { runtime, clients })));
        }
        compare(count, &mut peers);
    }
}

/// Measures all peers in alternating rounds, and prints a row for each.
fn compare(count: usize, peers: &mut [(&str, Box<dyn Peer + '_>)]) {
    let posts = if count == 1 { 2000 } else { 16_000 };
    let mut rates = vec![Vec::new(); peers.len()];
    let mut waits = vec![Vec::new(); peers.len()];
    for round in 0..=ROUNDS {
        for (at, (_, peer)) in peers.iter_mut().enumerate() {
            let (took, each) = peer.post(posts);
            // The first round is for warming up.
            if round > 0 {
                rates[at].push(posts as f64 / took.as_secs_f64());
                waits[at].extend(each);
            }
        }
    }
    let ours = rates[0].clone();
    for (at, (name, _)) in peers.iter().enumerate() {
        let pace = median(ours.iter().zip(&rates[at]).map(|(our, its)| our / its).collect());
        let (p50, p99) = quantiles(std::mem::take(&mut waits[at]));
        println!(
            "{count:7}  {name:8}  {:7.0}  {:6.2}  {:6.2}  {pace:.2}",
            median(rates[at].clone()),
            p50.as_secs_f64() * 1e3,
            p99.as_secs_f64() * 1e3,
        );
    }
}
