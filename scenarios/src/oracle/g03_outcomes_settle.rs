//! G3 outcomes settle: with everything healed, a resend settles every post within its bound, and
//! what was cancelled never appears.

use chatchat::{
    api::PostState,
    client::{Answer, Request},
};

use super::{Evidence, Violation, broken, line};
use crate::property::Property;

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let stuck = evidence.history.stuck.iter();
    let stuck = stuck.map(|what| broken(Property::G3, "stuck", what.clone(), []));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::fixtures::{Fixture, id};

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
        made.history.stuck.push("person:0: a post is not settled".to_owned());
        assert_eq!(made.judge(judge).len(), 2);
    }
}
