//! G12, what streams tell of who is active: every change goes on from the version before it, the
//! number of people is right, and in quiet it is those who have a stream open and nobody who left. Clocks of
//! nodes and of the store excuse none of it; masters tell by clocks that may drift.

use std::{collections::BTreeMap, time::Duration};

use chatchat::{
    api::{PresenceEvent, StreamEvent, User},
    model::{ids::UserId, stream::PRESENCE_MAX},
};

use super::{Evidence, Violation, broken, g12_presence::present, sessions::Sessions, stream_line};
use crate::{history::StreamLog, property::Property};

/// Time within which a list is told after it changed.
const TOLD_WITHIN: Duration = Duration::from_secs(4);
/// Time within which a clean leave must be told.
const LEAVES_WITHIN: Duration = Duration::from_secs(16);

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let history = evidence.history;
    let mut found = Vec::new();
    for stream in &history.streams {
        let mut list = Listed::of(evidence, stream);
        for (at, delivery) in &stream.deliveries {
            let StreamEvent::Presence(event) = &delivery.event else { continue };
            if let Err((rule, text)) = list.apply(event) {
                found.push(broken(Property::G12, rule, text, [stream_line(stream, *at)]));
                break;
            }
        }
    }
    let Some(reading_from) = history.reading_from else { return found };
    let sessions = Sessions::read(history);
    let here = present(evidence, &sessions, reading_from.saturating_sub(TOLD_WITHIN), reading_from);
    let trouble = evidence.last_trouble_but_clocks(reading_from);
    for stream in history.streams.iter().filter(|stream| here.contains_key(&stream.who)) {
        let Some(list) = listed_at(evidence, stream, reading_from) else { continue };
        if list.total > PRESENCE_MAX as u64 {
            continue;
        }
        let mut tell = |rule, text| {
            let clue = stream_line(stream, reading_from);
            found.push(broken(Property::G12, rule, text, [clue]));
        };
        for (who, user) in here.iter().filter(|(_, user)| !list.users.contains_key(user)) {
            tell("untold", format!("{who} has a stream open, and {user} was not told of"));
        }
        let told = |user| list.users.contains_key(user);
        for (who, _) in history.users.iter().filter(|(_, user)| told(user)) {
            let times = sessions.get(*who);
            let left = times.and_then(|it| it.leaves.filter(|_| it.left.is_some()));
            let passed = |since| evidence.has_passed(LEAVES_WITHIN, since, reading_from);
            if left.is_some_and(|left| passed(left.max(trouble))) {
                tell("untold", format!("{who} left long ago, and that was not told"));
            }
        }
    }
    found
}

/// Returns the list as an open stream had told it by a time.
fn listed_at(evidence: &Evidence<'_>, stream: &StreamLog, at: Duration) -> Option<Listed> {
    if stream.is_slow || stream.end.is_some() {
        return None;
    }
    let mut list = Listed::of(evidence, stream);
    for (_, delivery) in stream.deliveries.iter().take_while(|(told, _)| *told <= at) {
        if let StreamEvent::Presence(event) = &delivery.event {
            list.apply(event).ok()?;
        }
    }
    list.version.is_some().then_some(list)
}

/// List of active people as one stream tells it.
#[derive(Default)]
struct Listed {
    version: Option<u64>,
    total: u64,
    users: BTreeMap<UserId, User>,
    /// The reader's own person.
    own: Option<UserId>,
}

impl Listed {
    /// Returns the list of a stream that has told nothing yet.
    fn of(evidence: &Evidence<'_>, stream: &StreamLog) -> Self {
        Self { own: evidence.history.users.get(&stream.who).copied(), ..Self::default() }
    }

