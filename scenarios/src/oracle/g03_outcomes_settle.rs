//! G3 outcomes settle: with everything healed, a resend settles every post within its bound, and
//! what was cancelled or refused never appears, however its author was told.
//!
//! 1. Cancelled is what a cancel, a question, the 410 of a send or a stream calls so. It is for good.
//! 2. Refused is what the 422 of a send or a stream calls so. It means that the id stands for another text
//!    or board, so it is judged where the author sent no other one under this id.
//! 3. A dead letter may appear: its author, an operator or a holder sends it again.
//! 4. What sends and streams tell is not judged in runs in which the store was set back.

use std::collections::{BTreeMap, BTreeSet};

use chatchat::{
    api::PostState,
    client::{Answer, Failure, Request},
    model::{
        ids::{BoardName, Post, PostId, PostText, UserId},
        stream::HeldState,
    },
};

use super::{Clue, Evidence, TOLD_MAX, Violation, broken, deed, line, stream_line};
use crate::{
    history::{Operation, Stuck},
    property::Property,
};

type Key = (UserId, PostId);

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let stuck = evidence.history.stuck.iter().take(TOLD_MAX);
    let stuck = stuck.map(|stuck| {
        broken(Property::G3, "stuck", stuck.what.clone(), last_tries(evidence, stuck))
    });
    let mut found: Vec<_> = stuck.collect();
    let posts = evidence.store.boards.values().flatten();
    let stands: BTreeMap<Key, &Post> =
        posts.map(|post| ((post.author.id, post.id), post)).collect();
    let ambiguous = ambiguous(evidence);
    let set_back = evidence.is_set_back();
    for operation in &evidence.history.operations {
        let Some((id, rule)) = told(operation) else { continue };
        let Some(user) = evidence.history.users.get(&operation.who) else { continue };
        let key = (*user, id);
        let is_send = matches!(operation.request, Request::Post { .. });
        if is_send && set_back || rule == "refused" && ambiguous.contains(&key) {
            continue;
        }
        if let Some(post) = stands.get(&key) {
            found.push(appeared(rule, post, line(operation)));
        }
    }
    if !set_back {
        found.extend(streams(evidence, &stands, &ambiguous));
    }
    found
}

/// Returns the post that an answer says never appears, and the rule that is broken if it does.
fn told(operation: &Operation) -> Option<(PostId, &'static str)> {
    match (&operation.request, operation.reply(), operation.failure()) {
        (
            Request::Cancel { id } | Request::Outcome { id },
            Some((_, Answer::Fate(Some(PostState::Cancelled { .. })))),
            _,
        ) => Some((*id, "cancelled")),
        (Request::Post { id, .. }, _, Some((_, Failure::Refused { status: 410, .. }))) => {
            Some((*id, "cancelled"))
        }
        (Request::Post { id, .. }, _, Some((_, Failure::Refused { status: 422, .. }))) => {
            Some((*id, "refused"))
        }
        _ => None,
    }
}

/// Posts that stand though a stream told their author that they never appear.
fn streams(
    evidence: &Evidence<'_>,
    stands: &BTreeMap<Key, &Post>,
    ambiguous: &BTreeSet<Key>,
) -> Vec<Violation> {
    let mut found = Vec::new();
    for told in evidence.history.states_told() {
        let rule = match told.state {
            HeldState::Cancelled => "cancelled",
            HeldState::Refused if !ambiguous.contains(&told.key) => "refused",
            HeldState::Refused
            | HeldState::DeadLetter
            | HeldState::Pending
            | HeldState::Committed => continue,
        };
        if let Some(post) = stands.get(&told.key) {
            found.push(appeared(rule, post, stream_line(told.stream, told.at)));
        }
    }
    found
}

fn appeared(rule: &'static str, post: &Post, told: Clue) -> Violation {
    let Post { id, board, seq, .. } = post;
    let text = format!("post {id} was {rule}, as its author was told, and is {board} {seq}");
    broken(Property::G3, rule, text, [told])
}

/// Returns the ids that were sent with more than one text or board.
fn ambiguous(evidence: &Evidence<'_>) -> BTreeSet<Key> {
    let mut first: BTreeMap<Key, (&BoardName, &PostText)> = BTreeMap::new();
    let mut ambiguous = BTreeSet::new();
    for sent in evidence.history.sent() {
        let Some(user) = sent.user else { continue };
        let key = (user, sent.id);
        if *first.entry(key).or_insert((sent.board, sent.text)) != (sent.board, sent.text) {
            ambiguous.insert(key);
        }
    }
    ambiguous
}

/// Returns the last operations about what a person could not settle, and when it gave up.
fn last_tries(evidence: &Evidence<'_>, stuck: &Stuck) -> Vec<Clue> {
    let is_about = |id: PostId| stuck.post.is_none_or(|post| post == id);
    let is_try = |operation: &&Operation| {
        let is_its = match &operation.request {
            Request::Post { id, .. } | Request::Cancel { id } | Request::Outcome { id } => {
                is_about(*id)
            }
            _ => stuck.post.is_none(),
        };
        operation.who.person == stuck.person && operation.invoked <= stuck.at && is_its
    };
    let tries = evidence.history.operations.iter().rev().filter(is_try).take(3);
    let mut clues: Vec<_> = tries.map(line).collect();
    clues.reverse();
    clues.push(deed(stuck.person, stuck.at, &format!("person:{} gave up", stuck.person)));
    clues
}

