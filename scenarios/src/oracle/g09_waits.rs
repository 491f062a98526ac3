//! G9, waits: no post waits longer for its acknowledgement than the story expects, whatever is broken.
//!
//! 1. The wait lasts from the first try to the first acknowledgement, whatever masters the post went to
//!    meanwhile.
//! 2. Judged in stories that say `waits_at_most`. A post that was never acknowledged is left to G3.

use super::{Evidence, Violation, broken, line};
use crate::property::Property;

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let Some(at_most) = evidence.plan.expect.waits_at_most else { return Vec::new() };
    let waits = evidence.history.waits();
    let waited = waits.iter().filter_map(|(id, wait)| {
        let waited = wait.until?.saturating_sub(wait.first.operation.invoked);
        (waited > at_most).then(|| {
            let board = wait.first.board;
            let text = format!(
                "post {id} to {board} waited {waited:.3?} for its acknowledgement, longer than {at_most:?}"
            );
            broken(Property::G9, "waited", text, [line(wait.first.operation)])
        })
    });
    waited.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::fixtures::{Fixture, ms};

    /// A post whose first try ends without an answer, and whose second is acknowledged at 34 s.
    fn waited(at_most: Option<u64>) -> usize {
        let mut made = Fixture::new();
        made.plan.expect.waits_at_most = at_most.map(ms);
        made.unknown(0, 1, 30_000).acked(0, 1, 33_000, 34_000, 1);
        made.breaks(judge, "g09.waited")
    }

    #[test]
    fn post_that_waits_longer_than_the_story_expects_is_reported() {
        assert_eq!(waited(Some(3_999)), 1);
        assert_eq!(waited(Some(4_000)), 0, "just as long");
        assert_eq!(waited(None), 0, "the story expects nothing");
    }

    #[test]
    fn wait_ends_with_the_first_acknowledgement_and_a_post_without_one_is_left_to_others() {
        let mut made = Fixture::new();
        made.plan.expect.waits_at_most = Some(ms(2_000));
        made.acked(0, 1, 30_000, 31_000, 1).acked(0, 1, 40_000, 41_000, 1).unknown(0, 2, 30_000);
        assert_eq!(made.breaks(judge, "g09.waited"), 0);
    }
}
