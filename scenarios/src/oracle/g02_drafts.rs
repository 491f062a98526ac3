//! G2, drafts and acks: a text that a person wrote once is there at most once, under whatever ids
//! it was sent; and every success of one post says the same, time included.

use std::{collections::BTreeMap, time::Duration};

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

/// Tries under an id that was acked for another post before: only a refusal is right.
fn conflicts(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut acked: BTreeMap<(UserId, PostId), (Sent<'_>, Duration)> = BTreeMap::new();
    let mut found = Vec::new();
    for sent in evidence.history.sent() {
        let Some(user) = sent.user else { continue };
        // A post that is only held is not taken yet: the store will say.
        let good = sent.operation.committed().map(|(at, _)| at);
        match (acked.get(&(user, sent.id)), good) {
            (Some((first, at)), Some(_))
                if *at < sent.operation.invoked
                    && (first.board, first.text) != (sent.board, sent.text) =>
            {
                let text = format!("id {} was taken for two posts", sent.id);
                let clues = [line(first.operation), line(sent.operation)];
                found.push(broken(Property::G2, "conflict", text, clues));
            }
            (None, Some(at)) => {
                acked.insert((user, sent.id), (sent, at));
            }
            _ => {}
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
        client::{Answer, Request},
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
