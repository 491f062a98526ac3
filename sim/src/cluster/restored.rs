//! Restores of the store in the simulated cluster.
//!
//! 1. The store's content is backed up and restored at one moment, by the code of `chatctl`: nothing that was
//!    acknowledged is lost, and a new epoch begins. That code works on files, so the store of a plan with a
//!    restore is in one.
//! 2. It raises the incarnations of all masters, so that each master that runs ends as superseded. Its
//!    supervisor starts it again; one that ends so without a restore since its start has no excuse.

use std::{
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use chatchat::{
    model::rows::StoreError, node::master::NodeError, programs::MasterError,
    store::sqlite::NewCluster,
};
use chatchat_scenarios::{fault::Action, oracle::EpochChange, plan::Plan, target::Place};

use super::{Cluster, host_name};
use crate::{deployment::Begun, store::StoreHost};

/// Returns an empty store for a plan.
pub(super) fn store_for(plan: &Plan, new: &NewCluster) -> Result<StoreHost, StoreError> {
    let is_restore = |action: &Action| matches!(action, Action::Restore { .. });
    match plan.faults.iter().any(|fault| is_restore(&fault.action)) {
        true => StoreHost::on_file(new),
        false => StoreHost::new(new),
    }
}

/// Returns whether a master ended as the store knows a newer life of it.
pub(super) const fn is_superseded(end: &Result<(), MasterError>) -> bool {
    matches!(end, Err(MasterError::Node(NodeError::Superseded)))
}

impl Cluster {
    pub(super) fn epoch_changes(&self) -> MutexGuard<'_, Vec<EpochChange>> {
        self.epoch_changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Restores the store's content as it is now.
    pub(super) fn restored(&self) -> Begun<Self> {
        let world = self.world();
        let now_ms = world.wall(self.host(Place::Store)).ms;
        let restored = self.store().restore(now_ms);
        let restored = restored.unwrap_or_else(|why| panic!("the store is not restored: {why}"));
        let (before, after) = (restored.from_epoch, restored.contents.epoch);
        world.note(&host_name(Place::Store), "restored", &[("epoch", after.0.into())]);
        self.epoch_changes().push(EpochChange { at: world.elapsed(), before, after });
        Begun::instant(after != before)
    }

    /// Returns whether the store was restored after a process began, by `elapsed`.
    pub(super) fn was_restored_since(&self, began: Duration) -> bool {
        self.epoch_changes().last().is_some_and(|change| change.at >= began)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chatchat_scenarios::story::Story;
    use dst_world::Detail;

    use super::*;
    use crate::{
        run::run,
        verdict::{Report, Verdict},
    };

    /// Runs a cluster of two masters for some seconds, in which the store is restored twice.
    fn with_two_restores() -> Report {
        let text = "about = \"\"\nduration = \"14s\"\n[cluster]\nmasters = 2\nworkers = 2\n\
                    [workload]\npeople = 3\nposts_per_second = 6.0\n\
                    [[fault]]\nat = \"4s\"\nkind = \"restore\"\ntarget = \"store\"\n\
                    [[fault]]\nat = \"10s\"\nkind = \"restore\"\ntarget = \"store\"\n";
        let plan = Plan::expand(&Story::parse("restored", text).expect("a story"), 1);
        run(&plan, Detail::Events, &Arc::default()).expect("supported")
    }

    #[test]
    fn masters_that_a_restore_supersedes_are_started_again_and_the_epoch_is_new() {
        let report = with_two_restores();
        assert_ne!(report.verdict, Verdict::Crash, "{:?}", report.complaints);
        assert!(report.incidents.iter().all(|incident| incident.bit), "{:?}", report.incidents);
        let count = |host: &str, kind: &str| {
            let wanted = format!(r#""host":"{host}","kind":"{kind}""#);
            report.log.iter().filter(|line| line.contains(&wanted)).count()
        };
        for (host, boots) in [("master0", 3), ("master1", 3), ("worker0", 1), ("worker1", 1)] {
            assert_eq!(count(host, "boot"), boots, "{host}");
        }
        assert_eq!((count("store", "restored"), count("store", "boot")), (2, 1));
        assert!(report.operations.0 > 50, "people go on: {:?}", report.operations);
    }
}
