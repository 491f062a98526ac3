//! A running master: one task owns the tables, the streams and the links.
//!
//! ```text
//!   front end ── Ask ──┐                    ┌──► links ──► workers, masters
//!   links ── Incoming ─┤►  Driver: tables ──┤
//!   store, calls ─ Done┘   one task         └──► tasks that wait for the store or a call
//! ```
//!
//! Nothing is awaited in the driver's loop but its three channels and its timer. What takes
//! time is spawned and comes back as a `Done`.
//!
//! 1. Effects are carried out in the order in which they were decided.
//! 2. Every channel is bounded. Asks wait outside while the driver is busy.
//! 3. A master that hears of a newer life of its own stops.

mod admission;
mod dial;
mod effects;
mod links;
mod reads;
mod requests;
mod store_poll;
mod streams;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use self::{
    admission::AdmissionGate,
    streams::{OpenStreams, StreamId},
};
use super::handle::{Ask, ByeReason, Consistency, MasterHandle, MasterInfo, ReadError};
use crate::{
    api::{MasterState, Readiness, StoreReach},
    comm::{
        Incoming, Link, LinkLimits, Responder,
        connection_limit::ConnectionLimit,
        fanout::Fanout,
        handshake::{Acceptor, PENDING_MAX, PENDING_PER_HOST_MAX},
        key_source::{HandshakeKeys, KeyKind, KeySource, load_or_make_identity},
    },
    config::{Config, ConfigError},
    crypto::{
        admission::Guard,
        epoch::{EpochError, EpochKeys},
        handshake::AcceptorParams,
        keys::{Identity, KeyError},
    },
    env::{Env, Listener},
    model::{
        event::Event,
        ids::{BoardName, Domain, Incarnation, KeyEpoch, LinkId, NodeId, Resource, SessionKey},
        message::ForwardReply,
        outcome::Outcome,
        rows::{
            Active, ActiveUser, Boards, Holder, Lease, MasterRow, Page, Renewed, SessionRow,
            StoreError,
        },
        shared::Shared,
        time::Mono,
    },
    protocol::{
        assignment::AttemptId,
        board::Tails,
        master::{CallFailed, Effect, Master},
        presence::Presence,
        reads::Reads,
        sessions::Sessions,
        task_queue::{Slot, TaskId},
    },
    store::Store,
};

/// Questions that wait for the driver.
const ASKS_MAX: usize = 1024;
/// Events of all links that wait for the driver.
const INCOMING_MAX: usize = 1024;
/// Results that wait for the driver.
const DONE_MAX: usize = 1024;
/// Between two tries to reach a store that is away at start.
const START_RETRY: Duration = Duration::from_millis(500);

/// What a master is made of.
pub struct MasterParams {
    /// A name for people.
    pub name: String,
    /// Limits and time-outs.
    pub config: Config,
    /// `http://host:port`, as browsers reach it.
    pub http_public: String,
    /// `host:port`, as nodes reach it.
    pub link_public: String,
    /// The shared store.
    pub store: Store,
    /// Where keys come from.
    pub keys: Arc<dyn KeySource>,
}

/// Why a node does not run. It has let go of everything.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The settings cannot hold together.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// A key could not be read, kept or made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The first common key could not be drawn.
    #[error("common key: {0}")]
    Epoch(#[from] EpochError),
    /// The same identity is alive elsewhere.
    #[error(
        "this identity is in use by the master at {at}; give each master a data directory of its own"
    )]
    InUse {
        /// Its link address.
        at: String,
    },
    /// A newer life of this very node is registered.
    #[error("a newer life of this node is registered; this one stops")]
    Superseded,
    /// The store refused for good.
    #[error("the store refused: {0}")]
    Store(StoreError),
    /// The world is shutting down.
    #[error("the world is shutting down")]
    Cancelled,
}

/// A handle, and what its questions come out of.
#[must_use]
pub fn channel() -> (MasterHandle, mpsc::Receiver<Ask>) {
    let (asks, questions) = mpsc::channel(ASKS_MAX);
    (MasterHandle::new(asks), questions)
}

