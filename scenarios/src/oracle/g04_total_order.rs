//! G4 total order: in a board `seq` is 1..n, no hole, no repeat, the same for every reader. If A
//! was acked before B's id was first sent by anyone, `seq(A) < seq(B)`. Posts of one client to one
//! board stand in the order in which it wrote them.

use std::{collections::BTreeMap, time::Duration};

use chatchat::{
    api::StreamEvent,
    client::Answer,
    model::ids::{BoardName, Post, PostId, Seq, UserId},
};

use super::{Clue, Evidence, Violation, broken, line, seconds, stream_line, traces};
use crate::{
    history::{History, Operation, Who},
    property::Property,
};

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut found = numbering(evidence);
    found.extend(readers(evidence));
    found.extend(real_time(evidence));
    found.extend(writers(evidence));
    found
}

/// 1..n, and time stands still or goes on.
fn numbering(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for (board, posts) in &evidence.store.boards {
        for (nth, post) in (1..).zip(posts) {
            if post.seq != Seq(nth) {
                let text = format!("{board} has {} where {nth} belongs", post.seq);
                let mut clues = vec![Clue::from(post.id.to_string())];
                clues.extend(traces(evidence, &found, post));
                found.push(broken(Property::G4, "numbering", text, clues));
                break;
            }
        }
        for pair in posts.windows(2) {
            if pair[1].posted_at_ms < pair[0].posted_at_ms {
                let text = format!("{board}: the time falls at {}", pair[1].seq);
                let mut clues = vec![Clue::from(pair[1].id.to_string())];
                clues.extend(pair.iter().flat_map(|post| traces(evidence, &found, post)));
                found.push(broken(Property::G4, "time", text, clues));
            }
        }
    }
    found
}

/// Checks that every reader was shown what the store holds at each place.
fn readers(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut check = |shown: &Post, by: &dyn Fn() -> Clue| {
        let stands = evidence.store.post_at(&shown.board, shown.seq);
        if !stands.is_some_and(|stands| is_same(stands, shown)) {
            let there = stands.map_or_else(|| "nothing".to_owned(), |post| post.id.to_string());
            let text = format!(
                "{} {} was shown as {}, the store has {there}",
                shown.board, shown.seq, shown.id
            );
            found.push(broken(Property::G4, "shown", text, [by()]));
        }
    };
    for operation in &evidence.history.operations {
        if let Some((_, Answer::Page(page))) = operation.reply() {
            page.posts.iter().for_each(|post| check(post, &|| line(operation)));
        }
    }
    for stream in &evidence.history.streams {
        for (at, delivery) in &stream.deliveries {
            if let StreamEvent::Post(post) = &delivery.event {
                check(post, &|| stream_line(stream, *at));
            }
        }
    }
    for operation in &evidence.history.operations {
        if let Some((_, Answer::Page(page))) = operation.reply()
            && page.posts.windows(2).any(|pair| pair[1].seq != pair[0].seq.next())
        {
            let text = "a page has a hole or a repeat";
            found.push(broken(Property::G4, "page", text, [line(operation)]));
        }
    }
    found
}

fn is_same(stands: &Post, shown: &Post) -> bool {
    stands.id == shown.id
        && stands.author == shown.author
        && stands.text == shown.text
        && stands.posted_at_ms == shown.posted_at_ms
}

/// Try with which a post was first sent by anyone, and the one that was acked first, with the time.
#[derive(Clone, Copy)]
struct Tries<'a> {
    first: &'a Operation,
    acked: Option<(Duration, &'a Operation)>,
}

fn tries<'a>(evidence: &Evidence<'a>) -> BTreeMap<(UserId, PostId), Tries<'a>> {
    let history: &'a History = evidence.history;
    let mut tries: BTreeMap<(UserId, PostId), Tries<'a>> = BTreeMap::new();
    for sent in history.sent() {
        let Some(user) = sent.user else { continue };
        let first = sent.operation;
        let entry = tries.entry((user, sent.id)).or_insert(Tries { first, acked: None });
        if first.invoked < entry.first.invoked {
            entry.first = first;
        }
        if let Some((at, _)) = sent.operation.committed()
            && entry.acked.is_none_or(|(acked, _)| at < acked)
        {
            entry.acked = Some((at, sent.operation));
        }
    }
    tries
}

