//! A cluster in the simulated world: masters, workers, people's machines and the store's host.
//!
//! Machines are named as stories name places, without the colon: `master0`, `worker2`,
//! `person7`, `store`. Masters listen on the same ports on each.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chatchat::{
    config::Config,
    crypto::admission::JoinSecret,
    env::Env,
    http::Access,
    model::{
        event::Event,
        ids::{NodeId, Resource, StoreEpoch},
        rows::StoreError,
    },
    programs::{MasterParams, WorkerParams, run_master, run_worker},
    store::{Op, OpReply, Store, sqlite::NewCluster},
};
use chatchat_scenarios::{
    cluster as shape,
    fault::Action,
    plan::Plan,
    target::{Place, ResourceRef, Target},
};
use dst_world::{HostId, World};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use crate::{
    events::read_event,
    keys::KeyPool,
    store::{StoreHost, remote},
};

const HTTP_PORT: u16 = 80;
const LINK_PORT: u16 = 7000;
const STORE_LISTEN: &str = "0.0.0.0:5432";
const STORE_ADDR: &str = "store:5432";
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Cluster of one run.
pub struct Cluster {
    world: World,
    shape: shape::Cluster,
    people: usize,
    hosts: BTreeMap<Place, HostId>,
    /// Place of each identity, those of nodes before a wipe included.
    nodes: Mutex<BTreeMap<NodeId, Place>>,
    keys: KeyPool,
    token: String,
    store: StoreHost,
    grants: Mutex<Grants>,
    ended: Mutex<Vec<(Place, String)>>,
}

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

/// Returns how often the faults of a plan wipe a node at most.
fn wipes_max(plan: &Plan) -> usize {
    let is_node = |place: &&Place| matches!(place, Place::Master(_) | Place::Worker(_));
    let count = |target: &Target| match target.places(&plan.cluster, plan.workload.people) {
        Some(places) => places.iter().filter(is_node).count(),
        // A role is played by one node at a time.
        None => 1,
    };
    let wipes = plan.faults.iter().filter_map(|fault| match &fault.action {
        Action::Wipe { target } => Some(count(target)),
        _ => None,
    });
    wipes.sum()
}

impl Cluster {
    /// Adds all machines, switched off, and a store that holds a join token for the workers.
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
        let hosts = everyone.map(|place| (place, world.add_host(&host_name(place)))).collect();

