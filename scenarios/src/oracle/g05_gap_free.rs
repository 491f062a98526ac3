//! G5 gap-free streams: what a stream delivers, after dropping repeats by `(board, seq)`, equals
//! the board from the client's cursor on, and reaches its end within 2 s of quiet. A hole is
//! always announced by `reset` first. A cursor resumes on any master.
//!
//! That each post delivered is the one of its place is judged with the order (G4).

use std::{collections::BTreeMap, time::Duration};

use chatchat::{
    api::StreamEvent,
    client::Delivery,
    model::ids::{BoardName, Seq},
};

use super::{Clue, Evidence, Violation, broken, seconds, stream_line};
use crate::{history::StreamLog, property::Property};

/// With nothing being posted, an open stream shows all after this.
const QUIET: Duration = Duration::from_secs(2);

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for stream in &evidence.history.streams {
        match walk(stream) {
            Err((at, why)) => {
                found.push(broken(Property::G5, "gap", why, [stream_line(stream, at)]));
            }
            Ok(reached) => {
                for (board, seq) in lagging(evidence, stream, &reached) {
                    let end = evidence.store.boards.get(board).map_or(0, Vec::len);
                    let text = format!("an open stream stands at {board} {seq} of {end}");
                    let clues = [stream_line(stream, stream.asked), Clue::from(shape(stream))];
                    found.push(broken(Property::G5, "lag", text, clues));
                }
            }
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

/// Returns the last delivered place of each followed board, or the first hole.
fn walk(stream: &StreamLog) -> Result<BTreeMap<&BoardName, Seq>, (Duration, String)> {
    let mut seen: BTreeMap<&BoardName, Seq> = BTreeMap::new();
    for (board, seq) in stream.cursor.iter().flat_map(|cursor| &cursor.boards) {
        seen.insert(board, *seq);
    }
    let mut followed: Vec<&BoardName> = Vec::new();
    for (at, delivery) in &stream.deliveries {
        match &delivery.event {
            StreamEvent::Hello(hello) => {
                for (board, seq) in &hello.cursor.boards {
                    followed.push(board);
                    // Of a board that the reader's cursor does not name it begins at the end.
                    seen.entry(board).or_insert(*seq);
                }
            }
            StreamEvent::Reset(_) => {
                for (board, seq) in delivery.cursor.iter().flat_map(|cursor| &cursor.boards) {
                    seen.insert(board, *seq);
                }
            }
            StreamEvent::Post(post) => {
                // A board that neither cursor names: nothing to hold the first post against.
                let before = Seq(post.seq.0.saturating_sub(1));
                let last = seen.entry(&post.board).or_insert(before);
                if post.seq > last.next() {
                    let text =
                        format!("{} follows {last} in {}, unannounced", post.seq, post.board);
                    return Err((*at, text));
                }
                *last = post.seq.max(*last);
            }
            _ => {}
        }
    }
    seen.retain(|board, _| followed.contains(board));
    Ok(seen)
}

/// Boards of which an open stream did not show the end, though there was quiet.
fn lagging<'a>(
    evidence: &Evidence<'_>,
    stream: &StreamLog,
    reached: &BTreeMap<&'a BoardName, Seq>,
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
    reached.iter().map(|(board, seq)| (*board, *seq)).filter(is_short).collect()
}

/// Returns whether the reader's machine went away: it would have heard a beat since.
fn has_died(evidence: &Evidence<'_>, stream: &StreamLog) -> bool {
    const BEATS: Duration = Duration::from_secs(10);
    let last = stream.deliveries.last().map_or(stream.asked, |(at, _)| *at);
    evidence.history.reading_from.is_some_and(|from| last + BEATS < from)
}

#[cfg(test)]
mod tests {
    use chatchat::{
        api::{HelloEvent, ResetEvent},
        model::stream::{MasterInfo, ResetReason},
    };

    use super::*;
    use crate::oracle::fixtures::{Fixture, delivered, lobby_cursor, ms, node};

    fn hello(seq: u64) -> StreamEvent {
        StreamEvent::Hello(HelloEvent {
            node: MasterInfo { id: node(1), name: "m".into(), http: "http://m".into() },
            masters: Vec::new(),
            cursor: lobby_cursor(seq),
            beat_ms: 4000,
        })
    }

    fn five() -> Fixture {
        let mut made = Fixture::new();
        for n in 1..=5 {
            made.stored(0, n);
        }
        made.history.reading_from = Some(ms(30_000));
        made
    }

    #[test]
    fn repeats_and_announced_hole_are_accepted() {
        let mut made = five();
        let at = |n: u8| delivered(0, n, u64::from(n));
        made.stream(1, 2, vec![(21_000, hello(2)), (21_000, at(2)), (21_000, at(3))]);
        made.history.streams[0].deliveries.extend([4, 4, 5].map(|n| {
            let cursor = Some(lobby_cursor(u64::from(n)));
            (ms(22_000), chatchat::client::Delivery { event: at(n), cursor })
        }));
        let reset = StreamEvent::Reset(ResetEvent { reason: ResetReason::Ahead });
        made.stream(1, 2, vec![(21_000, hello(2)), (21_000, reset), (21_000, delivered(0, 5, 10))]);
        assert_eq!(made.judge(judge), []);
    }

    #[test]
    fn unannounced_hole_is_reported() {
        let mut made = five();
        made.stream(1, 2, vec![(21_000, hello(2)), (21_000, delivered(0, 4, 4))]);
        assert_eq!(made.judge(judge).len(), 1, "after the cursor");
        let mut made = five();
        made.stream(1, 2, vec![(21_000, hello(4)), (21_000, delivered(0, 5, 5))]);
        assert_eq!(made.judge(judge).len(), 1, "the hello went on further than the cursor");
    }

    #[test]
    fn open_stream_that_lags_in_quiet_is_reported() {
        let mut made = five();
        made.stream(1, 3, vec![(21_000, hello(3)), (25_000, delivered(0, 4, 4))]);
        assert_eq!(made.judge(judge).len(), 1);
        made.history.streams[0].end = Some((ms(26_000), chatchat::client::StreamEnd::Left));
        assert_eq!(made.judge(judge), []);
    }
}
