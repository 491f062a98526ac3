//! G2 exactly once: the same `(user, post id)` sent any number of times, through any masters,
//! makes one post; every success returns the same `seq`; nothing is there that nobody sent.

use std::collections::BTreeMap;

use chatchat::model::ids::{Post, PostId, UserId};

use super::{Clue, Evidence, Violation, broken, line, traces};
use crate::{
    history::{Operation, Sent},
    property::Property,
};

type Key = (UserId, PostId);

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut sent: BTreeMap<Key, Vec<Sent<'_>>> = BTreeMap::new();
    for one in evidence.history.sent() {
        if let Some(user) = one.user {
            sent.entry((user, one.id)).or_default().push(one);
        }
    }
    let mut stands: BTreeMap<Key, &Post> = BTreeMap::new();
    for post in evidence.store.boards.values().flatten() {
        let key = (post.author.id, post.id);
        let place =
            Clue::from(format!("{} {}: {} of {}", post.board, post.seq, post.id, post.author.name));
        if let Some(first) = stands.insert(key, post) {
            let other = Clue::from(format!("{} {}: the same", first.board, first.seq));
            let mut clues = vec![other, place.clone()];
            clues.extend(traces(evidence, &found, post));
            found.push(broken(Property::G2, "twice", "a post is there twice", clues));
        }
        let (rule, text) = match sent.get(&key) {
            None => ("invented", "a post is there that nobody sent"),
            Some(tries) => {
                if tries.iter().any(|one| *one.board == post.board && *one.text == post.text) {
                    continue;
                }
                ("changed", "a post is there that was sent otherwise")
            }
        };
        let mut clues = vec![place];
        clues.extend(traces(evidence, &found, post));
        found.push(broken(Property::G2, rule, text, clues));
    }
    let mut told: BTreeMap<Key, (&Post, &Operation)> = BTreeMap::new();
    for operation in &evidence.history.operations {
        let user = evidence.history.users.get(&operation.who);
        let (Some((_, post)), Some(user)) = (operation.committed(), user) else { continue };
        let (said, first) = *told.entry((*user, post.id)).or_insert((post, operation));
        if (&said.board, said.seq) != (&post.board, post.seq) {
            let text = format!(
                "post {} was told to be {} {} and {} {}",
                post.id, said.board, said.seq, post.board, post.seq
            );
            found.push(broken(Property::G2, "moved", text, [line(first), line(operation)]));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use chatchat::model::{ids::BoardName, stream::Consistency};

    use super::*;
    use crate::oracle::fixtures::{Fixture, located, text};

    #[test]
    fn post_sent_often_and_stored_once_is_accepted() {
        let mut made = Fixture::new();
        made.unknown(0, 1, 100).acked(0, 1, 200, 300, 1).acked(0, 1, 200, 400, 1).stored(0, 1);
        // One id of two people is two posts.
        made.acked(1, 1, 500, 600, 2).stored(1, 1);
        // An unknown one may be there or not.
        made.unknown(2, 3, 700).stored(2, 3).unknown(2, 4, 800);
        assert_eq!(made.judge(judge), []);
    }

    #[test]
    fn doubled_invented_changed_and_moving_posts_are_reported() {
        let mut made = Fixture::new();
        made.unknown(0, 1, 100).stored(0, 1).stored(0, 1);
        assert_eq!(located(&made.judge(judge)), ["g02.twice"]);
        let mut made = Fixture::new();
        made.stored(0, 1).read(1, 100, 200, Consistency::Strong, &[(0, 1, 1)]);
        assert_eq!(located(&made.judge(judge)), ["g02.invented"]);
        let mut made = Fixture::new();
        made.unknown(0, 1, 100).stored(0, 1);
        let posts = made.store.boards.get_mut(&BoardName::lobby()).expect("stored above");
        posts[0].text = "other".parse().unwrap();
        assert_eq!(located(&made.judge(judge)), ["g02.changed"]);
        let mut made = Fixture::new();
        made.acked(0, 1, 100, 200, 1).acked(0, 1, 300, 400, 2).stored(0, 1);
        assert_eq!(located(&made.judge(judge)), ["g02.moved"]);
    }

    #[test]
    fn post_that_stands_otherwise_than_it_was_sent_is_reported() {
        let changed = |change: fn(&mut Post)| {
            let mut made = Fixture::new();
            made.unknown(0, 1, 100).stored(0, 1);
            made.store.boards.values_mut().flatten().for_each(change);
            made.rules(judge)
        };
        assert_eq!(changed(|_| {}), [""; 0]);
        assert_eq!(changed(|post| post.text = text(2).parse().unwrap()), ["g02.changed"]);
        assert_eq!(changed(|post| post.board = "dev".parse().unwrap()), ["g02.changed"]);
    }
}
