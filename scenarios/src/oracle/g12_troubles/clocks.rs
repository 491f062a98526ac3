//! Faults of clocks as lists of active people meet them (G12).
//!
//! 1. The store's clock alone counts the age of a row, and it is the wall clock of its host. After a step of
//!    it, lists wait for the next touch, which sets every row to now: it keeps nobody off a list, and keeps
//!    people on it as long as another fault of the store.
//! 2. Masters count by their monotonic clocks. One whose clock jumps ahead takes its readers for silent until
//!    they answer a beat, and takes those off the list at once who wait for their leave.
//! 3. Drift stretches what a clock counts, so times are judged as the slowest clock counts them. Where touches
//!    may come so late that all masters seem silent, it is trouble as any other fault.
//! 4. Lists depend on no wall clock of a node and on no clock of a worker. Nor does a log-out depend on any
//!    clock: it deletes its row in its own transaction.

use std::time::Duration;

use crate::{
    fault::Action,
    history::StreamLog,
    oracle::{Evidence, troubles::AFTERMATH},
    plan::Incident,
    target::{Place, Target},
};

/// Longest time between two touches of a master as any other clock counts it. After 10 s without a touch all
/// masters seem silent, and the next touch sets every row to now. A master that a person left may take them off
/// the list 10.5 s after its last touch of them.
const TOUCHED_WITHIN: Duration = Duration::from_secs(8);
/// Time after a single step of the store's clock from which on lists name everyone.
const LISTED_AFTER_STEP: Duration = Duration::from_secs(2);
/// Time after a jump of a master's clock from which on the readers of other masters are listed: it may have
/// taken them off early, and those touch them again.
const LISTED_AFTER_JUMP: Duration = Duration::from_secs(10);
/// Time after a jump of a master's clock from which on its own readers are listed: 7.5 s after their last
/// answer to a beat they answer the next one, and the touch after that names them.
const READERS_LISTED_AFTER_JUMP: Duration = Duration::from_secs(25);

