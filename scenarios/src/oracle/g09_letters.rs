//! G9, dead letters: a send that ends as a dead letter leaves a letter, which operators see as long as they neither
//! retry nor drop it.
//!
//! 1. Judged is the last list of a run, if the store and all nodes were well for long enough before it.
//! 2. A retry or a drop that was over before a send began ended an earlier letter of the post: another one has
//!    another number.
//! 3. A master that died may have taken letters with it that it had not written yet, also those of sends at
//!    other masters.
//! 4. Runs in which the store was set back are left out.

use std::{collections::BTreeSet, time::Duration};

use chatchat::{
    api::DeadLetterList,
    client::{Failure, Request},
    model::ids::PostId,
};

use super::{Clue, Evidence, Violation, broken, line, troubles::AFTERMATH};
use crate::{
    history::{Operation, OperatorCall, post_of},
    property::Property,
    target::Place,
};

/// Words of the answer to a send that became a dead letter. Its time-out has the same status.
const GIVEN_UP: &str = "every attempt failed";

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let history = evidence.history;
    let Some((call, list)) = last_list(evidence).filter(|_| !evidence.is_set_back()) else {
        return found;
    };
    let listed: BTreeSet<_> = list.letters.iter().filter_map(post_of).collect();
    let is_handled = |key, since: Duration| {
        history.operator.iter().any(|call| {
            let was_over = matches!(&call.end, Some((at, _)) if *at < since);
            call.post() == Some(key) && !call.did_nothing() && !was_over
        })
    };
    for operation in &history.operations {
        let (Some((at, id)), Some(user)) = (given_up(operation), history.users.get(&operation.who))
        else {
            continue;
        };
        let key = (*user, id);
        if at.saturating_add(AFTERMATH) <= call.invoked
            && !listed.contains(&key)
            && !is_handled(key, operation.invoked)
            && !has_lost_a_master(evidence, operation.invoked)
        {
            let text = format!("post {id} was told to be a dead letter, and no operator sees it");
            let clues = [line(operation), Clue::from(call.to_string())];
            found.push(broken(Property::G9, "letter-lost", text, clues));
        }
    }
    found
}

/// Returns the post of a send whose author was told that it is a dead letter, and when that was.
pub(super) fn given_up(operation: &Operation) -> Option<(Duration, PostId)> {
    match (&operation.request, operation.failure()) {
        (Request::Post { id, .. }, Some((at, Failure::Unknown { status: Some(504), why })))
            if why.contains(GIVEN_UP) =>
        {
            Some((at, *id))
        }
        _ => None,
    }
}

/// Returns the last list, if it is whole and all was well for long enough when it was asked for.
fn last_list<'a>(evidence: &Evidence<'a>) -> Option<(&'a OperatorCall, &'a DeadLetterList)> {
    let history = evidence.history;
    let (call, list) = history.letter_lists().last()?;
    let is_late = call.invoked >= evidence.last_trouble().saturating_add(AFTERMATH);
    (is_late && !list.truncated).then_some((call, list))
}

/// Returns whether a master's process ended after a time, be it by a restore, which ends all of them.
fn has_lost_a_master(evidence: &Evidence<'_>, since: Duration) -> bool {
    let mut masters = (0..evidence.plan.cluster.masters).map(Place::Master);
    masters.any(|master| evidence.deaths(master).any(|at| at >= since))
        || evidence.store.epoch_changes.iter().any(|change| change.at >= since)
}

#[cfg(test)]
mod tests {
    use chatchat::{api::DeadLetter, client::Answer};

    use super::*;
    use crate::oracle::fixtures::{
        Fixture, busy, dead_letter, letter, letters, posted, refused, unsettled,
    };

    /// The first person is told that its post is a dead letter at 21.1 s, and an operator lists these at 55 s.
    fn told(mut made: Fixture, shown: Vec<DeadLetter>) -> Fixture {
        made.did(0, 21_000, 21_100, Fixture::request(1), dead_letter());
        made.operated(None, 55_000, Ok(letters(shown)));
        made
    }

