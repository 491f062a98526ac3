//! G11, no flapping: a worker is not called failed again and again by others while its own master has it.
//!
//! 1. A master has a worker that registered with it, until it says that it failed or left.
//! 2. Only what may keep the worker, or another master, from that master excuses that it is called failed:
//!    nothing that the store says of any of them. It excuses for good: a link to a master that the store
//!    does not show to be alive is made again, but later the longer it was out of reach.
//! 3. A fact may be late and a link may break: one call is accepted, and others long after it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chatchat::model::{
    event::Event,
    ids::{NodeId, Registration},
    message::MemberState,
};

use super::{
    EventLine, Evidence, Violation, broken,
    g11_flapping::{SPAN, is_one},
    seconds,
};
use crate::{property::Property, target::Place};

/// Call of a worker as failed that its master still had.
struct Called<'a> {
    worker: NodeId,
    master: Place,
    line: &'a EventLine,
}

/// Returns the calls of all workers, in the order of time.
fn called<'a>(evidence: &Evidence<'a>) -> Vec<Called<'a>> {
    let mut had: BTreeMap<(Place, NodeId), Registration> = BTreeMap::new();
    let mut called = Vec::new();
    for line in evidence.events {
        let Some(master @ Place::Master(_)) = line.place() else { continue };
        match &line.event {
            Event::Start { .. } => had.retain(|(at, _), _| *at != master),
            Event::Join { node, registration, .. } => {
                had.insert((master, *node), *registration);
            }
            Event::Leave { node, .. } | Event::Fail { node, .. } => {
                had.remove(&(master, *node));
            }
            Event::Announce { node, registration, state, .. } => {
                let Some(known) = had.get(&(master, *node)) else { continue };
                if *registration == *known && *state == MemberState::Failed {
                    called.push(Called { worker: *node, master, line });
                }
                if (*registration, *state) > (*known, MemberState::In) {
                    had.remove(&(master, *node));
                }
            }
            _ => {}
        }
    }
    called
}

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let called = called(evidence);
    let workers = (0..evidence.plan.cluster.workers).map(Place::Worker);
    let workers = workers.filter(|worker| is_one(evidence, *worker));
    workers.filter_map(|worker| again(evidence, worker, &called)).collect()
}

/// Judges how often a worker was called failed while nothing kept it from its master.
fn again(evidence: &Evidence<'_>, worker: Place, called: &[Called<'_>]) -> Option<Violation> {
    let name = worker.to_string();
    let own = evidence.events.iter().filter(|said| said.node == name);
    let nodes: BTreeSet<_> = own
        .filter_map(|said| match &said.event {
            Event::Join { node, .. } => Some(*node),
            _ => None,
        })
        .collect();
    let own: Vec<_> = called.iter().filter(|it| nodes.contains(&it.worker)).collect();
    let is_in_vain = |pair: &&[&Called<'_>]| {
        let [one, next] = pair else { return false };
        let (from, to) = (one.line.at, next.line.at);
        let is_again = one.master == next.master && to.saturating_sub(from) < SPAN;
        is_again && are_in_touch(evidence, worker, one.master, to)
    };
    let [one, next] = own.windows(2).find(is_in_vain)? else { return None };
    let (master, from, to) = (one.master, seconds(one.line.at), seconds(next.line.at));
    let text = format!("{worker} was called failed at {from} and {to}, though {master} had it");
    Some(broken(Property::G11, "flapping", text, [one.line.clue(), next.line.clue()]))
}

/// Returns whether nothing may have kept a worker or any other master from a master up to a time, and
/// each of them ran all the time.
fn are_in_touch(evidence: &Evidence<'_>, worker: Place, master: Place, until: Duration) -> bool {
    let masters = (0..evidence.plan.cluster.masters).map(Place::Master);
    let others: Vec<_> = masters.filter(|it| *it != master).chain([worker]).collect();
    let mut begun = evidence.incidents.iter().filter(|it| it.from <= until);
    let are_parted =
        begun.any(|it| others.iter().any(|other| evidence.may_part(it, master, *other)));
    let mut all = others.iter().chain([&master]);
    !are_parted && all.all(|place| evidence.deaths(*place).all(|at| at > until))
}

#[cfg(test)]
mod tests {
    use chatchat::model::ids::{Incarnation, Role};

    use super::*;
    use crate::oracle::fixtures::{Fixture, node};

    type Faults<'a> = &'a [(&'a str, &'a str, u64, u64)];

