//! The core: one master, one worker and the store, healed, while all else stays broken for good.
//!
//! A cluster that works again only when everybody is back has not recovered: it waited. So, after
//! the faults of a story, the seed chooses a core. What it consists of runs and sees each other,
//! its worker is cut from all other masters, and every other node is broken in one way or another.
//! People must get their posts through all the same.

use std::fmt;

use chatchat_scenarios::{plan::Incident, target::Place};
use dst_world::{FaultId, HostId, Link, Rng};

use super::Faults;

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
    /// It reaches the store, and no node of the core.
    Bridge,
}

impl Faults {
    /// Ends the plan as [`Faults::heal`] does, and breaks for good all that is outside of a core.
    /// Without a worker in the cluster there is none; then everything is healed.
    pub fn leave_core(&self) -> Option<Core> {
        self.heal();
        let world = self.cluster.world();
        let shape = self.cluster.shape();
        if shape.workers == 0 {
            return None;
        }
        let mut rng = world.seed().stream("faults/core");
        let master = Place::Master(rng.index(shape.masters));
        let worker = Place::Worker(rng.index(shape.workers));
        let core = Core { master, worker };
        world.note("", "core", &[("whole", core.to_string().into())]);
        let masters = (0..shape.masters).map(Place::Master);
        let nodes = masters.chain((0..shape.workers).map(Place::Worker));
        let others: Vec<_> = nodes.filter(|node| *node != master && *node != worker).collect();
        for place in &others {
            if matches!(place, Place::Master(_)) {
                self.cut_between(*place, worker);
            }
            self.break_for_good(*place, core, &mut rng);
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

    fn break_for_good(&self, place: Place, core: Core, rng: &mut Rng) {
        let (world, host) = (self.cluster.world(), self.cluster.host(place));
        let ways = [Break::Crash, Break::Exit, Break::Pause, Break::Alone, Break::Bridge];
        let way = *rng.pick(&ways);
        let members = [("place", place.to_string().into()), ("way", format!("{way:?}").into())];
        world.note("", "broken", &members);
        match way {
            Break::Crash => drop(world.crash(host)),
            Break::Exit => drop(world.exit(host)),
            Break::Pause => drop(world.pause(host)),
            Break::Alone => {
                for (from, to) in self.around(place) {
                    world.add_fault(from, to, self.core_cut(), Link::CUT);
                }
            }
            Break::Bridge => {
                self.cut_between(place, core.master);
                self.cut_between(place, core.worker);
            }
        }
    }

    fn cut_between(&self, one: Place, other: Place) {
        let (one, other) = (self.cluster.host(one), self.cluster.host(other));
        for (from, to) in [(one, other), (other, one)] {
            self.cluster.world().add_fault(from, to, self.core_cut(), Link::CUT);
        }
    }

    /// Returns the number of the cuts around the core, which no fault has.
    const fn core_cut(&self) -> FaultId {
        FaultId::MAX
    }

    /// Heals all that is outside of the core.
    pub fn end_core(&self) {
        let world = self.cluster.world();
        let machines = self.cluster.machines();
        world.note("", "core", &[("whole", "everything".into())]);
        let pairs = machines.iter().flat_map(|from| machines.iter().map(move |to| (*from, *to)));
        for (from, to) in pairs.filter(|(from, to): &(HostId, HostId)| from != to) {
            world.remove_fault(from, to, self.core_cut());
        }
        for host in &machines {
            world.resume(*host);
        }
        self.cluster.start();
        let now = self.now();
        let mut state = self.state();
        if let Some(incident) = state.core_incident
            && let Some(incident) = state.incidents.get_mut(incident)
        {
            incident.until = Some(now);
        }
    }

    /// Returns why a cluster whose core is this one may rightly be stuck, if it may: nothing is
    /// alive that could do the work.
    #[must_use]
    pub fn rightly_stuck(&self, core: Core) -> Option<String> {
        let mut members = [core.master, core.worker, Place::Store].into_iter();
        let dead =
            members.find(|place| !self.cluster.world().is_running(self.cluster.host(*place)))?;
        Some(format!("of the core, {core}, {dead} did not run any more"))
    }
}
