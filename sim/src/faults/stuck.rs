//! Classifier of runs that are stuck: whether anything was there that could have done the work.
//!
//! 1. Where only a core was whole, work needs its master, its worker and the store, whose processes
//!    run and are not stopped: what else runs is broken for good.
//! 2. Else all was healed, and what does not run then is the product's own fault, but for workers that
//!    an operator expelled.
//! 3. Processes that run have no excuse, whatever keeps them from the work.
//! 4. That there is no worker excuses only what needs one.

use chatchat_scenarios::{property::Property, target::Place};

use super::Core;

/// Properties that say that work is done, which needs a worker.
const OF_WORKERS: &[Property] = &[Property::G3, Property::G9, Property::G15];

/// Reason for which a run may rightly be stuck.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excuse {
    /// Reason in words: the nodes that were not there.
    pub why: String,
    /// Whether it excuses only what needs a worker.
    needs_worker: bool,
}

impl Excuse {
    /// Makes an excuse for everything.
    pub(crate) const fn for_all(why: String) -> Self {
        Self { why, needs_worker: false }
    }

    /// Makes an excuse for what needs a worker.
    pub(crate) const fn for_workers(why: String) -> Self {
        Self { why, needs_worker: true }
    }

    /// Returns whether it excuses a break of this property.
    #[must_use]
    pub fn covers(&self, property: Property) -> bool {
        !self.needs_worker || OF_WORKERS.contains(&property)
    }
}

/// Returns the excuse of a cluster of so many workers for being stuck, if it has one. `is_at_work`
/// says whether a process runs at a place and is not stopped, `was_expelled` whether an operator
/// expelled the node there.
pub(super) fn excuse(
    workers: usize,
    core: Option<Core>,
    is_at_work: impl Fn(Place) -> bool,
    was_expelled: impl Fn(Place) -> bool,
) -> Option<Excuse> {
    if workers == 0 {
        return Some(Excuse::for_workers("the cluster has no worker".to_owned()));
    }
    if let Some(core) = core {
        let mut members = [core.master, core.worker, Place::Store].into_iter();
        let idle = members.find(|place| !is_at_work(*place))?;
        return Some(Excuse::for_all(format!("of the core, {core}, {idle} did not run any more")));
    }
    let are_expelled =
        (0..workers).map(Place::Worker).all(|place| !is_at_work(place) && was_expelled(place));
    are_expelled.then(|| Excuse::for_workers("all workers were expelled".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORE: Core = Core { master: Place::Master(1), worker: Place::Worker(0) };
    const WORKERS: [Place; 2] = [Place::Worker(0), Place::Worker(1)];

    /// Returns the reason of a cluster of two workers where these do not run.
    fn without(core: Option<Core>, idle: &[Place], expelled: &[Place]) -> Option<String> {
        let found = excuse(2, core, |it| !idle.contains(&it), |it| expelled.contains(&it));
        found.map(|excuse| excuse.why)
    }

    #[test]
    fn cluster_without_worker_has_an_excuse_for_what_needs_one_though_all_else_runs() {
        for core in [None, Some(CORE)] {
            let excuse = excuse(0, core, |_| true, |_| false).expect("nobody can write");
            assert!(excuse.why.contains("no worker"), "{excuse:?}");
            assert!(excuse.covers(Property::G3) && excuse.covers(Property::G9));
            assert!(!excuse.covers(Property::G11) && !excuse.covers(Property::G12));
        }
    }

    #[test]
    fn core_of_which_a_member_does_not_run_has_an_excuse_that_names_it() {
        for idle in [CORE.master, CORE.worker, Place::Store] {
            let excuse = excuse(2, Some(CORE), |it| it != idle, |_| false);
            let excuse = excuse.expect("nobody was there to do the work");
            assert!(excuse.why.ends_with(&format!("{idle} did not run any more")), "{excuse:?}");
            assert!(excuse.covers(Property::G11), "{excuse:?}");
        }
    }

    #[test]
    fn whole_core_has_none_whatever_else_is_down() {
        assert_eq!(without(Some(CORE), &[], &[]), None);
        assert_eq!(without(Some(CORE), &[Place::Master(0), WORKERS[1]], &WORKERS), None);
    }

    #[test]
    fn healed_cluster_has_one_only_when_all_workers_were_expelled() {
        let masters = [Place::Master(0), Place::Master(1)];
        for idle in [&masters[..], &WORKERS, &[Place::Store], &[]] {
            assert_eq!(without(None, idle, &[]), None, "{idle:?}: it was to run again");
        }
        let why = without(None, &WORKERS, &WORKERS).expect("nobody may do the work");
        assert!(why.contains("expelled"), "{why}");
        assert_eq!(without(None, &WORKERS, &WORKERS[1..]), None, "one is down by itself");
        assert_eq!(without(None, &[], &WORKERS), None, "they are back");
    }
}
