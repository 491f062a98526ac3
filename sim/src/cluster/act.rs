//! The cluster in the simulated world as a deployment: what each kind of fault does to the world.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    time::Duration,
};

use chatchat::{
    env::{BoxFuture, Env},
    model::ids::NodeId,
    store::Store,
};
use chatchat_scenarios::{
    cluster as shape,
    fault::{Action, Dose, Links},
    oracle::{EpochChange, PageTaken},
    target::{Place, Target},
    workload::Admin,
};
use dst_world::{DiskFault, DiskImage, HostId, Link, World};
use serde_json::Value;

use super::{Cluster, place_named};
use crate::{
    deployment::{Begun, Deployment, FaultId, OnFaultPoint, Step, Undo},
    store::Trouble,
    units::{ns, ppm},
};

/// Time that a machine is off whose disk is rolled back.
const BACK_AFTER: Duration = Duration::from_secs(1);

/// Marks of the lines in the world's log that tell of the end of a process.
const ENDS: [&str; 2] = [r#""kind":"crash""#, r#""kind":"exit""#];

/// Contents of disks before a roll-back.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Number of the store's writes.
    writes: usize,
    images: BTreeMap<Place, DiskImage>,
}

impl Cluster {
    /// Begins a fault of a kind that only the simulated world carries out so.
    fn begin(self: &Arc<Self>, nth: FaultId, label: &str, action: &Action) -> Begun<Self> {
        let disk = DiskFault::default();
        match action {
            Action::Slow { target, factor } => self.slowed(nth, target, *factor),
            Action::Corrupt { links, rate } => {
                self.corrupted(nth, label, links, ppm(*rate), World::begin_corruption)
            }
            Action::Inject { links, rate } => {
                self.corrupted(nth, label, links, ppm(*rate), World::begin_injection)
            }
            Action::Reset { links } => {
                let world = self.world();
                self.broken(links, |from, to| world.reset_between(from, to))
            }
            Action::HalfOpen { links } => {
                let world = self.world();
                self.broken(links, |from, to| world.half_open(from, to))
            }
            Action::Torn { target, rate } => {
                self.on_disks(nth, label, target, DiskFault { torn_ppm: ppm(*rate), ..disk })
            }
            Action::BitRot { target, rate } => {
                self.on_disks(nth, label, target, DiskFault { rot_ppm: ppm(*rate), ..disk })
            }
            Action::SyncSlow { target, by } => {
                self.on_disks(nth, label, target, DiskFault { sync_takes_ns: ns(*by), ..disk })
            }
            Action::SyncError { target, rate } => {
                self.on_disks(nth, label, target, DiskFault { sync_error_ppm: ppm(*rate), ..disk })
            }
            Action::DiskFull { target } => {
                self.on_disks(nth, label, target, DiskFault { is_full: true, ..disk })
            }
            Action::ClockOffset { target, by } => {
                let by_ns = by.ms.saturating_mul(1_000_000);
                let step = move |it: &Self, host, by_ns| it.world().step_wall(host, by_ns);
                self.on_clocks(
                    target,
                    move |it, host| step(it, host, by_ns),
                    move |it, host| {
                        step(it, host, by_ns.saturating_neg());
                    },
                )
            }
            Action::ClockDrift { target, rate } => {
                let ppb = (rate * 1e9).round() as i64;
                let set = |it: &Self, host, ppb| it.world().set_drift(host, ppb);
                self.on_clocks(
                    target,
                    move |it, host| set(it, host, ppb),
                    move |it, host| {
                        set(it, host, 0);
                    },
                )
            }
            Action::ClockJump { target, by } => {
                let by_ns = by.ms.saturating_mul(1_000_000);
                let jump = move |it: &Self, host| it.world().jump_clock(host, by_ns);
                self.on_clocks(target, jump, |_, _| {})
            }
            Action::LostAck { dose } => self.on_store(nth, label, Trouble::LostAck, *dose),
            Action::StoreError { dose } => self.on_store(nth, label, Trouble::Error, *dose),
            Action::StoreConflict { dose } => self.on_store(nth, label, Trouble::Conflict, *dose),
            Action::StorePool { count, by } => {
                self.store().exhaust(nth, *count, *by);
                Begun::until(move |it: &Arc<Self>| it.store().end_trouble(nth) > 0)
            }
            Action::StorePromote => self.promoted(nth, label),
            Action::FdLimit { target, count } => self.bounded(nth, target, *count),
            Action::Clone { target } => self.cloned(target),
            Action::Rollback { target, .. } => self.rolled_back(nth, target),
            Action::Restore { .. } => self.restored(),
            Action::Stranger { to } => self.with_stranger(nth, label, &self.places_of(to)),
            // The agenda's own code carries these out.
            Action::Crash { .. }
            | Action::Exit { .. }
            | Action::Wipe { .. }
            | Action::Stop { .. }
            | Action::Pause { .. }
            | Action::Partition { .. }
            | Action::Delay { .. }
            | Action::Bandwidth { .. }
            | Action::Loss { .. }
            | Action::ConnectHang { .. }
            | Action::Swizzle { .. }
            | Action::Restart { .. }
            | Action::PersonRestart { .. }
            | Action::Expel { .. } => Begun::instant(false),
        }
    }

