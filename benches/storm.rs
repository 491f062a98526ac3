//! Bench of a reconnect storm: 500 workers come to one master at once, while people post.
//!
//! The workers are whole ones, with identities of 2048 bits that were made before; all share one
//! process, one runtime and one handle of the store. What they and the people need of the two cores
//! the master lacks, so this is an upper bound of what a master of its own machine needs.

#![expect(clippy::disallowed_methods, reason = "a bench measures the wall clock")]

mod whole;

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use chatchat::{
    client::{Answer, Api, Request},
    comm::key_source::{KeyKind, KeySource, load_or_make_identity},
    crypto::keys::{KeyBounds, KeyError, KeyPair},
    env::{BoxFuture, Env},
    model::{
        ids::{BoardName, Role},
        message::MemberState,
    },
    programs::{WorkerParams, run_worker},
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use self::whole::{Cluster, Shape, quantiles};

const WORKERS: usize = 500;
const PEOPLE: usize = 16;
const BITS: usize = 2048;
/// Time after which the bench gives up.
const LIMIT: Duration = Duration::from_secs(120);

/// Makes identities, and hands out one pair for everything that is made anew in a handshake: nodes
/// make those before they come.
struct Keys {
    handshake: Vec<u8>,
}

impl Keys {
    fn new() -> Self {
        let pair = pair(&mut ChaCha20Rng::from_seed([1; 32]));
        Self { handshake: pair.to_pkcs8_der().expect("it encodes").to_vec() }
    }
}

fn pair(rng: &mut ChaCha20Rng) -> KeyPair {
    KeyPair::generate(rng, BITS, KeyBounds::STANDARD).expect("a pair")
}

impl KeySource for Keys {
    fn generate<'a>(
        &'a self,
        env: &'a Env,
        kind: KeyKind,
        _bits: usize,
    ) -> BoxFuture<'a, Result<KeyPair, KeyError>> {
        Box::pin(async move {
            match kind {
                KeyKind::Identity => Ok(pair(&mut env.rng("bench-identity"))),
                KeyKind::Handshake | KeyKind::Common => {
                    KeyPair::from_pkcs8_der(&self.handshake, KeyBounds::STANDARD)
                }
            }
        })
    }
}

fn main() {
    let mut shape = Shape { masters: 1, workers: 1, ..Shape::default() };
    shape.config.identity_bits = BITS;
    let cluster = Cluster::start(&shape);
    let runtime = whole::runtime();
    let keys: Arc<dyn KeySource> = Arc::new(Keys::new());
    let envs: Vec<Env> = (0..WORKERS)
        .map(|nth| whole::world(&runtime, cluster.dir.path().join(format!("storm-{nth}"))))
        .collect();
    let made = Instant::now();
    for env in &envs {
        runtime.block_on(load_or_make_identity(env, keys.as_ref(), BITS)).expect("an identity");
    }
    println!("{WORKERS} identities made in {:.0} s", made.elapsed().as_secs_f64());

    let mut people = cluster.clients(PEOPLE);
    let mut watcher = cluster.clients(1).remove(0);
    let calm = cluster.runtime.block_on(post_until(&cluster.env, &mut people, async {
        cluster.env.sleep(Duration::from_secs(5)).await;
    }));
    let began = Instant::now();
    for (nth, env) in envs.iter().enumerate() {
        let params = WorkerParams {
            name: format!("storm-{nth}"),
            config: shape.config.clone(),
            masters: cluster.cluster.links().to_vec(),
            pins: cluster.cluster.pins().to_vec(),
            token: Some(cluster.cluster.token().to_owned()),
            store: cluster.store.clone(),
            login: None,
            keys: Arc::clone(&keys),
        };
        let of_worker = env.clone();
        env.spawn("worker", async move {
            let ended = run_worker(of_worker, params, pending()).await;
            panic!("a worker ended: {ended:?}");
        });
    }
    let mut in_after = Vec::new();
    let storm = cluster.runtime.block_on(post_until(&cluster.env, &mut people, async {
        while in_after.last().is_none_or(|(_, here)| *here <= WORKERS) && began.elapsed() < LIMIT {
            cluster.env.sleep(Duration::from_millis(100)).await;
            in_after.push((began.elapsed(), registered(&mut watcher).await));
        }
    }));
    let at = |part: usize| {
        let there =
            in_after.iter().find(|(_, here)| here.saturating_sub(1) * 100 >= WORKERS * part);
        there.map_or_else(
            || "never".to_owned(),
            |(after, _)| format!("{:.1} s", after.as_secs_f64()),
        )
    };
    println!("workers in: half after {}, 99 % after {}, all after {}", at(50), at(99), at(100));
    for (what, waits) in [("before", calm), ("meanwhile", storm)] {
        let count = waits.len();
        let (p50, p99) = quantiles(waits);
        let (p50, p99) = (p50.as_secs_f64() * 1e3, p99.as_secs_f64() * 1e3);
        println!("posts {what}: {count}, p50 {p50:.1} ms, p99 {p99:.1} ms");
    }
}

/// Posts with all these people until something has ended. Returns how long each post took.
async fn post_until(
    env: &Env,
    people: &mut [Api],
    ends: impl Future<Output = ()>,
) -> Vec<Duration> {
    let is_over = AtomicBool::new(false);
    let all = people.iter_mut().map(|api| async {
        let (mut waits, mut rng) = (Vec::new(), env.rng("bench-posts"));
        while !is_over.load(Ordering::Relaxed) {
            waits.push(whole::post(api, &BoardName::lobby(), &mut rng).await);
            // People do not post without a break.
            env.sleep(Duration::from_millis(50)).await;
        }
        waits
    });
    let ends = async {
        ends.await;
        is_over.store(true, Ordering::Relaxed);
    };
    let (waits, ()) = futures_util::future::join(futures_util::future::join_all(all), ends).await;
    waits.into_iter().flatten().collect()
}

/// Returns how many workers the master lists as in.
async fn registered(watcher: &mut Api) -> usize {
    let Ok(Answer::Cluster(cluster)) = watcher.call(&Request::Cluster).await else { return 0 };
    let is_in =
        |node: &&chatchat::api::Node| node.role == Role::Worker && node.state == MemberState::In;
    cluster.nodes.iter().filter(is_in).count()
}
