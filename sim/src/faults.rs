//! Carries a plan's faults out: begins each at its time or moment, undoes it, heals all at the end.
//!
//! 1. A fault that is bound to a moment begins in the middle of the step that announced it.
//! 2. Whom a fault befalls is found when it begins; the same are healed.
//! 3. A fault *bit* when it changed something: a process ended or stopped, a segment was
//!    touched, a clock of a running machine moved.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chatchat_scenarios::{
    fault::{Action, Direction, Kind, Links, Start},
    plan::{Incident, Plan},
    target::{Place, Target},
};
use dst_world::{HostId, Link};
use thiserror::Error;
use tokio::sync::Notify;

use crate::cluster::Cluster;

/// A plan needs kinds of fault that the simulated world cannot carry out. Nothing was run.
#[derive(Debug, Error)]
#[error("{story}: the simulated world cannot carry out {} yet; it can: {}", names(kinds), names(&supported()))]
pub struct UnsupportedKinds {
    /// Name of the plan's story.
    pub story: String,
    /// Kinds that it cannot carry out.
    pub kinds: Vec<Kind>,
}

/// Returns whether the simulated world can carry out a kind of fault.
#[must_use]
pub const fn is_supported(kind: Kind) -> bool {
    match kind {
        Kind::Crash
        | Kind::Exit
        | Kind::Pause
        | Kind::Wipe
        | Kind::Partition
        | Kind::Delay
        | Kind::Bandwidth
        | Kind::Loss
        | Kind::Reset
        | Kind::ConnectHang
        | Kind::ClockOffset
        | Kind::ClockDrift
        | Kind::ClockJump => true,
        Kind::Slow
        | Kind::HalfOpen
        | Kind::Corrupt
        | Kind::Swizzle
        | Kind::Torn
        | Kind::BitRot
        | Kind::SyncSlow
        | Kind::SyncError
        | Kind::DiskFull
        | Kind::LostAck
        | Kind::StoreError => false,
    }
}

/// Checks that the simulated world can carry out all of a plan's faults.
///
/// # Errors
/// [`UnsupportedKinds`] with the ones that it cannot.
pub fn check(plan: &Plan) -> Result<(), UnsupportedKinds> {
    let kinds: Vec<_> = plan.kinds().into_iter().filter(|kind| !is_supported(*kind)).collect();
    if kinds.is_empty() {
        Ok(())
    } else {
        Err(UnsupportedKinds { story: plan.story.clone(), kinds })
    }
}

fn supported() -> Vec<Kind> {
    Kind::ALL.iter().copied().filter(|kind| is_supported(*kind)).collect()
}

fn names(kinds: &[Kind]) -> String {
    kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ")
}

/// Faults of one run.
pub struct Faults {
    cluster: Arc<Cluster>,
    plan: Plan,
    /// Virtual time at which the plan's time began.
    start: Duration,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Steps by their time since the plan's start.
    agenda: BTreeMap<(Duration, usize), Step>,
    announced: BTreeMap<&'static str, u32>,
    active: BTreeMap<usize, Active>,
    incidents: Vec<Incident>,
    is_over: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Begin,
    Undo,
}

/// Fault that is on, with what undoes it.
struct Active {
    incident: usize,
    undo: Undo,
}

enum Undo {
    Boot(Vec<Place>),
    Resume(Vec<Place>),
    Links(Vec<(HostId, HostId)>),
    StepWall(Vec<Place>, i64),
    Drift(Vec<Place>),
    Nothing,
}

fn ppm(rate: f64) -> u64 {
    // A rate is within 0 to 1.
    (rate * 1_000_000.0).round() as u64
}

fn ns(by: Duration) -> u64 {
    u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)
}

impl Faults {
    /// Begins to carry out a plan. Its time starts now.
    pub fn start(cluster: &Arc<Cluster>, plan: &Plan) -> Arc<Self> {
        let mut state = State::default();
        for (nth, fault) in plan.faults.iter().enumerate() {
            if let Start::At(at) = fault.start {
                state.agenda.insert((at, nth), Step::Begin);
            }
        }
        let world = cluster.world();
        let it = Arc::new(Self {
            cluster: Arc::clone(cluster),
            plan: plan.clone(),
            start: world.elapsed(),
            state: Mutex::new(state),
            changed: Notify::new(),
        });
        let listens = Arc::clone(&it);
        world.on_fault_point(move |host, name| listens.on_fault_point(host, name));
        let drives = Arc::clone(&it);
        world.supervise(async move { drives.drive().await });
        it
    }

