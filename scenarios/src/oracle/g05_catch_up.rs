//! G5, catching up: whenever a board is quiet, every stream that is read shows all of it within
//! 2 s, as long as its master and the store are connected.

use std::time::Duration;

use chatchat::{
    api::StreamEvent,
    client::Request,
    model::ids::{BoardName, Seq},
};

use super::{Evidence, Point, Violation, broken, stream_line, told::Told};
use crate::{history::StreamLog, property::Property, target::Place};

/// Time after a fault in which a master finds the store and its peers again.
const RECOVERS: Duration = Duration::from_secs(10);
/// Time after which a post without an answer does not come any more.
const UNKNOWN: Duration = Duration::from_secs(15);
/// Time in which a stream shows what there is to show, beyond one reading of the store's boards.
const SHOWS: Duration = Duration::from_secs(1);

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let history = evidence.history;
    let told = Told::read(history);
    let bound = SHOWS + evidence.plan.cluster.config.store_poll_interval;
    let mut found = Vec::new();
    for board in evidence.store.boards.keys() {
        for at in quiet_moments(evidence, board, bound) {
            let end = told.end_before(board, at.saturating_sub(bound));
            for stream in history.streams.iter().filter(|s| is_read(evidence, s, at, bound)) {
                let Some(place) = place(stream, board, at) else { continue };
                // Told once is enough.
                if place < end && !found.iter().any(|it| is_about(it, stream)) {
                    let text = format!("{board} was quiet at {end} and a stream stands at {place}");
                    found.push(broken(Property::G5, "behind", text, [stream_line(stream, at)]));
                }
            }
        }
    }
    found
}

fn is_about(violation: &Violation, stream: &StreamLog) -> bool {
    let mut points = violation.evidence.iter().filter_map(|clue| clue.point);
    points.any(|point| matches!(point, Point::Stream { number, .. } if number == stream.number))
}

/// Returns the whole seconds before which nothing was on its way to a board for a while.
fn quiet_moments(evidence: &Evidence<'_>, board: &BoardName, bound: Duration) -> Vec<Duration> {
    let posts = evidence.history.operations.iter();
    let posts =
        posts.filter(|op| matches!(&op.request, Request::Post { board: to, .. } if to == board));
    let mut busy: Vec<(Duration, Duration)> = posts
        .map(|op| {
            let is_settled = op.did_nothing() || op.reply().is_some();
            let end = op.end.as_ref().map(|(at, _)| *at).filter(|_| is_settled);
            (op.invoked, end.unwrap_or(op.invoked + UNKNOWN))
        })
        .collect();
    busy.sort_unstable();
    let (mut moments, mut until, mut nth) = (Vec::new(), Duration::ZERO, 0);
    for second in 1..evidence.ended.as_secs() {
        let at = Duration::from_secs(second);
        while let Some((from, to)) = busy.get(nth).filter(|(from, _)| *from <= at) {
            debug_assert!(from <= to, "an answer comes after its question");
            until = until.max(*to);
            nth += 1;
        }
        if until + bound < at {
            moments.push(at);
        }
    }
    moments
}

/// Returns whether a stream was being read at a time, and long before, while nothing was wrong
/// with its master, the store or the reader.
fn is_read(evidence: &Evidence<'_>, stream: &StreamLog, at: Duration, bound: Duration) -> bool {
    let began = stream.deliveries.first().map(|(at, _)| *at);
    let is_open = stream.end.as_ref().is_none_or(|(ended, _)| *ended > at);
    let is_reset = stream.deliveries.iter().any(|(_, d)| matches!(d.event, StreamEvent::Reset(_)));
    let (from, to) = ((at - bound).saturating_sub(RECOVERS), at);
    let touched = |place| evidence.is_touched(place, from, to);
    began.is_some_and(|began| began + bound <= at)
        && is_open
        && !stream.is_slow
        && !is_reset
        && !touched(Place::Store)
        && !touched(evidence.machine_of(stream.who))
        && evidence.master_at(&stream.master).is_some_and(|master| !touched(master))
}

/// Returns how far a stream had shown a board at a time; `None` when it does not follow it.
fn place(stream: &StreamLog, board: &BoardName, at: Duration) -> Option<Seq> {
    let mut place = None;
    for (_, delivery) in stream.deliveries.iter().take_while(|(shown, _)| *shown <= at) {
        match &delivery.event {
            StreamEvent::Hello(hello) => place = hello.cursor.boards.get(board).copied(),
            StreamEvent::Post(post) if post.board == *board => {
                place = place.map(|place: Seq| place.max(post.seq));
            }
            _ => {}
        }
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::fixtures::{Fixture, delivered, hello, ms};

    /// Makes a board of three posts, the last of them acked at 25 s, and a stream that shows two.
    fn behind() -> Fixture {
        let mut made = Fixture::new();
        made.history.masters = vec!["http://m".to_owned()];
        for n in 1..=3 {
            made.stored(0, n);
        }
        made.acked(0, 3, 24_900, 25_000, 3);
        made.stream(1, 1, vec![(21_000, hello(1)), (22_000, delivered(0, 2, 2))]);
        made
    }

    #[test]
    fn stream_that_catches_up_ends_or_is_not_read_is_accepted() {
        let mut made = behind();
        made.history.streams[0].deliveries.push((
            ms(26_500),
            chatchat::client::Delivery { event: delivered(0, 3, 3), cursor: None },
        ));
        assert_eq!(made.judge(judge), []);
        let mut made = behind();
        made.history.streams[0].is_slow = true;
        assert_eq!(made.judge(judge), [], "slow");
        let mut made = behind();
        let end = Some((ms(26_000), chatchat::client::StreamEnd::Ended));
        made.history.streams[0].end = end;
        assert_eq!(made.judge(judge), [], "ended before");
        let mut made = behind();
        made.trouble(20_000, 59_000);
        assert_eq!(made.judge(judge), [], "a fault that may touch everyone");
        let mut made = behind();
        for n in 0..20 {
            let at = 25_000 + n * 1900;
            made.did(2, at, at + 10, Fixture::request(9), crate::oracle::fixtures::busy(503));
        }
        assert_eq!(made.judge(judge), [], "never quiet for long enough");
    }

    #[test]
    fn open_stream_that_lacks_a_post_in_quiet_is_reported_once() {
        let told = behind().judge(judge);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].rule.to_string(), "g05.behind");
    }
}
