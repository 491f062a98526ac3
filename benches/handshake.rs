//! Bench of a join: what a master and a node compute in one handshake, beside the RSA operations in
//! it alone.
//!
//! Both ends run in this thread without a network. Joins and bare operations alternate.

#![expect(clippy::disallowed_methods, reason = "a bench measures the wall clock")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chatchat::{
    crypto::{
        admission::JoinSecret,
        epoch::{EpochKeys, KeyGrant},
        handshake::{
            AcceptorParams, AdmissionGrant, Credential, DialerParams, Ready, UncheckedHello,
            VERSIONS,
        },
        keys::{Identity, IdentityKey, KeyBounds, KeyPair, WrapKey, WrapPair},
        record::{HEADER_LEN, body_len},
        secret::Secret,
    },
    model::{
        ids::{Domain, Incarnation, KeyEpoch, NodeId, Registration, Role},
        message::{Fact, Member, MemberState, Welcome},
    },
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

const BOUNDS: KeyBounds = KeyBounds::STANDARD;
/// Sizes of a node's identity, in bits; the default comes last.
const IDENTITIES: [usize; 2] = [2048, 3072];
/// Size of the pairs that carry secrets, in bits.
const WRAP_BITS: usize = 2048;
/// Nodes in the directory of a Welcome.
const DIRECTORY: usize = 10;
/// Joins of which the fastest counts: other load only makes them slower.
const ROUNDS: usize = 60;
const LABEL: &str = "chatchat/bench/operation";

/// Mark: the most that a master's part may cost, as a multiple of its RSA operations.
const OVERHEAD_MAX: f64 = 1.3;

struct Site {
    rng: ChaCha20Rng,
    acceptor: Arc<AcceptorParams>,
    worker: Arc<Identity>,
    handshake: Arc<WrapPair>,
    token: Arc<JoinSecret>,
    grant: AdmissionGrant,
    keys: Arc<EpochKeys>,
}

/// Times of one join.
#[derive(Clone, Copy, Default)]
struct Join {
    master: Duration,
    node: Duration,
}

impl Site {
    fn new(identity_bits: usize) -> Self {
        let mut rng = ChaCha20Rng::from_seed([7; 32]);
        let mut pair = |bits| KeyPair::generate(&mut rng, bits, BOUNDS).expect("a pair");
        let master = Arc::new(Identity::new(pair(identity_bits)));
        let (worker, handshake, common) = (pair(identity_bits), pair(WRAP_BITS), pair(WRAP_BITS));
        let domain = Domain { master: master.node(), incarnation: Incarnation(1) };
        let keys = EpochKeys::draw(&mut rng, &master, domain, KeyEpoch(1), common, BOUNDS);
        let keys = Arc::new(keys.expect("its own domain"));
        let token = Arc::new(JoinSecret::random(&mut rng, &master.fingerprint()));
        let welcome = Welcome { domain, directory: (0..DIRECTORY).map(member).collect() };
        let acceptor = AcceptorParams {
            identity: master,
            name: "m0".to_owned(),
            cluster: [5; 16],
            bounds: BOUNDS,
            version_max: VERSIONS.1,
        };
        let guard = Some(token.guard());
        Self {
            rng,
            acceptor: Arc::new(acceptor),
            worker: Arc::new(Identity::new(worker)),
            handshake: Arc::new(WrapPair::new(handshake)),
            token,
            grant: AdmissionGrant { welcome, guard, keys: Some(Arc::clone(&keys)), login: None },
            keys,
        }
    }

    fn dialer(&self) -> DialerParams {
        DialerParams {
            identity: Arc::clone(&self.worker),
            handshake: Arc::clone(&self.handshake),
            role: Role::Worker,
            name: "w0".to_owned(),
            credential: Credential::Token(Arc::clone(&self.token)),
            pins: vec![self.acceptor.identity.fingerprint()],
            cluster: None,
            last_epoch: None,
            wants_login: false,
            bounds: BOUNDS,
            directory_max: 100,
            version_max: VERSIONS.1,
        }
    }

