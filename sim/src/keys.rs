//! Keys made before: a simulated node takes its RSA pairs from a pool, so that a run spends its
//! time on the protocol and always meets the same keys.
//!
//! The pairs are 1024 bits long and public, in the project's tree: they guard nothing.
//!
//! 1. A node's identity follows from its number and from how often its disk was wiped.
//! 2. No pair is handed out twice in a run, as long as the pool lasts; identities never. Pairs for
//!    handshakes may repeat once a quarter is left: the rest is for common keys, whose epochs are
//!    told apart by them.
//! 3. To be handed a pair takes the virtual time in which a real node makes one of 2048 bits.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use chatchat::{
    comm::key_source::{KeyKind, KeySource},
    crypto::keys::{Identity, KeyBounds, KeyError, KeyPair},
    env::{BoxFuture, Env},
    model::ids::{Fingerprint, NodeId},
};

use dst_world::{Seed, take_longer};
use rand_core::Rng as _;

/// `examples/make_keys.rs` writes it: for each pair its length in two bytes, then PKCS#8 DER.
const POOL: &[u8] = include_bytes!("../keys/pool.der");
#[expect(clippy::disallowed_methods, reason = "these keys protect nothing")]
const BOUNDS: KeyBounds = KeyBounds::weak_for_simulation();

/// Least time that a pair takes to make, µs.
const MAKING_MIN_US: u64 = 20_000;
/// Longest time that a pair takes to make, µs.
const MAKING_MAX_US: u64 = 200_000;

fn pool() -> Vec<&'static [u8]> {
    let (mut pairs, mut rest) = (Vec::new(), POOL);
    while let Some((len, after)) = rest.split_first_chunk::<2>() {
        let (pair, after) = after.split_at(usize::from(u16::from_be_bytes(*len)));
        pairs.push(pair);
        rest = after;
    }
    pairs
}

/// Number of bytes of a private exponent that nothing but the exponent shows.
pub(crate) const WINDOW_LEN: usize = 16;

/// Returns bytes out of the middle of a pair's private exponent.
fn window(pair: &[u8]) -> &[u8] {
    let info = pkcs8::PrivateKeyInfoRef::try_from(pair).expect("the pool is whole");
    let key = pkcs1::RsaPrivateKeyRef::try_from(info.private_key.as_bytes());
    let exponent = key.expect("the pool is whole").private_exponent.as_bytes();
    let at = (exponent.len() - WINDOW_LEN) / 2;
    &exponent[at..at + WINDOW_LEN]
}

/// Returns for each pair of the pool some bytes that only its private half has.
pub(crate) fn private_windows() -> &'static [&'static [u8]] {
    static WINDOWS: OnceLock<Vec<&[u8]>> = OnceLock::new();
    WINDOWS.get_or_init(|| pool().into_iter().map(window).collect())
}

/// Key pool of one run.
#[derive(Clone)]
pub struct KeyPool(Arc<Pool>);

struct Pool {
    pairs: Vec<&'static [u8]>,
    /// Identity of each pair, once it was asked for.
    identities: Vec<OnceLock<(NodeId, Fingerprint)>>,
    /// Number of nodes; the first pairs are their first identities.
    nodes: usize,
    /// Number of pairs at the end that are kept for identities after a wipe.
    wipes: usize,
    seed: Seed,
    stock: Mutex<Stock>,
}

struct Stock {
    taken: Vec<bool>,
    /// Pair that is each node's identity, by the node's number.
    identities: Vec<usize>,
    /// Number of identities that were made after a wipe.
    renewed: usize,
}

impl KeyPool {
    /// A pool for so many nodes, whose disks are wiped at most so many times in all.
    ///
    /// # Panics
    /// When there are too few pairs.
    #[must_use]
    pub fn new(seed: Seed, nodes: usize, wipes: usize) -> Self {
        let pairs = pool();
        let count = pairs.len();
        assert!(nodes + wipes < count, "{nodes} nodes and {wipes} wipes, but {count} pairs");
        let taken = vec![false; count];
        let known = vec![OnceLock::new(); count];
        let stock = Stock { taken, identities: (0..nodes).collect(), renewed: 0 };
        let stock = Mutex::new(stock);
        Self(Arc::new(Pool { pairs, identities: known, nodes, wipes, seed, stock }))
    }

    /// Returns the key source of the node with this number.
    #[must_use]
    pub fn source(&self, node: usize) -> Arc<dyn KeySource> {
        Arc::new(NodeKeys { pool: Arc::clone(&self.0), node, asked: Mutex::new(0) })
    }

    /// The identity of the node of this number: its id and its key's fingerprint.
    ///
    /// # Panics
    /// When the committed pool is damaged.
    #[must_use]
    pub fn identity(&self, node: usize) -> (NodeId, Fingerprint) {
        let nth = self.0.stock().identities[node];
        *self.0.identities[nth].get_or_init(|| {
            let pair = KeyPair::from_pkcs8_der(self.0.pairs[nth], BOUNDS);
            let identity = Identity::new(pair.expect("the pool is whole"));
            (identity.node(), identity.fingerprint())
        })
    }

    /// Decides the identity that a node whose disk was wiped will make at its next start.
    ///
    /// # Panics
    /// When it is called more often than was said in [`Self::new`].
    pub fn renew_identity(&self, node: usize) {
        let mut stock = self.0.stock();
        assert!(stock.renewed < self.0.wipes, "the pool was made for fewer wipes");
        stock.renewed += 1;
        stock.identities[node] = self.0.pairs.len() - stock.renewed;
    }
}

