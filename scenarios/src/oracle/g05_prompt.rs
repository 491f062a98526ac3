//! G5, prompt: in calm, the streams of each master show half of the posts that another master
//! answered within a quarter of the calm limit after the answer.
//!
//! A master that hears of posts by reading the store alone shows all of them, but late: half of
//! them later than half of the interval between two readings.

use std::{collections::BTreeMap, time::Duration};

use chatchat::{
    api::StreamEvent,
    model::ids::{BoardName, Seq},
};

use super::{Evidence, Violation, broken, seconds, stream_line};
use crate::{history::StreamLog, property::Property};

/// Number of posts below which the middle of their delays says nothing.
const ENOUGH: usize = 20;

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let limit = evidence.calm_limit / 4;
    let answered = answered(evidence);
    let mut delays: BTreeMap<&str, Vec<(Duration, &StreamLog, Duration)>> = BTreeMap::new();
    for stream in evidence.history.streams.iter().filter(|stream| !stream.is_slow) {
        let began = stream.deliveries.first().map(|(at, _)| *at);
        for (shown, delivery) in &stream.deliveries {
            let StreamEvent::Post(post) = &delivery.event else { continue };
            let Some((at, master)) = answered.get(&(&post.board, post.seq)) else { continue };
            if *master == stream.master {
                continue;
            }
            // A stream that opens later shows the post when it opens.
            if began.is_some_and(|began| began < *at) && evidence.is_calm(*at, *shown) {
                let delay = (shown.saturating_sub(*at), stream, *shown);
                delays.entry(&stream.master).or_default().push(delay);
            }
        }
    }
    let mut found = Vec::new();
    for (master, mut delays) in delays {
        delays.sort_by_key(|(delay, ..)| *delay);
        let count = delays.len();
        if count < ENOUGH {
            continue;
        }
        let (middle, stream, shown) = delays[count / 2];
        if middle > limit {
            let text = format!(
                "in calm half of {count} posts were shown at {master} later than {} after their \
                 answer",
                seconds(middle)
            );
            found.push(broken(Property::G5, "late", text, [stream_line(stream, shown)]));
        }
    }
    found
}

/// Returns the time of the first answer to each post, and who gave it.
fn answered<'a>(evidence: &Evidence<'a>) -> BTreeMap<(&'a BoardName, Seq), (Duration, &'a str)> {
    let mut first = BTreeMap::new();
    for operation in &evidence.history.operations {
        if let Some((at, post)) = operation.committed() {
            let answer = (at, operation.master.as_str());
            let known = first.entry((&post.board, post.seq)).or_insert(answer);
            *known = answer.min(*known);
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::fixtures::{Fixture, delivered, hello};

    /// Makes posts that are answered 500 ms apart from 20 s on, and a stream that shows each so
    /// long after its answer.
    fn shown_after(count: u8, delay: u64) -> Fixture {
        let mut made = Fixture::new();
        made.history.masters = vec!["http://m".to_owned(), "http://n".to_owned()];
        let mut shown = vec![(19_000, hello(0))];
        for n in 1..=count {
            let at = 20_000 + u64::from(n) * 500;
            made.stored(0, n).acked(0, n, at - 100, at, u64::from(n));
            shown.push((at + delay, delivered(0, n, u64::from(n))));
        }
        made.stream(1, 0, shown);
        "http://n".clone_into(&mut made.history.streams[0].master);
        made
    }

    #[test]
    fn posts_shown_at_once_or_too_few_or_near_a_fault_are_accepted() {
        assert_eq!(shown_after(40, 30).judge(judge), []);
        assert_eq!(shown_after(10, 600).judge(judge), []);
        let mut made = shown_after(40, 600);
        made.trouble(18_000, 38_000);
        assert_eq!(made.judge(judge), [], "not calm");
    }

    #[test]
    fn stream_that_shows_posts_half_a_second_late_is_reported() {
        let told = shown_after(40, 600).judge(judge);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].rule.to_string(), "g05.late");
    }

    #[test]
    fn post_that_its_own_master_answered_says_nothing_of_others() {
        let mut made = shown_after(40, 600);
        "http://m".clone_into(&mut made.history.streams[0].master);
        assert_eq!(made.judge(judge), []);
    }
}