    fn hosts(&self, target: &Target) -> Vec<HostId> {
        let places = self.places_of(std::slice::from_ref(target));
        places.into_iter().map(|place| self.host(place)).collect()
    }

    fn hosts_of(&self, links: &Links) -> Vec<(HostId, HostId)> {
        let directions = self.directions(links).into_iter();
        let mut hosts: Vec<_> =
            directions.map(|(from, to)| (self.host(from), self.host(to))).collect();
        hosts.sort_unstable();
        hosts
    }

    fn slowed(&self, nth: usize, target: &Target, factor: f64) -> Begun<Self> {
        let hosts = self.hosts(target);
        // Factors are a few digits long.
        let thousandths = (factor * 1000.0).round() as u64;
        for host in &hosts {
            self.world().slow_down(*host, nth, thousandths);
        }
        Begun::until(move |it: &Arc<Self>| {
            let touched = hosts.iter().map(|host| it.world().speed_up(*host, nth));
            touched.sum::<u64>() > 0
        })
    }

    /// Changes the bytes of so many of a million segments, in the way that `begin` begins.
    fn corrupted(
        &self,
        nth: usize,
        label: &str,
        links: &Links,
        ppm: u64,
        begin: fn(&World, HostId, HostId, usize, &str, u64),
    ) -> Begun<Self> {
        let directions = self.hosts_of(links);
        for (from, to) in &directions {
            begin(self.world(), *from, *to, nth, label, ppm);
        }
        Begun::until(move |it: &Arc<Self>| {
            let end = |(from, to): &(_, _)| it.world().end_corruption(*from, *to, nth);
            directions.iter().map(end).sum::<u64>() > 0
        })
    }

    fn broken(&self, links: &Links, end: impl Fn(HostId, HostId) -> usize) -> Begun<Self> {
        let directions = self.hosts_of(links);
        let ends: usize = directions.iter().map(|(from, to)| end(*from, *to)).sum();
        Begun::instant(ends > 0)
    }

    fn on_disks(&self, nth: usize, label: &str, target: &Target, effect: DiskFault) -> Begun<Self> {
        let hosts = self.hosts(target);
        for host in &hosts {
            self.world().add_disk_fault(*host, nth, label, effect);
        }
        Begun::until(move |it: &Arc<Self>| {
            let end = |host: &HostId| it.world().remove_disk_fault(*host, nth);
            hosts.iter().map(end).sum::<u64>() > 0
        })
    }

