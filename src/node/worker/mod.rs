//! The worker: finds a master, writes what it is given permission to write, and keeps a copy
//! of all boards and sessions that it answers from without anyone's permission.
//!
//! ```text
//!   master ◄─ link ─► driver ◄──► protocol::worker (decides)
//!                       │ ├─► assign ──► store
//!                       │ ├─► database ◄── repair ◄── master, store
//!                       │ └─► dial
//!   store ── look, every second ──┘
//! ```
//!
//! 1. Its identity, its guard and the number that it registers under are on disk before they
//!    are said.
//! 2. Work is refused under any other number than the one of this link.
//! 3. It answers a batch within `store_timeout`, whatever the store does.

mod assign;
mod database;
mod dial;
mod driver;
mod repair;
mod store_watch;
#[cfg(all(test, feature = "net"))]
mod tests;

use std::{
    future::Future,
    sync::{Arc, atomic::AtomicBool},
};

use rand_chacha::rand_core::Rng;
use thiserror::Error;
use tokio::sync::{Notify, mpsc};

use self::{
    database::Database,
    dial::Dialler,
    driver::{Driver, Parts},
};
use crate::{
    comm::{
        handshake::load_guard,
        key_source::{HandshakeKeys, KeySource, load_or_make_identity},
    },
    config::{Config, ConfigError},
    crypto::{
        admission::JoinSecret,
        keys::{self, KeyError},
    },
    env::Env,
    model::ids::{Fingerprint, Malformed, Role},
    protocol::worker::{Start, Worker},
    replica::ReplicaError,
    store::Store,
};

/// Inputs that wait for the driver.
const INPUTS_MAX: usize = 1024;
/// Events of links that wait for the driver.
const LINK_EVENTS_MAX: usize = 1024;

/// What a worker is started with.
#[derive(Clone)]
pub struct WorkerParams {
    /// Its name for people.
    pub name: String,
    /// How it waits, retries and bounds.
    pub config: Config,
    /// `host:port` of masters' links to begin with.
    pub masters: Vec<String>,
    /// Keys of masters that it trusts from the start.
    pub pins: Vec<Fingerprint>,
    /// A join token, `CHAT1...`; not needed by a worker that was enrolled before.
    pub token: Option<String>,
    /// The shared store.
    pub store: Store,
    /// Where its keys come from.
    pub keys: Arc<dyn KeySource>,
}

/// Why a worker did not start. Nothing runs; what was on disk is as it was.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// Two settings cannot hold together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The join token does not read as one.
    #[error(transparent)]
    Token(#[from] Malformed),
    /// The identity or the guard cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The node database cannot be opened or made.
    #[error(transparent)]
    Database(#[from] ReplicaError),
    /// A file of its own cannot be used.
    #[error("the file {file}: {why}")]
    Disk {
        /// Which.
        file: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// It was never enrolled and has no token.
    #[error("this worker was never enrolled: start it with a join token")]
    NotEnrolled,
    /// It knows no master's key, so it could trust none.
    #[error("no master's fingerprint is pinned: give at least one")]
    NoPins,
}

/// Runs a worker until `stop`, then says goodbye; or until it is dropped.
///
/// # Errors
/// [`WorkerError`]: it did not start.
pub async fn run(
    env: Env,
    params: WorkerParams,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), WorkerError> {
    let WorkerParams { name, config, masters, mut pins, token, store, keys } = params;
    config.validate()?;
    let token = token.as_deref().map(JoinSecret::parse).transpose()?.map(Arc::new);
    let identity = Arc::new(load_or_make_identity(&env, &*keys, config.identity_bits).await?);
    // One that cannot be read would fail every dial, whatever the token.
    let guard = load_guard(&env).await?;
    if token.is_none() && guard.is_none() {
        return Err(WorkerError::NotEnrolled);
    }
    let registration = dial::load_registration(&env).await?;
    let (database, writing) = Database::open(&env).await?;
    let _writing = writing.abort_on_drop();
    let kept = database.read(|replica| replica.members()).await.unwrap_or_default();
    let masters_kept = kept.iter().filter(|member| member.fact.role == Role::Master);
    pins.extend(masters_kept.map(|member| keys::fingerprint(&member.spki)));
    if pins.is_empty() {
        return Err(WorkerError::NoPins);
    }
    let handshake = HandshakeKeys::new(keys, config.key_bits);
    let _fresh = handshake.keep_fresh(&env).abort_on_drop();

    let start = Start {
        node: identity.node(),
        name: name.clone(),
        spki: identity.spki().to_vec(),
        registration,
        masters,
        kept,
        draw: env.rng("worker-search").next_u64(),
    };
    let (inputs, queue) = mpsc::channel(INPUTS_MAX);
    let (links, events) = mpsc::channel(LINK_EVENTS_MAX);
    let look_now = Arc::new(Notify::new());
    let looking = store_watch::watch(
        env.clone(),
        store.clone(),
        config.store_poll_interval,
        config.store_timeout,
        Arc::clone(&look_now),
        inputs.clone(),
    );
    let _looking = env.spawn("store-watch", looking).abort_on_drop();
    let show_token = AtomicBool::new(false);
    let dialler = Dialler { identity, handshake, name, token, config: config.clone(), show_token };
    let driver = Driver::new(Parts {
        node: start.node,
        worker: Worker::new(env.now(), &config, start),
        env,
        config,
        store,
        database,
        dialler: Arc::new(dialler),
        pins,
        inputs,
        links,
        look_now,
    });
    driver.run(queue, events, stop).await;
    Ok(())
}
