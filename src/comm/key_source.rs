//! Source of a node's RSA pairs, and the file of its identity.
//!
//! 1. Keys are made off the async threads.
//! 2. An identity is on disk before it is used; a handshake pair is never written.
//! 3. A handshake pair serves for an hour at most, then it is erased: a thief of the identity
//!    cannot read earlier recorded traffic. A pair for a link's new handshake serves only that one.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    crypto::{
        keys::{Identity, KeyBounds, KeyError, KeyPair, WrapPair},
        secret::SecretBytes,
    },
    env::{BoxFuture, Cancelled, Env, Task},
    model::time::Mono,
};

/// File in the node's directory that holds its identity: PKCS#8 DER.
pub const IDENTITY_FILE: &str = "identity.key";

/// Lifetime of a handshake pair.
const HANDSHAKE_PAIR_LIFE: Duration = Duration::from_secs(3600);

/// Purpose of a pair. A source may keep a stock for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyKind {
    /// Node's identity.
    Identity,
    /// Wrapping key of a handshake.
    Handshake,
    /// Common key of a domain.
    Common,
}

/// Source of RSA pairs. Real nodes use [`GeneratedKeys`]; a simulation hands out pairs made
/// before.
pub trait KeySource: Send + Sync + 'static {
    /// Returns a pair that was never handed out before.
    fn generate<'a>(
        &'a self,
        env: &'a Env,
        kind: KeyKind,
        bits: usize,
    ) -> BoxFuture<'a, Result<KeyPair, KeyError>>;

    /// Returns the sizes that this source makes and that remote keys must have.
    fn bounds(&self) -> KeyBounds {
        KeyBounds::STANDARD
    }
}

/// Source that generates fresh pairs on [`Env::compute`].
#[derive(Clone, Copy, Debug, Default)]
pub struct GeneratedKeys;

impl KeySource for GeneratedKeys {
    fn generate<'a>(
        &'a self,
        env: &'a Env,
        _kind: KeyKind,
        bits: usize,
    ) -> BoxFuture<'a, Result<KeyPair, KeyError>> {
        let mut rng = env.rng("rsa-keys");
        Box::pin(async move {
            env.compute(move || KeyPair::generate(&mut rng, bits, KeyBounds::STANDARD))
                .await
                .map_err(|Cancelled| KeyError::Cancelled)?
        })
    }
}

/// Returns the node's identity: read from its directory, or made and written there at first
/// start.
///
/// # Errors
/// [`KeyError::Unusable`] when the file does not hold a key within the source's bounds. The file
/// is left as it is, because a node must not lose its name to a passing fault.
/// [`KeyError::NotWritten`] when a new identity could not be written; it was not used.
pub async fn load_or_make_identity(
    env: &Env,
    source: &dyn KeySource,
    bits: usize,
) -> Result<Identity, KeyError> {
    let (disk, bounds) = (env.disk(), source.bounds());
    let found = env
        .compute(move || match disk.read(IDENTITY_FILE) {
            Ok(None) => Ok(None),
            Ok(Some(der)) => KeyPair::from_pkcs8_der(&SecretBytes::new(der), bounds)
                .map(|pair| Some(Identity::new(pair)))
                .map_err(|error| unusable(error.to_string())),
            Err(error) => Err(unusable(error.to_string())),
        })
        .await
        .map_err(|Cancelled| KeyError::Cancelled)??;
    if let Some(identity) = found {
        return Ok(identity);
    }

    let identity = Identity::new(source.generate(env, KeyKind::Identity, bits).await?);
    let (disk, der) = (env.disk(), identity.to_pkcs8_der()?);
    env.compute(move || disk.write_atomic(IDENTITY_FILE, &der))
        .await
        .map_err(|Cancelled| KeyError::Cancelled)?
        .map_err(|error| KeyError::NotWritten {
            file: IDENTITY_FILE.to_owned(),
            why: error.to_string(),
        })?;
    Ok(identity)
}

fn unusable(why: String) -> KeyError {
    KeyError::Unusable { file: IDENTITY_FILE.to_owned(), why }
}

/// Handshake pair of a dialing node, replaced every hour.
pub struct HandshakeKeys {
    source: Arc<dyn KeySource>,
    bits: usize,
    current: Mutex<Option<(Arc<WrapPair>, Mono)>>,
    // Held while a pair is being made, so that only one is made.
    making: tokio::sync::Mutex<()>,
}

impl HandshakeKeys {
    /// Makes the holder without a pair: the first call of [`Self::pair`] makes one.
    #[must_use]
    pub fn new(source: Arc<dyn KeySource>, bits: usize) -> Arc<Self> {
        Arc::new(Self { source, bits, current: Mutex::new(None), making: Default::default() })
    }