/// Runs a master until it is asked to leave. While it starts, and while the store is away at
/// start, it answers that it is not ready.
///
/// # Errors
/// [`NodeError`]; links are cut, leases run out by themselves.
pub async fn run(
    env: Env,
    params: MasterParams,
    listener: Box<dyn Listener>,
    mut asks: mpsc::Receiver<Ask>,
) -> Result<(), NodeError> {
    params.config.validate()?;
    let mut driver = {
        let starting = Driver::start(env, params, listener);
        tokio::pin!(starting);
        loop {
            tokio::select! {
                biased;
                driver = &mut starting => break driver?,
                ask = asks.recv() => match ask {
                    Some(ask) => answer_while_starting(ask),
                    None => return Ok(()),
                },
            }
        }
    };
    driver.run(asks).await
}

/// Anything else is dropped: the front end says 503.
fn answer_while_starting(ask: Ask) {
    if let Ask::Readiness { reply } = ask {
        let starting =
            Readiness { ready: false, state: MasterState::Starting, store: StoreReach::Away };
        let _ = reply.send(starting);
    }
}

type SessionReply = oneshot::Sender<Result<SessionRow, ReadError>>;

/// Who waits for a task.
enum Waiter {
    /// A person's request.
    Person(oneshot::Sender<Outcome>),
    /// Another master.
    Peer(Responder),
}

/// What a spawned task brings back.
enum Done {
    Lease {
        slot: Slot,
        sent_at: Mono,
        answer: Result<Lease, StoreError>,
    },
    Renewed {
        sent_at: Mono,
        asked: Vec<(Resource, u64)>,
        answers: Result<Vec<(Resource, Renewed)>, StoreError>,
    },
    Attempt {
        slot: Slot,
        attempt: AttemptId,
        answer: Result<crate::model::message::AssignReply, CallFailed>,
    },
    Forward {
        id: TaskId,
        answer: Result<ForwardReply, CallFailed>,
    },
    Touched(Result<(), StoreError>),
    Polled(Box<store_poll::Polled>),
    Boards(Result<Boards, StoreError>),
    Users(Result<Active, StoreError>),
    SessionsTouched {
        keys: Vec<SessionKey>,
        answer: Result<u64, StoreError>,
    },
    Session {
        key: SessionKey,
        answer: Result<Option<SessionRow>, StoreError>,
    },
    TailPage {
        board: BoardName,
        answer: Result<Page, StoreError>,
    },
    StreamPage {
        id: StreamId,
        board: BoardName,
        answer: Result<Page, StoreError>,
    },
    StreamRoom {
        id: StreamId,
        has_room: bool,
    },
    StreamGone {
        id: StreamId,
    },
    Accepted(Box<links::Arrival>),
    Dialed {
        node: NodeId,
        arrival: Option<Box<links::Arrival>>,
    },
}

/// A master's state and everything that it holds.
struct Driver {
    env: Env,
    config: Config,
    store: Store,
    me: MasterInfo,
    holder: Holder,
    cluster: [u8; 16],
    core: Master,
    /// What the tables decided and nobody did yet.
    out: Vec<Effect>,
    done: mpsc::Sender<Done>,
    results: mpsc::Receiver<Done>,
    incoming: mpsc::Receiver<(LinkId, Incoming)>,
    to_incoming: mpsc::Sender<(LinkId, Incoming)>,
    gate: Arc<AdmissionGate>,
    dialer: dial::Dialer,
    fanout: Fanout,
    links: BTreeMap<LinkId, Link>,
    limits: LinkLimits,
    last_link: u64,
    waiters: BTreeMap<TaskId, Waiter>,
    deadlines: VecDeque<(Mono, TaskId)>,
    tails: Tails,
    /// Boards of which posts are being fetched.
    fetching: BTreeSet<BoardName>,
    streams: OpenStreams,
    sessions: Sessions<SessionReply>,
    /// Resident bytes of the workers that are linked.
    memory: BTreeMap<NodeId, u64>,
    presence: Presence,
    fresh_boards: Reads<reads::WantBoards>,
    fresh_users: Reads<reads::WantUsers>,
    users: Shared<Vec<ActiveUser>>,
    masters: Vec<MasterInfo>,
    /// What was said last of this master, strong and able to write.
    said: (bool, bool),
    touching: bool,
    touch_at: Mono,
    polling: bool,
    poll_at: Mono,
    closed_mark: u64,
    /// Which worker was asked last for a weak read.
    weak_turn: u64,
    _guards: Vec<crate::env::TaskGuard>,
}

