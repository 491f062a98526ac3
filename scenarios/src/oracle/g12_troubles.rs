//! Faults as lists of active people meet them (G12): which of them may keep somebody off a list, or on
//! one.
//!
//! Masters alone write who is active, and read it, straight from the store. So a fault counts that may
//! have touched a master or the store, but not the death of a master while others are left. Of clocks only
//! those count that lists depend on. That a person's own machine was touched is asked beside this.

mod clocks;

use std::time::Duration;

use chatchat::model::ids::Role;

use super::{Evidence, troubles::AFTERMATH};
use crate::{
    fault::Action,
    plan::Incident,
    target::{Place, Target},
};

impl Evidence<'_> {
    /// Returns whether a fault ended the process of one master, and nothing else. A cluster of one
    /// master has nobody who goes on.
    pub(super) fn is_death_of_a_master(&self, incident: &Incident) -> bool {
        let one = |target: &Target| {
            matches!(
                target,
                Target::One(Place::Master(_)) | Target::Coordinator(_) | Target::MasterOf(_)
            )
        };
        let fault = self.plan.faults.get(incident.fault);
        fault.is_some_and(|fault| match &fault.action {
            Action::Crash { target } | Action::Exit { target } => one(target),
            _ => false,
        }) && self.plan.cluster.masters > 1
    }

    /// Returns whether a fault only ended workers or people's machines, or spoiled their disks or
    /// clocks, or made people's machines stand still, or let a clock drift a little. Steps of clocks are
    /// beside lists as well: what they do at once is asked beside this.
    fn is_beside_lists(&self, incident: &Incident) -> bool {
        if self.is_of_steps(incident) || self.is_of_small_drift(incident) {
            return true;
        }
        let is_person =
            |target: &Target| matches!(target, Target::People | Target::One(Place::Person(_)));
        let is_worker = |target: &Target| {
            matches!(
                target,
                Target::Role(Role::Worker) | Target::One(Place::Worker(_)) | Target::Assigned(_)
            )
        };
        let is_beside = |target: &Target| is_person(target) || is_worker(target);
        let fault = self.plan.faults.get(incident.fault);
        fault.is_some_and(|fault| match &fault.action {
            Action::Crash { target }
            | Action::Exit { target }
            | Action::Wipe { target }
            | Action::Stop { target }
            | Action::Torn { target, .. }
            | Action::BitRot { target, .. }
            | Action::SyncSlow { target, .. }
            | Action::SyncError { target, .. }
            | Action::DiskFull { target }
            | Action::ClockDrift { target, .. }
            | Action::FdLimit { target, .. } => is_beside(target),
            Action::Restart { targets } => targets.iter().all(is_beside),
            // A worker that stands still in the middle of a write may hold the lock of a store's file.
            Action::Pause { target } | Action::PersonRestart { target } => is_person(target),
            _ => false,
        })
    }

    /// Returns whether lists were in calm from one time to another: nothing was wrong, nor shortly before,
    /// but deaths of masters that left others all the time, and what is beside lists, and no clock that they
    /// depend on was set to another time.
    pub(super) fn is_calm_for_lists(&self, from: Duration, to: Duration) -> bool {
        let disturbs = |incident: &&Incident| {
            let until = self.end_of(incident).saturating_add(AFTERMATH);
            from <= until && to >= incident.from && !self.is_beside_lists(incident)
        };
        let near = || self.incidents.iter().filter(disturbs);
        to <= self.ended
            && from > AFTERMATH
            && near().all(|incident| self.is_death_of_a_master(incident))
            && near().count() < self.plan.cluster.masters
            && !self.may_steps_hide(from, to, near().next().is_none())
    }

    /// Returns the end of the last fault that had begun by a time, but deaths of masters that left
    /// others all the time, and what is beside lists. Each step of the store's clock is one, by which rows
    /// may be kept.
    pub(super) fn last_trouble_of_lists(&self, at: Duration) -> Duration {
        let steps = self.store_steps().filter(|step| *step <= at);
        let trouble = self.last_trouble_that(at, |incident| !self.is_beside_lists(incident));
        steps.fold(trouble, Duration::max)
    }

    /// Returns the same for people who logged out: no clock keeps them on a list.
    pub(super) fn last_trouble_of_leaves(&self, at: Duration) -> Duration {
        self.last_trouble_that(at, |it| !self.is_beside_lists(it) && !self.is_of_clocks(it))
    }

    /// Returns the end of the last fault of some that had begun by a time, but deaths of masters that left
    /// others all the time.
    fn last_trouble_that(&self, at: Duration, is_trouble: impl Fn(&Incident) -> bool) -> Duration {
        let is_begun = |incident: &&Incident| incident.from <= at && is_trouble(incident);
        let begun = || self.incidents.iter().filter(is_begun);
        let deaths = begun().filter(|incident| self.is_death_of_a_master(incident)).count();
        let nobody_was_left = deaths >= self.plan.cluster.masters;
        let counts = |incident: &&Incident| nobody_was_left || !self.is_death_of_a_master(incident);
        begun().filter(counts).map(|incident| self.end_of(incident)).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::fixtures::{Fixture, ms};

    fn trouble(faults: &[(&str, &str, u64, u64)]) -> Duration {
        Fixture::with_faults(faults).with(|it| it.last_trouble_of_lists(ms(40_000)))
    }

    #[test]
    fn death_of_a_master_is_no_trouble_while_others_are_left_all_the_time() {
        let crash = |nth| ("crash", nth, 20_000, 30_000);
        let (first, second) = (crash("target = \"master:0\""), crash("target = \"master:1\""));
        let pause = ("pause", "target = \"worker:0\"", 10_000, 12_000);
        assert_eq!(trouble(&[pause, first]), ms(12_000));
        assert_eq!(trouble(&[pause, first, second]), ms(30_000), "nobody was left");
        assert_eq!(trouble(&[crash("target = \"master:*\"")]), ms(30_000));
    }

    #[test]
    fn fault_that_touches_no_master_and_not_the_store_is_beside_lists() {
        let calm = |kind, keys| {
            let made = Fixture::with_faults(&[(kind, keys, 20_000, 30_000)]);
            made.with(|it| {
                let is_calm = it.is_calm_for_lists(ms(25_000), ms(26_000));
                let trouble = it.last_trouble_of_lists(ms(40_000));
                assert_eq!(trouble, if is_calm { Duration::ZERO } else { ms(30_000) }, "{kind}");
                is_calm
            })
        };
        for (kind, keys) in [
            ("crash", "target = \"worker:0\""),
            ("exit", "target = \"assigned(board:lobby)\""),
            ("wipe", "target = \"worker:*\""),
            ("restart", "targets = [\"worker:*\"]"),
            ("disk_full", "target = \"worker:1\""),
            ("clock_jump", "target = \"worker:1\"\nby = \"5s\""),
            ("crash", "target = \"person:2\""),
            ("pause", "target = \"person:*\""),
            ("person_restart", "target = \"person:2\""),
        ] {
            assert!(calm(kind, keys), "{kind} {keys}");
        }
        for (kind, keys) in [
            ("pause", "target = \"worker:0\""),
            ("slow", "target = \"worker:0\"\nfactor = 4.0"),
            ("swizzle", "targets = [\"worker:*\"]"),
            ("partition", "from = \"worker:0\"\nto = \"store\""),
            ("partition", "from = \"person:2\"\nto = \"master:0\""),
            ("restart", "targets = [\"worker:0\", \"master:0\"]"),
            ("crash", "target = \"store\""),
            ("pause", "target = \"coordinator(board:lobby)\""),
            ("store_error", "rate = 0.5"),
        ] {
            assert!(!calm(kind, keys), "{kind} {keys}");
        }
        let crash = ("crash", "target = \"worker:0\"", 20_000, 30_000);
        let mut unknown = Fixture::with_faults(&[crash]);
        unknown.incidents[0].fault = 7;
        unknown.with(|it| assert!(!it.is_calm_for_lists(ms(25_000), ms(26_000)), "in no plan"));
    }
}
