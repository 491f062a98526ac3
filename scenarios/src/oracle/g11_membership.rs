//! G11 membership: each node shows every fact of a worker at most once and none going back, and
//! at the end all nodes that speak of a worker agree on the newest fact that the living know, and
//! every master, and every worker that stayed, has spoken of each worker that is in.
//! (Masters are in by the store's list alone: one that was stopped may be out and in again in one
//! life.)

use std::{collections::BTreeMap, time::Duration};

use chatchat::model::{
    event::Event,
    ids::{NodeId, Registration, Role},
    message::MemberState,
};

use super::{Clue, EventLine, Evidence, Violation, broken, deaths::Deaths, seconds};
use crate::{property::Property, target::Place};

/// Update reaches everyone within this after the last fault's end.
pub(super) const SPREADS_WITHIN: Duration = Duration::from_secs(15);

type Fact = (Registration, MemberState);

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut latest: BTreeMap<(&str, NodeId), (Fact, &EventLine)> = BTreeMap::new();
    // The newest that a place showed in its life, which is the latest unless it went back.
    let mut known: BTreeMap<(&str, NodeId), (Fact, Duration)> = BTreeMap::new();
    // Workers that registered with a master in its present life, and when.
    let mut joined: BTreeMap<(&str, NodeId), (Registration, Duration)> = BTreeMap::new();
    // Identity that each worker registered under last, and when.
    let mut own: BTreeMap<&str, (NodeId, Duration)> = BTreeMap::new();
    let mut deaths = Deaths::of_workers(evidence);
    let mut found = Vec::new();
    for said in evidence.events {
        let place = said.node.as_str();
        // A new life knows nothing. No line of its own announces a worker's.
        if deaths.is_new_life(place, said.at) || matches!(said.event, Event::Start { .. }) {
            latest.retain(|(at, _), _| *at != place);
            known.retain(|(at, _), _| *at != place);
            joined.retain(|(at, _), _| *at != place);
        }
        match &said.event {
            Event::Join { node, registration, .. } if place.starts_with("master") => {
                joined.insert((place, *node), (*registration, said.at));
            }
            Event::Join { node, .. } => {
                own.insert(place, (*node, said.at));
            }
            Event::Leave { node, .. } | Event::Fail { node, .. } => {
                joined.remove(&(place, *node));
            }
            _ => {}
        }
        if let Event::Announce { node, role: Role::Worker, registration, state, .. } = &said.event {
            let fact = (*registration, *state);
            if let Some((before, line)) = latest.insert((place, *node), (fact, said))
                && before >= fact
            {
                let text = format!("{place} shows {node} as {fact:?} after {before:?}");
                found.push(broken(Property::G11, "back", text, [line.clue(), said.clue()]));
            }
            let shown = known.entry((place, *node)).or_insert((fact, said.at));
            if fact > shown.0 {
                *shown = (fact, said.at);
            }
        }
    }
    latest.retain(|(place, _), (_, line)| !deaths.died_after(place, line.at));
    // A fact that only the dead knew is nowhere: whoever knew it may have been wiped.
    known.retain(|held, _| latest.contains_key(held));
    let mut newest: BTreeMap<NodeId, (Fact, Duration)> = BTreeMap::new();
    for ((_, node), (fact, since)) in &known {
        let entry = newest.entry(*node).or_insert((*fact, *since));
        if *fact > entry.0 {
            *entry = (*fact, *since);
        } else if *fact == entry.0 {
            entry.1 = entry.1.min(*since);
        }
    }
    // A worker's word does not count: when all masters were wiped, what workers still list of the
    // old directory is nobody's fact.
    let is_listed =
        |it: &NodeId| latest.keys().any(|(place, node)| node == it && place.starts_with("master"));
    let learners = learners(evidence, &own);
    found.extend(unaware(evidence, &joined, &newest, &learners, &|place, node| {
        latest.contains_key(&(place, node))
    }));
    for ((place, node), (fact, line)) in &latest {
        let Some((best, since)) = newest.get(node).filter(|_| is_listed(node)) else { continue };
        let settled = evidence.last_trouble().max(*since) + SPREADS_WITHIN;
        if fact < best && settled <= evidence.ended {
            let text = format!("{place} still shows {node} as {fact:?}, the newest is {best:?}");
            let known = Clue::from(format!("known since {}", seconds(*since)));
            found.push(broken(Property::G11, "stale", text, [line.clue(), known]));
        }
    }
    found
}

