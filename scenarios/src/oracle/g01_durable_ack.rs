//! G1 durable ack: an acked post is in its board after any crash, pause or partition.

use super::{Evidence, Violation, broken, line};
use crate::property::Property;

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for operation in &evidence.history.operations {
        let Some((_, post)) = operation.committed() else { continue };
        let missing = |text: String| broken(Property::G1, "lost", text, [line(operation)]);
        match evidence.store.post_at(&post.board, post.seq) {
            Some(kept)
                if kept.id == post.id && kept.author == post.author && kept.text == post.text => {}
            Some(kept) => found.push(missing(format!(
                "post {} was acked as {} {}, where {} of {} stands",
                post.id, post.board, post.seq, kept.id, kept.author.name
            ))),
            None => found.push(missing(format!(
                "post {} was acked as {} {} and is not there",
                post.id, post.board, post.seq
            ))),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::fixtures::Fixture;

    #[test]
    fn acked_post_in_its_place_and_lost_unknown_post_are_accepted() {
        let mut made = Fixture::new();
        made.acked(0, 1, 100, 200, 1).stored(0, 1).unknown(0, 2, 300);
        assert_eq!(made.judge(judge), []);
    }

    #[test]
    fn acked_post_that_is_gone_or_changed_is_reported() {
        let mut made = Fixture::new();
        made.acked(0, 1, 100, 200, 1).acked(0, 2, 300, 400, 2).stored(0, 2);
        let told = made.judge(judge);
        assert_eq!(made.breaks(judge, "g01.lost"), 2, "{told:?}");
        assert!(told[1].text.contains("is not there"), "{told:?}");
    }
}
