//! Bench of the queue: tasks come in, go to a worker in batches, and end.
//!
//! First the pure core. `core` is the whole master aggregate, driven as its node drives it: queue, permission,
//! assignment, selection, and the updates of each batch. `bare` makes the same moves with a
//! `VecDeque` per resource and a hash map of the tasks in flight, and decides nothing. The ratio
//! of the two is the cost of the decisions. For the table at the end, their rounds alternate, so
//! that other load on the machine affects both.
//!
//! Then the whole path, from 64 clients' requests to their answers: one thing is varied at a time,
//! and the same run writes as many posts to a bare table, in batches of the same mean size.
//! `cargo bench --bench queue -- whole` measures only these rows; `whole/SQLite` and
//! `whole/Postgres/2` (masters) fewer of them.

#![expect(clippy::disallowed_methods, reason = "a bench measures the wall clock")]

mod whole;

use std::{
    cell::Cell,
    collections::VecDeque,
    hint::black_box,
    time::{Duration, Instant},
};

use chatchat::{
    config::Config,
    env::{Env, real::TempDir},
    model::{
        ids::{
            Author, BoardName, Fingerprint, Incarnation, LinkId, NodeId, PostId, Registration,
            Resource, Role, Seq, StoreEpoch, UserId,
        },
        message::{AssignReply, Beat, Fact, Member, MemberState, Task},
        outcome::{Outcome, TaskResult},
        rows::{Holder, Lease, NewPost},
        time::Mono,
    },
    protocol::{
        calls::{Attempt, Call},
        key_refresh::FIRST_EPOCH,
        master::{AttemptEnd, Effect, Master},
    },
    testing::postgres::Server,
};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;

use self::whole::{Cluster, Shape, median, quantiles, raw::Raw};

/// Tasks of one measured round.
const TASKS: usize = 4096;
const RESOURCES: [usize; 3] = [1, 16, 256];
const BATCHES: [usize; 3] = [1, 16, 64];
/// Number of rounds of `core` and of `bare` in the table.
const ROUNDS: usize = 41;

fn now() -> Mono {
    Mono::ZERO + Duration::from_secs(1)
}

/// Returns posts, round robin over the boards.
fn tasks(resources: usize) -> Vec<Task> {
    let boards: Vec<BoardName> =
        (0..resources).map(|n| format!("board-{n}").parse().expect("a board's name")).collect();
    let author = Author { id: UserId([1; 16]), name: "Ada".parse().expect("a name") };
    (0..TASKS)
        .map(|n| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&n.to_be_bytes());
            let text = format!("an ordinary line of a chat, number {n}");
            let post = NewPost {
                id: PostId(id),
                author: author.clone(),
                text: text.try_into().expect("a text"),
            };
            Task::Post { board: boards[n % resources].clone(), post }
        })
        .collect()
}

/// Returns a master that can write to the store, with four workers and the lease of every board.
fn master(resources: usize, batch: usize) -> Master {
    let me = Holder { node: NodeId([1; 16]), incarnation: Incarnation(1) };
    let config = Config {
        batch_tasks_max: batch,
        queue_tasks_max: TASKS,
        queue_total_max: TASKS,
        ..Config::default()
    };
    let mut master = Master::new(now(), me, config);
    let mut out = Vec::new();
    master.on_store_write(now(), true, &mut out);
    for n in 0..4_u8 {
        let spki = vec![n; 8];
        let hash: [u8; 32] = Sha256::digest(&spki).into();
        let fact = Fact {
            node: NodeId::of(&Fingerprint(hash)),
            role: Role::Worker,
            registration: Registration(1),
            state: MemberState::In,
            master: me.node,
        };
        let member = Member { fact, name: format!("worker-{n}"), link: None, http: None, spki };
        let link = LinkId(u64::from(n));
        master.on_worker(now(), link, member, Some(FIRST_EPOCH), &mut out).expect("room for four");
        master.on_beat(now(), link, Beat { reaches_store: true }, &mut out);
    }
    // One post each, so that every lease is held before the clock starts.
    for task in tasks(resources).into_iter().take(resources) {
        master.on_submit(now(), task, &mut out).expect("room");
    }
    run(&mut master, &mut out);
    master
}

/// Submits all tasks and runs until they have ended.
fn round(master: &mut Master, tasks: Vec<Task>, out: &mut Vec<Effect>) {
    for task in tasks {
        master.on_submit(now(), task, out).expect("room");
    }
    assert_eq!(run(master, out), TASKS);
}