    fn apply(&mut self, event: &PresenceEvent) -> Result<(), (&'static str, String)> {
        match event {
            PresenceEvent::List { users } => {
                self.users = users.iter().map(|user| (user.id, user.clone())).collect();
                return Ok(());
            }
            PresenceEvent::Window { version, total, users } => {
                self.users = users.iter().map(|user| (user.id, user.clone())).collect();
                (self.version, self.total) = (Some(*version), *total);
            }
            PresenceEvent::Change { version, since, total, came, left } => {
                if self.version != Some(*since) {
                    let text = format!("a change from {since} came after {:?}", self.version);
                    return Err(("version", text));
                }
                for user in left {
                    self.users.remove(user);
                }
                self.users.extend(came.iter().map(|user| (user.id, user.clone())));
                (self.version, self.total) = (Some(*version), *total);
            }
        }
        let have = self.users.len() as u64;
        // The reader's own person is shown before it is on the list.
        let is_shown = self.own.is_some_and(|own| self.users.contains_key(&own));
        let fits = have == self.total || (is_shown && have == self.total + 1);
        if self.total <= PRESENCE_MAX as u64 && !fits {
            return Err((
                "count",
                format!("{have} people were told of, the total is {}", self.total),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use chatchat::client::{Answer, Request};

    use super::*;
    use crate::oracle::fixtures::{Fixture, ms, user};

    fn person(n: &usize) -> User {
        let name = "x".parse().unwrap();
        User { id: user(*n), name, look: None, since: 1, last_seen: 2 }
    }

    fn window(version: u64, people: &[usize]) -> StreamEvent {
        let users: Vec<_> = people.iter().map(person).collect();
        let total = users.len() as u64;
        StreamEvent::Presence(PresenceEvent::Window { version, total, users })
    }

    fn change(since: u64, total: u64, came: &[usize], left: &[usize]) -> StreamEvent {
        let came = came.iter().map(person).collect();
        let left = left.iter().map(|n| user(*n)).collect();
        let version = since + 1;
        StreamEvent::Presence(PresenceEvent::Change { version, since, total, came, left })
    }

    /// Persons 0 and 1 have streams open until the end; 2 left at 22 s.
    fn told(events: Vec<(u64, StreamEvent)>) -> Vec<&'static str> {
        told_beside(&[], events)
    }

    /// The same beside faults.
    fn told_beside(
        faults: &[(&str, &str, u64, u64)],
        events: Vec<(u64, StreamEvent)>,
    ) -> Vec<&'static str> {
        let mut made = Fixture::with_faults(faults);
        made.history.reading_from = Some(ms(50_000));
        made.did(2, 22_000, 22_100, Request::Leave, Ok(Answer::Done));
        made.stream(0, 0, vec![(21_000, StreamEvent::Beat), (45_000, StreamEvent::Beat)]);
        let beat = [(45_000, StreamEvent::Beat)];
        made.stream(1, 0, events.into_iter().chain(beat).collect());
        made.judge(judge).iter().map(|told| told.rule.name).collect()
    }

    #[test]
    fn window_with_changes_that_lead_to_those_present_is_accepted() {
        let events = vec![
            (21_000, window(4, &[1, 2])),
            (22_000, change(4, 3, &[0], &[])),
            (24_000, change(5, 2, &[], &[2])),
        ];
        assert_eq!(told(events), [""; 0]);
        assert_eq!(told(Vec::new()), [""; 0], "nothing was told");
        let users = [0, 1].iter().map(person).collect();
        let early = PresenceEvent::Window { version: 4, total: 1, users };
        let early = (21_000, StreamEvent::Presence(early));
        assert_eq!(told(vec![early]), [""; 0], "its own person");
    }

    #[test]
    fn missing_version_wrong_total_and_untold_people_are_reported() {
        let first = (21_000, window(4, &[0, 1, 2]));
        let version = vec![first.clone(), (24_000, change(5, 2, &[], &[2]))];
        assert_eq!(told(version), ["version"]);
        let count = vec![first.clone(), (24_000, change(4, 3, &[], &[2]))];
        assert_eq!(told(count), ["count"]);
        assert_eq!(told(vec![first]), ["untold"], "who left");
        assert_eq!(told(vec![(21_000, window(4, &[1]))]), ["untold"], "who is there");
        let users = [1, 2].iter().map(person).collect();
        let early = PresenceEvent::Window { version: 4, total: 1, users };
        let early = vec![(21_000, StreamEvent::Presence(early)), (23_000, change(4, 2, &[3], &[]))];
        assert_eq!(
            told(early),
            ["untold", "untold"],
            "who is there and who left, after an early window"
        );
    }

    #[test]
    fn leave_must_be_told_while_clocks_of_nodes_and_of_the_store_are_off() {
        let untold = |kind: &str, keys: &str| {
            let events = vec![(21_000, window(4, &[0, 1, 2]))];
            told_beside(&[(kind, keys, 10_000, 50_000)], events)
        };
        for (kind, keys) in [
            ("clock_offset", "target = \"master:*\"\nby = \"3600s\""),
            ("clock_jump", "target = \"worker:0\"\nby = \"5s\""),
            ("clock_offset", "target = \"store\"\nby = \"-60s\""),
            ("clock_drift", "target = \"store\"\nrate = 0.4"),
            ("clock_drift", "target = \"master:1\"\nrate = -0.4"),
        ] {
            assert_eq!(untold(kind, keys), ["untold"], "{kind} {keys}");
        }
        // Of 28 s that have passed, the clock of a master may have counted 14.
        assert_eq!(untold("clock_drift", "target = \"master:1\"\nrate = -0.5"), [""; 0]);
        assert_eq!(untold("clock_offset", "target = \"person:2\"\nby = \"9s\""), [""; 0]);
        assert_eq!(untold("pause", "target = \"worker:0\""), [""; 0]);
    }
}
