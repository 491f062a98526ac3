//! G2, drafts and acks: a text that a person wrote once is there at most once, under whatever ids
//! it was sent; every success of one post says the same, time included; and a success is of the very
//! text and board that were asked for.

use std::collections::BTreeMap;

use chatchat::model::ids::{Post, PostId, UserId};

use super::{Clue, Evidence, Violation, broken, line, traces};
use crate::{history::Sent, property::Property};

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut found = drafts(evidence);
    found.extend(conflicts(evidence));
    for operation in &evidence.history.operations {
        let Some((_, said)) = operation.committed() else { continue };
        let kept = evidence.store.post_at(&said.board, said.seq).filter(|kept| kept.id == said.id);
        // A post that is not there is lost (G1).
        let Some(kept) = kept else { continue };
        if kept.posted_at_ms != said.posted_at_ms {
            let text = format!(
                "post {} was said to be of {}, it is of {}",
                said.id, said.posted_at_ms, kept.posted_at_ms
            );
            found.push(broken(Property::G2, "posted-at", text, [line(operation)]));
        }
    }
    found
}

/// Successes of what was not asked: the answer, an earlier success or the store has another text or board
/// for the id. Only a refusal is right then, whichever of two tries came first.
fn conflicts(evidence: &Evidence<'_>) -> Vec<Violation> {
    let posts = evidence.store.boards.values().flatten();
    let stands: BTreeMap<(UserId, PostId), &Post> =
        posts.map(|post| ((post.author.id, post.id), post)).collect();
    let mut acked: BTreeMap<(UserId, PostId), Sent<'_>> = BTreeMap::new();
    let mut found = Vec::new();
    for sent in evidence.history.sent() {
        // A post that is only held is not taken yet: the store will say.
        let Some((_, said)) = sent.operation.committed() else { continue };
        if (said.id, &said.board, &said.text) != (sent.id, sent.board, sent.text) {
            let text = format!("id {} was sent for one post and acked for another", sent.id);
            found.push(broken(Property::G2, "conflict", text, [line(sent.operation)]));
            continue;
        }
        let Some(user) = sent.user else { continue };
        let key = (user, sent.id);
        let first = *acked.entry(key).or_insert(sent);
        let is_kept_otherwise = stands
            .get(&key)
            .is_some_and(|kept| (&kept.board, &kept.text) != (sent.board, sent.text));
        if (first.board, first.text) != (sent.board, sent.text) {
            let text = format!("id {} was taken for two posts", sent.id);
            let clues = [line(first.operation), line(sent.operation)];
            found.push(broken(Property::G2, "conflict", text, clues));
        } else if is_kept_otherwise {
            let text = format!("id {} was acked for a post and stands for another", sent.id);
            found.push(broken(Property::G2, "conflict", text, [line(sent.operation)]));
        }
    }
    found
}

