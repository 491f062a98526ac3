//! G17 end of a planned stop: a node that was asked to end has ended in time. A master takes at most
//! `drain_timeout` to hand over; a worker begins its goodbye at once.
//!
//! The world adds two things to that, and so does the bound:
//! 1. The goodbye: a master's last words to the store, a worker's hand-over of what it holds. A real
//!    process gives its node 3 s for it, then ends by force; the simulated world forces nobody.
//! 2. Processors that have other work, and the pause between two looks at a process: as long as every
//!    answer may take in calm.
//!
//! Left out are nodes that stood still or whose clock ran slowly meanwhile, masters that the store answers
//! slowly (each of many dead letters waits for it), and workers that any fault touched: their disks, and
//! the masters that they go to, decide how long their goodbye takes.

use std::time::Duration;

use chatchat::model::event::Event;

use super::{Clue, Evidence, Violation, broken, seconds};
use crate::{fault::Kind, plan::Incident, property::Property, target::Place};

/// Time that a process gives its node for its goodbye (`programs/process.rs`).
const GOODBYE: Duration = Duration::from_secs(3);

/// Node that was asked to end.
struct Asked {
    place: Place,
    at: Duration,
    /// Time that it may take before its goodbye.
    hands_over: Duration,
    clue: Clue,
}

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let asked = masters(evidence).chain(workers(evidence));
    let late = asked.filter_map(|asked| {
        let within = asked.hands_over + GOODBYE + evidence.calm_limit;
        let due = asked.at + within;
        let ended = evidence.process_end(asked.place, asked.at);
        if ended <= due || is_held_up(evidence, asked.place, asked.at, due) {
            return None;
        }
        let text = format!(
            "{} was asked to end at {} and ran on until {}, longer than {within:?}",
            asked.place,
            seconds(asked.at),
            seconds(ended)
        );
        Some(broken(Property::G17, "drain-late", text, [asked.clue]))
    });
    late.collect()
}

/// Returns the masters that began to hand over.
fn masters<'a>(evidence: &'a Evidence<'_>) -> impl Iterator<Item = Asked> + 'a {
    let hands_over = evidence.plan.cluster.config.drain_timeout;
    let said = evidence.events.iter().filter(|said| matches!(said.event, Event::Drain { .. }));
    said.filter_map(move |said| {
        Some(Asked { place: said.place()?, at: said.at, hands_over, clue: said.clue() })
    })
}

/// Returns the workers that were in when they were asked to end. One that still starts ends later.
fn workers<'a>(evidence: &'a Evidence<'_>) -> impl Iterator<Item = Asked> + 'a {
    let stops = evidence.planned_stops().into_iter();
    let stops = stops.filter(|stop| matches!(stop.place, Place::Worker(_)));
    stops.filter_map(move |stop| {
        let name = stop.place.to_string();
        let joined = evidence.events.iter().rev().find(|said| {
            said.at <= stop.asked && said.node == name && matches!(said.event, Event::Join { .. })
        })?;
        let is_its_life = evidence.process_end(stop.place, joined.at) >= stop.asked;
        let (at, hands_over) = (stop.asked, Duration::ZERO);
        is_its_life.then(|| Asked { place: stop.place, at, hands_over, clue: joined.clue() })
    })
}

