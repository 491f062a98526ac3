//! Ends of workers' processes. No line of a worker's own announces a new life: the deployment says
//! when processes ended.

use std::{collections::BTreeMap, time::Duration};

use chatchat::model::ids::Role;

use super::Evidence;
use crate::target::{Place, Target};

/// Times at which workers' processes ended, each used up by the first line after it.
pub(super) struct Deaths(BTreeMap<String, Vec<Duration>>);

impl Deaths {
    pub(super) fn of_workers(evidence: &Evidence<'_>) -> Self {
        let workers = Target::Role(Role::Worker);
        let places = workers.places(&evidence.plan.cluster, evidence.plan.workload.people);
        let deaths = |place: Place| {
            let mut times: Vec<_> = evidence.deaths(place).collect();
            times.sort_unstable();
            (place.to_string(), times)
        };
        Self(places.unwrap_or_default().into_iter().map(deaths).collect())
    }

    /// Returns whether a place has begun a new life since it was asked last.
    pub(super) fn is_new_life(&mut self, place: &str, at: Duration) -> bool {
        let Some(times) = self.0.get_mut(place) else { return false };
        let before = times.len();
        times.retain(|time| *time > at);
        times.len() < before
    }

    /// Returns whether a life ended after a time.
    pub(super) fn died_after(&self, place: &str, at: Duration) -> bool {
        self.0.get(place).is_some_and(|times| times.iter().any(|time| *time > at))
    }
}
