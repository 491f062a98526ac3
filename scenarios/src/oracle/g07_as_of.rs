//! G7, `as_of`: an answer says up to which store time it has all of a board, and it has it.

use chatchat::{client::Answer, model::ids::BoardName};

use super::{
    Evidence, Violation, broken, line,
    told::{ends, listed},
};
use crate::{history::Operation, property::Property};

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for operation in &evidence.history.operations {
        let Some(as_of) = as_of(operation) else { continue };
        let named = ends(operation);
        for (board, end) in &named {
            let posts = evidence.store.boards.get(*board).map_or(&[][..], Vec::as_slice);
            let next = posts.iter().find(|post| post.seq > *end);
            // What is committed later is not older; it may be as old.
            if let Some(next) = next.filter(|next| next.posted_at_ms < as_of) {
                let text = format!(
                    "{board} was said to be whole as of {as_of} and ended at {end}; {} is of {}",
                    next.seq, next.posted_at_ms
                );
                found.push(broken(Property::G7, "as-of", text, [line(operation)]));
            }
        }
        if listed(operation).is_empty() {
            continue;
        }
        let is_listed = |name: &BoardName| named.iter().any(|(board, _)| *board == name);
        for (board, posts) in &evidence.store.boards {
            let first = posts.first().filter(|post| post.posted_at_ms < as_of);
            if let (Some(first), false) = (first, is_listed(board)) {
                let text = format!(
                    "{board} is missing in a list as of {as_of}; its first post is of {}",
                    first.posted_at_ms
                );
                found.push(broken(Property::G7, "as-of", text, [line(operation)]));
            }
        }
    }
    found
}

fn as_of(operation: &Operation) -> Option<u64> {
    match operation.reply()? {
        (_, Answer::Page(page)) => Some(page.as_of),
        (_, Answer::Boards(list)) => Some(list.as_of),
        (_, Answer::Restored(restored)) => Some(restored.as_of),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use chatchat::{
        api::{Board, BoardList},
        client::Request,
        model::{ids::Seq, stream::Consistency},
    };

    use super::*;
    use crate::oracle::fixtures::{EPOCH, Fixture};

    /// Makes a list of boards as of this time; the posts of the lobby are of 1001, 1002, ..
    fn list(lobby: Option<u64>, as_of: u64) -> Fixture {
        let mut made = Fixture::new();
        made.stored(0, 1).stored(0, 2).stored(0, 3);
        let board = |end| Board { name: BoardName::lobby(), last_seq: Seq(end), read_mark: Seq(0) };
        let other = Board { name: "aaa".parse().unwrap(), last_seq: Seq(0), read_mark: Seq(0) };
        let boards = [other].into_iter().chain(lobby.map(board)).collect();
        let list = BoardList { boards, epoch: EPOCH, consistency: Consistency::Weak, as_of };
        made.did(0, 20_000, 20_100, Request::Boards, Ok(Answer::Boards(list)));
        made
    }

    #[test]
    fn answer_that_holds_all_of_its_time_is_accepted() {
        for (lobby, as_of) in [(Some(3), 9999), (Some(2), 1003), (Some(0), 1001), (None, 1001)] {
            assert_eq!(list(lobby, as_of).judge(judge), [], "{lobby:?} {as_of}");
        }
    }

    #[test]
    fn answer_that_lacks_a_post_or_a_board_of_its_time_is_reported() {
        for (lobby, as_of) in [(Some(2), 1004), (Some(0), 1002), (None, 1002)] {
            assert_eq!(list(lobby, as_of).rules(judge), ["g07.as-of"], "{lobby:?} {as_of}");
        }
        let mut made = Fixture::new();
        made.stored(0, 1).stored(0, 2).read(1, 10, 20, Consistency::Weak, &[(0, 1, 1)]);
        assert_eq!(made.judge(judge), [], "as of 9");
    }
}
