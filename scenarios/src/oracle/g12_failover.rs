//! G12 through the end of a master: who streams again within 10 s of its death, or of the time at which it
//! is asked to end, stays on every list, and no stream tells that they left.
//!
//! Judged for as long as that end is the only thing wrong, of people whose streams say where they
//! were: one was open when the master died or was asked, none had ended shortly before, and all of them were
//! read. Where masters are asked to end one after another, each is judged until the next one's turn; workers
//! that are asked to end keep nobody from a list, nor do wall clocks of nodes. `g12_presence` judges everybody
//! else.

use std::{collections::BTreeMap, time::Duration};

use chatchat::{
    api::{PresenceEvent, StreamEvent},
    client::Answer,
    model::{
        ids::{Role, UserId},
        stream::{Consistency, PRESENCE_MAX},
    },
};

use super::{
    Evidence, Violation, broken,
    g12_presence::{STEADY, present},
    line, seconds,
    sessions::Sessions,
    stream_line,
    troubles::AFTERMATH,
};
use crate::{
    fault::Action,
    history::{StreamLog, Who},
    plan::Incident,
    property::Property,
    target::{Place, Target},
};

/// Time within which people stream again without having left.
const BACK_WITHIN: Duration = Duration::from_secs(10);

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let sessions = Sessions::read(evidence.history);
    let counts = |incident: &&Incident| !evidence.is_of_wall_clocks(incident);
    let incidents: Vec<_> = evidence.incidents.iter().filter(counts).cloned().collect();
    let evidence = &Evidence { incidents: &incidents, ..*evidence };
    let mut found = Vec::new();
    for incident in evidence.incidents {
        let death = incident.from;
        let Some(before) = death.checked_sub(AFTERMATH) else { continue };
        let is_death =
            evidence.is_death_of_a_master(incident) && evidence.is_alone(incident, before, death);
        if !incident.bit || !(is_death || is_hand_over(evidence, incident, before)) {
            continue;
        }
        let people = people(evidence, &sessions, incident);
        found.extend(lists(evidence, death, &people));
        found.extend(leaves(evidence, death, &people));
    }
    found
}

/// Returns whether a master was asked to end, and nothing else was wrong from a time on, but workers and,
/// by the same fault, other masters before it that were asked as well.
fn is_hand_over(evidence: &Evidence<'_>, incident: &Incident, before: Duration) -> bool {
    let mut others = evidence.incidents.iter().filter(|other| is_other(evidence, incident, other));
    is_stop_of_a_master(evidence, incident)
        && before > Duration::ZERO
        && !others.any(|other| other.from <= incident.from && evidence.end_of(other) >= before)
}

/// Returns whether an incident is other trouble than the end of a master by another one.
fn is_other(evidence: &Evidence<'_>, incident: &Incident, other: &Incident) -> bool {
    if !is_stop_of_a_master(evidence, incident) {
        return other != incident;
    }
    let is_earlier_turn = other.fault == incident.fault && other.from <= incident.from;
    !is_earlier_turn && !is_stop_of_workers(evidence, other)
}

/// Returns whether a fault asked one master to end when it began. A cluster of one master has nobody who
/// goes on.
fn is_stop_of_a_master(evidence: &Evidence<'_>, incident: &Incident) -> bool {
    let is_one = |target: &Target| {
        matches!(
            target,
            Target::One(Place::Master(_)) | Target::Coordinator(_) | Target::MasterOf(_)
        )
    };
    let is_master = |target: &Target| is_one(target) || *target == Target::Role(Role::Master);
    let fault = evidence.plan.faults.get(incident.fault);
    let is_stop = fault.is_some_and(|fault| match &fault.action {
        Action::Stop { target } => is_one(target),
        // Each turn is a moment of its own beside the whole.
        Action::Restart { targets } => {
            targets.iter().all(is_master) && incident.until == Some(incident.from)
        }
        _ => false,
    });
    is_stop && evidence.plan.cluster.masters > 1
}

