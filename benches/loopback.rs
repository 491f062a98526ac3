//! Bench of posts committed per second, end to end: real TCP on loopback, HTTP, sealed links, a
//! real SQLite file, two masters and three workers. Each node has a runtime of its own, as it has
//! in a process of its own, so that the operating system schedules the nodes.
//!
//! The same run measures raw SQLite on the same disk, with the cluster's mean batch size and with
//! one post per commit. The table at the end gives the ratios, which differ less between machines
//! than the rates.

mod whole;

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use chatchat::model::ids::BoardName;
use criterion::{BenchmarkId, Criterion, Throughput};

use self::whole::{Cluster, Shape, median, raw::Raw};

const CLIENTS: [usize; 3] = [1, 16, 64];

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
        median(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4))
        .sample_size(10)
        .configure_from_args();
    let cluster = Cluster::start(&Shape::default());
    let boards = [BoardName::lobby()];
    let mut raw = Raw::sqlite(&cluster.dir.path().join("raw.db"));
    let mut group = criterion.benchmark_group("loopback");
    group.throughput(Throughput::Elements(1));
    let mut table = Vec::new();
    for count in CLIENTS {
        let mut clients = cluster.clients(count);
        let before = cluster.last_write();
        let (rate, raw_rate, single_rate) = (Rates::default(), Rates::default(), Rates::default());
        group.bench_function(BenchmarkId::new("cluster", count), |bench| {
            bench.iter_custom(|posts| {
                rate.note(posts, cluster.post(&mut clients, &boards, posts).0)
            });
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