impl Evidence<'_> {
    /// Returns whether a fault moved wall clocks of nodes and nothing else. A jump back leaves monotonic
    /// clocks as they are.
    pub(in crate::oracle) fn is_of_wall_clocks(&self, incident: &Incident) -> bool {
        match self.action_of(incident) {
            Some(Action::ClockOffset { target, .. }) => is_node(target),
            Some(Action::ClockJump { target, by }) => is_node(target) && by.ms <= 0,
            _ => false,
        }
    }

    /// Returns whether a fault moved clocks of nodes or of the store, and no person's.
    pub(in crate::oracle) fn is_of_clocks(&self, incident: &Incident) -> bool {
        match self.action_of(incident) {
            Some(
                Action::ClockOffset { target, .. }
                | Action::ClockDrift { target, .. }
                | Action::ClockJump { target, .. },
            ) => {
                is_node(target) || matches!(target, Target::Everything | Target::One(Place::Store))
            }
            _ => false,
        }
    }

    /// Returns the end of the last fault that had begun by a time, but those of clocks of nodes and of the
    /// store.
    pub(in crate::oracle) fn last_trouble_but_clocks(&self, at: Duration) -> Duration {
        let is_begun = |incident: &&Incident| incident.from <= at && !self.is_of_clocks(incident);
        let begun = self.incidents.iter().filter(is_begun);
        begun.map(|incident| self.end_of(incident)).max().unwrap_or_default()
    }

    /// Returns whether the clock of a stream's master jumped ahead while it served the stream, or was asked
    /// for it, so shortly before that its reader may not be listed.
    pub(in crate::oracle) fn may_jump_hide_reader(
        &self,
        stream: &StreamLog,
        from: Duration,
        to: Duration,
    ) -> bool {
        let leaps = |at: Duration| {
            at >= stream.asked && lasts_into(at, READERS_LISTED_AFTER_JUMP, from, to)
        };
        self.master_at(&stream.master).is_some_and(|master| self.jumps_of(master).any(leaps))
    }

    /// Returns whether more than so much time passed between two times by each clock that lists depend on.
    pub(in crate::oracle) fn has_passed(
        &self,
        limit: Duration,
        from: Duration,
        to: Duration,
    ) -> bool {
        to.saturating_sub(from) > limit && self.counted(from, to) > limit
    }

    /// Returns whether a fault is a step of clocks: what it does to lists, it does when it begins and ends.
    pub(super) fn is_of_steps(&self, incident: &Incident) -> bool {
        let action = self.action_of(incident);
        matches!(action, Some(Action::ClockOffset { .. } | Action::ClockJump { .. }))
    }

    /// Returns whether a fault is a drift with which touches come in time by every clock.
    pub(super) fn is_of_small_drift(&self, incident: &Incident) -> bool {
        if self.drift_of(incident).is_none() {
            return false;
        }
        let (mut fastest, mut slowest) = (0.0_f64, 0.0_f64);
        for (other, rate) in self.drifts(incident.from, self.end_of(incident)) {
            fastest = fastest.max(rate);
            if self.may_touch_masters(other) {
                slowest = slowest.min(rate);
            }
        }
        let interval = self.plan.cluster.config.presence_touch_interval;
        interval.mul_f64((1.0 + fastest) / (1.0 + slowest)) <= TOUCHED_WITHIN
    }

    /// Returns the times at which the store's clock was set to another time.
    pub(super) fn store_steps(&self) -> impl Iterator<Item = Duration> {
        let steps = self.incidents.iter().filter(move |it| self.is_of_steps(it));
        let at_store = steps.filter(move |it| self.may_touch(it, Place::Store));
        let undone = move |it: &Incident| match self.action_of(it) {
            Some(Action::ClockJump { .. }) => None,
            _ => Some(self.end_of(it)),
        };
        at_store.flat_map(move |it| [Some(it.from), undone(it)]).flatten()
    }

    /// Returns whether steps of the store's clock or jumps of masters' clocks may keep somebody off a list.
    /// `is_alone` says that no other fault may.
    pub(super) fn may_steps_hide(&self, from: Duration, to: Duration, is_alone: bool) -> bool {
        let near = self.store_steps().filter(|at| lasts_into(*at, AFTERMATH, from, to));
        let near: Vec<_> = near.collect();
        let is_stepped = match near.as_slice() {
            [] => false,
            [step] if is_alone => lasts_into(*step, LISTED_AFTER_STEP, from, to),
            // Two steps, each too small for the store to doubt the rows, may age them beyond their bound.
            // So may one step those that a dead master touched last.
            _ => true,
        };
        let wait = if is_alone { LISTED_AFTER_JUMP } else { AFTERMATH };
        let is_jump = |at: Duration| lasts_into(at, wait, from, to);
        let mut masters = (0..self.plan.cluster.masters).map(Place::Master);
        is_stepped || masters.any(|master| self.jumps_of(master).any(is_jump))
    }

    fn action_of(&self, incident: &Incident) -> Option<&Action> {
        self.plan.faults.get(incident.fault).map(|fault| &fault.action)
    }

    fn drift_of(&self, incident: &Incident) -> Option<f64> {
        match self.action_of(incident) {
            Some(Action::ClockDrift { rate, .. }) => Some(*rate),
            _ => None,
        }
    }

    fn may_touch_masters(&self, incident: &Incident) -> bool {
        let mut masters = (0..self.plan.cluster.masters).map(Place::Master);
        masters.any(|master| self.may_touch(incident, master))
    }

    /// Returns the times at which the clocks of a master may have jumped ahead.
    fn jumps_of(&self, master: Place) -> impl Iterator<Item = Duration> {
        let is_ahead = move |it: &&Incident| match self.action_of(it) {
            Some(Action::ClockJump { by, .. }) => by.ms > 0,
            _ => false,
        };
        let jumps = self.incidents.iter().filter(is_ahead);
        jumps.filter(move |it| self.may_touch(it, master)).map(|it| it.from)
    }

    /// Returns the drifts of clocks of masters and of the store that stood at some time between two others.
    fn drifts(&self, from: Duration, to: Duration) -> impl Iterator<Item = (&Incident, f64)> {
        let stood = move |it: &&Incident| it.from <= to && self.end_of(it) >= from;
        let drifts = self.incidents.iter().filter(stood);
        let drifts = drifts.filter_map(move |it| Some((it, self.drift_of(it)?)));
        drifts.filter(move |(it, _)| self.may_touch(it, Place::Store) || self.may_touch_masters(it))
    }

    /// Returns the time between two others as the slowest clock that lists depend on counts it.
    fn counted(&self, from: Duration, to: Duration) -> Duration {
        let drifts = self.drifts(from, to).map(|(it, rate)| (it.from, self.end_of(it), rate));
        let drifts: Vec<_> = drifts.collect();
        let edges = drifts.iter().flat_map(|(begun, ended, _)| [*begun, *ended]);
        let edges = edges.filter(|at| (from..to).contains(at));
        let mut edges: Vec<_> = edges.chain([from, to]).collect();
        edges.sort_unstable();
        let spans = edges.iter().zip(edges.iter().skip(1));
        let lost = spans.map(|(first, last)| {
            let during = drifts.iter().filter(|(begun, ended, _)| begun <= first && last <= ended);
            let slowest = during.map(|(_, _, rate)| *rate).fold(0.0, f64::min);
            last.saturating_sub(*first).mul_f64(slowest.abs())
        });
        to.saturating_sub(from).saturating_sub(lost.sum())
    }
}

