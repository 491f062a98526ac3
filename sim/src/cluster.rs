//! A cluster in the simulated world: masters, workers, people's machines and the store's host.
//!
//! Machines are named as stories name places, without the colon: `master0`, `worker2`,
//! `person7`, `store`. Masters listen on the same ports on each.

mod act;
mod extra;
mod impostors;
pub(crate) mod operators;
mod restored;
mod roles;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chatchat::{
    config::Config,
    crypto::admission::JoinSecret,
    env::Env,
    http::Access,
    model::{
        ids::{NodeId, Resource, StoreEpoch},
        rows::StoreError,
    },
    programs::{MasterParams, Stop, WorkerParams, run_master, run_worker},
    store::{Op, Store, sqlite::NewCluster},
};
use chatchat_scenarios::{
    cluster as shape,
    fault::Action,
    oracle::{EpochChange, PageTaken},
    plan::Plan,
    target::{Place, Target},
};
use dst_world::{HostId, World};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use tokio::sync::mpsc;

use self::{
    operators::{JoinTokens, expulsions_max, has_operators},
    restored::{is_superseded, store_for},
};
use crate::{
    deployment::FaultId,
    keys::KeyPool,
    store::{StoreHost, remote},
    stranger::Deceits,
};

const HTTP_PORT: u16 = 80;
const ADMIN_PORT: u16 = 81;
pub(crate) const LINK_PORT: u16 = 7000;
/// Ending of the name of a machine that runs a second process with a node's identity.
const CLONE: &str = "b";
const STORE_LISTEN: &str = "0.0.0.0:5432";
const STORE_ADDR: &str = "store:5432";
/// Time after its start within which a process may end for its disk's sake.
const START_MAX: Duration = Duration::from_secs(5);
/// Pause until a launcher starts such a process again, or a supervisor one that a restore ended.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Cluster of one run.
pub struct Cluster {
    world: World,
    shape: shape::Cluster,
    people: usize,
    hosts: BTreeMap<Place, HostId>,
    /// Places by the names of their machines.
    by_name: BTreeMap<String, Place>,
    /// Place of each identity, those of nodes before a wipe included.
    nodes: Mutex<BTreeMap<NodeId, Place>>,
    keys: KeyPool,
    tokens: Mutex<JoinTokens>,
    /// Whether the story has operators, whom each master listens to.
    has_operators: bool,
    store: StoreHost,
    grants: Mutex<Grants>,
    ended: Mutex<Vec<(Place, String)>>,
    /// Nodes that the launcher is to start again.
    to_launcher: Mutex<Option<mpsc::UnboundedSender<Ended>>>,
    /// Ways to ask processes to stop, and whether they were asked.
    stops: Mutex<BTreeMap<Place, AskToStop>>,
    /// Machines of second processes with the identity of a node.
    clones: Mutex<BTreeMap<Place, HostId>>,
    /// Join tokens of the machines that nobody admits: one that nobody made, one that was used up, one
    /// that ended.
    stale_tokens: [String; extra::UNADMITTED.len()],
    /// Deceits of those who pass for members and for masters.
    deceits: Arc<Deceits>,
    /// Number of faults that the story names; the others were drawn.
    named: usize,
    /// Each join token that was made, as text, and the guard and the bearer that are derived from it.
    join_secrets: Vec<Vec<u8>>,
    /// Nodes that started at least once.
    started: Mutex<BTreeSet<Place>>,
    /// Copies that roll-backs put back, by their faults.
    kept: Mutex<BTreeMap<FaultId, act::Kept>>,
    /// Changes of the store's epoch by restores.
    epoch_changes: Mutex<Vec<EpochChange>>,
    pages_taken: Arc<Mutex<Vec<PageTaken>>>,
}

/// Process that ended by itself and is to be started again.
struct Ended {
    place: Place,
    host: HostId,
    at: Duration,
}

/// Way to ask a process to stop, until it was asked.
type AskToStop = Option<mpsc::Sender<Stop>>;

/// Master that was granted each resource last, as far as the store's record of writes was read.
#[derive(Default)]
struct Grants {
    read_to: u64,
    holders: BTreeMap<Resource, NodeId>,
}

/// A machine's name.
fn host_name(place: Place) -> String {
    place.to_string().replace(':', "")
}

/// Returns the place whose machine, or second machine, has this name.
fn place_named(by_name: &BTreeMap<String, Place>, name: &str) -> Option<Place> {
    by_name.get(name.strip_suffix(CLONE).unwrap_or(name)).copied()
}

