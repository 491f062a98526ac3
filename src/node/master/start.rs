//! Start of a master: its identity, its row in the store, its keys and its tables.

use std::{sync::Arc, time::Duration};

use super::{
    Driver, MasterParams, Me, NodeError, People, WaitsFor,
    admission::AdmissionGate,
    dial::{Dialer, Dials},
    input::Input,
    key_maker::KeyMaker,
    keys::CommonKeys,
    links::{self, Links},
    reads::PendingReads,
    store_poll::StorePoll,
    streams::OpenStreams,
    upkeep::keep_up,
    waiters::Waiters,
};
use crate::{
    comm::{
        connection_limit::{ConnectionLimit, NodePlaces},
        fanout::Fanout,
        handshake::{Acceptor, PENDING_MAX, PENDING_PER_HOST_MAX},
        key_source::{HandshakeKeys, KeyKind, load_or_make_identity},
    },
    crypto::{admission::Guard, handshake::AcceptorParams},
    env::{Env, Listener, TaskGuard},
    model::{
        event::Event,
        ids::{Domain, Incarnation},
        rows::{ClusterRow, Holder, MasterRow, StoreError},
        stream::MasterInfo,
    },
    node::{handle::DrainSignal, inbox::Inbox, refusals::Refusals},
    protocol::{board::Tails, dead_letters::DeadLetters, key_refresh::FIRST_EPOCH, master::Master},
    store::{Store, rollback},
};

/// Pause between two tries to reach a store that is away at start.
const START_RETRY: Duration = Duration::from_millis(500);

impl Driver {
    /// Registers a new life of this master, and accepts links from then on. The tasks that are
    /// returned live as long as the driver.
    pub(super) async fn start(
        env: Env,
        params: MasterParams,
        listener: Box<dyn Listener>,
        signal: DrainSignal,
        waits_for: &WaitsFor,
    ) -> Result<(Self, Inbox<Input>, Vec<TaskGuard>), NodeError> {
        let MasterParams { name, config, http_public, link_public, store, keys } = params;
        let (store, own_ends) = rollback::guarded(store);
        let identity =
            Arc::new(load_or_make_identity(&env, keys.as_ref(), config.identity_bits).await?);
        let handshake = HandshakeKeys::new(Arc::clone(&keys), config.key_bits);
        let common = keys.generate(&env, KeyKind::Common, config.key_bits).await?;
        let guard = Guard::random(&mut env.rng("master-guard"));
        let row = MasterRow {
            node: identity.node(),
            incarnation: Incarnation(0),
            beat: 0,
            http: http_public.clone(),
            link: link_public,
            spki: identity.spki().to_vec(),
            name: name.clone(),
            draining: false,
            guard: *guard.expose(),
        };
        let Registered { cluster: row, incarnation, masters } =
            register(&env, &store, row, waits_for).await?;
        let cluster = row.cluster;
        let holder = Holder { node: identity.node(), incarnation };
        let fingerprint = identity.fingerprint();
        let domain = Domain { master: holder.node, incarnation };
        env.event(&Event::Start { incarnation });

        let bits = config.key_bits;
        let maker = KeyMaker { source: keys, identity: Arc::clone(&identity), domain, bits };
        let keys = maker.draw(&env, FIRST_EPOCH, common).await?;
        env.event(&keys.held_event());
        env.event(&Event::Epoch { domain, epoch: FIRST_EPOCH });
        let fanout =
            Fanout::new(&env, holder.node, incarnation.0, Arc::clone(&keys), config.workers_max);

        let now = env.now();
        let (inputs, link_events, inbox) = Inbox::new();
        let gate = AdmissionGate::new(&env, store.clone(), domain, keys, &config);
        let params = AcceptorParams {
            identity: Arc::clone(&identity),
            name: name.clone(),
            cluster,
            bounds: handshake.bounds(),
            version_max: config.link_version_max,
        };
        let acceptor = Acceptor::new(params, config.handshake_timeout);
        let fresh = handshake.keep_fresh(&env).abort_on_drop();
        let info = MasterInfo { id: holder.node, name: name.clone(), http: http_public };
        let dialer = Dialer::new(Dials {
            identity,
            handshake,
            name,
            guard,
            cluster,
            registration: incarnation,
            directory_max: config.directory_max,
            timeout: config.handshake_timeout,
            version_max: config.link_version_max,
        });
        let refusals = Refusals::default();
        let accept = links::accept_all(
            env.clone(),
            listener,
            Arc::clone(&gate),
            acceptor,
            NodePlaces::new(
                ConnectionLimit::new(PENDING_MAX, PENDING_PER_HOST_MAX),
                ConnectionLimit::new(PENDING_MAX, PENDING_PER_HOST_MAX),
            )
            // Workers mostly run on the masters' hosts.
            .knowing(masters.iter().map(|master| master.link.as_str())),
            refusals.clone(),
            inputs.clone(),
        );
        let accept = env.spawn("accept", accept).abort_on_drop();
        let upkeep = env.spawn("upkeep", keep_up(env.clone(), store.clone())).abort_on_drop();
        let driver = Self {
            core: Master::new(now, holder, config.clone()),
            out: Vec::new(),
            inputs,
            links: Links::new(fanout, &config, link_events, refusals),
            gate,
            keys: CommonKeys::new(maker),
            dialer,
            waiters: Waiters::new(config.request_timeout),
            tails: Tails::new(row.epoch, config.tail_posts_max),
            streams: OpenStreams::default(),
            people: People::new(now, &config),
            reads: PendingReads::default(),
            poll: StorePoll::new(now, info.clone(), own_ends),
            letters: DeadLetters::default(),
            drain: None,
            served_at: now,
            signal,
            me: Me { info, holder, cluster, fingerprint },
            env,
            config,
            store,
        };
        Ok((driver, inbox, vec![fresh, accept, upkeep]))
    }
}

/// Answer of the store to a registration.
struct Registered {
    cluster: ClusterRow,
    incarnation: Incarnation,
    /// Masters that the store listed before.
    masters: Vec<MasterRow>,
}

/// Registers this life, waiting for a store that is away.
async fn register(
    env: &Env,
    store: &Store,
    row: MasterRow,
    waits_for: &WaitsFor,
) -> Result<Registered, NodeError> {
    let mut waited = false;
    loop {
        match register_once(store, &row).await {
            Ok(registered) => {
                if waited {
                    tracing::info!("the store is back");
                }
                return Ok(registered);
            }
            // A late request of an earlier life came between reading and registering.
            Err(StoreError::Stale) => env.sleep(START_RETRY).await,
            Err(why @ (StoreError::Away { .. } | StoreError::Busy)) => {
                waits_for.set(why.away_reason());
                if !waited {
                    tracing::warn!(%why, "waiting for the store, not ready");
                    waited = true;
                }
                env.sleep(START_RETRY).await;
            }
            Err(StoreError::InUse { at }) => return Err(NodeError::InUse { at }),
            Err(error) => return Err(NodeError::Store(error)),
        }
    }
}

async fn register_once(store: &Store, row: &MasterRow) -> Result<Registered, StoreError> {
    let cluster = store.cluster().await?;
    let masters = store.masters().await?;
    let seen = masters.iter().find(|other| other.node == row.node);
    let incarnation = seen.map_or(Incarnation(0), |seen| seen.incarnation);
    let incarnation = store.register_master(MasterRow { incarnation, ..row.clone() }).await?;
    Ok(Registered { cluster, incarnation, masters })
}
