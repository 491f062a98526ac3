//! Processes beside the cluster's own: a second one with a node's identity, and strangers.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{
        Arc, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use chatchat::programs::{WorkerParams, run_worker};
use chatchat_scenarios::target::Place;
use dst_world::HostId;

use super::{CLONE, Cluster, HTTP_PORT, LINK_PORT, host_name};
use crate::stranger;

/// Machine of a worker that nobody admits.
const UNADMITTED: &str = "unadmitted";

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
    /// and ask to join as a worker. Returns the number of its connections, as it grows.
    pub fn let_stranger_in(self: &Arc<Self>, to: &[Place]) -> Arc<AtomicU64> {
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
        let nth = self.strangers.fetch_add(1, Ordering::Relaxed);
        let rng = self.world.seed().stream(&format!("faults/stranger/{nth}"));
        let host = |name: &str| self.world.host(name).unwrap_or_else(|| self.world.add_host(name));
        let counts = Arc::clone(&heard);
        self.world.boot(host(stranger::HOST), |env| {
            let plain_port = HTTP_PORT;
            stranger::Stranger { env, rng, addrs, tapes, plain_port, heard: counts }.live()
        });
        let it = Arc::clone(self);
        self.world.boot(host(UNADMITTED), |env| async move {
            let nobody = it.shape.masters + it.shape.workers;
            let keys = it.keys.source(nobody);
            let params =
                WorkerParams { keys, token: None, ..it.worker(&env, 0, UNADMITTED.into()) };
            // It is turned away, or goes on asking.
            let _ = run_worker(env, params, pending()).await;
        });
        heard
    }

    /// Returns whether a machine belongs to nobody of the cluster.
    pub(crate) fn is_stranger(&self, host: HostId) -> bool {
        [stranger::HOST, UNADMITTED].contains(&self.world.name(host).as_str())
    }

    /// Sends the stranger away.
    pub fn end_stranger(&self) {
        for name in [stranger::HOST, UNADMITTED] {
            if let Some(host) = self.world.host(name) {
                self.world.crash(host);
            }
        }
    }
}