/// Returns a listener of the store that notes the pages which workers take.
fn note_pages(
    world: &World,
    by_name: &BTreeMap<String, Place>,
    pages: &Arc<Mutex<Vec<PageTaken>>>,
) -> impl Fn(&str) + Send + Sync + 'static {
    let (world, by_name, pages) = (world.clone(), by_name.clone(), Arc::clone(pages));
    move |peer| {
        let name = peer.split(':').next().unwrap_or_default();
        if let Some(by @ Place::Worker(_)) = place_named(&by_name, name) {
            let page = PageTaken { at: world.elapsed(), by };
            pages.lock().unwrap_or_else(PoisonError::into_inner).push(page);
        }
    }
}

/// Returns how often the faults of a plan wipe a node at most.
pub(crate) fn wipes_max(plan: &Plan) -> usize {
    let count = |target: &Target| match target.places(&plan.cluster, plan.workload.people) {
        Some(places) => places.iter().filter(|place| place.is_node()).count(),
        // A role is played by one node at a time.
        None => 1,
    };
    let wipes = plan.faults.iter().filter_map(|fault| match &fault.action {
        Action::Wipe { target } => Some(count(target)),
        // Once to come back under its old token, once to be set up anew.
        Action::Expel { target } => Some(2 * count(target)),
        _ => None,
    });
    wipes.sum()
}

impl Cluster {
    /// Adds all machines, switched off, and a store that holds join tokens for the workers.
    ///
    /// # Errors
    /// The error that SQLite reports.
    pub fn new(world: &World, plan: &Plan) -> Result<Arc<Self>, StoreError> {
        let (shape, people) = (plan.cluster.clone(), plan.workload.people);
        let masters = (0..shape.masters).map(Place::Master);
        let workers = (0..shape.workers).map(Place::Worker);
        let nodes: Vec<_> = masters.chain(workers).collect();
        let everyone = [Place::Store].into_iter().chain(nodes.iter().copied());
        let everyone = everyone.chain((0..people).map(Place::Person));
        let (mut hosts, mut by_name) = (BTreeMap::new(), BTreeMap::new());
        for place in everyone {
            let name = host_name(place);
            hosts.insert(place, world.add_host(&name));
            by_name.insert(name, place);
        }

        let wipes = wipes_max(plan);
        let keys = KeyPool::new(world.seed(), nodes.len() + extra::UNADMITTED.len(), wipes);
        let identities = (0..nodes.len()).map(|nth| keys.identity(nth).0);
        let mut rng = ChaCha20Rng::from_seed(world.seed().bytes("cluster"));
        let mut secrets = vec![JoinSecret::random(&mut rng, &keys.identity(0).1)];
        let mut cluster = [0; 16];
        rng.fill_bytes(&mut cluster);
        let each = 1 + expulsions_max(plan);
        for _ in 1..each * shape.workers {
            secrets.push(JoinSecret::random(&mut rng, &keys.identity(0).1));
        }
        let stale = [(); extra::UNADMITTED.len()];
        let stale = stale.map(|()| JoinSecret::random(&mut rng, &keys.identity(0).1));
        let open =
            extra::has_stranger(plan).then(|| JoinSecret::random(&mut rng, &keys.identity(0).1));
        let pages_taken: Arc<Mutex<Vec<PageTaken>>> = Arc::default();
        let it = Self {
            join_secrets: secrets
                .iter()
                .chain(&stale)
                .chain(&open)
                .flat_map(operators::parts)
                .collect(),
            stale_tokens: stale.each_ref().map(|secret| secret.text().to_string()),
            deceits: Arc::default(),
            named: plan.named,
            world: world.clone(),
            people,
            hosts,
            nodes: Mutex::new(identities.zip(nodes).collect()),
            keys,
            tokens: Mutex::new(JoinTokens::new(&secrets, each)),
            has_operators: has_operators(plan),
            store: store_for(plan, &NewCluster { cluster, epoch: StoreEpoch(1), now_ms: 0 })?
                .with_timeout(shape.config.store_timeout)
                .on_page(note_pages(world, &by_name, &pages_taken)),
            grants: Mutex::default(),
            ended: Mutex::default(),
            to_launcher: Mutex::default(),
            stops: Mutex::default(),
            clones: Mutex::default(),
            started: Mutex::default(),
            kept: Mutex::default(),
            epoch_changes: Mutex::default(),
            pages_taken,
            by_name,
            shape,
        };
        if plan.faults.iter().any(|fault| matches!(fault.action, Action::Rollback { .. })) {
            it.store.keep_journal();
        }
        let now_ms = world.wall(it.host(Place::Store)).ms;
        // The operator admits what comes back from a wipe as the new node that it is. So a token is
        // not used up by the worker that has it: an expulsion has to revoke it.
        let uses = u32::try_from(1 + wipes).unwrap_or(u32::MAX);
        for secret in &secrets {
            it.store.apply(&Op::PutJoinToken(secret.row(uses, now_ms + DAY_MS)), now_ms)?;
        }
        let [_made_up, used_up, ended] = &stale;
        let stale = [used_up.row(0, now_ms + DAY_MS), ended.row(1, now_ms + 1)];
        // It would admit whoever has its bearer: nobody.
        let open = open.map(|secret| secret.row(1, now_ms + DAY_MS));
        for row in stale.into_iter().chain(open) {
            it.store.apply(&Op::PutJoinToken(row), now_ms)?;
        }
        Ok(Arc::new(it))
    }

