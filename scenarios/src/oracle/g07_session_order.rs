//! G7 session order: what a session reads of boards is never older than what it was acked or
//! shown before, or it is marked weak.

use std::{collections::BTreeMap, time::Duration};

use chatchat::{
    api::StreamEvent,
    client::Answer,
    model::{
        ids::{BoardName, Seq},
        stream::Consistency,
    },
};

use super::{Evidence, Violation, broken, line};
use crate::{
    history::{Operation, Who},
    property::Property,
};

/// Times at which a session was shown that a board goes at least this far.
type Shown = Vec<(Duration, Seq)>;

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut shown: BTreeMap<(Who, &BoardName), Shown> = BTreeMap::new();
    for operation in &evidence.history.operations {
        for (board, seq, at) in told(operation) {
            shown.entry((operation.who, board)).or_default().push((at, seq));
        }
    }
    for stream in &evidence.history.streams {
        for (at, delivery) in &stream.deliveries {
            if let StreamEvent::Post(post) = &delivery.event {
                shown.entry((stream.who, &post.board)).or_default().push((*at, post.seq));
            }
        }
    }
    for list in shown.values_mut() {
        list.sort_unstable();
        // The highest so far, so that one search answers each question.
        let mut highest = Seq(0);
        for (_, seq) in list.iter_mut() {
            highest = highest.max(*seq);
            *seq = highest;
        }
    }
    let mut found = Vec::new();
    for operation in &evidence.history.operations {
        for (board, end) in strong_ends(operation) {
            let Some(list) = shown.get(&(operation.who, board)) else { continue };
            let before = list.partition_point(|(at, _)| *at < operation.invoked);
            let floor = before.checked_sub(1).map_or(Seq(0), |nth| list[nth].1);
            if end < floor {
                let text = format!("{board} ended at {end} after it had been shown to {floor}");
                found.push(broken(Property::G7, "board", text, [line(operation)]));
            }
        }
    }
    found
}

/// Places that an answer told to be there.
fn told(operation: &Operation) -> Vec<(&BoardName, Seq, Duration)> {
    match operation.reply() {
        Some((at, Answer::Posted(post))) => vec![(&post.board, post.seq, at)],
        _ => {
            let at = operation.reply().map_or(Duration::ZERO, |(at, _)| at);
            let mut ends = ends(operation);
            // What a weak answer shows counts as shown, too.
            ends.retain(|(_, seq)| *seq > Seq(0));
            ends.into_iter().map(|(board, seq)| (board, seq, at)).collect()
        }
    }
}

fn strong_ends(operation: &Operation) -> Vec<(&BoardName, Seq)> {
    let consistency = match operation.reply() {
        Some((_, Answer::Page(page))) => page.consistency,
        Some((_, Answer::Boards(list))) => list.consistency,
        Some((_, Answer::Restored(restored))) => restored.consistency,
        _ => return Vec::new(),
    };
    if consistency == Consistency::Strong { ends(operation) } else { Vec::new() }
}

/// Returns the ends of boards that an answer states.
fn ends(operation: &Operation) -> Vec<(&BoardName, Seq)> {
    let list = match operation.reply() {
        Some((_, Answer::Page(page))) => {
            let chatchat::client::Request::Read { board, .. } = &operation.request else {
                return Vec::new();
            };
            return vec![(board, page.last_seq)];
        }
        Some((_, Answer::Boards(list))) => &list.boards,
        Some((_, Answer::Restored(restored))) => &restored.boards,
        _ => return Vec::new(),
    };
    list.iter().map(|board| (&board.name, board.last_seq)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::fixtures::{Fixture, delivered};

    #[test]
    fn older_read_is_accepted_when_weak_concurrent_or_of_another_session() {
        let mut made = Fixture::new();
        made.acked(0, 1, 100, 200, 5);
        made.read(0, 150, 300, Consistency::Strong, &[(1, 9, 4)]);
        made.read(0, 400, 500, Consistency::Weak, &[(1, 9, 4)]);
        made.read(1, 400, 500, Consistency::Strong, &[(1, 9, 4)]);
        made.read(0, 600, 700, Consistency::Strong, &[(0, 1, 5)]);
        assert_eq!(made.judge(judge), []);
    }

    #[test]
    fn strong_read_behind_an_ack_or_stream_is_reported() {
        let mut made = Fixture::new();
        made.acked(0, 1, 100, 200, 5);
        made.read(0, 300, 400, Consistency::Strong, &[(1, 9, 4)]);
        assert_eq!(made.rules(judge), ["g07.board"]);
        let mut made = Fixture::new();
        made.stream(0, 6, vec![(21_000, delivered(1, 7, 7))]);
        made.read(0, 22_000, 22_100, Consistency::Strong, &[(1, 9, 4)]);
        assert_eq!(made.rules(judge), ["g07.board"]);
    }
}
