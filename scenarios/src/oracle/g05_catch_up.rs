//! G5, catching up: whenever a board is quiet, every stream that is read shows all of it within
//! 2 s, as long as its master and the store are connected.
//!
//! A reset makes another stream of it, which begins then and where the reset puts it. What came before
//! the last one is not judged, nor is a stream with one once people were told of an epoch that no restore of
//! the run explains: what they were told of a board may be of another store than the stream.

use std::time::Duration;

use chatchat::{
    api::StreamEvent,
    client::{Delivery, Request},
    model::ids::{BoardName, Seq},
};

use super::{
    Evidence, Point, Violation, broken,
    epochs::Epochs,
    stream_line,
    told::{Told, epoch_of},
};
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
    let is_one_store = is_of_one_store(evidence);
    let streams = history.streams.iter();
    let streams: Vec<(&StreamLog, Duration)> =
        streams.filter_map(|stream| Some((stream, began(stream, is_one_store)?))).collect();
    let mut found = Vec::new();
    for board in evidence.store.boards.keys() {
        for at in quiet_moments(evidence, board, bound) {
            let end = told.end_before(board, at.saturating_sub(bound));
            let shows = |(_, began): &&(&StreamLog, Duration)| *began + bound <= at;
            for (stream, _) in streams.iter().filter(shows) {
                if !is_read(evidence, stream, at, bound) {
                    continue;
                }
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

/// Returns since when a stream shows all that comes: since its last reset, or else since it began.
fn began(stream: &StreamLog, is_one_store: bool) -> Option<Duration> {
    let is_reset = |(_, d): &&(Duration, Delivery)| matches!(d.event, StreamEvent::Reset(_));
    match stream.deliveries.iter().rfind(is_reset) {
        Some((at, _)) => is_one_store.then_some(*at),
        None => stream.deliveries.first().map(|(at, _)| *at),
    }
}

/// Returns whether nobody was told of an epoch that the store did not have.
fn is_of_one_store(evidence: &Evidence<'_>) -> bool {
    let epochs = Epochs::read(evidence);
    let history = evidence.history;
    let answers = history.operations.iter().filter_map(|operation| epoch_of(operation.reply()?.1));
    let deliveries = history.streams.iter().flat_map(|stream| &stream.deliveries);
    let hellos = deliveries.filter_map(|(_, delivery)| match &delivery.event {
        StreamEvent::Hello(hello) => Some(hello.cursor.epoch),
        _ => None,
    });
    answers.chain(hellos).all(|epoch| epochs.is_known(epoch))
}

/// Returns whether a stream was being read at a time, and nothing was wrong then and long before with
/// its master, the store or the reader.
fn is_read(evidence: &Evidence<'_>, stream: &StreamLog, at: Duration, bound: Duration) -> bool {
    let is_open = stream.end.as_ref().is_none_or(|(ended, _)| *ended > at);
    let (from, to) = ((at - bound).saturating_sub(RECOVERS), at);
    let touched = |place| evidence.is_touched(place, from, to);
    is_open
        && !stream.is_slow
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
            StreamEvent::Reset(_) => {
                let puts = delivery.cursor.as_ref();
                place = puts.and_then(|cursor| cursor.boards.get(board)).copied();
            }
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
    use chatchat::{
        api::ResetEvent,
        model::{
            ids::StoreEpoch,
            stream::{Consistency, ResetReason},
        },
    };

    use super::*;
    use crate::oracle::fixtures::{Fixture, delivered, hello, lobby_cursor, ms, restored};

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
        made.history.streams[0]
            .deliveries
            .push((ms(26_500), Delivery { event: delivered(0, 3, 3), cursor: None }));
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

    /// Makes a reset put the stream that lacks a post to a place.
    fn put_to(place: u64, at: u64) -> Fixture {
        let mut made = behind();
        let event = StreamEvent::Reset(ResetEvent { reason: ResetReason::Ahead });
        let reset = Delivery { event, cursor: Some(lobby_cursor(place)) };
        made.history.streams[0].deliveries.push((ms(at), reset));
        made
    }

    #[test]
    fn stream_that_lacks_a_post_long_after_its_reset_is_reported() {
        assert_eq!(put_to(2, 23_000).rules(judge), ["g05.behind"]);
        let mut made = put_to(2, 23_000);
        made.history.streams[0].deliveries.remove(1);
        assert_eq!(made.rules(judge), ["g05.behind"], "the reset alone puts it there");
    }

    #[test]
    fn stream_that_is_put_to_the_end_or_shows_it_after_its_reset_is_accepted() {
        assert_eq!(put_to(3, 40_000).judge(judge), [], "what came before is forgotten");
        assert_eq!(put_to(2, 59_000).judge(judge), [], "it has time from there on");
        let mut made = put_to(2, 24_000);
        let last = Delivery { event: delivered(0, 3, 3), cursor: None };
        made.history.streams[0].deliveries.push((ms(25_100), last));
        assert_eq!(made.judge(judge), []);
        let mut made = put_to(2, 23_000);
        made.history.streams[0].deliveries[2].1.cursor = None;
        assert_eq!(made.judge(judge), [], "nobody knows where it goes on");
    }

    #[test]
    fn stream_with_a_reset_is_judged_over_restores_and_not_over_epochs_that_none_explains() {
        let mut made = put_to(2, 23_000);
        made.restored_at(22_900);
        assert_eq!(made.rules(judge), ["g05.behind"]);
        let mut made = put_to(2, 23_000);
        let mut answer = restored(0, Consistency::Strong);
        answer.epoch = StoreEpoch(4);
        let answer = chatchat::client::Answer::Restored(answer);
        made.did(0, 100, 200, Request::Restore, Ok(answer));
        assert_eq!(made.judge(judge), []);
        let mut made = put_to(2, 23_000);
        made.stream(2, 3, vec![(21_000, hello(3))]);
        let StreamEvent::Hello(hello) = &mut made.history.streams[1].deliveries[0].1.event else {
            panic!("a hello");
        };
        hello.cursor.epoch = StoreEpoch(4);
        assert_eq!(made.judge(judge), []);
    }

    #[test]
    fn open_stream_that_lacks_a_post_in_quiet_is_reported_once() {
        let told = behind().judge(judge);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].rule.to_string(), "g05.behind");
    }
}
