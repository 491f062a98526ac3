//! G17 planned drains: while a master hands over to another, no send gets a 5xx or a reset, from
//! it or from another; and it does hand over when others run.
//!
//! Judged where nothing else is wrong: no other fault stands or ended in the last 15 s, the store
//! and the workers included, but short delays, and no other master is drained at the same time. A
//! drain that a kill cut short is left out. `g17_worker_restart` judges the ends of workers, and
//! `g17_drain_late` how long all of them take.

use std::time::Duration;

use chatchat::{
    api::StreamEvent,
    client::{Failure, Request, StreamEnd},
    model::{event::Event, ids::Role},
};

use super::{Clue, Evidence, Violation, broken, g17_stops::was_killed, line, seconds, stream_line};
use crate::{
    fault::Action,
    history::Operation,
    plan::Incident,
    property::Property,
    target::{Place, Target},
};

/// Time around a drain in which nothing else may be wrong.
const ALONE: Duration = Duration::from_secs(15);

/// Time after a process's end within which its readers notice.
const AFTER_END: Duration = Duration::from_secs(2);
/// Room of a stream in which a goodbye fits if its reader reads.
const ROOM_MIN: usize = 64;

/// Master that is drained, from its word until its process ended.
struct Drained {
    url: String,
    hands_over: bool,
    /// Its word.
    said: Clue,
    from: Duration,
    until: Duration,
}

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let drains: Vec<_> = drains(evidence).collect();
    let overlap = |one: &Drained, other: &Drained| {
        one.url != other.url && one.from <= other.until && other.from <= one.until
    };
    for drained in &drains {
        if !is_alone(evidence, drained) || drains.iter().any(|other| overlap(drained, other)) {
            continue;
        }
        if !drained.hands_over && evidence.plan.cluster.masters > 1 {
            let text = format!(
                "{} ended at {} as if it were the last master",
                drained.url,
                seconds(drained.from)
            );
            found.push(broken(Property::G17, "alone", text, [drained.said.clone()]));
        }
        found.extend(without_goodbye(evidence, drained));
        let asked = evidence.history.operations.iter().filter(|operation| {
            matches!(operation.request, Request::Post { .. })
                && operation.invoked <= drained.until
                && operation
                    .end
                    .as_ref()
                    .is_some_and(|(at, _)| (drained.from..=drained.until + AFTER_END).contains(at))
        });
        let failed: Vec<_> = asked.filter(|operation| was_failed(operation)).collect();
        if failed.is_empty() {
            continue;
        }
        let text = format!(
            "{} sends failed while {} was handing over from {} to {}",
            failed.len(),
            drained.url,
            seconds(drained.from),
            seconds(drained.until)
        );
        found.push(broken(
            Property::G17,
            "drain",
            text,
            failed.iter().take(5).map(|operation| line(operation)),
        ));
    }
    found
}

/// Streams that a master which handed over ended without a goodbye.
fn without_goodbye(evidence: &Evidence<'_>, drained: &Drained) -> Vec<Violation> {
    // A goodbye that finds no room is left out.
    if evidence.plan.cluster.config.stream_backlog_max < ROOM_MIN {
        return Vec::new();
    }
    let streams = evidence.history.streams.iter().filter(|stream| {
        let is_open = stream.deliveries.first().is_some_and(|(began, _)| *began < drained.from);
        drained.hands_over && stream.master == drained.url && is_open && !stream.is_slow
    });
    let cut = streams.filter_map(|stream| {
        let (at, end) = stream.end.as_ref()?;
        let last = stream.deliveries.last().map(|(_, delivery)| &delivery.event);
        let is_cut = !matches!(last, Some(StreamEvent::Bye(_))) && *end != StreamEnd::Left;
        let is_then = (drained.from..=drained.until + AFTER_END).contains(at);
        (is_cut && is_then).then_some((stream, *at))
    });
    let cut = cut.map(|(stream, at)| {
        let text = format!("{} handed over and ended a stream without a goodbye", drained.url);
        broken(Property::G17, "goodbye", text, [stream_line(stream, at)])
    });
    cut.collect()
}

/// Returns whether a send got a 5xx or a reset. One that was refused a connection did not begin.
pub(super) fn was_failed(operation: &Operation) -> bool {
    operation.failure().is_some_and(|(_, failure)| match failure {
        Failure::Unreached { .. } => false,
        Failure::Unknown { status: None, .. } => true,
        Failure::Refused { .. } | Failure::Busy { .. } | Failure::Unknown { .. } => {
            failure.status().is_some_and(|status| status >= 500)
        }
    })
}

fn drains<'a>(evidence: &'a Evidence<'_>) -> impl Iterator<Item = Drained> + 'a {
    let stops = evidence.planned_stops();
    evidence.events.iter().filter_map(move |said| {
        let Event::Drain { hands_over } = said.event else { return None };
        let mut masters = evidence.history.masters.iter().enumerate();
        let (nth, url) = masters.find(|(nth, _)| said.node == Place::Master(*nth).to_string())?;
        let (place, url) = (Place::Master(nth), url.clone());
        let until = evidence.process_end(place, said.at);
        // Who has not ended by the time of its new start is killed.
        let mut starts = evidence.incidents_at(place).filter_map(|incident| incident.until);
        let was_killed_in_turn = stops.iter().any(|stop| stop.place == place && stop.kills(until));
        if was_killed_in_turn || starts.any(|starts| was_killed(until, starts)) {
            return None;
        }
        Some(Drained { url, hands_over, said: said.clue(), from: said.at, until })
    })
}