impl Pool {
    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Draws the time that a pair takes to make: the search for two primes is luck, and is short more
/// often than long.
fn time_of_making(env: &Env) -> Duration {
    let mut rng = env.rng("key-time");
    let mut draw = || MAKING_MIN_US + rng.next_u64() % (MAKING_MAX_US - MAKING_MIN_US + 1);
    Duration::from_micros(draw().min(draw()))
}

struct NodeKeys {
    pool: Arc<Pool>,
    node: usize,
    asked: Mutex<u64>,
}

impl NodeKeys {
    fn take(&self, env: &Env, kind: KeyKind) -> &'static [u8] {
        if kind == KeyKind::Identity {
            return self.pool.pairs[self.pool.stock().identities[self.node]];
        }
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        *asked += 1;
        // Each node, and each of its lives, begins to look elsewhere.
        let label = format!("keys/{}/{kind:?}/{asked}", self.node);
        let mut start = self.pool.seed.stream(&label).word();
        start ^= env.rng("keys").next_u64();
        let first = self.pool.nodes;
        let count = self.pool.pairs.len() - first - self.pool.wipes;
        let start = usize::try_from(start % count as u64).expect("below a usize");
        let mut stock = self.pool.stock();
        if kind == KeyKind::Handshake {
            let given = stock.taken.iter().filter(|taken| **taken).count();
            if given >= count - count / 4 {
                return self.pool.pairs[first + start];
            }
        }
        let mut from_start = (0..count).map(|by| first + (start + by) % count);
        let nth = from_start.find(|nth| !stock.taken[*nth]).unwrap_or(first + start);
        stock.taken[nth] = true;
        self.pool.pairs[nth]
    }
}

impl KeySource for NodeKeys {
    fn generate<'a>(
        &'a self,
        env: &'a Env,
        kind: KeyKind,
        _bits: usize,
    ) -> BoxFuture<'a, Result<KeyPair, KeyError>> {
        let (der, making) = (self.take(env, kind), time_of_making(env));
        let job = move || {
            take_longer(making);
            KeyPair::from_pkcs8_der(der, BOUNDS)
        };
        Box::pin(async move { env.compute(job).await.map_err(|_| KeyError::Cancelled)? })
    }

    fn bounds(&self) -> KeyBounds {
        BOUNDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dst_world::{Setup, simulate};

    const PAIRS: usize = 448;

    #[test]
    fn pool_is_whole_and_all_pairs_differ() {
        let mut nodes: Vec<_> = pool()
            .iter()
            .map(|der| KeyPair::from_pkcs8_der(der, BOUNDS))
            .map(|pair| Identity::new(pair.expect("a pair")).node())
            .collect();
        assert_eq!(nodes.len(), PAIRS);
        nodes.sort_unstable();
        nodes.dedup();
        assert_eq!(nodes.len(), PAIRS, "all differ");
    }

    #[test]
    fn private_window_is_in_the_pair_and_not_in_its_public_half() {
        let holds = |bytes: &[u8], window: &[u8]| bytes.windows(WINDOW_LEN).any(|it| it == window);
        assert_eq!(private_windows().len(), PAIRS);
        for (der, window) in pool().into_iter().zip(private_windows()) {
            let identity = Identity::new(KeyPair::from_pkcs8_der(der, BOUNDS).expect("a pair"));
            assert!(holds(der, window) && !holds(identity.spki(), window));
        }
    }

    #[test]
    fn wiped_node_gets_an_identity_that_no_node_ever_had() {
        let keys = KeyPool::new(Seed(1), 4, 2);
        let identities = || [0, 1, 2, 3].map(|node| keys.identity(node).0);
        let mut seen = identities().to_vec();
        for _ in 0..2 {
            let before = identities();
            keys.renew_identity(2);
            let after = identities();
            assert_eq!([after[0], after[1], after[3]], [before[0], before[1], before[3]]);
            assert!(!seen.contains(&after[2]));
            seen.push(after[2]);
        }
    }

    #[test]
    fn pair_takes_the_time_that_making_one_takes() {
        let took = simulate(Setup::new(1), async |world| {
            let host = world.add_host("node");
            let source = KeyPool::new(Seed(1), 4, 0).source(0);
            world
                .run(host, |env| async move {
                    let mut took = Vec::new();
                    for kind in [KeyKind::Identity, KeyKind::Handshake, KeyKind::Common].repeat(10)
                    {
                        let start = env.now();
                        source.generate(&env, kind, 2048).await.expect("from the pool");
                        took.push(env.now().since(start).as_millis());
                    }
                    took
                })
                .await
        });
        // A job takes up to 8 ms besides.
        assert!(took.iter().all(|ms| (20..210).contains(ms)), "{took:?}");
        let (least, most) = (took.iter().min(), took.iter().max());
        assert!(least.zip(most).is_some_and(|(least, most)| least + 50 < *most), "{took:?}");
    }

    #[test]
    fn node_keeps_its_identity_and_gets_no_pair_twice() {
        let seen = simulate(Setup::new(1), async |world| {
            let host = world.add_host("node");
            let keys = KeyPool::new(Seed(1), 4, 0);
            let mut seen = Vec::new();
            for node in [2, 2, 3] {
                let source = keys.source(node);
                let mut pairs = world
                    .run(host, |env| async move {
                        let mut pairs = Vec::new();
                        for kind in [KeyKind::Identity, KeyKind::Common, KeyKind::Common] {
                            let pair =
                                source.generate(&env, kind, 3072).await.expect("from the pool");
                            pairs.push(Identity::new(pair).node());
                        }
                        pairs
                    })
                    .await;
                assert_eq!(pairs.remove(0), keys.identity(node).0);
                seen.extend(pairs);
            }
            seen
        });
        let mut unique = seen.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!((seen.len(), unique.len()), (6, 6));
    }
}