impl Driver {
    async fn start(
        env: Env,
        params: MasterParams,
        listener: Box<dyn Listener>,
    ) -> Result<Self, NodeError> {
        let MasterParams { name, config, http_public, link_public, store, keys } = params;
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
        let (cluster, incarnation) = register(&env, &store, row).await?;
        let holder = Holder { node: identity.node(), incarnation };
        let domain = Domain { master: holder.node, incarnation };
        let me = MasterInfo { id: holder.node, name: name.clone(), http: http_public };
        env.event(&Event::Start { incarnation });

        let keys = draw_keys(&env, &identity, domain, common, keys.bounds()).await?;
        env.event(&Event::Epoch { domain, epoch: keys.epoch() });
        let fanout =
            Fanout::new(&env, holder.node, incarnation.0, Arc::clone(&keys), config.workers_max);

        let now = env.now();
        let (done, results) = mpsc::channel(DONE_MAX);
        let (to_incoming, incoming) = mpsc::channel(INCOMING_MAX);
        let gate = AdmissionGate::new(&env, store.clone(), domain, keys, &config);
        let params = AcceptorParams {
            identity: Arc::clone(&identity),
            name: name.clone(),
            cluster: cluster.cluster,
            bounds: handshake.bounds(),
        };
        let acceptor = Acceptor::new(params, config.handshake_timeout);
        let fresh = handshake.keep_fresh(&env).abort_on_drop();
        let dialer = dial::Dialer::new(dial::Dials {
            identity,
            handshake,
            name,
            guard,
            cluster: cluster.cluster,
            registration: incarnation,
            directory_max: config.directory_max,
            timeout: config.handshake_timeout,
        });
        let accept = links::accept_all(
            env.clone(),
            listener,
            Arc::clone(&gate),
            acceptor,
            ConnectionLimit::new(PENDING_MAX, PENDING_PER_HOST_MAX),
            done.clone(),
        );
        let accept = env.spawn("accept", accept).abort_on_drop();
        Ok(Self {
            core: Master::new(now, holder, config.clone()),
            out: Vec::new(),
            done,
            results,
            incoming,
            to_incoming,
            gate,
            dialer,
            fanout,
            links: BTreeMap::new(),
            limits: LinkLimits::of(&config),
            last_link: 0,
            waiters: BTreeMap::new(),
            deadlines: VecDeque::new(),
            tails: Tails::new(cluster.epoch, config.tail_posts_max),
            fetching: BTreeSet::new(),
            streams: OpenStreams::default(),
            sessions: Sessions::new(config.sessions_cached_max),
            presence: Presence::new(
                now,
                config.presence_touch_interval,
                config.presence_leave_delay,
                config.streams_max,
            ),
            fresh_boards: Reads::default(),
            fresh_users: Reads::default(),
            users: Shared::new(Vec::new()),
            masters: vec![me.clone()],
            said: (false, false),
            touching: false,
            touch_at: now,
            polling: false,
            poll_at: now,
            closed_mark: 0,
            weak_turn: 0,
            _guards: vec![fresh, accept],
            env,
            config,
            store,
            me,
            holder,
            cluster: cluster.cluster,
            memory: BTreeMap::new(),
        })
    }

    async fn run(&mut self, mut asks: mpsc::Receiver<Ask>) -> Result<(), NodeError> {
        // Registering was a write of this master's own.
        self.core.on_store_write(self.env.now(), true, &mut self.out);
        self.boards_first().await;
        loop {
            self.carry();
            let at = self.next_deadline();
            tokio::select! {
                biased;
                result = self.results.recv() => match result {
                    Some(done) => self.on_done(done)?,
                    None => return Ok(()),
                },
                event = self.incoming.recv() => match event {
                    Some((link, event)) => self.on_incoming(link, event),
                    None => return Ok(()),
                },
                ask = asks.recv() => match ask {
                    Some(Ask::Leave { reply }) => {
                        self.leave().await;
                        let _ = reply.send(());
                        return Ok(());
                    }
                    Some(ask) => self.on_ask(ask),
                    None => return Ok(()),
                },
                () = self.env.sleep_until(at) => {}
            }
            self.on_time();
        }
    }

