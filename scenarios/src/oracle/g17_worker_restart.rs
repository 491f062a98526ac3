//! G17 planned stops of workers: while a worker ends as it was asked to, no send gets a 5xx or a reset
//! because of it, and so a restart of all workers one after another fails no post.
//!
//! Judged where nothing else is wrong from 15 s before until each send had its time to end: no other
//! fault stands but short delays and stops of other workers. Of these none was killed, each had ended
//! before the next was asked, and each left a worker behind that was in long before. Without faults that
//! one reaches the store.

use std::time::Duration;

use chatchat::{
    client::Request,
    model::{event::Event, ids::Role},
};

use super::{
    Evidence, Violation, broken, g17_drain::was_failed, g17_stops::PlannedStop, line, seconds,
};
use crate::{
    fault::Action,
    plan::Incident,
    property::Property,
    target::{Place, Target},
};

/// Time before a stop in which nothing else may be wrong.
const ALONE: Duration = Duration::from_secs(15);
/// Time from which the cluster's start fails no send.
const STARTED: Duration = Duration::from_secs(10);
/// Time after the end of a worker's process in which its master may still look for another one.
const AFTER_END: Duration = Duration::from_secs(2);
/// Time for which a worker has been in until all masters know that it can write.
const SETTLED: Duration = Duration::from_secs(5);

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut stops = evidence.planned_stops();
    stops.retain(|stop| matches!(stop.place, Place::Worker(_)));
    let judged = stops.iter().filter(|stop| is_alone(evidence, &stops, stop));
    judged.filter_map(|stop| failed_sends(evidence, stop)).collect()
}

/// Returns the sends that failed because of a stop, if there are any.
fn failed_sends(evidence: &Evidence<'_>, stop: &PlannedStop) -> Option<Violation> {
    let times = stop.asked..=last(evidence, stop);
    let failed = evidence.history.operations.iter().filter(|operation| {
        matches!(operation.request, Request::Post { .. })
            && operation.invoked <= stop.ended + AFTER_END
            && operation.end.as_ref().is_some_and(|(at, _)| times.contains(at))
            && was_failed(operation)
    });
    let failed: Vec<_> = failed.collect();
    if failed.is_empty() {
        return None;
    }
    let text = format!(
        "{} sends failed after {} was asked to end at {}; it ended at {}",
        failed.len(),
        stop.place,
        seconds(stop.asked),
        seconds(stop.ended)
    );
    let clues = failed.into_iter().take(5).map(line);
    Some(broken(Property::G17, "worker-restart", text, clues))
}

/// Returns when the last send ends that a stop may have met.
fn last(evidence: &Evidence<'_>, stop: &PlannedStop) -> Duration {
    stop.ended + AFTER_END + evidence.plan.cluster.config.request_timeout
}

/// Returns whether nothing is wrong around a stop but stops of workers one by one.
fn is_alone(evidence: &Evidence<'_>, stops: &[PlannedStop], stop: &PlannedStop) -> bool {
    let (from, to) = (stop.asked.saturating_sub(ALONE), last(evidence, stop));
    let is_fair = |incident: &Incident| {
        let is_far = incident.from > to || evidence.end_of(incident) < from;
        is_far || evidence.is_short_delay(incident) || stops_workers_in_turn(evidence, incident)
    };
    let mut near = stops.iter().filter(|other| other.asked <= to && other.ended >= from);
    stop.asked >= STARTED
        && evidence.incidents.iter().all(is_fair)
        && near.all(|near| is_clean(evidence, stops, near))
}

/// Returns whether a fault asks workers to end, each known by its place and time.
fn stops_workers_in_turn(evidence: &Evidence<'_>, incident: &Incident) -> bool {
    let is_worker = |target: &Target| {
        matches!(target, Target::One(Place::Worker(_)) | Target::Role(Role::Worker))
    };
    let fault = evidence.plan.faults.get(incident.fault);
    fault.is_some_and(|fault| match &fault.action {
        Action::Stop { target } => matches!(target, Target::One(Place::Worker(_))),
        Action::Restart { targets } => fault.lasts.is_some() && targets.iter().all(is_worker),
        _ => false,
    })
}

/// Returns whether a worker ended by itself, and no other one with it, while another one was in.
fn is_clean(evidence: &Evidence<'_>, stops: &[PlannedStop], stop: &PlannedStop) -> bool {
    let (from, to) = (stop.asked, stop.ended + AFTER_END);
    let is_apart = |other: &PlannedStop| {
        other.place == stop.place || other.asked > to || other.ended + AFTER_END < from
    };
    let mut workers = (0..evidence.plan.cluster.workers).map(Place::Worker);
    !stop.was_killed()
        && stops.iter().all(is_apart)
        && workers.any(|other| other != stop.place && is_in(evidence, other, from, to))
}

/// Returns whether a worker was in from one time to another, and for a while before.
fn is_in(evidence: &Evidence<'_>, worker: Place, from: Duration, to: Duration) -> bool {
    let name = worker.to_string();
    let joins = evidence.events.iter().filter(|said| {
        said.node == name
            && said.at.saturating_add(SETTLED) <= from
            && matches!(said.event, Event::Join { .. })
    });
    let joined = joins.map(|said| said.at).max();
    joined.is_some_and(|joined| !evidence.deaths(worker).any(|at| (joined..=to).contains(&at)))
}

