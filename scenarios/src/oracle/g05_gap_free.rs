//! G5 gap-free streams: what a reader is delivered over all its streams, after dropping repeats by
//! `(board, seq)`, equals the board from its first cursor on. A hole is always announced by
//! `reset` first, also one between two streams; a reset has a reason. Posts of another epoch of the store
//! come after a reset only. A cursor resumes on any master, and a client asks with the one that it
//! was given, also for a stream that is refused or shows nothing.
//!
//! That each post delivered is the one of its place is judged with the order (G4).

use std::{collections::BTreeMap, time::Duration};

use chatchat::{
    api::StreamEvent,
    client::Delivery,
    model::{
        ids::{BoardName, Cursor, Seq},
        stream::ResetReason,
    },
};

use super::{Clue, Evidence, Violation, broken, epochs::Epochs, seconds, stream_line, told::Told};
use crate::{history::StreamLog, property::Property};

/// With nothing being posted, an open stream shows all after this.
const QUIET: Duration = Duration::from_secs(2);

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let (told, epochs) = (Told::read(evidence.history), Epochs::read(evidence));
    let mut found = Vec::new();
    let mut readers: BTreeMap<usize, Position<'_>> = BTreeMap::new();
    for (nth, reader) in evidence.history.readers.iter().enumerate() {
        readers.insert(nth, Position::begin(reader.from.as_ref()));
    }
    for stream in &evidence.history.streams {
        // One that no reader asked for stands for itself.
        let mut own = Position::begin(stream.cursor.as_ref());
        let position = stream.reader.and_then(|reader| readers.get_mut(&reader));
        let position = position.unwrap_or(&mut own);
        if position.is_broken {
            continue;
        }
        if let Err(Break { at, rule, text }) = position.follow(&told, &epochs, stream) {
            position.is_broken = true;
            let clues = [stream_line(stream, at), Clue::from(shape(stream))];
            found.push(broken(Property::G5, rule, text, clues));
            continue;
        }
        for (board, seq) in lagging(evidence, stream, position) {
            let end = evidence.store.boards.get(board).map_or(0, Vec::len);
            let text = format!("an open stream stands at {board} {seq} of {end}");
            let quiet = evidence.history.reading_from.unwrap_or(stream.asked);
            let clues = [stream_line(stream, quiet), Clue::from(shape(stream))];
            found.push(broken(Property::G5, "lag", text, clues));
        }
    }
    found
}

/// Returns when a stream was asked for, from where, and what it delivered, in a line.
fn shape(stream: &StreamLog) -> String {
    let cursor = stream.cursor.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
    let time = |delivery: Option<&(Duration, Delivery)>| {
        delivery.map_or_else(|| "never".to_owned(), |(at, _)| seconds(*at))
    };
    let is_post = |d: &&(Duration, Delivery)| matches!(d.1.event, StreamEvent::Post(_));
    let posts: Vec<_> = stream.deliveries.iter().filter(is_post).collect();
    format!(
        "asked {} from cursor {cursor}; {} posts, the last {}; {} events, the last {}",
        seconds(stream.asked),
        posts.len(),
        time(posts.last().copied()),
        stream.deliveries.len(),
        time(stream.deliveries.last()),
    )
}

/// Break of a rule by one stream.
struct Break {
    at: Duration,
    rule: &'static str,
    text: String,
}

fn breaks(at: Duration, rule: &'static str, text: String) -> Result<(), Break> {
    Err(Break { at, rule, text })
}

/// How far a reader got over all its streams.
#[derive(Default)]
struct Position<'a> {
    /// Cursor that the reader was given last.
    given: Option<&'a Cursor>,
    /// Last place that was delivered of each board.
    seen: BTreeMap<&'a BoardName, Seq>,
    followed: Vec<&'a BoardName>,
    is_broken: bool,
}

impl<'a> Position<'a> {
    fn begin(from: Option<&'a Cursor>) -> Self {
        let places = from.iter().flat_map(|cursor| &cursor.boards);
        let seen = places.map(|(board, seq)| (board, *seq)).collect();
        Self { given: from, seen, ..Self::default() }
    }