/// Returns whether nothing is wrong around a drain but stops of masters one by one.
fn is_alone(evidence: &Evidence<'_>, drained: &Drained) -> bool {
    let (from, to) = (drained.from.saturating_sub(ALONE), drained.until + AFTER_END);
    evidence.incidents.iter().all(|incident| {
        let is_far = incident.from > to || evidence.end_of(incident) < from;
        is_far || evidence.is_short_delay(incident) || stops_masters_in_turn(evidence, incident)
    })
}

fn stops_masters_in_turn(evidence: &Evidence<'_>, incident: &Incident) -> bool {
    let is_master = |target: &Target| {
        matches!(target, Target::One(Place::Master(_)) | Target::Role(Role::Master))
    };
    match evidence.plan.faults.get(incident.fault).map(|fault| &fault.action) {
        Some(Action::Stop { target }) => matches!(target, Target::One(Place::Master(_))),
        Some(Action::Restart { targets }) => targets.iter().all(is_master),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use chatchat::{
        api::{ByeEvent, Problem},
        model::stream::ByeReason,
    };

    use super::*;
    use crate::oracle::fixtures::{Fixture, located, ms};

    /// A master is stopped at 30 s and hands over; a send that it gets ends so.
    fn sent(hands_over: bool, kind: &str, failure: Failure) -> Vec<Violation> {
        let faults = [(kind, "target = \"master:0\"", 30_000, 40_000)];
        let mut made = Fixture::with_faults(&faults);
        made.history.masters = vec!["http://m".to_owned(), "http://n".to_owned()];
        made.said(30_000, "master:0", Event::Drain { hands_over });
        made.did(0, 30_000, 30_100, Fixture::request(1), Err(failure));
        made.judge(judge)
    }

    fn rules(told: &[Violation]) -> Vec<&'static str> {
        told.iter().map(|it| it.rule.name).collect()
    }

    fn status(status: u16) -> Failure {
        Failure::Busy { status, problem: Problem::default(), retry_after: None }
    }

    #[test]
    fn send_that_fails_while_its_master_hands_over_is_refused() {
        let reset = || Failure::Unknown { status: None, why: "reset".to_owned() };
        assert_eq!(rules(&sent(true, "stop", status(503))), ["drain"]);
        assert_eq!(rules(&sent(true, "stop", reset())), ["drain"]);
        assert_eq!(sent(true, "stop", status(429)), [], "too many is no failure of the drain");
        let unreached =
            Failure::Unreached { master: "http://m".to_owned(), why: "refused".to_owned() };
        assert_eq!(sent(true, "stop", unreached), []);
        let alone = sent(false, "stop", status(429));
        assert_eq!(located(&alone), ["g17.alone"], "there was somebody to hand over to");
        assert_eq!(sent(true, "exit", reset()), [], "something else is wrong");
    }

    #[test]
    fn drain_that_the_start_of_its_turn_cuts_short_is_left_out() {
        let told = |ended: u64| {
            let keys = "targets = \"master:*\"\nfor = \"18s\"";
            let mut made = Fixture::with_faults(&[("restart", keys, 30_000, 48_000)]);
            for at in [30_000, 39_000] {
                let (from, until) = (ms(at), Some(ms(at)));
                made.incidents.push(Incident { fault: 0, from, until, bit: true });
            }
            made.history.masters = vec!["http://m".to_owned(), "http://n".to_owned()];
            made.said(30_000, "master:0", Event::Drain { hands_over: true });
            let reset = Failure::Unknown { status: None, why: "reset".to_owned() };
            made.did(0, 30_000, ended, Fixture::request(1), Err(reset));
            let ends = [(Place::Master(0), ms(ended))];
            rules(&made.with(|evidence| judge(&Evidence { ends: &ends, ..*evidence })))
        };
        assert_eq!(told(34_000), ["drain"]);
        assert_eq!(told(34_500), [""; 0], "it was killed for its start");
    }

    #[test]
    fn stream_that_ends_without_a_goodbye_is_reported() {
        let ended = |goodbye: bool| {
            let faults = [("stop", "target = \"master:0\"", 30_000, 40_000)];
            let mut made = Fixture::with_faults(&faults);
            made.history.masters = vec!["http://m".to_owned(), "http://n".to_owned()];
            made.said(30_000, "master:0", Event::Drain { hands_over: true });
            let bye = StreamEvent::Bye(ByeEvent {
                reason: ByeReason::Draining,
                to: Vec::new(),
                retry_ms: 0,
            });
            let last = if goodbye { bye } else { StreamEvent::Beat };
            made.stream(0, 0, vec![(29_000, StreamEvent::Beat), (31_000, last)]);
            made.history.streams[0].end = Some((ms(31_100), StreamEnd::Ended));
            made.breaks(judge, "g17.goodbye")
        };
        assert_eq!((ended(true), ended(false)), (0, 1));
    }
}
