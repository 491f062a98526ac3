//! Worker: registers with a master, writes the batches that it is given permission for, and keeps
//! a copy of all boards and sessions, from which it answers reads without a permission.
//!
//! ```text
//!   master ◄─ link ─► driver ◄──► protocol::worker (decides)
//!               effects │ ├─► assign ──► store
//!                       │ ├─► database ◄── repair ◄── master, store
//!                       │ └─► dial
//!   store ── poll, every second ──┘
//! ```
//!
//! 1. A worker's identity, its guard and its registration number are on disk before they are sent.
//! 2. Work is refused under any other registration than the one of this link.
//! 3. A batch is answered within `store_timeout`, whatever the store does.
//! 4. A worker registers before its node database is open.
//! 5. A login for the store's server comes with a Welcome. It is asked for while the worker has none that
//!    the server takes.

mod assign;
mod database;
mod dial;
mod driver;
mod effects;
mod ending;
mod envelopes;
mod error;
mod held;
mod input;
mod key_messages;
mod keys;
mod leaving;
mod linked_store;
mod login;
mod repair;
mod session_repair;
mod store_poll;
#[cfg(all(test, feature = "net"))]
mod tests;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
};

use rand_chacha::rand_core::Rng;
use tokio::sync::Notify;

use self::{
    database::Database,
    dial::Dialer,
    driver::{Driver, Parts},
    input::Input,
};
pub use self::{
    error::WorkerError,
    login::{LOGIN_FILE, load_login},
};
use crate::{
    comm::{
        handshake::load_guard,
        key_source::{HandshakeKeys, KeySource, load_or_make_identity},
    },
    config::Config,
    crypto::{admission::JoinSecret, keys::fingerprint},
    env::Env,
    model::{
        ids::{Fingerprint, Role},
        message::Member,
    },
    node::inbox::Inbox,
    protocol::worker::{Start, Worker},
    replica::ReplicaLimits,
    store::{LoginSlot, Store, rollback},
};

/// Parameters of a worker.
#[derive(Clone)]
pub struct WorkerParams {
    /// Name for people.
    pub name: String,
    /// Limits and time-outs.
    pub config: Config,
    /// Addresses of masters' links, `host:port`, to begin with.
    pub masters: Vec<String>,
    /// Fingerprints of masters that the worker trusts from the start.
    pub pins: Vec<Fingerprint>,
    /// Join token, `CHAT1...`; not needed by a worker that was enrolled before.
    pub token: Option<String>,
    /// Shared store.
    pub store: Store,
    /// Place of the store's login, if masters give it.
    pub login: Option<LoginSlot>,
    /// Source of RSA keys.
    pub keys: Arc<dyn KeySource>,
}

/// Runs a worker until `stop`, or until an operator has its master end it, then says goodbye; or until it
/// is dropped.
///
/// # Errors
/// [`WorkerError`]: the worker did not start.
pub async fn run(
    env: Env,
    params: WorkerParams,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), WorkerError> {
    let WorkerParams { name, config, masters, mut pins, token, store, login, keys } = params;
    config.validate()?;
    let (store, own_ends) = rollback::guarded(store);
    let token = token.as_deref().map(JoinSecret::parse).transpose()?.map(Arc::new);
    let identity = Arc::new(load_or_make_identity(&env, &*keys, config.identity_bits).await?);
    may_join(&env, token.is_some()).await?;
    let registration = dial::load_registration(&env).await?;
    let posts_max = config.replica_posts_max as u64;
    let limits = ReplicaLimits { posts_max, ..ReplicaLimits::default() };
    let (database, members, writing) = Database::start(&env, limits);
    let _writing = writing.abort_on_drop();
    let (mut kept, mut later) = (Vec::new(), None);
    if pins.is_empty() {
        // Only an earlier life's directory can say whom to trust.
        kept = members.await.unwrap_or_default();
        pins.extend(master_pins(&kept));
    } else {
        later = Some(members);
    }
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
    let (inputs, links, inbox) = Inbox::new();
    let poll_now = Arc::new(Notify::new());
    let polled = store_poll::poll(
        env.clone(),
        store.clone(),
        config.store_poll_interval,
        config.store_timeout,
        Arc::clone(&poll_now),
        (inputs.clone(), database.clone()),
    );
    let told = Arc::new(Notify::new());
    let (waiting, ends_told, patience) = (env.clone(), Arc::clone(&told), config.store_timeout);
    let polling = async move {
        // What this node has tells an older copy of the store. A disk that stands holds nothing up.
        let _ = waiting.timeout(patience, ends_told.notified()).await;
        polled.await;
    };
    let _polling = env.spawn("store-poll", polling).abort_on_drop();
    let dialer = Dialer {
        identity,
        handshake,
        name,
        token,
        login,
        config: config.clone(),
        show_token: AtomicBool::new(false),
        numbers_kept: AtomicU64::new(0),
    };
    let (to_driver, kept_database, ends) = (inputs.clone(), database.clone(), own_ends.clone());
    let bring = async move {
        let members = match later {
            Some(members) => members.await.ok(),
            None => None,
        };
        kept_database.tell_ends(&ends).await;
        told.notify_one();
        if let Some(members) = members {
            // The driver may have ended.
            let _ = to_driver.send(Input::Kept(members)).await;
        }
    };
    let _bringing = env.spawn("kept-members", bring).abort_on_drop();
    let driver = Driver::new(Parts {
        node: start.node,
        worker: Worker::new(env.now(), &config, start),
        env,
        config,
        store,
        own_ends,
        database,
        dialer: Arc::new(dialer),
        pins,
        inputs,
        links,
        poll_now,
    });
    driver.run(inbox, stop).await;
    Ok(())
}

/// Checks that the worker has a way to be taken in: a guard of an earlier life, or a join token.
///
/// # Errors
/// [`WorkerError::NotEnrolled`], or [`WorkerError::Key`] for an unreadable guard: it would fail
/// every attempt, whatever the token.
pub async fn may_join(env: &Env, has_token: bool) -> Result<(), WorkerError> {
    let guard = load_guard(env).await?;
    if has_token || guard.is_some() { Ok(()) } else { Err(WorkerError::NotEnrolled) }
}

/// Returns the fingerprints of the masters among members.
fn master_pins(members: &[Member]) -> impl Iterator<Item = Fingerprint> {
    let masters = members.iter().filter(|member| member.fact.role == Role::Master);
    masters.map(|member| fingerprint(&member.spki))
}
