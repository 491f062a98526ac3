//! Small keys for tests. The same number always gives the same pair, generated once per process.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
};

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use crate::{
    comm::key_source::{KeyKind, KeySource},
    crypto::{
        epoch::EpochKeys,
        keys::{Identity, KeyBounds, KeyError, KeyPair},
        record::{Opener, Sealer, Side, link},
        secret::Secret,
    },
    env::{BoxFuture, Cancelled, Env},
    model::ids::{Domain, Incarnation, KeyEpoch},
};

#[expect(clippy::disallowed_methods, reason = "these keys protect nothing")]
pub(crate) const WEAK: KeyBounds = KeyBounds::weak_for_simulation();

pub(crate) fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

pub(crate) fn pair(number: u8) -> KeyPair {
    static MADE: Mutex<BTreeMap<u8, Vec<u8>>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().expect("no test panics inside");
    let der = made.entry(number).or_insert_with(|| {
        let pair = KeyPair::generate(&mut rng(number), 1024, WEAK).expect("1024 bits");
        pair.to_pkcs8_der().expect("it encodes").to_vec()
    });
    KeyPair::from_pkcs8_der(der, WEAK).expect("it was just encoded")
}

pub(crate) fn identity(number: u8) -> Identity {
    Identity::new(pair(number))
}

pub(crate) fn domain_of(master: u8) -> Domain {
    Domain { master: identity(master).node(), incarnation: Incarnation(1) }
}

/// Makes the keys of one epoch of a numbered master.
pub(crate) fn epoch_of(master: u8, number: u64) -> EpochKeys {
    let seed = u8::try_from(number).expect("a small number");
    EpochKeys::draw(
        &mut rng(seed),
        &identity(master),
        domain_of(master),
        KeyEpoch(number),
        pair(100 + seed),
        WEAK,
    )
    .expect("its own domain")
}

/// Source of small test pairs, numbered from a start.
pub(crate) struct TestKeys(pub(crate) AtomicU8);

impl TestKeys {
    pub(crate) fn from(number: u8) -> Arc<Self> {
        Arc::new(Self(AtomicU8::new(number)))
    }
}

impl KeySource for TestKeys {
    fn generate<'a>(
        &'a self,
        env: &'a Env,
        _kind: KeyKind,
        _bits: usize,
    ) -> BoxFuture<'a, Result<KeyPair, KeyError>> {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            env.compute(move || pair(number)).await.map_err(|Cancelled| KeyError::Cancelled)
        })
    }

    fn bounds(&self) -> KeyBounds {
        WEAK
    }
}

/// Returns two connected ends, the dialer's first, for tests of the layers above.
pub(crate) fn record_pair() -> ((Sealer, Opener), (Sealer, Opener)) {
    let prk = Secret::from_slice(&[42; 32]).expect("32 bytes");
    (link(&prk, Side::Dialer), link(&prk, Side::Acceptor))
}
