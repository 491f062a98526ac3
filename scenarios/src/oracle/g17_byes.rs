//! G17, goodbyes: a master that hands over sends its streams away in batches, so that the masters that they go
//! to are not stormed.
//!
//! 1. A batch has as many streams as all have to leave by in half of `drain_timeout`, and 50 at the least. The
//!    next one follows 50 to 150 ms later: the rule allows 30, for clocks that run fast.
//! 2. What clients are told, they are told later than it was said: so the first streams of a batch are told no
//!    earlier than it may begin, counted from the beginning of the drain.
//! 3. Left out are drains in whose time, or shortly before, a fault touched another master: one that has no
//!    other to name lets all go at once.

use std::time::Duration;

use chatchat::{
    api::StreamEvent,
    model::{event::Event, stream::ByeReason},
};

use super::{EventLine, Evidence, Violation, broken, seconds, troubles::AFTERMATH};
use crate::{property::Property, target::Place};

/// Time between two batches, on average, by which they are counted.
const INTERVAL_MS: u128 = 100;
/// The least streams of one batch.
const BATCH_MIN: usize = 50;
/// Shortest time between two batches, on a clock that runs fast.
const APART: Duration = Duration::from_millis(30);

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let drains = evidence.events.iter();
    let drains = drains.filter(|said| matches!(said.event, Event::Drain { hands_over: true }));
    drains.filter_map(|drain| told_at_once(evidence, drain)).collect()
}

fn told_at_once(evidence: &Evidence<'_>, drain: &EventLine) -> Option<Violation> {
    let place = drain.place()?;
    let is_here = |master: &str| evidence.master_at(master) == Some(place);
    let streams = || evidence.history.streams.iter().filter(|stream| is_here(&stream.master));
    let mut byes: Vec<_> = streams()
        .flat_map(|stream| &stream.deliveries)
        .filter(|(at, told)| {
            let is_bye =
                matches!(&told.event, StreamEvent::Bye(bye) if bye.reason == ByeReason::Draining);
            *at >= drain.at && is_bye
        })
        .map(|(at, _)| *at)
        .collect();
    byes.sort_unstable();
    let last = *byes.last()?;
    let from = drain.at.saturating_sub(AFTERMATH);
    let mut others = (0..evidence.plan.cluster.masters).map(Place::Master);
    if others.any(|other| other != place && evidence.is_touched(other, from, last)) {
        return None;
    }
    let hands_over = evidence.plan.cluster.config.drain_timeout;
    let batches = usize::try_from(hands_over.as_millis() / INTERVAL_MS / 2).unwrap_or(usize::MAX);
    // The master may have had fewer streams, but not more.
    let batch = streams().count().div_ceil(batches.max(1)).max(BATCH_MIN);
    let firsts = byes.iter().step_by(batch).zip(0..);
    let (at, nth) =
        firsts.map(|(at, nth)| (*at, nth)).find(|(at, nth)| *at < drain.at + APART * *nth)?;
    let text = format!(
        "{place} began to hand over at {}, and told stream {} of {} to go at {}, before the batch {nth} behind \
         the first one may begin",
        seconds(drain.at),
        nth as usize * batch + 1,
        byes.len(),
        seconds(at)
    );
    Some(broken(Property::G17, "byes-at-once", text, [drain.clue()]))
}

#[cfg(test)]
mod tests {
    use chatchat::api::ByeEvent;

    use super::*;
    use crate::oracle::fixtures::{Fixture, ms};

    /// `master:0` hands over at 30 s, and its streams are told to go at these times.
    fn told(times: impl Iterator<Item = u64>, faults: &[(&str, &str, u64, u64)]) -> usize {
        let mut made = Fixture::with_faults(faults);
        made.history.masters = vec!["http://m".to_owned(), "http://n".to_owned()];
        made.said(30_000, "master:0", Event::Drain { hands_over: true });
        for at in times {
            let bye = ByeEvent { reason: ByeReason::Draining, to: Vec::new(), retry_ms: 0 };
            made.stream(0, 0, vec![(at, StreamEvent::Bye(bye))]);
        }
        made.plan.cluster.config.drain_timeout = ms(10_000);
        made.breaks(judge, "g17.byes-at-once")
    }

    #[test]
    fn more_streams_than_a_batch_that_are_told_to_go_at_once_are_reported() {
        assert_eq!(told((0..51).map(|_| 30_001), &[]), 1);
        assert_eq!(told((0..50).map(|_| 30_001), &[]), 0, "one batch");
        assert_eq!(told((0..120).map(|nth| 30_001 + nth / 50 * 50), &[]), 0, "three batches");
        assert_eq!(
            told((0..120).map(|nth| 30_001 + nth / 60 * 50), &[]),
            1,
            "the first is too large"
        );
        assert_eq!(told((0..51).map(|_| 31_000), &[]), 0, "told late");
    }

    #[test]
    fn streams_of_a_master_that_may_have_no_other_to_name_are_left_out() {
        let other = [("crash", "target = \"master:1\"", 20_000, 25_000)];
        assert_eq!(told((0..99).map(|_| 30_001), &other), 0);
        let worker = [("crash", "target = \"worker:0\"", 20_000, 25_000)];
        assert_eq!(told((0..99).map(|_| 30_001), &worker), 1);
    }
}
