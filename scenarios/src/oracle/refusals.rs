//! Refusals: which of them well-formed requests may get at any time, whatever is broken.
//!
//! A refusal is for good: its client asks no more. So it is fair only if it follows from what people
//! did, or says that something is not there of which nobody was told. A request that cannot be served
//! for now is put off.

use std::time::Duration;

use chatchat::{
    client::{Answer, Request},
    model::ids::{BoardName, Seq},
};

use super::{sessions::Sessions, told::ends};
use crate::history::{History, Operation};

/// Returns whether an operation may be answered at this time with this status, a 4xx that refuses it.
pub(super) fn is_fair(
    history: &History,
    sessions: &Sessions,
    operation: &Operation,
    at: Duration,
    status: u16,
) -> bool {
    match (status, &operation.request) {
        (401, _) => sessions.leaves(operation.who).is_some_and(|left| left <= at),
        (
            404,
            Request::Post { board, .. }
            | Request::Read { board, .. }
            | Request::ReadMark { board, .. },
        ) => end_told(history, board, operation.invoked).is_none(),
        // Nobody has read so far.
        (400, Request::ReadMark { board, seq }) => {
            end_told(history, board, operation.invoked).is_none_or(|end| end < *seq)
        }
        // Its author cancelled it, or an operator dropped its dead letter.
        (410, Request::Post { id, .. }) => {
            let mut others = history.operations.iter();
            others.any(|other| matches!(&other.request, Request::Cancel { id: it } if it == id))
                || history.may_be_dropped(operation.who, *id, at)
        }
        // The id stands for another post.
        (422, Request::Post { board, id, text }) => history.sent().any(|sent| {
            sent.id == *id
                && sent.operation.who == operation.who
                && (sent.board, sent.text) != (board, text)
        }),
        _ => false,
    }
}

/// Returns the highest place of a board that an answer before a time told of; none if nobody was told
/// that the board is there. Every store has a lobby.
fn end_told(history: &History, board: &BoardName, before: Duration) -> Option<Seq> {
    let lobby = (*board == BoardName::lobby()).then_some(Seq(0));
    let is_before = |operation: &&Operation| operation.reply().is_some_and(|(at, _)| at < before);
    let answered = history.operations.iter().filter(is_before);
    answered.filter_map(|operation| told_by(operation, board)).chain(lobby).max()
}

/// Returns the place up to which an answer tells that a board goes, if it tells of the board.
fn told_by(operation: &Operation, board: &BoardName) -> Option<Seq> {
    match (&operation.request, operation.reply()) {
        (Request::CreateBoard { board: made }, Some((_, Answer::Done))) => {
            (made == board).then_some(Seq(0))
        }
        _ => ends(operation).into_iter().find_map(|(it, end)| (it == board).then_some(end)),
    }
}

#[cfg(test)]
mod tests {
    use chatchat::{
        api::{Board, BoardList},
        client::Failure,
        model::{rows::Range, stream::Consistency},
    };

    use super::*;
    use crate::{
        history::End,
        oracle::fixtures::{EPOCH, Fixture, busy, id, letter, ms, refused, unsettled},
    };

    /// Returns whether the first person may be refused so at 5.1 s, after all this.
    fn is_fair_after(mut made: Fixture, request: Request, status: u16) -> bool {
        made.did(0, 5000, 5100, request, refused(status));
        let history = &made.history;
        let operation = history.operations.last().expect("just added");
        is_fair(history, &Sessions::read(history), operation, ms(5100), status)
    }

    /// Makes a run in which a person asked for something from 4 s on, and was answered then.
    fn asked(person: usize, to: u64, request: Request, answer: Result<Answer, Failure>) -> Fixture {
        let mut made = Fixture::new();
        made.did(person, 4000, to, request, answer);
        made
    }

    fn named(board: &str) -> BoardName {
        board.parse().unwrap()
    }

    fn post_to(board: BoardName) -> Request {
        Request::Post { board, id: id(1), text: "text".parse().unwrap() }
    }

    fn page_of(board: BoardName) -> Request {
        Request::Read { board, range: Range::Last, limit: 9, wanted: Consistency::Strong }
    }

    fn mark(board: BoardName, seq: u64) -> Request {
        Request::ReadMark { board, seq: Seq(seq) }
    }

    fn first_mark(board: BoardName) -> Request {
        mark(board, 1)
    }

