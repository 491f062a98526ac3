//! G3, dead letters: a post that an operator dropped never appears, and a letter that was retried or dropped is
//! not listed any more.
//!
//! 1. A drop cancels the post, unless it is in its board already. So, once a drop is confirmed, the post stands
//!    before each one of its board that was first sent later, or nowhere.
//! 2. A retry that is refused with 410 says that the post is cancelled, which is for good.
//! 3. A confirmed retry or drop has removed the letter. A new letter of the same post has another number.
//! 4. Runs in which the store was set back are left out: what it said before is not its last word.

use std::{collections::BTreeMap, time::Duration};

use chatchat::{
    client::{Answer, Failure, Request},
    model::ids::{Post, PostId, UserId},
};

use super::{Clue, Evidence, Violation, broken};
use crate::{
    history::{History, OperatorCall},
    property::Property,
};

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    if evidence.is_set_back() {
        return found;
    }
    let posts = evidence.store.boards.values().flatten();
    let stands: BTreeMap<(UserId, PostId), &Post> =
        posts.map(|post| ((post.author.id, post.id), post)).collect();
    let first_sent = first_sent(evidence.history);
    for call in &evidence.history.operator {
        let Some(post) = call.post().and_then(|key| stands.get(&key)) else { continue };
        let Post { id, board, seq, .. } = post;
        let told = Clue::from(call.to_string());
        match (&call.request, &call.end) {
            (Request::DropDeadLetter { .. }, Some((at, Ok(Answer::Done)))) => {
                let Some((earlier, sent)) = sent_later(evidence, &first_sent, post, *at) else {
                    continue;
                };
                let text = format!(
                    "post {id} was dropped, and is {board} {seq}, after one that was sent later"
                );
                let later = format!(
                    "{:.3}s first try of {board} {}: {}",
                    sent.as_secs_f64(),
                    earlier.seq,
                    earlier.id
                );
                found.push(broken(Property::G3, "dropped", text, [told, Clue::from(later)]));
            }
            (
                Request::RetryDeadLetter { .. },
                Some((_, Err(Failure::Refused { status: 410, .. }))),
            ) => {
                let text = format!(
                    "post {id} was cancelled, as an operator was told, and is {board} {seq}"
                );
                found.push(broken(Property::G3, "cancelled", text, [told]));
            }
            _ => {}
        }
    }
    found.extend(listed_again(evidence.history));
    found
}

/// Returns the time at which each post was first sent, whoever sent it.
fn first_sent(history: &History) -> BTreeMap<PostId, Duration> {
    let mut first = BTreeMap::new();
    for operation in history.operations.iter().chain(history.moved()) {
        if let Request::Post { id, .. } = &operation.request {
            let known = first.entry(*id).or_insert(operation.invoked);
            *known = operation.invoked.min(*known);
        }
    }
    first
}

/// Returns a post that stands before another one and was first sent after a time, and when it was.
fn sent_later<'a>(
    evidence: &Evidence<'a>,
    first_sent: &BTreeMap<PostId, Duration>,
    post: &Post,
    at: Duration,
) -> Option<(&'a Post, Duration)> {
    let before = evidence.store.boards.get(&post.board)?.iter().filter(|it| it.seq < post.seq);
    let mut sent = before.filter_map(|other| Some((other, *first_sent.get(&other.id)?)));
    sent.find(|(_, sent)| *sent > at)
}