    /// Sets clocks, also on machines that are off; nobody sees it there before a boot.
    fn on_clocks(
        &self,
        target: &Target,
        set: impl Fn(&Self, HostId),
        set_back: impl Fn(&Self, HostId) + Send + 'static,
    ) -> Begun<Self> {
        let hosts = self.hosts(target);
        for host in &hosts {
            set(self, *host);
        }
        let bit = self.any_runs(&hosts);
        let undo: Undo<Self> = Box::new(move |it: &Arc<Self>| {
            for host in &hosts {
                set_back(it, *host);
            }
            it.any_runs(&hosts)
        });
        Begun { undo, bit, steps: Vec::new() }
    }

    fn any_runs(&self, hosts: &[HostId]) -> bool {
        hosts.iter().any(|host| self.world().is_running(*host))
    }

    fn on_store(&self, nth: usize, label: &str, trouble: Trouble, dose: Dose) -> Begun<Self> {
        let rng = self.world().seed().stream(&format!("faults/store/{label}"));
        self.store().begin_trouble(nth, trouble, dose, rng);
        Begun::until(move |it: &Arc<Self>| it.store().end_trouble(nth) > 0)
    }

    /// Leaves the store's commits without answers. The agenda ends the primary and starts the standby.
    fn promoted(&self, nth: FaultId, label: &str) -> Begun<Self> {
        let rng = self.world().seed().stream(&format!("faults/store/{label}"));
        self.store().begin_promotion(nth, rng);
        Begun::until(move |it: &Arc<Self>| {
            let held = it.store().end_trouble(nth);
            if it.store().is_promoting(nth) {
                // Healed before its time: the primary must not go on.
                it.exit(Place::Store);
            }
            it.start_again(Place::Store);
            held > 0
        })
    }

    fn bounded(&self, nth: usize, target: &Target, count: u32) -> Begun<Self> {
        let hosts = self.hosts(target);
        for host in &hosts {
            self.world().bound_fds(*host, nth, count as usize);
        }
        Begun::until(move |it: &Arc<Self>| {
            let end = |host: &HostId| it.world().unbound_fds(*host, nth);
            hosts.iter().map(end).sum::<u64>() > 0
        })
    }

    fn cloned(self: &Arc<Self>, target: &Target) -> Begun<Self> {
        let mut places = self.places_of(std::slice::from_ref(target));
        places.retain(|place| self.clone_node(*place));
        Begun::at_once(!places.is_empty(), move |it: &Arc<Self>| {
            for place in places {
                it.end_clone(place);
            }
        })
    }

    /// Cuts the power of places and puts the copies that were kept on their disks. The store gets
    /// the right content back when the fault ends; nodes go on with what they have.
    fn rolled_back(&self, nth: usize, target: &Target) -> Begun<Self> {
        let (world, store) = (self.world(), self.store());
        let kept = self.kept().remove(&nth).unwrap_or_default();
        let (mut right, mut steps) = (None, Vec::new());
        let mut places = self.places_of(std::slice::from_ref(target));
        places.retain(|place| *place == Place::Store || kept.images.contains_key(place));
        for place in &places {
            match kept.images.get(place) {
                Some(image) => {
                    world.roll_back(self.host(*place), image);
                }
                None => {
                    world.crash(self.host(Place::Store));
                    right = Some(store.roll_back(kept.writes).expect("SQLite works in memory"));
                }
            }
            steps.push((BACK_AFTER, Step::Start(*place)));
        }
        let begun = Begun::at_once(!places.is_empty(), move |it: &Arc<Self>| {
            if let Some(right) = right {
                it.world().crash(it.host(Place::Store));
                it.store().put_back(right);
            }
            for place in places {
                it.start_again(place);
            }
        });
        begun.then(steps)
    }
}

impl Deployment for Cluster {
    fn elapsed(&self) -> Duration {
        self.world().elapsed()
    }