/// Plays the store and the workers until no effect is left. Returns the number of tasks that
/// ended.
fn run(master: &mut Master, out: &mut Vec<Effect>) -> usize {
    let (mut ended, mut seq) = (0, 0);
    let mut effects = Vec::new();
    while !out.is_empty() {
        std::mem::swap(&mut effects, out);
        for effect in effects.drain(..) {
            match effect {
                Effect::AcquireLease { slot, .. } => {
                    let answer = Lease::Granted { epoch: StoreEpoch(1), lease: 1, n: 0 };
                    master.on_lease(now(), slot, now(), Some(answer), out);
                }
                Effect::Assign { call: Call { worker, attempts }, .. } => {
                    // A node has sent the batches by now, and frees them.
                    let ends: Vec<_> = attempts
                        .into_iter()
                        .map(|Attempt { slot, number: attempt, assign, .. }| {
                            let results = assign.tasks.iter().map(|_| {
                                seq += 1;
                                let seq = Seq(seq);
                                TaskResult::Committed { seq, posted_at_ms: 1 }
                            });
                            let answer = Ok(AssignReply::Done(results.collect()));
                            AttemptEnd { slot, attempt, answer }
                        })
                        .collect();
                    master.on_call(now(), worker, ends, out);
                }
                Effect::End { id, outcome } => {
                    assert!(matches!(outcome, Outcome::Settled(_)));
                    black_box(id);
                    ended += 1;
                }
                other => drop(black_box(other)),
            }
        }
    }
    ended
}

/// The same moves without decisions: a queue per resource, batches, a map of tasks in flight.
#[derive(Default)]
struct Bare {
    queues: HashMap<Resource, VecDeque<(u64, Task)>, FixedState>,
    in_flight: HashMap<u64, Task, FixedState>,
    next: u64,
}

impl Bare {
    fn round(&mut self, tasks: Vec<Task>, batch: usize) -> usize {
        for task in tasks {
            self.next += 1;
            let resource = task.resource(NodeId([1; 16]));
            self.queues.entry(resource).or_default().push_back((self.next, task));
        }
        let mut ended = 0;
        let mut ids = Vec::new();
        for queue in self.queues.values_mut() {
            while !queue.is_empty() {
                for (id, task) in queue.drain(..batch.min(queue.len())) {
                    self.in_flight.insert(id, task);
                    ids.push(id);
                }
                for id in ids.drain(..) {
                    black_box(self.in_flight.remove(&id));
                    ended += 1;
                }
            }
        }
        ended
    }
}

fn queue(c: &mut Criterion) {
    for resources in RESOURCES {
        let mut group = c.benchmark_group(format!("queue/resources-{resources}"));
        group.throughput(Throughput::Elements(TASKS as u64));
        for batch in BATCHES {
            group.bench_with_input(BenchmarkId::new("core", batch), &batch, |bench, &batch| {
                let mut master = master(resources, batch);
                let mut out = Vec::new();
                bench.iter_batched(
                    || tasks(resources),
                    |tasks| round(&mut master, tasks, &mut out),
                    BatchSize::LargeInput,
                );
            });
            group.bench_with_input(BenchmarkId::new("bare", batch), &batch, |bench, &batch| {
                let mut bare = Bare::default();
                bench.iter_batched(
                    || tasks(resources),
                    |tasks| assert_eq!(bare.round(tasks, batch), TASKS),
                    BatchSize::LargeInput,
                );
            });
        }
        group.finish();
    }
}

fn timed(work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_secs_f64() * 1e9 / TASKS as f64
}

/// Prints the medians of alternating rounds.
fn table() {
    println!("resources  batch  core ns/task  bare ns/task  of bare's pace");
    for resources in RESOURCES {
        for batch in BATCHES {
            let (mut master, mut out) = (master(resources, batch), Vec::new());
            let mut bare = Bare::default();
            let (mut of_core, mut of_bare, mut ratios) = (vec![], vec![], vec![]);
            for _ in 0..ROUNDS {
                let (first, second) = (tasks(resources), tasks(resources));
                let core = timed(|| round(&mut master, first, &mut out));
                let bare = timed(|| assert_eq!(bare.round(second, batch), TASKS));
                of_core.push(core);
                of_bare.push(bare);
                ratios.push(bare / core);
            }
            let (core, bare, ratio) = (median(of_core), median(of_bare), median(ratios));
            println!("{resources:9}  {batch:5}  {core:12.0}  {bare:12.0}  {ratio:14.2}");
        }
    }
}

/// Clients of the whole path.
const CLIENTS: usize = 64;
/// Posts of one measured round of the whole path.
const POSTS: u64 = 8000;
/// Rounds of each row of the whole path; the table has their median.
const WHOLE_ROUNDS: usize = 5;

