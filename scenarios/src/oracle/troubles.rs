//! Faults as oracles ask for them: when it was calm, and whom a fault may have touched.

use std::time::Duration;

use chatchat::model::ids::Role;

use super::Evidence;
use crate::{
    fault::{Action, Direction, Kind, Links},
    history::Who,
    plan::Incident,
    target::{Place, Target},
};

/// Time after a fault's end during which its effects are tolerated.
pub(super) const AFTERMATH: Duration = Duration::from_secs(15);
/// Time within which all masters that a restore superseded run again: each touches its row within a second,
/// and its supervisor waits for another one.
const BEGUN_AGAIN: Duration = Duration::from_secs(5);
/// Delay of a line that keeps nobody from what is promised.
const SHORT_DELAY: Duration = Duration::from_millis(50);

impl Evidence<'_> {
    /// Returns whether nothing was wrong anywhere from one time to another, nor shortly before:
    /// no fault, and not the cluster's start.
    pub(super) fn is_calm(&self, from: Duration, to: Duration) -> bool {
        to <= self.ended
            && from > AFTERMATH
            && !self.incidents.iter().any(|incident| {
                let until = self.end_of(incident).saturating_add(AFTERMATH);
                from <= until && to >= incident.from
            })
    }

    /// Returns whether a fault was the only one from one time to another, also at the cluster's start.
    pub(super) fn is_alone(&self, incident: &Incident, from: Duration, to: Duration) -> bool {
        let mut others = self.incidents.iter().filter(|other| *other != incident);
        from > Duration::ZERO && !others.any(|other| other.from <= to && self.end_of(other) >= from)
    }

    /// Returns the time at which a fault ended. A restore happens at once and is over when the masters that
    /// it superseded run again.
    pub(super) fn end_of(&self, incident: &Incident) -> Duration {
        let until = incident.until.unwrap_or(self.ended);
        let is_restore = self.kind_of(incident) == Some(Kind::Restore);
        if is_restore { until.saturating_add(BEGUN_AGAIN) } else { until }
    }

    /// Returns the end of the last fault.
    pub(super) fn last_trouble(&self) -> Duration {
        self.last_trouble_before(Duration::MAX)
    }

    /// Returns the end of the last fault that had begun by a time.
    pub(super) fn last_trouble_before(&self, at: Duration) -> Duration {
        let begun = self.incidents.iter().filter(|incident| incident.from <= at);
        begun.map(|incident| self.end_of(incident)).max().unwrap_or_default()
    }

    /// Returns the kind of a fault; `None` for one that is not in the plan.
    pub(super) fn kind_of(&self, incident: &Incident) -> Option<Kind> {
        self.plan.faults.get(incident.fault).map(|fault| fault.action.kind())
    }

    /// Returns whether the store may have been as it was some time before: what it said then is not its
    /// last word.
    pub(super) fn is_set_back(&self) -> bool {
        let mut at_store = self.incidents_at(Place::Store);
        at_store.any(|incident| self.kind_of(incident) == Some(Kind::Rollback))
    }

    /// Returns whether the store's clock may have been off, or run at another speed.
    pub(super) fn is_store_clock_touched(&self) -> bool {
        use Kind::{ClockDrift, ClockJump, ClockOffset};
        self.incidents_at(Place::Store).any(|incident| match self.kind_of(incident) {
            Some(kind) => matches!(kind, ClockDrift | ClockJump | ClockOffset),
            None => !self.is_core(incident),
        })
    }

    /// Returns whether it is what was broken around a core: no fault of the plan. It leaves the store
    /// whole, with its clock, and every disk as it was but those of [`Self::disk_around_core`].
    pub(super) fn is_core(&self, incident: &Incident) -> bool {
        self.plan.expect.core && incident.fault >= self.plan.core_number()
    }

    /// Returns the worker whose disk was broken around a core, if the incident says so.
    pub(super) fn disk_around_core(&self, incident: &Incident) -> Option<Place> {
        let nth = incident.fault.checked_sub(self.plan.core_disk_number(0))?;
        self.plan.expect.core.then_some(Place::Worker(nth))
    }

    /// Returns the faults that may have touched a place.
    pub(super) fn incidents_at(&self, place: Place) -> impl Iterator<Item = &Incident> {
        self.incidents.iter().filter(move |incident| self.may_touch(incident, place))
    }

    /// Returns whether a fault may have touched a place. A target by role counts for everyone who may
    /// have played it.
    pub(super) fn may_touch(&self, incident: &Incident, place: Place) -> bool {
        let fault = self.plan.faults.get(incident.fault);
        // A fault that is not in the plan: nothing is known of it.
        fault.is_none_or(|fault| match &fault.action {
            Action::LostAck { .. }
            | Action::StoreError { .. }
            | Action::StoreConflict { .. }
            | Action::StorePool { .. }
            | Action::StorePromote => place == Place::Store,
            // It supersedes every master.
            Action::Restore { .. } => matches!(place, Place::Store | Place::Master(_)),
            action => action.targets().iter().any(|target| self.may_be(target, place)),
        })
    }

    /// Returns whether a fault may have kept two places from each other: one that touched either of
    /// them, or the lines between.
    pub(super) fn may_part(&self, incident: &Incident, one: Place, other: Place) -> bool {
        let fault = self.plan.faults.get(incident.fault);
        let Some(Links { from, to, .. }) = fault.and_then(|fault| fault.action.links()) else {
            return self.may_touch(incident, one) || self.may_touch(incident, other);
        };
        let any = |targets: &[Target], place| targets.iter().any(|it| self.may_be(it, place));
        any(from, one) && any(to, other) || any(from, other) && any(to, one)
    }

    /// Returns whether a fault kept two places from each other while it stood, for sure: one stood still
    /// or did not run, or the lines between them were cut both ways.
    pub(super) fn surely_parts(&self, incident: &Incident, one: Place, other: Place) -> bool {
        let is = |target: &Target, place| {
            let places = target.places(&self.plan.cluster, self.plan.workload.people);
            places.is_some_and(|places| places.contains(&place))
        };
        let any = |targets: &[Target], place| targets.iter().any(|it| is(it, place));
        let fault = self.plan.faults.get(incident.fault).filter(|_| incident.bit);
        fault.is_some_and(|fault| match &fault.action {
            Action::Crash { target } | Action::Exit { target } | Action::Pause { target } => {
                is(target, one) || is(target, other)
            }
            Action::Partition { links: Links { from, to, direction: Direction::Both } } => {
                any(from, one) && any(to, other) || any(from, other) && any(to, one)
            }
            _ => false,
        })
    }

    /// Returns the machine of a session.
    pub(super) const fn machine_of(&self, who: Who) -> Place {
        Place::Person(self.plan.workload.machine_of(who.person))
    }

    /// Returns the place of the master at an address.
    pub(super) fn master_at(&self, address: &str) -> Option<Place> {
        let nth = self.history.masters.iter().position(|master| master == address);
        nth.map(Place::Master)
    }

    /// Returns the faults that may have touched a place from one time to another.
    pub(super) fn incidents_between(
        &self,
        place: Place,
        from: Duration,
        to: Duration,
    ) -> impl Iterator<Item = &Incident> {
        self.incidents_at(place).filter(move |it| it.from <= to && self.end_of(it) >= from)
    }

    /// Returns whether a fault may have touched a place from one time to another.
    pub(super) fn is_touched(&self, place: Place, from: Duration, to: Duration) -> bool {
        self.incidents_between(place, from, to).next().is_some()
    }

    /// Returns the times at which a node's process ended, or a second one began to speak under its
    /// name.
    pub(super) fn deaths(&self, place: Place) -> impl Iterator<Item = Duration> {
        let of_place = move |(ended, at): &(Place, Duration)| (*ended == place).then_some(*at);
        self.ends.iter().filter_map(of_place).chain(self.doublings(place))
    }

    /// Returns the time from which two processes may speak under a place's name.
    pub(super) fn doubled_from(&self, place: Place) -> Option<Duration> {
        self.doublings(place).min()
    }

    /// Returns whether no fault touched a place from one time to another but harmless ones.
    pub(super) fn is_connected(&self, place: Place, from: Duration, to: Duration) -> bool {
        self.incidents_between(place, from, to).all(|incident| self.is_harmless(incident))
    }

    /// Returns whether a fault cuts lines between masters only, or delays a line for a moment: that
    /// keeps no node from its work.
    pub(super) fn is_harmless(&self, incident: &Incident) -> bool {
        let is_master = |target: &Target| {
            matches!(
                target,
                Target::One(Place::Master(_))
                    | Target::Role(Role::Master)
                    | Target::Coordinator(_)
                    | Target::MasterOf(_)
            )
        };
        let fault = self.plan.faults.get(incident.fault);
        let cuts_masters_apart = fault.is_some_and(|fault| match &fault.action {
            Action::Partition { links } => links.from.iter().chain(&links.to).all(is_master),
            _ => false,
        });
        cuts_masters_apart || self.is_short_delay(incident)
    }

    /// Returns whether a fault delays a line by little, also beside the shortest time-out.
    pub(super) fn is_short_delay(&self, incident: &Incident) -> bool {
        let bound = self.plan.cluster.config.store_timeout.min(4 * SHORT_DELAY);
        self.is_delay_within(incident, bound)
    }

    /// Returns whether a fault delays a line, and what goes to and fro by half of `store_timeout` at most:
    /// no answer is late for that.
    pub(super) fn is_delay_in_time(&self, incident: &Incident) -> bool {
        self.is_delay_within(incident, self.plan.cluster.config.store_timeout)
    }

    /// Returns whether a fault delays a line by a quarter of a time at most.
    fn is_delay_within(&self, incident: &Incident, bound: Duration) -> bool {
        let fault = self.plan.faults.get(incident.fault);
        fault.is_some_and(|fault| match &fault.action {
            Action::Delay { by, jitter, .. } => {
                by.saturating_add(*jitter).saturating_mul(4) <= bound
            }
            _ => false,
        })
    }

    /// Returns the times in which a place's process did not run, by the faults that name it: each
    /// ends with the fault, or with the first line that the place says.
    pub(super) fn away(&self, place: Place) -> Vec<(Duration, Duration)> {
        let is_it = |target: &Target| {
            let places = target.places(&self.plan.cluster, self.plan.workload.people);
            places.is_some_and(|places| places.contains(&place))
        };
        let is_away = |incident: &&Incident| match self.plan.faults.get(incident.fault) {
            Some(fault) => match &fault.action {
                Action::Crash { target }
                | Action::Exit { target }
                | Action::Wipe { target }
                | Action::Pause { target } => incident.bit && is_it(target),
                _ => false,
            },
            None => false,
        };
        let away = self.incidents.iter().filter(is_away);
        let name = place.to_string();
        let span = |incident: &Incident| {
            let (from, until) = (incident.from, self.end_of(incident));
            let says = self.events.iter().find(|said| said.at > from && said.node == name);
            (from, says.map_or(until, |said| said.at.min(until)))
        };
        away.map(span).collect()
    }

    fn doublings(&self, place: Place) -> impl Iterator<Item = Duration> {
        let is_double = |incident: &&Incident| self.kind_of(incident) == Some(Kind::Clone);
        self.incidents_at(place).filter(is_double).map(|incident| incident.from)
    }

    fn may_be(&self, target: &Target, place: Place) -> bool {
        match target.places(&self.plan.cluster, self.plan.workload.people) {
            Some(places) => places.contains(&place),
            None => match (target, place) {
                (Target::Assigned(_), Place::Worker(_)) => true,
                (Target::Coordinator(_) | Target::MasterOf(_), Place::Master(_)) => true,
                (Target::Assigned(_) | Target::Coordinator(_) | Target::MasterOf(_), _) => false,
                _ => true,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::fixtures::{Fixture, ms};

    #[test]
    fn fault_touches_its_targets_while_it_is_on() {
        let made = Fixture::with_faults(&[
            ("crash", "target = \"worker:0\"", 20_000, 30_000),
            ("pause", "target = \"assigned(board:lobby)\"", 40_000, 45_000),
            ("partition", "from = \"master:1\"\nto = \"store\"", 50_000, 55_000),
        ]);
        let touched = |place: &str, from, to| {
            made.with(|evidence| {
                let Ok(Target::One(place)) = place.parse() else { panic!("{place}") };
                evidence.is_touched(place, ms(from), ms(to))
            })
        };
        assert!(touched("worker:0", 25_000, 26_000) && !touched("worker:1", 25_000, 26_000));
        assert!(touched("worker:1", 30_000, 41_000), "by its role, perhaps");
        assert!(!touched("master:0", 40_000, 60_000) && touched("master:1", 40_000, 60_000));
        assert!(touched("store", 52_000, 53_000) && !touched("store", 56_000, 59_000));
        let deaths =
            |nth| made.with(|evidence| evidence.deaths(Place::Worker(nth)).collect::<Vec<_>>());
        assert_eq!((deaths(0), deaths(1)), (vec![ms(20_000)], Vec::new()));
    }

    #[test]
    fn fault_of_the_store_touches_the_store_alone() {
        for (kind, keys) in [
            ("lost_ack", "count = 1"),
            ("store_error", "rate = 0.5"),
            ("store_conflict", "rate = 0.5"),
            ("store_pool", "count = 1"),
            ("store_promote", ""),
        ] {
            let made = Fixture::with_faults(&[(kind, keys, 20_000, 30_000)]);
            made.with(|evidence| {
                let touched = |place| evidence.is_touched(place, ms(25_000), ms(26_000));
                assert!(touched(Place::Store), "{kind}");
                assert!(!touched(Place::Master(0)) && !touched(Place::Worker(1)), "{kind}");
            });
        }
    }

    #[test]
    fn restore_touches_the_store_and_all_masters_until_they_run_again() {
        let keys = "target = \"store\"";
        let made = Fixture::with_faults(&[("restore", keys, 20_000, 20_000)]);
        made.with(|evidence| {
            let touched = |place, at| evidence.is_touched(place, ms(at), ms(at));
            for place in [Place::Store, Place::Master(0), Place::Master(1)] {
                assert!(touched(place, 20_000) && touched(place, 24_900), "{place}");
                assert!(!touched(place, 19_900) && !touched(place, 25_100), "{place}");
            }
            assert!(!touched(Place::Worker(0), 20_000) && !touched(Place::Person(0), 20_000));
            assert!(
                !evidence.is_calm(ms(39_000), ms(39_500))
                    && evidence.is_calm(ms(41_000), ms(42_000))
            );
        });
    }

    #[test]
    fn fault_is_alone_while_no_other_one_is_on() {
        let crash = ("crash", "target = \"master:0\"", 20_000, 30_000);
        let pause = ("pause", "target = \"worker:0\"", 10_000, 12_000);
        let made = Fixture::with_faults(&[pause, crash]);
        let alone = |nth: usize, from, to| {
            made.with(|it| it.is_alone(&it.incidents[nth], ms(from), ms(to)))
        };
        assert!(alone(1, 12_001, 60_000) && !alone(1, 12_000, 60_000) && !alone(0, 5000, 20_000));
        assert!(!alone(1, 0, 60_000), "the cluster starts");
    }

    #[test]
    fn cut_parts_the_places_at_its_ends_and_no_others_and_a_pause_parts_from_all() {
        let made = Fixture::with_faults(&[
            ("partition", "from = \"master:1\"\nto = \"store\"", 50_000, 55_000),
            ("pause", "target = \"store\"", 56_000, 57_000),
        ]);
        let parted = |nth: usize, one, other| {
            made.with(|evidence| evidence.may_part(&evidence.incidents[nth], one, other))
        };
        let (store, master) = (Place::Store, Place::Master);
        assert!(parted(0, master(1), store) && parted(0, store, master(1)));
        assert!(!parted(0, master(0), store) && !parted(0, master(1), master(0)));
        assert!(parted(1, master(0), store) && !parted(1, master(0), master(1)));
    }

    #[test]
    fn places_are_parted_for_sure_by_a_cut_both_ways_and_by_a_pause_of_a_place_that_is_known() {
        let cut = "from = \"master:1\"\nto = \"store\"";
        let half = format!("{cut}\ndirection = \"forward\"");
        let mut made = Fixture::with_faults(&[
            ("partition", cut, 50_000, 55_000),
            ("partition", half.as_str(), 50_000, 55_000),
            ("pause", "target = \"store\"", 56_000, 57_000),
            ("pause", "target = \"coordinator(board:lobby)\"", 56_000, 57_000),
            ("pause", "target = \"store\"", 58_000, 59_000),
        ]);
        made.incidents[4].bit = false;
        let parted = |nth: usize, one, other| {
            made.with(|evidence| evidence.surely_parts(&evidence.incidents[nth], one, other))
        };
        let (store, master) = (Place::Store, Place::Master);
        assert!(parted(0, master(1), store) && parted(0, store, master(1)));
        assert!(!parted(0, master(0), store) && !parted(0, master(1), master(0)));
        assert!(!parted(1, master(1), store), "one way is left");
        assert!(parted(2, master(0), store) && !parted(2, master(0), master(1)));
        assert!(!parted(3, master(0), master(1)), "who knows which");
        assert!(!parted(4, master(0), store), "it did nothing");
    }
}