    /// Makes a pair now and again every hour, so that no dial waits for one.
    pub fn keep_fresh(self: &Arc<Self>, env: &Env) -> Task {
        let (keys, of_node) = (Arc::clone(self), env.clone());
        env.spawn("handshake-keys", async move {
            loop {
                // A failure comes up again at the next dial, which reports it.
                let _ = keys.pair(&of_node).await;
                of_node.sleep(HANDSHAKE_PAIR_LIFE).await;
            }
        })
    }

    /// Returns the pair of this hour, made if there is none.
    ///
    /// # Errors
    /// Any [`KeyError`] of the source.
    pub async fn pair(&self, env: &Env) -> Result<Arc<WrapPair>, KeyError> {
        if let Some(pair) = self.fresh(env.now()) {
            return Ok(pair);
        }
        let _one_at_a_time = self.making.lock().await;
        if let Some(pair) = self.fresh(env.now()) {
            return Ok(pair);
        }
        let made = self.source.generate(env, KeyKind::Handshake, self.bits).await?;
        let pair = Arc::new(WrapPair::new(made));
        let kept = Some((Arc::clone(&pair), env.now()));
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = kept;
        Ok(pair)
    }

    /// Makes a pair for one new handshake of a link, which nothing else uses.
    ///
    /// # Errors
    /// Any [`KeyError`] of the source.
    pub async fn pair_of_its_own(&self, env: &Env) -> Result<WrapPair, KeyError> {
        let made = self.source.generate(env, KeyKind::Handshake, self.bits).await?;
        Ok(WrapPair::new(made))
    }

    /// Returns the sizes that remote keys must have.
    #[must_use]
    pub fn bounds(&self) -> KeyBounds {
        self.source.bounds()
    }

    fn fresh(&self, now: Mono) -> Option<Arc<WrapPair>> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let (pair, made) = current.as_ref()?;
        (now.since(*made) < HANDSHAKE_PAIR_LIFE).then(|| Arc::clone(pair))
    }
}

#[cfg(all(test, feature = "net"))]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::{env::real::RealWorld, testing::keys::TestKeys};

    fn env() -> Env {
        Env::new(RealWorld::temporary().expect("a directory of its own"))
    }

    #[tokio::test]
    async fn identity_is_made_once_and_read_back() {
        let (env, source) = (env(), TestKeys::from(20));
        let made = load_or_make_identity(&env, &*source, 1024).await.expect("made");
        let read = load_or_make_identity(&env, &*source, 1024).await.expect("read");
        assert_eq!(made.spki(), read.spki());
        assert_eq!(source.0.load(Ordering::Relaxed), 21);
        // A real node refuses a key this small.
        let refused = load_or_make_identity(&env, &GeneratedKeys, 3072).await.err();
        assert!(matches!(refused, Some(KeyError::Unusable { .. })), "{refused:?}");
    }

    #[tokio::test]
    async fn unusable_identity_is_left_alone_and_the_error_names_the_remedy() {
        let (env, source) = (env(), TestKeys::from(20));
        env.disk().write_atomic(IDENTITY_FILE, b"half a key").expect("written");
        let refused = load_or_make_identity(&env, &*source, 1024).await.err().expect("refused");
        insta::assert_snapshot!(refused, @"the key file identity.key cannot be used: not an RSA key with e = 65537 in plain DER; restore it from a backup, or remove it and join again as a new node");
        let left = env.disk().read(IDENTITY_FILE).expect("readable");
        assert_eq!(left.as_deref(), Some(&b"half a key"[..]));
    }

    #[tokio::test]
    async fn concurrent_dials_share_one_handshake_pair() {
        let (env, source) = (env(), TestKeys::from(30));
        let keys = HandshakeKeys::new(source.clone(), 1024);
        let (one, other) = tokio::join!(keys.pair(&env), keys.pair(&env));
        let (one, other) = (one.expect("made"), other.expect("shared"));
        assert!(Arc::ptr_eq(&one, &other));
        assert_eq!(source.0.load(Ordering::Relaxed), 31);
        let now = env.now();
        assert!(keys.fresh(now).is_some());
        assert!(keys.fresh(now + HANDSHAKE_PAIR_LIFE).is_none());
    }

    #[tokio::test]
    async fn generated_keys_have_the_requested_size_and_small_ones_are_refused() {
        let env = env();
        let made = GeneratedKeys.generate(&env, KeyKind::Handshake, 2048).await;
        assert!(made.expect("2048 bits").to_pkcs8_der().is_ok());
        let refused = GeneratedKeys.generate(&env, KeyKind::Handshake, 1024).await.err();
        assert_eq!(refused, Some(KeyError::Size { bits: 1024, min: 2048, max: 4096 }));
    }
}
