//! G17 failover time: after the process of a master ends, 99 % of the people who read from it
//! stream again within 2 s; after its silent death, within 12 s.
//!
//! Judged where nothing else is wrong. `g17_drain` judges planned drains. The times themselves are told
//! of every death, whatever else is wrong, for campaigns to count.

use std::{collections::BTreeSet, time::Duration};

use super::{Evidence, Violation, broken, seconds, sessions::Sessions, stream_line};
use crate::{
    fault::Action,
    history::{ReaderKind, StreamLog},
    plan::Incident,
    property::Property,
    target::{Place, Target},
};

/// Time within which people stream again when they hear of the end, and when they do not.
const HEARD: Duration = Duration::from_secs(2);
const SILENT: Duration = Duration::from_secs(12);
/// Time around a death in which nothing else may be wrong.
const ALONE: Duration = Duration::from_secs(15);
/// Time from which the cluster's start troubles nobody who reads.
const STARTED: Duration = Duration::from_secs(10);
/// Largest difference between a fault's begin and the end of a process that it ended.
const SAME: Duration = Duration::from_millis(100);

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let sessions = Sessions::read(evidence.history);
    let mut found = Vec::new();
    for incident in evidence.incidents {
        let Some((master, bound)) = death(evidence, incident) else { continue };
        let due = incident.from + bound;
        let (before, after) = (incident.from.saturating_sub(ALONE), incident.from + ALONE);
        // The time before zero is no time: only the start may be near, not a fault.
        let before = before.max(Duration::from_nanos(1));
        let is_alone = incident.from >= STARTED && evidence.is_alone(incident, before, after);
        if due > evidence.ended || !is_alone {
            continue;
        }
        let orphans: Vec<_> = orphans(evidence, &master, incident.from).collect();
        let is_late = |stream: &&&StreamLog| {
            let next = next_of(evidence, stream, incident.from);
            next.is_none_or(|at| at > due)
                && sessions.leaves(stream.who).is_none_or(|left| left > due)
        };
        let late: Vec<_> = orphans.iter().filter(is_late).collect();
        if late.len() * 100 > orphans.len() {
            let text = format!(
                "{} of {} people did not stream again within {bound:?} after {} at {}",
                late.len(),
                orphans.len(),
                master,
                seconds(incident.from)
            );
            let clues = late.iter().take(5).map(|stream| stream_line(stream, due));
            found.push(broken(Property::G17, "late", text, clues));
        }
    }
    found
}

/// Returns how long each person who read from a master took to stream again, wherever, after a fault ended
/// that master; `None` is one who never did. There are none after another fault, and after a death that is
/// so short that readers may not notice it. Left out is who had gone elsewhere before, and who did not
/// stay: by logging out, or since its own machine died.
#[must_use]
pub fn times_to_stream_again(
    evidence: &Evidence<'_>,
    incident: &Incident,
) -> Vec<Option<Duration>> {
    let Some((master, _)) = death(evidence, incident) else { return Vec::new() };
    let sessions = Sessions::read(evidence.history);
    let stays = |stream: &StreamLog| {
        evidence.history.living.contains(&stream.who.person)
            && sessions.leaves(stream.who).is_none()
    };
    let times = orphans(evidence, &master, incident.from).filter_map(|stream| {
        match next_of(evidence, stream, incident.from) {
            Some(at) => at.checked_sub(incident.from).map(Some),
            None => stays(stream).then_some(None),
        }
    });
    times.collect()
}

/// Returns the front end of the one master that a fault ends for so long that its readers notice, and
/// the bound on their fail-over.
fn death(evidence: &Evidence<'_>, incident: &Incident) -> Option<(String, Duration)> {
    let (target, bound) = match &evidence.plan.faults.get(incident.fault)?.action {
        Action::Exit { target } => (target, HEARD),
        Action::Crash { target } => (target, SILENT),
        _ => return None,
    };
    let nth = match target {
        Target::One(Place::Master(nth)) => *nth,
        Target::Coordinator(_) | Target::MasterOf(_) | Target::Announcer => {
            ended_master(evidence, incident)?
        }
        _ => return None,
    };
    let noticed = bound.min(2 * evidence.plan.cluster.config.stream_beat_interval);
    let is_long = evidence.end_of(incident) >= incident.from + noticed;
    let others = evidence.plan.cluster.masters > 1;
    let master = evidence.history.masters.get(nth)?.clone();
    (incident.bit && is_long && others).then_some((master, bound))
}