    /// A list of boards that holds only this one.
    fn list_of(name: BoardName) -> Result<Answer, Failure> {
        let boards = vec![Board { name, last_seq: Seq(0), read_mark: Seq(0) }];
        let consistency = Consistency::Weak;
        Ok(Answer::Boards(BoardList { boards, epoch: EPOCH, consistency, as_of: 9 }))
    }

    #[test]
    fn board_may_be_unknown_until_somebody_was_told_of_it() {
        let create = |board| Request::CreateBoard { board: named(board) };
        let requests: [fn(BoardName) -> Request; 3] = [post_to, page_of, first_mark];
        for request in requests {
            let fair = |made| is_fair_after(made, request(named("dev")), 404);
            assert!(fair(Fixture::new()), "nobody made it");
            assert!(fair(asked(1, 4100, create("dev"), busy(503))), "it was not made");
            assert!(fair(asked(1, 4100, create("ops"), Ok(Answer::Done))), "another one was");
            assert!(fair(asked(1, 5000, create("dev"), Ok(Answer::Done))), "made meanwhile");
            assert!(!fair(asked(1, 4999, create("dev"), Ok(Answer::Done))));
            assert!(!fair(asked(1, 4100, Request::Boards, list_of(named("dev")))));
            assert!(!is_fair_after(Fixture::new(), request(BoardName::lobby()), 404));
        }
    }

    #[test]
    fn mark_may_be_refused_above_the_end_only() {
        let marked = |board: &str, seq, shown: &[(usize, u8, u64)]| {
            let mut made = Fixture::new();
            made.read(1, 4000, 4100, Consistency::Weak, shown);
            is_fair_after(made, mark(named(board), seq), 400)
        };
        let shown = [(1, 7, 3)];
        assert!(marked("lobby", 4, &shown) && marked("lobby", 1, &[]) && marked("dev", 1, &shown));
        assert!(!marked("lobby", 3, &shown) && !marked("lobby", 0, &[]));
        assert!(!is_fair_after(Fixture::new(), page_of(BoardName::lobby()), 400), "no mark");
    }

    #[test]
    fn post_may_be_refused_for_a_cancel_of_it_or_another_one_under_its_id() {
        let cancelled = |n| {
            let mut made = Fixture::new();
            made.asked(0, 4000, Request::Cancel { id: id(n) }, None);
            is_fair_after(made, Fixture::request(1), 410)
        };
        assert!(cancelled(1) && !cancelled(2));
        let dropped = |person, n, at, answer| {
            let mut made = Fixture::new();
            made.dropped(letter(person, n), at, answer);
            is_fair_after(made, Fixture::request(1), 410)
        };
        assert!(dropped(0, 1, 4000, Ok(Answer::Done)) && dropped(0, 1, 5100, unsettled()));
        assert!(!dropped(0, 2, 4000, Ok(Answer::Done)) && !dropped(1, 1, 4000, Ok(Answer::Done)));
        assert!(!dropped(0, 1, 5101, Ok(Answer::Done)), "later");
        for nothing in [refused(404), busy(503), busy(429)] {
            assert!(!dropped(0, 1, 4000, nothing), "it did nothing");
        }
        let sent = |person, text: &str| {
            let (board, text) = (BoardName::lobby(), text.parse().unwrap());
            let other = Request::Post { board, id: id(1), text };
            is_fair_after(asked(person, 4100, other, busy(503)), Fixture::request(1), 422)
        };
        assert!(sent(0, "other") && !sent(0, "text 1") && !sent(1, "other"));
    }

    #[test]
    fn session_may_be_refused_from_its_log_out_on() {
        let left = |at: u64, answer: Option<u16>| {
            let end = answer.map(|status| (ms(at + 10), End::Answered(busy(status))));
            let mut made = Fixture::new();
            made.asked(0, at, Request::Leave, end);
            is_fair_after(made, Request::Restore, 401)
        };
        assert!(left(4000, None) && left(5100, None));
        assert!(!left(5101, None), "later");
        assert!(!left(4000, Some(503)), "it did nothing");
    }

    #[test]
    fn nothing_else_may_be_refused() {
        let cancel = || Request::Cancel { id: id(1) };
        for (request, status) in [
            (cancel(), 404),
            (cancel(), 410),
            (Request::Outcome { id: id(1) }, 404),
            (Request::Restore, 404),
            (Fixture::request(1), 400),
            (Fixture::request(1), 401),
            (Fixture::request(1), 410),
            (Fixture::request(1), 413),
            (Fixture::request(1), 422),
        ] {
            let is_fair = is_fair_after(Fixture::new(), request.clone(), status);
            assert!(!is_fair, "{request:?} {status}");
        }
    }
}
