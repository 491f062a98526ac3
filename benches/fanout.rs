//! Bench of fanout: one text sealed once, then given to every member.
//!
//! `seal` is the envelope, once for all. `hand over` is what the master's driver does for one more
//! member: the envelope goes into that link's queue. `record` is what the link's own task does
//! afterwards: it seals the frame under the keys of that link. Neither the wake of that task nor
//! the write to its socket is in the figures. Rounds of the three alternate. At the end the speed of sealing stands
//! beside that of `openssl`, where there is one.

#![expect(clippy::disallowed_methods, reason = "a bench measures the wall clock")]

use std::{
    hint::black_box,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use chatchat::{
    comm::{DriverStamp, Incoming, Link, LinkId, LinkLimits, Peer, SecureStream},
    crypto::{
        epoch::EpochKeys,
        fanout::{Fanout, Start},
        handshake::VERSIONS,
        keys::{Identity, KeyBounds, KeyPair},
        record::{RecordKind, Sealer, Side, link},
        secret::Secret,
    },
    env::{Env, real::RealWorld},
    model::{
        ids::{Domain, Incarnation, KeyEpoch, NodeId, Role},
        message::Topic,
    },
    wire::frame,
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
};

const BOUNDS: KeyBounds = KeyBounds::STANDARD;
const MEMBERS: [usize; 4] = [10, 100, 1000, 10_000];
/// Sizes of a text, in bytes.
const SIZES: [usize; 5] = [64, 256, 1024, 4096, 16 * 1024];
/// Rounds of each figure, of which the fastest counts.
const ROUNDS: usize = 25;
/// Length of one run of `openssl speed`, in seconds.
const OPENSSL_S: u32 = 2;

/// Marks: the most that one more member may cost, as a part of sealing 1 KiB again, and the least
/// speed of sealing 16 KiB, as a part of that of `openssl`.
const MEMBER_MAX: f64 = 0.1;
const SPEED_MIN: f64 = 0.5;

fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

fn fanout() -> Fanout {
    let pair = |seed| KeyPair::generate(&mut rng(seed), 2048, BOUNDS).expect("a pair");
    let master = Identity::new(pair(1));
    let domain = Domain { master: master.node(), incarnation: Incarnation(1) };
    let keys = EpochKeys::draw(&mut rng(3), &master, domain, KeyEpoch(1), pair(2), BOUNDS);
    let keys = Arc::new(keys.expect("its own domain"));
    Fanout::new(master.node(), Start::new(1, &mut rng(4)), keys, 16)
}

fn prk(number: usize) -> Secret {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Secret::from_slice(&bytes).expect("32 bytes")
}

/// Links to members, and what keeps them open.
struct Members {
    links: Vec<Link>,
    _ends: Vec<DuplexStream>,
    _events: mpsc::Receiver<(LinkId, Incoming)>,
}

impl Members {
    fn new(env: &Env, count: usize) -> Self {
        let (events_to, events) = mpsc::channel(16);
        let (mut links, mut ends) = (Vec::new(), Vec::new());
        for number in 0..count {
            let (here, there) = duplex(64);
            ends.push(there);
            let (sealer, opener) = link(&prk(number), Side::Acceptor);
            let node = NodeId([2; 16]);
            let peer = Peer {
                node,
                role: Role::Worker,
                spki: Vec::new(),
                name: String::new(),
                version: VERSIONS.1,
                release: None,
            };
            let secured =
                SecureStream { stream: Box::new(here), sealer, opener, peer, renewal: None };
            let (id, limits) = (LinkId(number as u64), LinkLimits::default());
            links.push(Link::start(
                env,
                id,
                secured,
                limits,
                DriverStamp::default(),
                events_to.clone(),
            ));
        }
        Self { links, _ends: ends, _events: events }
    }
}

/// Returns the time of the fastest round: other load only makes rounds slower.
fn fastest(times: impl IntoIterator<Item = Duration>) -> Duration {
    times.into_iter().min().expect("there are rounds")
}

fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

/// Costs at one size and one number of members, in nanoseconds.
struct Costs {
    seal: f64,
    hand_over: f64,
    record: f64,
}

fn costs(fanout: &mut Fanout, count: usize, size: usize) -> Costs {
    let text = vec![b'x'; size];
    // Few members take a round too short to be measured: each gets several envelopes.
    let times = (1000 / count).clamp(1, 64);
    let mut sealers: Vec<Sealer> =
        (0..count).map(|number| link(&prk(number), Side::Acceptor).0).collect();
    let (mut scratch, mut out) = (Vec::new(), Vec::new());
    let (mut seals, mut hand_overs, mut records) = (Vec::new(), Vec::new(), Vec::new());
    let seals_each = 256;
    for _ in 0..ROUNDS {
        seals.push(timed(|| {
            for _ in 0..seals_each {
                black_box(fanout.seal(Topic::Board, &text).expect("it fits"));
            }
        }));
        let envelope = Bytes::from(fanout.seal(Topic::Board, &text).expect("it fits"));
        // Nothing is awaited inside, so the links' tasks get no turn, and they go with the runtime.
        let runtime = runtime();
        hand_overs.push(runtime.block_on(async {
            let env = Env::new(RealWorld::temporary().expect("a directory"));
            let members = Members::new(&env, count);
            // A queue that was used before has its memory.
            for link in &members.links {
                link.publish(envelope.clone()).expect("there is room");
            }
            timed(|| {
                for _ in 0..times {
                    for link in &members.links {
                        link.publish(envelope.clone()).expect("there is room");
                    }
                }
            })
        }));
        drop(runtime);
        records.push(timed(|| {
            for _ in 0..times {
                for sealer in &mut sealers {
                    out.clear();
                    frame::publish_into(&envelope, &mut scratch);
                    sealer.seal(RecordKind::Data, &scratch, &mut out).expect("a fresh key");
                    black_box(&out);
                }
            }
        }));
    }
    let ns = |times: Vec<Duration>, by: usize| fastest(times).as_nanos() as f64 / by as f64;
    Costs {
        seal: ns(seals, seals_each),
        hand_over: ns(hand_overs, times * count),
        record: ns(records, times * count),
    }
}

/// Returns the speed of `openssl` at AES-256-GCM with blocks of 16 KiB, in bytes per second.
fn openssl() -> Option<f64> {
    let seconds = OPENSSL_S.to_string();
    let asked = ["speed", "-seconds", &seconds, "-bytes", "16384", "-evp", "aes-256-gcm"];
    let said = Command::new("openssl").args(asked).output().ok()?;
    let text = String::from_utf8(said.stdout).ok()?;
    let line = text.lines().find(|line| line.to_ascii_lowercase().starts_with("aes-256-gcm"))?;
    let thousands: f64 = line.split_whitespace().last()?.strip_suffix('k')?.parse().ok()?;
    Some(thousands * 1000.0)
}

fn speed_of_sealing(fanout: &mut Fanout) -> f64 {
    const SIZE: usize = 16 * 1024;
    let text = vec![b'x'; SIZE];
    let rounds = (0..ROUNDS).map(|_| {
        timed(|| {
            for _ in 0..512 {
                black_box(fanout.seal(Topic::Board, &text).expect("it fits"));
            }
        })
    });
    512.0 * SIZE as f64 / fastest(rounds).as_secs_f64()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn verdict(holds: bool) -> &'static str {
    if holds { "holds" } else { "MISSED" }
}

fn main() {
    let mut fanout = fanout();
    println!("members   size     seal ns   hand over ns (of seal)   record ns (of seal)");
    for count in MEMBERS {
        for size in SIZES {
            let Costs { seal, hand_over, record } = costs(&mut fanout, count, size);
            println!(
                "{count:7} {size:6} {seal:11.0} {hand_over:14.0} ({:.3}) {record:14.0} ({:.2})",
                hand_over / seal,
                record / seal
            );
            if size == 1024 {
                let part = hand_over / seal;
                let is_held = verdict(part <= MEMBER_MAX);
                println!("          one more member: {part:.3} of sealing again, {is_held}");
            }
        }
    }
    let ours = speed_of_sealing(&mut fanout);
    let Some(theirs) = openssl() else {
        println!("sealing 16 KiB: {:.2} GB/s; openssl is not there", ours / 1e9);
        return;
    };
    let ours = (ours + speed_of_sealing(&mut fanout)) / 2.0;
    let part = ours / theirs;
    println!(
        "sealing 16 KiB: {:.2} GB/s, openssl {:.2} GB/s: {part:.2} of it, {}",
        ours / 1e9,
        theirs / 1e9,
        verdict(part >= SPEED_MIN)
    );
}
