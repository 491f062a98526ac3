//! G12 presence: 2 s after a join, with nothing wrong, every list names everyone who has a stream
//! open; who left is gone 15 s later, who fell silent, crashed or not, 45 s later; each session is
//! listed once, and nobody else. The death of a master while others are left excuses none of it, nor
//! does what touches workers or other people's machines alone, nor a node's wall clock that is off. While
//! clocks drift, the slowest of masters and store counts the 45 s.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chatchat::{
    client::Answer,
    model::{ids::UserId, stream::Consistency},
};

use super::{Evidence, Violation, broken, line, sessions::Sessions};
use crate::{
    history::{StreamLog, Who},
    property::Property,
};

/// Time within which a join must be seen.
const JOINS_WITHIN: Duration = Duration::from_secs(2);
/// Time within which a clean leave must be seen.
const LEAVES_WITHIN: Duration = Duration::from_secs(15);
/// Time within which somebody who fell silent must be gone.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(45);
/// Time for which a stream was open before its master died, so that all were told of its reader.
pub(super) const STEADY: Duration = Duration::from_secs(5);
/// Silence of an open stream after which its reader may be gone.
const HEARD_WITHIN: Duration = Duration::from_secs(9);

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let history = evidence.history;
    let sessions = Sessions::read(history);
    let known: BTreeSet<UserId> = history.users.values().copied().collect();
    let mut found = Vec::new();
    for operation in &history.operations {
        let Some((at, Answer::Users(list))) = operation.reply() else { continue };
        if list.consistency != Consistency::Strong {
            continue;
        }
        let from = operation.invoked;
        let listed: BTreeSet<_> = list.users.iter().map(|user| user.id).collect();
        let mut tell = |rule, text: String| {
            found.push(broken(Property::G12, rule, text, [line(operation)]));
        };
        if listed.len() < list.users.len() {
            tell("twice", "somebody is listed twice".to_owned());
        }
        if list.next.is_none() && list.total != list.users.len() as u64 {
            tell("total", format!("{} of {} are listed", list.users.len(), list.total));
        }
        for user in listed.difference(&known) {
            tell("stranger", format!("{user} is listed and opened no session"));
        }
        if list.next.is_none() && is_served(evidence, from, at) {
            for (who, user) in present(evidence, &sessions, from, at) {
                if !listed.contains(&user) {
                    tell("missing", format!("{who} has a stream open and is not listed"));
                }
            }
        }
        let trouble = evidence.last_trouble_of_lists(from);
        let trouble_of_leaves = evidence.last_trouble_of_leaves(from);
        for (who, user) in history.users.iter().filter(|(_, user)| listed.contains(user)) {
            let Some(seen) = sessions.get(*who) else { continue };
            if seen.left.is_some_and(|left| left.max(trouble_of_leaves) + LEAVES_WITHIN < from) {
                tell("lingers", format!("{who} left long ago and {user} is listed"));
            } else if evidence.has_passed(FORGOTTEN_WITHIN, seen.last.max(trouble), from) {
                tell("forgotten", format!("{who} fell silent long ago and {user} is listed"));
            }
        }
    }
    found
}

/// Returns whether lists must name everyone: in the last reading, and while nothing is wrong that may keep
/// somebody off them.
fn is_served(evidence: &Evidence<'_>, from: Duration, to: Duration) -> bool {
    let is_last = evidence.history.reading_from.is_some_and(|reading| from >= reading);
    is_last || evidence.is_calm_for_lists(from, to)
}

