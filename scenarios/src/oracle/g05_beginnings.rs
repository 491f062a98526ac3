//! G5, beginnings: `hello` names each board that its client knew and asked for, and begins at no
//! place that nobody had been told of and that did not stand in the store by then.
//!
//! A board that a stream begins without is not shown on it at all, while beats and people go on. A
//! stream that begins too far on skips posts, and no cursor shows the hole.

use std::{collections::BTreeMap, time::Duration};

use chatchat::{
    api::StreamEvent,
    client::{Answer, Request},
    model::ids::{BoardName, Cursor, PostId, Seq, StoreEpoch},
};

use super::{
    Evidence, Violation, broken,
    epochs::Epochs,
    stream_line,
    told::{Told, epoch_of, listed},
};
use crate::{
    fault::Kind,
    history::{History, StreamLog},
    property::Property,
};

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let history = evidence.history;
    let epochs = Epochs::read(evidence);
    let known = epochs.ids().map(|epoch| (epoch, first_named(history, epoch)));
    let known: BTreeMap<_, _> = known.collect();
    let (told, asked) = (Told::read(history), first_asked(history));
    let mut found = Vec::new();
    for stream in &history.streams {
        let Some((at, hello)) = beginning(stream) else { continue };
        // That it is of an epoch that the store never had is judged elsewhere (G6).
        let Some(known) = known.get(&hello.epoch) else { continue };
        if is_rolled_back(evidence, stream.asked, at) {
            continue;
        }
        if let Some(board) = left_out(evidence, known, stream, hello) {
            let text =
                format!("a stream that was asked for {board} from its cursor has none of it");
            found.push(broken(Property::G5, "left-out", text, [stream_line(stream, at)]));
        }
        let from = stream.cursor.as_ref().filter(|cursor| cursor.epoch == hello.epoch);
        for (board, place) in &hello.boards {
            // What the client claims is judged by the reset that follows.
            let is_brought = from.is_some_and(|cursor| cursor.boards.get(board) == Some(place));
            let is_told = told.end_before(board, at) >= *place;
            if !is_brought && !is_told && !may_stand(evidence, &asked, board, *place, at) {
                let text = format!("a stream begins at {board} {place}, which was not there yet");
                found.push(broken(Property::G5, "beyond", text, [stream_line(stream, at)]));
            }
        }
    }
    found
}

/// Returns when a stream began, and from where.
fn beginning(stream: &StreamLog) -> Option<(Duration, &Cursor)> {
    stream.deliveries.iter().find_map(|(at, delivery)| match &delivery.event {
        StreamEvent::Hello(hello) => Some((*at, &hello.cursor)),
        _ => None,
    })
}

/// Returns whether an older copy of the store, of the same epoch, may have answered between two
/// times. A master that knows no post takes it for the right one.
fn is_rolled_back(evidence: &Evidence<'_>, from: Duration, to: Duration) -> bool {
    let mut incidents = evidence.incidents.iter();
    incidents.any(|incident| {
        evidence.kind_of(incident) == Some(Kind::Rollback)
            && incident.from <= to
            && evidence.end_of(incident) >= from
    })
}

/// Returns a board that a stream was asked for from a place of its own epoch and that was known to exist
/// in that, but with which the stream does not begin.
fn left_out<'a>(
    evidence: &Evidence<'_>,
    known: &BTreeMap<&BoardName, Duration>,
    stream: &'a StreamLog,
    hello: &Cursor,
) -> Option<&'a BoardName> {
    let cursor = stream.cursor.as_ref().filter(|cursor| cursor.epoch == hello.epoch)?;
    let mut followed = stream.boards.iter().take(Cursor::BOARDS_MAX);
    followed.find(|board| {
        cursor.boards.contains_key(*board)
            && evidence.store.boards.contains_key(*board)
            && known.get(*board).is_some_and(|named| *named < stream.asked)
            && !hello.boards.contains_key(*board)
    })
}

/// Returns whether a place of a board may have stood in the store by a time: there is such a post,
/// and nobody asked for it only later.
fn may_stand(
    evidence: &Evidence<'_>,
    asked: &BTreeMap<PostId, Duration>,
    board: &BoardName,
    place: Seq,
    at: Duration,
) -> bool {
    // Nothing is known of a board that the store does not list.
    let Some(posts) = evidence.store.boards.get(board) else { return true };
    let stands = posts.iter().find(|post| post.seq == place);
    stands.is_some_and(|post| asked.get(&post.id).is_none_or(|first| *first <= at))
}

/// Returns when each post was asked for first.
fn first_asked(history: &History) -> BTreeMap<PostId, Duration> {
    let mut first = BTreeMap::new();
    for operation in &history.operations {
        if let Request::Post { id, .. } = &operation.request {
            let known = first.entry(*id).or_insert(operation.invoked);
            *known = operation.invoked.min(*known);
        }
    }
    first
}