/// Returns the master that a fault ended which names a role: the only node that ended as it began.
fn ended_master(evidence: &Evidence<'_>, incident: &Incident) -> Option<usize> {
    let ended = evidence.ends.iter().filter(|(_, at)| at.abs_diff(incident.from) <= SAME);
    let ended: BTreeSet<Place> = ended.map(|(place, _)| *place).collect();
    match (ended.first(), ended.len()) {
        (Some(Place::Master(nth)), 1) => Some(*nth),
        _ => None,
    }
}

/// Returns the streams that pages read from a master at a time.
fn orphans<'a>(
    evidence: &'a Evidence<'_>,
    master: &'a str,
    at: Duration,
) -> impl Iterator<Item = &'a StreamLog> {
    evidence.history.streams.iter().filter(move |stream| {
        stream.master == master
            && !stream.is_slow
            && is_of_page(evidence, stream)
            && stream.deliveries.first().is_some_and(|(began, _)| *began < at)
            && stream.end.as_ref().is_none_or(|(ended, _)| *ended >= at)
    })
}

fn is_of_page(evidence: &Evidence<'_>, stream: &StreamLog) -> bool {
    let reader = stream.reader.and_then(|reader| evidence.history.readers.get(reader));
    reader.is_some_and(|reader| reader.kind == ReaderKind::Page)
}

/// Returns when the reader of a stream, or a later page of its session, heard from a later one, which may be
/// at the same master once that is back from its death at a time.
fn next_of(evidence: &Evidence<'_>, stream: &StreamLog, death: Duration) -> Option<Duration> {
    let later = evidence.history.streams.iter().skip(stream.number + 1);
    let goes_on = |other: &&StreamLog| {
        // A reload in between begins another reader of the same session; a second tab is not this one.
        other.who == stream.who && (other.reader == stream.reader || is_of_page(evidence, other))
    };
    let began = later.filter(goes_on).filter_map(|other| {
        let (at, _) = other.deliveries.first()?;
        (other.master != stream.master || *at > death).then_some(*at)
    });
    began.min()
}

#[cfg(test)]
mod tests {
    use chatchat::{
        api::StreamEvent,
        client::{Answer, Request, StreamEnd},
    };

    use super::*;
    use crate::{
        history::Reader,
        oracle::fixtures::{Fixture, lobby_cursor, ms},
    };

    /// Makes a master die at 30 s while four people read from it; they stream again at these times.
    fn died(kind: &str, again: [u64; 4]) -> Fixture {
        died_as(kind, "target = \"master:0\"", again)
    }

    fn died_as(kind: &str, target: &str, again: [u64; 4]) -> Fixture {
        let faults = [(kind, target, 30_000, 50_000)];
        let mut made = Fixture::with_faults(&faults);
        made.history.masters = vec!["http://m".to_owned(), "http://n".to_owned()];
        for (person, again) in again.into_iter().enumerate() {
            made.stream(person, 1, vec![(20_100, StreamEvent::Beat)]);
            made.stream(person, 1, vec![(again, StreamEvent::Beat)]);
            let [.., old, new] = &mut made.history.streams[..] else { panic!("two streams") };
            old.end = Some((ms(30_100), StreamEnd::Ended));
            new.master = "http://n".to_owned();
        }
        made.one_reader(lobby_cursor(1));
        made
    }

    #[test]
    fn page_that_does_not_stream_again_while_a_second_tab_does_is_reported() {
        let other = |kind: ReaderKind| {
            let mut made = died("exit", [30_500, 31_000, 31_900, 31_900]);
            let reader = Reader { kind, ..made.history.readers[0].clone() };
            made.history.readers.push(reader);
            made.history.streams.last_mut().expect("a stream").reader = Some(1);
            made.rules(judge)
        };
        assert_eq!(other(ReaderKind::Tab), ["g17.late"]);
        assert_eq!(other(ReaderKind::Page), [""; 0], "it was reloaded");
    }

    #[test]
    fn people_who_stream_again_in_time_are_accepted() {
        assert_eq!(died("exit", [30_500, 31_000, 31_900, 32_000]).judge(judge), []);
        assert_eq!(died("crash", [40_000, 41_000, 41_900, 42_000]).judge(judge), []);
        let mut made = died("exit", [33_000; 4]);
        made.trouble(44_000, 45_000);
        assert_eq!(made.judge(judge), [], "something else is wrong");
    }

