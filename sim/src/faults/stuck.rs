//! Classifier of runs that are stuck: whether anything was there that could have done the work.
//!
//! 1. Work needs a master, a worker and the store, whose processes run and are not stopped.
//! 2. Where only a core was whole, these are the core's: what else runs is broken for good.
//! 3. Processes that run have no excuse, whatever keeps them from the work.

use chatchat_scenarios::target::Place;

use super::Core;

/// Returns why a cluster of so many masters and workers may rightly be stuck, if it may.
/// `is_at_work` says whether a process runs at a place and is not stopped.
pub(super) fn excuse(
    masters: usize,
    workers: usize,
    core: Option<Core>,
    is_at_work: impl Fn(Place) -> bool,
) -> Option<String> {
    if workers == 0 {
        return Some("the cluster has no worker".to_owned());
    }
    if let Some(core) = core {
        let mut members = [core.master, core.worker, Place::Store].into_iter();
        let idle = members.find(|place| !is_at_work(*place))?;
        return Some(format!("of the core, {core}, {idle} did not run any more"));
    }
    if !is_at_work(Place::Store) {
        return Some("the store did not run any more".to_owned());
    }
    let nobody =
        |count: usize, place: fn(usize) -> Place| (0..count).all(|nth| !is_at_work(place(nth)));
    if nobody(masters, Place::Master) {
        return Some("no master ran any more".to_owned());
    }
    nobody(workers, Place::Worker).then(|| "no worker ran any more".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORE: Core = Core { master: Place::Master(1), worker: Place::Worker(0) };

    /// Returns the excuse of two masters and two workers of which these do not run.
    fn without(core: Option<Core>, idle: &[Place]) -> Option<String> {
        excuse(2, 2, core, |place| !idle.contains(&place))
    }

    #[test]
    fn cluster_without_worker_has_an_excuse_though_all_else_runs() {
        for core in [None, Some(CORE)] {
            assert!(excuse(2, 0, core, |_| true).is_some_and(|why| why.contains("no worker")));
        }
    }

    #[test]
    fn core_of_which_a_member_does_not_run_has_an_excuse_that_names_it() {
        for idle in [CORE.master, CORE.worker, Place::Store] {
            let why = without(Some(CORE), &[idle]).expect("nobody was there to do the work");
            assert!(why.ends_with(&format!("{idle} did not run any more")), "{why}");
        }
    }

    #[test]
    fn whole_core_has_none_whatever_else_is_down() {
        assert_eq!(without(Some(CORE), &[]), None);
        assert_eq!(without(Some(CORE), &[Place::Master(0), Place::Worker(1)]), None);
    }

    #[test]
    fn healed_cluster_has_one_only_when_no_master_no_worker_or_no_store_runs() {
        let (masters, workers) =
            ([Place::Master(0), Place::Master(1)], [Place::Worker(0), Place::Worker(1)]);
        for idle in [&masters[..], &workers, &[Place::Store]] {
            assert!(without(None, idle).is_some(), "{idle:?}");
        }
        assert_eq!(without(None, &[]), None);
        assert_eq!(without(None, &[masters[1], workers[0]]), None, "one of each is enough");
    }
}
