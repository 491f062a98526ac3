//! The real cluster as a deployment.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use chatchat::{
    env::{BoxFuture, Env},
    model::{ids::NodeId, time::Mono},
    store::Store,
};
use chatchat_scenarios::{
    cluster as shape,
    fault::Action,
    oracle::{EpochChange, PageTaken},
    target::{Place, Target},
    workload::Admin,
};
use dst_world::Link;
use serde_json::{Value, json};

use super::RealCluster;
use crate::{
    cluster::operators::ADMIN_TOKEN,
    deployment::{Begun, Deployment, FaultId, OnFaultPoint},
    real::{
        node::{Node, Process},
        slow::slow_down,
    },
    units::ns,
};

impl Deployment for RealCluster {
    fn elapsed(&self) -> Duration {
        self.env.now().since(Mono::ZERO)
    }

    fn sleep(&self, by: Duration) -> BoxFuture<'static, ()> {
        let env = self.env.clone();
        Box::pin(async move { env.sleep(by).await })
    }

    fn supervise(&self, task: BoxFuture<'static, ()>) {
        self.env.spawn("harness", task);
    }

    fn note(&self, kind: &str, members: &[(&str, Value)]) {
        let mut line = json!({ "t": ns(self.elapsed()), "kind": kind });
        for (name, value) in members {
            line[*name] = value.clone();
        }
        self.state().notes.push(line.to_string());
    }

    fn shape(&self) -> &shape::Cluster {
        &self.shape
    }

    fn front_ends(&self) -> Vec<String> {
        let of = |node: &Node| Some(format!("http://{}", node.http.as_ref()?));
        self.nodes.values().filter_map(of).collect()
    }

    fn person(&self, _nth: usize) -> BoxFuture<'_, Env> {
        Box::pin(async { self.env.clone() })
    }

    fn operator(&self) -> BoxFuture<'_, Env> {
        Box::pin(async { self.env.clone() })
    }

    fn admins(&self) -> Vec<Admin> {
        let admin = |node: &Node| {
            let url = format!("http://{}", node.admin.as_ref()?);
            Some(Admin { url, token: ADMIN_TOKEN.to_owned() })
        };
        let admins = self.nodes.values().filter_map(admin);
        if self.has_operators { admins.collect() } else { Vec::new() }
    }

    fn node_at(&self, place: Place) -> Option<NodeId> {
        self.lines().node(place)
    }

    fn invite(&self, place: Place) {
        let Some(node) = self.nodes.get(&place) else { return };
        if let Place::Worker(worker) = place {
            self.state().tokens.replace(worker);
        }
        if let Err(why) = self.write_token(place, node) {
            self.failed(place, why);
        }
    }

    fn direct_store(&self) -> Store {
        self.store.clone()
    }

    fn places(&self, target: &Target) -> Vec<Place> {
        let fixed = target.places(&self.shape, 0);
        fixed.unwrap_or_else(|| self.player(target).into_iter().collect())
    }

    fn ends(&self) -> Vec<(Place, Duration)> {
        self.look_at_processes();
        let state = self.state();
        let kills = state.deaths.iter().map(|(place, from, _)| (*place, *from));
        kills.chain(state.left.iter().copied()).collect()
    }

    /// None: plans with a restore are refused before they run.
    fn epoch_changes(&self) -> Vec<EpochChange> {
        Vec::new()
    }

    fn pages_taken(&self) -> Vec<PageTaken> {
        Vec::new()
    }

    fn is_at_work(&self, place: Place) -> bool {
        self.look_at_processes();
        place == Place::Store || self.with_process(place, |process| process.is_at_work())
    }

    fn start(self: &Arc<Self>) {
        for place in self.nodes.keys() {
            self.begin(*place);
        }
    }

    fn hold(&self, places: &[Place]) {
        let at = self.elapsed();
        let mut state = self.state();
        for place in places {
            if let Some(process) = state.processes.get_mut(place) {
                process.pause();
                state.held.insert(*place, at);
            }
        }
    }

    fn crash(&self, place: Place) -> bool {
        self.kill(place)
    }

    fn exit(&self, place: Place) -> bool {
        self.kill(place)
    }

    fn wipe(&self, place: Place) -> bool {
        let killed = self.kill(place);
        if let Some(node) = self.nodes.get(&place)
            && let Err(why) = self.renew(place, node)
        {
            self.failed(place, why);
        }
        killed
    }

    fn stop(&self, place: Place) -> bool {
        self.note("asked_to_stop", &[("place", place.to_string().into())]);
        self.with_process(place, Process::ask)
    }

    fn pause(&self, place: Place) -> bool {
        self.with_process(place, Process::pause)
    }

    fn resume(&self, place: Place) -> bool {
        self.with_process(place, Process::resume)
    }

    fn start_again(self: &Arc<Self>, place: Place) {
        if self.is_running(place) && self.with_process(place, |process| process.was_asked()) {
            self.note("killed", &[("place", place.to_string().into())]);
            self.kill(place);
        }
        self.begin(place);
    }

    fn break_line(&self, fault: FaultId, from: Place, to: Place, link: Link) {
        let done = self.network.as_ref().map(|network| network.break_line(fault, from, to, link));
        if let Some(Err(why)) = done {
            self.failed(from, why);
        }
    }

    fn mend(&self, fault: FaultId, from: Place, to: Place) -> u64 {
        let done = self.network.as_ref().map(|network| network.mend(fault, from, to));
        done.unwrap_or(Ok(0)).unwrap_or_else(|why| {
            self.failed(from, why);
            0
        })
    }

    fn keep(&self, _fault: FaultId, _action: &Action) {}

    fn act(self: &Arc<Self>, _fault: FaultId, _label: &str, action: &Action) -> Begun<Self> {
        match action {
            Action::Slow { target, factor } => self.slowed(target, *factor),
            // Such plans are refused before they run.
            _ => Begun::instant(false),
        }
    }

    fn on_fault_point(&self, act: OnFaultPoint) {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        *listener = Some(Arc::new(act));
    }
}

impl RealCluster {
    fn slowed(self: &Arc<Self>, target: &Target, factor: f64) -> Begun<Self> {
        let places = self.places_of(std::slice::from_ref(target));
        let slow = |place: &Place| {
            let (it, place) = (Arc::clone(self), *place);
            let may_run = move |may| {
                it.with_process(place, |process| process.may_run(may));
            };
            self.env.spawn("slow", slow_down(self.env.clone(), factor, may_run)).abort_on_drop()
        };
        let slowing: Vec<_> = places.iter().map(slow).collect();
        let bit = places.iter().any(|place| self.is_running(*place));
        Begun::at_once(bit, move |it: &Arc<Self>| {
            drop(slowing);
            for place in places {
                it.with_process(place, |process| process.may_run(true));
            }
        })
    }
}