/// Returns whether a fault asked workers to end, and nobody else.
fn is_stop_of_workers(evidence: &Evidence<'_>, incident: &Incident) -> bool {
    let is_worker = |target: &Target| {
        matches!(
            target,
            Target::One(Place::Worker(_)) | Target::Role(Role::Worker) | Target::Assigned(_)
        )
    };
    let fault = evidence.plan.faults.get(incident.fault);
    fault.is_some_and(|fault| match &fault.action {
        Action::Stop { target } => is_worker(target),
        Action::Restart { targets } => targets.iter().all(is_worker),
        _ => false,
    })
}

/// Person who was there when a master died, and for how long after it.
struct Stays {
    who: Who,
    until: Duration,
}

/// Returns the people who were there when a master died, until when they were, and nothing else was
/// wrong.
fn people(
    evidence: &Evidence<'_>,
    sessions: &Sessions,
    incident: &Incident,
) -> BTreeMap<UserId, Stays> {
    let death = incident.from;
    let others = evidence.incidents.iter().filter(|other| is_other(evidence, incident, other));
    let next = others.map(|other| other.from).filter(|from| *from >= death).min();
    let bound = next.unwrap_or(evidence.ended);
    let there = present(evidence, sessions, death.saturating_sub(STEADY), death);
    let stays = |(who, user): (Who, UserId)| {
        let heard = heard_until(evidence, who, death)?;
        let left = sessions.leaves(who).unwrap_or(bound);
        Some((user, Stays { who, until: heard.min(left).min(bound) }))
    };
    there.into_iter().filter_map(stays).collect()
}

/// Returns until when somebody heard from streams that were open at a death or soon after it; `None`
/// if one ended shortly before: its master may take them off the list.
fn heard_until(evidence: &Evidence<'_>, who: Who, death: Duration) -> Option<Duration> {
    let own = || evidence.history.streams.iter().filter(move |stream| stream.who == who);
    let has_ended = |stream: &StreamLog| {
        let ended = stream.end.as_ref().map(|(at, _)| *at);
        ended.is_some_and(|ended| ended <= death && ended + AFTERMATH >= death)
    };
    if own().any(|stream| has_ended(stream) || stream.is_slow || stream.looked_away) {
        return None;
    }
    let heard = own().filter_map(|stream| {
        let (began, _) = stream.deliveries.first()?;
        let (last, _) = stream.deliveries.last()?;
        (*began <= death + BACK_WITHIN && *last >= death).then_some(*last)
    });
    heard.max()
}

/// Lists that lack somebody who was there.
fn lists(
    evidence: &Evidence<'_>,
    death: Duration,
    people: &BTreeMap<UserId, Stays>,
) -> Vec<Violation> {
    let mut found = Vec::new();
    for operation in &evidence.history.operations {
        let Some((at, Answer::Users(list))) = operation.reply() else { continue };
        let is_whole = list.next.is_none() && list.consistency == Consistency::Strong;
        if !is_whole || operation.invoked < death {
            continue;
        }
        for (user, Stays { who, until }) in people {
            if at < *until && !list.users.iter().any(|listed| listed.id == *user) {
                let text = format!(
                    "{who} streamed on after a master ended at {} and is not listed",
                    seconds(death)
                );
                found.push(broken(Property::G12, "dropped", text, [line(operation)]));
            }
        }
    }
    found
}

