//! G9, workers without the store: a master gives no task to a worker that has long been cut off
//! from the store, while another of its workers reaches it.

use std::time::Duration;

use chatchat::model::event::Event;

use super::{Evidence, Violation, broken, seconds};
use crate::{
    fault::{Action, Direction, Links},
    plan::Incident,
    property::Property,
    target::{Place, Target},
};

/// Time within which a worker has told its master that it does not reach the store: the time-out of
/// its question, and two heartbeats.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for incident in evidence.incidents {
        let Some(cut) = cut_off(evidence, incident) else { continue };
        let (from, until) = (incident.from + TOLD_WITHIN, evidence.end_of(incident));
        let lines = evidence.events.iter().filter(|said| said.at >= from && said.at < until);
        for said in lines {
            let (Event::Assign { worker, .. }, Some(coordinator)) = (&said.event, said.place())
            else {
                continue;
            };
            let joined = evidence.joined_by(said.at);
            let Some(here) = joined.get(&cut).filter(|here| here.node == *worker) else { continue };
            let since = incident.from.saturating_sub(TOLD_WITHIN);
            let is_disturbed = |place: Place| {
                evidence.incidents_at(place).any(|other| {
                    let is_then = other.from <= said.at && evidence.end_of(other) >= since;
                    is_then && other != incident
                })
            };
            if is_disturbed(cut) || is_disturbed(coordinator) {
                continue;
            }
            let mut others = joined.iter().filter(|(place, it)| {
                matches!(place, Place::Worker(_)) && **place != cut && it.master == here.master
            });
            if others.any(|(place, _)| !evidence.is_touched(*place, since, said.at)) {
                let text = format!(
                    "{cut} was given a batch {} after it was cut off from the store",
                    seconds(said.at.saturating_sub(incident.from))
                );
                found.push(broken(Property::G9, "cut-off", text, [said.clue()]));
            }
        }
    }
    found
}

/// Returns the worker that a fault cuts off from the store, if it does just that.
fn cut_off(evidence: &Evidence<'_>, incident: &Incident) -> Option<Place> {
    let fault = evidence.plan.faults.get(incident.fault)?;
    let Action::Partition { links: Links { from, to, direction } } = &fault.action else {
        return None;
    };
    match (from.as_slice(), to.as_slice(), direction) {
        ([Target::One(cut @ Place::Worker(_))], [Target::One(Place::Store)], Direction::Both)
        | ([Target::One(Place::Store)], [Target::One(cut @ Place::Worker(_))], Direction::Both) => {
            Some(*cut)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use chatchat::model::ids::Registration;

    use super::*;
    use crate::oracle::fixtures::{Fixture, assigned, node};

    const MASTER: u8 = 9;

    fn join(worker: u8) -> Event {
        Event::Join { node: node(worker), registration: Registration(1), master: node(MASTER) }
    }

    /// `worker:0` is cut off from the store from 20 s to 40 s; at a time, a batch is given to a
    /// worker.
    fn given(at: u64, worker: u8) -> Vec<Violation> {
        let cut = "from = \"worker:0\"\nto = \"store\"";
        let mut made = Fixture::with_faults(&[("partition", cut, 20_000, 40_000)]);
        made.said(1000, "worker:0", join(1)).said(1000, "worker:1", join(2));
        made.said(at, "master:0", assigned(worker, 1, &[], 1));
        made.judge(judge)
    }

    #[test]
    fn batch_for_a_worker_that_is_cut_off_from_the_store_is_reported() {
        let told = given(30_000, 1);
        assert_eq!((told.len(), told[0].rule.name), (1, "cut-off"), "{told:?}");
        assert_eq!(given(30_000, 2), [], "the other one");
        assert_eq!(given(22_000, 1), [], "it may not have told yet");
        assert_eq!(given(41_000, 1), []);
    }
}
