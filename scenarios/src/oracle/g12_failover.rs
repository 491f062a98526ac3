//! G12 through the death of a master: who streams again within 10 s of it stays on every list, and no
//! stream tells that they left.
//!
//! Judged for as long as the death is the only thing wrong, of people whose streams say where they
//! were: one was open when the master died, none had ended shortly before, and all of them were read.
//! `g12_presence` judges everybody else.

use std::{collections::BTreeMap, time::Duration};

use chatchat::{
    api::{PresenceEvent, StreamEvent},
    client::Answer,
    model::{
        ids::UserId,
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
    history::{StreamLog, Who},
    plan::Incident,
    property::Property,
};

/// Time within which people stream again without having left.
const BACK_WITHIN: Duration = Duration::from_secs(10);

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let sessions = Sessions::read(evidence.history);
    let mut found = Vec::new();
    for incident in evidence.incidents {
        let death = incident.from;
        let Some(before) = death.checked_sub(AFTERMATH) else { continue };
        if !incident.bit
            || !evidence.is_death_of_a_master(incident)
            || !evidence.is_alone(incident, before, death)
        {
            continue;
        }
        let people = people(evidence, &sessions, incident);
        found.extend(lists(evidence, death, &people));
        found.extend(leaves(evidence, death, &people));
    }
    found
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
    let others = evidence.incidents.iter().filter(|other| *other != incident);
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
                    "{who} streamed on after a master died at {} and is not listed",
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
                    "{who} streamed on after a master died at {}, and was told to have left",
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

    fn beats(times: &[u64]) -> Vec<(u64, StreamEvent)> {
        times.iter().map(|at| (*at, StreamEvent::Beat)).collect()
    }

    /// `master:0` dies while person 0 reads from it, who streams again from `again` on; person 1 reads
    /// from the other one all the time.
    fn died(kind: &str, again: u64) -> Fixture {
        let faults = [(kind, "target = \"master:0\"", DEATH, 50_000)];
        let mut made = Fixture::with_faults(&faults);
        made.stream(0, 0, beats(&[20_000, 24_000, 28_000]));
        made.history.streams[0].end = Some((ms(DEATH + 100), StreamEnd::Ended));
        made.stream(0, 0, beats(&[again, again + 4000, 48_000]));
        made.stream(1, 0, beats(&[20_000, 24_000, 28_000, 32_000, 36_000, 40_000, 44_000, 48_000]));
        made
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
        let mut made = died("crash", 39_000);
        for at in [30_500, 35_000, 39_500, 47_000] {
            listed(&mut made, at, &[0, 1]);
        }
        told(&mut made, 29_000, 0);
        told(&mut made, 36_000, 2);
        assert_eq!(made.judge(judge), []);
    }

    #[test]
    fn who_is_not_listed_or_told_to_have_left_though_back_in_time_is_reported() {
        for kind in ["crash", "exit"] {
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
        let late = died("crash", 40_001);
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
        for (nth, mut made) in [late, left, more, before, tab, slow].into_iter().enumerate() {
            listed(&mut made, 35_000, &[1]);
            told(&mut made, 36_000, 0);
            assert_eq!(made.judge(judge), [], "{nth}");
        }
    }
}