    /// The tails begin where the store is: an ask that comes first finds every board.
    async fn boards_first(&mut self) {
        if let Ok(boards) = self.store.boards().await {
            self.take_boards(&boards);
        }
    }

    fn next_deadline(&self) -> Mono {
        let touch = if self.touching { None } else { Some(self.touch_at) };
        let poll = if self.polling { None } else { Some(self.poll_at) };
        let waited = self.deadlines.front().map(|(at, _)| *at);
        [
            Some(self.core.next_deadline()),
            self.presence.next_deadline(),
            self.dialer.next_deadline(),
            touch,
            poll,
            waited,
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(self.touch_at)
    }

    fn on_time(&mut self) {
        let now = self.env.now();
        self.core.on_time(now, &mut self.out);
        self.poll(now);
        self.expire_waiters(now);
        self.touch_sessions(now);
        self.dial(now);
        self.say_how_it_is(now);
    }

    /// Requests that have waited as long as they may get their answer; the tasks go on.
    fn expire_waiters(&mut self, now: Mono) {
        while let Some((at, id)) = self.deadlines.front().copied() {
            if at > now {
                break;
            }
            self.deadlines.pop_front();
            match self.waiters.remove(&id) {
                Some(Waiter::Person(reply)) => {
                    let _ = reply.send(self.core.on_waited(id));
                }
                Some(Waiter::Peer(reply)) => {
                    effects::respond(reply, ForwardReply::Ended(Outcome::Unknown));
                }
                None => {}
            }
        }
    }

    /// Beats, streams and pages hear when this master turns weak or strong.
    fn say_how_it_is(&mut self, now: Mono) {
        let says = (self.core.is_strong(now), self.core.can_write(now));
        if says == self.said {
            return;
        }
        for link in self.links.values() {
            self.beat_on(link, says);
        }
        if says.0 != self.said.0 {
            let state = if says.0 { Consistency::Strong } else { Consistency::Weak };
            self.streams.table.set_state(state);
            self.flush_all();
        }
        self.said = says;
    }

    /// Members of the directory, for those who join.
    fn note_directory(&self) {
        self.gate.lists().set_directory(self.core.registry().members().cloned());
    }

    /// Says goodbye to everyone: leases, streams, links, the store's list.
    async fn leave(&mut self) {
        let others: Vec<_> = self.masters.iter().filter(|m| m.id != self.me.id).cloned().collect();
        self.streams.end_all(ByeReason::Draining, &others);
        for (resource, lease) in self.core.held() {
            // What is not given back runs out by itself.
            let _ = self.store.release_lease(resource, self.holder, lease).await;
        }
        let _ = self.store.leave_master(self.holder).await;
        let reason = crate::model::message::CloseReason::Draining;
        for link in self.links.values() {
            link.close(crate::model::message::Close { reason, retry_ms: 1000 });
        }
        self.env.sleep(Duration::from_millis(100)).await;
    }
}

/// Registers this life, waiting for a store that is away.
async fn register(
    env: &Env,
    store: &Store,
    row: MasterRow,
) -> Result<(crate::model::rows::ClusterRow, Incarnation), NodeError> {
    let mut said = false;
    loop {
        let registered = match store.cluster().await {
            Ok(cluster) => store.register_master(row.clone()).await.map(|life| (cluster, life)),
            Err(error) => Err(error),
        };
        match registered {
            Ok(done) => return Ok(done),
            Err(StoreError::Away { why }) => {
                if !said {
                    tracing::warn!(why, "the store is away; waiting, not ready");
                    said = true;
                }
                env.sleep(START_RETRY).await;
            }
            Err(StoreError::InUse { at }) => return Err(NodeError::InUse { at }),
            Err(error) => return Err(NodeError::Store(error)),
        }
    }
}

async fn draw_keys(
    env: &Env,
    identity: &Arc<Identity>,
    domain: Domain,
    common: crate::crypto::keys::KeyPair,
    bounds: crate::crypto::keys::KeyBounds,
) -> Result<Arc<EpochKeys>, NodeError> {
    let (identity, mut rng) = (Arc::clone(identity), env.rng("common-key"));
    let drawn = env
        .compute(move || EpochKeys::draw(&mut rng, &identity, domain, KeyEpoch(1), common, bounds))
        .await
        .map_err(|_| NodeError::Cancelled)?;
    Ok(Arc::new(drawn?))
}