/// Walks each board from its end: nothing may stand before what was acked before it was sent.
fn real_time(evidence: &Evidence<'_>) -> Vec<Violation> {
    let tries = tries(evidence);
    let mut found = Vec::new();
    for (board, posts) in &evidence.store.boards {
        let mut earliest_ack: Option<(Duration, &Operation, &Post)> = None;
        for post in posts.iter().rev() {
            let Some(of) = tries.get(&(post.author.id, post.id)) else { continue };
            if let Some((acked, by, later)) = earliest_ack
                && acked < of.first.invoked
            {
                let text = format!(
                    "{board}: {} was acked at {} before {} was sent, and stands after it",
                    later.seq,
                    seconds(acked),
                    post.seq
                );
                let clues = [line(by), line(of.first)];
                found.push(broken(Property::G4, "real-time", text, clues));
            }
            if let Some((acked, by)) = of.acked
                && earliest_ack.is_none_or(|(earliest, ..)| acked < earliest)
            {
                earliest_ack = Some((acked, by, post));
            }
        }
    }
    found
}

/// One client's posts in one board, as first sent, stand ascending.
fn writers(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut stands: BTreeMap<(UserId, PostId), &Post> = BTreeMap::new();
    for post in evidence.store.boards.values().flatten() {
        stands.insert((post.author.id, post.id), post);
    }
    // Two unsettled posts of one client are in no order.
    let contested = evidence.history.contested();
    let mut last: BTreeMap<(Who, &BoardName), (Seq, PostId)> = BTreeMap::new();
    let mut found = Vec::new();
    // The history lists tries in the order in which they began.
    for sent in evidence.history.sent() {
        let key = sent.user.map(|user| (user, sent.id)).filter(|key| !contested.contains(key));
        let post = key.and_then(|key| stands.get(&key));
        // An id that was sent with another text or to another board is no second post.
        let is_it = |post: &&&Post| post.board == *sent.board && post.text == *sent.text;
        let Some(seq) = post.filter(is_it).map(|post| &post.seq) else { continue };
        let key = (sent.operation.who, sent.board);
        match last.get(&key) {
            Some((_, id)) if *id == sent.id => {}
            Some((before, id)) if before > seq && !was_sent_before(evidence, &sent, *id) => {
                let text = format!(
                    "{} wrote {id} before {}, and it stands after it in {}",
                    key.0, sent.id, sent.board
                );
                found.push(broken(Property::G4, "writer", text, [line(sent.operation)]));
            }
            _ => {
                last.insert(key, (*seq, sent.id));
            }
        }
    }
    found
}

/// Returns whether this id was first sent before `other` was: then a resend does not count.
fn was_sent_before(
    evidence: &Evidence<'_>,
    sent: &crate::history::Sent<'_>,
    other: PostId,
) -> bool {
    let mine = |one: &crate::history::Sent<'_>| one.operation.who == sent.operation.who;
    let first = evidence.history.sent().find(|o| mine(o) && (o.id == sent.id || o.id == other));
    first.is_some_and(|first| first.id == sent.id)
}

#[cfg(test)]
mod tests {
    use chatchat::{client::Request, model::stream::Consistency};

    use super::*;
    use crate::oracle::{
        Point,
        fixtures::{Fixture, delivered, located, refused},
    };

