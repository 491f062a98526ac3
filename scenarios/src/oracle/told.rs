//! Knowledge of boards: since when it is certain that a board goes at least to a place.

use std::{collections::BTreeMap, time::Duration};

use chatchat::{
    api::{Board, PostState, StreamEvent},
    client::{Answer, Request},
    model::ids::{BoardName, Post, Seq, StoreEpoch},
};

use crate::history::{History, Operation};

/// Ends of boards as anybody was told of them, by any answer or stream, weak ones too: a place
/// that was shown once is there for good.
#[derive(Debug, Default)]
pub(super) struct Told<'a> {
    /// Times with the highest place told by then, ascending.
    ends: BTreeMap<&'a BoardName, Vec<(Duration, Seq)>>,
}

impl<'a> Told<'a> {
    pub(super) fn read(history: &'a History) -> Self {
        let mut told = Self::default();
        for operation in &history.operations {
            let Some((at, _)) = operation.reply() else { continue };
            for (board, end) in ends(operation) {
                told.ends.entry(board).or_default().push((at, end));
            }
        }
        for stream in &history.streams {
            for (at, delivery) in &stream.deliveries {
                if let StreamEvent::Post(post) = &delivery.event {
                    told.ends.entry(&post.board).or_default().push((*at, post.seq));
                }
            }
        }
        for list in told.ends.values_mut() {
            list.sort_unstable();
            let mut highest = Seq(0);
            for (_, seq) in list.iter_mut() {
                highest = highest.max(*seq);
                *seq = highest;
            }
        }
        told
    }

    /// Returns the highest place of a board that anybody was told before a time.
    pub(super) fn end_before(&self, board: &BoardName, at: Duration) -> Seq {
        let Some(list) = self.ends.get(board) else { return Seq(0) };
        let before = list.partition_point(|(told, _)| *told < at);
        before.checked_sub(1).map_or(Seq(0), |nth| list[nth].1)
    }

    /// Returns when it was certain that a board goes at least to a place.
    pub(super) fn since(&self, board: &BoardName, seq: Seq) -> Option<Duration> {
        let list = self.ends.get(board)?;
        list.get(list.partition_point(|(_, told)| *told < seq)).map(|(at, _)| *at)
    }
}

/// Returns the ends of boards that an answer tells.
pub(super) fn ends(operation: &Operation) -> Vec<(&BoardName, Seq)> {
    let of_post = |post: &'_ Post| (post.seq > Seq(0)).then_some(post.seq);
    match operation.reply() {
        Some((_, Answer::Posted(post) | Answer::Fate(Some(PostState::Committed(post))))) => {
            of_post(post).map(|seq| (&post.board, seq)).into_iter().collect()
        }
        Some((_, Answer::Page(page))) => match &operation.request {
            Request::Read { board, .. } => vec![(board, page.last_seq)],
            _ => Vec::new(),
        },
        _ => listed(operation).iter().map(|board| (&board.name, board.last_seq)).collect(),
    }
}

/// Returns the boards that an answer lists.
pub(super) fn listed(operation: &Operation) -> &[Board] {
    match operation.reply() {
        Some((_, Answer::Boards(list))) => &list.boards,
        Some((_, Answer::Restored(restored))) => &restored.boards,
        Some((_, Answer::Opened(opened))) => &opened.boards,
        _ => &[],
    }
}

/// Returns the store's epoch that an answer tells.
pub(super) const fn epoch_of(answer: &Answer) -> Option<StoreEpoch> {
    match answer {
        Answer::Boards(list) => Some(list.epoch),
        Answer::Opened(opened) => Some(opened.epoch),
        Answer::Restored(restored) => Some(restored.epoch),
        Answer::Page(page) => Some(page.epoch),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use chatchat::model::stream::Consistency;

    use super::*;
    use crate::oracle::fixtures::{Fixture, delivered, ms};

    #[test]
    fn highest_place_told_by_then_is_known_and_since_when() {
        let mut made = Fixture::new();
        made.acked(0, 1, 100, 200, 5);
        made.read(1, 300, 400, Consistency::Weak, &[(1, 9, 4)]);
        made.stream(2, 6, vec![(500, delivered(1, 7, 7))]);
        let told = Told::read(&made.history);
        let lobby = BoardName::lobby();
        for (at, end) in [(200, 0), (201, 5), (450, 5), (501, 7)] {
            assert_eq!(told.end_before(&lobby, ms(at)), Seq(end), "{at}");
        }
        assert_eq!(told.since(&lobby, Seq(3)), Some(ms(200)));
        assert_eq!(told.since(&lobby, Seq(6)), Some(ms(500)));
        assert_eq!(told.since(&lobby, Seq(8)), None);
    }
}
