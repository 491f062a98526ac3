//! Steps of the agenda: beginnings and ends of faults, and the steps of those that have several.

use std::{collections::BTreeMap, time::Duration};

use chatchat_scenarios::target::Place;
use dst_world::{DiskImage, FaultId, HostId, Link};

use super::Faults;

/// Contents of disks before a roll-back.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Number of the store's writes.
    pub(super) writes: usize,
    pub(super) images: BTreeMap<Place, DiskImage>,
}

/// Length of a fault with several steps whose story names none.
const STEPS_LAST: Duration = Duration::from_secs(8);

/// Step of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The fault begins.
    Begin,
    /// The disks of its target are copied, to be put back later.
    Keep,
    /// The fault is undone.
    Undo,
    /// A place is cut off from all others.
    Cut(Place),
    /// It is let back.
    Mend(Place),
    /// A process is asked to stop.
    Stop(Place),
    /// It is started again.
    Start(Place),
}

impl Faults {
    /// Returns how long a fault lasts.
    pub(super) fn lasts(&self, nth: usize) -> Duration {
        self.plan.faults[nth].lasts.unwrap_or(STEPS_LAST)
    }

    /// Puts a step on the agenda, so long after now.
    pub(super) fn later(&self, after: Duration, nth: usize, step: Step) {
        let at = self.now() + after;
        self.state().plan_step(at, nth, step);
        self.changed.notify_one();
    }

    /// Carries out a step of a fault that stands, and returns whether it touched anything.
    pub(super) fn carry_out(&self, nth: usize, step: Step) -> bool {
        let world = self.cluster.world();
        match step {
            Step::Begin | Step::Keep | Step::Undo => false,
            Step::Cut(place) => {
                for (from, to) in self.around(place) {
                    world.add_fault(from, to, self.cut_of(nth, place), Link::CUT);
                }
                false
            }
            Step::Mend(place) => {
                let end = |(from, to)| world.remove_fault(from, to, self.cut_of(nth, place));
                self.around(place).into_iter().map(end).sum::<u64>() > 0
            }
            Step::Stop(place) => self.cluster.stop(place),
            Step::Start(place) => {
                self.cluster.start_again(place);
                false
            }
        }
    }

    /// Copies what a later roll-back puts back.
    pub(super) fn keep(&self, nth: usize) {
        let targets: Vec<_> = self.plan.faults[nth].action.targets().into_iter().cloned().collect();
        let mut kept = Kept { writes: self.cluster.store().writes(), ..Kept::default() };
        for place in self.places(&targets) {
            if !matches!(place, Place::Store | Place::Person(_)) {
                let image = self.cluster.world().disk_image(self.cluster.host(place));
                kept.images.insert(place, image);
            }
        }
        self.state().kept.insert(nth, kept);
    }

    /// Returns the number of a cut of one place, which no other fault has.
    fn cut_of(&self, nth: usize, place: Place) -> FaultId {
        nth + self.plan.faults.len() * (1 + self.cluster.host(place).0)
    }

    /// Returns all directions between a place and the other machines of the cluster.
    pub(super) fn around(&self, place: Place) -> Vec<(HostId, HostId)> {
        let here = self.cluster.host(place);
        let others = self.cluster.machines().into_iter().filter(|host| *host != here);
        others.flat_map(|there| [(here, there), (there, here)]).collect()
    }
}