    #[test]
    fn concurrent_posts_in_either_order_are_accepted() {
        let mut made = Fixture::new();
        made.acked(0, 1, 100, 300, 2).acked(1, 2, 200, 400, 1).stored(1, 2).stored(0, 1);
        made.read(2, 500, 600, Consistency::Strong, &[(1, 2, 1), (0, 1, 2)]);
        made.stream(2, 1, vec![(700, delivered(0, 1, 2))]);
        // A resend of an earlier post is no later post.
        made.unknown(3, 3, 700).acked(3, 4, 900, 950, 4).stored(3, 3).stored(3, 4);
        made.acked(3, 3, 960, 970, 3);
        assert_eq!(made.judge(judge), []);
    }

    #[test]
    fn holes_repeats_and_differing_readers_are_reported() {
        let mut made = Fixture::new();
        made.stored_at(0, 1, 1).stored_at(0, 2, 3).unknown(0, 2, 10);
        assert_eq!(located(&made.judge(judge)), ["g04.numbering"], "a hole");
        let mut made = Fixture::new();
        made.stored(0, 1).read(1, 10, 20, Consistency::Weak, &[(0, 2, 1)]);
        assert_eq!(made.rules(judge), ["g04.shown"], "another post was shown");
        let mut made = Fixture::new();
        made.stored(0, 1).stored(0, 2).stored(0, 3);
        made.read(1, 10, 20, Consistency::Strong, &[(0, 1, 1), (0, 3, 3)]);
        assert_eq!(made.rules(judge), ["g04.page"], "a page with a hole");
        let mut made = Fixture::new();
        made.stream(0, 0, vec![(20, delivered(0, 1, 1))]);
        assert_eq!(made.rules(judge), ["g04.shown"], "shown and not there");
    }

    #[test]
    fn time_that_falls_from_a_post_to_the_next_is_reported() {
        let later_by = |more: u64| {
            let mut made = Fixture::with_posts(3);
            let posts = made.store.boards.get_mut(&BoardName::lobby()).expect("stored above");
            posts[0].posted_at_ms += more;
            made.rules(judge)
        };
        assert_eq!(later_by(1), [""; 0], "it stands still");
        assert_eq!(later_by(2), ["g04.time"]);
    }

    #[test]
    fn post_before_one_that_was_acked_earlier_is_reported() {
        let mut made = Fixture::new();
        made.acked(0, 1, 100, 200, 2).acked(1, 2, 300, 400, 1).stored(1, 2).stored(0, 1);
        let told = made.judge(judge);
        assert_eq!(located(&told), ["g04.real-time"]);
        let points: Vec<_> = told[0].evidence.iter().map(|clue| clue.point).collect();
        assert_eq!(points, [Some(Point::Operation(0)), Some(Point::Operation(1))]);
    }

    #[test]
    fn time_that_falls_is_reported() {
        let mut made = Fixture::new();
        made.unknown(0, 1, 10).unknown(1, 2, 20).stored(0, 1).stored(1, 2);
        let posts = made.store.boards.get_mut(&BoardName::lobby()).expect("stored above");
        posts[0].posted_at_ms += 10;
        assert_eq!(located(&made.judge(judge)), ["g04.time"]);
    }

    #[test]
    fn posts_of_one_client_out_of_order_are_reported() {
        let mut made = Fixture::new();
        made.unknown(0, 1, 100).acked(0, 2, 200, 300, 1).stored(0, 2).stored(0, 1);
        assert_eq!(made.rules(judge), ["g04.writer"]);
    }

    #[test]
    fn post_whose_id_was_sent_for_two_before_either_was_settled_is_in_no_order() {
        let sent_again_at = |at: u64| {
            let mut made = Fixture::new();
            let Request::Post { board, id, .. } = Fixture::request(1) else { panic!("a post") };
            let other = Request::Post { board, id, text: "other".parse().unwrap() };
            made.acked(0, 1, 100, 400, 2).acked(0, 2, 200, 300, 1).stored(0, 2).stored(0, 1);
            made.did(0, at, at + 50, other, refused(422));
            made.rules(judge)
        };
        assert_eq!(sent_again_at(350), [""; 0]);
        assert_eq!(sent_again_at(450), ["g04.writer"], "it was settled");
    }
}
