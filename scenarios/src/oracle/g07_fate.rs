//! G7 fates: once its author was told that a post is in its board, or cancelled, no question and no
//! cancel that begins later is told that nothing is known of it. Both are for good; a master that
//! cannot ask the store puts the question off.
//!
//! Runs in which the store was set back are left out: what it said then is not its last word.

use std::time::Duration;

use chatchat::{
    api::{PostState, StreamEvent},
    client::{Answer, Delivery, Failure, Request},
    model::{
        ids::{Post, PostId, UserId},
        stream::HeldState,
    },
};

use super::{Clue, Evidence, Violation, broken, line, stream_line};
use crate::{
    history::{History, Operation, StreamLog, Who},
    property::Property,
};

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    if evidence.is_set_back() {
        return found;
    }
    for operation in &evidence.history.operations {
        let (Request::Outcome { id } | Request::Cancel { id }, Some((_, Answer::Fate(None)))) =
            (&operation.request, operation.reply())
        else {
            continue;
        };
        if let Some(told) = told(evidence.history, operation.who, *id, operation.invoked) {
            let text = format!("the end of post {id} was told, and then nothing was known of it");
            found.push(broken(Property::G7, "fate", text, [told, line(operation)]));
        }
    }
    found
}

/// Returns where a session was told, before a time, that a post of its own is in its board or
/// cancelled.
fn told(history: &History, who: Who, id: PostId, before: Duration) -> Option<Clue> {
    let key = (*history.users.get(&who)?, id);
    let own = history.operations.iter().filter(|operation| operation.who == who);
    let mut answered = own.filter(|it| it.end.as_ref().is_some_and(|(at, _)| *at < before));
    if let Some(operation) = answered.find(|operation| tells(operation, key)) {
        return Some(line(operation));
    }
    let mut streams = history.streams.iter().filter(|stream| stream.who == who);
    streams.find_map(|stream| {
        let at = told_at(stream, key).filter(|at| *at < before)?;
        Some(stream_line(stream, at))
    })
}

/// Returns whether an answer to a post's author tells that it has come to an end.
fn tells(operation: &Operation, key: (UserId, PostId)) -> bool {
    let is_about_it = match &operation.request {
        Request::Post { id, .. } | Request::Outcome { id } | Request::Cancel { id } => *id == key.1,
        _ => false,
    };
    match (operation.reply(), operation.failure()) {
        (Some((_, Answer::Page(page))), _) => page.posts.iter().any(|post| is_it(post, key)),
        (Some((_, Answer::Posted(_))), _) => is_about_it,
        (Some((_, Answer::Fate(Some(state)))), _) => {
            is_about_it && matches!(state, PostState::Committed(_) | PostState::Cancelled { .. })
        }
        (_, Some((_, Failure::Refused { status: 410, .. }))) => is_about_it,
        _ => false,
    }
}

/// Returns when a stream of a post's author first tells that it has come to an end.
fn told_at(stream: &StreamLog, key: (UserId, PostId)) -> Option<Duration> {
    let tells = |delivery: &Delivery| match &delivery.event {
        StreamEvent::Post(post) => is_it(post, key),
        StreamEvent::Pending(event) => {
            event.id == key.1 && matches!(event.state, HeldState::Committed | HeldState::Cancelled)
        }
        _ => false,
    };
    stream.deliveries.iter().find(|(_, delivery)| tells(delivery)).map(|(at, _)| *at)
}

fn is_it(post: &Post, key: (UserId, PostId)) -> bool {
    (post.author.id, post.id) == key
}

#[cfg(test)]
mod tests {
    use chatchat::{api::PendingEvent, model::stream::Consistency};

    use super::*;
    use crate::oracle::fixtures::{Fixture, busy, delivered, id, located, posted, refused};

    fn outcome() -> Request {
        Request::Outcome { id: id(1) }
    }

    fn cancel() -> Request {
        Request::Cancel { id: id(1) }
    }

    fn fate(state: Option<PostState>) -> Result<Answer, Failure> {
        Ok(Answer::Fate(state))
    }

    fn cancelled() -> PostState {
        PostState::Cancelled { id: id(1) }
    }

    /// Makes a run in which the first person is told of the state of a post that was held.
    fn streamed(state: HeldState) -> Fixture {
        let mut made = Fixture::new();
        let event = PendingEvent { id: id(1), state };
        made.stream(0, 0, vec![(21_000, StreamEvent::Pending(event))]);
        made
    }

