//! Cluster of real processes as a deployment.
//!
//! ```text
//!  folder/ store.db   master0/ node.toml, join.token, events.jsonl, log, data/   worker0/ ..
//! ```
//!
//! 1. A process ends with this one, and the folder and the namespaces go with the last handle.
//! 2. Whoever plays a role is read from what real nodes write: their event lines, and the grants in
//!    the store.

mod act;
mod setup;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chatchat::{
    env::{Env, real::TempDir},
    model::{
        event::{Event, FaultPoint},
        ids::{Fingerprint, NodeId, Resource},
    },
    store::Store,
};
use chatchat_scenarios::{
    cluster as shape,
    target::{Place, ResourceRef, Target},
};

use super::{
    lines::Lines,
    network::Network,
    node::{Node, Process},
};
use crate::{
    cluster::operators::JoinTokens,
    deployment::{Deployment, OnFaultPoint},
};

/// Interval at which nodes' lines are read.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Number of looks at lines for each look at grants and processes.
const SELDOM: u32 = 10;
/// Time for all nodes to find each other.
const UP_WITHIN: Duration = Duration::from_secs(60);

/// Cluster of real processes.
pub(super) struct RealCluster {
    // In the order in which they have to go: processes, namespaces, files.
    state: Mutex<State>,
    network: Option<Network>,
    _folder: Option<TempDir>,
    path: PathBuf,
    env: Env,
    /// Wall clock at the zero of `elapsed`.
    start_ms: u64,
    shape: shape::Cluster,
    programs: PathBuf,
    nodes: BTreeMap<Place, Node>,
    store: Store,
    lines: Mutex<Lines>,
    listener: Mutex<Option<Arc<OnFaultPoint>>>,
    /// Whether the story has operators, whom each master listens to.
    has_operators: bool,
}

#[derive(Default)]
struct State {
    processes: BTreeMap<Place, Process>,
    /// Ends that were no kill, when they were noticed.
    left: Vec<(Place, Duration)>,
    /// Processes that ended by themselves, and why.
    ended: Vec<(Place, String)>,
    /// Failures after which the harness could not go on.
    broken: Vec<String>,
    /// Processes that were killed, each from just before to just after.
    deaths: Vec<(Place, Duration, Duration)>,
    /// Processes that are stopped because they are about to be killed, and since when.
    held: BTreeMap<Place, Duration>,
    notes: Vec<String>,
    /// Holder of each resource, as far as the store's record of writes was read.
    holders: BTreeMap<Resource, NodeId>,
    read_to: u64,
    /// Fingerprints of the masters' keys, in order.
    pins: Vec<Fingerprint>,
    /// Identities for masters that are wiped, with their fingerprints.
    spares: Vec<(Vec<u8>, Fingerprint)>,
    tokens: JoinTokens,
}

impl RealCluster {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the environment of the harness, which no fault touches.
    pub(super) const fn env(&self) -> &Env {
        &self.env
    }

    /// Returns the folder of the run.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until every master is ready and every worker is with one.
    ///
    /// # Errors
    /// The nodes that are not, with the ends of their logs.
    pub(super) async fn is_up(self: &Arc<Self>) -> Result<(), String> {
        let until = self.elapsed() + UP_WITHIN;
        loop {
            let missing: Vec<_> =
                self.nodes.keys().filter(|place| !self.has_begun(**place)).collect();
            if missing.is_empty() {
                return Ok(());
            }
            let ended = self.ended();
            if self.elapsed() > until || !ended.is_empty() {
                let said = |place: &&Place| format!("{place}: {}", self.nodes[*place].last_words());
                let said: Vec<_> = missing.iter().map(said).collect();
                return Err(format!("the cluster did not come up: {}", said.join("\n")));
            }
            self.env.sleep(LOOK_EVERY).await;
        }
    }

    fn has_begun(&self, place: Place) -> bool {
        let said = self.lines().latest(|by, event| match (place, event) {
            (Place::Master(_), Event::Start { .. }) | (Place::Worker(_), Event::Join { .. }) => {
                (by == place).then_some(())
            }
            _ => None,
        });
        said.is_some()
    }

    /// Reads what the nodes write and looks after their processes, for as long as the run lasts.
    pub(super) async fn watch(self: Arc<Self>) {
        for nth in 0_u32.. {
            let points = self.lines().read();
            for (point, place) in points {
                self.tell(point, place);
            }
            if nth % SELDOM == 0 {
                self.look_at_processes();
                self.read_grants().await;
            }
            self.env.sleep(LOOK_EVERY).await;
        }
    }

    /// Carries packets of lines that are slow, narrow or lossy, for as long as the run lasts.
    pub(super) async fn carry(self: Arc<Self>) {
        let Some(network) = &self.network else { return };
        if let Err(why) = network.carry(&self.env).await {
            self.state().broken.push(format!("packets are carried no more: {why}"));
        }
    }

    fn tell(&self, point: FaultPoint, place: Place) {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(listener) = listener {
            listener(point.name(), &|| Some(place));
        }
    }