    /// Time since the plan's start.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.cluster.world().elapsed().saturating_sub(self.start)
    }

    /// Virtual time at which the plan's time began.
    #[must_use]
    pub const fn started(&self) -> Duration {
        self.start
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn drive(&self) {
        loop {
            let changed = self.changed.notified();
            let next = self.state().agenda.first_key_value().map(|((at, _), _)| *at);
            match next {
                Some(at) if at <= self.now() => {
                    let first = self.state().agenda.pop_first();
                    if let Some(((_, nth), step)) = first {
                        match step {
                            Step::Begin => self.begin(nth, None),
                            Step::Undo => self.undo(nth),
                        }
                    }
                }
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = changed => {}
                        () = self.cluster.world().sleep(at.saturating_sub(self.now())) => {}
                    }
                }
                None => changed.await,
            }
        }
    }

    fn on_fault_point(&self, host: HostId, name: &'static str) {
        let due: Vec<usize> = {
            let mut state = self.state();
            if state.is_over {
                return;
            }
            let count = state.announced.entry(name).or_default();
            *count += 1;
            let count = *count;
            let is_due = |start: &Start| match start {
                Start::When { point, nth } => point.name() == name && *nth == count,
                Start::At(_) => false,
            };
            let faults = self.plan.faults.iter().enumerate();
            faults.filter(|(_, fault)| is_due(&fault.start)).map(|(nth, _)| nth).collect()
        };
        if due.is_empty() {
            return;
        }
        let announcer = self.cluster.place(&self.cluster.world().name(host));
        for nth in due {
            self.begin(nth, announcer);
        }
    }

    fn places(&self, targets: &[Target]) -> Vec<Place> {
        let mut places: Vec<_> =
            targets.iter().flat_map(|target| self.cluster.places(target)).collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// Returns the directions that `links` stands for now.
    fn directions(&self, links: &Links) -> Vec<(HostId, HostId)> {
        let (from, to) = (self.places(&links.from), self.places(&links.to));
        let host = |place: &Place| self.cluster.host(*place);
        let mut directions = Vec::new();
        for from in &from {
            for to in to.iter().filter(|to| *to != from) {
                if links.direction != Direction::Back {
                    directions.push((host(from), host(to)));
                }
                if links.direction != Direction::Forward {
                    directions.push((host(to), host(from)));
                }
            }
        }
        directions.sort_unstable();
        directions.dedup();
        directions
    }

    fn begin(&self, nth: usize, announcer: Option<Place>) {
        let fault = &self.plan.faults[nth];
        let now = self.now();
        let action = fault.action.clone().with_targets(|target| match (target, announcer) {
            (Target::Announcer, Some(place)) => Target::One(place),
            _ => target.clone(),
        });
        let members = [("fault", nth.into()), ("action", action.to_string().into())];
        self.cluster.world().note("", "fault", &members);
        let (undo, bit) = self.act(nth, &action);
        let mut state = self.state();
        let incident = state.incidents.len();
        let is_instant = fault.action.kind().is_instant();
        let until = is_instant.then_some(now);
        state.incidents.push(Incident { fault: nth, from: now, until, bit });
        if !is_instant {
            state.active.insert(nth, Active { incident, undo });
            if let Some(lasts) = fault.lasts {
                state.agenda.insert((now + lasts, nth), Step::Undo);
                self.changed.notify_one();
            }
        }
    }

    /// Does it. Answers how it is undone and whether it has bitten yet.
    fn act(&self, nth: usize, action: &Action) -> (Undo, bool) {
        let world = self.cluster.world();
        let hit_places = |target: &Target, act: &dyn Fn(Place) -> bool| {
            let mut places = self.places(std::slice::from_ref(target));
            places.retain(|place| act(*place));
            places
        };
        let hit = |target: &Target, act: &dyn Fn(HostId) -> bool| {
            hit_places(target, &|place| act(self.cluster.host(place)))
        };
        let line = |links: &Links, link: Link| {
            let directions = self.directions(links);
            for (from, to) in &directions {
                world.add_fault(*from, *to, nth, link);
            }
            // Whether it bit is known when it ends.
            (Undo::Links(directions), false)
        };
        // Clocks are set on machines that are off as well; nobody sees it there before a boot.
        let clocks = |target: &Target, set: &dyn Fn(HostId)| {
            let places = hit(target, &|host| {
                set(host);
                true
            });
            let bit = self.any_runs(&places);
            (places, bit)
        };
        let clear = Link::default();
        match action {
            Action::Crash { target } => booted(hit(target, &|host| world.crash(host))),
            Action::Exit { target } => booted(hit(target, &|host| world.exit(host))),
            Action::Wipe { target } => {
                booted(hit_places(target, &|place| self.cluster.wipe(place)))
            }
            Action::Pause { target } => {
                let places = hit(target, &|host| world.pause(host));
                let bit = !places.is_empty();
                (Undo::Resume(places), bit)
            }
            Action::Partition { links } => line(links, Link { cut: true, ..clear }),
            Action::Delay { links, by, jitter } => {
                line(links, Link { delay_ns: ns(*by), jitter_ns: ns(*jitter), ..clear })
            }
            Action::Bandwidth { links, bytes_per_second } => {
                line(links, Link { bytes_per_second: Some(*bytes_per_second), ..clear })
            }
            Action::Loss { links, rate } => line(links, Link { loss_ppm: ppm(*rate), ..clear }),
            Action::ConnectHang { links, rate } => {
                line(links, Link { syn_loss_ppm: ppm(*rate), ..clear })
            }
            Action::Reset { links } => {
                let directions = self.directions(links);
                let ends: usize =
                    directions.iter().map(|(from, to)| world.reset_between(*from, *to)).sum();
                (Undo::Nothing, ends > 0)
            }
            Action::ClockOffset { target, by } => {
                let by_ns = by.ms.saturating_mul(1_000_000);
                let (places, bit) = clocks(target, &|host| world.step_wall(host, by_ns));
                (Undo::StepWall(places, by_ns.saturating_neg()), bit)
            }
            Action::ClockDrift { target, rate } => {
                let ppb = (rate * 1e9).round() as i64;
                let (places, bit) = clocks(target, &|host| world.set_drift(host, ppb));
                (Undo::Drift(places), bit)
            }
            Action::ClockJump { target, by } => {
                let by_ns = by.ms.saturating_mul(1_000_000);
                let (_, bit) = clocks(target, &|host| world.jump_clock(host, by_ns));
                (Undo::Nothing, bit)
            }
            Action::Slow { .. }
            | Action::HalfOpen { .. }
            | Action::Corrupt { .. }
            | Action::Swizzle { .. }
            | Action::Torn { .. }
            | Action::BitRot { .. }
            | Action::SyncSlow { .. }
            | Action::SyncError { .. }
            | Action::DiskFull { .. }
            | Action::LostAck { .. }
            | Action::StoreError { .. } => unreachable!("`run` refuses such plans"),
        }
    }

    fn any_runs(&self, places: &[Place]) -> bool {
        let world = self.cluster.world();
        places.iter().any(|place| world.is_running(self.cluster.host(*place)))
    }

    fn undo(&self, nth: usize) {
        let world = self.cluster.world();
        let Some(active) = self.state().active.remove(&nth) else { return };
        world.note("", "heal", &[("fault", nth.into())]);
        let mut has_bitten = false;
        match active.undo {
            Undo::Boot(places) => {
                for place in places {
                    self.cluster.boot(place);
                }
            }
            Undo::Resume(places) => {
                for place in places {
                    world.resume(self.cluster.host(place));
                }
            }
            Undo::Links(directions) => {
                for (from, to) in directions {
                    has_bitten |= world.remove_fault(from, to, nth) > 0;
                }
            }
            Undo::StepWall(places, by_ns) => {
                has_bitten = self.any_runs(&places);
                for place in places {
                    world.step_wall(self.cluster.host(place), by_ns);
                }
            }
            Undo::Drift(places) => {
                has_bitten = self.any_runs(&places);
                for place in places {
                    world.set_drift(self.cluster.host(place), 0);
                }
            }
            Undo::Nothing => {}
        }
        let now = self.now();
        if let Some(incident) = self.state().incidents.get_mut(active.incident) {
            incident.until = Some(now);
            incident.bit |= has_bitten;
        }
    }

    /// Ends the plan: undoes what stands, begins nothing more.
    pub fn heal(&self) {
        let standing: Vec<usize> = {
            let mut state = self.state();
            state.is_over = true;
            state.agenda.clear();
            state.active.keys().copied().collect()
        };
        for nth in standing {
            self.undo(nth);
        }
    }

    /// Returns the faults as they were carried out.
    #[must_use]
    pub fn incidents(&self) -> Vec<Incident> {
        self.state().incidents.clone()
    }
}

fn booted(places: Vec<Place>) -> (Undo, bool) {
    let bit = !places.is_empty();
    (Undo::Boot(places), bit)
}
