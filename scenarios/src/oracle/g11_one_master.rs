//! G11, one master each: 15 s after the last fault's end every worker is registered with exactly
//! one live master.

use std::{collections::BTreeMap, time::Duration};

use chatchat::model::{
    event::Event,
    ids::{NodeId, Registration, Role},
};

use super::{Clue, EventLine, Evidence, Violation, broken, g11_membership::SPREADS_WITHIN};
use crate::{property::Property, target::Target};

/// Workers that a master has, by its own lines.
#[derive(Default)]
struct Members<'a>(BTreeMap<NodeId, (Registration, &'a EventLine)>);

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    if evidence.last_trouble() + SPREADS_WITHIN > evidence.ended {
        return Vec::new();
    }
    let mut masters: BTreeMap<&str, Members<'_>> = BTreeMap::new();
    // A wiped worker comes back under another id: the newest counts.
    let mut identities: BTreeMap<&str, (NodeId, Duration)> = BTreeMap::new();
    for said in evidence.events {
        let place = said.node.as_str();
        if place.starts_with("worker:") {
            if let Event::Join { node, .. } = &said.event {
                identities.insert(place, (*node, said.at));
            }
            continue;
        }
        let members = &mut masters.entry(place).or_default().0;
        match &said.event {
            Event::Start { .. } => members.clear(),
            Event::Join { node, registration, .. } => {
                members.insert(*node, (*registration, said));
            }
            Event::Leave { node, registration } | Event::Fail { node, registration, .. }
                if members.get(node).is_some_and(|(joined, _)| joined <= registration) =>
            {
                members.remove(node);
            }
            // It hears that the worker is with another master by now.
            Event::Announce { node, registration, role: Role::Worker, .. }
                if members.get(node).is_some_and(|(joined, _)| joined < registration) =>
            {
                members.remove(node);
            }
            _ => {}
        }
    }
    let workers = Target::Role(Role::Worker);
    let workers = workers.places(&evidence.plan.cluster, evidence.plan.workload.people);
    let mut found = Vec::new();
    for worker in workers.unwrap_or_default() {
        let place = worker.to_string();
        let Some((node, since)) = identities.get(place.as_str()) else {
            let text = format!("{place} was never registered with a master");
            found.push(broken(Property::G11, "one-master", text, []));
            continue;
        };
        // It just moved: the master before may not know yet.
        if *since + SPREADS_WITHIN > evidence.ended {
            continue;
        }
        let has = masters.values().filter_map(|members| members.0.get(node));
        let clues: Vec<Clue> = has.map(|(_, line)| line.clue()).collect();
        if clues.len() != 1 {
            let text = format!("{place} is registered with {} masters", clues.len());
            found.push(broken(Property::G11, "one-master", text, clues));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use chatchat::model::message::MemberState;

    use super::*;
    use crate::oracle::fixtures::{Fixture, node};

    fn join(of: u8, registration: u64) -> Event {
        Event::Join { node: node(of), registration: Registration(registration), master: node(9) }
    }

    /// Makes a run in which two workers join master 0.
    fn joined() -> Fixture {
        let mut made = Fixture::new();
        for (worker, of) in [("worker:0", 1), ("worker:1", 2)] {
            made.said(1000, "master:0", join(of, 1)).said(1001, worker, join(of, 1));
        }
        made
    }

    fn fail(of: u8, registration: u64) -> Event {
        let why = String::new();
        Event::Fail { node: node(of), registration: Registration(registration), why }
    }

    #[test]
    fn worker_that_moved_to_another_master_is_accepted() {
        let mut made = joined();
        assert_eq!(made.judge(judge), []);
        made.said(2000, "master:0", fail(1, 1));
        made.said(2000, "master:1", join(1, 2)).said(2001, "worker:0", join(1, 2));
        made.said(2002, "master:0", fail(1, 1));
        assert_eq!(made.judge(judge), []);
        let mut made = joined();
        made.said(2000, "master:1", join(1, 2)).said(2001, "worker:0", join(1, 2));
        let (registration, role) = (Registration(2), Role::Worker);
        let (state, master) = (MemberState::In, node(8));
        let moved = Event::Announce { node: node(1), role, registration, state, master };
        made.said(2003, "master:0", moved);
        assert_eq!(made.judge(judge), [], "it hears of the move only");
    }

    #[test]
    fn worker_of_two_masters_of_none_or_unheard_of_is_reported() {
        let mut made = joined();
        made.said(2000, "master:1", join(1, 2)).said(2001, "worker:0", join(1, 2));
        assert_eq!(made.rules(judge), ["g11.one-master"], "two");
        let mut made = joined();
        made.said(2000, "master:0", fail(1, 1));
        assert_eq!(made.rules(judge), ["g11.one-master"], "none");
        made.trouble(1000, 50_000);
        assert_eq!(made.judge(judge), [], "too soon after a fault");
        assert_eq!(Fixture::new().judge(judge).len(), 2, "unheard of");
    }
}
