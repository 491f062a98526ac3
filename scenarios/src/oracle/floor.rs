//! Evidence floor: a run in which living people were shown nothing shows nothing, whatever holds.

use std::collections::BTreeSet;

use chatchat::client::Answer;

use super::g09_letters::given_up;
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

/// Returns why a run with an operator of dead letters shows less than it should, a sentence each: nobody was
/// told of a dead letter, or none was retried or dropped.
#[must_use]
pub fn handled_nothing(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    if !history.operations.iter().any(|operation| given_up(operation).is_some()) {
        found.push("nothing was shown: nobody was told that a post is a dead letter".to_owned());
    }
    let mut calls = history.operator.iter().filter(|call| call.letter.is_some());
    if !calls.any(|call| call.reply().is_some()) {
        found.push("nothing was shown: the operator retried and dropped no dead letter".to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use chatchat::{
        api::UserList,
        client::{Failure, Request},
        model::stream::Consistency,
    };

    use super::*;
    use crate::oracle::fixtures::{Fixture, busy, letter, letters, refused, restored};

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
    fn operator_without_a_letter_to_handle_has_shown_nothing() {
        let told = |why: &str, answer: Result<Answer, Failure>| {
            let mut made = Fixture::new();
            let unknown = Err(Failure::Unknown { status: Some(504), why: why.to_owned() });
            made.did(0, 100, 200, Fixture::request(1), unknown);
            made.operated(None, 300, Ok(letters(vec![letter(0, 1)])));
            made.dropped(letter(0, 1), 500, answer);
            handled_nothing(&made.history).len()
        };
        let given_up = "504 every attempt failed; send the same again, or cancel it";
        assert_eq!(told(given_up, Ok(Answer::Done)), 0);
        assert_eq!(told("504 a time-out", Ok(Answer::Done)), 1);
        assert_eq!(told(given_up, refused(404)), 1);
        assert_eq!(told(given_up, busy(503)), 1);
        assert_eq!(handled_nothing(&Fixture::new().history).len(), 2);
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
