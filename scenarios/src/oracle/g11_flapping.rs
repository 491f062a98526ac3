//! G11, no flapping: a worker that left its master of its own accord rests before it does so again, and
//! one whose masters are merely slow does not go to and fro between them.
//!
//! 1. A worker moves of its own accord if its master heard a goodbye, nobody called that registration
//!    failed, and the same process joined a master next. It rests twice as long after each such move.
//! 2. A goodbye may be heard late: of two moves the longest time counts that can have been between them.
//! 3. A master that is lost was silent before, so that its worker stayed with it for that long at least.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chatchat::{
    config::Config,
    model::{
        event::Event,
        ids::{NodeId, Registration},
        message::MemberState,
    },
    protocol::worker::moving::{CALM_AFTER, REST_MAX, REST_MIN},
};

use super::{EventLine, Evidence, Violation, broken, seconds, troubles::AFTERMATH};
use crate::{fault::Kind, property::Property, target::Place};

/// Time over which changes of master, and wrong calls of failed workers, are counted.
pub(super) const SPAN: Duration = Duration::from_secs(15);

/// Move of a worker that left its master of its own accord.
pub(super) struct Move<'a> {
    pub(super) worker: Place,
    /// Line of the master that it left.
    pub(super) left: &'a EventLine,
    /// Time at which it had joined that master.
    joined: Duration,
    /// Time at which it joined the next one.
    again: Duration,
}

/// Returns the moves of all workers, in the order of time.
pub(super) fn moves<'a>(evidence: &Evidence<'a>) -> Vec<Move<'a>> {
    let mut left: BTreeMap<(NodeId, Registration), &EventLine> = BTreeMap::new();
    let mut failed: BTreeSet<(NodeId, Registration)> = BTreeSet::new();
    for said in evidence.events {
        match &said.event {
            Event::Leave { node, registration } => {
                left.insert((*node, *registration), said);
            }
            Event::Fail { node, registration, .. }
            | Event::Announce { node, registration, state: MemberState::Failed, .. } => {
                failed.insert((*node, *registration));
            }
            _ => {}
        }
    }
    let mut last: BTreeMap<Place, ((NodeId, Registration), Duration)> = BTreeMap::new();
    let mut moves = Vec::new();
    for said in evidence.events {
        let Some(worker @ Place::Worker(_)) = said.place() else { continue };
        let Event::Join { node, registration, .. } = &said.event else { continue };
        let before = last.insert(worker, ((*node, *registration), said.at));
        let Some((registered, joined)) = before else { continue };
        let is_same = registered.0 == *node && !failed.contains(&registered);
        let Some(left) = left.get(&registered).copied().filter(|_| is_same) else { continue };
        if evidence.deaths(worker).all(|at| at < joined || at > said.at) {
            moves.push(Move { worker, left, joined, again: said.at });
        }
    }
    moves.sort_by_key(|it| it.left.at);
    moves
}

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let moves = moves(evidence);
    let workers = (0..evidence.plan.cluster.workers).map(Place::Worker);
    let workers = workers.filter(|worker| is_one(evidence, *worker));
    let found = workers.filter_map(|worker| {
        hasty(evidence, worker, &moves).or_else(|| to_and_fro(evidence, worker))
    });
    found.collect()
}

/// Returns whether one process and one disk stand for a worker: nobody knows which of two processes moved,
/// and an older disk names an older registration.
pub(super) fn is_one(evidence: &Evidence<'_>, worker: Place) -> bool {
    let mut kinds = evidence.incidents_at(worker).map(|incident| evidence.kind_of(incident));
    !kinds
        .any(|kind| matches!(kind, Some(Kind::Wipe | Kind::Rollback | Kind::Clone | Kind::BitRot)))
}

/// Time from the decision to move to its master's line: what the worker does for it ends before.
fn said_within(config: &Config) -> Duration {
    config.attempt_timeout + Duration::from_secs(1)
}

/// Judges the rests of a worker between its moves.
fn hasty(evidence: &Evidence<'_>, worker: Place, moves: &[Move<'_>]) -> Option<Violation> {
    // A worker that the store lets in no more leaves for a login.
    let has_store = |it: &&Move<'_>| {
        let at = it.left.at;
        !evidence.is_touched(Place::Store, at.saturating_sub(AFTERMATH), at)
    };
    let mut before: Option<&Move<'_>> = None;
    let mut rest = Duration::ZERO;
    for it in moves.iter().filter(|it| it.worker == worker).filter(has_store) {
        if let Some(one) = before {
            if evidence.deaths(worker).any(|at| (one.left.at..=it.left.at).contains(&at)) {
                rest = Duration::ZERO;
            }
            let passed = longest_between(evidence, one, it);
            if passed < rest && goes_right(evidence, worker, one.joined, it.again) {
                let (from, to) = (seconds(one.left.at), seconds(it.left.at));
                let text = format!("{worker} moved at {from} and {to}, its rest is {rest:?}");
                let clues = [one.left.clue(), it.left.clue()];
                return Some(broken(Property::G11, "flapping", text, clues));
            }
            if passed >= CALM_AFTER {
                rest = Duration::ZERO;
            }
        }
        rest = (rest * 2).clamp(REST_MIN, REST_MAX);
        before = Some(it);
    }
    None
}

