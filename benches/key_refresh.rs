//! Cost of a key refresh: made ahead, sealed for every member, opened by one. Beside it, what one
//! RSA wrap for each member would cost, and how long posts take on a whole cluster meanwhile.

mod whole;

use std::{hint::black_box, sync::Arc, time::Duration};

use chatchat::{
    comm::link::KeyFrame,
    crypto::{
        epoch::{EpochKeys, KeyGrant},
        keys::{Identity, IdentityKey, KeyBounds, KeyPair, WrapKey, WrapPair},
        record::{HEADER_LEN, Opener, RecordKind, Sealer, Side, link},
        secret::Secret,
    },
    model::{
        ids::{BoardName, Domain, Incarnation, KeyEpoch},
        message::Direct,
    },
    wire::frame::{self, Frame},
};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use self::whole::{Cluster, Shape, median, quantiles};

const BOUNDS: KeyBounds = KeyBounds::STANDARD;
const MEMBERS: [usize; 4] = [1, 100, 1000, 10_000];
/// Sizes of a real node's keys, in bits.
const IDENTITY_BITS: usize = 3072;
const COMMON_BITS: usize = 2048;
const LABEL: &str = "chatchat/bench/wrap";
/// Clients that post to a whole cluster.
const CLIENTS: [usize; 2] = [4, 64];
const POSTS_PER_CLIENT: u64 = 250;
/// Rounds of each cluster.
const ROUNDS: usize = 12;

/// Master with the keys of its next epoch.
struct Site {
    rng: ChaCha20Rng,
    identity: Identity,
    domain: Domain,
    keys: Arc<EpochKeys>,
}

impl Site {
    fn new() -> Self {
        let mut rng = ChaCha20Rng::from_seed([7; 32]);
        let identity = Identity::new(pair(&mut rng, IDENTITY_BITS));
        let domain = Domain { master: identity.node(), incarnation: Incarnation(1) };
        let common = pair(&mut rng, COMMON_BITS);
        let keys = draw(&mut rng, &identity, domain, common);
        Self { rng, identity, domain, keys: Arc::new(keys) }
    }

    /// The frame that brings the keys to a member.
    fn frame(&self) -> Vec<u8> {
        let install = self.keys.grant().expect("it encodes").into();
        frame::direct(&Direct::KeyInstall(install)).expect("it fits")
    }
}

fn pair(rng: &mut ChaCha20Rng, bits: usize) -> KeyPair {
    KeyPair::generate(rng, bits, BOUNDS).expect("a pair")
}

fn draw(rng: &mut ChaCha20Rng, identity: &Identity, domain: Domain, common: KeyPair) -> EpochKeys {
    EpochKeys::draw(rng, identity, domain, KeyEpoch(2), common, BOUNDS).expect("its own domain")
}

fn ends(number: usize) -> (Sealer, Opener) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    let prk = Secret::from_slice(&bytes).expect("32 bytes");
    let ((sealer, _), (_, opener)) = (link(&prk, Side::Acceptor), link(&prk, Side::Dialer));
    (sealer, opener)
}