fn drafts(evidence: &Evidence<'_>) -> Vec<Violation> {
    let history = evidence.history;
    let mut written: BTreeMap<(usize, &str), usize> = BTreeMap::new();
    for draft in &history.drafts {
        *written.entry((draft.person, draft.text.as_str())).or_insert(0) += 1;
    }
    let people: BTreeMap<UserId, usize> =
        history.users.iter().map(|(who, user)| (*user, who.person)).collect();
    let mut stands: BTreeMap<(usize, &str), Vec<&Post>> = BTreeMap::new();
    for post in evidence.store.boards.values().flatten() {
        // One of nobody's is judged with what was sent.
        let Some(person) = people.get(&post.author.id) else { continue };
        stands.entry((*person, post.text.as_str())).or_default().push(post);
    }
    let mut found = Vec::new();
    for ((person, text), posts) in stands {
        let Some(count) = written.get(&(person, text)) else { continue };
        if posts.len() > *count {
            let said =
                format!("person:{person} wrote a text {count} times, it is there more often");
            let show =
                |post: &&Post| Clue::from(format!("{} {}: {}", post.board, post.seq, post.id));
            let mut clues: Vec<_> = posts.iter().map(show).collect();
            clues.extend(posts.iter().take(4).flat_map(|post| traces(evidence, &found, post)));
            found.push(broken(Property::G2, "draft", said, clues));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use chatchat::{
        client::{Answer, Failure, Request},
        model::ids::BoardName,
    };

    use super::*;
    use crate::{
        history::Draft,
        oracle::fixtures::{Fixture, located, posted, refused, text},
    };

    fn drafted(made: &mut Fixture, person: usize, n: u8) {
        made.history.drafts.push(Draft { person, text: text(n).parse().unwrap() });
    }

    #[test]
    fn text_that_is_there_as_often_as_it_was_written_is_accepted() {
        let mut made = Fixture::new();
        drafted(&mut made, 0, 1);
        drafted(&mut made, 1, 1);
        made.acked(0, 1, 100, 200, 1).acked(0, 1, 250, 300, 1).stored(0, 1).stored(1, 1);
        assert_eq!(made.judge(judge), []);
    }

    #[test]
    fn id_that_was_acked_for_another_text_is_reported() {
        for (status, found) in [(422, 0), (201, 1)] {
            let mut made = Fixture::new();
            made.acked(0, 1, 100, 200, 1).stored(0, 1);
            let Request::Post { board, id, .. } = Fixture::request(1) else { panic!("a post") };
            let other = Request::Post { board, id, text: "other".parse().unwrap() };
            let answer = match status {
                201 => Ok(Answer::Posted(posted(0, 1, 1))),
                _ => refused(status),
            };
            made.did(0, 300, 400, other, answer);
            assert_eq!(made.breaks(judge, "g02.conflict"), found, "{status}");
        }
    }

    /// Two tries of one id at the same time, the second one with another text or board, which is answered so.
    fn raced(change: fn(&mut Post), answer: fn(Post) -> Result<Answer, Failure>) -> Fixture {
        let mut other = posted(0, 1, 1);
        change(&mut other);
        let (board, text) = (other.board.clone(), other.text.clone());
        let request = Request::Post { board, id: other.id, text };
        let mut made = Fixture::new();
        made.acked(0, 1, 100, 300, 1).stored(0, 1);
        made.did(0, 110, 290, request, answer(other));
        made
    }

    fn to_text(post: &mut Post) {
        post.text = "other".parse().unwrap();
    }

    fn to_board(post: &mut Post) {
        post.board = "dev".parse().unwrap();
    }

    #[test]
    fn two_posts_under_one_id_at_the_same_time_are_taken_once() {
        let changes: [fn(&mut Post); 2] = [to_text, to_board];
        for change in changes {
            let judged = |answer: fn(Post) -> Result<Answer, Failure>| {
                raced(change, answer).breaks(judge, "g02.conflict")
            };
            assert_eq!(judged(|_| refused(422)), 0, "one of them is refused");
            assert_eq!(judged(|_| Ok(Answer::Pending { copies: 2 })), 0, "the store will say");
            assert_eq!(
                judged(|_| Ok(Answer::Posted(posted(0, 1, 1)))),
                1,
                "as if it were the other"
            );
            assert_eq!(judged(|other| Ok(Answer::Posted(other))), 1, "both are taken");
        }
        let same = raced(|_| (), |other| Ok(Answer::Posted(other)));
        assert_eq!(same.judge(judge), [], "the same post twice is one");
    }

    #[test]
    fn success_of_what_stands_otherwise_is_reported() {
        let judged = |change: fn(&mut Post)| {
            let mut made = Fixture::new();
            made.acked(0, 1, 100, 200, 1).stored(0, 1);
            made.store.boards.values_mut().flatten().for_each(change);
            made.breaks(judge, "g02.conflict")
        };
        assert_eq!((judged(|_| ()), judged(to_text), judged(to_board)), (0, 1, 1));
    }

    #[test]
    fn text_under_two_ids_and_other_time_of_an_ack_are_reported() {
        let mut made = Fixture::new();
        drafted(&mut made, 0, 1);
        made.unknown(0, 1, 100).unknown(0, 2, 200).stored(0, 1).stored(0, 2);
        let posts = made.store.boards.get_mut(&BoardName::lobby()).expect("stored above");
        posts[1].text = posts[0].text.clone();
        assert_eq!(located(&made.judge(judge)), ["g02.draft"]);
        let mut made = Fixture::new();
        made.acked(0, 1, 100, 200, 1).stored(0, 1);
        let posts = made.store.boards.get_mut(&BoardName::lobby()).expect("stored above");
        posts[0].posted_at_ms += 1;
        assert_eq!(located(&made.judge(judge)), ["g02.posted-at"]);
    }
}
