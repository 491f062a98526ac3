//! The core: one master, one worker and the store, healed, while all else stays broken for good.
//!
//! A cluster that works again only when everybody is back has not recovered: it waited. So, after
//! the faults of a story, the seed chooses a core. What it consists of runs and sees each other,
//! its worker is cut from all other masters, and every other node is broken in one way or another.
//! People must get their posts through all the same.

use std::fmt;

use chatchat_scenarios::{fault::Action, plan::Incident, target::Place};
use dst_world::{Rng, Seed};

use super::{
    Faults,
    common::around,
    stuck::{self, Excuse},
};
use crate::deployment::{Deployment, FaultId};

/// Number of the cuts around the core, which no fault has.
const CORE_CUT: FaultId = FaultId::MAX;

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
}

impl<D: Deployment> Faults<D> {
    /// Ends the plan as [`Faults::heal`] does, and breaks for good all that is outside of a core.
    /// Without a worker in the cluster there is none; then everything is healed.
    pub fn leave_core(&self) -> Option<Core> {
        self.heal();
        let shape = self.on.shape();
        if shape.workers == 0 {
            return None;
        }
        let mut rng = Seed(self.plan.seed).stream("faults/core");
        let master = Place::Master(rng.index(shape.masters));
        let worker = Place::Worker(rng.index(shape.workers));
        let core = Core { master, worker };
        self.on.note("core", &[("whole", core.to_string().into())]);
        let masters = (0..shape.masters).map(Place::Master);
        let nodes = masters.chain((0..shape.workers).map(Place::Worker));
        let others: Vec<_> = nodes.filter(|node| *node != master && *node != worker).collect();
        for place in &others {
            if matches!(place, Place::Master(_)) {
                self.cut_between(*place, worker);
            }
            self.break_for_good(*place, &mut rng);
        }
        let incident = Incident {
            // No fault of the plan: it is everybody's trouble.
            fault: self.plan.faults.len(),
            from: self.now(),
            until: None,
            bit: !others.is_empty(),
        };
        let mut state = self.state();
        state.core_incident = Some(state.incidents.len());
        state.incidents.push(incident);
        Some(core)
    }

    fn break_for_good(&self, place: Place, rng: &mut Rng) {
        let ways = [Break::Crash, Break::Exit, Break::Pause, Break::Alone, Break::NoNode];
        let way = *rng.pick(&ways);
        let members = [("place", place.to_string().into()), ("way", format!("{way:?}").into())];
        self.on.note("broken", &members);
        match way {
            Break::Crash => drop(self.on.crash(place)),
            Break::Exit => drop(self.on.exit(place)),
            Break::Pause => drop(self.on.pause(place)),
            Break::Alone => {
                for (from, to) in around(&*self.on, place) {
                    self.on.cut(CORE_CUT, from, to);
                }
            }
            Break::NoNode => {
                let nodes = self.on.everything().into_iter().filter(|place| place.is_node());
                nodes.filter(|node| *node != place).for_each(|node| self.cut_between(place, node));
            }
        }
    }

    fn cut_between(&self, one: Place, other: Place) {
        for (from, to) in [(one, other), (other, one)] {
            self.on.cut(CORE_CUT, from, to);
        }
    }

    /// Heals all that is outside of the core.
    pub fn end_core(&self) {
        let places = self.on.everything();
        self.on.note("core", &[("whole", "everything".into())]);
        let pairs = places.iter().flat_map(|from| places.iter().map(move |to| (*from, *to)));
        for (from, to) in pairs.filter(|(from, to)| from != to) {
            self.on.mend(CORE_CUT, from, to);
        }
        for place in &places {
            self.on.resume(*place);
        }
        self.on.start();
        let now = self.now();
        let mut state = self.state();
        if let Some(incident) = state.core_incident
            && let Some(incident) = state.incidents.get_mut(incident)
        {
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