#[cfg(test)]
mod tests {
    use chatchat::{
        api::Problem,
        client::Failure,
        model::ids::{NodeId, Registration},
    };

    use super::*;
    use crate::oracle::fixtures::{Fixture, located, ms};

    fn joined(made: &mut Fixture, at: u64, worker: &str) {
        let (node, master) = (NodeId([1; 16]), NodeId([2; 16]));
        made.said(at, worker, Event::Join { node, registration: Registration(1), master });
    }

    /// Two workers are in when the first is asked to end at 30 s, which it does at once.
    fn stopped() -> Fixture {
        let stop = ("stop", "target = \"worker:0\"", 30_000, 40_000);
        let mut made = Fixture::with_faults(&[stop]);
        joined(&mut made, 1000, "worker:0");
        joined(&mut made, 1000, "worker:1");
        made
    }

    fn unavailable(status: u16) -> Failure {
        Failure::Busy { status, problem: Problem::default(), retry_after: None }
    }

    fn reset() -> Failure {
        Failure::Unknown { status: None, why: "reset".to_owned() }
    }

    /// Returns the rules that are broken when a send fails so between two times.
    fn told(mut made: Fixture, from: u64, to: u64, failure: Failure) -> Vec<String> {
        made.did(0, from, to, Fixture::request(1), Err(failure));
        located(&made.judge(judge))
    }

    #[test]
    fn send_that_fails_because_a_worker_ends_is_refused() {
        for failure in [unavailable(503), unavailable(504), reset()] {
            let broken = told(stopped(), 30_000, 30_100, failure);
            assert_eq!(broken, ["g17.worker-restart"]);
        }
        assert_eq!(told(stopped(), 31_900, 41_900, reset()), ["g17.worker-restart"], "later");
    }

    #[test]
    fn send_that_is_answered_or_has_another_reason_to_fail_is_accepted() {
        let accepted = |from, to, failure| told(stopped(), from, to, failure).is_empty();
        assert!(accepted(30_000, 30_100, unavailable(429)), "too many");
        let unreached =
            Failure::Unreached { master: "http://m".to_owned(), why: "refused".to_owned() };
        assert!(accepted(30_000, 30_100, unreached), "its master is not there");
        assert!(accepted(29_000, 29_900, reset()), "before");
        assert!(accepted(32_100, 32_200, reset()), "long after");
        let mut made = stopped();
        made.acked(0, 1, 30_000, 30_100, 1);
        assert_eq!(made.judge(judge), []);
    }

    #[test]
    fn stop_is_judged_where_nothing_else_is_wrong() {
        let judged = |made: Fixture| !told(made, 30_000, 30_100, reset()).is_empty();
        for at in [14_000, 41_000] {
            let mut made = stopped();
            made.trouble(at, at + 1000);
            assert!(!judged(made), "something else is wrong at {at} ms");
        }
        let mut made = stopped();
        made.trouble(43_000, 44_000);
        assert!(judged(made), "all sends have ended by then");
        let mut made = stopped();
        made.incidents[0].until = Some(ms(30_000));
        assert!(!judged(made), "it was killed");
        let mut made = stopped();
        made.incidents[0].from = ms(9000);
        made.did(0, 9000, 9100, Fixture::request(2), Err(reset()));
        assert!(!judged(made), "the cluster starts");
    }

    #[test]
    fn stop_is_judged_while_another_worker_is_in_all_the_time() {
        let mut made = stopped();
        made.events.remove(1);
        assert!(told(made, 30_000, 30_100, reset()).is_empty(), "the other one never came");
        let mut made = stopped();
        made.events[1].at = ms(25_001);
        assert!(told(made, 30_000, 30_100, reset()).is_empty(), "it has just come");
        let gone = |again: Option<u64>| {
            let first = ("stop", "target = \"worker:0\"", 30_000, 50_000);
            let other = ("stop", "target = \"worker:1\"", 20_000, 24_000);
            let mut made = Fixture::with_faults(&[first, other]);
            joined(&mut made, 1000, "worker:0");
            joined(&mut made, 1000, "worker:1");
            if let Some(at) = again {
                joined(&mut made, at, "worker:1");
            }
            told(made, 30_000, 30_100, reset())
        };
        assert!(gone(None).is_empty(), "it was asked to end before");
        assert_eq!(gone(Some(24_500)), ["g17.worker-restart"], "it is back");
    }

    #[test]
    fn workers_that_end_together_are_not_judged() {
        let told = |second: u64| {
            let keys = "targets = \"worker:*\"\nfor = \"40s\"";
            let mut made = Fixture::with_faults(&[("restart", keys, 20_000, 55_000)]);
            for at in [20_000, second] {
                let (from, until) = (ms(at), Some(ms(at)));
                made.incidents.push(Incident { fault: 0, from, until, bit: true });
            }
            for (at, worker) in [(1000, "worker:0"), (1000, "worker:1"), (29_000, "worker:0")] {
                joined(&mut made, at, worker);
            }
            made.did(0, 20_000, 20_100, Fixture::request(1), Err(reset()));
            let ends =
                [(0, 20_300), (1, second + 300)].map(|(nth, at)| (Place::Worker(nth), ms(at)));
            let told = made.with(|evidence| judge(&Evidence { ends: &ends, ..*evidence }));
            located(&told)
        };
        assert_eq!(told(40_000), ["g17.worker-restart"]);
        assert_eq!(told(22_000), [""; 0]);
    }
}