    fn sleep(&self, by: Duration) -> BoxFuture<'static, ()> {
        let world = self.world().clone();
        Box::pin(async move { world.sleep(by).await })
    }

    fn supervise(&self, task: BoxFuture<'static, ()>) {
        self.world().supervise(task);
    }

    fn note(&self, kind: &str, members: &[(&str, Value)]) {
        self.world().note("", kind, members);
    }

    fn shape(&self) -> &shape::Cluster {
        self.shape()
    }

    fn front_ends(&self) -> Vec<String> {
        self.front_ends()
    }

    fn person(&self, nth: usize) -> BoxFuture<'_, Env> {
        Box::pin(self.world().idle(self.host(Place::Person(nth))))
    }

    fn operator(&self) -> BoxFuture<'_, Env> {
        self.operator()
    }

    fn admins(&self) -> Vec<Admin> {
        self.admins()
    }

    fn node_at(&self, place: Place) -> Option<NodeId> {
        self.number(place).map(|number| self.keys.identity(number).0)
    }

    fn invite(&self, place: Place) {
        self.invite(place);
    }

    fn direct_store(&self) -> Store {
        self.direct_store()
    }

    fn places(&self, target: &Target) -> Vec<Place> {
        self.places(target)
    }

    fn ends(&self) -> Vec<(Place, Duration)> {
        let lines = self.world().log_lines();
        let ends = lines.iter().filter(|line| ENDS.iter().any(|kind| line.contains(kind)));
        let ends = ends.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        ends.filter_map(|line| {
            let place = self.place(line["host"].as_str()?)?;
            Some((place, Duration::from_nanos(line["t"].as_u64()?)))
        })
        .collect()
    }

    fn epoch_changes(&self) -> Vec<EpochChange> {
        self.epoch_changes().clone()
    }

    fn pages_taken(&self) -> Vec<PageTaken> {
        self.pages_taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_at_work(&self, place: Place) -> bool {
        let host = self.host(place);
        self.world().is_running(host) && !self.world().is_paused(host)
    }

    fn start(self: &Arc<Self>) {
        self.start();
    }

    /// Nothing to prepare: all that one step does happens at one moment.
    fn hold(&self, _places: &[Place]) {}

    fn crash(&self, place: Place) -> bool {
        self.world().crash(self.host(place))
    }

    fn exit(&self, place: Place) -> bool {
        self.world().exit(self.host(place))
    }

    fn wipe(&self, place: Place) -> bool {
        self.wipe(place)
    }

    fn stop(&self, place: Place) -> bool {
        self.stop(place)
    }

    fn pause(&self, place: Place) -> bool {
        self.world().pause(self.host(place))
    }

    fn resume(&self, place: Place) -> bool {
        self.world().resume(self.host(place))
    }

    fn start_again(self: &Arc<Self>, place: Place) {
        self.start_again(place);
    }

    fn break_line(&self, fault: FaultId, from: Place, to: Place, link: Link) {
        self.world().add_fault(self.host(from), self.host(to), fault, link);
    }

    fn mend(&self, fault: FaultId, from: Place, to: Place) -> u64 {
        self.world().remove_fault(self.host(from), self.host(to), fault)
    }

    fn keep(&self, fault: FaultId, action: &Action) {
        let targets: Vec<_> = action.targets().into_iter().cloned().collect();
        let mut kept = Kept { writes: self.store().writes(), ..Kept::default() };
        for place in self.places_of(&targets) {
            if !matches!(place, Place::Store | Place::Person(_)) {
                kept.images.insert(place, self.world().disk_image(self.host(place)));
            }
        }
        self.kept().insert(fault, kept);
    }

    fn act(self: &Arc<Self>, fault: FaultId, label: &str, action: &Action) -> Begun<Self> {
        self.begin(fault, label, action)
    }

    fn on_fault_point(&self, act: OnFaultPoint) {
        let (world, by_name) = (self.world().clone(), self.by_name.clone());
        self.world().on_fault_point(move |host, name| {
            act(name, &|| place_named(&by_name, &world.name(host)));
        });
    }
}
