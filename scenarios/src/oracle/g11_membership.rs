//! G11 membership: each node shows every fact of a worker at most once and none going back, and
//! at the end all nodes that speak of a worker agree on its newest fact. (Masters are in by the
//! store's list alone: one that was stopped may be out and in again in one life.)

use std::{collections::BTreeMap, time::Duration};

use chatchat::model::{
    event::Event,
    ids::{NodeId, Registration, Role},
    message::MemberState,
};

use super::{Clue, Evidence, Violation, broken, seconds};
use crate::property::Property;

/// Update reaches everyone within this after the last fault's end.
const SPREADS_WITHIN: Duration = Duration::from_secs(15);

type Fact = (Registration, MemberState);

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut latest: BTreeMap<(&str, NodeId), Fact> = BTreeMap::new();
    let mut newest: BTreeMap<NodeId, (Fact, Duration)> = BTreeMap::new();
    let mut found = Vec::new();
    for said in evidence.events {
        let place = said.node.as_str();
        match &said.event {
            // A new life knows nothing.
            Event::Start { .. } => latest.retain(|(at, _), _| *at != place),
            Event::Announce { node, role: Role::Worker, registration, state, .. } => {
                let fact = (*registration, *state);
                if let Some(before) = latest.insert((place, *node), fact)
                    && before >= fact
                    && !is_new_life(evidence, place, said.at)
                {
                    let text = format!("{place} shows {node} as {fact:?} after {before:?}");
                    found.push(broken(Property::G11, "back", text, [said.clue()]));
                }
                let entry = newest.entry(*node).or_insert((fact, said.at));
                if fact > entry.0 {
                    *entry = (fact, said.at);
                }
            }
            _ => {}
        }
    }
    for ((place, node), fact) in &latest {
        let Some((best, since)) = newest.get(node) else { continue };
        let settled = last_trouble(evidence).max(*since) + SPREADS_WITHIN;
        if fact < best && settled <= evidence.ended && !is_new_life(evidence, place, evidence.ended)
        {
            let text = format!("{place} still shows {node} as {fact:?}, the newest is {best:?}");
            let known = Clue::from(format!("known since {}", seconds(*since)));
            found.push(broken(Property::G11, "stale", text, [known]));
        }
    }
    found
}

/// Returns the end of the last fault.
fn last_trouble(evidence: &Evidence<'_>) -> Duration {
    let until = |incident: &crate::plan::Incident| incident.until.unwrap_or(evidence.ended);
    evidence.incidents.iter().map(until).max().unwrap_or_default()
}

/// Returns whether a node may have begun a new life before. No line of its own announces a
/// worker's, so any earlier process fault counts.
fn is_new_life(evidence: &Evidence<'_>, place: &str, at: Duration) -> bool {
    place.starts_with("worker:") && evidence.incidents.iter().any(|incident| incident.from <= at)
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
        assert_eq!(made.judge(judge).len(), 1, "twice");
        let mut made = Fixture::new();
        made.said(1, "master:0", fact(1, 2, MemberState::Failed));
        made.said(2, "master:0", fact(1, 2, MemberState::In));
        assert_eq!(made.judge(judge).len(), 2, "back, and it stays back");
        let mut made = Fixture::new();
        made.said(1, "master:0", fact(1, 1, MemberState::In));
        made.said(2, "master:1", fact(1, 1, MemberState::In));
        made.said(3, "master:1", fact(1, 2, MemberState::In));
        assert_eq!(made.judge(judge).len(), 1, "not shared");
    }
}