    fn look_at_processes(&self) {
        let now = self.elapsed();
        let mut state = self.state();
        let State { processes, ended, left, .. } = &mut *state;
        for (place, process) in processes {
            let ran = process.is_running();
            if let Some(how) = process.ended() {
                let words = self.nodes[place].last_words();
                ended.push((*place, format!("{how}: {words}")));
            }
            if ran && !process.is_running() {
                left.push((*place, now));
            }
        }
    }

    async fn read_grants(&self) {
        const PAGE: u32 = 512;
        let after = self.state().read_to;
        // A store that is busy is asked again.
        let Ok(rows) = self.store.writes(after, PAGE).await else { return };
        for row in rows {
            self.state().read_to = row.number;
            if row.kind == "grant" {
                self.state().holders.insert(row.resource, row.node);
                let place = self.lines().place(row.node);
                if let Some(place) = place {
                    self.tell(FaultPoint::LeaseGranted, place);
                }
            }
        }
    }

    fn resource(&self, named: &ResourceRef) -> Option<Resource> {
        Some(match named {
            ResourceRef::Board(name) => Resource::Board(name.clone()),
            ResourceRef::Sessions(nth) => {
                Resource::Sessions(self.lines().node(Place::Master(*nth))?)
            }
        })
    }

    /// Returns the node that plays a role now.
    fn player(&self, target: &Target) -> Option<Place> {
        match target {
            Target::Coordinator(resource) => {
                let holder = *self.state().holders.get(&self.resource(resource)?)?;
                self.lines().place(holder)
            }
            Target::Assigned(resource) => {
                let wanted = self.resource(resource)?;
                let lines = self.lines();
                let worker = lines.latest(|_, event| match event {
                    Event::Assign { worker, resource, .. } if *resource == wanted => Some(*worker),
                    _ => None,
                })?;
                lines.place(worker)
            }
            Target::MasterOf(nth) => {
                let lines = self.lines();
                let of = lines.node(Place::Worker(*nth))?;
                let master = lines.latest(|_, event| match event {
                    Event::Join { node, master, .. } if *node == of => Some(*master),
                    _ => None,
                })?;
                lines.place(master)
            }
            _ => None,
        }
    }

    /// Kills a process. False when none ran.
    fn kill(&self, place: Place) -> bool {
        let now = self.elapsed();
        let mut state = self.state();
        let from = state.held.remove(&place).unwrap_or(now);
        let killed = state.processes.get_mut(&place).is_some_and(Process::kill);
        if killed {
            let to = self.elapsed();
            state.deaths.push((place, from, to));
        }
        killed
    }

    fn with_process(&self, place: Place, act: impl FnOnce(&mut Process) -> bool) -> bool {
        self.state().processes.get_mut(&place).is_some_and(act)
    }

    /// Returns whether a process runs at a place, stopped or not.
    fn is_running(&self, place: Place) -> bool {
        self.look_at_processes();
        place == Place::Store || self.with_process(place, |process| process.is_running())
    }

    fn begin(&self, place: Place) {
        let Some(node) = self.nodes.get(&place) else { return };
        if self.is_running(place) {
            return;
        }
        let began = node.spawn(&self.programs);
        let mut state = self.state();
        match began {
            Ok(child) => state.processes.entry(place).or_default().began(child),
            Err(why) => state.ended.push((place, format!("it cannot be started: {why}"))),
        }
    }

    /// Notes that something which a fault does to the system failed: then the run shows nothing.
    fn failed(&self, place: Place, why: impl ToString) {
        self.state().ended.push((place, why.to_string()));
    }

    /// Returns processes that ended by themselves, and why.
    pub(super) fn ended(&self) -> Vec<(Place, String)> {
        self.look_at_processes();
        self.state().ended.clone()
    }

    /// Returns panics that nodes wrote into their logs, and failures of the harness.
    pub(super) fn panics(&self) -> Vec<String> {
        let of = |(place, node): (&Place, &Node)| {
            let place = *place;
            node.panics().into_iter().map(move |line| format!("{place}: {line}"))
        };
        let broken = self.state().broken.clone();
        self.nodes.iter().flat_map(of).chain(broken).collect()
    }

    /// Returns whether the process of a master was killed.
    pub(super) fn has_killed_a_master(&self) -> bool {
        self.state().deaths.iter().any(|(place, ..)| matches!(place, Place::Master(_)))
    }

    /// Returns what the nodes said, once all that they wrote is read: the reader, the times at
    /// which processes were killed, and the wall clock at the zero of `elapsed`.
    pub(super) fn said<T>(
        &self,
        read: impl FnOnce(&Lines, &[(Place, Duration, Duration)], u64) -> T,
    ) -> T {
        let deaths = self.state().deaths.clone();
        let mut lines = self.lines();
        lines.read();
        read(&lines, &deaths, self.start_ms)
    }

    /// Returns the lines of the harness.
    pub(super) fn notes(&self) -> Vec<String> {
        self.state().notes.clone()
    }

    /// Ends all processes, and hears no fault point any more.
    pub(super) fn end(&self) {
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.state().processes.clear();
    }
}