/// Returns whether a target stands for masters or workers, and for nobody else.
const fn is_node(target: &Target) -> bool {
    matches!(
        target,
        Target::One(Place::Master(_) | Place::Worker(_))
            | Target::Role(_)
            | Target::Coordinator(_)
            | Target::Assigned(_)
            | Target::MasterOf(_)
    )
}

/// Returns whether what happened at a time, and counts for `wait` from then on, does so in a span of time.
fn lasts_into(at: Duration, wait: Duration, from: Duration, to: Duration) -> bool {
    at <= to && at.saturating_add(wait) >= from
}

#[cfg(test)]
mod tests {
    use chatchat::{
        api::StreamEvent,
        client::{Answer, Request},
    };

    use crate::oracle::{
        fixtures::{Fixture, list_of},
        g12_presence::judge,
    };

    type Fault<'a> = (&'a str, &'a str, u64, u64);

    const LEAP: Fault<'static> = ("clock_jump", "target = \"store\"\nby = \"60s\"", 30_000, 30_000);

    /// Returns the rules that a list of these people breaks. Person 0 reads from `master:0` since 20 s, person
    /// 1 logged out at 20 s, and person 2 fell silent at 5.1 s.
    fn broken(faults: &[Fault<'_>], at: u64, people: &[usize]) -> Vec<String> {
        let mut made = Fixture::with_faults(faults);
        made.history.masters = vec!["http://m".to_owned(), "http://n".to_owned()];
        let beats = (20_000..60_000).step_by(4000);
        made.stream(0, 0, beats.map(|at| (at, StreamEvent::Beat)).collect());
        made.did(1, 20_000, 20_100, Request::Leave, Ok(Answer::Done));
        made.did(2, 5000, 5100, Request::Alive, Ok(Answer::Done));
        made.did(3, at, at + 100, Request::Users, Ok(Answer::Users(list_of(people))));
        made.rules(judge)
    }

    #[test]
    fn lists_are_judged_while_clocks_are_off_that_they_do_not_depend_on_and_while_others_drift() {
        for (kind, keys) in [
            ("clock_offset", "target = \"master:0\"\nby = \"3600s\""),
            ("clock_offset", "target = \"worker:1\"\nby = \"-3600s\""),
            ("clock_jump", "target = \"coordinator(board:lobby)\"\nby = \"-40s\""),
            ("clock_jump", "target = \"worker:*\"\nby = \"40s\""),
            ("clock_drift", "target = \"worker:0\"\nrate = -0.3"),
            ("clock_drift", "target = \"master:0\"\nrate = 0.3"),
            ("clock_drift", "target = \"store\"\nrate = 0.4"),
        ] {
            let fault = [(kind, keys, 30_000, 60_000)];
            assert_eq!(broken(&fault, 40_000, &[0, 3]), [""; 0], "{kind} {keys}");
            assert_eq!(broken(&fault, 40_000, &[3]), ["g12.missing"], "{kind} {keys}");
            assert_eq!(broken(&fault, 40_000, &[0, 1]), ["g12.lingers"], "{kind} {keys}");
            assert_eq!(broken(&fault, 52_000, &[0, 2]), ["g12.forgotten"], "{kind} {keys}");
        }
    }

    #[test]
    fn silent_person_may_be_listed_for_45_s_as_the_slowest_clock_counts_them() {
        for target in ["store", "master:*", "master_of(worker:0)"] {
            let slow = format!("target = \"{target}\"\nrate = -0.3");
            let slow = ("clock_drift", slow.as_str(), 25_000, 45_000);
            assert_eq!(broken(&[slow], 56_000, &[0, 2]), [""; 0], "{target}");
            assert_eq!(broken(&[slow], 56_200, &[0, 2]), ["g12.forgotten"], "{target}");
            let other = ("clock_drift", "target = \"master:1\"\nrate = -0.2", 35_000, 55_000);
            assert_eq!(broken(&[slow, other], 58_000, &[0, 2]), [""; 0], "{target}");
            assert_eq!(broken(&[slow, other], 58_200, &[0, 2]), ["g12.forgotten"], "{target}");
        }
        let worker = ("clock_drift", "target = \"worker:0\"\nrate = -0.3", 25_000, 45_000);
        assert_eq!(broken(&[worker], 50_200, &[0, 2]), ["g12.forgotten"]);
    }

    #[test]
    fn drift_by_which_all_masters_may_seem_silent_is_trouble() {
        let drift = |keys, from, until| ("clock_drift", keys, from, until);
        let large = drift("target = \"store\"\nrate = 0.7", 30_000, 42_000);
        let small = drift("target = \"store\"\nrate = 0.5", 30_000, 42_000);
        let fast = drift("target = \"store\"\nrate = 0.3", 33_000, 42_000);
        let slow = |until| drift("target = \"master:1\"\nrate = -0.3", 25_000, until);
        for (faults, is_trouble) in [
            (&[large][..], true),
            (&[small], false),
            (&[fast, slow(34_000)], true),
            (&[fast, slow(32_000)], false),
        ] {
            let found = |rule| vec![rule; usize::from(!is_trouble)];
            assert_eq!(broken(faults, 40_000, &[3]), found("g12.missing"), "{faults:?}");
            assert_eq!(broken(faults, 59_000, &[0, 2]), found("g12.forgotten"), "{faults:?}");
            assert_eq!(broken(faults, 40_000, &[0, 1]), ["g12.lingers"], "{faults:?}");
        }
    }

    #[test]
    fn lists_name_everyone_2_s_after_a_single_step_of_the_stores_clock() {
        let again = (LEAP.0, LEAP.1, 36_000, 36_000);
        let off = ("clock_offset", "target = \"store\"\nby = \"-9s\"", 30_000, 40_000);
        let death = ("crash", "target = \"master:1\"", 25_000, 50_000);
        for (faults, at, found) in [
            (&[LEAP][..], 31_900, &[][..]),
            (&[LEAP], 32_100, &["g12.missing"]),
            (&[LEAP, again], 44_900, &[]),
            (&[LEAP, again], 45_100, &["g12.missing"]),
            (&[off], 38_000, &["g12.missing"]),
            (&[off], 41_900, &[]),
            (&[off], 45_100, &["g12.missing"]),
            (&[LEAP, death], 44_900, &[]),
            (&[LEAP, death], 45_100, &["g12.missing"]),
        ] {
            assert_eq!(broken(faults, at, &[3]), found, "{faults:?} {at}");
        }
    }

    #[test]
    fn step_of_the_stores_clock_keeps_silent_people_for_45_s_and_nobody_who_logged_out() {
        let early = (LEAP.0, LEAP.1, 6000, 6000);
        assert_eq!(broken(&[early], 50_900, &[0, 2]), [""; 0]);
        assert_eq!(broken(&[early], 51_100, &[0, 2]), ["g12.forgotten"]);
        assert_eq!(broken(&[LEAP], 59_000, &[0, 2]), [""; 0]);
        assert_eq!(broken(&[LEAP], 36_000, &[0, 1]), ["g12.lingers"]);
    }

    #[test]
    fn masters_jump_ahead_hides_its_own_readers_for_25_s_and_others_for_10_s() {
        let jump = |keys, at| ("clock_jump", keys, at, at);
        let own = "target = \"master:0\"\nby = \"5s\"";
        let other = "target = \"master:1\"\nby = \"5s\"";
        let role = "target = \"coordinator(board:lobby)\"\nby = \"5s\"";
        let death = ("crash", "target = \"master:1\"", 33_000, 50_000);
        for (faults, at, found) in [
            (&[jump(own, 32_000)][..], 56_900, &[][..]),
            (&[jump(own, 32_000)], 57_100, &["g12.missing"]),
            (&[jump(role, 32_000)], 56_900, &[]),
            (&[jump(other, 32_000)], 41_900, &[]),
            (&[jump(other, 32_000)], 42_100, &["g12.missing"]),
            (&[jump(other, 32_000), death], 46_900, &[]),
            (&[jump(other, 32_000), death], 47_100, &["g12.missing"]),
            // The stream was asked for afterwards.
            (&[jump(own, 19_000)], 28_900, &[]),
            (&[jump(own, 19_000)], 29_100, &["g12.missing"]),
        ] {
            assert_eq!(broken(faults, at, &[3]), found, "{faults:?} {at}");
        }
        assert_eq!(broken(&[jump(own, 32_000)], 36_000, &[0, 1]), ["g12.lingers"]);
        assert_eq!(broken(&[jump(own, 32_000)], 52_000, &[0, 2]), ["g12.forgotten"]);
    }
}