/// Returns the people with a stream that was open, and heard, all the time, and whose master did not die
/// before others were told of them, and did not take them for silent by a jump of its clock.
pub(super) fn present(
    evidence: &Evidence<'_>,
    sessions: &Sessions,
    from: Duration,
    to: Duration,
) -> BTreeMap<Who, UserId> {
    let history = evidence.history;
    let died_at_once = |stream: &StreamLog, began: Duration| {
        let early = |at: Duration| at > began && at < began + STEADY;
        evidence.master_at(&stream.master).is_some_and(|master| evidence.deaths(master).any(early))
    };
    let is_open = |stream: &&StreamLog| {
        let began = stream.deliveries.first().map(|(at, _)| *at);
        let heard = stream.deliveries.partition_point(|(at, _)| *at <= from);
        let heard = heard.checked_sub(1).map(|nth| stream.deliveries[nth].0);
        stream.end.as_ref().is_none_or(|(ended, _)| *ended > to)
            && began
                .is_some_and(|began| began + JOINS_WITHIN <= from && !died_at_once(stream, began))
            && heard.is_some_and(|heard| heard + HEARD_WITHIN >= from)
            && sessions.leaves(stream.who).is_none_or(|left| left > to)
            && !stream.is_slow
            && !evidence.may_jump_hide_reader(stream, from, to)
            && !evidence.is_touched(evidence.machine_of(stream.who), began.unwrap_or(from), to)
    };
    let open = history.streams.iter().filter(is_open);
    open.filter_map(|stream| Some((stream.who, *history.users.get(&stream.who)?))).collect()
}

#[cfg(test)]
mod tests {
    use chatchat::{
        api::{StreamEvent, UserList},
        client::Request,
    };

    use super::*;
    use crate::oracle::fixtures::{Fixture, list_of, ms};

    fn asked(made: &mut Fixture, at: u64, list: UserList) {
        made.did(3, at, at + 100, Request::Users, Ok(Answer::Users(list)));
    }

