//! G12 presence: in the last reading, with nobody coming or going, every master lists everyone
//! who has a stream open, nobody who left 15 s ago, and each session once.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chatchat::{
    client::Answer,
    model::{ids::UserId, stream::Consistency},
};

use super::{Evidence, Violation, broken, line};
use crate::{history::Who, property::Property};

/// Time within which a clean leave must be seen.
const LEAVES_WITHIN: Duration = Duration::from_secs(15);

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let history = evidence.history;
    let Some(reading_from) = history.reading_from else { return Vec::new() };
    let present = present(evidence, reading_from);
    let mut found = Vec::new();
    for operation in history.operations.iter().filter(|op| op.invoked >= reading_from) {
        let Some((_, Answer::Users(list))) = operation.reply() else { continue };
        if list.consistency != Consistency::Strong {
            continue;
        }
        let listed: BTreeSet<_> = list.users.iter().map(|user| user.id).collect();
        let mut tell = |rule, text: String| {
            found.push(broken(Property::G12, rule, text, [line(operation)]));
        };
        if listed.len() < list.users.len() {
            tell("twice", "somebody is listed twice".to_owned());
        }
        for (who, user) in &present {
            if !listed.contains(user) {
                tell("missing", format!("{who} has a stream open and is not listed"));
            }
        }
        for (who, user) in &history.users {
            let left = history.left(*who).filter(|_| has_left(evidence, *who));
            if left.is_some_and(|left| left + LEAVES_WITHIN < operation.invoked)
                && listed.contains(user)
            {
                tell("lingers", format!("{who} left long ago and is listed"));
            }
        }
    }
    found
}

/// Returns whether a log-out was acknowledged.
fn has_left(evidence: &Evidence<'_>, who: Who) -> bool {
    let leaves = |op: &&crate::history::Operation| {
        op.who == who && op.request == chatchat::client::Request::Leave
    };
    evidence.history.operations.iter().filter(leaves).any(|op| op.reply().is_some())
}

/// Returns the people with an open stream that was heard shortly before the last reading. A reader
/// who looks away is left out: it may still read what its dead master had sent.
fn present(evidence: &Evidence<'_>, reading_from: Duration) -> BTreeMap<Who, UserId> {
    const HEARD_WITHIN: Duration = Duration::from_secs(9);
    let history = evidence.history;
    let is_open = |stream: &&crate::history::StreamLog| {
        let heard = stream.deliveries.last().map(|(at, _)| *at);
        let began = stream.deliveries.first().map(|(at, _)| *at);
        stream.end.is_none()
            && !stream.is_slow
            && began.is_some_and(|at| at + Duration::from_secs(2) <= reading_from)
            && heard.is_some_and(|at| at + HEARD_WITHIN >= reading_from)
    };
    let open = history.streams.iter().filter(is_open);
    open.filter_map(|stream| Some((stream.who, *history.users.get(&stream.who)?))).collect()
}

#[cfg(test)]
mod tests {
    use chatchat::{
        api::{StreamEvent, User, UserList},
        client::Request,
    };

    use super::*;
    use crate::oracle::fixtures::{Fixture, ms, user};

    fn users(people: &[usize]) -> Answer {
        let person = |n: &usize| User {
            id: user(*n),
            name: "x".parse().unwrap(),
            look: None,
            since: 1,
            last_seen: 2,
        };
        let users: Vec<_> = people.iter().map(person).collect();
        let total = users.len() as u64;
        Answer::Users(UserList {
            users,
            next: None,
            total,
            version: 1,
            consistency: Consistency::Strong,
        })
    }

    fn quiet() -> Fixture {
        let mut made = Fixture::new();
        made.history.reading_from = Some(ms(50_000));
        made.stream(0, 0, vec![(30_000, StreamEvent::Beat), (48_000, StreamEvent::Beat)]);
        made.did(1, 20_000, 20_100, Request::Leave, Ok(Answer::Done));
        made
    }

    #[test]
    fn list_of_those_present_without_those_who_left_is_accepted() {
        let mut made = quiet();
        made.did(0, 50_100, 50_200, Request::Users, Ok(users(&[0, 2])));
        assert_eq!(made.judge(judge), []);
    }

    #[test]
    fn reader_who_looks_away_need_not_be_listed() {
        let mut made = quiet();
        made.history.streams[0].is_slow = true;
        made.did(0, 50_100, 50_200, Request::Users, Ok(users(&[2])));
        assert_eq!(made.judge(judge), []);
    }

    #[test]
    fn missing_lingering_and_doubled_people_are_reported() {
        for listed in [&[2][..], &[0, 1], &[0, 0]] {
            let mut made = quiet();
            made.did(0, 50_100, 50_200, Request::Users, Ok(users(listed)));
            assert_eq!(made.judge(judge).len(), 1, "{listed:?}");
        }
    }
}
