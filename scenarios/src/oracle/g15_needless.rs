//! G15 weak service: a post is held while the store cannot have it, and not while the store is only far away.
//!
//! A line is only long while what goes to and fro takes at most half of `store_timeout` more. Once nothing
//! worse has been wrong for a while, posts are written again.

use std::time::Duration;

use chatchat::client::Answer;

use super::{Evidence, Violation, broken, line, troubles::AFTERMATH};
use crate::{plan::Incident, property::Property};

/// Time for a cluster to write again, with everything that was held meanwhile in its way.
const WRITES_WITHIN: Duration = AFTERMATH.saturating_mul(2);

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    if evidence.is_set_back() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for sent in evidence.history.sent() {
        let Some((at, Answer::Pending { .. })) = sent.operation.reply() else { continue };
        let Some(from) = sent.operation.invoked.checked_sub(WRITES_WITHIN) else { continue };
        let stands = |it: &&Incident| it.from <= at && evidence.end_of(it) >= from;
        let mut standing = evidence.incidents.iter().filter(stands);
        if standing.all(|incident| evidence.is_delay_in_time(incident)) {
            let text = format!("post {} was held though the store was there", sent.id);
            found.push(broken(Property::G15, "needless", text, [line(sent.operation)]));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::fixtures::Fixture;

    const FAR: &str = "from = \"store\"\nto = \"worker:*\"\nby = \"150ms\"\njitter = \"50ms\"";

    fn is_held(made: &mut Fixture, at: u64) {
        made.did(0, at, at + 500, Fixture::request(2), Ok(Answer::Pending { copies: 2 }));
    }

    /// Returns how many posts were held needlessly, of one that was sent at 60 s.
    fn needless(faults: &[(&str, &str, u64, u64)]) -> usize {
        let mut made = Fixture::with_faults(faults);
        is_held(&mut made, 60_000);
        made.breaks(judge, "g15.needless")
    }

    #[test]
    fn post_that_is_held_though_the_store_is_only_far_away_is_reported() {
        assert_eq!(needless(&[("delay", FAR, 5000, 90_000)]), 1);
        let store = |until| {
            needless(&[
                ("delay", FAR, 5000, 90_000),
                ("pause", "target = \"store\"", 20_000, until),
            ])
        };
        assert_eq!(store(29_999), 1);
        assert_eq!(store(30_000), 0, "what was held may be in the way");
    }

    #[test]
    fn post_may_be_held_while_more_is_wrong() {
        let longer = FAR.replace("50ms", "51ms");
        assert_eq!(needless(&[("delay", &longer, 5000, 90_000)]), 0, "answers may be late");
        let loss = "from = \"store\"\nto = \"worker:*\"\nrate = 0.5";
        assert_eq!(needless(&[("loss", loss, 5000, 90_000)]), 0);
    }

    #[test]
    fn post_that_is_held_before_a_cluster_can_be_at_work_is_not_judged() {
        let mut made = Fixture::with_faults(&[("delay", FAR, 5000, 90_000)]);
        is_held(&mut made, 29_999);
        assert_eq!(made.breaks(judge, "g15.needless"), 0);
    }
}