    #[test]
    fn people_who_stream_again_late_are_reported() {
        for (kind, late) in [("exit", 32_001), ("crash", 42_001)] {
            let told = died(kind, [30_500, 30_500, 30_500, late]).judge(judge);
            assert_eq!((told.len(), told[0].rule.name), (1, "late"), "{kind}: {told:?}");
        }
    }

    #[test]
    fn time_to_stream_again_is_that_of_everyone_who_read_there_and_stayed() {
        let times = |living: &[usize], leaves: bool| {
            let mut made = died("exit", [30_500, 31_900, 29_000, 40_000]);
            // The last one never streams again.
            made.history.streams.pop();
            made.history.living = living.to_vec();
            if leaves {
                made.did(3, 35_000, 35_100, Request::Leave, Ok(Answer::Done));
            }
            made.with(|evidence| times_to_stream_again(evidence, &evidence.incidents[0]))
        };
        // The third one had gone elsewhere before.
        let (first, second) = (Some(ms(500)), Some(ms(1900)));
        assert_eq!(times(&[0, 1, 2, 3], false), [first, second, None]);
        assert_eq!(times(&[0, 1, 2], false), [first, second], "its machine died");
        assert_eq!(times(&[0, 1, 2, 3], true), [first, second], "it logged out");
        let mut made = died("exit", [33_000; 4]);
        made.trouble(44_000, 45_000);
        let of = |made: &Fixture, nth: usize| {
            made.with(|evidence| times_to_stream_again(evidence, &evidence.incidents[nth]).len())
        };
        assert_eq!((of(&made, 0), of(&made, 1)), (4, 0), "whatever else is wrong");
        assert_eq!(of(&died("pause", [33_000; 4]), 0), 0, "it does not end");
    }

    #[test]
    fn death_soon_after_the_start_is_judged_once_people_read() {
        let late = |at: u64| {
            let mut made = died("exit", [at + 3000; 4]);
            made.incidents[0].from = ms(at);
            for old in made.history.streams.iter_mut().step_by(2) {
                old.deliveries[0].0 = ms(at - 1000);
                old.end = Some((ms(at + 100), StreamEnd::Ended));
            }
            made.judge(judge).iter().map(|told| told.rule.name).collect::<Vec<_>>()
        };
        assert_eq!((late(12_000), late(30_000)), (vec!["late"], vec!["late"]));
        assert_eq!(late(9_999), [""; 0], "the cluster starts");
    }

    #[test]
    fn silent_death_that_is_shorter_than_the_bound_is_judged_if_readers_notice() {
        let late = |until: u64, again: u64, back: bool| {
            let mut made = died("crash", [again; 4]);
            made.incidents[0].until = Some(ms(until));
            for new in made.history.streams.iter_mut().filter(|_| back).skip(1).step_by(2) {
                new.master = "http://m".to_owned();
            }
            made.judge(judge).iter().map(|told| told.rule.name).collect::<Vec<_>>()
        };
        assert_eq!(late(39_000, 42_001, false), ["late"]);
        assert_eq!(late(39_000, 42_001, true), ["late"], "at the master that is back");
        assert_eq!(late(39_000, 41_000, true), [""; 0], "it is back, and they are");
        assert_eq!(late(37_000, 50_000, false), [""; 0], "they may not have missed two beats");
    }

    #[test]
    fn master_that_a_fault_names_by_its_role_is_the_only_one_that_ended_then() {
        let late = |again: u64, ends: &[(Place, u64)]| {
            let made = died_as("exit", "target = \"coordinator(board:lobby)\"", [again; 4]);
            let ends: Vec<_> = ends.iter().map(|(place, at)| (*place, ms(*at))).collect();
            let told = made.with(|evidence| judge(&Evidence { ends: &ends, ..*evidence }));
            told.iter().map(|told| told.rule.name).collect::<Vec<_>>()
        };
        let (first, second) = (Place::Master(0), Place::Master(1));
        assert_eq!(late(33_000, &[(first, 30_000)]), ["late"]);
        assert_eq!(late(33_000, &[(first, 12_000), (first, 30_050)]), ["late"], "again");
        assert_eq!(late(31_900, &[(first, 30_000)]), [""; 0]);
        assert_eq!(late(33_000, &[(second, 30_000)]), [""; 0], "nobody read from that one");
        assert_eq!(late(33_000, &[(first, 30_000), (second, 30_000)]), [""; 0], "which of them");
        assert_eq!(late(33_000, &[(Place::Worker(0), 30_000)]), [""; 0], "no master");
        assert_eq!(late(33_000, &[]), [""; 0], "nobody knows");
    }
}
