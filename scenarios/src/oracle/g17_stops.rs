//! Planned stops as oracles ask for them: which node was asked to end, as SIGTERM asks, when, and when
//! its process ended.

use std::time::Duration;

use super::Evidence;
use crate::{
    fault::Action,
    plan::Incident,
    target::{Place, Target},
};

/// Time between a kill and the start that it is for.
const KILL_WITHIN: Duration = Duration::from_millis(50);

/// Node that a fault asked to end.
pub(super) struct PlannedStop {
    /// Place of the node.
    pub(super) place: Place,
    /// Time at which it was asked.
    pub(super) asked: Duration,
    /// Time at which its process ended, or the run before it did.
    pub(super) ended: Duration,
    /// Time of the node's next start: what has not ended by then is killed.
    starts: Duration,
}

impl PlannedStop {
    /// Returns whether the process was killed before it ended by itself.
    pub(super) fn was_killed(&self) -> bool {
        self.kills(self.ended)
    }

    /// Returns whether a process of the place that ended at a time was killed for its next start.
    pub(super) fn kills(&self, ended: Duration) -> bool {
        was_killed(ended, self.starts)
    }
}

/// Returns whether a process that ended at a time was killed for the start at another.
pub(super) fn was_killed(ended: Duration, starts: Duration) -> bool {
    ended.abs_diff(starts) <= KILL_WITHIN
}

impl Evidence<'_> {
    /// Returns the stops of nodes that the plan names by their places.
    pub(super) fn planned_stops(&self) -> Vec<PlannedStop> {
        let faults = self.plan.faults.iter().enumerate();
        faults.flat_map(|(nth, fault)| self.stops_of(nth, &fault.action, fault.lasts)).collect()
    }

    fn stops_of(&self, nth: usize, action: &Action, lasts: Option<Duration>) -> Vec<PlannedStop> {
        let mut incidents = self.incidents.iter().filter(|incident| incident.fault == nth);
        let Some(whole) = incidents.next() else { return Vec::new() };
        let until = self.end_of(whole);
        match action {
            Action::Stop { target: Target::One(place) } if whole.bit => {
                vec![self.planned_stop(*place, whole, until)]
            }
            Action::Restart { targets } => {
                let (cluster, people) = (&self.plan.cluster, self.plan.workload.people);
                let places: Option<Vec<_>> =
                    targets.iter().map(|target| target.places(cluster, people)).collect();
                let (Some(places), Some(lasts)) = (places, lasts) else { return Vec::new() };
                let mut places = places.concat();
                places.sort_unstable();
                places.dedup();
                // A node starts again in the middle of its turn.
                let half = lasts / (2 * u32::try_from(places.len().max(1)).unwrap_or(1));
                // Each turn is an incident of its own, at the time of its stop.
                let turns = places.into_iter().zip(incidents).filter(|(_, turn)| turn.bit);
                let stops = turns.map(|(place, turn)| {
                    self.planned_stop(place, turn, until.min(turn.from.saturating_add(half)))
                });
                stops.collect()
            }
            _ => Vec::new(),
        }
    }

    fn planned_stop(&self, place: Place, asked: &Incident, starts: Duration) -> PlannedStop {
        let asked = asked.from;
        PlannedStop { place, asked, ended: self.process_end(place, asked), starts }
    }

    /// Returns when the process at a place ended that ran at a time, or the run before it did.
    pub(super) fn process_end(&self, place: Place, at: Duration) -> Duration {
        let ended = self.ends.iter().filter(|(of, ended)| *of == place && *ended >= at);
        ended.map(|(_, ended)| *ended).min().unwrap_or(self.ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::fixtures::{Fixture, ms};

    #[test]
    fn each_turn_of_a_restart_is_a_stop_of_its_place_and_what_ends_with_the_start_was_killed() {
        let keys = "targets = [\"worker:1\", \"worker:*\", \"master:0\"]\nfor = \"18s\"";
        let mut made = Fixture::with_faults(&[("restart", keys, 20_000, 38_000)]);
        for (at, bit) in [(20_000, true), (26_000, false), (32_000, true)] {
            made.incidents.push(Incident { fault: 0, from: ms(at), until: Some(ms(at)), bit });
        }
        let (master, worker) = (Place::Master(0), Place::Worker(1));
        let ends = [(master, ms(21_000)), (worker, ms(35_000)), (Place::Master(1), ms(20_500))];
        let stops: Vec<_> = made.with(|evidence| {
            let stops = Evidence { ends: &ends, ..*evidence }.planned_stops().into_iter();
            stops.map(|it| (it.place, it.asked, it.ended, it.was_killed())).collect()
        });
        let wanted = [
            (master, ms(20_000), ms(21_000), false),
            // The first worker did not run at its turn.
            (worker, ms(32_000), ms(35_000), true),
        ];
        assert_eq!(stops, wanted);
    }

    #[test]
    fn stop_of_a_node_that_is_named_by_its_role_is_left_out() {
        let stops = |target: &str, bit| {
            let mut made = Fixture::with_faults(&[("stop", target, 20_000, 30_000)]);
            made.incidents[0].bit = bit;
            made.with(|evidence| {
                let stops = evidence.planned_stops().into_iter();
                stops.map(|it| (it.place, it.asked, it.starts)).collect::<Vec<_>>()
            })
        };
        let named = "target = \"worker:1\"";
        assert_eq!(stops(named, true), [(Place::Worker(1), ms(20_000), ms(30_000))]);
        assert!(stops(named, false).is_empty(), "nobody was there to ask");
        assert!(stops("target = \"assigned(board:lobby)\"", true).is_empty());
    }
}