    /// Makes runs in which the first person is told at 21 s that its post has come to an end, each in
    /// another way.
    fn told_in_all_ways() -> Vec<Fixture> {
        let answered = |request, answer| {
            let mut made = Fixture::new();
            made.did(0, 20_000, 21_000, request, answer);
            made
        };
        let mut acked = Fixture::new();
        acked.acked(0, 1, 20_000, 21_000, 1);
        let mut read = Fixture::new();
        read.read(0, 20_000, 21_000, Consistency::Weak, &[(1, 7, 1), (0, 1, 2)]);
        let mut shown = Fixture::new();
        shown.stream(0, 0, vec![(20_500, delivered(1, 7, 1)), (21_000, delivered(0, 1, 2))]);
        vec![
            acked,
            read,
            shown,
            answered(outcome(), fate(Some(PostState::Committed(posted(0, 1, 1))))),
            answered(cancel(), fate(Some(PostState::Committed(posted(0, 1, 1))))),
            answered(cancel(), fate(Some(cancelled()))),
            answered(outcome(), fate(Some(cancelled()))),
            answered(Fixture::request(1), refused(410)),
            streamed(HeldState::Committed),
            streamed(HeldState::Cancelled),
        ]
    }

    #[test]
    fn end_that_was_told_and_is_unknown_later_is_reported() {
        for request in [outcome(), cancel()] {
            for (nth, mut made) in told_in_all_ways().into_iter().enumerate() {
                made.trouble(20_500, 40_000);
                made.did(0, 21_001, 21_100, request.clone(), fate(None));
                assert_eq!(located(&made.judge(judge)), ["g07.fate"], "{nth} {request:?}");
            }
        }
    }

    #[test]
    fn question_that_began_before_is_put_off_or_answered_with_the_end_is_accepted() {
        for mut made in told_in_all_ways() {
            made.did(0, 21_000, 21_100, outcome(), fate(None));
            made.did(0, 21_001, 21_100, outcome(), fate(Some(cancelled())));
            made.did(0, 21_001, 21_100, outcome(), busy(503)).asked(0, 21_001, outcome(), None);
            let status = Some(504);
            let why = "no outcome".to_owned();
            made.did(0, 21_001, 21_100, cancel(), Err(Failure::Unknown { status, why }));
            assert_eq!(made.judge(judge), []);
        }
    }

    #[test]
    fn question_about_a_post_that_may_have_no_end_yet_is_accepted() {
        for state in [HeldState::Pending, HeldState::DeadLetter, HeldState::Refused] {
            let mut made = streamed(state);
            made.did(0, 20_000, 20_100, Fixture::request(1), Ok(Answer::Pending { copies: 2 }));
            made.did(0, 20_200, 20_300, Fixture::request(1), refused(422));
            made.did(0, 20_400, 20_500, outcome(), fate(None)).unknown(0, 1, 20_600);
            made.did(0, 22_000, 22_100, outcome(), fate(None));
            assert_eq!(made.judge(judge), [], "{state:?}");
        }
    }

    #[test]
    fn question_of_somebody_else_or_about_another_post_is_accepted() {
        let mut made = Fixture::new();
        made.acked(1, 1, 20_000, 21_000, 1).acked(0, 2, 20_000, 21_000, 2);
        made.stream(0, 0, vec![(21_000, delivered(1, 1, 1)), (21_000, delivered(0, 2, 2))]);
        made.read(0, 20_000, 21_000, Consistency::Strong, &[(1, 1, 1), (0, 2, 2)]);
        made.did(0, 22_000, 22_100, outcome(), fate(None));
        assert_eq!(made.judge(judge), []);
        made.did(1, 22_000, 22_100, outcome(), fate(None));
        assert_eq!(located(&made.judge(judge)), ["g07.fate"]);
    }

    #[test]
    fn post_is_forgotten_by_a_store_that_was_set_back_only() {
        let judged = |kind: &str, keys: &str| {
            let mut made = Fixture::with_faults(&[(kind, keys, 20_000, 30_000)]);
            made.acked(0, 1, 18_000, 19_000, 1);
            made.did(0, 32_000, 32_100, outcome(), fate(None));
            located(&made.judge(judge))
        };
        assert_eq!(judged("rollback", "target = \"store\"\nby = \"5s\""), [""; 0]);
        for (kind, keys) in [
            ("rollback", "target = \"worker:0\"\nby = \"5s\""),
            ("store_promote", ""),
            ("crash", "target = \"store\""),
        ] {
            assert_eq!(judged(kind, keys), ["g07.fate"], "{kind}: it was acked");
        }
    }
}