    fn follow(
        &mut self,
        told: &Told<'_>,
        epochs: &Epochs,
        stream: &'a StreamLog,
    ) -> Result<(), Break> {
        if stream.cursor.as_ref() != self.given {
            let show = |cursor: Option<&Cursor>| cursor.map(ToString::to_string);
            let (asked, given) = (show(stream.cursor.as_ref()), show(self.given));
            let text = format!("a stream was asked for from {asked:?}, its reader had {given:?}");
            return breaks(stream.asked, "cursor", text);
        }
        self.followed.clear();
        // Epoch of the reader's places.
        let mut stands = stream.cursor.as_ref().map(|cursor| cursor.epoch);
        // Boards that the stream begins further on than it was asked to: a reset must follow.
        let mut jumps: Vec<(&BoardName, Seq, Seq)> = Vec::new();
        for (at, delivery) in &stream.deliveries {
            match &delivery.event {
                StreamEvent::Hello(hello) => {
                    stands = stands.or(Some(hello.cursor.epoch));
                    for (board, begins) in &hello.cursor.boards {
                        self.followed.push(board);
                        // Of a board that the reader's cursor does not name it begins at the end.
                        let from = *self.seen.entry(board).or_insert(*begins);
                        if *begins > from {
                            jumps.push((board, from, *begins));
                        }
                    }
                }
                StreamEvent::Reset(reset) => {
                    jumps.clear();
                    let goes_on = delivery.cursor.as_ref().map(|cursor| cursor.epoch);
                    let is_fair = match reset.reason {
                        ResetReason::Epoch => epochs.is_change(stands, goes_on, *at),
                        reason => is_fair(told, stream, reason),
                    };
                    stands = goes_on.or(stands);
                    if !is_fair {
                        let text =
                            format!("a stream was reset without a reason ({})", reset.reason);
                        return breaks(*at, "reset", text);
                    }
                    for (board, seq) in delivery.cursor.iter().flat_map(|cursor| &cursor.boards) {
                        self.seen.insert(board, *seq);
                    }
                }
                StreamEvent::Beat | StreamEvent::Post(_) if !jumps.is_empty() => {
                    let (board, from, begins) = jumps[0];
                    let text = format!("{board} goes on from {begins} after {from}, unannounced");
                    return breaks(*at, "gap", text);
                }
                StreamEvent::Post(post) => {
                    let shown = delivery.cursor.as_ref().map(|cursor| cursor.epoch);
                    if let (Some(shown), Some(stands)) = (shown, stands)
                        && shown != stands
                    {
                        let text = format!("epoch {shown} follows {stands}, unannounced");
                        return breaks(*at, "epoch", text);
                    }
                    // A board that neither cursor names: nothing to hold the first post against.
                    let before = Seq(post.seq.0.saturating_sub(1));
                    let last = self.seen.entry(&post.board).or_insert(before);
                    if post.seq > last.next() {
                        let text =
                            format!("{} follows {last} in {}, unannounced", post.seq, post.board);
                        return breaks(*at, "gap", text);
                    }
                    *last = post.seq.max(*last);
                    let named = delivery.cursor.as_ref().map(|c| c.boards.get(&post.board));
                    if named.is_some_and(|named| named != Some(&post.seq)) {
                        let text = format!("{} {} came with {named:?}", post.board, post.seq);
                        return breaks(*at, "cursor-given", text);
                    }
                }
                _ => {}
            }
            self.given = delivery.cursor.as_ref().or(self.given);
        }
        Ok(())
    }
}

/// Returns whether a stream had to be reset that stays in its epoch: its cursor named a place that
/// nobody had been told of by then.
fn is_fair(told: &Told<'_>, stream: &StreamLog, reason: ResetReason) -> bool {
    let Some(cursor) = &stream.cursor else { return false };
    match reason {
        ResetReason::Ahead => {
            let is_ahead =
                |(board, seq): (&BoardName, &Seq)| *seq > told.end_before(board, stream.asked);
            cursor.boards.iter().any(is_ahead)
        }
        // A client of ours sends no other.
        ResetReason::Epoch | ResetReason::Malformed | ResetReason::Other => false,
    }
}

/// Boards of which an open stream did not show the end, though there was quiet.
fn lagging<'a>(
    evidence: &Evidence<'_>,
    stream: &StreamLog,
    position: &Position<'a>,
) -> Vec<(&'a BoardName, Seq)> {
    let opened = stream.deliveries.first().map(|(at, _)| *at);
    let quiet_since = evidence.history.reading_from;
    let (Some(opened), Some(reading_from), None) = (opened, quiet_since, &stream.end) else {
        return Vec::new();
    };
    if opened + QUIET > reading_from || stream.is_slow || has_died(evidence, stream) {
        return Vec::new();
    }
    let is_short = |(board, seq): &(&'a BoardName, Seq)| {
        let end = evidence.store.boards.get(*board).and_then(|posts| posts.last());
        end.is_some_and(|end| *seq < end.seq)
    };
    let reached = position.seen.iter().map(|(board, seq)| (*board, *seq));
    reached.filter(|(board, _)| position.followed.contains(board)).filter(is_short).collect()
}

