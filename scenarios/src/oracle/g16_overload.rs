//! G16 overload is explicit: 429 and 503 carry `Retry-After` and mean that this request did
//! nothing: a post of which every try was turned away is nowhere.

use std::collections::BTreeMap;

use chatchat::{
    client::Failure,
    model::ids::{PostId, UserId},
};

use super::{Evidence, Violation, broken, line};
use crate::{history::Sent, property::Property};

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut tries: BTreeMap<(UserId, PostId), Vec<Sent<'_>>> = BTreeMap::new();
    for sent in evidence.history.sent() {
        if let Some(user) = sent.user {
            tries.entry((user, sent.id)).or_default().push(sent);
        }
    }
    for post in evidence.store.boards.values().flatten() {
        let Some(sent) = tries.get(&(post.author.id, post.id)) else { continue };
        if sent.iter().all(|one| one.operation.did_nothing()) {
            let text = format!(
                "post {} is {} {}, and every try was said to have done nothing",
                post.id, post.board, post.seq
            );
            let clues = sent.iter().map(|one| line(one.operation));
            found.push(broken(Property::G16, "did-something", text, clues));
        }
    }
    for operation in &evidence.history.operations {
        if let Some((_, Failure::Busy { retry_after: None, .. })) = operation.failure() {
            let text = "a request was put off without Retry-After";
            found.push(broken(Property::G16, "retry-after", text, [line(operation)]));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use chatchat::api::Problem;

    use super::*;
    use crate::oracle::fixtures::{Fixture, busy};

    #[test]
    fn post_refused_for_overload_and_sent_again_is_accepted() {
        let mut made = Fixture::new();
        made.did(0, 100, 200, Fixture::request(1), busy(503));
        assert_eq!(made.judge(judge), []);
        made.acked(0, 1, 300, 400, 1).stored(0, 1);
        assert_eq!(made.judge(judge), []);
    }

    #[test]
    fn post_that_was_only_refused_and_is_stored_is_reported() {
        let mut made = Fixture::new();
        made.did(0, 100, 200, Fixture::request(1), busy(503)).stored(0, 1);
        assert_eq!(made.judge(judge).len(), 1);
        let rude = Failure::Busy { status: 429, problem: Problem::default(), retry_after: None };
        made.did(0, 100, 200, Fixture::request(2), Err(rude));
        assert_eq!(made.judge(judge).len(), 2);
    }
}