    /// Returns the machine of a place.
    ///
    /// # Panics
    ///
    /// When the plan has no such place: plans are checked when they are read.
    #[must_use]
    pub fn host(&self, place: Place) -> HostId {
        *self.hosts.get(&place).unwrap_or_else(|| panic!("{place} is not in the plan"))
    }

    /// Returns the world that it runs in.
    #[must_use]
    pub const fn world(&self) -> &World {
        &self.world
    }

    /// Returns its size and settings.
    #[must_use]
    pub const fn shape(&self) -> &shape::Cluster {
        &self.shape
    }

    /// Returns the host of the store.
    #[must_use]
    pub const fn store(&self) -> &StoreHost {
        &self.store
    }

    /// Returns the store without the network between, for judging.
    #[must_use]
    pub fn direct_store(&self) -> Store {
        let (world, host) = (self.world.clone(), self.host(Place::Store));
        self.store.direct(move || world.wall(host).ms)
    }

    /// Returns the place whose machine has this name.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<Place> {
        place_named(&self.by_name, name)
    }

    /// Returns each machine with the place that it is.
    pub fn places_of_hosts(&self) -> impl Iterator<Item = (HostId, Place)> {
        self.hosts.iter().map(|(place, host)| (*host, *place))
    }

    /// `http://host:port` of each master's front end.
    #[must_use]
    pub fn front_ends(&self) -> Vec<String> {
        (0..self.shape.masters)
            .map(|nth| format!("http://{}:{HTTP_PORT}", host_name(Place::Master(nth))))
            .collect()
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<FaultId, act::Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<NodeId, Place>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Processes that ended by themselves, and why.
    #[must_use]
    pub fn ended(&self) -> Vec<(Place, String)> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts the store and all nodes, and the launcher that starts some of them again.
    pub fn start(self: &Arc<Self>) {
        let (to_launcher, mut ended) = mpsc::unbounded_channel();
        *self.to_launcher.lock().unwrap_or_else(PoisonError::into_inner) = Some(to_launcher);
        let it = Arc::clone(self);
        self.world.supervise(async move {
            while let Some(Ended { place, host, at }) = ended.recv().await {
                // Each has its own pause, however many end together.
                let waited_ms = it.world.elapsed().saturating_sub(at).as_millis();
                let waited = Duration::from_millis(u64::try_from(waited_ms).unwrap_or(u64::MAX));
                it.world.sleep(RESTART_PAUSE.saturating_sub(waited)).await;
                if it.world.is_on(host) {
                    it.boot(place);
                }
            }
        });
        for place in self.hosts.keys().filter(|place| !matches!(place, Place::Person(_))) {
            self.boot(*place);
        }
    }

    /// Starts what belongs on a place, if it does not run. People are started by who knows them.
    pub fn boot(self: &Arc<Self>, place: Place) {
        self.boot_on(place, self.host(place), host_name(place));
    }

    /// Starts what belongs on a place on some machine.
    fn boot_on(self: &Arc<Self>, place: Place, host: HostId, name: String) {
        match place {
            Place::Store => {
                let store = self.store.clone();
                self.world.boot(host, |env| store.serve(env, STORE_LISTEN));
            }
            Place::Master(nth) => {
                let it = Arc::clone(self);
                self.world.boot(host, |env| async move {
                    it.let_operators_in(&env);
                    let (params, stops) = (it.master(&env, nth, &name), it.stops_of(place));
                    let began = it.world.elapsed();
                    let end = run_master(env, params, stops).await;
                    let is_restored = is_superseded(&end) && it.was_restored_since(began);
                    it.tell(place, host, began, end, is_restored);
                });
            }
            Place::Worker(nth) => {
                let it = Arc::clone(self);
                self.world.boot(host, |env| async move {
                    let (params, mut stops) =
                        (it.worker(&env, nth, name.clone()), it.stops_of(place));
                    let began = it.world.elapsed();
                    let stop = async {
                        if stops.recv().await.is_none() {
                            pending::<()>().await;
                        }
                    };
                    let end = run_worker(env, params, stop).await;
                    it.tell(place, host, began, end, false);
                });
            }
            Place::Person(_) => {}
        }
    }

    fn stops(&self) -> MutexGuard<'_, BTreeMap<Place, AskToStop>> {
        self.stops.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what a process that starts now is asked to stop by.
    fn stops_of(&self, place: Place) -> mpsc::Receiver<Stop> {
        let (ask, asked) = mpsc::channel(1);
        self.stops().insert(place, Some(ask));
        asked
    }

    /// Asks a process to stop, as SIGTERM does. False when there is none to ask.
    pub fn stop(&self, place: Place) -> bool {
        let host = self.host(place);
        if !self.world.is_running(host) {
            return false;
        }
        if matches!(place, Place::Store | Place::Person(_)) {
            return self.world.exit(host);
        }
        let ask = self.stops().get_mut(&place).and_then(Option::take);
        self.world.note(&host_name(place), "asked_to_stop", &[]);
        ask.is_some_and(|ask| ask.try_send(Stop::Drain).is_ok())
    }

    /// Starts a process again. One that was asked to stop and did not is killed first, as
    /// launchers do.
    pub fn start_again(self: &Arc<Self>, place: Place) {
        let was_asked = self.stops().get(&place).is_some_and(Option::is_none);
        if was_asked && self.world.exit(self.host(place)) {
            self.world.note(&host_name(place), "killed", &[]);
        }
        self.boot(place);
    }

    /// Takes a machine's power and its files. A node that comes back from that is another one: its
    /// identity was among them. False when the machine was off.
    pub fn wipe(&self, place: Place) -> bool {
        if let Some(number) = self.number(place) {
            self.keys.renew_identity(number);
            self.nodes().insert(self.keys.identity(number).0, place);
        }
        self.world.wipe(self.host(place))
    }

    /// Returns the number of a place's node, by which its keys are found.
    fn number(&self, place: Place) -> Option<usize> {
        match place {
            Place::Master(nth) => Some(nth),
            Place::Worker(nth) => Some(self.shape.masters + nth),
            Place::Store | Place::Person(_) => None,
        }
    }

    /// Writes down that a node came to its end, and keeps that if nobody asked it to. One that
    /// cannot begin since its disk fails may say so and end: it is started again, as launchers do. So is
    /// one that a restore of the store ended.
    fn tell(
        self: &Arc<Self>,
        place: Place,
        host: HostId,
        began: Duration,
        end: Result<(), impl ToString>,
        is_restored: bool,
    ) {
        let was_asked = self.stops().get(&place).is_some_and(Option::is_none);
        let is_clean = end.is_ok();
        let why = end.map_or_else(|why| why.to_string(), |()| "it said goodbye".to_owned());
        self.world.note(&self.world.name(host), "ended", &[("why", why.as_str().into())]);
        // Of two with one identity, either may have to go.
        if was_asked && is_clean || self.clones().contains_key(&place) {
            return;
        }
        if is_restored && was_asked {
            // Who asked it to stop starts it again.
            return;
        }
        let at = self.world.elapsed();
        let is_start = at.saturating_sub(began) <= START_MAX;
        if is_restored || !is_clean && is_start && self.world.disk_may_refuse(host) {
            let launcher = self.to_launcher.lock().unwrap_or_else(PoisonError::into_inner);
            let ended = Ended { place, host, at };
            if launcher.as_ref().is_some_and(|launcher| launcher.send(ended).is_ok()) {
                return;
            }
        }
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).push((place, why));
    }

    /// Returns the configuration of a node that starts.
    fn config(&self, place: Place) -> Config {
        let mut config = self.shape.config.clone();
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        if started.insert(place) && self.shape.upgrade {
            config.link_version_max -= 1;
        }
        config
    }

    fn master(&self, env: &Env, nth: usize, name: &str) -> MasterParams {
        let config = self.config(Place::Master(nth));
        MasterParams {
            http_listen: format!("0.0.0.0:{HTTP_PORT}"),
            http_public: format!("http://{name}:{HTTP_PORT}"),
            access: Access::default(),
            link_listen: format!("0.0.0.0:{LINK_PORT}"),
            link_public: format!("{name}:{LINK_PORT}"),
            admin_listen: self.has_operators.then(|| format!("0.0.0.0:{ADMIN_PORT}")),
            tls: None,
            store: remote(env, STORE_ADDR, config.store_timeout),
            keys: self.keys.source(nth),
            on_listening: || {},
            name: name.to_owned(),
            config,
        }
    }

    fn worker(&self, env: &Env, nth: usize, name: String) -> WorkerParams {
        let config = self.config(Place::Worker(nth));
        let masters = (0..self.shape.masters)
            .map(|nth| format!("{}:{LINK_PORT}", host_name(Place::Master(nth))));
        // The operator writes the newest identities of the masters into a worker's settings.
        let pins = (0..self.shape.masters).map(|nth| self.keys.identity(nth).1);
        WorkerParams {
            name,
            masters: masters.collect(),
            pins: pins.collect(),
            token: self.token(nth),
            store: remote(env, STORE_ADDR, config.store_timeout),
            login: None,
            keys: self.keys.source(self.shape.masters + nth),
            config,
        }
    }
}