/// Returns whether the reader's machine went away: it would have heard a beat since.
fn has_died(evidence: &Evidence<'_>, stream: &StreamLog) -> bool {
    const BEATS: Duration = Duration::from_secs(10);
    let last = stream.deliveries.last().map_or(stream.asked, |(at, _)| *at);
    evidence.history.reading_from.is_some_and(|from| last + BEATS < from)
}

#[cfg(test)]
mod tests {
    use chatchat::api::ResetEvent;

    use super::*;
    use crate::oracle::{
        Point,
        fixtures::{EPOCH, Fixture, delivered, hello, lobby_cursor, ms},
    };

    fn five() -> Fixture {
        let mut made = Fixture::with_posts(5);
        made.history.reading_from = Some(ms(30_000));
        made
    }

    fn reset(reason: ResetReason) -> StreamEvent {
        StreamEvent::Reset(ResetEvent { reason })
    }

    fn rules(made: &Fixture) -> Vec<&'static str> {
        made.judge(judge).iter().map(|told| told.rule.name).collect()
    }

    #[test]
    fn repeats_and_announced_hole_are_accepted() {
        let mut made = five();
        let at = |n: u8| delivered(0, n, u64::from(n));
        made.stream(1, 2, vec![(21_000, hello(2)), (21_000, at(2)), (21_000, at(3))]);
        made.history.streams[0].deliveries.extend([4, 4, 5].map(|n| {
            let cursor = Some(lobby_cursor(u64::from(n)));
            (ms(22_000), Delivery { event: at(n), cursor })
        }));
        let ahead = reset(ResetReason::Ahead);
        made.stream(
            1,
            12,
            vec![(21_000, hello(9)), (21_000, ahead), (21_000, delivered(0, 5, 10))],
        );
        assert_eq!(made.judge(judge), []);
    }

    #[test]
    fn unannounced_hole_is_reported() {
        let mut made = five();
        made.stream(1, 2, vec![(21_000, hello(2)), (21_000, delivered(0, 4, 4))]);
        assert_eq!(rules(&made), ["gap"], "after the cursor");
        let mut made = five();
        made.stream(1, 2, vec![(21_000, hello(4)), (21_000, delivered(0, 5, 5))]);
        assert_eq!(rules(&made), ["gap"], "the hello went on further than the cursor");
        let mut made = five();
        made.stream(1, 2, vec![(21_000, hello(5)), (25_000, StreamEvent::Beat)]);
        assert_eq!(rules(&made), ["gap"], "and nothing came after it");
    }

    /// Makes a reader with two streams; the second is asked for from `asked`.
    fn two_streams(asked: u64, second: Vec<(u64, StreamEvent)>) -> Fixture {
        let mut made = five();
        let end = Some((ms(22_000), chatchat::client::StreamEnd::Ended));
        made.stream(1, 2, vec![(21_000, hello(2)), (21_000, delivered(0, 3, 3))]);
        made.history.streams[0].end = end.clone();
        made.stream(1, asked, second);
        made.history.streams[1].end = end;
        made.one_reader(lobby_cursor(2));
        made
    }

    #[test]
    fn gap_between_two_streams_of_a_reader_is_reported() {
        let made = two_streams(3, vec![(23_000, hello(3)), (23_000, delivered(0, 4, 4))]);
        assert_eq!(rules(&made), [""; 0]);
        let made = two_streams(3, vec![(23_000, hello(4)), (23_000, delivered(0, 5, 5))]);
        assert_eq!(rules(&made), ["gap"]);
    }

    #[test]
    fn stream_asked_for_from_another_cursor_than_was_given_is_reported() {
        let made = two_streams(4, vec![(23_000, hello(4)), (23_000, delivered(0, 5, 5))]);
        assert_eq!(rules(&made), ["cursor"]);
        let mut made = five();
        made.stream(1, 2, vec![(21_000, hello(2)), (21_000, delivered(0, 3, 3))]);
        made.history.streams[0].deliveries[1].1.cursor = Some(lobby_cursor(4));
        assert_eq!(rules(&made), ["cursor-given"]);
    }

    #[test]
    fn stream_that_is_refused_or_shows_nothing_is_asked_for_from_the_cursor_that_was_given() {
        let why = chatchat::client::Failure::Unknown { status: None, why: "a test".to_owned() };
        for refused in [None, Some((ms(23_000), why))] {
            for (asked, found) in [(3, &[][..]), (4, &["cursor"])] {
                let mut made = two_streams(asked, Vec::new());
                made.history.streams[1].end = None;
                made.history.streams[1].refused.clone_from(&refused);
                let (fourth, fifth) = (delivered(0, 4, 4), delivered(0, 5, 5));
                let shown = vec![(24_000, hello(3)), (24_000, fourth), (24_000, fifth)];
                made.stream(1, 3, shown);
                made.history.streams[2].reader = Some(0);
                assert_eq!(rules(&made), found, "{asked} {refused:?}");
            }
        }
    }

    #[test]
    fn reset_without_a_reason_is_reported() {
        for (from, reason, found) in [
            (12, ResetReason::Ahead, 0),
            (2, ResetReason::Ahead, 1),
            (2, ResetReason::Epoch, 1),
            (2, ResetReason::Malformed, 1),
        ] {
            let mut made = five();
            made.acked(0, 4, 100, 200, 4);
            made.stream(1, from, vec![(21_000, hello(5)), (21_000, reset(reason))]);
            assert_eq!(rules(&made), vec!["reset"; found], "{from} {reason}");
        }
        let mut made = five();
        made.stream(1, 2, vec![(21_000, hello(5)), (21_000, reset(ResetReason::Epoch))]);
        let cursor = made.history.streams[0].cursor.as_mut().expect("it has one");
        cursor.epoch = chatchat::model::ids::StoreEpoch(EPOCH.0 - 1);
        assert_eq!(rules(&made), [""; 0], "the cursor is of another epoch");
    }

    /// Makes a stream without a cursor that shows the third post, is reset at 24 s, and shows the fifth.
    /// The store is restored at `restored`.
    fn reset_in_the_middle(restored: u64) -> Fixture {
        let mut made = five();
        made.restored_at(restored);
        let shown = vec![
            (21_000, hello(2)),
            (22_000, delivered(0, 3, 3)),
            (24_000, reset(ResetReason::Epoch)),
            (25_000, delivered(0, 5, 5)),
        ];
        made.stream(1, 2, shown);
        let stream = &mut made.history.streams[0];
        stream.cursor = None;
        let cursors = [(2, EPOCH), (3, EPOCH), (4, made.store.epoch), (5, made.store.epoch)];
        for ((_, delivery), (place, epoch)) in stream.deliveries.iter_mut().zip(cursors) {
            delivery.cursor = Some(Cursor { epoch, ..lobby_cursor(place) });
        }
        made
    }

    #[test]
    fn open_stream_is_reset_once_for_each_restore_of_the_store() {
        assert_eq!(rules(&reset_in_the_middle(23_900)), [""; 0]);
        assert_eq!(rules(&reset_in_the_middle(24_100)), ["reset"], "of an epoch yet to begin");
        let mut made = reset_in_the_middle(23_900);
        let again = made.history.streams[0].deliveries[2].clone();
        made.history.streams[0].deliveries.insert(3, again);
        assert_eq!(rules(&made), ["reset"], "it went on in that epoch already");
    }

    #[test]
    fn posts_of_another_epoch_without_a_reset_are_reported() {
        let mut made = reset_in_the_middle(23_900);
        made.history.streams[0].deliveries.remove(2);
        assert_eq!(rules(&made), ["epoch"]);
        let mut made = reset_in_the_middle(23_900);
        let last = &mut made.history.streams[0].deliveries[3].1;
        last.cursor = Some(lobby_cursor(5));
        assert_eq!(rules(&made), ["epoch"], "it goes back");
    }

    #[test]
    fn open_stream_that_lags_in_quiet_is_reported() {
        let mut made = five();
        made.stream(1, 3, vec![(21_000, hello(3)), (25_000, delivered(0, 4, 4))]);
        let told = made.judge(judge);
        assert_eq!(told[0].rule.name, "lag");
        let point = Point::Stream { number: 0, at: ms(30_000) };
        assert_eq!(told[0].evidence[0].point, Some(point), "when the last reading began");
        made.history.streams[0].end = Some((ms(26_000), chatchat::client::StreamEnd::Left));
        assert_eq!(made.judge(judge), []);
    }
}
