//! Places and lines that a fault touches, found when it begins: whether a core is whole beside it.

use chatchat_scenarios::{fault::Action, target::Place};

use super::Core;
use crate::deployment::Deployment;

/// Parts of a cluster that a fault touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Touched {
    /// These machines, with whatever they send.
    Places(Vec<Place>),
    /// Directions between two places.
    Lines(Vec<(Place, Place)>),
    /// Anybody: what speaks to all masters, and from a machine that is no place of the cluster.
    Everything,
}

impl Touched {
    /// Returns what an action touches if it begins now.
    pub(super) fn of(on: &impl Deployment, action: &Action) -> Self {
        match action {
            Action::LostAck { .. }
            | Action::StoreError { .. }
            | Action::StoreConflict { .. }
            | Action::StorePool { .. }
            | Action::StorePromote => Self::Places(vec![Place::Store]),
            Action::Clone { .. } | Action::Stranger { .. } | Action::Expel { .. } => {
                Self::Everything
            }
            _ => match action.links() {
                Some(links) => Self::Lines(on.directions(links)),
                None => {
                    let targets: Vec<_> = action.targets().into_iter().cloned().collect();
                    Self::Places(on.places_of(&targets))
                }
            },
        }
    }

    /// Returns whether something of a core is touched: its members, the store, the lines between those,
    /// or people and their way to it.
    pub(super) fn is_of(&self, core: Core) -> bool {
        let is_inside =
            |place: Place| !place.is_node() || place == core.master || place == core.worker;
        match self {
            Self::Places(places) => places.iter().any(|place| is_inside(*place)),
            Self::Lines(lines) => lines.iter().any(|(from, to)| is_inside(*from) && is_inside(*to)),
            Self::Everything => true,
        }
    }

    /// Returns whether both befall one machine: then to undo the one may undo the other.
    pub(super) fn shares_machine(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Places(one), Self::Places(other)) => one.iter().any(|it| other.contains(it)),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORE: Core = Core { master: Place::Master(1), worker: Place::Worker(0) };
    const OUTSIDE: [Place; 2] = [Place::Master(0), Place::Worker(1)];

    #[test]
    fn machine_of_the_core_the_store_or_a_person_is_of_it_and_no_other_node() {
        let is_of = |places: &[Place]| Touched::Places(places.to_vec()).is_of(CORE);
        for place in [CORE.master, CORE.worker, Place::Store, Place::Person(0)] {
            assert!(is_of(&[place]) && is_of(&[OUTSIDE[0], place]), "{place}");
        }
        assert!(!is_of(&OUTSIDE) && !is_of(&[]));
        assert!(Touched::Everything.is_of(CORE));
    }

    #[test]
    fn faults_of_one_machine_share_it_and_those_of_its_lines_do_not() {
        let places = |places: &[Place]| Touched::Places(places.to_vec());
        let both = places(&OUTSIDE);
        assert!(both.shares_machine(&places(&OUTSIDE[1..])));
        assert!(!places(&OUTSIDE[..1]).shares_machine(&places(&OUTSIDE[1..])));
        assert!(!both.shares_machine(&Touched::Lines(vec![(OUTSIDE[0], OUTSIDE[1])])));
    }

    #[test]
    fn line_is_of_the_core_if_both_its_ends_are() {
        let is_of = |lines: &[(Place, Place)]| Touched::Lines(lines.to_vec()).is_of(CORE);
        let inside = (CORE.worker, Place::Store);
        for line in [inside, (CORE.master, CORE.worker), (Place::Person(3), CORE.master)] {
            assert!(is_of(&[line]) && is_of(&[(line.1, line.0)]), "{line:?}");
        }
        for place in OUTSIDE {
            for other in [CORE.master, CORE.worker, Place::Store, Place::Person(3)] {
                assert!(!is_of(&[(place, other), (other, place)]), "{place} {other}");
                assert!(is_of(&[(place, other), inside]), "one of several");
            }
        }
    }
}
