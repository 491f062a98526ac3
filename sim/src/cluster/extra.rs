//! Processes beside the cluster's own: a second one with a node's identity, and strangers.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Arc, MutexGuard, PoisonError, atomic::AtomicU64},
};

use chatchat::{
    model::ids::NodeId,
    programs::{WorkerParams, run_worker},
};
use chatchat_scenarios::target::Place;
use dst_world::HostId;

use super::{CLONE, Cluster, HTTP_PORT, LINK_PORT, host_name};
use crate::stranger;

/// Machines of workers that nobody admits. Each has a join token that does not admit it.
pub(super) const UNADMITTED: [&str; 3] = ["unadmitted0", "unadmitted1", "unadmitted2"];

impl Cluster {
    pub(super) fn clones(&self) -> MutexGuard<'_, BTreeMap<Place, HostId>> {
        self.clones.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a second process with the identity and a copy of the disk of a node. False for a
    /// place that is none.
    pub fn clone_node(self: &Arc<Self>, place: Place) -> bool {
        if matches!(place, Place::Store | Place::Person(_)) {
            return false;
        }
        let name = host_name(place) + CLONE;
        let host = self.world.host(&name).unwrap_or_else(|| self.world.add_host(&name));
        if self.clones().insert(place, host).is_some() {
            return false;
        }
        self.world.roll_back(host, &self.world.disk_image(self.host(place)));
        // The first one keeps its way to be asked to stop.
        let stop = self.stops().remove(&place);
        self.boot_on(place, host, name);
        self.stops().extend(stop.map(|stop| (place, stop)));
        true
    }

    /// Ends a second process, and starts the first one again if it had to go.
    pub fn end_clone(self: &Arc<Self>, place: Place) {
        let host = self.clones().remove(&place);
        if let Some(host) = host {
            self.world.crash(host);
            self.boot(place);
        }
    }

    /// Lets somebody who belongs to nothing speak to the front ends and link ports of masters,
    /// and ask to join as workers, with join tokens that do not admit it. `label` is that of the fault's
    /// draws. Returns the number of its connections, as it grows.
    pub fn let_stranger_in(self: &Arc<Self>, label: &str, to: &[Place]) -> Arc<AtomicU64> {
        let addrs = to.iter().filter_map(|place| match place {
            Place::Master(_) => Some(host_name(*place)),
            _ => None,
        });
        let addrs: Vec<_> = addrs
            .flat_map(|name| [format!("{name}:{LINK_PORT}"), format!("{name}:{HTTP_PORT}")])
            .collect();
        let tapes =
            stranger::tapes(&self.world.captures(), |capture| Some(self.world.name(capture.to)));
        let heard = Arc::new(AtomicU64::new(0));
        let rng = self.world.seed().stream(&format!("faults/stranger/{label}"));
        let host = |name: &str| self.world.host(name).unwrap_or_else(|| self.world.add_host(name));
        let counts = Arc::clone(&heard);
        self.world.boot(host(stranger::HOST), |env| {
            let plain_port = HTTP_PORT;
            stranger::Stranger { env, rng, addrs, tapes, plain_port, heard: counts }.live()
        });
        for (name, (identity, token)) in UNADMITTED.iter().zip(self.unadmitted()) {
            let (it, token) = (Arc::clone(self), Some(token.to_owned()));
            self.world.boot(host(name), |env| async move {
                let keys = it.keys.source(identity);
                let params = WorkerParams { keys, token, ..it.worker(&env, 0, (*name).into()) };
                // It is turned away, and goes on asking.
                let _ = run_worker(env, params, pending()).await;
            });
        }
        heard
    }

    /// Returns whether a machine belongs to nobody of the cluster.
    pub(crate) fn is_stranger(&self, host: HostId) -> bool {
        let name = self.world.name(host);
        name == stranger::HOST || UNADMITTED.contains(&name.as_str())
    }

    /// Returns the number of the identity of each machine that nobody admits, and its join token.
    fn unadmitted(&self) -> impl Iterator<Item = (usize, &str)> {
        let first = self.shape.masters + self.shape.workers;
        (first..).zip(self.stale_tokens.iter().map(String::as_str))
    }

    /// Returns the nodes that nobody may admit, with the names of their machines.
    pub(crate) fn strangers(&self) -> BTreeMap<NodeId, &'static str> {
        let nodes = self.unadmitted().map(|(identity, _)| self.keys.identity(identity).0);
        nodes.zip(UNADMITTED).collect()
    }

    /// Sends the stranger away.
    pub fn end_stranger(&self) {
        for name in UNADMITTED.into_iter().chain([stranger::HOST]) {
            if let Some(host) = self.world.host(name) {
                self.world.crash(host);
            }
        }
    }
}