/// Returns when a list, a page with posts or a stream of a store epoch named each board first.
fn first_named(history: &History, epoch: StoreEpoch) -> BTreeMap<&BoardName, Duration> {
    let mut named: Vec<(&BoardName, Duration)> = Vec::new();
    for operation in &history.operations {
        let Some((at, answer)) = operation.reply() else { continue };
        if epoch_of(answer) != Some(epoch) {
            continue;
        }
        named.extend(listed(operation).iter().map(|board| (&board.name, at)));
        if let (Answer::Page(page), Request::Read { board, .. }) = (answer, &operation.request)
            && page.last_seq > Seq(0)
        {
            named.push((board, at));
        }
    }
    for (at, delivery) in history.streams.iter().flat_map(|stream| &stream.deliveries) {
        let given = delivery.cursor.iter().filter(|cursor| cursor.epoch == epoch);
        named.extend(given.flat_map(|cursor| cursor.boards.keys()).map(|board| (board, *at)));
    }
    let mut first = BTreeMap::new();
    for (board, at) in named {
        let known = first.entry(board).or_insert(at);
        *known = at.min(*known);
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::fixtures::{EPOCH, Fixture, delivered, hello, lobby_cursor, located, ms};

    fn dev() -> BoardName {
        "dev".parse().expect("a board")
    }

    fn both(lobby: u64, dev_at: u64) -> Cursor {
        let mut cursor = lobby_cursor(lobby);
        cursor.boards.insert(dev(), Seq(dev_at));
        cursor
    }

    /// Makes a store of two boards, a stream that names both, and a later one that is asked for
    /// both and names the lobby alone.
    fn lacking() -> Fixture {
        let mut made = Fixture::with_posts(3);
        made.store.boards.insert(dev(), Vec::new());
        made.stream(1, 3, vec![(20_100, hello(3))]).stream(1, 3, vec![(25_100, hello(3))]);
        let [first, second] = &mut made.history.streams[..] else { panic!("two streams") };
        first.deliveries[0].1.cursor = Some(both(3, 0));
        let StreamEvent::Hello(hello) = &mut first.deliveries[0].1.event else { panic!("a hello") };
        hello.cursor = both(3, 0);
        second.asked = ms(25_000);
        for stream in [first, second] {
            stream.boards = vec![BoardName::lobby(), dev()];
            stream.cursor = Some(both(3, 0));
        }
        made
    }

    #[test]
    fn stream_without_a_board_that_its_cursor_names_is_reported() {
        assert_eq!(located(&lacking().judge(judge)), ["g05.left-out"]);
        let mut made = lacking();
        made.trouble(18_000, 38_000);
        assert_eq!(located(&made.judge(judge)), ["g05.left-out"], "also under faults");
    }

    #[test]
    fn stream_without_a_board_that_it_was_not_owed_is_accepted() {
        let mut made = lacking();
        made.history.streams[1].boards.pop();
        assert_eq!(made.judge(judge), [], "not asked for");
        let mut made = lacking();
        made.history.streams[1].cursor = Some(lobby_cursor(3));
        assert_eq!(made.judge(judge), [], "in no cursor: the board may be newer than the stream");
        let mut made = lacking();
        made.store.boards.remove(&dev());
        assert_eq!(made.judge(judge), [], "there is no such board");
        let mut made = lacking();
        made.history.streams[0].deliveries[0].0 = ms(25_050);
        assert_eq!(made.judge(judge), [], "nobody had been told of it by then");
        let mut made = lacking();
        made.history.streams[1].cursor.as_mut().expect("it has one").epoch =
            StoreEpoch(EPOCH.0 - 1);
        assert_eq!(made.judge(judge), [], "the cursor is of another epoch");
        let mut made = lacking();
        made.history.streams[1].deliveries.clear();
        assert_eq!(made.judge(judge), [], "turned away");
    }

    #[test]
    fn stream_of_an_epoch_before_a_restore_is_judged_and_one_of_no_epoch_is_not() {
        let mut made = lacking();
        made.restored_at(40_000);
        assert_eq!(located(&made.judge(judge)), ["g05.left-out"]);
        let mut made = lacking();
        made.store.epoch = StoreEpoch(EPOCH.0 + 1);
        assert_eq!(made.judge(judge), [], "nothing is known of its places");
    }

    #[test]
    fn stream_of_an_older_copy_of_the_store_is_accepted() {
        let keys = "target = \"store\"\nby = \"4s\"";
        let mut made = Fixture::with_faults(&[("rollback", keys, 24_000, 30_000)]);
        let told = lacking();
        (made.store, made.history) = (told.store, told.history);
        assert_eq!(made.judge(judge), []);
    }

    /// Makes a store of five posts, the last asked for at 30 s, and a stream without a cursor that
    /// begins there.
    fn begins(place: u64, at: u64) -> Fixture {
        let mut made = Fixture::with_posts(5);
        made.acked(0, 5, 30_000, 30_200, 5);
        made.stream(1, 0, vec![(at, hello(place))]);
        made.history.streams[0].cursor = None;
        made
    }

    #[test]
    fn stream_that_begins_beyond_the_end_is_reported() {
        assert_eq!(located(&begins(5, 29_900).judge(judge)), ["g05.beyond"], "not asked for yet");
        assert_eq!(located(&begins(6, 40_000).judge(judge)), ["g05.beyond"], "never there");
        let mut made = begins(6, 40_000);
        made.history.streams[0].cursor = Some(lobby_cursor(4));
        assert_eq!(located(&made.judge(judge)), ["g05.beyond"], "not where it was asked to");
    }

    #[test]
    fn stream_that_begins_where_a_post_stands_or_was_told_of_or_where_asked_to_is_accepted() {
        for (place, at) in [(4, 20_100), (5, 30_100), (5, 40_000), (0, 20_100)] {
            assert_eq!(begins(place, at).judge(judge), [], "{place} at {at}");
        }
        let mut made = begins(6, 40_000);
        made.stream(2, 5, vec![(39_000, delivered(0, 6, 6))]);
        assert_eq!(made.judge(judge), [], "told by another stream");
        let mut made = begins(9, 40_000);
        made.history.streams[0].cursor = Some(lobby_cursor(9));
        assert_eq!(made.judge(judge), [], "the client's own claim");
    }
}