    fn calm() -> Fixture {
        Fixture::with_faults(&[("pause", "target = \"worker:*\"", 20_000, 22_000)])
    }

    #[test]
    fn letter_that_is_listed_is_accepted() {
        assert_eq!(told(calm(), vec![letter(1, 9), letter(0, 1)]).judge(judge), []);
    }

    #[test]
    fn post_that_is_told_to_be_a_dead_letter_and_is_on_no_list_is_reported() {
        for shown in [Vec::new(), vec![letter(0, 2)], vec![letter(1, 1)]] {
            assert_eq!(told(calm(), shown).rules(judge), ["g09.letter-lost"]);
        }
    }

    #[test]
    fn letter_that_an_operator_may_have_ended_is_accepted() {
        let handled = |answer: Result<Answer, Failure>| {
            let mut made = calm();
            made.dropped(letter(0, 1), 30_000, answer);
            told(made, Vec::new()).rules(judge)
        };
        assert_eq!(handled(Ok(Answer::Done)), [""; 0]);
        assert_eq!(handled(unsettled()), [""; 0], "who knows");
        for nothing in [refused(404), busy(503), busy(429)] {
            assert_eq!(handled(nothing), ["g09.letter-lost"], "it did nothing");
        }
        let mut made = calm();
        made.operated(Some(letter(0, 1)), 30_000, Ok(Answer::Posted(posted(0, 1, 1))));
        assert_eq!(told(made, Vec::new()).judge(judge), []);
    }

    #[test]
    fn letter_of_a_send_that_began_after_an_operator_ended_an_earlier_one_is_missed() {
        // The drop takes 100 ms, and the send begins at 21 s.
        let dropped = |at: u64, is_over: bool| {
            let mut made = calm();
            made.dropped(letter(0, 1), at, Ok(Answer::Done));
            if !is_over {
                made.history.operator.iter_mut().for_each(|call| call.end = None);
            }
            told(made, Vec::new()).rules(judge)
        };
        assert_eq!(dropped(15_000, true), ["g09.letter-lost"]);
        assert_eq!(dropped(20_899, true), ["g09.letter-lost"]);
        assert_eq!(dropped(20_900, true), [""; 0], "it may be the letter of this send");
        assert_eq!(dropped(15_000, false), [""; 0], "it may have ended at any time");
    }

    #[test]
    fn time_out_dead_master_and_list_that_is_not_the_last_word_are_accepted() {
        let mut timed_out = calm();
        timed_out.did(0, 21_000, 21_100, Fixture::request(1), unsettled());
        timed_out.operated(None, 55_000, Ok(letters(Vec::new())));
        let died = Fixture::with_faults(&[("exit", "target = \"master:1\"", 21_050, 22_000)]);
        let soon = Fixture::with_faults(&[("pause", "target = \"worker:*\"", 20_000, 41_000)]);
        let back = ("rollback", "target = \"store\"\nby = \"1s\"", 10_000, 12_000);
        let set_back = Fixture::with_faults(&[back]);
        let mut restored = calm();
        restored.restored_at(30_000);
        let others = [died, soon, set_back, restored].map(|made| told(made, Vec::new()));
        for (nth, made) in [timed_out].iter().chain(&others).enumerate() {
            assert_eq!(made.rules(judge), [""; 0], "{nth}");
        }
        let before = Fixture::with_faults(&[("exit", "target = \"master:1\"", 20_000, 22_000)]);
        assert_eq!(told(before, Vec::new()).rules(judge), ["g09.letter-lost"], "it died before");
        let mut cut = told(calm(), Vec::new());
        let end = cut.history.operator.last_mut().and_then(|call| call.end.as_mut());
        let Some((_, Ok(Answer::DeadLetters(list)))) = end else { panic!("a list") };
        list.truncated = true;
        assert_eq!(cut.judge(judge), [], "there are more");
    }
}
