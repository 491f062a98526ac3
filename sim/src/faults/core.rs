//! The core: one master, one worker and the store, healed, while all else stays broken for good.
//!
//! ```text
//!  faults of the plan ...... | those outside of the core stay, further breaks .. | all undone
//!  0                      leave_core                                         end_core
//! ```
//!
//! A cluster that works again only when everybody is back has not recovered: it waited. So, after
//! the faults of a story, the seed chooses a core. People must get their posts through all the same.
//!
//! 1. What the core consists of runs and sees each other and people. Faults that touch it are undone.
//! 2. All other faults of the plan that are on stay on, at the step that they have reached, but for
//!    those that share a machine with one that is undone.
//! 3. Each other node is broken besides, as the seed says: it is gone, or cut off, or it lives on in
//!    touch with the core and is hurt. The core's worker is cut from all other masters.
//! 4. These breaks are faults like those of a plan, and each node draws from a stream of its own, so
//!    that one node less changes nothing for the others.

use std::{fmt, mem, time::Duration};

use chatchat::model::ids::Role;
use chatchat_scenarios::{
    fault::{Action, Direction, Links, Step},
    plan::Incident,
    target::{Place, Target},
};
use dst_world::{Rng, Seed};

use super::{
    Faults, common,
    stuck::{self, Excuse},
};
use crate::deployment::{Deployment, FaultId};

/// Number of the first break around the core. They count down from here, so that none is that of a
/// fault or of a cut.
const FIRST_BREAK: FaultId = FaultId::MAX;

/// Nodes that are whole while all others are broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Core {
    /// Its master.
    pub master: Place,
    /// Its worker.
    pub worker: Place,
}

impl fmt::Display for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} and the store", self.master, self.worker)
    }
}

/// Way in which a node outside of the core is broken.
#[derive(Clone, Copy, Debug)]
enum Break {
    /// Its power is gone.
    Crash,
    /// Its process is gone.
    Exit,
    /// It is stopped.
    Pause,
    /// It reaches nobody but people.
    Alone,
    /// It reaches people and the store, and no other node.
    NoNode,
    /// Its processor is slow.
    Slow,
    /// Its lines to other nodes are long.
    Late,
    /// Its lines to other nodes lose segments.
    Lossy,
    /// Its wall clock is off.
    Offset,
    /// Its clocks run too fast or too slow; what they gained or lost stays when it is undone.
    Drift,
    /// Its disk is full.
    Full,
    /// Syncs of its disk fail now and then.
    Unsynced,
}

/// Breaks after which a node does nothing for others.
const LOST: [Break; 5] = [Break::Crash, Break::Exit, Break::Pause, Break::Alone, Break::NoNode];
/// Breaks with which a node lives on.
const HURT: [Break; 7] = [
    Break::Slow,
    Break::Late,
    Break::Lossy,
    Break::Offset,
    Break::Drift,
    Break::Full,
    Break::Unsynced,
];

impl Break {
    fn drawn(rng: &mut Rng) -> Self {
        if rng.chance(0.5) { *rng.pick(&LOST) } else { *rng.pick(&HURT) }
    }

    /// Returns the fault that it is, of a size that a cluster should bear for long.
    fn action(self, place: Place, rng: &mut Rng) -> Action {
        let target = Target::One(place);
        let nodes = || vec![Target::Role(Role::Master), Target::Role(Role::Worker)];
        let lines = |to| Links { from: vec![Target::One(place)], to, direction: Direction::Both };
        let is_back = rng.chance(0.5);
        match self {
            Self::Crash => Action::Crash { target },
            Self::Exit => Action::Exit { target },
            Self::Pause => Action::Pause { target },
            Self::Alone => Action::Partition { links: lines(vec![Target::Everything]) },
            Self::NoNode => Action::Partition { links: lines(nodes()) },
            Self::Slow => Action::Slow { target, factor: 2.0 + 6.0 * rng.fraction() },
            Self::Late => {
                let by = Duration::from_millis(rng.between(20, 500));
                Action::Delay { links: lines(nodes()), by, jitter: by / 2 }
            }
            Self::Lossy => {
                Action::Loss { links: lines(nodes()), rate: 0.02 + 0.18 * rng.fraction() }
            }
            Self::Offset => {
                let ms = i64::try_from(rng.between(500, 60_000)).unwrap_or(0);
                Action::ClockOffset { target, by: Step { ms: if is_back { -ms } else { ms } } }
            }
            Self::Drift => {
                let rate = 0.01 + 0.09 * rng.fraction();
                Action::ClockDrift { target, rate: if is_back { -rate } else { rate } }
            }
            Self::Full => Action::DiskFull { target },
            Self::Unsynced => Action::SyncError { target, rate: 0.02 + 0.28 * rng.fraction() },
        }
    }
}

