//! Evidence floor: a run in which living people were shown nothing shows nothing, whatever holds.

use std::collections::BTreeSet;

use chatchat::client::Answer;

use crate::history::History;

/// Returns why a run shows less than it should, a sentence each: a person who was alive at the end
/// never got an answer to *users*, a page or *restore*, or its last reading hung.
#[must_use]
pub fn shown_nothing(history: &History, people: usize) -> Vec<String> {
    let mut found = Vec::new();
    if people > 0 && history.living.is_empty() {
        found.push("nothing was shown: nobody was left to read at the end".to_owned());
    }
    for person in &history.hung {
        found.push(format!("nothing was shown: the last reading of person:{person} hung"));
    }
    type Kind = (&'static str, fn(&Answer) -> bool);
    let kinds: [Kind; 3] = [
        ("users", |answer| matches!(answer, Answer::Users(_))),
        ("a page", |answer| matches!(answer, Answer::Page(_))),
        ("restore", |answer| matches!(answer, Answer::Restored(_))),
    ];
    let mut seen = BTreeSet::new();
    for operation in &history.operations {
        let Some((_, answer)) = operation.reply() else { continue };
        let what = kinds.iter().filter(|(_, is_it)| is_it(answer)).map(|(what, _)| *what);
        seen.extend(what.map(|what| (operation.who.person, what)));
    }
    for person in &history.living {
        for (what, _) in kinds {
            if !seen.contains(&(*person, what)) {
                let text = format!("nothing was shown: person:{person} got no answer to {what}");
                found.push(text);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use chatchat::{api::UserList, client::Request, model::stream::Consistency};

    use super::*;
    use crate::oracle::fixtures::{Fixture, busy, restored};

    fn seen(users: bool) -> Fixture {
        let mut made = Fixture::new();
        made.history.living = vec![0];
        let restored = restored(0, Consistency::Strong);
        let list = UserList {
            users: Vec::new(),
            next: None,
            total: 0,
            version: 1,
            consistency: Consistency::Strong,
        };
        made.read(0, 10, 20, Consistency::Strong, &[]);
        made.did(0, 30, 40, Request::Restore, Ok(Answer::Restored(restored)));
        let answer = if users { Ok(Answer::Users(list)) } else { busy(503) };
        made.did(0, 50, 60, Request::Users, answer);
        made
    }

    #[test]
    fn person_with_an_answer_of_each_kind_has_seen_enough() {
        assert_eq!(shown_nothing(&seen(true).history, 1), [""; 0]);
        assert_eq!(shown_nothing(&Fixture::new().history, 0), [""; 0], "nobody was asked to read");
    }

    #[test]
    fn missing_answer_hung_reading_and_empty_room_are_told() {
        let told = shown_nothing(&seen(false).history, 1);
        assert!(told.len() == 1 && told[0].ends_with("no answer to users"), "{told:?}");
        let mut made = seen(true);
        made.history.hung = vec![2];
        assert_eq!(shown_nothing(&made.history, 1).len(), 1);
        made.history.living.clear();
        assert_eq!(shown_nothing(&made.history, 1).len(), 2);
    }
}