    fn join(&mut self) -> Join {
        let mut times = Join::default();
        let (await_reply, hello) =
            timed(&mut times.node, || self.dialer().hello(&mut self.rng)).expect("in order");
        let (await_auth, reply) = timed(&mut times.master, || {
            let checked = UncheckedHello::read(hello)?.check(&self.token.guard())?;
            checked.reply(&self.acceptor, &mut self.rng)
        })
        .expect("in order");
        let (mut await_welcome, auth) =
            timed(&mut times.node, || await_reply.on_reply(&reply, &mut self.rng))
                .expect("in order");
        let (await_ready, welcome) = timed(&mut times.master, || {
            let (header, body) = split(&auth);
            let (_, mut await_ready) = await_auth.open(header, body)?.verify()?;
            await_ready.welcome(&self.grant).map(|welcome| (await_ready, welcome))
        })
        .expect("in order");
        let ready = timed(&mut times.node, || {
            let mut rest = &welcome[..];
            while !rest.is_empty() {
                let (header, body) = split(rest);
                rest = &rest[HEADER_LEN + body.len()..];
                await_welcome.on_record(header, body)?;
            }
            let ready = Ready { epoch: Some(KeyEpoch(1)), registration: Registration(7) };
            Ok::<_, chatchat::crypto::handshake::HandshakeFault>(
                await_welcome.finish(&mut self.rng)?.ready(ready)?.0,
            )
        })
        .expect("in order");
        timed(&mut times.master, || {
            let (header, body) = split(&ready);
            await_ready.on_ready(header, body)
        })
        .expect("in order");
        times
    }

    /// Does the RSA operations of a join and nothing else.
    fn operations(&mut self) -> Join {
        let (rng, mut times) = (&mut self.rng, Join::default());
        let master = &self.acceptor.identity;
        let wrap = WrapKey::from_spki(self.handshake.spki(), BOUNDS).expect("a key");
        let of_master = IdentityKey::from_spki(master.spki(), BOUNDS).expect("a key");
        let of_worker = IdentityKey::from_spki(self.worker.spki(), BOUNDS).expect("a key");
        let secret = Secret::random(rng);
        let (wrapped, by_master) = timed(&mut times.master, || {
            let wrapped = wrap.wrap(rng, LABEL, &[], &secret).expect("it wraps");
            (wrapped, master.sign(rng, LABEL, &[]).expect("it signs"))
        });
        let by_worker = timed(&mut times.node, || {
            let verified = of_master.verify(LABEL, &[], &by_master).expect("it verifies");
            self.handshake.unwrap(verified, rng, LABEL, &[], &wrapped).expect("it opens");
            self.worker.sign(rng, LABEL, &[]).expect("it signs")
        });
        timed(&mut times.master, || {
            of_worker.verify(LABEL, &[], &by_worker).expect("it verifies");
        });
        // The domain's keys: one more signature to verify, and one more secret to unwrap.
        let KeyGrant { pkcs8, announcement } = self.keys.grant().expect("it encodes");
        let grant = KeyGrant::new(pkcs8.to_vec(), announcement);
        timed(&mut times.node, || {
            EpochKeys::accept(rng, &of_master, self.keys.domain(), &grant, BOUNDS)
                .expect("its master's")
        });
        times
    }
}

fn member(number: usize) -> Member {
    let node = NodeId([u8::try_from(number).unwrap_or(u8::MAX); 16]);
    let (role, state) = (Role::Worker, MemberState::In);
    Member {
        fact: Fact { node, role, registration: Registration(1), state, master: node },
        name: format!("w{number}"),
        link: None,
        http: None,
        spki: vec![7; 422],
    }
}

fn split(record: &[u8]) -> ([u8; HEADER_LEN], Vec<u8>) {
    let (header, rest) = record.split_first_chunk().expect("a header");
    let len = body_len(*header).expect("it is short");
    (*header, rest[..len].to_vec())
}

fn timed<T>(into: &mut Duration, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    *into += begun.elapsed();
    done
}

fn main() {
    for bits in IDENTITIES {
        let mut site = Site::new(bits);
        let (mut joins, mut operations) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            joins.push(site.join());
            operations.push(site.operations());
        }
        println!("identities of {bits} bits, other pairs of {WRAP_BITS}");
        for (whose, part) in [
            ("master", (|join: &Join| join.master) as fn(&Join) -> Duration),
            ("node", |join: &Join| join.node),
        ] {
            let each = |times: &[Join]| {
                times.iter().map(part).min().expect("there are rounds").as_secs_f64()
            };
            let (join, bare) = (each(&joins), each(&operations));
            let ratio = join / bare;
            let is_held = if ratio <= OVERHEAD_MAX { "holds" } else { "MISSED" };
            println!(
                "{whose:7} {:7.0} joins per second and core, {:6.2} ms each; RSA alone {:6.2} ms: \
                 {ratio:.2} times that, {is_held}",
                1.0 / join,
                join * 1e3,
                bare * 1e3
            );
        }
    }
}