/// Returns whether a fault may have made a node end later than by itself.
fn is_held_up(evidence: &Evidence<'_>, place: Place, from: Duration, to: Duration) -> bool {
    use Kind as K;
    let is_near = |incident: &&Incident| incident.from <= to && evidence.end_of(incident) >= from;
    let mut near = evidence.incidents.iter().filter(is_near);
    near.any(|incident| match evidence.kind_of(incident) {
        Some(K::Stop | K::Restart) => false,
        None | Some(K::Pause | K::Clone | K::ClockDrift) => evidence.may_touch(incident, place),
        _ if matches!(place, Place::Worker(_)) => evidence.may_touch(incident, place),
        Some(K::Slow | K::Delay | K::Bandwidth | K::Loss | K::StoreConflict | K::StorePool) => {
            evidence.may_part(incident, place, Place::Store)
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use chatchat::model::ids::{NodeId, Registration};

    use super::*;
    use crate::oracle::fixtures::{Fixture, located, ms};

    /// A node that is in is asked to end at 20 s, and its process ends at a time, or never.
    fn stopped(place: Place, others: &[(&str, &str, u64, u64)], ended: Option<u64>) -> Vec<String> {
        let target = format!("target = \"{place}\"");
        let faults = [&[("stop", target.as_str(), 20_000, 60_000)][..], others].concat();
        let mut made = Fixture::with_faults(&faults);
        let (node, master) = (NodeId([1; 16]), NodeId([2; 16]));
        let name = place.to_string();
        made.said(1000, &name, Event::Join { node, registration: Registration(1), master });
        if matches!(place, Place::Master(_)) {
            made.said(20_000, &name, Event::Drain { hands_over: true });
        }
        let ends: Vec<_> = ended.into_iter().map(|at| (place, ms(at))).collect();
        located(&made.with(|evidence| judge(&Evidence { ends: &ends, ..*evidence })))
    }

    const MASTER: Place = Place::Master(0);
    const WORKER: Place = Place::Worker(0);

    #[test]
    fn node_that_ends_later_than_its_bound_and_its_goodbye_is_reported() {
        for (place, due) in [(MASTER, 34_000), (WORKER, 24_000)] {
            assert_eq!(stopped(place, &[], Some(due)), [""; 0], "{place}");
            assert_eq!(stopped(place, &[], Some(due + 1)), ["g17.drain-late"], "{place}");
            assert_eq!(stopped(place, &[], None), ["g17.drain-late"], "{place}");
        }
    }

    #[test]
    fn node_that_a_fault_held_up_is_left_out() {
        let is_judged = |place, kind: &str, keys: &str| {
            !stopped(place, &[(kind, keys, 21_000, 30_000)], Some(50_000)).is_empty()
        };
        assert!(!is_judged(MASTER, "pause", "target = \"master:0\""));
        assert!(!is_judged(MASTER, "slow", "target = \"master:0\"\nfactor = 4.0"));
        let far = "from = \"master:0\"\nto = \"store\"\nby = \"700ms\"";
        assert!(!is_judged(MASTER, "delay", far));
        assert!(!is_judged(WORKER, "pause", "target = \"worker:0\""));
        assert!(!is_judged(WORKER, "sync_slow", "target = \"worker:0\"\nby = \"1s\""));
    }

    #[test]
    fn fault_elsewhere_or_one_that_holds_nobody_up_excuses_nothing() {
        for (place, kind, keys) in [
            (MASTER, "pause", "target = \"master:1\""),
            (MASTER, "pause", "target = \"store\""),
            (MASTER, "partition", "from = \"master:0\"\nto = \"store\""),
            (WORKER, "pause", "target = \"worker:1\""),
        ] {
            let told = stopped(place, &[(kind, keys, 21_000, 30_000)], Some(50_000));
            assert_eq!(told, ["g17.drain-late"], "{kind} {keys}");
        }
        let before = [("pause", "target = \"master:0\"", 10_000, 19_000)];
        assert_eq!(stopped(MASTER, &before, Some(50_000)), ["g17.drain-late"]);
    }

    #[test]
    fn worker_that_still_starts_is_left_out() {
        let before = [("exit", "target = \"worker:0\"", 10_000, 11_000)];
        let target = "target = \"worker:0\"";
        let faults = [&[("stop", target, 20_000, 60_000)][..], &before].concat();
        let mut made = Fixture::with_faults(&faults);
        let join = |master: u8| {
            let (node, master) = (NodeId([1; 16]), NodeId([master; 16]));
            Event::Join { node, registration: Registration(1), master }
        };
        made.said(1000, "worker:0", join(2));
        let ends = [(WORKER, ms(10_000)), (WORKER, ms(50_000))];
        let told = |made: &Fixture| {
            located(&made.with(|evidence| judge(&Evidence { ends: &ends, ..*evidence })))
        };
        assert_eq!(told(&made), [""; 0], "it is not in again");
        made.said(19_000, "worker:0", join(3));
        assert_eq!(told(&made), ["g17.drain-late"]);
    }
}
