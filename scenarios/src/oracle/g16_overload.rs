//! G16 overload is explicit: 429 and 503 carry `Retry-After`, and each of them, as every refusal,
//! means that this very request did nothing, whatever came later.
//!
//! A post was there before its first try that may have done something: then one of the tries that
//! were said to have done nothing made it. The same goes for a cancel, a board and a log-out.

use std::{collections::BTreeMap, time::Duration};

use chatchat::{
    api::PostState,
    client::{Answer, Failure, Request},
    model::ids::{BoardName, PostId, UserId},
};

use super::{Evidence, Violation, broken, line, told::Told, told::listed};
use crate::{
    history::{Operation, Sent},
    property::Property,
};

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut found = posts(evidence);
    found.extend(others(evidence));
    for operation in &evidence.history.operations {
        if let Some((_, Failure::Busy { retry_after: None, .. })) = operation.failure() {
            let text = "a request was put off without Retry-After";
            found.push(broken(Property::G16, "retry-after", text, [line(operation)]));
        }
    }
    found
}

fn posts(evidence: &Evidence<'_>) -> Vec<Violation> {
    let told = Told::read(evidence.history);
    let mut tries: BTreeMap<(UserId, PostId), Vec<Sent<'_>>> = BTreeMap::new();
    for sent in evidence.history.sent() {
        if let Some(user) = sent.user {
            tries.entry((user, sent.id)).or_default().push(sent);
        }
    }
    let mut found = Vec::new();
    for post in evidence.store.boards.values().flatten() {
        let Some(sent) = tries.get(&(post.author.id, post.id)) else { continue };
        let acting = sent.iter().filter(|one| !one.operation.did_nothing());
        let since = told.since(&post.board, post.seq);
        let text = match (acting.map(|one| one.operation.invoked).min(), since) {
            (None, _) => format!(
                "post {} is {} {}, and every try was said to have done nothing",
                post.id, post.board, post.seq
            ),
            (Some(first), Some(since)) if since < first => format!(
                "post {} was {} {} by {since:?}; all tries before {first:?} were said to have \
                 done nothing",
                post.id, post.board, post.seq
            ),
            _ => continue,
        };
        let clues = sent.iter().map(|one| line(one.operation));
        found.push(broken(Property::G16, "did-something", text, clues));
    }
    found
}

/// Cancels, boards and log-outs that only requests can have made that did nothing.
fn others(evidence: &Evidence<'_>) -> Vec<Violation> {
    let operations = &evidence.history.operations;
    let may_have = |by: Duration, is_it: &dyn Fn(&Operation) -> bool| {
        operations.iter().any(|op| op.invoked <= by && !op.did_nothing() && is_it(op))
    };
    let mut found = Vec::new();
    for operation in operations {
        let cancelled = match (&operation.request, &operation.reply(), operation.failure()) {
            (_, Some((at, Answer::Fate(Some(PostState::Cancelled { id })))), _) => Some((*at, *id)),
            (Request::Post { id, .. }, _, Some((at, Failure::Refused { status: 410, .. }))) => {
                Some((at, *id))
            }
            _ => None,
        };
        if let Some((at, id)) = cancelled
            && !may_have(at, &|op| {
                op.who.person == operation.who.person && op.request == Request::Cancel { id }
            })
        {
            let text = format!("post {id} is cancelled, and no cancel may have done that");
            found.push(broken(Property::G16, "cancelled", text, [line(operation)]));
        }
        let Some((at, _)) = operation.reply() else { continue };
        for board in listed(operation).iter().filter(|board| board.name != BoardName::lobby()) {
            let create = Request::CreateBoard { board: board.name.clone() };
            if !may_have(at, &|op| op.request == create) {
                let text = format!("{} is there, and no request may have made it", board.name);
                found.push(broken(Property::G16, "board", text, [line(operation)]));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use chatchat::api::Problem;

    use super::*;
    use crate::oracle::fixtures::{Fixture, busy, delivered, id, refused};

    #[test]
    fn post_refused_for_overload_and_sent_again_is_accepted() {
        let mut made = Fixture::new();
        made.did(0, 100, 200, Fixture::request(1), busy(503));
        assert_eq!(made.judge(judge), []);
        made.acked(0, 1, 300, 400, 1).stored(0, 1);
        made.stream(1, 0, vec![(350, delivered(0, 1, 1))]);
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

    #[test]
    fn post_that_was_there_before_it_was_sent_again_is_reported() {
        let mut made = Fixture::new();
        made.did(0, 100, 200, Fixture::request(1), busy(503)).stored(0, 1);
        made.stream(1, 0, vec![(250, delivered(0, 1, 1))]);
        made.acked(0, 1, 300, 400, 1);
        assert_eq!(made.judge(judge).len(), 1, "shown before");
        let mut made = Fixture::new();
        made.did(0, 100, 200, Fixture::request(1), busy(503)).stored(0, 1).stored(1, 2);
        made.acked(1, 2, 210, 250, 2).acked(0, 1, 300, 400, 1);
        assert_eq!(made.judge(judge).len(), 1, "what stands after it was acked before");
    }

    #[test]
    fn cancel_or_board_that_was_put_off_and_is_there_is_reported() {
        let mut made = Fixture::new();
        made.did(0, 100, 200, Request::Cancel { id: id(1) }, busy(503));
        made.did(0, 300, 400, Fixture::request(1), refused(410));
        assert_eq!(made.judge(judge).len(), 1);
        made.asked(0, 290, Request::Cancel { id: id(1) }, None);
        assert_eq!(made.judge(judge), [], "this one may have done it");
    }
}