    /// Has worker 0 come to the first master under a number.
    fn joins(made: &mut Fixture, at: u64, number: u64) {
        let (registration, master) = (Registration(number), node(8));
        let join = Event::Join { node: node(1), registration, master };
        made.said(at, "master:0", join.clone()).said(at + 1, "worker:0", join);
    }

    /// Makes a run in which others call worker 0 failed at these times, and it registers with its master
    /// again. That one said before each call that it failed, if it did.
    fn called_at(faults: Faults<'_>, times: &[u64], did_fail: bool) -> Fixture {
        let mut made = Fixture::with_faults(faults);
        joins(&mut made, 1000, 1);
        for (nth, at) in times.iter().enumerate() {
            let (registration, role) = (Registration(nth as u64 + 1), Role::Worker);
            if did_fail {
                let why = "silent".to_owned();
                made.said(*at, "master:0", Event::Fail { node: node(1), registration, why });
            }
            let (state, master) = (MemberState::Failed, node(8));
            let failed = Event::Announce { node: node(1), registration, role, state, master };
            made.said(*at, "master:1", failed.clone()).said(*at, "master:0", failed);
            joins(&mut made, *at + 100, nth as u64 + 2);
        }
        made
    }

    #[test]
    fn worker_that_is_called_failed_again_though_its_master_has_it_is_reported() {
        let again = [22_000, 28_000];
        assert_eq!(called_at(&[], &again, false).rules(judge), ["g11.flapping"]);
        let from = "from = [\"master_of(worker:0)\", \"worker:0\"]\nto = \"store\"";
        let cut = ("partition", from, 12_000, 52_000);
        assert_eq!(called_at(&[cut], &again, false).rules(judge), ["g11.flapping"], "the store");
        let away = ("pause", "target = \"store\"", 12_000, 15_000);
        assert_eq!(called_at(&[away], &again, false).rules(judge), ["g11.flapping"]);
    }

    #[test]
    fn worker_that_is_called_failed_once_or_rarely_or_by_its_master_is_accepted() {
        assert_eq!(called_at(&[], &[22_000], false).judge(judge), []);
        assert_eq!(called_at(&[], &[22_000, 37_000], false).judge(judge), [], "rarely");
        assert_eq!(called_at(&[], &[22_000, 28_000], true).judge(judge), [], "its link was over");
        let mut made = called_at(&[], &[22_000, 28_000], false);
        made.said(25_000, "master:0", Event::Start { incarnation: Incarnation(2) });
        made.events.sort_by_key(|said| said.at);
        assert_eq!(made.judge(judge), [], "an earlier life had it");
        let mut made = called_at(&[], &[22_000, 28_000], false);
        made.events.retain(|said| said.node != "worker:0");
        assert_eq!(made.judge(judge), [], "nobody knows which worker it is");
    }

    #[test]
    fn whatever_may_keep_a_worker_or_a_master_from_its_master_excuses_such_calls() {
        let again = [22_000, 28_000];
        for (kind, keys) in [
            ("partition", "from = \"master:0\"\nto = \"worker:0\""),
            ("partition", "from = \"master:1\"\nto = \"master:0\""),
            ("reset", "from = \"master:*\"\nto = \"worker:*\""),
            ("pause", "target = \"worker:0\""),
            ("slow", "target = \"master:1\"\nfactor = 60.0"),
            ("crash", "target = \"coordinator(board:lobby)\""),
            ("clock_jump", "target = \"master:0\"\nby = \"5s\""),
        ] {
            for (from, until) in [(24_000, 26_000), (2000, 3000)] {
                let made = called_at(&[(kind, keys, from, until)], &again, false);
                assert_eq!(made.judge(judge), [], "{kind}: {keys}");
            }
            let later = called_at(&[(kind, keys, 40_000, 41_000)], &again, false);
            assert_eq!(later.rules(judge), ["g11.flapping"], "{kind} after it: {keys}");
        }
        for kind in ["clone", "rollback"] {
            let by = if kind == "clone" { "" } else { "\nby = \"5s\"" };
            let keys = format!("target = \"worker:0\"{by}");
            let made = called_at(&[(kind, keys.as_str(), 40_000, 41_000)], &again, false);
            assert_eq!(made.judge(judge), [], "{kind}: which of them it is");
        }
        let other = ("pause", "target = \"worker:1\"", 24_000, 26_000);
        assert_eq!(called_at(&[other], &again, false).rules(judge), ["g11.flapping"]);
    }
}