    fn rules(made: &Fixture) -> Vec<&'static str> {
        made.judge(judge).iter().map(|told| told.rule.name).collect()
    }

    /// Person 0 has a stream open from 30 s on, 1 left at 20 s, 2 fell silent at 5 s.
    fn quiet() -> Fixture {
        let mut made = Fixture::new();
        made.history.reading_from = Some(ms(55_000));
        let beats = [30_000, 34_000, 38_000, 42_000, 46_000, 50_000, 54_000];
        made.stream(0, 0, beats.map(|at| (at, StreamEvent::Beat)).to_vec());
        made.did(1, 20_000, 20_100, Request::Leave, Ok(Answer::Done));
        made.did(2, 5000, 5100, Request::Alive, Ok(Answer::Done));
        made
    }

    #[test]
    fn list_of_those_present_without_those_who_left_is_accepted() {
        for (at, people) in [(55_100, &[0, 3][..]), (31_000, &[1, 2]), (34_000, &[0, 1, 2])] {
            let mut made = quiet();
            asked(&mut made, at, list_of(people));
            assert_eq!(rules(&made), [""; 0], "{at}");
        }
    }

    #[test]
    fn reader_who_looks_away_need_not_be_listed() {
        let mut made = quiet();
        made.history.streams[0].is_slow = true;
        asked(&mut made, 55_100, list_of(&[3]));
        assert_eq!(rules(&made), [""; 0]);
    }

    #[test]
    fn missing_lingering_doubled_and_unknown_people_are_reported() {
        for (at, people, rule) in [
            (55_100, &[3][..], "missing"),
            (40_000, &[3], "missing"),
            (55_100, &[0, 1], "lingers"),
            (40_000, &[0, 1], "lingers"),
            (55_100, &[0, 2], "forgotten"),
            (55_100, &[0, 9], "stranger"),
        ] {
            let mut made = quiet();
            asked(&mut made, at, list_of(people));
            assert_eq!(rules(&made), [rule], "{at} {people:?}");
        }
        let mut made = quiet();
        asked(&mut made, 55_100, UserList { total: 2, ..list_of(&[0, 0]) });
        assert_eq!(rules(&made), ["twice"]);
        let mut made = quiet();
        asked(&mut made, 55_100, UserList { total: 7, ..list_of(&[0]) });
        assert_eq!(rules(&made), ["total"]);
        let mut made = quiet();
        let first = UserList { total: 7, next: Some("x".to_owned()), ..list_of(&[3]) };
        asked(&mut made, 55_100, first);
        assert_eq!(rules(&made), [""; 0], "the first of a list names not everyone");
    }

    /// A master is dead from 25 s to 50 s, or more is wrong.
    fn dead_master(more: &[(&str, &str, u64, u64)]) -> Fixture {
        let death = ("exit", "target = \"master:1\"", 25_000, 50_000);
        let made = Fixture::with_faults(&[&[death][..], more].concat());
        Fixture { history: quiet().history, ..made }
    }

    #[test]
    fn lists_are_judged_while_a_master_is_dead_and_another_is_left() {
        let second = ("crash", "target = \"master:0\"", 20_500, 21_000);
        let pause = ("pause", "target = \"worker:0\"", 24_000, 26_000);
        let store = ("crash", "target = \"store\"", 36_000, 36_500);
        for (at, people, more, found) in [
            (40_000, &[0, 3][..], None, &[][..]),
            (40_000, &[3], None, &["missing"]),
            (40_000, &[3], Some(pause), &[]),
            (42_000, &[0, 1], None, &["lingers"]),
            (51_000, &[0, 2], None, &["forgotten"]),
            (51_000, &[0, 2], Some(second), &[]),
            (51_000, &[0, 2], Some(store), &[]),
        ] {
            let mut made = dead_master(more.as_slice());
            asked(&mut made, at, list_of(people));
            assert_eq!(rules(&made), found, "{at} {people:?} {more:?}");
        }
    }

    #[test]
    fn lists_are_judged_while_workers_or_other_people_are_in_trouble() {
        let worker = ("crash", "target = \"worker:0\"", 24_000, 39_000);
        let other = ("pause", "target = \"person:2\"", 36_000, 60_000);
        let own = ("pause", "target = \"person:0\"", 36_000, 37_000);
        let store = ("crash", "target = \"store\"", 24_000, 39_000);
        for (at, people, fault, found) in [
            (40_000, &[0, 3][..], worker, &[][..]),
            (40_000, &[3], worker, &["missing"]),
            (40_000, &[3], other, &["missing"]),
            (40_000, &[3], own, &[]),
            (40_000, &[3], store, &[]),
            (40_000, &[0, 1], worker, &["lingers"]),
            (40_000, &[0, 1], store, &[]),
            (52_000, &[0, 2], worker, &["forgotten"]),
            (52_000, &[0, 2], other, &["forgotten"]),
            (52_000, &[0, 2], store, &[]),
        ] {
            let mut made = Fixture::with_faults(&[fault]);
            made.history = quiet().history;
            asked(&mut made, at, list_of(people));
            assert_eq!(rules(&made), found, "{at} {people:?} {fault:?}");
        }
    }

    #[test]
    fn reader_whose_master_died_before_others_were_told_need_not_be_listed() {
        let missing = |death: u64, masters: [&str; 2]| {
            let death = ("crash", "target = \"master:0\"", death, 50_000);
            let mut made = Fixture::with_faults(&[death]);
            made.history.masters = masters.map(str::to_owned).to_vec();
            // The end of its stream does not reach a reader whose master has no power.
            made.stream(0, 0, vec![(20_000, StreamEvent::Beat), (21_000, StreamEvent::Beat)]);
            asked(&mut made, 27_000, list_of(&[3]));
            rules(&made)
        };
        assert_eq!(missing(21_500, ["http://m", "http://n"]), [""; 0]);
        assert_eq!(missing(24_900, ["http://m", "http://n"]), [""; 0]);
        assert_eq!(missing(25_000, ["http://m", "http://n"]), ["missing"]);
        assert_eq!(missing(21_500, ["http://n", "http://m"]), ["missing"], "another master");
    }

    #[test]
    fn crashed_person_may_be_listed_for_45_s_after_the_last_fault() {
        for (until, found) in [(6000, 1), (12_000, 0)] {
            let mut made = Fixture::with_faults(&[
                ("crash", "target = \"person:2\"", 5000, 60_000),
                ("crash", "target = \"store\"", 5500, until),
            ]);
            made.did(2, 4000, 4100, Request::Alive, Ok(Answer::Done));
            asked(&mut made, 55_000, list_of(&[2, 3]));
            assert_eq!(rules(&made).len(), found, "{until}");
        }
    }
}