impl<D: Deployment> Faults<D> {
    /// Ends the plan, heals a core, and leaves all that is outside of it broken until
    /// [`Faults::end_core`]. Without a worker in the cluster there is none; then nothing is done.
    pub fn leave_core(&self) -> Option<Core> {
        let shape = self.on.shape();
        if shape.workers == 0 {
            return None;
        }
        let mut rng = Seed(self.plan.seed).stream("faults/core");
        let master = Place::Master(rng.index(shape.masters));
        let worker = Place::Worker(rng.index(shape.workers));
        let core = Core { master, worker };
        self.on.note("core", &[("whole", core.to_string().into())]);
        self.heal_but(|touched| !touched.is_of(core));
        let masters = (0..shape.masters).map(Place::Master);
        let nodes = masters.chain((0..shape.workers).map(Place::Worker));
        let others: Vec<_> = nodes.filter(|node| *node != master && *node != worker).collect();
        let far = others.iter().filter(|place| matches!(place, Place::Master(_)));
        let to = far.map(|place| Target::One(*place)).collect();
        let links = Links { from: vec![Target::One(worker)], to, direction: Direction::Both };
        self.break_for_good("core", &Action::Partition { links });
        let mut numbers = vec![self.plan.core_number()];
        for place in &others {
            let label = format!("core/{place}");
            let mut rng = Seed(self.plan.seed).stream(&format!("faults/{label}"));
            let action = Break::drawn(&mut rng).action(*place, &mut rng);
            self.break_for_good(&label, &action);
            if let Some(worker) = loses_disk(&action) {
                numbers.push(self.plan.core_disk_number(worker));
            }
        }
        let (from, bit) = (self.now(), !others.is_empty());
        // No faults of the plan: they are everybody's trouble.
        let incidents = numbers.into_iter().map(|fault| Incident { fault, from, until: None, bit });
        let mut state = self.state();
        let first = state.incidents.len();
        state.incidents.extend(incidents);
        state.core_incidents = first..state.incidents.len();
        Some(core)
    }

    /// Begins a fault that lasts until the core ends. `label` is that of its random draws.
    fn break_for_good(&self, label: &str, action: &Action) {
        self.on.note("broken", &[("action", action.to_string().into())]);
        let nth = FIRST_BREAK - self.state().around_core.len();
        let begun = common::act_at_once(&self.on, nth, label, action);
        debug_assert!(begun.steps.is_empty(), "a break begins at once");
        self.state().around_core.push(begun.undo);
    }

    /// Heals all that is outside of the core: first what was broken around it, the last one first, then
    /// the faults of the plan that stayed on.
    pub fn end_core(&self) {
        self.on.note("core", &[("whole", "everything".into())]);
        let breaks = mem::take(&mut self.state().around_core);
        for undo in breaks.into_iter().rev() {
            undo(&self.on);
        }
        self.heal();
        // Faults that were healed around others that stood may have left a node behind.
        for place in self.on.everything() {
            self.on.resume(place);
        }
        self.on.start();
        let now = self.now();
        let mut state = self.state();
        let around = state.core_incidents.clone();
        for incident in &mut state.incidents[around] {
            incident.until = Some(now);
        }
    }

    /// Returns why the cluster may rightly be stuck, if it may: nothing is at work that could do the
    /// work. `core` is what alone was whole.
    #[must_use]
    pub fn rightly_stuck(&self, core: Option<Core>) -> Option<Excuse> {
        let is_at_work = |place| self.on.is_at_work(place);
        let was_expelled = |place| self.was_expelled(place);
        stuck::excuse(self.on.shape().workers, core, is_at_work, was_expelled)
    }

    fn was_expelled(&self, place: Place) -> bool {
        self.state().incidents.iter().filter(|incident| incident.bit).any(|incident| {
            let fault = self.plan.faults.get(incident.fault);
            fault.is_some_and(|fault| match &fault.action {
                Action::Expel { target } => {
                    // One by a role may have been anybody.
                    let places = target.places(self.on.shape(), self.plan.workload.people);
                    places.is_some_and(|places| places.contains(&place))
                }
                _ => false,
            })
        })
    }
}

/// Returns the worker that may lose what is on its disk by a break, if one may.
const fn loses_disk(action: &Action) -> Option<usize> {
    match action {
        Action::DiskFull { target: Target::One(Place::Worker(nth)) }
        | Action::SyncError { target: Target::One(Place::Worker(nth)), .. } => Some(*nth),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