/// Returns the longest time that can have been between the decisions to make two moves.
fn longest_between(evidence: &Evidence<'_>, one: &Move<'_>, next: &Move<'_>) -> Duration {
    let (left, config) = (one.left.at, &evidence.plan.cluster.config);
    let is_prompt = one
        .left
        .place()
        .is_some_and(|master| !evidence.is_touched(master, left.saturating_sub(AFTERMATH), left));
    let said = left.saturating_sub(said_within(config));
    let from = if is_prompt { one.joined.max(said) } else { one.joined };
    next.left.at.min(next.again).saturating_sub(from)
}

/// Returns whether only faults of lines touched a worker, so that its clock and its own lines are right.
fn goes_right(evidence: &Evidence<'_>, worker: Place, from: Duration, to: Duration) -> bool {
    evidence.incidents_between(worker, from.saturating_sub(AFTERMATH), to).all(|incident| {
        let fault = evidence.plan.faults.get(incident.fault);
        fault.is_some_and(|fault| fault.action.links().is_some())
    })
}

/// Judges how often a worker changed its master while all masters were whole or merely slow.
fn to_and_fro(evidence: &Evidence<'_>, worker: Place) -> Option<Violation> {
    let config = &evidence.plan.cluster.config;
    let silence = config.heartbeat_interval * config.heartbeats_missed_max;
    let most = 1 + SPAN.as_nanos() / silence.as_nanos().max(1);
    let most = usize::try_from(most).unwrap_or(usize::MAX - 1);
    let changes = changes(evidence, worker);
    let is_too_often = |some: &&[&EventLine]| {
        let (Some(first), Some(last)) = (some.first(), some.last()) else { return false };
        last.at - first.at < SPAN && is_merely_slow(evidence, worker, first.at, last.at)
    };
    let some = changes.windows(most + 1).find(is_too_often)?;
    let (first, last) = (some.first()?, some.last()?);
    let (count, from, to) = (some.len(), seconds(first.at), seconds(last.at));
    let text = format!("{worker} changed its master {count} times from {from} to {to}");
    Some(broken(Property::G11, "flapping", text, [first.clue(), last.clue()]))
}

/// Returns the lines by which a worker joined another master than the one before.
fn changes<'a>(evidence: &Evidence<'a>, worker: Place) -> Vec<&'a EventLine> {
    let name = worker.to_string();
    let mut with = None;
    let mut changes = Vec::new();
    for said in evidence.events.iter().filter(|said| said.node == name) {
        if let Event::Join { master, .. } = &said.event
            && with.replace(*master).is_some_and(|before| before != *master)
        {
            changes.push(said);
        }
    }
    changes
}

/// Returns whether nothing worse than slowness touched a worker, a master or the store, also shortly
/// before.
fn is_merely_slow(evidence: &Evidence<'_>, worker: Place, from: Duration, to: Duration) -> bool {
    let from = from.saturating_sub(AFTERMATH);
    let masters = (0..evidence.plan.cluster.masters).map(Place::Master);
    let mut places = masters.chain([worker, Place::Store]);
    places.all(|place| {
        let mut incidents = evidence.incidents_between(place, from, to);
        let is_slow =
            incidents.all(|it| matches!(evidence.kind_of(it), Some(Kind::Slow | Kind::Delay)));
        is_slow
            && evidence.doubled_from(place).is_none()
            && evidence.deaths(place).all(|at| at < from || at > to)
    })
}

#[cfg(test)]
mod tests {
    use chatchat::model::ids::Role;

    use super::*;
    use crate::oracle::fixtures::{Fixture, node};

    type Faults<'a> = &'a [(&'a str, &'a str, u64, u64)];

    /// Has worker 0 come to a master under a number.
    fn joins(made: &mut Fixture, at: u64, master: usize, number: u64) {
        let (registration, of) = (Registration(number), node(8 + master as u8));
        let join = Event::Join { node: node(1), registration, master: of };
        made.said(at, &format!("master:{master}"), join.clone()).said(at + 1, "worker:0", join);
    }

