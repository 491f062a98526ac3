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
use chatchat_scenarios::{fault::Action, plan::Plan, target::Place};
use dst_world::HostId;

use super::{CLONE, Cluster, HTTP_PORT, LINK_PORT, host_name, impostors::IMPOSTOR};
use crate::{
    deployment::{Begun, FaultId},
    stranger::{self, Strangers, fake},
};

/// Machines of workers that nobody admits. Each has a join token that does not admit it.
pub(super) const UNADMITTED: [&str; 3] = ["unadmitted0", "unadmitted1", "unadmitted2"];

/// Returns whether a stranger is among the faults of a plan.
pub(super) fn has_stranger(plan: &Plan) -> bool {
    plan.faults.iter().any(|fault| matches!(fault.action, Action::Stranger { .. }))
}

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

    /// Lets a stranger in until the fault of this number ends. It bites where masters take its
    /// connections. If the story names it, it must have been seen through as well; one that was drawn
    /// may be there while no master and no worker can answer it.
    pub(super) fn with_stranger(
        self: &Arc<Self>,
        nth: FaultId,
        label: &str,
        to: &[Place],
    ) -> Begun<Self> {
        let before = self.deceits.seen_through();
        let heard = self.let_stranger_in(label, to);
        Begun::until(move |it: &Arc<Self>| {
            it.end_stranger();
            let mut counts = it.deceits.seen_through().into_iter().zip(before);
            let was_seen_through = counts.all(|(now, before)| now > before);
            heard.load(Ordering::Relaxed) > 0 && (was_seen_through || nth >= it.named)
        })
    }

    /// Lets somebody who belongs to nothing speak to the front ends and link ports of masters, ask to
    /// join as workers with join tokens that do not admit it, and pass for members and for a master.
    /// `label` is that of the fault's draws. Returns the number of its connections, as it grows.
    fn let_stranger_in(self: &Arc<Self>, label: &str, to: &[Place]) -> Arc<AtomicU64> {
        let masters = to.iter().copied().filter(|place| matches!(place, Place::Master(_)));
        let masters: Vec<_> = masters.collect();
        let addrs: Vec<_> = masters
            .iter()
            .map(|place| host_name(*place))
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
        let rng = self.world.seed().stream(&format!("faults/impostor/{label}"));
        let it = Arc::clone(self);
        self.world.boot(host(IMPOSTOR), |env| it.pass_for_members(env, rng, masters));
        let it = Arc::clone(self);
        self.world.boot(host(fake::HOST), |env| it.pass_for_a_master(env));
        for (name, (identity, token)) in UNADMITTED.iter().zip(self.unadmitted()) {
            let (it, token) = (Arc::clone(self), Some(token.to_owned()));
            self.world.boot(host(name), |env| async move {
                let keys = it.keys.source(identity);
                let mut params = it.worker(&env, 0, (*name).into());
                // Masters refuse the worker, so that it looks here again and again.
                params.masters.push(format!("{}:{LINK_PORT}", fake::HOST));
                let params = WorkerParams { keys, token, ..params };
                // It is turned away, and goes on asking.
                let _ = run_worker(env, params, pending()).await;
            });
        }
        heard
    }

    /// Returns whether a machine belongs to nobody of the cluster.
    pub(crate) fn is_stranger(&self, host: HostId) -> bool {
        let name = self.world.name(host);
        machines_of_strangers().any(|of_stranger| of_stranger == name)
    }

    /// Returns the number of the identity of each machine that nobody admits, and its join token.
    pub(super) fn unadmitted(&self) -> impl Iterator<Item = (usize, &str)> {
        let first = self.shape.masters + self.shape.workers;
        (first..).zip(self.stale_tokens.iter().map(String::as_str))
    }

    /// Returns the nodes that nobody may admit, and the deceits that were believed.
    pub(crate) fn strangers(&self) -> Strangers {
        let nodes = self.unadmitted().map(|(identity, _)| self.keys.identity(identity).0);
        Strangers { nodes: nodes.zip(UNADMITTED).collect(), believed: self.deceits.believed() }
    }

    /// Sends the stranger away.
    fn end_stranger(&self) {
        for name in machines_of_strangers() {
            if let Some(host) = self.world.host(name) {
                self.world.crash(host);
            }
        }
    }
}

/// Returns the names of the machines that belong to nobody of the cluster.
fn machines_of_strangers() -> impl Iterator<Item = &'static str> {
    UNADMITTED.into_iter().chain([stranger::HOST, IMPOSTOR, fake::HOST])
}