/// Returns the nodes that must know every worker that is in, each with its own id if it is a worker.
///
/// A worker keeps what it knows on its disk and says nothing of it again in its next life, so that only
/// those whose process never ended count; and one that just registered is still being told.
fn learners(
    evidence: &Evidence<'_>,
    own: &BTreeMap<&str, (NodeId, Duration)>,
) -> Vec<(String, Option<NodeId>)> {
    let quiet = evidence.last_trouble() + SPREADS_WITHIN;
    let cluster = &evidence.plan.cluster;
    let is_connected = |place: &Place| evidence.is_connected(*place, quiet, evidence.ended);
    let masters = (0..cluster.masters).map(Place::Master).filter(is_connected);
    let masters = masters.map(|place| (place.to_string(), None));
    let workers = (0..cluster.workers).map(Place::Worker).filter(is_connected);
    let workers = workers.filter(|place| evidence.deaths(*place).next().is_none());
    let workers = workers.filter_map(|place| {
        let place = place.to_string();
        let (node, since) = own.get(place.as_str())?;
        (*since + SPREADS_WITHIN <= evidence.ended).then_some((place, Some(*node)))
    });
    masters.chain(workers).collect()
}

/// Returns the nodes that never learnt of a worker that is in.
fn unaware(
    evidence: &Evidence<'_>,
    joined: &BTreeMap<(&str, NodeId), (Registration, Duration)>,
    newest: &BTreeMap<NodeId, (Fact, Duration)>,
    learners: &[(String, Option<NodeId>)],
    knows: &dyn Fn(&str, NodeId) -> bool,
) -> Vec<Violation> {
    let mut found = Vec::new();
    let quiet = evidence.last_trouble() + SPREADS_WITHIN;
    for (place, own) in learners {
        for ((_, node), (registration, since)) in joined {
            // It may have moved on, or failed, since.
            let is_in = newest
                .get(node)
                .is_none_or(|(newest, _)| *newest <= (*registration, MemberState::In));
            if is_in
                && quiet.max(*since + SPREADS_WITHIN) <= evidence.ended
                && *own != Some(*node)
                && !knows(place, *node)
            {
                let text = format!("{place} never learnt of {node}, in under {registration}");
                let known = Clue::from(format!("in since {}", seconds(*since)));
                found.push(broken(Property::G11, "unaware", text, [known]));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use chatchat::model::ids::Incarnation;

    use super::*;
    use crate::oracle::fixtures::{Fixture, node};

    fn fact(of: u8, registration: u64, state: MemberState) -> Event {
        Event::Announce {
            node: node(of),
            role: Role::Worker,
            registration: Registration(registration),
            state,
            master: node(9),
        }
    }

    #[test]
    fn rising_facts_that_all_share_are_accepted() {
        let mut made = Fixture::new();
        for place in ["master:0", "master:1", "worker:0"] {
            made.said(1, place, fact(1, 1, MemberState::In));
            made.said(2, place, fact(1, 1, MemberState::Failed));
            made.said(3, place, fact(1, 2, MemberState::In));
        }
        made.said(4, "master:0", Event::Start { incarnation: Incarnation(2) });
        made.said(5, "master:0", fact(1, 2, MemberState::In));
        assert_eq!(made.judge(judge), []);
    }

    #[test]
    fn fact_going_back_repeated_or_not_shared_is_reported() {
        let mut made = Fixture::new();
        made.said(1, "master:0", fact(1, 2, MemberState::In));
        made.said(2, "master:0", fact(1, 2, MemberState::In));
        assert_eq!(made.rules(judge), ["g11.back"], "twice");
        let mut made = Fixture::new();
        made.said(1, "master:0", fact(1, 2, MemberState::Failed));
        made.said(2, "master:0", fact(1, 2, MemberState::In));
        assert_eq!(made.rules(judge), ["g11.back", "g11.stale"], "back, and it stays back");
        let mut made = Fixture::new();
        made.said(1, "master:0", fact(1, 1, MemberState::In));
        made.said(2, "master:1", fact(1, 1, MemberState::In));
        made.said(3, "master:1", fact(1, 2, MemberState::In));
        assert_eq!(made.rules(judge), ["g11.stale"], "not shared");
    }

    #[test]
    fn master_that_never_learnt_of_a_worker_is_reported() {
        let joined = |said: &[(&str, MemberState)]| {
            let mut made = Fixture::new();
            let (node, registration, master) = (node(1), Registration(2), node(9));
            made.said(1, "master:0", Event::Join { node, registration, master });
            for (place, state) in said {
                made.said(2, place, fact(1, 2, *state));
            }
            made.rules(judge)
        };
        assert_eq!(joined(&[]), ["g11.unaware"; 2], "neither");
        assert_eq!(joined(&[("master:0", MemberState::In)]), ["g11.unaware"], "the other one");
        assert!(joined(&[("master:0", MemberState::In), ("master:1", MemberState::In)]).is_empty());
        assert!(joined(&[("master:0", MemberState::Failed)]).is_empty(), "it may be forgotten");
    }

    #[test]
    fn worker_that_stayed_and_never_learnt_of_another_is_reported() {
        let learnt = |faults: &[(&str, &str, u64, u64)], joins: u64, told: &[&str]| {
            let mut made = Fixture::with_faults(faults);
            for (worker, of, at) in [("worker:0", 1, 1), ("worker:1", 2, joins)] {
                let (node, registration, master) = (node(of), Registration(1), node(9));
                made.said(at, "master:0", Event::Join { node, registration, master });
                made.said(at, worker, Event::Join { node, registration, master });
            }
            for place in ["master:0", "master:1"] {
                made.said(joins, place, fact(1, 1, MemberState::In));
                made.said(joins, place, fact(2, 1, MemberState::In));
            }
            made.said(joins, "worker:0", fact(2, 1, MemberState::In));
            for place in told {
                made.said(joins, place, fact(1, 1, MemberState::In));
            }
            made.rules(judge)
        };
        let none: [&str; 0] = [];
        assert_eq!(learnt(&[], 1000, &["worker:1"]), none);
        assert_eq!(learnt(&[], 1000, &[]), ["g11.unaware"], "the other one");
        assert_eq!(learnt(&[], 46_000, &[]), none, "it just registered");
        let died = |nth| [("crash", nth, 10_000, 11_000)];
        assert_eq!(learnt(&died("target = \"worker:1\""), 1000, &[]), none, "a new life");
        assert_eq!(learnt(&died("target = \"master:1\""), 1000, &[]), ["g11.unaware"]);
        let late = [("pause", "target = \"worker:0\"", 45_000, 46_000)];
        assert_eq!(learnt(&late, 1000, &[]), none, "too soon after a fault");
    }

    #[test]
    fn fact_that_only_a_former_life_knew_is_not_expected_of_others() {
        let mut made = Fixture::new();
        made.said(1, "master:0", fact(1, 1, MemberState::Failed));
        made.said(2, "master:1", fact(1, 1, MemberState::Failed));
        made.said(3, "master:1", fact(1, 2, MemberState::In));
        assert_eq!(made.judge(judge).len(), 1, "one that lives knows it");
        made.said(4, "master:1", Event::Start { incarnation: Incarnation(1) });
        made.said(5, "master:1", fact(1, 1, MemberState::Failed));
        assert_eq!(made.judge(judge), []);
        made.said(6, "worker:0", fact(2, 1, MemberState::In));
        made.said(7, "worker:1", fact(2, 1, MemberState::Failed));
        assert_eq!(made.judge(judge), [], "no master lists it");
        made.said(8, "master:0", fact(2, 1, MemberState::Failed));
        assert_eq!(made.judge(judge).len(), 1);
    }

    #[test]
    fn worker_is_exempt_only_when_its_own_process_ended() {
        for (fault, found) in [("target = \"worker:0\"", 0), ("target = \"worker:1\"", 1)] {
            let mut made = Fixture::with_faults(&[("crash", fault, 10_000, 11_000)]);
            made.said(9000, "worker:0", fact(1, 2, MemberState::In));
            made.said(12_000, "worker:0", fact(1, 1, MemberState::In));
            made.said(13_000, "worker:0", fact(1, 2, MemberState::In));
            assert_eq!(made.judge(judge).len(), found, "{fault}");
        }
        let mut made = Fixture::with_faults(&[("pause", "target = \"worker:0\"", 10_000, 11_000)]);
        made.said(9000, "worker:0", fact(1, 2, MemberState::In));
        made.said(12_000, "worker:0", fact(1, 2, MemberState::In));
        assert_eq!(made.judge(judge).len(), 1, "it was only stopped");
    }
}