    /// Makes a run in which worker 0 goes from one master to the other of its own accord at these times.
    fn moved(faults: Faults<'_>, times: &[u64]) -> Fixture {
        let mut made = Fixture::with_faults(faults);
        joins(&mut made, 1000, 0, 1);
        for (nth, at) in times.iter().enumerate() {
            let registration = Registration(nth as u64 + 1);
            let leave = Event::Leave { node: node(1), registration };
            made.said(*at, &format!("master:{}", nth % 2), leave);
            joins(&mut made, *at + 100, (nth + 1) % 2, nth as u64 + 2);
        }
        made
    }

    /// Makes a run in which worker 0 loses one master after the other, at these intervals from 20 s on.
    fn lost(faults: Faults<'_>, count: u64, every: u64) -> Fixture {
        let mut made = Fixture::with_faults(faults);
        joins(&mut made, 1000, 0, 1);
        for nth in 1..=count {
            let (at, why) = (20_000 + nth * every, "silent".to_owned());
            let fail = Event::Fail { node: node(1), registration: Registration(nth), why };
            made.said(at, &format!("master:{}", (nth - 1) % 2), fail);
            joins(&mut made, at + 100, usize::from(nth % 2 == 1), nth + 1);
        }
        made
    }

    #[test]
    fn worker_that_rests_twice_as_long_after_each_move_is_accepted() {
        assert_eq!(moved(&[], &[16_000, 20_500, 29_000, 45_500]).judge(judge), []);
    }

    #[test]
    fn worker_that_moves_again_and_again_is_reported() {
        assert_eq!(moved(&[], &[20_000, 25_000]).judge(judge), [], "the first rest is short");
        assert_eq!(moved(&[], &[20_000, 25_000, 30_000]).rules(judge), ["g11.flapping"]);
        let deaf = ("connect_hang", "from = \"worker:*\"\nto = \"master:1\"", 10_000, 60_000);
        let told = moved(&[deaf], &[20_000, 25_000, 30_000, 35_000]).rules(judge);
        assert_eq!(told, ["g11.flapping"], "a master takes nobody in");
    }

    #[test]
    fn moves_from_slow_masters_count_by_the_longest_time_that_was_between_them() {
        let slow = ("slow", "target = \"master:*\"\nfactor = 60.0", 10_000, 50_000);
        assert_eq!(moved(&[slow], &[20_000, 25_000, 30_000]).judge(judge), []);
        let told = moved(&[slow], &[20_000, 25_000, 30_000, 35_000]).rules(judge);
        assert_eq!(told, ["g11.flapping"]);
    }

    #[test]
    fn moves_that_something_else_explains_are_not_counted() {
        let hasty = [20_000, 25_000, 30_000, 35_000];
        for (fault, what) in [
            (("crash", "target = \"worker:0\"", 27_000, 28_000), "another life"),
            (("pause", "target = \"worker:0\"", 27_000, 28_000), "its clock"),
            (("crash", "target = \"store\"", 14_000, 34_000), "logins"),
            (("clone", "target = \"worker:0\"", 14_000, 15_000), "two processes"),
        ] {
            assert_eq!(moved(&[fault], &hasty).judge(judge), [], "{what}");
        }
        let mut made = moved(&[], &hasty);
        for number in 1..=3 {
            let (registration, role) = (Registration(number), Role::Worker);
            let (state, master) = (MemberState::Failed, node(8));
            let failed = Event::Announce { node: node(1), registration, role, state, master };
            made.said(36_000, "master:1", failed);
        }
        assert_eq!(made.judge(judge), [], "it heard that it had failed");
    }

    #[test]
    fn worker_that_goes_to_and_fro_between_slow_masters_is_reported() {
        let slow = ("slow", "target = \"master:0\"\nfactor = 60.0", 19_000, 50_000);
        let delay =
            ("delay", "from = \"master:1\"\nto = \"worker:*\"\nby = \"900ms\"", 19_000, 50_000);
        assert_eq!(lost(&[slow, delay], 14, 1000).rules(judge), ["g11.flapping"]);
        assert_eq!(lost(&[], 14, 1000).rules(judge), ["g11.flapping"], "in calm");
        assert_eq!(lost(&[slow, delay], 14, 1600).judge(judge), [], "each was silent");
        assert_eq!(lost(&[slow, delay], 9, 1000).judge(judge), [], "that may be");
    }

    #[test]
    fn worker_whose_masters_are_cut_off_or_end_may_search() {
        let cut = ("partition", "from = \"master:1\"\nto = \"worker:0\"", 19_000, 50_000);
        assert_eq!(lost(&[cut], 14, 1000).judge(judge), []);
        let exit = ("exit", "target = \"master:0\"", 26_000, 27_000);
        assert_eq!(lost(&[exit], 14, 1000).judge(judge), []);
    }
}
