//! Cost of a key refresh: made ahead, sealed for every member, opened by one. Beside it, what one
//! RSA wrap for each member would cost.

use std::{hint::black_box, sync::Arc};

use chatchat::{
    comm::link::KeyFrame,
    crypto::{
        epoch::{EpochKeys, KeyGrant},
        keys::{Identity, IdentityKey, KeyBounds, KeyPair, WrapKey, WrapPair},
        record::{HEADER_LEN, Opener, RecordKind, Sealer, Side, link},
        secret::Secret,
    },
    model::{
        ids::{Domain, Incarnation, KeyEpoch},
        message::Direct,
    },
    wire::frame::{self, Frame},
};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

const BOUNDS: KeyBounds = KeyBounds::STANDARD;
const MEMBERS: [usize; 4] = [1, 100, 1000, 10_000];
/// Sizes of a real node's keys, in bits.
const IDENTITY_BITS: usize = 3072;
const COMMON_BITS: usize = 2048;
const LABEL: &str = "chatchat/bench/wrap";

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

criterion_group!(benches, make_ready, seal_for_all, wrap_for_each, open);
criterion_main!(benches);
