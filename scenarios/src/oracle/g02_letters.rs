//! G2, dead letters: a letter shows a post as its author sent it, and an operator's retry of one goes through
//! the same duplicate check as a resend, so that it makes no second post: it says where this very post stands.
//!
//! Posts that are there twice, or that nobody sent, are judged wherever they come from (`g02_exactly_once`).
//! Runs in which the store was set back are left out: what it said before is not its last word.

use std::collections::BTreeSet;

use chatchat::{
    api::DeadLetter,
    client::{Answer, Request},
    model::ids::{Post, Resource},
};

use super::{Clue, Evidence, Violation, broken};
use crate::property::Property;

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    if evidence.is_set_back() {
        return found;
    }
    let mut seen = BTreeSet::new();
    for (call, list) in evidence.history.letter_lists() {
        for letter in &list.letters {
            if seen.insert(letter.number) && !was_sent(evidence, letter) {
                let text =
                    format!("dead letter {} shows a post that was not sent so", letter.number);
                let clues = [Clue::from(format!("{letter:?}")), Clue::from(call.to_string())];
                found.push(broken(Property::G2, "letter", text, clues));
            }
        }
    }
    for call in &evidence.history.operator {
        let (Some(letter), Some((_, Answer::Posted(post)))) = (&call.letter, call.reply()) else {
            continue;
        };
        let Post { id, board, seq, .. } = post;
        let text = if !is_of(letter, post) {
            format!("dead letter {} was retried, and post {id} was told", letter.number)
        } else if !stands(evidence, post) {
            format!("post {id} was retried and told to be {board} {seq}, which it is not")
        } else {
            continue;
        };
        found.push(broken(Property::G2, "retried", text, [Clue::from(call.to_string())]));
    }
    found
}

/// Returns whether somebody sent the post of a letter so; a letter of another task shows none.
fn was_sent(evidence: &Evidence<'_>, letter: &DeadLetter) -> bool {
    let Some(shown) = &letter.post else { return true };
    let history = evidence.history;
    history.operations.iter().chain(history.moved()).any(|operation| match &operation.request {
        Request::Post { board, id, text } => {
            let user = history.users.get(&operation.who);
            (*id, text) == (shown.id, &shown.text)
                && user.is_none_or(|user| *user == shown.author.id)
                && letter.resource == Resource::Board(board.clone()).to_string()
        }
        _ => false,
    })
}

/// Returns whether a post is the one of a letter.
fn is_of(letter: &DeadLetter, post: &Post) -> bool {
    let Post { id, board, author, text, .. } = post;
    let shown = letter.post.as_ref();
    shown.is_some_and(|shown| (shown.id, shown.author.id, &shown.text) == (*id, author.id, text))
        && letter.resource == Resource::Board(board.clone()).to_string()
}

/// Returns whether a post is in the store where an answer says.
fn stands(evidence: &Evidence<'_>, post: &Post) -> bool {
    let kept = evidence.store.post_at(&post.board, post.seq);
    kept.is_some_and(|kept| (kept.author.id, kept.id) == (post.author.id, post.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::fixtures::{Fixture, id, letter, letters, posted, text, user};

    /// A post becomes a dead letter. Then it is listed, changed so.
    fn listed(change: fn(&mut DeadLetter)) -> Vec<String> {
        let mut made = Fixture::new();
        let mut shown = letter(0, 1);
        change(&mut shown);
        made.unknown(0, 1, 100).operated(None, 900, Ok(letters(vec![shown])));
        made.rules(judge)
    }

    #[test]
    fn letter_that_shows_another_post_than_was_sent_is_reported() {
        let post = |letter: &mut DeadLetter, change: fn(&mut chatchat::api::UnsentPost)| {
            letter.post.iter_mut().for_each(change);
        };
        assert_eq!(listed(|_| {}), [""; 0]);
        assert_eq!(listed(|it| it.post = None), [""; 0], "of another task");
        let changes: [fn(&mut DeadLetter); 3] = [
            |it| it.resource = "board:dev".to_owned(),
            |it| it.resource = String::new(),
            |it| it.post = letter(0, 2).post,
        ];
        for change in changes {
            assert_eq!(listed(change), ["g02.letter"]);
        }
        let mut other = letter(0, 1);
        post(&mut other, |post| post.author.id = user(1));
        let mut text_of_another = letter(0, 1);
        post(&mut text_of_another, |post| post.text = text(2).parse().unwrap());
        for letter in [other, text_of_another] {
            let mut made = Fixture::new();
            made.unknown(0, 1, 100).operated(None, 900, Ok(letters(vec![letter])));
            assert_eq!(made.rules(judge), ["g02.letter"]);
        }
    }

    /// The letter of the first person's post, which is the second of the board, is retried and this is told.
    fn retried(told: Post) -> Fixture {
        let mut made = Fixture::new();
        made.unknown(1, 9, 90).stored(1, 9).unknown(0, 1, 100).stored(0, 1);
        made.operated(Some(letter(0, 1)), 900, Ok(Answer::Posted(told)));
        made
    }

    #[test]
    fn retry_that_tells_where_its_post_stands_is_accepted() {
        assert_eq!(retried(posted(0, 1, 2)).judge(judge), []);
    }

    #[test]
    fn retry_that_tells_of_another_post_or_another_place_is_reported() {
        let other_id = Post { id: id(3), ..posted(0, 1, 2) };
        for told in [posted(0, 1, 1), posted(0, 1, 3), posted(1, 1, 2), posted(1, 9, 1), other_id] {
            let text = format!("{told:?}");
            assert_eq!(retried(told).rules(judge), ["g02.retried"], "{text}");
        }
        let mut lost = retried(posted(0, 1, 2));
        lost.store.boards.clear();
        assert_eq!(lost.rules(judge), ["g02.retried"]);
    }

    #[test]
    fn store_that_was_set_back_is_not_held_to_what_it_said() {
        let judged = |target: &str| {
            let keys = format!("target = \"{target}\"\nby = \"1s\"");
            let made = Fixture::with_faults(&[("rollback", keys.as_str(), 20_000, 30_000)]);
            let Fixture { history, store, .. } = retried(posted(0, 1, 3));
            Fixture { history, store, ..made }.rules(judge)
        };
        assert_eq!(judged("store"), [""; 0]);
        assert_eq!(judged("worker:0"), ["g02.retried"]);
    }
}