        let wipes = wipes_max(plan);
        let keys = KeyPool::new(world.seed(), nodes.len(), wipes);
        let identities = (0..nodes.len()).map(|nth| keys.identity(nth).0);
        let mut rng = ChaCha20Rng::from_seed(world.seed().bytes("cluster"));
        let secret = JoinSecret::random(&mut rng, &keys.identity(0).1);
        let mut cluster = [0; 16];
        rng.fill_bytes(&mut cluster);
        let it = Self {
            world: world.clone(),
            people,
            hosts,
            nodes: Mutex::new(identities.zip(nodes).collect()),
            keys,
            token: secret.text().to_string(),
            store: StoreHost::new(&NewCluster { cluster, epoch: StoreEpoch(1), now_ms: 0 })?,
            grants: Mutex::default(),
            ended: Mutex::default(),
            shape,
        };
        let now_ms = world.wall(it.host(Place::Store)).ms;
        // The operator admits what comes back from a wipe as the new node that it is.
        let uses = u32::try_from(it.shape.workers + wipes).unwrap_or(u32::MAX);
        it.store.apply(&Op::PutJoinToken(secret.row(uses, now_ms + DAY_MS)), now_ms)?;
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
        self.hosts.keys().find(|place| host_name(**place) == name).copied()
    }

    /// `http://host:port` of each master's front end.
    #[must_use]
    pub fn front_ends(&self) -> Vec<String> {
        (0..self.shape.masters)
            .map(|nth| format!("http://{}:{HTTP_PORT}", host_name(Place::Master(nth))))
            .collect()
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<NodeId, Place>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Processes that ended by themselves, and why.
    #[must_use]
    pub fn ended(&self) -> Vec<(Place, String)> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts the store and all nodes.
    pub fn start(self: &Arc<Self>) {
        for place in self.hosts.keys().filter(|place| !matches!(place, Place::Person(_))) {
            self.boot(*place);
        }
    }

    /// Starts what belongs on a place, if it does not run. People are started by who knows them.
    pub fn boot(self: &Arc<Self>, place: Place) {
        let host = self.host(place);
        match place {
            Place::Store => {
                let store = self.store.clone();
                self.world.boot(host, |env| store.serve(env, STORE_LISTEN));
            }
            Place::Master(nth) => {
                let it = Arc::clone(self);
                self.world.boot(host, |env| async move {
                    let params = it.master(&env, nth);
                    it.tell(place, run_master(env, params, pending()).await);
                });
            }
            Place::Worker(nth) => {
                let it = Arc::clone(self);
                self.world.boot(host, |env| async move {
                    let params = it.worker(&env, nth);
                    it.tell(place, run_worker(env, params, pending()).await);
                });
            }
            Place::Person(_) => {}
        }
    }

    /// Takes a machine's power and its files. A node that comes back from that is another one: its
    /// identity was among them. False when the machine was off.
    pub fn wipe(&self, place: Place) -> bool {
        let number = match place {
            Place::Master(nth) => Some(nth),
            Place::Worker(nth) => Some(self.shape.masters + nth),
            Place::Store | Place::Person(_) => None,
        };
        if let Some(number) = number {
            self.keys.renew_identity(number);
            self.nodes().insert(self.keys.identity(number).0, place);
        }
        self.world.wipe(self.host(place))
    }

    /// A node came to its end without having been asked to.
    fn tell(&self, place: Place, end: Result<(), impl ToString>) {
        let why = end.map_or_else(|why| why.to_string(), |()| "it said goodbye".to_owned());
        self.world.note(&host_name(place), "ended", &[("why", why.as_str().into())]);
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).push((place, why));
    }

    fn config(&self) -> Config {
        self.shape.config.clone()
    }

    fn master(&self, env: &Env, nth: usize) -> MasterParams {
        let (name, config) = (host_name(Place::Master(nth)), self.config());
        MasterParams {
            http_listen: format!("0.0.0.0:{HTTP_PORT}"),
            http_public: format!("http://{name}:{HTTP_PORT}"),
            access: Access::default(),
            link_listen: format!("0.0.0.0:{LINK_PORT}"),
            link_public: format!("{name}:{LINK_PORT}"),
            admin_listen: None,
            store: remote(env, STORE_ADDR, config.store_timeout),
            keys: self.keys.source(nth),
            name,
            config,
        }
    }

    fn worker(&self, env: &Env, nth: usize) -> WorkerParams {
        let config = self.config();
        let masters = (0..self.shape.masters)
            .map(|nth| format!("{}:{LINK_PORT}", host_name(Place::Master(nth))));
        // The operator writes the newest identities of the masters into a worker's settings.
        let pins = (0..self.shape.masters).map(|nth| self.keys.identity(nth).1);
        WorkerParams {
            name: host_name(Place::Worker(nth)),
            masters: masters.collect(),
            pins: pins.collect(),
            token: Some(self.token.clone()),
            store: remote(env, STORE_ADDR, config.store_timeout),
            keys: self.keys.source(self.shape.masters + nth),
            config,
        }
    }

    /// Returns the places that a target stands for now; none when nobody plays the role.
    #[must_use]
    pub fn places(&self, target: &Target) -> Vec<Place> {
        if let Some(places) = target.places(&self.shape, self.people) {
            return places;
        }
        let node = match target {
            Target::Coordinator(resource) => self.coordinator(&self.resource(resource)),
            Target::Assigned(resource) => self.assigned(&self.resource(resource)),
            Target::MasterOf(nth) => self.master_of(*nth),
            _ => None,
        };
        node.and_then(|node| self.nodes().get(&node).copied()).into_iter().collect()
    }

    fn resource(&self, named: &ResourceRef) -> Resource {
        match named {
            ResourceRef::Board(name) => Resource::Board(name.clone()),
            ResourceRef::Sessions(nth) => Resource::Sessions(self.keys.identity(*nth).0),
        }
    }

    /// Returns the master that was granted a resource last.
    fn coordinator(&self, resource: &Resource) -> Option<NodeId> {
        let mut grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let op = Op::Writes { after: grants.read_to, limit: 512 };
            let now_ms = self.world.wall(self.host(Place::Store)).ms;
            let Ok(OpReply::Writes(rows)) = self.store.apply(&op, now_ms) else { return None };
            let Some(last) = rows.last() else { break };
            grants.read_to = last.number;
            for row in rows.into_iter().filter(|row| row.kind == "grant") {
                grants.holders.insert(row.resource, row.node);
            }
        }
        grants.holders.get(resource).copied()
    }

    /// Returns the worker that got a batch of a resource last.
    fn assigned(&self, wanted: &Resource) -> Option<NodeId> {
        self.world.latest(|record| match read_event(record).ok()? {
            Event::Assign { worker, resource, .. } if resource == *wanted => Some(worker),
            _ => None,
        })
    }

    /// Returns the master that took a worker in last.
    fn master_of(&self, nth: usize) -> Option<NodeId> {
        let (of, _) = self.keys.identity(self.shape.masters + nth);
        self.world.latest(|record| match read_event(record).ok()? {
            Event::Join { node, master, .. } if node == of => Some(master),
            _ => None,
        })
    }
}