/// Streams that tell that somebody left who was there.
fn leaves(
    evidence: &Evidence<'_>,
    death: Duration,
    people: &BTreeMap<UserId, Stays>,
) -> Vec<Violation> {
    let mut found = Vec::new();
    let read = |stream: &&StreamLog| !stream.is_slow && !stream.looked_away;
    for stream in evidence.history.streams.iter().filter(read) {
        for (at, delivery) in &stream.deliveries {
            let StreamEvent::Presence(PresenceEvent::Change { left, total, .. }) = &delivery.event
            else {
                continue;
            };
            // Of more people than one window shows, some go to make room.
            if *total > PRESENCE_MAX as u64 {
                continue;
            }
            let gone = left.iter().filter_map(|user| people.get(user));
            for Stays { who, .. } in gone.filter(|it| *at >= death && *at < it.until) {
                let text = format!(
                    "{who} streamed on after a master ended at {}, and was told to have left",
                    seconds(death)
                );
                found.push(broken(Property::G12, "told-gone", text, [stream_line(stream, *at)]));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use chatchat::client::{Request, StreamEnd};

    use super::*;
    use crate::oracle::fixtures::{Fixture, list_of, located, ms, user};

    const DEATH: u64 = 30_000;
    const ENDS: [&str; 4] = ["crash", "exit", "stop", "restart"];

    fn beats(times: &[u64]) -> Vec<(u64, StreamEvent)> {
        times.iter().map(|at| (*at, StreamEvent::Beat)).collect()
    }

    /// `master:0` dies, or is asked to end, while person 0 reads from it, who streams again from `again` on;
    /// person 1 reads from the other one all the time.
    fn died(kind: &str, again: u64) -> Fixture {
        let keys = match kind {
            "restart" => "targets = [\"master:*\"]",
            _ => "target = \"master:0\"",
        };
        let mut made = Fixture::with_faults(&[(kind, keys, DEATH, 50_000)]);
        if kind == "restart" {
            turn(&mut made, DEATH);
        }
        made.stream(0, 0, beats(&[20_000, 24_000, 28_000]));
        made.history.streams[0].end = Some((ms(DEATH + 100), StreamEnd::Ended));
        made.stream(0, 0, beats(&[again, again + 4000, 48_000]));
        made.stream(1, 0, beats(&[20_000, 24_000, 28_000, 32_000, 36_000, 40_000, 44_000, 48_000]));
        made
    }

    /// The turn of a master comes.
    fn turn(made: &mut Fixture, at: u64) {
        let at = ms(at);
        made.incidents.push(Incident { fault: 0, from: at, until: Some(at), bit: true });
    }

    fn listed(made: &mut Fixture, at: u64, people: &[usize]) {
        made.did(3, at, at + 100, Request::Users, Ok(Answer::Users(list_of(people))));
    }

    /// A stream of person 1 tells that somebody left.
    fn told(made: &mut Fixture, at: u64, person: usize) {
        let left = vec![user(person)];
        let change = PresenceEvent::Change { version: 2, since: 1, total: 1, came: vec![], left };
        let nth = made.history.streams[2].deliveries.partition_point(|(heard, _)| *heard <= ms(at));
        let event = StreamEvent::Presence(change);
        let delivery = chatchat::client::Delivery { event, cursor: None };
        made.history.streams[2].deliveries.insert(nth, (ms(at), delivery));
    }

    #[test]
    fn lists_that_name_all_who_streamed_on_are_accepted() {
        for kind in ENDS {
            let mut made = died(kind, 39_000);
            for at in [30_500, 35_000, 39_500, 47_000] {
                listed(&mut made, at, &[0, 1]);
            }
            told(&mut made, 29_000, 0);
            told(&mut made, 36_000, 2);
            assert_eq!(made.judge(judge), [], "{kind}");
        }
    }

    #[test]
    fn who_is_not_listed_or_told_to_have_left_though_back_in_time_is_reported() {
        for kind in ENDS {
            for (lacks, at) in [(0, 30_500), (0, 35_000), (0, 45_000), (1, 31_000), (1, 46_000)] {
                let mut made = died(kind, 39_000);
                listed(&mut made, at, &[1 - lacks]);
                assert_eq!(located(&made.judge(judge)), ["g12.dropped"], "{kind} {lacks} {at}");
                let mut made = died(kind, 39_000);
                told(&mut made, at, lacks);
                assert_eq!(located(&made.judge(judge)), ["g12.told-gone"], "{kind} {lacks} {at}");
            }
        }
    }

    #[test]
    fn who_came_back_late_or_left_or_met_more_trouble_may_be_off_the_list() {
        let late = ENDS.map(|kind| died(kind, 40_001));
        let mut left = died("crash", 32_000);
        left.did(0, 34_000, 34_100, Request::Leave, Ok(Answer::Done));
        let mut more = died("crash", 32_000);
        more.trouble(33_000, 34_000);
        let mut before = died("crash", 32_000);
        before.trouble(16_000, 17_000);
        let mut tab = died("crash", 32_000);
        tab.stream(0, 0, beats(&[20_000, 24_000]));
        tab.history.streams[3].end = Some((ms(26_000), StreamEnd::Left));
        let mut slow = died("crash", 32_000);
        slow.history.streams[1].is_slow = true;
        let others = [left, more, before, tab, slow];
        for (nth, mut made) in late.into_iter().chain(others).enumerate() {
            listed(&mut made, 35_000, &[1]);
            told(&mut made, 36_000, 0);
            assert_eq!(made.judge(judge), [], "{nth}");
        }
    }

    #[test]
    fn each_turn_of_a_restart_is_judged_until_the_next_one() {
        let judged = |lacks: usize, at: u64| {
            let mut made = died("restart", 32_000);
            turn(&mut made, 38_000);
            listed(&mut made, at, &[1 - lacks]);
            made.rules(judge)
        };
        assert_eq!(judged(0, 36_000), ["g12.dropped"]);
        assert_eq!(judged(0, 39_000), [""; 0], "who moved just before is not judged");
        assert_eq!(judged(1, 39_000), ["g12.dropped"]);
    }

    #[test]
    fn end_of_a_master_that_was_asked_is_judged_beside_those_of_workers_only() {
        let judged = |kind: &str, keys: &str| {
            let stop = ("stop", "target = \"master:0\"", DEATH, 50_000);
            let made = Fixture::with_faults(&[(kind, keys, 18_000, 34_000), stop]);
            let mut made = Fixture { history: died("stop", 32_000).history, ..made };
            listed(&mut made, 33_000, &[1]);
            made.rules(judge)
        };
        assert_eq!(judged("restart", "targets = [\"worker:*\"]"), ["g12.dropped"]);
        assert_eq!(judged("stop", "target = \"worker:0\""), ["g12.dropped"]);
        assert_eq!(judged("crash", "target = \"worker:0\""), [""; 0]);
        assert_eq!(judged("stop", "target = \"master:1\""), [""; 0]);
        assert_eq!(judged("restart", "targets = [\"worker:0\", \"master:1\"]"), [""; 0]);
        assert_eq!(judged("delay", "from = \"master:1\"\nto = \"store\"\nby = \"1s\""), [""; 0]);
    }

    #[test]
    fn end_of_a_master_is_judged_while_wall_clocks_of_nodes_are_off() {
        let judged = |end: &str, kind: &str, keys: &str| {
            let end_of_master = (end, "target = \"master:0\"", DEATH, 50_000);
            let made = Fixture::with_faults(&[(kind, keys, 18_000, 34_000), end_of_master]);
            let mut made = Fixture { history: died(end, 32_000).history, ..made };
            listed(&mut made, 33_000, &[1]);
            made.rules(judge)
        };
        for end in ["crash", "stop"] {
            let off = "target = \"master:1\"\nby = \"3600s\"";
            let back = "target = \"master:1\"\nby = \"-40s\"";
            assert_eq!(judged(end, "clock_offset", off), ["g12.dropped"], "{end}");
            assert_eq!(judged(end, "clock_jump", back), ["g12.dropped"], "{end}");
            // Monotonic clocks jump ahead with it.
            assert_eq!(judged(end, "clock_jump", off), [""; 0], "{end}");
            let store = "target = \"store\"\nby = \"3600s\"";
            assert_eq!(judged(end, "clock_offset", store), [""; 0], "{end}");
        }
    }
}