/// Server of PostgreSQL for the rows that are measured on it.
struct Postgres {
    runtime: Runtime,
    env: Env,
    server: Server,
    /// Number of its schemas: each row has one of its own.
    schemas: Cell<u32>,
}

impl Postgres {
    /// Returns the URL of a new store.
    fn empty(&self) -> String {
        self.schemas.set(self.schemas.get() + 1);
        let schema = format!("chat_{}", self.schemas.get());
        self.runtime.block_on(self.server.sql(&self.env, &format!("CREATE SCHEMA {schema}")));
        self.server.url(&schema)
    }
}

/// Prints the throughput of the whole path.
fn whole_table() {
    println!();
    println!(
        "store     masters  workers  boards  batch  mean  posts/s  p50 ms  p99 ms  raw/s  of raw  \
         CPU us"
    );
    let (one, shape) = (Shape { masters: 1, ..Shape::default() }, Shape::default());
    let of_batch = |batch| {
        let mut shape = one.clone();
        shape.config.batch_tasks_max = batch;
        shape
    };
    let rows = |server: Option<&Postgres>| {
        for boards in [1, 16, 256] {
            whole_row(server, &one, boards);
        }
        for workers in [1, 8] {
            whole_row(server, &Shape { workers, ..one.clone() }, 1);
        }
        for batch in [1, 1024] {
            whole_row(server, &of_batch(batch), 1);
        }
        whole_row(server, &shape, 1);
        let mut waits = one.clone();
        waits.config.batches_in_flight = 1;
        println!("and with one batch in flight:");
        whole_row(server, &waits, 1);
    };
    rows(None);
    let runtime = whole::runtime();
    let dir = TempDir::new().expect("a folder");
    let env = whole::world(&runtime, dir.path().join("server"));
    if let Some(server) = whole::postgres_server(&runtime, &env) {
        rows(Some(&Postgres { runtime, env, server, schemas: Cell::new(0) }));
    }
}

/// Returns the filter that was given as an argument.
fn filter() -> Option<String> {
    std::env::args().skip(1).find(|arg| !arg.starts_with('-'))
}

/// Measures a row on SQLite, or with a schema of its own on a server.
fn whole_row(server: Option<&Postgres>, shape: &Shape, boards: usize) {
    let store = if server.is_some() { "Postgres" } else { "SQLite" };
    let label = format!("whole/{store}/{}/{}/{boards}", shape.masters, shape.workers);
    if filter().is_some_and(|filter| !label.starts_with(&filter)) {
        return;
    }
    let shape = &Shape { postgres: server.map(Postgres::empty), ..shape.clone() };
    let cluster = Cluster::start(shape);
    let names = cluster.boards(boards);
    let mut clients = cluster.clients(CLIENTS);
    let mut raw = match server {
        None => Raw::sqlite(&cluster.dir.path().join("raw.db")),
        Some(postgres) => Raw::postgres(&postgres.server),
    };
    cluster.post(&mut clients, &names, POSTS / 4);
    let before = cluster.last_write();
    let (mut rates, mut raw_rates, mut ratios, mut waits) = (vec![], vec![], vec![], vec![]);
    let mut mean = 1.0;
    let mut cpu = Duration::ZERO;
    for _ in 0..WHOLE_ROUNDS {
        let spent = whole::cpu_time();
        let (took, each) = cluster.post(&mut clients, &names, POSTS);
        cpu += whole::cpu_time() - spent;
        mean = cluster.mean_batch(before);
        let bare = raw.post(POSTS, (mean.round() as u64).max(1));
        let rate = |took: Duration| POSTS as f64 / took.as_secs_f64();
        rates.push(rate(took));
        raw_rates.push(rate(bare));
        ratios.push(rate(took) / rate(bare));
        waits.extend(each);
    }
    let (p50, p99) = quantiles(waits);
    let ms = |of: Duration| of.as_secs_f64() * 1e3;
    println!(
        "{store:8}  {:7}  {:7}  {boards:6}  {:5}  {mean:4.1}  {:7.0}  {:6.1}  {:6.1}  {:5.0}  {:6.2}  \
         {:6.0}",
        shape.masters,
        shape.workers,
        shape.config.batch_tasks_max,
        median(rates),
        ms(p50),
        ms(p99),
        median(raw_rates),
        median(ratios),
        cpu.as_secs_f64() * 1e6 / (POSTS * WHOLE_ROUNDS as u64) as f64,
    );
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20)
        .configure_from_args();
    queue(&mut criterion);
    criterion.final_summary();
    if !filter().is_some_and(|filter| filter.starts_with("whole")) {
        table();
    }
    whole_table();
}
