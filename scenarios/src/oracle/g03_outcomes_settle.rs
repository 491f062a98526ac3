//! G3 outcomes settle: with everything healed, a resend settles every post within its bound, and
//! what was cancelled never appears.

use chatchat::{
    api::PostState,
    client::{Answer, Request},
    model::ids::PostId,
};

use super::{Clue, Evidence, TOLD_MAX, Violation, broken, deed, line};
use crate::{
    history::{Operation, Stuck},
    property::Property,
};

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let stuck = evidence.history.stuck.iter().take(TOLD_MAX);
    let stuck = stuck.map(|stuck| {
        broken(Property::G3, "stuck", stuck.what.clone(), last_tries(evidence, stuck))
    });
    let mut found: Vec<_> = stuck.collect();
    for operation in &evidence.history.operations {
        let (Request::Cancel { id } | Request::Outcome { id }) = &operation.request else {
            continue;
        };
        let is_cancelled =
            matches!(operation.reply(), Some((_, Answer::Fate(Some(PostState::Cancelled { .. })))));
        let user = evidence.history.users.get(&operation.who);
        let mut posts = evidence.store.boards.values().flatten();
        let stands = posts.find(|post| post.id == *id && Some(&post.author.id) == user);
        if let (true, Some(post)) = (is_cancelled, stands) {
            let text = format!("post {id} was cancelled and is {} {}", post.board, post.seq);
            found.push(broken(Property::G3, "cancelled", text, [line(operation)]));
        }
    }
    found
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
    use super::*;
    use crate::oracle::{
        Point,
        fixtures::{Fixture, id, located, ms},
    };

    fn cancelled() -> Result<Answer, chatchat::client::Failure> {
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
}