fn make_ready(bench: &mut Criterion) {
    let mut site = Site::new();
    let der = pair(&mut site.rng, COMMON_BITS).to_pkcs8_der().expect("it encodes");
    let mut group = bench.benchmark_group("key_refresh/make");
    group.sample_size(10);
    group.bench_function("pair_and_announcement", |timed| {
        timed.iter(|| {
            let common = pair(&mut site.rng, COMMON_BITS);
            draw(&mut site.rng, &site.identity, site.domain, common)
        });
    });
    group.bench_function("announcement", |timed| {
        timed.iter_batched(
            || KeyPair::from_pkcs8_der(&der, BOUNDS).expect("a pair"),
            |common| draw(&mut site.rng, &site.identity, site.domain, common),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn seal_for_all(bench: &mut Criterion) {
    let site = Site::new();
    let frame = site.frame();
    let Ok(Frame::Direct(message)) = Frame::decode(frame.into()) else {
        unreachable!("it was just encoded")
    };
    let mut group = bench.benchmark_group("key_refresh/seal_for_all");
    group.sample_size(10);
    for members in MEMBERS {
        let mut sealers: Vec<Sealer> = (0..members).map(|number| ends(number).0).collect();
        let mut out = Vec::with_capacity(8192);
        group.throughput(Throughput::Elements(members as u64));
        group.bench_with_input(BenchmarkId::from_parameter(members), &(), |timed, ()| {
            timed.iter(|| {
                let shared = KeyFrame::new(&message).expect("it fits");
                for sealer in &mut sealers {
                    out.clear();
                    let frame = black_box(shared.clone());
                    sealer.seal(RecordKind::Data, frame.bytes(), &mut out).expect("a fresh key");
                    black_box(&out);
                }
            });
        });
    }
    group.finish();
}

fn wrap_for_each(bench: &mut Criterion) {
    let mut site = Site::new();
    let spki = WrapPair::new(pair(&mut site.rng, COMMON_BITS)).spki().to_vec();
    let key = WrapKey::from_spki(&spki, BOUNDS).expect("a key");
    let secret = Secret::random(&mut site.rng);
    let mut group = bench.benchmark_group("key_refresh/rsa_wrap_for_each");
    group.sample_size(10);
    for members in MEMBERS {
        group.throughput(Throughput::Elements(members as u64));
        group.bench_with_input(BenchmarkId::from_parameter(members), &members, |timed, members| {
            timed.iter(|| {
                for _ in 0..*members {
                    black_box(key.wrap(&mut site.rng, LABEL, &[], &secret).expect("it wraps"));
                }
            });
        });
    }
    group.finish();
}

fn open(bench: &mut Criterion) {
    let mut site = Site::new();
    let master = IdentityKey::from_spki(site.identity.spki(), BOUNDS).expect("a key");
    let frame = site.frame();
    let mut number = 0;
    let mut group = bench.benchmark_group("key_refresh/open");
    group.sample_size(20);
    group.bench_function("record_signature_and_unwrap", |timed| {
        timed.iter_batched(
            || {
                number += 1;
                let (mut sealer, opener) = ends(number);
                let mut out = Vec::new();
                sealer.seal(RecordKind::Data, &frame, &mut out).expect("a fresh key");
                (opener, out)
            },
            |(mut opener, mut record)| {
                let mut body = record.split_off(HEADER_LEN);
                let header = record.try_into().expect("a header");
                opener.open(header, &mut body).expect("its own record");
                let Ok(Frame::Direct(Direct::KeyInstall(install))) = Frame::decode(body.into())
                else {
                    unreachable!("it was just sealed")
                };
                let grant = KeyGrant::from(install);
                EpochKeys::accept(&mut site.rng, &master, site.domain, &grant, BOUNDS)
                    .expect("its master's")
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// Prints how long posts take on a whole cluster with a refresh every second, beside one without.
/// Rounds alternate, so that other load affects both alike.
fn post_latency() {
    let calm = Shape::default();
    let mut busy = calm.clone();
    busy.config.key_refresh_interval = Duration::from_secs(1);
    busy.config.key_refresh_gap = Duration::from_secs(1);
    let clusters = [("none", Cluster::start(&calm)), ("every second", Cluster::start(&busy))];
    println!();
    println!("clients  refresh       posts/s  p50 ms  p99 ms");
    for count in CLIENTS {
        let mut waits = [const { Vec::new() }; 2];
        let mut rates = [const { Vec::new() }; 2];
        let mut clients: Vec<_> = clusters.iter().map(|(_, it)| it.clients(count)).collect();
        for _ in 0..ROUNDS {
            for (at, (_, cluster)) in clusters.iter().enumerate() {
                let posts = POSTS_PER_CLIENT * count as u64;
                let (took, each) = cluster.post(&mut clients[at], &[BoardName::lobby()], posts);
                rates[at].push(posts as f64 / took.as_secs_f64());
                waits[at].extend(each);
            }
        }
        let ms = |of: Duration| of.as_secs_f64() * 1e3;
        let quantiles = waits.map(quantiles);
        for (at, (refresh, _)) in clusters.iter().enumerate() {
            let (rate, (p50, p99)) = (median(rates[at].clone()), quantiles[at]);
            println!("{count:7}  {refresh:12}  {rate:7.0}  {:6.2}  {:6.2}", ms(p50), ms(p99));
        }
        let [(_, without), (_, with)] = quantiles;
        println!("p99 with a refresh every second: {:.2} of without", ms(with) / ms(without));
    }
}

criterion_group!(benches, make_ready, seal_for_all, wrap_for_each, open);

fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
    post_latency();
}