/// Letters that are listed by what was asked after they were retried or dropped.
fn listed_again(history: &History) -> Vec<Violation> {
    let mut over: BTreeMap<u64, (Duration, &OperatorCall)> = BTreeMap::new();
    for call in &history.operator {
        if let (Some(letter), Some((at, _))) = (&call.letter, call.reply()) {
            let first = over.entry(letter.number).or_insert((at, call));
            if at < first.0 {
                *first = (at, call);
            }
        }
    }
    let mut found = Vec::new();
    for (list, letters) in history.letter_lists() {
        for letter in &letters.letters {
            if let Some((at, call)) = over.get(&letter.number)
                && *at < list.invoked
            {
                let text = format!("dead letter {} is listed after its end", letter.number);
                let clues = [Clue::from(call.to_string()), Clue::from(list.to_string())];
                found.push(broken(Property::G3, "letter-stays", text, clues));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::fixtures::{Fixture, busy, letter, letters, posted, refused};

    /// The letter of the first person's post is dropped from 900 ms on, with this answer at 1 s. A post of
    /// another one was first sent at this time; both stand in this order.
    fn dropped(answer: Result<Answer, Failure>, sent: u64, order: [(usize, u8); 2]) -> Vec<String> {
        let mut made = Fixture::new();
        made.unknown(0, 1, 100).dropped(letter(0, 1), 900, answer).acked(1, 2, sent, sent + 50, 2);
        for (person, n) in order {
            made.stored(person, n);
        }
        made.rules(judge)
    }

    const FIRST: [(usize, u8); 2] = [(0, 1), (1, 2)];
    const LAST: [(usize, u8); 2] = [(1, 2), (0, 1)];

    #[test]
    fn dropped_post_that_came_before_or_not_at_all_is_accepted() {
        assert_eq!(dropped(Ok(Answer::Done), 1200, FIRST), [""; 0], "it was there before");
        assert_eq!(dropped(Ok(Answer::Done), 1000, LAST), [""; 0], "it may have been");
        assert_eq!(dropped(busy(503), 1200, LAST), [""; 0], "nothing was confirmed");
        let mut made = Fixture::new();
        made.unknown(0, 1, 100).dropped(letter(0, 1), 900, Ok(Answer::Done));
        made.acked(1, 2, 1200, 1250, 1).stored(1, 2);
        // Somebody else's post under the same id is another post.
        made.unknown(1, 1, 1300).stored(1, 1);
        assert_eq!(made.judge(judge), []);
    }

    #[test]
    fn dropped_post_that_stands_behind_one_that_was_sent_later_is_reported() {
        assert_eq!(dropped(Ok(Answer::Done), 1200, LAST), ["g03.dropped"]);
    }

    #[test]
    fn post_that_stands_though_its_retry_was_told_of_a_cancel_is_reported() {
        let retried = |answer| {
            let mut made = Fixture::new();
            made.unknown(0, 1, 100).operated(Some(letter(0, 1)), 900, answer).stored(0, 1);
            made.rules(judge)
        };
        assert_eq!(retried(refused(410)), ["g03.cancelled"]);
        assert_eq!(retried(refused(404)), [""; 0], "the letter was gone");
        assert_eq!(retried(Ok(Answer::Posted(posted(0, 1, 1)))), [""; 0]);
    }

    #[test]
    fn letter_that_is_listed_after_its_end_is_reported() {
        // Each is answered 100 ms later.
        let listed = |at: u64, number: u64, answer: fn() -> Result<Answer, Failure>| {
            let shown = chatchat::api::DeadLetter { number, ..letter(0, 1) };
            let mut made = Fixture::new();
            made.unknown(0, 1, 100).operated(None, at, Ok(letters(vec![shown])));
            made.dropped(letter(0, 1), 900, answer());
            made.operated(Some(letter(0, 1)), 2000, answer());
            made.rules(judge)
        };
        let done: fn() -> Result<Answer, Failure> = || Ok(Answer::Done);
        assert_eq!(listed(1001, 1, done), ["g03.letter-stays"]);
        assert_eq!(listed(1000, 1, done), [""; 0], "it was asked before");
        assert_eq!(listed(1001, 2, done), [""; 0], "it failed again");
        assert_eq!(listed(1001, 1, || busy(503)), [""; 0], "it was not confirmed");
    }

    #[test]
    fn store_that_was_set_back_is_not_held_to_what_it_said() {
        let judged = |target: &str| {
            let keys = format!("target = \"{target}\"\nby = \"1s\"");
            let mut made = Fixture::with_faults(&[("rollback", keys.as_str(), 20_000, 30_000)]);
            made.unknown(0, 1, 100).operated(Some(letter(0, 1)), 900, refused(410)).stored(0, 1);
            made.rules(judge)
        };
        assert_eq!(judged("store"), [""; 0]);
        assert_eq!(judged("worker:0"), ["g03.cancelled"]);
    }
}