#[cfg(test)]
mod tests {
    use chatchat::api::{PendingEvent, StreamEvent};

    use super::*;
    use crate::oracle::{
        Point,
        fixtures::{Fixture, id, located, ms, refused},
    };

    fn cancelled() -> Result<Answer, Failure> {
        Ok(Answer::Fate(Some(PostState::Cancelled { id: id(1) })))
    }

    #[test]
    fn cancelled_post_that_stays_away_is_accepted() {
        let mut made = Fixture::new();
        made.unknown(0, 1, 100).did(0, 200, 300, Request::Cancel { id: id(1) }, cancelled());
        // Somebody else's post under the same id is another post.
        made.unknown(1, 1, 400).stored(1, 1);
        assert_eq!(made.judge(judge), []);
    }

    #[test]
    fn cancelled_post_that_appears_and_unsettled_post_are_reported() {
        let mut made = Fixture::new();
        made.unknown(0, 1, 100).did(0, 200, 300, Request::Cancel { id: id(1) }, cancelled());
        made.stored(0, 1);
        made.unknown(0, 2, 400).unknown(1, 2, 450);
        let what = "person:0: a post is not settled".to_owned();
        made.history.stuck.push(Stuck { person: 0, post: Some(id(2)), at: ms(500), what });
        let told = made.judge(judge);
        assert_eq!(located(&told), ["g03.stuck", "g03.cancelled"]);
        let points: Vec<_> = told[0].evidence.iter().map(|clue| clue.point).collect();
        assert_eq!(points, [Some(Point::Operation(2)), Some(Point::Person(0, ms(500)))]);
    }

    /// A cancel and the first try are in doubt; then the author is told by a send, and the post stands.
    fn told_by_a_send(status: u16) -> Fixture {
        let mut made = Fixture::with_faults(&[]);
        made.unknown(0, 1, 100).asked(0, 200, Request::Cancel { id: id(1) }, None);
        made.did(0, 300, 400, Fixture::request(1), refused(status)).stored(0, 1);
        made
    }

    /// A post waits, its author is told its state by a stream, and it stands.
    fn told_by_a_stream(state: HeldState) -> Fixture {
        let mut made = Fixture::with_faults(&[]);
        made.did(0, 100, 200, Fixture::request(1), Ok(Answer::Pending { copies: 2 })).stored(0, 1);
        let event = PendingEvent { id: id(1), state };
        made.stream(0, 0, vec![(300, StreamEvent::Pending(event))]);
        made
    }

    #[test]
    fn post_that_stands_though_a_send_or_a_stream_told_otherwise_is_reported() {
        assert_eq!(located(&told_by_a_send(410).judge(judge)), ["g03.cancelled"]);
        assert_eq!(located(&told_by_a_send(422).judge(judge)), ["g03.refused"]);
        let judged = |state| located(&told_by_a_stream(state).judge(judge));
        assert_eq!(judged(HeldState::Cancelled), ["g03.cancelled"]);
        assert_eq!(judged(HeldState::Refused), ["g03.refused"]);
    }

    #[test]
    fn post_that_may_appear_yet_or_stays_away_or_is_of_somebody_else_is_accepted() {
        for status in [401, 404, 413] {
            assert_eq!(told_by_a_send(status).judge(judge), [], "{status}");
        }
        for state in [HeldState::Pending, HeldState::Committed, HeldState::DeadLetter] {
            assert_eq!(told_by_a_stream(state).judge(judge), [], "{state:?}");
        }
        for mut made in [
            told_by_a_send(410),
            told_by_a_send(422),
            told_by_a_stream(HeldState::Cancelled),
            told_by_a_stream(HeldState::Refused),
        ] {
            made.store.boards.clear();
            assert_eq!(made.judge(judge), []);
            made.unknown(1, 1, 500).stored(1, 1);
            assert_eq!(made.judge(judge), [], "somebody else's");
        }
    }

    #[test]
    fn refusal_of_an_id_that_was_sent_for_two_posts_is_accepted_and_no_word_of_a_cancel() {
        let judged = |mut made: Fixture| {
            let Request::Post { board, id, .. } = Fixture::request(1) else { panic!("a post") };
            let other = Request::Post { board, id, text: "other".parse().unwrap() };
            made.asked(0, 90, other, None);
            made.rules(judge)
        };
        assert_eq!(judged(told_by_a_send(422)), [""; 0]);
        assert_eq!(judged(told_by_a_stream(HeldState::Refused)), [""; 0]);
        assert_eq!(judged(told_by_a_send(410)), ["g03.cancelled"]);
        assert_eq!(judged(told_by_a_stream(HeldState::Cancelled)), ["g03.cancelled"]);
    }

    #[test]
    fn what_a_store_told_that_was_set_back_is_accepted() {
        let judged = |target: &str| {
            let keys = format!("target = \"{target}\"\nby = \"1s\"");
            let made = Fixture::with_faults(&[("rollback", keys.as_str(), 20_000, 30_000)]);
            let Fixture { history, store, .. } = told_by_a_send(410);
            Fixture { history, store, ..made }.rules(judge)
        };
        assert_eq!(judged("store"), [""; 0]);
        assert_eq!(judged("worker:0"), ["g03.cancelled"]);
    }
}
